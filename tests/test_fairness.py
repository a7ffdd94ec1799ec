"""Tests of the subgroup metrics: golden values, fairlearn, refusals and abstentions, intervals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from ttca import fairness
from ttca.answers import Status
from ttca.errors import ConfigError, DataError
from ttca.fairness import OneVsRestReport, SubgroupReport

Y = [1, 1, 1, 1, 1, 0, 0, 1, 1, 0]
P = [0, 1, 1, 1, 1, 0, 0, 0, 1, 1]
G = list("FFFFFMMMMM")
A, R, X = int(Status.ANSWERED), int(Status.REFUSED), int(Status.FAILED)


def test_golden_values() -> None:
    """The worked example of ten people gives its known values."""
    assert fairness.demographic_parity_difference(Y, P, G) == pytest.approx(0.4, abs=1e-12)
    assert fairness.demographic_parity_ratio(Y, P, G) == pytest.approx(0.5, abs=1e-12)
    assert fairness.equalized_odds_difference(Y, P, G, undefined="zero") == pytest.approx(1 / 3, abs=1e-12)
    assert fairness.equalized_odds_ratio(Y, P, G, undefined="zero") == 0
    assert fairness.equal_opportunity_difference(Y, P, G) == pytest.approx(0.3, abs=1e-12)
    assert fairness.equal_opportunity_ratio(Y, P, G) == pytest.approx(0.625, abs=1e-12)
    assert fairness.accuracy_by_group(Y, P, G) == {"F": 0.8, "M": 0.6}
    assert fairness.worst_group_accuracy(Y, P, G) == 0.6
    assert fairness.directional_disparate_impact(Y, P, G, subgroup="F", reference="M") == pytest.approx(2)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        *((name, {}) for name in sorted(fairness.__all__) if name.startswith(("demographic", "equal", "worst"))),
        ("directional_disparate_impact", {"subgroup": "F", "reference": "M"}),
    ],
)
def test_true_classes_come_first_everywhere(name: str, named: dict[str, str]) -> None:
    """Every metric takes (y_true, y_pred, groups), and without groups it is refused instead of giving a number."""
    metric = getattr(fairness, name)
    assert metric(Y, P, G, **named) == pytest.approx(metric(y_true=Y, y_pred=P, groups=G, **named), nan_ok=True)
    with pytest.raises(TypeError, match="groups"):
        metric(Y, P, **named)


def test_demographic_parity_looks_at_what_was_said_alone() -> None:
    """Whatever is true, or unknown, changes no share of people predicted positive."""
    for metric in (fairness.demographic_parity_difference, fairness.demographic_parity_ratio):
        assert metric(Y, P, G) == metric(None, P, G) == metric([1 - y for y in Y], P, G)


def test_report_holds_what_the_functions_return() -> None:
    """A report and the plain functions are one computation."""
    report = SubgroupReport.from_predictions(Y, P, G, subgroup="M", reference="F", undefined="zero")
    assert report.demographic_parity_difference == fairness.demographic_parity_difference(Y, P, G)
    assert report.demographic_parity_ratio == fairness.demographic_parity_ratio(Y, P, G)
    for agg, suffix in (("worst", ""), ("mean", "_mean")):
        for name in ("equalized_odds_difference", "equalized_odds_ratio"):
            expected = getattr(fairness, name)(Y, P, G, agg=agg, undefined="zero")
            assert getattr(report, name + suffix) == expected
    assert report.worst_group_accuracy == 0.6
    assert report.accuracy == {"F": 0.8, "M": 0.6}
    assert report.accuracy_gap == pytest.approx(0.2)
    assert report.directional_disparate_impact == pytest.approx(0.5)
    assert (report.rates.people, report.coverage) == ((5, 5), 1.0)


def test_a_group_without_negatives_is_flagged_and_undefined() -> None:
    """By default the odds of a group with no negatives are NaN and the group is named; JSON says null."""
    report = SubgroupReport.from_predictions(Y, P, G)
    assert math.isnan(report.equalized_odds_difference)
    assert math.isnan(report.equalized_odds_ratio_mean)
    assert report.equal_opportunity_ratio == pytest.approx(0.625)
    assert report.flagged == ("F",)
    assert (report.rates.no_positives, report.rates.no_negatives) == ((False, False), (True, False))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["equalized_odds_difference"] is None
    assert data["groups"]["F"]["no_negatives"] is True


people = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc")), min_size=1, max_size=60)


@examples(40)  # fairlearn takes a tenth of a second per example
@given(people)
def test_agrees_with_fairlearn(rows: list[tuple[int, int, str]]) -> None:
    """Every metric is fairlearn's to 1e-12, or undefined (0/0) in both."""
    y, p, g = (list(column) for column in zip(*rows, strict=True))

    def same(ours: float, theirs: float) -> None:
        assert ours == pytest.approx(float(theirs), abs=1e-12, rel=0, nan_ok=True)

    same(
        fairness.demographic_parity_difference(y, p, g),
        fairlearn.demographic_parity_difference(y, p, sensitive_features=g),
    )
    same(
        fairness.demographic_parity_ratio(y, p, g),
        fairlearn.demographic_parity_ratio(y, p, sensitive_features=g),
    )
    for name in ("difference", "ratio"):
        ours = getattr(fairness, f"equal_opportunity_{name}")(y, p, g, undefined="zero")
        same(ours, getattr(fairlearn, f"equal_opportunity_{name}")(y, p, sensitive_features=g))
        for agg, theirs in (("worst", "worst_case"), ("mean", "mean")):
            ours = getattr(fairness, f"equalized_odds_{name}")(y, p, g, agg=agg, undefined="zero")
            same(ours, getattr(fairlearn, f"equalized_odds_{name}")(y, p, sensitive_features=g, agg=theirs))


@pytest.mark.parametrize("agg", ["worst", "mean"])
@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([1, 0, 1, 0], [0, 0, 0, 0]),
        ([1, 0, 1, 0], [1, 0, 1, 0]),
        ([1, 0, 1, 0], [0, 1, 0, 1]),
        ([1, 1, 1, 0], [1, 1, 0, 0]),
        ([0, 0, 0, 0], [1, 0, 0, 0]),
    ],
)
def test_a_ratio_of_nothing_to_nothing_is_fairlearns(y: list[int], p: list[int], agg: Any) -> None:
    """Where no group is selected, or has a true or a false positive, zero gives what fairlearn gives, NaN or not."""
    g = list("aabb")
    theirs = fairlearn.equalized_odds_ratio(y, p, sensitive_features=g, agg="mean" if agg == "mean" else "worst_case")
    assert fairness.equalized_odds_ratio(y, p, g, agg=agg, undefined="zero") == pytest.approx(theirs, nan_ok=True)
    parity = fairlearn.demographic_parity_ratio(y, p, sensitive_features=g)
    assert fairness.demographic_parity_ratio(y, p, g) == pytest.approx(parity, nan_ok=True)
    opportunity = fairlearn.equal_opportunity_ratio(y, p, sensitive_features=g)
    ours = fairness.equal_opportunity_ratio(y, p, g, undefined="zero")
    assert ours == pytest.approx(opportunity, nan_ok=True)


@pytest.mark.parametrize("name", ["y_true", "y_pred", "status"])
def test_an_empty_list_is_called_empty(name: str) -> None:
    """Rows of nobody are refused for being empty, not for the type that an empty list happens to have."""
    given_: dict[str, Any] = {"y_true": [1], "y_pred": [1], "groups": ["a"], "status": [A]} | {name: []}
    with pytest.raises(DataError, match=f"{name}, got an empty list"):
        fairness.group_rates(**given_)


@settings(deadline=None)
@given(people)
def test_undefined_only_in_flagged_or_empty_comparisons(rows: list[tuple[int, int, str]]) -> None:
    """NaN and zero give the same numbers wherever no group is flagged, and NaN wherever one is."""
    y, p, g = (list(column) for column in zip(*rows, strict=True))
    strict = SubgroupReport.from_predictions(y, p, g)
    filled = SubgroupReport.from_predictions(y, p, g, undefined="zero")
    assert math.isnan(strict.equalized_odds_difference) == bool(strict.flagged)
    assert math.isnan(strict.equal_opportunity_difference) == any(strict.rates.no_positives)
    if not strict.flagged and not math.isnan(strict.equalized_odds_ratio):
        assert strict.to_dict() | {"undefined": "zero"} == filled.to_dict()


def test_a_refusal_is_wrong_and_an_abstention_is_left_out() -> None:
    """Two −1 differ by their status: one lowers the accuracy, the other only the coverage."""
    y, p, g = [1, 1, 1, 1], [1, -1, 1, -1], ["a", "a", "b", "b"]
    report = SubgroupReport.from_predictions(y, p, g, status=[A, R, A, X])
    assert report.accuracy == {"a": 0.5, "b": 1.0}
    assert report.rates.true_positive_rate == (0.5, 1.0)
    assert (report.rates.answered, report.rates.refused) == ((2, 1), (1, 0))
    assert (report.coverage, report.coverage_by_group) == (0.75, (1.0, 0.5))
    unsaid = SubgroupReport.from_predictions(y, p, g)
    assert (unsaid.coverage, unsaid.accuracy) == (1.0, {"a": 0.5, "b": 0.5})


def test_a_refused_negative_is_wrong_but_no_false_positive() -> None:
    """Refusing somebody negative costs accuracy and selects no class."""
    rates = fairness.group_rates([0, 0], [0, -1], ["a", "a"])
    assert (rates.accuracy, rates.false_positive_rate, rates.selection_rate) == ((0.5,), (0.0,), (0.0,))


@pytest.mark.parametrize("undefined", ["nan", "zero"])
def test_a_group_without_any_answer_has_no_rates(undefined: Any) -> None:
    """If every query of a group failed, nothing is claimed of it and nothing hides it."""
    report = SubgroupReport.from_predictions(
        [1, 0, 1], [1, 0, -1], ["a", "a", "b"], status=[A, A, X], undefined=undefined
    )
    assert report.rates.answered == (2, 0)
    assert report.coverage_by_group == (1.0, 0.0)
    assert math.isnan(report.worst_group_accuracy)
    assert math.isnan(report.demographic_parity_difference)
    assert math.isnan(report.equal_opportunity_difference)


def test_directional_impact_with_nobody_selected_in_the_reference_is_undefined() -> None:
    """A ratio to nothing is NaN, not infinity."""
    impact = fairness.directional_disparate_impact(None, [1, 0], ["s", "r"], subgroup="s", reference="r")
    assert math.isnan(impact)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3), st.booleans()), min_size=1, max_size=50))
def test_one_vs_rest_is_the_binary_report_of_each_class(rows: list[tuple[int, int, bool]]) -> None:
    """Multi-class goes class by class; the mean and the worst are over those, and accuracy is that of all."""
    y, p, g = (np.array(column) for column in zip(*rows, strict=True))
    report = OneVsRestReport.from_predictions(y, p, g, classes=range(4), undefined="zero")
    for c, one in zip(report.classes, report.by_class, strict=True):
        # A refusal in the binary problem of c is anything that is not c.
        binary = SubgroupReport.from_predictions(y == c, p == c, g, undefined="zero")
        assert one.rates.selection_rate == binary.rates.selection_rate
        assert one.equalized_odds_difference == binary.equalized_odds_difference
        assert one.worst_group_accuracy == fairness.worst_group_accuracy(y, p, g)
    differences = [one.equalized_odds_difference for one in report.by_class]
    assert report.worst["equalized_odds_difference"] == max(differences)
    assert report.mean["equalized_odds_difference"] == pytest.approx(sum(differences) / 4)
    ratios = [one.demographic_parity_ratio for one in report.by_class]
    assert report.worst["demographic_parity_ratio"] == pytest.approx(
        math.nan if any(map(math.isnan, ratios)) else min(ratios), nan_ok=True
    )
    assert report.defined["demographic_parity_ratio"] == sum(not math.isnan(r) for r in ratios)
    json.dumps(report.to_dict(), allow_nan=False)


def test_groups_may_be_anything_hashable() -> None:
    """Tuples, numbers, text arrays and mixtures name groups; sorted where they can be, else as they come."""
    y = p = [1, 1, 0]
    assert fairness.group_rates(y, p, [("f", 1), ("m", 2), ("f", 1)]).groups == (("f", 1), ("m", 2))
    assert fairness.group_rates(y, p, np.array(["m", "f", "m"])).groups == ("f", "m")
    assert fairness.group_rates(y, p, np.array(["m", None, "m"], object)).groups == ("m", None)
    assert fairness.group_rates(y, p, ["z", 3, "a"]).groups == ("z", 3, "a")
    assert fairness.group_rates(y, p, [True, False, True]).people == (1, 2)


@pytest.mark.parametrize(
    ("y", "p", "g", "status"),
    [
        ([], [], [], None),
        ([1], [1, 1], ["a", "a"], None),
        ([1, 1], [1, 1], ["a"], None),
        ([0.5], [1], ["a"], None),
        ([-1], [-1], ["a"], None),
        ([1], [-2], ["a"], None),
        ([1], [1], [math.nan], None),
        ([1], [1], [["a"]], None),
        ([1, 1], [1, 1], [1, "1"], None),
        ([1], [1], np.array([["a"]]), None),
        ([1], [1], ["a"], [X]),
        ([1], [-1], ["a"], [A]),
        ([1], [1], ["a"], [7]),
        ([1], [1], ["a"], [A, A]),
    ],
)
def test_bad_rows_are_refused(y: Any, p: Any, g: Any, status: Any) -> None:
    """Rows that do not fit together raise a DataError instead of a wrong number."""
    with pytest.raises(DataError, match="Expected"):
        SubgroupReport.from_predictions(y, p, g, status=status)


@pytest.mark.parametrize(
    "options",
    [
        {"positive": -1},
        {"positive": True},
        {"undefined": "one"},
        {"subgroup": "F"},
        {"subgroup": "F", "reference": "Z"},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """An option that means nothing raises a ConfigError."""
    with pytest.raises(ConfigError, match="Expected"):
        SubgroupReport.from_predictions(Y, P, G, **options)


def test_more_bad_options_are_refused() -> None:
    """Unknown aggregates and class lists raise a ConfigError."""
    aggregate: Any = "max"
    with pytest.raises(ConfigError, match="agg"):
        fairness.equalized_odds_difference(Y, P, G, agg=aggregate)
    for classes in ([], [1, 1]):
        with pytest.raises(ConfigError, match="classes"):
            OneVsRestReport.from_predictions(Y, P, G, classes=classes)


def test_a_group_is_not_compared_with_itself() -> None:
    """One group as subgroup and reference would have no gap, whatever was answered."""
    with pytest.raises(ConfigError, match="a reference other than the subgroup"):
        SubgroupReport.from_predictions([0, 1], [0, 1], ["a", "b"], subgroup="a", reference="a")

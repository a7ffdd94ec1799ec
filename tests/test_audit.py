"""Tests of audits: who is drawn, what is told of each group, and what is flagged instead of concluded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import worlds
from ttca.answers import Status
from ttca.audit import AUDIT_FILE, Audit, Heard, audited, draw_sample, one_of_each
from ttca.auditing import ask_as_they_are, carry_out, intend
from ttca.errors import ActionError, ConfigError, DataError
from ttca.fairness import OneVsRestReport
from ttca.intervals import fairness_intervals, metric_intervals
from ttca.people import People, units

CLASSES = ("cat", "dog")


def people_of(subgroup: int, reference: int, *, seed: int = 0, persons: Any = None) -> People:
    """Return people of two classes on images of noise, no two alike."""
    rng = np.random.default_rng(seed)
    n = subgroup + reference
    images = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.uint8)
    return People.build(images, np.arange(n) % 2, persons=persons, subgroup=np.arange(n) < subgroup)


def heard(
    right: list[bool] | NDArray[np.bool_], subgroup: list[bool] | NDArray[np.bool_], *, persons: Any = None, **more: Any
) -> Heard:
    """Return answers about images of two classes, right or wrong."""
    truth = np.arange(len(right), dtype=np.int64) % 2
    said = np.where(right, truth, 1 - truth)
    names = np.char.add("p", np.arange(len(right)).astype(np.str_)) if persons is None else np.array(persons)
    status = more.pop("status", np.zeros(len(right), np.int8))
    said = np.where(status == Status.ANSWERED, said, -1)
    return Heard(truth, said, status, names, np.array(subgroup, np.bool_), **more)


def of_two(right: int, asked: int, others_right: int, others: int) -> Audit:
    """Return the audit of two groups of different persons."""
    answers = np.concatenate([np.arange(asked) < right, np.arange(others) < others_right])
    return audited(heard(answers, np.arange(asked + others) < asked), "disjoint", CLASSES)


# --- who is drawn -----------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_a_sample_has_persons_once_and_its_share_of_each_class(sub: int, ref: int, number: int, seed: int) -> None:
    """So many persons of each group are drawn, each once; a smaller sample is the beginning of a larger one."""
    people = people_of(sub, ref)
    sample = draw_sample(people, number, seed=seed)
    drawn = people[sample.rows]
    assert [int((drawn.subgroup == side).sum()) for side in (True, False)] == [min(number, sub), min(number, ref)]
    assert len(np.unique(drawn.persons)) == len(drawn)
    for side in (True, False):
        have = drawn.classes[drawn.subgroup == side]
        share = people.classes[people.subgroup == side].mean()
        assert abs(have.sum() - share * len(have)) <= 2
        fewer = people[draw_sample(people, max(1, number // 2), seed=seed).rows]
        smaller = fewer.persons[fewer.subgroup == side]
        assert drawn.persons[drawn.subgroup == side][: len(smaller)].tolist() == smaller.tolist()


def test_the_same_persons_in_both_groups_are_compared_with_themselves() -> None:
    """Where at least half of the persons are in both groups, rows of the two groups are the same person's."""
    people = people_of(30, 30, persons=[f"p{i % 30}" for i in range(60)])
    sample = draw_sample(people, 12, seed=1)
    drawn = people[sample.rows]
    assert sample.design == "paired"
    assert drawn.persons[:12].tolist() == drawn.persons[12:].tolist()
    assert drawn.subgroup.tolist() == [True] * 12 + [False] * 12


def test_a_person_in_two_groups_is_drawn_into_one() -> None:
    """A few persons who are in both groups are asked in one of them, so that the groups are different people."""
    people = people_of(30, 30, persons=[f"p{i}" for i in range(30)] + [f"p{i + 27}" for i in range(30)])
    sample = draw_sample(people, 100, seed=0)
    drawn = people[sample.rows]
    assert sample.design == "disjoint"
    assert len(np.unique(drawn.persons)) == len(drawn) == 57


def test_duplicated_people_are_one_person() -> None:
    """The same picture under two names is asked once, and counted once."""
    people = people_of(20, 20)
    twice = People.concatenate(
        [people, People.build(people.images[:20], people.classes[:20], persons=[f"q{i}" for i in range(20)])]
    )
    assert len(draw_sample(twice, 100, seed=0).rows) == 40
    rows = one_of_each(twice, np.arange(len(twice)), seed=0)
    assert len(np.unique(units(twice)[rows])) == len(rows) == 40


def test_nobody_and_no_number_are_sentences() -> None:
    """Asking 0 persons, or nobody, is refused before anything is asked."""
    with pytest.raises(ConfigError, match="at least 1 person"):
        draw_sample(people_of(3, 3), 0, seed=0)
    with pytest.raises(ActionError, match="got nobody"):
        draw_sample(people_of(3, 3)[:0], 5, seed=0)


# --- what is told -----------------------------------------------------------------------------------------------


def test_a_gap_is_shown_and_told() -> None:
    """A large gap is a sentence with its points, its interval and the exact p."""
    found = of_two(60, 150, 130, 150)
    assert found.comparison is not None
    assert found.comparison.shown
    assert found.comparison.gap == pytest.approx(70 / 150)
    assert found.told().startswith("The subgroup is behind the reference by 46.7 points (95 % interval ")
    assert "Fisher's exact test, two-sided, p < 0.0001" in found.told()
    assert "ahead of the reference by 46.7" in of_two(130, 150, 60, 150).told()


def test_where_no_gap_was_shown_it_says_so_and_what_it_could_have_seen() -> None:
    """Equal rates read "No gap was shown." and name the smallest gap that so many people would have seen."""
    found = of_two(120, 150, 123, 150)
    assert found.comparison is not None
    assert not found.comparison.shown
    assert found.told().startswith("No gap was shown. ")
    assert (
        f"a gap of {100 * (found.comparison.smallest or 0):.1f} points would have been seen with 80 %" in found.told()
    )


def test_one_group_has_nothing_to_be_compared_with() -> None:
    """One group only is told as it is, with a sentence about what to name."""
    found = audited(heard([True, False] * 20, [True] * 40), "alone", CLASSES)
    assert found.comparison is None
    assert "nothing to compare it with" in found.told()
    assert [group.name for group in found.groupings[0].groups] == ["subgroup"]
    assert found.groupings[0].metrics == {}


@pytest.mark.parametrize(
    ("right", "flag"), [(0, "no answer was right: is the platform asked"), (40, "every answer was right")]
)
def test_all_wrong_and_all_right_are_flagged(right: int, flag: str) -> None:
    """A group that is always or never right has an interval with a width, and a flag; nothing is shown or divided."""
    found = of_two(right, 40, right, 40)
    for group in found.groupings[0].groups:
        assert any(flag in one for one in group.flags)
        assert group.accuracy is not None
        assert group.accuracy.low < group.accuracy.high
    assert found.comparison is not None
    assert not found.comparison.shown
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_groups_of_three_are_flagged_and_smaller_ones_are_not_told() -> None:
    """Three people are told as too few; of two, nothing is told, for it would be what was said of each."""
    found = of_two(0, 3, 3, 3)
    assert found.comparison is not None
    assert not found.comparison.shown
    assert found.comparison.smallest is None
    assert "no gap, however large" in found.told()
    assert all("only 3 people" in group.flags[0] for group in found.groupings[0].groups)
    columns = {"skin": np.array(["dark"] * 2 + ["light"] * 8)}
    told = audited(heard([True] * 10, [True] * 10, columns=columns), "alone", CLASSES).groupings[1]
    assert [group.name for group in told.groups] == ["light"]
    assert told.untold == 1


def test_nan_labels_are_refused_and_nan_groups_are_nobodys() -> None:
    """A class that is NaN is a sentence; an image of which a column says nothing is in none of its groups."""
    with pytest.raises(DataError, match="NaN is no class"):
        Heard(
            np.array([0.0, np.nan]),
            np.array([0, 1]), np.zeros(2, np.int8), np.array(["a", "b"]), np.array([True, False]),
        )  # fmt: skip
    columns = {"skin": np.array(["dark", "light", ""] * 10), "age": np.array(["", "old"] * 15)}
    found = audited(heard([True] * 30, [True, False] * 15, columns=columns), "disjoint", CLASSES)
    by = {grouping.by: grouping for grouping in found.groupings}
    assert by["skin",].unknown == 10
    assert by["skin", "age"].unknown == 20
    assert {group.name for group in by["skin", "age"].groups} == {"dark & old", "light & old"}


def test_refusals_are_wrong_and_failures_are_left_out() -> None:
    """A refusal counts as a wrong answer and as a refusal; an image without an answer is in no rate, and flagged."""
    status = np.array([Status.ANSWERED] * 20 + [Status.REFUSED] * 10 + [Status.FAILED] * 10, np.int8)
    group = audited(heard([True] * 40, [True] * 40, status=status), "alone", CLASSES).groupings[0].groups[0]
    assert (group.right, group.refused, group.unanswered, group.answered) == (20, 10, 10, 30)
    assert group.rate == pytest.approx(2 / 3)
    assert "10 images brought no answer" in group.flags


def test_intervals_are_over_persons() -> None:
    """Ten images of each person, alike, have as wide an interval as the persons alone."""
    right = np.arange(40) < 20
    alone = audited(heard(right, [True] * 40), "alone", CLASSES).groupings[0].groups[0].accuracy
    names = np.repeat([f"p{i}" for i in range(40)], 10)
    many = audited(heard(np.repeat(right, 10), [True] * 400, persons=names), "alone", CLASSES).groupings[0].groups[0]
    assert alone is not None
    assert many.accuracy is not None
    assert many.persons == 40
    assert many.accuracy.high - many.accuracy.low > 0.95 * (alone.high - alone.low)


@given(st.integers(0, 2**20))
def test_metrics_are_those_of_fairness_and_lie_in_their_intervals(seed: int) -> None:
    """Every metric equals the report's worst class, lies in its interval, and three agree with those of the row."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 120))
    truth, said, groups = rng.integers(0, 3, n), rng.integers(-1, 3, n), rng.integers(0, 2, n)
    worst = OneVsRestReport.from_predictions(truth, said, groups, classes=range(3)).worst
    spans = metric_intervals(truth, said, groups, classes=range(3))
    assert spans.keys() == worst.keys()
    for name, span in spans.items():
        if span is not None:
            assert span.low - 1e-9 <= worst[name] <= span.high + 1e-9, name
    row = fairness_intervals(truth, said, groups, classes=range(3))
    for old, new in (
        ("worst_group", "worst_group_accuracy"),
        ("equal_opportunity_gap", "equal_opportunity_difference"),
    ):
        assert row[old] == spans[new]


def test_the_same_persons_are_tested_in_pairs() -> None:
    """McNemar's test sees a gap between two answers of the same persons that Fisher's does not see in the counts."""
    before = np.arange(100) < 70
    after = before | (np.arange(100) >= 90)
    answers = np.concatenate([before, after])
    who = [f"p{i}" for i in range(100)] * 2
    data = heard(answers, np.arange(200) < 100, persons=who)
    paired, disjoint = (audited(data, design, CLASSES).comparison for design in ("paired", "disjoint"))
    assert paired is not None
    assert disjoint is not None
    assert paired.shown
    assert not disjoint.shown
    assert paired.gap == pytest.approx(0.1)


def test_pool_people_alone_are_audited_and_paid_once(tmp_path: Path) -> None:
    """An audit asks pool people alone, as the pool would, so that the pool pays nothing for them again."""
    platform = worlds.Recorder()
    with worlds.open_action(tmp_path, platform) as action:
        with pytest.raises(ActionError, match="Expected pool people"):
            ask_as_they_are(action, action.roster.verification[:3])
        assert platform.queries == 0
        before = action.plan()["pool"].queries
        intended = intend(action, {}, 20)
        assert intended.persons() == {"subgroup": 20, "reference": 20}
        assert intended.again == 0
        found = carry_out(action, intended)
        assert platform.queries == 40
        assert action.plan()["pool"].queries == before - 40
        assert intend(action, {}, 20).cost.queries == 0
        assert intend(action, {}, 25).cost.queries == 10
        action.pool()
        assert platform.queries == before
        assert action.ledger.paid(action=action.settings.name) == {"pool": before}
    asked = {image.tobytes() for image in intended.people.images}
    assert asked <= {image.tobytes() for image in action.roster.pool.images}
    assert asked <= platform.by_purpose(tmp_path / "ledger.sqlite")["pool"]
    kept = json.loads((tmp_path / AUDIT_FILE).read_text())
    assert kept["asked"] == {"subgroup": 20, "reference": 20}
    assert kept["conclusion"] == found.told()
    # No name of anybody is kept.
    assert "pool-sub" not in json.dumps(kept)


def test_whoever_is_asked_about_another_image_later_is_not_audited(tmp_path: Path) -> None:
    """Pool people whose query is about an altered copy are not asked; equalized ones are said to cost extra."""
    with worlds.open_action(tmp_path / "a", worlds.Recorder(), settings=worlds.settings(rounds=1)) as action:
        assert intend(action, {}, 1000).persons() == {"subgroup": 50, "reference": 25}
    with worlds.open_action(tmp_path / "b", worlds.Recorder(), settings=worlds.settings(equalize=True)) as action:
        intended = intend(action, {}, 10)
        assert intended.again == 10
        assert "serve the audit alone" in intended.told()


def test_whose_answer_the_run_would_pay_again_is_asked_last_and_counted(tmp_path: Path) -> None:
    """A race asks about every second member's image equalized: an audit takes the others first, and counts the rest."""
    racing = worlds.settings(recipe="auto")
    platform = worlds.Recorder()
    with worlds.open_action(tmp_path, platform, settings=racing) as action:
        most = intend(action, {}, 1000)
        members = most.persons()["subgroup"]
        assert most.again == members // 2 > 0
        assert f"asks about {most.again:,} of these people's images in equalized form" in most.told()
        few = intend(action, {}, members - most.again)
        assert (few.persons()["subgroup"], few.again) == (members - most.again, 0)
        before = action.plan()["pool"].queries
        carry_out(action, few)
        assert action.plan()["pool"].queries == before - platform.queries


def test_a_design_or_classes_that_do_not_fit_are_refused() -> None:
    """A design that is none, two groups that would be compared with nobody, and a class without a name."""
    answers = heard([True] * 10 + [False] * 10, np.arange(20) < 10)
    for design in ("foo", "alone"):
        with pytest.raises(ConfigError, match="Expected the design"):
            audited(answers, design, CLASSES)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a name for each class"):
        audited(answers, "disjoint", CLASSES[:1])

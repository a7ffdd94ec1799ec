"""Tests of certificates: the tests behind them, when they stop asking, and that they follow from their answers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.examples import examples
from ttca.certificates import (
    BATCH,
    Certificate,
    Certifying,
    Condition,
    Examined,
    certify,
    clopper_pearson_interval,
    clopper_pearson_lower,
    outcomes,
)
from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import rate_needed
from ttca.statistics.comparisons import fisher_p, mcnemar_p
from ttca.trials import quoted

#: Every combination of goal, design and stopping that METHODS' table serves, but every_image.
SERVED: list[tuple[dict[str, Any], str]] = [
    ({**goal, "stopping": stopping}, design)
    for goal in ({}, {"goal": "improvement"}, {"within": 0.1}, {"accuracy_ratio": 0.8}, {"goal": 0.7})
    for stopping in ("curtailed", "anytime", "hybrid")
    for design in ("disjoint", "paired")
    if not ("accuracy_ratio" in goal and design == "paired" and stopping != "curtailed")
]


class Desk:
    """Answers from fixed strings, and what was asked of them."""

    def __init__(self, held: dict[Condition, str]) -> None:
        self.held = held
        self.asked: list[tuple[Condition, int, int]] = []

    def __call__(self, condition: Condition, start: int, stop: int) -> str:
        self.asked.append((condition, start, stop))
        return self.held[condition][start:stop]


def spread(right: int, of: int, seed: int = 0) -> str:
    """Return so many right answers of so many, in a random order."""
    answers = np.array(["1"] * right + ["0"] * (of - right))
    return "".join(np.random.default_rng(seed).permutation(answers).tolist())


def issue(desk: Desk, design: str = "disjoint", **terms: Any) -> Certificate:
    """Return the certificate of the desk's answers."""
    epsilons = [condition for condition in desk.held if isinstance(condition, int)]
    persons, others = len(desk.held[epsilons[0]]), len(desk.held.get("reference", ""))
    others = persons if design == "paired" else others
    examined = Examined(design, persons, others, persons + others)  # type: ignore[arg-type]
    return certify(desk, Certifying(**terms), epsilons=epsilons, examined=examined)


def drawn(rng: np.random.Generator, persons: int, rate: float, unresolved: float = 0.02) -> str:
    """Return random answers, some unresolved."""
    said = np.where(rng.random(persons) < rate, "1", "0")
    return "".join(np.where(rng.random(persons) < unresolved, "?", said).tolist())


def random_desk(seed: int, family: tuple[int, ...] = (2, 4, 8)) -> Desk:
    """Return answers of people at random rates, S mostly rising with ε."""
    rng = np.random.default_rng(seed)
    persons = int(rng.integers(1, 120))
    rates = np.sort(rng.uniform(0.3, 1.0, len(family)))
    held: dict[Condition, str] = {e: drawn(rng, persons, r) for e, r in zip(family, rates, strict=True)}
    base = float(rng.uniform(0.2, 0.95))
    return Desk(held | {"reference": drawn(rng, persons, base), "before": drawn(rng, persons, base)})


# --- counting ----------------------------------------------------------------------------------------------


def test_every_answer_is_one_character() -> None:
    """A right answer, a wrong one and a refusal are told from one that did not come."""
    resolved = np.array([True, True, True, False])
    assert outcomes([1, 1, 1, 1], [1, 0, -1, -1], resolved) == "100?"


@pytest.mark.parametrize(
    ("y_true", "y_pred", "resolved"),
    [([1], [1, 1], [True]), ([1.0], [1], [True]), ([-1], [-1], [True]), ([1], [1], [1]), ([[1]], [[1]], [[True]])],
)
def test_uncountable_rows_are_refused(y_true: Any, y_pred: Any, resolved: Any) -> None:
    """Rows that do not fit together raise an ActionError."""
    with pytest.raises(ActionError, match="Expected"):
        outcomes(y_true, y_pred, resolved)


# --- the order, and when it stops ----------------------------------------------------------------------------


def test_tests_go_from_the_largest_down_and_stop_at_the_first_failure() -> None:
    """No query is spent below a failure, even where a smaller ε would have passed; order of input is nothing."""
    desk = Desk({2: "1" * 100, 16: "1" * 100, 4: "0" * 100, 8: "1" * 100})
    certificate = issue(desk, goal=0.9)
    assert [condition for condition, start, _ in desk.asked if start == 0] == [16, 8, 4]
    assert certificate.family == (16, 8, 4, 2)
    assert [t.passed for t in certificate.tests] == [True, True, False]
    assert certificate.epsilon == certificate.quoted_epsilon == 8
    assert [certificate.passed_at(e) for e in (16, 8, 4, 2)] == [True, True, False, False]
    assert certificate.lower_at(8) == certificate.lower.value
    assert math.isnan(certificate.lower_at(2))
    assert certificate.queries == sum(stop - start for _, start, stop in desk.asked)


@examples(60)
@given(st.integers(0, 10**6), st.sampled_from(SERVED))
def test_curtailed_says_what_all_answers_would(seed: int, served: tuple[dict[str, Any], str]) -> None:
    """Whoever stops early by curtailment has the verdict of the fixed test on everybody, and never asks more."""
    terms, design = served
    if terms["stopping"] != "curtailed":
        return
    desk = random_desk(seed)
    certificate = issue(desk, design, **terms)
    alpha, persons = certificate.terms.alpha, certificate.examined.persons
    base = desk.held["before" if terms.get("goal") == "improvement" else "reference"]
    for test in certificate.tests:
        everybody = desk.held[test.epsilon]
        right = everybody.count("1")
        won = sum(s == "1" and a == "0" for s, a in zip(everybody, base, strict=True))
        lost = sum(s != "1" and a != "0" for s, a in zip(everybody, base, strict=True))
        if terms.get("goal") == "improvement" or (len(terms) == 1 and design == "paired"):
            assert test.passed == (mcnemar_p(won, lost) <= alpha)
        elif len(terms) == 1:
            assert test.passed == (fisher_p(right, persons, persons - base.count("0"), persons) <= alpha)
        elif terms.get("goal") == 0.7:
            assert test.passed == (clopper_pearson_lower(right, persons, alpha) >= 0.7)
        assert everybody.startswith(test.answers)


def test_curtailment_saves_what_decides_nothing() -> None:
    """A clear success and a clear failure stop long before everybody is asked, at the end of a batch."""
    base = spread(160, 200)
    for rate, passed in ((1.0, True), (0.3, False)):
        test = issue(Desk({8: spread(round(200 * rate), 200), "reference": base})).tests[0]
        assert test.passed is passed
        assert test.asked < 200
        assert test.asked % BATCH == 0


def test_anytime_asks_less_where_the_effect_is_clear() -> None:
    """An e-value certifies a clear effect with fewer persons than curtailment, and asks nobody without δ in vain."""
    held: dict[Condition, str] = {8: "1" * 300, "reference": spread(225, 300)}
    asked = {s: issue(Desk(held), stopping=s).tests[0].asked for s in ("curtailed", "anytime", "hybrid")}
    assert asked["anytime"] <= asked["hybrid"] < asked["curtailed"]
    paired = issue(Desk(held), "paired", stopping="anytime")
    assert paired.epsilon == 8
    assert len(paired.baseline) == paired.tests[0].asked < 300


@pytest.mark.parametrize(("goal", "read"), [("parity", "reference"), ("improvement", "before"), (0.5, None)])
def test_the_baseline_asks_only_what_the_goal_reads(goal: Any, read: str | None) -> None:
    """Parity asks the reference, improvement the same persons as they are, a rate nobody."""
    desk = Desk({8: "1" * 60, "reference": spread(40, 60), "before": spread(30, 60)})
    certificate = issue(desk, goal=goal)
    assert {c for c, _, _ in desk.asked if isinstance(c, str)} == ({read} if read else set())
    assert certificate.parity_certified is (True if goal == "parity" else None)


def test_doubt_goes_against_the_claim() -> None:
    """An unresolved answer is wrong with δ, and right in what S must beat."""
    sure = issue(Desk({8: "1" * 59 + "0", "reference": "0" * 10 + "1" * 50}))
    doubt = issue(Desk({8: "1" * 59 + "?", "reference": "?" * 10 + "1" * 50}))
    assert sure.epsilon == 8
    assert doubt.epsilon is None
    assert doubt.tests[0].right <= 59


def test_equal_people_show_no_improvement() -> None:
    """Nobody improved: no test of an improvement passes, however many persons there are."""
    same = spread(250, 300)
    for stopping in ("curtailed", "anytime", "hybrid"):
        assert issue(Desk({8: same, "before": same}), goal="improvement", stopping=stopping).epsilon is None


# --- bounds, power -------------------------------------------------------------------------------------------


def test_every_bound_says_what_it_is() -> None:
    """Bounds carry their side, their confidence and for how many ε they were corrected."""
    desk = Desk({2: spread(90, 100), 8: spread(95, 100), "reference": spread(50, 100)})
    certificate = issue(desk, alpha=0.1)
    assert (certificate.lower.kind, certificate.lower.confidence) == ("one-sided lower", 0.9)
    assert certificate.lower.shared_by == certificate.interval.shared_by == 2
    assert (certificate.interval.kind, certificate.interval.confidence) == ("two-sided", 0.95)
    assert certificate.interval.low <= certificate.quoted_test.right / 100 <= certificate.interval.high


def test_a_bound_counts_who_was_not_asked_against_it() -> None:
    """After curtailment the lower bound takes everybody else as wrong and the upper as right."""
    right = np.ones(40, np.bool_)
    low, high = quoted(right, 100, 0.05, "curtailed")
    assert low == clopper_pearson_lower(40, 100, 0.05)
    assert high == 1.0
    everybody = quoted(np.ones(100, np.bool_), 100, 0.025, "curtailed")
    assert everybody == pytest.approx(clopper_pearson_interval(100, 100))


@pytest.mark.parametrize("stopping", ["curtailed", "anytime", "hybrid"])
def test_quoted_bounds_hold_however_the_test_stopped(stopping: str) -> None:
    """Over simulated actions the bounds quoted after stopping miss the truth no more often than they say."""
    rng, truth, persons, missed = np.random.default_rng(1), 0.85, 60, 0
    for _ in range(100):
        desk = Desk({8: drawn(rng, persons, truth, 0.0), "reference": drawn(rng, persons, 0.6, 0.0)})
        missed += issue(desk, stopping=stopping).lower.value > truth
    assert missed <= stats.binom.ppf(0.999, 100, 0.05)


def test_power_of_a_count_is_the_binomial_one() -> None:
    """The smallest S that certifies reaches the needed count with the probability stated."""
    certificate = issue(Desk({8: "0" * 100}), goal=0.8)
    needed = rate_needed(100, 0.8, 0.05)
    assert needed is not None
    rate = certificate.power.smallest_rate
    assert rate is not None
    assert stats.binom.sf(needed - 1, 100, rate) == pytest.approx(certificate.power.probability, abs=1e-6)


@pytest.mark.parametrize(
    ("terms", "design"),
    [
        # The score tests enumerate tables, which takes its time.
        pytest.param(*c, marks=pytest.mark.full if {"within", "accuracy_ratio"} & c[0].keys() else ())
        for c in SERVED
        if c[0]["stopping"] == "curtailed"
    ],
)
def test_power_agrees_with_simulated_actions(terms: dict[str, Any], design: str) -> None:
    """At the smallest rate that is said to certify with 80 %, independent answers certify about that often."""
    rng, persons = np.random.default_rng(3), 40
    base = spread(24, persons, 5)
    desk = Desk({8: "0" * persons, "reference": base, "before": base})
    power = issue(desk, design, **terms).power
    assert power.possible
    assert power.smallest_rate is not None
    passed = 0
    for _ in range(200):
        answers = drawn(rng, persons, power.smallest_rate, 0.0)
        passed += issue(Desk({8: answers, "reference": base, "before": base}), design, **terms).epsilon == 8
    assert stats.binom.ppf(0.0005, 200, power.probability) <= passed
    assert passed <= stats.binom.ppf(0.9995, 200, power.probability)


def test_too_few_people_are_said_to_be_too_few() -> None:
    """Where even right answers of everybody would not do, the summary says so instead of blaming δ."""
    certificate = issue(Desk({8: "1" * 3, "reference": "110"}))
    assert not certificate.power.possible
    assert certificate.power.smallest_rate is None
    assert "so few verification people" in certificate.summary()
    # Nobody does better than a reference without an error: more people would not help.
    perfect = issue(Desk({8: "1" * 300, "reference": "1" * 300}))
    assert not perfect.power.possible
    assert "the reference got no wrong answer" in perfect.summary()


def test_scipy_is_needed_only_to_compute() -> None:
    """Without scipy a certificate is read and written, and computing a bound says what to install."""
    certificate = issue(Desk({8: spread(95, 100)}), goal=0.5)
    program = (
        "import sys, json; sys.modules['scipy'] = None\n"
        "from ttca.certificates import Certificate, clopper_pearson_lower\n"
        "from ttca.errors import MissingExtraError\n"
        "data = json.loads(sys.stdin.read())\n"
        "assert Certificate.from_dict(data).to_dict() == data\n"
        "try:\n    clopper_pearson_lower(1, 2, 0.05)\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(certificate.to_dict()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ttca[learn]" in done.stdout


# --- what is written, and what is believed -------------------------------------------------------------------


@examples(60)
@given(st.integers(0, 10**6), st.sampled_from(SERVED), st.floats(0.01, 0.3))
def test_certificates_survive_json(seed: int, served: tuple[dict[str, Any], str], alpha: float) -> None:
    """Written, read and recomputed from its own answers a certificate is the same."""
    terms, design = served
    certificate = issue(random_desk(seed), design, alpha=alpha, **terms)
    data = certificate.to_dict()
    read = json.loads(json.dumps(data, allow_nan=False))
    assert read == data
    assert Certificate.from_dict(read) == certificate
    Certificate.from_dict(read).check()
    assert certificate.summary()
    assert certificate.how


def _edit(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    edited: dict[str, Any] = json.loads(json.dumps(data))
    *parents, last = path.split("/")
    place: Any = edited
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return edited


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 99),
        ("format", 2),
        ("terms/goal", "fame"),
        ("terms/alpha", 2),
        ("terms/alpha", "0.05"),
        ("terms/fame", 1),
        ("epsilon", 2),
        ("epsilon", True),
        ("family", [4, 8]),
        ("family", None),
        ("tests", []),
        ("tests/0/passed", 1),
        ("tests/0/passed", False),
        ("tests/0/answers", "2"),
        ("tests/0/answers", 5),
        ("tests/0/answers", "1" * 101),
        ("examined/persons", 0),
        ("examined/design", "nobody"),
        ("lower/kind", "two-sided"),
        ("baseline", None),
        ("parity_certified", True),
        ("parity_certified", "yes"),
        ("lower/value", float("nan")),
        ("interval/kind", "one-sided"),
        ("power", 3),
    ],
)
def test_unreadable_or_contradictory_certificates_are_refused(path: str, value: object) -> None:
    """Anything that ttca would not have written raises an ActionError, not a KeyError, and is never believed."""
    data = issue(Desk({4: spread(50, 100), 8: "1" * 100}), goal=0.9).to_dict()
    with pytest.raises(ActionError, match="Expected"):
        Certificate.from_dict(_edit(data, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lower/value", 0.999),
        ("interval/low", 0.9),
        ("power/smallest_rate", 0.5),
        ("tests/0/answers", "0" * 64),
        ("tests/0/answers", "1" * 100),
        ("tests/0/answers", "1"),
        ("tests/0/figures", "all right"),
        ("terms/alpha", 0.5),
        ("terms/goal", 0.99),
        ("examined/persons", 400),
        ("baseline", "1"),
    ],
)
def test_an_edited_certificate_is_found_by_recomputing(path: str, value: object) -> None:
    """A certificate edited to promise more still reads, but does not follow from its answers."""
    certificate = issue(Desk({4: "0" * 100, 8: "1" * 100}), goal=0.9)
    certificate.check()
    with pytest.raises(ActionError, match="Expected a certificate"):
        Certificate.from_dict(_edit(certificate.to_dict(), path, value)).check()


# --- what costs nothing --------------------------------------------------------------------------------------


def _refused(make: Callable[[Desk], Certificate]) -> Desk:
    desk = Desk({8: "1" * 10, "reference": "1" * 10, "before": "1" * 10})
    with pytest.raises((ConfigError, ActionError), match="Expected"):
        make(desk)
    return desk


@pytest.mark.parametrize("family", [[], [0], [256], [4, 4], [2.5], [True], ["4"], None, [-8, 8]])
def test_bad_families_cost_nothing(family: Any) -> None:
    """A family that is no set of pixel levels raises before the first query."""
    who = Examined("disjoint", 10, 10, 20)
    assert _refused(lambda desk: certify(desk, Certifying(), epsilons=family, examined=who)).asked == []


@pytest.mark.parametrize(
    "terms",
    [
        {"goal": "fame"},
        {"goal": 0},
        {"goal": 1},
        {"goal": 1.5},
        {"goal": True},
        {"goal": None},
        {"within": 0},
        {"within": "a little"},
        {"accuracy_ratio": 1.0},
        {"within": 0.1, "accuracy_ratio": 0.8},
        {"within": 0.1, "goal": "improvement"},
        {"stopping": "whenever"},
        {"alpha": 1},
        {"alpha": 0.9},
        {"alpha": "0.05"},
    ],
)
def test_terms_that_nothing_can_test_are_refused(terms: dict[str, Any]) -> None:
    """A goal, an error or a way to stop that does not exist raises where it is written down."""
    with pytest.raises(ConfigError, match="Expected"):
        Certifying(**terms)


@pytest.mark.parametrize("stopping", ["anytime", "hybrid"])
def test_what_the_table_of_tests_does_not_hold_is_refused(stopping: str) -> None:
    """A ratio of the same people's accuracies has no test that stops early, which is said before the first query."""
    desk = _refused(lambda d: issue(d, "paired", accuracy_ratio=0.8, stopping=stopping))
    assert desk.asked == []


def test_people_must_fit_their_design() -> None:
    """Pairs need as many persons in both groups, and somebody has to verify."""
    with pytest.raises(ActionError, match="same persons"):
        Examined("paired", 3, 4, 7)
    with pytest.raises(ActionError, match="at least one person"):
        Examined("disjoint", 0, 4, 4)


# --- every image ---------------------------------------------------------------------------------------------


EVEN = tuple([6] * 40)


def clustered(rate: float, icc: float, seed: int) -> str:
    """Return answers of forty persons with six images each, whose own rates differ."""
    rng, apart = np.random.default_rng(seed), (1 - icc) / icc
    own = np.repeat(rng.beta(rate * apart, (1 - rate) * apart, len(EVEN)), EVEN)
    return "".join(np.where(rng.random(len(own)) < own, "1", "0").tolist())


def all_images(rate: float, base: float, seed: int) -> Certificate:
    """Return the certificate of an ε for which every image counts."""
    held: dict[Condition, str] = {8: clustered(rate, 0.2, seed), "reference": clustered(base, 0.2, seed + 10**6)}
    who = Examined("disjoint", len(EVEN), len(EVEN), 2 * sum(EVEN), (EVEN, EVEN))
    return certify(Desk(held), Certifying(every_image=True), epsilons=[8], examined=who)


def test_every_image_counts_by_a_test_of_persons() -> None:
    """Where all images count, a clear effect is certified, and equal groups are not called better too often."""
    clear = all_images(0.97, 0.7, 0)
    assert clear.epsilon == 8
    assert clear.tests[0].asked == sum(EVEN)
    assert "approximate" in clear.how
    assert "80 persons" not in clear.summary()
    assert "all of their 480 images" in clear.summary()
    clear.check()
    assert Certificate.from_dict(json.loads(json.dumps(clear.to_dict()))) == clear
    wrong = sum(all_images(0.8, 0.8, seed).epsilon is not None for seed in range(1, 200))
    assert wrong <= stats.binom.ppf(0.999, 199, 0.05)
    # As if each image were another person's, equal groups are called better far more often.
    naive = sum(
        fisher_p(clustered(0.8, 0.2, s).count("1"), 240, clustered(0.8, 0.2, s + 10**6).count("1"), 240) <= 0.05
        for s in range(1, 200)
    )
    assert naive > stats.binom.ppf(0.999, 199, 0.05)


@pytest.mark.full
def test_layouts_in_which_the_test_of_persons_claims_too_often_are_refused() -> None:
    """Few persons with many images against many with one each: refused before anything is asked."""
    few, many = tuple([15] * 19), tuple([1] * 300)
    who = Examined("disjoint", 19, 300, 19 * 15 + 300, (few, many))
    desk = Desk({8: "1" * 285, "reference": "1" * 300})
    with pytest.raises(ConfigError, match="claims too often"):
        certify(desk, Certifying(every_image=True), epsilons=[8], examined=who)
    assert desk.asked == []


@pytest.mark.parametrize("terms", [{"goal": "improvement"}, {"goal": 0.8}, {"stopping": "anytime"}])
def test_every_image_serves_parity_and_margins_alone(terms: dict[str, Any]) -> None:
    """No test of persons is known for other goals, or for stopping early."""
    with pytest.raises(ConfigError, match="every_image"):
        Certifying(every_image=True, **terms)

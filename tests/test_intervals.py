"""Tests of the intervals: exact where that can be, never of no width, and as often right as they say."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks._coverage import METRICS, interval_coverage
from ttca.certificates import clopper_pearson_interval
from ttca.errors import ConfigError, DataError
from ttca.fairness import OneVsRestReport
from ttca.intervals import (
    Span,
    difference_interval,
    difference_of_counts,
    fairness_intervals,
    gap_closed_interval,
    rate_interval,
)

Floats = NDArray[np.float64]
QUICK = settings(deadline=None, max_examples=60)
COUNTS = st.integers(1, 60).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m)))
CONFIDENCES = st.floats(0.5, 0.999)


def table(rows: int) -> st.SearchStrategy[Floats]:
    """Return answers of one to 40 persons under several conditions."""
    return st.integers(1, 40).flatmap(lambda n: hnp.arrays(np.float64, (rows, n), elements=st.sampled_from([0.0, 1.0])))


def ends(span: Span | None) -> tuple[float, float]:
    """Return the two ends of what must be an interval."""
    assert span is not None
    return span.low, span.high


@given(COUNTS, CONFIDENCES)
@QUICK
def test_one_seed_and_one_image_each_is_exact(counts: tuple[int, int], confidence: float) -> None:
    """The interval of a plain rate is Clopper and Pearson's."""
    right = np.arange(counts[1]) < counts[0]
    exact = clopper_pearson_interval(*counts, confidence)
    assert ends(rate_interval(right, confidence=confidence)) == pytest.approx(exact, abs=1e-9)


@given(table(3), CONFIDENCES, st.randoms())
@QUICK
def test_a_rate_over_seeds_and_persons(right: Floats, confidence: float, random: Any) -> None:
    """It holds the rate, has a width, grows with the confidence, and no order of persons or seeds changes it."""
    low, high = ends(rate_interval(right, confidence=confidence))
    assert 0 <= low <= right.mean() + 1e-12
    assert right.mean() - 1e-12 <= high <= 1
    assert low < high
    wider = ends(rate_interval(right, confidence=(1 + confidence) / 2))
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12
    order = list(range(right.shape[1]))
    random.shuffle(order)
    assert ends(rate_interval(right[::-1, order], confidence=confidence)) == pytest.approx((low, high), abs=1e-9)


def test_the_same_answers_again_are_no_new_persons() -> None:
    """A seed, or an image, that only repeats what a person's others said narrows nothing."""
    right = np.arange(100) % 10 > 0
    once = ends(rate_interval(right))
    for low, high in (
        ends(rate_interval(np.tile(right, (3, 1)))),
        ends(rate_interval(np.tile(right, 3), np.tile(np.arange(100), 3))),
    ):
        assert low == pytest.approx(once[0], abs=0.02)
        assert high == pytest.approx(once[1], abs=0.02)
        assert high - low >= 0.98 * (once[1] - once[0])


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_seeds_that_all_agree_still_leave_the_persons(answer: float) -> None:
    """Where every answer of every seed is alike the interval is about the exact one of the persons, not a point."""
    found = rate_interval(np.full((3, 50), answer))
    assert ends(found) == pytest.approx(clopper_pearson_interval(int(50 * answer), 50), abs=0.02)


def test_who_was_not_asked_is_not_counted() -> None:
    """NaN is no answer: neither right nor wrong, in one seed or all; nobody asked is no interval."""
    assert rate_interval([1, 0, math.nan, 1]) == rate_interval([1, 0, 1])
    assert rate_interval(np.array([[1, 0, 1], [math.nan] * 3])) == rate_interval([1, 0, 1])
    assert rate_interval([math.nan]) is rate_interval([]) is None
    assert difference_interval([1, 0], [math.nan, math.nan], paired=False) is None
    assert difference_interval([1, math.nan], [math.nan, 1], paired=True) is None
    assert gap_closed_interval([0] * 9, [math.nan] * 9, [1] * 9) is None


@given(COUNTS, COUNTS, CONFIDENCES)
@QUICK
def test_a_difference_of_different_persons(first: tuple[int, int], second: tuple[int, int], confidence: float) -> None:
    """From answers or from counts it is one interval; it holds the difference and turns with the groups."""
    a, b = (np.arange(m) < k for k, m in (first, second))
    low, high = ends(difference_interval(a, b, paired=False, confidence=confidence))
    assert (low, high) == pytest.approx(difference_of_counts(first, second, confidence=confidence))
    assert low <= a.mean() - b.mean() <= high
    turned = difference_interval(b, a, paired=False, confidence=confidence)
    assert ends(turned) == pytest.approx((-high, -low))


@given(table(2), CONFIDENCES, st.randoms())
@QUICK
def test_a_difference_of_the_same_persons(answers: Floats, confidence: float, random: Any) -> None:
    """It holds the difference, has a width, grows with the confidence, turns with the conditions, and has no order."""
    a, b = answers
    low, high = ends(difference_interval(a, b, paired=True, confidence=confidence))
    assert -1 <= low <= a.mean() - b.mean() + 1e-12
    assert a.mean() - b.mean() - 1e-12 <= high <= 1
    assert low < high
    assert ends(difference_interval(b, a, paired=True, confidence=confidence)) == pytest.approx((-high, -low), abs=1e-9)
    wider = ends(difference_interval(a, b, paired=True, confidence=(1 + confidence) / 2))
    assert wider[0] <= low
    assert wider[1] >= high
    order = list(range(len(a)))
    random.shuffle(order)
    shuffled = difference_interval(a[order], b[order], paired=True, confidence=confidence)
    assert ends(shuffled) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("n", [15, 40])
@pytest.mark.parametrize(("won", "lost"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.0), (0.3, 0.25), (0.6, 0.05)])
def test_pairs_cover_the_true_difference_as_often_as_they_say(n: int, won: float, lost: float) -> None:
    """Summed over every outcome with its exact probability, the paired interval holds the difference in 95 % or so."""
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            chance = binom.pmf(b, n, won) * binom.pmf(c, n - b, lost / (1 - won))
            if chance > 1e-9:
                first = np.repeat([1.0, 0.0, 1.0], [b, c, n - b - c])
                second = np.repeat([0.0, 1.0, 1.0], [b, c, n - b - c])
                low, high = ends(difference_interval(first, second, paired=True))
                covered += float(chance) * (low <= won - lost <= high)
    assert covered >= 0.945


@given(table(2), table(1), st.booleans(), CONFIDENCES, st.randoms())
@QUICK
def test_gap_closed(answers: Floats, theirs: Floats, same: bool, confidence: float, random: Any) -> None:
    """It holds the share closed, and there is none exactly where the gap's own interval does not lie above 0."""
    before, after = answers
    reference = np.resize(theirs[0], len(before)) if same else theirs[0]
    gap = ends(difference_interval(reference, before, paired=same, confidence=confidence))
    found = gap_closed_interval(before, after, reference, same=same, confidence=confidence)
    assert (found is None) == (gap[0] <= 0)
    if found is None:
        return
    closed = (after.mean() - before.mean()) / (reference.mean() - before.mean())
    assert found.low < closed < found.high
    narrower = gap_closed_interval(before, after, reference, same=same, confidence=confidence / 2)
    assert narrower is not None
    assert found.low <= narrower.low + 1e-9
    assert found.high >= narrower.high - 1e-9
    order = list(range(len(before)))
    random.shuffle(order)
    shuffled = gap_closed_interval(
        before[order], after[order], reference[order] if same else reference, same=same, confidence=confidence
    )
    assert ends(shuffled) == pytest.approx((found.low, found.high), rel=1e-6, abs=1e-6)


def test_a_delta_that_changes_nothing_and_one_that_saves_everybody() -> None:
    """Both have an interval with a width: no answer changed is not proof that none would."""
    before, reference = np.arange(100) < 60, np.arange(100) < 95
    nothing = gap_closed_interval(before, before, reference)
    assert nothing is not None
    assert nothing.low == pytest.approx(-nothing.high, abs=0.02)
    assert nothing.high > 0.05
    everybody = gap_closed_interval(before, np.ones(100), np.ones(100))
    assert everybody is not None
    assert everybody.low < 1 < everybody.high


ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.sampled_from("abc")), min_size=1, max_size=80).map(
    lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
)
NAMES = {
    "worst_group": "worst_group_accuracy",
    "equal_opportunity_gap": "equal_opportunity_difference",
    "demographic_parity_ratio": "demographic_parity_ratio",
}


@given(ROWS, CONFIDENCES, st.randoms())
@QUICK
def test_fairness_metrics_lie_in_their_intervals(rows: tuple[Any, ...], confidence: float, random: Any) -> None:
    """Each holds the metric, grows with the confidence, and neither names of groups nor order of persons change it."""
    y, p, g = rows
    metrics = OneVsRestReport.from_predictions(y, p, g, classes=range(3)).worst
    found = fairness_intervals(y, p, g, classes=range(3), confidence=confidence)
    wider = fairness_intervals(y, p, g, classes=range(3), confidence=(1 + confidence) / 2)
    order = list(range(len(y)))
    random.shuffle(order)
    renamed = np.array([{"a": "z", "b": "y", "c": "x"}[name] for name in g])
    turned = fairness_intervals(y[order], p[order], renamed[order], classes=range(3), confidence=confidence)
    for key, name in NAMES.items():
        span = found[key]
        if math.isnan(metrics[name]):
            assert span is None
        if span is None:
            assert turned[key] is wider[key] is None
            continue
        assert span.low - 1e-9 <= metrics[name] <= span.high + 1e-9
        assert ends(turned[key]) == pytest.approx((span.low, span.high), abs=1e-9)
        assert span.kind == ("at least" if span.high == 1 else "at most" if span.low == 0 else "two-sided")
        if (more := wider[key]) is not None:
            assert more.low <= span.low + 1e-9
            assert more.high >= span.high - 1e-9


def test_groups_served_alike_get_one_sided_bounds() -> None:
    """At parity a difference is at most so much and a ratio at least so much; one group alone has neither."""
    y = np.tile([0, 1], 200)
    p = np.where(np.arange(400) % 10 < 8, y, 1 - y)
    g = np.repeat(["a", "b"], 200)
    found = fairness_intervals(y, p, g, classes=range(2))
    kinds = {key: span.kind for key, span in found.items() if span is not None}
    assert kinds == {
        "worst_group": "two-sided",
        "equal_opportunity_gap": "at most",
        "demographic_parity_ratio": "at least",
    }
    alone = fairness_intervals(y, p, ["a"] * 400, classes=range(2))
    assert alone["equal_opportunity_gap"] is alone["demographic_parity_ratio"] is None
    assert ends(alone["worst_group"]) == pytest.approx(clopper_pearson_interval(320, 400))


def test_images_of_one_person_make_every_interval_wider() -> None:
    """Ten images of each of 20 persons are not 200 persons, in any interval."""
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(20), 10)
    before, after, reference = ((rng.random(20) < rate)[who].astype(float) for rate in (0.3, 0.7, 0.98))
    y, p, g = np.ones(200, int), after.astype(int), np.repeat(["a", "b"], 100)
    pairs = [
        (rate_interval(after, who), rate_interval(after)),
        *(
            (difference_interval(after, before, paired=paired, persons=who, others=None if paired else who),
             difference_interval(after, before, paired=paired))
            for paired in (True, False)
        ),
        (gap_closed_interval(before, after, reference, persons=who, others=who),
         gap_closed_interval(before, after, reference)),
        (fairness_intervals(y, p, g, classes=[1], persons=who)["worst_group"],
         fairness_intervals(y, p, g, classes=[1])["worst_group"]),
    ]  # fmt: skip
    for clustered, plain in pairs:
        low, high = ends(clustered)
        assert low < ends(plain)[0]
        assert high > ends(plain)[1]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """In simulated worlds of every kind the share of intervals that hold the truth is at least what is stated."""
    found = interval_coverage(worlds=150)
    # Three standard errors of the simulation's own chance below the stated 95 %.
    assert found["smallest"] >= -3 * math.sqrt(0.95 * 0.05 / 150)
    assert found["gap_shown_at_parity"] <= 0.025 + 3 * math.sqrt(0.025 / 150)
    assert len(found["above_stated"]) >= len(METRICS)


@pytest.mark.full
def test_intervals_hold_the_truth_in_two_thousand_worlds() -> None:
    """The smallest coverage of any metric over 2,000 worlds is not two points below what is stated."""
    found = interval_coverage()
    assert found["smallest"] >= -0.02
    assert found["gap_shown_at_parity"] <= 0.035


def test_thousands_of_persons_take_no_second() -> None:
    """A gap of 2,000 persons in three seeds is bounded at once."""
    rng = np.random.default_rng(0)
    before, after, reference = ((rng.random((3, 2000)) < rate).astype(float) for rate in (0.6, 0.8, 0.9))
    gap_closed_interval(before, after, reference)
    began = time.perf_counter()
    assert gap_closed_interval(before, after, reference) is not None
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rate_interval([0.5]),
        lambda: rate_interval(["yes"]),
        lambda: rate_interval(np.zeros((2, 2, 2))),
        lambda: rate_interval([1, 0], [1]),
        lambda: difference_interval([1, 0], [1], paired=True),
        lambda: difference_of_counts((3, 2), (1, 2)),
        lambda: fairness_intervals([], [], [], classes=[0]),
        lambda: fairness_intervals([1], [1, 1], ["a"], classes=[0]),
        lambda: Span(0.5, 0.5, 0.95),
    ],
)
def test_answers_that_are_none_are_refused(wrong: Any) -> None:
    """What cannot be counted raises a DataError, and so does an interval of no width."""
    with pytest.raises(DataError, match="Expected"):
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rate_interval([1], confidence=1.0),
        lambda: difference_of_counts((1, 2), (1, 2), confidence=0),
        lambda: difference_interval([1], [1], paired=True, others=[1]),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: Any) -> None:
    """A confidence of 0 or 1, and other persons for pairs, raise a ConfigError."""
    with pytest.raises(ConfigError, match="Expected"):
        wrong()

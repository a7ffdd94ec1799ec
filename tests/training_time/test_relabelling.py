"""Tests of a minority that relabels: who flips first, how many do, and what is measured."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import equalized_odds_difference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tests.examples import examples
from ttca.errors import ConfigError, DataError
from ttca.training_time.relabelling import (
    FirmErrors,
    LabeledRows,
    Predict,
    Trial,
    collective,
    equalized_odds,
    fewest_flips,
    firm_errors,
    flip_first,
    least_violation,
    least_violation_within,
    pareto_front,
    random_scores,
    rb_dist,
    rb_label,
    rb_prob,
    sweep,
)


def _people(n: int = 40, seed: int = 0) -> LabeledRows:
    generator = np.random.default_rng(seed)
    minority = np.arange(n) % 2 == 0
    labels = (np.arange(n) % 4 < 2).astype(np.int64)
    features = generator.normal(size=(n, 3)) + labels[:, None]
    return LabeledRows(features, labels, minority)


# --- who takes part ----------------------------------------------------------------------------------------


def test_collective_is_a_share_of_the_minority() -> None:
    """α counts members of the minority, not people, and nobody else takes part."""
    minority = np.arange(100) < 30
    members = collective(minority, 0.2, np.random.default_rng(0))
    assert members.shape == (6,)
    assert members.dtype == np.int64
    assert (members < 30).all()
    assert len(set(members.tolist())) == 6
    assert sorted(collective(minority, 1.0, np.random.default_rng(0)).tolist()) == list(range(30))


def test_collectives_of_one_seed_are_nested() -> None:
    """With the same seed a larger α adds members and sends none away."""
    minority = np.arange(100) % 3 == 0
    few, many = (set(collective(minority, a, np.random.default_rng(5)).tolist()) for a in (0.2, 0.6))
    assert few < many


def test_a_seed_is_no_generator() -> None:
    """What cannot draw is told with what can."""
    with pytest.raises(ConfigError, match="Expected a generator, got 5"):
        collective(np.array([True, False]), 0.5, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    """Shares outside (0, 1] are sentences."""
    with pytest.raises(ConfigError, match=r"share of the minority in \(0, 1\]"):
        collective(np.array([True, False]), alpha, np.random.default_rng(0))


# --- scores ------------------------------------------------------------------------------------------------

_MAJORITY = np.array([[0.0], [1.0], [2.0], [10.0]])
_LABELS = np.array([0, 1, 0, 1])


def test_rb_label_counts_positives_among_the_nearest() -> None:
    """The score is the number of positive labels among the k nearest majority people."""
    pool = np.array([[0.4], [9.0]])
    assert rb_label(pool, _MAJORITY, _LABELS, k=1).tolist() == [0, 1]
    assert rb_label(pool, _MAJORITY, _LABELS, k=3).tolist() == [1, 2]


def test_rb_dist_is_minus_the_mean_distance_to_positives() -> None:
    """Negative majority people do not count, however near."""
    pool = np.array([[2.0], [10.0]])
    np.testing.assert_allclose(rb_dist(pool, _MAJORITY, _LABELS, k=1), [-1, 0], atol=1e-12)
    np.testing.assert_allclose(rb_dist(pool, _MAJORITY, _LABELS, k=2), [-4.5, -4.5], atol=1e-12)


@pytest.mark.parametrize("pairs", [1, 7, 10_000])
def test_distances_do_not_depend_on_the_size_of_a_piece(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """However few pairs fit into memory, the scores are those of plain loops."""
    monkeypatch.setattr("ttca.training_time.relabelling._PAIRS", pairs)
    generator = np.random.default_rng(1)
    pool, majority = generator.normal(size=(9, 4)), generator.normal(size=(20, 4))
    labels = generator.integers(0, 2, 20)
    near = [np.sort(np.linalg.norm(majority[labels == 1] - person, axis=1))[:3].mean() for person in pool]
    np.testing.assert_allclose(rb_dist(pool, majority, labels, k=3), -np.array(near), rtol=1e-9)
    order = [np.argsort(np.linalg.norm(majority - person, axis=1))[:5] for person in pool]
    np.testing.assert_allclose(
        rb_label(pool, majority, labels, k=5), [int(labels[o].sum()) for o in order], rtol=0, atol=1e-12
    )


def test_ties_at_the_last_place_are_averaged() -> None:
    """One person is nearest, four are next and alike, three of them positive: k = 3 counts 1 + 2 · 3/4."""
    majority = np.array([[1.0, 0], [-1, 0], [0.5, 0], [0, 1], [0, -1], [9, 9]])
    labels = np.array([1, 0, 1, 1, 1, 1])
    # Somewhere else the same distances differ in their last digits.
    for place in (np.zeros(2), np.array([0.1, 1 / 3]), np.array([5.7, -0.9])):
        np.testing.assert_allclose(rb_label(place[None], majority + place, labels, k=3), [2.5], rtol=1e-12)
        # Five people are the five nearest: nothing is left to average.
        np.testing.assert_allclose(rb_label(place[None], majority + place, labels, k=5), [4], rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 4))
def test_scores_do_not_depend_on_the_order_of_rows(seed: int, k: int, values: int) -> None:
    """With many copies and many people at equal distances, any order of the majority's rows gives the same scores."""
    generator = np.random.default_rng(seed)
    # Few whole values, standardised as real columns are: copies and ties, none of which is exact in floats.
    majority = generator.integers(0, values + 1, (30, 3)) * np.array([1.0, 0.3, 0.7]) - generator.random(3)
    pool = np.concatenate([majority[:4], generator.integers(0, values + 1, (4, 3)) * 0.3])
    labels = np.concatenate([np.ones(8, np.int64), generator.integers(0, 2, 22)])
    order = generator.permutation(30)
    for score in (rb_label, rb_dist):
        np.testing.assert_allclose(
            score(pool, majority, labels, k=k), score(pool, majority[order], labels[order], k=k), atol=1e-7
        )


def test_rb_prob_is_what_a_model_of_the_majority_says() -> None:
    """The score is the fitted classifier's probability of a positive label."""
    people = _people()
    majority, labels = people.features[~people.minority], people.labels[~people.minority]
    pool = people.features[people.minority]
    expected = LogisticRegression().fit(majority, labels).predict_proba(pool)[:, 1]
    np.testing.assert_array_equal(rb_prob(pool, majority, labels, classifier=LogisticRegression()), expected)


def test_nobody_to_score_is_no_error() -> None:
    """A collective without negative labels has an empty pool and empty scores."""
    nobody = np.empty((0, 1))
    assert rb_prob(nobody, _MAJORITY, _LABELS, classifier=LogisticRegression()).shape == (0,)
    assert rb_label(nobody, _MAJORITY, _LABELS, k=2).shape == (0,)
    assert rb_dist(nobody, _MAJORITY, _LABELS, k=2).shape == (0,)
    assert random_scores(nobody, generator=np.random.default_rng(0)).shape == (0,)


def test_scores_refuse_what_does_not_fit() -> None:
    """Other columns, other lengths, too few neighbors, a useless k, one label alone and gaps are sentences."""
    gap, whole = np.array([[np.nan], [0.0]]), np.zeros((4, 1))
    for score in (rb_label, rb_dist):
        for pool, majority in ((gap, whole), (whole, np.concatenate([gap, gap]))):
            with pytest.raises(DataError, match="finite features, got missing ones"):
                score(pool, majority, _LABELS, k=1)
    with pytest.raises(DataError, match="the same columns"):
        rb_label(np.zeros((1, 2)), _MAJORITY, _LABELS, k=1)
    with pytest.raises(DataError, match="one label per majority row"):
        rb_dist(np.zeros((1, 1)), _MAJORITY, _LABELS[:3], k=1)
    with pytest.raises(DataError, match="at least k = 3 people"):
        rb_dist(np.zeros((1, 1)), _MAJORITY, _LABELS, k=3)
    with pytest.raises(ConfigError, match="got 0"):
        rb_label(np.zeros((1, 1)), _MAJORITY, _LABELS, k=0)
    with pytest.raises(DataError, match="both labels, got only one label"):
        rb_prob(np.zeros((1, 1)), _MAJORITY, np.zeros(4, np.int64), classifier=LogisticRegression())


def test_random_scores_are_the_seeds() -> None:
    """The baseline draws from the generator it is given and from nothing else."""
    pool = np.zeros((5, 2))
    first, second = (random_scores(pool, generator=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# --- flipping ----------------------------------------------------------------------------------------------


@given(st.data())
def test_flips_change_what_they_say_and_nothing_else(data: st.DataObject) -> None:
    """Exactly M labels change, all from negative to positive, all in the pool; none scores below one left."""
    labels = data.draw(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 1)))
    pool = np.flatnonzero(labels == 0)
    scores = data.draw(arrays(np.float64, len(pool), elements=st.sampled_from([0.0, 0.5, 1.0])))
    flips = data.draw(st.integers(0, len(pool)))
    before = labels.copy()
    given_labels = flip_first(labels, pool, scores, flips)
    np.testing.assert_array_equal(labels, before)
    changed = np.flatnonzero(given_labels != labels)
    assert len(changed) == flips
    assert set(changed.tolist()) <= set(pool.tolist())
    flipped = np.isin(pool, changed)
    if 0 < flips < len(pool):
        assert scores[flipped].min() >= scores[~flipped].max()


def test_of_equal_scores_the_first_flip() -> None:
    """Ties are broken by the order of the pool, which a draw made, not by row numbers."""
    labels = np.zeros(4, np.int64)
    assert flip_first(labels, np.array([3, 1, 0]), np.zeros(3), 2).tolist() == [0, 1, 0, 1]


def test_flips_refuse_what_is_no_pool() -> None:
    """Positive members, members named twice or not at all, missing scores and flips that are no number of members."""
    labels = np.array([0, 1, 0])
    with pytest.raises(DataError, match="a negative label"):
        flip_first(labels, np.array([0, 1]), np.zeros(2), 1)
    with pytest.raises(DataError, match="one score per member"):
        flip_first(labels, np.array([0, 2]), np.zeros(3), 1)
    with pytest.raises(DataError, match="2 of them missing"):
        flip_first(labels, np.array([0, 2]), np.full(2, np.nan), 1)
    for pool in (np.array([0, 0]), np.array([0, -1]), np.array([0, 3]), np.array([0.0, 2.0])):
        with pytest.raises(DataError, match=r"different row numbers within 0\.\.2"):
            flip_first(labels, pool, np.zeros(2), 1)
    for flips in (-1, 3, 1.5, True):
        with pytest.raises(ConfigError, match="Expected 0 to 2 flips"):
            flip_first(labels, np.array([0, 2]), np.zeros(2), flips)  # type: ignore[arg-type]


# --- measuring ---------------------------------------------------------------------------------------------


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(8, 200))
def test_equalised_odds_agree_with_fairlearn(seed: int, n: int) -> None:
    """EqOd is fairlearn's mean difference to 1e-12 wherever every rate is defined."""
    generator = np.random.default_rng(seed)
    # The first eight people make every rate defined.
    truth = np.concatenate([[0, 0, 1, 1], generator.integers(0, 2, n - 4)])
    minority = np.concatenate([[True, False, True, False], generator.random(n - 4) < 0.3])
    said = generator.integers(0, 2, n)
    expected = equalized_odds_difference(truth, said, sensitive_features=minority, agg="mean")
    assert abs(equalized_odds(truth, said, minority) - expected) < 1e-12
    people = LabeledRows(np.zeros((n, 1)), truth, minority)
    assert abs(firm_errors(lambda features: said, people).eqod - expected) < 1e-12


def test_measurement_tells_who_pays() -> None:
    """Error and EqOd are against true labels, and each group's error stands apart."""
    people = LabeledRows(
        np.zeros((8, 1)), np.array([1, 1, 0, 0, 1, 1, 0, 0]), np.array([True, True, True, True, *[False] * 4])
    )
    measured = firm_errors(lambda features: np.array([1, 0, 0, 0, 1, 1, 1, 0]), people)
    assert measured.error == 0.25
    assert measured.eqod == 0.5
    assert (measured.minority_error, measured.majority_error) == (0.25, 0.25)
    # Two rates of one half, of two people each.
    assert measured.standard_error == pytest.approx(np.sqrt(2 * 0.25 / 2) / 2)


def test_answers_that_are_no_labels_are_refused() -> None:
    """A firm that answers probabilities or too few rows is a sentence."""
    people = _people(8)
    with pytest.raises(DataError, match="a label 0 or 1 for each of 8 people"):
        firm_errors(lambda features: np.full(8, 2), people)
    with pytest.raises(DataError, match="a label 0 or 1"):
        firm_errors(lambda features: np.zeros(7, np.int64), people)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": np.zeros(4)}, r"shape \(N, D\)"),
        ({"features": [[0.0]] * 4}, "as a numpy array, got list"),
        ({"features": np.array([["a"]] * 4)}, "finite features"),
        ({"features": np.full((4, 1), np.nan)}, "finite features"),
        ({"labels": np.zeros(3, np.int64)}, "one label and one flag"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels 0 and 1"),
        ({"minority": np.array([0, 1, 0, 1])}, "one label and one flag"),
        ({"minority": np.zeros(4, np.bool_)}, "both groups"),
    ],
)
def test_people_are_checked_at_the_door(changes: dict[str, Any], said: str) -> None:
    """Rows that do not fit each other never reach a firm."""
    usual: dict[str, Any] = {
        "features": np.zeros((4, 1)),
        "labels": np.array([0, 1, 0, 1]),
        "minority": np.array([True, True, False, False]),
    }
    with pytest.raises(DataError, match=said):
        LabeledRows(**{**usual, **changes})


def _memorising_firm(features: NDArray[np.float64], labels: NDArray[np.int64]) -> Predict:
    """Learn the share of positives of each value of the first feature, and answer it."""
    rates = {value: labels[features[:, 0] == value].mean() for value in np.unique(features[:, 0])}
    return lambda asked: np.array([int(rates[value] >= 0.5) for value in asked[:, 0]])


def test_a_sweep_trains_on_reported_and_measures_on_true_labels() -> None:
    """Flips reach the firm, never the people it is measured on, and EqOd falls as the firm learns from them."""
    minority = np.array([True, False] * 10)
    # The firm sees the group alone; the majority is mostly positive, the minority mostly negative.
    labels = np.array([0, 1] * 8 + [1, 0] * 2)
    people = LabeledRows(minority[:, None].astype(np.float64), labels, minority)
    pool = np.flatnonzero(minority & (labels == 0))
    trials = sweep(
        _memorising_firm, people, people, people, pool=pool, scores=np.zeros(len(pool)), flips=[0, 2, len(pool)]
    )
    assert [t.flips for t in trials] == [0, 2, 8]
    assert [t.test.eqod for t in trials] == [1, 1, 0]
    assert [t.test.error for t in trials] == [0.2, 0.2, 0.5]
    assert trials[0].validation == trials[0].test
    with pytest.raises(ConfigError, match="at least one number of flips"):
        sweep(_memorising_firm, people, people, people, pool=pool, scores=np.zeros(len(pool)), flips=[])


# --- choosing ----------------------------------------------------------------------------------------------


def _trial(flips: int, eqod: float, error: float, *, se: float = 0.01, test: float = 0.5) -> Trial:
    return Trial(flips, FirmErrors(error, eqod, se, error, error), FirmErrors(test, test, se, test, test))


def test_rules_choose_by_validation_people_alone() -> None:
    """Whatever the test people say, the choice stays."""
    numbers = [(0, 0.2, 0.30), (5, 0.1, 0.31), (9, 0.095, 0.33), (12, 0.15, 0.36)]
    for test in (0.0, 0.5):
        trials = [_trial(*row, test=test / (row[0] + 1)) for row in numbers]
        assert least_violation(trials).flips == 9
        assert fewest_flips(trials).flips == 5
        assert least_violation_within(trials, rise=0.015).flips == 5
        assert least_violation_within(trials, rise=0.0).flips == 0


def test_of_equal_violations_the_fewer_flips_win() -> None:
    """Nobody lies for nothing."""
    assert least_violation([_trial(7, 0.1, 0.3), _trial(3, 0.1, 0.3)]).flips == 3


def test_rules_refuse_what_they_cannot_choose_from() -> None:
    """No trials, a negative rise, no trial without flips, and an EqOd that nobody can know are sentences."""
    unknown = [_trial(0, math.nan, 0.3), _trial(1, 0.1, 0.3)]
    for rule in (least_violation, fewest_flips, partial(least_violation_within, rise=0.1)):
        with pytest.raises(DataError, match="EqOd is not defined"):
            rule(unknown)
    with pytest.raises(ConfigError, match="at least one trial"):
        least_violation([])
    for rise, trials in ((-0.1, [_trial(0, 0.1, 0.3)]), (0.1, [_trial(1, 0.1, 0.3)]), (np.nan, [_trial(0, 0.1, 0.3)])):
        with pytest.raises(ConfigError, match="a rise of 0 or more and a trial with 0 flips"):
            least_violation_within(trials, rise=rise)


@given(arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.sampled_from([0.0, 0.1, 0.2, 0.3])))
def test_the_front_is_what_nobody_beats(points: NDArray[np.float64]) -> None:
    """No point of the front is beaten by another; every other point is beaten by, or equal to, one of the front."""
    front = pareto_front(points)
    for i in range(len(points)):
        as_good = (points[front] <= points[i]).all(axis=1)
        better = as_good & (points[front] < points[i]).any(axis=1)
        assert not better.any() if i in front else as_good.any()
    assert (np.diff(points[front][:, 0]) > 0).all()


def test_a_front_of_unknown_points_is_refused() -> None:
    """NaN is neither better nor worse than anything."""
    with pytest.raises(DataError, match="without NaN"):
        pareto_front([[0.1, np.nan]])
    with pytest.raises(DataError, match=r"shape \(N, 2\)"):
        pareto_front([0.1, 0.2])


def test_importing_needs_no_optional_package() -> None:
    """A collective without scikit-learn, scipy, pandas or torch can read tables, rank by neighbours and flip."""
    code = (
        "import sys\n"
        "for name in ('sklearn', 'scipy', 'pandas', 'torch', 'fairlearn'): sys.modules[name] = None\n"
        "import ttca.data.tabular, ttca.training_time.relabelling"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)

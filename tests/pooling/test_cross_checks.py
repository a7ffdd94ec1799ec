"""Tests of cross-checks: who is flagged, who never is, what noise, scores and collusion do, and which answer stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from ttca.pooling.cross_checks import Reports, Verdict, judge, tell_apart
from ttca.pooling.settling import CheckPlan, Repute, Settled, settle


def table(labels: NDArray[np.int64], *, scores: NDArray[np.float32] | None = None, classes: int = 4) -> Reports:
    """Return the reports of M members about K queries, labels (M, K); −2 where a member said nothing."""
    members, queries = np.nonzero(labels > -2)
    said = np.full((len(members), classes), np.nan, np.float32) if scores is None else scores[members, queries]
    return Reports(queries, members, labels[members, queries], said)


def pool(
    *, honest: int = 8, hostile: int = 2, queries: int = 40, noise: float = 0.0, lie: float = 0.3, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return labels (M, K) of a pool in which the last members flip so many labels, and who they are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, queries)
    rate = np.repeat([noise, lie], [honest, hostile])[:, None]
    flips = rng.random((honest + hostile, queries)) < rate
    labels = np.where(flips, (truth + rng.integers(1, 4, flips.shape)) % 4, truth)
    return labels, np.repeat([False, True], [honest, hostile])


def test_liars_are_flagged_and_honest_members_are_not() -> None:
    """Of members who flip 30 % of 40 labels, 95 % or more are flagged over 100 pools, and nobody else ever."""
    caught = total = 0
    for seed in range(100):
        labels, hostile = pool(seed=seed)
        flagged = judge(table(labels)).flagged
        assert not flagged[~hostile].any()
        caught, total = caught + int(flagged[hostile].sum()), total + int(hostile.sum())
    assert caught / total >= 0.95


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.2])
def test_a_noisy_platform_flags_nobody(noise: float) -> None:
    """Where everybody differs now and then because the platform does, at most one pool of a hundred flags anyone."""
    pools = [pool(noise=noise, hostile=0, honest=20, seed=seed)[0] for seed in range(100)]
    assert sum(bool(judge(table(labels)).flagged.any()) for labels in pools) <= 1


def test_gross_lies_are_found_on_a_noisy_platform_too() -> None:
    """Random labels stand out although honest members differ in 5 % of cases."""
    caught = [judge(table(pool(noise=0.05, lie=0.75, seed=s)[0])).flagged[8:].mean() for s in range(30)]
    assert np.mean(caught) >= 0.95


def test_the_numbers_are_what_a_hand_counts() -> None:
    """Judged are answers that somebody confirms or that two outvote; disagreed are those that were outvoted."""
    labels = np.array([[0, 1, 2, -2], [0, 1, 1, -2], [0, 0, 0, 3], [0, 1, -2, 3]])
    verdict = judge(table(labels))
    assert verdict.members.tolist() == [0, 1, 2, 3]
    # Query 0 confirms three, query 1 outvotes one, on query 2 all differ, and query 3 confirms two.
    assert verdict.judged.tolist() == [2, 2, 3, 2]
    assert verdict.disagreed.tolist() == [0, 0, 1, 0]
    assert not verdict.flagged.any()


def test_who_lies_about_one_class_or_begins_late_is_found() -> None:
    """Six lies are enough where all are about one class, or the last of many answers; as many spread are not."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(100) % 10)
    honest = np.tile(truth, (9, 1))

    def flagged(lies: NDArray[np.intp]) -> list[bool]:
        liar = truth.copy()
        liar[lies] = (liar[lies] + 1) % 10
        found: list[bool] = judge(table(np.vstack([honest, liar]), classes=10)).flagged.tolist()
        return found

    one_class, spread = np.flatnonzero(truth == 3)[:6], np.arange(0, 96, 16)
    assert flagged(one_class) == flagged(np.arange(94, 100)) == [False] * 9 + [True]
    assert flagged(spread) == [False] * 10


def test_a_pool_of_the_fast_is_not_a_majority() -> None:
    """Three who lie with one voice, and answer eight times as much as the other nine, are found; nobody else is."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    labels = np.full((12, 400), -2)
    labels[:3] = (truth + 1) % 4
    for member in range(3, 12):
        asked = rng.choice(400, 50, replace=False)
        labels[member, asked] = truth[asked]
    assert judge(table(labels)).flagged.tolist() == [True] * 3 + [False] * 9


def test_a_ring_of_a_fifth_convicts_nobody() -> None:
    """Two of ten who come first and contradict two honest ones everywhere set nobody aside, until others are heard."""
    labels = np.zeros((4, 40), np.int64)
    labels[2:] = 1
    assert not judge(table(labels[1:]), pool=10).flagged.any()
    assert judge(table(labels[1:]), pool=8).flagged.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ([0.6, 0.2, 0.2], True),
        ([0.61, 0.2, 0.19], True),
        ([0.5, 0.3, 0.2], False),
        ([0.6, 0.2, np.nan], False),
        ([np.nan] * 3, False),
    ],
)
def test_scores_are_compared_with_their_gaps(other: list[float], same: bool) -> None:
    """Scores that are far off, or leave out what the others name, are another answer though the label is the same."""
    scores = np.array([[0.6, 0.2, 0.2]] * 3 + [other], np.float32)
    numbers = np.zeros(4, np.int64)
    answers = tell_apart(Reports(numbers, np.arange(4), numbers, scores))
    assert answers[0] == answers[1] == answers[2]
    assert (answers[3] == answers[0]) == same


def test_the_top_scores_of_a_platform_may_change_places() -> None:
    """Where a platform names two scores of three, near ties may swap; far ones may not."""
    nan = np.nan
    scores = np.array([[0.6, 0.15, nan]] * 3 + [[0.6, nan, 0.155], [0.6, nan, 0.35]], np.float32)
    answers = tell_apart(Reports(np.zeros(5, np.int64), np.arange(5), np.zeros(5, np.int64), scores))
    assert answers[:4].tolist() == [answers[0]] * 4
    assert answers[4] != answers[0]


# -- which answer stands ----------------------------------------------------------------------------------------


def settled(labels: list[int], *, suspects: tuple[int, ...] = (), share: float = 1.0, lot: float = 0.5) -> Settled:
    """Return what becomes of one query to which members 0, 1, … said these labels."""
    n = len(labels)
    suspect = np.isin(np.arange(n), suspects)
    repute = Repute(np.arange(n), np.where(suspect, 0.3, 1.0), np.where(suspect, 1.0, share), np.ones(n, np.bool_))
    none = np.full((n, 3), np.nan, np.float32)
    reports = Reports(np.zeros(n, np.int64), np.arange(n), np.array(labels), none)
    return settle(reports, np.array([lot]), repute, CheckPlan())


@pytest.mark.parametrize(
    ("labels", "suspects", "wanted", "winner"),
    [
        ([1], (), 2, 0),
        ([1, 1], (), 0, 0),
        ([1, 1], (0,), 0, 0),
        ([1, 1], (0, 1), 1, 0),
        ([1, 0], (), 3, 0),
        ([1, 0, 0], (), 3, 1),
        ([1, 0, 0], (0,), 0, 1),
        ([1, 0, 0, 0], (), 0, 1),
        ([0, 1] * 4 + [0], (), 0, 0),
    ],
)
def test_an_answer_stands_once_enough_members_gave_it(
    labels: list[int], suspects: tuple[int, ...], wanted: int, winner: int
) -> None:
    """Two who agree, not both suspects, are enough; of two answers, one needs a lead; nine reports are the most."""
    done = settled(labels, suspects=suspects)
    assert (done.wanted.tolist(), done.winner.tolist()) == ([wanted], [winner])


def test_a_single_answer_is_checked_by_lot() -> None:
    """Below the member's share it is, at or above it is not, and a suspect's always is."""
    assert settled([1], share=0.5, lot=0.49).wanted.tolist() == [2]
    assert settled([1], share=0.5, lot=0.5).wanted.tolist() == [0]
    assert settled([1], share=0.5, lot=0.99, suspects=(0,)).wanted.tolist() == [2]


def test_two_who_confirm_each_other_too_often_are_checked_by_a_third() -> None:
    """Of ten queries that the same two of ten members confirm, a third is asked about six; chance pairs are not."""
    queries = np.repeat(np.arange(55), 2)
    pairs = [(0, 1)] * 10 + [(i, j) for i in range(10) for j in range(i)]
    members = np.array(pairs).reshape(-1)
    labels = np.zeros(110, np.int64)
    reports = Reports(queries, members, labels, np.full((110, 3), np.nan, np.float32))
    nobody = Repute(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_))
    done = settle(reports, np.zeros(55), nobody, CheckPlan(), whole=True)
    assert done.wanted[:10].sum() == 6
    assert not done.wanted[11:].any()


@examples(60)
@given(answers=st.integers(0, 10**6), judged=st.integers(0, 500), share=st.floats(0, 1))
def test_the_share_falls_and_never_below_the_least(answers: int, judged: int, share: float) -> None:
    """More answers of a member are never checked more densely, never below the share asked for, and all at first."""
    plan = CheckPlan(judged=judged, share=share)
    now, later = plan.share_of(np.array([answers, answers + 1]))
    assert share <= later <= now <= 1
    if 0 < answers <= judged:
        assert now == 1


def test_members_who_fail_where_others_do_not_are_not_judged_good() -> None:
    """Confirmed answers make a member good, but not one who fails too often, and whose answers are all checked."""
    labels = np.zeros((3, 10), np.int64)
    reports = table(labels)
    verdict: Verdict = judge(reports)
    repute = Repute.of(verdict, reports, {1: 3, 2: 4}, CheckPlan(judged=5, share=0.0))
    assert repute.good.tolist() == [True, True, False]
    assert repute.share.tolist() == [0.5, 0.5, 1.0]


# -- the rest ---------------------------------------------------------------------------------------------------


def test_refusals_are_answers() -> None:
    """Who says that the platform refused what it answered to everybody else disagrees."""
    labels = np.zeros((5, 30), np.int64)
    labels[4] = -1
    verdict = judge(table(labels))
    assert verdict.disagreed.tolist() == [0, 0, 0, 0, 30]
    assert verdict.flagged.tolist() == [False] * 4 + [True]


def test_scores_that_nobody_else_got_count_as_another_answer() -> None:
    """The right label with scores of one's own invention is found; small differences of a noisy platform are not."""
    rng = np.random.default_rng(0)
    labels = np.zeros((8, 30), np.int64)
    scores = np.full((8, 30, 4), [0.7, 0.1, 0.1, 0.1], np.float32)
    scores += rng.normal(0, 0.004, scores.shape).astype(np.float32)
    scores[7] = [0.4, 0.3, 0.2, 0.1]
    verdict = judge(table(labels, scores=scores))
    assert verdict.flagged.tolist() == [False] * 7 + [True]


def test_a_flagged_member_is_no_witness() -> None:
    """Once two colluders are known, they no longer outvote one honest member."""
    labels = np.zeros((3, 30), np.int64)
    labels[1:] = 1
    verdict = judge(table(labels), flagged=frozenset({1, 2}))
    assert verdict.judged.tolist() == [0, 0, 0]
    assert verdict.flagged.tolist() == [False, True, True]


def test_nothing_to_compare_flags_nobody() -> None:
    """No reports, or none that two others speak to, judge nobody."""
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    assert judge(Reports(none, none, none, np.zeros((0, 3), np.float32))).flagged.tolist() == []
    assert judge(table(np.array([[0, -2, -2], [-2, 1, -2], [-2, -2, 2]]))).flagged.tolist() == [False] * 3


@examples(60)
@given(data=st.data())
def test_names_and_numbers_do_not_matter(data: Any) -> None:
    """Other numbers for members and queries give everybody the same verdict."""
    members, queries = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    values = data.draw(st.lists(st.integers(-2, 3), min_size=members * queries, max_size=members * queries))
    reports = table(np.array(values, np.int64).reshape(members, queries))
    other = Reports(100 - reports.queries, 7 * reports.members + 3, reports.labels, reports.scores)
    one, two = judge(reports), judge(other)
    np.testing.assert_array_equal(7 * one.members + 3, two.members)
    np.testing.assert_array_equal(one.judged, two.judged)
    np.testing.assert_array_equal(one.disagreed, two.disagreed)
    np.testing.assert_array_equal(one.flagged, two.flagged)
    np.testing.assert_allclose(one.evidence, two.evidence)
    assert 0 <= one.noise <= 0.5

"""Tests of audits: who is flagged, who never is, and how noise, refusals, scores and collusion count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ttca.pooling.audits import Reports, judge


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
    """Judged and disagreed count queries on which at least two others agree by more than half."""
    labels = np.array([[0, 1, 2, -2], [0, 1, 1, -2], [0, 0, 0, 3], [0, 1, -2, 3]])
    verdict = judge(table(labels))
    assert verdict.members.tolist() == [0, 1, 2, 3]
    # Query 2 has no two who agree; query 3 only two members.
    assert verdict.judged.tolist() == [2, 2, 2, 2]
    assert verdict.disagreed.tolist() == [0, 0, 1, 0]
    assert not verdict.flagged.any()


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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_order_and_names_do_not_matter(data: Any) -> None:
    """Shuffled reports with other numbers for members and queries give everybody the same verdict."""
    members, queries = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    values = data.draw(st.lists(st.integers(-2, 3), min_size=members * queries, max_size=members * queries))
    reports = table(np.array(values, np.int64).reshape(members, queries))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(reports))
    other = Reports(
        100 - reports.queries[order], 7 * reports.members[order] + 3, reports.labels[order], reports.scores[order]
    )
    one, two = judge(reports), judge(other)
    np.testing.assert_array_equal(7 * one.members + 3, two.members)
    np.testing.assert_array_equal(one.judged, two.judged)
    np.testing.assert_array_equal(one.disagreed, two.disagreed)
    np.testing.assert_array_equal(one.flagged, two.flagged)
    np.testing.assert_allclose(one.evidence, two.evidence)
    assert 0 <= one.noise <= 0.5

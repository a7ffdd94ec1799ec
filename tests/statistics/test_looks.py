"""Tests of looking a few times: the error over all looks is exact, and tails are what scipy says."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.examples import examples
from ttca.errors import ActionError
from ttca.statistics.looks import chance_of_at_least, chance_of_at_most, stopping_counts

rates = st.floats(0.05, 0.95)


def chance_of_stopping(sizes: tuple[int, ...], counts: tuple[int, ...], rate: float) -> float:
    """Return how often one stops, by every sequence of answers there is."""
    stopped = 0.0
    for answers in itertools.product((0, 1), repeat=sizes[-1]):
        if any(sum(answers[:size]) <= few for size, few in zip(sizes, counts, strict=True)):
            stopped += math.prod(rate if right else 1 - rate for right in answers)
    return stopped


@examples(40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=3).map(sorted), rates, st.sampled_from([0.01, 0.05, 0.3]))
def test_whoever_is_right_often_enough_is_stopped_no_more_often_than_said(
    sizes: list[int], rate: float, alpha: float
) -> None:
    """Over every sequence of answers, one stops with probability alpha at most, at that rate and at any higher one."""
    counts = stopping_counts(tuple(sizes), rate, alpha)
    assert chance_of_stopping(tuple(sizes), counts, rate) <= alpha
    assert chance_of_stopping(tuple(sizes), counts, (1 + rate) / 2) <= alpha


@settings(deadline=None)
@given(st.integers(1, 40), rates)
def test_one_look_is_the_exact_test(size: int, rate: float) -> None:
    """With one look, one stops exactly where the one-sided exact p is alpha at most."""
    (few,) = stopping_counts((size,), rate, 0.05)
    told = [stats.binomtest(k, size, rate, alternative="less").pvalue for k in range(size + 1)]
    assert few in {sum(p <= 0.05 - margin for p in told) - 1 for margin in (-1e-9, 1e-9)}


def test_looks_to_come_keep_their_share() -> None:
    """What is spent at a look depends on looks so far alone: counts do not change when further looks follow."""
    assert stopping_counts((20,), 2 / 3, 0.01, 3) == stopping_counts((20, 30, 40), 2 / 3, 0.01)[:1]
    with pytest.raises(ActionError, match="never fall"):
        stopping_counts((20, 10), 0.5, 0.01)
    with pytest.raises(ActionError, match="at 1 looks"):
        stopping_counts((20, 30), 0.5, 0.01, 1)


@settings(deadline=None)
@given(st.integers(0, 300), st.data(), rates)
def test_tails_are_exact(asked: int, data: st.DataObject, rate: float) -> None:
    """Both tails are those of scipy, and cover everything together."""
    right = data.draw(st.integers(0, asked))
    assert chance_of_at_most(right, asked, rate) == pytest.approx(stats.binom.cdf(right, asked, rate), abs=1e-9)
    assert chance_of_at_least(right, asked, rate) == pytest.approx(stats.binom.sf(right - 1, asked, rate), abs=1e-9)

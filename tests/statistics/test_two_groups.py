"""Tests of the two-sided tests of two groups, and of the smallest gap that a sample could have seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ttca.errors import ActionError, ConfigError
from ttca.intervals import difference_of_counts
from ttca.statistics.binomial import fewest
from ttca.statistics.comparisons import fisher_p, mcnemar_p
from ttca.statistics.two_groups import chance_of_seeing, fisher_either_way, mcnemar_either_way, smallest_gap


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_either_way_is_twice_the_smaller_and_knows_no_order(a: int, wrong: int, b: int, others_wrong: int) -> None:
    """Which group is named first changes nothing, p is at most 1, and a shown gap has an interval without 0."""
    m, n = a + wrong, b + others_wrong
    p = fisher_either_way(a, m, b, n)
    assert p == fisher_either_way(b, n, a, m)
    assert p == min(1.0, 2 * min(fisher_p(a, m, b, n), fisher_p(b, n, a, m)))
    assert mcnemar_either_way(a, b) == mcnemar_either_way(b, a) == min(1.0, 2 * min(mcnemar_p(a, b), mcnemar_p(b, a)))
    if p <= 0.05:
        low, high = difference_of_counts((a, m), (b, n))
        assert not low <= 0 <= high


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("rate", "reference"), [(0.7, 0.85), (0.85, 0.85), (0.2, 1.0)])
def test_the_chance_of_seeing_is_that_of_all_tables(rate: float, reference: float, paired: bool) -> None:
    """It equals the sum over every table of its probability, where the exact test shows the group to be behind."""
    m, n = (20, 20) if paired else (20, 31)
    total = 0.0
    if paired:
        won, lost = rate * (1 - reference), reference * (1 - rate)
        for k in range(m + 1):
            for w in range(k + 1):
                if 2 * w < k and mcnemar_either_way(w, k - w) <= 0.05:
                    total += binom.pmf(k, m, won + lost) * binom.pmf(w, k, won / (won + lost))
    else:
        for x in range(m + 1):
            for y in range(n + 1):
                if x / m < y / n and fisher_either_way(x, m, y, n) <= 0.05:
                    total += binom.pmf(x, m, rate) * binom.pmf(y, n, reference)
    assert chance_of_seeing(rate, reference, m, n, paired=paired) == pytest.approx(total, abs=1e-7)


@given(st.floats(0, 1), st.integers(0, 80), st.integers(0, 80), st.booleans())
def test_the_smallest_gap_is_seen_with_80_percent(reference: float, m: int, n: int, paired: bool) -> None:
    """A gap of that size is seen so often, a smaller one is not, and where there is none, nothing would be."""
    n = m if paired else n
    gap = smallest_gap(reference, m, n, paired=paired)
    if gap is None:
        assert chance_of_seeing(0.0, reference, m, n, paired=paired) < 0.8
        return
    assert 0 < gap <= reference
    assert chance_of_seeing(reference - gap, reference, m, n, paired=paired) >= 0.8 - 1e-9
    assert chance_of_seeing(reference - 0.98 * gap, reference, m, n, paired=paired) < 0.8


def test_more_people_see_smaller_gaps() -> None:
    """The smallest gap falls as groups grow, and three people see none."""
    gaps = [smallest_gap(0.85, m, m) for m in (50, 100, 200, 400)]
    assert gaps == sorted(gaps, key=lambda gap: -(gap or 1))
    assert np.all(np.diff([gap or 1 for gap in gaps]) < 0)
    assert smallest_gap(0.85, 3, 3) is None


def test_what_cannot_be_is_refused() -> None:
    """Negative numbers of persons, other numbers of the same persons, and errors that are no share are sentences."""
    with pytest.raises(ActionError, match="numbers of persons"):
        chance_of_seeing(0.5, 0.5, -1, 3)
    with pytest.raises(ActionError, match="as many for both"):
        smallest_gap(0.5, 4, 5, paired=True)
    with pytest.raises(ConfigError, match="error"):
        smallest_gap(0.5, 4, 5, error=0.0)


@given(st.integers(0, 60), st.integers(0, 61), st.none() | st.floats(-100, 100))
def test_a_guess_changes_how_long_one_looks_and_not_what_is_found(m: int, least: int, near: float | None) -> None:
    """The fewest that are enough are found wherever one looks first; a good guess takes a handful of tries."""
    tried = []

    def enough(k: int) -> bool:
        tried.append(k)
        assert 0 <= k <= m
        return k >= least

    assert fewest(m, enough, near) == (least if least <= m else None)
    if near is not None and abs(near - least) <= 2 and least <= m:
        assert len(tried) <= 7

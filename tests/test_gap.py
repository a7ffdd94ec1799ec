"""Tests of the gap: what is counted, how far chance reaches, and that no sentence says more than that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ttca.gap import NO_GAP, Served, gap_interval, served, served_sentence

COUNTS = st.integers(1, 60).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m)))


@given(COUNTS, COUNTS)
def test_the_interval_of_the_gap_holds_the_gap_and_turns_with_it(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    """The interval holds the observed difference, lies within -1 and 1, and changes its sign with the groups."""
    low, high = gap_interval(first, second)
    assert -1 <= low <= first[0] / first[1] - second[0] / second[1] <= high <= 1
    assert gap_interval(second, first) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("p0", "p1", "m0", "m1"), [(0.5, 0.5, 20, 20), (0.95, 0.9, 40, 25), (0.9, 0.6, 30, 60)])
def test_the_interval_covers_the_true_gap_as_often_as_it_says(p0: float, p1: float, m0: int, m1: int) -> None:
    """Summed over every outcome with its exact probability, the interval holds the true gap in 95 % or more."""
    covered = 0.0
    for k0 in range(m0 + 1):
        for k1 in range(m1 + 1):
            low, high = gap_interval((k0, m0), (k1, m1))
            if low <= p0 - p1 <= high:
                covered += float(binom.pmf(k0, m0, p0) * binom.pmf(k1, m1, p1))
    assert covered >= 0.95


def test_a_group_without_answers_says_nothing_of_the_gap() -> None:
    """With nobody asked in one group the gap may be anything."""
    assert gap_interval((0, 0), (3, 5)) == (-1.0, 1.0)


def test_a_refusal_is_wrong_and_a_failure_is_not_counted() -> None:
    """Right answers are counted among those answered or refused; persons and failures are counted beside them."""
    found = served(
        np.array([0, 0, 1, 1]),
        np.array([0, 1, -1, -1]),
        np.array([True, True, True, False]),
        np.array(["a", "a", "b", "c"]),
    )
    assert found == Served(right=1, asked=3, persons=2, unanswered=1)
    assert found.to_dict()["rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("reference", "subgroup", "expected"),
    [
        ((80, 100), (79, 100), NO_GAP),
        ((95, 100), (60, 100), "behind by 35.0 points (95 % interval 23.5 to 45.8)"),
        ((60, 100), (95, 100), "ahead by 35.0 points (95 % interval 23.5 to 45.8)"),
        ((0, 0), (60, 100), "Only one group"),
        ((0, 0), (0, 0), "not known whether there is a gap"),
    ],
)
def test_the_sentence_claims_a_gap_only_where_there_is_one(
    reference: tuple[int, int], subgroup: tuple[int, int], expected: str
) -> None:
    """A difference that chance may explain is called no gap; each group's counts and interval stand beside it."""
    groups = {"reference": Served(*reference, reference[1], 0), "subgroup": Served(*subgroup, subgroup[1], 0)}
    said = served_sentence(groups)
    assert expected in said
    assert (NO_GAP in said) == (expected == NO_GAP)
    if subgroup[1]:
        assert f"{subgroup[0]} of {subgroup[1]} ({subgroup[0]:.1f} %, 95 % interval " in said

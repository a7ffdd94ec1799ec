"""Tests that stopping when a verdict is decided never changes it, and stops no later than it must."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.errors import ActionError
from ttca.statistics.binomial import fewest
from ttca.statistics.comparisons import fisher_p, mcnemar_p, ratio_by_two_bounds, tango_p
from ttca.statistics.curtailed import decided, decided_pairs, least_won, paired_stopping_time, stopping_time

bits = st.integers(0, 1)


def test_a_verdict_is_decided_when_no_completion_changes_it() -> None:
    """At every count of eight persons, decided says what all completions say, and None where they differ."""
    total = 8
    for needed, asked in itertools.product(range(total + 2), range(total + 1)):
        for right in range(asked + 1):
            ends = {right + more >= needed for more in range(total - asked + 1)}
            found = decided(lambda k, needed=needed: k >= needed, right, asked, total)  # type: ignore[misc]
            assert found == (ends.pop() if len(ends) == 1 else None)


@examples(60)
@given(st.lists(st.tuples(bits, bits), min_size=1, max_size=9), st.data())
def test_pairs_are_decided_when_no_completion_changes_the_verdict(
    people: list[tuple[int, int]], data: st.DataObject
) -> None:
    """For paired tests, decided_pairs says what all answers of those not yet asked would say."""
    asked = data.draw(st.integers(0, len(people)))
    m = len(people)

    def mcnemar(won: int, lost: int, both: int, neither: int) -> bool:
        return mcnemar_p(won, lost) <= 0.2

    def bounds(won: int, lost: int, both: int, neither: int) -> bool:
        assert won + lost + both + neither == m
        return ratio_by_two_bounds(won + both, lost + both, m, 0.5, 0.4)

    def counts(rest: tuple[int, ...]) -> tuple[int, int, int, int]:
        pairs = [*people[:asked], *zip((a for a, _ in people[asked:]), rest, strict=True)]
        return tuple(sum(p == kind for p in pairs) for kind in ((0, 1), (1, 0), (1, 1), (0, 0)))  # type: ignore[return-value]

    now = [sum(p == kind for p in people[:asked]) for kind in ((0, 1), (1, 0), (1, 1), (0, 0))]
    left = sum(a for a, _ in people[asked:])
    for passes in (mcnemar, bounds):
        ends = {passes(*counts(rest)) for rest in itertools.product((0, 1), repeat=m - asked)}
        found = decided_pairs(passes, now[0], now[1], now[2], now[3], left, m - asked - left)
        assert found == (ends.pop() if len(ends) == 1 else None)


@examples(60)
@given(st.integers(1, 25), st.integers(0, 10_000), st.one_of(st.none(), st.integers(0, 25)))
def test_many_actions_stop_where_one_would(m: int, seed: int, needed: int | None) -> None:
    """The vectorised stopping time is the first person at whom the verdict is decided, with the full test's verdict."""
    outcomes = np.random.default_rng(seed).integers(0, 2, size=(6, m))
    stopped, passed = stopping_time(outcomes, needed)

    def passes(right: int) -> bool:
        return needed is not None and right >= needed

    for row, at, verdict in zip(outcomes, stopped, passed, strict=True):
        assert verdict == passes(int(row.sum()))
        said = [decided(passes, int(row[:t].sum()), t, m) for t in range(m + 1)]
        assert at == next(t for t, one in enumerate(said) if one is not None)


@examples(60)
@given(st.integers(1, 25), st.integers(0, 10_000))
def test_many_paired_actions_stop_where_one_would(m: int, seed: int) -> None:
    """The vectorised paired stopping time agrees with the decision person by person."""
    drawn = np.random.default_rng(seed)
    reference, outcomes = (drawn.random((6, m)) < drawn.random() for _ in range(2))
    least = least_won(lambda won, lost: mcnemar_p(won, lost) <= 0.2, m)
    stopped, passed = paired_stopping_time(reference, outcomes, least)

    def passes(won: int, lost: int, both: int, neither: int) -> bool:
        return mcnemar_p(won, lost) <= 0.2

    for a, s, at, verdict in zip(reference, outcomes, stopped, passed, strict=True):
        said = []
        for t in range(m + 1):
            won, lost, both, neither = (int(c[:t].sum()) for c in (s & ~a, a & ~s, s & a, ~s & ~a))
            said.append(decided_pairs(passes, won, lost, both, neither, int(a[t:].sum()), int((~a[t:]).sum())))
        assert at == next(t for t, one in enumerate(said) if one is not None)
        assert verdict == said[-1]


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_least_won_is_the_edge_of_the_table(margin: float) -> None:
    """For each number lost the test passes from least_won on, and not one below."""
    m = 25
    for p in (mcnemar_p, lambda b, c: tango_p(b, c, m, margin)):
        least = least_won(lambda won, lost, p=p: p(won, lost) <= 0.05, m)  # type: ignore[misc]
        for lost, won in enumerate(least.tolist()):
            expected = [b for b in range(m + 1 - lost) if p(b, lost) <= 0.05]
            assert won == (expected[0] if expected else m + 1)


def test_stopping_saves_persons_and_no_claim() -> None:
    """At .97 against .85 of 299 persons Fisher's verdict stands before all are asked, in every action the full one."""
    m = 299
    needed = fewest(m, lambda k: fisher_p(k, m, 254, m) <= 0.05)
    outcomes = np.random.default_rng(0).random((2000, m)) < 0.97
    stopped, passed = stopping_time(outcomes, needed)
    assert needed is not None
    assert np.array_equal(passed, outcomes.sum(axis=1) >= needed)
    assert stopped.max() <= m
    # The k-th right answer decides: k / .97 persons on average.
    assert float(stopped[passed].mean()) == pytest.approx(needed / 0.97, abs=1)


def test_impossible_counts_are_refused() -> None:
    """Counts that nobody could have, and arrays that are no outcomes, are refused with a sentence."""
    with pytest.raises(ActionError, match="right ≤ asked ≤ total"):
        decided(lambda k: True, 3, 2, 5)
    with pytest.raises(ActionError, match="0 or more"):
        decided_pairs(lambda *counts: True, -1, 0, 0, 0, 0, 0)
    with pytest.raises(ActionError, match="one row per action"):
        stopping_time([0, 1, 1], 2)
    with pytest.raises(ActionError, match="one row per action"):
        stopping_time([[0.5, 1.0]], 2)
    with pytest.raises(ActionError, match="same persons"):
        paired_stopping_time([[0, 1]], [[0, 1]], [1, 2])
    assert math.isclose(float(stopping_time([[1, 1]], 0)[0][0]), 0)

"""Tests of who pays how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import QuotaError
from ttca.pooling.quotas import share_out

REMAINING = st.dictionaries(st.text(max_size=3), st.one_of(st.integers(0, 9), st.integers(0, 2**62)), max_size=8)


@st.composite
def affordable(draw: st.DrawFn) -> tuple[int, dict[str, int]]:
    """Draw members and a number of queries that they can pay together."""
    remaining = draw(REMAINING)
    return draw(st.integers(0, sum(remaining.values()))), remaining


@given(affordable())
def test_shares_add_up_and_nobody_pays_beyond_what_is_left(case: tuple[int, dict[str, int]]) -> None:
    """The shares sum to the queries exactly, each is positive, and none is above what its member has left."""
    queries, remaining = case
    shares = share_out(queries, remaining)
    assert sum(shares.values()) == queries
    assert all(0 < share <= remaining[member] for member, share in shares.items())
    assert list(shares) == sorted(shares)


@given(affordable())
def test_shares_are_proportional_to_what_is_left(case: tuple[int, dict[str, int]]) -> None:
    """Every share is its exact proportion rounded up or down, so a member with more left never pays less."""
    queries, remaining = case
    shares = share_out(queries, remaining)
    total = sum(remaining.values())
    for member, left in remaining.items():
        share = shares.get(member, 0)
        assert -total < share * total - queries * left < total or total == 0
        for other, other_left in remaining.items():
            assert left <= other_left or share >= shares.get(other, 0)


@given(affordable())
def test_shares_do_not_depend_on_the_order_of_members(case: tuple[int, dict[str, int]]) -> None:
    """The same members in another order of insertion get the same shares."""
    queries, remaining = case
    backwards = dict(reversed(list(remaining.items())))
    assert share_out(queries, backwards) == share_out(queries, remaining)


def test_ties_go_by_name() -> None:
    """Of members with equal quotas the first by name pays the odd query."""
    assert share_out(1, {"zoe": 5, "ada": 5}) == {"ada": 1}
    assert share_out(5, {"zoe": 5, "ada": 5, "ben": 0}) == {"ada": 3, "zoe": 2}


@given(REMAINING, st.integers(1, 2**70))
def test_more_than_is_left_is_refused(remaining: dict[str, int], excess: int) -> None:
    """Even one query more than all have left is refused with a sentence that says how many there are."""
    total = sum(remaining.values())
    with pytest.raises(QuotaError, match=rf"Expected {total + excess} queries .* the members have {total} left"):
        share_out(total + excess, remaining)


def test_a_negative_number_is_refused() -> None:
    """Queries cannot be shared out in reverse."""
    with pytest.raises(QuotaError, match="got -1"):
        share_out(-1, {"ada": 5})


def test_large_quotas_do_not_overflow() -> None:
    """Quotas that stand for no limit give the same shares as small ones in the same proportion."""
    assert share_out(9_000_000, {"ada": 10**18, "ben": 2 * 10**18}) == {"ada": 3_000_000, "ben": 6_000_000}

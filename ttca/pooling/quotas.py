"""Who pays: what a member can pay, in all and at a time, and how queries are shared among members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ttca.errors import QuotaError

__all__ = ["WINDOWS", "Quota", "least_seconds", "share_out", "wait_for"]

#: The windows of a rate, in seconds. Each slides: whatever second, minute or day one looks at, it holds no more.
WINDOWS: dict[str, float] = {"per_second": 1.0, "per_minute": 60.0, "per_day": 86400.0}


@dataclass(frozen=True)
class Quota:
    """What one member can pay: ``total`` queries in all, and at most so many in any second, minute or day."""

    total: int
    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None

    @property
    def sound(self) -> bool:
        """Whether every number given is a whole one of at least 1 that a database can hold."""
        return _countable(self.total) and all(v is None or _countable(v) for v in self.rates().values())

    @property
    def largest_request(self) -> int | None:
        """The most queries that the rates allow at once; None without rates."""
        return min((v for v in self.rates().values() if v is not None), default=None)

    def rates(self) -> dict[str, int | None]:
        """Return the rates by the names in :data:`WINDOWS`."""
        return {name: getattr(self, name) for name in WINDOWS}

    def check(self, member: str) -> None:
        """Raise a QuotaError where a number is not a whole one of at least 1."""
        if not _countable(self.total):
            raise QuotaError(
                f"Expected as the quota of member {member!r} a whole number of at least 1, got {self.total!r}. "
                "Leave out members who cannot pay for a query."
            )
        if not self.sound:
            wrong = ", ".join(f"{k} = {v!r}" for k, v in self.rates().items() if v is not None and not _countable(v))
            raise QuotaError(
                f"Expected rates of member {member!r} as whole numbers of at least 1, got {wrong}. Leave out rates "
                "that do not apply."
            )


def wait_for(n: int, limit: int, seconds: float, now: float, past: Sequence[tuple[float, int]]) -> float:
    """Return the seconds until a sliding window has room for n more queries, at least 0.

    Parameters
    ----------
    n, limit : int
        n ≤ limit, both at least 1.
    seconds : float
        The window's length.
    now : float
    past : sequence of (time, queries)
        What was paid within the window, oldest first; times after ``now`` count as well.

    Notes
    -----
    A request paid at t leaves the window at t + seconds. *Ours.*
    """
    used = sum(paid for _, paid in past)
    wait = 0.0
    for at, paid in past:
        if used + n <= limit:
            break
        used -= paid
        wait = max(wait, at + seconds - now)
    return wait


def least_seconds(queries: int, members: Sequence[tuple[int, Quota]]) -> float:
    """Return the seconds that rates alone make so many queries take, whatever the platform's speed.

    Parameters
    ----------
    queries : int
    members : sequence of (queries left, Quota)

    Returns
    -------
    float
        0.0 where the first window has room for all; infinity where the members have not so many left.

    Notes
    -----
    Every member begins with an empty window and pays as early as the rates allow. *Ours.*
    """

    def payable(seconds: float) -> int:
        return sum(
            min([left, *(v * (int(seconds // WINDOWS[w]) + 1) for w, v in quota.rates().items() if v is not None)])
            for left, quota in members
        )

    if queries > sum(left for left, _ in members):
        return float("inf")
    low, high = 0, 1
    while payable(high) < queries:
        low, high = high, 2 * high
    if payable(0) >= queries:
        return 0.0
    # Windows are whole seconds: the answer is the first whole second that will do.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if payable(middle) >= queries else (middle, high)
    return float(high)


def share_out(queries: int, remaining: Mapping[str, int]) -> dict[str, int]:
    """Return how many of the queries each member pays: an equal share of the quota each has left.

    Parameters
    ----------
    queries : int
    remaining : dict of member to queries left

    Returns
    -------
    dict of member to queries, in the order of the names; members who pay nothing are left out.

    Raises
    ------
    QuotaError
        If all together have fewer queries left, or ``queries`` is negative.

    Notes
    -----
    Largest remainders, ties by name, so that the same ledger gives the same shares. *Ours.*
    """
    members = sorted(m for m, left in remaining.items() if left > 0)
    total = sum(remaining[m] for m in members)
    if queries < 0:
        raise QuotaError(f"Expected 0 queries or more to share out, got {queries}.")
    if queries > total:
        raise QuotaError(
            f"Expected {queries} queries to be affordable, but the members have {total} left. "
            "None of these was sent. Raise quotas or let more members join, and run it again to resume."
        )
    if queries == 0:
        return {}
    # Python's own integers: the product of a large quota and many queries does not fit in 64 bits.
    shares = {m: queries * remaining[m] // total for m in members}
    by_rest = sorted(members, key=lambda m: -(queries * remaining[m] % total))
    for m in by_rest[: queries - sum(shares.values())]:
        shares[m] += 1
    return {m: s for m, s in shares.items() if s}


def _countable(number: object) -> bool:
    """Whether it is a whole number of queries, at least 1, that a database can hold."""
    if isinstance(number, bool) or not isinstance(number, int | float | np.integer):
        return False
    return bool(1 <= number < 2**63) and int(number) == number

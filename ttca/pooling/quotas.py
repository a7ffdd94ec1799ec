"""Who pays: share queries among members in proportion to what each has left."""

from __future__ import annotations

from collections.abc import Mapping

from ttca.errors import QuotaError

__all__ = ["share_out"]


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
            "Ask for fewer, raise quotas, or let more members join. Nothing was sent."
        )
    if queries == 0:
        return {}
    # Python's own integers: the product of a large quota and many queries does not fit in 64 bits.
    shares = {m: queries * remaining[m] // total for m in members}
    by_rest = sorted(members, key=lambda m: -(queries * remaining[m] % total))
    for m in by_rest[: queries - sum(shares.values())]:
        shares[m] += 1
    return {m: s for m, s in shares.items() if s}

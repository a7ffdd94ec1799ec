"""Who pays: share queries among members in proportion to what each has left."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
        If all together have fewer queries left.

    Notes
    -----
    Largest remainders, ties by name, so that the same ledger gives the same shares. *Ours.*
    """
    members = sorted(m for m, left in remaining.items() if left > 0)
    left = np.array([remaining[m] for m in members], dtype=np.int64)
    if queries > int(left.sum()):
        raise QuotaError(
            f"Expected {queries} queries to be affordable, but the members have {int(left.sum())} left. "
            "Ask for fewer, raise quotas, or let more members join. Nothing was sent."
        )
    if queries == 0:
        return {}
    exact = queries * left
    shares = exact // left.sum()
    rest = exact - shares * left.sum()
    for i in np.argsort(-rest, kind="stable")[: queries - int(shares.sum())]:
        shares[i] += 1
    return {m: int(s) for m, s in zip(members, shares, strict=True) if s}

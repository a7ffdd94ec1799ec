"""What may still be paid: quota, cap and rates, computed here and nowhere else, for whoever charges or plans."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.errors import QuotaError, RateError
from ttca.pooling.quotas import WINDOWS, wait_for
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import requests as _requests

__all__ = ["Left", "cap_left", "in_pool", "left", "member_room", "quota_left", "rate_refusal"]

# Made once: for a request of one query, making a statement anew would take longer than running it.
_CAP = sa.select(_meta.c.value).where(_meta.c.name == "cap")
_ALL_CHARGED = sa.select(sa.func.sum(_members.c.charged))
# What a clock that was set back has left in the future counts as just paid.
_RECENT = sa.and_(
    _requests.c.member == sa.bindparam("member"), _requests.c.charged_at > sa.bindparam("since"), _requests.c.paid > 0
)
_PAID_RECENTLY = sa.select(sa.func.sum(_requests.c.paid)).where(_RECENT)
_RECENT_PAYMENTS = sa.select(_requests.c.charged_at, _requests.c.paid).where(_RECENT).order_by(_requests.c.charged_at)


@dataclass(frozen=True)
class Left:
    """The queries that each member's quota, and the cap if there is one, still allow; rates aside."""

    members: Mapping[str, int]
    cap: int | None

    @property
    def total(self) -> int:
        """What all of them together can still pay."""
        total = sum(self.members.values())
        return total if self.cap is None else min(total, self.cap)

    def of(self, names: Collection[str]) -> Left:
        """Return the same of some members only."""
        return Left({m: n for m, n in self.members.items() if m in names}, self.cap)


def in_pool() -> sa.ColumnElement[bool]:
    """Select who pays or has paid."""
    return sa.or_(_members.c.quota > 0, _members.c.charged > 0)


def quota_left(quota: int, charged: int) -> int:
    """Return the queries a quota leaves; 0 also where it was lowered below what is paid."""
    return max(0, int(quota) - int(charged))


def cap_left(connection: sa.Connection, cap: str | int | None) -> int | None:
    """Return the queries a cap leaves all members together, less than 0 where it was lowered; None without a cap."""
    return None if cap is None else int(cap) - int(connection.scalar(_ALL_CHARGED) or 0)


def left(connection: sa.Connection) -> Left:
    """Return what quotas and cap leave, at one moment."""
    rows = connection.execute(sa.select(_members).where(in_pool()).order_by(_members.c.name))
    members = {str(r.name): quota_left(r.quota, r.charged) for r in rows}
    capped = cap_left(connection, connection.scalar(_CAP))
    return Left(members, None if capped is None else max(0, capped))


def member_room(connection: sa.Connection, member: Any, now: float) -> int:
    """Return how many queries quota, cap and rates leave a member (a row of the table) at this moment."""
    room = quota_left(member.quota, member.charged)
    capped = cap_left(connection, connection.scalar(_CAP))
    room = room if capped is None else min(room, capped)
    for window, seconds in WINDOWS.items():
        limit = getattr(member, window)
        if limit is not None:
            room = min(room, limit - _paid_recently(connection, member.id, seconds, now))
    return room


def rate_refusal(connection: sa.Connection, member: Any, n: int, now: float, *, paid: int = 0) -> QuotaError | None:
    """Return the error where a member's last second, minute or day leaves no room for n more queries.

    Parameters
    ----------
    connection : sa.Connection
    member : row of the table of members
    n : int
    now : float
    paid : int
        What they pay in this transaction, and is not written yet.
    """
    used = {w: _paid_recently(connection, member.id, s, now) + paid for w, s in WINDOWS.items() if getattr(member, w)}
    for window, seconds in WINDOWS.items():
        limit = getattr(member, window)
        if limit is None:
            continue
        words = window.replace("_", " ")
        if n > limit:
            return QuotaError(
                f"Expected requests within the rate of member {member.name!r}, {limit} {words}, got one of {n} "
                "queries. Use smaller batches."
            )
        if used[window] + n <= limit:
            continue
        rows = connection.execute(_RECENT_PAYMENTS, {"member": member.id, "since": now - seconds})
        past = [(float(at), int(queries)) for at, queries in rows] + ([(now, paid)] if paid else [])
        wait = wait_for(n, limit, seconds, now, sorted(past))
        return RateError(
            f"Expected member {member.name!r} to stay within {limit} queries {words}, but {used[window]} are paid and "
            f"{n} more are too many for now. There is room in {wait:.1f} s.",
            wait_s=wait,
            room=max(0, min(getattr(member, w) - already for w, already in used.items())),
        )
    return None


def _paid_recently(connection: sa.Connection, member: int, seconds: float, now: float) -> int:
    return int(connection.scalar(_PAID_RECENTLY, {"member": member, "since": now - seconds}) or 0)

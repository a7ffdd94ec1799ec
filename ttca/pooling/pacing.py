"""Pacing: whether a member may take another lease now, from what became of those before."""

from __future__ import annotations

import sqlalchemy as sa

from ttca.answers import Status
from ttca.errors import RateError
from ttca.pooling.booking import ANSWERED
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import requests as _requests

__all__ = ["check_may_lease", "fails_seldom"]

#: So many leases may be out with one member at a time.
_MOST_OUT = 64
#: After so many leases in a row that brought nothing a member waits, twice as long each time, at most so many seconds.
_BARREN, _LONGEST_WAIT_S = 8, 300.0
#: A lease that was refunded counts so much of one: a platform may be busy for long.
_REFUNDED = 0.05


def check_may_lease(connection: sa.Connection, who: int, now: float) -> None:
    """Raise a RateError where too many leases are out, or where lease after lease brought nothing.

    Notes
    -----
    Whatever the reason, others are faster than a member who brings nothing; and who only says so gives up no image
    and holds none for long. *Ours.*
    """
    out = (
        sa.select(sa.func.count())
        .select_from(_leases)
        .where(_leases.c.member == who, _leases.c.returned_at.is_(None), _leases.c.expires_at > now)
    )
    if (connection.scalar(out) or 0) >= _MOST_OUT:
        raise RateError(f"Expected at most {_MOST_OUT} leases out with one member, got more. Wait.", wait_s=1.0)
    answered = sa.exists().where(_outcomes.c.request == _leases.c.request, _outcomes.c.outcome == ANSWERED)
    last = (
        sa.select(_leases.c.returned_at, _requests.c.paid, answered.label("answered"))
        .join(_requests, _requests.c.id == _leases.c.request)
        .where(_leases.c.member == who, _leases.c.returned_at.is_not(None))
        .order_by(_leases.c.returned_at.desc())
    )
    rows = connection.execute(last.limit(_BARREN)).all()
    if len(rows) < _BARREN or any(row.answered for row in rows):
        return
    rows = connection.execute(last.limit(round(2 * _BARREN / _REFUNDED))).all()
    barren = next((i for i, row in enumerate(rows) if row.answered), len(rows))
    paid = sum(row.paid > 0 for row in rows[:barren])
    excess = paid + _REFUNDED * (barren - paid) - _BARREN
    wait = rows[0].returned_at + min(_LONGEST_WAIT_S, 2.0**excess) - now
    if excess >= 0 and wait > 0:
        raise RateError(
            f"Expected a usable answer in one of the last {barren} leases, got none. Wait {wait:.0f} seconds, and "
            "check that the platform answers you.",
            wait_s=wait,
        )


def fails_seldom(connection: sa.Connection, who: int) -> bool:
    """Whether a member's failures say something of the images: not where they fail more often than not."""
    count = sa.select(sa.func.count()).select_from(_reports).where(_reports.c.member == who)
    failed = connection.scalar(count.where(_reports.c.status == int(Status.FAILED))) or 0
    return 2 * failed <= (connection.scalar(count) or 0) + _BARREN

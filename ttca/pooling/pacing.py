"""Pacing: whether a member may take another lease now, from what became of those before."""

from __future__ import annotations

import sqlalchemy as sa

from ttca.answers import Status
from ttca.errors import RateError
from ttca.pooling.booking import ANSWERED
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import requests as _requests
from ttca.pooling.shelf import HOPELESS

__all__ = ["check_may_lease", "fails_seldom", "fair_share"]

#: So many leases may be out with one member at a time.
_MOST_OUT = 64
#: So many queries a member may hold however few are left: less would make many requests of the last ones.
_FEW = 8
#: After so many leases in a row that brought nothing a member waits, twice as long each time, at most so many seconds.
_BARREN, _LONGEST_WAIT_S = 8, 300.0
#: A lease that was refunded counts so much of one: a platform may be busy for long.
_REFUNDED = 0.05


def check_may_lease(connection: sa.Connection, who: int, now: float) -> None:
    """Raise a RateError where too many leases are out, or where lease after lease brought nothing, or never came back.

    Notes
    -----
    Whatever the reason, others are faster than a member who brings nothing; and who only says so gives up no image
    and holds none for long. *Ours.*
    """
    out = sa.select(sa.func.count()).select_from(_leases).where(_leases.c.member == who, _is_out(now))
    if (connection.scalar(out) or 0) >= _MOST_OUT:
        raise RateError(f"Expected at most {_MOST_OUT} leases out with one member, got more. Wait.", wait_s=1.0)
    answered = sa.exists().where(_outcomes.c.request == _leases.c.request, _outcomes.c.outcome == ANSWERED)
    # Whoever lets a lease run out has brought nothing either.
    ended = sa.func.coalesce(_leases.c.returned_at, _leases.c.expires_at)
    last = (
        sa.select(ended.label("ended"), _requests.c.paid, answered.label("answered"))
        .join(_requests, _requests.c.id == _leases.c.request)
        .where(_leases.c.member == who, sa.not_(_is_out(now)))
        .order_by(ended.desc())
    )
    rows = connection.execute(last.limit(_BARREN)).all()
    if len(rows) < _BARREN or any(row.answered for row in rows):
        return
    rows = connection.execute(last.limit(round(2 * _BARREN / _REFUNDED))).all()
    barren = next((i for i, row in enumerate(rows) if row.answered), len(rows))
    paid = sum(row.paid > 0 for row in rows[:barren])
    excess = paid + _REFUNDED * (barren - paid) - _BARREN
    wait = rows[0].ended + min(_LONGEST_WAIT_S, 2.0**excess) - now
    if excess >= 0 and wait > 0:
        raise RateError(
            f"Expected a usable answer in one of the last {barren} leases, got none. Wait {wait:.0f} seconds, and "
            "check that the platform answers you.",
            wait_s=wait,
        )


def fair_share(connection: sa.Connection, context: str, who: int, size: int, now: float) -> int:
    """Return how many queries a member may take now, of ``size``, beside those that are out with them.

    Raises
    ------
    RateError
        If that is none.

    Notes
    -----
    What is left to ask is shared by the members who have some of it, with one share more for whoever comes next; a few
    queries may be anybody's. So one member alone holds half of what is left, and of m members, however much each would
    take, none keeps the others waiting. Honest members lose little: as long as much is left, the share is more than
    they send at once, and where it is not, m/(m + 1) of all that is left is out with them. *Ours.*
    """
    out = sa.and_(_leases.c.context == context, _is_out(now))
    own = sa.select(sa.func.count()).select_from(_attempts).join(_leases, _leases.c.request == _attempts.c.request)
    held = connection.scalar(own.where(out, _leases.c.member == who)) or 0
    others = connection.scalar(
        sa.select(sa.func.count(sa.distinct(_leases.c.member))).where(out, _leases.c.member != who)
    )
    shares = (others or 0) + 2
    # No more is counted than could matter.
    left, enough = 0, shares * (held + size)
    for answered, what in ((False, _inputs.c.wanted >= 0), (True, _inputs.c.wanted > 0)):
        mine = (_inputs.c.context == context, _inputs.c.answered.is_(answered), what, _inputs.c.failures < HOPELESS)
        some = sa.select(_inputs.c.number).where(*mine).limit(enough - left).subquery()
        left += connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
    share = max(_FEW, -(-left // shares))
    if held >= share:
        last = sa.select(sa.func.max(_leases.c.expires_at)).where(out, _leases.c.member == who)
        free_in = (connection.scalar(last) or now) - now
        raise RateError(
            f"Expected at most {share} queries out with you, a fair share of what is left, got {held}. Bring some of "
            f"them back, or wait: those of a run that was stopped are free again in at most {free_in:.0f} s.",
            wait_s=1.0,
        )
    return min(size, share - held)


def _is_out(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(_leases.c.returned_at.is_(None), _leases.c.expires_at > now)


def fails_seldom(connection: sa.Connection, who: int) -> bool:
    """Whether a member's failures say something of the images: not where they fail more often than not."""
    count = sa.select(sa.func.count()).select_from(_reports).where(_reports.c.member == who)
    failed = connection.scalar(count.where(_reports.c.status == int(Status.FAILED))) or 0
    return 2 * failed <= (connection.scalar(count) or 0) + _BARREN

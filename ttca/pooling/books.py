"""What the books say: who paid what, for what and when, and how fast the platform was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from ttca.errors import ChargeState
from ttca.names import canonical
from ttca.pooling.booking import ANSWERED
from ttca.pooling.room import in_pool, quota_left
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests

__all__ = [
    "Balance",
    "asked_and_answered",
    "asked_between",
    "balances",
    "charged_twice",
    "of_action",
    "pace",
    "paid",
    "spend_by_day",
    "unknown",
    "was_unusable",
]


@dataclass(frozen=True)
class Balance:
    """What one member has paid, in queries.

    ``charged`` = ``answered`` + ``unusable`` + ``unknown``; refunds are not in it. ``unknown`` are attempts of
    which nobody can say whether the platform processed them; ``unusable`` those it did, to no avail.
    """

    member: str
    quota: int
    charged: int
    answered: int
    unusable: int
    unknown: int
    refunded: int

    @property
    def remaining(self) -> int:
        """Queries the member can still pay."""
        return quota_left(self.quota, self.charged)


def balances(connection: sa.Connection, member: str | None) -> list[Balance]:
    """Return who paid what, counted from the attempts themselves; of one member only, if named."""
    whose = sa.true() if member is None else _members.c.name == canonical(member)
    theirs = sa.select(_members.c.id).where(whose)
    counts: dict[int, dict[str, int]] = {}
    # Not labeled "outcome": the grouping would mean the column, where attempts without an outcome and those
    # marked unknown are two groups.
    ended = _ended().label("ended")
    for row in connection.execute(
        sa.select(_requests.c.member, ended, sa.func.count().label("n"))
        .select_from(_joined())
        .where(sa.true() if member is None else _requests.c.member.in_(theirs))
        .group_by(_requests.c.member, ended)
    ):
        counts.setdefault(row.member, {})[row.ended] = row.n
    members = connection.execute(sa.select(_members).where(in_pool(), whose).order_by(_members.c.name)).all()
    return [
        Balance(
            member=m.name,
            quota=m.quota,
            charged=m.charged,
            answered=counts.get(m.id, {}).get(ANSWERED, 0),
            unusable=counts.get(m.id, {}).get(ChargeState.CHARGED.value, 0),
            unknown=counts.get(m.id, {}).get(ChargeState.UNKNOWN.value, 0),
            refunded=counts.get(m.id, {}).get(ChargeState.REFUNDED.value, 0),
        )
        for m in members
    ]


def paid(connection: sa.Connection, action: str | None) -> dict[str, int]:
    """Return the queries charged (refunds out) by purpose; of one action, and what no action was named for."""
    rows = connection.execute(
        sa.select(_requests.c.purpose, sa.func.sum(_requests.c.paid).label("n"))
        .where(_requests.c.paid > 0, of_action(action))
        .group_by(_requests.c.purpose)
    )
    return {r.purpose: int(r.n) for r in rows}


def unknown(connection: sa.Connection, action: str | None) -> int:
    """Return the queries charged of which nobody knows whether the platform processed them; of one action, as paid."""
    found = (
        sa.select(sa.func.count())
        .select_from(_joined())
        .where(_ended() == ChargeState.UNKNOWN.value, of_action(action))
    )
    return int(connection.scalar(found) or 0)


def spend_by_day(connection: sa.Connection, day: sa.ColumnElement[int]) -> dict[str, int]:
    """Return the queries charged (refunds out) by UTC day, in order; ``day`` is the database's way to count them."""
    of = day.label("day")
    rows = connection.execute(
        sa.select(of, sa.func.sum(_requests.c.paid).label("n")).where(_requests.c.paid > 0).group_by(of).order_by(of)
    )
    return {str(np.datetime64(int(r.day), "D")): int(r.n) for r in rows}


def asked_between(connection: sa.Connection, action: str | None) -> tuple[float, float] | None:
    """Return when the first and the last query that was paid for was charged; of one action, as paid."""
    ends = sa.select(sa.func.min(_requests.c.charged_at), sa.func.max(_requests.c.charged_at))
    first, last = connection.execute(ends.where(_requests.c.paid > 0, of_action(action))).one()
    return None if first is None else (float(first), float(last))


def asked_and_answered(connection: sa.Connection) -> tuple[int, int]:
    """Return how many different queries were ever charged, and how many of them have an accepted answer."""
    asked = sa.select(sa.func.count(sa.distinct(_attempts.c.key))).where(_attempts.c.key != b"")
    answered = sa.select(sa.func.count()).select_from(_answers)
    return int(connection.scalar(asked) or 0), int(connection.scalar(answered) or 0)


def charged_twice(connection: sa.Connection, action: str | None) -> int:
    """Return how many different queries were charged more than once (refunds out), as an answer did not come or
    could not be used; of one action, and what no action was named for.
    """
    again = (
        sa.select(_attempts.c.key)
        .select_from(_joined())
        .where(_attempts.c.key != b"", _ended() != ChargeState.REFUNDED.value, of_action(action))
        .group_by(_attempts.c.key)
        .having(sa.func.count() > 1)
        .subquery()
    )
    return int(connection.scalar(sa.select(sa.func.count()).select_from(again)) or 0)


def pace(connection: sa.Connection, requests: int) -> float | None:
    """Return the mean seconds a request took, of the last so many that were answered; None where none was."""
    last = (
        sa.select((_outcomes.c.at - _requests.c.charged_at).label("seconds"))
        .join_from(_requests, _outcomes, _outcomes.c.request == _requests.c.id)
        .where(_outcomes.c.position == 0, _outcomes.c.outcome == ANSWERED)
        .order_by(_requests.c.id.desc())
        .limit(requests)
        .subquery()
    )
    mean = connection.scalar(sa.select(sa.func.avg(last.c.seconds)))
    return None if mean is None else max(0.0, float(mean))


def was_unusable(connection: sa.Connection, key: bytes, before: float) -> bool:
    """Return whether the platform processed this query to no avail before that time."""
    found = (
        sa.select(_outcomes.c.request)
        .select_from(_joined())
        .where(_outcomes.c.outcome == ChargeState.CHARGED.value, _outcomes.c.at < before, _attempts.c.key == key)
        .limit(1)
    )
    return connection.scalar(found) is not None


def of_action(action: str | None) -> sa.ColumnElement[bool]:
    """Return which requests are an action's: its own, and those no action was named for; all, for None."""
    return sa.true() if action is None else sa.or_(_requests.c.action == action, _requests.c.action.is_(None))


def _ended() -> sa.ColumnElement[str]:
    """What came of an attempt; without an outcome that is unknown."""
    return sa.func.coalesce(_outcomes.c.outcome, ChargeState.UNKNOWN.value)


def _joined() -> sa.Join:
    return _attempts.join(_requests, _requests.c.id == _attempts.c.request).outerjoin(
        _outcomes,
        sa.and_(_outcomes.c.request == _attempts.c.request, _outcomes.c.position == _attempts.c.position),
    )

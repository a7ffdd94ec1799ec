"""The shelf: the images that owners share, which of them are answered, open or with somebody, and how far all is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.names import canonical
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import requests as _requests

__all__ = [
    "HOPELESS",
    "Progress",
    "Shelf",
    "able_members",
    "files_of",
    "given_to",
    "is_open",
    "mark_answered",
    "paid_for",
    "parts",
]

#: So many failures say that a query was given up (as earlier versions wrote it); it is not handed out again.
HOPELESS = 4
#: And so many that its image is shared no longer.
_WITHDRAWN = 1000


@dataclass(frozen=True)
class Progress:
    """How far the pool is: shared images, how many are answered, how many given up, and who takes part."""

    inputs: int
    answered: int
    given_up: int
    out: int
    charged: int
    members: int
    active: int
    quarantined: int

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        return self.answered + self.given_up == self.inputs


@dataclass(frozen=True)
class Shelf:
    """The shared images of one platform and epoch, by the ``context`` that tells their rows from all others."""

    context: str

    def progress(self, connection: sa.Connection, now: float) -> Progress:
        """Return how far the pool is."""
        mine = _inputs.c.context == self.context

        def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0)

        active = sa.select(sa.func.count(sa.distinct(_reports.c.member))).where(_reports.c.context == self.context)
        inputs = count(_inputs, mine)
        return Progress(
            inputs=inputs,
            answered=inputs - count(_inputs, mine, _unanswered()),
            given_up=count(_inputs, mine, _unanswered(), _inputs.c.failures >= HOPELESS),
            out=count(_inputs, mine, _inputs.c.held_until > now),
            charged=int(connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0),
            members=count(_members, _members.c.quota > 0, _members.c.forgotten_at.is_(None)),
            active=int(connection.scalar(active) or 0),
            quarantined=count(_members, _members.c.flagged_at.is_not(None)),
        )

    def free_in(self, connection: sa.Connection, now: float) -> float | None:
        """Return in how many seconds all that somebody holds now is free again at last; None where nobody does."""
        held = sa.select(sa.func.max(_inputs.c.held_until))
        last = connection.scalar(held.where(_inputs.c.context == self.context, _inputs.c.held_until > now))
        return None if last is None else float(last) - now

    def is_done(self, connection: sa.Connection, member: str | None) -> bool:
        """Whether every image has an answer that stands, or will have none; of one member: as far as they can."""
        wanted = sa.and_(_inputs.c.wanted > 0, _inputs.c.failures < HOPELESS)
        left = sa.select(_inputs.c.key).where(_inputs.c.context == self.context, sa.or_(is_open(), wanted))
        if member is not None:
            who = sa.select(_members.c.id).where(_members.c.name == canonical(member)).scalar_subquery()
            # What is out with the member may come back, and be asked by them again only if it cost nothing.
            left = left.where(_inputs.c.key.not_in(given_to(who, None)))
        return connection.scalar(left.limit(1)) is None

    def wanting(
        self, connection: sa.Connection, given: sa.Select[Any], least: int, now: float
    ) -> tuple[list[bytes], list[bytes]]:
        """Return the queries on which members contradict each other, and others that want one more answer."""
        wanting = sa.select(_inputs.c.key, _inputs.c.wanted).where(
            _inputs.c.context == self.context,
            _inputs.c.wanted >= least,
            _inputs.c.held_until <= now,
            _inputs.c.failures < HOPELESS,
            _inputs.c.key.not_in(given),
        )
        rows = connection.execute(wanting.order_by(_inputs.c.key)).all()
        soon = [bytes(r.key) for r in rows if r.wanted > 2]
        return soon, [bytes(r.key) for r in rows if r.wanted <= 2]

    def adopt(self, connection: sa.Connection, former: str) -> None:
        """Take over what stands under the context that an earlier version had for the same."""
        for table in (_inputs, _leases, _reports):
            connection.execute(sa.update(table).where(table.c.context == former).values(context=self.context))

    def close(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        """Write down that these are answered, though perhaps by words that nobody could read when they came."""
        for part in parts(keys):
            connection.execute(sa.update(_inputs).where(_inputs.c.key.in_(part)).values(answered=True))

    def withdraw(self, connection: sa.Connection, keys: Sequence[bytes], now: float) -> None:
        """Delete images that are shared no longer; those a member has at this moment are never handed out again."""
        for part in parts(keys):
            theirs = _inputs.c.key.in_(part)
            connection.execute(sa.delete(_inputs).where(theirs, _inputs.c.held_until <= now))
            connection.execute(sa.update(_inputs).where(theirs).values(failures=_WITHDRAWN, wanted=0))


def mark_answered(connection: sa.Connection, keys: Sequence[bytes]) -> None:
    """Write down which of these have an accepted answer, whoever asked."""
    for part in parts(keys):
        known = sa.select(_answers.c.key).where(_answers.c.key.in_(part))
        connection.execute(
            sa.update(_inputs).where(_inputs.c.key.in_(known), _inputs.c.answered.is_(False)).values(answered=True)
        )


def files_of(connection: sa.Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, str]]:
    """Return the PNG file and the owner of each of these images that is still shared."""
    rows = connection.execute(
        sa.select(_inputs.c.key, _inputs.c.image, _members.c.name)
        .join(_members, _members.c.id == _inputs.c.owner)
        .where(_inputs.c.key.in_(keys))
    )
    return {bytes(r.key): (bytes(r.image), str(r.name)) for r in rows}


def given_to(who: Any, now: float | None) -> sa.Select[Any]:
    """Select what a member has brought back at some cost, or (with ``now``) has and may still bring back."""
    back = sa.and_(_leases.c.returned_at.is_not(None), _requests.c.paid > 0)
    out = sa.and_(_leases.c.returned_at.is_(None), _leases.c.expires_at > (0.0 if now is None else now))
    return (
        sa.select(_attempts.c.key)
        .join(_requests, _requests.c.id == _attempts.c.request)
        .join(_leases, _leases.c.request == _requests.c.id)
        .where(_leases.c.member == who, back if now is None else sa.or_(back, out))
    )


def paid_for(key: bytes) -> sa.Select[Any]:
    """Select the members who brought this query back at some cost: it is not given to them again."""
    return (
        sa.select(_leases.c.member)
        .join(_requests, _requests.c.id == _leases.c.request)
        .join(_attempts, _attempts.c.request == _requests.c.id)
        .where(_attempts.c.key == key, _leases.c.returned_at.is_not(None), _requests.c.paid > 0)
    )


def able_members(connection: sa.Connection) -> set[int]:
    """Return who can still pay for a query and is not set aside."""
    able = (_members.c.quota > _members.c.charged, _members.c.flagged_at.is_(None), _members.c.forgotten_at.is_(None))
    return {int(i) for i in connection.scalars(sa.select(_members.c.id).where(*able))}


def _unanswered() -> sa.ColumnElement[bool]:
    # The pool may have had it answered without the hub.
    answered = sa.select(_answers.c.key).where(_answers.c.key == _inputs.c.key).exists()
    return sa.and_(_inputs.c.answered.is_(False), sa.not_(answered))


def is_open() -> sa.ColumnElement[bool]:
    """Select images that are neither answered nor given up."""
    return sa.and_(_unanswered(), _inputs.c.failures < HOPELESS)


def parts(keys: Sequence[bytes]) -> list[list[bytes]]:
    """Cut keys into lists that fit in one statement."""
    return [list(keys[i : i + 900]) for i in range(0, len(keys), 900)]

"""The roll of a hub: who may work for it, by a token, and what they did there."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.answers import Status
from ttca.errors import QuotaError
from ttca.names import canonical, look_alike
from ttca.pooling import schema
from ttca.pooling.leaving import check_nobody_left
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import members as _members
from ttca.pooling.seals import Seals

__all__ = ["Enrolled", "enrolled", "invite", "member_of", "revoke", "roll", "shared_images"]


@dataclass(frozen=True)
class Enrolled:
    """One member as whoever runs the hub sees them.

    ``invited`` is whether they have a token, ``revoked`` whether theirs was taken back. ``invited_at`` is also None for
    those whom an older version invited. ``asked`` are the queries that they took from hubs and paid, ``answered`` those
    that they say were answered, ``judged`` those of them that somebody else answered too.
    """

    member: str
    quota: int
    charged: int
    rates: Mapping[str, int]
    invited: bool
    invited_at: float | None
    revoked: bool
    asked: int
    answered: int
    judged: int
    set_aside_at: float | None


def invite(connection: sa.Connection, member: Enrolled, token: str, now: float) -> None:
    """Give a member a token, of which the SHA-256 is kept; an older one is no longer good."""
    changed = sa.update(_members).where(_members.c.name == member.member)
    connection.execute(changed.values(token=_digest(token), invited_at=now))


def revoke(connection: sa.Connection, member: str, now: float) -> None:
    """Take a member's token back; a new invitation gives another.

    Raises
    ------
    QuotaError
        If nobody of this name has one.
    """
    changed = connection.execute(
        sa.update(_members)
        .where(_members.c.name == canonical(member), _members.c.token.is_not(None))
        # Without a time, who was invited by an older version would look as if they never were.
        .values(token=None, invited_at=sa.func.coalesce(_members.c.invited_at, now))
    )
    if changed.rowcount != 1:
        raise QuotaError(f"Expected a member with a token to take back, got {member!r}. See: ttca hub members")


def roll(connection: sa.Connection) -> list[Enrolled]:
    """Return everybody who can pay, by name."""
    asked = _counted(
        connection,
        sa.select(schema.leases.c.member, sa.func.sum(schema.requests.c.paid))
        .join(schema.requests, schema.requests.c.id == schema.leases.c.request)
        .group_by(schema.leases.c.member),
    )
    said, other = schema.reports, schema.reports.alias()
    sound = sa.select(said.c.member, sa.func.count()).where(said.c.status != int(Status.FAILED))
    answered = _counted(connection, sound.group_by(said.c.member))
    by_others = sa.exists().where(
        other.c.key == said.c.key, other.c.member != said.c.member, other.c.status != int(Status.FAILED)
    )
    judged = _counted(connection, sound.where(by_others).group_by(said.c.member))
    able = (_members.c.quota > 0, _members.c.forgotten_at.is_(None))
    return [
        Enrolled(
            member=str(row.name),
            quota=int(row.quota),
            charged=int(row.charged),
            rates={w: int(getattr(row, w)) for w in WINDOWS if getattr(row, w) is not None},
            invited=row.token is not None,
            invited_at=row.invited_at,
            revoked=row.token is None and row.invited_at is not None,
            asked=asked.get(row.id, 0),
            answered=answered.get(row.id, 0),
            judged=judged.get(row.id, 0),
            set_aside_at=row.flagged_at,
        )
        for row in connection.execute(sa.select(_members).where(*able).order_by(_members.c.name))
    ]


def enrolled(connection: sa.Connection, member: str, seals: Seals) -> Enrolled:
    """Return somebody who can be invited.

    Raises
    ------
    QuotaError
        If nobody of this name can pay, or they were forgotten.
    """
    name = canonical(member)
    check_nobody_left(connection, [name], seals)
    able = {m.member: m for m in roll(connection)}
    if name not in able:
        near = [other for other in able if look_alike(other) == look_alike(name)]
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise QuotaError(
            f"{hint}Expected a member with a quota to invite, got {member!r}. Whoever the table of people names has "
            "one: quota in [pool], or their own in [pool.quotas]. Add their pictures to the table, and start ttca hub "
            "serve again. See: ttca pool status"
        )
    return able[name]


def shared_images(connection: sa.Connection) -> int:
    """Return how many images owners share, on all platforms together."""
    return int(connection.scalar(sa.select(sa.func.count()).select_from(schema.inputs)) or 0)


def _counted(connection: sa.Connection, statement: sa.Select[Any]) -> dict[int, int]:
    return {int(member): int(n or 0) for member, n in connection.execute(statement)}


def member_of(connection: sa.Connection, token: str) -> str | None:
    """Return whose token it is, None for nobody's."""
    digest = _digest(token)
    row = connection.execute(sa.select(_members.c.name, _members.c.token).where(_members.c.token == digest)).first()
    return str(row.name) if row is not None and hmac.compare_digest(bytes(row.token), digest) else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

"""Who takes part on agreed terms, who may work for a hub, by a token, what they did there, and who is forgotten."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.answers import Status
from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling import schema
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta

__all__ = ["Enrolled", "Forgotten", "check_agreed", "forget", "invite", "member_of", "revoke", "roll", "shared_images"]


@dataclass(frozen=True)
class Forgotten:
    """What :meth:`Ledger.forget` removed: ``images`` named in ``attempts`` keys, and ``answers`` about them.

    ``alias`` is the name under which what the member paid stays in the books.
    """

    alias: str
    images: int
    attempts: int
    answers: int


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


def check_agreed(connection: sa.Connection, rows: Sequence[Mapping[str, Any]], cap: int | None, *, where: str) -> None:
    """Raise where a quota, a rate or the cap is another one than the ledger's."""
    known = {r.name: r for r in connection.execute(sa.select(_members).where(_members.c.quota > 0))}
    for row in rows:
        old = known.get(row["name"])
        for what in ("quota", *WINDOWS):
            if old is not None and getattr(old, what) != row[what]:
                raise QuotaError(
                    f"Expected {what} of member {row['name']!r} as in the shared ledger {where}, "
                    f"{getattr(old, what)}, got {row[what]}. Agree on one, or set overrule = true in [pool] once."
                )
    was = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
    if cap is not None and was is not None and int(was) != cap:
        raise QuotaError(
            f"Expected the cap of the shared ledger {where}, {was}, got {cap}. Agree on one, or set overrule = "
            "true in [pool] once."
        )


def invite(connection: sa.Connection, member: str, token: str, now: float) -> None:
    """Give an enrolled member a token, of which the SHA-256 is kept; an older one is no longer good."""
    changed = connection.execute(
        sa.update(_members)
        .where(_members.c.name == canonical(member), _members.c.quota > 0)
        .values(token=_digest(token), invited_at=now)
    )
    if changed.rowcount != 1:
        raise QuotaError(f"Expected a member with a quota to invite, got {member!r}. See: ttca pool status")


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
        raise QuotaError(f"Expected a member who is invited, got {member!r}. See: ttca hub members")


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


def forget(connection: sa.Connection, member: str, alias: str, *, now: float, where: str) -> Forgotten:
    """Remove a member from a ledger that nobody else writes meanwhile; ``where`` it is, for people."""
    number = connection.scalar(sa.select(_members.c.id).where(_members.c.name == canonical(member)))
    if number is None:
        raise QuotaError(f"Expected the name of a member in {where}, got {member!r}. See: ttca pool status")
    owned = sa.select(_attempts.c.key).where(_attempts.c.owner == number, _attempts.c.key != b"")
    images = connection.scalar(sa.select(sa.func.count()).select_from(owned.distinct().subquery())) or 0
    answers = connection.execute(sa.delete(_answers).where(_answers.c.key.in_(owned))).rowcount
    # What the hub held of them: their images, and what anybody said about these.
    shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
    connection.execute(sa.delete(schema.reports).where(schema.reports.c.key.in_(shared)))
    answers += connection.execute(sa.delete(_answers).where(_answers.c.key.in_(shared))).rowcount
    connection.execute(sa.delete(schema.claims).where(schema.claims.c.key.in_(owned.union_all(shared))))
    connection.execute(sa.delete(schema.inputs).where(schema.inputs.c.owner == number))
    attempts = connection.execute(
        sa.update(_attempts).where(_attempts.c.owner == number, _attempts.c.key != b"").values(key=b"")
    ).rowcount
    connection.execute(
        sa.update(_members)
        .where(_members.c.id == number)
        .values(name=alias, quota=_members.c.charged, forgotten_at=now, token=None, invited_at=None)
    )
    return Forgotten(alias, int(images), int(attempts), int(answers))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

"""Who takes part on agreed terms, who may work for a hub, by a token, what they did there, and who is forgotten."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from ttca.answers import Status
from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling import schema
from ttca.pooling.database import Database
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests

__all__ = [
    "Enrolled",
    "Forgotten",
    "check_agreed",
    "forget",
    "invite",
    "member_of",
    "numbered",
    "revoke",
    "roll",
    "shared_images",
    "spellings",
]

_NUMBERS = sa.select(_members.c.name, _members.c.id).where(_members.c.name.in_(sa.bindparam("names", expanding=True)))


@dataclass(frozen=True)
class Forgotten:
    """What :meth:`Ledger.forget` removed: ``images`` named in ``attempts`` keys, and ``answers`` about them.

    ``alias`` is the name under which what the member paid stays in the books. ``learned`` says whether any of the
    queries were the pool's, from which proxy and δ are learned; ``unclean`` why the database's pages may still hold
    what was deleted, where they could not be cleaned.
    """

    alias: str
    images: int
    attempts: int
    answers: int
    learned: bool
    unclean: str | None = None


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


def numbered(database: Database, connection: sa.Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers of names in their one spelling; who is new is written down as one who does not pay."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    known = _numbers(connection, wanted)
    if len(known) < len(wanted):
        new = [{"name": name, "quota": 0, "charged": 0} for name in wanted if name not in known]
        database.add(connection, _members, new, new=True)
        known = _numbers(connection, wanted)
    return known


def _numbers(connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
    return {str(r.name): int(r.id) for r in connection.execute(_NUMBERS, {"names": names})}


def spellings(name: str) -> frozenset[str]:
    """Return the ways in which a name is written in texts: as it is, decomposed, in quotes, JSON, HTML and URLs."""
    both = {name, unicodedata.normalize("NFD", name)}
    quoted = {form for n in both for form in (repr(n)[1:-1], json.dumps(n)[1:-1], escape(n), quote(n), quote(n, ""))}
    return frozenset(both | quoted)


def forget(connection: sa.Connection, member: str, alias: str, *, now: float, where: str) -> Forgotten:
    """Remove a member from a ledger that nobody else writes meanwhile; ``where`` it is, for people.

    Whoever was forgotten already keeps the alias under which they are named here.
    """
    name = canonical(member)
    found = connection.execute(
        sa.select(_members.c.id, _members.c.forgotten_at).where(_members.c.name == name)
    ).one_or_none()
    if found is None:
        raise QuotaError(f"Expected the name of a member in {where}, got {member!r}. See: ttca pool status")
    number = found.id
    if found.forgotten_at is not None:
        alias = name
    mine = (_attempts.c.owner == number, _attempts.c.key != b"")
    owned = sa.select(_attempts.c.key).where(*mine)
    images = connection.scalar(sa.select(sa.func.count()).select_from(owned.distinct().subquery())) or 0
    pool = sa.select(_requests.c.id).where(_requests.c.purpose.startswith("pool"))
    learned = connection.scalar(sa.select(_attempts.c.request).where(*mine, _attempts.c.request.in_(pool)).limit(1))
    _take_name_out(connection, number, name, alias)
    answers = connection.execute(sa.delete(_answers).where(_answers.c.key.in_(owned))).rowcount
    _burn(connection, sa.select(_attempts.c.request).where(_attempts.c.owner == number), owned)
    # What anybody said about their images, and what the hub held of them.
    shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
    theirs = owned.union_all(shared)
    connection.execute(sa.delete(schema.reports).where(schema.reports.c.key.in_(theirs)))
    answers += connection.execute(sa.delete(_answers).where(_answers.c.key.in_(shared))).rowcount
    _burn(connection, sa.select(_attempts.c.request).where(_attempts.c.key.in_(shared)), shared)
    connection.execute(sa.delete(schema.claims).where(schema.claims.c.key.in_(theirs)))
    connection.execute(sa.delete(schema.inputs).where(schema.inputs.c.owner == number))
    attempts = connection.execute(sa.update(_attempts).where(*mine).values(key=b"")).rowcount
    # Their seats stay, empty: what came of them stands in the minutes, which name nobody.
    connection.execute(sa.update(schema.seats).where(schema.seats.c.owner == number).values(owner=None, face=b""))
    withdrawn = schema.consents.c.withdrawn_at.is_(None)
    connection.execute(
        sa.update(schema.consents).where(schema.consents.c.member == number, withdrawn).values(withdrawn_at=now)
    )
    connection.execute(
        sa.update(_members)
        .where(_members.c.id == number)
        .values(
            name=alias,
            quota=_members.c.charged,
            forgotten_at=sa.func.coalesce(_members.c.forgotten_at, now),
            token=None,
            invited_at=None,
        )
    )
    return Forgotten(alias, int(images), int(attempts), int(answers), learned is not None)


def _take_name_out(connection: sa.Connection, number: int, name: str, alias: str) -> None:
    """Delete what was noted of queries about a member's images, and write the alias for the name in all other notes."""
    about = sa.select(sa.literal(1)).where(
        _attempts.c.request == _outcomes.c.request,
        _attempts.c.position == _outcomes.c.position,
        _attempts.c.owner == number,
    )
    # A platform's words about a picture may say anything of whose it is.
    connection.execute(sa.update(_outcomes).where(_outcomes.c.detail.is_not(None), about.exists()).values(detail=None))
    forms = spellings(name)
    # A name that is a part of a longer word is somebody else's, or none.
    named = re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, sorted(forms)))})(?![^\W_])", re.IGNORECASE)
    rows = connection.execute(
        sa.select(_outcomes.c.request, _outcomes.c.position, _outcomes.c.detail).where(
            sa.or_(*(_outcomes.c.detail.icontains(form, autoescape=True) for form in sorted(forms)))
        )
    ).all()
    changed = [(r, named.sub(lambda _: alias, r.detail)) for r in rows]
    for row, detail in changed:
        if detail != row.detail:
            place = (_outcomes.c.request == row.request, _outcomes.c.position == row.position)
            connection.execute(sa.update(_outcomes).where(*place).values(detail=detail))


def _burn(connection: sa.Connection, requests: sa.Select[Any], keys: sa.Select[Any]) -> None:
    """Delete the platform's own words to these requests, also about other members' images in them."""
    connection.execute(sa.delete(schema.bodies).where(schema.bodies.c.request.in_(requests)))
    connection.execute(sa.delete(schema.unread).where(schema.unread.c.key.in_(keys)))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

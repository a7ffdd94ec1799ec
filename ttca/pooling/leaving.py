"""Leaving: a member is forgotten by a ledger, and does not come back unasked."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from ttca.errors import QuotaError
from ttca.names import canonical, look_alike
from ttca.pooling import schema
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import departed as _departed
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests
from ttca.pooling.seals import Seals

__all__ = ["AtStake", "Forgotten", "at_stake", "check_nobody_left", "forget", "spellings", "welcome_back"]

#: SQLite before 3.32 takes 999 parameters in one statement.
_PART = 900


@dataclass(frozen=True)
class AtStake:
    """What forgetting a member would remove: ``answers`` about so many ``images``.

    ``learned`` says whether any of the queries were the pool's; ``before`` whether they were forgotten already.
    """

    images: int
    answers: int
    learned: bool
    before: bool


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


def check_nobody_left(connection: sa.Connection, names: Iterable[str], seals: Seals) -> None:
    """Raise where one of these names, new to the ledger, is of somebody who was forgotten.

    The ledger does not hold the name, only a keyed hash of it (:meth:`~ttca.pooling.seals.Seals.face`).

    Raises
    ------
    QuotaError
    """
    faces = {face: name for name in names for face in _faces(name, seals)}
    for i in range(0, len(faces), _PART):
        part = list(faces)[i : i + _PART]
        found = connection.execute(sa.select(_departed).where(_departed.c.face.in_(part))).first()
        if found is not None:
            name = faces[bytes(found.face)]
            raise QuotaError(
                f"Expected nobody who was forgotten, got {name!r}, who was on "
                f"{datetime.fromtimestamp(found.at, UTC):%Y-%m-%d}. Take their rows out of the table of people, and "
                "their name out of [pool.quotas] and of the members. If they want to take part again, write down that "
                "they agree: ttca pool consent. Nothing was sent."
            )


def welcome_back(connection: sa.Connection, name: str, seals: Seals) -> None:
    """Let somebody take part again who was forgotten; it is not known who they were, nor what they paid."""
    connection.execute(sa.delete(_departed).where(_departed.c.face.in_(_faces(name, seals))))


def _faces(name: str, seals: Seals) -> list[bytes]:
    """Return by what a name is known again: as it is, and however its letters were written."""
    return list(dict.fromkeys(seals.face(one) for one in (name, look_alike(name))))


def _number(connection: sa.Connection, member: str, where: str) -> tuple[int, bool]:
    """Return a member's number, and whether they were forgotten before; QuotaError where there is nobody."""
    found = connection.execute(
        sa.select(_members.c.id, _members.c.forgotten_at).where(_members.c.name == canonical(member))
    ).one_or_none()
    if found is None:
        raise QuotaError(f"Expected the name of a member in {where}, got {member!r}. See: ttca pool status")
    return found.id, found.forgotten_at is not None


def at_stake(connection: sa.Connection, member: str, *, where: str) -> AtStake:
    """Return what forgetting a member would remove from a ledger; ``where`` it is, for people.

    Raises
    ------
    QuotaError
        If no member has the name.
    """
    number, before = _number(connection, member, where)
    mine = (_attempts.c.owner == number, _attempts.c.key != b"")
    owned = sa.select(_attempts.c.key).where(*mine)
    shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
    images = connection.scalar(sa.select(sa.func.count()).select_from(owned.distinct().subquery())) or 0
    theirs = _answers.c.key.in_(owned.union(shared))
    answers = connection.scalar(sa.select(sa.func.count()).select_from(_answers).where(theirs)) or 0
    pool = sa.select(_requests.c.id).where(_requests.c.purpose.startswith("pool"))
    learned = connection.scalar(sa.select(_attempts.c.request).where(*mine, _attempts.c.request.in_(pool)).limit(1))
    return AtStake(int(images), int(answers), learned is not None, before)


def forget(connection: sa.Connection, member: str, alias: str, *, seals: Seals, now: float, where: str) -> Forgotten:
    """Remove a member from a ledger that nobody else writes meanwhile; ``where`` it is, for people.

    Whoever was forgotten already keeps the alias under which they are named here.
    """
    name, stake = canonical(member), at_stake(connection, member, where=where)
    number, _ = _number(connection, member, where)
    if stake.before:
        alias = name
    else:
        # Another who looked alike may have left before.
        welcome_back(connection, name, seals)
        connection.execute(sa.insert(_departed), [{"face": face, "at": now} for face in _faces(name, seals)])
    mine = (_attempts.c.owner == number, _attempts.c.key != b"")
    owned = sa.select(_attempts.c.key).where(*mine)
    _take_name_out(connection, number, name, alias)
    answers = connection.execute(sa.delete(_answers).where(_answers.c.key.in_(owned))).rowcount
    _burn(connection, sa.select(_attempts.c.request).where(_attempts.c.owner == number), owned)
    # What anybody said about their images, and what the hub held of them.
    shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
    _seal(connection, number, shared)
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
    return Forgotten(alias, stake.images, int(attempts), int(answers), stake.learned)


def _seal(connection: sa.Connection, number: int, shared: sa.Select[Any]) -> None:
    """Take content and salt out of every link about their images and seats: what they were committed to, nobody knows.

    The commitments stay, so that every signed head still verifies.
    """
    links = schema.links
    about = sa.select(sa.literal(1)).where(
        _attempts.c.request == links.c.request,
        _attempts.c.position == links.c.position,
        sa.or_(_attempts.c.owner == number, _attempts.c.key.in_(shared)),
    )
    theirs = sa.or_(links.c.owner == number, about.exists())
    # What was written down after they were forgotten says nothing of them.
    open_ = (links.c.content.is_not(None), links.c.content.not_like('%"forgotten":true%'))
    connection.execute(sa.update(links).where(theirs, *open_).values(content=None, salt=None))


def spellings(name: str) -> frozenset[str]:
    """Return the ways in which a name is written in texts: as it is, decomposed, in quotes, JSON, HTML and URLs."""
    both = {name, unicodedata.normalize("NFD", name)}
    quoted = {form for n in both for form in (repr(n)[1:-1], json.dumps(n)[1:-1], escape(n), quote(n), quote(n, ""))}
    return frozenset(both | quoted)


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

"""Who takes part on agreed terms, who may work for a hub, by a token, and who is forgotten."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling import schema
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta

__all__ = ["Forgotten", "check_agreed", "forget", "invite", "member_of"]


@dataclass(frozen=True)
class Forgotten:
    """What :meth:`Ledger.forget` removed: ``images`` named in ``attempts`` keys, and ``answers`` about them.

    ``alias`` is the name under which what the member paid stays in the books.
    """

    alias: str
    images: int
    attempts: int
    answers: int


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


def invite(connection: sa.Connection, member: str, token: str) -> None:
    """Give an enrolled member a token, of which the SHA-256 is kept; an older one is no longer good."""
    changed = connection.execute(
        sa.update(_members)
        .where(_members.c.name == canonical(member), _members.c.quota > 0)
        .values(token=_digest(token))
    )
    if changed.rowcount != 1:
        raise QuotaError(f"Expected a member with a quota to invite, got {member!r}. See: ttca pool status")


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
    _burn(connection, sa.select(_attempts.c.request).where(_attempts.c.owner == number), owned)
    # What the hub held of them: their images, and what anybody said about these.
    shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
    connection.execute(sa.delete(schema.reports).where(schema.reports.c.key.in_(shared)))
    answers += connection.execute(sa.delete(_answers).where(_answers.c.key.in_(shared))).rowcount
    _burn(connection, sa.select(_attempts.c.request).where(_attempts.c.key.in_(shared)), shared)
    connection.execute(sa.delete(schema.claims).where(schema.claims.c.key.in_(owned.union_all(shared))))
    connection.execute(sa.delete(schema.inputs).where(schema.inputs.c.owner == number))
    attempts = connection.execute(
        sa.update(_attempts).where(_attempts.c.owner == number, _attempts.c.key != b"").values(key=b"")
    ).rowcount
    connection.execute(
        sa.update(_members)
        .where(_members.c.id == number)
        .values(name=alias, quota=_members.c.charged, forgotten_at=now, token=None)
    )
    return Forgotten(alias, int(images), int(attempts), int(answers))


def _burn(connection: sa.Connection, requests: sa.Select[Any], keys: sa.Select[Any]) -> None:
    """Delete the platform's own words to these requests, also about other members' images in them."""
    connection.execute(sa.delete(schema.bodies).where(schema.bodies.c.request.in_(requests)))
    connection.execute(sa.delete(schema.unread).where(schema.unread.c.key.in_(keys)))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

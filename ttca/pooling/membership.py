"""Members: the terms they agreed on, and the numbers under which a ledger writes them down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ttca.errors import QuotaError
from ttca.pooling.database import Database
from ttca.pooling.leaving import check_nobody_left
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.seals import Seals

__all__ = ["check_agreed", "numbered"]

_NUMBERS = sa.select(_members.c.name, _members.c.id).where(_members.c.name.in_(sa.bindparam("names", expanding=True)))


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


def numbered(database: Database, connection: sa.Connection, names: Iterable[str], seals: Seals) -> dict[str, int]:
    """Return the numbers of names in their one spelling; who is new is written down as one who does not pay.

    Raises
    ------
    QuotaError
        If somebody new was forgotten before.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    known = _numbers(connection, wanted)
    if len(known) < len(wanted):
        new = [name for name in wanted if name not in known]
        check_nobody_left(connection, new, seals)
        database.add(connection, _members, [{"name": n, "quota": 0, "charged": 0} for n in new], new=True)
        known = _numbers(connection, wanted)
    return known


def _numbers(connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
    return {str(r.name): int(r.id) for r in connection.execute(_NUMBERS, {"names": names})}

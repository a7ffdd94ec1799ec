"""The jury: whose answers differ from everybody else's, what becomes of them, and who is pardoned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling import audits
from ttca.pooling.audits import Reports
from ttca.pooling.ledger import Ledger
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import reports as _reports
from ttca.pooling.shelf import Shelf, mark_answered, parts

__all__ = ["Jury"]


class Jury:
    """Judges members by their answers to queries that several of them answered.

    Parameters
    ----------
    ledger : Ledger
    shelf : Shelf
        Whose images' answers are compared.
    classes : int
    """

    def __init__(self, ledger: Ledger, shelf: Shelf, *, classes: int) -> None:
        self._ledger, self._db, self._shelf, self._classes = ledger, ledger.database, shelf, classes

    def flagged(self) -> list[str]:
        """Return the members whose answers were set aside."""
        names = sa.select(_members.c.name).where(_members.c.flagged_at.is_not(None)).order_by(_members.c.name)
        return self._db.run(lambda connection: [str(name) for name in connection.scalars(names)])

    def pardon(self, member: str) -> None:
        """Lift a member's quarantine. What they said before stays set aside, and no longer speaks against them."""

        def work(connection: sa.Connection) -> None:
            self._db.exclude(connection)
            theirs = _members.c.name == canonical(member)
            number = connection.scalar(sa.select(_members.c.id).where(theirs, _members.c.flagged_at.is_not(None)))
            if number is None:
                raise QuotaError(f"Expected a member who was set aside, got {member!r}. See the hub's page.")
            connection.execute(sa.delete(_reports).where(_reports.c.member == number))
            connection.execute(sa.update(_members).where(_members.c.id == number).values(flagged_at=None))

        self._db.run(work, write=True)

    def judge(self) -> None:
        """Flag who answers otherwise than the others, and put their answers aside."""
        mine = _reports.c.context == self._shelf.context
        several = sa.select(_reports.c.key).where(mine).group_by(_reports.c.key).having(sa.func.count() >= 3)

        def read(connection: sa.Connection) -> tuple[Sequence[Any], set[int]]:
            rows = connection.execute(
                sa.select(_reports.c.key, _reports.c.member, _reports.c.label, _reports.c.scores).where(
                    _reports.c.key.in_(several)
                )
            ).all()
            known = set(connection.scalars(sa.select(_members.c.id).where(_members.c.flagged_at.is_not(None))))
            return rows, {int(i) for i in known}

        rows, known = self._db.run(read)
        if not rows:
            return
        verdict = audits.judge(_as_reports(rows, self._classes), flagged=frozenset(known))
        for member in sorted(set(verdict.members[verdict.flagged].tolist()) - known):
            self.set_aside(int(member))

    def set_aside(self, member: int) -> None:
        """Flag the member of this number, and put the next trusted member's answers in the place of theirs."""

        def work(connection: sa.Connection) -> None:
            # No answer of theirs is on its way into the tables meanwhile.
            self._db.exclude(connection)
            flagged = connection.execute(
                sa.update(_members)
                .where(_members.c.id == member, _members.c.flagged_at.is_(None))
                .values(flagged_at=self._ledger.now_in(connection))
            )
            if flagged.rowcount != 1:
                return
            # Not what the pool sent from the organiser's own machine under the member's quota.
            theirs = sa.select(_leases.c.request).where(_leases.c.member == member)
            keys = connection.scalars(sa.select(_answers.c.key).where(_answers.c.request.in_(theirs)))
            for part in parts([bytes(k) for k in keys]):
                self._replace(connection, part)

        self._db.run(work, write=True)

    def _replace(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        """Take answers out of the ledger, and put in what the next trusted member said, where one did."""
        connection.execute(sa.delete(_answers).where(_answers.c.key.in_(keys)))
        trusted = (
            sa.select(_reports)
            .join(_members, _members.c.id == _reports.c.member)
            .where(_reports.c.key.in_(keys), _members.c.flagged_at.is_(None))
            .order_by(_reports.c.at, _reports.c.request)
        )
        names = [c.name for c in _answers.columns]
        rows = [{n: getattr(r, n) for n in names} for r in connection.execute(trusted)]
        if rows:
            connection.execute(self._db.insert_new(_answers), rows)
        connection.execute(sa.update(_inputs).where(_inputs.c.key.in_(keys)).values(answered=False))
        mark_answered(connection, keys)


def _as_reports(rows: Sequence[Any], classes: int) -> Reports:
    numbers: dict[bytes, int] = {}
    queries = [numbers.setdefault(bytes(row[0]), len(numbers)) for row in rows]
    scores = np.full((len(rows), classes), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row[3] is not None:
            scores[i] = np.frombuffer(row[3], "<f4", count=classes)
    members: NDArray[np.int64] = np.array([row[1] for row in rows], np.int64)
    return Reports(np.array(queries, np.int64), members, np.array([row[2] for row in rows], np.int64), scores)

"""The jury: whose answers differ from everybody else's, what becomes of them, and who is pardoned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.answers import Status
from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling import cross_checks
from ttca.pooling.cross_checks import Reports
from ttca.pooling.ledger import Ledger
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import reports as _reports
from ttca.pooling.settling import CheckPlan, Repute, lots_of, settle
from ttca.pooling.shelf import HOPELESS, Shelf, able_members, mark_answered, paid_for, parts

__all__ = ["Jury"]

#: An image is given up once so many members who were judged good could not get an answer to it.
_GOOD_FAILURES = 6
#: Everybody is judged again when this share of all answers is new.
_NEW_SHARE = 0.02
_FAILED = int(Status.FAILED)
_COLUMNS = [c.name for c in _answers.columns]
_NOBODY = Repute(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_))


class Jury:
    """Judges members by their answers to queries that several of them answered.

    Parameters
    ----------
    ledger : Ledger
    shelf : Shelf
        Whose images' answers are compared.
    classes : int
    plan : CheckPlan
    """

    def __init__(self, ledger: Ledger, shelf: Shelf, *, classes: int, plan: CheckPlan) -> None:
        self._ledger, self._db, self._shelf, self._classes, self._plan = ledger, ledger.database, shelf, classes, plan
        # What the last judgment said of everybody, and how much was said before it and since.
        self._repute, self._heard, self._new = _NOBODY, 0, 0

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

    # -- what is heard ----------------------------------------------------------------------------------------

    def hear(self, connection: sa.Connection, keys: Sequence[bytes], failed: Sequence[bytes]) -> None:
        """Settle queries that were just answered, and give up those to which nobody gets an answer."""
        self._new += len(keys)
        if keys and not self._plan.off:
            self._settle(connection, self._read(connection, keys), self._repute, whole=False)
        self._give_up(connection, failed)

    @property
    def due(self) -> bool:
        """Whether enough was said since everybody was judged."""
        return self._new > _NEW_SHARE * self._heard

    @property
    def stale(self) -> bool:
        """Whether anything was said since."""
        return self._new > 0

    def judge(self) -> None:
        """Flag who answers otherwise than the others, put their answers aside, and settle every query anew."""

        def work(connection: sa.Connection) -> tuple[Repute, int]:
            # Nothing is on its way into the tables meanwhile.
            self._db.exclude(connection)
            rows = self._read(connection, None)
            reports, _ = _as_reports(rows, self._classes)
            pool = len(able_members(connection) | set(reports.members.tolist()))
            verdict = cross_checks.judge(reports, pool=pool)
            worst = verdict.members[verdict.flagged].tolist()
            for member in worst:
                self._flag(connection, int(member))
            if worst:
                rows = [row for row in rows if row.member not in set(worst)]
                reports, _ = _as_reports(rows, self._classes)
            repute = Repute.of(verdict, reports, self._failures(connection), self._plan)
            if rows:
                self._settle(connection, rows, repute, whole=True)
            self._reconsider(connection, repute)
            return repute, len(rows)

        new = self._new
        self._repute, self._heard = self._db.run(work, write=True)
        self._new -= new

    def set_aside(self, member: int) -> None:
        """Flag the member of this number, and put the next trusted member's answers in the place of theirs."""

        def work(connection: sa.Connection) -> None:
            self._db.exclude(connection)
            self._flag(connection, member)

        self._db.run(work, write=True)

    # -- inside -----------------------------------------------------------------------------------------------

    def _read(self, connection: sa.Connection, keys: Sequence[bytes] | None) -> list[Any]:
        """Return what members who are not set aside say of these queries, or of all, in the order of time."""
        wanted = (
            sa.select(*(c for c in _reports.columns if c.name != "context"))
            .join(_members, _members.c.id == _reports.c.member)
            .where(_reports.c.context == self._shelf.context, _members.c.flagged_at.is_(None))
            .where(_reports.c.status != _FAILED)
            .order_by(_reports.c.at, _reports.c.request, _reports.c.key)
        )
        if keys is None:
            return list(connection.execute(wanted))
        return [row for part in parts(keys) for row in connection.execute(wanted.where(_reports.c.key.in_(part)))]

    def _settle(self, connection: sa.Connection, rows: Sequence[Any], repute: Repute, *, whole: bool) -> None:
        reports, keys = _as_reports(rows, self._classes)
        if not keys:
            return
        done = settle(reports, lots_of(keys), repute, self._plan, whole=whole)
        able = able_members(connection)
        said: dict[int, set[int]] = {}
        row_of: dict[tuple[int, int], int] = {}
        for i, (query, row) in enumerate(zip(reports.queries.tolist(), rows, strict=True)):
            said.setdefault(query, set()).add(int(row.member))
            row_of[query, int(row.request)] = i
        stands = self._stands(connection, keys, whole=whole)
        changed, better = [], []
        for query, key in enumerate(keys):
            if key not in stands:
                continue
            was, request = stands[key]
            # Where nobody is left to ask, the answer stands as it is.
            now = int(done.wanted[query]) if able - said[query] else 0
            if now != was:
                changed.append({"its_key": key, "its_wanted": now})
            accepted = row_of.get((query, -1 if request is None else request))
            winner = int(done.winner[query])
            # An answer that came by another way than a lease is the pool's own.
            if accepted is not None and done.votes[winner] > done.votes[accepted] + 1e-9:
                better.append(winner)
        if changed:
            connection.execute(_WANT, changed)
        if better:
            connection.execute(_DROP, [{"its_key": rows[i].key} for i in better])
            new = [{name: getattr(rows[i], name) for name in _COLUMNS} for i in better]
            self._db.add(connection, _answers, new, new=True)

    def _stands(
        self, connection: sa.Connection, keys: Sequence[bytes], *, whole: bool
    ) -> Mapping[bytes, tuple[int, int | None]]:
        """Return how much each query is wanted now, and the request whose answer is accepted."""
        found = (
            sa.select(_inputs.c.key, _inputs.c.wanted, _answers.c.request)
            .outerjoin(_answers, _answers.c.key == _inputs.c.key)
            .where(_inputs.c.context == self._shelf.context)
        )
        statements = [found] if whole else [found.where(_inputs.c.key.in_(part)) for part in parts(keys)]
        return {bytes(r.key): (int(r.wanted), r.request) for s in statements for r in connection.execute(s)}

    def _flag(self, connection: sa.Connection, member: int) -> None:
        flagged = connection.execute(
            sa.update(_members)
            .where(_members.c.id == member, _members.c.flagged_at.is_(None))
            .values(flagged_at=self._ledger.now_in(connection))
        )
        if flagged.rowcount != 1:
            return
        # Not what the pool sent from the organizer's own machine under the member's quota.
        theirs = sa.select(_leases.c.request).where(_leases.c.member == member)
        keys = connection.scalars(sa.select(_answers.c.key).where(_answers.c.request.in_(theirs)))
        for part in parts([bytes(k) for k in keys]):
            self._replace(connection, part)

    def _replace(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        """Take answers out of the ledger, and put in what the next trusted member said, where one did."""
        connection.execute(sa.delete(_answers).where(_answers.c.key.in_(keys)))
        rows = [{name: getattr(row, name) for name in _COLUMNS} for row in self._read(connection, keys)]
        if rows:
            self._db.add(connection, _answers, rows, new=True)
        connection.execute(sa.update(_inputs).where(_inputs.c.key.in_(keys)).values(answered=False, wanted=0))
        mark_answered(connection, keys)

    # -- failures ---------------------------------------------------------------------------------------------

    def _failures(self, connection: sa.Connection) -> dict[int, int]:
        """Return how often each member failed where somebody else got an answer."""
        rows = connection.execute(
            sa.select(_reports.c.member, sa.func.count())
            .join(_inputs, _inputs.c.key == _reports.c.key)
            .where(_reports.c.context == self._shelf.context, _reports.c.status == _FAILED, _inputs.c.answered)
            .group_by(_reports.c.member)
        )
        return {int(member): int(n) for member, n in rows}

    def _give_up(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        good, able = self._repute.judged_good(), able_members(connection) if keys else set()
        given_up = [key for key in keys if self._is_hopeless(connection, key, good, able)]
        for part in parts(given_up):
            hopeless = sa.update(_inputs).where(_inputs.c.key.in_(part), _inputs.c.failures < HOPELESS)
            connection.execute(hopeless.values(failures=HOPELESS))

    def _is_hopeless(self, connection: sa.Connection, key: bytes, good: frozenset[int], able: set[int]) -> bool:
        failed = connection.scalars(
            sa.select(_reports.c.member).where(_reports.c.key == key, _reports.c.status == _FAILED)
        )
        everybody = {int(m) for m in failed}
        # Where nothing is checked nobody can be judged.
        if len(everybody) >= HOPELESS if self._plan.off else len(good & everybody) >= _GOOD_FAILURES:
            return True
        # Or once everybody has tried who still could.
        return not able - {int(m) for m in connection.scalars(paid_for(key))}

    def _reconsider(self, connection: sa.Connection, repute: Repute) -> None:
        """Ask again what was given up on the word of members who are no longer judged good; give up what is."""
        good, able = repute.judged_good(), able_members(connection)
        tried = (
            sa.select(_inputs.c.key, _inputs.c.failures)
            .join(_reports, _reports.c.key == _inputs.c.key)
            .where(_inputs.c.context == self._shelf.context, _inputs.c.answered.is_(False))
            .where(_reports.c.status == _FAILED, _inputs.c.failures <= HOPELESS)
            .group_by(_inputs.c.key, _inputs.c.failures)
        )
        for row in connection.execute(tried).all():
            hopeless = self._is_hopeless(connection, bytes(row.key), good, able)
            if hopeless != (row.failures == HOPELESS):
                new = HOPELESS if hopeless else 1
                connection.execute(sa.update(_inputs).where(_inputs.c.key == row.key).values(failures=new))


_WANT = sa.update(_inputs).where(_inputs.c.key == sa.bindparam("its_key")).values(wanted=sa.bindparam("its_wanted"))
_DROP = sa.delete(_answers).where(_answers.c.key == sa.bindparam("its_key"))


def _as_reports(rows: Sequence[Any], classes: int) -> tuple[Reports, list[bytes]]:
    """Return the rows as arrays, and the keys that their queries' numbers stand for."""
    numbers: dict[bytes, int] = {}
    queries: NDArray[np.int64] = np.array([numbers.setdefault(bytes(row.key), len(numbers)) for row in rows], np.int64)
    scores = np.full((len(rows), classes + 1), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row.scores is not None:
            scores[i, :classes] = np.frombuffer(row.scores, "<f4", count=classes)
            # To what step scores are rounded is part of what was said.
            scores[i, classes] = row.resolution
    members: NDArray[np.int64] = np.array([row.member for row in rows], np.int64)
    labels: NDArray[np.int64] = np.array([row.label for row in rows], np.int64)
    return Reports(queries, members, labels, scores), list(numbers)

"""Looking up: accepted answers by their queries' keys, each checked against its seal, or read again from its body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import LedgerError, TransportError, TTCAError
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import bodies as _bodies
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import unread as _unread
from ttca.pooling.seals import SEALED, Seals
from ttca.values import Value

__all__ = ["Found", "ReadAgain", "Reader", "Shelved", "answered", "seal_all", "words_of"]

ReadAgain: TypeAlias = Callable[[bytes, int], Answers]
"""The body of a request of so many images → its answers, as they are read now; a TransportError where it has none."""

#: SQLite before 3.32 takes 999 parameters in one statement.
_PART = 900
_SEALED_AT_ONCE = 10_000
# Handed to the driver as it is, and rows taken as they come: SQLAlchemy's way through a row takes longer than SQLite's.
_BY_KEY = f"SELECT {', '.join(SEALED)}, seal FROM {_answers.name} WHERE key IN "
_KEY, _STATUS, _LABEL, _SCORES, _RESOLUTION, _REQUEST, _READING = range(len(SEALED))
_Row: TypeAlias = Sequence[Any]
_ANSWERED = sa.select(_answers.c.key).where(_answers.c.key.in_(sa.bindparam("keys", expanding=True)))
_UNREAD = sa.select(_unread.c.key, _unread.c.request).where(_unread.c.key.in_(sa.bindparam("keys", expanding=True)))
_BODY = sa.select(_bodies.c.reading, _bodies.c.body).where(_bodies.c.request == sa.bindparam("its_request"))
_PLACES = sa.select(_attempts.c.position, _attempts.c.key).where(_attempts.c.request == sa.bindparam("its_request"))


@dataclass(frozen=True)
class Reader:
    """How answers are read now.

    Parameters
    ----------
    mark : bytes, optional
        Of the reading; None where nothing but the platform's identity decides.
    again : callable, optional
        Reads a body; None where nobody can.
    """

    mark: bytes | None = None
    again: ReadAgain | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Found(Value):
    """What a ledger holds about N queries.

    Parameters
    ----------
    known : bool array, shape (N,)
        Which have an answer.
    answers : Answers
        Abstentions where there is none.
    readings : list of bytes or None
        For a query whose answer was read otherwise and cannot be read again, the mark of that reading; else None.
    again : int
        How many of the answers were read again.
    """

    known: NDArray[np.bool_]
    answers: Answers
    readings: list[bytes | None]
    again: int


@dataclass(frozen=True)
class Shelved:
    """The answers of one ledger, by connection: ``where`` it is, for people, and its seals."""

    where: str
    seals: Seals

    def find(
        self, connection: sa.Connection, keys: Sequence[bytes], *, classes: int, reader: Reader | None = None
    ) -> Found:
        """Return the answers to queries; without a reader as they were read, whoever did.

        Raises
        ------
        LedgerError
            If an answer is not what was written, or is about another number of classes.
        """
        rows = self._rows(connection, list(dict.fromkeys(keys)))
        other = {} if reader is None else {k: r[_REQUEST] for k, r in rows.items() if not _is_read(r, reader)}
        missing = [] if reader is None or reader.again is None else [k for k in dict.fromkeys(keys) if k not in rows]
        said = {} if reader is None else self._read_again(connection, other, missing, reader)
        result = Answers.failed(len(keys), classes)
        readings: list[bytes | None] = [rows[key][_READING] if key in other else None for key in keys]
        stored = [i for i, key in enumerate(keys) if key in rows and key not in other]
        again = [i for i, key in enumerate(keys) if key in said]
        known = np.zeros(len(keys), np.bool_)
        known[stored + again] = True
        try:
            _put(result, stored, [rows[keys[i]] for i in stored], classes)
            for i in again:
                readings[i] = None
                for column in ("status", "labels", "scores", "resolution"):
                    getattr(result, column)[i] = getattr(said[keys[i]], column)[0]
            # What a file says is checked like what a platform says.
            checked = Answers(result.status, result.labels, result.scores, result.resolution)
        except (TTCAError, TypeError, ValueError, OverflowError) as error:
            raise LedgerError(
                f"Expected answers about {classes} classes in {self.where}, got one that cannot be read ({error}). "
                "The ledger was made for another platform or was edited."
            ) from None
        return Found(known, checked, readings, len(said))

    def _rows(self, connection: sa.Connection, keys: Sequence[bytes]) -> dict[bytes, _Row]:
        found: dict[bytes, _Row] = {}
        mark = "%s" if connection.dialect.name == "postgresql" else "?"
        for i in range(0, len(keys), _PART):
            part = tuple(keys[i : i + _PART])
            statement = f"{_BY_KEY}({', '.join([mark] * len(part))})"
            for row in connection.exec_driver_sql(statement, part).all():
                if not self.seals.holds(row):
                    raise self._changed("an answer")
                found[row[_KEY]] = row
        return found

    def _read_again(
        self, connection: sa.Connection, other: dict[bytes, int], missing: Sequence[bytes], reader: Reader
    ) -> dict[bytes, Answers]:
        """Return, of queries that were answered or not, what their bodies say as they are read now."""
        if reader.again is None:
            return {}
        wanted = dict(other)
        for i in range(0, len(missing), _PART):
            wanted |= {bytes(k): r for k, r in connection.execute(_UNREAD, {"keys": missing[i : i + _PART]})}
        bodies: dict[int, dict[bytes, Answers]] = {}
        said: dict[bytes, Answers] = {}
        for key, request in wanted.items():
            if request not in bodies:
                bodies[request] = self._read_body(connection, request, reader)
            if key in bodies[request]:
                said[key] = bodies[request][key]
        return said

    def _read_body(self, connection: sa.Connection, request: int, reader: Reader) -> dict[bytes, Answers]:
        its = {"its_request": request}
        row = connection.execute(_BODY, its).first()
        # What could not be read in this way before cannot be now.
        if row is None or reader.again is None or row.reading == reader.mark:
            return {}
        body = self.seals.unwrapped(request, bytes(row.body))
        if body is None:
            raise self._changed("what the platform said")
        places = connection.execute(_PLACES, its).all()
        try:
            answers = reader.again(body, len(places))
        except TransportError:
            return {}
        return {bytes(p.key): answers[p.position : p.position + 1] for p in places if answers.resolved[p.position]}

    def _changed(self, what: str) -> LedgerError:
        return LedgerError(
            f"Expected what ttca wrote in the ledger {self.where}, got {what} that was changed since, by a failing "
            "disk or by somebody. Restore a copy of the ledger."
        )


def words_of(connection: sa.Connection, seals: Seals, key: bytes) -> tuple[bytes, int, int] | None:
    """Return what the platform said to a query, whose place that is in its request, and how many that had.

    None where it did not answer, or where its words are not kept.
    """
    request = connection.scalar(sa.select(_answers.c.request).where(_answers.c.key == key))
    if request is None:
        request = connection.scalar(sa.select(_unread.c.request).where(_unread.c.key == key))
    row = None if request is None else connection.execute(_BODY, {"its_request": request}).first()
    if request is None or row is None:
        return None
    body = seals.unwrapped(request, bytes(row.body))
    places = [(int(p.position), bytes(p.key)) for p in connection.execute(_PLACES, {"its_request": request})]
    place = next((position for position, its in places if its == key), None)
    return None if body is None or place is None else (body, place, len(places))


def answered(connection: sa.Connection, keys: Sequence[bytes]) -> set[bytes]:
    """Return which of these have an accepted answer."""
    parts = [keys[i : i + _PART] for i in range(0, len(keys), _PART)]
    return {bytes(key) for part in parts for key in connection.scalars(_ANSWERED, {"keys": part})}


def seal_all(connection: sa.Connection, seals: Seals) -> None:
    """Seal the answers of a ledger of an older version, as they stand."""
    for table in (_answers, _reports):
        whose = list(table.primary_key.columns)
        seal = sa.update(table).where(*(c == sa.bindparam(f"its_{c.name}") for c in whose))
        next_ones = sa.select(table).where(table.c.seal.is_(None), table.c.key >= sa.bindparam("last"))
        next_ones, last = next_ones.order_by(table.c.key).limit(_SEALED_AT_ONCE), b""
        while rows := [row._asdict() for row in connection.execute(next_ones, {"last": last})]:
            sealed = [{f"its_{c.name}": r[c.name] for c in whose} | {"mark": seals.of(r)} for r in rows]
            connection.execute(seal.values(seal=sa.bindparam("mark")), sealed)
            last = rows[-1]["key"]


def _is_read(row: _Row, reader: Reader) -> bool:
    """Whether an answer was read as it would be now. One without a mark is found by who reads it so alone."""
    return row[_READING] is None or bool(row[_READING] == reader.mark)


def _put(result: Answers, places: list[int], rows: list[_Row], classes: int) -> None:
    """Put rows of the ledger into their places."""
    if not rows:
        return
    columns = list(zip(*rows, strict=True))
    for into, column in (("status", _STATUS), ("labels", _LABEL), ("resolution", _RESOLUTION)):
        getattr(result, into)[places] = columns[column]
    scored = [(i, scores) for i, scores in zip(places, columns[_SCORES], strict=True) if scores is not None]
    wrong = next((scores for _, scores in scored if len(scores) != 4 * classes), None)
    if wrong is not None:
        raise ValueError(f"scores of {len(wrong) / 4:g} classes")
    if scored:
        together = np.frombuffer(b"".join(scores for _, scores in scored), "<f4").reshape(len(scored), classes)
        result.scores[[i for i, _ in scored]] = together

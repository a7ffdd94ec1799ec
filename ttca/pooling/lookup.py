"""Looking up: accepted answers by their queries' keys, each checked against its seal, or read again from its body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.answers import Answers, Status
from ttca.errors import LedgerError, TransportError, TTCAError
from ttca.pooling.database import found
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import bodies as _bodies
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import unread as _unread
from ttca.pooling.seals import NUMBERS, SEALED, SealedColumns, Seals
from ttca.values import Value

__all__ = ["Found", "KeptWords", "ReadAgain", "Reader", "Shelved", "answered", "seal_all", "words_of"]

ReadAgain: TypeAlias = Callable[[bytes, int], Answers]
"""The body of a request of so many images → its answers, as they are read now; a TransportError where it has none."""

_PART = 900
_SEALED_AT_ONCE = 10_000
#: SQLite from 3.32 on takes 32,766 parameters in one statement, PostgreSQL twice as many.
_LARGE_PART = 10_000
# Handed to the driver as it is, and rows taken as they come: SQLAlchemy's way through a row takes longer than SQLite's.
_COLUMNS = ", ".join(SEALED) + ", seal"
_BY_KEY = f"SELECT {_COLUMNS} FROM answers WHERE key IN ({{}})"
# In the order of the keys. SQLite would first make a table of what stands behind IN, and sort it more slowly.
_BY_SORTED_KEY = f"SELECT {_COLUMNS} FROM (VALUES {{}}) CROSS JOIN answers ON key = column1"
_NOTHING = np.array([(0, Status.FAILED, -1, 0.0, 0, -1)], NUMBERS).tobytes()
_Columns: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
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
        rows = self._rows(connection, sorted(set(keys)))
        row_of = dict(zip(rows.keys, range(len(rows.keys)), strict=True))
        # Behind them, what is said where nothing is known.
        numbers = np.frombuffer(b"".join([*rows.numbers, _NOTHING]), NUMBERS)
        said: dict[bytes, Answers] = {}
        otherwise: dict[bytes, bytes] = {}
        if reader is not None:
            missing = [] if reader.again is None else [key for key in dict.fromkeys(keys) if key not in row_of]
            # One without a mark is found by who reads it so alone.
            if not set(rows.readings) <= {None, reader.mark}:
                marks = zip(rows.keys, rows.readings, strict=True)
                otherwise = {key: mark for key, mark in marks if mark is not None and mark != reader.mark}
            other = {key: row_of.pop(key) for key in otherwise}
            for row in other.values():
                # Perhaps about other classes.
                rows.scores[row] = None
            requests = {key: int(numbers["request"][row]) for key, row in other.items()}
            said = self._read_again(connection, requests, missing, reader)
        at = np.fromiter(map(row_of.get, keys, repeat(-1)), np.intp, len(keys))
        again = [i for i, key in enumerate(keys) if key in said] if said else []
        try:
            result = _gathered(at, numbers, rows.scores, classes)
            for i in again:
                for mine, its in zip(result, _columns(said[keys[i]]), strict=True):
                    mine[i] = its[0]
            # What a file says is checked like what a platform says.
            answers = Answers(*result)
        except (TTCAError, ValueError) as error:
            raise LedgerError(
                f"Expected answers about {classes} classes in {self.where}, got one that cannot be read ({error}). "
                "The ledger was made for another platform or was edited."
            ) from None
        known = at >= 0
        known[again] = True
        readings: list[bytes | None] = [None] * len(keys)
        if otherwise:
            readings = [None if key in said else otherwise.get(key) for key in keys]
        return Found(known, answers, readings, len(said))

    def _rows(self, connection: sa.Connection, keys: Sequence[bytes]) -> SealedColumns:
        """Return the answers to those queries, sorted, that have one; in no order."""
        server = connection.dialect.name == "postgresql"
        statement, mark = (_BY_KEY, "?") if server else (_BY_SORTED_KEY, "(?)")
        parts = [keys[i : i + _LARGE_PART] for i in range(0, len(keys), _LARGE_PART)]
        there = [found(connection, statement.format(", ".join([mark] * len(part))), part) for part in parts]
        rows = self.seals.opened(there[0] if len(there) == 1 else [row for part in there for row in part])
        if rows is None:
            raise self._changed("an answer")
        return rows

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


@dataclass(frozen=True, eq=False, repr=False)
class KeptWords(Value):
    """What the platform said to a request: the ``place`` of a query in it, of how many (``count``), and the mark of the
    ``reading`` that it was last tried with.
    """

    body: bytes
    place: int
    count: int
    reading: bytes | None


def words_of(connection: sa.Connection, seals: Seals, key: bytes) -> KeptWords | None:
    """Return what the platform said to a query; None where it did not answer, or where its words are not kept."""
    request = connection.scalar(sa.select(_answers.c.request).where(_answers.c.key == key))
    if request is None:
        request = connection.scalar(sa.select(_unread.c.request).where(_unread.c.key == key))
    row = None if request is None else connection.execute(_BODY, {"its_request": request}).first()
    if request is None or row is None:
        return None
    body = seals.unwrapped(request, bytes(row.body))
    places = [(int(p.position), bytes(p.key)) for p in connection.execute(_PLACES, {"its_request": request})]
    place = next((position for position, its in places if its == key), None)
    return None if body is None or place is None else KeptWords(body, place, len(places), row.reading)


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
            made = seals.of([(*(row[name] for name in SEALED), None) for row in rows]).seals
            sealed = [
                {f"its_{c.name}": r[c.name] for c in whose} | {"mark": m} for r, m in zip(rows, made, strict=True)
            ]
            connection.execute(seal.values(seal=sa.bindparam("mark")), sealed)
            last = rows[-1]["key"]


def _columns(answers: Answers) -> _Columns:
    return answers.status, answers.labels, answers.scores, answers.resolution


def _gathered(
    at: NDArray[np.intp], numbers: NDArray[np.void], scores: Sequence[bytes | None], classes: int
) -> _Columns:
    """Return what answers are made of, from rows of the ledger; the last row of the numbers has no scores."""
    # Label-only rows have none either.
    nothing = np.full(classes, np.nan, "<f4").tobytes()
    said = [nothing if line is None else line for line in (*scores, None)]
    wrong = set(map(len, said)) - {len(nothing)}
    if wrong:
        raise ValueError(f"scores of {min(wrong) / 4:g} classes")
    lines = np.frombuffer(b"".join(said), "<f4").reshape(len(said), classes)
    return (
        numbers["status"][at].astype(np.int8),
        numbers["label"][at].astype(np.int64),
        lines[at].astype(np.float32, copy=False),
        numbers["resolution"][at].astype(np.float32),
    )

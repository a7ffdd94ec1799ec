"""The minutes of a verification: who sits where, and what came of every seat, whoever has left it since."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ttca.errors import LedgerError
from ttca.pooling.ledger import Ledger
from ttca.pooling.membership import numbered
from ttca.pooling.schema import minutes as _minutes
from ttca.pooling.schema import seats as _seats

__all__ = ["UNKNOWN", "Minutes"]

#: What is known of a seat that was left before its question was answered.
UNKNOWN = "?"


class Minutes:
    """What a ledger keeps of one reading of verification people.

    Seats say whose answer is whose. Whoever is forgotten leaves an empty seat (:func:`ttca.pooling.leaving.forget`);
    what came of it stays, with its side and its position and nothing else.

    Parameters
    ----------
    ledger : Ledger
    epoch : str
        Of the questions.
    """

    def __init__(self, ledger: Ledger, epoch: str) -> None:
        self._ledger, self._epoch = ledger, epoch

    def seat(self, sides: Mapping[str, tuple[Sequence[bytes], Sequence[str]]]) -> None:
        """Write down whose face sits where, and whose image that is, unless that was done before.

        Parameters
        ----------
        sides : dict
            By side, faces and owners in the order of the seats.
        """

        def work(connection: sa.Connection) -> None:
            self._ledger.database.exclude(connection)
            if connection.scalar(sa.select(_seats.c.epoch).where(_seats.c.epoch == self._epoch).limit(1)) is not None:
                return
            everybody = [owner for _, owners in sides.values() for owner in owners]
            numbers = numbered(self._ledger.database, connection, everybody, self._ledger.seals)
            rows = [
                {"epoch": self._epoch, "side": side, "position": i, "owner": numbers[owner], "face": face}
                for side, (faces, owners) in sides.items()
                for i, (face, owner) in enumerate(zip(faces, owners, strict=True))
            ]
            if rows:
                connection.execute(sa.insert(_seats), rows)

        self._ledger.database.run(work, write=True)

    def seats(self) -> dict[str, list[bytes]]:
        """Return the face in every seat, by side; empty where the seat was left. Nothing where nobody was seated."""
        rows = self._ledger.database.run(
            lambda connection: connection.execute(
                sa.select(_seats).where(_seats.c.epoch == self._epoch).order_by(_seats.c.side, _seats.c.position)
            ).all()
        )
        found: dict[str, list[bytes]] = {}
        for row in rows:
            side = found.setdefault(row.side, [])
            if row.position != len(side):
                raise self._edited()
            side.append(bytes(row.face))
        return found

    def write(self, condition: str, start: int, said: str) -> None:
        """Write what came of a condition, one character a seat, from the seat ``start`` on."""

        def work(connection: sa.Connection) -> None:
            self._ledger.database.exclude(connection)
            before = self._read(connection).get(condition, "")
            whole = before[:start].ljust(start, UNKNOWN) + said + before[start + len(said) :]
            row = {"epoch": self._epoch, "condition": condition, "said": whole, "mark": self._mark(condition, whole)}
            statement = self._ledger.database.insert(_minutes).values(row)
            changed = {name: statement.excluded[name] for name in ("said", "mark")}
            connection.execute(statement.on_conflict_do_update(index_elements=["epoch", "condition"], set_=changed))

        self._ledger.database.run(work, write=True)

    def read(self) -> dict[str, str]:
        """Return what came of every condition, by its name.

        Raises
        ------
        LedgerError
            If it is not as it was written.
        """
        return self._ledger.database.run(self._read)

    def _read(self, connection: sa.Connection) -> dict[str, str]:
        rows: Sequence[Any] = connection.execute(sa.select(_minutes).where(_minutes.c.epoch == self._epoch)).all()
        for row in rows:
            if not hmac.compare_digest(bytes(row.mark), self._mark(row.condition, row.said)):
                raise self._edited()
        return {row.condition: row.said for row in rows}

    def _mark(self, condition: str, said: str) -> bytes:
        return self._ledger.seal("\0".join(("ttca minutes", self._epoch, condition, said)).encode())

    def _edited(self) -> LedgerError:
        return LedgerError(
            f"Expected the minutes of the verification in {self._ledger.name} as they were written, got others. "
            "Restore the ledger from a copy."
        )

"""Seals: whether an answer, or the body it was read from, is what the ledger wrote, by short keyed checksums."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LARGEST_BODY", "NUMBERS", "SEALED", "SealedColumns", "Seals", "packed"]

#: Larger bodies are not kept: what was read of them is.
LARGEST_BODY = 65536
#: What of an answer is sealed, in the order in which it is read.
SEALED = ("key", "status", "label", "scores", "resolution", "request", "reading")
_LENGTH = 8
_NUMBERS = struct.Struct("<Bqqdqb")
#: The same for numpy.
NUMBERS = np.dtype(
    [("key", "u1"), ("status", "<i8"), ("label", "<i8"), ("resolution", "<f8"), ("request", "<i8"), ("reading", "i1")]
)


class SealedColumns(NamedTuple):
    """Answers column by column; ``numbers`` as :data:`NUMBERS` reads them once they are joined."""

    keys: list[bytes]
    numbers: list[bytes]
    scores: list[bytes | None]
    readings: list[bytes | None]
    seals: list[bytes]
    last: list[Any]


class Seals:
    """Makes and checks the seals of one ledger, under its secret.

    A seal finds out what was changed behind the ledger's back, be it one bit of a failing disk. It does not find out
    that a whole row is gone.
    """

    def __init__(self, secret: bytes) -> None:
        # Copied for every row: that is faster than to begin anew.
        self._rows = hashlib.blake2b(key=secret, digest_size=_LENGTH, person=b"ttca answer")
        self._names = hashlib.blake2b(key=secret, digest_size=32, person=b"ttca left")
        self._bodies = hashlib.blake2b(key=secret, digest_size=_LENGTH, person=b"ttca body")

    def face(self, name: str) -> bytes:
        """Return 32 bytes by which a name is known again, and which tell nothing to anybody without the secret."""
        face = self._names.copy()
        face.update(name.encode("utf-8", "surrogatepass"))
        return face.digest()

    def of(self, rows: Iterable[Sequence[Any]]) -> SealedColumns:
        """Seal answers, column by column: all that each says, about which query, and of which request.

        Each row has the values of :data:`SEALED`, and one more, which is not sealed.

        Raises
        ------
        struct.error, TypeError
            If a value is none that can be sealed.
        """
        begin, pack = self._rows.copy, _NUMBERS.pack
        # One loop without calls of our own: a look-up spends most of its own time here.
        columns = SealedColumns([], [], [], [], [], [])
        add_key, add_numbers, add_scores, add_reading, add_seal, add_last = (column.append for column in columns)
        for key, status, label, scores, resolution, request, reading, last in rows:
            seal = begin()
            # The same bytes whatever order the columns have: ledgers keep them.
            numbers = pack(len(key), status, label, resolution, request, -1 if reading is None else len(reading))
            parts = (numbers, key, reading or b"") if scores is None else (numbers, key, reading or b"", b"+", scores)
            seal.update(b"".join(parts))
            add_key(key)
            add_numbers(numbers)
            add_scores(scores)
            add_reading(reading)
            add_seal(seal.digest())
            add_last(last)
        return columns

    def opened(self, rows: Iterable[Sequence[Any]]) -> SealedColumns | None:
        """Return answers, each followed by its seal, column by column; None where one is not what was written."""
        try:
            columns = self.of(rows)
        except (struct.error, TypeError):  # what cannot be sealed was not
            return None
        return columns if columns.seals == columns.last else None

    def wrapped(self, request: int, body: bytes) -> bytes:
        """Return a packed body behind its seal."""
        return self._of_body(request, body) + body

    def unwrapped(self, request: int, wrapped: bytes) -> bytes | None:
        """Return a request's body as it came, None where it is not what was written."""
        seal, body = wrapped[:_LENGTH], wrapped[_LENGTH:]
        if not hmac.compare_digest(seal, self._of_body(request, body)):
            return None
        return zlib.decompress(body)

    def _of_body(self, request: int, body: bytes) -> bytes:
        seal = self._bodies.copy()
        seal.update(struct.pack("<q", request) + body)
        return seal.digest()


def packed(body: bytes | None) -> bytes | None:
    """Return a body compressed, None where there is none or it is too large to be kept."""
    return None if body is None or len(body) > LARGEST_BODY else zlib.compress(body, 1)

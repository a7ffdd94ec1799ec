"""Seals: whether an answer, or the body it was read from, is what the ledger wrote, by short keyed checksums."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["LARGEST_BODY", "SEALED", "Seals", "packed"]

#: Larger bodies are not kept: what was read of them is.
LARGEST_BODY = 65536
#: What of an answer is sealed, in the order in which it is read.
SEALED = ("key", "status", "label", "scores", "resolution", "request", "reading")
_LENGTH = 8
_NUMBERS = struct.Struct("<Bqqdqb")


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

    def of(self, row: Mapping[str, Any]) -> bytes:
        """Return the seal of an answer: of all that it says, about which query, and of which request."""
        return self._seal(*(row[name] for name in SEALED))

    def holds(self, row: Sequence[Any]) -> bool:
        """Whether an answer, as the values of :data:`SEALED` and its seal, has the seal it was written with."""
        try:
            return bool(self._seal(*row[:-1]) == row[-1])
        except (struct.error, TypeError):  # what cannot be sealed was not
            return False

    def _seal(
        self,
        key: bytes,
        status: int,
        label: int,
        scores: bytes | None,
        resolution: float,
        request: int,
        reading: bytes | None,
    ) -> bytes:
        seal = self._rows.copy()
        # The same bytes whatever order the columns have: ledgers keep them.
        seal.update(
            _NUMBERS.pack(len(key), status, label, resolution, request, -1 if reading is None else len(reading))
            + key
            + (reading or b"")
            + (b"" if scores is None else b"+" + scores)
        )
        return seal.digest()

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

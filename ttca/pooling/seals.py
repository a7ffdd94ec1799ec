"""Seals: whether an answer, or the body it was read from, is what the ledger wrote, by short keyed checksums."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["LARGEST_BODY", "Seals", "packed"]

#: Larger bodies are not kept: what was read of them is.
LARGEST_BODY = 65536
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
        self._bodies = hashlib.blake2b(key=secret, digest_size=_LENGTH, person=b"ttca body")

    def of(self, row: Mapping[str, Any]) -> bytes:
        """Return the seal of an answer: of all that it says, about which query, and of which request."""
        key, scores, reading = row["key"], row["scores"], row["reading"]
        seal = self._rows.copy()
        said = (row["status"], row["label"], row["resolution"], row["request"], -1 if reading is None else len(reading))
        seal.update(
            _NUMBERS.pack(len(key), *said) + key + (reading or b"") + (b"" if scores is None else b"+" + scores)
        )
        return seal.digest()

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether an answer has the seal it was written with."""
        try:
            return row["seal"] is not None and hmac.compare_digest(row["seal"], self.of(row))
        except (struct.error, TypeError):  # what cannot be sealed was not
            return False

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

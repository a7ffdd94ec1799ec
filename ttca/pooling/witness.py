"""The witness: how many requests a ledger's file has held at least, written behind its secret in the key file.

So that a ledger that was emptied, replaced by an older copy, or copied without its write-ahead log is noticed.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from ttca.errors import LedgerError

__all__ = ["SECRET_LENGTH", "Witness"]

SECRET_LENGTH = 32
#: How often it is written at most, while requests are charged.
_EVERY_S = 5.0
_COUNT = struct.Struct("<Q")


class Witness:
    """Remembers the number of the last request that is safely on the disk.

    It never knows more than the ledger, be the program killed or the power cut: what is written down was synced before.

    Parameters
    ----------
    ledger : Path
        The SQLite file.
    secret_file : Path
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, ledger: Path, secret_file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._file, self._clock = ledger, secret_file, clock
        self._last, self._written, self._next = 0, 0, -1.0

    def check(self, last: int) -> None:
        """Raise where the ledger's last request is one before the last that was seen.

        Raises
        ------
        LedgerError
        """
        seen = self._seen()
        if last < seen:
            raise LedgerError(
                f"Expected the ledger {self._ledger} to hold its {seen} requests, got {last or 'none'}. It was "
                f"emptied, replaced by an older copy, or copied without {self._ledger.name}-wal, which belongs to it "
                "until the program that writes it has ended. Put the right files back. If they are lost for good, ttca "
                "pool accept-loss goes on with what is there: what is missing will be paid again."
            )
        self._last, self._written = last, seen

    def saw(self, last: int, *, now: bool = False) -> None:
        """Take note of a request that was charged; write it down ``now``, or if that was not done for a while."""
        self._last = max(self._last, last)
        if self._last <= self._written or not (now or self._clock() >= self._next):
            return
        self._next = self._clock() + _EVERY_S
        last = self._last
        try:
            _sync(self._ledger)
            # Behind the secret, which is not touched.
            with self._file.open("r+b") as file:
                file.seek(SECRET_LENGTH)
                file.write(_COUNT.pack(max(last, self._seen())))
            self._written = last
        except OSError:
            # A witness less; the books are whole.
            return

    def forget(self) -> None:
        """Forget how many there were: a ledger that is shorter is taken for whole."""
        with self._file.open("r+b") as file:
            file.truncate(SECRET_LENGTH)

    def _seen(self) -> int:
        try:
            content = self._file.read_bytes()[SECRET_LENGTH:]
        except OSError:
            return 0
        return int(_COUNT.unpack(content)[0]) if len(content) == _COUNT.size else 0


def _sync(ledger: Path) -> None:
    """Have the ledger's write-ahead log on the disk; without one, all is in the file and was synced with it."""
    # Not the file itself: closing it here would free the locks that SQLite holds on it in this process.
    log = ledger.with_name(ledger.name + "-wal")
    if log.exists():
        descriptor = os.open(log, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

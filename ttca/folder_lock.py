"""One program at a time works in an action's folder; a second one hears who does."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import IO

from ttca.errors import ActionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderLock", "hold"]

#: On Windows a locked byte cannot be read: one far behind what the file says is locked.
_BYTE = 2**30
#: What the system answers where somebody else has the lock; whatever else it answers, it keeps none.
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


class FolderLock:
    """A folder held for this program until :meth:`release`, or until the program ends in whatever way."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def release(self) -> None:
        """Let others work in the folder; safe to repeat."""
        if not self._file.closed:
            self._file.seek(0)
            self._file.truncate()
            self._file.close()


def hold(folder: Path, *, say: Callable[[str], None] = lambda _sentence: None) -> FolderLock:
    """Hold a folder that exists, for this program alone.

    Parameters
    ----------
    folder : Path
    say : callable
        Told one sentence where the file system keeps no locks: then nobody is kept out.

    Returns
    -------
    FolderLock
        The system frees it when the process ends, also after ``kill -9``.

    Raises
    ------
    ActionError
        If another program, or another action of this one, holds the folder; it says which. Or if nothing can be
        written there.
    """
    path = folder / "action.lock"
    try:
        # Not emptied: it says who holds the folder.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise ActionError(
            f"Expected to write {path}, got: {error.strerror}. Check the folder's permissions. No query was spent."
        ) from None
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _HELD:
            with file:
                who = file.read(1000).strip() or "another program works in it"
            own = who.startswith(f"{_this_process()} ")
            raise ActionError(
                f"Expected {folder} to be free, but {who}. "
                f"{'Close that action first.' if own else 'Wait for it, or stop it.'} No query was spent."
            ) from None
        say(f"The file system of {folder} keeps no locks ({error.strerror}). Make sure that nobody else works in it.")
    file.seek(0)
    file.truncate()
    file.write(f"{_this_process()} has worked in it since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC ({_command()})")
    file.flush()
    return FolderLock(file)


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _command() -> str:
    # The command alone, such as `ttca pool run`: what follows may be private, a member's name for one.
    most = 2 if sys.argv[1:2] in (["pool"], ["hub"]) else 1
    words = takewhile(lambda word: re.fullmatch("[a-z-]{1,20}", word), sys.argv[1 : 1 + most])
    return " ".join([Path(sys.argv[0] or sys.executable).name, *words])

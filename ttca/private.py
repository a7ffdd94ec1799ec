"""Private files: what names or pictures people is made so that only its owner can read it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["close_to_others", "private", "private_folder"]


def private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, where it is new: the ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)


def private_folder(path: Path) -> Path:
    """Return a folder that only its owner can enter, where it is new; folders above it are made as usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def close_to_others(path: Path) -> None:
    """Make a file that only its owner can read, or take the rights of strangers from one that is there.

    What its owner's group may do is left as it is: a group may share it on purpose. What cannot be done is left, too:
    whoever opens the file says why it cannot be used.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        # Windows has no such bits.
        if path.is_file() and mode & 0o007 and os.name == "posix":
            path.chmod(mode & 0o770)

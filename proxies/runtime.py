"""How a training process treats its machine: freed memory is kept, and waiting threads sleep. For programs to call."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory", "wait_asleep"]

# glibc's names for the two thresholds (malloc.h), and a size no activation reaches.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks instead of returning them to the system; say whether it listened.

    A training step frees and asks for the same few megabytes over and over; by default each round goes through the
    kernel. Process-wide, so it is for programs to call, not for libraries. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def wait_asleep() -> None:
    """Let OpenMP threads sleep at a barrier instead of spinning; call it before torch is imported.

    Spinning gains a little on an idle machine and loses many times as much on a shared one, where each thread burns
    the time slice that the thread it waits for would need. What the environment already says is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

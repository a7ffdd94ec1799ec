"""Keep freed memory in the process, so that training steps do not fault the same pages in again and again."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

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

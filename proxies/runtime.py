"""How a training process treats its machine: freed memory kept, waiting threads asleep, bfloat16 where it is fast."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

__all__ = [
    "Precision",
    "autocast_for",
    "best_device",
    "check_threads",
    "fixed_threads",
    "give_back_memory",
    "keep_freed_memory",
    "wait_asleep",
]

Precision = Literal["float32", "bfloat16", "auto"]

# glibc's names for the two thresholds (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# A size few activations of a batch reach. Larger blocks are data sets, which must go back to the system when freed.
_LARGE = 2**26
_NEVER = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 64 MiB for reuse; say whether it listened.

    A training step frees and asks for the same few megabytes over and over; by default each round goes through the
    kernel. Process-wide, so it is for programs to call, not for libraries. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_memory() -> bool:
    """Give what :func:`keep_freed_memory` kept back to the system, between two pieces of work; say whether any was."""
    gc.collect()
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError, TypeError):
        return False


def wait_asleep() -> None:
    """Let OpenMP threads sleep at a barrier instead of spinning; call it before torch is imported.

    Spinning gains a little on an idle machine and loses many times as much on a shared one, where each thread burns
    the time slice that the thread it waits for would need. What the environment already says is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def check_threads(threads: int | None) -> None:
    """Raise ValueError where threads is no number of threads, or None for as many as torch takes."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024):
        raise ValueError(f"Expected threads as a whole number in 1..1024, got {threads!r}. Leave it out for all cores.")


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Compute with so many threads meanwhile, None: as many as torch would take; yields how many those are.

    Sums are added up in another order with another number, and the last digits differ: enough to turn an answer round.
    """
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def best_device() -> str:
    """Return ``"cuda"`` where torch finds a GPU it can use, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast_for(precision: Precision, device: str) -> torch.autocast:
    """Return the context in which a model's forward pass runs at ``precision`` on ``device``.

    ``auto`` is bfloat16 where the hardware multiplies it (AMX or AVX-512 BF16 on a processor, most GPUs), and float32
    elsewhere, where bfloat16 is emulated and slower.

    Raises
    ------
    ValueError
        If the precision is not one of the three.
    """
    import torch

    if precision not in ("float32", "bfloat16", "auto"):
        raise ValueError(f"Expected precision 'float32', 'bfloat16' or 'auto', got {precision!r}.")
    kind = device.split(":")[0]
    fast = torch.cuda.is_bf16_supported() if kind == "cuda" else _has_bfloat16()
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and fast))


def _has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware; unknown counts as no."""
    import torch

    try:
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    except (AttributeError, RuntimeError):
        return False

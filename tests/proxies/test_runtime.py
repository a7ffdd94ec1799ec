"""Tests of how a training process treats its machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ttca.proxies import runtime
from ttca.proxies.runtime import autocast_for


def product(precision: runtime.Precision) -> torch.dtype:
    """Return the type in which a matrix product comes out."""
    a = torch.rand(4, 4)
    with autocast_for(precision, "cpu"):
        return (a @ a).dtype


@pytest.mark.parametrize(("precision", "kind"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_named_precision_is_what_is_computed(precision: runtime.Precision, kind: torch.dtype) -> None:
    """Whatever the processor can do, a precision that was named is used."""
    assert product(precision) == kind


@pytest.mark.parametrize(("fast", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_short_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch, fast: bool, kind: torch.dtype) -> None:
    """On a processor without bfloat16 arithmetic, auto does not emulate it."""
    monkeypatch.setattr(runtime, "_has_bfloat16", lambda: fast)
    assert product("auto") == kind


def test_an_unknown_precision_is_refused() -> None:
    """A misspelt precision is an error in words, not a silent default."""
    with pytest.raises(ValueError, match="Expected precision 'float32', 'bfloat16' or 'auto', got 'half'"):
        autocast_for("half", "cpu")  # type: ignore[arg-type]


def test_a_processor_that_cannot_be_asked_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The questions are torch's private ones: where a version lacks them, the answer is no."""
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert runtime._has_bfloat16() is False


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' own count of pages")
def test_kept_memory_is_given_back_between_two_pieces_of_work() -> None:
    """Blocks that were kept for reuse stand in no later measurement of memory."""
    program = (
        "from pathlib import Path\n"
        "from ttca.proxies import runtime\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "assert runtime.keep_freed_memory()\n"
        "blocks = [bytearray(b'x') * (1 << 20) for _ in range(200)]\n"
        "last = bytearray(100)\n"
        "blocks.clear()\n"
        "kept = resident()\n"
        "assert runtime.give_back_memory()\n"
        "assert kept - resident() > 150 << 20, (kept, resident())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

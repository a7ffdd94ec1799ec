"""The pool's benchmark measures what it says, on a ledger and a platform of its own."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from benchmarks import pool

KEYS = ("ledger_rows_per_s", "reopen_s", "lookups_per_s", "overhead")


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """Run the whole benchmark once, with next to no work."""
    return pool.main(["--answers=2500", "--queries=64", "--repeats=1"])


def test_every_number_is_there(tiny: dict[str, Any]) -> None:
    """Each stated key is a finite number, and the circumstances stand beside them."""
    for key in (*KEYS, "overhead_batched", "memory_mb", "file_mb"):
        assert math.isfinite(tiny[key]), key
    assert min(tiny["ledger_rows_per_s"], tiny["reopen_s"], tiny["lookups_per_s"], tiny["memory_mb"]) > 0
    assert tiny["answers"] == 2500
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny


def test_no_run_is_faster_than_the_platform(tiny: dict[str, Any]) -> None:
    """With 32 queries in flight that take 20 ms each, 64 take 40 ms at least, however they are sent."""
    assert min(tiny["bare_seconds"] + tiny["bare_seconds_batched"]) >= 2 * pool.LATENCY_S

"""The pool's benchmark measures what it says, on a ledger and a platform of its own."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from benchmarks import pool

#: Eight processes begin, on two kinds of ledger. What they do there, the tests of pooling do in small.
pytestmark = pytest.mark.full

KEYS = ("paid_twice", "rows_vs_bare", "lookups_vs_bare", "ledger_rows_per_s", "reopen_s", "lookups_per_s", "overhead")


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """Run the whole benchmark once, with next to no work."""
    return pool.main(["--answers=2500", "--queries=64", "--repeats=1", "--images=40", "--kills=1"])


def test_every_number_is_there(tiny: dict[str, Any]) -> None:
    """Each stated key is a finite number, and the circumstances stand beside them."""
    for key in (*KEYS, "overhead_batched", "memory_mb", "file_mb"):
        assert math.isfinite(tiny[key]), key
    assert min(tiny["ledger_rows_per_s"], tiny["reopen_s"], tiny["lookups_per_s"], tiny["memory_mb"]) > 0
    assert min(tiny["rows_vs_bare"], tiny["lookups_vs_bare"]) > 0
    assert tiny["answers"] == 2500
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny


def test_no_run_is_faster_than_the_platform(tiny: dict[str, Any]) -> None:
    """With 32 queries in flight that take 20 ms each, 64 take 40 ms at least, however they are sent."""
    assert min(tiny["bare_seconds"] + tiny["bare_seconds_batched"]) >= 2 * pool.LATENCY_S


@pytest.mark.e2e
def test_nothing_is_paid_twice_by_processes_that_are_killed(tiny: dict[str, Any]) -> None:
    """On either ledger every image is answered, a kill costs what was in flight, and no answer is paid again."""
    assert tiny["paid_twice"] == 0
    for said in tiny["paid_twice_by_ledger"].values():
        assert said["kills"] == 1
        assert said["answered"] == said["images"] <= said["processed"] <= said["charged"]
        assert said["charged"] - said["images"] <= said["unknown"] <= said["unknown_at_most"]

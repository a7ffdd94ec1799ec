"""Cells that are made in a test's own process, which alone knows the test's tracks."""

from __future__ import annotations

import json

from benchmarks._cell_process import made

__all__ = ["in_this_process"]


def in_this_process(number: int, text: str, until: float | None = None) -> tuple[int, str]:
    """Make an order here, as :func:`benchmarks._cell_process.numbered` has it made elsewhere."""
    assert until is None or until > 0
    return number, json.dumps({**made(json.loads(text)), "peak_rss_mb": 1.0})

"""A slice of every benchmark within half an hour, or the quick grid of one track, from nothing, against the clock."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._cells import plain, settings_of
from benchmarks._listing import names
from benchmarks._tracks import TRACKS
from benchmarks.effect import run_cell
from benchmarks.transfer import grid_keys
from ttca.errors import TTCAError
from ttca.terminal import Terminal

__all__ = ["main", "slices"]

_ERR = Terminal(stderr=True)


def main(argv: list[str]) -> dict[str, Any]:
    """Run a slice of every benchmark; or, with ``--track``, that track's quick grid, one seed and nothing kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks quick", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), help="run only this track's quick grid, from the start")
    parser.add_argument("--only", nargs="+", choices=slices(), default=slices(), help="run only these slices")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    return _slices(options.only) if options.track is None else _grid(options.track)


def slices() -> tuple[str, ...]:
    """Return every benchmark's name but this one's."""
    return tuple(name for name in names() if name != "quick")


def _slices(chosen: Sequence[str]) -> dict[str, Any]:
    """Run each benchmark as its ``QUICK`` says; one that cannot be run is named, and the others go on."""
    found: dict[str, dict[str, Any]] = {}
    for name in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        began = time.perf_counter()
        slice_: dict[str, Any] = {"arguments": list(module.QUICK)}
        try:
            result = module.main(list(module.QUICK))
            slice_["numbers"] = {k: v for k, v in result.items() if isinstance(v, bool | int | float)}
        except TTCAError as error:
            slice_["failed"] = str(error)
        slice_["seconds"] = time.perf_counter() - began
        found[name] = slice_
        _ERR.print(f"{len(found)} of {len(chosen)} slices: {name}, {slice_['seconds']:.0f} s", highlight=False)
    return {
        "slices": found,
        "failed": [name for name, slice_ in found.items() if "failed" in slice_],
        "seconds": sum(slice_["seconds"] for slice_ in found.values()),
    }


def _grid(name: str) -> dict[str, Any]:
    """Run one seed of a track's quick grid and state the honest rows, all seconds, and the largest peak of memory."""
    track = TRACKS[name]
    keys = list(grid_keys(name, "quick", 1))
    cells: list[dict[str, Any]] = []
    # A folder of its own: what an earlier run learned from public data would save most of the time.
    with tempfile.TemporaryDirectory() as folder, track.open_platform(keys[0].answers) as platform:
        began = time.perf_counter()
        for key in keys:
            settings = settings_of(track, key.chosen, epsilons=key.epsilons, seed=0)
            ran = run_cell(track, platform, settings, queries=key.queries, regime=key.regime, proxies=Path(folder))
            cells.append(ran.kept("dev-test"))
        seconds = time.perf_counter() - began
    return {
        "file": f"quick-{name}",
        "track": name,
        "people": "dev-test",
        "settings": plain(keys[0].chosen),
        "cells": cells,
        "seconds": seconds,
        "peak_rss_mb": max(cell["row"]["peak_rss_mb"] for cell in cells),
    }

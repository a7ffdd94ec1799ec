"""The quick grid of one track: two budgets, one family of ε, one seed, from nothing, against the clock."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._cells import plain, settings_of
from benchmarks._tracks import TRACKS
from benchmarks.effect import run_cell

__all__ = ["EPSILONS", "QUERIES", "main"]

QUERIES = (500, 2000)
EPSILONS = (2, 4, 8)
#: What a track leaves out of its settings so that its quick grid ends within ten minutes on two cores.
_SHORTER: dict[str, dict[str, Any]] = {
    "cifar100-resnet32": {"public_epochs": 8, "epochs": 15, "steps": 100},
    **{name: {"steps": 100} for name in TRACKS if name.startswith("cifar10-")},
}


def main(argv: list[str]) -> dict[str, Any]:
    """Run the quick grid and state the honest rows, all its seconds, and the largest peak of this process's memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks quick", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), required=True)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    track = TRACKS[options.track]
    answers = track.answers[0]
    chosen = {**track.settings["public"], **_SHORTER.get(track.name, {})}
    settings = settings_of(track, chosen, epsilons=EPSILONS, seed=0)
    cells: list[dict[str, Any]] = []
    # A folder of its own: what an earlier run learned from public data would save most of the time.
    with tempfile.TemporaryDirectory() as name, track.open_platform(answers) as platform:
        began = time.perf_counter()
        for queries in QUERIES:
            row, certificate, measurement, _ = run_cell(
                track, platform, settings, queries=queries, regime="public", proxies=Path(name)
            )
            cells.append(
                {
                    "row": row.to_dict(),
                    "zero_query_mcnemar_p": measurement.paired_p("subgroup_after", "zero_query"),
                    "certificate": certificate.to_dict(),
                }
            )
        seconds = time.perf_counter() - began
    return {
        "file": f"quick-{track.name}",
        "track": track.name,
        "people": "dev-test",
        "settings": plain(chosen),
        "cells": cells,
        "seconds": seconds,
        "peak_rss_mb": max(cell["row"]["peak_rss_mb"] for cell in cells),
    }

"""Does the demo's action hold over seeds? The result row of `ttca demo` for several seeds, with mean and spread."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from ttca.demo.run import run_demo
from ttca.progress import Reporter
from ttca.terminal import Terminal

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--seeds", "1")


def main(argv: list[str]) -> dict[str, Any]:
    """Run the demo once per seed, each in a fresh folder, and summarise every number of the row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    rows, p_values, people = [], [], 0
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row, _, measurement = run_demo(Path(folder) / "demo", seed=seed, reporter=Reporter(Terminal(stderr=True)))
        rows.append(row.to_dict())
        people = len(measurement.correct["subgroup_before"])
        p_values.append(measurement.paired_p("subgroup_after", "zero_query"))
    numbers = [k for k, v in rows[0].items() if isinstance(v, float) and all(r[k] is not None for r in rows)]
    return {
        "seeds": list(range(options.seeds)),
        "subgroup_test_people": people,
        "rows": rows,
        "mean": {k: statistics.fmean(r[k] for r in rows) for k in numbers},
        "standard_deviation": {k: statistics.stdev(r[k] for r in rows) for k in numbers} if len(rows) > 1 else {},
        "parity_certified": sum(bool(r["parity_certified"]) for r in rows),
        "zero_query_mcnemar_p": p_values,
    }

"""A program for an environment with Ray and Dask: cells of digits through one engine, and every row as it came.

`python cluster_program.py ENGINE`: prints one JSON line for each cell that came back, and one for the end.
"""

from __future__ import annotations

import json
import sys

from benchmarks._cells import CellKey
from benchmarks._engines import Engine, Order, sent
from benchmarks.transfer import _without_clocks
from ttca.errors import TTCAError

SEEDS = 3


def main(name: str) -> None:
    """Run a few short actions of digits, two at a time, each with one thread."""
    engine = Engine.parse(name, jobs=2 if name.partition("://")[2] in ("", "local") else None, threads=1)
    short = {"architectures": ("perceptron",), "true_classes": True, "public_epochs": 20, "steps": 5}
    orders = [
        Order(
            benchmark="transfer",
            facts={
                "key": CellKey("digits", "own", "scores", 140, (8, 12), seed, short).order(),
                "people": ["dev-test"],
            },
        )
        for seed in range(SEEDS)
    ]
    try:
        for number, found in sent(orders, engine):
            rows = _without_clocks(found["cell"]["people"]) if "cell" in found else None
            _say({"cell": number, "failed": found.get("failed"), "rows": rows})
    except TTCAError as error:
        _say({"error": str(error)})
    _say({"end": True})


def _say(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said, sort_keys=True) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

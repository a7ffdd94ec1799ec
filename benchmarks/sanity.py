"""How often do the first answers stop an action that is in order, and how soon one that asks in a wrong way?

Run as ``python -m benchmarks sanity``. Simulated members, judged by the code that judges an action's answers. *Ours.*
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import clopper_pearson_upper
from ttca.errors import ConfigError
from ttca.sanity import LOOKS, Sanity

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--actions", "200")

Labels: TypeAlias = NDArray[np.int64]
Wrong: TypeAlias = Callable[[Labels, int, np.random.Generator], Labels]

#: How a wrong table changes what is said; −1 is a refusal.
WAYS: dict[str, Wrong] = {
    "in order": lambda said, _classes, _rng: said,
    "classes in reverse": lambda said, classes, _rng: classes - 1 - said,
    "numbered from 1": lambda said, classes, _rng: (said + 1) % classes,
    "one class for everybody": lambda said, _classes, _rng: np.zeros_like(said),
    "refused": lambda said, _classes, _rng: np.full_like(said, -1),
    "at random": lambda said, classes, rng: rng.integers(0, classes, len(said)),
}


def main(argv: list[str]) -> dict[str, Any]:
    """Simulate actions at platforms that are asked rightly and wrongly, and count who is stopped, and when."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sanity", description=__doc__)
    parser.add_argument("--actions", type=int, default=20_000, help="simulated actions that are in order, in each case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.actions < 20:
        raise ConfigError(f"Expected at least 20 simulated actions, got {options.actions}. Ask for more.")
    began = time.perf_counter()
    cases = [(2, 0.785), (2, 0.95), (10, 0.711)]
    cells = [
        _cell(way, classes, rate, options.actions // (1 if way == "in order" else 20), options.seed)
        for way in WAYS
        for classes, rate in cases
    ]
    healthy = [cell for cell in cells if cell["way"] == "in order"]
    told_by_truth = [cell for cell in cells if cell["way"] not in ("in order", "at random")]
    return {
        "benchmark": "sanity",
        "actions": options.actions,
        "seed": options.seed,
        "looks": list(LOOKS),
        "stopped_in_order": max(cell["stopped"] for cell in healthy),
        "stopped_in_order_at_most": max(cell["stopped_upper"] for cell in healthy),
        "stopped_by_40": min(cell["stopped_by_40"] for cell in told_by_truth),
        "cells": cells,
        "seconds": time.perf_counter() - began,
    }


def _cell(way: str, classes: int, rate: float, actions: int, seed: int) -> dict[str, Any]:
    """Return who is stopped, of actions of 20 to 300 images whose reference is right at that rate."""
    rng = np.random.default_rng((seed, list(WAYS).index(way), classes, round(1000 * rate)))
    asked = [_asked(way, classes, rate, rng) for _ in range(actions)]
    stopped = [n for n in asked if n is not None]
    upper = clopper_pearson_upper(len(stopped), actions, 0.05)
    return {
        "way": way,
        "classes": classes,
        "rate": rate,
        "actions": actions,
        "stopped": len(stopped) / actions,
        "stopped_upper": upper,
        "stopped_by_40": sum(n <= LOOKS[-1] for n in stopped) / actions,
        "asked_median": float(np.median(stopped)) if stopped else None,
    }


def _asked(way: str, classes: int, rate: float, rng: np.random.Generator) -> int | None:
    """Return after how many answers one action was stopped, None where it was not."""
    persons = int(rng.integers(20, 151))
    # A third of the persons have a second picture, on which the platform says mostly what it says of the first.
    person = np.concatenate([np.arange(persons), rng.choice(persons, persons // 3, replace=False)])
    subgroup = (rng.random(persons) < 0.5)[person]
    mix = np.ones(classes) if classes > 2 else np.array([0.6, 0.4])
    truth = rng.choice(classes, persons, p=mix / mix.sum())[person]
    luck = np.where(rng.random(len(person)) < 0.8, rng.random(persons)[person], rng.random(len(person)))
    # The subgroup is served worse than chance.
    right = luck < np.where(subgroup, 0.6 / classes, rate)
    said = np.where(right, truth, (truth + rng.integers(1, classes, len(person))) % classes)
    names = tuple(f"class {i}" for i in range(classes))
    sanity = Sanity(truth, np.array([f"person {i}" for i in person]), subgroup, names)
    answers = Answers.from_labels(WAYS[way](said, classes, rng), classes)
    for look, part in enumerate(sanity.parts):
        if sanity.at_look(look, answers) is not None:
            return len(part)
    return None if sanity.at_end(answers) is None else len(person)

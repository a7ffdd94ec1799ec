"""Which ideas for a small ε pay? Each against the same action without it, on the same proxies and people.

`TTCA_DATA=… python -m benchmarks ablations --weights FILE --json`. For each seed one proxy is trained, and every idea
learns its δ against it. Then the platform is asked about dev-test people of the subgroup under each δ, and what an idea
adds to what it stands beside is tested person by person (exact McNemar). Each finished cell (seed and idea) is a small
file in the cache: a run that was killed goes on from them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import CellKey, code_digest, kept_cell, opened, plain
from benchmarks._tracks import ANSWERS, TRACKS
from benchmarks.effect import add_settings, changed
from ttca.learning import Learner
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.progress import Reporter
from ttca.settings import Settings
from ttca.statistics.comparisons import mcnemar_exact
from ttca.terminal import Terminal

__all__ = ["IDEAS", "QUICK", "SETTINGS", "Idea", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--track", "digits", "--queries", "420", "--epsilon", "8", "--seeds", "1", "--ideas", "plain", "steps-300",
    "--set", "epochs=10", "public_epochs=4", "flip=False",
)  # fmt: skip

#: The action without any idea: true classes first, then answers, with the cameras equalized; δ as by default.
SETTINGS: dict[str, Any] = {
    "true_classes": True,
    "public_epochs": 24,
    "epochs": 12,
    "equalize": True,
    "flip": True,
    "shift": 2,
    "precision": "auto",
    "threads": 1,
    "loss": "margin",
    "steps": 100,
}


@dataclass(frozen=True)
class Idea:
    """How δ is learned (settings of an action that decide no proxy), and the idea it is compared with."""

    against: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Refuses what is no setting before anything is trained.
        Settings(**self.changes)


#: Every idea by its name.
IDEAS: dict[str, Idea] = {
    "plain": Idea(),
    "steps-300": Idea("plain", {"steps": 300}),
    "logit-300": Idea("steps-300", {"loss": "logit", "steps": 300}),
    "centered-300": Idea("logit-300", {"loss": "centered-logit", "steps": 300}),
    "cross-entropy-300": Idea("steps-300", {"loss": "cross-entropy", "steps": 300}),
}


def main(argv: list[str]) -> dict[str, Any]:
    """Measure every idea for several seeds, and each against what it changes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablations", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="cifar10-resnet56")
    parser.add_argument("--queries", type=int, default=1000, help="images sent for the pool")
    parser.add_argument("--epsilon", type=int, default=4, help="levels of 255")
    parser.add_argument("--answers", choices=tuple(ANSWERS), default="scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", default="none", help="published weights that the proxy begins with, as a path")
    parser.add_argument("--ideas", nargs="+", choices=tuple(IDEAS), default=tuple(IDEAS))
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    chosen = {**SETTINGS, "weights": options.weights, **changed(options.set)}
    code = code_digest(Path(__file__))
    cells: dict[tuple[int, str], dict[str, Any]] = {}
    with TRACKS[options.track].open_platform(options.answers) as platform:
        for seed in range(options.seeds):
            key = CellKey(options.track, "own", options.answers, options.queries, (options.epsilon,), seed, chosen)
            for name in options.ideas:
                facts = {**key.facts(), "code": code, "idea": name, "platform": platform.info.fingerprint}
                cells[seed, name] = kept_cell("ablations", facts, partial(_cell, key, platform, IDEAS[name]))
    return {
        "file": f"ablations-{options.track}-own-{options.answers}-q{options.queries}-e{options.epsilon}",
        "track": options.track,
        "regime": "own",
        "people": "dev-test",
        "queries": options.queries,
        "epsilon": options.epsilon,
        "settings": {**plain(chosen), "weights": Path(options.weights).name},
        "ideas": {name: _summary(name, cells, options.seeds) for name in options.ideas},
        "cells": [{"seed": seed, "idea": name, **cell} for (seed, name), cell in cells.items()],
    }


def _cell(key: CellKey, platform: Platform, idea: Idea) -> dict[str, Any]:
    """Learn one δ against the proxy of a seed, which is kept, and ask the platform about people under it."""
    (epsilon,) = key.epsilons
    info = platform.info
    with opened(key, platform) as found:
        action = found.action
        proxy, fidelity = action.distil()
        learner = Learner(
            replace(action.settings, **idea.changes),
            classes=len(info.classes),
            image_shape=info.image_shape,
            reporter=Reporter(Terminal(stderr=True)),
            start=action.start,
        )
        began = time.perf_counter()
        delta = learner.universal(
            proxy, action.known.helped, action.questions.selection, epsilon, what=f"learning δ, ε = {epsilon}"
        )
        seconds = time.perf_counter() - began
        handed = PerturbationSet(delta, epsilon, info.classes, action.settings.subgroup, info.fingerprint)
        test = found.cell.test[found.cell.test.subgroup]
        said = found.evaluator.ask(handed.apply(test.images, test.classes), purpose="test", epoch="test")
        right = said.labels == test.classes
        return {
            "persons": len(test),
            "subgroup_after": float(right.mean()),
            # One bit a person, so that any two cells can be compared later.
            "right": np.packbits(right).tobytes().hex(),
            "fidelity": fidelity.to_dict(),
            "seconds_delta": seconds,
        }


def _right(cell: Mapping[str, Any]) -> NDArray[np.bool_]:
    bits = np.frombuffer(bytes.fromhex(cell["right"]), np.uint8)
    return np.unpackbits(bits, count=cell["persons"]).astype(np.bool_)


def _summary(name: str, cells: Mapping[tuple[int, str], Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    """Return S of every seed, and each seed's paired test against what the idea changes."""
    after = [cells[seed, name]["subgroup_after"] for seed in range(seeds)]
    found: dict[str, Any] = {"changes": dict(IDEAS[name].changes), "subgroup_after": after}
    found["mean"] = statistics.fmean(after)
    against = IDEAS[name].against
    if (0, against) in cells:
        pairs = [(_right(cells[seed, against]), _right(cells[seed, name])) for seed in range(seeds)]
        found |= {
            "against": against,
            "won": [int((~before & with_it).sum()) for before, with_it in pairs],
            "lost": [int((before & ~with_it).sum()) for before, with_it in pairs],
            "mcnemar_p": [mcnemar_exact(before, with_it) for before, with_it in pairs],
            "mean_gain": statistics.fmean(float(with_it.mean() - before.mean()) for before, with_it in pairs),
        }
    return found

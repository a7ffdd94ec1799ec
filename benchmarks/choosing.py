"""Which images should be asked? At random, an equal share of every class, or those a proxy is least sure about."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import plain, settings_of
from benchmarks._peers import cache
from benchmarks._tracks import TRACKS, cifar_people
from benchmarks.effect import add_settings, changed, run_cell
from ttca.learning import Learner
from ttca.people import People
from ttca.pooling.choosing import in_order, most_uncertain
from ttca.progress import Reporter
from ttca.settings import Settings
from ttca.terminal import Terminal

__all__ = ["QUICK", "WAYS", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--queries", "250", "--seeds", "1", "--set", "public_epochs=1", "epochs=5", "steps=20")

TRACK = "cifar10-resnet56"
WAYS = ("random", "stratified", "uncertain")
#: Every query about an image as it is, so that the choice is all that differs.
_SETTINGS: dict[str, Any] = {"rounds": 0, "steps": 100}


def main(argv: list[str]) -> dict[str, Any]:
    """Spend the same queries in three ways, for several seeds, and state what each proxy and each δ is worth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks choosing", description=__doc__)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--epsilon", type=int, default=8, help="levels of 255")
    parser.add_argument("--seeds", type=int, default=3)
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    track = TRACKS[TRACK]
    chosen = {**track.settings["public"], **_SETTINGS, **changed(options.set)}
    cells: list[dict[str, Any]] = []
    with track.open_platform("scores") as platform:
        for seed in range(options.seeds):
            settings = settings_of(track, chosen, epsilons=(options.epsilon,), seed=seed)
            for way in WAYS:
                people = partial(cifar_people, "cifar10", "label", draw=partial(draw, way, settings))
                ran = run_cell(
                    replace(track, people=people), platform, settings, queries=options.queries, regime="public"
                )
                cells.append({"way": way, "row": ran.row.to_dict()})
    return {
        "track": TRACK,
        "queries": options.queries,
        "epsilon": options.epsilon,
        "settings": plain(chosen),
        "people": "dev-test",
        "ways": {way: _summary([c["row"] for c in cells if c["way"] == way]) for way in WAYS},
        "cells": cells,
        "how": "The proxy learned from public data is the same for all three; what it is least sure about (smallest "
        "margin) is asked in the third. 70 % of the queries are the subgroup's in each.",
    }


def draw(
    way: str,
    settings: Settings,
    pool: People,
    soft: NDArray[np.intp],
    sharp: NDArray[np.intp],
    queries: int,
    share: float,
    seed: int,
) -> NDArray[np.intp]:
    """Return the rows of the pool's people who are asked, the first so many of each group in the order of the way."""
    members = round(queries * share)
    parts = []
    for rows, n in ((soft, members), (sharp, queries - members)):
        people = pool[rows]
        if way == "uncertain":
            order = most_uncertain(_proxy_says(settings, people))
        else:
            order = in_order(
                "stratified" if way == "stratified" else "random", people.classes, people.subgroup, seed=seed
            )
        parts.append(rows[order[:n]])
    return np.concatenate(parts)


def _proxy_says(settings: Settings, people: People) -> NDArray[np.float32]:
    """Return the probabilities of the proxy that asked nothing, which the cell will start from as well."""
    cell = cifar_people("cifar10", "label", 0, "public", settings.seed, False, draw=lambda *_: np.arange(5))
    judges = cell.roster.selection
    learner = Learner(settings, classes=10, image_shape=people.image_shape, reporter=Reporter(Terminal(stderr=True)))
    primer = learner.primer(cell.public)
    if primer is None:
        raise ValueError("Expected public people in the regime public, got none.")
    path = cache() / "public-proxies" / f"{learner.warm_start_inputs(primer, judges)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = Path(f"{path}.{os.getpid()}")
    proxy = learner.warm_start(path if path.is_file() else partial_path, primer, judges)
    if partial_path.is_file():
        partial_path.replace(path)
    return proxy.predict(people.images)


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    keys = ("subgroup_after", "gap_closed", "fidelity_subgroup", "fidelity_reference", "zero_query_control")
    return {
        key: {
            "mean": statistics.fmean(known),
            "spread": statistics.stdev(known) if len(known) > 1 else 0.0,
        }
        for key in keys
        # Where no gap was shown there is no gap closed.
        if (known := [row[key] for row in rows if row[key] is not None])
    }

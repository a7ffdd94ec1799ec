"""Whom do platforms that others made serve worst, and how many copies are no test persons?

Nobody acts here. Of `fairface-faceapi`: the accuracy for each race among pool rows that were drawn without looking at
race. The race with the lowest one is the track's subgroup. Of `digits-thirdparty`: sharp pictures, and the same through
the bad camera, of pool people. Of every data set: the people who are left out because somebody with an earlier role has
their photograph. `--install` only puts both packages into the cache.
"""

from __future__ import annotations

import argparse
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._third_party import FACE_SIDE, digit_recognizer, face_api, install
from benchmarks._tracks import FACE_API_PEOPLE, TRACKS, copies_left_out
from ttca.blocks import shrink
from ttca.data.hub import load_fairface
from ttca.images import Images
from ttca.platforms.base import Credential, Platform
from ttca.progress import Reporter
from ttca.statistics.binomial import clopper_pearson_interval
from ttca.terminal import Terminal

__all__ = ["QUICK", "accuracies", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--rows", "64")


def main(argv: list[str]) -> dict[str, Any]:
    """Ask both platforms about pool people alone and say how often each group is right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="pool rows, drawn with seed 0")
    parser.add_argument("--install", action="store_true", help="install both packages into the cache, and ask nothing")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.install:
        return {"installed": list(install())}
    races, lowest = _races(options.rows)
    return {
        "rows": options.rows,
        "seed": 0,
        "fairface-faceapi": {"by_race": races, "lowest": lowest},
        "digits-thirdparty": _digits(),
        "left_out": copies_left_out(),
    }


def accuracies(
    said: NDArray[np.int64], classes: NDArray[np.int64], groups: NDArray[np.str_]
) -> dict[str, dict[str, Any]]:
    """Return each group's right answers, people, accuracy, its two-sided 95 % bounds, and its commonest answer's share.

    Parameters
    ----------
    said, classes : int64 arrays, shape (N,)
        What the platform says, −1 where nothing, and the true classes.
    groups : str array, shape (N,)
    """
    found = {}
    for name in np.unique(groups).tolist():
        those = groups == name
        right, people = int((said == classes)[those].sum()), int(those.sum())
        commonest = int(np.unique(said[those], return_counts=True)[1].max())
        found[str(name)] = {
            "right": right, "people": people, "accuracy": right / people,
            "bounds": list(clopper_pearson_interval(right, people)), "commonest_answer": commonest / people,
        }  # fmt: skip
    return found


def _races(rows: int) -> tuple[dict[str, dict[str, Any]], str]:
    of = FACE_API_PEOPLE
    drawn = np.sort(np.random.default_rng(0).permutation(np.arange(of.first, of.last))[:rows])
    loaded = load_fairface("train", rows=slice(of.first, of.last))
    names = np.array(loaded.class_names["race"])[loaded.columns["race"][drawn - of.first]]
    faces = shrink(loaded.images[drawn - of.first], loaded.images.shape[1] // FACE_SIDE)
    with face_api() as platform:
        said = _said(platform, faces)
    found = accuracies(said, loaded.columns["gender"][drawn - of.first], names)
    return found, min(found, key=lambda name: found[name]["accuracy"])


def _digits() -> dict[str, dict[str, Any]]:
    pool = TRACKS["digits-thirdparty"].people(420, "own", 0, False).roster.pool
    with digit_recognizer() as platform:
        said = _said(platform, pool.images)
    return accuracies(said, pool.classes, np.where(pool.subgroup, "bad camera", "sharp"))


def _said(platform: Platform, images: Images) -> NDArray[np.int64]:
    """Return the label of every image; −1 where there is no answer."""
    size, who, labels = platform.info.max_batch, Credential("benchmark"), []
    with Reporter(Terminal(stderr=True)).track(f"asking {platform.info.name}", len(images), unit="images") as done:
        for start in range(0, len(images), size):
            said = platform.attempt(images[start : start + size], who, request_id=uuid.uuid4().hex)
            labels.append(said.labels)
            done(len(said.labels))
    return np.concatenate(labels)

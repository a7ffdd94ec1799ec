"""Which ideas for transfer at a small ε pay? Each against the same action without it, paired person by person.

`TTCA_DATA=… python -m benchmarks ablations --weights FILE --json`. One proxy is trained a seed; every idea learns its δ
against it, or against what it makes of it. Compared are right answers of the platform about dev-test people of the
subgroup, by the exact McNemar test. Each finished cell (seed and idea) is a small file in the cache: a run that was
killed goes on from them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks._cells import Acting, CellKey, code_digest, opened, plain
from benchmarks._peers import cache
from benchmarks._tracks import TRACKS
from benchmarks.effect import add_settings, changed
from ttca.action import WARM_START
from ttca.attacks.several import Drawn, FeatureMixed
from ttca.attacks.universal import Examples, SignDescent
from ttca.learning import targets_of
from ttca.perturbations import PerturbationSet
from ttca.proxies.distillation import Proxy, train_proxy
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.late import flattened, late_weights
from ttca.proxies.runtime import fixed_threads
from ttca.statistics.comparisons import mcnemar_exact

__all__ = ["IDEAS", "QUICK", "Idea", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--track", "digits", "--queries", "420", "--epsilon", "8", "--seeds", "1", "--set", "epochs=10")

#: The action without any idea: published weights, true classes first, then answers; δ at the general settings.
SETTINGS: dict[str, Any] = {
    "true_classes": True,
    "public_epochs": 24,
    "epochs": 12,
    "equalise": True,
    "flip": True,
    "shift": 2,
    "precision": "auto",
    "threads": 1,
    "loss": "margin",
    "steps": 100,
}


@dataclass(frozen=True)
class Scene:
    """What an idea may use: the action at work, its proxies, and what the pool answered."""

    found: Acting
    proxy: Proxy
    warm: Proxy
    seed: int


Maker = Callable[[Scene], nn.Module]


@dataclass(frozen=True)
class Idea:
    """One idea: options of δ that it changes, or the model that δ is learned against; and what it is compared with."""

    against: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Maker | None = None


def _answered(scene: Scene) -> tuple[NDArray[np.uint8], Any]:
    transfer = scene.found.action.pool()
    return transfer.pool.images, targets_of(transfer.answers)


def _small_cnn(scene: Scene) -> Proxy:
    """Return a small network trained from nothing on the same answers."""
    transfer = scene.found.action.pool()
    judges = transfer.selection.images, targets_of(transfer.selection_answers)
    options = replace(
        scene.found.action.settings.distilling, architectures=("small-cnn",), backbones=(), epochs=60, keep_best=False
    )
    return train_proxy(*_answered(scene), options, selection=judges).proxy


def _late(scene: Scene, rate: float) -> nn.Module:
    options = scene.found.action.start.options(scene.found.action.settings.distilling)
    return Drawn(late_weights(scene.proxy, _answered(scene), options, sets=8, rate=rate), seed=scene.seed)


def _mixed(scene: Scene) -> nn.Module:
    people = scene.found.action.questions.selection
    return FeatureMixed(copy.deepcopy(scene.proxy), to_tensor(to_levels(people.images[:128])), seed=scene.seed)


def _flat(scene: Scene) -> Proxy:
    options = scene.found.action.start.options(scene.found.action.settings.distilling)
    return flattened(scene.proxy, _answered(scene), options, epochs=12, rate=1e-4, rho=0.3)


def _mixing(model: nn.Module, scene: Scene) -> nn.Module:
    people = scene.found.action.questions.selection
    return FeatureMixed(copy.deepcopy(model), to_tensor(to_levels(people.images[:128])), seed=scene.seed)


LOGIT = {"steps": 300, "loss": "logit"}
ALL = ("resize", "blur", "jpeg")

#: Every idea by its name.
IDEAS: dict[str, Idea] = {
    "plain": Idea(""),
    "shift-per-image": Idea("plain", {"draws": "image"}),
    "warm-too": Idea("plain", model=lambda s: Drawn([s.proxy, s.warm], seed=s.seed)),
    "late-weights": Idea("plain", model=lambda s: _late(s, 0.01)),
    "feature-mixup": Idea("plain", model=_mixed),
    "steps-300": Idea("plain", {"steps": 300}),
    "logit-300": Idea("steps-300", {"steps": 300, "loss": "logit"}),
    "small-cnn-too": Idea("plain", model=lambda s: Drawn([s.proxy, _small_cnn(s)], seed=s.seed)),
    "transforms": Idea("plain", {"transforms": ALL}),
    "transforms-per-image": Idea("transforms", {"transforms": ALL, "draws": "image"}),
    "logit-image": Idea("logit-300", {**LOGIT, "draws": "image"}),
    "logit-mixup": Idea("logit-300", LOGIT, _mixed),
    "logit-late": Idea("logit-300", LOGIT, lambda s: _late(s, 0.01)),
    "logit-late-mixup-image": Idea("logit-300", {**LOGIT, "draws": "image"}, lambda s: _mixing(_late(s, 0.01), s)),
    "logit-flat": Idea("logit-300", LOGIT, _flat),
    "cross-entropy-300": Idea("steps-300", {"steps": 300, "loss": "cross-entropy"}),
}


def main(argv: list[str]) -> dict[str, Any]:
    """Measure every idea for several seeds, and each against what it changes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablations", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="cifar10-resnet56")
    parser.add_argument("--queries", type=int, default=1000, help="images sent for the pool")
    parser.add_argument("--epsilon", type=int, default=4, help="levels of 255")
    parser.add_argument("--answers", default="scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", default="none", help="published weights that the proxy begins with")
    parser.add_argument("--ideas", nargs="+", choices=tuple(IDEAS), default=tuple(IDEAS))
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    chosen = {**SETTINGS, "weights": options.weights, **changed(options.set)}
    cells: dict[tuple[int, str], dict[str, Any]] = {}
    with TRACKS[options.track].open_platform(options.answers) as platform:
        for seed in range(options.seeds):
            key = CellKey(options.track, "own", options.answers, options.queries, (options.epsilon,), seed, chosen)
            paths = {idea: _path(key, idea) for idea in options.ideas}
            missing = [idea for idea, path in paths.items() if not path.is_file()]
            if missing:
                with opened(key, platform) as found:
                    _measure(found, missing, paths, options.epsilon)
            for idea, path in paths.items():
                cells[seed, idea] = json.loads(path.read_text(encoding="utf-8"))
    return {
        "file": f"ablations-{options.track}-own-{options.answers}-q{options.queries}-e{options.epsilon}",
        "track": options.track,
        "people": "dev-test",
        "settings": plain(chosen),
        "cells": [{"seed": seed, "idea": idea, **cell} for (seed, idea), cell in cells.items()],
        "ideas": {idea: _summary(idea, cells, options.seeds) for idea in options.ideas},
    }


def _path(key: CellKey, idea: str) -> Path:
    facts = {**key.facts(), "idea": idea, "code": code_digest(Path(__file__))}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return cache() / "ablations" / f"{name}.json"


def _measure(found: Acting, ideas: list[str], paths: Mapping[str, Path], epsilon: int) -> None:
    """Learn each idea's δ and write its cell."""
    action, settings = found.action, found.action.settings
    proxy, fidelity = action.distil()
    learner, known, questions = action.learner, action.known, action.questions
    warm = learner.warm_start(action.folder / WARM_START, known.public, questions.judges)
    scene = Scene(found, proxy, warm, settings.seed)
    test = found.cell.test[found.cell.test.subgroup]
    info = action.platform.info
    for idea in ideas:
        began = time.perf_counter()
        how = IDEAS[idea]
        with fixed_threads(settings.threads):
            model = proxy if how.model is None else how.model(scene)
            made = time.perf_counter()
            learned = SignDescent(replace(settings.perturbing, **how.options)).learn(
                model,
                Examples(learner.seen(known.helped.images), known.helped.classes),
                epsilon=epsilon,
                groups=len(info.classes),
                selection=Examples(learner.seen(questions.selection.images), questions.selection.classes),
            )
        done = time.perf_counter()
        found_set = PerturbationSet(learned.delta, epsilon, info.classes, "subgroup", info.fingerprint)
        said = found.evaluator.ask(found_set.apply(test.images, test.classes), purpose="test", epoch="test")
        right = said.labels == test.classes
        cell = {
            "subgroup_after": float(right.mean()),
            "right": np.packbits(right).tobytes().hex(),
            "persons": len(test),
            "success_on_proxy": learned.success,
            "best_step": learned.best_step,
            "fidelity": fidelity.to_dict(),
            "seconds_model": made - began,
            "seconds_delta": done - made,
        }
        path = paths[idea]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(cell), encoding="utf-8")
        partial.replace(path)
        print(
            settings.seed,
            idea,
            cell["subgroup_after"],
            learned.success,
            learned.best_step,
            done - began,
            flush=True,
            file=sys.stderr,
        )


def _right(cell: Mapping[str, Any]) -> NDArray[np.bool_]:
    bits = np.frombuffer(bytes.fromhex(cell["right"]), np.uint8)
    return np.unpackbits(bits, count=cell["persons"]).astype(np.bool_)


def _summary(idea: str, cells: Mapping[tuple[int, str], Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    """Return mean S, and each seed's paired test against what the idea changes."""
    found: dict[str, Any] = {
        "subgroup_after": [cells[seed, idea]["subgroup_after"] for seed in range(seeds)],
        "mean": statistics.fmean(cells[seed, idea]["subgroup_after"] for seed in range(seeds)),
    }
    other = IDEAS[idea].against
    if (0, other) in cells:
        found["against"] = other
        pairs = [(_right(cells[seed, other]), _right(cells[seed, idea])) for seed in range(seeds)]
        found["won"] = [int((~before & after).sum()) for before, after in pairs]
        found["lost"] = [int((before & ~after).sum()) for before, after in pairs]
        found["mcnemar_p"] = [mcnemar_exact(before, after) for before, after in pairs]
        found["mean_gain"] = statistics.fmean(float(after.mean() - before.mean()) for before, after in pairs)
    return found

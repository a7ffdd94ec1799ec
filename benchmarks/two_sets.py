"""Two collectives, one input: does a combination of their δ help people who belong to both subgroups?

Run as ``python -m benchmarks two_sets --json``. *Simulated*: scikit-learn's digits, the demo's platform, and two
conditions that it serves badly: a bad camera (A) and a slanted hand (B). Three kinds of people act, nobody in two of
them: with A alone, with B alone, with both. Each seed draws people, platform and members anew from the same 1,797
digits, so that its spread is not that of new people. Test people are seen under every condition, in no other role.

The two collectives act each for itself, on its own people and its own queries; what they then share is two files.
``own`` is what people with both conditions would get from an action and queries of their own; ``together`` from one
action of the people with A alone and with B alone, who pay as many queries as the two collectives did; ``together,
on both`` also learns δ on images of people with both, who are never asked about.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import joblib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.action import CollectiveAction
from ttca.conditions import Opponents
from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images
from ttca.demo.platform import digits_platform
from ttca.demo.world import CAMERA, SHARE_IN_TRAINING, SIZE, DigitsWorld
from ttca.errors import ConfigError
from ttca.images import Images
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet, Way
from ttca.platforms.base import Platform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.settings import Settings
from ttca.statistics.binomial import clopper_pearson_interval
from ttca.statistics.comparisons import mcnemar_exact

__all__ = ["QUICK", "World", "main", "measure_seed", "slanted", "world"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--seeds", "1")

WAYS: tuple[Way, ...] = get_args(Way)
#: Pixels by which each row of an image stands to the right of the row above: a hand that slants by 27 degrees.
SLANT = 0.5
#: People who act: with A alone, with B alone, with both; of each a fifth steers early stopping.
_SHARES = {"a": 0.38, "b": 0.38, "both": 0.22}
#: The first of each kind's pool people have a picture without the condition, too: what the platform does well.
_VOLUNTEERS = 30
_SEEN_AS = ("sharp", "a", "b", "both")
_BATCH = 256


def slanted(images: Images, slant: float = SLANT) -> Images:
    """Return images as a slanting hand would have written them: uint8 (N, H, W, 3), *ours*.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
        Black where nothing is written; so is what comes in from outside.
    slant : float
        Pixels to the side per row, about the middle row.
    """
    height, width = images.shape[1:3]
    affine = (1, slant, -slant * (height - 1) / 2, 0, 1, 0)
    seen = [
        np.asarray(
            Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        )
        for image in images
    ]
    return np.stack(seen) if seen else images.copy()


@dataclass(frozen=True)
class World:
    """One seed's people and platform.

    Parameters
    ----------
    platform : Platform
        Trained on sharp, upright digits, few of A and of B, and none of both.
    rosters : dict of str to Roster
        Of the actions ``a``, ``b``, ``own``, ``together`` and ``together, on both``.
    test : dict of str to images
        The same people, uint8 (N, 16, 16, 3): ``sharp``, ``a``, ``b``, ``both``.
    classes : int64 array, shape (N,)
        Their true classes.
    """

    platform: Platform
    rosters: dict[str, Roster]
    test: dict[str, Images]
    classes: NDArray[np.int64]


def world(seed: int) -> World:
    """Return the people and the platform of a seed; thirds of the digits train it, act, and are tested on."""
    sharp, classes = load_digits_images(SIZE)
    slant = slanted(sharp)
    seen = {
        "sharp": sharp,
        "a": bad_camera(sharp, seed=seed, **CAMERA),
        "b": slant,
        "both": bad_camera(slant, seed=seed, **CAMERA),
    }
    training, acting, test = np.array_split(np.random.default_rng(seed).permutation(len(classes)), 3)
    few = round(SHARE_IN_TRAINING * len(training))
    learned = np.concatenate(
        [seen["a"][training[:few]], seen["b"][training[few : 2 * few]], sharp[training[2 * few :]]]
    )

    def people(condition: str, rows: NDArray[np.intp], *, volunteers: int = 0) -> People:
        names = np.array([f"person-{i:04d}" for i in rows])
        badly = People.build(seen[condition][rows], classes[rows], persons=names, subgroup=True)
        well = People.build(
            sharp[rows[:volunteers]], classes[rows[:volunteers]], persons=names[:volunteers], subgroup=False
        )
        return People.concatenate([badly, well])

    cuts = np.cumsum([round(share * len(acting)) for share in _SHARES.values()])
    *kinds, unread = np.split(acting, cuts)
    # Nobody is verified here, but a roster has such people.
    verification = people("both", unread)
    pools: dict[str, People] = {}
    selections: dict[str, People] = {}
    for name, rows in zip(_SHARES, kinds, strict=True):
        fifth = len(rows) // 5
        selections[name], pools[name] = (
            people(name, rows[:fifth]),
            people(name, rows[fifth:], volunteers=_VOLUNTEERS),
        )
    rosters = {
        name: Roster(pool=pools[kind], selection=selections[kind], verification=verification)
        for name, kind in (("a", "a"), ("b", "b"), ("own", "both"))
    }
    rosters["together"] = Roster(
        pool=People.concatenate([pools["a"], pools["b"]]),
        selection=People.concatenate([selections["a"], selections["b"]]),
        verification=verification,
    )
    rosters["together, on both"] = Roster(
        pool=rosters["together"].pool,
        selection=rosters["together"].selection,
        verification=verification,
        unasked=people("both", kinds[2]),
    )
    platform = digits_platform(DigitsWorld(learned, classes[training], rosters["a"], people("both", test)), seed=seed)
    return World(platform, rosters, {name: images[test] for name, images in seen.items()}, classes[test])


# --- one seed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Learned:
    """One action's δ and its opponents', and what it paid."""

    perturbations: PerturbationSet
    opponents: Opponents | None
    queries: int


def _learned(name: str, here: World, *, epsilon: int, seed: int, epochs: int, steps: int) -> _Learned:
    subgroups = {"a": "people with a bad camera", "b": "people with a slanted hand", "own": "people with both"}
    settings = Settings(
        name=f"two-sets-{name.replace(', ', '-').replace(' ', '-')}",
        subgroup=subgroups.get(name, "people with either"),
        epsilons=(epsilon,),
        seed=seed,
        epochs=epochs,
        steps=steps,
        goal="improvement",
        controls=False,
        # No number may depend on what else lies on a machine.
        weights="none",
    )
    members = [Member("members", 10**6)]
    with (
        tempfile.TemporaryDirectory() as folder,
        CollectiveAction(
            Path(folder) / "action", platform=here.platform, members=members, roster=here.rosters[name],
            settings=settings, pace=Pace(concurrency=_BATCH, batch=_BATCH),
        ) as action,
    ):  # fmt: skip
        perturbations = action.learn()[epsilon]
        # What choosing the controls' length costs is no part of what δ cost.
        queries = sum(action.ledger.paid(action=settings.name).values())
        opponents = action.opponents(epsilon) if name in ("a", "b") else None
    return _Learned(perturbations, opponents, queries)


def measure_seed(seed: int, *, epsilon: int, epochs: int = 40, steps: int = 100) -> dict[str, Any]:
    """Return everything one seed says, as plain JSON values.

    Parameters
    ----------
    seed : int
        Of people, platform, proxies and δ.
    epsilon : int
        Of every set, and of every combination: levels of 255.
    epochs, steps : int
        As in :class:`ttca.settings.Settings`.

    Returns
    -------
    dict
        ``rates`` (who is seen how → under which δ → share answered rightly, with its two-sided 95 % interval),
        ``queries`` (paid by each action to learn), ``paired_p`` (exact McNemar on people with both conditions).
    """
    here = world(seed)
    learned = {
        name: _learned(name, here, epsilon=epsilon, seed=seed, epochs=epochs, steps=steps) for name in here.rosters
    }
    a, b = learned["a"].perturbations, learned["b"].perturbations
    against_a, against_b = learned["a"].opponents, learned["b"].opponents
    assert against_a is not None
    assert against_b is not None
    combined = {way: a.combine(b, how=way) for way in WAYS}
    sets = {
        "δ_A": a,
        "δ_B": b,
        **{f"combined: {way}": found for way, found in combined.items()},
        **{f"joint: {name}": learned[name].perturbations for name in learned if name not in ("a", "b")},
        "control: noise": against_a.noise,
        "control: zero-query, combined": against_a.zero_query.combine(against_b.zero_query),
        "control: class-agnostic, combined": against_a.class_agnostic.combine(against_b.class_agnostic),
    }
    true = here.classes
    wrong = (true + np.random.default_rng([seed, 1]).integers(1, 10, len(true))) % 10
    correct: dict[str, dict[str, NDArray[np.bool_]]] = {}
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "evaluation.sqlite") as ledger:
        pool = QueryPool(
            here.platform, ledger, [Member("benchmark", 10**7)], pace=Pace(concurrency=_BATCH, batch=_BATCH)
        )

        def said(images: Images) -> NDArray[np.int64]:
            return pool.ask(images, purpose="test", epoch="test").labels

        for seen in _SEEN_AS:
            images = here.test[seen]
            found = {"nothing": said(images) == true}
            if seen != "sharp":
                found |= {name: said(some.apply(images, true)) == true for name, some in sets.items()}
            if seen == "both":
                # Whoever names another class than the true one: how often does the platform believe it?
                for name in ("δ_A", "δ_B", *(f"combined: {way}" for way in WAYS), "joint: own"):
                    found[f"abuse of {name}"] = said(sets[name].apply(images, wrong)) == wrong
            correct[seen] = found
    both = correct["both"]
    return {
        "seed": seed,
        "people": len(true),
        "queries": {name: one.queries for name, one in learned.items()},
        "rates": {seen: {name: _rate(hits) for name, hits in found.items()} for seen, found in correct.items()},
        "paired_p": {
            f"combined: {way} against {name}": float(mcnemar_exact(both[f"combined: {way}"], both[name]))
            for way in WAYS
            for name in both
            if not name.startswith(("abuse", f"combined: {way}"))
        },
    }


def _rate(hits: NDArray[np.bool_]) -> dict[str, Any]:
    low, high = clopper_pearson_interval(int(hits.sum()), len(hits))
    return {"rate": float(hits.mean()), "interval": [low, high]}


# --- all seeds ---------------------------------------------------------------------------------------------


def _summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, spread and the outermost interval bounds of every rate, over seeds."""
    found: dict[str, Any] = {}
    for seen, rows in seeds[0]["rates"].items():
        found[seen] = {}
        for name in rows:
            each = [seed["rates"][seen][name] for seed in seeds]
            rates = [one["rate"] for one in each]
            found[seen][name] = {
                "mean": statistics.fmean(rates),
                "standard_deviation": statistics.stdev(rates) if len(rates) > 1 else None,
                "lowest_bound": min(one["interval"][0] for one in each),
                "highest_bound": max(one["interval"][1] for one in each),
            }
    return found


def main(argv: list[str]) -> dict[str, object]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        See ``--help``; ``--json`` is for the caller, who does the printing.

    Raises
    ------
    ConfigError
        If there is no seed or no process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks two_sets", description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="number of worlds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--epsilon", type=int, default=12, help="ε of every set and every combination, in levels of 255"
    )
    parser.add_argument("--epochs", type=int, default=40, help="epochs of distillation")
    parser.add_argument("--steps", type=int, default=100, help="steps of learning δ")
    parser.add_argument("--jobs", type=int, default=min(2, joblib.cpu_count()), help="number of processes")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1 or options.jobs < 1:
        raise ConfigError(f"Expected 1 or more seeds and processes, got {options.seeds} and {options.jobs}. Try 8, 2.")
    numbers = range(options.first_seed, options.first_seed + options.seeds)
    with joblib.parallel_config("loky", n_jobs=options.jobs, inner_max_num_threads=1):
        seeds = joblib.Parallel()(
            joblib.delayed(measure_seed)(seed, epsilon=options.epsilon, epochs=options.epochs, steps=options.steps)
            for seed in numbers
        )
    return {
        "benchmark": "two_sets",
        "seeds": list(numbers),
        "epsilon": options.epsilon,
        "people": seeds[0]["people"],
        "conditions": {"a": {"bad_camera": CAMERA}, "b": {"slant_pixels_per_row": SLANT}},
        "queries": {name: statistics.fmean(seed["queries"][name] for seed in seeds) for name in seeds[0]["queries"]},
        "summary": _summary(seeds),
        "by_seed": seeds,
    }

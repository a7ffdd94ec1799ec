"""What do the queries buy? S against Q beside what costs no query, and how poor public data may be before Q pays.

Three parts. *own* and *public* count S for budgets from little to all, in each regime; *poor* keeps the budget and
makes the public data worse: fewer images, wrong labels, another domain. The collective is credited with what its action
adds to the best that the same people could have had without a query, and with nothing else. Definitions are *ours*.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import (
    Acting,
    CellKey,
    acting,
    code_digest,
    forget_answers,
    kept_under,
    opened,
    plain,
    settings_of,
)
from benchmarks._credit import alternatives, credited, verdict
from benchmarks._tracks import TRACKS, Cell, Regime, Track
from benchmarks.transfer import quick_key
from ttca.data.cameras import bad_camera, soft_focus
from ttca.data.hub import load_cifar100
from ttca.demo.world import CAMERA, DIGITS, SHARE_IN_TRAINING, SIZE, digits_world
from ttca.errors import ConfigError, WorthlessProxyError
from ttca.images import Images
from ttca.measurement import Outcome
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform

__all__ = [
    "DEGREES",
    "PARTS",
    "QUICK",
    "Degree",
    "main",
    "poorer",
    "printed_digits",
    "wins_up_to",
]

PARTS = ("own", "public", "poor")
#: The arguments of the slice that ``python -m benchmarks quick`` runs.
QUICK = (
    "--track", "digits", "--seeds", "1", "--queries", "70", "--part", "own", "poor",
    "--degrees", "share-3", "share-100",
)  # fmt: skip
#: Of an action that is no member of the quick grid.
_STEPS = 100


@dataclass(frozen=True)
class Degree:
    """How poor public data are.

    Parameters
    ----------
    share : float
        Of the public images there are, drawn at random.
    wrong : float
        Share of them whose label is that of another class, drawn at random.
    domain : {"same", "other"}
        Other: printed digits in place of handwritten ones, CIFAR-100's look-alikes in place of CIFAR-10.
    """

    share: float = 1.0
    wrong: float = 0.0
    domain: str = "same"


#: By name, from rich to poor within each kind. Labels go wrong on a tenth of CIFAR's: all of it would take an hour.
DEGREES: dict[str, Degree] = {
    "share-100": Degree(),
    "share-30": Degree(0.3),
    "share-10": Degree(0.1),
    "share-3": Degree(0.03),
    "share-1": Degree(0.01),
    "wrong-20": Degree(wrong=0.2),
    "wrong-40": Degree(wrong=0.4),
    "wrong-60": Degree(wrong=0.6),
    "share-10-wrong-20": Degree(0.1, 0.2),
    "share-10-wrong-40": Degree(0.1, 0.4),
    "other-domain": Degree(domain="other"),
}
_CURVES: dict[str, dict[str, tuple[int, ...]]] = {
    "digits": {"own": (35, 70, 140, 210, 280, 350, 420), "public": (35, 70, 140, 280, 420)},
    "cifar10-resnet56": {"own": (250, 1000), "public": (125, 250, 500, 1000, 2000)},
}
_POOR: dict[str, tuple[int, tuple[str, ...]]] = {
    "digits": (420, tuple(n for n in DEGREES if not n.startswith("share-10-"))),
    "cifar10-resnet56": (
        500,
        ("share-100", "share-30", "share-10", "share-3", "share-1", "share-10-wrong-20", "share-10-wrong-40",
         "other-domain"),
    ),
    "fairface-agegender": (500, ("share-100", "share-30", "share-10", "share-3", "share-1", "wrong-20", "wrong-40")),
}  # fmt: skip


def main(argv: list[str]) -> dict[str, Any]:
    """Run the parts of one track, or read what is kept of them, and say plainly what the queries bought."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks what_queries_buy", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="digits")
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, help="parts to run; default: all three on digits, else public"
    )
    parser.add_argument("--queries", type=int, nargs="+", help="budgets; the part poor uses the largest")
    parser.add_argument("--degrees", nargs="+", choices=tuple(DEGREES), help="how poor the public data are")
    parser.add_argument("--epsilon", type=int, help="levels of 255; default 12 on digits, else 8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        raise ConfigError(f"Expected 1 seed or more, got {options.seeds}.")
    track = TRACKS[options.track]
    default = PARTS if track.name == "digits" else ("public",)
    parts = default if options.part is None else tuple(dict.fromkeys(options.part))
    if options.degrees is not None and "poor" not in parts:
        raise ConfigError(f"Expected --degrees together with the part poor, got {', '.join(parts)}. Add --part poor.")
    epsilon = (12 if track.name == "digits" else 8) if options.epsilon is None else options.epsilon
    family = _quick(track, 0).epsilons
    if epsilon not in family:
        raise ConfigError(
            f"Expected ε to be one of {', '.join(map(str, family))}, the family of {track.name}, got {epsilon}."
        )
    # All that cannot be done is refused before anything is paid.
    plan = [
        (part, queries, degree)
        for part in parts
        for queries, degree in _planned(track, part, options.queries, options.degrees)
    ]
    # What it costs to learn of true classes for long is known where the track has a curve of it.
    own_too = "own" in track.settings and ("own" in parts or "own" in _CURVES.get(track.name, {}))
    began = time.perf_counter()
    cells: list[dict[str, Any]] = []
    with track.open_platform(track.answers[0]) as platform:
        for seed in range(options.seeds):
            for part, queries, degree in plan:
                own = None
                if own_too and part != "own":
                    own = _own_control(track, platform, queries, epsilon, seed)
                named = {"part": part, "queries": queries, "degree": degree, "seed": seed}
                cells.append({**named, **_cell(track, platform, named, epsilon, own, final=options.final)})
    return {
        "file": f"what_queries_buy-{track.name}-{'-'.join(parts)}" + ("-final" if options.final else ""),
        "track": track.name,
        "people": "final" if options.final else "dev-test",
        "answers": track.answers[0],
        "epsilon": epsilon,
        "epsilons": list(family),
        "parts": list(parts),
        "alternatives": {part: alternatives(own_too and part != "own") for part in parts},
        "degrees": {name: asdict(DEGREES[name]) for name in dict.fromkeys(c["degree"] for c in cells)},
        "cells": cells,
        "summary": _summary(cells),
        "wins_up_to": wins_up_to(_summary(cells)),
        "seconds": time.perf_counter() - began,
    }


def _planned(
    track: Track, part: str, queries: Sequence[int] | None, degrees: Sequence[str] | None
) -> list[tuple[int, str]]:
    """Return budgets and degrees of one part; raise ConfigError where the track cannot have them, or there are none."""
    if part == "poor":
        budget, known = _POOR.get(track.name, (500, ()))
        names = known if degrees is None else degrees
        if not names:
            raise ConfigError(f"Expected degrees of poor public data of {track.name}, got none. Name --degrees.")
        for name in names:
            poorer(track, DEGREES[name])
        return [(budget if queries is None else max(queries), name) for name in names]
    curve = _CURVES.get(track.name, {}).get(part, (500, 2000)) if queries is None else queries
    if _of_the_grid(track, part):
        _key(track, part, curve[0], 0)
    else:
        poorer(track, Degree())
    return [(q, "share-100") for q in curve]


def _cell(
    track: Track,
    platform: Platform,
    named: Mapping[str, Any],
    epsilon: int,
    own: PerturbationSet | None,
    *,
    final: bool,
) -> dict[str, Any]:
    """Return one action's row; where it stopped itself, why."""
    part, queries, seed, degree = named["part"], named["queries"], named["seed"], DEGREES[named["degree"]]
    if _of_the_grid(track, part):
        key = _key(track, part, queries, seed)
        with opened(key, platform) as found:
            test = track.people(queries, key.regime, seed, True).test if final else found.cell.test
            row = _row(found, track.name, test, epsilon, own)
        forget_answers(key.home())
        return {"settings": plain(key.chosen), **row}
    poor = poorer(track, degree)
    chosen = {**poor.settings["public"], **_as_many_steps(track.name, poor, queries, seed)}
    epsilons = _quick(track, seed).epsilons
    facts = {
        "track": poor.name,
        "answers": track.answers[0],
        "queries": queries,
        "epsilons": list(epsilons),
        "seed": seed,
        "settings": plain(chosen),
        "code": code_digest(Path(__file__)),
    }
    home = kept_under(facts)
    settings = settings_of(poor, chosen, epsilons=epsilons, seed=seed)
    with acting(poor, platform, settings, queries=queries, regime="public", home=home) as found:
        test = poor.people(queries, "public", seed, True).test if final else found.cell.test
        row = _row(found, track.name, test, epsilon, own)
        images = len(found.cell.public) if found.cell.public is not None else 0
    forget_answers(home)
    return {"public_images": images, "settings": plain(chosen), **row}


def _of_the_grid(track: Track, part: str) -> bool:
    """Whether the part's actions are kept cells of the grid; digits have no public data but what is made poorer."""
    return part == "own" or (part == "public" and "public" in track.settings)


def _quick(track: Track, seed: int) -> CellKey:
    """Return a cell of the track's quick grid, whose family all parts share: each ε starts from the one before."""
    return quick_key(track.name, 420 if track.name == "digits" else 500, seed)


def _key(track: Track, part: str, queries: int, seed: int) -> CellKey:
    """Return a cell of the quick grid with this budget, or of the regime own, which only digits' grid has."""
    quick = _quick(track, seed)
    if part == "own" and quick.regime != "own":
        return CellKey(track.name, "own", quick.answers, queries, quick.epsilons, seed, {"steps": _STEPS})
    return replace(quick, queries=queries)


def _own_control(track: Track, platform: Platform, queries: int, epsilon: int, seed: int) -> PerturbationSet:
    """Return δ that the same members' true classes give without an answer: the control of the kept cell of *own*."""
    key = _key(track, "own", queries, seed)
    with opened(key, platform) as found:
        own = found.action.opponents(epsilon).zero_query
    forget_answers(key.home())
    return own


def _row(found: Acting, track: str, test: People, epsilon: int, own: PerturbationSet | None) -> dict[str, Any]:
    try:
        row, measurement = found.measure(track, test, epsilon)
    except WorthlessProxyError as error:
        return {"failed": str(error)}
    if own is not None:
        members = test[test.subgroup]
        said = found.evaluator.ask(own.apply(members.images, members.classes), purpose="test", epoch="test")
        measurement = replace(
            measurement,
            outcomes={**measurement.outcomes, "own_zero_query": Outcome(said, members.classes, members.classes)},
        )
    return {"row": row.to_dict(), **credited(measurement, alternatives(own is not None))}


# --- public data, made poorer ------------------------------------------------------------------------------


def poorer(track: Track, degree: Degree) -> Track:
    """Return a track with public data so poor, which the subgroup's camera then shows as its own.

    Parameters
    ----------
    track : Track
        ``digits`` (public: the sharp images that trained the platform, as on CIFAR), a CIFAR-10 track, or any other
        with public data whose subgroup is no camera's; another domain is known for the first two only.
    degree : Degree

    Returns
    -------
    Track
        Its regime public alone; pool, verification and test people are the track's.

    Raises
    ------
    ConfigError
        If there are no such public data.
    """
    digits = track.name == "digits"
    if not digits and "public" not in track.settings:
        raise ConfigError(f"Expected a track with public data, or digits, got {track.name}. Choose another.")
    if degree.domain == "other" and not (digits or track.name.startswith("cifar10-")):
        raise ConfigError(f"Expected digits or CIFAR-10, whose other domain is known, got {track.name}.")

    def people(queries: int, regime: Regime, seed: int, final: bool) -> Cell:
        cell = track.people(queries, "own" if digits else "public", seed, final)
        if degree.domain == "other":
            public = _printed() if digits else _lookalikes()
        elif digits:
            public = _training_digits()
        elif cell.public is None:
            raise ConfigError(f"Expected public data of {track.name}, got none.")
        else:
            public = cell.public
        public = _poor(public, degree, np.random.default_rng([seed, 7]))
        return replace(cell, public=public, views=_as_seen(track.name, public, cell))

    return Track(
        name="+".join([track.name, *(f"{k}-{v}" for k, v in asdict(degree).items() if v != getattr(Degree(), k))]),
        answers=track.answers,
        open_platform=track.open_platform,
        people=people,
        settings={"public": {**(track.settings["own" if digits else "public"]), **({} if digits else _shorter())}},
    )


def _shorter() -> dict[str, Any]:
    return {"steps": _STEPS}


def _poor(public: People, degree: Degree, rng: np.random.Generator) -> People:
    """Return a random share of the people, some of them with the label of another class."""
    rows = rng.permutation(len(public))[: max(2, round(degree.share * len(public)))]
    # At full share the order stays, so that the public proxy of the grid is found again.
    chosen = public[rows] if degree.share < 1 else public
    count = int(public.classes.max()) + 1
    classes = chosen.classes.copy()
    wrong = rng.permutation(len(chosen))[: round(degree.wrong * len(chosen))]
    classes[wrong] = (classes[wrong] + rng.integers(1, count, len(wrong))) % count
    return replace(chosen, classes=classes)


def _as_seen(track: str, public: People, cell: Cell) -> People:
    """Return public people as the subgroup's camera shows them; as many as the track's own, where it has some."""
    some = public[: len(cell.views)] if cell.views is not None else public
    if track == "digits":
        return replace(some, images=bad_camera(some.images, seed=1, **CAMERA), subgroup=np.ones(len(some), np.bool_))
    if track.startswith("cifar"):
        return replace(some, images=soft_focus(some.images), subgroup=np.ones(len(some), np.bool_))
    return public[public.subgroup] if public.subgroup.any() else public


@lru_cache(maxsize=1)
def _training_digits() -> People:
    """Return what trained the digits' platform, without the few that came through the bad camera."""
    world = digits_world(seed=0)
    few = round(SHARE_IN_TRAINING * len(world.training_images))
    images, classes = world.training_images[few:], world.training_classes[few:]
    return People.build(images, classes, persons=_names(len(images)), subgroup=False)


@lru_cache(maxsize=1)
def _printed() -> People:
    images, classes = printed_digits(580, seed=0)
    return People.build(images, classes, persons=_names(len(images)), subgroup=False)


def printed_digits(n: int, *, seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Return printed digits in Pillow's own typeface, of several sizes, a little turned and moved.

    Parameters
    ----------
    n : int
    seed : int

    Returns
    -------
    images : uint8 array, shape (n, 16, 16, 3)
        Bright on black, as scikit-learn's handwritten ones are.
    classes : int64 array, shape (n,)
        0..9 in turn.
    """
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    classes = np.arange(n, dtype=np.int64) % len(DIGITS)
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for i, c in enumerate(classes.tolist()):
        canvas = Image.new("L", (SIZE, SIZE))
        x, y = (SIZE / 2 + rng.uniform(-1, 1, 2)).tolist()
        font = ImageFont.load_default(int(rng.integers(16, 22)))
        ImageDraw.Draw(canvas).text((x, y), DIGITS[c], fill=int(rng.integers(180, 256)), font=font, anchor="mm")
        turned = canvas.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BILINEAR)
        images[i] = np.asarray(turned)[..., None]
    return images, classes


#: CIFAR-100's class that looks most like each of CIFAR-10's, in their order. It has no cats, no ships, and no birds.
LOOKALIKES = (
    "rocket", "streetcar", "butterfly", "leopard", "kangaroo", "wolf", "lizard", "cattle", "whale", "pickup_truck",
)  # fmt: skip


@lru_cache(maxsize=1)
def _lookalikes() -> People:
    train = load_cifar100("train")
    names = train.class_names["fine_label"]
    said = np.full(len(names), -1, np.int64)
    said[[names.index(name) for name in LOOKALIKES]] = np.arange(len(LOOKALIKES))
    classes = said[train.columns["fine_label"]]
    rows = np.flatnonzero(classes >= 0)
    return People.build(train.images[rows], classes[rows], persons=_names(len(rows)), subgroup=False)


def _names(n: int) -> list[str]:
    return [f"public-{i:05d}" for i in range(n)]


#: Most images of a step on public data, and the steps that few public images get in place of the track's epochs.
_BATCH = 128
_STEPS_OF_FEW = {"digits": 300}


def _as_many_steps(name: str, track: Track, queries: int, seed: int) -> dict[str, int]:
    """Return so many public epochs that few images get as many training steps as many do: poor data, not poor training.

    Digits: 300 steps. Elsewhere 1,000, or the track's epochs where these are more. A step on few images sees fewer.
    """
    public = track.people(queries, "public", seed, False).public
    batches = -(-len(public if public is not None else ()) // _BATCH)
    least = track.settings["public"].get("public_epochs", 10)
    return {"public_epochs": max(least, round(_STEPS_OF_FEW.get(name, 1000) / max(batches, 1)))}


# --- what was bought ---------------------------------------------------------------------------------------


def _summary(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every part, budget and degree, mean and spread over seeds and the verdict."""
    found = []
    for part, queries, degree in dict.fromkeys((c["part"], c["queries"], c["degree"]) for c in cells):
        here = [c for c in cells if (c["part"], c["queries"], c["degree"]) == (part, queries, degree)]
        done = [c for c in here if "row" in c]
        line: dict[str, Any] = {"part": part, "queries": queries, "degree": degree, "seeds": len(here)}
        line |= {"stopped": len(here) - len(done)}
        if done:
            bought, p_values = [c["bought"] for c in done], [c["best_mcnemar_p"] for c in done]
            line |= {
                "mean": {k: _mean(c["row"][k] for c in done) for k in _KEYS},
                "bought": statistics.fmean(bought),
                "bought_standard_deviation": statistics.stdev(bought) if len(bought) > 1 else None,
                "best": [c["best"] for c in done],
                "best_mcnemar_p": p_values,
                "verdict": verdict(bought, p_values, len(here)),
            }
        found.append(line)
    return found


_KEYS = (
    "reference_before", "subgroup_before", "subgroup_after", "gap_closed", "zero_query_control", "noise_control",
    "class_agnostic_control", "abuse_rate", "coverage",
)  # fmt: skip


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def wins_up_to(summary: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how poor public data must be before the queries win: the largest share at which they still did.

    Parameters
    ----------
    summary : sequence of dict
        As results hold it.

    Returns
    -------
    dict
        ``shares_tried``, from poor to rich, and ``share``: the largest at which, and at every smaller one that was
        tried, the verdict is ``won``; None where the queries do not win even at the smallest.
    """
    tried = sorted(
        (DEGREES[s["degree"]].share, s.get("verdict"))
        for s in summary
        if s["part"] == "poor" and DEGREES[s["degree"]] == Degree(DEGREES[s["degree"]].share)
    )
    share = None
    for value, said in tried:
        if said != "won":
            break
        share = value
    return {"shares_tried": [value for value, _ in tried], "share": share}

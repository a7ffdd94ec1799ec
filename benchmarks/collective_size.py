"""How many must take part? S against the share of the subgroup that asks, what each asks, and who applies δ.

Participants are asked about all their images, each of which has a quota; with more than one query they ask about
altered copies too. Everybody else of the subgroup neither asks nor is learned from. Who *applies* δ is another question
than who asked: S_ρ follows from S by arithmetic. Definitions are *ours*.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, acting, code_digest, forget_answers, kept_under, plain, settings_of
from benchmarks._credit import credited, verdict
from benchmarks._tracks import TRACKS, Cell, Regime, Track
from ttca.answers import Answers
from ttca.certificates import clopper_pearson_interval
from ttca.errors import ConfigError, WorthlessProxyError
from ttca.fairness import OneVsRestReport
from ttca.images import Images
from ttca.people import People, Roster
from ttca.platforms.base import Platform

__all__ = ["QUICK", "Part", "altered", "main", "mixed", "of_part"]

#: The arguments of the slice that ``python -m benchmarks quick`` runs.
QUICK = ("--track", "digits", "--seeds", "1", "--shares", "0.1", "1", "--quotas", "5")

#: How many images the largest collective of a track has: members and volunteers, as its cells have them.
_EVERYBODY = {
    "digits": 420,
    "cifar10-resnet56": 4400,
    "cifar100-resnet32": 4400,
    "cifar10-resnet20": 4400,
    # All of the subgroup's and volunteers beside them: photographs of 224×224, whose copies have to fit into memory.
    "fairface-agegender": 1000,
}
_SHARES: dict[str, tuple[float, ...]] = {
    "digits": (0.01, 0.02, 0.05, 0.1, 0.3, 1.0),
    "cifar10-resnet56": (0.01, 0.1, 1.0),
}
_QUOTAS: dict[str, tuple[int, ...]] = {
    "digits": (1, 5, 20, 50),
    "cifar10-resnet56": (1, 10),
    "fairface-agegender": (1, 3),
}
#: The settings' epochs are meant for so many images; others get as many looks, within bounds.
_MEANT_FOR = {"digits": 420, "cifar10-resnet56": 1000, "fairface-agegender": 500}
_FEWEST_EPOCHS, _MOST_TIMES = 3, 5
_STEPS = 100
_SELECTION = 0.2
RHOS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_FAIRNESS_DRAWS = 20
#: By fewer selection people no proxy can be told from their favourite answer; a single answer is always the favourite.
FEWEST_JUDGES = 5
#: What makes a copy another image, and no other person: pixels moved, levels brighter, levels of grain.
_MOVED, _BRIGHTER, _GRAIN = 2, 6, 2

Labels = NDArray[np.int64]
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Who takes part, and how much each asks.

    Parameters
    ----------
    share : float
        Of the subgroup's persons, and of volunteers who are not among them, in (0, 1].
    quota : int
        Queries about each image of a participant.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    share: float
    quota: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.quota < 1:
            raise ConfigError(
                f"Expected a share in (0, 1] and a quota of 1 or more, got {self.share} and {self.quota}."
            )


def main(argv: list[str]) -> dict[str, Any]:
    """Run the grid of one track, or read what is kept of it, and state S, its controls and S_ρ for every cell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks collective_size", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="digits")
    parser.add_argument("--regime", choices=("own", "public"), default="own")
    parser.add_argument("--shares", type=float, nargs="+", help="shares of the subgroup that take part, in (0, 1]")
    parser.add_argument("--quotas", type=int, nargs="+", help="queries for each image of a participant")
    parser.add_argument("--epsilon", type=int, help="levels of 255; default 12 on digits, else 8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        raise ConfigError(f"Expected 1 seed or more, got {options.seeds}.")
    track = TRACKS[options.track]
    if options.regime not in track.settings:
        raise ConfigError(
            f"Expected the regime to be one of {', '.join(track.settings)} for {track.name}, got {options.regime}."
        )
    epsilon = (12 if track.name == "digits" else 8) if options.epsilon is None else options.epsilon
    quotas = _QUOTAS.get(track.name, (1, 10)) if options.quotas is None else options.quotas
    shares = _SHARES.get(track.name, (0.01, 0.1, 1.0)) if options.shares is None else options.shares
    parts = [Part(share, quota) for quota in quotas for share in shares]
    began = time.perf_counter()
    cells = []
    with track.open_platform(track.answers[0]) as platform:
        for seed in range(options.seeds):
            cells += [_cell(track, platform, options.regime, part, epsilon, seed, options.final) for part in parts]
    return {
        "file": f"collective_size-{track.name}-{options.regime}" + ("-final" if options.final else ""),
        "track": track.name,
        "regime": options.regime,
        "answers": track.answers[0],
        "people": "final" if options.final else "dev-test",
        "epsilon": epsilon,
        "cells": cells,
        "summary": _summary(cells),
        "seconds": time.perf_counter() - began,
    }


def _cell(
    track: Track, platform: Platform, regime: Regime, part: Part, epsilon: int, seed: int, final: bool
) -> dict[str, Any]:
    some = of_part(track, part)
    cell = some.people(0, regime, seed, False)
    selection = cell.roster.selection
    asked = People.concatenate([cell.roster.pool, selection])
    settings = _settings(track, regime, len(asked))
    facts = {
        "track": some.name,
        "regime": regime,
        "answers": track.answers[0],
        "epsilons": [epsilon],
        "seed": seed,
        "settings": plain(settings),
        "code": code_digest(Path(__file__)),
    }
    home = kept_under(facts)
    named = {
        "share": part.share,
        "quota": part.quota,
        "seed": seed,
        "members": len(np.unique(asked.persons[asked.subgroup])),
        "volunteers": len(np.unique(asked.persons[~asked.subgroup])),
        "persons": len(np.unique(asked.persons)),
        "selection_persons": len(np.unique(selection.persons[selection.subgroup])),
        "verification_persons": len(np.unique(cell.roster.verification.persons)),
        "images": len(asked),
        "settings": plain(settings),
    }
    chosen = settings_of(some, settings, epsilons=(epsilon,), seed=seed)
    with acting(some, platform, chosen, queries=0, regime=regime, home=home) as found:
        test = some.people(0, regime, seed, True).test if final else found.cell.test
        said = _measured(found, track.name, test, epsilon, part.share, seed)
    forget_answers(home)
    return {**named, **said}


def _measured(found: Acting, track: str, test: People, epsilon: int, share: float, seed: int) -> dict[str, Any]:
    try:
        row, measurement = found.measure(track, test, epsilon)
    except WorthlessProxyError as error:
        return {"failed": str(error)}
    sub, ref = test[test.subgroup], test[~test.subgroup]
    delta = found.action.learn()[epsilon]

    def ask(images: Images) -> Answers:
        return found.evaluator.ask(images, purpose="test", epoch="test")

    before, after = ask(sub.images), ask(delta.apply(sub.images, sub.classes))
    reference = ask(ref.images)
    return {
        "row": row.to_dict(),
        **credited(measurement, ("zero_query", "subgroup_before")),
        "participation": [
            {
                "rho": rho,
                **mixed(measurement.correct["subgroup_before"], measurement.correct["subgroup_after"], rho),
                **_fairness(before, after, sub.classes, reference, ref.classes, rho, seed),
            }
            # Last: as if nobody but who asked applied δ.
            for rho in (*RHOS, share)
        ],
    }


# --- who takes part ----------------------------------------------------------------------------------------


def of_part(track: Track, part: Part) -> Track:
    """Return a track of which a share of the people takes part, with so many queries about each of their images.

    Parameters
    ----------
    track : Track
    part : Part

    Returns
    -------
    Track
        Its cells' budget follows from the part, whatever is asked for. Participants are drawn with the seed; of larger
        shares they are the same and more. A person's copies all have that person's role.
    """

    def people(_queries: int, regime: Regime, seed: int, final: bool) -> Cell:
        cell = track.people(_EVERYBODY.get(track.name, 150), regime, seed, final)
        everybody = People.concatenate([cell.roster.pool, cell.roster.selection])
        rng = np.random.default_rng([seed, 11])
        members = np.unique(everybody.persons[everybody.subgroup])
        # On digits volunteers are members who have a good camera too; elsewhere they are people of their own.
        others = np.setdiff1d(np.unique(everybody.persons), members)
        pool, selection = [], []
        for persons, least in ((members, 2), (others, 0)):
            some = rng.permutation(persons)[: max(least, round(part.share * len(persons)))]
            judges = max(least // 2, round(_SELECTION * len(some)))
            selection.append(some[:judges])
            pool.append(some[judges:])
        flip = bool(track.settings[regime].get("flip", False))

        def of(persons: list[NDArray[np.str_]]) -> People:
            return altered(
                everybody[np.isin(everybody.persons, np.concatenate(persons))], part.quota, flip=flip, seed=seed
            )

        return replace(cell, roster=Roster(of(pool), of(selection), cell.roster.verification))

    return replace(track, name=f"{track.name}+share-{part.share:g}-quota-{part.quota}", people=people)


def altered(people: People, quota: int, *, flip: bool, seed: int) -> People:
    """Return every image and, behind all of them, ``quota`` − 1 altered copies of each, by the same persons.

    Parameters
    ----------
    people : People
    quota : int
    flip : bool
        Whether a mirror image shows the same thing; half of the copies are mirrored then.
    seed : int

    Notes
    -----
    *Ours*. A copy is moved by up to two pixels (edges repeated), brighter or darker by up to six levels, and has grain
    of up to two levels, so that no two are the same query.
    """
    rng = np.random.default_rng([seed, 13])
    parts = [people]
    n, height, width, _ = people.images.shape
    padded = np.pad(people.images, ((0, 0), (_MOVED, _MOVED), (_MOVED, _MOVED), (0, 0)), mode="edge")
    for _ in range(quota - 1):
        copies = np.empty_like(people.images)
        places = rng.integers(0, 2 * _MOVED + 1, (n, 2))
        for i, (down, right) in enumerate(places.tolist()):
            copies[i] = padded[i, down : down + height, right : right + width]
        if flip:
            turned = rng.random(n) < 0.5
            copies[turned] = copies[turned, :, ::-1]
        levels = copies.astype(np.int16) + rng.integers(-_BRIGHTER, _BRIGHTER + 1, (n, 1, 1, 1), np.int16)
        levels += rng.integers(-_GRAIN, _GRAIN + 1, levels.shape, np.int16)
        parts.append(replace(people, images=np.clip(levels, 0, 255).astype(np.uint8)))
    return People.concatenate(parts)


def _settings(track: Track, regime: Regime, images: int) -> dict[str, Any]:
    """Return the track's settings with about as many looks at images in training, however many these are.

    Epochs follow the images asked about; those on true classes too, unless public data decide them.
    """
    chosen = dict(track.settings[regime])
    if track.name != "digits":
        chosen["steps"] = min(_STEPS, chosen.get("steps", _STEPS))
    meant = _MEANT_FOR.get(track.name, 1000)
    names = {"epochs": 60} | ({"public_epochs": 10} if regime == "own" and chosen.get("true_classes") else {})
    for name, default in names.items():
        epochs = chosen.get(name, default)
        chosen[name] = int(np.clip(round(epochs * meant / images), min(_FEWEST_EPOCHS, epochs), _MOST_TIMES * epochs))
    return chosen


# --- who applies δ -----------------------------------------------------------------------------------------


def mixed(before: Right, after: Right, rho: float) -> dict[str, float]:
    """Return S_ρ, the subgroup's accuracy when a share ρ of it, drawn at random, applies δ: ρ·S + (1 − ρ)·Acc.

    Parameters
    ----------
    before, after : bool arrays, shape (N,)
        Whether the platform was right about each person without and with δ.
    rho : float

    Returns
    -------
    dict
        ``s_rho``; ``lower`` and ``upper``: Clopper–Pearson, two-sided 95 %, of so many right answers, rounded down and
        up to whole ones.

    Notes
    -----
    *Ours*. Whoever is drawn, and whether they apply δ, the answer is right with probability S_ρ, so that the interval
    covers both draws; at ρ = 1 it is that of S.
    """
    # A sum of floats must not round a whole number of people up to the next.
    right = round(rho * int(after.sum()) + (1 - rho) * int(before.sum()), 6)
    lower, _ = clopper_pearson_interval(math.floor(right), len(after))
    _, upper = clopper_pearson_interval(math.ceil(right), len(after))
    return {"s_rho": right / len(after), "lower": lower, "upper": upper}


def _fairness(
    before: Answers, after: Answers, own: Labels, reference: Answers, theirs: Labels, rho: float, seed: int
) -> dict[str, float | None]:
    """Return the fairness metrics of both groups where a share ρ of the subgroup applies δ, the mean over draws."""
    rng = np.random.default_rng([seed, 19])
    found: dict[str, list[float]] = {}
    groups = np.repeat(["subgroup", "reference"], [len(own), len(theirs)])
    for _ in range(_FAIRNESS_DRAWS if rho < 1 else 1):
        applies = rng.random(len(own)) < rho
        report = OneVsRestReport.from_predictions(
            np.concatenate([own, theirs]),
            np.concatenate([np.where(applies, after.labels, before.labels), reference.labels]),
            groups,
            classes=range(before.classes),
            subgroup="subgroup",
            reference="reference",
            status=np.concatenate([np.where(applies, after.status, before.status), reference.status]),
        )
        for name in ("worst_group_accuracy", "equal_opportunity_difference", "demographic_parity_ratio"):
            found.setdefault(name, []).append(report.worst[name])
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {name: value if np.isfinite(value) else None for name, value in means.items()}


_KEYS = ("subgroup_after", "gap_closed", "zero_query_control", "noise_control", "class_agnostic_control", "abuse_rate")


def _summary(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every share and quota, mean and spread over seeds of S, gap closed and what the queries bought.

    Collectives with too few selection people get no verdict: whether they stop themselves says nothing about them.
    """
    lines = []
    for share, quota in dict.fromkeys((c["share"], c["quota"]) for c in cells):
        here = [c for c in cells if (c["share"], c["quota"]) == (share, quota)]
        done = [c for c in here if "row" in c]
        line: dict[str, Any] = {"share": share, "quota": quota, "seeds": len(here), "stopped": len(here) - len(done)}
        line |= {k: here[0][k] for k in ("members", "persons", "verification_persons", "images")}
        line |= {"selection_persons": min(c["selection_persons"] for c in here), "judged": all(map(_judged, here))}
        for key in _KEYS if done else ():
            values = [c["row"][key] for c in done if c["row"][key] is not None]
            line[key] = statistics.fmean(values) if values else None
            line[f"{key}_standard_deviation"] = statistics.stdev(values) if len(values) > 1 else None
        if done and line["judged"]:
            line["verdict"] = verdict([c["bought"] for c in done], [c["best_mcnemar_p"] for c in done], len(here))
        lines.append(line)
    return lines


def _judged(cell: Mapping[str, Any]) -> bool:
    """Whether enough selection people judge the proxy of a cell."""
    return bool(cell["selection_persons"] >= FEWEST_JUDGES)

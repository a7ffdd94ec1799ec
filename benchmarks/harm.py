"""Whom does δ harm? Misuse by class and ε, what δ does to people it was not made for, and what a wrong choice costs.

Nothing is learned here: the actions are the kept cells of the quick grid (``benchmarks/transfer.py``), and only test
people are asked. Definitions are *ours*.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, CellKey, forget_answers, opened, plain
from benchmarks._tracks import TRACKS
from benchmarks.transfer import quick_key
from ttca.answers import Answers
from ttca.data.cameras import bad_camera, soft_focus
from ttca.data.hub import load_fairface
from ttca.errors import ConfigError, WorthlessProxyError
from ttca.fairness import OneVsRestReport
from ttca.images import Images
from ttca.lossy import jpeg, shrink_and_enlarge
from ttca.measurement import Measurement
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.proxies.runtime import give_back_memory
from ttca.statistics.binomial import clopper_pearson_interval
from ttca.statistics.comparisons import mcnemar_exact

__all__ = ["CAMERAS", "QUICK", "main", "measure_cell", "tolerated"]

#: The arguments of the slice that ``python -m benchmarks quick`` runs.
QUICK = ("--track", "digits", "--seeds", "1")

#: Subgroups other than the one δ was made for, where a camera decides who is in it: sharp images through each.
CAMERAS: dict[str, Callable[[Images], Images]] = {
    "sensor noise, 12 levels": lambda images: bad_camera(images, blur=0, contrast=1, veil=0, noise=12),
    "low light, 40 %": lambda images: bad_camera(images, blur=0, contrast=0.4, veil=0, noise=0),
    "contrast 50 %": lambda images: bad_camera(images, blur=0, contrast=0.5, veil=64, noise=0),
    "defocus, 1.6 px": lambda images: soft_focus(images, 1.6),
}
#: People photographed by each of them.
PHOTOGRAPHED = 1000
#: δ of every class on everybody is asked about up to here; beyond, one wrong class per person stands for all.
_MATRIX_CLASSES = 20

Flags = NDArray[np.bool_]
Labels = NDArray[np.int64]
#: δ, the right answers, and what the platform would say: images → answers.
Ask = Callable[[Images], Answers]


def main(argv: list[str]) -> dict[str, Any]:
    """Measure what the kept actions of one track do to members, to others and in the wrong hands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks harm", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="digits")
    parser.add_argument(
        "--queries", type=int, help="a budget of the track's quick grid; default 420 on digits, else 500"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        raise ConfigError(f"Expected 1 seed or more, got {options.seeds}.")
    default = 420 if options.track == "digits" else 500
    queries = default if options.queries is None else options.queries
    began = time.perf_counter()
    keys = [quick_key(options.track, queries, seed) for seed in range(options.seeds)]
    cells: list[dict[str, Any]] = []
    with keys[0].of.open_platform(keys[0].answers) as platform:
        for key in keys:
            with opened(key, platform) as found:
                test = key.of.people(queries, key.regime, key.seed, True).test if options.final else found.cell.test
                cells += measure_cell(key, found, test, final=options.final)
            forget_answers(key.home())
        classes = list(platform.info.classes)
    return {
        "file": f"harm-{options.track}" + ("-final" if options.final else ""),
        "track": options.track,
        "people": "final" if options.final else "dev-test",
        "regime": keys[0].regime,
        "answers": keys[0].answers,
        "queries": queries,
        "settings": plain(keys[0].chosen),
        "classes": classes,
        "cells": cells,
        "seconds": time.perf_counter() - began,
    }


def measure_cell(key: CellKey, found: Acting, test: People, *, final: bool = False) -> list[dict[str, Any]]:
    """Return what one action does, for every ε of its family; one line that says why, where it stopped itself.

    Parameters
    ----------
    key : CellKey
    found : Acting
    test : People
        Of both groups.
    final : bool
        Whether ``test`` are final people, whose rows of FairFace are others.

    Returns
    -------
    list of dict
        With ``row`` (the honest row, all controls), ``abuse``, ``by_class``, ``reference``, ``others``, ``choice`` and
        ``fairness``; every share with its n and its two-sided 95 % Clopper–Pearson interval.
    """
    try:
        found.action.verify()
    except WorthlessProxyError as error:
        return [{"seed": key.seed, "failed": str(error)}]
    return [
        {"seed": key.seed, "epsilon": epsilon, **_measured(key, found, test, epsilon, final)}
        for epsilon in sorted(key.epsilons)
    ]


def _measured(key: CellKey, found: Acting, test: People, epsilon: int, final: bool) -> dict[str, Any]:
    row, measurement = found.measure(key.track, test, epsilon)
    action = found.action
    delta, opponents = action.learn()[epsilon], action.opponents(epsilon)
    proxy, _ = action.distil()
    # What learning kept would lie about beside copies of photographs.
    give_back_memory()

    def ask(images: Images) -> Answers:
        return found.evaluator.ask(images, purpose="test", epoch="test")

    sub, ref = test[test.subgroup], test[~test.subgroup]
    count = len(delta.classes)
    # The wrong class of the row's abuse rate, person by person.
    wrong = (sub.classes + np.random.default_rng(key.seed).integers(1, count, len(sub))) % count
    theirs = (ref.classes + np.random.default_rng([key.seed, 1]).integers(1, count, len(ref))) % count
    shares = np.asarray(proxy.predict(action.learner.seen(sub.images)), np.float64)
    guess = shares.argmax(1)
    shares[np.arange(len(sub)), sub.classes] = -1
    # The mistake that is easiest to make: the class that looks most likely to the proxy, besides the true one.
    confusable = shares.argmax(1)
    before, misused = ask(sub.images), delta.apply(sub.images, wrong)
    abused, after = ask(misused), ask(delta.apply(sub.images, sub.classes))
    easily = ask(delta.apply(sub.images, confusable))
    ref_before, ref_after = ask(ref.images), ask(delta.apply(ref.images, ref.classes))
    ref_wrong = ask(delta.apply(ref.images, theirs))
    right = {
        "without δ": _share(before, sub.classes),
        "true class": _share(after, sub.classes),
        "a wrong class at random": _share(abused, sub.classes),
        "the wrong class most like it": _share(easily, sub.classes),
        "the proxy's guess": _told_right(measurement, "proxy_class"),
    }
    mistaken = guess != sub.classes
    return {
        "row": row.to_dict(),
        "zero_query_mcnemar_p": measurement.paired_p("subgroup_after", "zero_query"),
        "abuse": {
            "without δ": _share(before, wrong),
            "noise": _share(ask(opponents.noise.apply(sub.images, wrong)), wrong),
            "zero-query": _share(ask(opponents.zero_query.apply(sub.images, wrong)), wrong),
            "action": _share(abused, wrong),
            "action, then JPEG 75": _share(ask(jpeg(misused)), wrong),
            "action, then resized": _share(ask(shrink_and_enlarge(misused)), wrong),
            "action, most like class": _share(easily, confusable),
            "action, by the reference": _share(ref_wrong, theirs),
        },
        "by_class": _by_class(ask, delta, sub, before, key.seed, wrong, abused),
        "reference": {
            "before": _share(ref_before, ref.classes),
            "after": _share(ref_after, ref.classes),
            "mcnemar_p": _paired(ref_before, ref_after, ref.classes),
            "right_with_a_wrong_class": _share(ref_wrong, ref.classes),
        },
        "others": _others(key.track, ask, delta, ref, ref_before, ref_after, final),
        "choice": {
            "right": right,
            "mcnemar_p_wrong_at_random": _paired(before, abused, sub.classes),
            "tolerated_at_random": tolerated(
                right["without δ"]["rate"], right["true class"]["rate"], right["a wrong class at random"]["rate"]
            ),
            "tolerated_most_like": tolerated(
                right["without δ"]["rate"], right["true class"]["rate"], right["the wrong class most like it"]["rate"]
            ),
            "proxy_mistaken": {
                "n": int(mistaken.sum()),
                "before": _share(before[mistaken], sub.classes[mistaken]),
                "after": _share_of(
                    measurement.correct["proxy_class"][mistaken], measurement.resolved["proxy_class"][mistaken]
                ),
            },
        },
        "fairness": _fairness(key.track, sub, ref, (before, after), (ref_before, ref_after), final),
    }


def tolerated(before: float | None, right: float | None, wrong: float | None) -> float | None:
    """Return the share of members who may choose wrongly before all of them together fare no better than without δ.

    Parameters
    ----------
    before, right, wrong : float or None
        Shares answered rightly without δ, with δ of the true class, and with δ of a wrong class.

    Returns
    -------
    float or None
        (right − before) / (right − wrong), in 0..1; None where δ of the true class helps nobody.

    Notes
    -----
    *Ours*: where a share m chooses wrongly, (1 − m)·right + m·wrong are answered rightly.
    """
    if before is None or right is None or wrong is None or right <= before:
        return None
    return min((right - before) / (right - wrong), 1.0) if right > wrong else 1.0


# --- shares ------------------------------------------------------------------------------------------------


def _share_of(right: Flags, resolved: Flags) -> dict[str, Any]:
    """Return n, the share right and its interval, among the resolved."""
    n, k = int(resolved.sum()), int(right[resolved].sum())
    if not n:
        return {"n": 0, "rate": None, "lower": None, "upper": None}
    low, high = clopper_pearson_interval(k, n)
    return {"n": n, "rate": k / n, "lower": float(low), "upper": float(high)}


def _share(said: Answers, target: Labels) -> dict[str, Any]:
    return _share_of(said.labels == target, said.resolved)


def _told_right(measurement: Measurement, condition: str) -> dict[str, Any]:
    return _share_of(measurement.correct[condition], measurement.resolved[condition])


def _paired(first: Answers, second: Answers, target: Labels) -> float:
    both = first.resolved & second.resolved
    return float(mcnemar_exact((first.labels == target)[both], (second.labels == target)[both]))


def _by_class(
    ask: Ask, delta: PerturbationSet, sub: People, before: Answers, seed: int, wrong: Labels, abused: Answers
) -> dict[str, Any]:
    """Return, for every true class (row) and class of δ (column), how often the platform says the latter.

    Where classes are many, each column is asked of those alone who drew it, and rows are left out.
    """
    count = len(delta.classes)
    if count > _MATRIX_CLASSES:
        drawn = [_share(abused[wrong == c], wrong[wrong == c]) for c in range(count)]
        return {"says_its_class": None, "without": None, "people": None, "abuse_by_delta": [d["rate"] for d in drawn]}
    of = [sub.classes == c for c in range(count)]

    def says(said: Answers, c: int) -> list[float | None]:
        return [_share(said[rows], np.full(int(rows.sum()), c, np.int64))["rate"] for rows in of]

    columns, abuse = [], []
    for c in range(count):
        said = ask(delta.apply(sub.images, c))
        columns.append(says(said, c))
        others = ~of[c]
        abuse.append(_share(said[others], np.full(int(others.sum()), c, np.int64))["rate"])
    without = [says(before, c) for c in range(count)]
    return {
        "says_its_class": [list(line) for line in zip(*columns, strict=True)],
        "without": [list(line) for line in zip(*without, strict=True)],
        "people": [int(rows.sum()) for rows in of],
        "abuse_by_delta": abuse,
    }


# --- others ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _fairface_groups(start: int, stop: int) -> dict[str, tuple[NDArray[np.int64], tuple[str, ...]]]:
    """Return race and age of validation rows, with the names of their values."""
    loaded = load_fairface("validation", rows=slice(start, stop))
    return {name: (loaded.columns[name], loaded.class_names.get(name, ())) for name in ("race", "age")}


def _columns(track: str, people: People, final: bool) -> dict[str, tuple[NDArray[np.int64], tuple[str, ...]]]:
    """Return the other columns of people who are rows of FairFace; of others nothing."""
    if not track.startswith("fairface"):
        return {}
    numbers = np.array([int(person.rsplit("-", 1)[1]) for person in people.persons.tolist()])
    first = 2500 * int(final)
    table = _fairface_groups(first, first + 2500)
    return {name: (values[numbers - first], names) for name, (values, names) in table.items()}


def _others(
    track: str, ask: Ask, delta: PerturbationSet, ref: People, before: Answers, after: Answers, final: bool
) -> list[dict[str, Any]]:
    """Return how other subgroups are answered without δ and with the δ of their class, which was made for another."""
    found = []
    columns = _columns(track, ref, final)
    for name, (values, names) in columns.items():
        for value in np.unique(values).tolist():
            rows = values == value
            told = names[value] if value < len(names) else str(value)
            found.append(_group(f"{name} {told}", before[rows], after[rows], ref.classes[rows]))
    if not columns:
        people = ref[: min(PHOTOGRAPHED, len(ref))]
        for name, camera in CAMERAS.items():
            seen = camera(people.images)
            found.append(_group(name, ask(seen), ask(delta.apply(seen, people.classes)), people.classes))
    return found


def _group(name: str, before: Answers, after: Answers, classes: Labels) -> dict[str, Any]:
    return {
        "group": name,
        "before": _share(before, classes),
        "after": _share(after, classes),
        "mcnemar_p": _paired(before, after, classes),
    }


def _fairness(
    track: str,
    sub: People,
    ref: People,
    sub_said: tuple[Answers, Answers],
    ref_said: tuple[Answers, Answers],
    final: bool,
) -> dict[str, Any]:
    """Return the fairness metrics of all test people where nobody, the subgroup, or everybody applies δ.

    What the platform says to somebody who does not apply δ does not depend on who does: it answers one image at a
    time. Only comparisons between groups change for them.
    """
    people = People.concatenate([sub, ref])
    two = np.repeat(["subgroup", "reference"], [len(sub), len(ref)])
    columns = _columns(track, people, final)
    races = columns["race"][0].astype(str) if columns else None
    count = sub_said[0].classes
    found: dict[str, Any] = {}
    for name, (own, theirs) in {"nobody": (0, 0), "members": (1, 0), "everybody": (1, 1)}.items():
        said = Answers.concatenate([sub_said[own], ref_said[theirs]], classes=count)
        report = OneVsRestReport.from_predictions(
            people.classes, said.labels, two, classes=range(count), subgroup="subgroup", reference="reference",
            status=said.status,
        )  # fmt: skip
        rates = {group: _share(said[two == group], people.classes[two == group]) for group in ("subgroup", "reference")}
        found[name] = {
            "accuracy_gap": rates["reference"]["rate"] - rates["subgroup"]["rate"],
            "worst_group_accuracy": _number(report.worst["worst_group_accuracy"]),
            "equal_opportunity_gap": _number(report.worst["equal_opportunity_difference"]),
            "demographic_parity_ratio": _number(report.worst["demographic_parity_ratio"]),
        }
        if races is not None:
            by_race = [_share(said[races == r], people.classes[races == r])["rate"] for r in np.unique(races)]
            found[name] |= {"worst_race": min(by_race), "largest_gap_between_races": max(by_race) - min(by_race)}
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

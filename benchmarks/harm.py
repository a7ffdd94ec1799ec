"""Whom does δ harm? Misuse by class and ε, what δ does to people it was not made for, and what a wrong choice costs.

Nothing is learned here: the actions are the kept cells of the quick grid (``benchmarks/transfer.py``), and only test
people are asked. Definitions are *ours*.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, CellKey, forget_answers, opened, plain
from benchmarks._document import commands, filled, results, table, told
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CAMERAS", "QUICK", "figure", "main", "measure_cell", "tolerated"]

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
_PHOTOGRAPHED = 1000
#: δ of every class on everybody is asked about up to here; beyond, one wrong class per person stands for all.
_MATRIX_CLASSES = 20
_SCENARIOS = {"nobody": "nobody applies δ", "members": "the subgroup does", "everybody": "everybody does"}

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
        people = ref[: min(_PHOTOGRAPHED, len(ref))]
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


# --- picture -----------------------------------------------------------------------------------------------

_LINES: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "true class, action": ("#0072b2", lambda c: c["row"]["subgroup_after"]),
    "true class, zero-query": ("#56b4e9", lambda c: c["row"]["zero_query_control"]),
    "true class, noise": ("#999999", lambda c: c["row"]["noise_control"]),
    "wrong class said, action": ("#d55e00", lambda c: c["abuse"]["action"]["rate"]),
    "wrong class said, zero-query": ("#e69f00", lambda c: c["abuse"]["zero-query"]["rate"]),
    "wrong class said, noise": ("#000000", lambda c: c["abuse"]["noise"]["rate"]),
}


def figure(record: Mapping[str, Any]) -> Figure:
    """Return a picture of one track: use and misuse by ε, the matrix of classes, and people δ was not made for."""
    from matplotlib.figure import Figure

    cells = _done(record)
    drawn = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = drawn.subplots(1, 3, width_ratios=(1.2, 1, 1.2))
    levels = sorted({c["epsilon"] for c in cells})
    for name, (colour, value) in _LINES.items():
        by_level = [[value(c) for c in cells if c["epsilon"] == e] for e in levels]
        mean = [statistics.fmean(v) for v in by_level]
        left.plot(levels, mean, "o-", color=colour, label=name)
        left.fill_between(levels, [min(v) for v in by_level], [max(v) for v in by_level], color=colour, alpha=0.15)
    left.set(xlabel="ε (levels of 255)", ylabel="share of subgroup test people", ylim=(0, 1), xticks=levels)
    left.set_title(f"Use and misuse, {record['track']}, Q = {record['queries']}", size=10)
    left.legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, -0.5))
    top = [c for c in cells if c["epsilon"] == levels[-1]]
    matrices = [c["by_class"]["says_its_class"] for c in top if c["by_class"]["says_its_class"] is not None]
    if matrices:
        mean_matrix = np.mean(np.array(matrices, np.float64), axis=0)
        shown = middle.imshow(mean_matrix, cmap="cividis", vmin=0, vmax=1)
        drawn.colorbar(shown, ax=middle, shrink=0.8, label="platform says the class of δ")
        names = record["classes"]
        middle.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
        middle.set(xlabel="class of δ", ylabel="true class")
    else:
        middle.set_axis_off()
    middle.set_title(f"ε = {levels[-1]}; diagonal: use, elsewhere: misuse", size=10)
    groups = [("reference", [c["reference"] for c in top])]
    groups += [(g["group"], [c["others"][i] for c in top]) for i, g in enumerate(top[0]["others"])]
    for place, (_, found) in enumerate(reversed(groups)):
        before, after = (statistics.fmean(f[k]["rate"] for f in found) for k in ("before", "after"))
        right.plot([before, after], [place, place], "-", color="#999999")
        right.plot(before, place, "o", color="#999999", label="without δ" if place == 0 else None)
        right.plot(after, place, "o", color="#0072b2", label="with δ of their class" if place == 0 else None)
    right.set(yticks=range(len(groups)), yticklabels=[name for name, _ in reversed(groups)])
    right.set(xlabel="share answered rightly", title=f"People δ was not made for, ε = {levels[-1]}")
    right.title.set_size(10)
    right.legend(frameon=False, fontsize=7)
    return drawn


def _done(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    done = [c for c in record["cells"] if "failed" not in c]
    if not done:
        raise ConfigError(f"Expected an action of {record['track']} that did not stop itself, got none.")
    return done


# --- the document ------------------------------------------------------------------------------------------

_HOME = Path(__file__).resolve().parent
_DOCUMENT = _HOME.parent / "docs" / "harm.md"


def tables(found: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return what stands between the document's marks, made from result files and their names."""
    abuse, classes, choice, others, fairness = [], [], [], [], []
    # Some tracks alone have races.
    has = {k for _, record in found for c in record["cells"] if "failed" not in c for k in c["fairness"]["nobody"]}
    metrics = [k for k in _METRICS if k in has]
    for file, record in found:
        done = [c for c in record["cells"] if "failed" not in c]
        for epsilon in sorted({c["epsilon"] for c in done}):
            cells = [c for c in done if c["epsilon"] == epsilon]
            who = (f"{record['track']}, {record['people']}", record["queries"], epsilon)

            def row(*keys: str, cells: list[dict[str, Any]] = cells) -> list[str]:
                return [told(c["row"][key] for c in cells) for key in keys]

            def share(*path: str, cells: list[dict[str, Any]] = cells) -> str:
                return told(_at(c, (*path, "rate")) for c in cells)

            abuse.append(
                (
                    *who, *row("subgroup_before", "subgroup_after", "zero_query_control"),
                    *row("noise_control", "class_agnostic_control"),
                    *(share("abuse", k) for k in cells[0]["abuse"]), len(cells), f"`{file}`",
                )
            )  # fmt: skip
            choice.append(
                (
                    *who, *(share("choice", "right", k) for k in cells[0]["choice"]["right"]),
                    *(told((_at(c, ("choice", k)) for c in cells), 2) for k in ("tolerated_at_random",
                    "tolerated_most_like")), len(cells),
                )
            )  # fmt: skip
            if epsilon == max(c["epsilon"] for c in done):
                classes += _class_lines(record, who, cells)
                others += [_other_line(who, "reference", [c["reference"] for c in cells])]
                for i, group in enumerate(cells[0]["others"]):
                    others.append(_other_line(who, group["group"], [c["others"][i] for c in cells]))
            fairness += [
                (*who, said, *(told(c["fairness"][name].get(k) for c in cells) for k in metrics))
                for name, said in _SCENARIOS.items()
            ]
    head = ("track, people", "Q", "ε")
    return {
        "harm-files": commands(found) + _not_measured([record["track"] for _, record in found]),
        "harm-who": _whom(list(dict.fromkeys(record["track"] for _, record in found))),
        "harm-abuse": table(
            (*head, "before", "S", "S zero-query", "S noise", "S class-agnostic",
             *(f"misuse: {name}" for name in (
                 "without δ", "noise", "zero-query", "δ", "δ, JPEG 75", "δ, resized", "δ, most like class",
                 "δ, by the reference")), "seeds", "file"),
            abuse,
        ),
        "harm-classes": table((*head, "class of δ", "S", "misuse", "platform says it without δ", "most misused on"),
                              classes),
        "harm-choice": table(
            (*head, "without δ", "true class", "wrong class at random", "wrong class most like it", "proxy's guess",
             "may err at random", "may err likewise", "seeds"),
            choice,
        ),
        "harm-others": table((*head, "who", "n", "without δ", "with δ of their class", "p, each seed"), others),
        "harm-fairness": table((*head, "who applies δ", *(_METRICS[k] for k in metrics)), fairness),
    }  # fmt: skip


def _not_measured(tracks: Sequence[str]) -> str:
    missing = ", ".join(f"`{name}`" for name in TRACKS if name not in tracks)
    return f"\n\nNot measured yet: {missing}." if missing else ""


def _whom(tracks: Sequence[str]) -> str:
    """Return who the other subgroups are on the tracks that were measured."""
    faces = [track for track in tracks if track.startswith("fairface")]
    lines = []
    if faces:
        lines.append(f"- {', '.join(faces)}: all races other than the subgroup's, and all ages within them.")
    if len(faces) < len(tracks):
        there = ", ".join(track for track in tracks if track not in faces)
        lines.append(
            f"- {there}: the sharp test images ({_PHOTOGRAPHED} at most) through {len(CAMERAS)} other cameras."
        )
    return "\n".join(lines)


_METRICS = {
    "accuracy_gap": "gap",
    "worst_group_accuracy": "worst group",
    "equal_opportunity_gap": "equal-opportunity gap",
    "demographic_parity_ratio": "demographic-parity ratio",
    "worst_race": "worst race",
    "largest_gap_between_races": "largest gap between races",
}


def _class_lines(
    record: Mapping[str, Any], who: tuple[object, ...], cells: Sequence[dict[str, Any]]
) -> list[tuple[object, ...]]:
    """Return one line per class of δ: its use, its misuse, and the true class it moves most."""
    if cells[0]["by_class"]["says_its_class"] is None:
        return []
    # None, where nobody has the class, becomes NaN.
    says, without = (np.array([c["by_class"][k] for c in cells], np.float64) for k in ("says_its_class", "without"))
    lines: list[tuple[object, ...]] = []
    for c, name in enumerate(record["classes"]):
        off = np.delete(np.arange(len(record["classes"])), c)
        mean = says[:, off, c].mean(0)
        worst = int(np.nanargmax(mean)) if not np.isnan(mean).all() else 0
        misuse = told(cell["by_class"]["abuse_by_delta"][c] for cell in cells)
        most = f"{record['classes'][off[worst]]}, {mean[worst]:.3f}"
        lines.append((*who, name, told(says[:, c, c].tolist()), misuse, told(without[:, off, c].mean(1)), most))
    return lines


def _other_line(who: tuple[object, ...], name: str, found: Sequence[Mapping[str, Any]]) -> tuple[object, ...]:
    rates = [told(f[k]["rate"] for f in found) for k in ("before", "after")]
    return (*who, name, found[0]["before"]["n"], *rates, ", ".join(f"{f['mcnemar_p']:.2g}" for f in found))


def _at(cell: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = cell
    for step in path:
        found = found[step]
    return found


if __name__ == "__main__":
    # ``python -m benchmarks.harm``, with a dot: the document's tables from the result files, nothing measured.
    _DOCUMENT.write_text(
        filled(_DOCUMENT.read_text(encoding="utf-8"), tables(results("harm-*.json"))), encoding="utf-8"
    )

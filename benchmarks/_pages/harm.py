"""The page of whom δ harms."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._document import commands, table, told
from benchmarks._kept_rows import Paired, discordant
from benchmarks._tracks import TRACKS
from benchmarks.harm import CAMERAS, PHOTOGRAPHED
from ttca.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "tables"]

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


# --- the tables --------------------------------------------------------------------------------------------


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
            abuse
        ),
        "harm-classes": table((*head, "class of δ", "S", "misuse", "platform says it without δ", "most misused on"),
                              classes),
        "harm-choice": table(
            (*head, "without δ", "true class", "wrong class at random", "wrong class most like it", "proxy's guess",
             "may err at random", "may err likewise", "seeds"),
            choice
        ),
        "harm-others": table((*head, "who", "n", "without δ", "with δ of their class", "p (b/c), each seed"), others),
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
        lines.append(f"- {there}: the sharp test images ({PHOTOGRAPHED} at most) through {len(CAMERAS)} other cameras.")
    return "\n".join(lines)


_SCENARIOS = {"nobody": "nobody applies δ", "members": "the subgroup does", "everybody": "everybody does"}
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
    return (*who, name, found[0]["before"]["n"], *rates, ", ".join(map(_tested, found)))


def _tested(found: Mapping[str, Any]) -> str:
    """Return the p of rates with δ against those without, with the people right only with it, and only without."""
    n = found["before"]["n"]
    before, after = (round(found[k]["rate"] * n) for k in ("before", "after"))
    p = found["mcnemar_p"]
    return Paired(p, n, discordant(p, after - before, n, most=(n - before, n - after))).told


def _at(cell: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = cell
    for step in path:
        found = found[step]
    return found

"""The page of a minority that relabels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._document import MISSING, grid, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "UNCOUNTED",
    "beside_the_poster",
    "draw_alphas",
    "draw_flips",
    "draw_points",
    "figures",
    "poster",
    "random_wins",
    "study",
    "tables",
]

_NAMES = {"compas": "COMPAS", "acs_income": "ACS-Income", "adult": "Adult", "waterbirds": "Waterbirds"}
UNCOUNTED = "In how many seeds Random beat RB-prob is not measured yet."

# --- pictures ----------------------------------------------------------------------------------------------

_COLOURS = {
    "RB-prob": "#1b6ca8",
    "RB-label": "#5aa9a5",
    "RB-dist": "#8d6cab",
    "Random": "#999999",
    "threshold_optimizer": "#d1495b",
    "exponentiated_gradient": "#edae49",
    "calibrated_equalised_odds": "#a05a2c",
    "fare": "#3f6634",
}


def figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """Return EqOd against α, against flips and against the error, one picture each per data set, by their names.

    Parameters
    ----------
    record : dict
        A result file's. Bands are ± one standard deviation over seeds.
    """
    from matplotlib.figure import Figure

    found = {}
    for name, x, draw in (
        ("alpha", "α, share of the minority", partial(draw_alphas, rule=record["rule"])),
        ("flips", "labels flipped", draw_flips),
        ("pareto", "error on test people", draw_points),
    ):
        for data_set, row in record["data_sets"].items():
            figure = Figure(figsize=(5.5, 4), layout="constrained")
            axes = figure.add_subplot()
            draw(axes, row)
            axes.set(xlabel=x, ylabel="EqOd on test people", title=data_set, ylim=(0, None))
            axes.legend(frameon=False, fontsize=7)
            found[f"minority-{data_set}-{name}"] = figure
    return found


def _line(axes: Axes, x: Sequence[float], rows: Sequence[Mapping[str, Any]], colour: str, label: str) -> None:
    middle = np.array([row["eqod"] for row in rows])
    spread = np.array([row["standard_deviation"]["eqod"] or 0.0 for row in rows])
    axes.plot(x, middle, "o-", color=colour, label=label)
    axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.15, lw=0)


def draw_alphas(axes: Axes, row: Mapping[str, Any], *, rule: str) -> None:
    """Draw EqOd against the share that takes part, a line for each way to choose who flips."""
    for method, by_alpha in row["methods"].items():
        rules = [row["base"], *(entry["rules"][rule] for entry in by_alpha.values())]
        _line(axes, [0.0, *(float(alpha) for alpha in by_alpha)], rules, _COLOURS[method], method)


def draw_flips(axes: Axes, row: Mapping[str, Any]) -> None:
    """Draw EqOd against flips at one α, the largest that every method was measured at."""
    alpha = max(set.intersection(*(set(by_alpha) for by_alpha in row["methods"].values())), key=float)
    for method in row["methods"]:
        points = [p for p in row["points"] if p["method"] == method and p["alpha"] == float(alpha)]
        _line(axes, [p["flips"] for p in points], points, _COLOURS[method], f"{method}, α {alpha}")


def draw_points(axes: Axes, row: Mapping[str, Any]) -> None:
    """Draw EqOd against the error, with the front that nothing else beats in both."""
    for method, colour in _COLOURS.items():
        points = [p for p in row["points"] if p["method"] == method]
        axes.plot([p["error"] for p in points], [p["eqod"] for p in points], ".", color=colour, label=method)
    front = row["pareto_front"]
    axes.plot([p["error"] for p in front], [p["eqod"] for p in front], "-", color="black", lw=0.8, label="front")
    axes.plot(row["base_error"], row["base_eqod"], "*", color="black", markersize=10, label="firm alone")


# --- the tables --------------------------------------------------------------------------------------------

_WHO = ("data set", "who acts", "α", "flips", "error", "EqOd", "EqOd falls by", "error rises by",
        "minority / majority error")  # fmt: skip
_CHANGED = ("data set", "one thing changed, α = 0.3", "error before → after", "EqOd before → after", "EqOd falls by")
_POSTERS = ("data set", "poster: base error, EqOd", "base, here", "poster: EqOd at α .1 / .2 / .3", "EqOd, here")
_METHODS = ("data set", "method", "poster: error, EqOd", "here")


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names."""
    records = [record for _, record in found]
    return {**study("minority", found), "poster": "\n\n".join(map(poster, records)) or MISSING}


def poster(record: Mapping[str, Any]) -> str:
    """Return the poster's numbers beside its own rule on our data, and how often Random beat RB-prob."""
    return "\n".join([*beside_the_poster(record), "", random_wins(record)])


def beside_the_poster(record: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: per α the poster's EqOd, the best on test people, and that of our rule."""
    lines = [
        (
            _NAMES.get(key, key),
            alpha,
            f"{there:.3f}",
            f"{_best(row, alpha):.3f}",
            f"{row['best_eqod_by_alpha'][alpha]:.3f}",
        )
        for key, row in record["data_sets"].items()
        for alpha, there in (row["poster"] or {"best_eqod_by_alpha": {}})["best_eqod_by_alpha"].items()
        if alpha in row["methods"]["RB-prob"]
    ]
    return grid(("data set", "α", "poster", "the poster's rule, here", "our rule, here"), lines)


def _best(row: Mapping[str, Any], alpha: str) -> float:
    return float(row["methods"]["RB-prob"][alpha]["rules"]["on_test_rows"]["eqod"])


def random_wins(record: Mapping[str, Any]) -> str:
    """Return the sentences that say in how many seeds Random left the smaller EqOd on test people."""
    rows = record["data_sets"]
    if any("random_beats_rb_prob" not in row for row in rows.values()):
        return UNCOUNTED
    said = []
    counted = set.intersection(*(set(row["random_beats_rb_prob"]) for row in rows.values()))
    for alpha in sorted(counted & {"0.3", "0.1"}, reverse=True):
        found = [(_NAMES.get(key, key), row["random_beats_rb_prob"][alpha]) for key, row in rows.items()]
        wins = [
            f"in {won['smaller']} of {won['seeds']} seeds on {name}"
            + (f" ({won['equal']} alike)" if won["equal"] else "")
            for name, won in found
        ]
        together = f"{', '.join(wins[:-1])} and {wins[-1]}" if len(wins) > 1 else wins[0]
        said.append(f"At α = {alpha} Random beat RB-prob {together}.")
    return "\n".join(said)


def study(page: str, found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return the tables of result files by their marks on this page; mean ± standard deviation over seeds."""
    records = [record for _, record in found]
    every = [line for record in records for line in _acting(record)]
    # Nobody and the firm have no α; the collective has that of the goal.
    few = [line for line in every if line[2] in ("–", "0.3")]
    seeds = "\n".join(
        f"Seeds {record['seeds'][0]} to {record['seeds'][-1]}; `benchmarks/results/{file}` holds the rest."
        for file, record in found
    )
    return {
        page: table(_WHO, few),
        f"{page}-all": table(_WHO, every),
        f"{page}-changed": table(_CHANGED, [line for record in records for line in _changed(record)]),
        f"{page}-posters": table(_POSTERS, [line for record in records for line in _posters(record)]),
        f"{page}-methods": table(_METHODS, [line for record in records for line in _methods(record)]),
        f"{page}-seeds": seeds or MISSING,
    }


def _pair(row: Mapping[str, Any], key: str) -> str:
    spread = row["standard_deviation"][key]
    return f"{row[key]:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _acting(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a line for nobody, for every way to act and share that takes part, and for each of the firm's methods."""
    for name, row in record["data_sets"].items():
        base = row["base"]
        yield (name, "nobody", "–", "0", _pair(base, "error"), _pair(base, "eqod"), "–", "–", _groups(base))
        for method, by_alpha in row["methods"].items():
            for alpha, entry in by_alpha.items():
                found = entry["rules"][record["rule"]]
                fall, rise = f"{found['eqod_fall']:.0%}", f"{found['error_rise']:+.4f}"
                numbers = (f"{found['flips']:.0f}", _pair(found, "error"), _pair(found, "eqod"), fall, rise)
                yield (name, method, alpha, *numbers, _groups(found))
        for method, found in row["firm_side"].items():
            fall = f"{1 - found['eqod'] / base['eqod']:.0%}"
            rise = f"{found['error'] - base['error']:+.4f}"
            numbers = ("–", _pair(found, "error"), _pair(found, "eqod"), fall, rise)
            yield (name, f"firm: {method}", "–", *numbers, _groups(found))


def _groups(row: Mapping[str, Any]) -> str:
    return f"{row['minority_error']:.3f} / {row['majority_error']:.3f}"


def _changed(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, row in record["data_sets"].items():
        for changed, found in row["variants"].items():
            error = f"{found['base']['error']:.3f} → {found['error']:.3f}"
            eqod = f"{found['base']['eqod']:.3f} → {found['eqod']:.3f}"
            yield (name, changed, error, eqod, f"{found['eqod_fall']:.0%}")


def _posters(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, row in record["data_sets"].items():
        told = row["poster"] or {"base": {"error": "–", "eqod": "–"}, "best_eqod_by_alpha": {}}
        there = " / ".join(str(told["best_eqod_by_alpha"].get(alpha, "–")) for alpha in ("0.1", "0.2", "0.3"))
        best = row["best_eqod_by_alpha"]
        ours = " / ".join(f"{best[alpha]:.3f}" if alpha in best else "–" for alpha in ("0.1", "0.2", "0.3"))
        base = f"{told['base']['error']}, {told['base']['eqod']}"
        yield (name, base, f"{row['base_error']:.3f}, {row['base_eqod']:.3f}", there, ours)


def _methods(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, row in record["data_sets"].items():
        for method, there in (row["poster"] or {"pareto": {}})["pareto"].items():
            # The poster's collective is its best over α; ours stands at the α of the goal.
            here = row["methods"]["RB-prob"]["0.3"]["rules"][record["rule"]] if method == "collective" else None
            found = here or row["firm_side"][method]
            both = (f"{there['error']:.3f}, {there['eqod']:.3f}", f"{found['error']:.3f}, {found['eqod']:.3f}")
            yield (name, method, *both)

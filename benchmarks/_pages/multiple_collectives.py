"""The part of the page on training time that says what several collectives do to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._document import table
from benchmarks.multiple_collectives import LOOPS, SIGNALS, SIZES, TIERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "tables"]

_AXES = {
    "size_entropy": "size entropy (bits)",
    "label_entropy": "label entropy (bits)",
    "overlap": "mean signal overlap",
}
_SERIES = {
    "success": ("#222222", "o"),
    "worst": ("#c44e52", "v"),
    "aggregator": ("#4c72b0", "s"),
    "full": ("#dd8452", "x"),
}


def figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """Return a picture of an average member's success and the three bounds of every setting of the city.

    Notes
    -----
    *Ours*. One panel per sizes and signals, label entropy from left to right: nothing is averaged over settings.
    """
    from matplotlib.figure import Figure

    rows = record["city"]
    figure = Figure(figsize=(9, 8), layout="constrained")
    panels = figure.subplots(len(SIZES), len(SIGNALS), sharex=True, sharey=True)
    for line, sizes in enumerate(SIZES):
        for column, signals in enumerate(SIGNALS):
            panel = panels[line, column]
            here = [row for row in rows if row["sizes"] == sizes and row["signals"] == signals]
            here.sort(key=lambda row: row["label_entropy"])
            for series, (colour, marker) in _SERIES.items():
                heights = [
                    row["weighted_success"] if series == "success" else row["global"][series]["weighted"]
                    for row in here
                ]
                name = series if series == "success" else f"bound, {series}"
                panel.plot([row["label_entropy"] for row in here], heights, marker, ls="-", color=colour, label=name)
            panel.set_title(
                f"{sizes} ({here[0]['size_entropy']:.2f} bits), {signals} ({here[0]['overlap']:.2f})", size=9
            )
            panel.set_ylim(-0.05, 1.05)
    figure.supxlabel("label entropy (bits)")
    figure.supylabel("success of an average member; panels: sizes (entropy), signals (overlap)")
    panels[0, 0].legend(frameon=False, fontsize=8)
    return {"multiple-collectives-city": figure}


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from the result file and its name."""
    made: dict[str, tuple[Sequence[str], Callable[[Mapping[str, Any]], list[Line]]]] = {
        "references": (_REFERENCES, _reference_lines),
        "checks": (("what was checked", "found"), _checks_lines),
        "bounds": (_BOUNDS, _bounds_lines),
        "city": (("sizes", "labels", "signals", *_AXES_SHORT, "success", *TIERS), _city_lines),
        "trained": (_TRAINED, _trained_lines),
        "epsilon": (("ε", "bounds (tv)", "bounds (contamination)"), _epsilon_lines),
        "timing": (("way", "seconds", "times as long", "same numbers"), _timing_lines),
    }
    return {
        name: table(head, (line for _, kept in found for line in lines(kept))) for name, (head, lines) in made.items()
    }


Line = tuple[object, ...]
_REFERENCES = (
    "run",
    "tier",
    "success stated",
    "success came",
    "within .05",
    "bound stated",
    "bound came",
    "within .01",
)
_MARGINS = {"hoeffding": "Hoeffding's", "exact": "exact ones"}
_BOUNDS = ("bound", "checks", "said something", "success below it", "allowed by δ")
_AXES_SHORT = ("size entropy", "label entropy", "overlap")
_TRAINED = ("platform", "labels, signals", "success", "agrees with argmax", "ε (tv)", "bounds (tv)",
            "ε (contamination)", "bounds (contamination)")  # fmt: skip


def _told(values: Iterable[float | str | None]) -> str:
    return ", ".join("–" if v is None else v if isinstance(v, str) else f"{v:.3f}" for v in values)


def _reference_lines(kept: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for run in kept["references"]:
        for tier in TIERS:
            if (stated := run["stated_bounds"].get(tier)) is None:
                continue
            agrees = {True: "yes", False: "**no**", None: "not stated"}
            lines.append(
                (
                    run["run"], tier,
                    _told(run["stated_success"]), _told(run["success"]), agrees[run["success_agrees"]],
                    _told(stated), _told(run["bounds"][tier]), agrees[run["bounds_agree"][tier]],
                )
            )  # fmt: skip
    return lines


def _bounds_lines(kept: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = [
        (name, *(str(int(score[key])) for key in ("checks", "not_vacuous", "violations")), f"{score['allowed']:.1f}")
        for name, score in kept["by_bound"].items()
    ]
    for name, key in (("city", "city_held"), ("city, recruited at home", "recruited_at_home_held")):
        lines.append((name, *(str(kept[key][k]) for k in ("checks", "not_vacuous", "violations")), "–"))
    return lines


def _checks_lines(kept: Mapping[str, Any]) -> list[Line]:
    """Return what the checks of bounds, margins and tiers come to."""
    rare, usual, quarter = kept["tiers"]["rare combinations"], kept["tiers"]["as before"], kept["quarter_margins"]
    draws = {
        width: ", ".join(f"{quarter[m][width]['violations']} with {of}" for m, of in _MARGINS.items())
        for width in ("quarter", "whole")
    }
    many, said = quarter["hoeffding"]["whole"]["units"], rare["not_vacuous"]
    both, cost = rare["scenarios"] + usual["scenarios"], max(rare["largest_cost"], usual["largest_cost"])
    with_cost = rare["full_below_worst_with_the_cost"] + usual["full_below_worst_with_the_cost"]
    spoke = sum(kept["by_bound"][f"{e}{r}worst"]["not_vacuous"] for e in ("", "exact_") for r in ("", "rare_"))
    alone = rare["worst_but_not_the_largest"] + usual["worst_but_not_the_largest"]
    kinds = kept["kinds_of_bounds"]
    return [
        ("kinds of bounds that fail more often than with δ", f"{kept['failing_too_often']} of {kinds}"),
        ("kinds whose share of failures is shown to be below δ", f"{kept['shown_within_delta']} of {kinds}"),
        (f"of {many} built draws, those in which margins of a quarter fail", draws["quarter"]),
        (f"of {many} built draws, those in which whole margins fail", draws["whole"]),
        (
            f"of {rare['bounds']} bounds at rare combinations, those that say something",
            f"{said['exact']} with exact margins, {said['hoeffding']} with Hoeffding's: "
            f"{rare['exact_over_hoeffding']:.2f} times as many",
        ),
        (
            "in the other scenarios, so many times as many",
            f"{usual['exact_over_hoeffding']:.2f}; with nothing uncertain {usual['certain_over_hoeffding']:.2f}",
        ),
        (
            "scenarios in which *full* promises less than *worst* at the same δ̃",
            f"{kept['full_below_worst']} of {both}, at no combination",
        ),
        ("… with its own, smaller δ̃", f"{with_cost}, by {cost:.3f} at most"),
        (
            "bounds of *worst* that said something, of a collective no larger than all others together",
            f"{alone} of {spoke}",
        ),
    ]


def _city_lines(kept: Mapping[str, Any]) -> list[Line]:
    return [
        (
            row["sizes"], row["labels"], row["signals"],
            *(f"{row[axis]:.2f}" for axis in _AXES), _told(row["success"]), *(_told(row["bounds"][t]) for t in TIERS),
        )
        for row in kept["city"]
    ]  # fmt: skip


def _trained_lines(kept: Mapping[str, Any]) -> list[Line]:
    return [
        (
            row["platform"], f"{row['labels']}, {row['signals']}", _told(row["success"]),
            f"{row['agreement_with_argmax']:.3f}", f"{row['epsilon_tv']:.4f}", _told(row["bounds_tv"]),
            f"{row['epsilon_contamination']:.4f}", _told(row["bounds_contamination"]),
        )
        for row in kept["trained"]
    ]  # fmt: skip


def _epsilon_lines(kept: Mapping[str, Any]) -> list[Line]:
    return [(f"{row['epsilon']:.2f}", _told(row["tv"]), _told(row["contamination"])) for row in kept["tolerated"]]


def _timing_lines(kept: Mapping[str, Any]) -> list[Line]:
    timing = kept["timing"]
    lines: list[Line] = [("vectors", f"{timing['seconds']:.4f}", "1", "–")]
    for name in LOOPS:
        agrees = timing[f"{name}_same_decisions"] and timing[f"{name}_largest_difference"] < 1e-12
        lines.append(
            (
                f"pandas `{name}`", f"{timing[f'{name}_seconds']:.2f}", f"{timing[f'{name}_ratio']:.0f}",
                "yes" if agrees else "**no**",
            )
        )  # fmt: skip
    return lines

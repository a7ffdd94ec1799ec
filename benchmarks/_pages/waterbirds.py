"""The page of a minority that relabels photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._document import MISSING, table, told
from benchmarks._pages.minority import draw_alphas, draw_flips, draw_points, poster, study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "goal", "levers", "tables"]

_LEVERS = (
    "what is done", "error", "EqOd", "birds off their usual background", "on it", "worst of the four groups",
    "labels changed", "queries", "file",
)  # fmt: skip


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names."""
    studies = [one for one in found if "data_sets" in one[1]]
    return {
        **{mark: made for mark, made in study("waterbirds", studies).items() if mark != "waterbirds-methods"},
        "waterbirds-poster": "\n\n".join(f"{poster(record)}\n\n{goal(record)}" for _, record in studies) or MISSING,
        "waterbirds-levers": "\n\n".join(levers(*one) for one in found if "levers" in one[1]) or MISSING,
    }


def goal(record: Mapping[str, Any]) -> str:
    """Return the sentence that says whether EqOd falls by half at α = .3 at a small enough rise of the error."""
    said = record["data_sets"]["waterbirds"]["goal"]
    if not said["measured"]:
        return MISSING
    reached = "is reached" if said["holds"] else "is not reached"
    return (
        f"EqOd falls by {said['eqod_fall_at_0.3']:.0%} at α = 0.3, and the error rises by "
        f"{said['error_rise_at_0.3']:.4f}: the goal of 50% at .015 or less {reached}. "
        f"It falls by half in {said['seeds_with_half']} of {len(record['seeds'])} seeds."
    )


def levers(file: str, record: Mapping[str, Any]) -> str:
    """Return relabeling beside the action at test time, means over seeds, as Markdown."""
    by_seed = record["levers"]
    lines: list[Sequence[object]] = []
    for name in dict.fromkeys(name for seed in by_seed for name in seed):
        rows = [seed[name] for seed in by_seed if name in seed]
        if "nothing helps" in rows[0]:
            lines.append((name, rows[0]["nothing helps"], *["–"] * 6, f"`{file}`"))
            continue
        shown = (
            told(row[key] for row in rows)
            for key in ("error", "eqod", "subgroup_accuracy", "reference_accuracy", "worst_cell_accuracy")
        )
        flips = told((row.get("flips") for row in rows), digits=0)
        queries = told((row.get("row", {}).get("queries") for row in rows), digits=0)
        lines.append((name, *shown, flips, queries, f"`{file}`"))
    return table(_LEVERS, lines)


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw EqOd against α, against flips and against the error, beside each other."""
    from matplotlib.figure import Figure

    row = record["data_sets"]["waterbirds"]
    drawn = Figure(figsize=(10.4, 3.4), layout="constrained")
    first, second, third = drawn.subplots(1, 3, sharey=True)
    draw_alphas(first, row, rule=record["rule"])
    draw_flips(second, row)
    draw_points(third, row)
    first.set(xlabel="α, share of the birds on land", ylabel="EqOd on test people", ylim=(0, None))
    second.set(xlabel="labels flipped")
    third.set(xlabel="error on test people")
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=6)
    return drawn

"""The part of the page on training time that says whether two collectives' δ can be combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, table

__all__ = ["tables"]


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names."""
    return {"two sets": "\n\n".join(_table(kept) for _, kept in found) or MISSING}


def _table(kept: Mapping[str, Any]) -> str:
    """Return the table of one result file; mean ± standard deviation over seeds."""
    summary = kept["summary"]

    def shown(seen: str, name: str) -> str:
        row = summary[seen].get(name)
        if row is None:
            return "–"
        spread = row["standard_deviation"]
        return f"{row['mean']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")

    head = ("under", "people with both", "lowest and highest bound", "with A alone", "with B alone", "abuse, both")
    lines = []
    for name, row in summary["both"].items():
        if name.startswith("abuse"):
            continue
        bounds = f"{row['lowest_bound']:.3f} to {row['highest_bound']:.3f}"
        others = (shown("a", name), shown("b", name), shown("both", f"abuse of {name}"))
        lines.append([name, shown("both", name), bounds, *others])
    queries = ", ".join(f"{name} {n:.0f}" for name, n in kept["queries"].items())
    seeds = kept["seeds"]
    return (
        f"{table(head, lines)}\n\nSeeds {seeds[0]} to {seeds[-1]}, {kept['people']} test people each, "
        f"ε = {kept['epsilon']} of 255 for every set and every combination. Sharp, upright digits: "
        f"{shown('sharp', 'nothing')}. Queries paid, mean: {queries}."
    )

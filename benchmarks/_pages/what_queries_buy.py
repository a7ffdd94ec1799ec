"""The page of what the queries buy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._credit import SAID, best_names
from benchmarks._document import commands, table, told
from benchmarks._kept_rows import paired
from ttca.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure", "tables"]

# --- picture -----------------------------------------------------------------------------------------------

_SERIES: dict[str, tuple[str, Callable[[Mapping[str, Any]], float]]] = {
    "S with answers": ("#0072b2", lambda cell: float(cell["row"]["subgroup_after"])),
    "best without a query": ("#009e73", lambda cell: max(cell["alternatives"].values())),
    "zero-query control": ("#d55e00", lambda cell: float(cell["row"]["zero_query_control"])),
    "noise": ("#999999", lambda cell: float(cell["row"]["noise_control"])),
}


def figure(record: Mapping[str, Any]) -> Figure:
    """Return a picture of one track: S against Q in each regime, and against how poor public data are."""
    from matplotlib.figure import Figure

    parts = [p for p in record["parts"] if any(c["part"] == p and "row" in c for c in record["cells"])]
    if not parts:
        raise ConfigError(f"Expected an action of {record['track']} that did not stop itself, got none.")
    drawn = Figure(figsize=(4.8 * len(parts), 3.8), layout="constrained")
    panels = drawn.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for panel, part in zip(panels, parts, strict=True):
        cells = [c for c in record["cells"] if c["part"] == part and "row" in c]
        places = list(dict.fromkeys(c["degree"] if part == "poor" else c["queries"] for c in cells))
        at = list(range(len(places))) if part == "poor" else places
        for name, (colour, height_of) in _SERIES.items():
            of = "degree" if part == "poor" else "queries"
            by_place = [[height_of(c) for c in cells if c[of] == place] for place in places]
            _band(panel, at, by_place, colour, name, line=part != "poor")
        before, reference = (
            statistics.fmean(c["row"][k] for c in cells) for k in ("subgroup_before", "reference_before")
        )
        for height, name in ((before, "subgroup before"), (reference, "reference")):
            panel.axhline(height, color="black", ls=":", lw=0.8)
            panel.text(at[0], height, name, size=7, va="bottom")
        if part == "poor":
            panel.set_xticks(at, places, rotation=40, ha="right", size=7)
            panel.set(xlabel=f"public data; Q = {cells[0]['queries']}")
        else:
            panel.set(xlabel="queries of the pool, Q")
            panel.set_xlim(left=0)
        panel.set_title(f"{part}, {record['track']}, ε = {record['epsilon']}", size=10)
    panels[0].set_ylabel("subgroup answered rightly")
    panels[-1].legend(frameon=False, fontsize=8)
    return drawn


def _band(
    panel: Axes, at: Sequence[float], by_place: Sequence[Sequence[float]], colour: str, name: str, *, line: bool
) -> None:
    """Draw means, joined where the axis is one of numbers, with the range over seeds."""
    mean = [statistics.fmean(v) for v in by_place]
    low, high = [min(v) for v in by_place], [max(v) for v in by_place]
    panel.plot(at, mean, "o-" if line else "o", color=colour, label=name, markersize=4)
    if line:
        panel.fill_between(at, low, high, color=colour, alpha=0.15)
    else:
        panel.vlines(at, low, high, color=colour)


# --- the tables --------------------------------------------------------------------------------------------


def tables(found: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return the document's tables by their marks."""
    curve: list[tuple[object, ...]] = []
    poor: list[tuple[object, ...]] = []
    for file, record in found:
        for line in record["summary"]:
            here = [
                c for c in record["cells"] if all(c[k] == line[k] for k in ("part", "queries", "degree")) and "row" in c
            ]
            who = f"{record['track']}, {record['people']}"
            images = next((c["public_images"] for c in here if "public_images" in c), None)
            first: tuple[object, ...] = (
                (who, line["degree"], line["queries"], images or "–")
                if line["part"] == "poor"
                else (who, line["part"], line["queries"])
            )
            into = poor if line["part"] == "poor" else curve
            into.append((*first, record["epsilon"], *_numbers(line, here), f"`{file}`"))
    tail = (
        "ε", "reference / subgroup before", "S", "zero-query control", "own control", "best without a query (each "
        "seed)", "bought", "p (b/c), each seed", "the queries", "S − zero-query control", "gap closed", "noise",
        "class-agnostic", "abuse", "coverage", "seeds (stopped)", "file",
    )  # fmt: skip
    return {
        "queries-commands": commands(found),
        "queries-curve": table(("track, people", "regime", "Q", *tail), curve),
        "queries-poor": table(("track, people", "public data", "Q", "images", *tail), poor),
        "queries-crossing": table(
            ("track, people", "shares of the public data tried", "queries win up to", "file"),
            [
                (
                    f"{record['track']}, {record['people']}",
                    ", ".join(f"{s:.0%}" for s in record["wins_up_to"]["shares_tried"]),
                    "never" if record["wins_up_to"]["share"] is None else f"{record['wins_up_to']['share']:.0%}",
                    f"`{file}`",
                )
                for file, record in found
                if record["wins_up_to"]["shares_tried"]
            ],
        ),
    }


def _numbers(line: Mapping[str, Any], here: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    count = f"{line['seeds']} ({line['stopped']})"
    if not here:
        return (*["–"] * 7, "action stopped itself", *["–"] * 6, count)

    def shown(key: str) -> str:
        return told(c["row"][key] for c in here)

    return (
        f"{line['mean']['reference_before']:.3f} / {line['mean']['subgroup_before']:.3f}",
        shown("subgroup_after"),
        shown("zero_query_control"),
        told(c["alternatives"].get("own_zero_query") for c in here),
        f"{told(c['alternatives'][c['best']] for c in here)} ({best_names(here)})",
        told(c["bought"] for c in here),
        ", ".join(paired(c["row"], c["best_mcnemar_p"], rate=c["alternatives"][c["best"]]).told for c in here),
        SAID[line["verdict"]],
        told(c["row"]["subgroup_after"] - c["row"]["zero_query_control"] for c in here),
        *(shown(k) for k in ("gap_closed", "noise_control", "class_agnostic_control", "abuse_rate", "coverage")),
        count,
    )

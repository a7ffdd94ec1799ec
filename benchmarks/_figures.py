"""The documents' figures, drawn from the result files."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._claims import quoted
from benchmarks._listing import RESULTS
from ttca.errors import ConfigError
from ttca.perturbations import PerturbationSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "Drawing", "draw", "is_current", "sources_digest"]

_FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
#: Okabe and Ito's colours, which those who are colour-blind tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_QUIET = "#777777"
_TRACKS = ("fairface-agegender", "fairface-trained", "cifar10-resnet56", "cifar100-resnet32", "digits")


@dataclass(frozen=True)
class Drawing:
    """One figure: the result files it is made of, by name without their ending, and who draws it."""

    sources: tuple[str, ...]
    draw: Callable[[Mapping[str, Any]], Figure]


def way(records: Mapping[str, Any]) -> Figure:
    """Draw the way of a collective action in five boxes, and beside it what the demo's came to, with its controls."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    (record,) = records.values()
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    boxes, bars = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
    boxes.set_axis_off()
    boxes.set_xlim(0, 1)
    boxes.set_ylim(0, 1)
    steps = (
        ("1  Pool", "Members share their queries to the platform.", "#f2f2f2"),
        ("2  Distill", "A small proxy learns from the answers.", "#f2f2f2"),
        ("3  Learn", "One faint change per class, δ, is learned on it.", "#f2f2f2"),
        ("4  Verify", "Other people test δ on the platform itself.", "#d9ebf7"),
        ("5  Apply", "Members add δ to their own pictures, at home.", "#d9ebf7"),
    )
    for place, (name, what, colour) in enumerate(steps):
        top = 0.98 - 0.2 * place
        boxes.text(0.03, top - 0.04, name, va="top", fontsize=9.5, fontweight="bold")
        boxes.text(0.25, top - 0.045, what, va="top", fontsize=8.5)
        box = FancyBboxPatch(
            (0.015, top - 0.125), 0.97, 0.115, boxstyle="round,pad=0.012", fc=colour, ec=_QUIET, lw=0.8
        )
        boxes.add_patch(box).set_zorder(0)
        if place:
            boxes.annotate("", (0.1, top - 0.005), (0.1, top + 0.07), arrowprops={"arrowstyle": "->", "color": _QUIET})
    shown = (
        ("reference_before", "everybody else", "#aaaaaa"),
        ("subgroup_before", "the group, as it is", "#555555"),
        ("subgroup_after", "the group, with δ", _COLOURS[0]),
        ("zero_query_control", "with δ that asked nothing", _COLOURS[1]),
        ("noise_control", "with random noise", _COLOURS[4]),
        ("abuse_rate", "abuse: a wrong class obtained", _COLOURS[5]),
    )
    for place, (key, _, colour) in enumerate(shown):
        values = [row[key] for row in record["rows"]]
        bars.barh(-place, np.mean(values), color=colour, alpha=0.85, height=0.62)
        bars.plot(values, [-place] * len(values), "|", color="black", markersize=7, alpha=0.6)
        bars.text(1.03, -place, f"{np.mean(values):.3f}", va="center", fontsize=9)
    bars.set_yticks([-place for place in range(len(shown))], [what for _, what, _ in shown], fontsize=9)
    bars.set_xlim(0, 1.2)
    bars.set_xticks([0, 0.5, 1])
    bars.spines[["top", "right"]].set_visible(False)
    title = f"right answers in the demo, {len(record['rows'])} seeds"
    bars.set_title(title, fontsize=9, loc="left")
    return figure


def gap_closed(records: Mapping[str, Any]) -> Figure:
    """Draw the gap closed against the queries of the pool, one line per ε, dotted for the zero-query control.

    Points are means over seeds on final people, bands from the lowest seed to the highest. In the regime own the
    control learns from the same people's true classes, so that it has a budget too.
    """
    figure, panels = _panels(len(records), "gap closed (dotted: zero-query control)", height=3.2)
    for axes, (name, record) in zip(panels, records.items(), strict=True):
        rows = _final_rows(record)
        for colour, epsilon in zip(_COLOURS, sorted({row["epsilon"] for row in rows}), strict=False):
            mine = [row for row in rows if row["epsilon"] == epsilon]
            # Where no gap was shown there is no gap closed, and no point.
            mine = [row for row in mine if row["gap_closed"] is not None]
            if not mine:
                continue
            budgets = sorted({row["queries"] for row in mine})
            closed = [[row["gap_closed"] for row in mine if row["queries"] == q] for q in budgets]
            control = [np.mean([_zero_query_closed(row) for row in mine if row["queries"] == q]) for q in budgets]
            axes.plot(budgets, control, "^:", color=colour, markersize=4)
            middle = [float(np.mean(c)) for c in closed]
            axes.plot(budgets, middle, "o-", color=colour, markersize=4)
            axes.fill_between(
                budgets, [min(c) for c in closed], [max(c) for c in closed], color=colour, alpha=0.18, lw=0
            )
            axes.annotate(
                f"ε = {epsilon}", (budgets[-1], middle[-1]), xytext=(5, 0), textcoords="offset points",
                color=colour, va="center", fontsize=8,
            )  # fmt: skip
        for level in (0.0, 1.0):
            axes.axhline(level, color=_QUIET, lw=0.8, ls=":" if level else "-")
        axes.set_xlim(0, 1.25 * max(row["queries"] for row in rows))
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("queries of the pool")
    return figure


def groups(records: Mapping[str, Any]) -> Figure:
    """Draw accuracies before and after for both groups at the ε that certificates quote, beside the controls."""
    figure, panels = _panels(len(records), "accuracy, final people", height=3.1)
    shown = (
        ("reference_before", "reference", "s", "black"),
        ("subgroup_before", "subgroup", "o", _QUIET),
        ("subgroup_after", "with δ", "D", _COLOURS[0]),
        ("zero_query_control", "zero-query δ", "^", _COLOURS[1]),
        ("class_agnostic_control", "one δ for all", "v", _COLOURS[2]),
        ("proxy_class_control", "proxy's class", "<", _COLOURS[3]),
        ("noise_control", "noise", "x", _COLOURS[4]),
    )
    for axes, (name, record) in zip(panels, records.items(), strict=True):
        part = quoted(record)
        if part is None:
            axes.set_title(f"{name}\nno action was possible", fontsize=9)
            continue
        for place, (key, _, marker, colour) in enumerate(shown):
            values = [row[key] for row in part.rows]
            axes.plot([place] * len(values), values, marker, color=colour, alpha=0.45, markersize=5)
            axes.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=colour, lw=1.6)
        axes.set_xticks(range(len(shown)), [label for _, label, _, _ in shown], rotation=60, ha="right", fontsize=8)
        axes.set_title(f"{name}\nQ = {part.budget}, ε = {part.epsilons}", fontsize=9)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
    return figure


def matrix(records: Mapping[str, Any]) -> Figure:
    """Draw the architecture matrix as a heat map: the subgroup's gain in points, and the control's beside it."""
    (record,) = records.values()
    proxies = sorted({c["proxy"] for c in record["cells"]}, key=[c["proxy"] for c in record["cells"]].index)
    platforms = sorted({c["platform"] for c in record["cells"]}, key=[c["platform"] for c in record["cells"]].index)
    gain = np.full((len(proxies), len(platforms)), np.nan)
    figure, (axes,) = _panels(1, "", width=6.4, height=3.0)
    for cell in record["cells"]:
        at = proxies.index(cell["proxy"]), platforms.index(cell["platform"])
        if "row" not in cell:
            axes.text(at[1], at[0], "no action", ha="center", va="center", fontsize=8)
            continue
        row = cell["row"]
        gain[at] = 100 * (row["subgroup_after"] - row["subgroup_before"])
        zero = 100 * (row["zero_query_control"] - row["subgroup_before"])
        axes.text(
            at[1], at[0], f"{gain[at]:+.1f}\nzero-query {zero:+.1f}\nsize × {cell['platform_over_proxy']:.1f}",
            ha="center", va="center", fontsize=8, color="white" if gain[at] > 18 else "black",
        )  # fmt: skip
    shown = axes.imshow(gain, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(platforms)), [f"{p.removeprefix('cifar10-')}" for p in platforms])
    axes.set_yticks(range(len(proxies)), proxies)
    axes.set_xlabel("platform (CIFAR-10)")
    axes.set_ylabel("proxy")
    figure.colorbar(shown, label="subgroup's accuracy, points gained")
    return figure


def pictures(records: Mapping[str, Any]) -> Figure:
    """Draw what is sent: images of digits through the bad camera, the δ of their class, and their sum."""
    from matplotlib.figure import Figure

    from benchmarks.transfer import quick_key

    (record,) = records.values()
    budget = max(cell["queries"] for cell in record["cells"])
    key = quick_key("digits", budget, 0)
    path = key.home() / "action" / "perturbations" / f"epsilon-{min(key.epsilons):03d}.safetensors"
    if not path.is_file():
        raise ConfigError(
            f"Expected the kept δ of the quick grid's cell in {path}, got no file: a figure learns nothing. Run "
            "`python -m benchmarks transfer --track digits` first, or draw the other figures."
        )
    chosen = PerturbationSet.load(path)
    people = key.of.people(budget, key.regime, key.seed, False).test
    people = people[people.subgroup]
    classes = (1, 3, 5, 8)
    rows = [int(np.flatnonzero(people.classes == c)[0]) for c in classes]
    images = people.images[rows]
    delta = chosen.delta[list(classes)].astype(np.int16)
    # δ is drawn around grey, as strong as it can be shown.
    magnified = np.clip(128 + delta * (127 // chosen.epsilon), 0, 255).astype(np.uint8)
    columns: tuple[tuple[str, NDArray[np.uint8]], ...] = (
        ("as the camera took it", images),
        (f"δ of the true class, × {127 // chosen.epsilon}", magnified),
        (f"what is sent, ε = {chosen.epsilon}", chosen.apply(images, np.array(classes))),
    )
    figure = Figure(figsize=(6.0, 4.9), layout="constrained")
    panels = figure.subplots(len(columns), len(classes))
    for line, (title, shown) in enumerate(columns):
        for column, image in enumerate(shown):
            axes = panels[line][column]
            axes.imshow(image, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if not line:
                axes.set_title(f"true class {classes[column]}", fontsize=8)
        panels[line][0].set_ylabel(title, fontsize=8)
    return figure


def _by(benchmark: str) -> Callable[[Mapping[str, Any]], Figure]:
    """Return the figure of a benchmark's own page."""

    def drawn(records: Mapping[str, Any]) -> Figure:
        (record,) = records.values()
        made: Figure = importlib.import_module(f"benchmarks._pages.{benchmark}").figure(record)
        return made

    return drawn


_TRANSFER = tuple(f"transfer-quick-{track}" for track in _TRACKS)
#: Every figure of the documents by its name.
FIGURES: dict[str, Drawing] = {
    "way": Drawing(("demo",), way),
    "gap-closed": Drawing(_TRANSFER, gap_closed),
    "groups": Drawing(_TRANSFER, groups),
    "matrix": Drawing(("matrix-q1000-e8",), matrix),
    "break-even": Drawing(("query_budget-cifar10-resnet56-final",), _by("query_budget")),
    "defences": Drawing(("defences-digits",), _by("defences")),
    "what-queries-buy": Drawing(("what_queries_buy-digits-own-public-poor",), _by("what_queries_buy")),
    "collective-size": Drawing(("collective_size-digits-own",), _by("collective_size")),
    "harm": Drawing(("harm-digits",), _by("harm")),
    "waterbirds": Drawing(("waterbirds",), _by("waterbirds")),
    "pictures": Drawing(("transfer-quick-digits",), pictures),
}


def draw(name: str, results: Path = RESULTS, folder: Path = _FIGURES) -> Path:
    """Draw one figure and return its SVG file, which says from what result files it was made.

    Raises
    ------
    FileNotFoundError
        If a result file is not there.
    """
    import matplotlib as mpl

    drawing = FIGURES[name]
    records = {
        source.removeprefix("transfer-quick-"): json.loads((results / f"{source}.json").read_text(encoding="utf-8"))
        for source in drawing.sources
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    # Text stays text, and two runs write the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": 9}):
        figure = drawing.draw(records)
        figure.savefig(
            path,
            format="svg",
            metadata={"Date": None, "Source": ", ".join(drawing.sources), "Identifier": sources_digest(name, results)},
        )
    # matplotlib ends lines with blanks.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n", encoding="utf-8")
    return path


def is_current(name: str, results: Path = RESULTS, folder: Path = _FIGURES) -> bool:
    """Return whether a figure is there and was made of the result files as they are now."""
    path = folder / f"{name}.svg"
    return path.is_file() and sources_digest(name, results) in path.read_text(encoding="utf-8")


def sources_digest(name: str, results: Path = RESULTS) -> str:
    """Return a digest, 16 hex digits, of the result files a figure is made of: a figure that is older is found out."""
    digest = hashlib.sha256()
    for source in FIGURES[name].sources:
        digest.update((results / f"{source}.json").read_bytes())
    return digest.hexdigest()[:16]


def _final_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of final people; their budget is the cell's, of which an action may leave one query unused."""
    return [
        {**line["row"], "queries": cell["queries"]}
        for cell in record["cells"]
        for line in cell["rows"]
        if line["people"] == "final"
    ]


def _zero_query_closed(row: Mapping[str, Any]) -> float:
    return float((row["zero_query_control"] - row["subgroup_before"]) / row["gap_before"])


def _panels(count: int, label: str, *, width: float = 0.0, height: float = 2.8) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with so many panels beside each other, labelled once."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width or 2.3 * count + 0.6, height), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    panels[0].set_ylabel(label)
    return figure, list(panels)

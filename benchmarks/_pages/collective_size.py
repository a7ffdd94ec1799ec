"""The page of who takes part: how S grows with the collective, and what the queries bought."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._credit import SAID, best_names
from benchmarks._document import commands, table, told
from benchmarks._kept_rows import paired, queries
from benchmarks.collective_size import FEWEST_JUDGES, RHOS
from ttca.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "tables"]

# --- picture -----------------------------------------------------------------------------------------------

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def figure(record: Mapping[str, Any]) -> Figure:
    """Return a picture of one track: S against who takes part for each quota, and S_ρ against who applies δ."""
    from matplotlib.figure import Figure

    done = _acted(record)
    if not done:
        raise ConfigError(f"Expected an action of {record['track']} that did not stop itself, got none.")
    drawn = Figure(figsize=(10, 4), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    for colour, quota in zip(_COLOURS, sorted({c["quota"] for c in done}), strict=False):
        cells = [c for c in done if c["quota"] == quota]
        shares = sorted({c["share"] for c in cells})
        for key, style in (("subgroup_after", "-"), ("zero_query_control", ":")):
            by_share = [[c["row"][key] for c in cells if c["share"] == s] for s in shares]
            name = f"{quota}" if style == "-" else None
            left.plot(shares, [statistics.fmean(v) for v in by_share], f"o{style}", color=colour, label=name, ms=4)
            if style == "-":
                left.fill_between(
                    shares, [min(v) for v in by_share], [max(v) for v in by_share], color=colour, alpha=0.15
                )
    before, reference = (
        statistics.fmean(c["row"][key] for c in done) for key in ("subgroup_before", "reference_before")
    )
    for height, name in ((before, "subgroup before"), (reference, "reference")):
        left.axhline(height, color="black", ls=":", lw=0.8)
        left.text(min(c["share"] for c in done), height, name, size=7, va="bottom")
    left.set(xscale="log", xlabel="share of the subgroup that takes part")
    left.set_ylabel("share of subgroup test people answered rightly")
    left.set_title(f"{record['track']}, {record['regime']}, ε = {record['epsilon']}; dotted: zero-query", size=10)
    left.legend(frameon=False, fontsize=8, title="queries per image", title_fontsize=8)
    shown = _largest(record)
    by_rho = [[c["participation"][i] for c in shown] for i in range(len(RHOS))]
    mean = [statistics.fmean(p["s_rho"] for p in points) for points in by_rho]
    right.plot(RHOS, mean, "-", color="#0072b2", label="S_ρ = ρS + (1−ρ)Acc")
    low, high = zip(*map(_widest, by_rho), strict=True)
    right.fill_between(RHOS, low, high, color="#0072b2", alpha=0.15, label="95 %, widest over seeds")
    right.set(xlabel="share of the subgroup that applies δ, ρ", xlim=(0, 1))
    right.set_title(f"{shown[0]['share']:.0%} took part, queries per image: {shown[0]['quota']}", size=10)
    right.legend(frameon=False, fontsize=8)
    return drawn


# --- the tables --------------------------------------------------------------------------------------------


def _acted(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells whose action did not stop itself and whose proxy was judged by people enough."""
    return [c for c in record["cells"] if "row" in c and c["selection_persons"] >= FEWEST_JUDGES]


def _largest(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the seeds of the largest collective that acted, where it asked the least."""
    done = _acted(record)
    best = min(((-c["share"], c["quota"]) for c in done), default=None)
    return [c for c in done if (-c["share"], c["quota"]) == best]


def _widest(points: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return the ends of all seeds' intervals together: seeds share people, and a mean of ends is no interval."""
    return min(p["lower"] for p in points), max(p["upper"] for p in points)


def tables(found: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return the document's tables by their marks."""
    grid: list[tuple[object, ...]] = []
    apart: list[tuple[object, ...]] = []
    applied: list[tuple[object, ...]] = []
    for file, record in found:
        who = f"{record['track']}, {record['people']}, {record['regime']}"
        for line in record["summary"]:
            here = [c for c in record["cells"] if (c["share"], c["quota"]) == (line["share"], line["quota"])]
            # An action that stopped itself asked no verification people.
            more = f" + {line['verification_persons']}" if line["stopped"] < line["seeds"] else ""
            first = (
                who, record["epsilon"], f"{line['share']:.1%}", line["quota"], line["members"],
                f"{line['persons']}{more}", line["images"],
            )  # fmt: skip
            (grid if line["judged"] else apart).append((*first, *_numbers(line, here), f"`{file}`"))
        applied += [(who, *numbers) for numbers in _applied(record)]
    took_part = (
        "track, people, regime", "ε", "takes part", "queries per image", "members",
        "persons asked (+ for verification)", "pool queries", "baseline + verification queries", "seeds (stopped)", "S",
    )  # fmt: skip
    head = (
        *took_part, "before", "gap closed", "zero-query control", "best without a query (each seed)", "bought",
        "p (b/c), each seed", "the queries", "noise", "class-agnostic", "abuse", "coverage", "S if only they apply it",
        "file",
    )  # fmt: skip
    return {
        "size-commands": commands(found),
        "size-grid": table(head, grid),
        "size-unjudged": table((*took_part, "the collective", "file"), apart),
        "size-participation": table(
            ("track, people, regime", "took part, queries per image", "ρ", "S_ρ", "95 %, widest over seeds",
             "worst group", "equal-opportunity gap", "demographic-parity ratio"),
            applied,
        ),
    }  # fmt: skip


def _numbers(line: Mapping[str, Any], here: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    """Return what a line of the grid says behind who took part."""
    done = [c for c in here if "row" in c]

    def shown(key: str) -> str:
        return told(c["row"][key] for c in done)

    paid = told((queries(c["row"], "baseline") + queries(c["row"], "verification") for c in done), 0)
    numbers = (paid, f"{line['seeds']} ({line['stopped']})", shown("subgroup_after"))
    if not line["judged"]:
        judges = line["selection_persons"]
        return (*numbers, f"cannot be judged: {judges} selection {'person' if judges == 1 else 'people'}")
    if not done:
        return (*numbers, *["–"] * 6, "action stopped itself", *["–"] * 5)
    return (
        *numbers, shown("subgroup_before"), shown("gap_closed"), shown("zero_query_control"),
        f"{told(c['alternatives'][c['best']] for c in done)} ({best_names(done)})", told(c["bought"] for c in done),
        ", ".join(_tested(c) for c in done), SAID[line["verdict"]],
        *(shown(k) for k in ("noise_control", "class_agnostic_control", "abuse_rate", "coverage")),
        told(c["participation"][-1]["s_rho"] for c in done),
    )  # fmt: skip


def _tested(cell: Mapping[str, Any]) -> str:
    """Return the p of S against the best without a query, with the people right under one of them alone."""
    return paired(cell["row"], cell["best_mcnemar_p"], rate=cell["alternatives"][cell["best"]]).told


def _applied(record: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return what the largest collective gets at every participation."""
    cells = _largest(record)
    keys = ("worst_group_accuracy", "equal_opportunity_difference", "demographic_parity_ratio")
    lines: list[tuple[object, ...]] = []
    for i, rho in enumerate(RHOS if cells else ()):
        points = [c["participation"][i] for c in cells]
        low, high = _widest(points)
        first = (f"{cells[0]['share']:.0%}, {cells[0]['quota']}", f"{rho:.0%}", told(p["s_rho"] for p in points))
        lines.append((*first, f"{low:.3f} to {high:.3f}", *(told(p[k] for p in points) for k in keys)))
    return lines

"""The page of whether pooling is cheaper than each member attacking alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._claims import tested
from benchmarks._credit import hardest
from benchmarks._document import commands, table
from benchmarks._kept_rows import verified_by
from benchmarks.query_budget import FROM_PROXY, GROUPS, IMAGES, RUN_ANEW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "tables"]

# --- the picture ---------------------------------------------------------------------------------------------

#: Okabe and Ito's colours, told apart by everybody.
_COLOURS = {
    "pooled": "#0072B2",
    "pooled_after_a_look": "#56B4E9",
    "square": "#D55E00",
    FROM_PROXY: "#E69F00",
    "simba": "#009E73",
    "hopskipjump": "#CC79A7",
}
_NAMES = {
    "pooled": "pooled",
    "pooled_without_certificate": "pooled, no certificate",
    "pooled_after_a_look": "pooled, after a look",
    "pooled_beyond_zero_query": "pooled, beyond zero-query",
    "zero_query": "zero-query δ",
    "zero_query_after_a_look": "zero-query δ, after a look",
    "square": "Square",
    FROM_PROXY: "Square from the zero-query δ",
    "simba": "SimBA",
    "hopskipjump": "HopSkipJump (labels)",
}


def figure(record: Mapping[str, Any]) -> Figure:
    """Return the break-even curve: price against group size, one panel per ε, bands 95 % over people.

    Parameters
    ----------
    record : dict
        What :func:`main` returned. One image per member; with k of them, divide the group by k.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epsilons = record["epsilons"]
    drawn = Figure(figsize=(5.2 * len(epsilons), 4.2), layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(1, len(epsilons), sharey=True, squeeze=False)[0]
    for panel, (epsilon, result) in zip(panels, epsilons.items(), strict=True):
        for way in ("pooled", "pooled_after_a_look"):
            groups = result["ways"][way]["price_by_group"]
            x = np.array([int(g) for g in groups])
            y = np.array([_or_nan(v["price"]) for v in groups.values()])
            low, high = (np.array([_or_nan(v["interval"][i]) for v in groups.values()]) for i in (0, 1))
            panel.plot(x, y, color=_COLOURS[way], label=_NAMES[way])
            panel.fill_between(x, low, high, color=_COLOURS[way], alpha=0.18, lw=0)
        for attack in result["attacks"]:
            at = result["attacks"][attack]["cheapest"]
            if at["price"] is None:
                continue
            panel.axhline(at["price"], color=_COLOURS[attack], ls="--", label=_given_up(at))
            least, most = (_or_nan(v) for v in at["interval"])
            panel.fill_between([GROUPS[0], GROUPS[-1]], least, most, color=_COLOURS[attack], alpha=0.12, lw=0)
        point = result["break_even"]
        if point["images"] is not None:
            against = result["attacks"][point["against"]]["cheapest"]
            panel.plot([point["images"]], [against["price"]], "o", color="black", zorder=5)
            panel.annotate(
                f"break-even {_sized(point['images'], point['interval'])}", (point["images"], against["price"]),
                xytext=(0, -18), textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
        zero = result["ways"]["zero_query"]
        panel.set(xscale="log", yscale="log", xlabel="group size, one image per member")
        panel.set_title(
            f"{record['track']}, ε = {epsilon}/255. Right before {zero['before']:.2f}, pooled "
            f"{result['ways']['pooled']['right']:.2f},\nzero-query δ {zero['right']:.2f} (no queries: no line)",
            fontsize=9,
        )
        panel.grid(alpha=0.25, which="major")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("queries per additional right answer")
    return drawn


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


# --- the tables ----------------------------------------------------------------------------------------------


def tables(records: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return the document's parts by the name of their marks, as Markdown, from result files with their names."""
    return {
        "commands": commands(records),
        "findings": table(_FINDINGS, _findings(records)),
        "attacks": _attacks_table(records),
        "ways": _ways_table(records),
        "break_even": _break_even_table(records),
        "days": _days_table(records),
        "controls": _controls_table(records),
    }


def _each(
    records: Sequence[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield file, "track, people, ε", the record and what it says about that ε."""
    for name, record in records:
        for epsilon, result in record["epsilons"].items():
            yield name, f"{record['track']}, {record['people']}, ε = {epsilon}", record, result


def _number(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value != round(value) else f"{value:.0f}"


def _whole(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def _sized(value: float | None, interval: Sequence[float | None]) -> str:
    return f"{_whole(value)} ({_whole(interval[0])}–{_whole(interval[1])})"


def _signed(value: float, interval: Sequence[float | None]) -> str:
    low, high = (_or_nan(v) for v in interval)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _given_up(at: Mapping[str, Any]) -> str:
    """Return an attack and the queries after which it is given up; of Square also the budget that shapes its run."""
    said = f"{_NAMES[at['against']]}, given up after {_stop(at)}"
    return said if at["against"] in RUN_ANEW else f"{said} queries"


def _stop(at: Mapping[str, Any]) -> str:
    of = f" queries of a run for {at['budget']:,}" if at["against"] in RUN_ANEW else ""
    return f"{at['stop']:,}{of}"


def _spread(values: Sequence[int]) -> str:
    """Return what every seed paid, or from the least to the most."""
    return f"{min(values):,}" if len(set(values)) == 1 else f"{min(values):,}–{max(values):,}"


def _certified(result: Mapping[str, Any]) -> int:
    """Return in how many seeds parity was certified at this ε."""
    return sum(bool(cell["row"]["parity_certified"]) for cell in result["cells"])


_FINDINGS = (
    "track, people", "seeds", "hardest to beat on price", "pooling cheaper from", "people there",
    "hardest at an equal outcome", "cheaper at an equal outcome from", "people of the equal outcome",
    "gain less Square's", "gain less SimBA's", "gain less HopSkipJump's", "parity certified",
    "verification queries", "people verified", "S", "zero-query δ", "S − zero-query δ", "people of S",
    "the queries bought", "paid once", "file",
)  # fmt: skip
#: The attacks whose gain at the largest budget stands beside that of pooling.
_BESIDE = ("square", "simba", "hopskipjump")


def _findings(records: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[object, ...]]:
    """Yield where pooling wins and where it loses, a line for each ε, with the seeds and people it is from."""
    for name, where, record, result in _each(records):
        seeds, zero = len(record["seeds"]), result["on_all_test_people"]
        ours = [c for c in result["comparisons"] if c["way"] == "pooled"]
        point, equal = (hardest(ours, how) for how in ("cheapest", "equal outcome"))
        largest = {c["against"]: c for c in ours if c["budget_is"] == "largest"}
        certified = _certified(result)
        if equal["budget"] is None:
            same: tuple[object, ...] = ("none gains as much", "–", result["on_attacked_people"]["people"] // seeds)
        else:
            same = (_given_up(equal), _from(equal), equal["people"] // seeds)
        yield (
            where, seeds, _given_up(point), _from(point), point["people"] // seeds, *same,
            *(_signed(largest[a]["gain_difference"], largest[a]["gain_difference_interval"]) for a in _BESIDE),
            f"{certified} of {seeds}" + ("" if certified else ": a refusal"),
            _spread(result["pooled_paid"]["verification"]), sum(map(verified_by, result["cells"])) // seeds,
            f"{zero['pooled']:.3f}", f"{zero['zero_query']:.3f}", _signed(zero["difference"], zero["interval"]),
            zero["people"] // seeds, zero["queries_bought"], _number(result["ways"]["pooled"]["queries_once"]),
            f"`{name}`",
        )  # fmt: skip


def _from(point: Mapping[str, Any]) -> str:
    """Return from how many images on pooling is cheaper than an attack."""
    return "never" if point["images"] is None else f"{_sized(point['images'], point['interval'])} images"


def _attacks_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, record, result in _each(records):
        for attack in result["attacks"]:
            found = result["attacks"][attack]
            for budget, at in found["budgets"].items():
                wrong = at["of_the_wrong"]
                if wrong["mean"] is None:
                    continue
                lines.append(
                    (
                        where, _NAMES[attack], f"{int(budget):,}", f"{wrong['people']} of {found['people']}",
                        len(record["seeds"]), f"{wrong['mean']:.1f}", f"{wrong['median']:.1f}",
                        f"{wrong['failure_rate']:.3f}", f"{at['gain']:.3f}", _number(at["price"]),
                    )
                )  # fmt: skip
    head = ("track, people", "attack", "budget", "answered wrongly, of", "seeds", "mean queries", "median",
            "failure rate", "gain of all", "queries per additional right answer")  # fmt: skip
    return table(head, lines)


def _ways_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, record, result in _each(records):
        for way, found in result["ways"].items():
            prices = [found["price_by_group"][str(g)] for g in (1, 100, 10_000)]
            paid_for = way in ("pooled", "pooled_after_a_look")
            certified = f"{_certified(result)} of {len(record['seeds'])} seeds" if paid_for else "–"
            lines.append(
                (
                    where, _NAMES[way], certified, found["people"], f"{found['before']:.3f} → {found['right']:.3f}",
                    f"{found['put_right']} / {found['spoilt']}", _number(found["queries_once"]),
                    f"{found['queries_per_image']:.0f}",
                    *(_number(p["price"]) for p in prices),
                )
            )  # fmt: skip
        for attack in result["attacks"]:
            found = result["attacks"][attack]
            if (at := found["cheapest"])["price"] is None:
                continue
            right = f"{found['before']:.3f} → {at['right']:.3f}"
            cost = (0, f"{at['queries_per_image']:.1f}", *[_number(at["price"])] * 3)
            lines.append((where, _given_up(at), "–", found["people"], right, f"{at['put_right']} / 0", *cost))
    head = ("track, people", "way", "parity certified", "images", "right before → with it", "put right / spoilt",
            "queries once", "queries per image", "price, group of 1", "of 100", "of 10,000")  # fmt: skip
    return table(head, lines)


def _break_even_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, _, result in _each(records):
        for c in result["comparisons"]:
            # The variants of pooling only where it has it hardest; the file holds the rest.
            if c["way"] != "pooled" and (c["against"], c["budget_is"]) != (result["break_even"]["against"], "cheapest"):
                continue
            if c["budget"] is None:
                nobody = (_NAMES[c["way"]], f"{_NAMES[c['against']]}, {c['budget_is']}: never gains as much")
                lines.append((where, *nobody, *["–"] * 5))
                continue
            lines.append(
                (
                    where, _NAMES[c["way"]], f"{_NAMES[c['against']]}, {c['budget_is']}: {_stop(c)}",
                    "–"
                    if c["gain_difference"] is None
                    else _signed(c["gain_difference"], c["gain_difference_interval"]),
                    *(_sized(c["members"][str(k)]["size"], c["members"][str(k)]["interval"]) for k in IMAGES),
                    _sized(c["fewer_queries_from_images"], c["fewer_queries_interval"]),
                )
            )  # fmt: skip
    sizes = (f"members, {k} image{'s' if k > 1 else ''} each" for k in IMAGES)
    head = ("track, people", "way", "against, given up after", "gain less the attack's", *sizes,
            "fewer queries in all from images")  # fmt: skip
    return table(head, lines)


def _days_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, _, result in _each(records):
        days = result["days"]
        pooled, quota = days["pooled"], days["quota_per_day"]
        by = pooled["days_by_group"]
        groups = ", ".join(f"{by[str(g)]:,} for {g:,}" for g in (1, 10, 100, 1000))
        once = (f"{groups} members; one day from {pooled['members_for_one_day']:,} on", "the same", "the same")
        lines.append((where, quota, "pooled, once", f"{pooled['helped']:.3f}", *once))
        for attack, found in days["alone"].items():
            each = [found["images"][str(k)] for k in IMAGES]
            told = [f"{e['median']:,} / {e['90 %']:,} / {e['last']:,}" for e in each]
            lines.append((where, quota, f"{_NAMES[attack]}, {found['budget']:,}", f"{found['helped']:.3f}", *told))
    head = ("track, people", "queries a day", "way", "right then",
            *(f"days, {k} image{'s' if k > 1 else ''} each (median / 90 % / last)" for k in IMAGES))  # fmt: skip
    return table(head, lines)


def _controls_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for name, where, _, result in _each(records):
        everybody, some, abuse = result["on_all_test_people"], result["on_attacked_people"], result["abuse"]

        def three(of: Mapping[str, Any]) -> str:
            return " / ".join(f"{of[k]:.3f}" for k in ("before", "pooled", "zero_query", "noise"))

        paid = " + ".join(_spread(v) for v in result["pooled_paid"].values())
        alone = ", ".join(f"{_NAMES[a]} {abuse[a]['success']:.3f}" for a in result["attacks"])
        p = ", ".join(tested(cell).told for cell in result["cells"])
        pooled = f"{abuse['pooled']['success']:.3f} / {abuse['pooled']['everybody']:.3f}"
        cells = (paid, three(everybody), three(some), p, pooled, alone, f"`{name}`")
        lines.append((where, *cells))
    head = ("track, people", "paid: pool + baseline + verification", "all: before / pooled / zero-query / noise",
            "attacked people: the same", "pooled against zero-query, p (b/c) by seed",
            "abuse, pooled: the same people / everybody", "alone, towards a wrong class", "file")  # fmt: skip
    return table(head, lines)

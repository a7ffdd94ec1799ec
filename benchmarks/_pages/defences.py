"""The page of what a platform could do about δ, and what that costs the people it serves."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._defended import DEFENCES, compared_with
from benchmarks._document import commands, table, told
from benchmarks.defences import MEMBERS, PLANS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure", "tables"]

Line = Mapping[str, Any]
_BLUE, _ORANGE, _GREY, _GREEN = "#0072b2", "#d55e00", "#666666", "#009e73"


def _grouped(lines: Iterable[Line], *by: str) -> dict[tuple[Hashable, ...], list[Line]]:
    """Return lines by the values of these keys, in the order they came: each group has one line per seed."""
    found: dict[tuple[Hashable, ...], list[Line]] = {}
    for line in lines:
        found.setdefault(tuple(line[k] for k in by), []).append(line)
    return found


def _sound(lines: Iterable[Line]) -> list[Line]:
    return [line for line in lines if "failed" not in line]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw who is answered rightly under each defence of one track, and how far averages give δ away.

    Parameters
    ----------
    record : dict
        What :func:`main` returned. Bars and bands are ± one standard deviation over seeds, where there are several.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ((track, plan),) = record["plans"].items()
    drawn = Figure(figsize=(6.5, 9), layout="constrained")
    FigureCanvasAgg(drawn)
    above, below = drawn.subplots(2, 1, height_ratios=(3, 2))
    _draw_defences(above, record, plan["epsilons"][0])
    _draw_exposure(below, record, plan["epsilons"][0])
    above.set_title(f"{track}, {record['people']} people, ε = {plan['epsilons'][0]}")
    above.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, -0.12), ncols=2)
    below.legend(frameon=False, fontsize=8)
    return drawn


def _draw_defences(axes: Axes, record: Mapping[str, Any], epsilon: int) -> None:
    cells = _grouped(_sound(c for c in record["cells"] if c["epsilon"] == epsilon), "defence", "known")
    order = list(dict.fromkeys(name for name, _ in cells))
    series = (
        ("reference_before", False, "|", _GREY, "reference, no δ"),
        ("subgroup_before", False, "o", _GREY, "subgroup, no δ"),
        ("subgroup_after", False, "o", _BLUE, "subgroup with δ, defence not known"),
        ("subgroup_after", True, "D", _ORANGE, "subgroup with δ, defended platform asked"),
    )
    for number, known, marker, colour, label in series:
        here = {order.index(n): [c[number] for c in lines] for (n, k), lines in cells.items() if k == known}
        axes.errorbar(
            [statistics.fmean(v) for v in here.values()], list(here), xerr=[_spread(v) for v in here.values()],
            fmt=marker, color=colour, label=label, markersize=5 if marker != "|" else 10,
            markerfacecolor="none" if number == "subgroup_before" else colour, elinewidth=1,
        )  # fmt: skip
    axes.set_yticks(range(len(order)), [record["defences"][name]["says"] for name in order], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="share answered rightly")


def _draw_exposure(axes: Axes, record: Mapping[str, Any], epsilon: int) -> None:
    lines = [e for e in record["exposure"] if e["epsilon"] == epsilon and e["of"] == "residuals"]
    for (count, here), colour in zip(_grouped(lines, "submissions").items(), (_ORANGE, _GREEN, _BLUE), strict=False):
        areas = {some: [e["area"] for e in seeds] for (some,), seeds in sorted(_grouped(here, "with_delta").items())}
        x = np.array(list(areas)) / count[0]
        middle, spread = (np.array([f(v) for v in areas.values()]) for f in (statistics.fmean, _spread))
        axes.plot(x, middle, "o-", color=colour, label=f"{count[0]} submissions averaged")
        axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.15, lw=0)
    if lines:
        file = statistics.fmean(e["area_where_the_file_is_known"] for e in lines)
        axes.axhline(file, color=_GREY, lw=1, ls="--", label="the file is known")
    axes.axhline(0.5, color=_GREY, lw=0.8, ls=":")
    axes.set(
        xlabel="share of a class's submissions that carry δ", ylabel="area under the curve",
        ylim=(0.4, 1.02),
    )  # fmt: skip


# -- the tables ---------------------------------------------------------------------------------------------------


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the document's marks, made from result files and their names."""
    records = [record for _, record in found]
    measured = {track for record in records for track in record["plans"]}
    missing = ", ".join(f"`{track}`" for track in PLANS if track not in measured)
    return {
        "files": commands(found) + (f"\n\nNot measured yet: {missing}." if missing else ""),
        "defences": table(
            ("track, people", "Q", "ε", "the platform", "reference, no δ", "change of the reference", "subgroup, no δ",
             "change of the subgroup",
             "subgroup with δ, not known", "subgroup with δ, asked the defended platform",
             "abuse, not known / asked it", "noise", "zero-query", "seeds"),
            (line for record in records for line in _defence_lines(record))
        ),
        "refusals": table(
            ("track, people", "Q", "ε", "the platform", "δ was learned from", "reference refused", "subgroup refused",
             "with δ refused"),
            (line for record in records for line in _refusal_lines(record)),
        ),
        "fixes": table(
            ("track, people", "Q", "ε", "the platform", "change of the subgroup, no δ", "by seed",
             "gap left without δ", "what δ still adds for the subgroup"),
            (line for record in records for line in _fix_lines(record)),
        ),
        "limits": table(
            ("track, people", "queries", "with certificate", "per key and day",
             *(f"{m} member{'s' * (m > 1)}" for m in MEMBERS)),
            (line for record in records for line in _limit_lines(record)),
        ),
        "detectors": table(
            ("track, people", "stream", "pictures", "streams", "distinct sets", "detector", "long enough",
             "flagged of these", "pictures flagged"),
            (line for record in records for line in _detector_lines(record)),
        ),
        "composition": "\n".join(line for record in records for line in _composition(record)),
        "exposure": table(
            ("track, people", "Q", "ε", "averages of", "with δ", "draws a seed", "cosine with δ",
             "area under the curve", "the same, file known"),
            (line for record in records for line in _exposure_lines(record)),
        ),
    }  # fmt: skip


def _who(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return a record's track and people, and its budget, as tables have them."""
    ((track, plan),) = record["plans"].items()
    return f"{track}, {record['people']}", str(plan["queries"])


def _first_epsilon(record: Mapping[str, Any]) -> int:
    return int(next(iter(record["plans"].values()))["epsilons"][0])


def _over_seeds(lines: Sequence[Line], number: str) -> str:
    """Return mean ± standard deviation over seeds, or why there is none."""
    sound = _sound(lines)
    if lines and not sound:
        return "no action possible"
    failed = len(lines) - len(sound)
    return told(c[number] for c in sound) + (f" ({failed} of {len(lines)} impossible)" if failed else "")


def _changes(lines: Sequence[Line], base: Sequence[Line], number: str) -> list[float]:
    """Return how much larger a number is than the base's of the same seed, seed by seed."""
    before = {c["seed"]: c[number] for c in base}
    return [c[number] - before[c["seed"]] for c in lines]


def _signed(values: Sequence[float]) -> str:
    said = told(values)
    return said if said.startswith(("-", "–")) else f"+{said}"


def _defence_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    epsilon = _first_epsilon(record)
    cells = _grouped((c for c in record["cells"] if c["epsilon"] == epsilon), "defence", "known")
    for (name, known), here in cells.items():
        if known:
            continue
        asking = cells.get((name, True), [])
        base = cells.get((compared_with(str(name)), False), [])
        change = [_signed(_changes(here, base, k)) if base else "–" for k in ("reference_before", "subgroup_before")]
        yield (
            *_who(record), str(epsilon), record["defences"][name]["says"],
            _over_seeds(here, "reference_before"), change[0], _over_seeds(here, "subgroup_before"), change[1],
            _over_seeds(here, "subgroup_after"), _over_seeds(asking, "subgroup_after"),
            f"{_over_seeds(here, 'abuse_rate')} / {_over_seeds(asking, 'abuse_rate')}",
            _over_seeds(here, "noise_control"), _over_seeds(here, "zero_query_control"), str(len(here)),
        )  # fmt: skip


def _refusal_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    refusing = (c for c in _sound(record["cells"]) if DEFENCES[c["defence"]].abstain is not None)
    for (name, known, epsilon), here in _grouped(refusing, "defence", "known", "epsilon").items():
        yield (
            *_who(record), str(epsilon), record["defences"][name]["says"],
            "the defended platform" if known else "the platform as it is",
            *(_over_seeds(here, f"refused_{who}") for who in ("reference", "subgroup", "with_delta")),
        )  # fmt: skip


def _fix_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what each training changes for those without δ, against the same training without it, and what is left."""
    epsilon = _first_epsilon(record)
    here = (c for c in record["cells"] if c["epsilon"] == epsilon and not c["known"])
    cells = _grouped(here, "defence")
    for (name,), lines in cells.items():
        if DEFENCES[str(name)].training is None:
            continue
        # The base itself is compared with nothing: what another seed does is in the spread.
        changes = _changes(lines, cells["retrained",], "subgroup_before") if name != "retrained" else []
        yield (
            *_who(record), str(epsilon), record["defences"][name]["says"],
            _signed(changes), ", ".join(f"{c:+.3f}" for c in changes) or "–",
            told(c["gap_before"] for c in lines), _signed([c["subgroup_after"] - c["subgroup_before"] for c in lines]),
        )  # fmt: skip


def _limit_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for (per_day,), here in _grouped(record["limits"], "per_day").items():
        by = {line["members"]: line for line in here}
        queries = here[0]["queries"]
        days = (f"{by[m]['days_without_certificate']:.0f} / {by[m]['days']:.0f}" for m in MEMBERS)
        yield (_who(record)[0], str(queries["pool"]), str(sum(queries.values())), str(per_day), *days)


def _detector_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    sets = {
        stream: {s for line in lines for s in line["sets"]}
        for (stream,), lines in _grouped(record.get("streams", []), "stream").items()
    }
    for (stream, detector), here in _grouped(record["detectors"], "stream", "detector").items():
        total, long, flagged = _counted(here)
        yield (
            _who(record)[0], str(stream), f"{statistics.fmean(line['pictures'] for line in here):.0f}", str(total),
            str(len(sets[stream])) if stream in sets else "–", str(detector), f"{long} of {total}",
            f"{flagged / long:.0%}" if long else "–", _pictures_flagged(here),
        )  # fmt: skip


def _counted(lines: Sequence[Line]) -> tuple[int, int, int]:
    """Return how many streams there are over all seeds, how many are long enough, and how many of these are flagged."""
    long, flagged = (
        sum(round(line[k] * line["streams"]) for line in lines) for k in ("long_enough", "streams_flagged")
    )
    return sum(line["streams"] for line in lines), long, flagged


def _pictures_flagged(lines: Sequence[Line]) -> str:
    known = [line["pictures_flagged"] for line in lines if line.get("pictures_flagged") is not None]
    return f"{statistics.fmean(known):.1%}" if known else "–"


def _composition(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what PRADA's alarms on the pool are worth beside those on nobody's action of the same composition."""
    prada = [line for line in record["detectors"] if line["detector"].startswith("PRADA")]
    by = _grouped(prada, "stream")
    (_, pools, alarms), (_, mixes, same) = (_counted(by[k,]) for k in ("pool, all keys", "honest, mixed as the pool"))
    if not pools or not mixes:
        return
    pool, mixed = alarms / pools, same / mixes
    if not pool:
        meaning = "it does not see the pool"
    elif mixed >= pool:
        meaning = "the mix of the two groups alone is enough for its alarms, so that they say nothing of the action"
    else:
        meaning = "the mix of the two groups alone does not explain all of its alarms"
    yield (
        f"- {_who(record)[0]}: PRADA flags {pool:.0%} of the pool's streams and {mixed:.0%} of honest streams that are "
        f"mixed as the pool is: {meaning}."
    )


def _exposure_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    epsilon = _first_epsilon(record)
    lines = (e for e in record["exposure"] if e["epsilon"] == epsilon)
    for (of, count, _), here in _grouped(lines, "of", "submissions", "share").items():
        draws = sorted({line["draws"] for line in here})
        yield (
            *_who(record), str(epsilon), str(of), f"{here[0]['with_delta']} of {count}",
            " or ".join(map(str, draws)),
            *(_over_seeds(here, k) for k in ("cosine", "area", "area_where_the_file_is_known")),
        )  # fmt: skip

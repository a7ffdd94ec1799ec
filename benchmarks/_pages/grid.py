"""The page of the grid: what has been run of it, and what has not."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._credit import CHANCE
from benchmarks._document import results, table, told, within
from benchmarks._grid import MOST_GIB, STUDIES, TRACKS_OF_GRID, Planned, planned
from benchmarks._kept_rows import closed_span, over_seeds, rate_span
from benchmarks._tracks import TRACKS

__all__ = ["marks", "table_file"]

#: The studies want so many seeds.
_SEEDS = 3
#: Of a row, what the CSV file has beside the cell's own words.
_FIELDS = (
    "epsilon", "recipe", "backbone", "queries_pool", "queries_race", "queries_baseline", "queries_verification",
    "reference_before", "subgroup_before", "subgroup_after", "subgroup_after_lower", "subgroup_after_upper",
    "gap_closed", "certified", "parity_certified", "persons_verification", "certificate_lower", "abuse_rate",
    "noise_control", "proxy_class_control", "class_agnostic_control", "zero_query_control", "zero_query_epochs",
    "paired_p", "paired_b", "paired_c", "jpeg75_control", "resize_control", "reference_after", "fidelity_subgroup",
    "fidelity_reference", "worst_group_before", "worst_group_after", "equal_opportunity_gap_before",
    "equal_opportunity_gap_after", "demographic_parity_ratio_before", "demographic_parity_ratio_after",
)  # fmt: skip
_CELL = ("track", "regime", "answers", "queries", "seed", "people")
_COSTS = ("commit", "code", "threads", "seconds", "peak_rss_mb")
#: Columns that say what a line is about.
_HEAD = ("track", "regime, answers", "Q", "ε", "seeds, certified")


def marks(folder: Path) -> Mapping[str, str]:
    """Return what stands between the page's marks, from a folder of result files."""
    found, own = _found(folder), {cell.name for cell in planned()}
    others = sum(cell.name not in own and not cell.final for cell, _ in found)
    more = " So has one cell of another track." if others == 1 else f" So have {others} cells of other tracks."
    ran = len(found) - others
    return {
        "run": f"{ran} of {len(own)} cells have been run.{more if others else ''}",
        "rows": table(
            (*_HEAD, "reference / subgroup before", "S (95 %)", "gap closed (95 %)", "zero-query; queries helped in"),
            _lines(found),
        ),
        "costs": table(
            ("cell", "recipe", "minutes", "peak MiB", f"within {MOST_GIB:g} GiB", "threads, GPU", "commit"),
            _costs(found),
        ),
        "missing": _missing(found),
        "studies": table(("file", "command", "is"), _studies(folder)),
    }


def table_file(folder: Path) -> str:
    """Return the CSV file that the page links: every row of every cell, from a folder of result files."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_CELL, *_FIELDS, *_COSTS))
    for _, record in _found(folder):
        for line in record["cell"]["rows"]:
            row = line["row"]
            writer.writerow(
                [
                    *(record["cell"]["people"] if key == "people" else row[key] for key in _CELL),
                    *("" if row.get(key) is None else row[key] for key in _FIELDS),
                    *(record[key] for key in _COSTS),
                ]
            )
    return text.getvalue()


def _found(folder: Path) -> list[tuple[Planned, Mapping[str, Any]]]:
    """Return the cells that are kept, in the plan's order, other tracks' behind the grid's own, and then all of final
    people.
    """
    kept = {record["name"]: record for _, record in results("*.json", folder / "grid")}
    others = [name for name in TRACKS if name not in TRACKS_OF_GRID]
    every = [cell for final in (False, True) for of in (TRACKS_OF_GRID, others) for cell in planned(of, final=final)]
    return [(cell, kept[cell.name]) for cell in every if cell.name in kept]


def _lines(found: Sequence[tuple[Planned, Mapping[str, Any]]]) -> Iterator[Sequence[object]]:
    """Yield one line per track, regime, answers, budget, people and ε, over seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell, record in found:
        people = record["cell"]["people"]
        about = (f"{cell.track}, {people}", f"{cell.regime}, {record['cell']['answers']}", cell.queries)
        for line in record["cell"]["rows"]:
            row = line["row"]
            # Where nothing won there is one row, whatever ε is asked for.
            which = "nothing won" if row["recipe"] == "nothing" else str(row["epsilon"])
            groups.setdefault((*about, which), []).append(row)
    for (track, how, queries, which), rows in groups.items():
        after = [row["subgroup_after"] for row in rows]
        span = over_seeds(after, [rate_span(row, "subgroup_after") for row in rows], least=0, most=1)
        before = f"{told(r['reference_before'] for r in rows)} / {told(r['subgroup_before'] for r in rows)}"
        mean = sum(after) / len(after)
        certified = sum(bool(row["parity_certified"]) for row in rows)
        yield (
            track, how, f"{queries:,}", which, f"{len(rows)}, {certified}", before, within(mean, span), _closed(rows),
            _helped(rows),
        )  # fmt: skip


def _closed(rows: Sequence[Mapping[str, Any]]) -> str:
    closed = [row["gap_closed"] for row in rows]
    if any(value is None for value in closed):
        return "–"
    return within(sum(closed) / len(closed), over_seeds(closed, [closed_span(row) for row in rows]))


def _helped(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return S of the zero-query control, and in how many seeds the queries bought more, or less, beyond chance."""
    known = [row for row in rows if row["zero_query_control"] is not None and row["paired_p"] is not None]
    if not known:
        return "–"
    shown = [r["subgroup_after"] - r["zero_query_control"] for r in known if r["paired_p"] < CHANCE]
    more, less = sum(gain > 0 for gain in shown), sum(gain < 0 for gain in shown)
    said = f"{more} of {len(known)}{f', less in {less}' if less else ''}"
    return f"{told(row['zero_query_control'] for row in known)}; {said}"


def _costs(found: Sequence[tuple[Planned, Mapping[str, Any]]]) -> Iterator[Sequence[object]]:
    for cell, record in found:
        rows = record["cell"]["rows"]
        recipe = rows[0]["row"]["recipe"] if rows else f"no action: {record['cell']['impossible']}"
        peak = record["peak_rss_mb"]
        yield (
            f"`{cell.name}`", recipe, f"{record['seconds'] / 60:.1f}", f"{peak:,.0f}",
            "yes" if peak <= MOST_GIB * 1024 else "no", _computed_by(record), record["commit"],
        )  # fmt: skip


def _computed_by(record: Mapping[str, Any]) -> str:
    """Return how many threads there were, and which GPU."""
    gpu = record["hardware"].get("gpu")
    return f"{record['threads']}, {gpu}" if gpu else str(record["threads"])


def _missing(found: Sequence[tuple[Planned, Mapping[str, Any]]]) -> str:
    """Return what was not run, part by part."""
    there = {cell.name for cell, _ in found}
    parts: dict[str, dict[str, list[int]]] = {}
    for cell in planned():
        if cell.name not in there:
            of = parts.setdefault(f"{cell.part}, Q = {cell.queries:,}", {})
            of.setdefault(cell.track, []).append(cell.seed)
    if not parts:
        return "Every cell was run."
    return "\n".join(f"- *{part}*: {_listed(tracks)}" for part, tracks in parts.items())


def _listed(tracks: Mapping[str, Sequence[int]]) -> str:
    """Return tracks and their seeds; those of the same seeds together."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for track, seeds in tracks.items():
        alike.setdefault(tuple(seeds), []).append(track)
    return "; ".join(f"{', '.join(names)}: {', '.join(map(str, seeds))}" for seeds, names in alike.items())


def _studies(folder: Path) -> Iterator[Sequence[object]]:
    for file, command in STUDIES.items():
        seeds = _seeds(folder / file)
        state = "run" if seeds >= _SEEDS else f"run with {seeds} seed{'s' if seeds > 1 else ''}" if seeds else "not run"
        yield f"`{file}`", f"`{command}`", state


def _seeds(path: Path) -> int:
    """Return how many seeds a result file is from."""
    if not path.is_file():
        return 0
    record = json.loads(path.read_text(encoding="utf-8"))
    return len(record.get("seeds") or {cell["seed"] for cell in record["cells"]})

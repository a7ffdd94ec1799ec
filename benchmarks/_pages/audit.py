"""The page of audits, discoveries and plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, commands, table

__all__ = ["recheck_tables", "tables"]


def tables(found: Sequence[tuple[str, Any]]) -> Mapping[str, str]:
    """Return what stands between the marks of docs/audit.md."""
    if not found:
        return dict.fromkeys(("commands", "word", "planted"), MISSING)
    record = found[0][1]
    return {"commands": commands(found), "word": _word(record), "planted": _planted(record)}


def recheck_tables(found: Sequence[tuple[str, Any]]) -> Mapping[str, str]:
    """Return what stands between the marks of docs/recheck.md."""
    if not found or "recheck_curve" not in found[0][1]:
        return {"recheck": MISSING}
    record = found[0][1]
    curve = [
        [
            f"{100 * row['moved']:.0f} %", f"{row['persons']}", f"{100 * row['noisy']:.0f} %", f"{row['quiet']}",
            f"{row['queries']:.0f} ± {row['standard_error']:.0f}", f"{row['median']:.0f}", _percent(row["found"]),
        ]
        for row in record["recheck_curve"]
    ]  # fmt: skip
    steady = [
        [row["kind"], f"{row['persons']}", _percent(row["false_alarms"]), _percent(row["upper_95"])]
        for row in record["recheck_steady"]
    ]
    heads = ["answers moved", "asked three times", "persons in two minds", "quiet looks before", "queries, mean"]
    about = (
        f"Queries that find a swap, mean with its standard error, of {record['recheck_swaps']:,} simulated swaps each; "
        "who was not found within 4,000 queries counts with 4,000:"
    )
    alarms = (
        f"Platforms that never change, {record['recheck_series']:,} of each kind, looked at "
        f"{record['recheck_looks']:,} times: how many had even one alarm, and its upper bound at 95 %:"
    )
    parts = [
        commands(found),
        about,
        table([*heads, "median", "found"], curve),
        alarms,
        table(["platform", "asked three times", "any alarm", "at most"], steady),
    ]
    return {"recheck": "\n\n".join(parts)}


def _word(record: Mapping[str, Any]) -> str:
    """Return what was promised, beside what was measured."""
    rows = [
        ["95 % intervals hold the truth, least often", "at least 93 %", _percent(record["coverage"])],
        ["a gap is claimed where there is none", "at most 5 %", _percent(record["two_group_error"])],
        ["the smallest gap is seen", "80 %", _percent(record["seen"])],
        ["a hidden group of a fifth, 15 points worse, is found", "at least 80 %", _percent(record["discovered"])],
        ["of what is found, false", "at most 5 %", _percent(record["false_discovery"])],
        ["how surely a plan certifies, off by at most", "2 points", f"{100 * record['plan_power_error']:.1f} points"],
    ]
    return table(["what", "promised", "measured"], rows)


def _planted(record: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{100 * row['share']:.0f} %",
            f"{100 * row['gap']:.0f} points" if row["gap"] else "none",
            f"{row['audits']:,}",
            "" if row["discovered"] is None else _percent(row["discovered"]),
            "" if row["split_discovered"] is None else _percent(row["split_discovered"]),
            _percent(row["false_discovery"]),
        ]
        for row in record["planted"]
    ]
    return table(["people in the group", "gap", "audits", "found", "found by a split", "false"], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

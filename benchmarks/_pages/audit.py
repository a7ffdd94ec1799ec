"""The page of audits, discoveries and plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, commands, table

__all__ = ["tables"]


def tables(found: Sequence[tuple[str, Any]]) -> Mapping[str, str]:
    """Return what stands between the marks of docs/audit.md."""
    if not found:
        return dict.fromkeys(("commands", "word", "planted"), MISSING)
    record = found[0][1]
    return {"commands": commands(found), "word": _word(record), "planted": _planted(record)}


def _word(record: Mapping[str, Any]) -> str:
    """Return what was promised, beside what was measured."""
    rows = [
        ["95 % intervals hold the truth, least often", "at least 93 %", _percent(record["coverage"])],
        ["a gap is claimed where there is none", "at most 5 %", _percent(record["two_group_error"])],
        ["the smallest gap is seen", "80 %", _percent(record["seen"])],
        ["a planted group of a fifth, 15 points worse, is found", "at least 80 %", _percent(record["discovered"])],
        ["of what is found, false", "at most 5 %", _percent(record["false_discovery"])],
        ["power of a plan, off by at most", "2 points", f"{100 * record['plan_power_error']:.1f} points"],
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

"""The page of an organizer's evening: how long it took, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, commands, table

__all__ = ["tables"]


def tables(found: Sequence[tuple[str, Any]]) -> Mapping[str, str]:
    """Return what stands between the marks of docs/evening.md."""
    if not found:
        return {"evening": MISSING}
    record = found[0][1]
    rows = [
        [
            str(one["seed"]),
            "30 points" if one["gap"] else "none",
            *(f"{one['steps'].get(step, 0.0):.0f} s" for step in ("prepare", "audit", "plan", "run")),
            f"{one['seconds'] / 60:.1f} min",
            _end(one),
            one.get("commit", record["commit"]),
        ]
        for one in record["evenings"]
    ]
    heads = ["seed", "planted gap", "prepare", "audit", "plan", "both runs", "all", "end", "commit"]
    about = f"{record['photographs']} photographs, {record['size']} pixels, two cores, at defaults:"
    return {"evening": "\n\n".join([commands(found), about, table(heads, rows)])}


def _end(one: Mapping[str, Any]) -> str:
    if one["certified"]:
        return "certified"
    return "not certified" if one["verified"] else "stopped before verification"

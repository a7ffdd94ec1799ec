"""The page that says whether certificates keep their word and what they cost: a result file in, tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, commands, table

__all__ = ["tables"]

_STOPPING = ("curtailed", "anytime", "hybrid")


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from the result file of ``benchmarks bounds`` and its name."""
    if not found:
        return dict.fromkeys(
            ("certificates-summary", *(f"certificates-{s}" for s in _STOPPING), "certificates-images",
             "certificates-wrong", "certificates-costs", "certificates-rows", "certificates-power",
             "certificates-command"),
            MISSING,
        )  # fmt: skip
    name, record = found[-1]
    return {
        "certificates-summary": _summary(name, record),
        **{f"certificates-{stopping}": _errors(record, stopping) for stopping in _STOPPING},
        "certificates-images": _images(record),
        "certificates-wrong": _wrong(record),
        "certificates-costs": _costs(record),
        "certificates-rows": _rows(record),
        "certificates-power": _power(record),
        "certificates-command": f"{commands(found)}, {record['seconds']:.0f} s",
    }


def _summary(name: str, record: Mapping[str, Any]) -> str:
    tracks = record["costs"]["tracks"]
    largest = max(tracks, key=lambda row: float(row["curtailed_row_ratio"]))
    weakest = min(record["intervals"]["above_stated"].items(), key=lambda item: float(item[1]))
    lines = [
        ("largest share of false claims, curtailed tests", f"{record['per_action_error']:.4f}"),
        ("largest share of false claims, anytime and hybrid tests", f"{record['anytime_error']:.4f}"),
        (
            f"all {record['configurations']} configurations within .05 (exact, one-sided, Bonferroni)",
            f"{'yes' if record['within_error'] else '**no**'}, least p {record['least_p']:.2g} against "
            f"{record['p_needed']:.2g}",
        ),
        ("largest share of quoted lower bounds above S", f"{record['bound_error']:.4f}"),
        (
            "curtailed queries by those of the same test on everybody, largest track",
            f"{record['queries_ratio']:.3f}",
        ),
        (
            "certificate and controls by what they cost before, mean of the tracks",
            f"{record['row_queries_ratio']:.3f}",
        ),
        (f"the same, largest ({largest['track']})", f"{record['largest_row_queries_ratio']:.3f}"),
        ("power of *improvement*, .78 to .85, 299 persons, φ = .5", f"{record['power']:.3f}"),
        (f"coverage less 95 %, smallest of all intervals ({weakest[0]})", f"{record['interval_coverage']:+.4f}"),
    ]
    return table(("what", f"`{name}`"), lines)


def _errors(record: Mapping[str, Any], stopping: str) -> str:
    lines = []
    for row in record["false_claims"]:
        if row["stopping"] != stopping:
            continue
        paired = row["together"] is not None
        who = f"{row['persons']}, same" if paired else f"{row['persons']} and {row['others']}"
        if not row["others"]:
            who = str(row["persons"])
        lines.append((
            row["goal"], who, "–" if not row["others"] else _rate(row["accuracy"]),
            f"{row['together']:g}" if paired else "–", _else(row), row["actions"], row["false_claims"],
            f"{row['rate']:.4f}", f"{row['p']:.2g}",
        ))  # fmt: skip
    head = ("goal", "persons", "A", "ρ", "and", "actions", "false claims", "share", "p of more than .05")
    return table(head, lines)


def _else(row: Mapping[str, Any]) -> str:
    said = []
    if row["unresolved"]:
        said.append(f"{100 * row['unresolved']:g} % unresolved")
    success = row["success"]
    if len(success) > 1:
        works = sum(s > min(success) for s in success)
        said.append(f"{len(success)} ε" + (f", the largest {works} at parity" if works else ""))
    if row["images"]:
        ours, theirs = row["images"]
        images = str(ours) if ours == theirs else f"{ours} and {theirs}"
        said.append(f"one of {images} images each, ICC {row['icc']:g}")
    return ", ".join(said)


def _images(record: Mapping[str, Any]) -> str:
    lines = [
        (
            row["layout"],
            f"{row['size']:.4f}",
            "yes" if row["admitted"] else "no",
            *((row["actions"], row["false_claims"], f"{row['rate']:.4f}") if row["admitted"] else ("–", "–", "–")),
        )
        for row in record["layouts"]
    ]
    return table(("persons x images", "worst size", "admitted", "actions anew", "false claims", "share"), lines)


def _wrong(record: Mapping[str, Any]) -> str:
    lines = [
        (row["way"], row["actions"], row["false_claims"], f"{row['rate']:.3f}", "yes" if row["caught"] else "**no**")
        for row in record["wrong_ways"]
    ]
    return table(("way", "actions", "false claims", "share", "seen to break its word"), lines)


def _costs(record: Mapping[str, Any]) -> str:
    lines = []
    for row in record["costs"]["tracks"]:
        who = f"{row['persons']}, same" if row["design"] == "paired" else f"{row['persons']} and {row['others']}"
        parts = (f"{row[f'{s}_queries']:.0f} ({row[f'{s}_ratio']:.3f}), {row[f'{s}_certified']:.2f}" for s in _STOPPING)
        lines.append((row["track"], who, f"{row['whole_queries']:.0f}", *parts, row["actions"], f"`{row['file']}`"))
    head = (
        "track",
        "persons",
        "everybody",
        "curtailed (ratio), certified",
        "anytime",
        "hybrid",
        "actions",
        "rates",
    )
    return table(head, lines)


def _rows(record: Mapping[str, Any]) -> str:
    lines = [
        (
            row["track"],
            f"{row['row_queries_before']:.0f}",
            *(f"{row[f'{s}_row_queries']:.0f} ({row[f'{s}_row_ratio']:.3f})" for s in _STOPPING),
        )
        for row in record["costs"]["tracks"]
    ]
    return table(("track", "before", "curtailed (ratio)", "anytime", "hybrid"), lines)


def _power(record: Mapping[str, Any]) -> str:
    lines = [
        (name, f"{row['same']:.3f}", "–" if row["other"] is None else f"{row['other']:.3f}")
        for name, row in record["improvement"]["tests"].items()
    ]
    return table(("test", "the same persons", "as many other persons"), lines)


def _rate(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")

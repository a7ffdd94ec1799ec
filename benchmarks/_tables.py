"""The tables of the documents that show several benchmarks, and of those that no other page shows."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._claims import quoted, spread, verdicts
from benchmarks._document import commands, table, told
from benchmarks._document import results as found
from benchmarks._listing import RESULTS

__all__ = [
    "bounds_table",
    "ceiling_table",
    "claims_table",
    "demo_table",
    "effect_table",
    "matrix_table",
    "repeated_table",
    "results_table",
    "rows_table",
    "slices_table",
    "transfer_commands",
]

_EFFECT = (
    "track, people", "answers, regime", "Q", "ε quoted", "reference / subgroup before", "subgroup with δ", "gap closed",
    "zero-query control", "p, each seed", "parity certified", "abuse", "noise", "class-agnostic", "JPEG 75", "file",
)  # fmt: skip
_CEILING = ("track, people", "regime", "ε", "subgroup with δ", "gap closed", "seeds", "file")
_MATRIX = (
    "proxy", "platform", "platform / proxy, weights", "fidelity subgroup / reference", "reference / subgroup before",
    "subgroup with δ", "gap closed", "zero-query control", "p", "file",
)  # fmt: skip


def effect_table(results: Path = RESULTS) -> str:
    """Return one line per result file of the effect benchmark, as Markdown; mean ± standard deviation over seeds."""
    return table(_EFFECT, [_line(name, record) for name, record in found("effect-*.json", results)])


def ceiling_table(results: Path = RESULTS) -> str:
    """Return one line per ε of every result file of the ceiling benchmark, as Markdown; means over seeds."""
    lines = []
    for name, record in found("ceiling-*.json", results):
        for epsilon in sorted({row["epsilon"] for row in record["rows"]}):
            mean = record["mean"][f"epsilon-{epsilon}"]
            seeds = sum(row["epsilon"] == epsilon for row in record["rows"])
            lines.append(
                (f"{record['track']}, {record['people']}", record["regime"], epsilon, f"{mean['subgroup_after']:.3f}",
                 f"{mean['gap_closed']:.3f}" if "gap_closed" in mean else "–", seeds, f"`{name}`")
            )  # fmt: skip
    return table(_CEILING, lines)


def matrix_table(results: Path = RESULTS) -> str:
    """Return one line per pair of proxy and platform of the architecture matrix, as Markdown."""
    lines: list[Sequence[object]] = []
    for name, record in found("matrix*.json", results):
        for cell in record["cells"]:
            if "failed" in cell:
                size = f"{cell['platform_over_proxy']:.1f}"
                lines.append((cell["proxy"], cell["platform"], size, cell["failed"], *["–"] * 5, f"`{name}`"))
                continue
            row = cell["row"]
            lines.append(
                (
                    cell["proxy"], cell["platform"], f"{cell['platform_over_proxy']:.1f}",
                    f"{row['fidelity_subgroup']:.3f} / {row['fidelity_reference']:.3f}",
                    f"{row['reference_before']:.3f} / {row['subgroup_before']:.3f}", f"{row['subgroup_after']:.3f}",
                    "–" if row["gap_closed"] is None else f"{row['gap_closed']:.3f}",
                    f"{row['zero_query_control']:.3f}", f"{cell['zero_query_mcnemar_p']:.2g}", f"`{name}`",
                )
            )  # fmt: skip
    return table(_MATRIX, lines)


def results_table(results: Path = RESULTS) -> str:
    """Return the README's table: every track's largest budget at the ε that certificates quote, on final people."""
    lines = []
    for name, record in found("transfer-quick-*.json", results):
        part = quoted(record)
        if part is None:
            continue
        rows = part.rows
        lines.append(
            (
                record["track"],
                _mean(rows, "reference_before"),
                _mean(rows, "subgroup_before"),
                f"**{told(row['subgroup_after'] for row in rows)}**",
                told(row["zero_query_control"] for row in rows),
                _mean(rows, "abuse_rate"),
                f"`{name}`",
            )
        )
    return table(_SHORT, lines)


def rows_table(results: Path = RESULTS) -> str:
    """Return every budget and ε of every track's quick grid, on final people; mean ± standard deviation."""
    lines: list[Sequence[object]] = []
    for name, record in found("transfer-quick-*.json", results):
        grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for cell in record["cells"]:
            for line in cell["rows"]:
                if line["people"] == "final":
                    key = (cell["regime"], cell["answers"], cell["queries"], line["row"]["epsilon"])
                    grouped.setdefault(key, []).append(line)
        for (regime, answers, queries, epsilon), group in sorted(grouped.items()):
            rows = [line["row"] for line in group]
            lines.append(
                (
                    f"{record['track']}, {regime}, {answers}",
                    queries,
                    epsilon,
                    len(rows),
                    f"{_mean(rows, 'reference_before')} / {_mean(rows, 'subgroup_before')}",
                    told(row["subgroup_after"] for row in rows),
                    told(row["gap_closed"] for row in rows),
                    told(row["zero_query_control"] for row in rows),
                    spread([row["subgroup_after"] - row["zero_query_control"] for row in rows]),
                    _chances(group),
                    f"{sum(bool(row['parity_certified']) for row in rows)} of {len(rows)}",
                    *(_mean(rows, key) for key in (*_CONTROLS, "jpeg75_control", "resize_control")),
                    _mean(rows, "reference_after"),
                    _mean(rows, "coverage"),
                    _paid(rows),
                    f"`{name}`",
                )
            )
        for cell in record["cells"]:
            if "failed" in cell:
                what = f"{cell['regime']}, {cell['answers']}, Q = {cell['queries']}, seed {cell['seed']}"
                blank = ["–"] * (len(_LONG) - 2)
                lines.append((f"{record['track']}: no action ({what}): {cell['failed']}", *blank, f"`{name}`"))
    return table(_LONG, lines)


def repeated_table(results: Path = RESULTS) -> str:
    """Return which cells were run twice, and what differed."""
    lines = [
        (record["track"], record["repeated"]["cells"], ", ".join(record["repeated"]["differing"]) or "nothing",
         f"`{name}`")
        for name, record in found("transfer-quick-*.json", results)
        if record["repeated"] is not None
    ]  # fmt: skip
    return table(("track", "cells run twice", "what differed, clocks and memory apart", "file"), lines)


def claims_table(results: Path = RESULTS) -> str:
    """Return the paper's claims with their verdicts."""
    lines = [(v.claim, v.where, f"*{v.word}*", v.number, f"`{v.file}`") for v in verdicts(results)]
    return table(("claim", "where", "verdict", "number", "file"), lines)


def transfer_commands(results: Path = RESULTS) -> str:
    """Return the commands that made the quick grids."""
    return commands(found("transfer-quick-*.json", results))


def demo_table(results: Path = RESULTS) -> str:
    """Return the tutorial's table of the demo."""
    record = json.loads((results / "demo.json").read_text(encoding="utf-8"))
    rows = record["rows"]
    lines = [(what, told(row[key] for row in rows)) for key, what in _DEMO.items()]
    lines.append(("ε that was quoted, each seed, levels of 255", ", ".join(str(r["epsilon"]) for r in rows)))
    lines.append(("parity certified, by verification people alone", f"{record['parity_certified']} of {len(rows)}"))
    for key, what in (("pool", "the pool"), ("audit", "the audit"), ("verification", "verification")):
        paid = sorted({row[f"queries_{key}"] for row in rows})
        lines.append((f"queries for {what}", " or ".join(map(str, paid))))
    return table((f"accuracy on {record['subgroup_test_people']} test people per group, {len(rows)} seeds", ""), lines)


def bounds_table(results: Path = RESULTS) -> str:
    """Return how often simulated certificates claimed falsely, by how they stop, and by ways that break their word."""
    record = json.loads((results / "bounds.json").read_text(encoding="utf-8"))
    lines: list[Sequence[object]] = []
    for stopping in ("curtailed", "anytime", "hybrid"):
        rows = [row for row in record["false_claims"] if row["stopping"] == stopping]
        worst = max(rows, key=lambda row: float(row["rate"]))
        broken = f"{max(row['bound_rate'] for row in rows):.4f}"
        counts = (f"a certificate, {stopping}", len(rows), worst["actions"])
        lines.append((*counts, f"{worst['rate']:.4f}", f"{worst['p']:.2g}", broken, "`bounds.json`"))
    lines += [
        (f"*{row['way']}*", 1, row["actions"], f"{row['rate']:.4f}", f"{row['p']:.2g}", "–", "`bounds.json`")
        for row in record["wrong_ways"]
    ]
    head = ("way", "configurations", "actions in each", "claimed falsely, at most", "p of more than .05",
            "bound on S broken, at most", "file")  # fmt: skip
    return table(head, lines)


def slices_table(results: Path = RESULTS) -> str:
    """Return what the slice of every benchmark took on one machine, from an empty cache, and which failed."""
    lines: list[Sequence[object]] = []
    for name, record in found("quick.json", results):
        lines += [
            (
                slice_,
                f"`{shlex.join(part['arguments'])}`" if part["arguments"] else "",
                part.get("failed", f"{part['seconds']:.0f}"),
                f"`{name}`",
            )
            for slice_, part in record["slices"].items()
        ]
        lines.append(("all", "", f"{record['seconds']:.0f}", f"`{name}`"))
    return table(("slice", "arguments", "seconds", "file"), lines)


#: The tutorial's lines about the demo, by the key of the row.
_DEMO = {
    "reference_before": "reference group, as it is",
    "subgroup_before": "subgroup, as it is",
    "subgroup_after": "**subgroup with δ of the true class**",
    "noise_control": "with random noise of the same ε",
    "zero_query_control": "with the δ of a proxy that asked nothing (true classes of the same people)",
    "proxy_class_control": "with the δ of the class the proxy picks, not knowing the truth",
    "class_agnostic_control": "with one δ for all classes",
    "abuse_rate": "abuse: δ of a wrong class makes the platform say that class",
    "gap_closed": "gap closed (more than 1: the subgroup ends above the reference, for it brings its true class along)",
}
_CONTROLS = ("noise_control", "class_agnostic_control", "proxy_class_control", "abuse_rate")
_SHORT = ("platform", "reference", "subgroup", "with δ", "δ that asked nothing", "abuse", "file")
_LONG = (
    "track, regime, answers", "Q", "ε", "seeds", "reference / subgroup before", "subgroup with δ", "gap closed",
    "zero-query control", "S − control (95 %, over seeds)", "p, each seed", "parity certified", "noise",
    "class-agnostic", "proxy's class", "abuse", "JPEG 75", "resize", "reference with δ", "coverage",
    "paid: pool + audit + verification", "file",
)  # fmt: skip


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return f"{statistics.fmean(values):.3f}" if values else "–"


def _chances(lines: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{line['zero_query_mcnemar_p']:.2g}" for line in lines)


def _paid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the members paid, by what for; from the least to the most where seeds differ."""
    parts = []
    for purpose in ("pool", "audit", "verification"):
        paid = [int(row[f"queries_{purpose}"]) for row in rows]
        parts.append(f"{min(paid):,}" if min(paid) == max(paid) else f"{min(paid):,}–{max(paid):,}")
    return " + ".join(parts)


def _older_test(record: Mapping[str, Any]) -> bool:
    """Whether certificates are of the format whose parity took two bounds that must not overlap."""
    return any(certificate["format"] == 1 for certificate in record.get("certificates", ()))


def _line(name: str, record: Mapping[str, Any]) -> Sequence[object]:
    rows = record["rows"]
    return (
        f"{record['track']}, {record['people']}",
        f"{rows[0]['answers']}, {record.get('regime', rows[0]['regime'])}",
        rows[0]["queries"],
        ", ".join(str(row["epsilon"]) for row in rows),
        f"{_mean(rows, 'reference_before')} / {_mean(rows, 'subgroup_before')}",
        *(told(row[key] for row in rows) for key in ("subgroup_after", "gap_closed", "zero_query_control")),
        ", ".join(f"{p:.2g}" for p in record["zero_query_mcnemar_p"]),
        f"{record['parity_certified']} of {len(rows)}" + (" (two bounds)" if _older_test(record) else ""),
        *(
            told(row[key] for row in rows)
            for key in ("abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control")
        ),
        f"`{name}`",
    )

"""The tables in the documents, written from the result files: ``python -m benchmarks._tables``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ceiling_table", "effect_table", "matrix_table", "rewritten"]

_RESULTS = Path(__file__).resolve().parent / "results"
_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "effect.md"
_HEAD = (
    "| track, people | answers, regime | Q | ε quoted | reference / subgroup before | subgroup with δ | gap closed "
    "| zero-query control | p, each seed | parity certified | abuse | noise | class-agnostic | JPEG 75 | file |"
)


_CEILING = "| track, people | regime | ε | subgroup with δ | gap closed | seeds | file |"
_MATRIX = (
    "| proxy | platform | platform / proxy, weights | fidelity subgroup / reference | reference / subgroup before "
    "| subgroup with δ | gap closed | zero-query control | p | file |"
)


def effect_table(results: Path = _RESULTS) -> str:
    """Return one line per result file of the effect benchmark, as Markdown; mean ± standard deviation over seeds."""
    return _table(_HEAD, [_line(name, found) for name, found in _found(results, "effect-*.json")])


def ceiling_table(results: Path = _RESULTS) -> str:
    """Return one line per ε of every result file of the ceiling benchmark, as Markdown; means over seeds."""
    lines = []
    for name, found in _found(results, "ceiling-*.json"):
        for epsilon in sorted({row["epsilon"] for row in found["rows"]}):
            mean = found["mean"][f"epsilon-{epsilon}"]
            seeds = sum(row["epsilon"] == epsilon for row in found["rows"])
            cells = (f"{found['track']}, {found['people']}", found["regime"], epsilon, f"{mean['subgroup_after']:.3f}",
                     f"{mean['gap_closed']:.3f}", seeds, f"`{name}`")  # fmt: skip
            lines.append(_joined(cells))
    return _table(_CEILING, lines)


def matrix_table(results: Path = _RESULTS) -> str:
    """Return one line per pair of proxy and platform of the architecture matrix, as Markdown."""
    lines = []
    for name, found in _found(results, "matrix*.json"):
        for cell in found["cells"]:
            if "failed" in cell:
                size = f"{cell['platform_over_proxy']:.1f}"
                lines.append(_joined((cell["proxy"], cell["platform"], size, cell["failed"], *["–"] * 5, f"`{name}`")))
                continue
            row = cell["row"]
            cells = (
                cell["proxy"], cell["platform"], f"{cell['platform_over_proxy']:.1f}",
                f"{row['fidelity_subgroup']:.3f} / {row['fidelity_reference']:.3f}",
                f"{row['reference_before']:.3f} / {row['subgroup_before']:.3f}", f"{row['subgroup_after']:.3f}",
                "–" if row["gap_closed"] is None else f"{row['gap_closed']:.3f}", f"{row['zero_query_control']:.3f}",
                f"{cell['zero_query_mcnemar_p']:.2g}", f"`{name}`",
            )  # fmt: skip
            lines.append(_joined(cells))
    return _table(_MATRIX, lines)


#: What stands between the marks of each name.
_TABLES = {"effect": effect_table, "ceiling": ceiling_table, "matrix": matrix_table}


def rewritten(document: str, results: Path = _RESULTS) -> str:
    """Return the document with the tables between their marks written anew."""
    for name, table in _TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not block.search(document):
            raise ValueError(f"Expected the marks <!-- {name} --> and <!-- /{name} --> in the document, got none.")
        # No backslash of a table means anything to re.
        document = block.sub(r"\1" + table(results).replace("\\", r"\\") + r"\2", document)
    return document


def _found(results: Path, pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(results.glob(pattern)):
        yield path.name, json.loads(path.read_text(encoding="utf-8"))


def _older_test(found: dict[str, Any]) -> bool:
    """Whether certificates are of the format whose parity took two bounds that must not overlap."""
    return any(certificate["format"] == 1 for certificate in found.get("certificates", ()))


def _table(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *lines]) + "\n"


def _joined(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _line(name: str, found: dict[str, Any]) -> str:
    rows, mean, spread = found["rows"], found["mean"], found["standard_deviation"]

    def shown(key: str) -> str:
        return f"{mean[key]:.3f} ± {spread[key]:.3f}" if key in spread else f"{mean[key]:.3f}"

    cells = [
        f"{found['track']}, {found['people']}",
        f"{rows[0]['answers']}, {found.get('regime', rows[0]['regime'])}",
        str(rows[0]["queries"]),
        ", ".join(str(row["epsilon"]) for row in rows),
        f"{mean['reference_before']:.3f} / {mean['subgroup_before']:.3f}",
        shown("subgroup_after"),
        shown("gap_closed"),
        shown("zero_query_control"),
        ", ".join(f"{p:.2g}" for p in found["zero_query_mcnemar_p"]),
        f"{found['parity_certified']} of {len(rows)}" + (" (two bounds)" if _older_test(found) else ""),
        *(shown(key) for key in ("abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control")),
        f"`{name}`",
    ]
    return _joined(cells)


if __name__ == "__main__":
    before = _DOCUMENT.read_text(encoding="utf-8")
    _DOCUMENT.write_text(rewritten(before), encoding="utf-8")
    sys.stderr.write(f"Written: {_DOCUMENT}\n")

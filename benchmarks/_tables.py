"""The tables in the documents, written from the result files: ``python -m benchmarks._tables``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["effect_table", "rewritten"]

_RESULTS = Path(__file__).resolve().parent / "results"
_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "effect.md"
_BLOCK = re.compile(r"(<!-- effect -->\n).*?(<!-- /effect -->)", re.DOTALL)
_HEAD = (
    "| track, people | answers, regime | Q | ε quoted | reference / subgroup before | subgroup with δ | gap closed "
    "| zero-query control | p, each seed | parity certified | abuse | noise | class-agnostic | JPEG 75 | file |"
)


def effect_table(results: Path = _RESULTS) -> str:
    """Return one line per result file of the effect benchmark, as Markdown; mean ± standard deviation over seeds."""
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for path in sorted(results.glob("effect-*.json")):
        lines.append(_line(path.name, json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join(lines) + "\n"


def rewritten(document: str, results: Path = _RESULTS) -> str:
    """Return the document with the table between its marks written anew."""
    if not _BLOCK.search(document):
        raise ValueError("Expected the marks <!-- effect --> and <!-- /effect --> in the document, got none.")
    return _BLOCK.sub(lambda m: m[1] + effect_table(results) + m[2], document)


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
        f"{found['parity_certified']} of {len(rows)}",
        *(shown(key) for key in ("abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control")),
        f"`{name}`",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    before = _DOCUMENT.read_text(encoding="utf-8")
    _DOCUMENT.write_text(rewritten(before), encoding="utf-8")
    sys.stderr.write(f"Written: {_DOCUMENT}\n")

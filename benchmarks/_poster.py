"""What docs/minority.md says beside the poster's numbers: its own rule on our data, and how often Random beat RB-prob.

``python -m benchmarks._poster`` writes it from the result file, measuring nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._document import filled, grid

__all__ = ["beside_the_poster", "random_wins", "rewritten"]

_HOME = Path(__file__).resolve().parent
_RESULT = _HOME / "results" / "minority.json"
_DOCUMENT = _HOME.parent / "docs" / "minority.md"
_NAMES = {"compas": "COMPAS", "acs_income": "ACS-Income", "adult": "Adult"}
_MISSING = "In how many seeds Random beat RB-prob is not measured yet."


def beside_the_poster(record: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: per α the poster's EqOd, the best on test people, and that of our rule."""
    lines = [
        (_NAMES[key], alpha, f"{there:.3f}", f"{_best(row, alpha):.3f}", f"{row['best_eqod_by_alpha'][alpha]:.3f}")
        for key, row in record["data_sets"].items()
        for alpha, there in (row["poster"] or {"best_eqod_by_alpha": {}})["best_eqod_by_alpha"].items()
    ]
    return grid(("data set", "α", "poster", "the poster's rule, here", "our rule, here"), lines)


def _best(row: Mapping[str, Any], alpha: str) -> float:
    return float(row["methods"]["RB-prob"][alpha]["rules"]["on_test_rows"]["eqod"])


def random_wins(record: Mapping[str, Any]) -> str:
    """Return the sentences that say in how many seeds Random left the smaller EqOd on test people."""
    rows = record["data_sets"]
    if any("random_beats_rb_prob" not in row for row in rows.values()):
        return _MISSING
    said = []
    for alpha in ("0.3", "0.1"):
        found = [(_NAMES[key], row["random_beats_rb_prob"][alpha]) for key, row in rows.items()]
        wins = [
            f"in {won['smaller']} of {won['seeds']} seeds on {name}"
            + (f" ({won['equal']} alike)" if won["equal"] else "")
            for name, won in found
        ]
        together = f"{', '.join(wins[:-1])} and {wins[-1]}" if len(wins) > 1 else wins[0]
        said.append(f"At α = {alpha} Random beat RB-prob {together}.")
    return "\n".join(said)


def rewritten(document: str, record: Mapping[str, Any]) -> str:
    """Return the document with both between the mark ``poster``; ConfigError if there is none."""
    return filled(document, {"poster": "\n".join([*beside_the_poster(record), "", random_wins(record)])})


if __name__ == "__main__":
    kept = json.loads(_RESULT.read_text(encoding="utf-8"))
    _DOCUMENT.write_text(rewritten(_DOCUMENT.read_text(encoding="utf-8"), kept), encoding="utf-8")

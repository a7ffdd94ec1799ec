"""The page of vendors: every table as `ttca init --platform` prints it, and what asking their emulators showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._document import MISSING, grid

__all__ = ["tables"]

# Read as files: what writes documents imports nothing that asks a platform.
_TABLES = Path(__file__).resolve().parents[2] / "ttca" / "platforms" / "vendors"


def tables(records: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """Return what stands between the page's marks.

    Parameters
    ----------
    records : sequence of (str, dict)
        Result files of the benchmark ``apis``; without one, its counts are said to be missing.
    """
    printed = {file.stem: file.read_text(encoding="utf-8") for file in sorted(_TABLES.glob("*.toml"))}
    asked = [(f"[{name}](#{name})", text.splitlines()[0].removeprefix("# ")) for name, text in printed.items()]
    return {
        "vendors": "\n".join(grid(("`--platform`", "asks"), asked)),
        "tables": "\n".join(f"## {name}\n\n```toml\n{text}```\n" for name, text in printed.items()).rstrip("\n"),
        "spoken": _spoken(records[-1][1]["each"]) if records else MISSING,
    }


def _spoken(each: Mapping[str, Mapping[str, Any]]) -> str:
    keys = ("answered", "refused", "mislabeled", "lost", "charged_beyond_processed", "unknown_at_restart")
    head = ("vendor", *(key.replace("_", " ") for key in keys))
    return "\n".join(grid(head, [(name, *(one[key] for key in keys)) for name, one in each.items()]))

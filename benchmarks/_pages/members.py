"""The part of the page for members that says how fast, how large and how hungry it all is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, table

__all__ = ["tables"]


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names."""
    return {"numbers": "\n\n".join(_table(kept) for _, kept in found) or MISSING}


def _table(kept: Mapping[str, Any]) -> str:
    peak, installed = kept["peak_mb"], kept.get("install_mb")
    lines = [
        ("images of 224 × 224 pixels through `apply`, in one call", f"{kept['apply_per_s']:,.0f} a second"),
        ("the same, one a call", f"{kept['apply_one_per_s']:,.0f} a second"),
        ("a JPEG of 12 megapixels, from its bytes to those of the PNG", f"{kept['photograph_s']:.2f} s"),
        ("memory for a grey JPEG of 50 megapixels", f"{peak['grey.jpg']:.0f} MB"),
        ("memory for a color JPEG of 50 megapixels", f"{peak['color.jpg']:.0f} MB"),
        ("memory until a PNG of 13,000 × 13,000 pixels is refused", f"{peak['bomb.png']:.0f} MB"),
    ]
    if installed is not None:
        lines += [
            ("ttca's base in a new environment, without pip: files", f"{installed['with_bytecode']:.0f} MB"),
            ("the same as blocks on disk", f"{installed['on_disk']:.0f} MB"),
        ]
    return table(("what", "number"), [list(line) for line in lines])

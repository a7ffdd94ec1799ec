"""The part of the page on the members' page that says what a browser changes, and how long a photograph takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._document import MISSING, grid

__all__ = ["tables"]

_FITS = {"crop": "crop", "pad": "pad", "squash": "squash"}


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return what stands between the page's marks, from result files and their names."""
    makers = {"decoders": _decoders, "answers": _answers, "speed": _speed}
    return {name: "\n\n".join(make(kept) for _, kept in found) or MISSING for name, make in makers.items()}


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.2f} %"


def _decoders(kept: Mapping[str, Any]) -> str:
    lines = [
        (
            row["kind"],
            _percent(row["decoded"]["differ"]),
            row["decoded"]["most_levels"],
            _percent(row["prepared"]["differ"]),
            row["prepared"]["most_levels"],
        )
        for row in kept["decoders"]
    ]
    head = ("photograph", "decoded: differ", "at most, levels", "prepared: differ", "at most, levels")
    return "\n".join([f"{kept['browser']}, two photographs, prepared to 224 pixels:", "", *grid(head, lines)])


def _answers(kept: Mapping[str, Any]) -> str:
    lines = [
        (
            row["kind"],
            row["people"],
            f"{row['right_page']:.3f}",
            f"{row['right_python']:.3f}",
            row["answers_that_differ"],
            _percent(row["prepared"]["differ"]),
        )
        for row in kept["answers"]
    ]
    head = ("photograph", "people", "S by the page", "S by `ttca apply`", "answers that differ", "values that differ")
    return "\n".join(grid(head, lines))


def _speed(kept: Mapping[str, Any]) -> str:
    lines = [
        (
            name,
            *(f"{kept['speed'][fit]['computed_ms'][what]:.0f}" for what in ("least", "median", "most")),
            f"{kept['speed'][fit]['passed_ms']['least']:.0f}",
        )
        for fit, name in _FITS.items()
    ]
    head = ("fit", "computed, least", "median", "most", "on the clock, least")
    size = kept["page_bytes_10_classes_224_px"]
    return "\n".join(
        [
            f"Milliseconds for a decoded photograph of 12 megapixels, {kept['speed']['turns']} turns each:",
            "",
            *grid(head, lines),
            "",
            f"A page of 10 classes at 224 pixels, ε 4, has {size:,} bytes where δ is drawn evenly from all levels, "
            "which nothing can shorten much.",
        ]
    )

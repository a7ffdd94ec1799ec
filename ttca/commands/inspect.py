"""`ttca inspect`: all that a set says of itself, who signed it, and whether it may be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttca.commands.members import KeyOption, SetArgument
from ttca.commands.shared import JsonOption, emit, reporter

__all__ = ["inspect"]


def inspect(
    perturbations: SetArgument,
    platform: Annotated[
        Path | None, typer.Option(help="Your file with [platform]: say whether the set was made for it.")
    ] = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a perturbation file says, and if it may be used.

    Says for whom and for which service it was made, what was proved when, what JPEG does to it, how often it helps
    people lie, how photographs are prepared, and who signed it. Writes and sends nothing.
    """
    from ttca.config import platform_info
    from ttca.members_set import doubts, read_set

    known = read_set(perturbations, key=key)
    found = doubts(known, platform=None if platform is None else platform_info(platform, reporter()))
    made = known.perturbations
    height, width, _ = made.image_shape
    said = known.to_dict() | {
        "usable": not found,
        "doubts": [doubt.to_dict() for doubt in found],
    }
    way = "none: photographs must have that size" if made.preparation is None else str(made.preparation)
    certificate = made.certificate
    lines = [
        *known.lines(),
        known.signed.told,
        f"Service: {made.service or 'not named'} (fingerprint {made.fingerprint})",
        f"Classes: {', '.join(made.classes)}",
        f"Budget: ε = {made.epsilon} of 255 levels",
        f"Size: {height}×{width} pixels (height×width). Preparation: {way}",
        f"Made {made.created}; verified {said['verified'] or 'never'}; expires {made.expires or 'never'}",
        f"Certificate: {'none' if certificate is None else certificate.summary()}",
        f"SHA-256 of the file: {known.sha256}",
        "It may be used: ttca apply takes it." if not found else "ttca apply refuses it:",
        *(f"- {doubt.kind}. {doubt}" for doubt in found),
    ]
    emit(said, as_json, "\n".join(lines))

"""`ttca evidence`: the bundle that anybody can check without ttca."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ttca.commands.shared import ERR, FileArgument, JsonOption, emit, opened, say

__all__ = ["evidence"]


def evidence(
    file: FileArgument,
    out: Annotated[
        Path, typer.Option("--out", help="The bundle to write: a new file that ends in .zip, or a new folder.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write what was found as a bundle that anybody can check.

    Report, certificate, consents and every query, without a name or a picture, signed, with the program that recomputes
    every number. Asks nothing, and the platform need not be there: run the action and its report first.
    """
    from ttca.evidence.bundle import write_evidence
    from ttca.platforms.addresses import checked_url, one_address

    with opened(file, asks=False) as (known, action):
        # What was asked, also where the file names a later address.
        today = one_address(checked_url(known.platform.url)[0])
        asked = action.platform.info.identity.get("url", today)
        made = write_evidence(action, out, url=known.platform.url if asked == today else asked)
    for warning in made.warnings:
        say(ERR, warning)
    words = (
        f"Wrote {made.path}: {made.rows:,} rows of the ledger, {made.sealed:,} of them sealed. Whoever gets it runs: "
        f"python check.py\nIt is signed with {made.key}. Tell them this key by another way than the bundle.\n"
        "letter.md in it is a letter of complaint, with blanks: fill in a copy, since a changed bundle is refused."
    )
    said = {
        "path": str(made.path),
        "key": made.key,
        "rows": made.rows,
        "sealed": made.sealed,
        "head": asdict(made.head),
    }
    emit({**said, "warnings": list(made.warnings)}, as_json, words)

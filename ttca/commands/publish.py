"""`ttca publish`: the members' page, one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttca.commands.shared import ERR, JsonOption, emit, say

__all__ = ["publish"]


def publish(
    perturbations: Annotated[
        Path, typer.Argument(metavar="SET", help="The members' file; its signature (.sig) lies beside it.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write, such as page.html.")],
    key: Annotated[
        str | None, typer.Option(help="The collective's public key: refuse a file that it did not sign.")
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Publish a file that is not certified, has expired, or was not signed. The page warns, and works only "
            "for members who insist.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a page that holds something else.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a web page that applies a set.

    Members open it in their browser. It is one file, loads nothing, sends nothing, and works from a disk or any
    static HTTPS host. A member takes a photograph, chooses the true class and saves a PNG file (docs/page.md).
    """
    from ttca.publishing import publish_page

    done = publish_page(perturbations, out, key=key, anyway=anyway, force=force)
    doubted = [f"Published all the same (--anyway). {doubt}" for doubt in done.doubts]
    lines = [done.perturbations.about(), done.signed.told, *doubted, f"Wrote {out}, {done.size:,} bytes."]
    emit(done.to_dict(), as_json, "\n".join(lines))
    if done.warns:
        say(ERR, "The page warns of that, and works only for members who insist.")
    elif doubted:
        say(ERR, "The page cannot know that, and warns nobody. Tell your members.")
    say(
        ERR,
        "Send the file, or better put it on a host that serves HTTPS: phones often do not open a page from a file. "
        "It needs no other file and no server.",
    )
    if done.signed.key is not None:
        say(ERR, f"Members compare its key with yours. Tell them by another way than the page: {done.signed.key}")

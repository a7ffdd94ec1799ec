"""What members' commands share: their options, the set that they name, and a class asked for on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttca.commands.shared import ERR, say

if TYPE_CHECKING:
    from ttca.members import AskClass
    from ttca.members_set import Doubt, MembersSet
    from ttca.platforms.base import PlatformInfo

__all__ = [
    "AnywayOption",
    "BoxOption",
    "ClassOption",
    "EpsilonOption",
    "ForceOption",
    "KeyOption",
    "SetArgument",
    "asks_class",
    "said_of_set",
    "usable_set",
]

SetArgument = Annotated[
    Path, typer.Argument(metavar="SET", help="The collective's perturbation file; its signature (.sig) lies beside it.")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="What your photographs truly show. Without it you are asked.")
]
BoxOption = Annotated[
    str | None, typer.Option(help="The part that counts: x,y,width,height in pixels of the upright photograph.")
]
EpsilonOption = Annotated[int | None, typer.Option(help="Refuse a perturbation file with any other ε.")]
KeyOption = Annotated[
    str | None,
    typer.Option(help="The collective's public key, as it was given to you: refuse a file that it did not sign."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that hold something else.")]
AnywayOption = Annotated[
    bool,
    typer.Option(
        "--anyway",
        help="Use a file that is not certified, has expired, was not signed with your --key, or was made for another "
        "platform.",
    ),
]


def usable_set(
    path: Path, *, key: str | None, platform: PlatformInfo | None, epsilon: int | None, anyway: bool
) -> tuple[MembersSet, tuple[Doubt, ...]]:
    """Return a set that may be used, and what is held against it where the member insists; raise otherwise."""
    from ttca.members_set import check_usable, read_set

    known = read_set(path, key=key)
    return known, check_usable(known, platform=platform, epsilon=epsilon, anyway=anyway)


def said_of_set(known: MembersSet, found: Sequence[Doubt]) -> list[str]:
    """Return the three lines about a set, who signed it, and what is held against it."""
    return [*known.lines(), known.signed.told, *(f"Used all the same (--anyway). {doubt}" for doubt in found)]


def asks_class() -> AskClass | None:
    """Return what asks for a class on a terminal; None where nobody can answer."""
    return _ask if sys.stdin is not None and sys.stdin.isatty() else None


def _ask(photo: str, classes: Sequence[str]) -> str:
    from ttca.names import resolve, unknown_name

    # A class may be called by a number: names come before places in the list.
    numbered = not any(name.strip().isdigit() for name in classes)
    say(ERR, f"What does {photo} truly show?")
    for number, name in enumerate(classes, 1):
        say(ERR, f"  {number}. {name}" if numbered else f"  {name}")
    while True:
        said = typer.prompt("The class, by its name" + (" or number" if numbered else ""), err=True)
        if (meant := resolve(said, classes)) is not None:
            return meant
        if numbered and said.strip().isdigit() and 1 <= int(said) <= len(classes):
            return classes[int(said) - 1]
        say(ERR, unknown_name("the class", said, classes))

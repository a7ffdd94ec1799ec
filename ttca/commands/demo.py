"""`ttca demo photographs` and `ttca demo platform`: worlds to try an action on, served until they are ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ttca.commands.shared import ERR, JsonOption, emit, say

__all__ = ["demo_photographs", "demo_platform"]

SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]


def demo_photographs(
    folder: Annotated[Path, typer.Argument(help="The photographs are written into photos in this folder.")],
    seed: SeedOption = 0,
    number: Annotated[
        int, typer.Option("--photographs", min=20, help="How many; half of them are of the subgroup.")
    ] = 300,
    longest: Annotated[int, typer.Option(min=16, help="The longest side of a photograph, in pixels.")] = 4000,
    size: Annotated[int, typer.Option(min=16, help="The size that the reader takes, in pixels.")] = 224,
    no_gap: Annotated[bool, typer.Option("--no-gap", help="Give everybody the same camera.")] = False,
    port: PortOption = 8124,
    as_json: JsonOption = False,
) -> None:
    """Write photographs of digits, and serve a reader of digits.

    The subgroup's camera is out of focus, and the reader learned from sharp pictures alone. Photographs that are there
    stay as they are. Listens on this machine only.
    """
    from ttca.extras import need_extras

    need_extras("The demo", "learn", "serve", "data")
    from ttca.demo.photographs import new_photographs, reader
    from ttca.platforms.server import serve

    home = folder / "photos"
    if home.exists():
        say(ERR, f"{home} is there already, and stays as it is.")
    else:
        say(ERR, f"Writing {number:,} photographs into {home}, then training the reader.")
        new_photographs(home, seed=seed, number=number, longest=longest, gap=not no_gap)
    serve(reader(seed=seed, size=size), port=port, on_start=_started(as_json))


def demo_platform(
    seed: SeedOption = 0,
    port: PortOption = 8123,
    access_log: Annotated[
        Path | None, typer.Option(help="File to append one JSON line to for each processed request.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the demo's platform, a reader of small digits.

    Listens on this machine only, until it is ended.
    """
    from ttca.extras import need_extras

    need_extras("The demo", "learn", "serve", "data")
    from ttca.demo.platform import digits_platform
    from ttca.demo.world import digits_world
    from ttca.platforms.server import serve

    say(ERR, "Training the demo's platform.")
    serve(digits_platform(digits_world(seed), seed=seed), port=port, access_log=access_log, on_start=_started(as_json))


def _started(as_json: bool) -> Callable[[str], None]:
    """Return what tells the address, where it is read by a program too."""

    def told(url: str) -> None:
        emit({"url": url}, as_json, url)
        sys.stdout.flush()
        say(ERR, f"Serving at {url}. Stop with Ctrl-C.")

    return told

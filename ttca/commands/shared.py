"""What the commands share: the two streams, JSON where it is asked for, and files that are new."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ttca.private import private
from ttca.terminal import Terminal

__all__ = ["ERR", "OUT", "JsonOption", "emit", "reporter", "say", "write_new"]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; everything else goes to standard error.")
]

ERR = Terminal(stderr=True)
OUT = Terminal()


def write_new(file: Path, text: str) -> None:
    """Write a text into a file that is not there yet, for its owner's eyes; raise ConfigError where it is."""
    from ttca.errors import ConfigError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name that is no UTF-8 is quoted in the text.
        with open(file, "x", encoding="utf-8", errors="replace", opener=private) as new:
            new.write(text)
    except OSError as error:
        if file.exists():
            raise ConfigError(f"Expected a new file, got {file}, which exists. Choose another name.") from None
        raise ConfigError(f"Expected to write {file}, got: {error}. Choose another place.") from None


def reporter() -> Any:
    """Return what shows progress on standard error."""
    from ttca.progress import Reporter

    return Reporter(ERR)


def emit(result: dict[str, Any], as_json: bool, words: str | Table) -> None:
    """Print a result: words or a table for people, or one JSON object alone."""
    if as_json:
        # NaN is no JSON: it must have become None before. DEL is the one control character that JSON leaves as it is.
        sys.stdout.write(json.dumps(result, allow_nan=False).replace("\x7f", "\\u007f") + "\n")
    elif isinstance(words, str):
        say(OUT, words)
    else:
        OUT.print(words)


def say(console: Terminal, sentence: str) -> None:
    """Print a sentence as it is: a bracket in a name is no markup, and no path is broken in two."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)

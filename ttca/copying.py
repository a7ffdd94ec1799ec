"""Paths in commands that people copy: each one word for a shell, and never a second line of a comment."""

from __future__ import annotations

import shlex
from itertools import groupby

__all__ = ["shell_word"]


def shell_word(path: object) -> str:
    """Return a path, or another argument, as one word of a command line that can be copied into a POSIX shell.

    Parameters
    ----------
    path : object
        Shown by ``str``. Each character that cannot be printed, such as a line break, which would end a comment,
        becomes ``?``: a shell matches it with any one character.

    Examples
    --------
    >>> shell_word("my action/action.toml"), shell_word("action.toml"), shell_word("-x.toml")
    ("'my action/action.toml'", 'action.toml', './-x.toml')
    >>> shell_word("a b\\nc")
    "'a b'?c"
    """
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    # In pieces, since a ? between quotes matches nothing but itself.
    pieces = ((fine, "".join(piece)) for fine, piece in groupby(text, str.isprintable))
    return "".join(shlex.quote(piece) if fine else "?" * len(piece) for fine, piece in pieces) or "''"

"""Entries of docstrings that name several parameters, taken apart: on the site each has its own type and default."""

from __future__ import annotations

import re

__all__ = ["apart"]

_SECTIONS = ("Parameters", "Other Parameters", "Attributes")
#: A line of several names, with their type or none, and the indented lines below it.
_ENTRY = re.compile(r"(?m)^(\*{0,2}\w+(?:, \*{0,2}\w+)+)( :.*)?((?:\n[ \t].*|\n(?=\n|\Z))*)")
_HEADING = re.compile(r"(?m)^(?=\S.*\n-{3,}$)")


def apart(docstring: str) -> str:
    """Return a docstring in whose lists of parameters each name has an entry of its own, with the text of all.

    What is returned stays as it is: several names there are one tuple.
    """
    parts = _HEADING.split(docstring)
    return "".join(_ENTRY.sub(_each, part) if part.split("\n")[0] in _SECTIONS else part for part in parts)


def _each(found: re.Match[str]) -> str:
    names, kind, text = found[1].split(", "), found[2] or "", found[3]
    body = text.rstrip()
    return "\n".join(f"{name}{kind}{body}" for name in names) + text[len(body) :]

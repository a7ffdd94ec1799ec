"""Docstrings for the site: Sphinx's roles become links of Markdown, and shared entries of parameters several."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

from website.entries import apart

__all__ = ["Roles"]

_ROLE = re.compile(r":(?:class|func|mod|data|meth|attr|exc):`(~?)([\w.]+)`")


class Roles(Extension):
    """Rewrites each docstring once, when griffe has read it."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Turn roles into references; what stands in the same module is named in code."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_linked, apart(obj.docstring.value))


def _linked(found: re.Match[str]) -> str:
    whole = found[2]
    shown = whole.rpartition(".")[2] if found[1] else whole
    return f"[`{shown}`][{whole}]" if whole.startswith("ttca.") else f"`{shown}`"

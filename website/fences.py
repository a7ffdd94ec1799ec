"""Code blocks as the site's Markdown knows them: a language, and no word for whoever tries the page."""

from __future__ import annotations

import re

__all__ = ["plain_fences"]

_OPENING = re.compile(r"(?m)^( *```[\w-]+) .*$")


def plain_fences(markdown: str) -> str:
    """Return a page whose code blocks name their language alone; other words would make paragraphs of them."""
    return _OPENING.sub(r"\1", markdown)

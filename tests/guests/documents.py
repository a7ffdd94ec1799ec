"""The guests that docs/guests.md prints: what a reader would copy into a file."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "guests.md"
_LONGEST = 30


def block(section: str) -> str:
    """Return the one Python block of a section, which must be short."""
    text = _PAGE.read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) <= _LONGEST
    return str(code)

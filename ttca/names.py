"""How a name is spelled: members, persons, classes and groups are compared in one spelling."""

from __future__ import annotations

import unicodedata

__all__ = ["canonical"]


def canonical(name: str) -> str:
    """Return the one spelling of a name: Unicode NFC, without white space around it.

    White space inside is kept as it is.
    """
    return unicodedata.normalize("NFC", name).strip()

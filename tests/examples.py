"""How many examples an expensive property gets: a third in `make test`, all of them in `make test-full`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

__all__ = ["LONG", "SHORT", "examples"]

#: The names of the two profiles, which ``conftest.py`` registers and chooses between.
LONG, SHORT = "long", "short"


def examples(count: int, **more: Any) -> settings:
    """Return settings of so many examples, or of a third under the short profile; ``more`` is hypothesis' own."""
    long = settings.get_current_profile_name() == LONG
    return settings(max_examples=count if long else -(-count // 3), **more)

"""What a stranger sent, shown safely: the JSON in it, a short printable form, and the error that it is no answer."""

from __future__ import annotations

import json
from typing import Any

from ttca.errors import TTCAError

__all__ = ["UnreadableError", "excerpt", "read_json"]


class UnreadableError(TTCAError):
    """Bytes are not an answer as their protocol writes it; the reader adds who sent them."""


def excerpt(value: object, length: int = 120) -> str:
    """Return a short, printable form of what a stranger sent."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text[: 4 * length].split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else text[:length] + "…"


def read_json(body: bytes) -> Any:
    """Return what the JSON says, or raise an UnreadableError that says what came instead.

    An object that has one name twice says two things, and is not read as either.
    """
    try:
        return json.loads(body, object_pairs_hook=_each_name_once)
    except (ValueError, RecursionError):
        start = body.lstrip()[:1]
        kind = "HTML or XML" if start == b"<" else "an empty body" if not start else "a broken or truncated one"
        raise UnreadableError(f"Expected a JSON object, got {kind}: {excerpt(body)!r}.") from None


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableError(f"Expected each name once in a JSON object, got {excerpt(twice, 40)!r} twice.")
    return found

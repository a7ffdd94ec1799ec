"""All mistakes of a file said at once, a sentence each: whoever corrects one need not run it again to hear the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from ttca.errors import ConfigError

__all__ = ["Mistakes", "made", "toml_advice"]

T = TypeVar("T")

Values = Mapping[str, Any]


class Mistakes:
    """What is wrong with a file, as far as it was read.

    Parameters
    ----------
    where : str
        The file, or a part of it, for people.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.sentences: list[str] = []

    def tell(self, *sentences: str) -> None:
        """Note what is wrong, a sentence each."""
        self.sentences += sentences

    def of(self, work: Callable[[], T]) -> T | None:
        """Return what the work returns; None where it raises a ConfigError, whose sentences are noted."""
        try:
            return work()
        except ConfigError as error:
            self.tell(*(error.sentences or (str(error),)))
        return None

    def error(self) -> ConfigError:
        """Return all of it as one error: a single sentence as it is, several as a list."""
        one, *others = self.sentences
        lines = "\n".join(f"- {sentence}" for sentence in self.sentences)
        several = f"Expected no mistake in {self._where}, got {len(self.sentences)}. Correct each:\n{lines}"
        error = ConfigError(several if others else one)
        error.sentences = tuple(self.sentences)
        return error


def made(
    kind: Callable[..., T],
    values: Values,
    stand_ins: Values,
    doubtful: Collection[str] = (),
    deciding: Collection[str] = (),
) -> tuple[T | None, list[str]]:
    """Return what is made of values, and a sentence for each value that is in the way.

    Parameters
    ----------
    kind : callable
        Makes something of keywords, or raises a ConfigError about the first that is wrong.
    values : dict
    stand_ins : dict
        Values that will do, for keywords that must be there, and for keys of their tables (``"table.key"``).
    doubtful : collection of str
        Keywords that are wrong already. What is said of them or of what they stand beside may be their fault.
    deciding : collection of str
        Keywords that decide what the others mean. Without one of them nothing more is said, unless it was wrong itself.

    Returns
    -------
    (object or None, list of str)
        None where any value is wrong.

    Notes
    -----
    What the error is about is found by leaving values out one by one, those that it names first: without the right one
    it says something else, or nothing. That is left out for good, and whatever later names it is not repeated. *Ours.*
    """
    left, out, said = dict(values), set(doubtful), list[str]()
    while True:
        try:
            done = kind(**left)
        except ConfigError as error:
            sentence = str(error)
        else:
            return (None if said else done), said
        if not any(_names(key, sentence) for key in out):
            said.append(sentence)
        cause = next((c for c in _fewer(left, stand_ins, sentence) if _said(kind, c[1]) != sentence), None)
        if cause is None:
            # Several values together, or one that must be there.
            return None, said
        key, left = cause
        if key in deciding and not _names(key, sentence):
            return None, said
        out.add(key)


def _fewer(values: Values, stand_ins: Values, sentence: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each keyword and the values without it, those that the sentence names first; tables lose one key each."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += [(key, {**values, name: _without(value, key, f"{name}.{key}", stand_ins)}) for key in value]
        found.append((name, _without(values, name, name, stand_ins)))
    yield from sorted(found, key=lambda one: not re.search(rf"(?<!\w){re.escape(one[0])}(?!\w)", sentence))


def _without(values: Values, key: str, where: str, stand_ins: Values) -> dict[str, Any]:
    return {k: stand_ins.get(where) if k == key else v for k, v in values.items() if k != key or where in stand_ins}


def _said(kind: Callable[..., Any], values: Values) -> str | None:
    try:
        kind(**values)
    except ConfigError as error:
        return str(error)
    return None


def _names(key: str, sentence: str) -> bool:
    """Whether a sentence is about a keyword. In quotes, it stands in a list of what else there is."""
    return re.search(rf"(?<![\w']){re.escape(key)}(?![\w'])", sentence) is not None


def toml_advice(error: str) -> str:
    """Return what to do about what most often keeps TOML from being read."""
    if "Invalid value" in error:
        return ' Put words in quotes, as in goal = "parity"; write numbers, true and false without.'
    if "escape" in error.casefold() or "hex value" in error.casefold():
        return " Put a path with backslashes in single quotes."
    if "codec can't decode" in error:
        return " Save it as UTF-8: most editors ask for the encoding under Save as."
    return ""

"""How a name is spelled: members, persons, classes and groups are compared in one spelling."""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from ttca.errors import ConfigError

__all__ = ["canonical", "check_class_names", "class_names", "look_alike", "resolve", "twins", "unknown_name"]

#: So many names are listed in a sentence; of more, the most similar ones.
_LISTED, _SIMILAR = 10, 5
#: So much of a name that is not known is shown, and compared.
_LONGEST = 80
#: Control characters, and what ends a line or paragraph.
_OF_NO_LINE = ("Cc", "Zl", "Zp")


def canonical(name: str) -> str:
    """Return the one spelling of a name: Unicode NFC, without white space around it.

    White space inside is kept as it is.
    """
    return unicodedata.normalize("NFC", name).strip()


def check_class_names(names: Iterable[object]) -> None:
    """Raise ConfigError where the name of a class is no text, empty, or more than one line."""
    for name in names:
        in_a_line = isinstance(name, str) and not any(unicodedata.category(c) in _OF_NO_LINE for c in name)
        if not in_a_line or not canonical(str(name)):
            raise ConfigError(
                f"Expected the name of every class as text in one line, got {name!r}. Give each class a name that "
                "people can read."
            )


def class_names(words: str) -> tuple[str, ...]:
    """Return class names as somebody types them: in one line with commas, or as a text file with one on each line.

    Parameters
    ----------
    words : str
        Names separated by commas, those that have commas in double quotes; or the path of a file.

    Raises
    ------
    ConfigError
        If quotes are not closed, the file cannot be read, or a name is empty or there twice.

    Examples
    --------
    >>> class_names('cat, "tench, Tinca tinca", dog')
    ('cat', 'tench, Tinca tinca', 'dog')
    """
    try:
        if _is_file(words):
            lines = Path(words).read_text(encoding="utf-8-sig").splitlines()
            names = [canonical(line) for line in lines if line.strip()]
        else:
            names = [canonical(name) for name in next(csv.reader([words], skipinitialspace=True, strict=True), [])]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"Expected class names with commas between them, or a text file with one on each line, got {words!r}: "
            f"{error}. Put names that have commas in double quotes."
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names or twice:
        raise ConfigError(f"Expected every class name once and none empty, got {', '.join(twice) or 'an empty name'}.")
    return tuple(names)


def _is_file(words: str) -> bool:
    try:
        return Path(words).is_file()
    except (OSError, ValueError):  # too long for a path, as a thousand names are
        return False


def look_alike(name: str) -> str:
    """Return what two names share that differ only by case, width, blanks or characters nobody sees.

    Examples
    --------
    >>> look_alike("Ada  Lovelace") == look_alike("ａda lovelace ") == look_alike("ada\u200blovelace")
    True
    """
    seen = ""
    # What goes lets its neighbors compose, and what they compose to may fold once more.
    while seen != name:
        seen, folded = name, unicodedata.normalize("NFKC", name).casefold()
        shown = "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")
        name = unicodedata.normalize("NFKC", shown)
    return name


def resolve(got: str, known: Iterable[str]) -> str | None:
    """Return the known name that is meant: the same, else the only one that differs by case alone, else None.

    Examples
    --------
    >>> resolve("male", ["Male", "Female"]), resolve("A", ["a", "A"]), resolve("mal", ["Male"])
    ('Male', 'A', None)
    """
    name, names = canonical(got), list(known)
    for one in names:
        if canonical(one) == name:
            return one
    alike = [one for one in names if canonical(one).casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each name that looks like an earlier one and is another, with that one before it.

    Examples
    --------
    >>> twins(["ada", "Ben", "Ada", "ada"])
    [('ada', 'Ada')]
    """
    first: dict[str, str] = {}
    found: dict[tuple[str, str], None] = {}
    for name in names:
        earlier = first.setdefault(look_alike(name), name)
        if earlier != name:
            found[earlier, name] = None
    return list(found)


def unknown_name(what: str, got: str, known: Sequence[str], *, listed: str = "", otherwise: str = "") -> str:
    """Return the sentence that a name is none of those known: what may be meant comes first, never a long list.

    Parameters
    ----------
    what : str
        What it should name, behind "Expected".
    got : str
    known : sequence of str
    listed : str
        Where all of them stand, a sentence, for more than can be listed here.
    otherwise : str
        What to do where no name is similar, a sentence.

    Examples
    --------
    >>> unknown_name("the class", "cot", ["cat", "dog"])
    "Did you mean 'cat'? Expected the class to be one of 'cat', 'dog', got 'cot'."
    >>> unknown_name("the class", "c13", [f"c{n}" for n in range(12)], listed="The table has all.")
    "Did you mean 'c3'? Expected the class to be one of 12, got 'c13'. The table has all."
    >>> unknown_name("the class", "zebra", [f"c{n}" for n in range(12)], otherwise="Look.").partition(", got")[0]
    "Expected the class to be one of 12, such as 'c9', 'c8', 'c7', 'c6', 'c5'"
    """
    got = got if len(got) <= _LONGEST else f"{got[:_LONGEST]}…"
    near = _meant(got, known)
    shown = f"one of {', '.join(map(repr, known))}"
    if len(known) > _LISTED:
        similar = [] if near else difflib.get_close_matches(canonical(got), known, n=_SIMILAR, cutoff=0.0)
        shown = f"one of {len(known):,}" + (f", such as {', '.join(map(repr, similar))}" if similar else "")
    hint = f"Did you mean {near!r}? " if near else ""
    rest = [sentence for sentence in (listed if len(known) > _LISTED else "", "" if near else otherwise) if sentence]
    return " ".join([f"{hint}Expected {what} to be {shown}, got {got!r}.", *rest])


def _meant(got: str, known: Sequence[str]) -> str | None:
    """Return the known name that is most like another; None where none is."""
    seen = {look_alike(name): name for name in reversed(known)}
    if len(known) == 1:
        return known[0]
    near = difflib.get_close_matches(look_alike(got), seen, n=1)
    return seen[near[0]] if near else None

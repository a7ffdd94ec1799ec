"""Where an answer may lie in JSON that nobody here has seen: lines for the table of a `template`, to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttca.answers import Answers
from ttca.errors import ConfigError, PlatformError
from ttca.platforms.protocols import Response, create_protocol
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.values import Value

__all__ = ["Proposal", "as_toml", "headers_of", "proposals", "response_of"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERCENT = re.compile(r"\s*\d{1,3}(\.\d{1,20})?\s*%\s*", re.ASCII)
#: A stranger's JSON may be of any size: so many of its places are looked at, so deep, and so many lines are shown.
_MOST_PLACES, _DEEPEST, _SHOWN = 5000, 20, 3
#: Of one object.
_MOST_LEAVES = 100
#: Lists of more things than this are no answers about one image.
_LONGEST = 20_000
_PLACES = ("label", "scores", "names", "results")


@dataclass(frozen=True, eq=False, repr=False)
class Proposal(Value):
    """Lines for ``[platform.options]``, and the answer that they would read; None where that is no class of ours."""

    options: Mapping[str, Any]
    answers: Answers | None

    @property
    def lines(self) -> str:
        """The lines, as they stand in an action file."""
        return "\n".join(f"{name} = {as_toml(value)}" for name, value in self.options.items())


def response_of(body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of what a platform keeps of an answer: :class:`ttca.answers.Answers` has it."""
    head, _, said = body.partition(b"\n")
    try:
        status = json.loads(head)[0]
    except (ValueError, IndexError, KeyError, TypeError):
        return 200, body
    return (status if isinstance(status, int) else 200), said


def headers_of(body: bytes) -> dict[str, str]:
    """Return the headers that are kept with an answer, those that its protocol reads."""
    try:
        headers = json.loads(body.partition(b"\n")[0])[1]
    except (ValueError, IndexError, KeyError, TypeError):
        return {}
    return headers if isinstance(headers, dict) else {}


def proposals(body: bytes, options: Mapping[str, Any], classes: Sequence[str]) -> list[Proposal]:
    """Return what would read an answer better, the best first; nothing is applied.

    Parameters
    ----------
    body : bytes
        The answer to one image, without headers.
    options : mapping
        The table as it stands, whose places are to be replaced.
    classes : sequence of str

    Returns
    -------
    list of Proposal
        At most three: those that read a class, or else those that only look like names with numbers.
    """
    try:
        said = read_json(body)
    except UnreadableError:
        return []
    rest = {name: value for name, value in options.items() if name not in _PLACES}
    found: list[Proposal] = []
    for places in _guesses(said, {_spelled(name) for name in classes}):
        if any(p.options == places for p in found):
            continue
        found.append(_proposal(body, rest, places, classes))
        if sum(p.answers is not None for p in found) == _SHOWN:
            break
    sure = [p for p in found if p.answers is not None]
    # A label alone says less than the scores it stands beside, and numbers without names may be anything.
    scored = [p for p in sure if "scores" in p.options]
    named = [p for p in scored if "names" in p.options or "label:" in p.options["scores"]]
    return (named or scored or sure or found)[:_SHOWN]


def _proposal(body: bytes, rest: Mapping[str, Any], places: dict[str, str], classes: Sequence[str]) -> Proposal:
    answers = _read(body, {**rest, **places}, classes)
    if answers is None and "scores" in places and "scores_are" not in rest:
        percent = {**places, "scores_are": "percent"}
        answers = _read(body, {**rest, **percent}, classes)
        if answers is not None:
            return Proposal(percent, answers)
    return Proposal(places, answers)


def _read(body: bytes, options: Mapping[str, Any], classes: Sequence[str]) -> Answers | None:
    """Return what a table reads, None where that is no class."""

    def fetch(_path: str) -> Response:
        raise ConfigError("Expected a table that describes the platform, got a question for it.")

    try:
        wire = create_protocol("template", classes=classes, **options).describe(fetch)
        answers: Answers = wire.parse(Response(200, {}, body, "the platform"), 1)
    except (ConfigError, PlatformError):
        return None
    return answers if answers.answered.all() else None


def _guesses(said: Any, classes: set[str]) -> Iterator[dict[str, str]]:
    """Yield places where an answer may lie: first those with the names of classes, then others."""
    places = list(_places(said))
    for path, value in places:
        if isinstance(value, Mapping) and value and _numbers(value.values()) and {_spelled(k) for k in value} & classes:
            yield {"scores": path}
        if isinstance(value, Mapping) and len(value) > 1 and {_spelled(k) for k in value} & classes:
            yield from (
                {"scores": f"{path}.*.{number}", "names": f"keys({path})"}
                for number in _leaves(list(value.values()), _number)
            )
    vague = []
    for path, value in places:
        if isinstance(value, list) and 0 < len(value) <= _LONGEST:
            for places_of, named in _in_list(path, value, classes):
                if named:
                    yield places_of
                else:
                    vague.append(places_of)
    yield from _parallel(places, classes)
    for path, value in places:
        if isinstance(value, str) and _spelled(value) in classes:
            yield {"label": path}
    for path, value in places:
        if isinstance(value, list) and len(value) == len(classes) and _numbers(value):
            yield {"scores": path}
    yield from vague


def _in_list(path: str, items: list[Any], classes: set[str]) -> Iterator[tuple[dict[str, str], bool]]:
    """Yield how a list of objects, or of pairs, may hold names and numbers, and whether one is the name of a class."""
    if all(isinstance(i, list) and len(i) == 2 and isinstance(i[0], str) and _number(i[1]) for i in items):
        yield {"scores": path}, any(_spelled(i[0]) in classes for i in items)
    names = _leaves(items, lambda value: isinstance(value, str))
    # What is named like a score is one, rather than a width or an id.
    numbers = sorted(
        _leaves(items, _number), key=lambda key: re.search("score|conf|prob|value|percent", key, re.IGNORECASE) is None
    )
    for name, words in names.items():
        named = any(_spelled(word) in classes for word in words)
        for number in numbers:
            pair = f"{{label: {name}, score: {number}}}"
            yield {"scores": f"{path}[*].{pair}" if path != "@" else f"[*].{pair}"}, named


def _leaves(items: Sequence[Any], kind: Callable[[object], bool], depth: int = 4) -> dict[str, list[Any]]:
    """Return the paths to values of a kind that every object has, with these values."""
    if not items or not all(isinstance(item, Mapping) for item in items):
        return {}
    found: dict[str, list[Any]] = {}
    for key in items[0]:
        values = [item[key] for item in items if key in item]
        if len(values) < len(items):
            continue
        if all(map(kind, values)):
            found[_key(key)] = values
        elif depth and len(found) < _MOST_LEAVES:
            found |= {f"{_key(key)}.{inner}": some for inner, some in _leaves(values, kind, depth - 1).items()}
    return found


def _parallel(places: Sequence[tuple[str, Any]], classes: set[str]) -> Iterator[dict[str, str]]:
    """Yield lists of the names of classes beside lists of as many numbers."""
    lists = [(path, value) for path, value in places if isinstance(value, list) and 0 < len(value) <= _LONGEST]
    for names_at, names in lists:
        if all(isinstance(name, str) for name in names) and {_spelled(name) for name in names} & classes:
            for scores_at, scores in lists:
                if len(scores) == len(names) and _numbers(scores):
                    yield {"scores": scores_at, "names": names_at}


def _places(said: Any) -> Iterator[tuple[str, Any]]:
    """Yield every place of a JSON value with its JMESPath, the outer before the inner ones."""
    waiting: list[tuple[str, Any, int]] = [("@", said, 0)]
    for at in range(_MOST_PLACES):
        if at >= len(waiting):
            return
        path, value, depth = waiting[at]
        yield path, value
        if depth < _DEEPEST and isinstance(value, Mapping):
            inside = [(_key(k) if path == "@" else f"{path}.{_key(k)}", v, depth + 1) for k, v in value.items()]
            waiting += inside[: _MOST_PLACES - len(waiting)]
        elif depth < _DEEPEST and isinstance(value, list) and value and isinstance(value[0], Mapping | list | str):
            # The others of a list are like its first.
            waiting.append(("[0]" if path == "@" else f"{path}[0]", value[0], depth + 1))


def _key(name: str) -> str:
    """Return a key as JMESPath writes it."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def as_toml(value: Any) -> str:
    """Return a text, number or list as TOML writes it, a text in single quotes where it has double ones."""
    if isinstance(value, str) and '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or not value.isprintable())


def _spelled(name: str) -> str:
    return " ".join(str(name).split()).casefold()


def _number(value: object) -> bool:
    """Whether a value is a number, or a percentage as people write it."""
    return type(value) in (int, float) or (isinstance(value, str) and _PERCENT.fullmatch(value) is not None)


def _numbers(values: Any) -> bool:
    return all(_number(value) for value in values)

"""Tests of values that hold arrays: they compare without surprises, and print in one line."""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ttca
from tests import worlds
from ttca.answers import Answers
from ttca.people import People
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.http import HttpPlatform, Key
from ttca.platforms.local import LocalPlatform
from ttca.values import Value

#: Where arrays are still shown whole, and why.
LEFT_OUT = {"ttca.training_time.bounds": "its values have no equality, and wait for a line of their own"}


def modules() -> Iterator[Any]:
    """Yield every module of the packages."""
    for found in pkgutil.walk_packages(ttca.__path__, "ttca."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def own(module: Any) -> Iterator[type]:
    """Yield the classes that a module defines."""
    yield from (c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__)


#: Classes by name, for hints that only type checkers import.
KNOWN: dict[str, Any] = {c.__name__: c for module in modules() for c in own(module) if not c.__name__.startswith("_")}


def hints(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; names that are nowhere at run time may be anything."""
    known = dict(KNOWN)
    while True:
        try:
            return {n: h for n, h in typing.get_type_hints(cls, None, known).items() if n in fields_of(cls)}
        except NameError as error:
            known[str(error.name)] = Any


def fields_of(cls: Any) -> set[str]:
    """Return the names of a dataclass's fields."""
    return {f.name for f in dataclasses.fields(cls)}


def holds_arrays(hint: Any) -> bool:
    """Whether values of a type hold an array, themselves or in what they hold."""
    origin = typing.get_origin(hint) or hint
    if origin is collections.abc.Callable:
        return False
    if inspect.isclass(origin) and issubclass(origin, np.ndarray | torch.Tensor):
        return True
    if dataclasses.is_dataclass(origin):
        return any(map(holds_arrays, hints(typing.cast(type, origin)).values()))
    return any(map(holds_arrays, typing.get_args(hint)))


HOLDERS = [
    cls
    for module in modules()
    for cls in own(module)
    if dataclasses.is_dataclass(cls)
    and not cls.__name__.startswith("_")
    and module.__name__ not in LEFT_OUT
    and holds_arrays(cls)
]


def sample(hint: Any) -> Any:
    """Return a value of a type, the same at every call and never the same object where it holds arrays."""
    origin, inside = typing.get_origin(hint) or hint, typing.get_args(hint)
    if inspect.isclass(origin) and issubclass(origin, np.ndarray):
        return np.arange(3 * 2 * 2 * 3).reshape(3, 2, 2, 3) % 3
    if dataclasses.is_dataclass(origin) and holds_arrays(origin):
        return filled(typing.cast(type, origin))
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping):
        return {f"a key of some length {i}": sample(inside[1] if inside else Any) for i in range(12)}
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Sequence) and inside:
        return tuple(sample(inside[0]) for _ in range(12))
    if type(None) in inside:
        return sample(inside[0])
    return {int: 10**12, float: float("nan"), bool: True}.get(origin, "a long text\nof two lines, " * 9)


def filled(cls: type) -> Any:
    """Return an instance with a sample in every field, made without its checks."""
    made: Any = object.__new__(cls)
    for name, hint in hints(cls).items():
        object.__setattr__(made, name, sample(hint))
    return made


@pytest.mark.parametrize("cls", HOLDERS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_value_with_arrays_compares_hashes_and_prints(cls: type) -> None:
    """Two values of the same content are equal, or nobody says so; neither raises, and each is one short line."""
    one, other = filled(cls), filled(cls)
    assert one == one
    assert one != "something else"
    assert (one == other) is issubclass(cls, Value)
    text = repr(one)
    assert text.startswith(f"{cls.__name__}(")
    assert "\n" not in text
    assert len(text) < 200
    if issubclass(cls, Value):
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)
    else:
        assert len({one, other}) == 2


def test_the_walk_finds_what_people_hold() -> None:
    """The classes that a user meets first are among those that are walked."""
    names = {cls.__name__ for cls in HOLDERS}
    assert {"People", "Roster", "Answers", "Measurement", "PerturbationSet", "TransferSet", "Examples"} <= names


def test_equality_is_of_type_shape_and_bytes() -> None:
    """Another level, another dtype and another order are another value; NaN is equal to itself."""
    people = worlds.crowd("pool", 4, 2, seed=1)
    assert people == people[:]
    assert people != people[::-1]
    images = people.images.copy()
    images[0, 0, 0, 0] ^= 1
    assert dataclasses.replace(people, images=images) != people
    assert dataclasses.replace(people, classes=people.classes.astype(np.int32)) != people
    assert Answers.failed(3, 2) == Answers.failed(3, 2)
    assert Answers.failed(3, 2) != Answers.failed(3, 4)
    assert worlds.roster() == worlds.roster() != worlds.roster(seed=11)


def test_what_acts_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action, its pool, its ledger and every platform print in one line, which holds no key."""
    monkeypatch.setenv("TTCA_KEY_X", "sk-very-secret")
    key = Key(variable="TTCA_KEY_X")
    http = HttpPlatform("http://127.0.0.1:9", classes=worlds.CLASSES, model="m", key=key)
    tiny = LocalPlatform(worlds.model, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny")
    asked = WithHabits(tiny, Habits(decimals=2))
    with http, worlds.open_action(tmp_path, asked) as action:
        told = {name: repr(it) for name, it in vars(action).items() if name in ("ledger", "queries", "platform")}
        told |= {"action": repr(action), "http": repr(http), "key": repr(key)}
    assert told["http"] == "HttpPlatform('http://127.0.0.1:9', protocol='kserve-v2', model='m')"
    assert told["platform"] == f"WithHabits({tiny!r}, Habits(decimals=2))"
    assert told["ledger"] == f"Ledger({str(tmp_path / 'ledger.sqlite')!r})"
    assert told["queries"] == f"QueryPool({told['platform']}, {told['ledger']}, 5 members)"
    assert told["action"].startswith("CollectiveAction('action' in ")
    assert not [text for text in told.values() if "secret" in text or "\n" in text]


def test_a_line_says_what_matters() -> None:
    """People, roles and answers say how many they are, and of what kind."""
    people = worlds.crowd("pool", 4, 2, seed=1)
    assert repr(people) == "People(6 images of 6 persons, 2 groups, 8×8 pixels)"
    assert repr(worlds.roster()) == "Roster(125 pool, 80 selection, 160 verification, 8×8 pixels)"
    said = Answers.from_labels(np.array([1, 0, -1]), 3)
    assert repr(said) == "Answers(2 answered, 1 refused, 3 classes, labels only)"
    assert repr(People.build(np.zeros((0, 2, 3, 3), np.uint8), [])) == (
        "People(0 images of 0 persons, 0 groups, 2×3 pixels)"
    )

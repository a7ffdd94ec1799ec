"""Names of earlier versions, which had British spelling: they still work, and warn."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from ttca.errors import ConfigError

__all__ = ["old_arguments", "old_keys", "old_names", "old_parameters"]

T = TypeVar("T")
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now called {new}. The old name will go.", DeprecationWarning, stacklevel=3)


def old_parameters(**names: str) -> Callable[[type[T]], type[T]]:
    """Return a decorator of classes that takes parameters under earlier names too, and keeps attributes under them.

    Parameters
    ----------
    **names : str
        The new name of each old one.

    Raises
    ------
    ConfigError
        By the class, if a parameter is given under both names.
    """

    def decorate(kind: type[T]) -> type[T]:
        made: Callable[..., None] = kind.__init__

        kind.__init__ = _accepting(made, kind.__name__, names)  # type: ignore[method-assign]
        # What a class only passes on is no attribute of its objects.
        for old, new in names.items():
            if new in getattr(kind, "__dataclass_fields__", ()):
                setattr(kind, old, _attribute(kind.__name__, old, new))
        return kind

    return decorate


def old_arguments(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator of functions that takes arguments under earlier names too; errors as of the classes."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        accepting: Callable[_P, _R] = _accepting(function, function.__name__, names)
        return accepting

    return decorate


def _accepting(made: Callable[..., Any], owner: str, names: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(made)
    def call(*args: Any, **given: Any) -> Any:
        for old, new in names.items():
            if old in given:
                if new in given:
                    raise ConfigError(f"Expected {new} alone, got {old} too, its earlier name. Remove {old}.")
                _warn(f"{owner}({old}=…)", new)
                given[new] = given.pop(old)
        return made(*args, **given)

    return call


def _attribute(owner: str, old: str, new: str) -> property:
    def read(self: Any) -> Any:
        _warn(f"{owner}.{old}", new)
        return getattr(self, new)

    return property(read, doc=f"Earlier name of ``{new}``.")


def old_names(module: str, **names: object) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module whose functions and classes had other names.

    Parameters
    ----------
    module : str
        Its name.
    **names : object
        What each old name now is.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found: Any = names[name]
        _warn(f"{module}.{name}", found.__name__)
        return found

    return find


def old_keys(found: Mapping[str, Any], where: str, **names: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a table of a file under today's names, and a sentence for each key that stood there under its old one.

    Parameters
    ----------
    found : mapping
    where : str
        The table and its file, for the sentences.
    **names : str
        The new name of each old one.

    Raises
    ------
    ConfigError
        If a key stands there under both names.
    """
    table, notes = dict(found), []
    for old, new in names.items():
        if old in table:
            if new in table:
                raise ConfigError(f"Expected {new} alone in {where}, got {old} too, its earlier name. Remove {old}.")
            table[new] = table.pop(old)
            notes.append(f"{old} in {where} is now called {new}; it was read as that. Rename it there.")
    return table, tuple(notes)

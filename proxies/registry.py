"""Models by name, known without torch: our own, timm's, ``module:function``, and whatever a user registers."""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Architecture",
    "Factory",
    "architecture_name",
    "check_importable",
    "find_model",
    "list_architectures",
    "register_model",
]

#: Takes the number of classes and a seed; returns a model from float32 NCHW in [0, 1] to logits.
Factory: TypeAlias = "Callable[[int, int], nn.Module]"
Architecture: TypeAlias = "str | Factory"
F = TypeVar("F", bound="Factory")

_OURS = "ttca.proxies.architectures"
_MODELS: dict[str, str | Factory] = {
    "perceptron": f"{_OURS}:perceptron",
    "small-cnn": f"{_OURS}:small_cnn",
    "small-mobilenet": f"{_OURS}:small_mobilenet",
    "small-resnet": f"{_OURS}:small_resnet",
    "small-resnet-stem2": f"{_OURS}:small_resnet_stem2",
    "resnet20": f"{_OURS}:resnet20",
    "resnet32": f"{_OURS}:resnet32",
    "resnet56": f"{_OURS}:resnet56",
}
_KNOWN = tuple(_MODELS)
_IMPORT = re.compile(r"[\w.]+:[\w.]+")


def list_architectures() -> tuple[str, ...]:
    """Return our own names and the registered ones; ``timm/NAME`` and ``module:function`` work besides."""
    return tuple(_MODELS)


@overload
def register_model(name: str) -> Callable[[F], F]: ...
@overload
def register_model(name: str, factory: F) -> F: ...
def register_model(name: str, factory: F | None = None) -> F | Callable[[F], F]:
    """Make a model known by a name, for :class:`ttca.Settings` and for reading kept proxies. Also a decorator.

    Parameters
    ----------
    name : str
    factory : callable(classes, seed) -> torch.nn.Module
        Its model takes float32 (N, 3, H, W) in [0, 1] and returns logits (N, classes); normalization lives inside.

    Raises
    ------
    ValueError
        If the name is one of ttca's own, or a model of timm.
    """
    if factory is None:
        return lambda given: register_model(name, given)
    if name in _KNOWN or name.startswith("timm/") or not name:
        raise ValueError(f"Expected a name that ttca does not use itself, got {name!r}. Choose another one.")
    _MODELS[name] = factory
    return factory


def architecture_name(architecture: Architecture) -> str:
    """Return the name under which a model is found again; a factory is registered as ``module:qualified name``.

    Raises
    ------
    ValueError
        If nothing goes by that name.
    """
    if not isinstance(architecture, str):
        if not callable(architecture) or not hasattr(architecture, "__qualname__"):
            raise ValueError(
                f"Expected an architecture as a name, or as a function or class that takes (classes, seed), got "
                f"{type(architecture).__name__}. Write a function that returns the model."
            )
        name = f"{architecture.__module__}:{architecture.__qualname__}"
        if name not in _MODELS or _MODELS[name] is not architecture:
            register_model(name, architecture)
        return name
    if architecture in _MODELS or architecture.startswith("timm/") or _IMPORT.fullmatch(architecture):
        return architecture
    near = difflib.get_close_matches(architecture, _MODELS, n=1)
    raise ValueError(
        f"{f'Did you mean {near[0]!r}? ' if near else ''}Expected the architecture to be one of {', '.join(_KNOWN)}, "
        f"timm/NAME or module:function, got {architecture!r}."
    )


def find_model(name: str) -> Factory:
    """Return the factory that goes by a name; ``module:function`` is imported.

    Raises
    ------
    ValueError
        If there is none, or it cannot be imported.
    """
    found = _MODELS.get(name, name)
    if isinstance(found, str):
        if ":" not in found:
            architecture_name(found)
        try:
            found = pkgutil.resolve_name(found)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"Expected a model at {name}, got: {error}. Install the module that defines it or put its folder on "
                "PYTHONPATH. A function inside another one must be registered with register_model first."
            ) from error
    if not callable(found):
        raise ValueError(f"Expected a function (classes, seed) that returns a model at {name}, got {found!r}.")
    return found


def check_importable(names: Iterable[Architecture]) -> None:
    """Raise ValueError where other processes would not find a model, because only this one has it."""
    for name in map(str, names):
        found = _MODELS.get(name)
        if found is None or isinstance(found, str):
            continue
        try:
            known = _IMPORT.fullmatch(name) and pkgutil.resolve_name(name) is found
        except (ImportError, AttributeError, ValueError):
            known = False
        if not known or name.startswith("__main__:"):
            raise ValueError(
                f"Expected models that other processes can import, got {name!r}, which only this one has. Put the "
                "function at the top of a module and name it as module:function, or set processes = 1."
            )

"""What values that hold arrays have in common: they compare by their content, and say what they are in one line."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["OneLine", "Value"]

#: The most characters of a line, and of what it says of one field.
_LINE, _FIELD = 160, 48


class OneLine:
    """A dataclass that says what it is in one line; made with ``@dataclass(eq=False, repr=False)``.

    Two of them are equal if they are the same object.
    """

    __slots__ = ()

    def _facts(self) -> str:
        """Return what matters about this value, for people; by default every field, arrays by dtype and shape."""
        return ", ".join(f"{f.name}={_BRIEF.repr(getattr(self, f.name))}" for f in fields(self) if f.repr)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        facts = " ".join(self._facts().split())
        room = _LINE - len(type(self).__name__) - 2
        return f"{type(self).__name__}({facts if len(facts) <= room else facts[: room - 1] + '…'})"


class Value(OneLine):
    """A dataclass that is equal to another if all fields are: arrays by dtype, shape and bytes, and NaN to NaN.

    Arrays can be written to, so that such a value has no hash. Made as :class:`OneLine` is.
    """

    __slots__ = ()
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = (f.name for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return self is other or all(_same(getattr(self, name), getattr(other, name)) for name in names)


class _Brief(reprlib.Repr):
    """Short text of a field."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _FIELD
        self.maxtuple = self.maxlist = self.maxdict = 3
        self.maxlevel = 2

    def repr_ndarray(self, array: NDArray[Any], _level: int) -> str:
        kind = "str" if array.dtype.kind == "U" else str(array.dtype)
        return f"{kind} {array.shape}"


_BRIEF = _Brief()


def _same(one: Any, other: Any) -> bool:
    """Whether two fields are equal."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        if type(one) is not type(other) or one.dtype != other.dtype or one.shape != other.shape:
            return False
        # The bytes of objects are only where they lie.
        return bool(one.tolist() == other.tolist() if one.dtype.hasobject else one.tobytes() == other.tobytes())
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)

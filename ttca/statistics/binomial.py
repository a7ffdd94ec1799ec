"""What a count of right answers shows about one success rate: exact (Clopper-Pearson) bounds, and what reaches one."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError, MissingExtraError

__all__ = [
    "Integers",
    "checked_counts",
    "checked_margin",
    "checked_rate",
    "clopper_pearson_interval",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "fewest",
    "rate_needed",
    "scipy_special",
]

Integers = NDArray[np.integer[Any]] | Sequence[int]


def scipy_special() -> ModuleType:
    """Return ``scipy.special``, loaded when first needed: who only reads certificates needs no scipy.

    Raises
    ------
    MissingExtraError
        If scipy is not installed.
    """
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtraError("Computing a confidence bound", "learn") from error
    return special


def checked_rate(name: str, value: float) -> float:
    """Return a rate strictly between 0 and 1, or raise a ConfigError that calls it by its name."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise ConfigError(f"Expected {name} strictly between 0 and 1, got {value!r}. Give a rate such as 0.05 for 5 %.")
    return number


def checked_margin(margin: float) -> float:
    """Return a margin in [0, 1), or raise a ConfigError."""
    if not 0 <= margin < 1:
        raise ConfigError(f"Expected a margin of 0 or more and below 1, got {margin!r}. Write 5 points as 0.05.")
    return float(margin)


def checked_counts(k: ArrayLike, m: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (right, asked) as int64 arrays, or raise an ActionError where they count nothing that can be."""
    right, asked = np.asarray(k), np.asarray(m)
    if right.dtype.kind not in "iu" or asked.dtype.kind not in "iu":
        raise ActionError(
            f"Expected whole numbers of right answers and of queries, got dtypes {right.dtype} and "
            f"{asked.dtype}. Count people, not shares."
        )
    if np.any(right < 0) or np.any(right > asked):
        raise ActionError(
            f"Expected 0 ≤ right ≤ m, got right = {right.tolist()} of m = {asked.tolist()}. Count each person once, "
            "and include unresolved queries in m."
        )
    return right.astype(np.int64), asked.astype(np.int64)


def _lower(k: ArrayLike, m: ArrayLike, alpha: float) -> NDArray[np.float64]:
    right, asked = checked_counts(k, m)
    # P(Bin(m, p) ≥ k) = I_p(k, m − k + 1): the bound is the p at which that tail is exactly alpha.
    found = scipy_special().betaincinv(np.maximum(right, 1), asked - right + 1, alpha)
    return np.where(right == 0, 0.0, found)


def _upper(k: ArrayLike, m: ArrayLike, alpha: float) -> NDArray[np.float64]:
    right, asked = checked_counts(k, m)
    # By symmetry in right and wrong. It keeps alpha small, where 1 − alpha would lose its last digits.
    return np.asarray(1.0 - _lower(asked - right, asked, alpha))


@overload
def clopper_pearson_lower(k: int, m: int, alpha: float) -> float: ...
@overload
def clopper_pearson_lower(k: Integers, m: int | Integers, alpha: float) -> NDArray[np.float64]: ...
@overload
def clopper_pearson_lower(k: int, m: Integers, alpha: float) -> NDArray[np.float64]: ...
def clopper_pearson_lower(k: int | Integers, m: int | Integers, alpha: float) -> float | NDArray[np.float64]:
    """Return the one-sided lower bound, at confidence 1 − alpha, for a success rate.

    Parameters
    ----------
    k, m : int or integer arrays that broadcast
        Right answers, and queries. ``m = 0`` gives 0.
    alpha : float
        Greatest probability with which the bound may exceed the true rate.

    Returns
    -------
    float or float64 array
        A float for two whole numbers, else an array of the broadcast shape.

    Raises
    ------
    ActionError
        If a count is not a whole number or k is not within 0..m.
    ConfigError
        If alpha is outside (0, 1).
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: Clopper and Pearson, Biometrika 26 (1934).
    """
    bound = _lower(k, m, checked_rate("alpha", alpha))
    return float(bound) if bound.ndim == 0 else bound


@overload
def clopper_pearson_upper(k: int, m: int, alpha: float) -> float: ...
@overload
def clopper_pearson_upper(k: Integers, m: int | Integers, alpha: float) -> NDArray[np.float64]: ...
@overload
def clopper_pearson_upper(k: int, m: Integers, alpha: float) -> NDArray[np.float64]: ...
def clopper_pearson_upper(k: int | Integers, m: int | Integers, alpha: float) -> float | NDArray[np.float64]:
    """Return the one-sided upper bound, at confidence 1 − alpha, for a success rate.

    Parameters, errors and source as :func:`clopper_pearson_lower`; ``m = 0`` gives 1.
    """
    bound = _upper(k, m, checked_rate("alpha", alpha))
    return float(bound) if bound.ndim == 0 else bound


@overload
def clopper_pearson_interval(k: int, m: int, confidence: float = 0.95) -> tuple[float, float]: ...
@overload
def clopper_pearson_interval(
    k: Integers, m: int | Integers, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def clopper_pearson_interval(
    k: int, m: Integers, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def clopper_pearson_interval(
    k: int | Integers, m: int | Integers, confidence: float = 0.95
) -> tuple[float, float] | tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the *two-sided* interval (low, high) for a success rate, half of the error on each side.

    Parameters, errors and source as :func:`clopper_pearson_lower`; ``m = 0`` gives (0, 1).
    """
    half = (1 - checked_rate("confidence", confidence)) / 2
    low, high = _lower(k, m, half), _upper(k, m, half)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def rate_needed(m: int, target: float, alpha: float, *, more: bool = False) -> int | None:
    """Return the fewest right answers of m whose one-sided lower bound at 1 − alpha reaches a target.

    Parameters
    ----------
    m : int
        Verification people.
    target : float
        In [0, 1].
    alpha : float
        Error of the bound.
    more : bool
        Whether the bound must exceed the target instead.

    Returns
    -------
    int or None
        None where even m of m would not do.

    Raises
    ------
    ActionError
        If m is not a whole number of 0 or more.
    ConfigError
        If a rate is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    The bound is *published* (:func:`clopper_pearson_lower`).
    """
    alpha = checked_rate("alpha", alpha)
    if not 0 <= target <= 1:
        raise ConfigError(f"Expected a target in [0, 1], got {target!r}. Give a share, not a percentage.")
    checked_counts(0, m)

    def reached(k: int) -> bool:
        bound = float(_lower(k, m, alpha))
        return bound > target if more else bound >= target

    return fewest(m, reached)


def fewest(m: int, reached: Callable[[int], bool], near: float | None = None) -> int | None:
    """Return the smallest of 0..m that is enough, where more is never worse, by bisection.

    ``near`` is where it may be; the closer it is, the fewer numbers are tried.
    """
    low, high = 0, m + 1
    if near is not None:
        at, step = min(max(round(near), 0), m), 1
        # Ever longer steps away from the guess, until the answer lies between two of them.
        while low <= at < high:
            if reached(at):
                high, at = at, max(at - step, low)
            else:
                low, at = at + 1, min(at + step, m)
            step *= 2
    found = low + bisect.bisect_left(range(low, min(high, m + 1)), True, key=reached)
    return None if found > m else found

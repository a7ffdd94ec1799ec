"""Whether two groups are served alike: exact tests either way, and the smallest gap that a sample could have seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.statistics.binomial import checked_rate, scipy_special
from ttca.statistics.comparisons import fisher_p, mcnemar_p

__all__ = ["chance_of_seeing", "fisher_either_way", "mcnemar_either_way", "smallest_gap"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def fisher_either_way(right: int, m: int, reference_right: int, reference_m: int) -> float:
    """Return the two-sided p of "both groups are served alike", for groups of different persons.

    Parameters
    ----------
    right, m, reference_right, reference_m : int
        As for :func:`ttca.statistics.comparisons.fisher_p`.

    Returns
    -------
    float
        1.0 where a group is empty.

    Raises
    ------
    ActionError, MissingExtraError
        As there.

    Notes
    -----
    Twice the smaller one-sided p of Fisher's exact test, *published*: a claim that a certain one of the two is served
    worse is wrong in at most half of the stated error.
    """
    ahead = fisher_p(right, m, reference_right, reference_m)
    return min(1.0, 2 * min(ahead, fisher_p(reference_right, reference_m, right, m)))


def mcnemar_either_way(won: int, lost: int) -> float:
    """Return the two-sided p of "both circumstances are served alike", for the same persons in both.

    Parameters
    ----------
    won : int
        Persons who were answered right in the first alone.
    lost : int
        Persons who were answered right in the second alone.

    Raises
    ------
    ActionError, MissingExtraError
        As :func:`ttca.statistics.comparisons.mcnemar_p`.

    Notes
    -----
    Twice the smaller one-sided p of McNemar's exact test, *published*.
    """
    return min(1.0, 2 * min(mcnemar_p(won, lost), mcnemar_p(lost, won)))


def chance_of_seeing(
    rate: float, reference_rate: float, m: int, reference_m: int, *, paired: bool = False, error: float = 0.05
) -> float:
    """Return the probability that a sample shows a group of this true rate to be served worse than the reference.

    Parameters
    ----------
    rate, reference_rate : float
        True rates of right answers, in [0, 1].
    m, reference_m : int
        Persons. Paired: the same ``m`` in both.
    paired : bool
        Whether they are the same persons. Their two answers are taken as independent, which they seldom are: where they
        go together, more is seen.
    error : float
        Of the two-sided test.

    Raises
    ------
    ActionError
        If a number of persons is negative, or the numbers of the same persons differ.
    ConfigError
        If the error is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    Exact, by enumeration of the tests above; what of the reference's counts has less than 1e-9 of the probability is
    left out. *Ours.*
    """
    return _seen_by(m, reference_m, reference_rate, paired, checked_rate("error", error))(rate)


def smallest_gap(
    reference_rate: float,
    m: int,
    reference_m: int,
    *,
    paired: bool = False,
    error: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """Return by how much a group's rate must lie below the reference's to be seen with this probability.

    Parameters
    ----------
    reference_rate, m, reference_m, paired, error
        As for :func:`chance_of_seeing`.
    power : float
        In (0, 1).

    Returns
    -------
    float or None
        None where not even a group without one right answer would be seen.

    Raises
    ------
    ActionError, ConfigError, MissingExtraError
        As there.
    """
    power = checked_rate("power", power)
    seen = _seen_by(m, reference_m, reference_rate, paired, checked_rate("error", error))
    if seen(0.0) < power:
        return None
    low, high = 0.0, reference_rate
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(reference_rate - middle) >= power else (middle, high)
    return high


def _seen_by(m: int, reference_m: int, reference_rate: float, paired: bool, error: float) -> Callable[[float], float]:
    """Return the probability of seeing a group, as a function of its rate."""
    if min(m, reference_m) < 0 or (paired and m != reference_m):
        raise ActionError(
            f"Expected numbers of persons of 0 or more, as many for both where they are the same, got {m} and "
            f"{reference_m}. Count each person once."
        )
    special = scipy_special()
    if not m or not reference_m:
        return lambda rate: 0.0
    if paired:
        discordant = np.arange(m + 1)
        # Of so many persons whose two answers differ, so few may be right only in the group.
        most = _most(discordant, lambda won: 2 * special.bdtr(won, discordant, 0.5) <= error)

        def of_pairs(rate: float) -> float:
            won, lost = rate * (1 - reference_rate), reference_rate * (1 - rate)
            share = won / (won + lost) if won + lost else 0.0
            weight = _binomial(m, won + lost)
            return float((weight * np.where(most < 0, 0.0, special.bdtr(most, discordant, share))).sum())

        return of_pairs
    from scipy.stats import hypergeom

    weight = _binomial(reference_m, reference_rate)
    there = np.flatnonzero(weight > 1e-9)
    worse = _most(
        np.full(len(there), m), lambda right: 2 * hypergeom.cdf(right, m + reference_m, right + there, m) <= error
    )

    def of_others(rate: float) -> float:
        return float((weight[there] * np.where(worse < 0, 0.0, special.bdtr(worse, m, rate))).sum())

    return of_others


def _most(ends: NDArray[Any], holds: Callable[[Integers], Any]) -> Integers:
    """Return the largest of 0..ends, elementwise, for which something holds that holds of all smaller; −1 for none."""
    low, high = np.full(len(ends), -1), np.asarray(ends, np.int64)
    while (low < high).any():
        middle = -((-low - high) // 2)
        yes = holds(np.maximum(middle, 0)) & (middle >= 0)
        low, high = np.where(yes & (low < high), middle, low), np.where(yes | (low >= high), high, middle - 1)
    return low


def _binomial(m: int, rate: float) -> Floats:
    special = scipy_special()
    k = np.arange(m + 1.0)
    ways = special.gammaln(m + 1) - special.gammaln(k + 1) - special.gammaln(m - k + 1)
    found: Floats = np.exp(ways + special.xlogy(k, rate) + special.xlog1py(m - k, -rate))
    return found if math.isfinite(found.sum()) else np.nan_to_num(found)

"""Looking a few times while answers come: the counts at which one may stop, exact whatever the numbers of answers."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.statistics.binomial import checked_rate

__all__ = ["chance_of_at_least", "chance_of_at_most", "stopping_counts"]


def chance_of_at_most(right: int, asked: int, rate: float) -> float:
    """Return the exact probability that at most so many of ``asked`` answers are right, each with that rate.

    Examples
    --------
    >>> round(chance_of_at_most(1, 3, 0.5), 3)
    0.5
    """
    return min(1.0, float(_pmf(asked, checked_rate("rate", rate))[: max(right, -1) + 1].sum()))


def chance_of_at_least(right: int, asked: int, rate: float) -> float:
    """Return the exact probability that at least so many of ``asked`` answers are right, each with that rate.

    Examples
    --------
    >>> round(chance_of_at_least(2, 3, 0.5), 3)
    0.5
    """
    return min(1.0, float(_pmf(asked, checked_rate("rate", rate))[max(right, 0) :].sum()))


@lru_cache(maxsize=1024)
def stopping_counts(sizes: tuple[int, ...], rate: float, alpha: float, looks: int | None = None) -> tuple[int, ...]:
    """Return, for each look, the most right answers at which one stops, −1 where none are few enough.

    Parameters
    ----------
    sizes : tuple of int
        How many answers there are at each look so far; they never fall.
    rate : float
        Whoever is right at least so often is stopped at any of the looks with probability ``alpha`` at most.
    alpha : float
    looks : int, optional
        How many looks there will be, by default as many as sizes. By the i-th look i/looks of ``alpha`` may be spent.

    Returns
    -------
    tuple of int

    Raises
    ------
    ActionError
        If sizes fall, or there are more of them than looks.

    Notes
    -----
    Error spending (*published*: Lan and DeMets 1983) on exact binomial paths instead of normal ones: the distribution
    of right answers among those not stopped yet is carried from look to look. What a look does not spend, since counts
    are whole, the next one may. Rates above ``rate`` stop less often, because fewer right answers always stop too.

    Examples
    --------
    >>> stopping_counts((20, 30, 40), 2 / 3, 0.01)
    (6, 12, 18)
    """
    planned = len(sizes) if looks is None else looks
    if any(later < before for before, later in zip((0, *sizes), sizes, strict=False)) or len(sizes) > planned:
        raise ActionError(f"Expected numbers of answers that never fall, at {planned} looks, got {list(sizes)}.")
    checked_rate("rate", rate)
    alive = np.ones(1)
    stopped, before, counts = 0.0, 0, []
    for look, size in enumerate(sizes, start=1):
        alive = np.convolve(alive, _pmf(size - before, rate))
        # A hair less, so that no rounding spends more than may be spent.
        room = checked_rate("alpha", alpha) * look / planned - stopped - 1e-12
        few = int((np.cumsum(alive) <= room).sum()) - 1
        stopped += float(alive[: few + 1].sum())
        alive[: few + 1] = 0.0
        before = size
        counts.append(few)
    return tuple(counts)


def _pmf(n: int, rate: float) -> NDArray[np.float64]:
    """Return the binomial probabilities of 0..n."""
    log = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(rate)
        + (n - k) * math.log1p(-rate)
        for k in range(n + 1)
    ]
    found: NDArray[np.float64] = np.exp(np.array(log))
    return found

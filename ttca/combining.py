"""Combining: in which classes the runner-up of a race helps more than its winner, and where any δ harms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPARED", "Switch", "switches"]

#: How many standard deviations above nothing a class's gain is expected to be. In simulated races without any gain by
#: class, 1 to 2 in a hundred got worse by it (tests/test_combining.py); at 0 it was 15 to 20.
_SURE = 1.645
#: The same where a class is left alone. In simulated tests of 30 and 70 persons, with a δ that helps nine people of
#: twenty less than nothing and the others more, S rose by .014 and .024 on average, at 1.645 by .007 and .015, at 0 by
#: .028 and .035. Where δ helped in every class, it fell by .001 at most; at 0 by .004 (ad hoc, 2,000 draws each).
SPARED = 1.0
#: Persons of a class, at least.
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A class in which another δ serves, or none.

    Parameters
    ----------
    label : int
        The class.
    persons : int
        Of this class, about whom the platform was asked under both.
    difference : float
        How much better the other was on them, in the mean.
    expected : float
        The same, drawn towards what holds over all classes, as far as chance may have made it.
    """

    label: int
    persons: int
    difference: float
    expected: float


def switches(
    gains: NDArray[np.float64], right: NDArray[np.int64], classes: NDArray[np.int64], sure: float = _SURE
) -> tuple[Switch, ...]:
    """Return the classes in which another δ, or none, is expected to help more than what serves, in their order.

    Parameters
    ----------
    gains : float64 array, shape (N,)
        What each person gains by the other, in the probability of the true class or in right answers.
    right : int64 array, shape (N,)
        1 where only the other brought a right answer, -1 where only what serves did, else 0.
    classes : int64 array, shape (N,)
        True classes.
    sure : float
        How many standard deviations above 0 a class's expected gain must be.

    Notes
    -----
    Empirical Bayes: a class's mean gain is drawn towards the mean of all classes. How far classes differ by more than
    chance is estimated by moments [published: DerSimonian and Laird, Controlled Clinical Trials 1986]; where they do
    not, nothing is switched. A class is switched if its expected gain is so far above 0, it has two persons or more,
    and the other brought them no fewer right answers [ours].
    """
    labels, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    spare = len(gains) - len(labels)
    if len(labels) < 2 or spare < 2:
        return ()
    persons = counts.astype(np.float64)
    means = np.bincount(inverse, gains) / persons
    within = float(((gains - means[inverse]) ** 2).sum()) / spare
    # A spread of exactly nothing among a few persons would make every difference sure.
    noise = max(within, 1e-6) / persons
    between = _between(means, noise)
    if not between:
        return ()
    weights = 1 / (noise + between)
    common, known = float((weights * means).sum() / weights.sum()), 1 / float(weights.sum())
    kept = between / (between + noise)
    expected = common + kept * (means - common)
    spread = np.sqrt(between * (1 - kept) + (1 - kept) ** 2 * known)
    won = np.bincount(inverse, right)
    chosen = (counts >= _FEWEST) & (won >= 0) & (expected > sure * spread)
    return tuple(
        Switch(label=int(labels[i]), persons=int(counts[i]), difference=float(means[i]), expected=float(expected[i]))
        for i in np.flatnonzero(chosen)
    )


def _between(means: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Return the variance of classes' own gains, of means that have so much variance by chance; 0 where that is all."""
    weights = 1 / noise
    total = float(weights.sum())
    common = float((weights * means).sum()) / total
    excess = float((weights * (means - common) ** 2).sum()) - (len(means) - 1)
    return max(0.0, excess / (total - float((weights**2).sum()) / total))

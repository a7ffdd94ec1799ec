"""Combining: in which classes a race's runner-up helps more than its winner, and in which what is proposed harms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.statistics.comparisons import rise_p

__all__ = ["Harm", "Switch", "harms", "switches"]

#: How many standard deviations above nothing a class's gain is expected to be. In simulated races without any gain by
#: class, 1 to 2 in a hundred got worse by it (tests/test_combining.py); at 0 it was 15 to 20.
_SURE = 1.645
#: In at most about so many actions is any class left alone that δ does not harm (:func:`harms`). In simulated tests of
#: 30 and 70 persons in two classes, one of them harmed by .11 on average, S rose by .020 and .033, at half the level by
#: .013 and .024. Where δ helped all of two or ten, S fell by .001 at most (ad hoc, 600 draws each).
_SPARED = 0.2
#: Persons of a class, at least.
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Harm:
    """A class that is left alone.

    Parameters
    ----------
    label : int
        The class.
    persons : int
        Of this class, in the test.
    difference : float
        How much better they fared as they are, in the mean.
    p : float
        One-sided, of a difference so large.
    """

    label: int
    persons: int
    difference: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A class in which the runner-up serves.

    Parameters
    ----------
    label : int
        The class.
    persons : int
        Of this class, about whom the platform was asked under both.
    difference : float
        How much better the runner-up was on them than the winner, in the mean.
    expected : float
        The same, drawn towards what holds over all classes, as far as chance may have made it.
    """

    label: int
    persons: int
    difference: float
    expected: float


def switches(gains: NDArray[np.float64], right: NDArray[np.int64], classes: NDArray[np.int64]) -> tuple[Switch, ...]:
    """Return the classes in which a race's runner-up is expected to help more than its winner, in their order.

    Parameters
    ----------
    gains : float64 array, shape (N,)
        What each person gains by the runner-up over the winner, in the probability of the true class or in right
        answers.
    right : int64 array, shape (N,)
        1 where only the runner-up brought a right answer, -1 where only the winner did, else 0.
    classes : int64 array, shape (N,)
        True classes.

    Notes
    -----
    Empirical Bayes: a class's mean gain is drawn towards the mean of all classes. How far classes differ by more than
    chance is estimated by moments [published: DerSimonian and Laird, Controlled Clinical Trials 1986]; where they do
    not, nothing is switched. A class is switched if its expected gain is 1.645 standard deviations above 0, it has two
    persons or more, and the runner-up brought them no fewer right answers [ours].
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
    chosen = (counts >= _FEWEST) & (won >= 0) & (expected > _SURE * spread)
    return tuple(
        Switch(label=int(labels[i]), persons=int(counts[i]), difference=float(means[i]), expected=float(expected[i]))
        for i in np.flatnonzero(chosen)
    )


def harms(losses: NDArray[np.float64], right: NDArray[np.int64], classes: NDArray[np.int64]) -> tuple[Harm, ...]:
    """Return the classes that are better off without a δ that helps on average, in their order.

    Parameters
    ----------
    losses : float64 array, shape (N,)
        What each person loses by δ, in the probability of the true class or in right answers.
    right : int64 array, shape (N,)
        1 where only the image as it is brought a right answer, -1 where only δ did, else 0.
    classes : int64 array, shape (N,)
        True classes.

    Notes
    -----
    Fisher's randomization test of each class [published], at a level of 0.2 over all of them (Bonferroni), and no fewer
    may be right as they are [ours]. What a few persons lose is far from symmetric: most lose nothing, and some all. On
    CIFAR-10 eleven of a class lost .28 (p .0195; .02 was needed) where δ brings .07: that class is left alone in vain.
    """
    labels = np.unique(classes)
    found = []
    for label in labels.tolist():
        mine = classes == label
        p = rise_p(losses[mine])
        if p < _SPARED / len(labels) and right[mine].sum() >= 0:
            mean = float(losses[mine].mean())
            found.append(Harm(label=label, persons=int(mine.sum()), difference=mean, p=p))
    return tuple(found)


def _between(means: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Return the variance of classes' own gains, of means that have so much variance by chance; 0 where that is all."""
    weights = 1 / noise
    total = float(weights.sum())
    common = float((weights * means).sum()) / total
    excess = float((weights * (means - common) ** 2).sum()) - (len(means) - 1)
    return max(0.0, excess / (total - float((weights**2).sum()) / total))

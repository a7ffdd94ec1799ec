"""Several images of a person: an approximate test over persons, and how far from its stated error a layout takes it.

Images of one person go together, so they are not that many independent answers. The only default that certifies is
one image per person and group. A permutation of persons is no way out where they bring different numbers of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import checked_counts, checked_margin, checked_rate, scipy_special

__all__ = ["effective_persons", "layout_size", "studentized_person_p"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Simulated actions computed at once.
_AT_ONCE = 2000


def studentized_person_p(
    right: ArrayLike, images: ArrayLike, reference_right: ArrayLike, reference_images: ArrayLike, margin: float = 0.0
) -> float:
    """Return an *approximate* one-sided p of "S is at most A - margin", for groups of different persons.

    Parameters
    ----------
    right, images : integer arrays, shape (persons,)
        Right answers and images of each person of the subgroup.
    reference_right, reference_images : integer arrays, shape (persons,)
        The same of the reference.
    margin : float
        In [0, 1), fixed beforehand.

    Returns
    -------
    float
        1.0 where a group has fewer than two persons' worth of images.

    Raises
    ------
    ActionError
        If counts are impossible or arrays do not match.
    ConfigError
        If the margin is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    Not exact: certify with it only where :func:`layout_size` stays within alpha. *Published*: each rate is a ratio of
    sums over persons, its variance that of the persons' residuals (Rao and Scott, Biometrics 48 (1992)), t with
    Welch and Satterthwaite's degrees of freedom. *Ours*: each group counts as (Σ images)² / Σ images² persons (Kish's
    effective number), and its variance is no less than that of independent images, two right and two wrong added, so
    that a group without an error is not taken as certain.
    """
    margin = checked_margin(margin)
    groups = []
    for counts in ((right, images), (reference_right, reference_images)):
        k, n = checked_counts(*counts)
        if k.ndim != 1 or k.shape != n.shape:
            raise ActionError(
                f"Expected right answers and images of one number per person, got shapes {k.shape} and {n.shape}. "
                "Count each person's images."
            )
        groups += [k[None, n > 0], n[n > 0]]
    return float(_p(groups[0], groups[1], groups[2], groups[3], margin)[0])


def layout_size(
    images: ArrayLike,
    reference_images: ArrayLike,
    alpha: float,
    rates: Sequence[float],
    icc: Sequence[float],
    runs: int,
    rng: np.random.Generator,
    margin: float = 0.0,
) -> float:
    """Return how often :func:`studentized_person_p` errs with these numbers of images, at the worst of the cases given.

    Parameters
    ----------
    images, reference_images : integer arrays, shape (persons,)
        Images of each person of the subgroup, and of the reference.
    alpha : float
        The test claims at p <= alpha. To certify at .05, test at a smaller alpha whose size here is within .05: at the
        same alpha even an even layout may be a little above it.
    rates : sequence of float
        Rates of the reference, in (margin, 1); S is the rate less the margin.
    icc : sequence of float
        Correlations of one person's answers, in [0, 1): .05 to .3 are common.
    runs : int
        Simulated actions for each rate and correlation. The size has a standard error of about sqrt(size / runs).
    rng : numpy Generator
    margin : float
        In [0, 1).

    Returns
    -------
    float
        The greatest share of false claims.

    Raises
    ------
    ActionError
        If an array is no count of images.
    ConfigError
        If alpha, a rate, a correlation, the runs or the margin is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Ours*. A person's own rate is drawn from a beta distribution, and their answers are independent given it.
    """
    alpha, margin = checked_rate("alpha", alpha), checked_margin(margin)
    layouts = [checked_counts(0, part)[1] for part in (images, reference_images)]
    if any(part.ndim != 1 for part in layouts):
        raise ActionError("Expected one number of images per person, got another shape. Count each person's images.")
    if runs < 1 or not rates or not icc or not all(margin < r < 1 for r in rates) or not all(0 <= c < 1 for c in icc):
        raise ConfigError(
            f"Expected at least one run, rates in ({margin:g}, 1) and correlations in [0, 1), got {runs}, {rates} and "
            f"{icc}. Give for example rates [0.7, 0.95] and correlations [0.05, 0.3]."
        )
    ours, theirs = (part[part > 0] for part in layouts)
    worst = 0.0
    for rate in rates:
        for together in icc:
            claims = 0
            for start in range(0, runs, _AT_ONCE):
                shape = min(_AT_ONCE, runs - start)
                s = _drawn(rng, shape, ours, rate - margin, together)
                a = _drawn(rng, shape, theirs, rate, together)
                claims += int(np.count_nonzero(_p(s, ours, a, theirs, margin) <= alpha))
            worst = max(worst, claims / runs)
    return worst


def _drawn(rng: np.random.Generator, runs: int, images: Counts, rate: float, icc: float) -> Counts:
    if icc == 0:
        return rng.binomial(images, rate, size=(runs, len(images)))
    spread = (1 - icc) / icc
    own = rng.beta(rate * spread, (1 - rate) * spread, size=(runs, len(images)))
    return rng.binomial(images, own)


def _p(right: Counts, images: Counts, reference_right: Counts, reference_images: Counts, margin: float) -> Floats:
    """Return p of each run; right answers have shape (runs, persons)."""
    persons, others = effective_persons(images), effective_persons(reference_images)
    if min(persons, others) < 2:
        return np.ones(len(right))
    s, s_variance = _rate_and_variance(right, images, persons)
    a, a_variance = _rate_and_variance(reference_right, reference_images, others)
    variance = s_variance + a_variance
    freedom = variance**2 / (s_variance**2 / (persons - 1) + a_variance**2 / (others - 1))
    return np.asarray(scipy_special().stdtr(freedom, -(s - a + margin) / np.sqrt(variance)))


def effective_persons(images: Counts) -> float:
    """Return (Σ images)² / Σ images², Kish's effective number of persons (*published*: Kish 1965)."""
    return float(images.sum() ** 2 / (images**2).sum()) if len(images) else 0.0


def _rate_and_variance(right: Counts, images: Counts, persons: float) -> tuple[Floats, Floats]:
    total = int(images.sum())
    rate = right.sum(axis=1) / total
    residuals = right - rate[:, None] * images
    between = persons / (persons - 1) * (residuals**2).sum(axis=1) / total**2
    shrunk = (right.sum(axis=1) + 2) / (total + 4)
    return rate, np.maximum(between, shrunk * (1 - shrunk) / total)

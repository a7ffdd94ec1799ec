"""Whether one success rate is above another, or not far below it: exact one-sided tests of counts.

Everywhere S is the share of right answers of the subgroup and A that of the reference. A small p speaks for the claim
about S. Where a null hypothesis leaves a rate open (a nuisance), p is the greatest probability over that rate of a
table at least as extreme, found by enumeration: the published score only says which table is more extreme.

Two things make that greatest probability trustworthy. Tables are ordered by the score's cumulative maximum over all
tables that are no better for the claim (Barnard's convexity), so p never grows with another right answer of S, and the
nuisance can stay on the boundary of the null hypothesis. And the maximum on a grid is raised by what can hide between
two of its points: a probability f that n independent answers decide has ``|f''| <= sqrt(2 f) J``, with J their Fisher
information about the nuisance (Cauchy-Schwarz on the second derivative of the likelihood). Both are *ours*.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import (
    checked_counts,
    checked_margin,
    checked_rate,
    clopper_pearson_lower,
    clopper_pearson_upper,
    scipy_special,
)

__all__ = [
    "farrington_manning_p",
    "fisher_p",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "mcnemar_p",
    "miettinen_nurminen_p",
    "ratio_by_two_bounds",
    "rise_p",
    "tango_p",
]

Floats = NDArray[np.float64]

#: Scores closer than this are a tie; ties count as at least as extreme.
_TIE = 1e-9
#: How far between two points of a grid the root of a probability may rise above the points.
_BETWEEN = 2e-5
#: A smaller p is not told apart from this one.
_SMALLEST = 1e-7
#: So often are all signs drawn, and from so many on: the ways of fewer are gone through.
_FLIPS, _FEW = 9_999, 13
#: Cells before the first is split, and points of the nuisance computed at once.
_FIRST_CELLS, _AT_ONCE = 64, 256


# --- without a nuisance ------------------------------------------------------------------------------------


def fisher_p(right: int, m: int, reference_right: int, reference_m: int) -> float:
    """Return the one-sided p of "S is not above A", for two groups of different persons.

    Parameters
    ----------
    right, m : int
        Right answers of the subgroup, of m persons.
    reference_right, reference_m : int
        The same of the reference.

    Returns
    -------
    float
        1.0 where a group is empty.

    Raises
    ------
    ActionError
        If a count is not a whole number or a group has more right answers than persons.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: Fisher, The Design of Experiments (1935). Given how many of all persons were right, the share of them
    that falls to the subgroup is hypergeometric at equal rates.
    """
    _checked(right, m)
    _checked(reference_right, reference_m)
    scipy_special()  # Says what to install.
    from scipy.stats import hypergeom

    return min(1.0, float(hypergeom.sf(right - 1, m + reference_m, right + reference_right, m)))


def mcnemar_p(won: int, lost: int) -> float:
    """Return the one-sided p of "S is not above A", for the same persons in both conditions.

    Parameters
    ----------
    won : int
        Persons with S right and A wrong.
    lost : int
        Persons with S wrong and A right.

    Returns
    -------
    float
        Pr[Bin(won + lost, 1/2) >= won]; 1.0 where no answer differs.

    Raises
    ------
    ActionError
        If a count is not a whole number of 0 or more.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: McNemar, Psychometrika 12 (1947), in its exact binomial form.
    """
    _checked(won, won + lost)
    return float(scipy_special().bdtr(lost, won + lost, 0.5))


def mcnemar_mid_p(won: int, lost: int) -> float:
    """Return the mid-p of the same test: what was seen counts by half.

    Its level holds on average and not in every case, which the exact test buys with being too strict where few answers
    differ. For choices, not for claims.

    Parameters
    ----------
    won, lost : int
        As for :func:`mcnemar_p`.

    Returns
    -------
    float
        Pr[Bin(won + lost, 1/2) > won] + Pr[... = won] / 2; 0.5 where no answer differs.

    Raises
    ------
    ActionError
        If a count is not a whole number of 0 or more.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).
    """
    exact = mcnemar_p(won, lost)
    # bdtr knows no negative number of successes.
    more = float(scipy_special().bdtr(lost - 1, won + lost, 0.5)) if lost else 0.0
    return (exact + more) / 2


def rise_p(differences: ArrayLike) -> float:
    """Return the one-sided p of "what is measured of each person does not rise", for the same persons twice.

    For choices, not for claims: where everybody differs by as much, as right and wrong do, it is a mid-p.

    Parameters
    ----------
    differences : float, shape (N,)
        Each person's second value minus the first.

    Returns
    -------
    float
        How often the mean difference would be as high if every sign were drawn: of all ways to draw them, or of 9,999.
        0.5 where nobody differs.

    Raises
    ------
    ActionError
        If a difference is not a finite number, or they are not (N,).
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: Fisher, The Design of Experiments (1935), section 21. Of right and wrong it is :func:`mcnemar_mid_p`.
    """
    given = np.asarray(differences, np.float64)
    if given.ndim != 1 or not np.isfinite(given).all():
        raise ActionError(f"Expected one finite difference for each person, got shape {given.shape}.")
    moved = given[given != 0]
    if not len(moved) or np.ptp(np.abs(moved)) < _TIE:
        return mcnemar_mid_p(int((moved > 0).sum()), int((moved < 0).sum()))
    sizes, seen = np.abs(moved), moved.sum()
    if len(moved) < _FEW:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(moved))))
        return float((signs @ sizes > seen - _TIE).mean())
    signs = np.random.default_rng(0).integers(0, 2, (_FLIPS, len(moved))) * 2.0 - 1.0
    # What was seen is one of the draws.
    return (int((signs @ sizes > seen - _TIE).sum()) + 1) / (_FLIPS + 1)


def mcnemar_exact(before_correct: ArrayLike, after_correct: ArrayLike) -> float:
    """Return the two-sided p of "as many people were lost as were won", for two results on the same people.

    Parameters
    ----------
    before_correct, after_correct : bool, shape (N,)
        Whether each person's answer was right, in the same order of people.

    Returns
    -------
    float
        1.0 where no answer changed.

    Raises
    ------
    ActionError
        If shapes differ or a value is not boolean.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: McNemar, Psychometrika 12 (1947), in its exact binomial form.
    """
    before, after = np.asarray(before_correct), np.asarray(after_correct)
    if before.ndim != 1 or before.shape != after.shape or before.dtype != np.bool_ or after.dtype != np.bool_:
        raise ActionError(
            "Expected two boolean arrays of one row per person, got shapes "
            f"{before.shape} and {after.shape}, dtypes {before.dtype} and {after.dtype}. "
            "Pass the same people in the same order."
        )
    lost = int(np.count_nonzero(before & ~after))
    won = int(np.count_nonzero(~before & after))
    if lost + won == 0:
        return 1.0
    return min(1.0, 2.0 * float(scipy_special().bdtr(min(lost, won), lost + won, 0.5)))


def ratio_by_two_bounds(right: int, reference_right: int, m: int, ratio: float, alpha: float) -> bool:
    """Return whether S is shown to be at least ratio * A, for the same persons in both conditions.

    Parameters
    ----------
    right, reference_right : int
        Right answers in the two conditions, each of the same m persons.
    m : int
        Persons.
    ratio : float
        Above 0, at most 1.
    alpha : float
        Greatest probability of a false claim.

    Raises
    ------
    ActionError
        If a count is not a whole number of 0..m.
    ConfigError
        If the ratio or alpha is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Ours*, from *published* bounds: lower(S) >= ratio * upper(A), each a one-sided Clopper-Pearson bound at alpha/2.
    The two errors are added, so how the two answers of a person go together does not matter.
    """
    _checked_ratio(ratio)
    half = checked_rate("alpha", alpha) / 2
    _checked(right, m)
    _checked(reference_right, m)
    return clopper_pearson_lower(right, m, half) >= ratio * clopper_pearson_upper(reference_right, m, half)


# --- with a nuisance ---------------------------------------------------------------------------------------


def farrington_manning_p(right: int, m: int, reference_right: int, reference_m: int, margin: float) -> float:
    """Return the one-sided p of "S is at most A - margin", for two groups of different persons.

    Parameters
    ----------
    right, m, reference_right, reference_m : int
        As in :func:`fisher_p`.
    margin : float
        In [0, 1), fixed before anybody was asked.

    Returns
    -------
    float
        Never below the exact maximum over the nuisance, and above it by at most about 3e-5 times its root; 1e-7 where
        that is smaller.

    Raises
    ------
    ActionError
        If a count is not a whole number or a group has more right answers than persons.
    ConfigError
        If the margin is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: the score with rates fitted under the null hypothesis, Farrington and Manning, Statistics in Medicine 9
    (1990); exact p over the nuisance, Chan, Statistics in Medicine 17 (1998). *Ours*: the monotone order and the bound
    between grid points (see the module). It never grows with ``right`` and never falls with ``reference_right``.
    """
    margin = checked_margin(margin)
    _checked(right, m)
    _checked(reference_right, reference_m)
    if not m or not reference_m:
        return 1.0
    order = _independent_order(m, reference_m, "difference", margin)
    return _greatest(
        _Boundary(
            low=margin,
            width=1 - margin,
            better=lambda rate: rate - margin,
            worse=lambda rate: rate,
            information=lambda rate: _information(m, rate - margin) + _information(reference_m, rate),
            chance=_independent_chance(order, right, reference_right),
            persons=m + reference_m,
        )
    )


def miettinen_nurminen_p(right: int, m: int, reference_right: int, reference_m: int, ratio: float) -> float:
    """Return the one-sided p of "S is at most ratio * A", for two groups of different persons.

    Parameters
    ----------
    right, m, reference_right, reference_m : int
        As in :func:`fisher_p`.
    ratio : float
        Above 0, at most 1, fixed before anybody was asked.

    Returns
    -------
    float
        As exact as :func:`farrington_manning_p`'s.

    Raises
    ------
    ActionError
        If a count is not a whole number or a group has more right answers than persons.
    ConfigError
        If the ratio is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: the score with rates fitted under the null hypothesis, Miettinen and Nurminen, Statistics in Medicine 4
    (1985). *Ours*: p as the maximum over the nuisance, in the monotone order (see the module).
    """
    ratio = _checked_ratio(ratio)
    _checked(right, m)
    _checked(reference_right, reference_m)
    if not m or not reference_m:
        return 1.0
    order = _independent_order(m, reference_m, "ratio", ratio)
    return _greatest(
        _Boundary(
            low=0.0,
            width=1.0,
            better=lambda rate: ratio * rate,
            worse=lambda rate: rate,
            information=lambda rate: ratio**2 * _information(m, ratio * rate) + _information(reference_m, rate),
            chance=_independent_chance(order, right, reference_right),
            persons=m + reference_m,
        )
    )


def tango_p(won: int, lost: int, m: int, margin: float) -> float:
    """Return the one-sided p of "S is at most A - margin", for the same m persons in both conditions.

    Parameters
    ----------
    won : int
        Persons with S right and A wrong.
    lost : int
        Persons with S wrong and A right.
    m : int
        All persons.
    margin : float
        In [0, 1), fixed before anybody was asked.

    Returns
    -------
    float
        As exact as :func:`farrington_manning_p`'s.

    Raises
    ------
    ActionError
        If a count is not a whole number or more persons differ than there are.
    ConfigError
        If the margin is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: the score, Tango, Statistics in Medicine 17 (1998). *Ours*: p as the maximum over the probability that
    an answer is lost, in the monotone order (see the module). It never grows with ``won`` or
    falls with ``lost``.
    """
    margin = checked_margin(margin)
    _checked(won, won + lost)
    _checked(won + lost, m)
    if not m:
        return 1.0

    def information(rate: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(m * (1 / (rate - margin) + 1 / rate + 4 / (1 + margin - 2 * rate)))

    return _greatest(
        _Boundary(
            low=margin,
            width=(1 - margin) / 2,
            better=lambda rate: rate - margin,
            worse=lambda rate: rate,
            information=information,
            chance=_paired_chance(_paired_order(m, margin), won, lost),
            persons=m,
        )
    )


# --- the greatest probability over a nuisance ----------------------------------------------------------------


@dataclass(frozen=True)
class _Boundary:
    """The boundary of a null hypothesis, walked by one rate, and the probability there of the tables that count.

    The rate is ``low + width * (1 - cos t) / 2`` with t in [0, pi]. In t the information is at most ``persons``.
    ``better`` and ``worse`` give the two probabilities that the rate stands for; ``chance`` grows with the first and
    falls with the second.
    """

    low: float
    width: float
    better: Callable[[Floats], Floats]
    worse: Callable[[Floats], Floats]
    information: Callable[[Floats], Floats]
    chance: Callable[[Floats, Floats], Floats]
    persons: int


def _greatest(boundary: _Boundary) -> float:
    """Return no less than the greatest probability on the boundary, and hardly more."""
    cells = _FIRST_CELLS
    while math.sqrt(2) * boundary.persons * (math.pi / cells) ** 2 / 8 > _BETWEEN:
        cells *= 2
    rates = boundary.low + boundary.width * (1 - np.cos(np.linspace(0, math.pi, cells + 1))) / 2
    rates[[0, -1]] = boundary.low, boundary.low + boundary.width
    best = _greatest_on_grid(boundary, rates)
    rise = _rise(boundary, rates[1:-2], rates[2:-1]).max()
    # In the two outermost cells the information has no bound, but each probability of the pair has two ends.
    ends = boundary.chance(boundary.better(rates[[1, -1]]), boundary.worse(rates[[0, -2]]))
    found = max(float(_raised(np.asarray(best), rise)), float(ends.max()))
    # The factor is far above the rounding of a sum of binomial probabilities.
    return min(1.0, max(_SMALLEST, found * (1 + 1e-9)))


def _greatest_on_grid(boundary: _Boundary, rates: Floats) -> float:
    """Return the greatest probability at the grid's points, leaving out cells that cannot hold it."""
    step = (len(rates) - 1) // _FIRST_CELLS
    known = np.full(len(rates), np.nan)
    starts = np.arange(0, len(rates) - 1, step)
    while True:
        needed = np.unique(np.concatenate([starts, starts + step]))
        needed = needed[np.isnan(known[needed])]
        for i in range(0, len(needed), _AT_ONCE):
            at = rates[needed[i : i + _AT_ONCE]]
            known[needed[i : i + _AT_ONCE]] = boundary.chance(boundary.better(at), boundary.worse(at))
        best = max(_SMALLEST / 2, float(np.nanmax(known)))
        if step == 1:
            return best
        highest = np.maximum(known[starts], known[starts + step])
        starts = starts[_raised(highest, _rise(boundary, rates[starts], rates[starts + step])) > best]
        step //= 2
        starts = np.concatenate([starts, starts + step])


def _rise(boundary: _Boundary, low: Floats, high: Floats) -> Floats:
    # Information is convex in the rate, so one of a cell's ends has the most of it.
    most = np.maximum(boundary.information(low), boundary.information(high))
    return np.asarray(math.sqrt(2) * most * (high - low) ** 2 / 8)


def _raised(ends: Floats, rise: Floats) -> Floats:
    """Return what a probability f can reach in a cell: f <= ends + rise * sqrt(f), solved for f."""
    with np.errstate(over="ignore"):
        return np.asarray((rise / 2 + np.sqrt(rise**2 / 4 + ends)) ** 2)


def _information(m: int, rate: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(m / (rate * (1 - rate)))


# --- which tables are more extreme ---------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _independent_order(m: int, n: int, kind: str, value: float) -> Floats:
    """Return the monotone score of every table, shape (m + 1, n + 1): right of the subgroup, right of the reference."""
    score = _difference_score if kind == "difference" else _ratio_score
    columns = np.arange(n + 1, dtype=np.float64)[None, :]
    order = np.concatenate([score(np.array([[x]]), m, columns, n, value) for x in np.arange(m + 1.0)])
    return _monotone(order)


def _monotone(order: Floats) -> Floats:
    upward = np.maximum.accumulate(order, axis=0)
    upward = np.maximum.accumulate(upward[:, ::-1], axis=1)[:, ::-1]
    upward.flags.writeable = False
    return np.asarray(upward)


def _difference_score(x: Floats, m: int, y: Floats, n: int, margin: float) -> Floats:
    s, a, theta, d = x / m, y / n, n / m, -margin
    # Farrington and Manning's cubic for S under S = A - margin, solved as in their appendix.
    c3 = 1 + theta
    c2 = -(1 + theta + s + theta * a + d * (theta + 2))
    c1 = d**2 + d * (2 * s + theta + 1) + s + theta * a
    c0 = -s * d * (1 + d)
    v = c2**3 / (27 * c3**3) - c2 * c1 / (6 * c3**2) + c0 / (2 * c3)
    u = np.where(v < 0, -1.0, 1.0) * np.sqrt(np.maximum(c2**2 / (9 * c3**2) - c1 / (3 * c3), 0))
    cosine = np.clip(np.divide(v, u**3, out=np.zeros_like(v), where=u != 0), -1, 1)
    fitted = 2 * u * np.cos((math.pi + np.arccos(cosine)) / 3) - c2 / (3 * c3)
    fitted = np.clip(fitted, 0, 1 - margin)
    other = np.clip(fitted + margin, 0, 1)
    return _standardised(s - a + margin, fitted * (1 - fitted) / m + other * (1 - other) / n)


def _ratio_score(x: Floats, m: int, y: Floats, n: int, ratio: float) -> Floats:
    b = x + ratio * y + ratio * m + n
    fitted = 2 * (x + y) / (b + np.sqrt(np.maximum(b**2 - 4 * ratio * (m + n) * (x + y), 0)))
    fitted = np.clip(fitted, 0, 1)
    variance = ratio * fitted * (1 - ratio * fitted) / m + ratio**2 * fitted * (1 - fitted) / n
    return _standardised(x / m - ratio * y / n, variance)


@lru_cache(maxsize=2)
def _paired_order(m: int, margin: float) -> Floats:
    """Return the monotone score of (won, lost), shape (m + 1, m + 1); what exceeds m carries its neighbors' on."""
    won, lost = np.arange(m + 1.0)[:, None], np.arange(m + 1.0)[None, :]
    b = won + lost + (2 * m - won + lost) * margin
    root = np.sqrt(np.maximum(b**2 - 8 * m * lost * margin * (1 + margin), 0))
    fitted = np.clip((b + root) / (4 * m), margin, (1 + margin) / 2)
    score = _standardised((won - lost) / m + margin, (2 * fitted - margin * (1 + margin)) / m)
    return _monotone(np.where(won + lost <= m, score, -np.inf))


def _standardised(estimate: Floats, variance: Floats) -> Floats:
    # No variance means rates of 0 or 1 that agree with the null hypothesis: nothing speaks for the claim.
    estimate, variance = np.broadcast_arrays(estimate, variance)
    safe = variance > 1e-15
    return np.divide(estimate, np.sqrt(np.where(safe, variance, 1)), out=np.zeros(estimate.shape), where=safe)


# --- the probability of the tables that count ----------------------------------------------------------------


def _independent_chance(order: Floats, right: int, reference_right: int) -> Callable[[Floats, Floats], Floats]:
    m, n = order.shape[0] - 1, order.shape[1] - 1
    # Rows are sorted, so how many entries of a column fall short is the first that counts; m + 1 where none does.
    fewest = np.count_nonzero(order < order[right, reference_right] - _TIE, axis=0)

    def chance(s: Floats, a: Floats) -> Floats:
        tail = np.zeros((len(s), m + 2))
        tail[:, m::-1] = np.cumsum(_pmf(m, s)[:, ::-1], axis=1)
        return np.asarray((_pmf(n, a) * tail[:, fewest]).sum(axis=1))

    return chance


def _paired_chance(order: Floats, won: int, lost: int) -> Callable[[Floats, Floats], Floats]:
    m = order.shape[0] - 1
    special = scipy_special()
    fewest = np.count_nonzero(order < order[won, lost] - _TIE, axis=0)
    possible = np.flatnonzero(fewest + np.arange(m + 1) <= m)

    def chance(win: Floats, lose: Floats) -> Floats:
        weights = _pmf(m, lose)[:, possible]
        rows, columns = np.nonzero(weights > 1e-18)
        few, others = fewest[possible[columns]], m - possible[columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(np.where(lose < 1, win / (1 - lose), 0), 0, 1)
        tail = np.where(few > 0, special.betainc(np.maximum(few, 1), others - few + 1, share[rows]), 1.0)
        # What was left out of the sum is at most 1e-18 for each of m + 1 numbers lost.
        total = np.bincount(rows, weights[rows, columns] * tail, minlength=len(win))
        return np.asarray(total + (m + 1) * 1e-18)

    return chance


def _pmf(m: int, rate: Floats) -> Floats:
    """Return the binomial probabilities, shape (rates, m + 1)."""
    special = scipy_special()
    k = np.arange(m + 1.0)
    ways = special.gammaln(m + 1) - special.gammaln(k + 1) - special.gammaln(m - k + 1)
    return np.asarray(np.exp(ways + special.xlogy(k, rate[:, None]) + special.xlog1py(m - k, -rate[:, None])))


# --- what is asked for ---------------------------------------------------------------------------------------


def _checked(right: int, m: int) -> None:
    checked_counts(right, m)


def _checked_ratio(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise ConfigError(f"Expected a ratio above 0 and at most 1, got {ratio!r}. Write four fifths as 0.8.")
    return float(ratio)

"""Stopping whenever one likes: e-processes, which reject at 1/alpha after any person, and their running bounds.

If the null hypothesis is true, an e-process is on average at most 1 at any stopping time, and so ever reaches 1/alpha
with probability at most alpha (Ville 1939). Both here are mixtures of bets that were all placed before the first
answer, so their values depend on counts alone. The choice to test this way must be made before the first answer too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import Integers, checked_counts, checked_margin, checked_rate, scipy_special

__all__ = ["bar_log_e", "bar_lower", "bar_rejects_at", "paired_log_e", "paired_log_e_at", "paired_lower"]

Floats = NDArray[np.float64]

#: Bets of the paired test, as shares of the greatest one that cannot lose everything.
_BETS = (np.arange(40) + 0.5) / 40
#: Halvings of a bound's interval: 60 leave it exact to the last digits of a double.
_HALVINGS = 60


# --- against a bar fixed beforehand --------------------------------------------------------------------------


def bar_log_e(right: ArrayLike, asked: ArrayLike, bar: float | Floats) -> Floats:
    """Return the log e-value against "S is at most the bar" after so many answers.

    Parameters
    ----------
    right, asked : integers that broadcast
        Right answers so far, and persons asked so far.
    bar : float or float64 array that broadcasts
        In [0, 1], fixed before the first answer.

    Returns
    -------
    float64 array
        Of the broadcast shape. 0 before the first answer; minus infinity at a bar of 1, which nothing can beat; plus
        infinity at a bar of 0 that a right answer has beaten.

    Raises
    ------
    ActionError
        If a count is not a whole number or more are right than were asked.
    ConfigError
        If a bar is outside [0, 1].
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    ``E = ∫ Π (p/u)^S ((1 - p)/(1 - u))^(1 - S) dF(p)``, F uniform on (u, 1). *Published*: Ville, Étude critique de la
    notion de collectif (1939); Waudby-Smith and Ramdas, JRSS B 86 (2024). *Ours*: the mixture, chosen because it has a
    closed form. E falls as the bar rises, so its inversion (:func:`bar_lower`) is an interval.
    """
    right, asked = checked_counts(right, asked)
    bar = np.asarray(bar, dtype=np.float64)
    if not np.all((bar >= 0) & (bar <= 1)):
        raise ConfigError(f"Expected a bar in [0, 1], got {bar.tolist()!r}. Give a share, not a percentage.")
    return _bar_log_e(*np.broadcast_arrays(right, asked, bar))


def _bar_log_e(right: NDArray[np.int64], asked: NDArray[np.int64], bar: Floats) -> Floats:
    special = scipy_special()
    k, w = right.astype(np.float64), (asked - right).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = special.betaincc(k + 1, w + 1, bar)
        level = special.xlogy(k, bar) + special.xlog1py(w + 1, -bar)
        log_e = special.betaln(k + 1, w + 1) + np.log(tail) - level
    log_e = np.where(asked == 0, 0.0, log_e)
    log_e = np.where(bar == 1, -np.inf, log_e)
    # Far below the bar the tail leaves the range of a double. There the sum's terms fall geometrically.
    faint = (tail < 1e-200) & (bar < 1) & (asked > 0)
    if np.any(faint):
        log_e[faint] = _log_series(k[faint], w[faint], (1 - bar[faint]) / bar[faint])
    return np.asarray(log_e)


def _log_series(k: Floats, w: Floats, odds: Floats) -> Floats:
    """Return log ∫ (1 + odds z)^k (1 - z)^w dz over (0, 1), by parts k times: every term is positive."""
    term = 1 / (w + 1)
    total, j = term.copy(), 0
    while np.any(term > 1e-17 * total):
        term = term * (k - j) * odds / (w + j + 2)
        total += term
        j += 1
    return np.asarray(np.log(total))


def bar_rejects_at(outcomes: ArrayLike, bar: float, alpha: float) -> int | None:
    """Return after how many persons "S is at most the bar" is first rejected.

    Parameters
    ----------
    outcomes : 0/1 array, shape (m,)
        Right or not, in the order in which persons were asked.
    bar : float
        In [0, 1], fixed before the first answer: a one-sided upper bound of the reference at its own share of alpha.
    alpha : float
        Greatest probability of ever rejecting where S is at most the bar.

    Returns
    -------
    int or None
        None where it is not rejected.

    Raises
    ------
    ActionError
        If an outcome is neither 0 nor 1.
    ConfigError
        If the bar or alpha is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    See :func:`bar_log_e`.
    """
    right = np.cumsum(_among(outcomes, (0, 1)))
    log_e = bar_log_e(right, np.arange(1, len(right) + 1), bar)
    reached = np.flatnonzero(log_e >= -np.log(checked_rate("alpha", alpha)))
    return int(reached[0]) + 1 if len(reached) else None


def bar_lower(right_cum: Integers, alpha: float) -> Floats:
    """Return a lower bound for S after each person; all of them hold together at 1 - alpha.

    Parameters
    ----------
    right_cum : integers, shape (m,)
        Right answers among the first 1, 2, ... m persons.
    alpha : float
        Greatest probability with which any of the bounds may exceed S.

    Returns
    -------
    float64 array, shape (m,)
        The greatest bar that was rejected so far; it never falls.

    Raises
    ------
    ActionError
        If the counts are no running counts.
    ConfigError
        If alpha is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    The confidence sequence of :func:`bar_log_e`, by bisection, rounded downward.
    """
    right, asked = checked_counts(right_cum, np.arange(1, len(right_cum) + 1))
    if np.any((steps := np.diff(right, prepend=0)) < 0) or np.any(steps > 1):
        raise ActionError(
            "Expected right answers counted on from person to person, got a step that is neither 0 nor 1. Pass the "
            "cumulative sum of 0/1 outcomes."
        )
    enough = -np.log(checked_rate("alpha", alpha))
    return _greatest_rejected(lambda bar: _bar_log_e(right, asked, bar) >= enough, np.zeros(len(right)))


def _greatest_rejected(rejects: Callable[[Floats], NDArray[np.bool_]], low: Floats) -> Floats:
    """Return, after each person, the greatest value up to 1 rejected so far, where all below it are rejected too."""
    high = np.ones(len(low))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beaten = rejects(middle)
        low, high = np.where(beaten, middle, low), np.where(beaten, high, middle)
    return np.maximum.accumulate(low)


# --- the same persons in both conditions ----------------------------------------------------------------------


def paired_log_e(differences: ArrayLike, margin: float = 0.0) -> Floats:
    """Return the log e-value against "S is at most A - margin" after each person.

    Parameters
    ----------
    differences : integers -1, 0 or 1, shape (m,)
        S minus A of each person, in the order in which they were asked.
    margin : float
        In [0, 1), fixed before the first answer.

    Returns
    -------
    float64 array, shape (m,)
        Reject as soon as one is at least log(1/alpha).

    Raises
    ------
    ActionError
        If a difference is another number.
    ConfigError
        If the margin is out of range.

    Notes
    -----
    The mean of ``Π (1 + bet (D + margin))`` over 40 bets spread evenly over (0, 1/(1 - margin)). *Published*:
    Waudby-Smith and Ramdas, JRSS B 86 (2024), who bet against a mean. *Ours*: the even mixture instead of their
    predictable plug-in bets.
    """
    margin = checked_margin(margin)
    counts = _changes(differences)
    return _paired_log_e(*counts, np.full(len(counts[0]), -margin))


def paired_log_e_at(won: ArrayLike, lost: ArrayLike, same: ArrayLike, margin: float = 0.0) -> Floats:
    """Return the log e-value of :func:`paired_log_e` after so many persons of each kind: for tables of many actions.

    Parameters
    ----------
    won, lost, same : integers of 0 or more that broadcast
        Persons with a difference of 1, of -1 and of 0.
    margin : float
        In [0, 1).

    Returns
    -------
    float64 array
        Of the broadcast shape.

    Raises
    ------
    ConfigError
        If the margin is out of range.
    """
    margin = checked_margin(margin)
    counts = np.broadcast_arrays(*(np.asarray(count, np.float64) for count in (won, lost, same)))
    lead = np.full(counts[0].size, -margin)
    return _paired_log_e(counts[0].ravel(), counts[1].ravel(), counts[2].ravel(), lead).reshape(counts[0].shape)


def paired_lower(differences: ArrayLike, alpha: float) -> Floats:
    """Return a lower bound for S - A after each person; all of them hold together at 1 - alpha.

    Parameters
    ----------
    differences : integers -1, 0 or 1, shape (m,)
        As in :func:`paired_log_e`.
    alpha : float
        Greatest probability with which any of the bounds may exceed S - A.

    Returns
    -------
    float64 array, shape (m,)
        In [-1, 1); it never falls.

    Raises
    ------
    ActionError
        If a difference is another number.
    ConfigError
        If alpha is out of range.

    Notes
    -----
    The confidence sequence of :func:`paired_log_e`, by bisection, rounded downward: the greatest margin's negative, or
    lead, that was rejected so far.
    """
    counts = _changes(differences)
    enough = -np.log(checked_rate("alpha", alpha))
    return _greatest_rejected(
        lambda lead: _paired_log_e(*counts, lead) >= enough, np.full(len(counts[0]), -1.0, dtype=np.float64)
    )


def _paired_log_e(won: Floats, lost: Floats, same: Floats, lead: Floats) -> Floats:
    """Return the log e-value against "S - A is at most the lead", from running counts; lead in [-1, 1]."""
    # At a lead of -1 a bet has no limit.
    lead = np.maximum(lead, -1 + 1e-12)
    bets = _BETS / (1 + lead[:, None])
    terms = (
        won[:, None] * np.log1p(bets * (1 - lead[:, None]))
        + lost[:, None] * np.log1p(-_BETS)
        + same[:, None] * np.log1p(-bets * lead[:, None])
    )
    most = terms.max(axis=1)
    return np.asarray(most + np.log(np.mean(np.exp(terms - most[:, None]), axis=1)))


def _changes(differences: ArrayLike) -> tuple[Floats, Floats, Floats]:
    values = _among(differences, (-1, 0, 1))
    won, lost, same = (np.cumsum(values == value).astype(np.float64) for value in (1, -1, 0))
    return won, lost, same


def _among(values: ArrayLike, allowed: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iub" or not np.all(np.isin(array, allowed)):
        raise ActionError(
            f"Expected one whole number per person, each of {', '.join(map(str, allowed))}, got dtype {array.dtype}, "
            f"shape {array.shape}. Pass outcomes in the order in which persons were asked."
        )
    return array.astype(np.int64)

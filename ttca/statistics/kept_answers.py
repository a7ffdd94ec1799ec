"""Whether answers that were kept still come: e-values over looks, valid however often and however long one looks.

Both bet on persons who are drawn uniformly from all that are kept, each independently of all others. They reject at
1/alpha, and the chance of ever doing so while their hypothesis is true is at most alpha (Ville 1939).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError
from ttca.statistics.sequential import paired_log_e_at

__all__ = ["HARM_WINS", "STEADY", "change_wins", "changed_log_e", "helps_log_e"]

Floats = NDArray[np.float64]

STEADY = 0.005
"""So large a share of kept answers may change on average while "the platform still answers so" is true."""

#: Shares of changed answers that are bet on: four to thirty times the steady one. More is found as fast.
_SHARES = np.geomspace(4 * STEADY, 30 * STEADY, 20)
#: Of the stake, what the first look bets. Soon after its certificate an action is looked at most closely.
_FIRST = 0.8


#: The most that one harmed person can multiply the e-value against "δ still helps" with.
HARM_WINS = 2.0


def change_wins(changed: int) -> float:
    """Return the most that one person can multiply the e-value of :func:`changed_log_e` with.

    Between two looks at an e-value, it cannot have risen by more: who watches it need not compute it each time.

    Parameters
    ----------
    changed : int
        How many of the person's two answers have changed.
    """
    gain = (_SHARES.max() - STEADY) / (STEADY * (1 - STEADY))
    return max(1.0, float(1 + gain * (changed / 2 - STEADY)))


def changed_log_e(persons: ArrayLike) -> float:
    """Return the log e-value against "on average at most :data:`STEADY` of the kept answers change".

    Parameters
    ----------
    persons : integers, shape (looks, 3)
        For each look in turn, the persons of whom no answer has changed, one of the two has, and both have: the one
        about the image as it is, and the one about it with δ. The last look may not have ended yet.

    Returns
    -------
    float
        0.0 before the first look.

    Raises
    ------
    ActionError
        If these are no counts.

    Notes
    -----
    For one answer, ``(q/q0)^x ((1 - q)/(1 - q0))^(1 - x)`` is a bet that pays 1 on average where x = 1 has chance q0.
    A person has two answers, which may well change together. Their two bets are averaged, which is fair whatever the
    dependence; the persons' bets are multiplied, and mixed over q.

    A platform may change after a year of quiet looks, when bets from the first day have lost nearly everything.
    Therefore new bets begin at every look: the first has 0.8 of the stake, the k-th ``0.2/(k(k - 1))``. *Ours*; Ville's
    inequality is *published* (1939).
    """
    gain = (_SHARES - STEADY) / (STEADY * (1 - STEADY))
    bets = np.stack([np.log1p(gain * (changed / 2 - STEADY)) for changed in range(3)])
    since = _since_each_look(persons, 3)
    terms = since @ bets
    most = terms.max(axis=1, initial=-np.inf)
    return _staked(most + np.log(np.mean(np.exp(terms - most[:, None]), axis=1)))


def helps_log_e(persons: ArrayLike) -> float:
    """Return the log e-value against "of those to whom δ makes a difference, it helps at least half".

    Parameters
    ----------
    persons : integers, shape (looks, 2)
        For each look in turn, the persons who are right with δ alone, and without it alone.

    Returns
    -------
    float
        0.0 before the first look.

    Raises
    ------
    ActionError
        If these are no counts.

    Notes
    -----
    :func:`ttca.statistics.sequential.paired_log_e_at` with help and harm exchanged; new bets begin at every look, as in
    :func:`changed_log_e`.
    """
    helped, harmed = _since_each_look(persons, 2).T
    return _staked(paired_log_e_at(harmed, helped, np.zeros(len(harmed))))


def _since_each_look(persons: ArrayLike, kinds: int) -> Floats:
    """Return, for each look, what was counted from it on."""
    counts = np.asarray(persons)
    if counts.size == 0:
        return np.zeros((0, kinds))
    if counts.ndim != 2 or counts.shape[1] != kinds or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise ActionError(
            f"Expected {kinds} counts of persons for each look, got dtype {counts.dtype}, shape {counts.shape}."
        )
    return np.cumsum(counts[::-1], axis=0, dtype=np.float64)[::-1]


def _staked(log_e: Floats) -> float:
    """Return the log of the whole stake, of which every look has bet its share; what is left waits for later looks."""
    looks = np.arange(1, len(log_e) + 1, dtype=np.float64)
    if not len(looks):
        return 0.0
    shares = np.concatenate([[_FIRST], (1 - _FIRST) / (looks[1:] * (looks[1:] - 1))])
    return float(np.logaddexp(np.logaddexp.reduce(np.log(shares) + log_e), np.log((1 - _FIRST) / looks[-1])))

"""Stopping when nothing that is still to come can change a verdict: the same verdict, the same error, fewer asked.

*Ours*, and plain: a test of a fixed number of persons, asked in a fixed order, whose verdict never turns against the
claim with another right answer. What stays unasked must be taken as wrong in a lower bound and as right in an upper.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError

__all__ = ["decided", "decided_pairs", "least_won", "paired_stopping_time", "stopping_time"]

Counts = NDArray[np.int64]


def decided(passes: Callable[[int], bool], right: int, asked: int, total: int) -> bool | None:
    """Return the verdict of a test, if the answers so far leave only one.

    Parameters
    ----------
    passes : callable
        Right answers of all ``total`` persons → whether the test passes; more right answers never fail it.
    right, asked : int
        Right answers so far, and persons asked so far.
    total : int
        Persons the test is about.

    Returns
    -------
    bool or None
        True if it passes even if everybody else is wrong, False if it fails even if everybody else is right.

    Raises
    ------
    ActionError
        If not 0 <= right <= asked <= total.
    """
    if not 0 <= right <= asked <= total:
        raise ActionError(
            f"Expected 0 ≤ right ≤ asked ≤ total, got {right}, {asked} and {total}. Count each person once."
        )
    if passes(right):
        return True
    return None if passes(right + total - asked) else False


def decided_pairs(
    passes: Callable[[int, int, int, int], bool],
    won: int,
    lost: int,
    both: int,
    neither: int,
    unasked_right: int,
    unasked_wrong: int,
) -> bool | None:
    """Return the verdict of a paired test, if the answers so far leave only one.

    The reference's answer A of every person is known; their answer S is asked in a fixed order.

    Parameters
    ----------
    passes : callable
        (won, lost, both, neither) of all persons → whether the test passes. S right instead of wrong never fails it.
    won, lost : int
        Persons asked so far with only S right, and with only A right.
    both, neither : int
        Persons asked so far with both right, and with both wrong.
    unasked_right, unasked_wrong : int
        Persons not yet asked with A right, and with A wrong.

    Returns
    -------
    bool or None
        True if it passes even if S is wrong for everybody else, False if it fails even if S is right for all of them.

    Raises
    ------
    ActionError
        If a count is negative.
    """
    if min(won, lost, both, neither, unasked_right, unasked_wrong) < 0:
        raise ActionError(
            "Expected counts of persons of 0 or more, got "
            f"{(won, lost, both, neither, unasked_right, unasked_wrong)}. Count each person once."
        )
    if passes(won, lost + unasked_right, both, neither + unasked_wrong):
        return True
    return None if passes(won + unasked_wrong, lost, both + unasked_right, neither) else False


# --- many simulated actions at once ------------------------------------------------------------------------------


def stopping_time(outcomes: ArrayLike, needed: int | None) -> tuple[Counts, NDArray[np.bool_]]:
    """Return after how many persons each action's verdict is decided, and the verdict.

    Parameters
    ----------
    outcomes : 0/1 array, shape (actions, m)
        Right or not, in the order in which persons are asked.
    needed : int or None
        Fewest right answers of m that pass; None where m of m would not.

    Returns
    -------
    stopped : int64 array, shape (actions,)
        Persons asked; 0 where nothing needs to be asked.
    passed : bool array, shape (actions,)

    Raises
    ------
    ActionError
        If the outcomes are no 0/1 rows.
    """
    right = _running(_rows("outcomes", outcomes))
    m = right.shape[1] - 1
    bar = m + 1 if needed is None else needed
    surely = right >= bar
    hopeless = right + (m - np.arange(m + 1)) < bar
    return _first(surely, hopeless)


def paired_stopping_time(
    reference: ArrayLike, outcomes: ArrayLike, least: ArrayLike
) -> tuple[Counts, NDArray[np.bool_]]:
    """Return after how many persons each action's paired verdict is decided, and the verdict.

    Parameters
    ----------
    reference : 0/1 array, shape (actions, m)
        A of each person, all known before S is asked.
    outcomes : 0/1 array, shape (actions, m)
        S of each person, in the order in which they are asked.
    least : int array, shape (m + 1,)
        For each number lost, the fewest won that pass; more than m where none would (:func:`least_won`).

    Returns
    -------
    stopped : int64 array, shape (actions,)
        Persons asked; 0 where nothing needs to be asked.
    passed : bool array, shape (actions,)

    Raises
    ------
    ActionError
        If the arrays are no 0/1 rows of one shape, or ``least`` has another length than m + 1.
    """
    a, s, fewest = _rows("reference", reference), _rows("outcomes", outcomes), np.asarray(least)
    if a.shape != s.shape or fewest.shape != (a.shape[1] + 1,):
        raise ActionError(
            f"Expected reference and outcomes of the same persons and m + 1 numbers in least, got shapes {a.shape}, "
            f"{s.shape} and {fewest.shape}. Pass the same persons in the same order."
        )
    won, lost = _running(s & ~a), _running(a & ~s)
    right, wrong = _running(a), _running(~a)
    surely = won >= fewest[lost + right[:, -1:] - right]
    hopeless = won + wrong[:, -1:] - wrong < fewest[lost]
    return _first(surely, hopeless)


def least_won(passes: Callable[[int, int], bool], m: int) -> Counts:
    """Return, for each number lost of m persons, the fewest won that pass a paired test.

    Parameters
    ----------
    passes : callable
        (won, lost) → whether the test passes. More won never fails it, more lost never helps.
    m : int
        Persons.

    Returns
    -------
    int64 array, shape (m + 1,)
        m + 1 where none would pass. Takes about 2 m calls.
    """
    fewest = np.full(m + 1, m + 1, dtype=np.int64)
    won = 0
    for lost in range(m + 1):
        while won + lost <= m and not passes(won, lost):
            won += 1
        if won + lost > m:
            break
        fewest[lost] = won
    return fewest


def _first(surely: NDArray[np.bool_], hopeless: NDArray[np.bool_]) -> tuple[Counts, NDArray[np.bool_]]:
    # After the last person one of the two is true, so argmax finds a true one.
    stopped = (surely | hopeless).argmax(axis=1)
    return stopped, np.take_along_axis(surely, stopped[:, None], axis=1)[:, 0]


def _running(rows: NDArray[np.bool_]) -> Counts:
    """Return how many were true among the first 0, 1, ... m."""
    counted = np.zeros((rows.shape[0], rows.shape[1] + 1), dtype=np.int64)
    np.cumsum(rows, axis=1, out=counted[:, 1:])
    return counted


def _rows(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iub" or not np.all((array == 0) | (array == 1)):
        raise ActionError(
            f"Expected {name} of 0 and 1, one row per action and one column per person, got dtype {array.dtype}, "
            f"shape {array.shape}. Pass what was right in the order in which persons are asked."
        )
    return array.astype(np.bool_)

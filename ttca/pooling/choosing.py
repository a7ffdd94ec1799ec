"""Choosing: in which order images are asked, when there are more of them than queries."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError

__all__ = ["ORDERS", "Order", "in_order", "most_uncertain"]

Order = Literal["random", "stratified"]
ORDERS: tuple[Order, ...] = get_args(Order)


def in_order(order: Order, classes: NDArray[np.int64], subgroup: NDArray[np.bool_], *, seed: int) -> NDArray[np.intp]:
    """Return the rows in the order in which they are to be asked.

    Parameters
    ----------
    order : str
        ``random``, or ``stratified``: whatever number is asked, every class and group has an equal share of it as
        long as it has images left.
    classes : int64 array, shape (N,)
    subgroup : bool array, shape (N,)
    seed : int

    Returns
    -------
    intp array, shape (N,)
        A permutation. *Ours.*

    Raises
    ------
    ConfigError
        If there is no such order, or the columns have not one row each.
    """
    if order not in ORDERS:
        raise ConfigError(f"Expected the order to be one of {', '.join(ORDERS)}, got {order!r}.")
    if classes.shape != subgroup.shape or classes.ndim != 1:
        raise ConfigError(f"Expected one class and group per image, got {classes.shape} and {subgroup.shape}.")
    shuffled = np.random.default_rng([seed, 11]).permutation(len(classes))
    if order == "random":
        return shuffled
    stratum = (2 * classes + subgroup)[shuffled]
    # The first of every stratum, then the second of every stratum …
    turn = np.zeros(len(shuffled), np.int64)
    for s in np.unique(stratum):
        rows = stratum == s
        turn[rows] = np.arange(int(rows.sum()))
    return shuffled[np.argsort(turn, kind="stable")]


def most_uncertain(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the rows, those first between whose two likeliest classes a proxy hesitates most (smallest margin).

    Parameters
    ----------
    probabilities : float array, shape (N, C)

    Notes
    -----
    Margin sampling: Scheffer, Decomain and Wrobel 2001. *Published.*
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ConfigError(f"Expected probabilities of two or more classes, got {probabilities.shape}.")
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.argsort(best[:, 1] - best[:, 0], kind="stable")

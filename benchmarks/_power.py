"""What comparing the same persons one by one is worth: the power of *improvement* beside tests that do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

from benchmarks._many_certificates import certify_many
from benchmarks._simulated_actions import Answered
from ttca.goals import Certifying
from ttca.statistics.binomial import fewest
from ttca.statistics.comparisons import fisher_p, mcnemar_p, ratio_by_two_bounds
from ttca.statistics.curtailed import least_won

__all__ = ["boschloo_needs", "improvement", "mcnemar_power"]

Counts = NDArray[np.int64]


def improvement(actions: int, seed: int, *, persons: int = 299, before: float = 0.78, after: float = 0.85,
                phi: float = 0.5, alpha: float = 0.05) -> dict[str, Any]:  # fmt: skip
    """Return the power of every test of "S is above the accuracy before".

    Parameters
    ----------
    actions : int
        Simulated, for what has no exact value.
    seed : int
    persons : int
        Seen before and after; or so many before, and so many others after.
    before, after : float
        Rates.
    phi : float
        Correlation of a person's two answers.
    alpha : float

    Returns
    -------
    dict
        ``power``: of the exact one-sided McNemar test, itself exact. ``tests``: for each test its power where the
        persons are the same, and where they are others (null: not for other persons).
    """
    cells = _cells(before, after, phi)
    rng = np.random.default_rng([seed, 0x706F7765])
    won, lost, both = rng.multinomial(persons, cells, size=actions).T[:3]
    least = least_won(lambda w, l: mcnemar_p(w, l) <= alpha, persons)  # noqa: E741
    needs: dict[str, Callable[[int], int | None]] = {
        "Fisher": lambda k: fewest(persons, lambda x: fisher_p(x, persons, k, persons) <= alpha),
        "Boschloo": boschloo_needs(persons, alpha).__getitem__,
        "two bounds at alpha / 2": lambda k: fewest(persons, lambda x: ratio_by_two_bounds(x, k, persons, 1.0, alpha)),
    }
    tests: dict[str, Any] = {
        "McNemar": {
            "same": mcnemar_power(persons, float(cells[0]), float(cells[1]), alpha),
            "simulated": float((won >= least[lost]).mean()),
            "other": None,
        }
    }
    for name, needed in needs.items():
        found = [needed(k) for k in range(persons + 1)]
        table = np.array([persons + 1 if n is None else n for n in found])
        weights = binom.pmf(np.arange(persons + 1), persons, before)
        tests[name] = {
            "same": float((won + both >= table[lost + both]).mean()),
            "other": float((weights * binom.sf(table - 1, persons, after)).sum()),
        }
    answers = _people(rng, persons, cells, min(actions, 20_000))
    for stopping in ("anytime", "hybrid"):
        many = certify_many(Certifying(goal="improvement", stopping=stopping, alpha=alpha), "paired", answers)
        tests[f"McNemar, {stopping}" if stopping == "hybrid" else "bets on pairs, anytime"] = {
            "same": float(many.claimed.mean()),
            "other": None,
        }
    return {
        "power": tests["McNemar"]["same"],
        "persons": persons,
        "before": before,
        "after": after,
        "phi": phi,
        "alpha": alpha,
        "actions": actions,
        "tests": tests,
    }


def mcnemar_power(persons: int, wins: float, loses: float, alpha: float = 0.05) -> float:
    """Return the exact power of the one-sided McNemar test, where each person wins and loses at these rates."""
    power = 0.0
    share = wins / (wins + loses)
    for differing in range(persons + 1):
        needed = fewest(differing, lambda won, of=differing: mcnemar_p(won, of - won) <= alpha)  # type: ignore[misc]
        if needed is not None:
            weight = binom.pmf(differing, persons, wins + loses)
            power += float(weight * binom.sf(needed - 1, differing, share))
    return power


def boschloo_needs(persons: int, alpha: float) -> Counts:
    """Return the fewest right answers that Boschloo's exact test passes, for each number right of as many others.

    Notes
    -----
    *Published*: Boschloo, Statistica Neerlandica 24 (1970): Fisher's p orders the tables, and its bar rises to where
    the greatest probability over the common rate is alpha. The greatest is looked for at 2,001 rates.
    """
    right = np.arange(persons + 1)
    p = np.asarray(hypergeom.sf(right[:, None] - 1, 2 * persons, right[:, None] + right[None, :], persons))
    rates = np.linspace(0, 1, 2001)
    weights = np.asarray(binom.pmf(right[:, None], persons, rates))
    tails = np.concatenate([np.cumsum(weights[::-1], axis=0)[::-1], np.zeros((1, len(rates)))])

    def least(bar: float) -> Counts:
        return np.asarray(np.count_nonzero(p > bar * (1 + 1e-12), axis=0))

    bars = np.unique(p[p <= min(1.0, 4 * alpha)])
    low, high = 0, len(bars)
    while low < high:
        middle = (low + high) // 2
        size = float((weights * tails[least(float(bars[middle]))]).sum(axis=0).max())
        low, high = (middle + 1, high) if size <= alpha else (low, middle)
    return least(float(bars[low - 1])) if low else np.full(persons + 1, persons + 1)


def _cells(before: float, after: float, phi: float) -> NDArray[np.float64]:
    """Return the probabilities of won, lost, both right and both wrong."""
    both = before * after + phi * math.sqrt(before * (1 - before) * after * (1 - after))
    return np.array([after - both, before - both, both, 1 - before - after + both])


def _people(rng: np.random.Generator, persons: int, cells: NDArray[np.float64], actions: int) -> Answered:
    drawn = rng.choice(4, p=cells, size=(actions, persons))
    return Answered(np.isin(drawn, (1, 2)), np.isin(drawn, (0, 2))[:, None])

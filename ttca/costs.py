"""The arithmetic of costs: what one more right answer costs, how large a group pooling needs, how long it takes.

Every number here is made of counts that were measured elsewhere; nothing is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import clopper_pearson_interval
from ttca.errors import ConfigError
from ttca.values import Value

__all__ = ["Stops", "Trials", "break_even", "cheapest", "days_alone", "paired", "price", "prices"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Resamples whose stopping points are priced at a time: memory, not numbers, depends on it.
_BLOCK = 250
_COPIES = 10_000


def price(fixed: float, spent: float, gained: float, images: float, people: float) -> float:
    """Return queries per additional right answer when so many images are helped; ∞ where none is gained [ours].

    Parameters
    ----------
    fixed : float
        Queries paid once, however many images there are.
    spent, gained : float
        Queries per image, and additional right answers, summed over ``people`` images that were measured.
    images : float
        Images that are helped, above 0.
    people : float
        Images that were measured.
    """
    return (fixed / images + spent / people) * people / gained if gained > 0 else math.inf


def prices(spent: Integers, gained: Integers) -> Floats:
    """Return queries per additional right answer, float64, elementwise; ∞ where none is gained [ours].

    Parameters
    ----------
    spent, gained : int64 arrays
        Queries, and additional right answers.
    """
    found: Floats = np.where(gained > 0, spent / np.maximum(gained, 1), np.inf)
    return found


def break_even(
    fixed: Integers | int,
    actions: int,
    people: Integers | int,
    gained: Integers | int,
    spent: Integers | int,
    gained_alone: Integers | int,
    spent_alone: Integers | int,
) -> Floats:
    """Return the fewest images at which pooling's price is no higher than a per-user attack's, float64; ∞ for never.

    All counts are whole numbers, so that the smallest group is exact. Elementwise [ours].

    Parameters
    ----------
    fixed : int
        Queries paid once, summed over the actions.
    actions : int
        How many actions (seeds) were summed.
    people : int or int64 array
        Images measured, summed over the actions; the same for both ways.
    gained, spent : int or int64 array
        Additional right answers, and queries for single images, of the pooled way.
    gained_alone, spent_alone : int or int64 array
        The same of the per-user attack.
    """
    values = (np.asarray(v, np.int64) for v in (people, gained, spent, gained_alone, spent_alone))
    n, ours, paid, theirs, cost = np.broadcast_arrays(*values)
    theirs = np.maximum(theirs, 0)
    above = fixed * n * theirs
    below = actions * (ours * cost - paid * theirs)
    images = np.where(below > 0, -(-above // np.maximum(below, 1)), 1).astype(np.float64)
    # With nothing paid once, the two prices are equal or not whatever the group.
    never = (ours <= 0) | (below < 0) | ((below == 0) & (above > 0))
    found: Floats = np.where(never, np.inf, np.maximum(images, 1))
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Trials(Value):
    """What one way did for people, over all seeds.

    Parameters
    ----------
    persons : int64 array, shape (n,)
        Who; the same person stands here once per seed.
    before, after : bool array, shape (n,)
        Whether the platform was right about the image as it is, and with this way.
    queries : int64 array, shape (n,)
        Paid for this image alone.
    """

    persons: Integers
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]
    queries: Integers

    def __getitem__(self, rows: NDArray[np.bool_]) -> Trials:
        """Return the trials of some people."""
        return Trials(self.persons[rows], self.before[rows], self.after[rows], self.queries[rows])

    @property
    def gains(self) -> Integers:
        """+1 where the way put the answer right, −1 where it spoilt it, int64 (n,)."""
        return self.after.astype(np.int64) - self.before

    def sums(self, size: int) -> Integers:
        """Return per person how many trials, additional right answers and queries, int64 (size, 3)."""
        found = np.zeros((size, 3), np.int64)
        np.add.at(found, self.persons, np.stack([np.ones_like(self.persons), self.gains, self.queries], axis=1))
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Stops(Value):
    """Where an attack is given up in every resample, and what it then gained and spent; int64 (draws,) each.

    Parameters
    ----------
    budget : int64 array
        Of the run; Square's patches depend on it.
    after : int64 array
        Queries for one image after which it is given up.
    gained, spent : int64 array
        Additional right answers, and queries, of the resample.
    """

    budget: Integers
    after: Integers
    gained: Integers
    spent: Integers


def cheapest(runs: Mapping[int, Trials], weights: Integers, least: Integers | None = None) -> Stops:
    """Return the stopping point with the lowest price in every resample, over all runs and queries per image [ours].

    Between two numbers of queries at which somebody's run ends, only the queries grow: no other stopping point can
    be cheaper.

    Parameters
    ----------
    runs : dict of int to Trials
        By their budget.
    weights : int64 array, shape (draws, persons)
        How often each person stands in each resample.
    least : int64 array, shape (draws,), optional
        Additional right answers that it must gain, no more than the best run does.
    """
    floor = np.zeros(len(weights), np.int64) if least is None else least
    parts = [
        _cheapest(runs, weights[i : i + _BLOCK], floor[i : i + _BLOCK]) for i in range(0, len(weights), _BLOCK)
    ]  # fmt: skip
    return Stops(*np.concatenate(parts, axis=1))


def _cheapest(runs: Mapping[int, Trials], weights: Integers, least: Integers) -> Integers:
    """Return budget, queries, gain and cost, int64 (4, draws)."""
    draws = np.arange(len(weights))
    found, lowest = np.zeros((4, len(weights)), np.int64), np.full(len(weights), np.nan)
    for budget, trials in runs.items():
        order = np.argsort(trials.queries, kind="stable")
        queries = trials.queries[order]
        after = np.unique(queries)
        last = np.searchsorted(queries, after, side="right") - 1
        drawn = weights[:, trials.persons[order]]
        ended = drawn.cumsum(1)[:, last]
        spent = (drawn * queries).cumsum(1)[:, last] + after * (drawn.sum(1, keepdims=True) - ended)
        right = (drawn * trials.after[order]).cumsum(1)[:, last]
        gained = right - (drawn * trials.before[order]).sum(1, keepdims=True)
        priced = prices(spent, gained)
        priced[gained < least[:, None]] = np.inf
        at = priced.argmin(1)
        here = np.stack([np.full_like(draws, budget), after[at], gained[draws, at], spent[draws, at]])
        # The first run is taken whatever it costs.
        better = ~(priced[draws, at] >= lowest)
        found[:, better], lowest[better] = here[:, better], priced[draws, at][better]
    return found


def paired(persons: Integers, differences: Integers) -> list[float]:
    """Return the two-sided 95 % interval of a mean of differences, each −1, 0 or +1; it always has a width [ours].

    The share of people better off is the mean, over j = 1 … seeds, of the shares who are so in at least j seeds, and
    likewise worse off. Each of these shares has its Clopper–Pearson bounds [published], and Bonferroni's correction
    makes all of them hold together: the interval is conservative whatever the seeds of a person have in common.

    Parameters
    ----------
    persons : int64 array, shape (n,)
        Who; everybody equally often, once per seed.
    differences : int64 array, shape (n,)

    Raises
    ------
    ConfigError
        If somebody stands there more often than another.
    """
    _, place, counts = np.unique(persons, return_inverse=True, return_counts=True)
    seeds = int(counts.max())
    if (counts != seeds).any():
        raise ConfigError(
            f"Expected every person once per seed, got some {counts.min()} times and some {seeds} times. Measure the "
            "same people in every seed."
        )
    ends = []
    for side in (differences > 0, differences < 0):
        times = np.bincount(place[side], minlength=len(counts))
        reached = (times >= np.arange(1, seeds + 1)[:, None]).sum(1)
        ends.append([bound.mean() for bound in clopper_pearson_interval(reached, len(counts), 1 - 0.05 / (2 * seeds))])
    (least_better, most_better), (least_worse, most_worse) = ends
    return [float(least_better - most_worse), float(most_better - least_worse)]


def days_alone(queries: Integers, quota: int, images: int, seed: int) -> Integers:
    """Return the days that members need, each with so many images drawn from those attacked, int64, sorted.

    With one image each these are the people themselves; with more, 10,000 members drawn with replacement [ours].

    Parameters
    ----------
    queries : int64 array, shape (n,)
        What an attack paid for each image.
    quota : int
        Queries a day that a member's key allows, 1 or more.
    images : int
        Images of each member.
    seed : int
        Of the draws.
    """
    if images > 1:
        rng = np.random.default_rng([seed, images])
        queries = queries[rng.integers(0, len(queries), (_COPIES, images))].sum(1)
    days: Integers = np.sort(-(-queries // quota))
    return days

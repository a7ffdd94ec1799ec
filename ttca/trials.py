"""Trials: the rule that says, after any number of persons, whether one ε has passed, has failed, or must ask on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ttca.goals import Certifying, Design
from ttca.statistics.binomial import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    fewest,
    rate_needed,
    scipy_special,
)
from ttca.statistics.clustered import effective_persons, layout_size, studentized_person_p
from ttca.statistics.comparisons import (
    farrington_manning_p,
    fisher_p,
    mcnemar_p,
    miettinen_nurminen_p,
    ratio_by_two_bounds,
    tango_p,
)
from ttca.statistics.curtailed import decided, decided_pairs, least_won
from ttca.statistics.sequential import bar_log_e, bar_lower, paired_log_e
from ttca.values import OneLine

__all__ = ["ON_THE_WAY", "Clusters", "Rule", "Standing", "in_step", "quoted", "rule_of", "size_within", "test_in_words"]

Right = NDArray[np.bool_]

#: What layouts of images are tried with, before the test of persons may certify in them.
_RATES, _CORRELATIONS, _RUNS, _SHARES = (0.5, 0.7, 0.85, 0.95), (0.05, 0.15, 0.3), 4000, (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
#: Share of alpha that ``hybrid`` spends on its e-value; the rest is the fixed test's.
ON_THE_WAY = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class Standing(OneLine):
    """What is known of one ε: ``right`` of the persons asked with δ in order, ``baseline`` of those asked as they are.

    ``persons`` verify with δ in all. Paired: person i of both is the same. Unresolved answers are wrong in ``right``
    and right in ``baseline``.
    """

    right: Right
    baseline: Right
    persons: int

    @property
    def left(self) -> int:
        """Persons not asked yet."""
        return self.persons - len(self.right)

    def pairs(self) -> tuple[int, int]:
        """Return (won, lost): persons right only with δ, and only without."""
        same = self.baseline[: len(self.right)]
        return int((self.right & ~same).sum()), int((~self.right & same).sum())


Clusters: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Images of each person of the subgroup, and of the reference, in the order in which they are asked."""


class Rule(Protocol):
    """When one ε has passed or failed."""

    def verdict(self, table: Standing) -> bool | None:
        """Return True for passed, False for failed, None to ask on."""

    def told(self, table: Standing) -> str:
        """Return the figures behind the verdict, for people."""

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        """Return the smallest true S that passes with this probability; NaN where none does, None where not known."""

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float] | None:
        """Return with which probability a true S passes, as a function of S; None where that is not known.

        Where the two answers of a person are compared they are taken as independent.
        """


@dataclass(frozen=True)
class _Count:
    """The fixed test of a number of right answers, ended as soon as its verdict is sure."""

    needed: int | None

    def verdict(self, table: Standing) -> bool | None:
        needed = table.persons + 1 if self.needed is None else self.needed
        return decided(lambda k: k >= needed, int(table.right.sum()), len(table.right), table.persons)

    def told(self, table: Standing) -> str:
        needed = "more than all" if self.needed is None else f"{self.needed} of {table.persons}"
        return f"{int(table.right.sum())} of {len(table.right)} asked right, {needed} needed"

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        if self.needed is None:
            return math.nan
        # P(Bin(m, S) ≥ k) = I_S(k, m − k + 1).
        k = self.needed
        return float(scipy_special().betaincinv(k, persons - k + 1, probability)) if k else 0.0

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float] | None:
        k, special = self.needed, scipy_special()
        if k is None:
            return lambda rate: 0.0
        return lambda rate: float(special.bdtrc(k - 1, persons, rate)) if k else 1.0


@dataclass(frozen=True)
class _Pairs:
    """The fixed test of pairs, ended as soon as its verdict is sure; the baseline is known in advance."""

    p: Callable[[int, int], float]
    alpha: float

    def verdict(self, table: Standing) -> bool | None:
        won, lost = table.pairs()
        asked, ahead = table.baseline[: len(table.right)], table.baseline[len(table.right) :]
        both, neither = int((table.right & asked).sum()), int((~table.right & ~asked).sum())
        return decided_pairs(
            lambda w, c, _both, _neither: self.p(w, c) <= self.alpha,
            won, lost, both, neither, int(ahead.sum()), int((~ahead).sum()),
        )  # fmt: skip

    def told(self, table: Standing) -> str:
        won, lost = table.pairs()
        losable = int(table.baseline[len(table.right) :].sum())
        return (
            f"{int(table.right.sum())} of {len(table.right)} asked right; {won} right only with δ, {lost} only "
            f"without, p ≤ {self.p(won, lost + losable):.2g}"
        )

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        return _smallest(self.passing(baseline, persons), probability)

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float]:
        # A person's two answers taken as independent; where they go together, less is enough.
        losable = int(baseline.sum())
        winnable = persons - losable
        needed = least_won(lambda won, lost: self.p(won, lost) <= self.alpha, persons)[: losable + 1]
        special = scipy_special()

        def passes(rate: float) -> float:
            lost = np.arange(losable + 1)
            weight = np.diff(special.bdtr(lost, losable, 1 - rate), prepend=0.0)
            enough = np.where(needed > winnable, 0.0, special.bdtrc(needed - 1, winnable, rate))
            return float((weight * np.where(needed == 0, 1.0, enough)).sum())

        return passes


@dataclass(frozen=True)
class _Bar:
    """An e-value against a bar fixed before the first answer with δ."""

    bar: float
    alpha: float

    def verdict(self, table: Standing) -> bool | None:
        return _crossed(
            lambda right: bar_log_e(np.cumsum(right), np.arange(1, len(right) + 1), self.bar), table, self.alpha
        )

    def told(self, table: Standing) -> str:
        return f"{int(table.right.sum())} of {len(table.right)} asked right, against a bar of {self.bar:.3f}"

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        return _smallest(self.passing(baseline, persons), probability)

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float]:
        right, asked = np.meshgrid(np.arange(persons + 1), np.arange(1, persons + 1))
        crossed = (bar_log_e(np.minimum(right, asked), asked, self.bar) >= -math.log(self.alpha)) & (right <= asked)

        def passes(rate: float) -> float:
            on = np.zeros(persons + 1)
            on[0], through = 1.0, 0.0
            for row in crossed:
                on[1:] = on[1:] * (1 - rate) + on[:-1] * rate
                on[0] *= 1 - rate
                through += float(on[row].sum())
                on[row] = 0.0
            return through

        return passes


@dataclass(frozen=True)
class _Bet:
    """A bet on pairs, person by person: right with δ and wrong without wins, the other way round loses."""

    margin: float
    alpha: float

    def verdict(self, table: Standing) -> bool | None:
        known = table.baseline

        def log_e(right: Right) -> NDArray[np.float64]:
            # Whoever is not asked without δ yet was wrong, at best.
            same = np.zeros(len(right), np.bool_)
            same[: len(known)] = known[: len(right)]
            return paired_log_e(right.astype(np.int64) - same, self.margin)

        return _crossed(log_e, table, self.alpha)

    def told(self, table: Standing) -> str:
        won, lost = table.pairs()
        return (
            f"{int(table.right.sum())} of {len(table.right)} asked right; {won} right only with δ, {lost} only without"
        )

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        return None

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float] | None:
        return None


@dataclass(frozen=True)
class _Either:
    """Two rules that share alpha: passed where one is, failed where both are."""

    first: Rule
    last: Rule

    def verdict(self, table: Standing) -> bool | None:
        said = self.first.verdict(table), self.last.verdict(table)
        if True in said:
            return True
        return None if None in said else False

    def told(self, table: Standing) -> str:
        early = self.first.verdict(table) is True and self.last.verdict(table) is not True
        return f"{self.first.told(table)}, passed on the way" if early else self.last.told(table)

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        # The fixed test alone reaches this much; both together reach a little more.
        return self.last.smallest_rate(baseline, persons, probability)

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float] | None:
        return self.last.passing(baseline, persons)


@dataclass(frozen=True)
class _Persons:
    """The approximate test of persons with several images each; it needs the answer about every image."""

    layout: Clusters
    margin: float
    alpha: float

    def verdict(self, table: Standing) -> bool | None:
        return None if table.left else bool(self._p(table) <= self.alpha)

    def told(self, table: Standing) -> str:
        right = f"{int(table.right.sum())} of {len(table.right)} images asked right"
        return f"{right}, approximate p {self._p(table):.2g}, {self.alpha:.2g} needed"

    def smallest_rate(self, baseline: Right, persons: int, probability: float) -> float | None:
        return None

    def passing(self, baseline: Right, persons: int) -> Callable[[float], float] | None:
        return None

    def _p(self, table: Standing) -> float:
        ours, theirs = (np.array(images) for images in self.layout)
        right = (_by_person(answers, images) for answers, images in ((table.right, ours), (table.baseline, theirs)))
        return studentized_person_p(next(right), ours, next(right), theirs, self.margin)


def _by_person(answers: Right, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images of each person were right."""
    owner = np.repeat(np.arange(len(images)), images)[: len(answers)]
    return np.bincount(owner[answers], minlength=len(images))


@lru_cache(maxsize=32)
def size_within(layout: Clusters, margin: float, alpha: float) -> float | None:
    """Return the error at which the test of persons, in this layout, claims wrongly in at most alpha of all actions.

    None where it does at none that was tried. Simulated, with a generator of its own, so that everybody who reads a
    certificate finds the same: 4,000 actions for each of four rates and three correlations of a person's answers, the
    worst of them with twice its standard error. *Ours*.
    """
    ours, theirs = (np.array(images) for images in layout)
    rates = [rate for rate in _RATES if rate > margin]
    for share in _SHARES:
        rng = np.random.default_rng(0)
        size = layout_size(ours, theirs, share * alpha, rates, _CORRELATIONS, _RUNS, rng, margin)
        if size + 2 * math.sqrt(size / _RUNS) <= alpha:
            return share * alpha
    return None


def _crossed(log_e: Callable[[Right], NDArray[np.float64]], table: Standing, alpha: float) -> bool | None:
    """Whether the e-value reached 1 / alpha; False where even right answers to the end would not bring it there."""
    bar = -math.log(alpha)
    if len(table.right) and log_e(table.right).max() >= bar:
        return True
    best = np.concatenate([table.right, np.ones(table.left, np.bool_)])
    if not table.left or log_e(best).max() < bar:
        return False
    return None


def _smallest(passes: Callable[[float], float], probability: float) -> float:
    """Return the smallest rate that passes with this probability, by bisection; NaN where none does."""
    if passes(1.0) < probability:
        return math.nan
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) >= probability else (middle, high)
    return high


def in_step(terms: Certifying, design: Design) -> bool:
    """Whether people can be asked as they are beside δ, person by person: a bet on pairs needs nothing in advance."""
    return terms.stopping == "anytime" and design == "paired" and terms.aim.compares_with is not None


def rule_of(terms: Certifying, design: Design, persons: int, baseline: Right, layout: Clusters | None = None) -> Rule:
    """Return the rule for every ε of an action.

    Parameters
    ----------
    terms : Certifying
    design : {"disjoint", "paired"}
        Of the two groups; *improvement* is always paired.
    persons : int
        Who verify with δ.
    baseline : bool array
        Right answers without δ that the goal reads, unresolved ones counted as right: all of them, or none where they
        are asked :func:`in_step`.

    layout : pair of tuples of int, optional
        Where every image counts.

    Notes
    -----
    The tests are *published* (:mod:`ttca.statistics.comparisons`, :mod:`ttca.statistics.sequential`); which serves
    which goal, and ending a fixed test early, is *ours*.
    """
    if layout is not None:
        margin = terms.within or 0.0
        error = size_within(layout, margin, terms.alpha)
        return _Count(None) if error is None else _Persons(layout, margin, error)
    way = ON_THE_WAY * terms.alpha
    if terms.stopping == "curtailed":
        return _fixed(terms, design, persons, baseline, terms.alpha)
    if terms.stopping == "anytime":
        return _anytime(terms, design, baseline, terms.alpha)
    return _Either(_anytime(terms, design, baseline, way), _fixed(terms, design, persons, baseline, terms.alpha - way))


def _fixed(terms: Certifying, design: Design, persons: int, baseline: Right, alpha: float) -> Rule:
    goal, value = terms.aim, terms.aim.value or 0.0
    right, others = int(baseline.sum()), len(baseline)
    if goal.kind == "rate":
        return _Count(rate_needed(persons, value, alpha))
    if goal.kind == "improvement" or (goal.kind == "parity" and design == "paired"):
        return _Pairs(mcnemar_p, alpha)
    if goal.kind == "within" and design == "paired":
        # Kept whole: a plan walks the same edge once for each baseline.
        return _Pairs(cache(lambda won, lost: tango_p(won, lost, persons, value)), alpha)
    if goal.kind == "accuracy_ratio" and design == "paired":
        return _Count(fewest(persons, lambda k: ratio_by_two_bounds(k, right, persons, value, alpha)))
    p: Callable[[int], float] = {
        "parity": lambda k: fisher_p(k, persons, right, others),
        "within": lambda k: farrington_manning_p(k, persons, right, others, value),
        "accuracy_ratio": lambda k: miettinen_nurminen_p(k, persons, right, others, value),
    }[goal.kind]
    if not others:
        return _Count(None)
    # What the normal approximation would need: exact tests are slow to try.
    bar = {"parity": 1.0, "within": 1.0, "accuracy_ratio": value}[goal.kind] * right / others
    bar -= value if goal.kind == "within" else 0.0
    spread = math.sqrt(right / others * (1 - right / others) / others + max(bar * (1 - bar), 0) / max(persons, 1))
    near = persons * (bar - float(scipy_special().ndtri(alpha)) * spread)
    return _Count(fewest(persons, lambda k: p(k) <= alpha, near))


def _anytime(terms: Certifying, design: Design, baseline: Right, alpha: float) -> Rule:
    goal, value = terms.aim, terms.aim.value or 0.0
    if goal.kind == "rate":
        return _Bar(value, alpha)
    if goal.kind == "improvement" or design == "paired":
        return _Bet(value, alpha)
    # Half of the error is the bar's.
    reference = clopper_pearson_upper(int(baseline.sum()), len(baseline), alpha / 2)
    bar = {"parity": reference, "within": reference - value, "accuracy_ratio": value * reference}[goal.kind]
    return _Bar(max(bar, 0.0), alpha / 2)


def test_in_words(terms: Certifying, design: Design) -> str:
    """Return, for people, which test serves the goal, and when it stops."""
    kind = terms.aim.kind
    if terms.every_image:
        return (
            "Every image of a person counts, by an approximate test of persons. Its error was chosen so that in "
            "simulated actions with these numbers of images it claims wrongly no more often than stated."
        )
    if kind == "rate":
        test = "The test is the exact (Clopper-Pearson) lower bound of S"
    elif kind == "improvement" or (kind == "parity" and design == "paired"):
        test = "The same persons are compared one by one, by the exact one-sided McNemar test"
    elif design == "paired":
        test = (
            "The same persons are compared one by one, by Tango's score test"
            if kind == "within"
            else "Two exact bounds, each at half of the error, must not overlap"
        )
    else:
        test = {
            "parity": "The two groups are compared by Fisher's exact test",
            "within": "The two groups are compared by the test of Farrington and Manning",
            "accuracy_ratio": "The two groups are compared by the test of Miettinen and Nurminen",
        }[kind]
    stop = {
        "curtailed": "It stopped asking as soon as no further answer could change the verdict.",
        "anytime": "Instead of it, an e-value was followed person by person, which may stop at any time.",
        "hybrid": "On the way, an e-value could pass an ε early, at a fifth of the error; the test had the rest.",
    }[terms.stopping]
    return f"{test}. {stop}"


def quoted(
    right: Right, persons: int, alpha: float, stopping: str, images: tuple[int, ...] | None = None
) -> tuple[float, float]:
    """Return one-sided bounds (lower, upper) of S, each at ``alpha``, that hold however the test stopped.

    Parameters
    ----------
    right : bool array
        Of the persons asked, in order.
    persons : int
        All who verify.
    alpha : float
    stopping : {"curtailed", "anytime", "hybrid"}
    images : tuple of int, optional
        Of each person, where every image counts.

    Notes
    -----
    Every image: exact for as many answers as the persons' effective number, which is approximate. Curtailed: Clopper
    and Pearson's with everybody who was not asked counted as wrong for the lower bound and as right for the upper.
    Anytime: the running confidence sequence's. Hybrid: the tighter of both, which share alpha. *Ours*, of *published*
    parts.
    """

    if images is not None:
        many = math.floor(effective_persons(np.array(images)))
        rate = float(right.sum()) / sum(images)
        ends = math.floor(rate * many), math.ceil(rate * many)
        return clopper_pearson_lower(ends[0], many, alpha), clopper_pearson_upper(ends[1], many, alpha)

    def fixed(error: float) -> tuple[float, float]:
        k, unasked = int(right.sum()), persons - len(right)
        return clopper_pearson_lower(k, persons, error), clopper_pearson_upper(k + unasked, persons, error)

    def running(error: float) -> tuple[float, float]:
        if not len(right):
            return 0.0, 1.0
        low = float(bar_lower(np.cumsum(right), error)[-1])
        return low, 1.0 - float(bar_lower(np.cumsum(~right), error)[-1])

    if stopping == "curtailed":
        return fixed(alpha)
    if stopping == "anytime":
        return running(alpha)
    parts = running(ON_THE_WAY * alpha), fixed(alpha - ON_THE_WAY * alpha)
    return max(p[0] for p in parts), min(p[1] for p in parts)

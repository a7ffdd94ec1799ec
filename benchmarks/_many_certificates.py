"""Certificates of many simulated actions at once: verdicts and persons asked as :func:`ttca.certificates.certify`'s.

Nothing is decided anew here. What a fixed test needs is read from the product's own rules, once for every number of
right answers without δ that occurs, and looked up; e-values become tables of the fewest right answers that cross.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks._simulated_actions import Answered
from ttca.certificates import BATCH
from ttca.goals import Certifying, Design
from ttca.statistics.binomial import clopper_pearson_upper, fewest
from ttca.statistics.curtailed import least_won, paired_stopping_time, stopping_time
from ttca.statistics.sequential import bar_log_e, paired_log_e_at
from ttca.trials import ON_THE_WAY, Standing, in_step, rule_of

__all__ = ["Certified", "bar_crossings", "certify_many"]

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
#: (rows of the actions, their answers with δ, how many baseline answers are known) → persons asked, passed.
Decide = Callable[[Counts, Flags, Counts], tuple[Counts, Flags]]


@dataclass(frozen=True, eq=False)
class Certified:
    """What became of every ε of every action.

    Parameters
    ----------
    passed : bool array, shape (levels, actions)
        The largest ε first; False after the first failure.
    asked : int64 array, shape (levels, actions)
        Persons asked with δ; 0 after the first failure.
    baseline : int64 array, shape (actions,)
        Persons asked without δ.
    """

    passed: Flags
    asked: Counts
    baseline: Counts

    @property
    def claimed(self) -> Flags:
        """Actions in which an ε was certified."""
        return np.asarray(self.passed[0])

    @property
    def tested(self) -> Counts:
        """How many ε each action tested."""
        return np.asarray(np.count_nonzero(self.asked, axis=0))

    @property
    def quoted(self) -> Counts:
        """The place in the family of the ε that each action quotes: the last that passed, else the first."""
        return np.asarray(np.maximum(np.count_nonzero(self.passed, axis=0) - 1, 0))

    @property
    def queries(self) -> Counts:
        """Verification queries of each action, baseline included."""
        return np.asarray(self.asked.sum(axis=0) + self.baseline)


def certify_many(terms: Certifying, design: Design, answers: Answered) -> Certified:
    """Return what ``certify`` would say of each action, and whom it would ask.

    Parameters
    ----------
    terms : Certifying
    design : {"disjoint", "paired"}
        Of the two conditions.
    answers : Answered
        One image per person. A goal that compares with nobody reads no answer of the reference.

    Raises
    ------
    ConfigError
        If no test serves the goal for such people.
    """
    terms.check_design(design)
    actions, levels, persons = answers.outcomes.shape
    reference = answers.reference if terms.aim.compares_with else answers.reference[:, :0]
    beside = in_step(terms, design)
    baseline = np.full(actions, 0 if beside else reference.shape[1])
    decide = _decide(terms, design, persons, reference)
    passed, asked = np.zeros((levels, actions), np.bool_), np.zeros((levels, actions), np.int64)
    rows = np.arange(actions)
    for level in range(levels):
        stopped, verdict = decide(rows, answers.outcomes[rows, levels - 1 - level], baseline[rows])
        asked[level, rows] = np.minimum(persons, np.maximum(BATCH, -(-stopped // BATCH) * BATCH))
        passed[level, rows] = verdict
        if beside:
            baseline[rows] = np.maximum(baseline[rows], asked[level, rows])
        rows = rows[verdict]
    return Certified(passed, asked, baseline)


def _decide(terms: Certifying, design: Design, persons: int, baseline: Flags) -> Decide:
    way = ON_THE_WAY * terms.alpha
    if terms.stopping == "curtailed":
        return _fixed(terms, design, persons, baseline)
    if terms.stopping == "anytime":
        return _anytime(terms, design, persons, baseline)
    fixed = replace(terms, stopping="curtailed", alpha=terms.alpha - way)
    return _either(
        _anytime(replace(terms, alpha=way), design, persons, baseline), _fixed(fixed, design, persons, baseline)
    )


def _either(first: Decide, last: Decide) -> Decide:
    def decide(rows: Counts, right: Flags, known: Counts) -> tuple[Counts, Flags]:
        (one, passed_one), (two, passed_two) = first(rows, right, known), last(rows, right, known)
        passed = passed_one | passed_two
        # Passed as soon as one is; failed when both are.
        soonest = np.minimum(np.where(passed_one, one, two), np.where(passed_two, two, one))
        return np.where(passed, soonest, np.maximum(one, two)), passed

    return decide


# --- fixed tests, ended when their verdict is sure --------------------------------------------------------------


def _fixed(terms: Certifying, design: Design, persons: int, baseline: Flags) -> Decide:
    kind = terms.aim.kind
    if kind == "improvement" or (design == "paired" and kind in ("parity", "within")):
        least = _least_won(terms, design, persons)
        return lambda rows, right, known: paired_stopping_time(baseline[rows], right, least)
    others = baseline.shape[1]
    counts, place = np.unique(baseline.sum(axis=1), return_inverse=True)
    found = [_needed(terms, design, persons, others, int(count)) for count in counts]
    needed = np.array([persons + 1 if n is None else n for n in found], np.int64)[place]

    def decide(rows: Counts, right: Flags, known: Counts) -> tuple[Counts, Flags]:
        stopped, passed = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        for n in np.unique(needed[rows]):
            here = needed[rows] == n
            stopped[here], passed[here] = stopping_time(right[here], int(n))
        return stopped, passed

    return decide


@cache
def _needed(terms: Certifying, design: Design, persons: int, others: int, count: int) -> int | None:
    """Return the fewest right answers that the product's rule passes, where so many of the others were right."""
    known = np.arange(others) < count
    rule = rule_of(terms, design, persons, known)
    everybody = np.arange(persons)
    return fewest(persons, lambda k: rule.verdict(Standing(everybody < k, known, persons)) is True)


@cache
def _least_won(terms: Certifying, design: Design, persons: int) -> Counts:
    """Return the fewest persons won that the product's rule passes, for each number lost."""
    everybody = np.arange(persons)
    rule = rule_of(terms, design, persons, np.zeros(persons, np.bool_))

    def passes(won: int, lost: int) -> bool:
        right, before = everybody < won, (everybody >= won) & (everybody < won + lost)
        return rule.verdict(Standing(right, before, persons)) is True

    return least_won(passes, persons)


# --- e-values -------------------------------------------------------------------------------------------------


def _anytime(terms: Certifying, design: Design, persons: int, baseline: Flags) -> Decide:
    goal, value, alpha = terms.aim, terms.aim.value or 0.0, terms.alpha
    if goal.kind != "rate" and (design == "paired" or goal.kind == "improvement"):
        return _bet(_bet_crossings(persons, value, alpha), baseline)
    counts, place = np.unique(baseline.sum(axis=1), return_inverse=True)
    bars = [value] if goal.kind == "rate" else []
    if goal.kind != "rate":
        alpha /= 2
        for count in counts:
            reference = clopper_pearson_upper(int(count), baseline.shape[1], alpha)
            bars.append(
                {"parity": reference, "within": max(0.0, reference - value), "accuracy_ratio": value * reference}[
                    goal.kind
                ]
            )
    least = np.stack([bar_crossings(bar, alpha, persons) for bar in bars])
    asked = np.arange(persons + 1)
    # Crossing later is possible while right + (u - t) >= least[u] for a later u.
    lead = np.maximum.accumulate((asked - least)[:, ::-1], axis=1)[:, ::-1]

    def decide(rows: Counts, right: Flags, known: Counts) -> tuple[Counts, Flags]:
        running, here = _running(right), place[rows]
        crossed = running >= least[here]
        return _first(crossed, running - asked + lead[here] < 0)

    return decide


@cache
def bar_crossings(bar: float, alpha: float, persons: int) -> Counts:
    """Return, for 0 to ``persons`` asked, the fewest right answers whose e-value against the bar reaches 1/alpha.

    persons + 1 where none does.
    """
    asked = np.arange(1, persons + 1)
    low, high = np.zeros(persons, np.int64), asked + 1
    while np.any(low < high):
        middle = (low + high) // 2
        crossed = (middle <= asked) & (bar_log_e(np.minimum(middle, asked), asked, bar) >= -math.log(alpha))
        high = np.where(crossed, middle, high)
        low = np.where(crossed, low, np.minimum(middle + 1, high))
    return np.concatenate([[persons + 1], np.where(high > asked, persons + 1, high)])


@lru_cache(maxsize=8)
def _bet_crossings(persons: int, margin: float, alpha: float) -> Counts:
    """Return, for so many asked (rows) and lost (columns), the fewest won whose e-value reaches 1/alpha.

    persons + 1 where none does.
    """
    asked, lost = (part.ravel() for part in np.meshgrid(*(np.arange(persons + 1),) * 2, indexing="ij"))
    # Without a margin whoever answers alike changes nothing, and one row says it all.
    there = (lost <= asked) if margin else (asked == persons)
    asked, lost = asked[there], lost[there]
    low, high = np.zeros(len(asked), np.int64), asked - lost + 1
    while np.any(low < high):
        middle = np.minimum((low + high) // 2, asked - lost)
        same = asked - lost - middle if margin else 0
        crossed = paired_log_e_at(middle, lost, same, margin) >= -math.log(alpha)
        high = np.where(crossed, middle, high)
        low = np.where(crossed, low, middle + 1)
    least = np.full((persons + 1, persons + 1), persons + 1)
    least[asked, lost] = np.where(high > asked - lost, persons + 1, high)
    if not margin:
        rows, columns = np.indices(least.shape)
        least = np.where(least[-1] + columns <= rows, least[-1], persons + 1)
    least[0] = persons + 1
    return least


def _bet(least: Counts, baseline: Flags) -> Decide:
    persons = len(least) - 1
    asked = np.arange(persons + 1)

    def decide(rows: Counts, right: Flags, known: Counts) -> tuple[Counts, Flags]:
        same = baseline[rows]
        won, lost = _running(right & ~same), _running(same & ~right)
        crossed = won >= least[asked, lost]
        passed = np.asarray(crossed.any(axis=1))
        stopped = np.where(passed, crossed.argmax(axis=1), persons)
        open_ = np.arange(len(rows))
        for look in range(BATCH, persons, BATCH):
            open_ = open_[stopped[open_] > look]
            later = np.arange(look + 1, persons + 1)
            # At best everybody else is right, and whoever is not asked without δ yet was wrong.
            loses = same[open_, look:] & (later <= np.maximum(known[open_], look)[:, None])
            best = won[open_, look, None] + np.cumsum(~loses, axis=1)
            hopeless = ~(best >= least[later[None, :], lost[open_, look, None]]).any(axis=1)
            stopped[open_[hopeless]] = look
        return stopped, passed

    return decide


def _running(rows: Flags) -> Counts:
    counted = np.zeros((rows.shape[0], rows.shape[1] + 1), np.int64)
    np.cumsum(rows, axis=1, out=counted[:, 1:])
    return counted


def _first(crossed: Flags, hopeless: Flags) -> tuple[Counts, Flags]:
    stopped = (crossed | hopeless).argmax(axis=1)
    return stopped, np.take_along_axis(crossed, stopped[:, None], axis=1)[:, 0]

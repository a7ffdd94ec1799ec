"""Power: how surely an action certifies its goal, for true rates that are assumed and a number of persons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import Certifying
from ttca.errors import ConfigError
from ttca.goals import Design
from ttca.trials import Rule, Standing, rule_of

__all__ = ["LADDER", "MOST_SLOW", "Assumed", "Verifiers", "fewest_persons", "power"]

Floats = NDArray[np.float64]

#: Numbers of persons that are tried.
LADDER = (25, 50, 75, 100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 700, 800, 1000, 1250, 1500, 2000)
#: Tests with a nuisance are slow to enumerate: for so many persons at most, and so many numbers of right answers.
MOST_SLOW = 400
_SLOW, _POINTS = ("within", "accuracy_ratio"), 15
#: Simulated actions, where no formula is known.
_RUNS = 1000


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """True rates of right answers that a plan goes by, each in [0, 1].

    Parameters
    ----------
    subgroup, reference : float
        For pictures as they are.

    Raises
    ------
    ConfigError
        If one is out of range.
    """

    subgroup: float
    reference: float

    def __post_init__(self) -> None:
        for name, rate in (("subgroup", self.subgroup), ("reference", self.reference)):
            if not 0 <= rate <= 1:
                raise ConfigError(
                    f"Expected the {name}'s rate of right answers from 0 to 1, got {rate}. Write 85 % as 0.85."
                )


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    """Who verifies: persons with δ, and so many others of the reference for each of them.

    Parameters
    ----------
    design : {"disjoint", "paired"}
    others : float
        Persons of the reference for each person of the subgroup; 1 where they are the same.

    Raises
    ------
    ConfigError
        If there is no such design, or nobody of the reference.
    """

    design: Design
    others: float = 1.0

    def __post_init__(self) -> None:
        if self.design not in get_args(Design):
            raise ConfigError(f"Expected the design to be one of {get_args(Design)}, got {self.design!r}. Choose one.")
        if not self.others > 0:
            raise ConfigError(f"Expected others above 0 for each person, got {self.others}. 1 is one for each.")


def power(terms: Certifying, group: Verifiers, persons: int, assumed: Assumed) -> Callable[[float], float]:
    """Return the probability that one ε is certified, as a function of its true S.

    Parameters
    ----------
    terms : Certifying
        The goal, and how it is tested.
    group : Verifiers
    persons : int
        Of the subgroup, who verify.
    assumed : Assumed

    Raises
    ------
    ConfigError
        If nobody verifies, or S, once it is known, is no share.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    The rules are the certificate's own (:func:`ttca.trials.rule_of`), over every number of right answers that the
    goal's baseline may have. Exact where the goal compares other persons or nobody. A person's two answers are taken as
    independent; where they go together, less is enough. For a bet on pairs, 1,000 simulated actions. For ``hybrid``,
    its fixed test alone. Goals whose test has a nuisance are looked at for fifteen numbers of right answers of the
    baseline.
    *Ours.*
    """
    if persons < 1:
        raise ConfigError(f"Expected at least one person who verifies, got {persons}. Name how many there are.")
    found = _of_success(terms, group, persons, assumed)

    def checked(success: float) -> float:
        _check_share("S", success)
        return found(success)

    return checked


def _check_share(name: str, given: float) -> None:
    if not 0 <= given <= 1:
        raise ConfigError(f"Expected {name} from 0 to 1, got {given}. Write 85 % as 0.85.")


def _of_success(terms: Certifying, group: Verifiers, persons: int, assumed: Assumed) -> Callable[[float], float]:
    """Return :func:`power`, of an S that is checked already."""
    kind, compares = terms.aim.kind, terms.aim.compares_with
    if compares is None:
        return _known(rule_of(terms, group.design, persons, np.zeros(0, np.bool_)), 0, 0, persons)
    asked, rate = (persons, assumed.subgroup) if compares == "before" else (_others(group, persons), assumed.reference)
    design: Design = "paired" if compares == "before" else group.design
    # A rule of pairs is the same for every baseline, and to make it is half of the work.
    same = design == "paired" and not (kind == "accuracy_ratio" and terms.stopping == "curtailed")
    once = rule_of(terms, design, persons, np.zeros(asked, np.bool_)) if same else None
    if once is not None and once.passing(np.zeros(asked, np.bool_), persons) is None:
        return _simulated(once, persons, rate)
    slow = kind in _SLOW and (kind, design) != ("accuracy_ratio", "paired")
    parts = []
    for right, weight in _likely(asked, rate, _POINTS if slow else None):
        rule = rule_of(terms, design, persons, np.arange(asked) < right) if once is None else once
        parts.append((weight, _known(rule, right, asked, persons)))
    return lambda success: float(sum(weight * passing(success) for weight, passing in parts))


def fewest_persons(
    terms: Certifying, group: Verifiers, assumed: Assumed, success: float, wanted: float = 0.8
) -> int | None:
    """Return the first number on the ladder of persons who certify an S with this probability; None where none do.

    Parameters
    ----------
    terms, group, assumed
        As for :func:`power`.
    success : float
        The true S, in [0, 1].
    wanted : float
        A probability.

    Raises
    ------
    ConfigError
        If one is out of range.
    """
    _check_share("S", success)
    _check_share("the wanted probability", wanted)
    ladder = [n for n in LADDER if n <= MOST_SLOW or terms.aim.kind not in _SLOW]
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        enough = _power(terms, group, ladder[middle], assumed)(success) >= wanted
        low, high = (low, middle) if enough else (middle + 1, high)
    return ladder[low] if low < len(ladder) else None


@lru_cache(maxsize=512)
def _power(terms: Certifying, group: Verifiers, persons: int, assumed: Assumed) -> Callable[[float], float]:
    return power(terms, group, persons, assumed)


def _others(group: Verifiers, persons: int) -> int:
    return persons if group.design == "paired" else max(1, round(group.others * persons))


def _likely(asked: int, rate: float, points: int | None) -> Iterator[tuple[int, float]]:
    """Yield numbers of right answers that a baseline may well have, and the probability of each; they add to 1.

    All of them, or those in the middle of so many parts of equal probability.
    """
    from scipy.stats import binom

    if points is not None:
        middle = binom.ppf((np.arange(points) + 0.5) / points, asked, rate).astype(np.int64)
        counts, times = np.unique(middle, return_counts=True)
        yield from zip(counts.tolist(), (times / points).tolist(), strict=True)
        return
    counts = np.arange(int(binom.ppf(1e-4, asked, rate)), int(binom.ppf(1 - 1e-4, asked, rate)) + 1)
    weights = binom.pmf(counts, asked, rate)
    yield from zip(counts.tolist(), (weights / weights.sum()).tolist(), strict=True)


def _known(rule: Rule, right: int, asked: int, persons: int) -> Callable[[float], float]:
    passing = rule.passing(np.arange(asked) < right, persons)
    if passing is None:
        raise ConfigError(f"Expected a test whose power is known, got {rule!r}. Plan another goal.")
    return passing


def _simulated(rule: Rule, persons: int, rate: float) -> Callable[[float], float]:
    """Return the share of simulated actions that a rule of pairs passes, as a function of S."""

    def passes(success: float) -> float:
        rng = np.random.default_rng(0)
        held, right = rng.random((_RUNS, persons)) < rate, rng.random((_RUNS, persons)) < success
        return sum(rule.verdict(Standing(r, h, persons)) is True for r, h in zip(right, held, strict=True)) / _RUNS

    return passes

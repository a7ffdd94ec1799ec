"""Does a certificate keep its word? Simulated actions with known truth, and the order of testing that would not.

Run as ``python -m benchmarks bounds --actions 2000 --seed 0``. Every number comes with its count. The design of
the simulation is ours; truths are chosen to be hard, not typical: many lie a hair below what is claimed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import (
    Certificate,
    certify,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
    parity_needed,
)
from ttca.errors import ConfigError

__all__ = ["QUICK", "SCENARIOS", "Outcome", "Simulation", "Truth", "main", "simulate"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--actions", "200")

SCENARIOS = ("least_favourable", "staircase", "random", "shared_people")
"""How an action's truths are drawn, see :func:`_draw`."""


@dataclass(frozen=True)
class Truth:
    """One simulated action: what is true, and what its verification would see.

    Parameters
    ----------
    scenario : str
        One of :data:`SCENARIOS`.
    epsilons : tuple of int
        The family, ascending.
    success : float64 array, shape (E,)
        True S of each ε.
    right : int64 array, shape (E,)
        Right answers at each ε.
    m : int
        Verification people.
    accuracy : float
        True reference accuracy.
    reference : (int, int)
        Right answers of the reference group, and its people.
    """

    scenario: str
    epsilons: tuple[int, ...]
    success: NDArray[np.float64]
    right: NDArray[np.int64]
    m: int
    accuracy: float
    reference: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """How often claims were false, over ``actions`` actions.

    Parameters
    ----------
    actions : int
        Simulated actions.
    claims : int
        Actions in which parity was claimed.
    false_parity : int
        Actions in which it was claimed and S < reference accuracy.
    false_goal : int
        Actions in which a fixed success rate was claimed and S was lower.
    s_bound_failures : int
        Actions whose one-sided lower bound, as quoted, lies above S.
    interval_failures : int
        Actions whose two-sided 95 % interval of S, as quoted, misses S.
    reference_interval_failures : int
        Actions whose two-sided 95 % interval of the reference accuracy misses it.
    """

    actions: int
    claims: int
    false_parity: int
    false_goal: int
    s_bound_failures: int
    interval_failures: int
    reference_interval_failures: int

    def rate(self, count: int) -> float:
        """Return a count as a share of the actions; NaN for none."""
        return count / self.actions if self.actions else math.nan


@dataclass(frozen=True)
class Simulation:
    """The outcomes of the ways to certify on the same simulated actions.

    Parameters
    ----------
    alpha : float
        The stated error of parity, goal and S bound; the intervals state 0.05.
    seed : int
        Seed of the simulation.
    largest_first : dict of str to Outcome
        :func:`ttca.certificates.certify`; by scenario, and ``"all"``.
    two_bounds : dict of str to Outcome
        Largest first too, but parity by two bounds at alpha/2 each that must not overlap.
    smallest_first : dict of str to Outcome
        The wrong way: from the smallest ε upward until one passes, its bound and interval uncorrected.
    """

    alpha: float
    seed: int
    largest_first: dict[str, Outcome]
    two_bounds: dict[str, Outcome]
    smallest_first: dict[str, Outcome]


def _draw(scenario: str, generator: np.random.Generator) -> Truth:
    """Return one action. Truths "at" the reference accuracy are one float below it, so a claim is false."""
    accuracy = float(generator.uniform(0.6, 0.98))
    m = int(generator.integers(20, 600))
    people = int(generator.integers(50, 3000))
    size = int(generator.integers(1, 17))
    edge = float(np.nextafter(accuracy, 0))
    if scenario == "least_favourable":
        # A sharp reference bound, many people and many ε, all just not at parity: the most chances to err.
        size, people, m = int(generator.integers(8, 17)), 20_000, int(generator.integers(300, 1500))
        success = np.full(size, edge)
    elif scenario == "staircase":
        # The largest ε really work, the rest just do not: the tests get past the first ones and then can err.
        people, m = 20_000, int(generator.integers(300, 1500))
        works = int(generator.integers(0, size + 1))
        success = np.where(np.arange(size) >= size - works, accuracy + 0.8 * (1 - accuracy), edge)
    else:
        # Any shape, so S need not rise with ε.
        drawn = np.clip(accuracy + generator.normal(0, 0.1, size), 0.01, 0.995)
        success = np.where(generator.random(size) < 0.4, edge, drawn)
    if scenario == "shared_people":
        # The same people at every ε: right at S if their own difficulty is below S.
        difficulty = np.sort(generator.random(m))
        right = np.searchsorted(difficulty, success).astype(np.int64)
    else:
        right = generator.binomial(m, success).astype(np.int64)
    levels = np.sort(generator.choice(np.arange(1, 33), size, replace=False))
    reference = (int(generator.binomial(people, accuracy)), people)
    return Truth(scenario, tuple(int(e) for e in levels), success, right, m, accuracy, reference)


def _tester(truth: Truth) -> Callable[[int], tuple[int, int]]:
    counts = dict(zip(truth.epsilons, truth.right.tolist(), strict=True))
    return lambda epsilon: (counts[epsilon], truth.m)


@dataclass(frozen=True)
class _Verdict:
    claimed: bool
    false_parity: bool
    false_goal: bool
    s_bound_failed: bool
    interval_failed: bool
    reference_failed: bool


def _reference_failed(truth: Truth) -> bool:
    low, high = clopper_pearson_interval(*truth.reference)
    return not low <= truth.accuracy <= high


def _largest_first(truth: Truth, alpha: float) -> _Verdict:
    success = dict(zip(truth.epsilons, truth.success.tolist(), strict=True))
    test = _tester(truth)

    def issue(goal: float | None) -> Certificate:
        return certify(
            test,
            epsilons=truth.epsilons,
            reference=truth.reference,
            before=None,
            alpha=alpha,
            goal="parity" if goal is None else goal,
        )

    parity, fixed = issue(None), issue(truth.accuracy)
    quoted = success[parity.quoted_epsilon]
    return _Verdict(
        claimed=parity.parity_certified is True,
        false_parity=parity.parity_certified is True and quoted < truth.accuracy,
        false_goal=fixed.epsilon is not None and success[fixed.epsilon] < truth.accuracy,
        s_bound_failed=parity.lower.value > quoted,
        interval_failed=not parity.interval.low <= quoted <= parity.interval.high,
        reference_failed=_reference_failed(truth),
    )


def _two_bounds(truth: Truth, alpha: float) -> _Verdict:
    ceiling = clopper_pearson_upper(*truth.reference, alpha / 2)
    passes = clopper_pearson_lower(truth.right, truth.m, alpha / 2) >= ceiling
    # From the end of the ascending family down to the first failure.
    passed = int(np.argmin(passes[::-1])) if not passes.all() else len(passes)
    claimed = passed > 0
    quoted = float(truth.success[-passed if claimed else -1])
    right = int(truth.right[-passed if claimed else -1])
    size = len(truth.epsilons)
    low, high = clopper_pearson_interval(right, truth.m, 1 - 0.05 / size)
    return _Verdict(
        claimed=claimed,
        false_parity=claimed and quoted < truth.accuracy,
        # A fixed goal has one bound, not two: see _largest_first.
        false_goal=False,
        s_bound_failed=clopper_pearson_lower(right, truth.m, alpha / size) > quoted,
        interval_failed=not low <= quoted <= high,
        reference_failed=_reference_failed(truth),
    )


def _smallest_first(truth: Truth, alpha: float) -> _Verdict:
    needed = parity_needed(truth.m, truth.reference, alpha)
    parity = truth.right >= (truth.m + 1 if needed is None else needed)
    fixed = clopper_pearson_lower(truth.right, truth.m, alpha) >= truth.accuracy
    # argmax of booleans is the first that passed.
    claimed = bool(parity.any())
    chosen = int(parity.argmax()) if claimed else len(truth.epsilons) - 1
    quoted, right = float(truth.success[chosen]), int(truth.right[chosen])
    low, high = clopper_pearson_interval(right, truth.m)
    return _Verdict(
        claimed=claimed,
        false_parity=claimed and quoted < truth.accuracy,
        false_goal=bool(fixed.any()) and float(truth.success[int(fixed.argmax())]) < truth.accuracy,
        s_bound_failed=clopper_pearson_lower(right, truth.m, alpha) > quoted,
        interval_failed=not low <= quoted <= high,
        reference_failed=_reference_failed(truth),
    )


def _outcome(verdicts: Sequence[_Verdict]) -> Outcome:
    return Outcome(
        actions=len(verdicts),
        claims=sum(v.claimed for v in verdicts),
        false_parity=sum(v.false_parity for v in verdicts),
        false_goal=sum(v.false_goal for v in verdicts),
        s_bound_failures=sum(v.s_bound_failed for v in verdicts),
        interval_failures=sum(v.interval_failed for v in verdicts),
        reference_interval_failures=sum(v.reference_failed for v in verdicts),
    )


def simulate(actions: int = 2000, seed: int = 0, *, alpha: float = 0.05) -> Simulation:
    """Simulate actions, as many of each scenario, and issue their certificates in each way.

    Parameters
    ----------
    actions : int
        Simulated actions, 4 or more.
    seed : int
        Seed of the numpy Generator.
    alpha : float
        Error that each certificate states.

    Returns
    -------
    Simulation

    Raises
    ------
    ConfigError
        If there are fewer actions than scenarios, or alpha is outside (0, 1).

    Notes
    -----
    *Ours*.
    """
    if actions < len(SCENARIOS):
        raise ConfigError(f"Expected at least {len(SCENARIOS)} actions, one per scenario, got {actions}. Ask for more.")
    generator = np.random.default_rng(seed)
    truths = [_draw(SCENARIOS[i % len(SCENARIOS)], generator) for i in range(actions)]

    def outcomes(order: Callable[[Truth, float], _Verdict]) -> dict[str, Outcome]:
        verdicts = [order(truth, alpha) for truth in truths]
        table = {"all": _outcome(verdicts)}
        for scenario in SCENARIOS:
            table[scenario] = _outcome([v for t, v in zip(truths, verdicts, strict=True) if t.scenario == scenario])
        return table

    return Simulation(alpha, seed, *(outcomes(order) for order in (_largest_first, _two_bounds, _smallest_first)))


def _row(outcome: Outcome) -> dict[str, object]:
    counts: dict[str, int] = asdict(outcome)
    rates = {f"{name}_rate": outcome.rate(n) for name, n in counts.items() if name != "actions"}
    return {**counts, **rates}


def main(argv: list[str]) -> dict[str, object]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        ``--actions``, ``--seed``, ``--alpha``; ``--json`` is for the caller, who does the printing.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks bounds", description=__doc__)
    parser.add_argument("--actions", type=int, default=2000, help="simulated actions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--alpha", type=float, default=0.05, help="error rate that each certificate states")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    start = time.perf_counter()
    simulation = simulate(options.actions, options.seed, alpha=options.alpha)
    return {
        "benchmark": "bounds",
        "actions": options.actions,
        "seed": options.seed,
        "alpha": options.alpha,
        "interval_error": 0.05,
        "seconds": time.perf_counter() - start,
        "largest_first": {name: _row(o) for name, o in simulation.largest_first.items()},
        "two_bounds": {name: _row(o) for name, o in simulation.two_bounds.items()},
        "smallest_first": {name: _row(o) for name, o in simulation.smallest_first.items()},
    }

"""Finite-sample bounds: what a collective may claim about its success after so many verification queries.

Everything here is exact (Clopper-Pearson, Fisher, fixed-sequence testing, McNemar): no normal approximation, because
verification sets are small and success rates are close to 1. The bounds and tests are *published*; putting
them together into a certificate is *ours*.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import (
    checked_counts,
    checked_rate,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
    fewest,
    rate_needed,
    scipy_special,
)

__all__ = [
    "FORMAT",
    "Bound",
    "Certificate",
    "Goal",
    "Interval",
    "LevelTest",
    "Power",
    "Tally",
    "certify",
    "clopper_pearson_interval",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "count_right",
    "count_right_at_most",
    "mcnemar_exact",
    "parity_needed",
    "power",
    "rate_needed",
]

FORMAT = 2
"""Version of the dictionary that :meth:`Certificate.to_dict` writes."""

Goal = Literal["parity", "improvement"] | float
"""What a perturbation must show: parity with the reference, improvement on before, or a success rate."""


# --- counting ----------------------------------------------------------------------------------------------


def _rows(
    y_true: ArrayLike, y_pred: ArrayLike, resolved: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    truth, said, known = np.asarray(y_true), np.asarray(y_pred), np.asarray(resolved)
    if said.ndim != 1 or not said.shape == truth.shape == known.shape:
        raise ActionError(
            "Expected y_true, y_pred and resolved with one row per person, got shapes "
            f"{truth.shape}, {said.shape}, {known.shape}. Pass the rows of the same people."
        )
    if said.dtype.kind not in "iu" or truth.dtype.kind not in "iu" or known.dtype != np.bool_:
        raise ActionError(
            "Expected whole numbers in y_true and y_pred and a boolean resolved, got dtypes "
            f"{truth.dtype}, {said.dtype}, {known.dtype}. Convert them first."
        )
    if np.any(truth < 0):
        # A true class of −1 would make every refusal look right.
        raise ActionError("Expected true classes of 0 or more, got a negative one. Drop people without a class.")
    return truth.astype(np.int64), said.astype(np.int64), known


def count_right(y_true: ArrayLike, y_pred: ArrayLike, resolved: ArrayLike) -> tuple[int, int]:
    """Return (right, m) for a *lower* bound: an unresolved query counts as wrong.

    Parameters
    ----------
    y_true : integers, shape (N,)
        True classes, 0 or more.
    y_pred : integers, shape (N,)
        What the platform said, −1 where it named no class.
    resolved : bool, shape (N,)
        Rows the platform did answer, be it with a refusal (a resolved −1, which is wrong).

    Raises
    ------
    ActionError
        If shapes or dtypes disagree or a true class is negative.

    Notes
    -----
    *Ours*.
    """
    truth, said, known = _rows(y_true, y_pred, resolved)
    return int(np.count_nonzero(known & (said == truth))), len(said)


def count_right_at_most(y_true: ArrayLike, y_pred: ArrayLike, resolved: ArrayLike) -> tuple[int, int]:
    """Return (right, m) for an *upper* bound: an unresolved query counts as right.

    The reference accuracy and the accuracy before are what a certificate must beat. Counting their lost
    queries as wrong would lower that bar; here too, as in :func:`count_right`, doubt goes against the claim.
    Refusals are answers, and wrong. Parameters and errors as :func:`count_right`. *Ours*.
    """
    truth, said, known = _rows(y_true, y_pred, resolved)
    return int(np.count_nonzero(~known | (said == truth))), len(said)


def mcnemar_exact(before_correct: ArrayLike, after_correct: ArrayLike) -> float:
    """Return the two-sided p of "as many people were lost as were won", for two results on the same people.

    Parameters
    ----------
    before_correct, after_correct : bool, shape (N,)
        Whether each person's answer was right, in the same order of people.

    Returns
    -------
    float
        1.0 where no answer changed.

    Raises
    ------
    ActionError
        If shapes differ or a value is not boolean.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: McNemar, Psychometrika 12 (1947), in its exact binomial form.
    """
    before, after = np.asarray(before_correct), np.asarray(after_correct)
    if before.ndim != 1 or before.shape != after.shape or before.dtype != np.bool_ or after.dtype != np.bool_:
        raise ActionError(
            "Expected two boolean arrays of one row per person, got shapes "
            f"{before.shape} and {after.shape}, dtypes {before.dtype} and {after.dtype}. "
            "Pass the same people in the same order."
        )
    lost = int(np.count_nonzero(before & ~after))
    won = int(np.count_nonzero(~before & after))
    if lost + won == 0:
        return 1.0
    return min(1.0, 2.0 * float(scipy_special().bdtr(min(lost, won), lost + won, 0.5)))


# --- what must be reached ----------------------------------------------------------------------------------


def parity_needed(m: int, reference: tuple[int, int], alpha: float) -> int | None:
    """Return the fewest right answers of m that show parity: that S is not below the reference accuracy.

    Parameters
    ----------
    m : int
        Verification people of the subgroup.
    reference : (right, n)
        Right answers of the reference group, of n other people.
    alpha : float
        Greatest probability of claiming parity where S is below the reference accuracy.

    Returns
    -------
    int or None
        None where even m of m would not do.

    Raises
    ------
    ActionError
        If m or the counts are no counts.
    ConfigError
        If alpha is out of range.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: the one-sided exact test of two independent proportions (Fisher, The Design of Experiments, 1935):
    given how many of all m + n were right, the share of them that falls to the subgroup is hypergeometric at equal
    rates, and stochastically smaller below. It asks both groups' chance at once, and so claims true parity more often
    than two bounds at alpha/2 that must not overlap, at the same stated error (``benchmarks bounds`` counts both).
    """
    alpha = checked_rate("alpha", alpha)
    right, others = (int(c) for c in checked_counts(*reference))
    checked_counts(0, m)
    if not others:
        return None
    scipy_special()  # Says what to install.
    from scipy.stats import hypergeom

    tail = hypergeom.sf
    return fewest(m, lambda k: bool(tail(k - 1, m + others, k + right, m) <= alpha))


@dataclass(frozen=True)
class Power:
    """What m verification people can show about one ε.

    Parameters
    ----------
    m : int
        Verification people.
    probability : float
        Wanted probability of success.
    smallest_right : int or None
        Fewest right answers of m that certify; None when even m of m would not do.
    smallest_rate : float or None
        Smallest true success rate that is certified with this probability; None likewise.
    smallest_m : int or None
        Fewest people of whom all right would certify; None when a billion would not.
    """

    m: int
    probability: float
    smallest_right: int | None
    smallest_rate: float | None
    smallest_m: int | None


def power(m: int, needed: Callable[[int], int | None], probability: float = 0.8) -> Power:
    """Return what m verification people could certify.

    Parameters
    ----------
    m : int
        Verification people asked for one ε.
    needed : callable
        Number of people → fewest right answers of them that certify, or None (:func:`rate_needed`,
        :func:`parity_needed`).
    probability : float
        Probability of being certified at which the smallest true rate is given.

    Raises
    ------
    ConfigError
        If the probability is out of range.
    ActionError
        If m is not a whole number of 0 or more.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Ours*, from the tail P(Bin(m, S) ≥ k) = I_S(k, m − k + 1), given what is known of the reference. It is the power
    of one ε alone: in a sequence the larger ε must have passed as well.
    """
    probability = checked_rate("probability", probability)
    k = needed(m)
    reach = next((10**i for i in range(10) if needed(10**i) is not None), None)
    smallest = None if reach is None else fewest(reach, lambda people: needed(people) is not None)
    if k is None:
        return Power(m, probability, None, None, smallest)
    rate = float(scipy_special().betaincinv(k, m - k + 1, probability)) if k else 0.0
    return Power(m, probability, k, rate, smallest)


# --- the certificate ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """So many right of m people."""

    right: int
    m: int


@dataclass(frozen=True)
class Bound:
    """A one-sided bound.

    Parameters
    ----------
    value : float
        The bound, a rate.
    kind : str
        ``"one-sided lower"`` or ``"one-sided upper"``.
    confidence : float
        Probability with which it holds; where ``shared_by`` > 1, with which all of them hold together.
    shared_by : int
        Over how many ε the error was divided (Bonferroni); 1 for a bound whose ε was not chosen.
    """

    value: float
    kind: Literal["one-sided lower", "one-sided upper"]
    confidence: float
    shared_by: int = 1


@dataclass(frozen=True)
class Interval:
    """A two-sided interval, for showing to people; fields as :class:`Bound`."""

    low: float
    high: float
    confidence: float
    shared_by: int = 1
    kind: Literal["two-sided"] = "two-sided"


@dataclass(frozen=True)
class LevelTest:
    """One ε put to the test.

    Parameters
    ----------
    epsilon : int
        Budget in pixel levels of 255.
    right, m : int
        Right answers of the m verification queries it cost.
    needed : int or None
        Fewest right answers of m that pass; None where m of m would not.
    passed : bool
        Whether there were so many.
    """

    epsilon: int
    right: int
    m: int
    needed: int | None
    passed: bool


@dataclass(frozen=True)
class Certificate:
    """What was shown about the success S of the perturbations, and with what confidence.

    Parameters
    ----------
    alpha : float
        Greatest probability of certifying an ε whose goal is in truth not met.
    goal : "parity", "improvement" or float
        What every ε was tested for.
    family : tuple of int
        All ε fixed before verification, largest first.
    tests : tuple of LevelTest
        What was done, in order: from the largest ε downward, to the first failure.
    epsilon : int or None
        The smallest ε that passed before a failure; None when the largest failed.
    reference : Tally
        Right answers in the reference group.
    before : Tally or None
        Right answers in the subgroup without a perturbation.
    before_upper : Bound or None
        Upper bound of the accuracy before at 1 − alpha/2.
    parity_certified : bool or None
        Whether parity with the reference was shown at ``epsilon``. None where the goal was not parity: there
        the sequence was ordered and stopped by another test, and a second family of claims at the same alpha
        would let the chance of *some* false claim grow to twice alpha. Who wants parity makes it the goal.
    lower : Bound
        Lower bound of S at ``quoted_epsilon``, at 1 − alpha: Bonferroni over the family, as data chose the ε.
    interval : Interval
        Two-sided 95 % interval of S at ``quoted_epsilon``, likewise corrected.
    power : Power
        What one test with this m could have certified.

    Raises
    ------
    ActionError
        If the parts contradict each other.

    Notes
    -----
    *Ours*. ``lower`` and the tests' outcome each hold with probability 1 − alpha, both with 1 − 2·alpha.
    """

    alpha: float
    goal: Goal
    family: tuple[int, ...]
    tests: tuple[LevelTest, ...]
    epsilon: int | None
    reference: Tally
    before: Tally | None
    before_upper: Bound | None
    parity_certified: bool | None
    lower: Bound
    interval: Interval
    power: Power

    def __post_init__(self) -> None:
        passed = [t.epsilon for t in self.tests if t.passed]
        verdicts = [t.passed for t in self.tests]
        consistent = (
            len(self.tests) > 0
            and list(self.family) == sorted(set(self.family), reverse=True)
            and tuple(t.epsilon for t in self.tests) == self.family[: len(self.tests)]
            and all(verdicts[:-1])
            and (len(self.tests) == len(self.family) or not verdicts[-1])
            and self.epsilon == (passed[-1] if passed else None)
            and self.parity_certified == ((bool(passed)) if self.goal == "parity" else None)
            and all(t.passed == _passes(t.right, t.needed) for t in self.tests)
        )
        if not consistent:
            raise ActionError(
                "Expected a certificate whose tests go from the largest ε downward to the first failure and "
                "agree with its verdict, got one that contradicts itself. Do not edit it; verify again."
            )

    def passed_at(self, epsilon: int) -> bool:
        """Whether the test of this member of the family was reached and passed; all that pass are claimed together."""
        return any(test.epsilon == epsilon and test.passed for test in self.tests)

    def lower_at(self, epsilon: int) -> float:
        """Return the lower bound of S at any tested ε, NaN at one that the sequence did not reach.

        All of them hold together at 1 − alpha: each is at alpha / size of the family (Bonferroni). At
        ``quoted_epsilon`` it is ``lower``.
        """
        for test in self.tests:
            if test.epsilon == epsilon:
                return clopper_pearson_lower(test.right, test.m, self.alpha / len(self.family))
        return math.nan

    @property
    def quoted_epsilon(self) -> int:
        """The ε that ``lower`` and ``interval`` speak of: the certified one, else the largest."""
        return self.family[0] if self.epsilon is None else self.epsilon

    @property
    def queries(self) -> int:
        """Verification queries the tests cost."""
        return sum(test.m for test in self.tests)

    def summary(self) -> str:
        """Return one sentence for people that says which bound is quoted and how sure it is."""
        corrected = f", corrected for {len(self.family)} values of ε" if len(self.family) > 1 else ""
        quoted = (
            f"With δ of ε = {self.quoted_epsilon}, the subgroup's share of right answers is at least "
            f"{self.lower.value:.3f} ({self.lower.kind} bound, {100 * self.lower.confidence:g} % confidence{corrected})"
        )
        asked = self.goal if isinstance(self.goal, str) else f"a success rate of {self.goal:g}"
        if self.epsilon is not None:
            test = next(t for t in self.tests if t.epsilon == self.epsilon)
            how = f"{test.right} of {test.m} right, {test.needed} needed"
            return f"Certified {asked} at ε = {self.epsilon} ({how}). {quoted}."
        if self.power.smallest_right is None:
            reach = f"{self.power.m} verification people could not have certified it, even with every answer right"
        else:
            reach = f"{self.power.smallest_right} right answers of {self.power.m} would have been enough"
        return f"Not certified ({asked}): {reach}. {quoted}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: ``json.loads(json.dumps(d)) == d``."""
        return {"format": FORMAT, **cast("dict[str, Any]", _plain(asdict(self)))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Return the certificate that :meth:`to_dict` wrote. Needs no scipy.

        Raises
        ------
        ActionError
            If the format is another, a field is missing or unreadable, or the parts contradict each other.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ActionError(
                f"Expected a certificate of format {FORMAT}, got "
                f"{data.get('format') if isinstance(data, Mapping) else type(data).__name__!r}. Read it with the "
                "version of ttca that wrote it, or verify again."
            )
        try:
            goal, epsilon, parity = data["goal"], data["epsilon"], data["parity_certified"]
            if parity is not None and not isinstance(parity, bool):
                raise TypeError("parity_certified")
            known = goal in ("parity", "improvement")
            before, ceiling = data["before"], data["before_upper"]
            return cls(
                alpha=_share(data["alpha"]),
                goal=goal if known else _share(goal),
                family=tuple(_whole(e) for e in data["family"]),
                tests=tuple(_level_test(test) for test in data["tests"]),
                epsilon=None if epsilon is None else _whole(epsilon),
                reference=_tally(data["reference"]),
                before=None if before is None else _tally(before),
                before_upper=None if ceiling is None else _bound(ceiling),
                parity_certified=parity,
                lower=_bound(data["lower"]),
                interval=_interval(data["interval"]),
                power=_power(data["power"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ActionError(
                f"Expected a certificate written by ttca, got one that cannot be read ({error!r}). Fetch the file "
                "again, or verify again."
            ) from error

    def recompute(self) -> Certificate:
        """Return the certificate that this one's own counts give: equal to it, unless it was tampered with.

        Raises
        ------
        ActionError
            If the counts lead to a test that was never done.
        MissingExtraError
            If scipy is not installed.
        """
        counts = {test.epsilon: (test.right, test.m) for test in self.tests}

        def replay(epsilon: int) -> tuple[int, int]:
            if epsilon not in counts:
                raise ActionError(
                    "Expected a certificate whose tests stop at their first failure, got one whose counts show that ε "
                    f"= {epsilon} should have been tested too. Do not edit certificates; verify again."
                )
            return counts[epsilon]

        return certify(
            replay,
            epsilons=self.family,
            reference=(self.reference.right, self.reference.m),
            before=None if self.before is None else (self.before.right, self.before.m),
            alpha=self.alpha,
            goal=self.goal,
        )


def certify(
    test_epsilon: Callable[[int], tuple[int, int]],
    *,
    epsilons: Sequence[int],
    reference: tuple[int, int],
    before: tuple[int, int] | None,
    alpha: float = 0.05,
    goal: Goal = "parity",
) -> Certificate:
    """Find the smallest ε shown to reach the goal, spending verification queries one ε at a time.

    Parameters
    ----------
    test_epsilon : callable
        Asks the platform about every verification person at this ε and returns (right, m), unresolved queries
        counted as wrong (:func:`count_right`). Called from the largest ε downward, never after a failure.
    epsilons : sequence of int
        The family, in pixel levels 1..255, fixed before anything is verified. Any order.
    reference : (right, m)
        Reference group, unperturbed. Count with :func:`count_right_at_most`.
    before : (right, m) or None
        Subgroup, unperturbed, counted likewise. Needed by the goal ``"improvement"``.
    alpha : float
        Greatest probability of a false claim.
    goal : "parity", "improvement" or float
        ``"parity"``: S not below the reference accuracy, by :func:`parity_needed`. ``"improvement"``: lower(S) >
        upper(before), each at alpha/2; the same people may be in both, since the two errors are simply added.
        A number: lower(S) at alpha ≥ that number.

    Returns
    -------
    Certificate

    Raises
    ------
    ConfigError
        If the family, alpha or goal is not as above; raised before any query.
    ActionError
        If a count is not 0 ≤ right ≤ m.
    MissingExtraError
        If scipy is not installed; raised before any query.

    Notes
    -----
    Fixed-sequence testing is *published* (Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001).
    Each ε is tested at the full alpha, because a false claim needs the *first* ε in the order whose goal is in
    truth unmet to pass. It holds for any dependence between the ε and any shape of S. Starting from the
    smallest ε and going on until one passes gives every ε its own chance to err, and is not valid.
    *Ours*: its use here.
    """
    alpha = checked_rate("alpha", alpha)
    family = _family(epsilons)
    goal = _goal(goal)
    if goal == "improvement" and before is None:
        raise ConfigError(
            "Expected the subgroup's accuracy without δ for the goal 'improvement', got none. Pass before=(right, m)."
        )
    reference_tally = _checked("reference", reference)
    before_tally = None if before is None else _checked("before", before)
    before_upper = None if before_tally is None else _upper_bound(before_tally, alpha / 2)

    @lru_cache
    def needed(m: int) -> int | None:
        if isinstance(goal, float):
            return rate_needed(m, goal, alpha)
        if goal == "improvement" and before_upper is not None:
            # An improvement of exactly nothing is none.
            return rate_needed(m, before_upper.value, alpha / 2, more=True)
        return parity_needed(m, (reference_tally.right, reference_tally.m), alpha)

    tests: list[LevelTest] = []
    for epsilon in family:
        tally = _checked(f"ε = {epsilon}", test_epsilon(epsilon))
        passed = _passes(tally.right, needed(tally.m))
        tests.append(LevelTest(epsilon, tally.right, tally.m, needed(tally.m), passed))
        if not passed:
            break

    certified = [test for test in tests if test.passed]
    quoted = certified[-1] if certified else tests[0]
    size = len(family)
    low, high = clopper_pearson_interval(quoted.right, quoted.m, 1 - 0.05 / size)
    return Certificate(
        alpha=alpha,
        goal=goal,
        family=family,
        tests=tuple(tests),
        epsilon=certified[-1].epsilon if certified else None,
        reference=reference_tally,
        before=before_tally,
        before_upper=before_upper,
        parity_certified=bool(certified) if goal == "parity" else None,
        lower=Bound(
            clopper_pearson_lower(quoted.right, quoted.m, alpha / size), "one-sided lower", 1 - alpha, shared_by=size
        ),
        interval=Interval(low, high, 0.95, shared_by=size),
        power=power(quoted.m, needed),
    )


def _passes(right: int, needed: int | None) -> bool:
    return needed is not None and right >= needed


def _upper_bound(tally: Tally, alpha: float) -> Bound:
    return Bound(clopper_pearson_upper(tally.right, tally.m, alpha), "one-sided upper", 1 - alpha)


def _family(epsilons: Sequence[int]) -> tuple[int, ...]:
    try:
        levels = [_whole(e) for e in epsilons]
    except TypeError:
        raise ConfigError(
            f"Expected whole pixel levels as ε, got {epsilons!r}. Give a list of numbers such as [2, 4, 8]."
        ) from None
    if not levels:
        raise ConfigError("Expected at least one ε to verify, got none. Give a list such as [2, 4, 8].")
    if len(set(levels)) != len(levels):
        raise ConfigError(f"Expected each ε once, got {levels}. Each costs its own verification queries.")
    if min(levels) < 1 or max(levels) > 255:
        raise ConfigError(f"Expected ε in pixel levels 1..255, got {levels}. Write 8/255 as 8.")
    return tuple(sorted(levels, reverse=True))


def _goal(goal: Goal) -> Goal:
    if goal in ("parity", "improvement"):
        return goal
    if isinstance(goal, str | bool) or not isinstance(goal, int | float) or not 0 < goal < 1:
        raise ConfigError(
            f"Expected the goal 'parity', 'improvement' or a rate strictly between 0 and 1, got {goal!r}. "
            "Choose one of them."
        )
    return float(goal)


def _checked(name: str, counts: tuple[int, int]) -> Tally:
    try:
        right, asked = (_whole(c) for c in counts)
    except (TypeError, ValueError):
        raise ActionError(
            f"Expected whole numbers (right, m) for {name}, got {counts!r}. Count people, not shares."
        ) from None
    if not 0 <= right <= asked:
        raise ActionError(
            f"Expected 0 ≤ right ≤ m for {name}, got right = {right} of m = {asked}. Count each person once, and "
            "include unresolved queries in m."
        )
    return Tally(right, asked)


# --- reading what others wrote -----------------------------------------------------------------------------


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _whole(value: object) -> int:
    # True is an int to Python, and neither a count nor a pixel level to anybody.
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{value!r} is not a whole number")
    return operator.index(cast(int, value))


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is not in [0, 1]")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _tally(data: Mapping[str, Any]) -> Tally:
    tally = Tally(_whole(data["right"]), _whole(data["m"]))
    if not 0 <= tally.right <= tally.m:
        raise ValueError(f"{tally.right} of {tally.m} right")
    return tally


def _bound(data: Mapping[str, Any]) -> Bound:
    if data["kind"] not in ("one-sided lower", "one-sided upper"):
        raise ValueError(f"kind {data['kind']!r}")
    return Bound(_share(data["value"]), data["kind"], _share(data["confidence"]), _whole(data["shared_by"]))


def _interval(data: Mapping[str, Any]) -> Interval:
    if data["kind"] != "two-sided":
        raise ValueError(f"kind {data['kind']!r}")
    return Interval(_share(data["low"]), _share(data["high"]), _share(data["confidence"]), _whole(data["shared_by"]))


def _level_test(data: Mapping[str, Any]) -> LevelTest:
    tally = _tally(data)
    needed = _among(data["needed"], tally.m)
    return LevelTest(_whole(data["epsilon"]), tally.right, tally.m, needed, _flag(data["passed"]))


def _among(value: object, m: int) -> int | None:
    """Return a count of 0..m people, or None where it says that no such count would do."""
    if value is None:
        return None
    if not 0 <= _whole(value) <= m:
        raise ValueError(f"{value} of {m}")
    return _whole(value)


def _power(data: Mapping[str, Any]) -> Power:
    right, rate, fewest = data["smallest_right"], data["smallest_rate"], data["smallest_m"]
    return Power(
        _whole(data["m"]),
        _share(data["probability"]),
        _among(right, _whole(data["m"])),
        None if rate is None else _share(rate),
        None if fewest is None else _whole(fewest),
    )

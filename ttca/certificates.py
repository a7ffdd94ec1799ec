"""Finite-sample bounds: what a collective may claim about its success after so many verification queries.

Everything here is exact (Clopper-Pearson, fixed-sequence testing, McNemar): no normal approximation, because
verification sets are small and success rates are close to 1. The bounds and tests are *published*; putting
them together into a certificate is *ours*.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ActionError, ConfigError, MissingExtraError

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
    "power",
]

FORMAT = 1
"""Version of the dictionary that :meth:`Certificate.to_dict` writes."""

Goal = Literal["parity", "improvement"] | float
"""What a perturbation must show: parity with the reference, improvement on before, or a success rate."""

Integers = NDArray[np.integer[Any]] | Sequence[int]


# --- exact binomial bounds ---------------------------------------------------------------------------------


def _special() -> ModuleType:
    # Members who only apply a perturbation read certificates and never compute one: no scipy for them.
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtraError("Computing a confidence bound", "learn") from error
    return special


def _rate(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise ConfigError(f"Expected {name} strictly between 0 and 1, got {value!r}. Give a rate such as 0.05 for 5 %.")
    return number


def _counts(k: ArrayLike, m: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    right, asked = np.asarray(k), np.asarray(m)
    if right.dtype.kind not in "iu" or asked.dtype.kind not in "iu":
        raise ActionError(
            f"Expected whole numbers of right answers and of queries, got dtypes {right.dtype} and "
            f"{asked.dtype}. Count people, not shares."
        )
    if np.any(right < 0) or np.any(right > asked):
        raise ActionError(
            f"Expected 0 ≤ right ≤ m, got right = {right.tolist()} of m = {asked.tolist()}. "
            "Count each person once, and unresolved queries in m too."
        )
    return right.astype(np.int64), asked.astype(np.int64)


def _lower(k: ArrayLike, m: ArrayLike, alpha: float) -> NDArray[np.float64]:
    right, asked = _counts(k, m)
    # P(Bin(m, p) ≥ k) = I_p(k, m − k + 1): the bound is the p at which that tail is exactly alpha.
    found = _special().betaincinv(np.maximum(right, 1), asked - right + 1, alpha)
    return np.where(right == 0, 0.0, found)


def _upper(k: ArrayLike, m: ArrayLike, alpha: float) -> NDArray[np.float64]:
    right, asked = _counts(k, m)
    # By symmetry in right and wrong. It keeps alpha small, where 1 − alpha would lose its last digits.
    return np.asarray(1.0 - _lower(asked - right, asked, alpha))


@overload
def clopper_pearson_lower(k: int, m: int, alpha: float) -> float: ...
@overload
def clopper_pearson_lower(k: Integers, m: int | Integers, alpha: float) -> NDArray[np.float64]: ...
@overload
def clopper_pearson_lower(k: int, m: Integers, alpha: float) -> NDArray[np.float64]: ...
def clopper_pearson_lower(k: int | Integers, m: int | Integers, alpha: float) -> float | NDArray[np.float64]:
    """Return the one-sided lower bound, at confidence 1 − alpha, for a success rate.

    Parameters
    ----------
    k, m : int or integer arrays that broadcast
        Right answers, and queries. ``m = 0`` gives 0.
    alpha : float
        Greatest probability with which the bound may exceed the true rate.

    Returns
    -------
    float or float64 array
        A float for two whole numbers, else an array of the broadcast shape.

    Raises
    ------
    ActionError
        If a count is not a whole number or k is not within 0..m.
    ConfigError
        If alpha is outside (0, 1).
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Published*: Clopper and Pearson, Biometrika 26 (1934).
    """
    bound = _lower(k, m, _rate("alpha", alpha))
    return float(bound) if bound.ndim == 0 else bound


@overload
def clopper_pearson_upper(k: int, m: int, alpha: float) -> float: ...
@overload
def clopper_pearson_upper(k: Integers, m: int | Integers, alpha: float) -> NDArray[np.float64]: ...
@overload
def clopper_pearson_upper(k: int, m: Integers, alpha: float) -> NDArray[np.float64]: ...
def clopper_pearson_upper(k: int | Integers, m: int | Integers, alpha: float) -> float | NDArray[np.float64]:
    """Return the one-sided upper bound, at confidence 1 − alpha, for a success rate.

    Parameters, errors and source as :func:`clopper_pearson_lower`; ``m = 0`` gives 1.
    """
    bound = _upper(k, m, _rate("alpha", alpha))
    return float(bound) if bound.ndim == 0 else bound


@overload
def clopper_pearson_interval(k: int, m: int, confidence: float = 0.95) -> tuple[float, float]: ...
@overload
def clopper_pearson_interval(
    k: Integers, m: int | Integers, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def clopper_pearson_interval(
    k: int, m: Integers, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def clopper_pearson_interval(
    k: int | Integers, m: int | Integers, confidence: float = 0.95
) -> tuple[float, float] | tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the *two-sided* interval (low, high) for a success rate, half of the error on each side.

    Parameters, errors and source as :func:`clopper_pearson_lower`; ``m = 0`` gives (0, 1).
    """
    half = (1 - _rate("confidence", confidence)) / 2
    low, high = _lower(k, m, half), _upper(k, m, half)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


# --- counting ----------------------------------------------------------------------------------------------


def _rows(
    labels: ArrayLike, classes: ArrayLike, resolved: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    said, truth, known = np.asarray(labels), np.asarray(classes), np.asarray(resolved)
    if said.ndim != 1 or not said.shape == truth.shape == known.shape:
        raise ActionError(
            "Expected labels, classes and resolved with one row per person, got shapes "
            f"{said.shape}, {truth.shape}, {known.shape}. Pass the rows of the same people."
        )
    if said.dtype.kind not in "iu" or truth.dtype.kind not in "iu" or known.dtype != np.bool_:
        raise ActionError(
            "Expected whole-number labels and classes and a boolean resolved, got dtypes "
            f"{said.dtype}, {truth.dtype}, {known.dtype}. Convert them first."
        )
    if np.any(truth < 0):
        # A true class of −1 would make every refusal look right.
        raise ActionError("Expected true classes of 0 or more, got a negative one. Drop people without a class.")
    return said.astype(np.int64), truth.astype(np.int64), known


def count_right(labels: ArrayLike, classes: ArrayLike, resolved: ArrayLike) -> tuple[int, int]:
    """Return (right, m) for a *lower* bound: an unresolved query counts as wrong.

    Parameters
    ----------
    labels : integers, shape (N,)
        What the platform said, −1 where it named no class.
    classes : integers, shape (N,)
        True classes, 0 or more.
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
    said, truth, known = _rows(labels, classes, resolved)
    return int(np.count_nonzero(known & (said == truth))), len(said)


def count_right_at_most(labels: ArrayLike, classes: ArrayLike, resolved: ArrayLike) -> tuple[int, int]:
    """Return (right, m) for an *upper* bound: an unresolved query counts as right.

    The reference accuracy and the accuracy before are what a certificate must beat. Counting their lost
    queries as wrong would lower that bar; here too, as in :func:`count_right`, doubt goes against the claim.
    Refusals are answers, and wrong. Parameters and errors as :func:`count_right`. *Ours*.
    """
    said, truth, known = _rows(labels, classes, resolved)
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
    return min(1.0, 2.0 * float(_special().bdtr(min(lost, won), lost + won, 0.5)))


# --- power -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """What m verification people can show about one ε.

    Parameters
    ----------
    m : int
        Verification people.
    target : float
        The number the lower bound must reach.
    alpha : float
        Error of that one-sided lower bound.
    probability : float
        Wanted probability of success.
    smallest_right : int or None
        Fewest right answers of m that certify; None when even m of m would not do.
    smallest_rate : float or None
        Smallest true success rate that is certified with this probability; None likewise.
    smallest_m : int or None
        Fewest people of whom all right would certify; None when no number would (a target of 1).
    """

    m: int
    target: float
    alpha: float
    probability: float
    smallest_right: int | None
    smallest_rate: float | None
    smallest_m: int | None


def power(m: int, target: float, alpha: float, probability: float = 0.8) -> Power:
    """Return what m verification people could certify: ``lower bound ≥ target``.

    Parameters
    ----------
    m : int
        Verification people asked for one ε.
    target : float
        What the one-sided lower bound must reach, in [0, 1].
    alpha : float
        Error of that bound.
    probability : float
        Probability of being certified at which the smallest true rate is given.

    Raises
    ------
    ConfigError
        If a rate is out of range.
    ActionError
        If m is not a whole number of 0 or more.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    *Ours*, from the tail P(Bin(m, S) ≥ k) = I_S(k, m − k + 1). It is the power of one ε alone: in a sequence
    the larger ε must have passed as well.
    """
    alpha, probability = _rate("alpha", alpha), _rate("probability", probability)
    if not 0 <= target <= 1:
        raise ConfigError(f"Expected a target in [0, 1], got {target!r}. Give a share, not a percentage.")
    _counts(0, m)
    bounds = _lower(np.arange(m + 1), m, alpha)
    # The bound grows with k, so the first k to reach the target is found by bisection.
    k = int(np.searchsorted(bounds, target, side="left"))
    fewest = _smallest_m(target, alpha)
    if k > m:
        return Power(m, float(target), alpha, probability, None, None, fewest)
    rate = float(_special().betaincinv(k, m - k + 1, probability)) if k else 0.0
    return Power(m, float(target), alpha, probability, k, rate, fewest)


def _smallest_m(target: float, alpha: float) -> int | None:
    if target >= 1:
        return None
    if target <= 0:
        return 0
    # With m of m right the bound is alpha^(1/m).
    guess = max(1, math.ceil(math.log(alpha) / math.log(target)) - 1)
    while float(_lower(guess, guess, alpha)) < target:
        guess += 1
    return guess


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
    lower : Bound
        The one-sided lower bound the test compared: valid for an ε named beforehand, not for a chosen one.
    threshold : float
        What ``lower`` had to reach (for improvement: exceed).
    passed : bool
        Whether it did.
    """

    epsilon: int
    right: int
    m: int
    lower: Bound
    threshold: float
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
    reference_upper : Bound
        Upper bound of the reference accuracy at 1 − alpha/2.
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
    reference_upper: Bound
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
            and all(t.passed == _passes(self.goal, t.lower.value, t.threshold) for t in self.tests)
        )
        if not consistent:
            raise ActionError(
                "Expected a certificate whose tests go from the largest ε downward to the first failure and "
                "agree with its verdict, got one that contradicts itself. Do not edit it; verify again."
            )

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
            f"S is at least {self.lower.value:.3f} at ε = {self.quoted_epsilon} "
            f"({self.lower.kind} bound, {100 * self.lower.confidence:g} % confidence{corrected})"
        )
        asked = self.goal if isinstance(self.goal, str) else f"a success rate of {self.goal:g}"
        if self.epsilon is not None:
            test = next(t for t in self.tests if t.epsilon == self.epsilon)
            bound, bar = test.lower.value, test.threshold
            how = f"{test.right} of {test.m} right, the test's own bound {bound:.3f} against {bar:.3f}"
            return f"Certified {asked} at ε = {self.epsilon} ({how}). For an ε chosen by the data, {quoted}."
        if self.power.smallest_right is None:
            reach = f"{self.power.m} people could not have certified it, even with every answer right"
        else:
            reach = f"{self.power.smallest_right} right answers of {self.power.m} would have done"
        return f"Not certified ({asked}): {quoted}; {reach}."

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
                f"{data.get('format') if isinstance(data, Mapping) else type(data).__name__!r}. "
                "Read it with the ttca that wrote it, or verify again."
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
                reference_upper=_bound(data["reference_upper"]),
                before=None if before is None else _tally(before),
                before_upper=None if ceiling is None else _bound(ceiling),
                parity_certified=parity,
                lower=_bound(data["lower"]),
                interval=_interval(data["interval"]),
                power=_power(data["power"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ActionError(
                f"Expected a certificate as written by ttca, got one whose parts cannot be read ({error!r}). "
                "Fetch the file again, or verify again."
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
                    f"Expected the tests to stop at their first failure, but by its counts ε = {epsilon} "
                    "should have been tested too. Do not edit certificates; verify again."
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
        ``"parity"``: lower(S) ≥ upper(reference), each at alpha/2. ``"improvement"``: lower(S) >
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
    alpha = _rate("alpha", alpha)
    family = _family(epsilons)
    goal = _goal(goal)
    if goal == "improvement" and before is None:
        raise ConfigError("Expected the accuracy before for the goal 'improvement', got none. Pass before=(right, m).")
    half = alpha / 2
    reference_tally = _checked("reference", reference)
    reference_upper = _upper_bound(reference_tally, half)
    before_tally = None if before is None else _checked("before", before)
    before_upper = None if before_tally is None else _upper_bound(before_tally, half)

    if isinstance(goal, float):
        threshold, level = goal, alpha
    elif goal == "improvement" and before_upper is not None:
        threshold, level = before_upper.value, half
    else:
        threshold, level = reference_upper.value, half

    tests: list[LevelTest] = []
    for epsilon in family:
        tally = _checked(f"ε = {epsilon}", test_epsilon(epsilon))
        lower = float(_lower(tally.right, tally.m, level))
        passed = _passes(goal, lower, threshold)
        bound = Bound(lower, "one-sided lower", 1 - level)
        tests.append(LevelTest(epsilon, tally.right, tally.m, bound, threshold, passed))
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
        reference_upper=reference_upper,
        before=before_tally,
        before_upper=before_upper,
        parity_certified=bool(certified) if goal == "parity" else None,
        lower=Bound(float(_lower(quoted.right, quoted.m, alpha / size)), "one-sided lower", 1 - alpha, shared_by=size),
        interval=Interval(low, high, 0.95, shared_by=size),
        power=power(quoted.m, threshold, level),
    )


def _passes(goal: Goal, lower: float, threshold: float) -> bool:
    # "No worse than" for parity and a number; an improvement of exactly nothing is none.
    return lower > threshold if goal == "improvement" else lower >= threshold


def _upper_bound(tally: Tally, alpha: float) -> Bound:
    return Bound(float(_upper(tally.right, tally.m, alpha)), "one-sided upper", 1 - alpha)


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
        raise ConfigError(f"Expected ε in pixel levels 1..255, got {levels}. 8/255 is written 8.")
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
            f"Expected 0 ≤ right ≤ m for {name}, got right = {right} of m = {asked}. "
            "Count each person once, and unresolved queries in m too."
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
    return LevelTest(
        _whole(data["epsilon"]),
        tally.right,
        tally.m,
        _bound(data["lower"]),
        _share(data["threshold"]),
        _flag(data["passed"]),
    )


def _power(data: Mapping[str, Any]) -> Power:
    right, rate, fewest = data["smallest_right"], data["smallest_rate"], data["smallest_m"]
    return Power(
        _whole(data["m"]),
        _share(data["target"]),
        _share(data["alpha"]),
        _share(data["probability"]),
        None if right is None else _whole(right),
        None if rate is None else _share(rate),
        None if fewest is None else _whole(fewest),
    )

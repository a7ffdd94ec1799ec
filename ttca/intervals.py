"""Intervals beside what was measured: rates, differences, the share of a gap that was closed, fairness metrics.

Persons are drawn, not images: where a person has several images, or several seeds asked about the same persons, the
answers count as the smaller number of independent ones that would vary as much (:func:`rate_interval`). All that is
made of several rates adds up the distances to their exact limits in squares; none of it has an interval of no width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ConfigError, DataError, MissingExtraError

__all__ = [
    "Span",
    "difference_interval",
    "difference_of_counts",
    "fairness_intervals",
    "gap_closed_interval",
    "metric_intervals",
    "rate_interval",
]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Kind = Literal["two-sided", "at least", "at most"]


@dataclass(frozen=True)
class Span:
    """Where a number lies, from ``low`` to ``high``.

    Parameters
    ----------
    low, high : float
        ``high`` may be infinite.
    confidence : float
        Probability with which the number lies there.
    kind : "two-sided", "at least" or "at most"
        Which ends say something: "at most" of a difference that may be 0, "at least" of a ratio that may be 1.

    Raises
    ------
    DataError
        If it has no width: nothing follows from it.
    """

    low: float
    high: float
    confidence: float
    kind: Kind = "two-sided"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise DataError(
                f"Expected an interval with a width, got {self.low} to {self.high}. Measure more people, or show none."
            )


# --- one rate ------------------------------------------------------------------------------------------------


def rate_interval(right: ArrayLike, persons: ArrayLike | None = None, *, confidence: float = 0.95) -> Span | None:
    """Return a two-sided interval for the share of right answers; None where nothing was asked.

    Parameters
    ----------
    right : array of 0, 1 and NaN, shape (N,) or (seeds, N)
        Whether each image was answered right; NaN where it was not asked about. With several seeds, the interval is
        for the rate over persons *and* seeds like these.
    persons : array, shape (N,), optional
        Whose image it is; default one image per person.
    confidence : float

    Raises
    ------
    DataError
        If a value is none of the above or lengths differ.
    ConfigError
        If the confidence is not between 0 and 1.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    One seed and one image per person: Clopper and Pearson (1934), *published*, exact. Else their limits with as many
    independent answers as would vary as much as these (Korn and Graubard 1998, Survey Methodology 24, *published*).
    How much they vary over persons and seeds is the variance that the two-way bootstrap estimates (Owen 2007, Annals
    of Applied Statistics 1), from its formula (Cameron, Gelbach and Miller 2011), with Satterthwaite's degrees of
    freedom: three seeds are too few to be resampled. Two tell so little of how seeds differ that the interval may hold
    less often than stated where they differ much. *Ours*: these together, and one person more whose answers are all
    unlike most, so that answers which are all alike count about once per person.
    """
    alpha = _alpha(confidence)
    (values,), units = _asked([right], persons)
    if not len(values):
        return None
    size = len(values) * _independent(values, units, alpha)
    low, high = _limits(size * values.mean(), size, alpha)
    return Span(float(low), float(high), confidence)


def _alpha(confidence: float) -> float:
    """Return the error on each side."""
    if not 0 < confidence < 1:
        raise ConfigError(f"Expected a confidence strictly between 0 and 1, got {confidence!r}. Pass 0.95 for 95 %.")
    return (1 - confidence) / 2


def _special() -> ModuleType:
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtraError("Computing an interval", "learn") from error
    return special


def _limits(right: ArrayLike, size: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Return Clopper and Pearson's limits, each at alpha, also for counts that are not whole; (0, 1) for a size of 0.

    Of whole counts they are those of :func:`ttca.certificates.clopper_pearson_interval`.
    """
    inverse: Callable[..., Any] = _special().betaincinv
    k, n = np.asarray(right, np.float64), np.asarray(size, np.float64)
    # Sums of shares miss a whole number by a rounding error.
    wrong = np.where(n - k < 1e-9, 0.0, n - k)
    k = np.where(k < 1e-9, 0.0, k)
    low = np.where(k > 0, inverse(np.maximum(k, 1e-9), wrong + 1, alpha), 0.0)
    high = 1 - np.where(wrong > 0, inverse(np.maximum(wrong, 1e-9), k + 1, alpha), 0.0)
    return low, high


@dataclass(frozen=True, eq=False)
class _Units:
    """Of which person, and in which seed, each answer is: whole numbers from 0, shape (M,)."""

    person: Indices
    seed: Indices


def _asked(outcomes: Sequence[ArrayLike], persons: ArrayLike | None) -> tuple[list[Floats], _Units]:
    """Return what was asked under every one of several conditions on the same images, flat."""
    try:
        tables = [np.atleast_2d(np.asarray(each, np.float64)) for each in outcomes]
    except (TypeError, ValueError):
        raise DataError("Expected outcomes as numbers: 1 right, 0 wrong, NaN not asked. Convert them first.") from None
    shape = tables[0].shape
    if any(table.ndim != 2 or table.shape != shape for table in tables):
        raise DataError(
            f"Expected outcomes of the same images in one order, got shapes {[table.shape for table in tables]}. "
            "Pass (N,) or (seeds, N), with NaN where nobody was asked."
        )
    names = np.arange(shape[1]) if persons is None else np.asarray(persons)
    if names.shape != shape[1:]:
        raise DataError(f"Expected one person per image, {shape[1]}, got shape {names.shape}. Pass their names.")
    known = ~np.isnan(np.stack(tables)).any(axis=0)
    values = [table[known] for table in tables]
    if any(((each != 0) & (each != 1)).any() for each in values):
        raise DataError("Expected outcomes that are 1 (right), 0 (wrong) or NaN (not asked), got others.")
    seed, column = np.nonzero(known)
    person = np.unique(names[column], return_inverse=True)[1]
    return values, _Units(person, np.unique(seed, return_inverse=True)[1])


def _independent(values: Floats, units: _Units, alpha: float) -> float:
    """Return which share of the answers' number would vary as much as they do, if they were independent: 0 to 1."""
    images = len(values)
    people, seeds = int(units.person.max()) + 1, int(units.seed.max()) + 1
    if people == images and seeds == 1:
        return 1.0
    if people == 1:
        return 1 / images
    rest = values - values.mean()

    def within(unit: Indices) -> float:
        return float((np.bincount(unit, rest) ** 2).sum())

    # One more person, whose images are all answered unlike most: few such persons tell little of how alike a
    # person's answers are, and none tell nothing.
    each = float((np.bincount(units.person) ** 2).sum()) / images
    unlike = float(np.abs(rest).max()) ** 2 or 1.0
    plain = float(rest @ rest) + each * unlike
    variance = by_person = within(units.person) * people / (people - 1) + each**2 * unlike
    by_seed = 0.0
    if seeds > 1:
        by_seed = within(units.seed) * seeds / (seeds - 1)
        variance += by_seed - within(units.person * seeds + units.seed)
    variance = max(variance, by_person, plain)
    freedom = variance**2 / (by_person**2 / (people - 1) + by_seed**2 / max(seeds - 1, 1))
    quantile: Callable[[float, float], float] = _special().stdtrit
    narrower = float(quantile(images - 1, alpha) / quantile(max(freedom, 1.0), alpha))
    return min(1.0, plain / variance * narrower**2)


# --- differences ---------------------------------------------------------------------------------------------


def difference_interval(
    first: ArrayLike,
    second: ArrayLike,
    *,
    paired: bool,
    persons: ArrayLike | None = None,
    others: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Span | None:
    """Return a two-sided interval for a difference of two rates, first minus second; None where one is not known.

    Parameters
    ----------
    first, second : arrays of 0, 1 and NaN, shape (N,) or (seeds, N)
        As in :func:`rate_interval`.
    paired : bool
        Whether they are the same images in the same order; then only those asked about both times count.
    persons, others : arrays, optional
        Whose images those of ``first`` and of ``second`` are. ``others`` is for persons who are not paired.
    confidence : float

    Raises
    ------
    DataError, ConfigError, MissingExtraError
        As :func:`rate_interval`; ConfigError also for ``others`` of pairs.

    Notes
    -----
    Not paired: :func:`difference_of_counts`. Paired: the difference is that of two shares, of images won and of
    images lost, which exclude each other. Their exact limits are added in squares, with the correlation that follows
    (Zou and Donner 2008, *published*; of these two shares, *ours*). It is never of no width, also where no answer
    changed.
    """
    alpha = _alpha(confidence)
    if not paired:
        (a,), units = _asked([first], persons)
        (b,), their_units = _asked([second], others)
        if not len(a) or not len(b):
            return None
        sizes = len(a) * _independent(a, units, alpha), len(b) * _independent(b, their_units, alpha)
        low, high = difference_of_counts(
            (float(sizes[0] * a.mean()), sizes[0]), (float(sizes[1] * b.mean()), sizes[1]), confidence=confidence
        )
        return Span(low, high, confidence)
    if others is not None:
        raise ConfigError("Expected no others for pairs: the persons are the same. Leave others out.")
    (a, b), units = _asked([first, second], persons)
    if not len(a):
        return None
    share = _independent(a - b, units, alpha)
    counts = share * np.array([np.sum(a == b), np.sum(a > b), np.sum(a < b)], np.float64)
    down, up = _cells(counts, alpha, base=0).reach(np.array([0.0, 1.0, -1.0]))
    middle = float(np.mean(a - b))
    return Span(max(-1.0, middle - math.sqrt(down)), min(1.0, middle + math.sqrt(up)), confidence)


def difference_of_counts(
    first: tuple[float, float], second: tuple[float, float], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a two-sided interval for the difference of the rates of different persons, first minus second.

    Parameters
    ----------
    first, second : (right, asked)
        (-1, 1) is returned where one of them was not asked.
    confidence : float

    Raises
    ------
    DataError
        If more were right than asked.
    ConfigError, MissingExtraError
        As :func:`rate_interval`.

    Notes
    -----
    *Published*: the square-and-add combination of two single intervals (Newcombe 1998, Statistics in Medicine 17,
    method 10; Zou and Donner 2008, 27). Here with exact (Clopper-Pearson) limits instead of Wilson's: *ours*, and
    a little wider.
    """
    for k, m in (first, second):
        if not 0 <= k <= m:
            raise DataError(f"Expected 0 ≤ right ≤ asked, got {k} of {m}. Count each answer once.")
    right, asked, right_2, asked_2 = np.array([*first, *second], np.float64)
    low, high = _difference(right, asked, right_2, asked_2, _alpha(confidence))
    return float(low), float(high)


def _difference(right: Floats, size: Floats, right_2: Floats, size_2: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return the limits of :func:`difference_of_counts` for arrays of counts, each at alpha."""
    (low, high), (low_2, high_2) = _limits(right, size, alpha), _limits(right_2, size_2, alpha)
    rate, rate_2 = right / np.maximum(size, 1e-300), right_2 / np.maximum(size_2, 1e-300)
    known, difference = (size > 0) & (size_2 > 0), rate - rate_2
    down, up = np.hypot(rate - low, high_2 - rate_2), np.hypot(high - rate, rate_2 - low_2)
    return (
        np.where(known, np.maximum(-1.0, difference - down), -1.0),
        np.where(known, np.minimum(1.0, difference + up), 1.0),
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """Exact limits of the shares of answers that exclude each other, shape (K,).

    ``base`` is the cell whose share is one minus the others'.
    """

    rate: Floats
    low: Floats
    high: Floats
    base: int

    def reach(self, weights: Floats) -> tuple[float, float]:
        """Return the squared distances from a weighted sum of the shares to its two limits."""
        relative = weights - weights[self.base]
        odds = np.sqrt(self.rate / np.where(self.rate < 1, 1 - self.rate, np.inf))
        odds[self.base] = 0.0
        reaches = []
        for sign in (1, -1):
            # To the lower limit, a share that adds goes down and one that takes away goes up.
            distance = np.where(sign * relative > 0, self.rate - self.low, self.high - self.rate)
            moved = relative * distance
            # The correlation of two shares i and j of one multinomial is -odds_i odds_j.
            square = float((moved**2).sum() - (moved @ odds) ** 2 + ((moved * odds) ** 2).sum())
            reaches.append(max(square, 0.0))
        return reaches[0], reaches[1]


def _cells(counts: Floats, alpha: float, base: int | None = None) -> _Cells:
    # The largest cell as the base leaves shares that can cancel each other least.
    size = counts.sum()
    low, high = _limits(counts, size, alpha)
    return _Cells(counts / size, low, high, int(counts.argmax()) if base is None else base)


# --- gap closed ----------------------------------------------------------------------------------------------


def gap_closed_interval(
    before: ArrayLike,
    after: ArrayLike,
    reference: ArrayLike,
    *,
    same: bool = False,
    persons: ArrayLike | None = None,
    others: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Span | None:
    """Return a two-sided interval for (after − before) / (reference − before); None where no gap was shown.

    Parameters
    ----------
    before, after, reference : arrays of 0, 1 and NaN, shape (N,) or (seeds, N)
        As in :func:`rate_interval`. ``before`` and ``after`` are of the same images in the same order.
    same : bool
        Whether the reference is the same persons under better circumstances, in the same order; else other persons.
    persons, others : arrays, optional
        Whose images those of the subgroup, and those of the reference, are.
    confidence : float

    Returns
    -------
    Span or None
        None where the gap's own interval (:func:`difference_interval`) holds 0 or the subgroup is ahead. An end is
        infinite where the data cannot bound it.

    Raises
    ------
    DataError, ConfigError, MissingExtraError
        As :func:`difference_interval`.

    Notes
    -----
    A share g is in the interval where the one of after − before − g·(reference − before) holds 0: Fieller's way to a
    ratio (1954, *published*). That interval adds the exact limits of the shares of persons with each pair of answers
    in squares (Zou and Donner 2008): for small groups and rates at 0 or 1, *ours*.
    """
    of_reference, of_subgroup = (persons, None) if same else (others, persons)
    gap = difference_interval(
        reference, before, paired=same, persons=of_reference, others=of_subgroup, confidence=confidence
    )
    if gap is None or gap.low <= 0:
        return None
    alpha = _alpha(confidence)
    values, units = _asked([before, after, reference] if same else [before, after], persons)
    if not len(values[0]):
        return None
    parts = [_joint(values, units, alpha)]
    if not same:
        theirs, their_units = _asked([reference], others)
        parts.append(_joint(theirs, their_units, alpha))
        values += theirs
    start, end, bar = (float(each.mean()) for each in values)
    if bar <= start:
        return None
    # Which answers each cell stands for, shape (2 or 3, cells).
    answers = np.array(list(np.ndindex(*(2,) * (3 if same else 2))), np.float64).T

    def limits(g: float) -> tuple[float, float]:
        """Return the limits of after − before − g·(reference − before)."""
        weights = [answers[1] - (1 - g) * answers[0]]
        if same:
            weights[0] = weights[0] - g * answers[2]
        else:
            weights.append(np.array([0.0, -g]))
        middle = end - start - g * (bar - start)
        reaches = [part.reach(weight) for part, weight in zip(parts, weights, strict=True)]
        down, up = (math.sqrt(sum(each)) for each in zip(*reaches, strict=True))
        return middle - down, middle + up

    best = (end - start) / (bar - start)
    low, high = (_outermost(lambda g: -limits(g)[0], best, -1.0), _outermost(lambda g: limits(g)[1], best, 1.0))
    return Span(low, high, confidence)


def _joint(values: Sequence[Floats], units: _Units, alpha: float) -> _Cells:
    """Return the cells of all combinations of answers, with as many persons as the most dependent of them allows."""
    differences = [a - b for a, b in combinations(values, 2)]
    share = min(_independent(each, units, alpha) for each in (*values, *differences))
    number = sum(each.astype(np.intp) << place for place, each in enumerate(reversed(values)))
    counts = np.bincount(np.asarray(number), minlength=2 ** len(values)).astype(np.float64)
    return _cells(share * counts, alpha)


def _outermost(above: Callable[[float], float], start: float, way: float) -> float:
    """Return where a function that is positive at ``start`` falls to 0 in one direction; infinite if nowhere."""
    from scipy.optimize import brentq

    step = 2.0**-7
    while above(start + way * step) > 0:
        step *= 2
        if step > 2**20:
            return way * math.inf
    return float(brentq(above, start, start + way * step))


# --- fairness metrics ----------------------------------------------------------------------------------------


def fairness_intervals(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike,
    *,
    classes: Sequence[int],
    persons: ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, Span | None]:
    """Return where three metrics lie: those of the row, each class against the rest and the worst class counting.

    Parameters
    ----------
    y_true, y_pred : integers, shape (N,)
        True and predicted classes of answered images, −1 where the platform refused.
    groups : array of names or numbers, shape (N,)
        Groups of different persons.
    classes : sequence of int
    persons : array, shape (N,), optional
        Whose image it is; default one image per person.
    confidence : float

    Returns
    -------
    dict of str to Span or None
        ``worst_group`` (smallest accuracy of a group), ``equal_opportunity_gap`` (largest difference of true positive
        rates) and ``demographic_parity_ratio`` (smallest ratio of selection rates). None where the metric is not
        defined for every class, or nothing bounds it.

    Raises
    ------
    DataError
        If there is nobody, or lengths differ.
    ConfigError, MissingExtraError
        As :func:`rate_interval`.

    Notes
    -----
    *Ours*. Differences add exact limits in squares as :func:`difference_of_counts`, ratios likewise (Donner and Zou
    2012, Statistical Methods in Medical Research 21, *published*). A largest difference is at least the largest lower
    limit, with the error divided among all pairs and classes (Bonferroni), for any of them may stand out by chance.
    It is at most the largest upper limit, undivided, for the one that is truly the largest must exceed its own. Of
    the smallest rate and ratio the same holds the other way round. So they cover at parity too, where a resampled
    maximum lies above the truth nearly always.
    """
    alpha = _alpha(confidence)
    found = _Tallies.of(y_true, y_pred, groups, classes, persons, alpha)
    return {
        "worst_group": _bounded(*_smallest(found.accuracy, alpha), confidence),
        "equal_opportunity_gap": _bounded(*_largest_difference(found.positive, alpha), confidence),
        "demographic_parity_ratio": _bounded(*_smallest_ratio(found.selected, alpha), confidence),
    }


def metric_intervals(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike,
    *,
    classes: Sequence[int],
    persons: ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, Span | None]:
    """Return where every metric of :class:`ttca.fairness.SubgroupReport` lies, the worst class counting.

    Parameters
    ----------
    y_true, y_pred, groups, classes, persons, confidence
        As for :func:`fairness_intervals`. Where a person stands in two groups, the intervals are wider than need be as
        long as their answers go together.

    Returns
    -------
    dict of str to Span or None
        By the metric's name, those that no two groups have to be named for. None where the metric is not defined for
        every class, or nothing bounds it.

    Raises
    ------
    DataError, ConfigError, MissingExtraError
        As :func:`fairness_intervals`.

    Notes
    -----
    *Ours*, as there. A difference or ratio of odds is the largest or smallest of two, so that the true and the false
    positive rates of every class are looked at together. A mean of two has half of the error for each.
    """
    alpha = _alpha(confidence)
    found = _Tallies.of(y_true, y_pred, groups, classes, persons, alpha)
    odds = np.concatenate([found.positive, found.negative])
    ends = {
        "worst_group_accuracy": _smallest(found.accuracy, alpha),
        "demographic_parity_difference": _largest_difference(found.selected, alpha),
        "demographic_parity_ratio": _smallest_ratio(found.selected, alpha),
        "equalized_odds_difference": _largest_difference(odds, alpha),
        "equalized_odds_difference_mean": _worst_mean(found, alpha, _difference_of_each, max),
        "equalized_odds_ratio": _smallest_ratio(odds, alpha),
        "equalized_odds_ratio_mean": _worst_mean(found, alpha, _ratio_of_each, min),
        "equal_opportunity_difference": _largest_difference(found.positive, alpha),
        "equal_opportunity_ratio": _smallest_ratio(found.positive, alpha),
    }
    return {name: _bounded(low, high, confidence) for name, (low, high) in ends.items()}


@dataclass(frozen=True, eq=False)
class _Tallies:
    """Right and asked of every group, as many independent answers as would vary as much.

    ``accuracy`` has the shape (2, G). Of every class, (C, 2, G): ``positive`` is of those who are of the class,
    ``negative`` of those who are not, and ``selected`` of all; all three count who was said to be of it.
    """

    accuracy: Floats
    selected: Floats
    positive: Floats
    negative: Floats

    @classmethod
    def of(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        groups: ArrayLike,
        classes: Sequence[int],
        persons: ArrayLike | None,
        alpha: float,
    ) -> _Tallies:
        truth, said, names = np.asarray(y_true), np.asarray(y_pred), np.asarray(groups)
        owners = np.arange(len(truth)) if persons is None else np.asarray(persons)
        if not truth.shape == said.shape == names.shape == owners.shape or not truth.size:
            raise DataError(
                f"Expected one true class, prediction, group and person per image, got shapes {truth.shape}, "
                f"{said.shape}, {names.shape} and {owners.shape}. Pass the rows of the same people."
            )
        group_names = np.unique(names)

        def counted(of: NDArray[np.bool_], right: NDArray[np.bool_]) -> Floats:
            """Return right and asked of every group, shape (2, G)."""
            found = np.zeros((2, len(group_names)))
            for i, name in enumerate(group_names):
                rows = of & (names == name)
                if rows.any():
                    (values,), units = _asked([right[rows]], owners[rows])
                    size = len(values) * _independent(values, units, alpha)
                    found[:, i] = size * values.mean(), size
            return found

        everybody = np.ones(len(truth), np.bool_)
        return cls(
            counted(everybody, truth == said),
            np.stack([counted(everybody, said == c) for c in classes]),
            np.stack([counted(truth == c, said == c) for c in classes]),
            np.stack([counted(truth != c, said == c) for c in classes]),
        )


def _bounded(low: float, high: float, confidence: float) -> Span | None:
    if math.isnan(low) or (low <= 0 and high >= 1):
        return None
    return Span(low, high, confidence, "at least" if high >= 1 else "at most" if low <= 0 else "two-sided")


def _smallest(counts: Floats, alpha: float) -> tuple[float, float]:
    right, size = counts
    return float(_limits(right, size, alpha)[0].min()), float(_limits(right, size, alpha / len(size))[1].min())


def _pairs(counts: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return right and asked of both groups of every pair, in every class: shape (C · pairs,) each."""
    first, second = np.triu_indices(counts.shape[2], 1)
    return (
        counts[:, 0, first].ravel(),
        counts[:, 1, first].ravel(),
        counts[:, 0, second].ravel(),
        counts[:, 1, second].ravel(),
    )


def _largest_difference(counts: Floats, alpha: float) -> tuple[float, float]:
    pairs = counts.shape[2] * (counts.shape[2] - 1) // 2 * len(counts)
    low, high = _difference_of_each(counts, alpha, pairs)
    return float(low.max(initial=-math.inf)), float(high.max(initial=-math.inf))


def _smallest_ratio(counts: Floats, alpha: float) -> tuple[float, float]:
    pairs = counts.shape[2] * (counts.shape[2] - 1) // 2 * len(counts)
    low, high = _ratio_of_each(counts, alpha, pairs)
    return float(low.min(initial=math.inf)), float(high.min(initial=math.inf))


def _worst_mean(
    found: _Tallies,
    alpha: float,
    of_each: Callable[[Floats, float, int], tuple[Floats, Floats]],
    worst: Callable[[Floats], float],
) -> tuple[float, float]:
    """Return the limits of the mean of what the true and the false positive rates of the worst class differ by."""
    positive, negative = found.positive, found.negative
    pairs = positive.shape[2] * (positive.shape[2] - 1) // 2 * len(positive)
    low, high = np.mean([of_each(counts, alpha / 2, pairs) for counts in (positive, negative)], axis=0)
    return (math.nan, math.nan) if np.isnan([low, high]).any() else (float(worst(low)), float(worst(high)))


def _difference_of_each(counts: Floats, alpha: float, pairs: int) -> tuple[Floats, Floats]:
    """Return, for every class, the limits of the largest difference of two groups; NaN where one has nobody.

    ``pairs`` is how many comparisons share the error of the lower limits.
    """
    nobody = (counts[:, 1] == 0).any(axis=1)
    if counts.shape[2] < 2:
        return np.full(len(counts), math.nan), np.full(len(counts), math.nan)
    each = _pairs(counts)
    low, high = (end.reshape(len(counts), -1) for end in _difference(*each, alpha / pairs))
    wide = np.abs(np.stack(_difference(*each, alpha))).max(axis=0).reshape(len(counts), -1)
    least = np.maximum(0.0, np.maximum(low, -high).max(axis=1))
    return np.where(nobody, math.nan, least), np.where(nobody, math.nan, wide.max(axis=1))


def _ratio_of_each(counts: Floats, alpha: float, pairs: int) -> tuple[Floats, Floats]:
    """Return, for every class, the limits of the smallest ratio of two groups; NaN where there is none."""
    nobody = (counts[:, 1] == 0).any(axis=1) | (counts[:, 0] == 0).all(axis=1)
    if counts.shape[2] < 2:
        return np.full(len(counts), math.nan), np.full(len(counts), math.nan)
    # Where a size is 0 nothing is shown: any number will do.
    safe = np.where((nobody[:, None] & np.array([False, True]))[:, :, None], np.maximum(counts, 1.0), counts)
    each = _pairs(safe)
    low, high = _ratio(*each, alpha)
    inner_low, inner_high = _ratio(*each, alpha / pairs)
    # A ratio and its inverse are one comparison: what lies above 1 is turned round.
    smallest = np.minimum(low, 1 / np.maximum(high, 1e-300))
    largest = np.where(inner_low > 1, 1 / np.maximum(inner_low, 1e-300), np.minimum(inner_high, 1.0))
    least, most = (end.reshape(len(counts), -1).min(axis=1) for end in (smallest, largest))
    return np.where(nobody, math.nan, least), np.where(nobody, math.nan, most)


def _ratio(right: Floats, size: Floats, right_2: Floats, size_2: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return limits of the ratio of two rates of different persons, each at alpha (Donner and Zou 2012)."""
    rate, rate_2 = right / size, right_2 / size_2
    (low, high), (low_2, high_2) = _limits(right, size, alpha), _limits(right_2, size_2, alpha)
    product = rate * rate_2
    below = np.sqrt(product**2 - low * high_2 * (2 * rate - low) * (2 * rate_2 - high_2))
    above = np.sqrt(product**2 - high * low_2 * (2 * rate - high) * (2 * rate_2 - low_2))
    # Nobody in the first group: at least 0. Nobody in the second: no upper limit.
    least = np.divide(low * (2 * rate - low), product + below, out=np.zeros_like(rate), where=low > 0)
    most = np.divide(product + above, low_2 * (2 * rate_2 - low_2), out=np.full_like(rate, np.inf), where=low_2 > 0)
    return least, most

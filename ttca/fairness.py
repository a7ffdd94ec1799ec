"""Subgroup metrics: how much worse a platform serves one group of people than another, and how surely.

Definitions are *published* (they are fairlearn's: difference = max − min over groups, ratio = min / max) and agree
with fairlearn where both are defined. *Ours*: refusals and abstentions, and the flags.

A **refusal** (prediction −1) is an answer: wrong for the accuracy, and a selection of no class. An **abstention**
(prediction −1 with the status *failed*) is no answer: every metric leaves it out, and the coverage says how many.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.answers import Status
from ttca.errors import ConfigError, DataError
from ttca.names import unknown_name
from ttca.renamed import old_names, old_parameters

__all__ = [
    "GroupRates",
    "OneVsRestReport",
    "SubgroupReport",
    "accuracy_by_group",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "directional_disparate_impact",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "group_rates",
    "worst_group_accuracy",
]

Undefined = Literal["nan", "zero"]
Aggregate = Literal["worst", "mean"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_METRICS = (
    "worst_group_accuracy",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_difference_mean",
    "equalized_odds_ratio",
    "equalized_odds_ratio_mean",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
)
# Every metric but these is a difference, and worse when larger.
_WORSE_WHEN_SMALL = {"worst_group_accuracy"} | {name for name in _METRICS if "ratio" in name}

# Columns of a tally: what is counted per group.
_PEOPLE, _RESOLVED, _REFUSED, _CORRECT, _POSITIVE, _SELECTED, _TRUE_POSITIVE = range(7)


# --- rows ---------------------------------------------------------------------------------------------------


def _integers(name: str, values: ArrayLike) -> Integers:
    array = np.asarray(values)
    if not array.size:
        raise DataError(f"Expected at least one person in {name}, got an empty list. Check how the rows were chosen.")
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise DataError(
            f"Expected {name} as whole numbers of shape (N,), got dtype {array.dtype} and shape {array.shape}. "
            "Number the classes from 0; −1 as a prediction is a refusal."
        )
    return array.astype(np.int64)


def _groups(groups: ArrayLike | Sequence[Hashable]) -> tuple[tuple[Hashable, ...], NDArray[np.intp]]:
    """Return the names of the groups, sorted where they can be, and each row's index into them."""
    if isinstance(groups, np.ndarray):
        if groups.ndim != 1:
            raise DataError(
                f"Expected one group per person, got groups of shape {groups.shape}. Name combined groups, "
                "for instance with tuples."
            )
        if groups.dtype.kind in "biuU":
            unique, inverse = np.unique(groups, return_inverse=True)
            return tuple(unique.tolist()), inverse
        labels: list[Any] = groups.tolist()
    else:
        labels = list(cast("Sequence[Hashable]", groups))
    try:
        names: list[Any] = list(dict.fromkeys(labels))
    except TypeError:
        raise DataError("Expected hashable group names, got one that is not. Use strings or tuples.") from None
    if any(isinstance(name, float) and math.isnan(name) for name in names):
        raise DataError(
            "Expected a group for every person, got NaN. Name the group of people whose group is unknown, or drop "
            "their rows."
        )
    if len({str(name) for name in names}) < len(names):
        raise DataError(
            f"Expected group names that look different when printed, got {names}. A report could not tell them apart."
        )
    # Names of different types have no order: they stay as they first appear.
    with suppress(TypeError):
        names = sorted(names)
    position = {name: i for i, name in enumerate(names)}
    return tuple(names), np.fromiter((position[label] for label in labels), np.intp, len(labels))


@dataclass(frozen=True)
class _Rows:
    names: tuple[Hashable, ...]
    group: NDArray[np.intp]
    truth: Integers
    said: Integers
    resolved: NDArray[np.bool_]


def _rows(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    status: ArrayLike | None,
) -> _Rows:
    said = _integers("y_pred", y_pred)
    # Demographic parity does not need the truth; where nobody knows it, zeros stand in that nothing reads.
    truth = np.zeros_like(said) if y_true is None else _integers("y_true", y_true)
    names, group = _groups(groups)
    if not len(truth) == len(said) == len(group):
        raise DataError(
            f"Expected one true class, prediction and group per person, got {len(truth)}, {len(said)} and "
            f"{len(group)}. Pass the rows of the same people."
        )
    if truth.min() < 0:
        # A true class of −1 would make every refusal look right.
        raise DataError("Expected true classes of 0 or more, got a negative one. Number the classes from 0.")
    if said.min() < -1:
        raise DataError(f"Expected predictions of −1 (refused) or more, got {said.min()}. Use −1 for no class.")
    if status is None:
        return _Rows(names, group, truth, said, np.ones(len(said), np.bool_))
    ends = _integers("status", status)
    if len(ends) != len(said):
        raise DataError(f"Expected one status per person, got {len(ends)} for {len(said)}. Pass the same rows.")
    if not np.isin(ends, list(Status)).all():
        raise DataError("Expected every status to be one of ttca.answers.Status, got another. Pass Answers.status.")
    if np.any((ends == Status.ANSWERED) != (said >= 0)):
        raise DataError(
            "Expected a class in every answered row and −1 in every other, got predictions that disagree with "
            "their status. Pass labels and status of the same answers."
        )
    return _Rows(names, group, truth, said, ends != Status.FAILED)


def _tally(rows: _Rows, positive: int) -> Integers:
    """Return counts per group, shape (G, 7)."""
    known, is_positive, selected = rows.resolved, rows.truth == positive, rows.said == positive
    counted = (
        np.ones_like(known),
        known,
        known & (rows.said < 0),
        known & (rows.truth == rows.said),
        known & is_positive,
        known & selected,
        known & is_positive & selected,
    )
    return np.stack([np.bincount(rows.group[each], minlength=len(rows.names)) for each in counted], axis=1)


# --- rates and what is made of them -----------------------------------------------------------------------


def _divide(numerator: NDArray[Any], denominator: NDArray[Any], empty: float = math.nan) -> Floats:
    result = np.full(np.broadcast(numerator, denominator).shape, empty)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


@dataclass(frozen=True)
class _Rates:
    accuracy: Floats
    selection: Floats
    true_positive: Floats
    false_positive: Floats


def _rates(tally: Integers, undefined: Undefined) -> _Rates:
    empty = 0.0 if undefined == "zero" else math.nan
    resolved, positives = tally[:, _RESOLVED], tally[:, _POSITIVE]
    hits, selected = tally[:, _TRUE_POSITIVE], tally[:, _SELECTED]
    rates = (
        _divide(hits, positives, empty),
        _divide(selected - hits, resolved - positives, empty),
    )
    if undefined == "zero":
        # Zero stands for "nobody of this kind"; a group that never got an answer has no rates at all.
        rates = cast("tuple[Floats, Floats]", tuple(np.where(resolved == 0, np.nan, r) for r in rates))
    return _Rates(_divide(tally[:, _CORRECT], resolved), _divide(selected, resolved), *rates)


def _difference(rates: Floats) -> float:
    # max and min carry NaN on: a comparison with an unknown group is unknown.
    return float(rates.max() - rates.min())


def _ratio(rates: Floats) -> float:
    return float(_divide(rates.min(), rates.max()))


def _metrics(rates: _Rates, undefined: Undefined) -> dict[str, float]:
    differences = np.array([_difference(rates.true_positive), _difference(rates.false_positive)])
    ratios = np.array([_ratio(rates.true_positive), _ratio(rates.false_positive)])
    # What an undefined ratio leaves of the two: to fairlearn's minimum the false positives' is no smaller than the
    # true positives', and its mean skips it.
    skip = undefined == "zero" and not np.isnan(ratios).all()
    worst = ratios[0] if skip and np.isnan(ratios[1]) else ratios.min()
    values: tuple[float, ...] = (
        rates.accuracy.min(),
        _difference(rates.selection),
        _ratio(rates.selection),
        differences.max(),
        differences.mean(),
        worst,
        np.nanmean(ratios) if skip else ratios.mean(),
        differences[0],
        ratios[0],
    )
    return {name: float(value) for name, value in zip(_METRICS, values, strict=True)}


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(unknown_name(name, value, allowed, otherwise="Choose one of them."))


def _positive(positive: int) -> int:
    if isinstance(positive, bool) or not isinstance(positive, int | np.integer) or positive < 0:
        raise ConfigError(
            f"Expected positive as a class number of 0 or more, got {positive!r}. Pass the number of the favorable "
            "class."
        )
    return int(positive)


def _index(names: tuple[Hashable, ...], role: str, name: Hashable) -> int:
    if name not in names:
        raise ConfigError(f"Expected {role} to be one of the groups {list(names)}, got {name!r}. Name one of them.")
    return names.index(name)


# --- plain functions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupRates:
    """Rates of every group, in the order of ``groups``.

    Parameters
    ----------
    groups : tuple of hashable, length G
        Names, sorted where they can be.
    people, answered, refused : tuples of int, length G
        People; those resolved (with a class or a refusal); those refused.
    accuracy, selection_rate, true_positive_rate, false_positive_rate : tuples of float, length G
        Over resolved rows. NaN where there is nobody to count.
    no_positives, no_negatives : tuples of bool, length G
        Groups whose true or false positive rate is undefined, whatever stands in for it.
    """

    groups: tuple[Hashable, ...]
    people: tuple[int, ...]
    answered: tuple[int, ...]
    refused: tuple[int, ...]
    accuracy: tuple[float, ...]
    selection_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    false_positive_rate: tuple[float, ...]
    no_positives: tuple[bool, ...]
    no_negatives: tuple[bool, ...]


def _group_rates(names: tuple[Hashable, ...], tally: Integers, rates: _Rates) -> GroupRates:
    return GroupRates(
        names,
        tuple(tally[:, _PEOPLE].tolist()),
        tuple(tally[:, _RESOLVED].tolist()),
        tuple(tally[:, _REFUSED].tolist()),
        tuple(rates.accuracy.tolist()),
        tuple(rates.selection.tolist()),
        tuple(rates.true_positive.tolist()),
        tuple(rates.false_positive.tolist()),
        tuple((tally[:, _POSITIVE] == 0).tolist()),
        tuple((tally[:, _POSITIVE] == tally[:, _RESOLVED]).tolist()),
    )


def group_rates(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
    undefined: Undefined = "nan",
) -> GroupRates:
    """Return accuracy, selection, true and false positive rate of every group.

    Parameters
    ----------
    y_true : integers, shape (N,)
        True classes, 0 or more.
    y_pred : integers, shape (N,)
        Predicted classes, −1 where the platform named none.
    groups : array or sequence of hashable labels, length N
        Whose row it is. A sequence may hold tuples.
    positive : int
        The favorable class; every other one is negative.
    status : integers, shape (N,), optional
        :class:`ttca.answers.Status` of each row. Without it every −1 is a refusal.
    undefined : "nan" or "zero"
        The true (false) positive rate of a group without positives (negatives). ``"zero"`` is fairlearn's choice,
        and of two ratios it then leaves out one of 0/0, as fairlearn does.

    Raises
    ------
    DataError
        If shapes, dtypes, classes or statuses are not as above.
    ConfigError
        If an option is none of those above.

    Notes
    -----
    Rates *published* (as in fairlearn); the treatment of refusals and abstentions *ours*.
    """
    _choice("undefined", undefined, ("nan", "zero"))
    rows = _rows(y_true, y_pred, groups, status)
    tally = _tally(rows, _positive(positive))
    return _group_rates(rows.names, tally, _rates(tally, undefined))


def accuracy_by_group(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    status: ArrayLike | None = None,
) -> dict[Hashable, float]:
    """Return the accuracy of every group over its resolved rows; NaN for a group with none.

    Any number of classes. Parameters and errors as :func:`group_rates`. *Published*.
    """
    rates = group_rates(y_true, y_pred, groups, status=status)
    return dict(zip(rates.groups, rates.accuracy, strict=True))


def worst_group_accuracy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    status: ArrayLike | None = None,
) -> float:
    """Return the smallest accuracy of any group; NaN if some group got no answer at all.

    Any number of classes. Parameters and errors as :func:`group_rates`. *Published*.
    """
    return float(np.min(list(accuracy_by_group(y_true, y_pred, groups, status=status).values())))


def _selection_rates(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    positive: int,
    status: ArrayLike | None,
) -> tuple[tuple[Hashable, ...], Floats]:
    rows = _rows(y_true, y_pred, groups, status)
    return rows.names, _rates(_tally(rows, _positive(positive)), "nan").selection


def demographic_parity_difference(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
) -> float:
    """Return max − min over groups of the share predicted positive. True classes may be None: they change nothing.

    Parameters and errors as :func:`group_rates`. *Published*.
    """
    return _difference(_selection_rates(y_true, y_pred, groups, positive, status)[1])


def demographic_parity_ratio(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
) -> float:
    """Return min / max over groups of the share predicted positive ("disparate impact"); NaN if nobody is.

    True classes may be None: they change nothing. Parameters and errors as :func:`group_rates`. *Published*.
    """
    return _ratio(_selection_rates(y_true, y_pred, groups, positive, status)[1])


def directional_disparate_impact(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    subgroup: Hashable,
    reference: Hashable,
    positive: int = 1,
    status: ArrayLike | None = None,
) -> float:
    """Return P(predicted positive | subgroup) / P(predicted positive | reference).

    Unlike :func:`demographic_parity_ratio` it may exceed 1. NaN where nobody of the reference is predicted
    positive. True classes may be None: they change nothing. Other parameters and errors as :func:`group_rates`;
    ConfigError also if a group is not there.
    *Published* (Feldman et al. 2015, arXiv 1412.3756).
    """
    names, rates = _selection_rates(y_true, y_pred, groups, positive, status)
    return float(_divide(rates[_index(names, "subgroup", subgroup)], rates[_index(names, "reference", reference)]))


def _odds(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    positive: int,
    status: ArrayLike | None,
    undefined: Undefined,
) -> dict[str, float]:
    _choice("undefined", undefined, ("nan", "zero"))
    rows = _rows(y_true, y_pred, groups, status)
    return _metrics(_rates(_tally(rows, _positive(positive)), undefined), undefined)


def equalized_odds_difference(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
    agg: Aggregate = "worst",
    undefined: Undefined = "nan",
) -> float:
    """Return the larger (``agg="mean"``: the mean) of the differences in true and false positive rate.

    NaN where one of the two is. Parameters and errors as :func:`group_rates`. *Published*.
    """
    _choice("agg", agg, ("worst", "mean"))
    name = "equalized_odds_difference" if agg == "worst" else "equalized_odds_difference_mean"
    return _odds(y_true, y_pred, groups, positive, status, undefined)[name]


def equalized_odds_ratio(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
    agg: Aggregate = "worst",
    undefined: Undefined = "nan",
) -> float:
    """Return the smaller (``agg="mean"``: the mean) of the ratios of true and of false positive rates.

    NaN where one of the two is, so also where no group has a false positive (0/0). ``undefined="zero"`` then gives
    what fairlearn does: the other ratio (not so its minimum where that of the true positives is undefined).
    Parameters and errors as :func:`group_rates`. *Published*.
    """
    _choice("agg", agg, ("worst", "mean"))
    name = "equalized_odds_ratio" if agg == "worst" else "equalized_odds_ratio_mean"
    return _odds(y_true, y_pred, groups, positive, status, undefined)[name]


def equal_opportunity_difference(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
    undefined: Undefined = "nan",
) -> float:
    """Return max − min over groups of the true positive rate.

    Parameters and errors as :func:`group_rates`. *Published*.
    """
    return _odds(y_true, y_pred, groups, positive, status, undefined)["equal_opportunity_difference"]


def equal_opportunity_ratio(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | Sequence[Hashable],
    *,
    positive: int = 1,
    status: ArrayLike | None = None,
    undefined: Undefined = "nan",
) -> float:
    """Return min / max over groups of the true positive rate.

    Parameters and errors as :func:`group_rates`. *Published*.
    """
    return _odds(y_true, y_pred, groups, positive, status, undefined)["equal_opportunity_ratio"]


# --- reports -----------------------------------------------------------------------------------------------


@old_parameters(
    equalised_odds_difference="equalized_odds_difference",
    equalised_odds_difference_mean="equalized_odds_difference_mean",
    equalised_odds_ratio="equalized_odds_ratio",
    equalised_odds_ratio_mean="equalized_odds_ratio_mean",
)
@dataclass(frozen=True)
class SubgroupReport:
    """All metrics of one set of predictions, for one favorable class.

    Parameters
    ----------
    positive : int
        The favorable class.
    undefined : "nan" or "zero"
        What stands for the rate of a group without positives or negatives; ``rates`` flags such groups.
    rates : GroupRates
        Counts and rates of every group.
    coverage : float
        Share of people with an answer; the others are in no metric.
    coverage_by_group : tuple of float, length G
        Likewise per group.
    subgroup, reference : hashable or None
        The two groups that the directional numbers compare.
    accuracy_gap : float or None
        Reference accuracy − subgroup accuracy; None without these two groups.
    directional_disparate_impact : float or None
        See :func:`directional_disparate_impact`; None likewise.
    worst_group_accuracy, demographic_parity_difference, demographic_parity_ratio,
    equalized_odds_difference, equalized_odds_difference_mean, equalized_odds_ratio,
    equalized_odds_ratio_mean, equal_opportunity_difference, equal_opportunity_ratio : float
        See the functions of these names; ``_mean`` is ``agg="mean"``.
    """

    positive: int
    undefined: Undefined
    rates: GroupRates
    coverage: float
    coverage_by_group: tuple[float, ...]
    subgroup: Hashable | None
    reference: Hashable | None
    accuracy_gap: float | None
    directional_disparate_impact: float | None
    worst_group_accuracy: float
    demographic_parity_difference: float
    demographic_parity_ratio: float
    equalized_odds_difference: float
    equalized_odds_difference_mean: float
    equalized_odds_ratio: float
    equalized_odds_ratio_mean: float
    equal_opportunity_difference: float
    equal_opportunity_ratio: float

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        groups: ArrayLike | Sequence[Hashable],
        *,
        positive: int = 1,
        subgroup: Hashable | None = None,
        reference: Hashable | None = None,
        status: ArrayLike | None = None,
        undefined: Undefined = "nan",
    ) -> SubgroupReport:
        """Return the report of these predictions.

        Parameters
        ----------
        subgroup, reference : hashable, optional
            Both or neither: the under-served group and the one it is compared with.
        y_true, y_pred, groups, positive, status, undefined
            As in :func:`group_rates`.

        Raises
        ------
        DataError, ConfigError
            As :func:`group_rates`; ConfigError also if only one of subgroup and reference is named, or one of
            them is no group.
        """
        _choice("undefined", undefined, ("nan", "zero"))
        rows = _rows(y_true, y_pred, groups, status)
        return _report(rows, _positive(positive), subgroup, reference, undefined)

    @property
    def groups(self) -> tuple[Hashable, ...]:
        """Names of the groups, length G."""
        return self.rates.groups

    @property
    def accuracy(self) -> dict[Hashable, float]:
        """Accuracy of each group by name."""
        return dict(zip(self.rates.groups, self.rates.accuracy, strict=True))

    @property
    def flagged(self) -> tuple[Hashable, ...]:
        """Groups without positives or without negatives: their odds are undefined."""
        flags = zip(self.rates.groups, self.rates.no_positives, self.rates.no_negatives, strict=True)
        return tuple(name for name, first, second in flags if first or second)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; NaN becomes None, and group names become strings."""
        rates = self.rates
        table = {
            str(name): {
                "people": rates.people[i],
                "answered": rates.answered[i],
                "refused": rates.refused[i],
                "coverage": _number(self.coverage_by_group[i]),
                "accuracy": _number(rates.accuracy[i]),
                "selection_rate": _number(rates.selection_rate[i]),
                "true_positive_rate": _number(rates.true_positive_rate[i]),
                "false_positive_rate": _number(rates.false_positive_rate[i]),
                "no_positives": rates.no_positives[i],
                "no_negatives": rates.no_negatives[i],
            }
            for i, name in enumerate(rates.groups)
        }
        return {
            "positive": self.positive,
            "undefined": self.undefined,
            "coverage": _number(self.coverage),
            "groups": table,
            "subgroup": None if self.subgroup is None else str(self.subgroup),
            "reference": None if self.reference is None else str(self.reference),
            "accuracy_gap": _number(self.accuracy_gap),
            "directional_disparate_impact": _number(self.directional_disparate_impact),
            **{name: _number(getattr(self, name)) for name in _METRICS},
        }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _pair(names: tuple[Hashable, ...], subgroup: Hashable | None, reference: Hashable | None) -> tuple[int, int] | None:
    if subgroup is None and reference is None:
        return None
    if subgroup is None or reference is None:
        raise ConfigError(
            f"Expected both a subgroup and a reference, got {subgroup!r} and {reference!r}. Name both, or neither."
        )
    if subgroup == reference:
        raise ConfigError(
            f"Expected a reference other than the subgroup, got {subgroup!r} for both. Name another group."
        )
    return _index(names, "subgroup", subgroup), _index(names, "reference", reference)


def _directional(rates: _Rates, pair: tuple[int, int]) -> dict[str, float]:
    low, high = pair
    return {
        "accuracy_gap": float(rates.accuracy[high] - rates.accuracy[low]),
        "directional_disparate_impact": float(_divide(rates.selection[low], rates.selection[high])),
    }


def _report(
    rows: _Rows, positive: int, subgroup: Hashable | None, reference: Hashable | None, undefined: Undefined
) -> SubgroupReport:
    tally = _tally(rows, positive)
    rates = _rates(tally, undefined)
    pair = _pair(rows.names, subgroup, reference)
    directional = {} if pair is None else _directional(rates, pair)
    return SubgroupReport(
        positive=positive,
        undefined=undefined,
        rates=_group_rates(rows.names, tally, rates),
        coverage=float(rows.resolved.mean()),
        coverage_by_group=tuple(_divide(tally[:, _RESOLVED], tally[:, _PEOPLE]).tolist()),
        subgroup=subgroup,
        reference=reference,
        accuracy_gap=directional.get("accuracy_gap"),
        directional_disparate_impact=directional.get("directional_disparate_impact"),
        **_metrics(rates, undefined),
    )


@dataclass(frozen=True)
class OneVsRestReport:
    """Metrics of a multi-class platform: each class in turn is the positive one.

    Parameters
    ----------
    classes : tuple of int, length C
        The classes, in order.
    by_class : tuple of SubgroupReport, length C
        The report with that class as the positive one. Accuracies and coverage are the same in all.
    mean, worst : dict of str to float
        Mean and worst over classes of every metric: the largest difference, the smallest ratio. NaN where it
        is NaN for some class; ``defined`` says for how many it is not.
    defined : dict of str to int
        Number of classes for which the metric is defined.
    """

    classes: tuple[int, ...]
    by_class: tuple[SubgroupReport, ...]
    mean: Mapping[str, float]
    worst: Mapping[str, float]
    defined: Mapping[str, int]

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        groups: ArrayLike | Sequence[Hashable],
        *,
        classes: Sequence[int],
        subgroup: Hashable | None = None,
        reference: Hashable | None = None,
        status: ArrayLike | None = None,
        undefined: Undefined = "nan",
    ) -> OneVsRestReport:
        """Return the report of these predictions.

        Parameters
        ----------
        classes : sequence of int
            The classes to go through, each once. They are named rather than read off the rows, so that a class
            nobody was given still counts.
        y_true, y_pred, groups, subgroup, reference, status, undefined
            As in :meth:`SubgroupReport.from_predictions`.

        Raises
        ------
        DataError, ConfigError
            As :meth:`SubgroupReport.from_predictions`; ConfigError also for no classes or a class named twice.
        """
        _choice("undefined", undefined, ("nan", "zero"))
        named = tuple(_positive(c) for c in classes)
        if not named or len(set(named)) != len(named):
            raise ConfigError(
                f"Expected one or more different classes, got {list(classes)}. Pass range(10), for example."
            )
        rows = _rows(y_true, y_pred, groups, status)
        reports = tuple(_report(rows, c, subgroup, reference, undefined) for c in named)
        values = {name: np.array([getattr(r, name) for r in reports]) for name in _METRICS}
        return cls(
            classes=named,
            by_class=reports,
            mean={name: float(v.mean()) for name, v in values.items()},
            worst={name: float(v.min() if name in _WORSE_WHEN_SMALL else v.max()) for name, v in values.items()},
            defined={name: int(np.count_nonzero(~np.isnan(v))) for name, v in values.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; NaN becomes None."""
        return {
            "classes": list(self.classes),
            "by_class": [report.to_dict() for report in self.by_class],
            "mean": {name: _number(value) for name, value in self.mean.items()},
            "worst": {name: _number(value) for name, value in self.worst.items()},
            "defined": dict(self.defined),
        }


__getattr__ = old_names(
    __name__, equalised_odds_difference=equalized_odds_difference, equalised_odds_ratio=equalized_odds_ratio
)

"""The audit: how well each group is served as it is, told from a stated number of pool people, before anybody acts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers, Status
from ttca.drawing import lots, one_each
from ttca.errors import ActionError, ConfigError, DataError
from ttca.fairness import OneVsRestReport
from ttca.frames import frame
from ttca.gap import NO_GAP, WHOSE
from ttca.goals import Design
from ttca.intervals import Span, difference_interval, metric_intervals, rate_interval
from ttca.people import People, units
from ttca.statistics.two_groups import fisher_either_way, mcnemar_either_way, smallest_gap
from ttca.values import Value

__all__ = [
    "AUDIT_FILE",
    "GROUPS",
    "Audit",
    "Comparison",
    "Drawn",
    "Grouping",
    "Heard",
    "ServedGroup",
    "audited",
    "draw_sample",
    "one_of_each",
]

#: Where an action's audit is kept.
AUDIT_FILE = "audit.json"
#: The two groups of every table of people, as they are named everywhere.
GROUPS = ("subgroup", "reference")
#: Of fewer persons nothing is told: it would be what was said of each of them.
_FEWEST_TOLD = 3
#: Of fewer persons a rate says next to nothing, which is said.
_FEW = 10
_ERROR, _POWER = 0.05, 0.8

Rows = NDArray[np.intp]
_Layout: TypeAlias = Design | Literal["alone"]


# --- who is asked ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Drawn(Value):
    """Who is asked: rows of the people, one image of each person and group, and whether the groups share persons.

    Parameters
    ----------
    rows : intp array, shape (N,)
        The subgroup's before the reference's. Paired: row i of both is the same person.
    design : {"disjoint", "paired", "alone"}
        Alone: there is one group only.
    """

    rows: Rows
    design: _Layout


def draw_sample(people: People, number: int, *, seed: int, last: NDArray[np.bool_] | None = None) -> Drawn:
    """Draw so many persons of each group, one image of each, stratified by class.

    Parameters
    ----------
    people : People
        Whose images may be asked about.
    number : int
        Persons of each group; all there are where there are fewer.
    seed : int
    last : bool array, shape (N,), optional
        Whose images are taken when no others of their group are left.

    Raises
    ------
    ConfigError
        If the number is below 1.
    ActionError
        If there is nobody.

    Notes
    -----
    *Ours.* Fewer persons are the first of more persons, so that a larger audit pays for those alone who are new. Few
    others are drawn where somebody leaves or joins (:mod:`ttca.drawing`).
    Whoever shares an image with somebody counts as that person. Paired where at least half of the persons are in both
    groups, who then are compared with themselves; whoever is in both groups otherwise is drawn into one.
    """
    if number < 1:
        raise ConfigError(f"Expected at least 1 person of each group to ask, got {number}. Give a number such as 150.")
    if not len(people):
        raise ActionError(
            "Expected pool people whose unchanged images may be asked about, got nobody. Give the pool more people, or "
            "lower altered and refine. No query was spent."
        )
    who = units(people)

    def of_each(names: NDArray[np.int64], sub: bool) -> Rows:
        rows = np.flatnonzero((people.subgroup == sub) & np.isin(who, names))
        return one_each(people, who, rows, seed=seed, purpose="audit")

    def first(names: NDArray[np.int64], sub: bool) -> Rows:
        rows = _in_turn(people, of_each(names, sub), seed)
        return (rows if last is None else rows[np.argsort(last[rows], kind="stable")])[:number]

    names = {sub: np.unique(who[people.subgroup == sub]) for sub in (True, False)}
    if not len(names[True]) or not len(names[False]):
        only = bool(len(names[True]))
        return Drawn(first(names[only], only), "alone")
    both = np.intersect1d(names[True], names[False])
    if 2 * len(both) >= len(np.union1d(names[True], names[False])):
        mine = first(both, True)
        theirs = of_each(both, False)
        partner = dict(zip(who[theirs].tolist(), theirs.tolist(), strict=True))
        partners = [partner[name] for name in who[mine].tolist()]
        return Drawn(np.concatenate([mine, partners]).astype(np.intp), "paired")
    mine = of_each(both, True)
    into_subgroup = np.isin(both, who[mine[lots(people, seed=seed, purpose="which group")[mine] % 2 == 0]])
    kept = {
        True: np.setdiff1d(names[True], both[~into_subgroup]),
        False: np.setdiff1d(names[False], both[into_subgroup]),
    }
    parts = [first(kept[sub], sub) for sub in (True, False)]
    return Drawn(np.concatenate(parts), "disjoint" if all(len(part) for part in parts) else "alone")


def _in_turn(people: People, drawn: Rows, seed: int) -> Rows:
    """Return these rows in an order of which every beginning has its share of each class."""
    classes, place = people.classes[drawn], np.zeros(len(drawn))
    for label in np.unique(classes).tolist():
        of_class = np.flatnonzero(classes == label)
        place[of_class] = (np.arange(len(of_class)) + np.random.default_rng([seed, label]).random()) / len(of_class)
    return drawn[np.argsort(place, kind="stable")]


def one_of_each(people: People, rows: Rows, *, seed: int) -> Rows:
    """Return one of these rows for each person, at random: persons are what a test counts."""
    return np.sort(one_each(people, units(people), rows, seed=seed, purpose="discovery"))


# --- what was said ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Heard(Value):
    """What a platform said of N images, and what is true of them.

    Parameters
    ----------
    truth : integers, shape (N,)
        True classes, 0 or more.
    said : integers, shape (N,)
        −1 where the platform named none.
    status : int array, shape (N,)
        :class:`ttca.answers.Status` of each.
    persons : str array, shape (N,)
    subgroup : bool array, shape (N,)
    columns : dict of str to str array, shape (N,)
        What other columns say of each image; empty for nothing.

    Raises
    ------
    DataError
        If a class is no whole number, as NaN is none, or a length differs.
    """

    truth: NDArray[np.int64]
    said: NDArray[np.int64]
    status: NDArray[np.int8]
    persons: NDArray[np.str_]
    subgroup: NDArray[np.bool_]
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("truth", "said"):
            kind = np.asarray(getattr(self, name)).dtype
            if kind.kind not in "iu":
                raise DataError(
                    f"Expected {name} as whole numbers, got {kind}. NaN is no class: leave out images whose class "
                    "nobody knows."
                )
        lengths = {len(each) for each in (self.truth, self.said, self.status, self.persons, self.subgroup)}
        lengths |= {len(column) for column in self.columns.values()}
        if len(lengths) != 1:
            raise DataError(f"Expected one value for each image everywhere, got {sorted(lengths)}. Pass the same rows.")
        if len(self.truth) and self.truth.min() < 0:
            raise DataError("Expected true classes of 0 or more, got a negative one. Number the classes from 0.")

    @classmethod
    def of(cls, people: People, answers: Answers, columns: Mapping[str, NDArray[np.str_]]) -> Heard:
        """Return what was said of these people."""
        return cls(people.classes, answers.labels, answers.status, people.persons, people.subgroup, columns)

    def __getitem__(self, rows: NDArray[Any]) -> Heard:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Heard(
            self.truth[rows], self.said[rows], self.status[rows], self.persons[rows], self.subgroup[rows], columns
        )

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Whether the platform answered or refused."""
        return np.asarray(self.status != Status.FAILED)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the platform named the true class; a refusal is a wrong answer."""
        return np.asarray(self.truth == self.said)

    def groupings(self) -> Iterator[tuple[tuple[str, ...], NDArray[np.str_]]]:
        """Yield each way to group the images: its columns, and what they say; empty where one of them says nothing."""
        yield ("group",), np.where(self.subgroup, *GROUPS)
        for name, column in self.columns.items():
            yield (name,), column
        for one, other in combinations(self.columns, 2):
            first, second = self.columns[one], self.columns[other]
            known = (first != "") & (second != "")
            yield (one, other), np.where(known, np.char.add(np.char.add(first, " & "), second), "")


@dataclass(frozen=True, kw_only=True)
class ServedGroup:
    """How one group is served.

    Parameters
    ----------
    name : str
    persons, images : int
        Asked about.
    right, refused : int
        Of those that were answered or refused.
    unanswered : int
        Images that brought no answer; they are in no rate.
    accuracy, refusals : Span or None
        Two-sided 95 % intervals over persons; None where nothing was answered.
    rates : dict
        For each class among the group's, ``selection_rate``, ``true_positive_rate`` and ``false_positive_rate``: the
        rate, or None where it is not defined, and its interval.
    """

    name: str
    persons: int
    images: int
    right: int
    refused: int
    unanswered: int
    accuracy: Span | None
    refusals: Span | None
    rates: Mapping[str, Mapping[str, tuple[float | None, Span | None]]] = field(default_factory=dict, repr=False)

    @property
    def answered(self) -> int:
        """Images that were answered or refused."""
        return self.images - self.unanswered

    @property
    def rate(self) -> float:
        """Share of right answers; NaN where nothing was answered."""
        return self.right / self.answered if self.answered else math.nan

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know before they conclude anything, as sentences."""
        found = []
        if self.persons < _FEW:
            found.append(f"only {self.persons} people: next to nothing follows from so few")
        if self.answered and self.right == self.answered:
            found.append("every answer was right")
        if self.answered and not self.right:
            found.append("no answer was right: is the platform asked in the right way?")
        if self.unanswered:
            found.append(f"{self.unanswered} images brought no answer")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "persons": self.persons,
            "images": self.images,
            "right": self.right,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "accuracy": _told(self.rate, self.accuracy),
            "refusals": _told(self.refused / self.answered if self.answered else math.nan, self.refusals),
            "rates": {c: {name: _told(*rate) for name, rate in rates.items()} for c, rates in self.rates.items()},
            "flags": list(self.flags),
        }


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """One way to group people, each group, and the metrics over the groups.

    Parameters
    ----------
    by : tuple of str
        ``("group",)``, a column, or two columns.
    groups : tuple of ServedGroup
    metrics : dict of str to (float, Span or None)
        Of :mod:`ttca.fairness`, each class against the rest and the worst class counting; NaN where one is not defined.
    unknown : int
        Images of which the columns say nothing.
    untold : int
        Groups of fewer than three persons, of which nothing is told.
    """

    by: tuple[str, ...]
    groups: tuple[ServedGroup, ...]
    metrics: Mapping[str, tuple[float, Span | None]]
    unknown: int
    untold: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "by": list(self.by),
            "groups": [group.to_dict() for group in self.groups],
            "metrics": {name: _told(*value) for name, value in self.metrics.items()},
            "unknown": self.unknown,
            "untold": self.untold,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Whether the subgroup and the reference are served alike.

    Parameters
    ----------
    design : {"disjoint", "paired"}
    persons, others : int
        Whose answers were compared: the subgroup's, and the reference's.
    gap : float
        The reference's rate of right answers less the subgroup's.
    interval : Span
        Of the gap, two-sided, 95 %.
    p : float
        Two-sided, of Fisher's exact test or, for the same persons, McNemar's.
    smallest : float or None
        How large a gap would have been seen with 80 % probability; None where none would have been.
    """

    design: Design
    persons: int
    others: int
    gap: float
    interval: Span
    p: float
    smallest: float | None

    @property
    def shown(self) -> bool:
        """Whether the groups are shown to be served differently."""
        return self.p <= _ERROR

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "interval": [self.interval.low, self.interval.high], "shown": self.shown}

    def told(self) -> str:
        """Return it for people."""
        test = "McNemar's" if self.design == "paired" else "Fisher's"
        span = f"95 % interval {_points(self.interval.low)} to {_points(self.interval.high)} points"
        p = "p < 0.0001" if self.p < 1e-4 else f"p = {self.p:.4f}"
        how = f"{test} exact test, two-sided, {p}"
        if self.shown:
            where = "behind the reference" if self.gap > 0 else "ahead of the reference"
            found = f"The subgroup is {where} by {_points(abs(self.gap))} points"
            if self.gap < 0:
                span = f"95 % interval {_points(-self.interval.high)} to {_points(-self.interval.low)} points"
            return f"{found} ({span}; {how})."
        return (
            f"{NO_GAP[0].upper()}{NO_GAP[1:]}. The reference's lead was {_points(self.gap)} points ({span}; {how}). "
            f"{self.could_see()}"
        )

    def could_see(self) -> str:
        """Return what so many people could have shown."""
        many = f"With {self.persons:,} and {self.others:,} people"
        if self.smallest is None:
            return (
                f"{many} no gap, however large, would have been seen with 80 % probability. Ask more people, or let "
                "more take part."
            )
        return f"{many}, a gap of {_points(self.smallest)} points would have been seen with 80 % probability."


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Parameters
    ----------
    groupings : tuple of Grouping
    comparison : Comparison or None
        None where there is one group only, or one of them got no answer.
    """

    groupings: tuple[Grouping, ...]
    comparison: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        compared = None if self.comparison is None else self.comparison.to_dict()
        return {
            "groupings": [grouping.to_dict() for grouping in self.groupings],
            "comparison": compared,
            "conclusion": self.told(),
            "whose": self.whose(),
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each group: how it is grouped, who was asked, the rate and its
        interval.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return frame(
            [
                {
                    "by": " and ".join(grouping.by),
                    "group": group.name,
                    "persons": group.persons,
                    "images": group.images,
                    "right": group.right,
                    "refused": group.refused,
                    "unanswered": group.unanswered,
                    "rate": group.rate,
                    "low": math.nan if group.accuracy is None else group.accuracy.low,
                    "high": math.nan if group.accuracy is None else group.accuracy.high,
                }
                for grouping in self.groupings
                for group in grouping.groups
            ]
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw how each group is served (:func:`ttca.report.plots.plot_audit`) and return the axes.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from ttca.report.plots import plot_audit

        return plot_audit(self, axes)

    def whose(self) -> str:
        """Return, for people, whose rates these are: those of a later step are other people's."""
        groups = self.groupings[0].groups if self.groupings[0].by == ("group",) else ()
        counted = [f"{group.persons:,} of the {group.name}" for group in groups]
        return WHOSE["audit"].format(people=f"{' and '.join(counted)}, people" if counted else "people")

    def told(self) -> str:
        """Return the conclusion for people."""
        if self.comparison is None and self.groupings[0].untold:
            return (
                f"A group of fewer than {_FEWEST_TOLD} people is compared with nobody: it would tell what was said of "
                "each of them. Ask more people, or let more take part."
            )
        if self.comparison is None:
            return (
                "Only one group got answers, so there is nothing to compare it with. Name whom it is compared with in "
                "the column group, or columns to compare people by in [people]."
            )
        return self.comparison.told()


def audited(heard: Heard, design: _Layout, classes: Sequence[str]) -> Audit:
    """Return what answers say of how each group is served.

    Parameters
    ----------
    heard : Heard
        One image of each person and group (:func:`draw_sample`).
    design : {"disjoint", "paired", "alone"}
    classes : sequence of str
        Names of class 0, 1, …

    Raises
    ------
    DataError
        If there is nobody, or of a class without a name.
    ConfigError
        If there is no such design, or two groups are compared with nobody.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    Metrics are *published* (:mod:`ttca.fairness`), their intervals and the treatment of refusals *ours*.
    """
    if not len(heard):
        raise DataError("Expected answers about at least one person, got none. Ask some people first.")
    if design not in get_args(Design) and (design != "alone" or len(np.unique(heard.subgroup)) > 1):
        raise ConfigError(
            f'Expected the design "paired" or "disjoint", or "alone" for a single group, got {design!r}. draw_sample '
            "says which one it is."
        )
    if (number := int(heard.truth.max())) >= len(classes):
        raise DataError(f"Expected a name for each class up to number {number}, got {len(classes)}. Pass all names.")
    groupings = tuple(_grouping(by, names, heard, classes) for by, names in heard.groupings())
    return Audit(groupings=groupings, comparison=_compared(heard, design))


def _grouping(by: tuple[str, ...], names: NDArray[np.str_], heard: Heard, classes: Sequence[str]) -> Grouping:
    known = names != ""
    found = np.unique(names[known]).tolist()
    persons = {name: len(np.unique(heard.persons[names == name])) for name in found}
    told = [name for name in found if persons[name] >= _FEWEST_TOLD]
    if by == ("group",):
        told.reverse()  # The subgroup is whom it is about.
    groups = tuple(_served_group(name, heard[names == name], classes) for name in told)
    rows = np.isin(names, told) & heard.resolved
    metrics: dict[str, tuple[float, Span | None]] = {}
    if rows.any() and len(np.unique(names[rows])) > 1:
        seen = heard[rows]
        numbers = range(len(classes))
        report = OneVsRestReport.from_predictions(
            seen.truth, seen.said, names[rows], classes=numbers, status=seen.status
        )
        spans = metric_intervals(seen.truth, seen.said, names[rows], classes=numbers, persons=seen.persons)
        metrics = {name: (report.worst[name], span) for name, span in spans.items()}
    return Grouping(by=by, groups=groups, metrics=metrics, unknown=int((~known).sum()), untold=len(found) - len(told))


def _served_group(name: str, heard: Heard, classes: Sequence[str]) -> ServedGroup:
    resolved = heard.resolved
    refused = np.asarray(heard.status == Status.REFUSED)
    seen = heard[resolved]
    rates: dict[str, dict[str, tuple[float | None, Span | None]]] = {}
    for number in np.unique(seen.truth).tolist():
        is_it, said_so = seen.truth == number, seen.said == number
        rates[classes[number]] = {
            "selection_rate": _rate(said_so, seen.persons),
            "true_positive_rate": _rate(said_so[is_it], seen.persons[is_it]),
            "false_positive_rate": _rate(said_so[~is_it], seen.persons[~is_it]),
        }
    return ServedGroup(
        name=name,
        persons=len(np.unique(heard.persons)),
        images=len(heard),
        right=int(seen.right.sum()),
        refused=int(refused.sum()),
        unanswered=int((~resolved).sum()),
        accuracy=_rate(seen.right, seen.persons)[1],
        refusals=_rate(refused[resolved], seen.persons)[1],
        rates=rates,
    )


def _rate(right: NDArray[np.bool_], persons: NDArray[np.str_]) -> tuple[float | None, Span | None]:
    if not len(right):
        return None, None
    return float(right.mean()), rate_interval(right, persons)


def _compared(heard: Heard, design: _Layout) -> Comparison | None:
    ours, theirs = heard[heard.subgroup], heard[~heard.subgroup]
    if design == "paired":
        # Whoever got no answer in one of the two says nothing of the difference.
        both = ours.resolved & theirs.resolved
        ours, theirs = ours[both], theirs[both]
        won, lost = int((ours.right & ~theirs.right).sum()), int((~ours.right & theirs.right).sum())
        p = mcnemar_either_way(won, lost)
        interval = difference_interval(theirs.right, ours.right, paired=True)
    else:
        ours, theirs = ours[ours.resolved], theirs[theirs.resolved]
        p = fisher_either_way(int(ours.right.sum()), len(ours), int(theirs.right.sum()), len(theirs))
        interval = difference_interval(theirs.right, ours.right, paired=False)
    if interval is None or min(len(ours), len(theirs)) < _FEWEST_TOLD:
        return None
    # Half an answer more of each kind: nobody is surely always served right.
    reference = (int(theirs.right.sum()) + 0.5) / (len(theirs) + 1)
    return Comparison(
        design="paired" if design == "paired" else "disjoint",
        persons=len(ours),
        others=len(theirs),
        gap=float(theirs.right.mean() - ours.right.mean()),
        interval=interval,
        p=p,
        smallest=smallest_gap(reference, len(ours), len(theirs), paired=design == "paired", error=_ERROR, power=_POWER),
    )


def _told(value: float | None, span: Span | None) -> dict[str, Any]:
    """Return a number and where it lies, as plain JSON values."""
    known = value is not None and not math.isnan(value)
    low, high = (None, None) if span is None else (span.low, span.high if math.isfinite(span.high) else None)
    return {"value": value if known else None, "low": low, "high": high}


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "\N{MINUS SIGN}")

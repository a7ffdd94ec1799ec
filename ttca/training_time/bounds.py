"""What a collective's success is at least: one collective, several on one platform, and the size that is enough.

One collective is *published* (Gauthier, Bach, Jordan 2025, arXiv 2502.04879). Several collectives, the three tiers of
knowledge, the margin under total variation and the planning are *derived* here: the setting is that of Battiloro et al.
(arXiv 2605.06749 and 2508.19149), whose theorems were not available to us.

All bounds take everybody's record, member or not, as an independent draw from one distribution. Members who are
recruited from one neighbourhood are not that, and then no bound here holds.

R(k) = sqrt(log(1/δ̃) / (2k)); n of N people act; f may be any classifier that is optimal for some P̃ near the P that the
platform trains on, how near being the suboptimality ε.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ConfigError, DataError
from ttca.training_time.margins import Exact, Margins, Sample, Slack, deviation, less_wanted, slack_of
from ttca.training_time.signals import Erasing, Integers, Planting, Strategy, Unplanting

__all__ = [
    "Asked",
    "Collective",
    "GlobalBound",
    "KnownStrategies",
    "Others",
    "Plan",
    "PublishedConflict",
    "Setting",
    "Suboptimality",
    "SuccessBound",
    "Tier",
    "TotalSize",
    "check_people",
    "deviation",
    "erasing_bound",
    "erasing_sizes",
    "every_bound",
    "global_bound",
    "knowledge",
    "margin_needed",
    "plan",
    "planting_bound",
    "shared_bound",
    "shared_erasing_bound",
    "shared_unplanting_bound",
    "unplanting_bound",
]

Floats = NDArray[np.float64]
Suboptimality = Literal["tv", "contamination"]
Tier = Literal["worst", "aggregator", "full"]


def check_people(number: object, what: str, *, least: int = 0) -> None:
    """Raise ConfigError where what should count people does not. *Ours*.

    Parameters
    ----------
    number : object
    what : str
        Who is counted, for people.
    least : int
        The smallest number that is one.
    """
    if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < least:
        raise ConfigError(f"Expected {what} as a whole number of {least} or more, got {number!r}. Count them.")


def margin_needed(epsilon: float, suboptimality: Suboptimality) -> float:
    """Return τ, the margin in P beyond which an ε-suboptimal platform must decide as wanted.

    Parameters
    ----------
    epsilon : float
        In [0, 1).
    suboptimality : {"tv", "contamination"}
        What ε means: the total variation between P̃ and P, or the weight of the foreign part in
        P̃ = (1 − ε)P + εQ.

    Returns
    -------
    float
        2ε, or ε/(1 − ε).

    Raises
    ------
    ConfigError
        If ε is outside [0, 1) or the model of suboptimality has another name.

    Notes
    -----
    ε/(1 − ε) is *published* (for total variation), and exact for contamination. Under total variation it is too small:
    with P = (.60, .40) at one x and ε = .11, P̃ = (.49, .51) is allowed. 2ε is *derived*: moving a mass ε from one label
    to another changes their difference by 2ε, and no more.
    """
    if suboptimality not in get_args(Suboptimality):
        raise ConfigError(
            f"Expected the suboptimality to be one of {get_args(Suboptimality)}, got {suboptimality!r}. Choose one."
        )
    if not 0 <= epsilon < 1:
        raise ConfigError(f"Expected ε within [0, 1), got {epsilon!r}. Give a share of the probability mass.")
    return 2 * epsilon if suboptimality == "tv" else epsilon / (1 - epsilon)


def _weighted(people: int, population: int, amount: Floats) -> Floats:
    # Nobody adds nothing, although R(0) is infinite.
    return (people / population) * amount if people else np.zeros_like(amount)


@dataclass(frozen=True)
class Setting:
    """What all bounds on one platform share.

    Parameters
    ----------
    population : int
        N, all people the platform trains on, 1 or more.
    delta : float
        δ, the chance that a bound may fail, in (0, 1).
    epsilon : float
        ε, in [0, 1): how far from optimal the platform is. 0 is the count argmax.
    suboptimality : {"tv", "contamination"}
        What ε means (:func:`margin_needed`).
    test : int or None
        N_test, the people success is measured on; None bounds the success in the population itself.
    margins : {"hoeffding", "exact"}
        How far a frequency may miss its probability: Hoeffding's R(k), or the exact quantiles of a binomial count for
        the same events (:mod:`ttca.training_time.margins`). Exact ones promise more of rare cells.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Notes
    -----
    *Published*, but for ``suboptimality="tv"`` (*derived*), ``test=None`` (*ours*: R(N_test) tends to 0) and
    ``margins="exact"`` (*ours*).
    """

    population: int
    delta: float = 0.05
    epsilon: float = 0.0
    suboptimality: Suboptimality = "tv"
    test: int | None = None
    margins: Margins = "hoeffding"

    def __post_init__(self) -> None:
        check_people(self.population, "the population", least=1)
        if self.test is not None:
            check_people(self.test, "test people", least=1)
        if not 0 < self.delta < 1:
            raise ConfigError(f"Expected δ strictly between 0 and 1, got {self.delta!r}. Give a rate such as 0.05.")
        margin_needed(self.epsilon, self.suboptimality)
        slack_of(self.margins, self.delta)

    @property
    def margin(self) -> float:
        """τ."""
        return margin_needed(self.epsilon, self.suboptimality)


@dataclass(frozen=True)
class SuccessBound:
    """A lower bound on one collective's success. *Published* (arXiv 2502.04879), its margins *ours*.

    Parameters
    ----------
    value : float
        The bound, in [0, 1]: share − slack, or 0 where that is less.
    share : float
        Share of the collective's people at whose cell the platform must decide as wanted.
    slack : float
        R(n) + R(N_test), or what exact margins take off in their place; infinite where there are no records to go by.
    error : float
        δ̃, the chance given to each of the events that the bound rests on.
    size : int
        n.
    margins : tuple of float
        What is left, in P, after resistance, conflict and τ at each cell of the signal set (at each cell of X for
        erasing): the platform must decide as wanted where it is above 0. −∞ where there are no records to go by.
    """

    value: float
    share: float
    slack: float
    error: float
    size: int
    margins: tuple[float, ...] = field(repr=False)

    @property
    def vacuous(self) -> bool:
        """Whether it says nothing: a success rate is never below 0."""
        return self.value <= 0


def _bound(people: Integers, left: Floats, members: Sample, slack: Slack, setting: Setting) -> SuccessBound:
    """Return the bound of members who are so many ``people`` per cell, where ``left`` is left at each of these."""
    # Whole people over whole people: the share of all of them is exactly 1.
    hit = int(people[left > 0].sum())
    value, off = slack.success(hit, members, setting.test)
    return SuccessBound(max(0.0, value), hit / members.known, off, slack.error, members.size, tuple(left.tolist()))


def _nothing(cells: int, n: int, error: float) -> SuccessBound:
    """Return the bound of people whose records say nothing."""
    return SuccessBound(0.0, 0.0, math.inf, error, n, (-math.inf,) * cells)


def _size(counts: Integers, setting: Setting) -> int:
    n = int(counts.sum())
    if n > setting.population:
        raise DataError(
            f"Expected a collective within the population of {setting.population}, got {n} members. "
            "The population counts members too."
        )
    return n


def _is(strategy: Strategy, kind: type[Any], bound: str) -> None:
    if not isinstance(strategy, kind):
        raise ConfigError(
            f"Expected a strategy of kind {kind.__name__} for {bound}, got {type(strategy).__name__}. "
            "Each goal has a bound of its own."
        )


# --- one collective -----------------------------------------------------------------------------------------


def planting_bound(strategy: Planting, counts: ArrayLike, setting: Setting) -> SuccessBound:
    """Return a lower bound on S = P[f(g(x)) = y*] for the only collective on a platform.

    Parameters
    ----------
    strategy : FeatureLabelPlanting or FeatureOnlyPlanting
    counts : integers, shape (#X, #Y)
        The n members' own records, before they change them.
    setting : Setting

    Returns
    -------
    SuccessBound
        Holds with probability 1 − δ over everybody's records.

    Raises
    ------
    ConfigError
        If the strategy plants nothing.
    DataError
        If counts is no histogram of the domain, or larger than the population.

    Notes
    -----
    *Published* (arXiv 2502.04879): with δ̃ = δ/(2 + 2#X̃ + 2#X̃·#Y),

    S ≥ P_{x~h(D_n)}[(n/N)(P_{h(D_n)}(x) − 2R(n)) − ((N−n)/N)(Δ_x + 2R(n) + 2R(N−n)) − τ > 0] − R(n) − R(N_test),

    Δ_x = max_{y'≠y*}(P_{D_n}(x, y') − P_{D_n}(x, y*)). Feature-only: P_{h(D_n)}(g(x'), y*) in the place of
    P_{h(D_n)}(x), and cells weighted by how many of all members g sends there, because S is about everybody. τ is
    published as ε/(1−ε); see :func:`margin_needed`.
    """
    _is(strategy, Planting, "planting")
    before = strategy.domain.counts(counts)
    n, total = _size(before, setting), setting.population
    cells, target = strategy.signal.cells, strategy.target
    error = setting.delta / (2 + 2 * len(cells) + 2 * len(cells) * strategy.domain.labels)
    if not n:
        return _nothing(len(cells), n, error)
    slack, members, rest = slack_of(setting.margins, error), Sample(before, n), total - n
    own = (n / total) * slack.own(strategy.on_counts(before)[cells, target], members)
    rivals = slack.rivalry(before[cells], np.full(len(cells), target), members, rest)
    base = _weighted(rest, total, np.delete(rivals, target, axis=1).max(axis=1))
    return _bound(strategy.signal.people(before), own - base - setting.margin, members, slack, setting)


def unplanting_bound(
    strategy: Unplanting, counts: ArrayLike, setting: Setting, *, estimators: ArrayLike | None = None
) -> SuccessBound:
    """Return a lower bound on S = P[f(g(x)) ≠ y*] for the only collective on a platform.

    Parameters
    ----------
    strategy : NaiveUnplanting or AdaptiveUnplanting
    counts : integers, shape (#X, #Y)
        Records, before any change, of the n − n_e members who had no part in choosing the replacement labels.
    setting : Setting
    estimators : integers, shape (#X, #Y), optional
        Records of the n_e members from whom they were estimated, and who act as well. None if there are none, as for a
        label that was chosen beforehand.

    Returns
    -------
    SuccessBound

    Raises
    ------
    ConfigError
        If the strategy unplants nothing.
    DataError
        If a histogram does not fit, or both are larger than the population.

    Notes
    -----
    *Published* (arXiv 2502.04879): δ̃ = δ/(2 + 6#X̃), own mass as in :func:`planting_bound`, resistance
    P(x, y*) − P(x, ŷ_x) + 2R(n − n_e) + 2R(N − n), estimated on the n − n_e others, for whom ŷ is a fixed label. That a
    label fixed beforehand is the case n_e = 0 is *derived*. That the share of the last step may be counted on the
    estimators as well is not proved here: the cells that are counted depend on ŷ, and ŷ on them. With
    ``margins="exact"`` it is counted on the others alone, which is (*ours*).
    """
    _is(strategy, Unplanting, "unplanting")
    before = strategy.domain.counts(counts)
    first = np.zeros_like(before) if estimators is None else strategy.domain.counts(estimators, "estimators")
    n, total, free = _size(before + first, setting), setting.population, int(before.sum())
    cells = strategy.signal.cells
    error = setting.delta / (2 + 6 * len(cells))
    if not free:
        return _nothing(len(cells), n, error)
    slack, others, rest = slack_of(setting.margins, error), Sample(before, free), total - n
    after, instead = strategy.on_counts(before + first), strategy.replacements
    own = (n / total) * slack.own(after[cells, instead], Sample(before + first, n))
    rivals = slack.rivalry(before[cells], instead, others, rest)
    base = _weighted(rest, total, rivals[:, strategy.target])
    return _unplanted(strategy, others, first, own - base - setting.margin, slack, setting)


def _unplanted(
    strategy: Unplanting, others: Sample, first: Integers, left: Floats, slack: Slack, setting: Setting
) -> SuccessBound:
    """Return the bound of members of whom ``first`` chose the replacement labels and ``others`` had no part in it."""
    everybody = others.counts + first
    # A share is binomial only among people who did not choose the cells that are counted.
    shared = others.counts if isinstance(slack, Exact) else everybody
    found = _bound(strategy.signal.people(shared), left, Sample(shared, int(shared.sum())), slack, setting)
    return replace(found, size=int(everybody.sum()))


def _erasing_error(strategy: Erasing, setting: Setting, estimated: int = 0) -> float:
    domain, cells = strategy.domain, len(strategy.signal.cells)
    events = 2 + cells * domain.labels + 2 * domain.cells + 2 * domain.cells * domain.labels * (1 + estimated)
    return setting.delta / events


def erasing_sizes(strategy: Erasing, setting: Setting, *, margin: float) -> tuple[int, int] | None:
    """Return between which sizes a collective surely finds the population's most likely labels.

    Parameters
    ----------
    strategy : Erasing
    setting : Setting
    margin : float
        η, in (0, 1]: at every cell of X̃ the most likely label is at least so much more likely, jointly with the cell,
        than any other. An assumption about the population that no data can replace.

    Returns
    -------
    (int, int) or None
        Fewest and most members; None where no size is enough.

    Raises
    ------
    ConfigError
        If the strategy erases nothing or η is out of range.

    Notes
    -----
    *Published* (arXiv 2502.04879): 2·log(1/δ̃)/η² ≤ n ≤ N − 2·log(1/δ̃)/η².
    """
    _is(strategy, Erasing, "erasing")
    if not 0 < margin <= 1:
        raise ConfigError(f"Expected the margin η within (0, 1], got {margin!r}. Give a difference of probabilities.")
    least = 2 * math.log(1 / _erasing_error(strategy, setting)) / margin**2
    fewest, most = math.ceil(least), math.floor(setting.population - least)
    return (fewest, most) if fewest <= most else None


def erasing_bound(strategy: Erasing, counts: ArrayLike, setting: Setting) -> SuccessBound:
    """Return a lower bound on S = P[f(g(x)) = f(x)] for the only collective on a platform.

    Parameters
    ----------
    strategy : Erasing
        Its modes may have been estimated on these same members (:meth:`Erasing.estimated`).
    counts : integers, shape (#X, #Y)
        The n members' own records, before they change them.
    setting : Setting

    Returns
    -------
    SuccessBound

    Raises
    ------
    ConfigError
        If the strategy erases nothing.
    DataError
        If counts is no histogram of the domain, or larger than the population.

    Notes
    -----
    The goal and δ̃ = δ/(2 + #X̃·#Y + 2#X + 2#X·#Y) are *published* (arXiv 2502.04879). The
    inequality is *derived*, because its text was not at hand: f(x) and f(g(x)) are both the label y*_{g(x)} that
    members wrote where the planting inequality, with P_{h(D_n)}(x) and Δ_x about that label, holds both at x and at
    g(x). That is proved for modes that these members' records did not choose: known beforehand, taken from other
    people, or surely the population's (:func:`erasing_sizes`, which needs the margin η of the published theorem). For
    modes that the same members' records chose without a margin it is not: the set of cells whose share is counted
    then depends on the records it is counted on. ``benchmarks multiple_collectives`` counts how often the bound fails
    there.
    """
    _is(strategy, Erasing, "erasing")
    domain = strategy.domain
    before = domain.counts(counts)
    n, total = _size(before, setting), setting.population
    error = _erasing_error(strategy, setting)
    if not n:
        return _nothing(domain.cells, n, error)
    slack, members, rest = slack_of(setting.margins, error), Sample(before, n), total - n
    own = (n / total) * slack.own(before.sum(axis=1), members)
    rivals = slack.rivalry(before, strategy.wanted, members, rest)
    np.put_along_axis(rivals, strategy.wanted[:, None], -np.inf, axis=1)
    left = own - _weighted(rest, total, rivals.max(axis=1)) - setting.margin
    return _bound(before.sum(axis=1), np.minimum(left, left[strategy.signal.map]), members, slack, setting)


# --- several collectives ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Collective:
    """People who act through one strategy.

    Parameters
    ----------
    strategy : Strategy
    counts : int64 array, shape (#X, #Y)
        Their records before they change them.

    Raises
    ------
    DataError
        If counts is no histogram of the strategy's domain.

    Notes
    -----
    *Ours* (D_m and h_m of arXiv 2605.06749).
    """

    strategy: Strategy
    counts: Integers

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", self.strategy.domain.counts(self.counts))

    @property
    def size(self) -> int:
        """n_m."""
        return int(self.counts.sum())


class Others(ABC):
    """What one collective knows of all the others. *Derived* (after arXiv 2605.06749)."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many people act in other collectives."""

    @abstractmethod
    def events(self, cells: int, labels: int) -> int:
        """Return among how many events δ is shared for a planting collective, so that δ̃ = δ/events."""

    def estimated(self) -> int:
        """Return of how many other collectives the conflict is estimated, by events of their own; 0 if of none."""
        return 0

    @abstractmethod
    def conflict(self, asked: Asked, members: Sample, slack: Slack, population: int) -> Floats | float:
        """Return what others add to each label, less what they add to the wanted one; shape (k, #Y) or a number.

        Parameters
        ----------
        asked : Asked
            Where, and which labels are wanted there.
        members : Sample
            Of the asking collective, before any change.
        slack : Slack
            How far to trust their frequencies, at δ̃.
        population : int
            N.
        """


@dataclass(frozen=True, eq=False)
class Asked:
    """About which cells a collective asks for its conflict, and which label it wants at each.

    Parameters
    ----------
    strategy : Strategy
        Its own.
    cells : int64 array, shape (k,)
        X̃ for planting and unplanting, all of X for erasing.
    wanted : int64 array, shape (k,)
        y* for planting, ŷ for unplanting, the mode y*_{g(x)} for erasing.

    Notes
    -----
    *Ours*.
    """

    strategy: Strategy
    cells: Integers
    wanted: Integers

    @classmethod
    def by(cls, strategy: Strategy) -> Asked:
        """Return what a strategy asks; ConfigError if there is no bound for it among several collectives."""
        if isinstance(strategy, Planting):
            cells = strategy.signal.cells
            return cls(strategy, cells, np.full(len(cells), strategy.target, np.int64))
        if isinstance(strategy, Unplanting):
            return cls(strategy, strategy.signal.cells, strategy.replacements)
        if isinstance(strategy, Erasing):
            return cls(strategy, np.arange(strategy.domain.cells), strategy.wanted)
        raise ConfigError(
            f"Expected a strategy that plants, unplants or erases, got {type(strategy).__name__}. There is no bound "
            "for other strategies among several collectives."
        )

    def less_wanted(self, table: NDArray[Any]) -> NDArray[Any]:
        """Return each row of a table of shape (k, #Y) less its entry at the wanted label."""
        return less_wanted(table, self.wanted)


def _single_events(cells: int, labels: int) -> int:
    return 2 + 2 * cells + 2 * cells * labels


def _people_of_others(size: int) -> None:
    check_people(size, "people in other collectives")


@dataclass(frozen=True)
class TotalSize(Others):
    """The tier *worst*: only how many others act. All of them may plant the worst rival label at every cell.

    Parameters
    ----------
    people : int
        0 or more.

    Raises
    ------
    ConfigError
        If it is negative.

    Notes
    -----
    *Derived* (after arXiv 2605.06749): conflict = Σ_{j≠m} n_j/N.
    """

    people: int

    def __post_init__(self) -> None:
        _people_of_others(self.people)

    @property
    def size(self) -> int:
        """How many people act in other collectives."""
        return self.people

    def events(self, cells: int, labels: int) -> int:
        """Return 2 + 2#X̃ + 2#X̃·#Y, as for one collective."""
        return _single_events(cells, labels)

    def conflict(self, asked: Asked, members: Sample, slack: Slack, population: int) -> float:
        """Return Σ_{j≠m} n_j/N, whatever the cell and the label."""
        return self.people / population


@dataclass(frozen=True, eq=False)
class PublishedConflict(Others):
    """The tier *aggregator*: a trusted party who saw all records publishes the conflict term, and nothing else.

    Parameters
    ----------
    people : int
        How many people act in other collectives.
    term : float64 array, shape (#X̃, #Y)
        Σ_{j≠m} (n_j/N)(P_{h_j(D_j)}(x, y') − P_{h_j(D_j)}(x, y*)), rows in the order of ``Signal.cells``. The column
        of the target is 0. For unplanting y* is the label to push out, for erasing the mode of each cell, and the rows
        are all of X: differences to another label of the same cell are differences of two columns.

    population : int, optional
        N, of which the term is a share; None where nobody said.

    Raises
    ------
    ConfigError
        If ``people`` or ``population`` counts nobody.
    DataError
        If the term is no finite table.

    Notes
    -----
    *Derived* (after arXiv 2605.06749). It needs no slack: it is about the very records the platform trains on.
    """

    people: int
    term: Floats
    population: int | None = None

    def __post_init__(self) -> None:
        _people_of_others(self.people)
        if self.population is not None:
            check_people(self.population, "the population", least=1)
        table = np.asarray(self.term, dtype=np.float64)
        if table.ndim != 2 or not np.isfinite(table).all():
            raise DataError(
                f"Expected a finite conflict term of shape (#X̃, #Y), got shape {table.shape}. Ask the aggregator again."
            )
        object.__setattr__(self, "term", table)

    @classmethod
    def of(cls, strategy: Strategy, others: Sequence[Collective], population: int) -> PublishedConflict:
        """Return what the trusted party publishes for one collective.

        Parameters
        ----------
        strategy : Strategy
            Of the collective it is for: it plants, unplants or erases.
        others : sequence of Collective
            All others.
        population : int
            N.

        Raises
        ------
        ConfigError
            If strategies have different domains, or the strategy neither plants nor unplants nor erases.

        Notes
        -----
        *Derived* (after arXiv 2605.06749).
        """
        asked = Asked.by(strategy)
        _same_domain(strategy, [other.strategy for other in others])
        # Whole people until the last step, so that the order of the collectives changes nothing.
        after = np.zeros((len(asked.cells), strategy.domain.labels), np.int64)
        for other in others:
            after += other.strategy.on_counts(other.counts)[asked.cells]
        return cls(sum(other.size for other in others), asked.less_wanted(after) / population, population)

    @property
    def size(self) -> int:
        """How many people act in other collectives."""
        return self.people

    def events(self, cells: int, labels: int) -> int:
        """Return 2 + 2#X̃ + 2#X̃·#Y, as for one collective."""
        return _single_events(cells, labels)

    def conflict(self, asked: Asked, members: Sample, slack: Slack, population: int) -> Floats:
        """Return the published term; DataError if it was published for another signal or population."""
        if self.population not in (None, population):
            raise DataError(
                f"Expected a conflict term for a population of {population}, got one for {self.population}. Use the "
                "population that the trusted party was told, or ask for another file."
            )
        if self.term.shape != (len(asked.cells), asked.strategy.domain.labels):
            raise DataError(
                f"Expected a conflict term of shape {(len(asked.cells), asked.strategy.domain.labels)}, got "
                f"{self.term.shape}. It was published for another signal. Ask the aggregator for the one of this "
                "signal."
            )
        return asked.less_wanted(self.term)


@dataclass(frozen=True, eq=False)
class KnownStrategies(Others):
    """The tier *full*: sizes and strategies of all others, not their records.

    Parameters
    ----------
    strategies : tuple of Strategy
        h_j.
    sizes : tuple of int
        n_j, 0 or more each.

    Raises
    ------
    ConfigError
        If they do not match.

    Notes
    -----
    *Derived* (after arXiv 2605.06749): what h_j makes of the collective's own records stands in for what it makes of
    theirs, Σ_{j≠m} (n_j/N)·min(1, P_{h_j(D_m)}(x, y') − P_{h_j(D_m)}(x, y*) + 2R(n_m) + 2R(n_j)), and δ is shared among
    2 + 2#X̃(1 + #Y)(M + 1) events. No collective is worse than the tier *worst* takes it to be: at the same δ̃ this
    bound is never below that one's. Counted one by one they are 2 + 2#X̃(1 + M·#Y), so that the bound is a little more
    careful than it must be. Where there are no others there is nothing to estimate, and δ̃ is that of one collective.
    """

    strategies: tuple[Strategy, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.strategies) != len(self.sizes):
            raise ConfigError(
                f"Expected a size for each strategy, got {len(self.sizes)} for {len(self.strategies)}. Give both."
            )
        for size in self.sizes:
            _people_of_others(size)

    @property
    def size(self) -> int:
        """How many people act in other collectives."""
        return sum(self.sizes)

    def events(self, cells: int, labels: int) -> int:
        """Return 2 + 2#X̃(1 + #Y)(M + 1) for M ≥ 2 collectives, and the single collective's for one."""
        if not self.strategies:
            return _single_events(cells, labels)
        return 2 + 2 * cells * (1 + labels) * (len(self.strategies) + 2)

    def estimated(self) -> int:
        """Return the number of other collectives."""
        return len(self.strategies)

    def conflict(self, asked: Asked, members: Sample, slack: Slack, population: int) -> Floats:
        """Return the estimate of the conflict with its slack; ConfigError if domains differ."""
        _same_domain(asked.strategy, self.strategies)
        found = np.zeros((len(asked.cells), asked.strategy.domain.labels))
        for other, size in zip(self.strategies, self.sizes, strict=True):
            rivals = slack.rivalry(other.on_counts(members.counts)[asked.cells], asked.wanted, members, size)
            # All of them may plant one rival label, and no more than all.
            found += _weighted(size, population, np.minimum(rivals, 1.0))
        return found


def _same_domain(strategy: Strategy, others: Sequence[Strategy]) -> None:
    for other in others:
        if other.domain != strategy.domain:
            raise ConfigError(
                f"Expected strategies of one domain, got {strategy.domain} and {other.domain}. All collectives on a "
                "platform must number its features and labels in the same way."
            )


def knowledge(collectives: Sequence[Collective], index: int, tier: Tier, population: int) -> Others:
    """Return what one of several collectives knows of the others in a tier.

    Parameters
    ----------
    collectives : sequence of Collective
    index : int
        Which one asks.
    tier : {"worst", "aggregator", "full"}
    population : int
        N.

    Raises
    ------
    ConfigError
        If there is no such tier or collective, or the strategies do not fit together.

    Notes
    -----
    *Derived* (after arXiv 2605.06749).
    """
    if not 0 <= index < len(collectives):
        raise ConfigError(
            f"Expected the index of one of {len(collectives)} collectives, from 0, got {index!r}. Name which one asks."
        )
    others = [c for i, c in enumerate(collectives) if i != index]
    if tier == "worst":
        return TotalSize(sum(other.size for other in others))
    if tier == "aggregator":
        return PublishedConflict.of(collectives[index].strategy, others, population)
    if tier == "full":
        return KnownStrategies(tuple(o.strategy for o in others), tuple(o.size for o in others))
    raise ConfigError(f"Expected the tier to be one of {get_args(Tier)}, got {tier!r}. Choose one.")


def shared_bound(strategy: Planting, counts: ArrayLike, others: Others, setting: Setting) -> SuccessBound:
    """Return a lower bound on S_m = P[f(g_m(x)) = y*_m] for one of several collectives on a platform.

    Parameters
    ----------
    strategy : FeatureLabelPlanting or FeatureOnlyPlanting
    counts : integers, shape (#X, #Y)
        The n_m members' own records, before they change them.
    others : TotalSize, PublishedConflict or KnownStrategies
        What is known of the other collectives.
    setting : Setting

    Returns
    -------
    SuccessBound
        Without others it is :func:`planting_bound` to the last digit.

    Raises
    ------
    ConfigError
        If the strategy plants nothing, or domains differ.
    DataError
        If counts does not fit, or all collectives together are larger than the population.

    Notes
    -----
    *Derived* (after arXiv 2605.06749): with P = (n_0/N)P_{D_0} + Σ_m (n_m/N)P_{h_m(D_m)} and for x ∈ X̃_m, y' ≠ y*_m,

    S_m ≥ P_{x~h_m(D_m)}[min_{y'}(own − base − conflict) − τ > 0] − R(n_m) − R(N_test),

    own = (n_m/N)(P_{h_m(D_m)}(x) − 2R(n_m)),
    base = (n_0/N)(P_{D_m}(x, y') − P_{D_m}(x, y*_m) + 2R(n_m) + 2R(n_0)); the conflict is that of ``others``.
    """
    _is(strategy, Planting, "several collectives")
    before = strategy.domain.counts(counts)
    return _shared(strategy, before, _size(before, setting), others, setting)


def _rest(n: int, others: Others, setting: Setting) -> int:
    """Return n_0, how many people take part in no collective."""
    rest = setting.population - n - others.size
    if rest < 0:
        raise DataError(
            f"Expected all collectives within the population of {setting.population}, got {n} members and "
            f"{others.size} others. The population counts all of them."
        )
    return rest


def shared_unplanting_bound(
    strategy: Unplanting,
    counts: ArrayLike,
    others: Others,
    setting: Setting,
    *,
    estimators: ArrayLike | None = None,
) -> SuccessBound:
    """Return a lower bound on S_m = P[f(g_m(x)) ≠ y*_m] for one of several collectives on a platform.

    Parameters
    ----------
    strategy : NaiveUnplanting or AdaptiveUnplanting
    counts, estimators : integers, shape (#X, #Y)
        As in :func:`unplanting_bound`.
    others : TotalSize, PublishedConflict or KnownStrategies
        What is known of the other collectives, whatever they do.
    setting : Setting

    Returns
    -------
    SuccessBound
        Without others it is :func:`unplanting_bound` to the last digit.

    Raises
    ------
    ConfigError
        If the strategy unplants nothing, or domains differ.
    DataError
        If counts does not fit, or all collectives together are larger than the population.

    Notes
    -----
    *Derived* (after arXiv 2502.04879 and 2605.06749). f(x) ≠ y* wherever P(x, ŷ_x) − P(x, y*) > τ, and ŷ_x is a fixed
    label to everybody but the estimators. So the rival is y* alone, with P as in :func:`shared_bound`:

    S_m ≥ P_{x~h_m(D_m)}[own − base − conflict − τ > 0] − R(n_m) − R(N_test),

    own = (n_m/N)(P_{h_m(D_m)}(x, ŷ_x) − 2R(n_m)), base = (n_0/N)(P_{D_m}(x, y*) − P_{D_m}(x, ŷ_x) + 2R(n_m − n_e) +
    2R(n_0)), the conflict what others add to y* less what they add to ŷ_x. Tiers *worst* and *aggregator* need no
    event beyond the single bound's, because they are about the very records the platform trains on: δ̃ = δ/(2 + 6#X̃).
    *full* estimates each other's part from D_m and pays for it with two events more per cell and collective,
    counted as six: δ̃ = δ/(2 + 6#X̃·M). There the strategies of others must not have been chosen by these records.
    As for :func:`unplanting_bound`, it is not proved that the share may be counted on the estimators as well.
    """
    _is(strategy, Unplanting, "unplanting")
    before = strategy.domain.counts(counts)
    first = np.zeros_like(before) if estimators is None else strategy.domain.counts(estimators, "estimators")
    n, total, free = _size(before + first, setting), setting.population, int(before.sum())
    rest, cells = _rest(n, others, setting), strategy.signal.cells
    error = setting.delta / (2 + 6 * len(cells) * (1 + others.estimated()))
    if not free:
        return _nothing(len(cells), n, error)
    slack, members = slack_of(setting.margins, error), Sample(before, free)
    after, instead = strategy.on_counts(before + first), strategy.replacements
    own = (n / total) * slack.own(after[cells, instead], Sample(before + first, n))
    base = _weighted(rest, total, slack.rivalry(before[cells], instead, members, rest)[:, strategy.target])
    conflict = others.conflict(Asked.by(strategy), members, slack, total)
    against = conflict if isinstance(conflict, float) else conflict[:, strategy.target]
    return _unplanted(strategy, members, first, own - base - against - setting.margin, slack, setting)


def shared_erasing_bound(strategy: Erasing, counts: ArrayLike, others: Others, setting: Setting) -> SuccessBound:
    """Return a lower bound on S_m = P[f(g_m(x)) = f(x)] for one of several collectives on a platform.

    Parameters
    ----------
    strategy : Erasing
        Its modes known beforehand or from other people; see the notes of :func:`erasing_bound`.
    counts : integers, shape (#X, #Y)
        The n_m members' own records, before they change them.
    others : TotalSize, PublishedConflict or KnownStrategies
        What is known of the other collectives, whatever they do. A published term must cover all of X, and so tells
        far more of the others than one for a signal set.
    setting : Setting

    Returns
    -------
    SuccessBound
        Without others it is :func:`erasing_bound` to the last digit.

    Raises
    ------
    ConfigError
        If the strategy erases nothing, or domains differ.
    DataError
        If counts does not fit, or all collectives together are larger than the population.

    Notes
    -----
    *Derived* (after arXiv 2502.04879 and 2605.06749): the inequality of :func:`shared_bound` with the mode y*_{g(x)} in
    the place of y*, asked for at x and at g(x). *worst* and *aggregator* need no event beyond the single bound's,
    *full* 2#X·#Y more per other collective: δ̃ = δ/(2 + #X̃·#Y + 2#X + 2#X·#Y·M).
    """
    _is(strategy, Erasing, "erasing")
    domain = strategy.domain
    before = domain.counts(counts)
    n, total = _size(before, setting), setting.population
    rest = _rest(n, others, setting)
    error = _erasing_error(strategy, setting, others.estimated())
    if not n:
        return _nothing(domain.cells, n, error)
    asked, slack, members = Asked.by(strategy), slack_of(setting.margins, error), Sample(before, n)
    own = (n / total) * slack.own(before.sum(axis=1), members)
    base = _weighted(rest, total, slack.rivalry(before, asked.wanted, members, rest))
    against = base + others.conflict(asked, members, slack, total)
    np.put_along_axis(against, asked.wanted[:, None], -np.inf, axis=1)
    left = own - against.max(axis=1) - setting.margin
    return _bound(before.sum(axis=1), np.minimum(left, left[strategy.signal.map]), members, slack, setting)


def _shared(strategy: Planting, before: Integers, n: int, others: Others, setting: Setting) -> SuccessBound:
    """Return the bound for n members whose records are distributed as those in ``before``."""
    total, cells, target = setting.population, strategy.signal.cells, strategy.target
    rest = _rest(n, others, setting)
    error = setting.delta / others.events(len(cells), strategy.domain.labels)
    if not n or not before.any():
        return _nothing(len(cells), n, error)
    asked, slack, members = Asked.by(strategy), slack_of(setting.margins, error), Sample(before, n)
    own = (n / total) * slack.own(strategy.on_counts(before)[cells, target], members)
    base = _weighted(rest, total, slack.rivalry(before[cells], asked.wanted, members, rest))
    left = own[:, None] - base - others.conflict(asked, members, slack, total)
    worst = np.delete(left, target, axis=1).min(axis=1)
    return _bound(strategy.signal.people(before), worst - setting.margin, members, slack, setting)


def every_bound(collectives: Sequence[Collective], tier: Tier, setting: Setting) -> tuple[SuccessBound, ...]:
    """Return :func:`shared_bound` for every collective on a platform, each failing with a chance of δ.

    Parameters
    ----------
    collectives : sequence of Collective
        One or more; all plant.
    tier : {"worst", "aggregator", "full"}
    setting : Setting

    Raises
    ------
    ConfigError, DataError
        As :func:`shared_bound` and :func:`knowledge`.

    Notes
    -----
    *Derived* (after arXiv 2605.06749).
    """
    found = []
    for index, one in enumerate(collectives):
        _is(one.strategy, Planting, "several collectives")
        others = knowledge(collectives, index, tier, setting.population)
        found.append(shared_bound(cast("Planting", one.strategy), one.counts, others, setting))
    return tuple(found)


@dataclass(frozen=True)
class GlobalBound:
    """A lower bound on the success of all collectives together. *Derived* (after arXiv 2605.06749).

    Parameters
    ----------
    weighted : float
        On Σ_m (n_m/Σn_j)·S_m, the success of an average member.
    least : float
        On min_m S_m, the success of the worst-off collective.
    each : tuple of SuccessBound
        Each collective's bound at δ/M, which they rest on.
    """

    weighted: float
    least: float
    each: tuple[SuccessBound, ...]


def global_bound(collectives: Sequence[Collective], tier: Tier, setting: Setting) -> GlobalBound:
    """Return lower bounds that hold for all collectives at once with probability 1 − δ.

    Parameters
    ----------
    collectives : sequence of Collective
        One or more, not all of them empty.
    tier : {"worst", "aggregator", "full"}
    setting : Setting

    Raises
    ------
    ConfigError
        If there is no collective or nobody in any, or as :func:`every_bound`.
    DataError
        As :func:`every_bound`.

    Notes
    -----
    *Derived* (after arXiv 2605.06749): each at δ/M, by the union bound.
    """
    people = sum(one.size for one in collectives)
    if not people:
        raise ConfigError(
            f"Expected collectives with members, got {len(collectives)} without any. Leave out empty collectives."
        )
    stricter = replace(setting, delta=setting.delta / len(collectives))
    each = every_bound(collectives, tier, stricter)
    # Divided last: one collective's weighted bound is then its own, digit for digit.
    weighted = sum(bound.size * bound.value for bound in each) / people if len(each) > 1 else each[0].value
    return GlobalBound(weighted, min(bound.value for bound in each), each)


# --- planning -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The smallest collective that guarantees a wanted success. *Derived*.

    Parameters
    ----------
    wanted : float
        The success asked for.
    size : int or None
        Fewest members; None where even everybody who is in no other collective would not do.
    bound : SuccessBound
        The bound at that size, or with everybody.
    """

    wanted: float
    size: int | None
    bound: SuccessBound


def plan(strategy: Planting, pilot: ArrayLike, others: Others, setting: Setting, *, wanted: float) -> Plan:
    """Return the smallest collective whose bound reaches a wanted success, given what is known of the others.

    Parameters
    ----------
    strategy : FeatureLabelPlanting or FeatureOnlyPlanting
    pilot : integers, shape (#X, #Y)
        Unchanged records of some people who would join, one or more. The plan takes the members' records to be
        distributed as these; the guarantee itself is :func:`shared_bound` on the records of those who did join.
    others : TotalSize, PublishedConflict or KnownStrategies
    setting : Setting
    wanted : float
        In (0, 1].

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If ``wanted`` is out of range, the strategy plants nothing, or domains differ.
    DataError
        If the pilot is empty or does not fit, or the others are more than the population.

    Notes
    -----
    *Derived*. Those who join differ a little from the pilot. At exactly this size chance decides, so recruit more.
    With the shares held, the bound never falls as n grows: own mass displaces base at least as fast as base
    can have favored the target (P_h(x) ≥ P(x, y*) on X̃, because g leaves X̃ as it is), and
    n·R(n) + n_0·R(n) + n_0·R(n_0) falls for n_0 = N − n − others. So bisection finds the smallest size.
    """
    _is(strategy, Planting, "planning")
    if not 0 < wanted <= 1:
        raise ConfigError(f"Expected a wanted success within (0, 1], got {wanted!r}. Give a share.")
    before = strategy.domain.counts(pilot, "the pilot")
    most = setting.population - others.size
    if not before.any() or most < 0:
        raise DataError(
            f"Expected a pilot of one person or more, and others within the population of {setting.population}, got "
            f"{int(before.sum())} and {others.size}. Ask a few people who would join for their records."
        )

    def at(n: int) -> SuccessBound:
        return _shared(strategy, before, n, others, setting)

    size = bisect.bisect_left(range(most + 1), True, key=lambda n: at(n).value >= wanted)
    if size > most:
        return Plan(wanted, None, at(most))
    return Plan(wanted, size, at(size))

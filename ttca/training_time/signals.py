"""What members of a collective change in their own records before a platform retrains: signals and strategies.

Records are categorical. A :class:`Domain` numbers every combination of features (a *cell*), so that a strategy is a
table from (cell, label) to (cell, label): applying it to 200,000 rows is one look-up, and applying it to a histogram
one ``bincount``. Planting, unplanting and erasing are *published* (Gauthier, Bach, Jordan 2025, arXiv 2502.04879);
the tables and their composition are *ours*.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttca.errors import ConfigError, DataError
from ttca.values import OneLine

__all__ = [
    "AdaptiveUnplanting",
    "Chain",
    "Domain",
    "Erasing",
    "FeatureLabelPlanting",
    "FeatureOnlyPlanting",
    "NaiveUnplanting",
    "Planting",
    "Records",
    "Signal",
    "Strategy",
    "Unplanting",
    "act",
]

Integers = NDArray[np.int64]

_MOST_PAIRS = 50_000_000
"""Pairs of cell and label a strategy's table may have: 400 MB of int64."""


def _label_per_cell(signal: Signal, name: str, labels: ArrayLike, maker: str) -> Integers:
    """Return one label for each cell of a signal set, checked; ``maker`` is what makes such labels."""
    known = _whole(name, labels, below=signal.domain.labels, what="labels")
    if known.shape != signal.cells.shape:
        raise DataError(
            f"Expected {name} with one label per cell of the signal set, shape {signal.cells.shape}, got "
            f"{known.shape}. Use {maker}."
        )
    return known


def _whole(name: str, values: ArrayLike, *, below: int, what: str) -> Integers:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DataError(f"Expected {name} as whole numbers, got dtype {array.dtype}. Number the {what} from 0.")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= below):
        raise DataError(
            f"Expected {name} within 0..{below - 1}, got {int(array.min())}..{int(array.max())}. "
            f"Number the {what} from 0, or describe them all in the domain."
        )
    return array.astype(np.int64)


@dataclass(frozen=True)
class Domain:
    """The finite sets X of feature combinations and Y of labels.

    Parameters
    ----------
    levels : tuple of int
        Number of values of each feature, 1 or more each.
    labels : int
        Number of labels, 2 or more.

    Raises
    ------
    ConfigError
        If there is no feature, a number is too small, or X×Y is too large for a table.

    Notes
    -----
    *Published*: X×Y finite (arXiv 2502.04879). The numbering is numpy's C order: *ours*.
    """

    levels: tuple[int, ...]
    labels: int

    def __post_init__(self) -> None:
        if not self.levels or any(type(n) is not int or n < 1 for n in self.levels):
            raise ConfigError(
                f"Expected one whole number of 1 or more per feature, got levels {self.levels!r}. "
                "Say how many values each feature has."
            )
        if type(self.labels) is not int or self.labels < 2:
            raise ConfigError(f"Expected 2 labels or more, got {self.labels!r}. With one label nothing can change.")
        if math.prod(self.levels) * self.labels > _MOST_PAIRS:
            raise ConfigError(
                f"Expected at most {_MOST_PAIRS} pairs of features and label, got "
                f"{math.prod(self.levels) * self.labels}. Leave out features, or make them coarser."
            )

    @property
    def cells(self) -> int:
        """#X, the number of feature combinations."""
        return math.prod(self.levels)

    def encode(self, features: ArrayLike) -> Integers:
        """Return the cell of each row.

        Parameters
        ----------
        features : integers, shape (N, d)
            Value of each feature, numbered from 0.

        Returns
        -------
        int64 array, shape (N,)

        Raises
        ------
        DataError
            If the shape, the dtype or a value does not fit the domain.

        Notes
        -----
        *Ours*.
        """
        rows = np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != len(self.levels):
            raise DataError(
                f"Expected features of shape (N, {len(self.levels)}), got {rows.shape}. Pass one column per feature."
            )
        columns = [
            _whole(f"feature {i}", rows[:, i], below=n, what="values of each feature")
            for i, n in enumerate(self.levels)
        ]
        return np.ravel_multi_index(tuple(columns), self.levels).astype(np.int64)

    def decode(self, cells: ArrayLike) -> Integers:
        """Return the features of each cell: the inverse of :meth:`encode`.

        Parameters
        ----------
        cells : integers, shape (N,)

        Returns
        -------
        int64 array, shape (N, d)

        Raises
        ------
        DataError
            If a cell is outside 0..#X − 1.

        Notes
        -----
        *Ours*.
        """
        known = _whole("cells", cells, below=self.cells, what="cells")
        return np.stack(np.unravel_index(known, self.levels), axis=-1).astype(np.int64)

    def counts(self, values: ArrayLike, name: str = "counts") -> Integers:
        """Return a histogram over X×Y after checking that it is one.

        Parameters
        ----------
        values : integers, shape (#X, #Y)
            People per cell and label, 0 or more.
        name : str
            What the error calls it.

        Returns
        -------
        int64 array, shape (#X, #Y)

        Raises
        ------
        DataError
            If the shape or dtype differs, or a count is negative.

        Notes
        -----
        *Ours*.
        """
        table = np.asarray(values)
        if table.shape != (self.cells, self.labels) or table.dtype.kind not in "iu" or (table < 0).any():
            raise DataError(
                f"Expected {name} as whole numbers of 0 or more, shape {(self.cells, self.labels)}, got dtype "
                f"{table.dtype} and shape {table.shape}. Count people with Records.counts()."
            )
        return table.astype(np.int64)

    def label(self, value: int, name: str = "the target label") -> int:
        """Return a label after checking it; ConfigError if it is none of 0..#Y − 1. *Ours*."""
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 <= value < self.labels:
            raise ConfigError(f"Expected {name} within 0..{self.labels - 1}, got {value!r}. Number labels from 0.")
        return int(value)


@dataclass(frozen=True, eq=False, repr=False)
class Records(OneLine):
    """People's records.

    Parameters
    ----------
    domain : Domain
    cells : int64 array, shape (N,)
        Feature combination of each person (:meth:`Domain.encode`).
    labels : int64 array, shape (N,)

    Raises
    ------
    DataError
        If shapes, dtypes or values do not fit.

    Notes
    -----
    *Ours*. The arrays are kept as they are given: a table that was changed elsewhere is a changed table.
    """

    domain: Domain
    cells: Integers
    labels: Integers

    def __post_init__(self) -> None:
        if np.ndim(self.cells) != 1 or np.shape(self.cells) != np.shape(self.labels):
            raise DataError(
                f"Expected one cell and one label per person, got shapes {np.shape(self.cells)} and "
                f"{np.shape(self.labels)}. Pass the rows of the same people."
            )
        # The checked copies replace what came, so that every table holds int64.
        object.__setattr__(self, "cells", _whole("cells", self.cells, below=self.domain.cells, what="cells"))
        object.__setattr__(self, "labels", _whole("labels", self.labels, below=self.domain.labels, what="labels"))

    @classmethod
    def from_features(cls, domain: Domain, features: ArrayLike, labels: ArrayLike) -> Records:
        """Return the table of rows of features, integers of shape (N, d), and labels, integers of shape (N,).

        Raises
        ------
        DataError
            If shapes, dtypes or values do not fit the domain.

        Notes
        -----
        *Ours*.
        """
        return cls(domain, domain.encode(features), np.asarray(labels))

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def features(self) -> Integers:
        """The features, int64, shape (N, d)."""
        return self.domain.decode(self.cells)

    def counts(self, rows: ArrayLike | None = None) -> Integers:
        """Return the histogram over X×Y of all people, or of some.

        Parameters
        ----------
        rows : bool, shape (N,), optional
            Whom to count; everybody if not given.

        Returns
        -------
        int64 array, shape (#X, #Y)

        Raises
        ------
        DataError
            If rows is no mask of these people.

        Notes
        -----
        *Ours*.
        """
        pairs = self.cells * self.domain.labels + self.labels
        if rows is not None:
            pairs = pairs[_mask(rows, len(self))]
        size = self.domain.cells * self.domain.labels
        return np.bincount(pairs, minlength=size).reshape(self.domain.cells, self.domain.labels).astype(np.int64)


def _mask(rows: ArrayLike, n: int) -> NDArray[np.bool_]:
    mask = np.asarray(rows)
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise DataError(
            f"Expected a boolean mask of shape ({n},), got dtype {mask.dtype} and shape {mask.shape}. "
            "Mark for every person whether they take part."
        )
    return cast("NDArray[np.bool_]", mask)


# --- signals ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """The map g that sets some features to fixed values and leaves the others as they are.

    Parameters
    ----------
    domain : Domain
    columns : tuple of int
        Which features, each once, one or more.
    values : tuple of int
        What each is set to.

    Raises
    ------
    ConfigError
        If a column or value is not in the domain.

    Notes
    -----
    *Published*: g: X→X with signal set X̃ = g(X) (arXiv 2502.04879). Setting features makes g idempotent, which erasing
    asks for, and every x of X̃ its own image, which makes the planting bounds monotone in size.
    """

    domain: Domain
    columns: tuple[int, ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        width = len(self.domain.levels)
        if not self.columns or len(set(self.columns)) < len(self.columns) or len(self.columns) != len(self.values):
            raise ConfigError(
                f"Expected one or more different columns and a value for each, got columns {self.columns!r} and "
                f"values {self.values!r}. Name each feature once."
            )
        for column, value in zip(self.columns, self.values, strict=True):
            if not 0 <= column < width or not 0 <= value < self.domain.levels[column]:
                raise ConfigError(
                    f"Expected columns within 0..{width - 1} and values of the domain's levels {self.domain.levels}, "
                    f"got value {value!r} for column {column!r}. Number both from 0."
                )

    @cached_property
    def map(self) -> Integers:
        """g as a table, int64, shape (#X,): the cell that each cell becomes."""
        features = self.domain.decode(np.arange(self.domain.cells))
        features[:, self.columns] = self.values
        return self.domain.encode(features)

    @cached_property
    def cells(self) -> Integers:
        """X̃, ascending, int64, shape (#X̃,)."""
        return np.unique(self.map).astype(np.int64)

    def people(self, counts: Integers) -> Integers:
        """Return how many people g sends to each cell of X̃.

        Parameters
        ----------
        counts : int64 array, shape (#X, #Y)

        Returns
        -------
        int64 array, shape (#X̃,)

        Notes
        -----
        *Ours*.
        """
        sent = np.bincount(self.map, weights=counts.sum(axis=1), minlength=self.domain.cells)
        return sent[self.cells].astype(np.int64)

    def overlap(self, other: Signal, people: NDArray[Any]) -> float:
        """Return ω, the share of people whom *another* signal sends into this one's set: P_D(g_j(x) ∈ X̃_m).

        Parameters
        ----------
        other : Signal
            g_j, over the same domain.
        people : numbers, shape (#X,)
            People, or probability, per cell; not all 0.

        Returns
        -------
        float
            In [0, 1]; not symmetric.

        Raises
        ------
        ConfigError
            If the domains differ.
        DataError
            If people has another shape, or nobody in it.

        Notes
        -----
        *Ours* (after arXiv 2605.06749).
        """
        if other.domain != self.domain:
            raise ConfigError(
                f"Expected two signals of one domain, got {self.domain} and {other.domain}. Number features alike."
            )
        weights = _people(people, self.domain)
        hit = np.isin(other.map, self.cells)
        return float(weights[hit].sum() / weights.sum())


def _people(people: NDArray[Any], domain: Domain) -> NDArray[np.float64]:
    weights = np.asarray(people, dtype=np.float64)
    if weights.shape != (domain.cells,) or (weights < 0).any() or not weights.sum() > 0:
        raise DataError(
            f"Expected people per cell, shape ({domain.cells},), 0 or more and not all 0, got shape {weights.shape}. "
            "Count them over cells: Records.counts().sum(axis=1)."
        )
    return weights


# --- strategies ---------------------------------------------------------------------------------------------


class Strategy(ABC):
    """A map h: X×Y → X×Y that members apply to their own record. *Published* (arXiv 2502.04879)."""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """X×Y."""

    @property
    @abstractmethod
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,): where the pair ``cell * #Y + label`` goes."""

    def on_counts(self, counts: ArrayLike) -> Integers:
        """Return the histogram of people after h.

        Parameters
        ----------
        counts : integers, shape (#X, #Y)

        Returns
        -------
        int64 array, shape (#X, #Y)

        Raises
        ------
        DataError
            If counts is no histogram over the domain.

        Notes
        -----
        *Ours*: the push-forward of an empirical distribution, exact in whole people.
        """
        before = self.domain.counts(counts)
        # float64 sums of people are exact below 2**53.
        after = np.bincount(self.table, weights=before.ravel(), minlength=before.size)
        return after.reshape(before.shape).astype(np.int64)

    def act(self, table: Records, members: ArrayLike) -> Records:
        """Return the records after the members applied h; everybody else's are as they were.

        Parameters
        ----------
        table : Records
        members : bool, shape (N,)
            Who takes part.

        Returns
        -------
        Records
            A new one; ``table`` is not changed.

        Raises
        ------
        ConfigError
            If the table has another domain.
        DataError
            If members is no mask of the table's people.

        Notes
        -----
        *Published* (arXiv 2502.04879: n of N users act through h).
        """
        if table.domain != self.domain:
            raise ConfigError(
                f"Expected records of {self.domain}, got {table.domain}. Build strategy and table from one domain."
            )
        mask = _mask(members, len(table))
        cells, labels = table.cells.copy(), table.labels.copy()
        moved = self.table[cells[mask] * self.domain.labels + labels[mask]]
        cells[mask], labels[mask] = np.divmod(moved, self.domain.labels)
        return Records(self.domain, cells, labels)

    def then(self, second: Strategy) -> Chain:
        """Return the strategy that applies this one and then another. *Ours*."""
        return Chain((self, second))


def act(table: Records, membership: ArrayLike, strategies: Sequence[Strategy]) -> Records:
    """Return the records after every collective acted.

    Parameters
    ----------
    table : Records
    membership : integers, shape (N,)
        Index into ``strategies`` of each person's collective; −1 for people who take no part. One number per person,
        so that nobody can act twice.
    strategies : sequence of Strategy

    Returns
    -------
    Records
        A new one.

    Raises
    ------
    DataError
        If membership does not fit.
    ConfigError
        If a strategy has another domain.

    Notes
    -----
    *Ours* (the training set of arXiv 2605.06749).
    """
    joined = np.asarray(membership)
    if joined.shape != (len(table),) or joined.dtype.kind not in "iu":
        raise DataError(
            f"Expected one whole number per person, shape ({len(table)},), got dtype {joined.dtype} and shape "
            f"{joined.shape}. Use −1 for people who take no part."
        )
    if joined.size and (int(joined.min()) < -1 or int(joined.max()) >= len(strategies)):
        raise DataError(
            f"Expected memberships within −1..{len(strategies) - 1}, got {int(joined.min())}..{int(joined.max())}. "
            "Give a strategy for every collective."
        )
    for index, strategy in enumerate(strategies):
        table = strategy.act(table, joined == index)
    return table


def _pairs(cells: Integers, labels: Integers, domain: Domain) -> Integers:
    return (cells * domain.labels + labels).ravel()


def _grid(domain: Domain) -> tuple[Integers, Integers]:
    """Return the cell and the label of every pair, each of shape (#X, #Y)."""
    cells = np.broadcast_to(np.arange(domain.cells)[:, None], (domain.cells, domain.labels))
    labels = np.broadcast_to(np.arange(domain.labels)[None, :], (domain.cells, domain.labels))
    return cells.astype(np.int64), labels.astype(np.int64)


def _decisions(decisions: ArrayLike, domain: Domain) -> Integers:
    said = _whole("decisions", decisions, below=domain.labels, what="labels")
    if said.shape != (domain.cells,):
        raise DataError(
            f"Expected one decision per cell, shape ({domain.cells},), got {said.shape}. "
            "Ask a platform of ttca.training_time.platform for them."
        )
    return said


@dataclass(frozen=True, eq=False)
class _WithSignal(Strategy):
    signal: Signal

    @property
    def domain(self) -> Domain:
        """X×Y."""
        return self.signal.domain

    def _rate(self, hit: NDArray[np.bool_], people: NDArray[Any]) -> float:
        weights = _people(people, self.domain)
        # Not np.average: dividing every weight first would make a certain success 0.9999999999999999.
        return float(weights[hit].sum() / weights.sum())


@dataclass(frozen=True, eq=False)
class _Targeted(_WithSignal):
    target: int

    def __post_init__(self) -> None:
        self.domain.label(self.target)


class Planting(_Targeted):
    """A strategy that ties a signal to a target label: what the planting bounds are about. *Published*."""

    def success(self, decisions: ArrayLike, people: NDArray[Any]) -> float:
        """Return S = P[f(g(x)) = y*].

        Parameters
        ----------
        decisions : integers, shape (#X,)
            f, the label the platform gives each cell.
        people : numbers, shape (#X,)
            People, or probability, per cell, before any strategy.

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        DataError
            If a shape does not fit.

        Notes
        -----
        *Published* (arXiv 2502.04879).
        """
        return self._rate(_decisions(decisions, self.domain)[self.signal.map] == self.target, people)


@dataclass(frozen=True, eq=False)
class FeatureLabelPlanting(Planting):
    """Members set the signal and the label: h(x, y) = (g(x), y*).

    Parameters
    ----------
    signal : Signal
        g.
    target : int
        y*.

    Raises
    ------
    ConfigError
        If the target is no label.

    Notes
    -----
    *Published* (arXiv 2502.04879, planting, feature-label).
    """

    @cached_property
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,)."""
        cells, labels = _grid(self.domain)
        return _pairs(self.signal.map[cells], np.full_like(labels, self.target), self.domain)


@dataclass(frozen=True, eq=False)
class FeatureOnlyPlanting(Planting):
    """Members keep their label: those who have y* set the signal, the others move to a cell outside the signal set.

    h(x, y) = (g(x), y) if y = y*, else (x_0, y) with x_0 ∉ X̃.

    Parameters
    ----------
    signal : Signal
        g.
    target : int
        y*.
    elsewhere : int
        x_0, a cell outside the signal set.

    Raises
    ------
    ConfigError
        If the target is no label, or x_0 no cell or one of the signal set.

    Notes
    -----
    *Published* (arXiv 2502.04879, planting, feature-only).
    """

    elsewhere: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.elsewhere < self.domain.cells or self.elsewhere in self.signal.cells:
            raise ConfigError(
                f"Expected x_0 as a cell of 0..{self.domain.cells - 1} outside the signal set, got {self.elsewhere!r}. "
                "Choose a combination of features that the signal never makes."
            )

    @cached_property
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,)."""
        cells, labels = _grid(self.domain)
        moved = np.where(labels == self.target, self.signal.map[cells], self.elsewhere)
        return _pairs(moved, labels, self.domain)


class Unplanting(_Targeted):
    """A strategy that puts other labels in the place of a target label. *Published*."""

    @property
    @abstractmethod
    def replacements(self) -> Integers:
        """ŷ of each cell of X̃, int64, shape (#X̃,)."""

    @cached_property
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,): (g(x), ŷ_{g(x)})."""
        instead = np.zeros(self.domain.cells, np.int64)
        instead[self.signal.cells] = self.replacements
        cells, _ = _grid(self.domain)
        sent = self.signal.map[cells]
        return _pairs(sent, instead[sent], self.domain)

    def success(self, decisions: ArrayLike, people: NDArray[Any]) -> float:
        """Return S = P[f(g(x)) ≠ y*]; parameters and errors as for planting. *Published* (arXiv 2502.04879)."""
        return self._rate(_decisions(decisions, self.domain)[self.signal.map] != self.target, people)


@dataclass(frozen=True, eq=False)
class NaiveUnplanting(Unplanting):
    """Members plant one other label, chosen beforehand, to push the target out: h(x, y) = (g(x), y').

    Parameters
    ----------
    signal : Signal
        g.
    target : int
        y*, the label to push out.
    replacement : int
        y', another label.

    Raises
    ------
    ConfigError
        If a label is none, or both are the same.

    Notes
    -----
    The goal is *published* (arXiv 2502.04879, unplanting); "naive" as one label for all cells is our reading.
    """

    replacement: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domain.label(self.replacement, "the replacement label") == self.target:
            raise ConfigError(f"Expected a replacement label other than the target, got {self.replacement} for both.")

    @property
    def replacements(self) -> Integers:
        """y' for each cell of X̃, int64, shape (#X̃,)."""
        return np.full(len(self.signal.cells), self.replacement, np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveUnplanting(OneLine, Unplanting):
    """Members plant, cell by cell, the label that comes next after the target: h(x, y) = (g(x), ŷ_{g(x)}).

    Parameters
    ----------
    signal : Signal
        g.
    target : int
        y*, the label to push out.
    estimate : int64 array, shape (#X̃,)
        ŷ of each cell of the signal set; see :meth:`estimated`.

    Raises
    ------
    ConfigError
        If the target is no label, or the estimate names the target.
    DataError
        If the estimate does not fit the signal set.

    Notes
    -----
    *Published* (arXiv 2502.04879, unplanting).
    """

    estimate: Integers

    def __post_init__(self) -> None:
        super().__post_init__()
        known = _label_per_cell(self.signal, "the estimate", self.estimate, "AdaptiveUnplanting.estimated")
        if (known == self.target).any():
            raise ConfigError(
                f"Expected estimates other than the target {self.target}, got that label too. Leave it out."
            )
        object.__setattr__(self, "estimate", known)

    @classmethod
    def estimated(cls, signal: Signal, target: int, counts: ArrayLike) -> AdaptiveUnplanting:
        """Return the strategy whose labels the estimating members found: ŷ_x = argmax_{y' ≠ y*} P(x, y').

        Parameters
        ----------
        signal : Signal
        target : int
        counts : integers, shape (#X, #Y)
            The n_e estimating members' unchanged records. Where they know nothing of a cell, its ŷ is the label that
            is most frequent among all of them, the target left out.

        Raises
        ------
        ConfigError
            If the target is no label.
        DataError
            If counts is no histogram.

        Notes
        -----
        *Published* (arXiv 2502.04879); what is done about unseen cells is *ours*.
        """
        goal = signal.domain.label(target)
        table = signal.domain.counts(counts)
        seen = table[signal.cells].copy()
        unseen = np.delete(seen, goal, axis=1).sum(axis=1) == 0
        seen[unseen] = table.sum(axis=0)
        seen[:, goal] = -1
        return cls(signal, goal, seen.argmax(axis=1).astype(np.int64))

    @property
    def replacements(self) -> Integers:
        """ŷ for each cell of X̃, int64, shape (#X̃,)."""
        return self.estimate


@dataclass(frozen=True, eq=False, repr=False)
class Erasing(OneLine, _WithSignal):
    """Members keep their features and take the label of what they would be without a trait: h(x, y) = (x, y*_{g(x)}).

    Parameters
    ----------
    signal : Signal
        g, which removes the trait by giving everybody the same value of it.
    modes : int64 array, shape (#X̃,)
        y* of each cell of the signal set; see :meth:`estimated`.

    Raises
    ------
    DataError
        If the modes do not fit the signal set.

    Notes
    -----
    *Published* (arXiv 2502.04879, erasing).
    """

    modes: Integers

    def __post_init__(self) -> None:
        known = _label_per_cell(self.signal, "the modes", self.modes, "Erasing.estimated")
        object.__setattr__(self, "modes", known)

    @classmethod
    def estimated(cls, signal: Signal, counts: ArrayLike) -> Erasing:
        """Return the strategy whose modes are the most frequent labels in the members' own records.

        Parameters
        ----------
        signal : Signal
        counts : integers, shape (#X, #Y)
            The members' unchanged records. Cells nobody has take the label most frequent among all members.

        Raises
        ------
        DataError
            If counts is no histogram.

        Notes
        -----
        *Published* (arXiv 2502.04879); what is done about unseen cells is *ours*.
        """
        table = signal.domain.counts(counts)
        seen = table[signal.cells].copy()
        seen[seen.sum(axis=1) == 0] = table.sum(axis=0)
        return cls(signal, seen.argmax(axis=1).astype(np.int64))

    @cached_property
    def wanted(self) -> Integers:
        """y*_{g(x)} of every cell, int64, shape (#X,)."""
        mode = np.zeros(self.domain.cells, np.int64)
        mode[self.signal.cells] = self.modes
        return mode[self.signal.map]

    @cached_property
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,)."""
        cells, _ = _grid(self.domain)
        return _pairs(cells, self.wanted[cells], self.domain)

    def success(self, decisions: ArrayLike, people: NDArray[Any]) -> float:
        """Return S = P[f(g(x)) = f(x)]; parameters and errors as for planting. *Published* (arXiv 2502.04879)."""
        said = _decisions(decisions, self.domain)
        return self._rate(said[self.signal.map] == said, people)


@dataclass(frozen=True, eq=False)
class Chain(Strategy):
    """Strategies applied one after the other, by the same members.

    Parameters
    ----------
    parts : tuple of Strategy
        One or more, over one domain.

    Raises
    ------
    ConfigError
        If there is none, or the domains differ.

    Notes
    -----
    *Ours*. A later part sees what the earlier made of a record.
    """

    parts: tuple[Strategy, ...]

    def __post_init__(self) -> None:
        if not self.parts or any(part.domain != self.parts[0].domain for part in self.parts):
            raise ConfigError(
                f"Expected one or more strategies of one domain, got {[part.domain for part in self.parts]}. "
                "Build all parts from the same domain."
            )

    @property
    def domain(self) -> Domain:
        """X×Y."""
        return self.parts[0].domain

    @cached_property
    def table(self) -> Integers:
        """h, int64, shape (#X·#Y,)."""
        found = self.parts[0].table
        for part in self.parts[1:]:
            found = part.table[found]
        return found

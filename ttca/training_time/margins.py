"""What a frequency among some people may miss: Hoeffding's margins, and exact binomial ones for the same events.

A bound on success rests on events of one kind: a frequency is not far from its probability, on one side. Each may fail
with a chance of δ̃, so that all of them hold at once with a chance of 1 − (their number)·δ̃ or more. Hoeffding's R(k) is
right for every mean of numbers in [0, 1]. Counts are binomial, and for them the exact quantiles are known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import clopper_pearson_lower, clopper_pearson_upper
from ttca.errors import ConfigError, MissingExtraError
from ttca.values import OneLine

__all__ = ["Exact", "Hoeffding", "Margins", "Sample", "Slack", "deviation", "less_wanted", "slack_of"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Margins = Literal["hoeffding", "exact"]


def deviation(k: int, error: float) -> float:
    """Return R(k) = sqrt(log(1/δ̃) / (2k)), by which a frequency among k people may miss its probability.

    Parameters
    ----------
    k : int
        People, 0 or more; infinite for none.
    error : float
        δ̃, the chance of missing it by more, on one side, in (0, 1).

    Raises
    ------
    ConfigError
        If k is negative, or δ̃ outside (0, 1).

    Notes
    -----
    *Published* (Hoeffding 1963; arXiv 2502.04879).
    """
    if not (k >= 0 and 0 < error < 1):
        raise ConfigError(f"Expected 0 people or more and δ̃ within (0, 1), got {k!r} and {error!r}. Count people.")
    return math.sqrt(math.log(1 / error) / (2 * k)) if k else math.inf


def less_wanted(table: NDArray[Any], wanted: Integers) -> NDArray[Any]:
    """Return each row of a table of shape (k, #Y) less its entry at the wanted label of that row. *Ours*."""
    found: NDArray[Any] = table - np.take_along_axis(table, wanted[:, None], axis=1)
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Sample(OneLine):
    """Unchanged records of some people, one or more.

    Parameters
    ----------
    counts : int64 array, shape (#X, #Y)
    size : int
        For how many people they stand: as many as were counted, but where a plan asks what more people would be
        promised whose shares are the same.

    Notes
    -----
    *Ours*.
    """

    counts: Integers
    size: int

    @property
    def known(self) -> int:
        """How many people were counted."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Slack(ABC):
    """How far to trust frequencies, each event failing with a chance of at most δ̃.

    Parameters
    ----------
    error : float
        δ̃, in (0, 1).

    Notes
    -----
    Why a bound holds (*ours*, for either margins). Let A be the cells at which the wanted label wins when each
    *probability* is moved against the collective by as much as a frequency may miss it. A is fixed before any record is
    drawn. If no event fails, the wanted label wins on A, whatever records were drawn. Members do not know A. They move
    their frequencies to the probabilities first, and then as before: the cells they find are a part of A. Because A is
    fixed, its share among members is binomial, and so is that among test people. Hence 2R(n) wherever a frequency is
    moved twice, and one event for each move: those are the events that the published δ̃ counts.
    """

    error: float

    @abstractmethod
    def own(self, counts: Integers, members: Sample) -> Floats:
        """Return how much of the members' own records to rely on at each cell, of counts of shape (k,); shape (k,).

        Two events per cell, one for each move.
        """

    @abstractmethod
    def rivalry(self, table: Integers, wanted: Integers, members: Sample, others: int) -> Floats:
        """Return by how much each label may lead the wanted one among other people with like records.

        Parameters
        ----------
        table : int64 array, shape (k, #Y)
            Members per cell asked about and label, after what the others do, if they do anything.
        wanted : int64 array, shape (k,)
            A label for each cell. Its own column says nothing.
        members : Sample
            Of whom the table is.
        others : int
            How many other people; infinite for none.

        Returns
        -------
        float64 array, shape (k, #Y)
            Differences of shares. Two events per cell and label: the wanted label's frequencies may be too high, all
            others' too low.
        """

    @abstractmethod
    def success(self, hit: int, members: Sample, test: int | None) -> tuple[float, float]:
        """Return what A's share of ``test`` people is at least, below 0 perhaps, and what was taken off for it.

        Two events: the share of A among members, of whom ``hit`` are in the part that was found, is too high, and that
        among test people too low. Without test people (None) it is about the population.
        """


@dataclass(frozen=True)
class Hoeffding(Slack):
    """R(k) for every frequency: *published* (arXiv 2502.04879)."""

    def own(self, counts: Integers, members: Sample) -> Floats:
        """Return P(x) − 2R(n)."""
        found: Floats = counts / members.known - 2 * deviation(members.size, self.error)
        return found

    def rivalry(self, table: Integers, wanted: Integers, members: Sample, others: int) -> Floats:
        """Return P(x, y) − P(x, y*) + 2R(n) + 2R(others)."""
        slack = 2 * deviation(members.size, self.error), 2 * deviation(others, self.error)
        found: Floats = less_wanted(table / members.known, wanted) + slack[0] + slack[1]
        return found

    def success(self, hit: int, members: Sample, test: int | None) -> tuple[float, float]:
        """Return the share less R(n) + R(N_test), and that slack."""
        slack = deviation(members.size, self.error) + (0.0 if test is None else deviation(test, self.error))
        return hit / members.known - slack, slack


@dataclass(frozen=True)
class Exact(Slack):
    """Exact quantiles for every frequency.

    Raises
    ------
    ConfigError
        On use, if records stand for more people than were counted.
    MissingExtraError
        On use, if scipy is not installed.

    Notes
    -----
    Quantiles are *published* (Clopper, Pearson 1934); their use is *ours*. A count k among n members is binomial, so
    that its probability p is at least the one-sided Clopper–Pearson bound l(k), but for a chance of δ̃. The share of
    the same event among m other people (or among the members) is at least q_m(p)/m, but for a chance of δ̃, where q_m(p)
    is the largest count with Pr[Bin(m, p) < q_m(p)] ≤ δ̃. q_m rises with p, so that q_m(l(k)) may be relied on. Upper
    ends are the same for the complement. Each event stands for one of Hoeffding's: δ is shared among as many.

    Valid where counts are binomial: cells and labels of members whose strategy their own records did not choose. In
    unplanting the share is therefore counted on members who had no part in choosing the replacement labels.
    """

    def own(self, counts: Integers, members: Sample) -> Floats:
        """Return q_n(l(k)) / n."""
        return self._least(counts, members, members.size)

    def rivalry(self, table: Integers, wanted: Integers, members: Sample, others: int) -> Floats:
        """Return what each label's share is at most, less what the wanted one's is at least."""
        if not others:
            return np.full(table.shape, np.inf)
        chosen = np.take_along_axis(table, wanted[:, None], axis=1)
        return self._most(table, members, others) - self._least(chosen, members, others)

    def success(self, hit: int, members: Sample, test: int | None) -> tuple[float, float]:
        """Return q(l(hit)) / N_test, or l(hit), and what it is below the share."""
        _counted(members)
        rate = np.asarray(clopper_pearson_lower(hit, members.size, self.error))
        found = float(rate if test is None else self._fewest(rate, test) / test)
        return found, hit / members.size - found

    def _least(self, counts: Integers, members: Sample, m: int) -> Floats:
        _counted(members)
        found: Floats = self._fewest(clopper_pearson_lower(counts, members.size, self.error), m) / m
        return found

    def _most(self, counts: Integers, members: Sample, m: int) -> Floats:
        _counted(members)
        found: Floats = self._largest(clopper_pearson_upper(counts, members.size, self.error), m) / m
        return found

    def _largest(self, rates: Floats, m: int) -> Floats:
        """Return the smallest counts that Bin(m, rates) exceeds with a chance of at most δ̃."""
        binomial = _binomial()
        found = np.clip(binomial.isf(self.error, m, rates), 0, m)
        # Where rounding put the quantile one too low.
        return np.asarray(found + (binomial.sf(found, m, rates) > self.error), np.float64)

    def _fewest(self, rates: Floats, m: int) -> Floats:
        return m - self._largest(1 - rates, m)


def _binomial() -> Any:
    try:
        from scipy.stats import binom
    except ImportError as error:
        raise MissingExtraError("Computing exact margins", "learn") from error
    return binom


def _counted(members: Sample) -> None:
    if members.known != members.size:
        raise ConfigError(
            f"Expected as many records as people for exact margins, got {members.known} for {members.size}. Plan with "
            'margins="hoeffding"; the bound of those who did join may be exact.'
        )


def slack_of(margins: Margins, error: float) -> Slack:
    """Return Hoeffding's or the exact margins, each event failing with a chance of δ̃.

    Parameters
    ----------
    margins : {"hoeffding", "exact"}
    error : float
        δ̃.

    Raises
    ------
    ConfigError
        If the margins have another name.

    Notes
    -----
    *Ours*.
    """
    if margins not in get_args(Margins):
        raise ConfigError(f"Expected the margins to be one of {get_args(Margins)}, got {margins!r}. Choose one.")
    return Hoeffding(error) if margins == "hoeffding" else Exact(error)

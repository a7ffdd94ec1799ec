"""The gap: how well each group is served as it is, and how much of the difference could be chance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import clopper_pearson_interval
from ttca.errors import MissingExtraError
from ttca.intervals import difference_of_counts

__all__ = ["NO_GAP", "WHOSE", "Served", "gap_interval", "served", "served_sentence"]

#: What stands wherever a gap closed would, when the data cannot tell the gap from none.
NO_GAP = "no gap was shown"

#: Whose rates each step tells, for people: other people each time, so that other numbers are no contradiction.
WHOSE = {
    "audit": "These rates are of {people} in the pool alone. ttca run tells those of the whole pool and of selection "
    "people, and the report those of verification people: other people, so other numbers.",
    "pool": "These are people of the pool and selection people. The report tells the rates of verification people, who "
    "are others.",
    "verification people": "These rates are of verification people alone. Those that ttca audit and ttca run tell are "
    "of people in the pool: other people, so other numbers.",
    "selection people": "These rates are of selection people alone. Those that ttca audit tells are of people in the "
    "pool: other people, so other numbers.",
    "test people": "These rates are of test people alone, who had no part in the action. Those told of the pool are of "
    "other people, so they are other numbers.",
}


@dataclass(frozen=True)
class Served:
    """How one group is served: of ``asked`` images that the platform answered or refused, ``right`` were right.

    ``persons`` is how many people's they are. ``unanswered`` images brought no answer and are in neither number.
    """

    right: int
    asked: int
    persons: int
    unanswered: int

    @property
    def rate(self) -> float:
        """Share of right answers; NaN where nothing was answered."""
        return self.right / self.asked if self.asked else math.nan

    def interval(self) -> tuple[float, float]:
        """Return the two-sided 95 % Clopper-Pearson interval of the rate, over images.

        Raises
        ------
        MissingExtraError
            If scipy is not installed.
        """
        return clopper_pearson_interval(self.right, self.asked)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the interval is None without scipy."""
        try:
            interval = list(self.interval())
        except MissingExtraError:
            interval = None
        return {**asdict(self), "rate": self.rate if self.asked else None, "interval": interval}


def served(
    y_true: NDArray[np.int64], y_pred: NDArray[np.int64], resolved: NDArray[np.bool_], persons: NDArray[np.str_]
) -> Served:
    """Count right answers; a refusal is a wrong answer, a failure on the way is none.

    Parameters
    ----------
    y_true, y_pred : int64 arrays, shape (N,)
        What is true, and what the platform said (-1: no class).
    resolved : bool array, shape (N,)
        Whether the platform answered or refused.
    persons : str array, shape (N,)
    """
    right = int((resolved & (y_true == y_pred)).sum())
    return Served(right, int(resolved.sum()), len(np.unique(persons[resolved])), int((~resolved).sum()))


def gap_interval(
    reference: tuple[int, int], subgroup: tuple[int, int], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a two-sided interval for the difference of two rates, reference minus subgroup.

    Parameters
    ----------
    reference, subgroup : (right, asked)
        Of different people. Where the same people stand in both groups, the interval is wider than need be as long
        as their answers go together.
    confidence : float

    Notes
    -----
    As :func:`ttca.intervals.difference_of_counts`.
    """
    return difference_of_counts(reference, subgroup, confidence=confidence)


def served_sentence(groups: dict[str, Served]) -> str:
    """Return, for people, how each group is served as it is, whether that shows a gap, and whose rates these are.

    Parameters
    ----------
    groups : dict
        ``subgroup`` and ``reference``; a group nobody was asked of may be missing.
    """
    said = _served_sentence(groups)
    return f"{said} {WHOSE['pool']}" if any(group.asked for group in groups.values()) else said


def _served_sentence(groups: dict[str, Served]) -> str:
    told = [f"{name} {_told(group)}" for name, group in groups.items() if group.asked]
    if not told:
        return "No unchanged image was answered yet, so it is not known whether there is a gap."
    sentence = "Right answers for unchanged images: " + "; ".join(told) + "."
    reference, subgroup = groups.get("reference"), groups.get("subgroup")
    if reference is None or subgroup is None or not reference.asked or not subgroup.asked:
        return f"{sentence} Only one group got answers, so there is nothing to compare it with."
    try:
        low, high = gap_interval((reference.right, reference.asked), (subgroup.right, subgroup.asked))
    except MissingExtraError:
        return sentence
    if low <= 0 <= high:
        return (
            f"{sentence} For these people {NO_GAP}: the reference's lead may be anywhere from {_points(low)} to "
            f"{_points(high)} points."
        )
    where, least, most = ("behind", low, high) if low > 0 else ("ahead", -high, -low)
    return (
        f"{sentence} The subgroup is {where} by {_points(abs(reference.rate - subgroup.rate))} points "
        f"(95 % interval {_points(least)} to {_points(most)})."
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "\N{MINUS SIGN}")


def _told(group: Served) -> str:
    try:
        low, high = group.interval()
        span = f", 95 % interval {100 * low:.1f} to {100 * high:.1f}"
    except MissingExtraError:
        span = "; install 'ttca[learn]' for intervals"
    people = f", {group.persons:,} people" if group.persons != group.asked else ""
    return f"{group.right:,} of {group.asked:,} ({100 * group.rate:.1f} %{span}{people})"

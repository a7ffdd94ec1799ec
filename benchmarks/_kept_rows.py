"""What a kept row says, whichever protocol wrote it: what was paid, how many people, and how far chance reaches.

Rows of protocol 1 hold rates and one p, and no person's answers. What follows from these is worked out here; what does
not follow is bounded by the worst that could be, or left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import DataError
from ttca.intervals import Span, difference_interval, difference_of_counts, gap_closed_interval, rate_interval

__all__ = [
    "Paired",
    "change_span",
    "closed_span",
    "discordant",
    "lead_span",
    "over_seeds",
    "paired",
    "people",
    "queries",
    "rate_span",
    "shortened",
    "verified_by",
]

#: A kept p is a double: two counts that agree to so many digits are not told apart.
_DIGITS = 1e-9
#: More people than any track has.
_MOST_PEOPLE = 100_000
_EARLIER = {"baseline": "audit"}


def queries(of: Mapping[str, Any], purpose: str) -> int:
    """Return what was paid for a purpose: ``pool``, ``baseline``, ``verification`` or ``race``.

    Parameters
    ----------
    of : dict
        A row, or counts by purpose. Protocol 1 called the baseline *audit*.
    purpose : str

    Raises
    ------
    KeyError
        If it says nothing of that purpose.
    """
    for name in (purpose, _EARLIER.get(purpose, purpose)):
        for key in (f"queries_{name}", name):
            if key in of:
                return int(of[key])
    raise KeyError(purpose)


def shortened(row: Mapping[str, Any]) -> bool:
    """Return whether training was cut short or the control had one length alone, as in every row of protocol 1."""
    return bool(row.get("shortened", True))


def verified_by(line: Mapping[str, Any]) -> int:
    """Return how many people of the subgroup verify, of a line: a row and its certificate."""
    row = line["row"]
    return int(row["persons_verification"] if "persons_verification" in row else line["certificate"]["before"]["m"])


# --- how many people -----------------------------------------------------------------------------------------


def people(row: Mapping[str, Any]) -> int:
    """Return how many of the subgroup were tested: the number at which S has just the bounds that the row holds.

    Raises
    ------
    DataError
        If no number has, or several have.
    """
    return _people(row["subgroup_after"], row["subgroup_after_lower"], row["subgroup_after_upper"])


@lru_cache(maxsize=4096)
def _people(rate: float, low: float, high: float) -> int:
    from ttca.certificates import clopper_pearson_interval

    part = Fraction(rate).limit_denominator(_MOST_PEOPLE)
    sizes = part.denominator * np.arange(1, _MOST_PEOPLE // part.denominator + 1)
    lows, highs = clopper_pearson_interval(part.numerator * sizes // part.denominator, sizes)
    found = sizes[np.isclose(lows, low, rtol=_DIGITS, atol=1e-12) & np.isclose(highs, high, rtol=_DIGITS, atol=1e-12)]
    if len(found) != 1:
        raise DataError(
            f"Expected one number of people with the bounds {low} and {high} of S, got {found.tolist()}. A row's "
            "bounds are Clopper and Pearson's, 95 %, two-sided: do not round them."
        )
    return int(found[0])


def _reference_people(row: Mapping[str, Any]) -> int:
    """Return the smallest number of people that makes the reference's rates whole: they are so many, or more."""
    rates = (row.get(key) for key in ("reference_before", "reference_after", "fidelity_reference"))
    return math.lcm(*(Fraction(r).limit_denominator(_MOST_PEOPLE).denominator for r in rates if r is not None))


# --- discordant people ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paired:
    """S and a control on the same ``people``, compared by McNemar's exact two-sided test.

    ``possible`` holds each (b, c) that fits, from the fewest people on: b right only with δ, c only with the control.
    """

    p: float
    people: int
    possible: tuple[tuple[int, int], ...]

    @property
    def told(self) -> str:
        """Return the p with b/c beside it."""
        counts = "{}/{}".format(*self.possible[0]) if len(self.possible) == 1 else "not recoverable"
        return f"{self.p:.2g} ({counts})"

    @property
    def span(self) -> Span | None:
        """Return where S less the control lies over persons, 95 %; the widest that fits, None where nothing does."""
        return _between(*self.possible[-1], self.people) if self.possible else None


def discordant(p: float, lead: int, people: int, *, most: tuple[int, int] | None = None) -> tuple[tuple[int, int], ...]:
    """Return each (b, c) with b − c = ``lead`` whose exact two-sided McNemar p is the one kept, fewest people first.

    Parameters
    ----------
    p : float
        As kept, to the last digit of a double.
    lead : int
        How many more were right under the first condition.
    people : int
    most : (b, c), optional
        No more than so many can be: who is right under both is in neither.

    Returns
    -------
    tuple of (int, int)
        One pair, but for a p of 1 (a lead of −1, 0 or 1 has no other) or one too small for a double; none where
        nothing fits.

    Notes
    -----
    *Ours*. At a fixed lead p grows with b + c, so that one pair alone has it, but for a p of 1.
    """
    from scipy.special import bdtr

    most_b, most_c = most or (people, people)
    fewer = np.arange(min(most_b - max(lead, 0), most_c - max(-lead, 0), (people - abs(lead)) // 2) + 1)
    found = np.minimum(1.0, 2 * bdtr(fewer, 2 * fewer + abs(lead), 0.5))
    fits = fewer[np.isclose(found, p, rtol=_DIGITS, atol=0)].tolist()
    return tuple((c + max(lead, 0), c + max(-lead, 0)) for c in fits)


def paired(row: Mapping[str, Any], p: float | None = None, *, rate: float | None = None) -> Paired:
    """Return the paired test of S and a control.

    Parameters
    ----------
    row : dict
    p : float, optional
        Kept beside a row of protocol 1; later rows hold it, with the counts.
    rate : float, optional
        That of what S is compared with; default the zero-query control.

    Raises
    ------
    DataError
        If a row without counts comes without its p.
    """
    size = people(row)
    if rate is None and "paired_b" in row:
        return Paired(row["paired_p"], size, ((row["paired_b"], row["paired_c"]),))
    if p is None:
        raise DataError("Expected the p that was kept beside a row without discordant counts, got none. Pass it.")
    rates = row["subgroup_after"], row["zero_query_control"] if rate is None else rate
    ours, theirs = (round(each * size) for each in rates)
    return Paired(p, size, discordant(p, ours - theirs, size, most=(size - theirs, size - ours)))


def _between(b: int, c: int, size: int) -> Span:
    first, second = np.zeros((2, size), np.int64)
    first[:b] = second[b : b + c] = 1
    return _known(difference_interval(first, second, paired=True))


def _known(span: Span | None) -> Span:
    if span is None:
        raise DataError("Expected somebody to have been asked, got nobody. A row is of people who were.")
    return span


# --- over persons --------------------------------------------------------------------------------------------


def rate_span(row: Mapping[str, Any], key: str) -> Span:
    """Return where a rate of the subgroup's test people lies over persons, 95 %: exact, from the counts."""
    size = people(row)
    return _known(rate_interval(np.arange(size) < round(row[key] * size)))


def lead_span(row: Mapping[str, Any]) -> Span:
    """Return where the reference's lead before δ lies over persons, 95 %.

    Notes
    -----
    *Ours*. Where the reference has as many people as the subgroup they may be the same, and how their answers went
    together is not kept: then as few as can be were right both times, which is the widest.
    """
    if (kept := _kept(row, "gap_before")) is not None:
        return kept
    size, size_2 = people(row), _reference_people(row)
    before, reference = round(row["subgroup_before"] * size), round(row["reference_before"] * size_2)
    if size == size_2:
        return _apart(reference, before, size)
    return Span(*difference_of_counts((reference, size_2), (before, size)), 0.95)


def closed_span(row: Mapping[str, Any]) -> Span | None:
    """Return where the gap closed lies over persons, 95 %; None where no gap was shown.

    Notes
    -----
    *Ours*. By :func:`ttca.intervals.gap_closed_interval`, on answers that give the kept counts. How one person's
    answers went together is not kept. So the interval is the hull of those of several arrangements (:func:`_arcs`),
    among them the ones with the most and the fewest people wrong both times.
    """
    if row["gap_closed"] is None:
        return None
    if (kept := _kept(row, "gap_closed")) is not None:
        return kept
    size, size_2 = people(row), _reference_people(row)
    before, after = (round(row[key] * size) for key in ("subgroup_before", "subgroup_after"))
    return _closed(size, before, after, size_2, round(row["reference_before"] * size_2))


@lru_cache(maxsize=1024)
def _closed(size: int, before: int, after: int, size_2: int, reference: int) -> Span | None:
    same = size == size_2
    theirs = np.arange(size_2) < reference
    found = [
        gap_closed_interval(table[0], table[1], table[2] if same else theirs, same=same)
        for table in _arcs(size, (before, after, reference) if same else (before, after))
    ]
    spans = [span for span in found if span is not None]
    # One arrangement that shows no gap is enough: it may be the true one.
    if len(spans) < len(found):
        return None
    return Span(min(span.low for span in spans), max(span.high for span in spans), 0.95)


def _arcs(size: int, right: Sequence[int]) -> Iterator[list[NDArray[np.bool_]]]:
    """Yield answers of ``size`` persons under several conditions, with so many right: the ways to go together.

    Notes
    -----
    *Ours*. The persons sit in a circle, and those who are wrong under one condition side by side. Each such arc begins
    or ends where another begins or ends. A sum of answers with any weights varies most in one of these (tested against
    linear programming).
    """
    seats = np.arange(size)
    seen: set[tuple[int, ...]] = set()
    for arcs in _placed(size, [size - k for k in right]):
        table = [(seats - start) % size >= count for start, count in arcs]
        number = np.ravel_multi_index(tuple(row.astype(np.intp) for row in table), (2,) * len(table))
        cells = tuple(np.bincount(number, minlength=2 ** len(table)).tolist())
        if cells not in seen:
            seen.add(cells)
            yield table


def _placed(size: int, counts: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Yield arcs, (start, length), of a circle of ``size`` seats: the first at 0, each other beside an earlier one."""
    if len(counts) == 1:
        yield [(0, counts[0])]
        return
    *earlier, last = counts
    for arcs in _placed(size, earlier):
        marks = {mark % size for start, count in arcs for mark in (start, start + count)}
        for start in sorted(marks | {(mark - last) % size for mark in marks}):
            yield [*arcs, (start, last)]


def change_span(row: Mapping[str, Any], key: str) -> Span | None:
    """Return where a fairness metric's change lies over persons, 95 %; None where the row does not say.

    Parameters
    ----------
    row : dict
    key : str
        As in the row, without ``_before`` and ``_after``.

    Notes
    -----
    *Ours*. A row with intervals: the ends as far apart as they can be, for both are of the same people. Worst group,
    from counts: S and the reference, each less the subgroup before. At least the smaller lower limit of these, at most
    the smaller upper one with the error divided in two (Bonferroni). Of the others a row without intervals says
    nothing.
    """
    before, after = (_kept(row, f"{key}_{when}") for when in ("before", "after"))
    if before is not None and after is not None:
        return Span(after.low - before.high, after.high - before.low, 0.95)
    if key != "worst_group" or "intervals" in row or row["subgroup_before"] > row["reference_before"]:
        return None
    size, size_2 = people(row), _reference_people(row)
    start, end = (round(row[k] * size) for k in ("subgroup_before", "subgroup_after"))
    bar = round(row["reference_before"] * size_2)

    def both(confidence: float) -> list[Span]:
        lead = (
            _apart(bar, start, size, confidence)
            if size == size_2
            else Span(*difference_of_counts((bar, size_2), (start, size), confidence=confidence), confidence)
        )
        return [_apart(end, start, size, confidence), lead]

    return Span(min(span.low for span in both(0.95)), min(span.high for span in both(0.975)), 0.95)


def _apart(first: int, second: int, size: int, confidence: float = 0.95) -> Span:
    """Return the interval of a paired difference where as few as can be were right under both conditions."""
    answers = np.arange(size) < first, np.arange(size) >= size - second
    return _known(difference_interval(*answers, paired=True, confidence=confidence))


def _kept(row: Mapping[str, Any], key: str) -> Span | None:
    ends = row.get("intervals", {}).get(key)
    # JSON has no infinity.
    return None if ends is None else Span(ends[0], math.inf if ends[1] is None else ends[1], 0.95)


# --- over persons and seeds ----------------------------------------------------------------------------------


def over_seeds(
    values: Sequence[float], spans: Sequence[Span | None], *, least: float = -math.inf, most: float = math.inf
) -> Span | None:
    """Return where the mean over seeds lies, over persons and seeds like these; None where a seed has no interval.

    Parameters
    ----------
    values : sequence of float
        One number per seed.
    spans : sequence of Span or None
        Where each lies over persons.
    least, most : float
        What such a number can be at all: 0 and 1 of a rate.

    Notes
    -----
    *Ours*, conservative. Seeds ask about the same test people, so that another sample of people would move all of
    them together: the distance to each limit over persons is the mean of the seeds' distances, not divided by their
    number. To it is added, in squares, Student's t interval of the mean over seeds (1908, *published*), which says
    what other pools and trainings would give. What chance in single answers adds to how seeds differ is counted twice.
    With one seed the interval is over persons alone.
    """
    known = [span for span in spans if span is not None]
    if not values or len(known) < len(values):
        return None
    mean = statistics.fmean(values)
    half = 0.0
    if len(values) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    down = statistics.fmean(max(value - span.low, 0.0) for value, span in zip(values, known, strict=True))
    up = statistics.fmean(max(span.high - value, 0.0) for value, span in zip(values, known, strict=True))
    return Span(max(mean - math.hypot(down, half), least), min(mean + math.hypot(up, half), most), 0.95)

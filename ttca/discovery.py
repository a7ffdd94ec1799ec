"""Discovery: which groups among a table's columns are served worse than everybody else, with false finds controlled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.audit import Heard
from ttca.errors import ConfigError, MissingExtraError
from ttca.intervals import difference_of_counts
from ttca.statistics.comparisons import fisher_p
from ttca.statistics.two_groups import smallest_gap

__all__ = ["DISCOVERY_FILE", "LEAST", "Candidate", "Discovery", "discover"]

#: Where what was discovered is kept.
DISCOVERY_FILE = "discovered.json"
#: Groups of fewer persons, or with fewer beside them, are not tested: they could hardly be found, and every test costs.
LEAST = 20
_ERROR, _POWER = 0.05, 0.8


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One group, and everybody else of whom the same columns say something.

    Parameters
    ----------
    by, values : tuple of str
        One or two columns, and what each says of the group.
    right, persons, others_right, others : int
        Of persons, one image each.
    p : float
        One-sided, of Fisher's exact test: that the group is served no worse.
    adjusted : float
        The smallest share of false finds at which it would be found.
    """

    by: tuple[str, ...]
    values: tuple[str, ...]
    right: int
    persons: int
    others_right: int
    others: int
    p: float
    adjusted: float = 1.0

    @property
    def name(self) -> str:
        """The group, for people."""
        return " & ".join(f"{column} = {value}" for column, value in zip(self.by, self.values, strict=True))

    @property
    def gap(self) -> float:
        """By how much the others' rate of right answers is above the group's."""
        return self.others_right / self.others - self.right / self.persons

    @property
    def found(self) -> bool:
        """Whether the group is shown to be served worse."""
        return self.adjusted <= _ERROR

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        low, high = difference_of_counts((self.others_right, self.others), (self.right, self.persons))
        return {
            "by": list(self.by),
            "values": list(self.values),
            "persons": self.persons,
            "right": self.right,
            "others": self.others,
            "others_right": self.others_right,
            "gap": self.gap,
            "gap_interval": [low, high],
            "p": self.p,
            "adjusted": self.adjusted,
            "found": self.found,
        }


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Every group that was tested, those served worst first.

    Parameters
    ----------
    candidates : tuple of Candidate
    persons : int
        Whose answers there were.
    too_small : int
        Groups that were not tested, for want of people in them or beside them.
    """

    candidates: tuple[Candidate, ...]
    persons: int
    too_small: int

    @cached_property
    def found(self) -> tuple[Candidate, ...]:
        """The groups that are shown to be served worse."""
        return tuple(candidate for candidate in self.candidates if candidate.found)

    def smallest(self, share: float = 0.2) -> float | None:
        """Return how far below everybody else a group of this share would surely enough have been found (80 %).

        As if it were the only find, which is the hardest. None where none would have been.
        """
        if not self.candidates:
            return None
        tests = len(self.candidates)
        first = _ERROR / (tests * float((1 / np.arange(1, tests + 1)).sum()))
        inside = round(share * self.persons)
        outside = self.persons - inside
        right = sum(c.others_right for c in self.candidates) / sum(c.others for c in self.candidates)
        return smallest_gap(right, inside, outside, error=2 * first, power=_POWER)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "persons": self.persons,
            "tested": len(self.candidates),
            "too_small": self.too_small,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "found": [candidate.name for candidate in self.found],
            "smallest_gap_of_a_fifth": self.smallest(),
            "conclusion": self.told(),
        }

    def told(self) -> str:
        """Return the conclusion for people."""
        if not self.candidates:
            return f"No group has {LEAST} people in it and beside it, so none was tested. Ask more people: ttca audit."
        many = "1 group was" if len(self.candidates) == 1 else f"{len(self.candidates)} groups were"
        how = f"{many} tested on {self.persons:,} people; of those named, on average at most 5 % are so by chance."
        if self.found:
            listed = "; ".join(f"{c.name} ({100 * c.gap:.1f} points behind)" for c in self.found)
            return f"Served worse than everybody else: {listed}. {how}"
        smallest = self.smallest()
        least = (
            "Of so few people no group of a fifth would have been found, however large its gap. Ask more people, or "
            "let more take part."
            if smallest is None
            else f"A group of a fifth of the people would have been found with 80 % probability at "
            f"{100 * smallest:.1f} points."
        )
        return f"No gap was shown. {how} {least}"


def discover(heard: Heard) -> Discovery:
    """Return which groups among the columns, and which intersections of two, are served worse than everybody else.

    Parameters
    ----------
    heard : Heard
        One image of each person (:func:`ttca.audit.one_of_each`); what was not answered is left out.

    Raises
    ------
    ConfigError
        If there are no columns.
    MissingExtraError
        If scipy is not installed.

    Notes
    -----
    Fisher's exact test for each, one-sided, and the procedure of Benjamini and Yekutieli (Annals of Statistics 29,
    2001, *published*), which holds the share of false finds at 5 % however the tests depend on each other, as those of
    a group and its intersections do. *Ours*: which groups are tested. In simulation it finds more than a split of the
    people in a half that proposes and a half that tests (docs/audit.md).
    """
    if not heard.columns:
        raise ConfigError(
            "Expected columns to compare people by, got none. Name further columns of the people's table in columns "
            'under [people], for example columns = ["age", "skin"].'
        )
    heard = heard[heard.resolved]
    tested, too_small = [], 0
    seen: set[bytes] = set()
    for by, values, inside, known in _masks(heard):
        outside = known & ~inside
        mark = np.packbits(inside).tobytes() + np.packbits(outside).tobytes()
        # Two names of the same people are one group.
        if mark in seen:
            continue
        seen.add(mark)
        if min(inside.sum(), outside.sum()) < LEAST:
            too_small += 1
            continue
        right, others_right = int(heard.right[inside].sum()), int(heard.right[outside].sum())
        persons, others = int(inside.sum()), int(outside.sum())
        tested.append(
            Candidate(
                by=by,
                values=values,
                right=right,
                persons=persons,
                others_right=others_right,
                others=others,
                p=fisher_p(others_right, others, right, persons),
            )
        )
    adjusted = _adjusted([candidate.p for candidate in tested])
    candidates = [replace(candidate, adjusted=share) for candidate, share in zip(tested, adjusted, strict=True)]
    candidates.sort(key=lambda candidate: (candidate.p, candidate.name))
    return Discovery(candidates=tuple(candidates), persons=len(heard), too_small=too_small)


def _masks(
    heard: Heard,
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield each group: its columns, what they say of it, who is in it, and of whom they say anything."""
    said = {name: [v for v in np.unique(column).tolist() if v] for name, column in heard.columns.items()}
    for name, column in heard.columns.items():
        for value in said[name]:
            yield (name,), (value,), column == value, column != ""
    for one, other in combinations(heard.columns, 2):
        first, second = heard.columns[one], heard.columns[other]
        known = (first != "") & (second != "")
        for value in said[one]:
            for with_value in said[other]:
                yield (one, other), (value, with_value), (first == value) & (second == with_value), known


def _adjusted(p: list[float]) -> list[float]:
    if not p:
        return []
    try:
        from scipy.stats import false_discovery_control
    except ImportError as error:
        raise MissingExtraError("Looking for groups", "learn") from error
    found: list[float] = false_discovery_control(p, method="by").tolist()
    return found

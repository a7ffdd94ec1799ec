"""Sanity before money: whether the first answers fit members' own true classes, and what would fit if these do not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers, Status
from ttca.errors import SanityError
from ttca.kept import load_json, save_json
from ttca.people import People
from ttca.platforms.base import PlatformInfo
from ttca.statistics.looks import chance_of_at_least, chance_of_at_most, stopping_counts
from ttca.values import Value

__all__ = ["LOOKS", "OVERRULED_FILE", "Overruling", "Sanity"]

#: What spoke against going on, and how the platform was read then; there only once somebody went on anyway.
OVERRULED_FILE = "overruled.json"

#: After so many answers one looks.
LOOKS = (20, 30, 40)
#: How often a reference that is right a third of the way from chance to 1 may be stopped at the looks, in all.
_ALPHA = 0.01
# At the end: so sure that a platform halfway from chance to 1 would have been right more often, and so unsure that the
# reference is better than chance.
_SURE, _UNSURE = 0.005, 0.05
#: Class names are listed up to so many.
_LISTED = 12


@dataclass(frozen=True, eq=False, repr=False)
class Sanity(Value):
    """Who is asked about images as they are, with what is true of them.

    Parameters
    ----------
    truth : int64 array, shape (N,)
    persons : str array, shape (N,)
    subgroup : bool array, shape (N,)
    classes : tuple of str

    Notes
    -----
    *Ours.* Only the reference can stop an action by how often it is right, and one class for everybody by that: that
    a subgroup is served worse than chance is what actions are for. One image of each person of the reference counts,
    the first, so that persons are what the exact tests take them for: independent. Chance is 1/C. At the looks, error
    spending (:func:`ttca.statistics.looks.stopping_counts`) holds the error over all of them.
    """

    truth: NDArray[np.int64]
    persons: NDArray[np.str_]
    subgroup: NDArray[np.bool_]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, people: People, classes: Sequence[str]) -> Sanity:
        """Return what is true of these people."""
        return cls(people.classes, people.persons, people.subgroup, tuple(classes))

    @cached_property
    def parts(self) -> tuple[NDArray[np.intp], ...]:
        """The rows that are asked by each look, persons of the reference first; none where fewer are asked in all."""
        first = np.zeros(len(self.truth), np.bool_)
        first[np.unique(np.char.add(self.persons, np.where(self.subgroup, "-", "+")), return_index=True)[1]] = True
        order = np.concatenate([np.flatnonzero(chosen) for chosen in (self._one_each, first & self.subgroup)])
        rest = np.setdiff1d(np.arange(len(self.truth)), order)
        everybody = np.concatenate([order, rest])
        return tuple(everybody[:n] for n in LOOKS if n < len(everybody))

    @cached_property
    def _one_each(self) -> NDArray[np.bool_]:
        """The first image of each person of the reference."""
        chosen, rows = np.zeros(len(self.truth), np.bool_), np.flatnonzero(~self.subgroup)
        chosen[rows[np.unique(self.persons[rows], return_index=True)[1]]] = True
        return chosen

    @property
    def _chance(self) -> float:
        return 1 / len(self.classes)

    @property
    def _third(self) -> float:
        return self._chance + (1 - self._chance) / 3

    def at_look(self, look: int, answers: Answers) -> str | None:
        """Return what is wrong at a look, None for nothing.

        Parameters
        ----------
        look : int
            Index of :attr:`parts`.
        answers : Answers
            N rows, as far as they came.
        """
        sizes = []
        for part in self.parts[: look + 1]:
            right, asked = self._reference(answers, part)
            sizes.append(asked)
        few = right <= stopping_counts(tuple(sizes), self._third, _ALPHA, len(LOOKS))[-1]
        why = None
        if few:
            why = (
                f"A platform that is right a third of the way from chance to always ({100 * self._third:.0f} %) is "
                f"seen so low in fewer than {100 * _ALPHA:g} of 100 actions"
            )
        return self._told(answers, self.parts[look], why)

    def at_end(self, answers: Answers) -> str | None:
        """Return what is wrong now that everybody was asked, None for nothing."""
        rows = np.arange(len(self.truth))
        right, asked = self._reference(answers, rows)
        why = None
        if (
            asked
            and chance_of_at_least(right, asked, self._chance) > _UNSURE
            and chance_of_at_most(right, asked, (1 + self._chance) / 2) <= _SURE
        ):
            why = f"That is no better than chance ({100 * self._chance:.0f} %), as far as an exact test can tell"
        return self._told(answers, rows, why)

    # -- inside -----------------------------------------------------------------------------------------------

    def _reference(self, answers: Answers, rows: NDArray[np.intp]) -> tuple[int, int]:
        """Return how many persons of the reference got the right answer, and how many an answer."""
        counted = rows[self._one_each[rows] & answers.resolved[rows]]
        return int((answers.labels[counted] == self.truth[counted]).sum()), len(counted)

    def _told(self, answers: Answers, rows: NDArray[np.intp], why: str | None) -> str | None:
        told = rows[answers.resolved[rows]]
        named = told[answers.answered[told]]
        one = self._only_class(answers, named)
        if why is None and one is None:
            return None
        groups = [
            f"{(answers.labels[g] == self.truth[g]).sum()} of {len(g)} right for {group}"
            for group, sub in (("the reference", False), ("the subgroup", True))
            if len(g := told[self.subgroup[told] == sub])
        ]
        refused = int(np.equal(answers.status[told], Status.REFUSED).sum())
        found = f"Expected answers that fit members' own true classes, got {' and '.join(groups)}"
        found += f", {refused} of {len(told)} refused" if refused else ""
        found += "." if one is None else f", and {self.classes[one]!r} for everybody."
        if why is not None:
            found += f" {why}; only the reference counts here, one image of each person."
        return f"{found} {self._causes(answers, named, one, refused, len(told))}"

    def _only_class(self, answers: Answers, named: NDArray[np.intp]) -> int | None:
        """Return the class that everybody got, though too many of another one were among them; None for none."""
        said = np.unique(answers.labels[named])
        if len(named) < LOOKS[0] or len(said) != 1:
            return None
        # Of both groups: where even the reference gets one class, there is nothing to learn from the subgroup's.
        others = len(np.unique(self.persons[named[self.truth[named] != said[0]]]))
        # So many of other classes would hardly all be mistaken by a platform that is right a third of the way.
        return int(said[0]) if (1 - self._third) ** others <= _ALPHA / len(LOOKS) else None

    def _causes(self, answers: Answers, named: NDArray[np.intp], one: int | None, refused: int, asked: int) -> str:
        if 2 * refused > asked:
            return (
                f"The platform refused {refused} of {asked} images. Look at one answer with ttca ask: does the table "
                "look for the answer where it is? Do these images show what the platform looks for?"
            )
        counted = named[self._one_each[named]] if self._one_each.any() else named
        # Of one class for everybody any order makes some right: there, one that makes all of them right says something.
        fits = self._fitting(self.truth[counted], answers.labels[counted], all_right=one is not None)
        if fits is not None:
            return fits
        return (
            "The usual causes: classes in another order than the platform's, or numbered from 1; pixels scaled twice, "
            "or not at all; height, width and channels in another order (layout); blue and red exchanged (color "
            "order); true classes of other images. Look at one answer with ttca ask."
        )

    def _fitting(self, truth: NDArray[np.int64], said: NDArray[np.int64], *, all_right: bool) -> str | None:
        """Return the proposal of another order or numbering of classes that would fit, None where none does."""
        n, count = len(truth), len(self.classes)
        least = n if all_right else n // 2 + 1
        for told, order in self._orders(truth, said):
            right = int((order[said] == truth).sum())
            # As if each of all orders had been tried.
            tried = math.lgamma(count + 1)
            chance = chance_of_at_least(right, n, self._chance)
            better = right > (said == truth).sum()
            if better and right >= least and (chance == 0 or math.log(chance) + tried <= math.log(_UNSURE)):
                return f"{told}, {right} of {n} would be right."
        return None

    def _orders(self, truth: NDArray[np.int64], said: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield what to write, and which class each answer would then stand for."""
        count = len(self.classes)
        numbers = np.arange(count)
        if 0 not in said:
            yield "If the platform numbers its classes from 1 (first_label = 1)", (numbers - 1) % count
        if count - 1 not in said:
            yield "If the platform numbers its classes from 0 (first_label = 0)", (numbers + 1) % count
        yield from ((self._listed(o), o) for o in (numbers[::-1], _best_order(truth, said, count)))

    def _listed(self, order: NDArray[np.int64]) -> str:
        names = ", ".join(f'"{self.classes[i]}"' for i in order[:_LISTED])
        more = ", …" if len(order) > _LISTED else ""
        return f"With classes = [{names}{more}] in [platform], or labels that give its names that meaning"


def _best_order(truth: NDArray[np.int64], said: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return, for each class as said, another true one, the most frequent pairs first."""
    pairs, numbers = np.unique(np.stack([said, truth]), axis=1, return_counts=True)
    order = np.full(count, -1, np.int64)
    for i in np.argsort(-numbers, kind="stable"):
        a, b = pairs[:, i]
        if order[a] < 0 and b not in order:
            order[a] = b
    order[order < 0] = np.setdiff1d(np.arange(count), order)
    return order


class Overruling:
    """Whether an action goes on where its answers do not fit; kept in its folder, so that it is said once.

    Parameters
    ----------
    folder : Path
    info : PlatformInfo
        Of another platform, or one that is read otherwise, nothing was said.
    anyway : bool
        Whether to go on this time, and from now on.
    """

    def __init__(self, folder: Path, info: PlatformInfo, *, anyway: bool) -> None:
        self._path, self._as_read = folder / OVERRULED_FILE, info.fingerprint_as_read
        self._rereads = info.reading is not None
        kept = load_json(self._path) if self._path.is_file() else {}
        said = kept.get("said")
        #: What spoke against going on.
        self.overruled = said if isinstance(said, str) and kept.get("as_read") == self._as_read else None
        #: Whether to go on.
        self.anyway = anyway or self.overruled is not None

    def hear(self, problem: str | None) -> None:
        """Take note of what is wrong, None for nothing.

        Raises
        ------
        SanityError
            If something is, and nobody goes on anyway.
        """
        if problem is None:
            return
        if not self.anyway:
            again = (
                "A change of how answers are read costs nothing: what was paid is read again."
                if self._rereads
                else "Earlier answers are kept: a platform that was corrected, such as a model of your own, needs "
                "another version, or a new folder."
            )
            raise SanityError(
                f"{problem} {again} Nothing more is paid. If it is meant so: ttca pool run --anyway (in Python, "
                "anyway=True)."
            )
        self.overruled = problem
        save_json(self._path, {"as_read": self._as_read, "said": problem})

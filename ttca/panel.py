"""Panels: who verifies, one image of each person and group, in an order that the action's seed fixes beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.certificates import Examined
from ttca.drawing import lots, one_each
from ttca.errors import ActionError
from ttca.goals import Design
from ttca.people import People
from ttca.values import OneLine, Value

__all__ = ["MOST_OTHERS", "SIDES", "Panel", "Seating", "draw_panel", "with_empty_seats"]

#: The names of the two groups, in the order of a panel's fields.
SIDES = ("subgroup", "reference")


MOST_OTHERS = 4
"""Reference persons asked for each person of the subgroup, at most: more hardly sharpen a comparison of other people,
whose variance is that of both groups added, and every one of them costs a query."""


@dataclass(frozen=True, eq=False, repr=False)
class Seating(Value):
    """Where the people of a panel sit of whom some have left: the seat of each row, by side, and who was examined."""

    seats: Mapping[str, NDArray[np.int64]]
    examined: Examined


@dataclass(frozen=True, eq=False, repr=False)
class Panel(OneLine):
    """Who verifies.

    Parameters
    ----------
    people : People
        Verification people. Photographs are large: they are copied for whoever is asked, when they are.
    rows : dict of str to int64 (N,)
        By side, the people's rows in the order in which they are asked. Paired: row i of both is the same person.
    design : {"disjoint", "paired"}
    images : int
        That the verification people brought in all.
    every_image : bool
        Whether all images of each person are asked about, person by person.
    seating : Seating, optional
        Where some seats are empty.
    """

    people: People
    rows: Mapping[str, NDArray[np.int64]]
    design: Design
    images: int
    every_image: bool = False
    seating: Seating | None = None

    @property
    def subgroup(self) -> People:
        """Those of the subgroup, in the order in which they are asked: a copy."""
        return self.people[self.rows[SIDES[0]]]

    @property
    def reference(self) -> People:
        """Those of the reference: a copy."""
        return self.people[self.rows[SIDES[1]]]

    def examined(self) -> Examined:
        """Return what a certificate says about these people, and about those who have left."""
        if self.seating is not None:
            return self.seating.examined
        groups = [self.people.persons[self.rows[side]] for side in SIDES]
        if not self.every_image:
            return Examined(self.design, len(groups[0]), len(groups[1]), self.images)
        ours, theirs = (_images_of_each(group) for group in groups)
        return Examined(self.design, len(ours), len(theirs), self.images, (ours, theirs))

    def sitting(self, side: str, start: int, stop: int) -> tuple[People, NDArray[np.int64]]:
        """Return who sits in the seats ``start`` to ``stop - 1`` of a side, and where, counted from ``start``."""
        rows = self.rows[side]
        seats = np.arange(len(rows)) if self.seating is None else self.seating.seats[side]
        here = (seats >= start) & (seats < stop)
        return self.people[rows[here]], seats[here] - start

    def first(self, persons: int) -> People:
        """Return who sits in the first so many seats of each group, subgroup before reference."""
        return People.concatenate([self.sitting(side, 0, persons)[0] for side in SIDES])

    def first_seats(self, persons: int) -> dict[str, NDArray[np.int64]]:
        """Return where those of :meth:`first` sit, by side."""
        return {side: self.sitting(side, 0, persons)[1] for side in SIDES}


def draw_panel(people: People, *, seed: int, every_image: bool = False) -> Panel:
    """Draw one image of every person and group, and the order in which persons are asked.

    Parameters
    ----------
    people : People
        Verification people of both groups, or of the subgroup alone.
    seed : int
        The action's.
    every_image : bool
        Keep all images of every person instead; then nobody may be in both groups.

    Returns
    -------
    Panel
        *Paired* where at least half of the persons are in both groups: the others are left out, since nothing can be
        compared with them. *Disjoint* otherwise: who is in both groups all the same is drawn into one, and of the
        reference at most :data:`MOST_OTHERS` persons are asked for each of the subgroup.

    Raises
    ------
    ActionError
        If nobody of the subgroup is left.

    Notes
    -----
    *Ours*. Drawn by image (:mod:`ttca.drawing`): names and the order of a table say nothing of who is asked first.
    Several images of one person are no further persons: counted as such, they make every test claim too much.
    """

    def drawn(kept: NDArray[np.str_], group: bool) -> NDArray[np.intp]:
        rows = np.flatnonzero((people.subgroup == group) & np.isin(people.persons, kept))
        return one_each(people, people.persons, rows, seed=seed, purpose="panel")

    names = {group: np.unique(people.persons[people.subgroup == group]) for group in (True, False)}
    both = np.intersect1d(names[True], names[False])
    if every_image:
        if len(both):
            raise ActionError(
                f"Expected other persons in the reference than in the subgroup, got {len(both)} in both. The test that "
                "counts every image compares different people. Leave out every_image. No query was spent."
            )
        rows = [_all_of(people, people.persons[drawn(names[group], group)], group) for group in (True, False)]
        return Panel(people, dict(zip(SIDES, rows, strict=True)), "disjoint", len(people), every_image=True)
    everybody = len(names[True]) + len(names[False]) - len(both)
    if len(both) and 2 * len(both) >= everybody:
        mine, theirs = drawn(both, True), drawn(both, False)
        # In the same order of persons.
        place = np.argsort(np.argsort(people.persons[mine]))
        chosen = [mine, theirs[np.argsort(people.persons[theirs])][place]]
        return Panel(people, dict(zip(SIDES, chosen, strict=True)), "paired", len(people))
    mine = drawn(both, True)
    heads = mine[lots(people, seed=seed, purpose="which group")[mine] % 2 == 0]
    into_subgroup = np.isin(both, people.persons[heads])
    kept = {
        True: np.setdiff1d(names[True], both[~into_subgroup]),
        False: np.setdiff1d(names[False], both[into_subgroup]),
    }
    if not len(kept[True]):
        raise ActionError(
            "Expected verification people of the subgroup, got nobody who is not in the reference too. Give "
            "verification a larger share of the people."
        )
    subgroup, reference = (drawn(kept[g], g) for g in (True, False))
    rows_of = dict(zip(SIDES, (subgroup, reference[: MOST_OTHERS * len(subgroup)]), strict=True))
    return Panel(people, rows_of, "disjoint", len(people))


def with_empty_seats(people: People, rows: Mapping[str, Sequence[int | None]], examined: Examined) -> Panel:
    """Return a panel as it was drawn, without those who have left it.

    Parameters
    ----------
    people : People
        Verification people.
    rows : dict
        By side, the row of whoever sits there, seat by seat; None for an empty seat.
    examined : Examined
        Who sat there when it was drawn.
    """
    there = {side: [(i, row) for i, row in enumerate(rows.get(side, ())) if row is not None] for side in SIDES}
    seats = {side: np.array([i for i, _ in found], np.int64) for side, found in there.items()}
    kept = {side: np.array([row for _, row in found], np.int64) for side, found in there.items()}
    every_image = examined.layout is not None
    return Panel(people, kept, examined.design, examined.images, every_image, Seating(seats, examined))


def _all_of(people: People, order: NDArray[np.str_], subgroup: bool) -> NDArray[np.intp]:
    """Return the rows of all images of these persons in this group, in this order of persons."""
    rows = np.flatnonzero(people.subgroup == subgroup)
    place = {name: i for i, name in enumerate(order.tolist())}
    return rows[np.argsort([place[name] for name in people.persons[rows].tolist()], kind="stable")]


def _images_of_each(group: NDArray[np.str_]) -> tuple[int, ...]:
    """Return how many images each person has, in the order of the persons' rows."""
    new = np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]
    return tuple(np.diff(np.append(np.flatnonzero(new), len(group))).tolist())

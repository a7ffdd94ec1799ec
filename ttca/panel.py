"""Panels: who verifies, one image of each person and group, in an order that the action's seed fixes beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.goals import Design
from ttca.people import People
from ttca.values import OneLine

__all__ = ["Panel", "draw_panel"]


@dataclass(frozen=True, eq=False, repr=False)
class Panel(OneLine):
    """Who verifies.

    Parameters
    ----------
    subgroup, reference : People
        One image per person, in the order in which they are asked. Paired: row i of both is the same person.
    design : {"disjoint", "paired"}
    images : int
        That the verification people brought in all.
    """

    subgroup: People
    reference: People
    design: Design
    images: int

    def first(self, persons: int) -> People:
        """Return the first so many persons of each group, subgroup before reference."""
        return People.concatenate([self.subgroup[:persons], self.reference[:persons]])


def draw_panel(people: People, *, seed: int) -> Panel:
    """Draw one image of every person and group, and the order in which persons are asked.

    Parameters
    ----------
    people : People
        Verification people of both groups, or of the subgroup alone.
    seed : int
        The action's.

    Returns
    -------
    Panel
        *Paired* where at least half of the persons are in both groups: the others are left out, since nothing can be
        compared with them. *Disjoint* otherwise: who is in both groups all the same is drawn into one.

    Raises
    ------
    ActionError
        If nobody of the subgroup is left.

    Notes
    -----
    *Ours*. Several images of one person are no further persons: counted as such, they make every test claim too much.
    """
    rng = np.random.default_rng([seed, 0x70656F])
    names = {group: np.unique(people.persons[people.subgroup == group]) for group in (True, False)}
    both = np.intersect1d(names[True], names[False])
    everybody = len(names[True]) + len(names[False]) - len(both)
    if len(both) and 2 * len(both) >= everybody:
        order = rng.permutation(both)
        chosen = [_one_each(people, order, group, rng) for group in (True, False)]
        return Panel(people[chosen[0]], people[chosen[1]], "paired", len(people))
    into_subgroup = rng.random(len(both)) < 0.5
    kept = {
        True: np.setdiff1d(names[True], both[~into_subgroup]),
        False: np.setdiff1d(names[False], both[into_subgroup]),
    }
    if not len(kept[True]):
        raise ActionError(
            "Expected verification people of the subgroup, got nobody who is not in the reference too. Give "
            "verification a larger share of the people."
        )
    subgroup, reference = (people[_one_each(people, rng.permutation(kept[g]), g, rng)] for g in (True, False))
    return Panel(subgroup, reference, "disjoint", len(people))


def _one_each(people: People, order: NDArray[np.str_], subgroup: bool, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the row of one random image of each person in this group, in this order of persons."""
    rows = rng.permutation(np.flatnonzero(people.subgroup == subgroup))
    names, first = np.unique(people.persons[rows], return_index=True)
    return rows[first[np.searchsorted(names, order)]]

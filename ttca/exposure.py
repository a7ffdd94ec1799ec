"""Exposure: whether the published δ may give away who took part, since it was learned on few people's pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttca.people import People, Roster

__all__ = ["ENOUGH_LEARNERS", "exposure", "learners_per_class"]

ENOUGH_LEARNERS = 30
"""With fewer persons of the subgroup in some class, people are warned."""


def learners_per_class(roster: Roster, classes: Sequence[str]) -> dict[str, int]:
    """Return on how many persons' pictures the δ of each class is learned, by the class's name.

    Public views are no members: they are not counted.
    """
    asked = roster.pool if roster.unasked is None else People.concatenate([roster.pool, roster.unasked])
    learned = asked[asked.subgroup]
    return {name: len(np.unique(learned.persons[learned.classes == i])) for i, name in enumerate(classes)}


def exposure(roster: Roster, classes: Sequence[str]) -> str | None:
    """Return a warning where some class has fewer learners than :data:`ENOUGH_LEARNERS`, else None.

    Notes
    -----
    *Ours*. With 11 learners a class, a membership test on the published file reached a mean area under the ROC curve of
    .66, where chance reaches .5. That 30 are enough is not shown: it is where we stop to warn.
    """
    few = {name: n for name, n in learners_per_class(roster, classes).items() if n < ENOUGH_LEARNERS}
    if not few:
        return None
    fewest = min(few, key=lambda name: few[name])
    return (
        f"The published perturbations can give away who took part: {len(few)} of {len(classes)} classes have fewer "
        f"than {ENOUGH_LEARNERS} learners in the subgroup, {fewest!r} has {few[fewest]}. With 11 learners a class, a "
        "membership test on the published file reached a mean AUC of .66 (.5 is chance). Let more people take part, or "
        "tell those who do."
    )

"""Tests of exposure: few learners of a class are warned of, whoever else takes part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import worlds
from ttca.exposure import exposure, learners_per_class
from ttca.people import Roster


def with_learners(*counts: int) -> Roster:
    """Return the tiny world with so many pool people of the subgroup in each class."""
    roster = worlds.roster()
    pool = roster.pool
    kept = [np.flatnonzero(pool.subgroup & (pool.classes == c))[:n] for c, n in enumerate(counts)]
    return replace(roster, pool=pool[np.concatenate([*kept, np.flatnonzero(~pool.subgroup)])])


@pytest.mark.parametrize(("counts", "few"), [((30, 30, 30), 0), ((30, 29, 30), 1), ((11, 12, 33), 2)])
def test_fewer_than_thirty_learners_of_a_class_are_warned_of(counts: tuple[int, ...], few: int) -> None:
    """The class with the fewest is named, and volunteers of the reference count for nothing."""
    roster = with_learners(*counts)
    assert tuple(learners_per_class(roster, worlds.CLASSES).values()) == counts
    said = exposure(roster, worlds.CLASSES)
    if not few:
        assert said is None
        return
    fewest = int(np.argmin(counts))
    assert said is not None
    assert f"{few} of 3 classes have fewer than 30 learners" in said
    assert f"{worlds.CLASSES[fewest]!r} has {counts[fewest]}." in said
    assert "mean AUC of .66" in said


def test_learners_are_persons_and_those_who_are_not_asked_count() -> None:
    """Two pictures of one person are one learner; members who are learned from unasked are learners."""
    roster = with_learners(29, 30, 30)
    first = np.flatnonzero(roster.pool.classes == 0)[:2]
    twice = roster.pool.persons.copy()
    twice[first[1]] = twice[first[0]]
    alike = replace(roster, pool=replace(roster.pool, persons=twice))
    assert learners_per_class(alike, worlds.CLASSES)["stripes"] == 28
    helped = replace(alike, unasked=worlds.crowd("unasked", 6, 0, seed=7))
    assert learners_per_class(helped, worlds.CLASSES)["stripes"] == 30
    assert exposure(helped, worlds.CLASSES) is None

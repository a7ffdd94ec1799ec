"""Tests of panels: one image per person and group, in an order that the seed fixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import ActionError
from ttca.panel import MOST_OTHERS, draw_panel
from ttca.people import People

names = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60)


def crowd(rows: list[tuple[int, bool]]) -> People:
    """Return people by (person, subgroup), every image its own."""
    images = np.arange(len(rows), dtype=np.uint8).reshape(-1, 1, 1, 1) + np.zeros((len(rows), 2, 2, 3), np.uint8)
    return People.build(
        images, np.zeros(len(rows), np.int64), persons=[f"p{who}" for who, _ in rows], subgroup=[s for _, s in rows]
    )


@given(names, st.integers(0, 5))
def test_every_person_is_asked_once(rows: list[tuple[int, bool]], seed: int) -> None:
    """No person is twice in a group; in disjoint groups none is in both, and in paired ones all are, side by side."""
    people = crowd(rows)
    if not any(sub for _, sub in rows):
        return
    try:
        panel = draw_panel(people, seed=seed)
    except ActionError:
        # Everybody of the subgroup was drawn into the reference.
        return
    for group, is_subgroup in ((panel.subgroup, True), (panel.reference, False)):
        assert len(np.unique(group.persons)) == len(group)
        assert (group.subgroup == is_subgroup).all()
    if panel.design == "paired":
        assert panel.subgroup.persons.tolist() == panel.reference.persons.tolist()
    else:
        assert not set(panel.subgroup.persons) & set(panel.reference.persons)
        # Nobody is lost, but for a reference that is many times as large.
        lost = set(people.persons) - {*panel.subgroup.persons, *panel.reference.persons}
        assert not lost or len(panel.reference) == MOST_OTHERS * len(panel.subgroup)
    assert panel.images == len(people)


@given(names, st.integers(0, 5))
def test_the_seed_fixes_the_panel(rows: list[tuple[int, bool]], seed: int) -> None:
    """The same people and seed give the same images in the same order."""
    people = crowd([*rows, (99, True)])
    one, two = (draw_panel(people, seed=seed) for _ in range(2))
    assert one.first(5).digest() == two.first(5).digest()
    assert one.subgroup.digest() == two.subgroup.digest()


def test_an_image_is_drawn_fairly() -> None:
    """Over seeds, each image of a person is asked about as often as the others."""
    people = crowd([(0, True)] * 4 + [(1, True)])
    first = [
        int(p.subgroup.images[p.subgroup.persons == "p0"][0, 0, 0, 0])
        for p in (draw_panel(people, seed=s) for s in range(400))
    ]
    assert np.bincount(first, minlength=4).min() > 60


def test_people_in_both_groups_are_pairs_or_are_drawn_into_one() -> None:
    """Where most people are in both groups they are compared with themselves; a few in both are drawn into one."""
    both = [(i, sub) for i in range(6) for sub in (True, False)]
    assert draw_panel(crowd([*both, (50, True)]), seed=0).design == "paired"
    few = [(0, True), (0, False), *((i, i % 2 == 0) for i in range(1, 13))]
    sides = {len(draw_panel(crowd(few), seed=seed).subgroup) for seed in range(20)}
    assert draw_panel(crowd(few), seed=0).design == "disjoint"
    assert sides == {6, 7}


def test_somebody_of_the_subgroup_must_be_left() -> None:
    """A panel without anybody of the subgroup is refused with a sentence."""
    with pytest.raises(ActionError, match="verification people of the subgroup"):
        draw_panel(crowd([(0, False)]), seed=0)


def test_all_images_stand_person_by_person() -> None:
    """With every image, each person's images follow each other and are counted; nobody is in both groups."""
    people = crowd([(0, True), (1, True), (0, True), (2, False), (3, False), (2, False), (2, False)])
    panel = draw_panel(people, seed=1, every_image=True)
    examined = panel.examined()
    assert (examined.persons, examined.others, examined.images) == (2, 2, 7)
    assert examined.layout is not None
    assert [sorted(part) for part in examined.layout] == [[1, 2], [1, 3]]
    for group, counts in zip((panel.subgroup, panel.reference), examined.layout, strict=True):
        starts = np.cumsum([0, *counts[:-1]])
        assert len({group.persons[start] for start in starts}) == len(counts)
    with pytest.raises(ActionError, match="in both"):
        draw_panel(crowd([(0, True), (0, False), (1, True)]), seed=0, every_image=True)

"""Who leaves or joins changes hardly anybody else's turn, and what was paid goes on counting."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.asking import only_equalized, turn_of
from ttca.audit import draw_sample
from ttca.drawing import drawn_order, one_each
from ttca.people import People, Roster
from ttca.settings import Settings

_PLANS = [
    Settings(name="a", subgroup="g", recipe="auto"),
    Settings(name="a", subgroup="g", recipe="auto", seed=3, race_share=0.3),
    Settings(name="a", subgroup="g", recipe="manual", altered=0.4, rounds=2, refine=0.1),
]


def people_of(number: int, *, first: int = 0, persons: Any = None) -> People:
    """Return distinct images of two classes and two groups."""
    images = np.zeros((number, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(first, first + number), 256)
    rows = np.arange(number)
    persons = [f"p{row}" for row in rows + first] if persons is None else persons
    return People.build(images, rows % 2, persons=persons, subgroup=rows % 3 > 0)


def roster_of(pool: People) -> Roster:
    """Return a roster of this pool and others."""
    return Roster(pool, people_of(30, first=5000), people_of(30, first=6000))


@given(number=st.integers(20, 90), plan=st.sampled_from(_PLANS), data=st.data())
@examples(60)
def test_who_leaves_changes_few_others_turns(number: int, plan: Settings, data: st.DataObject) -> None:
    """When one person leaves the pool, of the others only those next to a border of the drawn order change turn."""
    pool = people_of(number)
    gone = data.draw(st.integers(0, number - 1))
    stay = np.arange(number) != gone
    with_all, without = roster_of(pool), roster_of(pool[stay])
    changed = turn_of(with_all, plan)[stay] != turn_of(without, plan)
    changed |= only_equalized(with_all, plan)[stay] != only_equalized(without, plan)
    assert changed.sum() <= 6


@given(number=st.integers(20, 90), plan=st.sampled_from(_PLANS), seed=st.integers(0, 99))
@examples(40)
def test_a_table_sorted_otherwise_draws_the_same(number: int, plan: Settings, seed: int) -> None:
    """The order of a table's rows changes nobody's turn, and no audit's persons."""
    pool = people_of(number)
    order = np.random.default_rng(seed).permutation(number)
    here, there = roster_of(pool), roster_of(pool[order])
    assert (turn_of(here, plan)[order] == turn_of(there, plan)).all()
    assert (only_equalized(here, plan)[order] == only_equalized(there, plan)).all()
    asked, again = (draw_sample(p, 7, seed=seed).rows for p in (pool, pool[order]))
    assert set(pool.persons[asked]) == set(pool[order].persons[again])


@given(number=st.integers(20, 90), seed=st.integers(0, 99), data=st.data())
@examples(40)
def test_an_audit_after_somebody_left_asks_hardly_anybody_anew(number: int, seed: int, data: st.DataObject) -> None:
    """An audit drawn again without one person asks at most two others who were not asked before."""
    pool = people_of(number)
    gone = data.draw(st.integers(0, number - 1))
    stay = pool[np.arange(number) != gone]
    before = set(pool.persons[draw_sample(pool, 6, seed=seed).rows])
    assert len(set(stay.persons[draw_sample(stay, 6, seed=seed).rows]) - before) <= 2


def test_many_images_bring_nobody_to_the_front() -> None:
    """One who has nine images stands among the first half of ten persons about half of the time."""
    names = ["many"] * 9 + [f"p{i}" for i in range(9)]
    pool = people_of(18, persons=names)
    rows = np.arange(18)
    orders = [one_each(pool, pool.persons, rows, seed=seed, purpose="audit") for seed in range(200)]
    assert {len(order) for order in orders} == {10}
    front = np.mean([(pool.persons[order[:5]] == "many").any() for order in orders])
    assert 0.4 < front < 0.6


def test_draws_differ_by_seed_and_purpose() -> None:
    """Another seed, or another purpose, draws another order; the same draws the same."""
    pool = people_of(60)
    first = drawn_order(pool, seed=0, purpose="race")
    assert (first == drawn_order(pool, seed=0, purpose="race")).all()
    for other in (drawn_order(pool, seed=1, purpose="race"), drawn_order(pool, seed=0, purpose="altered")):
        assert (first != other).mean() > 0.8

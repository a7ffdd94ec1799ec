"""Tests of the list of controls, from which conditions, costs and the row follow, and of what a guest may bring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_measurement import MEMBERS, OPPONENTS, OTHERS, PEOPLE, PERTURBATIONS, Oracle, proxy, run
from ttca.conditions import CONTROLS, ROW_KEYS, Control, Measuring, Scene, queries_for
from ttca.errors import ConfigError
from ttca.people import People
from ttca.row import Row


def mine(name: str = "mine", **changes: Any) -> Control:
    """Return a control that sends images as they are."""
    return Control(name=name, label="Mine", sends=lambda scene: scene.images, **changes)


def test_every_control_of_ours_has_a_key_of_the_row_and_words_for_people() -> None:
    """Names, keys and labels are each one control's, every key is the row's, and each says what it means."""
    for values in ([c.name for c in CONTROLS], [c.label for c in CONTROLS], list(ROW_KEYS)):
        assert len(set(values)) == len(CONTROLS)
    assert set(ROW_KEYS) <= set(Row.keys())
    assert {key for key in Row.keys() if key.endswith(("_control", "abuse_rate"))} < set(ROW_KEYS)  # noqa: SIM118
    assert all(c.meaning.endswith((".", "?")) for c in CONTROLS)


def test_the_cost_is_what_is_sent() -> None:
    """Over ours and a guest's of either group, as many images are asked about as the cost says."""
    controls = (*CONTROLS, mine(), mine("theirs", whose="reference"))
    oracle = Oracle()
    run(oracle, controls=controls)
    assert sum(map(len, oracle.asked)) == queries_for(controls, PEOPLE) == 10 * len(MEMBERS) + 3 * len(OTHERS)


def test_a_control_may_draw_alike_in_both_its_functions() -> None:
    """The generator starts anew at every call, so that images and hits fit, whatever other controls drew."""
    scene = Scene(MEMBERS, PERTURBATIONS, OPPONENTS, proxy, seed=3)
    assert scene.rng().integers(0, 100, 5).tolist() == scene.rng().integers(0, 100, 5).tolist()
    assert (scene.wrong != scene.classes).all()
    assert np.array_equal(scene.picked, proxy(scene.images))


def accuracy(y_true: Any, y_pred: Any) -> float:
    """Return the share of right answers."""
    return float(np.mean(y_true == y_pred))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metrics": {"not a name": accuracy}}, "name of a metric as letters"),
        ({"metrics": {"accuracy": 0.5}}, "metric accuracy as a function"),
        ({"metrics": {"abuse_rate": accuracy}}, "got abuse_rate twice"),
        ({"metrics": {"queries": accuracy}}, "got queries twice"),
        ({"metrics": {"mine": accuracy}, "controls": [mine()]}, "got mine twice"),
        ({"metrics": {"a": accuracy}, "controls": [mine("a_reference_before")]}, "got a_reference_before twice"),
        ({"controls": [mine(), mine()]}, "got mine twice"),
        ({"controls": [mine("noise")]}, "got noise twice"),
        ({"controls": [mine(key="subgroup_after")]}, "no row key"),
        ({"controls": [mine(asked_as="reference")]}, "no answers from before"),
        ({"controls": [accuracy]}, "controls as ttca.Control"),
    ],
)
def test_a_name_stands_for_one_value(given: Any, said: str) -> None:
    """What could overwrite a value of ours, or pass for paid, is refused where it is made."""
    with pytest.raises(ConfigError, match=said):
        Measuring(**given)


@pytest.mark.parametrize(("given", "said"), [({"name": "a b"}, "letters"), ({"whose": "both"}, "whose images")])
def test_a_control_says_whom_it_is_about_and_how_it_is_called(given: Any, said: str) -> None:
    """A name that is no key, or people who are no group, are refused where the control is made."""
    with pytest.raises(ConfigError, match=said):
        mine(**given)


def test_what_was_checked_does_not_change_afterwards() -> None:
    """Filling the list or the table that was passed on adds nothing unchecked."""
    metrics, controls = {"accuracy": accuracy}, [mine()]
    measuring = Measuring(metrics=metrics, controls=controls)
    metrics["other"] = accuracy
    controls.append(mine("noise"))
    assert list(measuring.metrics) == ["accuracy"]
    assert [c.name for c in measuring.all_controls()] == [*(c.name for c in CONTROLS), "mine"]


@given(st.integers(1, 9), st.integers(0, 8), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_a_part_of_a_scene_is_drawn_as_the_whole_is(n: int, start: int, more: int, seed: int, left: bool) -> None:
    """Whoever is measured in parts gets the same wrong classes, with empty seats too, computed before or after."""
    images = np.zeros((n, 2, 2, 3), np.uint8)
    seats = np.arange(n) * 2 if left else None
    people = People.build(images, np.zeros(n, np.int64), subgroup=True)
    rows = slice(start, start + more)

    def whole() -> Scene:
        return Scene(people, PERTURBATIONS, OPPONENTS, lambda images: np.zeros(len(images), np.int64), seed, seats)

    expected = whole().wrong[rows].tolist()
    assert whole().part(rows).wrong.tolist() == expected
    known = whole()
    assert known.wrong[rows].tolist() == known.part(rows).wrong.tolist() == expected

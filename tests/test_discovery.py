"""Tests of discovery: which groups are tested, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import worlds
from tests.test_audit import heard
from ttca.auditing import carry_out, discover_in, intend
from ttca.discovery import LEAST, discover
from ttca.errors import ActionError, ConfigError


def crowd(seed: int, *, gap: float, n: int = 600) -> dict[str, np.ndarray]:
    """Return columns of people and whether each was answered right; of one skin in five, less often."""
    rng = np.random.default_rng(seed)
    skin, age = rng.integers(0, 5, n).astype(np.str_), rng.integers(0, 2, n).astype(np.str_)
    return {"skin": skin, "age": age, "right": rng.random(n) < np.where(skin == "0", 0.9 - gap, 0.9)}


def test_a_planted_group_is_found_and_named() -> None:
    """A group that is served 30 points worse is found, first, with its points; others are not."""
    data = crowd(0, gap=0.3)
    right = data.pop("right")
    found = discover(heard(right, [True] * 600, columns=data))
    assert found.candidates[0].by == ("skin",)
    assert {one.values[0] for one in found.found if one.by == ("skin",)} == {"0"}
    assert all("skin" in one.by for one in found.found)
    assert found.told().startswith("Served worse than everybody else: skin = 0 (")
    assert len(found.candidates) == 5 + 2 + 10
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["found"][0] == "skin = 0"


def test_where_no_group_was_shown_it_says_so() -> None:
    """Without a gap nothing is found, and the sentence says what could have been."""
    data = crowd(1, gap=0.0)
    right = data.pop("right")
    found = discover(heard(right, [True] * 600, columns=data))
    assert found.found == ()
    assert found.told().startswith("No gap was shown. 17 groups were tested on 600 people")
    assert found.smallest() is not None
    assert f"{100 * (found.smallest() or 0):.1f} points" in found.told()


@given(st.integers(0, 2**16), st.integers(10, 120))
def test_every_test_is_of_enough_people_and_each_group_is_tested_once(seed: int, n: int) -> None:
    """Each group and everybody else of whom its columns say something are counted once; small ones are not tested."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.choice(["", "a", "b", "c"], n) for name in ("x", "y")} | {"z": np.full(n, "all")}
    right = rng.random(n) < 0.7
    found = discover(heard(right, [True] * n, columns=columns))
    for one in found.candidates:
        known = np.all([columns[c] != "" for c in one.by], axis=0)
        inside = np.all([columns[c] == v for c, v in zip(one.by, one.values, strict=True)], axis=0)
        assert (one.persons, one.others) == (inside.sum(), (known & ~inside).sum())
        assert (one.right, one.others_right) == (right[inside].sum(), right[known & ~inside].sum())
        assert min(one.persons, one.others) >= LEAST
        assert one.p <= one.adjusted
    # A column that says the same of everybody makes no group, nor another name for one.
    assert all("z" not in one.by for one in found.candidates if one.by == ("z",))
    assert len({(one.persons, one.others, one.right, one.by[0]) for one in found.candidates}) <= len(found.candidates)
    assert found.found == tuple(one for one in found.candidates if one.adjusted <= 0.05)


def test_a_group_under_two_names_is_tested_once() -> None:
    """Where two columns say the same, their groups are tested once, so that no test is spent twice."""
    data = crowd(2, gap=0.3)
    right, skin = data["right"], data["skin"]
    once = discover(heard(right, [True] * 600, columns={"skin": skin}))
    twice = discover(heard(right, [True] * 600, columns={"skin": skin, "same": skin}))
    assert len(once.candidates) == len(twice.candidates) == 5


def test_no_columns_and_nobody_are_sentences(tmp_path: Path) -> None:
    """Without columns, or before anybody was asked, discovery says what to do; it never sends a query."""
    with pytest.raises(ConfigError, match="columns = "):
        discover(heard([True] * 30, [True] * 30))
    small = discover(heard([True] * 30, [True] * 30, columns={"skin": np.array(["a", "b"] * 15)}))
    assert small.candidates == ()
    assert "Ask more people" in small.told()
    platform = worlds.Recorder()
    with worlds.open_action(tmp_path, platform) as action:
        columns = {"skin": np.where(np.arange(len(action.roster.pool)) % 2, "a", "b")}
        with pytest.raises(ActionError, match="ttca audit"):
            discover_in(action, columns)
        assert platform.queries == 0
        carry_out(action, intend(action, columns, 25))
        assert platform.queries == 50
        found = discover_in(action, columns)
        assert platform.queries == 50
    assert found.persons == 50
    assert json.loads((tmp_path / "discovered.json").read_text())["tested"] == len(found.candidates)

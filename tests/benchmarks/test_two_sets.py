"""Tests of the benchmark of two perturbation sets on one input: its people, one short run, its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._document import MISSING, filled
from benchmarks._pages import two_sets as page
from benchmarks.two_sets import WAYS, main, slanted, world
from ttca.errors import ConfigError


@pytest.fixture(scope="module")
def told() -> Any:
    """Return the record of one seed, learned in a hurry."""
    return json.loads(json.dumps(main(["--seeds", "1", "--jobs", "1", "--epochs", "20", "--steps", "4", "--json"])))


def test_a_slant_moves_rows_and_nothing_else() -> None:
    """The middle stays, rows above go one way and rows below the other, and no slant changes nothing."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[0, :, 8] = 255
    np.testing.assert_array_equal(slanted(image, 0.0), image)
    columns = slanted(image, 1.0)[0, :, :, 0].argmax(axis=1)
    assert (np.diff(columns.astype(int)) == -1).all() or (np.diff(columns.astype(int)) == 1).all()
    assert 7 <= columns[7:9].mean() <= 9
    assert slanted(image[:0]).shape == (0, 16, 16, 3)


def test_nobody_acts_twice_and_nobody_tested_acts() -> None:
    """People with A, with B and with both are different people; queries of both collectives are those of `together`."""
    here = world(5)
    pools = {name: set(r.pool.persons) | set(r.selection.persons) for name, r in here.rosters.items()}
    assert not pools["a"] & pools["b"]
    assert not pools["own"] & (pools["a"] | pools["b"])
    assert pools["together"] == pools["a"] | pools["b"]
    unasked = here.rosters["together, on both"].unasked
    assert unasked is not None
    assert set(unasked.persons) == set(here.rosters["own"].pool.persons) | set(here.rosters["own"].selection.persons)
    assert {images.shape for images in here.test.values()} == {(599, 16, 16, 3)}
    acting = {image.tobytes() for r in here.rosters.values() for image in r.pool.images}
    assert not acting & {image.tobytes() for images in here.test.values() for image in images}


@pytest.mark.e2e
@pytest.mark.full
def test_every_set_meets_every_kind_of_people(told: Any) -> None:
    """Each combination, each set alone, joint learning and the controls are measured; queries are what was asked."""
    seed = told["by_seed"][0]
    both = seed["rates"]["both"]
    names = {"nothing", "δ_A", "δ_B", *(f"combined: {way}" for way in WAYS)}
    names |= {f"joint: {name}" for name in ("own", "together", "together, on both")}
    names |= {f"control: {name}" for name in ("noise", "zero-query, combined", "class-agnostic, combined")}
    assert names < set(both)
    assert names == set(seed["rates"]["a"]) == set(seed["rates"]["b"])
    for row in both.values():
        assert 0 <= row["interval"][0] <= row["rate"] <= row["interval"][1] <= 1
    queries = seed["queries"]
    assert queries["together"] == queries["a"] + queries["b"] == queries["together, on both"]
    # The platform serves either condition worse than none, and both worst.
    before = {seen: rows["nothing"]["rate"] for seen, rows in seed["rates"].items()}
    assert before["sharp"] > max(before["a"], before["b"])
    assert min(before["a"], before["b"]) > before["both"]


@pytest.mark.e2e
@pytest.mark.full
def test_the_document_takes_its_numbers_from_a_result(told: Any) -> None:
    """The table comes from a result and only from it, without one it says so, and a lost mark is refused."""
    document = (Path(__file__).parents[2] / "docs" / "training_time.md").read_text(encoding="utf-8")
    empty, written = page.tables([]), page.tables([("two_sets.json", told)])
    assert list(empty.values()) == [MISSING]
    full = filled(document, written)
    rate = told["by_seed"][0]["rates"]["both"]["combined: larger"]["rate"]
    assert f"| combined: larger | {rate:.3f} |" in written["two sets"]
    assert filled(full, empty) == filled(document, empty)
    with pytest.raises(ConfigError, match="Put them back"):
        filled("no marks", written)


def test_nonsense_is_refused() -> None:
    """No seed and no process are a sentence."""
    with pytest.raises(ConfigError, match="1 or more seeds"):
        main(["--seeds", "0"])

"""Tests of the race benchmark: one world from end to end, races run again, and what may not race on a track."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import race, transfer
from benchmarks._cells import CellKey, racing
from benchmarks._tracks import TRACKS, Track, left_out
from tests import worlds
from tests.benchmarks.test_effect import people, platform
from tests.published import onnx_file
from ttca.racing import ERROR, RaceAnswers

ARGUMENTS = [
    "--tracks", "tiny", "--queries", "150", "--epsilon", "6", "12", "--orders", "5",
    "--set", "architectures=('perceptron',)", "epochs=4", "public_epochs=4", "steps=10",
]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a tiny track among the tracks, and the cache into a folder of the test."""
    track = Track("tiny", ("scores",), platform, people, {"own": {}}, ("true-first",))
    monkeypatch.setitem(TRACKS, "tiny", track)
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TTCA_WEIGHTS", raising=False)
    return tmp_path


def test_every_candidate_is_measured_and_a_cell_is_kept(tiny: Path) -> None:
    """What is chosen is a candidate or nothing, regret is how far the best is above it, and a second run reads it."""
    result = race.main(ARGUMENTS)
    (cell,) = result["cells"]
    worth = cell["candidates"]
    assert "true-first" not in worth
    assert cell["best_of_portfolio"] == max(worth.values()) == worth[cell["best"]]
    assert cell["median_of_portfolio"] == statistics.median(worth.values())
    assert cell["chosen"] == (cell["nothing"] if cell["recipe"] == "nothing" else worth[cell["winner"]])
    assert bool(cell["serves"]) == (cell["recipe"] == "combined" or bool(cell["race"]["spared"]))
    assert cell["serves"] or cell["combined"] == cell["chosen"]
    assert result["combined_above_chosen"] == [cell["combined"] - cell["chosen"]]
    assert cell["regret"] == max(cell["best_of_portfolio"], cell["nothing"]) - cell["chosen"]
    assert 0 < cell["race"]["queries"] <= 0.4 * 150
    assert result["regret"] == cell["regret"]
    assert result["worse_than_nothing"] == 0
    assert set(result["regret_of_single_recipes"]) == set(worth)
    for point in cell["curve"]:
        assert point["asked"] <= point["queries"]
        assert 0 <= point["regret"] <= max(worth.values()) - min(worth.values())
    (kept,) = tiny.rglob("raced-5.json")
    before = kept.stat().st_mtime_ns
    assert race.main(ARGUMENTS)["cells"] == result["cells"]
    assert kept.stat().st_mtime_ns == before


def test_the_grid_and_the_race_share_an_action(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has run a cell of the grid learns nothing anew where its candidates are measured."""
    changes = {"architectures": ("perceptron",), "epochs": 4, "public_epochs": 4, "steps": 10}
    with platform("scores") as asked:
        key = CellKey("tiny", "own", "scores", 150, (6, 12), 0, racing(TRACKS["tiny"], asked, **changes))
    transfer.finish(key, ("dev-test",))

    def learns(*_: object, **__: object) -> None:
        raise AssertionError("a proxy was trained")

    monkeypatch.setattr("ttca.proxies.distillation.train_proxy", learns)
    monkeypatch.setattr("ttca.attacks.universal.SignDescent.learn", learns)
    (cell,) = race.main(ARGUMENTS)["cells"]
    assert cell["candidates"]


def test_more_queries_regret_less() -> None:
    """Where one candidate is better than the others, a long race finds it more often than a short one; where a second
    one is better for some class, long races combine the two, and what comes of it is worth more than the winner."""
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    share = np.full((4, 4), 0.6)
    share[3], share[2] = [0.95, 0.95, 0.95, 0.1], [0.6, 0.6, 0.6, 0.98]
    right = rng.random((4, 400)) < share[:, classes]

    def heard(right: NDArray[np.bool_]) -> RaceAnswers:
        return RaceAnswers(right.astype(np.float64), right)

    people, before = slice(200), rng.random(400) < 0.4
    nothing = heard(before[people])
    strangers = race.Strangers(before[200:], right[:, 200:], classes[200:])
    said = [heard(r[people]) for r in right]
    found = race.curve(
        nothing, said, classes[people], strangers, entered=dict.fromkeys(range(4), 0.5), error=ERROR, orders=40, seed=0
    )
    regrets = [point["regret_of_winner"] for point in found]
    # Whoever is not proposed leaves people as they are, which is worse here.
    assert all(p["regret"] > p["regret_of_winner"] if p["proposed"] < 1 else True for p in found)
    assert found[-1]["regret"] == pytest.approx(regrets[-1])
    assert [point["queries"] for point in found] == list(race.SHARES)
    assert regrets[-1] < regrets[0] < 0.15
    assert found[-1]["proposed"] == 1
    assert found[-1]["combined"] > 0.9
    assert found[-1]["combined_above_winner"] > 0.1
    assert found[-1]["combined_below_winner"] == 0


def test_what_knows_the_answer_does_not_race(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a track, its own hand-made recipe and weights of the platform's classes are left out, by their names."""
    (tiny / "weights").mkdir()
    monkeypatch.setenv("TTCA_WEIGHTS", str(tiny / "weights"))
    for name, classes in (("own", len(worlds.CLASSES)), ("others", 5)):
        onnx_file(tiny / "weights" / f"{name}.onnx", classes=classes)
    assert left_out(TRACKS["tiny"], classes=len(worlds.CLASSES)) == ("true-first", "own")

"""Tests of the ablations: ideas are compared person by person, on one proxy, and finished cells are not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations
from benchmarks._cells import CellKey
from benchmarks._tracks import TRACKS, Track
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.platforms.base import Platform
from ttca.statistics.comparisons import mcnemar_exact

ARGUMENTS = [
    "--track", "tiny", "--queries", "150", "--epsilon", "6", "--seeds", "2", "--ideas", "plain", "short", "logit",
    "--set", "architectures=('perceptron',)", "epochs=6", "public_epochs=4", "steps=8", "shift=0", "flip=False",
]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the tiny track among the tracks, short ideas among the ideas, and the cache into a folder of the test."""
    monkeypatch.setitem(TRACKS, "tiny", Track("tiny", ("scores", "label"), platform, people, {"own": QUICK}))
    monkeypatch.setitem(ablations.IDEAS, "short", ablations.Idea("plain", {"steps": 1}))
    monkeypatch.setitem(ablations.IDEAS, "logit", ablations.Idea("plain", {"loss": "logit"}))
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_ideas_are_paired_and_finished_cells_are_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run resumes from its cells; each idea stands beside another, on the same people, with exact tests."""
    measure, begun = ablations._cell, []

    def killed(key: CellKey, asked: Platform, idea: ablations.Idea) -> dict[str, object]:
        begun.append((key.seed, idea.changes.get("steps", idea.changes.get("loss", ""))))
        if len(begun) == 5:
            raise KeyboardInterrupt
        return measure(key, asked, idea)

    monkeypatch.setattr(ablations, "_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        ablations.main(ARGUMENTS)
    result = ablations.main(ARGUMENTS)
    # The fifth cell was lost, and no other.
    assert begun == [(0, ""), (0, 1), (0, "logit"), (1, ""), (1, 1), (1, 1), (1, "logit")]
    assert ablations.main(ARGUMENTS) == result
    assert len(begun) == 7
    assert json.loads(json.dumps(result)) == result
    assert result["file"] == "ablations-tiny-own-scores-q150-e6"
    assert (result["people"], result["settings"]["weights"]) == ("dev-test", "none")
    right = {(c["seed"], c["idea"]): ablations._right(c) for c in result["cells"]}
    fidelity = {(c["seed"], c["idea"]): c["fidelity"] for c in result["cells"]}
    for idea in ("short", "logit"):
        said = result["ideas"][idea]
        assert said["against"] == "plain"
        for seed in (0, 1):
            one, other = right[seed, "plain"], right[seed, idea]
            assert one.shape == other.shape == (60,)
            assert said["subgroup_after"][seed] == pytest.approx(other.mean())
            assert (said["won"][seed], said["lost"][seed]) == (np.sum(~one & other), np.sum(one & ~other))
            assert said["mcnemar_p"][seed] == mcnemar_exact(one, other)
            # One proxy a seed: what differs is how δ was learned.
            assert fidelity[seed, idea] == fidelity[seed, "plain"]
    assert "against" not in result["ideas"]["plain"]
    assert result["ideas"]["short"]["mean"] < result["ideas"]["plain"]["mean"]


def test_every_idea_stands_beside_another_and_changes_a_setting() -> None:
    """What an idea changes is a setting of an action, and what it is compared with is an idea itself."""
    for name, idea in ablations.IDEAS.items():
        assert (idea.against in ablations.IDEAS) == (name != "plain")
        assert idea.changes or name == "plain"
    with pytest.raises(TypeError, match="stepz"):
        ablations.Idea("plain", {"stepz": 3})

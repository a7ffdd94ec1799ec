"""Tests of the effect benchmark: one cell from end to end on a tiny track, and what its result says."""

from __future__ import annotations

import importlib
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as runner
from benchmarks import bounds, effect, quick
from benchmarks._cells import acting, settings_of
from benchmarks._tracks import TRACKS, Cell, Track
from tests import worlds
from tests.published import onnx_file
from ttca.errors import ConfigError
from ttca.people import People, Roster
from ttca.platforms.base import Platform
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.row import Row
from ttca.settings import Settings

QUICK = {"architectures": ("perceptron",), "epochs": 8, "public_epochs": 4, "steps": 10, "shift": 0}


def people(queries: int, regime: str, seed: int, final: bool) -> Cell:
    """Return a cell of the tiny world with so many queries."""
    asked = 4 * queries // 5
    return Cell(
        roster=Roster(
            pool=worlds.crowd("pool", 2 * asked // 3, asked - 2 * asked // 3, seed=seed),
            selection=worlds.crowd("selection", (queries - asked) // 2, (queries - asked + 1) // 2, seed=seed + 50),
            verification=worlds.crowd("verification", 60, 60, seed=1000),
        ),
        load_test=lambda: worlds.crowd("final" if final else "test", 60, 60, seed=3000 if final else 2000),
        public=worlds.crowd("public", 50, 50, seed=4000) if regime == "public" else None,
        views=worlds.crowd("view", 30, 0, seed=5000) if regime == "public" else None,
    )


@contextmanager
def platform(answers: str) -> Iterator[Platform]:
    """Open the tiny world's platform."""
    tiny = LocalPlatform(worlds.model, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny")
    yield WithHabits(tiny, Habits(label_only=answers == "label"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the tiny track among the tracks, and the cache and the results into a folder of the test."""
    track = Track("tiny", ("scores", "label"), platform, people, {"own": QUICK, "public": {**QUICK, "rounds": 1}})
    monkeypatch.setitem(TRACKS, "tiny", track)
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    return tmp_path


ARGUMENTS = ["--track", "tiny", "--queries", "150", "--epsilon", "6", "12", "--answers", "scores", "--seeds", "2"]


def test_a_cell_gives_one_honest_row_per_seed_with_mean_and_spread(tiny: Path) -> None:
    """Every key of the row is there for every seed, and the summary is theirs."""
    result = effect.main([*ARGUMENTS, "--regime", "public"])
    rows = [Row(**row) for row in result["rows"]]
    assert [row.seed for row in rows] == [0, 1]
    assert all(row.queries == row.queries_pool == 150 for row in rows)
    assert all((row.regime, row.answers, row.track) == ("public", "scores", "tiny") for row in rows)
    assert all(value is not None for row in result["rows"] for value in row.values())
    after = [row.subgroup_after for row in rows]
    assert result["mean"]["subgroup_after"] == pytest.approx(sum(after) / 2)
    assert result["standard_deviation"]["subgroup_after"] == pytest.approx(abs(after[0] - after[1]) / 2**0.5)
    assert result["parity_certified"] == sum(bool(row.parity_certified) for row in rows)
    assert len(result["zero_query_mcnemar_p"]) == len(result["certificates"]) == 2
    assert rows[0].composition["altered"] > 0
    assert json.loads(json.dumps(result)) == result


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux sets the peak back")
def test_each_seed_states_its_own_peak_of_memory() -> None:
    """What another program part once held does not stand in the row of a later seed."""
    held = np.ones(400 << 20, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del held
    result = effect.main([*ARGUMENTS, "--seeds", "1"])
    assert result["rows"][0]["peak_rss_mb"] < before - 200


@pytest.mark.full
def test_a_public_proxy_is_made_once_for_the_whole_grid(tiny: Path) -> None:
    """The second cell of a seed starts from the first one's public proxy, and gets the same row from it."""
    first = effect.main([*ARGUMENTS, "--regime", "public"])
    kept = sorted((tiny / "cache" / "public-proxies").iterdir())
    assert len(kept) == 2
    stamps = [p.read_bytes() for p in kept]
    shutil.rmtree(tiny / "cache" / "finished-cells")
    again = effect.main([*ARGUMENTS, "--regime", "public"])
    assert [p.read_bytes() for p in kept] == stamps
    assert [row["subgroup_after"] for row in again["rows"]] == [row["subgroup_after"] for row in first["rows"]]


def test_settings_on_the_command_line_reach_the_action() -> None:
    """``--set`` changes a setting of the track, is written into the result, and its mistakes are sentences."""
    result = effect.main(
        [*ARGUMENTS, "--seeds", "1", "--set", "rounds=2", "transforms=('blur',)", "loss=cross-entropy"]
    )
    assert result["settings"]["rounds"] == 2
    assert result["settings"]["transforms"] == ["blur"]
    assert result["settings"]["loss"] == "cross-entropy"
    for wrong in ("rounds", "round=2", "=2"):
        with pytest.raises(ConfigError, match="Expected a setting as NAME=VALUE"):
            effect.main([*ARGUMENTS, "--set", wrong])


def test_final_people_are_measured_only_when_asked_for() -> None:
    """``--final`` measures other people, and says so in the result and in its file's name."""
    dev, final = (effect.main([*ARGUMENTS, "--seeds", "1", *extra]) for extra in ([], ["--final"]))
    assert (dev["people"], final["people"]) == ("dev-test", "final")
    assert dev["file"] == "effect-tiny-public-scores-q150-e6-12"
    assert final["file"] == dev["file"] + "-final"
    assert dev["rows"][0]["certificate_lower"] == final["rows"][0]["certificate_lower"]
    assert dev["rows"][0]["reference_before"] != final["rows"][0]["reference_before"]


def test_answers_that_a_platform_cannot_give_are_refused() -> None:
    """A platform that never gives top-k is not measured as if it did."""
    with pytest.raises(ConfigError, match="Expected the answers to be one of scores, label for tiny, got top-k"):
        effect.main([*ARGUMENTS, "--answers", "top-k"])


def test_equalising_alone_is_measured_beside_what_delta_does() -> None:
    """Where cameras are equalised, the result says how many that alone puts right; elsewhere it says nothing."""
    arguments = [*ARGUMENTS, "--seeds", "1", "--regime", "own"]
    (nothing,) = effect.main(arguments)["equalised_without_delta"]
    result = effect.main([*arguments, "--set", "equalize=True"])
    (alone,) = result["equalised_without_delta"]
    assert nothing is None
    # The tiny world's subgroup has fainter patterns, which equalising makes stronger.
    assert alone > result["rows"][0]["subgroup_before"]


def test_a_regime_that_a_track_does_not_have_is_refused() -> None:
    """Where a track's other pool people are its public data, they are not counted as members who are not asked."""
    with pytest.raises(ConfigError, match="Expected the regime to be one of own, public for tiny, got own-unasked"):
        effect.main([*ARGUMENTS, "--regime", "own-unasked"])


def test_every_cell_is_kept_in_a_file_of_its_own(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The runner writes one file per cell with commit and circumstances, so that a grid's cells never overwrite."""
    assert runner.main(["effect", *ARGUMENTS, "--seeds", "1", "--json", "--keep"], tiny / "results") == 0
    path = tiny / "results" / "effect-tiny-public-scores-q150-e6-12.json"
    record = json.loads(path.read_text())
    assert record["benchmark"] == "effect"
    assert "file" not in record
    assert record["rows"][0]["track"] == "tiny"
    assert json.loads(capsys.readouterr().out) == record


def test_a_killed_run_goes_on_from_its_finished_cells(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second cell, a run is made again from the first one's file, and says what it would have said."""
    run, began = effect.run_cell, []

    def killed(track: Track, platform: Platform, settings: Settings, **more: Any) -> Any:
        began.append(settings.seed)
        if began == [0, 1]:
            raise KeyboardInterrupt
        return run(track, platform, settings, **more)

    monkeypatch.setattr(effect, "run_cell", killed)
    arguments = [*ARGUMENTS, "--regime", "own"]
    with pytest.raises(KeyboardInterrupt):
        effect.main(arguments)
    files = sorted((tiny / "cache" / "finished-cells" / "effect").iterdir())
    (first,) = [json.loads(path.read_text()) for path in files]
    assert first["facts"]["seed"] == first["cell"]["row"]["seed"] == 0
    told = {"people", "row", "certificate", "zero_query_mcnemar_p", "race", "equalised_without_delta"}
    assert first["cell"].keys() == told
    resumed = effect.main(arguments)
    assert began == [0, 1, 1]
    assert resumed["rows"][0] == first["cell"]["row"]
    # A third run does nothing anew, and other settings are other cells.
    assert effect.main(arguments) == resumed
    assert began == [0, 1, 1]
    effect.main([*arguments, "--seeds", "1", "--set", "steps=9"])
    assert began == [0, 1, 1, 0]


def test_the_queries_of_a_row_are_all_that_was_paid_before_verification(tiny: Path) -> None:
    """Selection people, altered copies and probes count: the ledger was charged for so many before verification."""
    track = TRACKS["tiny"]
    chosen = {**QUICK, "true_classes": True, "rounds": 1, "altered": 0.5, "refine": 0.3}
    with track.open_platform("scores") as opened:
        settings = settings_of(track, chosen, epsilons=(6, 12), seed=0)
        with acting(track, opened, settings, queries=150, regime="own", home=tiny) as found:
            found.action.learn()
            before = sum(found.action.ledger.paid(action=settings.name).values())
            found.action.verify()
            row, _ = found.measure("tiny", found.cell.test)
            paid = found.action.ledger.paid(action=settings.name)
    assert row.queries == row.queries_pool == before
    assert before <= 150
    assert sum(paid.values()) == before + row.queries_baseline + row.queries_verification


@pytest.mark.full
def test_the_quick_grid_learns_from_nothing_and_says_what_it_took(tiny: Path) -> None:
    """Two budgets share one public proxy that no earlier run has left, and time and memory are those of all."""
    quick.main(["--track", "tiny"])
    result = quick.main(["--track", "tiny"])
    assert [c["row"]["queries"] for c in result["cells"]] == [500, 2000]
    assert all(c["certificate"]["family"] == [8, 4, 2] for c in result["cells"])
    assert result["seconds"] > sum(c["row"]["seconds"] for c in result["cells"]) * 0.9
    assert result["peak_rss_mb"] == max(c["row"]["peak_rss_mb"] for c in result["cells"])
    assert not (tiny / "cache" / "public-proxies").exists()


def test_the_tiny_cell_has_nobody_twice() -> None:
    """What the tests above measure on stands in no other role."""
    cell = people(150, "public", 0, False)
    assert isinstance(cell.public, People)
    Roster(cell.roster.pool, cell.roster.selection, cell.roster.verification, cell.test)


def test_the_slices_are_of_all_benchmarks_and_a_failure_stops_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every benchmark says what its slice is; one that fails is named, and the next is run."""
    for name in quick.slices():
        arguments = importlib.import_module(f"benchmarks.{name}").QUICK
        assert isinstance(arguments, tuple)
        assert all(isinstance(a, str) for a in arguments)
    monkeypatch.setattr(effect, "QUICK", (*ARGUMENTS, "--answers", "top-k"))
    monkeypatch.setattr(bounds, "QUICK", ("--actions", "5", "--persons", "20"))
    result = quick.main(["--only", "effect", "bounds"])
    assert result["failed"] == ["effect"]
    assert "Expected the answers to be one of" in result["slices"]["effect"]["failed"]
    assert result["slices"]["bounds"]["numbers"]
    assert result["seconds"] == sum(s["seconds"] for s in result["slices"].values())
    assert "quick" not in quick.slices()


def test_weights_are_named_and_checked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies on a machine, a row has the weights that it names, and none for the platform's own classes."""
    monkeypatch.setenv("TTCA_WEIGHTS", str(tiny))
    own, others = (onnx_file(tiny / f"{n}.onnx", classes=n) for n in (len(worlds.CLASSES), 5))
    where = [*ARGUMENTS[:-1], "1", "--regime", "own", "--set", "architectures=('small-cnn',)"]
    assert "backbones" not in effect.main(where)["rows"][0]
    (row,) = effect.main([*where, f"weights={others}", "refine=1.0", "true_classes=True", "epochs=2"])["rows"]
    assert [b["name"] for b in row["backbones"]] == ["5"]
    with pytest.raises(ConfigError, match="published for 3 classes itself"):
        effect.main([*where, f"weights={own}"])

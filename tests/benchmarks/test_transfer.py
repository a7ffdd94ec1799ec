"""Tests of the grid: cells are kept, gone on with, summarised, repeated to the last digit, and never lack a control."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import _cells, _engines, transfer
from benchmarks._cells import CellKey
from benchmarks._engines import Engine
from benchmarks._tracks import TRACKS, Cell, Track
from benchmarks.transfer import Grid
from tests.benchmarks.cells import in_this_process
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.action import CollectiveAction
from ttca.errors import ConfigError, WorthlessProxyError
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.row import Row


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a tiny track and a tiny grid of two budgets in place, and the cache into a folder of the test."""
    track = Track("tiny", ("scores", "label"), platform, people, {"own": QUICK, "public": {**QUICK, "rounds": 1}})
    monkeypatch.setitem(TRACKS, "tiny", track)
    monkeypatch.setitem(transfer.GRIDS, "quick", Grid((100, 150), (6, 12), (), ("public",)))
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path))
    return tmp_path


ARGUMENTS = ["--track", "tiny", "--seeds", "2"]


#: An ε that the tests did not reach has no bound; where no gap was shown there is none to close.
MAY_BE_NONE = ("certificate_lower", "gap_closed")


def test_a_grid_has_a_whole_honest_row_for_every_cell_epsilon_and_people(tiny: Path) -> None:
    """Every combination is there once, with all keys of the row, and the summary is that of its rows."""
    result = transfer.main([*ARGUMENTS, "--people", "dev-test", "final"])
    assert result["file"] == "transfer-quick-tiny"
    rows = [row for cell in result["cells"] for row in cell["rows"]]
    assert all(set(row["row"]) == set(Row.keys()) for row in rows)
    assert not [k for row in rows for k, v in row["row"].items() if v is None and k not in MAY_BE_NONE]
    names = {(r["people"], r["row"]["queries"], r["row"]["epsilon"], r["row"]["seed"]) for r in rows}
    assert names == {(p, q, e, s) for p in ("dev-test", "final") for q in (100, 150) for e in (6, 12) for s in (0, 1)}
    assert len(rows) == len(names)
    assert len(result["summary"]) == 8
    for part in result["summary"]:
        mine = [
            r["row"]["subgroup_after"]
            for r in rows
            if (r["people"], r["row"]["queries"], r["row"]["epsilon"])
            == (part["people"], part["queries"], part["epsilon"])
        ]
        assert part["seeds"] == 2
        assert part["mean"]["subgroup_after"] == pytest.approx(sum(mine) / 2)
    # The answers about test people would fill the disk, and are in the rows.
    assert not list(tiny.glob("cells/*/evaluation.sqlite*"))
    assert json.loads(json.dumps(result)) == result


def test_test_people_are_loaded_when_all_is_learned(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs of test people take no memory while an action learns: they are loaded behind its verification."""
    verified: list[bool] = []

    def watched(queries: int, regime: Any, seed: int, final: bool) -> Cell:
        cell = people(queries, regime, seed, final)

        def load() -> People:
            verified.append(any(tiny.glob("cells/*/action/certificate.json")))
            return cell.load_test()

        return replace(cell, load_test=load)

    monkeypatch.setitem(TRACKS, "tiny", replace(TRACKS["tiny"], people=watched))
    transfer.finish(CellKey("tiny", "own", "scores", 100, (6, 12)), ("dev-test", "final"))
    assert verified == [True, True]


@pytest.mark.full
def test_a_finished_cell_is_not_run_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call reads everything back, without a platform, and says the same."""
    first = transfer.main(ARGUMENTS)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("Every cell was finished.")

    monkeypatch.setattr(transfer, "opened", never)
    again = transfer.main(ARGUMENTS)
    assert again["cells"] == first["cells"]
    # Nothing is sent anywhere, either.
    assert transfer.main([*ARGUMENTS, "--jobs", "2"])["cells"] == first["cells"]
    with pytest.raises(AssertionError):
        transfer.main([*ARGUMENTS, "--fresh"])


def test_a_killed_cell_goes_on_where_it_was(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned before a kill is read back: the perturbations are not learned again, and the row is the same."""
    whole = transfer.main([*ARGUMENTS, "--seeds", "1"])
    key = next(iter(transfer.grid_keys("tiny", "quick", 1)))
    deltas = sorted((key.home() / "action" / "perturbations").iterdir())
    stamps = [d.stat().st_mtime_ns for d in deltas]
    (key.home() / "rows.json").unlink()
    again = transfer.main([*ARGUMENTS, "--seeds", "1"])
    assert [d.stat().st_mtime_ns for d in deltas] == stamps
    assert transfer._without_clocks(again["cells"]) == transfer._without_clocks(whole["cells"])


@pytest.mark.full
def test_running_a_cell_twice_gives_the_same_row_to_the_last_digit() -> None:
    """Nothing but clocks and memory differs between two runs; a number that differs would be named."""
    result = transfer.main([*ARGUMENTS, "--seeds", "1", "--repeat", "2"])
    assert result["repeated"] == {"cells": 2, "differing": []}
    assert sorted(transfer._differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}], "c": 0})) == ["/a/1/b", "/c"]


@pytest.mark.full
def test_cells_in_parallel_are_those_in_turn(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time give the rows that one at a time gives."""
    keys = list(transfer.grid_keys("tiny", "quick", 1))
    in_turn = transfer._finished(keys, ("dev-test",), Engine())
    for kept in tiny.glob("cells/*/rows.json"):
        kept.unlink()
    # In this process: one of its own would not know this test's track.
    monkeypatch.setattr(_engines, "numbered", in_this_process)
    in_parallel = transfer._finished(keys, ("dev-test",), Engine(jobs=2, threads=torch.get_num_threads()))
    assert transfer._without_clocks(in_parallel) == transfer._without_clocks(in_turn)


def test_an_action_that_is_not_possible_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell whose proxy is worth nothing says so in its place, and the others are measured."""
    tried = []

    def stubborn(self: Any) -> Any:
        tried.append(self)
        if len(tried) == 1:
            raise WorthlessProxyError("Expected a proxy, got none.")
        return verify(self)

    verify = CollectiveAction.verify
    monkeypatch.setattr(CollectiveAction, "verify", stubborn)
    result = transfer.main([*ARGUMENTS, "--seeds", "1"])
    assert [cell.get("failed") for cell in result["cells"]] == ["Expected a proxy, got none.", None]
    assert [len(cell["rows"]) for cell in result["cells"]] == [0, 2]


def test_a_cell_that_the_protocol_lacks_is_a_sentence() -> None:
    """Answers, regimes and budgets outside the protocol are refused before anything is run."""
    with pytest.raises(ConfigError, match="Expected the answers to be one of scores, label for tiny, got top-k"):
        CellKey("tiny", "own", "top-k", 100, (6,))
    with pytest.raises(ConfigError, match="Expected the regime to be one of own, public for tiny, got own-unasked"):
        CellKey("tiny", "own-unasked", "scores", 100, (6,))
    with pytest.raises(ConfigError, match="Expected a budget of the quick grid of tiny, got 7"):
        transfer.quick_key("tiny", 7, 0)
    with pytest.raises(ConfigError, match="Expected at least one cell"):
        transfer.main(["--track", "tiny", "--seeds", "0"])


def test_settings_make_another_cell() -> None:
    """Two settings never share a kept cell."""
    one, other = (CellKey("tiny", "own", "scores", 100, (6,), changes=c) for c in ({}, {"steps": 11}))
    assert one.home() != other.home()
    assert one.home() == CellKey("tiny", "own", "scores", 100, (6,)).home()


def test_other_code_makes_another_cell_and_other_words_do_not() -> None:
    """What a file does decides which kept cells are its own; its comments, docstrings and layout do not."""
    source = 'def f(x):\n    """Double."""\n    return 2 * x\n'
    reworded = '"""A file."""\n\n\ndef f(x):\n    # Twice.\n    return (2 * x)\n'
    assert _cells._meaning(source) == _cells._meaning(reworded)
    assert _cells._meaning(source) != _cells._meaning(source.replace("2", "3"))
    assert len(_cells.code_digest()) == 16
    deciding = {path.name for path in _cells._deciding()}
    # Published weights and the rules of a certificate decide a row, too; words and files do not.
    assert {"weights.py", "goals.py", "trials.py", "panel.py", "comparisons.py", "habits.py"} <= deciding
    assert not {"cli.py", "drafting.py", "telling.py"} & deciding
    assert all((_cells._ROOT / name).is_file() for name in _cells._TALKING)
    assert {"asking.py", "conditions.py", "distilling.py", "measuring.py", "perturbing.py", "verifying.py"} <= deciding
    assert {"action.py", "measurement.py", "universal.py", "distillation.py", "_tracks.py", "cameras.py"} <= deciding


def test_an_action_against_another_platform_is_not_opened() -> None:
    """What was kept of another platform is refused as it lies, and the platform it was made against is let in."""
    key = next(iter(transfer.grid_keys("tiny", "quick", 1)))
    path = key.home() / "action" / "perturbations" / "epsilon-006.safetensors"
    path.parent.mkdir(parents=True)
    with platform("scores") as asked:
        kept = PerturbationSet(np.zeros((3, 8, 8, 3), np.int8), 6, asked.info.classes, "tiny", "another")
        kept.save(path)
        stands = path.read_bytes()
        with pytest.raises(ConfigError, match="use the same number again"), _cells.opened(key, asked):
            pass
        assert path.read_bytes() == stands
        replace(kept, fingerprint=asked.info.fingerprint).save(path)
        with _cells.opened(key, asked) as found:
            assert found.action.folder == path.parents[1]

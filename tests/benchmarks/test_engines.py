"""Tests of where cells are run: what engines are called, what travels to them, and processes that are killed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import _cell_process, effect, race
from benchmarks._cell_process import ended, made, numbered
from benchmarks._cells import CellKey
from benchmarks._engines import Engine, Order, add_engine, engine_of, fetched, sent
from benchmarks._tracks import TRACKS, Track
from tests.benchmarks.cells import in_this_process
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.errors import ConfigError, MissingExtraError, TTCAError

HERE = Engine()


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a tiny track among the tracks, and the cache into a folder of the test."""
    monkeypatch.setitem(TRACKS, "tiny", Track("tiny", ("scores",), platform, people, {"own": QUICK}))
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path))
    return tmp_path


def order(seed: int = 0, **more: Any) -> Order:
    """Return the order of a cell of the tiny track."""
    key = CellKey("tiny", "own", "scores", 100, (6, 12), seed, {"steps": 5, "control_lengths": (1.0,)})
    return Order(benchmark="transfer", facts={"key": key.order(), "people": ["dev-test"]}, **more)


# --- what an engine is called ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("local", "local", ""),
        ("ray://auto", "ray", "auto"),
        ("ray://local", "ray", "local"),
        ("ray://head-1.example.org:10001", "ray", "head-1.example.org:10001"),
        ("ray://[::1]:10001", "ray", "[::1]:10001"),
        ("dask://10.0.0.1:8786", "dask", "10.0.0.1:8786"),
        ("dask://local", "dask", "local"),
        ("dask:///shared/scheduler.json", "dask", "/shared/scheduler.json"),
    ],
)
def test_an_engine_is_read_from_its_name(text: str, kind: str, address: str) -> None:
    """Kind and address are what stands before and behind the two slashes."""
    engine = Engine.parse(text, threads=3)
    assert (engine.kind, engine.address, engine.cell_threads) == (kind, address, 3)


@pytest.mark.parametrize(
    "text",
    ["", "Local", "local://", "ray", "ray://", "ray://host", "ray://host:0", "ray://host:70000", "ray:///file",
     "dask://auto", "dask://host:x", "spark://host:1", "http://host:1", "ray://a b:1", "dask://"],
)  # fmt: skip
def test_a_wrong_engine_is_a_sentence(text: str) -> None:
    """It says what engines are called."""
    with pytest.raises(ConfigError, match=r"Expected --engine to be local, ray://HOST:PORT, .* Name one of these"):
        Engine.parse(text)


@given(st.text() | st.builds("{}://{}".format, st.sampled_from(["ray", "dask"]), st.text()))
def test_any_text_is_an_engine_or_a_sentence(text: str) -> None:
    """Nothing else comes of it, and what is read names itself again."""
    try:
        engine = Engine.parse(text)
    except ConfigError:
        return
    assert text in ("local", f"{engine.kind}://{engine.address}")


@pytest.mark.parametrize(
    ("text", "jobs", "said"),
    [
        ("local", 0, "Expected --jobs of 1 or more, got 0"),
        ("ray://auto", 1, "Expected --jobs of 2 or more with Ray, got 1"),
        ("dask://host:1", 4, "Expected no --jobs with a cluster of Dask, got 4"),
    ],
)
def test_jobs_that_an_engine_would_ignore_are_refused(text: str, jobs: int, said: str) -> None:
    """One job on Ray would run here; a Dask cluster runs as many as its workers have threads."""
    with pytest.raises(ConfigError, match=said):
        Engine.parse(text, jobs=jobs)
    with pytest.raises(ConfigError, match="Expected --threads of 1 or more, got -1"):
        Engine.parse(text, threads=-1)


def test_threads_are_shared_out_here_and_one_on_a_cluster() -> None:
    """Last digits depend on them, so that what a cluster's workers have decides nothing."""
    cores = os.cpu_count() or 1
    assert (HERE.cell_threads, Engine(jobs=2).cell_threads) == (cores, max(cores // 2, 1))
    assert Engine.parse("dask://local", jobs=7).cell_threads == 1
    assert HERE.in_turn
    assert not Engine(jobs=2).in_turn


@pytest.mark.parametrize(("kind", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_missing_extra_is_named_in_one_sentence(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is run, and with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    parser = argparse.ArgumentParser()
    add_engine(parser)
    with pytest.raises(MissingExtraError, match=rf"^The engine {kind} needs .*pip install 'ttca\[{kind}\]'$"):
        engine_of(parser.parse_args(["--engine", f"{kind}://local"]))
    with pytest.raises(MissingExtraError):
        effect.main(
            ["--track", "tiny", "--queries", "100", "--epsilon", "6", "--answers", "scores", "--regime", "own",
             "--engine", f"{kind}://host:1"]
        )  # fmt: skip


# --- what travels ------------------------------------------------------------------------------------------------


def test_a_cell_travels_by_its_content() -> None:
    """Facts and benchmark decide the digest, their order does not; the key comes out of JSON as it went in."""
    assert order().digest == order(most_gib=3.0).digest == Order(
        benchmark="transfer", facts=dict(reversed(list(order().facts.items())))
    ).digest  # fmt: skip
    assert len({order().digest, order(1).digest, Order(benchmark="effect", facts=order().facts).digest}) == 3
    key = CellKey("tiny", "own", "scores", 100, (6, 12), 2, {"control_lengths": (1.0,), "recipe": "auto"})
    again = CellKey.received(json.loads(json.dumps(key.order())))
    assert again == key
    assert again.home() == key.home()


def test_a_worker_makes_the_cell_that_was_meant_or_says_why_not() -> None:
    """The same code makes it, with what a number needs beside it; other code and unknown benchmarks are sentences."""
    sent_ = json.loads(order().text(HERE))
    found = made({**sent_, "threads": 1})
    assert found["digest"] == order().digest
    assert [row["row"]["epsilon"] for row in found["cell"]["people"]["dev-test"]["rows"]] == [6, 12]
    assert {"commit", "hardware", "versions", "code", "seconds", "peak_rss_mb_alone"} <= found.keys()
    other = made({**sent_, "digest": "0" * 24})
    assert "cell" not in other
    assert other["failed"].endswith("Install the same commit of ttca on every machine.")
    unknown = Order(benchmark="nonsense", facts={})
    assert "got one of 'nonsense'" in made(json.loads(unknown.text(HERE)))["failed"]


# --- processes ---------------------------------------------------------------------------------------------------


def _ended_by(how: Any) -> dict[str, Any]:
    """Return what comes back of a cell whose process something happens to while it runs."""
    found: list[str] = []
    work = threading.Thread(target=lambda: found.append(numbered(7, order().text(Engine(jobs=2)))[1]))
    work.start()
    while not _cell_process._RUNNING:
        assert work.is_alive()
        time.sleep(0.005)
    how(next(iter(_cell_process._RUNNING)))
    work.join()
    assert not _cell_process._RUNNING
    result: dict[str, Any] = json.loads(found[0])
    return result


def test_a_killed_process_costs_its_cell_alone() -> None:
    """What comes back says so; who started it goes on; and whatever ends a run ends what it started."""
    assert "was killed by signal 9 before it had a result" in _ended_by(lambda process: process.kill())["failed"]
    assert "before it had a result" in _ended_by(lambda process: ended())["failed"]


def test_a_process_that_cannot_begin_is_a_cell_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It reads no order, which is no error of whoever sent it, and its last words are told."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec <&-\necho No such library. >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    large = Order(benchmark="transfer", facts={"key": "x" * 200_000})
    found = json.loads(numbered(0, large.text(Engine(jobs=2)))[1])
    assert found["failed"] == (
        "The cell's process ended with status 3 before it had a result (No such library.). Run it again."
    )


def test_a_cell_that_takes_too_much_memory_is_ended() -> None:
    """It says how much it may take, and how much it took is measured."""
    found = json.loads(numbered(0, order(most_gib=0.001).text(Engine(jobs=2)))[1])
    assert found["failed"] == "The cell took more than the 0.001 GiB that it may, and was ended."
    assert found["peak_rss_mb"] > 1


def test_what_does_not_come_back_is_an_error_that_says_why() -> None:
    """A cell that another process cannot make is named with that process's own sentence, and nothing is kept of it."""
    kept: list[int] = []
    # A process of its own does not know this test's track.
    with pytest.raises(TTCAError, match=r"Expected 1 cells, got 0; of the first that is missing: Expected a track of"):
        fetched([order()], Engine(jobs=2), lambda number, cell: kept.append(number))
    assert kept == []


def test_no_cell_is_begun_when_the_time_is_spent() -> None:
    """Nothing is started for it, and it is not yielded."""
    assert json.loads(numbered(0, order().text(HERE), until=time.time() - 1)[1]) == {"skipped": "The time was spent."}
    assert list(sent([order(), order(1)], HERE, until=time.time() - 1)) == []
    assert list(sent([], Engine.parse("ray://local"))) == []


@pytest.mark.full
def test_effect_and_race_are_the_same_in_parallel(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that were sent are those made here, they are kept, and a platform that is another is refused."""
    monkeypatch.setattr("benchmarks._engines.numbered", in_this_process)
    arguments = ["--track", "tiny", "--queries", "100", "--epsilon", "6", "--answers", "scores", "--regime", "own"]
    arguments += ["--seeds", "2"]
    away = effect.main([*arguments, "--jobs", "2", "--threads", "1"])
    monkeypatch.setenv("TTCA_CACHE", str(tiny / "another"))
    here = effect.main(arguments)
    clocks = {"seconds", "seconds_distil", "seconds_learn", "seconds_race", "peak_rss_mb"}
    for one, other in zip(away["rows"], here["rows"], strict=True):
        assert {k: v for k, v in one.items() if k not in clocks} == {k: v for k, v in other.items() if k not in clocks}
    facts = {"key": CellKey("tiny", "own", "scores", 100, (6,)).order(), "final": False, "platform": "another"}
    with pytest.raises(ConfigError, match="copy the folder platforms"):
        effect.cell_of(facts)
    short = ["--set", "architectures=('perceptron',)", "epochs=2", "public_epochs=2", "steps=5"]
    raced = ["--tracks", "tiny", "--queries", "150", "--epsilon", "6", "--orders", "2", *short]
    one, other = race.main([*raced, "--jobs", "2", "--threads", "1"]), race.main(raced)
    assert one["cells"] == other["cells"]

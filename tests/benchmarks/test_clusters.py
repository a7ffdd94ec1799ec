"""Ray and Dask run cells, lose a worker midway, and give the rows of this machine to the last digit."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks._peers import environment
from tests.benchmarks.cluster_program import SEEDS

pytestmark = [pytest.mark.full, pytest.mark.e2e]

_ROOT = Path(__file__).resolve().parents[2]
_CELL = "benchmarks._cell_process"
_PATIENCE_S = 600


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with Ray and Dask, which sees what is installed here and changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_CACHE", str(tmp_path_factory.mktemp("environment")))
        found = environment("ray[client]>=2.9", "distributed>=2024.1", "joblib>=1.3")
    (packages,) = (found.parents[1] / "lib").glob("python*/site-packages")
    (packages / "here.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return found


def variables(folder: Path) -> dict[str, str]:
    """Return the environment of programs that keep their cells in a folder of their own."""
    return {
        **os.environ,
        "TTCA_CACHE": str(folder),
        "PYTHONPATH": str(_ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a group of its own, and end the group afterwards."""
    with subprocess.Popen(
        command, env=variables(folder), cwd=_ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            for one in [process.pid, *(child.pid for child in children(process.pid))]:
                try:
                    os.kill(one, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def children(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def worker_of_a_cell(pid: int) -> psutil.Process:
    """Return the worker, below a program or anywhere below a cluster, that has just begun a cell."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        for child in children(pid):
            try:
                if _CELL in child.cmdline():
                    found = child.parent()
                    if found is not None and found.pid != pid:
                        return found
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError("No worker began a cell.")


def told(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return what the program of a cluster printed before its end; Ray's own remarks stand between its lines."""
    lines = process.communicate(timeout=_PATIENCE_S)[0].splitlines()
    said: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
    assert said.pop() == {"end": True}
    return said


def rows(python: Path, engine: str, folder: Path, *, cluster: int | None = None, kill: bool = True) -> dict[int, Any]:
    """Return the rows of every cell through an engine, one of whose workers is killed while it has a cell."""
    with started([str(python), "-m", "tests.benchmarks.cluster_program", engine], folder) as process:
        if kill:
            worker_of_a_cell(process.pid if cluster is None else cluster).kill()
        said = told(process)
    assert [line["failed"] for line in said] == [None] * SEEDS
    return {line["cell"]: line["rows"] for line in said}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Return the rows of this machine, without any cluster."""
    return rows(Path(sys.executable), "local", tmp_path_factory.mktemp("local"), kill=False)


@pytest.mark.parametrize("engine", ["ray://local", "dask://local"])
def test_a_worker_that_is_killed_costs_its_cell_alone(
    engine: str, python: Path, here: dict[int, Any], tmp_path: Path
) -> None:
    """Its cell is run again, the others go on, and all rows are those of this machine to the last digit."""
    assert len(here) == SEEDS
    assert all(found["dev-test"]["rows"] for found in here.values())
    assert rows(python, engine, tmp_path) == here


def test_a_cluster_of_two_processes_loses_one(python: Path, here: dict[int, Any], tmp_path: Path) -> None:
    """A Dask scheduler with two workers that were started by hand; the killed one does not come back."""
    file = tmp_path / "scheduler.json"
    scheduler = [str(python), "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                 "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    worker = [str(python), "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
              "--no-nanny", "--no-dashboard"]  # fmt: skip
    with started(scheduler, tmp_path), started(worker, tmp_path) as first, started(worker, tmp_path) as second:
        program = [str(python), "-m", "tests.benchmarks.cluster_program", f"dask://{file}"]
        with started(program, tmp_path) as process:
            until = time.monotonic() + _PATIENCE_S
            while not (at_work := [one for one in (first, second) if children(one.pid)]):
                assert time.monotonic() < until
                time.sleep(0.05)
            at_work[0].kill()
            said = told(process)
        assert (first.poll() is None) + (second.poll() is None) == 1
    assert {line["cell"]: line["rows"] for line in said} == here


@pytest.mark.parametrize("engine", ["ray://127.0.0.1:9", "dask://127.0.0.1:9", "dask:///nowhere.json"])
def test_a_cluster_that_does_not_answer_is_a_sentence(engine: str, python: Path, tmp_path: Path) -> None:
    """It names the address and where to read on, and no cell is run."""
    program = [str(python), "-m", "tests.benchmarks.cluster_program", engine]
    with started(program, tmp_path) as process:
        said = told(process)
    assert said[0]["error"].startswith(f"Expected a cluster at {engine}, got: ")

"""The demo as a program: its row, its files, and what is left of it after being killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DEMO, FinishedDemo
from ttca import Ledger, PerturbationSet
from ttca.demo.run import run_demo
from ttca.errors import ActionError
from ttca.folder_lock import hold
from ttca.row import Row

pytestmark = pytest.mark.e2e

COSTS = {"seconds_distil", "seconds_learn", "seconds", "peak_rss_mb"}
CONCURRENCY = 64


def without_costs(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in COSTS}


def processed(folder: Path) -> int:
    """Return how many queries the platform's own log says it processed."""
    return sum(json.loads(line)["rows"] for line in (folder / "platform.log.jsonl").read_text().splitlines())


def test_the_last_line_is_one_row_with_every_key_measured(finished_demo: FinishedDemo) -> None:
    """The demo's last line on standard output is the honest row, and no number of it is missing."""
    assert tuple(finished_demo.row) == Row.keys()
    assert all(value is not None for value in finished_demo.row.values())
    assert len(finished_demo.stdout.splitlines()) == 1


def test_the_action_closes_the_gap(finished_demo: FinishedDemo) -> None:
    """At least 0.8 of the gap is closed, and the lower bound of S lies above the accuracy before."""
    row = finished_demo.row
    assert row["gap_before"] > 0.05
    assert row["gap_closed"] >= 0.8
    assert row["subgroup_after_lower"] > row["subgroup_before"]


def test_the_controls_are_sane(finished_demo: FinishedDemo) -> None:
    """Noise of the same ε does not close the gap, and no control without the true class or the queries reaches S."""
    row = finished_demo.row
    assert row["noise_control"] < row["subgroup_before"] + 0.5 * row["gap_before"]
    for control in ("noise_control", "proxy_class_control", "class_agnostic_control", "zero_query_control"):
        assert row[control] < row["subgroup_after_lower"], control
    assert 0 < row["abuse_rate"] < 1
    assert row["coverage"] == 1
    assert row["worst_group_after"] >= row["worst_group_before"]


def test_the_ledger_agrees_with_the_platforms_own_log(finished_demo: FinishedDemo) -> None:
    """Without a kill, what members and benchmark paid is what the platform processed, query by query."""
    with Ledger(finished_demo.folder / "ledger.sqlite") as ledger:
        balances, paid = ledger.balances(), ledger.paid()
    with Ledger(finished_demo.folder / "evaluation.sqlite") as evaluation:
        test_queries = sum(b.charged for b in evaluation.balances())
    assert len(balances) == 20
    assert all(b.charged <= b.quota and b.unknown == b.refunded == b.unusable == 0 for b in balances)
    row = finished_demo.row
    assert paid == {
        "pool": row["queries_pool"],
        "baseline": row["queries_baseline"],
        "verification": row["queries_verification"],
        "controls": row["queries_controls"],
    }
    assert sum(b.charged for b in balances) + test_queries == processed(finished_demo.folder)


def test_the_folder_holds_an_action_and_a_self_contained_report(finished_demo: FinishedDemo) -> None:
    """The files a collective needs are there, the set keeps its ε, and the report loads nothing from outside."""
    folder = finished_demo.folder
    for name in ("action.toml", "ledger.sqlite", "proxy.safetensors", "certificate.json", "row.json"):
        assert (folder / name).is_file(), name
    chosen = PerturbationSet.load(folder / "perturbations.safetensors")
    assert chosen.epsilon == finished_demo.row["epsilon"]
    assert chosen.evidence["certificate"]["parity_certified"] is finished_demo.row["parity_certified"]
    assert {"abuse_rate", "jpeg75_control"} <= chosen.evidence.keys()
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", html)
    assert html.count("data:image/png;base64,") >= 10 + 3


# The small forms are about any action: tests/test_action.py and tests/test_cli.py.
@pytest.mark.full
def test_a_finished_demo_runs_again_without_asking_or_learning(finished_demo: FinishedDemo) -> None:
    """Run again, the demo gives the same row, and the platform is asked nothing."""
    before = processed(finished_demo.folder)
    again = subprocess.run(DEMO, cwd=finished_demo.home, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert without_costs(json.loads(again.stdout)) == without_costs(finished_demo.row)
    assert processed(finished_demo.folder) == before


def attempts(folder: Path) -> int:
    """Return the attempts charged so far, read beside the demo that is writing them."""
    path = folder / "ledger.sqlite"
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with contextlib.closing(connection):
            return int(connection.execute("select count(*) from attempts").fetchone()[0])
    return 0


@pytest.mark.full
def test_killed_at_five_random_moments_it_gives_the_clean_result(finished_demo: FinishedDemo, tmp_path: Path) -> None:
    """Killed five times and run again, the demo ends with the row of a clean run and few attempts too many.

    It is also the second run of the same seed in another folder: the same seed gives the same numbers.
    """
    folder = tmp_path / "runs" / "demo"
    total = sum(finished_demo.row[k] for k in ("queries_pool", "queries_baseline", "queries_verification"))
    with Ledger(finished_demo.folder / "ledger.sqlite") as ledger:
        clean = sum(b.answered for b in ledger.balances())
    draw = random.Random(20261121)
    thresholds = sorted(draw.randrange(1, total) for _ in range(3))
    moments: list[Callable[[], bool]] = [
        # Thresholds bound as defaults: a closure would see the last one only.
        *(lambda t=t: attempts(folder) >= t for t in thresholds),
        lambda: (folder / "zero-query-proxy.safetensors").is_file(),
        lambda: (folder / "controls.safetensors").is_file(),
    ]
    kills = 0
    for moment in moments:
        process = subprocess.Popen(
            DEMO, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while process.poll() is None and not moment():
                time.sleep(0.002)  # another program's progress can only be watched
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
    assert kills == len(moments)

    done = subprocess.run(DEMO, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    counts = {"queries_pool", "queries_baseline", "queries_verification"}
    assert {k: v for k, v in without_costs(row).items() if k not in counts} == {
        k: v for k, v in without_costs(finished_demo.row).items() if k not in counts
    }

    with Ledger(folder / "ledger.sqlite") as ledger, Ledger(folder / "evaluation.sqlite") as evaluation:
        members, benchmark = ledger.balances(), evaluation.balances()
    balances = [*members, *benchmark]
    answered = sum(b.answered for b in balances)
    charged = sum(b.charged for b in balances)
    unknown = sum(b.unknown for b in balances)
    # As many answers as the clean run: no answered query was asked again.
    assert sum(b.answered for b in members) == clean
    assert answered <= processed(folder) <= charged
    assert charged - answered == unknown <= kills * CONCURRENCY


def test_a_second_demo_leaves_the_first_ones_folder_alone(tmp_path: Path) -> None:
    """While one demo works in a folder, a second is refused before it writes anything there."""
    (tmp_path / "demo-seed").write_text("0")
    lock = hold(tmp_path)
    try:
        with pytest.raises(ActionError, match="to be free"):
            run_demo(tmp_path)
    finally:
        lock.release()
    assert {path.name for path in tmp_path.iterdir()} == {"demo-seed", "action.lock"}


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_place_that_can_be_no_folder_is_a_sentence(tmp_path: Path, name: str) -> None:
    """A file where the folder should be, or above it, is told in a sentence."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ActionError, match="Choose another"):
        run_demo(tmp_path / name)


def test_another_seed_in_the_same_folder_is_refused(finished_demo: FinishedDemo) -> None:
    """A folder with a demo of one seed is not silently reused for another: exit 1 and a sentence."""
    refused = subprocess.run(
        [*DEMO, "--seed", "7"], cwd=finished_demo.home, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "Expected a demo of seed 7" in json.loads(refused.stdout)["error"]
    assert refused.stderr == ""

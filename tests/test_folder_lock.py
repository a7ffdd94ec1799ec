"""Tests of the folder's lock: one program at a time, who it is, and what a kill leaves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import worlds
from ttca import folder_lock
from ttca.data.folder import write_people
from ttca.errors import ActionError
from ttca.folder_lock import hold
from ttca.images import Images
from ttca.people import People
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import background_server
from ttca.pooling.ledger import Ledger


def test_a_folder_is_held_once_until_it_is_released(tmp_path: Path) -> None:
    """A second taker hears who has worked in the folder since when; after the release it goes."""
    first = hold(tmp_path)
    sentence = (
        rf"Expected {tmp_path} to be free, but process {os.getpid()} on \S+ has worked in it since "
        r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC \(.*\)\. Close that action first\. No query was spent\."
    )
    for _ in range(2):
        with pytest.raises(ActionError, match=sentence):
            hold(tmp_path)
    first.release()
    second = hold(tmp_path)
    first.release()
    with pytest.raises(ActionError):
        hold(tmp_path)
    second.release()
    assert (tmp_path / "action.lock").read_text() == ""


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """Where no file can be made, the error says which, and what to do."""
    (tmp_path / "action.lock").mkdir()
    with pytest.raises(ActionError, match=r"Expected to write .*action\.lock, got: .*Check the folder's permissions"):
        hold(tmp_path)


def test_a_file_system_without_locks_is_said_and_does_not_stop_the_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system keeps no locks, people are told to look out themselves."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock, "_lock", refuse)
    said: list[str] = []
    hold(tmp_path, say=said.append).release()
    assert said == [
        f"The file system of {tmp_path} keeps no locks (No locks available). Make sure that nobody else works in it."
    ]


def test_two_actions_in_one_folder_are_refused(tmp_path: Path) -> None:
    """An action holds its folder from before the ledger is opened until it is closed, also where it could not begin."""
    platform = worlds.Recorder()
    with worlds.open_action(tmp_path, platform):
        with pytest.raises(ActionError, match="Close that action first"):
            worlds.open_action(tmp_path, platform)
        with worlds.open_action(tmp_path / "another", platform):
            pass
    (tmp_path / "ledger.sqlite.key").write_bytes(b"short")
    for _ in range(2):
        with pytest.raises(Exception, match="Expected 32 bytes"):
            worlds.open_action(tmp_path, platform)
    assert platform.queries == 0


@pytest.mark.e2e
def test_a_second_run_in_one_folder_hears_who_runs_and_a_kill_frees_it(tmp_path: Path) -> None:
    """Two real `ttca pool run` in one folder: the second pays nothing; after kill -9 of the first, it goes at once."""
    roles = worlds.roster().roles()
    named = [role for role, people in roles.items() for _ in range(len(people))]
    write_people(tmp_path / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    killed, asked = threading.Event(), 0

    def model(images: Images) -> NDArray[np.float64]:
        nonlocal asked
        asked += len(images)
        # However long the second takes to begin, the first is still at work then.
        assert asked <= 40 or killed.wait(120)
        return worlds.model(images)

    platform = LocalPlatform(model, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny")
    with background_server(platform) as url:
        (tmp_path / "action.toml").write_text(worlds.action_file(url, pool="concurrency = 8\nbatch = 4\n"))
        command = [sys.executable, "-m", "ttca", "pool", "run", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            try:
                give_up = time.monotonic() + 60
                while not _charged(tmp_path):
                    assert first.poll() is None
                    assert time.monotonic() < give_up
                    time.sleep(0.01)
                second = subprocess.run(command, capture_output=True, text=True, check=False)
                status = subprocess.run([*command[:4], "status", str(tmp_path)], capture_output=True, check=False)
                assert first.poll() is None
            finally:
                first.kill()
                killed.set()
        assert second.returncode == 1
        assert f"to be free, but process {first.pid} on " in second.stderr
        assert " pool run). Wait for it, or stop it. No query was spent." in second.stderr
        assert second.stdout == ""
        assert status.returncode == 0
        before, began = _charged(tmp_path), time.monotonic()
        assert before < 205
        third = subprocess.run(command, capture_output=True, text=True, check=False)
        assert third.returncode == 0, third.stderr
        # The claims of the dead last for more than two minutes; nobody waited for them.
        assert time.monotonic() - began < 60
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.asked_and_answered() == (205, 205)
        assert sum(b.charged - b.answered for b in ledger.balances()) <= 8


def _charged(folder: Path) -> int:
    if not (folder / "ledger.sqlite.key").exists():
        return 0
    with Ledger(folder / "ledger.sqlite") as ledger:
        return sum(b.charged for b in ledger.balances())

"""Tests of programs that are interrupted: both signals end them alike, and nothing that came back is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import worlds
from tests.pooling.anyhub import any_hub, png
from tests.programs import TTCA, Programs, environment
from ttca.answers import Answers
from ttca.config import read_action, read_contribution
from ttca.data.folder import write_people
from ttca.images import Images
from ttca.interruption import Interruption, interruptible
from ttca.people import People
from ttca.platforms.base import Credential, Platform, PlatformInfo
from ttca.platforms.server import background_server
from ttca.pooling.ledger import Ledger

#: Writes down which process it is, for whoever is to interrupt it.
MARKED = f"import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n{TTCA}"
#: As a shell's child in the foreground finds them; a test run may have been started with an ignored Ctrl-C.
CTRL_C = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{MARKED}"


class Interrupting:
    """A slow platform that interrupts who asks it, at one of their requests, and answers afterwards."""

    def __init__(self, pid: Path, at: int, number: int) -> None:
        self._inner: Platform = worlds.Recorder().inner
        self._pid, self._at, self._number = pid, at, number
        self._requests = 0

    @property
    def info(self) -> PlatformInfo:
        """Who it is."""
        return self._inner.info

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer after a while."""
        self._requests += 1
        if self._requests == self._at:
            for _ in range(2):
                os.kill(int(self._pid.read_text()), self._number)
        time.sleep(0.15)
        return self._inner.attempt(images, credential, request_id=request_id)


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    """Give what starts ttca as a process of its own."""
    with Programs(environment()) as started:
        yield started


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "at"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 4),
        pytest.param(signal.SIGINT, 4, marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.full),
    ],
)
def test_an_interrupted_pool_has_every_answer_that_came(
    number: signal.Signals, at: int, programs: Programs, tmp_path: Path
) -> None:
    """After either signal, at the first request or later, whatever the platform processed is in the ledger, and said.

    One more signal right after the first, as programs that pass signals on send it, changes nothing.
    """
    roles = worlds.roster().roles()
    named = [role for role, group in roles.items() for _ in range(len(group))]
    write_people(tmp_path / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    log = tmp_path / "log"
    with background_server(Interrupting(tmp_path / "pid", at, number), access_log=log) as url:
        (tmp_path / "action.toml").write_text(worlds.action_file(url))
        done = programs.run(["pool", "run", str(tmp_path)], tmp_path, code=CTRL_C)
        with read_action(tmp_path).open() as action:
            remaining = sum(cost.queries for cost in action.plan().values())
    assert done.returncode == 128 + number, done.stderr
    said = " ".join(done.stderr.decode().split())
    assert "run it again to resume" in said
    assert "Traceback" not in said
    processed = sum(json.loads(line)["rows"] for line in log.read_text().splitlines())
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        balances = ledger.balances()
    assert sum(b.answered for b in balances) == sum(b.charged for b in balances) == processed > 0
    assert processed < 205
    assert f"Queries charged: {processed}. In all, the action was charged {processed} so far; at most" in said
    assert f"at most {remaining:,} remain." in said


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_hub_that_is_ended_says_how_to_go_on(number: signal.Signals, programs: Programs, tmp_path: Path) -> None:
    """`ttca hub serve` ends in peace on either signal, with its sentence and its status."""
    roles = worlds.roster().roles()
    write_people(tmp_path / "people", People.concatenate(list(roles.values())), worlds.CLASSES)
    with background_server(worlds.Recorder().inner) as url:
        (tmp_path / "action.toml").write_text(worlds.action_file(url, people="shareable = true\n"))
        with Ledger(tmp_path / "ledger.sqlite"):
            pass
        ended = (
            "import threading, ttca.platforms.server as s\nrun = s.run_app\n"
            "def run_app(*a, on_start, **k):\n"
            f"    def started(url):\n        on_start(url)\n"
            f"        threading.Timer(.2, lambda: os.kill(os.getpid(), {int(number)})).start()\n"
            "    run(*a, on_start=started, **k)\n"
            "s.run_app = run_app\n"
        )
        code = CTRL_C.replace("\nfrom ttca.cli", f"\n{ended}from ttca.cli")
        done = programs.run(["hub", "serve", str(tmp_path), "--port", "0"], tmp_path, code=code)
    assert done.returncode == 128 + number, done.stderr
    assert b"The hub is at" in done.stderr
    assert b"run it again to resume" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_member_brings_back_what_came(
    number: signal.Signals, programs: Programs, tmp_path: Path
) -> None:
    """`ttca contribute` ends on either signal with what came delivered, a count of it, its sentence and its status."""
    log = tmp_path / "log"
    with (
        any_hub() as (hub_url, hub),
        background_server(Interrupting(tmp_path / "pid", 4, number), access_log=log) as url,
    ):
        (tmp_path / "ada.toml").write_text(
            f'[contribute]\nhub = "{hub_url}"\ntoken_variable = "TTCA_HUB_X"\nsize = 2\n'
            f'[platform]\nurl = "{url}"\nmodel = "tiny"\nclasses = {json.dumps(worlds.CLASSES)}\n'
        )
        with read_contribution(tmp_path / "ada.toml").platform.open() as platform:
            hub.action = {"fingerprint": platform.info.fingerprint_as_read}
            image = png(np.zeros(platform.info.image_shape, np.uint8))
        hub.me["remaining"] = 99
        hub.given = lambda wish: hub.lease(wish, images=[image] * wish["size"])
        done = programs.run(["contribute", "ada.toml"], tmp_path, code=CTRL_C, extra={"TTCA_HUB_X": "token"})
    assert done.returncode == 128 + number, done.stderr
    said = " ".join(done.stderr.decode().split())
    processed = sum(json.loads(line)["rows"] for line in log.read_text().splitlines())
    assert f"Interrupted. Queries sent: {processed}, of which {processed} were answered." in said
    assert "run it again to resume" in said
    assert sum(len(body["answers"]) for _, body in hub.brought) == processed
    assert 8 <= processed < 99


def test_signals_that_come_together_are_one() -> None:
    """A second signal within a moment changes nothing; a later one interrupts again; the first gives the status."""
    now = 0.0
    asked = Interruption(lambda: now)
    with pytest.raises(KeyboardInterrupt):
        asked(signal.SIGTERM)
    asked(signal.SIGINT)
    now = 2.0
    with pytest.raises(KeyboardInterrupt):
        asked(signal.SIGINT)
    assert asked.status == 143


def test_an_ignored_signal_stays_ignored() -> None:
    """Who started the program with an ignored Ctrl-C, as shells do in the background, keeps it so; all is put back."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        with interruptible() as asked:
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is asked
        assert signal.getsignal(signal.SIGTERM) == before[1]
    finally:
        signal.signal(signal.SIGINT, before[0])

"""Keys and tokens where programs crash: in no output, with the oldest libraries that are allowed and the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from tests import worlds
from tests.e2e.test_wheel import ROOT, fresh_environment
from tests.platforms.ways import VARIABLE, WAYS, guarded, planted
from tests.pooling.anyhub import AnyHub, any_hub, png
from tests.programs import BROKEN, TTCA
from tests.test_streams import CRASHES, KEY, TOKEN, quiet_about_secrets
from ttca.config import read_contribution
from ttca.data.folder import write_people
from ttca.people import People
from ttca.platforms.server import background_server
from ttca.pooling.ledger import Ledger

pytestmark = [pytest.mark.e2e, pytest.mark.full]

#: Libraries that write to the terminal or answer requests, and so could show what they have in hand.
SHOWING = ("typer", "rich", "fastapi", "uvicorn")
PLACES = {
    **CRASHES,
    "where replies are delivered": "import ttca.pooling.outbox as o\no.Outbox.deliver = broken",
    "where books are kept": "import ttca.pooling.allowance as a\na.Allowance.pay = broken",
    "where the platform is asked": "import ttca.platforms.sending as s\ns.Sender.exchange = broken",
    "where the key goes out": "import ttca.platforms.sending as s\ns.add_key = broken",
    "where the key is read": "import ttca.platforms.keys as k\nk.secret = broken",
    "where the token goes out": "import ttca.pooling.hub_client as c\nc.secret = broken",
    "in a thread": "import ttca.pooling.contribute as c\nc._Worker._one_turn = broken",
    "where a bar is shown": "import ttca.progress as p\np.Reporter.track = broken",
    "where the command line is read": "import typer.main as m\nm.get_command = broken",
    "where an error is shown": (
        "import ttca.streams as s\nimport ttca.config as f\ns._say_error = f.read_contribution = broken"
    ),
}
SECRETS = {"TTCA_KEY_X": f"127.0.0.1 {KEY}", "TTCA_HUB_X": TOKEN}


def oldest() -> list[str]:
    """Return these libraries at the oldest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    found = [w.replace(">=", "==") for w in wanted if w.partition(">=")[0] in SHOWING]
    assert len(found) == len(SHOWING)
    return found


@pytest.fixture(scope="module", params=["oldest", "newest"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a python with these libraries; all others it borrows from this interpreter, behind its own."""
    if request.param == "newest":
        return sys.executable
    there = fresh_environment(tmp_path_factory.mktemp("oldest") / "home")
    quiet = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([there, *quiet, *oldest()], check=True)
    asked = subprocess.run(
        [there, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    borrowed = f"{sysconfig.get_path('purelib')}\n{ROOT}\n"
    (Path(asked.stdout.strip()) / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    return str(there)


def alone(**more: str) -> dict[str, str]:
    """Return an environment without this project's path, which the python has of its own."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "PYTHONUTF8": "1", **more}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the file of a member whose hub and platform both answer."""
    home = tmp_path_factory.mktemp("mine")
    with any_hub() as (hub_url, hub), background_server(worlds.Recorder().inner) as url:
        text = (
            f'[contribute]\nhub = "{hub_url}"\ntoken_variable = "TTCA_HUB_X"\n'
            f'[platform]\nurl = "{url}"\nmodel = "tiny"\nclasses = {json.dumps(worlds.CLASSES)}\n'
        )
        (home / "ada.toml").write_text(text)
        with read_contribution(home / "ada.toml").platform.open() as platform:
            work_for(hub, platform.info.fingerprint_as_read, platform.info.image_shape)
        (home / "ada.toml").write_text(text + 'key_variable = "TTCA_KEY_X"\n')
        yield home / "ada.toml"


def work_for(hub: AnyHub, fingerprint: str, shape: tuple[int, int, int]) -> None:
    """Let a hub hand out black images of a platform."""
    hub.action = {"fingerprint": fingerprint}
    hub.me["remaining"] = 10**6
    hub.given = lambda wish: hub.lease({**wish, "size": 1}, images=[png(np.zeros(shape, np.uint8))])


@pytest.mark.parametrize("where", PLACES)
def test_no_secret_is_shown_where_a_member_crashes(where: str, python: str, mine: Path) -> None:
    """A bug anywhere on a member's machine, with key and token in hand and in the message, shows neither."""
    code = f"{BROKEN}{PLACES[where]}\n{TTCA}\n"
    done = subprocess.run(
        [python, "-c", code, "contribute", str(mine)], env=alone(**SECRETS), capture_output=True, check=False
    )
    said = quiet_about_secrets(done.stdout + done.stderr)
    assert done.returncode == 1, said
    assert "RuntimeError" in said
    assert ("ttca: This is a bug" in said) == (where != "where an error is shown")


#: Breaks where an answer of the platform comes, with all that was sent in the message.
SENT = """
import ttca.platforms.sending as s
receive = s.Sender._receive
def broken(self, reply, *given):
    sent = reply.request
    if sent.path_url == "/token/":
        return receive(self, reply, *given)
    raise RuntimeError({"url": sent.url, "headers": dict(sent.headers), "body": sent.body})
s.Sender._receive = broken
"""


@pytest.mark.parametrize("code", ["", SENT], ids=["well", "broken"])
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_shown_however_it_travels(way: str, code: str, python: str, tmp_path: Path) -> None:
    """A member's whole run, and one that crashes, write no key, pair, signature or token, to the terminal or a file."""
    with guarded(WAYS[way]) as (server, door), any_hub() as (hub_url, hub):
        (tmp_path / "ada.toml").write_text(WAYS[way].contribution(hub, hub_url, server.url))
        done = subprocess.run(
            [python, "-c", f"{code}\n{TTCA}\n", "contribute", str(tmp_path / "ada.toml")],
            env=alone(**{**SECRETS, VARIABLE: WAYS[way].value}),
            capture_output=True,
            check=False,
        )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == (1 if code else 0), said
    assert ("RuntimeError: {'url': " in said) == bool(code)
    # Of two threads one may crash before the other has asked.
    assert len(door.bodies) in ({1, 2} if code else {2})
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not [s for s in planted(door) if s in said or s.encode() in kept]


def test_no_secret_is_shown_where_a_hub_crashes(python: str, tmp_path: Path) -> None:
    """A bug while a request is answered shows no secret of the hub's machine, to the member or in the hub's log."""
    write_people(tmp_path / "people", People.concatenate(list(worlds.roster().roles().values())), worlds.CLASSES)
    code = f"{BROKEN}import ttca.pooling.leases as d\nd.LeaseDesk.issue = broken\n{TTCA}\n"
    with background_server(worlds.Recorder().inner) as url:
        (tmp_path / "action.toml").write_text(worlds.action_file(url, people="shareable = true\n"))
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            ledger.enrol({"ada": 5})
            token = ledger.invite("ada")
        hub = subprocess.Popen(
            [python, "-c", code, "hub", "serve", str(tmp_path), "--port", "0"],
            env=alone(**SECRETS),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert hub.stderr is not None
        try:
            line = hub.stderr.readline()
            assert "The hub is at " in line, line + hub.stderr.read()
            reply = requests.post(
                line.split("The hub is at ")[1].split(": ")[0] + "/v1/leases",
                json={"size": 1, "name": "a" * 22},
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
        finally:
            hub.terminate()
            _, log = hub.communicate(timeout=30)
    assert hub.returncode == 143
    assert reply.status_code == 500
    said = quiet_about_secrets((reply.text + log).encode())
    assert "RuntimeError" in said
    assert token not in said

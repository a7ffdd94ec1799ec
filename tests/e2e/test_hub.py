"""The hub as its users start it: an organiser's command, members' own, and an action that finds the answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks import chaos
from tests import worlds
from ttca.data.folder import write_people
from ttca.people import People
from ttca.platforms.server import background_server

pytestmark = pytest.mark.e2e
TTCA = (sys.executable, "-m", "ttca")


def say(*words: object, cwd: Path, **environment: str) -> dict[str, Any]:
    """Run a command to its end and return its JSON object."""
    done = subprocess.run(
        [*TTCA, *map(str, words), "--json"],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def hub(home: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Run ``ttca hub serve`` and give the URL that it says."""
    process = subprocess.Popen(
        [*TTCA, "hub", "serve", str(home), "--port", "0", "--host", host], stderr=subprocess.PIPE, text=True, cwd=home
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert f"The hub is at http://{f'[{host}]' if ':' in host else host}:" in line, line
        yield line.split("The hub is at ")[1].split(": ")[0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def hubs_home(home: Path, url: str) -> Path:
    """Write an action whose people share their images."""
    roles = worlds.roster().roles()
    named = [role for role, group in roles.items() for _ in range(len(group))]
    write_people(home / "people", People.concatenate(list(roles.values())), worlds.CLASSES, named)
    (home / "action.toml").write_text(worlds.action_file(url, people="shareable = true\n"))
    return home


# The small form asks through the same doors: tests/pooling/test_hub.py and test_contribute.py.
@pytest.mark.full
def test_members_on_their_own_machines_answer_for_an_action(tmp_path: Path) -> None:
    """Two members do what their invitations say; then the action has every answer, and itself sends nothing."""
    log = tmp_path / "log"
    with background_server(worlds.Recorder().inner, access_log=log) as url:
        home = hubs_home(tmp_path / "mine", url)
        with hub(home) as hub_url:
            for member in ("member-0", "member-1"):
                invitation = say("hub", "invite", member, home, "--url", hub_url, cwd=tmp_path)
                assert "The 205 pictures" in invitation["message"]
                token = invitation["token"]
                mine = tmp_path / f"{member}.toml"
                # Each works for leases that the collective signed, and no others.
                mine.write_text(invitation["message"].split("-----\n")[1])
                assert f'hub_key = "{invitation["key"]}"' in mine.read_text()
                look = tmp_path / f"{member}-pictures"
                files = say("contribute", mine, "--show", look, cwd=tmp_path, TTCA_HUB_TOKEN=token)["files"]
                assert sorted(map(str, look.iterdir())) == files != []
                done = say("contribute", mine, cwd=tmp_path, TTCA_HUB_TOKEN=token)
                assert done["queries"] == done["answered"] > 0
            assert done["ended"] == "Nothing is left for you to ask."
            page = requests.get(hub_url, auth=("me", token), timeout=30).text
            assert "100.0&nbsp;%" in page
            members = say("hub", "members", home, cwd=tmp_path)["members"]
            first, second = (m for m in members if m["invited"])
            sent = sum(json.loads(line)["rows"] for line in log.read_text().splitlines())
            assert first["asked"] + second["asked"] == first["answered"] + second["answered"] == sent
            # What both answered, both are judged by.
            assert first["judged"] == second["judged"] == sent - 205 > 0
            say("hub", "revoke", "member-1", home, cwd=tmp_path)
            assert requests.get(hub_url, auth=("me", token), timeout=30).status_code == 401
        pooled = say("pool", "run", home, cwd=tmp_path)
        groups, whose = pooled.pop("groups"), pooled.pop("whose")
        assert pooled == {"images": 205, "answered": 205, "coverage": 1.0}
        assert whose.startswith("These are people of the pool")
        assert sum(group["asked"] for group in groups.values()) == 205
        assert sum(json.loads(line)["rows"] for line in log.read_text().splitlines()) == sent
    status = say("pool", "status", home, cwd=tmp_path)
    assert sum(status["paid"].values()) == sent
    assert set(status["paid"]) == {"pool", "pool-cross-check"}


def test_a_hub_listens_on_ipv6(tmp_path: Path) -> None:
    """An address of IPv6 may be given as people write it, and the URL that is said can be opened."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("This machine has no IPv6.")
    with background_server(worlds.Recorder().inner) as url, hub(hubs_home(tmp_path / "mine", url), "::1") as hub_url:
        assert hub_url.startswith("http://[::1]:")
        assert requests.get(hub_url, timeout=30).status_code == 401


def test_a_hub_without_shareable_images_does_not_start(tmp_path: Path) -> None:
    """Images that nobody may see stay at home: the hub says how to share, and shows nothing."""
    write_people(tmp_path / "people", People.concatenate(list(worlds.roster().roles().values())), worlds.CLASSES)
    with background_server(worlds.Recorder().inner) as url:
        (tmp_path / "action.toml").write_text(worlds.action_file(url))
        done = subprocess.run(
            [*TTCA, "hub", "serve", str(tmp_path), "--port", "0"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "Expected images that may be sent to other members, got none" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "Expected --certificate and --private-key"),
        (["--certificate", "no.pem"], "certificate and private key together"),
        (["--certificate", "no.pem", "--private-key", "no.pem"], "Expected a PEM file"),
    ],
)
def test_off_this_machine_a_hub_needs_a_certificate(words: list[str], sentence: str, tmp_path: Path) -> None:
    """Tokens and images never travel in the clear, and a missing file is a sentence."""
    done = subprocess.run([*TTCA, "hub", "serve", str(tmp_path), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in " ".join(done.stderr.split())


@pytest.mark.full
def test_a_pool_survives_everything_at_once() -> None:
    """Members killed, networks stalling, the hub and PostgreSQL crashing: every promise about the books holds."""
    result = chaos.main(["--members=4", "--queries=160", "--kills=3", "--restarts=1", "--limit=400"])
    assert result["holds"] == dict.fromkeys(result["holds"], True)
    assert result["all_hold"]
    assert (result["kills"], result["restarts_of_postgres_and_hub"]) == (3, 1)
    assert result["right_answers"] == 160

"""The documents keep their word: their commands and their code are run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fastapi import FastAPI

from tests.e2e.conftest import FinishedDemo
from tests.test_cli import Terminal
from ttca.demo.platform import digits_platform
from ttca.demo.world import digits_world
from ttca.platforms.connections import ConnectionLimits
from ttca.platforms.server import background_app, background_server

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[tuple[str, str, str]]:
    """Return language, remark and text of every fenced block of a document."""
    return [(m[1], m[2].strip(), m[3]) for m in BLOCK.finditer((ROOT / document).read_text(encoding="utf-8"))]


def environment() -> dict[str, str]:
    """Return an environment in which `ttca` and `python` are those of this interpreter."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def background(command: str, home: Path) -> Iterator[None]:
    """Run a command beside the block, once it has said that it is ready."""
    process = subprocess.Popen(
        shlex.split(command), cwd=home, env=environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        yield
    finally:
        # As Ctrl-C does.
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


TUTORIAL = "docs/tutorial.md"
SERVED = "http://127.0.0.1:8123"
#: What the small form has otherwise than the page: a proxy and a δ of a second, and a goal that they reach.
QUICKER = {"goal = 0.9": "goal = 0.5", "steps = 60": 'steps = 5\narchitectures = ["perceptron"]\nepochs = 8'}


def test_the_tutorials_commands_work_in_its_order_on_a_quick_proxy(
    finished_demo: FinishedDemo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command, script and file of the tutorial works in this process, with a quick proxy."""
    terminal = Terminal(monkeypatch, capsys)
    home = finished_demo.home
    monkeypatch.chdir(home)
    platform = digits_platform(digits_world(0), seed=0)
    ran = 0
    with background_server(platform) as url:
        for language, remark, text in blocks(TUTORIAL):
            if language == "toml":
                for printed, quick in {**QUICKER, SERVED: url}.items():
                    assert printed in text
                    text = text.replace(printed, quick)
                (home / remark.removeprefix("file=")).write_text(text, encoding="utf-8")
            elif language == "python":
                exec(compile(text, TUTORIAL, "exec", dont_inherit=True), {})
            elif remark == "background":
                assert text.split() == ["ttca", "demo", "platform", "--port", SERVED.rpartition(":")[2]]
            else:
                for command in text.splitlines():
                    name, *words = shlex.split(command)
                    if command == "ttca demo" or name == "pip":
                        continue  # finished_demo ran it; test_wheel.py installs
                    assert name == "ttca"
                    done = terminal(*words)
                    assert done.code == 0, f"{command}\n{done.err}"
                    ran += 1
    assert ran >= 10
    for made in ("submit.png", "my-action/report.html", "my-action/perturbations.safetensors"):
        assert (home / made).is_file(), made
        (home / made).unlink()
    shutil.rmtree(home / "my-action")


#: Pages of the how-to whose commands are about the tutorial's action, in an order in which they can be run.
HOW_TO = ("docs/audit.md", "docs/recipes.md", "docs/page.md", "docs/recheck.md", "docs/consent.md", "docs/evidence.md")
#: What has to be said where nobody can be asked, and a member that the tutorial has.
SAID = {
    "audit my-action --people 150": "audit my-action --people 30 --yes",
    "recheck my-action": "recheck my-action --yes",
    "consent ada": "consent member-01",
}
#: These need columns that the digits lack, a bundle of their own place, minutes of computing, or hours.
LEFT_OUT = (
    "--discover",
    "ttca plan",
    "check.py evidence.zip",
    "check.py --key",
    "python -m benchmarks",
    "ttca run my-action  ",
)


def how_to(home: Path) -> int:
    """Run the how-to's commands on the tutorial's action, and return how many there were."""
    ran = 0
    for page in HOW_TO:
        for command in (line for language, _, text in blocks(page) if language == "sh" for line in text.splitlines()):
            if any(words in command for words in LEFT_OUT):
                continue
            line = command.partition("  #")[0]
            for printed, here in SAID.items():
                # A command that already says so stays as it is.
                line = line if "--yes" in line else line.replace(printed, here)
            if line.startswith("python check.py"):
                line = f"mkdir -p bundle && cd bundle && python -m zipfile -e ../evidence.zip . && {line}"
            done = subprocess.run(
                ["sh", "-ec", line], cwd=home, env=environment(), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page}: {line}\n{done.stderr}"
            ran += 1
    return ran


@pytest.mark.full
def test_the_tutorials_commands_work_in_its_order(finished_demo: FinishedDemo) -> None:
    """Every command, script and file of the tutorial works as printed, and the how-to's commands on what it made."""
    home = finished_demo.home
    ran = 0
    with contextlib.ExitStack() as stack:
        for language, remark, text in blocks(TUTORIAL):
            if language == "toml":
                (home / remark.removeprefix("file=")).write_text(text, encoding="utf-8")
            elif language == "python":
                subprocess.run([sys.executable, "-c", text], cwd=home, check=True)
                ran += 1
            elif remark == "background":
                stack.enter_context(background(text, home))
                ran += 1
            else:
                for command in text.splitlines():
                    if command.startswith("pip install"):
                        continue  # this interpreter has it; test_wheel.py installs
                    if command.startswith("ttca init"):
                        (home / command.split()[-1]).unlink(missing_ok=True)
                    done = subprocess.run(
                        shlex.split(command), cwd=home, env=environment(), capture_output=True, text=True, check=False
                    )
                    assert done.returncode == 0, f"{command}\n{done.stderr}"
                    ran += 1
        assert ran >= 12
        assert how_to(home) >= 9
    for name in ("submit.png", "my-action/report.html", "my-action/perturbations.safetensors"):
        assert (home / name).is_file(), name


@pytest.mark.full
def test_the_tutorials_platform_outlives_its_terminal(tmp_path: Path) -> None:
    """Started with nohup and &, with a closed input, it says where it is, answers, and outlives a hang-up."""
    said, told = tmp_path / "out", tmp_path / "err"
    line = f"nohup python -m ttca.demo.platform 0 0 >{said} 2>{told} <&- & echo $!"
    done = subprocess.run(["sh", "-c", line], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    process = int(done.stdout)
    try:
        deadline = time.monotonic() + 120
        while "has started at" not in told.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, told.read_text(encoding="utf-8")
            time.sleep(0.2)
        os.kill(process, signal.SIGHUP)
        url = said.read_text(encoding="utf-8").strip()
        assert f"has started at {url} (KServe V2, model digits)" in told.read_text(encoding="utf-8")
        assert requests.get(f"{url}/v2/models/digits", timeout=10).ok
    finally:
        os.kill(process, signal.SIGTERM)


#: The README's reader has a model and pictures; here they are the tiny world's.
_READER = """
from tests import worlds
from ttca.people import People

everybody = People.concatenate([worlds.crowd(role, 60, 40, seed=k) for k, role in enumerate("abc")])
images, labels, blurred, names = everybody.images, everybody.classes, everybody.subgroup, worlds.CLASSES
predict = worlds.model

# The program as printed, learning for a shorter time than a reader's would.
import inspect
import ttca
inspect.unwrap(ttca.Settings.__init__).__kwdefaults__.update(epochs=8, steps=10, control_lengths=(1.0,))
"""


def test_the_readmes_program_works(tmp_path: Path) -> None:
    """The README's program runs as printed on a reader's own model, tells of the gap, and verifies."""
    (program,) = [text for language, _, text in blocks("README.md") if language == "python"]
    assert len([line for line in program.splitlines() if line.strip()]) <= 14
    done = subprocess.run(
        [sys.executable, "-c", _READER + program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ertified" in done.stdout
    assert "subgroup" in done.stdout


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in the documents names a file that exists."""
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_numbers_in_documents_come_from_result_files() -> None:
    """Every result file that a document names exists, so that its numbers can be looked up."""
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"benchmarks/results/[\w.-]+\.json", document.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{document.name}: {name}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page's commands are openssl's")
def test_a_collective_can_vouch_for_its_hub(tmp_path: Path) -> None:
    """What the page's openssl commands make serves HTTPS to who trusts the authority, and to nobody else."""
    (commands,) = (text for _, _, text in blocks("docs/pool.md") if "openssl" in text)
    words = ["sh", "-e", "-c", commands.replace("DNS:hub.example.org", "IP:127.0.0.1")]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    with background_app(
        FastAPI(),
        certificate=tmp_path / "hub.pem",
        private_key=tmp_path / "hub.key",
        limits=ConnectionLimits(),
    ) as url:
        assert requests.get(url, verify=str(tmp_path / "ca.pem"), timeout=10).status_code == 404
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=10)

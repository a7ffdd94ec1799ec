"""Tests of what reaches the reader: any encoding, full disks, closed pipes, and no secret when a program breaks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import worlds
from tests.programs import BROKEN, TTCA, Programs, environment
from ttca.masking import masked_everywhere
from ttca.perturbations import PerturbationSet
from ttca.pooling.ledger import Ledger
from ttca.streams import steady_streams
from ttca.terminal import visible

KEY = "sk-live/4f+9ZQ=7e21"
TOKEN = "tok-Zm9vYmFy_8812"
MEMBER = "Zoë Țepeș δ"
pytestmark = pytest.mark.e2e

PROGRAM = (sys.executable, "-m", "ttca")
UTF8 = {"PYTHONUTF8": "1"}
ENCODINGS: dict[str, tuple[str, dict[str, str]]] = {
    "ascii": ("ascii", {"PYTHONIOENCODING": "ascii"}),
    "cp1252": ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
    "C": ("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "utf-8": ("utf-8", {"PYTHONIOENCODING": "utf-8"}),
}
COMMANDS = {
    "version": (["--version"], 0),
    "help": (["--help"], 0),
    "help of a command": (["pool", "run", "--help"], 0),
    "help with a Greek letter": (["learn", "--help"], 0),
    "help of a group": (["pool"], 0),
    "init": (["init", "new.toml"], 0),
    "init in JSON": (["init", "new.toml", "--json"], 0),
    "apply": (["apply", "delta.safetensors", "me.png", "--class", "cat", "--out", "sent.png"], 0),
    "apply to a folder": (["apply", "delta.safetensors", "album", "--class", "cat", "--out", "made"], 1),
    "inspect": (["inspect", "delta.safetensors"], 0),
    "submit": (["submit", "delta.safetensors", "me.png", "--platform", "mine/action.toml", "--class", "cat"], 1),
    "a table": (["pool", "status", "mine"], 0),
    "a table in JSON": (["pool", "status", "mine", "--json"], 0),
    "an error": (["run", "nothing-δ…", "--json"], 1),
    "wrong usage": (["fly-ε"], 2),
}
#: Commands whose words are rich in what some encodings lack.
SPEAKING = ("apply", "a table", "an error")
#: What says its result on standard output.
TALKING = [name for name, (_, code) in COMMANDS.items() if code == 0 and name != "init"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with what the commands need: a perturbation, an image, and an action whose ledger has a name."""
    delta = np.full((2, 5, 4, 3), 4, np.int8)
    evidence = {"certificate": worlds.certified(99, epsilon=4).to_dict()}
    known = PerturbationSet(delta, 4, ("cat", "dog"), "subgroup", "f" * 64, evidence=evidence)
    known.save(tmp_path / "delta.safetensors")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "me.png")
    (tmp_path / "album").mkdir()
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "album" / "Zoë δ….png")
    (tmp_path / "album" / "bad–ε.jpg").write_text("no photograph")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "action.toml").write_text(worlds.action_file("http://127.0.0.1:1"))
    with Ledger(tmp_path / "mine" / "ledger.sqlite") as ledger:
        ledger.enrol({MEMBER: 5})
    return tmp_path


#: Runs a command to its end: words, folder, and more about its environment, its code and its streams.
Start = Callable[..., subprocess.CompletedProcess[bytes]]


def own(
    words: list[str],
    home: Path,
    encoded: Mapping[str, str] = UTF8,
    *,
    code: str = TTCA,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    extra: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in an interpreter of its own; streams that are not given are read."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=home,
        env=environment(**encoded, **(extra or {})),
        stdout=stdout,
        stderr=stderr,
        check=False,
    )


@pytest.fixture(scope="module")
def forked() -> Iterator[Start]:
    """Return what runs a command as a fork of an interpreter that was started under the same encoding."""
    started: dict[tuple[tuple[str, str], ...], Programs] = {}
    with contextlib.ExitStack() as stack:

        def start(
            words: list[str], home: Path, encoded: Mapping[str, str] = UTF8, **more: Any
        ) -> subprocess.CompletedProcess[bytes]:
            key = tuple(encoded.items())
            if key not in started:
                started[key] = stack.enter_context(Programs(environment(**encoded)))
            return started[key].run(words, home, **more)

        yield start


@pytest.fixture(params=["forked", pytest.param("own", marks=pytest.mark.full)])
def run(request: pytest.FixtureRequest, forked: Start) -> Start:
    """Return both ways to run a command; that they do the same is a test of its own."""
    return own if request.param == "own" else forked


def quiet(said: bytes | None) -> bytes:
    """Return what was said, which must hold no trace of an exception."""
    assert b"Traceback" not in (said or b"")
    assert b"Exception ignored" not in (said or b"")
    assert b"Error:" not in (said or b"") or b"No such command" in (said or b"")
    return said or b""


# -- encodings --------------------------------------------------------------------------------------------------


#: In the poorest encoding every command; in the others most are long forms.
_ENCODED = [
    pytest.param(where, command, marks=[] if where == "C" or command in SPEAKING else pytest.mark.full)
    for where in ENCODINGS
    for command in COMMANDS
]


@pytest.mark.parametrize(("where", "command"), _ENCODED)
def test_every_encoding_will_do(where: str, command: str, home: Path, run: Start) -> None:
    """Under any encoding of its streams a command ends as it would in UTF-8, with text in that encoding."""
    encoding, encoded = ENCODINGS[where]
    words, code = COMMANDS[command]
    done = run(words, home, encoded)
    assert done.returncode == code, done.stderr
    quiet(done.stdout + done.stderr).decode(encoding)


@pytest.mark.parametrize("where", ["ascii", "C"])
def test_greek_letters_are_spelled_out(where: str, home: Path, run: Start) -> None:
    """Where ε and δ cannot be written they are spelled, and tables get plain lines."""
    _, encoded = ENCODINGS[where]
    said = run(["apply", "delta.safetensors", "me.png", "--class", "cat", "--epsilon", "9"], home, encoded).stderr
    assert b"a perturbation set with epsilon = 9, got" in b" ".join(said.split())
    table = run(["pool", "status", "mine"], home, encoded).stdout.decode("ascii")
    assert "| Zo? ?epe? delta |" in table
    assert table.count("?") == 3


@pytest.mark.parametrize("command", ["apply", "apply to a folder", "inspect"])
def test_a_narrow_pipe_loses_no_word(command: str, home: Path, run: Start) -> None:
    """In a pipe of 40 columns every name and sentence of a member's command is whole, as in a wide one."""
    said = []
    for columns in ("40", "300"):
        done = run(COMMANDS[command][0], home, UTF8, extra={"COLUMNS": columns})
        assert done.returncode == COMMANDS[command][1]
        said.append(quiet(done.stdout).decode().replace("was there already", "written"))
    assert said[0] == said[1]
    assert "\n" in said[0].strip()


@pytest.mark.parametrize("where", ENCODINGS)
def test_names_in_json_are_exact(where: str, home: Path, run: Start) -> None:
    """--json says a name letter by letter, whatever the encoding."""
    done = run(["pool", "status", "mine", "--json"], home, ENCODINGS[where][1])
    assert [m["member"] for m in json.loads(done.stdout)["members"]] == [MEMBER]


def test_a_file_name_that_is_no_utf_8_is_no_traceback(home: Path) -> None:
    """A path of arbitrary bytes is written to and told with a question mark."""
    done = subprocess.run(
        [*map(os.fsencode, PROGRAM), b"init", b"n\xff.toml"],
        cwd=home,
        env=environment(**UTF8),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Wrote n?.toml" in quiet(done.stderr)
    assert (home / os.fsdecode(b"n\xff.toml")).is_file()


@given(st.text(), st.sampled_from(["ascii", "cp1252", "utf-8", "utf-16", "shift_jis"]))
def test_any_text_is_written(text: str, encoding: str) -> None:
    """No text fails in any encoding, and what the encoding has is written as it is, control characters apart."""
    text = visible(text)
    before = sys.stdout
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    try:
        with steady_streams():
            assert sys.stdout.write(text) == len(text)
        written = sys.stdout.buffer.getvalue().decode(encoding)
    finally:
        sys.stdout = before
    try:
        # Some encodings write two characters alike.
        assert written == text.encode(encoding).decode(encoding)
    except UnicodeEncodeError:
        assert written != text


# -- full disks and closed pipes --------------------------------------------------------------------------------

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@needs_full
@pytest.mark.parametrize("command", TALKING)
def test_a_full_disk_is_one_sentence(command: str, home: Path, run: Start) -> None:
    """A result that cannot be written ends in status 1 and one sentence on standard error."""
    with broken("full") as full:
        done = run(COMMANDS[command][0], home, stdout=full)
    assert done.returncode == 1
    last = quiet(done.stderr).decode().strip().splitlines()[-1]
    assert last.startswith("ttca: Expected to write the result to standard output, got: No space left on device.")


@pytest.mark.parametrize("command", TALKING)
def test_a_reader_who_left_is_no_error_to_speak_of(command: str, home: Path, run: Start) -> None:
    """A pipe that nobody reads ends in status 1 and nothing is said about it."""
    with broken("left") as left:
        done = run(COMMANDS[command][0], home, stdout=left)
    assert done.returncode == 1
    assert b"ttca:" not in quiet(done.stderr)


def test_a_pipe_into_head_says_nothing(home: Path) -> None:
    """`ttca --help | head -0`, with both streams in the pipe, ends quietly."""
    command = subprocess.list2cmdline([*PROGRAM, "--help"])
    script = f"set -o pipefail; {command} 2>err.txt | head -0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=home,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.stdout.strip() in (b"0", b"1")  # head may be slow to leave
    assert (home / "err.txt").read_bytes() == done.stderr == b""


@contextlib.contextmanager
def broken(how: str) -> Iterator[int]:
    """Give an open file that takes nothing: a full disk, or a pipe whose reader has left."""
    if how == "full":
        stream = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stream = os.pipe()
        os.close(reader)
    try:
        yield stream
    finally:
        os.close(stream)


#: Commands that make remarks, or have none to make.
REMARKING = ["help", "init in JSON", "apply", "an error", "wrong usage"]


def normal(command: str, home: Path, run: Start) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose streams can be written to, and delete what it made."""
    done = run(COMMANDS[command][0], home)
    for made in ("new.toml", "sent.png"):
        (home / made).unlink(missing_ok=True)
    assert done.returncode == COMMANDS[command][1]
    return done


@pytest.mark.parametrize("how", [pytest.param("full", marks=needs_full), "left"])
@pytest.mark.parametrize("command", REMARKING)
def test_without_standard_error_nothing_else_is_lost(command: str, how: str, home: Path, run: Start) -> None:
    """Where remarks cannot be written, the result and the status are what they are otherwise."""
    expected = normal(command, home, run)
    with broken(how) as stream:
        done = run(COMMANDS[command][0], home, stderr=stream)
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)


# What an interpreter finds when it starts cannot be had from a fork.
@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[] if c == "apply" else [pytest.mark.full]) for c in REMARKING]
)
def test_started_without_standard_error_nothing_else_is_lost(command: str, home: Path) -> None:
    """A program that starts with its standard error closed gives the result and the status that it gives otherwise."""
    expected = normal(command, home, own)
    words = subprocess.list2cmdline([sys.executable, "-c", TTCA, *COMMANDS[command][0]])
    done = subprocess.run(
        ["bash", "-c", f"exec {words} 2>&-"], cwd=home, env=environment(**UTF8), stdout=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)


def streams(where: str, run: Start, home: Path) -> tuple[int, bytes, bytes]:
    """Return status, output and remarks of `ttca apply` under an encoding, or with a stream that takes nothing."""
    words = [*COMMANDS["apply"][0][:-1], "new.png"]
    if where in ENCODINGS:
        done = run(words, home, ENCODINGS[where][1])
    else:
        name, how = where.split()
        with broken(how) as stream:
            done = run(words, home, UTF8, **{name: stream})
    (home / "new.png").unlink()
    return done.returncode, done.stdout or b"", done.stderr or b""


@pytest.mark.parametrize(
    "where",
    [
        *(pytest.param(name, marks=[] if name == "ascii" else pytest.mark.full) for name in ENCODINGS),
        "stdout left",
        pytest.param("stderr full", marks=needs_full),
    ],
)
def test_a_fork_says_what_a_program_of_its_own_says(where: str, home: Path, forked: Start) -> None:
    """Under each encoding and with broken streams, both ways in which these tests run a command do the same."""
    assert streams(where, forked, home) == streams(where, own, home)


@needs_full
def test_a_bar_that_cannot_be_shown_is_dropped(home: Path, forked: Start) -> None:
    """Progress on a full disk is lost, and the work and its result are not."""
    code = (
        "from rich.console import Console\n"
        "from ttca.progress import Reporter\n"
        "from ttca.streams import run_program\n"
        "def work():\n"
        "    reporter = Reporter(Console(stderr=True, force_terminal=True))\n"
        "    reporter.say('beginning')\n"
        "    with reporter.track('working', 3) as advance:\n"
        "        for _ in range(3): advance(1)\n"
        "    print('done')\n"
        "run_program('test', work)\n"
    )
    with broken("full") as full:
        done = forked([], home, code=code, stderr=full)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@needs_full
def test_a_benchmark_ends_in_a_sentence_too(home: Path) -> None:
    """The benchmarks' own program fails no differently from ttca."""
    with broken("full") as full:
        done = own([], home, code=PRINTING_BENCHMARK, stdout=full)
    assert done.returncode == 1
    assert b"benchmarks: Expected to write the result to standard output" in quiet(done.stderr)


PRINTING_BENCHMARK = """
import runpy, sys, types
import benchmarks
sys.modules["benchmarks.bounds"] = types.SimpleNamespace(main=lambda argv: {"says": "ε ✓"})
sys.argv = ["benchmarks", "bounds"]
runpy.run_module("benchmarks", run_name="__main__")
"""


# -- no key, no token -------------------------------------------------------------------------------------------

CRASHES = {
    "in a command": "import ttca.config as c\nc.read_contribution = broken",
    "where the hub is read": "import ttca.pooling.hub_client as c\nc.HubClient.get = broken",
    "where the environment is read": "import ttca.pooling.hub_client as c\nc.HubClient.__init__ = broken",
    "where the platform is met": "import ttca.platforms.http as h\nh.HttpPlatform.__init__ = broken",
    "with locals shown": "import ttca.cli as c\nimport ttca.config as f\n"
    "c.app.pretty_exceptions_show_locals = True\nf.read_contribution = broken",
}


@pytest.mark.parametrize("where", CRASHES)
def test_no_secret_is_in_the_traceback_of_a_crash(where: str, home: Path, run: Start) -> None:
    """A bug anywhere, with key and token at hand and in the message, shows what broke and neither secret."""
    (home / "ada.toml").write_text(
        '[contribute]\nhub = "http://127.0.0.1:1"\ntoken_variable = "TTCA_HUB_X"\n'
        '[platform]\nurl = "http://127.0.0.1:1"\nmodel = "m"\nclasses = ["a", "b"]\nkey_variable = "TTCA_KEY_X"\n'
    )
    code = f"{BROKEN}{CRASHES[where]}\n{TTCA}\n"
    secrets = {"TTCA_KEY_X": f"127.0.0.1 {KEY}", "TTCA_HUB_X": TOKEN}
    done = run(["contribute", "ada.toml"], home, code=code, extra=secrets)
    assert done.returncode == 1
    said = quiet_about_secrets(done.stdout + done.stderr)
    assert "RuntimeError" in said
    assert "This is a bug in ttca." in said


def quiet_about_secrets(said: bytes) -> str:
    """Return what was said, which must hold neither key nor token."""
    text = said.decode()
    for secret in (KEY, TOKEN, json.dumps(KEY)[1:-1]):
        assert secret not in text
    return text


def test_a_secret_is_masked_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, token and database password are masked, plain or escaped; other variables and short names are not."""
    monkeypatch.setenv("TTCA_KEY_X", f"127.0.0.1 {KEY}")
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)
    monkeypatch.setenv("PGPASSWORD", "correct-horse")
    monkeypatch.setenv("TTCA_DATA", "/a/folder")
    text = f"{KEY} {TOKEN} correct-horse sk-live%2F4f%2B9ZQ%3D7e21 /a/folder 127.0.0.1"
    assert masked_everywhere(text) == "[key] [key] [key] [key] /a/folder 127.0.0.1"

"""Tests that no stranger commands a terminal: hubs, platforms and files plant escapes in whatever a person reads."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from tests import worlds
from ttca.cli import main
from ttca.perturbations import PerturbationSet
from ttca.pooling.ledger import Ledger
from ttca.progress import Reporter
from ttca.streams import steady_streams
from ttca.telling import tell_wait
from ttca.terminal import Terminal, visible

#: Clears the screen and names the window, in 7 bits and in 8; turns text round; rings; hides.
PLANTED = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\u200f\x08\x7f\u2028\x1b[8m"
Words = Callable[..., str]


def harmless(text: str) -> bool:
    """Whether a text holds no control character but line ends, and nothing that turns text round."""
    turns = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    return not any((unicodedata.category(c) == "Cc" and c not in "\n\t") or c in turns for c in text)


@given(st.text())
def test_what_is_visible_stays(text: str) -> None:
    """Any text becomes one without control characters, of the same length, and all else in it stays."""
    shown = visible(text)
    assert harmless(shown)
    assert len(shown) == len(text)
    assert all(a == b or not harmless(b) for a, b in zip(shown, text, strict=True))


def test_a_terminal_keeps_its_own_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colors, tables and bars are shown through the steady streams, and what stands in them is harmless."""
    beneath = io.StringIO()
    monkeypatch.setattr(sys, "stderr", beneath)
    with steady_streams():
        terminal = Terminal(stderr=True, force_terminal=True, width=150, color_system="standard", legacy_windows=False)
        terminal.print(f"[red]{PLANTED}[/red]", emoji=False)
        table = Table("one", title=PLANTED)
        table.add_row(PLANTED)
        terminal.print(table)
        with Reporter(terminal).track(PLANTED, 3) as advance:
            advance(3)
            sys.stderr.write(PLANTED + "\n")
    written = beneath.getvalue()
    assert "\x1b[31m" in written
    assert "\x1b[?25l" in written
    for command in ("\x1b]0;owned", "\x1b[8m", "\x07", "\x9b", "\u202e", "\u2066", "\u200f", "\x7f", "\u2028"):
        assert command not in written


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Words:
    """Return what calls the command line in this process, and returns all it wrote."""

    def run(*words: object, code: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["ttca", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        written = "".join(capsys.readouterr())
        assert (ended.value.code or 0) == code, written
        assert harmless(written), repr(written)
        return written

    return run


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """Serve an error full of escapes at every path; give the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"error": f"no {PLANTED}", "kind": "quota"}, ensure_ascii=False).encode()
            self.send_response(400, "no\x9b31m")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_hubs_error_is_shown_only(
    said: Words, stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hub says of an error reaches the terminal without its escapes."""
    monkeypatch.setenv("TTCA_HUB_X", "token")
    (tmp_path / "ada.toml").write_text(
        f'[contribute]\nhub = "{stranger}"\ntoken_variable = "TTCA_HUB_X"\n'
        '[platform]\nurl = "http://127.0.0.1:1"\nmodel = "m"\nclasses = ["a", "b"]\n'
    )
    assert "evil" in said("contribute", tmp_path / "ada.toml")


def test_a_platforms_error_is_shown_only(said: Words, stranger: str, tmp_path: Path) -> None:
    """The body of a platform's error reaches the terminal without its escapes."""
    (tmp_path / "action.toml").write_text(worlds.action_file(stranger))
    assert "evil" in said("run", tmp_path, "--dry-run")


def test_an_action_file_is_shown_only(said: Words, stranger: str, tmp_path: Path) -> None:
    """Names of tables, keys and values of an action file, which may come from others, reach it without escapes."""
    quoted = json.dumps(PLANTED)
    for text in (
        worlds.action_file(stranger) + f"\n[{quoted}]\n",
        worlds.action_file(stranger, action=f"goal = {quoted}\n"),
        worlds.action_file(stranger, platform=f"{quoted} = 1\n"),
        worlds.action_file(stranger, platform=f"key_header = {quoted}\n"),
        worlds.action_file(f"http://{PLANTED}".replace("\x1b", "\\u001b").encode("unicode_escape").decode()),
        f"name = {PLANTED}",
    ):
        (tmp_path / "action.toml").write_text(text)
        said("run", tmp_path, "--dry-run")


def test_class_names_of_a_file_are_shown_only(said: Words, tmp_path: Path) -> None:
    """Whatever a perturbation file calls its classes, subgroup and platform, `apply` shows it without escapes."""
    evidence = {"certificate": worlds.certified(99, epsilon=4).to_dict(), "platform": PLANTED, "goal": PLANTED}
    delta = np.full((2, 5, 4, 3), 4, np.int8)
    known = PerturbationSet(delta, 4, (f"cat {PLANTED}", "dog"), f"people {PLANTED}", "f" * 64, evidence=evidence)
    known.save(tmp_path / "delta.safetensors")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "me.png")
    words = ("apply", tmp_path / "delta.safetensors", tmp_path / "me.png", "--out", tmp_path / "out.png", "--class")
    assert "evil" in said(*words, "owl")
    assert "evil" in said(*words, f"cat {PLANTED}", "--anyway", code=0)


def test_members_of_a_ledger_are_shown_only(said: Words, tmp_path: Path) -> None:
    """A table of members shows their names without escapes; as JSON they are exact."""
    (tmp_path / "action.toml").write_text(worlds.action_file("http://127.0.0.1:1"))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.enrol({f"ada {PLANTED}": 5})
    assert "ada" in said("pool", "status", tmp_path, code=0)
    exact = json.loads(said("pool", "status", tmp_path, "--json", code=0))
    assert [m["member"] for m in exact["members"]] == [f"ada {PLANTED}"]


def test_usage_logs_and_warnings_are_shown_only(
    said: Words, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Usage errors, the log, and whatever a library writes to standard error go through the same filter."""
    assert "evil" in said(f"fly {PLANTED}", code=2)
    with caplog.at_level(logging.INFO, "ttca"):
        tell_wait(60, f"The hub says {PLANTED}")
    assert harmless(caplog.text)
    beneath = io.StringIO()
    monkeypatch.setattr(sys, "stderr", beneath)
    with steady_streams(), warnings.catch_warnings():
        warnings.simplefilter("always")
        sys.stderr.write(warnings.formatwarning(PLANTED, UserWarning, "f", 1))
    assert harmless(beneath.getvalue())


def long_names(width: int | None, *, is_terminal: bool) -> str:
    """Return a table of two long names that differ in their last letter."""
    beneath = io.StringIO()
    terminal = Terminal(file=beneath, width=width, force_terminal=is_terminal, color_system=None, legacy_windows=False)
    table = Table("member", "quota", title="Who paid")
    for end in "ab":
        table.add_row("n" * 150 + end, "5")
    terminal.print(table)
    return beneath.getvalue()


def test_long_names_keep_apart_piped_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped, each name stands whole on a line of its own; on a terminal it is folded, and no letter of it is lost."""
    # Test runners set it.
    monkeypatch.delenv("COLUMNS", raising=False)
    piped = long_names(None, is_terminal=False)
    assert all("n" * 150 + end in piped for end in "ab")
    folded = long_names(80, is_terminal=True)
    assert max(map(len, folded.splitlines())) <= 80
    assert "…" not in folded
    assert folded.count("n") == 300

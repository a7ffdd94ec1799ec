"""`ttca submit`, and what `ttca apply` asks on a terminal: queries said first, a receipt, nothing sent in vain."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import stat
import warnings
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import worlds
from tests.test_cli import Served, Terminal, served, ttca
from tests.test_from_code import server
from ttca.config import read_platform
from ttca.errors import ConfigError
from ttca.perturbations import PerturbationSet
from ttca.platforms.server import background_app, create_app
from ttca.preparation import Preparation

__all__ = ["served", "server", "ttca"]

KEY = "sk-9/1f+Qz=53bd"
ME = 'key_variable = "TTCA_KEY_ME"\n'


@pytest.fixture
def home(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a set of the served platform, the member's own platform table, and a photograph."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTCA_KEY_ME", f"127.0.0.1 {KEY}")
    (tmp_path / "me.toml").write_text(worlds.action_file(served.url, platform=ME))
    with read_platform(tmp_path / "me.toml").open() as platform:
        info = platform.info
    delta = np.rint(12 * worlds.PATTERNS).astype(np.int8)
    evidence = {"certificate": worlds.certified(99, epsilon=12).to_dict()}
    PerturbationSet(
        delta, 12, info.classes, "people in fog", info.fingerprint, service=info.name, evidence=evidence,
        preparation=Preparation(size=8),
    ).save(tmp_path / "set.safetensors")  # fmt: skip
    # A stripe is taken for a bar before, and for itself after.
    picture = np.clip(128 + 3 * worlds.PATTERNS[1].repeat(5, 0).repeat(5, 1), 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "me.png")
    return tmp_path


def words(*more: str, true_class: str = worlds.CLASSES[0]) -> tuple[str, ...]:
    """Return the words that submit the photograph."""
    return ("submit", "set.safetensors", "me.png", "--platform", "me.toml", "--class", true_class, *more)


def test_both_answers_are_shown_and_a_receipt_is_kept(home: Path, served: Served, ttca: Terminal) -> None:
    """Two queries go out under the member's key; the receipt says what was sent and heard, and holds no key."""
    before = served.rows
    said = ttca(*words("--yes", "--json"))
    receipt = said.json
    assert served.rows == before + 2
    assert served.authorizations >= {f"Bearer {KEY}"}
    assert "twice under your own key" in said.err
    assert (receipt["before"]["answer"], receipt["after"]["answer"]) == (worlds.CLASSES[1], worlds.CLASSES[0])
    assert (receipt["before"]["right"], receipt["after"]["right"], receipt["queries"]) == (False, True, 2)
    kept = home / "submit" / "me-receipt.json"
    assert json.loads(kept.read_text()) == {k: v for k, v in receipt.items() if k not in ("file", "receipt")}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert KEY not in said.out + said.err + kept.read_text()
    sent = home / "submit" / "me.png"
    with Image.open(sent) as image:
        pixels = np.asarray(image)
    assert receipt["after"]["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert receipt["submitted_sha256"] == hashlib.sha256(sent.read_bytes()).hexdigest()
    assert receipt["set"]["sha256"] == hashlib.sha256((home / "set.safetensors").read_bytes()).hexdigest()
    known = PerturbationSet.load(home / "set.safetensors")
    with Image.open(home / "me.png") as image:
        np.testing.assert_array_equal(pixels, known.apply(np.asarray(image), worlds.CLASSES[0]))
    again = ttca(*words("--yes"))
    assert f"Without the change: {worlds.CLASSES[1]} (" in again.out
    assert "which is wrong." in again.out
    assert f"With the change: {worlds.CLASSES[0]} (" in again.out
    assert (home / "submit" / "me-receipt-2.json").is_file()


def spoil(home: Path, how: str) -> tuple[str, ...]:
    """Spoil one thing, and return the words."""
    path = home / "set.safetensors"
    known = PerturbationSet.load(path)
    if how == "nobody to ask":
        return words()
    if how == "another platform":
        replace(known, fingerprint="0" * 64).save(path)
    elif how == "other classes":
        replace(known, classes=("a", "b", "c")).save(path)
        return words("--yes", "--anyway", true_class="a")
    elif how == "another size":
        replace(known, delta=np.zeros((3, 9, 9, 3), np.int8), preparation=Preparation(size=9)).save(path)
        return words("--yes", "--anyway")
    elif how == "no certificate":
        replace(known, evidence={}).save(path)
    elif how == "no photograph":
        (home / "me.png").write_text("text")
    elif how == "unknown class":
        return words("--yes", true_class="owl")
    elif how == "no class":
        return tuple(word for word in words("--yes") if word not in ("--class", worlds.CLASSES[0]))
    elif how == "a folder":
        return tuple("." if word == "me.png" else word for word in words("--yes"))
    elif how == "too small":
        (home / "me.toml").write_text((home / "me.toml").read_text().replace(ME, ME + "smallest = 80\n"))
    elif how == "no key":
        os.environ.pop("TTCA_KEY_ME")
    elif how == "another file there":
        (home / "submit").mkdir()
        (home / "submit" / "me.png").write_text("mine")
    elif how == "no platform table":
        (home / "me.toml").write_text("[pool]\n")
    return words("--yes")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nobody to ask", "Expected --yes where nobody can answer"),
        ("another platform", "got one that was made for"),
        ("other classes", "Expected a set for the classes"),
        ("another size", "Expected a set for images of 8×8"),
        ("no certificate", "without a certificate"),
        ("no photograph", "me.png: Expected a photograph"),
        ("unknown class", "got 'owl'"),
        ("no class", "Give it with --class"),
        ("a folder", "Expected one photograph, got the folder"),
        ("too small", "Nothing was sent."),
        ("no key", "TTCA_KEY_ME"),
        ("another file there", "overwrite it with --force"),
        ("no platform table", "Expected the table [platform]"),
    ],
)
def test_bad_input_costs_no_query(
    home: Path, served: Served, ttca: Terminal, monkeypatch: pytest.MonkeyPatch, how: str, sentence: str
) -> None:
    """Whatever does not fit is a sentence, and the platform gets no picture."""
    monkeypatch.setenv("TTCA_KEY_ME", os.environ["TTCA_KEY_ME"])
    before = served.rows
    said = ttca(*spoil(home, how))
    assert said.code == 1
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert served.rows == before


class Typed(io.StringIO):
    """Lines that somebody types."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


@pytest.mark.parametrize("said", ["n\n", "y\n"])
def test_a_terminal_is_asked_first(
    home: Path, served: Served, ttca: Terminal, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Only a yes sends both pictures; a no leaves no file and no receipt."""
    monkeypatch.setattr("sys.stdin", Typed(said))
    before = served.rows
    done = ttca(*words())
    assert served.rows - before == (2 if said == "y\n" else 0)
    assert done.code == (0 if said == "y\n" else 1)
    assert (home / "submit" / "me.png").exists() == (said == "y\n")


def test_a_class_is_asked_for_by_name_or_number(home: Path, ttca: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal apply asks what each photograph shows, again where it is not understood, and never guesses."""
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(home / "you.png")
    monkeypatch.setattr("sys.stdin", Typed(f"owl\n2\n{worlds.CLASSES[0].upper()}\n"))
    said = ttca("apply", "set.safetensors", "me.png", "you.png", "--json")
    assert [photo["true_class"] for photo in said.json["photos"]] == [worlds.CLASSES[1], worlds.CLASSES[0]]
    assert "What does me.png truly show?" in said.err
    assert "got 'owl'" in said.err


@pytest.fixture
def failing(home: Path) -> Iterator[Any]:
    """Serve a platform that fails on its second answer; yields how many it was asked."""
    asked: list[int] = []
    inner = worlds.Recorder().inner
    app = create_app(inner)

    @app.middleware("http")
    async def fail(request: Any, call_next: Any) -> Any:
        from starlette.responses import Response

        if request.method == "POST":
            asked.append(1)
            if len(asked) > 1:
                return Response("no", status_code=500)
        return await call_next(request)

    with background_app(app) as url:
        text = (home / "me.toml").read_text().splitlines()
        (home / "me.toml").write_text("\n".join(f'url = "{url}"' if line.startswith("url") else line for line in text))
        yield asked


def test_what_may_have_been_paid_is_not_paid_twice(home: Path, ttca: Terminal, failing: list[int]) -> None:
    """Where the second answer does not come, the receipt keeps the first, and the request is not sent again."""
    said = ttca(*words("--yes", "--anyway"))
    assert said.code == 1
    assert "The receipt: submit/me-receipt.json" in said.err
    receipt = json.loads((home / "submit" / "me-receipt.json").read_text())
    assert receipt["before"]["answer"] == worlds.CLASSES[1]
    assert receipt["after"]["answer"] is None
    assert receipt["gone_on_anyway"] == ["another platform"]
    assert len(failing) == 2 == receipt["queries"]


def test_help_promises_no_command_that_refuses_the_file(home: Path, ttca: Terminal, tmp_path: Path) -> None:
    """A member's platform table alone is no action file: ttca ask refuses it, and no member's command names that."""
    table = (home / "me.toml").read_text().partition("[people]")[0]
    (tmp_path / "alone.toml").write_text(table)
    assert "Expected the table [people]" in ttca("ask", tmp_path / "alone.toml", "me.png").sentence
    for command in ("submit", "apply", "inspect"):
        assert "ttca ask" not in " ".join(re.sub("[^\\w ]", " ", ttca(command, "--help").out).split())


def test_a_platform_is_read_from_any_file_with_the_table(tmp_path: Path) -> None:
    """A file with [platform] alone will do, as a contribution file and an action file do."""
    text = worlds.action_file("http://127.0.0.1:9").partition("[platform]")[2].partition("[people]")[0]
    (tmp_path / "a.toml").write_text(f"[platform]{text}")
    assert read_platform(tmp_path / "a.toml").url == "http://127.0.0.1:9"
    (tmp_path / "b.toml").write_text("[contribute]\n" + f"[platform]{text}")
    assert read_platform(tmp_path / "b.toml").classes == worlds.CLASSES
    with pytest.raises(ConfigError, match="nothing there"):
        read_platform(tmp_path / "c.toml")


def test_the_pages_commands_and_code_work(home: Path, ttca: Terminal, server: ThreadingHTTPServer) -> None:
    """Every command of docs/members.md ends well, in its order, and its code does what it says."""
    page = (Path(__file__).parents[1] / "docs" / "members.md").read_text(encoding="utf-8")
    (home / "set.safetensors").rename(home / "perturbations.safetensors")
    (home / "album").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(home / "album" / name)
    (home / "album" / "classes.csv").write_text("file,class\na.png,bars\nb.jpg,checks\n")
    ran = 0
    for language, text in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
        if language == "sh":
            for command in text.splitlines():
                done = ttca(*shlex.split(command)[1:])
                assert done.code == 0, f"{command}\n{done.err}"
                ran += 1
            continue
        heard: list[Any] = []
        server.heard = heard  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        with warnings.catch_warnings():
            # The page's one line leaves the closing of files and sessions to its reader.
            warnings.simplefilter("ignore", ResourceWarning)
            found = {"picture": np.full((40, 50, 3), 99, np.uint8), "url": url}
            exec(compile(text, "docs/members.md", "exec", dont_inherit=True), found)
            if "session" in found:
                found["session"].close()  # type: ignore[attr-defined]
                assert len(heard) == 1
            else:
                np.testing.assert_array_equal(found["transform"](found["picture"]), found["submitted"])  # type: ignore[operator]
            del found
    assert ran == 7
    assert len(list((home / "ready").rglob("*.png"))) == 3
    assert {p.name for p in (home / "by-table").iterdir()} == {"a.png", "b.png"}
    assert {p.name for p in home.glob("one*.png")} == {"one.png", "one-preview.png"}


def test_inspect_says_whether_a_set_may_be_used_and_apply_obeys(home: Path, served: Served, ttca: Terminal) -> None:
    """For its own platform a set may be used; for another `inspect` names the doubt, and `apply` needs --anyway."""
    before = served.rows
    said = ttca("inspect", "set.safetensors", "--platform", "me.toml", "--json").json
    assert (said["usable"], said["doubts"], said["classes"]) == (True, [], list(worlds.CLASSES))
    known = PerturbationSet.load(home / "set.safetensors")
    replace(known, fingerprint="0" * 64).save(home / "set.safetensors")
    said = ttca("inspect", "set.safetensors", "--platform", "me.toml", "--json").json
    assert (said["usable"], [doubt["kind"] for doubt in said["doubts"]]) == (False, ["another platform"])
    assert "- another platform. Expected" in ttca("inspect", "set.safetensors", "--platform", "me.toml").out
    words = ("apply", "set.safetensors", "me.png", "--class", "bars", "--platform", "me.toml")
    assert "got one that was made for" in ttca(*words).sentence
    assert not (home / "submit").exists()
    done = ttca(*words, "--anyway")
    assert done.code == 0
    assert "Used all the same (--anyway). Expected a perturbation set for the platform" in done.out
    assert served.rows == before

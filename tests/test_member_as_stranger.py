"""What a member without a guide stumbled over, each kind in one test: folders for files, words for figures."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_cli import Terminal
from tests.test_members_set import made
from ttca.data.photographs import read_photograph, upright
from ttca.errors import DataError
from ttca.goals import Goal


@pytest.fixture
def ttca(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Return the command line of this process."""
    return Terminal(monkeypatch, capsys)


@pytest.mark.parametrize(
    "words",
    [
        "inspect FOLDER",
        "apply FOLDER photo.png --class cat",
        "submit FOLDER photo.png --class cat --platform me.toml --yes",
        "publish FOLDER --out page.html",
        "pool check FOLDER",
        "apply set.safetensors photo.png --table FOLDER",
        "report-records FOLDER",
        "aggregate FOLDER FOLDER --population 9",
    ],
)
@pytest.mark.parametrize("folder", [".", "album"])
def test_a_folder_in_the_place_of_a_file_is_a_sentence(
    words: str, folder: str, ttca: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever wants a file and gets a folder, named or `.`, says so, without a number of the system's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    made().save(tmp_path / "set.safetensors")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "me.toml").write_text(
        '[platform]\nurl = "http://127.0.0.1:9"\nprotocol = "torchserve"\nmodel = "m"\nclasses = ["cat", "dog"]\n'
        "[platform.options]\nimage_shape = [5, 4, 3]\n"
    )
    said = ttca(*words.replace("FOLDER", folder).split()).sentence
    assert f"got the folder '{folder}'" in said
    assert "Errno" not in said


@pytest.mark.parametrize(
    "words",
    ["publish SET --out page.html", "inspect SET", "apply SET photo.png --class cat", "publish home --out page.html"],
)
@pytest.mark.parametrize("mark", ["action.toml", "ledger.sqlite"])
def test_in_an_actions_folder_a_set_that_is_not_there_was_not_certified(
    words: str, mark: str, ttca: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the certificate the sentence says so and names the command; afterwards it names the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / mark).touch()
    said = ttca(*words.replace("SET", "home/perturbations.safetensors").split()).sentence
    assert "No set of this action is certified yet" in said
    assert said.endswith("ttca run home")
    made().save(tmp_path / "home" / "perturbations.safetensors")
    said = ttca(*words.replace("SET", "home/set.safetensors").split()).sentence
    assert "The certified set of this action is home/perturbations.safetensors." in said


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (Goal("parity"), "at least as often as those of the people they are compared with"),
        (Goal("improvement"), "more often than without it"),
        (Goal("rate", 0.9), "at least 90 % of their answers are right"),
        (Goal("rate", 0.875), "at least 87.5 % of their answers are right"),
        (Goal("within", 0.05), "but for 5 points"),
        (Goal("accuracy_ratio", 0.8), "at least 0.8 times as often as those of"),
    ],
)
def test_every_goal_is_shown_in_words(goal: Goal, said: str) -> None:
    """No member has to know what a success rate or parity is."""
    assert said in goal.shown
    assert goal.shown.startswith("with it, ")


def test_a_set_says_who_was_asked_and_not_who_was_needed() -> None:
    """The counts of a certificate are people and right answers; what the rule needed stands with the certificate."""
    known = made()
    assert known.certificate is not None
    (test,) = known.certificate.tests
    assert f"({test.right} of the {test.asked} people asked got a right answer)" in known.about()
    assert replace(known, evidence={}).about().startswith("Made for people in fog, on faces at api.example. Not cert")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a set without preparation, a picture that fits and two that do not."""
    monkeypatch.chdir(tmp_path)
    replace(made(), preparation=None).save(tmp_path / "set.safetensors")
    for name, shape in (("fits", (5, 4)), ("large", (9, 9)), ("wide", (5, 8))):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_where_nothing_was_written_nothing_is_ready(home: Path, ttca: Terminal) -> None:
    """Whoever got no picture is not told to submit it, but what to do; one that was written is submitted as it is."""
    done = ttca("apply", "set.safetensors", "large.png", "wide.png", "--class", "cat")
    assert done.code == 1
    assert "Nothing was written: all 2 photographs were refused. Correct what is said of each" in done.out
    assert "Submit them" not in done.out
    assert "ttca prepare does, with --size 5x4" in done.err
    assert not (home / "submit").exists()
    done = ttca("apply", "set.safetensors", "large.png", "fits.png", "--class", "cat", "--preview")
    assert (done.code, "Ready: 1 of 2." in done.out, "Nothing was" in done.out) == (1, True, False)
    assert "Before, difference and after: submit/fits-preview.png." in done.out
    assert (home / "submit" / "fits-preview.png").is_file()


def test_prepare_speaks_of_an_action_only_where_something_was_prepared(home: Path, ttca: Terminal) -> None:
    """A member whose pictures were prepared is told where they are; with none there is nothing to write anywhere."""
    (home / "none.png").write_text("no image")
    said = ttca("prepare", "none.png", "out", "--size", "5x4").err
    assert "1 refused. No picture was prepared." in said
    assert "[people]" not in said
    said = ttca("prepare", "large.png", "out", "--size", "5x4").err
    assert "1 prepared. The pictures are in out.\nFor an action of your own, under [people] of its file:\n" in said


def test_a_picture_that_is_too_large_says_how_to_make_it_smaller() -> None:
    """Whether it comes as a file or opened, the sentence says by what."""
    large = Image.new("1", (8193, 8192))
    file = BytesIO()
    large.save(file, "PNG")
    smaller = "a photo editor or viewer saves a smaller copy"
    with pytest.raises(DataError, match=smaller):
        read_photograph(file.getvalue())
    with pytest.raises(DataError, match=smaller):
        upright(large)

"""A folder or table of photographs is prepared: all of it, nothing overwritten, resumed, and told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttca.cli import main
from ttca.data.folder import load_people
from ttca.data.photographs import read_photograph
from ttca.data.preparing import PreparedFile, prepare_photographs
from ttca.errors import ConfigError, DataError
from ttca.preparation import Preparation
from ttca.progress import Advance, Reporter, Tally

WAY = Preparation(size=(8, 6))


def photograph(path: Path, seed: int, *, turn: int = 1) -> None:
    """Write a photograph of 30×20 pixels with metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = turn, "where I live"
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder of photographs in folders, with two that share a name and one that is none."""
    for seed, name in enumerate(["cat/Ana/1.jpg", "cat/Ana/1.png", "dog/Bo/2.JPG", "dog/Bo/3.webp"]):
        photograph(tmp_path / "album" / name, seed, turn=6 if seed == 2 else 1)
    (tmp_path / "album/dog/notes.txt").write_text("mine")
    (tmp_path / "album/Thumbs.db").write_bytes(b"x")
    return tmp_path / "album"


def pixels(path: Path) -> list[object]:
    """Return the levels of a file."""
    with Image.open(path) as image:
        return list(np.asarray(image).tolist())


def test_every_photograph_comes_to_the_size_and_is_told(album: Path, tmp_path: Path) -> None:
    """Each becomes a PNG of its own without metadata, readable as people, and what was done is said."""
    found = prepare_photographs(album, tmp_path / "out", WAY)
    assert [(f.source, f.out, f.state, f.size, f.done) for f in found] == [
        ("cat/Ana/1.jpg", "cat/Ana/1.png", "prepared", (30, 20), ("crop to 6×8",)),
        ("cat/Ana/1.png", "cat/Ana/1-2.png", "prepared", (30, 20), ("crop to 6×8",)),
        ("dog/Bo/2.JPG", "dog/Bo/2.png", "prepared", (20, 30), ("turned (EXIF 6)", "crop to 6×8")),
        ("dog/Bo/3.webp", "dog/Bo/3.png", "prepared", (30, 20), ("crop to 6×8",)),
        ("dog/notes.txt", "", "left out", None, ()),
    ]
    for one in found[:4]:
        want = WAY.of(read_photograph((album / one.source).read_bytes()).pixels)
        assert pixels(tmp_path / "out" / one.out) == want.tolist()
        with Image.open(tmp_path / "out" / one.out) as image:
            assert not image.info
            assert not image.getexif()
    got = load_people(tmp_path / "out", image_shape=WAY.image_shape, classes=["cat", "dog"], preparation=WAY)
    assert got.people.members.tolist() == ["Ana", "Ana", "Bo", "Bo"]
    if os.name == "posix":
        assert (tmp_path / "out/dog/Bo/2.png").stat().st_mode & 0o077 == 0


def test_a_second_run_does_nothing_and_overwrites_nothing(album: Path, tmp_path: Path) -> None:
    """What is prepared is kept; a file of somebody else, and another preparation, need --force."""
    out = tmp_path / "out"
    first = prepare_photographs(album, out, WAY)
    times = {one.out: (out / one.out).stat().st_mtime_ns for one in first[:4]}
    again = prepare_photographs(album, out, WAY)
    assert [f.state for f in again] == ["kept"] * 4 + ["left out"]
    assert [f.done for f in again] == [f.done for f in first]
    assert times == {one.out: (out / one.out).stat().st_mtime_ns for one in first[:4]}
    (out / "dog/Bo/2.png").write_bytes(b"drawn by hand")
    refused = prepare_photographs(album, out, WAY)[2]
    assert refused.state == "refused"
    assert "got one that holds something else" in refused.problem
    assert (out / "dog/Bo/2.png").read_bytes() == b"drawn by hand"
    other = Preparation(size=(8, 6), fit="pad")
    with pytest.raises(ConfigError, match=re.escape(f"Expected a folder that was prepared as {other}")):
        prepare_photographs(album, out, other)
    assert [f.state for f in prepare_photographs(album, out, other, force=True)][:4] == ["prepared"] * 4
    assert [f.state for f in prepare_photographs(album, out, other)][:4] == ["kept"] * 4
    # A photograph that was replaced is prepared anew, where that is allowed.
    photograph(album / "dog/Bo/3.webp", 99)
    assert prepare_photographs(album, out, other)[3].state == "refused"
    assert prepare_photographs(album, out, other, force=True)[3].state == "prepared"


def test_a_picture_whose_photograph_is_gone_is_named(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photograph that was taken away, or has another name, leaves a picture that would take part: it is said, and
    not deleted unasked."""
    out = tmp_path / "out"
    first = prepare_photographs(album, out, WAY)
    (album / "dog/Bo/3.webp").rename(album / "dog/Bo/4.webp")
    again = prepare_photographs(album, out, WAY)
    assert again[-1] == PreparedFile("dog/Bo/3.webp", first[3].out, "left over")
    assert (out / first[3].out).is_file()
    monkeypatch.setattr(sys, "argv", ["ttca", "prepare", str(album), str(out), "--size", "8x6"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert "left over: its photograph is gone" in re.sub(r"[│\s]+", " ", said.out)
    assert "remove these pictures too" in " ".join(said.err.split())
    (out / first[3].out).unlink()
    assert all(one.state != "left over" for one in prepare_photographs(album, out, WAY))


class _Impatient(Reporter):
    """Presses Ctrl-C after two photographs."""

    def __init__(self) -> None:
        super().__init__(None)

    @contextlib.contextmanager
    def _shown(self, tally: Tally, at_most: bool) -> Iterator[Advance]:
        """Yield a count that ends in an interruption."""
        left = [2]

        def advance(n: int, *, share: float | None = None, now: str | None = None) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        yield advance


def test_an_interrupted_run_goes_on_where_it_was(album: Path, tmp_path: Path) -> None:
    """What was done before Ctrl-C, or a kill in the middle of a line, is not done again; the result is the same."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        prepare_photographs(album, out, WAY, reporter=_Impatient())
    record = out / "prepared.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    assert len(lines) >= 3
    record.write_text("".join(lines[:-1]) + lines[-1][:20])
    states = [f.state for f in prepare_photographs(album, out, WAY)][:4]
    assert "kept" in states
    assert set(states) <= {"kept", "prepared"}
    prepare_photographs(album, whole, WAY)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*.png"))
    assert files == sorted(p.relative_to(out) for p in out.rglob("*.png"))
    assert all((out / f).read_bytes() == (whole / f).read_bytes() for f in files)
    assert [f.state for f in prepare_photographs(album, out, WAY)][:4] == ["kept"] * 4
    # As an editor, and as a full disk, leave it.
    record.write_text(record.read_text(), encoding="utf-8-sig")
    assert [f.state for f in prepare_photographs(album, out, WAY)][:4] == ["kept"] * 4
    record.write_text("")
    assert [f.state for f in prepare_photographs(album, out, WAY)][:4] == ["prepared"] * 4


def test_a_table_keeps_its_columns_and_its_boxes_are_cut(album: Path, tmp_path: Path) -> None:
    """Two people of one photograph are two pictures; the new table names them and has no box."""
    table = album / "people.csv"
    table.write_text(
        "File;Class;Member;Box;town\n"
        "dog/Bo/2.JPG;dog;Bo;1,2,10,9;Riga\ndog/Bo/2.JPG;dog;Cy;5 5 8 8;\ncat/Ana/1.jpg;cat;Ana;;Oslo\n"
    )
    found = prepare_photographs(table, tmp_path / "out", WAY)
    assert [f.out for f in found] == ["dog/Bo/2.png", "dog/Bo/2-2.png", "cat/Ana/1.png"]
    assert found[0].done == ("turned (EXIF 6)", "box 1,2,10,9", "crop to 6×8")
    upright = read_photograph((album / "dog/Bo/2.JPG").read_bytes()).pixels
    assert pixels(tmp_path / "out/dog/Bo/2-2.png") == WAY.of(upright, (5, 5, 8, 8)).tolist()
    assert (tmp_path / "out/people.csv").read_text().splitlines() == [
        "file,class,member,town", "dog/Bo/2.png,dog,Bo,Riga", "dog/Bo/2-2.png,dog,Cy,", "cat/Ana/1.png,cat,Ana,Oslo",
    ]  # fmt: skip
    # In memory it is the same picture.
    table.write_text('file,class,member,box\ndog/Bo/2.JPG,dog,Bo,"1,2,10,9"\ndog/Bo/2.JPG,dog,Cy,5 5 8 8\n')
    got = load_people(table, image_shape=WAY.image_shape, classes=["cat", "dog"], preparation=WAY)
    assert got.people.images[1].tolist() == pixels(tmp_path / "out/dog/Bo/2-2.png")


def test_what_cannot_be_prepared_is_a_sentence_and_the_others_are_done(album: Path, tmp_path: Path) -> None:
    """A damaged file and a box outside the picture are refused; the table waits until nothing is."""
    (album / "bad.jpg").write_text("I am no image")
    (album / "people.csv").write_text(
        'file,class,member,box\nbad.jpg,cat,x,\ncat/Ana/1.jpg,cat,y,"90,0,5,5"\ndog/Bo/3.webp,dog,z,\n'
    )
    found = prepare_photographs(album, tmp_path / "out", WAY)
    assert [f.state for f in found] == ["refused", "refused", "prepared"]
    assert "bytes of something else" in found[0].problem
    assert "inside the upright picture of 30×20 pixels" in found[1].problem
    assert not (tmp_path / "out/people.csv").exists()
    for text, sentence in (
        ("file,box\nmissing.jpg,\n", "Line 2: Expected a file, got no such file"),
        ("file,box\nbad.jpg,1 2 3\n", "Line 2: Expected a box as four whole numbers"),
        ("photo\nbad.jpg\n", "Expected the columns file"),
    ):
        (album / "people.csv").write_text(text)
        with pytest.raises(DataError, match=re.escape(sentence)):
            prepare_photographs(album, tmp_path / "new", WAY)


@pytest.mark.parametrize("where", ["album", "album/prepared"])
def test_a_target_in_the_source_is_refused(album: Path, tmp_path: Path, where: str) -> None:
    """Otherwise the next run would prepare what this one made."""
    with pytest.raises(ConfigError, match="Expected a target outside"):
        prepare_photographs(album, tmp_path / where, WAY)


def test_nothing_to_prepare_is_a_sentence(tmp_path: Path) -> None:
    """An empty folder and no folder are told apart."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Expected photographs in"):
        prepare_photographs(tmp_path / "empty", tmp_path / "out", WAY)
    with pytest.raises(DataError, match="got nothing at"):
        prepare_photographs(tmp_path / "none", tmp_path / "out", WAY)
    photograph(tmp_path / "one.jpg", 1)
    assert prepare_photographs(tmp_path / "one.jpg", tmp_path / "out", WAY) == [
        PreparedFile("one.jpg", "one.png", "prepared", (30, 20), ("crop to 6×8",))
    ]


def test_the_command_says_what_it_did(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON object, the line for the action file, and status 1 where something was refused."""

    def ttca(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ttca", "prepare", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, out, err = ttca(album, tmp_path / "out", "--size", "8x6", "--json")
    told = json.loads(out)
    assert (code, told["prepared"], told["left out"], told["refused"]) == (0, 4, 1, 0)
    assert told["files"][2]["done"] == ["turned (EXIF 6)", "crop to 6×8"]
    assert "preparation = " + str(WAY) in err
    (tmp_path / "action.toml").write_text(
        '[platform]\nurl = "http://127.0.0.1:1"\nmodel = "m"\nclasses = ["cat", "dog"]\n'
        f'[people]\nsource = "out"\npreparation = {WAY}\n'
    )
    (album / "bad.jpg").write_text("I am no image")
    code, out, err = ttca(album, tmp_path / "out", "--action", tmp_path)
    assert code == 1
    assert "30×20" in out
    assert "refused: Expected a photograph" in re.sub(r"[│\s]+", " ", out)
    assert "4 kept, 1 left out, 1 refused" in err
    # No table was the source, and none would be written.
    assert "run it again." in err
    assert "table" not in err
    (album / "people.csv").write_text("file,class,member\nbad.jpg,cat,x\n")
    assert "The table is written when nothing is refused." in ttca(album, tmp_path / "out", "--action", tmp_path)[2]
    for words, sentence in (
        (("--size", "big"), "Expected --size as a whole number of pixels"),
        ((), "Expected --size as a whole number of pixels"),
        (("--size", "1x2x3"), "Expected the size of a preparation"),
        (("--size", "8", "--fit", "zoom"), "Expected fit of a preparation to be one of 'crop', 'pad', 'squash'"),
        (("--size", "8", "--action", tmp_path), "or as --size and --fit, got both"),
        (("--fit", "pad", "--action", tmp_path), "or as --size and --fit, got both"),
    ):
        code, out, err = ttca(album, tmp_path / "new", *words)
        assert (code, out) == (1, "")
        assert sentence in err

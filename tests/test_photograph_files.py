"""Fifty files that members have: docs/members.md says what becomes of each, and this compares it."""

from __future__ import annotations

import os
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.members import peak_bytes
from tests import worlds
from tests.photograph_files import FILES, PICTURE, PIXELS, p3_profile
from tests.test_cli import Terminal, ttca
from ttca.data.photographs import read_photograph
from ttca.perturbations import PerturbationSet
from ttca.preparation import Preparation

__all__ = ["ttca"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "members.md"
START, END = "<!-- every file -->", "<!-- end of every file -->"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a certified set for two classes at 8×8 pixels."""
    delta = np.random.default_rng(0).integers(-4, 5, (2, 8, 8, 3)).astype(np.int8)
    evidence = {"certificate": worlds.certified(99, epsilon=4).to_dict()}
    PerturbationSet(
        delta, 4, ("cat", "dog"), "people in fog", "f" * 64, evidence=evidence, preparation=Preparation(size=8)
    ).save(tmp_path / "set.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table() -> dict[str, tuple[int, str]]:
    """Return what the page says of each file: the exit status, and what is said."""
    lines = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name.strip("` "): (int(status), said) for name, status, said in cells}


def outcome(ttca: Terminal, name: str) -> tuple[int, str]:
    """Return the exit status, and what is said of the one file."""
    done = ttca("apply", "set.safetensors", name, "--class", "cat", "--out", "out")
    assert "Traceback" not in done.err
    if done.code:
        assert done.out == ""
        assert not Path("out").exists()
        return done.code, done.sentence.removeprefix(f"{name}: ")
    (line,) = (line for line in done.out.splitlines() if line.startswith(f"{name}: "))
    return 0, line.partition("Class 'cat'; ")[2].rpartition("; ")[0]


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_handled_or_refused_as_the_page_says(
    home: Path, ttca: Terminal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Exit status and words are those of docs/members.md; what is written is a PNG within ε of the prepared picture."""
    if name == "plain.heic":
        pytest.importorskip("pillow_heif")
    if name == "without-pillow-heif.heic":
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = FILES[name]()
    (home / name).write_bytes(data)
    said = outcome(ttca, name)
    if os.environ.get("TTCA_WRITE_TABLE"):
        with Path(os.environ["TTCA_WRITE_TABLE"]).open("a") as lines:
            lines.write(f"| `{name}` | {said[0]} | {said[1]} |\n")
        return
    assert said == table()[name]
    if said[0] == 0:
        (made,) = Path("out").iterdir()
        with Image.open(made) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
            after = np.asarray(image).astype(int)
        before = Preparation(size=8).of(read_photograph(data).pixels)
        assert np.abs(after - before).max() <= 4


def test_the_page_lists_these_files_and_no_others() -> None:
    """There are at least fifty, each once."""
    assert list(table()) == list(FILES)
    assert len(FILES) >= 50


def test_display_p3_becomes_srgb() -> None:
    """Levels of Display P3 are what ImageCms makes of them, and differ from those that were stored."""
    source, intent = ImageCms.ImageCmsProfile(BytesIO(p3_profile())), ImageCms.Intent.RELATIVE_COLORIMETRIC
    want = ImageCms.profileToProfile(PICTURE, source, ImageCms.createProfile("sRGB"), renderingIntent=intent)
    got = read_photograph(FILES["display-p3.png"]()).pixels
    np.testing.assert_array_equal(got, np.asarray(want))
    assert np.abs(got.astype(int) - PIXELS).max() > 5


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as Linux says it")
@pytest.mark.parametrize(("name", "code"), [("fifty-megapixels.jpg", 0), ("bomb.png", 1)])
def test_large_files_fit_into_half_a_gigabyte(home: Path, name: str, code: int) -> None:
    """In a program of its own, 50 megapixels are applied, and the bomb is refused, within 500 MB."""
    (home / name).write_bytes(FILES[name]())
    status, peak = peak_bytes(home, ["apply", "set.safetensors", name, "--class", "cat"])
    assert status == code
    assert peak < 500e6


@pytest.mark.full
def test_the_bomb_is_what_it_says() -> None:
    """It is half a megabyte, and a PNG reader finds 13,000 × 13,000 pixels in it."""
    data = FILES["bomb.png"]()
    assert len(data) < 600_000
    start = data.index(b"IDAT") + 4
    unpacker, size = zlib.decompressobj(), 0
    pending = data[start : start + len(data)]
    while pending and not unpacker.eof:
        size += len(unpacker.decompress(pending, 2**24))
        pending = unpacker.unconsumed_tail
    assert size == 13_000 * 39_001

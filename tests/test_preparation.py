"""Tests of the preparation: the page's arithmetic in plain integers, its known answers, and Pillow as a measure."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests.examples import examples
from ttca.errors import ConfigError, ImageError
from ttca.images import Images
from ttca.preparation import Preparation, parse_box
from ttca.resampling import LANCZOS, block_mean, resample, whole_factor

_PAGE = Path(__file__).parent.parent / "docs" / "preparation.md"
_SIDES = st.integers(1, 40)
_PICTURES = st.tuples(_SIDES, _SIDES, st.just(3)).flatmap(lambda shape: hnp.arrays(np.uint8, shape))


def marked(name: str) -> str:
    """Return what stands between two marks of the page."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", _PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    return found[1]


def along(line: list[int], wanted: int, factor: int, length: int) -> list[int]:
    """Return Σ q·v for each target of one axis, exactly as the page says it, without numpy."""
    table, sums = LANCZOS.tolist(), []
    for j in range(wanted):
        u = 2 * max(length, wanted * factor)
        weights = []
        for i in range(len(line)):
            t = (256 * abs((2 * i + 1) * wanted * factor - (2 * j + 1) * length) + u) // (2 * u)
            weights.append(table[t] if t < 384 else 0)
        total = sum(weights)
        shares = [(32768 * weight + total) // (2 * total) for weight in weights]
        shares[shares.index(max(shares))] += 16384 - sum(shares)
        sums.append(sum(q * v for q, v in zip(shares, line, strict=True)))
    return sums


def by_the_page(pixels: Images, height: int, width: int) -> list[Any]:
    """Return the picture of another size, one number after the other, as the page defines it."""
    h, w, _ = pixels.shape
    if (h, w) == (height, width):
        return list(pixels.tolist())
    ky, kx = max(1, h // (2 * height)), max(1, w // (2 * width))
    planes = []
    for c in range(3):
        rows = []
        for y in range(0, h, ky):
            blocks = [pixels[y : y + ky, x : x + kx, c] for x in range(0, w, kx)]
            means = [(512 * int(b.sum(dtype=np.int64)) + b.size) // (2 * b.size) for b in blocks]
            rows.append([(r + 8192) // 16384 for r in along(means, width, kx, w)])
        columns = [along([row[x] for row in rows], height, ky, h) for x in range(width)]
        planes.append([[min(255, max(0, (p + 2097152) // 4194304)) for p in column] for column in columns])
    return [[[planes[c][x][y] for c in range(3)] for x in range(width)] for y in range(height)]


@examples(60)
@given(_PICTURES, st.integers(1, 12), st.integers(1, 12))
def test_fast_code_follows_the_page_to_the_last_level(pixels: Images, height: int, width: int) -> None:
    """Numpy's products give what the page's integers give, for every size and level."""
    assert resample(pixels, height, width).tolist() == by_the_page(pixels, height, width)


@examples(60)
@given(_PICTURES, _SIDES, _SIDES, st.integers(0, 255))
def test_constant_pictures_stay_constant_and_equal_sizes_stay_as_they_are(
    pixels: Images, height: int, width: int, level: int
) -> None:
    """No size lets a constant picture ripple, and a picture of the wanted size is that picture."""
    same = np.full_like(pixels, level)
    assert (resample(same, height, width) == level).all()
    np.testing.assert_array_equal(resample(pixels, *pixels.shape[:2]), pixels)
    made = resample(pixels, height, width)
    assert made.shape == (height, width, 3)
    assert made.dtype == np.uint8


@examples(60)
@given(st.integers(1, 40).flatmap(lambda n: hnp.arrays(np.uint8, (n, 1, 3))), _SIDES, _SIDES, _SIDES)
def test_axes_are_independent(line: Images, other: int, height: int, width: int) -> None:
    """A picture that changes along one axis alone becomes what its one line becomes, at every width."""
    want = resample(line, height, 1)
    wide = resample(np.repeat(line, other, axis=1), height, width)
    np.testing.assert_array_equal(wide, np.repeat(want, width, axis=1))
    tall = resample(np.repeat(line, other, axis=1).transpose(1, 0, 2), width, height)
    # Rounding between the axes comes first on one way and last on the other.
    assert np.abs(tall.transpose(1, 0, 2).astype(int) - wide).max() <= 1


@examples(40)
@given(_PICTURES, st.integers(1, 9), st.integers(1, 9))
def test_block_means_are_exact(pixels: Images, rows: int, columns: int) -> None:
    """A mean is the nearest 1/256 of a level to the true one, in the last and smaller blocks too."""
    got = block_mean(pixels, rows, columns)
    for y in range(got.shape[0]):
        for x in range(got.shape[1]):
            block = pixels[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns].astype(float)
            assert np.abs(got[y, x] / 256 - block.mean(axis=(0, 1))).max() <= 1 / 512
    assert whole_factor(4000, 224) * 224 * 2 <= 4000


def test_blocks_of_many_rows_do_not_overflow() -> None:
    """White stays white where one block sums more than 16 bits hold."""
    assert (resample(np.full((3000, 1200, 3), 255, np.uint8), 2, 1) == 255).all()


def test_the_page_has_the_table_and_no_entry_near_a_half() -> None:
    """The printed coefficients are the code's, and no machine's sine can round another way."""
    printed = [int(number) for number in re.findall(r"-?\d+", marked("lanczos"))]
    assert printed == LANCZOS.tolist()
    exact = [2**14 * 3 * math.sin(x) * math.sin(x / 3) / x**2 for x in (math.pi * t / 128 for t in range(1, 385))]
    assert min(abs(value % 1 - 0.5) for value in exact) > 0.001


def pattern(width: int, height: int) -> Images:
    """Return the picture of the page's known answers."""
    y, x, c = np.ogrid[:height, :width, :3]
    return np.asarray((3 * x * x + 5 * y * y + x * y * (c + 1) + 60 * c) % 256, dtype=np.uint8)


def test_known_answers_of_the_page() -> None:
    """Every row of the page's table is computed again."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in marked("known").splitlines()[2:]]
    assert len(rows) >= 6
    for picture, box, fit, size, first, middle, total, digest in rows:
        width, height = map(int, picture.split("×"))
        high, wide = map(int, size.split("×"))
        preparation = Preparation.from_dict({"fit": fit, "size": (high, wide)})
        got = preparation.of(pattern(width, height), parse_box(box) if box else None)
        assert [", ".join(map(str, got[at].tolist())) for at in ((0, 0), (high // 2, wide // 2))] == [first, middle]
        assert int(got.sum(dtype=np.int64)) == int(total)
        assert f"`{hashlib.sha256(got.tobytes()).hexdigest()[:16]}`" == digest


def noise(width: int, height: int, seed: int) -> Images:
    """Return the picture that tests/preparation.mjs makes of a seed (Lehmer's generator)."""
    levels, state = bytearray(), seed
    for _ in range(width * height * 3):
        state = state * 48271 % 2147483647
        levels.append(state >> 8 & 255)
    return np.frombuffer(bytes(levels), np.uint8).reshape(height, width, 3)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_makes_the_same_pixels() -> None:
    """The page's arithmetic in JavaScript's numbers gives Python's bytes, for every fit, up and down, with a box."""
    draw = np.random.default_rng(0)
    tasks: list[dict[str, Any]] = []
    for i in range(60):
        width, height, wide, high = (int(n) for n in draw.integers(1, [220, 220, 40, 40]))
        box = [-1, height // 3, width + 5, height] if i % 4 == 0 else None
        fit = ("crop", "pad", "squash")[i % 3]
        tasks.append({"width": width, "height": height, "fit": fit, "size": [high, wide], "box": box, "seed": i + 1})
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("preparation.mjs"))],
        input="".join(json.dumps(task) + "\n" for task in tasks),
        capture_output=True,
        text=True,
        check=True,
    )
    for task, digest in zip(tasks, done.stdout.split(), strict=True):
        way = Preparation(size=tuple(task["size"]), fit=task["fit"])
        made = way.of(noise(task["width"], task["height"], task["seed"]), task["box"])
        assert hashlib.sha256(made.tobytes()).hexdigest() == digest, task


def psnr(one: Images, other: Images) -> float:
    """Return the peak signal-to-noise ratio, dB."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def test_quality_against_pillow_is_as_the_page_says() -> None:
    """On photographs it is within 44 dB of Pillow's Lanczos, which Pillow's own box never is."""
    from sklearn.datasets import load_sample_images

    pictures = [np.ascontiguousarray(picture) for picture in load_sample_images().images]
    said = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", _PAGE.read_text(encoding="utf-8"), re.M)
    assert len(said) == 4
    for size, ours, box in ((int(n), float(a), float(b)) for n, a, b in said):
        shape = (size, size)
        lanczos = [np.asarray(Image.fromarray(p).resize(shape, Image.Resampling.LANCZOS)) for p in pictures]
        boxed = [np.asarray(Image.fromarray(p).resize(shape, Image.Resampling.BOX)) for p in pictures]
        got = min(psnr(resample(p, size, size), q) for p, q in zip(pictures, lanczos, strict=True))
        other = min(psnr(p, q) for p, q in zip(boxed, lanczos, strict=True))
        assert got == pytest.approx(ours, abs=0.5)
        assert other == pytest.approx(box, abs=0.5)
        assert got > 44 > 40 > other


@examples(60)
@given(_PICTURES, st.sampled_from(["crop", "pad", "squash"]), st.integers(1, 30), st.integers(1, 30))
def test_every_fit_gives_the_size_and_is_done_once(pixels: Images, fit: str, height: int, width: int) -> None:
    """Any picture comes to the size, a second time changes nothing, and a box is a cut before."""
    preparation = Preparation.from_dict({"fit": fit, "size": [height, width]})
    made = preparation.of(pixels)
    assert made.shape == preparation.image_shape
    np.testing.assert_array_equal(preparation.of(made), made)
    h, w, _ = pixels.shape
    part = np.ascontiguousarray(pixels[h // 3 :, w // 3 :])
    # What lies beyond the picture does not count.
    np.testing.assert_array_equal(preparation.of(pixels, (w // 3, h // 3, w + 7, h)), preparation.of(part))


def test_fits_take_what_they_say() -> None:
    """Crop takes the middle, pad keeps all between black bars, squash keeps all."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (Preparation(size=5).of(wide) == 200).all()
    padded = Preparation(size=30, fit="pad").of(wide)
    assert not padded[:10].any()
    assert not padded[20:].any()
    np.testing.assert_array_equal(padded[10:20], wide)
    squashed = Preparation(size=3, fit="squash").of(wide)
    assert squashed[:, 1].min() > 150 > 40 > squashed[:, ::2].max()
    # A line of one pixel has a middle, too.
    assert Preparation(size=4).of(np.full((1, 5000, 3), 9, np.uint8)).max() == 9


def test_a_preparation_survives_a_file_and_prints_as_it_is_written() -> None:
    """Plain values come back as the same preparation, and one way has one spelling."""
    import tomllib

    for preparation in (Preparation(size=224), Preparation(size=(48, 64), fit="pad")):
        assert Preparation.from_dict(preparation.to_dict()) == preparation
        assert Preparation.from_dict(tomllib.loads(f"p = {preparation}")["p"]) == preparation
    assert Preparation(size=(32, 32)) == Preparation(size=32)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"size": 0}, "whole number of pixels in 1..4096"),
        ({"size": 5000}, "got 5000"),
        ({"size": True}, "got True"),
        ({"size": [1, 2, 3]}, "[1, 2, 3]"),
        ({"size": "224"}, "got '224'"),
        ({"fit": "crop"}, "Expected a preparation with size"),
        (
            {"size": 8, "fit": "stretch"},
            "Expected fit of a preparation to be one of 'crop', 'pad', 'squash'",
        ),
        ({"size": 8, "filter": "bicubic"}, "Expected filter of a preparation to be one of 'area-lanczos'"),
        ({"size": 8, "color": "P3"}, "Expected color of a preparation to be one of 'sRGB'"),
        ({"size": 8, "turn": 1}, "Expected a preparation with size"),
        ("crop", "Expected a preparation with size"),
    ],
)
def test_a_preparation_that_is_none_is_a_sentence(found: Any, sentence: str) -> None:
    """What is misspelt or out of range is told, never ignored."""
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Preparation.from_dict(found)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((1, 0, 4, 4), "box 1,0,4,4"),
        ((-2, 1, 99, 99), "box -2,1,99,99, of which 0,1,10,3 lies in the picture"),
    ],
)
def test_a_box_that_sticks_out_says_what_was_used(box: tuple[int, int, int, int], said: str) -> None:
    """Whoever typed a box too large hears which part of the picture it was."""
    assert Preparation(size=2).told((4, 10, 3), box) == (said, "crop to 2×2")


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (10, 0, 3, 3), (-5, 0, 5, 3)])
def test_a_box_without_a_pixel_is_a_sentence(box: tuple[int, int, int, int]) -> None:
    """A box beside the picture is told with the picture's size."""
    with pytest.raises(ImageError, match="inside the upright picture of 10×4 pixels"):
        Preparation(size=2).of(np.zeros((4, 10, 3), np.uint8), box)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4"])
def test_a_box_that_cannot_be_read_is_a_sentence(text: str) -> None:
    """Four whole numbers, or a sentence."""
    with pytest.raises(ImageError, match="four whole numbers"):
        parse_box(text)

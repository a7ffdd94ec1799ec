"""Photographs of every kind: upright sRGB pixels, what was done said, and a sentence for what is none."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps

from tests.examples import examples
from ttca.data.photographs import MOST_PIXELS, read_photograph
from ttca.errors import DataError, MissingExtraError
from ttca.images import Images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    """Return a picture as a file."""
    out = BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(10))
def test_exif_turns_as_pillow_turns(turn: int, kind: str) -> None:
    """Each of the eight ways gives Pillow's upright picture and is said; 0, 1 and 9 change nothing and say nothing."""
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(PICTURE, kind, exif=exif)
    got = read_photograph(data)
    with Image.open(BytesIO(data)) as image:
        want = ImageOps.exif_transpose(image) if 2 <= turn <= 8 else image
        np.testing.assert_array_equal(got.pixels, np.asarray(want.convert("RGB")))
    assert got.done == ((f"turned (EXIF {turn})",) if 2 <= turn <= 8 else ())


def test_exif_that_is_garbage_changes_nothing() -> None:
    """A block that is no EXIF asks for no turn."""
    for garbage in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        data = encoded(PICTURE, "JPEG", exif=garbage)
        assert read_photograph(data).done == ()


def profile(name: str) -> bytes:
    """Return a color profile: sRGB, or one with other primaries, made of it by swapping red and green."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if name == "sRGB":
        return made
    # The tags of the red and the green primary trade places, which makes a profile of its own.
    swapped = made.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    # Its name is text of 16 bits a letter.
    return swapped.replace("sRGB".encode("utf-16-be"), "Twin".encode("utf-16-be"))


GREY16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 77)


@pytest.mark.parametrize(
    ("data", "done"),
    [
        (encoded(PICTURE), ()),
        (encoded(PICTURE.convert("L")), ()),
        (encoded(PICTURE.convert("P")), ()),
        (encoded(PICTURE.convert("1")), ()),
        (encoded(PICTURE, "GIF"), ()),
        (encoded(PICTURE, "BMP"), ()),
        (encoded(PICTURE, "AVIF"), ()),
        (encoded(PICTURE.convert("RGBA")), ()),
        (encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE]), ()),
        (encoded(PICTURE, icc_profile=profile("sRGB")), ()),
        (encoded(PICTURE, icc_profile=profile("Twin")), ("Twin",)),
        (encoded(PICTURE, icc_profile=b"none" * 40), ("color profile that cannot be read, ignored",)),
        (encoded(PICTURE.convert("CMYK"), "JPEG"), ("CMYK to sRGB without a profile",)),
        (encoded(PICTURE.convert("CMYK"), "TIFF"), ("CMYK to sRGB without a profile",)),
        (encoded(GREY16), ("16 bits cut to 8",)),
        (encoded(GREY16, "TIFF"), ("16 bits cut to 8",)),
        (encoded(PICTURE, "GIF", save_all=True, append_images=[ImageOps.invert(PICTURE)]), ("first of 2 frames",)),
        (
            encoded(PICTURE, "WEBP", lossless=True, save_all=True, append_images=[ImageOps.invert(PICTURE)]),
            ("first of 2 frames",),
        ),
        (encoded(PICTURE.convert("P"), transparency=int(np.asarray(PICTURE.convert("P"))[0, 0])), ("transparency",)),
        (encoded(PICTURE, transparency=tuple(PIXELS[0, 0].tolist())), ("transparency on white",)),
        (encoded(Image.new("RGB", (1, 1), (1, 2, 3))), ()),
    ],
)
def test_every_kind_is_read_and_says_what_changed(data: bytes, done: tuple[str, ...]) -> None:
    """Only what changes pixels is said; levels that are not converted arrive as they were."""
    got = read_photograph(data)
    assert got.pixels.dtype == np.uint8
    assert len(got.done) == len(done)
    assert all(said.startswith(want) for said, want in zip(got.done, done, strict=True))
    if not done and b"PNG" in data[:4]:
        with Image.open(BytesIO(data)) as image:
            np.testing.assert_array_equal(got.pixels, np.asarray(image.convert("RGB")))


def test_sixteen_bits_keep_their_upper_eight() -> None:
    """In grey as in color, the level is the upper byte."""
    np.testing.assert_array_equal(read_photograph(encoded(GREY16)).pixels[..., 1], PIXELS[..., 0])
    raw = b"".join(
        b"\0" + b"".join(struct.pack(">H", 256 * v + 99) for v in row.reshape(-1).tolist()) for row in PIXELS
    )
    png = png_of(5, 7, raw, depth=16)
    got = read_photograph(png)
    np.testing.assert_array_equal(got.pixels, PIXELS)
    assert got.done == ("16 bits cut to 8",)


def test_colors_of_another_profile_become_srgb() -> None:
    """A profile with other primaries changes the pixels, and gray stays gray by it."""
    got = read_photograph(encoded(PICTURE, icc_profile=profile("Twin")))
    assert got.done == ("Twin to sRGB",) or got.done[0].endswith("to sRGB")
    assert (got.pixels != PIXELS).any()
    grey = Image.fromarray(np.full((2, 2, 3), 130, np.uint8))
    assert np.abs(read_photograph(encoded(grey, icc_profile=profile("Twin"))).pixels.astype(int) - 130).max() <= 1


@examples(40)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(4))))
def test_transparency_lies_on_white_in_whole_numbers(pixels: Images) -> None:
    """Each level is (a·v + 255·(255 − a)) / 255 with halves rounded up; opaque pixels keep theirs."""
    got = read_photograph(encoded(Image.fromarray(pixels)))
    for row, made in zip(pixels.tolist(), got.pixels.tolist(), strict=True):
        for (*levels, a), new in zip(row, made, strict=True):
            assert new == [(2 * (a * v + 255 * (255 - a)) + 255) // 510 for v in levels]
    assert got.done == (() if pixels[..., 3].min() == 255 else ("transparency on white",))


@pytest.mark.parametrize("grey", [PIXELS[..., 0]])
def test_grey_with_alpha_keeps_its_levels(grey: Images) -> None:
    """Opaque grey with an alpha channel is the grey picture."""
    both = Image.merge("LA", (Image.fromarray(grey), Image.new("L", (5, 7), 255)))
    np.testing.assert_array_equal(read_photograph(encoded(both)).pixels, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "Expected a photograph (PNG"),
        (b"hello, I am no image", "got 20 bytes of something else"),
        (encoded(Image.effect_noise((200, 200), 50))[:9000], "got a damaged one"),
        (encoded(Image.effect_noise((200, 200), 50).convert("RGB"), "JPEG")[:2000], "got a damaged one"),
        (encoded(PICTURE.convert("F"), "TIFF"), "mode F, whose range nothing says"),
    ],
)
def test_what_is_no_photograph_is_a_sentence(data: bytes, sentence: str) -> None:
    """Text, halves of files and levels without a range end in a sentence."""
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_photograph(data)


@examples(100)
@given(st.data())
def test_damaged_files_never_end_in_another_error(data: st.DataObject) -> None:
    """A byte changed anywhere gives a picture or a sentence."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
    whole = bytearray(encoded(PICTURE, kind))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_photograph(bytes(whole)).pixels.dtype == np.uint8
    except DataError as error:
        assert str(error).startswith("Expected")  # noqa: PT017 - either is right


def test_heic_is_read_where_the_package_is_there() -> None:
    """An iPhone's photograph is decoded, or the sentence names what to install."""
    try:
        import pillow_heif
    except ImportError:
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'ttca[heic]'")):
            read_photograph(b"\0\0\0\x18ftypheic" + bytes(40))
        return
    out = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(PICTURE.resize((64, 48))).save(out, quality=-1, exif=exif.tobytes())
    got = read_photograph(out.getvalue())
    assert got.pixels.shape == (64, 48, 3)
    assert got.done == ("turned (EXIF 6)",)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, raw: bytes, *, depth: int = 8) -> bytes:
    """Return an RGB PNG of filtered rows."""
    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


_MEASURE = """
import sys
from pathlib import Path
from ttca.data.photographs import read_photograph
from ttca.errors import DataError
try:
    read_photograph(Path(sys.argv[1]).read_bytes())
except DataError as error:
    print(error)
# Not getrusage, which begins with what the parent had.
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0"]
print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")))
"""


def test_a_bomb_is_refused_before_it_is_decompressed(tmp_path: Path) -> None:
    """A PNG of 13,000² pixels in half a megabyte takes no more memory than the program itself."""
    packed = zlib.compressobj(9)
    row = bytes(1 + 3 * 13_000)
    body = b"".join(packed.compress(row) for _ in range(13_000)) + packed.flush()
    head = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    assert bomb.stat().st_size < 600_000
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _MEASURE, str(bomb)], capture_output=True, text=True, check=True
    )
    sentence, megabytes = done.stdout.strip().splitlines()
    assert f"at most {MOST_PIXELS:,} pixels, got 13,000×13,000" in sentence
    assert int(megabytes) < 200
    # Far beyond, where Pillow itself refuses.
    with pytest.raises(DataError, match="at most 67,108,864 pixels"):
        read_photograph(png_of(60_000, 60_000, b"\0"))

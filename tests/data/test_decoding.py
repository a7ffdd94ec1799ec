"""The decoder: the same pixels or a sentence, whatever the bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttca.data.decoding import decode_rgb, for_each
from ttca.errors import DataError

_PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def _encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _png_of_16_bit_rgb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x12\x34" * 6) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, Any]) -> None:
    """PNG, BMP and lossless WebP give back the very pixels."""
    np.testing.assert_array_equal(decode_rgb(_encode(Image.fromarray(_PIXELS), kind, **options)), _PIXELS)


def test_jpeg_originals_are_read_as_pillow_reads_them() -> None:
    """A JPEG is decoded once and nothing more is lost."""
    data = _encode(Image.fromarray(_PIXELS), "JPEG")
    np.testing.assert_array_equal(decode_rgb(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    """Grey, bilevel and palette images become RGB with the same colours."""
    image = Image.fromarray(_PIXELS).convert(mode)
    np.testing.assert_array_equal(decode_rgb(_encode(image)), np.asarray(image.convert("RGB")))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encode(Image.fromarray(_PIXELS), "JPEG", exif=exif)


_RGB = Image.fromarray(_PIXELS)
_REFUSED = {
    "alpha": (_encode(_RGB.convert("RGBA")), "transparency"),
    "grey alpha": (_encode(_RGB.convert("LA")), "transparency"),
    "transparent colour": (_encode(_RGB, transparency=(0, 0, 0)), "transparency"),
    "transparent palette entry": (_encode(_RGB.convert("P"), transparency=0), "transparency"),
    "16-bit grey": (_encode(Image.fromarray(np.zeros((4, 4), np.uint16))), "8 bits per channel"),
    "16-bit RGB": (_png_of_16_bit_rgb(), "8 bits per channel"),
    "CMYK": (_encode(_RGB.convert("CMYK"), "JPEG"), "mode CMYK"),
    "animation": (
        _encode(_RGB, save_all=True, append_images=[Image.fromarray(255 - _PIXELS)]),
        "still image, got 2 frames",
    ),
    "turned by EXIF": (_turned(), "upright"),
    "nothing": (b"", "got 0 bytes that are none"),
    "text": (b"hello", "got 5 bytes that are none"),
    "TIFF": (_encode(_RGB, "TIFF"), "that are none"),
    "cut short": (_encode(_RGB)[:-30], "damaged"),
    "broken inside": (_encode(_RGB).replace(b"IDAT", b"IDAX"), "damaged|that are none"),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_would_change_silently_is_refused(case: str) -> None:
    """Damaged images and those that only a hidden choice could make 8-bit RGB are sentences."""
    data, said = _REFUSED[case]
    with pytest.raises(DataError, match=said):
        decode_rgb(data)


def test_another_size_is_refused() -> None:
    """An image of another size is never resized; the message gives both sizes."""
    with pytest.raises(DataError, match=r"Expected an image of 5×6 pixels .*, got 6×5"):
        decode_rgb(_encode(_RGB), size=(5, 6))


@pytest.mark.filterwarnings("default")
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_pixels_or_a_sentence(data: st.DataObject) -> None:
    """Whatever is done to an image's bytes, the decoder returns RGB pixels or raises DataError."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]))
    body = bytearray(_encode(_RGB, kind))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)))):
        body[at] = value
    try:
        pixels = decode_rgb(bytes(body[: data.draw(st.integers(0, len(body)))]), size=(6, 5))
    except DataError:
        return
    assert pixels.shape == (6, 5, 3)
    assert pixels.dtype == np.uint8


def test_for_each_calls_every_index_once_and_raises_the_first_failure() -> None:
    """All indices are worked on, and of several failures the lowest index's is the one raised."""
    seen = np.zeros(1000, np.int64)

    def count(i: int) -> None:
        seen[i] += 1

    for_each(count, 1000, block=7)
    assert (seen == 1).all()

    def fail(i: int) -> None:
        if i in (300, 301, 900):
            raise DataError(str(i))

    with pytest.raises(DataError, match=r"^300$"):
        for_each(fail, 1000, block=10)

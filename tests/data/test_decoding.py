"""The decoder: the same pixels or a sentence, whatever the bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.examples import examples
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


_RGB = Image.fromarray(_PIXELS)
_GREY = _RGB.convert("L")
_PALETTE = _RGB.convert("P")
_USED = int(np.asarray(_PALETTE)[0, 0])
_UNUSED = int(np.setdiff1d(np.arange(256), np.asarray(_PALETTE))[0])
_UNUSED_GREY = int(np.setdiff1d(np.arange(256), np.asarray(_GREY))[0])
_OPAQUE = _RGB.copy()
_OPAQUE.putalpha(255)


_ORIENTATION_AS_TEXT = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 2, b"6\0\0\0", 0)


def _asking(said: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = said
    return exif


def _with_orientation(said: Any, kind: str = "JPEG") -> bytes:
    return _encode(_RGB, kind, exif=_asking(said), **({"lossless": True} if kind == "WEBP" else {}))


def _with_a_hole(mode: str) -> Image.Image:
    """Return an image of which one pixel is nearly opaque."""
    image = _OPAQUE.convert(mode)
    pixels = np.asarray(image).copy()
    pixels[2, 3, -1] = 254
    return Image.fromarray(pixels)


def _mpo(*more: Image.Image, **options: Any) -> bytes:
    """Return a JPEG with a preview behind it, as phones write them."""
    return _encode(_RGB, "MPO", save_all=True, append_images=list(more) or [_RGB.resize((2, 3))], **options)


def _png_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a PNG file with one more chunk before its pixels."""
    at = data.index(b"IDAT") - 4
    return (
        data[:at] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) + data[at:]
    )


def _few_greys(bits: int, transparent: int) -> bytes:
    """Return a grey PNG of so few bits, a row of all its levels, one of which is transparent."""
    most = 2**bits - 1
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    packed = 0
    for level in range(8 // bits):
        packed = packed << bits | (level % 2) * most
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", transparent)),
        (b"IDAT", zlib.compress(bytes([0, packed]))),
        (b"IEND", b""),
    ):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png


_TAKEN = {
    **{f"orientation {said}": _with_orientation(said) for said in (0, 1, 9, 77)},
    "orientation as text": _encode(_RGB, "JPEG", exif=_ORIENTATION_AS_TEXT),
    "orientation unset": _encode(_RGB, "JPEG", exif=Image.Exif()),
    "EXIF that is none": _encode(_RGB, "JPEG", exif=b"Exif\0\0nothing of the kind"),
    "EXIF that is none, PNG": _encode(_RGB, exif=b"Exif\0\0nothing"),
    "EXIF cut short, WebP": _encode(_RGB, "WEBP", lossless=True, exif=b"Exif\0\0II*\0\x08"),
    "upright PNG": _with_orientation(1, "PNG"),
    "upright WebP": _with_orientation(0, "WEBP"),
    "opaque alpha": _encode(_OPAQUE),
    "opaque alpha, WebP": _encode(_OPAQUE, "WEBP", lossless=True),
    "opaque alpha, BMP": _encode(_OPAQUE, "BMP"),
    "opaque grey alpha": _encode(_OPAQUE.convert("LA")),
    "a transparent colour that no pixel has": _encode(_RGB, transparency=(1, 2, 3)),
    "a transparent grey that no pixel has": _encode(_GREY, transparency=_UNUSED_GREY),
    "a transparent palette entry that no pixel has": _encode(_PALETTE, transparency=_UNUSED),
    "a palette of opaque entries": _encode(_PALETTE, transparency=b"\xff" * 256),
    "a palette whose unused entry is transparent": _encode(
        _PALETTE, transparency=bytes(0 if i == _UNUSED else 255 for i in range(256))
    ),
    "a grey of 4 bits that no pixel has": _few_greys(4, 7),
    "a grey of 2 bits that no pixel has": _few_greys(2, 2),
    "a phone's JPEG with a preview": _mpo(),
    "a phone's upright JPEG with two previews": _mpo(_RGB.resize((2, 3)), _RGB.resize((1, 1))),
    "animated PNG of one frame": _png_chunk(
        _png_chunk(_encode(_RGB), b"acTL", struct.pack(">II", 1, 0)),
        b"fcTL",
        struct.pack(">IIIIIHHBB", 0, 5, 6, 0, 0, 1, 10, 0, 0),
    ),
    "WebP of one frame": _encode(_RGB, "WEBP", save_all=True, lossless=True),
}


@pytest.mark.parametrize("case", _TAKEN)
def test_what_changes_no_pixel_is_taken(case: str) -> None:
    """A picture that is upright, opaque and one is read as every viewer shows it, whatever its file says beside it."""
    data = _TAKEN[case]
    with Image.open(io.BytesIO(data)) as image:
        image.info.pop("transparency", None)
        shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(data, size=shown.shape[:2]), shown)


def test_the_first_picture_of_several_in_a_jpeg_is_the_photograph() -> None:
    """Previews behind it change neither its pixels nor its size."""
    data = _mpo(Image.new("RGB", (9, 9), "red"))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode_rgb(data, size=(6, 5)), decode_rgb(_encode(_RGB, "JPEG")))
    with pytest.raises(DataError, match="got 6×5"):
        decode_rgb(data, size=(9, 9))


_REFUSED = {
    "alpha": (_encode(_with_a_hole("RGBA")), "transparency"),
    "alpha, WebP": (_encode(_with_a_hole("RGBA"), "WEBP", lossless=True), "transparency"),
    "grey alpha": (_encode(_with_a_hole("LA")), "transparency"),
    "transparent colour": (_encode(_RGB, transparency=tuple(_PIXELS[5, 4].tolist())), "transparency"),
    "transparent grey": (_encode(_GREY, transparency=int(np.asarray(_GREY)[5, 4])), "transparency"),
    "transparent palette entry": (_encode(_PALETTE, transparency=_USED), "transparency"),
    "a palette with one transparent entry": (
        _encode(_PALETTE, transparency=bytes(254 if i == _USED else 255 for i in range(256))),
        "transparency",
    ),
    **{f"transparent white of {bits} bits": (_few_greys(bits, 2**bits - 1), "transparency") for bits in (1, 2, 4)},
    "16-bit grey": (_encode(Image.fromarray(np.zeros((4, 4), np.uint16))), "8 bits per channel"),
    "16-bit RGB": (_png_of_16_bit_rgb(), "8 bits per channel"),
    "CMYK": (_encode(_RGB.convert("CMYK"), "JPEG"), "mode CMYK"),
    "animation": (
        _encode(_RGB, save_all=True, append_images=[Image.fromarray(255 - _PIXELS)]),
        "still image, got 2 frames",
    ),
    **{f"turned by EXIF, {said}": (_with_orientation(said), "upright") for said in range(2, 9)},
    "turned by EXIF, PNG": (_with_orientation(6, "PNG"), "upright"),
    "turned by EXIF, WebP": (_with_orientation(6, "WEBP"), "upright"),
    "a phone's JPEG, turned": (_mpo(exif=_asking(6)), "upright"),
    "WebP animation": (
        _encode(_RGB, "WEBP", save_all=True, append_images=[Image.fromarray(255 - _PIXELS)]),
        "still image, got 2 frames",
    ),
    "nothing": (b"", "got 0 bytes of something else"),
    "text": (b"hello", "got 5 bytes of something else"),
    "TIFF": (_encode(_RGB, "TIFF"), "of something else"),
    "cut short": (_encode(_RGB)[:-30], "damaged"),
    "broken inside": (_encode(_RGB).replace(b"IDAT", b"IDAX"), "damaged|of something else"),
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
@examples(150)
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

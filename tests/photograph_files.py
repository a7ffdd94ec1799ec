"""Files that members have: one of each kind and fault, made here, and what `ttca apply` does with each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from benchmarks.members import bomb

__all__ = ["FILES", "PICTURE", "PIXELS", "p3_profile"]

HEIGHT, WIDTH = 30, 20
PIXELS = np.clip(
    np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 6)[..., None] + np.array([10, 40, 70]), 0, 255
).astype(np.uint8)
#: A picture that differs in every direction, so that a turn is seen.
PICTURE = Image.fromarray(PIXELS)


def encoded(image: Image.Image = PICTURE, kind: str = "PNG", **how: Any) -> bytes:
    """Return a picture as a file."""
    out = BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def turned(turn: object, kind: str = "JPEG") -> bytes:
    """Return a picture that EXIF asks to turn."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(kind=kind, exif=exif)


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, raw: bytes, *, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG file of these rows, or one that says it has them."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")


def deep_png() -> bytes:
    """Return a PNG of 16 bits a channel."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 256 + 77).tobytes() for row in PIXELS)
    return png(WIDTH, HEIGHT, zlib.compress(rows), depth=16)


def fifty_megapixels() -> bytes:
    """Return a grey JPEG of 8,192 × 6,144 pixels."""
    return encoded(Image.new("L", (8192, 6144), 90), "JPEG")


def p3_profile() -> bytes:
    """Return a Display P3 profile: sRGB's, with the primaries and the name of Display P3."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Adapted to D50, as profiles hold them.
    primaries = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    out = bytearray(plain)
    for number in range(struct.unpack_from(">I", plain, 128)[0]):
        name, start, _ = struct.unpack_from(">4sII", plain, 132 + 12 * number)
        if name in primaries:
            struct.pack_into(">3i", out, start + 8, *(round(v * 65536) for v in primaries[name]))
    return bytes(out).replace("sRGB built-in".encode("utf-16-be"), "Display P3   ".encode("utf-16-be"))


def seen_through(opacity: int) -> Image.Image:
    """Return the picture with an alpha channel that is this opaque in one corner."""
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:5, :5] = opacity
    return Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))


def heic() -> bytes:
    """Return a HEIC file; raises ImportError where pillow-heif is not installed."""
    import pillow_heif

    out = BytesIO()
    pillow_heif.from_pillow(PICTURE).save(out, format="HEIF", quality=90)
    return out.getvalue()


def frames(kind: str, **how: Any) -> bytes:
    """Return two frames in one file."""
    return encoded(kind=kind, save_all=True, append_images=[ImageOps.invert(PICTURE)], **how)


#: A name, and what makes the file.
FILES: Mapping[str, Callable[[], bytes]] = {
    "plain.png": encoded,
    "plain.jpg": lambda: encoded(kind="JPEG"),
    "progressive.jpg": lambda: encoded(kind="JPEG", progressive=True),
    "plain.webp": lambda: encoded(kind="WEBP"),
    "lossless.webp": lambda: encoded(kind="WEBP", lossless=True),
    "plain.bmp": lambda: encoded(kind="BMP"),
    "plain.gif": lambda: encoded(kind="GIF"),
    "plain.tif": lambda: encoded(kind="TIFF"),
    "plain.avif": lambda: encoded(kind="AVIF"),
    "plain.heic": heic,
    "without-pillow-heif.heic": lambda: b"\0\0\0\x18ftypheic" + bytes(400),
    "animated.gif": lambda: frames("GIF"),
    "animated.webp": lambda: frames("WEBP", lossless=True),
    "animated.png": lambda: frames("PNG"),
    "pages.tif": lambda: frames("TIFF"),
    "preview.mpo": lambda: frames("MPO"),
    "preview.jpg": lambda: frames("MPO"),
    "cmyk.jpg": lambda: encoded(PICTURE.convert("CMYK"), "JPEG"),
    "cmyk.tif": lambda: encoded(PICTURE.convert("CMYK"), "TIFF"),
    "grey.jpg": lambda: encoded(PICTURE.convert("L"), "JPEG"),
    "grey.png": lambda: encoded(PICTURE.convert("L")),
    "black-white.png": lambda: encoded(PICTURE.convert("1")),
    "palette.png": lambda: encoded(PICTURE.convert("P")),
    "deep.png": deep_png,
    "deep-grey.png": lambda: encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 77)),
    "floats.tif": lambda: encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"),
    "alpha-opaque.png": lambda: encoded(seen_through(255)),
    "alpha-clear.png": lambda: encoded(seen_through(0)),
    "alpha-half.webp": lambda: encoded(seen_through(128), "WEBP", lossless=True),
    "palette-clear.png": lambda: encoded(
        PICTURE.convert("P"), transparency=int(np.asarray(PICTURE.convert("P"))[0, 0])
    ),
    **{f"exif-{turn}.jpg": partial(turned, turn) for turn in range(9)},
    "exif-9.jpg": lambda: turned(9),
    "exif-garbage.jpg": lambda: encoded(kind="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "exif-6.png": lambda: turned(6, "PNG"),
    "exif-6.webp": lambda: turned(6, "WEBP"),
    "srgb-profile.jpg": lambda: encoded(
        kind="JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "display-p3.jpg": lambda: encoded(kind="JPEG", icc_profile=p3_profile()),
    "display-p3.png": lambda: encoded(icc_profile=p3_profile()),
    "broken-profile.png": lambda: encoded(icc_profile=b"none" * 40),
    "one-pixel.png": lambda: encoded(Image.new("RGB", (1, 1), (9, 99, 199))),
    "thin.png": lambda: encoded(Image.new("RGB", (3000, 1), (9, 99, 199))),
    "fifty-megapixels.jpg": fifty_megapixels,
    "bomb.png": bomb,
    "png-called.jpg": encoded,
    "truncated.jpg": lambda: encoded(kind="JPEG")[:-120],
    "truncated.png": lambda: encoded()[: len(encoded()) // 2],
    "text.jpg": lambda: b"Dear Sir or Madam, here is my picture.",
    "empty.png": lambda: b"",
    "film.jpg": lambda: b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(400),
    "drawing.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}

"""Photographs of every kind become upright sRGB pixels, and each change that an owner could see is said."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ttca.data.decoding import is_deep_png, orientation
from ttca.errors import DataError, MissingExtraError
from ttca.images import Images
from ttca.values import Value

__all__ = ["MOST_PIXELS", "PHOTOGRAPHS", "Photograph", "file_bytes", "read_photograph", "upright"]

#: The most pixels that are decompressed: more would need half a gigabyte, and a file of 500 kB can say it has them.
MOST_PIXELS = 2**26
#: The largest file that is read: no photograph of so many pixels needs more, and a film would fill the memory.
_MOST_BYTES = 2**29
_SMALLER = "Make it smaller first: a photo editor or viewer saves a smaller copy."
#: How the names of photographs end.
PHOTOGRAPHS = frozenset((
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif",
    ".avif",
))  # fmt: skip
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
# Pixels that are converted together.
_TOGETHER = 2**20
# Filters of warnings belong to the whole process.
_OPENING = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class Photograph(Value):
    """An upright picture in sRGB, and what was done to the file's pixels to get it, each in a few words.

    Parameters
    ----------
    pixels : uint8 array, shape (H, W, 3)
    done : tuple of str
        Empty where no pixel changed.
    """

    pixels: Images
    done: tuple[str, ...] = ()


def file_bytes(path: Path) -> bytes:
    """Return what a photograph's file holds.

    Raises
    ------
    DataError
        If there is no such file, it cannot be read, or is larger than any photograph.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError("Expected a photograph's file, got something else. Check the path.")
        if size > _MOST_BYTES:
            raise DataError(
                f"Expected a photograph of at most {_MOST_BYTES:,} bytes, got {size:,}. Export it as JPEG or PNG. It "
                "was not read."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"Expected to read the file, got: {error.strerror}. Check the path.") from None


def read_photograph(data: bytes) -> Photograph:
    """Return the pixels of one encoded photograph of any kind and size.

    Parameters
    ----------
    data : bytes
        PNG, JPEG (MPO too), WebP, BMP, GIF, TIFF, AVIF, or HEIC where ``pillow-heif`` is installed.

    Raises
    ------
    DataError
        If it is damaged, no image, larger than :data:`MOST_PIXELS` (then nothing is decompressed), or has pixels whose
        range nothing says. The caller adds which file.
    MissingExtraError
        If it is HEIC, and ``pillow-heif`` is not installed.
    """
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if heif:
        _register_heif()
    try:
        with _open(data, heif) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise DataError(
                    f"Expected a photograph of at most {MOST_PIXELS:,} pixels, got {image.width:,}×{image.height:,}. "
                    f"{_SMALLER} It was not decompressed."
                )
            return _upright(image, data)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"Expected a photograph (PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC), got {len(data):,} bytes of "
            "something else. Export it as JPEG or PNG, or leave it out."
        ) from None
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged files
        raise DataError(
            f"Expected a photograph that can be read, got a damaged one ({type(error).__name__}: {error}). Copy it "
            "again from where it came, or leave it out."
        ) from None


def upright(image: Image.Image) -> Photograph:
    """Return the pixels of a picture that Pillow has opened, as :func:`read_photograph` does of a file.

    Raises
    ------
    DataError
        If it is too large, damaged, or of a kind whose range or colors nothing says.
    """
    if image.width * image.height > MOST_PIXELS:
        raise DataError(
            f"Expected a photograph of at most {MOST_PIXELS:,} pixels, got {image.width}×{image.height}. {_SMALLER}"
        )
    try:
        return _upright(image.copy(), b"")
    except OSError as error:
        raise DataError(f"Expected a picture that can be read, got a damaged one ({error}).") from None


def _open(data: bytes, heif: bool) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        # What is too large is refused by our own sentence, and a chunk that Pillow cannot read changes no pixel.
        warnings.simplefilter("ignore")
        try:
            return Image.open(BytesIO(data), formats=("HEIF",) if heif else _FORMATS)
        except Image.DecompressionBombError:
            raise DataError(
                f"Expected a photograph of at most {MOST_PIXELS:,} pixels, got a file that says it has many times as "
                f"many. {_SMALLER} It was not decompressed."
            ) from None


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise MissingExtraError("A HEIC photograph", "heic") from None
    register_heif_opener()


def _upright(image: Image.Image, data: bytes) -> Photograph:
    done: list[str] = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        done.append(f"first of {getattr(image, 'n_frames', 1)} frames")
    # The decoder of HEIC turns it when it opens it, and keeps what was asked.
    asked = image.info.get("original_orientation") or orientation(image)
    profile = image.info.get("icc_profile")
    image.load()
    # The decoder of TIFF has turned it by now, and taken the tag away.
    turn = orientation(image)
    pixels = _colors(_eight_bits(image, data, done), profile, done)
    del image
    if asked != 1:
        done.append(f"turned (EXIF {asked})")
    return Photograph(np.ascontiguousarray(_turned(pixels, turn)), tuple(done))


def _colors(image: Image.Image, profile: bytes | None, done: list[str]) -> Images:
    """Return the levels in sRGB, what is transparent on white.

    Part by part: a whole picture in a second form, of four bytes a pixel, would fill the memory.
    """
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, _TOGETHER // image.width)
    convert: Callable[[Image.Image], Images] | None = None
    clear = False
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        color, alpha = _without_alpha(image.crop((0, top, image.width, bottom)))
        convert = convert or _converter(color, profile, done)
        part = convert(color)
        if alpha is not None:
            clear = True
            # In whole numbers, halves rounded up: the page does the same.
            share = alpha.astype(np.uint32)[..., None]
            part = ((2 * (part * share + 255 * (255 - share)) + 255) // 510).astype(np.uint8)
        pixels[top:bottom] = part
    if clear:
        done.append("transparency on white")
    return pixels


def _turned(pixels: Images, turn: int) -> Images:
    """Return the picture as EXIF asks to see it: transposed for 5 to 8, then flipped."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _eight_bits(image: Image.Image, data: bytes, done: list[str]) -> Image.Image:
    deep = image.mode in _SIXTEEN or (image.mode == "I" and image.format == "PNG")
    if deep or is_deep_png(data):
        done.append("16 bits cut to 8")
    if deep:
        # The upper byte, as Pillow takes it of 16-bit RGB.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"Expected levels of 8 or 16 bits, got an image of mode {image.mode}, whose range nothing says. Save it as "
            "PNG."
        )
    return image


def _without_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray[Any, np.dtype[np.uint8]] | None]:
    """Return the colors, and how opaque each pixel is; None where all are."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and image.info.get("transparency") is None:
        return image, None
    # Gray stays gray: its profile knows no other colors.
    gray = image.mode in ("L", "LA", "La", "1")
    both = image.convert("LA" if gray and image.mode != "1" else "RGBA")
    alpha = np.asarray(both.getchannel("A"))
    both.info.pop("transparency", None)
    color = both.convert("L" if gray else "RGB")
    return color, None if alpha.min(initial=255) == 255 else alpha


def _converter(image: Image.Image, profile: bytes | None, done: list[str]) -> Callable[[Image.Image], Images]:
    """Return what turns parts of a picture into levels of sRGB, and say what that is."""
    mode = image.mode
    if mode not in ("RGB", "L", "CMYK", "LAB", "1", "P", "YCbCr", "RGBX", "HSV"):
        raise DataError(f"Expected colors that are known, got an image of mode {mode}. Save it as RGB PNG.")
    plain = mode if mode in ("RGB", "L", "CMYK", "LAB") else "RGB"
    by_profile = _by_profile(image.convert(plain), profile, done) if profile else None
    if by_profile is not None:
        return lambda part: np.asarray(by_profile(part.convert(plain)))
    if plain in ("CMYK", "LAB"):
        done.append(f"{plain} to sRGB without a profile")
    return lambda part: np.asarray(part.convert(plain).convert("RGB"))


def _by_profile(
    image: Image.Image, profile: bytes, done: list[str]
) -> Callable[[Image.Image], Image.Image | None] | None:
    """Return what takes pictures to sRGB by a profile; None where that is sRGB, or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if name.startswith("sRGB") and image.mode == "RGB":
            return None
        to_srgb = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
        # One that does not fit the picture is found here.
        ImageCms.applyTransform(image.crop((0, 0, 1, 1)), to_srgb)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        done.append("color profile that cannot be read, ignored")
        return None
    shown = "".join(c if c.isprintable() else "?" for c in name)[:40]
    done.append(f"{shown or 'own profile'} to sRGB")
    return lambda part: ImageCms.applyTransform(part, to_srgb)

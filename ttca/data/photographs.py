"""Photographs of every kind become upright sRGB pixels, and each change that an owner could see is said."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ttca.data.decoding import is_deep_png, orientation
from ttca.errors import DataError, MissingExtraError
from ttca.images import Images
from ttca.values import Value

__all__ = ["MOST_PIXELS", "PHOTOGRAPHS", "Photograph", "read_photograph"]

#: The most pixels that are decompressed: more would need half a gigabyte, and a file of 500 kB can say it has them.
MOST_PIXELS = 2**26
#: How the names of photographs end.
PHOTOGRAPHS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
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
                    "Make it smaller first. It was not decompressed."
                )
            return _upright(image, data)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"Expected a photograph (PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC), got {len(data):,} bytes that are "
            "none. Export it as JPEG or PNG, or leave it out."
        ) from None
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged files
        raise DataError(
            f"Expected a photograph that can be read, got a damaged one ({type(error).__name__}: {error}). Copy it "
            "again from where it came, or leave it out."
        ) from None


def _open(data: bytes, heif: bool) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        # What is too large is refused by our own sentence, and a chunk that Pillow cannot read changes no pixel.
        warnings.simplefilter("ignore")
        try:
            return Image.open(BytesIO(data), formats=("HEIF",) if heif else _FORMATS)
        except Image.DecompressionBombError:
            raise DataError(
                f"Expected a photograph of at most {MOST_PIXELS:,} pixels, got a file that says it has many times as "
                "many. Make it smaller first. It was not decompressed."
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
    image = _eight_bits(image, data, done)
    color, alpha = _without_alpha(image)
    pixels = _srgb(color, profile, done)
    if alpha is not None:
        done.append("transparency on white")
        # In whole numbers, halves rounded up: the page does the same.
        share = alpha.astype(np.uint32)[..., None]
        pixels = ((2 * (pixels * share + 255 * (255 - share)) + 255) // 510).astype(np.uint8)
    if asked != 1:
        done.append(f"turned (EXIF {asked})")
    pixels = _turned(pixels, turn)
    return Photograph(np.ascontiguousarray(pixels), tuple(done))


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
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
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
    grey = image.mode in ("L", "LA", "La", "1")
    both = image.convert("LA" if grey and image.mode != "1" else "RGBA")
    alpha = np.asarray(both.getchannel("A"))
    both.info.pop("transparency", None)
    color = both.convert("L" if grey else "RGB")
    return color, None if alpha.min(initial=255) == 255 else alpha


def _srgb(image: Image.Image, profile: bytes | None, done: list[str]) -> Images:
    mode = image.mode
    plain = image if mode in ("RGB", "L", "CMYK", "LAB") else None
    if plain is None:
        if mode not in ("1", "P", "YCbCr", "RGBX", "HSV"):
            raise DataError(f"Expected colors that are known, got an image of mode {mode}. Save it as RGB PNG.")
        plain = image.convert("RGB")
    if profile:
        converted = _by_profile(plain, profile, done)
        if converted is not None:
            return np.asarray(converted)
    if plain.mode in ("CMYK", "LAB"):
        done.append(f"{plain.mode} to sRGB without a profile")
    return np.asarray(plain.convert("RGB"))


def _by_profile(image: Image.Image, profile: bytes, done: list[str]) -> Image.Image | None:
    """Return the picture in sRGB by its own profile; None where that is sRGB, or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if name.startswith("sRGB") and image.mode == "RGB":
            return None
        made = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        done.append("color profile that cannot be read, ignored")
        return None
    shown = "".join(c if c.isprintable() else "?" for c in name)[:40]
    done.append(f"{shown or 'own profile'} to sRGB")
    return made

"""One decoder for every image that comes in: 8-bit RGB pixels or a sentence, never a silent conversion."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ttca.errors import DataError
from ttca.images import Images

__all__ = ["decode_rgb", "for_each", "is_deep_png", "orientation"]

# Formats whose stored depth is known: Pillow cuts the 16 bits of some TIFF and PPM files to 8 without a word.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_SAME_PIXELS_AS_RGB = frozenset({"RGB", "L", "1", "P"})
_ALPHA = frozenset({"RGBA", "LA", "PA"})
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24
_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = range(1, 9)


def decode_rgb(data: bytes, *, size: tuple[int, int] | None = None) -> Images:
    """Return the pixels of one encoded image.

    Parameters
    ----------
    data : bytes
        A PNG, JPEG, WebP or BMP file. Gray and palette images become RGB, and an alpha channel that is opaque
        everywhere is left out, which changes no pixel. Of a phone's JPEG with a preview behind it (MPO) the first
        picture is taken, as every JPEG reader does.
    size : (height, width), optional
        The size it must have, in pixels; checked before anything is decompressed.

    Returns
    -------
    uint8 array, shape (H, W, 3)

    Raises
    ------
    DataError
        If it is corrupt, of another size, or could only become 8-bit RGB by a change its owner would not see:
        transparency, 16 bits, CMYK, several frames, an EXIF rotation. The caller adds which file or row.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _refuse_silent_changes(image, data)
            got = (image.height, image.width)
            if size is not None and got != size:
                raise DataError(
                    f"Expected an image of {size[0]}×{size[1]} pixels (height×width), got {got[0]}×{got[1]}. "
                    f"Resize it first: ttca prepare does, with --size {size[0]}x{size[1]}, and says how. Nothing is "
                    "resized without a word."
                )
            if orientation(image) != 1:
                raise DataError(
                    "Expected an upright image, got one that an EXIF tag asks to turn. "
                    "Turn its pixels and save it as PNG."
                )
            if not _is_opaque(image, data):
                raise DataError(
                    "Expected an RGB image, got one with transparency. "
                    "Flatten it on the background you want and save it as RGB PNG."
                )
            # Nothing is transparent, and Pillow would warn about an entry that it cannot keep.
            image.info.pop("transparency", None)
            return np.array(image.convert("RGB"), dtype=np.uint8)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"Expected a PNG, JPEG, WebP or BMP image, got {len(data)} bytes of something else. "
            "Save it as PNG, or leave it out."
        ) from error
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged files
        raise DataError(
            f"Expected an image that can be read, got a damaged one ({type(error).__name__}: {error}). "
            "Replace the file, or leave it out."
        ) from error


def _refuse_silent_changes(image: Image.Image, data: bytes) -> None:
    if is_deep_png(data) or image.mode.startswith(("I", "F")):
        raise DataError(
            "Expected 8 bits per channel, got an image of more. "
            "Save it as 8-bit RGB PNG: which bits to drop is the owner's choice."
        )
    if image.mode not in _SAME_PIXELS_AS_RGB | _ALPHA:
        raise DataError(f"Expected an RGB, gray or palette image, got mode {image.mode}. Save it as RGB PNG.")
    frames: int = getattr(image, "n_frames", 1)
    if frames != 1 and image.format != "MPO":
        raise DataError(f"Expected a still image, got {frames} frames. Save one of them as PNG.")


def is_deep_png(data: bytes) -> bool:
    """Whether it is a PNG file of 16 bits a channel, of which Pillow shows eight."""
    return data.startswith(_PNG_SIGNATURE) and data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10"


def orientation(image: Image.Image) -> int:
    """Return which of the eight ways EXIF asks to see the image in, 1..8.

    1 is upright. A tag that cannot be read, or says none of the eight, asks for nothing: 1.
    """
    try:
        said = image.getexif().get(_EXIF_ORIENTATION)
    except (SyntaxError, struct.error, ValueError, OSError):  # Pillow's words for a block that is no EXIF.
        return 1
    return next((way for way in _ORIENTATIONS if way == said), 1)


def _is_opaque(image: Image.Image, data: bytes) -> bool:
    """Whether no pixel of the image is transparent; decompresses it."""
    image.load()
    if image.mode in _ALPHA:
        return bool(np.asarray(image.getchannel("A")).min(initial=255) == 255)
    entry = image.info.get("transparency")
    if entry is None:
        return True
    if image.mode == "P":
        return bool(np.asarray(image.convert("RGBA"))[..., 3].min(initial=255) == 255)
    # One color is transparent, written with as many bits as the file has; Pillow has stretched the pixels to eight.
    most = 2 ** min(data[_PNG_DEPTH_AT], 8) - 1
    colour = (np.asarray(entry) & most) * (255 // most)
    pixels = np.asarray(image.convert("L" if image.mode == "1" else image.mode))
    return not bool((pixels.reshape(*pixels.shape[:2], -1) == colour).all(axis=-1).any())


def for_each(work: Callable[[int], None], count: int, *, block: int = 64) -> None:
    """Call ``work(i)`` for i in 0..count−1 on all cores; of several failures the lowest i's is raised.

    Threads, because Pillow releases the GIL while it decodes.
    """

    def run(start: int) -> None:
        for i in range(start, min(start + block, count)):
            work(i)

    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        for _ in pool.map(run, range(0, count, block)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)

"""What happens to an image on its way to a platform: JPEG compression and resizing, for the robustness controls."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.errors import ConfigError
from ttca.images import Images

__all__ = ["as_jpeg", "check_quality", "jpeg", "left_by_jpeg", "shrink_and_enlarge"]


def check_quality(quality: object) -> None:
    """Raise a ConfigError where that is no quality of a JPEG file, nor None."""
    if quality is not None and not (type(quality) is int and 1 <= quality <= 100):
        raise ConfigError(f"Expected jpeg_quality from 1 to 100, got {quality!r}. Use 95, or leave it out for PNG.")


def as_jpeg(image: NDArray[np.uint8], *, quality: int) -> bytes:
    """Return one image, uint8 (H, W, 3), as a JPEG file of this quality: Pillow's, colors at half the size."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def jpeg(images: Images, *, quality: int = 75) -> Images:
    """Return the images, uint8 (N, H, W, 3), as they come back from a JPEG file of this quality."""
    out = np.empty_like(images)
    for image, result in zip(images, out, strict=True):
        result[:] = np.asarray(Image.open(io.BytesIO(as_jpeg(image, quality=quality))).convert("RGB"))
    return out


def left_by_jpeg(before: Images, after: Images, *, quality: int) -> float:
    """Return the share of a change, ``after`` − ``before``, that a JPEG file of this quality leaves.

    The projection of the change between the two decoded files on the change itself, Σ d·d′ / Σ d·d, over all images,
    uint8 (N, H, W, 3): 1 where the file leaves all, 0 where it leaves nothing. Ours. NaN where nothing was changed.
    """
    whole = kept = 0.0
    # One at a time: photographs as floats would not fit.
    for one, other in zip(before[:, None], after[:, None], strict=True):
        change = other.astype(np.float64) - one
        left = jpeg(other, quality=quality).astype(np.float64) - jpeg(one, quality=quality)
        whole += float((change * change).sum())
        kept += float((change * left).sum())
    return kept / whole if whole else float("nan")


def shrink_and_enlarge(images: Images, *, factor: float = 0.5) -> Images:
    """Return the images, uint8 (N, H, W, 3), resized by ``factor`` and back to their size (bilinear)."""
    _, h, w, _ = images.shape
    small = (max(1, round(w * factor)), max(1, round(h * factor)))
    out = np.empty_like(images)
    for image, result in zip(images, out, strict=True):
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR)
        result[:] = np.asarray(shrunk.resize((w, h), Image.Resampling.BILINEAR))
    return out

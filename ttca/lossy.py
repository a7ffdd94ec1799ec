"""What happens to an image on its way to a platform: JPEG compression and resizing, for the robustness controls."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.images import Images

__all__ = ["as_jpeg", "jpeg", "shrink_and_enlarge"]


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


def shrink_and_enlarge(images: Images, *, factor: float = 0.5) -> Images:
    """Return the images, uint8 (N, H, W, 3), resized by ``factor`` and back to their size (bilinear)."""
    _, h, w, _ = images.shape
    small = (max(1, round(w * factor)), max(1, round(h * factor)))
    out = np.empty_like(images)
    for image, result in zip(images, out, strict=True):
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR)
        result[:] = np.asarray(shrunk.resize((w, h), Image.Resampling.BILINEAR))
    return out

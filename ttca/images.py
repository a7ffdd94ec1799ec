"""The contract of an image: uint8, NHWC, RGB, at the platform's size; checked at the doors.

The doors are where people are made, where a pool is asked, where δ is applied, and where a platform takes a request.
What our own code takes from checked images is not checked again.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ImageError

Images: TypeAlias = NDArray[np.uint8]
ImageShape: TypeAlias = tuple[int, int, int]

__all__ = ["ImageShape", "Images", "check_images"]


def check_images(images: Any, *, shape: ImageShape | None = None) -> Images:
    """Return ``images`` as a C-contiguous uint8 array, or say what is wrong with them.

    Parameters
    ----------
    images : array
        uint8, shape (N, H, W, 3), RGB, 0..255.
    shape : (H, W, 3), optional
        The size the platform takes.

    Raises
    ------
    ImageError
        If the dtype is not uint8, there are not four axes, the last axis is not 3, an image has no pixels, or the
        size differs.
    """
    try:
        array = np.asarray(images)
    except ValueError:
        raise ImageError(
            "Expected images as one array, got images of several sizes. "
            "Resize them to the size the platform takes before they are pooled."
        ) from None
    if array.dtype != np.uint8:
        raise ImageError(
            f"Expected images as uint8 levels 0..255, got {array.dtype}. "
            "Convert them first, for example (255 * x).round().astype('uint8') for floats in [0, 1]."
        )
    if array.ndim != 4 or array.shape[-1] != 3:
        raise ImageError(
            f"Expected images of shape (N, height, width, 3), got {array.shape}. "
            "Put the batch first and the RGB channels last; a gray image becomes RGB by repeating it."
        )
    if 0 in array.shape[1:]:
        raise ImageError(
            f"Expected images with pixels, got an array of shape {array.shape}. Pass images that are at least one "
            "pixel wide and high."
        )
    if shape is not None and array.shape[1:] != tuple(shape):
        raise ImageError(
            f"Expected images of {shape[0]}×{shape[1]} pixels, got {array.shape[1]}×{array.shape[2]}. Resize them to "
            "the size the platform takes before they are pooled. A perturbation is made for one size."
        )
    return np.ascontiguousarray(array)

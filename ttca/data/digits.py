"""scikit-learn's handwritten digits as RGB images: people for the demo, without network or data files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.data.cameras import bad_camera
from ttca.errors import DataError, MissingExtraError
from ttca.images import Images

__all__ = ["bad_camera", "load_digits_images"]

_NATIVE = 8
_TOP_LEVEL = 16


def load_digits_images(size: int = 16) -> tuple[Images, NDArray[np.int64]]:
    """Return the 1,797 digits and what they are.

    Parameters
    ----------
    size : int
        Height and width in pixels, at least the 8 of the originals; upscaled bilinearly.

    Returns
    -------
    images : uint8 array, shape (1797, size, size, 3)
        Gray repeated to RGB; the originals' levels 0..16 become 0..255.
    labels : int64 array, shape (1797,)
        0..9.

    Raises
    ------
    DataError
        If size is below 8.
    MissingExtraError
        If scikit-learn is not installed.
    """
    if size < _NATIVE:
        raise DataError(
            f"Expected a size of at least {_NATIVE} pixels, got {size}. The digits are 8×8; choose 8 or more."
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("The digits data set", "data") from error
    pixels, labels = load_digits(return_X_y=True)
    levels = np.rint(pixels * (255 / _TOP_LEVEL)).astype(np.uint8).reshape(-1, _NATIVE, _NATIVE)
    gray = np.stack(
        [np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BILINEAR)) for digit in levels]
    )
    return np.repeat(gray[..., None], 3, axis=-1), labels.astype(np.int64)

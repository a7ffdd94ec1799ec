"""The cameras of the under-served: how the same scene looks through a poorer lens and sensor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import DataError
from ttca.images import Images, check_images

__all__ = ["bad_camera", "gaussian_blur", "soft_focus"]

# Float32 copies of a whole data set would not fit in memory; blocks of this many values stay in cache.
_BLOCK_VALUES = 1 << 21
_SOFT_FOCUS_RADIUS = 3


def gaussian_blur(images: Any, sigma: float, *, radius: int | None = None) -> NDArray[np.float32]:
    """Blur images with a separable Gaussian.

    Parameters
    ----------
    images : uint8 or float array, shape (N, H, W, C)
    sigma : float
        Standard deviation in pixels; 0 changes nothing.
    radius : int, optional
        Taps on each side of the center; 4σ, rounded, when not given.

    Returns
    -------
    float32 array, shape (N, H, W, C)
        In the levels of the input, not rounded. Edges are reflected without repeating the edge pixel (numpy
        ``reflect``, scipy ``mirror``).

    Raises
    ------
    DataError
        If sigma is negative or not finite, the radius is negative, or there are not four axes.
    """
    array = np.asarray(images, dtype=np.float32)
    _require(math.isfinite(sigma) and sigma >= 0, "a blur sigma of at least 0 pixels", sigma)
    _require(array.ndim == 4, "images of shape (N, height, width, channels)", array.shape)
    reach = int(4 * sigma + 0.5) if radius is None else radius
    _require(reach >= 0, "a blur radius of at least 0 pixels", reach)
    if sigma == 0 or reach == 0 or array.size == 0:
        return array.copy()
    with np.errstate(over="ignore"):  # a tiny sigma rightly gives infinitely distant neighbors
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (kernel / kernel.sum()).astype(np.float32)
    for axis in (1, 2):
        width = [(0, 0)] * 4
        width[axis] = (reach, reach)
        padded = np.pad(array, width, mode="reflect")
        length = array.shape[axis]
        blurred = np.zeros_like(array)
        for k, tap in enumerate(taps):
            window = padded[:, k : k + length] if axis == 1 else padded[:, :, k : k + length]
            blurred += tap * window
        array = blurred
    return array


def soft_focus(images: Any, sigma: float = 0.8) -> Images:
    """Return images as a soft-focus camera sees them: a 7×7 Gaussian blur, rounded to whole levels.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    sigma : float
        In pixels.

    Returns
    -------
    uint8 array, shape (N, H, W, 3)

    Raises
    ------
    ImageError, DataError
        If the images are not uint8 NHWC RGB, or sigma is not a number of at least 0.
    """
    checked = check_images(images)
    _require(math.isfinite(sigma) and sigma >= 0, "a blur sigma of at least 0 pixels", sigma)
    seen = np.empty_like(checked)
    for rows in _blocks(checked):
        seen[rows] = _levels(gaussian_blur(checked[rows], sigma, radius=_SOFT_FOCUS_RADIUS))
    return seen


def bad_camera(
    images: Any,
    *,
    blur: float = 1.0,
    contrast: float = 0.35,
    veil: float = 90.0,
    noise: float = 12.0,
    seed: int = 0,
) -> Images:
    """Return images as a cheap camera in poor light sees them: defocus, a light veil, a noisy sensor.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    blur : float
        Standard deviation of the defocus, in pixels.
    contrast, veil : float
        A level x becomes ``contrast * x + veil``; contrast in [0, 1], veil in levels 0..255.
    noise : float
        Standard deviation of the sensor's noise, in levels.
    seed : int
        At least 0.

    Returns
    -------
    uint8 array, shape (N, H, W, 3)
        An image's noise comes from the seed and its own pixels: it looks the same in whatever batch it
        stands, so that filtering before or after the camera gives the same people.

    Raises
    ------
    ImageError, DataError
        If the images are not uint8 NHWC RGB, or a parameter is outside its range.

    Notes
    -----
    *Ours*: it makes a subgroup that a model trained on sharp images serves badly.
    """
    checked = check_images(images)
    _require(math.isfinite(blur) and blur >= 0, "a blur sigma of at least 0 pixels", blur)
    _require(0 <= contrast <= 1, "a contrast in [0, 1]", contrast)
    _require(0 <= veil <= 255, "a veil of 0 to 255 levels", veil)
    _require(math.isfinite(noise) and noise >= 0, "noise of at least 0 levels", noise)
    _require(seed >= 0, "a seed of at least 0", seed)
    seen = np.empty_like(checked)
    for rows in _blocks(checked):
        block = checked[rows]
        light = np.float32(contrast) * gaussian_blur(block, blur) + np.float32(veil)
        if noise:
            light += np.float32(noise) * _sensor_noise(block, seed)
        seen[rows] = _levels(light)
    return seen


def _sensor_noise(images: Images, seed: int) -> NDArray[np.float32]:
    grain = np.empty(images.shape, dtype=np.float32)
    # One generator per image, not per batch: a batch's stream would tie an image's noise to its neighbors.
    for image, out in zip(images, grain, strict=True):
        np.random.default_rng([seed, zlib.crc32(image)]).standard_normal(dtype=np.float32, out=out)
    return grain


def _levels(light: NDArray[np.float32]) -> Images:
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _blocks(images: Images) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(1, math.prod(images.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(images), step))


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise DataError(f"Expected {expected}, got {got}. Choose another value for the camera.")

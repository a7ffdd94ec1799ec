"""The cameras of the under-served: how the same scene looks through a poorer lens and sensor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.blocks import shrink
from ttca.errors import DataError
from ttca.images import Images, check_images

__all__ = ["bad_camera", "color_cast", "dark_phone", "fog", "gaussian_blur", "night", "pixelated", "soft_focus"]

# Float32 copies of a whole data set would not fit in memory; blocks of this many values stay in cache.
_BLOCK_VALUES = 1 << 21
_SOFT_FOCUS_RADIUS = 3
#: Side of the squares that a coarse sensor averages over, in pixels.
_COARSE = 2
#: What each channel of a tinted sensor is multiplied by.
_CAST = (1.25, 0.9, 0.45)
#: Which share of the scene's red, green and blue each channel of a cheap color filter gets; rows add up to less than 1
#: where the filter also takes light away.
_FILTER = ((0.8, 0.2, 0.0), (0.1, 0.7, 0.2), (0.0, 0.3, 0.5))
_GAMMA = 2.2
#: What is left of the light at night, and how noisy the sensor is then.
_NIGHT: dict[str, float] = {"blur": 0.0, "contrast": 0.4, "veil": 8.0, "noise": 5.0}


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


def fog(images: Any) -> Images:
    """Return images as they look through fog: a level x becomes 0.45·x + 77, rounded to whole levels.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)

    Returns
    -------
    uint8 array, shape (N, H, W, 3)

    Raises
    ------
    ImageError
        If the images are not uint8 NHWC RGB.
    """
    seen: Images = _levels(0.45 * np.arange(256) + 77)[check_images(images)]
    return seen


def pixelated(images: Any) -> Images:
    """Return images as a sensor of half the resolution sees them: the mean of each 2×2 square, halves rounded up.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
        H and W are even.

    Returns
    -------
    uint8 array, shape (N, H, W, 3)

    Raises
    ------
    ImageError, DataError
        If the images are not uint8 NHWC RGB, or a side is odd.
    """
    checked = check_images(images)
    sides = checked.shape[1:3]
    _require(not any(side % _COARSE for side in sides), "images whose sides are even", f"{sides[0]}×{sides[1]} pixels")
    seen: Images = shrink(checked, _COARSE).repeat(_COARSE, axis=1).repeat(_COARSE, axis=2)
    return seen


def color_cast(images: Any) -> Images:
    """Return images as a sensor with a color cast sees them: red × 1.25, green × 0.9, blue × 0.45, rounded, clipped.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)

    Returns
    -------
    uint8 array, shape (N, H, W, 3)

    Raises
    ------
    ImageError
        If the images are not uint8 NHWC RGB.
    """
    checked = check_images(images)
    tables = [_levels(factor * np.arange(256)) for factor in _CAST]
    return np.stack([table[checked[..., channel]] for channel, table in enumerate(tables)], axis=-1)


def dark_phone(images: Any) -> Images:
    """Return images as a cheap phone sees them: a color filter that leaks, then a curve that darkens.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)

    Returns
    -------
    uint8 array, shape (N, H, W, 3)
        255·(F·x/255)^2.2, rounded. F has the rows (.8, .2, 0), (.1, .7, .2) and (0, .3, .5).

    Raises
    ------
    ImageError
        If the images are not uint8 NHWC RGB.

    Notes
    -----
    *Ours*.
    """
    checked = check_images(images)
    seen = np.empty_like(checked)
    mixing = np.array(_FILTER)
    for rows in _blocks(checked):
        # Rounding at the ninth digit: what is left of the sums' order must not decide a half level.
        light = np.round(255 * ((checked[rows] @ mixing.T) / 255) ** _GAMMA, 9)
        seen[rows] = _levels(light)
    return seen


def night(images: Any) -> Images:
    """Return images as a sharp camera sees them at night: 40 % of the light, a dark level of 8, noise of 5 levels.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)

    Returns
    -------
    uint8 array, shape (N, H, W, 3)
        An image's noise comes from its own pixels, as that of :func:`bad_camera`.

    Raises
    ------
    ImageError
        If the images are not uint8 NHWC RGB.

    Notes
    -----
    *Ours*.
    """
    return bad_camera(images, **_NIGHT)  # type: ignore[arg-type]


def _sensor_noise(images: Images, seed: int) -> NDArray[np.float32]:
    grain = np.empty(images.shape, dtype=np.float32)
    # One generator per image, not per batch: a batch's stream would tie an image's noise to its neighbors.
    for image, out in zip(images, grain, strict=True):
        np.random.default_rng([seed, zlib.crc32(image)]).standard_normal(dtype=np.float32, out=out)
    return grain


def _levels(light: NDArray[np.floating[Any]]) -> Images:
    levels: Images = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return levels


def _blocks(images: Images) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(1, math.prod(images.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(images), step))


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise DataError(f"Expected {expected}, got {got}. Choose another value for the camera.")

"""How a picture changes its size: the arithmetic of docs/preparation.md, in whole numbers that a web page has too."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ttca.images import Images

__all__ = ["LANCZOS", "block_mean", "resample", "whole_factor"]

#: Entries of the table per sample, and lobes of the filter.
_STEPS, _LOBES = 128, 3
#: Coefficients add up to 2^14; between the steps a level has 8 binary places.
_ONE, _FINE = 2**14, 2**8
#: Target samples computed together: a wider block would multiply by more zeros.
_TOGETHER = 64


def _lanczos(t: int) -> int:
    x = math.pi * t / _STEPS
    return _ONE if t == 0 else round(_ONE * _LOBES * math.sin(x) * math.sin(x / _LOBES) / x**2)


#: ``LANCZOS[t]`` is 2^14 · sinc(t/128) · sinc(t/384), rounded, for t in 0..384. The page holds the same numbers.
LANCZOS: NDArray[np.int64] = np.array([_lanczos(t) for t in range(_STEPS * _LOBES + 1)], dtype=np.int64)
LANCZOS.setflags(write=False)


class _Band(NamedTuple):
    """Coefficients of the targets ``start`` to ``stop`` for the samples ``low`` to ``high``, as exact float64."""

    start: int
    stop: int
    low: int
    high: int
    coefficients: NDArray[np.float64]


def whole_factor(source: int, target: int) -> int:
    """Return by which whole factor a length is first averaged: the largest that leaves at least twice the target.

    Examples
    --------
    >>> whole_factor(4000, 224), whole_factor(500, 224)
    (8, 1)
    """
    return max(1, source // (2 * target))


def block_mean(pixels: Images, rows: int, columns: int) -> NDArray[np.uint16]:
    """Return the mean of each block of so many rows and columns, in 1/256 of a level, halves rounded up.

    Parameters
    ----------
    pixels : uint8 array, shape (h, w, 3)
    rows, columns : int
        1 or more. Blocks at the right and at the bottom are smaller where they do not fit.

    Returns
    -------
    uint16 array, shape (⌈h / rows⌉, ⌈w / columns⌉, 3)
        0..65280.
    """
    height, width, _ = pixels.shape
    high, wide = -(-height // rows), -(-width // columns)
    # Row by row and then column by column: each addition runs over memory in its order.
    narrow = np.uint16 if rows * 255 < 2**16 else np.uint32
    tall = np.zeros((high, width, 3), dtype=narrow)
    for i in range(min(rows, height)):
        part = pixels[i::rows]
        tall[: len(part)] += part
    total = np.zeros((high, wide, 3), dtype=np.int64)
    for i in range(min(columns, width)):
        part = tall[:, i::columns]
        total[:, : part.shape[1]] += part
    count_y = np.minimum(rows, height - rows * np.arange(high))
    count_x = np.minimum(columns, width - columns * np.arange(wide))
    count = (count_y[:, None] * count_x)[..., None]
    means: NDArray[np.int64] = (2 * _FINE * total + count) // (2 * count)
    return means.astype(np.uint16)


def resample(pixels: Images, height: int, width: int) -> Images:
    """Return a picture of another size, bit for bit as docs/preparation.md defines it.

    Parameters
    ----------
    pixels : uint8 array, shape (h, w, 3)
        At least one pixel.
    height, width : int
        The size wanted, 1 or more.

    Returns
    -------
    uint8 array, shape (height, width, 3)
        The picture itself where it has that size.

    Notes
    -----
    Averages over whole blocks, then Lanczos with three lobes (Duchon 1979), in fixed point. The integer form is *ours*.
    The products are computed in float64, which is exact, since no sum reaches 2^35.
    """
    h, w, _ = pixels.shape
    if (h, w) == (height, width):
        return pixels
    means = block_mean(pixels, whole_factor(h, height), whole_factor(w, width))
    planes = np.ascontiguousarray(means.transpose(2, 0, 1), dtype=np.float64)
    across = np.empty((3, means.shape[0], width))
    for band in _bands(w, width):
        across[..., band.start : band.stop] = planes[..., band.low : band.high] @ band.coefficients.T
    across = np.floor((across + _ONE // 2) / _ONE)
    out = np.empty((3, height, width))
    for band in _bands(h, height):
        out[:, band.start : band.stop] = band.coefficients @ across[:, band.low : band.high]
    levels = np.floor((out + _ONE * _FINE // 2) / (_ONE * _FINE))
    return np.ascontiguousarray(np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=64)
def _bands(source: int, target: int) -> tuple[_Band, ...]:
    """Return the coefficients from the block means of a length to another length."""
    factor = whole_factor(source, target)
    samples = -(-source // factor)
    # Twice the filter's unit, in 1/(2 · target · factor) of a sample: all distances are whole multiples of that.
    unit = 2 * max(source, target * factor)
    bands = []
    for start in range(0, target, _TOGETHER):
        stop = min(start + _TOGETHER, target)
        j = np.arange(start, stop)[:, None]
        low = max(0, ((2 * start + 1) * source - _LOBES * unit) // (2 * target * factor) - 1)
        high = min(samples, ((2 * stop - 1) * source + _LOBES * unit) // (2 * target * factor) + 2)
        i = np.arange(low, high)
        distance = np.abs((2 * i + 1) * (target * factor) - (2 * j + 1) * source)
        step = (2 * _STEPS * distance + unit) // (2 * unit)
        weights = LANCZOS[np.minimum(step, _STEPS * _LOBES)]
        total = weights.sum(axis=1, keepdims=True)
        shares = (2 * _ONE * weights + total) // (2 * total)
        # What rounding left over goes to the largest, the first of several, so that all add up to 2^14.
        rows = np.arange(stop - start)
        shares[rows, shares.argmax(axis=1)] += _ONE - shares.sum(axis=1)
        coefficients = shares.astype(np.float64)
        coefficients.setflags(write=False)
        bands.append(_Band(start, stop, low, high, coefficients))
    return tuple(bands)

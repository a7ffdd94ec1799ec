"""Squares of pixels: images averaged over them, and δ that is constant within them, so that resizing cannot undo it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError
from ttca.images import Images, ImageShape

__all__ = ["check_block", "enlarge", "seen", "shrink"]

# Averages are taken a part at a time: a float copy of a whole data set would not fit in memory.
_PART = 256


def check_block(block: int, shape: ImageShape) -> None:
    """Raise ConfigError unless images of ``shape`` (H, W, 3) divide into squares of ``block`` pixels a side."""
    if shape[0] % block or shape[1] % block:
        raise ConfigError(
            f"Expected a block that divides the platform's images of {shape[0]}×{shape[1]} pixels, got {block}. "
            "Choose another; 1 gives every pixel its own level."
        )


def shrink(images: Images, block: int) -> Images:
    """Return the mean of each square, rounded to whole levels: uint8 (N, H/block, W/block, 3)."""
    if block == 1:
        return images
    n, h, w, _ = images.shape
    small = np.empty((n, h // block, w // block, 3), np.uint8)
    for start in range(0, n, _PART):
        part = images[start : start + _PART].reshape(-1, h // block, block, w // block, block, 3)
        # Integers: the sum of 256 bytes fits, and halves round up the same way everywhere.
        total = part.sum(axis=(2, 4), dtype=np.uint32)
        small[start : start + _PART] = (total + block * block // 2) // (block * block)
    return small


def seen(images: Images, block: int, shape: ImageShape) -> Images:
    """Return what a proxy sees of images of ``shape`` (H, W, 3); images that were shrunk before stay as they are."""
    return shrink(images, block) if images.shape[1:3] == shape[:2] else images


def enlarge(delta: NDArray[np.int8], block: int) -> NDArray[np.int8]:
    """Return δ with every level repeated over its square: int8 (G, H, W, 3) from (G, H/block, W/block, 3)."""
    return delta.repeat(block, axis=1).repeat(block, axis=2) if block > 1 else delta

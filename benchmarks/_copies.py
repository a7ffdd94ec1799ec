"""Which photographs are copies, or near copies, of others: who has an earlier role is no test person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ttca.images import Images

__all__ = ["NEAR", "near_copies"]

#: Two photographs whose levels correlate more than this are taken for one: cut, compressed or scaled again.
NEAR = 0.99
_PART = 512
#: Squares a side of the coarse pictures that most pairs are told apart by.
_COARSE = 8


def near_copies(images: Images, others: Images) -> NDArray[np.bool_]:
    """Return which images are copies or near copies of one of ``others``.

    Parameters
    ----------
    images, others : uint8 array, shapes (N, H, W, 3) and (M, H, W, 3)

    Returns
    -------
    bool array, shape (N,)
        Whether the Pearson correlation of all levels with one of ``others`` is above :data:`NEAR`. An image of one
        level has no correlation: it is a copy of others with the same bytes.

    Notes
    -----
    *Ours*. Of standardized images, a correlation above c is a squared distance below 2 − 2c. Means over squares only
    make distances smaller, so that the coarse pictures rule out pairs and never miss one.
    """
    known = {image.tobytes() for image in others}
    copies = np.array([image.tobytes() in known for image in images], np.bool_)
    if not len(images) or not len(others):
        return copies
    standard, beside = _standardized(images), _standardized(others)
    coarse, coarse_beside = _coarse(standard, images.shape), _coarse(beside, others.shape)
    lengths = (coarse_beside**2).sum(1)
    for start in range(0, len(images), _PART):
        part = coarse[start : start + _PART]
        far = (part**2).sum(1)[:, None] + lengths - 2 * part @ coarse_beside.T
        # A little more than 2 − 2c: float32 rounds.
        rows, pairs = np.nonzero(far <= 2 - 2 * NEAR + 1e-4)
        for near in range(0, len(rows), _PART):
            ones, twos = start + rows[near : near + _PART], pairs[near : near + _PART]
            alike = np.einsum("ij,ij->i", standard[ones], beside[twos], dtype=np.float64)
            copies[ones[alike > NEAR]] = True
    return copies


def _standardized(images: Images) -> NDArray[np.float32]:
    """Return images less their mean and of length one, float32 (N, H·W·3); those of one level are zeros."""
    levels = images.reshape(len(images), -1).astype(np.float32)
    levels -= levels.mean(1, keepdims=True)
    length = np.sqrt((levels.astype(np.float64) ** 2).sum(1, keepdims=True))
    standard: NDArray[np.float32] = (levels / np.maximum(length, 1e-9)).astype(np.float32)
    return standard


def _coarse(standard: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return sums over squares, scaled so that no two images are farther apart than they were."""
    n, height, width, channels = shape
    sides = [s for s in range(1, min(height, width) + 1) if not height % s and not width % s]
    side = max([s for s in sides if min(height, width) // s >= _COARSE], default=1)
    squares = standard.reshape(n, height // side, side, width // side, side, channels)
    coarse: NDArray[np.float32] = (squares.sum(axis=(2, 4)) / side).reshape(n, -1)
    return coarse

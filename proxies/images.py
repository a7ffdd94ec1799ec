"""The one place where uint8 NHWC images become float32 NCHW tensors in [0, 1], and back; and how many fit at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["fitting", "to_levels", "to_tensor", "to_uint8"]

#: A batch's floats take so many bytes: of photographs a network's layers, which are many times larger, take the rest.
_BATCH_BYTES = 8 * 2**20


def fitting(height: int, width: int, *, most: int = 512) -> int:
    """Return how many images of a size a network sees at once where nothing depends on the batch: one or more.

    Parameters
    ----------
    height, width : int
        Pixels.
    most : int
        However small they are.

    Notes
    -----
    *Ours*. Small images fill a batch; of photographs 512 at once took gigabytes in the first layers alone.
    """
    return max(1, min(most, _BATCH_BYTES // (3 * 4 * height * width)))


def to_levels(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> torch.Tensor:
    """Return a uint8 tensor (N, 3, H, W) in channels-last memory, a view of the array wherever it can be one.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    device : torch.device or str
        A whole data set is moved once, as bytes, and becomes float one batch at a time.

    Raises
    ------
    ValueError
        If the array is not uint8 or not of that shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Expected uint8 images (N, H, W, 3), got {images.dtype} {images.shape}.")
    # NHWC bytes *are* channels-last NCHW, so the permuted view needs no copy; torch refuses read-only arrays.
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device).permute(0, 3, 1, 2)


def to_tensor(levels: torch.Tensor) -> torch.Tensor:
    """Return float32 in [0, 1] from a uint8 tensor (N, 3, H, W)."""
    return levels.to(torch.float32).div_(255.0)


def to_uint8(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return uint8 images (N, H, W, 3) from a float tensor (N, 3, H, W) in [0, 1], rounded."""
    levels = tensor.detach().mul(255.0).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())

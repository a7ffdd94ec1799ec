"""Random input transformations while δ is learned: what a platform may do to an image before it looks at it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from ttca.attacks.options import TRANSFORMS, check_transforms

__all__ = ["blur", "differentiable_jpeg", "find_transform", "resize", "transformed"]

Transform = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

# Luminance table of JPEG's informative annex (ITU-T T.81, K.1) [published].
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def transformed(x: torch.Tensor, names: tuple[str, ...], generator: torch.Generator) -> torch.Tensor:
    """Return a batch as one of the named transformations, or none, leaves it: float32 (N, 3, H, W) in [0, 1].

    One draw for the whole batch, with the untouched batch among the choices: δ must work as it is sent, too.
    Random resizing for transfer follows Xie et al. 2019 (arXiv 1803.06978) [published]; blur and JPEG beside it
    are ours.

    Raises
    ------
    ValueError
        If a name is not one of :data:`ttca.attacks.options.TRANSFORMS`.
    """
    check_transforms(names)
    if not names:
        return x
    drawn = int(torch.randint(len(names) + 1, (), generator=generator))
    return x if drawn == len(names) else find_transform(names[drawn])(x, generator)


def find_transform(name: str) -> Transform:
    """Return the transformation that goes by one of the names in :data:`ttca.attacks.options.TRANSFORMS`."""
    found: Transform = pkgutil.resolve_name(TRANSFORMS[name])
    return found


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def resize(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shrink to 50 to 95 % and enlarge again, bilinear."""
    factor = _uniform(0.5, 0.95, generator)
    # Rounding must not leave a small image as it is.
    size = [max(1, min(s - 1, round(s * factor))) for s in x.shape[2:]]
    small = nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
    return nn.functional.interpolate(small, size=list(x.shape[2:]), mode="bilinear")


def blur(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur by a Gaussian of 0.3 to 1 pixel, edges reflected."""
    sigma = _uniform(0.3, 1.0, generator)
    places = torch.arange(-2, 3, dtype=x.dtype, device=x.device)
    weight = torch.exp(-(places**2) / (2 * sigma**2))
    weight = weight / weight.sum()
    across = weight.view(1, 1, 1, 5).expand(3, 1, 1, 5)
    padded = nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    rows = nn.functional.conv2d(padded, across, groups=3)
    return nn.functional.conv2d(rows, across.transpose(2, 3), groups=3)


def differentiable_jpeg(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Quantise 8×8 blocks of every color as JPEG of quality 60 to 95 quantises luminance.

    Rounding passes the gradient through unchanged, so that δ learns which waves survive it [ours]; the change of
    color space and chroma subsampling are left out.
    """
    quality = _uniform(60.0, 95.0, generator)
    n, c, h, w = x.shape
    # The usual scaling of the table by quality, as every common encoder has it.
    table = torch.tensor(_LUMINANCE, dtype=x.dtype, device=x.device)
    step = ((table * (200 - 2 * quality) + 50) / 100).floor().clamp(min=1) / 255
    down, right = -h % 8, -w % 8
    padded = nn.functional.pad(x, (0, right, 0, down), mode="replicate")
    high, wide = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.reshape(n, c, high, 8, wide, 8).transpose(3, 4)
    basis = _cosines().to(device=x.device, dtype=x.dtype)
    waves = basis @ blocks @ basis.T
    rounded = waves + ((waves / step).round() * step - waves).detach()
    back = (basis.T @ rounded @ basis).transpose(3, 4).reshape(padded.shape)
    return back[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _cosines() -> torch.Tensor:
    """Return the orthonormal DCT-II of length 8, float64 (8, 8): waves × places."""
    waves = np.cos(np.pi / 8 * np.outer(np.arange(8), np.arange(8) + 0.5)) * np.sqrt(2 / 8)
    waves[0] /= np.sqrt(2)
    return torch.from_numpy(waves)

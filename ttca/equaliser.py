"""How one group's images differ from another's, frequency by frequency, and how to undo it: no pairs are needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.images import Images
from ttca.renamed import old_names
from ttca.values import Value

__all__ = ["Equalizer"]

#: No frequency is raised or lowered by more: what a camera lost below its own noise cannot be brought back.
_MOST = 32.0
# A float copy of a whole data set would not fit in memory.
_PART = 512


@dataclass(frozen=True, eq=False, repr=False)
class Equalizer(Value):
    """A gain per spatial frequency that gives one group's images the mean spectrum of another's.

    Parameters
    ----------
    gain : float32 array, shape (H, W)
        Factor on each coefficient of the two-dimensional DCT-II; that of the mean level is 1.

    Notes
    -----
    Blind deconvolution by a known mean spectrum, as in Cannon 1976 (IEEE Trans. ASSP 24(1), "Blind deconvolution of
    spatially invariant image blurs with phase") [published]: a symmetric filter with a positive response has no
    phase, so that the ratio of mean powers is the square of its response. That the spectrum is that of *another group
    of people*, and what the result is used for, is ours.
    """

    gain: NDArray[np.float32]

    @classmethod
    def between(cls, images: Images, others: Images) -> Equalizer:
        """Return the equalizer that makes ``images`` look like ``others``; both uint8 (N, H, W, 3).

        Raises
        ------
        ActionError
            If one side has no image, or their sizes differ.
        """
        if not len(images) or not len(others) or images.shape[1:] != others.shape[1:]:
            raise ActionError(
                f"Expected images of one size from both groups to compare them, got {images.shape} and "
                f"{others.shape}. Let volunteers take part, or set equalize = false. No query was spent."
            )
        # Rounding to whole levels adds a variance of 1/12; with it on both sides an empty frequency decides nothing.
        ratio = (_power(others) + 1 / 12) / (_power(images) + 1 / 12)
        gain = np.sqrt(ratio).clip(1 / _MOST, _MOST)
        gain[0, 0] = 1.0
        return cls(gain.astype(np.float32))

    def apply(self, images: Images) -> Images:
        """Return equalized images, rounded to whole levels: uint8 (N, H, W, 3)."""
        from scipy.fft import idctn

        out = np.empty_like(images)
        for start in range(0, len(images), _PART):
            part = _spectrum(images[start : start + _PART]) * self.gain[None, :, :, None]
            levels = idctn(part, axes=(1, 2), norm="ortho")
            out[start : start + _PART] = np.rint(levels).clip(0, 255)
        return out


def _spectrum(images: Images) -> NDArray[np.float32]:
    """Return the DCT-II of every color of every image, orthonormal, in levels: float32 (N, H, W, 3)."""
    from scipy.fft import dctn

    # scipy keeps the precision it is given; its stubs promise double.
    return np.asarray(dctn(images.astype(np.float32), axes=(1, 2), norm="ortho"), np.float32)


def _power(images: Images) -> NDArray[np.float64]:
    """Return the mean power of each frequency over images and colors, float64 (H, W)."""
    total = np.zeros(images.shape[1:3])
    for start in range(0, len(images), _PART):
        total += np.square(_spectrum(images[start : start + _PART]), dtype=np.float64).sum((0, 3))
    return total / (3 * len(images))


__getattr__ = old_names(__name__, Equaliser=Equalizer)

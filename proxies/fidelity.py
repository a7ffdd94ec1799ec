"""Fidelity: on how many images proxy and platform name the same class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """``agree`` of ``n`` images on which the platform named a class; the rest are left out of both."""

    agree: int
    n: int

    @property
    def rate(self) -> float:
        """Return the share, NaN for no images."""
        return self.agree / self.n if self.n else float("nan")


def agreement(predicted: NDArray[np.int64], platform: NDArray[np.int64]) -> Agreement:
    """Compare the proxy's classes with the platform's labels (−1 = none), both of shape (N,).

    Fidelity Pr[φ(x) = f(x)], our reading of arXiv 2605.27689. Give it subgroup and reference rows apart: it is
    lowest where the platform errs, which is where it matters.

    Raises
    ------
    ValueError
        If the two are not of one length.
    """
    if predicted.shape != platform.shape or platform.ndim != 1:
        raise ValueError(f"Expected two arrays of classes (N,), got {predicted.shape} and {platform.shape}.")
    named = platform >= 0
    return Agreement(int((predicted[named] == platform[named]).sum()), int(named.sum()))

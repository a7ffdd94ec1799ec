"""What a platform can tell from what it is sent: detectors of query patterns, and averages that show what is added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.data.cameras import gaussian_blur
from ttca.errors import ConfigError
from ttca.images import Images

__all__ = ["Exposed", "Prada", "Stateful", "area_under_curve", "encode", "expose", "residuals"]

Floats = NDArray[np.float64]
#: What PRADA's authors' code waits for: distances of one class before they count, and distances in all.
_OF_A_CLASS, _IN_ALL = 10, 100
_LOOK_EVERY = 10


# -- PRADA --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prada:
    """Tell a stream by how its smallest distances are distributed: *published* (Juuti et al. 2019, arXiv 1805.02628).

    Each query's L2 distance to the nearest member of its class's growing set is noted; the set takes in whoever is
    further away than the mean less one standard deviation of the set's own distances. Distances of ordinary use are
    close to normal, so that the Shapiro–Wilk statistic W stays near 1; synthetic queries push it down. Distances
    beyond three standard deviations are left out, W is computed from more than 100 of them and at every tenth query, as
    in the authors' code.

    Parameters
    ----------
    threshold : float
        An alarm is raised where W falls below it.
    """

    threshold: float

    @classmethod
    def calibrated(cls, lowest: Sequence[float | None], *, false_positives: float) -> Prada:
        """Return the detector that raises an alarm on this share of honest streams at most, told by their lowest W.

        The authors choose the threshold by benign traffic, too; the share is *ours* to state.
        """
        known = np.sort([w for w in lowest if w is not None])
        if not len(known):
            raise ConfigError(
                f"Expected honest streams with more than {_IN_ALL} distances, got none. Make them longer."
            )
        return cls(float(known[int(false_positives * len(known))]))

    @staticmethod
    def lowest(images: Images, labels: NDArray[np.int64]) -> float | None:
        """Return the lowest W that a stream shows, or None where it is too short for any.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            In the order they came.
        labels : int64 array, shape (N,)
            What the platform answered; refusals (−1) are a class of their own.
        """
        from scipy.stats import shapiro

        flat = images.reshape(len(images), -1).astype(np.float64)
        apart = _apart(flat, flat)
        grown: dict[int, list[int]] = {}
        kept: dict[int, list[float]] = {}
        seen: dict[int, list[float]] = {}
        limit: dict[int, float] = {}
        lowest: float | None = None
        for row, label in enumerate(labels.tolist()):
            if label not in grown:
                grown[label], kept[label], limit[label], seen[label] = [row], [0.0], 0.0, []
            else:
                nearest = float(apart[row, grown[label]].min())
                seen[label].append(nearest)
                if nearest > limit[label]:
                    grown[label].append(row)
                    kept[label].append(nearest)
                    own = np.array(kept[label])
                    limit[label] = max(limit[label], float(own.mean() - own.std()))
            if row % _LOOK_EVERY == 0:
                told = np.array([d for of in seen.values() if len(of) >= _OF_A_CLASS for d in of])
                if len(told) > _IN_ALL:
                    told = told[np.abs(told - told.mean()) < 3 * told.std()]
                if len(told) > _IN_ALL:
                    w = float(shapiro(told).statistic)
                    lowest = w if lowest is None else min(lowest, w)
        return lowest

    def alarms(self, lowest: float | None) -> bool:
        """Whether a stream with this lowest W is called an attack; one too short for any is not."""
        return lowest is not None and lowest < self.threshold


# -- stateful detection -------------------------------------------------------------------------------------------


def encode(images: Images, *, side: int = 8) -> Floats:
    """Return images averaged to ``side``×``side`` squares per colour in [0, 1], one row each: the detector's encoder.

    Chen et al. train an encoder for perceptual similarity; this is *ours*, simple, and near-duplicates stay near.
    """
    n, height, width, _ = images.shape
    if height % side or width % side:
        raise ConfigError(
            f"Expected images whose sides are multiples of {side}, got {height}×{width}. Choose another size."
        )
    blocks = images.reshape(n, side, height // side, side, width // side, 3).astype(np.float64)
    means: Floats = blocks.mean(axis=(2, 4)).reshape(n, -1) / 255
    return means


@dataclass(frozen=True)
class Stateful:
    """Flag a query that is too near to earlier ones of the same stream: *published* (Chen, Carlini and Wagner 2019,
    arXiv 1907.05587).

    Parameters
    ----------
    threshold : float
        A query is flagged where its mean distance to the k nearest earlier ones is below it.
    k : int
        The paper takes 50; a smaller one flags sooner, and flags people who send a picture again [ours to vary].
    """

    threshold: float
    k: int

    @classmethod
    def calibrated(cls, honest: Floats, *, k: int, false_positives: float) -> Stateful:
        """Return the detector that flags this share of honest pictures among each other, encoded (N, D), at most.

        The paper allows 0.1 % of its training images.
        """
        if len(honest) <= k:
            raise ConfigError(f"Expected more than k = {k} honest pictures, got {len(honest)}. Use a smaller k.")
        apart = _apart(honest, honest)
        np.fill_diagonal(apart, np.inf)
        near = np.sort(np.partition(apart, k - 1, axis=1)[:, :k].mean(axis=1))
        return cls(float(near[int(false_positives * len(near))]), k)

    def flags(self, stream: Floats) -> NDArray[np.bool_]:
        """Return which queries of a stream, encoded (N, D) in their order, are flagged, bool (N,).

        A detection empties the buffer, as published: the same queries are not counted twice.
        """
        flagged = np.zeros(len(stream), np.bool_)
        apart = _apart(stream, stream)
        start = 0
        for row in range(len(stream)):
            past = apart[row, start:row]
            if len(past) >= self.k and np.partition(past, self.k - 1)[: self.k].mean() < self.threshold:
                flagged[row] = True
                start = row + 1
        return flagged


def _apart(first: Floats, second: Floats) -> Floats:
    """Return all L2 distances, (N, M), by one product of matrices."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    distances: Floats = np.sqrt(np.maximum(squares, 0.0))
    return distances


# -- averages -----------------------------------------------------------------------------------------------------


def residuals(images: NDArray[np.integer[Any]]) -> Floats:
    """Return images or δ less a blurred copy (σ 1 pixel), in levels, one row each: what a denoiser takes away."""
    sharp = images.astype(np.float64) - gaussian_blur(images, 1.0)
    return sharp.reshape(len(images), math.prod(images.shape[1:]))


@dataclass(frozen=True)
class Exposed:
    """What averaging showed of a δ.

    ``cosine`` with δ itself; ``area`` under the curve of telling held-out submissions with δ from the same without; 0
    and .5 are nothing.
    """

    cosine: float
    area: float


def expose(
    submissions: Floats, history: Floats, delta: Floats, held_out: tuple[Floats, Floats]
) -> Exposed:  # fmt: skip
    """Average what was submitted, take away the average of what used to be, and see how much of δ is left.

    Parameters
    ----------
    submissions, history : float arrays, shape (N, D), (M, D)
        Residuals (or pixels) of pictures answered with one class, now and before anybody had a δ.
    delta : float array, shape (D,)
        The δ of that class, as its members apply it.
    held_out : (float array (P, D), float array (R, D))
        Other people's, with δ and without.

    Notes
    -----
    The mean's noise falls with the square root of N [ours].
    """
    found = submissions.mean(axis=0) - history.mean(axis=0)
    size = np.linalg.norm(found) * np.linalg.norm(delta)
    cosine = float(found @ delta / size) if size > 0 else 0.0
    return Exposed(cosine, area_under_curve(held_out[0] @ found, held_out[1] @ found))


def area_under_curve(positive: Floats, negative: Floats) -> float:
    """Return the chance that a positive's score is above a negative's, ties counted half."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(below.mean() / (2 * len(negative)))

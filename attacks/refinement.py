"""Refinement: the last queries go to the platform itself, which tells in what coarse directions δ should move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AMPLITUDE", "Probes", "draw_probes", "steer", "support"]

#: Levels of 255 by which a probe moves every pixel: far more than ε, for a platform that says whole percents or a
#: label hardly answers a faint change. Probes are asked about and never submitted as anybody's photograph.
AMPLITUDE = 16
#: At most so many squares along each side: few directions are learned well from few answers.
_SIDE = 8
_AT_A_TIME = 64
#: Noise over signal, per direction, among which the probes themselves choose.
_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


@dataclass(frozen=True, eq=False, repr=False)
class Probes:
    """Pairs of images that differ from a member's by the same coarse random pattern, added and taken away.

    Parameters
    ----------
    signs : int8 array, shape (n, G, G', 3)
        The pattern of each pair, ±1 per square and color.
    images : uint8 array, shape (2n, H, W, 3)
        First every image with its pattern added, then every image with it taken away.
    rows : int64 array, shape (n,)
        Which of the images given each pair is around.
    """

    signs: NDArray[np.int8]
    images: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"Probes({len(self.signs)} pairs of images of {self.images.shape[1:]})"


def draw_probes(images: NDArray[np.uint8], *, pairs: int, rng: np.random.Generator, block: int = 1) -> Probes:
    """Return so many pairs around images drawn at random, each as often as the others.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    pairs : int
    rng : numpy.random.Generator
    block : int
        Squares consist of whole blocks of so many pixels a side, in which δ is constant.

    Raises
    ------
    ValueError
        If there is no image or no pair.
    """
    if not len(images) or pairs < 1:
        raise ValueError(f"Expected at least one image and one pair, got {len(images)} and {pairs}.")
    rounds = -(-pairs // len(images))
    rows = np.concatenate([rng.permutation(len(images)) for _ in range(rounds)])[:pairs]
    shape = images.shape[1:3]
    squares = tuple(_squares(side // block) for side in shape)
    signs = (rng.integers(0, 2, (pairs, *squares, 3), dtype=np.int8) * 2 - 1).astype(np.int8)
    sent = np.empty((2 * pairs, *images.shape[1:]), np.uint8)
    # A few at a time: photographs in 16 bits, six times over, would not fit beside the proxies.
    for start in range(0, pairs, _AT_A_TIME):
        part = slice(start, min(start + _AT_A_TIME, pairs))
        pattern = _enlarged(signs[part], shape).astype(np.int16) * AMPLITUDE
        around = images[rows[part]]
        sent[part] = np.clip(around + pattern, 0, 255)
        sent[pairs + part.start : pairs + part.stop] = np.clip(around - pattern, 0, 255)
    return Probes(signs, sent, rows)


def support(
    labels: NDArray[np.int64], scores: NDArray[np.float32], resolution: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return how much each answer speaks for each class, float64 (N, C): log-odds, or 1 for a label without scores.

    Parameters
    ----------
    labels : int64 array, shape (N,)
        −1 where nothing was said: such a row is NaN.
    scores : float32 array, shape (N, C)
        NaN where not said.
    resolution : float32 array, shape (N,)
        Step of the scores: half of it is all that a score of 0 says.
    """
    found: NDArray[np.float64] = np.zeros(scores.shape)
    named = labels >= 0
    found[named, labels[named]] = 1.0
    complete = np.asarray(~np.isnan(scores).any(1))
    # Of one scale or the other: log-odds and labels cannot be compared.
    if complete[named].all() and named.any():
        least = np.maximum(resolution / 2, 1e-3)[:, None].astype(np.float64)
        p = np.clip(np.nan_to_num(scores.astype(np.float64), nan=0.5), least, 1 - least)
        found = np.log(p / (1 - p))
    found[~named] = np.nan
    return found


def steer(
    delta: NDArray[np.int8],
    probes: Probes,
    said: NDArray[np.float64],
    *,
    epsilon: int,
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return δ of full strength along what proxy and platform together say, and how well probes were foretold.

    The difference of the two answers of a pair is linear in its pattern for small patterns; its slope is what δ
    wants, averaged over people. The proxy's δ is the prior mean of that slope, times a factor that the probes
    choose, and coarse squares move around it: ridge regression with the prior subtracted, whose noise is chosen by
    leaving one pair out. Random directions are those of evolution strategies (Ilyas et al. 2018, arXiv 1804.08598)
    [published]; patterns far beyond ε, one regression over many people's images, and the proxy as prior are ours.

    Parameters
    ----------
    delta : int8 array, shape (C, H, W, 3)
        The proxy's.
    probes : Probes
    said : float64 array, shape (2n, C)
        :func:`support` of the answers about ``probes.images``; a pair with NaN is left out.
    epsilon : int

    Returns
    -------
    int8 array (C, H, W, 3), float64 array (C,)
        The new δ, and the share of the differences' variance that is foretold of pairs left out (R²). A class where
        that is not above 0 keeps its δ.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    n, classes = len(probes.signs), len(delta)
    if said.shape != (2 * n, classes) or probes.images.shape[1:] != delta.shape[1:]:
        raise ValueError(
            f"Expected support {(2 * n, classes)} and δ for images of {probes.images.shape[1:]}, got {said.shape} and "
            f"{delta.shape}."
        )
    differences = said[:n] - said[n:]
    heard = ~np.isnan(differences).any(1)
    signs, differences = probes.signs[heard].astype(np.float64), differences[heard]
    steered, foretold = delta.copy(), np.zeros(classes)
    if len(signs) < 3:
        return steered, foretold
    shape = signs.shape[1:]
    a = signs.reshape(len(signs), -1)
    # One decomposition serves every class and every ridge.
    values, vectors = np.linalg.eigh(a @ a.T)
    prior = _averaged(delta.astype(np.float64), shape).reshape(classes, -1)
    for c in range(classes):
        y = differences[:, c]
        if not y.any():
            continue
        expected = a @ prior[c]
        # What the proxy foretold of it; a prior that points the wrong way is dropped.
        factor = max(float(expected @ y) / max(float(expected @ expected), 1e-12), 0.0)
        rest = y - factor * expected
        best = np.inf
        for ridge in _RIDGES:
            # With H the hat matrix, pair i left out errs by r_i / (1 − H_ii).
            shrunk = 1 / (values + ridge * a.shape[1])
            weights = vectors @ (shrunk * (vectors.T @ rest))
            error = float(np.square(weights / (np.square(vectors) @ shrunk)).mean())
            if error < best:
                best, chosen = error, weights
        foretold[c] = 1 - best / float(np.square(y).mean())
        if foretold[c] > 0:
            slope = _enlarged((a.T @ chosen).reshape(1, *shape), delta.shape[1:3])[0] + factor * delta[c]
            steered[c] = np.sign(slope) * epsilon
    return steered, foretold


def _squares(side: int) -> int:
    """Return into how many equal parts a side divides, at most :data:`_SIDE`."""
    return max(k for k in range(1, _SIDE + 1) if side % k == 0)


def _enlarged(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return (N, G, G', 3) with every value repeated over its square: (N, H, W, 3)."""
    return values.repeat(shape[0] // values.shape[1], axis=1).repeat(shape[1] // values.shape[2], axis=2)


def _averaged(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean over each square: (C, G, G', 3) from (C, H, W, 3)."""
    c, h, w, _ = values.shape
    means: NDArray[np.float64] = values.reshape(c, shape[0], h // shape[0], shape[1], w // shape[1], 3).mean((2, 4))
    return means

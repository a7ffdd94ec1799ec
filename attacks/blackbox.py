"""What the per-user black-box attacks share: how a query is counted, how an answer is read, and what comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "PerUser", "QueryTally", "Streams", "label_loss", "project", "score_loss"]

Box = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""A black box: uint8 images (N, H, W, 3) to scores, float (N, C), or to labels, integer (N,)."""

LossOf = Callable[[NDArray[Any], NDArray[np.int64]], NDArray[np.float64]]

_FLOOR = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class PerUser:
    """What an attack on every image by itself achieved, and what it cost.

    Parameters
    ----------
    adversarial : uint8 array, shape (N, H, W, 3)
        The image that was given its target, or else the best one inside the ball; the image itself where it was
        answered rightly unchanged. Never further from the original than ε levels.
    success : bool array, shape (N,)
        Whether the box named the target for exactly these pixels.
    queries : int64 array, shape (N,)
        Images sent, the initial one included, up to and including the one that succeeded. A failure has used the
        whole budget: its value is right-censored, the true one is larger.
    budget : int
        Queries allowed per image.
    """

    adversarial: NDArray[np.uint8]
    success: NDArray[np.bool_]
    queries: NDArray[np.int64]
    budget: int

    def __repr__(self) -> str:
        return f"PerUser({int(self.success.sum())} of {len(self.success)} images, at most {self.budget} queries each)"

    @property
    def attacked(self) -> NDArray[np.bool_]:
        """Which images were not answered rightly at the initial query, bool (N,)."""
        return ~self.success | (self.queries > 1)

    @property
    def mean_queries(self) -> float:
        """Mean queries per image, failures counted at the budget: what was paid, and a lower bound of the
        uncensored mean. NaN without images."""
        return float(self.queries.mean()) if len(self.queries) else math.nan

    @property
    def median_queries(self) -> float:
        """Median queries per image, failures counted at the budget: exact while fewer than half failed, and to be
        read as "at least the budget" where it equals the budget. NaN without images."""
        return float(np.median(self.queries)) if len(self.queries) else math.nan

    @property
    def failure_rate(self) -> float:
        """Share of images without success at the full budget. NaN without images."""
        return float(1 - self.success.mean()) if len(self.success) else math.nan


class QueryTally:
    """Ask a black box about images, count every query, and note which images are done.

    An image is done when the box names its target for pixels within ε of the original; it is never sent again. No
    image is sent more often than the budget allows. The counting follows the project's rule: one initial query,
    one more for every image sent until success, right-censored at the budget [ours].

    Parameters
    ----------
    box : callable
        See :data:`Box`.
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        The class each image should be given: its own true class.
    epsilon : int
        Levels of 255, 1..255.
    budget : int
        Queries per image, the initial one included, at least 1.
    reading : callable
        Answers (n, …) and targets (n,) to losses, float64 (n,): below 0 if and only if the target is named, +∞ for
        an abstention. :func:`score_loss` or :func:`label_loss`.

    Raises
    ------
    ValueError
        If an array is not of its dtype and shape, a target is negative, ε is not a whole number in 1..255 or the
        budget is below 1; later, if the box answers in another shape.
    """

    def __init__(
        self,
        box: Box,
        images: NDArray[np.uint8],
        targets: NDArray[np.int64],
        *,
        epsilon: int,
        budget: int,
        reading: LossOf,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"Expected uint8 images (N, H, W, 3), got {images.dtype} {images.shape}. Convert them to whole levels."
            )
        if targets.shape != images.shape[:1] or targets.dtype.kind not in "iu" or (targets < 0).any():
            raise ValueError(
                f"Expected one target of at least 0 per image, got {targets.dtype} {targets.shape} for {len(images)} "
                "images. Give each image its own true class."
            )
        if not 1 <= epsilon <= 255 or int(epsilon) != epsilon:
            raise ValueError(f"Expected ε as a whole number of pixel levels in 1..255, got {epsilon}. Round it.")
        if budget < 1 or int(budget) != budget:
            raise ValueError(f"Expected a budget of at least 1 query, got {budget}. Allow the initial query.")
        self._box, self._reading = box, reading
        self.images, self.targets = images, targets.astype(np.int64)
        self.epsilon, self.budget = int(epsilon), int(budget)
        self.queries = np.zeros(len(images), np.int64)
        self.success = np.zeros(len(images), np.bool_)
        self._found = images.copy()

    def open(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which of these rows may be sent again, bool (n,)."""
        may: NDArray[np.bool_] = ~self.success[rows] & (self.queries[rows] < self.budget)
        return may

    def begin(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Send every image as it is; return the rows to attack, intp (n,), and their losses, float64 (n,)."""
        rows = np.arange(len(self.images))
        if not len(rows):
            return rows, np.zeros(0)
        loss = self.ask(rows, self.images)
        may = self.open(rows)
        return rows[may], loss[may]

    def ask(self, rows: NDArray[np.intp], sent: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Send one image for each of these open rows, in one call, and return the losses, float64 (n,)."""
        answers = np.asarray(self._box(sent))
        if len(answers.shape) == 0 or len(answers) != len(rows):
            raise ValueError(
                f"Expected one answer per image, got {answers.shape} for {len(rows)} images. Let the box answer for "
                "every image it is sent."
            )
        self.queries[rows] += 1
        loss = self._reading(answers, self.targets[rows])
        original = self.images[rows]
        inside = (np.maximum(sent, original) - np.minimum(sent, original)).max((1, 2, 3)) <= self.epsilon
        hit = (loss < 0) & inside
        self.success[rows[hit]] = True
        self._found[rows[hit]] = sent[hit]
        return loss

    def result(self, rows: NDArray[np.intp], best: NDArray[np.uint8]) -> PerUser:
        """Return the outcome; ``best`` (n, H, W, 3), projected onto the ball, stands in where these rows failed."""
        failed = ~self.success[rows]
        rows, best = rows[failed], best[failed]
        self._found[rows] = project(best, self.images[rows], self.epsilon)
        return PerUser(self._found, self.success, self.queries, self.budget)


class Streams:
    """Random words for every image that depend on the image and on the seed, not on its company in the batch.

    The words are SplitMix64 (Steele, Lea and Flood 2014) of a keyed digest of the image, its target and the number
    of the query [ours]: two rows with the same pixels and target get the same words.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
    rng : numpy.random.Generator
        One word is drawn from it, whatever N.
    """

    def __init__(self, images: NDArray[np.uint8], targets: NDArray[np.int64], rng: np.random.Generator) -> None:
        seed = rng.bytes(8)
        digests = [
            hashlib.blake2b(image.tobytes() + int(target).to_bytes(8, "little"), digest_size=8, key=seed).digest()
            for image, target in zip(images, targets, strict=True)
        ]
        self._keys = np.frombuffer(b"".join(digests), np.dtype("<u8")).astype(np.uint64)

    def words(self, rows: NDArray[np.intp], turn: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
        """Return uint64 (n, count) for these rows, each at its own turn, int64 (n,)."""
        start = _mixed(self._keys[rows] + (turn.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        return _mixed(start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)

    def signs(self, rows: NDArray[np.intp], turn: NDArray[np.int64], count: int) -> NDArray[np.int16]:
        """Return fair coins −1 or +1, int16 (n, count), for these rows, each at its own turn."""
        words = self.words(rows, turn, -(-count // 64))
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=count)
        return bits.astype(np.int16) * 2 - 1

    def levels(self, rows: NDArray[np.intp], turn: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
        """Return uniform levels 0..255, uint8 (n, count), for these rows, each at its own turn."""
        return self.words(rows, turn, -(-count // 8)).view(np.uint8)[:, :count]


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's finaliser of every word; products wrap at 2⁶⁴."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


def project(sent: NDArray[Any], original: NDArray[np.uint8], epsilon: NDArray[Any] | int) -> NDArray[np.uint8]:
    """Return whole levels within ε of the original and within 0..255, uint8, shape of ``original``."""
    centre = original.astype(np.int16)
    low, high = np.maximum(centre - epsilon, 0), np.minimum(centre + epsilon, 255)
    projected: NDArray[np.uint8] = np.rint(np.clip(sent, low, high)).astype(np.uint8)
    return projected


def score_loss(scores: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return log max_{k≠c} p_k − log p_c, float64 (n,): the margin of the logits, read off probabilities.

    Below 0 only if the target's score is higher than every other: a tie, which rounding makes, is no success. A
    class not named (NaN) counts as 0; a row of NaN is an abstention, +∞.

    Raises
    ------
    ValueError
        If the scores are not floats (n, C) with C above every target.
    """
    if scores.ndim != 2 or scores.dtype.kind != "f" or (len(targets) and scores.shape[1] <= targets.max()):
        raise ValueError(
            f"Expected float scores (n, C) that cover class {targets.max() if len(targets) else 0}, got {scores.dtype} "
            f"{scores.shape}. Use hop_skip_jump for a box that gives only labels."
        )
    rows = np.arange(len(scores))
    p = np.where(np.isnan(scores), 0.0, scores).astype(np.float64)
    own = p[rows, targets]
    p[rows, targets] = 0.0
    loss: NDArray[np.float64] = np.log(np.maximum(p.max(1), _FLOOR)) - np.log(np.maximum(own, _FLOOR))
    loss[np.isnan(scores).all(1)] = np.inf
    return loss


def label_loss(labels: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return −1 where the target was named, +1 where another class was, +∞ for an abstention (−1): float64 (n,).

    Raises
    ------
    ValueError
        If the labels are not integers (n,).
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Expected integer labels (n,), got {labels.dtype} {labels.shape}. Use square or simba for a box that "
            "gives scores."
        )
    return np.where(labels == targets, -1.0, np.where(labels < 0, np.inf, 1.0))

"""SimBA towards the own class: one direction of an orthonormal basis at a time, there and back, kept when it helps."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttca.attacks.blackbox import Box, PerUser, QueryTally, Streams, project, score_loss

__all__ = ["simba"]

Places = NDArray[np.int64]


def simba(
    box: Box,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    epsilon: int,
    budget: int,
    rng: np.random.Generator,
    basis: Literal["pixel", "dct"] | int = "dct",
    step: float | None = None,
) -> PerUser:
    """Search, for every image by itself, pixels within ±ε levels that a score-giving box gives the target class.

    SimBA (Guo et al. 2019, arXiv 1905.07121) [published]: take the directions of a basis in random order, without
    replacement; ask for a step along one, and if it does not lower the loss, for a step against it. Ours: the
    published attack bounds the L2 norm, this one projects every step onto the L∞ ball and rounds it to whole levels
    before it is sent; the loss is the margin of the logits read off probabilities
    (:func:`ttca.attacks.blackbox.score_loss`); a step that would send the same pixels again is skipped, unpaid, up to
    four in a row; when all directions were taken, a new random order begins.

    Each iteration sends all images that are not done in one call. An image's result depends on its pixels, its
    target and ``rng``'s state, not on the other images.

    Parameters
    ----------
    box : callable
        uint8 images (n, H, W, 3) → probabilities, float (n, C); they may be rounded. A row of NaN is an abstention:
        it counts, and helps nothing.
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        The class each image should be given: its own true class.
    epsilon : int
        Levels of 255, 1..255.
    budget : int
        Queries per image, the initial one included.
    rng : numpy.random.Generator
    basis : {"pixel", "dct"} or int
        One color of one pixel; or one cosine of one color (DCT-II), with the lowest so many frequencies along each
        axis: half the shorter side, at least 1 [ours], unless a number says otherwise.
    step : float, optional
        The largest change of a pixel in one step, in levels, at least 1; default ε.

    Returns
    -------
    PerUser
        A success names the target strictly: a tie is none.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes disagree, or the box does not answer with scores.
    """
    tally = QueryTally(box, images, targets, epsilon=epsilon, budget=budget, reading=score_loss)
    step = float(epsilon) if step is None else step
    if not 1 <= step <= 255:
        raise ValueError(f"Expected step in 1..255 levels, got {step}. A smaller step is lost in rounding.")
    across, down = _waves(basis, *images.shape[1:3])
    streams = Streams(images, tally.targets, rng)
    rows, loss = tally.begin()
    first = rows
    outcome = np.zeros(images.shape, np.uint8)
    original, best = images[rows], images[rows]
    # The exact δ is kept beside the pixels: rounding after every step would add up.
    delta = np.zeros(best.shape, np.float32)
    directions = 3 * len(down) * len(across)
    order = _shuffled(streams, rows, np.zeros(len(rows), np.int64), directions)
    # Which half-step each image is at: 2·direction, +1 for the way back.
    half = np.zeros(len(rows), np.int64)
    while len(rows):
        moved, sent = _stepped(original, delta, order, half, down, across, step, epsilon)
        # A step can leave the pixels as they are, at the ball's or the scale's edge; its opposite then moves them.
        for _ in range(4):
            stuck = np.flatnonzero((sent == best).all((1, 2, 3)))
            if not len(stuck):
                break
            half[stuck] += 1
            _reshuffle(streams, rows, order, half)
            moved[stuck], sent[stuck] = _stepped(
                original[stuck], delta[stuck], order[stuck], half[stuck], down, across, step, epsilon
            )
        answered = tally.ask(rows, sent)
        kept = np.isfinite(answered) & (answered < loss)
        best[kept], delta[kept], loss = sent[kept], moved[kept], np.where(kept, answered, loss)
        # A step that helped makes its opposite pointless: on to the next direction.
        half = np.where(kept, half - half % 2 + 2, half + 1)
        _reshuffle(streams, rows, order, half)
        may = tally.open(rows)
        if not may.all():
            outcome[rows[~may]] = best[~may]
            rows, loss, original, best = rows[may], loss[may], original[may], best[may]
            delta, order, half = delta[may], order[may], half[may]
    return tally.result(first, outcome[first])


def _waves(basis: str | int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the factors of the basis along both axes, float32 (F, W) and (F, H), largest entry 1."""
    if basis == "pixel":
        return np.eye(width, dtype=np.float32), np.eye(height, dtype=np.float32)
    if isinstance(basis, str) and basis != "dct":
        raise ValueError(f"Expected basis 'pixel', 'dct' or a number of frequencies, got {basis!r}. Choose one.")
    count = max(1, min(height, width) // 2) if isinstance(basis, str) else basis
    if not 1 <= count <= min(height, width):
        raise ValueError(f"Expected frequencies in 1..{min(height, width)}, got {count}. An image has no others.")
    return _cosines(count, width), _cosines(count, height)


def _cosines(count: int, length: int) -> NDArray[np.float32]:
    waves = np.cos(np.pi / length * np.outer(np.arange(count), np.arange(length) + 0.5))
    scaled: NDArray[np.float32] = (waves / np.abs(waves).max(1, keepdims=True)).astype(np.float32)
    return scaled


def _shuffled(streams: Streams, rows: NDArray[np.intp], turn: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """Return a random order of the directions for each image, int32 (n, count)."""
    return np.argsort(streams.words(rows, turn, count), axis=1, kind="stable").astype(np.int32)


def _reshuffle(streams: Streams, rows: NDArray[np.intp], order: NDArray[np.int32], half: NDArray[np.int64]) -> None:
    """Begin a new order, in place, where the last direction was taken; ``half`` counts on."""
    directions = order.shape[1]
    ended = np.flatnonzero((half > 0) & (half % (2 * directions) == 0))
    if len(ended):
        order[ended] = _shuffled(streams, rows[ended], half[ended], directions)


def _stepped(
    original: NDArray[np.uint8],
    delta: NDArray[np.float32],
    order: NDArray[np.int32],
    half: NDArray[np.int64],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
    step: float,
    epsilon: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return every image's next δ inside the ball, float32, and the pixels that go with it."""
    n = len(order)
    number, colour = np.divmod(order[np.arange(n), half // 2 % order.shape[1]], 3)
    v, u = np.divmod(number, len(across))
    amplitude = np.where(half % 2 == 0, step, -step).astype(np.float32)
    moved = delta.copy()
    moved[np.arange(n), :, :, colour] += amplitude[:, None, None] * down[v][:, :, None] * across[u][:, None, :]
    moved = moved.clip(-epsilon, epsilon)
    return moved, project(original + moved, original, epsilon)

"""Square Attack towards the own class: random patches at the corners of the ball, kept when the scores improve."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ttca.attacks.blackbox import Box, PerUser, QueryTally, Streams, score_loss

__all__ = ["square"]

_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    box: Box,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    epsilon: int,
    budget: int,
    rng: np.random.Generator,
    share: float = 0.8,
    starts: NDArray[np.uint8] | None = None,
) -> PerUser:
    """Search, for every image by itself, pixels within ±ε levels that a score-giving box gives the target class.

    Square Attack, L∞, targeted (Andriushchenko et al. 2020, arXiv 1912.00049) [published]: vertical stripes of
    ±ε first, then one square patch per query, set to ±ε per color, kept if the loss does not rise. Ours: the loss
    is the margin of the logits read off probabilities (:func:`ttca.attacks.blackbox.score_loss`; the paper takes cross
    entropy when targeted), equal losses are accepted so that rounded scores can be crossed, the unchanged image is
    asked first, and a patch that would change nothing takes the opposite signs.

    The patch's share of the image starts at ``share`` and is halved after 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 %
    of the **total budget** (the paper's schedule, which is stated for 10 000 queries, stretched): the same query
    number means another patch under another budget, so results at two budgets are two attacks, not one stopped
    early.

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
    share : float
        Share of the pixels in the first patch, in (0, 1]. The default is ours: images that are answered wrongly
        often lie near the border, and large patches cross it soonest.
    starts : uint8 array, shape (N, H, W, 3), optional
        For each image one that is sent in place of the stripes, cut off at ε: what transfers from a proxy, say [ours].
        The search goes on from it where its loss is no higher than the image's own, else from the image.

    Returns
    -------
    PerUser
        A success names the target strictly: a tie is none.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes disagree, or the box does not answer with scores.

    Examples
    --------
    >>> import numpy as np
    >>> bright = lambda x: np.stack([1 - x.mean((1, 2, 3)) / 255, x.mean((1, 2, 3)) / 255], axis=1)
    >>> grey = np.full((1, 8, 8, 3), 127, np.uint8)
    >>> found = square(bright, grey, np.array([1]), epsilon=4, budget=50, rng=np.random.default_rng(0))
    >>> bool(found.success[0])
    True
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected share in (0, 1], got {share}. Give the first patch's share of the pixels.")
    tally = QueryTally(box, images, targets, epsilon=epsilon, budget=budget, reading=score_loss)
    if starts is not None and (starts.dtype != np.uint8 or starts.shape != images.shape):
        raise ValueError(
            f"Expected starts {images.shape} in uint8, got {starts.dtype} {starts.shape}. Give one for each image."
        )
    streams = Streams(images, tally.targets, rng)
    rows, loss = tally.begin()
    height, width = images.shape[1:3]
    first = rows
    low, high = _corners(images[rows], tally.epsilon)
    if starts is None:
        stripes = streams.signs(rows, tally.queries[rows], 3 * width).reshape(-1, 1, width, 3)
        sent = np.where(stripes > 0, high, low)
    else:
        sent = np.clip(starts[rows], low, high)
    best = images[rows]
    outcome = np.zeros((len(images), *images.shape[1:]), np.uint8)
    while len(rows):
        answered = tally.ask(rows, sent)
        # The stripes are the start, as published, unless nothing was said about them.
        starting = (tally.queries[rows] == 2) & (starts is None)
        kept = np.isfinite(answered) & (starting | (answered <= loss))
        best[kept], loss = sent[kept], np.where(kept, answered, loss)
        may = tally.open(rows)
        if not may.all():
            outcome[rows[~may]] = best[~may]
            rows, best, loss, low, high = rows[may], best[may], loss[may], low[may], high[may]
        if not len(rows):
            break
        turn = tally.queries[rows]
        side = _side(share, (int(turn[0]) - 2) / tally.budget, height, width)
        sent = _patched(best, low, high, side, streams.words(rows, turn, 2))
    return tally.result(first, outcome[first])


def _corners(images: NDArray[np.uint8], epsilon: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the lowest and the highest levels inside the ball, uint8, without leaving 0..255."""
    centre = images.astype(np.int16)
    return np.maximum(centre - epsilon, 0).astype(np.uint8), np.minimum(centre + epsilon, 255).astype(np.uint8)


def _side(share: float, spent: float, height: int, width: int) -> int:
    """Return the patch's side in pixels when this share of the budget is spent."""
    halvings = sum(spent > edge for edge in _HALVINGS)
    side = round(math.sqrt(share / 2**halvings * height * width))
    return min(max(side, 1), height, width)


def _patched(
    best: NDArray[np.uint8],
    low: NDArray[np.uint8],
    high: NDArray[np.uint8],
    side: int,
    words: NDArray[np.uint64],
) -> NDArray[np.uint8]:
    """Return each image with one square at a corner of the ball, by one gather and one scatter for all."""
    n, height, width, _ = best.shape
    # A remainder of 32 random bits: its bias is below one in ten million for any image.
    place = words.view(np.uint32)
    down = (place[:, 0] % np.uint32(height - side + 1)).astype(np.intp)[:, None] + np.arange(side)
    across = (place[:, 1] % np.uint32(width - side + 1)).astype(np.intp)[:, None] + np.arange(side)
    pixel = (np.arange(n)[:, None, None] * height + down[:, :, None]) * width + across[:, None, :]
    bits = ((words[:, 1, None] >> np.arange(3, dtype=np.uint64)) & np.uint64(1)).astype(np.bool_)[:, None, None]
    lowest, highest = (a.reshape(-1, 3)[pixel] for a in (low, high))
    now = best.reshape(-1, 3)[pixel]
    patch = np.where(bits, highest, lowest)
    same = (patch == now).all((1, 2, 3))
    if same.any():
        patch[same] = np.where(bits[same], lowest[same], highest[same])
    sent = best.copy()
    sent.reshape(-1, 3)[pixel] = patch
    return sent

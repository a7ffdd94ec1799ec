"""HopSkipJump towards the own class: along the border of a label-only box, nearer and nearer to the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ttca.attacks.blackbox import Box, PerUser, QueryTally, Streams, label_loss, project

__all__ = ["hop_skip_jump"]

# What the next query of an image is for.
_START, _BALL, _BISECT, _PROBE, _STEP = range(5)


def hop_skip_jump(
    box: Box,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    epsilon: int,
    budget: int,
    rng: np.random.Generator,
    starts: NDArray[np.uint8] | None = None,
    probes: int = 25,
) -> PerUser:
    """Search, for every image by itself, pixels within ±ε levels that a label-only box gives the target class.

    HopSkipJump, L∞, targeted (Chen et al. 2020, arXiv 1904.02144) [published]: from an image of the target class,
    bisect towards the original up to the border; estimate the border's direction from the labels of noisy copies
    (``probes``·√t of them in round t, their mean taken off); step along its sign by distance/√t, halved until the
    label holds; again. Ours: everything is in whole levels, so noise is a fair coin of ±a levels per value with
    a = max(1, distance/16) (the published noise would be rounded away), bisection ends at one level, and the
    projection onto the ε-ball is asked before every bisection: it alone can succeed, and bisection need not look
    below ε.

    Searching images lie **outside** the ball, as the method needs; what is returned never does. Each iteration sends
    one query for every image that is not done, in one call, whatever each of them is busy with. An image's result
    depends on its pixels, its target, its start and ``rng``'s state, not on the other images.

    Parameters
    ----------
    box : callable
        uint8 images (n, H, W, 3) → labels, integer (n,). −1 is an abstention: it counts, and helps nothing.
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        The class each image should be given: its own true class.
    epsilon : int
        Levels of 255, 1..255.
    budget : int
        Queries per image, the initial one and those of the start included.
    rng : numpy.random.Generator
    starts : uint8 array, shape (N, H, W, 3), optional
        For each image one that the box gives its target, verified by one query. Where it is not, or without
        starts, images of uniform noise are tried, each a query; a class that no noise looks like is never found.
    probes : int
        Noisy copies in the first round; the paper takes 100, the default is ours, for budgets of some hundreds.

    Returns
    -------
    PerUser
        The pixels of a failure are the border point found last, cut off at ε, or the image itself where no start
        was found.

    Raises
    ------
    ValueError
        If an argument is out of its range, shapes disagree, or the box does not answer with labels.
    """
    if probes < 1:
        raise ValueError(f"Expected at least 1 probe per round, got {probes}. The direction comes from them.")
    tally = QueryTally(box, images, targets, epsilon=epsilon, budget=budget, reading=label_loss)
    if starts is not None and (starts.dtype != np.uint8 or starts.shape != images.shape):
        raise ValueError(
            f"Expected starts {images.shape} in uint8, got {starts.dtype} {starts.shape}. Give one for each image."
        )
    streams = Streams(images, tally.targets, rng)
    rows, _ = tally.begin()
    first = rows
    outcome = images.copy()
    walk = _Walk(rows, images[rows], None if starts is None else starts[rows], tally.epsilon, probes)
    while len(walk.rows):
        sent = walk.propose(streams, tally.queries[walk.rows])
        walk.learn(sent, tally.ask(walk.rows, sent))
        may = tally.open(walk.rows)
        if not may.all():
            outcome[walk.rows[~may]] = walk.here[~may]
            walk.keep(may)
    return tally.result(first, outcome[first])


class _Walk:
    """Where every open image stands; all arrays have one row per open image."""

    def __init__(
        self,
        rows: NDArray[np.intp],
        original: NDArray[np.uint8],
        starts: NDArray[np.uint8] | None,
        epsilon: int,
        probes: int,
    ) -> None:
        n = len(rows)
        self.rows, self.original = rows, original
        self.epsilon, self.probes = epsilon, probes
        self.start = original if starts is None else starts
        # Whether the caller's start is still to be tried.
        self.given = np.full(n, starts is not None)
        self.phase = np.full(n, _START)
        # The nearest border point so far; the original itself until a start is found.
        self.here = original.copy()
        # Bisection: at radius `low` the label is lost, at `high` it holds, in levels.
        self.low, self.high = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.round, self.left = np.zeros(n, np.int64), np.zeros(n, np.int64)
        # Sums over the probes of one round: noise, noise·label, label, count.
        self.noise = np.zeros(original.shape, np.float32)
        self.slope = np.zeros(original.shape, np.float32)
        self.said, self.asked = np.zeros(n), np.zeros(n)
        self.stride = np.zeros(n, np.int64)

    def keep(self, may: NDArray[np.bool_]) -> None:
        """Drop the images that are done."""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[may])

    def propose(self, streams: Streams, turn: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the next query of every image, uint8 (n, H, W, 3)."""
        sent = self.here.copy()
        shape, size = self.here.shape[1:], int(np.prod(self.here.shape[1:]))
        i = np.flatnonzero((self.phase == _START) & self.given)
        sent[i] = self.start[i]
        i = np.flatnonzero((self.phase == _START) & ~self.given)
        if len(i):
            sent[i] = streams.levels(self.rows[i], turn[i], size).reshape(-1, *shape)
        i = np.flatnonzero(self.phase == _BALL)
        sent[i] = project(self.here[i], self.original[i], self.epsilon)
        i = np.flatnonzero(self.phase == _BISECT)
        middle = (self.low[i] + self.high[i]) // 2
        sent[i] = project(self.here[i], self.original[i], middle[:, None, None, None])
        i = np.flatnonzero(self.phase == _PROBE)
        if len(i):
            noise = streams.signs(self.rows[i], turn[i], size).reshape(-1, *shape)
            reach = np.maximum(1, self.high[i] // 16).astype(np.int16)
            sent[i] = (self.here[i] + reach[:, None, None, None] * noise).clip(0, 255).astype(np.uint8)
        i = np.flatnonzero(self.phase == _STEP)
        if len(i):
            stride = self.stride[i].astype(np.int16)[:, None, None, None] * self._direction(i)
            sent[i] = (self.here[i] + stride).clip(0, 255).astype(np.uint8)
        return sent

    def learn(self, sent: NDArray[np.uint8], loss: NDArray[np.float64]) -> None:
        """Take in the answers, and decide what the next query of every image is for."""
        named, phase = loss < 0, self.phase.copy()
        i = phase == _START
        self.given[i] = False
        # A start or a step that holds is a new point outside the ball: first its projection onto the ball is asked.
        arrived = (i | (phase == _STEP)) & named
        self.here[arrived] = sent[arrived]
        self.high[arrived] = _distance(sent[arrived], self.original[arrived])
        self.low[arrived] = self.epsilon
        self.phase[arrived] = _BALL

        halved = (phase == _STEP) & ~named
        self.stride[halved] //= 2

        i = phase == _BISECT
        middle = (self.low + self.high) // 2
        nearer = i & named
        self.here[nearer], self.high[nearer] = sent[nearer], middle[nearer]
        self.low = np.where(i & ~named, middle, self.low)
        self.phase[phase == _BALL] = _BISECT

        self._count(np.flatnonzero((phase == _PROBE) & np.isfinite(loss)), sent, named)
        self.left[phase == _PROBE] -= 1
        ready = (phase == _PROBE) & (self.left == 0)
        self.phase[ready] = _STEP
        self.stride[ready] = np.maximum(1, np.rint(self.high[ready] / np.sqrt(self.round[ready])))

        # At the border, or without a step that holds: look around (again).
        border = (self.phase == _BISECT) & (self.high - self.low <= 1)
        self._look_around(border | (halved & (self.stride == 0)))

    def _count(self, i: NDArray[np.intp], sent: NDArray[np.uint8], named: NDArray[np.bool_]) -> None:
        """Add the probes of the rows ``i`` to their sums."""
        # What was sent, not what was drawn: pixels at the scale's edge did not move.
        noise = sent[i].astype(np.float32) - self.here[i]
        label = np.where(named[i], 1.0, -1.0).astype(np.float32)
        self.noise[i] += noise
        self.slope[i] += label[:, None, None, None] * noise
        self.said[i] += label
        self.asked[i] += 1

    def _look_around(self, rows: NDArray[np.bool_]) -> None:
        self.round[rows] += 1
        self.left[rows] = np.ceil(self.probes * np.sqrt(self.round[rows])).astype(np.int64)
        self.noise[rows], self.slope[rows], self.said[rows], self.asked[rows] = 0, 0, 0, 0
        self.phase[rows] = _PROBE

    def _direction(self, i: NDArray[np.intp]) -> NDArray[np.int16]:
        """Return the sign of the estimated direction into the target class, int16 (n, H, W, 3)."""
        mean = self.said[i] / np.maximum(self.asked[i], 1)
        # With one label throughout, taking its mean off would leave nothing: then the noise itself points there.
        mean = np.where(np.abs(mean) == 1, 0.0, mean).astype(np.float32)
        return np.sign(self.slope[i] - mean[:, None, None, None] * self.noise[i]).astype(np.int16)


def _distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the L∞ distance in levels, int64 (n,)."""
    apart: NDArray[np.int64] = (np.maximum(one, other) - np.minimum(one, other)).max((1, 2, 3)).astype(np.int64)
    return apart

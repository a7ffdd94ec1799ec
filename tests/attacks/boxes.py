"""Black boxes for the tests of the per-user attacks: they write down every call, and some are hard to please."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.attacks.blackbox import PerUser

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass
class LinearBox:
    """Softmax of logits linear in the pixels, and a record of every image sent.

    ``decimals`` rounds the scores, ``silent`` is the share of answers that abstain (decided by the pixels), and
    ``scores=False`` gives labels alone.
    """

    classes: int
    shape: tuple[int, int, int]
    seed: int
    scores: bool = True
    decimals: int | None = None
    silent: float = 0.0
    calls: list[Images] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.weight = rng.normal(size=(int(np.prod(self.shape)), self.classes))

    def probabilities(self, images: Images) -> NDArray[np.float64]:
        pixels = images.reshape(len(images), -1).astype(np.float64) / 255 - 0.5
        z = pixels @ self.weight
        e = np.exp(z - z.max(1, keepdims=True))
        p: NDArray[np.float64] = e / e.sum(1, keepdims=True)
        return p

    def __call__(self, images: Images) -> NDArray[Any]:
        self.calls.append(images.copy())
        p = self.probabilities(images)
        quiet = images.reshape(len(images), -1).astype(np.int64) @ np.arange(1, images[0].size + 1) % 100
        abstains = quiet < 100 * self.silent
        if not self.scores:
            return np.where(abstains, -1, p.argmax(1))
        p = p if self.decimals is None else p.round(self.decimals)
        p[abstains] = np.nan
        return p


def noise(n: int, seed: int, shape: tuple[int, int, int] = (6, 5, 3)) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def sent_to(calls: list[Images], queries: Labels) -> list[list[Images]]:
    """Return what was sent for each image, provided that every call carries all images that are not done, in order.

    Who is in call k follows from the reported queries alone, so a call that carries anyone else fails here.
    """
    sent: list[list[Images]] = [[] for _ in queries]
    assert len(calls) == (queries.max() if len(queries) else 0)
    for k, call in enumerate(calls, start=1):
        rows = np.flatnonzero(queries >= k)
        assert len(call) == len(rows)
        for row, image in zip(rows, call, strict=True):
            sent[row].append(image)
    return sent


def distance(one: Images, other: Images) -> NDArray[np.int64]:
    """Return the L∞ distance of each image, in levels."""
    apart: NDArray[np.int64] = np.abs(one.astype(np.int64) - other).reshape(len(one), -1).max(1)
    return apart


def same(one: PerUser, other: PerUser) -> bool:
    return (
        np.array_equal(one.adversarial, other.adversarial)
        and np.array_equal(one.success, other.success)
        and np.array_equal(one.queries, other.queries)
    )

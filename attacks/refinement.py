"""Refinement: the last queries choose, on the platform itself, among the δ that several proxies believe in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Refinement", "choose_universal"]

Ask = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float64]]
"""uint8 images (n, H, W, 3) and their targets (n,) to losses, float64 (n,): NaN for no answer, lower is better."""


@dataclass(frozen=True)
class Refinement:
    """What the platform preferred.

    Parameters
    ----------
    chosen : int64 array, shape (C,)
        The candidate of every class; 0, the first, where the platform found no other better.
    losses : float64 array, shape (K, C)
        Mean loss of each candidate and class over the images it was asked about, NaN where it was not.
    queries : int
        Images sent.
    """

    chosen: NDArray[np.int64]
    losses: NDArray[np.float64]
    queries: int


def choose_universal(
    ask: Ask,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    candidates: NDArray[np.int8],
    *,
    budget: int,
    rng: np.random.Generator,
) -> Refinement:
    """Choose one candidate δ per class by successive halving on the platform, all classes at once.

    Each class is a bandit with K arms (Karnin, Koren and Somekh 2013, "Almost optimal exploration in multi-armed
    bandits", algorithm 1) [published]. Ours: the arms of a class are compared on the same images, and its budget that
    no longer pays for one image per arm is not spent.

    Parameters
    ----------
    ask : callable
        See :data:`Ask`. It is called once per halving.
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        True classes. A class without images keeps its first candidate.
    candidates : int8 array, shape (K, C, H, W, 3)
    budget : int
        Images that may be sent.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If shapes disagree or a target has no candidates.
    """
    if candidates.ndim != 5 or images.shape[1:] != candidates.shape[2:] or len(images) != len(targets):
        raise ValueError(
            f"Expected images (N, H, W, 3), N targets and candidates (K, C, H, W, 3), got {images.shape}, "
            f"{targets.shape} and {candidates.shape}."
        )
    arms, classes = candidates.shape[:2]
    if len(targets) and not 0 <= targets.min() <= targets.max() < classes:
        raise ValueError(f"Expected targets in 0..{classes - 1}, got {targets.min()}..{targets.max()}.")
    alive = [list(range(arms)) for _ in range(classes)]
    orders = [rng.permutation(np.flatnonzero(targets == c)) for c in range(classes)]
    seen = np.zeros(classes, np.int64)
    total, count = np.zeros((arms, classes)), np.zeros((arms, classes), np.int64)
    queries = 0
    halvings = math.ceil(math.log2(arms)) if arms > 1 else 0
    held = sum(len(order) > 0 for order in orders)
    for _ in range(halvings):
        rows: list[NDArray[np.intp]] = []
        arm: list[NDArray[np.int64]] = []
        for c, order in enumerate(orders):
            fresh = order[seen[c] : seen[c] + budget // (halvings * max(held, 1) * len(alive[c]))]
            seen[c] += len(fresh)
            rows.append(np.tile(fresh, len(alive[c])))
            arm.append(np.repeat(np.array(alive[c], np.int64), len(fresh)))
        row, which = np.concatenate(rows), np.concatenate(arm)
        if not len(row):
            break
        y = targets[row]
        sent = np.clip(images[row].astype(np.int16) + candidates[which, y], 0, 255).astype(np.uint8)
        losses = np.asarray(ask(sent, y), np.float64)
        queries += len(row)
        said = ~np.isnan(losses)
        np.add.at(total, (which[said], y[said]), losses[said])
        np.add.at(count, (which[said], y[said]), 1)
        mean = np.divide(total, count, out=np.full(total.shape, np.inf), where=count > 0)
        for c in range(classes):
            # A stable sort: among equals the earlier candidate stays.
            alive[c] = sorted(sorted(alive[c], key=lambda a: mean[a, c])[: math.ceil(len(alive[c]) / 2)])
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    scored = np.where(np.isnan(mean), np.inf, mean)
    chosen = np.array([min(alive[c], key=lambda a: scored[a, c]) for c in range(classes)], np.int64)
    return Refinement(chosen, mean, queries)

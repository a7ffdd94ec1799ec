"""Simulated verification: what every person would answer, in many actions at once, where the truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ttca.goals import Design

__all__ = ["Images", "Simulated", "World", "answers_of_images", "simulated"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """How many images each person brings, in the subgroup and in the reference, and how alike one person's are.

    ``alike`` is the share of the latent variance that is the person's.
    """

    subgroup: int
    reference: int
    alike: float


@dataclass(frozen=True)
class World:
    """The truth of simulated actions.

    Parameters
    ----------
    design : {"disjoint", "paired"}
        Whether the two conditions are seen by other persons or by the same.
    persons, others : int
        Who verify with δ, and as they are. Paired: the same number.
    baseline : float
        True accuracy of those as they are: the reference's, or the subgroup's before.
    success : tuple of float
        True S of each ε, the largest ε first.
    together : float
        Latent correlation of a person's answers with δ and without, in (-1, 1). Disjoint: of no meaning.
    alike : float
        Latent correlation of a person's answers at two ε, in [0, 1].
    unresolved : float
        Share of the answers that never come.
    images : Images or None
        None: one image per person.
    """

    design: Design
    persons: int
    others: int
    baseline: float
    success: tuple[float, ...]
    together: float = 0.0
    alike: float = 0.8
    unresolved: float = 0.0
    images: Images | None = None


@dataclass(frozen=True, eq=False)
class Simulated:
    """What every person would answer: who was surely right with δ, and who may have been right without.

    ``right`` has shape (levels, actions, persons), the largest ε first; ``baseline`` (actions, others).
    """

    right: Flags
    baseline: Flags


def simulated(world: World, actions: int, rng: np.random.Generator) -> Simulated:
    """Draw what the persons of many actions would answer. Of several images of a person, one is drawn.

    Notes
    -----
    *Ours*. An answer is right where a normal variable lies below the quantile of its rate.
    """
    without, with_delta = _latent(world, actions, rng)
    if world.images is not None:
        without, with_delta = _one_image(without, rng), _one_image(with_delta, rng)
    right = np.stack([level < ndtri(rate) for level, rate in zip(with_delta, world.success, strict=True)])
    baseline = without[0] < ndtri(world.baseline)
    if world.unresolved:
        # Doubt goes against the claim on both sides.
        right &= rng.random(right.shape, np.float32) >= world.unresolved
        baseline |= rng.random(baseline.shape, np.float32) < world.unresolved
    return Simulated(right, baseline)


def answers_of_images(world: World, actions: int, rng: np.random.Generator) -> Simulated:
    """Draw what all images of all persons would answer, as if each were a person: what a certificate must not do."""
    without, with_delta = _latent(world, actions, rng)
    right = np.stack([level < ndtri(rate) for level, rate in zip(with_delta, world.success, strict=True)])
    baseline = without[0] < ndtri(world.baseline)
    return Simulated(right.reshape(*right.shape[:2], -1), baseline.reshape(actions, -1))


def _latent(world: World, actions: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return normal variables without δ, (1, actions, others, ...), and with, (levels, actions, persons, ...)."""
    images = world.images
    there = (actions, world.others) if images is None else (actions, world.others, images.reference)
    here = (actions, world.persons) if images is None else (actions, world.persons, images.subgroup)
    share = 0.0 if images is None else images.alike
    without = _drawn(there, share, rng)
    if world.design == "disjoint":
        common = _drawn(here, share, rng)
    else:
        common = np.float32(world.together) * without + _root(1 - world.together**2) * _drawn(here, share, rng)
    with_delta = np.empty((len(world.success), *here), np.float32)
    for level in with_delta:
        level[...] = common
        if world.alike < 1 and len(world.success) > 1:
            level *= _root(world.alike)
            level += _root(1 - world.alike) * _drawn(here, share, rng)
    return without[None], with_delta


def _drawn(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Floats:
    own = rng.standard_normal(shape, np.float32)
    if not share:
        return own
    person = rng.standard_normal((*shape[:2], 1), np.float32)
    return np.asarray(_root(share) * person + _root(1 - share) * own, np.float32)


def _root(value: float) -> np.float32:
    return np.float32(math.sqrt(value))


def _one_image(latent: Floats, rng: np.random.Generator) -> Floats:
    """Return one image of each person, drawn at random, the same at every ε."""
    chosen = rng.integers(0, latent.shape[3], size=latent.shape[1:3])
    return np.take_along_axis(latent, chosen[None, :, :, None], axis=3)[..., 0]

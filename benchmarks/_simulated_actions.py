"""Simulated verifications with known truth: 0/1 answers that go together within a person, a cluster and a family of ε.

Every answer is a normal latent below a threshold, so any dependence leaves its rate as it is. The correlations are
those of the latents; the answers' own are smaller. The design is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError

__all__ = ["Answered", "Setting", "draw", "draws", "least_favourable", "one_image_each"]


@dataclass(frozen=True)
class Setting:
    """What is true in a simulated action, and how its answers go together.

    Parameters
    ----------
    success : tuple of float
        True S of each ε of the family, the smallest ε first, each in (0, 1).
    accuracy : float
        True accuracy A of the reference, in (0, 1).
    persons : int
        Verification persons of the subgroup.
    reference_persons : int or None
        Persons of the reference; None where they are the same persons, in the same order.
    images : int
        Images of each person.
    reference_images : int or None
        Images of each person of the reference; None: as many.
    dependence : float
        Latent correlation in [-1, 1] of the same person's two answers; no use for different persons.
    alike : float
        Latent correlation in [0, 1] of the same person's answers at two ε; 1: who is right at one S is right at any
        larger one.
    icc : float
        Latent correlation in [0, 1) of the images of a person.
    unresolved : float
        Share in [0, 1) of queries that bring no answer: wrong for S, right for A.

    Raises
    ------
    ConfigError
        If a value is outside its range.
    """

    success: tuple[float, ...]
    accuracy: float
    persons: int
    reference_persons: int | None = None
    images: int = 1
    reference_images: int | None = None
    dependence: float = 0.0
    alike: float = 1.0
    icc: float = 0.0
    unresolved: float = 0.0

    def __post_init__(self) -> None:
        rates = (*self.success, self.accuracy)
        sound = (
            len(self.success) > 0
            and all(0 < rate < 1 for rate in rates)
            and min(self.persons, self.images, 1 if self.reference_images is None else self.reference_images) >= 1
            and (self.reference_images in (None, self.images) or self.reference_persons is not None)
            and (self.reference_persons is None or (self.reference_persons >= 1 and self.dependence == 0))
            and -1 <= self.dependence <= 1
            and 0 <= self.alike <= 1
            and 0 <= self.icc < 1
            and 0 <= self.unresolved < 1
        )
        if not sound:
            raise ConfigError(
                "Expected rates in (0, 1), at least one person, as many images of the same persons, and a dependence "
                f"only for these, got {self}. Correct the setting."
            )


@dataclass(frozen=True)
class Answered:
    """What the verification of simulated actions would count.

    Parameters
    ----------
    reference : bool array, shape (actions, images of the reference)
        A of each image, unresolved counted as right. Images of a person lie side by side.
    outcomes : bool array, shape (actions, E, images)
        S of each image at each ε, unresolved counted as wrong.
    """

    reference: NDArray[np.bool_]
    outcomes: NDArray[np.bool_]


def draw(setting: Setting, actions: int, rng: np.random.Generator) -> Answered:
    """Return the answers of so many actions. Takes about eight bytes an image and action on the way."""
    ours = _latents(setting, setting.persons, setting.images, actions, rng)
    images = setting.reference_images or setting.images
    if setting.reference_persons is None:
        own = _latents(setting, setting.persons, images, actions, rng)
        theirs = setting.dependence * ours + np.float32((1 - setting.dependence**2) ** 0.5) * own
    else:
        theirs = _latents(setting, setting.reference_persons, images, actions, rng)
    bars = np.array([NormalDist().inv_cdf(rate) for rate in setting.success], dtype=np.float32)
    if setting.alike == 1 or len(bars) == 1:
        outcomes = ours[:, None, :] < bars[:, None]
    else:
        common, rest = np.float32(setting.alike**0.5) * ours, np.float32((1 - setting.alike) ** 0.5)
        levels = [common + rest * _latents(setting, setting.persons, setting.images, actions, rng) < b for b in bars]
        outcomes = np.stack(levels, axis=1)
    reference = theirs < np.float32(NormalDist().inv_cdf(setting.accuracy))
    if setting.unresolved:
        outcomes &= rng.random(outcomes.shape, dtype=np.float32) >= setting.unresolved
        reference |= rng.random(reference.shape, dtype=np.float32) < setting.unresolved
    return Answered(reference, outcomes)


def draws(setting: Setting, actions: int, rng: np.random.Generator, at_once: int = 2000) -> Iterator[Answered]:
    """Yield the answers of so many actions in parts that fit into memory."""
    for start in range(0, actions, at_once):
        yield draw(setting, min(at_once, actions - start), rng)


def one_image_each(setting: Setting, answered: Answered, rng: np.random.Generator) -> Answered:
    """Return the answers about one image of each person, drawn at random, the same at every ε."""
    if max(setting.images, setting.reference_images or 1) == 1:
        return answered

    def drawn(answers: NDArray[np.bool_], images: int) -> NDArray[np.bool_]:
        apart = answers.reshape(*answers.shape[:2], -1, images)
        chosen = rng.integers(0, images, size=(len(apart), 1, apart.shape[2], 1))
        return np.take_along_axis(apart, chosen, axis=3)[..., 0]

    reference = drawn(answered.reference[:, None], setting.reference_images or setting.images)[:, 0]
    return Answered(reference, drawn(answered.outcomes, setting.images))


def _latents(
    setting: Setting, persons: int, images: int, actions: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    each = rng.standard_normal((actions, persons, images), dtype=np.float32)
    if setting.icc:
        shared = rng.standard_normal((actions, persons, 1), dtype=np.float32)
        each = np.float32(setting.icc**0.5) * shared + np.float32((1 - setting.icc) ** 0.5) * each
    return each.reshape(actions, -1)


def least_favourable(margin: float = 0.0, *, paired: bool) -> tuple[Setting, ...]:
    """Return settings in which the null hypothesis is only just true: S is exactly A - margin at the smallest ε.

    Parameters
    ----------
    margin : float
        In [0, 0.5).
    paired : bool
        Whether the reference's answers are of the same persons.

    Returns
    -------
    tuple of Setting
        Every accuracy with every number of persons, once, over all dependences (if paired), unresolved shares and
        sizes of family in turn. In a family every S is just as low: the hardest case, since any claim is false.
    """
    found = []
    for i, accuracy in enumerate((0.5, 0.7, 0.85, 0.95)):
        for j, persons in enumerate((100, 300, 800)):
            turn = 3 * i + j
            found.append(
                Setting(
                    success=(accuracy - margin,) * (1, 3, 8)[(i + j) % 3],
                    accuracy=accuracy,
                    persons=persons,
                    reference_persons=None if paired else persons,
                    dependence=(-0.9, 0.0, 0.3, 0.6, 0.9)[turn % 5] if paired else 0.0,
                    unresolved=(0.0, 0.01, 0.03)[(2 * i + j) % 3],
                )
            )
    return tuple(found)

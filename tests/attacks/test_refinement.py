"""Tests of choosing among candidate δ on the platform itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attacks.refinement import choose_universal

SHAPE = (4, 4, 3)


@dataclass
class Judge:
    """A platform whose loss for class c is how far the mean change of the image is from ``wish[c]``, and a record."""

    images: NDArray[np.uint8]
    wish: NDArray[np.float64]
    silent: bool = False
    asked: list[int] = field(default_factory=list)
    sent: list[NDArray[np.uint8]] = field(default_factory=list)

    def __call__(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        self.asked.append(len(images))
        self.sent.append(images)
        if self.silent:
            return np.full(len(images), np.nan)
        # All originals are grey 100, so that the change can be read off the image.
        change: NDArray[np.float64] = np.abs(images.mean((1, 2, 3)) - 100 - self.wish[targets])
        return change


def task(n: int, classes: int, arms: int, seed: int) -> tuple[Any, ...]:
    """Return grey images, targets, and candidates that add a different plain level each."""
    rng = np.random.default_rng(seed)
    levels = np.stack([rng.permutation(np.arange(1, arms + 1)) for _ in range(classes)], axis=1).astype(np.int8)
    candidates = np.broadcast_to(levels[:, :, None, None, None], (arms, classes, *SHAPE)).copy()
    return np.full((n, *SHAPE), 100, np.uint8), rng.integers(0, classes, n), candidates, levels


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    classes=st.integers(1, 5),
    arms=st.integers(1, 6),
    budget=st.integers(0, 200),
)
def test_no_more_is_sent_than_the_budget_and_all_of_it_is_counted(
    seed: int, n: int, classes: int, arms: int, budget: int
) -> None:
    """Whatever the numbers, the queries are the images that arrived, at most the budget, inside 0..255."""
    images, targets, candidates, _ = task(n, classes, arms, seed)
    judge = Judge(images, np.ones(classes))
    found = choose_universal(judge, images, targets, candidates, budget=budget, rng=np.random.default_rng(seed))
    assert found.queries == sum(judge.asked) <= budget
    assert found.chosen.shape == (classes,)
    assert ((found.chosen >= 0) & (found.chosen < arms)).all()
    assert found.losses.shape == (arms, classes)


@pytest.mark.parametrize("arms", [2, 3, 4, 7])
def test_the_platforms_favourite_is_found_for_every_class(arms: int) -> None:
    """With an answer that tells the candidates apart, each class gets the one whose δ the platform wishes for."""
    images, targets, candidates, levels = task(60, 3, arms, 1)
    wish = np.array([1.0, arms, 1.0])
    found = choose_universal(Judge(images, wish), images, targets, candidates, budget=300, rng=np.random.default_rng(0))
    assert [levels[k, c] for c, k in enumerate(found.chosen)] == wish.tolist()
    assert np.nanargmin(found.losses, axis=0).tolist() == found.chosen.tolist()


def test_a_platform_that_says_nothing_changes_nothing() -> None:
    """Without answers every class keeps its first candidate, and the queries are counted all the same."""
    images, targets, candidates, _ = task(40, 2, 3, 2)
    judge = Judge(images, np.ones(2), silent=True)
    found = choose_universal(judge, images, targets, candidates, budget=60, rng=np.random.default_rng(0))
    assert found.chosen.tolist() == [0, 0]
    assert np.isnan(found.losses).all()
    assert found.queries == sum(judge.asked) > 0


def test_equal_candidates_leave_the_first() -> None:
    """Between δ that the platform does not tell apart nothing is changed."""
    images, targets, candidates, _ = task(40, 2, 4, 3)
    candidates[:] = candidates[:1]
    found = choose_universal(
        Judge(images, np.zeros(2)), images, targets, candidates, budget=100, rng=np.random.default_rng(0)
    )
    assert found.chosen.tolist() == [0, 0]


def test_a_class_without_images_keeps_its_first_and_costs_nothing() -> None:
    """A class that nobody has is not asked about, and its share is spent on the others."""
    images, _, candidates, _ = task(40, 3, 2, 4)
    targets = np.zeros(40, np.int64)
    judge = Judge(images, np.full(3, 2.0))
    found = choose_universal(judge, images, targets, candidates, budget=40, rng=np.random.default_rng(0))
    assert found.chosen[1:].tolist() == [0, 0]
    assert found.queries == 40


def test_one_candidate_needs_no_question() -> None:
    """Where there is nothing to choose between, no query is spent."""
    images, targets, candidates, _ = task(10, 2, 1, 5)
    assert choose_universal(
        Judge(images, np.ones(2)), images, targets, candidates, budget=50, rng=np.random.default_rng(0)
    ).queries == 0  # fmt: skip


@pytest.mark.parametrize(
    ("images", "targets", "sentence"),
    [
        (np.zeros((2, 5, 5, 3), np.uint8), np.zeros(2, np.int64), "Expected images"),
        (np.zeros((2, *SHAPE), np.uint8), np.zeros(3, np.int64), "Expected images"),
        (np.zeros((2, *SHAPE), np.uint8), np.array([0, 2]), "Expected targets in 0..1"),
        (np.zeros((2, *SHAPE), np.uint8), np.array([0, -1]), "Expected targets in 0..1"),
    ],
)
def test_what_does_not_fit_is_refused_unasked(images: Any, targets: Any, sentence: str) -> None:
    """Other shapes and classes without candidates are sentences, and nothing is sent."""
    judge = Judge(images, np.ones(2))
    with pytest.raises(ValueError, match=sentence):
        choose_universal(
            judge, images, targets, np.zeros((2, 2, *SHAPE), np.int8), budget=9, rng=np.random.default_rng(0)
        )
    assert not judge.asked

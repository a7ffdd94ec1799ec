"""Every per-user attack keeps the same word: inside the ball, inside the budget, and every query on the bill."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.boxes import LinearBox, distance, noise, same, sent_to
from tests.examples import examples
from ttca.attacks.blackbox import PerUser, Streams, label_loss, project, score_loss
from ttca.attacks.hopskipjump import hop_skip_jump
from ttca.attacks.simba import simba
from ttca.attacks.square import square

SHAPE = (6, 5, 3)

# Attack, whether the box it asks gives scores, and whether all it sends stays inside the ball.
ATTACKS: dict[str, tuple[Callable[..., PerUser], bool, bool]] = {
    "square": (square, True, True),
    "simba pixel": (partial(simba, basis="pixel"), True, True),
    "simba dct": (simba, True, True),
    "simba small steps": (partial(simba, step=1.0, basis=2), True, True),
    "hop_skip_jump": (hop_skip_jump, False, False),
    "hop_skip_jump few probes": (partial(hop_skip_jump, probes=2), False, False),
}

every = pytest.mark.parametrize("name", ATTACKS)
seeds = st.integers(0, 2**32 - 1)


def attack(name: str, box: Any, images: Any, targets: Any, *, seed: int = 0, **options: Any) -> PerUser:
    return ATTACKS[name][0](box, images, targets, rng=np.random.default_rng(seed), **options)


def task(
    name: str, seed: int, n: int = 5, classes: int = 3, **behaviour: Any
) -> tuple[LinearBox, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a box that answers as this attack needs it, images, and targets of which some are right from the start."""
    box = LinearBox(classes, SHAPE, seed, scores=ATTACKS[name][1], **behaviour)
    return box, noise(n, seed, SHAPE), np.random.default_rng(seed).integers(0, classes, n)


@every
@examples(25)
@given(
    seed=seeds,
    epsilon=st.integers(1, 255),
    budget=st.integers(1, 60),
    n=st.integers(1, 6),
    silent=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_whatever_happens_the_bill_is_right_and_the_ball_is_kept(
    name: str, seed: int, epsilon: int, budget: int, n: int, silent: float
) -> None:
    """The queries are the images the box counted, none beyond the budget, and no result lies outside the ball."""
    box, images, targets = task(name, seed, n, silent=silent)
    found = attack(name, box, images, targets, epsilon=epsilon, budget=budget)
    sent = sent_to(box.calls, found.queries)
    assert found.queries.max() <= budget
    assert (found.queries[~found.success] == budget).all()
    assert (distance(found.adversarial, images) <= epsilon).all()
    for row, mine in enumerate(sent):
        assert np.array_equal(mine[0], images[row])
        if ATTACKS[name][2]:
            assert (distance(np.stack(mine), images[row]) <= epsilon).all()
        if found.success[row]:
            assert np.array_equal(mine[-1], found.adversarial[row])
    named = box.probabilities(found.adversarial).argmax(1) == targets
    assert named[found.success].all()


@every
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_same_seed_gives_the_same_result_and_company_changes_nothing(name: str, seed: int) -> None:
    """An image's result is the same in any batch, in any order, and from any generator in the same state."""
    box, images, targets = task(name, seed)
    found = attack(name, box, images, targets, seed=seed, epsilon=8, budget=40)
    assert same(found, attack(name, box, images, targets, seed=seed, epsilon=8, budget=40))
    order = np.array([3, 0, 4])
    some = attack(name, box, images[order], targets[order], seed=seed, epsilon=8, budget=40)
    assert np.array_equal(some.adversarial, found.adversarial[order])
    assert np.array_equal(some.queries, found.queries[order])


@every
def test_another_seed_searches_elsewhere(name: str) -> None:
    """The generator decides where the attack looks."""
    box, images, targets = task(name, 1)
    targets = (box.probabilities(images).argmax(1) + 1) % 3
    one, other = (attack(name, box, images, targets, seed=s, epsilon=1, budget=30) for s in (1, 2))
    calls = len(box.calls) // 2
    assert not one.success.any()
    assert not other.success.any()
    assert any(not np.array_equal(a, b) for a, b in zip(box.calls[:calls], box.calls[calls:], strict=True))


@every
def test_images_answered_rightly_are_left_alone(name: str) -> None:
    """What the box already gets right costs its initial query and comes back unchanged."""
    box, images, _ = task(name, 3)
    targets = box.probabilities(images).argmax(1)
    found = attack(name, box, images, targets, epsilon=8, budget=50)
    assert found.success.all()
    assert (found.queries == 1).all()
    assert np.array_equal(found.adversarial, images)
    assert not found.attacked.any()
    assert len(box.calls) == 1


@every
def test_a_box_that_says_nothing_costs_the_budget_and_helps_nothing(name: str) -> None:
    """Abstentions are queries that failed to help; the pixels that come back are still inside the ball."""
    box, images, targets = task(name, 4, silent=1.0)
    found = attack(name, box, images, targets, epsilon=8, budget=30)
    assert not found.success.any()
    assert (found.queries == 30).all()
    assert np.array_equal(found.adversarial, images)


@every
def test_no_images_are_no_queries(name: str) -> None:
    """An empty batch asks nothing and has no mean."""
    box, images, targets = task(name, 5)
    found = attack(name, box, images[:0], targets[:0], epsilon=8, budget=30)
    assert not box.calls
    assert found.adversarial.shape == (0, *SHAPE)
    assert math.isnan(found.mean_queries)
    assert math.isnan(found.median_queries)
    assert math.isnan(found.failure_rate)


@every
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilon": 0}, "whole number of pixel levels"),
        ({"epsilon": 2.5}, "whole number of pixel levels"),
        ({"budget": 0}, "at least 1 query"),
        ({"images": np.zeros((5, *SHAPE), np.float32)}, "uint8 images"),
        ({"targets": np.zeros(4, np.int64)}, "one target"),
        ({"targets": np.full(5, -1)}, "one target"),
        ({"targets": np.zeros(5)}, "one target"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_asked(name: str, change: dict[str, Any], words: str) -> None:
    """Errors say what was expected, and cost no query."""
    box, images, targets = task(name, 6)
    given = {"images": images, "targets": targets, "epsilon": 8, "budget": 9, **change}
    with pytest.raises(ValueError, match=words):
        attack(name, box, given.pop("images"), given.pop("targets"), **given)
    assert not box.calls


@every
def test_a_box_of_the_other_kind_is_refused(name: str) -> None:
    """Scores for the label-only attack, and labels for the others, are told apart in words."""
    box, images, targets = task(name, 7)
    box.scores = not box.scores
    with pytest.raises(ValueError, match=r"Expected (float scores|integer labels).*\. Use "):
        attack(name, box, images, targets, epsilon=8, budget=9)


@every
def test_a_box_that_loses_answers_is_refused(name: str) -> None:
    """One answer too few would shift everybody's."""
    box, images, targets = task(name, 8)
    with pytest.raises(ValueError, match="one answer per image"):
        attack(name, lambda sent: box(sent)[:-1], images, targets, epsilon=8, budget=9)


def test_the_margin_is_that_of_the_logits() -> None:
    """log p_other − log p_own equals the difference of the logits, as softmax adds the same to both."""
    z = np.array([[1.0, 3.0, -2.0], [0.5, 0.0, 4.0]])
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert np.allclose(score_loss(p, np.array([0, 2])), [2.0, -3.5])


@pytest.mark.parametrize(
    ("scores", "below"),
    [
        ([0.5, 0.5], False),
        ([0.0, 0.0], False),
        ([0.5, 0.4], True),
        ([0.1, np.nan], True),
        ([np.nan, 0.1], False),
    ],
)
def test_a_success_is_strict(scores: list[float], below: bool) -> None:
    """A tie, a zero or a class not named is no success; a class not named counts as 0 against the one that is."""
    loss = score_loss(np.array([scores]), np.array([0]))
    assert np.isfinite(loss).all()
    assert (loss < 0).all() == below


def test_a_row_that_says_nothing_is_an_abstention() -> None:
    """NaN throughout and label −1 are the same to an attack: +∞, never accepted."""
    assert score_loss(np.full((1, 3), np.nan), np.array([0]))[0] == np.inf
    assert label_loss(np.array([-1, 2, 0]), np.array([2, 2, 2])).tolist() == [np.inf, -1.0, 1.0]


def test_scores_must_cover_the_targets() -> None:
    """A target beyond the box's classes is an error in words, not an index error."""
    with pytest.raises(ValueError, match="cover class 3"):
        score_loss(np.zeros((1, 3)), np.array([3]))


def test_failures_count_at_the_budget() -> None:
    """Mean and median take a failure for the budget, and the failure rate says how many these are."""
    found = PerUser(noise(4, 0), np.array([True, True, False, False]), np.array([1, 5, 20, 20]), 20)
    assert found.mean_queries == 11.5
    assert found.median_queries == 12.5
    assert found.failure_rate == 0.5
    assert found.attacked.tolist() == [False, True, True, True]


@given(seed=seeds, epsilon=st.integers(1, 255))
def test_projection_keeps_the_ball_and_the_scale(seed: int, epsilon: int) -> None:
    """Whatever is projected comes out within ε, as whole levels; what was inside stays."""
    images = noise(3, seed)
    wild = np.random.default_rng(seed).normal(scale=300, size=images.shape)
    assert (distance(project(wild, images, epsilon), images) <= epsilon).all()
    assert np.array_equal(project(images.astype(np.float64), images, epsilon), images)


def test_random_words_are_fair() -> None:
    """Coins, levels and neighbouring turns look independent and uniform, to within five standard errors."""
    images = noise(4, 0)
    streams = Streams(images, np.arange(4), np.random.default_rng(0))
    rows = np.arange(4)
    coins = streams.signs(rows, np.zeros(4, np.int64), 10_000).astype(np.float64)
    after = streams.signs(rows, np.ones(4, np.int64), 10_000)
    assert np.abs(coins.mean(1)).max() < 0.05
    assert np.abs((coins * after).mean(1)).max() < 0.05
    assert np.abs((coins[:-1] * coins[1:]).mean(1)).max() < 0.05
    levels = streams.levels(rows, np.zeros(4, np.int64), 10_000)
    assert np.abs(levels.mean(1) - 127.5).max() < 5 * 74 / 100

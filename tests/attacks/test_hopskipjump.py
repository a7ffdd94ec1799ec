"""HopSkipJump comes in from a start, along the border, into the ball, from labels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.attacks.boxes import LinearBox, distance, noise, sent_to
from ttca.attacks.blackbox import PerUser
from ttca.attacks.hopskipjump import hop_skip_jump

SHAPE = (6, 6, 3)


def run(box: Any, images: NDArray[np.uint8], targets: NDArray[np.int64], **options: Any) -> PerUser:
    defaults: dict[str, Any] = {"epsilon": 8, "budget": 400, "rng": np.random.default_rng(0)}
    return hop_skip_jump(box, images, targets, **{**defaults, **options})


def border(n: int, gap: float, seed: int = 0) -> tuple[LinearBox, NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a two-class box, images of class 0 whose border is ``gap`` levels of the best sign step away, and starts.

    The logits are linear, so the L∞ distance of an image to the border is known: margin / ‖w‖₁.
    """
    box = LinearBox(2, SHAPE, seed, scores=False)
    w = box.weight[:, 1] - box.weight[:, 0]
    images = np.random.default_rng(seed).integers(100, 156, (n, *SHAPE), dtype=np.uint8)
    # The last weight meets a constant: a pixel of one level turns into the bias that sets the distance.
    shift = (images.reshape(n, -1) / 255 - 0.5) @ w
    step = (shift + gap / 255 * np.abs(w).sum()) / np.abs(w).sum() * 255
    images = np.rint(images - step[:, None].reshape(n, 1, 1, 1) * np.sign(w).reshape(SHAPE)).astype(np.uint8)
    starts = np.where(w.reshape(SHAPE) > 0, 255, 0).astype(np.uint8)
    return box, images, np.repeat(starts[None], n, axis=0)


def test_it_finds_the_border_where_theory_says_it_is() -> None:
    """On a linear box it succeeds with ε twice the known distance and never with ε below it."""
    box, images, _ = border(6, gap=6)
    targets = np.ones(6, np.int64)
    rng = np.random.default_rng(9)
    # Starts that are right but of no help with the direction.
    starts = rng.integers(0, 256, (400, *SHAPE), dtype=np.uint8)
    starts = starts[box(starts) == 1][:6]
    box.calls.clear()
    found = run(box, images, targets, epsilon=12, starts=starts, budget=1500)
    assert found.attacked.all()
    assert found.success.mean() >= 0.8
    assert not run(box, images, targets, epsilon=4, starts=starts, budget=300).success.any()


def test_a_start_that_helps_is_used_at_once() -> None:
    """From a start whose projection is right the attack is done at the third query: image, start, projection."""
    box, images, starts = border(4, gap=4)
    found = run(box, images, np.ones(4, np.int64), starts=starts)
    assert found.queries.tolist() == [3] * 4
    assert found.success.all()
    sent = sent_to(box.calls, found.queries)
    assert all(np.array_equal(mine[1], start) for mine, start in zip(sent, starts, strict=True))


def test_a_start_of_another_class_falls_back_on_noise() -> None:
    """A start is believed only after the box was asked; then noise images are tried, each a query."""
    box, images, _ = border(3, gap=30)
    found = run(box, images, np.ones(3, np.int64), starts=images, epsilon=1, budget=20)
    sent = sent_to(box.calls, found.queries)
    assert (found.queries == 20).all()
    for mine, image in zip(sent, images, strict=True):
        assert np.array_equal(mine[1], image)
        assert distance(mine[2][None], image[None])[0] > 60


def test_a_class_that_noise_never_looks_like_costs_the_budget() -> None:
    """Without a start every query is a new noise image, and the image comes back as it was."""
    calls: list[NDArray[np.uint8]] = []

    def stubborn(sent: NDArray[np.uint8]) -> NDArray[np.int64]:
        calls.append(sent.copy())
        return np.zeros(len(sent), np.int64)

    images = noise(2, 0, SHAPE)
    found = run(stubborn, images, np.ones(2, np.int64), budget=15)
    assert not found.success.any()
    assert np.array_equal(found.adversarial, images)
    assert len({image.tobytes() for call in calls for image in call}) == 30


def test_a_failure_comes_back_as_the_border_point_cut_off_at_epsilon() -> None:
    """What is returned for a failure has moved, and only as far as ε."""
    box, images, starts = border(3, gap=30)
    found = run(box, images, np.ones(3, np.int64), starts=starts, epsilon=5, budget=60)
    assert not found.success.any()
    assert (distance(found.adversarial, images) == 5).all()


def test_bisection_ends_at_one_level_and_never_looks_inside_the_ball() -> None:
    """With the border at a known distance, the ball is asked once, and bisection closes in on the border from there."""
    original = np.full((1, *SHAPE), 100, np.uint8)
    asked: list[int] = []

    def beyond_twenty(sent: NDArray[np.uint8]) -> NDArray[np.int64]:
        asked.extend(distance(sent, original).tolist())
        return (distance(sent, original) > 20).astype(np.int64)

    white = np.full((1, *SHAPE), 255, np.uint8)
    run(beyond_twenty, original, np.ones(1, np.int64), starts=white, epsilon=4, budget=11)
    assert asked == [0, 155, 4, 79, 41, 22, 13, 17, 19, 20, 21]


def test_it_gets_nearer_with_more_queries() -> None:
    """The distance at which the box still names the target falls as the budget grows."""
    reached = []
    for budget in (15, 500):
        box, images, _ = border(4, gap=10, seed=2)
        starts = np.random.default_rng(3).integers(0, 256, (400, *SHAPE), dtype=np.uint8)
        starts = starts[box(starts) == 1][:4]
        box.calls.clear()
        found = run(box, images, np.ones(4, np.int64), epsilon=1, starts=starts, budget=budget)
        sent = sent_to(box.calls, found.queries)
        named = [np.stack(mine)[box(np.stack(mine)) == 1] for mine in sent]
        reached.append([distance(n, image).min() for n, image in zip(named, images, strict=True)])
    assert (np.array(reached[1]) < np.array(reached[0])).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probes": 0}, "at least 1 probe"),
        ({"starts": np.zeros((2, *SHAPE))}, r"Expected starts .* in uint8"),
        ({"starts": np.zeros((1, *SHAPE), np.uint8)}, r"Expected starts .* in uint8"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    """One start per image, in uint8, and at least one probe."""
    box = LinearBox(2, SHAPE, 0, scores=False)
    with pytest.raises(ValueError, match=words):
        run(box, noise(2, 0, SHAPE), np.zeros(2, np.int64), **options)
    assert not box.calls

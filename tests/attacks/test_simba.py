"""SimBA walks along the directions of a basis, there and back, and keeps only what helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.attacks.boxes import LinearBox, sent_to
from ttca.attacks.blackbox import PerUser
from ttca.attacks.simba import _waves, simba

SHAPE = (4, 5, 3)


def run(box: Any, images: NDArray[np.uint8], targets: NDArray[np.int64], **options: Any) -> PerUser:
    defaults: dict[str, Any] = {"epsilon": 4, "budget": 200, "rng": np.random.default_rng(0), "basis": "pixel"}
    return simba(box, images, targets, **{**defaults, **options})


def grey(n: int = 2) -> NDArray[np.uint8]:
    """Return images that ±4 cannot take out of range, all different."""
    return np.full((n, *SHAPE), 100, np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]


def test_every_pixel_ends_at_its_right_corner_of_a_linear_box() -> None:
    """On a linear box each value goes the way its weight points, within two queries per value."""
    box = LinearBox(2, SHAPE, 0)
    box.weight[:, 1] -= 100.0 / len(box.weight)  # out of reach, so that the search goes on to the end
    images = grey()
    own = (box.probabilities(images).argmax(1) + 1) % 2
    found = run(box, images, own, budget=1 + 2 * 60)
    towards = box.weight[np.arange(60), own[0]] - box.weight[np.arange(60), 1 - own[0]]
    assert not found.success.any()
    for image, original in zip(found.adversarial, images, strict=True):
        moved = (image.astype(int) - original).ravel()
        assert np.array_equal(moved, 4 * np.sign(towards))


def test_a_step_that_does_not_help_is_tried_the_other_way_and_then_dropped() -> None:
    """Where nothing helps, queries come in opposite pairs, one value each, and none twice before all were tried."""
    calls: list[NDArray[np.uint8]] = []

    def never(sent: NDArray[np.uint8]) -> NDArray[Any]:
        calls.append(sent.copy())
        return np.tile(np.array([0.2, 0.8]), (len(sent), 1))

    images = grey()
    run(never, images, np.zeros(2, np.int64), budget=1 + 2 * 60)
    deltas = np.stack(calls[1:]).astype(int) - images
    assert np.array_equal(deltas[0::2], -deltas[1::2])
    flat = deltas[0::2].reshape(60, 2, 60)
    assert (np.abs(flat).sum(2) == 4).all()
    for i in range(2):
        assert sorted(np.abs(flat[:, i]).argmax(1)) == list(range(60))
    assert not np.array_equal(flat[:, 0], flat[:, 1])


def test_a_second_round_takes_another_order() -> None:
    """When every direction was taken, a new random order begins, and queries go on to the budget."""
    calls: list[NDArray[np.uint8]] = []

    def never(sent: NDArray[np.uint8]) -> NDArray[Any]:
        calls.append(sent.copy())
        return np.tile(np.array([0.2, 0.8]), (len(sent), 1))

    found = run(never, grey(1), np.zeros(1, np.int64), budget=1 + 4 * 60)
    assert found.queries.tolist() == [241]
    first, second = np.stack(calls[1:121]), np.stack(calls[121:])
    assert not np.array_equal(first, second)
    assert {image.tobytes() for image in first} == {image.tobytes() for image in second}


def test_a_step_that_changes_no_pixel_is_not_paid_for() -> None:
    """At the scale's edge half of the steps change nothing: none of them is sent."""
    calls: list[NDArray[np.uint8]] = []

    def never(sent: NDArray[np.uint8]) -> NDArray[Any]:
        calls.append(sent.copy())
        return np.tile(np.array([0.2, 0.8]), (len(sent), 1))

    black = np.zeros((1, *SHAPE), np.uint8)
    run(never, black, np.zeros(1, np.int64), budget=61)
    assert all((call != black).any() for call in calls[1:])
    assert len({call.tobytes() for call in calls}) == 61


def test_a_step_that_helped_is_not_asked_the_other_way() -> None:
    """Where every step helps, each query takes a new direction: as many values moved as queries after the first."""
    calls: list[NDArray[np.uint8]] = []

    def better_and_better(sent: NDArray[np.uint8]) -> NDArray[Any]:
        calls.append(sent.copy())
        own = 0.4 * len(calls) / 100
        return np.tile(np.array([own, 1 - own]), (len(sent), 1))

    images = grey()
    run(better_and_better, images, np.zeros(2, np.int64), budget=61)
    moved = [(call != images).sum((1, 2, 3)).tolist() for call in calls]
    assert moved == [[k, k] for k in range(61)]


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_the_loss_never_rises(basis: str) -> None:
    """What is kept is better than what was kept before, so the result is the best image sent."""
    box = LinearBox(3, SHAPE, 5)
    images = np.random.default_rng(5).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    targets = box.probabilities(images).argmin(1)
    found = run(box, images, targets, basis=basis, epsilon=2, budget=60)
    for row, sent in enumerate(sent_to(box.calls, found.queries)):
        p = box.probabilities(np.stack(sent))
        others = np.delete(p, targets[row], axis=1).max(1)
        margins = np.log(others) - np.log(p[:, targets[row]])
        assert np.array_equal(sent[int(margins.argmin())], found.adversarial[row])


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_the_directions_are_orthogonal(basis: str) -> None:
    """Both bases are orthogonal along both axes and their largest entry is 1, so a step moves a pixel by `step`."""
    for waves in _waves("pixel" if basis == "pixel" else 6, 6, 9):
        products = waves @ waves.T
        assert np.allclose(products, np.diag(np.diag(products)), atol=1e-5)
        assert np.allclose(np.abs(waves).max(1), 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"basis": "haar"}, "basis 'pixel', 'dct' or a number"),
        ({"basis": 0}, r"frequencies in 1\.\.4"),
        ({"basis": 5}, r"frequencies in 1\.\.4"),
        ({"step": 0.5}, "lost in rounding"),
        ({"step": float("nan")}, "step in"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    """No option is silently ignored, and none is out of its range."""
    box = LinearBox(2, SHAPE, 0)
    with pytest.raises(ValueError, match=words):
        run(box, grey(), np.zeros(2, np.int64), **options)
    assert not box.calls

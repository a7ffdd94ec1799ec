"""Square sends corners of the ball in shrinking patches, copes with rounded scores, and beats noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.attacks.boxes import LinearBox, noise, sent_to
from ttca.attacks.square import _side, square
from ttca.proxies.architectures import create_model
from ttca.proxies.images import to_levels, to_tensor

SHAPE = (6, 5, 3)


class Digits:
    """Handwritten digits and a small model of them, as a black box; what it errs on is what there is to repair."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        levels = (data.images * 15).astype(np.uint8)
        images = np.repeat(levels[..., None], 3, axis=3)
        labels = data.target.astype(np.int64)
        self.model = create_model("perceptron", classes=10, seed=0)
        optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        x, y = to_tensor(to_levels(images[:200])), torch.from_numpy(labels[:200])
        for _ in range(60):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        self.model.eval()
        wrong = self(images[200:]).argmax(1) != labels[200:]
        self.images, self.labels = images[200:][wrong][:80], labels[200:][wrong][:80]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        p: NDArray[np.float32] = self.model(to_tensor(to_levels(images))).softmax(1).numpy()
        return p


@pytest.fixture(scope="module")
def digits() -> Digits:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Digits()
    torch.set_num_threads(before)
    return made


def test_square_repairs_more_digits_than_as_many_draws_of_noise(digits: Digits) -> None:
    """On a trained model, at the same ε and budget, the search finds more right answers than ±ε noise tried anew."""
    budget, epsilon = 200, 24
    found = square(digits, digits.images, digits.labels, epsilon=epsilon, budget=budget, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    lucky = np.zeros(len(digits.images), np.bool_)
    for _ in range(budget - 1):
        signs = rng.integers(0, 2, digits.images.shape) * 2 - 1
        sent = (digits.images + epsilon * signs).clip(0, 255).astype(np.uint8)
        lucky |= digits(sent).argmax(1) == digits.labels
    assert len(digits.images) == 80
    assert found.attacked.all()
    assert found.success.mean() > lucky.mean() + 0.2


@pytest.mark.parametrize("decimals", [1, 2, 6])
def test_rounded_scores_still_lead_somewhere(digits: Digits, decimals: int) -> None:
    """Scores rounded to one, two or six decimals leave plateaus, which equal losses cross."""
    found = square(
        lambda sent: digits(sent).round(decimals),
        digits.images,
        digits.labels,
        epsilon=24,
        budget=300,
        rng=np.random.default_rng(0),
    )
    assert found.success.mean() > 0.5
    assert (digits(found.adversarial).argmax(1) == digits.labels)[found.success].all()


def test_what_is_sent_are_stripes_and_then_corners() -> None:
    """The second query is vertical stripes; every query after the first has all values at ±ε or the scale's edge."""
    box = LinearBox(3, SHAPE, 0)
    images = noise(6, 0, SHAPE)
    targets = box.probabilities(images).argmin(1)
    found = square(box, images, targets, epsilon=2, budget=12, rng=np.random.default_rng(0))
    for original, sent in zip(images, sent_to(box.calls, found.queries), strict=True):
        low, high = np.maximum(original, 2) - 2, np.minimum(original, 253) + 2
        for image in sent[1:]:
            assert ((image == low) | (image == high)).all()
        raised = sent[1] == high
        inside = (original >= 2) & (original <= 253)
        # One sign per column and colour, wherever the scale does not cut the two corners down to others.
        for column in range(SHAPE[1]):
            for colour in range(3):
                seen = raised[:, column, colour][inside[:, column, colour]]
                assert len(set(seen.tolist())) <= 1


def test_what_transfers_is_where_the_search_begins(digits: Digits) -> None:
    """A start that is right costs two queries; pixels outside the ball are cut off; as many starts as images."""
    epsilon = 24
    plain = square(digits, digits.images, digits.labels, epsilon=epsilon, budget=400, rng=np.random.default_rng(0))
    solved = plain.success
    assert solved.sum() > 20
    again = square(
        digits, digits.images, digits.labels, epsilon=epsilon, budget=60, rng=np.random.default_rng(1),
        starts=plain.adversarial,
    )  # fmt: skip
    assert again.success[solved].all()
    assert (again.queries[solved] == 2).all()
    box = LinearBox(3, SHAPE, 0)
    images = noise(6, 0, SHAPE)
    targets = box.probabilities(images).argmin(1)
    square(
        box, images, targets, epsilon=2, budget=2, rng=np.random.default_rng(0), starts=np.zeros((6, *SHAPE), np.uint8)
    )
    np.testing.assert_array_equal(box.calls[1], np.maximum(images, 2) - 2)
    with pytest.raises(ValueError, match="Give one for each image"):
        square(box, images, targets, epsilon=2, budget=2, rng=np.random.default_rng(0), starts=images[:0])


def test_a_start_that_is_worse_than_the_image_is_left() -> None:
    """The next query is then one patch away from the image as it is, not from the start."""
    box = LinearBox(3, SHAPE, 0)
    images = noise(6, 0, SHAPE)
    targets = box.probabilities(images).argmin(1)
    away = np.sign(box.weight[:, targets] - box.weight.mean(1, keepdims=True)).T.reshape(6, *SHAPE).astype(np.int16)
    starts = (images - 2 * away).clip(0, 255).astype(np.uint8)
    square(box, images, targets, epsilon=2, budget=3, rng=np.random.default_rng(0), share=0.1, starts=starts)
    changed = (box.calls[2] != images).any(3).sum((1, 2))
    assert ((changed > 0) & (changed <= 4)).all()


def test_no_query_repeats_the_kept_image() -> None:
    """A patch that would change nothing is turned over: each query differs from the best image before it."""
    # Nothing is ever better here, so the stripes stay the best image throughout.
    calls: list[NDArray[np.uint8]] = []

    def worse_and_worse(sent: NDArray[np.uint8]) -> NDArray[Any]:
        calls.append(sent.copy())
        own = 0.4 / len(calls)
        return np.tile(np.array([own, 1 - own]), (len(sent), 1))

    images = np.full((3, *SHAPE), 100, np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
    square(worse_and_worse, images, np.zeros(3, np.int64), epsilon=4, budget=200, rng=np.random.default_rng(0))
    for later in calls[2:]:
        assert (later != calls[1]).any((1, 2, 3)).all()


def test_the_schedule_depends_on_the_budget_as_stated() -> None:
    """The patch's area is halved at the nine published shares of the budget, and never falls below one pixel."""
    spent = [0.0, 0.002, 0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.7, 0.9]
    assert [_side(1.0, s, 512, 512) for s in spent] == [round(512 / 2 ** (k / 2)) for k in range(10)]
    assert _side(0.001, 0.9, 8, 8) == 1
    assert _side(1.0, 0.0, 4, 16) == 4


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """The first patch covers some of the image and no more than all of it."""
    with pytest.raises(ValueError, match="share in"):
        square(
            LinearBox(3, SHAPE, 0),
            noise(1, 0, SHAPE),
            np.zeros(1, np.int64),
            epsilon=2,
            budget=5,
            rng=np.random.default_rng(0),
            share=share,
        )

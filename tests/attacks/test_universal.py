"""One δ per class, in whole levels inside the ball, is the one that theory names where theory can name it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tests.examples import examples
from ttca.attacks.options import Loss, Perturbing
from ttca.attacks.universal import Examples, SignDescent, Universal, random_universal
from ttca.proxies.architectures import Normalized, create_model
from ttca.proxies.images import to_levels, to_tensor

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

seeds = st.integers(0, 2**32 - 1)
epsilons = st.integers(1, 127)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny tensors on one thread: they are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linear(nn.Module):
    """Logits linear in the pixels, weights at least 0.5 apart from zero, so that every sign is known."""

    def __init__(self, classes: int, shape: tuple[int, int, int], seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        w = rng.uniform(0.5, 1.5, (classes, *shape)) * rng.choice([-1, 1], (classes, *shape))
        self.weight = nn.Parameter(torch.from_numpy(w.astype(np.float32)))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,khwc->nk", x, self.weight) + self.bias

    def towards(self, own: int, other: int) -> NDArray[np.float32]:
        """Return the direction (H, W, 3) in which own gains on other."""
        difference: NDArray[np.float32] = (self.weight[own] - self.weight[other]).detach().numpy()
        return difference


def grey(n: int, seed: int, shape: tuple[int, int, int] = (8, 8, 3)) -> Images:
    """Return images that ±127 cannot take out of range."""
    return np.random.default_rng(seed).integers(127, 129, (n, *shape), dtype=np.uint8)


def noise(n: int, seed: int, shape: tuple[int, int, int] = (8, 8, 3)) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def success(model: nn.Module, images: Images, delta: NDArray[np.int8], targets: Labels, groups: Labels) -> float:
    """Return the share of images that the model gives their target, perturbed as a member would: in uint8."""
    sent = (images.astype(np.int16) + delta[groups]).clip(0, 255).astype(np.uint8)
    with torch.no_grad():
        said = model(to_tensor(to_levels(sent))).argmax(1).numpy()
    return float((said == targets).mean())


def learn(
    model: Any,
    images: Images,
    targets: Labels,
    groups: Labels | None = None,
    *,
    epsilon: int = 8,
    group_count: int = 3,
    selection: tuple[Images, Labels, Labels | None] | None = None,
    initial: NDArray[np.int8] | None = None,
    progress: Any = None,
    **options: Any,
) -> Universal:
    """Learn δ in a few steps without translations, unless the options say otherwise."""
    return SignDescent(Perturbing(**{"steps": 20, "shift": 0, **options})).learn(
        model,
        Examples(images, targets, groups),
        epsilon=epsilon,
        groups=group_count,
        selection=None if selection is None else Examples(*selection),
        initial=initial,
        progress=progress,
    )


# --- what a δ is -------------------------------------------------------------------------------------------


@examples(40)
@given(seeds, epsilons, st.integers(1, 6), st.integers(1, 6), st.sampled_from(get_args(Loss)), st.booleans())
def test_the_budget_is_kept_in_whole_levels(seed: int, epsilon: int, h: int, w: int, loss: str, warm: bool) -> None:
    """Any ε and shape give int8 (G, H, W, 3) with ‖δ‖∞ ≤ ε, from zero or from a start outside the ball."""
    targets = np.random.default_rng(seed).integers(0, 3, 7)
    initial = random_universal(groups=3, image_shape=(h, w, 3), epsilon=127, rng=np.random.default_rng(seed))
    found = learn(
        Linear(3, (h, w, 3), seed),
        noise(7, seed, (h, w, 3)),
        targets,
        epsilon=epsilon,
        loss=loss,
        kappa=1e3,
        steps=6,
        step_size=200.0,
        shift=1,
        initial=initial if warm else None,
    )
    assert found.delta.dtype == np.int8
    assert found.delta.shape == (3, h, w, 3)
    assert np.abs(found.delta.astype(np.int16)).max() <= epsilon
    # Where no step did better than the start, the start is what is kept.
    assert found.delta.any() or (found.best_step == 0 and not warm)


@examples(25)
@given(seeds, epsilons, st.sampled_from(["margin", "cross-entropy"]))
def test_a_linear_model_gets_its_closed_form(seed: int, epsilon: int, loss: str) -> None:
    """Between two classes of a linear model, δ is ε times the sign of the weights' difference, pixel by pixel."""
    model, targets = Linear(2, (8, 8, 3), seed), np.arange(6) % 2
    with torch.no_grad():
        # Gentle slopes, so that cross-entropy does not saturate into a gradient of zero.
        model.weight.mul_(1e-2)
    found = learn(
        model, grey(6, seed), targets, epsilon=epsilon, group_count=2, loss=loss, kappa=1e4, steps=30, batch_size=6
    )
    expected = np.stack([np.sign(model.towards(0, 1)), np.sign(model.towards(1, 0))]) * epsilon
    np.testing.assert_array_equal(found.delta, expected)


@settings(deadline=None, max_examples=10)
@given(seeds, epsilons)
def test_the_logit_loss_raises_the_own_logit_whatever_the_others_do(seed: int, epsilon: int) -> None:
    """On a linear model δ is ε times the sign of the own class's weights, of images that win and of those that lose."""
    model, targets = Linear(3, (8, 8, 3), seed), np.arange(6) % 3
    with torch.no_grad():
        model.bias[0] = 10.0
    found = learn(model, grey(6, seed), targets, epsilon=epsilon, loss="logit", steps=30, batch_size=6)
    expected = np.sign(model.weight.detach().numpy()) * epsilon
    np.testing.assert_array_equal(found.delta, expected)


class Louder(nn.Module):
    """A model with the same pattern added to all of its logits, which says no more and no less about classes."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], seed: int) -> None:
        super().__init__()
        self.model = model
        pattern = np.random.default_rng(seed).normal(0, 50, shape).astype(np.float32)
        self.pattern = nn.Parameter(torch.from_numpy(pattern))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.model(x)
        return said + torch.einsum("nchw,hwc->n", x, self.pattern)[:, None]


@settings(deadline=None, max_examples=15)
@given(seeds, epsilons)
def test_what_all_logits_share_does_not_move_a_centered_one(seed: int, epsilon: int) -> None:
    """δ is ε times the sign of how the own class's weights differ from the mean, whatever is added to all logits."""
    model, targets = Linear(3, (8, 8, 3), seed), np.arange(6) % 3
    with torch.no_grad():
        # Apart from one another, so that nearly every sign is known.
        weights = torch.randint(1, 8, model.weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.75
        model.weight.copy_(weights * model.weight.sign() + torch.arange(3)[:, None, None, None] * 0.25 + 0.01)
        apart = (model.weight - model.weight.mean(0)).numpy()
    loud = Louder(model, (8, 8, 3), seed)
    found, told = (
        learn(m, grey(6, seed), targets, epsilon=epsilon, loss="centered-logit", steps=30, batch_size=6)
        for m in (model, loud)
    )
    clear = np.abs(apart) > 1e-2
    np.testing.assert_array_equal(found.delta[clear], (np.sign(apart) * epsilon)[clear])
    np.testing.assert_array_equal(told.delta[clear], found.delta[clear])
    # The published loss spends δ on what is added.
    raw = learn(loud, grey(6, seed), targets, epsilon=epsilon, loss="logit", steps=30, batch_size=6)
    assert (raw.delta[clear] != found.delta[clear]).any()


@examples(25)
@given(seeds, st.integers(2, 40))
def test_a_model_sure_of_another_class_is_turned(seed: int, epsilon: int) -> None:
    """Success rises from none to all where the closed form says that ε is enough, and stays none where it is not."""
    model, images, targets = Linear(2, (8, 8, 3), seed), grey(8, seed), np.ones(8, np.int64)
    reach = float(np.abs(model.towards(1, 0)).sum()) / 255
    with torch.no_grad():
        margins = model(to_tensor(to_levels(images)))
        margins = margins[:, 1] - margins[:, 0]
        # Hardest and easiest image both lie between what ε − 1 and ε levels can move.
        model.bias[0] = float(margins.mean()) + (epsilon - 0.5) * reach
    assert float(margins.max() - margins.min()) < 0.5 * reach
    options: dict[str, Any] = {"group_count": 2, "kappa": 1e4, "steps": 30}
    enough = learn(model, images, targets, epsilon=epsilon, **options)
    short = learn(model, images, targets, epsilon=epsilon - 1, **options)
    assert success(model, images, np.zeros_like(enough.delta), targets, targets) == 0.0
    assert (enough.success, short.success) == (1.0, 0.0)


def test_a_class_without_images_keeps_its_start() -> None:
    """A δ that no image asks for stays zero, or what it was given clipped to ε, while the others move."""
    model, targets = Linear(3, (8, 8, 3), 0), np.array([0, 2, 0, 2])
    assert not learn(model, noise(4, 0), targets, kappa=1e3).delta[1].any()
    initial = np.full((3, 8, 8, 3), 100, np.int8)
    started = learn(model, noise(4, 0), targets, initial=initial, kappa=1e3).delta
    assert (started[1] == 8).all()
    assert (started[0] != 8).any()


def test_a_start_is_where_the_descent_begins() -> None:
    """With steps too small to cross half a level, the start comes back, and the caller's array is untouched."""
    initial = np.random.default_rng(0).integers(-8, 9, (3, 8, 8, 3), dtype=np.int8)
    before = initial.copy()
    found = learn(Linear(3, (8, 8, 3), 0), noise(6, 0), np.arange(6) % 3, initial=initial, step_size=0.01, steps=5)
    np.testing.assert_array_equal(found.delta, before)
    np.testing.assert_array_equal(initial, before)


def test_one_group_learns_one_delta_for_all_classes() -> None:
    """Groups of zeros give a single δ, towards the class of the majority of the images."""
    model, targets = Linear(2, (8, 8, 3), 0), np.array([1, 1, 1, 0])
    found = learn(model, grey(4, 0), targets, groups=np.zeros(4, np.int64), group_count=1, kappa=1e4, steps=30)
    np.testing.assert_array_equal(found.delta, (8 * np.sign(model.towards(1, 0)))[None])


def test_groups_decide_which_delta_an_image_gets() -> None:
    """Images of one class in two groups give each group the δ that it would have got alone."""
    model, images, targets = Linear(3, (8, 8, 3), 0), noise(6, 0), np.arange(6) % 3
    groups = np.array([0, 0, 0, 1, 1, 1])
    both = learn(model, images, targets, groups=groups, group_count=2, kappa=1e4, check_every=20)
    for g in (0, 1):
        rows = groups == g
        alone = learn(model, images[rows], targets[rows], groups=groups[:3], group_count=1, kappa=1e4, check_every=20)
        np.testing.assert_array_equal(both.delta[g], alone.delta[0])


# --- what the model sees -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 255])
def test_the_model_sees_only_images_that_could_be_sent(level: int) -> None:
    """At the border of the range too, every value the model sees is a whole level in 0..255."""
    model, seen = Linear(3, (8, 8, 3), 0), []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach() * 255)
        return model(x)  # type: ignore[no-any-return]

    learn(watched, np.full((6, 8, 8, 3), level, np.uint8), np.arange(6) % 3, epsilon=20, kappa=1e3, step_size=3.3)
    values = torch.cat([s.flatten() for s in seen])
    assert float(values.min()) >= 0
    assert float(values.max()) <= 255
    assert float((values - values.round()).abs().max()) < 1e-3
    assert len(set(values.round().tolist())) > 5


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_images_get_their_closed_form(level: int) -> None:
    """Pixels at the border of the range move by ε where that helps, and stay where they could only be clipped."""
    model, targets = Linear(2, (8, 8, 3), 0), np.zeros(4, np.int64)
    found = learn(model, np.full((4, 8, 8, 3), level, np.uint8), targets, group_count=2, kappa=1e4, steps=30)
    towards = np.sign(model.towards(0, 1)) * 8
    expected = towards.clip(0, None) if level == 0 else towards.clip(None, 0)
    np.testing.assert_array_equal(found.delta[0], expected)


def test_success_is_that_of_the_images_sent() -> None:
    """The success reported is the model's own on uint8 images with the δ handed back, on whom it was looked at."""
    model = create_model("perceptron", classes=3, seed=0).eval()
    images, targets = noise(40, 0), np.arange(40) % 3
    found = learn(model, images[:20], targets[:20], epsilon=3)
    assert found.success == success(model, images[:20], found.delta, targets[:20], targets[:20])
    selection = (images[20:], targets[20:], None)
    chosen = learn(model, images[:20], targets[:20], epsilon=3, selection=selection)
    assert chosen.success == success(model, images[20:], chosen.delta, targets[20:], targets[20:])
    assert found.success != chosen.success


def test_translations_are_drawn_within_the_bound() -> None:
    """With shift 1 the learning batches are rolled by −1, 0 and 1 pixels both ways, and the looks are not."""
    image = np.zeros((1, 5, 5, 3), np.uint8)
    image[0, 2, 2] = 200
    seen: set[tuple[int, int]] = set()

    def watched(x: torch.Tensor) -> torch.Tensor:
        y, x_ = divmod(int(x.detach()[0, 0].argmax()), 5)
        if torch.is_grad_enabled():
            seen.add((y, x_))
        else:
            assert (y, x_) == (2, 2)
        return x.mean((2, 3))

    learn(watched, image, np.zeros(1, np.int64), epsilon=1, shift=1, steps=100)
    assert seen == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_people_are_mirrored_and_delta_is_not() -> None:
    """With flip the learning images come both ways round under one δ, and the looks see them as they are."""
    image = np.full((1, 4, 6, 3), 100, np.uint8)
    image[0, 2, 1] = 200
    start = np.zeros((1, 4, 6, 3), np.int8)
    start[0, 0, 5] = 100
    seen: set[tuple[bool, bool]] = set()

    def watched(x: torch.Tensor) -> torch.Tensor:
        levels = x.detach()[0, 0] * 255
        # Whom it shows, and where δ still is.
        if torch.is_grad_enabled():
            seen.add((bool(levels[2, 4] > levels[2, 1]), bool(levels[0, 5] > levels[0, 0])))
        else:
            assert levels[2, 1] > levels[2, 4]
        return x.mean((2, 3)) * 0

    learn(watched, image, np.zeros(1, np.int64), epsilon=100, initial=start, group_count=1, flip=True, steps=30)
    assert seen == {(False, True), (True, True)}


def test_the_model_is_left_as_it_was() -> None:
    """A module in training mode keeps its mode, its statistics and its learnable parameters, and gets no gradient."""
    model = create_model("small-cnn", classes=3, seed=0).train()
    assert isinstance(model, Normalized)
    model.body.get_submodule("0").eval()
    frozen = next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    learn(model, noise(6, 0), np.arange(6) % 3, steps=2)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [p is not frozen for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_model_is_frozen_meanwhile_and_freed_after_an_error() -> None:
    """While δ is learned no parameter takes part in the graph, and an error puts everything back."""

    class Broken(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert not self.weight.requires_grad
            if torch.is_grad_enabled():
                raise RuntimeError("broken")
            return super().forward(x)

    model = Broken(3, (8, 8, 3), 0)
    with pytest.raises(RuntimeError, match="broken"):
        learn(model, noise(6, 0), np.arange(6) % 3)
    assert model.training
    assert model.weight.requires_grad


# --- the descent -------------------------------------------------------------------------------------------


def test_perturbations_help_a_network() -> None:
    """On a network that is right by chance, δ per class brings the share of right answers to nearly all."""
    model = create_model("perceptron", classes=4, seed=0).eval()
    images, targets = noise(24, 0), np.arange(24) % 4
    found = learn(model, images, targets, epsilon=40, group_count=4, steps=30, shift=1)
    assert success(model, images, np.zeros_like(found.delta), targets, targets) < 0.5
    assert found.success > 0.9
    random = random_universal(groups=4, image_shape=(8, 8, 3), epsilon=40, rng=np.random.default_rng(0))
    assert success(model, images, random, targets, targets) < 0.5


def test_a_hundred_classes_are_learned_at_once() -> None:
    """With a batch smaller than the classes every δ still moves, and nearly every image gets its class."""
    model, targets = Linear(100, (8, 8, 3), 0), np.arange(200) % 100
    found = learn(model, grey(200, 0), targets, group_count=100, epsilon=60, batch_size=64, steps=60, kappa=1e3)
    assert found.delta.shape == (100, 8, 8, 3)
    assert found.delta.any((1, 2, 3)).all()
    assert found.success > 0.9


def test_the_size_of_a_group_does_not_matter() -> None:
    """A class with one image moves as far as a class with twenty."""
    model, targets = Linear(2, (8, 8, 3), 0), np.array([0] * 20 + [1])
    found = learn(model, grey(21, 0), targets, group_count=2, kappa=1e4, steps=30)
    assert (np.abs(found.delta) == 8).all()


def test_selection_keeps_the_best() -> None:
    """When learning only hurts selection people, the δ kept is the one before the first step."""
    model, images = Linear(2, (8, 8, 3), 0), grey(6, 0)
    zeros = np.zeros(6, np.int64)
    selection = (images, zeros + 1, zeros)
    options: dict[str, Any] = {"groups": zeros, "group_count": 1, "kappa": 1e4, "steps": 30}
    contrary = learn(model, images, zeros, selection=selection, **options)
    assert contrary.best_step == 0
    assert not contrary.delta.any()
    agreeing = learn(model, images, zeros, selection=(images, zeros, zeros), **options)
    assert agreeing.best_step > 0
    np.testing.assert_array_equal(agreeing.delta, learn(model, images, zeros, **options).delta)


def test_the_last_step_is_looked_at_even_between_checks() -> None:
    """Fewer steps than the distance between checks still count, and progress hears of every look."""
    heard: list[tuple[int, int, float]] = []
    model, targets = Linear(3, (8, 8, 3), 0), np.arange(6) % 3
    found = learn(model, noise(6, 0), targets, steps=7, check_every=5, kappa=1e4, progress=lambda *a: heard.append(a))
    assert [(s, n) for s, n, _ in heard] == [(5, 7), (7, 7)]
    assert found.best_step in (5, 7)
    assert learn(model, noise(6, 0), targets, steps=3, check_every=10, kappa=1e4).best_step == 3


def test_an_image_that_wins_by_kappa_pulls_no_more() -> None:
    """Where every image already wins by κ there is nothing to learn, and with a larger κ there is."""
    model, images = Linear(2, (8, 8, 3), 0), grey(4, 0)
    with torch.no_grad():
        model.bias[0] = 1e3
    targets = np.zeros(4, np.int64)
    assert not learn(model, images, targets, group_count=2, kappa=10.0).delta.any()
    assert learn(model, images, targets, group_count=2, kappa=1e4).delta.any()


def test_the_seed_decides_delta() -> None:
    """The same seed gives the same δ, whatever the global generator does; another seed gives another one."""
    model = create_model("perceptron", classes=3, seed=0).eval()
    images, targets = noise(30, 0), np.arange(30) % 3
    options: dict[str, Any] = {"batch_size": 8, "shift": 1, "steps": 15, "kappa": 1e3}
    before = torch.get_rng_state()
    first = learn(model, images, targets, **options).delta
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    np.testing.assert_array_equal(first, learn(model, images, targets, **options).delta)
    assert (first != learn(model, images, targets, seed=1, **options).delta).any()


def test_the_same_seed_holds_with_several_threads() -> None:
    """The images' gradients are added in one order, although here their sum depends on the order."""
    torch.set_num_threads(2)
    images = grey(128, 0, (32, 32, 3))
    # Huge values that cancel swallow whatever was added between them: the sign depends on the order.
    slopes = (
        np.random.default_rng(0).choice([-1.0, 1.0], (128, 3, 32, 32)) * np.repeat([1e9, 1.0], 64)[:, None, None, None]
    )
    slopes[:64] = np.abs(slopes[:64]) * np.resize([1, -1], 64)[:, None, None, None]
    scale = torch.from_numpy(np.random.default_rng(1).permuted(slopes, axis=0).astype(np.float32))

    def cancelling(x: torch.Tensor) -> torch.Tensor:
        own = (x * scale).sum((1, 2, 3))
        if not torch.is_grad_enabled():
            # The variance grows as soon as δ moves, so that the last δ is the one kept.
            own = x.var((1, 2, 3))
        return torch.stack([own, torch.zeros_like(own)], 1)

    targets = np.zeros(128, np.int64)
    options: dict[str, Any] = {"group_count": 1, "kappa": np.inf, "steps": 1, "batch_size": 128, "epsilon": 100}
    found = [learn(cancelling, images, targets, **options).delta for _ in range(8)]
    assert found[0].any()
    assert all(np.array_equal(f, found[0]) for f in found[1:])


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0, 128, 2.5, -1, float("nan"), float("inf")])
def test_a_budget_that_is_not_whole_levels_is_refused(epsilon: Any) -> None:
    """ε must be a whole number of levels in 1..127, for learning and for noise."""
    with pytest.raises(ValueError, match=r"Expected ε as a whole number of pixel levels in 1\.\.127, got"):
        learn(Linear(3, (8, 8, 3), 0), noise(3, 0), np.arange(3), epsilon=epsilon)
    with pytest.raises(ValueError, match=r"Expected ε as a whole number of pixel levels in 1\.\.127, got"):
        random_universal(groups=1, image_shape=(2, 2, 3), epsilon=epsilon, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": np.arange(2)}, "got 3 images, 2 targets and 2 groups"),
        ({"images": noise(0, 0), "targets": np.arange(0)}, "got 0 images, 0 targets and 0 groups"),
        ({"groups": np.zeros(2, np.int64)}, "got 3 images, 3 targets and 2 groups"),
        ({"targets": np.array([-1, 0, 1])}, r"Expected groups in 0\.\.2 and targets of at least 0"),
        ({"groups": np.array([0, -1, 1])}, r"Expected groups in 0\.\.2"),
        ({"group_count": 2}, r"Expected groups in 0\.\.1 .*got groups 0\.\.2"),
        ({"selection": (noise(0, 0), np.arange(0), None)}, "got 0 images"),
        ({"selection": (noise(2, 0), np.arange(3), None)}, "got 2 images, 3 targets"),
        ({"selection": (noise(2, 0, (1, 1, 3)), np.arange(2), None)}, "Expected selection images of"),
        ({"initial": np.zeros((1, 8, 8, 3), np.int8)}, r"Expected initial \(3, 8, 8, 3\), got \(1, 8, 8, 3\)"),
        ({"loss": "hinge"}, "Expected loss to be one of margin, cross-entropy, logit, centered-logit, got 'hinge'"),
        ({"precision": "half"}, "Expected precision to be one of float32, bfloat16, auto, got 'half'"),
        ({"transforms": ("jpg",)}, "Expected each transform to be one of resize, blur, jpeg, got 'jpg'"),
        ({"steps": 0}, "Expected steps as a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "Expected steps as a whole number of at least 1, got 2.5"),
        ({"batch_size": 0}, "Expected batch_size as a whole number of at least 1"),
        ({"check_every": True}, "Expected check_every as a whole number of at least 1, got True"),
        ({"shift": -1}, "Expected shift as a whole number of at least 0"),
        ({"images": noise(3, 0).astype(np.float32)}, r"Expected uint8 images"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    """Mismatched arrays, groups that do not exist and options without a meaning are errors, never broadcasts."""
    arguments: dict[str, Any] = {"images": noise(3, 0), "targets": np.arange(3), **options}
    with pytest.raises(ValueError, match=message):
        learn(Linear(3, (8, 8, 3), 0), **arguments)


def test_an_attack_prints_its_options() -> None:
    """What an attack was told can be read from it, equal options make equal attacks, and arrays print in one line."""
    attack = SignDescent(Perturbing(steps=7, loss="cross-entropy"))
    assert "steps=7" in repr(attack)
    assert "loss='cross-entropy'" in repr(attack)
    assert attack == SignDescent(Perturbing(steps=7, loss="cross-entropy"))
    found = Universal(np.zeros((2, 8, 8, 3), np.int8), 0.5, 3)
    assert repr(found) == "Universal(2 δ of (8, 8, 3), success 0.500)"
    assert repr(Examples(noise(3, 0), np.arange(3))) == "Examples(3 images of (8, 8, 3))"


# --- the noise control -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seeds, epsilons, st.integers(1, 4))
def test_noise_is_exactly_the_budget(seed: int, epsilon: int, groups: int) -> None:
    """Every value of the noise is +ε or −ε, the same for the same seed."""
    made = [
        random_universal(groups=groups, image_shape=(8, 7, 3), epsilon=epsilon, rng=np.random.default_rng(seed))
        for _ in range(2)
    ]
    assert made[0].dtype == np.int8
    assert made[0].shape == (groups, 8, 7, 3)
    assert set(made[0].flatten().tolist()) == {-epsilon, epsilon}
    np.testing.assert_array_equal(made[0], made[1])


def test_noise_is_a_fair_coin_thrown_anew() -> None:
    """Signs are even over many values, and differ between groups and between draws of one generator."""
    rng = np.random.default_rng(0)
    first, second = (random_universal(groups=2, image_shape=(32, 32, 3), epsilon=5, rng=rng) for _ in range(2))
    assert abs(float((first > 0).mean()) - 0.5) < 0.03
    assert (first != second).any()
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize("loss", get_args(Loss))
def test_delta_does_not_depend_on_how_many_images_fit_at_once(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs go through the network part by part, flipped and moved as they would be together."""
    model, images, targets = Linear(3, (8, 8, 3), 0), noise(23, 1), np.arange(23) % 3

    def found() -> NDArray[np.int8]:
        return learn(model, images, targets, loss=loss, kappa=1e3, steps=12, batch_size=16, shift=2, flip=True).delta

    together = found()
    monkeypatch.setattr("ttca.attacks.universal.fitting", lambda *side, most=512: 5)
    np.testing.assert_array_equal(found(), together)

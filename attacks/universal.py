"""Universal perturbations: one δ per class, in whole pixel levels, learned for all classes at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from proxies.images import to_levels

__all__ = ["Universal", "learn_universal", "random_universal"]

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Universal:
    """What was learned.

    Parameters
    ----------
    delta : int8 array, shape (G, H, W, 3)
        One δ per group, ‖δ‖∞ ≤ ε levels of 255.
    success : float
        Share of selection images (or of the learning images where there are none) on which the *model* says
        the target under the integer δ. Never a claim about the platform.
    best_step : int
        The step whose δ was kept.
    """

    delta: NDArray[np.int8]
    success: float
    best_step: int


def random_universal(
    *, groups: int, image_shape: tuple[int, int, int], epsilon: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Return random noise of the same ε, ±ε with a fair coin per value: int8 (G, H, W, 3), the noise control."""
    signs = rng.integers(0, 2, size=(groups, *image_shape), dtype=np.int8) * 2 - 1
    return (signs * epsilon).astype(np.int8)


def learn_universal(
    model: Model,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    epsilon: int,
    groups: NDArray[np.int64] | None = None,
    group_count: int,
    seed: int,
    selection: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64] | None] | None = None,
    initial: NDArray[np.int8] | None = None,
    loss: Literal["margin", "cross-entropy"] = "margin",
    kappa: float = 4.0,
    steps: int = 200,
    step_size: float | None = None,
    momentum: float = 0.9,
    batch_size: int = 256,
    shift: int = 1,
    check_every: int = 10,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> Universal:
    """Minimise the mean loss of every group over its images, inside ‖δ‖∞ ≤ ε.

    The objective is our reading of arXiv 2605.27689; the optimiser is sign descent with momentum on mean
    gradients (Dong et al. 2018, arXiv 1710.06081) [published], over rounded δ with a straight-through gradient so
    that what is optimised is what is sent [ours].

    Parameters
    ----------
    model : callable
        float32 (N, 3, H, W) in [0, 1] → logits (N, C). Its parameters take no gradient here.
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        The class each image should be given: its own true class.
    epsilon : int
        Levels of 255, 1..127.
    groups : int64 array, shape (N,), optional
        Which δ an image gets; default its target (one δ per class). All zeros learn one class-agnostic δ.
    group_count : int
        G, the number of δ. A group without images keeps δ = 0 (or its initial value).
    seed : int
    selection : (images, targets, groups or None), optional
        Selection people; the δ with the lowest loss on them is kept.
    initial : int8 array, shape (G, H, W, 3), optional
        Start here (clipped to ε) instead of at zero.
    loss : {"margin", "cross-entropy"}
        ``margin`` is max(max_{k≠c} z_k − z_c, −κ): an image that already wins by κ pulls no more.
    step_size : float, optional
        First step in levels; default ε/4. It falls to zero along a cosine.
    momentum : float
        Decay of the accumulated, per-group normalised gradient.
    shift : int
        Random translation of the perturbed batch by up to this many pixels, for transfer.
    check_every : int
        Steps between looks at the selection people.

    Raises
    ------
    ValueError
        If ε is not a whole number in 1..127 or shapes disagree.
    """
    if int(epsilon) != epsilon or not 1 <= epsilon <= 127:
        raise ValueError(f"Expected ε as a whole number of pixel levels in 1..127, got {epsilon}.")
    if len(images) != len(targets) or not len(images):
        raise ValueError(f"Expected one target per image, got {len(images)} images and {len(targets)} targets.")
    group_of = targets if groups is None else groups
    generator = torch.Generator().manual_seed(seed)
    levels = to_levels(images, device)
    y = torch.from_numpy(np.asarray(targets, np.int64)).to(device)
    g = torch.from_numpy(np.asarray(group_of, np.int64)).to(device)
    shape = (group_count, 3, *levels.shape[2:])
    delta = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    if initial is not None:
        delta.copy_(torch.from_numpy(initial.astype(np.float32)).permute(0, 3, 1, 2).clamp(-epsilon, epsilon))
    velocity = torch.zeros_like(delta)
    first = epsilon / 4 if step_size is None else step_size

    if selection is None:
        look = (levels, y, g)
    else:
        chosen = selection[1] if selection[2] is None else selection[2]
        look = (
            to_levels(selection[0], device),
            torch.from_numpy(np.asarray(selection[1], np.int64)).to(device),
            torch.from_numpy(np.asarray(chosen, np.int64)).to(device),
        )
    kept, kept_step = delta.round(), 0
    kept_loss, kept_success = _look(model, kept, *look, loss=loss, kappa=kappa)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if len(order) < min(batch_size, len(y)):
            order = torch.randperm(len(y), generator=generator)
        rows, order = order[:batch_size].to(device), order[batch_size:]
        with torch.enable_grad():
            leaf = delta.detach().requires_grad_()
            # Straight through: the forward pass sees whole levels, the gradient ignores the rounding.
            whole = leaf + (leaf.detach().round() - leaf.detach())
            x = (levels[rows].float() + whole[g[rows]]).clamp(0, 255) / 255
            if shift:
                dy, dx = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
                x = torch.roll(x, (dy, dx), (2, 3))
            losses = _loss(model(x), y[rows], loss, kappa)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        # A mean over each group's images: dividing by its largest entry makes the groups' sizes irrelevant.
        scale = gradient.abs().amax((1, 2, 3), keepdim=True)
        velocity = momentum * velocity + gradient / scale.clamp(min=1e-12)
        rate = first * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        delta = (delta - rate * velocity.sign()).clamp(-epsilon, epsilon)
        if step % check_every == 0 or step == steps:
            value, success = _look(model, delta.round(), *look, loss=loss, kappa=kappa)
            if value < kept_loss:
                kept, kept_step, kept_loss, kept_success = delta.round(), step, value, success
            if progress:
                progress(step, steps, success)
    whole_levels = kept.permute(0, 2, 3, 1).to(torch.int8).cpu().numpy()
    return Universal(np.ascontiguousarray(whole_levels), kept_success, kept_step)


def _loss(logits: torch.Tensor, targets: torch.Tensor, kind: str, kappa: float) -> torch.Tensor:
    """Return one loss per image, shape (N,)."""
    logits = logits.float()
    if kind == "cross-entropy":
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    own = logits.gather(1, targets[:, None])[:, 0]
    best_other = logits.scatter(1, targets[:, None], -math.inf).amax(1)
    return (best_other - own).clamp(min=-kappa)


@torch.no_grad()
def _look(
    model: Model,
    delta: torch.Tensor,
    levels: torch.Tensor,
    y: torch.Tensor,
    g: torch.Tensor,
    *,
    loss: str,
    kappa: float,
    batch_size: int = 512,
) -> tuple[float, float]:
    """Return mean loss and success of integer δ on the images as they would be sent."""
    total, hits = 0.0, 0
    for i in range(0, len(y), batch_size):
        rows = slice(i, i + batch_size)
        logits = model((levels[rows].float() + delta[g[rows]]).clamp(0, 255) / 255)
        total += float(_loss(logits, y[rows], loss, kappa).sum())
        hits += int((logits.argmax(1) == y[rows]).sum())
    return total / len(y), hits / len(y)

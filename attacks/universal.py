"""Universal perturbations: one δ per class, in whole pixel levels, learned for all classes at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ttca.attacks.options import Perturbing
from ttca.attacks.transforms import transformed
from ttca.proxies.images import fitting, to_levels
from ttca.proxies.runtime import autocast_for, fixed_threads

__all__ = ["Attack", "Examples", "SignDescent", "Universal", "random_universal"]

Model = Callable[[torch.Tensor], torch.Tensor]
OnStep = Callable[[int, int, float], None]
Looked = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

#: Of levels 0 to 255.
_MIDDLE = 127.5


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Images to learn δ on, or to choose among δ with.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    targets : int64 array, shape (N,)
        The class each image should be given: its own true class.
    groups : int64 array, shape (N,), optional
        Which δ an image gets; default its target (one δ per class). All zeros learn one class-agnostic δ.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Examples({len(self)} images of {self.images.shape[1:]})"


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        return f"Universal({len(self.delta)} δ of {self.delta.shape[1:]}, success {self.success:.3f})"


def random_universal(
    *, groups: int, image_shape: tuple[int, int, int], epsilon: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Return random noise of the same ε, ±ε with a fair coin per value: int8 (G, H, W, 3), the noise control.

    Raises
    ------
    ValueError
        If ε is not a whole number in 1..127.
    """
    _check_epsilon(epsilon)
    signs = rng.integers(0, 2, size=(groups, *image_shape), dtype=np.int8) * 2 - 1
    return (signs * epsilon).astype(np.int8)


class Attack(Protocol):
    """What learns δ: the door for attacks of guests, given to :class:`ttca.CollectiveAction`.

    Whatever it returns is checked and clipped to ε by whoever asked for it. Its ``repr`` must say its options, as that
    of a dataclass does: kept δ are read again for an attack that prints the same.
    """

    def learn(
        self,
        model: Model,
        examples: Examples,
        *,
        epsilon: int,
        groups: int,
        selection: Examples | None = None,
        initial: NDArray[np.int8] | None = None,
        device: str = "cpu",
        progress: OnStep | None = None,
    ) -> Universal:
        """Learn one δ per group over its images, inside ‖δ‖∞ ≤ ε.

        Parameters
        ----------
        model : callable
            float32 (N, 3, H, W) in [0, 1] → logits (N, C).
        examples : Examples
        epsilon : int
            Levels of 255, 1..127.
        groups : int
            G, the number of δ.
        selection : Examples, optional
            Selection people, to choose among several δ.
        initial : int8 array, shape (G, H, W, 3), optional
            Where to start, for example δ of a smaller ε.
        device : str
        progress : callable(step, steps, success), optional
        """
        ...


@dataclass(frozen=True)
class SignDescent:
    """Sign descent with momentum on mean gradients, over rounded δ: ttca's own attack.

    Parameters
    ----------
    options : Perturbing
    """

    options: Perturbing = field(default_factory=Perturbing)

    def learn(
        self,
        model: Model,
        examples: Examples,
        *,
        epsilon: int,
        groups: int,
        selection: Examples | None = None,
        initial: NDArray[np.int8] | None = None,
        device: str = "cpu",
        progress: OnStep | None = None,
    ) -> Universal:
        """Minimise the mean loss of every group over its images, inside ‖δ‖∞ ≤ ε.

        The objective is our reading of arXiv 2605.27689; the optimizer is sign descent with momentum on mean
        gradients (Dong et al. 2018, arXiv 1710.06081) [published], over rounded δ whose gradient ignores the rounding,
        so that what is optimized is what is sent [ours].

        Parameters
        ----------
        model : callable
            float32 (N, 3, H, W) in [0, 1] → logits (N, C). A module is frozen and in evaluation mode meanwhile; both
            are put back.
        examples : Examples
        epsilon : int
            Levels of 255, 1..127.
        groups : int
            G, the number of δ. A group without images keeps δ = 0 (or its initial value).
        selection : Examples, optional
            Selection people; the δ with the lowest loss on them is kept.
        initial : int8 array, shape (G, H, W, 3), optional
            Start here (clipped to ε) instead of at zero.
        device : str
        progress : callable(step, steps, success), optional

        Raises
        ------
        ValueError
            If ε is not a whole number in 1..127, shapes disagree, or a group is not in 0..G−1.
        """
        _check_epsilon(epsilon)
        shape = examples.images.shape[1:]
        learned = _ready(examples, groups, device)
        look = learned if selection is None else _ready(selection, groups, device)
        if initial is not None and initial.shape != (groups, *shape):
            # Broadcasting would start every group at one δ without a word.
            raise ValueError(f"Expected initial {(groups, *shape)}, got {initial.shape}.")
        if look[0].shape[1:] != learned[0].shape[1:]:
            raise ValueError(f"Expected selection images of {shape}, got {tuple(look[0].shape[1:])} (CHW).")
        start = _start(initial, (groups, 3, *learned[0].shape[2:]), epsilon, device)
        with _frozen(model), fixed_threads(self.options.threads), autocast_for(self.options.precision, device):
            return _descend(model, learned, look, self.options, epsilon=epsilon, delta=start, progress=progress)


def _descend(
    model: Model,
    learned: Looked,
    look: Looked,
    options: Perturbing,
    *,
    epsilon: int,
    delta: torch.Tensor,
    progress: OnStep | None,
) -> Universal:
    """Run the descent from ``delta`` and keep what did best on ``look``."""
    o = options
    generator = torch.Generator().manual_seed(o.seed)
    levels, y, g = learned
    velocity = torch.zeros_like(delta)
    first = epsilon / 4 if o.step_size is None else o.step_size
    kept, kept_step = delta.round(), 0
    kept_loss, kept_success = _look(model, kept, look, o)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, o.steps + 1):
        if len(order) < min(o.batch_size, len(y)):
            order = torch.randperm(len(y), generator=generator)
        rows, order = order[: o.batch_size].to(y.device), order[o.batch_size :]
        per_image = _gradients(model, (levels[rows], y[rows], g[rows]), delta, o, generator)
        # A product with the membership matrix: scattered addition would race, and the same seed drift apart.
        member = nn.functional.one_hot(g[rows], len(delta)).to(per_image.dtype)
        gradient = (member.T @ per_image.flatten(1)).view(delta.shape)
        # A mean over each group's images: dividing by its largest entry makes the groups' sizes irrelevant.
        scale = gradient.abs().amax((1, 2, 3), keepdim=True)
        velocity = o.momentum * velocity + gradient / scale.clamp(min=1e-12)
        rate = first * 0.5 * (1 + math.cos(math.pi * (step - 1) / o.steps))
        delta = (delta - rate * velocity.sign()).clamp(-epsilon, epsilon)
        if step % o.check_every == 0 or step == o.steps:
            value, success = _look(model, delta.round(), look, o)
            if value < kept_loss:
                kept, kept_step, kept_loss, kept_success = delta.round(), step, value, success
            if progress:
                progress(step, o.steps, success)
    whole_levels = kept.permute(0, 2, 3, 1).to(torch.int8).cpu().numpy()
    return Universal(np.ascontiguousarray(whole_levels), kept_success, kept_step)


def _gradients(
    model: Model, batch: Looked, delta: torch.Tensor, options: Perturbing, generator: torch.Generator
) -> torch.Tensor:
    """Return each image's gradient at the pixels it would be sent with, randomly moved as the options say."""
    levels, y, g = batch
    seen = levels.float()
    if options.flip:
        mirrored = (torch.rand(len(seen), generator=generator) < 0.5).to(seen.device)
        seen = torch.where(mirrored[:, None, None, None], seen.flip(3), seen)
    wished = seen + delta.round()[g]
    moved: tuple[int, ...] = (0, 0)
    if options.shift:
        moved = tuple(torch.randint(-options.shift, options.shift + 1, (2,), generator=generator).tolist())
    found: list[torch.Tensor] = []
    # Part by part: no image's gradient depends on another, and a network's layers of many photographs fill memory.
    size = fitting(*wished.shape[2:])
    for part, targets in zip(torch.split(wished, size), torch.split(y, size), strict=True):
        with torch.enable_grad():
            # Whole levels go forward; the gradient is taken at them and moves the δ that was rounded.
            pixels = part.clamp(0, 255).requires_grad_()
            x = torch.roll(pixels / 255, moved, (2, 3)) if any(moved) else pixels / 255
            x = transformed(x, options.transforms, generator)
            losses = _loss(model(x), targets, options)
            found += torch.autograd.grad(losses.sum(), pixels)
    # One part is not copied.
    per_image = torch.cat(found) if len(found) > 1 else found[0]
    # The slope of clipping towards descent. Versions of torch differ in clamp's gradient at the border, and where it is
    # 0 a black or white pixel would never move. Levels are whole: half a level on tells who is inside or moves there.
    after = torch.sub(wished - _MIDDLE, per_image.sign(), alpha=0.5)
    return per_image.masked_fill(after.abs_() >= _MIDDLE, 0.0)


def _check_epsilon(epsilon: int) -> None:
    if not 1 <= epsilon <= 127 or int(epsilon) != epsilon:
        raise ValueError(f"Expected ε as a whole number of pixel levels in 1..127, got {epsilon}.")


def _ready(examples: Examples, count: int, device: str) -> Looked:
    """Return levels, targets and groups on the device, checked: torch would take group −1 for the last one."""
    images, targets = examples.images, examples.targets
    groups = targets if examples.groups is None else examples.groups
    if not len(images) or not len(images) == len(targets) == len(groups):
        raise ValueError(
            f"Expected one target and one group per image, got {len(images)} images, {len(targets)} targets and "
            f"{len(groups)} groups."
        )
    if groups.min() < 0 or groups.max() >= count or targets.min() < 0:
        raise ValueError(
            f"Expected groups in 0..{count - 1} and targets of at least 0, got groups {groups.min()}.."
            f"{groups.max()} and targets from {targets.min()}."
        )
    y, g = (torch.from_numpy(np.array(a, np.int64)).to(device) for a in (targets, groups))
    return to_levels(images, device), y, g


def _start(initial: NDArray[np.int8] | None, shape: tuple[int, ...], epsilon: int, device: str) -> torch.Tensor:
    """Return the first δ, float32 (G, 3, H, W) in channels-last memory."""
    if initial is None:
        delta = torch.zeros(shape)
    else:
        delta = torch.from_numpy(initial.astype(np.float32)).permute(0, 3, 1, 2).clamp(-epsilon, epsilon)
    return delta.to(device).contiguous(memory_format=torch.channels_last)


@contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """Keep a module in evaluation mode and its parameters out of the graph, and put both back."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [m for m in model.modules() if m.training]
    learning = [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for m in training:
            m.training = True
        for p in learning:
            p.requires_grad_()


def _loss(logits: torch.Tensor, targets: torch.Tensor, options: Perturbing) -> torch.Tensor:
    """Return one loss per image, shape (N,)."""
    logits = logits.float()
    if options.loss == "cross-entropy":
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    own = logits.gather(1, targets[:, None])[:, 0]
    if options.loss == "logit":
        return -own
    if options.loss == "centered-logit":
        return logits.mean(1) - own
    best_other = logits.scatter(1, targets[:, None], -math.inf).amax(1)
    return (best_other - own).clamp(min=-options.kappa)


@torch.no_grad()
def _look(model: Model, delta: torch.Tensor, look: Looked, options: Perturbing) -> tuple[float, float]:
    """Return mean loss and success of integer δ on the images as they would be sent."""
    levels, y, g = look
    batch_size = fitting(*levels.shape[2:])
    total, hits = 0.0, 0
    for i in range(0, len(y), batch_size):
        rows = slice(i, i + batch_size)
        logits = model((levels[rows].float() + delta[g[rows]]).clamp(0, 255) / 255)
        total += float(_loss(logits, y[rows], options).sum())
        hits += int((logits.argmax(1) == y[rows]).sum())
    return total / len(y), hits / len(y)

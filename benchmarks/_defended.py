"""Platforms that defend themselves: what one may do to images, to its own training and to its answers."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ttca.answers import Answers
from ttca.data.cameras import bad_camera, soft_focus
from ttca.demo.world import CAMERA, DIGITS, SHARE_IN_TRAINING, SIZE, DigitsWorld
from ttca.errors import ConfigError
from ttca.images import Images
from ttca.lossy import jpeg
from ttca.platforms.base import Credential, Platform, PlatformInfo
from ttca.platforms.local import LocalPlatform, Model
from ttca.proxies.distillation import Proxy
from ttca.proxies.images import to_levels, to_tensor

__all__ = [
    "DEFENCES",
    "Abstaining",
    "Defence",
    "ResizeAndPad",
    "asked",
    "defended",
    "fewer_levels",
    "retrained_reader",
    "through_cameras",
    "train_reader",
]

Change = Callable[[Images], Images]
_EPOCHS, _BATCH, _RATE, _DECAY = 30, 64, 2e-3, 5e-2
#: Steps of projected gradient descent in adversarial training.
_INNER = 5


@dataclass(frozen=True)
class Defence:
    """One thing a platform could do.

    Parameters
    ----------
    kind : {"input", "answers", "training", "fix"}
        What it touches. ``fix`` removes the reason for the action instead of the action's means.
    says : str
        What it is, for people.
    change : callable, optional
        A seed to what happens to uint8 images before the model sees them.
    abstain : float, optional
        The platform names labels alone, and refuses where its highest score is below this.
    training : dict
        Options of :func:`retrained_reader`; empty where the model stays.
    transforms : tuple of str
        What a collective that knows of the defence learns δ through: the nearest changes that the toolkit has, which
        need not be the defence's own.
    """

    kind: str
    says: str
    change: Callable[[int], Change] | None = None
    abstain: float | None = None
    training: Mapping[str, Any] | None = None
    transforms: tuple[str, ...] = ()


# -- what happens to images ---------------------------------------------------------------------------------------


def fewer_levels(images: Images, *, bits: int) -> Images:
    """Return images, uint8 (N, H, W, 3), with 2**bits levels per colour: *published* (Xu et al. 2018, 1704.01155)."""
    steps = 2**bits - 1
    table = np.rint(np.rint(np.arange(256) / 255 * steps) / steps * 255).astype(np.uint8)
    changed: Images = table[images]
    return changed


class ResizeAndPad:
    """Shrink every image by a factor of its own, and put it somewhere in a frame of the old size.

    Random resizing and padding is *published* (Xie et al. 2018, arXiv 1711.01991). *Ours*: the model's size is fixed,
    so that images shrink instead of growing; the frame repeats the image's edge; and what is drawn depends on the seed,
    the image and how often it came, so that the same history gives the same answers.

    Parameters
    ----------
    seed : int
    least : float
        The smallest side, as a share of the old one.
    """

    def __init__(self, seed: int, *, least: float = 0.8) -> None:
        self._seed, self._least = seed, least
        self._lock = threading.Lock()
        self._came: Counter[bytes] = Counter()

    def __call__(self, images: Images) -> Images:
        """Return uint8 images (N, H, W, 3), resized and padded."""
        out = np.empty_like(images)
        for image, result in zip(images, out, strict=True):
            result[:] = self._one(image, self._generator(image))
        return out

    def _generator(self, image: Images) -> np.random.Generator:
        what = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        with self._lock:
            times = self._came[what]
            self._came[what] += 1
        return np.random.default_rng([self._seed, times, *np.frombuffer(what, np.uint32).tolist()])

    def _one(self, image: Images, rng: np.random.Generator) -> Images:
        height, width, _ = image.shape
        share = rng.uniform(self._least, 1.0)
        high, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        small = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR))
        return np.pad(small, ((top, height - high - top), (left, width - wide - left), (0, 0)), mode="edge")


# -- platforms ----------------------------------------------------------------------------------------------------


def asked(platform: Platform, images: Images) -> Answers:
    """Return what a platform says about any number of images, in requests as large as it takes; nobody pays."""
    step = platform.info.max_batch
    who = Credential("benchmark")
    parts = [
        platform.attempt(images[i : i + step], who, request_id=f"benchmark-{i}") for i in range(0, len(images), step)
    ]
    return Answers.concatenate(parts, classes=len(platform.info.classes))


class Abstaining(LocalPlatform):
    """A platform that names labels alone, and refuses ("not sure") where its highest score is below a confidence."""

    def __init__(self, model: Model, *, confidence: float, **behaviour: Any) -> None:
        if not 0 <= confidence <= 1:
            raise ConfigError(f"Expected a confidence in [0, 1], got {confidence}. Give a share, not a percentage.")
        super().__init__(model, **behaviour)
        self._confidence = confidence
        known = super().info
        identity = {**known.identity, "abstains": json.dumps(confidence)}
        self._says = replace(known, identity=identity, gives_scores=False)

    @property
    def info(self) -> PlatformInfo:
        """Who this platform is."""
        return self._says

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer once with labels, −1 where it is not sure enough."""
        sure = super().attempt(images, credential, request_id=request_id)
        labels = np.where(sure.scores.max(axis=1, initial=0.0) >= self._confidence, sure.labels, -1)
        return Answers.from_labels(labels, sure.classes)


def defended(platform: Platform, name: str, defence: Defence, *, seed: int) -> LocalPlatform:
    """Return a platform that stands before another one and does what a defence says to images and answers.

    Parameters
    ----------
    platform : Platform
        It must give scores.
    name : str
        The defence's, which becomes part of who the platform is.
    defence : Defence
    seed : int
        Of what the defence draws.

    Raises
    ------
    ConfigError
        If the platform gives labels alone.
    """
    known = platform.info
    if not known.gives_scores:
        raise ConfigError(
            "Expected a platform that gives scores, got one that gives only labels. Defend a platform with scores."
        )
    change = defence.change(seed) if defence.change else None

    def model(images: Images) -> NDArray[np.floating]:
        return asked(platform, images if change is None else change(images)).scores

    behaviour: dict[str, Any] = {
        "classes": known.classes,
        "image_shape": known.image_shape,
        "name": f"{known.name}-{name}",
        "version": f"{known.fingerprint[:16]}-{seed}",
        "max_batch": known.max_batch,
    }
    if defence.abstain is not None:
        return Abstaining(model, confidence=defence.abstain, **behaviour)
    return LocalPlatform(model, **behaviour)


# -- training -----------------------------------------------------------------------------------------------------


def through_cameras(world: DigitsWorld, share: float) -> Images:
    """Return the platform's training images of digits, this share of them through the subgroup's bad camera.

    Their number stays: what is added of one group is taken from the other.
    """
    few = round(SHARE_IN_TRAINING * len(world.training_images))
    many = max(round(share * len(world.training_images)), few)
    images = world.training_images.copy()
    # The first few came through it already, and nobody sees twice through the same camera.
    images[few:many] = bad_camera(images[few:many], seed=0, **CAMERA)
    return images


def train_reader(
    images: Images,
    classes: NDArray[np.int64],
    *,
    seed: int,
    noise: float = 0.0,
    adversarial: float = 0.0,
    epochs: int = _EPOCHS,
) -> nn.Module:
    """Train the demo's perceptron once more: its recipe, with what a platform may add to it.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    classes : int64 array, shape (N,)
    seed : int
    noise : float
        Standard deviation, in levels, of Gaussian noise on every training image: *published* (Bishop 1995).
    adversarial : float
        ε, in levels, of projected gradient descent against every batch: *published* (Madry et al. 2018, arXiv
        1706.06083); five steps from a random start.
    epochs : int

    Returns
    -------
    nn.Module
        float32 (N, 3, H, W) in [0, 1] to logits (N, C), in evaluation mode.
    """
    model = Proxy(["perceptron"], classes=len(DIGITS), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    levels, truth = to_levels(images), torch.from_numpy(classes)
    steps = epochs * -(-len(images) // _BATCH)
    warm = max(1, steps // 10)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, steps - warm))),
    )
    model.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(images), generator=generator), _BATCH):
            x, y = _moved(to_tensor(levels[rows]), generator), truth[rows]
            if noise:
                x = (x + noise / 255 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
            if adversarial:
                x = _worst(model, x, y, adversarial / 255, generator)
            loss = nn.functional.cross_entropy(model(x), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def _moved(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return each image moved by up to one pixel, its edge repeated, as the demo's platform learned."""
    n, _, height, width = x.shape
    down, across = torch.randint(0, 3, (2, n), generator=generator)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    item = torch.arange(n)[:, None, None]
    rows = (torch.arange(height)[None] + down[:, None])[:, :, None]
    columns = (torch.arange(width)[None] + across[:, None])[:, None, :]
    return padded[item, :, rows, columns].permute(0, 3, 1, 2)


def _worst(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, epsilon: float, generator: torch.Generator
) -> torch.Tensor:
    moved = x + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)
    for _ in range(_INNER):
        moved = moved.clamp(0, 1).detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(moved), y)
        (slope,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + 2.5 * epsilon / _INNER * slope.sign()
        moved = x + (moved - x).clamp(-epsilon, epsilon)
    return moved.clamp(0, 1).detach()


def retrained_reader(
    world: DigitsWorld, name: str, *, seed: int, share: float = SHARE_IN_TRAINING, **options: Any
) -> LocalPlatform:
    """Return the demo's platform, trained anew on its people.

    Parameters
    ----------
    world : DigitsWorld
    name : str
        Part of who it is.
    seed : int
    share : float
        Of training images that came through the subgroup's camera.
    **options
        Of :func:`train_reader`.
    """
    model = train_reader(through_cameras(world, share), world.training_classes, seed=seed, **options).double()
    # As the demo's own: in single precision an answer's last bits depend on its company.
    model.register_forward_pre_hook(lambda _model, images: (images[0].double(),))
    return LocalPlatform.from_module(model, classes=DIGITS, image_shape=(SIZE, SIZE, 3), name=f"digits-{name}")


def _always(change: Change) -> Callable[[int], Change]:
    return lambda _seed: change


def _bits(bits: int) -> Callable[[int], Change]:
    return _always(lambda images: fewer_levels(images, bits=bits))


def _jpeg(quality: int) -> Callable[[int], Change]:
    return _always(lambda images: jpeg(images, quality=quality))


#: Every defence by its name. The first is none.
DEFENCES: Mapping[str, Defence] = {
    "none": Defence("none", "as it is"),
    "jpeg75": Defence("input", "JPEG, quality 75", change=_jpeg(75), transforms=("jpeg",)),
    "jpeg50": Defence("input", "JPEG, quality 50", change=_jpeg(50), transforms=("jpeg",)),
    "bits4": Defence("input", "16 levels per colour (4 bits)", change=_bits(4)),
    "bits3": Defence("input", "8 levels per colour (3 bits)", change=_bits(3)),
    "blur": Defence(
        "input", "Gaussian blur, σ 1 pixel", change=_always(lambda x: soft_focus(x, 1.0)), transforms=("blur",)
    ),
    "pad": Defence("input", "random resize and pad", change=ResizeAndPad, transforms=("resize",)),
    "abstain50": Defence("answers", "labels alone, refuses below a score of .5", abstain=0.5),
    "abstain70": Defence("answers", "labels alone, refuses below a score of .7", abstain=0.7),
    "retrained": Defence("training", "trained again, another seed", training={}),
    "noise": Defence("training", "trained on noise of 16 levels", training={"noise": 16.0}),
    "adversarial": Defence("training", "trained adversarially, ε 8", training={"adversarial": 8.0}),
    "longer": Defence("training", "trained ten times as long", training={"epochs": 10 * _EPOCHS}),
    "fix20": Defence("fix", "20 % of its training pictures from the subgroup", training={"share": 0.2}),
    "fix50": Defence("fix", "50 % of its training pictures from the subgroup", training={"share": 0.5}),
    "fix50-longer": Defence(
        "fix", "50 % from the subgroup, ten times as long", training={"share": 0.5, "epochs": 10 * _EPOCHS}
    ),
}


def compared_with(name: str) -> str | None:
    """Return what a defence is compared with: a training of the same seed without it, or the platform as it is."""
    if name == "none":
        return None
    return "retrained" if DEFENCES[name].training else "none"

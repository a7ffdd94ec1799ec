"""Architectures: small CNNs, the CIFAR ResNets, any timm model, and a user's own; normalization lives inside."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from ttca.proxies.registry import Architecture, Factory, architecture_name, find_model

__all__ = ["Normalized", "create_model", "seeded"]

#: torch's initializers draw from one generator for the whole process: two threads must not draw in turn.
_SEEDING = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's layers draw from this seed meanwhile, in one thread at a time; its generator is left as it was."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        # The only way to seed torch's layer initializers; fork_rng puts the global state back.
        torch.default_generator.manual_seed(seed)
        yield


class Normalized(nn.Module):
    """A model with its normalization inside: it takes float32 NCHW in [0, 1] and returns logits (N, C)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, body: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body((images - self.mean) / self.std)
        return logits


def _conv(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


def _small_cnn(classes: int, width: int = 32) -> nn.Module:
    """Return six 3×3 convolutions in three stages and a linear layer over the pooled map."""
    return nn.Sequential(
        _conv(3, width),
        _conv(width, width),
        _conv(width, 2 * width, stride=2),
        _conv(2 * width, 2 * width),
        _conv(2 * width, 4 * width, stride=2),
        _conv(4 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def _perceptron(classes: int, hidden: int = 64) -> nn.Module:
    """Return one hidden layer over the image averaged to 8×8: for small pictures of simple things."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 8, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions with a parameter-free shortcut (option A)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width_out, stride)
        self.second = nn.Sequential(
            nn.Conv2d(width_out, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out)
        )
        self.stride = stride
        self.pad = width_out - width_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.pad:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        return nn.functional.relu(self.second(self.first(x)) + shortcut)


def _cifar_resnet(classes: int, depth: int) -> nn.Module:
    """Return the CIFAR ResNet of He et al. 2016 (arXiv 1512.03385, section 4.2), 6n+2 layers [published]."""
    blocks = (depth - 2) // 6
    layers: list[nn.Module] = [_conv(3, 16)]
    width = 16
    for stage, out in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers.append(_BasicBlock(width, out, stride=2 if stage and not block else 1))
            width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def _small_resnet(classes: int, *, stem: int = 1, widths: tuple[int, ...] = (32, 64, 128, 256)) -> nn.Module:
    """Return one residual block per width: few wide layers, which a processor likes better than many narrow ones.

    A ``stem`` of stride 2 makes images of 48 pixels a side and more four times cheaper.
    """
    layers: list[nn.Module] = [_conv(3, widths[0], stem)]
    before = widths[0]
    for stage, width in enumerate(widths):
        layers.append(_BasicBlock(before, width, stride=2 if stage else 1))
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def _inverted_residual(width_in: int, width_out: int, stride: int, expansion: int = 4) -> nn.Sequential:
    """Widen, filter each channel alone, narrow again (Sandler et al. 2018, arXiv 1801.04381) [published]."""
    wide = expansion * width_in
    return nn.Sequential(
        nn.Conv2d(width_in, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU6(inplace=True),
        nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU6(inplace=True),
        nn.Conv2d(wide, width_out, 1, bias=False),
        nn.BatchNorm2d(width_out),
    )


class _Shortcut(nn.Module):
    """Add what a part returns to what it was given."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = x + self.part(x)
        return added


def _small_mobilenet(classes: int, widths: tuple[int, ...] = (24, 48, 96)) -> nn.Module:
    """Return two inverted residuals per width behind a convolution of stride 2: MobileNetV2 for small images [ours]."""
    layers: list[nn.Module] = [_conv(3, widths[0], 2)]
    before = widths[0]
    for stage, width in enumerate(widths):
        layers.append(_inverted_residual(before, width, stride=2 if stage else 1))
        layers.append(_Shortcut(_inverted_residual(width, width, stride=1)))
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def _ours(build: Callable[..., nn.Module], **fixed: Any) -> Factory:
    """Return the factory of one of our own models: normalization around it, the seed as torch has it."""

    def make(classes: int, _seed: int) -> nn.Module:
        return Normalized(build(classes, **fixed), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    return make


# What the registry names.
perceptron = _ours(_perceptron)
small_cnn = _ours(_small_cnn)
small_mobilenet = _ours(_small_mobilenet)
small_resnet = _ours(_small_resnet)
small_resnet_stem2 = _ours(_small_resnet, stem=2)
resnet20 = _ours(_cifar_resnet, depth=20)
resnet32 = _ours(_cifar_resnet, depth=32)
resnet56 = _ours(_cifar_resnet, depth=56)


def create_model(architecture: Architecture, *, classes: int, seed: int) -> nn.Module:
    """Return a freshly initialized model, the same for the same seed.

    Parameters
    ----------
    architecture : str or callable
        One of :func:`ttca.proxies.registry.list_architectures`, ``timm/NAME``, ``module:function``, or a factory.
    classes : int
        Number of logits C.
    seed : int
        torch's generator is seeded with it while the model is made, and left as it was found. A factory is given it
        for whatever else it draws.

    Raises
    ------
    ValueError
        If the name is not known, no model is made, or there is no class.
    """
    if classes < 1:
        # timm takes 0 for "no head" and would return features where we promise logits.
        raise ValueError(f"Expected at least one class, got {classes}.")
    name = architecture_name(architecture)
    with seeded(seed):
        made = (
            _timm(name.removeprefix("timm/"), classes) if name.startswith("timm/") else find_model(name)(classes, seed)
        )
    if not isinstance(made, nn.Module):
        raise ValueError(f"Expected {name} to return a torch.nn.Module, got {type(made).__name__}.")
    return made.to(memory_format=torch.channels_last)


def _timm(name: str, classes: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"Expected a name that timm.create_model knows, got {name!r}.")
    body = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=3)
    config = cast(dict[str, Any], body.pretrained_cfg)
    return Normalized(body, tuple(config["mean"]), tuple(config["std"]))


def __getattr__(name: str) -> Any:
    if name != "Normalised":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("ttca.proxies.architectures.Normalised is now called Normalized.", DeprecationWarning, stacklevel=2)
    return Normalized

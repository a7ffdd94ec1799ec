"""Platforms that are trained here, once: timm classifiers of CIFAR-10, and one of FairFace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._peers import cache
from ttca.blocks import shrink
from ttca.images import Images
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.runtime import autocast_for

__all__ = ["TRAINED", "TrainedClassifier", "train_classifier"]

#: Name → what timm is asked for. The first two take images of 32×32 as they are.
TRAINED: dict[str, dict[str, Any]] = {
    "resnet18": {"model_name": "resnet18"},
    "vit-tiny": {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 4},
    "fairface-resnet18": {"model_name": "resnet18"},
}
_EPOCHS, _BATCH, _SHIFT = 12, 128, 2
_RATES = {"resnet18": 2e-3, "vit-tiny": 1e-3, "fairface-resnet18": 2e-3}
#: Squares of pixels that are averaged before the model looks: photographs of 224×224 are seen at 112×112.
_BLOCKS = {"fairface-resnet18": 2}
#: Images computed together. Of photographs 256 took 230 MiB more, and 64 a third longer.
_TOGETHER = 128


class TrainedClassifier:
    """A timm classifier behind uint8 images, trained on the given images on first use and kept in the cache.

    Parameters
    ----------
    name : str
        One of :data:`TRAINED`.
    data : callable
        Returns uint8 images (N, H, W, 3) and int64 classes (N,); called only where nothing is kept.
    classes : int
    folder : Path, optional
        Where it is kept; default the benchmarks' cache.
    """

    def __init__(
        self,
        name: str,
        data: Callable[[], tuple[Images, NDArray[np.int64]]],
        *,
        classes: int,
        folder: Path | None = None,
    ) -> None:
        from safetensors.torch import load_file, save_file

        self._block = _BLOCKS.get(name, 1)
        path = (folder or cache() / "platforms") / f"{name}-{_EPOCHS}-{_BATCH}-{_RATES[name]:g}.safetensors"
        model = _model(name, classes)
        if not path.is_file():
            images, truth = data()
            train_classifier(model, shrink(images, self._block), truth, learning_rate=_RATES[name])
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
            partial.replace(path)
        model.load_state_dict(load_file(path))
        self.model = model.eval()
        #: Hash of the weights, 16 hex digits.
        self.version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.parameters = sum(p.numel() for p in model.parameters())

    @torch.inference_mode()
    def __call__(self, images: Images) -> NDArray[np.float64]:
        """Return probabilities, float64 (N, C)."""
        parts = []
        for start in range(0, len(images), _TOGETHER):
            small = shrink(images[start : start + _TOGETHER], self._block)
            parts.append(self.model(_pixels(to_levels(small))).double().softmax(1).numpy())
        return np.concatenate(parts)


def train_classifier(
    model: nn.Module,
    images: Images,
    classes: NDArray[np.int64],
    *,
    learning_rate: float,
    epochs: int = _EPOCHS,
    seed: int = 0,
) -> None:
    """Train on true classes: AdamW, one cycle of the learning rate, mirrored and shifted images."""
    generator = torch.Generator().manual_seed(seed)
    levels, truth = to_levels(images), torch.from_numpy(classes)
    steps = -(-len(images) // _BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(images), generator=generator), _BATCH):
            batch = levels[rows]
            if torch.rand((), generator=generator) < 0.5:
                batch = batch.flip(3)
            down, right = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=generator).tolist()
            batch = batch.roll((down, right), dims=(2, 3))
            with autocast_for("auto", "cpu"):
                loss = nn.functional.cross_entropy(model(_pixels(batch)), truth[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()


def _model(name: str, classes: int) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: nn.Module = timm.create_model(**TRAINED[name], pretrained=False, num_classes=classes)
    return model.to(memory_format=torch.channels_last)


def _pixels(levels: torch.Tensor) -> torch.Tensor:
    return (to_tensor(levels) - 0.5) / 0.25

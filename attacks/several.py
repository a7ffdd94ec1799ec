"""Models to learn δ against that are more than one network: drawn step by step, or with other images' features in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["Drawn", "FeatureMixed"]


class Drawn(nn.Module):
    """Several models of the same classes: each pass with a gradient is one's, drawn at random; others are their mean.

    Drawing weight sets of late training is LGV's (Gubri et al. 2022, arXiv 2207.13129) [published].

    Parameters
    ----------
    models : sequence of torch.nn.Module
        float32 (N, 3, H, W) in [0, 1] → logits (N, C).
    seed : int
    """

    def __init__(self, models: Sequence[nn.Module], *, seed: int) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            drawn = int(torch.randint(len(self.models), (), generator=self._generator))
            logits: torch.Tensor = self.models[drawn](images)
            return logits
        return torch.stack([m(images).float().log_softmax(1) for m in self.models]).mean(0)


class FeatureMixed(nn.Module):
    """A model whose inner features are mixed with those of other, clean images in passes with a gradient.

    Clean-feature mixup (Byun et al., CVPR 2023) [published], with its defaults: each layer mixes with probability 0.1,
    each channel by a weight drawn from 0 to 0.75.

    Parameters
    ----------
    model : torch.nn.Module
    clean : float tensor, shape (N, 3, H, W)
        In [0, 1].
    seed : int
    probability, most : float
        Of a layer to mix, and the largest weight of the clean features.
    """

    def __init__(
        self, model: nn.Module, clean: torch.Tensor, *, seed: int, probability: float = 0.1, most: float = 0.75
    ) -> None:
        super().__init__()
        self.model = model
        self._generator = torch.Generator().manual_seed(seed)
        self._probability, self._most = probability, most
        self._kept: dict[str, torch.Tensor] = {}
        self._keeps = True
        for name, part in model.named_modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.register_forward_hook(self._hook(name))
        model.eval()
        with torch.no_grad():
            model(clean)
        self._keeps = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits

    def _hook(self, name: str) -> Any:
        def mix(_part: nn.Module, _given: Any, out: torch.Tensor) -> torch.Tensor | None:
            if self._keeps:
                self._kept[name] = out.detach()
                return None
            g = self._generator
            if not torch.is_grad_enabled() or float(torch.rand((), generator=g)) >= self._probability:
                return None
            bank = self._kept[name]
            other = bank[torch.randint(len(bank), (len(out),), generator=g)].to(out.dtype)
            weight = torch.rand(out.shape[:2] + (1,) * (out.ndim - 2), generator=g).to(out.dtype) * self._most
            return out * (1 - weight) + other * weight

        return mix

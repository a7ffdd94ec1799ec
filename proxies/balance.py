"""Balance: several models descended as one, none of them louder than another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

__all__ = ["Balanced"]

#: A model that says the same of every class has no spread to be measured in.
_LEAST = 1e-6


class Balanced(nn.Module):
    """The mean of several models' logits, each centered and in units of its own spread over the batch.

    A proxy's own logits are the mean of log-probabilities, as an ensemble answers. There the model that is least sure
    pulls hardest, and one that is sure not at all. Averaging logits is published (Dong et al. 2018, arXiv 1710.06081);
    the units are ours. The spread is no part of the gradient.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        Each maps float32 (N, 3, H, W) in [0, 1] → logits (N, C).
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (N, C), which sum to 0 for each image."""
        return torch.stack([_balanced(cast(torch.Tensor, model(images)).float()) for model in self.models]).mean(0)


def _balanced(logits: torch.Tensor) -> torch.Tensor:
    centered = logits - logits.mean(1, keepdim=True)
    return centered / centered.detach().square().mean().sqrt().clamp(min=_LEAST)

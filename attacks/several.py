"""Several networks to learn δ against at once: each step is one's, drawn at random, and every look is all of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["Drawn"]


class Drawn(nn.Module):
    """Several models of the same classes that stand in for one while δ is learned.

    A pass with a gradient is that of one model, drawn at random, so that a step costs no more than with one. A pass
    without is the mean of their log-probabilities. Learning δ against weight sets of late training is that of Gubri et
    al. 2022 (arXiv 2207.13129) [published].

    Parameters
    ----------
    models : sequence of torch.nn.Module
        float32 (N, 3, H, W) in [0, 1] → logits (N, C).
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        If there is no model.
    """

    def __init__(self, models: Sequence[nn.Module], *, seed: int) -> None:
        super().__init__()
        if not models:
            raise ValueError("Expected at least one model to draw from, got none.")
        self.models = nn.ModuleList(models)
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)

    def afresh(self) -> Drawn:
        """Return the same models, drawn from the beginning: what one δ draws must not depend on those before it."""
        return Drawn(list(self.models), seed=self._seed)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            drawn = int(torch.randint(len(self.models), (), generator=self._generator))
            logits: torch.Tensor = self.models[drawn](images)
            return logits
        return torch.stack([m(images).float().log_softmax(1) for m in self.models]).mean(0)

"""Several models to learn δ against: one is drawn for a step, all are looked at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ttca.attacks.several import Drawn


class Always(nn.Module):
    """Logits that do not depend on the image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def draws(model: Drawn, count: int = 30) -> list[float]:
    """Return the first logit of so many passes with a gradient."""
    return [float(model(torch.zeros(1, 3, 2, 2))[0, 0].detach()) for _ in range(count)]


def test_a_step_is_one_models_and_every_model_has_steps() -> None:
    """Passes with a gradient are those of single models, all of them; the seed decides the order, afresh repeats it."""
    models = [Always(0.0, 1.0), Always(3.0, 1.0), Always(5.0, 1.0)]
    drawn = Drawn(models, seed=1)
    first = draws(drawn)
    assert set(first) == {0.0, 3.0, 5.0}
    assert draws(drawn.afresh()) == first
    assert draws(drawn) != first
    assert draws(Drawn(models, seed=2)) != first


def test_a_look_is_the_mean_of_all() -> None:
    """Without a gradient the log-probabilities of all models are averaged, and nothing is drawn."""
    models = [Always(0.0, 2.0), Always(1.0, -1.0)]
    drawn = Drawn(models, seed=0)
    with torch.no_grad():
        found = drawn(torch.zeros(4, 3, 2, 2))
    wanted = torch.stack([m.logits.log_softmax(0) for m in models]).mean(0).detach()
    assert torch.allclose(found, wanted.expand(4, -1))
    assert draws(drawn) == draws(Drawn(models, seed=0))


def test_nothing_to_draw_from_is_refused() -> None:
    """No model at all is a sentence."""
    with pytest.raises(ValueError, match="Expected at least one model to draw from, got none"):
        Drawn([], seed=0)

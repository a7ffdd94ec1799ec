"""Tests of several models descended as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.examples import examples
from ttca.learning import Learner
from ttca.people import People
from ttca.progress import silent
from ttca.proxies.balance import Balanced
from ttca.proxies.distillation import Proxy
from ttca.settings import Settings


class Told(nn.Module):
    """A model that says what it was given, so many times as loud, and so much more of every class."""

    def __init__(self, logits: torch.Tensor, times: float, more: float) -> None:
        super().__init__()
        self.logits, self.times, self.more = logits, times, more

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)] * self.times + self.more


@examples(40)
@given(st.integers(0, 2**32 - 1), st.floats(1e-2, 1e3), st.floats(-1e2, 1e2), st.integers(2, 6))
def test_no_model_is_louder_than_another(seed: int, times: float, more: float, classes: int) -> None:
    """How loud a model speaks, and what it adds to every class, changes nothing of what several say together."""
    said = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 5, classes)))
    images = torch.zeros(5, 3, 2, 2)
    plain, loud = (Balanced([Told(said[0], 1, 0), Told(said[1], t, m)])(images) for t, m in ((1, 0), (times, more)))
    torch.testing.assert_close(loud, plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain.sum(1), torch.zeros(5), rtol=0, atol=1e-4)


def test_a_model_that_says_nothing_is_not_heard() -> None:
    """Equal logits of every class have no spread, and are no number divided by zero."""
    said = torch.tensor([[1.0, -1.0]])
    found = Balanced([Told(torch.ones(1, 2), 1, 0), Told(said, 1, 0)])(torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(found, said / 2)


@pytest.mark.parametrize("loss", ["centered-logit", "logit"])
def test_delta_descends_models_that_are_balanced(loss: Any) -> None:
    """With the centered logit δ of two models descends both alike; with another loss what the proxy answers."""
    settings_ = Settings(architectures=("perceptron", "small-cnn"), loss=loss, steps=3, shift=0, threads=1)
    proxy = Proxy(settings_.architectures, classes=2, seed=0)
    with torch.no_grad():
        # The first model shouts: as answers are averaged, the other is not heard.
        last = [m for m in proxy.models[0].modules() if isinstance(m, nn.Linear)][-1]
        last.weight.mul_(1e3)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    names = np.array(list("abcdefgh"))
    people = People(images, np.arange(8) % 2, names, names, np.ones(8, bool))
    learner = Learner(settings_, classes=2, image_shape=(16, 16, 3), reporter=silent)
    found = learner.universal(proxy, people, people, 4, what="δ")
    assert proxy.balanced is not proxy
    alone = learner.universal(proxy.balanced, people, people, 4, what="δ")
    assert np.array_equal(found, alone) == (loss == "centered-logit")
    assert Proxy(("perceptron",), classes=2, seed=0).balanced.__class__ is Proxy

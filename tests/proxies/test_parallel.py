"""Tests that several processes train one proxy together, as one would: real processes, without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests import worlds
from ttca.proxies.distillation import Distillation, Proxy, Targets, _share, train_proxy
from ttca.proxies.options import Distilling
from ttca.proxies.parallel import train_proxy_in_processes

OPTIONS = Distilling(architectures=("perceptron", "small-cnn"), seed=3, epochs=16)


def known(n: int, seed: int) -> tuple[Any, Targets]:
    """Return images of the tiny world and what its platform says about them."""
    images, _ = worlds.draw(n, strength=30.0, seed=seed)
    scores = worlds.model(images).astype(np.float32)
    return images, Targets(scores.argmax(1), scores)


def weights(proxy: Proxy) -> torch.Tensor:
    """Return all weights in one row."""
    return torch.cat([p.detach().flatten() for p in proxy.parameters()])


@pytest.fixture(scope="module")
def together() -> tuple[Distillation, list[tuple[int, int]]]:
    """Return what two processes made of the same answers, and what they said meanwhile."""
    epochs: list[tuple[int, int]] = []
    initial = Proxy(OPTIONS.architectures, classes=3, seed=9)
    done = train_proxy_in_processes(
        2,
        *known(101, 1),
        OPTIONS,
        selection=known(40, 2),
        replay=known(50, 3),
        initial=initial,
        progress=lambda epoch, of, _loss: epochs.append((epoch, of)),
    )
    return done, epochs


@pytest.mark.e2e
@pytest.mark.full
def test_two_processes_learn_what_one_learns(together: tuple[Distillation, list[tuple[int, int]]]) -> None:
    """Together they agree with the platform as one process does, and tell every epoch."""
    done, epochs = together
    images, answers = known(200, 4)
    agreement = (done.proxy.predict(images).argmax(1) == answers.labels).mean()
    alone = train_proxy(*known(101, 1), OPTIONS, selection=known(40, 2))
    assert agreement > 0.9
    assert (alone.proxy.predict(images).argmax(1) == answers.labels).mean() > 0.9
    assert epochs == [(e, 16) for e in range(1, 17)]
    assert len(done.loss) == len(done.agreement) == 16
    assert done.agreement[done.best_epoch] > 0.9
    assert not done.proxy.training


@pytest.mark.full
def test_the_same_seed_gives_the_same_weights_again(together: tuple[Distillation, list[tuple[int, int]]]) -> None:
    """Gradients of two processes add up to the same sum every time."""
    again = train_proxy_in_processes(
        2,
        *known(101, 1),
        OPTIONS,
        selection=known(40, 2),
        replay=known(50, 3),
        initial=Proxy(OPTIONS.architectures, classes=3, seed=9),
    )
    assert torch.allclose(weights(again.proxy), weights(together[0].proxy), atol=1e-5)


@pytest.mark.e2e
@pytest.mark.full
def test_what_one_process_would_refuse_is_refused() -> None:
    """Answers from which nothing can be learned are the same sentence as without other processes."""
    images, _ = known(10, 1)
    with pytest.raises(ValueError, match="of which 0 name a class"):
        train_proxy_in_processes(2, images, Targets.from_labels(np.full(10, -1), 3), OPTIONS)


def broken(_classes: int, _seed: int) -> torch.nn.Module:
    """Fail, as a model may that needs what another process has not."""
    raise RuntimeError("no such device")


@pytest.mark.full
def test_processes_that_fail_say_why() -> None:
    """A model that is found by its import string and fails there is told in the words of the process that failed."""
    with pytest.raises(ValueError, match="Training stopped: RuntimeError: no such device"):
        train_proxy_in_processes(2, *known(10, 1), Distilling(architectures=(f"{__name__}:broken",)))


def test_a_model_that_other_processes_cannot_import_is_refused() -> None:
    """A function inside another one is no model for several processes, and is refused before any is started."""

    def inner(classes: int, seed: int) -> torch.nn.Module:
        raise AssertionError("nothing is made")

    with pytest.raises(ValueError, match=r"Expected models that other processes can import, got '.*inner'"):
        train_proxy_in_processes(2, *known(10, 1), Distilling(architectures=(inner,)))


@pytest.mark.parametrize(("n", "world"), [(64, 1), (64, 2), (65, 2), (3, 2), (2, 4), (7, 3)])
def test_shares_are_equal_and_leave_nobody_out(n: int, world: int) -> None:
    """Every row of a batch is in some process's share, and no share is a single image."""
    rows = torch.arange(n)
    shares = [_share(rows, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(shares[0])}
    assert len(shares[0]) >= 2
    assert set(torch.cat(shares).tolist()) == set(range(n))

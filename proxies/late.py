"""Weight sets of late training: where plain descent at a constant, large rate goes on from a trained proxy."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from ttca.proxies.distillation import Answered, Proxy, _Training
from ttca.proxies.options import Distilling

__all__ = ["late_weights"]


def late_weights(
    proxy: Proxy, known: Answered, options: Distilling, *, sets: int, rate: float, device: str = "cpu"
) -> list[Proxy]:
    """Return copies of a proxy as it is after each of so many further epochs of SGD.

    LGV (Gubri et al. 2022, arXiv 2207.13129) [published].
    """
    training = _Training(copy.deepcopy(proxy), known, None, replace(options, epochs=sets), device)
    training.started = list(training.proxy.parameters())
    training.optimizer = torch.optim.SGD(training.started, lr=rate, momentum=0.9, weight_decay=1e-4)
    training.schedule = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda _: 1.0)
    found = []
    for _ in range(sets):
        training.epoch()
        found.append(copy.deepcopy(training.proxy).eval())
    return found

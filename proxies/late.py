"""Weight sets of late training: where plain descent at a constant, large rate goes on from a trained proxy."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from ttca.proxies.distillation import Answered, Proxy, _Training, answer_loss
from ttca.proxies.options import Distilling

__all__ = ["flattened", "late_weights"]


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


class _Flat(_Training):
    """Sharpness-aware minimization: the gradient is taken where the loss is worst within ``rho`` of the weights.

    Foret et al. 2021 (arXiv 2010.01412) [published]; a large radius for transfer, Qin et al. / Zhang et al. [published].
    """

    rho = 0.0

    def _step(self, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> float:
        weights = [p for p in self.proxy.parameters() if p.requires_grad]
        with self.autocast:
            z = self.models[0](x)
        loss = answer_loss(z, y, s, temperature=self.options.temperature).mean()
        gradients = torch.autograd.grad(loss, weights)
        norm = torch.stack([g.norm() for g in gradients]).norm().clamp(min=1e-12)
        moves = [g * (self.rho / norm) for g in gradients]
        with torch.no_grad():
            for p, m in zip(weights, moves, strict=True):
                p.add_(m)
        with self.autocast:
            z = self.models[0](x)
        worst = answer_loss(z, y, s, temperature=self.options.temperature).mean()
        self.optimizer.zero_grad(set_to_none=True)
        worst.backward()
        with torch.no_grad():
            for p, m in zip(weights, moves, strict=True):
                p.sub_(m)
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def flattened(
    proxy: Proxy, known: Answered, options: Distilling, *, epochs: int, rate: float, rho: float, device: str = "cpu"
) -> Proxy:
    """Return a copy of a proxy after so many further epochs of sharpness-aware minimization."""
    training = _Flat(copy.deepcopy(proxy), known, None, replace(options, epochs=epochs), device, (rate,))
    training.rho = rho
    for _ in range(epochs):
        training.epoch()
    return training.proxy.eval()

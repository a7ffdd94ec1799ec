"""Fine-tuning: a backbone's statistics taken anew, its head by a linear probe, and the rates that do not diverge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from ttca.proxies.pretrained import Pretrained

__all__ = ["RATES", "LossWatch", "adapt_statistics", "best_rate", "fit_head"]

#: Of AdamW for all weights, highest first: where nothing holds a network's activations, the first ones may diverge.
RATES = (1e-3, 3e-4, 1e-4, 3e-5)
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_ITERATIONS = 100
#: A loss so many times that of knowing nothing is no loss on its way down.
_HOPELESS = 2.0
#: And one that ends so near to it, above where it began, has forgotten everything.
_FORGOT = 0.9

_Loss = Callable[[torch.Tensor], torch.Tensor]


def adapt_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Take the running statistics of a network's batch normalization anew from float images; say whether it has any.

    A network whose normalization was folded into its convolutions has none and is left as it is. Li et al. 2017 (arXiv
    1603.04779) [published].

    Parameters
    ----------
    model : torch.nn.Module
    batches : iterable of float tensor, shape (N, 3, H, W)
    """
    live = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    if not live:
        return False
    before = [m.momentum for m in live]
    model.eval()
    for layer in live:
        layer.reset_running_stats()
        # Without one, the mean over all batches.
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for layer, momentum in zip(live, before, strict=True):
        layer.momentum = momentum
    model.eval()
    return True


def fit_head(
    model: Pretrained,
    learned: tuple[Iterable[torch.Tensor], _Loss],
    judged: tuple[Iterable[torch.Tensor], _Loss],
) -> float:
    """Fit a backbone's head alone, and return its mean loss on judges: a linear probe.

    Its penalty is chosen by people who are not learned from [ours].

    Parameters
    ----------
    model : Pretrained
    learned, judged : (batches, loss)
        Float images (N, 3, H, W) batch by batch, and their losses (N,): a function of the logits (N, C).
    """
    features = _features(model, learned[0])
    # Of one length on average, so that a penalty means the same for every network.
    scale = float(features.norm(dim=1).mean().clamp(min=1e-6)) / math.sqrt(features.shape[1])
    looked = _features(model, judged[0]) / scale
    heads = [_fitted(features / scale, learned[1], model.head, penalty) for penalty in _PENALTIES]
    losses = [float(judged[1](looked @ weight.T + bias).mean()) for weight, bias in heads]
    weight, bias = heads[losses.index(min(losses))]
    with torch.no_grad():
        model.head.weight.copy_(weight / scale)
        model.head.bias.copy_(bias)
    return min(losses)


def _features(model: Pretrained, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return what a model gives its head, float32 (N, D)."""
    kept: list[torch.Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach().float()))
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        hook.remove()
    return torch.cat(kept)


def _fitted(features: torch.Tensor, loss: _Loss, head: nn.Linear, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.zeros_like(head.weight, dtype=torch.float32).requires_grad_()
    bias = torch.zeros_like(head.bias, dtype=torch.float32).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(features @ weight.T + bias).mean() + penalty * weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


@dataclass
class LossWatch:
    """Whether a training diverges, told from its losses, epoch by epoch [ours].

    Parameters
    ----------
    before : float
        The loss before the first step.
    ignorant : float
        That of knowing nothing: of equal probabilities.
    """

    before: float
    ignorant: float
    losses: list[float] = field(default_factory=list)

    def hopeless(self, loss: float) -> bool:
        """Note an epoch's loss; say whether there is no point in another epoch."""
        self.losses.append(loss)
        return not math.isfinite(loss) or loss > _HOPELESS * max(self.before, self.ignorant)

    @property
    def diverged(self) -> bool:
        """Whether the training that ended here has made its model worse than it was."""
        last = self.losses[-1]
        if not math.isfinite(last) or last > _HOPELESS * max(self.before, self.ignorant):
            return True
        return last > self.before and last > _FORGOT * self.ignorant


def best_rate(trial: Callable[[float], float]) -> float:
    """Return the best learning rate of :data:`RATES`, by short trainings from the highest down.

    It ends where a lower rate is worse than a higher one that did not diverge.

    Parameters
    ----------
    trial : callable
        Rate → loss of a short training on people who are not learned from; infinite where it diverged.
    """
    best, least = RATES[-1], math.inf
    for rate in RATES:
        loss = trial(rate)
        if loss < least:
            best, least = rate, loss
        elif math.isfinite(least):
            break
    return best

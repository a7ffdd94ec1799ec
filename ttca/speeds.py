"""Speeds: how fast this machine trains a model, measured on one small batch, and how long learning takes by that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ttca.proxies.runtime import Precision
from ttca.weights import Start

__all__ = ["Speeds", "Workload"]

#: Images of the batch that is timed, and how often its time is taken: the shortest counts.
_BATCH, _OFTEN = 32, 3
#: Published weights are tried at several rates, each for a part of the training, before they are trained.
_RATES = 1.5
#: What learning does beside its passes: augmentations, the optimizer's step, pixels moved and compared.
_BESIDE = 1.3


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What learning takes.

    Parameters
    ----------
    start : Start
        The models of the proxy.
    side : (H, W)
        Of the images as the proxy sees them.
    classes : int
    precision : {"float32", "bfloat16", "auto"}
    training, descending, looking : float
        Images gone through: forth and back for the proxy, forth and back for δ, and forth alone.
    """

    start: Start
    side: tuple[int, int]
    classes: int
    precision: Precision
    training: float
    descending: float
    looking: float


@dataclass(frozen=True)
class Speeds:
    """How long this machine takes for an image where it does nothing else, measured where it is first asked for [ours].

    Parameters
    ----------
    threads : int or None
        Of the processor; by default one.
    """

    threads: int | None = None
    _measured: dict[tuple[object, ...], tuple[float, float, float]] = field(default_factory=dict, repr=False)

    def seconds(self, work: Workload) -> float:
        """Return how many seconds so much work takes, by an estimate."""
        key = (work.start, work.side, work.classes, work.precision)
        if key not in self._measured:
            self._measured[key] = _seconds_per_image(work, self.threads or 1)
        training, descending, looking = self._measured[key]
        passes = work.training * (_RATES if work.start.backbones else 1) * training
        return _BESIDE * (passes + work.descending * descending + work.looking * looking)


def _seconds_per_image(work: Workload, threads: int) -> tuple[float, float, float]:
    """Return how long one image takes through all models: to train them, to learn δ, and to look."""
    import torch

    from ttca.proxies.architectures import create_model
    from ttca.proxies.pretrained import create_pretrained
    from ttca.proxies.runtime import autocast_for, best_device, fixed_threads

    device = best_device()
    # Who races is not to depend on what else the machine does just now: one thread counts its own time alone.
    clock = time.thread_time if device == "cpu" and threads == 1 else time.perf_counter
    models = [create_pretrained(b, classes=work.classes, seed=0) for b in work.start.backbones]
    models += [create_model(a, classes=work.classes, seed=0) for a in work.start.architectures]  # type: ignore[misc]
    x = torch.zeros(_BATCH, 3, *work.side, device=device).contiguous(memory_format=torch.channels_last)

    def shortest(step: Callable[[], object]) -> float:
        times = []
        # The first pass makes what later ones have.
        for _ in range(1 + _OFTEN):
            began = clock()
            with autocast_for(work.precision, device):
                step()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - began)
        return min(times[1:]) / _BATCH

    found = [0.0, 0.0, 0.0]
    with fixed_threads(threads):
        for model in models:
            model.train().to(device)
            found[0] += shortest(lambda m=model: m(x).float().sum().backward())  # type: ignore[misc]
            model.eval().requires_grad_(False)
            pixels = x.clone().requires_grad_()
            found[1] += shortest(lambda m=model, p=pixels: torch.autograd.grad(m(p).float().sum(), p))  # type: ignore[misc]
            with torch.no_grad():
                found[2] += shortest(lambda m=model: m(x))  # type: ignore[misc]
    return found[0], found[1], found[2]

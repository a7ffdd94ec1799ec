"""Speeds: how fast this machine trains a model, measured on one small batch, and how long learning takes by that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ttca.weights import Start

__all__ = ["Workload", "seconds_for"]

#: Images of the batch that is timed, and how often its time is taken: the shortest counts.
_BATCH, _OFTEN = 16, 2
#: Published weights are tried at several rates, each for a part of the training, before they are trained.
_RATES = 1.5


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
    training, descending : int
        Images gone through, forth and back, for the proxy and for δ.
    """

    start: Start
    side: tuple[int, int]
    classes: int
    training: int
    descending: int


def seconds_for(workloads: Mapping[str, Workload], threads: int | None) -> dict[str, float]:
    """Return how many seconds each effort takes on this machine, by an estimate [ours].

    Parameters
    ----------
    workloads : dict of str to Workload
    threads : int or None
        Of the processor.
    """
    from ttca.proxies.runtime import fixed_threads

    found: dict[str, float] = {}
    measured: dict[tuple[object, ...], float] = {}
    with fixed_threads(threads):
        for name, effort in workloads.items():
            key = (effort.start, effort.side, effort.classes)
            if key not in measured:
                measured[key] = _seconds_per_image(effort)
            images = effort.training * (_RATES if effort.start.backbones else 1) + effort.descending
            found[name] = measured[key] * images
    return found


def _seconds_per_image(effort: Workload) -> float:
    """Return how long one image takes forth and back through all models."""
    import torch

    from ttca.proxies.architectures import create_model
    from ttca.proxies.pretrained import create_pretrained
    from ttca.proxies.runtime import best_device

    device, total = best_device(), 0.0
    models = [create_pretrained(b, classes=effort.classes, seed=0) for b in effort.start.backbones]
    models += [create_model(a, classes=effort.classes, seed=0) for a in effort.start.architectures]  # type: ignore[misc]
    x = torch.zeros(_BATCH, 3, *effort.side, device=device)
    for model in models:
        model.train().to(device)
        times = []
        # The first pass makes what later ones have.
        for _ in range(1 + _OFTEN):
            began = time.perf_counter()
            model(x).sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        total += min(times[1:]) / _BATCH
    return total

"""Speeds: how fast this machine trains a model, measured on one small batch, and how long learning takes by that."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ttca.errors import ActionError
from ttca.kept import digest, load_json, save_json
from ttca.proxies.runtime import Precision
from ttca.weights import Start

__all__ = ["SPEEDS_FILE", "Speeds", "Workload"]

#: The shortest times of earlier measurements, in an action's folder.
SPEEDS_FILE = "speeds.json"

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

    A busy machine is slower, never faster: the shortest time that was ever measured counts. So a dry run, a plan and
    the run itself agree on who races.

    Parameters
    ----------
    threads : int or None
        Of the processor; by default one.
    folder : Path or None
        Where the shortest times are kept; None: nowhere.
    """

    threads: int | None = None
    folder: Path | None = None
    _measured: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def seconds(self, work: Workload) -> float:
        """Return how many seconds so much work takes, by an estimate."""
        key = _key(work, self.threads or 1)
        if key not in self._measured:
            self._measured[key] = self._shortest(key, _seconds_per_image(work, self.threads or 1))
        training, descending, looking = self._measured[key]
        passes = work.training * (_RATES if work.start.backbones else 1) * training
        return _BESIDE * (passes + work.descending * descending + work.looking * looking)

    def _shortest(self, key: str, now: Sequence[float]) -> list[float]:
        """Return the shorter of the times measured now and earlier, one by one, and keep them."""
        if self.folder is None or not self.folder.is_dir():
            return list(now)
        kept = _kept(self.folder / SPEEDS_FILE)
        shortest = list(map(min, now, kept.get(key, now)))
        if shortest != kept.get(key):
            save_json(self.folder / SPEEDS_FILE, {**kept, key: shortest})
        return shortest


def _kept(path: Path) -> dict[str, list[float]]:
    """Return the times that were kept; of a file that cannot be read none, since they can be measured again."""
    try:
        found = load_json(path)
    except ActionError:
        return {}
    times = {k: v for k, v in found.items() if isinstance(v, list) and len(v) == 3}
    return {k: v for k, v in times.items() if all(isinstance(t, float) and t > 0 for t in v)}


def _key(work: Workload, threads: int) -> str:
    """Return a digest of all that decides how fast this machine is, the machine itself among it."""
    import torch

    from ttca.proxies.runtime import best_device

    models = [*work.start.architectures, *(b.digest for b in work.start.backbones)]
    here = [platform.node(), platform.processor() or platform.machine(), os.cpu_count(), best_device(), threads]
    return digest("speeds", torch.__version__, here, models, work.side, work.classes, work.precision)


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

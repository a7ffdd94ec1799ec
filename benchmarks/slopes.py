"""Do slopes of probe pairs as targets teach a proxy more than as many plain answers? For ε on one CIFAR track.

`TTCA_DATA=… python -m benchmarks slopes --weights FILE --json`. For each seed one proxy learns true classes. Then it
learns, at equal queries, *answers* about people's images as they are; *pairs*: half of those, and probe pairs around
them as further answers; *slopes*: the same, and the difference that each pair makes as a target of its own (SPSG, CVPR
2024, which takes superpixels where we take squares). δ is learned against each, and dev-test people are compared
person by person (exact McNemar).
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._cells import CellKey, code_digest, kept_cell, opened, plain
from benchmarks._tracks import TRACKS
from benchmarks.ablations import SETTINGS
from ttca.action import WARM_START
from ttca.attacks.refinement import draw_probes
from ttca.learning import targets_of
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.proxies.distillation import Answered, Proxy, Targets, _evaluate, _shifted, _Training, train_proxy
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.options import Distilling
from ttca.proxies.runtime import fixed_threads
from ttca.statistics.comparisons import mcnemar_exact

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--track", "digits", "--queries", "420", "--epsilon", "8", "--seeds", "1", "--short")
#: Pairs in each step of training, and the least probability that is told from zero.
_PAIRS, _LEAST = 32, 1e-3
_ARMS = ("answers", "pairs", "slopes-0.3", "slopes-3")


def main(argv: list[str]) -> dict[str, Any]:
    """Measure every way for several seeds, each beside plain answers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks slopes", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), default="cifar10-resnet56")
    parser.add_argument("--queries", type=int, default=1000, help="images sent for the pool")
    parser.add_argument("--epsilon", type=int, nargs="+", default=[4, 8], help="levels of 255")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", default="none", help="published weights that the proxy begins with, as a path")
    parser.add_argument("--short", action="store_true", help="train for a few epochs alone")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    own = {"equalize": False, "loss": "centered-logit", "steps": 300, "weights": options.weights}
    chosen = {**SETTINGS, **own, **({"public_epochs": 2, "epochs": 2, "steps": 10} if options.short else {})}
    cells: list[dict[str, Any]] = []
    with TRACKS[options.track].open_platform("scores") as platform:
        for seed in range(options.seeds):
            key = CellKey(options.track, "own", "scores", options.queries, tuple(options.epsilon), seed, chosen)
            facts = {**key.facts(), "code": code_digest(Path(__file__)), "platform": platform.info.fingerprint}
            cells.append({"seed": seed, **kept_cell("slopes", facts, partial(_cell, key, platform))})
    return {
        "file": f"slopes-{options.track}-own-scores-q{options.queries}",
        "track": options.track,
        "people": "dev-test",
        "queries": options.queries,
        "settings": {**plain(chosen), "weights": Path(options.weights).name},
        "cells": cells,
    }


def _cell(key: CellKey, platform: Platform) -> dict[str, Any]:
    with opened(key, platform) as found:
        action, learner = found.action, found.action.learner
        transfer, judges = action.pool(), action.questions.judges
        primer = learner.primer(action.known.public)
        assert primer is not None
        warm = learner.warm_start(action.folder / WARM_START, primer, judges)
        options = learner.start.options(learner.settings.tuning)
        replay = (primer.images, primer.targets)
        selection = (transfer.selection.images, targets_of(transfer.selection_answers))
        rng = np.random.default_rng(key.seed)
        order = rng.permutation(len(transfer.pool))
        kept = np.sort(order[: len(order) - 2 * (len(order) // 4)])
        around = transfer.pool.images[kept][transfer.pool.subgroup[kept]]
        probes = draw_probes(around, pairs=len(order) // 4, rng=rng)
        said = targets_of(found.evaluator.ask(probes.images, purpose="test", epoch="test"))
        half = targets_of(transfer.answers)[kept]
        both = (
            np.concatenate([transfer.pool.images[kept], probes.images]),
            Targets(np.concatenate([half.labels, said.labels]), np.concatenate([half.scores, said.scores])),
        )
        test = found.cell.test[found.cell.test.subgroup]
        right: dict[str, np.ndarray[Any, Any]] = {}
        rows: dict[str, dict[str, Any]] = {}
        rates: Sequence[float] = ()
        for arm in _ARMS:
            known = (transfer.pool.images, targets_of(transfer.answers)) if arm == "answers" else both
            if not arm.startswith("slopes"):
                images, answers = known
                done = train_proxy(images, answers, options, selection=selection, initial=warm, replay=replay)
                proxy, rates = done.proxy, done.rates
            else:
                weight = float(arm.removeprefix("slopes-"))
                proxy = _sloped(warm, both, replay, options, selection, rates, (probes.images, said), weight)
            for epsilon in key.epsilons:
                delta = learner.universal(
                    proxy, action.known.helped, action.questions.selection, epsilon, what=f"δ of {arm}, ε = {epsilon}"
                )
                handed = PerturbationSet(
                    delta, epsilon, platform.info.classes, action.settings.subgroup, platform.info.fingerprint
                )
                heard = found.evaluator.ask(handed.apply(test.images, test.classes), purpose="test", epoch="test")
                name = f"{arm}, {epsilon}"
                right[name] = heard.labels == test.classes
                rows[name] = {"subgroup_after": float(right[name].mean()), **_beside(right, name)}
                rows[name]["selection_loss"] = _evaluate(proxy, *selection)[0]
        return {"persons": len(test), "pairs": len(probes.signs), "plain": len(kept), "ways": rows}


def _beside(right: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one way beside plain answers and beside pairs that are answers alone, person by person."""
    found = {}
    for other in ("answers", "pairs"):
        before = right.get(f"{other}, {name.rpartition(', ')[2]}")
        if before is not None and not name.startswith(other):
            now = right[name]
            won, lost = int((~before & now).sum()), int((before & ~now).sum())
            found[f"against_{other}"] = {"won": won, "lost": lost, "mcnemar_p": mcnemar_exact(before, now)}
    return found


class _Sloped(_Training):
    """A training whose every step also looks at the difference that some pairs make."""

    def teach(self, images: Any, said: Targets, weight: float) -> None:
        self.levels, self.weight = to_levels(images, self.device), weight
        logs = torch.from_numpy(said.scores).clamp(min=_LEAST).log()
        logs = logs - logs.mean(1, keepdim=True)
        n = len(logs) // 2
        self.slopes = logs[:n] - logs[n:]
        self.spread = self.slopes.square().mean()

    def _step(self, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> float:
        n, o = len(self.slopes), self.options
        rows = torch.randint(n, (_PAIRS,), generator=self.chance)
        pair = torch.cat([to_tensor(self.levels[rows]), to_tensor(self.levels[rows + n])], 1)
        pair = _shifted(pair, o.shift, self.chance)
        if o.flip:
            mirrored = torch.rand(len(pair), generator=self.chance) < 0.5
            pair = torch.where(mirrored[:, None, None, None], pair.flip(3), pair)
        more = torch.cat([pair[:, :3], pair[:, 3:]]).contiguous(memory_format=torch.channels_last)
        whole = x.contiguous(memory_format=torch.channels_last)
        self._extra = torch.zeros(())
        kept = [m.forward for m in self.proxy.models]

        def with_pairs(forward: Any, given: torch.Tensor) -> torch.Tensor:
            z: torch.Tensor = forward(torch.cat([given, more]))
            logs = z[len(given) :].float().log_softmax(1).clamp(min=math.log(_LEAST))
            logs = logs - logs.mean(1, keepdim=True)
            made = logs[:_PAIRS] - logs[_PAIRS:]
            self._extra = self._extra + (made - self.slopes[rows]).square().mean() / self.spread
            return z[: len(given)]

        from ttca.proxies import distillation

        for m, forward in zip(self.proxy.models, kept, strict=True):
            m.forward = partial(with_pairs, forward)
        plain_loss = distillation.answer_loss

        def loss(*given: Any, **how: Any) -> torch.Tensor:
            return plain_loss(*given, **how) + self.weight * self._extra / len(kept)

        distillation.answer_loss = loss
        try:
            return super()._step(whole, y, s)
        finally:
            distillation.answer_loss = plain_loss
            for m in self.proxy.models:
                del m.forward


def _sloped(
    warm: Proxy,
    known: Answered,
    replay: Answered,
    options: Distilling,
    selection: Answered,
    rates: Sequence[float],
    pairs: tuple[Any, Targets],
    weight: float,
) -> Proxy:
    with fixed_threads(options.threads):
        proxy = copy.deepcopy(warm)
        training = _Sloped(proxy, known, replay, options, "cpu", rates)
        training.teach(*pairs, weight)
        best, kept = math.inf, None
        for _ in range(options.epochs):
            training.epoch()
            loss, _agreement = _evaluate(proxy, *selection)
            if loss < best:
                best, kept = loss, copy.deepcopy(proxy.state_dict())
        assert kept is not None
        proxy.load_state_dict(kept)
        for model in proxy.models:
            model.requires_grad_()
        return proxy.eval()

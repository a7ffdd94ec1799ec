"""What do members who lie achieve, knowing how they are checked? Who is flagged, and what does the proxy lose?"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _adaptive
from benchmarks._adaptive import Pool
from ttca.answers import Answers
from ttca.demo.platform import digits_platform
from ttca.demo.world import DIGITS, digits_world
from ttca.errors import QuotaError
from ttca.images import Images
from ttca.people import People
from ttca.platforms.base import Credential, Platform, PlatformInfo
from ttca.pooling.leases import CheckPlan, LeaseDesk
from ttca.pooling.ledger import Ledger
from ttca.progress import Reporter
from ttca.proxies.distillation import Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.terminal import Terminal

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--runs", "1", "--collusions", "1", "--members", "20", "--adaptives", "1", "--images", "200", "--sizes")

MEMBERS, QUOTA, SIZE = 50, 500, 16
HOSTILE = 0.2
#: Of the platform's own answers, so many name another class when asked again.
NOISE = 0.01
KINDS = ("random", "constant", "flips", "replays")
COLLUDING = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6)
#: Pools of so many images show how the share of cross-checks falls.
IMAGES, MORE_IMAGES = 1000, (2000, 4000, 8000)


def main(argv: list[str]) -> dict[str, Any]:
    """Run pools with and without liars on the demo's platform, and pools whose liars agree with each other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hostile", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--collusions", type=int, default=5, help="runs for each share of colluding liars")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--adaptives", type=int, default=20, help="runs for each kind of liar who knows the checks")
    parser.add_argument("--images", type=int, default=IMAGES, help="that the members share in these runs")
    parser.add_argument("--sizes", type=int, nargs="*", default=MORE_IMAGES, help="larger numbers of images")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="pools played at one moment")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    reporter = Reporter(Terminal(stderr=True))
    runs: list[dict[str, Any]] = []
    with reporter.track("pools with liars", options.runs, unit="pools") as advance:
        for seed in range(options.runs):
            runs.append(_compare(_World.of(seed), options.members, seed))
            advance(1)
    curve = []
    with reporter.track("pools with colluding liars", len(COLLUDING) * options.collusions, unit="pools") as advance:
        for share in COLLUDING if options.collusions else ():
            found = []
            for seed in range(options.collusions):
                found.append(_play(_World.of(seed), options.members, share, seed, kinds=("collusion",)))
                advance(1)
            curve.append(
                {
                    "hostile_share": share,
                    "flagged_hostile": statistics.fmean(f.flagged_share for f in found),
                    "flagged_honest": statistics.fmean(f.honest_flagged / f.honest for f in found),
                    "wrong_accepted": statistics.fmean(f.wrong_accepted for f in found),
                }
            )
    adaptive = _all_adaptive(options, reporter)
    before = [q for run in runs for q in run["queries_before_flag"]]
    return {
        "flagged_hostile": statistics.fmean(run["flagged_within_40"] for run in runs),
        "false_flag_runs": statistics.fmean(run["honest_flagged"] > 0 for run in runs),
        "queries_before_flag": statistics.fmean(before) if before else None,
        "queries_before_flag_most": max(before, default=None),
        "fidelity_loss": statistics.fmean(run["fidelity_loss"] for run in runs),
        "fidelity_loss_spread": statistics.pstdev(run["fidelity_loss"] for run in runs),
        "flagged_hostile_by_kind": {
            kind: statistics.fmean(shares)
            for kind in KINDS
            if (shares := [run["by_kind"][kind] for run in runs if kind in run["by_kind"]])
        },
        "wrong_accepted": statistics.fmean(run["wrong_accepted"] for run in runs),
        "audit_share_of_queries": statistics.fmean(run["audit_share"] for run in runs),
        "collusion": curve,
        **adaptive,
        "runs": runs,
        "members": options.members,
        "hostile_share": HOSTILE,
        "quota": QUOTA,
        "platform_noise": NOISE,
        "how": "The demo's platform (digits, label only, and of its own accord another label in 1 % of answers) is "
        "asked by members in random order through a hub's leases; the hostile ones in turn answer at random, always "
        "the same, flip 30 % of labels, or say what the platform said about another image. flagged_hostile: "
        "within 40 queries. fidelity_loss: of a proxy distilled from the accepted answers, against one of the same "
        "pool without its liars, on people nobody asked about. adaptive: " + _adaptive.HOW,
    }


def _all_adaptive(options: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    """Play pools whose liars know the checks, without liars, and with more images."""
    kinds = (*_adaptive.KINDS, None)
    pools = [Pool(k, options.members, options.images, seed=s) for k in kinds for s in range(options.adaptives)]
    larger = [Pool("after-k", options.members, n, seed=0) for n in options.sizes]
    with reporter.track("pools with liars who know", len(pools) + len(larger), unit="pools") as advance:
        found = []
        # The longest first.
        for run in _played([*larger, *pools], options.jobs):
            found.append(run)
            advance(1)
    long, short = found[: len(larger)], found[len(larger) :]
    of_kind = [
        _adaptive.summary(kind, short[i * options.adaptives : (i + 1) * options.adaptives])
        for i, kind in enumerate(kinds)
        if options.adaptives
    ]
    first = [(Pool("after-k", options.members, options.images), short[0])] if short else []
    return {
        "adaptive": [entry for entry in of_kind if entry["kind"] != "honest"],
        "adaptive_without_liars": next((entry for entry in of_kind if entry["kind"] == "honest"), None),
        "adaptive_by_images": [
            {"images": pool.images, **{key: run[key] for key in _adaptive.BY_IMAGES}}
            for pool, run in [*first, *zip(larger, long, strict=True)]
        ],
    }


def _played(pools: Sequence[Pool], jobs: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each pool, in their order."""
    if jobs < 2 or len(pools) < 2:
        yield from map(_adaptive.play, pools)
        return
    # Spawned: this process holds threads and a model.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as executor:
        yield from executor.map(_adaptive.play, pools)


@dataclass(frozen=True)
class _World:
    """The demo's platform, the images the pool asks about, and those nobody asks about."""

    platform: Platform
    asked: People
    unasked: Images
    said: NDArray[np.int64]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, seed: int) -> _World:
        world = digits_world(seed)
        platform = digits_platform(world, seed=seed)
        asked = People.concatenate(list(world.roster.roles().values()))
        unasked = world.test.images
        return cls(platform, asked, unasked, _labels(platform, unasked))


@dataclass(frozen=True)
class _Played:
    """How one pool went."""

    flagged_share: float
    within_40: float
    honest: int
    honest_flagged: int
    before_flag: list[int]
    by_kind: dict[str, float]
    wrong_accepted: float
    audit_share: float
    images: Images
    labels: NDArray[np.int64]


def _compare(world: _World, members: int, seed: int) -> dict[str, Any]:
    played = _play(world, members, HOSTILE, seed, kinds=KINDS)
    alone = _play(world, members - round(HOSTILE * members), 0.0, seed, kinds=())
    with_liars, without = (_fidelity(world, p, seed) for p in (played, alone))
    return {
        "seed": seed,
        "flagged_within_40": played.within_40,
        "honest_flagged": played.honest_flagged,
        "queries_before_flag": played.before_flag,
        "by_kind": played.by_kind,
        "wrong_accepted": played.wrong_accepted,
        "audit_share": played.audit_share,
        "fidelity": with_liars,
        "fidelity_without_liars": without,
        "fidelity_loss": without - with_liars,
    }


def _play(world: _World, members: int, share: float, seed: int, *, kinds: tuple[str, ...]) -> _Played:
    """Let members lease and answer in random order until every image is answered or nobody can pay."""
    rng = random.Random(seed)
    names = [f"member-{i:02d}" for i in range(members)]
    hostile = names[: round(share * members)]
    kind_of = {name: kinds[i % len(kinds)] for i, name in enumerate(hostile)}
    liar = _Liar(np.random.default_rng([seed, 1]), len(DIGITS))
    noise = np.random.default_rng([seed, 2])
    info = PlatformInfo("digits", DIGITS, world.asked.image_shape, {"model": "digits", "seed": str(seed)})
    before_flag: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        ledger.enrol(dict.fromkeys(names, QUOTA))
        desk = LeaseDesk(ledger, info, plan=CheckPlan(), rng=random.Random(seed), lease_s=10**9)
        desk.load(world.asked.images, world.asked.members.tolist())
        sent = dict.fromkeys(names, 0)
        waiting = list(names)
        while waiting:
            name = rng.choice(waiting)
            try:
                lease = desk.issue(name, SIZE)
            except QuotaError:
                lease = None
            if lease is None:
                waiting.remove(name)
                continue
            said = _labels(world.platform, lease.images)
            noisy = noise.random(len(said)) < NOISE
            said = np.where(noisy, (said + noise.integers(1, len(DIGITS), len(said))) % len(DIGITS), said)
            told = liar.tell(name, kind_of[name], said) if name in kind_of else said
            liar.overhear(said)
            desk.take_back(lease.id, name, Answers.from_labels(told, len(DIGITS)))
            sent[name] += len(said)
            for flagged in desk.flagged():
                before_flag.setdefault(flagged, sent[flagged])
        images = world.asked.images
        keys = ledger.keys(images, fingerprint=info.fingerprint, epoch="pool")
        known, found = ledger.lookup(keys, classes=len(DIGITS))
        paid = ledger.paid()
    truth = _labels(world.platform, images[known])
    caught = [name for name in hostile if name in before_flag]
    return _Played(
        flagged_share=len(caught) / max(1, len(hostile)),
        within_40=sum(before_flag[n] <= 40 for n in caught) / max(1, len(hostile)),
        honest=members - len(hostile),
        honest_flagged=sum(n not in kind_of for n in before_flag),
        before_flag=[before_flag[n] for n in caught],
        by_kind={
            kind: statistics.fmean(before_flag.get(n, 10**9) <= 40 for n in hostile if kind_of[n] == kind)
            for kind in set(kind_of.values())
        },
        wrong_accepted=float((found.labels[known] != truth).mean()),
        audit_share=1 - paid.get("pool", 0) / sum(paid.values()),
        images=images[known],
        labels=found.labels[known],
    )


class _Liar:
    """What hostile members say instead of what the platform said."""

    def __init__(self, rng: np.random.Generator, classes: int) -> None:
        self._rng, self._classes = rng, classes
        self._constant: dict[str, int] = {}
        self._heard: list[int] = [0]

    def overhear(self, said: NDArray[np.int64]) -> None:
        """Remember what the platform told somebody."""
        self._heard = [*self._heard, *said.tolist()][-200:]

    def tell(self, name: str, kind: str, said: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels that the member reports."""
        n = len(said)
        ways: dict[str, Callable[[], NDArray[np.int64]]] = {
            "random": lambda: self._rng.integers(0, self._classes, n),
            "constant": lambda: np.full(n, self._constant.setdefault(name, int(self._rng.integers(self._classes)))),
            "flips": lambda: np.where(
                self._rng.random(n) < 0.3, (said + self._rng.integers(1, self._classes, n)) % self._classes, said
            ),
            "replays": lambda: self._rng.choice(self._heard, n),
            "collusion": lambda: (said + 1) % self._classes,
        }
        told: NDArray[np.int64] = ways[kind]().astype(np.int64)
        return told


def _fidelity(world: _World, played: _Played, seed: int) -> float:
    """Return how often a proxy of these answers agrees with the platform, on people nobody asked about."""
    targets = Targets.from_labels(played.labels, len(DIGITS))
    proxy = train_proxy(played.images, targets, Distilling(seed=seed, epochs=20)).proxy
    return float((proxy.predict(world.unasked).argmax(axis=1) == world.said).mean())


def _labels(platform: Platform, images: Images) -> NDArray[np.int64]:
    batch = platform.info.max_batch
    parts = [
        platform.attempt(images[i : i + batch], Credential("nobody"), request_id="-").labels
        for i in range(0, len(images), batch)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)

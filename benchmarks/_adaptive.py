"""Liars who know how members are checked: one pool of a hub, played on the real desk and a real ledger."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers, Status
from ttca.errors import QuotaError, RateError
from ttca.images import Images
from ttca.platforms.base import PlatformInfo
from ttca.pooling.leases import CheckPlan, LeaseDesk
from ttca.pooling.ledger import Ledger

__all__ = ["BY_IMAGES", "HOW", "KINDS", "Pool", "play", "summary"]

KINDS = ("after-k", "one-class", "victims", "null-scores", "ring", "gives-up")
CLASSES = 10
#: Of the platform's own answers, so many name another class when asked again, and so many requests of an image fail.
NOISE, FAILS = 0.01, 0.01
#: A member asks for leases of one of these sizes.
SIZES = (2, 4, 8, 16)
#: Answers before the first lie of kind ``after-k``, drawn anew in each run.
FIRST_LIE = (5, 60)
#: Of the images, so many are the victims'.
VICTIMS = 0.1
#: An accepted answer is wrong where its label is, or where a score is farther from the platform's than this.
_FALSE_SCORE = 0.05
#: What is told of pools of more images.
BY_IMAGES = ("cross_check_share", "queries", "wrong_accepted", "wrong_in_class", "honest_set_aside", "images_given_up")
HOW = (
    "members of a simulated platform (10 classes, scores, another label in 1 % of answers, a failure in 1 %) lease "
    "from the real desk on a real ledger, each in requests of one size (2 to 16); a fifth of them lie. Liars name the "
    "same wrong class with the same scores. after-k: all answers after the first 5 to 60, drawn in each run. "
    "one-class: only one class. victims: one image in ten. null-scores: right labels, false scores, one gap. ring: 10 "
    "to 100 % of the images, drawn in each run. gives-up: says 'failed' for 10 to 100 % of the images. After a liar, "
    "another one asks next in every second turn. wrong_accepted: accepted answers with another label, or a score that "
    "is .05 off. wrong_in_class: of the worst true class in each run; wrong_in_targets: of the images lied about. "
    "cross_check_share: of all queries."
)


@dataclass(frozen=True)
class Pool:
    """Who takes part in one run, and how many images they share."""

    kind: str | None
    members: int = 50
    images: int = 1000
    share: float = 0.2
    seed: int = 0
    plan: CheckPlan = field(default_factory=CheckPlan)


@dataclass(frozen=True)
class _Truth:
    """What the platform says when nothing is noisy, by an image's number."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, images: int, rng: np.random.Generator) -> _Truth:
        labels = rng.integers(0, CLASSES, images)
        scores = rng.dirichlet(np.ones(CLASSES), images).astype(np.float32) * 0.3
        scores[np.arange(images), labels] += 0.7
        return cls(labels, scores)

    def ask(self, numbers: NDArray[np.int64], rng: np.random.Generator) -> Answers:
        """Return what the platform says now."""
        scores = self.scores[numbers].copy()
        turned = np.flatnonzero(rng.random(len(numbers)) < NOISE)
        for row in turned:
            scores[row] = np.roll(scores[row], int(rng.integers(1, CLASSES)))
        scores = np.clip(scores + rng.normal(0, 0.001, scores.shape), 0, 1).astype(np.float32)
        said = Answers.from_scores(scores)
        return _failing(said, rng.random(len(numbers)) < FAILS)


@dataclass(frozen=True)
class _Liars:
    """Who lies, about which images, and from which answer on."""

    kind: str | None
    names: frozenset[str]
    targets: NDArray[np.bool_]
    first: int
    rng: np.random.Generator

    @classmethod
    def of(cls, pool: Pool, names: Sequence[str], truth: _Truth, rng: np.random.Generator) -> _Liars:
        targets = np.ones(pool.images, np.bool_)
        if pool.kind == "one-class":
            targets = truth.labels == rng.integers(CLASSES)
        elif pool.kind == "victims":
            targets = np.arange(pool.images) % round(1 / VICTIMS) == 0
        elif pool.kind in ("ring", "gives-up"):
            targets = rng.random(pool.images) < rng.uniform(0.1, 1.0)
        first = int(rng.integers(FIRST_LIE[0], FIRST_LIE[1] + 1)) if pool.kind == "after-k" else 0
        hostile = frozenset(names[: round(pool.share * pool.members)]) if pool.kind else frozenset()
        return cls(pool.kind, hostile, targets, first, rng)

    def tell(self, numbers: NDArray[np.int64], said: Answers, sent: int) -> Answers:
        """Return what a liar says, who has answered ``sent`` queries before."""
        lies = self.targets[numbers] & (sent + np.arange(len(numbers)) >= self.first) & said.answered
        if self.kind == "gives-up":
            return _failing(said, lies)
        scores = said.scores.copy()
        if self.kind == "null-scores":
            for row in np.flatnonzero(lies):
                label = said.labels[row]
                scores[row] = 0.6 / CLASSES
                scores[row, label] = 0.4
                scores[row, (label + 1) % CLASSES] = np.nan
        else:
            # All liars name the same wrong class with the same scores, so that they confirm each other.
            scores[lies] = np.roll(scores[lies], 1, axis=1)
        named = np.nan_to_num(scores, nan=-1.0).argmax(axis=1).astype(np.int64)
        return Answers(said.status, np.where(lies, named, said.labels), scores, said.resolution)


def _failing(said: Answers, rows: NDArray[np.bool_]) -> Answers:
    scores = said.scores.copy()
    scores[rows] = np.nan
    status = np.where(rows, Status.FAILED, said.status).astype(np.int8)
    return Answers(status, np.where(rows, -1, said.labels), scores, said.resolution)


def play(pool: Pool) -> dict[str, Any]:
    """Let members lease and answer in random order until there is nothing more to ask; return what came of it."""
    rng, drawn = random.Random(pool.seed), np.random.default_rng([pool.seed, 7])
    names = [f"member-{i:03d}" for i in range(pool.members)]
    truth = _Truth.of(pool.images, drawn)
    liars = _Liars.of(pool, names, truth, drawn)
    sizes = {name: rng.choice(SIZES) for name in names}
    images = _numbered(pool.images)
    info = PlatformInfo("p", tuple(map(str, range(CLASSES))), (2, 2, 3), {"model": "m", "seed": str(pool.seed)})
    now = [1000.0]
    sent = dict.fromkeys(names, 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "ledger.sqlite", clock=lambda: now[0]) as ledger,
    ):
        ledger.enrol(dict.fromkeys(names, 10 * pool.images))
        desk = LeaseDesk(ledger, info, plan=pool.plan, rng=random.Random(pool.seed), lease_s=10**9)
        desk.load(images, [names[i % len(names)] for i in range(pool.images)])
        friends = sorted(liars.names)
        waiting, friend, served = list(names), "", False
        while True:
            now[0] += 1.0
            if not waiting:
                if not served:
                    break
                waiting, served = list(names), False
            name = friend if friend in waiting and rng.random() < 0.5 else rng.choice(waiting)
            friend = ""
            try:
                lease = desk.issue(name, sizes[name])
            except RateError as error:
                if len(waiting) == 1:
                    now[0] += error.wait_s
                continue
            except QuotaError:
                lease = None
            if lease is None:
                waiting.remove(name)
                continue
            served = True
            numbers = lease.images[:, 0, 0, 0].astype(np.int64) + 256 * lease.images[:, 0, 0, 1].astype(np.int64)
            said = truth.ask(numbers, drawn)
            if name in liars.names:
                said = liars.tell(numbers, said, sent[name])
                # Another one hurries to confirm what was just said.
                friend = rng.choice(friends)
            sent[name] += len(numbers)
            desk.take_back(lease.id, name, said)
        keys = ledger.keys(images, fingerprint=info.fingerprint, epoch="pool")
        known, found = ledger.lookup(keys, classes=CLASSES)
        paid, progress, flagged = ledger.paid(), desk.progress(), set(desk.flagged())
    return _found(pool, truth, liars, known, found) | {
        "honest_set_aside": len(flagged - liars.names),
        "hostile_set_aside": len(flagged & liars.names),
        "images_given_up": progress.inputs - int(known.sum()),
        "cross_check_share": 1 - paid.get("pool", 0) / sum(paid.values()),
        "queries": sum(paid.values()),
    }


def _found(pool: Pool, truth: _Truth, liars: _Liars, known: NDArray[np.bool_], found: Answers) -> dict[str, Any]:
    apart = np.abs(found.scores - truth.scores).max(axis=1)
    wrong = known & ((found.labels != truth.labels) | ~(apart <= _FALSE_SCORE))
    classes = [float(wrong[rows].mean()) for c in range(CLASSES) if (rows := known & (truth.labels == c)).any()]
    aimed = known & liars.targets
    return {
        "seed": pool.seed,
        "first_lie": liars.first,
        "targets": int(liars.targets.sum()),
        "wrong_accepted": float(wrong[known].mean()),
        "wrong_in_class": max(classes, default=0.0),
        "wrong_in_targets": float(wrong[aimed].mean()) if aimed.any() else 0.0,
    }


def summary(kind: str | None, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the runs of one kind have in common, means but where ``most`` is said."""

    def of(key: str) -> list[float]:
        return [run[key] for run in runs]

    return {
        "kind": kind or "honest",
        "runs": len(runs),
        "wrong_accepted": float(np.mean(of("wrong_accepted"))),
        "wrong_accepted_most": max(of("wrong_accepted")),
        "wrong_in_class": float(np.mean(of("wrong_in_class"))),
        "wrong_in_class_most": max(of("wrong_in_class")),
        "wrong_in_targets": float(np.mean(of("wrong_in_targets"))),
        "wrong_in_targets_most": max(of("wrong_in_targets")),
        "honest_set_aside_runs": sum(run["honest_set_aside"] > 0 for run in runs),
        "hostile_set_aside": float(np.mean(of("hostile_set_aside"))),
        "images_given_up": int(sum(of("images_given_up"))),
        "cross_check_share": float(np.mean(of("cross_check_share"))),
        "cross_check_share_most": max(of("cross_check_share")),
        "queries": float(np.mean(of("queries"))),
    }


def _numbered(images: int) -> Images:
    numbers = np.arange(images)
    result = np.zeros((images, 2, 2, 3), np.uint8)
    result[:, 0, 0, 0], result[:, 0, 0, 1] = numbers % 256, numbers // 256
    return result

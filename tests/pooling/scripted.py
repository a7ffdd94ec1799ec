"""A platform in this process that does, attempt by attempt, what a test tells it to, and remembers everything."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import AnswerError, ChargeState, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential, Platform, PlatformInfo
from ttca.platforms.retry import RetryPolicy
from ttca.pooling.allowance import Effort
from ttca.pooling.booking import Charge
from ttca.pooling.contribute import Contribution, Patience, contribute
from ttca.pooling.hub_client import HubAccess
from ttca.pooling.ledger import Ledger

CLASSES = ("cat", "dog", "owl")
IMAGE_SHAPE = (2, 3, 3)
KEYS = [bytes([i]) * 32 for i in range(64)]


def pay(ledger: Ledger, keys: list[bytes], *, member: str = "ada", number: int = 1, purpose: str = "pool") -> Charge:
    """Charge one request of these keys."""
    return ledger.charge(member, keys, request_id="r", number=number, purpose=purpose)


def labels(*values: int) -> Answers:
    """Return label-only answers about three classes."""
    return Answers.from_labels(np.array(values, np.int64), 3)


def distinct(n: int, *, start: int = 0) -> Images:
    """Return n images, no two alike."""
    images = np.zeros((n, *IMAGE_SHAPE), np.uint8)
    numbers = np.arange(start, start + n)
    images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 0, 2] = numbers % 251, numbers // 251, numbers * 7 % 256
    return images


def truth(images: Images) -> Answers:
    """Return the platform's answers: other scores for every image of :func:`distinct`."""
    rows: NDArray[np.float32] = images[:, 0, 0, :].astype(np.float32) + 1
    return Answers.from_scores(rows / rows.sum(axis=1, keepdims=True))


def transport_error(charge: ChargeState, *, retryable: bool = True, status: int | None = None) -> TransportError:
    """Return the error of one attempt that brought no answer."""
    return TransportError(
        "Expected an answer, got none.", platform="p", charge=charge, retryable=retryable, status=status
    )


def answer_error() -> AnswerError:
    """Return the error of an answer that cannot be read."""
    return AnswerError("Expected scores, got a poem.", platform="p")


@dataclass(frozen=True)
class Attempt:
    """What one attempt carried."""

    images: Images
    credential: Credential
    request_id: str


class ScriptedPlatform:
    """Answers :func:`truth`, unless ``script`` raises or returns something else for an attempt (numbered from 0)."""

    def __init__(
        self, script: Callable[[int, Images], Answers] = lambda _number, images: truth(images), *, max_batch: int = 64
    ) -> None:
        self.script = script
        self.attempts: list[Attempt] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._info = PlatformInfo("p", CLASSES, IMAGE_SHAPE, {"model": "scripted"}, max_batch=max_batch)

    @property
    def info(self) -> PlatformInfo:
        """Who it is."""
        return self._info

    @property
    def queries(self) -> int:
        """Images that reached it, processed or not."""
        return sum(len(a.images) for a in self.attempts)

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Write the attempt down and follow the script."""
        with self._lock:
            number = len(self.attempts)
            self.attempts.append(Attempt(images.copy(), credential, request_id))
            self.in_flight += len(images)
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.script(number, images)
        finally:
            with self._lock:
                self.in_flight -= len(images)


def patient(attempts: int = 3, *, sleep: Callable[[float], None] = lambda _s: None) -> RetryPolicy:
    """Return a policy whose waits take no time."""
    return RetryPolicy(attempts=attempts, rng=random.Random(0), sleep=sleep, clock=lambda: 0.0)


def hard_at_work(url: str, platform: Platform, *, token_variable: str = "TTCA_HUB_X", **more: Any) -> Contribution:
    """Contribute without patience for a hub that is away, with new books unless a folder is given.

    ``more`` are options of access (``hub_key``, ``ca``), effort, patience and the rest.
    """
    effort = {f.name: more.pop(f.name) for f in fields(Effort) if f.name in more}
    patience: dict[str, Any] = {"hub_away_s": 0.0, "sleep": lambda _s: None}
    patience |= {f.name: more.pop(f.name) for f in fields(Patience) if f.name in more}
    key, ca = more.pop("hub_key", None), more.pop("ca", None)
    with tempfile.TemporaryDirectory() as fresh:
        return contribute(
            HubAccess(url=url, token_variable=token_variable, key=key, ca=ca),
            platform,
            effort=Effort(**effort),
            patience=Patience(**patience),
            **{"folder": Path(fresh), **more},
        )

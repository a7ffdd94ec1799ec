"""An API's habits: how a platform answers, how long it takes, and when it fails or says "too many"."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.lossy import check_quality, jpeg
from ttca.platforms.base import OPTIONAL_MEMBERS, Credential, Platform, PlatformInfo, check_request
from ttca.platforms.local import NO_HABITS, LocalPlatform

__all__ = ["Habits", "WithHabits"]


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What an API does to its model's answers, and to those who ask.

    Parameters
    ----------
    label_only : bool
        Whether answers carry labels alone.
    top_k : int, optional
        How many of the highest scores an answer names.
    decimals : int, optional
        To how many decimals scores are rounded. Labels are those of the exact scores.
    noise : float
        Standard deviation of Gaussian noise on every log-probability. The same image asked again gets other
        noise; the same seed and history give the same.
    latency_s : float
        Seconds each request takes.
    failure_rate : float
        Share of attempts that fail, half of them before and half after the model has run. Decided by the
        seed, the images and how often they were sent, so concurrency does not change it.
    rate_limit_per_s : float, optional
        Requests per second (a bucket that holds one second's worth, at least one); above it, status 429.
    jpeg_quality : int, optional
        Of the JPEG files, 1 to 100, that it takes: its model sees each image as it comes back from one.
    seed : int

    Raises
    ------
    ConfigError
        If a value is not allowed, or two contradict each other.
    """

    label_only: bool = False
    top_k: int | None = None
    decimals: int | None = None
    noise: float = 0.0
    latency_s: float = 0.0
    failure_rate: float = 0.0
    rate_limit_per_s: float | None = None
    jpeg_quality: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.label_only and (self.top_k is not None or self.decimals is not None):
            raise ConfigError(
                "Expected top_k and decimals only where scores are given, got label_only as well. Leave out one of "
                "the two."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"Expected top_k of at least 1, got {self.top_k}. Leave it out to get the scores of all classes."
            )
        if self.decimals is not None and not 0 <= self.decimals <= 12:
            raise ConfigError(f"Expected decimals in 0..12, got {self.decimals}. Leave it out to get exact scores.")
        if not 0 <= self.failure_rate <= 1:
            raise ConfigError(
                f"Expected failure_rate in [0, 1], got {self.failure_rate}. Give a share, not a percentage."
            )
        for option, value in (("noise", self.noise), ("latency_s", self.latency_s)):
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"Expected {option} of 0 or more, got {value}. Use 0 for none.")
        if self.rate_limit_per_s is not None and not self.rate_limit_per_s > 0:
            raise ConfigError(f"Expected rate_limit_per_s above 0, got {self.rate_limit_per_s}. Use None for no limit.")
        check_quality(self.jpeg_quality)

    @property
    def changes_scores(self) -> bool:
        """Whether scores, where they are given, are other than the platform's own."""
        return self.top_k is not None or self.decimals is not None or self.noise > 0

    @property
    def parameters(self) -> str:
        """What changes an answer, as part of a platform's identity: latency and outages do not."""
        said: dict[str, Any] = {
            "label_only": self.label_only,
            "top_k": self.top_k,
            "decimals": self.decimals,
            "noise": self.noise,
        }
        if self.noise:
            said["seed"] = self.seed
        if self.jpeg_quality is not None:
            said["jpeg_quality"] = self.jpeg_quality
        return json.dumps(said, sort_keys=True)


class _Who(TypedDict):
    """What every error of one attempt says."""

    platform: str
    request_id: str
    member: str


class WithHabits:
    """A platform with an API's habits. Safe to use from many threads if the platform is.

    Parameters
    ----------
    platform : Platform
        Any. What it has of :data:`~ttca.platforms.base.OPTIONAL_MEMBERS` is passed on.
    habits : Habits
    sleep, clock : callable
        Seconds to wait, and monotonic seconds; tests pass their own.

    Raises
    ------
    ConfigError
        If the platform gives no scores that the habits could change, or fewer classes than ``top_k``.

    Examples
    --------
    >>> import numpy as np
    >>> from ttca.platforms.base import Credential
    >>> from ttca.platforms.local import LocalPlatform
    >>> even = LocalPlatform(lambda x: np.full((len(x), 3), 1 / 3), classes=("a", "b", "c"), image_shape=(2, 2, 3))
    >>> platform = WithHabits(even, Habits(decimals=1))
    >>> platform.attempt(np.zeros((1, 2, 2, 3), np.uint8), Credential("ada"), request_id="1").scores
    array([[0.3, 0.3, 0.3]], dtype=float32)
    """

    def __init__(
        self,
        platform: Platform,
        habits: Habits,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        info = platform.info
        if habits.top_k is not None and habits.top_k > len(info.classes):
            raise ConfigError(
                f"Expected top_k in 1..{len(info.classes)}, got {habits.top_k}. Leave it out to get the scores of all "
                "classes."
            )
        if habits.changes_scores and not info.gives_scores:
            raise ConfigError(
                f"Expected a platform that gives scores, for habits that change them, got {info.name}, which gives "
                "labels only. Leave out top_k, decimals and noise."
            )
        #: The platform without these habits.
        self.inner = platform
        self.habits = habits
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._asked: Counter[bytes] = Counter()
        self._tokens = max(1.0, habits.rate_limit_per_s or 0.0)
        self._counted_at = clock()
        self._info = replace(
            info,
            identity=_identity(info.identity, habits),
            former_identity=None if info.former_identity is None else _identity(info.former_identity, habits),
            gives_scores=info.gives_scores and not habits.label_only,
            jpeg_quality=info.jpeg_quality if habits.jpeg_quality is None else habits.jpeg_quality,
        )

    def __repr__(self) -> str:
        changed = {n: v for n, v in vars(self.habits).items() if v != getattr(Habits, n)}
        return f"WithHabits({self.inner!r}, Habits({', '.join(f'{n}={v!r}' for n, v in changed.items())}))"

    def __getattr__(self, name: str) -> Any:
        if name in OPTIONAL_MEMBERS:
            return getattr(self.inner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def info(self) -> PlatformInfo:
        """Who this platform is."""
        return self._info

    @property
    def resolution(self) -> float:
        """The step to which it rounds its scores, 0 where they are exact."""
        if self.habits.decimals is None:
            return float(getattr(self.inner, "resolution", 0.0))
        return 10.0**-self.habits.decimals

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer once, or fail as an API would (see :class:`ttca.platforms.base.Platform`)."""
        checked = check_request(images, self._info)
        if len(checked) == 0:
            return Answers.failed(0, len(self._info.classes))
        habits = self.habits
        who: _Who = {"platform": self._info.name, "request_id": request_id, "member": credential.member}
        self._take_token(who)
        if habits.latency_s:
            self._sleep(habits.latency_s)
        fate = self._fate(checked)
        if fate < habits.failure_rate / 2:
            raise self._outage("Expected an answer, got an outage before the model ran. Try again.", 500, who)
        said, scores = self._said(checked, credential, request_id)
        if fate < habits.failure_rate:
            raise self._outage("Expected an answer, got a broken connection. Try again.", None, who)
        return self._told(checked, said, scores)

    def _said(self, images: Images, credential: Credential, request_id: str) -> tuple[Answers, NDArray[np.float64]]:
        """Return what the platform says, and its scores as exactly as it gives them."""
        inner = self.inner
        if self.habits.jpeg_quality is not None:
            images = jpeg(images, quality=self.habits.jpeg_quality)
        if isinstance(inner, LocalPlatform) and type(inner).attempt is LocalPlatform.attempt:
            return inner.attempt_exactly(images, credential, request_id=request_id)
        said = inner.attempt(images, credential, request_id=request_id)
        return said, said.scores.astype(np.float64)

    def _told(self, images: Images, said: Answers, rows: NDArray[np.float64]) -> Answers:
        """Return what is told of what the platform says: other scores, or none."""
        habits, labels = self.habits, said.labels
        if habits.noise:
            logs = np.log(np.maximum(rows, 1e-12)) + habits.noise * np.stack(
                [self._normal(i, rows.shape[1]) for i in images]
            )
            # What is not said stays unsaid: it weighs nothing.
            known = np.where(np.isnan(logs), -np.inf, logs)
            highest = known.max(axis=1, keepdims=True)
            shares = np.exp(known - np.where(np.isinf(highest), 0.0, highest))
            total = shares.sum(axis=1, keepdims=True)
            rows = np.where(np.isnan(rows), np.nan, shares / np.where(total > 0, total, 1.0))
            scored = said.answered & (total[:, 0] > 0)
            labels = np.where(scored, np.where(np.isnan(rows), -1.0, rows).argmax(axis=1), labels).astype(np.int64)
        silent = np.full_like(said.scores, np.nan)
        if habits.label_only:
            return Answers(said.status, labels, silent, np.zeros_like(said.resolution))
        scores = rows if habits.decimals is None else np.round(rows, habits.decimals)
        if habits.top_k is not None:
            # A stable sort of the exact scores: ties go to the lower class, as the label does.
            order = np.argsort(-rows, axis=1, kind="stable")
            scores = scores.copy()
            np.put_along_axis(scores, order[:, habits.top_k :], np.nan, axis=1)
        step = said.resolution if habits.decimals is None else np.full_like(said.resolution, self.resolution)
        return Answers(said.status, labels, scores.astype(np.float32), step)

    def _take_token(self, who: _Who) -> None:
        rate = self.habits.rate_limit_per_s
        if rate is None:
            return
        with self._lock:
            now = self._clock()
            full = max(1.0, rate)
            self._tokens = min(full, self._tokens + (now - self._counted_at) * rate)
            self._counted_at = now
            # A caller that waits exactly as told must get through despite rounding.
            if self._tokens >= 1 - 1e-9:
                self._tokens -= 1
                return
            wait = (1 - self._tokens) / rate
        raise TransportError(
            f"Expected at most {rate:g} requests per second, got more. Wait {wait:.3f} s.",
            charge=ChargeState.REFUNDED,
            retryable=True,
            retry_after=wait,
            status=429,
            **who,
        )

    def _fate(self, images: Images) -> float:
        """Return a number in [0, 1) fixed by the seed, the images and how often they were sent."""
        if not self.habits.failure_rate:
            return 1.0
        (draw,) = np.frombuffer(self._draw(b"fate", images.tobytes())[:8], np.uint64)
        return float(draw) / 2.0**64

    def _draw(self, purpose: bytes, data: bytes) -> bytes:
        """Return 16 bytes, other ones each time the same data comes, whatever happens in between."""
        what = hashlib.blake2b(data, digest_size=16, person=purpose).digest()
        with self._lock:
            times = self._asked[what]
            self._asked[what] += 1
        return hashlib.blake2b(what + f"{self.habits.seed} {times}".encode(), digest_size=16).digest()

    def _outage(self, message: str, status: int | None, who: _Who) -> TransportError:
        return TransportError(message, charge=ChargeState.UNKNOWN, retryable=True, status=status, **who)

    def _normal(self, image: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
        words = np.frombuffer(self._draw(b"noise", image.tobytes()), np.uint32)
        return np.random.default_rng(words.tolist()).standard_normal(classes)


def _identity(known: dict[str, str], habits: Habits) -> dict[str, str]:
    """Return the identity of a platform with these habits; where they change no answer, it is the platform's own."""
    before = known.get("parameters", NO_HABITS)
    if habits.parameters == NO_HABITS:
        return dict(known)
    return {**known, "parameters": habits.parameters if before == NO_HABITS else f"{before}, then {habits.parameters}"}

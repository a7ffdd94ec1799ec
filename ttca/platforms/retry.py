"""When to try again and when to stop: full jitter, a deadline, and Retry-After honored up to a cap."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError, TransportError, Trouble
from ttca.images import Images, check_images
from ttca.platforms.base import Credential, Platform
from ttca.platforms.throttle import Throttle, come_back, lane, throttle_of
from ttca.telling import tell_retry

__all__ = ["RetryPolicy", "ask"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try one request.

    Parameters
    ----------
    attempts : int
        The most attempts, the first included; 1 for no retries at all. One that came too fast is not counted: the
        platform is well, and says when to come. Nor is one that found no connection to a platform that has answered
        before: it restarts, and costs nothing until the deadline.
    deadline_s : float
        Seconds after which no further attempt begins, waits included, other than those after one that came too fast.
    base_s, cap_s : float
        The wait before retry k is uniform in [0, min(cap_s, base_s · 2^(k−1))] ("full jitter").
    longest_wait_s : float
        A ``retry_after`` above it ends the attempts with an error that says when to come back.
    most_refusals : int
        How often "too fast" is waited out, for one request.
    rng : random.Random
        Where jitter comes from; pass a seeded one for the same waits again.
    sleep, clock : callable
        Seconds to wait, and monotonic seconds; tests pass their own.

    Raises
    ------
    ConfigError
        If a value is not positive.
    """

    attempts: int = 5
    deadline_s: float = 120.0
    base_s: float = 0.2
    cap_s: float = 20.0
    longest_wait_s: float = 60.0
    most_refusals: int = 100
    rng: random.Random = field(default_factory=random.Random, compare=False, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"Expected attempts of at least 1, got {self.attempts}. Use 1 for no retries.")
        if self.most_refusals < 0:
            raise ConfigError(f"Expected most_refusals of at least 0, got {self.most_refusals}. Correct it.")
        for name in ("deadline_s", "base_s", "cap_s", "longest_wait_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected {name} in seconds, 0 or more, got {getattr(self, name)}. Correct it.")

    def run(
        self,
        once: Callable[[int], T],
        *,
        in_line: Callable[[], float] = lambda: 0.0,
        throttle: Throttle | None = None,
    ) -> T:
        """Return ``once(1)``, or of a later attempt where the earlier ones may be retried.

        Parameters
        ----------
        once : callable
            Makes one attempt; gets its number, from 1.
        in_line : callable
            Seconds that attempts so far have waited for their turn, which are no time of the request's.
        throttle : Throttle, optional
            Knows whether the platform has answered before.

        Raises
        ------
        TransportError
            The last attempt's, with ``attempt`` set. Any other error passes through at once.
        """
        began, waited, number, refusals, unreachable = self.clock(), 0.0, 0, 0, 0
        # A plain loop: a library's machinery would take longer than all else that pooling adds to an attempt.
        while True:
            number += 1
            tried_at = self.clock()
            try:
                return once(number)
            except TransportError as error:
                error.attempt = number
                if error.retryable and (error.retry_after or 0.0) > self.longest_wait_s:
                    error.retryable = False
                    error.come_back_s = error.retry_after
                    error.args = (
                        f"{error.args[0]} {come_back(error.retry_after or 0.0, self.longest_wait_s)}",
                        *error.args[1:],
                    )
                refused = error.trouble is Trouble.THROTTLED
                refusals += refused
                lost = error.trouble is Trouble.UNREACHABLE and throttle is not None and throttle.answered
                unreachable += lost
                if not error.retryable or refusals > self.most_refusals or self.attempts == 1:
                    raise
                counted = number - refusals - unreachable
                if not lost and counted >= self.attempts:
                    raise
                wait = self.wait_s(refusals if refused else unreachable if lost else counted, error.retry_after)
                # What was slept counts even where a clock stands still: nobody may try for ever.
                left = self.deadline_s - max(self.clock() - began - in_line(), waited)
                if refused:
                    # A turn that was not given is no time of this request's.
                    began += self.clock() - tried_at + wait
                elif throttle is not None and lost and left > 0:
                    # The last attempt begins at the deadline, not before.
                    wait = min(wait, left)
                    throttle.lost(error, left)
                elif lost or wait > left:
                    raise
                waited += 0.0 if refused else wait
                tell_retry(number, wait, error)
            self.sleep(wait)

    def wait_s(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after failed attempt ``attempt``, never less than ``retry_after``."""
        if retry_after is not None:
            # Members told the same moment must not all come back in it.
            return retry_after + self.rng.uniform(0.0, self.base_s)
        return self.rng.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60)))


def ask(
    platform: Platform,
    images: Images,
    credential: Credential,
    *,
    policy: RetryPolicy | None = None,
    request_id: str | None = None,
) -> Answers:
    """Ask a platform about images, without a pool: no ledger, no quotas, no cache.

    Parameters
    ----------
    platform : Platform
    images : uint8 array, shape (N, H, W, 3)
        Any N; sent in batches of at most ``platform.info.max_batch``.
    credential : Credential
    policy : RetryPolicy, optional
        The defaults when None.
    request_id : str, optional
        What the ids of the batches' requests begin with; random when None.

    Returns
    -------
    Answers
        N rows. A batch whose answer cannot be read, and every batch after one that could not be sent, is
        failed rows, so that what earlier batches cost is not lost.

    Raises
    ------
    ImageError
        If the images are not as the platform takes them; nothing was sent.
    TransportError
        If no batch brought an answer.
    """
    policy = RetryPolicy() if policy is None else policy
    info = platform.info
    checked = check_images(images, shape=info.image_shape)
    base = uuid.uuid4().hex if request_id is None else request_id
    parts: list[Answers] = []
    last: TransportError | None = None
    down, answered = False, 0
    throttle, whose = throttle_of(platform, clock=policy.clock), lane(platform, credential)

    def send(batch: Images, request_id: str) -> Answers:
        def once(_: int) -> Answers:
            with throttle.slot(whose, longest_s=policy.longest_wait_s, sleep=policy.sleep):
                return platform.attempt(batch, credential, request_id=request_id)

        return policy.run(once, throttle=throttle)

    for start in range(0, len(checked), info.max_batch):
        batch = checked[start : start + info.max_batch]
        part = Answers.failed(len(batch), len(info.classes))
        if not down:
            try:
                part = send(batch, f"{base}-{start}")
                answered += 1
            except TransportError as error:
                last = error
                down = not isinstance(error, AnswerError)
        parts.append(part)
    if last is not None and answered == 0:
        raise last
    return Answers.concatenate(parts, classes=len(info.classes))

"""A KServe V2 server that lets so many requests through per second, and says 429 as real APIs do: in four ways.

``GET /stats`` says how many requests it let through and how many it did not.
"""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from benchmarks._instant_server import Asked, Instant, serve_until_orphaned

__all__ = ["LIMITERS", "Limiter", "limited_connection"]


class Limiter(ABC):
    """``rate`` requests per second, ``burst`` of them at once; a moment is in seconds of any clock."""

    #: Whether its 429s say when to come back.
    says_when = True

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.accepted = self.limited = 0

    @abstractmethod
    def admits(self, now: float) -> bool:
        """Whether a request at this moment is let through."""

    @abstractmethod
    def refusal(self, now: float) -> dict[str, str]:
        """Return the headers of a 429 at this moment."""

    def note(self, now: float) -> dict[str, str]:
        """Return the headers of an answer at this moment."""
        return {}

    def least_s(self, n: int) -> float:
        """Return the fewest seconds in which n requests are let through, from the first of them to the last."""
        return max(0, n - self.burst) / self.rate


class _Bucket(Limiter):
    """A token bucket: ``burst`` tokens when full, ``rate`` new ones per second; its 429s say nothing."""

    says_when = False

    def __init__(self, rate: float, burst: int) -> None:
        super().__init__(rate, burst)
        self._tokens, self._at = float(burst), -math.inf

    def admits(self, now: float) -> bool:
        """Take a token, where there is one."""
        self._refill(now)
        # Who waits exactly as long as told must get through despite rounding.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True

    def refusal(self, now: float) -> dict[str, str]:
        """Say nothing."""
        return {}

    def wait_s(self, now: float) -> float:
        """Return the seconds until there is a token."""
        self._refill(now)
        return max(0.0, 1 - self._tokens) / self.rate

    @property
    def tokens(self) -> int:
        """Requests that would be let through at once."""
        return int(self._tokens + 1e-9)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate)
            self._at = now


class _Exact(_Bucket):
    """The bucket whose 429s say in milliseconds when the next token comes."""

    says_when = True

    def refusal(self, now: float) -> dict[str, str]:
        """Say it."""
        return {"Retry-After-Ms": str(math.ceil(self.wait_s(now) * 1000))}


class _Fields(_Bucket):
    """The bucket with the IETF's ``RateLimit`` fields on every response, and ``Retry-After`` on a 429.

    Source: draft-ietf-httpapi-ratelimit-headers.
    """

    says_when = True

    def refusal(self, now: float) -> dict[str, str]:
        """Say when to come back, in whole seconds, as these fields can."""
        return {**self.note(now), "Retry-After": str(max(1, math.ceil(self.wait_s(now))))}

    def note(self, now: float) -> dict[str, str]:
        """Say what is left, and the policy."""
        window = self.burst / self.rate
        return {
            "RateLimit-Policy": f'"default";q={self.burst};w={math.ceil(window)}',
            "RateLimit": f'"default";r={self.tokens};t={max(1, math.ceil(self.wait_s(now)))}',
        }


class _Window(Limiter):
    """``rate`` requests in each second, counted anew when it is over; the first begins with the first request."""

    def __init__(self, rate: float, burst: int) -> None:
        super().__init__(rate, int(rate))
        self._began = math.nan
        self._number, self._used = 0, 0

    def admits(self, now: float) -> bool:
        """Count the request in its second."""
        if math.isnan(self._began):
            self._began = now
        number = int(now - self._began)
        if number != self._number:
            self._number, self._used = number, 0
        if self._used >= self.rate:
            return False
        self._used += 1
        return True

    def refusal(self, now: float) -> dict[str, str]:
        """Say when this second is over, in whole seconds: always 1."""
        return {"Retry-After": str(math.ceil(self._began + self._number + 1 - now))}

    def least_s(self, n: int) -> float:
        """Return the seconds before the last window that is needed."""
        return float(math.ceil(n / self.rate) - 1)


#: Name → the kind of limiter.
LIMITERS: dict[str, type[Limiter]] = {
    "bucket, Retry-After-Ms": _Exact,
    "one-second windows, Retry-After": _Window,
    "bucket, RateLimit fields and Retry-After": _Fields,
    "bucket, 429 alone": _Bucket,
}


class _Limited(Instant):
    """A connection to the platform behind one limiter."""

    def __init__(self, limiter: Limiter, clock: Callable[[], float]) -> None:
        super().__init__()
        self._limiter, self._clock = limiter, clock

    def infer(self, asked: Asked) -> None:
        """Answer, or say 429."""
        now = self._clock()
        if self._limiter.admits(now):
            self._limiter.accepted += 1
            self.answer(asked, self._limiter.note(now))
            return
        self._limiter.limited += 1
        self.reply(429, b'{"error":"Too many requests."}', self._limiter.refusal(now))

    def about(self, path: str) -> object | None:
        """Say how many requests were let through and how many were not."""
        if path != "/stats":
            return None
        return {"accepted": self._limiter.accepted, "limited": self._limiter.limited}


def limited_connection(
    kind: str, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[], Instant]:
    """Return what makes connections to one platform behind the limiter of this name in :data:`LIMITERS`."""
    limiter = LIMITERS[kind](rate, burst)
    return lambda: _Limited(limiter, clock)


if __name__ == "__main__":
    serve_until_orphaned(limited_connection(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))

"""How many requests a platform bears: halve when it says "too many", grow slowly while it does not, wait when told."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ttca.errors import TransportError

__all__ = ["Throttle"]

# Requests in flight gained by a whole round of answers.
_GROWTH = 0.5
# The first wait where a platform says "too many" and not for how long; doubled each time in a row, up to the last.
_FIRST_HOLD_S, _LAST_HOLD_S = 0.05, 5.0
# Members on many machines who were told the same moment must not all come back in it.
_JITTER, _MOST_JITTER_S = 0.02, 0.2
# Of a pace of more requests than this in one window the beginning is forgotten, which only makes it stricter.
_MOST_REMEMBERED = 100_000
_LOOK_AGAIN_S = 0.1


class Throttle:
    """What one platform allows, learned from its answers. Safe to use from many threads.

    Parameters
    ----------
    clock : callable
        Monotonic seconds; tests pass their own.
    rng : random.Random, optional
        Where the jitter of waits comes from.

    Notes
    -----
    Additive increase, multiplicative decrease (Chiu and Jain, 1989), on requests in flight: a 429 halves them, once for
    all that were sent before it; a round of answers adds half a request. Waits are per member, because limits are per
    key. *Published* rule, *our* constants. A limit that the platform states is kept by a sliding window, which no
    bucket or fixed window of the same numbers refuses.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
        self._clock, self._rng = clock, rng or random.Random()
        self._changed = threading.Condition()
        self._limit = math.inf
        self._in_flight = 0
        self._sent = self._halved_at = 0
        self._held: dict[str, float] = {}
        self._told_at: dict[str, int] = {}
        self._in_a_row: dict[str, int] = {}
        self._paces: dict[str, dict[float, deque[float]]] = {}

    @property
    def limit(self) -> float:
        """How many requests may be in flight; infinite until the platform has said "too many"."""
        return self._limit

    def enter(
        self,
        member: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int | None:
        """Wait until this member may send, and count the request as in flight.

        Parameters
        ----------
        member : str
        sleep : callable
            Seconds to wait; may return early.
        stopped : callable
            Whether waiting has become pointless.

        Returns
        -------
        int or None
            What :meth:`leave` needs; None where it was stopped.
        """
        while not stopped():
            with self._changed:
                wait = self._wait_s(member)
                if wait <= 0:
                    if self._in_flight < self._limit:
                        return self._begin(member)
                    self._changed.wait(_LOOK_AGAIN_S)
                    continue
            sleep(wait)
        return None

    def keep_to(self, member: str, limits: Mapping[float, int]) -> None:
        """Send no more of this member's requests in any so many seconds than a platform states that it allows.

        Parameters
        ----------
        member : str
        limits : mapping of float to int
            Seconds to requests.
        """
        paces = self._paces.get(member, {})
        if {s: p.maxlen for s, p in paces.items()} == {s: min(n, _MOST_REMEMBERED) for s, n in limits.items()}:
            return
        if limits:
            with self._changed:
                known = self._paces.get(member, {})
                self._paces[member] = {
                    s: deque(known.get(s, ()), maxlen=min(n, _MOST_REMEMBERED)) for s, n in limits.items()
                }

    def _wait_s(self, member: str) -> float:
        """Return the seconds until this member may send, 0 or less for now."""
        now = self._clock()
        waits = [self._held.get(member, -math.inf) - now]
        for seconds, sent in self._paces.get(member, {}).items():
            if len(sent) == sent.maxlen:
                waits.append(sent[0] + seconds - now)
        return max(waits)

    def _begin(self, member: str) -> int:
        for sent in self._paces.get(member, {}).values():
            sent.append(self._clock())
        self._in_flight += 1
        self._sent += 1
        return self._sent

    def leave(self, ticket: int, member: str, error: Exception | None = None) -> None:
        """Count a request as ended, and learn from how it ended.

        Parameters
        ----------
        ticket : int
            What :meth:`enter` returned.
        member : str
            Who paid.
        error : Exception, optional
            What it ended with, if not with an answer.
        """
        with self._changed:
            self._in_flight -= 1
            if error is None:
                self._in_a_row.pop(member, None)
                if self._limit < math.inf:
                    self._limit += _GROWTH / self._limit
            elif isinstance(error, TransportError):
                self._refused(ticket, member, error)
            self._changed.notify()

    @contextmanager
    def slot(self, member: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Wait until this member may send; what the body raises, or that it does not, is how the request ended."""
        ticket = self.enter(member, sleep=sleep)
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
            raise
        finally:
            if ticket is not None:
                self.leave(ticket, member, problem)

    def hold(self, member: str, seconds: float) -> None:
        """Let this member's next request wait so long."""
        until = self._clock() + seconds + self._rng.uniform(0.0, min(_JITTER * seconds, _MOST_JITTER_S))
        with self._changed:
            self._held[member] = max(until, self._held.get(member, -math.inf))

    def _refused(self, ticket: int, member: str, error: TransportError) -> None:
        wait = error.retry_after
        if error.status == 429 and ticket > self._halved_at:
            self._limit = max(1.0, min(self._limit, self._in_flight + 1) / 2)
            self._halved_at = self._sent
        # Others of the same round are refused for the same reason, and say nothing new.
        if ticket <= self._told_at.get(member, 0) or not error.retryable:
            return
        if wait is None and error.status == 429:
            times = self._in_a_row.get(member, 0)
            wait = min(_FIRST_HOLD_S * 2.0 ** min(times, 30), _LAST_HOLD_S)
            self._in_a_row[member] = times + 1
        if wait is not None:
            self._told_at[member] = self._sent
            self.hold(member, wait)

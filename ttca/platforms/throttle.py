"""How many requests a platform bears: begin with one, halve where it is too much, grow slowly, wait when told."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ttca.errors import ChargeState, TransportError, Trouble
from ttca.platforms.base import Credential, Platform
from ttca.telling import tell_outage, tell_wait

__all__ = ["Throttle", "come_again", "come_back", "lane", "throttle_of"]

# Requests in flight gained by a whole round of answers.
_GROWTH = 0.5
# The first wait where a platform says "too many" and not for how long; doubled each time in a row, up to the last.
_FIRST_HOLD_S, _LAST_HOLD_S = 0.05, 5.0
# Members on many machines who were told the same moment must not all come back in it.
_JITTER, _MOST_JITTER_S = 0.02, 0.2
# Stated limits of more requests than this are not kept count of: a 429 will tell.
_MOST_REMEMBERED = 100_000
_LOOK_AGAIN_S = 0.1
# Answers that take longer than this share of what we wait for one, and this often the fastest, wait in a queue there.
# Requests in flight have doubled while such an answer waited, and those sent last will wait twice as long.
_LATE, _QUEUED = 0.25, 2.0
# With so few of the requests in flight as before, an answer from a queue takes no more than that share of the time.
_FEWER = 0.75
# Waits that end so near to each other are told to people as one.
_SAME_MOMENT_S = 1.0
# A limit nobody states shows where so many bursts in a row bring about the same number of answers, no fewer than this,
# before the platform says "come back in w seconds"; it is kept for so many w, a hair more slowly, and learned again.
_ALIKE, _FEWEST_ALIKE, _KEPT_WINDOWS, _SLOWER = 3, 10, 100, 1.01


def lane(platform: Platform, credential: Credential) -> str:
    """Return whose limits a request falls under: the *name* of its key's variable, empty where there is no key."""
    return credential.key_variable or getattr(platform, "key_variable", None) or ""


def throttle_of(platform: Platform, *, clock: Callable[[], float] = time.monotonic) -> Throttle:
    """Return the platform's own throttle, which its answers' headers also teach, or a new one."""
    own: Throttle | None = getattr(platform, "throttle", None)
    return own if own is not None else Throttle(platform.info.name, clock=clock)


def come_back(wait_s: float, longest_s: float) -> str:
    """Return the sentence that says when to come back after a wait that is too long to be waited out here."""
    seconds = math.ceil(wait_s)
    return f"It asks us to wait {seconds} s, longer than the {longest_s:g} s that we wait here. {come_again(wait_s)}"


def come_again(wait_s: float) -> str:
    """Return the sentence that says when to run again."""
    if wait_s > 10 * 365 * 86400:
        return "Run this again years from now."
    return f"Run this again after {datetime.fromtimestamp(time.time() + wait_s, UTC):%Y-%m-%d %H:%M:%S} UTC."


class Throttle:
    """What one platform allows, learned from its answers. Safe to use from many threads.

    Parameters
    ----------
    name : str
        The platform's, for errors.
    patience_s : float, optional
        How long an answer is waited for. With it the first round is one request, and each answer adds one until
        something is too much for the platform; without it all are let through until then.
    clock : callable
        Monotonic seconds; tests pass their own.
    rng : random.Random, optional
        Where the jitter of waits comes from.

    Notes
    -----
    Additive increase, multiplicative decrease (Chiu and Jain, 1989), on requests in flight: what came too fast, or was
    not answered in time, halves them, once for all that were sent before it; a round of answers adds half a request.
    Before the first such sign a round doubles them (Jacobson's slow start, 1988). *Published* rules, *our* constants.
    A server that works on one request after another shows it before it fails: an answer that took a quarter of
    our patience, though others came at once, halves too, so that no request times out in its queue. *Ours.* Waits and
    stated limits are per *lane* (:func:`lane`), because platforms count by key. A stated limit is kept by a sliding
    window over the requests sent since it was first stated, which is stricter than a bucket or a fixed window. One
    that only shows (n answers, then "come back in w seconds", again and again) is kept in the same way. Whoever waits w
    after each refusal comes later into every window, and at last too late for one. *Ours.*
    """

    def __init__(
        self,
        name: str = "the platform",
        *,
        patience_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._name = name
        self._clock, self._rng = clock, rng or random.Random()
        self._changed = threading.Condition()
        self._patience_s, self._fastest_s = patience_s, math.inf
        self._limit = math.inf if patience_s is None else 1.0
        # Whether nothing has been too much yet.
        self._starting = True
        # When each request in flight was sent and how many there were with it; how long a late one took, likewise.
        self._began: dict[int, tuple[float, int]] = {}
        self._late: tuple[float, int] = (0.0, 0)
        self._in_flight = 0
        self._sent = self._halved_at = 0
        self._held: dict[str, float] = {}
        self._told_at: dict[str, int] = {}
        self._told_until: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._told_why: set[str] = set()
        self._answered = False
        # The last request that was sent when the connection was found lost.
        self._lost_at: int | None = None
        self._in_a_row: dict[str, int] = {}
        self._paces: dict[str, dict[float, deque[float]]] = {}
        self._bursts: dict[str, _Bursts] = {}

    @property
    def limit(self) -> float:
        """How many requests may be in flight; infinite where nothing is known of how many are too many."""
        return self._limit

    @property
    def answered(self) -> bool:
        """Whether any request ended with an answer, so that the platform is there and as it must be."""
        return self._answered

    def lost(self, error: Exception, longest_s: float) -> None:
        """Tell, once until a later request is answered, that nothing can be reached, and how long it is tried."""
        with self._changed:
            known, self._lost_at = self._lost_at is not None, self._sent
        if not known:
            tell_outage(longest_s, error)

    def enter(
        self,
        lane: str,
        *,
        longest_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int | None:
        """Wait until this lane may send, and count the request as in flight.

        Parameters
        ----------
        lane : str
        longest_s : float
            The longest wait that the platform may have asked for.
        sleep : callable
            Seconds to wait; may return early.
        stopped : callable
            Whether waiting has become pointless.

        Returns
        -------
        int or None
            What :meth:`leave` needs; None where it was stopped.

        Raises
        ------
        TransportError
            If the wait would be longer than ``longest_s``; refunded, for nothing was sent, and it says when to come
            back.
        """
        while not stopped():
            with self._changed:
                wait = self.wait_s(lane)
                if wait <= 0:
                    if self._in_flight < self._limit:
                        return self._begin(lane)
                    self._changed.wait(_LOOK_AGAIN_S)
                    continue
            if wait > longest_s + _MOST_JITTER_S:
                error = TransportError(
                    "Expected to be allowed another request, got a rate limit that is used up. "
                    f"{come_back(wait, longest_s)}",
                    platform=self._name,
                    charge=ChargeState.REFUNDED,
                    retryable=False,
                    retry_after=wait,
                )
                error.come_back_s = wait
                raise error
            self._tell(lane, wait)
            sleep(wait)
        return None

    def leave(self, ticket: int, lane: str, error: Exception | None = None, *, sent: bool = True) -> None:
        """Count a request as ended, and learn from how it ended.

        Parameters
        ----------
        ticket : int
            What :meth:`enter` returned.
        lane : str
        error : Exception, optional
            What it ended with, if not with an answer.
        sent : bool
            False where nothing was sent after all: nothing is learned, and its place in a stated limit is free again.
        """
        with self._changed:
            self._in_flight -= 1
            began, together = self._began.pop(ticket, (self._clock(), 1))
            if not sent:
                for times in self._paces.get(lane, {}).values():
                    if times:
                        times.pop()
                if lane in self._bursts and self._bursts[lane].sent:
                    self._bursts[lane].sent.pop()
            elif error is None:
                self._bursts.setdefault(lane, _Bursts()).answers += 1
                self._in_a_row.pop(lane, None)
                self._answered = True
                # What was sent before may have been answered before, and be read late.
                if self._lost_at is not None and ticket > self._lost_at:
                    self._lost_at = None
                self._grow(ticket, self._clock() - began, together)
            elif isinstance(error, TransportError):
                self._refused(ticket, lane, error)
            self._changed.notify()

    @contextmanager
    def slot(self, lane: str, **waiting: Any) -> Iterator[None]:
        """Enter, and leave with what the body raises; None and arguments as for :meth:`enter`."""
        ticket = self.enter(lane, **waiting)
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
            raise
        finally:
            if ticket is not None:
                self.leave(ticket, lane, problem)

    def hold(self, lane: str, seconds: float) -> None:
        """Let this lane's next request wait so long."""
        until = self._clock() + seconds + self._rng.uniform(0.0, min(_JITTER * seconds, _MOST_JITTER_S))
        with self._changed:
            self._held[lane] = max(until, self._held.get(lane, -math.inf))

    def keep_to(self, lane: str, limits: Mapping[float, int]) -> None:
        """Send no more of this lane's requests in any so many seconds than a platform states that it allows.

        Parameters
        ----------
        lane : str
        limits : mapping of float to int
            Seconds to requests. Limits of so many requests that nobody here comes near are passed over.
        """
        limits = {seconds: n for seconds, n in limits.items() if n <= _MOST_REMEMBERED}
        if not limits or {s: times.maxlen for s, times in self._paces.get(lane, {}).items()} == limits:
            return
        with self._changed:
            known = self._paces.get(lane, {})
            self._paces[lane] = {s: deque(known.get(s, ()), maxlen=n) for s, n in limits.items()}

    def wait_s(self, lane: str) -> float:
        """Return the seconds until this lane may send, 0 or less for now, whatever is in flight."""
        now = self._clock()
        with self._changed:
            waits = [self._held.get(lane, -math.inf) - now]
            for seconds, times in self._paces.get(lane, {}).items():
                if len(times) == times.maxlen:
                    waits.append(times[0] + seconds - now)
            if lane in self._bursts:
                waits.append(self._bursts[lane].wait_s(now))
        return max(waits)

    def _tell(self, lane: str, wait: float) -> None:
        """Tell of a wait, once for all requests that wait for the same moment."""
        until = self._clock() + wait
        with self._changed:
            if until <= self._told_until.get(lane, -math.inf) + _SAME_MOMENT_S:
                return
            self._told_until[lane] = until
            # The first wait after a refusal is told in the platform's own words, however short it is.
            why = self._why.pop(lane, None) if lane not in self._told_why else None
            if why is not None:
                self._told_why.add(lane)
        tell_wait(wait, why or f"The limits of {self._name} allow no request before.", first=why is not None)

    def _begin(self, lane: str) -> int:
        for times in self._paces.get(lane, {}).values():
            times.append(self._clock())
        if lane in self._bursts:
            self._bursts[lane].sent.append(self._clock())
        self._in_flight += 1
        self._sent += 1
        self._began[self._sent] = self._clock(), self._in_flight
        return self._sent

    def _grow(self, ticket: int, took: float, together: int) -> None:
        """Let more requests in after an answer, or fewer where it had to wait too long for its turn there."""
        self._fastest_s = min(self._fastest_s, took)
        if self._is_late(took) and ticket > self._halved_at:
            late_s, most = self._late
            if together == 1 or (together <= _FEWER * most and took > _FEWER * late_s):
                # Fewer are no faster: it takes that long, as larger requests do, and not for waiting in a queue.
                self._fastest_s = took
        if self._is_late(took):
            if ticket > self._halved_at:
                self._late = took, together
            self._halve(ticket)
        elif self._starting:
            self._limit += 1.0
        else:
            self._limit += _GROWTH / self._limit

    def _is_late(self, took: float) -> bool:
        return self._patience_s is not None and took > max(_LATE * self._patience_s, _QUEUED * self._fastest_s)

    def _halve(self, ticket: int) -> None:
        """Let half as many requests in, once for all that were sent before."""
        if ticket > self._halved_at:
            self._starting = False
            self._limit = max(1.0, min(self._limit, self._in_flight + 1) / 2)
            self._halved_at = self._sent

    def _refused(self, ticket: int, lane: str, error: TransportError) -> None:
        wait = error.retry_after
        throttled = error.trouble is Trouble.THROTTLED
        if throttled or error.trouble is Trouble.TIMED_OUT:
            self._halve(ticket)
        # Others of the same round are refused for the same reason, and say nothing new.
        if ticket <= self._told_at.get(lane, 0) or not error.retryable:
            return
        if throttled:
            self._why[lane] = str(error.args[0])
            self._bursts.setdefault(lane, _Bursts()).ended(wait, self._clock())
            times = self._in_a_row.get(lane, 0)
            self._in_a_row[lane] = times + 1
            doubled = min(_FIRST_HOLD_S * 2.0 ** min(times, 30), _LAST_HOLD_S)
            # A platform that keeps saying "at once" is not believed for long.
            wait = doubled if wait is None else max(wait, doubled if times else 0.0)
        if wait is not None:
            self._told_at[lane] = self._sent
            self.hold(lane, wait)


@dataclass
class _Bursts:
    """What a lane's bursts between refusals were like, and the limit that shows in them.

    ``sent`` holds the latest requests of the limit that showed; while none has, it holds nothing.
    """

    answers: int = 0
    began: float = -math.inf
    alike: list[tuple[int, float]] = field(default_factory=list)
    window_s: float = 0.0
    until: float = -math.inf
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=0))

    def ended(self, wait: float | None, now: float) -> None:
        """Take note of a refusal that says how long to wait, and see whether a limit shows."""
        # What was learned, if anything, was refused: it does not hold, or no longer.
        self.sent = deque(maxlen=0)
        answers, was_burst = self.answers, wait is not None and now - self.began < wait
        self.answers, self.began = 0, now + (wait or 0.0)
        if wait is None or not was_burst or answers < _FEWEST_ALIKE:
            self.alike.clear()
            return
        self.alike = [*self.alike, (answers, wait)][-_ALIKE:]
        counts, waits = zip(*self.alike, strict=True)
        if len(counts) == _ALIKE and max(counts) - min(counts) <= 0.1 * min(counts) and max(waits) <= 1.1 * min(waits):
            self.sent = deque(maxlen=sum(counts) // _ALIKE)
            self.window_s, self.until = max(waits) * _SLOWER, now + _KEPT_WINDOWS * max(waits)

    def wait_s(self, now: float) -> float:
        """Return the seconds until the limit that showed allows another request."""
        if not self.sent.maxlen or len(self.sent) < self.sent.maxlen or now > self.until:
            return 0.0
        return self.sent[0] + self.window_s - now

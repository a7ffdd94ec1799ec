"""The query pool: many members ask one platform through one ledger, and nothing answered is asked twice."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError, QuotaError, RateError, TransportError, TTCAError
from ttca.images import Images, check_images
from ttca.names import canonical
from ttca.platforms.base import Credential, Platform
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.throttle import lane, throttle_of
from ttca.pooling.booking import Bill, Charge, Desk, Settlement
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.quotas import Quota, least_seconds, share_out
from ttca.progress import Reporter, silent

__all__ = ["Cost", "Member", "QueryPool"]

#: So many requests in a row without one usable answer mean that the platform, not the request, is at fault.
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Member:
    """One who takes part: a name, a quota in queries, the *name* of the variable with their key, and rates if any."""

    name: str
    quota: int
    key_variable: str | None = None
    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", canonical(self.name))

    @property
    def allowance(self) -> Quota:
        """What they can pay, in all and at a time."""
        return Quota(self.quota, self.per_second, self.per_minute, self.per_day)


@dataclass(frozen=True)
class Cost:
    """What asking would cost: of ``images``, ``answered`` are already in the ledger, ``queries`` must be paid.

    ``affordable`` is what the members, and the cap, still allow.
    """

    images: int
    answered: int
    queries: int
    affordable: int


@dataclass(frozen=True)
class _Request:
    """Queries that travel together; ``rows`` index the unique images."""

    member: str
    rows: tuple[int, ...]
    request_id: str


class QueryPool:
    """Members' quotas, a ledger and a platform, put together.

    Parameters
    ----------
    platform : Platform
    ledger : Ledger
    members : sequence of Member
        Every name once, every quota at least 1.
    cap : int, optional
        The most queries all members together may pay.
    concurrency : int
        The most *queries* in flight at once (a request of eight images is eight queries). A kill costs at most
        this many unknown attempts.
    batch : int
        The most images of one request; bounded by the platform's own limit and by ``concurrency``.
    policy : RetryPolicy, optional
    action : str, optional
        Under whose name queries are booked, where several actions share the ledger.
    overrule : bool, optional
        See :meth:`~ttca.pooling.ledger.Ledger.enrol`.
    reporter : Reporter, optional

    Raises
    ------
    ConfigError, QuotaError
        If a name stands twice, a quota is 0, or a number is out of range. No query was spent.
    """

    def __init__(
        self,
        platform: Platform,
        ledger: Ledger,
        members: Sequence[Member],
        *,
        cap: int | None = None,
        concurrency: int = 64,
        batch: int = 16,
        policy: RetryPolicy | None = None,
        action: str | None = None,
        overrule: bool | None = None,
        reporter: Reporter = silent,
    ) -> None:
        if concurrency < 1 or batch < 1:
            raise ConfigError(f"Expected concurrency and batch of at least 1, got {concurrency} and {batch}.")
        names = [m.name for m in members]
        if not names:
            raise ConfigError("Expected at least one member with a quota, got none. Queries need someone to pay.")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigError(f"Expected every member once, got {', '.join(twice)} more than once.")
        self.platform = platform
        self.ledger = ledger
        self.members = {m.name: m for m in members}
        self.policy = policy or RetryPolicy()
        self.action = action
        self._reporter = reporter
        self._in_flight = _InFlight()
        self._desk = Desk(ledger.book)
        self._throttle = throttle_of(platform, clock=self.policy.clock)
        self._lanes = {m.name: lane(platform, Credential(m.name, m.key_variable)) for m in members}
        self._concurrency = concurrency
        self._batch = batch
        ledger.enrol({m.name: m.allowance for m in members}, cap=cap, overrule=overrule)

    def cost(self, images: Images, *, epoch: str = "pool", repeat: int = 0) -> Cost:
        """Return what :meth:`ask` would have to pay; sends nothing."""
        checked, keys, known, _ = self._look_up(images, epoch, repeat)
        missing = {k for k, ok in zip(keys, known.tolist(), strict=True) if not ok}
        return Cost(len(checked), int(known.sum()), len(missing), self._affordable())

    def seconds(self, queries: int) -> float | None:
        """Return how long so many queries may take: what rates demand, or the platform's own pace so far if longer.

        None where nothing was asked yet and no member has a rate.
        """
        left = self.ledger.remaining()
        members = [(left.get(m.name, 0), m.allowance) for m in self.members.values()]
        rated = least_seconds(min(queries, sum(n for n, _ in members)), members)
        pace = self.ledger.pace()
        if pace is None:
            return rated or None
        size = self._size()
        return max(rated, -(-queries // size) * pace / max(1, self._concurrency // size))

    def ask(
        self,
        images: Images,
        *,
        purpose: str = "pool",
        epoch: str = "pool",
        repeat: int = 0,
        owners: Sequence[str] | None = None,
    ) -> Answers:
        """Return the platform's answers, one row per image, in order; ask only what the ledger does not hold.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            Identical images are asked once, also when several threads ask for them at one moment.
        purpose : str
            What the queries are booked as (``pool``, ``verification`` …).
        epoch : str
            Answers of another epoch are not reused: verification opens its own.
        repeat : int
            Ask the same image again (0, 1, 2 …) to measure the platform's own noise.
        owners : sequence of N str, optional
            Who brought each image, so that they can be forgotten.

        Returns
        -------
        Answers
            Failed rows are abstentions: the platform gave no usable answer after all retries. They are asked
            again by the next call.

        Raises
        ------
        ImageError
            Before anything is sent.
        QuotaError
            If the quotas or the cap do not allow the queries, before anything is sent; or if all members' rates
            leave no room for longer than we wait, saying when they will.
        PlatformError
            If the platform is down, refuses the key, or stops giving usable answers. Every answer that came is
            in the ledger; run again to go on.

        Notes
        -----
        A request whose answer cannot be read is asked again image by image, so that one image the platform cannot
        take does not cost the others their answers. Images that were unreadable alone in an earlier call do not speak
        against a platform that has answered others.
        """
        checked, keys, known, answers = self._look_up(images, epoch, repeat)
        if owners is not None and len(owners) != len(checked):
            raise ConfigError(f"Expected one owner for each of {len(checked)} images, got {len(owners)}.")
        missing: dict[bytes, int] = {}
        for i in np.flatnonzero(~known).tolist():
            missing.setdefault(keys[i], i)
        if not missing:
            return answers
        progress = _Progress(answers_before=bool(known.any()))
        task = _Task(checked, keys, owners, purpose, progress, self.ledger.now())
        while missing:
            with self._in_flight.claim(missing) as (mine, others):
                # Another thread may have had them answered between the look-up and the claim.
                there = self.ledger.lookup(mine, classes=len(self.platform.info.classes))[0]
                rows = [missing[k] for k, ok in zip(mine, there.tolist(), strict=True) if not ok]
                if rows:
                    self._ask_all(rows, task)
            if not others:
                break
            # Another thread asks these at this moment. Whatever it could not get is asked here after all.
            self._in_flight.wait_for(others)
            still = self.ledger.lookup(others, classes=len(self.platform.info.classes))[0]
            missing = {k: missing[k] for k, ok in zip(others, still.tolist(), strict=True) if not ok}
        # Read back, not collected: another process may have had the same query accepted first, and this call must
        # say what every later one will.
        return self.ledger.lookup(keys, classes=len(self.platform.info.classes))[1]

    def status(self) -> list[Balance]:
        """Return who paid what, one balance per member."""
        return self.ledger.balances()

    # -- inside -----------------------------------------------------------------------------------------------

    def _look_up(
        self, images: Images, epoch: str, repeat: int
    ) -> tuple[Images, list[bytes], NDArray[np.bool_], Answers]:
        info = self.platform.info
        checked = check_images(images, shape=info.image_shape)
        keys = self.ledger.keys(checked, fingerprint=info.fingerprint, epoch=epoch, repeat=repeat)
        known, answers = self.ledger.lookup(keys, classes=len(info.classes))
        return checked, keys, known, answers

    def _affordable(self) -> int:
        left = sum(v for m, v in self.ledger.remaining().items() if m in self.members)
        cap = self.ledger.cap_remaining()
        return left if cap is None else min(left, cap)

    def _ask_all(self, rows: Sequence[int], task: _Task) -> None:
        requests = self._plan(rows)
        with self._reporter.track(f"asking ({task.purpose})", len(rows), unit="queries") as advance:
            self._run(requests, task, advance)

    def _size(self) -> int:
        return min(self._batch, self.platform.info.max_batch, self._concurrency)

    def _plan(self, rows: Sequence[int]) -> list[_Request]:
        """Share the rows out to members and cut each share into requests that their rates allow."""
        cap = self.ledger.cap_remaining()
        if cap is not None and cap < len(rows):
            raise QuotaError(
                f"Expected {len(rows)} queries to stay within the pool's cap, but it leaves {cap}. "
                "Raise the cap or ask for fewer. Nothing was sent."
            )
        left = {m: n for m, n in self.ledger.remaining().items() if m in self.members}
        shares = share_out(len(rows), left)
        turns: list[tuple[int, str, tuple[int, ...]]] = []
        start = 0
        for member, share in shares.items():
            size = min(self._size(), self.members[member].allowance.largest_request or self._size())
            for turn, i in enumerate(range(start, start + share, size)):
                turns.append((turn, member, tuple(rows[i : min(i + size, start + share)])))
            start += share
        # Members take turns, so that one whose key is at its limit does not stand before all others.
        turns.sort(key=lambda t: t[0])
        return [_Request(member, part, uuid.uuid4().hex) for _, member, part in turns]

    def _run(self, requests: Sequence[_Request], task: _Task, advance: Callable[[int], None]) -> None:
        progress = task.progress
        waiting = itertools.count(len(requests) - 1, -1)

        def one(request: _Request) -> None:
            if progress.stopped:
                return
            try:
                self._ask_one(request, task)
                if next(waiting) < self._concurrency:
                    # Soon no request follows with which what came could be written.
                    self._desk.flush()
            except BaseException:
                # At once, not when the waiting thread wakes up: by then others would have been sent.
                progress.stop()
                raise
            advance(len(request.rows))

        # The first request goes alone: a platform that is down or speaks otherwise costs one request, not many.
        one(requests[0])
        self._desk.flush()
        progress.raise_if_stopped()
        executor = ThreadPoolExecutor(max(1, self._concurrency // self._size()), thread_name_prefix="ttca-pool")
        try:
            futures: list[Future[None]] = [executor.submit(one, r) for r in requests[1:]]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # Whatever ended the loop, requests in flight are settled before the error is shown.
            progress.stop()
            executor.shutdown(wait=True, cancel_futures=True)
            self._desk.flush()
            progress.go_on()
        progress.raise_if_stopped()

    def _ask_one(self, request: _Request, task: _Task) -> None:
        progress = task.progress
        batch = task.images[list(request.rows)]
        keys = [task.keys[i] for i in request.rows]
        owners = None if task.owners is None else [task.owners[i] for i in request.rows]

        def sleep(seconds: float) -> None:
            # Nothing that came lies about unwritten while this thread waits.
            self._desk.flush()
            (progress.sleep if self.policy.sleep is time.sleep else self.policy.sleep)(seconds)

        in_line = 0.0

        def once(number: int) -> Answers:
            nonlocal in_line
            while not progress.stopped:
                payer, began = self._payer(request), self.policy.clock()
                ticket = self._throttle.enter(
                    self._lanes[payer],
                    longest_s=self.policy.longest_wait_s,
                    sleep=sleep,
                    stopped=lambda: progress.stopped,
                )
                in_line += self.policy.clock() - began
                if ticket is None:
                    break
                sent, problem = False, None
                try:
                    charge = self._charge(payer, request, keys, owners, number, task)
                    if isinstance(charge, Charge):
                        payer, sent = charge.member, True
                        return self._attempt(batch, keys, charge, request, number)
                except Exception as error:
                    problem = error
                    raise
                finally:
                    self._throttle.leave(ticket, self._lanes[payer], problem, sent=sent)
                # A rate leaves no room yet; nobody waits for it in another's place.
                sleep(charge)
                in_line += charge
            # Another request ended the asking while this one waited for its turn.
            raise _Stopped

        try:
            answers = replace(self.policy, sleep=sleep).run(once, in_line=lambda: in_line)
        except AnswerError as error:
            if len(request.rows) > 1:
                # Which image spoiled the answer shows when each is asked alone.
                for row in request.rows:
                    if not progress.stopped:
                        self._ask_one(_Request(request.member, (row,), uuid.uuid4().hex), task)
            elif not (progress.answers_before and self.ledger.was_unusable(keys[0], before=task.began)):
                progress.failed(error)
        except TransportError as error:
            progress.failed(error)
        except _Stopped:
            pass
        else:
            progress.came(answers)

    def _attempt(self, batch: Images, keys: Sequence[bytes], charge: Charge, request: _Request, number: int) -> Answers:
        """Send a request that is paid for, and write how it ended."""
        info = self.platform.info
        credential = Credential(charge.member, self.members[charge.member].key_variable)
        try:
            answers = self.platform.attempt(batch, credential, request_id=request.request_id)
            if answers.scores.shape != (len(batch), len(info.classes)):
                raise AnswerError(
                    f"Expected answers about {len(batch)} images and {len(info.classes)} classes, got "
                    f"{answers.scores.shape[0]} and {answers.scores.shape[1]}. Check that the platform's classes "
                    "are as configured.",
                    platform=info.name,
                    request_id=request.request_id,
                )
        except TransportError as error:
            error.member, error.attempt = charge.member, number
            self.ledger.abandon(charge, error.charge, detail=str(error)[:500])
            raise
        # Written with the next request this thread has charged: a kill never finds two unwritten.
        self._desk.settle(Settlement(charge, keys, answers, "no usable answer in this row"))
        return answers

    def _payer(self, request: _Request) -> str:
        """Return the planned member, or one whose key may be used at once where the planned one's may not."""
        if len(set(self._lanes.values())) == 1 or self._throttle.wait_s(self._lanes[request.member]) <= 0:
            return request.member
        others = self._payers(request.member, len(request.rows))
        return next((m for m in others if self._throttle.wait_s(self._lanes[m]) <= 0), request.member)

    def _charge(
        self,
        first: str,
        request: _Request,
        keys: Sequence[bytes],
        owners: Sequence[str] | None,
        number: int,
        task: _Task,
    ) -> Charge | float:
        """Charge this member, or one with room left where that one has none; or return how long until somebody has."""
        n = len(keys)
        refusals: list[QuotaError] = []
        for payer in self._payers(first, n):
            try:
                return self._desk.charge(
                    Bill(payer, keys, request.request_id, number, task.purpose, self.action, owners)
                )
            except QuotaError as error:
                # Another thread may have spent what was left a moment ago.
                refusals.append(error)
        waits = [error.wait_s for error in refusals if isinstance(error, RateError)]
        if not waits:
            raise refusals[0]
        if min(waits) > self.policy.longest_wait_s:
            when = datetime.fromtimestamp(time.time() + min(waits), UTC)
            raise QuotaError(
                f"Expected a member whose rate leaves room for {n} queries, but the first has room in "
                f"{min(waits):.0f} s, longer than the {self.policy.longest_wait_s:g} s we wait here. Every answer "
                f"that came is in the ledger. Run this again after {when:%Y-%m-%d %H:%M:%S} UTC."
            )
        return min(waits)

    def _payers(self, planned: str, n: int) -> Iterator[str]:
        """Yield the planned member, then, only if that one is refused, the others with most left first."""
        yield planned
        left = {m: k for m, k in self.ledger.remaining().items() if m in self.members and m != planned and k >= n}
        for other in sorted(left, key=lambda m: (-left[m], m)):
            if n <= (self.members[other].allowance.largest_request or n):
                yield other


@dataclass(frozen=True)
class _Task:
    """What one call of :meth:`QueryPool.ask` is about."""

    images: Images
    keys: Sequence[bytes]
    owners: Sequence[str] | None
    purpose: str
    progress: _Progress
    began: float


class _InFlight:
    """Which queries are being asked by a thread of this pool, so that no other thread asks them too."""

    def __init__(self) -> None:
        self._claims: dict[bytes, threading.Event] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def claim(self, keys: Collection[bytes]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Give the keys that are this thread's to ask, and those that others are asking; free them at the end."""
        released = threading.Event()
        with self._lock:
            mine = [k for k in keys if k not in self._claims]
            others = [k for k in keys if k in self._claims]
            self._claims.update(dict.fromkeys(mine, released))
        try:
            yield mine, others
        finally:
            with self._lock:
                for key in mine:
                    del self._claims[key]
            released.set()

    def wait_for(self, keys: Sequence[bytes]) -> None:
        """Return once nobody asks any of these any more."""
        with self._lock:
            waiting = {self._claims[k] for k in keys if k in self._claims}
        for released in waiting:
            released.wait()


class _Stopped(Exception):
    """A request gave up because the asking has ended."""


class _Progress:
    """Whether usable answers come, and the reason to stop when they do not.

    ``answers_before``: the ledger holds answers to some of the images asked, so that the platform has been usable.
    """

    def __init__(self, *, answers_before: bool) -> None:
        self._lock = threading.Lock()
        self.answers_before = answers_before
        self._usable = False
        self._failures_in_a_row = 0
        self._error: TTCAError | None = None
        self._ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether no further request may begin."""
        return self._ended.is_set()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the asking ends: nobody waits for a request that will not be sent."""
        self._ended.wait(seconds)

    def came(self, answers: Answers) -> None:
        """Count a request that was answered."""
        if np.any(answers.resolved):
            with self._lock:
                self._usable, self._failures_in_a_row = True, 0

    def failed(self, error: TransportError) -> None:
        """Count a request that brought nothing; the first one ever, or three in a row, end the asking."""
        with self._lock:
            self._failures_in_a_row += 1
            unreadable = isinstance(error, AnswerError)
            hopeless = not error.retryable and not unreadable
            # One image that the platform cannot take may well be the first.
            first = not self._usable and not unreadable
            if hopeless or first or self._failures_in_a_row >= GIVE_UP_AFTER:
                self._error = self._error or error
                self._ended.set()

    def stop(self) -> None:
        """Let no further request begin."""
        self._ended.set()

    def go_on(self) -> None:
        """Let requests begin again, unless an error has ended the asking."""
        if self._error is None:
            self._ended.clear()

    def raise_if_stopped(self) -> None:
        """Raise the first error that ended the asking."""
        if self._error is not None:
            raise self._error

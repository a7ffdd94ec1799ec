"""The query pool: many members ask one platform through one ledger, and nothing answered is asked twice."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError, QuotaError, TransportError, TTCAError
from ttca.images import Images, check_images
from ttca.platforms.base import Credential, Platform
from ttca.platforms.retry import RetryPolicy
from ttca.pooling.ledger import Balance, Charge, Ledger
from ttca.pooling.quotas import share_out
from ttca.progress import Reporter, silent

__all__ = ["Cost", "Member", "QueryPool"]

#: So many requests in a row without one usable answer mean that the platform, not the request, is at fault.
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Member:
    """One who takes part: a name, a quota in queries, and the *name* of the variable with their key, if any."""

    name: str
    quota: int
    key_variable: str | None = None


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
        self._reporter = reporter
        self._concurrency = concurrency
        self._batch = batch
        ledger.enrol({m.name: m.quota for m in members}, cap=cap)

    def cost(self, images: Images, *, epoch: str = "pool", repeat: int = 0) -> Cost:
        """Return what :meth:`ask` would have to pay; sends nothing."""
        checked, keys, known, _ = self._look_up(images, epoch, repeat)
        missing = {k for k, ok in zip(keys, known.tolist(), strict=True) if not ok}
        return Cost(len(checked), int(known.sum()), len(missing), self._affordable())

    def ask(self, images: Images, *, purpose: str = "pool", epoch: str = "pool", repeat: int = 0) -> Answers:
        """Return the platform's answers, one row per image, in order; ask only what the ledger does not hold.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            Identical images are asked once.
        purpose : str
            What the queries are booked as (``pool``, ``verification`` …).
        epoch : str
            Answers of another epoch are not reused: verification opens its own.
        repeat : int
            Ask the same image again (0, 1, 2 …) to measure the platform's own noise.

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
            If the quotas or the cap do not allow the queries; before anything is sent.
        PlatformError
            If the platform is down, refuses the key, or stops giving usable answers. Every answer that came is
            in the ledger; run again to go on.
        """
        checked, keys, known, answers = self._look_up(images, epoch, repeat)
        first_row: dict[bytes, int] = {}
        for i in np.flatnonzero(~known).tolist():
            first_row.setdefault(keys[i], i)
        if not first_row:
            return answers
        rows = list(first_row.values())
        requests = self._plan(rows)
        progress = _Progress(answers_before=bool(known.any()))
        with self._reporter.track(f"asking ({purpose})", len(rows), unit="queries") as advance:
            self._run(requests, checked, keys, purpose, progress, advance)
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

    def _plan(self, rows: Sequence[int]) -> list[_Request]:
        """Share the rows out to members and cut each share into requests."""
        cap = self.ledger.cap_remaining()
        if cap is not None and cap < len(rows):
            raise QuotaError(
                f"Expected {len(rows)} queries to stay within the pool's cap, but it leaves {cap}. "
                "Raise the cap or ask for fewer. Nothing was sent."
            )
        left = {m: n for m, n in self.ledger.remaining().items() if m in self.members}
        shares = share_out(len(rows), left)
        size = min(self._batch, self.platform.info.max_batch, self._concurrency)
        requests: list[_Request] = []
        start = 0
        for member, share in shares.items():
            for i in range(start, start + share, size):
                part = tuple(rows[i : min(i + size, start + share)])
                requests.append(_Request(member, part, uuid.uuid4().hex))
            start += share
        return requests

    def _run(
        self,
        requests: Sequence[_Request],
        images: Images,
        keys: Sequence[bytes],
        purpose: str,
        progress: _Progress,
        advance: Callable[[int], None],
    ) -> None:
        def one(request: _Request) -> None:
            if progress.stopped:
                return
            try:
                self._ask_one(request, images, keys, purpose, progress)
            except BaseException:
                # At once, not when the waiting thread wakes up: by then others would have been sent.
                progress.stop()
                raise
            advance(len(request.rows))

        # The first request goes alone: a platform that is down or speaks otherwise costs one request, not many.
        one(requests[0])
        progress.raise_if_stopped()
        size = min(self._batch, self.platform.info.max_batch, self._concurrency)
        executor = ThreadPoolExecutor(max(1, self._concurrency // size), thread_name_prefix="ttca-pool")
        try:
            futures: list[Future[None]] = [executor.submit(one, r) for r in requests[1:]]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # Whatever ended the loop, requests in flight are settled before the error is shown.
            progress.stop()
            executor.shutdown(wait=True, cancel_futures=True)
        progress.raise_if_stopped()

    def _ask_one(
        self,
        request: _Request,
        images: Images,
        keys: Sequence[bytes],
        purpose: str,
        progress: _Progress,
    ) -> None:
        info = self.platform.info
        batch = images[list(request.rows)]
        batch_keys = [keys[i] for i in request.rows]

        def once(number: int) -> Answers:
            if number > 1 and progress.stopped:
                # Another request ended the asking while this one waited for its next try.
                raise _Stopped
            charge = self._charge(request.member, batch_keys, request.request_id, number, purpose)
            payer = charge.member
            credential = Credential(payer, self.members[payer].key_variable)
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
                error.member, error.attempt = payer, number
                self.ledger.abandon(charge, error.charge, detail=str(error)[:500])
                raise
            self.ledger.settle(charge, batch_keys, answers, detail="no usable answer in this row")
            return answers

        try:
            answers = self.policy.run(once)
        except TransportError as error:
            progress.failed(error)
        except _Stopped:
            pass
        else:
            progress.came(answers)

    def _charge(self, payer: str, keys: Sequence[bytes], request_id: str, number: int, purpose: str) -> Charge:
        """Charge the planned member, or, when retries have used up that quota, the one with most left."""
        try:
            return self.ledger.charge(payer, keys, request_id=request_id, number=number, purpose=purpose)
        except QuotaError:
            left = {m: n for m, n in self.ledger.remaining().items() if m in self.members and m != payer}
            for other in sorted((m for m in left if left[m] >= len(keys)), key=lambda m: (-left[m], m)):
                # Another thread may have spent what was left a moment ago.
                with contextlib.suppress(QuotaError):
                    return self.ledger.charge(other, keys, request_id=request_id, number=number, purpose=purpose)
            raise


class _Stopped(Exception):
    """A request gave up because the asking has ended."""


class _Progress:
    """Whether usable answers come, and the reason to stop when they do not.

    ``answers_before``: the ledger holds answers to some of the images asked, so that the platform has been usable.
    """

    def __init__(self, *, answers_before: bool) -> None:
        self._lock = threading.Lock()
        self._answers_before = answers_before
        self._usable = False
        self._failures_in_a_row = 0
        self._error: TTCAError | None = None
        self.stopped = False

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
            # An unreadable answer to the first request left over from last time must not block the others for ever.
            first = not self._usable and not (unreadable and self._answers_before)
            if hopeless or first or self._failures_in_a_row >= GIVE_UP_AFTER:
                self._error = self._error or error
                self.stopped = True

    def stop(self) -> None:
        """Let no further request begin."""
        self.stopped = True

    def raise_if_stopped(self) -> None:
        """Raise the first error that ended the asking."""
        if self._error is not None:
            raise self._error

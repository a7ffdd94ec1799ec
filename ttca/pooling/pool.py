"""The query pool: many members ask one platform through one ledger, and nothing answered is asked twice."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import (
    AnswerError,
    ChargeState,
    ConfigError,
    QuotaError,
    RateError,
    SanityError,
    TransportError,
    TTCAError,
)
from ttca.images import Images, check_images
from ttca.names import canonical
from ttca.platforms.base import Credential, Platform, longest_attempt_s
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.throttle import come_again, lane, throttle_of
from ttca.pooling.acquaintance import Acquaintance, Change, Question
from ttca.pooling.booking import Bill, Charge, Desk, Settlement, Words
from ttca.pooling.claims import Claim, Taken, this_process
from ttca.pooling.crew import work_through
from ttca.pooling.database import PATIENCE_S
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.lookup import Reader
from ttca.pooling.quotas import Quota, least_seconds, share_out
from ttca.pooling.recall import Recalled, recall
from ttca.pooling.room import Left
from ttca.pooling.seals import packed
from ttca.progress import Reporter, silent
from ttca.telling import LOG, tell_unreadable, tell_wait
from ttca.values import Value

__all__ = ["Cost", "Member", "Pace", "QueryPool", "Watch", "check_members"]

#: So many requests in a row without one usable answer mean that the platform, not the request, is at fault.
GIVE_UP_AFTER = 3
#: So many different reasons why answers cannot be read are told.
_MOST_TOLD = 10
#: So many images are asked one by one, at most, until one of them got a class.
TRIALS = 3
#: How often to look whether what somebody else asks has been answered.
_POLL_S = 0.1
#: A wait of so many looks is told to people.
_POLLS_UNSAID = 20


@dataclass(frozen=True)
class Member:
    """One who takes part: a name, a quota in queries, the *name* of the variable with their key, and rates if any.

    Raises
    ------
    ConfigError, QuotaError
        If the name is empty or not printable, or quota or a rate is no whole number of at least 1.
    """

    name: str
    quota: int
    key_variable: str | None = None
    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None

    def __post_init__(self) -> None:
        # A control character hides in a table, or breaks its lines.
        if not isinstance(self.name, str) or not canonical(self.name) or not canonical(self.name).isprintable():
            raise ConfigError(
                f"Expected the name of a member as printable text, got {self.name!r}. Give each member a name that "
                "people can read."
            )
        object.__setattr__(self, "name", canonical(self.name))
        self.allowance.check(self.name)

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


@dataclass(frozen=True)
class _Room:
    """A member whose rates leave room for so many queries, fewer than a request has."""

    member: str
    queries: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many queries are in flight, how they travel, and how patiently.

    Parameters
    ----------
    concurrency : int
        The most *queries* in flight at once (a request of eight images is eight queries). A kill costs at most
        this many unknown attempts.
    batch : int
        The most images of one request; bounded by the platform's own limit and by ``concurrency``.
    policy : RetryPolicy
        When a request is tried again, and how long a wait may be.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    concurrency: int = 64
    batch: int = 16
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.batch < 1:
            raise ConfigError(f"Expected concurrency and batch of at least 1, got {self.concurrency} and {self.batch}.")


@dataclass(frozen=True, eq=False, repr=False)
class Watch(Value):
    """Who looks at the first answers before more is paid.

    Parameters
    ----------
    parts : tuple of intp arrays
        Rows of the images that are asked by each look; each holds the one before.
    look : callable
        Gets the look's number, from 0, and the answers to all images as far as they came; what it raises ends the
        asking.
    """

    parts: tuple[NDArray[np.intp], ...]
    look: Callable[[int, Answers], None]


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
    pace : Pace, optional
        How many queries are in flight, how they travel, and how patiently.
    action : str, optional
        Under whose name queries are booked, where several actions share the ledger.
    overrule : bool, optional
        See :meth:`~ttca.pooling.ledger.Ledger.enrol`.
    reporter : Reporter, optional

    Attributes
    ----------
    accept_new_version : bool
        Whether a platform is paid that is another one than before, or read otherwise, though the ledger holds answers
        to the same images. Set it where that is meant.
    anyway : bool
        Whether to go on where the first images are all refused.

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
        pace: Pace | None = None,
        action: str | None = None,
        overrule: bool | None = None,
        reporter: Reporter = silent,
    ) -> None:
        self.platform = platform
        self.ledger = ledger
        self.members = _by_name(members)
        self.pace = pace or Pace()
        self.policy = self.pace.policy
        self.action = action
        self.accept_new_version = False
        self.anyway = False
        #: Reads quotas and cap anew, for whoever waits until somebody has raised them: the same members.
        self.quotas_now: Callable[[], tuple[Sequence[Member], int | None]] | None = None
        self.overrule = overrule
        #: Whether the platform has named a class, so that it is asked in the right way.
        self.met = False
        self.reporter = reporter
        # What a request may take, and its answer to be written while another program has the ledger locked.
        self._claimed_s = longest_attempt_s(platform) + PATIENCE_S
        self._desk = Desk(ledger.book)
        self._throttle = throttle_of(platform, clock=self.policy.clock)
        self._lanes = {m.name: lane(platform, Credential(m.name, m.key_variable)) for m in members}
        ledger.enrol({m.name: m.allowance for m in members}, cap=cap, overrule=overrule)

    def __repr__(self) -> str:
        return f"QueryPool({self.platform!r}, {self.ledger!r}, {len(self.members)} members)"

    def cost(self, images: Images, *, epoch: str = "pool", repeat: int = 0) -> Cost:
        """Return what :meth:`ask` would have to pay; sends nothing."""
        found = self._recall(self._checked(images), epoch, repeat)
        missing = {k for k, ok in zip(found.keys, found.known.tolist(), strict=True) if not ok}
        return Cost(len(found.keys), int(found.known.sum()), len(missing), self.ledger.left().of(self.members).total)

    def changed(self, images: Images, *, epoch: str = "pool", repeat: int = 0) -> Change | None:
        """Return what has changed of the platform where :meth:`ask` would pay answers again for it, else None."""
        checked = self._checked(images)
        question = Question(checked, epoch, repeat, self._recall(checked, epoch, repeat))
        return Acquaintance(self.ledger, self.action).change(self.platform.info, question)

    def in_hand(self, images: Images, *, epoch: str = "pool", repeat: int = 0) -> Answers:
        """Return what the ledger holds about images; sends nothing. What it does not hold is a failed row."""
        return self._recall(self._checked(images), epoch, repeat).answers

    def names(self, images: Images, *, epoch: str = "pool") -> list[bytes]:
        """Return the key of each image's query in the ledger, under which it is answered or is to be asked."""
        return self._recall(self._checked(images), epoch, 0).keys

    def seconds(self, queries: int, more: Sequence[Quota] = ()) -> float | None:
        """Return how long so many queries may take: what rates demand, or the platform's own pace so far if longer.

        None where nothing was asked yet and no member has a rate. ``more`` is what further members could pay.
        """
        left = self.ledger.left().members
        members = [(left.get(m.name, 0), m.allowance) for m in self.members.values()]
        return _seconds(
            queries, [*members, *((quota.total, quota) for quota in more)], self.ledger.pace(), self._size(), self.pace
        )

    def ask(
        self,
        images: Images,
        *,
        purpose: str = "pool",
        epoch: str = "pool",
        repeat: int = 0,
        owners: Sequence[str] | None = None,
        watch: Watch | None = None,
        shown: str | None = None,
    ) -> Answers:
        """Return the platform's answers, one row per image, in order; ask only what the ledger does not hold.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            Identical images are asked once, also when several threads or programs ask for them at one moment: what
            somebody else asks is waited for.
        purpose : str
            What the queries are booked as (``pool``, ``verification`` …).
        epoch : str
            Answers of another epoch are not reused: verification opens its own.
        repeat : int
            Ask the same image again (0, 1, 2 …) to measure the platform's own noise.
        owners : sequence of N str, optional
            Who brought each image, so that they can be forgotten.
        watch : Watch, optional
            Who looks at the first answers. Nobody does where nothing is to be paid.
        shown : str, optional
            What the bar says is asked for; the purpose by default.

        Returns
        -------
        Answers
            Failed rows are abstentions: the platform gave no usable answer after all retries. They are asked
            again by the next call.

        Raises
        ------
        ImageError
            Before anything is sent.
        ChangedPlatformError
            If the platform is another one than before, and answers would be paid again; see ``accept_new_version``.
            Before anything is sent.
        QuotaError
            If the quotas or the cap do not allow the queries, before anything is sent; or if all members' rates
            leave no room for longer than we wait, saying when they will.
        SanityError
            With a ``watch``: if a platform that has not named a class yet refuses the first images, and more are to be
            asked; or what the watch raises.
        PlatformError
            If the platform is down, refuses the key, or stops giving usable answers. Every answer that came is
            in the ledger; run again to go on.

        Notes
        -----
        With a ``watch``, a platform that has not named a class yet is asked about one image alone, and then the next;
        three in vain end the asking. Without one, the first request goes alone, and then all that may. Over HTTP the
        platform's throttle lets requests in flight grow from one (:class:`~ttca.platforms.throttle.Throttle`).

        A request whose answer cannot be read is asked again image by image, so that one image the platform cannot
        take does not cost the others their answers. Images that were unreadable alone in an earlier call do not speak
        against a platform that has answered others.
        """
        checked = self._checked(images)
        found = self._recall(checked, epoch, repeat)
        keys, known = found.keys, found.known
        if owners is not None and len(owners) != len(checked):
            raise ConfigError(f"Expected one owner for each of {len(checked)} images, got {len(owners)}.")
        missing: dict[bytes, int] = {}
        for i in np.flatnonzero(~known).tolist():
            missing.setdefault(keys[i], i)
        Acquaintance(self.ledger, self.action).check(
            self.platform.info, Question(checked, epoch, repeat, found), accept=self.accept_new_version
        )
        if not missing:
            return found.answers
        self.met |= bool(found.answers.answered.any())
        what = f"asking ({shown or purpose})"
        progress = _Progress(answers_before=bool(known.any()))
        try:
            # Parts, and what is asked once others have failed, count in one bar.
            with self.reporter.track(what, len(missing), unit="queries", at_most=True) as advance:
                cautious = watch is not None
                task = _Task(checked, keys, owners, purpose, progress, advance, self.ledger.now(), cautious)
                if watch is not None:
                    _ask_watched(self, watch, missing, task)
                _ask_missing(self, missing, task)
        except QuotaError as error:
            if self.quotas_now is not None:
                error.look_again = partial(_more_than, self, _left(self))
            raise
        # Read back, not collected: others have asked some of it, and this call must say what every later one will.
        return self.find(keys)

    def status(self) -> list[Balance]:
        """Return who paid what, one balance per member."""
        return self.ledger.balances()

    # -- inside -----------------------------------------------------------------------------------------------

    def _checked(self, images: Images) -> Images:
        return check_images(images, shape=self.platform.info.image_shape)

    def _recall(self, images: Images, epoch: str, repeat: int) -> Recalled:
        return recall(self.ledger, self.platform.info, images, self._reader(), epoch=epoch, repeat=repeat)

    def _reader(self) -> Reader:
        return Reader(self.platform.info.reading_mark, getattr(self.platform, "read_again", None))

    def find(self, keys: Sequence[bytes]) -> Answers:
        """Return what the ledger holds about queries."""
        return self.ledger.find(keys, classes=len(self.platform.info.classes), reader=self._reader()).answers

    def ask_all(self, rows: Sequence[int], left: Left, task: _Task) -> None:
        """Ask about these rows of a task."""
        self._run(_planned(rows, left, self.members, self._size()), task)

    def _size(self) -> int:
        return min(self.pace.batch, self.platform.info.max_batch, self.pace.concurrency)

    def _run(self, requests: Sequence[_Request], task: _Task) -> None:
        progress = task.progress
        waiting = itertools.count(len(requests) - 1, -1)

        def one(request: _Request) -> bool:
            if progress.stopped:
                return False
            try:
                sent = self._ask_one(request, task)
                if next(waiting) < self.pace.concurrency:
                    # Soon no request follows with which what came could be written.
                    self._desk.flush()
            except BaseException:
                # At once, not when the waiting thread wakes up: by then others would have been sent.
                progress.stop()
                raise
            task.advance(len(request.rows))
            return sent

        rest = deque(requests)
        most = max(1, self.pace.concurrency // self._size())
        try:
            work_through(rest, one, progress, alone=_Trial(self, rest, task).next, most=most)
        except KeyboardInterrupt:
            self.reporter.say("Interrupted. What is in flight is waited for, so that no answer is lost.")
            raise
        finally:
            self._desk.flush()
            progress.go_on()
        progress.raise_if_stopped()

    def _ask_one(self, request: _Request, task: _Task) -> bool:
        """Ask what nobody else asks or has asked, note what they ask, and return whether anything was sent."""
        progress = task.progress
        sent_any = False

        def sleep(seconds: float) -> None:
            # Nothing that came lies about unwritten while this thread waits.
            self._desk.flush()
            (progress.sleep if self.policy.sleep is time.sleep else self.policy.sleep)(seconds)

        in_line = 0.0
        later: list[_Request] = []

        def once(number: int) -> Answers:
            nonlocal in_line, request, sent_any
            while request.rows and not progress.stopped:
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
                    charge = self._charge(payer, request, number, task)
                    if isinstance(charge, Charge):
                        payer, sent = charge.member, True
                        sent_any = True
                        return self._attempt(charge, request, number, task)
                except Exception as error:
                    problem = error
                    raise
                finally:
                    self._throttle.leave(ticket, self._lanes[payer], problem, sent=sent)
                if isinstance(charge, _Room):
                    # Asked are as many as the day leaves; the others, which may have to wait, come after them.
                    later.append(_Request(request.member, request.rows[charge.queries :], uuid.uuid4().hex))
                    request = _Request(charge.member, request.rows[: charge.queries], uuid.uuid4().hex)
                    continue
                if isinstance(charge, Taken):
                    task.aside.extend(i for i in request.rows if task.keys[i] in charge.busy)
                    others = charge.answered | charge.busy
                    request = replace(request, rows=tuple(i for i in request.rows if task.keys[i] not in others))
                    continue
                # A rate leaves no room yet; nobody waits for it in another's place.
                tell_wait(charge, f"The rate of member {request.member!r} has no room before.")
                sleep(charge)
                in_line += charge
            # Another request ended the asking while this one waited for its turn, or somebody else asks all of it.
            raise _Stopped

        try:
            answers = replace(self.policy, sleep=sleep).run(once, in_line=lambda: in_line, throttle=self._throttle)
        except AnswerError as error:
            if len(request.rows) > 1:
                # Which image spoiled the answer shows when each is asked alone.
                self._ask_each(request, task)
            elif not (
                progress.answers_before and self.ledger.was_unusable(task.keys[request.rows[0]], before=task.began)
            ):
                progress.failed(error)
        except TransportError as error:
            progress.failed(error)
        except RateError:
            raise
        except QuotaError:
            if len(request.rows) == 1:
                raise
            # Others paid meanwhile: no member has as many left, several together may.
            self._ask_each(request, task)
        except _Stopped:
            pass
        else:
            progress.came(answers)
        for rest in later:
            if not progress.stopped:
                sent_any |= self._ask_one(rest, task)
        return sent_any

    def _ask_each(self, request: _Request, task: _Task) -> None:
        for row in request.rows:
            if not task.progress.stopped:
                self._ask_one(_Request(request.member, (row,), uuid.uuid4().hex), task)

    def _attempt(self, charge: Charge, request: _Request, number: int, task: _Task) -> Answers:
        """Send a request that is paid for, and write how it ended."""
        info = self.platform.info
        batch, keys = task.images[list(request.rows)], [task.keys[i] for i in request.rows]
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
            words = Words(info.reading_mark, packed(error.body))
            self.ledger.abandon(charge, error.charge, detail=str(error)[:500], keys=keys, words=words)
            raise
        except BaseException as error:
            # A fault of the platform's program, or Ctrl-C: nobody knows what became of it, and somebody else may ask.
            with contextlib.suppress(TTCAError):
                self.ledger.abandon(charge, ChargeState.UNKNOWN, detail=type(error).__name__)
            raise
        # Written with the next request this thread has charged: a kill never finds two unwritten.
        words = Words(info.reading_mark, packed(answers.body))
        self._desk.settle(Settlement(charge, keys, answers, "no usable answer in this row", words=words))
        return answers

    def _payer(self, request: _Request) -> str:
        """Return the planned member, or one whose key may be used at once where the planned one's may not."""
        if len(set(self._lanes.values())) == 1 or self._throttle.wait_s(self._lanes[request.member]) <= 0:
            return request.member
        others = _payers(self, request.member, len(request.rows))
        return next((m for m in others if self._throttle.wait_s(self._lanes[m]) <= 0), request.member)

    def _charge(self, first: str, request: _Request, number: int, task: _Task) -> Charge | Taken | _Room | float:
        """Charge this member, or one with room left where that one has none.

        Returns who else has the queries, or how long until some member has room, where nobody was charged; or, where
        that is too long, who has room for some of them now.
        """
        keys = [task.keys[i] for i in request.rows]
        owners = None if task.owners is None else [task.owners[i] for i in request.rows]
        claim = Claim(this_process(), self._claimed_s)
        n = len(keys)
        refused: dict[str, QuotaError] = {}
        for payer in _payers(self, first, n):
            try:
                return self._desk.charge(
                    Bill(payer, keys, request.request_id, number, task.purpose, self.action, owners, claim)
                )
            except QuotaError as error:
                # Another thread may have spent what was left a moment ago.
                refused[payer] = error
        longest = self.policy.longest_wait_s
        return _room_now(refused, longest) or _shortest_wait(list(refused.values()), n, longest)


def check_members(members: object) -> None:
    """Raise ConfigError where members are something else than a sequence of Member."""
    each = members if isinstance(members, Sequence) and not isinstance(members, str) else (members,)
    for one in each:
        if not isinstance(one, Member) or each is not members:
            shown = "one of them alone" if isinstance(one, Member) else repr(one)
            raise ConfigError(
                f"Expected members as a list of Member objects, got {shown}. Write members=[Member(name, quota=…), …]."
            )


def _by_name(members: Sequence[Member]) -> dict[str, Member]:
    check_members(members)
    names = [m.name for m in members]
    if not names:
        raise ConfigError(
            "Expected at least one member with a quota, got none. Queries need someone to pay: raise quota in [pool]."
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"Expected every member once, got {', '.join(twice)} more than once.")
    return {m.name: m for m in members}


def _left(pool: QueryPool) -> int:
    return pool.ledger.left().of(pool.members).total


def _more_than(pool: QueryPool, left: int) -> bool:
    """Take the quotas and the cap that hold now; return whether more can be paid than was left."""
    if pool.quotas_now is None:
        return False
    members, cap = pool.quotas_now()
    pool.members = _by_name(members)
    pool.ledger.enrol({m.name: m.allowance for m in members}, cap=cap, overrule=pool.overrule)
    return _left(pool) > left


@dataclass(frozen=True, eq=False, repr=False)
class _Task(Value):
    """What one call of :meth:`QueryPool.ask` is about; ``aside`` are rows that somebody else was asking.

    ``advance`` is told how many queries have ended.
    ``cautious``: a platform that has not named a class yet is asked image by image.
    """

    images: Images
    keys: Sequence[bytes]
    owners: Sequence[str] | None
    purpose: str
    progress: _Progress
    advance: Callable[[int], None]
    began: float
    cautious: bool
    aside: list[int] = field(default_factory=list)


def _planned(rows: Sequence[int], left: Left, members: Mapping[str, Member], size: int) -> list[_Request]:
    """Share the rows out to members and cut each share into requests of that size, or as their rates allow."""
    if left.cap is not None and left.cap < len(rows):
        raise QuotaError(
            f"Expected {len(rows)} queries to stay within the pool's cap, but it leaves {left.cap}. "
            "Raise the cap or ask for fewer. Nothing was sent."
        )
    turns: list[tuple[int, str, tuple[int, ...]]] = []
    start = 0
    for member, share in share_out(len(rows), left.members).items():
        step = min(size, members[member].allowance.largest_request or size)
        for turn, i in enumerate(range(start, start + share, step)):
            turns.append((turn, member, tuple(rows[i : min(i + step, start + share)])))
        start += share
    # Members take turns, so that one whose key is at its limit does not stand before all others.
    turns.sort(key=lambda t: t[0])
    return [_Request(member, part, uuid.uuid4().hex) for _, member, part in turns]


def _payers(pool: QueryPool, planned: str, n: int) -> Iterator[str]:
    """Yield the planned member, then, only if that one is refused, the others with most left first."""
    yield planned
    known = pool.ledger.left().of(pool.members).members
    left = {m: k for m, k in known.items() if m != planned and k >= n}
    for other in sorted(left, key=lambda m: (-left[m], m)):
        if n <= (pool.members[other].allowance.largest_request or n):
            yield other


def _room_now(refused: Mapping[str, QuotaError], longest_wait_s: float) -> _Room | None:
    """Return who can pay some of a request now, where all of it would have to wait too long for anybody's rate."""
    rates = {member: error for member, error in refused.items() if isinstance(error, RateError)}
    if not rates or min(error.wait_s for error in rates.values()) <= longest_wait_s:
        return None
    member, error = max(rates.items(), key=lambda item: item[1].room)
    return _Room(member, error.room) if error.room else None


def _shortest_wait(refusals: Sequence[QuotaError], n: int, longest_s: float) -> float:
    """Return the seconds until the first member's rate has room for so many queries; raise where that is too long."""
    waits = [error.wait_s for error in refusals if isinstance(error, RateError)]
    if not waits:
        raise refusals[0]
    if min(waits) > longest_s:
        error = RateError(
            f"Expected a member whose rate leaves room for {n} queries, but the first has room in "
            f"{math.ceil(min(waits))} s, longer than the {longest_s:g} s we wait here. Every answer that came is in "
            f"the ledger. {come_again(min(waits))}",
            wait_s=min(waits),
        )
        error.come_back_s = min(waits)
        raise error
    return min(waits)


def _ask_watched(pool: QueryPool, watch: Watch, missing: Mapping[bytes, int], task: _Task) -> None:
    """Ask about the first images, and let somebody look at what came before there are more."""
    # What all of it costs is refused before the first part of it is paid.
    held = pool.ledger.in_flight(list(missing))
    left = pool.ledger.left().of(pool.members)
    _planned([i for k, i in missing.items() if k not in held], left, pool.members, pool.pace.concurrency)
    for look, part in enumerate(watch.parts):
        _ask_missing(pool, {k: missing[k] for i in part.tolist() if (k := task.keys[i]) in missing}, task)
        watch.look(look, pool.find(task.keys))


def _ask_missing(pool: QueryPool, missing: dict[bytes, int], task: _Task) -> None:
    """Ask what nobody has answered yet, and wait for what others ask."""
    polls = 0
    while missing:
        # In this order: what others pay after the first line is in flight or answered by the second or third.
        left = pool.ledger.left().of(pool.members)
        held = pool.ledger.in_flight(list(missing))
        free = [k for k in missing if k not in held]
        there = pool.ledger.lookup(free, classes=len(pool.platform.info.classes))[0]
        rows = [missing[k] for k, ok in zip(free, there.tolist(), strict=True) if not ok]
        missing = {k: i for k, i in missing.items() if k in held}
        if rows:
            pool.ask_all(rows, left, task)
            missing |= {task.keys[i]: i for i in task.aside}
            task.aside.clear()
        elif missing:
            # Whatever the others could not get is asked here after all.
            polls += 1
            if polls == _POLLS_UNSAID:
                LOG.info("Others are asking %d of these queries; waiting for their answers.", len(missing))
                pool.reporter.say(f"Others are asking {len(missing)} of these queries; waiting for their answers.")
            pool.policy.sleep(_POLL_S)


class _Trial:
    """Which requests go alone: the first, for a platform that is down or speaks otherwise is to cost one, not many.

    Where the asking is cautious and the platform has not named a class yet, one image after the other until it does.
    What others ask or have asked is not sent, and does not count.
    """

    def __init__(self, pool: QueryPool, rest: deque[_Request], task: _Task) -> None:
        self._pool, self._rest, self._progress, self._cautious = pool, rest, task.progress, task.cautious
        self._sent = 0

    def next(self, sent: bool) -> _Request | None:
        """Return the next request that goes alone, None where no further one does; ``sent``: the one before was."""
        pool, rest, progress = self._pool, self._rest, self._progress
        self._sent += sent
        pool.met |= progress.named
        doubted = self._cautious and not (pool.met or pool.anyway)
        if not rest or (self._sent and not doubted) or (self._cautious and progress.named):
            return None
        if self._sent >= TRIALS:
            progress.end(_nothing_found(pool.platform.info.name))
            return None
        first = rest.popleft()
        if doubted and len(first.rows) > 1:
            rest.appendleft(_Request(first.member, first.rows[1:], uuid.uuid4().hex))
            first = replace(first, rows=first.rows[:1])
        return first


def _nothing_found(platform: str) -> SanityError:
    return SanityError(
        f"Expected {platform} to name a class for one of the first {TRIALS} images, got {TRIALS} refusals: it found "
        "nothing in them, or the table looks for its answers where there are none. Look at one answer: ttca ask FILE "
        "IMAGE. If these images are to be refused: ttca pool run --anyway (in Python, anyway=True). What "
        "was paid is kept."
    )


class _Stopped(Exception):
    """A request gave up: the asking has ended, or somebody else asks all of it."""


class _Progress:
    """Whether usable answers come, and the reason to stop when they do not.

    ``answers_before``: the ledger holds answers to some of the images asked, so that the platform has been usable.
    """

    def __init__(self, *, answers_before: bool) -> None:
        self._lock = threading.Lock()
        self.answers_before = answers_before
        self._usable = False
        self._told: set[str] = set()
        # Reasons that are told once answers come again, or the asking ends: the error that ends it says its own.
        self._to_tell: list[str] = []
        self._failures_in_a_row = 0
        self._error: TTCAError | None = None
        # What the first request that brought nothing ended with.
        self._doubt: TTCAError | None = None
        #: Whether an answer named a class.
        self.named = False
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
                self.named |= bool(answers.answered.any())
            self._tell()

    def failed(self, error: TransportError) -> None:
        """Count a request that brought nothing; the first one ever, or three in a row, end the asking."""
        if isinstance(error, AnswerError):
            self._note(str(error.args[0]))
        with self._lock:
            self._failures_in_a_row += 1
            unreadable = isinstance(error, AnswerError)
            hopeless = not error.retryable and not unreadable
            # One image that the platform cannot take may well be the first.
            first = not self._usable and not unreadable
            self._doubt = self._doubt or error
            if hopeless or first or self._failures_in_a_row >= GIVE_UP_AFTER:
                self._error = self._error or error
                self._ended.set()

    def end(self, error: TTCAError) -> None:
        """End the asking, with the first thing that went wrong or else with this error."""
        with self._lock:
            self._error = self._error or self._doubt or error
            self._ended.set()

    def _note(self, why: str) -> None:
        """Note why an answer cannot be read: rows would be missing without a word. Of rows the reading tells."""
        with self._lock:
            if why not in self._told and len(self._told) < _MOST_TOLD:
                self._to_tell.append(why)
            self._told.add(why)

    def _tell(self, but: str | None = None) -> None:
        """Tell what was noted, once."""
        with self._lock:
            told, self._to_tell = self._to_tell, []
        for why in told:
            if why != but:
                tell_unreadable(why)

    def stop(self) -> None:
        """Let no further request begin."""
        self._ended.set()

    def go_on(self) -> None:
        """Let requests begin again, unless an error has ended the asking."""
        if self._error is None:
            self._ended.clear()

    def raise_if_stopped(self) -> None:
        """Raise the first error that ended the asking."""
        self._tell(None if self._error is None else str(self._error.args[0]))
        if self._error is not None:
            raise self._error


def _seconds(
    queries: int, members: Sequence[tuple[int, Quota]], per_request: float | None, size: int, pace: Pace
) -> float | None:
    """Return what rates demand, or the platform's pace (seconds for a request of so many images) if that is longer."""
    rated = least_seconds(min(queries, sum(n for n, _ in members)), members)
    if per_request is None:
        return rated or None
    return max(rated, -(-queries // size) * per_request / max(1, pace.concurrency // size))

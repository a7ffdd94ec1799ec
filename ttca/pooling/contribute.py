"""Contributing: a member's own machine leases queries from a hub, asks the platform with its own key, reports back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ChargeState, QuotaError, TransportError, Trouble, TTCAError
from ttca.platforms.base import Credential, Platform
from ttca.platforms.throttle import come_again, come_back, lane, throttle_of
from ttca.pooling.allowance import Allowance, Effort, Reserved
from ttca.pooling.hub_client import MOST_QUERIES, HandedOut, HubAccess, HubClient, HubError, NothingNow, images_of
from ttca.pooling.ledger import Ledger
from ttca.pooling.outbox import Outbox
from ttca.progress import Reporter, silent
from ttca.telling import tell_wait

__all__ = ["Contribution", "Patience", "contribute"]

#: So many requests in a row that the platform did not answer end the contribution.
_GIVE_UP_AFTER = 3
# So many times in a row a member waits out that their platform says "too many".
_MOST_REFUSALS = 100
_LEAST_WAIT_S, _LONGEST_PAUSE_S = 0.05, 5.0
# Once the hub has had nothing for us for so long, we say so.
_UNSAID_S = 5.0
_NOTHING_SENT = "No query was sent."


@dataclass(frozen=True)
class Contribution:
    """What one run brought: queries sent (those surely not processed left out), usable answers, and why it ended.

    ``come_back_s`` says in how many seconds there may be more to ask, where waiting is all it needs.
    """

    queries: int
    answered: int
    ended: str
    come_back_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a member's machine waits.

    Parameters
    ----------
    hub_away_s, platform_away_s : float
        How long to wait for a hub that is away, and for a platform that has answered and cannot be reached any more.
    longest_wait_s : float
        The longest wait that the hub's rate, the member's own or the platform's ``Retry-After`` may ask for; beyond it
        the run ends and says when to come back.
    sleep : callable, optional
        Seconds to wait; tests pass their own.
    clock : callable, optional
        Seconds since the epoch, as the member's own ledger writes them; tests pass their own.
    """

    hub_away_s: float = 120.0
    platform_away_s: float = 120.0
    longest_wait_s: float = 60.0
    sleep: Callable[[float], None] | None = None
    clock: Callable[[], float] | None = None


def contribute(
    hub: HubAccess,
    platform: Platform,
    *,
    folder: Path,
    key_variable: str | None = None,
    effort: Effort | None = None,
    patience: Patience | None = None,
    reporter: Reporter = silent,
) -> Contribution:
    """Lease, ask and report until the hub has nothing left, or the member can or will pay no more.

    No more queries are leased or sent than ``effort`` allows all runs together, nor than the hub says at the start that
    the member can pay, whatever it says later. Those that the platform surely did not process do not count. What could
    not be delivered is kept, and delivered by the next run before anything is leased.

    Parameters
    ----------
    hub : HubAccess
        Which hub, and how to enter it.
    platform : Platform
        Made from the member's own file: URL, protocol and key never come from the hub.
    folder : Path
        Where the member's own books are, and what could not be delivered; made if there is none.
    key_variable : str, optional
        Name of the variable with the platform's key, starting with ``TTCA_KEY_``.
    effort : Effort, optional
        How much to ask, and how much at once.
    patience : Patience, optional
        How long to wait for the hub and the platform.
    reporter : Reporter

    Raises
    ------
    ConfigError
        If the token is missing, or the hub's platform is another one than the member's. No query was sent.
    HubError
        If the hub stays away, refuses the member or says what cannot be.
    SignatureError
        If a lease is not signed with the hub's key.
    TransportError
        If the platform is down or refuses the key.
    LedgerError
        If the member's own books cannot be read or written.

    Every error after the first query says how many were sent, and what is kept.
    """
    effort, patience = effort or Effort(), patience or Patience()
    interrupted = threading.Event()
    client = HubClient(
        hub,
        patience_s=patience.hub_away_s,
        sleep=patience.sleep or interrupted.wait,
        # Once it is interrupted, what a hub that is away has not taken is delivered by the next run.
        hurried=interrupted.is_set,
        say=reporter.say,
    )
    outbox = Outbox(folder / "undelivered", client)
    try:
        outbox.deliver_all(reporter.say)
    except HubError as error:
        _add(error, _NOTHING_SENT, outbox.told)
        raise
    info = client.check_platform(platform)
    me = client.get("/v1/me")
    remaining = me.count("remaining")
    credential = Credential(me.text("member", "a printable name", lambda v: v and v.isprintable()), key_variable)
    size = min(effort.size, info.max_batch, MOST_QUERIES)
    with Ledger(folder / "ledger.sqlite", clock=patience.clock) as ledger:
        allowance = Allowance(ledger, effort, remaining, fingerprint=info.fingerprint)
        worker = _Worker(client, outbox, allowance, platform, credential, patience, key=hub.key)
        worker.say = reporter.say
        try:
            with reporter.track("contributing", allowance.limit, unit="queries") as advance:
                worker.advance = advance
                worker.run(size, effort.concurrency, interrupted)
        except TTCAError as error:
            _add(error, worker.told, outbox.told)
            raise
        except KeyboardInterrupt:
            reporter.say(" ".join(filter(None, ("Interrupted.", worker.told, outbox.told))))
            raise
    return Contribution(worker.sent, worker.answered, worker.why, worker.come_back_s)


def _add(error: TTCAError, *sentences: str) -> None:
    """Let an error say more."""
    error.args = (" ".join(filter(None, (str(error.args[0]), *sentences))), *error.args[1:])


class _Worker:
    """What each thread of a contribution does, and what they count together."""

    def __init__(
        self,
        hub: HubClient,
        outbox: Outbox,
        allowance: Allowance,
        platform: Platform,
        credential: Credential,
        patience: Patience,
        *,
        key: str | None,
    ) -> None:
        self._hub, self._outbox, self._allowance, self._key = hub, outbox, allowance, key
        self._platform, self._credential = platform, credential
        self._ended = threading.Event()
        self._sleep: Callable[[float], Any] = patience.sleep or self._ended.wait
        self._longest_wait_s, self._away_s = patience.longest_wait_s, patience.platform_away_s
        self._clock = patience.clock or time.time
        self._away_since: float | None = None
        self._throttle, self._lane = throttle_of(platform), lane(platform, credential)
        self._lock = threading.Lock()
        self._failures = self._refusals = 0
        self.answered = 0
        self.why = ""
        self.come_back_s: float | None = None
        self.advance: Callable[[int], None] = lambda _n: None
        self.say: Callable[[str], None] = lambda _sentence: None
        # How long each thread has waited for the hub since the last lease, and whether that was said.
        self._idle_s, self._idle_told, self._threads = 0.0, False, 1

    @property
    def sent(self) -> int:
        """Queries sent, without those that the platform surely did not process."""
        return self._allowance.sent

    @property
    def told(self) -> str:
        """What was sent, for people."""
        if not self.sent:
            return _NOTHING_SENT
        return f"Queries sent: {self.sent}, of which {self.answered} were answered."

    def run(self, size: int, concurrency: int, interrupted: threading.Event) -> None:
        """Work in so many threads, with leases of that size, until there is a reason to stop."""
        self._threads = concurrency
        with ThreadPoolExecutor(concurrency, thread_name_prefix="ttca-contribute") as executor:
            futures = [executor.submit(self._take_turns, size) for _ in range(concurrency)]
            try:
                wait(futures)
            except BaseException:
                interrupted.set()
                raise
            finally:
                # Interrupted: what is in flight is brought back, and nothing new is leased.
                self._ended.set()
        for future in futures:
            future.result()

    def _take_turns(self, size: int) -> None:
        """Take leases until there is a reason to stop; any error ends all threads."""
        try:
            while not self._ended.is_set():
                self._one_turn(size)
        except BaseException:
            self._ended.set()
            raise

    def _one_turn(self, size: int) -> None:
        """Wait for a turn at the platform, then for a lease; sleep only with neither in hand."""
        sent, problem, pause, why = False, None, None, ""
        with self._allowance.share(size, self._ended.is_set) as share:
            if self._ended.is_set():
                return
            if share.size:
                # The turn first: while a lease is held, nobody else can ask its queries.
                ticket = self._throttle.enter(
                    self._lane, longest_s=self._longest_wait_s, sleep=self._sleep, stopped=self._ended.is_set
                )
                if ticket is None:
                    return
                try:
                    lease = self._leased(share.size)
                    if isinstance(lease, float):
                        pause, why = lease, "The hub has no query for us before."
                    elif lease is not None:
                        sent = True
                        problem = self._answer(lease, share)
                finally:
                    self._throttle.leave(ticket, self._lane, problem, sent=sent)
        if not share.size:
            pause, why = self._own_wait(), "You set per_day, which leaves no room before."
        if problem is not None:
            pause, why = self._failed(problem), str(problem)
        if pause:
            tell_wait(pause, why)
            self._sleep(pause)

    def _own_wait(self) -> float | None:
        """Return how long the member's own rate makes us wait; end the run where that is too long, or no room comes."""
        refused = self._allowance.refusal()
        if isinstance(refused, str):
            self._end(refused)
            return None
        if refused.wait_s > self._longest_wait_s:
            self._end(f"You set per_day, and it is used up. {come_again(refused.wait_s)}", refused.wait_s)
            return None
        return max(_LEAST_WAIT_S, refused.wait_s)

    def _leased(self, size: int) -> HandedOut | float | None:
        """Return a lease, or how long to wait for one, or None where there will be none."""
        try:
            given = self._hub.lease(size)
        except HubError as error:
            if error.kind == "rate" and error.retry_after is not None and error.retry_after <= self._longest_wait_s:
                return self._idle(error.retry_after, str(error))
            if error.kind in ("quota", "rate", "quarantined"):
                self._end(str(error), error.retry_after if error.kind == "rate" else None)
                if error.kind == "quarantined":
                    raise
                return None
            raise
        if given is None:
            self._end("Nothing is left for you to ask.")
        elif isinstance(given, NothingNow):
            if given.wait_s > self._longest_wait_s:
                self._end(
                    f"The hub has no query for you now. {come_back(given.wait_s, self._longest_wait_s)}", given.wait_s
                )
                return None
            most = "" if given.free_in_s is None else f" in at most {given.free_in_s:.0f} s"
            return self._idle(
                given.wait_s,
                "All that is left is out with members, perhaps with a run of yours that was stopped. What does not "
                f"come back is free again{most}.",
            )
        else:
            with self._lock:
                self._idle_s, self._idle_told = 0.0, False
        return given

    def _idle(self, wait_s: float, why: str) -> float:
        """Return how long to wait for the hub, and say why where it has had nothing for a while."""
        with self._lock:
            self._idle_s += wait_s / self._threads
            is_new = self._idle_s >= _UNSAID_S and not self._idle_told
            self._idle_told |= is_new
        if is_new:
            self.say(f"Waiting for the hub. {why}")
        return max(_LEAST_WAIT_S, wait_s)

    def _answer(self, lease: HandedOut, share: Reserved) -> TransportError | None:
        """Ask what was leased and bring back what came, or return the error where nothing did."""
        info = self._platform.info
        try:
            images = images_of(lease, info, self._key)
            paid = self._allowance.pay(share, images, lease.wished)
        except QuotaError:
            # Another program of the member's has spent what was left; the next turn says what follows.
            self._outbox.bring(lease, "failure", _failure(ChargeState.REFUNDED, "not sent"))
            return None
        except TTCAError as error:
            self._outbox.bring(lease, "failure", _failure(ChargeState.REFUNDED, str(error)))
            raise
        try:
            answers = self._platform.attempt(images, self._credential, request_id=lease.name)
            if answers.scores.shape != (len(images), len(info.classes)):
                raise AnswerError(f"Expected answers for {len(images)} images, got {len(answers)}.", platform=info.name)
        except TransportError as error:
            self._allowance.failed(share, paid, error.charge, type(error).__name__)
            self._outbox.bring(lease, "failure", _failure(error.charge, str(error)))
            return error
        try:
            self._outbox.bring(lease, "answers", {"answers": _rows(answers)})
        finally:
            self._allowance.came(paid, answers)
            with self._lock:
                self._failures = self._refusals = 0
                self._away_since = None
                self.answered += int(answers.resolved.sum())
        self.advance(len(images))
        return None

    def _failed(self, error: TransportError) -> float:
        """Return how long to wait before the next lease, or raise where there should be none."""
        wait = error.retry_after or 0.0
        with self._lock:
            if wait > self._longest_wait_s:
                error.args = (f"{error.args[0]} {come_back(wait, self._longest_wait_s)}", *error.args[1:])
                error.come_back_s = wait
                raise error
            if error.trouble is Trouble.THROTTLED:
                # How long it is waited out the throttle knows.
                self._refusals += 1
                if self._refusals > _MOST_REFUSALS:
                    raise error
                return 0.0
            self._failures += 1
            if error.trouble is Trouble.UNREACHABLE and self._throttle.answered:
                # It answered before: it restarts, and costs nothing until then.
                now = self._clock()
                self._away_since = now if self._away_since is None else self._away_since
                left = self._away_since + self._away_s - now
                if left > 0:
                    self._throttle.lost(error, left)
                    return min(left, 0.2 * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE_S)
            hopeless = not error.retryable and not isinstance(error, AnswerError)
            if hopeless or self._failures >= _GIVE_UP_AFTER:
                raise error
            return error.retry_after if error.retry_after is not None else 0.2 * 2**self._failures

    def _end(self, why: str, come_back_s: float | None = None) -> None:
        with self._lock:
            if not self.why:
                self.why, self.come_back_s = why, come_back_s
        self._ended.set()


def _failure(charge: ChargeState, detail: str) -> dict[str, Any]:
    return {"charge": charge.value, "detail": detail[:500]}


def _rows(answers: Answers) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(answers)):
        scores = answers.scores[i].astype(float).tolist()
        rows.append(
            {
                "status": Status(int(answers.status[i])).name.lower(),
                "label": None if answers.labels[i] < 0 else int(answers.labels[i]),
                "scores": None
                if all(math.isnan(s) for s in scores)
                else [None if math.isnan(s) else s for s in scores],
                "resolution": float(answers.resolution[i]),
            }
        )
    return rows

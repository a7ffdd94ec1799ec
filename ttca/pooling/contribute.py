"""Contributing: a member's own machine leases queries from a hub, asks the platform with its own key, reports back."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
import requests.auth
import tenacity
import urllib3

from ttca.answers import Answers, Status
from ttca.data.decoding import decode_rgb
from ttca.errors import AnswerError, ChargeState, ConfigError, DataError, ImageError, TransportError, TTCAError
from ttca.images import Images, check_images
from ttca.masking import masked, secret
from ttca.platforms.base import Credential, Platform
from ttca.platforms.limits import retry_after_s
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.sending import checked_url, new_session
from ttca.platforms.throttle import come_back, lane, throttle_of
from ttca.progress import Reporter, silent
from ttca.signing import check_key, check_lease, lease_bytes
from ttca.telling import tell_retry, tell_wait

__all__ = ["MOST_QUERIES", "Contribution", "Effort", "HubError", "Patience", "contribute"]

_VARIABLE = re.compile(r"TTCA_HUB_[A-Za-z0-9_]+")
# As the hub names leases; nothing that could lead a request to another path.
_LEASE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LARGEST = 2**63 - 1
# No hub needs a member to wait for longer than a leap year.
_LONGEST_WAIT_S = 366 * 86400.0
#: The most queries of one lease.
MOST_QUERIES = 64
#: So many requests in a row that the platform did not answer end the contribution.
_GIVE_UP_AFTER = 3
# So many times in a row a member waits out that their platform says "too many".
_MOST_REFUSALS = 100
_MOST_BYTES = 256 * 2**20
_LEAST_WAIT_S = 0.05
# How often a thread that waits for queries to be given back looks whether the run has ended.
_LOOK_AGAIN_S = 0.1


class HubError(TTCAError):
    """The hub cannot be reached, refuses the member, or speaks otherwise than expected."""

    def __init__(self, message: str, *, kind: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.status, self.retry_after = kind, status, retry_after


@dataclass(frozen=True)
class Contribution:
    """What one run brought: queries sent (those surely not processed left out), usable answers, and why it ended."""

    queries: int
    answered: int
    ended: str


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a member's machine asks, and how much at once.

    Parameters
    ----------
    size : int
        The most queries of one request.
    concurrency : int
        Requests at once.
    most_queries : int, optional
        The most queries of this run.

    Raises
    ------
    ConfigError
        If a number is less than 1.
    """

    size: int = 16
    concurrency: int = 2
    most_queries: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.concurrency < 1:
            raise ConfigError(f"Expected size and concurrency of at least 1, got {self.size} and {self.concurrency}.")
        if self.most_queries is not None and self.most_queries < 1:
            raise ConfigError(
                f"Expected most_queries of at least 1, got {self.most_queries}. Leave it out for no limit."
            )


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a member's machine waits.

    Parameters
    ----------
    hub_away_s : float
        How long to wait for a hub that is away.
    longest_wait_s : float
        The longest wait that the hub's rate or the platform's ``Retry-After`` may ask for; beyond it the run ends and
        says when to come back.
    sleep : callable, optional
        Seconds to wait; tests pass their own.
    """

    hub_away_s: float = 120.0
    longest_wait_s: float = 60.0
    sleep: Callable[[float], None] | None = None


class _Token(requests.auth.AuthBase):
    """Puts the token into a request as it goes out, so that no frame or exception of ours holds it."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {secret(self._variable)}"
        return request


class _Hub:
    """The hub's API as a member sees it. Requests that may be repeated are, while the hub is away."""

    def __init__(self, url: str, token_variable: str, *, patience_s: float, sleep: Callable[[float], Any]) -> None:
        self._url, _, _ = checked_url(url)
        self._token_variable, self._patience_s, self._sleep = token_variable, patience_s, sleep
        self._local = threading.local()

    def get(self, path: str) -> _Reply:
        return self._patiently("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> _Reply:
        return self._patiently("POST", path, body)

    def _patiently(self, method: str, path: str, body: dict[str, Any] | None) -> _Reply:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, HubError) and e.status in (0, 502, 503, 504)),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_delay(self._patience_s),
            sleep=self._sleep,
            before_sleep=_tell_of_hub,
            reraise=True,
        )
        said: _Reply = retrying(self._once, method, path, body)
        return said

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> _Reply:
        status, headers, content = self._sent(method, path, body)
        try:
            read = read_json(content)
        except UnreadableError:
            read = None
        said: dict[str, Any] = read if isinstance(read, dict) else {}
        if status == 200 and not said:
            # Cut short on its way: everything may be asked again.
            raise HubError(f"Expected JSON from the hub at {self._url}, got something else.", status=0)
        if status != 200:
            sentence, kind = said.get("error"), said.get("kind")
            if not isinstance(sentence, str) or not sentence.strip():
                sentence = f"status {status} and no sentence that says why"
            raise HubError(
                f"The hub at {self._url} says: {self._shown(sentence, 1000)}",
                kind=kind if isinstance(kind, str) else "",
                status=status,
                retry_after=retry_after_s(headers, now=time.time()),
            )
        return _Reply(said)

    def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request, and return status, headers and body of what came back."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session()
        try:
            reply = session.request(
                method,
                self._url + path,
                json=body,
                auth=_Token(self._token_variable),
                timeout=(5.0, 60.0),
                allow_redirects=False,
                stream=True,
            )
            with contextlib.closing(reply):
                content = reply.raw.read(_MOST_BYTES + 1, decode_content=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            problem = self._shown(str(error), 300)
        else:
            if len(content) > _MOST_BYTES:
                raise HubError(f"Expected at most {_MOST_BYTES} bytes from the hub, got more.", status=200)
            return reply.status_code, reply.headers, content
        # Raised out here, so that no exception of requests, which holds the sent headers, becomes its context.
        raise HubError(f"Expected the hub at {self._url} to answer, got: {problem}. Is it running?", status=0)

    def _shown(self, text: str, length: int) -> str:
        """Return what a stranger wrote, short, on one line and without the token."""
        return excerpt(masked(text, self._token_variable), length)


def _tell_of_hub(state: tenacity.RetryCallState) -> None:
    error = None if state.outcome is None else state.outcome.exception()
    if isinstance(error, HubError):
        tell_retry(state.attempt_number, state.upcoming_sleep, error)


class _Reply:
    """What the hub said. Each field is checked when it is read; what came instead is not shown, for it may be a key."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def text(self, name: str, what: str, sound: Callable[[str], object]) -> str:
        """Return a text that is as described."""
        value = self._said.get(name)
        if not isinstance(value, str) or not sound(value):
            raise self._wrong(name, what)
        return value

    def lease(self) -> str | None:
        """Return the name of a lease, None where there is none."""
        if self._said.get("lease") is None:
            return None
        return self.text("lease", "1 to 64 letters, digits, _ or -", _LEASE.fullmatch)

    def images(self, most: int) -> list[str]:
        """Return the texts of a lease's images."""
        value = self._said.get("images")
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or not 1 <= len(value) <= most:
            raise self._wrong("images", f"1 to {most} images, no more than asked for")
        return value

    def signature(self) -> str:
        """Return the signature of a lease, empty where there is none."""
        return self.text("signature", "text", bool) if self._said.get("signature") is not None else ""

    def count(self, name: str) -> int:
        """Return a whole number of 0 or more."""
        value = self._said.get(name)
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise self._wrong(name, "a whole number of 0 or more")
        return value

    def number(self, name: str, most: float, otherwise: float) -> float:
        """Return a number of 0 or more, or what holds where the hub does not say."""
        value = self._said.get(name)
        if value is None:
            return otherwise
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise self._wrong(name, f"a number from 0 to {most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return whether something is so; it is not where the hub does not say."""
        value = self._said.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def _wrong(self, name: str, what: str) -> HubError:
        got = "something else" if self._said.get(name) is not None else "none"
        return HubError(
            f"Expected {name} from the hub as {what}, got {got}. Ask whoever runs the hub to correct it.", status=200
        )


@dataclass(frozen=True)
class _Lease:
    """What the hub handed out under the name that was wished for: its own name for it, images and a signature."""

    wished: str
    name: str
    images: list[str]
    signature: str


@dataclass
class _Share:
    """The queries that one turn may send, and those it sent."""

    size: int
    sent: int = 0


class _Allowance:
    """How many queries one run may send, and has sent, whichever of its threads sends them."""

    def __init__(self, total: int, why: str) -> None:
        self._changed = threading.Condition()
        self._left = total
        sent = "nothing was sent" if not total else "that one is sent" if total == 1 else f"all {total} are sent"
        #: What there is to say once none is left; ``why`` there were no more.
        self.all_sent = f"{why}; {sent}."
        self._out = 0
        self.sent = 0

    @contextmanager
    def share(self, most: int, stopped: Callable[[], bool]) -> Iterator[_Share]:
        """Reserve queries before they are leased, and take back those that were not sent; 0 where all are sent."""
        with self._changed:
            # What another thread reserved may come back.
            while not self._left and self._out and not stopped():
                self._changed.wait(_LOOK_AGAIN_S)
            share = _Share(0 if stopped() else min(most, self._left))
            self._left -= share.size
            self._out += share.size
        try:
            yield share
        finally:
            with self._changed:
                self._out -= share.size
                self._left += share.size - share.sent
                self.sent += share.sent
                self._changed.notify_all()


def contribute(
    hub: str,
    platform: Platform,
    *,
    token_variable: str,
    key_variable: str | None = None,
    hub_key: str | None = None,
    effort: Effort | None = None,
    patience: Patience | None = None,
    reporter: Reporter = silent,
) -> Contribution:
    """Lease, ask and report until the hub has nothing left, or the member can or will pay no more.

    No more queries are leased or sent than ``effort.most_queries``, nor than the hub says at the start that the member
    can pay, whatever it says later. Those that the platform surely did not process do not count.

    Parameters
    ----------
    hub : str
        Its URL; HTTPS off this machine.
    platform : Platform
        Made from the member's own file: URL, protocol and key never come from the hub.
    token_variable : str
        Name of the variable with the hub's token, starting with ``TTCA_HUB_``.
    key_variable : str, optional
        Name of the variable with the platform's key, starting with ``TTCA_KEY_``.
    hub_key : str, optional
        The collective's public key: leases that it did not sign for this platform are not asked.
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
        If ``hub_key`` is no public key, or a lease is not signed with it.
    TransportError
        If the platform is down or refuses the key.

    Every error after the first query says how many were sent.
    """
    if not _VARIABLE.fullmatch(token_variable):
        raise ConfigError(
            "Expected token_variable to be the name of an environment variable that starts with TTCA_HUB_, never the "
            "token itself."
        )
    problem = _token_problem(token_variable)
    if problem is not None:
        raise ConfigError(problem)
    hub_key = None if hub_key is None else check_key(hub_key)
    effort, patience = effort or Effort(), patience or Patience()
    ended = threading.Event()
    # Also once it is interrupted, what was paid for waits for a hub that is away.
    client = _Hub(hub, token_variable, patience_s=patience.hub_away_s, sleep=patience.sleep or time.sleep)
    fingerprint = client.get("/v1/action").text("fingerprint", "text", bool)
    info = platform.info
    # Whoever reads the same answers otherwise would be taken for a liar.
    if fingerprint != info.fingerprint_as_read:
        raise ConfigError(
            f"Expected the hub to use the platform in your own file ({info.name}), got a different fingerprint. Do not "
            "contribute. Compare URL, protocol, model, classes and options with whoever runs the hub. No query was "
            "sent."
        )
    me = client.get("/v1/me")
    remaining = me.count("remaining")
    most = effort.most_queries
    limit = remaining if most is None else min(most, remaining)
    worker = _Worker(
        client,
        platform,
        Credential(me.text("member", "a printable name", lambda v: v and v.isprintable()), key_variable),
        min(effort.size, info.max_batch, MOST_QUERIES),
        patience,
        ended,
        hub_key,
        _Allowance(limit, f"You set most_queries = {limit}" if limit == most else f"The hub said you can pay {limit}"),
    )
    try:
        with reporter.track("contributing", limit, unit="queries") as advance:
            worker.advance = advance
            with ThreadPoolExecutor(effort.concurrency, thread_name_prefix="ttca-contribute") as executor:
                futures = [executor.submit(worker.run) for _ in range(effort.concurrency)]
                try:
                    wait(futures)
                finally:
                    # Interrupted: what is in flight is brought back, and nothing new is leased.
                    ended.set()
        for future in futures:
            future.result()
    except TTCAError as error:
        error.args = (f"{error.args[0]} {worker.told}", *error.args[1:])
        raise
    except KeyboardInterrupt:
        reporter.say(f"Interrupted. {worker.told}")
        raise
    return Contribution(worker.sent, worker.answered, worker.why)


def _token_problem(variable: str) -> str | None:
    """Return what is wrong with a token, never the token."""
    token = os.environ.get(variable, "").strip()
    if not token.isascii() or not token or not token.isprintable() or " " in token:
        return f"Expected the hub's token in the environment variable {variable}, got none or an unusable one. Set it."
    return None


class _Worker:
    """What each thread of a contribution does, and what they count together."""

    def __init__(
        self,
        hub: _Hub,
        platform: Platform,
        credential: Credential,
        size: int,
        patience: Patience,
        ended: threading.Event,
        hub_key: str | None,
        allowance: _Allowance,
    ) -> None:
        self._hub, self._platform, self._credential = hub, platform, credential
        self._size, self._ended, self._allowance, self._hub_key = size, ended, allowance, hub_key
        self._sleep: Callable[[float], Any] = patience.sleep or ended.wait
        self._longest_wait_s = patience.longest_wait_s
        self._throttle, self._lane = throttle_of(platform), lane(platform, credential)
        self._lock = threading.Lock()
        self._failures = self._refusals = 0
        self.answered = 0
        self.why = ""
        self.advance: Callable[[int], None] = lambda _n: None

    @property
    def sent(self) -> int:
        """Queries sent, without those that the platform surely did not process."""
        return self._allowance.sent

    @property
    def told(self) -> str:
        """What was sent, for people."""
        if not self.sent:
            return "No query was sent."
        return f"Queries sent: {self.sent}, of which {self.answered} were answered."

    def run(self) -> None:
        """Take leases until there is a reason to stop; any error ends all threads."""
        try:
            while not self._ended.is_set():
                self._one_turn()
        except BaseException:
            self._ended.set()
            raise

    def _one_turn(self) -> None:
        """Wait for a turn at the platform, then for a lease; sleep only with neither in hand."""
        with self._allowance.share(self._size, self._ended.is_set) as share:
            if self._ended.is_set():
                return
            if not share.size:
                self._end(self._allowance.all_sent)
                return
            # The turn first: while a lease is held, nobody else can ask its queries.
            ticket = self._throttle.enter(
                self._lane, longest_s=self._longest_wait_s, sleep=self._sleep, stopped=self._ended.is_set
            )
            if ticket is None:
                return
            sent, problem, pause = False, None, None
            try:
                lease = self._leased(share.size)
                if isinstance(lease, float):
                    pause = lease
                elif lease is not None:
                    sent = True
                    problem = self._answer(lease, share)
            finally:
                self._throttle.leave(ticket, self._lane, problem, sent=sent)
        if problem is not None:
            pause = self._failed(problem)
        if pause:
            tell_wait(pause, "The hub has no query for us before." if problem is None else str(problem))
            self._sleep(pause)

    def _leased(self, size: int) -> _Lease | float | None:
        """Return a lease, or how long to wait for one, or None where there will be none."""
        name = secrets.token_urlsafe(16)
        try:
            given = self._hub.post("/v1/leases", {"size": size, "name": name})
        except HubError as error:
            if error.kind == "rate" and error.retry_after is not None and error.retry_after <= self._longest_wait_s:
                return max(_LEAST_WAIT_S, error.retry_after)
            if error.kind in ("quota", "rate", "quarantined"):
                self._end(str(error))
                if error.kind == "quarantined":
                    raise
                return None
            raise
        lease = given.lease()
        if lease is not None:
            given.number("expires_at", _LARGEST, 0.0)
            return _Lease(name, lease, given.images(size), given.signature())
        if given.flag("done"):
            self._end("Nothing is left for you to ask.")
            return None
        wait = given.number("retry_after", _LONGEST_WAIT_S, 1.0)
        if wait > self._longest_wait_s:
            self._end(f"The hub has no query for you now. {come_back(wait, self._longest_wait_s)}")
            return None
        return max(_LEAST_WAIT_S, wait)

    def _answer(self, lease: _Lease, share: _Share) -> TransportError | None:
        path = f"/v1/leases/{lease.name}"
        try:
            if self._hub_key is not None:
                # Under the name that was wished for: a signed lease of another time or member is none of ours.
                content = lease_bytes(lease.wished, self._platform.info.fingerprint_as_read, lease.images)
                check_lease(content, lease.signature, self._hub_key)
            images = self._decoded(lease.images)
        except TTCAError as error:
            self._hub.post(f"{path}/failure", {"charge": ChargeState.REFUNDED.value, "detail": str(error)[:500]})
            raise
        share.sent = len(images)
        try:
            answers = self._platform.attempt(images, self._credential, request_id=lease.name)
            if answers.scores.shape != (len(images), len(self._platform.info.classes)):
                raise AnswerError(
                    f"Expected answers for {len(images)} images, got {len(answers)}.",
                    platform=self._platform.info.name,
                )
        except TransportError as error:
            self._hub.post(f"{path}/failure", {"charge": error.charge.value, "detail": str(error)[:500]})
            if error.charge is ChargeState.REFUNDED:
                share.sent = 0
            return error
        self._hub.post(f"{path}/answers", {"answers": _rows(answers)})
        with self._lock:
            self._failures = self._refusals = 0
            self.answered += int(answers.resolved.sum())
        self.advance(len(images))
        return None

    def _failed(self, error: TransportError) -> float:
        """Return how long to wait before the next lease, or raise where there should be none."""
        wait = error.retry_after or 0.0
        with self._lock:
            if wait > self._longest_wait_s:
                error.args = (f"{error.args[0]} {come_back(wait, self._longest_wait_s)}", *error.args[1:])
                raise error
            if error.status == 429:
                # How long it is waited out the throttle knows.
                self._refusals += 1
                if self._refusals > _MOST_REFUSALS:
                    raise error
                return 0.0
            self._failures += 1
            hopeless = not error.retryable and not isinstance(error, AnswerError)
            if hopeless or self._failures >= _GIVE_UP_AFTER:
                raise error
            return error.retry_after if error.retry_after is not None else 0.2 * 2**self._failures

    def _end(self, why: str) -> None:
        with self._lock:
            self.why = self.why or why
        self._ended.set()

    def _decoded(self, encoded: list[str]) -> Images:
        """Return the lease's images; a hub's word is checked like a stranger's."""
        shape = self._platform.info.image_shape
        try:
            files = [base64.b64decode(text, validate=True) for text in encoded]
            return check_images(np.stack([decode_rgb(file, size=shape[:2]) for file in files]), shape=shape)
        except (binascii.Error, ValueError, TypeError, DataError, ImageError):
            raise HubError(
                f"Expected PNG images of shape {shape} in base64 from the hub, got something else."
            ) from None


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

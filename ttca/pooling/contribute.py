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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
import tenacity
import urllib3

from ttca.answers import Answers, Status
from ttca.data.decoding import decode_rgb
from ttca.errors import AnswerError, ChargeState, ConfigError, DataError, ImageError, TransportError, TTCAError
from ttca.images import Images, check_images
from ttca.platforms.base import Credential, Platform
from ttca.platforms.http import checked_url, new_session, retry_after_s
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.platforms.throttle import come_back, lane, throttle_of
from ttca.progress import Reporter, silent

__all__ = ["MOST_QUERIES", "Contribution", "HubError", "contribute"]

_VARIABLE = re.compile(r"TTCA_HUB_[A-Za-z0-9_]+")
#: The most queries of one lease.
MOST_QUERIES = 64
#: So many requests in a row that the platform did not answer end the contribution.
_GIVE_UP_AFTER = 3
# So many times in a row a member waits out that their platform says "too many".
_MOST_REFUSALS = 100
_MOST_BYTES = 256 * 2**20


class HubError(TTCAError):
    """The hub cannot be reached, refuses the member, or speaks otherwise than expected."""

    def __init__(self, message: str, *, kind: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.status, self.retry_after = kind, status, retry_after


@dataclass(frozen=True)
class Contribution:
    """What one run brought: queries sent, usable answers, and why it ended."""

    queries: int
    answered: int
    ended: str


class _Hub:
    """The hub's API as a member sees it. Requests that may be repeated are, while the hub is away."""

    def __init__(self, url: str, token: str, *, patience_s: float, sleep: Callable[[float], Any]) -> None:
        self._url, _, _ = checked_url(url)
        self._token, self._patience_s, self._sleep = token, patience_s, sleep
        self._local = threading.local()

    def get(self, path: str) -> dict[str, Any]:
        return self._patiently("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._patiently("POST", path, body)

    def _patiently(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, HubError) and e.status in (0, 502, 503, 504)),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_delay(self._patience_s),
            sleep=self._sleep,
            reraise=True,
        )
        said: dict[str, Any] = retrying(self._once, method, path, body)
        return said

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session()
        try:
            reply = session.request(
                method,
                self._url + path,
                json=body,
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=(5.0, 60.0),
                allow_redirects=False,
                stream=True,
            )
            with contextlib.closing(reply):
                content = reply.raw.read(_MOST_BYTES + 1, decode_content=False)
            if len(content) > _MOST_BYTES:
                raise HubError(f"Expected at most {_MOST_BYTES} bytes from the hub, got more.", status=200)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(error).replace(self._token, "…")
            raise HubError(
                f"Expected the hub at {self._url} to answer, got: {reason}. Is it running?", status=0
            ) from None
        try:
            read = read_json(content)
        except UnreadableError:
            read = None
        said: dict[str, Any] = read if isinstance(read, dict) else {}
        if reply.status_code == 200 and not said:
            # Cut short on its way: everything may be asked again.
            raise HubError(f"Expected JSON from the hub at {self._url}, got something else.", status=0)
        if reply.status_code != 200:
            sentence = said.get("error") or f"status {reply.status_code} and no JSON"
            raise HubError(
                f"The hub at {self._url} says: {str(sentence)[:1000]}",
                kind=str(said.get("kind", "")),
                status=reply.status_code,
                retry_after=retry_after_s(reply.headers, now=time.time()),
            )
        return said


def contribute(
    hub: str,
    platform: Platform,
    *,
    token_variable: str,
    key_variable: str | None = None,
    size: int = 16,
    concurrency: int = 2,
    patience_s: float = 120.0,
    longest_wait_s: float = 60.0,
    sleep: Callable[[float], None] | None = None,
    reporter: Reporter = silent,
) -> Contribution:
    """Lease, ask and report until the hub has nothing left, or the member can pay no more.

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
    size : int
        The most queries of one request.
    concurrency : int
        Requests at once.
    patience_s : float
        How long to wait for a hub that is away.
    longest_wait_s : float
        The longest wait that the hub's rate or the platform's ``Retry-After`` may ask for; beyond it the run ends and
        says when to come back.
    sleep : callable, optional
        Seconds to wait; tests pass their own.
    reporter : Reporter

    Raises
    ------
    ConfigError
        If the token is missing, or the hub's platform is another one than the member's. No query was sent.
    HubError
        If the hub stays away or refuses the member.
    TransportError
        If the platform is down or refuses the key.
    """
    if not _VARIABLE.fullmatch(token_variable):
        raise ConfigError("Expected token_variable as the name of a variable TTCA_HUB_…, never the token itself.")
    token = os.environ.get(token_variable, "").strip()
    if not token.isascii() or not token or not token.isprintable() or " " in token:
        raise ConfigError(f"Expected the hub's token in the variable {token_variable}, got none. Set it.")
    if size < 1 or concurrency < 1:
        raise ConfigError(f"Expected size and concurrency of at least 1, got {size} and {concurrency}.")
    ended = threading.Event()
    # Also once it is interrupted, what was paid for waits for a hub that is away.
    client = _Hub(hub, token, patience_s=patience_s, sleep=sleep or time.sleep)
    said = client.get("/v1/action")
    info = platform.info
    if said.get("fingerprint") != info.fingerprint:
        raise ConfigError(
            f"Expected the hub's action to be about the platform of your own file ({info.name}), got another "
            "fingerprint. Do not contribute: compare URL, protocol, model and classes with whoever runs the hub. "
            "No query was sent."
        )
    me = client.get("/v1/me")
    worker = _Worker(
        client,
        platform,
        Credential(str(me["member"]), key_variable),
        min(size, info.max_batch, MOST_QUERIES),
        sleep or ended.wait,
        longest_wait_s,
        ended,
    )
    with reporter.track("contributing", int(me["remaining"]), unit="queries") as advance:
        worker.advance = advance
        with ThreadPoolExecutor(concurrency, thread_name_prefix="ttca-contribute") as executor:
            futures = [executor.submit(worker.run) for _ in range(concurrency)]
            try:
                wait(futures)
            finally:
                # Interrupted: what is in flight is brought back, and nothing new is leased.
                ended.set()
    for future in futures:
        future.result()
    return Contribution(worker.queries, worker.answered, worker.why)


class _Worker:
    """What each thread of a contribution does, and what they count together."""

    def __init__(
        self,
        hub: _Hub,
        platform: Platform,
        credential: Credential,
        size: int,
        sleep: Callable[[float], Any],
        longest_wait_s: float,
        ended: threading.Event,
    ) -> None:
        self._hub, self._platform, self._credential = hub, platform, credential
        self._size, self._sleep, self._longest_wait_s, self._ended = size, sleep, longest_wait_s, ended
        self._throttle, self._lane = throttle_of(platform), lane(platform, credential)
        self._lock = threading.Lock()
        self._failures = self._refusals = 0
        self.queries = self.answered = 0
        self.why = ""
        self.advance: Callable[[int], None] = lambda _n: None

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
        # The turn first: while a lease is held, nobody else can ask its queries.
        ticket = self._throttle.enter(
            self._lane, longest_s=self._longest_wait_s, sleep=self._sleep, stopped=self._ended.is_set
        )
        if ticket is None:
            return
        sent, problem, pause = False, None, None
        try:
            lease = self._leased()
            if isinstance(lease, float):
                pause = lease
            elif lease is not None:
                sent = True
                problem = self._answer(*lease)
        finally:
            self._throttle.leave(ticket, self._lane, problem, sent=sent)
        if problem is not None:
            pause = self._failed(problem)
        if pause:
            self._sleep(pause)

    def _leased(self) -> tuple[str, Any] | float | None:
        """Return a lease and its images, or how long to wait for one, or None where there will be none."""
        try:
            given = self._hub.post("/v1/leases", {"size": self._size, "name": secrets.token_urlsafe(16)})
        except HubError as error:
            if error.kind == "rate" and error.retry_after is not None and error.retry_after <= self._longest_wait_s:
                return error.retry_after
            if error.kind in ("quota", "rate", "quarantined"):
                self._end(str(error))
                if error.kind == "quarantined":
                    raise
                return None
            raise
        if given.get("lease") is None:
            if given.get("done") is not True:
                return min(max(0.05, float(given.get("retry_after") or 1.0)), self._longest_wait_s)
            self._end("Nothing is left for you to ask.")
            return None
        return str(given["lease"]), given.get("images")

    def _answer(self, lease: str, encoded: Any) -> TransportError | None:
        path = f"/v1/leases/{lease}"
        try:
            images = self._decoded(encoded)
        except TTCAError as error:
            self._hub.post(f"{path}/failure", {"charge": ChargeState.REFUNDED.value, "detail": str(error)[:500]})
            raise
        try:
            answers = self._platform.attempt(images, self._credential, request_id=lease)
            if answers.scores.shape != (len(images), len(self._platform.info.classes)):
                raise AnswerError(
                    f"Expected answers about {len(images)} images, got {len(answers)}.",
                    platform=self._platform.info.name,
                )
        except TransportError as error:
            self._hub.post(f"{path}/failure", {"charge": error.charge.value, "detail": str(error)[:500]})
            return error
        self._hub.post(f"{path}/answers", {"answers": _rows(answers)})
        with self._lock:
            self._failures = self._refusals = 0
            self.queries += len(images)
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

    def _decoded(self, encoded: Any) -> Images:
        """Return the lease's images; a hub's word is checked like a stranger's."""
        shape = self._platform.info.image_shape
        if not isinstance(encoded, list) or not 1 <= len(encoded) <= self._size:
            raise HubError("Expected a lease of images, no more than asked for, got something else.")
        try:
            files = [base64.b64decode(text, validate=True) for text in encoded]
            return check_images(np.stack([decode_rgb(file, size=shape[:2]) for file in files]), shape=shape)
        except (binascii.Error, ValueError, TypeError, DataError, ImageError):
            raise HubError(f"Expected images of {shape} as PNG files in base64 from the hub, got others.") from None


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

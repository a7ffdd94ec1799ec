"""The transport: one request over HTTP, sent once, its key kept secret and its outcome told apart exactly."""

from __future__ import annotations

import email.utils
import ipaddress
import math
import os
import re
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from ttca.answers import Answers
from ttca.errors import AnswerError, ChargeState, ConfigError, ImageError, TransportError
from ttca.images import Images, check_images
from ttca.masking import masked, masked_bytes, secret
from ttca.platforms.base import Credential, PlatformInfo
from ttca.platforms.protocols import TRANSPORT_HEADERS, Request, Response, Wire, create_protocol
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.throttle import Throttle, lane

__all__ = ["HttpPlatform", "NotSentError", "checked_url", "new_session", "retry_after_s"]

_KEY_VARIABLE = re.compile(r"TTCA_KEY_[A-Za-z0-9_]+")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")
# Shorter keys are refused off this machine: they could be guessed, and not be masked where they are echoed.
_SHORTEST_KEY = 8
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "ttca"}
_LONGEST_RESET_S = 366 * 86400.0
_CHUNK = 65536
_ERROR_BODY = 65536
_CUT_SHORT = "a connection that closed partway through"

# What each surely unprocessed 4xx asks of the reader.
_UNPROCESSED = {
    401: "Check that the key variable holds a key this platform knows.",
    403: "Ask the platform's owner whether this key may use this model.",
    404: "Check url, model and version.",
    413: "Lower max_batch.",
    422: "Check protocol, model and image size.",
}
_PERHAPS_PROCESSED = {408, 409, 425}


class NotSentError(ConfigError, TransportError):
    """Nothing was sent: the configuration, the environment or the platform's metadata is not as it must be.

    It is a ConfigError for people and a refunded TransportError for a pool.
    """

    def __init__(self, message: str, *, platform: str, member: str | None = None) -> None:
        super().__init__(message, platform=platform, charge=ChargeState.REFUNDED, retryable=False, member=member)


class HttpPlatform:
    """A platform behind HTTP. Safe to use from many threads; close it, or use it as a context manager.

    Parameters
    ----------
    url : str
        Where the API begins. ``https://`` unless the host is this machine.
    protocol : str
        The wire format, see :data:`ttca.platforms.protocols.PROTOCOLS`.
    model, version : str, optional
        As the protocol needs them.
    classes : sequence of str
        Class names in the order of the platform's scores.
    key_variable : str, optional
        Name of the environment variable with the key, starting with ``TTCA_KEY_``; a credential's own comes
        first. Its value is ``host key``, which binds the key to one host; on this machine ``key`` alone will
        do.
    key_header, key_scheme : str
        The header that carries the key, and the word before it; ``X-Api-Key`` and an empty word for many APIs.
    authorised_by : str, optional
        Who allowed these queries; required unless the host is this machine.
    connect_timeout, read_timeout : float
        Seconds to connect, and to wait for bytes; the whole answer must have come within both together.
    max_batch : int
        The most images of one request; the server's own limit, where it states one, also holds.
    max_response_bytes : int
        The largest answer read, compressed or not.
    metadata_retry : RetryPolicy, optional
        How the free metadata requests are repeated. Queries never are, here: see :mod:`ttca.platforms.retry`.
    **protocol_options
        Options of the protocol.

    Raises
    ------
    ConfigError
        Before anything is sent, if a value is not allowed.

    Examples
    --------
    >>> platform = HttpPlatform("http://127.0.0.1:8080", model="faces", classes=("yes", "no"))
    >>> platform
    HttpPlatform('http://127.0.0.1:8080', protocol='kserve-v2', model='faces')
    >>> platform.close()
    """

    def __init__(
        self,
        url: str,
        *,
        protocol: str = "kserve-v2",
        model: str | None = None,
        version: str | None = None,
        classes: Sequence[str],
        key_variable: str | None = None,
        key_header: str = "Authorization",
        key_scheme: str = "Bearer",
        authorised_by: str | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        max_batch: int = 64,
        max_response_bytes: int = 16 * 2**20,
        metadata_retry: RetryPolicy | None = None,
        **protocol_options: Any,
    ) -> None:
        self._url, self._host, self._loopback = checked_url(url)
        self._name = self._url
        if not self._loopback and not (authorised_by or "").strip():
            raise ConfigError(
                f"Expected authorised_by for {self._host}, got none. Say who authorised these queries before the first "
                "one is sent to another machine."
            )
        if isinstance(classes, str) or len(classes) < 2 or len(set(classes)) != len(classes):
            raise ConfigError(
                f"Expected classes as two or more different names, got {excerpt(classes)}. "
                "List them in the order of the platform's scores."
            )
        for name, value in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"Expected {name} in seconds, more than 0, got {value}. Correct it.")
        for name, size in (("max_batch", max_batch), ("max_response_bytes", max_response_bytes)):
            if size < 1:
                raise ConfigError(f"Expected {name} of at least 1, got {size}. Correct it.")
        if key_variable is not None and not _KEY_VARIABLE.fullmatch(key_variable):
            raise ConfigError(_BAD_VARIABLE)
        if not _TOKEN.fullmatch(key_header) or not re.fullmatch(r"[A-Za-z0-9-]*", key_scheme, re.ASCII):
            raise ConfigError(
                f"Expected key_header to be a header's name and key_scheme a word, got {excerpt(key_header, 40)!r} "
                "and a key_scheme that is not shown here. Correct them. The key itself goes into the variable."
            )
        if key_header.lower() in {*TRANSPORT_HEADERS, "content-type"}:
            raise ConfigError(
                f"Expected key_header to name a header that carries only the key, got {key_header}. Choose another."
            )
        self._classes = tuple(classes)
        self._protocol_name, self._model = protocol, model
        self._protocol = create_protocol(
            protocol, model=model, version=version, classes=self._classes, **protocol_options
        )
        self._key_variable, self._key_header, self._key_scheme = key_variable, key_header, key_scheme
        self._timeouts = (connect_timeout, read_timeout)
        self._max_batch, self._max_response_bytes = max_batch, max_response_bytes
        self._metadata_retry = metadata_retry or RetryPolicy(attempts=3, deadline_s=30.0, most_refusals=2)
        #: Seconds after which no request is in flight any more: a slow upload and dripping headers count twice.
        self.longest_attempt_s = 2 * (connect_timeout + read_timeout)
        self._lock = threading.Lock()
        self._met: tuple[PlatformInfo, Wire] | None = None
        #: How many requests may be in flight and who must wait, as the platform's answers have taught us.
        self.throttle = Throttle(self._name)
        self._idle: list[HTTPAdapter] = []
        self._urls: dict[str, str] = {}
        # Closes the sockets of a platform that was dropped and never closed.
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def __repr__(self) -> str:
        model = "" if self._model is None else f", model={self._model!r}"
        return f"HttpPlatform({self._url!r}, protocol={self._protocol_name!r}{model})"

    @property
    def key_variable(self) -> str | None:
        """The name of the variable with the key of all who bring none of their own."""
        return self._key_variable

    def __enter__(self) -> HttpPlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The platform can still be used, and then opens new ones."""
        _close_all(self._idle)

    @property
    def info(self) -> PlatformInfo:
        """What the server says of itself, read once, at no query's cost.

        Raises
        ------
        NotSentError
            If the server is not as configured.
        TransportError
            If it cannot be reached.
        """
        return self._meet()[0]

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Send one request, once, and return one row per image (see :class:`ttca.platforms.base.Platform`).

        Raises
        ------
        ImageError
            If the images are not as the platform takes them; nothing was sent.
        NotSentError
            If the key or the metadata is not as it must be; nothing was sent.
        TransportError
            With what is known about the charge.
        """
        info, wire = self._meet()
        checked = check_images(images, shape=info.image_shape)
        if len(checked) > info.max_batch:
            raise ImageError(
                f"Expected at most {info.max_batch} images in one request, got {len(checked)}. "
                "Send them in smaller batches."
            )
        if len(checked) == 0:
            return Answers.failed(0, len(self._classes))
        if not _VISIBLE_ASCII.fullmatch(request_id) or len(request_id) > 255:
            raise NotSentError(
                "Expected request_id as 1 to 255 visible ASCII characters, got something else. Use a UUID.",
                platform=self._name,
                member=credential.member,
            )
        variable = credential.key_variable or self._key_variable
        request = wire.request(checked, request_id=request_id)
        try:
            response = self._exchange(request, variable, request_id=request_id, member=credential.member)
            self._heed(response, lane(self, credential))
            if response.status == 200:
                return wire.parse(response, len(checked))
            if not wire.refuses(response):
                raise self._refusal(response, wire.wait_s(response))
            if len(checked) > 1:
                raise response.unreadable(
                    f"Expected an answer for every image, got a refusal of {len(checked)} images at once "
                    f"({excerpt(response.body)}). Ask about one at a time."
                )
            return Answers.from_labels(np.full(1, -1, np.int64), len(self._classes))
        except TransportError as error:
            error.member = credential.member
            error.args = (masked(str(error.args[0]), variable),)
            raise

    def _meet(self) -> tuple[PlatformInfo, Wire]:
        with self._lock:
            if self._met is None:
                wire = self._describe()
                limits = [self._max_batch] if wire.max_batch is None else [self._max_batch, wire.max_batch]
                info = PlatformInfo(
                    name=self._name,
                    classes=self._classes,
                    image_shape=wire.image_shape,
                    identity={"url": self._url, "protocol": self._protocol_name, **wire.identity},
                    max_batch=min(limits),
                    gives_scores=wire.gives_scores,
                )
                self._met = (info, wire)
            return self._met

    def _describe(self) -> Wire:
        """Read the metadata. Whatever goes wrong with it, no query was processed."""

        def fetch(path: str) -> Response:
            request = Request("GET", path, {"Accept": "application/json"})
            response = self._exchange(request, self._key_variable, request_id=None, member=None)
            if response.status != 200:
                raise self._refusal(response, None)
            return response

        failed: Exception
        try:
            return self._metadata_retry.run(lambda _: self._protocol.describe(fetch))
        except NotSentError:
            raise
        except TransportError as error:
            failed = TransportError(
                masked(f"The platform's metadata could not be read. {error.args[0]}", self._key_variable),
                platform=self._name,
                charge=ChargeState.REFUNDED,
                retryable=error.retryable,
                retry_after=error.retry_after,
                status=error.status,
                attempt=error.attempt,
            )
        except ConfigError as error:
            failed = NotSentError(masked(str(error), self._key_variable), platform=self._name)
        raise failed

    def _exchange(
        self,
        request: Request,
        variable: str | None,
        *,
        request_id: str | None,
        member: str | None,
    ) -> Response:
        """Send once and return what came back, whatever its status."""
        if variable is not None:
            problem = self._key_problem(variable)
            if problem is not None:
                raise NotSentError(problem, platform=self._name, member=member)
        headers = {**request.headers, **({} if request_id is None else {"Idempotency-Key": request_id})}
        with self._connection() as adapter:
            outcome = self._send(adapter, request, headers, variable, request_id)
        # Raised out here, so that no exception of requests, which holds the sent headers, becomes its
        # context.
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    def _heed(self, response: Response, whose: str) -> None:
        """Keep to the limits that a response states: their pace, and a wait where nothing is left for now."""
        self.throttle.keep_to(whose, policies(response.headers))
        wait = exhausted_s(response.headers)
        if wait is not None:
            self.throttle.hold(whose, wait)

    def _key_problem(self, variable: str) -> str | None:
        """Return what is wrong with a key, never the key."""
        if not _KEY_VARIABLE.fullmatch(variable):
            return _BAD_VARIABLE
        parts = os.environ.get(variable, "").split()
        if not parts:
            return f"Expected the environment variable {variable} to hold a key, got none. Set it to 'host key'."
        bound = f"Set it to '{self._host} YOUR-KEY'."
        if len(parts) > 2 or not _VISIBLE_ASCII.fullmatch(parts[-1]):
            return f"Expected {variable} to hold 'host key' in visible ASCII, got something else. {bound}"
        if len(parts) == 2 and parts[0].lower().rstrip(".") != self._host:
            return (
                f"Expected {variable} to hold a key bound to {self._host}, got one bound to another host. "
                "A key goes only to its own host: use the variable made for this one."
            )
        if not self._loopback and (len(parts) == 1 or len(parts[1]) < _SHORTEST_KEY):
            return f"Expected {variable} to hold 'host key' with a key of 8 characters or more, got less. {bound}"
        return None

    @contextmanager
    def _connection(self) -> Iterator[HTTPAdapter]:
        """Lend a connection to one thread at a time: as many as requests in flight, kept alive."""
        try:
            adapter = self._idle.pop()
        except IndexError:
            adapter = _adapter()
        try:
            yield adapter
        finally:
            self._idle.append(adapter)

    def _send(
        self,
        adapter: HTTPAdapter,
        request: Request,
        headers: Mapping[str, str],
        variable: str | None,
        request_id: str | None,
    ) -> Response | TransportError:
        deadline = time.monotonic() + sum(self._timeouts)
        try:
            # Below a session of requests, which adds nothing but what is not wanted here: cookies, redirects, hooks,
            # the environment's proxies and passwords.
            reply = adapter.send(self._prepared(request, headers, variable), stream=True, timeout=self._timeouts)
        except requests.RequestException as error:
            return self._no_answer(error, request_id)
        try:
            return self._receive(reply, deadline, variable, request_id)
        finally:
            reply.close()

    def _prepared(self, request: Request, headers: Mapping[str, str], variable: str | None) -> requests.PreparedRequest:
        """Return a request as it goes out, the key in the one header that carries it.

        No frame of ours holds the key while anything can fail, so no traceback, with locals or without, can show it.
        """
        url = self._urls.get(request.path)
        if url is None:
            whole = f"{self._url}/{request.path}" if request.path else self._url
            url = self._urls[request.path] = requests.Request(request.method, whole).prepare().url or whole
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, url, request.body or None
        prepared.headers = CaseInsensitiveDict({**_HEADERS, "Accept": "*/*", **headers})
        if request.method != "GET":
            prepared.headers["Content-Length"] = str(len(request.body))
        if variable is not None:
            prepared.headers[self._key_header] = f"{self._key_scheme} {secret(variable)}".lstrip()
        return prepared

    def _receive(
        self, reply: requests.Response, deadline: float, variable: str | None, request_id: str | None
    ) -> Response | TransportError:
        status = reply.status_code
        headers = {k.lower(): masked(v, variable) for k, v in reply.headers.items()}
        answering = 200 <= status < 300
        limit = self._max_response_bytes if answering else min(_ERROR_BODY, self._max_response_bytes)
        body, problem = _read(reply, limit, deadline)
        if problem is not None and answering:
            return self._unknown(f"Expected a whole answer from {self._url}, got {problem}.", request_id)
        # Of an error's body only the beginning is quoted, so one that is too large or broken is good enough.
        too_large = (
            f"Expected at most {self._max_response_bytes} bytes, got more. Raise max_response_bytes or lower max_batch."
        )
        if len(body) > limit and answering:
            return AnswerError(too_large, platform=self._name, status=status, request_id=request_id)
        decoded = _decoded(body[:limit], headers.get("content-encoding", ""), limit)
        if decoded is None and answering:
            return AnswerError(
                f"Expected a plain or gzip body, got {excerpt(headers.get('content-encoding', 'none'))!r}, "
                "which cannot be decoded. Ask the platform's owner for uncompressed answers.",
                platform=self._name,
                status=status,
                request_id=request_id,
            )
        body = decoded or b""
        if len(body) > limit and answering:
            return AnswerError(too_large, platform=self._name, status=status, request_id=request_id)
        return Response(status, headers, masked_bytes(body, variable), self._name, request_id)

    def _unknown(self, sentence: str, request_id: str | None) -> TransportError:
        return TransportError(
            f"{sentence} The platform may have processed it.",
            platform=self._name,
            charge=ChargeState.UNKNOWN,
            retryable=True,
            request_id=request_id,
        )

    def _no_answer(self, error: requests.RequestException, request_id: str | None) -> TransportError:
        """Return what an exception of requests means, keeping nothing of it but its kind."""
        retryable = True
        if isinstance(error, requests.ConnectTimeout):
            sentence = f"no connection within {self._timeouts[0]:g} s. Check the network, or raise connect_timeout."
        elif _is_certificate_error(error):
            sentence, retryable = (
                "a certificate that cannot be verified. Ask its owner to renew it; ttca never skips the check.",
                False,
            )
        elif _never_connected(error):
            sentence = "no connection (refused, or no such host). Check url, and that the platform is up."
        elif isinstance(error, requests.Timeout):
            return self._unknown(
                f"Expected an answer from {self._url} within {self._timeouts[1]:g} s, got none.", request_id
            )
        elif isinstance(error, requests.ConnectionError):
            return self._unknown(f"Expected an answer from {self._url}, got a closed connection.", request_id)
        else:
            return TransportError(
                f"Expected to send a request to {self._url}, got {type(error).__name__}. Check url and protocol.",
                platform=self._name,
                charge=ChargeState.UNKNOWN,
                retryable=False,
                request_id=request_id,
            )
        return TransportError(
            f"Expected an answer from {self._url}, got {sentence}",
            platform=self._name,
            charge=ChargeState.REFUNDED,
            retryable=retryable,
            request_id=request_id,
        )

    def _refusal(self, response: Response, otherwise: float | None) -> TransportError:
        """Return what a status other than an answer's means for the charge and for another attempt.

        ``otherwise``: the seconds to wait that the protocol's own words ask for, where no header does.
        """
        status = response.status
        wait = retry_after_s(response.headers, now=time.time(), limited=status == 429)
        wait = otherwise if wait is None else wait
        said = f" ({_gist(response.body)})" if response.body.strip() else ""
        got = f"Expected an answer from {self._url}, got status {status}{said}."
        if 200 <= status < 300:
            return response.unreadable(f"{got} Check protocol: this one does not expect that status.")
        charge, retryable, advice = ChargeState.CHARGED, False, "Check protocol and its options."
        if 300 <= status < 400:
            to = excerpt(response.headers.get("location", "nowhere"), 200)
            got = f"Expected an answer from {self._url}, got a redirect ({status}) to {to}."
            advice = (
                "Redirects are not followed, so that no key goes to the wrong place. If you trust it, set url to it."
            )
            charge = ChargeState.CHARGED if status == 303 else ChargeState.REFUNDED
        elif status == 429 or (status == 503 and wait is not None):
            charge, retryable, advice = ChargeState.REFUNDED, True, "Wait as long as it asks, then try again."
        elif status >= 500 or status in _PERHAPS_PROCESSED:
            charge, retryable, advice = (
                ChargeState.UNKNOWN,
                True,
                "Try again; the platform may have processed it.",
            )
        elif status in _UNPROCESSED:
            charge, advice = ChargeState.REFUNDED, _UNPROCESSED[status]
        return TransportError(
            f"{got} {advice}",
            platform=self._name,
            charge=charge,
            retryable=retryable,
            retry_after=wait if retryable else None,
            status=status,
            request_id=response.request_id,
        )


_BAD_VARIABLE = (
    "Expected key_variable to be the name of an environment variable that starts with TTCA_KEY_, got something else "
    "(not shown here, in case it is the key itself). Put the key into such a variable and give its name."
)


def retry_after_s(headers: Mapping[str, str], *, now: float, limited: bool = True) -> float | None:
    """Return the seconds a platform asks to wait, or None where it does not say.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. Read in this order: ``retry-after-ms``; ``retry-after`` in seconds or as an HTTP
        date; the forms of ``ratelimit``.
    now : float
        Seconds since 1970 by our clock, for dates; the response's own ``date`` is preferred.
    limited : bool
        Whether it says "too many": only then do the ``ratelimit`` headers, which gateways add to any response, say
        when to come back.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("retry-after")
    if after is not None:
        seconds = _seconds(after)
        if seconds is not None:
            return seconds
        at = _timestamp(after)
        if at is not None:
            # The server's own clock, where it gives it: ours may be minutes off.
            server_now = _timestamp(headers.get("date", ""))
            return max(0.0, at - (now if server_now is None else server_now))
    if not limited:
        return None
    resets = [t for r, t in _rate_limits(headers) if not r]
    return max(resets) if resets else None


def exhausted_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a platform allows another request, where its answer says that none is left.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. ``ratelimit`` (draft-ietf-httpapi-ratelimit-headers: ``"name";r=0;t=7``, or its older form
        ``limit=10, remaining=0, reset=7``), or ``ratelimit-remaining`` and ``ratelimit-reset``, also with ``x-``.
    """
    return max((t for r, t in _rate_limits(headers) if r == 0), default=None)


def policies(headers: Mapping[str, str]) -> dict[float, int]:
    """Return the limits a response states in ``ratelimit-policy``: seconds to the requests allowed in them.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case; ``"burst";q=50;w=1, "daily";q=1000;w=86400`` or, in the older form, ``50;w=1``. Limits
        counted in anything but requests are passed over.
    """
    found: dict[float, int] = {}
    for policy in headers.get("ratelimit-policy", "").split(","):
        quota = re.search(r"(?:^\s*|;\s*q=)(\d{1,9})\s*(?=$|;)", policy, re.ASCII)
        window = re.search(r";\s*w=(\d{1,9})\s*(?=$|;)", policy, re.ASCII)
        unit = re.search(r';\s*qu="?([a-z-]+)', policy, re.ASCII)
        if (
            quota
            and window
            and int(quota.group(1))
            and int(window.group(1))
            and (not unit or unit.group(1) == "requests")
        ):
            seconds, requests_allowed = float(window.group(1)), int(quota.group(1))
            found[seconds] = min(requests_allowed, found.get(seconds, requests_allowed))
    return found


def _rate_limits(headers: Mapping[str, str]) -> list[tuple[float | None, float]]:
    """Return (requests left, seconds until there are more) of every limit a response states."""
    found: list[tuple[float | None, float]] = []
    # Several policies are a list; within one, parameters follow semicolons. The older form has one policy.
    text = headers.get("ratelimit", "")
    policies = [text] if re.search(r"(?:^|[,;\s])reset=", text) else text.split(",")
    for policy in policies:
        left = re.search(r"(?:^|[;,\s])(?:r|remaining)=(\d{1,15})(?:$|[;,\s])", policy, re.ASCII)
        reset = re.search(r"(?:^|[;,\s])(?:t|reset)=(\d{1,15}(?:\.\d{1,9})?)(?:$|[;,\s])", policy, re.ASCII)
        if reset:
            found.append((float(left.group(1)) if left else None, float(reset.group(1))))
    for prefix in ("", "x-"):
        seconds = _seconds(headers.get(f"{prefix}ratelimit-reset"))
        # Some platforms write the time of day here: seconds since 1970 are no wait.
        if seconds is not None and seconds < _LONGEST_RESET_S:
            found.append((_seconds(headers.get(f"{prefix}ratelimit-remaining")), seconds))
    return found


def _gist(body: bytes) -> str:
    """Return what an error's body says: its beginning, or the cause that a Python traceback ends with."""
    causes = re.findall(rb"^[A-Za-z_][\w.]*: .*$", body, re.MULTILINE) if body.lstrip().startswith(b"Traceback") else []
    return excerpt(causes[-1] if causes else body)


def _seconds(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*[0-9]{1,15}(\.[0-9]{0,15})?\s*", text, re.ASCII):
        return None
    return float(text)


def _timestamp(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def checked_url(url: str) -> tuple[str, str, bool]:
    """Return the URL without a last slash, its host, and whether that is this machine; quote no secret."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise ConfigError(
            "Expected url as https://host[:port][/path], got one that cannot be read. Correct it."
        ) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            "Expected url without user, password, query or fragment, got one with them (not shown). "
            "Put a key into an environment variable and name it in key_variable."
        )
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or re.search(r"[\s\\]", url):
        raise ConfigError(f"Expected url as https://host[:port][/path], got {excerpt(url)!r}. Correct it.")
    loopback = host == "localhost" or _is_loopback_address(host)
    if parts.scheme == "http" and not loopback:
        raise ConfigError(
            f"Expected https for {host}, got http: images and keys would travel in the clear. Use https://{host}."
        )
    shown = f"[{host}]" if ":" in host else host
    return (
        f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}",
        host,
        loopback,
    )


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_session() -> requests.Session:
    """Return a session that takes nothing from the environment, keeps no cookie and follows its own headers."""
    session = requests.Session()
    # A stray ~/.netrc or proxy variable would otherwise decide who sees the key.
    session.trust_env = False
    # What one answer sets must never go with another request's key or token.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update(_HEADERS)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _adapter())
    return session


def _adapter() -> HTTPAdapter:
    return HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)


def _close_all(idle: list[HTTPAdapter]) -> None:
    while idle:
        idle.pop().close()


def _read(reply: requests.Response, limit: int, deadline: float) -> tuple[bytes, str | None]:
    """Return at most ``limit`` + 1 bytes as they came, undecoded, and what cut them short, if it was."""
    raw = reply.raw
    # read1 returns what has come, so that a server that drips cannot hold us beyond the deadline.
    read: Callable[..., bytes] = getattr(raw, "read1", raw.read)
    chunks: list[bytes] = []
    size = 0
    try:
        while size <= limit:
            chunk = read(min(_CHUNK, limit + 1 - size), decode_content=False)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if time.monotonic() > deadline:
                return b"".join(chunks), "only part of it in time"
    except urllib3.exceptions.ReadTimeoutError:
        return b"".join(chunks), "only part of it in time"
    except (urllib3.exceptions.HTTPError, OSError):
        return b"".join(chunks), _CUT_SHORT
    promised = reply.headers.get("Content-Length", "")
    if size <= limit and promised.isascii() and promised.isdecimal() and int(promised[:18]) > size:
        return b"".join(chunks), _CUT_SHORT
    return b"".join(chunks), None


def _decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """Return the body decoded to at most ``limit`` + 1 bytes, whatever it holds; None if it cannot be."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    unpacker = zlib.decompressobj(wbits=47)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error:
        return None
    return plain if unpacker.eof or len(plain) > limit else None


def _never_connected(error: requests.RequestException) -> bool:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def _is_certificate_error(error: requests.RequestException) -> bool:
    return isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)

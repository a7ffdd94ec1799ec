"""The careful transport: one request over HTTP, sent once, its key kept secret and its outcome told apart exactly."""

from __future__ import annotations

import math
import re
import ssl
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.masking import mask_logs, masked, masked_bytes
from ttca.platforms.addresses import checked_url
from ttca.platforms.keys import Key, add_key, key_problem, no_place
from ttca.platforms.limits import retry_after_s
from ttca.platforms.protocols import Request, Response
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.tokens import Token, Tokens

__all__ = [
    "NotSentError",
    "Sender",
    "Transport",
    "certificate_problem",
    "check_ca",
    "new_session",
]

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "ttca"}
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

# These write URLs, which may hold a key, and what is signed, which may hold a session's token.
mask_logs(("urllib3.connectionpool", "urllib3.util.retry", "botocore.auth"))


class NotSentError(ConfigError, TransportError):
    """Nothing was sent: the configuration, the environment or the platform's metadata is not as it must be.

    It is a ConfigError for people and a refunded TransportError for a pool.
    """

    def __init__(self, message: str, *, platform: str, member: str | None = None) -> None:
        super().__init__(message, platform=platform, charge=ChargeState.REFUNDED, retryable=False, member=member)


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Which way a platform is reached, which certificates it may show, how long and how much its answers may be.

    Parameters
    ----------
    connect_timeout, read_timeout : float
        Seconds to connect, and to wait for bytes; the whole answer must have come within both together.
    max_batch : int
        The most images of one request; the server's own limit, where it states one, also holds.
    max_response_bytes : int
        The largest answer read, compressed or not.
    metadata_retry : RetryPolicy
        How the free metadata requests are repeated. Queries never are, here: see :mod:`ttca.platforms.retry`.
    ca : str, optional
        A PEM file with the certificate of the platform's own authority; its certificates alone are then believed,
        also from the service that gives access tokens.
    forwards_to : str, optional
        For a gateway on this machine: the URL of the platform that it forwards to. Queries then leave the machine.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    max_batch: int = 64
    max_response_bytes: int = 16 * 2**20
    metadata_retry: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(attempts=3, deadline_s=30.0, most_refusals=2)
    )
    ca: str | None = None
    forwards_to: str | None = None

    def __post_init__(self) -> None:
        check_ca(self.ca)
        if self.forwards_to is not None:
            url, host, loopback = checked_url(self.forwards_to)
            if loopback:
                raise ConfigError(
                    f"Expected forwards_to as the URL of another machine, got {host}. Give it only where a gateway on "
                    "this machine forwards to another."
                )
            object.__setattr__(self, "forwards_to", url)
        for name in ("connect_timeout", "read_timeout"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"Expected {name} in seconds, more than 0, got {value}. Correct it.")
        for name in ("max_batch", "max_response_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} of at least 1, got {getattr(self, name)}. Correct it.")

    @property
    def longest_s(self) -> float:
        """Seconds after which no request is in flight any more: a slow upload and dripping headers count twice."""
        return 2 * (self.connect_timeout + self.read_timeout)


class Sender:
    """Sends one request at a time for each of its threads, once, and tells what became of it.

    Parameters
    ----------
    url : str
        Where the API begins. ``https://`` unless the host is this machine.
    key : Key
    transport : Transport

    Raises
    ------
    ConfigError
        If the URL is not allowed.
    """

    def __init__(self, url: str, key: Key, transport: Transport) -> None:
        self.url, self.host, loopback = checked_url(url)
        self._key, self._transport = key, transport
        self._check_gateway(loopback)
        #: Whether what is sent stays on this machine.
        self.stays_here = loopback and transport.forwards_to is None
        self._tokens: Tokens | None = None
        if key.token_from is not None:
            source = key.token_from
            self._token_sender = _TokenSender(source.origin, source.key(), replace(transport, forwards_to=None))
            self._tokens = Tokens(self._ask_for_token, self._token_refusal, url=source.url)
        self._timeouts = (transport.connect_timeout, transport.read_timeout)
        self._idle: list[HTTPAdapter] = []
        self._urls: dict[str, str] = {}
        # Closes the sockets of one that was dropped and never closed.
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close idle connections. More requests open new ones."""
        _close_all(self._idle)
        if self._tokens is not None:
            self._token_sender.close()

    def _check_gateway(self, loopback: bool) -> None:
        if self._transport.forwards_to is None:
            return
        if not loopback:
            raise ConfigError(
                f"Expected forwards_to only for a gateway on this machine, got url at {self.host}. Remove it."
            )
        if self._key.sign is not None:
            raise ConfigError(
                "Expected sign without forwards_to, got both: a signature names the host it was made for, which a "
                "gateway changes. Let the gateway sign."
            )

    @property
    def longest_s(self) -> float:
        """Seconds after which no request is in flight any more: a token may be bought, refused and bought again."""
        return self._transport.longest_s * (1 if self._tokens is None else 4)

    def _ask_for_token(self, variable: str) -> Response:
        source = self._key.token_from
        assert source is not None
        return self._token_sender.exchange(source.request, variable, request_id=None, member=None)

    def _token_refusal(self, response: Response) -> TransportError:
        return self._token_sender.refusal(response, None)

    def exchange(
        self,
        request: Request,
        variable: str | None,
        *,
        request_id: str | None,
        member: str | None,
    ) -> Response:
        """Send once and return what came back, whatever its status.

        Where an access token is refused with status 401, which no platform charges for, it is renewed and the request
        sent once more.
        """
        problem = None if variable is None else self._key_problem(variable) or no_place(request, self._key)
        if problem is not None:
            raise NotSentError(problem, platform=self.url, member=member)
        token = None if self._tokens is None or variable is None else self._tokens.ready(variable, member)
        response = self._exchange(request, variable, token, request_id, member)
        if response.status == 401 and token is not None and self._tokens is not None and variable is not None:
            token = self._tokens.ready(variable, member, refused=token)
            response = self._exchange(request, variable, token, request_id, member)
        return response

    def _exchange(
        self, request: Request, variable: str | None, token: Token | None, request_id: str | None, member: str | None
    ) -> Response:
        headers = {**request.headers, **({} if request_id is None else {"Idempotency-Key": request_id})}
        with self._connection() as adapter:
            outcome = self._send(adapter, replace(request, headers=headers), variable, token, request_id)
        # Raised out here, so that no exception of requests, which holds the sent headers, becomes its
        # context.
        if isinstance(outcome, str):
            raise NotSentError(outcome, platform=self.url, member=member)
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    def _key_problem(self, variable: str) -> str | None:
        """Return what is wrong with a key, never the key."""
        problem = key_problem(self._key, variable, self.host, stays_here=self.stays_here)
        # A token goes to the platform, and what buys it to another host: both must be named.
        return problem if problem or self._tokens is None else self._token_sender._key_problem(variable)

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
        variable: str | None,
        token: Token | None,
        request_id: str | None,
    ) -> Response | TransportError | str:
        """Send once; return what came, the error where nothing did, or why it could not be signed."""
        deadline = time.monotonic() + sum(self._timeouts)
        try:
            prepared = self._prepared(request)
            if variable is not None and (problem := add_key(prepared, self._key, variable, token)) is not None:
                return problem
            # Below a session of requests, which adds nothing but what is not wanted here: cookies, redirects, hooks,
            # the environment's proxies and passwords.
            reply = adapter.send(prepared, stream=True, timeout=self._timeouts, verify=self._transport.ca or True)
        except requests.RequestException as error:
            return self._no_answer(error, request_id)
        try:
            return self._receive(reply, deadline, variable, request_id)
        finally:
            reply.close()

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        """Return a request as it goes out, all but the key."""
        url = self._urls.get(request.path)
        if url is None:
            whole = f"{self.url}/{request.path}" if request.path else self.url
            url = self._urls[request.path] = requests.Request(request.method, whole).prepare().url or whole
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, url, request.body or None
        prepared.headers = CaseInsensitiveDict({**_HEADERS, "Accept": "*/*", **request.headers})
        if request.method != "GET":
            prepared.headers["Content-Length"] = str(len(request.body))
        return prepared

    def _receive(
        self, reply: requests.Response, deadline: float, variable: str | None, request_id: str | None
    ) -> Response | TransportError:
        status = reply.status_code
        headers = {k.lower(): masked(v, variable) for k, v in reply.headers.items()}
        answering = 200 <= status < 300
        most = self._transport.max_response_bytes
        limit = most if answering else min(_ERROR_BODY, most)
        body, problem = _read(reply, limit, deadline)
        if problem is not None and answering:
            return self._unknown(f"Expected a whole answer from {self.url}, got {problem}.", request_id)
        # Of an error's body only the beginning is quoted, so one that is too large or broken is good enough.
        too_large = f"Expected at most {most} bytes, got more. Raise max_response_bytes or lower max_batch."
        if len(body) > limit and answering:
            return AnswerError(too_large, platform=self.url, status=status, request_id=request_id)
        decoded = _decoded(body[:limit], headers.get("content-encoding", ""), limit)
        if decoded is None and answering:
            return AnswerError(
                f"Expected a plain or gzip body, got {excerpt(headers.get('content-encoding', 'none'))!r}, "
                "which cannot be decoded. Ask the platform's owner for uncompressed answers.",
                platform=self.url,
                status=status,
                request_id=request_id,
            )
        body = decoded or b""
        if len(body) > limit and answering:
            return AnswerError(too_large, platform=self.url, status=status, request_id=request_id)
        return Response(status, headers, self._masked_body(status, body, variable), self.url, request_id)

    def _masked_body(self, status: int, body: bytes, variable: str | None) -> bytes:
        return masked_bytes(body, variable)

    def _unknown(self, sentence: str, request_id: str | None) -> TransportError:
        return TransportError(
            f"{sentence} The platform may have processed it.",
            platform=self.url,
            charge=ChargeState.UNKNOWN,
            retryable=True,
            request_id=request_id,
        )

    def _no_answer(self, error: requests.RequestException, request_id: str | None) -> TransportError:
        """Return what an exception of requests means, keeping nothing of it but its kind."""
        retryable = True
        if isinstance(error, requests.ConnectTimeout):
            sentence = f"no connection within {self._timeouts[0]:g} s. Check the network, or raise connect_timeout."
        elif (problem := certificate_problem(error, "[platform]")) is not None:
            sentence, retryable = problem, False
        elif _never_connected(error):
            sentence = "no connection (refused, or no such host). Check url, and that the platform is up."
        elif isinstance(error, requests.Timeout):
            return self._unknown(
                f"Expected an answer from {self.url} within {self._timeouts[1]:g} s, got none.", request_id
            )
        elif isinstance(error, requests.ConnectionError):
            return self._unknown(f"Expected an answer from {self.url}, got a closed connection.", request_id)
        else:
            return TransportError(
                f"Expected to send a request to {self.url}, got {type(error).__name__}. Check url and protocol.",
                platform=self.url,
                charge=ChargeState.UNKNOWN,
                retryable=False,
                request_id=request_id,
            )
        return TransportError(
            f"Expected an answer from {self.url}, got {sentence}",
            platform=self.url,
            charge=ChargeState.REFUNDED,
            retryable=retryable,
            request_id=request_id,
        )

    def refusal(self, response: Response, otherwise: float | None) -> TransportError:
        """Return what a status other than an answer's means for the charge and for another attempt.

        ``otherwise``: the seconds to wait that the protocol's own words ask for, where no header does.
        """
        status = response.status
        wait = retry_after_s(response.headers, now=time.time(), limited=status == 429)
        wait = otherwise if wait is None else wait
        said = f" ({_gist(response.body)})" if response.body.strip() else ""
        got = f"Expected an answer from {self.url}, got status {status}{said}."
        if 200 <= status < 300:
            return response.unreadable(f"{got} Check protocol: this one does not expect that status.")
        charge, retryable, advice = ChargeState.CHARGED, False, "Check protocol and its options."
        if 300 <= status < 400:
            to = excerpt(response.headers.get("location", "nowhere"), 200)
            got = f"Expected an answer from {self.url}, got a redirect ({status}) to {to}."
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
            platform=self.url,
            charge=charge,
            retryable=retryable,
            retry_after=wait if retryable else None,
            status=status,
            request_id=response.request_id,
        )


class _TokenSender(Sender):
    """Asks for access tokens, and alone is given one: a token that came before, or one with the id in it."""

    def _masked_body(self, status: int, body: bytes, variable: str | None) -> bytes:
        return body if status == 200 else super()._masked_body(status, body, variable)


def _gist(body: bytes) -> str:
    """Return what an error's body says: its beginning, or the cause that a Python traceback ends with."""
    causes = re.findall(rb"^[A-Za-z_][\w.]*: .*$", body, re.MULTILINE) if body.lstrip().startswith(b"Traceback") else []
    return excerpt(causes[-1] if causes else body)


def new_session(ca: str | None = None) -> requests.Session:
    """Return a session that takes nothing from the environment, keeps no cookie and follows its own headers.

    It believes the certificates of the authority in the PEM file ``ca`` alone, or the usual ones.
    """
    session = requests.Session()
    session.verify = ca or True
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


def certificate_problem(error: requests.RequestException, table: str) -> str | None:
    """Return what to do about a certificate that cannot be verified, None where the error is another one.

    Parameters
    ----------
    error : requests.RequestException
    table : str
        Where ``ca`` would stand.
    """
    if not isinstance(error, requests.exceptions.SSLError) or "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return None
    cause: object = getattr(error.args[0] if error.args else None, "reason", None)
    found = cause.args[0] if isinstance(cause, Exception) and cause.args else None
    why = excerpt(found.verify_message, 200) if isinstance(found, ssl.SSLCertVerificationError) else "no reason given"
    return (
        f"a certificate that cannot be verified ({why}). If its owner has an authority of their own, get its "
        f'certificate from them and name the file in {table}: ca = "file.pem". Else ask them to renew theirs. '
        "ttca never skips the check."
    )


def check_ca(ca: str | None) -> None:
    """Raise a ConfigError where that is no PEM file with certificates; None is the usual authorities.

    Raises
    ------
    ConfigError
    """
    if ca is None:
        return
    try:
        # A file without certificates is loaded without a word.
        if not ssl.create_default_context(cafile=ca).cert_store_stats()["x509"]:
            raise ssl.SSLError("no certificate in it")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Expected ca to be a PEM file with the certificate of an authority, got {excerpt(ca)!r}: "
            f"{excerpt(reason)}. Ask whoever runs the service for the file."
        ) from None

"""The careful transport: one request over HTTP, sent once, its key kept secret and its outcome told apart exactly."""

from __future__ import annotations

import math
import ssl
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError, Trouble
from ttca.masking import mask_logs, masked, masked_bytes
from ttca.platforms.addresses import checked_url
from ttca.platforms.keys import Key, add_key, key_problem, no_place
from ttca.platforms.protocols import Request, Response
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.statuses import status_error
from ttca.platforms.tokens import Token, Tokens

__all__ = [
    "NotSentError",
    "Sender",
    "Transport",
    "certificate_problem",
    "check_ca",
    "never_connected",
    "new_session",
    "speaks_plain",
]

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "ttca"}
_CHUNK = 65536
_ERROR_BODY = 65536
_CUT_SHORT, _TOO_LATE = "a connection that closed partway through", "only part of it in time"
# What OpenSSL, by its version, calls an answer that is no TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
# Addresses of polls are as many as queries: only so many are remembered.
_MOST_URLS = 64

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
        self._slash = "/" if url.endswith("/") else ""
        self._key, self._transport = key, transport
        self._check_gateway(loopback)
        #: Whether what is sent stays on this machine.
        self.stays_here = loopback and transport.forwards_to is None
        self._tokens: Tokens | None = None
        if (source := key.token_from) is not None:
            sender = _TokenSender(source.origin, source.key(), replace(transport, forwards_to=None))
            ask = partial(sender.exchange, source.request, request_id=None, member=None)
            self._token_sender, self._tokens = sender, Tokens(ask, status_error, url=source.url)
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
        problem = None if variable is None else self.key_problem(variable) or no_place(request, self._key)
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

    def key_problem(self, variable: str) -> str | None:
        """Return what is wrong with a key, never the key."""
        problem = key_problem(self._key, variable, self.host, stays_here=self.stays_here)
        # A token goes to the platform, and what buys it to another host: both must be named.
        return problem if problem or self._tokens is None else self._token_sender.key_problem(variable)

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
            return self._receive(reply, deadline, request, variable, request_id)
        finally:
            reply.close()

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        """Return a request as it goes out, all but the key."""
        url = self._urls.get(request.path)
        if url is None:
            whole = self._whole(request.path)
            url = requests.Request(request.method, whole).prepare().url or whole
            if len(self._urls) < _MOST_URLS:
                self._urls[request.path] = url
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, url, request.body or None
        prepared.headers = CaseInsensitiveDict({**_HEADERS, "Accept": "*/*", **request.headers})
        if request.method != "GET":
            prepared.headers["Content-Length"] = str(len(request.body))
        return prepared

    def _whole(self, path: str) -> str:
        """Return the URL of a path: below the platform's own, or below its host where it begins with a slash.

        A slash at the end of the configured URL counts where nothing follows it.
        """
        if path.startswith("/"):
            return f"{self.url[: len(self.url) - len(urlsplit(self.url).path)]}{path}"
        return f"{self.url}/{path}" if path else f"{self.url}{self._slash}"

    def _receive(
        self,
        reply: requests.Response,
        deadline: float,
        request: Request,
        variable: str | None,
        request_id: str | None,
    ) -> Response | TransportError:
        status = reply.status_code
        headers = {k.lower(): masked(v, variable) for k, v in reply.headers.items()}
        answering = 200 <= status < 300
        most = self._transport.max_response_bytes
        limit = most if answering else min(_ERROR_BODY, most)
        ends = request.ends() if answering and request.ends is not None else None
        body, problem = _read(reply, limit, deadline, ends)
        if problem is not None and answering:
            late = problem == _TOO_LATE
            return self._unknown(f"Expected a whole answer from {self.url}, got {problem}.", request_id, late=late)
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
        asked = masked(f"{request.method} {self._whole(request.path)}", variable)
        return Response(status, headers, self._masked_body(status, body, variable), self.url, request_id, asked)

    def _masked_body(self, status: int, body: bytes, variable: str | None) -> bytes:
        return masked_bytes(body, variable)

    def _unknown(self, sentence: str, request_id: str | None, *, late: bool) -> TransportError:
        error = TransportError(
            f"{sentence} The platform may have processed it.",
            platform=self.url,
            charge=ChargeState.UNKNOWN,
            retryable=True,
            request_id=request_id,
        )
        error.trouble = Trouble.TIMED_OUT if late else None
        return error

    def _no_answer(self, error: requests.RequestException, request_id: str | None) -> TransportError:
        """Return what an exception of requests means, keeping nothing of it but its kind."""
        retryable, trouble = True, Trouble.UNREACHABLE
        if isinstance(error, requests.ConnectTimeout):
            sentence = f"no connection within {self._timeouts[0]:g} s. Check the network, or raise connect_timeout."
        elif (problem := certificate_problem(error, "[platform]")) is not None:
            sentence, retryable = problem, False
        elif speaks_plain(error):
            sentence = "an answer without TLS. Check url: this server seems to speak http."
            retryable = False
        elif never_connected(error):
            sentence = "no connection (refused, or no such host). Check url, and that the platform is up."
        elif isinstance(error, requests.Timeout):
            return self._unknown(
                f"Expected an answer from {self.url} within {self._timeouts[1]:g} s, got none.", request_id, late=True
            )
        elif isinstance(error, requests.ConnectionError):
            return self._unknown(
                f"Expected an answer from {self.url}, got a closed connection.", request_id, late=False
            )
        else:
            return TransportError(
                f"Expected to send a request to {self.url}, got {type(error).__name__}. Check url and protocol.",
                platform=self.url,
                charge=ChargeState.UNKNOWN,
                retryable=False,
                request_id=request_id,
            )
        lost = TransportError(
            f"Expected an answer from {self.url}, got {sentence}",
            platform=self.url,
            charge=ChargeState.REFUNDED,
            retryable=retryable,
            request_id=request_id,
        )
        lost.trouble = trouble if retryable else None
        return lost


class _TokenSender(Sender):
    """Asks for access tokens, and alone is given one: a token that came before, or one with the id in it."""

    def _masked_body(self, status: int, body: bytes, variable: str | None) -> bytes:
        return body if status == 200 else super()._masked_body(status, body, variable)


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


def _read(
    reply: requests.Response, limit: int, deadline: float, ends: Callable[[bytes], bool] | None
) -> tuple[bytes, str | None]:
    """Return at most ``limit`` + 1 bytes as they came, undecoded, and what cut them short, if it was.

    ``ends`` says of a stream that nothing more of it is needed.
    """
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
            if ends is not None and ends(chunk):
                return b"".join(chunks), None
            if time.monotonic() > deadline:
                return b"".join(chunks), _TOO_LATE
    except urllib3.exceptions.ReadTimeoutError:
        return b"".join(chunks), _TOO_LATE
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


def never_connected(error: requests.RequestException) -> bool:
    """Whether a request was never sent: refused, no such host, or nobody there."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def speaks_plain(error: requests.RequestException) -> bool:
    """Whether what an https:// URL names answered without TLS."""
    said = str(error).upper().replace(" ", "_")
    return isinstance(error, requests.exceptions.SSLError) and any(name in said for name in _NO_TLS)


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

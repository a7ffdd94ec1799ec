"""The careful transport: one request over HTTP, sent once, its key kept secret and its outcome told apart exactly."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.masking import masked, masked_bytes, secret
from ttca.platforms.limits import retry_after_s
from ttca.platforms.protocols import TRANSPORT_HEADERS, Request, Response
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.retry import RetryPolicy

__all__ = [
    "Key",
    "NotSentError",
    "Sender",
    "Transport",
    "certificate_problem",
    "check_ca",
    "checked_url",
    "new_session",
    "one_address",
    "secret_problem",
]

_KEY_VARIABLE = re.compile(r"TTCA_KEY_[A-Za-z0-9_]+")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")
# Shorter keys are refused off this machine: they could be guessed, and not be masked where they are echoed.
_SHORTEST_KEY = 8
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "ttca"}
_CHUNK = 65536
_ERROR_BODY = 65536
# Addresses of polls are as many as queries: only so many are remembered.
_MOST_URLS = 64
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


_BAD_VARIABLE = (
    "Expected key_variable to be the name of an environment variable that starts with TTCA_KEY_, got something else "
    "(not shown here, in case it is the key itself). Put the key into such a variable and give its name."
)


class NotSentError(ConfigError, TransportError):
    """Nothing was sent: the configuration, the environment or the platform's metadata is not as it must be.

    It is a ConfigError for people and a refunded TransportError for a pool.
    """

    def __init__(self, message: str, *, platform: str, member: str | None = None) -> None:
        super().__init__(message, platform=platform, charge=ChargeState.REFUNDED, retryable=False, member=member)


@dataclass(frozen=True, kw_only=True)
class Key:
    """Where the key is, and how it travels; never the key itself.

    Parameters
    ----------
    variable : str, optional
        Name of the environment variable with the key, starting with ``TTCA_KEY_``; a credential's own comes
        first. Its value is ``host key``, which binds the key to one host; on this machine ``key`` alone will
        do.
    header, scheme : str
        The header that carries the key, and the word before it; ``X-Api-Key`` and an empty word for many APIs.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    variable: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"

    def __post_init__(self) -> None:
        if self.variable is not None and not _KEY_VARIABLE.fullmatch(self.variable):
            raise ConfigError(_BAD_VARIABLE)
        if not _TOKEN.fullmatch(self.header) or not re.fullmatch(r"[A-Za-z0-9-]*", self.scheme, re.ASCII):
            raise ConfigError(
                f"Expected key_header to be a header's name and key_scheme a word, got {excerpt(self.header, 40)!r} "
                "and a key_scheme that is not shown here. Correct them. The key itself goes into the variable."
            )
        if self.header.lower() in {*TRANSPORT_HEADERS, "content-type"}:
            raise ConfigError(
                f"Expected key_header to name a header that carries only the key, got {self.header}. Choose another."
            )


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Which certificates a platform may show, and how long and how much its answers may be.

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
        A PEM file with the certificate of the platform's own authority; its certificates alone are then believed.

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

    def __post_init__(self) -> None:
        check_ca(self.ca)
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
        self.url, self.host, self.loopback = checked_url(url)
        self._key, self._transport = key, transport
        self._timeouts = (transport.connect_timeout, transport.read_timeout)
        self._idle: list[HTTPAdapter] = []
        self._urls: dict[str, str] = {}
        # Closes the sockets of one that was dropped and never closed.
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close idle connections. More requests open new ones."""
        _close_all(self._idle)

    def exchange(
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
                raise NotSentError(problem, platform=self.url, member=member)
        headers = {**request.headers, **({} if request_id is None else {"Idempotency-Key": request_id})}
        with self._connection() as adapter:
            outcome = self._send(adapter, request, headers, variable, request_id)
        # Raised out here, so that no exception of requests, which holds the sent headers, becomes its
        # context.
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    def _key_problem(self, variable: str) -> str | None:
        """Return what is wrong with a key, never the key."""
        if not _KEY_VARIABLE.fullmatch(variable):
            return _BAD_VARIABLE
        problem = secret_problem(variable, self.host, "key")
        if problem is not None:
            return problem
        parts = os.environ.get(variable, "").split()
        if not self.loopback and (len(parts) == 1 or len(parts[1]) < _SHORTEST_KEY):
            return (
                f"Expected {variable} to hold 'host key' with a key of 8 characters or more, got less. Set it to "
                f"'{self.host} YOUR-KEY'."
            )
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
            prepared = self._prepared(request, headers, variable)
            reply = adapter.send(prepared, stream=True, timeout=self._timeouts, verify=self._transport.ca or True)
        except requests.RequestException as error:
            return self._no_answer(error, request_id)
        try:
            ends = None if request.ends is None else request.ends()
            return self._receive(reply, deadline, variable, request_id, ends)
        finally:
            reply.close()

    def _prepared(self, request: Request, headers: Mapping[str, str], variable: str | None) -> requests.PreparedRequest:
        """Return a request as it goes out, the key in the one header that carries it.

        No frame of ours holds the key while anything can fail, so no traceback, with locals or without, can show it.
        """
        url = self._urls.get(request.path)
        if url is None:
            whole = self._whole(request.path)
            url = requests.Request(request.method, whole).prepare().url or whole
            if len(self._urls) < _MOST_URLS:
                self._urls[request.path] = url
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, url, request.body or None
        prepared.headers = CaseInsensitiveDict({**_HEADERS, "Accept": "*/*", **headers})
        if request.method != "GET":
            prepared.headers["Content-Length"] = str(len(request.body))
        if variable is not None:
            prepared.headers[self._key.header] = f"{self._key.scheme} {secret(variable)}".lstrip()
        return prepared

    def _whole(self, path: str) -> str:
        """Return the URL of a path: below the platform's own, or below its host where it begins with a slash."""
        if path.startswith("/"):
            return f"{self.url[: len(self.url) - len(urlsplit(self.url).path)]}{path}"
        return f"{self.url}/{path}" if path else self.url

    def _receive(
        self,
        reply: requests.Response,
        deadline: float,
        variable: str | None,
        request_id: str | None,
        ends: Callable[[bytes], bool] | None,
    ) -> Response | TransportError:
        status = reply.status_code
        headers = {k.lower(): masked(v, variable) for k, v in reply.headers.items()}
        answering = 200 <= status < 300
        most = self._transport.max_response_bytes
        limit = most if answering else min(_ERROR_BODY, most)
        body, problem = _read(reply, limit, deadline, ends if answering else None)
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
        return Response(status, headers, masked_bytes(body, variable), self.url, request_id)

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


def _gist(body: bytes) -> str:
    """Return what an error's body says: its beginning, or the cause that a Python traceback ends with."""
    causes = re.findall(rb"^[A-Za-z_][\w.]*: .*$", body, re.MULTILINE) if body.lstrip().startswith(b"Traceback") else []
    return excerpt(causes[-1] if causes else body)


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


def one_address(url: str) -> str:
    """Return the one spelling of a URL that :func:`checked_url` has passed: this machine's names are one machine."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    host = "127.0.0.1" if host in ("localhost", "::1") else f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}{'' if port in (None, usual) else f':{port}'}{parts.path}"


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


def secret_problem(variable: str, host: str, what: str) -> str | None:
    """Return what is wrong with a secret that is to go to a host, never the secret.

    Parameters
    ----------
    variable : str
        It holds the secret, or ``host secret``, which binds it to one host.
    host : str
    what : str
        What the secret is called: a key, a token.
    """
    parts = os.environ.get(variable, "").split()
    if not parts:
        return f"Expected the environment variable {variable} to hold a {what}, got none. Set it to 'host {what}'."
    if len(parts) > 2 or not _VISIBLE_ASCII.fullmatch(parts[-1]):
        return (
            f"Expected {variable} to hold 'host {what}' in visible ASCII, got something else. Set it to '{host} "
            f"YOUR-{what.upper()}'."
        )
    if len(parts) == 2 and parts[0].lower().rstrip(".") != host:
        return (
            f"Expected {variable} to hold a {what} bound to {host}, got one bound to another host. "
            f"A {what} goes only to its own host: use the variable made for this one."
        )
    return None

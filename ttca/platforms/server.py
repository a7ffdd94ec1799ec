"""A platform's house: any platform behind real HTTP, for demonstrations, tests and owners who try a fix."""

from __future__ import annotations

import hmac
import json
import logging
import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttca.answers import Answers, Status
from ttca.errors import (
    AnswerError,
    ChargeState,
    ConfigError,
    ImageError,
    MissingExtraError,
    ModelError,
    PlatformError,
    TransportError,
)
from ttca.images import Images, check_images
from ttca.names import unknown_name
from ttca.platforms.base import Credential, Platform
from ttca.platforms.protocols.reading import excerpt
from ttca.private import private

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from ttca.platforms.connections import ConnectionLimits

__all__ = [
    "SERVED",
    "ServedError",
    "Service",
    "background_app",
    "background_server",
    "bounded_body",
    "create_app",
    "how_to_ask",
    "run_app",
    "serve",
]

# Name → (module, function from Service to routes): the serving half of each protocol.
SERVED: dict[str, tuple[str, str]] = {
    "kserve-v2": ("ttca.platforms.protocols.kserve_v2_server", "routes"),
    "kserve-v1": ("ttca.platforms.protocols.tensorflow_serving_server", "kserve_v1_routes"),
    "tensorflow-serving": ("ttca.platforms.protocols.tensorflow_serving_server", "routes"),
    "torchserve": ("ttca.platforms.protocols.single_image_server", "torchserve_routes"),
    "huggingface": ("ttca.platforms.protocols.single_image_server", "huggingface_routes"),
    "bentoml": ("ttca.platforms.protocols.single_image_server", "bentoml_routes"),
    "template": ("ttca.platforms.protocols.single_image_server", "plain_routes"),
}

# What a client must be told that no metadata of the served protocol says.
_TOLD: dict[str, dict[str, Any]] = {
    "kserve-v1": {"send": "integers", "missing_score": -1.0},
    "tensorflow-serving": {"missing_score": -1.0},
    "template": {
        "path": "classify",
        "send": "multipart",
        "label": "label",
        "scores": "scores",
        "refused": "refused",
    },
}
_NAMES_A_MODEL = frozenset({"kserve-v2", "kserve-v1", "tensorflow-serving", "torchserve"})
_HAS_METADATA = frozenset({"kserve-v2", "tensorflow-serving"})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOG = logging.getLogger(__name__)
_STARTUP_S = 30.0


class ServedError(Exception):
    """A request that gets an HTTP status and a sentence instead of an answer; it never leaves the server."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True, kw_only=True)
class Service:
    """What every protocol's routes need: one platform, who may ask it, and the record of what it processed.

    Parameters
    ----------
    platform : Platform
    model, version : str
        Names in the URLs.
    access_log : path, optional
    tokens : mapping of str to str, optional
        Bearer token → member. None: everyone may ask.
    max_request_bytes : int
    """

    platform: Platform
    model: str
    version: str
    access_log: Path | None = None
    tokens: Mapping[str, str] | None = field(default=None, repr=False)
    max_request_bytes: int = 64 * 2**20
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def member(self, authorization: str | None) -> str:
        """Return who asks, or raise a 401."""
        if self.tokens is None:
            return "anyone"
        given = (authorization or "").removeprefix("Bearer ").encode()
        # All tokens are compared, each in constant time, so that the time taken tells nothing.
        found = [m for token, m in self.tokens.items() if hmac.compare_digest(token.encode(), given)]
        if not found:
            raise ServedError(
                401,
                "Expected a known bearer token, got none or an unknown one. Send yours in the Authorization header.",
            )
        return found[0]

    def check(self, named: Mapping[str, Any]) -> None:
        """Raise a 404 where a URL names another model or version than this one; what it does not name is right."""
        model, version = named.get("model", self.model), named.get("version", self.version)
        if (model, version) != (self.model, self.version):
            raise ServedError(
                404,
                f"Expected the model {self.model} (version {self.version}), got {excerpt(model, 60)} "
                f"(version {excerpt(version, 60)}).",
            )

    def answer(self, images: Any, *, request_id: str, member: str) -> Answers:
        """Ask the platform and log it before anyone hears the answer. Blocks; run it in a thread."""
        info = self.platform.info
        try:
            checked: Images = check_images(images, shape=info.image_shape)
        except ImageError as error:
            raise ServedError(400, str(error)) from None
        if not 1 <= len(checked) <= info.max_batch:
            raise ServedError(
                400, f"Expected 1 to {info.max_batch} images, got {len(checked)}. Change the size of the batches."
            )
        try:
            answers = self.platform.attempt(checked, Credential(member), request_id=request_id)
        except Exception as error:
            if isinstance(error, PlatformError) and not isinstance(error, ModelError):
                raise _served(error) from None
            # What a model says when it fails is for the log of whoever serves it, not for strangers.
            _LOG.exception("The platform raised an unexpected error.")
            raise ServedError(500, f"The model failed with {type(error.__cause__ or error).__name__}.") from None
        self._log(request_id, member, len(checked))
        if (answers.status == Status.FAILED).any():
            # No protocol has a way to say that one row of an answer is missing.
            raise ServedError(502, "Expected an answer for every image, got none for some.")
        return answers

    def _log(self, request_id: str, member: str, rows: int) -> None:
        if self.access_log is None:
            return
        record = {
            "time": datetime.now(UTC).isoformat(),
            "request": request_id,
            "member": member,
            "model": self.model,
            "rows": rows,
        }
        # One write in append mode per line: the line is whole in the file before the answer leaves.
        with self._lock, open(self.access_log, "ab", buffering=0, opener=private) as file:
            file.write(json.dumps(record).encode() + b"\n")


async def bounded_body(request: Request, limit: int) -> bytes:
    """Return a request's body, or raise a 413 as soon as it is too large; a client that leaves midway gets a 400."""
    from starlette.requests import ClientDisconnect

    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise ServedError(413, f"Expected at most {limit} bytes, got more. Send fewer images at once.")
            chunks.append(chunk)
    except ClientDisconnect:
        # Nobody hears it; without it the server's terminal shows a traceback.
        raise ServedError(400, "Expected a whole request, got a part. Send it again.") from None
    return b"".join(chunks)


def _served(error: PlatformError) -> ServedError:
    """Return the status and headers with which an API would say what ``error`` says."""
    message = str(error.args[0])
    if isinstance(error, AnswerError) or not isinstance(error, TransportError):
        return ServedError(500, message)
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
        headers["Retry-After-Ms"] = str(math.ceil(error.retry_after * 1000))
    if error.status is not None and 400 <= error.status < 600:
        return ServedError(error.status, message, headers)
    if error.charge is ChargeState.REFUNDED:
        # 503 says "not processed" only together with Retry-After.
        return ServedError(503, message, {"Retry-After": "1", **headers})
    return ServedError(502, message, headers)


def create_app(
    platform: Platform,
    *,
    protocol: str = "kserve-v2",
    model: str | None = None,
    access_log: Path | None = None,
    tokens: Mapping[str, str] | None = None,
    max_request_bytes: int = 64 * 2**20,
) -> FastAPI:
    """Return an application that puts a platform behind one wire format.

    Parameters
    ----------
    platform : Platform
    protocol : str
        One of :data:`SERVED`.
    model : str, optional
        The model's name in URLs; the platform's own name when None.
    access_log : path, optional
        One JSON object per processed request is appended here *before* it is answered: ``time``, ``request``
        (its ``Idempotency-Key``, else the protocol's id), ``member``, ``model``, ``rows``.
    tokens : mapping of str to str, optional
        Bearer token → member's name. None: everyone may ask.
    max_request_bytes : int
        Larger requests get status 413.

    Raises
    ------
    MissingExtraError
        If fastapi is not installed.
    ConfigError
        If an option is not allowed.
    """
    try:
        from fastapi import FastAPI
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse
    except ImportError:
        raise MissingExtraError("Serving a platform", "serve") from None
    if protocol not in SERVED:
        raise ConfigError(f"{unknown_name('protocol', protocol, sorted(SERVED))} Others can be asked, but not served.")
    if max_request_bytes < 1:
        raise ConfigError(
            f"Expected max_request_bytes of at least 1, got {max_request_bytes}. Leave it out to use the default."
        )
    if tokens is not None and not all(tokens):
        raise ConfigError("Expected tokens with at least one character, got an empty one. Remove it.")
    info = platform.info
    name = info.name if model is None else model
    if not _PLAIN_NAME.fullmatch(name):
        raise ConfigError(
            f"Expected a model name of letters, digits, dots, dashes and underscores, got {name!r}. Pass such a name "
            "as model."
        )
    service = Service(
        platform=platform,
        model=name,
        version=info.identity.get("version") or "1",
        access_log=None if access_log is None else Path(access_log),
        tokens=tokens,
        max_request_bytes=max_request_bytes,
    )
    module, function = SERVED[protocol]
    routes: Callable[[Service], list[BaseRoute]] = getattr(import_module(module), function)

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ServedError):
            return JSONResponse({"error": error.message}, error.status, error.headers)
        if isinstance(error, HTTPException):
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        raise error

    return FastAPI(
        title=f"ttca: {name}",
        routes=routes(service),
        exception_handlers={ServedError: refuse, HTTPException: refuse},
        openapi_url=None,
    )


def how_to_ask(platform: Platform, protocol: str, *, model: str | None = None) -> dict[str, Any]:
    """Return what :class:`~ttca.platforms.http.HttpPlatform` needs, beside the URL, to ask a platform served here.

    Parameters
    ----------
    platform : Platform
    protocol : str
        One of :data:`SERVED`.
    model : str, optional
        As given to :func:`create_app`.

    Returns
    -------
    dict
        ``protocol``, ``classes``, ``model`` where the URL names one, and ``options`` of the protocol.
    """
    info = platform.info
    options = dict(_TOLD.get(protocol, {}))
    if not info.gives_scores:
        # Nothing lies there, and a table that says otherwise makes every answer unreadable.
        options.pop("scores", None)
    if protocol not in _HAS_METADATA:
        options["image_shape"] = list(info.image_shape)
    step = getattr(platform, "resolution", 0.0)
    if step and protocol != "kserve-v2":
        # KServe V2 says it with every answer.
        options["resolution"] = step
    named = {"model": info.name if model is None else model} if protocol in _NAMES_A_MODEL else {}
    return {"protocol": protocol, **named, "classes": list(info.classes), "options": options}


def serve(
    platform: Platform,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_start: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve a platform until interrupted.

    Parameters
    ----------
    platform : Platform
    host : str
    port : int
        0 for any free one.
    on_start : callable, optional
        Gets the URL once connections are accepted.
    **options
        As for :func:`create_app`.

    Raises
    ------
    MissingExtraError
        If fastapi or uvicorn is not installed.
    ConfigError
        If an option is not allowed, or the address cannot be bound.
    """
    run_app(create_app(platform, **options), host=host, port=port, on_start=on_start)


def run_app(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_start: Callable[[str], None] | None = None,
    certificate: Path | None = None,
    private_key: Path | None = None,
    limits: ConnectionLimits | None = None,
) -> None:
    """Serve an application until interrupted.

    Parameters
    ----------
    app : FastAPI
    host, port, on_start
        As for :func:`serve`.
    certificate, private_key : path, optional
        PEM files; with them it speaks HTTPS.
    limits : ConnectionLimits, optional
        What strangers may take of it. None: as much as they like.
    """
    server, listener, url = _prepare(app, host, port, certificate, private_key, limits)
    with listener:
        if on_start is not None:
            on_start(url)
        server.run(sockets=[listener])


@contextmanager
def background_server(platform: Platform, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Iterator[str]:
    """Serve a platform from a thread of this process; yields the URL and stops on leaving.

    Parameters
    ----------
    platform, host, port, **options
        As for :func:`serve`.

    Examples
    --------
    >>> with background_server(platform) as url:  # doctest: +SKIP
    ...     http = HttpPlatform(url, model="local", classes=platform.info.classes)
    """
    with background_app(create_app(platform, **options), host=host, port=port) as url:
        yield url


@contextmanager
def background_app(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: Path | None = None,
    private_key: Path | None = None,
    limits: ConnectionLimits | None = None,
) -> Iterator[str]:
    """Serve an application, as :func:`run_app`, from a thread of this process; yields the URL and stops on leaving."""
    server, listener, url = _prepare(app, host, port, certificate, private_key, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="ttca-server", daemon=True)
    with listener:
        thread.start()
        try:
            began = time.monotonic()
            while not server.started:
                if not thread.is_alive() or time.monotonic() - began > _STARTUP_S:
                    raise ConfigError(f"Expected a server at {url}, got one that did not start. See its log.")
                time.sleep(0.002)
            yield url
        finally:
            server.should_exit = True
            thread.join()


def _prepare(
    app: FastAPI,
    host: str,
    port: int,
    certificate: Path | None,
    private_key: Path | None,
    limits: ConnectionLimits | None,
) -> tuple[Any, socket.socket, str]:
    """Return a uvicorn server, the socket it will listen on, and its URL."""
    try:
        import uvicorn

        from ttca.platforms.connections import bounded_protocol
    except ImportError:
        raise MissingExtraError("Serving a platform", "serve") from None
    context = None if certificate is None else _tls(certificate, private_key)
    more: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": private_key}
    if limits is not None:
        # Few are accepted at a time, so that each burst is looked at before the descriptors run out.
        more = {"http": bounded_protocol(limits, context), "backlog": 64}
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        # Longer than a client is likely to idle between two batches, so that no reused connection dies under
        # it.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        **more,
    )
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if certificate is None else "https"
    return uvicorn.Server(config), listener, f"{scheme}://{shown}:{listener.getsockname()[1]}"


def _tls(certificate: Path, private_key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"Expected a certificate and its key in {certificate} and {private_key}, got: {error}. Check the files."
        ) from None
    return context


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)[0]
        # The protocol is named, because asyncio switches Nagle's algorithm off only where it is: without that every
        # answer of two packets waits 40 ms for an acknowledgment.
        listener = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                # Elsewhere this option would let two servers share a port.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[4])
            listener.listen(512)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"Expected to listen on {host}:{port}, got {error.strerror}. Choose another host or port (0 for any free)."
        ) from None
    return listener

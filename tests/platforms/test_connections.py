"""Tests of what strangers may take of a server: connections, and time for each thing they owe; over real sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import trustme
from fastapi import FastAPI, Request
from starlette.responses import Response

from ttca.errors import ConfigError
from ttca.platforms.connections import ConnectionLimits
from ttca.platforms.server import background_app

SOON_S = 0.2
LARGE = 16 * 2**20


def small_app() -> FastAPI:
    """Return an application that says hello, echoes, and says much."""
    app = FastAPI()

    @app.get("/")
    async def hello() -> str:
        return "hello"

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/much")
    async def much() -> Response:
        return Response(b"x" * LARGE)

    return app


@contextmanager
def served(tmp_path: Path, *, tls: bool = False, **limits: float) -> Iterator[tuple[str, Path | None]]:
    """Serve it within limits; give its URL, and the certificate of who vouches for it."""
    pem, key, ca = (tmp_path / name for name in ("server.pem", "server.key", "ca.pem"))
    if tls:
        authority = trustme.CA()
        own = authority.issue_cert("127.0.0.1")
        pem.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
        key.write_bytes(own.private_key_pem.bytes())
        authority.cert_pem.write_to_path(str(ca))
    given = ConnectionLimits(**limits)  # type: ignore[arg-type]
    with background_app(
        small_app(), certificate=pem if tls else None, private_key=key if tls else None, limits=given
    ) as url:
        yield url, ca if tls else None


def connected(url: str) -> socket.socket:
    """Return a connection that has said nothing."""
    parts = urlsplit(url)
    line = socket.create_connection((parts.hostname, parts.port), timeout=10)
    line.settimeout(10)
    return line


def left(line: socket.socket) -> bytes:
    """Return what still comes until the server closes the connection."""
    said = bytearray()
    with suppress(ConnectionError):
        while chunk := line.recv(65536):
            said += chunk
    return bytes(said)


def drip(line: socket.socket) -> None:
    """Send a byte every hundredth of a second, for five seconds."""
    for _ in range(500):
        line.sendall(b"G")
        time.sleep(0.01)


def is_open(line: socket.socket) -> bool:
    """Whether the server still holds a connection that it said nothing on."""
    line.settimeout(0)
    try:
        return bool(line.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("tls", [False, True])
def test_silent_connections_make_room(tls: bool, tmp_path: Path) -> None:
    """However many say nothing, everybody else is answered: those who said nothing for longest are closed."""
    with served(tmp_path, tls=tls, connections=20, header_s=60.0) as (url, ca), ExitStack() as stack:
        silent = []
        for _ in range(200):
            silent.append(stack.enter_context(connected(url)))
            # The server is a thread of this process.
            time.sleep(0.001)
        for _ in range(3):
            assert requests.get(url, timeout=10, verify=str(ca)).json() == "hello"
        assert sum(map(is_open, silent)) <= 20


def test_whoever_is_being_answered_keeps_the_place(tmp_path: Path) -> None:
    """A client that takes its answer slowly is not closed for those who say nothing."""
    with served(tmp_path, connections=2, header_s=60.0) as (url, _), ExitStack() as stack:
        slow = stack.enter_context(connected(url))
        slow.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert slow.recv(16).startswith(b"HTTP/1.1 200")
        for _ in range(10):
            stack.enter_context(connected(url))
        assert requests.get(url, timeout=10).json() == "hello"
        assert len(left(slow)) > LARGE


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n",
    ],
    ids=["nothing", "half a header", "half a body", "half the chunks", "half of the next"],
)
def test_half_a_request_is_not_waited_for(said: bytes, tmp_path: Path) -> None:
    """A connection that does not say the rest in time is closed."""
    with served(tmp_path, header_s=SOON_S, body_s=SOON_S) as (url, _), connected(url) as line:
        line.sendall(said)
        began = time.monotonic()
        left(line)
        assert time.monotonic() - began < 5


def test_a_drip_gains_no_time(tmp_path: Path) -> None:
    """A header that comes byte by byte must be whole in the same time."""
    with served(tmp_path, header_s=SOON_S) as (url, _), connected(url) as line:
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            drip(line)
        assert time.monotonic() - began < 3


def test_an_answer_must_be_taken(tmp_path: Path) -> None:
    """A client that asks for much and reads nothing does not hold it in the server's memory."""
    with served(tmp_path, answer_s=SOON_S) as (url, _), connected(url) as line:
        line.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(4 * SOON_S)
        assert len(left(line)) < LARGE


def test_a_silent_handshake_ends(tmp_path: Path) -> None:
    """A TLS connection that never shakes hands, or half, is closed in time; what HTTPS carries comes whole."""
    body = bytes(range(256)) * 4096
    with served(tmp_path, tls=True, header_s=SOON_S) as (url, ca), connected(url) as silent, connected(url) as half:
        half.sendall(b"\x16\x03\x01\x02\x00")
        assert requests.post(f"{url}/echo", body, timeout=10, verify=str(ca)).content == body
        began = time.monotonic()
        assert left(silent) == b""
        left(half)
        assert time.monotonic() - began < 5


def test_a_request_that_comes_with_the_handshake_is_heard(tmp_path: Path) -> None:
    """Bytes in the packet that ends the handshake are part of the first request."""
    with served(tmp_path, tls=True, header_s=1.0) as (url, ca):
        trusting = ssl.create_default_context(cafile=str(ca))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with connected(url) as line:
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    line.sendall(outgoing.read())
                    incoming.write(line.recv(65536))
            # The end of the handshake was not sent yet: it goes with the request.
            secure.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            line.sendall(outgoing.read())
            said = b""
            while b"hello" not in said:
                incoming.write(line.recv(65536))
                with suppress(ssl.SSLWantReadError):
                    said += secure.read(65536)
            assert said.startswith(b"HTTP/1.1 200")


def test_who_works_between_two_requests_stays_connected(tmp_path: Path) -> None:
    """After an answer there is time: a member's machine asks its platform, and then goes on where it was."""
    with served(tmp_path, header_s=SOON_S, body_s=SOON_S) as (url, _), connected(url) as line:
        for _ in range(2):
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b""
            while not said.endswith(b'"hello"'):
                said += line.recv(65536)
            assert b"200 OK" in said
            time.sleep(2 * SOON_S)


@pytest.mark.parametrize("limits", [{"connections": 0}, {"header_s": 0.0}, {"body_s": -1.0}, {"answer_s": 0.0}])
def test_limits_of_nothing_are_refused(limits: dict[str, float]) -> None:
    """A server that hears nobody is a mistake, said as a sentence."""
    with pytest.raises(ConfigError, match="limits of connections above 0"):
        ConnectionLimits(**limits)  # type: ignore[arg-type]


SERVER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from ttca.platforms.connections import ConnectionLimits
from ttca.platforms.server import run_app
from tests.platforms.test_connections import small_app
run_app(small_app(), limits=ConnectionLimits(header_s=60.0), on_start=lambda url: print(url, flush=True))
"""


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_server_of_few_descriptors_is_not_locked(tmp_path: Path) -> None:
    """More silent connections than the process may have files: honest requests are answered all the same."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with ExitStack() as stack:
                for _ in range(150):
                    stack.enter_context(connected(url))
                    time.sleep(0.001)
                assert requests.get(url, timeout=10).json() == "hello"
        finally:
            process.terminate()

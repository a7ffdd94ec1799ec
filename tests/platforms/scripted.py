"""A loopback server that does what a test tells it to, well or badly, and remembers what it was sent."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("cat", "dog", "owl")
IMAGE_SHAPE = (4, 5, 3)

METADATA: dict[str, Any] = {
    "name": "m",
    "versions": ["7"],
    "platform": "scripted",
    "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 4, 5, 3]}],
    "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 3]}],
}


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return n random images of the scripted platform's size."""
    return np.random.default_rng(seed).integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)


def scores_body(rows: list[list[float]], **more: Any) -> bytes:
    """Return a JSON answer with the given score rows."""
    flat = [v for row in rows for v in row]
    tensor = {"name": "p", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": flat}
    return json.dumps({"model_name": "m", "outputs": [tensor], **more}).encode()


GOOD = scores_body([[0.1, 0.7, 0.2]])


class Exchange(BaseHTTPRequestHandler):
    """One connection; ``reply``, ``reset`` and ``raw`` are what scripts use."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def setup(self) -> None:
        """Count connections, to tell kept-alive ones from new ones."""
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        """Answer metadata."""
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.server.on_get(self)

    def do_POST(self) -> None:
        """Read the body and do what the test says."""
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.server.on_post(self)

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send one whole response."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


Script = Callable[[Exchange], None]


class ScriptedServer(ThreadingHTTPServer):
    """The server; ``released`` ends every stall when the test is over."""

    daemon_threads = True

    def __init__(self, on_post: Script, metadata: Any) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.on_post = on_post
        self.metadata = metadata
        self.on_get: Script = self._answer_metadata
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self.released = threading.Event()

    def _answer_metadata(self, exchange: Exchange) -> None:
        known = {"/v2/models/m": self.metadata, "/v2": {"name": "scripted", "extensions": []}}
        found = known.get(exchange.path)
        exchange.reply(404 if found is None else 200, json.dumps(found).encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore what a dropped connection raises in its own thread."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def posts(self) -> list[dict[str, str]]:
        """Headers of every query received."""
        return [headers for command, _, headers in self.requests if command == "POST"]


@contextmanager
def scripted(on_post: Script | None = None, *, metadata: Any = None) -> Iterator[ScriptedServer]:
    """Run a scripted server; by default it answers every query with the same good row."""
    server = ScriptedServer(on_post or (lambda e: e.reply(200, GOOD)), METADATA if metadata is None else metadata)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()

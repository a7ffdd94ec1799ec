"""A hub that says what a test tells it to, over real HTTP, and never counts what it hands out."""

from __future__ import annotations

import base64
import io
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from tests.pooling.scripted import ScriptedPlatform, distinct
from ttca.images import Images


def png(image: Images) -> str:
    """Return one image as a hub hands it out."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class AnyHub:
    """A hub that says what a test tells it to, over real HTTP, and never counts what it hands out."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.paths: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Be a hub that hands out leases of whatever size was asked for."""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.action: Any = {"fingerprint": ScriptedPlatform().info.fingerprint_as_read}
        self.me: Any = {"member": "ada", "remaining": 10}
        self.given: Callable[[dict[str, Any]], Any] = self.lease
        self.paths.clear()
        self.asked: list[int] = []
        #: What members brought back, by path, also where the hub did not take it; each is shown to ``meet`` first.
        self.brought: list[tuple[str, Any]] = []
        self.meet: Callable[[str], None] = lambda _path: None
        self.tokens: set[str | None] = set()

    def lease(self, wish: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Return a lease of the size that was wished for."""
        images = [png(image) for image in distinct(wish["size"], start=len(self.paths))]
        return {"lease": wish["name"], "images": images, "expires_at": 1e9, **changes}

    def say(self, path: str, body: bytes) -> Any:
        """Return what is said at a path."""
        with self.lock:
            self.paths.append(path)
            if path == "/v1/leases":
                wish = json.loads(body)
                self.asked.append(wish["size"])
                return self.given(wish)
            if path.startswith("/v1/leases/"):
                self.brought.append((path, json.loads(body)))
                self.meet(path)
        return {"/v1/action": self.action, "/v1/me": self.me}.get(path, {"usable": 1})


@contextmanager
def any_hub(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, AnyHub]]:
    """Serve a hub that says anything, over TLS with a context; give its URL."""
    hub = AnyHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.tokens.add(self.headers.get("Authorization"))
            said = hub.say(self.path, body)
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(hub.status)
            for name, value in {**hub.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # members that are killed leave in the middle of a sentence

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'' if context is None else 's'}://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A KServe V2 server that costs next to nothing to answer, so that a benchmark measures its client.

It reads of a request no more than its head, and says of every image the same. The servers that limit and that fail are
made of the same connection.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks._processes import announce, end_when_orphaned
from ttca.images import Images
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import serve

__all__ = [
    "CLASSES",
    "IMAGE_SHAPE",
    "METADATA",
    "MODEL",
    "SHARES",
    "Asked",
    "Connection",
    "Instant",
    "serve_until_orphaned",
]

MODEL = "bench"
CLASSES = tuple(f"class-{i}" for i in range(10))
IMAGE_SHAPE = (32, 32, 3)
MAX_BATCH = 64
#: What is said of every image: no two classes alike, the highest neither the first nor the last.
SHARES: NDArray[np.float32] = (np.roll(np.arange(1, 11), 4) / 55).astype(np.float32)

_HEADER_LENGTH = "inference-header-content-length"
# A request's head names these before any pixel.
_HEAD = 2048
_ID = re.compile(rb'"id":\s*"([^"\\]*)"')
_SHAPE = re.compile(rb'"shape":\s*\[(\d+)')


@dataclass(frozen=True)
class Asked:
    """One inference request: its id, its number of images, the form in which it wants its answer, and its bytes.

    Parameters
    ----------
    request_id : str
    n : int
    binary : bool
    head : int
        The bytes of ``body`` before the pixels, in the binary form.
    body : bytes
    """

    request_id: str
    n: int
    binary: bool
    head: int
    body: bytes

    @property
    def images(self) -> Images:
        """The pixels, where they came in the binary form: uint8, shape (n, H, W, 3)."""
        return np.frombuffer(self.body, np.uint8, offset=self.head).reshape(self.n, *IMAGE_SHAPE)


#: Path → what a GET of it says.
METADATA: dict[str, object] = {
    "/v2": {"name": MODEL, "version": "1", "extensions": ["binary_tensor_data"]},
    f"/v2/models/{MODEL}": {
        "name": MODEL,
        "versions": ["1"],
        "platform": "benchmark",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, *IMAGE_SHAPE]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, len(CLASSES)]}],
        "parameters": {"classes": list(CLASSES), "max_batch": MAX_BATCH},
    },
}


class Connection(asyncio.Protocol, ABC):
    """One kept-alive connection. A subclass says what becomes of a request for answers."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._method, self._path = "", ""
        self._headers: dict[str, str] = {}
        # Where the body of the request at the buffer's beginning begins and ends; 0 while its head is not whole.
        self._body = self._end = 0

    @abstractmethod
    def infer(self, asked: Asked) -> None:
        """Answer, or do not."""

    def about(self, path: str) -> object | None:
        """Return what a GET of another path than the metadata's finds, None for nothing."""
        return None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect requests and serve each once it is whole."""
        self._buffer += data
        while True:
            if not self._end:
                self._body = self._buffer.find(b"\r\n\r\n") + 4
                if self._body < 4:
                    return
                self._read_head(self._buffer[: self._body - 4].decode("latin-1"))
            if len(self._buffer) < self._end:
                return
            body = bytes(self._buffer[self._body : self._end])
            del self._buffer[: self._end]
            self._end = 0
            self._serve(body)

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send one whole response."""
        self.transport.write(self.response(status, body, headers))

    def response(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the bytes of one whole response."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self._method, self._path, _ = first.split(" ", 2)
        self._headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._end = self._body + int(self._headers.get("content-length", "0"))

    def _serve(self, body: bytes) -> None:
        if self._method == "POST":
            self._infer(body)
            return
        found = METADATA.get(self._path) or self.about(self._path)
        said = {"error": f"Expected another path than {self._path}."} if found is None else found
        self.reply(404 if found is None else 200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    def _infer(self, body: bytes) -> None:
        head = int(self._headers.get(_HEADER_LENGTH, "0"))
        beginning = body[: head or _HEAD]
        named, shape = _ID.search(beginning), _SHAPE.search(beginning)
        if named is None or shape is None:
            self.reply(400, b'{"error":"Expected an id and a tensor before any pixel."}')
            return
        self.infer(Asked(named.group(1).decode(), int(shape.group(1)), head > 0, head, body))


class Instant(Connection):
    """Says of every image the same, from bytes made once."""

    def infer(self, asked: Asked) -> None:
        """Answer at once."""
        self.answer(asked, {})

    def answer(self, asked: Asked, more: Mapping[str, str]) -> None:
        """Send the answer, with ``more`` headers."""
        before, after, tail = _said(asked.n, asked.binary)
        named = asked.request_id.encode()
        headers = {"Content-Type": "application/json", **more}
        if asked.binary:
            length = len(before) + len(named) + len(after)
            headers |= {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
        self.reply(200, b"".join((before, named, after, tail)), headers)


@lru_cache(maxsize=2 * MAX_BATCH)
def _said(n: int, binary: bool) -> tuple[bytes, bytes, bytes]:
    """Return what stands before and after the id in the answer about n images, and the binary data."""
    rows = np.tile(SHARES, (n, 1))
    tensor: dict[str, object] = {"name": "scores", "datatype": "FP32", "shape": [n, len(CLASSES)]}
    if binary:
        tensor["parameters"] = {"binary_data_size": rows.nbytes}
    else:
        tensor["data"] = rows.reshape(-1).astype(np.float64).tolist()
    message = {"model_name": MODEL, "model_version": "1", "id": "%", "outputs": [tensor]}
    before, _, after = json.dumps(message, separators=(",", ":")).encode().partition(b"%")
    return before, after, rows.astype("<f4").tobytes() if binary else b""


def serve_until_orphaned(make: Callable[[], Connection]) -> None:
    """Serve on any free port of loopback, print the URL, and end when standard input closes."""
    end_when_orphaned()

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=512)
        announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(run())


def main(kind: str) -> None:
    """Serve ``instant``ly, or the same answers by ttca's own server, ``fastapi``, to tell how fast that one is."""
    if kind == "instant":
        serve_until_orphaned(Instant)
        return
    end_when_orphaned()
    platform = LocalPlatform(
        lambda images: np.tile(SHARES.astype(np.float64), (len(images), 1)),
        classes=CLASSES,
        image_shape=IMAGE_SHAPE,
        name=MODEL,
        version="1",
    )
    serve(platform, on_start=announce)


if __name__ == "__main__":
    main(sys.argv[1])

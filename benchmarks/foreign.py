"""How many images per second come through ttca beside a bare loop, at servers of others and equal concurrency?"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import requests
from numpy.typing import NDArray

from benchmarks._foreign_servers import TRITON, node, triton
from benchmarks._instant_server import CLASSES, IMAGE_SHAPE, MODEL
from ttca.errors import ConfigError, TTCAError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform
from ttca.platforms.protocols.encoding import as_png

__all__ = ["QUICK", "SERVERS", "Triton", "against", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--servers", "node", "--requests", "400", "--turns", "3", "--concurrency", "8")

_TIMEOUT = (5.0, 30.0)


class Served(Protocol):
    """A server of others: how it is started, asked by ttca, and asked by a bare loop."""

    @property
    def batch(self) -> int:
        """Images of a request."""

    @property
    def running(self) -> Callable[[], AbstractContextManager[str]]:
        """What starts it, gives its URL, and ends it."""

    def platform(self, url: str) -> HttpPlatform:
        """Return the platform as a user sets it up."""

    def bare(self, session: requests.Session, url: str, images: Images) -> NDArray[np.int64]:
        """Ask once with a plain session, body and encoding as the platform's, and return the labels."""


@dataclass(frozen=True)
class Triton:
    """Triton's own binary, in KServe V2's binary form."""

    batch: int
    running: Callable[[], AbstractContextManager[str]] = triton

    def platform(self, url: str) -> HttpPlatform:
        """Return the platform: all but the classes is read from the server."""
        return HttpPlatform(url, model=MODEL, classes=CLASSES)

    def bare(self, session: requests.Session, url: str, images: Images) -> NDArray[np.int64]:
        """Ask once."""
        name = uuid.uuid4().hex
        message = {
            "id": name,
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
            "inputs": [
                {
                    "name": "images",
                    "datatype": "UINT8",
                    "shape": list(images.shape),
                    "parameters": {"binary_data_size": images.nbytes},
                }
            ],
        }
        head = json.dumps(message, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            "Idempotency-Key": name,
        }
        reply = session.post(
            f"{url}/v2/models/{MODEL}/infer", data=head + images.tobytes(), headers=headers, timeout=_TIMEOUT
        )
        reply.raise_for_status()
        length = int(reply.headers["Inference-Header-Content-Length"])
        shape = json.loads(reply.content[:length])["outputs"][0]["shape"]
        labels: NDArray[np.int64] = np.frombuffer(reply.content, "<f4", offset=length).reshape(shape).argmax(axis=1)
        return labels


@dataclass(frozen=True)
class _Node:
    """An image API on Node's http module: a PNG in base64 in JSON, one image a request."""

    batch: int = 1
    running: Callable[[], AbstractContextManager[str]] = node

    def platform(self, url: str) -> HttpPlatform:
        """Return the platform: a table describes the API."""
        return HttpPlatform(
            url,
            protocol="template",
            classes=CLASSES,
            path="classify",
            send="json",
            body={"image": "{image}"},
            label="faces[0].label",
            scores="faces[0].scores",
            image_shape=IMAGE_SHAPE,
        )

    def bare(self, session: requests.Session, url: str, images: Images) -> NDArray[np.int64]:
        """Ask once."""
        body = json.dumps({"image": base64.b64encode(as_png(images[0])).decode()}, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        reply = session.post(f"{url}/classify", data=body, headers=headers, timeout=_TIMEOUT)
        reply.raise_for_status()
        face = reply.json()["faces"][0]
        scores = np.array([[face["scores"][name] for name in CLASSES]], np.float32)
        # Label and scores are read on both sides.
        return np.array([CLASSES.index(face["label"])]) if scores.shape == (1, len(CLASSES)) else np.array([-1])


#: Name → its variants.
SERVERS: Mapping[str, Sequence[Served]] = {"triton": (Triton(1), Triton(16)), "node": (_Node(),)}


def main(argv: list[str]) -> dict[str, Any]:
    """Ask Triton and a Node server through ttca and by a bare loop, in turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks foreign", description=__doc__)
    parser.add_argument("--servers", nargs="+", choices=tuple(SERVERS), default=tuple(SERVERS), help="which")
    parser.add_argument("--concurrency", nargs="+", type=int, default=(8, 32), help="requests in flight")
    parser.add_argument("--requests", type=int, default=3000, help="requests per turn")
    parser.add_argument("--turns", type=int, default=7, help="turns per side")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.turns < 1 or not 1 <= max(options.concurrency) <= options.requests or min(options.concurrency) < 1:
        raise ConfigError(
            f"Expected turns and concurrency of 1 or more, and as many requests, got {options.turns}, "
            f"{list(options.concurrency)} and {options.requests}. Correct them."
        )
    found: dict[str, dict[str, Any]] = {}
    for name in options.servers:
        for server in SERVERS[name]:
            with server.running() as url:
                for concurrency in options.concurrency:
                    found[f"{name}, batch {server.batch}, {concurrency} in flight"] = against(
                        server, url, concurrency=concurrency, n=options.requests, turns=options.turns
                    )
    return {
        "ttca_over_bare": min(one["ratio"] for one in found.values()),
        "variants": found,
        "settings": {
            "requests_of_a_turn": options.requests,
            "turns": options.turns,
            "image_shape": list(IMAGE_SHAPE),
            "triton": TRITON,
        },
        "how": _HOW,
    }


_HOW = (
    "ttca_over_bare: images per second through HttpPlatform and its throttle, as the pool asks but without a ledger, "
    "over those of a loop of plain requests sessions. Threads, batch, encoding and bodies are equal. The sides take "
    "turns, each round beginning with another one. It is a ratio of medians, the lowest of all variants (higher is "
    "better). Every turn begins without a connection. Ours has no metadata yet, and one request in flight, "
    "which doubles from round to round: start-up is in the figure. Sessions read no proxies or passwords from the "
    "environment. The label is the first pixel's red level modulo ten, and every label is compared. Server and client "
    "share the machine's cores."
)


def against(server: Served, url: str, *, concurrency: int, n: int, turns: int) -> dict[str, Any]:
    """Return how fast ttca is beside a bare loop at one server.

    Parameters
    ----------
    server : Served
    url : str
    concurrency : int
        Threads of either side, each with at most one request in flight.
    n : int
        Requests of one turn.
    turns : int
        Turns of each side.

    Raises
    ------
    TTCAError
        If a label is not the model's.
    """
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 256, (n, server.batch, *IMAGE_SHAPE), dtype=np.uint8)
    sides = {"ours": _ours, "bare": _bare}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    # The server is warm for both.
    for side in sides.values():
        side(server, url, batches[: max(1, n // 10)], concurrency)
    names = list(sides)
    for number in range(turns):
        for name in names if number % 2 == 0 else names[::-1]:
            taken[name].append(sides[name](server, url, batches, concurrency))
    ours, bare = (statistics.median(taken[name]) for name in ("ours", "bare"))
    return {
        "ratio": bare / ours,
        "ratio_of_each_turn": [b / o for o, b in zip(taken["ours"], taken["bare"], strict=True)],
        "images_per_s": {"ours": n * server.batch / ours, "bare": n * server.batch / bare},
        "seconds_of_a_turn": {"ours": ours, "bare": bare},
        "batch": server.batch,
        "concurrency": concurrency,
    }


def _ours(server: Served, url: str, batches: NDArray[np.uint8], concurrency: int) -> float:
    credential = Credential("ada")
    with server.platform(url) as platform:

        def ask(images: Images) -> NDArray[np.int64]:
            with platform.throttle.slot(""):
                return platform.attempt(images, credential, request_id=uuid.uuid4().hex).labels

        return _seconds(ask, batches, concurrency)


def _bare(server: Served, url: str, batches: NDArray[np.uint8], concurrency: int) -> float:
    own = threading.local()
    sessions: list[requests.Session] = []

    def ask(images: Images) -> NDArray[np.int64]:
        if not hasattr(own, "session"):
            own.session = requests.Session()
            own.session.trust_env = False
            sessions.append(own.session)
        return server.bare(own.session, url, images)

    try:
        return _seconds(ask, batches, concurrency)
    finally:
        for session in sessions:
            session.close()


def _seconds(ask: Callable[[Images], NDArray[np.int64]], batches: NDArray[np.uint8], concurrency: int) -> float:
    """Return the seconds in which so many threads ask about all batches; each takes the next one that is left."""
    numbers, lock = iter(range(len(batches))), threading.Lock()

    def some(_: int) -> int:
        wrong = 0
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return wrong
            images = batches[number]
            wrong += int((ask(images) != images[:, 0, 0, 0] % len(CLASSES)).sum())

    with ThreadPoolExecutor(concurrency) as executor:
        began = time.perf_counter()
        wrong = sum(executor.map(some, range(concurrency)))
        seconds = time.perf_counter() - began
    if wrong:
        raise TTCAError(f"Expected the model's own label of every image, got {wrong} others.")
    return seconds

"""A KServe V2 server that fails in every way a platform can, and writes down what it really processed.

Faults are decided by the seed, the pixels of a request and how often these came, so that neither concurrency nor the
random ids of requests change them. Two files are appended to before anything is sent: ``processed`` has one line for
each image the model looked at, ``arrivals`` one for each request that came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._instant_server import CLASSES, MODEL, Asked, Connection, serve_until_orphaned
from ttca.answers import Answers, Status
from ttca.errors import ChargeState
from ttca.images import Images
from ttca.pooling.booking import ANSWERED

__all__ = ["FATES", "LOGS", "Fate", "FaultPlan", "model_answers"]

#: Names of the two files, without their ending.
LOGS = ("processed", "arrivals")
# One image in so many is refused.
_REFUSES = 16


@dataclass(frozen=True)
class Fate:
    """What becomes of a request: whether the model looks at it, and how a careful client must book it."""

    processed: bool
    outcome: str


_REFUNDED, _UNKNOWN, _UNUSABLE = (s.value for s in (ChargeState.REFUNDED, ChargeState.UNKNOWN, ChargeState.CHARGED))
#: Name → fate. Every name but ``well`` is a fault. Of ``one-nan`` the other rows are sound, and to be accepted.
FATES: dict[str, Fate] = {
    "well": Fate(True, ANSWERED),
    "429-with-retry-after": Fate(False, _REFUNDED),
    "429": Fate(False, _REFUNDED),
    "503-with-retry-after": Fate(False, _REFUNDED),
    "503-before": Fate(False, _UNKNOWN),
    "503-after": Fate(True, _UNKNOWN),
    "500-before": Fate(False, _UNKNOWN),
    "500-after": Fate(True, _UNKNOWN),
    "reset-before": Fate(False, _UNKNOWN),
    "reset-after": Fate(True, _UNKNOWN),
    "stall": Fate(True, _UNKNOWN),
    "stall-midway": Fate(True, _UNKNOWN),
    "cut-short": Fate(True, _UNKNOWN),
    "html": Fate(True, _UNUSABLE),
    "broken-json": Fate(True, _UNUSABLE),
    "error-body": Fate(True, _UNUSABLE),
    "all-nan": Fate(True, _UNUSABLE),
    "one-nan": Fate(True, _UNUSABLE),
    "class-missing": Fate(True, _UNUSABLE),
    "classes-renamed": Fate(True, _UNUSABLE),
    "row-missing": Fate(True, _UNUSABLE),
    "of-another-request": Fate(True, _UNUSABLE),
}
_FAULTS = tuple(name for name in FATES if name != "well")


def model_answers(images: Images) -> Answers:
    """Return what the platform's model says: the first levels of an image as shares, and of some a refusal."""
    flat = images.reshape(len(images), -1)
    levels = flat[:, : len(CLASSES)].astype(np.float64) + 1.0
    scores = (levels / levels.sum(axis=1, keepdims=True)).astype(np.float32)
    refused = flat[:, -1] % _REFUSES == 0
    scores[refused] = np.nan
    return Answers(
        np.where(refused, Status.REFUSED, Status.ANSWERED).astype(np.int8),
        np.where(refused, -1, levels.argmax(axis=1)).astype(np.int64),
        scores,
        np.zeros(len(images), np.float32),
    )


@dataclass
class FaultPlan:
    """Which request fails how: of all, ``share`` fail."""

    seed: int
    share: float
    _asked: Counter[bytes] = field(default_factory=Counter)

    def fate(self, pixels: bytes) -> str:
        """Return the name of what becomes of these pixels, this time."""
        what = hashlib.blake2b(pixels, digest_size=16).digest()
        times = self._asked[what]
        self._asked[what] += 1
        draw = hashlib.blake2b(what + f"{self.seed} {times}".encode(), digest_size=16).digest()
        chance, which = np.frombuffer(draw, "<u8").astype(np.float64) / 2.0**64
        return _FAULTS[int(which * len(_FAULTS)) % len(_FAULTS)] if chance < self.share else "well"


class _Logs:
    """What came, and what of it was processed."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._processed, self._arrivals = (os.open(folder / f"{n}.jsonl", flags, 0o600) for n in LOGS)
        self._arrived: Counter[str] = Counter()

    def arrive(self, asked: Asked, fate: str) -> int:
        """Write down that a request came, and return how many of its id have come."""
        self._arrived[asked.request_id] += 1
        arrival = self._arrived[asked.request_id]
        line = {"request": asked.request_id, "arrival": arrival, "rows": asked.n, "fate": fate}
        os.write(self._arrivals, json.dumps(line).encode() + b"\n")
        return arrival

    def process(self, asked: Asked, arrival: int, sent_well: NDArray[np.bool_]) -> None:
        """Write down, image by image, that the model has looked at a request."""
        now = datetime.now(UTC).isoformat()
        lines = [
            {"time": now, "request": asked.request_id, "arrival": arrival, "model": MODEL, "position": i, "well": well}
            for i, well in enumerate(sent_well.tolist())
        ]
        # One write in append mode: the lines are whole in the file before anything leaves.
        os.write(self._processed, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


class _Faulty(Connection):
    """A connection to the platform that fails."""

    def __init__(self, plan: FaultPlan, logs: _Logs, stall_s: float) -> None:
        super().__init__()
        self._plan, self._logs, self._stall_s = plan, logs, stall_s

    def infer(self, asked: Asked) -> None:
        """Answer well, or not."""
        if not asked.binary:
            self.reply(400, b'{"error":"Expected the binary form."}')
            return
        images = asked.images
        name = self._plan.fate(images.tobytes())
        arrival = self._logs.arrive(asked, name)
        said = model_answers(images)
        nan = np.zeros(asked.n, np.bool_)
        nan[: {"all-nan": asked.n, "one-nan": 1}.get(name, 0)] = True
        if FATES[name].processed:
            self._logs.process(asked, arrival, _sent_well(name, said, nan))
        status, headers, body = _response(asked, name, said, nan)
        whole = self.response(status, body, headers)
        half = len(whole) - len(body) // 2
        match name:
            case "reset-before" | "reset-after":
                self._reset()
            case "stall":
                self._later(whole)
            case "stall-midway":
                self.transport.write(whole[:half])
                self._later(whole[half:])
            case "cut-short":
                self.transport.write(whole[:half])
                self.transport.close()
            case _:
                self.transport.write(whole)

    def _reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        # Closed without lingering: the other end gets a reset, not an orderly end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _later(self, content: bytes) -> None:
        def send() -> None:
            if not self.transport.is_closing():
                self.transport.write(content)

        asyncio.get_running_loop().call_later(self._stall_s, send)


def _sent_well(name: str, said: Answers, nan: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows a client gets whole and sound, and so must accept."""
    n = len(said)
    if name not in ("well", "all-nan", "one-nan"):
        return np.zeros(n, np.bool_)
    spoilt = nan & said.answered
    # Without one sound row a response is unreadable as a whole, refusals in it included.
    readable = not spoilt.any() or bool((said.answered & ~nan).any())
    return ~spoilt & readable


def _response(asked: Asked, name: str, said: Answers, nan: NDArray[np.bool_]) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body, as the fault of this name makes them."""
    if name in _REFUSALS:
        status, headers = _REFUSALS[name]
        return status, headers, b'{"error":"Not now."}'
    if name == "html":
        return 200, {"Content-Type": "text/html"}, b"<html><body>Please sign in.</body></html>"
    if name == "error-body":
        return 200, {"Content-Type": "application/json"}, b'{"error":"CUDA out of memory"}'
    scores = np.nan_to_num(said.scores)
    scores[nan] = np.nan
    scores = scores[: len(scores) - (name == "row-missing"), : len(CLASSES) - (name == "class-missing")]
    data = scores.astype("<f4").tobytes()
    parameters: dict[str, Any] = {"binary_data_size": len(data)}
    if name == "classes-renamed":
        parameters["classes"] = [f"other-{c}" for c in CLASSES]
    message = {
        "id": "another" if name == "of-another-request" else asked.request_id,
        "model_name": MODEL,
        "model_version": "1",
        "parameters": {"refused": (~said.answered).tolist()[: len(scores)]},
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": list(scores.shape), "parameters": parameters}],
    }
    head = json.dumps(message).encode()
    if name == "broken-json":
        return 200, {"Content-Type": "application/json"}, head[: len(head) // 2]
    return (
        200,
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
        head + data,
    )


_REFUSALS: dict[str, tuple[int, dict[str, str]]] = {
    "429-with-retry-after": (429, {"Retry-After": "1", "Retry-After-Ms": "50"}),
    "429": (429, {}),
    "503-with-retry-after": (503, {"Retry-After": "0"}),
    "503-before": (503, {}),
    "503-after": (503, {}),
    "500-before": (500, {}),
    "500-after": (500, {}),
}


def _connections(folder: Path, plan: FaultPlan, stall_s: float) -> Callable[[], Connection]:
    logs = _Logs(folder)
    return lambda: _Faulty(plan, logs, stall_s)


if __name__ == "__main__":
    serve_until_orphaned(
        _connections(Path(sys.argv[1]), FaultPlan(int(sys.argv[2]), float(sys.argv[3])), float(sys.argv[4]))
    )

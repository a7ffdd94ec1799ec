"""What does pooling cost beside the platform itself? The ledger's speed and memory, and the pool's overhead."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bare_sqlite import against_bare
from benchmarks._paid_twice import measure_paid_twice
from benchmarks._slow_platform import CLASSES, IMAGE_SHAPE, slow_platform
from ttca.answers import Answers
from ttca.errors import TTCAError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--answers", "50000", "--queries", "512", "--repeats", "1", "--images", "400", "--kills", "2")

BATCH = 1000
CONCURRENCY = 32
LATENCY_S = 0.02
#: Images of a batched request.
REQUEST = 16
#: Queries of a request whose answers are 2 kB.
OF_A_BODY = 20


def main(argv: list[str]) -> dict[str, Any]:
    """Fill a ledger, open it again in a new process, and run the same queries with and without a pool."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks pool", description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000, help="answers in the ledger")
    parser.add_argument("--queries", type=int, default=2048, help="queries of each run against the slow platform")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000, help="images of each process that is killed")
    parser.add_argument("--kills", type=int, default=20, help="kills of the processes that share a ledger")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ledger.sqlite"
        written = fill(path, options.answers)
        file_mb = path.stat().st_size / 2**20
        opened = _in_a_new_process(path, options.answers)
    single = overhead(options.queries, options.repeats, batch=1, latency_s=LATENCY_S)
    batched = overhead(options.queries, options.repeats, batch=REQUEST, latency_s=LATENCY_S * REQUEST)
    bare = against_bare(min(options.answers, 100_000), options.repeats, of_request=OF_A_BODY)
    ratios, of_batches = ([pooled / bare for bare, pooled in runs] for runs in (single, batched))
    return {
        **measure_paid_twice(options.images, options.kills),
        "rows_vs_bare": bare["rows_vs_bare"],
        "lookups_vs_bare": bare["lookups_vs_bare"],
        "against_bare": {
            str(n): bare
            if n == OF_A_BODY
            else against_bare(min(options.answers, 20_000), options.repeats, of_request=n)
            for n in (1, OF_A_BODY, BATCH)
        },
        "ledger_rows_per_s": options.answers / written,
        "reopen_s": opened["reopen_s"],
        "lookups_per_s": opened["lookups_per_s"],
        "overhead": statistics.median(ratios) - 1,
        "overhead_of_each_run": [ratio - 1 for ratio in ratios],
        "overhead_batched": statistics.median(of_batches) - 1,
        "overhead_batched_of_each_run": [ratio - 1 for ratio in of_batches],
        "bare_seconds": [bare for bare, _ in single],
        "bare_seconds_batched": [bare for bare, _ in batched],
        "memory_mb": opened["memory_mb"],
        "file_mb": file_mb,
        "answers": options.answers,
        "batch": BATCH,
        "queries": options.queries,
        "concurrency": CONCURRENCY,
        "platform_seconds_per_query": LATENCY_S,
        "how": "Paid twice: queries charged although an accepted answer stood in the ledger, with processes that ask "
        "overlapping images and are killed and started again, on SQLite and on PostgreSQL. Against bare SQLite: the "
        f"same rows in as many transactions of 1,000 queries, as durable, in requests of {OF_A_BODY} with a body of "
        "2 kB (and of 1 and 1,000); packing and sealing are the ledger's work. A row is one query charged, settled and "
        "answered with ten scores, in requests of `batch`. Reopening "
        "ends with a first look-up, in a new process; memory is that process's over its own before it imported "
        "anything of ttca. Overhead: the same single-image requests over HTTP on loopback, through the pool and "
        "through bare threads, in turns, by the wall clock; batched: requests of 16 images that take 16 times as long, "
        "as many images in flight. Platform, pool and bare threads share the machine's cores.",
    }


def fill(path: Path, n: int) -> float:
    """Write so many answers and return the seconds that the ledger took."""
    rng = np.random.default_rng(0)
    seconds = 0.0
    with Ledger(path) as ledger:
        ledger.enrol({"ada": n})
        for start in range(0, n, BATCH):
            size = min(BATCH, n - start)
            keys = keys_of(start, size)
            scores = rng.random((size, len(CLASSES)), np.float32)
            answers = Answers.from_scores(scores / scores.sum(axis=1, keepdims=True))
            began = time.perf_counter()
            charge = ledger.charge("ada", keys, request_id=str(start), number=1, purpose="pool")
            ledger.settle(charge, keys, answers)
            seconds += time.perf_counter() - began
    return seconds


def keys_of(start: int, n: int) -> list[bytes]:
    """Return the keys of so many queries, as scattered as hashes are."""
    return [np.random.default_rng(i).bytes(32) for i in range(start, start + n)]


def look_up(path: Path, n: int) -> dict[str, float]:
    """Open the ledger, look up random batches, and say how long it took and how much memory is in use."""
    began = time.perf_counter()
    with Ledger(path) as ledger:
        ledger.lookup(keys_of(0, 1), classes=len(CLASSES))
        reopened = time.perf_counter() - began
        rng = np.random.default_rng(1)
        seconds, found, batches = 0.0, 0, 100
        for _ in range(batches):
            keys = [key for i in rng.integers(0, n, BATCH) for key in keys_of(int(i), 1)]
            began = time.perf_counter()
            known, _ = ledger.lookup(keys, classes=len(CLASSES))
            seconds += time.perf_counter() - began
            found += int(known.sum())
        if found != batches * BATCH:
            raise TTCAError(f"Expected every key that was written to be found, got {found} of {batches * BATCH}.")
        return {"reopen_s": reopened, "lookups_per_s": found / seconds}


_NEW_PROCESS = """
import json, sys
def rss():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024
before = rss()
from pathlib import Path
from benchmarks.pool import look_up
said = look_up(Path(sys.argv[1]), int(sys.argv[2]))
print(json.dumps({**said, "memory_mb": rss() - before}))
"""


def _in_a_new_process(path: Path, n: int) -> dict[str, float]:
    command = [sys.executable, "-c", _NEW_PROCESS, str(path), str(n)]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return said


def overhead(n: int, repeats: int, *, batch: int, latency_s: float) -> list[tuple[float, float]]:
    """Return the seconds of each run over bare threads and through a pool, in turns."""
    images = np.random.default_rng(0).integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)
    runs: list[tuple[float, float]] = []
    with slow_platform(latency_s) as url, tempfile.TemporaryDirectory() as name:
        platform = HttpPlatform(url, model="slow", classes=CLASSES)
        # Connections, caches and the server are warm for both.
        _bare(platform, images[: 4 * CONCURRENCY], batch)
        for turn in range(repeats):
            bare = _bare(platform, images, batch)
            with Ledger(Path(name) / f"{turn}.sqlite") as ledger:
                pool = QueryPool(platform, ledger, [Member("ada", n)], pace=Pace(concurrency=CONCURRENCY, batch=batch))
                began = time.perf_counter()
                pool.ask(images)
                runs.append((bare, time.perf_counter() - began))
    return runs


def _bare(platform: HttpPlatform, images: Images, batch: int) -> float:
    credential = Credential("ada")

    def one(start: int) -> None:
        platform.attempt(images[start : start + batch], credential, request_id=uuid.uuid4().hex)

    began = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY // batch) as executor:
        for done in executor.map(one, range(0, len(images), batch)):
            del done
    return time.perf_counter() - began

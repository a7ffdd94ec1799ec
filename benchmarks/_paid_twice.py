"""Is an answer paid twice? Processes ask overlapping images through one ledger, and are killed and started again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks._postgres import PostgresServer
from benchmarks._slow_platform import CLASSES, IMAGE_SHAPE, slow_platform
from ttca.errors import TTCAError
from ttca.images import Images
from ttca.platforms.http import HttpPlatform
from ttca.pooling import schema
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

__all__ = ["PROCESSES", "measure_paid_twice", "paid_though_answered"]

PROCESSES = 4
#: Images in flight, and of one request.
_CONCURRENCY, _BATCH = 16, 2
_LATENCY_S = 0.02
_GIVE_UP_S = 600.0


def measure_paid_twice(images: int, kills: int, *, seed: int = 0) -> dict[str, Any]:
    """Return what was paid on an SQLite file and on PostgreSQL; ``paid_twice`` is the larger of the two."""
    server = PostgresServer()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            kept = {"sqlite": str(folder / "ledger.sqlite"), "postgresql": server.database()}
            said = {
                place: _rivals(target, folder / f"{place}.key", images, kills, random.Random(seed))
                for place, target in kept.items()
            }
    finally:
        server.remove()
    return {"paid_twice": max(s["paid_though_answered"] for s in said.values()), "paid_twice_by_ledger": said}


def _rivals(target: str, secret: Path, images: int, kills: int, rng: random.Random) -> dict[str, Any]:
    """Let processes ask ``images`` images each, of which neighbors share three quarters, and kill them by chance."""
    step = images // 4
    wanted = images + (PROCESSES - 1) * step
    log = secret.with_suffix(".log")
    with slow_platform(_LATENCY_S, log=log) as url:

        def start(i: int) -> subprocess.Popen[bytes]:
            words = [url, target, str(secret), str(images), str(i * step), str(4 * wanted)]
            return subprocess.Popen([sys.executable, "-m", "benchmarks._paid_twice", *words])

        with Ledger(target, secret=secret) as ledger:
            programs = [start(i) for i in range(PROCESSES)]
            at = sorted(rng.uniform(0.05, 0.9) for _ in range(kills))
            done, give_up = 0, time.monotonic() + _GIVE_UP_S
            while any(p.poll() is None for p in programs):
                if time.monotonic() > give_up:
                    for program in programs:
                        program.kill()
                    raise TTCAError(
                        f"Expected {PROCESSES} processes to end within {_GIVE_UP_S:.0f} s, got none that did."
                    )
                running = [i for i, p in enumerate(programs) if p.poll() is None]
                if done < kills and running and ledger.asked_and_answered()[1] >= at[done] * wanted:
                    victim = rng.choice(running)
                    programs[victim].kill()
                    programs[victim].wait()
                    programs[victim] = start(victim)
                    done += 1
                time.sleep(0.01)
            if any(p.returncode for p in programs):
                raise TTCAError("Expected every process to have all of its answers in the end, got one that failed.")
            balances = ledger.balances()
            return {
                "processes": PROCESSES,
                "kills": done,
                "images": wanted,
                "answered": ledger.asked_and_answered()[1],
                "processed": sum(json.loads(line)["rows"] for line in log.read_text().splitlines()),
                "charged": sum(b.charged for b in balances),
                "unknown": sum(b.unknown for b in balances),
                "unknown_at_most": done * _CONCURRENCY,
                "paid_though_answered": paid_though_answered(ledger),
            }


def paid_though_answered(ledger: Ledger) -> int:
    """Return how many queries were charged while an accepted answer to them stood in the ledger."""
    late = (
        sa.select(sa.func.count())
        .select_from(schema.attempts)
        .join(schema.requests, schema.requests.c.id == schema.attempts.c.request)
        .join(schema.answers, schema.answers.c.key == schema.attempts.c.key)
        .where(schema.requests.c.charged_at > schema.answers.c.at)
    )
    return ledger.database.run(lambda connection: int(connection.scalar(late) or 0))


def _pictures(n: int, start: int) -> Images:
    """Return images start … start + n - 1, each different."""
    numbers = np.arange(start, start + n)
    images = np.zeros((n, *IMAGE_SHAPE), np.uint8)
    for byte in range(3):
        images[:, 0, byte, 0] = numbers >> (8 * byte) & 255
    return images


def _rival(url: str, target: str, secret: str, n: int, start: int, quota: int) -> None:
    platform = HttpPlatform(url, model="slow", classes=CLASSES)
    with Ledger(target, secret=Path(secret)) as ledger:
        pace = Pace(concurrency=_CONCURRENCY, batch=_BATCH)
        answers = QueryPool(platform, ledger, [Member("ada", quota)], pace=pace).ask(_pictures(n, start))
    if not answers.answered.all():
        raise TTCAError("Expected an answer about every image.")


if __name__ == "__main__":
    _rival(sys.argv[1], sys.argv[2], sys.argv[3], *(int(a) for a in sys.argv[4:]))

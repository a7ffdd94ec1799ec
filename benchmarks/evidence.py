"""Does a bundle of evidence check out fast, is each changed byte refused, and what does the ledger's chain cost?"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.demo.platform import digits_platform
from ttca.demo.world import digits_world
from ttca.evidence.bundle import write_evidence
from ttca.evidence.check import Refused, check
from ttca.pooling.booking import Bill, Charge, Settlement
from ttca.pooling.chain import extend
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member
from ttca.settings import Settings

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--rows", "5000", "--changes", "50")

#: Queries of a request, and classes of its answers.
_REQUEST, _CLASSES = 100, 10
_QUOTA = 20_000


def main(argv: list[str]) -> dict[str, Any]:
    """Chain the rows of a large ledger; write the bundle of the demo's action, check it, and change its bytes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks evidence", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="queries in the ledger that is chained")
    parser.add_argument("--changes", type=int, default=1000, help="single bytes that are changed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        return {
            **chained(Path(name) / "ledger.sqlite", options.rows),
            **checked(Path(name), seed=options.seed, changes=options.changes),
        }


@dataclass(frozen=True)
class _Moment:
    """A moment by the wall's clock, and by the processor's: on a machine that others use, the two differ."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> _Moment:
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: _Moment, what: str) -> dict[str, float]:
        return {f"seconds_{what}": self.wall - before.wall, f"cpu_seconds_{what}": self.cpu - before.cpu}


def chained(path: Path, rows: int) -> dict[str, Any]:
    """Return how long booking and answering so many queries takes, and the first head over them, and the next."""
    with Ledger(path) as ledger:
        ledger.enrol({"payer": rows + _REQUEST})
        answers = Answers.from_labels(np.arange(_REQUEST) % _CLASSES, _CLASSES)
        marks = [_Moment.now()]
        for start in range(0, rows, _REQUEST):
            keys = [hashlib.sha256(f"{start} {i}".encode()).digest() for i in range(_REQUEST)]
            bill = Bill("payer", keys, f"request-{start}", 1, "pool", "large", ["payer"] * _REQUEST)
            (charge,) = ledger.book([bill], [])
            assert isinstance(charge, Charge)
            ledger.book([], [Settlement(charge, keys, answers, None)])
        marks.append(_Moment.now())
        count, head = extend(ledger, "large")
        marks.append(_Moment.now())
        again = extend(ledger, "large")
        marks.append(_Moment.now())
    if again != (count, head) or count < rows:
        raise AssertionError(f"Expected one head over {rows} rows, got {count} rows and {again}.")
    return {
        "rows": count,
        **marks[1].since(marks[0], "booking"),
        **marks[2].since(marks[1], "first_head"),
        **marks[3].since(marks[2], "next_head"),
    }


def checked(home: Path, *, seed: int, changes: int) -> dict[str, Any]:
    """Return what a bundle of the demo's action holds, how long its check takes, and how many changes it refuses."""
    world = digits_world(seed)
    settings = Settings(
        name="digits", subgroup="people with a bad camera", seed=seed, control_lengths=(1.0,), threads=2
    )
    members = [Member(name, _QUOTA) for name in sorted(set(world.roster.pool.members.tolist()))]
    path = home / "evidence.zip"
    with CollectiveAction(
        home / "action",
        platform=digits_platform(world, seed=seed),
        members=members,
        roster=world.roster,
        settings=settings,
    ) as action:
        certificate = action.verify()
        action.measure()
        began = _Moment.now()
        made = write_evidence(action, path, url="http://127.0.0.1")
        written = _Moment.now().since(began, "write")
    began = _Moment.now()
    check(path)
    seconds = _Moment.now().since(began, "check")
    content, rng, refused, named = path.read_bytes(), np.random.default_rng(seed), 0, 0
    wrong = home / "wrong.zip"
    for place in rng.choice(len(content), size=changes, replace=False).tolist():
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        wrong.write_bytes(changed)
        try:
            check(wrong)
        except Refused as error:
            refused += 1
            named += " " not in str(error).partition(":")[0]
    return {
        "bundle_mb": len(content) / 2**20,
        "bundle_rows": made.rows,
        "persons": certificate.examined.persons,
        "certified": certificate.epsilon,
        **written,
        **seconds,
        "changes": changes,
        "refused": refused,
        "file_named": named,
    }

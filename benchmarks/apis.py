"""Of eighteen documented image APIs, how many do the printed tables speak, and what is lost on the way?"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks._processes import free_port, running
from benchmarks._vendors import EMULATORS
from benchmarks._vendors.asking import keyed, pictures, section
from ttca.answers import Status
from ttca.errors import ChargeState, ConfigError, PlatformError
from ttca.images import Images
from ttca.platforms.http import HttpPlatform
from ttca.pooling import schema
from ttca.pooling.booking import ANSWERED
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--images", "30", "--vendors", "aws-rekognition,clarifai,nyckel,gradio,openai-chat")

CONCURRENCY, BATCH = 8, 4
#: Of the images, so many are dark: vendors that can refuse do.
DARK = 4
#: Requests that are too many, before the restart and after it, and those that come before the vendor is ready again.
THROTTLES, THROTTLES_AFTER, NOT_READY = (5, 6, 14), (9,), 2
LATENCY_S, AWAY_S = 0.03, 1.0
MOST_ROUNDS = 20


def main(argv: list[str]) -> dict[str, Any]:
    """Ask every vendor's emulator as its printed table says, through its limits and one restart, and compare books."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks apis", description=__doc__)
    parser.add_argument("--images", type=int, default=120, help="queries sent to each vendor")
    parser.add_argument("--vendors", default=",".join(EMULATORS), help="which, with commas between")
    parser.add_argument("--seed", type=int, default=0, help="seed of images")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    names = options.vendors.split(",")
    unknown = sorted(set(names) - set(EMULATORS))
    if unknown or options.images <= DARK:
        raise ConfigError(
            f"Expected vendors among {', '.join(EMULATORS)} and more than {DARK} images, got "
            f"{', '.join(unknown) or options.images}. Correct them."
        )
    found = {name: spoken(name, options.images, seed=options.seed) for name in names}
    totals = {
        key: sum(one[key] for one in found.values())
        for key in ("mislabeled", "lost", "charged_beyond_processed", "unknown_at_restart", "charged", "processed")
    }
    return {
        "vendors": len(found),
        "speaks": sum(one["speaks"] for one in found.values()),
        **totals,
        "most_unknown_at_one_restart": max(one["unknown_at_restart"] for one in found.values()),
        "concurrency": CONCURRENCY,
        "each": found,
        "settings": {
            "images": options.images,
            "dark": DARK,
            "batch": BATCH,
            "throttled_requests": [*THROTTLES, *THROTTLES_AFTER],
            "not_ready_requests": NOT_READY,
            "latency_s": LATENCY_S,
            "away_s": AWAY_S,
            "seed": options.seed,
        },
        "how": _HOW,
    }


_HOW = (
    "Each vendor is an emulator in a process of its own, made from the document that it names. It is asked by the "
    "table that `ttca init --platform` prints, its placeholders filled in. One member asks, with a ledger on disk. It "
    "throttles the requests that are listed and, where its document tells how, says that it is not ready. Midway it "
    "is killed, stays away, and starts again on the same port. Images are mosaics, the model is linear in mean colors. "
    "An answer is mislabeled if it was accepted and is not the model's. A query is lost if it has no end, and so is "
    "an answer that was processed and is neither accepted nor unknown. charged_beyond_processed counts, per request, "
    "what the ledger charged beyond the images in the emulator's own log; unknown attempts are left out. "
    "unknown_at_restart counts attempts of which nobody knows. A vendor speaks if every query ended with the model's "
    "own answer or a refusal, nothing was mislabeled, lost, unusable or charged beyond, and limits and the restart "
    "were met. The unknown attempts must be no more than the pool's concurrency."
)


def spoken(name: str, n: int, *, seed: int) -> dict[str, Any]:
    """Ask one vendor n queries, and return both sides' counts.

    Parameters
    ----------
    name : str
        One of :data:`benchmarks._vendors.EMULATORS`.
    n : int
        Queries, some of them of dark images where the vendor can refuse them.
    seed : int
    """
    vendor = EMULATORS[name]
    dark = DARK if vendor.refuses else 0
    images, labels = pictures(vendor, n - dark, dark=dark, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    images, labels = images[order], [labels[k] for k in order]
    with ExitStack() as stack:
        stack.enter_context(keyed(name))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        emulator = stack.enter_context(_Emulator(name, folder))
        platform = stack.enter_context(section(name, emulator.url).open())
        began = time.perf_counter()
        with Ledger(folder / "ledger.sqlite") as ledger:
            pool = QueryPool(platform, ledger, [Member("ada", 4 * n)], pace=Pace(concurrency=CONCURRENCY, batch=BATCH))
            emulator.restart_after(n // 3)
            ended_by = _ask_until_ended(pool, images)
        seconds = time.perf_counter() - began
        ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
        found = _compared(ledger, platform, images, labels, emulator.processed())
        restarted = emulator.restarted
    zero = ("mislabeled", "lost", "charged_beyond_processed", "unusable")
    speaks = not any(found[key] for key in zero) and found["unknown_at_restart"] <= CONCURRENCY
    return {
        "speaks": bool(speaks and restarted and found["refunded"]),
        **found,
        "document": vendor.document,
        "restarted": restarted,
        "asking_ended_by": dict(ended_by),
        "seconds": seconds,
    }


def _ask_until_ended(pool: QueryPool, images: Images) -> Counter[str]:
    """Ask until every query is answered or refused, again where asking ends with an error; return those errors."""
    ended_by: Counter[str] = Counter()
    for _ in range(MOST_ROUNDS):
        try:
            if pool.ask(images).resolved.all():
                break
            ended_by["queries without an answer"] += 1
        except PlatformError as error:
            ended_by[str(error)[:300]] += 1
    return ended_by


def _compared(
    ledger: Ledger, platform: HttpPlatform, images: Images, labels: Sequence[int], processed: Counter[str]
) -> dict[str, Any]:
    """Return the counts of the ledger beside those of the emulator's log, matched request by request."""
    classes = platform.info.classes
    keys = ledger.keys(images, fingerprint=platform.info.fingerprint, epoch="pool")
    known, answers = ledger.lookup(keys, classes=len(classes))
    said = np.where(answers.status == Status.ANSWERED, answers.labels, -1)
    outcomes = _outcomes(ledger)
    by_kind: Counter[str] = Counter()
    for (_, kind), count in outcomes.items():
        by_kind[kind] += count
    unknown, unusable = ChargeState.UNKNOWN.value, ChargeState.CHARGED.value
    requests = {request for request, _ in outcomes} | set(processed)
    beyond = sum(max(0, outcomes[r, ANSWERED] + outcomes[r, unusable] - processed[r]) for r in requests)
    unbooked = sum(
        max(0, processed[r] - outcomes[r, ANSWERED] - outcomes[r, unusable] - outcomes[r, unknown]) for r in requests
    )
    (balance,) = ledger.balances()
    return {
        "mislabeled": int((known & (said != np.array(labels))).sum()),
        "lost": int((~known).sum()) + unbooked,
        "charged_beyond_processed": beyond,
        "unknown_at_restart": by_kind[unknown],
        "unusable": by_kind[unusable],
        "refunded": balance.refunded,
        "charged": balance.charged,
        "processed": processed.total(),
        "answered": int((known & (said >= 0)).sum()),
        "refused": int((known & (said < 0)).sum()),
    }


def _outcomes(ledger: Ledger) -> Counter[tuple[str, str]]:
    """Return how many images of each request ended how, over all its attempts; one without an outcome is unknown."""
    r, a, o = schema.requests, schema.attempts, schema.outcomes
    here = sa.and_(o.c.request == a.c.request, o.c.position == a.c.position)
    rows = sa.select(r.c.request_id, o.c.outcome).select_from(a.join(r, r.c.id == a.c.request).outerjoin(o, here))
    found = ledger.database.run(lambda connection: connection.execute(rows).all())
    return Counter((request, outcome or ChargeState.UNKNOWN.value) for request, outcome in found)


@dataclass
class _Emulator:
    """An emulator in a process of its own, killed once midway and started again at the same address."""

    name: str
    folder: Path
    url: str = ""
    restarted: bool = False

    def __enter__(self) -> _Emulator:
        self._port, self._process = free_port(), ExitStack()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._start({"throttles": THROTTLES, "latency_s": LATENCY_S})
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._process.close()

    def _start(self, behavior: Mapping[str, Any]) -> None:
        asked = (self.name, str(self.folder), str(self._port), json.dumps(behavior))
        self.url = self._process.enter_context(running("_vendors", *asked))

    def restart_after(self, images: int) -> None:
        """Kill the process once so many images were processed, and start it again after a while."""

        def watch() -> None:
            while self.processed().total() < images:
                if self._over.wait(0.01):
                    return
            self._process.close()
            self._over.wait(AWAY_S)
            again = {"throttles": THROTTLES_AFTER, "latency_s": LATENCY_S, "just_restarted": NOT_READY}
            self._start(again)
            self.restarted = True

        self._thread = threading.Thread(target=watch, name="restart")
        self._thread.start()

    def processed(self) -> Counter[str]:
        """Return how many images of each request the model has looked at."""
        file = self.folder / "processed.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return Counter(str(json.loads(line)["request"]) for line in lines)

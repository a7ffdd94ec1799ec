"""What does the careful transport cost, how near a rate limit does it work, and what does it lose when all fails?"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import requests
import sqlalchemy as sa
from numpy.typing import NDArray

from benchmarks._fault_server import FATES, LOGS, model_answers
from benchmarks._instant_server import CLASSES, IMAGE_SHAPE, MODEL, SHARES
from benchmarks._limited_server import LIMITERS
from benchmarks._processes import running
from ttca.answers import Answers, Status
from ttca.errors import ChargeState, PlatformError, TTCAError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Transport
from ttca.platforms.retry import RetryPolicy
from ttca.pooling import schema
from ttca.pooling.booking import ANSWERED
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--requests", "300", "--turns", "2", "--limited", "200", "--queries", "500")

THREADS = 4
BATCHES = (1, 16)
LABEL = int(SHARES.argmax())
#: A JSON body of sixteen images takes many times as long as its binary form: turns are kept of like length.
FEWER_OF_LARGE_JSON = 8
#: The pool's default.
CONCURRENCY_AT_A_LIMIT = 64
BATCH_OF_FAULTS, CONCURRENCY_OF_FAULTS = 4, 32
MEMBERS = ("ada", "ben", "cleo", "dan", "eve")
SHARE_OF_FAULTS = 0.3
MOST_ROUNDS = 200


def main(argv: list[str]) -> dict[str, Any]:
    """Measure the transport against a bare one, a limiter's optimum, and a server that fails in every way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks transport", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="requests per turn")
    parser.add_argument("--turns", type=int, default=7, help="turns per side")
    parser.add_argument("--limited", type=int, default=1000, help="queries sent to each rate limiter")
    parser.add_argument("--rate", type=int, default=50, help="requests per second that a limiter lets through")
    parser.add_argument("--burst", type=int, default=50, help="requests that a full token bucket lets through at once")
    parser.add_argument("--queries", type=int, default=5000, help="queries sent to the failing server")
    parser.add_argument("--read-timeout", type=float, default=0.5, help="seconds; a stall is three times as long")
    parser.add_argument("--seed", type=int, default=0, help="seed of images and faults")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    overhead = against_bare(options.requests, options.turns)
    forms = binary_against_json(max(THREADS, options.requests // 5), options.turns)
    limiters = {kind: limited(kind, options.limited, options.rate, options.burst) for kind in LIMITERS}
    faults = faulty(options.queries, seed=options.seed, read_timeout=options.read_timeout)
    return {
        "pool_over_bare": min(v["ratio"] for v in overhead["variants"].values()),
        "binary_over_json": min(v["ratio"] for v in forms.values()),
        "rate_limited_over_optimum": max(v["over_optimum"] for k, v in limiters.items() if LIMITERS[k].says_when),
        "lost": faults["lost"] + sum(v["lost"] for v in limiters.values()),
        "mislabelled": faults["mislabelled"] + sum(v["mislabelled"] for v in limiters.values()),
        "all_hold": all(faults["holds"].values()),
        "against_bare": overhead,
        "binary_against_json": forms,
        "limiters": limiters,
        "faults": faults,
        "settings": {
            "threads": THREADS,
            "requests_of_a_turn": options.requests,
            "turns": options.turns,
            "image_shape": list(IMAGE_SHAPE),
            "classes": len(CLASSES),
            "seed": options.seed,
        },
        "how": _HOW,
    }


_HOW = (
    "pool_over_bare: images per second through HttpPlatform over those of a loop of plain requests sessions, at equal "
    "threads, batch and form, in turns, against a server in a process of its own that answers at once; a ratio of "
    "medians, the lowest of four variants (higher is better). Both sides encode every body and decode every answer; "
    "the bare session reads no proxies or passwords from the environment, as ours does not; what a session as requests "
    "makes it does stands beside it. CPU ratios compare the client's processor time, which other programs disturb "
    "less. binary_over_json: images per second in the binary form over those in JSON, 16 images a request, the lower "
    "of two servers: the instant one, which reads no pixel, and ttca's own, which does. rate_limited_over_optimum: "
    "seconds taken over the fewest the limiter allows, (queries - burst) / rate for a bucket and ceil(queries / rate) "
    "- 1 for one-second windows that begin with the first request; 1 is perfect, lower is better; the highest of the "
    "limiters that say when to come back. One image a request, the pool's default concurrency and retries; where "
    "asking ends with an error it is begun again at once. lost: answers sent whole and sound that are not in the "
    "ledger, and queries without an end. mislabelled: accepted answers other than the model's. Servers, client and "
    "ledger share the machine's cores."
)


# -- against bare sessions ----------------------------------------------------------------------------------------


class _Side(Protocol):
    """One way to ask: sends one request about these images, reads its answer and returns the labels."""

    def __call__(self, thread: int, images: Images) -> NDArray[np.int64]: ...


class Bare:
    """A loop as anybody would write it with requests: one session per thread, no checks but the status.

    Parameters
    ----------
    url : str
    binary : bool
    trust_env : bool
        What requests does by default: look for proxies and passwords in the environment, at every request.
    """

    def __init__(self, url: str, *, binary: bool, trust_env: bool) -> None:
        self._url, self._binary = f"{url}/v2/models/{MODEL}/infer", binary
        self._sessions = [requests.Session() for _ in range(THREADS)]
        for session in self._sessions:
            session.trust_env = trust_env

    def __call__(self, thread: int, images: Images) -> NDArray[np.int64]:
        body, headers = self.body(images, uuid.uuid4().hex)
        reply = self._sessions[thread].post(self._url, data=body, headers=headers, timeout=(5.0, 30.0))
        reply.raise_for_status()
        labels: NDArray[np.int64] = self._scores(reply).argmax(axis=1)
        return labels

    def body(self, images: Images, request_id: str) -> tuple[bytes, dict[str, str]]:
        """Return the bytes of a request, which are those that HttpPlatform sends, and its headers."""
        tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}
        message: dict[str, Any] = {"id": request_id}
        if not self._binary:
            tensor["data"] = images.reshape(-1).tolist()
            message |= {"outputs": [{"name": "scores"}], "inputs": [tensor]}
            body = json.dumps(message, separators=(",", ":")).encode()
            return body, {"Content-Type": "application/json", "Idempotency-Key": request_id}
        tensor["parameters"] = {"binary_data_size": images.nbytes}
        message |= {
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
            "inputs": [tensor],
        }
        head = json.dumps(message, separators=(",", ":")).encode()
        return head + images.tobytes(), {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            "Idempotency-Key": request_id,
        }

    def close(self) -> None:
        """Close every connection."""
        for session in self._sessions:
            session.close()

    def _scores(self, reply: requests.Response) -> NDArray[np.float32]:
        content = reply.content
        if not self._binary:
            output = json.loads(content)["outputs"][0]
            return np.array(output["data"], np.float32).reshape(output["shape"])
        head = int(reply.headers["Inference-Header-Content-Length"])
        shape = json.loads(content[:head])["outputs"][0]["shape"]
        return np.frombuffer(content, "<f4", offset=head).reshape(shape)


class _Ours:
    def __init__(self, url: str, *, binary: bool) -> None:
        self.platform = HttpPlatform(url, model=MODEL, classes=CLASSES, binary=binary)
        self._credential = Credential("ada")

    def __call__(self, thread: int, images: Images) -> NDArray[np.int64]:
        return self.platform.attempt(images, self._credential, request_id=uuid.uuid4().hex).labels

    def close(self) -> None:
        self.platform.close()


@dataclass(frozen=True)
class _Turn:
    """One turn of one side: seconds by the wall clock, and of this process's processor time."""

    wall: float
    cpu: float


def against_bare(n: int, turns: int) -> dict[str, Any]:
    """Return for each batch and form how fast HttpPlatform is beside bare sessions, and how fast the servers are.

    Parameters
    ----------
    n : int
        Requests of one turn.
    turns : int
        Turns of each side.
    """
    with ExitStack() as stack:
        url = stack.enter_context(running("_instant_server", "instant"))
        own = stack.enter_context(running("_instant_server", "fastapi"))
        variants = {}
        for batch in BATCHES:
            for binary in (True, False):
                few = n if binary or batch == 1 else max(THREADS, n // FEWER_OF_LARGE_JSON)
                variants[f"{'binary' if binary else 'JSON'}, batch {batch}"] = _variant(url, batch, binary, few, turns)
        servers = {
            str(batch): _rates({"instant": _bare(stack, url), "fastapi": _bare(stack, own)}, batch, n, turns)
            for batch in BATCHES
        }
    return {"variants": variants, "bare_images_per_s_of_servers_by_batch": servers}


def _variant(url: str, batch: int, binary: bool, n: int, turns: int) -> dict[str, Any]:
    with ExitStack() as stack:
        sides: dict[str, _Side] = {
            "ours": _ours(stack, url, binary=binary),
            "bare": _bare(stack, url, binary=binary),
            "as_requests_makes_it": _bare(stack, url, binary=binary, trust_env=True),
        }
        taken = in_turns(sides, batch, n, turns)
    return {
        **_compared(taken["bare"], taken["ours"]),
        "ratio_to_session_as_requests_makes_it": _median(taken["as_requests_makes_it"]) / _median(taken["ours"]),
        "images_per_s": {side: _sent(n) * batch / _median(found) for side, found in taken.items()},
        "cpu_us_per_request": {side: 1e6 * _median_cpu(found) / _sent(n) for side, found in taken.items()},
        "requests_of_a_turn": _sent(n),
    }


def binary_against_json(n: int, turns: int, *, batch: int = 16) -> dict[str, Any]:
    """Return for each server how fast HttpPlatform is in the binary form beside JSON; n requests in one turn."""
    found = {}
    for kind in ("instant", "fastapi"):
        with ExitStack() as stack:
            url = stack.enter_context(running("_instant_server", kind))
            taken = in_turns(
                {"binary": _ours(stack, url, binary=True), "JSON": _ours(stack, url, binary=False)}, batch, n, turns
            )
        found[kind] = {
            **_compared(taken["JSON"], taken["binary"]),
            "images_per_s": {form: _sent(n) * batch / _median(t) for form, t in taken.items()},
            "batch": batch,
            "requests_of_a_turn": _sent(n),
        }
    return found


def in_turns(sides: Mapping[str, _Side], batch: int, n: int, turns: int) -> dict[str, list[_Turn]]:
    """Let every side ask about n batches by THREADS threads, in turns, each turn beginning with another side.

    Raises
    ------
    TTCAError
        If an answer names another class than the server did: a fast reader of nothing would win every race.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch, *IMAGE_SHAPE), dtype=np.uint8)
    taken: dict[str, list[_Turn]] = {name: [] for name in sides}
    with ThreadPoolExecutor(THREADS) as executor:

        def turn(side: _Side, each: int) -> _Turn:
            def some(thread: int) -> bool:
                wrong = 0
                for _ in range(each):
                    wrong += int((side(thread, images) != LABEL).sum())
                return wrong == 0

            wall, cpu = time.perf_counter(), time.process_time()
            right = list(executor.map(some, range(THREADS)))
            found = _Turn(time.perf_counter() - wall, time.process_time() - cpu)
            if not all(right):
                raise TTCAError(f"Expected class {LABEL} of every image, got another.")
            return found

        for side in sides.values():
            # Connections, caches and the server are warm for everybody.
            turn(side, max(1, n // THREADS // 10))
        names = list(sides)
        for number in range(turns):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                taken[name].append(turn(sides[name], _sent(n) // THREADS))
    return taken


def _sent(n: int) -> int:
    """Return the requests of a turn: as many for each thread."""
    return max(1, n // THREADS) * THREADS


def _ours(stack: ExitStack, url: str, *, binary: bool) -> _Ours:
    ours = _Ours(url, binary=binary)
    stack.callback(ours.close)
    return ours


def _bare(stack: ExitStack, url: str, *, binary: bool = True, trust_env: bool = False) -> Bare:
    bare = Bare(url, binary=binary, trust_env=trust_env)
    stack.callback(bare.close)
    return bare


def _rates(sides: Mapping[str, _Side], batch: int, n: int, turns: int) -> dict[str, float]:
    return {name: _sent(n) * batch / _median(t) for name, t in in_turns(sides, batch, n, turns).items()}


def _compared(slow: Sequence[_Turn], fast: Sequence[_Turn]) -> dict[str, Any]:
    """Return how many times as fast the second side is as the first, and how far apart the turns were."""
    each = [s.wall / f.wall for s, f in zip(slow, fast, strict=True)]
    return {
        "ratio": _median(slow) / _median(fast),
        "ratio_of_each_turn": each,
        "cpu_ratio": _median_cpu(slow) / _median_cpu(fast),
    }


def _median(turns: Sequence[_Turn]) -> float:
    return statistics.median(t.wall for t in turns)


def _median_cpu(turns: Sequence[_Turn]) -> float:
    return statistics.median(t.cpu for t in turns)


# -- at a rate limit ----------------------------------------------------------------------------------------------


def limited(kind: str, n: int, rate: int, burst: int) -> dict[str, Any]:
    """Ask n queries of a platform behind a limiter, through a pool with a ledger on disk, until all are answered.

    Parameters
    ----------
    kind : str
        One of :data:`benchmarks._limited_server.LIMITERS`.
    n, rate, burst : int
        Queries, one a request; requests per second; requests that a full bucket lets through at once.
    """
    limiter = LIMITERS[kind](rate, burst)
    least = limiter.least_s(n)
    if not least > 0:
        raise TTCAError(f"Expected more queries than a limiter lets through at once, got {n}. Ask for more.")
    images = _images(n, seed=0)
    with ExitStack() as stack:
        url = stack.enter_context(running("_limited_server", kind, str(rate), str(burst)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        platform = stack.enter_context(HttpPlatform(url, model=MODEL, classes=CLASSES))
        ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
        # Metadata is free, and no request of the limiter's.
        fingerprint = platform.info.fingerprint
        pool = QueryPool(platform, ledger, [Member("ada", n)], pace=Pace(concurrency=CONCURRENCY_AT_A_LIMIT, batch=1))
        began = time.perf_counter()
        rounds = _ask_until_answered(pool, images)
        seconds = time.perf_counter() - began
        stats = requests.get(f"{url}/stats", timeout=10).json()
        known, answers = ledger.lookup(ledger.keys(images, fingerprint=fingerprint, epoch="pool"), classes=len(CLASSES))
        (balance,) = ledger.balances()
    return {
        "over_optimum": seconds / least,
        "seconds": seconds,
        "optimum_s": least,
        "lost": int((~known).sum()),
        "mislabelled": int((known & ((answers.labels != LABEL) | (answers.scores != SHARES).any(axis=1))).sum()),
        "status_429": stats["limited"],
        "let_through": stats["accepted"],
        "answered": balance.answered,
        "charged": balance.charged,
        "refunded": balance.refunded,
        "rounds": rounds.number,
        "rounds_ended_by": dict(rounds.ended_by),
        "queries": n,
        "rate_per_s": rate,
        "burst": limiter.burst,
        "concurrency": CONCURRENCY_AT_A_LIMIT,
    }


@dataclass
class _Rounds:
    """How often asking was begun, and what ended it before all was answered."""

    number: int
    ended_by: Counter[str]


def _ask_until_answered(pool: QueryPool, images: Images) -> _Rounds:
    """Ask until every row is answered or refused, or MOST_ROUNDS times."""
    rounds = _Rounds(0, Counter())
    while rounds.number < MOST_ROUNDS:
        rounds.number += 1
        try:
            if pool.ask(images).resolved.all():
                break
        except PlatformError as error:
            rounds.ended_by[f"{type(error).__name__}, status {getattr(error, 'status', None)}"] += 1
    return rounds


# -- when all fails -----------------------------------------------------------------------------------------------


def faulty(n: int, *, seed: int, read_timeout: float) -> dict[str, Any]:
    """Ask n queries of the server that fails, by several members, and compare the ledger with the server's own log.

    Parameters
    ----------
    n : int
    seed : int
        Of images and faults.
    read_timeout : float
        Seconds; the server stalls three times as long.
    """
    images = _images(n, seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = (str(folder), str(seed), str(SHARE_OF_FAULTS), str(3 * read_timeout))
        url = stack.enter_context(running("_fault_server", *server))
        impatient = Transport(connect_timeout=read_timeout, read_timeout=read_timeout)
        platform = stack.enter_context(HttpPlatform(url, model=MODEL, classes=CLASSES, transport=impatient))
        with Ledger(folder / "ledger.sqlite") as ledger:
            pool = QueryPool(
                platform,
                ledger,
                [Member(name, 4 * n) for name in MEMBERS],
                pace=Pace(
                    concurrency=CONCURRENCY_OF_FAULTS,
                    batch=BATCH_OF_FAULTS,
                    policy=RetryPolicy(attempts=5, deadline_s=30.0, base_s=0.02, cap_s=0.2),
                ),
            )
            began = time.perf_counter()
            rounds = _ask_until_answered(pool, images)
            seconds = time.perf_counter() - began
        # Opened again: what counts is what stands in the file.
        ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
        keys = ledger.keys(images, fingerprint=platform.info.fingerprint, epoch="pool")
        books = Books.read(ledger, *(_lines(folder / f"{name}.jsonl") for name in LOGS))
        known, answers = ledger.lookup(keys, classes=len(CLASSES))
        balances = ledger.balances()
    found = {**books.compared(keys), "mislabelled": int((known & _differ(answers, model_answers(images))).sum())}
    found["lost"] = found["sent_well_not_accepted"] + found["queries_without_an_end"]
    accepted, processed, charged = found["accepted"], found["processed"], found["charged"]
    return {
        "lost": found["lost"],
        "mislabelled": found["mislabelled"],
        "holds": {
            "every_query_ended": found["queries_without_an_end"] == 0,
            "one_accepted_answer_at_most": found["answered_attempts"] == accepted == int(known.sum()),
            "accepted_within_processed_within_charged": accepted <= processed <= charged,
            "charged_as_the_members_paid": charged == sum(b.charged for b in balances),
            "processed_but_not_accepted_are_unknown_or_unusable": found["processed_but_refunded_or_unbooked"] == 0
            and processed - accepted == sum(found["processed_not_accepted"].values()),
            "charged_but_not_processed_are_unknown": found["not_processed_yet_answered_or_unusable"] == 0
            and charged - processed == sum(found["charged_not_processed"].values()),
            "every_attempt_booked_as_its_fault_demands": found["booked_otherwise"] == {},
            "nothing_lost": found["lost"] == 0,
            "nothing_mislabelled": found["mislabelled"] == 0,
        },
        **found,
        "ended": {s.name.lower(): int((answers.status == s).sum()) for s in Status},
        "by_member": {b.member: {"charged": b.charged, "answered": b.answered} for b in balances},
        "queries": n,
        "rounds": rounds.number,
        "rounds_ended_by": dict(rounds.ended_by),
        "seconds": seconds,
        "seed": seed,
        "share_of_faults_wanted": SHARE_OF_FAULTS,
        "read_timeout_s": read_timeout,
        "stall_s": 3 * read_timeout,
        "batch": BATCH_OF_FAULTS,
        "concurrency": CONCURRENCY_OF_FAULTS,
    }


# How the transport says that its time was up.
_TOO_LATE = re.compile(r"within [0-9.e-]+ s, got none|only part of it in time")


@dataclass(frozen=True)
class Attempt:
    """One image of one attempt, as the ledger has it; ``accepted`` says that its answer is the query's."""

    request_id: str
    number: int
    position: int
    key: bytes
    outcome: str | None
    detail: str | None
    accepted: bool

    @property
    def timed_out(self) -> bool:
        """Whether the client says that no whole answer came in time."""
        return self.outcome == ChargeState.UNKNOWN.value and _TOO_LATE.search(self.detail or "") is not None

    @property
    def name(self) -> tuple[str, int, int]:
        """What it is called on both sides of the wire."""
        return self.request_id, self.number, self.position


@dataclass(frozen=True)
class Books:
    """A ledger's attempts beside a server's two logs; both sides count the attempts of a request from 1.

    Parameters
    ----------
    attempts : sequence of Attempt
    processed : dict
        (request, arrival, position) of every image that the model looked at → whether its row was sent whole and sound.
    fates : dict
        (request, arrival) → name of the fate.
    answers : int
        Accepted answers in the ledger.
    """

    attempts: Sequence[Attempt]
    processed: Mapping[tuple[str, int, int], bool]
    fates: Mapping[tuple[str, int], str]
    answers: int

    @classmethod
    def read(
        cls, ledger: Ledger, processed: Sequence[Mapping[str, Any]], arrivals: Sequence[Mapping[str, Any]]
    ) -> Books:
        """Read the ledger's tables, and the lines of the logs.

        Raises
        ------
        TTCAError
            If a log names the same image of the same attempt twice: nothing could be matched then.
        """
        r, a, o, w = schema.requests, schema.attempts, schema.outcomes, schema.answers
        here = sa.and_(o.c.request == a.c.request, o.c.position == a.c.position)
        of_query = sa.and_(w.c.key == a.c.key, w.c.request == a.c.request)
        rows = (
            sa.select(r.c.request_id, r.c.number, a.c.position, a.c.key, o.c.outcome, o.c.detail, w.c.key.is_not(None))
            .select_from(a.join(r, r.c.id == a.c.request).outerjoin(o, here).outerjoin(w, of_query))
            .order_by(r.c.id, a.c.position)
        )
        attempts, answers = ledger.database.run(
            lambda connection: (
                [Attempt(*row) for row in connection.execute(rows)],
                int(connection.scalar(sa.select(sa.func.count()).select_from(w)) or 0),
            )
        )
        looked = {(line["request"], line["arrival"], line["position"]): bool(line["well"]) for line in processed}
        fates = {(line["request"], line["arrival"]): str(line["fate"]) for line in arrivals}
        if len(looked) != len(processed) or len(fates) != len(arrivals):
            raise TTCAError("Expected every image of every attempt once in the server's logs, got one twice.")
        return cls(attempts, looked, fates, answers)

    def compared(self, keys: Sequence[bytes]) -> dict[str, Any]:
        """Return every count that both sides must agree on, each attempt matched by its own name."""
        by_name = {attempt.name: attempt for attempt in self.attempts}
        refunded, unusable = ChargeState.REFUNDED.value, ChargeState.CHARGED.value
        charged = [attempt for attempt in self.attempts if attempt.outcome != refunded]
        not_accepted: Counter[str] = Counter()
        unbooked = lost = late = 0
        for name, well in self.processed.items():
            attempt, fate = by_name.get(name), self.fates[name[:2]]
            if attempt is None or attempt.outcome == refunded:
                unbooked += 1
            elif not attempt.accepted:
                not_accepted[f"{fate}: {attempt.outcome}"] += 1
                # Sent whole and sound, after the client's time was up: it cannot have read it.
                late += well and attempt.timed_out
            lost += well and (attempt is None or not (attempt.accepted or attempt.timed_out))
        not_processed = [attempt for attempt in charged if attempt.name not in self.processed]
        return {
            "accepted": self.answers,
            "processed": len(self.processed),
            "charged": len(charged),
            "answered_attempts": sum(attempt.outcome == ANSWERED for attempt in self.attempts),
            "attempts": len(self.attempts),
            "attempts_by_outcome": dict(Counter(str(attempt.outcome) for attempt in self.attempts)),
            "requests_by_fate": dict(Counter(self.fates.values())),
            "share_of_faults": sum(fate != "well" for fate in self.fates.values()) / max(1, len(self.fates)),
            "requests_that_never_arrived": len({attempt.name[:2] for attempt in self.attempts} - set(self.fates)),
            "processed_not_accepted": dict(not_accepted),
            "processed_but_refunded_or_unbooked": unbooked,
            "charged_not_processed": dict(
                Counter(f"{self.fates.get(a.name[:2], 'never arrived')}: {a.outcome}" for a in not_processed)
            ),
            "not_processed_yet_answered_or_unusable": sum(a.outcome in (ANSWERED, unusable) for a in not_processed),
            "booked_otherwise": dict(self._booked_otherwise()),
            "sent_well_not_accepted": lost,
            "sent_well_too_late": late,
            # Were the transport's words for a timeout others than _TOO_LATE knows, this would say so.
            "stalls_not_told_as_timeouts": sum(
                self.fates.get(a.name[:2], "").startswith("stall") and not a.timed_out for a in self.attempts
            ),
            "queries_without_an_end": self._without_an_end(keys),
        }

    def _booked_otherwise(self) -> Counter[str]:
        """Count the attempts of which the ledger says something else than their fault demands."""
        wrong: Counter[str] = Counter()
        for attempt in self.attempts:
            fate = self.fates.get(attempt.name[:2])
            well = self.processed.get(attempt.name, False)
            demanded = ChargeState.UNKNOWN.value if fate is None else ANSWERED if well else FATES[fate].outcome
            # Whose time was up cannot know what the server did or would have done.
            if attempt.outcome != demanded and not attempt.timed_out:
                wrong[f"{fate}: {attempt.outcome}"] += 1
        return wrong

    def _without_an_end(self, keys: Sequence[bytes]) -> int:
        """Count the queries that were never asked, or have an attempt of which nothing was written down."""
        ends: dict[bytes, bool] = defaultdict(lambda: True)
        for attempt in self.attempts:
            ends[attempt.key] &= attempt.outcome is not None
        return sum(key not in ends or not ends[key] for key in keys)


def _differ(said: Answers, truth: Answers) -> NDArray[np.bool_]:
    """Return the rows that differ in anything: status, label, or a bit of a score."""
    other: NDArray[np.bool_] = (said.status != truth.status) | (said.labels != truth.labels)
    same: NDArray[np.bool_] = (said.scores == truth.scores) | (np.isnan(said.scores) & np.isnan(truth.scores))
    other |= ~same.all(axis=1)
    return other


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _images(n: int, seed: int) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)

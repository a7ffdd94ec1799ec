"""The transport's benchmark measures what it says, and would notice if anything were lost, paid twice or mixed up."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import transport
from benchmarks._fault_server import FATES, FaultPlan, model_answers
from benchmarks._instant_server import CLASSES, IMAGE_SHAPE, METADATA, MODEL
from benchmarks._limited_server import LIMITERS
from benchmarks.transport import Attempt, Bare, Books
from ttca.answers import Status
from ttca.errors import TTCAError
from ttca.images import Images
from ttca.platforms.protocols import Response, create_protocol
from ttca.pooling.ledger import Ledger

KEYS = ("pool_over_bare", "binary_over_json", "rate_limited_over_optimum", "lost", "mislabelled")


def _images(n: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)


# -- the whole of it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """Run the whole benchmark once, with next to no work; a long timeout, because a test's machine may be busy."""
    return transport.main(
        ["--requests=8", "--turns=1", "--limited=120", "--rate=100", "--queries=500", "--read-timeout=1", "--seed=9"]
    )


@pytest.mark.full
@pytest.mark.e2e
def test_every_number_is_there(tiny: dict[str, Any]) -> None:
    """Each stated key is a finite number, the row is JSON, and every variant and limiter stands in it."""
    for key in KEYS:
        assert math.isfinite(tiny[key]), key
    assert json.loads(json.dumps(tiny, allow_nan=False)) == tiny
    assert len(tiny["against_bare"]["variants"]) == 2 * len(transport.BATCHES)
    assert set(tiny["limiters"]) == set(LIMITERS)


@pytest.mark.full
@pytest.mark.e2e
def test_the_keys_are_the_worst_of_what_they_name(tiny: dict[str, Any]) -> None:
    """The lowest ratio of the variants, and the highest of the limiters that say when to come back, are quoted."""
    assert tiny["pool_over_bare"] == min(v["ratio"] for v in tiny["against_bare"]["variants"].values())
    assert tiny["binary_over_json"] == min(v["ratio"] for v in tiny["binary_against_json"].values())
    telling = [v["over_optimum"] for k, v in tiny["limiters"].items() if LIMITERS[k].says_when]
    assert len(telling) == len(LIMITERS) - 1
    assert tiny["rate_limited_over_optimum"] == max(telling)


@pytest.mark.full
@pytest.mark.e2e
def test_no_limiter_loses_an_answer_or_takes_money_for_a_refusal(tiny: dict[str, Any]) -> None:
    """At a limit every query gets its one answer, every 429 is refunded, and nobody is faster than the limiter."""
    for kind, found in tiny["limiters"].items():
        assert (found["lost"], found["mislabelled"]) == (0, 0), kind
        assert found["answered"] == found["charged"] == found["queries"] == found["let_through"], kind
        assert found["refunded"] == found["status_429"], kind
        # The clock that starts before the first request and the server's own are not read at the same moment.
        assert found["over_optimum"] > 0.99, kind


@pytest.mark.full
@pytest.mark.e2e
def test_nothing_is_lost_when_all_fails(tiny: dict[str, Any]) -> None:
    """With faults at three requests in ten, every query ends with one right answer and the books agree exactly."""
    found = tiny["faults"]
    assert found["holds"] == dict.fromkeys(found["holds"], True)
    assert tiny["all_hold"]
    assert (tiny["lost"], tiny["mislabelled"]) == (0, 0)
    assert found["accepted"] == found["queries"] == 500
    assert found["accepted"] < found["processed"] < found["charged"]
    assert found["stalls_not_told_as_timeouts"] == 0
    assert found["ended"]["refused"] > 0
    assert found["ended"]["failed"] == 0
    assert 0.15 < found["share_of_faults"] < 0.45
    # With this seed every fate is met, unless requests are made up otherwise one day.
    assert len(found["requests_by_fate"]) >= len(FATES) - 3


# -- against bare sessions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("batch", transport.BATCHES)
def test_both_sides_send_the_same_bytes(batch: int, binary: bool) -> None:
    """What the bare loop encodes is, byte for byte, what the transport's protocol encodes."""
    protocol = create_protocol("kserve-v2", model=MODEL, classes=CLASSES, binary=binary)
    wire = protocol.describe(lambda path: Response(200, {}, json.dumps(METADATA[f"/{path}"]).encode(), "bench"))
    images = _images(batch)
    bare = Bare("http://127.0.0.1:1", binary=binary, trust_env=False)
    try:
        body, headers = bare.body(images, "an-id")
    finally:
        bare.close()
    request = wire.request(images, request_id="an-id")
    assert body == request.body
    assert headers == {**request.headers, "Idempotency-Key": "an-id"}


def test_a_side_that_does_not_read_its_answers_is_no_side() -> None:
    """A turn in which an answer names another class than the server did ends the benchmark."""

    def wrong(thread: int, images: Images) -> NDArray[np.int64]:
        return np.full(len(images), transport.LABEL + 1, np.int64)

    with pytest.raises(TTCAError, match="Expected class"):
        transport.in_turns({"wrong": wrong}, 1, 4, 1)


# -- limiters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LIMITERS)
def test_the_optimum_is_what_an_eager_client_takes(kind: str) -> None:
    """A client that tries at every millisecond is let through exactly as fast as the stated optimum says."""
    limiter = LIMITERS[kind](20, 5)
    through, now = 0, 0
    while through < 65:
        if limiter.admits(1000.0 + now / 1000):
            through += 1
        else:
            now += 1
    assert now / 1000 == pytest.approx(limiter.least_s(65), abs=2e-3)


@pytest.mark.parametrize("kind", [k for k, limiter in LIMITERS.items() if limiter.says_when])
def test_who_comes_back_when_told_is_let_through(kind: str) -> None:
    """The wait in a 429's headers, waited exactly, is enough for one request."""
    limiter, now = LIMITERS[kind](20, 5), 1000.3
    while limiter.admits(now):
        pass
    told = limiter.refusal(now)
    now += float(told["Retry-After-Ms"]) / 1000 if "Retry-After-Ms" in told else float(told["Retry-After"])
    assert limiter.admits(now)


def test_a_limit_that_binds_nobody_is_refused() -> None:
    """With no more queries than are let through at once there is no optimum to compare with."""
    with pytest.raises(TTCAError, match="Expected more queries"):
        transport.limited("bucket, 429 alone", 5, 50, 5)


# -- faults and books ---------------------------------------------------------------------------------------------


def test_faults_depend_on_seed_and_pixels_alone() -> None:
    """The same pixels meet the same fates in the same order whatever came between; another seed gives others."""
    pixels = [i.to_bytes(2, "big") * 6 for i in range(300)]
    plan, again = FaultPlan(0, 0.3), FaultPlan(0, 0.3)
    first = [[plan.fate(p) for p in pixels] for _ in range(2)]
    second = [[again.fate(p) for p in reversed(pixels)][::-1] for _ in range(2)]
    assert first == second
    assert first[0] != first[1]
    assert first[0] != [FaultPlan(1, 0.3).fate(p) for p in pixels]
    assert 0.2 < sum(f != "well" for f in first[0]) / len(pixels) < 0.4


def _attempt(number: int, outcome: str | None, **more: Any) -> Attempt:
    made = Attempt(request_id="r", number=number, position=0, key=b"k", outcome=outcome, detail=None, accepted=False)
    return replace(made, **more)


# A reset after the model has run, then a sound answer: what ought to stand in the books.
_SOUND = Books(
    attempts=[_attempt(1, "unknown"), _attempt(2, "answered", accepted=True)],
    processed={("r", 1, 0): False, ("r", 2, 0): True},
    fates={("r", 1): "reset-after", ("r", 2): "well"},
    answers=1,
)


def test_sound_books_agree() -> None:
    """An attempt that was processed and not accepted is found under its own name; nothing else is."""
    found = _SOUND.compared([b"k"])
    assert (found["accepted"], found["processed"], found["charged"]) == (1, 2, 2)
    assert found["processed_not_accepted"] == {"reset-after: unknown": 1}
    assert found["charged_not_processed"] == found["booked_otherwise"] == {}
    assert found["sent_well_not_accepted"] == found["sent_well_too_late"] == found["queries_without_an_end"] == 0


_TIMED_OUT = "Expected an answer from http://127.0.0.1:1 within 0.5 s, got none."


@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (lambda b: replace(b, attempts=[_attempt(1, "refunded"), b.attempts[1]]), "processed_but_refunded_or_unbooked"),
        (lambda b: replace(b, attempts=[b.attempts[1]]), "processed_but_refunded_or_unbooked"),
        (lambda b: replace(b, attempts=[b.attempts[0], _attempt(2, "unknown")]), "sent_well_not_accepted"),
        (lambda b: replace(b, attempts=[b.attempts[0], _attempt(2, "answered")]), "sent_well_not_accepted"),
        (lambda b: replace(b, attempts=[b.attempts[0]]), "sent_well_not_accepted"),
        (
            lambda b: replace(b, attempts=[b.attempts[0], _attempt(2, "unknown", detail=_TIMED_OUT)]),
            "sent_well_too_late",
        ),
        (lambda b: replace(b, attempts=[b.attempts[0], _attempt(2, None)]), "queries_without_an_end"),
        (lambda b: replace(b, attempts=[]), "queries_without_an_end"),
        (lambda b: replace(b, processed={("r", 1, 0): False}), "not_processed_yet_answered_or_unusable"),
        (lambda b: replace(b, attempts=[_attempt(1, "answered"), b.attempts[1]]), "booked_otherwise"),
        (lambda b: replace(b, fates={**b.fates, ("r", 1): "429"}), "booked_otherwise"),
        (lambda b: replace(b, attempts=[*b.attempts, _attempt(3, "unknown")]), "requests_that_never_arrived"),
    ],
)
def test_books_that_do_not_agree_are_noticed(spoil: Callable[[Books], Books], key: str) -> None:
    """Money given back for work done, an answer lost or come late, a query without an end: each has its count."""
    assert not _SOUND.compared([b"k"])[key]
    assert spoil(_SOUND).compared([b"k"])[key]


def test_one_image_logged_twice_is_refused(tmp_path: Path) -> None:
    """A log in which an image of an attempt stands twice cannot be matched, and is not."""
    line = {"request": "r", "arrival": 1, "position": 0, "well": True}
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(TTCAError, match="got one twice"):
        Books.read(ledger, [line, line], [])


def test_an_answer_of_another_image_counts_as_mislabelled() -> None:
    """Answers in another order than their images, and one bit of a score, are told from the right ones."""
    truth = model_answers(_images(64))
    assert not transport._differ(truth, truth).any()
    assert transport._differ(truth[::-1], truth).sum() > 60
    row = int(np.flatnonzero(truth.status == Status.ANSWERED)[0])
    scores = truth.scores.copy()
    scores[row, 0] = np.nextafter(scores[row, 0], np.float32(1))
    assert np.flatnonzero(transport._differ(replace(truth, scores=scores), truth)).tolist() == [row]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "command",
    [
        ["benchmarks._instant_server", "instant"],
        ["benchmarks._instant_server", "fastapi"],
        ["benchmarks._limited_server", "bucket, 429 alone", "50", "50"],
        ["benchmarks._fault_server", ".", "0", "0.3", "1"],
    ],
)
def test_a_server_ends_with_whoever_started_it(command: list[str], tmp_path: Path) -> None:
    """A server prints its URL and is gone once its standard input is closed, as it is when its parent was killed."""
    command = [str(tmp_path) if part == "." else part for part in command]
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.stdin.close()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()

"""Tests of careful asking: one image alone until a class is named, then ever more requests in flight."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.pooling.scripted import ScriptedPlatform, answer_error, distinct, labels, patient, truth
from ttca.answers import Answers
from ttca.errors import AnswerError, SanityError
from ttca.images import Images
from ttca.platforms.throttle import Throttle
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool, Watch

#: Looks at nothing.
CALM = Watch((), lambda _look, _answers: None)


def pool_of(ledger: Ledger, platform: ScriptedPlatform, *, concurrency: int = 64, batch: int = 16) -> QueryPool:
    """Return a pool of one member who can pay."""
    pace = Pace(concurrency=concurrency, batch=batch, policy=patient())
    return QueryPool(platform, ledger, [Member("ada", 1000)], pace=pace)


def test_an_answer_that_nobody_can_read_costs_three_queries(tmp_path: Path) -> None:
    """Images go one by one, and after three that could not be read the first one's sentence ends the asking."""

    def script(_number: int, _images: Images) -> Answers:
        raise answer_error()

    platform = ScriptedPlatform(script)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(AnswerError, match="got a poem"):
            pool_of(ledger, platform).ask(distinct(100), watch=CALM)
        assert platform.queries == ledger.balances()[0].charged == 3


def test_refusals_alone_cost_three_queries_unless_somebody_goes_on(tmp_path: Path) -> None:
    """A platform that finds nothing in the first three images is not asked on; what it said is kept."""
    platform = ScriptedPlatform(lambda _number, images: labels(*[-1] * len(images)))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        pool = pool_of(ledger, platform)
        with pytest.raises(SanityError, match="ttca ask"):
            pool.ask(distinct(100), watch=CALM)
        assert platform.queries == 3
        pool.anyway = True
        assert not pool.ask(distinct(100), watch=CALM).answered.any()
        assert platform.queries == 100


def test_three_images_that_are_all_there_are_may_be_refused(tmp_path: Path) -> None:
    """Where nothing more is to be paid, nothing is stopped."""
    platform = ScriptedPlatform(lambda _number, images: labels(*[-1] * len(images)))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert pool_of(ledger, platform).ask(distinct(3), watch=CALM).resolved.all()


def test_a_mixture_of_refusals_and_poems_costs_three_queries(tmp_path: Path) -> None:
    """Refusals in between do not begin the count anew, and what could not be read is what is told."""

    def script(number: int, images: Images) -> Answers:
        if number % 2:
            raise answer_error()
        return labels(*[-1] * len(images))

    platform = ScriptedPlatform(script)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(AnswerError):
        pool_of(ledger, platform).ask(distinct(100), watch=CALM)
    assert platform.queries == 3


def test_requests_in_flight_grow_from_one(tmp_path: Path) -> None:
    """With a throttle as platforms over HTTP have: the first image goes alone, each answer lets one more in."""
    lock, flights = threading.Lock(), []

    def script(number: int, images: Images) -> Answers:
        with lock:
            flights.append((number, platform.in_flight))
        return truth(images)

    platform = ScriptedPlatform(script, max_batch=1)
    platform.throttle = Throttle(patience_s=30.0)  # type: ignore[attr-defined]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        pool = pool_of(ledger, platform, concurrency=8, batch=1)
        answers = pool.ask(distinct(200), watch=CALM)
    assert answers.answered.all()
    assert np.array_equal(answers.labels, truth(distinct(200)).labels)
    most = dict(flights)
    assert most[0] == 1
    assert all(in_flight <= min(8, number + 1) for number, in_flight in flights)


def test_looks_come_when_their_part_is_there(tmp_path: Path) -> None:
    """Each look sees the answers to its part and nothing more was paid; what it raises ends the asking."""
    platform = ScriptedPlatform()
    seen: list[tuple[int, int]] = []

    def look(number: int, answers: Answers) -> None:
        seen.append((number, int(answers.resolved.sum())))
        if number == 1:
            raise SanityError("Expected sense, got none.")

    parts = (np.arange(90, 100), np.arange(70, 100))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        pool = pool_of(ledger, platform)
        for _ in range(2):
            with pytest.raises(SanityError, match="got none"):
                pool.ask(distinct(100), watch=Watch(parts, look))
            assert platform.queries == 30
    assert seen == [(0, 10), (1, 30), (0, 30), (1, 30)]

"""The logger `ttca` tells of waits and retries, names no key, and says nothing of a platform's usual pace."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platforms.scripted import CLASSES, GOOD, IMAGE_SHAPE, Exchange, images, scripted
from tests.pooling.places import fresh_ledger
from tests.pooling.scripted import ScriptedPlatform, distinct, hard_at_work
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Key
from ttca.platforms.retry import RetryPolicy, ask
from ttca.platforms.throttle import Throttle
from ttca.pooling.hub_client import HubError
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.telling import tell_wait

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Listen to everything that the one logger says."""
    caplog.set_level(logging.DEBUG, logger="ttca")
    yield caplog
    assert {record.name for record in caplog.records if record.name.startswith("ttca")} <= {"ttca"}


def test_a_retry_is_told_and_the_key_that_the_platform_echoes_is_not(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that failed is told with its reason and the wait before the next one, the key masked."""
    monkeypatch.setenv("TTCA_KEY_X", SECRET)
    failures = iter([True, False])

    def sometimes(exchange: Exchange) -> None:
        key = exchange.headers["Authorization"]
        if next(failures):
            exchange.reply(500, f"no room for {key}".encode())
        else:
            exchange.reply(200, GOOD)

    policy = RetryPolicy(base_s=0.0)
    with (
        scripted(sometimes) as server,
        HttpPlatform(server.url, model="m", classes=CLASSES, key=Key(variable="TTCA_KEY_X")) as platform,
    ):
        assert ask(platform, images(1), Credential("ada"), policy=policy).answered.all()
    (line,) = [r.getMessage() for r in told.records if r.name == "ttca"]
    assert line.startswith("Attempt 1 brought no answer; trying again in 0.0 s. Expected an answer from")
    assert "no room for" in line
    assert SECRET[:10] not in told.text


def test_whatever_is_told_names_no_key_of_the_environment(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a guest's platform says, which masks nothing, is masked before it is logged."""
    monkeypatch.setenv("TTCA_KEY_X", f"example.org {SECRET}")
    monkeypatch.setenv("TTCA_HUB_X", "a-token-of-the-hub")
    tell_wait(30.0, f"It said {SECRET} and a-token-of-the-hub.")
    assert told.messages == ["Waiting 30 s. It said [key] and [key]."]
    assert told.records[0].levelno == logging.WARNING


def test_a_wait_for_a_limit_is_told_once_for_all_who_wait(told: pytest.LogCaptureFixture) -> None:
    """A long wait is a warning, a short one is not worth a line, and ten requests that wait together are one."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += min(seconds, 10.0)

    throttle = Throttle("the house", clock=lambda: now[0])
    throttle.hold("", 0.5)
    for _ in range(10):
        throttle.enter("", sleep=lambda s: now.__setitem__(0, now[0] + s))
    assert told.messages == []
    throttle.hold("", 40.0)
    throttle.enter("", sleep=sleep)
    assert told.messages == ["Waiting 40 s. The limits of the house allow no request before."]
    assert told.records[0].levelno == logging.WARNING


def test_a_members_rate_and_a_hub_that_is_away_are_told(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool says whose rate it waits for, and a contribution that it tries its hub again."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    policy = RetryPolicy(sleep=sleep, clock=lambda: now[0])
    with fresh_ledger(clock=lambda: now[0]) as ledger:
        pace = Pace(concurrency=2, batch=2, policy=policy)
        pool = QueryPool(ScriptedPlatform(), ledger, [Member("ada", 9, per_minute=2)], pace=pace)
        pool.ask(distinct(4))
        assert repr(pool) == f"QueryPool({pool.platform!r}, {ledger!r}, 1 members)"
        assert repr(ledger) == f"Ledger({ledger.name!r})"
    assert [m for m in told.messages if "Waiting 60 s. The rate of member 'ada'" in m]
    told.clear()
    monkeypatch.setenv("TTCA_HUB_X", SECRET)
    with pytest.raises(HubError):
        hard_at_work("http://127.0.0.1:1", ScriptedPlatform(), hub_away_s=0.2)
    assert told.messages
    assert all("Expected the hub at" in m for m in told.messages)
    assert SECRET[:10] not in told.text


def test_why_an_answer_cannot_be_read_is_told_once(told: pytest.LogCaptureFixture) -> None:
    """A class that the platform names otherwise costs rows, and people read why, once, also of rows in a batch."""
    said = {True: {"label": "lorry"}, False: {"label": "cat"}}
    numbers = itertools.count()

    def answer(exchange: Exchange) -> None:
        exchange.reply(200, json.dumps(said[next(numbers) in (3, 6)]).encode())

    def batch(exchange: Exchange) -> None:
        exchange.reply(200, json.dumps({"all": [said[i % 4 == 1] for i in range(4)]}).encode())

    several: dict[str, Any] = {"send": "json", "body": {"all": "{images}"}, "results": "all"}
    for reply, options, size, answered in ((answer, {}, 1, 7), (batch, several, 4, 6)):
        told.clear()
        with (
            scripted(reply) as server,
            HttpPlatform(
                server.url, protocol="template", classes=CLASSES, image_shape=IMAGE_SHAPE, **options
            ) as platform,
            fresh_ledger() as ledger,
        ):
            pool = QueryPool(platform, ledger, [Member("ada", 100)], pace=Pace(concurrency=size, batch=size))
            assert pool.ask(images(9 if size == 1 else 8)).answered.sum() == answered
        (line,) = [r.getMessage() for r in told.records if r.levelno == logging.WARNING]
        assert "cannot be read" in line
        assert "'lorry', which is none of them" in line

"""Tests of what a platform's answers teach about how much it bears; the clock is passed in."""

from __future__ import annotations

import itertools
import logging
import math
import random
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.errors import ChargeState, TransportError, Trouble
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Key
from ttca.platforms.throttle import Throttle, lane, throttle_of


class Clock:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.slept.append(seconds)
        self.now += seconds


def too_many(retry_after: float | None = None, status: int = 429) -> TransportError:
    """Return what a platform at its limit answers."""
    return TransportError(
        "too many", platform="p", charge=ChargeState.REFUNDED, retryable=True, retry_after=retry_after, status=status
    )


def late() -> TransportError:
    """Return what a request that no answer came to in time ends with."""
    error = TransportError("late", platform="p", charge=ChargeState.UNKNOWN, retryable=True)
    error.trouble = Trouble.TIMED_OUT
    return error


def entered(throttle: Throttle, clock: Clock, member: str = "ada") -> int:
    """Enter and return the ticket."""
    ticket = throttle.enter(member, sleep=clock.sleep)
    assert ticket is not None
    return ticket


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock=clock, rng=random.Random(0))


def test_an_outage_is_told_once_whatever_was_answered_before_it(
    throttle: Throttle, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer to a request that was sent before the connection was lost ends no outage; one to a later one does."""
    before, later = entered(throttle, clock), entered(throttle, clock)
    for ticket in (before, later):
        throttle.lost(too_many(), 60)
        throttle.leave(ticket, "ada")
    throttle.lost(too_many(), 60)
    assert len(caplog.records) == 1
    throttle.leave(entered(throttle, clock), "ada")
    throttle.lost(too_many(), 60)
    assert len(caplog.records) == 2


def test_nothing_is_held_back_until_a_platform_says_so(throttle: Throttle, clock: Clock) -> None:
    """Without a 429 there is no limit but the caller's own, and other errors teach nothing."""
    tickets = [entered(throttle, clock) for _ in range(100)]
    throttle.leave(tickets[0], "ada", too_many(status=500))
    throttle.leave(tickets[1], "ada", ValueError("not the platform's"))
    assert throttle.limit == math.inf
    assert clock.slept == []


def test_a_429_halves_the_requests_in_flight_once_a_round(throttle: Throttle, clock: Clock) -> None:
    """Of requests sent together only the first refusal halves; the next round's halves again, never below one."""
    tickets = [entered(throttle, clock) for _ in range(16)]
    for ticket in tickets:
        throttle.leave(ticket, "ada", too_many(0.0))
    assert throttle.limit == 8
    for expected in (4.0, 2.0, 1.0, 1.0):
        round_of = [entered(throttle, clock) for _ in range(math.ceil(throttle.limit))]
        for ticket in round_of:
            throttle.leave(ticket, "ada", too_many(0.0))
        assert throttle.limit == pytest.approx(expected)


def test_answers_let_it_grow_slowly(throttle: Throttle, clock: Clock) -> None:
    """A whole round of answers adds half a request, so that few requests are refused."""
    first = [entered(throttle, clock) for _ in range(20)]
    throttle.leave(first[0], "ada", too_many(0.0))
    for ticket in first[1:]:
        throttle.leave(ticket, "ada")
    before = throttle.limit
    for _ in range(10):
        throttle.leave(entered(throttle, clock), "ada")
    assert before + 0.3 < throttle.limit < before + 0.5


def test_a_member_waits_as_told_and_others_do_not(throttle: Throttle, clock: Clock) -> None:
    """Limits are per key: who was told to wait waits at least so long, and a little longer than the others told."""
    throttle.leave(entered(throttle, clock), "ada", too_many(4.0))
    entered(throttle, clock, "bob")
    assert clock.now == 0.0
    throttle.leave(1, "bob")
    entered(throttle, clock, "ada")
    assert 4.0 <= clock.now <= 4.2


def test_a_round_of_refusals_is_one_refusal(throttle: Throttle, clock: Clock) -> None:
    """Many requests refused together double no wait and push none on: the first of them has said it."""
    for ticket in [entered(throttle, clock) for _ in range(64)]:
        throttle.leave(ticket, "ada", too_many())
    entered(throttle, clock)
    assert clock.now < 0.06
    throttle.leave(1, "ada")
    round_of = [entered(throttle, clock) for _ in range(4)]
    throttle.leave(round_of[0], "ada", too_many(1.0))
    clock.now += 0.5
    for ticket in round_of[1:]:
        throttle.leave(ticket, "ada", too_many(1.0))
    began = clock.now
    entered(throttle, clock)
    assert clock.now - began < 0.6


def test_a_stated_limit_is_kept_without_being_refused(throttle: Throttle, clock: Clock) -> None:
    """No window of the stated length holds more requests than stated, and no time is lost either."""
    throttle.keep_to("ada", {1.0: 5, 10.0: 20})
    sent = []
    for _ in range(60):
        throttle.leave(entered(throttle, clock), "ada")
        sent.append(clock.now)
        throttle.keep_to("ada", {1.0: 5, 10.0: 20})
    for seconds, most in ((1.0, 5), (10.0, 20)):
        assert all(later - earlier >= seconds for earlier, later in zip(sent, sent[most:], strict=False))
    assert clock.now == 23.0
    entered(throttle, clock, "bob")
    assert clock.now == 23.0


def test_an_answer_that_says_nothing_is_left_holds_the_next_request(throttle: Throttle, clock: Clock) -> None:
    """A wait told beside a good answer is kept too, and a shorter one does not cut it."""
    throttle.hold("ada", 10.0)
    throttle.hold("ada", 1.0)
    entered(throttle, clock)
    assert clock.now >= 10.0


def test_without_a_word_waits_double_until_an_answer(throttle: Throttle, clock: Clock) -> None:
    """Where a 429 does not say how long, waits grow from one refusal to the next and begin again after an answer."""
    waits = []
    for _ in range(9):
        began = clock.now
        throttle.leave(entered(throttle, clock), "ada", too_many())
        waits.append(clock.now - began)
    assert all(b > 1.5 * a for a, b in itertools.pairwise(waits[1:7]))
    assert max(waits) <= 5.2
    entered(throttle, clock)
    throttle.leave(1, "ada")
    began = clock.now
    throttle.leave(entered(throttle, clock), "ada", too_many())
    entered(throttle, clock)
    assert clock.now - began < 0.1


def test_waiting_ends_when_it_is_pointless(throttle: Throttle, clock: Clock) -> None:
    """A request that will not be sent does not wait, and is not counted as in flight."""
    throttle.hold("ada", 10.0)
    assert throttle.enter("ada", sleep=clock.sleep, stopped=lambda: clock.now > 0) is None
    for _ in range(3):
        throttle.leave(entered(throttle, clock), "ada", too_many(0.0))
    assert throttle.limit == 1
    # At a limit of one, a request counted by mistake would keep this one out for ever.
    throttle.leave(entered(throttle, clock), "ada")


def test_a_wait_that_is_too_long_says_when_to_come_back(throttle: Throttle, clock: Clock) -> None:
    """However the wait was told, beside a good answer, by a limit or by an earlier error, nobody sleeps for hours."""
    throttle.hold("told", 9000.0)
    throttle.keep_to("stated", {86400.0: 1})
    throttle.leave(entered(throttle, clock, "stated"), "stated")
    throttle.leave(entered(throttle, clock, "refused"), "refused", too_many(3600.0))
    for lane_ in ("told", "stated", "refused"):
        with pytest.raises(TransportError, match="Run this again after 2") as caught:
            throttle.enter(lane_, longest_s=60.0, sleep=clock.sleep)
        assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
    assert clock.slept == []


def test_a_platform_that_keeps_saying_at_once_is_waited_for_longer(throttle: Throttle, clock: Clock) -> None:
    """A wait of nothing, told again and again, grows like one that was not told: nobody asks in a hot loop."""
    for _ in range(20):
        throttle.leave(entered(throttle, clock), "ada", too_many(0.0))
    assert clock.now > 30


def windows(throttle: Throttle, clock: Clock, *, quota: int, queries: int, took: float) -> tuple[float, int]:
    """Ask a platform of fixed one-second windows and ``Retry-After: 1``; return seconds and refusals."""
    used: Counter[int] = Counter()
    done = refused = 0
    while done < queries:
        ticket = entered(throttle, clock)
        clock.now += took
        window = int(clock.now)
        used[window] += 1
        if used[window] <= quota:
            done += 1
            throttle.leave(ticket, "ada")
        else:
            refused += 1
            throttle.leave(ticket, "ada", too_many(1.0))
    return clock.now, refused


def test_a_limit_that_shows_is_kept_like_one_that_is_stated(throttle: Throttle, clock: Clock) -> None:
    """Fifty a second and "come back in 1 s", time and again: after a few refusals there are hardly any more."""
    seconds, refused = windows(throttle, clock, quota=50, queries=1000, took=0.0015)
    assert refused <= 10
    assert seconds <= 19 * 1.05


def test_turns_not_used_are_not_counted_against_a_limit_that_shows(throttle: Throttle, clock: Clock) -> None:
    """Once a limit shows, requests that were not sent after all leave its room to others."""
    windows(throttle, clock, quota=20, queries=100, took=0.001)
    clock.now += 2.0
    began = clock.now
    for _ in range(200):
        throttle.leave(entered(throttle, clock), "ada", sent=False)
    assert clock.now == began


@pytest.mark.parametrize("seed", range(5))
def test_refusals_by_chance_show_no_limit(seed: int) -> None:
    """A platform that refuses one request in twenty-five, whatever the pace, is not asked ever more slowly."""
    clock, chance = Clock(), random.Random(seed)
    throttle = Throttle(clock=clock, rng=random.Random(0))
    refusals = 0
    for _ in range(2000):
        ticket = entered(throttle, clock)
        clock.now += 0.002
        refused = chance.random() < 0.04
        refusals += refused
        throttle.leave(ticket, "ada", too_many(0.5) if refused else None)
    # Each refusal is waited out, and little else.
    assert clock.now < 1.25 * (2000 * 0.002 + refusals * 0.51)


def test_a_turn_that_was_not_used_teaches_nothing(throttle: Throttle, clock: Clock) -> None:
    """A request that was not sent takes no place in a stated limit, and counts as no answer."""
    throttle.keep_to("ada", {3600.0: 2})
    throttle.leave(entered(throttle, clock), "ada", too_many(0.0))
    before = throttle.limit
    for _ in range(10):
        throttle.leave(entered(throttle, clock), "ada", sent=False)
    assert throttle.limit == before
    throttle.leave(entered(throttle, clock), "ada")
    assert clock.now < 1


def test_whose_limit_it_is_goes_by_the_key() -> None:
    """Members who share a key share its limits; a key of one's own has its own."""
    with HttpPlatform(
        "http://127.0.0.1:1", model="m", classes=("a", "b"), key=Key(variable="TTCA_KEY_OURS")
    ) as platform:
        assert lane(platform, Credential("ada")) == lane(platform, Credential("ben")) == "TTCA_KEY_OURS"
        assert lane(platform, Credential("cleo", "TTCA_KEY_CLEO")) == "TTCA_KEY_CLEO"
        assert throttle_of(platform) is platform.throttle


def test_a_request_that_ends_lets_the_next_one_in() -> None:
    """At a limit of one, requests of many threads follow one another and none is forgotten."""
    throttle, together, most, lock = Throttle(), [0], [0], threading.Lock()
    throttle.leave(throttle.enter("ada") or 0, "ada", too_many(0.0))
    assert throttle.limit == 1

    def ask() -> None:
        for _ in range(20):
            ticket = throttle.enter("ada")
            assert ticket is not None
            with lock:
                together[0] += 1
                most[0] = max(most[0], together[0])
            with lock:
                together[0] -= 1
            throttle.leave(ticket, "ada")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    # The limit's square grows by one with each answer, so that after the first forty of 160 it is near six.
    assert most[0] <= 8
    assert throttle.limit == pytest.approx(np.sqrt(160), rel=0.1)


@examples(100)
@given(st.lists(st.tuples(st.sampled_from(["ok", "429", "503", "bug"]), st.integers(1, 8)), max_size=40))
def test_the_limit_is_always_at_least_one(history: list[tuple[str, int]]) -> None:
    """Whatever happens, somebody may send sooner or later, and what has ended is in flight no more."""
    clock = Clock()
    throttle = Throttle(clock=clock, rng=random.Random(0))
    for kind, n in history:
        tickets = [entered(throttle, clock) for _ in range(min(n, math.ceil(min(throttle.limit, 8))))]
        errors = {"ok": None, "429": too_many(), "503": too_many(1.0, 503), "bug": KeyError("ours")}
        for ticket in tickets:
            throttle.leave(ticket, "ada", errors[kind])
        assert throttle.limit >= 1
        assert throttle._in_flight == 0


def test_a_timeout_halves_the_requests_in_flight_once_a_round(throttle: Throttle, clock: Clock) -> None:
    """What is not answered in time is too much, as what is refused is; it asks nobody to wait."""
    tickets = [entered(throttle, clock) for _ in range(16)]
    for ticket in tickets:
        throttle.leave(ticket, "ada", late())
    assert throttle.limit == 8
    assert clock.slept == []
    throttle.leave(entered(throttle, clock), "ada", late())
    assert throttle.limit == 1


@pytest.mark.parametrize("status", [400, 403, 200])
def test_too_fast_is_heeded_whatever_the_status(status: int, throttle: Throttle, clock: Clock) -> None:
    """A 400 that says "too fast" halves and holds as a 429 does."""
    error = too_many(4.0, status)
    error.trouble = Trouble.THROTTLED
    for ticket in [entered(throttle, clock) for _ in range(4)]:
        throttle.leave(ticket, "ada", error)
    assert throttle.limit == 2
    entered(throttle, clock)
    assert clock.now >= 4.0


def one_after_another(throttle: Throttle, clock: Clock, *, service_s: float, queries: int, most: int) -> float:
    """Ask a server of one thread with ``most`` in flight; return how long the slowest answer took."""
    queue: list[tuple[int, float]] = []
    slowest = sent = 0.0
    while sent < queries or queue:
        while sent < queries and len(queue) < most and len(queue) < throttle.limit:
            queue.append((entered(throttle, clock), clock.now))
            sent += 1
        clock.now += service_s
        ticket, at = queue.pop(0)
        slowest = max(slowest, clock.now - at)
        throttle.leave(ticket, "ada")
    return slowest


@given(st.floats(0.01, 1.0), st.integers(2, 200))
def test_no_answer_of_a_server_of_one_thread_comes_too_late(service_s: float, most: int) -> None:
    """However many are allowed, its queue never outlasts a patience of ten requests or more."""
    clock = Clock()
    throttle = Throttle(patience_s=10.0, clock=clock, rng=random.Random(0))
    assert one_after_another(throttle, clock, service_s=service_s, queries=400, most=most) < 10.0


def test_a_slow_platform_without_a_queue_is_asked_in_parallel() -> None:
    """Answers that all take long, near or far from our patience, wait in no queue: each round doubles the requests."""
    clock = Clock()
    throttle = Throttle(patience_s=30.0, clock=clock)
    for expected in (1, 2, 4, 8, 16, 32, 64):
        assert throttle.limit == expected
        tickets = [entered(throttle, clock) for _ in range(expected)]
        clock.now += 20.0
        for ticket in tickets:
            throttle.leave(ticket, "ada")


def test_larger_requests_that_take_longer_are_no_queue() -> None:
    """After one small fast answer large slow ones may halve, and then let requests grow again."""
    clock = Clock()
    throttle = Throttle(patience_s=30.0, clock=clock)
    throttle.leave(entered(throttle, clock), "ada")
    for _ in range(20):
        tickets = [entered(throttle, clock) for _ in range(min(64, int(throttle.limit)))]
        clock.now += 20.0
        for ticket in tickets:
            throttle.leave(ticket, "ada")
    assert throttle.limit > 8


def test_the_first_wait_says_for_what_and_how_long(
    throttle: Throttle, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first refusal is told at once in the platform's words, however short the wait; later short waits are not."""
    caplog.set_level(logging.WARNING, logger="ttca")
    for _ in range(3):
        throttle.leave(entered(throttle, clock), "ada", too_many(0.5))
        throttle.leave(entered(throttle, clock), "ada")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Waiting 0.5")
    assert line.endswith(" s. too many")


def test_a_platform_that_is_lost_is_told_once_until_it_answers(
    throttle: Throttle, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """However many requests find no connection, people read it once, and again when it happens again."""
    assert not throttle.answered
    for _ in range(2):
        throttle.leave(entered(throttle, clock), "ada")
        assert throttle.answered
        for _ in range(3):
            throttle.lost(ValueError("refused"), 120.0)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["No connection any more; trying again for up to 120 s. refused"] * 2

"""When attempts are repeated, how long is waited between them, and what an ask without a pool keeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ChargeState, ConfigError, ImageError, TransportError, Trouble
from ttca.images import Images
from ttca.platforms.base import Credential, PlatformInfo
from ttca.platforms.retry import RetryPolicy, ask
from ttca.platforms.throttle import Throttle, lane


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def policy(time: Time, **options: Any) -> RetryPolicy:
    return RetryPolicy(rng=random.Random(7), sleep=time.sleep, clock=time.clock, **options)


def error(*, retryable: bool = True, retry_after: float | None = None, status: int | None = None) -> TransportError:
    return TransportError(
        "It failed.",
        platform="p",
        charge=ChargeState.UNKNOWN,
        retryable=retryable,
        retry_after=retry_after,
        status=status,
    )


def failing(times: int, make: Callable[[], Exception]) -> Callable[[int], int]:
    def once(attempt: int) -> int:
        if attempt <= times:
            raise make()
        return attempt

    return once


def test_it_retries_until_it_succeeds_and_numbers_the_attempts() -> None:
    """Two failures and a success are three attempts and two waits."""
    time = Time()
    assert policy(time).run(failing(2, error)) == 3
    assert len(time.slept) == 2


def test_the_waits_are_jittered_within_a_doubling_and_capped_bound() -> None:
    """Wait k lies in [0, min(cap, base · 2^(k−1))], and the same seed waits the same."""
    first, second = Time(), Time()
    for time in (first, second):
        with pytest.raises(TransportError):
            policy(time, attempts=9, base_s=1.0, cap_s=5.0, deadline_s=1000).run(failing(99, error))
    assert len(first.slept) == 8
    assert all(0 <= wait <= min(5.0, 2.0**k) for k, wait in enumerate(first.slept))
    assert first.slept == second.slept
    assert len(set(first.slept)) == 8


def test_the_last_error_is_raised_as_it_was_with_its_attempt() -> None:
    """After the last attempt the platform's own error comes through, and says which attempt it was."""
    with pytest.raises(TransportError) as caught:
        policy(Time(), attempts=4).run(failing(99, error))
    assert caught.value.attempt == 4


@pytest.mark.parametrize(
    "make",
    [lambda: error(retryable=False), lambda: AnswerError("No.", platform="p"), lambda: ImageError("x"), KeyError],
)
def test_what_cannot_get_better_is_not_repeated(make: Callable[[], Exception]) -> None:
    """Unreadable answers, bad input and foreign errors end the attempts at once."""
    time, calls = Time(), []

    def once(attempt: int) -> int:
        calls.append(attempt)
        raise make()

    with pytest.raises(type(make())):
        policy(time).run(once)
    assert (calls, time.slept) == ([1], [])


def test_a_retry_after_is_waited_out() -> None:
    """The wait is never shorter than the platform asked for, nor much longer."""
    time = Time()
    policy(time, base_s=0.5).run(failing(1, lambda: error(retry_after=30.0)))
    assert 30.0 <= time.slept[0] <= 30.5


def test_a_retry_after_above_the_longest_wait_stops_and_says_when_to_come_back() -> None:
    """An hour is not waited; the error names it and is no longer retryable."""
    time = Time()
    with pytest.raises(TransportError, match=r"3600 s.*Run this again after \d{4}-") as caught:
        policy(time, longest_wait_s=60).run(failing(1, lambda: error(retry_after=3600.0)))
    assert not caught.value.retryable
    assert time.slept == []
    with pytest.raises(TransportError, match="years from now"):
        policy(time).run(failing(1, lambda: error(retry_after=1e15)))


@given(st.floats(0, 100), st.integers(1, 12))
def test_no_attempt_begins_after_the_deadline(deadline: float, attempts: int) -> None:
    """Whatever the options, the clock has not passed the deadline when an attempt begins."""
    time = Time()
    begun: list[float] = []

    def once(_: int) -> None:
        begun.append(time.now)
        raise error()

    with pytest.raises(TransportError):
        policy(time, attempts=attempts, deadline_s=deadline, base_s=5, cap_s=50).run(once)
    assert 1 <= len(begun) <= attempts
    assert max(begun) <= deadline


@pytest.mark.parametrize("options", [{"attempts": 0}, {"deadline_s": -1}, {"base_s": float("nan")}])
def test_a_policy_is_checked_when_it_is_made(options: dict[str, Any]) -> None:
    """No attempts, or a negative or meaningless time, is a ConfigError."""
    with pytest.raises(ConfigError):
        RetryPolicy(**options)


class Scripted:
    """A platform that answers or raises what it is told, batch by batch."""

    info = PlatformInfo("p", ("a", "b"), (2, 2, 3), max_batch=2)

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[int, str]] = []

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        self.asked.append((len(images), request_id))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        return Answers.from_labels(images[:, 0, 0, 0].astype(np.int64) % 2, 2)


BATCH = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def test_ask_splits_into_batches_and_keeps_one_id_across_retries() -> None:
    """Five images at two a request are three requests, each with one id for all of its attempts."""
    platform = Scripted(None, error())
    answers = ask(platform, BATCH, Credential("ada"), policy=policy(Time()), request_id="q")
    assert answers.labels.tolist() == [0, 1, 0, 1, 0]
    assert platform.asked == [(2, "q-0"), (2, "q-2"), (2, "q-2"), (1, "q-4")]


def test_ask_keeps_what_was_answered_when_the_platform_goes_down() -> None:
    """Batches after an outage are failed rows, and the earlier answers are returned."""
    platform = Scripted(None, error(retryable=False))
    answers = ask(platform, BATCH, Credential("ada"), policy=policy(Time()))
    assert answers.status.tolist() == [Status.ANSWERED] * 2 + [Status.FAILED] * 3
    assert len(platform.asked) == 2


def test_ask_goes_on_after_an_unreadable_answer() -> None:
    """One unreadable batch fails alone."""
    answers = ask(Scripted(AnswerError("No.", platform="p")), BATCH, Credential("ada"), policy=policy(Time()))
    assert answers.status.tolist() == [Status.FAILED] * 2 + [Status.ANSWERED] * 3


def test_ask_raises_when_nothing_was_answered_and_checks_images_first() -> None:
    """With no answer at all the reason is raised; bad images are never sent; no images are no answers."""
    with pytest.raises(TransportError, match="It failed"):
        ask(Scripted(error(retryable=False)), BATCH, Credential("ada"))
    platform = Scripted()
    with pytest.raises(ImageError):
        ask(platform, BATCH[:, :1], Credential("ada"))
    assert platform.asked == []
    assert len(ask(platform, BATCH[:0], Credential("ada"))) == 0


def test_being_told_to_wait_is_no_failed_attempt() -> None:
    """A 429 counts neither as an attempt nor against the deadline, and is waited out so often and no more."""
    time = Time()
    assert policy(time, attempts=2, deadline_s=10).run(failing(40, lambda: error(status=429, retry_after=1.0))) == 41
    assert time.now >= 40
    with pytest.raises(TransportError) as caught:
        policy(Time(), most_refusals=3).run(failing(99, lambda: error(status=429, retry_after=1.0)))
    assert caught.value.attempt == 4
    kinds = iter([error(status=429), error(status=503), error(status=429), error(status=503)])
    with pytest.raises(TransportError) as failed:
        policy(Time(), attempts=2).run(failing(99, lambda: next(kinds)))
    assert (failed.value.attempt, failed.value.status) == (4, 503)


def test_an_ask_waits_where_an_answer_said_that_nothing_is_left() -> None:
    """What a platform's throttle has learned holds for an ask without a pool."""
    time = Time()

    class Exhausted:
        info = PlatformInfo("p", ("a", "b"), (2, 2, 3), max_batch=1)
        throttle = Throttle(clock=time.clock)

        def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
            self.throttle.hold(lane(self, credential), 5.0)
            return Answers.from_labels(np.zeros(len(images), np.int64), 2)

    answers = ask(Exhausted(), np.zeros((3, 2, 2, 3), np.uint8), Credential("ada"), policy=policy(time))
    assert answers.answered.all()
    assert 10.0 <= time.now < 11.0


def unreachable() -> TransportError:
    """Return the error of a connection that was refused."""
    lost = TransportError("No connection.", platform="p", charge=ChargeState.REFUNDED, retryable=True)
    lost.trouble = Trouble.UNREACHABLE
    return lost


def met(time: Time, *, answered: bool = True) -> Throttle:
    """Return the throttle of a platform that has answered, or has not yet."""
    throttle = Throttle(clock=time.clock)
    if answered:
        with throttle.slot(""):
            pass
    return throttle


@given(st.floats(0.0, 119.0), st.integers(0, 99))
def test_a_restart_within_the_deadline_is_waited_out(down_s: float, seed: int) -> None:
    """A platform that has answered and is restarted is asked until the deadline, whatever ``attempts`` says."""
    time = Time()

    def once(attempt: int) -> int:
        if time.now < down_s:
            raise unreachable()
        return attempt

    waiting = RetryPolicy(rng=random.Random(seed), sleep=time.sleep, clock=time.clock)
    assert waiting.run(once, throttle=met(time)) >= 1
    assert down_s <= time.now <= 120.0 + 1e-6


def test_a_platform_that_stays_away_ends_at_the_deadline() -> None:
    """The last attempt begins at the deadline; the error is the platform's own."""
    time = Time()
    with pytest.raises(TransportError, match="No connection"):
        policy(time, deadline_s=60.0).run(failing(10**6, unreachable), throttle=met(time))
    assert time.now == pytest.approx(60.0)


def test_a_clock_that_stands_still_lets_nobody_try_for_ever() -> None:
    """What was slept counts against the deadline too."""
    slept: list[float] = []
    waiting = RetryPolicy(rng=random.Random(0), sleep=slept.append, clock=lambda: 0.0)
    with pytest.raises(TransportError):
        waiting.run(failing(10**6, unreachable), throttle=met(Time()))
    assert sum(slept) == pytest.approx(120.0)


def test_a_platform_that_never_answered_is_not_waited_for() -> None:
    """A wrong port costs five attempts, not two minutes, with a throttle and without."""
    for throttle in (met(Time(), answered=False), None):
        time = Time()
        with pytest.raises(TransportError) as caught:
            policy(time).run(failing(99, unreachable), throttle=throttle)
        assert caught.value.attempt == 5


def test_connections_refused_leave_the_attempts_to_others() -> None:
    """After a restart an attempt of an unknown end is the first of its five."""
    time = Time()
    kinds = iter([*[unreachable() for _ in range(8)], *[error() for _ in range(4)]])
    assert policy(time).run(failing(12, lambda: next(kinds)), throttle=met(time)) == 13


def test_too_fast_by_another_status_is_no_failed_attempt() -> None:
    """A 400 that says "too fast" counts neither as an attempt nor against the deadline."""

    def slow_down() -> TransportError:
        told = error(status=400, retry_after=1.0)
        told.trouble = Trouble.THROTTLED
        return told

    time = Time()
    assert policy(time, attempts=2, deadline_s=10).run(failing(40, slow_down)) == 41

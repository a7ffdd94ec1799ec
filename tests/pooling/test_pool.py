"""Tests of the pool: what is asked, who pays, what a failing platform costs, and what is in the ledger afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from tests.pooling.places import BACKENDS, fresh_ledger, reopen, use
from tests.pooling.scripted import (
    CLASSES,
    IMAGE_SHAPE,
    ScriptedPlatform,
    answer_error,
    distinct,
    patient,
    transport_error,
    truth,
)
from ttca.answers import Answers, Status
from ttca.errors import (
    AnswerError,
    ChargeState,
    ConfigError,
    ImageError,
    LedgerError,
    PlatformError,
    QuotaError,
    RateError,
    TransportError,
)
from ttca.images import Images
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.throttle import Throttle
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.pool import GIVE_UP_AFTER, Cost, Member, Pace, QueryPool
from ttca.progress import Advance, Reporter, Tally

ADA = (Member("ada", 1000),)
#: A pool asks a ledger and has no statement of its own: the ledger's tests meet the server in every run.
pytestmark = pytest.mark.full_on_a_server


@pytest.fixture(params=BACKENDS, scope="module", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test on both kinds of database."""
    with use(request.param):
        yield


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Give an empty ledger."""
    with fresh_ledger() as fresh:
        yield fresh


def agree(got: Answers, expected: Answers) -> None:
    """Assert that two answers are equal in every value."""
    np.testing.assert_array_equal(got.status, expected.status)
    np.testing.assert_array_equal(got.labels, expected.labels)
    np.testing.assert_array_equal(got.scores, expected.scores)
    np.testing.assert_array_equal(got.resolution, expected.resolution)


def totals(ledger: Ledger) -> dict[str, int]:
    """Return all members' balances added up."""
    names = ("charged", "answered", "unusable", "unknown", "refunded")
    return {name: sum(getattr(b, name) for b in ledger.balances()) for name in names}


def one_at_a_time(
    platform: ScriptedPlatform, ledger: Ledger, members: Sequence[Member] = ADA, *, batch: int = 4, **more: Any
) -> QueryPool:
    """Return a pool whose requests go one after the other."""
    return QueryPool(
        platform, ledger, members, pace=Pace(concurrency=batch, batch=batch, policy=patient()), overrule=True, **more
    )


# -- what is asked ----------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_images(ledger: Ledger) -> None:
    """With requests answered in the reverse of the order they were sent, each row is its own image's answer."""
    waves = [threading.Event() for _ in range(7)]
    waves[6].set()

    def backwards(number: int, images: Images) -> Answers:
        if number:  # The first request goes alone.
            assert waves[number].wait(30)
            waves[number - 1].set()
        return truth(images)

    platform = ScriptedPlatform(backwards)
    pool = QueryPool(platform, ledger, ADA, pace=Pace(concurrency=12, batch=2))
    images = distinct(14)[np.random.default_rng(0).permutation(14)]
    agree(pool.ask(images), truth(images))
    assert len(platform.attempts) == 7


def test_identical_images_are_asked_once(ledger: Ledger) -> None:
    """Duplicates cost one query and get one answer."""
    platform = ScriptedPlatform()
    pool = one_at_a_time(platform, ledger)
    rows = np.array([0, 1, 0, 2, 2, 1, 0])
    images = distinct(3)[rows]
    assert pool.cost(images) == Cost(images=7, answered=0, queries=3, affordable=1000)
    agree(pool.ask(images), truth(images))
    assert platform.queries == 3
    assert totals(ledger)["charged"] == 3


def test_a_failed_image_fails_its_duplicates_too(ledger: Ledger) -> None:
    """Twins of an image without a usable answer are abstentions as well."""

    def second_fails(_number: int, images: Images) -> Answers:
        answers = truth(images)
        return Answers.concatenate(
            [Answers.failed(1, 3) if i == 1 else answers_at(answers, i) for i in range(3)], classes=3
        )

    pool = one_at_a_time(ScriptedPlatform(second_fails), ledger)
    answers = pool.ask(distinct(3)[[0, 1, 2, 1]])
    assert answers.status.tolist() == [0, 2, 0, 2]
    assert answers.coverage == 0.5


def answers_at(answers: Answers, row: int) -> Answers:
    """Return one row."""
    return Answers(
        answers.status[row : row + 1],
        answers.labels[row : row + 1],
        answers.scores[row : row + 1],
        answers.resolution[row : row + 1],
    )


def test_cached_answers_cost_nothing(ledger: Ledger) -> None:
    """What the ledger holds is not asked again, by this pool or by a later one with no quota left."""
    platform = ScriptedPlatform()
    images = distinct(10)
    one_at_a_time(platform, ledger).ask(images[:6])
    assert platform.queries == 6
    pool = one_at_a_time(platform, ledger, [Member("ada", 10)])
    assert pool.cost(images) == Cost(images=10, answered=6, queries=4, affordable=4)
    agree(pool.ask(images), truth(images))
    assert platform.queries == 10
    assert pool.cost(images) == Cost(images=10, answered=10, queries=0, affordable=0)
    agree(pool.ask(images), truth(images))
    assert platform.queries == 10
    assert pool.status() == [Balance("ada", 10, 10, answered=10, unusable=0, unknown=0, refunded=0)]


def test_a_refusal_is_an_answer_and_is_kept(ledger: Ledger) -> None:
    """A platform that refuses an image has answered: the refusal is cached, not asked again."""
    platform = ScriptedPlatform(lambda _number, images: Answers.from_labels(np.full(len(images), -1), 3))
    pool = one_at_a_time(platform, ledger)
    for _ in range(2):
        assert pool.ask(distinct(4)).status.tolist() == [Status.REFUSED] * 4
    assert platform.queries == 4
    assert totals(ledger) == {"charged": 4, "answered": 4, "unusable": 0, "unknown": 0, "refunded": 0}


def test_another_epoch_or_repeat_asks_again(ledger: Ledger) -> None:
    """Each epoch and each repeat pays for its own answers and keeps them; the purpose does not matter."""
    platform = ScriptedPlatform()
    pool = one_at_a_time(platform, ledger)
    images = distinct(3)
    for _ in range(2):
        pool.ask(images)
        pool.ask(images, epoch="verification-1", purpose="verification")
        pool.ask(images, repeat=1)
        pool.ask(images, purpose="audit")
    assert platform.queries == 9
    assert ledger.paid() == {"pool": 6, "verification": 3}


def test_another_platform_is_asked_again(ledger: Ledger) -> None:
    """Answers of a platform with another identity are not reused."""
    first, second = ScriptedPlatform(), ScriptedPlatform()
    second._info = type(second.info)("p", CLASSES, IMAGE_SHAPE, {"model": "scripted", "version": "2"})
    one_at_a_time(first, ledger).ask(distinct(3))
    again = one_at_a_time(second, ledger)
    again.accept_new_version = True
    again.ask(distinct(3))
    assert (first.queries, second.queries) == (3, 3)


def test_no_images_ask_nothing(ledger: Ledger) -> None:
    """An empty batch is answered with no rows."""
    platform = ScriptedPlatform()
    assert one_at_a_time(platform, ledger).ask(distinct(0)).scores.shape == (0, 3)
    assert platform.queries == 0


@pytest.mark.parametrize(
    "images",
    [
        distinct(2).astype(np.float32) / 255,
        distinct(2).astype(np.int64),
        distinct(2)[:, :1],
        distinct(2)[..., :1],
        distinct(2)[0],
        np.zeros((2, 3, 2, 3), np.uint8),
        [distinct(1)[0], distinct(1)[0][:1]],
    ],
    ids=["float", "int64", "height", "grey", "no batch", "turned", "ragged"],
)
def test_bad_images_never_reach_the_platform(images: Any, ledger: Ledger) -> None:
    """Images of another type or size raise before any attempt, and the ledger stays empty."""
    platform = ScriptedPlatform()
    pool = one_at_a_time(platform, ledger)
    for ask in (pool.ask, pool.cost):
        with pytest.raises(ImageError, match="Expected images"):
            ask(images)
    assert platform.attempts == []
    assert totals(ledger)["charged"] == 0
    assert ledger.paid() == {}


def test_the_answer_accepted_first_is_the_one_returned(ledger: Ledger) -> None:
    """When another process gets its answer in first, this call returns that one, as every later call will."""

    def overtaken(_number: int, images: Images) -> Answers:
        with reopen(ledger) as other:
            keys = other.keys(images, fingerprint=platform.info.fingerprint, epoch="pool")
            charge = other.charge("ada", keys, request_id="other", number=1, purpose="pool")
            other.settle(charge, keys, Answers.from_labels(np.full(len(images), 2), 3))
        return Answers.from_labels(np.zeros(len(images), np.int64), 3)

    platform = ScriptedPlatform(overtaken)
    pool = one_at_a_time(platform, ledger)
    assert pool.ask(distinct(6)).labels.tolist() == [2] * 6
    assert pool.ask(distinct(6)).labels.tolist() == [2] * 6
    assert totals(ledger)["charged"] == 12


# -- the door ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "options", "error", "sentence"),
    [
        ([], {}, ConfigError, "at least one member"),
        ([Member("ada", 5), Member("ben", 5), Member("ada", 5)], {}, ConfigError, "got ada more than once"),
        ([Member("ada", 5)], {"cap": 0}, QuotaError, "cap of at least 1 query, got 0"),
        ([Member("ada", 5)], {"concurrency": 0}, ConfigError, "got 0 and 16"),
        ([Member("ada", 5)], {"batch": 0}, ConfigError, "got 64 and 0"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(
    members: list[Member], options: dict[str, Any], error: type[Exception], sentence: str, ledger: Ledger
) -> None:
    """Missing or duplicate members, a cap of 0 and numbers out of range are refused, and enrol nobody."""
    pace = {k: v for k, v in options.items() if k != "cap"}
    with pytest.raises(error, match=sentence):
        QueryPool(ScriptedPlatform(), ledger, members, cap=options.get("cap"), pace=Pace(**pace))
    assert ledger.balances() == []


def test_more_than_the_quotas_is_refused_before_sending(ledger: Ledger) -> None:
    """One query more than the members have, or the cap leaves, sends nothing; exactly as many is allowed."""
    platform = ScriptedPlatform()
    members = [Member("ada", 3), Member("ben", 4)]
    pool = one_at_a_time(platform, ledger, members)
    with pytest.raises(QuotaError, match=r"Expected 8 queries .* the members have 7 left"):
        pool.ask(distinct(8))
    pool = one_at_a_time(platform, ledger, members, cap=5)
    with pytest.raises(QuotaError, match=r"6 queries .* cap, but it leaves 5"):
        pool.ask(distinct(6))
    assert platform.attempts == []
    assert totals(ledger)["charged"] == 0
    assert pool.cost(distinct(6)) == Cost(6, 0, 6, affordable=5)
    pool.ask(distinct(5))
    pool = one_at_a_time(platform, ledger, members)
    pool.ask(distinct(7))
    assert platform.queries == 7
    assert [b.remaining for b in pool.status()] == [0, 0]


def test_former_members_do_not_pay(ledger: Ledger) -> None:
    """What a member of an earlier pool has left is neither affordable nor spent once they have gone."""
    platform = ScriptedPlatform()
    one_at_a_time(platform, ledger, [Member("ada", 50), Member("ben", 50)])
    pool = one_at_a_time(platform, ledger, [Member("ben", 2)])
    assert pool.cost(distinct(3)).affordable == 2
    with pytest.raises(QuotaError):
        pool.ask(distinct(3))
    pool.ask(distinct(2))
    assert {a.credential.member for a in platform.attempts} == {"ben"}


# -- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "max_batch", "concurrency", "size", "parallel"),
    [(4, 64, 12, 4, 3), (16, 3, 13, 3, 4), (16, 64, 5, 5, 1), (1, 64, 8, 1, 8), (6, 6, 11, 6, 1)],
)
def test_batch_and_concurrency_are_kept_and_used(
    batch: int, max_batch: int, concurrency: int, size: int, parallel: int, ledger: Ledger
) -> None:
    """No request is larger than batch and platform allow, and as many queries as allowed are in flight, not more."""
    barrier = threading.Barrier(parallel)

    def together(number: int, images: Images) -> Answers:
        if number:
            barrier.wait(30)
        return truth(images)

    platform = ScriptedPlatform(together, max_batch=max_batch)
    pool = QueryPool(platform, ledger, ADA, pace=Pace(batch=batch, concurrency=concurrency))
    images = distinct(size * (1 + 3 * parallel))
    agree(pool.ask(images), truth(images))
    assert {len(a.images) for a in platform.attempts} == {size}
    assert platform.most_in_flight == size * parallel <= concurrency


def test_members_share_the_load_and_use_their_own_keys(ledger: Ledger) -> None:
    """Queries go out in proportion to the quotas, each under the payer's own name and key variable."""
    platform = ScriptedPlatform()
    members = [Member("ada", 30, "TTCA_KEY_ADA"), Member("ben", 10, "TTCA_KEY_BEN")]
    one_at_a_time(platform, ledger, members).ask(distinct(8))
    assert [(b.member, b.charged) for b in ledger.balances()] == [("ada", 6), ("ben", 2)]
    credentials = {(a.credential.member, a.credential.key_variable, len(a.images)) for a in platform.attempts}
    assert credentials == {("ada", "TTCA_KEY_ADA", 4), ("ada", "TTCA_KEY_ADA", 2), ("ben", "TTCA_KEY_BEN", 2)}


# -- a failing platform -----------------------------------------------------------------------------------------


def failing(error: Callable[[], Exception], *, at: Callable[[int], bool] = lambda _number: True) -> ScriptedPlatform:
    """Return a platform that raises at some attempts and answers at the others."""

    def script(number: int, images: Images) -> Answers:
        if at(number):
            raise error()
        return truth(images)

    return ScriptedPlatform(script)


@pytest.mark.parametrize("charge", list(ChargeState))
def test_a_platform_that_is_down_costs_one_request(charge: ChargeState, ledger: Ledger) -> None:
    """All retries of the first request are used, and nothing more; each is booked as what is known of it."""
    platform = failing(lambda: transport_error(charge, status=503))
    with pytest.raises(PlatformError, match="platform p, status 503, member ada, attempt 3"):
        one_at_a_time(platform, ledger).ask(distinct(40))
    assert [len(a.images) for a in platform.attempts] == [4, 4, 4]
    assert len({a.request_id for a in platform.attempts}) == 1
    kind = {"refunded": "refunded", "unknown": "unknown", "charged": "unusable"}[charge]
    expected = dict.fromkeys(("charged", "answered", "unusable", "unknown", "refunded"), 0) | {kind: 12}
    expected["charged"] = 0 if charge is ChargeState.REFUNDED else 12
    assert totals(ledger) == expected
    healthy = ScriptedPlatform()
    agree(one_at_a_time(healthy, ledger).ask(distinct(40)), truth(distinct(40)))
    assert healthy.queries == 40


@pytest.mark.parametrize("charge", [ChargeState.REFUNDED, ChargeState.UNKNOWN])
def test_a_retried_request_loses_nothing(charge: ChargeState, ledger: Ledger) -> None:
    """A 503 now and then is retried under the same request id, and every answer comes."""
    platform = failing(lambda: transport_error(charge, status=503), at=lambda number: number % 3 != 2)
    agree(one_at_a_time(platform, ledger).ask(distinct(12)), truth(distinct(12)))
    assert [a.request_id for a in platform.attempts] == [a.request_id for a in platform.attempts[::3] for _ in range(3)]
    assert totals(ledger)["answered"] == 12
    assert totals(ledger)["charged"] == (12 if charge is ChargeState.REFUNDED else 36)


def unreadable(*numbers: int) -> ScriptedPlatform:
    """Return a platform that has no readable answer to any request with one of these images of ``distinct``."""
    bad = {image.tobytes() for number in numbers for image in distinct(1, start=number)}

    def script(_number: int, images: Images) -> Answers:
        if bad & {image.tobytes() for image in images}:
            raise answer_error()
        return truth(images)

    return ScriptedPlatform(script)


def test_an_unreadable_first_answer_stops_early(ledger: Ledger) -> None:
    """A platform that speaks otherwise costs one request and three images asked alone, which stay charged."""
    platform = failing(answer_error)
    with pytest.raises(AnswerError, match="a poem"):
        one_at_a_time(platform, ledger).ask(distinct(40))
    assert [len(a.images) for a in platform.attempts] == [4, *[1] * GIVE_UP_AFTER]
    assert totals(ledger) == {"charged": 7, "answered": 0, "unusable": 7, "unknown": 0, "refunded": 0}


def test_a_later_failure_is_an_abstention(ledger: Ledger) -> None:
    """One request that brings nothing leaves its own rows unanswered, and a later call asks only for those."""

    def script(_number: int, images: Images) -> Answers:
        if np.array_equal(images[0], distinct(1, start=8)[0]):
            raise transport_error(ChargeState.UNKNOWN)
        return truth(images)

    answers = one_at_a_time(ScriptedPlatform(script), ledger).ask(distinct(20))
    assert np.flatnonzero(answers.status == Status.FAILED).tolist() == [8, 9, 10, 11]
    healthy = ScriptedPlatform()
    agree(one_at_a_time(healthy, ledger).ask(distinct(20)), truth(distinct(20)))
    assert healthy.queries == 4


@pytest.mark.parametrize("bad", [(0,), (9,), (0, 19), (0, 5, 10, 15)])
def test_an_image_that_cannot_be_taken_costs_no_other_its_answer(bad: tuple[int, ...], ledger: Ledger) -> None:
    """A request that cannot be read is asked again image by image, also when it is the very first one."""
    platform = unreadable(*bad)
    answers = one_at_a_time(platform, ledger).ask(distinct(20))
    assert np.flatnonzero(answers.status == Status.FAILED).tolist() == list(bad)
    spoiled = len({i // 4 for i in bad})
    assert totals(ledger) == {
        "charged": 20 + 4 * spoiled,
        "answered": 20 - len(bad),
        "unusable": 4 * spoiled + len(bad),
        "unknown": 0,
        "refunded": 0,
    }
    again = one_at_a_time(platform, ledger).ask(distinct(24))
    assert np.flatnonzero(again.status == Status.FAILED).tolist() == list(bad)


def test_rows_without_a_usable_answer_are_charged_and_asked_again(ledger: Ledger) -> None:
    """Of a request with failed rows the other rows are kept, the failed ones stay charged and are asked next time."""

    def every_other(_number: int, images: Images) -> Answers:
        good = truth(images)
        return Answers.concatenate(
            [answers_at(good, i) if i % 2 else Answers.failed(1, 3) for i in range(4)], classes=3
        )

    answers = one_at_a_time(ScriptedPlatform(every_other), ledger).ask(distinct(8))
    assert answers.status.tolist() == [2, 0] * 4
    assert totals(ledger) == {"charged": 8, "answered": 4, "unusable": 4, "unknown": 0, "refunded": 0}
    healthy = ScriptedPlatform()
    agree(one_at_a_time(healthy, ledger).ask(distinct(8)), truth(distinct(8)))
    np.testing.assert_array_equal(np.concatenate([a.images for a in healthy.attempts]), distinct(8)[::2])


def test_a_platform_that_stops_answering_ends_the_asking(ledger: Ledger) -> None:
    """So many images in a row without an answer raise; what came before is in the ledger."""
    platform = failing(answer_error, at=lambda number: number >= 5)
    with pytest.raises(AnswerError):
        one_at_a_time(platform, ledger).ask(distinct(100))
    assert len(platform.attempts) == 5 + 1 + GIVE_UP_AFTER
    assert totals(ledger)["answered"] == 20


def test_failures_apart_do_not_end_the_asking(ledger: Ledger) -> None:
    """Failures with answers in between never add up to giving up."""
    bad = [i for i in range(60) if i % GIVE_UP_AFTER]
    answers = one_at_a_time(unreadable(*bad), ledger).ask(distinct(60))
    assert np.flatnonzero(~answers.answered).tolist() == bad


def test_a_refused_key_stops_at_once(ledger: Ledger) -> None:
    """A 401 in the middle is not retried, no request follows it, and everything answered is in the ledger."""
    platform = failing(
        lambda: transport_error(ChargeState.REFUNDED, retryable=False, status=401), at=lambda number: number == 3
    )
    with pytest.raises(PlatformError, match="status 401, member ada, attempt 1"):
        one_at_a_time(platform, ledger).ask(distinct(40))
    assert len(platform.attempts) == 4
    assert totals(ledger) == {"charged": 12, "answered": 12, "unusable": 0, "unknown": 0, "refunded": 4}
    healthy = ScriptedPlatform()
    agree(one_at_a_time(healthy, ledger).ask(distinct(40)), truth(distinct(40)))
    assert healthy.queries == 28


@pytest.mark.parametrize(
    ("error", "refunded"),
    [(transport_error(ChargeState.REFUNDED, retryable=False, status=401), True), (ZeroDivisionError("bug"), False)],
    ids=["401", "bug"],
)
def test_answers_in_flight_at_the_stop_are_kept(error: Exception, refunded: bool, ledger: Ledger) -> None:
    """Requests under way when another one ends the asking are waited for, and their answers are in the ledger."""
    refused = threading.Event()

    def script(number: int, images: Images) -> Answers:
        if number == 1:
            barrier.wait(30)
            refused.set()
            raise error
        if number:
            barrier.wait(30)
            assert refused.wait(30)
            # Long enough for the asking to end, if it did not wait.
            time.sleep(0.05)
        return truth(images)

    barrier = threading.Barrier(4)
    platform = ScriptedPlatform(script)
    with pytest.raises(type(error), match=r"401|bug"):
        QueryPool(platform, ledger, ADA, pace=Pace(concurrency=8, batch=2, policy=patient())).ask(distinct(12))
    assert len(platform.attempts) == 5
    charged, unknown = (8, 0) if refunded else (10, 2)
    expected = {"charged": charged, "answered": 8, "unusable": 0, "unknown": unknown, "refunded": 2 - unknown}
    assert totals(ledger) == expected


class _Counting(Reporter):
    """Sets an event when the second request has ended."""

    def __init__(self) -> None:
        super().__init__(None)
        self.second = threading.Event()
        self.ended = 0

    @contextmanager
    def _shown(self, tally: Tally, at_most: bool) -> Iterator[Advance]:
        """Count the calls."""

        def advance(n: int, *, share: float | None = None, now: str | None = None) -> None:
            self.ended += 1
            if self.ended == 2:
                self.second.set()

        yield advance


def test_a_request_that_waits_for_its_retry_stops_with_the_others(ledger: Ledger) -> None:
    """A request in the wait before its retry when the asking ends sends, and is charged, no further attempt."""
    reporter, waiting = _Counting(), threading.Event()

    def sleep(_seconds: float) -> None:
        waiting.set()
        assert reporter.second.wait(30)

    def script(number: int, images: Images) -> Answers:
        if number == 0:
            return truth(images)
        if np.array_equal(images[0], distinct(1, start=2)[0]):
            raise transport_error(ChargeState.UNKNOWN, status=503)
        assert waiting.wait(30)
        raise transport_error(ChargeState.REFUNDED, retryable=False, status=401)

    platform = ScriptedPlatform(script)
    pool = QueryPool(
        platform, ledger, ADA, pace=Pace(concurrency=4, batch=2, policy=patient(9, sleep=sleep)), reporter=reporter
    )
    with pytest.raises(PlatformError, match="status 401"):
        pool.ask(distinct(6))
    assert len(platform.attempts) == 3
    assert totals(ledger) == {"charged": 4, "answered": 2, "unusable": 0, "unknown": 2, "refunded": 2}


def test_retries_beyond_a_quota_are_paid_by_another_member(ledger: Ledger) -> None:
    """When retries have used up the payer's quota, the member with most left pays the next, under their own key."""
    platform = failing(lambda: transport_error(ChargeState.UNKNOWN), at=lambda number: number < 2)
    members = [Member("ada", 2, "TTCA_KEY_A"), Member("ben", 5, "TTCA_KEY_B"), Member("cem", 9, "TTCA_KEY_C")]
    agree(one_at_a_time(platform, ledger, members).ask(distinct(7)), truth(distinct(7)))
    first = [a.credential for a in platform.attempts if a.request_id == platform.attempts[0].request_id]
    assert [(c.member, c.key_variable) for c in first] == [("ada", "TTCA_KEY_A")] * 2 + [("cem", "TTCA_KEY_C")]
    assert [(b.member, b.charged, b.answered, b.unknown) for b in ledger.balances()] == [
        ("ada", 2, 0, 2),
        ("ben", 2, 2, 0),
        ("cem", 5, 5, 0),
    ]


def test_retries_that_nobody_can_pay_end_the_asking(ledger: Ledger) -> None:
    """When no member can pay a retry, or the cap forbids it, QuotaError comes and no quota is exceeded."""
    for cap in (None, 4):
        platform = failing(lambda: transport_error(ChargeState.UNKNOWN))
        with fresh_ledger() as other:
            pool = one_at_a_time(platform, other, [Member("ada", 4), Member("ben", 4 if cap else 1)], cap=cap)
            with pytest.raises(QuotaError):
                pool.ask(distinct(4))
            assert totals(other)["unknown"] == totals(other)["charged"] == platform.queries
            assert all(b.charged <= b.quota for b in other.balances())
            assert cap is None or totals(other)["charged"] <= cap


@pytest.mark.parametrize(
    "answers",
    [Answers.failed(3, 3), Answers.failed(5, 3), truth(distinct(4))],
    ids=["a row too few", "a row too many", "classes"],
)
def test_answers_about_something_else_are_not_believed(answers: Answers, ledger: Ledger) -> None:
    """Another number of rows or classes than asked for is an unreadable answer: charged, and never in the ledger."""
    if len(answers) == 4:
        answers = Answers(answers.status, answers.labels * 0, answers.scores[:, :1], answers.resolution)
    platform = ScriptedPlatform(lambda _number, _images: answers)
    with pytest.raises(AnswerError, match="Expected answers about 1 images and 3 classes"):
        one_at_a_time(platform, ledger).ask(distinct(8))
    assert len(platform.attempts) == 1 + GIVE_UP_AFTER
    assert totals(ledger) == {"charged": 7, "answered": 0, "unusable": 7, "unknown": 0, "refunded": 0}
    agree(one_at_a_time(ScriptedPlatform(), ledger).ask(distinct(8)), truth(distinct(8)))


@pytest.mark.parametrize("number", [0, 2])
def test_a_bug_in_a_platform_passes_through_and_stays_unknown(number: int, ledger: Ledger) -> None:
    """An error outside the tree is not swallowed; its attempt counts as unknown, the rest is in the ledger."""
    platform = failing(lambda: ZeroDivisionError("bug"), at=lambda n: n == number)
    with pytest.raises(ZeroDivisionError, match="bug"):
        one_at_a_time(platform, ledger).ask(distinct(20))
    assert len(platform.attempts) == number + 1
    assert totals(ledger)["unknown"] == 4
    assert totals(ledger)["answered"] == totals(ledger)["charged"] - 4


def test_a_ledger_of_other_classes_is_not_mixed_in(ledger: Ledger) -> None:
    """Answers about another number of classes under the same key are a LedgerError, before anything is sent."""
    platform = ScriptedPlatform()
    one_at_a_time(platform, ledger).ask(distinct(4))
    fewer = ScriptedPlatform()
    info = fewer.info

    class _Same(type(info)):  # type: ignore[misc]
        @property
        def fingerprint(self) -> str:
            return info.fingerprint

    fewer._info = _Same("p", CLASSES[:2], IMAGE_SHAPE, info.identity)
    with pytest.raises(LedgerError, match="Expected answers about 2 classes"):
        one_at_a_time(fewer, ledger).ask(distinct(4))
    assert fewer.attempts == []


# -- whatever happens -------------------------------------------------------------------------------------------

ENDS = st.sampled_from(["answer", "answer", "answer", "rows", "refused", "unknown", "charged", "answer error", "401"])


@examples(60)
@given(
    n=st.integers(1, 24),
    quotas=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    cap=st.none() | st.integers(1, 60),
    batch=st.integers(1, 5),
    workers=st.integers(1, 3),
    ends=st.lists(ENDS, max_size=30),
    calls=st.integers(1, 3),
)
def test_whatever_the_platform_does_the_books_are_right(
    n: int, quotas: list[int], cap: int | None, batch: int, workers: int, ends: list[str], calls: int
) -> None:
    """For any script of failures: answers are true, quotas hold, nothing accepted is asked again, the sums agree.

    Accepted ≤ processed by the platform ≤ charged, and every charge is answered, unusable or unknown.
    """
    processed: list[bytes] = []
    refused = 0
    lock = threading.Lock()

    def script(number: int, images: Images) -> Answers:
        nonlocal refused
        end = ends[number] if number < len(ends) else "answer"
        if end in ("refused", "401"):
            with lock:
                refused += len(images)
            raise transport_error(ChargeState.REFUNDED, retryable=end == "refused")
        with lock:
            again = {i.tobytes() for i in images} & accepted
            processed.extend(i.tobytes() for i in images)
        assert not again
        if end in ("unknown", "charged"):
            raise transport_error(ChargeState(end))
        if end == "answer error":
            raise answer_error()
        answers = truth(images)
        if end == "rows":
            answers = Answers.concatenate(
                [Answers.failed(1, 3), *(answers_at(answers, i) for i in range(1, len(images)))], classes=3
            )
        with lock:
            accepted.update(i.tobytes() for i, ok in zip(images, answers.resolved, strict=True) if ok)
        return answers

    accepted: set[bytes] = set()
    images = distinct(n)
    expected = truth(images)
    members = [Member(f"m{i}", q) for i, q in enumerate(quotas)]
    with ExitStack() as stack:
        ledger = stack.enter_context(fresh_ledger())
        platform = ScriptedPlatform(script)
        for _ in range(calls):
            pool = QueryPool(
                platform,
                ledger,
                members,
                cap=cap,
                pace=Pace(batch=batch, concurrency=batch * workers, policy=patient()),
            )
            try:
                answers = pool.ask(images)
            except (PlatformError, QuotaError):
                continue
            ok: NDArray[np.bool_] = answers.resolved
            np.testing.assert_array_equal(answers.scores[ok], expected.scores[ok])
            np.testing.assert_array_equal(answers.labels[ok], expected.labels[ok])
            assert {i.tobytes() for i in images[ok]} == accepted
        books = totals(ledger)
        known, _ = ledger.lookup(
            ledger.keys(images, fingerprint=platform.info.fingerprint, epoch="pool"), classes=len(CLASSES)
        )
        assert {i.tobytes() for i in images[known]} == accepted
        assert books["answered"] == len(accepted) <= len(processed) == books["charged"]
        assert books["refunded"] == refused
        assert books["charged"] == books["answered"] + books["unusable"] + books["unknown"]
        assert all(b.charged <= b.quota for b in ledger.balances())
        assert cap is None or books["charged"] <= cap
        assert platform.most_in_flight <= batch * workers


# -- rates ------------------------------------------------------------------------------------------------------


class Hours:
    """A wall clock and the sleeping that moves it, for any number of threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        with self._lock:
            self.now += seconds
            self.slept.append(seconds)


def test_a_rate_is_waited_for_and_never_exceeded() -> None:
    """With five queries a minute, twelve queries come in three windows, and waits add up to what the rate demands."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        members = [Member("ada", 100, per_minute=5)]
        # One request at a time: two that wait together would each move this clock.
        pool = QueryPool(
            ScriptedPlatform(), ledger, members, pace=Pace(concurrency=4, batch=4, policy=patient(sleep=hours.sleep))
        )
        assert pool.seconds(12) == 120
        agree(pool.ask(distinct(12)), truth(distinct(12)))
        assert 119 <= sum(hours.slept) <= 121
        assert totals(ledger)["charged"] == 12


def test_a_member_whose_rate_has_room_pays_instead() -> None:
    """Nobody waits for one member while another may pay."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        members = [Member("ada", 100, per_day=2), Member("ben", 50)]
        pool = QueryPool(
            ScriptedPlatform(), ledger, members, pace=Pace(concurrency=4, batch=4, policy=patient(sleep=hours.sleep))
        )
        agree(pool.ask(distinct(30)), truth(distinct(30)))
        assert hours.slept == []
        assert {b.member: b.charged for b in ledger.balances()} == {"ada": 2, "ben": 28}


def test_a_platform_at_its_limit_loses_nothing_and_is_asked_no_slower_than_it_allows() -> None:
    """However often requests are refused for coming too fast, each is answered, in about the time the limit takes."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        model = LocalPlatform(
            lambda images: np.tile([0.25, 0.75], (len(images), 1)), classes=("a", "b"), image_shape=(2, 2, 3)
        )
        platform = WithHabits(model, Habits(rate_limit_per_s=10), clock=hours)
        policy = RetryPolicy(base_s=0.0, sleep=hours.sleep, clock=hours)
        pool = QueryPool(platform, ledger, [Member("ada", 500)], pace=Pace(concurrency=1, policy=policy))
        began = hours.now
        images = np.arange(200, dtype=np.uint8).repeat(12).reshape(200, 2, 2, 3)
        assert pool.ask(images).answered.all()
        # The limit's first ten come at once, and one every tenth of a second from then on.
        assert 18.9 <= hours.now - began <= 18.9 * 1.06
        (ada,) = ledger.balances()
        assert (ada.charged, ada.unknown) == (200, 0)


class Limited(ScriptedPlatform):
    """A platform that brings a throttle, as one over HTTP does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.throttle = Throttle(clock=clock)


def test_while_one_key_must_wait_another_pays() -> None:
    """A member whose key is held back stands in nobody's way: the others' keys ask, and nobody waits."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        platform = Limited(hours)
        platform.throttle.hold("TTCA_KEY_ADA", 50.0)
        members = [Member("ada", 30, "TTCA_KEY_ADA"), Member("ben", 30, "TTCA_KEY_BEN")]
        policy = patient(sleep=hours.sleep)
        agree(
            QueryPool(platform, ledger, members, pace=Pace(concurrency=1, policy=policy)).ask(distinct(20)),
            truth(distinct(20)),
        )
        assert hours.slept == []
        assert {a.credential.key_variable for a in platform.attempts} == {"TTCA_KEY_BEN"}


def test_a_stated_limit_is_shared_by_all_who_share_a_key() -> None:
    """Members without keys of their own count as one for the platform, and keep to its limit together."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        platform = Limited(hours)
        platform.throttle.keep_to("", {10.0: 4})
        members = [Member("ada", 30), Member("ben", 30)]
        pool = QueryPool(platform, ledger, members, pace=Pace(concurrency=1, policy=patient(sleep=hours.sleep)))
        agree(pool.ask(distinct(13)), truth(distinct(13)))
        assert sum(hours.slept) == pytest.approx(30.0)
        assert {b.member: b.charged for b in ledger.balances()} == {"ada": 7, "ben": 6}


def test_a_platform_that_allows_no_more_today_ends_the_asking_at_once() -> None:
    """A limit used up for hours is told with the time to come back; what came is kept, and no wait is paid for."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        platform = Limited(hours)
        platform.throttle.keep_to("", {86400.0: 5})
        pool = QueryPool(
            platform, ledger, [Member("ada", 30)], pace=Pace(concurrency=1, policy=patient(sleep=hours.sleep))
        )
        with pytest.raises(TransportError, match="Run this again after 2"):
            pool.ask(distinct(9))
        assert hours.slept == []
        assert totals(ledger)["charged"] == totals(ledger)["answered"] == 5


def test_a_wait_that_is_too_long_says_when_to_come_back() -> None:
    """A day's rate that is used up ends the asking with the hour to return; what came is kept and completed then."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        pool = QueryPool(
            ScriptedPlatform(),
            ledger,
            [Member("ada", 100, per_day=6)],
            pace=Pace(batch=2, policy=patient(sleep=hours.sleep)),
        )
        with pytest.raises(QuotaError, match=r"has room in 86400 s, longer than the 60 s .* Run this again after 20"):
            pool.ask(distinct(9))
        assert totals(ledger)["answered"] == 6
        assert hours.slept == []
        hours.now += 86400
        agree(pool.ask(distinct(9)), truth(distinct(9)))
        assert totals(ledger)["charged"] == 9


@pytest.mark.parametrize(
    ("per_day", "batch", "members"), [(25, 16, 1), (10, 16, 1), (7, 4, 3), (9, 4, 2), (1, 16, 2), (33, 8, 1)]
)
def test_a_day_leaves_no_query_unused(per_day: int, batch: int, members: int) -> None:
    """Requests shrink to what a day leaves, so that all of it is asked in as many days as the quotas need, not more."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        payers = [Member(f"m-{i}", 100, per_day=per_day) for i in range(members)]
        pace = Pace(concurrency=batch, batch=batch, policy=patient(sleep=hours.sleep))
        platform = ScriptedPlatform()
        pool = QueryPool(platform, ledger, payers, pace=pace)
        images = distinct(60)
        told = pool.seconds(60)
        assert told is not None
        began, day, paid = hours.now, 0, 0
        while not pool.in_hand(images).answered.all():
            try:
                pool.ask(images)
            except RateError as error:
                day, wait = day + 1, error.come_back_s or 0.0
            else:
                break
            new = totals(ledger)["charged"]
            assert new - paid == per_day * members
            paid = new
            hours.now += wait
        assert day == -(-60 // (per_day * members)) - 1
        assert hours.now - began == pytest.approx(told, abs=1.0)
        assert totals(ledger)["charged"] == totals(ledger)["answered"] == platform.queries == 60


def test_requests_are_no_larger_than_a_rate() -> None:
    """A member with three queries a second sends at most three images at once."""
    hours = Hours()
    with fresh_ledger(clock=hours) as ledger:
        platform = ScriptedPlatform()
        members = [Member("ada", 20, per_second=3), Member("ben", 20)]
        pool = QueryPool(
            platform, ledger, members, pace=Pace(concurrency=16, batch=8, policy=patient(sleep=hours.sleep))
        )
        pool.ask(distinct(20))
        sizes = {m: {len(a.images) for a in platform.attempts if a.credential.member == m} for m in ("ada", "ben")}
        assert max(sizes["ada"]) <= 3
        assert max(sizes["ben"]) == 8


def test_the_time_told_beforehand_follows_the_pace_so_far(ledger: Ledger) -> None:
    """Without rates nothing is known before the first answer; after it, queries take as long as those before."""
    hours = Hours()

    def slow(_number: int, images: Images) -> Answers:
        hours.now += 3.0
        return truth(images)

    with fresh_ledger(clock=hours) as timed:
        pool = one_at_a_time(ScriptedPlatform(slow), timed)
        assert pool.seconds(100) is None
        pool.ask(distinct(8))
        assert pool.seconds(100) == pytest.approx(75)


def test_a_request_asleep_wakes_when_the_asking_ends(ledger: Ledger) -> None:
    """A request that was told to come back in a minute does not keep a failed asking open for that minute."""
    both_sent = threading.Barrier(2)

    def script(number: int, images: Images) -> Answers:
        if number:
            both_sent.wait(30)
        if number == 1:
            error = transport_error(ChargeState.REFUNDED, status=429)
            error.retry_after = 50.0
            raise error
        if number:
            raise transport_error(ChargeState.REFUNDED, retryable=False, status=401)
        return truth(images)

    began = time.monotonic()
    with pytest.raises(PlatformError, match="status 401"):
        QueryPool(ScriptedPlatform(script), ledger, ADA, pace=Pace(concurrency=4, batch=2)).ask(distinct(6))
    assert time.monotonic() - began < 25


# -- single flight, owners, actions -----------------------------------------------------------------------------


def test_threads_that_ask_the_same_at_once_pay_once(ledger: Ledger) -> None:
    """Four threads with the same images get the same answers, and the platform is asked once."""
    begun, go = threading.Event(), threading.Event()

    def script(_number: int, images: Images) -> Answers:
        begun.set()
        assert go.wait(30)
        return truth(images)

    platform = ScriptedPlatform(script)
    pool = one_at_a_time(platform, ledger)
    got: list[Answers] = []
    threads = [threading.Thread(target=lambda: got.append(pool.ask(distinct(10)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(got) == 4
    for answers in got:
        agree(answers, truth(distinct(10)))
    assert platform.queries == 10
    assert totals(ledger)["charged"] == 10


def test_a_thread_that_fails_leaves_its_queries_to_the_other(ledger: Ledger) -> None:
    """When the one that asks is refused, the one that waited asks for itself."""
    begun, go = threading.Event(), threading.Event()

    def script(number: int, images: Images) -> Answers:
        if number == 0:
            begun.set()
            assert go.wait(30)
            raise transport_error(ChargeState.REFUNDED, retryable=False, status=401)
        return truth(images)

    pool = one_at_a_time(ScriptedPlatform(script), ledger)
    errors: list[Exception] = []

    def first() -> None:
        try:
            pool.ask(distinct(4))
        except PlatformError as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)
    second = threading.Timer(0.0, go.set)
    second.start()
    agree(pool.ask(distinct(4)), truth(distinct(4)))
    thread.join(30)
    assert len(errors) == 1


def test_owners_are_written_down_and_can_be_forgotten(ledger: Ledger) -> None:
    """Whose image a query is about is booked, whoever pays; forgetting them asks their images again."""
    platform = ScriptedPlatform()
    pool = one_at_a_time(platform, ledger)
    with pytest.raises(ConfigError, match="one owner for each of 6 images, got 1"):
        pool.ask(distinct(6), owners=["eve"])
    pool.ask(distinct(6), owners=["eve", "ada"] * 3)
    gone = ledger.forget("eve")
    assert (gone.images, gone.answers) == (3, 3)
    assert pool.cost(distinct(6)).queries == 3


def test_actions_that_share_a_ledger_have_their_own_bills(ledger: Ledger) -> None:
    """Queries are booked under the action that asked; what another one asked is free, and not on the bill."""
    first, second = (one_at_a_time(ScriptedPlatform(), ledger, action=name) for name in ("first", "second"))
    first.ask(distinct(6))
    second.ask(distinct(10), purpose="audit")
    assert ledger.paid(action="first") == {"pool": 6}
    assert ledger.paid(action="second") == {"audit": 4}
    assert ledger.paid() == {"pool": 6, "audit": 4}


def test_two_pools_on_one_ledger_agree(ledger: Ledger) -> None:
    """Two programs that ask the same at one moment both get the accepted answers, and each is paid once."""
    platforms = [ScriptedPlatform(), ScriptedPlatform()]
    got: dict[int, Answers] = {}

    def ask(which: int, opened: Ledger) -> None:
        got[which] = one_at_a_time(platforms[which], opened, [Member("ada", 60)]).ask(distinct(30))

    with reopen(ledger) as other:
        threads = [threading.Thread(target=ask, args=pair) for pair in enumerate((ledger, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for answers in got.values():
        agree(answers, truth(distinct(30)))
    assert len(got) == 2
    assert sum(p.queries for p in platforms) == 30
    assert totals(ledger) == {"charged": 30, "answered": 30, "unusable": 0, "unknown": 0, "refunded": 0}
    assert ledger.asked_and_answered() == (30, 30)

"""Tests of claims: nothing is paid twice by two programs on one ledger, and nothing is held by the dead."""

from __future__ import annotations

import dataclasses
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._paid_twice import paid_though_answered
from tests.examples import examples
from tests.pooling.places import BACKENDS, fresh_ledger, fresh_place, reopen, use
from tests.pooling.scripted import KEYS, ScriptedPlatform, distinct, labels, patient, transport_error, truth
from ttca.answers import Answers
from ttca.errors import ChargeState, QuotaError
from ttca.images import Images
from ttca.platforms.retry import RetryPolicy
from ttca.pooling import schema
from ttca.pooling.booking import Bill, Charge, Settlement
from ttca.pooling.claims import Claim, Taken, is_gone, this_process
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.pooling.quotas import Quota

HOME = Path(__file__).resolve().parents[2]
ELSEWHERE = "7 1234 another-machine"


@pytest.fixture(params=BACKENDS, scope="module", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test on both kinds of database."""
    with use(request.param):
        yield


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def ask_for(
    ledger: Ledger, keys: list[bytes], *, holder: str = ELSEWHERE, seconds: float = 60.0, member: str = "ada"
) -> Charge | Taken | QuotaError:
    """Book one request that nobody else may make."""
    bill = Bill(member, keys, os.urandom(8).hex(), 1, "pool", claim=Claim(holder, seconds))
    (done,) = ledger.book([bill], [])
    return done


def claimed(ledger: Ledger) -> int:
    """Return how many queries are claimed, by anybody."""
    count = sa.select(sa.func.count()).select_from(schema.claims)
    return ledger.database.run(lambda connection: int(connection.scalar(count) or 0))


# -- who gets a query -------------------------------------------------------------------------------------------


def test_a_query_in_flight_or_answered_is_not_charged_again() -> None:
    """A second request hears which of its queries are answered and which are busy, and pays for none."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10})
        first = ask_for(ledger, KEYS[:4])
        assert isinstance(first, Charge)
        assert ask_for(ledger, KEYS[3:5]) == Taken(frozenset(), frozenset(KEYS[3:4]))
        ledger.settle(first, KEYS[:4], Answers.concatenate([labels(0, 1, 2), Answers.failed(1, 3)], classes=3))
        second = ask_for(ledger, KEYS[3:5])
        assert isinstance(second, Charge)
        assert ask_for(ledger, KEYS[2:6]) == Taken(frozenset(KEYS[2:3]), frozenset(KEYS[3:5]))
        assert ledger.in_flight(KEYS[:8]) == set(KEYS[3:5])
        assert ledger.balances()[0].charged == 6 == 4 + claimed(ledger)


def test_what_somebody_else_pays_needs_no_quota() -> None:
    """Where the quota is used up by the very queries asked for, the answer is who has them, not that it is empty."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 2})
        assert isinstance(ask_for(ledger, KEYS[:2]), Charge)
        assert ask_for(ledger, KEYS[:2]) == Taken(frozenset(), frozenset(KEYS[:2]))
        assert isinstance(ask_for(ledger, KEYS[2:3]), QuotaError)
        assert claimed(ledger) == 2


def test_a_request_that_is_refused_holds_nothing() -> None:
    """Neither a quota, a rate nor somebody else's query leaves claims of a request that was not charged."""
    with fresh_ledger(clock=Clock()) as ledger:
        ledger.enrol({"ada": 3, "ben": Quota(9, per_minute=1)})
        assert isinstance(ask_for(ledger, KEYS[:1], member="ben"), Charge)
        for keys, member in ((KEYS[1:6], "ada"), (KEYS[1:2], "ben"), (KEYS[:3], "ada"), (KEYS[1:2], "eve")):
            assert not isinstance(ask_for(ledger, keys, member=member), Charge)
            assert claimed(ledger) == 1
        assert isinstance(ask_for(ledger, KEYS[1:4]), Charge)


@pytest.mark.parametrize("state", list(ChargeState))
def test_a_request_that_ends_frees_its_queries(state: ChargeState) -> None:
    """However a request ended, its queries without an answer can be claimed anew at once."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10})
        first = ask_for(ledger, KEYS[:2])
        assert isinstance(first, Charge)
        ledger.abandon(first, state, detail="why")
        assert claimed(ledger) == 0
        assert isinstance(ask_for(ledger, KEYS[:2]), Charge)


def test_whoever_settles_late_frees_nobody_elses_claim() -> None:
    """A request whose claim ran out and went to another one leaves that one's claim alone."""
    clock = Clock()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 10})
        first = ask_for(ledger, KEYS[:1])
        clock.now += 61
        second = ask_for(ledger, KEYS[:1])
        assert isinstance(first, Charge)
        assert isinstance(second, Charge)
        ledger.settle(first, KEYS[:1], Answers.failed(1, 3))
        assert ask_for(ledger, KEYS[:1]) == Taken(frozenset(), frozenset(KEYS[:1]))


def test_who_is_forgotten_leaves_no_claim() -> None:
    """The names of a forgotten member's images leave the claims too."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10})
        bill = Bill("ada", KEYS[:2], "r", 1, "pool", None, ["eve", "ada"], Claim(ELSEWHERE, 60.0))
        ledger.book([bill], [])
        ledger.forget("eve")
        assert ledger.in_flight(KEYS[:2]) == {KEYS[1]}
        assert claimed(ledger) == 1


BILLS = st.tuples(st.just("bill"), st.sets(st.integers(0, 7), min_size=1, max_size=5), st.booleans())
ENDS = st.tuples(st.sampled_from(["answer", "fail", *ChargeState]), st.integers(0, 20), st.just(False))
STEPS = st.lists(BILLS | ENDS | st.tuples(st.just("wait"), st.integers(1, 40), st.just(False)), max_size=25)


@examples(60)
@given(steps=STEPS, together=st.integers(1, 3))
def test_a_query_is_paid_once_at_a_time_and_never_after_its_answer(steps: list[Any], together: int) -> None:
    """For any order of requests, outcomes and waits, who gets what is what a plain list of the same events says."""
    clock, serial = Clock(), 0
    answered: set[bytes] = set()
    holding: dict[bytes, tuple[int, float]] = {}
    open_: list[tuple[Charge, list[bytes]]] = []
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 1000})
        waiting: list[Bill] = []
        for step in [*steps, ("wait", 0, False)]:
            if step[0] == "bill":
                serial += 1
                claim = Claim(ELSEWHERE, 30.0) if step[2] else None
                waiting.append(Bill("ada", [KEYS[i] for i in sorted(step[1])], str(serial), 1, "pool", claim=claim))
                if len(waiting) < together:
                    continue
            for bill, done in zip(waiting, ledger.book(waiting, []), strict=True):
                keys = list(bill.keys)
                busy = {k for k in keys if k in holding and holding[k][1] > clock.now} - answered
                if bill.claim is not None and (busy or answered & set(keys)):
                    # Several bills at once: one that was turned away may have stood in another's way.
                    assert isinstance(done, Taken)
                    assert done.answered == answered & set(keys)
                    assert done.busy >= busy
                elif isinstance(done, Charge):
                    open_.append((done, keys))
                    if bill.claim is not None:
                        holding |= dict.fromkeys(keys, (done.request, clock.now + 30))
                else:
                    assert isinstance(done, Taken)
                    assert len(waiting) > 1
                    assert not done.answered
            waiting = []
            if step[0] == "wait":
                clock.now += step[1]
            elif step[0] != "bill" and open_:
                charge, keys = open_.pop(step[1] % len(open_))
                holding = {k: v for k, v in holding.items() if v[0] != charge.request}
                if step[0] == "answer":
                    ledger.settle(charge, keys, labels(*[1] * len(keys)))
                    answered.update(keys)
                elif step[0] == "fail":
                    ledger.settle(charge, keys, Answers.failed(len(keys), 3))
                else:
                    ledger.abandon(charge, ChargeState(step[0]), detail="why")
            alive = {k for k, (_, until) in holding.items() if until > clock.now}
            assert ledger.in_flight(KEYS[:8]) == alive


def test_programs_that_claim_at_one_moment_never_share_a_query() -> None:
    """Threads with connections of their own, in whatever order they ask, are charged for each query once in all."""
    with fresh_ledger() as ledger, ExitStack() as stack:
        ledger.enrol({f"m{i}": 10_000 for i in range(4)})
        keys = [bytes([i, j]) * 16 for i in range(8) for j in range(25)]
        got: list[bytes] = []
        failures: list[BaseException] = []
        start = threading.Barrier(4)

        def greedy(which: int, mine: Ledger) -> None:
            order = random.Random(which).sample(keys, len(keys))
            start.wait()
            try:
                for i in range(0, len(order), 5):
                    left = order[i : i + 5]
                    while left:
                        done = ask_for(mine, left, member=f"m{which}")
                        if isinstance(done, Charge):
                            got.extend(left)
                            break
                        assert isinstance(done, Taken)
                        left = [k for k in left if k not in done.answered | done.busy]
            except BaseException as error:
                failures.append(error)

        opened = [stack.enter_context(reopen(ledger)) for _ in range(4)]
        threads = [threading.Thread(target=greedy, args=pair) for pair in enumerate(opened)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        # One that was turned away may have been in the way of another: a query may be left, never paid twice.
        assert len(got) == len(set(got)) == sum(b.charged for b in ledger.balances()) == claimed(ledger)
        assert len(got) > len(keys) / 2


# -- until when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "passed", "free"),
    [
        (ELSEWHERE, 0.0, False),
        (ELSEWHERE, 59.9, False),
        (ELSEWHERE, 60.0, True),
        ("lease abc", 59.9, False),
        ("lease abc", 60.0, True),
        ("", 59.9, False),
        ("99999999999999999999 0 x", 59.9, False),
        ("ours", 59.9, False),
        ("ours", 60.0, True),
        ("dead", 0.0, True),
        ("dead", -500.0, True),
    ],
)
def test_a_claim_ends_with_its_time_or_with_its_process(holder: str, passed: float, free: bool) -> None:
    """Claims of processes that live, or that nothing is known of, end in time; those of a dead one are free at once."""
    clock = Clock()
    names = {"ours": this_process, "dead": _dead}
    name = names[holder]() if holder in names else holder
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 10})
        assert isinstance(ask_for(ledger, KEYS[:2], holder=name), Charge)
        clock.now += passed
        assert ledger.in_flight(KEYS[:3]) == (set() if free else set(KEYS[:2]))
        assert isinstance(ask_for(ledger, KEYS[1:3]), Charge) == free


def _dead() -> str:
    """Return the name of a process of this machine that has ended."""
    said = subprocess.run(
        [sys.executable, "-c", "from ttca.pooling.claims import this_process; print(this_process())"],
        cwd=HOME, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return said.stdout.strip()


def test_a_clock_set_back_holds_a_query_no_longer_than_its_own_time() -> None:
    """A claim that then lies days ahead ends as long after it was first met as it was meant to last."""
    clock = Clock(10**6)
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 10})
        assert isinstance(ask_for(ledger, KEYS[:1]), Charge)
        clock.now -= 5 * 86400
        assert isinstance(ask_for(ledger, KEYS[:1]), Taken)
        assert ledger.in_flight(KEYS[:1]) == {KEYS[0]}
        clock.now += 59
        assert isinstance(ask_for(ledger, KEYS[:1]), Taken)
        clock.now += 1
        assert ledger.in_flight(KEYS[:1]) == set()
        assert isinstance(ask_for(ledger, KEYS[:1]), Charge)


def test_a_process_is_known_by_more_than_its_number() -> None:
    """A living process is not gone; one that had its number before, was killed or is not yet buried, is."""
    assert not is_gone(this_process())
    number, _began, machine = this_process().split(" ", 2)
    assert int(number) == os.getpid()
    assert machine.startswith(socket.gethostname())
    if sys.platform == "linux":
        assert is_gone(f"{number} 1 {machine}")
    program = (
        "import time; from ttca.pooling.claims import this_process; print(this_process(), flush=True); time.sleep(99)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=HOME, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        try:
            assert not is_gone(name)
            assert not is_gone(f"{name}-of-another")
        finally:
            child.kill()
        if sys.platform == "linux":
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert is_gone(name)
    assert is_gone(name)


# -- pools ------------------------------------------------------------------------------------------------------


def test_two_pools_never_ask_the_same_query() -> None:
    """Two pools on one ledger with no query to spare get every answer, and the platforms one query for each image."""
    asked: list[int] = []

    def slow(_number: int, images: Images) -> Answers:
        asked.append(len(images))
        time.sleep(0.002)
        return truth(images)

    got: list[Answers] = []
    failures: list[BaseException] = []
    members = [Member("ada", 21), Member("ben", 18), Member("cem", 21)]
    with fresh_ledger() as ledger, reopen(ledger) as other:

        def ask(mine: Ledger, start: int) -> None:
            try:
                pool = QueryPool(ScriptedPlatform(slow), mine, members, pace=Pace(concurrency=12, batch=4))
                got.append(pool.ask(distinct(40, start=start)))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask, args=pair) for pair in ((ledger, 0), (other, 20))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [int(answers.answered.sum()) for answers in got] == [40, 40]
        assert sum(asked) == 60
        assert [b.charged for b in ledger.balances()] == [21, 18, 21]
        assert claimed(ledger) == 0


@pytest.mark.full_on_a_server
def test_what_another_machine_left_in_flight_is_asked_when_its_time_is_over() -> None:
    """The pool asks all else first, waits for the claim to end, and then asks that query after all."""
    clock = Clock()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.now += seconds

    policy = RetryPolicy(sleep=sleep, clock=clock, rng=random.Random(0))
    platform = ScriptedPlatform()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 100})
        keys = ledger.keys(distinct(6), fingerprint=platform.info.fingerprint, epoch="pool")
        assert isinstance(ask_for(ledger, keys[2:4], seconds=60.0), Charge)
        pool = QueryPool(platform, ledger, [Member("ada", 100)], pace=Pace(concurrency=4, batch=4, policy=policy))
        assert pool.ask(distinct(6)).answered.all()
        assert [len(a.images) for a in platform.attempts] == [4, 2]
        assert sum(waits) == pytest.approx(60, abs=0.2)


def test_a_fault_in_a_platform_frees_what_it_was_asked() -> None:
    """After an exception that no platform should raise, the same process asks again at once, without waiting."""
    waits: list[float] = []

    def script(number: int, images: Images) -> Answers:
        if number == 0:
            raise RuntimeError("a bug")
        return truth(images)

    with fresh_ledger() as ledger:
        pool = QueryPool(
            ScriptedPlatform(script), ledger, [Member("ada", 100)], pace=Pace(policy=patient(sleep=waits.append))
        )
        with pytest.raises(RuntimeError, match="a bug"):
            pool.ask(distinct(6))
        assert claimed(ledger) == 0
        assert pool.ask(distinct(6)).answered.all()
        assert waits == []
        assert ledger.balances()[0].unknown == 6


def test_what_another_took_between_two_tries_is_not_sent_again() -> None:
    """A request that was refunded is retried without what somebody else has had answered meanwhile."""
    with fresh_ledger() as ledger:

        def script(number: int, images: Images) -> Answers:
            if number == 0:
                raise transport_error(ChargeState.REFUNDED)
            return truth(images)

        def meanwhile(_seconds: float) -> None:
            charge = ask_for(ledger, keys[1:3])
            if isinstance(charge, Charge):
                ledger.settle(charge, keys[1:3], labels(0, 1))

        platform = ScriptedPlatform(script)
        keys = ledger.keys(distinct(4), fingerprint=platform.info.fingerprint, epoch="pool")
        pool = QueryPool(platform, ledger, [Member("ada", 100)], pace=Pace(policy=patient(sleep=meanwhile)))
        answers = pool.ask(distinct(4))
        assert [len(a.images) for a in platform.attempts] == [4, 2]
        assert answers.labels[1:3].tolist() == [0, 1]
        assert answers.answered.all()
        assert ledger.balances()[0].charged == 4


def test_settling_and_charging_in_one_transaction_frees_before_it_claims() -> None:
    """A query that failed can be claimed by a bill of the very booking that settles it."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10})
        first = ask_for(ledger, KEYS[:2])
        assert isinstance(first, Charge)
        bill = Bill("ada", KEYS[:2], "again", 1, "pool", claim=Claim(ELSEWHERE, 60.0))
        settlement = Settlement(first, KEYS[:2], Answers.concatenate([labels(1), Answers.failed(1, 3)], classes=3))
        (done,) = ledger.book([bill], [settlement])
        assert done == Taken(frozenset(KEYS[:1]), frozenset())
        (done,) = ledger.book([dataclasses.replace(bill, keys=KEYS[1:2])], [])
        assert isinstance(done, Charge)


# -- processes --------------------------------------------------------------------------------------------------


@pytest.mark.full_on_a_server
def test_four_processes_and_a_kill_pay_for_every_answer_once(tmp_path: Path) -> None:
    """Processes with overlapping images, one killed and started again, pay one query an image, plus the kill's."""
    n, concurrency, batch = 240, 8, 2
    (target, secret), log = fresh_place(tmp_path, "ledger"), tmp_path / "log"
    log.touch()

    def start(first: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.pooling.victim", target, str(secret), str(log)]
        command += [str(n), str(concurrency), str(batch), str(first)]
        return subprocess.Popen(command, cwd=HOME, text=True, stdout=subprocess.PIPE)

    programs = [start(60 * i) for i in range(4)]
    give_up = time.monotonic() + 120
    while len(log.read_text().split()) < 150:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    programs[0].kill()
    programs[0].communicate()
    began = time.monotonic()
    programs[0] = start(0)
    said = [program.communicate()[0] for program in programs]
    # Whatever the dead one held was free at once: its claims would have lasted for minutes.
    assert time.monotonic() - began < 60
    assert said == [f"{n}\n"] * 4
    images = n + 3 * 60
    with Ledger(target, secret=secret) as ledger:
        assert ledger.asked_and_answered() == (images, images)
        assert paid_though_answered(ledger) == 0
        charged = sum(b.charged for b in ledger.balances())
        assert charged - images == sum(b.unknown for b in ledger.balances()) <= concurrency
        assert images <= len(log.read_text().split()) <= charged

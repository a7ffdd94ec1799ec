"""Tests of the ledger: money, answers, keys, threads, processes, kills and damaged files."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Connection

from tests.examples import examples
from tests.pooling.places import BACKENDS, fresh_ledger, fresh_place, reopen, use
from tests.pooling.scripted import CLASSES, KEYS, ScriptedPlatform, distinct, labels, pay, truth
from ttca.answers import Answers, Status
from ttca.errors import ChargeState, LedgerError, QuotaError, RateError
from ttca.pooling.booking import Bill, Charge, Desk, Settlement
from ttca.pooling.consent import agree
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.pool import Member
from ttca.pooling.quotas import Quota
from ttca.pooling.schema import members, outcomes

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(params=BACKENDS, scope="module", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test on both kinds of database."""
    with use(request.param):
        yield


# -- money ------------------------------------------------------------------------------------------------------


def test_a_charge_is_on_disk_before_anything_is_sent() -> None:
    """Another reader of the file sees the attempts, as unknown, as soon as the charge returns."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5})
        pay(ledger, KEYS[:3])
        with reopen(ledger) as other:
            assert other.balances() == [Balance("ada", 5, 3, answered=0, unusable=0, unknown=3, refunded=0)]
            assert other.balances()[0].remaining == 2
            assert other.remaining() == {"ada": 2}


def test_quota_and_cap_hold_to_the_last_query() -> None:
    """A charge that would exceed the quota or the cap by one is refused whole, and costs nothing."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5, "ben": 5}, cap=7)
        pay(ledger, KEYS[:3])
        with pytest.raises(QuotaError, match="member 'ada' to have 3 queries left"):
            pay(ledger, KEYS[:3])
        pay(ledger, KEYS[:2])
        with pytest.raises(QuotaError, match="cap of 7 queries, but 3 more would make 8"):
            pay(ledger, KEYS[:3], member="ben")
        pay(ledger, KEYS[:2], member="ben")
        with pytest.raises(QuotaError):
            pay(ledger, KEYS[:1], member="ben")
        assert ledger.cap_remaining() == 0
        assert [b.charged for b in ledger.balances()] == [5, 2]
        assert ledger.paid() == {"pool": 7}


def test_two_spellings_of_a_name_are_one_member() -> None:
    """Whoever enrols, pays, is invited or is forgotten has one quota, whatever spelling the name came in."""
    with fresh_ledger() as ledger:
        ledger.enrol({"Zoe\u0308 ": 3})
        ledger.enrol({"Zo\u00eb": 3})
        ledger.charge(" Zo\u00eb", [b"1", b"2"], request_id="r", number=1, purpose="pool", owners=["ben", "ben "])
        with pytest.raises(QuotaError):
            ledger.charge("Zoe\u0308", [b"3", b"4"], request_id="s", number=1, purpose="pool")
        assert [(b.member, b.charged) for b in ledger.balances("Zoe\u0308")] == [("Zo\u00eb", 2)]
        assert ledger.member_of(ledger.invite("Zo\u00eb ")) == "Zo\u00eb"
        assert ledger.forget(" ben").images == 2
        assert ledger.forget("Zoe\u0308").alias
        with pytest.raises(QuotaError, match="every member once"):
            ledger.enrol({"ada": 3, "ada ": 4})
    assert Member("Zoe\u0308 ", 5) == Member("Zo\u00eb", 5)


def test_an_older_ledger_s_spelling_is_mended() -> None:
    """A member whom an earlier version wrote down with a space has paid what they paid, under their one name."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 3, "ben": 3})
        ledger.charge("ada", [b"1", b"2"], request_id="r", number=1, purpose="pool")
        old = sa.update(members).where(members.c.name == "ada").values(name="ada ")
        ledger.database.run(lambda connection: connection.execute(old), write=True)
        for _ in range(2):
            with reopen(ledger) as again:
                again.enrol({"ada": 3, "ben": 3})
                assert [(b.member, b.charged) for b in again.balances()] == [("ada", 2), ("ben", 0)]


def test_a_stranger_cannot_pay() -> None:
    """A member who never enrolled is refused."""
    with fresh_ledger() as ledger, pytest.raises(QuotaError, match="member 'eve'"):
        pay(ledger, KEYS[:1], member="eve")


def test_an_empty_request_is_refused() -> None:
    """A charge of no queries is an error, not a row without attempts."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5})
        with pytest.raises(LedgerError, match="at least one query"):
            pay(ledger, [])


@pytest.mark.parametrize("quota", [0, -1, 1.5, True, float("nan"), float("inf"), 2**63, "7"])
def test_odd_quotas_and_caps_are_refused(quota: Any) -> None:
    """A quota or a cap that is not a whole number of at least 1 is a sentence, and enrols nobody."""
    with fresh_ledger() as ledger:
        with pytest.raises(QuotaError, match="member 'ben'"):
            ledger.enrol({"ada": 3, "ben": quota})
        with pytest.raises(QuotaError, match="cap of at least 1"):
            ledger.enrol({"ada": 3}, cap=quota)
        assert ledger.balances() == []


def test_enrolling_again_changes_the_quota_and_keeps_what_was_paid() -> None:
    """A known member's quota is updated; one below what they have paid leaves nothing, and a cap can be lifted."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5}, cap=3)
        pay(ledger, KEYS[:3])
        ledger.enrol({"ada": 2}, overrule=True)
        assert ledger.remaining() == {"ada": 0}
        assert ledger.balances()[0].remaining == 0
        assert ledger.cap_remaining() is None
        ledger.enrol({"ada": 4}, overrule=True)
        assert ledger.remaining() == {"ada": 1}
        ledger.enrol({"ada": 4}, overrule=False)
        for changed, cap, sentence in (
            ({"ada": 5}, None, "quota of member 'ada'"),
            ({"ada": Quota(4, per_day=1)}, None, "per_day"),
        ):
            with pytest.raises(QuotaError, match=f"Expected {sentence}"):
                ledger.enrol(changed, cap=cap, overrule=False)
        ledger.enrol({"ben": 7}, cap=9, overrule=False)
        with pytest.raises(QuotaError, match=r"Expected the cap of the shared ledger .*, 9, got 10"):
            ledger.enrol({"ben": 7}, cap=10, overrule=False)
        ledger.enrol({"ben": 7}, overrule=False)
        assert ledger.cap_remaining() == 6


def test_a_refund_gives_back_and_the_other_outcomes_do_not() -> None:
    """Only attempts that surely were not processed return to the quota and the cap."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 20}, cap=20)
        for state in (ChargeState.REFUNDED, ChargeState.UNKNOWN, ChargeState.CHARGED):
            ledger.abandon(pay(ledger, KEYS[:4]), state, detail="why")
        assert ledger.balances() == [Balance("ada", 20, 8, answered=0, unusable=4, unknown=4, refunded=4)]
        assert ledger.remaining() == {"ada": 12}
        assert ledger.cap_remaining() == 12
        assert ledger.paid() == {"pool": 8}


def test_a_request_is_refunded_once() -> None:
    """Abandoning a request a second time, or after its answers came, is an error and gives nothing back."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 20})
        refunded, answered = pay(ledger, KEYS[:4]), pay(ledger, KEYS[4:6])
        ledger.abandon(refunded, ChargeState.REFUNDED, detail="why")
        ledger.settle(answered, KEYS[4:6], labels(0, 1))
        for charge in (refunded, answered):
            with pytest.raises(LedgerError):
                ledger.abandon(charge, ChargeState.REFUNDED, detail="why")
        assert ledger.balances() == [Balance("ada", 20, 2, answered=2, unusable=0, unknown=0, refunded=4)]


def test_details_of_any_text_are_written() -> None:
    """A lone surrogate in a platform's message does not cost the record of the outcome."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5})
        ledger.abandon(pay(ledger, KEYS[:1]), ChargeState.CHARGED, detail="bad \ud800 text")
        ledger.settle(pay(ledger, KEYS[:1]), KEYS[:1], Answers.failed(1, 3), detail="bad \udfff text")
        assert ledger.balances()[0].unusable == 2


@examples(30)
@given(
    quotas=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    cap=st.none() | st.integers(1, 20),
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(1, 5),
            st.sampled_from(["leave", "settle", "fail", *ChargeState]),
            st.sampled_from(["pool", "verification"]),
        ),
        max_size=12,
    ),
)
@example([2], None, [(0, 1, "leave", "pool"), (0, 1, ChargeState.UNKNOWN, "pool")])
def test_balances_agree_with_the_attempts(
    quotas: list[int], cap: int | None, steps: list[tuple[int, int, str, str]]
) -> None:
    """Whatever happens, charged = answered + unusable + unknown, as a plain count of the same events says."""
    names = ["ada", "ben", "cem"][: len(quotas)]
    expected = {n: dict.fromkeys(("answered", "unusable", "unknown", "refunded"), 0) for n in names}
    paid = {"pool": 0, "verification": 0}

    def charged(name: str) -> int:
        return sum(v for k, v in expected[name].items() if k != "refunded")

    with fresh_ledger() as ledger:
        ledger.enrol(dict(zip(names, quotas, strict=True)), cap=cap)
        for who, n, end, purpose in steps:
            member = names[who % len(names)]
            allowed = charged(member) + n <= quotas[who % len(names)]
            allowed &= cap is None or sum(map(charged, names)) + n <= cap
            if not allowed:
                with pytest.raises(QuotaError):
                    pay(ledger, KEYS[:n], member=member, purpose=purpose)
                continue
            charge = pay(ledger, KEYS[:n], member=member, purpose=purpose)
            if end == "settle":
                ledger.settle(charge, KEYS[:n], _mixed(n))
            elif end == "fail":
                ledger.settle(charge, KEYS[:n], Answers.failed(n, 3))
            elif end != "leave":
                ledger.abandon(charge, ChargeState(end), detail="why")
            kind = {"leave": "unknown", "settle": "answered", "fail": "unusable", "charged": "unusable"}.get(
                end, str(end)
            )
            expected[member][kind] += n
            paid[purpose] += n if kind != "refunded" else 0
        for balance, name, quota in zip(ledger.balances(), names, quotas, strict=True):
            assert balance == Balance(name, quota, charged(name), **expected[name])
            assert balance.charged == balance.answered + balance.unusable + balance.unknown <= quota
        assert ledger.paid() == {k: v for k, v in paid.items() if v}
        assert cap is None or ledger.cap_remaining() == cap - sum(map(charged, names))


# -- rates ------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_rate_refuses_until_the_window_has_room() -> None:
    """The query after the last one allowed waits exactly until the oldest has left the window, and costs nothing."""
    clock = Clock()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": Quota(100, per_minute=5)})
        pay(ledger, KEYS[:2])
        clock.now += 10
        pay(ledger, KEYS[:3])
        clock.now += 20
        with pytest.raises(RateError, match="'ada' to stay within 5 queries per minute, but 5 are paid") as caught:
            pay(ledger, KEYS[:1])
        assert caught.value.wait_s == pytest.approx(30)
        with pytest.raises(RateError) as caught:
            pay(ledger, KEYS[:3])
        assert caught.value.wait_s == pytest.approx(40)
        assert ledger.balances()[0].charged == 5
        clock.now += 30
        pay(ledger, KEYS[:2])
        with pytest.raises(RateError):
            pay(ledger, KEYS[:1])


def test_every_window_of_a_member_counts_and_no_other_members() -> None:
    """A second, a minute and a day each limit; the other member's queries do not count."""
    clock = Clock()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": Quota(100, per_second=2, per_minute=3, per_day=4), "ben": 100})
        pay(ledger, KEYS[:50], member="ben")
        pay(ledger, KEYS[:2])
        for step, word in ((0.0, "second"), (1.0, ""), (1.0, "minute"), (60.0, ""), (60.0, "day"), (86400.0, "")):
            clock.now += step
            if word:
                with pytest.raises(RateError, match=f"per {word}"):
                    pay(ledger, KEYS[:1])
            else:
                pay(ledger, KEYS[:1])


def test_a_refund_makes_room_in_the_window() -> None:
    """What the platform surely did not process does not use up the rate either."""
    with fresh_ledger(clock=Clock()) as ledger:
        ledger.enrol({"ada": Quota(100, per_day=3)})
        ledger.abandon(pay(ledger, KEYS[:3]), ChargeState.REFUNDED, detail="why")
        ledger.abandon(pay(ledger, KEYS[:3]), ChargeState.UNKNOWN, detail="why")
        with pytest.raises(RateError):
            pay(ledger, KEYS[:1])


def test_a_request_larger_than_the_rate_can_never_be_paid() -> None:
    """More queries at once than a window ever allows is an error about the request, not a wait."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": Quota(100, per_second=3)})
        with pytest.raises(QuotaError, match="Use smaller batches") as caught:
            pay(ledger, KEYS[:4])
        assert not isinstance(caught.value, RateError)
        assert ledger.balances()[0].charged == 0


def test_a_clock_that_jumps_back_never_opens_the_window() -> None:
    """After the clock is set back, what was paid in its future still counts, and the wait says for how long."""
    clock = Clock()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": Quota(100, per_minute=2)})
        pay(ledger, KEYS[:2])
        clock.now -= 500
        with pytest.raises(RateError) as caught:
            pay(ledger, KEYS[:1])
        assert caught.value.wait_s == pytest.approx(560)
        ledger.settle(pay_later(ledger, clock), KEYS[:1], labels(1))
        assert ledger.spend_by_day() == {"1970-01-01": 3}


def pay_later(ledger: Ledger, clock: Clock) -> Charge:
    """Pay one query once the window has room again."""
    clock.now += 560
    return pay(ledger, KEYS[:1])


@examples(40)
@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.tuples(st.floats(-30, 40), st.integers(1, 6)), min_size=1, max_size=14),
)
@pytest.mark.full_on_a_server
def test_no_window_ever_holds_more_than_the_rate(limit: int, steps: list[tuple[float, int]]) -> None:
    """Whatever the clock does, no minute of the ledger's own times holds more queries, and waiting always helps."""
    clock = Clock()
    paid: list[tuple[float, int]] = []
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": Quota(1000, per_minute=limit)})
        for step, n in steps:
            clock.now += step
            if n > limit:
                continue
            wait = 0.0
            try:
                pay(ledger, KEYS[:n])
            except RateError as error:
                wait = error.wait_s + 1e-6
                clock.now += wait
                pay(ledger, KEYS[:n])
            paid.append((clock.now, n))
    for start, _ in paid:
        assert sum(n for at, n in paid if start <= at < start + 60 - 1e-6) <= limit


@pytest.mark.parametrize("rate", [0, -1, 1.5, True, float("nan"), 2**63, "7"])
def test_odd_rates_are_refused(rate: Any) -> None:
    """A rate that is not a whole number of at least 1 is a sentence, and enrols nobody."""
    with fresh_ledger() as ledger:
        for name in ("per_second", "per_minute", "per_day"):
            with pytest.raises(QuotaError, match="rates of member 'ada' as whole numbers of at least 1"):
                ledger.enrol({"ada": Quota(3, **{name: rate})})
        assert ledger.balances() == []


# -- what the pool has done, and who leaves it ------------------------------------------------------------------


def test_spending_is_told_by_day() -> None:
    """Queries are counted under the UTC day they were charged on, refunds out."""
    clock = Clock(86400.0 * 365)
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 100})
        pay(ledger, KEYS[:2])
        clock.now += 86399.5
        pay(ledger, KEYS[:3], purpose="verification")
        clock.now += 0.5
        pay(ledger, KEYS[:1])
        clock.now += 86400 * 40
        ledger.abandon(pay(ledger, KEYS[:7]), ChargeState.REFUNDED, detail="why")
        assert ledger.spend_by_day() == {"1971-01-01": 5, "1971-01-02": 1}


def test_coverage_counts_different_queries() -> None:
    """A query asked twice is one; a failed row is asked and not answered."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 100})
        assert ledger.asked_and_answered() == (0, 0)
        ledger.settle(pay(ledger, KEYS[:3]), KEYS[:3], _mixed(3))
        ledger.settle(pay(ledger, KEYS[2:5]), KEYS[2:5], Answers.failed(3, 3))
        assert ledger.asked_and_answered() == (5, 3)


def test_a_member_who_is_forgotten_leaves_tombstones() -> None:
    """Name, keys of their images and answers go, whoever paid for them; what they paid stays, under an alias."""
    with fresh_ledger(clock=Clock(7.0)) as ledger:
        ledger.enrol({"ada": 10, "ben": 10})
        owned = ["ada", "ben", None, "ada"]
        by_ben = ledger.charge("ben", KEYS[:4], request_id="r", number=1, purpose="pool", owners=owned)
        ledger.settle(by_ben, KEYS[:4], labels(0, 1, 2, 0))
        by_ada = ledger.charge("ada", KEYS[1:2], request_id="s", number=1, purpose="pool", owners=["ben"])
        ledger.settle(by_ada, KEYS[1:2], labels(2))
        gone = ledger.forget("ada")
        assert (gone.images, gone.attempts, gone.answers) == (2, 2, 2)
        assert ledger.lookup(KEYS[:4], classes=3)[0].tolist() == [False, True, True, False]
        assert [(b.member, b.quota, b.charged, b.answered) for b in ledger.balances()] == [
            ("ben", 10, 4, 4),
            (gone.alias, 1, 1, 1),
        ]
        assert ledger.remaining()[gone.alias] == 0
        assert ledger.paid() == {"pool": 5}
        with pytest.raises(QuotaError, match="Expected the name of a member"):
            ledger.forget("ada")


def test_the_forgotten_come_back_only_if_they_agree() -> None:
    """No door writes a forgotten name down again, until a new consent, which knows nothing of before, opens them."""
    with fresh_ledger(clock=Clock(7.0)) as ledger:
        ledger.enrol({"ada": 10, "ben": 10})
        agree(ledger, "ada", action="a", text="yes")
        ledger.charge("ben", KEYS[:1], request_id="r", number=1, purpose="pool", owners=["ada"])
        ledger.forget("ada")
        before = ledger.balances()
        doors: list[Callable[[], object]] = [
            lambda: ledger.enrol({"ada": 3, "cem": 5}),
            lambda: ledger.charge("ben", KEYS[1:2], request_id="s", number=1, purpose="pool", owners=["ada"]),
            lambda: ledger.invite("ada"),
            lambda: LeaseDesk(ledger, ScriptedPlatform().info).load(distinct(2), ["ben", "ada"]),
        ]
        for door in doors:
            with pytest.raises(QuotaError, match="nobody who was forgotten, got 'ada', who was on 1970-01-01"):
                door()
        assert ledger.balances() == before
        assert ledger.asked_and_answered() == (0, 0)
        agree(ledger, "ada", action="a", text="yes")
        ledger.enrol({"ada": 3})
        assert ledger.remaining()["ada"] == 3


def test_an_answer_on_its_way_to_the_forgotten_is_not_kept() -> None:
    """What was in flight when a member was forgotten is booked, and its answer is dropped."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10, "ben": 10})
        charge = ledger.charge("ben", KEYS[:2], request_id="r", number=1, purpose="pool", owners=["ada", "ben"])
        ledger.forget("ada")
        ledger.settle(charge, KEYS[:2], labels(1, 2))
        assert ledger.lookup(KEYS[:2], classes=3)[0].tolist() == [False, True]
        assert ledger.balances()[0] == Balance("ben", 10, 2, answered=2, unusable=0, unknown=0, refunded=0)


def test_owners_need_not_pay() -> None:
    """Whoever brought images without a quota is in no balance, and can be forgotten."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 10})
        with pytest.raises(LedgerError, match="one owner for each of 2 queries, got 1"):
            ledger.charge("ada", KEYS[:2], request_id="r", number=1, purpose="pool", owners=["eve"])
        charge = ledger.charge("ada", KEYS[:2], request_id="r", number=1, purpose="pool", owners=["eve", "eve"])
        ledger.settle(charge, KEYS[:2], labels(1, 2))
        assert [b.member for b in ledger.balances()] == ["ada"]
        with pytest.raises(QuotaError):
            pay(ledger, KEYS[:1], member="eve")
        assert ledger.forget("eve").answers == 2
        assert ledger.asked_and_answered() == (0, 0)


def test_no_note_names_the_forgotten() -> None:
    """What platforms said goes with the member whose image it was about; in all other notes the name is an alias."""
    named = ["refused: Zoë Ada's picture", 'member "Zoe\u0308 Ada" is slow', "zoë ada!", "MyZoë Adams is another"]
    with fresh_ledger() as ledger:
        ledger.enrol({"Zoë Ada": 10, "ben": 10})
        theirs = ledger.charge("ben", KEYS[:1], request_id="r", number=1, purpose="pool", owners=["Zoë Ada"])
        ledger.abandon(theirs, ChargeState.CHARGED, detail="the face of a woman with red hair")
        for i, note in enumerate(named, start=1):
            charge = ledger.charge("ben", KEYS[i : i + 1], request_id=f"s{i}", number=1, purpose="pool")
            ledger.abandon(charge, ChargeState.CHARGED, detail=note)
        late = ledger.charge("Zoë Ada", KEYS[9:10], request_id="t", number=1, purpose="pool")
        alias = ledger.forget("Zoë Ada").alias
        ledger.abandon(late, ChargeState.REFUNDED, detail="member 'Zoë Ada' is not known")
        notes = ledger.database.run(
            lambda connection: connection.scalars(sa.select(outcomes.c.detail).order_by(outcomes.c.request)).all()
        )
    assert notes == [
        None, f"refused: {alias}'s picture", f'member "{alias}" is slow', f"{alias}!", named[3], None,
    ]  # fmt: skip


def test_forgetting_an_alias_only_cleans_again() -> None:
    """Whoever is forgotten twice keeps the alias and the day, so that an interrupted cleaning can be repeated."""
    clock = Clock(7.0)
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 10})
        pay(ledger, KEYS[:2])
        alias = ledger.forget("ada").alias
        clock.now = 9.0
        again = ledger.forget(alias)
        assert (again.alias, again.images, again.answers) == (alias, 0, 0)
        when = ledger.database.run(lambda connection: connection.scalar(sa.select(members.c.forgotten_at)))
        assert when == 7.0


# -- bookings ---------------------------------------------------------------------------------------------------


class Crash(Exception):
    """The server goes away before the commit."""


def test_a_booking_that_was_cut_off_is_done_again_though_its_number_was_given_to_another() -> None:
    """A number that somebody else got meanwhile is not taken for one's own: the request is charged after all."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5, "ben": 5})
        booking = ledger.booking([Bill("ada", KEYS[:1], "mine", 1, "pool")], [])

        def cut_off(connection: Connection) -> None:
            booking(connection)
            raise Crash

        with pytest.raises(Crash):
            ledger.database.run(cut_off, write=True)
        for _ in range(3):
            pay(ledger, KEYS[:1], member="ben")
        (done,) = ledger.database.run(booking, write=True)
        assert isinstance(done, Charge)
        assert [(b.member, b.charged) for b in ledger.balances()] == [("ada", 1), ("ben", 3)]
        # Once it was kept, trying again changes nothing.
        assert ledger.database.run(booking, write=True) == [done]
        assert ledger.balances()[0].charged == 1


def test_what_came_back_outlives_a_booking_that_failed() -> None:
    """Answers left at the desk are written with the next booking that can be, not lost with the one that could not."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5})
        broken = [True]

        def book(bills: Any, settlements: Any) -> Any:
            if broken.pop():
                broken.append(False)
                raise LedgerError("Expected room on the disk, got none.")
            broken.append(False)
            return ledger.book(bills, settlements)

        desk = Desk(book)
        charge = pay(ledger, KEYS[:2])
        desk.settle(Settlement(charge, KEYS[:2], labels(1, 2)))
        with pytest.raises(LedgerError, match="room on the disk"):
            desk.charge(Bill("ada", KEYS[2:3], "next", 1, "pool"))
        desk.flush()
        assert ledger.lookup(KEYS[:2], classes=3)[0].all()


# -- threads and processes --------------------------------------------------------------------------------------


def test_eight_threads_charge_exactly_the_quota_and_the_cap() -> None:
    """Threads that charge until they are refused together charge all that is allowed and not one query more."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 41, "ben": 1000}, cap=90)
        counted: list[int] = []

        def greedy(member: str) -> None:
            total = 0
            for n in (3, 1):
                try:
                    while True:
                        pay(ledger, KEYS[:n], member=member)
                        total += n
                except QuotaError:
                    pass
            counted.append(total)

        threads = [threading.Thread(target=greedy, args=(m,)) for m in ["ada", "ben"] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ada, ben = ledger.balances()
        assert len(counted) == 8
        assert sum(counted) == 90 == ada.charged + ben.charged
        assert ada.charged <= 41
        assert (ada.unknown, ben.unknown) == (ada.charged, ben.charged)


@pytest.mark.full_on_a_server
def test_four_processes_share_new_ledgers(tmp_path: Path) -> None:
    """Processes that open a new file at one moment agree on its secret and charge exactly quota and cap."""
    rivals = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.pooling.rivals"],
            cwd=HOME,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    try:
        for rival in rivals:
            assert rival.stdout is not None
            assert rival.stdout.readline() == "ready\n"
        for round_, (quotas, cap, total) in enumerate(
            [({"ada": 17, "ben": 20}, None, 37), ({"ada": 100, "ben": 100}, 31, 31)] * 3
        ):
            target, secret = fresh_place(tmp_path, str(round_))
            task = {"target": target, "secret": str(secret), "quotas": quotas, "cap": cap}
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write(json.dumps(task) + "\n")
                rival.stdin.flush()
            said = [json.loads(rival.stdout.readline()) for rival in rivals if rival.stdout is not None]
            assert len({s["key"] for s in said}) == 1
            with Ledger(target, secret=secret) as ledger:
                for balance in ledger.balances():
                    assert balance.charged == sum(s["charged"][balance.member] for s in said) <= balance.quota
                assert sum(b.charged for b in ledger.balances()) == total
    finally:
        for rival in rivals:
            rival.communicate()
    assert [rival.returncode for rival in rivals] == [0] * 4
    assert sorted(p.name for p in tmp_path.iterdir() if ".key" in p.name) == [f"{i}.key" for i in range(6)]


@pytest.mark.full_on_a_server
def test_kills_at_random_moments_lose_no_answer_and_hide_no_cost(tmp_path: Path) -> None:
    """After five kill -9, nothing answered was asked again, and charged exceeds accepted by unknown attempts only.

    Accepted ≤ processed by the platform ≤ charged, and the excess is at most kills × concurrency.
    """
    n, concurrency, batch, kills = 260, 8, 2, 5
    (target, secret), log = fresh_place(tmp_path, "ledger"), tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.pooling.victim", target, str(secret), str(log)]
    command += [str(n), str(concurrency), str(batch)]
    rng = random.Random(0)
    images = distinct(n)
    accepted: set[int] = set()
    for kill in range(kills):
        before = len(log.read_text().split())
        victim = subprocess.Popen(command, cwd=HOME, stdout=subprocess.DEVNULL)
        try:
            enough = before + rng.randrange(2, 40)
            give_up = time.monotonic() + 60
            while len(log.read_text().split()) < enough:
                assert victim.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.005)
        finally:
            victim.kill()
            victim.wait()
        processed = [int(number) for number in log.read_text().split()]
        assert not accepted & set(processed[before:])
        with Ledger(target, secret=secret) as ledger:
            keys = ledger.keys(images, fingerprint=ScriptedPlatform().info.fingerprint, epoch="pool")
            known, answers = ledger.lookup(keys, classes=len(CLASSES))
            balances = ledger.balances()
        accepted = set(np.flatnonzero(known).tolist())
        same(answers, truth(images), rows=known)
        charged = sum(b.charged for b in balances)
        assert len(accepted) <= len(processed) <= charged
        assert charged - len(accepted) == sum(b.unknown for b in balances) <= (kill + 1) * concurrency
        assert sum(b.answered for b in balances) == len(accepted)
        assert len(accepted) < n
    done = subprocess.run(command, cwd=HOME, check=True, capture_output=True, text=True)
    processed_at_last = [int(number) for number in log.read_text().split()]
    assert done.stdout == f"{n}\n"
    assert not accepted & set(processed_at_last[len(processed) :])
    with Ledger(target, secret=secret) as ledger:
        charged = sum(b.charged for b in ledger.balances())
        assert charged - n == sum(b.unknown for b in ledger.balances()) <= kills * concurrency
    assert n <= len(processed_at_last) <= charged
    assert set(processed_at_last) == set(range(n))


# -- answers ----------------------------------------------------------------------------------------------------


def same(got: Answers, expected: Answers, *, rows: Any = slice(None)) -> None:
    """Assert that the rows agree in every bit; NaN equals NaN."""
    for field in (f for f in fields(Answers) if f.compare):
        a, b = getattr(got, field.name)[rows], getattr(expected, field.name)[rows]
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    said = ~np.isnan(expected.scores[rows])
    np.testing.assert_array_equal(got.scores[rows].view(np.uint32)[said], expected.scores[rows].view(np.uint32)[said])


def _mixed(n: int) -> Answers:
    """Return n answers, every second one a refusal."""
    return labels(*[-1 if i % 2 else i % 3 for i in range(n)])


PROBABILITY = st.floats(0, 1, width=32)


@st.composite
def some_answers(draw: st.DrawFn) -> Answers:
    """Draw rows that are label-only, top-k, full, rounded, refused (silently or with scores) or failed."""
    classes = draw(st.integers(1, 5))
    n = draw(st.integers(1, 6))
    status = np.array(draw(st.lists(st.sampled_from(list(Status)), min_size=n, max_size=n)), np.int8)
    named = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)), np.int64)
    score = st.one_of(PROBABILITY, st.just(float("nan")))
    scores = np.array(draw(st.lists(score, min_size=n * classes, max_size=n * classes)), np.float32)
    scores = scores.reshape(n, classes)
    scores[np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))] = np.nan
    resolution = np.array(draw(st.lists(PROBABILITY, min_size=n, max_size=n)), np.float32)
    return Answers(status, np.where(status == Status.ANSWERED, named, -1), scores, resolution)


@examples(60)
@given(some_answers())
def test_answers_come_back_bit_by_bit(answers: Answers) -> None:
    """What was settled is what is found, after closing and opening again; failed rows are not answers."""
    n, classes = answers.scores.shape
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": n})
        ledger.settle(pay(ledger, KEYS[:n]), KEYS[:n], answers)
        ledger.close()
        with reopen(ledger) as again:
            known, found = again.lookup(KEYS[: n + 1], classes=classes)
        np.testing.assert_array_equal(known, [*answers.resolved, False])
        same(found, answers, rows=np.flatnonzero(answers.resolved))
        same(found, Answers.failed(n + 1, classes), rows=np.flatnonzero(~known))


def test_the_first_accepted_answer_wins() -> None:
    """A second answer to the same query is paid and not accepted; an answer after a failed row is."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 9})
        ledger.settle(
            pay(ledger, KEYS[:2]), KEYS[:2], Answers.concatenate([labels(1), Answers.failed(1, 3)], classes=3)
        )
        ledger.settle(pay(ledger, KEYS[:2]), KEYS[:2], labels(2, -1))
        ledger.settle(pay(ledger, KEYS[:2]), KEYS[:2], labels(0, 0))
        _, found = ledger.lookup(KEYS[:2], classes=3)
        same(found, labels(1, -1))
        assert ledger.balances() == [Balance("ada", 9, 6, answered=5, unusable=1, unknown=0, refunded=0)]


def test_answers_of_another_number_than_charged_are_refused() -> None:
    """One answer too few or too many, or another number of keys, writes nothing."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 9})
        charge = pay(ledger, KEYS[:2])
        for keys, answers in ((KEYS[:2], labels(1)), (KEYS[:2], labels(1, 1, 1)), (KEYS[:1], labels(1))):
            with pytest.raises(LedgerError, match="Expected 2 keys and answers"):
                ledger.settle(charge, keys, answers)
        assert not ledger.lookup(KEYS[:3], classes=3)[0].any()
        assert ledger.balances()[0].unknown == 2


def test_many_keys_are_found_in_order() -> None:
    """A lookup of thousands of keys, with repetitions, gives each row its own answer."""
    n = 2500
    keys = [hashlib.sha256(str(i).encode()).digest() for i in range(n)]
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": n})
        ledger.settle(pay(ledger, keys), keys, labels(*[i % 3 for i in range(n)]))
        order = np.random.default_rng(0).integers(0, n, 3 * n)
        known, found = ledger.lookup([keys[i] for i in order], classes=3)
    assert known.all()
    np.testing.assert_array_equal(found.labels, order % 3)


# -- keys -------------------------------------------------------------------------------------------------------


def test_every_part_of_a_query_changes_its_key() -> None:
    """Bytes, shape, platform, epoch, repeat and secret each give another key; nothing else does."""
    wide, tall = np.zeros((1, 2, 3, 3), np.uint8), np.zeros((1, 3, 2, 3), np.uint8)
    touched = wide.copy()
    touched[0, 1, 2, 2] = 1
    with fresh_ledger() as ledger, fresh_ledger() as stranger:
        base: dict[str, Any] = {"fingerprint": "f", "epoch": "e"}
        (key,) = ledger.keys(wide, **base)
        others = [
            *ledger.keys(touched, **base),
            *ledger.keys(tall, **base),
            *ledger.keys(wide, fingerprint="g", epoch="e"),
            *ledger.keys(wide, fingerprint="f", epoch="e2"),
            *ledger.keys(wide, **base, repeat=1),
            *stranger.keys(wide, **base),
        ]
        assert len({key, *others}) == 7
        assert {len(k) for k in (key, *others)} == {32}
        flipped = np.asfortranarray(np.concatenate([touched, wide]))
        assert ledger.keys(flipped[::-1], **base) == [key, others[0]]
        ledger.close()
        with reopen(ledger) as again:
            assert again.keys(wide, **base, repeat=0) == [key]


@examples(30)
@given(
    st.lists(
        st.tuples(st.text(max_size=3) | st.sampled_from(["\0", "0", "\0000", "0\0"]), st.integers(0, 12)),
        min_size=2,
        max_size=6,
        unique=True,
    )
)
@example([("e", 11), ("e1", 1)])
@example([("e\0001", 1), ("e", 1)])
@pytest.mark.full_on_a_server
def test_no_epoch_can_pass_for_another(cases: list[tuple[str, int]]) -> None:
    """Epochs and repeats of any characters never run together into one key."""
    image = np.zeros((1, 1, 1, 3), np.uint8)
    with fresh_ledger() as ledger:
        keys = [ledger.keys(image, fingerprint="f" * 64, epoch=e, repeat=r)[0] for e, r in cases]
    assert len(set(keys)) == len(cases)

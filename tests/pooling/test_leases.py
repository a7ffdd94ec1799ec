"""Tests of leases: who asks what, what is charged and accepted, cross-checks, quarantine, expiry and forgetting."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pooling.places import BACKENDS, fresh_ledger, reopen, use
from tests.pooling.scripted import CLASSES, ScriptedPlatform, distinct, patient, truth
from ttca.answers import Answers
from ttca.errors import ChargeState, ConfigError, ImageError, QuotaError, RateError
from ttca.images import Images
from ttca.platforms.base import PlatformInfo
from ttca.pooling.booking import Bill, Charge
from ttca.pooling.claims import Claim, this_process
from ttca.pooling.leases import CROSS_CHECK, CheckPlan, Lease, LeaseDesk, Quarantined, UnknownLease
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.pooling.quotas import Quota
from ttca.pooling.roll import roll

INFO = ScriptedPlatform().info
NO_CHECKS = CheckPlan(judged=0, share=0.0)


@pytest.fixture(params=BACKENDS, scope="module", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test on both kinds of database."""
    with use(request.param):
        yield


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give the time of the ledger."""
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Iterator[Ledger]:
    """Give an empty ledger with three members of 100 queries each."""
    with fresh_ledger(clock=clock) as fresh:
        fresh.enrol({"ada": 100, "ben": 100, "cem": 100})
        yield fresh


def desk_on(ledger: Ledger, plan: CheckPlan = NO_CHECKS, **more: Any) -> LeaseDesk:
    """Return a desk with a fixed seed."""
    return LeaseDesk(ledger, INFO, plan=plan, rng=random.Random(0), **more)


def numbers(images: Images) -> list[int]:
    """Return which images of ``distinct`` these are."""
    return [int(i[0, 0, 0]) + 251 * int(i[0, 0, 1]) for i in images]


def given_to(desk: LeaseDesk, member: str, size: int = 4) -> Lease:
    """Issue a lease that must not be empty."""
    lease = desk.issue(member, size)
    assert lease is not None
    return lease


def known(ledger: Ledger, images: Images) -> list[bool]:
    """Return which images have an accepted answer."""
    keys = ledger.keys(images, fingerprint=INFO.fingerprint, epoch="pool")
    found: list[bool] = ledger.lookup(keys, classes=3)[0].tolist()
    return found


def lie(images: Images) -> Answers:
    """Return another label than the platform's for every image."""
    return Answers.from_labels((truth(images).labels + 1) % 3, 3)


# -- what is asked ----------------------------------------------------------------------------------------------


def test_images_are_leased_once_in_their_order_and_charged(ledger: Ledger) -> None:
    """Each image goes to one member, who pays before it leaves the hub; then there is nothing more to give."""
    desk = desk_on(ledger)
    assert desk.load(distinct(7), ["ada"] * 7) == 7
    first, second = given_to(desk, "ada"), given_to(desk, "ben")
    assert numbers(first.images) + numbers(second.images) == list(range(7))
    assert desk.issue("cem", 4) is None
    assert not desk.is_done()
    assert {b.member: b.charged for b in ledger.balances()} == {"ada": 4, "ben": 3, "cem": 0}
    assert desk.take_back(first.id, "ada", truth(first.images)) == 4
    assert desk.take_back(second.id, "ben", truth(second.images)) == 3
    assert desk.is_done()
    assert all(known(ledger, distinct(7)))
    assert ledger.paid() == {"pool": 7}
    assert vars(desk.progress()) == {
        "inputs": 7, "answered": 7, "given_up": 0, "out": 0, "charged": 7, "members": 3, "active": 2, "quarantined": 0,
    }  # fmt: skip


def test_loading_again_adds_only_what_is_new(ledger: Ledger) -> None:
    """Duplicates, images loaded before and images answered before are not asked again."""
    desk = desk_on(ledger)
    assert desk.load(distinct(3)[[0, 1, 1, 2]], ["ada"] * 4) == 3
    lease = given_to(desk, "ada")
    desk.take_back(lease.id, "ada", truth(lease.images))
    with reopen(ledger) as again:
        desk = desk_on(again)
        assert desk.load(distinct(5), ["ada"] * 5) == 2
        assert numbers(given_to(desk, "ben").images) == [3, 4]


def test_what_the_ledger_knows_already_is_not_leased(ledger: Ledger) -> None:
    """Answers that a local pool paid for are counted as answered from the start."""
    images = distinct(4)
    keys = ledger.keys(images, fingerprint=INFO.fingerprint, epoch="pool")
    ledger.settle(ledger.charge("ada", keys[:3], request_id="r", number=1, purpose="pool"), keys[:3], truth(images[:3]))
    desk = desk_on(ledger)
    desk.load(images, ["ada"] * 4)
    assert numbers(given_to(desk, "ben").images) == [3]


@pytest.mark.parametrize("images", [distinct(2).astype(np.float32), distinct(2)[:, :1]], ids=["float", "shape"])
def test_bad_images_are_not_loaded(images: Any, ledger: Ledger) -> None:
    """Images of another kind than the platform takes never get into the hub."""
    with pytest.raises(ImageError):
        desk_on(ledger).load(images, ["ada"] * 2)
    with pytest.raises(ConfigError, match="one owner for each of 2 images, got 1"):
        desk_on(ledger).load(distinct(2), ["ada"])


def test_quota_and_rate_hold_to_the_last_query(ledger: Ledger, clock: Clock) -> None:
    """A lease is cut to what the member can pay; who can pay nothing is refused, and holds nothing back from others."""
    ledger.enrol({"ada": 5, "ben": Quota(100, per_minute=3)}, overrule=True)
    desk = desk_on(ledger)
    desk.load(distinct(20), ["cem"] * 20)
    given_to(desk, "ada", 4)
    assert numbers(given_to(desk, "ada", 2).images) == [4]
    with pytest.raises(QuotaError, match="1 queries left"):
        desk.issue("ada", 2)
    assert numbers(given_to(desk, "ben", 16).images) == [5, 6, 7]
    with pytest.raises(RateError):
        desk.issue("ben", 1)
    clock.now += 60
    assert numbers(given_to(desk, "ben", 1).images) == [8]


def take_all(desk: LeaseDesk, member: str, size: int) -> list[Lease]:
    """Return what a member gets who asks until told to wait."""
    leases: list[Lease] = []

    def ask() -> None:
        while (lease := desk.issue(member, size)) is not None:
            leases.append(lease)

    with pytest.raises(RateError, match=r"a fair share of what is left, got \d+\. Bring some of them back, or wait"):
        ask()
    return leases


def held(leases: list[Lease]) -> int:
    """Return how many queries these are."""
    return sum(len(lease.files) for lease in leases)


@pytest.mark.parametrize("plan", [NO_CHECKS, CheckPlan()], ids=["no checks", "checks"])
def test_nobody_holds_more_than_a_fair_share(plan: CheckPlan, ledger: Ledger) -> None:
    """Whoever takes what they can holds half of what is left, then a third, as others come; what is back is shared."""
    desk = desk_on(ledger, plan)
    desk.load(distinct(70), ["ada"] * 70)
    first = take_all(desk, "ada", 16)
    second = take_all(desk, "ben", 16)
    assert (held(first), held(second)) == (35, 24)
    third = given_to(desk, "cem", 16)
    assert len(third.files) == 11
    for lease in first:
        desk.take_back(lease.id, "ada", truth(lease.images))
    assert take_all(desk, "ben", 16) == []


def test_whoever_waits_for_what_was_stopped_hears_how_long(ledger: Ledger, clock: Clock) -> None:
    """A run that was killed holds its queries until they expire: its member and others are told when that is."""
    desk = desk_on(ledger, lease_s=120)
    desk.load(distinct(20), ["ada"] * 20)
    assert desk.free_in() is None
    given_to(desk, "ada", 16)
    clock.now += 23
    with pytest.raises(RateError, match=r"those of a run that was stopped are free again in at most 97 s\."):
        desk.issue("ada", 16)
    given_to(desk, "ben", 16)
    given_to(desk, "cem", 16)
    clock.now += 20
    assert desk.free_in() == 100
    clock.now += 100
    assert desk.free_in() is None


def test_a_few_queries_may_be_anybodys(ledger: Ledger) -> None:
    """The last images are not cut into requests of one."""
    desk = desk_on(ledger)
    desk.load(distinct(8), ["ada"] * 8)
    assert len(given_to(desk, "ada", 16).files) == 8
    assert desk.issue("ben", 16) is None


@pytest.mark.full_on_a_server
def test_honest_members_are_not_slower_for_it(ledger: Ledger) -> None:
    """Five members who send 160 queries at once are through 400 images in one turn more than without fair shares."""
    members = ["ada", "ben", "cem", "dan", "eve"]
    ledger.enrol(dict.fromkeys(members, 1000), overrule=True)
    desk = desk_on(ledger)
    desk.load(distinct(400), ["ada"] * 400)
    turns = 0
    while not desk.is_done():
        turns += 1
        out = []
        for member in members * 2:
            with suppress(RateError):
                if (lease := desk.issue(member, 16)) is not None:
                    out.append((lease, member))
        for lease, member in out:
            desk.take_back(lease.id, member, truth(lease.images))
    assert turns <= 4


def test_who_lets_leases_run_out_waits(ledger: Ledger, clock: Clock) -> None:
    """Holding queries until they expire, again and again, is slowed as bringing nothing is."""
    desk = desk_on(ledger, lease_s=10.0)
    desk.load(distinct(40), ["cem"] * 40)
    for _ in range(8):
        given_to(desk, "ada", 1)
        clock.now += 10
    with pytest.raises(RateError, match="usable answer in one of the last 8 leases, got none"):
        desk.issue("ada", 1)
    given_to(desk, "ben", 1)


# -- what comes back --------------------------------------------------------------------------------------------


def test_bringing_back_twice_changes_nothing(ledger: Ledger) -> None:
    """The same upload again is welcome and ignored; so is a failure after an answer."""
    desk = desk_on(ledger)
    desk.load(distinct(4), ["ada"] * 4)
    lease = given_to(desk, "ada")
    for answers in (truth(lease.images), lie(lease.images)):
        assert desk.take_back(lease.id, "ada", answers) == 4
    desk.give_up(lease.id, "ada", ChargeState.REFUNDED, detail="late")
    (balance, *_) = ledger.balances()
    assert (balance.charged, balance.answered, balance.refunded) == (4, 4, 0)
    keys = ledger.keys(distinct(4), fingerprint=INFO.fingerprint, epoch="pool")
    np.testing.assert_array_equal(ledger.lookup(keys, classes=3)[1].scores, truth(distinct(4)).scores)


def test_a_lease_is_its_members_alone(ledger: Ledger) -> None:
    """Another member's lease, or one that never was, does not exist for whoever asks; a wrong size is refused."""
    desk = desk_on(ledger)
    desk.load(distinct(4), ["ada"] * 4)
    lease = given_to(desk, "ada")
    for name, member in ((lease.id, "ben"), ("no-such-lease", "ada")):
        with pytest.raises(UnknownLease):
            desk.take_back(name, member, truth(lease.images))
        with pytest.raises(UnknownLease):
            desk.give_up(name, member, ChargeState.REFUNDED, detail="")
    with pytest.raises(ConfigError, match="Expected 4 answers for the lease, got 3"):
        desk.take_back(lease.id, "ada", truth(lease.images[:3]))
    assert desk.take_back(lease.id, "ada", truth(lease.images)) == 4


@pytest.mark.parametrize("state", list(ChargeState))
def test_what_failed_is_given_to_somebody_else(state: ChargeState, ledger: Ledger) -> None:
    """A lease given up is free at once and paid as far as anybody knows; who paid for it does not get it again."""
    desk = desk_on(ledger)
    desk.load(distinct(2), ["ada"] * 2)
    lease = given_to(desk, "ada")
    for _ in range(2):
        desk.give_up(lease.id, "ada", state, detail="busy")
    refunded = state is ChargeState.REFUNDED
    assert ledger.balances()[0].charged == (0 if refunded else 2)
    assert desk.is_done("ada") == (not refunded)
    assert not desk.is_done()
    # An unreadable answer may be one image's fault: each is asked alone.
    expected = [0] if state is ChargeState.CHARGED else [0, 1]
    assert numbers(given_to(desk, "ada" if refunded else "ben").images) == expected


def test_answers_and_a_failure_of_one_lease_do_not_both_count(ledger: Ledger) -> None:
    """Whatever comes first of two reports at one moment stands: nothing is both refunded and accepted."""
    desk = desk_on(ledger)
    desk.load(distinct(40), ["ada"] * 40)
    for _ in range(10):
        lease = given_to(desk, "ada")
        reports = [
            threading.Thread(target=desk.take_back, args=(lease.id, "ada", truth(lease.images))),
            threading.Thread(
                target=desk.give_up, args=(lease.id, "ada", ChargeState.REFUNDED), kwargs={"detail": "busy"}
            ),
        ]
        for thread in reports:
            thread.start()
        for thread in reports:
            thread.join()
        (ada, *_) = ledger.balances()
        assert ada.charged == ada.answered
        assert sum(known(ledger, distinct(40))) == ada.answered


def test_a_lease_that_expired_is_given_again_and_late_answers_still_count(ledger: Ledger, clock: Clock) -> None:
    """After its time a query goes to another member; the first answer to come is accepted, both are paid."""
    desk = desk_on(ledger, lease_s=30)
    desk.load(distinct(3), ["ada"] * 3)
    slow = given_to(desk, "ada")
    assert slow.expires_at == clock.now + 30
    clock.now += 29.9
    assert desk.issue("ben", 3) is None
    clock.now += 0.2
    fast = given_to(desk, "ben")
    assert numbers(fast.images) == [0, 1, 2]
    desk.take_back(slow.id, "ada", truth(slow.images))
    desk.take_back(fast.id, "ben", lie(fast.images))
    keys = ledger.keys(distinct(3), fingerprint=INFO.fingerprint, epoch="pool")
    np.testing.assert_array_equal(ledger.lookup(keys, classes=3)[1].labels, truth(distinct(3)).labels)
    assert [(b.charged, b.answered, b.unknown) for b in ledger.balances()] == [(3, 3, 0), (3, 3, 0), (0, 0, 0)]


def test_an_image_that_nobody_gets_an_answer_to_is_given_up(ledger: Ledger) -> None:
    """After four members tried in vain an image is left unanswered, so that the pool ends; nobody tries it twice."""
    names = ["ada", "ben", "cem", "dan"]
    ledger.enrol(dict.fromkeys(names, 10), overrule=True)
    desk = desk_on(ledger)
    desk.load(distinct(3), ["ada"] * 3)
    for turn, member in enumerate(names):
        lease = given_to(desk, member, 3)
        assert numbers(lease.images) == ([0, 1, 2] if turn == 0 else [0])
        answers = Answers.concatenate([Answers.failed(1, 3), truth(lease.images[1:])], classes=3)
        desk.take_back(lease.id, member, answers)
        assert desk.issue(member, 3) is None
        assert desk.is_done(member)
    assert desk.is_done()
    assert known(ledger, distinct(3)) == [False, True, True]
    assert (desk.progress().answered, desk.progress().given_up) == (2, 1)


def test_a_request_that_was_spoiled_is_asked_image_by_image(ledger: Ledger) -> None:
    """One image that the platform cannot read does not take the others of its lease with it."""
    ledger.enrol({f"m{i}": 100 for i in range(6)})
    desk = desk_on(ledger)
    desk.load(distinct(8), ["ada"] * 8)
    turn = 0
    while not desk.is_done():
        member = f"m{turn % 6}"
        turn += 1
        assert turn < 100
        lease = desk.issue(member, 8)
        if lease is None:
            continue
        if 5 in numbers(lease.images):
            desk.give_up(lease.id, member, ChargeState.CHARGED, detail="a poem")
        else:
            desk.take_back(lease.id, member, truth(lease.images))
    assert known(ledger, distinct(8)) == [i != 5 for i in range(8)]


def test_two_platforms_on_one_ledger_never_mix(ledger: Ledger) -> None:
    """Each desk hands out the images that were loaded for its own platform, and counts only these."""
    other_info = PlatformInfo("p", INFO.classes, INFO.image_shape, {"model": "another"})
    desk = desk_on(ledger)
    other = LeaseDesk(ledger, other_info, plan=NO_CHECKS, rng=random.Random(0))
    desk.load(distinct(3), ["ada"] * 3)
    other.load(distinct(2, start=1), ["ada"] * 2)
    lease = given_to(other, "ben", 8)
    assert numbers(lease.images) == [1, 2]
    with pytest.raises(UnknownLease):
        desk.take_back(lease.id, "ben", truth(lease.images))
    other.take_back(lease.id, "ben", truth(lease.images))
    assert other.is_done()
    assert (desk.progress().inputs, desk.progress().answered) == (3, 0)
    assert numbers(given_to(desk, "cem", 8).images) == [0, 1, 2]


def test_what_is_shared_no_longer_is_not_handed_out(ledger: Ledger) -> None:
    """Loading says what is shared: an image that is not among them any more goes to nobody, and its picture is gone."""
    desk = desk_on(ledger)
    desk.load(distinct(4), ["ada"] * 4)
    out = given_to(desk, "ben", 1)
    assert desk.load(distinct(4)[[1, 3]], ["ada"] * 2) == 0
    assert numbers(given_to(desk, "cem", 8).images) == [1, 3]
    assert desk.take_back(out.id, "ben", truth(out.images)) == 1
    desk.load(distinct(4)[[1, 3]], ["ada"] * 2)
    assert desk.progress().inputs == 2


def test_what_the_pool_asked_meanwhile_is_not_paid_again(ledger: Ledger) -> None:
    """Answers that come into the ledger by another way are seen before the next lease."""
    desk = desk_on(ledger)
    desk.load(distinct(4), ["ada"] * 4)
    platform = ScriptedPlatform()
    QueryPool(platform, ledger, [Member("ada", 100)], overrule=True).ask(distinct(3))
    assert numbers(given_to(desk, "ben", 8).images) == [3]
    assert desk.progress().answered == 3


def test_what_a_pool_has_in_flight_is_not_leased(ledger: Ledger, clock: Clock) -> None:
    """A lease chooses other queries than those a pool asks at this moment; what the pool could not get is leased."""
    desk = desk_on(ledger)
    desk.load(distinct(12), ["ada"] * 12)
    keys = ledger.keys(distinct(12), fingerprint=INFO.fingerprint, epoch="pool")
    (pool,) = ledger.book([Bill("ada", keys[:9], "r", 1, "pool", claim=Claim(this_process(), 600.0))], [])
    assert isinstance(pool, Charge)
    assert numbers(given_to(desk, "ben", 2).images) == [9, 10]
    assert numbers(given_to(desk, "cem", 8).images) == [11]
    assert desk.issue("ben", 4) is None
    assert not desk.is_done("ben")
    answers = Answers.concatenate([truth(distinct(8)), Answers.failed(1, 3)], classes=3)
    ledger.settle(pool, keys[:9], answers)
    clock.now += 1
    assert numbers(given_to(desk, "ben", 4).images) == [8]


@pytest.mark.parametrize("end", ["taken back", "given up", "expired"])
def test_what_is_leased_is_not_paid_by_a_pool(ledger: Ledger, clock: Clock, end: str) -> None:
    """A pool asks all else, and waits until what is out with a member comes back or is free again."""
    desk = desk_on(ledger, lease_s=60)
    desk.load(distinct(6), ["ada"] * 6)
    lease = given_to(desk, "ben", 2)

    def meanwhile(seconds: float) -> None:
        clock.now += seconds
        if end == "taken back":
            desk.take_back(lease.id, "ben", lie(lease.images))
        elif end == "given up":
            desk.give_up(lease.id, "ben", ChargeState.UNKNOWN, detail="why")

    platform = ScriptedPlatform()
    pool = QueryPool(platform, ledger, [Member("ada", 100)], overrule=True, pace=Pace(policy=patient(sleep=meanwhile)))
    answers = pool.ask(distinct(6))
    asked = [numbers(a.images) for a in platform.attempts]
    if end == "taken back":
        assert asked == [[2, 3, 4, 5]]
        assert answers.labels[:2].tolist() == lie(lease.images).labels.tolist()
    else:
        assert asked == [[2, 3, 4, 5], [0, 1]]
        assert clock.now == pytest.approx(1060, abs=0.2) or end == "given up"
    assert answers.answered.all()


# -- cross-checks -----------------------------------------------------------------------------------------------


def run_pool(desk: LeaseDesk, liars: set[str], members: list[str], *, size: int = 4) -> None:
    """Let members lease in turn until nobody gets anything; liars answer otherwise than the platform."""
    waiting = list(members)
    while waiting:
        for member in list(waiting):
            try:
                lease = desk.issue(member, size)
            except QuotaError:
                waiting.remove(member)
                continue
            if lease is None:
                waiting.remove(member)
                continue
            desk.take_back(lease.id, member, (lie if member in liars else truth)(lease.images))


@pytest.mark.full_on_a_server
def test_every_answer_of_a_new_member_is_checked_by_another(ledger: Ledger) -> None:
    """Each image goes to two members, in leases of one size that do not say which are checks."""
    desk = desk_on(ledger, CheckPlan(judged=100))
    desk.load(distinct(48), ["ada"] * 48)
    asked: dict[str, list[int]] = {"ada": [], "ben": [], "cem": []}
    while not desk.is_done():
        for member, seen in asked.items():
            lease = desk.issue(member, 4)
            if lease is not None:
                assert len(lease.images) == 4 or len(seen) > 16
                seen += numbers(lease.images)
                desk.take_back(lease.id, member, truth(lease.images))
    for seen in asked.values():
        assert len(seen) == len(set(seen))
    assert sorted(n for seen in asked.values() for n in seen) == sorted([*range(48), *range(48)])
    assert ledger.paid() == {"pool": 48, CROSS_CHECK: 48}


@pytest.mark.full_on_a_server
def test_checks_begin_before_all_is_answered_and_last_to_the_end(ledger: Ledger) -> None:
    """Some leases of the first half are cross-checks, and the very last answer is checked as well."""
    ledger.enrol(dict.fromkeys(["ada", "ben", "cem"], 1000), overrule=True)
    desk = desk_on(ledger, CheckPlan(judged=1000))
    desk.load(distinct(120), ["ada"] * 120)
    kinds = []
    while not desk.is_done():
        for member in ("ada", "ben", "cem"):
            lease = desk.issue(member, 4)
            if lease is not None:
                kinds.append(lease.cross_check)
                desk.take_back(lease.id, member, truth(lease.images))
    assert any(kinds[: len(kinds) // 2])
    assert kinds[-1]


def test_an_outvoted_answer_gives_way(ledger: Ledger) -> None:
    """What was accepted first is replaced once others outvote it, and nobody is set aside for one mistake."""
    names = ["ada", "ben", "cem", "dan"]
    ledger.enrol(dict.fromkeys(names, 100))
    desk = desk_on(ledger, CheckPlan(judged=100))
    desk.load(distinct(1), ["ada"])
    keys = ledger.keys(distinct(1), fingerprint=INFO.fingerprint, epoch="pool")
    said = []
    for member in names:
        lease = given_to(desk, member, 1)
        desk.take_back(lease.id, member, (lie if member == "ada" else truth)(lease.images))
        said.append(int(ledger.lookup(keys, classes=3)[1].labels[0]))
    wrong, right = int(lie(distinct(1)).labels[0]), int(truth(distinct(1)).labels[0])
    assert said == [wrong, wrong, right, right]
    assert desk.is_done()
    assert desk.flagged() == []


@pytest.mark.full_on_a_server
def test_a_liar_is_found_set_aside_and_asked_no_more(ledger: Ledger) -> None:
    """A member who lies is flagged; their answers leave the ledger, trusted ones take their place, the rest is asked.

    In the end every image has the platform's own answer.
    """
    names = ["ada", "ben", "cem", "dan", "eve", "fay", "gil", "hal"]
    ledger.enrol(dict.fromkeys(names, 200), overrule=True)
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(120), ["ada"] * 120)
    run_pool(desk, {"eve"}, names)
    assert desk.flagged() == ["eve"]
    with pytest.raises(Quarantined, match="'eve' differ from everybody else's"):
        desk.issue("eve", 1)
    run_pool(desk, set(), [n for n in names if n != "eve"])
    assert desk.is_done()
    keys = ledger.keys(distinct(120), fingerprint=INFO.fingerprint, epoch="pool")
    found, answers = ledger.lookup(keys, classes=3)
    assert found.all()
    np.testing.assert_array_equal(answers.labels, truth(distinct(120)).labels)
    assert desk.progress().quarantined == 1
    desk.pardon("eve")
    assert desk.flagged() == []
    with pytest.raises(QuotaError, match="a member who was set aside, got 'eve'"):
        desk.pardon("eve")


@pytest.mark.full_on_a_server
def test_answers_on_the_way_of_who_was_flagged_meanwhile_are_kept_apart(ledger: Ledger) -> None:
    """What a flagged member brings back later is booked as answered, and not accepted."""
    names = ["ada", "ben", "cem", "dan", "eve"]
    ledger.enrol(dict.fromkeys(names, 400), overrule=True)
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(60), ["ada"] * 60)
    for _ in range(9):
        lease = given_to(desk, "eve")
        desk.take_back(lease.id, "eve", lie(lease.images))
    late = given_to(desk, "eve")
    run_pool(desk, set(), names[:4])
    assert desk.flagged() == ["eve"]
    before = sum(b.answered for b in ledger.balances())
    assert desk.take_back(late.id, "eve", lie(late.images)) == 4
    assert sum(b.answered for b in ledger.balances()) == before + 4
    run_pool(desk, set(), names[:4])
    keys = ledger.keys(distinct(60), fingerprint=INFO.fingerprint, epoch="pool")
    found, answers = ledger.lookup(keys, classes=3)
    assert found.all()
    np.testing.assert_array_equal(answers.labels, truth(distinct(60)).labels)


@pytest.mark.full_on_a_server
def test_liars_who_say_failed_give_up_nothing(ledger: Ledger) -> None:
    """Four of twelve who say that every query failed cost nobody an image, and get slower."""
    names = [f"m{i}" for i in range(12)]
    ledger.enrol(dict.fromkeys(names, 500), overrule=True)
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(160), ["m4"] * 160)
    slowed = set()
    for turn in range(2000):
        member = names[turn % 12]
        try:
            lease = desk.issue(member, 4)
        except RateError:
            slowed.add(member)
            continue
        if lease is None:
            if desk.is_done():
                break
            continue
        n = len(lease.images)
        desk.take_back(
            lease.id, member, Answers.failed(n, len(CLASSES)) if int(member[1:]) < 4 else truth(lease.images)
        )
    assert desk.is_done()
    assert all(known(ledger, distinct(160)))
    assert desk.progress().given_up == 0
    assert slowed == {"m0", "m1", "m2", "m3"}


@pytest.mark.full_on_a_server
def test_what_good_members_cannot_get_is_given_up(ledger: Ledger) -> None:
    """After six members who were judged good an image is left alone, though others have not tried it."""
    names = [f"m{i:02d}" for i in range(12)]
    ledger.enrol(dict.fromkeys(names, 500), overrule=True)
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(80), ["m04"] * 80)
    tried = 0
    for turn in range(2000):
        lease = desk.issue(names[turn % 12], 4)
        if lease is None:
            if desk.is_done():
                break
            continue
        spoiled = np.array(numbers(lease.images)) == 70
        tried += int(spoiled.sum())
        said = truth(lease.images)
        silent = Answers.failed(len(spoiled), len(CLASSES))
        rows = np.where(spoiled, np.arange(len(spoiled)) + len(spoiled), np.arange(len(spoiled)))
        desk.take_back(lease.id, names[turn % 12], Answers.concatenate([said, silent], classes=3)[rows])
    assert desk.is_done()
    assert desk.progress().given_up == 1
    assert 6 <= tried < 12


@pytest.mark.full_on_a_server
def test_who_is_refunded_for_ever_waits(ledger: Ledger, clock: Clock) -> None:
    """Nothing is charged for leases that surely were not processed; after 160 of them in a row the member is slowed."""
    desk = desk_on(ledger)
    desk.load(distinct(20), ["ada"] * 20)
    for _ in range(160):
        lease = given_to(desk, "ben", 4)
        desk.give_up(lease.id, "ben", ChargeState.REFUNDED, detail="busy")
    with pytest.raises(RateError, match="Expected a usable answer in one of the last 160 leases"):
        desk.issue("ben", 4)
    assert ledger.balances()[1].charged == 0
    clock.now += 2
    assert desk.issue("ben", 4) is not None


def test_a_quarantine_leaves_what_the_pool_itself_asked(ledger: Ledger) -> None:
    """Answers that the organiser's own machine paid from the member's quota are not the member's word."""
    desk = desk_on(ledger)
    desk.load(distinct(6), ["ada"] * 6)
    QueryPool(ScriptedPlatform(), ledger, [Member("ben", 100)], overrule=True).ask(distinct(3))
    lease = given_to(desk, "ben")
    desk.take_back(lease.id, "ben", truth(lease.images))
    desk.jury.set_aside(2)
    assert known(ledger, distinct(6)) == [True, True, True, False, False, False]


def test_where_nobody_is_left_to_ask_an_answer_stands(ledger: Ledger) -> None:
    """A pool of one member ends: what nobody else can check is not waited for."""
    ledger.enrol({"ada": 100, "ben": 1, "cem": 1}, overrule=True)
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(6), ["ada"] * 6)
    for member in ("ben", "cem", "ada", "ada"):
        lease = desk.issue(member, 4)
        if lease is not None:
            desk.take_back(lease.id, member, truth(lease.images))
    while (lease := desk.issue("ada", 4)) is not None:
        desk.take_back(lease.id, "ada", truth(lease.images))
    assert desk.is_done()


@pytest.mark.parametrize("changes", [{"judged": -1}, {"share": 1.5}, {"share": float("nan")}])
def test_an_odd_plan_is_refused(changes: dict[str, Any]) -> None:
    """Numbers that could not check anybody are a sentence."""
    with pytest.raises(ConfigError, match="Expected a plan of cross-checks"):
        CheckPlan(**changes)


# -- tokens, forgetting, rivals ---------------------------------------------------------------------------------


def test_a_token_is_good_until_the_next_one(ledger: Ledger) -> None:
    """Tokens name their member, only their hash is kept, and only who can pay is invited."""
    first, ben = ledger.invite("ada"), ledger.invite("ben")
    assert (ledger.member_of(first), ledger.member_of(ben), ledger.member_of("guess")) == ("ada", "ben", None)
    second = ledger.invite("ada")
    assert (ledger.member_of(first), ledger.member_of(second)) == (None, "ada")
    with pytest.raises(QuotaError, match="Expected a member with a quota to invite, got 'eve'"):
        ledger.invite("eve")
    with pytest.raises(QuotaError, match=r"Did you mean 'ada'\? .* got 'A da'"):
        ledger.invite("A da")


def test_the_roll_says_who_did_what(ledger: Ledger, clock: Clock) -> None:
    """Who asked how much, how much of it others answered too, who is set aside; and nobody who was forgotten."""
    desk = desk_on(ledger, CheckPlan())
    desk.load(distinct(6), ["ada"] * 6)
    clock.now = 5000.0
    ledger.invite("ada")
    for member, answer in (("ada", truth), ("ben", truth), ("cem", lie)):
        lease = given_to(desk, member, 6 if member == "ada" else 2)
        desk.take_back(lease.id, member, answer(lease.images))
    desk.jury.set_aside(3)
    ada, ben, cem = ledger.database.run(roll)
    assert (ada.asked, ada.answered, ada.judged, ada.invited, ada.invited_at) == (6, 6, 4, True, 5000.0)
    assert (ben.asked, ben.answered, ben.judged, ben.invited, ben.revoked) == (2, 2, 2, False, False)
    assert (cem.set_aside_at, ben.set_aside_at) == (5000.0, None)
    ledger.forget("ada")
    assert [m.member for m in ledger.database.run(roll)] == ["ben", "cem"]


def test_who_is_forgotten_leaves_the_hub_too(ledger: Ledger) -> None:
    """Images they brought, what anybody said about these, and their token are gone; other images stay."""
    desk = desk_on(ledger)
    desk.load(distinct(6), ["ada", "ben"] * 3)
    token = ledger.invite("ada")
    lease = given_to(desk, "cem", 4)
    desk.take_back(lease.id, "cem", truth(lease.images))
    out = given_to(desk, "ben", 4)
    assert numbers(out.images) == [4, 5]
    gone = ledger.forget("ada")
    assert (gone.images, gone.answers) == (3, 2)
    assert ledger.member_of(token) is None
    assert desk.progress().inputs == 3
    desk.take_back(out.id, "ben", truth(out.images))
    assert known(ledger, distinct(6)) == [False, True, False, True, False, True]
    assert desk.is_done()


def test_rivals_at_one_moment_share_the_queries(ledger: Ledger, clock: Clock) -> None:
    """Threads of two hubs on one ledger lease until nothing is left, and no query is out twice."""
    ledger.enrol(dict.fromkeys([f"m{i}" for i in range(6)], 100))
    desk_on(ledger).load(distinct(90), ["ada"] * 90)
    got: list[int] = []
    lock = threading.Lock()

    def greedy(member: str, desk: LeaseDesk) -> None:
        idle = 0
        while idle < 3:
            try:
                lease = desk.issue(member, 3)
            except QuotaError:
                continue
            if lease is None:
                idle += 1
                continue
            with lock:
                got.extend(numbers(lease.images))
            desk.take_back(lease.id, member, truth(lease.images))

    with reopen(ledger, clock=clock) as other:
        desks = [desk_on(ledger), desk_on(other)]
        threads = [threading.Thread(target=greedy, args=(f"m{i}", desks[i % 2])) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == list(range(90))
    assert sum(b.charged for b in ledger.balances()) == 90


@settings(max_examples=15, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["ada", "ben", "cem"]),
            st.sampled_from(["answer", "fail rows", *ChargeState, "vanish", "late"]),
            st.integers(1, 4),
        ),
        max_size=25,
    )
)
@pytest.mark.full_on_a_server
def test_whatever_members_do_the_books_are_right(events: list[tuple[str, str, int]]) -> None:
    """Accepted answers ≤ processed ≤ charged, no quota is exceeded, and every unknown one was never brought back."""
    clock = Clock()
    with fresh_ledger(clock=clock) as ledger:
        ledger.enrol({"ada": 12, "ben": 30, "cem": 9})
        desk = desk_on(ledger, CheckPlan(judged=4, share=0.3), lease_s=10)
        desk.load(distinct(25), ["ada"] * 25)
        processed = vanished = 0
        late: list[tuple[str, Lease]] = []
        for member, what, size in events:
            try:
                lease = desk.issue(member, size)
            except QuotaError:
                continue
            if lease is None:
                clock.now += 11
                continue
            n = len(lease.images)
            if what == "answer":
                desk.take_back(lease.id, member, truth(lease.images))
                processed += n
            elif what == "fail rows":
                desk.take_back(lease.id, member, Answers.failed(n, len(CLASSES)))
                processed += n
            elif what in ("vanish", "late"):
                vanished += n
                if what == "late":
                    late.append((member, lease))
            else:
                desk.give_up(lease.id, member, ChargeState(what), detail="why")
                processed += n if what == "charged" else 0
                vanished += n if what == "unknown" else 0
        for member, lease in late:
            desk.take_back(lease.id, member, truth(lease.images))
            vanished, processed = vanished - len(lease.images), processed + len(lease.images)
        balances = ledger.balances()
        accepted = sum(known(ledger, distinct(25)))
        assert accepted <= processed <= sum(b.charged for b in balances)
        assert sum(b.unknown for b in balances) == vanished
        assert sum(b.answered + b.unusable for b in balances) == processed
        assert all(b.charged <= b.quota for b in balances)
        assert desk.progress().answered == accepted


def test_a_member_is_known_in_two_spellings(ledger: Ledger) -> None:
    """Leases, answers, pardons and owners go by the one name, whoever typed it."""
    desk = desk_on(ledger)
    ledger.enrol({"Zo\u00eb": 100, "ada": 100, "ben": 100, "cem": 100})
    assert desk.load(distinct(4), ["Zoe\u0308", "Zo\u00eb ", "ben", "ben"]) == 4
    lease = given_to(desk, "Zoe\u0308", 4)
    assert not desk.is_done("Zo\u00eb ")
    assert desk.take_back(lease.id, "Zo\u00eb ", truth(lease.images)) == 4
    assert desk.is_done("Zoe\u0308")
    with pytest.raises(QuotaError, match="set aside"):
        desk.pardon("Zoe\u0308")
    assert ledger.forget(" Zo\u00eb").answers == 2


def test_a_label_against_its_scores_is_not_taken_back(ledger: Ledger) -> None:
    """Whoever brings answers, a label whose score is lower than another is no platform's word, and costs no record."""
    desk = desk_on(ledger)
    desk.load(distinct(3), ["ada"] * 3)
    lease = given_to(desk, "ben", 3)
    said = truth(lease.images)
    wrong = Answers(said.status, (said.labels + 1) % len(CLASSES), said.scores, said.resolution)
    with pytest.raises(ConfigError, match=r"Expected the label .* to have the highest score, got"):
        desk.take_back(lease.id, "ben", wrong)
    assert desk.take_back(lease.id, "ben", said) == 3

"""Tests of the ledger: money, answers, keys, threads, processes, kills and damaged files."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pooling.scripted import CLASSES, ScriptedPlatform, distinct, fresh_ledger, truth
from ttca.answers import Answers, Status
from ttca.errors import ChargeState, LedgerError, QuotaError
from ttca.pooling.ledger import Balance, Charge, Ledger

HOME = Path(__file__).resolve().parents[2]
KEYS = [bytes([i]) * 32 for i in range(64)]


def pay(ledger: Ledger, keys: list[bytes], *, member: str = "ada", number: int = 1, purpose: str = "pool") -> Charge:
    """Charge one request of these keys."""
    return ledger.charge(member, keys, request_id="r", number=number, purpose=purpose)


def labels(*values: int) -> Answers:
    """Return label-only answers about three classes."""
    return Answers.from_labels(np.array(values, np.int64), 3)


def edit(path: Path, statement: str, *values: object) -> None:
    """Change a ledger's file behind its back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


# -- money ------------------------------------------------------------------------------------------------------


def test_a_charge_is_on_disk_before_anything_is_sent() -> None:
    """Another reader of the file sees the attempts, as unknown, as soon as the charge returns."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 5})
        pay(ledger, KEYS[:3])
        with Ledger(ledger.path) as other:
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
        ledger.enrol({"ada": 2})
        assert ledger.remaining() == {"ada": 0}
        assert ledger.balances()[0].remaining == 0
        assert ledger.cap_remaining() is None
        ledger.enrol({"ada": 4})
        assert ledger.remaining() == {"ada": 1}


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


@settings(max_examples=30, deadline=None)
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
            task: dict[str, Any] = {"path": str(tmp_path / f"{round_}.sqlite"), "quotas": quotas, "cap": cap}
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write(json.dumps(task) + "\n")
                rival.stdin.flush()
            said = [json.loads(rival.stdout.readline()) for rival in rivals if rival.stdout is not None]
            assert len({s["key"] for s in said}) == 1
            with Ledger(Path(task["path"])) as ledger:
                for balance in ledger.balances():
                    assert balance.charged == sum(s["charged"][balance.member] for s in said) <= balance.quota
                assert sum(b.charged for b in ledger.balances()) == total
    finally:
        for rival in rivals:
            rival.communicate()
    assert [rival.returncode for rival in rivals] == [0] * 4
    assert sorted(p.name for p in tmp_path.iterdir() if ".key" in p.name) == [f"{i}.sqlite.key" for i in range(6)]


def test_kills_at_random_moments_lose_no_answer_and_hide_no_cost(tmp_path: Path) -> None:
    """After five kill -9, nothing answered was asked again, and charged exceeds accepted by unknown attempts only.

    Accepted ≤ processed by the platform ≤ charged, and the excess is at most kills × concurrency.
    """
    n, concurrency, batch, kills = 260, 8, 2, 5
    ledger_path, log = tmp_path / "ledger.sqlite", tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.pooling.victim", str(ledger_path), str(log)]
    command += [str(n), str(concurrency), str(batch)]
    rng = random.Random(0)
    images = distinct(n)
    accepted: set[int] = set()
    for kill in range(kills):
        before = len(log.read_text().split())
        victim = subprocess.Popen(command, cwd=HOME, stdout=subprocess.DEVNULL)
        try:
            target = before + rng.randrange(2, 40)
            give_up = time.monotonic() + 60
            while len(log.read_text().split()) < target:
                assert victim.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.005)
        finally:
            victim.kill()
            victim.wait()
        processed = [int(number) for number in log.read_text().split()]
        assert not accepted & set(processed[before:])
        with Ledger(ledger_path) as ledger:
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
    with Ledger(ledger_path) as ledger:
        charged = sum(b.charged for b in ledger.balances())
        assert charged - n == sum(b.unknown for b in ledger.balances()) <= kills * concurrency
    assert n <= len(processed_at_last) <= charged
    assert set(processed_at_last) == set(range(n))


# -- answers ----------------------------------------------------------------------------------------------------


def same(got: Answers, expected: Answers, *, rows: Any = slice(None)) -> None:
    """Assert that the rows agree in every bit; NaN equals NaN."""
    for field in fields(Answers):
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


@settings(max_examples=60, deadline=None)
@given(some_answers())
def test_answers_come_back_bit_by_bit(answers: Answers) -> None:
    """What was settled is what is found, after closing and opening again; failed rows are not answers."""
    n, classes = answers.scores.shape
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": n})
        ledger.settle(pay(ledger, KEYS[:n]), KEYS[:n], answers)
        ledger.close()
        with Ledger(ledger.path) as again:
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
        with Ledger(ledger.path) as again:
            assert again.keys(wide, **base, repeat=0) == [key]


@settings(max_examples=30, deadline=None)
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
def test_no_epoch_can_pass_for_another(cases: list[tuple[str, int]]) -> None:
    """Epochs and repeats of any characters never run together into one key."""
    image = np.zeros((1, 1, 1, 3), np.uint8)
    with fresh_ledger() as ledger:
        keys = [ledger.keys(image, fingerprint="f" * 64, epoch=e, repeat=r)[0] for e, r in cases]
    assert len(set(keys)) == len(cases)


def test_images_leave_no_trace_that_a_stranger_could_test() -> None:
    """The file holds neither an image's bytes nor its plain SHA-256."""
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 3), dtype=np.uint8)
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 3})
        keys = ledger.keys(images, fingerprint="f", epoch="e")
        ledger.settle(pay(ledger, keys), keys, labels(0, 1, 2))
        ledger.close()
        content = b"".join(p.read_bytes() for p in ledger.path.parent.iterdir())
    assert keys[0] in content
    for image in images:
        assert image.tobytes() not in content
        assert hashlib.sha256(image.tobytes()).digest() not in content


# -- the file ---------------------------------------------------------------------------------------------------


def test_the_secret_is_the_owners_alone() -> None:
    """The secret's file is readable by its owner only, and no half-written one lies about."""
    with fresh_ledger() as ledger:
        secret = ledger.path.with_name("ledger.sqlite.key")
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert len(secret.read_bytes()) == 32
        assert [p.name for p in ledger.path.parent.iterdir() if ".key" in p.name] == ["ledger.sqlite.key"]


def _random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(20_000))


def _damaged(path: Path) -> None:
    Ledger(path).close()
    content = bytearray(path.read_bytes())
    content[200:] = b"\xa5" * (len(content) - 200)
    path.write_bytes(content)


def _another_program(path: Path) -> None:
    edit(path, "CREATE TABLE bookmarks (url TEXT)")


def _another_meta(path: Path) -> None:
    edit(path, "CREATE TABLE meta (id INTEGER, note TEXT)")


def _newer(path: Path) -> None:
    Ledger(path).close()
    edit(path, "UPDATE meta SET value = '2' WHERE name = 'schema'")


def _folder(path: Path) -> None:
    path.mkdir()


def _no_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where the folder should be")


def _short_secret(path: Path) -> None:
    Ledger(path).close()
    path.with_name(path.name + ".key").write_bytes(b"short")


def _unreadable_secret(path: Path) -> None:
    path.with_name(path.name + ".key").mkdir()


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_random_bytes, "Expected an SQLite ledger in .*damaged or foreign"),
        (_damaged, "Expected an SQLite ledger in .*damaged or foreign"),
        (_another_program, "database of another program or version, with the tables bookmarks"),
        (_another_meta, "database of another program or version, with the tables meta"),
        (_newer, "Expected a ledger of version 1 in .*, got version 2. Use the ttca that wrote it, or a newer"),
        (_folder, "Expected to open the ledger .* Check the folder's permissions"),
        (_no_folder, "Expected a folder for the ledger"),
        (_short_secret, "Expected 32 bytes in .*key, got 5. Put the original file back"),
        (_unreadable_secret, "Expected to read or write the ledger's secret"),
    ],
)
def test_a_file_that_is_no_ledger_is_a_sentence(prepare: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    """A foreign, damaged, newer or unwritable ledger, or a wrong secret, is a LedgerError that says what to do."""
    path = tmp_path / "home" / "ledger.sqlite"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(LedgerError, match=sentence):
        Ledger(path)


def test_a_foreign_database_is_left_as_it_was(tmp_path: Path) -> None:
    """Refusing another program's database adds no table to it and writes no secret beside it."""
    path = tmp_path / "places.sqlite"
    _another_program(path)
    with pytest.raises(LedgerError):
        Ledger(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    assert not path.with_name("places.sqlite.key").exists()


def _used(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 5})
        ledger.settle(pay(ledger, KEYS[:1]), KEYS[:1], labels(1))


def test_a_used_ledger_without_its_secret_is_refused(tmp_path: Path) -> None:
    """A ledger copied without its secret, or with another ledger's, does not quietly ask everything again."""
    path, secret = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite.key"
    _used(path)
    original = secret.read_bytes()
    secret.unlink()
    with pytest.raises(LedgerError, match=r"Expected the ledger's secret in .* put it back"):
        Ledger(path)
    assert not secret.exists()
    secret.write_bytes(bytes(32))
    with pytest.raises(LedgerError, match="got another ledger's"):
        Ledger(path)
    secret.write_bytes(original)
    with Ledger(path) as ledger:
        assert ledger.lookup(KEYS[:1], classes=3)[0].all()


def test_an_unused_ledger_gets_a_new_secret(tmp_path: Path) -> None:
    """Where nothing was asked yet, a lost secret is replaced."""
    path, secret = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite.key"
    Ledger(path).close()
    secret.unlink()
    Ledger(path).close()
    _used(path)
    assert len(secret.read_bytes()) == 32


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", 7),
        ("status", 300),
        ("label", 3),
        ("label", -1),
        ("label", "cat"),
        ("scores", b"\0" * 8),
        ("scores", b"\0" * 16),
        ("scores", b"\0" * 13),
        ("scores", np.array([0, 0, 7], "<f4").tobytes()),
        ("resolution", -1.0),
    ],
)
def test_an_edited_answer_is_not_believed(column: str, value: object, tmp_path: Path) -> None:
    """An answer in the file that no platform could have given is a LedgerError, not a number in a report."""
    path = tmp_path / "ledger.sqlite"
    _used(path)
    edit(path, f"UPDATE answers SET {column} = ?", value)
    with Ledger(path) as ledger, pytest.raises(LedgerError, match="Expected answers about 3 classes"):
        ledger.lookup(KEYS[:1], classes=3)


@pytest.mark.parametrize("name", ["a?b.sqlite", "a#b.sqlite", "100%25.sqlite", "ünï cödé.sqlite"])
def test_any_file_name_will_do(name: str, tmp_path: Path) -> None:
    """A path is a path, whatever it would mean in a URL."""
    path = tmp_path / "quo?vadis=1" / name
    _used(path)
    assert path.is_file()
    with Ledger(path) as ledger:
        assert ledger.balances()[0].answered == 1


def test_a_ledger_moves_with_its_secret(tmp_path: Path) -> None:
    """A closed ledger copied to another folder with its key file finds every answer again."""
    old, new = tmp_path / "old", tmp_path / "new"
    _used(old / "ledger.sqlite")
    shutil.copytree(old, new)
    with Ledger(new / "ledger.sqlite") as ledger:
        assert ledger.lookup(KEYS[:1], classes=3)[0].all()


def test_a_ledger_held_by_another_program_is_a_sentence(tmp_path: Path) -> None:
    """A file that another program keeps locked names the lock, and the ledger works again afterwards."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 5})
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ledger._engine.connect() as connection:
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("PRAGMA busy_timeout = 1")
            with pytest.raises(LedgerError, match="another program holds it"):
                pay(ledger, KEYS[:1])
            other.execute("ROLLBACK")
        pay(ledger, KEYS[:1])
        assert ledger.balances()[0].charged == 1


def test_times_come_from_the_clock_given(tmp_path: Path) -> None:
    """Attempts, outcomes and answers carry the time of the clock that was passed in."""
    path = tmp_path / "ledger.sqlite"
    times = iter([1.5, 2.5])
    with Ledger(path, clock=lambda: next(times)) as ledger:
        ledger.enrol({"ada": 5})
        ledger.settle(pay(ledger, KEYS[:1]), KEYS[:1], labels(1))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT charged_at FROM requests").fetchall() == [(1.5,)]
        assert connection.execute("SELECT at FROM outcomes UNION ALL SELECT at FROM answers").fetchall() == [(2.5,)] * 2

"""Tests of the ledger's file: what is in it, who may read it, what is no ledger, older versions and a full disk."""

from __future__ import annotations

import hashlib
import hmac
import shutil
import sqlite3
import stat
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select

from tests.examples import examples
from tests.pooling.places import BACKENDS, as_version_4, fresh_ledger, fresh_place, use
from tests.pooling.scripted import KEYS, ScriptedPlatform, distinct, labels, pay, truth
from ttca.errors import ChargeState, LedgerError
from ttca.pooling.booking import Bill, Charge
from ttca.pooling.claims import Claim, Taken
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.roll import revoke, roll
from ttca.pooling.schema import inputs


def edit(path: Path, statement: str, *values: object) -> None:
    """Change a ledger's file behind its back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_images_leave_no_trace_that_a_stranger_could_test() -> None:
    """The file holds neither an image's bytes nor its plain SHA-256."""
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 3), dtype=np.uint8)
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 3})
        keys = ledger.keys(images, fingerprint="f", epoch="e")
        ledger.settle(pay(ledger, keys), keys, labels(0, 1, 2))
        ledger.close()
        content = b"".join(p.read_bytes() for p in ledger.secret_file.parent.iterdir())
    assert keys[0] in content
    for image in images:
        assert image.tobytes() not in content
        assert hashlib.sha256(image.tobytes()).digest() not in content


# -- the file ---------------------------------------------------------------------------------------------------


def test_the_secret_is_the_owners_alone() -> None:
    """The secret's file is readable by its owner only, and no half-written one lies about."""
    with fresh_ledger() as ledger:
        secret = ledger.secret_file
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert len(secret.read_bytes()) == 32
        assert [p.name for p in secret.parent.iterdir() if ".key" in p.name] == [secret.name]


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
    edit(path, "UPDATE meta SET value = '7' WHERE name = 'schema'")


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
        (_newer, "Expected a ledger of version 6 in .*, got version 7. Use the ttca that wrote it, or a newer"),
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
    assert len(secret.read_bytes()) == 32
    _used(path)


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
        ("label", 2),
        ("request", 2),
        ("reading", b"\1" * 8),
        ("seal", None),
        ("seal", b""),
        ("seal", "text"),
    ],
)
def test_an_edited_answer_is_not_believed(column: str, value: object, tmp_path: Path) -> None:
    """An answer that is not what was written is a LedgerError, not a number in a report, even if one could be it."""
    path = tmp_path / "ledger.sqlite"
    _used(path)
    edit(path, f"UPDATE answers SET {column} = ?", value)
    with Ledger(path) as ledger, pytest.raises(LedgerError, match=r"got an answer that was changed since.* Restore"):
        ledger.lookup(KEYS[:1], classes=3)


def test_answers_about_other_classes_are_not_believed(tmp_path: Path) -> None:
    """An answer that is what was written, and about another number of classes, is no answer about these."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 5})
        ledger.settle(pay(ledger, KEYS[:1]), KEYS[:1], truth(distinct(1)))
        with pytest.raises(LedgerError, match="Expected answers about 2 classes"):
            ledger.lookup(KEYS[:1], classes=2)


@examples(60)
@given(bit=st.integers(0, 10_000))
@example(bit=3967)
def test_no_bit_of_an_answer_may_flip(bit: int) -> None:
    """Whichever bit of a stored answer is another, the answer is refused, or its key finds none."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with Ledger(path) as ledger:
            ledger.enrol({"ada": 5})
            ledger.settle(pay(ledger, KEYS[:1]), KEYS[:1], truth(distinct(1)))
        with closing(sqlite3.connect(path)) as connection, connection:
            columns = ("key", "scores", "seal", "label", "status", "resolution", "request")
            (row,) = connection.execute(f"SELECT {', '.join(columns)} FROM answers")
            cells = [c if isinstance(c, bytes) else struct.pack("<d" if isinstance(c, float) else "<q", c) for c in row]
            place = bit % sum(8 * len(cell) for cell in cells)
            for column, was, cell in zip(columns, row, cells, strict=True):
                if place < 8 * len(cell):
                    flipped = bytearray(cell)
                    flipped[place // 8] ^= 1 << place % 8
                    kind = {int: "<q", float: "<d"}.get(type(was))
                    now = bytes(flipped) if kind is None else struct.unpack(kind, flipped)[0]
                    connection.execute(f"UPDATE answers SET {column} = ?", (now,))
                    # SQLite keeps no minus zero: then no bit of the file has changed.
                    kept = connection.execute(f"SELECT {column} FROM answers").fetchone()[0]
                    assume(repr(kept) == repr(now))
                    break
                place -= 8 * len(cell)
        with Ledger(path) as ledger:
            if column == "key":
                assert not ledger.lookup(KEYS[:1], classes=3)[0].any()
            else:
                with pytest.raises(LedgerError, match="changed since"):
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
    with Ledger(path, patience_s=0.01) as ledger:
        ledger.enrol({"ada": 5})
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
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


_VERSION_1 = """
CREATE TABLE meta (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));
CREATE TABLE members (name VARCHAR NOT NULL, quota INTEGER NOT NULL, charged INTEGER NOT NULL, PRIMARY KEY (name));
CREATE TABLE requests (id INTEGER NOT NULL, request_id VARCHAR NOT NULL, number INTEGER NOT NULL,
    member VARCHAR NOT NULL, purpose VARCHAR NOT NULL, charged_at FLOAT NOT NULL, PRIMARY KEY (id));
CREATE TABLE attempts (request INTEGER NOT NULL, position INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (request, position)) WITHOUT ROWID;
CREATE TABLE outcomes (request INTEGER NOT NULL, position INTEGER NOT NULL, outcome VARCHAR NOT NULL,
    at FLOAT NOT NULL, detail VARCHAR, PRIMARY KEY (request, position)) WITHOUT ROWID;
CREATE TABLE answers (key BLOB NOT NULL, status INTEGER NOT NULL, label INTEGER NOT NULL, scores BLOB,
    resolution FLOAT NOT NULL, request INTEGER NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (key)) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', '1');
INSERT INTO members VALUES ('ada', 9, 3), ('ben', 5, 1);
INSERT INTO requests VALUES (1, 'r', 1, 'ben', 'pool', 10.0), (2, 's', 1, 'ada', 'pool', 20.0),
    (3, 't', 1, 'ada', 'verification', 90000.0), (4, 'u', 1, 'ada', 'pool', 90001.0);
INSERT INTO attempts VALUES (1, 0, X'01'), (2, 0, X'02'), (2, 1, X'03'), (3, 0, X'04'), (4, 0, X'05'), (4, 1, X'06');
INSERT INTO outcomes VALUES (1, 0, 'answered', 11.0, NULL), (2, 0, 'answered', 21.0, NULL),
    (2, 1, 'charged', 21.0, 'bad'), (4, 0, 'refunded', 90002.0, 'busy'), (4, 1, 'refunded', 90002.0, 'busy');
INSERT INTO answers VALUES (X'01', 0, 2, NULL, 0.0, 1, 11.0), (X'02', 0, 1, NULL, 0.0, 2, 21.0);
"""


def _version_1(path: Path) -> None:
    secret = bytes(range(32))
    path.with_name(path.name + ".key").write_bytes(secret)
    mark = hmac.new(secret, b"ttca ledger", hashlib.sha256).hexdigest()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_VERSION_1)
        connection.execute("INSERT INTO meta VALUES ('secret', ?)", (mark,))


def test_a_ledger_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """Money, refunds, answers and days of an old file are the same after it is opened, and it works on."""
    path = tmp_path / "ledger.sqlite"
    _version_1(path)
    for _ in range(2):
        with Ledger(path) as ledger:
            assert ledger.balances() == [
                Balance("ada", 9, 3, answered=1, unusable=1, unknown=1, refunded=2),
                Balance("ben", 5, 1, answered=1, unusable=0, unknown=0, refunded=0),
            ]
            assert ledger.paid() == {"pool": 3, "verification": 1}
            assert ledger.spend_by_day() == {"1970-01-01": 3, "1970-01-02": 1}
            known, found = ledger.lookup([b"\1", b"\2", b"\3"], classes=3)
            assert known.tolist() == [True, True, False]
            assert found.labels.tolist() == [2, 1, -1]
    with Ledger(path) as ledger:
        ledger.settle(pay(ledger, KEYS[:2]), KEYS[:2], labels(0, 1))
        assert ledger.balances()[0].charged == 5
        assert ledger.forget("ben").images == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ledger_of_version_2_is_brought_up_to_date(backend: str, tmp_path: Path) -> None:
    """A ledger without claims keeps its books and answers, and from then on nobody is charged for what is in flight."""
    with use(backend):
        target, secret = fresh_place(tmp_path, "ledger")
    with Ledger(target, secret=secret) as ledger:
        ledger.enrol({"ada": 9})
        ledger.settle(pay(ledger, KEYS[:2]), KEYS[:2], labels(0, 1))
        in_flight = pay(ledger, KEYS[2:3])
        before = ledger.balances()

        def older(connection: Connection) -> None:
            _as_version_3(connection)
            connection.exec_driver_sql("DROP TABLE claims")
            connection.exec_driver_sql("UPDATE meta SET value = '2' WHERE name = 'schema'")

        ledger.database.run(older, write=True)
    for _ in range(2):
        with Ledger(target, secret=secret) as ledger:
            assert ledger.balances() == before
            assert ledger.lookup(KEYS[:3], classes=3)[0].tolist() == [True, True, False]
            assert ledger.in_flight(KEYS[:3]) == set()
    with Ledger(target, secret=secret) as ledger:
        bill = Bill("ada", KEYS[2:4], "new", 1, "pool", claim=Claim("elsewhere", 60.0))
        assert isinstance(ledger.book([bill], [])[0], Charge)
        ledger.settle(in_flight, KEYS[2:3], labels(1))
        assert ledger.book([bill], []) == [Taken(frozenset(KEYS[2:3]), frozenset(KEYS[3:4]))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_was_invited_before_stays_so(backend: str, tmp_path: Path) -> None:
    """A token of version 4 is good, its time is unknown, and when it is taken back that is known."""
    with use(backend):
        target, secret = fresh_place(tmp_path, "ledger")
    with Ledger(target, secret=secret) as ledger:
        ledger.enrol({"ada": 9, "ben": 9})
        token = ledger.invite("ada")
        ledger.database.run(as_version_4, write=True)
    with Ledger(target, secret=secret) as ledger:
        assert ledger.member_of(token) == "ada"
        ada, ben = ledger.database.run(roll)
        assert (ada.invited, ada.invited_at, ada.revoked) == (True, None, False)
        assert (ben.invited, ben.invited_at, ben.revoked) == (False, None, False)
        ledger.database.run(lambda connection: revoke(connection, "ada", 7.0), write=True)
        ada, ben = ledger.database.run(roll)
        assert (ada.invited, ada.revoked, ben.revoked) == (False, True, False)
        assert ledger.member_of(token) is None


def _as_version_3(connection: Connection) -> None:
    """Name the hub's columns as version 3 did, without the tables that came after it."""
    run = connection.exec_driver_sql
    as_version_4(connection)
    run("DROP INDEX inputs_by_wanted")
    run("ALTER TABLE inputs DROP COLUMN wanted")
    run("ALTER TABLE inputs ADD COLUMN audit BOOLEAN NOT NULL DEFAULT true")
    run("CREATE INDEX inputs_by_audit ON inputs (context, audit)")
    run("ALTER TABLE leases RENAME COLUMN cross_check TO audit")
    run("UPDATE meta SET value = '3' WHERE name = 'schema'")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hub_of_version_3_goes_on(backend: str, tmp_path: Path) -> None:
    """Images, leases that are out, and answers of a hub with audits are all there, and another member checks them."""
    platform = ScriptedPlatform()
    with use(backend):
        target, secret = fresh_place(tmp_path, "ledger")
    with Ledger(target, secret=secret) as ledger:
        ledger.enrol({"ada": 9, "ben": 9, "cem": 9})
        desk = LeaseDesk(ledger, platform.info)
        desk.load(distinct(4), ["ada"] * 4)
        done, out = desk.issue("ada", 2), desk.issue("ben", 2)
        assert done is not None
        assert out is not None
        desk.take_back(done.id, "ada", truth(done.images))
        ledger.database.run(_as_version_3, write=True)
    with Ledger(target, secret=secret) as ledger:
        desk = LeaseDesk(ledger, platform.info)
        assert desk.load(distinct(4), ["ada"] * 4) == 0
        assert desk.take_back(out.id, "ben", truth(out.images)) == 2
        check = desk.issue("cem", 4)
        assert check is not None
        assert check.cross_check
        assert len(check.images) == 4
        assert desk.progress().answered == 4


def test_an_update_that_fails_leaves_the_old_ledger(tmp_path: Path) -> None:
    """A file whose update breaks in the middle is still a whole ledger of version 1."""
    path = tmp_path / "ledger.sqlite"
    _version_1(path)
    edit(path, "CREATE TABLE members_1 (in_the_way TEXT)")
    with pytest.raises(LedgerError, match="there is already another table"):
        Ledger(path)
    edit(path, "DROP TABLE members_1")
    with Ledger(path) as ledger:
        assert ledger.paid() == {"pool": 3, "verification": 1}


def test_no_byte_of_the_forgotten_is_left_in_the_files(tmp_path: Path) -> None:
    """Name, keys and pictures are in no page of the file and its WAL, though SQLite leaves what is deleted by default.

    Neither are those of a ledger whose pages an older ttca left full of what it had deleted.
    """
    platform, images = ScriptedPlatform(), distinct(6)

    def keep_deleted(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA secure_delete=OFF").close()

    event.listen(Engine, "connect", keep_deleted)
    try:
        with Ledger(tmp_path / "ledger.sqlite") as ledger, Ledger(tmp_path / "ledger.sqlite") as reader:
            ledger.enrol({"Ada Nimue": 9, "ben": 99})
            desk = LeaseDesk(ledger, platform.info)
            desk.load(images, ["Ada Nimue"] * 3 + ["ben"] * 3)
            secrets = [b"Ada Nimue", *ledger.keys(images[:3], fingerprint=platform.info.fingerprint, epoch="pool")]
            pngs = ledger.database.run(lambda c: [bytes(i) for i in c.scalars(select(inputs.c.image))][:3])
            secrets += [png[40:72] for png in pngs]
            lease = desk.issue("ben", 6)
            assert lease is not None
            desk.take_back(lease.id, "ben", truth(lease.images))
            charge = pay(ledger, KEYS[:1], member="ben")
            ledger.abandon(charge, ChargeState.CHARGED, detail="no face of Ada Nimue found")
            reader.balances()
            before = _bytes_of(tmp_path)
            assert all(secret in before for secret in secrets)
            ledger.forget("Ada Nimue")
            after = _bytes_of(tmp_path)
        assert [secret for secret in secrets if secret in after] == []
        assert [secret for secret in secrets if secret in _bytes_of(tmp_path)] == []
    finally:
        event.remove(Engine, "connect", keep_deleted)


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_a_full_disk_is_a_sentence_and_costs_no_record(tmp_path: Path) -> None:
    """When the file cannot grow, the charge is refused whole with what to do, and all that was written stays."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 10_000})
        ledger.settle(pay(ledger, KEYS), KEYS, labels(*[1] * len(KEYS)))
    with Ledger(path) as ledger:
        # SQLite's own limit on a file's pages raises what a full disk raises.
        event.listen(Engine, "begin", _no_room)
        try:
            with pytest.raises(LedgerError, match=r"Expected room on the disk for the ledger .* Free some space"):
                _pay_much(ledger)
        finally:
            event.remove(Engine, "begin", _no_room)
    with Ledger(path) as ledger:
        (ada,) = ledger.balances()
        assert ada.charged == ada.answered + ada.unknown
        assert ada.answered == len(KEYS)
        pay(ledger, KEYS)


def _pay_much(ledger: Ledger) -> None:
    for i in range(100):
        pay(ledger, [bytes([i, j]) * 16 for j in range(64)])


def _no_room(connection: Connection) -> None:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

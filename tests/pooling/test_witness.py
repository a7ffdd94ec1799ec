"""Tests of ledgers that have lost something, that cannot be written, or that lie where nothing is locked."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.pooling.places import as_version_4
from tests.pooling.scripted import KEYS, ScriptedPlatform, distinct, labels, pay
from ttca.errors import LedgerError
from ttca.pooling import database
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Ledger, accept_loss, open_ledger
from ttca.pooling.opening import OlderLedgerError
from ttca.pooling.witness import SECRET_LENGTH, Witness


def spend(path: Path, number: int) -> None:
    """Pay for one more query, and close the ledger."""
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 50})
        ledger.settle(pay(ledger, KEYS[number : number + 1]), KEYS[number : number + 1], labels(1))


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another(path: Path) -> None:
    key = path.with_name(path.name + ".key")
    secret = key.read_bytes()
    path.unlink()
    key.unlink()
    Ledger(path).close()
    key.write_bytes(secret)


def older(path: Path) -> None:
    shutil.copyfile(path.with_name("copy"), path)


@pytest.mark.parametrize("lose", [gone, emptied, another, older])
def test_a_ledger_that_has_lost_requests_is_refused(lose: Callable[[Path], None], tmp_path: Path) -> None:
    """A file that is gone, empty, new or an older copy beside its old key starts no new books, until that is meant."""
    path = tmp_path / "ledger.sqlite"
    spend(path, 0)
    shutil.copyfile(path, path.with_name("copy"))
    spend(path, 1)
    lose(path)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"to hold its 2 requests, got (none|1)\. .* Put the right files back"):
            Ledger(path)
    accept_loss(tmp_path)
    spend(path, 2)
    with Ledger(path) as ledger:
        assert ledger.lookup(KEYS[2:3], classes=3)[0].all()


def test_a_copy_without_its_log_is_refused(tmp_path: Path) -> None:
    """A ledger that is copied while it is written, without what SQLite keeps beside it, is not taken for whole."""
    path, new = tmp_path / "old" / "ledger.sqlite", tmp_path / "new"
    new.mkdir()
    spend(path, 0)
    with Ledger(path) as ledger:
        pay(ledger, KEYS[1:2])
        for name in ("ledger.sqlite", "ledger.sqlite.key"):
            shutil.copyfile(path.with_name(name), new / name)
        with pytest.raises(LedgerError, match=r"to hold its 2 requests, got 1\. .* copied without ledger.sqlite-wal"):
            Ledger(new / "ledger.sqlite")
        shutil.copyfile(path.with_name("ledger.sqlite-wal"), new / "ledger.sqlite-wal")
        Ledger(new / "ledger.sqlite").close()


def test_a_hub_s_requests_are_seen_too(tmp_path: Path) -> None:
    """What members are charged by leases is noticed when it is gone."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 9})
        desk = LeaseDesk(ledger, ScriptedPlatform().info)
        desk.load(distinct(2), ["ada"] * 2)
        assert desk.issue("ada", 1) is not None
    path.unlink()
    with pytest.raises(LedgerError, match="to hold its 1 requests"):
        Ledger(path)


def test_the_secret_outlives_its_witness(tmp_path: Path) -> None:
    """The count stands behind the secret, which stays as it is; an older version's key has none, and is taken."""
    path, key = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite.key"
    Ledger(path).close()
    secret = key.read_bytes()
    assert len(secret) == SECRET_LENGTH
    for number in range(3):
        spend(path, number)
        assert key.read_bytes() == secret + (number + 1).to_bytes(8, "little")
        assert key.stat().st_mode & 0o777 == 0o600
    key.write_bytes(secret)
    spend(path, 3)
    assert key.read_bytes() == secret + (4).to_bytes(8, "little")


def test_it_is_written_seldom_while_requests_come(tmp_path: Path) -> None:
    """The first request is noted at once, later ones every few seconds, the last one when the ledger is closed."""
    key, now = tmp_path / "key", [100.0]
    key.write_bytes(bytes(SECRET_LENGTH))
    witness = Witness(tmp_path / "ledger.sqlite", key, clock=lambda: now[0])

    def seen() -> int:
        return int.from_bytes(key.read_bytes()[SECRET_LENGTH:], "little")

    for seconds, last, noted in ((0.0, 1, 1), (1.0, 2, 1), (3.9, 3, 1), (0.2, 4, 4), (0.0, 5, 4)):
        now[0] += seconds
        witness.saw(last)
        assert seen() == noted
    witness.saw(0, now=True)
    assert seen() == 5
    # Another program was further.
    key.write_bytes(bytes(SECRET_LENGTH) + (9).to_bytes(8, "little"))
    witness.saw(6, now=True)
    assert seen() == 9


# -- nothing can be written -------------------------------------------------------------------------------------


def held(path: Path) -> dict[str, bytes]:
    """Return what lies beside a ledger, and in it."""
    return {p.name: p.read_bytes() for p in path.parent.iterdir()}


def test_a_ledger_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A ledger that is only read is left as it is to the last byte, and no file is made beside it."""
    path = tmp_path / "mine" / "ledger.sqlite"
    spend(path, 0)
    before = held(path)
    for file in path.parent.iterdir():
        file.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with open_ledger(path.parent, read_only=True) as ledger:
            assert ledger.balances()[0].charged == 1
            assert ledger.lookup(KEYS[:1], classes=3)[0].all()
            with pytest.raises(LedgerError, match=r"to open the ledger .* for writing"):
                pay(ledger, KEYS[1:2])
    finally:
        path.parent.chmod(0o700)
    assert held(path) == before


def test_a_ledger_is_read_while_another_program_writes_it(tmp_path: Path) -> None:
    """What was written a moment ago, and is in the log alone, is read too."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as writer:
        writer.enrol({"ada": 9})
        pay(writer, KEYS[:3])
        with open_ledger(tmp_path, read_only=True) as ledger:
            assert ledger.balances()[0].charged == 3


def test_an_older_ledger_is_brought_up_to_date_where_it_can_be(tmp_path: Path) -> None:
    """Reading alone changes no older ledger: it says so, or opens it for writing once."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.enrol({"ada": 9})
        pay(ledger, KEYS[:3])
        ledger.database.run(as_version_4, write=True)
    with pytest.raises(OlderLedgerError, match="got an older or an empty one"):
        Ledger(path, read_only=True)
    with open_ledger(tmp_path, read_only=True) as ledger:
        assert ledger.balances()[0].charged == 3
    Ledger(path, read_only=True).close()


# -- nothing is locked ------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="locks are other ones there")
def test_a_folder_that_keeps_no_locks_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no locks, a sentence says so, long before SQLite would give up waiting for one."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", none)
    began = time.monotonic()
    with pytest.raises(LedgerError, match=r"Expected a folder that locks files .* No locks available\. .*NFS"):
        Ledger(tmp_path / "ledger.sqlite")
    assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    """A database that cannot be turned to a write-ahead log is none that several programs may share."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(":memory:")) as memory:
        ledger = database.Database(path)
        # SQLite says so of a database in memory as it does of a folder without shared memory.
        with pytest.raises(LedgerError, match="Expected a folder that locks files"):
            ledger._configure(memory, None)
        ledger.close()


def test_no_probe_is_left(tmp_path: Path) -> None:
    """Whether a folder locks is found out without a trace, and while another program holds the ledger."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path), Ledger(path):
        assert {p.name for p in tmp_path.iterdir()} <= {
            "ledger.sqlite", "ledger.sqlite.key", "ledger.sqlite-wal", "ledger.sqlite-shm",
        }  # fmt: skip

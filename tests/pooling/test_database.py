"""Tests of where a ledger is kept: URLs, passwords, and a PostgreSQL server that goes away and comes back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import make_url

from benchmarks._postgres import PostgresServer
from tests.pooling.places import postgres
from tests.pooling.scripted import KEYS, ScriptedPlatform, distinct, labels, pay, truth
from ttca.answers import Answers
from ttca.errors import ActionError, ChargeState, LedgerError
from ttca.images import Images
from ttca.pooling import database
from ttca.pooling.ledger import Balance, Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.pooling.titles import take_title


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Give a server that may be stopped without harm to other tests."""
    own = PostgresServer()
    try:
        yield own
    finally:
        own.remove()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://ada:hunter2@localhost/pool", "without a password.*PGPASSWORD"),
        ("postgresql://localhost/pool?password=hunter2", "without a password.*PGPASSWORD"),
        ("mysql://localhost/pool", "Expected a file or a postgresql:// URL for the ledger, got mysql"),
        ("postgresql://ada:hunter2@:no:port/x", "Expected a ledger's URL such as postgresql://host/name"),
    ],
)
def test_a_url_that_will_not_do_is_a_sentence_without_its_password(url: str, sentence: str, tmp_path: Path) -> None:
    """Other databases, unreadable URLs and passwords in them are refused, and the password is not repeated."""
    with pytest.raises(LedgerError, match=sentence) as caught:
        Ledger(url, secret=tmp_path / "key")
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "key").exists()


def test_a_server_needs_a_named_secret() -> None:
    """Everybody who shares a ledger must use the same secret, so none is made up."""
    with pytest.raises(LedgerError, match="Expected the file with the secret of a ledger on a server, got none"):
        Ledger("postgresql://localhost/pool")


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    """After the patience given, the error says where no server answered and what to do."""
    url = f"postgresql://postgres@/postgres?host={tmp_path}"
    with pytest.raises(LedgerError, match=r"Expected the ledger postgresql.* to work, .* Check that the server runs"):
        Ledger(url, secret=tmp_path / "key", patience_s=0.05)


class GreedyServer(threading.Thread):
    """Speaks no TLS and asks everybody for their password in clear; remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.heard = b""

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                while said := connection.recv(4096):
                    self.heard += said
                    wants_tls = said[4:8] == struct.pack("!I", 80877103)
                    connection.sendall(b"N" if wants_tls else b"R" + struct.pack("!II", 8, 3))


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> Iterator[GreedyServer]:
    """Give a server that would take a password in clear, and a password for it."""
    monkeypatch.setenv("PGPASSWORD", "hunter2hunter2")
    server = GreedyServer()
    server.start()
    try:
        yield server
    finally:
        server.listening.shutdown(socket.SHUT_RDWR)
        server.listening.close()
        server.join()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("", "(to speak TLS|to prove who it is)"),
        ("&sslmode=require", "to speak TLS"),
        ("&sslmode=disable", "to ask for the password by SCRAM"),
        ("&sslmode=disable&require_auth=password", "to ask for the password by SCRAM"),
    ],
)
def test_no_password_goes_in_clear_off_this_machine(
    more: str, sentence: str, greedy: GreedyServer, tmp_path: Path
) -> None:
    """A server off this machine that refuses TLS, or asks for the password itself, gets none, and is named at once."""
    url = f"postgresql://ada@db.example.org:{greedy.port}/pool?hostaddr=127.0.0.1{more}"
    began = time.monotonic()
    with pytest.raises(LedgerError, match=f"Expected the ledger's server .* {sentence}"):
        Ledger(url, secret=tmp_path / "key")
    assert time.monotonic() - began < 10
    assert b"hunter2" not in greedy.heard


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("postgresql:///pool", True),
        ("postgresql://localhost/pool", True),
        ("postgresql://127.0.0.1:5432/pool", True),
        ("postgresql://[::1]:5432/pool", True),
        ("postgresql:///pool?host=/var/run/postgresql", True),
        ("postgresql:///pool?host=localhost&host=127.0.0.1", True),
        ("postgresql://db.example.org/pool", False),
        ("postgresql://10.0.0.5/pool", False),
        ("postgresql:///pool?host=localhost,db.example.org", False),
        ("postgresql:///pool?host=localhost:5432&host=db.example.org:5432", False),
        ("postgresql://localhost/pool?hostaddr=10.0.0.5", False),
        ("postgresql:///pool?service=shared", False),
    ],
)
def test_a_server_is_met_with_care_unless_it_is_here(url: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a URL may lead off this machine, TLS with a proof of who answers and SCRAM are asked for."""
    care = database._care(make_url(url))
    assert care == ({} if here else {"sslmode": "verify-full", "require_auth": "scram-sha-256"})
    monkeypatch.setenv("PGHOST", "db.example.org")
    assert bool(database._care(make_url(url))) == (not here or url == "postgresql:///pool")


def test_two_actions_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """An action whose name another folder's has on the ledger is refused; the same folder comes back, moved or not."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(2):
            take_title(ledger, "faces", one)
        with pytest.raises(ActionError, match=r"a name that no other action has .* got 'faces'.* No query was spent"):
            take_title(ledger, "faces", two)
        take_title(ledger, "hands", two)
        one.rename(tmp_path / "moved")
        take_title(ledger, "faces", tmp_path / "moved")


def test_another_secret_is_refused_at_once(tmp_path: Path) -> None:
    """Whoever opens a shared ledger with a secret of their own would find no answer, and is told so."""
    url = postgres().database()
    Ledger(url, secret=tmp_path / "one").close()
    with pytest.raises(LedgerError, match=r"secret of the ledger .* got another ledger's"):
        Ledger(url, secret=tmp_path / "two")
    Ledger(url, secret=tmp_path / "one").close()


def test_a_database_of_another_program_is_left_as_it_was(tmp_path: Path) -> None:
    """Tables that are no ledger's are named, and nothing is added to them."""
    import psycopg

    url = postgres().database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(LedgerError, match=r"with the tables bookmarks\. Give the ledger a database of its own"):
        Ledger(url, secret=tmp_path / "key")
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    assert found == [("bookmarks",)]


@pytest.mark.full
def test_every_step_survives_a_restart_of_the_server(server: PostgresServer, tmp_path: Path) -> None:
    """Enrolling, charging, settling, refunding and looking up each go on, once each, after a crash before them."""
    with Ledger(server.database(), secret=tmp_path / "key") as ledger:
        crash(server)
        ledger.enrol({"ada": 20}, cap=20)
        crash(server)
        charge = pay(ledger, KEYS[:3])
        crash(server)
        ledger.settle(charge, KEYS[:3], labels(0, 1, 2))
        refunded = pay(ledger, KEYS[3:5])
        crash(server)
        ledger.abandon(refunded, ChargeState.REFUNDED, detail="busy")
        crash(server)
        known, found = ledger.lookup(KEYS[:4], classes=3)
        assert known.tolist() == [True, True, True, False]
        assert found.labels[:3].tolist() == [0, 1, 2]
        assert ledger.balances() == [Balance("ada", 20, 3, answered=3, unusable=0, unknown=0, refunded=2)]


def crash(server: PostgresServer) -> None:
    """Stop the server as a power cut would, and start it again."""
    server.stop()
    server.start()


@pytest.mark.full
def test_a_pool_goes_on_while_the_server_is_restarted(server: PostgresServer, tmp_path: Path) -> None:
    """With crashes in the middle of a run, every query is answered, paid and sent exactly once."""
    n = 400
    restarted = threading.Event()

    def slow(_number: int, images: Images) -> Answers:
        time.sleep(0.002)
        return truth(images)

    platform = ScriptedPlatform(slow)
    with Ledger(server.database(), secret=tmp_path / "key") as ledger:
        pool = QueryPool(platform, ledger, [Member("ada", n)], pace=Pace(concurrency=8, batch=2))

        def restart() -> None:
            for share in (0.2, 0.5):
                while platform.queries < share * n:
                    time.sleep(0.001)
                crash(server)
            restarted.set()

        thread = threading.Thread(target=restart)
        thread.start()
        answers = pool.ask(distinct(n))
        thread.join()
        np.testing.assert_array_equal(answers.scores, truth(distinct(n)).scores)
        assert restarted.is_set()
        assert platform.queries == n
        assert ledger.balances() == [Balance("ada", n, n, answered=n, unusable=0, unknown=0, refunded=0)]

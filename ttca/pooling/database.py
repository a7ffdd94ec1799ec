"""Where a ledger is kept: an SQLite file or a PostgreSQL server, transactions, and what goes wrong with them."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy.dialects import postgresql, sqlite

from ttca.errors import LedgerError, MissingExtraError

__all__ = ["Database", "Insert", "read_secret"]

T = TypeVar("T")
Insert = sqlite.Insert | postgresql.Insert

#: How long to wait for another program that writes to the file, or for a server that is started again.
PATIENCE_S = 60.0
#: More threads than any pool or hub has.
_MOST_CONNECTIONS = 128
_LOCK = 0x77CA
_SHARE = sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK))
_EXCLUDE = sa.select(sa.func.pg_advisory_xact_lock(_LOCK))
_NOW = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))
#: A host that vanished is given up, instead of waited for until the system's own patience ends.
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3}


class Database:
    """One engine and its transactions.

    Parameters
    ----------
    target : Path or str
        A file's path, or a URL such as ``postgresql://host/name``. A password belongs in ``PGPASSWORD`` or
        ``~/.pgpass``.
    patience_s : float
        Seconds to wait for another program's lock, or for a server that does not answer.
    sleep, clock : callable
        Passed in by tests.

    Raises
    ------
    LedgerError
        If the folder cannot be made, the URL is of another kind of database or carries a password.
    """

    def __init__(
        self,
        target: Path | str,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s, self._sleep, self._monotonic = patience_s, sleep, clock
        # SQLite has one writer; waiting on a lock here is cheaper than waiting in its busy handler.
        self._write_lock = threading.Lock()
        self._writer: sa.Connection | None = None
        self._inserts: dict[tuple[str, tuple[str, ...], bool], str] = {}
        #: The file, None for a server.
        self.path: Path | None = None
        if isinstance(target, str) and "://" in target:
            self.engine = self._server(target)
            #: For people, without any password.
            self.name = self.engine.url.render_as_string(hide_password=True)
        else:
            self.path = Path(target)
            self.name = str(self.path)
            self.engine = self._file(self.path)

    @property
    def is_server(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.path is None

    @property
    def place(self) -> str:
        """The same for two that are kept in the same place."""
        return self.name if self.path is None else str(self.path.resolve())

    def insert(self, table: sa.Table) -> Insert:
        """Return an INSERT that can say what happens to a row that is already there."""
        return postgresql.insert(table) if self.is_server else sqlite.insert(table)

    def add(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, new: bool = False
    ) -> None:
        """Insert rows of plain values, all with the same columns; ``new``: but for those that are there already.

        Handed to the driver as they are: SQLAlchemy's own way through a row takes longer than SQLite's.
        """
        if not rows:
            return
        columns = tuple(rows[0])
        kind = (table.name, columns, new)
        if kind not in self._inserts:
            mark = "%s" if self.is_server else "?"
            self._inserts[kind] = (
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
                + (" ON CONFLICT DO NOTHING" if new else "")
            )
        connection.exec_driver_sql(self._inserts[kind], list(map(itemgetter(*columns), rows)))

    def share(self, connection: sa.Connection) -> None:
        """Keep :meth:`exclude` waiting until this transaction ends. (An SQLite file has one writer anyway.)"""
        if self.is_server:
            connection.execute(_SHARE)

    def exclude(self, connection: sa.Connection) -> None:
        """Wait for every transaction that shares, and let none begin until this one ends."""
        if self.is_server:
            connection.execute(_EXCLUDE)

    def now(self, connection: sa.Connection) -> float:
        """Return the seconds since the epoch: the server's, which all machines share, or this machine's."""
        return float(connection.execute(_NOW).scalar_one()) if self.is_server else time.time()

    def day(self, seconds: sa.ColumnElement[float]) -> sa.ColumnElement[int]:
        """Return the number of the UTC day of a time in seconds since the epoch."""
        days = seconds / 86400.0
        # A cast rounds on one side and cuts on the other.
        return sa.cast(sa.func.floor(days) if self.is_server else days, sa.Integer)

    def run(self, work: Callable[[sa.Connection], T], *, write: bool = False) -> T:
        """Return ``work(connection)`` of one transaction, done whole or not at all.

        ``work`` may be called again where a server broke the connection or preferred another transaction; then it
        may also have been done already, which it must bear.

        Raises
        ------
        LedgerError
            Saying what the database had against it.
        """
        try:
            if not self.is_server:
                return self._once(work, write)
            done: T
            retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception(_passing),
                wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
                stop=_stop_after(self._patience_s, self._monotonic),
                sleep=self._sleep,
                reraise=True,
            )
            done = retrying(self._once, work, write)
            return done
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            reason = str(getattr(error, "orig", None) or error)
            raise LedgerError(_sentence(self.name, reason, server=self.is_server)) from None

    def close(self) -> None:
        """Close every connection."""
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self.engine.dispose()

    def _once(self, work: Callable[[sa.Connection], T], write: bool) -> T:
        if write and not self.is_server:
            with self._write_lock:
                # Kept open: for a request of one query, taking a connection from the pool is half of the work.
                if self._writer is None:
                    self._writer = self.engine.connect().execution_options(ttca_write=True)
                with self._writer.begin():
                    return work(self._writer)
        with self.engine.connect() as connection, connection.begin():
            return work(connection)

    def _file(self, path: Path) -> sa.Engine:
        if sqlite3.sqlite_version_info < (3, 35):
            raise LedgerError(
                f"Expected SQLite 3.35 or newer, got {sqlite3.sqlite_version}. Use a Python that brings a newer one, "
                "or a ledger on PostgreSQL."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"Expected a folder for the ledger at {path.parent}, got: {error}.") from None
        # Not a URL in a string: a "?" in a folder's name would end the path.
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": self._patience_s, "check_same_thread": False},
            max_overflow=_MOST_CONNECTIONS,
        )
        sa.event.listen(engine, "connect", self._configure)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def _server(self, target: str) -> sa.Engine:
        try:
            url = sa.make_url(target)
        except (sa.exc.ArgumentError, ValueError):
            # Not repeated: it may hold a password.
            raise LedgerError(
                "Expected a ledger's URL such as postgresql://host/name, got one that cannot be read. Correct it."
            ) from None
        if url.get_backend_name() != "postgresql":
            raise LedgerError(
                f"Expected a file or a postgresql:// URL for the ledger, got {url.get_backend_name()}://. "
                "Other databases are not supported."
            )
        if url.password is not None or "password" in url.query:
            raise LedgerError(
                "Expected the ledger's URL without a password, got one with it: files are copied and shown. "
                "Put it in the variable PGPASSWORD or in ~/.pgpass."
            )
        try:
            # A connection that died while it lay in the pool is found out before it is used.
            return sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                pool_size=8,
                max_overflow=_MOST_CONNECTIONS - 8,
                connect_args=_LIBPQ,
            )
        except ImportError:
            raise MissingExtraError("a ledger on PostgreSQL", "postgres") from None

    def _configure(self, connection: Any, _record: Any) -> None:
        # SQLAlchemy, not the driver, decides when a transaction begins.
        connection.isolation_level = None
        # SQLite does not wait for its lock when it turns a new file to WAL; programs that start together must.
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").close()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
        connection.execute("PRAGMA synchronous=NORMAL").close()


def read_secret(path: Path, *, used: bool) -> bytes:
    """Return the 32 bytes under which a ledger names images; written on first use, mode 0600.

    Parameters
    ----------
    path : Path
    used : bool
        Whether the ledger holds anything: then a missing secret is an error, for no answer could be found again.

    Raises
    ------
    LedgerError
    """
    try:
        if not path.exists():
            if used:
                raise LedgerError(
                    f"Expected the ledger's secret in {path}, got no such file. Without it no answer can be "
                    "found again: put it back from where the ledger was copied."
                )
            # Written whole under another name first: a kill never leaves half a secret.
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        secret = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"Expected to read or write the ledger's secret in {path}, got: {error}. Check the folder's permissions."
        ) from None
    if len(secret) != 32:
        raise LedgerError(f"Expected 32 bytes in {path}, got {len(secret)}. Put the original file back.")
    return secret


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("ttca_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


#: PostgreSQL's words for: connection lost, server shutting down or starting, deadlock, serialisation.
_PASSING = ("08", "57P01", "57P02", "57P03", "40001", "40P01", "53300")


def _passing(error: BaseException) -> bool:
    """Whether trying again may help: the server went away, or two transactions were in each other's way."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The connection itself failed, or could not be made; a server that knows neither user nor database never will.
        refused = any(word in str(error.orig) for word in ("does not exist", "authentication", "pg_hba"))
        return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not refused
    return str(state).startswith(_PASSING)


class _stop_after(tenacity.stop.stop_base):
    """Stop so many seconds of the given clock after the first try."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._end, self._clock = clock() + seconds, clock

    def __call__(self, _state: tenacity.RetryCallState) -> bool:
        return self._clock() >= self._end


def _sentence(name: str, reason: str, *, server: bool) -> str:
    reason = " ".join(reason.split())
    if server:
        if "password" in reason or "authentication" in reason:
            return f"Expected to be let into the ledger {name}, got: {reason}. Check the user and PGPASSWORD."
        return f"Expected the ledger {name} to work, got: {reason}. Check that the server runs, and run again."
    if "locked" in reason:
        return f"Expected to write to the ledger {name}, but another program holds it ({reason}). Stop that one first."
    if "full" in reason:
        return f"Expected room on the disk for the ledger {name}, got: {reason}. Free some space and run again."
    if "malformed" in reason or "not a database" in reason:
        return f"Expected an SQLite ledger in {name}, got a damaged or foreign file ({reason}). Restore a copy of it."
    if "readonly" in reason or "unable to open" in reason:
        return f"Expected to open the ledger {name} for writing, got: {reason}. Check the folder's permissions."
    return f"Expected the ledger {name} to work, got: {reason}."

"""Where a ledger is kept: an SQLite file or a PostgreSQL server, transactions, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy.dialects import postgresql, sqlite

from ttca.errors import LedgerError, MissingExtraError
from ttca.pooling import schema
from ttca.pooling.witness import SECRET_LENGTH
from ttca.private import close_to_others, private

if sys.platform != "win32":
    import fcntl

__all__ = ["Database", "Insert", "found", "marks", "read_secret"]

T = TypeVar("T")
Insert = sqlite.Insert | postgresql.Insert

#: How long to wait for another program that writes to the file, or for a server that is started again.
PATIENCE_S = 60.0
#: Connections to a file at once.
_OF_A_FILE = 8
#: Connections to a server: more than any pool or hub has threads.
_MOST_CONNECTIONS = 128
#: Rows that are written by one call of SQLite, and how many statements it keeps ready: one for each number of rows.
_AT_ONCE, _READY = 32, 512
#: Of rows longer than this, SQLite writes a great many values faster row by row: it copies those of one call first.
_SHORT, _MANY_VALUES = 6, 600
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
    read_only : bool
        Whether a file is only read, also where nothing can be written. A server has rights of its own.
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
        read_only: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.read_only = read_only
        self._patience_s, self._sleep, self._monotonic = patience_s, sleep, clock
        # SQLite has one writer; waiting on a lock here is cheaper than waiting in its busy handler.
        self._write_lock = threading.Lock()
        self._writer: sa.Connection | None = None
        #: The file, None for a server.
        self.path: Path | None = None
        if isinstance(target, str) and "://" in target:
            self.engine = self._server(target)
            #: For people, without any password.
            self.name = self.engine.url.render_as_string(hide_password=True)
        else:
            self.path = Path(target)
            self.name = str(self.path)
            self.engine = self._readable(self.path) if read_only else self._file(self.path)

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
        """Insert rows of plain values, all with the same columns; ``new``: but for those that are there already."""
        if rows:
            columns = tuple(rows[0])
            self.add_rows(connection, table, columns, [tuple(map(row.__getitem__, columns)) for row in rows], new=new)

    def add_rows(
        self,
        connection: sa.Connection,
        table: sa.Table,
        columns: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
        *,
        new: bool = False,
    ) -> None:
        """Insert the same rows as tuples, in the order of the columns.

        Handed to the driver as they are: SQLAlchemy's own way through a row takes longer than SQLite's.
        """
        head = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES"
        self.change(connection, f"{head} {{}}{' ON CONFLICT DO NOTHING' if new else ''}", rows)

    def change(self, connection: sa.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run a statement for some rows, which it takes in place of ``{}``; return how many rows of a table it changed.

        A file gets dozens of them at a time: each time that SQLite is called, other threads go on, and come first.
        """
        if not rows:
            return 0
        one, changed = f"({marks(len(rows[0]))})", 0
        if self.is_server:
            return connection.exec_driver_sql(statement.format(one).replace("?", "%s"), list(rows)).rowcount
        if len(rows) * len(rows[0]) > _MANY_VALUES and len(rows[0]) > _SHORT:
            return _driver(connection).executemany(statement.format(one), rows).rowcount
        run = _driver(connection).execute
        for i in range(0, len(rows), _AT_ONCE):
            part = rows[i : i + _AT_ONCE]
            text = statement.format(", ".join([one] * len(part)))
            changed += run(text, tuple(chain.from_iterable(part))).rowcount
        return changed

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
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", None) or error)
            raise LedgerError(_sentence(self.name, reason, server=self.is_server)) from None

    def scrub(self) -> None:
        """Write the database anew, so that no free page of a file and no write-ahead log keeps what was deleted.

        Raises
        ------
        LedgerError
            If there is no room for it, or somebody else reads or writes all the time.
        """
        # Not in a transaction: both databases refuse that.
        with self._write_lock, self.engine.connect() as connection:
            try:
                if self.is_server:
                    run = connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql
                    for table in schema.tables.sorted_tables:
                        run(f"VACUUM FULL {table.name}")
                    return
                driver: Any = connection.connection.driver_connection
                driver.execute("VACUUM").close()
                (busy, *_) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except (sa.exc.DBAPIError, sqlite3.Error) as error:
                reason = str(getattr(error, "orig", None) or error)
                raise LedgerError(_sentence(self.name, reason, server=self.is_server)) from None
        if busy:
            raise LedgerError(
                f"Expected {self.name} for this program alone for a moment, but another one reads it. Stop that one "
                "first."
            )

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
        _check_locks(path)
        # SQLite makes its other files as this one is.
        close_to_others(path)
        # Not a URL in a string: a "?" in a folder's name would end the path.
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": self._patience_s, "check_same_thread": False, "cached_statements": _READY},
            # One that writes, and a few that read: each holds three files open, and whoever waits here waits for
            # milliseconds. A hub's forty threads that each open a database at once exhaust files and SQLite's locks.
            pool_size=_OF_A_FILE,
            max_overflow=0,
            pool_timeout=self._patience_s,
        )
        sa.event.listen(engine, "connect", self._configure)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def _readable(self, path: Path) -> sa.Engine:
        def connect() -> sqlite3.Connection:
            # Without a log nobody writes; and only so can SQLite read where it can write nothing at all.
            alone = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro{alone}", uri=True, timeout=self._patience_s, check_same_thread=False
            )
            connection.isolation_level = None
            return connection

        engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
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
                connect_args=_LIBPQ | _care(url),
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
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
        if mode != "wal":
            raise LedgerError(_no_locks(self.path or Path(), "no write-ahead log"))
        connection.execute("PRAGMA synchronous=NORMAL").close()
        # Some libraries leave in the file what was deleted.
        connection.execute("PRAGMA secure_delete=ON").close()


def marks(n: int) -> str:
    """Return the place holders of so many values in a statement's text."""
    return ", ".join("?" * n)


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
            with open(partial, "xb", opener=private) as file:
                file.write(secrets.token_bytes(SECRET_LENGTH))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        secret = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"Expected to read or write the ledger's secret in {path}, got: {error}. Check the folder's permissions."
        ) from None
    # What follows the secret says how much the ledger has held: see ttca/pooling/witness.py.
    if len(secret) < SECRET_LENGTH:
        raise LedgerError(f"Expected {SECRET_LENGTH} bytes in {path}, got {len(secret)}. Put the original file back.")
    return secret[:SECRET_LENGTH]


def _check_locks(ledger: Path) -> None:
    """Raise at once where the folder keeps no locks: SQLite would take that for a lock of somebody else, and wait."""
    if sys.platform == "win32":
        return
    probe = ledger.with_name(f".{ledger.name}.locks")
    try:
        descriptor = os.open(probe, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return  # What cannot be written says so itself.
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # another program tries the same
            raise LedgerError(_no_locks(ledger, error.strerror or "no locks")) from None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink()


def _no_locks(ledger: Path, got: str) -> str:
    return (
        f"Expected a folder that locks files as SQLite needs for {ledger}, got: {got}. Network and shared folders "
        "(NFS, SMB, a virtual machine's) often do not. Put the action in a folder of this machine's own disk, or "
        "its ledger on PostgreSQL."
    )


def found(connection: sa.Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the rows that a statement finds or changes, given as text with ``?`` for each value.

    For what every request runs: making a statement of SQLAlchemy ready takes longer than SQLite takes to run it, and
    its way through a row longer than SQLite's.
    """
    if _is_file(connection):
        return _driver(connection).execute(statement, tuple(values)).fetchall()
    result = connection.exec_driver_sql(statement.replace("?", "%s"), tuple(values))
    return [tuple(row) for row in result] if result.returns_rows else []


def _is_file(connection: sa.Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    """Return the driver's own connection to a file, on which SQLAlchemy has begun a transaction."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("ttca_write", False)
    _driver(connection).execute("BEGIN IMMEDIATE" if write else "BEGIN")


#: PostgreSQL's words for: connection lost, server shutting down or starting, deadlock, serialization.
_PASSING = ("08", "57P01", "57P02", "57P03", "40001", "40P01", "53300")


def _passing(error: BaseException) -> bool:
    """Whether trying again may help: the server went away, or two transactions were in each other's way."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The connection itself failed, or could not be made; a server that knows neither user nor database never will.
        refused = any(word in str(error.orig) for word in _REFUSALS)
        return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not refused
    return str(state).startswith(_PASSING)


#: What a server, or libpq in its place, says where trying again changes nothing.
_REFUSALS = ("does not exist", "authentication", "pg_hba", "SSL", "certificate", "require_auth", "SCRAM")


def _care(url: sa.URL) -> dict[str, str]:
    """Return how a server off this machine is met: it must prove who it is, and is never told the password itself."""
    if _is_here(url):
        return {}
    given = {str(name).lower() for name in url.query}
    wanted = {"sslmode": "verify-full", "require_auth": "scram-sha-256"}
    return {name: value for name, value in wanted.items() if name not in given or name == "require_auth"}


def _is_here(url: sa.URL) -> bool:
    """Whether every host a URL may lead to is this machine, as far as it, and libpq's variables, say."""
    said = {**url.query, "host": url.query.get("host", url.host)}
    if "service" in said or os.environ.get("PGSERVICE"):
        return False
    hosts: list[str] = []
    for name, variable in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR")):
        value = said.get(name) or os.environ.get(variable) or ""
        hosts += [h for part in ([value] if isinstance(value, str) else value) for h in part.split(",")]
    return all(_is_local(host.rpartition(":")[0] if host.count(":") == 1 else host) for host in hosts)


def _is_local(host: str) -> bool:
    # None at all, and a folder, mean a socket of this machine.
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _stop_after(tenacity.stop.stop_base):
    """Stop so many seconds of the given clock after the first try."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._end, self._clock = clock() + seconds, clock

    def __call__(self, _state: tenacity.RetryCallState) -> bool:
        return self._clock() >= self._end


def _sentence(name: str, reason: str, *, server: bool) -> str:
    reason = " ".join(reason.split())
    if server:
        if "root certificate" in reason or "certificate verify failed" in reason or "server certificate for" in reason:
            return (
                f"Expected the ledger's server {name} to prove who it is by a certificate, got: {reason}. Put its "
                "authority's certificate in ~/.postgresql/root.crt, or name it in the URL: ?sslrootcert=FILE."
            )
        if "SSL" in reason:
            return (
                f"Expected the ledger's server {name} to speak TLS, as every server off this machine must, got: "
                f"{reason}. Ask whoever runs it to turn TLS on."
            )
        if "require_auth" in reason or "authentication method requirement" in reason:
            return (
                f"Expected the ledger's server {name} to ask for the password by SCRAM, which never sends it, got: "
                f"{reason}. Ask whoever runs it to set password_encryption and pg_hba.conf to scram-sha-256."
            )
        if "password" in reason or "authentication" in reason:
            return f"Expected to be let into the ledger {name}, got: {reason}. Check the user and PGPASSWORD."
        return f"Expected the ledger {name} to work, got: {reason}. Check that the server runs, and run again."
    if "locking protocol" in reason:
        return _no_locks(Path(name), reason)
    if "locked" in reason:
        return f"Expected to write to the ledger {name}, but another program holds it ({reason}). Stop that one first."
    if "full" in reason:
        return f"Expected room on the disk for the ledger {name}, got: {reason}. Free some space and run again."
    if "malformed" in reason or "not a database" in reason:
        return f"Expected an SQLite ledger in {name}, got a damaged or foreign file ({reason}). Restore a copy of it."
    if "readonly" in reason or "unable to open" in reason:
        return f"Expected to open the ledger {name} for writing, got: {reason}. Check the folder's permissions."
    return f"Expected the ledger {name} to work, got: {reason}."

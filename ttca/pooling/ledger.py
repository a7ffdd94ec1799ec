"""The ledger: an append-only record of every attempt, and one accepted answer per query."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects.sqlite import insert

from ttca.answers import Answers
from ttca.errors import ChargeState, LedgerError, QuotaError, TTCAError
from ttca.images import Images

__all__ = ["Balance", "Charge", "Ledger"]

SCHEMA_VERSION = 1
#: How long to wait for another program that writes to the file.
BUSY_TIMEOUT_S = 60

_schema = sa.MetaData()
_meta = sa.Table(
    "meta",
    _schema,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
# ``charged`` is what a member has paid, net of refunds. It repeats what the attempts say, so that a quota is
# checked and charged by one statement instead of a sum over every attempt ever made.
_members = sa.Table(
    "members",
    _schema,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("quota", sa.Integer, nullable=False),
    sa.Column("charged", sa.Integer, nullable=False),
)
_requests = sa.Table(
    "requests",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("request_id", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("member", sa.String, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("charged_at", sa.Float, nullable=False),
)
_attempts = sa.Table(
    "attempts",
    _schema,
    sa.Column("request", sa.Integer, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("key", sa.LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)
# An attempt without an outcome is *unknown*: its process was killed while it was in flight, and nobody can say
# whether the platform saw it. Nothing has to be written at a crash for that to be true.
_outcomes = sa.Table(
    "outcomes",
    _schema,
    sa.Column("request", sa.Integer, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("detail", sa.String),
    sqlite_with_rowid=False,
)
_answers = sa.Table(
    "answers",
    _schema,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("scores", sa.LargeBinary),
    sa.Column("resolution", sa.Float, nullable=False),
    sa.Column("request", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)

ANSWERED = "answered"


@dataclass(frozen=True)
class Charge:
    """One request's worth of attempts, already paid: ``n`` queries by ``member``."""

    request: int
    member: str
    n: int


@dataclass(frozen=True)
class Balance:
    """What one member has paid, in queries.

    ``charged`` = ``answered`` + ``unusable`` + ``unknown``; refunds are not in it. ``unknown`` are attempts of
    which nobody can say whether the platform processed them; ``unusable`` those it did, to no avail.
    """

    member: str
    quota: int
    charged: int
    answered: int
    unusable: int
    unknown: int
    refunded: int

    @property
    def remaining(self) -> int:
        """Queries the member can still pay."""
        return max(0, self.quota - self.charged)


class Ledger:
    """An SQLite file that survives ``kill -9`` at any moment and never asks twice what was answered.

    Parameters
    ----------
    path : Path or str
        The file. Next to it lies ``<name>.key``, the secret under which images are named (mode 0600): a query's
        key is an HMAC-SHA256, so that nobody without the secret can test whether an image was asked.
    clock : callable
        Seconds since the epoch; passed in by tests.

    Raises
    ------
    LedgerError
        If the file is not a ledger, is of a newer version, its secret is missing or another one's, or the folder
        cannot be written.

    Notes
    -----
    Safe for threads and for several processes: quota and cap are checked and charged in one ``BEGIN IMMEDIATE``
    transaction. WAL with ``synchronous=NORMAL``: a killed process loses nothing; a power cut may lose the last
    transactions, never the file.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        # SQLite has one writer; waiting on a lock here is cheaper than waiting in its busy handler.
        self._write_lock = threading.Lock()
        # Not a URL in a string: a "?" in a folder's name would end the path.
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"Expected a folder for the ledger at {self.path.parent}, got: {error}.") from None
        try:
            # One write transaction for all of it: programs that start together agree on one file and one secret.
            with self._transaction(write=True) as connection:
                self._check_owner(connection)
                _schema.create_all(connection)
                self._check_version(connection)
                self._secret = self._read_secret(connection)
                self._check_secret(connection)
        except BaseException:
            self.close()
            raise

    # -- people and money -------------------------------------------------------------------------------------

    def enrol(self, quotas: Mapping[str, int], *, cap: int | None = None) -> None:
        """Write down every member's quota (total queries) and the pool's cap; known members are updated.

        Raises
        ------
        QuotaError
            If a quota or the cap is not a whole number of at least 1.
        """
        for member, quota in quotas.items():
            if not _countable(quota):
                raise QuotaError(
                    f"Expected a quota of at least 1 query for member {member!r}, got {quota}. "
                    "Leave out members who cannot pay for a query."
                )
        if cap is not None and not _countable(cap):
            raise QuotaError(f"Expected a cap of at least 1 query, got {cap}. Leave it out for no cap.")
        rows = [{"name": m, "quota": int(q), "charged": 0} for m, q in quotas.items()]
        statement = insert(_members)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"quota": statement.excluded.quota})
        with self._transaction(write=True) as connection:
            if rows:
                connection.execute(statement, rows)
            connection.execute(sa.delete(_meta).where(_meta.c.name == "cap"))
            if cap is not None:
                connection.execute(sa.insert(_meta), {"name": "cap", "value": str(int(cap))})

    def charge(self, member: str, keys: Sequence[bytes], *, request_id: str, number: int, purpose: str) -> Charge:
        """Charge one request of at least one query *before* it is sent; all or nothing.

        Raises
        ------
        QuotaError
            If the member's quota or the pool's cap would be exceeded. Nothing is charged then.
        """
        n = len(keys)
        if n == 0:
            raise LedgerError("Expected at least one query to charge, got none. Do not send empty requests.")
        with self._transaction(write=True) as connection:
            paid = connection.execute(
                sa.update(_members)
                .where(_members.c.name == member, _members.c.charged + n <= _members.c.quota)
                .values(charged=_members.c.charged + n)
            )
            if paid.rowcount != 1:
                raise QuotaError(
                    f"Expected member {member!r} to have {n} queries left, but the quota does not allow it. "
                    "Raise the quota, or let other members join."
                )
            cap = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
            if cap is not None:
                total = connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0
                if total > int(cap):
                    raise QuotaError(
                        f"Expected the pool to stay within its cap of {cap} queries, "
                        f"but {n} more would make {total}. Raise the cap to go on."
                    )
            request = connection.execute(
                sa.insert(_requests),
                {
                    "request_id": request_id,
                    "number": number,
                    "member": member,
                    "purpose": purpose,
                    "charged_at": self._clock(),
                },
            ).inserted_primary_key
            if request is None:  # pragma: no cover - SQLite always returns it
                raise LedgerError("Expected the ledger to number the request, got nothing.")
            connection.execute(
                sa.insert(_attempts),
                [{"request": request[0], "position": i, "key": key} for i, key in enumerate(keys)],
            )
        return Charge(int(request[0]), member, n)

    def settle(self, charge: Charge, keys: Sequence[bytes], answers: Answers, *, detail: str | None = None) -> None:
        """Write down what came back; the first accepted answer of a key stays for ever.

        Rows that are answered or refused are accepted. Rows that failed stay charged: the platform did process
        the request.

        Raises
        ------
        LedgerError
            If there is not one answer for each key charged. Nothing is written then.
        """
        if not len(keys) == len(answers) == charge.n:
            raise LedgerError(
                f"Expected {charge.n} keys and answers for the request charged, got {len(keys)} and {len(answers)}."
            )
        now = self._clock()
        resolved: NDArray[np.bool_] = np.asarray(answers.resolved)
        outcomes = [
            {
                "request": charge.request,
                "position": i,
                "outcome": ANSWERED if ok else ChargeState.CHARGED.value,
                "at": now,
                "detail": None if ok else _writable(detail),
            }
            for i, ok in enumerate(resolved.tolist())
        ]
        silent: NDArray[np.bool_] = np.asarray(np.isnan(answers.scores).all(axis=1))
        rows = [
            {
                "key": keys[i],
                "status": int(answers.status[i]),
                "label": int(answers.labels[i]),
                "scores": None if silent[i] else answers.scores[i].astype("<f4").tobytes(),
                "resolution": float(answers.resolution[i]),
                "request": charge.request,
                "at": now,
            }
            for i in np.flatnonzero(resolved).tolist()
        ]
        with self._transaction(write=True) as connection:
            connection.execute(insert(_outcomes).on_conflict_do_nothing(), outcomes)
            if rows:
                connection.execute(insert(_answers).on_conflict_do_nothing(), rows)

    def abandon(self, charge: Charge, state: ChargeState, *, detail: str) -> None:
        """Write down that a whole request brought no answer, and refund it if it surely was not processed."""
        now = self._clock()
        rows = [
            {"request": charge.request, "position": i, "outcome": state.value, "at": now, "detail": _writable(detail)}
            for i in range(charge.n)
        ]
        with self._transaction(write=True) as connection:
            connection.execute(sa.insert(_outcomes), rows)
            if state is ChargeState.REFUNDED:
                connection.execute(
                    sa.update(_members)
                    .where(_members.c.name == charge.member)
                    .values(charged=_members.c.charged - charge.n)
                )

    def remaining(self) -> dict[str, int]:
        """Return the queries each member can still pay, the pool's cap aside."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_members).order_by(_members.c.name))
            return {r.name: max(0, r.quota - r.charged) for r in rows}

    def cap_remaining(self) -> int | None:
        """Return the queries the pool can still pay, None without a cap."""
        with self._transaction() as connection:
            cap = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
            total = connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0
        return None if cap is None else max(0, int(cap) - int(total))

    def balances(self) -> list[Balance]:
        """Return who paid what, counted from the attempts themselves."""
        with self._transaction() as connection:
            counts: dict[str, dict[str, int]] = {}
            # Not labelled "outcome": the grouping would mean the column, where attempts without an outcome and those
            # marked unknown are two groups.
            ended = sa.func.coalesce(_outcomes.c.outcome, ChargeState.UNKNOWN.value).label("ended")
            for row in connection.execute(
                sa.select(_requests.c.member, ended, sa.func.count().label("n"))
                .select_from(_joined())
                .group_by(_requests.c.member, "ended")
            ):
                counts.setdefault(row.member, {})[row.ended] = row.n
            members = connection.execute(sa.select(_members).order_by(_members.c.name)).all()
        return [
            Balance(
                member=m.name,
                quota=m.quota,
                charged=m.charged,
                answered=counts.get(m.name, {}).get(ANSWERED, 0),
                unusable=counts.get(m.name, {}).get(ChargeState.CHARGED.value, 0),
                unknown=counts.get(m.name, {}).get(ChargeState.UNKNOWN.value, 0),
                refunded=counts.get(m.name, {}).get(ChargeState.REFUNDED.value, 0),
            )
            for m in members
        ]

    def paid(self) -> dict[str, int]:
        """Return the queries charged (refunds out) by purpose."""
        with self._transaction() as connection:
            rows = connection.execute(
                sa.select(_requests.c.purpose, sa.func.count().label("n"))
                .select_from(_joined())
                .where(sa.func.coalesce(_outcomes.c.outcome, "") != ChargeState.REFUNDED.value)
                .group_by(_requests.c.purpose)
            )
            return {r.purpose: int(r.n) for r in rows}

    # -- queries and answers ----------------------------------------------------------------------------------

    def keys(self, images: Images, *, fingerprint: str, epoch: str, repeat: int = 0) -> list[bytes]:
        """Return one 32-byte key per image: exact bytes + platform + epoch + repeat, under the ledger's secret."""
        context = f"{fingerprint}\0{epoch}\0{repeat}\0{images.shape[1:]}\0".encode()
        return [hmac.digest(self._secret, context + image.tobytes(), hashlib.sha256) for image in images]

    def lookup(self, keys: Sequence[bytes], *, classes: int) -> tuple[NDArray[np.bool_], Answers]:
        """Return which keys have an accepted answer, and the answers (abstentions where there is none)."""
        found: dict[bytes, Any] = {}
        statement = sa.select(
            _answers.c.key, _answers.c.status, _answers.c.label, _answers.c.scores, _answers.c.resolution
        ).where(_answers.c.key.in_(sa.bindparam("keys", expanding=True)))
        unique = list(dict.fromkeys(keys))
        with self._transaction() as connection:
            # SQLite before 3.32 takes 999 parameters in one statement.
            for i in range(0, len(unique), 900):
                for row in connection.execute(statement, {"keys": unique[i : i + 900]}):
                    found[row[0]] = row
        result = Answers.failed(len(keys), classes)
        known = np.zeros(len(keys), np.bool_)
        try:
            for i, key in enumerate(keys):
                if key not in found:
                    continue
                row = found[key]
                known[i] = True
                result.status[i], result.labels[i], result.resolution[i] = row[1], row[2], row[4]
                if row[3] is not None:
                    result.scores[i] = np.frombuffer(row[3], "<f4", count=classes)
                    if len(row[3]) != 4 * classes:
                        raise ValueError(f"scores of {len(row[3]) / 4:g} classes")
            # What a file says is checked like what a platform says.
            return known, replace(result)
        except (TTCAError, TypeError, ValueError, OverflowError) as error:
            raise LedgerError(
                f"Expected answers about {classes} classes in {self.path}, got one that cannot be read ({error}). "
                "The file was made for another platform or was edited."
            ) from None

    # -- the file ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; the ledger can be opened again at any time."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            with (
                self._write_lock if write else contextlib.nullcontext(),
                self._engine.connect().execution_options(ttca_write=write) as connection,
                connection.begin(),
            ):
                yield connection
        except sa.exc.DBAPIError as error:
            raise LedgerError(_sentence(self.path, str(error.orig))) from None

    def _check_owner(self, connection: sa.Connection) -> None:
        tables = set(sa.inspect(connection).get_table_names())
        if tables and not set(_schema.tables) <= tables:
            raise LedgerError(
                f"Expected a ledger in {self.path}, got the database of another program or version, with the tables "
                f"{', '.join(sorted(tables))}. Give the ledger a file of its own."
            )

    def _check_version(self, connection: sa.Connection) -> None:
        version = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "schema"))
        if version is None:
            connection.execute(sa.insert(_meta), {"name": "schema", "value": str(SCHEMA_VERSION)})
        elif version != str(SCHEMA_VERSION):
            raise LedgerError(
                f"Expected a ledger of version {SCHEMA_VERSION} in {self.path}, got version {version}. "
                "Use the ttca that wrote it, or a newer one."
            )

    def _read_secret(self, connection: sa.Connection) -> bytes:
        path = self.path.with_name(self.path.name + ".key")
        try:
            if not path.exists():
                if connection.scalar(sa.select(sa.func.count()).select_from(_requests)):
                    raise LedgerError(
                        f"Expected the ledger's secret in {path}, got no such file. Without it no answer can be "
                        "found again: put it back from where the ledger was copied."
                    )
                # Written whole under another name first: a kill never leaves half a secret.
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
                f"Expected to read or write the ledger's secret in {path}, got: {error}. "
                "Check the folder's permissions."
            ) from None
        if len(secret) != 32:
            raise LedgerError(f"Expected 32 bytes in {path}, got {len(secret)}. Put the original file back.")
        return secret

    def _check_secret(self, connection: sa.Connection) -> None:
        """Raise when the secret is another ledger's: every answer would seem missing and be paid for again."""
        mark = hmac.new(self._secret, b"ttca ledger", hashlib.sha256).hexdigest()
        known = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "secret"))
        if known == mark:
            return
        if known is not None and connection.scalar(sa.select(sa.func.count()).select_from(_requests)):
            raise LedgerError(
                f"Expected the secret of this ledger in {self.path}.key, got another ledger's. "
                "Put back the one that lay next to it."
            )
        connection.execute(sa.delete(_meta).where(_meta.c.name == "secret"))
        connection.execute(sa.insert(_meta), {"name": "secret", "value": mark})


def _joined() -> sa.Join:
    return _attempts.join(_requests, _requests.c.id == _attempts.c.request).outerjoin(
        _outcomes,
        sa.and_(_outcomes.c.request == _attempts.c.request, _outcomes.c.position == _attempts.c.position),
    )


def _countable(number: object) -> bool:
    """Whether it is a whole number of queries, at least 1, that SQLite can hold."""
    if isinstance(number, bool) or not isinstance(number, int | float | np.integer):
        return False
    return bool(1 <= number < 2**63) and int(number) == number


def _writable(detail: str | None) -> str | None:
    """Return the text without lone surrogates, which a platform's JSON may bring and SQLite refuses."""
    return None if detail is None else detail.encode("utf-8", "replace").decode()


def _configure(connection: Any, _record: Any) -> None:
    # SQLAlchemy, not the driver, decides when a transaction begins.
    connection.isolation_level = None
    # SQLite does not wait for its lock when it turns a new file to WAL; programs that start together must.
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
    connection.execute("PRAGMA synchronous=NORMAL").close()


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("ttca_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _sentence(path: Path, reason: str) -> str:
    if "locked" in reason:
        return f"Expected to write to the ledger {path}, but another program holds it ({reason}). Stop that one first."
    if "full" in reason:
        return f"Expected room on the disk for the ledger {path}, got: {reason}. Free some space and run again."
    if "malformed" in reason or "not a database" in reason:
        return f"Expected an SQLite ledger in {path}, got a damaged or foreign file ({reason}). Restore a copy of it."
    if "readonly" in reason or "unable to open" in reason:
        return f"Expected to open the ledger {path} for writing, got: {reason}. Check the folder's permissions."
    return f"Expected the ledger {path} to work, got: {reason}."

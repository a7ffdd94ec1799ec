"""Booking: requests are charged and settled, many by one transaction, within quotas, rates and cap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import sqlalchemy as sa

from ttca.answers import Answers, Status
from ttca.errors import ChargeState, LedgerError, QuotaError
from ttca.names import canonical
from ttca.pooling import claims
from ttca.pooling.claims import Claim, Taken
from ttca.pooling.database import Database, found, marks
from ttca.pooling.membership import numbered
from ttca.pooling.room import cap_left, quota_left, rate_refusal
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import bodies as _bodies
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests
from ttca.pooling.schema import unread as _unread
from ttca.pooling.seals import SEALED, Seals
from ttca.values import OneLine, Value

__all__ = [
    "ANSWER",
    "ANSWERED",
    "Bill",
    "Booking",
    "Charge",
    "Desk",
    "Settlement",
    "Words",
    "abandon",
    "keep",
    "sealed",
    "writable",
]

ANSWERED = "answered"
_FAILED = int(Status.FAILED)
_Row: TypeAlias = tuple[Any, ...]
# The columns of the rows that are written here. Rows are plain tuples: there are as many as queries.
_REQUEST = ("id", "request_id", "number", "member", "action", "purpose", "charged_at", "paid")
_ATTEMPT = ("request", "position", "key", "owner")
_OUTCOME = ("request", "position", "outcome", "at", "detail")
_BODY = ("request", "reading", "body")
#: The columns of an answer, as :func:`sealed` has them.
ANSWER = (*SEALED, "at", "seal")

_CAP = "SELECT value FROM meta WHERE name = 'cap'"
_FORGOTTEN = "SELECT value FROM meta WHERE name = 'forgotten'"
_MEMBERS = (
    "SELECT id, name, quota, charged, per_second, per_minute, per_day, "
    f"({_CAP}), ({_FORGOTTEN}), (SELECT max(id) FROM requests) FROM members WHERE name IN ({{}}) ORDER BY name"
)
#: What follows where others write at the same time.
_LOCKED = " FOR UPDATE"
_PAY = "UPDATE members SET charged = charged + ? WHERE id = ?"
_PAYER = sa.select(_requests.c.member).where(_requests.c.id == _attempts.c.request).scalar_subquery()


@dataclass(frozen=True)
class Charge:
    """One request's worth of attempts, already paid: ``n`` queries by ``member``."""

    request: int
    member: str
    n: int


@dataclass(frozen=True)
class Bill:
    """One request that is to be charged, whole, before it is sent.

    Parameters
    ----------
    member : str
        Who pays.
    keys : sequence of bytes
        At least one.
    request_id, number
        The logical request, and which attempt at it this is.
    purpose, action : str
        What the queries are booked as, and for whom, where several actions share the ledger.
    owners : sequence of str or None, optional
        Who brought each image, so that they can be forgotten.
    claim : Claim, optional
        Nobody else has these queries, nor their answers: else the bill is not charged but :class:`Taken`. Without it
        they are charged whatever others do.

    Raises
    ------
    LedgerError
        If there is no query, or not one owner for each.
    """

    member: str
    keys: Sequence[bytes]
    request_id: str
    number: int
    purpose: str
    action: str | None = None
    owners: Sequence[str | None] | None = None
    claim: Claim | None = None

    def __post_init__(self) -> None:
        if not self.keys:
            raise LedgerError("Expected at least one query to charge, got none. Do not send empty requests.")
        if self.owners is not None and len(self.owners) != len(self.keys):
            raise LedgerError(f"Expected one owner for each of {len(self.keys)} queries, got {len(self.owners)}.")
        object.__setattr__(self, "member", canonical(self.member))
        if self.owners is not None:
            object.__setattr__(self, "owners", [o if o is None else canonical(o) for o in self.owners])


@dataclass(frozen=True, eq=False, repr=False)
class Words(Value):
    """What a platform said to a request, in its own words, so that they can be read again.

    Parameters
    ----------
    reading : bytes, optional
        The mark of how they were read now; None where nothing but the identity says how.
    body : bytes, optional
        Packed; None where the platform hands none on, or it is too large.
    """

    reading: bytes | None = None
    body: bytes | None = None

    def rows(self, request: int, unusable: Sequence[bytes], seals: Seals) -> tuple[list[_Row], list[_Row]]:
        """Return the rows of a request's body, and of the queries that it left without an answer."""
        if self.body is None:
            return [], []
        return [(request, self.reading, seals.wrapped(request, self.body))], [(key, request) for key in unusable]


@dataclass(frozen=True, eq=False, repr=False)
class Settlement(Value):
    """What a request that was charged has brought: one answer for each of its keys.

    Rows that are answered or refused are accepted, the first of a key for ever, unless ``accept`` is False. Rows that
    failed stay charged, with ``detail``: the platform did process the request.

    Raises
    ------
    LedgerError
        If there is not one answer for each key charged.
    """

    charge: Charge
    keys: Sequence[bytes]
    answers: Answers
    detail: str | None = None
    accept: bool = True
    words: Words = field(default_factory=Words)

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.answers) == self.charge.n:
            raise LedgerError(
                f"Expected {self.charge.n} keys and answers for the request charged, got {len(self.keys)} and "
                f"{len(self.answers)}."
            )

    def outcomes(self, now: float) -> list[_Row]:
        """Return what became of each attempt, as rows."""
        request, charged, detail = self.charge.request, ChargeState.CHARGED.value, writable(self.detail)
        return [
            (request, i, ANSWERED, now, None) if status != _FAILED else (request, i, charged, now, detail)
            for i, status in enumerate(self.answers.status.tolist())
        ]

    def accepted(self, now: float) -> list[_Row]:
        """Return the answers to be kept, as rows that are yet to be sealed: :data:`SEALED`, and when they came."""
        said, request, reading = self.answers, self.charge.request, self.words.reading
        silent: list[bool] = np.asarray(np.isnan(said.scores).all(axis=1)).tolist()
        written, width = said.scores.astype("<f4").tobytes(), 4 * said.classes
        columns = (said.status.tolist(), said.labels.tolist(), said.resolution.tolist())
        return [
            (key, status, label, None if mute else written[i : i + width], resolution, request, reading, now)
            for key, i, mute, status, label, resolution in zip(
                self.keys, range(0, len(written) or len(silent), width or 1), silent, *columns, strict=True
            )
            if status != _FAILED
        ]

    def spoken(self, seals: Seals) -> tuple[list[_Row], list[_Row]]:
        """Return what the platform said, as rows, and the queries to which that was no answer."""
        status = self.answers.status.tolist()
        unusable = [key for key, s in zip(self.keys, status, strict=True) if s == _FAILED]
        return self.words.rows(self.charge.request, unusable, seals)


class Booking:
    """Some settlements and some bills, written by one transaction that may have to be tried again.

    Parameters
    ----------
    database : Database
    bills : sequence of Bill
        Each is charged whole or refused whole, in this order.
    settlements : sequence of Settlement
    now : callable
        Connection → seconds since the epoch.
    seals : Seals
        The ledger's.
    """

    def __init__(
        self,
        database: Database,
        bills: Sequence[Bill],
        settlements: Sequence[Settlement],
        *,
        now: Callable[[sa.Connection], float],
        seals: Seals,
    ) -> None:
        self._db, self._bills, self._settlements, self._now = database, bills, settlements, now
        self._seals = seals
        self._done: list[Charge | Taken | QuotaError] = []

    def __call__(self, connection: sa.Connection) -> list[Charge | Taken | QuotaError]:
        """Write all of it; return for each bill its charge, who has its queries, or why it was refused."""
        self._db.share(connection)
        if self._was_kept(connection):
            return self._done
        locked = self._locked(connection)
        self._settle(connection, anyone_forgotten=locked.forgotten)
        self._done = self._charge(connection, locked) if self._bills else []
        return self._done

    def _was_kept(self, connection: sa.Connection) -> bool:
        """Whether the last try was written after all, though the connection broke before anybody could say so."""
        for bill, done in zip(self._bills, self._done, strict=False):
            if isinstance(done, Charge):
                # Not the number alone: after a crash a server may give it to somebody else.
                same = (_requests.c.id == done.request, _requests.c.request_id == bill.request_id)
                there = sa.select(_requests.c.id).where(*same, _requests.c.number == bill.number)
                return connection.scalar(there) is not None
        return False

    def _settle(self, connection: sa.Connection, *, anyone_forgotten: bool) -> None:
        if not self._settlements:
            return
        now, accepted = self._now(connection), [s for s in self._settlements if s.accept]
        outcomes = [row for s in self._settlements for row in s.outcomes(now)]
        self._db.add_rows(connection, _outcomes, _OUTCOME, outcomes, new=True)
        settled = [s.charge.request for s in self._settlements]
        claims.free(self._db, connection, settled)
        rows = [row for s in accepted for row in s.accepted(now)]
        if rows and anyone_forgotten:
            # Whoever was forgotten while the request was in flight stays forgotten.
            named = set(
                connection.scalars(
                    sa.select(_attempts.c.key).where(_attempts.c.request.in_(settled), _attempts.c.key != b"")
                )
            )
            rows = [row for row in rows if row[0] in named]
        self._db.add_rows(connection, _answers, ANSWER, sealed(rows, self._seals), new=True)
        keep(connection, self._db, [s.spoken(self._seals) for s in accepted], anyone_forgotten=anyone_forgotten)

    def _charge(self, connection: sa.Connection, locked: _Locked) -> list[Charge | Taken | QuotaError]:
        payers, cap, left = locked.payers, locked.cap, locked.left
        now = self._now(connection)
        done: list[Charge | Taken | QuotaError] = []
        numbers = self._new_numbers(connection, len(self._bills), locked.last)
        exclusive = {
            i: (b.keys, b.claim)
            for i, b in zip(numbers, self._bills, strict=True)
            # Without a single payer, the numbers are not known to be free.
            if b.claim is not None and b.member in payers
        }
        taken = claims.take(self._db, connection, exclusive, now)
        for number, bill in zip(numbers, self._bills, strict=True):
            n, payer = len(bill.keys), payers.get(bill.member)
            if number in taken:
                # Before anything is said of quotas: what somebody else pays needs none.
                done.append(taken[number])
            elif payer is None or n > payer.left:
                done.append(
                    QuotaError(
                        f"Expected member {bill.member!r} to have {n} queries left, but the quota does not allow it. "
                        "Raise the quota, or let other members join."
                    )
                )
            elif (refusal := rate_refusal(connection, payer.row, n, now, paid=payer.paid)) is not None:
                done.append(refusal)
            elif n > left:
                done.append(
                    QuotaError(
                        f"Expected the pool to stay within its cap of {cap} queries, but {n} more would make "
                        f"{(cap or 0) - int(left) + n}. Raise the cap to go on."
                    )
                )
            else:
                left -= n
                payer.paid += n
                done.append(Charge(number, bill.member, n))
        refused = {i for i, d in zip(numbers, done, strict=True) if isinstance(d, QuotaError)} & exclusive.keys()
        if refused:
            claims.void(self._db, connection, refused)
        written = [(b, d) for b, d in zip(self._bills, done, strict=True) if isinstance(d, Charge)]
        if written:
            self._write(connection, written, payers, now)
        return done

    def _locked(self, connection: sa.Connection) -> _Locked:
        """Return what decides about the bills, as it stands until this transaction ends."""
        # Locked in the order of their names, so that on a server nobody else takes what is given here, and two
        # programs never wait for each other.
        names = sorted({bill.member for bill in self._bills})
        lock = _LOCKED if self._db.is_server else ""
        members = found(connection, _MEMBERS.format(marks(len(names))) + lock, names) if names else []
        rows = [_Member(*row) for row in members]
        payers = {row.name: _Payer(row) for row in rows}
        forgotten = rows[0].forgotten is not None if rows else bool(found(connection, _FORGOTTEN, ()))
        cap = rows[0].cap if rows else None
        if rows and self._db.is_server:
            cap = next((cap for (cap,) in found(connection, _CAP + lock, ())), None)
        left = cap_left(connection, cap)
        return _Locked(
            payers,
            None if cap is None else int(cap),
            float("inf") if left is None else left,
            (rows[0].last or 0) if rows else 0,
            forgotten,
        )

    def _new_numbers(self, connection: sa.Connection, n: int, last: int) -> list[int]:
        """Return so many numbers that no request has had."""
        if not self._db.is_server:
            return list(range(last + 1, last + 1 + n))
        number = sa.func.nextval(sa.func.pg_get_serial_sequence("requests", "id"))
        drawn = sa.select(number).select_from(sa.func.generate_series(1, n).alias())
        return [int(i) for i in connection.scalars(drawn)]

    def _write(
        self,
        connection: sa.Connection,
        written: Sequence[tuple[Bill, Charge]],
        payers: dict[str, _Payer],
        now: float,
    ) -> None:
        for payer in payers.values():
            if payer.paid:
                found(connection, _PAY, (payer.paid, payer.number))
        requests = [
            (c.request, b.request_id, b.number, payers[b.member].number, b.action, b.purpose, now, c.n)
            for b, c in written
        ]
        self._db.add_rows(connection, _requests, _REQUEST, requests)
        owners = numbered(self._db, connection, {o for bill, _ in written for o in bill.owners or () if o}, self._seals)
        attempts = [
            (charge.request, i, key, owners.get(owner or ""))
            for bill, charge in written
            for i, (key, owner) in enumerate(zip(bill.keys, bill.owners or repeat(None), strict=False))
        ]
        self._db.add_rows(connection, _attempts, _ATTEMPT, attempts)


class _Member(NamedTuple):
    """A member's row, and what the ledger says of all."""

    id: int
    name: str
    quota: int
    charged: int
    per_second: int | None
    per_minute: int | None
    per_day: int | None
    cap: str | None
    forgotten: str | None
    last: int | None


@dataclass
class _Payer:
    """A member whose row is locked: what the quota leaves, and ``paid``, what this transaction takes of it."""

    row: _Member
    paid: int = 0

    @property
    def number(self) -> int:
        return int(self.row.id)

    @property
    def left(self) -> int:
        return quota_left(self.row.quota, self.row.charged) - self.paid


@dataclass(frozen=True)
class _Locked:
    """Who is to pay, the cap and what it leaves, the last request's number, and whether anyone was ever forgotten."""

    payers: dict[str, _Payer]
    cap: int | None
    left: float
    last: int
    forgotten: bool


@dataclass(eq=False)
class _Wish:
    """One thread's bill, or None where it only settles, and what became of it; ``leads``: it is its turn to book."""

    bill: Bill | None
    done: Charge | Taken | QuotaError | BaseException | None = None
    leads: bool = False
    #: Held until the thread is to go on.
    gate: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False, repr=False)
class Desk(OneLine):
    """Where threads have requests booked: whoever comes to the front books for all who wait behind.

    Under load one transaction then charges and settles for many threads, which costs hardly more than for one. Those
    who are done go on at once; the first of those who came meanwhile is the next to book.

    Parameters
    ----------
    book : callable
        (bills, settlements) → for each bill its charge, who has its queries, or why it was refused.
    """

    book: Callable[[Sequence[Bill], Sequence[Settlement]], list[Charge | Taken | QuotaError]]
    _queue: threading.Lock = field(default_factory=threading.Lock)
    _wishes: list[_Wish] = field(default_factory=list)
    _settlements: list[Settlement] = field(default_factory=list)
    _taken: bool = False

    def settle(self, settlement: Settlement) -> None:
        """Leave a settlement here: it is written with the next request charged, or by :meth:`flush`."""
        with self._queue:
            self._settlements.append(settlement)

    def charge(self, bill: Bill) -> Charge | Taken:
        """Return the charge once it is written, together with every settlement left before; or who has the queries.

        Raises
        ------
        QuotaError, LedgerError
        """
        done = self._wait_for(_Wish(bill))
        if not isinstance(done, Charge | Taken):
            raise done or LedgerError("Expected the desk to book a request, got nothing.")
        return done

    def flush(self) -> None:
        """Write every settlement left here."""
        done = self._wait_for(_Wish(None))
        if isinstance(done, BaseException):
            raise done

    def _wait_for(self, wish: _Wish) -> Charge | Taken | QuotaError | BaseException | None:
        with self._queue:
            self._wishes.append(wish)
            wish.leads, self._taken = not self._taken, True
            if not wish.leads:
                wish.gate.acquire()
        try:
            with wish.gate:
                pass
        except BaseException:
            # Ctrl-C: nobody waits for a thread that has left.
            with self._queue:
                if not wish.leads and wish in self._wishes:
                    self._wishes.remove(wish)
            if wish.leads:
                self._book_all()
            raise
        if wish.leads:
            self._book_all()
        return wish.done

    def _book_all(self) -> None:
        with self._queue:
            wishes, self._wishes = self._wishes, []
            settlements, self._settlements = self._settlements, []
        billed = [wish for wish in wishes if wish.bill is not None]
        try:
            if billed or settlements:
                done = self.book([wish.bill for wish in billed if wish.bill is not None], settlements)
                for wish, result in zip(billed, done, strict=True):
                    wish.done = result
        except BaseException as error:
            # What came back was paid for: it is written with the next booking that can be. Writing twice does no harm.
            with self._queue:
                self._settlements = [*settlements, *self._settlements]
            # Who only settles must hear of it too.
            for wish in wishes:
                wish.done = error
        with self._queue:
            self._taken = bool(self._wishes)
            following = self._wishes[:1]
            for wish in following:
                wish.leads = True
        for wish in (*following, *wishes):
            if wish.gate.locked():
                wish.gate.release()


def keep(
    connection: sa.Connection,
    database: Database,
    spoken: Sequence[tuple[Sequence[_Row], Sequence[_Row]]],
    *,
    anyone_forgotten: bool = True,
) -> None:
    """Keep bodies, as :meth:`Words.rows` gives them; of two that left a query unanswered, the later one.

    Not those that speak of somebody who was forgotten while the request was in flight.
    """
    bodies, unusable = [b for s in spoken for b in s[0]], [u for s in spoken for u in s[1]]
    if bodies and anyone_forgotten:
        requests = [request for request, *_ in bodies]
        nameless = sa.select(_attempts.c.request).where(_attempts.c.request.in_(requests), _attempts.c.key == b"")
        gone = set(connection.scalars(nameless))
        bodies = [body for body in bodies if body[0] not in gone]
        unusable = [(key, request) for key, request in unusable if request not in gone]
    database.add_rows(connection, _bodies, _BODY, bodies, new=True)
    if unusable:
        new = database.insert(_unread)
        later = new.on_conflict_do_update(index_elements=["key"], set_={"request": new.excluded.request})
        connection.execute(later, [{"key": key, "request": request} for key, request in unusable])


def sealed(rows: Sequence[_Row], seals: Seals) -> list[_Row]:
    """Return answers as :meth:`Settlement.accepted` gives them, each with its seal; in the order of their keys.

    So the database walks through its pages once.
    """
    return sorted(((*row, seal) for row, seal in zip(rows, seals.of(rows).seals, strict=True)), key=itemgetter(0))


def abandon(
    database: Database, connection: sa.Connection, charge: Charge, state: ChargeState, *, detail: str, now: float
) -> None:
    """Write down that a request without an outcome brought no answer; refund it if it surely was not processed."""
    # What went wrong may name a member who was forgotten while the request was in flight.
    gone = sa.select(_members.c.id).where(_members.c.forgotten_at.is_not(None))
    theirs = sa.select(_attempts.c.request).where(
        _attempts.c.request == charge.request, sa.or_(_attempts.c.owner.in_(gone), _PAYER.in_(gone))
    )
    why = None if connection.scalar(theirs.limit(1)) is not None else writable(detail)
    connection.execute(
        sa.insert(_outcomes),
        [
            {"request": charge.request, "position": i, "outcome": state.value, "at": now, "detail": why}
            for i in range(charge.n)
        ],
    )
    claims.free(database, connection, [charge.request])
    if state is ChargeState.REFUNDED:
        payer = connection.execute(
            sa.update(_requests)
            .where(_requests.c.id == charge.request)
            .values(paid=_requests.c.paid - charge.n)
            .returning(_requests.c.member)
        ).scalar_one()
        connection.execute(
            sa.update(_members).where(_members.c.id == payer).values(charged=_members.c.charged - charge.n)
        )


def writable(detail: str | None) -> str | None:
    """Return the text without lone surrogates and NULs, which a platform's JSON may bring and databases refuse."""
    return None if detail is None else detail.encode("utf-8", "replace").decode().replace("\0", "?")

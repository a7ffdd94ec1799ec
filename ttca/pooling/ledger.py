"""The ledger: an append-only record of every attempt, and one accepted answer per query."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import ChargeState, LedgerError, QuotaError
from ttca.frames import frame
from ttca.images import Images
from ttca.names import canonical
from ttca.pooling import books, leaving, membership, roll
from ttca.pooling.booking import Bill, Booking, Charge, Settlement, Words, abandon, keep
from ttca.pooling.books import Balance
from ttca.pooling.claims import Taken, in_flight
from ttca.pooling.database import PATIENCE_S, Database
from ttca.pooling.leaving import AtStake, Forgotten, check_nobody_left
from ttca.pooling.lookup import Found, Reader, Shelved, answered
from ttca.pooling.opening import OlderLedgerError, Opened, Opening, set_meta
from ttca.pooling.quotas import WINDOWS, Quota
from ttca.pooling.room import Left, left
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests
from ttca.pooling.witness import Witness

__all__ = ["Balance", "Forgotten", "Ledger", "accept_loss", "check_not_lost", "open_ledger"]


class Ledger:
    """A database that survives ``kill -9`` at any moment and never asks twice what was answered.

    Parameters
    ----------
    target : Path or str
        An SQLite file, or the URL of a PostgreSQL database (``postgresql://host/name``) that programs on several
        machines share.
    secret : Path, optional
        The file with the secret under which images are named (32 bytes, mode 0600, written on first use): a query's
        key is an HMAC-SHA256, so that nobody without the secret can test whether an image was asked. For an SQLite
        file it is ``<name>.key`` next to it by default; for a server it must be named, and be the same for all who
        share it.
    clock : callable, optional
        Seconds since the epoch; passed in by tests. A server's own clock by default, so that all machines share one.
    patience_s : float
        How long to wait for another program's lock, or for a server that is started again.
    read_only : bool
        Whether an SQLite file is only read, wherever it lies.

    Raises
    ------
    LedgerError
        If it is no ledger, is of a newer version, its secret is missing or another one's, or it cannot be written; if
        it holds fewer requests than it did.
    OlderLedgerError
        If it is of an older version, and only to be read.

    Notes
    -----
    Safe for threads and for several processes: quotas, rates and cap are checked and charged in one transaction that
    locks them. SQLite: WAL with ``synchronous=NORMAL``; a killed process loses nothing, a power cut may lose the last
    transactions, never the file. PostgreSQL: a broken connection is made again, and what was in flight is done
    exactly once.
    """

    def __init__(
        self,
        target: Path | str,
        *,
        secret: Path | None = None,
        clock: Callable[[], float] | None = None,
        patience_s: float = PATIENCE_S,
        read_only: bool = False,
    ) -> None:
        self._clock = clock
        self._db = Database(target, patience_s=patience_s, read_only=read_only)
        #: What it was opened with; another program opens the same ledger with these two.
        self.target = target
        #: Where it is, for people.
        self.name = self._db.name
        if secret is None:
            if self._db.path is None:
                raise LedgerError(
                    "Expected the file with the secret of a ledger on a server, got none. Name the same one for "
                    "everybody who shares the ledger."
                )
            secret = self._db.path.with_name(self._db.path.name + ".key")
        self.secret_file = secret
        self._witness = None if self._db.path is None else Witness(self._db.path, secret)
        try:
            # One write transaction for all of it: programs that start together agree on tables and secret.
            opened = self._db.run(self._open, write=not read_only)
        except BaseException:
            self._db.close()
            raise
        self._secret, self.seals = opened.secret, opened.seals
        self._shelved = Shelved(self.name, self.seals)
        #: Whether answers may have been filed by a version that had other fingerprints.
        self.holds_older = opened.holds_older

    # -- people and money -------------------------------------------------------------------------------------

    def enrol(self, quotas: Mapping[str, int | Quota], *, cap: int | None = None, overrule: bool | None = None) -> None:
        """Write down what every member can pay and the pool's cap.

        Parameters
        ----------
        quotas : dict of member to quota
        cap : int, optional
        overrule : bool, optional
            Whether figures that stand in the ledger already give way. By default they do in a file, which is one
            action's own, and not on a server, which several share: there a cap that is left out stays, too.

        Raises
        ------
        QuotaError
            If a quota, a rate or the cap is not a whole number of at least 1, or another one than the ledger's and not
            to overrule it, if two members are one in two spellings, or if one was forgotten.
        """
        overrule = not self._db.is_server if overrule is None else overrule
        rows = []
        for member, given in sorted(_by_name(quotas).items()):
            quota = given if isinstance(given, Quota) else Quota(given)
            quota.check(member)
            rates = {w: None if v is None else int(v) for w, v in quota.rates().items()}
            rows.append({"name": member, "quota": int(quota.total), "charged": 0, **rates})
        if cap is not None and not Quota(cap).sound:
            raise QuotaError(f"Expected a cap of at least 1 query, got {cap}. Leave it out for no cap.")
        statement = self._db.insert(_members)
        changed = {c: statement.excluded[c] for c in ("quota", *WINDOWS)}
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=changed)

        def work(connection: sa.Connection) -> None:
            if not overrule:
                membership.check_agreed(connection, rows, cap, where=self.name)
            known = set(connection.scalars(sa.select(_members.c.name)))
            leaving.check_nobody_left(
                connection, [name for r in rows if (name := str(r["name"])) not in known], self.seals
            )
            if rows:
                connection.execute(statement, rows)
            if cap is not None:
                set_meta(self._db, connection, "cap", str(int(cap)))
            elif overrule:
                connection.execute(sa.delete(_meta).where(_meta.c.name == "cap"))

        self._db.run(work, write=True)

    def charge(
        self,
        member: str,
        keys: Sequence[bytes],
        *,
        request_id: str,
        number: int,
        purpose: str,
        action: str | None = None,
        owners: Sequence[str | None] | None = None,
    ) -> Charge:
        """Charge one request *before* it is sent, all or nothing; the parameters are those of :class:`Bill`.

        Raises
        ------
        QuotaError
            If the member's quota or the pool's cap would be exceeded. Nothing is charged then.
        RateError
            If the member's rate does not allow it yet; ``wait_s`` says when it will.
        """
        (done,) = self.book([Bill(member, keys, request_id, number, purpose, action, owners)], [])
        if isinstance(done, QuotaError):
            raise done
        if not isinstance(done, Charge):
            raise LedgerError("Expected queries that nobody else asks, got some that are. Charge them through a pool.")
        return done

    def settle(self, charge: Charge, keys: Sequence[bytes], answers: Answers, *, detail: str | None = None) -> None:
        """Write down what came back; the parameters are those of :class:`Settlement`."""
        self.book([], [Settlement(charge, keys, answers, detail)])

    def book(self, bills: Sequence[Bill], settlements: Sequence[Settlement]) -> list[Charge | Taken | QuotaError]:
        """Settle some requests and charge others in one transaction, which costs hardly more than one of them.

        Returns
        -------
        list
            For each bill its charge; who has its queries, where it claims them; or the error that says why it was
            refused, a RateError where waiting helps.

        Raises
        ------
        LedgerError
            If the database cannot be written. Nothing is then.
        """
        done = self._db.run(self.booking(bills, settlements), write=True)
        self.saw(d.request for d in done if isinstance(d, Charge))
        return done

    def booking(self, bills: Sequence[Bill], settlements: Sequence[Settlement]) -> Booking:
        """Return the same, to be done in a transaction that is open."""
        return Booking(self._db, bills, settlements, now=self.now_in, seals=self.seals)

    def abandon(
        self, charge: Charge, state: ChargeState, *, detail: str, keys: Sequence[bytes] = (), words: Words | None = None
    ) -> None:
        """Write down that a whole request brought no answer, and refund it if it surely was not processed.

        Parameters
        ----------
        charge : Charge
        state : ChargeState
        detail : str
            Why, for people.
        keys, words
            What came, and about which queries, where it may be read otherwise one day.

        Raises
        ------
        LedgerError
            If the request has an outcome already. Nothing is given back then.
        """
        written: list[float] = []

        def work(connection: sa.Connection) -> None:
            known = connection.execute(
                sa.select(_outcomes.c.outcome, _outcomes.c.at).where(_outcomes.c.request == charge.request)
            ).all()
            if known:
                # The moment tells this outcome from another one's when a server has to be asked twice.
                if written and all(k == (state.value, written[-1]) for k in known):
                    return
                raise LedgerError(
                    f"Expected a request without an outcome to abandon, got one that is {known[0].outcome}."
                )
            written.append(self.now_in(connection))
            abandon(self._db, connection, charge, state, detail=detail, now=written[-1])
            if words is not None:
                keep(connection, self._db, [words.rows(charge.request, keys, self.seals)])

        self._db.run(work, write=True)

    def left(self) -> Left:
        """Return the queries that quotas and cap still allow, rates aside."""
        return self._db.run(left)

    def remaining(self) -> dict[str, int]:
        """Return the queries each member can still pay, rates and the pool's cap aside."""
        return dict(self.left().members)

    def cap_remaining(self) -> int | None:
        """Return the queries the pool can still pay, None without a cap."""
        return self.left().cap

    def balances(self, member: str | None = None) -> list[Balance]:
        """Return who paid what, counted from the attempts themselves; of one member only, if named."""
        return self._db.run(lambda connection: books.balances(connection, member))

    def to_frame(self) -> Any:
        """Return who paid what as a pandas DataFrame, a line for each member (:class:`ttca.pooling.books.Balance`)."""
        return frame([asdict(balance) for balance in self.balances()])

    def check_nobody_left(self, names: Sequence[str]) -> None:
        """Raise QuotaError where one of these names, new to the ledger, is of somebody who was forgotten."""
        self._db.run(lambda connection: check_nobody_left(connection, names, self.seals))

    def paid(self, *, action: str | None = None) -> dict[str, int]:
        """Return the queries charged (refunds out) by purpose; of one action, and what no action was named for."""
        return self._db.run(lambda connection: books.paid(connection, action))

    def unknown(self, *, action: str | None = None) -> int:
        """Return the queries charged of which nobody knows whether the platform processed them; as :meth:`paid`."""
        return self._db.run(lambda connection: books.unknown(connection, action))

    def charged_twice(self, *, action: str | None = None) -> int:
        """Return how many different queries were charged more than once; of one action, as :meth:`paid`."""
        return self._db.run(lambda connection: books.charged_twice(connection, action))

    def now(self) -> float:
        """Return the time as the ledger writes it down, in seconds since the epoch."""
        return self._db.run(self.now_in) if self._db.is_server and self._clock is None else self._local_now()

    def now_in(self, connection: sa.Connection) -> float:
        """Return the same, in a transaction that is open."""
        return self._db.now(connection) if self._clock is None else self._clock()

    def _local_now(self) -> float:
        return time.time() if self._clock is None else self._clock()

    def was_unusable(self, key: bytes, *, before: float) -> bool:
        """Return whether the platform processed this query to no avail before that time."""
        return self._db.run(lambda connection: books.was_unusable(connection, key, before))

    def pace(self, *, requests: int = 100) -> float | None:
        """Return the mean seconds a request took, of the last so many that were answered; None where none was."""
        return self._db.run(lambda connection: books.pace(connection, requests))

    def spend_by_day(self) -> dict[str, int]:
        """Return the queries charged (refunds out) by UTC day, ``YYYY-MM-DD``, in order."""
        day = self._db.day(_requests.c.charged_at)
        return self._db.run(lambda connection: books.spend_by_day(connection, day))

    def asked_and_answered(self) -> tuple[int, int]:
        """Return how many different queries were ever charged, and how many of them have an accepted answer."""
        return self._db.run(books.asked_and_answered)

    def invite(self, member: str) -> str:
        """Return a new token for an enrolled member; an older one is no longer good. Only its SHA-256 is kept.

        Raises
        ------
        QuotaError
            If nobody of this name can pay.
        """
        token = secrets.token_urlsafe(32)

        def work(connection: sa.Connection) -> None:
            roll.invite(connection, roll.enrolled(connection, member, self.seals), token, self.now_in(connection))

        self._db.run(work, write=True)
        return token

    def member_of(self, token: str) -> str | None:
        """Return whose token it is, None for nobody's."""
        return self._db.run(lambda connection: roll.member_of(connection, token))

    def at_stake(self, member: str) -> AtStake:
        """Return what :meth:`forget` would remove; QuotaError if no member has the name."""
        return self._db.run(lambda connection: leaving.at_stake(connection, member, where=self.name))

    def forget(self, member: str) -> Forgotten:
        """Remove a member's name, what their images are named by, and the answers about these images.

        What they paid stays, under an alias, and so do their attempts, as tombstones without a key: the books must
        still agree with the platform's own log. Forgetting the alias cleans the database's pages once more.

        Raises
        ------
        QuotaError
            If no member has the name.
        LedgerError
            If nothing could be written.
        """
        alias = f"forgotten-{secrets.token_hex(4)}"

        def work(connection: sa.Connection) -> Forgotten:
            # No answer about their images is on its way into the tables meanwhile.
            self._db.exclude(connection)
            done = leaving.forget(
                connection, member, alias, seals=self.seals, now=self.now_in(connection), where=self.name
            )
            set_meta(self._db, connection, "forgotten", "1")
            return done

        return _cleaned(self._db, self._db.run(work, write=True))

    # -- queries and answers ----------------------------------------------------------------------------------

    def keys(self, images: Images, *, fingerprint: str, epoch: str, repeat: int = 0) -> list[bytes]:
        """Return one 32-byte key per image: exact bytes + platform + epoch + repeat, under the ledger's secret."""
        context = f"{fingerprint}\0{epoch}\0{repeat}\0{images.shape[1:]}\0".encode()
        return [self.seal(context + image.tobytes()) for image in images]

    def seal(self, content: bytes) -> bytes:
        """Return 32 bytes that nobody without the ledger's secret can make for the content: its HMAC-SHA256."""
        return hmac.digest(self._secret, content, hashlib.sha256)

    def lookup(self, keys: Sequence[bytes], *, classes: int) -> tuple[NDArray[np.bool_], Answers]:
        """Return which keys have an accepted answer, and the answers (abstentions where there is none)."""
        found = self.find(keys, classes=classes)
        return found.known, found.answers

    def find(self, keys: Sequence[bytes], *, classes: int, reader: Reader | None = None) -> Found:
        """Return the same, with answers as they are read now, from the platform's own words if need be.

        Raises
        ------
        LedgerError
            If an answer is not what was written, or is about another number of classes.
        """
        return self._db.run(lambda connection: self._shelved.find(connection, keys, classes=classes, reader=reader))

    def answered(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of these queries have an accepted answer, whatever it says."""
        return self._db.run(lambda connection: answered(connection, list(dict.fromkeys(keys))))

    def in_flight(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of these queries somebody is asking at this moment: nobody else may be charged for them."""
        unique = list(dict.fromkeys(keys))
        return self._db.run(lambda connection: in_flight(connection, unique, self.now_in(connection)))

    @property
    def database(self) -> Database:
        """Where it is kept, for the hub, which keeps its own tables beside the ledger's."""
        return self._db

    def is_same(self, other: Ledger) -> bool:
        """Whether the other one is kept in the same place."""
        return self._db.place == other._db.place

    # -- the database -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; the ledger can be opened again at any time."""
        if self._witness is not None and not self._db.read_only:
            self._witness.saw(0, now=True)
        self._db.close()

    def saw(self, requests: Iterable[int]) -> None:
        """Take note that these were charged, so that a ledger which has lost them is noticed."""
        if self._witness is not None:
            self._witness.saw(max(requests, default=0))

    def __repr__(self) -> str:
        return f"Ledger({self.name!r})"

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self, connection: sa.Connection) -> Opened:
        opened = Opening(self._db, self.secret_file)(connection)
        if self._witness is not None:
            self._witness.check(opened.last)
        return opened


def open_ledger(folder: Path, url: str | None = None, *, read_only: bool = False) -> Ledger:
    """Open an action's ledger: the file in its folder, or the one at the URL, whose secret lies in the folder.

    ``read_only`` leaves the file as it is, unless it must be brought up to date first; a server has rights of its own.
    """
    if url is None:
        if read_only:
            with contextlib.suppress(OlderLedgerError):
                return Ledger(folder / "ledger.sqlite", read_only=True)
        return Ledger(folder / "ledger.sqlite")
    if "://" not in url:
        raise LedgerError(
            f"Expected a URL such as postgresql://host/name for a shared ledger, got {url!r}. Correct it."
        )
    return Ledger(url, secret=folder / "ledger.key")


def _cleaned(database: Database, done: Forgotten) -> Forgotten:
    """Clean the database's pages of what was forgotten."""
    try:
        database.scrub()
    except LedgerError as error:
        return replace(done, unclean=str(error))
    return done


def check_not_lost(folder: Path) -> None:
    """Raise where the ledger of an action's folder is gone, though the key file beside it knows of requests.

    Raises
    ------
    LedgerError
    """
    ledger = folder / "ledger.sqlite"
    if not ledger.exists():
        Witness(ledger, ledger.with_name(f"{ledger.name}.key")).check(0)


def accept_loss(folder: Path) -> None:
    """Take the ledger in an action's folder as it is, though it holds fewer requests than it did.

    Raises
    ------
    LedgerError
        If its secret is not there, or cannot be written.
    """
    ledger = folder / "ledger.sqlite"
    try:
        Witness(ledger, ledger.with_name(f"{ledger.name}.key")).forget()
    except OSError as error:
        raise LedgerError(f"Expected to write the key file beside {ledger}, got: {error}. Check the folder.") from None


def _by_name(quotas: Mapping[str, int | Quota]) -> dict[str, int | Quota]:
    found: dict[str, int | Quota] = {}
    for member, quota in quotas.items():
        if canonical(member) in found:
            raise QuotaError(
                f"Expected every member once, got {canonical(member)!r} in two spellings. Leave out one of them."
            )
        found[canonical(member)] = quota
    return found

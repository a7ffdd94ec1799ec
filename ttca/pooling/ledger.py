"""The ledger: an append-only record of every attempt, and one accepted answer per query."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import ChargeState, LedgerError, QuotaError, TTCAError
from ttca.images import Images
from ttca.names import canonical
from ttca.pooling import schema
from ttca.pooling.booking import ANSWERED, Bill, Booking, Charge, Settlement, abandon
from ttca.pooling.claims import Taken, in_flight
from ttca.pooling.database import PATIENCE_S, Database, read_secret
from ttca.pooling.quotas import WINDOWS, Quota
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests

__all__ = ["Balance", "Forgotten", "Ledger", "open_ledger"]


#: Tables that every version of a ledger has.
_OLDEST = {"meta", "members", "requests", "attempts", "outcomes", "answers"}


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


@dataclass(frozen=True)
class Forgotten:
    """What :meth:`Ledger.forget` removed: ``images`` named in ``attempts`` keys, and ``answers`` about them.

    ``alias`` is the name under which what the member paid stays in the books.
    """

    alias: str
    images: int
    attempts: int
    answers: int


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

    Raises
    ------
    LedgerError
        If it is no ledger, is of a newer version, its secret is missing or another one's, or it cannot be written.

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
    ) -> None:
        self._clock = clock
        self._db = Database(target, patience_s=patience_s)
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
        try:
            # One write transaction for all of it: programs that start together agree on tables and secret.
            self._db.run(self._open, write=True)
        except BaseException:
            self.close()
            raise

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
            to overrule it, or if two members are one in two spellings.
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
                self._check_agreed(connection, rows, cap)
            if rows:
                connection.execute(statement, rows)
            if cap is not None:
                self._set_meta(connection, "cap", str(int(cap)))
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
        assert isinstance(done, Charge)  # nothing is claimed here
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
        return self._db.run(Booking(self._db, bills, settlements, now=self.now_in), write=True)

    def abandon(self, charge: Charge, state: ChargeState, *, detail: str) -> None:
        """Write down that a whole request brought no answer, and refund it if it surely was not processed.

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
            abandon(connection, charge, state, detail=detail, now=written[-1])

        self._db.run(work, write=True)

    def remaining(self) -> dict[str, int]:
        """Return the queries each member can still pay, rates and the pool's cap aside."""

        def work(connection: sa.Connection) -> dict[str, int]:
            rows = connection.execute(sa.select(_members).where(_payers()).order_by(_members.c.name))
            return {r.name: max(0, r.quota - r.charged) for r in rows}

        return self._db.run(work)

    def cap_remaining(self) -> int | None:
        """Return the queries the pool can still pay, None without a cap."""

        def work(connection: sa.Connection) -> int | None:
            cap = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
            total = connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0
            return None if cap is None else max(0, int(cap) - int(total))

        return self._db.run(work)

    def balances(self, member: str | None = None) -> list[Balance]:
        """Return who paid what, counted from the attempts themselves; of one member only, if named."""
        whose = sa.true() if member is None else _members.c.name == canonical(member)
        theirs = sa.select(_members.c.id).where(whose)

        def work(connection: sa.Connection) -> list[Balance]:
            counts: dict[int, dict[str, int]] = {}
            # Not labelled "outcome": the grouping would mean the column, where attempts without an outcome and those
            # marked unknown are two groups.
            ended = sa.func.coalesce(_outcomes.c.outcome, ChargeState.UNKNOWN.value).label("ended")
            for row in connection.execute(
                sa.select(_requests.c.member, ended, sa.func.count().label("n"))
                .select_from(_joined())
                .where(sa.true() if member is None else _requests.c.member.in_(theirs))
                .group_by(_requests.c.member, ended)
            ):
                counts.setdefault(row.member, {})[row.ended] = row.n
            members = connection.execute(sa.select(_members).where(_payers(), whose).order_by(_members.c.name)).all()
            return [
                Balance(
                    member=m.name,
                    quota=m.quota,
                    charged=m.charged,
                    answered=counts.get(m.id, {}).get(ANSWERED, 0),
                    unusable=counts.get(m.id, {}).get(ChargeState.CHARGED.value, 0),
                    unknown=counts.get(m.id, {}).get(ChargeState.UNKNOWN.value, 0),
                    refunded=counts.get(m.id, {}).get(ChargeState.REFUNDED.value, 0),
                )
                for m in members
            ]

        return self._db.run(work)

    def paid(self, *, action: str | None = None) -> dict[str, int]:
        """Return the queries charged (refunds out) by purpose; of one action, and what no action was named for."""
        whose = sa.true() if action is None else sa.or_(_requests.c.action == action, _requests.c.action.is_(None))

        def work(connection: sa.Connection) -> dict[str, int]:
            rows = connection.execute(
                sa.select(_requests.c.purpose, sa.func.sum(_requests.c.paid).label("n"))
                .where(_requests.c.paid > 0, whose)
                .group_by(_requests.c.purpose)
            )
            return {r.purpose: int(r.n) for r in rows}

        return self._db.run(work)

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
        found = (
            sa.select(_outcomes.c.request)
            .select_from(_joined())
            .where(_outcomes.c.outcome == ChargeState.CHARGED.value, _outcomes.c.at < before, _attempts.c.key == key)
            .limit(1)
        )
        return self._db.run(lambda connection: connection.scalar(found)) is not None

    def pace(self, *, requests: int = 100) -> float | None:
        """Return the mean seconds a request took, of the last so many that were answered; None where none was."""
        last = (
            sa.select((_outcomes.c.at - _requests.c.charged_at).label("seconds"))
            .join_from(_requests, _outcomes, _outcomes.c.request == _requests.c.id)
            .where(_outcomes.c.position == 0, _outcomes.c.outcome == ANSWERED)
            .order_by(_requests.c.id.desc())
            .limit(requests)
            .subquery()
        )
        mean = self._db.run(lambda connection: connection.scalar(sa.select(sa.func.avg(last.c.seconds))))
        return None if mean is None else max(0.0, float(mean))

    def spend_by_day(self) -> dict[str, int]:
        """Return the queries charged (refunds out) by UTC day, ``YYYY-MM-DD``, in order."""
        day = self._db.day(_requests.c.charged_at).label("day")

        def work(connection: sa.Connection) -> dict[str, int]:
            rows = connection.execute(
                sa.select(day, sa.func.sum(_requests.c.paid).label("n"))
                .where(_requests.c.paid > 0)
                .group_by(day)
                .order_by(day)
            )
            return {str(np.datetime64(int(r.day), "D")): int(r.n) for r in rows}

        return self._db.run(work)

    def asked_and_answered(self) -> tuple[int, int]:
        """Return how many different queries were ever charged, and how many of them have an accepted answer."""

        def work(connection: sa.Connection) -> tuple[int, int]:
            asked = sa.select(sa.func.count(sa.distinct(_attempts.c.key))).where(_attempts.c.key != b"")
            answered = sa.select(sa.func.count()).select_from(_answers)
            return int(connection.scalar(asked) or 0), int(connection.scalar(answered) or 0)

        return self._db.run(work)

    def invite(self, member: str) -> str:
        """Return a new token for an enrolled member; an older one is no longer good. Only its SHA-256 is kept.

        Raises
        ------
        QuotaError
            If nobody of this name can pay.
        """
        token = secrets.token_urlsafe(32)

        def work(connection: sa.Connection) -> None:
            changed = connection.execute(
                sa.update(_members)
                .where(_members.c.name == canonical(member), _members.c.quota > 0)
                .values(token=_digest(token))
            )
            if changed.rowcount != 1:
                raise QuotaError(f"Expected a member with a quota to invite, got {member!r}. See: ttca pool status")

        self._db.run(work, write=True)
        return token

    def member_of(self, token: str) -> str | None:
        """Return whose token it is, None for nobody's."""
        digest = _digest(token)

        def work(connection: sa.Connection) -> str | None:
            row = connection.execute(
                sa.select(_members.c.name, _members.c.token).where(_members.c.token == digest)
            ).first()
            return str(row.name) if row is not None and hmac.compare_digest(bytes(row.token), digest) else None

        return self._db.run(work)

    def forget(self, member: str) -> Forgotten:
        """Remove a member's name, what their images are named by, and the answers about these images.

        What they paid stays, under an alias, and so do their attempts, as tombstones without a key: the books must
        still agree with the platform's own log.

        Raises
        ------
        QuotaError
            If no member has the name.
        """
        alias = f"forgotten-{secrets.token_hex(4)}"

        def work(connection: sa.Connection) -> Forgotten:
            # No answer about their images is on its way into the tables meanwhile.
            self._db.exclude(connection)
            now = self.now_in(connection)
            number = connection.scalar(sa.select(_members.c.id).where(_members.c.name == canonical(member)))
            if number is None:
                raise QuotaError(f"Expected the name of a member in {self.name}, got {member!r}. See: ttca pool status")
            owned = sa.select(_attempts.c.key).where(_attempts.c.owner == number, _attempts.c.key != b"")
            images = connection.scalar(sa.select(sa.func.count()).select_from(owned.distinct().subquery())) or 0
            answers = connection.execute(sa.delete(_answers).where(_answers.c.key.in_(owned))).rowcount
            # What the hub held of them: their images, and what anybody said about these.
            shared = sa.select(schema.inputs.c.key).where(schema.inputs.c.owner == number)
            connection.execute(sa.delete(schema.reports).where(schema.reports.c.key.in_(shared)))
            answers += connection.execute(sa.delete(_answers).where(_answers.c.key.in_(shared))).rowcount
            connection.execute(sa.delete(schema.claims).where(schema.claims.c.key.in_(owned.union_all(shared))))
            connection.execute(sa.delete(schema.inputs).where(schema.inputs.c.owner == number))
            attempts = connection.execute(
                sa.update(_attempts).where(_attempts.c.owner == number, _attempts.c.key != b"").values(key=b"")
            ).rowcount
            connection.execute(
                sa.update(_members)
                .where(_members.c.id == number)
                .values(name=alias, quota=_members.c.charged, forgotten_at=now, token=None)
            )
            self._set_meta(connection, "forgotten", "1")
            return Forgotten(alias, int(images), int(attempts), int(answers))

        return self._db.run(work, write=True)

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

        def work(connection: sa.Connection) -> None:
            # SQLite before 3.32 takes 999 parameters in one statement.
            for i in range(0, len(unique), 900):
                for row in connection.execute(statement, {"keys": unique[i : i + 900]}):
                    found[bytes(row[0])] = row

        self._db.run(work)
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
                f"Expected answers about {classes} classes in {self.name}, got one that cannot be read ({error}). "
                "The ledger was made for another platform or was edited."
            ) from None

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
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self, connection: sa.Connection) -> None:
        # Two programs that make the same tables at once would both fail.
        self._db.exclude(connection)
        found = set(sa.inspect(connection).get_table_names())
        if found and not found >= _OLDEST:
            raise LedgerError(
                f"Expected a ledger in {self.name}, got the database of another program or version, with the tables "
                f"{', '.join(sorted(found))}. Give the ledger a {'database' if self._db.is_server else 'file'} of its "
                "own."
            )
        if not found:
            schema.tables.create_all(connection)
            self._set_meta(connection, "schema", str(schema.SCHEMA_VERSION))
        self._migrate(connection)
        self._respell(connection)
        self._check_secret(connection)

    def _check_agreed(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]], cap: int | None) -> None:
        """Raise where a quota, a rate or the cap is another one than the ledger's."""
        known = {r.name: r for r in connection.execute(sa.select(_members).where(_members.c.quota > 0))}
        for row in rows:
            old = known.get(row["name"])
            for what in ("quota", *WINDOWS):
                if old is not None and getattr(old, what) != row[what]:
                    raise QuotaError(
                        f"Expected {what} of member {row['name']!r} as in the shared ledger {self.name}, "
                        f"{getattr(old, what)}, got {row[what]}. Agree on one, or set overrule = true in [pool] once."
                    )
        was = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
        if cap is not None and was is not None and int(was) != cap:
            raise QuotaError(
                f"Expected the cap of the shared ledger {self.name}, {was}, got {cap}. Agree on one, or set overrule = "
                "true in [pool] once."
            )

    def _migrate(self, connection: sa.Connection) -> None:
        version = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "schema")) or ""
        if not version.isdecimal() or not 1 <= int(version) <= schema.SCHEMA_VERSION:
            raise LedgerError(
                f"Expected a ledger of version {schema.SCHEMA_VERSION} in {self.name}, got version {version}. "
                "Use the ttca that wrote it, or a newer one."
            )
        schema.migrate(connection, int(version))

    def _respell(self, connection: sa.Connection) -> None:
        """Give members whom an earlier version wrote down in another spelling their one name, where it is free."""
        known = {str(r.name): r.id for r in connection.execute(sa.select(_members.c.name, _members.c.id))}
        for name, number in known.items():
            if canonical(name) not in known:
                connection.execute(sa.update(_members).where(_members.c.id == number).values(name=canonical(name)))
                known = {**known, canonical(name): number}

    def _check_secret(self, connection: sa.Connection) -> None:
        """Raise when the secret is another ledger's: every answer would seem missing and be paid for again."""
        used = connection.scalar(sa.select(_requests.c.id).limit(1)) is not None
        self._secret = read_secret(self.secret_file, used=used)
        mark = hmac.new(self._secret, b"ttca ledger", hashlib.sha256).hexdigest()
        known = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "secret"))
        if known == mark:
            return
        if known is not None and (used or self._db.is_server):
            raise LedgerError(
                f"Expected the secret of the ledger {self.name} in {self.secret_file}, got another ledger's. "
                "Put the right one there."
            )
        self._set_meta(connection, "secret", mark)

    def _set_meta(self, connection: sa.Connection, name: str, value: str) -> None:
        statement = self._db.insert(_meta).values(name=name, value=value)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def open_ledger(folder: Path, url: str | None = None) -> Ledger:
    """Open an action's ledger: the file in its folder, or the one at the URL, whose secret lies in the folder."""
    if url is None:
        return Ledger(folder / "ledger.sqlite")
    if "://" not in url:
        raise LedgerError(
            f"Expected a URL such as postgresql://host/name for a shared ledger, got {url!r}. Correct it."
        )
    return Ledger(url, secret=folder / "ledger.key")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _by_name(quotas: Mapping[str, int | Quota]) -> dict[str, int | Quota]:
    found: dict[str, int | Quota] = {}
    for member, quota in quotas.items():
        if canonical(member) in found:
            raise QuotaError(
                f"Expected every member once, got {canonical(member)!r} in two spellings. Leave out one of them."
            )
        found[canonical(member)] = quota
    return found


def _payers() -> sa.ColumnElement[bool]:
    return sa.or_(_members.c.quota > 0, _members.c.charged > 0)


def _joined() -> sa.Join:
    return _attempts.join(_requests, _requests.c.id == _attempts.c.request).outerjoin(
        _outcomes,
        sa.and_(_outcomes.c.request == _attempts.c.request, _outcomes.c.position == _attempts.c.position),
    )

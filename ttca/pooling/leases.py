"""Leases: which member asks which shared image next, what they say came back, and whose word is set aside."""

from __future__ import annotations

import hashlib
import io
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image

from ttca.answers import Answers, contradicted
from ttca.data.decoding import decode_rgb
from ttca.errors import ChargeState, ConfigError, QuotaError, RateError
from ttca.images import Images, check_images
from ttca.names import canonical
from ttca.platforms.base import PlatformInfo
from ttca.pooling.audits import Reports, judge
from ttca.pooling.booking import Bill, Booking, Charge, Settlement, abandon
from ttca.pooling.claims import Claim, Taken
from ttca.pooling.ledger import Ledger
from ttca.pooling.quotas import WINDOWS
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import reports as _reports
from ttca.pooling.schema import requests as _requests

__all__ = ["AUDIT", "AuditPlan", "Lease", "LeaseDesk", "Progress", "Quarantined", "UnknownLease"]


#: What queries are booked as that others answer too.
AUDIT = "pool-audit"
#: A query that so many members could not get a usable answer to is not handed out again.
_HOPELESS = 4
#: So many leases may be out with one member at a time.
_MOST_OUT = 64
#: A query that a pool asks without the hub is left alone for so long, and then looked at again.
_MOMENT_S = 1.0


class Quarantined(QuotaError):
    """The member's answers differ from everybody else's beyond the platform's noise; they get no more leases."""


class UnknownLease(QuotaError):
    """No lease of this member has the name."""


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """How members' answers are checked by others.

    Parameters
    ----------
    first_leases : int
        So many leases of a new member are audits only, …
    first_size : int
        … of so many queries each.
    share : float
        Of the queries after that, so many are audits too.
    witnesses : int
        An audit after the first ones goes to queries that fewer than so many members have answered.
    """

    first_leases: int = 20
    first_size: int = 2
    share: float = 0.05
    witnesses: int = 4

    def __post_init__(self) -> None:
        if self.first_leases < 0 or self.first_size < 1 or not 0 <= self.share <= 1 or self.witnesses < 3:
            raise ConfigError(
                "Expected an audit plan with first_leases of 0 or more, first_size of 1 or more, share in [0, 1] and "
                f"witnesses of 3 or more, got {self}."
            )


@dataclass(frozen=True)
class Lease:
    """Queries one member may send once, until ``expires_at`` (seconds since the epoch); they are charged already.

    ``files`` are PNG files, one per image.
    """

    id: str
    files: tuple[bytes, ...]
    expires_at: float
    audit: bool

    @property
    def images(self) -> Images:
        """The images, uint8 (N, H, W, 3)."""
        return np.stack([decode_rgb(file) for file in self.files])


@dataclass(frozen=True)
class Progress:
    """How far the pool is: shared images, how many are answered, how many given up, and who takes part."""

    inputs: int
    answered: int
    given_up: int
    out: int
    charged: int
    members: int
    active: int
    quarantined: int

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        return self.answered + self.given_up == self.inputs


class LeaseDesk:
    """Hands out queries to members and takes back what they say came, on one ledger.

    Parameters
    ----------
    ledger : Ledger
    info : PlatformInfo
        The platform everybody asks.
    epoch : str
        Of the queries' keys; an action's pool people are asked in ``pool``.
    action : str, optional
        Under whose name queries are booked.
    plan : AuditPlan
    lease_s : float
        Seconds after which a query that did not come back is given to somebody else. What comes later is still
        taken.
    rng : random.Random
        Chooses audits; passed in by tests.

    Notes
    -----
    Safe for several hubs on one ledger: each query is held by one lease, in the same transaction that charges it.
    """

    def __init__(
        self,
        ledger: Ledger,
        info: PlatformInfo,
        *,
        epoch: str = "pool",
        action: str | None = None,
        plan: AuditPlan | None = None,
        lease_s: float = 120.0,
        rng: random.Random | None = None,
    ) -> None:
        if not lease_s > 0:
            raise ConfigError(f"Expected leases of more than 0 seconds, got {lease_s}. Correct it.")
        self.info = info
        self.plan = plan or AuditPlan()
        self._ledger, self._db = ledger, ledger.database
        self._epoch, self._action, self._lease_s = epoch, action, lease_s
        #: Tells the tables' rows about this platform and epoch from all others.
        self._context = hashlib.sha256(f"{info.fingerprint}\0{epoch}".encode()).hexdigest()[:32]
        self._rng = rng or random.Random()

    # -- what is asked, and by whom ---------------------------------------------------------------------------

    def load(self, images: Images, owners: Sequence[str]) -> int:
        """Take in the images that their owners share, to be asked in this order; return how many were new.

        What was loaded before and is not among them is no longer handed out. The audits are drawn when the first
        images are loaded.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            At the size the platform takes; the same image twice is one query.
        owners : sequence of N str
            Who brought each, so that they can be forgotten.

        Raises
        ------
        ImageError, ConfigError
        """
        checked = check_images(images, shape=self.info.image_shape)
        if len(owners) != len(checked) or not all(owners):
            raise ConfigError(f"Expected one owner for each of {len(checked)} images, got {len(owners)}.")
        names = [canonical(owner) for owner in owners]
        keys = self._ledger.keys(checked, fingerprint=self.info.fingerprint, epoch=self._epoch)
        audits = self.plan.first_leases * self.plan.first_size

        def work(connection: sa.Connection) -> int:
            # Two hubs that load at one moment do it one after the other.
            self._db.exclude(connection)
            mine = _inputs.c.context == self._context
            there = {bytes(k) for k in connection.scalars(sa.select(_inputs.c.key).where(mine))}
            self._withdraw(connection, sorted(there - set(keys)))
            numbers = self._numbers(connection, names)
            number = (connection.scalar(sa.select(sa.func.max(_inputs.c.number)).where(mine)) or 0) + 1
            rows: dict[bytes, dict[str, object]] = {}
            for key, image, owner in zip(keys, checked, names, strict=True):
                if key not in there and key not in rows:
                    rows[key] = {
                        "key": key,
                        "context": self._context,
                        "number": number + len(rows),
                        "owner": numbers[owner],
                        "image": _encode(image),
                        "audit": False,
                        "answered": False,
                        "failures": 0,
                        "held_until": 0.0,
                    }
            if not there:
                for key in self._rng.sample(sorted(rows), min(audits, len(rows))):
                    rows[key]["audit"] = True
            if rows:
                connection.execute(self._db.insert_new(_inputs), list(rows.values()))
            self._mark_answered(connection, keys)
            return len(rows)

        return self._db.run(work, write=True)

    # -- leases -----------------------------------------------------------------------------------------------

    def issue(self, member: str, size: int, *, name: str | None = None) -> Lease | None:
        """Charge the member for up to ``size`` queries and hand them over; None where there is nothing to ask now.

        Parameters
        ----------
        member : str
        size : int
            It is cut to what quota, cap and rates leave.
        name : str, optional
            Of the lease, made up by whoever asks: asking again under the same name gives the same lease, paid once.

        Raises
        ------
        QuotaError, RateError
            If quota, rate or cap do not allow a single query.
        Quarantined
            If the member was flagged.
        UnknownLease
            If the name was used for another lease.
        """
        lease = secrets.token_urlsafe(16) if name is None else name

        def work(connection: sa.Connection) -> Lease | None:
            self._db.share(connection)
            now = self._ledger.now_in(connection)
            who = self._who(connection, member)
            if (again := self._issued(connection, lease, who.id)) is not None:
                return again
            self._check_few_are_out(connection, who.id, now)
            # Where there is no room for one, the booking says why.
            size_now = max(1, min(size, self._room(connection, who, now)))
            done: Charge | Taken | QuotaError | None = None
            while not isinstance(done, Charge):
                keys, audit = self._choose(connection, who.id, size_now, now)
                found = self._shared(connection, keys)
                keys = [k for k in keys if k in found]
                if not keys:
                    return None
                purpose, owners = AUDIT if audit else "pool", [found[k][1] for k in keys]
                # Several members answer an audit, whoever has asked it before.
                claim = None if audit else Claim(f"lease {lease}", self._lease_s)
                bill = Bill(member, keys, lease, 1, purpose, self._action, owners, claim)
                (done,) = Booking(self._db, [bill], [], now=self._ledger.now_in)(connection)
                if isinstance(done, QuotaError):
                    raise done
                if isinstance(done, Taken):
                    # A pool asks some of it without the hub: others are chosen.
                    self._set_aside(connection, done, now)
            expires = now + self._lease_s
            row = {"id": lease, "context": self._context, "member": who.id, "request": done.request, "audit": audit}
            connection.execute(sa.insert(_leases), {**row, "expires_at": expires})
            if not audit:
                connection.execute(
                    sa.update(_inputs).where(_inputs.c.key.in_(keys)).values(lease=lease, held_until=expires)
                )
            return Lease(lease, tuple(found[k][0] for k in keys), expires, audit)

        return self._db.run(work, write=True)

    def take_back(self, lease: str, member: str, answers: Answers) -> int:
        """Write down what a member says came back, and return how many answers are usable; safe to repeat.

        Answers of a flagged member are kept apart. The first usable answer of anybody else is accepted.

        Raises
        ------
        UnknownLease
            If the member has no such lease.
        ConfigError
            If there is not one answer for each query, or a label contradicts its scores.
        """
        usable = answers.resolved
        against = np.flatnonzero(contradicted(answers.labels, answers.scores, answers.resolution))
        if len(against):
            row = int(against[0])
            said, best = answers.labels[row], np.nanargmax(answers.scores[row])
            raise ConfigError(
                f"Expected the label {said} of answer {row} to have the highest score, got "
                f"{answers.scores[row, said]:.4g} for it and {answers.scores[row, best]:.4g} for {best}. Bring what "
                "the platform said."
            )

        def work(connection: sa.Connection) -> tuple[int, bool]:
            self._db.share(connection)
            row, keys = self._lease(connection, lease, member)
            if len(answers) != len(keys):
                raise ConfigError(f"Expected {len(keys)} answers for the lease, got {len(answers)}.")
            if row.returned_at is not None:
                return int(usable.sum()), False
            charge = Charge(row.request, member, len(keys))
            settlement = Settlement(
                charge, keys, answers, "no usable answer in this row", accept=row.flagged_at is None
            )
            Booking(self._db, [], [settlement], now=self._ledger.now_in)(connection)
            said = settlement.accepted(self._ledger.now_in(connection))
            named = self._shared(connection, keys)
            said = [{**s, "member": row.member, "context": self._context} for s in said if s["key"] in named]
            if said:
                connection.execute(self._db.insert_new(_reports), said)
            failed = [key for key, ok in zip(keys, usable.tolist(), strict=True) if not ok]
            self._release(connection, lease, keys, failed=failed)
            heard = connection.scalar(
                sa.select(sa.func.count())
                .select_from(_reports)
                .where(_reports.c.key.in_(keys), _reports.c.member != row.member)
            )
            return int(usable.sum()), bool(heard)

        count, comparable = self._db.run(work, write=True)
        if comparable:
            self._judge()
        return count

    def give_up(self, lease: str, member: str, state: ChargeState, *, detail: str) -> None:
        """Write down that a lease brought no answer, and what that cost; safe to repeat.

        Raises
        ------
        UnknownLease
        """

        def work(connection: sa.Connection) -> None:
            row, keys = self._lease(connection, lease, member)
            if row.returned_at is not None:
                return
            charge = Charge(row.request, member, len(keys))
            abandon(connection, charge, state, detail=detail, now=self._ledger.now_in(connection))
            # A request that surely was not processed says nothing about its images.
            self._release(connection, lease, keys, failed=keys if state is ChargeState.CHARGED else [])

        self._db.run(work, write=True)

    # -- what became of it ------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Return how far the pool is."""
        mine = _inputs.c.context == self._context

        def count(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0)

        def work(connection: sa.Connection) -> Progress:
            now = self._ledger.now_in(connection)
            active = sa.select(sa.func.count(sa.distinct(_reports.c.member))).where(_reports.c.context == self._context)
            inputs = count(connection, _inputs, mine)
            return Progress(
                inputs=inputs,
                answered=inputs - count(connection, _inputs, mine, _unanswered()),
                given_up=count(connection, _inputs, mine, _unanswered(), _inputs.c.failures >= _HOPELESS),
                out=count(connection, _inputs, mine, _inputs.c.held_until > now),
                charged=int(connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0),
                members=count(connection, _members, _members.c.quota > 0, _members.c.forgotten_at.is_(None)),
                active=int(connection.scalar(active) or 0),
                quarantined=count(connection, _members, _members.c.flagged_at.is_not(None)),
            )

        return self._db.run(work)

    def flagged(self) -> list[str]:
        """Return the members whose answers were set aside."""
        return self._db.run(
            lambda connection: [
                str(name)
                for name in connection.scalars(
                    sa.select(_members.c.name).where(_members.c.flagged_at.is_not(None)).order_by(_members.c.name)
                )
            ]
        )

    def is_done(self, member: str | None = None) -> bool:
        """Whether every shared image has an accepted answer, or will have none; of one member: as far as they can."""

        def work(connection: sa.Connection) -> bool:
            left = sa.select(_inputs.c.key).where(_inputs.c.context == self._context, _open())
            if member is not None:
                who = sa.select(_members.c.id).where(_members.c.name == canonical(member)).scalar_subquery()
                # What is out with the member may come back, and be asked by them again only if it cost nothing.
                left = left.where(_inputs.c.key.not_in(_given(who, None)))
            return connection.scalar(left.limit(1)) is None

        return self._db.run(work)

    def pardon(self, member: str) -> None:
        """Lift a member's quarantine. What they said before stays set aside, and no longer speaks against them.

        Raises
        ------
        QuotaError
            If nobody of this name was set aside.
        """

        def work(connection: sa.Connection) -> None:
            self._db.exclude(connection)
            theirs = _members.c.name == canonical(member)
            number = connection.scalar(sa.select(_members.c.id).where(theirs, _members.c.flagged_at.is_not(None)))
            if number is None:
                raise QuotaError(f"Expected a member who was set aside, got {member!r}. See the hub's page.")
            connection.execute(sa.delete(_reports).where(_reports.c.member == number))
            connection.execute(sa.update(_members).where(_members.c.id == number).values(flagged_at=None))

        self._db.run(work, write=True)

    # -- inside -----------------------------------------------------------------------------------------------

    def _who(self, connection: sa.Connection, member: str) -> Any:
        row = connection.execute(sa.select(_members).where(_members.c.name == canonical(member))).first()
        if row is None:
            raise QuotaError(f"Expected an enrolled member, got {member!r}.")
        if row.flagged_at is not None:
            raise Quarantined(
                f"The answers of member {member!r} differ from everybody else's beyond the platform's own noise. They "
                "are set aside, and no further queries are handed out. Check which platform you ask, and with which "
                "settings; then talk to whoever runs the pool."
            )
        return row

    def _check_few_are_out(self, connection: sa.Connection, who: int, now: float) -> None:
        out = (
            sa.select(sa.func.count())
            .select_from(_leases)
            .where(_leases.c.member == who, _leases.c.returned_at.is_(None), _leases.c.expires_at > now)
        )
        if (connection.scalar(out) or 0) >= _MOST_OUT:
            raise RateError(f"Expected at most {_MOST_OUT} leases out with one member, got more. Wait.", wait_s=1.0)

    def _room(self, connection: sa.Connection, who: Any, now: float) -> int:
        """Return how many queries quota, cap and rates leave the member at this moment."""
        room = int(who.quota - who.charged)
        cap = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == "cap"))
        if cap is not None:
            room = min(room, int(cap) - int(connection.scalar(sa.select(sa.func.sum(_members.c.charged))) or 0))
        for window, seconds in WINDOWS.items():
            limit = getattr(who, window)
            if limit is not None:
                recent = sa.select(sa.func.sum(_requests.c.paid)).where(
                    _requests.c.member == who.id, _requests.c.charged_at > now - seconds
                )
                room = min(room, limit - int(connection.scalar(recent) or 0))
        return room

    def _choose(self, connection: sa.Connection, who: int, size: int, now: float) -> tuple[list[bytes], bool]:
        """Return the keys of the member's next lease, and whether it is an audit."""
        mine = _inputs.c.context == self._context
        # What the member was ever paid for, whatever came of it, is not given again: somebody else tries it.
        given = _given(who, now)
        fresh = sa.select(_inputs.c.key).where(mine, _inputs.c.audit, _inputs.c.key.not_in(given))
        keys = sorted(bytes(k) for k in connection.scalars(fresh))
        if keys:
            return self._rng.sample(keys, min(self.plan.first_size, size, len(keys))), True
        if self._rng.random() < self.plan.share:
            keys = self._seen_by_few(connection, given, size)
            if keys:
                return keys, True
        free = (
            sa.select(_inputs.c.key, _inputs.c.failures)
            .where(mine, _open(), _inputs.c.held_until <= now, _inputs.c.key.not_in(given))
            .order_by(_inputs.c.number)
            .limit(size)
            # Another hub on the same server takes others at this moment.
            .with_for_update(of=_inputs, skip_locked=True)
        )
        rows = connection.execute(free).all()
        # One image that spoils its request must not spoil it for the others.
        chosen = rows[:1] if rows and rows[0].failures else [r for r in rows if not r.failures]
        return [bytes(r.key) for r in chosen], False

    def _seen_by_few(self, connection: sa.Connection, given: sa.Select[Any], size: int) -> list[bytes]:
        """Return queries some others answered: best those that lack only this member to be judged by."""
        count = sa.func.count()
        few = (
            sa.select(_reports.c.key)
            .where(_reports.c.context == self._context, _reports.c.key.not_in(given))
            .group_by(_reports.c.key)
            .having(count < self.plan.witnesses)
            .order_by(count.desc(), _reports.c.key)
            .limit(size)
        )
        return [bytes(k) for k in connection.scalars(few)]

    def _shared(self, connection: sa.Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, str]]:
        """Return the PNG file and the owner of each of these images that is still shared."""
        rows = connection.execute(
            sa.select(_inputs.c.key, _inputs.c.image, _members.c.name)
            .join(_members, _members.c.id == _inputs.c.owner)
            .where(_inputs.c.key.in_(keys))
        )
        return {bytes(r.key): (bytes(r.image), str(r.name)) for r in rows}

    def _keys_of(self, connection: sa.Connection, request: int) -> list[bytes]:
        keys = sa.select(_attempts.c.key).where(_attempts.c.request == request).order_by(_attempts.c.position)
        return [bytes(k) for k in connection.scalars(keys)]

    def _issued(self, connection: sa.Connection, lease: str, who: int) -> Lease | None:
        """Return a lease that was handed out before, though whoever asked may never have heard of it."""
        row = connection.execute(sa.select(_leases).where(_leases.c.id == lease)).first()
        if row is None:
            return None
        keys = self._keys_of(connection, row.request)
        found = self._shared(connection, keys)
        if row.member != who or row.returned_at is not None or len(found) != len(keys):
            raise UnknownLease("Expected a new name for a lease, got one that was used. Make up another.")
        return Lease(lease, tuple(found[k][0] for k in keys), row.expires_at, bool(row.audit))

    def _lease(self, connection: sa.Connection, lease: str, member: str) -> tuple[Any, list[bytes]]:
        row = connection.execute(
            sa.select(_leases.c.request, _leases.c.member, _leases.c.returned_at, _members.c.flagged_at)
            .join(_members, _members.c.id == _leases.c.member)
            .where(_leases.c.id == lease, _leases.c.context == self._context, _members.c.name == canonical(member))
            # Answers and a failure of the same lease come one after the other.
            .with_for_update(of=_leases)
        ).first()
        if row is None:
            raise UnknownLease("Expected a lease of yours, got the name of none.")
        return row, self._keys_of(connection, row.request)

    def _release(
        self, connection: sa.Connection, lease: str, keys: Sequence[bytes], *, failed: Sequence[bytes]
    ) -> None:
        now = self._ledger.now_in(connection)
        connection.execute(sa.update(_leases).where(_leases.c.id == lease).values(returned_at=now))
        connection.execute(
            sa.update(_inputs)
            .where(_inputs.c.key.in_(keys), _inputs.c.lease == lease)
            .values(lease=None, held_until=0.0)
        )
        if failed:
            connection.execute(
                sa.update(_inputs).where(_inputs.c.key.in_(failed)).values(failures=_inputs.c.failures + 1)
            )
        self._mark_answered(connection, keys)

    def _set_aside(self, connection: sa.Connection, taken: Taken, now: float) -> None:
        """Keep what a pool has answered, or asks at this moment, from being chosen again."""
        self._mark_answered(connection, sorted(taken.answered))
        busy = _inputs.c.key.in_(sorted(taken.busy))
        connection.execute(sa.update(_inputs).where(busy).values(lease=None, held_until=now + _MOMENT_S))

    def _mark_answered(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        for part in _parts(keys):
            known = sa.select(_answers.c.key).where(_answers.c.key.in_(part))
            connection.execute(
                sa.update(_inputs).where(_inputs.c.key.in_(known), _inputs.c.answered.is_(False)).values(answered=True)
            )

    def _withdraw(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        """Delete images that are shared no longer; those a member has at this moment are never handed out again."""
        now = self._ledger.now_in(connection)
        for part in _parts(keys):
            theirs = _inputs.c.key.in_(part)
            connection.execute(sa.delete(_inputs).where(theirs, _inputs.c.held_until <= now))
            connection.execute(sa.update(_inputs).where(theirs).values(failures=_HOPELESS, audit=False))

    def _numbers(self, connection: sa.Connection, names: Sequence[str]) -> Mapping[str, int]:
        wanted = sorted(set(names))
        if not wanted:
            return {}
        connection.execute(self._db.insert_new(_members), [{"name": n, "quota": 0, "charged": 0} for n in wanted])
        rows = connection.execute(sa.select(_members.c.name, _members.c.id))
        return {str(r.name): int(r.id) for r in rows}

    def _judge(self) -> None:
        """Flag who answers otherwise than the others, and put their answers aside."""
        mine = _reports.c.context == self._context
        several = sa.select(_reports.c.key).where(mine).group_by(_reports.c.key).having(sa.func.count() >= 3)

        def read(connection: sa.Connection) -> tuple[Sequence[Any], set[int]]:
            rows = connection.execute(
                sa.select(_reports.c.key, _reports.c.member, _reports.c.label, _reports.c.scores).where(
                    _reports.c.key.in_(several)
                )
            ).all()
            known = set(connection.scalars(sa.select(_members.c.id).where(_members.c.flagged_at.is_not(None))))
            return rows, {int(i) for i in known}

        rows, known = self._db.run(read)
        if not rows:
            return
        verdict = judge(_as_reports(rows, len(self.info.classes)), flagged=frozenset(known))
        for member in sorted(set(verdict.members[verdict.flagged].tolist()) - known):
            self._quarantine(int(member))

    def _quarantine(self, member: int) -> None:
        def work(connection: sa.Connection) -> None:
            # No answer of theirs is on its way into the tables meanwhile.
            self._db.exclude(connection)
            flagged = connection.execute(
                sa.update(_members)
                .where(_members.c.id == member, _members.c.flagged_at.is_(None))
                .values(flagged_at=self._ledger.now_in(connection))
            )
            if flagged.rowcount != 1:
                return
            # Not what the pool sent from the organiser's own machine under the member's quota.
            theirs = sa.select(_leases.c.request).where(_leases.c.member == member)
            keys = connection.scalars(sa.select(_answers.c.key).where(_answers.c.request.in_(theirs)))
            for part in _parts([bytes(k) for k in keys]):
                self._replace(connection, part)

        self._db.run(work, write=True)

    def _replace(self, connection: sa.Connection, keys: Sequence[bytes]) -> None:
        """Take answers out of the ledger, and put in what the next trusted member said, where one did."""
        connection.execute(sa.delete(_answers).where(_answers.c.key.in_(keys)))
        trusted = (
            sa.select(_reports)
            .join(_members, _members.c.id == _reports.c.member)
            .where(_reports.c.key.in_(keys), _members.c.flagged_at.is_(None))
            .order_by(_reports.c.at, _reports.c.request)
        )
        names = [c.name for c in _answers.columns]
        rows = [{n: getattr(r, n) for n in names} for r in connection.execute(trusted)]
        if rows:
            connection.execute(self._db.insert_new(_answers), rows)
        connection.execute(sa.update(_inputs).where(_inputs.c.key.in_(keys)).values(answered=False))
        self._mark_answered(connection, keys)


def _given(who: Any, now: float | None) -> sa.Select[Any]:
    """Select what a member has brought back at some cost, or (with ``now``) has and may still bring back."""
    back = sa.and_(_leases.c.returned_at.is_not(None), _requests.c.paid > 0)
    out = sa.and_(_leases.c.returned_at.is_(None), _leases.c.expires_at > (0.0 if now is None else now))
    return (
        sa.select(_attempts.c.key)
        .join(_requests, _requests.c.id == _attempts.c.request)
        .join(_leases, _leases.c.request == _requests.c.id)
        .where(_leases.c.member == who, back if now is None else sa.or_(back, out))
    )


def _unanswered() -> sa.ColumnElement[bool]:
    # The pool may have had it answered without the hub.
    answered = sa.select(_answers.c.key).where(_answers.c.key == _inputs.c.key).exists()
    return sa.and_(_inputs.c.answered.is_(False), sa.not_(answered))


def _open() -> sa.ColumnElement[bool]:
    return sa.and_(_unanswered(), _inputs.c.failures < _HOPELESS)


def _parts(keys: Sequence[bytes]) -> list[list[bytes]]:
    """Cut keys into lists that fit in one statement."""
    return [list(keys[i : i + 900]) for i in range(0, len(keys), 900)]


def _as_reports(rows: Sequence[Any], classes: int) -> Reports:
    numbers: dict[bytes, int] = {}
    queries = [numbers.setdefault(bytes(row[0]), len(numbers)) for row in rows]
    scores = np.full((len(rows), classes), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row[3] is not None:
            scores[i] = np.frombuffer(row[3], "<f4", count=classes)
    members: NDArray[np.int64] = np.array([row[1] for row in rows], np.int64)
    return Reports(np.array(queries, np.int64), members, np.array([row[2] for row in rows], np.int64), scores)


def _encode(image: Images) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()

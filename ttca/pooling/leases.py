"""Leases: which member asks which shared image next, and what they say came back."""

from __future__ import annotations

import hashlib
import io
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from PIL import Image

from ttca.answers import Answers, Status, contradicted
from ttca.data.decoding import decode_rgb
from ttca.errors import ChargeState, ConfigError, QuotaError
from ttca.images import Images, check_images
from ttca.names import canonical
from ttca.platforms.base import PlatformInfo
from ttca.pooling.acquaintance import Acquaintance, Question
from ttca.pooling.booking import ANSWER, Bill, Charge, Settlement, Words, abandon, sealed
from ttca.pooling.claims import Claim, Taken
from ttca.pooling.jury import Jury
from ttca.pooling.ledger import Ledger
from ttca.pooling.lookup import ReadAgain, Reader
from ttca.pooling.membership import numbered
from ttca.pooling.pacing import check_may_lease, fails_seldom, fair_share
from ttca.pooling.recall import recall
from ttca.pooling.room import member_room
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.schema import leases as _leases
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import reports as _reports
from ttca.pooling.settling import CheckPlan
from ttca.pooling.shelf import HOPELESS, Progress, Shelf, files_of, given_to, is_open, mark_answered
from ttca.rounding import apart

__all__ = ["CROSS_CHECK", "CheckPlan", "Lease", "LeaseDesk", "Progress", "Quarantined", "UnknownLease"]


#: What queries are booked as that others have answered before; earlier versions booked ``pool-audit``.
CROSS_CHECK = "pool-cross-check"
#: A query that a pool asks without the hub is left alone for so long, and then looked at again.
_MOMENT_S = 1.0
#: Cross-checks are drawn from so many times a lease's size, so that nobody knows whose answers come next, …
_DRAWN_FROM = 2
#: … and from this share of all images at least.
_DRAWN_SHARE = 0.05


class Quarantined(QuotaError):
    """The member's answers differ from everybody else's beyond the platform's noise; they get no more leases."""


class UnknownLease(QuotaError):
    """No lease of this member has the name."""


@dataclass(frozen=True)
class Lease:
    """Queries one member may send once, until ``expires_at`` (seconds since the epoch); they are charged already.

    ``files`` are PNG files, one per image.
    """

    id: str
    files: tuple[bytes, ...]
    expires_at: float
    cross_check: bool

    @property
    def images(self) -> Images:
        """The images, uint8 (N, H, W, 3)."""
        return np.stack([decode_rgb(file) for file in self.files])


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
    plan : CheckPlan
        How members' answers are cross-checked.
    lease_s : float
        Seconds after which a query that did not come back is given to somebody else. What comes later is still
        taken.
    rng : random.Random
        Draws cross-checks; passed in by tests.

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
        plan: CheckPlan | None = None,
        lease_s: float = 120.0,
        rng: random.Random | None = None,
    ) -> None:
        if not lease_s > 0:
            raise ConfigError(f"Expected leases of more than 0 seconds, got {lease_s}. Correct it.")
        self.info = info
        self.plan = plan or CheckPlan()
        self._ledger, self._db = ledger, ledger.database
        self._epoch, self._action, self._lease_s = epoch, action, lease_s
        # Tells the tables' rows about this platform, read in this way, and this epoch from all others.
        self._context = _context(info.fingerprint_as_read, epoch)
        self._rng = rng or random.Random()
        self._shelf = Shelf(self._context)
        #: Who judges members by what others answered.
        self.jury = Jury(ledger, self._shelf, classes=len(info.classes), plan=self.plan)

    # -- what is asked, and by whom ---------------------------------------------------------------------------

    def load(
        self, images: Images, owners: Sequence[str], *, again: ReadAgain | None = None, accept_new_version: bool = False
    ) -> int:
        """Take in the images that their owners share, to be asked in this order; return how many were new.

        What was loaded before and is not among them is no longer handed out.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            At the size the platform takes; the same image twice is one query.
        owners : sequence of N str
            Who brought each, so that they can be forgotten.
        again : callable, optional
            Reads what the platform said before (:data:`~ttca.pooling.lookup.ReadAgain`).
        accept_new_version : bool
            Whether members may be asked to pay again where the platform is another one than before.

        Raises
        ------
        ImageError, ConfigError
        ChangedPlatformError
            If it is another one, and that would cost something.
        """
        checked = check_images(images, shape=self.info.image_shape)
        if len(owners) != len(checked) or not all(owners):
            raise ConfigError(f"Expected one owner for each of {len(checked)} images, got {len(owners)}.")
        names = [canonical(owner) for owner in owners]
        info = self.info
        found = recall(self._ledger, info, checked, Reader(info.reading_mark, again), epoch=self._epoch)
        Acquaintance(self._ledger, self._action).check(
            info, Question(checked, self._epoch, 0, found), accept=accept_new_version
        )
        former = self._ledger.keys(checked, fingerprint=info.former_fingerprint, epoch=self._epoch)

        def work(connection: sa.Connection) -> int:
            # Two hubs that load at one moment do it one after the other.
            self._db.exclude(connection)
            if self._ledger.holds_older:
                self._shelf.adopt(connection, _context(info.former_fingerprint, self._epoch))
            mine = _inputs.c.context == self._context
            there = {bytes(k) for k in connection.scalars(sa.select(_inputs.c.key).where(mine))}
            keys = [old if old in there else key for key, old in zip(found.keys, former, strict=True)]
            self._shelf.withdraw(connection, sorted(there - set(keys)), self._ledger.now_in(connection))
            numbers = numbered(self._db, connection, names, self._ledger.seals)
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
                        "wanted": 0,
                        "answered": False,
                        "failures": 0,
                        "held_until": 0.0,
                    }
            if rows:
                self._db.add(connection, _inputs, list(rows.values()), new=True)
            mark_answered(connection, keys)
            self._shelf.close(connection, [key for key, ok in zip(keys, found.known.tolist(), strict=True) if ok])
            return len(rows)

        return self._db.run(work, write=True)

    # -- leases -----------------------------------------------------------------------------------------------

    def issue(self, member: str, size: int, *, name: str | None = None) -> Lease | None:
        """Charge the member for up to ``size`` queries and hand them over; None where there is nothing to ask now.

        Parameters
        ----------
        member : str
        size : int
            It is cut to what quota, cap and rates leave, and to a fair share of what is left to ask.
        name : str, optional
            Of the lease, made up by whoever asks: asking again under the same name gives the same lease, paid once.

        Raises
        ------
        QuotaError, RateError
            If quota, rate or cap do not allow a single query, or the member holds a fair share of all.
        Quarantined
            If the member was flagged.
        UnknownLease
            If the name was used for another lease.
        """
        lease = secrets.token_urlsafe(16) if name is None else name

        def work(connection: sa.Connection) -> tuple[Lease, int] | None:
            self._db.share(connection)
            now = self._ledger.now_in(connection)
            who = self._who(connection, member)
            if (again := self._issued(connection, lease, who.id)) is not None:
                return again, 0
            check_may_lease(connection, who.id, now)
            size_now = min(size, member_room(connection, who, now))
            # Where there is no room for one, the booking says why.
            size_now = fair_share(connection, self._context, who.id, size_now, now) if size_now > 0 else 1
            done: Charge | Taken | QuotaError | None = None
            while not isinstance(done, Charge):
                keys, check = self._choose(connection, who.id, size_now, now)
                found = files_of(connection, keys)
                keys = [k for k in keys if k in found]
                if not keys:
                    return None
                purpose, owners = CROSS_CHECK if check else "pool", [found[k][1] for k in keys]
                # Several members answer a cross-check, whoever has asked it before.
                claim = None if check else Claim(f"lease {lease}", self._lease_s)
                bill = Bill(member, keys, lease, 1, purpose, self._action, owners, claim)
                (done,) = self._ledger.booking([bill], [])(connection)
                if isinstance(done, QuotaError):
                    raise done
                if isinstance(done, Taken):
                    # A pool asks some of it without the hub: others are chosen.
                    self._set_aside(connection, done, now)
            expires = now + self._lease_s
            row = {"id": lease, "context": self._context, "member": who.id, "request": done.request}
            connection.execute(sa.insert(_leases), {**row, "cross_check": check, "expires_at": expires})
            connection.execute(
                sa.update(_inputs).where(_inputs.c.key.in_(keys)).values(lease=lease, held_until=expires)
            )
            return Lease(lease, tuple(found[k][0] for k in keys), expires, check), done.request

        given = self._issue(work)
        if given is None and self.jury.stale:
            # Nothing is left, as far as was judged. What is judged now may want more.
            self.jury.judge()
            given = self._issue(work)
        return given

    def _issue(self, work: Callable[[sa.Connection], tuple[Lease, int] | None]) -> Lease | None:
        given = self._db.run(work, write=True)
        if given is None:
            return None
        lease, request = given
        self._ledger.saw([request])
        return lease

    def take_back(self, lease: str, member: str, answers: Answers) -> int:
        """Write down what a member says came back, and return how many answers are usable; safe to repeat.

        Answers of a flagged member are kept apart. The first usable answer of anybody else is accepted, until others
        outvote it.

        Raises
        ------
        UnknownLease
            If the member has no such lease.
        ConfigError
            If there is not one answer for each query, or a label contradicts its scores.
        """
        usable = answers.resolved
        _check_agrees(answers)

        def work(connection: sa.Connection) -> int:
            self._db.share(connection)
            row, keys = self._lease(connection, lease, member)
            if len(answers) != len(keys):
                raise ConfigError(f"Expected {len(keys)} answers for the lease, got {len(answers)}.")
            if row.returned_at is not None:
                return int(usable.sum())
            charge = Charge(row.request, member, len(keys))
            settlement = Settlement(
                charge,
                keys,
                answers,
                "no usable answer in this row",
                accept=row.flagged_at is None,
                words=Words(self.info.reading_mark),
            )
            self._ledger.booking([], [settlement])(connection)
            failed = [key for key, ok in zip(keys, usable.tolist(), strict=True) if not ok]
            said = sealed(settlement.accepted(self._ledger.now_in(connection)), self._ledger.seals)
            self._report(connection, row, keys, [dict(zip(ANSWER, r, strict=True)) for r in said], failed)
            self._release(connection, lease, keys, failed=failed if fails_seldom(connection, row.member) else [])
            self.jury.hear(connection, [k for k in keys if k not in failed], failed)
            return int(usable.sum())

        count = self._db.run(work, write=True)
        if self.jury.due:
            self.jury.judge()
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
            abandon(self._db, connection, charge, state, detail=detail, now=self._ledger.now_in(connection))
            # A request that surely was not processed says nothing about its images.
            failed = keys if state is ChargeState.CHARGED else []
            self._report(connection, row, keys, [], failed)
            self._release(connection, lease, keys, failed=failed if fails_seldom(connection, row.member) else [])
            self.jury.hear(connection, [], failed)

        self._db.run(work, write=True)

    # -- what became of it ------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Return how far the pool is."""
        return self._db.run(lambda connection: self._shelf.progress(connection, self._ledger.now_in(connection)))

    def flagged(self) -> list[str]:
        """Return the members whose answers were set aside."""
        return self.jury.flagged()

    def is_done(self, member: str | None = None) -> bool:
        """Whether every shared image has an answer that stands, or never will; of one member: as far as they can."""
        return self._db.run(lambda connection: self._shelf.is_done(connection, member))

    def free_in(self) -> float | None:
        """Return in how many seconds what is out now, and does not come back, may be asked by others; None for nothing.

        What was leased by a program that was killed is out until then.
        """
        return self._db.run(lambda connection: self._shelf.free_in(connection, self._ledger.now_in(connection)))

    def pardon(self, member: str) -> None:
        """Lift a member's quarantine. What they said before stays set aside, and no longer speaks against them.

        Raises
        ------
        QuotaError
            If nobody of this name was set aside.
        """
        self.jury.pardon(member)

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

    def _choose(self, connection: sa.Connection, who: int, size: int, now: float) -> tuple[list[bytes], bool]:
        """Return the keys of the member's next lease, and whether others have answered them before."""
        mine = _inputs.c.context == self._context
        # What the member was ever paid for, whatever came of it, is not given again: somebody else tries it.
        given = given_to(who, now)
        soon, checks = ([], []) if self.plan.off else self._shelf.wanting(connection, given, 2, now)
        images = connection.scalar(sa.select(sa.func.max(_inputs.c.number)).where(mine)) or 0 if checks else 0
        # Drawn from many, in leases of the same size: whoever brings lies cannot have a friend confirm them next.
        if len(soon) + len(checks) >= max(_DRAWN_FROM * size, _DRAWN_SHARE * images):
            return self._drawn(soon, checks, size), True
        free = (
            sa.select(_inputs.c.key, _inputs.c.failures)
            .where(mine, is_open(), _inputs.c.held_until <= now, _inputs.c.key.not_in(given))
            .order_by(_inputs.c.number)
            .limit(size)
            # Another hub on the same server takes others at this moment.
            .with_for_update(of=_inputs, skip_locked=True)
        )
        rows = connection.execute(free).all()
        # One image that spoils its request must not spoil it for the others.
        chosen = rows[:1] if rows and rows[0].failures else [r for r in rows if not r.failures]
        if not chosen and not self.plan.off:
            if not soon and not checks:
                _, checks = self._shelf.wanting(connection, given, 1, now)
            return self._drawn(soon, checks, size), True
        return [bytes(r.key) for r in chosen], False

    def _drawn(self, soon: Sequence[bytes], checks: Sequence[bytes], size: int) -> list[bytes]:
        """Draw cross-checks at random, from contradictions first."""
        first = self._rng.sample(soon, min(size, len(soon)))
        return first + self._rng.sample(checks, min(size - len(first), len(checks)))

    def _report(
        self,
        connection: sa.Connection,
        row: Any,
        keys: Sequence[bytes],
        said: Sequence[Mapping[str, Any]],
        failed: Sequence[bytes],
    ) -> None:
        """Write down what a member said of each image that is still shared, or that they got no answer to it."""
        named = files_of(connection, keys)
        now = self._ledger.now_in(connection)
        silent: dict[str, Any] = {"status": int(Status.FAILED), "label": -1, "scores": None, "resolution": 0.0}
        silent |= {"reading": None, "seal": None}
        rows = [*said, *({"key": key, "request": row.request, "at": now, **silent} for key in failed)]
        rows = [{**r, "member": row.member, "context": self._context} for r in rows if r["key"] in named]
        if rows:
            self._db.add(connection, _reports, rows, new=True)

    def _issued(self, connection: sa.Connection, lease: str, who: int) -> Lease | None:
        """Return a lease that was handed out before, though whoever asked may never have heard of it."""
        row = connection.execute(sa.select(_leases).where(_leases.c.id == lease)).first()
        if row is None:
            return None
        keys = _keys_of(connection, row.request)
        found = files_of(connection, keys)
        if row.member != who or row.returned_at is not None or len(found) != len(keys):
            raise UnknownLease("Expected a new name for a lease, got one that was used. Make up another.")
        return Lease(lease, tuple(found[k][0] for k in keys), row.expires_at, bool(row.cross_check))

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
        return row, _keys_of(connection, row.request)

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
            # Whether it is given up says the jury.
            tried = sa.update(_inputs).where(_inputs.c.key.in_(failed), _inputs.c.failures < HOPELESS - 1)
            connection.execute(tried.values(failures=_inputs.c.failures + 1))
        mark_answered(connection, keys)

    def _set_aside(self, connection: sa.Connection, taken: Taken, now: float) -> None:
        """Keep what a pool has answered, or asks at this moment, from being chosen again."""
        mark_answered(connection, sorted(taken.answered))
        busy = _inputs.c.key.in_(sorted(taken.busy))
        connection.execute(sa.update(_inputs).where(busy).values(lease=None, held_until=now + _MOMENT_S))


def _keys_of(connection: sa.Connection, request: int) -> list[bytes]:
    keys = sa.select(_attempts.c.key).where(_attempts.c.request == request).order_by(_attempts.c.position)
    return [bytes(k) for k in connection.scalars(keys)]


def _check_agrees(answers: Answers) -> None:
    """Raise where a label contradicts its scores."""
    against = np.flatnonzero(contradicted(answers.labels, answers.scores, answers.resolution))
    if len(against):
        row = int(against[0])
        said, best = answers.labels[row], np.nanargmax(answers.scores[row])
        less, more = apart(answers.scores[row, said], answers.scores[row, best])
        raise ConfigError(
            f"Expected the label {said} of answer {row} to have the highest score, got {less} for it and {more} for "
            f"{best}. Bring what the platform said."
        )


def _context(fingerprint: str, epoch: str) -> str:
    return hashlib.sha256(f"{fingerprint}\0{epoch}".encode()).hexdigest()[:32]


def _encode(image: Images) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()

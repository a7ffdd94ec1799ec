"""A member's own allowance: what their key pays in all, in a day and in one run, whatever a hub says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ttca.answers import Answers
from ttca.errors import ChargeState, ConfigError, RateError
from ttca.images import Images
from ttca.pooling.booking import Charge, Settlement
from ttca.pooling.ledger import Ledger
from ttca.pooling.quotas import Quota
from ttca.pooling.room import member_room, quota_left, rate_refusal
from ttca.pooling.schema import members as _members

__all__ = ["Allowance", "Effort", "Paid", "Reserved"]

# Who pays in a member's own ledger. A hub that calls the member otherwise the next time changes nothing.
_ME = "me"
_NO_LIMIT = 2**63 - 1
# How often a thread that waits for queries to be given back looks whether the run has ended.
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a member's machine asks, and how much at once.

    Parameters
    ----------
    size : int
        The most queries of one request.
    concurrency : int
        Requests at once.
    most_queries : int, optional
        The most queries of all runs together.
    per_day : int, optional
        The most queries within any 24 hours.

    Raises
    ------
    ConfigError
        If a number is less than 1.
    """

    size: int = 16
    concurrency: int = 2
    most_queries: int | None = None
    per_day: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.concurrency < 1:
            raise ConfigError(f"Expected size and concurrency of at least 1, got {self.size} and {self.concurrency}.")
        for name in ("most_queries", "per_day"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _NO_LIMIT:
                raise ConfigError(f"Expected {name} of at least 1, got {value}. Leave it out for no limit.")


@dataclass(eq=False)
class Reserved:
    """The queries that one turn may send, those it has paid for, and those it sent."""

    size: int
    paid: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Paid:
    """One request that is paid for, and what its queries are called."""

    charge: Charge
    keys: Sequence[bytes]


class Allowance:
    """What one run may send, shared out among its threads, and booked in the member's own ledger before it is sent.

    Parameters
    ----------
    ledger : Ledger
        The member's own; nobody else pays in it. What earlier runs have paid, killed ones included, counts.
    effort : Effort
    remaining : int
        What the hub says the member can still pay.
    fingerprint : str
        The platform's.
    """

    def __init__(self, ledger: Ledger, effort: Effort, remaining: int, *, fingerprint: str) -> None:
        self._ledger, self._effort, self._fingerprint = ledger, effort, fingerprint
        self._remaining = self._left = remaining
        self._changed = threading.Condition()
        self._out: list[Reserved] = []
        self.sent = 0
        total = _NO_LIMIT if effort.most_queries is None else effort.most_queries
        ledger.enrol({_ME: Quota(total, per_day=effort.per_day)})
        #: The most queries that this run may send.
        self.limit = min(remaining, self._own(lambda _c, me, _now: quota_left(me.quota, me.charged)))

    @contextmanager
    def share(self, most: int, stopped: Callable[[], bool]) -> Iterator[Reserved]:
        """Reserve queries before they are leased, and take back those that were not sent; 0 where there is no room."""
        with self._changed:
            # What another thread reserved may come back.
            while (room := self._room()) <= 0 and self._out and not stopped():
                self._changed.wait(_LOOK_AGAIN_S)
            share = Reserved(0 if stopped() else max(0, min(most, room)))
            self._left -= share.size
            if share.size:
                self._out.append(share)
        try:
            yield share
        finally:
            with self._changed:
                if share.size:
                    self._out.remove(share)
                self._left += share.size - share.sent
                self.sent += share.sent
                self._changed.notify_all()

    def refusal(self) -> RateError | str:
        """Return why there is no room: an error that says how long to wait, or the sentence with which a run ends."""
        most = self._effort.most_queries
        if most is not None and not self._own(lambda _c, me, _now: quota_left(me.quota, me.charged)):
            return _ended(f"You set most_queries = {most}", most)
        with self._changed:
            if self._left <= 0:
                return _ended(f"The hub said you can pay {self._remaining}", self._remaining)
        refused: RateError | None = self._own(lambda connection, me, now: rate_refusal(connection, me, 1, now))
        # Where there is room now after all, another program of the member's gave it back.
        return refused or RateError("Another program of yours has spent what was left.", wait_s=_LOOK_AGAIN_S)

    def pay(self, share: Reserved, images: Images, request: str) -> Paid:
        """Book a request before it is sent.

        Raises
        ------
        QuotaError
            If another program has spent what was left.
        """
        keys = self._ledger.keys(images, fingerprint=self._fingerprint, epoch="contribution")
        charge = self._ledger.charge(_ME, keys, request_id=request, number=1, purpose="contribution")
        share.paid = share.sent = len(keys)
        return Paid(charge, keys)

    def came(self, paid: Paid, answers: Answers) -> None:
        """Book that a request was answered. The answers themselves are the hub's, and not kept here."""
        self._ledger.book([], [Settlement(paid.charge, paid.keys, answers, "no usable answer", accept=False)])

    def failed(self, share: Reserved, paid: Paid, state: ChargeState, detail: str) -> None:
        """Book that a request brought no answer; one that was surely not processed does not count."""
        self._ledger.abandon(paid.charge, state, detail=detail)
        if state is ChargeState.REFUNDED:
            share.paid = share.sent = 0

    def _room(self) -> int:
        # What is reserved and not yet paid for does not stand in the ledger.
        reserved = sum(share.size - share.paid for share in self._out)
        room: int = self._own(member_room)
        return min(self._left, room - reserved)

    def _own(self, work: Callable[[sa.Connection, Any, float], Any]) -> Any:
        def in_books(connection: sa.Connection) -> Any:
            me = connection.execute(sa.select(_members).where(_members.c.name == _ME)).one()
            return work(connection, me, self._ledger.now_in(connection))

        return self._ledger.database.run(in_books)


def _ended(why: str, most: int) -> str:
    sent = "nothing was sent" if not most else "that one is sent" if most == 1 else f"all {most} are sent"
    return f"{why}; {sent}."

"""Tests of the desk: threads are booked together, go on at once, and nobody waits for one that has left."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

import pytest

from tests.pooling.scripted import KEYS
from ttca.errors import LedgerError, QuotaError
from ttca.pooling.booking import Bill, Charge, Desk, Settlement
from ttca.pooling.claims import Taken

_SOON_S = 20.0


class SlowBooks:
    """Books that take their time: each transaction waits until it may end."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.broken = False

    def book(self, bills: Sequence[Bill], settlements: Sequence[Settlement]) -> list[Charge | Taken | QuotaError]:
        """Charge every bill, once the test lets it."""
        self.transactions.append([bill.request_id for bill in bills])
        self.begun.release()
        assert self.may_end.acquire(timeout=_SOON_S)
        if self.broken:
            raise LedgerError("Expected room on the disk, got none.")
        return [Charge(int(bill.request_id), bill.member, len(bill.keys)) for bill in bills]


def bill(number: int) -> Bill:
    """Return a bill whose request has that number."""
    return Bill("ada", KEYS[:1], str(number), 1, "pool")


def charging(desk: Desk, number: int, ends: dict[int, object]) -> threading.Thread:
    """Return a thread that charges one bill, once its wish is at the desk."""

    def charge() -> None:
        try:
            ends[number] = desk.charge(bill(number))
        except LedgerError as error:
            ends[number] = error

    before = len(desk._wishes)
    thread = threading.Thread(target=charge, daemon=True)
    thread.start()
    give_up = time.monotonic() + _SOON_S
    while len(desk._wishes) == before and number and time.monotonic() < give_up:
        time.sleep(0.001)
    return thread


@pytest.mark.parametrize("broken", [False, True])
def test_who_comes_meanwhile_is_booked_together(broken: bool) -> None:
    """All who come during a transaction share the next one, and each hears of their own bill or of what failed."""
    books, ends = SlowBooks(), dict[int, object]()
    desk = Desk(books.book)
    first = charging(desk, 0, ends)
    assert books.begun.acquire(timeout=_SOON_S)
    others = [charging(desk, number, ends) for number in (1, 2, 3)]
    books.may_end.release()
    first.join(_SOON_S)
    # The first goes on before the others are booked.
    assert ends == {0: Charge(0, "ada", 1)}
    books.broken = broken
    books.may_end.release()
    for thread in others:
        thread.join(_SOON_S)
    assert books.transactions == [["0"], ["1", "2", "3"]]
    if broken:
        assert all(isinstance(ends[number], LedgerError) for number in (1, 2, 3))
    else:
        assert ends == {number: Charge(number, "ada", 1) for number in range(4)}


@pytest.mark.skipif(sys.platform == "win32", reason="a thread there cannot be sent a signal")
def test_nobody_waits_for_a_thread_that_was_interrupted(request: pytest.FixtureRequest) -> None:
    """Ctrl-C while the main thread waits at the desk ends its wait; whoever came before and after is charged."""
    # Tests that were started in the background do not hear Ctrl-C by themselves.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    books, ends = SlowBooks(), dict[int, object]()
    desk = Desk(books.book)
    first = charging(desk, 0, ends)
    assert books.begun.acquire(timeout=_SOON_S)
    main = threading.get_ident()

    def interrupt() -> None:
        give_up = time.monotonic() + _SOON_S
        while not desk._wishes and time.monotonic() < give_up:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        desk.flush()
    after = charging(desk, 1, ends)
    for _ in range(2):
        books.may_end.release()
    first.join(_SOON_S)
    after.join(_SOON_S)
    assert ends == {number: Charge(number, "ada", 1) for number in range(2)}

"""Side by side: pieces of learning at once, each in its own thread, where the processor has more than one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ttca.progress import Advance, Reporter, Tally

__all__ = ["Piece", "at_once", "learning_threads", "side_by_side"]

Made = TypeVar("Made")


class _StoppedError(Exception):
    """Somebody else failed, or the user stopped: nobody needs what this thread makes."""


#: So many of those that are worked on at once are named.
_NAMED = 3


@dataclass(frozen=True)
class Piece:
    """What a task makes, for people.

    Parameters
    ----------
    name : str
    count : int
        How many of what is counted it makes.
    seconds : float
        That it takes, by an estimate: a larger piece counts for more of the time that is left.
    """

    name: str = ""
    count: int = 1
    seconds: float = 1.0


class _Working:
    """Which pieces are worked on, shown in one bar."""

    def __init__(self, pieces: Sequence[Piece], advance: Advance, stop: threading.Event) -> None:
        self._pieces, self._advance, self._stop = pieces, advance, stop
        self._seconds = sum(piece.seconds for piece in pieces) or 1.0
        self._lock = threading.Lock()
        self._doing: dict[int, str] = {}

    def make(self, number: int, task: Callable[[Reporter], Made]) -> Made:
        """Return what a task makes, shown meanwhile; count it."""
        if self._stop.is_set():
            raise _StoppedError
        piece = self._pieces[number]
        self.tell(number, "")
        try:
            found = task(_Quiet(partial(self.tell, number)))
        except BaseException:
            # At once: the next task would begin before anybody hears of this one.
            self._stop.set()
            raise
        with self._lock:
            del self._doing[number]
            self._advance(piece.count, share=piece.seconds / self._seconds, now=self._now())
        return found

    def tell(self, number: int, what: str) -> None:
        """Show what a piece does; end its thread where nobody needs it any more."""
        if self._stop.is_set():
            raise _StoppedError
        with self._lock:
            self._doing[number] = what
            self._advance(0, now=self._now())

    def _now(self) -> str:
        names = [self._pieces[number].name for number in self._doing]
        if len(names) == 1 and names[0]:
            (what,) = self._doing.values()
            return f"{names[0]}: {what}" if what else names[0]
        names = [name for name in names if name]
        more = len(names) - _NAMED
        return ", ".join([*names[:_NAMED], *([f"{more} more"] if more > 0 else [])])


class _Quiet(Reporter):
    """Shows nothing itself, and tells how far a piece is."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(None)
        self._tell = tell

    @contextmanager
    def _shown(self, tally: Tally, at_most: bool) -> Iterator[Advance]:
        """Yield what tells of a piece's own steps."""

        def advance(n: int, *, share: float | None = None, now: str | None = None) -> None:
            tally.add(n, share, now)
            self._tell(f"{tally.what} {tally.done}/{tally.total}")

        yield advance


def at_once(pieces: int, threads: int | None, *, alone: bool = False) -> int:
    """Return how many of so many pieces are made at once: one, where a hand chose the threads or a GPU computes.

    One too where they must be ``alone``: nobody knows whether a guest's attack may be in two threads.

    Each then has a core or more of its own. Small networks waste most of a second core [ours].
    """
    from ttca.proxies.runtime import best_device, fixed_threads

    if alone or threads is not None or best_device() != "cpu":
        return 1
    with fixed_threads(None) as cores:
        return max(1, min(cores, pieces))


@contextmanager
def learning_threads(threads: int | None, *, pieces: int = 1) -> Iterator[int]:
    """Compute meanwhile with as many threads as gain something, for each of so many pieces at once.

    What a hand chose holds. One piece alone gets half of the cores: a second thread gains a small network nothing, and
    in bfloat16 it costs several times as much [ours].
    """
    from ttca.proxies.runtime import fixed_threads

    with fixed_threads(None) as cores:
        pass
    with fixed_threads(threads if threads is not None else max(1, cores // max(pieces, 2))) as used:
        yield used


def side_by_side(
    tasks: Sequence[Callable[[Reporter], Made]],
    *,
    what: str,
    reporter: Reporter,
    threads: int | None,
    alone: bool = False,
    pieces: Sequence[Piece] = (),
    unit: str = "pieces",
) -> list[Made]:
    """Return what every task makes, in their order; several at a time where there are cores for it.

    Parameters
    ----------
    tasks : sequence of callable
        Each is given where it shows its progress. It may neither ask a platform nor touch a ledger.
    what : str
        What is made, for the bar.
    reporter : Reporter
    threads : int or None
        Chosen by hand: then one task follows the other, with so many.
    alone : bool
        Whether they must follow one another anyway.
    pieces : sequence of Piece, optional
        What each task makes: then one bar names those that are worked on, also where they follow one another.
    unit : str
        What pieces count.

    Raises
    ------
    Exception
        The first that a task raised. The others end at their next step; what they kept until then stays kept.
    """
    from ttca.proxies.runtime import give_back_memory

    together = at_once(len(tasks), threads, alone=alone)
    if together <= 1 and not pieces:
        with learning_threads(threads):
            return [task(reporter) for task in tasks]
    pieces, stop = pieces or [Piece()] * len(tasks), threading.Event()
    total = sum(piece.count for piece in pieces)
    with learning_threads(threads, pieces=together), reporter.track(what, total, unit=unit) as advance:
        working = _Working(pieces, advance, stop)
        if together <= 1:
            return [working.make(number, task) for number, task in enumerate(tasks)]
        with ThreadPoolExecutor(together, thread_name_prefix="ttca-learning") as pool:
            running = [pool.submit(working.make, number, task) for number, task in enumerate(tasks)]
            try:
                for done in as_completed(running):
                    failed = done.exception()
                    if failed is not None and not isinstance(failed, _StoppedError):
                        raise failed
            finally:
                # Also where the user stops: what still works ends at its next step.
                stop.set()
    # Each thread kept what it freed.
    give_back_memory()
    return [done.result() for done in running]

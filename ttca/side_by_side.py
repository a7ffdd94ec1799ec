"""Side by side: pieces of learning at once, each in its own thread, where the processor has more than one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

from ttca.progress import Reporter

__all__ = ["at_once", "learning_threads", "side_by_side"]

Made = TypeVar("Made")


class _StoppedError(Exception):
    """Somebody else failed, or the user stopped: nobody needs what this thread makes."""


class _Quiet(Reporter):
    """Shows nothing, and ends a thread at its next step once nobody needs it."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(None)
        self._stop = stop

    @contextmanager
    def track(self, what: str, total: int, *, unit: str = "steps") -> Iterator[Callable[[int], None]]:
        """Yield what looks whether to go on."""

        def advance(_n: int) -> None:
            if self._stop.is_set():
                raise _StoppedError(what)

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

    Raises
    ------
    Exception
        The first that a task raised. The others end at their next step; what they kept until then stays kept.
    """
    from ttca.proxies.runtime import give_back_memory

    together = at_once(len(tasks), threads, alone=alone)
    if together <= 1:
        with learning_threads(threads):
            return [task(reporter) for task in tasks]
    stop = threading.Event()

    def made(task: Callable[[Reporter], Made]) -> Made:
        if stop.is_set():
            raise _StoppedError(what)
        try:
            return task(_Quiet(stop))
        except BaseException:
            # At once: the next task would begin before anybody hears of this one.
            stop.set()
            raise

    with (
        learning_threads(threads, pieces=together),
        reporter.track(what, len(tasks), unit="pieces") as advance,
        ThreadPoolExecutor(together, thread_name_prefix="ttca-learning") as pool,
    ):
        running = [pool.submit(made, task) for task in tasks]
        try:
            for done in as_completed(running):
                failed = done.exception()
                if failed is None:
                    advance(1)
                elif not isinstance(failed, _StoppedError):
                    raise failed
        finally:
            # Also where the user stops: what still works ends at its next step.
            stop.set()
    # Each thread kept what it freed.
    give_back_memory()
    return [done.result() for done in running]

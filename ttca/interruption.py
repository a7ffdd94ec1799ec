"""Ctrl-C and SIGTERM end a program in the same way: what is in flight comes back first."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "Interruption", "interruptible"]

#: Signals that come together are one: `make` and others pass on what the terminal has sent to everybody already.
_SAME_S = 1.0


class Interrupted(KeyboardInterrupt):
    """An interruption of work that is paid: what it has cost so far.

    Parameters
    ----------
    told : str
        What was charged and what remains, for people.
    queries_charged : int
    """

    def __init__(self, told: str, queries_charged: int) -> None:
        super().__init__(told)
        self.told = told
        self.queries_charged = queries_charged


class Interruption:
    """Which signal has asked the program to end, 0 for none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._at = clock, 0.0
        self.signal = 0

    @property
    def status(self) -> int:
        """The exit status by which shells know a program that a signal has ended."""
        return 128 + (self.signal or signal.SIGINT)

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        """Raise KeyboardInterrupt, once for signals that come together; again for who does not want to wait."""
        now = self._clock()
        if self.signal and now - self._at < _SAME_S:
            return
        self.signal, self._at = self.signal or number, now
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let SIGTERM interrupt the block as Ctrl-C does; only in a process's main thread.

    Who started the program may have chosen that a signal is ignored; then it is.
    """
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, interruption)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Progress, rate and ETA of long work, shown on standard error or nowhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from ttca.terminal import visible

__all__ = ["Advance", "Reporter", "Tally", "silent"]

#: A log gets a line after so many seconds at first, then after a tenth of the time so far, and so many at most.
_FIRST_S, _MOST_S = 10.0, 600.0


class Advance(Protocol):
    """What tells a bar how far work is: ``advance(n)``, safe from any thread."""

    def __call__(self, n: int, *, share: float | None = None, now: str | None = None) -> None:
        """Count n more as done.

        Parameters
        ----------
        n : int
            0 where only what goes on now is told.
        share : float, optional
            Of all the work, that they were; an n-th of the total by default.
        now : str, optional
            What goes on from here, in a few words.
        """


class _Name(ProgressColumn):
    """What goes on: where a terminal is narrow, this is cut, and no number."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _Rate(ProgressColumn):
    def __init__(self, tally: Tally) -> None:
        super().__init__(Column(no_wrap=True))
        self._tally = tally

    def render(self, task: Task) -> Text:
        speed = task.speed or self._tally.speed
        return Text(_rate(speed, self._tally.unit) if speed else "", style="progress.data.speed")


class _Left(ProgressColumn):
    """How long the rest takes: as of late, or as all of it so far where pieces are few or unlike each other."""

    max_refresh = 0.5

    def __init__(self, tally: Tally) -> None:
        super().__init__(Column(no_wrap=True))
        self._tally = tally

    def render(self, task: Task) -> Text:
        left = None if self._tally.unlike else task.time_remaining
        left = self._tally.left if left is None else left
        return Text("-:--:--" if left is None else _clock(left), style="progress.remaining")


def _rate(speed: float, unit: str) -> str:
    """Return so many units a second as people read it: what is slower than one a second by how long one takes."""
    if speed >= 1:
        # Of a few a second the tenth counts: the rest follows from it.
        return f"{speed:.0f} {unit}/s" if speed >= 10 else f"{speed:.2g} {unit}/s"
    one = f"{unit.removesuffix('ies')}y" if unit.endswith("ies") else unit.removesuffix("s")
    return f"{1 / speed:.3g} s per {one}"


def _clock(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{left:02d}"


class Tally:
    """How far some work is, and how fast it has been."""

    def __init__(self, what: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self.what, self.total, self.unit, self._clock = what, total, unit, clock
        self.lock = threading.Lock()
        self.began = clock()
        self.done, self.now = 0, ""
        #: Of the work; and whether pieces were said to be unlike each other.
        self.share, self.unlike = 0.0, False

    def add(self, n: int, share: float | None, now: str | None) -> None:
        """Count n more."""
        self.done += n
        self.share += n / self.total if share is None and self.total else share or 0.0
        self.unlike |= share is not None
        self.now = self.now if now is None else now

    @property
    def took(self) -> float:
        """Seconds so far."""
        return self._clock() - self.began

    @property
    def speed(self) -> float:
        """Units a second, on average."""
        took = self.took
        return self.done / took if took > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes, at that speed."""
        return self.took * max(0.0, 1 - self.share) / self.share if self.share > 0 else None

    @property
    def name(self) -> str:
        """What is worked on, and what of it now."""
        return f"{self.what} ({self.now})" if self.now else self.what

    @property
    def line(self) -> str:
        """All of it in one line, for a log."""
        said = f"{self.name}: {self.done}/{self.total} {self.unit}"
        if self.done >= self.total:
            return f"{said} in {_clock(self.took)}"
        if not self.done or self.left is None:
            return f"{said} after {_clock(self.took)}"
        return f"{said}, {_rate(self.speed, self.unit)}, {_clock(self.left)} left"


class Reporter:
    """Says what goes on. Give it a console (standard error) or None for silence; ``clock`` counts seconds."""

    def __init__(self, console: Console | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        #: The work that is shown, by its unit.
        self._outer: dict[str, Advance] = {}

    def say(self, sentence: str) -> None:
        """Print one sentence."""
        if self.console is not None:
            # Whatever the sentence quotes: a bracket is no markup, and an escape no command.
            self.console.print(visible(sentence), highlight=False, markup=False)

    @contextlib.contextmanager
    def track(self, what: str, total: int, *, unit: str = "steps", at_most: bool = False) -> Iterator[Advance]:
        """Show progress with rate and ETA while the block runs: a bar on a terminal, elsewhere a line now and then.

        What is tracked within work of the same unit counts there: people see one bar, not one for each call.

        Parameters
        ----------
        what : str
        total : int
        unit : str
        at_most : bool
            The block may end before the total: then what was done was all of it, and nothing is shown of nothing.
        """
        if (outer := self._outer.get(unit)) is not None:
            yield outer
            return
        with self._shown(Tally(what, total, unit, self._clock), at_most) as advance:
            self._outer[unit] = advance
            try:
                yield advance
            finally:
                self._outer.pop(unit, None)

    @contextlib.contextmanager
    def _shown(self, tally: Tally, at_most: bool) -> Iterator[Advance]:
        if self.console is None:
            yield _nowhere
        elif self.console.is_terminal:
            with _bar(self.console, tally, at_most) as advance:
                yield advance
        else:
            yield from self._lines(tally, at_most)

    def _lines(self, tally: Tally, at_most: bool) -> Iterator[Advance]:
        """Print lines, and the last one however the block ends."""
        due = _FIRST_S

        def advance(n: int, *, share: float | None = None, now: str | None = None) -> None:
            nonlocal due
            with tally.lock:
                tally.add(n, share, now)
                took = tally.took
                if took < due or tally.done >= tally.total:
                    return
                due = took + min(max(_FIRST_S, took / 10), _MOST_S)
                line = tally.line
            self.say(line)

        try:
            yield advance
            if at_most:
                tally.total = tally.done
        finally:
            if tally.done or not at_most:
                self.say(tally.line)


def _nowhere(n: int, *, share: float | None = None, now: str | None = None) -> None:
    """Show nothing."""


@contextlib.contextmanager
def _bar(console: Console, tally: Tally, at_most: bool) -> Iterator[Advance]:
    columns = (
        _Name(),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Rate(tally),
        _Left(tally),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(tally.name, total=tally.total, visible=not at_most)

        def advance(n: int, *, share: float | None = None, now: str | None = None) -> None:
            with tally.lock:
                tally.add(n, share, now)
            if now is not None:
                progress.update(task, description=tally.name)
            if n:
                progress.update(task, advance=n, visible=True)

        yield advance
        if at_most:
            progress.update(task, total=tally.done)


silent = Reporter(None)

"""Progress, rate and ETA of long work, shown on standard error or nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ttca.terminal import visible

__all__ = ["Reporter", "silent"]


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed, self._unit) if task.speed else "", style="progress.data.speed")


def _rate(speed: float, unit: str) -> str:
    """Return so many units a second as people read it: what is slower than one a second by how long one takes."""
    if speed >= 1:
        return f"{speed:.0f} {unit}/s"
    one = f"{unit.removesuffix('ies')}y" if unit.endswith("ies") else unit.removesuffix("s")
    return f"{1 / speed:.3g} s per {one}"


class Reporter:
    """Says what goes on. Give it a console (standard error) or None for silence."""

    def __init__(self, console: Console | None) -> None:
        self.console = console

    def say(self, sentence: str) -> None:
        """Print one sentence."""
        if self.console is not None:
            # Whatever the sentence quotes: a bracket is no markup, and an escape no command.
            self.console.print(visible(sentence), highlight=False, markup=False)

    @contextlib.contextmanager
    def track(self, what: str, total: int, *, unit: str = "steps") -> Iterator[Callable[[int], None]]:
        """Show a bar with rate and ETA while the block runs; yield ``advance(n)``, safe from any thread."""
        if self.console is None:
            yield lambda _n: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(what, total=total)
            yield lambda n: progress.advance(task, n)


silent = Reporter(None)

"""Nothing foreign commands a terminal: control characters of others become question marks before they are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

__all__ = ["Terminal", "visible"]

# C0 and C1 (escape sequences begin with one), line and paragraph separators, and what changes the direction of text.
# Line ends and tabs are ours. Joiners stay: some scripts are not readable without them.
_COMMANDS = {*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_SHOWN = dict.fromkeys(_COMMANDS - {0x09, 0x0A}, "?")


def visible(text: str) -> str:
    r"""Return the text with a question mark for each character that commands a terminal instead of being shown.

    Examples
    --------
    >>> visible("\x1b[2Jall is well")
    '?[2Jall is well'
    """
    return text.translate(_SHOWN)


#: A file or a pipe has no edge, but rich needs one: no name is as long as this.
_NO_EDGE = ConsoleDimensions(100_000, 25)


class Terminal(Console):
    """A console whose escapes are its own: colors and bars, never what a text brought along.

    No name in a table is cut: two long ones must not look alike. On a terminal they are folded. What is piped has lines
    of any length, unless ``COLUMNS`` says how wide they are.
    """

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        return super().size if self.is_terminal or self._width is not None else _NO_EDGE

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, tables with every name whole."""
        for table in objects:
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"
        super().print(*objects, **options)

    @property
    def file(self) -> IO[str]:
        """Where it writes; past the filter of a stream that has one, for what is written there is clean."""
        inner = super().file
        return getattr(inner, "styled", inner)

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is written, each text without control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

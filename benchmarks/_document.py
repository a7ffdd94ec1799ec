"""What stands between the marks of a document, and tables in Markdown: how numbers come into the documents."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._listing import RESULTS
from ttca.errors import ConfigError
from ttca.intervals import Span

__all__ = ["MISSING", "WIDEST", "Table", "commands", "filled", "grid", "results", "table", "told", "within"]

#: What stands where nothing was measured.
MISSING = "*Not measured yet.*"
#: No table has more columns.
WIDEST = 9


class Table(str):
    """A table in Markdown, as a text between marks, with head and lines for the file that holds the whole of it.

    Attributes
    ----------
    head : tuple of str
    lines : tuple of tuple of str
        None where nothing was measured.
    """

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def __new__(cls, text: str, head: Sequence[str], lines: Iterable[Sequence[object]] = ()) -> Table:
        """Return the text, with what it was made from."""
        made = super().__new__(cls, text)
        made.head, made.lines = tuple(head), tuple(tuple(map(str, line)) for line in lines)
        return made

    def short(self, columns: Sequence[str], link: str) -> str:
        """Return these columns, or none, in Markdown, and below them the link of the file with the whole table.

        Raises
        ------
        ConfigError
            If the table has no such column, or more are asked for than a page shows.
        """
        if len(columns) > WIDEST:
            raise ConfigError(f"Expected at most {WIDEST} columns of a table, got {len(columns)}. Show fewer.")
        if unknown := [name for name in columns if self.head.count(name) != 1]:
            raise ConfigError(f"Expected columns of {', '.join(self.head)}, each once, got {', '.join(unknown)}.")
        if not self.lines:
            return str(self)
        whole = f"[{Path(link).name}]({link})"
        if not columns:
            return whole
        at = [self.head.index(name) for name in columns]
        lines = [[line[i] for i in at] for line in self.lines]
        return "\n".join([*grid(columns, lines), "", f"All columns: {whole}"])

    def csv(self) -> str:
        """Return the whole table as a CSV file, without the marks of Markdown."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.head)
        writer.writerows([cell.strip("`*") for cell in line] for line in self.lines)
        return text.getvalue()


def filled(document: str, written: Mapping[str, str]) -> str:
    """Return the document with each text between its marks ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises
    ------
    ConfigError
        If a mark is missing: nothing is written where no table was.
    """
    for name, text in written.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = document.partition(opening)
        _, ended, after = rest.partition(closing)
        if not found or not ended:
            raise ConfigError(
                f"Expected the marks {opening.strip()} and {closing} in the document, got none. Put them back."
            )
        # A text ends with its line.
        body = text if not text or text.endswith("\n") else f"{text}\n"
        document = f"{before}{opening}{body}{closing}{after}"
    return document


def grid(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *lines)]


def commands(records: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Return, as a Markdown list, the command that made each result file, and its commit.

    Parameters
    ----------
    records : iterable of (str, dict)
        As :func:`results` returns them.
    """
    lines = []
    for name, record in records:
        arguments = shlex.join(a for a in record["arguments"] if a != "--json")
        threads = record["hardware"].get("threads")
        with_threads = "" if threads is None else f", {threads} thread{'s' if threads != 1 else ''}"
        # Whether a result was kept is the runner's business, and no argument of the benchmark.
        command = " ".join(("python -m benchmarks", record["benchmark"], *filter(None, [arguments]), "--keep"))
        lines.append(f"- `{name}`: `{command}` (commit {record['commit']}{with_threads})")
    return "\n".join(lines) if lines else MISSING


def told(values: Iterable[float | None], digits: int = 3) -> str:
    """Return mean ± standard deviation as documents show them; – where a value is not defined."""
    known = [v for v in values if v is not None]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def within(value: float, span: Span | None, sign: str = "") -> str:
    """Return a number with its interval as documents show it; – where there is none."""
    digits = 3 if abs(value) < 1 else 2
    if span is None:
        return f"{value:{sign}.{digits}f} (–)"
    high = f"{span.high:{sign}.{digits}f}" if math.isfinite(span.high) else "no end"
    return f"{value:{sign}.{digits}f} ({span.low:{sign}.{digits}f} to {high})"


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> Table:
    """Return a Markdown table, or a remark that nothing was measured where there are no lines."""
    body = list(lines)
    return Table("\n".join(grid(head, body)) if body else MISSING, head, body)


def results(pattern: str, folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """Return the result files of a pattern with their names, in the order of these."""
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob(pattern))]

"""What stands between the marks of a document, and tables in Markdown: how numbers come into the documents."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._listing import RESULTS
from ttca.errors import ConfigError

__all__ = ["MISSING", "commands", "filled", "grid", "results", "table", "told"]

#: What stands where nothing was measured.
MISSING = "*Not measured yet.*"


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


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, or a remark that nothing was measured where there are no lines."""
    body = list(lines)
    return "\n".join(grid(head, body)) if body else MISSING


def results(pattern: str, folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """Return the result files of a pattern with their names, in the order of these."""
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob(pattern))]

"""What stands between the marks of a document, and tables in Markdown: how numbers come into the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ttca.errors import ConfigError

__all__ = ["filled", "grid"]


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

"""Tables as they come out of spreadsheets: which columns there are, and their rows, or every problem at once."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from ttca.errors import DataError
from ttca.names import canonical, unknown_name

__all__ = ["COLUMNS", "Column", "NoSuchFile", "Problems", "Sheet", "file_inside", "is_name", "read_sheet"]

_SHOWN = 10
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Column:
    """One column of a table of people.

    Parameters
    ----------
    holds : str
        What stands in it, for people.
    values : tuple of str
        The words it may hold; empty where any name will do.
    default : str or None
        What counts where there is no such column; None where it must be there.
    also : dict of str to str
        Other words for some of the values, in lower case.
    may_be_empty : bool
        Whether a cell may say nothing; then the default counts.
    """

    holds: str
    values: tuple[str, ...] = ()
    default: str | None = None
    also: Mapping[str, str] = field(default_factory=dict)
    may_be_empty: bool = False


#: How spreadsheets write a ticked box, by their language.
_TICKED = dict.fromkeys(("true", "wahr", "vrai", "verdadero", "vero"), "yes")
_NOT_TICKED = dict.fromkeys(("false", "falsch", "faux", "falso"), "no")


#: All columns of a table of people, in the order of the documents (docs/people.md holds the same).
COLUMNS: Mapping[str, Column] = {
    "file": Column("the photograph, by its path from the table's folder"),
    "class": Column("what it truly shows: a name of `classes` in [platform]"),
    "member": Column("who pays for queries"),
    "person": Column("whose picture it is; a person has one role", default="the member"),
    "group": Column("who is under-served, and whom they are compared with", ("subgroup", "reference"), "subgroup"),
    "role": Column(
        "what the picture is for; may be empty",
        ("pool", "selection", "verification", "unasked"),
        "drawn at random, by person",
        may_be_empty=True,
    ),
    "shareable": Column(
        "whether a hub may send it to other members, and a report show it; a spreadsheet's TRUE and FALSE will do",
        ("yes", "no"),
        "`shareable` in [people]",
        also=_TICKED | _NOT_TICKED,
    ),
    "box": Column(
        "the part that counts, `x,y,width,height` in pixels of the upright picture; may be empty",
        default="the whole picture",
    ),
}


class NoSuchFile(str):
    """The sentence that a file is not there, though it would be in its place."""

    __slots__ = ()


class Problems:
    """Everything found wrong so far, to be told at once and in the order of the source."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, str]] = []

    def add(self, line: int, sentence: str, where: str = "") -> None:
        """Note what is wrong in a line; ``where`` stands before the sentence, which other lines may share."""
        self._found.append((line, sentence, where))

    def raise_if_any(self, source: Path, what: str = "people") -> None:
        """Raise DataError with the first ten that differ; ``what`` the source holds."""
        if not self._found:
            return
        alike: dict[str, list[str]] = {}
        for _, sentence, where in sorted(self._found, key=lambda one: one[0]):
            alike.setdefault(sentence, []).append(where)
        sentences = [f"{first}{sentence}{_also(others)}" for sentence, (first, *others) in alike.items()]
        more = sum(len(places) for places in list(alike.values())[_SHOWN:])
        tail = [f"… and {more} more."] if more > 0 else []
        count = "1 problem" if len(self._found) == 1 else f"{len(self._found)} problems"
        raise DataError(
            "\n- ".join(
                [
                    f"Expected {what} that can be read whole, got {count} in {source}. "
                    "Correct the source and read it again; nothing was sent.",
                    *sentences[:_SHOWN],
                    *tail,
                ]
            )
        )


def _also(places: Sequence[str]) -> str:
    """Return a sentence that names further places of which the same is true; "" without any."""
    named = [place.strip(": ") for place in places if place][:_SHOWN]
    more = [f"{len(places) - len(named)} more"] if len(places) > len(named) else []
    return f" The same holds for: {', '.join([*named, *more])}." if places else ""


@dataclass(frozen=True)
class Sheet:
    """A table: the names of its columns in small letters, and of each row its first line and its cells by column.

    ``notes`` are sentences about how it was read.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    notes: tuple[str, ...] = ()


def read_sheet(table: Path, needed: Sequence[str], known: Sequence[str] | None, problems: Problems) -> Sheet:
    """Read a table with commas, semicolons or tabs, in UTF-8 or UTF-16; blank rows and columns do not count.

    Parameters
    ----------
    table : Path
    needed : sequence of str
        Columns that must be there, in small letters.
    known : sequence of str or None
        Columns that may be there; None for any.
    problems : Problems
        Gets what is wrong with single rows.

    Raises
    ------
    DataError
        If the file or its first line cannot be read. What is misspelt is never left out: a ``roel`` that is ignored
        would turn verification people into pool people.
    """
    text, notes = _text(table)
    skipped, text, told = _without_hint(text)
    delimiter = told or _delimiter(text, needed)
    records = _records(table, text, delimiter, skipped, problems)
    if not records:
        raise DataError(
            f"Expected a header line with {', '.join(needed)} in {table}, got an empty file. Write a line per row."
        )
    (_, first), *others = records
    width = max(len(values) for _, values in records)
    filled = [i for i in range(width) if any(i < len(values) and values[i].strip() for _, values in others)]
    names = [canonical(name).casefold() for name in first]
    # Spreadsheets write out as many columns as somebody has ever touched.
    keep = [i for i in range(len(names)) if names[i] or i in filled]
    header = [names[i] for i in keep]
    _check_header(table, header, needed, known)
    rows = []
    for line, values in others:
        while len(values) > len(names) and not values[-1].strip():
            values.pop()
        # A line may end where only blank columns follow.
        cells = [values[i] if i < len(values) else None for i in keep]
        if len(values) > len(names) or None in cells:
            problems.add(line, _wrong_number(header, cells, len(values), _single(delimiter)), f"Line {line}: ")
            continue
        rows.append((line, {name: cell for name, cell in zip(header, cells, strict=True) if cell is not None}))
    return Sheet(tuple(header), tuple(rows), notes)


def _text(table: Path) -> tuple[str, tuple[str, ...]]:
    if table.is_dir():
        raise DataError(f"Expected a table, got the folder {str(table)!r}. Name the file in it.")
    try:
        data = table.read_bytes()
    except FileNotFoundError:
        raise DataError(f"Expected a table at {table}, got nothing there. Check the path.") from None
    except OSError as error:
        raise DataError(
            f"Expected to read {table}, got {type(error).__name__}: {error}. Check its permissions."
        ) from error
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Expected {table} in UTF-8, got byte {data[error.start]:#04x} at position {error.start}. "
            "Save the table as CSV UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(
            f"Expected {table} as text in UTF-8, got bytes of 0, as in UTF-16 without its mark or in a workbook. Save "
            "the table as CSV UTF-8."
        )
    note = f"{table.name} is written in UTF-16 and was read as such. Other programs expect CSV UTF-8."
    return text, (note,) if wide else ()


def _without_hint(text: str) -> tuple[int, str, str | None]:
    """Return how many lines a spreadsheet's ``sep=;`` takes, the text after it, and the delimiter it names."""
    hint = re.match(r'"?sep=(.)"?\r?\n', text)
    return (0, text, None) if hint is None else (1, text[hint.end() :], hint[1])


def _delimiter(text: str, needed: Sequence[str]) -> str:
    """Return what separates the values: that by which the first line names the columns, else the comma."""
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    for delimiter in _DELIMITERS:
        try:
            names = {canonical(name).casefold() for name in next(csv.reader([first], delimiter=delimiter), [])}
        except csv.Error:
            continue
        if names >= set(needed):
            return delimiter
    # Some column is missing; the sentence about it should not call the whole line one column.
    return max(_DELIMITERS, key=first.count)


def _records(table: Path, text: str, delimiter: str, skipped: int, problems: Problems) -> list[tuple[int, list[str]]]:
    """Return (first line, values) of each line of the table that is not blank."""
    records: list[tuple[int, list[str]]] = []
    end = skipped
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for values in reader:
            if any(value.strip() for value in values):
                records.append((end + 1, values))
            end = skipped + reader.line_num
    except csv.Error as error:
        if not records:
            raise DataError(
                f"Expected a CSV table in {table}, got line {end + 1} that is none ({error}). Save it as CSV UTF-8."
            ) from error
        separated = _DELIMITERS.get(delimiter, repr(delimiter))
        problems.add(
            end + 1,
            f"Line {end + 1}: Expected values separated by {separated}, got a line that cannot be read ({error}). "
            "Check its quotes; the lines after it were not read.",
        )
    return records


def _wrong_number(header: Sequence[str], cells: Sequence[str | None], values: int, delimiter: str) -> str:
    """Return the sentence about a line with too many values, or too few."""
    said = f"Expected {len(header)} values, got {values}"
    quotes = f"Put a value that contains a {delimiter} in double quotes."
    missing = [name for name, cell in zip(header, cells, strict=True) if cell is None]
    if not missing:
        return f"{said}. {quotes}"
    return f"{said}: none for {', '.join(missing)}. Write a {delimiter} for an empty value too. {quotes}"


def _single(delimiter: str) -> str:
    return _DELIMITERS.get(delimiter, f"{delimiter!r}s")[:-1]


def _check_header(table: Path, header: list[str], needed: Sequence[str], known: Sequence[str] | None) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(
            f"Expected the columns {', '.join(needed)} in {table}, got {header}: {', '.join(missing)} "
            "missing. Name them in the first line, separated by commas."
        )
    if "" in header:
        raise DataError(
            f"Expected a name for every column with values in {table}, got none for column {header.index('') + 1}. "
            "Name it in the first line, or remove it."
        )
    unknown = [name for name in header if known is not None and name not in known]
    if unknown and known is not None:
        raise DataError(
            unknown_name(
                f"each column of {table}",
                unknown[0],
                known,
                listed="docs/people.md lists them.",
                otherwise="Rename or remove it. Those to compare people by: columns under [people].",
            )
        )
    if len(set(header)) != len(header):
        raise DataError(f"Expected every column once in {table}, got {header}. Remove one of the two.")


def is_name(text: object) -> bool:
    """Whether it is text that survives a table: control characters and lone surrogates do not, or hide in one."""
    return isinstance(text, str) and bool(text) and text.isprintable()


def file_inside(home: Path, file: str) -> Path | str:
    """Return where ``file`` is, or a sentence: only what lies in the table's own folder may be read.

    ``home`` is resolved already. Windows' separators are understood, and names in another Unicode form or with blanks
    around them are found. Where it is missing, the sentence is a :class:`NoSuchFile`.
    """
    if PurePosixPath(file).is_absolute() or PureWindowsPath(file).anchor:
        return f"Expected a path relative to the table, got {file!r}. Write it relative to {home}."
    try:
        path = (home / file).resolve()
        if not path.exists() and (other := _spelled_otherwise(home, file)) is not None:
            path = other.resolve()
        outside = not path.is_relative_to(home)
        there = not outside and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, or links that turn in a circle
        return f"Expected the path of a file, got {file[:80]!r} ({type(error).__name__}). Check its spelling."
    if outside:
        return f"Expected a file inside {home}, got {file!r}, which leads out of it. Copy it into this folder."
    if not there:
        return NoSuchFile(f"Expected a file, got no such file: {file!r}. Check its spelling, or remove the line.")
    return path


def _spelled_otherwise(home: Path, file: str) -> Path | None:
    """Return the one file whose path has the same canonical names."""
    place = home
    for part in PurePosixPath(file.strip().replace("\\", "/")).parts:
        if part == ".." or not place.is_dir():
            return None
        exact = place / part
        alike = [exact] if exact.exists() else [p for p in place.iterdir() if canonical(p.name) == canonical(part)]
        if len(alike) != 1:
            return None
        place = alike[0]
    return place

"""People from a user's own files, a table or folders, checked whole before any query is paid for."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.data.decoding import decode_rgb, for_each
from ttca.errors import DataError
from ttca.images import ImageShape
from ttca.names import canonical
from ttca.people import People
from ttca.private import private
from ttca.values import Value

__all__ = ["PeopleTable", "list_files", "load_people", "write_people"]

_TABLE = "people.csv"
_GROUPS = ("subgroup", "reference")
_ROLES = ("pool", "selection", "verification", "unasked")
_REQUIRED = ("file", "class", "member")
_SHAREABLE = ("yes", "no")
_OPTIONAL = ("person", "group", "role", "shareable")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_SHOWN = 10


@dataclass(frozen=True, eq=False, repr=False)
class PeopleTable(Value):
    """People read from files, and the role of each where the table gives one.

    Parameters
    ----------
    people : People
    roles : str array, shape (N,), or None
        ``pool``, ``selection``, ``verification`` or ``unasked`` for each image; None where the source has no roles.
    shareable : bool array, shape (N,), or None
        Whether the image may leave its owner's machine; None where the source does not say.
    persons_named : bool
        Whether the source says whose picture each image is.
    """

    people: People
    roles: NDArray[np.str_] | None
    shareable: NDArray[np.bool_] | None = None
    persons_named: bool = True

    def __len__(self) -> int:
        return len(self.people)

    def doubt(self) -> str | None:
        """Return a sentence where persons had to be taken for members, and some member brought several images."""
        persons, images = len(np.unique(self.people.persons)), len(self.people)
        if self.persons_named or persons == images:
            return None
        return (
            f"Nothing says whose picture each image is, so {images:,} images count as {persons:,} persons, one per "
            "member, and the certificate asks about one image of each person and group. Add a column person; or, if "
            "every image shows another person, set one_person_per_image = true under [people]."
        )

    def agreed(self) -> frozenset[str]:
        """Return the persons who said yes in the column ``shareable`` for every image of theirs."""
        if self.shareable is None:
            return frozenset()
        persons = self.people.persons
        return frozenset(persons[self.shareable].tolist()) - frozenset(persons[~self.shareable].tolist())


@dataclass(frozen=True)
class _Row:
    """One image's line, all of it checked but the image itself."""

    line: int
    path: Path
    label: int
    member: str
    person: str | None
    group: str
    role: str | None
    shareable: str | None
    place: str


class _Problems:
    """Everything found wrong so far, to be told at once and in the order of the source."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, sentence: str) -> None:
        self._found.append((line, sentence))

    def raise_if_any(self, source: Path) -> None:
        if not self._found:
            return
        sentences = [sentence for _, sentence in sorted(self._found, key=lambda pair: pair[0])]
        more = len(sentences) - _SHOWN
        tail = [f"… and {more} more."] if more > 0 else []
        count = "1 problem" if len(sentences) == 1 else f"{len(sentences)} problems"
        raise DataError(
            "\n- ".join(
                [
                    f"Expected people that can be read whole, got {count} in {source}. "
                    "Correct the source and read it again; nothing was sent.",
                    *sentences[:_SHOWN],
                    *tail,
                ]
            )
        )


def load_people(
    source: Path | str,
    *,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    one_person_per_image: bool = False,
) -> PeopleTable:
    """Read people from a table or from folders; every image is checked before any is returned.

    Parameters
    ----------
    source : path
        A CSV file in UTF-8 with the columns ``file`` (relative to the table), ``class`` and ``member``, and
        where wanted ``person`` (else the member), ``group`` (``subgroup`` or ``reference``, else subgroup),
        ``role`` (``pool``, ``selection``, ``verification`` or ``unasked``) and ``shareable`` (``yes`` or ``no``:
        whether the image may leave its owner's machine). Or a folder that holds such a table as ``people.csv``, or
        one laid out as ``<class>/<member>/*.png`` or ``<group>/<class>/<member>/*.png``, read in the order of its
        paths. Images are PNG, WebP, BMP or JPEG (originals only: a perturbation does not survive JPEG); RGB, grey
        or palette, upright and opaque.
    image_shape : (H, W, 3)
        The size the platform takes, in pixels. Nothing is resized.
    classes : sequence of str
        The names of class 0, 1, …
    one_person_per_image : bool
        Where the source does not say whose picture an image is: whether every image is another person's, instead of
        the member's own.

    Returns
    -------
    PeopleTable
        Names of classes, members and persons in their one spelling (:func:`ttca.names.canonical`).

    Raises
    ------
    DataError
        With up to ten problems at once, each with its file and line.
    """
    names = _check_classes(classes)
    if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
        raise DataError(
            f"Expected an image shape (height, width, 3), got {tuple(image_shape)}. Give the platform's size."
        )
    problems = _Problems()
    place, rows = _listed(Path(source), names, problems)
    images = _read_images(rows, (image_shape[0], image_shape[1], 3), problems)
    problems.raise_if_any(place)
    if not rows:
        raise DataError(f"Expected at least one image of a person, got none in {place}. Add one.")
    people = People(
        images,
        np.array([row.label for row in rows], dtype=np.int64),
        np.array([_person(row, one_person_per_image) for row in rows], dtype=np.str_),
        np.array([row.member for row in rows], dtype=np.str_),
        np.array([row.group == _GROUPS[0] for row in rows], dtype=np.bool_),
    )
    roles = [row.role for row in rows if row.role is not None]
    shareable = [row.shareable == "yes" for row in rows if row.shareable is not None]
    return PeopleTable(
        people,
        np.array(roles, dtype=np.str_) if roles else None,
        np.array(shareable, np.bool_) if shareable else None,
        all(row.person is not None for row in rows) or one_person_per_image,
    )


def list_files(source: Path | str, *, classes: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the file and the member of every image that :func:`load_people` would read, without opening any.

    Raises
    ------
    DataError
    """
    problems = _Problems()
    place, rows = _listed(Path(source), _check_classes(classes), problems)
    problems.raise_if_any(place)
    return [(row.path, row.member) for row in rows]


def _listed(place: Path, names: list[str], problems: _Problems) -> tuple[Path, list[_Row]]:
    """Return the table or folder that was found, and a row for every image in it."""
    if place.is_dir() and (place / _TABLE).is_file():
        place = place / _TABLE
    if place.is_file():
        return place, _read_table(place, names, problems)
    if place.is_dir():
        return place, _read_folders(place, names, problems)
    raise DataError(f"Expected a CSV file or a folder of people, got no such file: {place}. Check the path.")


def _person(row: _Row, one_person_per_image: bool) -> str:
    if row.person is not None:
        return row.person
    return canonical(row.path.as_posix()) if one_person_per_image else row.member


def write_people(
    folder: Path | str,
    people: People,
    class_names: Sequence[str],
    roles: Sequence[str] | NDArray[np.str_] | None = None,
) -> Path:
    """Write people as lossless PNG files and a table that `load_people` reads back exactly, for their owner's eyes.

    Parameters
    ----------
    folder : path
        Made when missing; it must not hold a ``people.csv`` or ``images`` yet.
    people : People
    class_names : sequence of str
        The names of class 0, 1, …
    roles : sequence of str, length N, optional
        ``pool``, ``selection``, ``verification`` or ``unasked`` for each image.

    Returns
    -------
    Path
        The table, ``<folder>/people.csv``.

    Raises
    ------
    DataError
        If a class, name or role could not be read back, there is nobody to write, or the folder is in use.
    """
    names = _check_classes(class_names)
    given = None if roles is None else [str(role) for role in roles]
    _check_writable(people, names, given)
    home = Path(folder)
    table = home / _TABLE
    if table.exists() or (home / "images").exists():
        raise DataError(
            f"Expected a folder without people, got {home} with some already. Choose another folder: "
            "overwriting could mix two tables."
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "images").mkdir(mode=0o700)
        files = [f"images/{i:06d}.png" for i in range(len(people))]

        def write(i: int) -> None:
            with open(home / files[i], "xb", opener=private) as file:
                Image.fromarray(people.images[i]).save(file, "PNG")

        for_each(write, len(files))
        with open(table, "w", encoding="utf-8", newline="", opener=private) as out:
            writer = csv.writer(out)
            writer.writerow([*_REQUIRED, "person", "group", *(["role"] if given is not None else [])])
            for i, file in enumerate(files):
                group = _GROUPS[0] if people.subgroup[i] else _GROUPS[1]
                line = [file, names[people.classes[i]], people.members[i], people.persons[i], group]
                writer.writerow([*line, given[i]] if given is not None else line)
    except OSError as error:
        raise DataError(
            f"Expected to write people to {home}, got {type(error).__name__}: {error}. Choose another folder."
        ) from error
    return table


def _check_classes(classes: Sequence[str]) -> list[str]:
    names = [canonical(name) if isinstance(name, str) else name for name in classes]
    if not names or len(set(names)) != len(names) or not all(_is_name(name) for name in names):
        raise DataError(
            f"Expected the names of the classes, each once and printable, got {names}. Give one name per class."
        )
    return names


def _check_writable(people: People, names: list[str], roles: list[str] | None) -> None:
    if not len(people):
        raise DataError("Expected at least one person to write, got none. Choose other people.")
    low, high = int(people.classes.min()), int(people.classes.max())
    if low < 0 or high >= len(names):
        raise DataError(
            f"Expected classes from 0 to {len(names) - 1}, got {low} to {high}. Give a name for every class."
        )
    for who in sorted({*people.members.tolist(), *people.persons.tolist()}):
        if not _is_name(who) or who != canonical(who):
            raise DataError(
                f"Expected printable names of people in Unicode NFC without spaces around them, got {who!r}. Rename "
                "this person or member, or build the people with People.build."
            )
    if roles is None:
        return
    if len(roles) != len(people):
        raise DataError(f"Expected one role per image, got {len(roles)} for {len(people)}. Give each image its role.")
    unknown = sorted(set(roles) - set(_ROLES))
    if unknown:
        raise DataError(f"Expected roles among {', '.join(_ROLES)}, got {unknown}. Write other people elsewhere.")


def _is_name(text: object) -> bool:
    # What is not printable (control characters, lone surrogates) does not survive a table, or hides in one.
    return isinstance(text, str) and bool(text) and text.isprintable()


def _nearest(got: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(got, known, n=1, cutoff=0.0 if len(known) == 1 else 0.5)
    return f" Did you mean {close[0]!r}?" if close else " Use one of these."


def _unknown(what: str, got: str, known: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in known[:20]) + (", …" if len(known) > 20 else "")
    return f"Expected the {what} to be one of {listed}, got {got!r}.{_nearest(got, known)}"


def _read_table(table: Path, names: list[str], problems: _Problems) -> list[_Row]:
    records = _records(table, problems)
    if not records:
        raise DataError(
            f"Expected a header line with {', '.join(_REQUIRED)} in {table}, got an empty file. "
            "Write one line per image."
        )
    header = records[0][1]
    _check_header(table, header)
    label_of = {name: i for i, name in enumerate(names)}
    home = table.resolve().parent
    rows: list[_Row] = []
    first_line: dict[Path, int] = {}
    for line, values in records[1:]:
        before = f"Line {line}: "
        if len(values) != len(header):
            problems.add(
                line,
                f"{before}Expected {len(header)} values, got {len(values)}. "
                "Put a value that contains a comma in double quotes.",
            )
            continue
        cells = {name: v if name == "file" else canonical(v) for name, v in zip(header, values, strict=True)}
        wrong = [
            f"Expected a printable value in the column {name!r}, got {cell!r}. "
            "Fill it in, or remove the column if it is optional."
            for name, cell in cells.items()
            if not _is_name(cell)
        ]
        if not wrong:
            wrong = [
                _unknown(what, cells[what], known)
                for what, known in (
                    ("class", names),
                    ("group", _GROUPS),
                    ("role", _ROLES),
                    ("shareable", _SHAREABLE),
                )
                if what in cells and cells[what] not in known
            ]
        path = _inside(home, cells["file"]) if _is_name(cells["file"]) else None
        if isinstance(path, str):
            wrong.append(path)
        elif path is not None:
            earlier = first_line.setdefault(path, line)
            if earlier != line:
                wrong.append(
                    f"Expected every file once, got {cells['file']!r} on line {earlier} already. Remove one line."
                )
        for sentence in wrong:
            problems.add(line, before + sentence)
        if not wrong and isinstance(path, Path):
            rows.append(
                _Row(
                    line,
                    path,
                    label_of[cells["class"]],
                    cells["member"],
                    cells.get("person"),
                    cells.get("group", _GROUPS[0]),
                    cells.get("role"),
                    cells.get("shareable"),
                    f"{before}{cells['file']!r}: ",
                )
            )
    return rows


def _records(table: Path, problems: _Problems) -> list[tuple[int, list[str]]]:
    """Return (first line, values) of each line of the table that is not blank."""
    records: list[tuple[int, list[str]]] = []
    end = 0
    try:
        # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
        with table.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            for values in reader:
                if values:
                    records.append((end + 1, values))
                end = reader.line_num
    except UnicodeDecodeError as error:
        raise DataError(
            f"Expected {table} in UTF-8, got byte {error.object[error.start]:#04x} at position "
            f"{error.start}. Save the table as CSV UTF-8."
        ) from error
    except csv.Error as error:
        if not records:
            raise DataError(
                f"Expected a CSV table in {table}, got line {end + 1} that is none ({error}). Save it as CSV UTF-8."
            ) from error
        problems.add(
            end + 1,
            f"Line {end + 1}: Expected values separated by commas, got a line that cannot be read ({error}). "
            "Check its quotes; the lines after it were not read.",
        )
    except OSError as error:
        raise DataError(
            f"Expected to read {table}, got {type(error).__name__}: {error}. Check its permissions."
        ) from error
    return records


def _check_header(table: Path, header: list[str]) -> None:
    known = (*_REQUIRED, *_OPTIONAL)
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise DataError(
            f"Expected the columns {', '.join(_REQUIRED)} in {table}, got {header}: {', '.join(missing)} "
            "missing. Name them in the first line, separated by commas."
        )
    unknown = [name for name in header if name not in known]
    if unknown:
        # A misspelt 'role' that is quietly ignored would turn verification people into pool people.
        raise DataError(
            f"Expected only the columns {', '.join(known)} in {table}, got also {unknown}. Rename or remove them."
        )
    if len(set(header)) != len(header):
        raise DataError(f"Expected every column once in {table}, got {header}. Remove one of the two.")


def _inside(home: Path, file: str) -> Path | str:
    """Return where ``file`` is, or a sentence: only what lies in the table's own folder may be read."""
    if PurePosixPath(file).is_absolute() or PureWindowsPath(file).anchor:
        return f"Expected a path relative to the table, got {file!r}. Write it relative to {home}."
    try:
        path = (home / file).resolve()
        outside = not path.is_relative_to(home)
        there = not outside and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, or links that turn in a circle
        return f"Expected the path of a file, got {file[:80]!r} ({type(error).__name__}). Check its spelling."
    if outside:
        return f"Expected a file inside {home}, got {file!r}, which leads out of it. Copy it into this folder."
    if not there:
        return f"Expected a file, got no such file: {file!r}. Check its spelling, or remove the line."
    return path


def _read_folders(home: Path, names: list[str], problems: _Problems) -> list[_Row]:
    root = home.resolve()
    try:
        found = sorted(_files_under(root))
    except OSError as error:
        raise DataError(
            f"Expected to read the folder {home}, got {type(error).__name__}: {error}. Check its permissions."
        ) from error
    grouped = any(canonical(path.parts[0]) in _GROUPS and canonical(path.parts[0]) not in names for path in found)
    layout = "<group>/<class>/<member>/<image>" if grouped else "<class>/<member>/<image>"
    rows: list[_Row] = []
    for line, relative in enumerate(found):
        parts = relative.parts
        file = relative.as_posix()
        if len(parts) != 3 + grouped or relative.suffix.lower() not in _SUFFIXES:
            problems.add(
                line,
                f"{file!r}: Expected only {layout} with an image ({', '.join(sorted(_SUFFIXES))}), got this "
                "file. Move it away, or into its class and member.",
            )
            continue
        label, member = canonical(parts[-3]), canonical(parts[-2])
        group = canonical(parts[0]) if grouped else _GROUPS[0]
        wrong = [
            _unknown(what, got, known)
            for what, got, known in (("group", group, _GROUPS), ("class", label, names))
            if got not in known
        ]
        if not _is_name(member):
            wrong.append(f"Expected a printable name of a member, got {member!r}. Rename the folder.")
        path = _inside(root, file)
        if isinstance(path, str):
            wrong.append(path)
        for sentence in wrong:
            problems.add(line, f"{file!r}: {sentence}")
        if not wrong and isinstance(path, Path):
            rows.append(_Row(line, path, names.index(label), member, None, group, None, None, f"{file!r}: "))
    return rows


def _files_under(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        # A folder that may not be read would otherwise be left out, and its people with it.
        raise error

    for folder, subfolders, names in os.walk(root, onerror=fail):
        # A link to a folder is not walked into, so it is reported as what it is: a thing out of place.
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        # Hidden files are the desktop's own (.DS_Store), not people.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in (*names, *links):
            if not name.startswith("."):
                yield (Path(folder) / name).relative_to(root)


def _read_images(rows: list[_Row], shape: ImageShape, problems: _Problems) -> NDArray[np.uint8]:
    images = np.zeros((len(rows), *shape), dtype=np.uint8)

    def read(i: int) -> None:
        row = rows[i]
        try:
            images[i] = decode_rgb(row.path.read_bytes(), size=shape[:2])
        except DataError as error:
            problems.add(row.line, f"{row.place}{error}")
        except OSError as error:
            problems.add(
                row.line,
                f"{row.place}Expected to read the file, got {type(error).__name__}: {error}. Check its permissions.",
            )

    for_each(read, len(rows))
    return images

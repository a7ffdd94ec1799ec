"""People from a user's own files, a table or folders, checked whole before any query is paid for."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.data.decoding import decode_rgb, for_each
from ttca.data.photographs import PHOTOGRAPHS, Photograph, read_photograph
from ttca.data.tables import COLUMNS, Problems, file_inside, is_name, read_sheet
from ttca.errors import ConfigError, DataError, ImageError, MissingExtraError
from ttca.images import ImageShape
from ttca.names import canonical, resolve, twins, unknown_name
from ttca.people import People
from ttca.preparation import Preparation, Region, parse_box
from ttca.private import private
from ttca.values import Value

__all__ = [
    "PREPARED",
    "TABLE",
    "ListedFile",
    "PeopleTable",
    "files_under",
    "has_classes",
    "list_files",
    "load_images",
    "load_people",
    "outline",
    "prepared_as",
    "read_image",
    "write_people",
]

#: The table of a folder of people, and what `ttca prepare` writes down about one.
TABLE, PREPARED = "people.csv", "prepared.jsonl"
_GROUPS, _ROLES = COLUMNS["group"].values, COLUMNS["role"].values
_REQUIRED = tuple(name for name, column in COLUMNS.items() if column.default is None)
#: A class, a member and an image.
_LEAST_DEEP = 3
#: What the systems of others leave in every folder.
_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", PREPARED})


@dataclass(frozen=True, eq=False, repr=False)
class PeopleTable(Value):
    """People read from files, and the role of each where the table gives one.

    Parameters
    ----------
    people : People
    roles : str array, shape (N,), or None
        ``pool``, ``selection``, ``verification`` or ``unasked`` for each image, "" where it is to be drawn; None where
        the source has no roles.
    shareable : bool array, shape (N,), or None
        Whether the image may leave its owner's machine; None where the source does not say.
    persons_named : bool
        Whether the source says whose picture each image is.
    notes : tuple of str
        Sentences about how the source was read.
    columns : dict of str to str array, shape (N,)
        What the other columns that were asked for say of each image; empty where they say nothing. They stand beside
        ``people`` and not in them, so that no digest, no ledger and no hub ever holds one.
    """

    people: People
    roles: NDArray[np.str_] | None
    shareable: NDArray[np.bool_] | None = None
    persons_named: bool = True
    notes: tuple[str, ...] = ()
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

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

    def in_order(self) -> PeopleTable:
        """Return the same rows in an order that follows from the images: how a table is sorted changes nothing."""
        order = np.array(sorted(range(len(self)), key=self.people.image_digests.__getitem__), np.intp)
        return replace(
            self,
            people=self.people[order],
            roles=None if self.roles is None else self.roles[order],
            shareable=None if self.shareable is None else self.shareable[order],
            columns={name: said[order] for name, said in self.columns.items()},
        )

    def agreed(self) -> frozenset[str]:
        """Return the persons who said yes in the column ``shareable`` for every image of theirs."""
        if self.shareable is None:
            return frozenset()
        persons = self.people.persons
        return frozenset(persons[self.shareable].tolist()) - frozenset(persons[~self.shareable].tolist())


@dataclass(frozen=True)
class _Row:
    """One image's line, all of it checked but the image itself; −1 is the label of what has no class."""

    line: int
    path: Path
    label: int
    member: str
    person: str | None
    group: str
    role: str | None
    shareable: str | None
    box: Region | None
    place: str
    others: tuple[str, ...] = ()


def load_people(
    source: Path | str,
    *,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    one_person_per_image: bool = False,
    preparation: Preparation | None = None,
    columns: Sequence[str] = (),
) -> PeopleTable:
    """Read people from a table or from folders; every image is checked before any is returned.

    Parameters
    ----------
    source : path
        A table with the columns of :data:`ttca.data.tables.COLUMNS`, separated by commas, semicolons or tabs. Or a
        folder that holds such a table as ``people.csv``, or one laid out as ``<class>/<member>/*.png`` or
        ``<group>/<class>/<member>/*.png``, read in the order of its paths. Without a preparation, images are PNG, WebP,
        BMP or JPEG (originals only: a perturbation does not survive JPEG); RGB, gray or palette, upright and opaque.
    image_shape : (H, W, 3)
        The size the platform takes, in pixels. Without a preparation nothing is resized.
    classes : sequence of str
        The names of class 0, 1, …
    one_person_per_image : bool
        Where the source does not say whose picture an image is: whether every image is another person's, instead of
        the member's own.
    preparation : Preparation, optional
        How photographs of any kind and size become images of that size.
    columns : sequence of str
        Other columns that the table must have, in small letters, to be read beside the people. An empty cell, and the
        ``nan`` that programs write for one, says nothing.

    Returns
    -------
    PeopleTable
        Names of classes, members and persons in their one spelling (:func:`ttca.names.canonical`).

    Raises
    ------
    DataError
        With up to ten problems at once, each with its file and line. Names of members that differ only by case, width
        or blanks are one of them, since they may be one person with two quotas; so are such names of persons.
    ConfigError
        If the preparation makes another size, or is not the one by which `ttca prepare` made the folder.
    """
    names = _check_classes(classes)
    if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
        raise DataError(
            f"Expected an image shape (height, width, 3), got {tuple(image_shape)}. Give the platform's size."
        )
    _check_size(preparation, image_shape)
    problems = Problems()
    place, rows, notes = _listed(Path(source), names, problems, tuple(columns))
    _check_prepared(place, preparation)
    for column in ("member", "person"):
        _check_spellings(column, rows, problems)
    images = _read_images(rows, (image_shape[0], image_shape[1], 3), preparation, problems)
    problems.raise_if_any(place)
    if not rows:
        raise DataError(f"Expected at least one image of a person, got none in {place}. Add one.")
    names_of = [_person(row, one_person_per_image, place) for row in rows]
    return _people_table(rows, images, notes, names_of, columns=columns)


def has_classes(source: Path | str) -> bool:
    """Return whether a table or folder says what its images show; what is neither is taken for one that does.

    A table without a column ``class`` does not, nor does a folder of images alone, without folders or a table in it.
    """
    place = Path(source)
    place = place / TABLE if (place / TABLE).is_file() else place
    try:
        if place.is_file():
            return "class" in read_sheet(place, ("file",), None, Problems()).header
        depths = {len(path.parts) for path in files_under(place)}
    except (DataError, OSError):
        # Whoever reads it as people says what is wrong with it.
        return True
    return depths != {1}


def load_images(
    source: Path | str, *, image_shape: tuple[int, int, int], preparation: Preparation | None = None
) -> NDArray[np.uint8]:
    """Read images of nobody's class from a table without a column ``class``, or from a folder of images alone.

    Parameters
    ----------
    source, image_shape, preparation
        As for :func:`load_people`; a table needs no column but ``file``.

    Returns
    -------
    uint8 array, shape (N, H, W, 3)
        In the table's order, or in that of the files' names.

    Raises
    ------
    DataError, ConfigError
        As :func:`load_people`.
    """
    _check_size(preparation, image_shape)
    problems = Problems()
    place, rows, _ = _listed(Path(source), [], problems, bare=True)
    _check_prepared(place, preparation)
    images = _read_images(rows, image_shape, preparation, problems)
    problems.raise_if_any(place)
    if not rows:
        raise DataError(f"Expected at least one image, got none in {place}. Add one.")
    return images


def outline(source: Path | str, *, one_person_per_image: bool = False) -> tuple[PeopleTable, tuple[str, ...]]:
    """Return the people of a table or a folder without opening a picture, and the classes that are named there.

    Each image is a small one of its own instead, so that people can be counted and shared out, and costs be planned.

    Raises
    ------
    DataError
        If the source cannot be listed, or there is nobody.
    """
    place, problems = Path(source), Problems()
    classes = _named_classes(place / TABLE if (place / TABLE).is_file() else place)
    place, rows, notes = _listed(place, list(classes), problems)
    problems.raise_if_any(place)
    if not rows:
        raise DataError(f"Expected at least one image of a person, got none in {place}. Add one.")
    numbers = np.arange(len(rows), dtype="<u8")[:, None].view(np.uint8)
    images = np.zeros((len(rows), 2, 2, 3), np.uint8)
    images.reshape(len(rows), -1)[:, :8] = numbers
    return _people_table(rows, images, notes, [_person(row, one_person_per_image, place) for row in rows]), classes


def _named_classes(place: Path) -> tuple[str, ...]:
    """Return the classes that a table's column or a folder's folders name, in the order of the alphabet."""
    if place.is_file():
        found = {canonical(cells["class"]) for _, cells in read_sheet(place, _REQUIRED, None, Problems()).rows}
    else:
        try:
            parts = [path.parts for path in files_under(place)]
        except OSError as error:
            raise DataError(f"Expected to read the folder {place}, got: {error}. Check its permissions.") from None
        found = {canonical(part[-3]) for part in parts if len(part) >= _LEAST_DEEP}
    return tuple(sorted(filter(is_name, found)))


def _people_table(
    rows: list[_Row],
    images: NDArray[np.uint8],
    notes: tuple[str, ...],
    persons: Sequence[tuple[str, bool]],
    *,
    columns: Sequence[str] = (),
) -> PeopleTable:
    people = People(
        images,
        np.array([row.label for row in rows], dtype=np.int64),
        np.array([name for name, _ in persons], dtype=np.str_),
        np.array([row.member for row in rows], dtype=np.str_),
        np.array([row.group == _GROUPS[0] for row in rows], dtype=np.bool_),
    )
    # Those without one are drawn.
    roles = [row.role or "" for row in rows]
    shareable = [row.shareable == "yes" for row in rows if row.shareable is not None]
    return PeopleTable(
        people,
        np.array(roles, dtype=np.str_) if any(roles) else None,
        np.array(shareable, np.bool_) if shareable else None,
        all(said for _, said in persons),
        notes,
        {name: np.array([row.others[i] for row in rows], dtype=np.str_) for i, name in enumerate(columns)},
    )


class ListedFile(NamedTuple):
    """One image of a table or a folder that nobody has opened yet: what :func:`load_people` would say of it."""

    path: Path
    member: str
    box: Region | None
    person: str
    role: str | None


def list_files(
    source: Path | str,
    *,
    classes: Sequence[str],
    one_person_per_image: bool = False,
    columns: Sequence[str] = (),
    bare: bool = False,
) -> list[ListedFile]:
    """Return the file and the people of every image that :func:`load_people` would read, without opening any.

    With ``bare``, those that :func:`load_images` would; the member is empty where nobody is named.

    Raises
    ------
    DataError
        If the source cannot be listed, with up to ten problems at once.
    """
    problems = Problems()
    place, rows, _ = _listed(Path(source), _check_classes(classes), problems, tuple(columns), bare=bare)
    problems.raise_if_any(place)
    return [
        ListedFile(row.path, row.member, row.box, _person(row, one_person_per_image, place)[0], row.role)
        for row in rows
    ]


def _listed(
    place: Path, names: list[str], problems: Problems, columns: tuple[str, ...] = (), *, bare: bool = False
) -> tuple[Path, list[_Row], tuple[str, ...]]:
    """Return the table or folder that was found, a row for every image in it, and how it was read.

    Where it is ``bare``, no image has a class.
    """
    if place.is_dir() and (place / TABLE).is_file():
        place = place / TABLE
    if place.is_file():
        return place, *_read_table(place, names, problems, columns, bare=bare)
    if place.is_dir() and columns:
        raise DataError(
            f"Expected a table with the columns {', '.join(columns)}, got the folder {place}, which has none. Write a "
            f"table of its images as {TABLE} in it, or remove columns from [people]."
        )
    if place.is_dir():
        return place, _read_pictures(place, problems) if bare else _read_folders(place, names, problems), ()
    raise DataError(f"Expected a CSV file or a folder of people, got no such file: {place}. Check the path.")


def prepared_as(place: Path) -> Preparation | None:
    """Return how `ttca prepare` made the pictures of a table or a folder; None where it did not.

    Raises
    ------
    DataError
        If what it wrote about that cannot be read.
    """
    record = (place if place.is_dir() else place.parent) / PREPARED
    if not record.is_file():
        return None
    try:
        with record.open(encoding="utf-8-sig") as lines:
            return Preparation.from_dict(json.loads(next(lines, ""))["preparation"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise DataError(
            f"Expected in {record} how its pictures were prepared, got something that cannot be read ({error}). "
            "Prepare them again with ttca prepare, or delete this file if you know that they were not."
        ) from None


def _check_size(preparation: Preparation | None, shape: ImageShape) -> None:
    """Raise where photographs would be made another size than the platform's."""
    if preparation is not None and preparation.image_shape != tuple(shape):
        raise ConfigError(
            f"Expected a preparation to the {shape[0]}×{shape[1]} pixels (height×width) that the platform takes, got "
            f"{preparation}. Correct its size."
        )


def _check_prepared(place: Path, preparation: Preparation | None) -> None:
    """Raise where `ttca prepare` made the pictures in another way than the action's members will theirs."""
    made = prepared_as(place)
    if made is None:
        return
    if preparation is None:
        raise ConfigError(
            f"Expected the action file to say how the pictures of {place} were prepared, got nothing. Write "
            f"under [people], so that members' pictures go the same way: preparation = {made}"
        )
    if preparation != made:
        raise ConfigError(
            f"Expected pictures that were prepared as the action file says, {preparation}, got {place}, where "
            f"they were prepared as {made}. Correct preparation under [people], or prepare them again."
        )


def _check_spellings(column: str, rows: list[_Row], problems: Problems) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        name = row.member if column == "member" else row.person
        if name is not None:
            first.setdefault(name, row)
    for earlier, name in twins(first):
        problems.add(
            first[name].line,
            f"{first[name].place}Expected one spelling for each {column}, got {earlier!r} and {name!r}: the same "
            f"person? They would have two {'quotas' if column == 'member' else 'roles'}. Write one spelling, or tell "
            "them apart by more than case, width and blanks.",
        )


def _person(row: _Row, one_person_per_image: bool, place: Path) -> tuple[str, bool]:
    """Return a person's name, and whether anybody said whose picture it is.

    An image that is a person has its path for a name, from where the table or folder is: an action may be moved.
    """
    if row.person is not None:
        return row.person, True
    if not one_person_per_image:
        return row.member, False
    home = place.resolve() if place.is_dir() else place.resolve().parent
    return canonical(row.path.relative_to(home).as_posix()), True


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
    table = home / TABLE
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
    if not names or len(set(names)) != len(names) or not all(is_name(name) for name in names):
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
        if not is_name(who) or who != canonical(who):
            raise DataError(
                f"Expected printable names of people in Unicode NFC without spaces around them, got {who!r}. Rename "
                "this person or member, or build the people with People.build."
            )
    for column in (people.members, people.persons):
        for earlier, name in twins(column.tolist()):
            raise DataError(
                f"Expected names that differ by more than case, width and blanks, got {earlier!r} and {name!r}. They "
                "could not be read back: they may be the same person. Rename one of them."
            )
    if roles is None:
        return
    if len(roles) != len(people):
        raise DataError(f"Expected one role per image, got {len(roles)} for {len(people)}. Give each image its role.")
    unknown = sorted(set(roles) - set(_ROLES))
    if unknown:
        raise DataError(f"Expected roles among {', '.join(_ROLES)}, got {unknown}. Write other people elsewhere.")


def _read_table(
    table: Path, names: list[str], problems: Problems, columns: tuple[str, ...] = (), *, bare: bool = False
) -> tuple[list[_Row], tuple[str, ...]]:
    needed = _REQUIRED[:1] if bare else _REQUIRED
    sheet = read_sheet(table, (*needed, *columns), (*COLUMNS, *columns), problems)
    home = table.resolve().parent
    rows: list[_Row] = []
    first_line: dict[tuple[Path, Region | None], int] = {}
    for line, values in sheet.rows:
        before = f"Line {line}: "
        cells = {name: v if name == "file" else canonical(v) for name, v in values.items()}
        others = tuple(_said(cells.pop(name)) for name in columns)
        box, wrong = _box(cells.pop("box", ""))
        wrong += [
            f"Expected a printable value in the column {name!r}, got {cell!r}. Correct it, or leave it empty."
            for name, cell in zip(columns, others, strict=True)
            if cell and not is_name(cell)
        ]
        wrong += [
            f"Expected a printable value in the column {name!r}, got {cell!r}. "
            "Fill it in, or remove the column if it is optional."
            for name, cell in cells.items()
            if not (is_name(cell) or (COLUMNS[name].may_be_empty and not cell))
        ]
        if not wrong:
            wrong = _meant(cells, names)
        path = file_inside(home, cells["file"]) if is_name(cells["file"]) else None
        if isinstance(path, str):
            wrong.append(path)
        elif path is not None:
            # Two people of one photograph are two boxes.
            earlier = first_line.setdefault((path, box), line)
            if earlier != line:
                wrong.append(
                    f"Expected every file once, got {cells['file']!r} on line {earlier} already. Remove one line."
                )
        for sentence in wrong:
            problems.add(line, sentence, before)
        if not wrong and isinstance(path, Path):
            rows.append(
                _Row(
                    line,
                    path,
                    names.index(cells["class"]) if "class" in cells else -1,
                    cells.get("member", ""),
                    cells.get("person"),
                    cells.get("group", _GROUPS[0]),
                    cells.get("role"),
                    cells.get("shareable"),
                    box,
                    f"{before}{cells['file']!r}: ",
                    others,
                )
            )
    return rows, sheet.notes


def _said(cell: str) -> str:
    """Return what a cell of another column says, empty for nothing: pandas writes nan where it had none."""
    return "" if cell.casefold() == "nan" else cell


def _box(text: str) -> tuple[Region | None, list[str]]:
    """Return the box of a row, if there is one, and what is wrong with it."""
    try:
        return parse_box(text) if text else None, []
    except ImageError as error:
        return None, [str(error)]


def _meant(cells: dict[str, str], names: Sequence[str]) -> list[str]:
    """Write into the cells which known words are meant, whatever their case, and return what is wrong with others."""
    wrong = []
    for what in ("class", "group", "role", "shareable"):
        if not cells.get(what):
            continue
        known = names if what == "class" else COLUMNS[what].values
        also = {} if what == "class" else COLUMNS[what].also
        meant = also.get(cells[what].casefold()) or resolve(cells[what], known)
        if meant is None:
            sentence = unknown_name(f"the {what}", cells[what], known, otherwise="Use one of these.")
            wrong.append(f"{sentence} Or add it to classes." if what == "class" else sentence)
        else:
            cells[what] = meant
    return wrong


def _read_pictures(home: Path, problems: Problems) -> list[_Row]:
    """Return a row for every image of a folder that holds nothing else."""
    root = home.resolve()
    rows: list[_Row] = []
    for line, relative in enumerate(_files(root)):
        file = relative.as_posix()
        path: Path | str = file_inside(root, file)
        if relative.suffix.lower() not in PHOTOGRAPHS:
            path = f"Expected only images ({', '.join(sorted(PHOTOGRAPHS))}), got this file. Move it away."
        if isinstance(path, str):
            problems.add(line, str(path), f"{file!r}: ")
        else:
            rows.append(_Row(line, path, -1, "", None, _GROUPS[0], None, None, None, f"{file!r}: "))
    return rows


def _files(home: Path) -> list[Path]:
    try:
        return sorted(files_under(home))
    except OSError as error:
        raise DataError(
            f"Expected to read the folder {home}, got {type(error).__name__}: {error}. Check its permissions."
        ) from error


def _read_folders(home: Path, names: list[str], problems: Problems) -> list[_Row]:
    root = home.resolve()
    found = _files(root)
    firsts = {path.parts[0] for path in found}
    grouped = any(resolve(one, _GROUPS) is not None and resolve(one, names) is None for one in firsts)
    layout = "<group>/<class>/<member>/<image>" if grouped else "<class>/<member>/<image>"
    rows: list[_Row] = []
    for line, relative in enumerate(found):
        parts = relative.parts
        file = relative.as_posix()
        if len(parts) != 3 + grouped or relative.suffix.lower() not in PHOTOGRAPHS:
            problems.add(
                line,
                f"Expected only {layout} with an image ({', '.join(sorted(PHOTOGRAPHS))}), got this file. Move it "
                "away, or into its class and member.",
                f"{file!r}: ",
            )
            continue
        cells = {"class": canonical(parts[-3]), **({"group": canonical(parts[0])} if grouped else {})}
        member, wrong = canonical(parts[-2]), _meant(cells, names)
        if not is_name(member):
            wrong.append(f"Expected a printable name of a member, got {member!r}. Rename the folder.")
        path = file_inside(root, file)
        if isinstance(path, str):
            wrong.append(path)
        for sentence in wrong:
            problems.add(line, sentence, f"{file!r}: ")
        if not wrong and isinstance(path, Path):
            label, group = names.index(cells["class"]), cells.get("group", _GROUPS[0])
            rows.append(_Row(line, path, label, member, None, group, None, None, None, f"{file!r}: "))
    return rows


def files_under(root: Path) -> Iterator[Path]:
    """Yield the path of every file below a folder, from there; hidden files and the desktop's own are left out.

    Raises
    ------
    OSError
        If a folder may not be read.
    """

    def fail(error: OSError) -> None:
        # A folder that may not be read would otherwise be left out, and its people with it.
        raise error

    for folder, subfolders, names in os.walk(root, onerror=fail):
        # A link to a folder is not walked into, so it is reported as what it is: a thing out of place.
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        # Hidden files are the desktop's own (.DS_Store), not people; and so is what others leave.
        subfolders[:] = [name for name in subfolders if not _is_clutter(name)]
        for name in (*names, *links):
            if not _is_clutter(name):
                yield (Path(folder) / name).relative_to(root)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def read_image(
    path: Path, shape: ImageShape, preparation: Preparation | None = None, box: Region | None = None
) -> Photograph:
    """Return one image of the platform's size, as the people's are read, and what was done to its file.

    Parameters
    ----------
    path : Path
    shape : (height, width, 3)
    preparation : Preparation, optional
        Without it the file must have that size already.
    box : (x, y, width, height), optional
        The part that counts.

    Raises
    ------
    DataError, ImageError, MissingExtraError
        If the file cannot be read, or is no such image.
    ConfigError
        If the preparation makes another size.
    """
    _check_size(preparation, shape)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Expected to read the file, got {type(error).__name__}: {error}. Check its path and permissions."
        ) from None
    if preparation is not None:
        photograph = read_photograph(data)
        done = (*photograph.done, *preparation.told(photograph.pixels.shape, box))
        return Photograph(preparation.of(photograph.pixels, box), done)
    if box is not None:
        raise DataError(
            "Expected a preparation that cuts the box out, got none. Write preparation = "
            f"{Preparation(size=shape[:2])} under [people]."
        )
    return Photograph(decode_rgb(data, size=shape[:2]))


def _read_images(
    rows: list[_Row], shape: ImageShape, preparation: Preparation | None, problems: Problems
) -> NDArray[np.uint8]:
    images = np.zeros((len(rows), *shape), dtype=np.uint8)

    def read(i: int) -> None:
        row = rows[i]
        try:
            images[i] = read_image(row.path, shape, preparation, row.box).pixels
        except (DataError, ImageError, MissingExtraError) as error:
            problems.add(row.line, str(error), row.place)

    for_each(read, len(rows), block=8 if preparation is not None else 64)
    return images

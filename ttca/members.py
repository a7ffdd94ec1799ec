"""What a member does alone: their own photographs, prepared as all others were, with the δ of their true class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from ttca.data.decoding import decode_rgb, for_each
from ttca.data.folder import files_under
from ttca.data.photographs import PHOTOGRAPHS, file_bytes, read_photograph
from ttca.data.tables import NoSuchFile, Problems, file_inside, read_sheet
from ttca.errors import ConfigError, DataError, ImageError, MissingExtraError
from ttca.images import Images
from ttca.lossy import left_by_jpeg
from ttca.names import resolve
from ttca.new_files import FreeNames, windows_name, write_file
from ttca.perturbations import PerturbationSet
from ttca.platforms.protocols.encoding import as_png
from ttca.preparation import Region, parse_box
from ttca.progress import Reporter, silent
from ttca.values import Value

__all__ = [
    "AppliedPhoto",
    "AskClass",
    "Moved",
    "Output",
    "Photo",
    "apply_photos",
    "find_photos",
    "move",
    "move_bytes",
    "preview",
    "with_classes",
]

#: Returns the true class of a photograph, by its name and the names there are.
AskClass: TypeAlias = Callable[[str, Sequence[str]], str]

_PREVIEW_TIMES, _GREY = 10, 128
# A preview's pictures are at least so high, and stand so far apart.
_PREVIEW_HEIGHT, _PREVIEW_GAP = 160, 8
# The quality that most apps are near, and of which the certificate's people were asked too.
_QUALITY = 75


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photograph of a member.

    Parameters
    ----------
    path : Path
    name : str
        Its path from the folder that was named.
    true_class : str or None
        What it truly shows; None where nobody said so yet.
    box : (x, y, width, height) or None
        The part that counts, in pixels of the upright photograph.
    problem : str
        A sentence where a table lists it and it is not there.
    """

    path: Path
    name: str
    true_class: str | None = None
    box: Region | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where what is to be submitted goes.

    Parameters
    ----------
    place : Path
        A folder; where there is one photograph, also a file that ends in ``.png``.
    preview : bool
        Write one more picture beside each: before, difference × 10, after.
    force : bool
        Overwrite files that hold something else.
    """

    place: Path = Path("submit")
    preview: bool = False
    force: bool = False

    def check_outside(self, places: Sequence[Path | str]) -> None:
        """Raise ConfigError where the folder lies in one that photographs are taken from."""
        for place in map(Path, places):
            if place.is_dir() and self.place.resolve().is_relative_to(place.resolve()):
                raise ConfigError(
                    f"Expected --out outside {place}, where the photographs are, got {self.place}. Next time "
                    "its pictures would be changed once more. Choose another folder."
                )

    def names(self, photos: Sequence[Photo]) -> list[tuple[Path, Path]]:
        """Return the file of each photograph, and that of its preview.

        Raises
        ------
        ImageError
            If one would be written over a photograph, or as anything but PNG.
        """
        suffix = self.place.suffix.lower()
        as_file = suffix in PHOTOGRAPHS and not self.place.is_dir()
        if as_file and len(photos) != 1:
            raise ImageError(
                f"Expected --out as a folder for {len(photos)} photographs, got {self.place}. Give a folder."
            )
        if as_file and suffix != ".png":
            raise ImageError(
                f"Expected an output file ending in .png, got {self.place.name!r}. Other formats can lose the "
                "perturbation."
            )
        free = FreeNames()
        folder = self.place.parent if as_file else self.place
        main = [self.place.name] if as_file else free.each([Path(photo.name) for photo in photos])
        others = [free.free(Path(name).with_suffix(""), "-preview.png") for name in main]
        places = [(folder / name, folder / beside) for name, beside in zip(main, others, strict=True)]
        own = {photo.path.resolve() for photo in photos}
        for place in (one for pair in places for one in pair):
            if place.resolve() in own:
                raise ImageError(
                    f"Expected an output file other than the input, got {place} for both. The input would be lost. "
                    "Choose another name."
                )
        return places


@dataclass(frozen=True, kw_only=True)
class AppliedPhoto:
    """What became of one photograph.

    Parameters
    ----------
    source, true_class : str
    out, preview : str
        The files written; empty where there is none.
    state : {"applied", "kept", "refused"}
        ``kept``: the file was there already, the same to the last byte.
    prepared : tuple of str
        What was done to the photograph before δ, each in a few words.
    renamed : str
        What its name became where Windows cannot hold it; else empty.
    values, values_changed, largest_change : int
        Levels of the image, how many δ moved, and how far at most.
    left_by_jpeg : float or None
        The share of the change that a JPEG file of quality 75 leaves of it; None where nothing changed.
    sha256 : str
        Of the file.
    problem : str
        A sentence where it was refused.
    """

    source: str
    true_class: str
    out: str = ""
    preview: str = ""
    state: Literal["applied", "kept", "refused"]
    prepared: tuple[str, ...] = ()
    renamed: str = ""
    values: int = 0
    values_changed: int = 0
    largest_change: int = 0
    left_by_jpeg: float | None = None
    sha256: str = ""
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "prepared": list(self.prepared)}

    def told(self) -> str:
        """Return one line for people."""
        if self.state == "refused":
            return f"{self.source}: refused. {self.problem}"
        done = "; ".join([*self.prepared, *([f"named {self.renamed} for Windows"] if self.renamed else [])])
        there = "was there already" if self.state == "kept" else "written"
        preview = f" Before, difference and after: {self.preview}." if self.preview else ""
        return (
            f"{self.source}: {self.out} {there}. Class {self.true_class!r}; {done or 'not resized'}; "
            f"{self.values_changed} of {self.values} values changed, by {self.largest_change} at most.{preview}"
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Moved(Value):
    """A photograph as it would be sent without δ and with it, uint8 (H, W, 3), and what was done to it before."""

    before: Images
    after: Images
    done: tuple[str, ...]


def find_photos(
    places: Sequence[Path | str], *, table: Path | None = None, true_class: str | None = None, box: Region | None = None
) -> tuple[list[Photo], list[str]]:
    """Return the photographs of files, folders and a table, each once, and which files of folders are none.

    Parameters
    ----------
    places : sequence of path
        Files are taken whatever they are called; of folders, and folders in them, those called like photographs.
    table : Path, optional
        With the columns ``file`` and ``class``, and perhaps ``box``; files lie in its folder. One that is missing has
        a ``problem``. Where ``places`` are given too, it says the classes of those.
    true_class : str, optional
        Of all; a table may say nothing of it, but nothing else.
    box : (x, y, width, height), optional
        Of all, as ``true_class`` is.

    Raises
    ------
    DataError, ConfigError
        If there is nothing, a table cannot be read whole, or it says another class or box than is given here.
    """
    listed = {} if table is None else _table_photos(table)
    found: dict[Path, Photo] = {}
    others: list[str] = []
    for place in map(Path, places):
        if place.is_dir():
            inside, left = _inside(place)
            others += left
        else:
            inside = [(place, place.name)]
        for path, name in inside:
            found.setdefault(path.resolve(), Photo(path=path, name=name))
    if not places:
        found = dict(listed)
    if not found:
        where = ", ".join(map(str, places)) or table
        raise DataError(
            f"Expected photographs{f' in {where}' if where else ''}, got none. Name files or folders "
            f"({', '.join(sorted(PHOTOGRAPHS))})."
        )
    photos = []
    for real, photo in found.items():
        row = listed.get(real, photo)
        if true_class is not None and row.true_class is not None and resolve(true_class, [row.true_class]) is None:
            raise _contradiction("class", row.true_class, true_class, photo, table)
        if box is not None and row.box not in (None, box):
            raise _contradiction("box", _written(row.box), _written(box), photo, table)
        photos.append(replace(photo, true_class=row.true_class or true_class, box=row.box or box))
    return photos, others


def _written(box: Region | None) -> str:
    return ",".join(map(str, box or ()))


def _contradiction(what: str, listed: str, given: str, photo: Photo, table: Path | None) -> ConfigError:
    """Return the error of a table that says something else than an option."""
    return ConfigError(
        f"Expected one {what} for {photo.path}, got {listed!r} in {table} and {given!r} from --{what}. Leave out "
        f"--{what}, or correct the table. Nothing was written."
    )


def _inside(folder: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    try:
        listed = sorted(files_under(folder))
    except OSError as error:
        raise DataError(f"Expected to read the folder {folder}, got: {error}. Check its permissions.") from None
    # A link may lead out of the folder.
    kept = [path for path in listed if path.suffix.lower() in PHOTOGRAPHS and not (folder / path).is_symlink()]
    others = [(folder / path).as_posix() for path in listed if path not in set(kept)]
    return [(folder / path, path.as_posix()) for path in kept], others


def _table_photos(table: Path) -> dict[Path, Photo]:
    problems = Problems()
    sheet = read_sheet(table, ("file", "class"), None, problems)
    home, found = table.resolve().parent, dict[Path, Photo]()
    for line, cells in sheet.rows:
        path = file_inside(home, cells["file"])
        if isinstance(path, NoSuchFile):
            # As one that cannot be read: the others are applied.
            gone = home / cells["file"]
            found[gone] = Photo(path=gone, name=cells["file"], problem=f"Line {line} of {table.name}: {path}")
            continue
        if isinstance(path, str):
            problems.add(line, str(path), f"Line {line}: ")
            continue
        real = path.resolve()
        try:
            box = parse_box(cells["box"]) if cells.get("box", "").strip() else None
        except ImageError as error:
            problems.add(line, str(error), f"Line {line}: ")
            continue
        if real in found:
            problems.add(line, f"Line {line}: Expected every file once, got {cells['file']!r} again. Remove one line.")
            continue
        # An empty cell says nothing, as no column would.
        said = cells["class"].strip() or None
        found[real] = Photo(path=path, name=path.relative_to(home).as_posix(), true_class=said, box=box)
    problems.raise_if_any(table, "photographs")
    return found


def with_classes(photos: Sequence[Photo], perturbations: PerturbationSet, ask: AskClass | None = None) -> list[Photo]:
    """Return photographs whose classes are all known, spelled as the set does.

    Parameters
    ----------
    photos : sequence of Photo
    perturbations : PerturbationSet
    ask : callable, optional
        Asks a person for a class that nobody said; without it none is guessed.

    Raises
    ------
    PerturbationError, ConfigError
        If a class is none of the set's, or nobody said one. Nothing was written.
    """
    names = perturbations.classes
    chosen = []
    # All that was written down is checked before anybody is asked.
    for photo in photos:
        if photo.true_class is not None:
            perturbations.class_index(photo.true_class)
    for photo in photos:
        said = photo.true_class
        if photo.problem:
            chosen.append(photo)
            continue
        if said is None:
            if ask is None:
                raise ConfigError(
                    f"Expected the true class of {photo.path}, got none. Give it with --class "
                    f"({', '.join(names[:10])}{', …; ttca inspect shows all' if len(names) > 10 else ''}), or in a "
                    "table with the columns file and class: --table."
                )
            said = ask(str(photo.path), names)
        chosen.append(replace(photo, true_class=names[perturbations.class_index(said)]))
    return chosen


def move(perturbations: PerturbationSet, photo: Photo) -> Moved:
    """Return a photograph as those who were asked about sent theirs, and the same with the δ of its class.

    Raises
    ------
    DataError, ImageError, MissingExtraError
        If it cannot be read or does not fit; the caller adds which.
    """
    return move_bytes(perturbations, file_bytes(photo.path), photo.true_class or "", photo.box)


def move_bytes(perturbations: PerturbationSet, data: bytes, true_class: str | int, box: Region | None = None) -> Moved:
    """Return the same of a photograph's bytes, as they stand in a file or a request.

    Raises
    ------
    DataError, ImageError, MissingExtraError, PerturbationError
        If they cannot be read or do not fit, or the class is none of the set's.
    """
    if perturbations.preparation is None:
        # Of another size nothing is decompressed.
        pixels, done = decode_rgb(data, size=perturbations.image_shape[:2]), tuple[str, ...]()
        before = perturbations.prepared(pixels, box)
    else:
        photograph = read_photograph(data)
        before = perturbations.prepared(photograph.pixels, box)
        done = (*photograph.done, *perturbations.preparation.told(photograph.pixels.shape, box))
    return Moved(before=before, after=perturbations.apply(before, true_class), done=done)


def preview(before: Images, after: Images) -> Images:
    """Return one picture for people: before, difference × 10 around gray, after, side by side on white.

    Parameters
    ----------
    before, after : uint8 arrays, shape (H, W, 3)

    Returns
    -------
    uint8 array, shape (k·H, 3·k·W + 16, 3)
        Small pictures are enlarged by a whole factor k, each pixel to a square.
    """
    difference = _GREY + _PREVIEW_TIMES * (after.astype(np.int16) - before)
    each = (before, np.clip(difference, 0, 255).astype(np.uint8), after)
    times = max(1, -(-_PREVIEW_HEIGHT // before.shape[0]))
    large = [one.repeat(times, axis=0).repeat(times, axis=1) for one in each]
    gap = np.full((large[0].shape[0], _PREVIEW_GAP, 3), 255, np.uint8)
    return np.concatenate([large[0], gap, large[1], gap, large[2]], axis=1)


def apply_photos(
    perturbations: PerturbationSet, photos: Sequence[Photo], output: Output, *, reporter: Reporter = silent
) -> list[AppliedPhoto]:
    """Write a PNG file of exactly what is to be submitted for each photograph, without metadata.

    Parameters
    ----------
    perturbations : PerturbationSet
        One that may be used (:func:`ttca.members_set.check_usable`).
    photos : sequence of Photo
        Their classes are known (:func:`with_classes`).
    output : Output
    reporter : Reporter

    Returns
    -------
    list of AppliedPhoto
        In their order. One that is missing, or cannot be read or written, is refused, and the others are applied.

    Raises
    ------
    ImageError
        If the names of the new files cannot be used. Nothing was written.
    """
    there = iter(output.names([photo for photo in photos if not photo.problem]))
    places = [(output.place, output.place) if photo.problem else next(there) for photo in photos]
    found: list[AppliedPhoto | None] = [None] * len(photos)
    with reporter.track("applying", len(photos), unit="photographs") as advance:

        def work(i: int) -> None:
            found[i] = _applied(perturbations, photos[i], output, *places[i])
            advance(1)

        for_each(work, len(photos), block=1)
    return [one for one in found if one is not None]


def _applied(perturbations: PerturbationSet, photo: Photo, output: Output, place: Path, beside: Path) -> AppliedPhoto:
    said = AppliedPhoto(source=str(photo.path), true_class=photo.true_class or "", state="refused")
    if photo.problem:
        return replace(said, problem=photo.problem)
    try:
        moved = move(perturbations, photo)
        png = as_png(moved.after)
        new = write_file(place, png, force=output.force)
        if output.preview:
            write_file(beside, as_png(preview(moved.before, moved.after)), force=output.force)
    except (DataError, ImageError, MissingExtraError) as error:
        return replace(said, problem=str(error))
    left = left_by_jpeg(moved.before[None], moved.after[None], quality=_QUALITY)
    changed = any(windows_name(part) != part for part in Path(photo.name).with_suffix("").parts)
    return replace(
        said,
        state="applied" if new else "kept",
        out=str(place),
        preview=str(beside) if output.preview else "",
        prepared=moved.done,
        renamed=place.name if changed and place != output.place else "",
        values=int(moved.after.size),
        values_changed=int(np.count_nonzero(moved.after != moved.before)),
        largest_change=int(np.abs(moved.after.astype(np.int16) - moved.before).max()),
        left_by_jpeg=None if np.isnan(left) else round(left, 4),
        sha256=hashlib.sha256(png).hexdigest(),
    )

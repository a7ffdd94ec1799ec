"""A folder or table of photographs is prepared into a folder of its own: nothing overwritten, resumed after a kill."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ttca.data.decoding import for_each
from ttca.data.folder import PREPARED, TABLE, files_under
from ttca.data.photographs import PHOTOGRAPHS, file_bytes, read_photograph
from ttca.data.tables import Problems, Sheet, file_inside, read_sheet
from ttca.errors import ConfigError, DataError, ImageError, MissingExtraError
from ttca.new_files import FreeNames, replace_file
from ttca.preparation import Preparation, Region, parse_box
from ttca.private import private_folder
from ttca.progress import Reporter, silent

__all__ = ["PreparedFile", "photographs_behind", "prepare_photographs", "source_table"]


@dataclass(frozen=True)
class PreparedFile:
    """What became of one photograph.

    Parameters
    ----------
    source : str
        Its path from the source's folder.
    out : str
        The PNG file's path from the target folder; empty where there is none.
    state : {"prepared", "kept", "left out", "left over", "refused"}
        ``kept``: an earlier run had prepared it. ``left out``: its name is no photograph's. ``left over``: an earlier
        run prepared it, and the photograph is in the source no more. The picture is still there, and would take part.
    size : (width, height) or None
        Of the upright photograph, in pixels.
    done : tuple of str
        What was done to it, each in a few words.
    problem : str
        A sentence where it was refused.
    """

    source: str
    out: str
    state: Literal["prepared", "kept", "left out", "left over", "refused"]
    size: tuple[int, int] | None = None
    done: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class _Job:
    """One photograph to prepare, the part of it that counts, and where it goes."""

    source: str
    path: Path
    box: Region | None
    out: str


def prepare_photographs(
    source: Path | str,
    target: Path | str,
    preparation: Preparation,
    *,
    force: bool = False,
    reporter: Reporter = silent,
) -> list[PreparedFile]:
    """Prepare every photograph of a folder or a table, and write PNG files without metadata, for their owner's eyes.

    Parameters
    ----------
    source : path
        A folder of photographs (with folders in it or not), a folder with ``people.csv``, a table with a column
        ``file`` and perhaps ``box``, or one photograph.
    target : path
        A folder outside the source. It gets a PNG file for each photograph under the same name, ``prepared.jsonl``,
        which says what was done, and, when all went well, the table with the new names.
    preparation : Preparation
    force : bool
        Overwrite files that hold something else.
    reporter : Reporter

    Returns
    -------
    list of PreparedFile
        In the source's order, then what was left out and what is left over. A photograph that cannot be read is
        refused, and the others are prepared.

    Raises
    ------
    DataError, ConfigError
        If the source cannot be listed, the target lies in it, or was prepared in another way before.
    """
    place, home = Path(source), Path(target)
    sheet, jobs, others = _jobs(place)
    inside = place if place.is_dir() else place.parent
    if place.is_dir() and home.resolve().is_relative_to(place.resolve()):
        raise ConfigError(
            f"Expected a target outside {place}, got {home}, which would be prepared again the next time. Choose "
            "another folder."
        )
    try:
        private_folder(home)
        journal = _Journal(home / PREPARED, preparation, force=force)
        found: list[PreparedFile | None] = [None] * len(jobs)
        with reporter.track("preparing", len(jobs), unit="photographs") as advance:

            def work(i: int) -> None:
                found[i] = _prepare(jobs[i], home, preparation, journal, force=force)
                advance(1)

            for_each(work, len(jobs), block=1)
        done = [one for one in found if one is not None]
        if sheet is not None and not any(one.state == "refused" for one in done):
            _write_table(home / TABLE, sheet, [job.out for job in jobs], force=force)
    except OSError as error:
        raise DataError(
            f"Expected to prepare {inside} into {home}, got {type(error).__name__}: {error}. Choose another folder."
        ) from None
    over = journal.made_of_others({job.out for job in jobs})
    return [*done, *(PreparedFile(name, "", "left out") for name in others), *over]


def source_table(source: Path) -> Path | None:
    """Return the table that lists a source's photographs; None where they are a folder's, or it is one itself."""
    if source.is_dir():
        return source / TABLE if (source / TABLE).is_file() else None
    return source if source.is_file() and source.suffix.lower() not in PHOTOGRAPHS else None


def photographs_behind(home: Path) -> dict[Path, str]:
    """Return by its full path which photograph each prepared picture of a folder was made from, as its source names it.

    Empty for a folder that was not prepared.
    """
    record = home / PREPARED
    lines = record.read_text(encoding="utf-8-sig").splitlines() if record.is_file() else []
    made = ((entry.get("out"), entry.get("source")) for entry in map(_object, lines))
    return {(home / out).resolve(): source for out, source in made if isinstance(out, str) and isinstance(source, str)}


def _jobs(place: Path) -> tuple[Sheet | None, list[_Job], list[str]]:
    """Return the table, if there is one, what is to be prepared, and what is left out."""
    names = FreeNames()
    if (table := source_table(place)) is not None:
        return _table_jobs(table, names)
    if place.is_file():
        return None, [_Job(place.name, place, None, names.free(Path(place.name)))], []
    if not place.is_dir():
        raise DataError(f"Expected a folder, a table or a photograph, got nothing at {place}. Check the path.")
    try:
        listed = sorted(files_under(place))
    except OSError as error:
        raise DataError(
            f"Expected to read the folder {place}, got {type(error).__name__}: {error}. Check its permissions."
        ) from None
    # A link may lead out of the folder.
    kept = [path for path in listed if path.suffix.lower() in PHOTOGRAPHS and not (place / path).is_symlink()]
    if not kept:
        raise DataError(
            f"Expected photographs in {place}, got none ({', '.join(sorted(PHOTOGRAPHS))}). Check the folder."
        )
    jobs = [_Job(path.as_posix(), place / path, None, names.free(path)) for path in kept]
    return None, jobs, [path.as_posix() for path in listed if path not in set(kept)]


def _table_jobs(table: Path, names: FreeNames) -> tuple[Sheet, list[_Job], list[str]]:
    problems = Problems()
    sheet = read_sheet(table, ("file",), None, problems)
    home = table.resolve().parent
    jobs = []
    for line, cells in sheet.rows:
        path = file_inside(home, cells["file"])
        try:
            box = parse_box(cells["box"]) if cells.get("box", "").strip() else None
        except ImageError as error:
            problems.add(line, str(error), f"Line {line}: ")
            continue
        if isinstance(path, str):
            problems.add(line, str(path), f"Line {line}: ")
        else:
            relative = path.relative_to(home)
            jobs.append(_Job(relative.as_posix(), path, box, names.free(relative)))
    problems.raise_if_any(table)
    return sheet, jobs, []


class _Journal:
    """What was prepared so far, a line each: a run that was killed goes on from there."""

    def __init__(self, path: Path, preparation: Preparation, *, force: bool) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        written = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        head, *lines = written.splitlines() or [""]
        if head:
            was = _object(head).get("preparation")
            if was == preparation.to_dict():
                entries = [_object(line) for line in lines]
                named = {entry["out"]: entry for entry in entries if isinstance(entry.get("out"), str)}
                # A picture that is gone may be that of somebody who left: nothing is to name it any longer.
                self._known = {out: entry for out, entry in named.items() if (path.parent / out).is_file()}
                # A kill may have cut the last line, too.
                self._write([head, *map(json.dumps, self._known.values())])
                return
            if not force:
                raise ConfigError(
                    f"Expected a folder that was prepared as {preparation}, got {path.parent}, which was prepared as "
                    f"{was}. Choose another folder, or prepare it anew with --force."
                )
        self._write([json.dumps({"preparation": preparation.to_dict()})])

    def _write(self, lines: Sequence[str]) -> None:
        replace_file(self._path, "".join(f"{line}\n" for line in lines).encode())

    def known(self, out: str) -> dict[str, Any]:
        """Return what is written of a file; empty for nothing."""
        return self._known.get(out, {})

    def made_of_others(self, outs: set[str]) -> list[PreparedFile]:
        """Return the pictures of earlier runs that are still there and are none of these."""
        there = ((out, entry) for out, entry in self._known.items() if out not in outs)
        return [PreparedFile(str(entry.get("source", out)), out, "left over") for out, entry in there]

    def add(self, entry: dict[str, Any]) -> None:
        """Write down what was made."""
        with self._lock, self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _prepare(job: _Job, home: Path, preparation: Preparation, journal: _Journal, *, force: bool) -> PreparedFile:
    try:
        data = file_bytes(job.path)
    except DataError as error:
        return _refused(job, str(error))
    out, asked = home / job.out, {"source_sha256": _sha(data), "box": None if job.box is None else list(job.box)}
    before, entry = out.read_bytes() if out.is_file() else None, journal.known(job.out)
    if before is not None and entry.items() >= {**asked, "sha256": _sha(before)}.items():
        return PreparedFile(
            job.source, job.out, "kept", _pair(entry.get("size")), tuple(map(str, entry.get("done", ())))
        )
    try:
        photograph = read_photograph(data)
        image = preparation.of(photograph.pixels, job.box)
    except (DataError, ImageError, MissingExtraError) as error:
        return _refused(job, str(error))
    height, width, _ = photograph.pixels.shape
    done = (*photograph.done, *preparation.told(photograph.pixels.shape, job.box))
    png = BytesIO()
    # Pixels alone: no place, no camera, no time, no preview.
    Image.fromarray(image).save(png, "PNG")
    new = png.getvalue()
    if before is not None and before != new and not force:
        return _refused(
            job,
            f"Expected no file {out}, got one that holds something else. Choose another folder, or overwrite it with "
            "--force.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, new)
    journal.add(
        {
            "out": job.out,
            "source": job.source,
            **asked,
            "sha256": _sha(new),
            "size": [width, height],
            "done": done,
        }
    )
    return PreparedFile(job.source, job.out, "prepared", (width, height), done)


def _refused(job: _Job, problem: str) -> PreparedFile:
    return PreparedFile(job.source, "", "refused", problem=problem)


def _pair(found: Any) -> tuple[int, int] | None:
    return (found[0], found[1]) if isinstance(found, list) and len(found) == 2 else None


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_table(path: Path, sheet: Sheet, files: Sequence[str], *, force: bool) -> None:
    """Write the table with the new files' names, and without the boxes that were cut out."""
    columns = [name for name in sheet.header if name != "box"]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for (_, cells), file in zip(sheet.rows, files, strict=True):
        writer.writerow([file if name == "file" else cells[name] for name in columns])
    data = text.getvalue().encode()
    if path.is_file() and path.read_bytes() != data and not force:
        raise DataError(
            f"Expected no table {path}, got one that says something else. Choose another folder, or overwrite it with "
            "--force."
        )
    replace_file(path, data)

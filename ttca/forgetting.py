"""Forgetting: a member leaves the ledgers of an action, and every file that still holds something of them is named."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttca.audit import AUDIT_FILE
from ttca.config import ActionFile
from ttca.data.folder import PREPARED
from ttca.data.photographs import PHOTOGRAPHS
from ttca.data.preparing import photographs_behind
from ttca.errors import DataError, QuotaError
from ttca.evidence.check import FORMAT
from ttca.folder_lock import hold
from ttca.names import canonical
from ttca.pooling.leaving import Forgotten, spellings
from ttca.pooling.ledger import Ledger
from ttca.roles import ROLES_FILE, GivenRoles
from ttca.sitting import is_opened

__all__ = ["Departure", "Remains", "bundles_in", "foretold", "forget_member"]

#: Altered copies of pool people's pictures. Without one of these people they are made anew.
_COPIES = ("rounds/altered-*", "candidates/*/rounds/altered-*")
_LEARNED = (
    "proxy.safetensors", "warm-start.safetensors", "zero-query-proxy*.safetensors", "controls.safetensors",
    "rounds/proxy-*.safetensors", "perturbations/*.safetensors", "perturbations.safetensors",
    "candidates/**/*.safetensors", "parts/**/*.safetensors", "labels/*.safetensors",
)  # fmt: skip
#: Test people's queries, which a benchmark or the demo pays.
_BENCHMARK = "evaluation.sqlite"
#: What a report writes beside every picture of a person.
_PICTURED = b"An input of class"
_PIECE = 2**20


@dataclass(frozen=True)
class Remains:
    """A file that still holds something of a member: its full path, what it holds, and what to do about it."""

    path: str
    holds: str
    do: str


@dataclass(frozen=True)
class Departure:
    """What a ledger forgot, which files were deleted, and which still hold something."""

    forgotten: Forgotten
    deleted: tuple[str, ...]
    remains: tuple[Remains, ...]


def foretold(action: ActionFile, member: str) -> str | None:
    """Return, for people, what forgetting a member would cost them and others; None where it was done before.

    Raises
    ------
    QuotaError
        If the ledger has no member of that name.
    """
    name = canonical(member)
    with action.open_ledger() as ledger:
        stake = ledger.at_stake(name)
    if stake.before:
        return None
    then = ""
    if stake.learned:
        then = (
            " What was learned with their pictures stays, but a new report or new evidence needs a new action in a new "
            "folder: write what you want to keep first."
        )
        if _verifies(action.folder):
            then = (
                " People verify what was learned with their pictures: that cannot go on without them, and a new try "
                "needs other people."
            )
    answers = f"{stake.answers:,} answer{'s' * (stake.answers != 1)}"
    return f"{name} is forgotten for good, with {answers} about their pictures.{then} This cannot be undone."


def _verifies(folder: Path) -> bool:
    """Whether people have begun to verify, and not ended."""
    return is_opened(folder) and not (folder / "certificate.json").is_file()


def forget_member(action: ActionFile, member: str) -> Departure:
    """Remove a member from the ledgers of an action, with what is made anew without them; name what is left.

    People's own files are never touched: the table, the pictures, the action file.

    Raises
    ------
    QuotaError
        If the ledger has no member of that name.
    ActionError
        If a program works in the folder: it would write down again what is deleted.
    """
    folder, name = action.folder, canonical(member)
    lock = hold(folder)
    try:
        with action.open_ledger() as ledger:
            done, is_server, where = ledger.forget(name), ledger.database.is_server, ledger.name
        cleaned = [folder / "ledger.sqlite"]
        if (folder / _BENCHMARK).is_file():
            cleaned.append(folder / _BENCHMARK)
            with Ledger(folder / _BENCHMARK) as other, contextlib.suppress(QuotaError):
                other.forget(name)
        files, doubts = _pictures(action, name)
        # Older ledgers do not say whose image a query was about.
        learned = done.learned or (not done.images and bool(files))
        deleted = _found(folder, _COPIES) if learned else []
        for path in deleted:
            path.unlink(missing_ok=True)
        if (folder / ROLES_FILE).is_file():
            GivenRoles.read(folder).without(name).save(folder)
    finally:
        lock.release()
    if is_server:
        doubts.append(
            Remains(
                where,
                "its write-ahead log and its backups keep what was deleted until they are overwritten",
                "Ask whoever runs the server to delete them.",
            )
        )
    if done.unclean is not None:
        doubts.append(
            Remains(
                where, "its free pages may hold what was deleted", f"{done.unclean} Then: ttca pool forget {done.alias}"
            )
        )
    said = _told_of_pictures(files)
    for path in bundles_in(folder):
        said[path] = Remains(
            str(path),
            "is evidence with answers about their pictures, without their name",
            "Delete it and write it anew: ttca evidence. Copies that others have stay.",
        )
    if done.images and (path := folder / AUDIT_FILE).is_file():
        said[path.resolve()] = Remains(
            str(path.resolve()),
            "counts answers about their pictures among others, without their name",
            "Delete it and write it anew: ttca audit.",
        )
    if learned and _verifies(folder):
        doubts.append(
            Remains(
                str(folder),
                "verifies what was learned with their pictures, which cannot go on without them",
                "Start a new action in a new folder, with new verification people.",
            )
        )
    if learned:
        for path in _found(folder, _LEARNED):
            said[path] = Remains(
                str(path),
                "was learned with their pictures among others, and may tell that they took part",
                "It holds no picture. Delete it and learn without them, in a new folder; copies that others have stay.",
            )
    said |= {r: _told(r, holds, action) for r, holds in _naming(folder, name, cleaned, said) if holds}
    return Departure(done, tuple(str(p) for p in deleted), (*doubts, *(said[path] for path in sorted(said))))


def _told_of_pictures(files: Sequence[Path]) -> dict[Path, Remains]:
    """Return what to do about a member's pictures, and about the photographs that they were prepared from."""
    behind: dict[Path, str] = {}
    for home in {parent for path in files for parent in path.parents}:
        behind |= photographs_behind(home)
    told = dict.fromkeys(files, "Delete it, or give it back.")
    for path in files:
        if path in behind:
            told[path] += f" The same for its photograph, {behind[path]}: ttca prepare would bring the picture back."
    return {path: Remains(str(path), "is a picture of theirs", do) for path, do in told.items()}


def bundles_in(folder: Path) -> list[Path]:
    """Return the bundles of evidence in an action's folder, full paths, in order."""
    found = [path.parent for path in folder.rglob("manifest.json") if _is_bundle(path.read_bytes())]
    for path in folder.rglob("*.zip"):
        # Whatever else a ZIP in the folder is, it is nobody's evidence.
        with contextlib.suppress(zipfile.BadZipFile, KeyError, OSError), zipfile.ZipFile(path) as opened:
            if _is_bundle(opened.read("manifest.json")):
                found.append(path)
    return sorted(path.resolve() for path in found)


def _is_bundle(manifest: bytes) -> bool:
    return FORMAT.encode() in manifest


def _pictures(action: ActionFile, member: str) -> tuple[list[Path], list[Remains]]:
    """Return the member's pictures as the tables of people list them, and which table could not be read."""
    found: list[Path] = []
    doubts: list[Remains] = []
    for source in (action.people.source, action.people.public, action.people.views):
        if source is None:
            continue
        place = action.folder / source
        try:
            listed = action.list_files(source)
        except DataError as error:
            doubts.append(Remains(str(place.resolve()), "could not be read", f"Look for {member} in it. {error}"))
            continue
        found += [one.path.resolve() for one in listed if one.member == member]
    return found, doubts


def _found(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(path.resolve() for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _naming(
    folder: Path, member: str, cleaned: Sequence[Path], known: dict[Path, Remains]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield every other file of a folder with what it holds of a member: the name, or pictures of anybody."""
    forms = b"|".join(re.escape(form.encode("utf-8", "replace")) for form in sorted(spellings(member)))
    # A name that is a part of a longer word is somebody else's.
    names = re.compile(rb"(?<![0-9A-Za-z])(?:" + forms + rb")(?![0-9A-Za-z])", re.IGNORECASE)
    ours = {path.resolve() for path in cleaned}
    for path in sorted(path.resolve() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        if path in known or path in ours:
            continue
        holds = []
        named_after = names.search(str(path.relative_to(folder.resolve())).encode("utf-8", "surrogateescape"))
        if named_after or any(names.search(piece) for piece in _pieces(path)):
            holds.append("names them")
        if path.suffix == ".html" and any(_PICTURED in piece for piece in _pieces(path)):
            holds.append("shows pictures, perhaps theirs")
        yield path, holds


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in pieces that overlap; of pictures nothing, and of arrays only what stands before them."""
    if path.suffix.lower() in PHOTOGRAPHS:
        return
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            yield file.read(min(int.from_bytes(file.read(8), "little"), _PIECE))
            return
        before = b""
        while piece := file.read(_PIECE):
            yield before + piece
            before = piece[-1000:]


def _told(path: Path, holds: Sequence[str], action: ActionFile) -> Remains:
    source = (action.folder / action.people.source).resolve()
    if path == action.path.resolve():
        do = "Take the name out of [pool.quotas]."
    elif path in (source, source / "people.csv"):
        do = "Take their rows out."
    elif path.name == PREPARED:
        do = "When pictures and photographs are gone, run ttca prepare again: it takes their lines out."
    elif path.suffix == ".html":
        do = "Delete it. Where their answers taught nothing, ttca report writes it again once their rows are out."
    else:
        do = "Delete it, or write it again without them."
    return Remains(str(path), " and ".join(holds), do)

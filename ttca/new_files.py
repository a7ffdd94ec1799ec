"""New files: names that every file system holds, each once, and nothing that lies there is overwritten unasked."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from ttca.errors import DataError
from ttca.private import private

__all__ = ["FreeNames", "replace_file", "windows_name", "write_file"]

# What Windows keeps for devices, whatever the suffix, and what no name may hold there.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]')
# So many characters leave room for a suffix and a number within the 255 bytes that Linux allows, and Windows' units.
_LONGEST_BYTES = 200


def windows_name(name: str) -> str:
    r"""Return the name of a file or folder as Windows can hold it; as it is where Windows can already.

    Characters that it cannot hold become ``_``, blanks and dots at the end go, and a device's name gets a ``_``.

    Examples
    --------
    >>> windows_name("me: 12:30?"), windows_name("CON.png"), windows_name("holiday. "), windows_name("Zoë 1")
    ('me_ 12_30_', '_CON.png', 'holiday', 'Zoë 1')
    """
    # What is no text at all (bytes that are no UTF-8) is none there either.
    shown = _FORBIDDEN.sub("_", name.encode("utf-8", "replace").decode())
    while len(shown.encode()) > _LONGEST_BYTES:
        shown = shown[:-1]
    shown = shown.rstrip(" .") or "_"
    return f"_{shown}" if _DEVICES.fullmatch(shown) else shown


class FreeNames:
    """Names of new files, each once, on file systems that know no capitals too, and on Windows."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, path: PurePath, suffix: str = ".png") -> str:
        """Return the path with the suffix; with a number where another file has that name already.

        Parts that Windows cannot hold are changed (:func:`windows_name`).
        """
        stem, number = _stem(path), 1
        while (name := f"{stem}{'' if number == 1 else f'-{number}'}{suffix}").casefold() in self._taken:
            number += 1
        self._taken.add(name.casefold())
        return name

    def each(self, paths: Sequence[PurePath], suffix: str = ".png") -> list[str]:
        """Return one name for each path, in their order.

        A file that has the suffix keeps its name. Of several that differ by their suffix alone, the others keep all of
        theirs before the new one: so it still is theirs when a further one comes.
        """
        shared = Counter(_stem(path).casefold() for path in paths)
        found = {}
        for place in sorted(range(len(paths)), key=lambda i: paths[i].suffix.casefold() != suffix):
            path = paths[place]
            whole = path.suffix.casefold() != suffix and shared[_stem(path).casefold()] > 1
            found[place] = self.free(path.with_name(path.name + suffix) if whole else path, suffix)
        return [found[place] for place in range(len(paths))]


def _stem(path: PurePath) -> str:
    return "/".join(windows_name(part) for part in path.with_suffix("").parts)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, for its owner's eyes; a half-written one is never seen under the name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "wb", opener=private) as file:
        file.write(data)
    partial.replace(path)


def write_file(path: Path, data: bytes, *, force: bool = False) -> bool:
    """Write a file, for its owner's eyes, and the folders above it; return False where it held just that.

    Parameters
    ----------
    path : Path
    data : bytes
    force : bool
        Overwrite a file that holds something else.

    Raises
    ------
    DataError
        If it holds something else, or cannot be written.
    """
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        if os.path.lexists(path) and not (force and path.is_file()):
            raise DataError(
                f"Expected no file {path}, got one that holds something else. Choose another place, or overwrite it "
                "with --force."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise DataError(f"Expected to write {path}, got: {error}. Choose another place.") from None
    return True

"""Kept files: one writer and one reader for each kind, and whether a file was made from the same as what is wanted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ttca.errors import ActionError
from ttca.private import close_to_others, private

__all__ = ["Digest", "Facts", "digest", "load_arrays", "load_json", "made_from", "save_arrays", "save_json"]


@dataclass(frozen=True)
class Facts:
    """Options that went into a step, JSON-able: as they are written down now, and as an earlier version did.

    ``before`` is None where an earlier version could not have done the same.
    """

    now: dict[str, Any]
    before: dict[str, Any] | None = None


class Digest(str):
    """A SHA-256, 64 hex digits; ``before`` is what an earlier version wrote for the same, None for nothing."""

    before: str | None

    def __new__(cls, now: str, before: str | None) -> Digest:
        """Return the digest, with what an earlier version wrote beside it."""
        made = super().__new__(cls, now)
        made.before = before
        return made


def digest(*parts: Any) -> Digest:
    """Return a digest of JSON-able parts, :class:`Facts` and other digests among them."""
    now = [part.now if isinstance(part, Facts) else part for part in parts]
    before = [part.before if isinstance(part, Facts | Digest) else part for part in parts]
    known = not any(old is None and new is not None for old, new in zip(before, now, strict=True))
    return Digest(_hashed(now), _hashed(before) if known else None)


def _hashed(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def made_from(written: Any, inputs: str) -> bool:
    """Whether what stands in a kept file says that it was made from these inputs, by this version or an earlier one."""
    return written == inputs or (isinstance(inputs, Digest) and written is not None and written == inputs.before)


def load_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that was kept.

    Raises
    ------
    ActionError
        If the file is not there, or is not a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ActionError(f"Expected JSON in {path}, got a file that cannot be read ({error}). Restore it.") from None
    if not isinstance(found, dict):
        raise ActionError(f"Expected a JSON object in {path}, got {type(found).__name__}. Restore the file.")
    return found


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Keep a JSON object, for its owner's eyes; a half-written file is never seen under the name."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8", opener=private) as file:
        file.write(json.dumps(content, indent=1))
    partial.replace(path)


def load_arrays(path: Path, inputs: str | None, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]] | None:
    """Read arrays kept with a digest of what went in; None where they are not there, or of other ``inputs``.

    Without ``names``, all that the file holds. Earlier versions wrote no digest of the arrays; where there is one, they
    must be those.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
            said |= json.loads(said.get("kept", "{}"))
            if inputs is not None and not made_from(said.get("inputs"), inputs):
                return None
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        if said.get("holds", "") not in ("", _holds(found)):
            raise ValueError("its content is not what was written")
        return found if names is None else {name: found[name] for name in names}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ActionError(
            f"Expected a file that this action wrote at {path}, got one that cannot be read ({error}). Delete it and "
            "run again."
        ) from None


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]], inputs: str) -> None:
    """Keep arrays with digests of what went in and of what they are; nobody ever sees a file half written."""
    from safetensors.numpy import save_file

    partial = path.with_suffix(".partial")
    close_to_others(partial)
    # One entry, because safetensors writes several in any order: the same arrays are to be the same bytes.
    save_file(arrays, partial, metadata={"kept": json.dumps({"inputs": inputs, "holds": _holds(arrays)})})
    partial.replace(path)


def _holds(arrays: dict[str, NDArray[Any]]) -> str:
    h = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        h.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return h.hexdigest()

"""Keeping: what a step has made lies in the action's folder, each kind with one writer and one reader."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ActionError

__all__ = ["digest", "read_arrays", "read_json", "write_arrays", "write_json"]


def digest(*parts: Any) -> str:
    """Return a SHA-256, 64 hex digits, of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that was kept.

    Raises
    ------
    ActionError
        If the file is not there, or is not a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ActionError(f"Expected JSON in {path}, got a file that cannot be read ({error}). Restore it.") from None
    if not isinstance(found, dict):
        raise ActionError(f"Expected a JSON object in {path}, got {type(found).__name__}. Restore the file.")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Keep a JSON object; a half-written file is never seen under the name."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


def read_arrays(path: Path, inputs: str | None) -> dict[str, NDArray[Any]] | None:
    """Return arrays that were kept; None where they are not there, or were made from other ``inputs``.

    Raises
    ------
    ActionError
        If the file cannot be read, or its arrays are not those that were written.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            if inputs is not None and facts.get("inputs") != inputs:
                return None
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ActionError(
            f"Expected what this action kept in {path}, got a file that cannot be read ({error}). Delete it and run "
            "again."
        ) from None
    # Earlier versions wrote no digest of what a file holds.
    if facts.get("content", content := _content(found)) != content:
        raise ActionError(
            f"Expected what this action kept in {path}, got other numbers under its name. Delete it and run again."
        )
    return found


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], inputs: str) -> None:
    """Keep arrays with a digest of what they were made from, and of what they hold."""
    from safetensors.numpy import save_file

    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(kept, partial, metadata={"inputs": inputs, "content": _content(kept)})
    partial.replace(path)


def _content(arrays: Mapping[str, NDArray[Any]]) -> str:
    h = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        h.update(f"{name}{array.dtype}{array.shape}".encode())
        h.update(np.ascontiguousarray(array).view(np.uint8).data)
    return h.hexdigest()

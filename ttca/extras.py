"""The optional parts of ttca: which are missing for what somebody wants to do, named all at once."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ttca.errors import MissingExtraError

__all__ = ["EXTRAS", "missing_extras", "need_extras"]

#: By extra, the packages without which it is not there, as they are imported. pyproject.toml says which bring them.
EXTRAS: dict[str, tuple[str, ...]] = {
    "learn": ("torch", "scipy", "matplotlib", "jinja2"),
    "serve": ("fastapi", "uvicorn"),
    "onnx": ("onnx", "onnx2torch"),
    "postgres": ("psycopg",),
    "aws": ("botocore",),
    "data": ("sklearn",),
    "heic": ("pillow_heif",),
    "frames": ("pandas",),
    "ray": ("ray", "joblib", "psutil"),
    "dask": ("distributed", "joblib", "psutil"),
}


def missing_extras(*extras: str) -> tuple[str, ...]:
    """Return those of the named extras that are not installed, or not as a whole.

    Parameters
    ----------
    *extras : str
        Keys of :data:`EXTRAS`.
    """
    return tuple(extra for extra in extras if not all(map(_is_here, EXTRAS[extra])))


def need_extras(what: str, *extras: str) -> None:
    """Raise before anything is done where extras are missing, so that they are installed once.

    Parameters
    ----------
    what : str
        What needs them, as a sentence begins.
    *extras : str
        Keys of :data:`EXTRAS`.

    Raises
    ------
    MissingExtraError
        It names all that are missing.
    """
    missing = missing_extras(*extras)
    if missing:
        raise MissingExtraError(what, ",".join(missing))


def _is_here(package: str) -> bool:
    """Whether a package can be imported; it is not loaded."""
    try:
        return sys.modules[package] is not None if package in sys.modules else find_spec(package) is not None
    except ValueError:  # a module without a specification
        return False

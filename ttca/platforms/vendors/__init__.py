"""Tables of vendors: how each documented API is asked, as the ``[platform]`` of an action file; data, no code."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from ttca.errors import ConfigError

__all__ = ["table", "vendors"]


@cache
def vendors() -> tuple[str, ...]:
    """Return the names of all vendors that have a table, in the order of the alphabet."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def table(vendor: str) -> str:
    """Return a vendor's table as TOML, its document and the form of its key in comments above.

    Parameters
    ----------
    vendor : str
        One of :func:`vendors`.

    Raises
    ------
    ConfigError
        If it has none.

    Examples
    --------
    >>> print(table("imagga").partition("[platform]")[0].splitlines()[1])
    # https://docs.imagga.com/#tags
    """
    if vendor not in vendors():
        raise ConfigError(
            f"Expected a vendor among {', '.join(vendors())}, got {vendor!r}. Choose one, or describe the API in a "
            "table of your own: docs/platforms.md says how."
        )
    return (files(__name__) / f"{vendor}.toml").read_text(encoding="utf-8")

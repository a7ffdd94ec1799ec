"""Tables of vendors: how each documented API is asked, as the ``[platform]`` of an action file; data, no code."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ttca.errors import ConfigError
from ttca.names import unknown_name

__all__ = ["table", "vendors", "with_table"]

_HERE = Path(__file__).parent


@cache
def vendors() -> tuple[str, ...]:
    """Return the names of all vendors that have a table, in the order of the alphabet."""
    return tuple(sorted(file.stem for file in _HERE.glob("*.toml")))


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
    >>> print(table("imagga").splitlines()[1])
    # https://docs.imagga.com/#tags
    """
    if vendor not in vendors():
        raise ConfigError(
            unknown_name(
                "platform",
                vendor,
                vendors(),
                listed="docs/vendors.md lists them.",
                otherwise="Or describe the API in a table of your own: docs/platforms.md says how.",
            )
        )
    return (_HERE / f"{vendor}.toml").read_text(encoding="utf-8")


def with_table(action: str, vendor: str) -> str:
    """Return an action file's text with a vendor's table in place of its ``[platform]``.

    Parameters
    ----------
    action : str
        It has a ``[platform]``, which ends where ``[people]`` begins.
    vendor : str
        One of :func:`vendors`.

    Raises
    ------
    ConfigError
        If the vendor has no table.
    """
    before, _, rest = action.partition("\n[platform]\n")
    _, _, after = rest.partition("\n[people]\n")
    return f"{before}\n{table(vendor)}\n[people]\n{after}"

"""Results as tables of pandas, which is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ttca.errors import MissingExtraError

__all__ = ["frame"]


def frame(records: Sequence[Mapping[str, Any]]) -> Any:
    """Return a pandas DataFrame with a line for each record, its columns in the order of the first.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("A table of pandas", "frames") from None
    return pd.DataFrame([dict(record) for record in records])

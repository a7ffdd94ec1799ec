"""Titles: whose name an action's name is, where several actions share a ledger and are told apart by it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import sqlalchemy as sa

from ttca.errors import ActionError
from ttca.pooling.ledger import Ledger
from ttca.pooling.schema import titles as _titles

__all__ = ["TITLE_FILE", "take_title"]

#: Tells this action from another one of its name; it goes where the folder goes.
TITLE_FILE = "action.id"


def take_title(ledger: Ledger, name: str, folder: Path) -> None:
    """Book under this name for the action in this folder, and let no other action of the name do so.

    Raises
    ------
    ActionError
        If the name is another action's. Nothing was paid.
    """
    own, database = _own(folder), ledger.database
    row = {"name": name, "owner": own, "at": ledger.now()}

    def work(connection: sa.Connection) -> str:
        database.add(connection, _titles, [row], new=True)
        return str(connection.scalar(sa.select(_titles.c.owner).where(_titles.c.name == name)))

    if database.run(work, write=True) != own:
        raise ActionError(
            f"Expected a name that no other action has in the ledger {ledger.name}, got {name!r}, which one in another "
            f"folder has. Give this action another name in [action]. If this folder is a copy of that one, bring its "
            f"{TITLE_FILE} along. No query was spent."
        )


def _own(folder: Path) -> str:
    """Return what tells the folder's action from all others; written on first use."""
    path = folder / TITLE_FILE
    try:
        if not path.is_file():
            partial = path.with_name(f"{TITLE_FILE}.{os.getpid()}.partial")
            partial.write_text(uuid.uuid4().hex, encoding="utf-8")
            partial.replace(path)
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ActionError(f"Expected to read or write {path}, got: {error}. No query was spent.") from None

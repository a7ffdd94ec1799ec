"""Where tests keep ledgers: SQLite files, and a real PostgreSQL server that is started here when first needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from benchmarks._postgres import PostgresServer
from ttca.pooling.ledger import Ledger

__all__ = ["BACKENDS", "as_version_4", "fresh_ledger", "fresh_place", "postgres", "reopen", "use"]

BACKENDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.e2e))
_used = "sqlite"


@cache
def postgres() -> PostgresServer:
    """Return the one server that this process's tests share."""
    return PostgresServer()


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Let :func:`fresh_ledger` make ledgers on this backend."""
    global _used
    before, _used = _used, backend
    try:
        yield
    finally:
        _used = before


@contextmanager
def fresh_ledger(**more: Any) -> Iterator[Ledger]:
    """Give an empty ledger on the backend in use, closed and removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        target, secret = fresh_place(Path(folder), "ledger")
        with Ledger(target, secret=secret, **more) as ledger:
            yield ledger


def fresh_place(folder: Path, name: str) -> tuple[str, Path]:
    """Return where an empty ledger may be made on the backend in use, and the file for its secret."""
    target = str(folder / f"{name}.sqlite") if _used == "sqlite" else postgres().database()
    return target, folder / f"{name}.key"


def reopen(ledger: Ledger, **more: Any) -> Ledger:
    """Open the same ledger once more, as another program would."""
    return Ledger(ledger.target, secret=ledger.secret_file, **more)


def as_version_4(connection: Connection) -> None:
    """Take away what version 5 keeps beside answers, of verification, of consent and of invitations."""
    run = connection.exec_driver_sql
    for table in ("answers", "reports"):
        for column in ("reading", "seal"):
            run(f"ALTER TABLE {table} DROP COLUMN {column}")
    for table in ("bodies", "unread", "platforms", "titles", "seats", "minutes", "consents", "departed"):
        run(f"DROP TABLE {table}")
    run("DROP INDEX leases_out")
    run("ALTER TABLE members DROP COLUMN invited_at")
    run("UPDATE meta SET value = '4' WHERE name = 'schema'")

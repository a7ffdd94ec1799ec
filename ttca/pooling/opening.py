"""Opening: a ledger's tables are made, brought up to date or only read, and the secret beside it is the right one."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from ttca.errors import LedgerError
from ttca.names import canonical
from ttca.pooling import schema
from ttca.pooling.database import Database, read_secret
from ttca.pooling.lookup import seal_all
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import meta as _meta
from ttca.pooling.schema import requests as _requests
from ttca.pooling.seals import Seals

__all__ = ["OlderLedgerError", "Opened", "Opening", "get_meta", "set_meta"]

#: Tables that every version of a ledger has.
_OLDEST = {"meta", "members", "requests", "attempts", "outcomes", "answers"}
#: The first version that seals its answers, and files them under today's fingerprints.
_SEALED = 5


class OlderLedgerError(LedgerError):
    """A ledger that is only to be read is of an older version."""


@dataclass(frozen=True)
class Opened:
    """A ledger's secret and seals; ``last`` is the number of its last request, 0 where there is none.

    ``holds_older`` says that answers may have been filed by a version that had other fingerprints.
    """

    secret: bytes
    seals: Seals
    holds_older: bool
    last: int


@dataclass(frozen=True)
class Opening:
    """Opens a ledger in a transaction; calling it again does no harm.

    Parameters
    ----------
    database : Database
    secret_file : Path
    """

    database: Database
    secret_file: Path

    def __call__(self, connection: sa.Connection) -> Opened:
        """Make or update what has to be, and return what the ledger works with."""
        found = set(sa.inspect(connection).get_table_names())
        if found and not found >= _OLDEST:
            raise LedgerError(
                f"Expected a ledger in {self._name}, got the database of another program or version, with the tables "
                f"{', '.join(sorted(found))}. Give the ledger a {'database' if self.database.is_server else 'file'} of "
                "its own."
            )
        version = schema.SCHEMA_VERSION
        if not self.database.read_only:
            # Two programs that make the same tables at once would both fail.
            self.database.exclude(connection)
            if not found:
                schema.tables.create_all(connection)
                set_meta(self.database, connection, "schema", str(schema.SCHEMA_VERSION))
            version = self._version(connection)
            schema.migrate(connection, version)
            self._respell(connection)
        elif not found or self._version(connection) < schema.SCHEMA_VERSION:
            raise OlderLedgerError(
                f"Expected a ledger of version {schema.SCHEMA_VERSION} in {self._name}, got an older or an empty one, "
                "which cannot be brought up to date as long as it cannot be written. Open it where it can."
            )
        last = int(connection.scalar(sa.select(sa.func.max(_requests.c.id))) or 0)
        secret = self._secret(connection, used=last > 0)
        seals = Seals(secret)
        if version < _SEALED:
            seal_all(connection, seals)
            set_meta(self.database, connection, "older", "1")
        older = get_meta(connection, "older") is not None
        return Opened(secret, seals, older, last)

    @property
    def _name(self) -> str:
        return self.database.name

    def _version(self, connection: sa.Connection) -> int:
        version = get_meta(connection, "schema") or ""
        if not version.isdecimal() or not 1 <= int(version) <= schema.SCHEMA_VERSION:
            raise LedgerError(
                f"Expected a ledger of version {schema.SCHEMA_VERSION} in {self._name}, got version {version}. "
                "Use the ttca that wrote it, or a newer one."
            )
        return int(version)

    def _respell(self, connection: sa.Connection) -> None:
        """Give members whom an earlier version wrote down in another spelling their one name, where it is free."""
        known = {str(r.name): r.id for r in connection.execute(sa.select(_members.c.name, _members.c.id))}
        for name, number in known.items():
            if canonical(name) not in known:
                connection.execute(sa.update(_members).where(_members.c.id == number).values(name=canonical(name)))
                known = {**known, canonical(name): number}

    def _secret(self, connection: sa.Connection, *, used: bool) -> bytes:
        """Return the secret; raise when it is another ledger's: every answer would seem missing and be paid again."""
        secret = read_secret(self.secret_file, used=used or self.database.read_only)
        mark = hmac.new(secret, b"ttca ledger", hashlib.sha256).hexdigest()
        known = get_meta(connection, "secret")
        if known == mark:
            return secret
        if known is not None and (used or self.database.is_server):
            raise LedgerError(
                f"Expected the secret of the ledger {self._name} in {self.secret_file}, got another ledger's. "
                "Put the right one there."
            )
        if not self.database.read_only:
            set_meta(self.database, connection, "secret", mark)
        return secret


def get_meta(connection: sa.Connection, name: str) -> str | None:
    """Return a fact about the ledger, None where nobody wrote it down."""
    value: str | None = connection.scalar(sa.select(_meta.c.value).where(_meta.c.name == name))
    return value


def set_meta(database: Database, connection: sa.Connection, name: str, value: str) -> None:
    """Write down a fact about the ledger in place of what it was."""
    statement = database.insert(_meta).values(name=name, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))

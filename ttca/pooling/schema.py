"""What stands in a ledger's database: the tables, their version, and the way from every older version."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

__all__ = [
    "SCHEMA_VERSION",
    "answers",
    "attempts",
    "bodies",
    "claims",
    "consents",
    "departed",
    "inputs",
    "leases",
    "links",
    "members",
    "meta",
    "migrate",
    "minutes",
    "outcomes",
    "platforms",
    "reports",
    "requests",
    "seats",
    "tables",
    "titles",
    "unread",
]

SCHEMA_VERSION = 6

tables = sa.MetaData()
#: SQLite numbers rows only where the column is an INTEGER; PostgreSQL's is half as long as needed.
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

meta = sa.Table(
    "meta",
    tables,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
# ``charged`` is what a member has paid, net of refunds. It repeats what the attempts say, so that a quota is
# checked and charged by one statement instead of a sum over every attempt ever made. A quota of 0 belongs to those
# who brought images and do not pay, and to those who were forgotten. Who was invited and has no token is no longer.
members = sa.Table(
    "members",
    tables,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("quota", sa.BigInteger, nullable=False),
    sa.Column("charged", sa.BigInteger, nullable=False),
    sa.Column("per_second", sa.BigInteger),
    sa.Column("per_minute", sa.BigInteger),
    sa.Column("per_day", sa.BigInteger),
    sa.Column("forgotten_at", sa.Float),
    sa.Column("flagged_at", sa.Float),
    sa.Column("token", sa.LargeBinary(32), unique=True),
    sa.Column("invited_at", sa.Float),
)
# ``action`` is empty where the ledger is one action's own. ``paid`` is the number of attempts, 0 once refunded: rates
# are sums of it.
requests = sa.Table(
    "requests",
    tables,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("request_id", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("member", sa.BigInteger, nullable=False),
    sa.Column("action", sa.String),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("charged_at", sa.Float, nullable=False),
    sa.Column("paid", sa.BigInteger, nullable=False),
    sa.Index("requests_by_member", "member", "charged_at"),
)
# ``owner`` is who brought the image, where that is known; ``key`` is empty once they were forgotten.
attempts = sa.Table(
    "attempts",
    tables,
    sa.Column("request", sa.BigInteger, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("key", sa.LargeBinary(32), nullable=False),
    sa.Column("owner", sa.BigInteger),
    sqlite_with_rowid=False,
)
# An attempt without an outcome is *unknown*: its process was killed while it was in flight, and nobody can say
# whether the platform saw it. Nothing has to be written at a crash for that to be true.
outcomes = sa.Table(
    "outcomes",
    tables,
    sa.Column("request", sa.BigInteger, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("detail", sa.String),
    sqlite_with_rowid=False,
)
# ``reading`` names how the answer was read, where the platform's words can be read in several ways; ``seal`` is a
# checksum under the ledger's secret.
answers = sa.Table(
    "answers",
    tables,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("scores", sa.LargeBinary),
    sa.Column("resolution", sa.Float, nullable=False),
    sa.Column("request", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reading", sa.LargeBinary(8)),
    sa.Column("seal", sa.LargeBinary(8)),
    sqlite_with_rowid=False,
)
# What the platform said to a request, in its own words: packed, behind a checksum. It is about all of the request's
# images, so that it goes when the owner of one of them is forgotten.
bodies = sa.Table(
    "bodies",
    tables,
    sa.Column("request", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("reading", sa.LargeBinary(8)),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
# Queries whose answer came and could not be read, and the request whose body may be read otherwise one day.
unread = sa.Table(
    "unread",
    tables,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("request", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
# The platforms that an action has asked, each read in one way, as ``PlatformInfo`` says it in JSON. Whoever asks one
# that was not ``accepted`` is told what it costs that it is another.
platforms = sa.Table(
    "platforms",
    tables,
    sa.Column("action", sa.String, primary_key=True),
    sa.Column("as_read", sa.String(64), primary_key=True),
    sa.Column("said", sa.String, nullable=False),
    sa.Column("accepted", sa.Boolean, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
# Whose name an action's name is: ``owner`` stands in the folder of the action that came with it first.
titles = sa.Table(
    "titles",
    tables,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
# Queries in flight that nobody else may ask: which request has each, whose process (or lease) that is, and until when
# at the latest, ``seconds`` after it was charged. Whatever ends a request deletes its rows, so there are never many.
claims = sa.Table(
    "claims",
    tables,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("request", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)
# -- verification and consent ---------------------------------------------------------------------------------------
# Who sits where while an epoch's verification people are read, fixed before the first question. ``face`` is the key of
# their image as it is. Whoever is forgotten leaves the seat: the row stays, without owner and face.
seats = sa.Table(
    "seats",
    tables,
    sa.Column("epoch", sa.String, primary_key=True),
    sa.Column("side", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("owner", sa.BigInteger),
    sa.Column("face", sa.LargeBinary(32), nullable=False),
)
# What came of a condition, seat by seat: 1 right, 0 wrong, ? unresolved. Without a key: only a seat says whose it is.
# ``mark`` is an HMAC of the row, so that an edited one is noticed.
minutes = sa.Table(
    "minutes",
    tables,
    sa.Column("epoch", sa.String, primary_key=True),
    sa.Column("condition", sa.String, primary_key=True),
    sa.Column("said", sa.String, nullable=False),
    sa.Column("mark", sa.LargeBinary(32), nullable=False),
)
# Who was forgotten, and when: a keyed hash of the name, so that they do not come back unasked and are not named.
departed = sa.Table(
    "departed",
    tables,
    sa.Column("face", sa.LargeBinary(32), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)
# Who agreed to which text, and until when; the member's name may have become an alias since.
consents = sa.Table(
    "consents",
    tables,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("member", sa.BigInteger, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("text", sa.String, nullable=False),
    sa.Column("agreed_at", sa.Float, nullable=False),
    sa.Column("withdrawn_at", sa.Float),
)
# The chain of an action's rows (:mod:`ttca.pooling.chain`). ``content`` is the row as it was committed to, ``owner``
# whose image or seat it is about. Whoever is forgotten takes content and salt along; the commitment stays.
links = sa.Table(
    "links",
    tables,
    sa.Column("action", sa.String, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("request", sa.BigInteger),
    sa.Column("position", sa.Integer),
    sa.Column("owner", sa.BigInteger),
    sa.Column("salt", sa.LargeBinary(32)),
    sa.Column("content", sa.String),
    sa.Column("commitment", sa.LargeBinary(32), nullable=False),
    sa.Index("links_by_owner", "owner"),
    sa.Index("links_by_request", "request"),
)
# -- the hub's ----------------------------------------------------------------------------------------------------
# Images that their owners share, to be asked by any member; the smallest number first. ``answered`` repeats that the
# query has an accepted answer; ``wanted`` says that another member is to answer it too (2), soon (3), or if nothing
# else is left to ask (1). ``failures`` counts requests that were processed to no avail. ``lease`` has the query until
# ``held_until``; then another member gets it. ``context`` tells platforms and epochs apart, in all three tables. The
# image comes last: it is long, and seldom read.
inputs = sa.Table(
    "inputs",
    tables,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("context", sa.String, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.BigInteger, nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("answered", sa.Boolean, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("lease", sa.String),
    sa.Column("held_until", sa.Float, nullable=False),
    sa.Column("image", sa.LargeBinary, nullable=False),
    sa.Index("inputs_by_number", "context", "answered", "number"),
    sa.Index("inputs_by_wanted", "context", "wanted"),
)
# One request given to a member to send; its queries are the request's attempts.
leases = sa.Table(
    "leases",
    tables,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("context", sa.String, nullable=False),
    sa.Column("member", sa.BigInteger, nullable=False),
    sa.Column("request", sa.BigInteger, nullable=False),
    sa.Column("cross_check", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("returned_at", sa.Float),
    sa.Index("leases_by_member", "member"),
    sa.Index("leases_out", "context", "returned_at", "expires_at"),
)
# What each member says the platform answered, or that it failed, kept also where another answer was accepted before.
reports = sa.Table(
    "reports",
    tables,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("member", sa.BigInteger, primary_key=True),
    sa.Column("context", sa.String, nullable=False),
    sa.Column("request", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("scores", sa.LargeBinary),
    sa.Column("resolution", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reading", sa.LargeBinary(8)),
    sa.Column("seal", sa.LargeBinary(8)),
    sqlite_with_rowid=False,
)


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring the tables from an older version to this one, in the caller's transaction: all of it or nothing."""
    for step in range(version, SCHEMA_VERSION):
        _STEPS[step](connection)
    connection.execute(sa.update(meta).where(meta.c.name == "schema").values(value=str(SCHEMA_VERSION)))


def _number_members(connection: sa.Connection) -> None:
    """1 → 2: members have numbers and rates, requests say what is paid of them, attempts who owns their image."""
    run = connection.exec_driver_sql
    for name in ("members", "requests"):
        run(f"ALTER TABLE {name} RENAME TO {name}_1")
    for table in (members, requests):
        table.create(connection)
    run("INSERT INTO members (name, quota, charged) SELECT name, quota, charged FROM members_1 ORDER BY name")
    # Former members' names stand in requests only where somebody edited the file; they are kept all the same.
    run(
        "INSERT INTO members (name, quota, charged) SELECT DISTINCT member, 0, 0 FROM requests_1 "
        "WHERE member NOT IN (SELECT name FROM members)"
    )
    run(
        "INSERT INTO requests (id, request_id, number, member, purpose, charged_at, paid) "
        "SELECT r.id, r.request_id, r.number, m.id, r.purpose, r.charged_at, "
        "(SELECT COUNT(*) FROM attempts a LEFT JOIN outcomes o ON o.request = a.request AND o.position = a.position "
        " WHERE a.request = r.id AND COALESCE(o.outcome, '') <> 'refunded') "
        "FROM requests_1 r JOIN members m ON m.name = r.member"
    )
    run("ALTER TABLE attempts ADD COLUMN owner BIGINT")
    for name in ("members", "requests"):
        run(f"DROP TABLE {name}_1")
    for table in (inputs, leases, reports):
        table.create(connection)


def _add_claims(connection: sa.Connection) -> None:
    """2 → 3: queries in flight are claimed. What an older program left in flight is claimed by nobody."""
    claims.create(connection)


def _name_cross_checks(connection: sa.Connection) -> None:
    """3 → 4: audits are called cross-checks, and a query says how much another answer to it is wanted."""
    # Made by the first step, the tables are new already.
    if "audit" not in {c["name"] for c in sa.inspect(connection).get_columns("inputs")}:
        return
    run = connection.exec_driver_sql
    run("DROP INDEX IF EXISTS inputs_by_audit")
    run("ALTER TABLE inputs RENAME COLUMN audit TO wanted")
    if connection.dialect.name == "postgresql":
        run("ALTER TABLE inputs ALTER COLUMN wanted DROP DEFAULT")
        run("ALTER TABLE inputs ALTER COLUMN wanted TYPE INTEGER USING wanted::integer")
    run("UPDATE inputs SET wanted = 0")
    run("CREATE INDEX inputs_by_wanted ON inputs (context, wanted)")
    run("ALTER TABLE leases RENAME COLUMN audit TO cross_check")


def _add_tombstones(connection: sa.Connection) -> None:
    """4 → 5: verification has seats and minutes, which whoever is forgotten leaves whole, and consent is a record."""
    for table in (seats, minutes, consents, departed):
        table.create(connection, checkfirst=True)


def _add_bodies(connection: sa.Connection) -> None:
    """4 → 5: bodies are kept, and answers say how they were read; the ledger, which has the secret, seals them."""
    kind = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    for table in (answers, reports):
        there = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
        for column in ("reading", "seal"):
            # Made by the first step, a table is new already.
            if column not in there:
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column} {kind}")
    for table in (bodies, unread, platforms, titles):
        table.create(connection)


def _add_invited_at(connection: sa.Connection) -> None:
    """4 → 5: the ledger knows when a member was last invited; of those invited before, only that they are."""
    # Made by the first step, the table is new already.
    if "invited_at" not in {c["name"] for c in sa.inspect(connection).get_columns("members")}:
        connection.exec_driver_sql("ALTER TABLE members ADD COLUMN invited_at DOUBLE PRECISION")


def _index_leases_out(connection: sa.Connection) -> None:
    """4 → 5: what is out is found without a look at every lease that ever was."""
    connection.exec_driver_sql("CREATE INDEX IF NOT EXISTS leases_out ON leases (context, returned_at, expires_at)")


def _to_version_5(connection: sa.Connection) -> None:
    """4 → 5: all that changed together."""
    _add_tombstones(connection)
    _add_bodies(connection)
    _add_invited_at(connection)
    _index_leases_out(connection)


def _to_version_6(connection: sa.Connection) -> None:
    """5 → 6: an action's rows can be chained. What was asked before is chained when the next head is signed."""
    links.create(connection, checkfirst=True)


_STEPS: dict[int, Callable[[sa.Connection], None]] = {
    1: _number_members,
    2: _add_claims,
    3: _name_cross_checks,
    4: _to_version_5,
    5: _to_version_6,
}

"""Claims: which queries are in flight, so that no two programs on one ledger pay for the same answer."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ttca.pooling.database import Database, found, marks
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import claims as _claims

__all__ = ["Claim", "Taken", "free", "in_flight", "is_gone", "take", "this_process", "void"]

#: So many keys fit in one statement of any database.
_PART = 900
#: Times a second apart say the same about a clock that nobody has set.
_TOLERANCE_S = 1.0

# One text for both databases. The sub-selects keep PostgreSQL from waiting for whoever is about to free a key; the
# conflict is for who claims it at the same moment.
_TAKE = (
    "INSERT INTO claims (key, request, holder, until, seconds) SELECT * FROM (VALUES {}) AS wanted "
    "WHERE NOT EXISTS (SELECT 1 FROM answers WHERE answers.key = column1) "
    "AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.key = column1) ON CONFLICT (key) DO NOTHING"
)
_COLUMNS = ("key", "request", "holder", "until", "seconds")
_FREE = "DELETE FROM claims WHERE request IN ({})"
#: On a server a table that is written so often is slow to read through; in a file that is quicker than all their keys.
_BY_KEY = " AND key IN (SELECT key FROM attempts WHERE request IN ({}))"
_ANSWERED = sa.select(_answers.c.key).where(_answers.c.key.in_(sa.bindparam("keys", expanding=True)))
_HELD = sa.select(_claims).where(_claims.c.key.in_(sa.bindparam("keys", expanding=True)))
_SAME = (_claims.c.key == sa.bindparam("its_key"), _claims.c.request == sa.bindparam("its_request"))
_INHERIT = (
    sa.update(_claims)
    .where(*_SAME)
    .values({name: sa.bindparam(name) for name in ("request", "holder", "until", "seconds")})
)
_SHORTEN = sa.update(_claims).where(*_SAME).values(until=sa.bindparam("until"))


@dataclass(frozen=True)
class Claim:
    """That nobody else asks a bill's queries while it is in flight: who holds them, and the most seconds it takes."""

    holder: str
    seconds: float


@dataclass(frozen=True)
class Taken:
    """Why a bill was not charged: some of its queries are ``answered``, others ``busy``, in flight elsewhere."""

    answered: frozenset[bytes]
    busy: frozenset[bytes]


def take(
    database: Database, connection: sa.Connection, bills: Mapping[int, tuple[Sequence[bytes], Claim]], now: float
) -> dict[int, Taken]:
    """Claim the queries of these requests, in a transaction that writes.

    Parameters
    ----------
    database : Database
    connection : sa.Connection
    bills : dict of request to (keys, Claim)
        The first of two that name the same key gets it.
    now : float

    Returns
    -------
    dict of request to Taken
        Those that did not get every key: they hold none.

    Notes
    -----
    A claim is free once its process is known to be gone or its time is over. Time that was set back ends no later: a
    claim that reaches further than its own length is cut to it when it is first met.
    """
    # Sorted, so that two programs on a server never wait for each other.
    wanted = [
        (key, request, c.holder, now + c.seconds, c.seconds) for request, (keys, c) in bills.items() for key in keys
    ]
    wanted.sort(key=itemgetter(0))
    if database.change(connection, _TAKE, wanted) == len(wanted):
        return {}
    rows: list[dict[str, Any]] = [dict(zip(_COLUMNS, row, strict=True)) for row in wanted]
    answered: set[bytes] = set()
    held: dict[bytes, dict[str, Any]] = {}
    for part in _parts([row["key"] for row in rows]):
        answered.update(bytes(k) for k in connection.scalars(_ANSWERED, {"keys": part}))
        held.update({bytes(r.key): r._asdict() for r in connection.execute(_HELD, {"keys": part})})
    lost: dict[int, set[bytes]] = {}
    for row in rows:
        key, request, holding = row["key"], row["request"], held.get(row["key"])
        if key not in answered and holding is not None:
            if holding["request"] == request:
                continue
            same = {"its_key": key, "its_request": holding["request"]}
            if not _lives(holding, now):
                changed = {name: row[name] for name in ("request", "holder", "until", "seconds")}
                if connection.execute(_INHERIT, same | changed).rowcount == 1:
                    held[key] = row
                    continue
            elif _is_ahead(holding, now):
                connection.execute(_SHORTEN, same | {"until": now + holding["seconds"]})
        # Also what was freed a moment ago: whoever asks again may have it.
        lost.setdefault(request, set()).add(key)
    if lost:
        void(database, connection, lost)
    return {request: Taken(frozenset(keys & answered), frozenset(keys - answered)) for request, keys in lost.items()}


def free(database: Database, connection: sa.Connection, requests: Sequence[int]) -> None:
    """Free what these requests hold: they have ended."""
    theirs = marks(len(requests))
    if database.is_server:
        found(connection, (_FREE + _BY_KEY).format(theirs, theirs), [*requests, *requests])
    else:
        void(database, connection, requests)


def void(database: Database, connection: sa.Connection, requests: Collection[int]) -> None:
    """Free what requests hold that were not charged after all."""
    found(connection, _FREE.format(marks(len(requests))), list(requests))


def in_flight(connection: sa.Connection, keys: Sequence[bytes], now: float) -> set[bytes]:
    """Return which of these somebody is asking now. What is claimed for too long is left out: :func:`take` ends it."""
    return {
        bytes(row.key)
        for part in _parts(keys)
        for row in connection.execute(_HELD, {"keys": part})
        if _lives(held := row._asdict(), now) and not _is_ahead(held, now)
    }


def _lives(claim: Mapping[str, Any], now: float) -> bool:
    return bool(claim["until"] > now) and not is_gone(claim["holder"])


def _is_ahead(claim: Mapping[str, Any], now: float) -> bool:
    """Whether a claim lies in the future: the clock was set back since."""
    return bool(claim["until"] > now + claim["seconds"] + _TOLERANCE_S)


def _parts(keys: Sequence[bytes]) -> list[list[bytes]]:
    return [list(keys[i : i + _PART]) for i in range(0, len(keys), _PART)]


# -- who lives ----------------------------------------------------------------------------------------------------


def this_process() -> str:
    """Return the name of this process: its number, when it began, and the machine it runs on."""
    return _name(os.getpid())


def is_gone(holder: str) -> bool:
    """Whether this is the name of a process of this machine that has surely ended; nothing is known of others."""
    number, _, rest = holder.partition(" ")
    began, _, machine = rest.partition(" ")
    # On Windows, asking would be a signal to the process. There a claim ends when its time is over.
    if machine != _machine() or not number.isdecimal() or os.name == "nt":
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # another user's process
    return _began(int(number)) not in (began, "")


@cache
def _name(number: int) -> str:
    return f"{number} {_began(number)} {_machine()}"


@cache
def _machine() -> str:
    """Return the host, on Linux with what tells boots, and containers of one host, apart: numbers mean other things."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return "/".join(parts)


def _began(number: int) -> str:
    """Return when a process began, in ticks since the boot; empty where the system does not say, "ended" if it has."""
    try:
        # The name of the program, in brackets, may hold anything.
        said = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "ended" if said[0] in "ZX" else said[19]
    except (OSError, IndexError):
        return ""

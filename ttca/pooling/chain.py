"""The chain: every row of an action behind a salted commitment, and heads that fix all rows up to a moment.

A row is committed to as ``SHA-256("ttca-row-1\\n" + salt + content)``, with 32 random bytes as salt, and the head after
it is ``SHA-256(head before + commitment)``. Salt and content are deleted with whoever a row is about; commitments never
are, so that every head that was ever signed can still be computed. *Ours*, of *published* parts: hash chains (Haber and
Stornetta, Journal of Cryptology 3 (1991)) over salted hash commitments.

Rows are chained when a head is wanted, not when they are written: asking is as fast as without.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from ttca.errors import ChargeState, LedgerError
from ttca.pooling.books import of_action
from ttca.pooling.ledger import Ledger
from ttca.pooling.membership import numbered
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import links as _links
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests

__all__ = ["Fact", "Link", "chain_start", "extend", "links_of", "payers", "query_name", "row_text"]

#: Request, position, owner and content.
_Row: TypeAlias = tuple[int | None, int | None, int | None, str]
_ROW, _CHAIN, _QUERY = b"ttca-row-1\n", b"ttca-chain-1\n", b"ttca-query-1\n"


@dataclass(frozen=True)
class Fact:
    """A row of an action that is no query: what it says, JSON-able, and which member it is about, if any."""

    content: dict[str, Any]
    owner: str | None = None


@dataclass(frozen=True)
class Link:
    """One row of the chain. ``salt`` and ``content`` are None where whoever it was about is forgotten."""

    salt: bytes | None
    content: str | None
    commitment: bytes


def extend(ledger: Ledger, action: str, facts: Sequence[Fact] = ()) -> tuple[int, str]:
    """Chain every row of an action that is not chained as it stands now, and return how many are, and their head.

    Parameters
    ----------
    ledger : Ledger
    action : str
        The action's name; requests that name none are its own, too.
    facts : sequence of Fact
        Further rows, before the queries; none is chained twice.

    Returns
    -------
    int, str
        Rows, and 64 hex digits.

    Raises
    ------
    LedgerError
        If a row that was chained is not what was committed to, or cannot be written.

    Notes
    -----
    A query whose outcome changed since it was chained (it was in flight, or another answer stands now) is chained once
    more; the later row counts. Takes about as long as reading the ledger's attempts.
    """

    def work(connection: sa.Connection) -> tuple[int, str]:
        ledger.database.exclude(connection)
        number, head = 0, chain_start(action)
        known: set[str | None] = set()
        latest: dict[tuple[int | None, int | None], str | None] = {}
        for _, link in _read(connection, action, ledger.name):
            number += 1
            head = _next(head, bytes(link.commitment))
            if link.request is None:
                known.add(link.content)
            else:
                latest[link.request, link.position] = link.content
        names = {fact.owner for fact in facts if fact.owner is not None}
        owners = numbered(ledger.database, connection, names, ledger.seals) if names else {}
        told: list[_Row] = [(None, None, owners.get(f.owner or ""), row_text(f.content)) for f in facts]
        fresh = [row for row in told if row[3] not in known]
        fresh += [row for row in _queries(connection, action) if latest.get(row[:2]) != row[3]]
        rows = []
        for request, position, owner, content in fresh:
            number += 1
            salt = secrets.token_bytes(32)
            commitment = _commitment(salt, content)
            head = _next(head, commitment)
            rows.append(
                {"action": action, "number": number, "request": request, "position": position, "owner": owner,
                 "salt": salt, "content": content, "commitment": commitment}
            )  # fmt: skip
        for start in range(0, len(rows), 10_000):
            connection.execute(sa.insert(_links), rows[start : start + 10_000])
        return number, head.hex()

    return ledger.database.run(work, write=True)


def links_of(ledger: Ledger, action: str) -> list[Link]:
    """Return an action's rows in their order, as far as they are chained.

    Raises
    ------
    LedgerError
        If one is not what was committed to.
    """
    return ledger.database.run(
        lambda connection: [
            Link(None if link.salt is None else bytes(link.salt), link.content, bytes(link.commitment))
            for _, link in _read(connection, action, ledger.name)
        ]
    )


def payers(ledger: Ledger, action: str) -> tuple[dict[int, str], frozenset[str]]:
    """Return who paid each request of an action, and which of all names are aliases of people who were forgotten."""

    def work(connection: sa.Connection) -> tuple[dict[int, str], frozenset[str]]:
        who = sa.select(_requests.c.id, _members.c.name).join(_members, _members.c.id == _requests.c.member)
        paid = {int(r.id): str(r.name) for r in connection.execute(who.where(of_action(action)))}
        gone = sa.select(_members.c.name).where(_members.c.forgotten_at.is_not(None))
        return paid, frozenset(str(name) for name in connection.scalars(gone))

    return ledger.database.run(work)


def chain_start(action: str) -> bytes:
    """Return the head before the first row, 32 bytes."""
    return hashlib.sha256(_CHAIN + action.encode("utf-8", "surrogatepass")).digest()


def query_name(key: bytes) -> str:
    """Return what a chain calls a query: 32 hex digits, by which it is known again, made of its key in the ledger."""
    return hashlib.sha256(_QUERY + key).hexdigest()[:32]


def row_text(content: dict[str, Any]) -> str:
    """Return the exact text of a row that is committed to: JSON on one line, names in order."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _commitment(salt: bytes, content: str) -> bytes:
    return hashlib.sha256(_ROW + salt + content.encode()).digest()


def _next(head: bytes, commitment: bytes) -> bytes:
    return hashlib.sha256(head + commitment).digest()


def _read(connection: sa.Connection, action: str, where: str) -> Iterator[tuple[int, Any]]:
    """Yield an action's links with their numbers, each checked against its commitment."""
    found = connection.execute(sa.select(_links).where(_links.c.action == action).order_by(_links.c.number))
    for number, link in enumerate(found, 1):
        sealed = link.salt is None and link.content is None
        half = not sealed and (link.salt is None or link.content is None)
        if link.number != number or half or not (sealed or _holds(link)):
            raise LedgerError(
                f"Expected row {number} of the chain of {action!r} in {where} as it was committed to, got another one. "
                "Somebody edited the ledger. Restore it from a copy."
            )
        yield number, link


def _holds(link: Any) -> bool:
    return _commitment(bytes(link.salt), link.content) == bytes(link.commitment)


def _queries(connection: sa.Connection, action: str) -> Iterator[_Row]:
    """Yield request, position, owner and content of every query that an action was charged for, in their order."""
    answer = sa.and_(_answers.c.key == _attempts.c.key, _answers.c.request == _attempts.c.request)
    outcome = sa.and_(_outcomes.c.request == _attempts.c.request, _outcomes.c.position == _attempts.c.position)
    rows = connection.execute(
        sa.select(
            _attempts.c.request, _attempts.c.position, _attempts.c.key, _attempts.c.owner, _requests.c.purpose,
            _requests.c.charged_at, _outcomes.c.outcome, _outcomes.c.at, _answers.c.status, _answers.c.label,
        )
        .select_from(
            _attempts.join(_requests, _requests.c.id == _attempts.c.request)
            .outerjoin(_outcomes, outcome)
            .outerjoin(_answers, answer)
        )
        .where(of_action(action))
        .order_by(_attempts.c.request, _attempts.c.position)
    )  # fmt: skip
    for row in rows:
        content: dict[str, Any] = {
            "row": "query",
            "attempt": [row.request, row.position],
            "purpose": row.purpose,
            "asked": row.charged_at,
            "outcome": row.outcome or ChargeState.UNKNOWN.value,
            "ended": row.at,
        }
        if row.key == b"":
            yield row.request, row.position, row.owner, row_text({**content, "forgotten": True})
            continue
        said = None if row.status is None else [row.status, row.label]
        yield row.request, row.position, row.owner, row_text({**content, "query": query_name(row.key), "answer": said})

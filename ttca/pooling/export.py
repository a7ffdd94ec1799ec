"""The books in one file for whoever is to check them: what was paid, by whom and what came of it, without names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ttca import __version__
from ttca.errors import ChargeState, LedgerError
from ttca.pooling.booking import ANSWERED
from ttca.pooling.books import Balance, balances
from ttca.pooling.ledger import Ledger
from ttca.pooling.schema import attempts as _attempts
from ttca.pooling.schema import members as _members
from ttca.pooling.schema import outcomes as _outcomes
from ttca.pooling.schema import requests as _requests

__all__ = ["Books", "export_books", "read_books", "to_text"]

_FORMAT = "ttca-books-1"
_ENDS = {
    ANSWERED: "answered",
    ChargeState.CHARGED.value: "unusable",
    ChargeState.UNKNOWN.value: "unknown",
    ChargeState.REFUNDED.value: "refunded",
}


@dataclass(frozen=True)
class Books:
    """What an export says of one action, or of all that share its ledger.

    Parameters
    ----------
    action : str
    written_at : float
        Seconds since the epoch.
    members : tuple of Balance
        Under numbers, unless names were asked for.
    requests : tuple of dict
        Each request: whose, for what and when (seconds since the epoch), and how its queries ended.
    """

    action: str
    written_at: float
    members: tuple[Balance, ...]
    requests: tuple[dict[str, Any], ...]

    @property
    def charged(self) -> int:
        """Queries paid, refunds out."""
        return sum(m.charged for m in self.members)


def export_books(ledger: Ledger, action: str, *, names: bool = False) -> Books:
    """Return the books as they are at this moment.

    Parameters
    ----------
    ledger : Ledger
    action : str
        The action's name.
    names : bool
        Whether members' names stand in it. By default they are numbers, in no order that tells who is who.
    """

    def work(connection: sa.Connection) -> tuple[list[Balance], list[Any]]:
        ended = sa.func.coalesce(_outcomes.c.outcome, ChargeState.UNKNOWN.value).label("ended")
        rows = connection.execute(
            sa.select(_requests.c.id, _requests.c.purpose, _requests.c.charged_at, _members.c.name, ended)
            .select_from(
                _attempts.join(_requests, _requests.c.id == _attempts.c.request)
                .join(_members, _members.c.id == _requests.c.member)
                .outerjoin(
                    _outcomes,
                    sa.and_(_outcomes.c.request == _attempts.c.request, _outcomes.c.position == _attempts.c.position),
                )
            )
            .order_by(_requests.c.id)
        ).all()
        return balances(connection, None), list(rows)

    found, rows = ledger.database.run(work)
    # By what they first paid, not by name: the order of names would tell who is who.
    seen = dict.fromkeys([str(r.name) for r in rows] + [b.member for b in found])
    called = {name: name if names else f"member {i}" for i, name in enumerate(seen, 1)}
    requests: dict[int, dict[str, Any]] = {}
    for row in rows:
        request = requests.setdefault(
            int(row.id), {"member": called[row.name], "purpose": row.purpose, "at": float(row.charged_at)}
        )
        end = _ENDS[row.ended]
        request[end] = request.get(end, 0) + 1
    members = sorted((Balance(**{**asdict(b), "member": called[b.member]}) for b in found), key=lambda b: b.member)
    return Books(action, ledger.now(), tuple(members), tuple(requests.values()))


def to_text(books: Books) -> str:
    """Return an export as it is written."""
    said = {
        "format": _FORMAT,
        "ttca": __version__,
        "action": books.action,
        "written_at": books.written_at,
        "members": [asdict(m) for m in books.members],
        "requests": list(books.requests),
    }
    return json.dumps(said, indent=1) + "\n"


def read_books(path: Path) -> Books:
    """Read an export, and check that its balances follow from its requests.

    Raises
    ------
    LedgerError
        If it cannot be read, or does not add up.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
        if said["format"] != _FORMAT:
            raise ValueError(f"the format {said['format']!r}")
        books = Books(
            str(said["action"]),
            float(said["written_at"]),
            tuple(_balance(m) for m in said["members"]),
            tuple(said["requests"]),
        )
        counted = _counted(books.requests)
    except OSError as error:
        raise LedgerError(f"Expected to read books from {path}, got: {error.strerror}. Check the path.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = "something else" if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
        raise LedgerError(
            f"Expected books in the format {_FORMAT} in {path}, got {what}. Ask for the file again."
        ) from None
    for member in books.members:
        own = counted.pop(member.member, Counter())
        if any(getattr(member, end) != own[end] for end in _ENDS.values()) or member.charged != sum(
            own[end] for end in _ENDS.values() if end != "refunded"
        ):
            raise LedgerError(
                f"Expected what {member.member!r} paid in {path} to be the sum of the requests, got {member.charged} "
                f"charged beside requests that say {dict(own)}. The file was edited, or the ledger it came from."
            )
    if counted:
        raise LedgerError(f"Expected every request in {path} to be a member's, got some of {sorted(counted)}.")
    return books


def _name(said: dict[str, Any]) -> str:
    if not isinstance(said["member"], str):
        raise ValueError(f"the member {said['member']!r}")
    return said["member"]


def _balance(said: dict[str, Any]) -> Balance:
    _name(said)
    wrong = {name: value for name, value in said.items() if name != "member" and type(value) is not int}
    if wrong:
        raise ValueError(f"a member with {wrong}")
    return Balance(**said)


def _counted(requests: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    counted: dict[str, Counter[str]] = {}
    for request in requests:
        own = counted.setdefault(_name(request), Counter())
        for end in _ENDS.values():
            n = request.get(end, 0)
            if type(n) is not int or n < 0:
                raise ValueError(f"{n!r} queries that were {end}")
            own[end] += n
    return counted

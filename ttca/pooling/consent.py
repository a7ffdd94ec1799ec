"""Consent as a record: who agreed, when, to which words, and since when no longer; and the receipt for the member."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ttca.errors import QuotaError
from ttca.names import canonical
from ttca.pooling.leaving import check_nobody_left, welcome_back
from ttca.pooling.ledger import Ledger
from ttca.pooling.membership import numbered
from ttca.pooling.schema import consents as _consents
from ttca.pooling.schema import members as _members

__all__ = ["CONSENT", "Consent", "agree", "comes_back", "consents", "words"]

#: What a member agrees to; docs/consent.md shows it. Another wording is another text: ask members again.
CONSENT = """\
The service at {url} serves {subgroup} worse than others. In the action "{action}" we ask it about many pictures, learn
from its answers a faint change for each class of picture, and test on the service whether the change helps.

If you agree:
- Your pictures are sent to the service, as they are and slightly changed. Queries are paid from your quota, and never
  more than that. If you help to test, pictures of you may be sent again later, to see whether the change still helps.
- A copy of the service and the changes are learned from your pictures and from what the service says about them. All
  members get the changes, and the changes may be published. They hold no picture. But who has a picture of you may be
  able to tell from them that you took part, the more easily the fewer take part.
- The organizers keep your name, what you paid, and the answers about your pictures in a file that only they can read.
- Other members' machines get your pictures, and a report shows them, only if you also say that they are shareable.
- What was found may be published as evidence: for each test picture its class and what the service said about it, who
  paid how much, and that somebody agreed. Neither your name nor your picture is in it.

You can leave at any time and need not say why. Ask the organizers to run: ttca pool forget. Then your name and the
answers about your pictures are deleted. What you paid stays under an alias. A coded mark of your name stays too, so
that nobody asks about you again by mistake. If you helped to test, it stays whether the answer was right, without
anything that says whose it was. What was learned or published cannot be taken back.
"""


@dataclass(frozen=True)
class Consent:
    """Who agreed to which words, and when (seconds since the epoch); ``withdrawn_at`` is None while it stands.

    Whoever was forgotten is named by their alias.
    """

    member: str
    action: str
    text: str
    agreed_at: float
    withdrawn_at: float | None

    @property
    def told(self) -> str:
        """Who agreed from when to when, for people."""
        until = "" if self.withdrawn_at is None else f", withdrawn {_day(self.withdrawn_at)}"
        return f"{self.member} since {_day(self.agreed_at)}{until}"

    @property
    def digest(self) -> str:
        """A SHA-256, 64 hex digits, of the words."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def receipt(self) -> str:
        """Return what the member gets."""
        return (
            f"Receipt: {self.member} agreed to this on {_day(self.agreed_at)}.\n\n{self.text}\n"
            f"Keep this receipt. SHA-256 of the words above: {self.digest}\n"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the digest in place of the words."""
        return {
            "member": self.member,
            "action": self.action,
            "agreed": _day(self.agreed_at),
            "withdrawn": None if self.withdrawn_at is None else _day(self.withdrawn_at),
            "sha256": self.digest,
        }


def words(*, action: str, subgroup: str, url: str) -> str:
    """Return what a member of an action agrees to."""
    return CONSENT.format(action=action, subgroup=subgroup, url=url)


def agree(ledger: Ledger, member: str, *, action: str, text: str) -> Consent:
    """Write down that a member agreed, and return the record; the same consent that stands already is returned.

    Whoever was forgotten may take part again from now on.
    """
    name = canonical(member)

    def work(connection: sa.Connection) -> None:
        ledger.database.exclude(connection)
        welcome_back(connection, name, ledger.seals)
        number = numbered(ledger.database, connection, [name], ledger.seals)[name]
        row = {"member": number, "action": action, "text": text}
        stands = (_consents.c[column] == value for column, value in row.items())
        if connection.scalar(sa.select(_consents.c.id).where(*stands, _consents.c.withdrawn_at.is_(None))) is None:
            connection.execute(sa.insert(_consents).values(**row, agreed_at=ledger.now_in(connection)))

    ledger.database.run(work, write=True)
    return next(c for c in consents(ledger, action=action) if (c.member, c.text, c.withdrawn_at) == (name, text, None))


def comes_back(ledger: Ledger, member: str) -> bool:
    """Whether somebody was forgotten here, and may agree anew though no table names them any longer."""
    try:
        ledger.database.run(lambda connection: check_nobody_left(connection, [canonical(member)], ledger.seals))
    except QuotaError:
        return True
    return False


def consents(ledger: Ledger, *, action: str) -> list[Consent]:
    """Return every consent to an action, the oldest first."""
    rows = ledger.database.run(
        lambda connection: connection.execute(
            sa.select(_consents, _members.c.name)
            .join(_members, _members.c.id == _consents.c.member)
            .where(_consents.c.action == action)
            .order_by(_consents.c.id)
        ).all()
    )
    return [Consent(str(r.name), r.action, r.text, r.agreed_at, r.withdrawn_at) for r in rows]


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"

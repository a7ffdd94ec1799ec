"""Standing: what a member's own pictures were answered, and where the group stands; told to that member alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa

from ttca.answers import Answers, Status
from ttca.gap import Served, served
from ttca.people import People
from ttca.platforms.base import PlatformInfo
from ttca.pooling.hub_client import HubAccess, HubClient, HubError, Reply
from ttca.pooling.ledger import Ledger
from ttca.pooling.lookup import ReadAgain, Reader
from ttca.pooling.recall import recall
from ttca.pooling.schema import inputs as _inputs
from ttca.pooling.shelf import parts

__all__ = ["MemberStanding", "Mirror", "TheirAnswer", "own_standing"]

#: A group's figures are told from so many other people on: of fewer they would tell what single ones were answered.
FEWEST = 5
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class TheirAnswer:
    """How many pictures that truly show one class were answered with another, or the same; None for a refusal."""

    true_class: str
    said: str | None
    count: int


@dataclass(frozen=True, kw_only=True)
class MemberStanding:
    """What one member is told.

    Parameters
    ----------
    pictures : int
        That are theirs and shared.
    checked : int
        Of these, answered, and still to be compared with what another member hears: not told yet.
    answers : tuple of TheirAnswer
        Of all that stand.
    subgroup, reference : Served or None
        The shared pictures of whom the action is for, and of the others; None while too few people have answers.
    """

    pictures: int
    checked: int
    answers: tuple[TheirAnswer, ...]
    subgroup: Served | None
    reference: Served | None

    @property
    def answered(self) -> int:
        """Pictures whose answer stands."""
        return sum(answer.count for answer in self.answers)

    @property
    def right(self) -> int:
        """Those that were answered with what they show."""
        return sum(answer.count for answer in self.answers if answer.said == answer.true_class)

    def _own(self) -> str:
        if not self.pictures:
            return "No picture of yours is shared here."
        if not self.answered:
            one = self.pictures == 1
            whose = "Your shared picture has no" if one else f"None of your {self.pictures:,} shared pictures has an"
            return f"{whose} answer yet that stands."
        if self.pictures == 1:
            return f"Your shared picture is answered, and the answer is {'right' if self.right else 'not right'}."
        are = "is" if self.answered == 1 else "are"
        return (
            f"Of your {self.pictures:,} shared pictures {self.answered:,} {are} answered, {self.right:,} of them right."
        )

    def told(self) -> list[str]:
        """Return what that says, for its member."""
        lines = [self._own()]
        if self.checked:
            more, are = " more" if self.answered else "", "is" if self.checked == 1 else "are"
            lines[0] += f" {self.checked:,}{more} {are} still compared with what others hear."
        by_class: dict[str, list[str]] = {}
        for answer in self.answers:
            word = "right" if answer.said == answer.true_class else f"taken for {answer.said}"
            word = "refused" if answer.said is None else word
            by_class.setdefault(answer.true_class, []).append(f"{answer.count:,} {word}")
        if by_class:
            lines.append("; ".join(f"{name}: {', '.join(words)}" for name, words in by_class.items()) + ".")
        groups = [("in the group it is for", self.subgroup), ("for the others", self.reference)]
        shown = [
            f"{g.right:,} of {g.asked:,} ({100 * g.rate:.0f} %) {name}"
            for name, g in groups
            if g is not None and g.asked
        ]
        lines.append(
            f"Right answers so far, without the change: {', '.join(shown)}."
            if shown
            else f"Where the group stands is told once {FEWEST} other people of it have answers."
        )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        groups = {name: None if g is None else asdict(g) for name, g in self._groups().items()}
        return {
            "pictures": self.pictures,
            "checked": self.checked,
            "answered": self.answered,
            "right": self.right,
            "answers": [asdict(answer) for answer in self.answers],
            **groups,
        }

    def _groups(self) -> dict[str, Served | None]:
        return {"subgroup": self.subgroup, "reference": self.reference}


class Mirror:
    """What the hub knows of whose pictures they are and what they truly show, and looks up for one member at a time.

    Parameters
    ----------
    ledger : Ledger
    info : PlatformInfo
    people : People
        Whose pictures are shared, with their true classes.
    again : callable, optional
        Reads what the platform said before (:data:`~ttca.pooling.lookup.ReadAgain`).
    """

    def __init__(self, ledger: Ledger, info: PlatformInfo, people: People, *, again: ReadAgain | None = None) -> None:
        self._ledger, self._info = ledger, info
        self._reader = Reader(info.reading_mark, again)
        # Not the pictures themselves: they are shared, and lie in the ledger.
        self._truth, self._persons = people.classes, people.persons
        self._members, self._subgroup = people.members, people.subgroup
        self._keys = [recall(ledger, info, people.images, self._reader, epoch="pool").keys]
        if ledger.holds_older:
            self._keys.append(ledger.keys(people.images, fingerprint=info.former_fingerprint, epoch="pool"))

    def of(self, member: str) -> MemberStanding:
        """Return what a member is told now."""
        answers, waiting = self._answers()
        known = answers.answered | (answers.status == Status.REFUSED)
        own = self._members == member
        stands = own & known & ~waiting
        counts: Counter[tuple[int, int]] = Counter(
            zip(self._truth[stands].tolist(), answers.labels[stands].tolist(), strict=True)
        )
        names = self._info.classes
        theirs = np.isin(self._persons, self._persons[own])
        return MemberStanding(
            pictures=int(own.sum()),
            checked=int((own & known & waiting).sum()),
            answers=tuple(
                TheirAnswer(names[true], names[said] if said >= 0 else None, count)
                for (true, said), count in sorted(counts.items())
            ),
            subgroup=self._group(self._subgroup, answers, known, theirs),
            reference=self._group(~self._subgroup, answers, known, theirs),
        )

    def _group(self, group: Any, answers: Answers, known: Any, theirs: Any) -> Served | None:
        others = np.unique(self._persons[group & known & ~theirs])
        if len(others) < FEWEST:
            return None
        return served(self._truth[group], answers.labels[group], known[group], self._persons[group])

    def _answers(self) -> tuple[Answers, Any]:
        """Return the answer to each picture, and whether another member is still asked about it."""
        found = [self._ledger.find(keys, classes=len(self._info.classes), reader=self._reader) for keys in self._keys]
        answers = found[0].answers
        for other in found[1:]:
            older = other.known & ~found[0].known
            for name in ("status", "labels", "scores", "resolution"):
                getattr(answers, name)[older] = getattr(other.answers, name)[older]
        wanted: set[bytes] = set()
        for keys in self._keys:
            wanted |= self._ledger.database.run(partial(_wanted, keys))
        waiting = np.array([any(key in wanted for key in each) for each in zip(*self._keys, strict=True)], dtype=bool)
        return answers, waiting


def _wanted(keys: Sequence[bytes], connection: sa.Connection) -> set[bytes]:
    found: set[bytes] = set()
    for part in parts(keys):
        rows = connection.scalars(sa.select(_inputs.c.key).where(_inputs.c.key.in_(part), _inputs.c.wanted > 0))
        found |= {bytes(key) for key in rows}
    return found


def own_standing(hub: HubAccess) -> MemberStanding | None:
    """Return what the hub tells a member of their own pictures; None where it is away, or of an older version.

    Parameters
    ----------
    hub : HubAccess
        As for :func:`~ttca.pooling.contribute.contribute`.
    """
    try:
        return _read(HubClient(hub, patience_s=0.0, sleep=time.sleep).get("/v1/me/pictures"))
    except HubError:
        # It comes after the work, whose result is told in any case.
        return None


def _read(reply: Reply) -> MemberStanding:
    rows = reply.rows("answers", _MOST_ROWS)
    return MemberStanding(
        pictures=reply.count("pictures"),
        checked=reply.count("checked"),
        answers=tuple(
            TheirAnswer(
                row.text("true_class", "a printable name", str.isprintable),
                row.text("said", "a printable name", str.isprintable) if row.says("said") else None,
                row.count("count"),
            )
            for row in rows
        ),
        **{name: _group_of(reply, name) for name in ("subgroup", "reference")},
    )


def _group_of(reply: Reply, name: str) -> Served | None:
    if not reply.says(name):
        return None
    said: Mapping[str, int] = {
        field: reply.part(name).count(field) for field in ("right", "asked", "persons", "unanswered")
    }
    return Served(**said)

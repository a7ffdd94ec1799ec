"""Acquaintance: which platforms an action has asked, and what it would cost that one of them has changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ttca.errors import ChangedPlatformError
from ttca.images import Images
from ttca.platforms.base import PlatformInfo
from ttca.platforms.protocols.reading import excerpt
from ttca.pooling.ledger import Ledger
from ttca.pooling.recall import Recalled
from ttca.pooling.schema import answers as _answers
from ttca.pooling.schema import platforms as _platforms
from ttca.pooling.schema import requests as _requests
from ttca.values import Value

__all__ = ["Acquaintance", "Change", "Question"]


@dataclass(frozen=True, eq=False, repr=False)
class Question(Value):
    """Images that are asked about, under which epoch and repeat, and what the ledger holds about them."""

    images: Images
    epoch: str
    repeat: int
    found: Recalled


@dataclass(frozen=True)
class Change:
    """That an action asks another platform than before, or reads it otherwise.

    Parameters
    ----------
    fields : dict of str to (str, str)
        What differs, before and now. Empty where nobody wrote down what was before.
    again : int
        How many images have answers that would be paid again.
    images : int
        Of how many.
    """

    fields: dict[str, tuple[str, str]]
    again: int
    images: int

    def refusal(self) -> ChangedPlatformError:
        """Return the error that ends the asking where nobody has accepted it."""
        return ChangedPlatformError(
            f"{self} If the platform has changed and this is meant, say so: --accept-new-version of ttca run or audit, "
            "or accept_new_version=True in Python. If it is not meant, put back what was before. Nothing was sent."
        )

    def __str__(self) -> str:
        said = [
            f"{name}: {excerpt(was, 60)!r} before, {excerpt(now, 60)!r} now" for name, (was, now) in self.fields.items()
        ]
        what = "; ".join(said) or "what it was before, an earlier version did not write down"
        return (
            f"The platform, or how its answers are read, is not as it was when this action asked it: {what}. "
            f"{self.again} of {self.images} images have an answer that cannot be read again and would be paid again."
        )


@dataclass(frozen=True)
class Acquaintance:
    """What an action knows of the platforms it has asked through a ledger.

    Parameters
    ----------
    ledger : Ledger
    action : str or None
        Its name, where several share the ledger.
    """

    ledger: Ledger
    action: str | None

    def check(self, info: PlatformInfo, question: Question, *, accept: bool) -> None:
        """Write the platform down, unless it has changed and answers would be paid again that nobody has accepted.

        Raises
        ------
        ChangedPlatformError
            Naming what has changed and what it costs. Nothing was sent.
        """
        if self._knows(info):
            return
        change = self.change(info, question)
        if change is not None and not accept:
            raise change.refusal()
        # A change that costs nothing now may cost something later, about other images.
        self._write(info, accepted=accept or not self._others(info))

    def accepted(self) -> list[PlatformInfo]:
        """Return every platform that was asked and accepted, as it said of itself, in the order they were met."""
        known = self._where(_platforms.c.accepted).order_by(_platforms.c.at)
        return self.ledger.database.run(lambda c: [_read(str(said)) for said in c.scalars(known)])

    def change(self, info: PlatformInfo, question: Question) -> Change | None:
        """Return what has changed, None where nothing would be paid again for it."""
        missing = np.flatnonzero(~question.found.known)
        if not len(missing) or self._knows(info):
            return None
        others = self._others(info)
        if not others:
            again = self._unnamed(info, question)
            return Change({}, again, len(question.images)) if again else None
        images = question.images[missing]
        there = [self._answered(other, images, question) for other in others]
        read_otherwise = np.array([question.found.readings[i] is not None for i in missing], np.bool_)
        again = int(np.logical_or.reduce([read_otherwise, *there]).sum())
        if not again:
            return None
        # Of several, the one with most answers; of those the one most alike, and of those the last.
        differ = [_difference(other, info) for other in others]
        best = max(range(len(others)), key=lambda i: (int(there[i].sum()), -len(differ[i]), i))
        return Change(differ[best], again, len(question.images))

    # -- inside -----------------------------------------------------------------------------------------------

    def _answered(self, other: PlatformInfo, images: Images, question: Question) -> NDArray[np.bool_]:
        """Return which images another platform has answered, however it was read."""
        result = np.zeros(len(images), np.bool_)
        for fingerprint in {other.fingerprint, other.fingerprint_as_read, other.former_fingerprint}:
            keys = self.ledger.keys(images, fingerprint=fingerprint, epoch=question.epoch, repeat=question.repeat)
            answered = self.ledger.answered(keys)
            result |= np.array([key in answered for key in keys], np.bool_)
        return result

    def _knows(self, info: PlatformInfo) -> bool:
        """Whether this very platform, read in this way, was asked before and accepted."""
        known = self._where(_platforms.c.as_read == info.fingerprint_as_read, _platforms.c.accepted)
        return self.ledger.database.run(lambda c: c.scalar(known.limit(1)) is not None)

    def _others(self, info: PlatformInfo) -> list[PlatformInfo]:
        """Return all others, in the order in which they were met."""
        others = self._where(_platforms.c.as_read != info.fingerprint_as_read).order_by(_platforms.c.at)
        rows = self.ledger.database.run(lambda c: [str(said) for said in c.scalars(others)])
        return [_read(row) for row in rows]

    def _where(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return sa.select(_platforms.c.said).where(_platforms.c.action == (self.action or ""), *conditions)

    def _unnamed(self, info: PlatformInfo, question: Question) -> int:
        """Return how many answers of version 0.1, which wrote no platform down, are none of this one."""
        if not self.ledger.holds_older or question.found.known.any():
            return 0
        mine = sa.or_(_requests.c.action.is_(None), _requests.c.action == (self.action or ""))
        count = sa.select(sa.func.count()).select_from(_answers.join(_requests, _requests.c.id == _answers.c.request))
        held = self.ledger.database.run(lambda c: int(c.scalar(count.where(mine)) or 0))
        return min(held, len(question.images))

    def _write(self, info: PlatformInfo, *, accepted: bool) -> None:
        database, now = self.ledger.database, self.ledger.now()
        row = {
            "action": self.action or "",
            "as_read": info.fingerprint_as_read,
            "said": json.dumps(asdict(info)),
            "accepted": accepted,
            "at": now,
        }
        new = database.insert(_platforms).values(row)
        if accepted:
            new = new.on_conflict_do_update(index_elements=["action", "as_read"], set_={"accepted": True})
        else:
            new = new.on_conflict_do_nothing()
        database.run(lambda connection: connection.execute(new), write=True)


def _read(said: str) -> PlatformInfo:
    """Return a platform as it was written down."""
    facts = json.loads(said)
    facts["classes"], facts["image_shape"] = tuple(facts["classes"]), tuple(facts["image_shape"])
    return PlatformInfo(**facts)


def _difference(before: PlatformInfo, now: PlatformInfo) -> dict[str, tuple[str, str]]:
    """Return what makes two platforms two, or their answers read in two ways; what belongs to both comes first."""
    facts = [
        {**i.identity, **(i.reading or {}), "classes": ", ".join(i.classes), "image_shape": str(i.image_shape)}
        for i in (before, now)
    ]
    names = sorted(set(facts[0]) | set(facts[1]))
    pairs = {name: (facts[0].get(name, "nothing"), facts[1].get(name, "nothing")) for name in names}
    return {name: (was, is_) for name, (was, is_) in pairs.items() if was != is_}

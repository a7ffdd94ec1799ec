"""Heads: what the ledger held when verification began and when it ended, signed, kept and said aloud.

Who is told a head in time can check later that nothing before it was changed: neither a row that was paid for, nor who
sat in which seat, nor which class they truly have, nor what was going to be asked of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from ttca.errors import ActionError
from ttca.kept import load_json, save_json
from ttca.panel import SIDES
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.pooling.chain import Fact, extend, query_name, row_text
from ttca.pooling.ledger import Ledger
from ttca.signing import CollectiveKey
from ttca.sitting import Sitting
from ttca.workshop import Workshop

__all__ = ["HEADS_FILE", "Head", "Moment", "read_heads", "seat_facts", "sign_head", "signed_after", "signed_before"]

#: The signed heads, in the folder of their action.
HEADS_FILE = "heads.json"
_FORMAT = "ttca-heads-1"
#: People whose pictures with δ are in memory at once.
_TOGETHER = 64

Moment: TypeAlias = Literal["before verification", "after verification", "export"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head.

    Parameters
    ----------
    moment : {"before verification", "after verification", "export"}
    action : str
        Whose rows.
    epoch : str
        Which questions to verification people it stands before or after.
    rows : int
        So many rows it fixes.
    head : str
        64 hex digits (:mod:`ttca.pooling.chain`).
    at : str
        ISO 8601, UTC, by the clock of this machine.
    key, signature : str
        The collective's public key, and its signature over all of the above.
    """

    moment: Moment
    action: str
    epoch: str
    rows: int
    head: str
    at: str
    key: str = ""
    signature: str = ""

    @property
    def signed_text(self) -> str:
        """What is signed: all but key and signature, as JSON on one line, names in order."""
        return row_text({name: value for name, value in asdict(self).items() if name not in ("key", "signature")})

    @property
    def told(self) -> str:
        """The head in one line, to be passed on."""
        when = {
            "before verification": "before the first verification query",
            "after verification": "after the last verification query",
            "export": "at export",
        }[self.moment]
        return f"Head of the ledger {when}: {self.head} ({self.rows:,} rows, {self.at})."


def sign_head(
    folder: Path, ledger: Ledger, action: str, moment: Moment, *, epoch: str, facts: Sequence[Fact] = ()
) -> Head:
    """Chain what is not chained yet, sign the head, keep it in ``heads.json``, and return it.

    Raises
    ------
    LedgerError
        If the ledger was edited.
    SignatureError
        If the collective's key cannot be used.
    """
    key = CollectiveKey.open_or_make(folder)
    rows, head = extend(ledger, action, facts)
    day = datetime.fromtimestamp(ledger.now(), UTC).isoformat(timespec="seconds")
    bare = Head(moment=moment, action=action, epoch=epoch, rows=rows, head=head, at=day)
    signature = key.signature_of(bare.signed_text.encode(), "head")
    made = Head(**{**asdict(bare), "key": key.public, "signature": signature})
    heads = [known for known in read_heads(folder) if (known.moment, known.epoch) != (moment, epoch)]
    save_json(folder / HEADS_FILE, {"format": _FORMAT, "heads": [asdict(known) for known in (*heads, made)]})
    return made


def read_heads(folder: Path) -> list[Head]:
    """Return the heads that were signed in an action's folder, the oldest first.

    Raises
    ------
    ActionError
        If the file cannot be read.
    """
    path = folder / HEADS_FILE
    if not path.is_file():
        return []
    found = load_json(path)
    try:
        if found["format"] != _FORMAT:
            raise ValueError(f"the format {found['format']!r}")
        return [Head(**head) for head in found["heads"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ActionError(
            f"Expected signed heads in the format {_FORMAT} in {path}, got {error!r}. Restore the file."
        ) from None


def signed_before(shop: Workshop, sitting: Sitting, family: Family) -> None:
    """Sign the head before the first verification query, once: with it stand seats, true classes and questions."""
    if any((h.moment, h.epoch) == ("before verification", sitting.epoch) for h in read_heads(shop.folder)):
        return
    if {"baseline", "verification"} & shop.queries.ledger.paid(action=shop.settings.name).keys():
        # An earlier version began. What was not fixed in time is not said to be.
        shop.reporter.say("No head was signed before the first verification query: ttca was another version then.")
        return
    _sign_and_say(shop, "before verification", sitting.epoch, list(seat_facts(shop, sitting, family)))


def signed_after(shop: Workshop, epoch: str) -> None:
    """Sign the head after the last verification query, once; not where none was signed before the first."""
    signed = {head.moment for head in read_heads(shop.folder) if head.epoch == epoch}
    if "before verification" in signed and "after verification" not in signed:
        _sign_and_say(shop, "after verification", epoch, ())


def _sign_and_say(shop: Workshop, moment: Moment, epoch: str, facts: Sequence[Fact]) -> None:
    head = sign_head(shop.folder, shop.queries.ledger, shop.settings.name, moment, epoch=epoch, facts=facts)
    shop.reporter.say(f"{head.told} Send this line to somebody outside: it shows later that nothing was changed since.")


def seat_facts(shop: Workshop, sitting: Sitting, family: Family) -> Iterator[Fact]:
    """Yield the terms of a verification, and every seat with its true class and the queries that it will be asked."""
    terms, panel = shop.settings.certifying, sitting.panel
    yield Fact(
        {
            "row": "terms",
            "epoch": sitting.epoch,
            "terms": terms.to_dict(),
            "epsilons": sorted(family.sets, reverse=True),
            "examined": panel.examined().to_dict(),
            "classes": list(shop.info.classes),
        }
    )
    for side, group in zip(SIDES, (panel.subgroup, panel.reference), strict=True):
        seats = np.arange(len(group)) if panel.seating is None else panel.seating.seats[side]
        asked: dict[str, list[str]] = {}
        if terms.aim.compares_with == {"subgroup": "before", "reference": "reference"}[side]:
            asked[str(terms.aim.compares_with)] = _names(shop, group, sitting.epoch, None)
        if side == "subgroup":
            for epsilon in sorted(family.sets, reverse=True):
                asked[str(epsilon)] = _names(shop, group, sitting.epoch, family.sets[epsilon])
        for row, place in enumerate(seats.tolist()):
            yield Fact(
                {
                    "row": "seat",
                    "epoch": sitting.epoch,
                    "side": side,
                    "seat": place,
                    "class": int(group.classes[row]),
                    "asks": {condition: names[row] for condition, names in asked.items()},
                },
                owner=str(group.members[row]),
            )


def _names(shop: Workshop, people: People, epoch: str, delta: PerturbationSet | None) -> list[str]:
    """Return what the chain calls the queries about people, a few pictures in memory at a time."""
    found: list[str] = []
    for start in range(0, len(people), _TOGETHER):
        part = people[start : start + _TOGETHER]
        images = part.images if delta is None else delta.apply(part.images, part.classes)
        found += [query_name(key) for key in shop.queries.names(images, epoch=epoch)]
    return found

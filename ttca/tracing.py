"""Tracing: which rows of the ledger a certificate and a result row follow from, for whoever is to recompute them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.conditions import Control, Opponents
from ttca.distilling import Distilled
from ttca.errors import PerturbationError
from ttca.expiry import expiry_beside
from ttca.heads import seat_facts
from ttca.images import Images
from ttca.measurement import measure
from ttca.measuring import Examination
from ttca.panel import SIDES
from ttca.perturbing import Family
from ttca.pooling.books import asked_between
from ttca.pooling.chain import Fact, query_name
from ttca.pooling.minutes import Minutes
from ttca.report.plain import Provenance
from ttca.sitting import Sitting
from ttca.verifying import MEMBERS_FILE, Verified
from ttca.workshop import Workshop

__all__ = ["Trace", "provenance", "trace"]


@dataclass(frozen=True)
class Trace:
    """What stands behind a row.

    Parameters
    ----------
    epoch : str
        Of the questions to verification people.
    around : Provenance
    facts : tuple of Fact
        Terms and seats, as the chain has them.
    measured : dict
        JSON-able: who was measured, in which seat, and the query of each under every condition.
    """

    epoch: str
    around: Provenance
    facts: tuple[Fact, ...]
    measured: dict[str, Any]


def trace(
    shop: Workshop,
    exam: Examination,
    verified: Verified,
    distilled: Distilled,
    family: Family,
    opponents: Opponents,
    controls: Sequence[Control],
) -> Trace:
    """Go once more through all that was asked about verification people; nothing is asked.

    Parameters
    ----------
    shop : Workshop
    exam : Examination
        Whom the row was measured on.
    verified : Verified
    distilled : Distilled
    family : Family
    opponents : Opponents
    controls : sequence of Control
        In the order in which they are asked.
    """
    epsilon = verified.certificate.quoted_epsilon
    names: list[str] = []

    def ask(images: Images, _owners: NDArray[np.str_]) -> Answers:
        names.extend(query_name(key) for key in exam.pool.names(images, epoch=exam.epoch))
        return exam.pool.in_hand(images, epoch=exam.epoch)

    def proxy(images: Images) -> NDArray[np.int64]:
        return shop.learner.predict(distilled.proxy, images)

    measured = measure(
        ask, exam.people, perturbations=family.sets[epsilon], opponents=opponents, proxy=proxy,
        seed=shop.settings.seed, controls=controls, seats=exam.seats,
    )  # fmt: skip
    people, numbers = exam.people, {name: i for i, name in enumerate(dict.fromkeys(exam.people.persons.tolist()))}
    groups, picks = {}, {}
    for side in SIDES:
        mine = people[people.subgroup == (side == "subgroup")]
        seats = range(len(mine)) if exam.seats is None else exam.seats[side].tolist()
        persons = [numbers[name] for name in mine.persons.tolist()]
        groups[side] = {"seats": list(seats), "truth": mine.classes.tolist(), "persons": persons}
        picks[side] = proxy(mine.images).tolist()
    conditions, start = [], 0
    for control in controls:
        hit = measured.outcomes[control.name].hit
        said = {"name": control.name, "key": control.key, "side": control.whose, "hit": hit.tolist()}
        conditions.append({**said, "queries": names[start : start + len(hit)]})
        start += len(hit)
    sitting = Sitting(verified.epoch, verified.panel, Minutes(shop.queries.ledger, verified.epoch))
    content = {
        "epoch": verified.epoch,
        "classes": len(shop.info.classes),
        "groups": groups,
        "picks": picks,
        "conditions": conditions,
    }
    return Trace(verified.epoch, provenance(shop), tuple(seat_facts(shop, sitting, family)), content)


def provenance(shop: Workshop) -> Provenance:
    """Return who asked which service, between which days of the ledger, and who allowed it."""
    ends = shop.queries.ledger.database.run(lambda connection: asked_between(connection, shop.settings.name))
    first, last = (None, None) if ends is None else (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in ends)
    # Platforms of other kinds run in this program, where nobody has to allow it.
    allowed = getattr(shop.queries.platform, "authorized_by", None)
    said = None
    # Without its signature nobody said it: the next recheck says it again.
    with suppress(PerturbationError):
        said = expiry_beside(shop.folder / MEMBERS_FILE)
    return Provenance(
        subgroup=shop.settings.subgroup,
        service=shop.info.name,
        first=first,
        last=last,
        authorized_by=allowed,
        expired=None if said is None else f"This no longer holds. {said.told}",
    )

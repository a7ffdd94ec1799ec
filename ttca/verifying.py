"""Verifying: verification people are read once, for one family of perturbations; what passes is handed out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import Certificate, certify, count_right, count_right_at_most
from ttca.conditions import CONTROLS, Control, Measuring
from ttca.errors import ActionError
from ttca.images import Images
from ttca.kept import load_json, save_json
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.workshop import Workshop

__all__ = ["MEMBERS_FILE", "Verified", "hand_out", "is_verified", "keep_controls", "unmeasured", "verify"]

#: The file that members get; it exists only where its certificate passed.
MEMBERS_FILE = "perturbations.safetensors"
_CERTIFICATE, _CONTROLS, _OPENED = "certificate.json", "controls.json", "verification.json"


@dataclass(frozen=True)
class Verified:
    """The certificate, the epoch under which verification people were asked, and the day (ISO 8601, UTC)."""

    certificate: Certificate
    epoch: str
    day: str


def verify(shop: Workshop, people: People, family: Family) -> Verified:
    """Spend verification queries on the certificate, from the largest ε downward; or read it back.

    Parameters
    ----------
    shop : Workshop
    people : People
        Verification people of both groups.
    family : Family

    Raises
    ------
    ActionError
        If verification people were already read for other perturbations: reading them twice would make the
        certificate worthless.
    """
    epoch = _open(shop, people, family)
    path = shop.folder / _CERTIFICATE
    if path.is_file():
        stored = load_json(path)
        if stored.get("epoch") == epoch:
            certificate = Certificate.from_dict(stored.get("certificate", {}))
            # Earlier versions did not write down the day; δ was made no later than it was verified.
            made = family.sets[certificate.quoted_epsilon].created
            return Verified(certificate, epoch, str(stored.get("verified", made)))
    members, others = people[people.subgroup], people[~people.subgroup]

    def ask(images: Images, owners: People, purpose: str) -> Answers:
        return shop.queries.ask(images, purpose=purpose, epoch=epoch, owners=owners.members.tolist())

    before = ask(members.images, members, "audit")
    reference = ask(others.images, others, "audit") if len(others) else Answers.failed(0, len(shop.info.classes))
    certificate = certify(
        lambda epsilon: count_right(
            *_counted(
                ask(family.sets[epsilon].apply(members.images, members.classes), members, "verification"), members
            )
        ),
        epsilons=shop.settings.epsilons,
        reference=count_right_at_most(*_counted(reference, others)),
        before=count_right_at_most(*_counted(before, members)),
        alpha=shop.settings.alpha,
        goal=shop.settings.goal,
    )
    day = datetime.now(UTC).isoformat(timespec="seconds")
    save_json(path, {"epoch": epoch, "verified": day, "certificate": certificate.to_dict()})
    return Verified(certificate, epoch, day)


def hand_out(shop: Workshop, family: Family, verified: Verified) -> PerturbationSet | None:
    """Write the members' file, which exists only while its set is certified, and return what it holds."""
    path, certificate = shop.folder / MEMBERS_FILE, verified.certificate
    if certificate.epsilon is None:
        # An earlier version handed such a set out; its δ stays in perturbations/.
        path.unlink(missing_ok=True)
        return None
    chosen = family.sets[certificate.epsilon]
    expires = datetime.fromisoformat(verified.day) + timedelta(days=shop.settings.valid_days)
    wanted = replace(
        chosen,
        subgroup=shop.settings.subgroup,
        service=shop.info.name,
        expires=expires.isoformat(timespec="seconds"),
        evidence={
            **chosen.evidence,
            "certificate": certificate.to_dict(),
            "verified": verified.day,
            **_abuse(shop.folder),
        },
    )
    known = PerturbationSet.load(path) if path.is_file() else None
    # Not written anew at every look, so that members who compare files see a change only where there is one.
    if known != wanted:
        wanted.save(path)
    return wanted


def keep_controls(shop: Workshop, verified: Verified, measuring: Measuring, *, abuse_rate: float | None) -> None:
    """Write down which controls were measured on verification people, and what they say of abuse."""
    facts = {"epoch": verified.epoch, "epsilon": verified.certificate.quoted_epsilon, "abuse_rate": abuse_rate}
    paid = _guests_measured(shop.folder) | {control.name for control in measuring.controls}
    save_json(shop.folder / _CONTROLS, {**facts, **({"guests": sorted(paid)} if paid else {})})


def is_verified(folder: Path) -> bool:
    """Whether a certificate lies in the folder."""
    return (folder / _CERTIFICATE).is_file()


def unmeasured(folder: Path, measuring: Measuring) -> list[Control]:
    """Return the controls that still cost something on verification people (``row.json`` may be about test people).

    A guest's control is known by its name: one that sends other images needs another name.
    """
    ours = (folder / _CONTROLS).is_file() or "abuse_rate" in _abuse(folder)
    paid = _guests_measured(folder)
    return [
        control
        for control in measuring.all_controls()
        if not (control.asked_before or control.name in paid or (ours and control in CONTROLS))
    ]


def _guests_measured(folder: Path) -> set[str]:
    path = folder / _CONTROLS
    return set(load_json(path).get("guests", [])) if path.is_file() else set()


def _abuse(folder: Path) -> dict[str, Any]:
    if (folder / _CONTROLS).is_file():
        return {"abuse_rate": load_json(folder / _CONTROLS).get("abuse_rate")}
    # Earlier versions wrote it into the members' file only.
    path = folder / MEMBERS_FILE
    evidence: Mapping[str, Any] = PerturbationSet.load(path).evidence if path.is_file() else {}
    return {name: value for name, value in evidence.items() if name == "abuse_rate"}


def _open(shop: Workshop, people: People, family: Family) -> str:
    """Return the epoch of the one reading of verification people, and refuse a second reading."""
    h = hashlib.sha256(people.digest().encode())
    h.update(shop.info.fingerprint.encode())
    for epsilon in sorted(family.sets):
        h.update(f"{epsilon} ".encode() + family.sets[epsilon].delta.tobytes())
    h.update(json.dumps([shop.settings.alpha, shop.settings.goal]).encode())
    epoch = f"verification-{h.hexdigest()[:32]}"
    path = shop.folder / _OPENED
    if not path.is_file():
        if {"audit", "verification"} & shop.queries.ledger.paid(action=shop.settings.name).keys():
            raise ActionError(
                f"Expected the file {path}, which records what verification people were used for, got no file "
                "although the ledger holds their answers. Restore it, or start a new action in a new folder with "
                "new verification people."
            )
        # Written before the first query, so that a kill in between cannot be used to look twice.
        save_json(path, {"epoch": epoch})
    elif load_json(path).get("epoch") != epoch:
        raise ActionError(
            "Expected verification people who were not used before, got some who were: this action already "
            "verified other perturbations, people or goals, or another platform, with them. A second look would "
            "make the certificate worthless. Start a new action in a new folder with new verification people."
        )
    return epoch


def _counted(answers: Answers, people: People) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    return people.classes, answers.labels, answers.resolved

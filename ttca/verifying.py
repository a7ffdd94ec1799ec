"""Verifying: verification people are read once, for one family of perturbations; what passes is handed out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ttca.answers import Answers
from ttca.certificates import Certificate, Certifying, Condition, Examined, certify, outcomes
from ttca.conditions import CONTROLS, Control, Measuring, queries_for
from ttca.errors import ActionError
from ttca.images import Images
from ttca.kept import load_json, save_json
from ttca.panel import Panel, draw_panel
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.signing import CollectiveKey, check_signature, signature_file
from ttca.values import OneLine
from ttca.workshop import Workshop

__all__ = [
    "MEMBERS_FILE",
    "Verified",
    "hand_out",
    "handed_out",
    "is_verified",
    "keep_controls",
    "still_to_pay",
    "unmeasured",
    "verify",
]

#: The file that members get; it exists only where its certificate passed.
MEMBERS_FILE = "perturbations.safetensors"
_CERTIFICATE, _CONTROLS, _OPENED = "certificate.json", "controls.json", "verification.json"


@dataclass(frozen=True, eq=False, repr=False)
class Verified(OneLine):
    """The certificate, the epoch of its questions, who was asked, and the day (ISO 8601, UTC)."""

    certificate: Certificate
    epoch: str
    panel: Panel
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
        If verification people were already read for other perturbations or another goal: reading them twice would
        make the certificate worthless. If a kept certificate does not follow from the ledger's answers.
    SignatureError
        If a kept certificate is not what the collective's key signed, or the key cannot be used.
    """
    key = CollectiveKey.open_or_make(shop.folder)
    settings = shop.settings
    terms, panel = settings.certifying, draw_panel(people, seed=settings.seed, every_image=settings.every_image)
    epoch = _open(shop, people, family)
    examined = panel.examined()

    def question(condition: Condition, start: int, stop: int) -> tuple[Images, People]:
        whose = (panel.reference if condition == "reference" else panel.subgroup)[start:stop]
        if isinstance(condition, str):
            return whose.images, whose
        return family.sets[condition].apply(whose.images, whose.classes), whose

    path = shop.folder / _CERTIFICATE
    if path.is_file():
        # Before it is read: nothing in a file that somebody changed is believed.
        signed = key.has_signed(path, "certificate")
        stored = load_json(path)
        if stored.get("epoch") == epoch:
            certificate = Certificate.from_dict(stored.get("certificate", {}))

            def recall(counts: Mapping[Condition, int]) -> str:
                parts = [question(condition, 0, count) for condition, count in counts.items()]
                held = shop.queries.in_hand(np.concatenate([images for images, _ in parts]), epoch=epoch)
                return _outcomes(held, People.concatenate([whose for _, whose in parts]))

            _check(certificate, terms, tuple(sorted(family.sets, reverse=True)), examined, recall)
            if not signed:
                # An earlier version wrote it, or a kill came between the two files. The ledger has just said the same,
                # of all but the day, so that signing it now claims no more than verifying again would.
                key.sign(path, "certificate")
            return Verified(certificate, epoch, panel, str(stored["verified"]))

    def ask(condition: Condition, start: int, stop: int) -> str:
        images, whose = question(condition, start, stop)
        purpose = "baseline" if isinstance(condition, str) else "verification"
        answers = shop.queries.ask(images, purpose=purpose, epoch=epoch, owners=whose.members.tolist())
        return _outcomes(answers, whose)

    certificate = certify(ask, terms, epsilons=shop.settings.epsilons, examined=examined)
    day = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"epoch": epoch, "verified": day, "certificate": certificate.to_dict()}
    key.write_signed(path, "certificate", lambda to: save_json(to, content))
    return Verified(certificate, epoch, panel, day)


def _check(
    certificate: Certificate,
    terms: Certifying,
    family: tuple[int, ...],
    examined: Examined,
    recall: Callable[[Mapping[Condition, int]], str],
) -> None:
    """Raise where a certificate does not follow from the ledger's answers, the settings and the roster."""
    certificate.check()
    same = (certificate.terms, certificate.family, certificate.examined) == (terms, family, examined)
    if same:
        said: dict[Condition, str] = {test.epsilon: test.answers for test in certificate.tests}
        if terms.aim.compares_with is not None:
            said[terms.aim.compares_with] = certificate.baseline
        now = recall({condition: len(answers) for condition, answers in said.items()})
        # What brought no answer then counts against the action, and still does when it was answered since.
        same = all(was in ("?", is_) for was, is_ in zip("".join(said.values()), now, strict=True))
    if not same:
        raise ActionError(
            "Expected a certificate that follows from the answers in the ledger, the settings and the people, got one "
            "that does not. Restore certificate.json, or delete it and verify again: what was answered costs nothing."
        )


def _outcomes(answers: Answers, people: People) -> str:
    return outcomes(people.classes, answers.labels, answers.resolved)


def hand_out(shop: Workshop, family: Family, verified: Verified) -> PerturbationSet | None:
    """Write and sign the members' file, which exists only while its set is certified, and return what it holds.

    Raises
    ------
    SignatureError
        If the file that lies there is not what the collective's key signed: members may have it already.
    """
    path, certificate = shop.folder / MEMBERS_FILE, verified.certificate
    if certificate.epsilon is None:
        # Its δ stays in perturbations/.
        path.unlink(missing_ok=True)
        signature_file(path).unlink(missing_ok=True)
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
    key = CollectiveKey.open_or_make(shop.folder)
    # Not written anew at every look, so that members who compare files see a change only where there is one.
    if not (path.is_file() and key.has_signed(path, "perturbations") and PerturbationSet.load(path) == wanted):
        key.write_signed(path, "perturbations", wanted.save)
    return wanted


def handed_out(folder: Path) -> PerturbationSet | None:
    """Return the set in the members' file, None where there is none; raise SignatureError where it was changed."""
    path = folder / MEMBERS_FILE
    if not path.is_file():
        return None
    check_signature(path, "perturbations")
    return PerturbationSet.load(path)


def keep_controls(shop: Workshop, verified: Verified, measuring: Measuring, *, abuse_rate: float | None) -> None:
    """Write down which controls were measured on verification people, and what they say of abuse."""
    facts = {"epoch": verified.epoch, "epsilon": verified.certificate.quoted_epsilon, "abuse_rate": abuse_rate}
    paid = _guests_measured(shop.folder) | {control.name for control in measuring.controls}
    save_json(shop.folder / _CONTROLS, {**facts, **({"guests": sorted(paid)} if paid else {})})


def is_verified(folder: Path) -> bool:
    """Whether a certificate lies in the folder."""
    return (folder / _CERTIFICATE).is_file()


def still_to_pay(shop: Workshop, panel: Panel, measuring: Measuring, choosers: int) -> dict[str, int]:
    """Return how many queries verification people still cost at most, by what they are booked as.

    ``choosers`` is how many selection people tell which zero-query control is the best.
    """
    settings, done = shop.settings, is_verified(shop.folder)
    examined, compares = panel.examined(), shop.settings.certifying.aim.compares_with
    as_they_are = {"reference": examined.other_answers, "before": examined.answers, None: 0}[compares]
    most = {
        "baseline": 0 if done else as_they_are,
        "verification": 0 if done else examined.answers * len(settings.epsilons),
    }
    if settings.controls:
        left = unmeasured(shop.folder, measuring, settings.certifying)
        most["controls"] = queries_for(left, panel.first(settings.controls_people))
        lengths = len(settings.control_lengths)
        if lengths > 1 and any(control.name == "zero_query" for control in left):
            most["controls"] += lengths * choosers
    return most


def unmeasured(folder: Path, measuring: Measuring, terms: Certifying) -> list[Control]:
    """Return the controls that still cost something on verification people (``row.json`` may be about test people).

    What the certificate asks costs nothing again, but for persons that it had no need to ask.

    A guest's control is known by its name: one that sends other images needs another name.
    """
    ours = (folder / _CONTROLS).is_file()
    paid, asked = _guests_measured(folder), {"delta", terms.aim.compares_with} - {None}
    return [
        control
        for control in measuring.all_controls()
        if not (control.asked_as in asked or control.name in paid or (ours and control in CONTROLS))
    ]


def _guests_measured(folder: Path) -> set[str]:
    path = folder / _CONTROLS
    return set(load_json(path).get("guests", [])) if path.is_file() else set()


def _abuse(folder: Path) -> dict[str, Any]:
    path = folder / _CONTROLS
    return {"abuse_rate": load_json(path).get("abuse_rate")} if path.is_file() else {}


def _open(shop: Workshop, people: People, family: Family) -> str:
    """Return the epoch of the one reading of verification people, and refuse a second reading."""
    info = shop.info
    epoch = _epoch(shop, people, family, info.fingerprint_as_read)
    path = shop.folder / _OPENED
    if not path.is_file():
        if {"audit", "baseline", "verification"} & shop.queries.ledger.paid(action=shop.settings.name).keys():
            raise ActionError(
                f"Expected the file {path}, which records what verification people were used for, got no file "
                "although the ledger holds their answers. Restore it, or start a new action in a new folder with "
                "new verification people."
            )
        # Written before the first query, so that a kill in between cannot be used to look twice.
        save_json(path, {"epoch": epoch})
        return epoch
    opened = load_json(path).get("epoch")
    # Version 0.1 wrote the second.
    if opened not in (epoch, _epoch(shop, people, family, info.former_fingerprint)):
        raise ActionError(
            "Expected verification people who were not used before, got some who were: this action already "
            "verified other perturbations, people or goals, or another platform, with them, or read their answers "
            "otherwise. A second look would make the certificate worthless. Start a new action in a new folder with "
            "new verification people."
        )
    return str(opened)


def _epoch(shop: Workshop, people: People, family: Family, platform: str) -> str:
    h = hashlib.sha256(people.digest().encode())
    h.update(platform.encode())
    for epsilon in sorted(family.sets):
        h.update(f"{epsilon} ".encode() + family.sets[epsilon].delta.tobytes())
    h.update(json.dumps(shop.settings.certifying.to_dict(), sort_keys=True).encode())
    return f"verification-{h.hexdigest()[:32]}"

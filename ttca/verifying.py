"""Verifying: verification people are read once, for one family of perturbations; what passes is handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import Certificate, Certifying, Condition, Examined, certify, outcomes
from ttca.conditions import CONTROLS, Control, Measuring, queries_for
from ttca.errors import ActionError
from ttca.heads import signed_after, signed_before
from ttca.images import Images
from ttca.kept import load_json, save_json
from ttca.members_set import TOLD
from ttca.panel import Panel
from ttca.people import People
from ttca.perturbations import MEMBERS_FILE, PerturbationSet
from ttca.perturbing import Family
from ttca.pooling.minutes import UNKNOWN
from ttca.settings import Settings
from ttca.signing import CollectiveKey, check_signature, signature_file
from ttca.sitting import heard_so_far, open_sitting, used_before
from ttca.values import OneLine, Value
from ttca.workshop import Workshop

__all__ = [
    "MEMBERS_FILE",
    "Verified",
    "check_kept",
    "hand_out",
    "handed_out",
    "is_certified",
    "is_measured",
    "is_verified",
    "keep_controls",
    "still_to_pay",
    "unmeasured",
    "verify",
]

_CERTIFICATE, _CONTROLS = "certificate.json", "controls.json"


@dataclass(frozen=True, eq=False, repr=False)
class Verified(OneLine):
    """The certificate, the epoch of its questions, who was asked, and the day (ISO 8601, UTC)."""

    certificate: Certificate
    epoch: str
    panel: Panel
    day: str


def verify(shop: Workshop, people: People, family: Family, pool: str) -> Verified:
    """Spend verification queries on the certificate, from the largest ε downward; or read it back.

    Parameters
    ----------
    shop : Workshop
    people : People
        Verification people of both groups.
    family : Family
    pool : str
        The digest of what the pool was answered, from which the family was learned.

    Raises
    ------
    ActionError
        If verification people were already read for other perturbations or another goal: reading them twice would
        make the certificate worthless. If a kept certificate does not follow from the ledger's answers.
    SignatureError
        If a kept certificate is not what the collective's key signed, or the key cannot be used.
    """
    key = CollectiveKey.open_or_make(shop.folder)
    terms = shop.settings.certifying
    sitting = open_sitting(shop, people, family, pool)
    epoch, panel, minutes = sitting.epoch, sitting.panel, sitting.minutes
    examined, before = panel.examined(), minutes.read()

    def question(condition: Condition, start: int, stop: int) -> _Question:
        whose, where = panel.sitting("reference" if condition == "reference" else "subgroup", start, stop)
        images = whose.images
        if not isinstance(condition, str):
            images = family.sets[condition].apply(images, whose.classes)
        # An empty seat says what it said while somebody sat there.
        return _Question(images, whose, where, before.get(str(condition), "")[start:stop].ljust(stop - start, UNKNOWN))

    path = shop.folder / _CERTIFICATE
    if path.is_file():
        # Before it is read: nothing in a file that somebody changed is believed.
        signed = key.has_signed(path, "certificate")
        stored = load_json(path)
        if stored.get("epoch") == epoch:
            certificate = Certificate.from_dict(stored.get("certificate", {}))

            def recall(seats: Mapping[Condition, int]) -> str:
                # One condition after the other: a copy of photographs for each does not fit.
                asked = (question(condition, 0, count) for condition, count in seats.items())
                return "".join(q.heard(shop.queries.in_hand(q.images, epoch=epoch)) for q in asked)

            said = _check(certificate, terms, tuple(sorted(family.sets, reverse=True)), examined, recall)
            for condition, answers in said.items():
                if str(condition) not in before:
                    # An earlier version kept no minutes.
                    minutes.write(str(condition), 0, answers)
            if not signed:
                # An earlier version wrote it, or a kill came between the two files. The ledger has just said the same,
                # of all but the day, so that signing it now claims no more than verifying again would.
                key.sign(path, "certificate")
            signed_after(shop, epoch)
            return Verified(certificate, epoch, panel, str(stored["verified"]))

    def ask(condition: Condition, start: int, stop: int) -> str:
        purpose = "baseline" if isinstance(condition, str) else "verification"
        asked = question(condition, start, stop)
        owners = asked.whose.members.tolist()
        heard = asked.heard(shop.queries.ask(asked.images, purpose=purpose, epoch=epoch, owners=owners))
        minutes.write(str(condition), start, heard)
        return heard

    signed_before(shop, sitting, family)
    most = sum(_most(shop.settings, examined).values())
    with shop.reporter.track("asking people who verify", most, unit="queries", at_most=True):
        certificate = certify(ask, terms, epsilons=shop.settings.epsilons, examined=examined)
    day = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"epoch": epoch, "verified": day, "certificate": certificate.to_dict()}
    key.write_signed(path, "certificate", lambda to: save_json(to, content))
    signed_after(shop, epoch)
    return Verified(certificate, epoch, panel, day)


@dataclass(frozen=True, eq=False, repr=False)
class _Question(Value):
    """What is sent of whom, the seats they sit in, and what is known of all these seats in advance."""

    images: Images
    whose: People
    where: NDArray[np.int64]
    known: str

    def heard(self, answers: Answers) -> str:
        """Return one character for each seat."""
        said = list(self.known)
        new = outcomes(self.whose.classes, answers.labels, answers.resolved)
        for place, character in zip(self.where.tolist(), new, strict=True):
            said[place] = character
        return "".join(said)


def _check(
    certificate: Certificate,
    terms: Certifying,
    family: tuple[int, ...],
    examined: Examined,
    recall: Callable[[Mapping[Condition, int]], str],
) -> dict[Condition, str]:
    """Return the answers of a certificate by condition; raise where it does not follow from ledger, settings, roster.

    ``recall`` says what the ledger holds of the first so many seats under each condition.
    """
    certificate.check()
    said: dict[Condition, str] = {test.epsilon: test.answers for test in certificate.tests}
    if terms.aim.compares_with is not None:
        said[terms.aim.compares_with] = certificate.baseline
    same = (certificate.terms, certificate.family, certificate.examined) == (terms, family, examined)
    if same:
        now = recall({condition: len(answers) for condition, answers in said.items()})
        # What brought no answer then counts against the action, and still does when it was answered since.
        same = all(was in (UNKNOWN, is_) for was, is_ in zip("".join(said.values()), now, strict=True))
    if not same:
        raise ActionError(
            "Expected a certificate that follows from the answers in the ledger, the settings and the people, got one "
            "that does not. Restore certificate.json, or delete it and verify again: what was answered costs nothing."
        )
    return said


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
            **_rates(shop.folder),
        },
    )
    key = CollectiveKey.open_or_make(shop.folder)
    before = PerturbationSet.load(path) if path.is_file() and key.has_signed(path, "perturbations") else None
    # Not written anew at every look, so that members who compare files see a change only where there is one.
    if before != wanted:
        key.write_signed(path, "perturbations", wanted.save)
        names = ("subgroup", "service", "expires")
        pairs = {name: (getattr(before, name, None), getattr(wanted, name)) for name in names}
        changed = [f"{name} {now} (before: {was})" for name, (was, now) in pairs.items() if was != now]
        if before is not None and changed:
            shop.reporter.say(
                f"{path} says something else now: {'; '.join(changed)}. Members who have the earlier file do not know."
            )
    return wanted


def handed_out(folder: Path) -> PerturbationSet | None:
    """Return the set in the members' file, None where there is none; raise SignatureError where it was changed."""
    path = folder / MEMBERS_FILE
    if not path.is_file():
        return None
    check_signature(path, "perturbations")
    return PerturbationSet.load(path)


def keep_controls(shop: Workshop, verified: Verified, measuring: Measuring, row: Mapping[str, Any]) -> None:
    """Write down which controls were measured on verification people, and what members are told of the row."""
    told = {name: row[name] for name in TOLD if name in row}
    facts = {"epoch": verified.epoch, "epsilon": verified.certificate.quoted_epsilon, **told}
    paid = _guests_measured(shop.folder) | {control.name for control in measuring.controls}
    save_json(shop.folder / _CONTROLS, {**facts, **({"guests": sorted(paid)} if paid else {})})


def is_verified(folder: Path) -> bool:
    """Whether a certificate lies in the folder."""
    return (folder / _CERTIFICATE).is_file()


def is_measured(folder: Path) -> bool:
    """Whether a certificate lies in the folder, and the row of verification people."""
    return is_verified(folder) and (folder / _CONTROLS).is_file()


def check_kept(folder: Path, settings: Settings, panel: Panel) -> None:
    """Raise what :func:`verify` and :func:`hand_out` would, as far as that can be known before anything is learned.

    Raises
    ------
    ActionError
        If the certificate in the folder was made for another goal, family or panel.
    SignatureError
        If a file is not what the collective's key signed, or the key cannot be used.
    """
    certificate, members = folder / _CERTIFICATE, folder / MEMBERS_FILE
    if not certificate.is_file():
        return
    key = CollectiveKey.open_or_make(folder)
    key.has_signed(certificate, "certificate")
    known = Certificate.from_dict(load_json(certificate).get("certificate", {}))
    family = tuple(sorted(settings.epsilons, reverse=True))
    if (known.terms, known.family, known.examined) != (settings.certifying, family, panel.examined()):
        raise used_before(folder, settings)
    if known.epsilon is not None and members.is_file():
        key.has_signed(members, "perturbations")


def is_certified(folder: Path) -> bool | None:
    """Whether the certificate in the folder passed; None where none lies there."""
    if not is_verified(folder):
        return None
    return bool(load_json(folder / _CERTIFICATE).get("certificate", {}).get("epsilon") is not None)


def still_to_pay(shop: Workshop, panel: Panel, measuring: Measuring, choosers: int) -> dict[str, int]:
    """Return how many queries verification people still cost at most, by what they are booked as.

    ``choosers`` is how many selection people tell which zero-query control is the best.
    """
    settings, most = shop.settings, _most(shop.settings, panel.examined())
    if is_verified(shop.folder):
        most = dict.fromkeys(most, 0)
    else:
        for condition, answers in heard_so_far(shop.folder, shop.queries.ledger).items():
            step = "baseline" if condition in ("reference", "before") else "verification"
            most[step] = max(0, most[step] - answers)
    if settings.controls:
        left = unmeasured(shop.folder, measuring, settings.certifying)
        most["controls"] = queries_for(left, panel.first(settings.controls_people))
        lengths = len(settings.control_lengths)
        if lengths > 1 and any(control.name == "zero_query" for control in left):
            most["controls"] += lengths * choosers
    return most


def _most(settings: Settings, examined: Examined) -> dict[str, int]:
    """Return how many queries a certificate needs at most, by what they are booked as."""
    as_they_are = {"reference": examined.other_answers, "before": examined.answers, None: 0}
    return {
        "baseline": as_they_are[settings.certifying.aim.compares_with],
        "verification": examined.answers * len(settings.epsilons),
    }


def unmeasured(folder: Path, measuring: Measuring, terms: Certifying) -> list[Control]:
    """Return the controls that still cost something on verification people.

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


def _rates(folder: Path) -> dict[str, Any]:
    path = folder / _CONTROLS
    # Earlier versions kept the rate of abuse alone.
    kept = load_json(path) if path.is_file() else {}
    return {name: kept[name] for name in TOLD if name in kept}

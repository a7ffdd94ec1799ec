"""A set as a member has it, the file with its signature beside it: what it says, and whether it may be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ttca.copying import shell_word
from ttca.errors import PerturbationError, TTCAError
from ttca.expiry import check_not_expired
from ttca.perturbations import MEMBERS_FILE, PerturbationSet
from ttca.platforms.base import PlatformInfo
from ttca.race_record import proposed_nothing
from ttca.signing import SignatureError, Signed, check_key, check_signature, signature_file
from ttca.values import Value

__all__ = ["TOLD", "Doubt", "DoubtKind", "MembersSet", "check_usable", "doubts", "read_set"]

#: What a set's ``evidence`` holds of its row for members, by the row's keys; and of a service that is sent JPEG files,
#: their quality, and what they leave of δ.
TOLD = (
    *("abuse_rate", "subgroup_before", "subgroup_after", "jpeg75_control", "resize_control"),
    *("jpeg_quality", "jpeg_delta_left"),
)

#: Why a set should not be used as it is.
DoubtKind = Literal["unsigned", "another key", "not certified", "expired", "another platform"]


@dataclass(frozen=True)
class Doubt:
    """One reason not to use a set: its kind, and the error whose sentence says what to do."""

    kind: DoubtKind
    error: TTCAError

    def __str__(self) -> str:
        return str(self.error)

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values."""
        return {"kind": self.kind, "sentence": str(self)}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MembersSet(Value):
    """A perturbation file, who signed it, and what it holds.

    Parameters
    ----------
    path : Path
    perturbations : PerturbationSet
    signed : Signed
        Whose right signature lies beside it, and which key the member knows.
    sha256 : str
        64 hex digits, of the file.
    """

    path: Path
    perturbations: PerturbationSet
    signed: Signed
    sha256: str

    def lines(self) -> tuple[str, str, str]:
        """Return three lines for people: for whom and what was proved; what JPEG does to it; whom it helps to lie."""
        return self.perturbations.about(), _lossy(self.perturbations), _abuse(self.perturbations)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it but δ, as plain JSON values."""
        known = self.perturbations
        found, way = known.certificate, known.preparation
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "signature_file": str(signature_file(self.path)) if self.signed.key is not None else None,
            "signed_by": self.signed.key,
            "signature": self.signed.told,
            "about": known.about(),
            "jpeg": _lossy(known),
            "abuse": _abuse(known),
            "service": known.service or None,
            "fingerprint": known.fingerprint,
            "subgroup": known.subgroup,
            "classes": list(known.classes),
            "epsilon": known.epsilon,
            "image_shape": list(known.image_shape),
            "preparation": None if way is None else way.to_dict(),
            "created": known.created,
            "verified": known.evidence.get("verified"),
            "expires": known.expires,
            **{name: _number(known, name) for name in TOLD},
            "certificate": None if found is None else found.to_dict(),
        }


def read_set(path: Path | str, *, key: str | None = None) -> MembersSet:
    """Return a set from its file, with the signature beside it checked first.

    Parameters
    ----------
    path : Path
    key : str, optional
        The collective's public key, as the member knows it.

    Raises
    ------
    SignatureError
        If the file is not what was signed, or ``key`` is no public key.
    PerturbationError
        If there is no such file, or it cannot be read. In an action's folder it is said whether any is certified.
    """
    path = Path(path)
    _check_certified_there(path)
    # The signature first: nothing in a file that somebody changed is believed.
    signed = check_signature(path, "perturbations", expected=key, anyway=True)
    known = PerturbationSet.load(path)
    # What cannot be read is refused here, whoever insists.
    _ = known.certificate
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PerturbationError(f"Expected to read {path}, got: {error}. Check its permissions.") from None
    return MembersSet(path=path, perturbations=known, signed=signed, sha256=digest)


def _check_certified_there(path: Path) -> None:
    """Raise where an action's folder, or what should lie in it, is named and no set is certified there.

    An action's folder has an action file, or a ledger where that is called otherwise.
    """
    home = path if path.is_dir() else path.parent
    if path.is_file() or not any((home / name).is_file() for name in ("action.toml", "ledger.sqlite")):
        return
    said = f"Expected a perturbation file, got {f'the folder {path}' if path.is_dir() else f'none at {path}'}."
    if (home / MEMBERS_FILE).is_file():
        raise PerturbationError(f"{said} The certified set of this action is {home / MEMBERS_FILE}.")
    if (home / "certificate.json").is_file():
        raise PerturbationError(f"{said} This action ended without a certified set, so there is none for members.")
    if proposed_nothing(home):
        raise PerturbationError(
            f"{said} In this action no recipe was shown to beat doing nothing, so there is none for members. What "
            f"each recipe got: ttca report {shell_word(home)}"
        )
    raise PerturbationError(
        f"{said} No set of this action is certified yet, so there is none for members. To certify one: "
        f"ttca run {shell_word(home)}"
    )


def doubts(
    known: MembersSet, *, platform: PlatformInfo | None = None, now: datetime | None = None
) -> tuple[Doubt, ...]:
    """Return every reason not to use a set; this alone decides whether one may be used.

    Parameters
    ----------
    known : MembersSet
    platform : PlatformInfo, optional
        Where the member will send pictures.
    now : datetime, optional
        With a time zone; the present by default.
    """
    found: list[Doubt] = []

    def look(kind: DoubtKind, check: Callable[[], object]) -> None:
        try:
            check()
        except (PerturbationError, SignatureError) as error:
            found.append(Doubt(kind, error))

    signed, made = known.signed, known.perturbations
    if signed.expected is not None:
        expected = check_key(signed.expected)
        kind: DoubtKind = "unsigned" if signed.key is None else "another key"
        look(kind, lambda: check_signature(known.path, "perturbations", expected=expected))
    look("not certified", made.check_certified)
    look("expired", lambda: made.check_fits(now=now or datetime.now(UTC)))
    look("expired", lambda: check_not_expired(known.path, made, signed.key))
    if platform is not None:
        look("another platform", lambda: _check_platform(made, platform))
    return tuple(found)


def check_usable(
    known: MembersSet, *, platform: PlatformInfo | None = None, epsilon: int | None = None, anyway: bool = False
) -> tuple[Doubt, ...]:
    """Raise for the first reason not to use a set, or with ``anyway`` return them all, to be told.

    Raises
    ------
    SignatureError, PerturbationError
        Also, whoever insists, where ``epsilon`` is another than the set's.
    """
    if epsilon is not None:
        known.perturbations.check_fits(epsilon=epsilon, expired=True)
    found = doubts(known, platform=platform)
    if found and not anyway:
        error = found[0].error
        others = ", ".join(doubt.kind for doubt in found[1:])
        error.args = (f"{error.args[0]}{f' It is also: {others}.' if others else ''}", *error.args[1:])
        raise error
    return found


def _check_platform(made: PerturbationSet, platform: PlatformInfo) -> None:
    if platform.is_of(made.fingerprint):
        return
    service = made.service or f"a service that the file does not name (fingerprint {made.fingerprint[:12]}…)"
    same = " at the same address, but another model, version, size or way of asking" * (made.service == platform.name)
    raise PerturbationError(
        f"Expected a perturbation set for the platform {platform.name}, got one that was made for {service}{same}. A δ "
        "learned for one platform proves nothing about another. Ask the collective for a set for yours."
    )


def _number(made: PerturbationSet, name: str, most: float = 1000.0) -> float | None:
    """Return a number of the evidence; None where there is none that can be one."""
    found = made.evidence.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return found if 0 <= found <= most else None


def _share(rate: float) -> str:
    return f"{100 * rate:.0f} of 100"


def _lossy(made: PerturbationSet) -> str:
    quality, left = _number(made, "jpeg_quality"), _number(made, "jpeg_delta_left")
    sent = ""
    if quality is not None and left is not None:
        leave = f"leave {100 * left:.0f} % of the change"
        sent = f"The service was asked with JPEG files of quality {quality:.0f}, which {leave}. "
    start = f"{sent}Submit the PNG as it is. Many apps and sites make a JPEG of a picture, or shrink it"
    before, whole, jpeg, small = (
        _number(made, name, 1.0) for name in ("subgroup_before", "subgroup_after", "jpeg75_control", "resize_control")
    )
    if whole is None or jpeg is None:
        return f"{start}: nobody measured what that leaves of the help."
    rates = [f"{100 * whole:.0f} were right with the PNG", f"{100 * jpeg:.0f} after JPEG of quality 75"]
    rates += [] if small is None else [f"{100 * small:.0f} after shrinking to half and back"]
    rates += [] if before is None else [f"{100 * before:.0f} without the change"]
    return f"{start}. Of 100 answers, {', '.join(rates[:-1])} and {rates[-1]}."


def _abuse(made: PerturbationSet) -> str:
    rate = _number(made, "abuse_rate", 1.0)
    start = "Choose the class that your picture truly shows."
    if rate is None:
        return f"{start} Nobody measured how often a wrong choice makes the service say the wrong thing."
    return f"{start} When people took a wrong one, the service said that wrong class to {_share(rate)}."

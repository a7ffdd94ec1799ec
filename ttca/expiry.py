"""Expiry: the collective's signed word that a set no longer holds, beside the members' file that it is about."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ttca.errors import ActionError, PerturbationError
from ttca.kept import load_json, save_json
from ttca.perturbations import PerturbationSet
from ttca.signing import CollectiveKey, signature_file, signer

__all__ = [
    "EXPIRED_FILE",
    "RECORD_FILE",
    "Expiry",
    "check_not_expired",
    "expire",
    "expiry_beside",
    "expiry_of",
]

#: Where the statement lies: beside the members' file.
EXPIRED_FILE = "expired.json"
#: What every look found, in the action's folder; it knows of the statement too, so that its loss undoes nothing there.
RECORD_FILE = "recheck.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """That a set no longer holds.

    Parameters
    ----------
    set : str
        Which one: a SHA-256 of ε, δ and the day it was verified, 64 hex digits.
    since : str
        The day it was found out, ISO 8601, UTC.
    why : str
        A sentence for people.
    """

    set: str
    since: str
    why: str

    @classmethod
    def of(cls, perturbations: PerturbationSet, *, since: str, why: str) -> Expiry:
        """Return that this set no longer holds; nothing is written, and the parameters are the fields'."""
        return cls(set=_name_of(perturbations), since=since, why=why)

    @property
    def told(self) -> str:
        """The whole of it, for people."""
        return f"Expired since {self.since[:10]}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def expire(folder: Path, said: Expiry) -> None:
    """Write and sign the statement in an action's folder.

    Nothing takes it back: copies of the set that were handed out cannot be called back either.

    Raises
    ------
    SignatureError
        If the collective's key cannot be used.
    """
    content = {"format": _FORMAT, **said.to_dict()}
    key = CollectiveKey.open_or_make(folder)
    key.write_signed(folder / EXPIRED_FILE, "expiry", lambda to: save_json(to, content))


def expiry_of(folder: Path, perturbations: PerturbationSet, key: str | None) -> Expiry | None:
    """Return the statement in a folder that is about this set, None where there is none.

    Parameters
    ----------
    folder : Path
        Where the members' file lies.
    perturbations : PerturbationSet
    key : str or None
        The public key that signed the set. Another collective's statement says nothing about it.

    Raises
    ------
    SignatureError
        If the statement is not what was signed.
    PerturbationError
        If it is about this set and not signed, or cannot be read.
    """
    path = folder / EXPIRED_FILE
    if not path.is_file():
        return _on_record(folder, perturbations)
    signed_by = signer(path, "expiry")
    try:
        said = _read(load_json(path))
    except (ActionError, KeyError, TypeError) as error:
        raise PerturbationError(
            f"Expected the statement {path} about a set that has expired, got a file that cannot be read ({error}). "
            "Get it again from the collective, with its signature. The collective itself deletes it: the next ttca "
            "recheck writes it again."
        ) from None
    if said.set != _name_of(perturbations):
        return None
    if signed_by is None:
        raise PerturbationError(
            f"Expected {path}, which says that this set has expired, together with {signature_file(path).name}, got "
            "no signature. Ask the collective whether it is so."
        )
    return said if signed_by == key or key is None else None


def expiry_beside(path: Path) -> Expiry | None:
    """Return the statement beside a members' file that is about it, None where there is no file or no statement.

    Raises as :func:`expiry_of` does.
    """
    if not (path.is_file() and any((path.parent / name).is_file() for name in (EXPIRED_FILE, RECORD_FILE))):
        return None
    return expiry_of(path.parent, PerturbationSet.load(path), signer(path, "perturbations"))


def check_not_expired(path: Path, perturbations: PerturbationSet, key: str | None) -> None:
    """Raise PerturbationError where a members' file lies beside the collective's word that it no longer holds."""
    said = expiry_of(path.parent, perturbations, key)
    if said is not None:
        raise PerturbationError(
            f"Expected a perturbation set that still holds, got one that the collective has declared expired. "
            f"{said.told} Ask the collective for a new set."
        )


def _on_record(folder: Path, perturbations: PerturbationSet) -> Expiry | None:
    """Return what the record of all looks says of a set; whoever sets it up themselves keeps out themselves alone."""
    path = folder / RECORD_FILE
    try:
        found = load_json(path).get("expired") if path.is_file() else None
        said = None if found is None else _read(found)
    except (ActionError, KeyError, TypeError) as error:
        raise PerturbationError(
            f"Expected in {path} what every look at the platform found, got a file that cannot be read ({error}). "
            "Restore it from a copy."
        ) from None
    return said if said is not None and said.set == _name_of(perturbations) else None


def _read(content: Any) -> Expiry:
    return Expiry(**{name: str(content[name]) for name in ("set", "since", "why")})


def _name_of(perturbations: PerturbationSet) -> str:
    """Return what tells a set from all others, whatever else its file says beside it."""
    day = str(perturbations.evidence.get("verified", ""))
    said = f"ttca set\n{perturbations.epsilon}\n{day}\n{perturbations.delta.shape}\n".encode()
    return hashlib.sha256(said + perturbations.delta.tobytes()).hexdigest()

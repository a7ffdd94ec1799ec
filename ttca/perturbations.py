"""The perturbation set: one δ per class in whole pixel levels; save, load, check, apply. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ttca.certificates import Certificate
from ttca.errors import ActionError, ConfigError, ImageError, PerturbationError
from ttca.images import Images, ImageShape, check_images
from ttca.names import canonical, resolve, unknown_name
from ttca.preparation import Preparation, Region
from ttca.values import Value

__all__ = ["MEMBERS_FILE", "PerturbationSet", "Way", "left_alone"]

#: The file that members get; it exists only where its certificate passed.
MEMBERS_FILE = "perturbations.safetensors"

FORMAT = "ttca-perturbations-1"

#: How two δ become one (:meth:`PerturbationSet.combine`).
Way = Literal["larger", "sum", "scaled"]

#: So many classes are named in a sentence, at most.
_LISTED = 8
# Values moved at a time.
_PART = 2**18


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationSet(Value):
    """One universal perturbation per class, with everything a member must know before using it.

    Parameters
    ----------
    delta : int8 array, shape (C, H, W, 3)
        Whole pixel levels, ‖δ‖∞ ≤ ε.
    epsilon : int
        The budget, in levels of 255, 1..127.
    classes : tuple of str
        Class names; δ[c] helps an input whose true class is ``classes[c]``.
    subgroup : str
        Whom it was made for.
    fingerprint : str
        The platform it was made against.
    service : str
        The same platform by a name for people; empty in files of older versions.
    created : str
        ISO 8601, UTC.
    expires : str or None
        ISO 8601, UTC unless it says otherwise; a platform may change, and the certificate with it.
    evidence : dict
        JSON-able: proxy fidelity, certificate, abuse rate. Empty until they are measured.
    preparation : Preparation or None
        How a photograph becomes an image that it fits; None where it comes at that size.

    Raises
    ------
    PerturbationError
        If δ does not keep its own ε, the shapes disagree, or a name or date cannot be read. What a file claims is
        never trusted.
    """

    delta: NDArray[np.int8]
    epsilon: int
    classes: tuple[str, ...]
    subgroup: str
    fingerprint: str
    service: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    expires: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        if self.delta.dtype != np.int8 or self.delta.ndim != 4 or self.delta.shape[-1] != 3:
            raise PerturbationError(
                f"Expected δ as int8 of shape (classes, height, width, 3), got {self.delta.dtype} {self.delta.shape}. "
                "Get the file again from the collective."
            )
        if isinstance(self.epsilon, bool) or not isinstance(self.epsilon, int) or not 1 <= self.epsilon <= 127:
            raise PerturbationError(f"Expected ε as a whole number of levels in 1..127, got {self.epsilon!r}.")
        if not all(isinstance(name, str) for name in self.classes):
            raise PerturbationError(f"Expected class names as strings, got {self.classes}.")
        if len(self.classes) != len(self.delta) or len(set(self.classes)) != len(self.classes):
            raise PerturbationError(
                f"Expected one δ per class name, each name once, got {len(self.delta)} δ and the names {self.classes}."
            )
        if self.preparation is not None and self.preparation.image_shape != self.image_shape:
            raise PerturbationError(
                f"Expected a preparation to the size of δ, {self.image_shape}, got {self.preparation}. Get the file "
                "again from the collective."
            )
        if self.expires is not None:
            _moment(self.expires)
        # int8 has no +128, so its own absolute value would overflow at −128.
        largest = int(np.abs(self.delta.astype(np.int16)).max(initial=0))
        if largest > self.epsilon:
            raise PerturbationError(
                f"Expected every |δ| ≤ ε = {self.epsilon} levels, got {largest}. The file breaks the limit it states. "
                "Do not use it; ask the collective for a new one."
            )

    def _facts(self) -> str:
        h, w, _ = self.image_shape
        # Not self.certificate: what cannot be read must not keep anybody from seeing what this is.
        proved = "with a certificate" if self.evidence.get("certificate") else "no certificate"
        return f"{len(self.classes)} classes, ε {self.epsilon}, {self.subgroup[:60]!r}, {h}×{w} pixels, {proved}"

    @property
    def image_shape(self) -> ImageShape:
        """(H, W, 3) of the images it fits."""
        h, w, c = self.delta.shape[1:]
        return (h, w, c)

    @property
    def certificate(self) -> Certificate | None:
        """What was proved about it on the platform, None where nobody verified it.

        Raises
        ------
        PerturbationError
            If the file's certificate cannot be read or contradicts itself.
        """
        found = self.evidence.get("certificate")
        if found is None:
            return None
        try:
            return Certificate.from_dict(found)
        except ActionError as error:
            raise PerturbationError(
                f"Expected a readable certificate in the perturbation file, got: {error} Ask the collective for a new "
                "file."
            ) from None

    def check_certified(self) -> None:
        """Raise PerturbationError if no certificate shows that this ε reached its goal."""
        found = self.certificate
        if found is None:
            raise PerturbationError(
                "Expected a perturbation set that was certified on the platform, got one without a certificate. "
                "Nobody has shown that it helps, and it may turn right answers into wrong ones. Ask the collective "
                "for perturbations.safetensors, the file that it hands out once a set is certified."
            )
        if found.epsilon is None:
            raise PerturbationError(
                "Expected a perturbation set that was certified on the platform, got one whose certificate failed. "
                f"{found.summary()} The set may turn right answers into wrong ones. Ask the collective for a certified "
                "set."
            )
        if not found.passed_at(self.epsilon):
            raise PerturbationError(
                f"Expected a perturbation set that was certified at its own ε = {self.epsilon}, got a certificate for "
                f"ε = {found.epsilon}. Ask the collective for a file with its own certificate."
            )

    def about(self, now: datetime | None = None) -> str:
        """Return a few words for people: for whom it is, for which service, what was certified and until when.

        ``now`` has a time zone, and is the present by default.
        """
        service = self.service or f"a service that the file does not name (fingerprint {self.fingerprint[:12]}…)"
        found = self.certificate
        proved = "Not certified: nobody has shown that it helps"
        if found is not None and found.passed_at(self.epsilon):
            test = next(t for t in found.tests if t.epsilon == self.epsilon)
            day = str(self.evidence.get("verified", ""))[:10]
            counts = f"{test.right} of the {test.asked} people asked got a right answer"
            proved = f"Certified{f' on {day}' if day else ''}: {found.terms.aim.shown} ({counts})"
        elif found is not None:
            proved = f"Not certified at ε = {self.epsilon}: its certificate failed"
        until = "No expiry date"
        if self.expires is not None:
            until = f"{'Expired on' if self.has_expired(now) else 'Valid until'} {self.expires[:10]}"
        return " ".join(filter(None, (f"Made for {self.subgroup}, on {service}. {proved}. {until}.", left_alone(self))))

    def has_expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over; ``now`` has a time zone, and is the present by default."""
        return self.expires is not None and (now or datetime.now(UTC)) > _moment(self.expires)

    def class_index(self, name: str) -> int:
        """Return the number of a class by its name, in whatever spelling (:func:`ttca.names.canonical`)."""
        alike = [known for known in self.classes if canonical(known) == canonical(name)]
        meant = name if name in self.classes else resolve(name, self.classes)
        if meant is None or (name not in self.classes and len(alike) > 1):
            raise PerturbationError(
                unknown_name("the class", name, self.classes, listed="ttca inspect shows all of them.")
            )
        return self.classes.index(meant)

    def prepared(self, image: Images, box: Region | None = None) -> Images:
        """Return one image at the size of δ, by the set's own preparation.

        Parameters
        ----------
        image : uint8 array, shape (h, w, 3)
            Upright, sRGB; of any size where the set has a preparation, else of the size of δ.
        box : (x, y, width, height), optional
            The part that counts, in pixels; needs a preparation.

        Raises
        ------
        ImageError
            If the image has another size and nothing says how it is prepared, or the box does not fit.
        """
        (checked,) = check_images(image[None] if isinstance(image, np.ndarray) else image)
        if self.preparation is not None:
            return self.preparation.of(checked, box)
        if box is not None:
            raise ImageError(
                "Expected no box, got one: the perturbation file does not say how photographs are prepared. Cut it out "
                f"yourself, to {self.image_shape[0]}×{self.image_shape[1]} pixels (height×width)."
            )
        fitting: Images = check_images(checked[None], shape=self.image_shape)[0]
        return fitting

    def apply(
        self, images: Images | Sequence[Images], classes: NDArray[np.int64] | Sequence[int | str] | int | str
    ) -> Images:
        """Return clip(x + δ_c) as uint8: exactly what is to be submitted.

        Parameters
        ----------
        images : uint8 array, shape (N, h, w, 3) or (h, w, 3), or a sequence of N arrays (h, w, 3)
            Upright and sRGB. Where the set has a preparation they may be of any size, and go its way first.
        classes : int or str, or one for each of the N images
            The true class of each image by number or name, chosen by the person it belongs to.

        Returns
        -------
        uint8 array, shape (N, H, W, 3), or (H, W, 3) for one image

        Raises
        ------
        ImageError, PerturbationError
            If the images do not fit, or a class is none of the set's.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3 and self._takes(images.shape):
            if not isinstance(classes, str) and np.ndim(classes):
                raise PerturbationError(
                    f"Expected one class for one image, got {np.size(classes)} of them. Give its number or its name."
                )
            alone: Images = self.apply(images[None], classes)[0]
            return alone
        checked = self._fitting(images)
        chosen = _numbers(self, classes, len(checked))
        submitted = np.empty_like(checked)
        for number in np.unique(chosen):
            # Arrays can be written to after they were checked, so ε is enforced again on what is submitted.
            delta = np.clip(self.delta[number], -self.epsilon, self.epsilon)
            up, down = np.maximum(delta, 0).view(np.uint8), np.maximum(-delta, 0).view(np.uint8)
            most = 255 - up
            rows = np.flatnonzero(chosen == number)
            # What fits into the cache, in bytes all along: sums in wider numbers take several times as long.
            together = max(1, _PART // delta.size)
            for start in range(0, len(rows), together):
                # Where all are of one class, a slice saves a copy.
                part = slice(start, start + together) if len(rows) == len(checked) else rows[start : start + together]
                moved = np.minimum(checked[part], most)
                moved += up
                np.maximum(moved, down, out=moved)
                moved -= down
                submitted[part] = moved
        return submitted

    def _takes(self, shape: tuple[int, ...]) -> bool:
        """Whether three axes are one image for this set; without a preparation, only its own size is."""
        return shape[-1] == 3 and (self.preparation is not None or shape == self.image_shape)

    def _fitting(self, images: Images | Sequence[Images]) -> Images:
        if self.preparation is None:
            return check_images(images, shape=self.image_shape)
        if isinstance(images, np.ndarray) and images.shape[1:] == self.image_shape:
            return check_images(images)
        each = images if isinstance(images, list | tuple) else check_images(images)
        out = np.empty((len(each), *self.image_shape), dtype=np.uint8)
        for i, image in enumerate(each):
            out[i] = self.prepared(image)
        return out

    def check_fits(
        self,
        *,
        epsilon: int | None = None,
        fingerprint: str | None = None,
        expired: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Raise PerturbationError if the set is of another ε or platform than expected, or has expired.

        ``expired`` lets a set pass whose time is over; ``now`` has a time zone, and is the present by default.
        """
        if epsilon is not None and epsilon != self.epsilon:
            raise PerturbationError(
                f"Expected a perturbation set with ε = {epsilon}, got one with ε = {self.epsilon}. Ask the collective "
                "for the file with that ε, or give the ε of this file."
            )
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise PerturbationError(
                f"Expected a perturbation set for the platform {fingerprint[:12]}…, got one for "
                f"{self.fingerprint[:12]}…. A δ learned for one platform proves nothing about another."
            )
        if not expired and self.has_expired(now):
            raise PerturbationError(
                f"Expected a perturbation set that is still valid, got one that expired on {self.expires}. The "
                "platform may have changed since. Ask the collective for a new set."
            )

    def combine(self, other: PerturbationSet, *, epsilon: int | None = None, how: Way = "larger") -> PerturbationSet:
        """Return one set for people who belong to both sets' subgroups, within one joint ε.

        Parameters
        ----------
        other : PerturbationSet
            Against the same platform, with the same classes in the same order and images of the same size.
        epsilon : int, optional
            The joint budget, in levels of 255, 1..127; by default the larger of both.
        how : {"larger", "sum", "scaled"}
            What is done with the two levels of each value. ``larger``: the one further from 0, then cut off at ±ε;
            equal and opposite levels cancel. ``sum``: added, then cut off at ±ε. ``scaled``: added, and where a class
            exceeds ε anywhere, all of it is scaled down to ε and rounded.

        Returns
        -------
        PerturbationSet
            Valid until the earlier of both dates. It depends on the order of the two in nothing. Its evidence is not
            theirs: a certificate for each says nothing about both together, so that the two are only named, under
            ``parts``. Verify it anew before it is used.

        Raises
        ------
        PerturbationError
            If platform, classes or image size differ, ε is out of range, or the way has another name.

        Notes
        -----
        *Ours*. ``benchmarks two_sets`` measures all three ways against each set alone and against learning for both
        subgroups together, which none of them replaces (``docs/training_time.md``).
        """
        return _combined(self, other, epsilon, how)

    def save(self, path: Path | str) -> None:
        """Write safetensors with JSON metadata; a half-written file is never seen under the name.

        Raises
        ------
        PerturbationError
            If the evidence cannot be said in JSON, or the file cannot be written.
        """
        path = Path(path)
        facts = {
            "epsilon": self.epsilon,
            "classes": list(self.classes),
            "subgroup": self.subgroup,
            "image_shape": list(self.image_shape),
            "fingerprint": self.fingerprint,
            "service": self.service,
            "created": self.created,
            "expires": self.expires,
            "evidence": self.evidence,
            # Always empty: a signature lies beside the file (ttca.signing). Older versions insist on the name.
            "signature": None,
        }
        if self.preparation is not None:
            facts["preparation"] = self.preparation.to_dict()
        try:
            said = json.dumps(facts, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise PerturbationError(
                f"Expected evidence of plain JSON values, got something else ({error}). Use int, float, str, list and "
                "dict."
            ) from None
        content = save({"delta": np.ascontiguousarray(self.delta)}, metadata={"format": FORMAT, "facts": said})
        partial = path.with_name(path.name + ".partial")
        try:
            # Not safetensors' own save_file: it makes files that only their owner can read, and this one is shared.
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            raise PerturbationError(f"Expected to write {path}, got: {error}. Check the folder.") from None

    @classmethod
    def load(cls, path: Path | str) -> PerturbationSet:
        """Read and check a file; raises PerturbationError with a sentence for whatever is wrong with it."""
        path = Path(path)
        if not path.is_file():
            raise PerturbationError(f"Expected a perturbation file at {path}, got no file. Check the path.")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT or "delta" not in file.keys():  # noqa: SIM118 - no dict
                    raise PerturbationError(
                        f"Expected a file in the format {FORMAT}, got {metadata.get('format')!r} in {path}. ttca did "
                        "not write it, or another version of ttca did. Ask the collective for a new file."
                    )
                delta = file.get_tensor("delta")
            facts = json.loads(metadata["facts"])
            if facts["image_shape"] != list(delta.shape[1:]):
                raise PerturbationError(
                    f"Expected δ of the stated shape {facts['image_shape']}, got {list(delta.shape[1:])} in {path}."
                )
            if not isinstance(facts["classes"], list):
                raise PerturbationError(f"Expected a list of class names in {path}, got {facts['classes']!r}.")
            return cls(
                delta=delta,
                epsilon=facts["epsilon"],
                classes=tuple(facts["classes"]),
                subgroup=str(facts["subgroup"]),
                fingerprint=str(facts["fingerprint"]),
                # Not in files of older versions.
                service=str(facts.get("service", "")),
                created=str(facts["created"]),
                expires=facts["expires"],
                evidence=dict(facts["evidence"]),
                preparation=None if facts.get("preparation") is None else Preparation.from_dict(facts["preparation"]),
            )
        except ConfigError as error:
            raise PerturbationError(f"{path}: {error} Get the file again, or a newer ttca.") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PerturbationError(
                f"Expected a complete perturbation file at {path}, got one that cannot be read ({error}). Get the file "
                "again."
            ) from None


def _numbers(
    known: PerturbationSet, classes: NDArray[np.int64] | Sequence[int | str] | int | str, count: int
) -> NDArray[np.int64]:
    """Return the number of a class for each of so many images."""
    said = np.asarray(classes)
    numbers = said
    if said.dtype.kind == "U":
        indices = [known.class_index(str(name)) for name in said.reshape(-1)]
        numbers = np.array(indices, dtype=np.int64).reshape(said.shape)
    if (numbers.size and numbers.dtype.kind not in "iu") or numbers.shape not in ((), (count,)):
        raise PerturbationError(
            f"Expected one whole class number or class name, or one for each of {count} images, got "
            f"{said.dtype} of shape {said.shape}. The names are {', '.join(known.classes)}."
        )
    if numbers.size and (numbers.min() < 0 or numbers.max() >= len(known.classes)):
        raise PerturbationError(f"Expected class numbers in 0..{len(known.classes) - 1}, got {np.unique(numbers)}.")
    return np.broadcast_to(numbers.astype(np.int64), (count,))


def left_alone(perturbations: PerturbationSet) -> str:
    """Return a sentence that names the classes whose δ is zero everywhere; "" where that is true of all, or of none."""
    changed = [bool(delta.any()) for delta in perturbations.delta]
    names = [name for name, some in zip(perturbations.classes, changed, strict=True) if not some]
    if not names or not any(changed):
        return ""
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return f"It leaves {'this class as it is' if len(names) == 1 else 'these classes as they are'}: {listed}."


def _combined(mine: PerturbationSet, other: PerturbationSet, epsilon: int | None, how: Way) -> PerturbationSet:
    """Return both sets as one; what is checked and done :meth:`PerturbationSet.combine` says."""
    if how not in get_args(Way):
        raise PerturbationError(
            f"Expected the way to combine to be one of {get_args(Way)}, got {how!r}. Choose one of them."
        )
    if other.fingerprint != mine.fingerprint:
        raise PerturbationError(
            f"Expected two perturbation sets for the same platform, got one for {mine.fingerprint[:12]}… and one "
            f"for {other.fingerprint[:12]}…. A δ learned for one platform proves nothing about another."
        )
    if other.classes != mine.classes:
        raise PerturbationError(
            f"Expected two perturbation sets with the same classes in the same order, got {mine.classes} and "
            f"{other.classes}. The δ of one class must not be added to the δ of another."
        )
    if other.image_shape != mine.image_shape:
        raise PerturbationError(
            f"Expected two perturbation sets for images of the same size, got {mine.image_shape} and "
            f"{other.image_shape}. Ask the collectives for sets that fit the platform."
        )
    if other.preparation != mine.preparation:
        raise PerturbationError(
            f"Expected two perturbation sets for pictures that are prepared alike, got {mine.preparation} and "
            f"{other.preparation}. Ask the collectives for sets of one preparation."
        )
    joint = max(mine.epsilon, other.epsilon) if epsilon is None else epsilon
    if isinstance(joint, bool) or not isinstance(joint, int) or not 1 <= joint <= 127:
        raise PerturbationError(f"Expected the joint ε as a whole number of levels in 1..127, got {joint!r}.")
    own, theirs = (s.delta.astype(np.int16) for s in (mine, other))
    both = own + theirs
    if how == "larger":
        further = np.where(np.abs(own) > np.abs(theirs), own, theirs)
        both = np.where(np.abs(own) == np.abs(theirs), np.where(own == theirs, own, 0), further)
    elif how == "scaled":
        largest = np.abs(both).max(axis=(1, 2, 3), keepdims=True, initial=1)
        # Half levels go to the even one, whatever their sign.
        both = np.rint(both * np.minimum(1.0, joint / largest))
    dates = [s.expires for s in (mine, other) if s.expires is not None]
    parts = sorted((_named(s) for s in (mine, other)), key=lambda part: tuple(map(str, part.values())))
    return PerturbationSet(
        delta=np.clip(both, -joint, joint).astype(np.int8),
        epsilon=joint,
        classes=mine.classes,
        subgroup=" and ".join(dict.fromkeys(part["subgroup"] for part in parts)),
        fingerprint=mine.fingerprint,
        service=mine.service if mine.service == other.service else "",
        expires=min(dates, key=_moment, default=None),
        evidence={"combined": how, "parts": parts},
        preparation=mine.preparation,
    )


def _named(part: PerturbationSet) -> dict[str, Any]:
    """Return what a combination says of one of its two: which file it was, and nothing that was proved about it."""
    digest = hashlib.sha256(np.ascontiguousarray(part.delta).data).hexdigest()
    return {"subgroup": part.subgroup, "epsilon": part.epsilon, "created": part.created, "delta_sha256": digest}


def _moment(said: str) -> datetime:
    try:
        moment = datetime.fromisoformat(said)
    except (TypeError, ValueError):
        raise PerturbationError(
            f"Expected the expiry date as ISO 8601, got {said!r}. Get the file again from the collective."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

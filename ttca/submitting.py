"""Submitting: one photograph is sent as it is and with δ, under the member's own key, and a receipt says what came."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ttca.answers import Answers, Status
from ttca.errors import ChargeState, ConfigError, PerturbationError, PlatformError, TransportError
from ttca.images import Images
from ttca.members import Moved, Photo
from ttca.members_set import Doubt, MembersSet
from ttca.new_files import replace_file
from ttca.platforms.base import Credential, Platform, PlatformInfo, check_request
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.throttle import lane, throttle_of
from ttca.values import Value

__all__ = ["RECEIPT", "Submission", "check_fits_platform", "submit_photo"]

#: The format of a receipt.
RECEIPT = "ttca-receipt-1"
#: Under this name a member asks alone; it stands in no request.
_MEMBER = "me"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Submission(Value):
    """What is sent, and what the receipt says of it.

    Parameters
    ----------
    known : MembersSet
    doubts : tuple of Doubt
        What the member insisted against.
    photo : Photo
        Its class is known.
    moved : Moved
    out : Path
        The PNG file of the image with δ.
    receipt : Path
        A new JSON file.
    key_variable : str or None
        Name of the variable with the member's key.
    policy : RetryPolicy
    clock : callable
        The present, with a time zone; tests pass their own.
    """

    known: MembersSet
    doubts: tuple[Doubt, ...] = ()
    photo: Photo
    moved: Moved
    out: Path
    receipt: Path
    key_variable: str | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy, compare=False)
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC), compare=False)


def check_fits_platform(known: MembersSet, info: PlatformInfo) -> None:
    """Raise before anything is sent where a set's images or classes are not those of a platform.

    Raises
    ------
    PerturbationError
    """
    made = known.perturbations
    if made.image_shape != info.image_shape:
        raise PerturbationError(
            f"Expected a set for images of {info.image_shape[0]}×{info.image_shape[1]} pixels (height×width), got one "
            f"for {made.image_shape[0]}×{made.image_shape[1]}. Nothing was sent."
        )
    if set(made.classes) != set(info.classes):
        raise PerturbationError(
            f"Expected a set for the classes {', '.join(info.classes)}, got one for {', '.join(made.classes)}. Nothing "
            "was sent."
        )


def submit_photo(platform: Platform, what: Submission) -> dict[str, Any]:
    """Ask about a photograph as it is, then with δ, and return the receipt, which is kept as both answers come.

    Two queries, each paid once: only a request that surely cost nothing is tried again.

    Parameters
    ----------
    platform : Platform
    what : Submission

    Returns
    -------
    dict
        Plain JSON values, as in the file. It holds no key and no picture.

    Raises
    ------
    PerturbationError, ImageError, ConfigError
        If set, image or the receipt's place do not fit. Nothing was sent.
    TransportError
        If an answer did not come; the receipt says what did, and the error what was charged.
    """
    info = platform.info
    check_fits_platform(what.known, info)
    for image in (what.moved.before, what.moved.after):
        check_request(image[None], info)
    receipt = _head(info, what)
    _keep(what.receipt, receipt)
    for name, image in (("before", what.moved.before), ("after", what.moved.after)):
        request = uuid.uuid4().hex
        sent = {"pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest(), "request": request, "time": _now(what)}
        try:
            answers = _once(platform, image, what, request)
        except PlatformError as error:
            charge = error.charge if isinstance(error, TransportError) else ChargeState.REFUNDED
            receipt[name] = {**sent, "answer": None, "charge": charge.value}
            receipt["queries"] += charge is not ChargeState.REFUNDED
            _keep(what.receipt, receipt)
            error.queries_charged = receipt["queries"]
            error.bill = f"Charged, or perhaps charged, so far: {receipt['queries']}. The receipt: {what.receipt}"
            error.add_note(error.bill)
            raise
        receipt[name] = {**sent, **_answer(answers, info.classes, what.photo.true_class)}
        receipt["queries"] += 1
        _keep(what.receipt, receipt)
    return receipt


def _now(what: Submission) -> str:
    return what.clock().isoformat(timespec="seconds")


def _head(info: PlatformInfo, what: Submission) -> dict[str, Any]:
    made = what.known.perturbations
    return {
        "format": RECEIPT,
        "time": _now(what),
        "service": info.name,
        "fingerprint": info.fingerprint,
        "set": {
            "file": what.known.path.name,
            "sha256": what.known.sha256,
            "signed_by": what.known.signed.key,
            "made_for": made.service or None,
            "subgroup": made.subgroup,
            "epsilon": made.epsilon,
        },
        "gone_on_anyway": [doubt.kind for doubt in what.doubts],
        "photo": what.photo.name,
        "class": what.photo.true_class,
        "prepared": list(what.moved.done),
        "submitted": what.out.name,
        "submitted_sha256": hashlib.sha256(what.out.read_bytes()).hexdigest(),
        "before": None,
        "after": None,
        "queries": 0,
    }


def _once(platform: Platform, image: Images, what: Submission, request: str) -> Answers:
    credential = Credential(_MEMBER, what.key_variable)
    throttle, whose = throttle_of(platform), lane(platform, credential)

    def attempt(_: int) -> Answers:
        with throttle.slot(whose, longest_s=what.policy.longest_wait_s, sleep=what.policy.sleep):
            try:
                return platform.attempt(image[None], credential, request_id=request)
            except TransportError as error:
                # What may have been paid is not paid twice.
                error.retryable = error.retryable and error.charge is ChargeState.REFUNDED
                raise

    return what.policy.run(attempt, throttle=throttle)


def _answer(answers: Answers, classes: tuple[str, ...], true_class: str | None) -> dict[str, Any]:
    label = int(answers.labels[0])
    name = classes[label] if answers.status[0] == Status.ANSWERED else None
    scores = {c: round(float(s), 6) for c, s in zip(classes, answers.scores[0], strict=True) if not np.isnan(s)}
    status = Status(int(answers.status[0])).name.lower()
    return {"status": status, "answer": name, "right": name == true_class, "scores": scores or None}


def _keep(path: Path, receipt: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(receipt, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"Expected to keep the receipt at {path}, got: {error}. Choose another --out.") from None

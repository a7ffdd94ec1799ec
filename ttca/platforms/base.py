"""What a platform is to us: something that answers one attempt, and says who it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from ttca.answers import Answers
from ttca.errors import ImageError
from ttca.images import Images, ImageShape, check_images

__all__ = ["OPTIONAL_MEMBERS", "Credential", "Platform", "PlatformInfo", "check_request", "longest_attempt_s"]

#: What a platform may have and need not; see :class:`Platform`.
OPTIONAL_MEMBERS = ("throttle", "key_variable", "longest_attempt_s", "resolution", "read_again")

# So long a request may take on a platform that does not say how long.
_UNTOLD_S = 600.0


@dataclass(frozen=True)
class Credential:
    """Who asks: a member's name and the *name* of the environment variable that holds the key.

    The key itself is read only at the moment of sending and is never stored.
    """

    member: str
    key_variable: str | None = None


@dataclass(frozen=True)
class PlatformInfo:
    """What is known about a platform before a query is spent.

    Parameters
    ----------
    name : str
        For people: a URL or a given name.
    classes : tuple of str
        Class names in the order of the platform's scores.
    image_shape : (H, W, 3)
        The size it takes.
    identity : dict of str to str
        Everything that makes its answers differ from another platform's (URL, protocol, model, version, parameters of
        the request, the form of the pixels).
    max_batch : int
        The most images of one request.
    gives_scores : bool
        Whether answers may carry scores; False for a platform that only names labels.
    reading : dict of str to str, optional
        How its answers are read, which changes no answer: what scores and refusals look like, and where they lie. So
        do class names then. None for a platform whose answers are not read here, or whose identity says it all.
    jpeg_quality : int, optional
        Of the JPEG files, 1 to 100, that images become on their way to it; None where they arrive as they are. Its
        identity says so too.
    former_identity : dict of str to str, optional
        What version 0.1 took for the identity, where it was another.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: ImageShape
    identity: dict[str, str] = field(default_factory=dict)
    max_batch: int = 64
    gives_scores: bool = True
    reading: dict[str, str] | None = None
    former_identity: dict[str, str] | None = None
    jpeg_quality: int | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, 64 hex digits, of what makes answers differ: part of every query's key."""
        classes = {"classes": self.classes} if self.reading is None else {}
        return _digest({"identity": self.identity, "image_shape": self.image_shape, **classes})

    @cached_property
    def fingerprint_as_read(self) -> str:
        """The same, with how answers are read: equal for two who get the same labels and scores."""
        if self.reading is None:
            return self.fingerprint
        return _digest({"fingerprint": self.fingerprint, "reading": self.reading, "classes": self.classes})

    @property
    def reading_mark(self) -> bytes | None:
        """Eight bytes that tell this reading from others, None where there is one alone: kept with every answer."""
        return None if self.reading is None else bytes.fromhex(self.fingerprint_as_read[:16])

    @property
    def former_fingerprint(self) -> str:
        """The one that version 0.1 gave, of all this and of the URL as it was typed: what was kept is found by it."""
        identity = self.identity if self.former_identity is None else self.former_identity
        return _digest({"identity": identity, "classes": self.classes, "image_shape": self.image_shape})

    def is_of(self, fingerprint: str) -> bool:
        """Whether a fingerprint is one of this platform's, by whatever version it was written down."""
        return fingerprint in (self.fingerprint, self.fingerprint_as_read, self.former_fingerprint)


@runtime_checkable
class Platform(Protocol):
    """The black box. We only ever see its answers.

    A platform has the two members below. It may have these as well, each an attribute or a property, and does without
    what it leaves out:

    ``throttle`` : :class:`~ttca.platforms.throttle.Throttle`
        How many requests the platform bears and who must wait, where the platform learns of it by itself, for example
        from headers. Left out: whoever asks makes one, which learns from answers and errors alone
        (:func:`~ttca.platforms.throttle.throttle_of`).
    ``key_variable`` : str or None
        The *name* of the variable with the key of all who bring none of their own. Requests that go out under one key
        share waits and stated limits: they are in one *lane* (:func:`~ttca.platforms.throttle.lane`). Left out: those
        who bring no key of their own share the lane of no key.
    ``longest_attempt_s`` : float
        Seconds after which no request is in flight any more: so long, nobody else asks its queries. Left out: 600
        (:func:`longest_attempt_s`).
    ``resolution`` : float
        The step to which all scores are rounded, for whoever serves the platform by a protocol that cannot say it with
        an answer. Left out: 0, exact.

    ``read_again(body, n)`` : callable
        Reads the ``body`` of answers it gave to ``n`` images, as it would today, or raises a TransportError
        (the ``body`` of :class:`ttca.answers.Answers`). Left out: answers stay as they were read.

    A wrapper passes on what the wrapped one has of :data:`OPTIONAL_MEMBERS`.
    """

    @property
    def info(self) -> PlatformInfo:
        """Read without spending a query; raises PlatformError when it is down or not as configured."""

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Send one request, once, and return one row per image.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            Already checked; N ≤ ``info.max_batch``.
        credential : Credential
            Whose quota pays.
        request_id : str
            The same across retries of one logical request (sent as ``Idempotency-Key``).

        Raises
        ------
        TransportError
            With what is known about the charge. Retrying is the caller's business, because every attempt is
            charged before it is sent.
        """


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def longest_attempt_s(platform: Platform) -> float:
    """Return the seconds after which no request to the platform is in flight any more."""
    return float(getattr(platform, "longest_attempt_s", _UNTOLD_S))


def check_request(images: Images, info: PlatformInfo) -> Images:
    """Return the images of one request as a platform takes them.

    Raises
    ------
    ImageError
        If they are of another form or size, or more than the platform takes at once.
    """
    checked = check_images(images, shape=info.image_shape)
    if len(checked) > info.max_batch:
        raise ImageError(
            f"Expected at most {info.max_batch} images in one request, got {len(checked)}. "
            "Send them in smaller batches."
        )
    return checked

"""What a platform is to us: something that answers one attempt, and says who it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ttca.answers import Answers
from ttca.images import Images, ImageShape

__all__ = ["Credential", "Platform", "PlatformInfo"]


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
        Everything that makes it this platform and no other (URL, protocol, model, version, parameters).
    max_batch : int
        The most images of one request.
    gives_scores : bool
        Whether answers may carry scores; False for a platform that only names labels.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: ImageShape
    identity: dict[str, str] = field(default_factory=dict)
    max_batch: int = 64
    gives_scores: bool = True

    @property
    def fingerprint(self) -> str:
        """SHA-256, 64 hex digits, of identity, class names and image shape: part of every query's key."""
        record = {"identity": self.identity, "classes": self.classes, "image_shape": self.image_shape}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@runtime_checkable
class Platform(Protocol):
    """The black box. We only ever see its answers."""

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

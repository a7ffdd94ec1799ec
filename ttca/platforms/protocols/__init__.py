"""One file per wire format, from uint8 images to Answers; this file is what they have in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError
from ttca.images import Images, ImageShape

__all__ = ["PROTOCOLS", "Fetch", "Protocol", "Request", "Response", "Wire", "create_protocol"]

# Name → (module, class). Loaded when asked for, so that a protocol costs nothing to those who do not use it.
PROTOCOLS: dict[str, tuple[str, str]] = {
    "kserve-v2": ("ttca.platforms.protocols.kserve_v2", "KServeV2"),
}


@dataclass(frozen=True)
class Request:
    """What to send, all but the host, the key and the transport's own headers.

    Parameters
    ----------
    method : str
        ``"GET"`` or ``"POST"``.
    path : str
        Appended to the platform's URL after one slash; empty for the URL itself. May hold a query.
    headers : mapping of str to str
        Never a key.
    body : bytes
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What came back, whole, bounded and decoded; ``platform`` and ``request_id`` are for errors.

    Parameters
    ----------
    status : int
    headers : mapping of str to str
        Names in lower case.
    body : bytes
    platform : str
        The platform's name.
    request_id : str, optional
        The id *we* sent, where the request had one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    platform: str
    request_id: str | None = None

    def unreadable(self, sentence: str) -> AnswerError:
        """Return the error for a response that is not as its protocol says."""
        return AnswerError(sentence, platform=self.platform, status=self.status, request_id=self.request_id)


Fetch: TypeAlias = Callable[[str], Response]
"""GET of a path that costs no query; a :class:`Response` with status 200, or a ``TransportError``."""


class Wire(ABC):
    """A protocol as agreed with one server: how to ask it, how to read it. Immutable, so threads share it.

    Attributes
    ----------
    image_shape : (H, W, 3)
        The size the server takes.
    identity : dict of str to str
        What makes its answers those of this model: versions, tensor names, how scores are read.
    max_batch : int or None
        The most images of one request; None where the protocol does not say.
    gives_scores : bool
        Whether answers may carry scores.
    answer_statuses : frozenset of int
        HTTP statuses whose body :meth:`parse` reads (some platforms refuse with a status of their own).
    """

    image_shape: ImageShape
    identity: dict[str, str]
    max_batch: int | None = None
    gives_scores: bool = True
    answer_statuses: frozenset[int] = frozenset({200})

    @abstractmethod
    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the one request that asks about ``images`` (uint8, shape (N, H, W, 3), N ≥ 1)."""

    @abstractmethod
    def parse(self, response: Response, n: int) -> Answers:
        """Return the answers to ``n`` images.

        Raises
        ------
        AnswerError
            If the response as a whole cannot be read. A single bad row becomes a failed row instead. Whatever
            the bytes are, nothing else is raised.
        """


class Protocol(ABC):
    """A wire format and its options, before any server has been met.

    Options are keyword-only and validated in the constructor, which every protocol lets accept ``model``,
    ``version`` and ``classes``.
    """

    @abstractmethod
    def describe(self, fetch: Fetch) -> Wire:
        """Read the server's metadata, where the protocol has any, and check it against the options.

        Raises
        ------
        ConfigError
            If the server is not as configured (image shape, class count or names, tensor names).
        TransportError
            As raised by ``fetch``.
        """


def create_protocol(name: str, **options: Any) -> Protocol:
    """Return a protocol by name.

    Parameters
    ----------
    name : str
        One of :data:`PROTOCOLS`.
    **options
        As its class documents them; ``classes`` always, ``model`` and ``version`` where they mean something.

    Raises
    ------
    ConfigError
        If the name or an option is not known, or an option's value is not allowed.
    """
    if name not in PROTOCOLS:
        raise ConfigError(
            f"Expected protocol to be one of {', '.join(sorted(PROTOCOLS))}, got {name!r}. "
            "Choose the one your platform speaks."
        )
    module, attribute = PROTOCOLS[name]
    factory: Callable[..., Protocol] = getattr(import_module(module), attribute)
    known = set(inspect.signature(factory).parameters)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"Expected options of the protocol {name} ({', '.join(sorted(known))}), got "
            f"{', '.join(unknown)}. "
            "Remove or correct them."
        )
    return factory(**options)

"""One file per wire format, from uint8 images to Answers; this file is what they have in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError
from ttca.images import Images, ImageShape
from ttca.platforms.protocols.reading import Reading

__all__ = [
    "PROTOCOLS",
    "TRANSPORT_HEADERS",
    "Fetch",
    "Protocol",
    "Request",
    "Response",
    "Wire",
    "create_protocol",
    "model_path",
    "speaks_of_the_image",
]

# Name → (module, class). Loaded when asked for, so that a protocol costs nothing to those who do not use it.
PROTOCOLS: dict[str, tuple[str, str]] = {
    "kserve-v2": ("ttca.platforms.protocols.kserve_v2", "KServeV2"),
    "kserve-v1": ("ttca.platforms.protocols.tensorflow_serving", "TensorFlowServing"),
    "tensorflow-serving": ("ttca.platforms.protocols.tensorflow_serving", "TensorFlowServing"),
    "torchserve": ("ttca.platforms.protocols.torchserve", "TorchServe"),
    "huggingface": ("ttca.platforms.protocols.huggingface", "HuggingFace"),
    "bentoml": ("ttca.platforms.protocols.bentoml", "BentoML"),
    "template": ("ttca.platforms.protocols.template", "Template"),
}


#: Headers that the transport itself writes, and nobody else may.
TRANSPORT_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "idempotency-key", "connection", "te"})
# 4xx statuses that speak of the key, the address or the moment.
_NOT_OF_THE_IMAGE = frozenset({401, 403, 404, 405, 407, 408, 409, 425, 429})


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


def model_path(prefix: str, model: str, version: str | None, *, between: str = "/") -> str:
    """Return ``prefix/model``, and where a version is given what comes ``between`` and the version; quoted."""
    base = f"{prefix}/{quote(model, safe='')}"
    return base if version is None else f"{base}{between}{quote(version, safe='')}"


def speaks_of_the_image(status: int) -> bool:
    """Whether an error's status may be about the image, and is not about the key, the address or the moment."""
    return 400 <= status < 500 and status not in _NOT_OF_THE_IMAGE


class Wire(ABC):
    """A protocol as agreed with one server: how to ask it, how to read it. Immutable, so threads share it.

    Attributes
    ----------
    options : Reading
        How its labels, scores and refusals are read.
    image_shape : (H, W, 3)
        The size the server takes.
    identity : dict of str to str
        What makes its answers those of this model: versions, tensor names, how scores are read.
    max_batch : int or None
        The most images of one request; None where the protocol does not say.
    gives_scores : bool
        Whether answers may carry scores.
    """

    options: Reading
    image_shape: ImageShape
    identity: dict[str, str]
    max_batch: int | None = None
    gives_scores: bool = True

    @abstractmethod
    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the one request that asks about ``images`` (uint8, shape (N, H, W, 3), N ≥ 1)."""

    def refuses(self, response: Response) -> bool:
        """Whether a response of an error's status refuses the one image it was asked about ("no face found").

        Only statuses by which a platform speaks of the image can, with a text that the options name.
        """
        return speaks_of_the_image(response.status) and self.options.refuses(response.body)

    def wait_s(self, response: Response) -> float | None:
        """Return the seconds an error asks to wait in the protocol's own words; headers come first, read elsewhere."""
        return None

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
    _check_types(factory, name, options)
    return factory(**options)


def _check_types(factory: Any, name: str, options: Mapping[str, Any]) -> None:
    """Raise a ConfigError where an option is of another type than its annotation says."""
    hints = get_type_hints(factory)
    for option, value in options.items():
        allowed = get_args(hints[option]) if get_origin(hints[option]) in (Union, UnionType) else (hints[option],)
        # A true value is no number, and a whole number may stand for any.
        fits = any(type(value) is int if kind is float else False for kind in allowed)
        for kind in allowed:
            plain = get_origin(kind) or kind
            if plain is Literal:
                # The protocol says which ones; here only that they are words.
                fits |= isinstance(value, str)
            elif plain in (bool, int, float, str, type(None)):
                fits |= type(value) is plain
            elif plain is Sequence or plain is tuple:
                fits |= isinstance(value, list | tuple)
            else:
                fits |= isinstance(value, plain)
        if not fits:
            wanted = str(hints[option]).replace("collections.abc.", "").replace("typing.", "")
            # Only its kind: what stands in headers, fields and bodies may be a key in the wrong place.
            got = type(value).__name__
            raise ConfigError(f"Expected {option} of the protocol {name} as {wanted}, got {got}. Correct it.")

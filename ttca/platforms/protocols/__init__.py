"""One file per wire format, from uint8 images to Answers; this file is what they have in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from types import UnionType
from typing import Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints, runtime_checkable
from typing import Protocol as Structural
from urllib.parse import quote

from ttca.answers import Answers
from ttca.errors import AnswerError, ConfigError, Trouble
from ttca.images import Images, ImageShape
from ttca.names import unknown_name
from ttca.platforms.protocols.reading import Reading

__all__ = [
    "PROTOCOLS",
    "TRANSPORT_HEADERS",
    "Describes",
    "Fetch",
    "Protocol",
    "Request",
    "Response",
    "Step",
    "Steps",
    "Wire",
    "create_protocol",
    "guests",
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


#: The group of entry points in which other packages name their protocols.
_GROUP = "ttca.protocols"
#: Headers that the transport itself writes, and nobody else may.
TRANSPORT_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "idempotency-key", "connection", "te"})
# Statuses of errors that speak of the key, the address or the moment.
_NOT_OF_THE_IMAGE = frozenset({401, 402, 403, 404, 405, 407, 408, 409, 425, 429, 502, 503, 504})


@dataclass(frozen=True)
class Request:
    """What to send, all but the host, the key and the transport's own headers.

    Parameters
    ----------
    method : str
        ``"GET"`` or ``"POST"``.
    path : str
        Appended to the platform's URL after one slash; empty for the URL itself. One that begins with a slash is
        appended to the platform's host alone. May hold a query.
    headers : mapping of str to str
        Never a key.
    body : bytes
    ends : callable, optional
        Where an answer may be whole before its connection ends: returns what takes its bytes as they come and says
        whether nothing more is needed.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ends: Callable[[], Callable[[bytes], bool]] | None = field(default=None, compare=False)


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
    asked : str
        The method and the whole address that were asked, without a key.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    platform: str
    request_id: str | None = None
    asked: str = ""

    def unreadable(self, sentence: str) -> AnswerError:
        """Return the error for a response that is not as its protocol says."""
        return AnswerError(sentence, platform=self.platform, status=self.status, request_id=self.request_id)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One of the requests that an attempt takes.

    Parameters
    ----------
    request : Request
        A poll's ``path`` may be a whole URL, as a platform gave it; it is asked on the platform's own host alone.
    kind : {'prepare', 'submit', 'poll'}
        What it costs: nothing, because nothing was asked yet; the query; nothing more, for it was asked already.
    wait_s : float
        Seconds before a poll is sent, and before it is sent again where it failed.
    within_s : float
        Seconds after the submission in which the answer must have come.
    advice : str
        What to check where polls are answered and the final answer does not come.
    """

    request: Request
    kind: Literal["prepare", "submit", "poll"] = "submit"
    wait_s: float = 0.0
    within_s: float = 0.0
    advice: str = ""


Steps: TypeAlias = Generator[Step, "Response", "Response"]
"""One attempt: yields what to send, gets what came back, and returns the response that is the answer."""

Fetch: TypeAlias = Callable[[str], Response]
"""GET of a path that costs no query; a :class:`Response` with status 200, or a ``TransportError``."""


def model_path(prefix: str, model: str, version: str | None, *, between: str = "/") -> str:
    """Return ``prefix/model``, and where a version is given what comes ``between`` and the version; quoted."""
    base = f"{prefix}/{quote(model, safe='')}"
    return base if version is None else f"{base}{between}{quote(version, safe='')}"


def speaks_of_the_image(status: int) -> bool:
    """Whether an error's status may be about the image, and is not about the key, the address or the moment."""
    return 400 <= status < 600 and status not in _NOT_OF_THE_IMAGE


class Wire(ABC):
    """A protocol as agreed with one server: how to ask it, how to read it. Immutable, so threads share it.

    Attributes
    ----------
    options : Reading
        How its labels, scores and refusals are read.
    image_shape : (H, W, 3)
        The size the server takes.
    identity : dict of str to str
        What makes its answers those of this model: versions, tensor names, parameters of the request.
    reading_identity : dict of str to str or None
        What decides how :meth:`parse` and :meth:`refuses` read an answer, and makes no answer another. Where it
        changes, kept answers are read again for nothing. None: ``identity`` says that too, and they are not.
    max_batch : int or None
        The most images of one request; None where the protocol does not say.
    gives_scores : bool
        Whether answers may carry scores.
    reads_headers : tuple of str
        Which headers, in lower case, an answer cannot be read without.
    statuses : tuple of int
        HTTP statuses of an answer.
    jpeg_quality : int or None
        Of the JPEG files that images travel in, 1 to 100; None where they arrive as they are.
    """

    options: Reading
    image_shape: ImageShape
    identity: dict[str, str]
    reading_identity: dict[str, str] | None = None
    max_batch: int | None = None
    gives_scores: bool = True
    reads_headers: ClassVar[tuple[str, ...]] = ()
    statuses: tuple[int, ...] = (200,)
    jpeg_quality: int | None = None

    @abstractmethod
    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the one request that asks about ``images`` (uint8, shape (N, H, W, 3), N ≥ 1)."""

    def steps(self, images: Images, *, request_id: str) -> Steps:
        """Ask about ``images`` in as many requests as it takes: by default the one of :meth:`request`."""
        return (yield Step(request=self.request(images, request_id=request_id)))

    def refuses(self, response: Response) -> bool:
        """Whether a response of an error's status refuses the one image it was asked about ("no face found").

        Whatever the status: the text is one that the options name.
        """
        return self.options.refuses(response.body)

    def trouble(self, response: Response) -> Trouble | None:
        """Return whether a response says "too fast", or that a quota is used up, in the protocol's own words.

        Asked of every response, whatever its status, before anything else is read from it. What statuses and headers
        say by themselves is read elsewhere.
        """
        return None

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


@runtime_checkable
class Describes(Structural):
    """What :class:`~ttca.platforms.http.HttpPlatform` needs of a protocol: any object with this method will do.

    Its ``name``, a text, stands in the platform's identity where it has one, else its class's name.
    """

    def describe(self, fetch: Fetch) -> Wire:
        """Return the wire, as :meth:`Protocol.describe` does."""


class Protocol(ABC):
    """A wire format and its options, before any server has been met.

    Options are keyword-only and validated in the constructor, which every protocol lets accept ``model``,
    ``version`` and ``classes``.
    """

    def longest_s(self, once_s: float) -> float:
        """Return the most seconds that an attempt takes, where each of its requests takes at most ``once_s``."""
        return once_s

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


def guests() -> list[str]:
    """Return the names of the protocols that other installed packages bring (entry points of ``ttca.protocols``)."""
    return sorted({point.name for point in entry_points(group=_GROUP)} - set(PROTOCOLS))


def create_protocol(name: str, **options: Any) -> Describes:
    """Return a protocol by name.

    Parameters
    ----------
    name : str
        One of :data:`PROTOCOLS` or of :func:`guests`.
    **options
        As its class documents them; ``classes`` always, ``model`` and ``version`` where they mean something.

    Raises
    ------
    ConfigError
        If the name or an option is not known, an option's value is not allowed, or a guest's protocol is none.
    """
    ours = name in PROTOCOLS
    factory = _ours(name) if ours else _guest(name)
    parameters = inspect.signature(factory).parameters
    known = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    if known == set(parameters):
        # A guest need not know of a model and a version that nobody gave.
        options = {n: v for n, v in options.items() if n in known or v is not None or n not in ("model", "version")}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(
                unknown_name(
                    f"each option of the protocol {name}",
                    unknown[0],
                    sorted(known),
                    listed="docs/platforms.md lists them.",
                    otherwise="Remove it.",
                )
            )
    _check_types(factory, name, options)
    if ours:
        return factory(**options)
    try:
        made = factory(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Expected the protocol {name} to take its options, got: {error}. Correct them.") from error
    if not isinstance(made, Describes):
        raise ConfigError(
            f"Expected the protocol {name} to have a method describe(fetch), got {type(made).__name__} without one. "
            "Tell the author of the package that brings it."
        )
    return made


def _ours(name: str) -> Callable[..., Describes]:
    module, attribute = PROTOCOLS[name]
    factory: Callable[..., Describes] = getattr(import_module(module), attribute)
    return factory


def _guest(name: str) -> Callable[..., Describes]:
    """Return what another package's entry point of this name makes protocols with."""
    found = list(entry_points(group=_GROUP, name=name))
    if not found:
        raise ConfigError(
            unknown_name(
                "protocol", name, sorted([*PROTOCOLS, *guests()]), otherwise="Choose the one your platform speaks."
            )
        )
    if len(found) > 1:
        raise ConfigError(
            f"Expected one installed package to bring the protocol {name}, got {len(found)} "
            f"({', '.join(sorted(point.value for point in found))}). Uninstall all but one."
        )
    try:
        factory = found[0].load()
    except Exception as error:
        raise ConfigError(
            f"Expected the protocol {name} at {found[0].value}, got {type(error).__name__}: {error}. "
            "Correct or uninstall the package that brings it."
        ) from error
    if not callable(factory):
        raise ConfigError(
            f"Expected the protocol {name} at {found[0].value} as a class or a function, got "
            f"{type(factory).__name__}. Tell the author of the package that brings it."
        )
    made: Callable[..., Describes] = factory
    return made


def _check_types(factory: Any, name: str, options: Mapping[str, Any]) -> None:
    """Raise a ConfigError where an option is of another type than its annotation says."""
    try:
        hints = get_type_hints(factory)
    except (NameError, TypeError):  # a guest's annotations are the guest's business
        hints = {}
    for option, value in options.items():
        if option not in hints:
            continue
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

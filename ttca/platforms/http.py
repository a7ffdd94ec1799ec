"""A platform behind HTTP: what it says of itself, and one attempt, in the protocol it speaks."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ttca.answers import Answers
from ttca.errors import ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.masking import masked
from ttca.names import check_class_names
from ttca.platforms.addresses import one_address
from ttca.platforms.base import Credential, PlatformInfo, check_request
from ttca.platforms.exchange import Exchange
from ttca.platforms.keys import Key, TokenFrom
from ttca.platforms.limits import exhausted_s, policies
from ttca.platforms.protocols import Describes, Request, Response, Wire, create_protocol
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.sending import NotSentError, Sender, Transport
from ttca.platforms.statuses import status_error
from ttca.platforms.throttle import Throttle, lane
from ttca.renamed import old_parameters

__all__ = ["HttpPlatform", "Key", "NotSentError", "TokenFrom", "Transport"]

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@old_parameters(authorised_by="authorized_by")
class HttpPlatform:
    """A platform behind HTTP. Safe to use from many threads; close it, or use it as a context manager.

    Parameters
    ----------
    url : str
        Where the API begins. ``https://`` unless the host is this machine.
    classes : sequence of str
        Class names in the order of the platform's scores.
    protocol : str or object
        The wire format: a name (see :data:`ttca.platforms.protocols.PROTOCOLS`, or an entry point of the group
        ``ttca.protocols``), or an object with ``describe(fetch) -> Wire``
        (:class:`ttca.platforms.protocols.Describes`), which has its options already. What makes it another platform
        than the next one belongs into its wire's ``identity``.
    model : str, optional
        As the protocol needs it.
    authorized_by : str, optional
        Who allowed these queries; required unless they stay on this machine.
    key : Key, optional
        Where the key is, and how it travels.
    transport : Transport, optional
        Timeouts and sizes.
    **protocol_options
        Options of the protocol that is named, ``version`` among them.

    Raises
    ------
    ConfigError
        Before anything is sent, if a value is not allowed.

    Examples
    --------
    >>> platform = HttpPlatform("http://127.0.0.1:8080", model="faces", classes=("yes", "no"))
    >>> platform
    HttpPlatform('http://127.0.0.1:8080', protocol='kserve-v2', model='faces')
    >>> platform.close()
    """

    def __init__(
        self,
        url: str,
        *,
        classes: Sequence[str],
        protocol: str | Describes = "kserve-v2",
        model: str | None = None,
        authorized_by: str | None = None,
        key: Key | None = None,
        transport: Transport | None = None,
        **protocol_options: Any,
    ) -> None:
        self._key, self._transport = key or Key(), transport or Transport()
        self._sender = Sender(url, self._key, self._transport)
        self._name = self._sender.url
        gateway = self._transport.forwards_to
        #: Who allowed the queries; None where nobody was named.
        self.authorized_by = (authorized_by or "").strip() or None
        if not self._sender.stays_here and self.authorized_by is None:
            raise ConfigError(
                f"Expected authorized_by for {gateway or self._sender.host}, got none. Say who authorized these "
                "queries before the first one is sent to another machine."
            )
        names = tuple(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else ()
        check_class_names(names)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ConfigError(
                f"Expected classes as two or more different names, got {excerpt(classes)}. "
                "List them in the order of the platform's scores."
            )
        self._classes, self._model = names, model
        self._protocol_name, self._protocol = _protocol(protocol, model, self._classes, protocol_options)
        # A guest's protocol, which need not be a Protocol of ours, asks in one request.
        longest = getattr(self._protocol, "longest_s", float)
        #: Seconds after which no request is in flight any more.
        self.longest_attempt_s: float = longest(self._sender.longest_s)
        self._lock = threading.Lock()
        self._met: tuple[PlatformInfo, Wire] | None = None
        self._results = threading.Event()
        #: How many requests may be in flight and who must wait, as the platform's answers have taught us.
        self.throttle = Throttle(self._name, patience_s=self._transport.read_timeout)

    def __repr__(self) -> str:
        model = "" if self._model is None else f", model={self._model!r}"
        return f"HttpPlatform({self._name!r}, protocol={self._protocol_name!r}{model})"

    @property
    def key_variable(self) -> str | None:
        """The name of the variable with the key of all who bring none of their own."""
        return self._key.variable

    def __enter__(self) -> HttpPlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def key_problem(self) -> str | None:
        """Return what is wrong with the key in its variable, never the key; None where nothing is, or none is used."""
        return None if self._key.variable is None else self._sender.key_problem(self._key.variable)

    def close(self) -> None:
        """Close idle connections. The platform can still be used, and then opens new ones."""
        self._sender.close()

    @property
    def info(self) -> PlatformInfo:
        """What the server says of itself, read once, at no query's cost.

        Raises
        ------
        NotSentError
            If the server is not as configured.
        TransportError
            If it cannot be reached.
        """
        return self._meet()[0]

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Send one request, once, and return one row per image (see :class:`ttca.platforms.base.Platform`).

        Raises
        ------
        ImageError
            If the images are not as the platform takes them; nothing was sent.
        NotSentError
            If the key or the metadata is not as it must be; nothing was sent.
        TransportError
            With what is known about the charge.
        """
        info, wire = self._meet()
        checked = check_request(images, info)
        if len(checked) == 0:
            return Answers.failed(0, len(self._classes))
        if not _VISIBLE_ASCII.fullmatch(request_id) or len(request_id) > 255:
            raise NotSentError(
                "Expected request_id as 1 to 255 visible ASCII characters, got something else. Use a UUID.",
                platform=self._name,
                member=credential.member,
            )
        variable = credential.key_variable or self._key.variable
        whose, body = lane(self, credential), None

        def kept(response: Response) -> bytes | None:
            return None if info.reading is None else _body(response, wire)

        def send(request: Request, its_id: str | None) -> Response:
            response = self._sender.exchange(request, variable, request_id=its_id, member=credential.member)
            self._heed(response, whose)
            return response

        exchange = Exchange(
            platform=self._name,
            wire=wire,
            send=send,
            problem=lambda response: self._problem(wire, response, len(checked), variable),
            kept=kept,
            results=self._results,
        )
        try:
            response = exchange.run(checked, request_id=request_id)
            body = kept(response)
            return self._read(wire, response, len(checked), variable).with_body(body)
        except TransportError as error:
            error.member = credential.member
            error.args = (masked(str(error.args[0]), variable),)
            if error.charge is ChargeState.CHARGED:
                error.body = error.body or body
            raise

    def read_again(self, body: bytes, n: int) -> Answers:
        """Return the answers to ``n`` images that came with this body, as they are read now; sends nothing.

        Raises
        ------
        TransportError
            If they cannot be read.
        """
        _, wire = self._meet()
        status, headers, said = _unpacked(body)
        return self._read(wire, Response(status, headers, said, self._name), n)

    def _problem(self, wire: Wire, response: Response, n: int, variable: str | None) -> TransportError | None:
        """Return what a response means that neither takes a step of an attempt nor refuses the image."""
        trouble = wire.trouble(response)
        if trouble is None and (200 <= response.status < 300 or wire.refuses(response)):
            return None
        wait = wire.wait_s(response)
        return status_error(response, said=trouble, wait_s=wait, images=n, key_variable=variable)

    def _read(self, wire: Wire, response: Response, n: int, variable: str | None = None) -> Answers:
        trouble = wire.trouble(response)
        refuses = trouble is None and response.status not in wire.statuses and wire.refuses(response)
        if trouble is None and response.status in wire.statuses:
            return wire.parse(response, n)
        if not refuses:
            wait = wire.wait_s(response)
            raise status_error(response, said=trouble, wait_s=wait, images=n, key_variable=variable)
        if n > 1:
            raise response.unreadable(
                f"Expected an answer for every image, got a refusal of {n} images at once "
                f"({excerpt(response.body)}). Ask about one at a time."
            )
        return Answers.from_labels(np.full(1, -1, np.int64), len(self._classes))

    def _meet(self) -> tuple[PlatformInfo, Wire]:
        with self._lock:
            if self._met is None:
                wire = self._describe()
                most = self._transport.max_batch
                gateway = self._transport.forwards_to
                # Behind one gateway there may be one platform today and another one tomorrow.
                beyond = {} if gateway is None else {"forwards_to": one_address(gateway)}
                identity = {"url": one_address(self._name), "protocol": self._protocol_name, **beyond, **wire.identity}
                info = PlatformInfo(
                    name=self._name,
                    classes=self._classes,
                    image_shape=wire.image_shape,
                    identity=identity,
                    max_batch=most if wire.max_batch is None else min(most, wire.max_batch),
                    gives_scores=wire.gives_scores,
                    jpeg_quality=wire.jpeg_quality,
                    reading=wire.reading_identity,
                    former_identity={**identity, **(wire.reading_identity or {}), "url": self._name},
                )
                self._met = (info, wire)
            return self._met

    def _describe(self) -> Wire:
        """Read the metadata. Whatever goes wrong with it, no query was processed."""

        def fetch(path: str) -> Response:
            request = Request("GET", path, {"Accept": "application/json"})
            response = self._sender.exchange(request, self._key.variable, request_id=None, member=None)
            if response.status != 200:
                raise status_error(response, key_variable=self._key.variable)
            return response

        failed: TransportError
        try:
            wire = self._transport.metadata_retry.run(lambda _: self._protocol.describe(fetch))
            if not isinstance(wire, Wire):
                raise ConfigError(
                    f"Expected describe() of the protocol {self._protocol_name} to return a Wire, got "
                    f"{type(wire).__name__}. Correct the protocol."
                )
            return wire
        except NotSentError:
            raise
        except TransportError as error:
            failed = TransportError(
                masked(f"The platform's metadata could not be read. {error.args[0]}", self._key.variable),
                platform=self._name,
                charge=ChargeState.REFUNDED,
                retryable=error.retryable,
                retry_after=error.retry_after,
                status=error.status,
            )
            failed.attempt, failed.trouble = error.attempt, error.trouble
        except ConfigError as error:
            failed = NotSentError(masked(str(error), self._key.variable), platform=self._name)
        raise failed

    def _heed(self, response: Response, whose: str) -> None:
        """Keep to the limits that a response states: their pace, and a wait where nothing is left for now."""
        self.throttle.keep_to(whose, policies(response.headers))
        wait = exhausted_s(response.headers, now=time.time())
        if wait is not None:
            self.throttle.hold(whose, wait)


def _body(response: Response, wire: Wire) -> bytes:
    """Return what a response is read from: its status, the headers that its protocol reads, and its body."""
    headers = {name: response.headers[name] for name in wire.reads_headers if name in response.headers}
    return json.dumps([response.status, headers]).encode() + b"\n" + response.body


def _unpacked(body: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, said = body.partition(b"\n")
    status, headers = json.loads(head)
    return status, headers, said


def _protocol(
    given: str | Describes, model: str | None, classes: tuple[str, ...], options: dict[str, Any]
) -> tuple[str, Describes]:
    """Return the name under which a platform's answers are kept, and the protocol."""
    if isinstance(given, str):
        return given, create_protocol(given, model=model, classes=classes, **options)
    if not callable(getattr(given, "describe", None)) or isinstance(given, type):
        raise ConfigError(
            "Expected protocol as a name, or as an object with a method describe(fetch) that returns a Wire, got "
            f"{type(given).__name__}. See docs/guests.md."
        )
    unused = sorted(options) + (["model"] if model is not None else [])
    if unused:
        raise ConfigError(
            f"Expected the options of a protocol that is an object in the object, got {', '.join(unused)} beside it. "
            "Give them where you make the object."
        )
    name = getattr(given, "name", None)
    return (name if isinstance(name, str) and name else type(given).__name__), given

"""The hub as a member's machine sees it: what may be repeated is, and no word of a reply is taken unchecked."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
import requests.auth
import tenacity
import urllib3

from ttca.data.decoding import decode_rgb
from ttca.errors import ConfigError, DataError, ImageError, TTCAError
from ttca.images import Images, check_images
from ttca.masking import masked, secret
from ttca.platforms.addresses import checked_url
from ttca.platforms.base import Platform, PlatformInfo
from ttca.platforms.keys import secret_problem
from ttca.platforms.limits import retry_after_s
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.sending import certificate_problem, check_ca, never_connected, new_session, speaks_plain
from ttca.signing import check_key, check_lease, lease_bytes
from ttca.telling import tell_retry

__all__ = ["MOST_QUERIES", "HandedOut", "HubAccess", "HubClient", "HubError", "NothingNow", "Reply", "images_of"]

#: The most queries of one lease.
MOST_QUERIES = 64
_VARIABLE = re.compile(r"TTCA_HUB_[A-Za-z0-9_]+")
# As the hub names leases; nothing that could lead a request to another path.
_LEASE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LARGEST = 2**63 - 1
# No hub needs a member to wait for longer than a leap year.
_LONGEST_WAIT_S = 366 * 86400.0
_MOST_BYTES = 256 * 2**20
#: Statuses of a hub that is away, 0 where nothing that could be read came; what it says then may change.
_AWAY = (0, 502, 503, 504)


class HubError(TTCAError):
    """The hub cannot be reached, refuses the member, or speaks otherwise than expected."""

    def __init__(self, message: str, *, kind: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.status, self.retry_after = kind, status, retry_after

    @property
    def away(self) -> bool:
        """Whether the hub may be back in a moment."""
        return self.status in _AWAY and self.kind != "certificate"


@dataclass(frozen=True, kw_only=True)
class HubAccess:
    """Which hub, and how a member's machine enters and knows it.

    Parameters
    ----------
    url : str
        HTTPS off this machine.
    token_variable : str
        Name of the variable with the hub's token, starting with ``TTCA_HUB_``. Its value is ``token``, or ``host
        token``, which binds the token to one host.
    key : str, optional
        The collective's public key: leases that it did not sign for this platform are not asked.
    ca : str, optional
        A PEM file with the certificate of the collective's own authority; its certificates alone are then believed.

    Raises
    ------
    ConfigError
        If the URL, the variable's name or the file is not allowed.
    SignatureError
        If ``key`` is no public key.
    """

    url: str
    token_variable: str
    key: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        if not _VARIABLE.fullmatch(self.token_variable):
            raise ConfigError(
                "Expected token_variable to be the name of an environment variable that starts with TTCA_HUB_, never "
                "the token itself."
            )
        object.__setattr__(self, "url", checked_url(self.url)[0])
        if self.key is not None:
            object.__setattr__(self, "key", check_key(self.key))
        check_ca(self.ca)


@dataclass(frozen=True)
class HandedOut:
    """What the hub handed out under the name that was wished for: its own name for it, images and a signature."""

    wished: str
    name: str
    images: list[str]
    signature: str


@dataclass(frozen=True)
class NothingNow:
    """That the hub has no query now: when to ask again, and when what is out is free again, as far as it says."""

    wait_s: float
    free_in_s: float | None = None


class _Token(requests.auth.AuthBase):
    """Puts the token into a request as it goes out, so that no frame or exception of ours holds it."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {secret(self._variable)}"
        return request


class HubClient:
    """The hub's API. Safe to use from many threads.

    Parameters
    ----------
    access : HubAccess
    patience_s : float
        How long to wait for a hub that is away.
    sleep : callable
        Seconds to wait.
    hurried : callable
        Whether there is no time to wait for a hub that is away.
    say : callable
        Takes the sentence that tells people that the hub is away, or back: once for each time.

    Raises
    ------
    ConfigError
        If the token is missing, or bound to another host.
    """

    def __init__(
        self,
        access: HubAccess,
        *,
        patience_s: float,
        sleep: Callable[[float], Any],
        hurried: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url, host, _ = checked_url(access.url)
        problem = secret_problem(access.token_variable, host, "token")
        if problem is not None:
            raise ConfigError(problem)
        self._token_variable, self._ca = access.token_variable, access.ca
        self._patience_s, self._sleep, self._hurried = patience_s, sleep, hurried
        self._say, self._away, self._telling = say, False, threading.Lock()
        self._local = threading.local()

    def get(self, path: str) -> Reply:
        """Return what the hub says at a path."""
        return self._patiently("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """Bring something, and return what the hub says to it."""
        return self._patiently("POST", path, body)

    def check_platform(self, platform: Platform) -> PlatformInfo:
        """Return what a platform says of itself, or raise a ConfigError where the hub's members ask another one."""
        # The hub first: one that is away need not trouble the platform.
        fingerprint = self.get("/v1/action").text("fingerprint", "text", bool)
        info = platform.info
        # Whoever reads the same answers otherwise would be taken for a liar.
        if fingerprint != info.fingerprint_as_read:
            raise ConfigError(
                f"Expected the hub to use the platform in your own file ({info.name}), got a different fingerprint. Do "
                "not contribute. Compare URL, protocol, model, classes and options with whoever runs the hub. No query "
                "was sent."
            )
        return info

    def lease(self, size: int) -> HandedOut | NothingNow | None:
        """Return a lease of at most so many queries, or when to ask again, or None where there will be none."""
        name = secrets.token_urlsafe(16)
        given = self.post("/v1/leases", {"size": size, "name": name})
        lease = given.lease()
        if lease is not None:
            given.number("expires_at", _LARGEST, 0.0)
            return HandedOut(name, lease, given.images(size), given.signature())
        if given.flag("done"):
            return None
        # Hubs of earlier versions do not say the second.
        free = given.number("free_in", _LONGEST_WAIT_S, 0.0) if given.says("free_in") else None
        return NothingNow(given.number("retry_after", _LONGEST_WAIT_S, 1.0), free)

    def _patiently(self, method: str, path: str, body: dict[str, Any] | None) -> Reply:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, HubError) and e.away and not self._hurried()),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_delay(self._patience_s),
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )
        said: Reply = retrying(self._once, method, path, body)
        with self._telling:
            if self._away:
                self._away = False
                self._say(f"The hub at {self.url} is back.")
        return said

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Say that the hub is away, when it is first met: silence would be taken for work."""
        error = None if state.outcome is None else state.outcome.exception()
        if not isinstance(error, HubError):
            return
        tell_retry(state.attempt_number, state.upcoming_sleep, error)
        with self._telling:
            if not self._away:
                self._away = True
                self._say(f"{error} Trying again for up to {self._patience_s:g} s. It is safe to interrupt.")

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Reply:
        status, headers, content = self._sent(method, path, body)
        try:
            read = read_json(content)
        except UnreadableError:
            read = None
        said: dict[str, Any] = read if isinstance(read, dict) else {}
        if status == 200 and not said:
            # Cut short on its way: everything may be asked again.
            raise HubError(f"Expected JSON from the hub at {self.url}, got something else.", status=0)
        if status != 200:
            sentence, kind = said.get("error"), said.get("kind")
            if not isinstance(sentence, str) or not sentence.strip():
                sentence = f"status {status} and no sentence that says why"
            if status == 404 and not isinstance(kind, str):
                raise HubError(
                    f"Expected a hub at {self.url}, got a server that knows no {path}. Check the hub's address.",
                    status=status,
                )
            raise HubError(
                f"The hub at {self.url} says: {self._shown(sentence, 1000)}",
                kind=kind if isinstance(kind, str) and kind != "certificate" else "",
                status=status,
                retry_after=retry_after_s(headers, now=time.time()),
            )
        return Reply(said)

    def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request, and return status, headers and body of what came back."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session(self._ca)
        certificate = None
        try:
            reply = session.request(
                method,
                self.url + path,
                json=body,
                auth=_Token(self._token_variable),
                timeout=(5.0, 60.0),
                allow_redirects=False,
                stream=True,
            )
            with contextlib.closing(reply):
                content = reply.raw.read(_MOST_BYTES + 1, decode_content=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            problem = f": {self._shown(str(error), 300)}"
            if isinstance(error, requests.RequestException):
                certificate = certificate_problem(error, "[contribute]")
                if speaks_plain(error):
                    certificate = "an answer without TLS. Check the hub's address: it seems to speak http."
                elif never_connected(error):
                    problem = " no connection (refused, or no such host)"
        else:
            if len(content) > _MOST_BYTES:
                raise HubError(f"Expected at most {_MOST_BYTES} bytes from the hub, got more.", status=200)
            return reply.status_code, reply.headers, content
        # Raised out here, so that no exception of requests, which holds the sent headers, becomes its context.
        if certificate is not None:
            raise HubError(f"Expected the hub at {self.url} to answer, got {certificate}", kind="certificate")
        raise HubError(f"Expected the hub at {self.url} to answer, got{problem}. Is it running?", status=0)

    def _shown(self, text: str, length: int) -> str:
        """Return what a stranger wrote, short, on one line and without the token."""
        return excerpt(masked(text, self._token_variable), length)


class Reply:
    """What the hub said. Each field is checked when it is read; what came instead is not shown, for it may be a key."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def text(self, name: str, what: str, sound: Callable[[str], object]) -> str:
        """Return a text that is as described."""
        value = self._said.get(name)
        if not isinstance(value, str) or not sound(value):
            raise self._wrong(name, what)
        return value

    def lease(self) -> str | None:
        """Return the name of a lease, None where there is none."""
        if self._said.get("lease") is None:
            return None
        return self.text("lease", "1 to 64 letters, digits, _ or -", _LEASE.fullmatch)

    def images(self, most: int) -> list[str]:
        """Return the texts of a lease's images."""
        value = self._said.get("images")
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or not 1 <= len(value) <= most:
            raise self._wrong("images", f"1 to {most} images, no more than asked for")
        return value

    def signature(self) -> str:
        """Return the signature of a lease, empty where there is none."""
        return self.text("signature", "text", bool) if self._said.get("signature") is not None else ""

    def count(self, name: str) -> int:
        """Return a whole number of 0 or more."""
        value = self._said.get(name)
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise self._wrong(name, "a whole number of 0 or more")
        return value

    def number(self, name: str, most: float, otherwise: float) -> float:
        """Return a number of 0 or more, or what holds where the hub does not say."""
        value = self._said.get(name)
        if value is None:
            return otherwise
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise self._wrong(name, f"a number from 0 to {most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return whether something is so; it is not where the hub does not say."""
        value = self._said.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def says(self, name: str) -> bool:
        """Whether the hub says anything by that name."""
        return self._said.get(name) is not None

    def part(self, name: str) -> Reply:
        """Return what stands under a name, to be read as this is."""
        value = self._said.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return Reply(value)

    def rows(self, name: str, most: int) -> list[Reply]:
        """Return a list of at most so many objects, each to be read as this is."""
        value = self._said.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(row, dict) for row in value):
            raise self._wrong(name, f"a list of at most {most} objects")
        return [Reply(row) for row in value]

    def _wrong(self, name: str, what: str) -> HubError:
        got = "something else" if self._said.get(name) is not None else "none"
        return HubError(
            f"Expected {name} from the hub as {what}, got {got}. Ask whoever runs the hub to correct it.", status=200
        )


def images_of(lease: HandedOut, info: PlatformInfo, key: str | None) -> Images:
    """Return the images of a lease, checked like a stranger's.

    Parameters
    ----------
    lease : HandedOut
    info : PlatformInfo
        Of the platform that is to be asked.
    key : str, optional
        The collective's public key, under which the lease must be signed.

    Raises
    ------
    SignatureError, HubError
    """
    if key is not None:
        # Under the name that was wished for: a signed lease of another time or member is none of ours.
        check_lease(lease_bytes(lease.wished, info.fingerprint_as_read, lease.images), lease.signature, key)
    shape = info.image_shape
    try:
        files = [base64.b64decode(text, validate=True) for text in lease.images]
        return check_images(np.stack([decode_rgb(file, size=shape[:2]) for file in files]), shape=shape)
    except (binascii.Error, ValueError, TypeError, DataError, ImageError):
        raise HubError(f"Expected PNG images of shape {shape} in base64 from the hub, got something else.") from None

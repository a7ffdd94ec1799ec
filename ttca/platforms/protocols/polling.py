"""Answers that come later: an API that takes an image, gives an address, and is asked there until it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ttca.errors import ConfigError
from ttca.platforms.protocols import Response
from ttca.platforms.protocols.places import check_place, lies_at
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.protocols.writing import Writing

__all__ = ["First", "Poll", "table_of"]


@dataclass(frozen=True, kw_only=True)
class Poll:
    """Where the result of a submitted image lies, and when it is done. Polls cost no query.

    Parameters
    ----------
    url : str, optional
        JMESPath, in the first answer: the URL of the result, whole, or below the platform's.
    header : str, optional
        The header of the first answer that holds it (``Operation-Location``), instead.
    until : str, optional
        JMESPath, true of the answer that is final. Without it the first one with status 200 is, and none with 202.
    failed : str, optional
        JMESPath, true of the answer that says that there will be none.
    every_s : float
        Seconds between two polls, unless the platform asks for more.
    within_s : float
        Seconds after which nobody waits any more; never less than ``every_s``.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    url: str | None = None
    header: str | None = None
    until: str | None = None
    failed: str | None = None
    every_s: float = 1.0
    within_s: float = 120.0

    def __post_init__(self) -> None:
        if (self.url is None) == (self.header is None):
            raise ConfigError(
                "Expected url or header in poll, got both or neither. Say where the first answer holds the URL."
            )
        if self.header is not None and (not isinstance(self.header, str) or not self.header.strip()):
            raise ConfigError(f"Expected header in poll as the name of a header, got {self.header!r}. Correct it.")
        for name in ("url", "until", "failed"):
            check_place(f"{name} in poll", getattr(self, name))
        for name in ("every_s", "within_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"Expected {name} in poll in seconds, more than 0, got {value!r}. Correct it.")
        if self.within_s < self.every_s:
            raise ConfigError(
                f"Expected within_s in poll of at least every_s, got {self.within_s:g} and {self.every_s:g}: no poll "
                "would be sent. Correct one of them."
            )

    def address(self, response: Response) -> str | None:
        """Return the URL that a response gives, None where it gives none."""
        if self.header is not None:
            return response.headers.get(self.header.lower())
        try:
            found = lies_at("url", self.url, read_json(response.body))
        except UnreadableError:
            return None
        return found if isinstance(found, str) and found else None

    def is_done(self, said: object, response: Response, *, first: bool) -> bool:
        """Whether nothing more will come.

        Parameters
        ----------
        said : JSON value
            What the response says, None where it says nothing readable.
        response : Response
        first : bool
            Whether it answers the submission, and not a poll.
        """
        if self.has_failed(said):
            return True
        if self.until is not None or response.status == 202:
            return self.is_final(said, response)
        return self.address(response) is None if first else response.status == 200

    def is_final(self, said: object, response: Response) -> bool:
        """Whether ``until`` is true of what a response says; without it, whether it does not say "accepted"."""
        return response.status != 202 if self.until is None else self._true_of(said, "until")

    @property
    def advice(self) -> str:
        """What to check where polls are answered and none is final."""
        if self.until is None:
            return "No poll had status 200: say until in poll. If the platform needs longer, raise within_s."
        missing = " Say failed too, if a result may never come." if self.failed is None else ""
        return (
            f"Check until in poll, which was never true: {excerpt(self.until)!r}.{missing} If the platform needs "
            "longer, raise within_s."
        )

    def no_address(self, response: Response) -> str:
        """Return the sentence for a first answer that gives no URL: what it does give."""
        try:
            said = read_json(response.body)
        except UnreadableError:
            said = None
        if isinstance(said, dict):
            body = f"the JSON names {excerpt(', '.join(said) or 'none', 400)}"
        else:
            body = f"the body {excerpt(response.body)!r}"
        where = f"in the header {self.header}" if self.url is None else f"at {self.url!r}"
        return (
            f"Expected the URL of the result {where}, got status {response.status}, the headers "
            f"{excerpt(', '.join(sorted(response.headers)) or 'none', 400)}, and {body}. Correct poll."
        )

    def has_failed(self, said: object) -> bool:
        """Whether ``failed`` is true of it."""
        return self.failed is not None and self._true_of(said, "failed")

    def _true_of(self, said: object, name: str) -> bool:
        try:
            return bool(lies_at(name, getattr(self, name), said))
        except UnreadableError:
            return False


@dataclass(frozen=True, kw_only=True)
class First(Writing):
    """The first of two requests, and what of its answer the second one needs.

    Parameters
    ----------
    token : str
        JMESPath: what it gives; it stands as ``{token}`` in the second one's path, body or fields.
    path, method, send, …
        See :class:`~ttca.platforms.protocols.writing.Writing`; ``json`` unless said otherwise.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    send: Any = "json"
    token: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.token, str) or not self.token:
            raise ConfigError(
                "Expected token in first, got none. Say where its answer holds what the second request needs."
            )
        check_place("token in first", self.token)
        if self.many:
            raise ConfigError('Expected one image in first, got a place for several. Use "{image}".')

    def found(self, response: Response) -> object:
        """Return what the answer gives.

        Raises
        ------
        UnreadableError
            If it gives nothing, or more than a text or a number.
        """
        found = lies_at("token", self.token, read_json(response.body))
        if found in (None, "") or not isinstance(found, str | int | float):
            raise UnreadableError(
                f"Expected token at {self.token!r} of the first answer, got {excerpt(response.body)!r}."
            )
        return found


def table_of(kind: Any, name: str, given: object) -> Any:
    """Return a dataclass made of a table of the action file.

    Raises
    ------
    ConfigError
        If it is no table, or has a key that is not known.
    """
    known = [f.name for f in fields(kind)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"Expected {name} as a table ({', '.join(known)}), got {type(given).__name__}. Correct it.")
    unknown = sorted(set(map(str, given)) - set(known))
    if unknown:
        raise ConfigError(f"Expected {name} with {', '.join(known)}, got {', '.join(unknown)}. Remove or correct them.")
    return kind(**given)

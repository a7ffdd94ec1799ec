"""Access tokens that end: bought with a key when they are needed, renewed before they end and once they are refused."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable

from ttca.errors import ChargeState, TransportError
from ttca.masking import hide_token
from ttca.platforms.protocols import Response
from ttca.platforms.protocols.reading import excerpt

__all__ = ["Token", "Tokens"]

# A token is renewed so long before it ends, but never before nine tenths of its life are over.
_BEFORE_S, _LIFE = 60.0, 0.9
# If a renewal fails while the token still holds, the next one is tried after this share of what is left.
_TRY_AGAIN = 0.25
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


class Token:
    """One access token. It prints without its value.

    Parameters
    ----------
    value : str
    renew_at, ends : float
        By the clock of whoever keeps it.
    """

    __slots__ = ("ends", "renew_at", "value")

    def __init__(self, value: str, *, renew_at: float, ends: float) -> None:
        self.value, self.renew_at, self.ends = value, renew_at, ends


class _Place:
    """Where the token of one variable is, how often one was asked for, and what came of the last time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token: Token | None = None
        self.tries = 0
        self.last: Token | TransportError | None = None


class Tokens:
    """The access tokens of all who ask one platform, one for each variable. Safe to use from many threads.

    Parameters
    ----------
    ask : callable
        Sends the token request with the key in a variable, once.
    refusal : callable
        Returns the error for a status other than 200.
    url : str
        The token endpoint's, for errors.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self,
        ask: Callable[[str], Response],
        refusal: Callable[[Response], TransportError],
        *,
        url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._refusal, self._url, self._clock = ask, refusal, url, clock
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    def ready(self, variable: str, member: str | None, *, refused: Token | None = None) -> Token:
        """Return a token that can be sent; ask for one where there is none, it ends soon, or it was refused.

        One thread asks, and those who come meanwhile take what it gets, be it an error: nobody waits for two requests.

        Raises
        ------
        TransportError
            If none can be had. No query was sent, so none is charged.
        """
        with self._lock:
            place = self._places.setdefault(variable, _Place())
            tries = place.tries
        with place.lock:
            found = self._found(place, variable, asked=place.tries != tries, refused=refused)
        if isinstance(found, Token):
            return found
        # A new one for each: whoever catches it adds words and a traceback of their own.
        raise TransportError(
            str(found.args[0]),
            platform=self._url,
            charge=ChargeState.REFUNDED,
            retryable=found.retryable,
            retry_after=found.retry_after,
            status=found.status,
            member=member,
        )

    def _found(self, place: _Place, variable: str, *, asked: bool, refused: Token | None) -> Token | TransportError:
        """Return a token that can be sent, or why there is none; ``asked`` says that another thread just asked."""
        token, last, now = place.token, place.last, self._clock()
        usable = None if token is refused else token
        if last is None or not asked:
            if usable is not None and now < usable.renew_at:
                return usable
            last = place.last = self._bought(variable, now)
            place.tries += 1
            if isinstance(last, Token):
                place.token = last
            elif token is not None:
                token.renew_at = now + _TRY_AGAIN * max(0.0, token.ends - now)
        if isinstance(last, Token):
            return last
        return usable if usable is not None and now < usable.ends else last

    def _bought(self, variable: str, now: float) -> Token | TransportError:
        """Return a new token or what went wrong, which is raised where no frame holds a token."""
        try:
            response = self._ask(variable)
        except TransportError as error:
            return self._failed(f"No access token came, so no query was sent. {error.args[0]}", error)
        if response.status in (400, 401, 403):
            return self._failed(
                f"Expected an access token from {self._url}, got status {response.status} ({excerpt(response.body)}). "
                f"Check the id and the secret in {variable}, and url, scope and key_in of token_from."
            )
        if response.status != 200:
            refusal = self._refusal(response)
            return self._failed(f"No access token came, so no query was sent. {refusal.args[0]}", refusal)
        found = _read(response.body, now)
        if isinstance(found, str):
            return self._failed(f"Expected an access token from {self._url}, got {found}. Check url of token_from.")
        hide_token(variable, found.value)
        return found

    def _failed(self, sentence: str, cause: TransportError | None = None) -> TransportError:
        """Return an error of the token request as one of the queries that were not sent for it."""
        return TransportError(
            sentence,
            platform=self._url,
            charge=ChargeState.REFUNDED,
            retryable=cause is not None and cause.retryable,
            retry_after=None if cause is None else cause.retry_after,
            status=None if cause is None else cause.status,
        )


def _read(body: bytes, now: float) -> Token | str:
    """Return the token in an answer (RFC 6749, section 5.1), or what was found instead, without quoting it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "an answer that is not JSON"
    if not isinstance(said, dict):
        return "an answer that is no JSON object"
    value, kind, left = said.get("access_token"), said.get("token_type", "bearer"), said.get("expires_in")
    if not isinstance(value, str) or not value or not _VISIBLE.issuperset(value):
        return "an answer without an access_token in visible ASCII"
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "a token that is no bearer token"
    if isinstance(left, str):
        # Some services write the number in quotes.
        left = int(left) if left.isascii() and left.isdecimal() and len(left) < 16 else math.nan
    if left is None:
        return Token(value, renew_at=math.inf, ends=math.inf)
    if type(left) not in (int, float) or not 0 <= left < math.inf:
        return "an expires_in that is no number of seconds"
    return Token(value, renew_at=now + max(_LIFE * left, left - _BEFORE_S), ends=now + left)

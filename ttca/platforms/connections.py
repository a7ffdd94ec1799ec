"""Connections: how many a server bears at once, and how long each may take to say what it wants."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from ttca.errors import ConfigError

__all__ = ["ConnectionLimits", "bounded_protocol"]


def _half_of_the_descriptors() -> int:
    """Return how many connections leave room for the ledger's files, where the system allows few."""
    if os.name != "posix":
        return 512
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 512 if soft == resource.RLIM_INFINITY else max(8, min(512, soft // 2))


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What strangers may take of a server before it knows who they are.

    Parameters
    ----------
    connections : int
        At once. One more, and the connection that has said nothing for longest is closed; where all are being
        answered, the new one is. By default 512, or half of the descriptors that the system allows.
    header_s : float
        Seconds for a TLS handshake, and again until a request's headers are there.
    body_s : float
        Seconds for a request's body.
    answer_s : float
        Seconds until an answer is given, and again until the client has taken it.

    Raises
    ------
    ConfigError
        If a number is not above 0.

    Notes
    -----
    uvicorn alone closes a connection that idles *after* an answer. It waits for ever for a first request, for the rest
    of one, and for a client that does not take its answer; and its ``limit_concurrency`` refuses the next honest
    request, while the silent connections stay.
    """

    connections: int = field(default_factory=_half_of_the_descriptors)
    header_s: float = 10.0
    body_s: float = 60.0
    answer_s: float = 120.0

    def __post_init__(self) -> None:
        if not min(self.connections, self.header_s, self.body_s, self.answer_s) > 0:
            raise ConfigError(f"Expected limits of connections above 0, got {self}. Correct it.")


class _Place:
    """One connection's place among all of them: it has a deadline, and may be closed to make room."""

    def __init__(self, places: _Places, transport: asyncio.Transport) -> None:
        self._places, self._transport = places, transport
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_taking(self) -> bool:
        """Whether the other side has yet to take some of an answer."""
        return self._transport.get_write_buffer_size() > 0

    def expect(self, seconds: float, *, silent: bool) -> None:
        """Close the connection after so many seconds, unless something else is expected before.

        ``silent``: it owes a request, so that it may be closed for others at any time.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)
        self._places.note(self, silent)

    def close(self) -> None:
        """Close the connection at once, whatever it has not sent or taken yet."""
        self.leave()
        self._transport.abort()

    def leave(self) -> None:
        """Give the place back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._places.leave(self)


class _Places:
    """The places of one server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[_Place] = set()
        # Those that owe a request, in the order in which they began to.
        self._silent: dict[_Place, None] = {}

    def take(self, transport: asyncio.Transport) -> _Place | None:
        """Return a place for a new connection; where none is free, somebody loses theirs, or there is none."""
        if len(self._taken) >= self._most:
            loser = next((place for place in self._silent if not place.is_taking), None)
            if loser is None:
                return None
            loser.close()
        place = _Place(self, transport)
        self._taken.add(place)
        return place

    def note(self, place: _Place, silent: bool) -> None:
        """Write down whether a connection owes a request."""
        self._silent.pop(place, None)
        if silent:
            self._silent[place] = None

    def leave(self, place: _Place) -> None:
        """Forget a place."""
        self._taken.discard(place)
        self._silent.pop(place, None)


class _Bounded(H11Protocol):
    """HTTP with a deadline for everything that the other side does."""

    def __init__(self, place: _Place, limits: ConnectionLimits, **given: Any) -> None:
        super().__init__(**given)
        self._place, self._limits, self._owed = place, limits, ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def on_response_complete(self) -> None:
        # First: what follows may find the next request in what was sent already.
        self._owed = "nothing"
        self._place.expect(self._limits.answer_s, silent=True)
        super().on_response_complete()
        if not self.cycle.response_complete or self.conn.trailing_data[0]:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._place.leave()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Set the deadline of what the connection owes now; a drip of bytes is no reason to wait for longer."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            owed, seconds = "header", self._limits.header_s
        elif self.cycle.more_body:
            owed, seconds = "body", self._limits.body_s
        else:
            owed, seconds = "answer", self._limits.answer_s
        if owed != self._owed:
            self._owed = owed
            self._place.expect(seconds, silent=owed == "header")


class _Arrival(asyncio.Protocol):
    """A connection that was just accepted: it gets a place, and shakes hands where that is wanted.

    asyncio's own TLS server says nothing of a connection before it shook hands, and gives it a minute for that.
    """

    def __init__(
        self,
        http: Callable[[_Place], _Bounded],
        places: _Places,
        limits: ConnectionLimits,
        context: ssl.SSLContext | None,
    ) -> None:
        self._http, self._places, self._limits, self._context = http, places, limits, context
        self._early: list[bytes] = []
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"Expected a transport that reads and writes, got {transport!r}.")
        place = self._places.take(transport)
        if place is None:
            transport.abort()
        elif self._context is None:
            self._hand_on(transport, place)
        else:
            place.expect(self._limits.header_s, silent=True)
            # Nothing is read before the handshake reads it.
            transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._shake(transport, place, self._context))

    def data_received(self, data: bytes) -> None:
        # A request may come in the packet that ends the handshake.
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def _hand_on(self, transport: asyncio.Transport, place: _Place) -> None:
        http = self._http(place)
        transport.set_protocol(http)
        http.connection_made(transport)
        if self._early:
            http.data_received(b"".join(self._early))

    async def _shake(self, transport: asyncio.Transport, place: _Place, context: ssl.SSLContext) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._limits.header_s,
                ssl_shutdown_timeout=self._limits.header_s,
            )
        except OSError:  # ssl's errors and timeouts are such
            secure = None
        if secure is None or self._lost:
            place.close()
        else:
            self._hand_on(secure, place)


def bounded_protocol(limits: ConnectionLimits, context: ssl.SSLContext | None = None) -> type[asyncio.Protocol]:
    """Return what uvicorn makes of each connection (its option ``http``), with a deadline for each thing it owes.

    Parameters
    ----------
    limits : ConnectionLimits
    context : ssl.SSLContext, optional
        For HTTPS; uvicorn itself must then be told of no certificate.
    """
    places = _Places(limits.connections)

    class Arrival(_Arrival):
        def __init__(self, **given: Any) -> None:
            super().__init__(lambda place: _Bounded(place, limits, **given), places, limits, context)

    return Arrival

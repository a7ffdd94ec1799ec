"""Answers that come in pieces: server-sent events, and JSON one value a line.

Sources: the event stream format of https://html.spec.whatwg.org/multipage/server-sent-events.html, and
https://github.com/ndjson/ndjson-spec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ttca.errors import ConfigError
from ttca.platforms.protocols.places import check_place, lies_at
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json

__all__ = ["Event", "EventReader", "Events", "read_lines"]

#: What ends a stream, as a message of its own, without being one.
_DONE = "[DONE]"


@dataclass(frozen=True)
class Event:
    """One event of a stream.

    Parameters
    ----------
    name : str
        ``"message"`` where the stream names none.
    data : str
        Its lines, with ``\\n`` between them.
    """

    name: str
    data: str


class EventReader:
    """Reads a stream as it comes; what is not yet whole waits for more."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._name, self._data = "", list[str]()

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are whole with these bytes."""
        self._rest += chunk
        if not self._begun and len(self._rest) >= 3:
            self._begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        if not self._begun:
            return []
        *lines, self._rest = _lines(self._rest)
        return [event for line in lines if (event := self._line(line.decode("utf-8", "replace"))) is not None]

    def _line(self, line: str) -> Event | None:
        """Take one line; an empty one ends an event, and an event without data is none."""
        if not line:
            event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event if event is None or event.data else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None


def _lines(text: bytes) -> list[bytes]:
    """Return the lines that have ended, by CRLF, LF or CR, and the rest, which may be empty."""
    # A CR at the end may be the first half of a CRLF.
    held = text.endswith(b"\r")
    body = text[:-1] if held else text
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if held:
        lines[-1] += b"\r"
    return lines


@dataclass(frozen=True, kw_only=True)
class Events:
    """Which event of a stream holds the answer.

    Parameters
    ----------
    event : str
        Its name; ``"message"`` where the stream names none.
    until : str, optional
        A JMESPath expression that is true of the data of that event, where others have its name too.
    error_event : str
        The name of the event that says what failed.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    event: str = "message"
    until: str | None = None
    error_event: str = "error"

    def __post_init__(self) -> None:
        for name in ("event", "error_event"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"Expected {name} of events as the name of an event, got {value!r}. Correct it.")
        if self.event == self.error_event:
            raise ConfigError(f"Expected two names in events, got {self.event!r} for answers and errors. Correct one.")
        check_place("until of events", self.until)

    def ends(self) -> Callable[[bytes], bool]:
        """Return what takes a stream as it comes, and says when nothing of it is missing."""
        reader = EventReader()
        return lambda chunk: any(self._decides(event) for event in reader.feed(chunk))

    def answer(self, body: bytes) -> Event:
        """Return the event that answers, or that says what failed, whichever came first.

        Raises
        ------
        UnreadableError
            If the stream ended without one.
        """
        reader, named = EventReader(), False
        # An event that no empty line ends was cut off. A CR that ends the stream is a whole end of a line.
        for event in reader.feed(body + b"\n" if body.endswith(b"\r") else body):
            if event.data == _DONE:
                break
            if self._decides(event):
                return event
            named |= event.name == self.event
        advice = f"until was true of none: {self.until!r}" if named else "Name the event that answers in events"
        raise UnreadableError(
            f"Expected the event {self.event!r} in a stream of events, got {excerpt(body) or 'an empty body'!r}. "
            f"{advice}."
        )

    def _decides(self, event: Event) -> bool:
        if event.name == self.error_event or event.data == _DONE:
            return True
        if event.name != self.event:
            return False
        if self.until is None:
            return True
        try:
            return bool(lies_at("until", self.until, read_json(event.data.encode())))
        except UnreadableError:
            return False


def read_lines(body: bytes) -> list[Any]:
    """Return the JSON values of a body that has one a line; empty lines are none.

    Raises
    ------
    UnreadableError
        If a line is no JSON, or there is none.
    """
    values = [read_json(line) for line in body.split(b"\n") if line.strip()]
    if not values:
        raise UnreadableError("Expected one JSON value a line, got an empty body.")
    return values

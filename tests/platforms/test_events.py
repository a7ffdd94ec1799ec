"""Streams of events and JSON lines: what is read is what was written, however it was cut, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.platforms.protocols.events import Event, EventReader, Events, read_lines
from ttca.platforms.protocols.reading import UnreadableError

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)
EVENT = st.builds(
    Event,
    name=st.sampled_from(["message", "complete", "error", "ü"]),
    data=st.lists(LINE, min_size=1, max_size=3).map("\n".join).filter(bool),
)
END = st.sampled_from(["\n", "\r\n", "\r"])


def written(event: Event, end: str, *, spaced: bool, noise: str) -> str:
    """Return an event as a server writes it, with lines that say nothing."""
    gap = " " if spaced else ""
    lines = [f":{noise}", f"event:{gap}{event.name}", "id: 7", "retry: 10", "unknown"]
    # One space after the colon is no part of a value: a value that begins with one needs it.
    lines += [f"data: {line}" if spaced or line.startswith(" ") else f"data:{line}" for line in event.data.split("\n")]
    return end.join([*lines, "", ""])


@examples(200)
@given(st.data())
def test_a_stream_is_read_alike_however_it_is_cut(data: st.DataObject) -> None:
    """Every end of a line that the format knows, comments, other fields and a byte order mark; cut anywhere."""
    events = data.draw(st.lists(EVENT, max_size=4))
    end = data.draw(END)
    text = "".join(written(e, end, spaced=data.draw(st.booleans()), noise=data.draw(LINE)) for e in events)
    stream = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = EventReader()
    found: list[Event] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:stop])
    if end == "\r":
        # The last one may be the first half of a CRLF.
        found += reader.feed(b"\n")
    assert found == events


@examples(200)
@given(stream=st.binary(max_size=60) | st.text("dat:even \r\n{}[]DONE", max_size=60).map(str.encode))
def test_whatever_a_stream_holds_it_answers_or_is_unreadable(stream: bytes) -> None:
    """No bytes make the reader fail, and to read them in pieces decides no sooner than the whole does."""
    events = Events()
    ends = events.ends()
    early = any(ends(stream[i : i + 1]) for i in range(len(stream)))
    try:
        events.answer(stream)
        decided = True
    except UnreadableError:
        decided = False
    assert decided or not early or b"[DONE]" in stream


@pytest.mark.parametrize(
    ("stream", "events", "expected"),
    [
        (b"data: 1\n\ndata: 2\n\n", {}, "1"),
        (b'data: {"m": 0}\n\ndata: {"m": 1}\n\n', {"until": "m == `1`"}, '{"m": 1}'),
        (b"event: heartbeat\ndata: null\n\nevent: complete\ndata: 2\n\n", {"event": "complete"}, "2"),
        (b"event: error\ndata: null\n\nevent: complete\ndata: 2\n\n", {"event": "complete"}, "null"),
        (b"event: failed\ndata: bad\n\n", {"error_event": "failed"}, "bad"),
        (b"data: a\ndata: b\n\n", {}, "a\nb"),
        (b"data: 1\r\r", {}, "1"),
        (b"data: [DONE]\n\ndata: 1\n\n", {}, None),
        (b"data: 1\n", {}, None),
        (b"data\n\n", {}, None),
        (b"event: complete\n\n", {"event": "complete"}, None),
        (b"data: 1\n\n", {"event": "complete"}, None),
        (b"data: broken {\n\n", {"until": "m"}, None),
        (b"", {}, None),
    ],
)
def test_the_answer_is_the_event_that_the_table_names(
    stream: bytes, events: dict[str, Any], expected: str | None
) -> None:
    """An event of another name, one that was cut off, or [DONE] is no answer."""
    table = Events(**events)
    if expected is None:
        with pytest.raises(UnreadableError, match="stream of events"):
            table.answer(stream)
        return
    assert table.answer(stream).data == expected


def test_a_stream_in_which_until_is_never_true_says_so() -> None:
    """The event that was named did come: what to correct is until, not its name."""
    with pytest.raises(UnreadableError, match="until was true of none: 'm == `2`'"):
        Events(until="m == `2`").answer(b'data: {"m": 1}\n\n')
    with pytest.raises(UnreadableError, match="Name the event"):
        Events(until="m == `2`", event="complete").answer(b'data: {"m": 2}\n\n')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@examples(100)
@given(values=st.lists(JSON, min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n", "\n\n"]), last=st.booleans())
def test_lines_are_the_values_that_were_written(values: list[Any], end: str, last: bool) -> None:
    """One JSON value a line, as Python's own writer and reader have them; line separators in texts are no ends."""
    body = end.join(json.dumps(v, ensure_ascii=False) for v in values) + (end if last else "")
    assert read_lines(body.encode()) == [json.loads(json.dumps(v)) for v in values]


@pytest.mark.parametrize("body", [b"", b"\n\n", b"{}\nno\n", b'{"a": 1}{"b": 2}'])
def test_what_is_no_json_a_line_is_unreadable(body: bytes) -> None:
    """One broken line makes the whole unreadable: what it said, nobody knows."""
    with pytest.raises(UnreadableError):
        read_lines(body)

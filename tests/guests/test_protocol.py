"""A protocol from outside: an object, or a name that another package brings, takes part like one of ours."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.platforms.scripted import Exchange, scripted
from ttca.errors import AnswerError, ConfigError
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, NotSentError
from ttca.platforms.protocols import create_protocol, guests
from ttca.platforms.server import create_app
from ttca.pooling.ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "guests-protocol.md"
SOURCE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]


@contextmanager
def house() -> Iterator[str]:
    """Run a server that speaks the page's format, with the tiny world's model behind it; yields its URL."""

    def about(exchange: Exchange) -> None:
        exchange.reply(200, json.dumps({"model": "tiny-7", "image_shape": worlds.SHAPE}).encode())

    def ask(exchange: Exchange) -> None:
        lines = [bytes.fromhex(line.decode()) for line in exchange.body.splitlines()]
        images = np.frombuffer(b"".join(lines), np.uint8).reshape(-1, *worlds.SHAPE)
        exchange.reply(200, b"\n".join(json.dumps(row).encode() for row in worlds.model(images).tolist()))

    with scripted(ask) as server:
        server.on_get = about
        yield server.url


def page() -> dict[str, Any]:
    """Return what the page's code defines."""
    found: dict[str, Any] = {"__name__": "page"}
    exec(compile(SOURCE, str(PAGE), "exec"), found)
    return found


def test_the_pages_protocol_takes_part_in_a_whole_action(tmp_path: Path) -> None:
    """At most 30 lines, given as an object: the action certifies, measures and books as with a protocol of ours."""
    assert len(SOURCE.splitlines()) <= 30
    protocol = page()["Lines"](classes=worlds.CLASSES)
    with house() as url, HttpPlatform(url, classes=worlds.CLASSES, protocol=protocol) as platform:
        assert platform.info.identity == {"url": url, "protocol": "Lines", "model": "tiny-7"}
        with worlds.open_action(tmp_path / "guest", platform) as action:
            certificate = action.verify()
            row, _ = action.measure()
    with worlds.open_action(tmp_path / "ours", worlds.Recorder()) as action:
        assert action.verify().tests == certificate.tests
        assert action.measure()[0].queries == row.queries
    with Ledger(tmp_path / "guest" / "ledger.sqlite") as ledger:
        assert sum(ledger.paid().values()) >= row.queries > 0


def test_an_answer_that_is_none_is_the_guests_to_refuse() -> None:
    """What the wire calls unreadable is charged as such, and a wire that is none is found out before a query."""
    protocol = page()["Lines"](classes=worlds.CLASSES)
    image = np.zeros((1, *worlds.SHAPE), np.uint8)
    with house() as url, HttpPlatform(url, classes=worlds.CLASSES, protocol=protocol) as platform:
        protocol.classes = worlds.CLASSES[:2]
        with pytest.raises(AnswerError):
            platform.attempt(image, Credential("ada"), request_id="r")

    class Nothing:
        def describe(self, fetch: object) -> str:
            return "no wire"

    with (
        house() as url,
        HttpPlatform(url, classes=worlds.CLASSES, protocol=Nothing()) as platform,  # type: ignore[arg-type]
        pytest.raises(NotSentError, match="return a Wire"),
    ):
        platform.attempt(image, Credential("ada"), request_id="r")


@pytest.mark.parametrize(
    ("protocol", "options"),
    [(object(), {}), (7, {}), ("the class", {}), ("the object", {"model": "m"}), ("the object", {"resolution": 0.1})],
)
def test_what_is_no_protocol_or_has_options_beside_it_is_refused(protocol: Any, options: dict[str, Any]) -> None:
    """An object without describe, a class in its object's place, and options that would be ignored are ConfigErrors."""
    kind = page()["Lines"]
    given = {"the class": kind, "the object": kind(classes=worlds.CLASSES)}.get(str(protocol), protocol)
    with pytest.raises(ConfigError, match="Expected"):
        HttpPlatform("http://127.0.0.1:1", classes=worlds.CLASSES, protocol=given, **options)


def install(folder: Path, entries: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package with these entry points on the path; it holds the page's code."""
    (folder / "ttca_guest.py").write_text(f"{SOURCE}\nNOTHING = 7\n\n\ndef silent(**_):\n    return object()\n")
    about = folder / "ttca_guest-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ttca-guest\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[ttca.protocols]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "ttca_guest", raising=False)


def test_another_package_brings_a_protocol_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point's name works wherever a name does, its options are checked, and no serving half is needed."""
    install(tmp_path, {"lines": "ttca_guest:Lines", "kserve-v2": "ttca_guest:Lines"}, monkeypatch)
    assert guests() == ["lines"]
    with house() as url, HttpPlatform(url, classes=worlds.CLASSES, protocol="lines", version=None) as platform:
        assert platform.info.identity["protocol"] == "lines"
        assert platform.attempt(
            np.zeros((2, *worlds.SHAPE), np.uint8), Credential("ada"), request_id="r"
        ).answered.all()
    for options in ({"tokn": 1}, {"model": "m"}):
        with pytest.raises(ConfigError, match="each option of the protocol lines"):
            create_protocol("lines", classes=worlds.CLASSES, **options)
    assert type(create_protocol("kserve-v2", model="m", classes=worlds.CLASSES)).__name__ == "KServeV2", "ours is first"
    with pytest.raises(ConfigError, match="asked, but not served"):
        create_app(worlds.Recorder(), protocol="lines")
    with pytest.raises(ConfigError, match="lines"):
        create_protocol("unheard-of", classes=worlds.CLASSES)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("ttca_guest:Missing", "Correct or uninstall"),
        ("no_such_module:Lines", "Correct or uninstall"),
        ("ttca_guest:NOTHING", "as a class or a function"),
        ("ttca_guest:silent", "to have a method describe"),
        ("ttca_guest:LinesWire", "to take its options"),
    ],
)
def test_a_broken_guest_is_named_by_a_sentence(
    value: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be loaded, is nothing to call or makes no protocol is a ConfigError that says which package."""
    install(tmp_path, {"broken": value}, monkeypatch)
    with pytest.raises(ConfigError, match=sentence):
        create_protocol("broken", classes=worlds.CLASSES, **({"about": 7} if "Wire" in value else {}))

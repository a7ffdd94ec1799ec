"""Tests of the ways a key can travel: it arrives as its platform reads it, and is seen nowhere else."""

from __future__ import annotations

import html
import json
import logging
import sqlite3
import traceback
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

import ttca
from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, Exchange, images, scripted
from tests.platforms.ways import SECRET, USER, VARIABLE, WAYS, Door, Way, guarded, parts_of, planted
from tests.pooling.anyhub import any_hub
from tests.pooling.scripted import patient
from ttca.config import read_contribution
from ttca.errors import ChargeState, ConfigError, TransportError, TTCAError
from ttca.masking import basic, hide_token, masked, masked_bytes, masked_everywhere
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Key, NotSentError, TokenFrom, Transport
from ttca.platforms.keys import add_key, no_place
from ttca.platforms.protocols import Request
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.sending import Sender
from ttca.pooling.contribute import contribute
from ttca.pooling.hub_client import HubAccess
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.streams import run_program

#: Where our own frames lie; a clone may itself be called ttca.
OURS = str(Path(ttca.__file__).parent)

ADA = Credential("ada")
ways = pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (VARIABLE, "TTCA_KEY_OWN"):
        monkeypatch.delenv(variable, raising=False)


# -- it arrives --------------------------------------------------------------------------------------------------


@ways
def test_a_key_arrives_as_its_platform_reads_it(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server lets the key in; a credential's own comes first; a wrong one is refused, uncharged."""
    monkeypatch.setenv(VARIABLE, way.value)
    wrong = "127.0.0.1 " + " ".join(f"not-{word}" for word in way.words.split())
    with guarded(way) as (server, door), way.open(server.url) as platform:
        for number in range(2):
            answers = platform.attempt(images(1, number), ADA, request_id=f"r{number}")
            assert answers.labels.tolist() == [CLASSES.index("dog")]
        monkeypatch.setenv("TTCA_KEY_OWN", way.value)
        monkeypatch.setenv(VARIABLE, wrong)
        platform.attempt(images(1, 2), Credential("ben", "TTCA_KEY_OWN"), request_id="r2")
        assert (len(door.bodies), door.refused) == (3, 0)
        with way.open(server.url) as another, pytest.raises(TransportError) as caught:
            another.attempt(images(1, 3), ADA, request_id="r3")
    assert caught.value.charge is ChargeState.REFUNDED
    assert not caught.value.retryable
    assert (len(door.bodies), door.refused) == (3, 0 if door.tokens else 1)


@ways
def test_a_member_contributes_in_every_way(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member's own file asks with the member's own key; the hub and the member's books hear nothing of it."""
    monkeypatch.setenv(VARIABLE, way.value)
    monkeypatch.setenv("TTCA_HUB_X", "a-token-of-the-hub")
    with guarded(way) as (server, door), any_hub() as (hub_url, hub):
        (tmp_path / "ada.toml").write_text(way.contribution(hub, hub_url, server.url))
        mine = read_contribution(tmp_path / "ada.toml")
        with mine.platform.open() as platform:
            done = contribute(
                HubAccess(url=hub_url, token_variable="TTCA_HUB_X"),
                platform,
                folder=mine.kept,
                key_variable=mine.platform.key_variable,
                effort=mine.contribute.effort(),
            )
        assert (done.queries, done.answered, len(door.bodies)) == (2, 2, 2)
        told = json.dumps(hub.brought) + "".join(map(repr, hub.tokens))
    kept = b"".join(path.read_bytes() for path in mine.kept.rglob("*") if path.is_file())
    assert not [s for s in planted(door) if s in told or s.encode() in kept]


TEXTS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def completed(content_type: str, body: bytes, values: list[str]) -> bytes:
    """Return a body as it goes out with two values for the key, its length as its header says."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.body = "POST", "http://127.0.0.1/", body
    prepared.headers = requests.structures.CaseInsensitiveDict({"Content-Type": content_type, "Content-Length": "0"})
    key = Key(place="body", names=("user", "secret"))
    request = Request("POST", "", {"Content-Type": content_type}, body)
    assert no_place(request, key) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_KEY_Y", " ".join(["127.0.0.1", *values]))
        assert add_key(prepared, key, "TTCA_KEY_Y", None) is None
    assert isinstance(prepared.body, bytes)
    assert prepared.headers["Content-Length"] == str(len(prepared.body))
    return prepared.body


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.lists(TEXTS, min_size=2, max_size=2), st.booleans())
def test_any_json_object_takes_a_key(said: dict[str, Any], values: list[str], spaced: bool) -> None:
    """Whatever the object holds, and however it is spaced, it gains the key's members and changes nothing else."""
    body = json.dumps(said, indent=1 if spaced else None).encode() + (b" \n" if spaced else b"")
    sent = json.loads(completed("application/x-amz-json-1.1+json; charset=utf-8", body, values))
    assert sent == {**said, "user": values[0], "secret": values[1]}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), st.lists(TEXTS, min_size=2, max_size=2))
def test_any_form_takes_a_key(said: dict[str, str], values: list[str]) -> None:
    """Form fields, urlencoded or in parts, gain the key's fields and change nothing else."""
    more = {"user": values[0], "secret": values[1]}
    sent = completed("application/x-www-form-urlencoded", urlencode(said).encode(), values)
    assert dict(parse_qsl(sent.decode(), keep_blank_values=True)) == {**said, **more}
    file = ("image.png", b"\x89PNG\r\n--x\r\n", "image/png")
    body, content_type = urllib3.encode_multipart_formdata({"image": file, "n": "1"}, boundary="0b")
    found = parts_of(content_type, completed(content_type, body, values))
    assert found == {"image": file[1], "n": b"1"} | {k: v.encode() for k, v in more.items()}


NO_PLACE: list[tuple[Request, Key, str]] = [
    (Request("POST", "", {"Content-Type": "image/png"}, b"\x89PNG"), Key(place="body", names=("k",)), "got image/png"),
    (Request("POST", "", {}, b"x"), Key(place="body", names=("k",)), "got neither"),
    (Request("POST", "", {"Content-Type": "application/json"}, b"[1]"), Key(place="body", names=("k",)), "JSON object"),
    (Request("POST", "", {"content-type": "text/json"}, b"{}"), Key(place="body", names=("k",)), "text/json"),
    (
        Request("POST", "", {"Content-Type": "application/json"}, b'{"k": 1'),
        Key(place="body", names=("j", "k")),
        "cannot be read",
    ),
    (
        Request("POST", "", {"Content-Type": "application/json"}, b'{"a": {"k": 2}, "k": 1}'),
        Key(place="body", names=("j", "k")),
        "leave k to the key, got it in its body",
    ),
    (
        Request("POST", "", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1&k="),
        Key(place="body", names=("k",)),
        "leave k to the key, got it in its body",
    ),
    (
        Request("POST", "", {"Content-Type": 'multipart/form-data; boundary="b"'}, b'--b\r\nx; name="k"\r\n'),
        Key(place="body", names=("k",)),
        "leave k to the key, got it in its body",
    ),
    (
        Request("POST", "", {"Content-Type": "multipart/form-data"}, b"--b\r\n"),
        Key(place="body", names=("k",)),
        "got multipart/form-data",
    ),
    (
        Request("POST", "see?a=1&k", {}, b""),
        Key(place="query", names=("k",)),
        "leave k to the key, got it in its query",
    ),
]


@pytest.mark.parametrize(("request_", "key", "said"), NO_PLACE)
def test_a_request_without_a_place_for_the_key_is_not_sent(
    request_: Request, key: Key, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the body is no object and no form, or has the key's name already, nothing is sent, and why is said."""
    monkeypatch.setenv(VARIABLE, " ".join(["127.0.0.1", *["a-planted-key"] * len(key.names)]))
    with scripted() as server:
        sender = Sender(server.url, key, Transport())
        with pytest.raises(NotSentError, match=said) as caught:
            sender.exchange(request_, VARIABLE, request_id="r", member="ada")
        sender.close()
        assert not server.requests
    assert caught.value.charge is ChargeState.REFUNDED


def test_a_name_deep_in_a_body_is_no_clash() -> None:
    """Only members of the object itself can clash with the key's names."""
    request = Request("POST", "", {"Content-Type": "application/json"}, b'{"a": {"k": 2}}')
    assert no_place(request, Key(place="body", names=("k",))) is None


def test_a_get_has_no_body_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched goes without a key that travels in bodies; in the query, where its name is there already (in the
    address of a poll, the key masked), it is written over."""
    monkeypatch.setenv(VARIABLE, f"127.0.0.1 {SECRET}")
    with scripted() as server:
        body, query = Key(place="body", names=("k",)), Key(place="query", names=("k",))
        for way, path in ((body, "v2"), (query, "v2"), (query, "v2?k=%2A%2A&a=1&%6B=&k&b=%26")):
            sender = Sender(server.url, way, Transport())
            sender.exchange(Request("GET", path), VARIABLE, request_id=None, member=None)
            sender.close()
        key = urlencode({"k": SECRET})
        assert [path for _, path, _ in server.requests] == ["/v2", f"/v2?{key}", f"/v2?a=1&b=%26&{key}"]


def test_each_attempt_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is tried again is signed as it goes out, so that its signature holds when it arrives."""
    way = WAYS["aws4"]
    monkeypatch.setenv(VARIABLE, way.value)
    with guarded(way) as (server, door), way.open(server.url) as platform:
        platform.attempt(images(1), ADA, request_id="r")
        monkeypatch.setenv(VARIABLE, "127.0.0.1 AKIAanotherUser0002 another-s3cret-of-aws")
        with pytest.raises(TransportError):
            platform.attempt(images(1), ADA, request_id="r")
        assert len(set(door.signatures)) == 2


# -- it is seen nowhere else -------------------------------------------------------------------------------------


def echoing(status: int) -> Callable[[Exchange], None]:
    """Return a script that says all it was sent, in body and headers, in every spelling."""

    def answer(exchange: Exchange) -> None:
        sent = f"{exchange.path} {exchange.headers} {exchange.body.decode('latin-1')}"
        said = {"label": sent, "quoted": quote(sent), "html": html.escape(sent), "json": json.dumps(json.dumps(sent))}
        line = quote(sent.replace("\r", "").replace("\n", ""), safe="/=+")
        exchange.reply(status, json.dumps(said).encode() + sent.encode(), {"Location": f"/?{line}", "X-Sent": line})

    return answer


def stall(exchange: Exchange) -> None:
    """Say nothing until the test is over."""
    exchange.server.released.wait(10)


@ways
@pytest.mark.parametrize("script", [*map(echoing, (200, 307, 429)), stall, Exchange.reset])
def test_no_error_log_or_repr_holds_what_was_made_of_a_key(
    way: Way,
    script: Callable[[Exchange], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Key, pair, signature and token are in no message, traceback, local variable or log, even where all is echoed."""
    monkeypatch.setenv(VARIABLE, way.value)
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    patience = {"read_timeout": 0.2} if script is stall else {}
    with guarded(way, script) as (server, door), way.section(server.url, **patience).open() as platform:
        with pytest.raises(TTCAError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        # A busy machine may stall before the platform does.
        assert len(door.bodies) == 1 or script is stall
        error = caught.value
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [f for f in shown.stack if f.filename.startswith(OURS)]
        assert frames
        texts = [
            str(error), repr(error), repr(vars(error)), repr(platform), repr(platform.info), repr(error.__context__),
            repr(way.section(server.url)), *map(repr, (f.locals for f in frames)), caplog.text,
        ]  # fmt: skip
    assert not [t for t in texts for s in planted(door) if s in t or quote(s, safe="") in t]


@ways
def test_where_sending_breaks_no_frame_holds_a_key(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug below us, with the request complete, leaves no local variable of ours that shows what was in it."""
    monkeypatch.setenv(VARIABLE, way.value)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", broken)
    with way.open("http://127.0.0.1:1") as platform, pytest.raises(RuntimeError) as caught:
        platform.attempt(images(1), ADA, request_id="r1")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [f.locals for f in shown.stack if f.filename.startswith(OURS)]
    assert len(frames) >= 3
    assert not [s for s in planted(Door()) if s in repr(frames)]


def test_where_signing_breaks_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever botocore raises, its frames with the secret are not in what we raise."""
    way = WAYS["aws4"]
    monkeypatch.setenv(VARIABLE, way.value)

    def broken(self: Any, request: Any) -> Any:
        raise RuntimeError(self.credentials.secret_key)

    monkeypatch.setattr("botocore.auth.SigV4Auth.add_auth", broken)
    with guarded(way) as (server, _), way.open(server.url) as platform:
        with pytest.raises(NotSentError, match="Expected botocore to sign the request, got RuntimeError") as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert not server.requests
    assert caught.value.__context__ is None
    assert not [s for s in planted(Door()) if s in str(caught.value)]


def test_a_token_endpoint_that_echoes_gives_nothing_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Id and secret that a token endpoint refuses and repeats are in no error and no log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(VARIABLE, f"127.0.0.1 {USER} not-{SECRET}")
    with guarded(WAYS["token"]) as (server, door), WAYS["token"].open(server.url) as platform:
        with pytest.raises(
            TransportError, match=r"invalid_client.*Check the id and the secret in TTCA_KEY_X"
        ) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not [
        s for s in planted(door) if s in f"{shown.partition('platform.attempt')[2]} {caught.value} {caplog.text}"
    ]


@ways
@pytest.mark.parametrize("where", ["where tokens come", "where answers come"])
def test_a_crash_with_all_that_was_sent_in_its_message_shows_no_secret(
    way: Way, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug of ours whose message holds URL, headers and body as they went out ends a program without a secret."""
    monkeypatch.setenv(VARIABLE, way.value)
    receive = Sender._receive

    def broken(self: Sender, reply: requests.Response, *given: Any) -> Any:
        sent = reply.request
        if sent.path_url == "/token/" and where == "where answers come":
            return receive(self, reply, *given)
        raise RuntimeError({"url": sent.url, "headers": dict(sent.headers), "body": sent.body})

    monkeypatch.setattr(Sender, "_receive", broken)
    with guarded(way) as (server, door), way.open(server.url) as platform:

        def ask() -> None:
            platform.attempt(images(1), ADA, request_id="r1")

        with pytest.raises(SystemExit) as ended:
            run_program("ttca", ask)
    assert ended.value.code == 1
    told = "".join(capsys.readouterr())
    assert "RuntimeError: {'url': 'http://127.0.0.1" in told
    assert "This is a bug in ttca" in told
    assert not [s for s in planted(door) if s in told or quote(s, safe="") in told]


@ways
def test_no_ledger_holds_what_was_made_of_a_key(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bodies that are kept with answers, and with what could not be read, hold no part of a key that they echo."""
    monkeypatch.setenv(VARIABLE, way.value)

    def answer(exchange: Exchange) -> None:
        sent = f"{exchange.path} {exchange.headers} {exchange.body.decode('latin-1')}"
        label = "dog" if len(exchange.server.posts) % 2 else "nothing"
        exchange.reply(200, json.dumps({"label": label, "sent": sent, "url": quote(sent)}).encode())

    with guarded(way, answer) as (server, door), Ledger(tmp_path / "ledger.sqlite") as ledger:
        with way.open(server.url) as platform:
            pool = QueryPool(platform, ledger, [Member("ada", 9)], pace=Pace(concurrency=1, batch=1, policy=patient()))
            pool.ask(images(3))
        ledger.close()
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
            bodies = [zlib.decompress(body[8:]) for (body,) in connection.execute("SELECT body FROM bodies")]
        assert len(bodies) >= 3
        assert any(b"Idempotency-Key" in body and b"********" in body for body in bodies)
        kept = b"".join([*bodies, *(p.read_bytes() for p in tmp_path.iterdir())])
    assert not [s for s in planted(door) if s.encode() in kept or quote(s, safe="").encode() in kept]


SPELLINGS: list[Callable[[str], str]] = [
    str,
    html.escape,
    quote,
    lambda c: quote(c, safe=""),
    lambda c: quote(c, safe="").lower() if quote(c, safe="") != c else c,
    lambda c: quote(quote(c, safe=""), safe=""),
    lambda c: json.dumps(c)[1:-1],
    lambda c: json.dumps(json.dumps(c))[3:-3],
    lambda c: c if c.isalnum() else f"\\u{ord(c):04X}",
    lambda c: c if c.isalnum() else f"&#{ord(c)};",
]


@given(TEXTS, TEXTS, TEXTS, st.data())
def test_a_secret_is_masked_in_any_mixture_of_spellings(
    first: str, second: str, third: str, data: st.DataObject
) -> None:
    """Each character may be escaped in its own way, for URLs, JSON or HTML; sizes of bodies stay true."""
    spellings = st.sampled_from(SPELLINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_KEY_Y", f"127.0.0.1 {first} {second} {third}")
        for secret in (first, second, third, basic("TTCA_KEY_Y")):
            echoed = "".join(data.draw(spellings)(character) for character in secret)
            assert masked(f" {echoed} ", "TTCA_KEY_Y") == " [key] "
            assert masked_everywhere(f" {echoed} ") == " [key] "
            assert masked_bytes(f" {echoed} ".encode(), "TTCA_KEY_Y") == b" " + b"*" * len(echoed) + b" "


def test_a_short_name_of_a_pair_garbles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shorter than four characters is masked nowhere, whichever part it is."""
    monkeypatch.setenv(VARIABLE, "127.0.0.1 api pl4nted-key")
    assert masked("the api said pl4nted-key", VARIABLE) == "the api said [key]"
    monkeypatch.setenv(VARIABLE, "no")
    assert masked_bytes(b"no label", VARIABLE) == b"no label"
    assert masked("no label", VARIABLE) == "no label"


@given(st.from_regex(r"[A-Za-z0-9_+=/-]{4,7}", fullmatch=True), st.integers(0, 3))
def test_a_short_part_is_masked_as_a_word_and_within_none(part: str, at: int) -> None:
    """In errors and kept bodies it is hidden after any escape; numbers and longer words that hold it stay whole."""
    parts = ["pl4nted-key", "pl4nted-secret", "pl4nted-session"]
    parts.insert(at, part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_KEY_Y", " ".join(["127.0.0.1", *parts]))
        for before in ("", '"', "=", "%3D", "%253d", r"\u003D", r"\n", r"\\t", "-", ":", "k_"):
            if f"{before}{part}".index(part) < len(before):
                # Of five dashes, any four are the key.
                continue
            assert masked(f" {before}{part}&", "TTCA_KEY_Y") == f" {before}[key]&"
            assert masked_bytes(f" {before}{part}&".encode(), "TTCA_KEY_Y") == f" {before}{'*' * len(part)}&".encode()
        if part.isalnum():
            within = f"x{part} 0.{part} {part}7"
            assert masked(within, "TTCA_KEY_Y") == within
            assert masked_bytes(within.encode(), "TTCA_KEY_Y") == within.encode()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "LOCALHOST.", "other.example.org,localhost"])
def test_a_key_for_this_machine_is_for_all_its_names(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever binds a key to localhost may ask 127.0.0.1 with it."""
    monkeypatch.setenv(VARIABLE, f"{host} {SECRET}")
    with scripted() as server:
        sender = Sender(server.url, Key(), Transport())
        sender.exchange(Request("POST", "", {}, b""), VARIABLE, request_id="r", member="ada")
        sender.close()
        assert server.posts[0]["Authorization"] == f"Bearer {SECRET}"


def test_a_secret_that_begins_with_another_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two variables in any order, the shorter secret does not leave the rest of the longer one to be read."""
    for variable, value in (("TTCA_KEY_A", "pl4nted"), ("TTCA_KEY_B", "pl4nted-and-more"), ("TTCA_KEY_C", "pl4nted-a")):
        monkeypatch.setenv(variable, value)
    assert masked_everywhere("pl4nted-and-more pl4nted-a pl4nted") == "[key] [key] [key]"


def test_a_token_is_masked_after_its_variable_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program writes last may still hold a token that was bought under a variable that is set no more."""
    monkeypatch.setenv("TTCA_KEY_GONE", "127.0.0.1 id secret")
    hide_token("TTCA_KEY_GONE", "a-token-of-the-past")
    monkeypatch.delenv("TTCA_KEY_GONE")
    assert masked_everywhere("with a-token-of-the-past") == "with [key]"


# -- it goes to its host alone -----------------------------------------------------------------------------------

PAIR = Key(place="query", names=("a", "b"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (Key(scheme="Basic"), f"other.example.org {USER} {SECRET}", "bound to another host"),
        (Key(scheme="Basic"), f"{USER} {SECRET}", "bound to another host"),
        (Key(scheme="Basic"), f"127.0.0.1 {USER} {SECRET} more", "YOUR-KEY YOUR-SECRET"),
        (Key(scheme="Basic"), f"127.0.0.1 {USER}:{SECRET}", "two words, got a colon in the first"),
        (Key(place="query", names=("a", "b")), f"127.0.0.1 {SECRET}", "127.0.0.1 YOUR-KEY YOUR-SECRET"),
        (Key(place="query", names=("a", "b")), SECRET, "127.0.0.1 YOUR-KEY YOUR-SECRET"),
        (Key(names=("a", "b", "c")), f"127.0.0.1 {SECRET}", "YOUR-KEY YOUR-PART-2 YOUR-PART-3"),
        (Key(sign="aws4", region="r-1", service="s"), f"127.0.0.1 {SECRET}", "YOUR-ACCESS-KEY YOUR-SECRET"),
        (Key(), f"127.0.0.1 {USER} {SECRET}", "127.0.0.1 YOUR-KEY"),
        (Key(), f"127.0.0.1 pl4nted\u00e9{SECRET}", "visible ASCII"),
        (Key(token_from=TokenFrom(url="http://127.0.0.1:1/t")), f"127.0.0.2 {USER} {SECRET}", "another host"),
        (Key(token_from=TokenFrom(url="http://127.0.0.2:1/t")), f"127.0.0.1 {USER} {SECRET}", "bound to 127.0.0.2"),
        (Key(token_from=TokenFrom(url="http://127.0.0.2:1/t")), f"127.0.0.2 {USER} {SECRET}", "bound to 127.0.0.1"),
        (Key(scheme="Basic"), f"127.0.0.1:8901 {USER} {SECRET}", "a port or a path. Leave them out: export"),
        (Key(), f"http://localhost:8901/v1 {SECRET}", "a scheme, a port or a path"),
        (Key(), f"[::1]:8901 {SECRET}", "a scheme, a port or a path"),
        (Key(), f"[::1 {SECRET}", "bound to another host"),
        (PAIR, f"127.0.0.1 {SECRET}", "got 2 words: the host or one of the 2 parts of the key is missing"),
        (PAIR, SECRET, "got 1 word: the host or one of the 2 parts"),
        (PAIR, f"127.0.0.1 {USER} {SECRET} x", "got 4 words. Set it"),
        (PAIR, f"127.0.0.1 {USER} abc", "of 4 characters or more"),
        (Key(), "127.0.0.1 abc", "of 4 characters or more"),
        (Key(), "a", "of 4 characters or more"),
        (Key(), f"127.0.0.1 '{SECRET}'", "got one within quotes. Leave these out"),
        (Key(), f'"{SECRET}"', "got one within quotes. Leave these out"),
    ],
)
def test_a_key_that_is_not_for_this_host_is_not_sent(
    key: Key, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair, a signing key or an id for a token of another host, or of other parts, leaves nothing but a sentence."""
    monkeypatch.setenv(VARIABLE, value)
    with scripted() as server:
        sender = Sender(server.url, key, Transport())
        request = Request("POST", "", {"Content-Type": "application/json"}, b"{}")
        with pytest.raises(NotSentError, match=said) as caught:
            sender.exchange(request, VARIABLE, request_id="r", member="ada")
        sender.close()
        assert not server.requests
    assert not [s for s in planted(Door()) if s in str(caught.value)]


def test_a_token_goes_only_to_a_host_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tokens come from another host than they go to, the variable names both: no table alone can send them on."""
    way = WAYS["token"]
    with guarded(way) as (server, door):
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        section = way.section(server.url)
        key = Key(variable=VARIABLE, token_from=TokenFrom(url=f"{elsewhere}/token/"))
        assert key.example("127.0.0.1") == "localhost YOUR-ID YOUR-SECRET"
        assert key.example("api.example.org") == "localhost,api.example.org YOUR-ID YOUR-SECRET"
        monkeypatch.setenv(VARIABLE, f"localhost,127.0.0.1 {USER} {SECRET}")
        with HttpPlatform(server.url, protocol="template", classes=CLASSES, key=key, **section.options) as platform:
            platform.attempt(images(1), ADA, request_id="r")
        hosts = [headers["Host"].partition(":")[0] for headers in server.posts]
        assert hosts == ["localhost", "127.0.0.1"]
        assert (len(door.tokens), len(door.bodies)) == (1, 1)


GATEWAY = "http://127.0.0.1:1"


def behind(forwards_to: str | None, *, url: str = GATEWAY, key: Key | None = None, **more: Any) -> HttpPlatform:
    """Return a platform that a gateway stands before."""
    return HttpPlatform(
        url,
        protocol="torchserve",
        model="m",
        classes=CLASSES,
        image_shape=IMAGE_SHAPE,
        key=key,
        transport=Transport(forwards_to=forwards_to, metadata_retry=RetryPolicy(attempts=1)),
        **more,
    )


@pytest.mark.parametrize(
    ("forwards_to", "more", "said"),
    [
        ("https://api.example.org", {}, "Expected authorized_by for https://api.example.org"),
        ("http://api.example.org", {"authorized_by": "me"}, "Expected https"),
        ("https://u:p@api.example.org", {"authorized_by": "me"}, "without user"),
        ("http://127.0.0.1:2", {"authorized_by": "me"}, "URL of another machine"),
        (
            "https://api.example.org",
            {"authorized_by": "me", "url": "https://gateway.example.org"},
            "only for a gateway on this machine",
        ),
        (
            "https://api.example.org",
            {"authorized_by": "me", "key": Key(sign="aws4", region="r", service="s")},
            "Let the gateway sign",
        ),
    ],
)
def test_a_gateway_is_asked_as_what_is_behind_it(forwards_to: str, more: dict[str, Any], said: str) -> None:
    """Queries through a gateway leave this machine: they need the same consent, and HTTPS behind it."""
    with pytest.raises(ConfigError, match=said):
        behind(forwards_to, **more)


def test_behind_another_gateway_is_another_platform() -> None:
    """What a gateway forwards to makes its answers, and so is part of the platform's fingerprint, in one spelling."""
    prints = [
        behind(to, authorized_by="me").info.fingerprint
        for to in (None, "https://a.example.org", "https://a.example.org:443/", "https://b.example.org")
    ]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("value", [SECRET, "127.0.0.1 short", f"api.example.org {SECRET}"])
def test_a_key_that_a_gateway_sends_on_is_bound_to_the_gateway(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves this machine, so it must name the gateway's host and be long, as for any other machine."""
    monkeypatch.setenv(VARIABLE, value)
    with scripted() as server:
        platform = behind("https://api.example.org", url=server.url, key=Key(variable=VARIABLE), authorized_by="me")
        with pytest.raises(NotSentError):
            platform.attempt(images(1), ADA, request_id="r")
        monkeypatch.setenv(VARIABLE, f"127.0.0.1 {SECRET}")
        with pytest.raises(TTCAError):
            platform.attempt(images(1), ADA, request_id="r")
        assert len(server.posts) == 1


# -- what is not allowed -----------------------------------------------------------------------------------------

AWS = {"sign": "aws4", "region": "eu-west-1", "service": "rekognition"}
TOKEN = TokenFrom(url="https://auth.example.org/token")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"place": "cookie"}, "key_in as header, query or body"),
        ({"place": "query"}, 'key_names with key_in = "query", got none'),
        ({"place": "body"}, 'key_names with key_in = "body", got none'),
        ({"names": "api_key"}, "key_names as a list"),
        ({"names": ("X-A", "x-a")}, "different names"),
        ({"names": ("a b",)}, "a header can have"),
        ({"names": ("Host",)}, "carries only the key, got Host"),
        ({"place": "query", "names": (f"{SECRET}&x",)}, "a query can have"),
        ({"place": "query", "names": ("k",), "header": "X-Key"}, "without key_names"),
        ({"names": ("X-Key",), "scheme": ""}, "without key_names"),
        ({**AWS, "scheme": "Basic"}, "without sign"),
        ({**AWS, "place": "query", "names": ("k",)}, "sign without key_in"),
        ({**AWS, "token_from": TOKEN}, "sign without key_in"),
        ({**AWS, "region": None}, "Set both"),
        ({**AWS, "service": "Rekognition "}, "Set both"),
        ({**AWS, "sign": "aws2"}, "sign as aws4"),
        ({"region": "eu-west-1"}, 'sign = "aws4" beside sign_region'),
        ({"token_from": TOKEN, "scheme": "basic"}, "which sends a pair"),
        ({"token_from": TOKEN, "names": ("X-A", "X-B")}, "one of key_names"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], said: str) -> None:
    """No setting of a key is taken and then ignored; what may be the key in the wrong place is not shown."""
    with pytest.raises(ConfigError, match=said) as caught:
        Key(**options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://auth.example.org"}, "Expected https"),
        ({"url": "https://a:b@auth.example.org"}, "without user"),
        ({"url": "https://auth.example.org?k=1"}, "without user"),
        ({"key_in": "query"}, "key_in of token_from"),
        ({"fields": {"client_secret": SECRET}}, "got client_secret"),
        ({"fields": {"audience": 1}}, "other values"),
    ],
)
def test_a_source_of_tokens_is_checked(options: dict[str, Any], said: str) -> None:
    """The token endpoint needs HTTPS off this machine, and no secret stands in its table."""
    with pytest.raises(ConfigError, match=said) as caught:
        TokenFrom(**{"url": "https://auth.example.org/token", **options})
    assert "s3cret" not in str(caught.value)


def test_signing_without_the_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without botocore the table is refused when it is read, not when the first query is sent."""
    monkeypatch.setattr("ttca.platforms.keys.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "ttca\[aws\]"'):
        Key(**AWS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"key_in": "query", "key_names": ("k",), "key_variable": None}, "key_variable beside key_names"),
        ({"token_from": {"scope": "x"}}, "the key url in token_from"),
        ({"token_from": {"url": "https://a.example.org/t", "scop": "x"}}, "Did you mean 'scope'"),
        ({"token_from": {"url": 1}}, "url in token_from of"),
        ({"sign": "aws5"}, "sign as aws4"),
    ],
)
def test_a_table_with_a_wrong_key_is_refused_when_it_is_read(table: dict[str, Any], said: str) -> None:
    """Mistakes in the keys of [platform] are sentences before anything is opened."""
    from ttca.config import PlatformSection

    given: dict[str, Any] = {"url": GATEWAY, "model": "m", "classes": CLASSES, "key_variable": VARIABLE, **table}
    with pytest.raises(ConfigError, match=said):
        PlatformSection(**given)

"""Tests of the hub over real HTTP: who may do what, what a member's machine does, and any request at all."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.pooling.places import fresh_ledger
from tests.pooling.scripted import ScriptedPlatform, distinct, hard_at_work, transport_error, truth
from ttca.answers import Answers
from ttca.data.decoding import decode_rgb
from ttca.errors import ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.people import People
from ttca.platforms.base import PlatformInfo
from ttca.platforms.connections import ConnectionLimits
from ttca.platforms.server import background_app
from ttca.platforms.throttle import Throttle
from ttca.pooling.allowance import Effort
from ttca.pooling.contribute import Contribution
from ttca.pooling.hub import create_hub
from ttca.pooling.hub_client import HubAccess, HubError, Reply
from ttca.pooling.leases import CheckPlan, LeaseDesk
from ttca.pooling.ledger import Ledger
from ttca.pooling.page import progress_page
from ttca.pooling.quotas import Quota
from ttca.pooling.schema import outcomes
from ttca.pooling.showing import show_pictures
from ttca.pooling.standing import MemberStanding, Mirror, TheirAnswer, _read, own_standing
from ttca.signing import CollectiveKey, SignatureError

PLAN = CheckPlan(judged=6, share=0.1)


@dataclass
class House:
    """A hub that runs, with its ledger and everybody's token."""

    url: str
    ledger: Ledger
    desk: LeaseDesk
    tokens: dict[str, str]
    key: str

    def ask(self, method: str, path: str, member: str | None = "ada", **more: Any) -> requests.Response:
        """Send one request with a member's token."""
        headers = {} if member is None else {"Authorization": f"Bearer {self.tokens[member]}"}
        return requests.request(method, self.url + path, headers=headers, timeout=30, **more)

    def lease(self, member: str = "ada", *, size: int = 2, name: str | None = None) -> requests.Response:
        """Ask for a lease."""
        return self.ask("POST", "/v1/leases", member, json={"size": size, "name": name or secrets.token_urlsafe(16)})

    def accepted(self, images: Images) -> Answers:
        """Return what the ledger says of these images."""
        keys = self.ledger.keys(images, fingerprint=self.desk.info.fingerprint, epoch="pool")
        return self.ledger.lookup(keys, classes=3)[1]


def crowd() -> People:
    """Return whose the 60 images are: ada's and ben's by turns, each of another person, every third of the subgroup."""
    images = distinct(60)
    # Every fourth is answered wrongly.
    true = np.where(np.arange(60) % 4 == 3, (truth(images).labels + 1) % 3, truth(images).labels)
    persons = [f"person-{i}" for i in range(60)]
    return People.build(images, true, persons=persons, members=["ada", "ben"] * 30, subgroup=np.arange(60) % 3 == 0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give a hub with 60 images and three members."""
    with fresh_ledger() as ledger:
        ledger.enrol({"ada": 100, "ben": 100, "cem": Quota(100)})
        desk = LeaseDesk(ledger, ScriptedPlatform().info, plan=PLAN, rng=random.Random(0))
        desk.load(distinct(60), ["ada", "ben"] * 30)
        tokens = {m: ledger.invite(m) for m in ("ada", "ben", "cem")}
        key = CollectiveKey.open_or_make(tmp_path)
        mirror = Mirror(ledger, desk.info, crowd())
        app = create_hub(ledger, desk, name="A <b>pool</b>", key=key, mirror=mirror)
        with background_app(app, limits=ConnectionLimits()) as url:
            yield House(url, ledger, desk, tokens, key.public)


@pytest.fixture
def member(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Contribution]:
    """Give a function that contributes as a member, from a machine with a platform of its own."""

    def run(name: str, platform: ScriptedPlatform | None = None, **more: Any) -> Contribution:
        variable = f"TTCA_HUB_{name.upper()}"
        monkeypatch.setenv(variable, house.tokens[name])
        return hard_at_work(house.url, platform or ScriptedPlatform(), token_variable=variable, **more)

    return run


# -- the whole way ----------------------------------------------------------------------------------------------


def test_three_members_answer_everything(house: House, member: Callable[..., Contribution]) -> None:
    """Members on machines of their own end with the platform's answer to every image, within their quotas."""
    done: dict[str, Contribution] = {}
    threads = [
        threading.Thread(target=lambda m=m: done.update({m: member(m, size=8, concurrency=2)})) for m in house.tokens
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {d.ended for d in done.values()} == {"Nothing is left for you to ask."}
    np.testing.assert_array_equal(house.accepted(distinct(60)).scores, truth(distinct(60)).scores)
    for balance in house.ledger.balances():
        assert balance.charged == balance.answered == done[balance.member].queries == done[balance.member].answered


def test_every_lease_is_signed(house: House, member: Callable[..., Contribution], tmp_path: Path) -> None:
    """Who knows the hub's key answers everything it hands out; who knows another asks nothing of it."""
    stranger = CollectiveKey.open_or_make(tmp_path / "stranger").public
    platform = ScriptedPlatform()
    with pytest.raises(SignatureError, match=r"No query was sent\."):
        member("ada", platform, hub_key=stranger, concurrency=1)
    assert platform.attempts == []
    done = member("ada", platform, hub_key=house.key)
    assert done.queries == done.answered == platform.queries > 0
    (ada, *_) = house.ledger.balances()
    assert ada.refunded > 0
    assert ada.charged == done.answered


def test_a_member_looks_before_they_ask(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is shown is a signed lease as any other, pixel by pixel; it costs nothing, and stays to be asked."""
    monkeypatch.setenv("TTCA_HUB_X", house.tokens["ada"])
    access = HubAccess(url=house.url, token_variable="TTCA_HUB_X", key=house.key)
    platform = ScriptedPlatform()
    options: dict[str, Any] = {"folder": tmp_path / "kept", "effort": Effort(size=5)}
    files = show_pictures(access, platform, out=tmp_path / "out", **options)
    assert [f.name for f in files] == ["01.png", "02.png", "03.png", "04.png", "05.png"]
    shown = {decode_rgb(f.read_bytes()).tobytes() for f in files}
    assert shown <= {image.tobytes() for image in distinct(60)}
    assert len(shown) == 5
    assert platform.attempts == []
    (ada, *_) = house.ledger.balances()
    assert (ada.charged, ada.refunded) == (0, 5)
    with pytest.raises(ConfigError, match="Expected a new or empty folder"):
        show_pictures(access, platform, out=tmp_path / "out", **options)
    stranger = replace(access, key=CollectiveKey.open_or_make(tmp_path / "stranger").public)
    with pytest.raises(SignatureError):
        show_pictures(stranger, platform, out=tmp_path / "none", **options)
    assert list((tmp_path / "none").iterdir()) == []
    assert house.ledger.balances()[0].charged == 0
    assert list((tmp_path / "kept" / "undelivered").iterdir()) == []
    lease = house.desk.issue("ada", 60)
    assert lease is not None
    assert shown <= {image.tobytes() for image in lease.images}


def test_a_quota_ends_a_contribution_in_peace(house: House, member: Callable[..., Contribution]) -> None:
    """A member who can pay no more stops with the reason, at the last query their quota allows."""
    house.ledger.enrol({"ada": 9})
    done = member("ada", size=2)
    assert done.queries == 9
    assert done.ended == "The hub said you can pay 9; all 9 are sent."
    assert house.ledger.remaining()["ada"] == 0


def test_a_rate_is_waited_for(house: House, member: Callable[..., Contribution]) -> None:
    """A hub that says when there is room is asked again then; a wait beyond the limit ends the run and says so."""
    house.ledger.enrol({"ada": Quota(100, per_day=4)})
    slept: list[float] = []
    done = member("ada", sleep=slept.append)
    assert done.queries == 4
    assert "4 queries per day" in done.ended
    assert slept == []


@pytest.mark.parametrize("charge", list(ChargeState))
def test_a_platform_that_is_down_ends_a_contribution(
    charge: ChargeState, house: House, member: Callable[..., Contribution]
) -> None:
    """After three requests in a row without an answer the run ends with the error, and each is booked as it was."""

    def down(_number: int, _images: Images) -> Answers:
        raise transport_error(charge, status=503)

    platform = ScriptedPlatform(down)
    with pytest.raises(TransportError, match="503"):
        member("ada", platform, concurrency=1)
    assert len(platform.attempts) == 3
    (ada, *_) = house.ledger.balances()
    booked = {"refunded": ada.refunded, "unknown": ada.unknown, "charged": ada.unusable}
    assert booked[charge.value] == platform.queries > 0
    assert ada.charged == (0 if charge is ChargeState.REFUNDED else platform.queries)


def test_another_platform_is_refused_before_any_query(house: House, member: Callable[..., Contribution]) -> None:
    """A hub whose fingerprint differs from the member's own file gets no lease, and the platform no query."""
    platform = ScriptedPlatform()
    platform._info = PlatformInfo("p", platform.info.classes, platform.info.image_shape, {"model": "another"})
    with pytest.raises(ConfigError, match="a different fingerprint"):
        member("ada", platform)
    assert platform.attempts == []
    assert house.ledger.balances()[0].charged == 0


def test_a_member_set_aside_is_told(house: House, member: Callable[..., Contribution]) -> None:
    """Whoever was flagged gets no lease and an error that says why."""
    house.desk.jury.set_aside(1)
    with pytest.raises(HubError, match="differ from everybody else's"):
        member("ada")


@pytest.mark.parametrize(("name", "value"), [("HUB_TOKEN", "x"), ("TTCA_HUB_X", ""), ("TTCA_HUB_X", "two words")])
def test_a_token_must_be_in_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another variable, or one without a token, is a sentence before anything is sent."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"TTCA_HUB_"):
        hard_at_work("http://127.0.0.1:1", ScriptedPlatform(), token_variable=name)


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "https://user:secret@example.org"])
def test_off_this_machine_the_hub_must_be_https(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and images travel only encrypted, and no URL carries a password."""
    monkeypatch.setenv("TTCA_HUB_X", "token")
    with pytest.raises(ConfigError, match=r"https|without user, password"):
        hard_at_work(url, ScriptedPlatform())


def test_a_hub_that_says_two_things_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that has one name twice is no reply: neither of its two values is taken."""

    class Double(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"fingerprint": "a", "fingerprint": "' + ScriptedPlatform().info.fingerprint.encode() + b'"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    monkeypatch.setenv("TTCA_HUB_X", "token")
    with ThreadingHTTPServer(("127.0.0.1", 0), Double) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(HubError, match=r"Expected JSON from the hub"):
            hard_at_work(url, ScriptedPlatform())
        server.shutdown()


def test_a_hub_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub at the URL ends in an error that names it and not the token."""
    monkeypatch.setenv("TTCA_HUB_X", "very-secret-token")
    with pytest.raises(HubError, match=r"Expected the hub at http://127.0.0.1:1 to answer") as caught:
        hard_at_work("http://127.0.0.1:1", ScriptedPlatform())
    assert "very-secret-token" not in str(caught.value)


# -- the door ---------------------------------------------------------------------------------------------------

DOORS = [
    ("GET", "/v1/action"), ("GET", "/v1/me"), ("GET", "/v1/progress"), ("GET", "/"), ("GET", "/openapi.json"),
    ("POST", "/v1/leases"), ("POST", "/v1/leases/x/answers"), ("POST", "/v1/leases/x/failure"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize(
    "header", [None, "Bearer guess", "Bearer", "Basic", "Basic ????", "Basic Zm9v", "Digest x", "Bearer \u00fc"]
)
def test_nothing_is_said_without_a_token(method: str, path: str, header: str | None, house: House) -> None:
    """Every door answers 401 to no token, another one, or no header that can be read."""
    headers = {} if header is None else {"Authorization": header.encode("utf-8")}
    reply = requests.request(method, house.url + path, headers=headers, json={"size": 1}, timeout=30)
    assert reply.status_code == 401
    assert reply.json()["kind"] == "http"
    assert "Basic" in reply.headers["WWW-Authenticate"]


def test_members_see_their_own_books_only(house: House) -> None:
    """The account is the caller's; no page and no answer names another member."""
    house.lease("ben")
    mine = house.ask("GET", "/v1/me", "ada").json()
    assert (mine["member"], mine["charged"], mine["remaining"]) == ("ada", 0, 100)
    for method, path in DOORS[:4]:
        assert "ben" not in house.ask(method, path, "ada").text
    lease = house.lease("ben").json()["lease"]
    answers = {"answers": [{"status": "answered", "label": 0}] * 2}
    assert house.ask("POST", f"/v1/leases/{lease}/answers", "ada", json=answers).status_code == 404
    assert house.ask("POST", f"/v1/leases/{lease}/answers", "ben", json=answers).json() == {"usable": 2}


def test_a_lost_lease_is_had_again_under_its_name(house: House) -> None:
    """Asking twice under one name is one lease, paid once; nobody else gets it, and not after it was brought back."""
    name = "a-name-of-sixteen-or-more"
    first, again = house.lease(name=name).json(), house.lease(name=name).json()
    assert first == again
    assert house.ask("GET", "/v1/me").json()["charged"] == 2
    assert house.lease("ben", name=name).status_code == 404
    answers = {"answers": [{"status": "answered", "label": 0}] * 2}
    house.ask("POST", f"/v1/leases/{name}/answers", json=answers)
    assert house.lease(name=name).status_code == 404
    assert house.lease(name="short").status_code == 422


@pytest.mark.parametrize(
    "row",
    [
        {"status": "answered", "label": 3},
        {"status": "answered", "label": None},
        {"status": "answered", "label": -1},
        {"status": "refused", "label": 1},
        {"status": "perhaps", "label": 1},
        {"status": "answered", "label": 1, "scores": [0.5, 0.5]},
        {"status": "answered", "label": 1, "scores": [0.5, 0.3, 0.2]},
        {"status": "answered", "label": 1, "scores": [0.5, 0.3, None]},
        {"status": "answered", "label": 1, "scores": [0.5, 0.3, 0.2], "resolution": 0.1},
        {"status": "answered", "label": 1, "scores": [0.1, 7.0, 0.1]},
        {"status": "answered", "label": 1, "scores": [0.1, 1e300, 0.1]},
        {"status": "answered", "label": 1, "scores": ["a", "b", "c"]},
        {"status": "answered", "label": 1, "resolution": -1},
        {"status": "answered", "label": 1, "extra": 1},
        {"label": 1},
        7,
    ],
)
def test_answers_that_no_platform_gives_are_refused(row: Any, house: House) -> None:
    """An impossible row is 422, costs no record, and the lease can still be brought back."""
    given = house.lease().json()
    path = f"/v1/leases/{given['lease']}/answers"
    good = {"status": "answered", "label": 1, "scores": [0.2, 0.5, 0.3]}
    assert house.ask("POST", path, json={"answers": [good, row]}).status_code == 422
    assert house.ask("POST", path, json={"answers": [good] * 3}).status_code == 422
    assert house.ask("POST", path, json={"answers": [good] * 2}).json() == {"usable": 2}


@pytest.mark.parametrize(
    "row",
    [
        {"status": "answered", "label": 1, "scores": [None, 0.5, None]},
        {"status": "answered", "label": 1, "scores": [0.5, 0.5, 0.0]},
        {"status": "answered", "label": 1, "scores": [0.51, 0.49, 0.0], "resolution": 0.02},
        {"status": "answered", "label": 1, "scores": [0.2, None, 0.1]},
        {"status": "refused", "scores": [0.2, 0.5, 0.3]},
    ],
)
def test_what_was_not_said_and_ties_contradict_no_label(row: Any, house: House) -> None:
    """A platform that gives its best scores alone, or rounds them, is heard."""
    path = f"/v1/leases/{house.lease().json()['lease']}/answers"
    assert house.ask("POST", path, json={"answers": [row] * 2}).json() == {"usable": 2}


def test_a_label_against_its_scores_is_a_sentence_that_shows_both(house: House) -> None:
    """Whoever reports such an answer learns what does not fit."""
    path = f"/v1/leases/{house.lease().json()['lease']}/answers"
    row = {"status": "answered", "label": 1, "scores": [0.5, 0.3, 0.2]}
    said = house.ask("POST", path, json={"answers": [row] * 2}).json()
    assert "Expected the label 1 of answer 0 to have the highest score, got 0.3 for it and 0.5 for 0." in said["error"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"size": 1, "size": 2, "name": "a-name-of-sixteen-or-more"}',
        b'{"size": NaN}',
        b'{"size": 1e400}',
        b'{"size": "\\ud800"}',
        b"[",
        b"\xff",
        b"",
        b'{"size": 0}',
    ],
)
def test_a_body_that_cannot_be_read_is_one_sentence(body: bytes, house: House) -> None:
    """No request gets a traceback or its own words back."""
    reply = requests.post(
        house.url + "/v1/leases",
        data=body,
        headers={"Authorization": f"Bearer {house.tokens['ada']}", "Content-Type": "application/json"},
        timeout=30,
    )
    assert reply.status_code in (400, 422)
    assert set(reply.json()) == {"error", "kind"}
    assert "1e400" not in reply.text


def test_an_interrupted_member_stops_at_once(house: House, member: Callable[..., Contribution]) -> None:
    """Ctrl-C ends a contribution after what is in flight: nothing new is leased, nothing paid is lost."""

    def slow(number: int, images: Images) -> Answers:
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)
        return truth(images)

    platform = ScriptedPlatform(slow)
    # A test run that was started in a shell's background inherits an ignored Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            member("ada", platform, size=1, concurrency=2)
    finally:
        signal.signal(signal.SIGINT, before)
    sent = platform.queries
    time.sleep(0.3)
    assert platform.queries == sent < 60
    (ada, *_) = house.ledger.balances()
    assert ada.charged == ada.answered == sent


def test_a_platform_at_its_limit_is_no_reason_to_give_up(house: House, member: Callable[..., Contribution]) -> None:
    """However often a member's platform says "too many", the member waits as told and the queries are answered."""

    def refusing(number: int, images: Images) -> Answers:
        if number % 5:
            raise TransportError(
                "too many",
                platform="p",
                charge=ChargeState.REFUNDED,
                retryable=True,
                retry_after=0.001,
                status=429,
            )
        return truth(images)

    done = member("ada", ScriptedPlatform(refusing), size=4, concurrency=2)
    assert done.answered == done.queries == house.ledger.balances()[0].answered > 20


def test_a_platform_that_refuses_for_ever_ends_a_contribution(
    house: House, member: Callable[..., Contribution]
) -> None:
    """A key that is always told to come back at once is neither asked in a hot loop nor for ever."""

    def refusing(number: int, images: Images) -> Answers:
        raise TransportError(
            "too many", platform="p", charge=ChargeState.REFUNDED, retryable=True, retry_after=0.0, status=429
        )

    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    platform = ScriptedPlatform(refusing)
    platform.throttle = Throttle(clock=lambda: passed[0])  # type: ignore[attr-defined]
    with pytest.raises(TransportError, match="too many"):
        member("ada", platform, size=4, concurrency=1, sleep=sleep)
    assert passed[0] > 60
    assert platform.queries <= 4 * 110
    assert house.ledger.balances()[0].charged == 0


def test_a_body_that_is_too_large_is_refused(house: House) -> None:
    """Nobody fills the hub's memory with one request."""
    reply = house.ask("POST", "/v1/leases", data=b"[" * (9 * 2**20))
    assert reply.status_code == 413


def said_to(house: House, head: str, *, member: str | None = "ada") -> bytes:
    """Send a request's headers, and nothing of its body; return the first line that comes back."""
    who = "" if member is None else f"Authorization: Bearer {house.tokens[member]}\r\n"
    parts = urlsplit(house.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as line:
        line.sendall(f"{head}\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{who}\r\n".encode())
        return line.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "length", ["Content-Length: 1000000", "Transfer-Encoding: chunked", "Content-Length: 99999999"]
)
def test_no_body_is_read_without_a_token(length: str, house: House) -> None:
    """Who has no token is told so before a byte of the body is there, so that strangers fill no memory."""
    assert b" 401 " in said_to(house, f"POST /v1/leases HTTP/1.1\r\n{length}", member=None)


def test_a_body_that_will_be_too_large_is_not_waited_for(house: House) -> None:
    """A member's request that says how large it is gets its answer from that."""
    assert b" 413 " in said_to(house, "POST /v1/leases HTTP/1.1\r\nContent-Length: 9999999")


def test_one_member_is_heard_so_often_at_once(house: House) -> None:
    """Unfinished requests of one member fill no memory, and keep nobody else out; each that ends makes room."""
    parts = urlsplit(house.url)
    head = "POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n"
    opened: list[socket.socket] = []
    with ExitStack() as stack:

        def one_more() -> requests.Response:
            line = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=5))
            line.sendall(f"{head}Authorization: Bearer {house.tokens['ada']}\r\n\r\n{{".encode())
            opened.append(line)
            return house.ask("GET", "/v1/me")

        refused = eventually(one_more, 503)
        assert refused.json()["kind"] == "busy"
        assert 32 <= len(opened) <= 64
        assert refused.headers["Retry-After"] == "1"
        assert house.ask("GET", "/v1/me", "ben").status_code == 200
    eventually(lambda: house.ask("GET", "/v1/me"), 200)


def eventually(ask: Callable[[], requests.Response], status: int) -> requests.Response:
    """Ask until the hub has noticed what sockets did."""
    for _ in range(500):
        if (reply := ask()).status_code == status:
            return reply
        time.sleep(0.01)
    raise AssertionError(f"{status} never came")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json-seq"])
def test_only_json_is_heard(kind: str | None, house: House) -> None:
    """What a web page may send in a member's name without asking first leases nothing, whatever fastapi makes of it."""
    body = b'{"size": 1, "name": "a-name-of-sixteen-or-more"}'
    headers = {"Authorization": f"Bearer {house.tokens['ada']}", **({} if kind is None else {"Content-Type": kind})}
    reply = requests.post(f"{house.url}/v1/leases", body, headers=headers, timeout=30)
    assert reply.status_code == 415
    assert house.ledger.balances()[0].charged == 0
    headers["Content-Type"] = "Application/JSON; charset=utf-8"
    assert requests.post(f"{house.url}/v1/leases", body, headers=headers, timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("method", "said", "heard"),
    [
        ("POST", {"Origin": "https://elsewhere.example"}, False),
        ("POST", {"Origin": "null"}, False),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, False),
        ("POST", {"Sec-Fetch-Site": "same-site"}, False),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, True),
        ("GET", {"Origin": "https://elsewhere.example"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
        ("GET", {"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_no_other_web_page_speaks_for_a_member(method: str, said: dict[str, str], heard: bool, house: House) -> None:
    """What a browser marks as another page's request is refused; a link to the hub's page may be followed."""
    body = {"size": 1, "name": "a-name-of-sixteen-or-more"} if method == "POST" else None
    headers = {"Authorization": f"Bearer {house.tokens['ada']}", **said}
    path = "/v1/leases" if method == "POST" else "/"
    reply = requests.request(method, house.url + path, headers=headers, timeout=30, json=body)
    assert reply.status_code == (200 if heard else 403)
    assert house.ledger.balances()[0].charged == (1 if heard and method == "POST" else 0)
    own = requests.get(house.url, headers={**headers, "Origin": house.url, "Sec-Fetch-Site": "same-origin"}, timeout=30)
    assert own.status_code == 200


def test_no_stranger_writes_on_the_hubs_terminal(house: House) -> None:
    """Control characters in what a member sends are in no sentence of the hub, and in none of its books."""
    reply = house.ask("POST", "/v1/leases", json={"size": 1, "\x1b]0;owned\x07\x9b": 1})
    assert reply.status_code == 422
    lease = house.lease().json()["lease"]
    report = {"charge": "unknown", "detail": "\x1b[2J\x9b31m slow\n"}
    assert house.ask("POST", f"/v1/leases/{lease}/failure", json=report).status_code == 200
    details = house.ledger.database.run(lambda c: list(c.scalars(sa.select(outcomes.c.detail))))
    for text in (reply.json()["error"], *map(str, details)):
        assert text.isprintable()
    assert "slow" in str(details)


def test_the_page_is_for_browsers_on_a_phone(house: House) -> None:
    """With the token as password a browser gets a page that fits its width, escapes names and loads nothing else."""
    reply = requests.get(house.url, auth=("anyone", house.tokens["cem"]), timeout=30)
    assert reply.status_code == 200
    assert "A &lt;b&gt;pool&lt;/b&gt;" in reply.text
    assert 'name="viewport" content="width=device-width' in reply.text
    assert "of 60 shared images are answered" in reply.text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


def test_the_page_says_when_a_set_has_expired(house: House) -> None:
    """Why the file that members may have no longer holds stands on the page, as text; where it holds, nothing does."""
    page = progress_page("pool", house.desk.progress(), (), expired="Expired: δ <b>harms</b>.")
    assert "role=status data-now>Expired: δ &lt;b&gt;harms&lt;/b&gt;.</p>" in page
    assert "<p class=care id=expired role=status data-now hidden></p>" in progress_page(
        "pool", house.desk.progress(), ()
    )


def test_the_page_says_how_far_the_pool_is_to_everybody(house: House) -> None:
    """The bar is a progress bar to screen readers too, and the page never loads anew under whoever reads it."""
    page = Page.read(house.ask("GET", "/").text)
    assert page.bar == {"aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0.0", "aria-label": page.label}
    assert page.label
    assert "http-equiv" not in page.text
    lease = house.lease(size=3).json()["lease"]
    answers = {"answers": [{"status": "answered", "label": 0}] * 3}
    assert house.ask("POST", f"/v1/leases/{lease}/answers", json=answers).status_code == 200
    later = Page.read(house.ask("GET", "/").text)
    assert later.bar["aria-valuenow"] == "5.0"
    # What the script puts in is there in every state of the pool, and its own words are the only ones that run.
    assert page.live == later.live
    policy = house.ask("GET", "/").headers["Content-Security-Policy"]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()}'" in policy


def test_members_are_told_of_their_own_pictures_alone(
    house: House, member: Callable[..., Contribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hears what their own pictures were answered, as the ledger has it, and no more than sums of anybody else."""
    assert house.ask("GET", "/v1/me/pictures", None).status_code == 401
    first = house.ask("GET", "/v1/me/pictures").json()
    assert (first["pictures"], first["answered"], first["subgroup"], first["reference"]) == (30, 0, None, None)
    for name in house.tokens:
        member(name)
    people, answers = crowd(), house.accepted(distinct(60))
    right = answers.labels == people.classes
    for name in ("ada", "ben"):
        monkeypatch.setenv("TTCA_HUB_X", house.tokens[name])
        said = own_standing(HubAccess(url=house.url, token_variable="TTCA_HUB_X"))
        assert said is not None
        own = people.members == name
        assert (said.pictures, said.answered + said.checked) == (30, 30)
        if not said.checked:
            assert said.right == int(right[own].sum())
            names = house.desk.info.classes
            counts = {(a.true_class, a.said): a.count for a in said.answers}
            pairs = list(zip(people.classes[own].tolist(), answers.labels[own].tolist(), strict=True))
            assert counts == {(names[t], names[s]): pairs.count((t, s)) for t, s in pairs}
        assert said.subgroup is not None
        assert said.reference is not None
        assert (said.subgroup.right, said.subgroup.asked) == (int(right[people.subgroup].sum()), 20)
        assert (said.reference.asked, said.reference.persons) == (40, 40)
        other = {"ada": "ben", "ben": "ada"}[name]
        reply = house.ask("GET", "/v1/me/pictures", name)
        page = house.ask("GET", "/", name).text
        assert other not in reply.text + page.replace("member", "")
        assert "person-" not in reply.text + page
        for line in said.told():
            assert line in page
        assert said.told()[0].startswith(f"Of your {said.pictures:,} shared pictures {said.answered:,} are answered, ")
        assert said.told()[-1].startswith("Right answers so far, without the change: ")
    nobody = house.ask("GET", "/v1/me/pictures", "cem").json()
    assert (nobody["pictures"], nobody["answers"]) == (0, [])


@pytest.mark.parametrize(
    ("pictures", "right", "wrong", "checked", "said"),
    [
        (0, 0, 0, 0, "No picture of yours is shared here."),
        (1, 0, 0, 0, "Your shared picture has no answer yet that stands."),
        (1, 1, 0, 0, "Your shared picture is answered, and the answer is right."),
        (1, 0, 1, 0, "Your shared picture is answered, and the answer is not right."),
        (
            3,
            0,
            0,
            1,
            "None of your 3 shared pictures has an answer yet that stands. 1 is still compared with what others hear.",
        ),
        (3, 0, 1, 0, "Of your 3 shared pictures 1 is answered, 0 of them right."),
        (
            1_200,
            3,
            1,
            2,
            "Of your 1,200 shared pictures 4 are answered, 3 of them right. 2 more are still compared with what others "
            "hear.",
        ),
    ],
)
def test_what_a_member_is_told_is_said_in_the_right_number(
    pictures: int, right: int, wrong: int, checked: int, said: str
) -> None:
    """One picture is, several are, and no answer at all is none."""
    answers = [TheirAnswer("cat", "cat", right)] * (right > 0) + [TheirAnswer("cat", "dog", wrong)] * (wrong > 0)
    known = MemberStanding(pictures=pictures, checked=checked, answers=tuple(answers), subgroup=None, reference=None)
    assert known.told()[0] == said


def test_figures_of_few_people_are_told_to_nobody(house: House) -> None:
    """While fewer than five others of a group have answers, and while an answer is compared, neither is told."""
    people = crowd()
    few = people[np.isin(np.arange(60), [0, 1, 3, 6, 9, 12, 15, 18])]
    mirror = Mirror(house.ledger, house.desk.info, few)
    lease = house.desk.issue("cem", 60)
    assert lease is not None
    house.desk.take_back(lease.id, "cem", truth(lease.images))
    said = mirror.of("ada")
    # Of the subgroup seven persons, of whom ben has three; of the others ben's one alone.
    assert (said.pictures, said.reference) == (4, None)
    assert said.subgroup is None
    assert said.told()[-1].startswith("Where the group stands is told once 5 other people")
    assert said.answered + said.checked == 4
    with house.ledger.database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE inputs SET wanted = 2"))
    checked = mirror.of("ada")
    assert (checked.checked, checked.answers) == (4, ())
    assert "still compared" in checked.told()[0]
    with house.ledger.database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE inputs SET wanted = 0"))
    assert mirror.of("ada").answered == 4
    assert Mirror(house.ledger, house.desk.info, people).of("cem").subgroup is not None


def test_an_older_or_absent_hub_tells_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub does not know the question, or is away, the work's result stands alone."""
    monkeypatch.setenv("TTCA_HUB_X", house.tokens["ada"])
    assert own_standing(HubAccess(url=house.url + "/older", token_variable="TTCA_HUB_X")) is None
    assert own_standing(HubAccess(url="http://127.0.0.1:9", token_variable="TTCA_HUB_X")) is None
    empty = MemberStanding(pictures=0, checked=0, answers=(), subgroup=None, reference=None)
    assert empty.told()[0] == "No picture of yours is shared here."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["pictures", "checked", "answers", "subgroup", "true_class", "said", "count", "asked"]),
                inner,
            )
        ),
    )
)
def test_whatever_a_hub_says_of_pictures_is_read_or_refused(said: Any) -> None:
    """Any JSON is what a member may be told, or a sentence about the hub."""
    try:
        read = _read(Reply(said if isinstance(said, dict) else {"pictures": said}))
    except HubError:
        return
    assert read.told()


@dataclass(frozen=True)
class Page:
    """What matters of the hub's page."""

    text: str
    bar: dict[str, str | None]
    live: set[str]
    script: str

    @property
    def label(self) -> str:
        """How the bar is called."""
        return str(self.bar["aria-label"])

    @classmethod
    def read(cls, text: str) -> Page:
        """Read it as a browser would."""
        bars: list[dict[str, str | None]] = []
        live: set[str] = set()

        class Reader(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                found = dict(attrs)
                if found.get("role") == "progressbar":
                    bars.append({name: value for name, value in attrs if name.startswith("aria-")})
                if "data-now" in found:
                    live.add(str(found["id"]))

        Reader().feed(text)
        (bar,) = bars
        return cls(text, bar, live, text.partition("<script>")[2].partition("</script>")[0])


def test_images_travel_without_loss(house: House) -> None:
    """What a member gets is, byte for byte, what its owner shared."""
    given = house.lease().json()
    assert len(given["images"]) == 2
    for text in given["images"]:
        assert base64.b64decode(text).startswith(b"\x89PNG")


# -- any request at all -----------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_no_request_breaks_the_hub(house: House) -> None:
    """Requests made up from the hub's own description never get a 5xx, nor an answer that it does not describe."""
    import schemathesis
    from hypothesis import HealthCheck, given

    document = house.ask("GET", "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=house.url)
    token = house.tokens["ada"]
    seen: dict[str, set[int]] = {}

    for found in schema.get_all_operations():
        operation: Any = found

        def one(case: Any) -> None:
            reply = case.call(headers={"Authorization": f"Bearer {token}"})
            seen.setdefault(case.operation.label, set()).add(reply.status_code)
            assert reply.status_code < 500, reply.text
            case.validate_response(reply, checks=CHECKS)

        examples(40, suppress_health_check=list(HealthCheck), database=None)(
            given(case=operation.ok().as_strategy())(one)
        )()
    assert len(seen) == 7
    assert house.ask("GET", "/v1/me").status_code == 200


def _checks() -> list[Any]:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    return [not_a_server_error, status_code_conformance, response_schema_conformance]


CHECKS = _checks()

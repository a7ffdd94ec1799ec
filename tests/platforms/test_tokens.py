"""Tests of access tokens: bought when needed, renewed before they end and once they are refused, at no query's cost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, Exchange, images, scripted
from tests.platforms.ways import SECRET, USER, VARIABLE, WAYS, guarded
from tests.pooling.scripted import patient
from ttca.errors import ChargeState, TransportError
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Key, NotSentError, TokenFrom
from ttca.platforms.protocols import Response
from ttca.platforms.tokens import Token, Tokens
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

ADA = Credential("ada")
WAY = WAYS["token"]


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, WAY.value)


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def tokens_of(url: str, clock: Clock) -> Tokens:
    """Return the tokens of a real endpoint."""

    def ask(variable: str) -> Response:
        form = {"grant_type": "client_credentials", "client_id": USER, "client_secret": SECRET}
        reply = requests.post(f"{url}/token/", data=form, timeout=10)
        return Response(reply.status_code, {}, reply.content, url)

    def refusal(response: Response) -> TransportError:
        return TransportError("Down.", platform=url, charge=ChargeState.UNKNOWN, retryable=True, status=response.status)

    return Tokens(ask, refusal, url=f"{url}/token/", clock=clock)


@pytest.mark.parametrize(("lasts", "holds_s"), [(3600, 3540.0), ("3600", 3540.0), (100, 90.0), (100.0, 90.0)])
def test_a_token_is_renewed_before_it_ends(lasts: Any, holds_s: float) -> None:
    """A minute before, or after nine tenths of a short life, the next one is bought; until then there is one."""
    clock = Clock()
    with guarded(WAY) as (server, door):
        door.lasts = lasts
        tokens = tokens_of(server.url, clock)
        first = tokens.ready(VARIABLE, "ada")
        clock.now += holds_s - 1
        assert tokens.ready(VARIABLE, "ada") is first
        clock.now += 1
        assert tokens.ready(VARIABLE, "ada") is not first
        assert tokens.ready("TTCA_KEY_OTHER", "ben").value == door.tokens[2]
    assert len(door.tokens) == 3
    assert "pl4nted" not in repr(first)


def test_a_token_without_an_end_holds_until_it_is_refused() -> None:
    """Where no end is said none is guessed."""
    clock = Clock()
    with guarded(WAY) as (server, door):
        door.lasts = None
        tokens = tokens_of(server.url, clock)
        first = tokens.ready(VARIABLE, None)
        clock.now += 10**9
        assert tokens.ready(VARIABLE, None) is first
        assert tokens.ready(VARIABLE, None, refused=first).value == door.tokens[1]


def test_many_threads_buy_one_token() -> None:
    """Whoever needs a token while one is being bought waits for it; who was refused an older one buys none."""
    with guarded(WAY) as (server, door):
        tokens = tokens_of(server.url, Clock())
        with ThreadPoolExecutor(8) as threads:
            all_start = threading.Barrier(8)

            def ready(refused: Token | None) -> Token:
                all_start.wait(10)
                return tokens.ready(VARIABLE, None, refused=refused)

            first = {id(token): token for token in threads.map(ready, [None] * 8)}
            assert len(first) == len(door.tokens) == 1
            (refused,) = first.values()
            assert len({id(token) for token in threads.map(ready, [refused] * 8)}) == 1
    assert len(door.tokens) == 2


class Counted(str):
    """A variable's name that counts how often it is looked up."""

    came = threading.Semaphore(0)

    def __hash__(self) -> int:
        """Return a text's hash."""
        self.came.release()
        return super().__hash__()


def test_many_threads_share_one_failure() -> None:
    """While the endpoint stalls nobody waits for more than one request to it."""
    asked = threading.Event()
    requests_sent: list[str] = []

    def ask(variable: str) -> Response:
        if variable == "TTCA_KEY_OTHER":
            return Response(200, {}, b'{"access_token": "acc3ss-pl4nted"}', "p")
        requests_sent.append(variable)
        asked.set()
        for _ in range(8):
            assert Counted.came.acquire(timeout=10)
        # The last of them is past the look-up once somebody else is.
        tokens.ready("TTCA_KEY_OTHER", None)
        raise TransportError("Stalled.", platform="p", charge=ChargeState.UNKNOWN, retryable=True)

    def refusal(response: Response) -> TransportError:
        raise AssertionError(response)

    tokens = Tokens(ask, refusal, url="p")

    def ready(number: int) -> TransportError:
        if number:
            assert asked.wait(10)
        with pytest.raises(TransportError, match=r"Stalled\.") as caught:
            tokens.ready(Counted(VARIABLE), f"member {number}")
        return caught.value

    with ThreadPoolExecutor(8) as threads:
        errors = list(threads.map(ready, range(8)))
    assert [error.member for error in errors] == [f"member {n}" for n in range(8)]
    assert {error.charge for error in errors} == {ChargeState.REFUNDED}
    assert len(requests_sent) == 1
    with WAY.open("http://127.0.0.1:1") as platform, WAYS["header"].open("http://127.0.0.1:1") as other:
        assert platform.longest_attempt_s == 4 * other.longest_attempt_s


def test_a_renewal_that_fails_leaves_what_still_holds() -> None:
    """While the old token holds it is used, and the endpoint not asked each time; when it has ended, that is said."""
    clock, down = Clock(), threading.Event()
    asked: list[float] = []

    def ask(variable: str) -> Response:
        asked.append(clock.now)
        said = {"access_token": "acc3ss-pl4nted", "expires_in": 1000}
        return Response(503 if down.is_set() else 200, {}, json.dumps(said).encode(), "p")

    def refusal(response: Response) -> TransportError:
        return TransportError("Down.", platform="p", charge=ChargeState.UNKNOWN, retryable=True, status=503)

    tokens = Tokens(ask, refusal, url="p", clock=clock)
    first = tokens.ready(VARIABLE, None)
    down.set()
    for _ in range(100):
        clock.now += 9.99
        assert tokens.ready(VARIABLE, None) is first
    assert len(asked) < 30
    clock.now += 2
    with pytest.raises(TransportError, match=r"No access token came, so no query was sent\. Down\.") as caught:
        tokens.ready(VARIABLE, None)
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, True)


def test_a_refused_token_is_renewed_once() -> None:
    """A 401 costs one new token and one more request, under the same id; a second 401 is the platform's word."""
    with guarded(WAY) as (server, door), WAY.open(server.url) as platform:
        platform.attempt(images(1), ADA, request_id="r0")
        door.ended.update(door.tokens)
        platform.attempt(images(1, 1), ADA, request_id="r1")
        assert (len(door.tokens), len(door.bodies), door.refused) == (2, 2, 1)
        door.ended.update(f"acc3ss-pl4nted+token/{n}" for n in range(9))
        with pytest.raises(TransportError, match="status 401") as caught:
            platform.attempt(images(1, 2), ADA, request_id="r2")
        assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
        assert (len(door.tokens), len(door.bodies), door.refused) == (3, 2, 3)
        ids = [headers.get("Idempotency-Key") for headers in server.posts]
    assert ids == [None, "r0", "r1", None, "r1", "r2", None, "r2"]


def test_what_is_asked_for_is_said() -> None:
    """Scope and other fields go with the request for a token, and nothing that they hold is a secret."""
    way = WAYS["token, form"]
    forms: list[tuple[str, str, bytes]] = []

    def on_post(exchange: Exchange) -> None:
        forms.append((exchange.path, exchange.headers["Content-Type"], exchange.body))
        exchange.reply(400, b'{"error": "invalid_scope"}')

    with (
        scripted(on_post) as server,
        way.open(server.url) as platform,
        pytest.raises(TransportError, match=r"400 .*invalid_scope.* scope and key_in of token_from") as caught,
    ):
        platform.attempt(images(1), ADA, request_id="r")
    assert (caught.value.charge, caught.value.retryable, caught.value.member) == (ChargeState.REFUNDED, False, "ada")
    ((path, kind, body),) = forms
    assert (path, kind) == ("/token/", "application/x-www-form-urlencoded")
    assert b"grant_type=client_credentials&scope=see+faces&audience=me" in body


UNREADABLE: dict[str, bytes] = {
    "not JSON": b"access_token=pl4nted-token",
    "deep": b"[" * 100_000,
    "no object": b'["pl4nted-token"]',
    "no token": b'{"token": "pl4nted-token"}',
    "a number": b'{"access_token": 1}',
    "empty": b'{"access_token": ""}',
    "a line": b'{"access_token": "pl4nted-token\\r\\nX: y"}',
    "another kind": b'{"access_token": "pl4nted-token", "token_type": "mac"}',
    "a kind that is none": b'{"access_token": "pl4nted-token", "token_type": 1}',
    "no seconds": b'{"access_token": "pl4nted-token", "expires_in": "soon"}',
    "not a number": b'{"access_token": "pl4nted-token", "expires_in": NaN}',
    "below zero": b'{"access_token": "pl4nted-token", "expires_in": -1}',
    "true": b'{"access_token": "pl4nted-token", "expires_in": true}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_token_is_not_sent(body: bytes) -> None:
    """An answer that is not as RFC 6749 has it ends the asking in a sentence that quotes nothing of it."""
    with (
        scripted(lambda exchange: exchange.reply(200, body)) as server,
        WAY.open(server.url) as platform,
        pytest.raises(TransportError, match="Expected an access token from") as caught,
    ):
        platform.attempt(images(1), ADA, request_id="r")
    assert [path for _, path, _ in server.requests] == ["/token/"]
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
    assert "pl4nted" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "retryable", "wait"),
    [
        (lambda e: e.reply(500), True, None),
        (lambda e: e.reply(429, b"", {"Retry-After": "7"}), True, 7.0),
        (lambda e: e.reply(503, b"", {"Retry-After": "7"}), True, 7.0),
        (lambda e: e.reply(404), False, None),
        (lambda e: e.reply(302, b"", {"Location": "https://elsewhere.example.org"}), False, None),
        (Exchange.reset, True, None),
        (lambda e: e.server.released.wait(10), True, None),
    ],
)
def test_a_token_that_cannot_be_had_costs_nothing(
    script: Callable[[Exchange], None], retryable: bool, wait: float | None
) -> None:
    """Whatever becomes of a token request, the query was not sent: it is refunded, and asked again where that helps."""
    with (
        scripted(script) as server,
        WAY.section(server.url, read_timeout=0.2).open() as platform,
        pytest.raises(TransportError, match="No access token came") as caught,
    ):
        platform.attempt(images(1), ADA, request_id="r")
    assert {path for _, path, _ in server.requests} <= {"/token/"}
    error = caught.value
    assert (error.charge, error.retryable, error.retry_after) == (ChargeState.REFUNDED, retryable, wait)


def test_tokens_cost_no_query(tmp_path: Path) -> None:
    """Tokens that end at once are bought for each query, and the books know of the queries alone."""
    with guarded(WAY) as (server, door), Ledger(tmp_path / "ledger.sqlite") as ledger, WAY.open(server.url) as platform:
        door.lasts = 0
        pace = Pace(concurrency=1, batch=1, policy=patient())
        QueryPool(platform, ledger, [Member("ada", 9)], pace=pace).ask(images(4))
        assert [balance.charged for balance in ledger.balances()] == [4]
    assert (len(door.bodies), len(door.tokens)) == (4, 4)


def test_an_id_for_another_host_buys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the platform nor the token endpoint hears anything from a variable that is bound elsewhere."""
    monkeypatch.setenv(VARIABLE, f"api.example.org {USER} {SECRET}")
    with guarded(WAY) as (server, _), WAY.open(server.url) as platform:
        with pytest.raises(NotSentError, match="bound to another host"):
            platform.attempt(images(1), ADA, request_id="r")
        assert not server.requests


def test_nobody_without_a_variable_buys_a_token() -> None:
    """A platform that is asked without any key sends neither a token nor a request for one."""
    with scripted(lambda e: e.reply(401)) as server:
        source = TokenFrom(url=f"{server.url}/token")
        with (
            HttpPlatform(
                server.url, protocol="torchserve", model="m", classes=CLASSES, image_shape=IMAGE_SHAPE,
                key=Key(token_from=source),
            ) as platform,
            pytest.raises(TransportError, match="401"),
        ):  # fmt: skip
            platform.attempt(images(1), ADA, request_id="r")
        assert [path for _, path, _ in server.requests] == ["/predictions/m"]

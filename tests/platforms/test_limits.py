"""What headers, statuses and bodies say of limits: how long to wait, what it cost, and what to do."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, Exchange, images, scripted
from tests.pooling.places import fresh_ledger
from ttca.answers import Status
from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError, Trouble
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Transport
from ttca.platforms.limits import exhausted_s, policies, retry_after_s
from ttca.platforms.protocols import Response, create_protocol
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.statuses import status_error
from ttca.pooling.pool import Member, Pace, QueryPool

ADA = Credential("ada")
CAT = json.dumps({"label": "cat"}).encode()


def table_at(url: str, *, transport: Transport | None = None, **options: Any) -> HttpPlatform:
    """Return a platform that a table describes."""
    options = {"label": "label", "image_shape": IMAGE_SHAPE, **options}
    return HttpPlatform(url, protocol="template", classes=CLASSES, transport=transport, **options)


def replies(*given: tuple[int, bytes, dict[str, str]]) -> Callable[[Exchange], None]:
    """Return a script that replies so, one after the other, and the last one for ever."""
    left = list(given)
    return lambda exchange: exchange.reply(*(left.pop(0) if len(left) > 1 else left[0]))


def error_of(status: int, body: bytes = b"", headers: dict[str, str] | None = None, **options: Any) -> TransportError:
    """Return the error of one attempt that was answered so; it must have been sent once."""
    with scripted(replies((status, body, headers or {}))) as server, table_at(server.url, **options) as platform:
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert len(server.posts) == 1
    return caught.value


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": formatdate(1030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(10, usegmt=True)}, 0.0),
        ({"retry-after-ms": "x", "retry-after": "4"}, 4.0),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "100, 250"}, 0.25),
        ({"retry-after": "2, 3"}, 3.0),
        ({"retry-after": "3, 2"}, 3.0),
        ({"retry-after": "2, soon"}, None),
        ({"retry-after": "3s"}, 3.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "1h0m0.5s"}, 3600.5),
        ({"retry-after": "20ms"}, 0.02),
        ({"retry-after": "3 s"}, None),
        ({"retry-after": "s3"}, None),
        ({"retry-after": "1m30"}, None),
        ({"retry-after": "1970-01-01T00:17:10Z"}, 30.0),
        ({"retry-after": "1970-01-01T01:17:10.5+01:00"}, 30.5),
        ({"retry-after": "1970-01-01T00:17:10"}, None),
        ({"retry-after": f"{formatdate(1030, usegmt=True)}, {formatdate(1040, usegmt=True)}"}, 40.0),
        ({"retry-after": "1770000000", "date": formatdate(1_769_999_990, usegmt=True)}, 10.0),
        ({"x-ratelimit-reset": "1770000000", "date": formatdate(1_769_999_990, usegmt=True)}, 10.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1s"}, None),
    ],
)
def test_retry_after_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Numbers, durations and moments are read, the longest of several; nonsense is as if nothing had been said."""
    assert retry_after_s(headers, now=1000.0) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"ratelimit": '"default";r=0;t=7'}, 7.0),
        ({"ratelimit": '"default";r=3;t=7'}, None),
        ({"ratelimit": '"burst";r=0;t=2, "daily";r=100;t=9000'}, 2.0),
        ({"ratelimit": '"burst";r=0;t=2, "daily";r=0;t=9000'}, 9000.0),
        ({"ratelimit": "limit=10, remaining=0, reset=50"}, 50.0),
        ({"ratelimit": "limit=10, remaining=1, reset=50"}, None),
        ({"ratelimit-limit": "10", "ratelimit-remaining": "0", "ratelimit-reset": "50"}, 50.0),
        ({"ratelimit-remaining": "1", "ratelimit-reset": "50"}, None),
        ({"ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1770000000"}, 100.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1770000000.5"}, 100.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1770000000000"}, 100.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000000"}, 0.0),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1770000000"}, 100.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9", "x-ratelimit-reset-after": "9.5"}, 9.5),
        ({"x-ratelimit-remaining": "0, 5", "x-ratelimit-reset": "2, 3"}, 2.0),
        ({"x-ratelimit-remaining": "5, 0", "x-ratelimit-reset": "2, 3"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2, 3"}, 3.0),
        ({"ratelimit": "limit=10, remaining=0, reset=50, limit=99, remaining=0, reset=70"}, 70.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-minute": "0", "ratelimit-reset": "6"}, None),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-02-02T02:41:40Z",
                "anthropic-ratelimit-tokens-remaining": "1000",
                "anthropic-ratelimit-tokens-reset": "2026-02-02T02:50:00Z",
            },
            200.0,
        ),
        ({"ratelimit": '"default";r=zero;t=7'}, None),
        ({"ratelimit": '"default";limit=0;t=7'}, None),
    ],
)
def test_an_answer_says_when_nothing_is_left(headers: dict[str, str], seconds: float | None) -> None:
    """All forms of the RateLimit headers are read; only a limit that is used up asks to wait."""
    assert exhausted_s(headers, now=1_769_999_900.0) == seconds


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ('"default";q=50;w=1', {1.0: 50}),
        ('"burst";q=50;w=1, "daily";q=1000;w=86400', {1.0: 50, 86400.0: 1000}),
        ("50;w=1;burst=10", {1.0: 50}),
        ('"a";q=50;w=1, "b";q=20;w=1', {1.0: 20}),
        ('"bytes";q=9;w=1;qu="content-bytes"', {}),
        ('"default";q=50', {}),
        ('"default";q=0;w=1', {}),
        ('"default";w=1;q=many', {}),
    ],
)
def test_a_stated_policy_is_read(text: str, limits: dict[float, int]) -> None:
    """Both forms of RateLimit-Policy are read; what is not counted in requests is passed over."""
    assert policies({"ratelimit-policy": text}) == limits


NAMES = (
    "retry-after",
    "retry-after-ms",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-reset",
    "ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-requests",
    "date",
)
HEADER_TEXT = st.binary(max_size=40).map(lambda b: b.decode("latin-1"))


@given(st.dictionaries(st.sampled_from(NAMES), HEADER_TEXT | st.from_regex(r"[0-9A-Zdhms ,.:;=+-]{0,40}")))
def test_no_header_breaks_the_reader_of_retry_after(headers: dict[str, str]) -> None:
    """Whatever a header holds, the wait is None or a finite number of seconds, 0 or more."""
    wait = retry_after_s(headers, now=0.0)
    assert wait is None or 0 <= wait < float("inf")
    assert all(s > 0 and n > 0 for s, n in policies(headers).items())
    held = exhausted_s(headers, now=0.0)
    assert held is None or 0 <= held < float("inf")


# -- statuses and bodies --------------------------------------------------------------------------------------------

AWS = "ends_with(__type, 'ThrottlingException')"
CLARIFAI = "status.code == `11005`"


@pytest.mark.parametrize(
    ("status", "headers", "body", "throttled", "wait"),
    [
        (400, {}, b'{"__type": "com.amazonaws#ThrottlingException", "message": "Rate exceeded"}', AWS, None),
        (400, {"Retry-After": "2"}, b"", None, 2.0),
        (400, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7"}, b"", None, 7.0),
        (403, {"Retry-After": "3"}, b'{"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}', None, 3.0),
        (403, {}, b'{"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}', "error_message", None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, b"", None, 9.0),
        (420, {"Retry-After": "1m"}, b"", None, 60.0),
        (200, {}, b'{"status": {"code": 11005, "description": "throttled"}}', CLARIFAI, None),
        (200, {"Retry-After": "4"}, b'{"status": {"code": 11005}}', CLARIFAI, 4.0),
        (500, {}, b'{"status": {"code": 11005}}', CLARIFAI, None),
        (429, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, b"", None, 1.0),
    ],
)
def test_too_fast_is_waited_out_and_refunded_whatever_the_status(
    status: int, headers: dict[str, str], body: bytes, throttled: str | None, wait: float | None
) -> None:
    """What says "too fast", by the table, by Retry-After or by a limit used up, costs nothing and is worth a retry."""
    error = error_of(status, body, headers, throttled=throttled)
    assert (error.trouble, error.charge, error.retryable) == (Trouble.THROTTLED, ChargeState.REFUNDED, True)
    assert (error.status, error.retry_after) == (status, wait)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, {}, b'{"__type": "InvalidImageFormatException"}'),
        (400, {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "7"}, b'{"__type": null}'),
        (403, {}, b"forbidden"),
        (420, {}, b"<html>"),
        (404, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7"}, b"{}"),
    ],
)
def test_an_error_that_says_nothing_of_limits_is_no_limit(status: int, headers: dict[str, str], body: bytes) -> None:
    """Where neither the table nor the headers say that it came too fast, the asking ends as before."""
    error = error_of(status, body, headers, throttled=AWS)
    assert (error.trouble, error.retryable, error.retry_after) == (None, False, None)


def test_a_pool_waits_out_what_a_table_calls_throttled() -> None:
    """AWS's 400 costs no query: all is answered, each query is charged once, and the first wait is told."""
    throttled: tuple[int, bytes, dict[str, str]] = (400, b'{"__type": "ThrottlingException"}', {})
    waits: list[float] = []
    with (
        scripted(replies((200, CAT, {}), *[throttled] * 4, (200, CAT, {}))) as server,
        table_at(server.url, throttled=AWS) as platform,
        fresh_ledger() as ledger,
    ):
        policy = RetryPolicy(sleep=waits.append, rng=random.Random(0))
        pool = QueryPool(platform, ledger, [Member("ada", 100)], pace=Pace(concurrency=4, batch=1, policy=policy))
        assert pool.ask(images(12)).answered.all()
        assert pool.status()[0].charged == 12
        assert pool.status()[0].refunded == len(server.posts) - 12 == 4
    assert waits


@pytest.mark.parametrize(
    ("status", "headers", "body", "used_up"),
    [
        (402, {}, b"You have exceeded your monthly credits", None),
        (429, {"Retry-After": "1"}, b'{"error": {"code": "insufficient_quota", "message": "check your plan"}}', None),
        (429, {}, b'{"error": {"type": "insufficient_quota"}}', None),
        (400, {}, b'{"error": {"message": "Your credit balance is too low"}}', "contains(error.message, 'credit')"),
        (200, {}, b'{"code": 17, "message": "daily limit reached"}', "code == `17`"),
    ],
)
def test_a_quota_used_up_stops_at_once_and_shows_the_body(
    status: int, headers: dict[str, str], body: bytes, used_up: str | None
) -> None:
    """Nobody waits for a quota that has ended; it costs nothing, and what the platform says of it is shown."""
    error = error_of(status, body, headers, used_up=used_up)
    assert (error.trouble, error.charge, error.retryable) == (Trouble.USED_UP, ChargeState.REFUNDED, False)
    assert body.decode()[:40] in str(error)
    assert "used up" in str(error)
    assert error.come_back_s is None


def test_a_quota_that_is_renewed_says_when_to_come_back() -> None:
    """Where the platform says when a used-up quota begins anew, waiting is all it needs: status 75."""
    error = error_of(429, b'{"error": {"code": "insufficient_quota"}}', {"Retry-After": "3600"}, used_up=None)
    assert (error.trouble, error.retryable, error.come_back_s) == (Trouble.USED_UP, False, 3600.0)
    assert "Run this again after 2" in str(error)


def test_where_a_table_says_what_limits_are_nothing_else_changes() -> None:
    """An answer is read as before, a fingerprint is the same, and a broken expression is refused at the door."""
    with scripted(replies((200, CAT, {}))) as server:
        with table_at(server.url, throttled=AWS, used_up="quota") as platform, table_at(server.url) as plain:
            assert platform.attempt(images(1), ADA, request_id="r1").labels.tolist() == [0]
            assert platform.info.fingerprint == plain.info.fingerprint
            assert plain.info.reading is not None
            assert "throttled" not in plain.info.reading
        for name in ("throttled", "used_up"):
            with pytest.raises(ConfigError, match=f"Expected {name} as a JMESPath expression"):
                table_at(server.url, **{name: "a["})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 503, 504])
def test_the_text_of_a_refusal_holds_whatever_the_status(status: int) -> None:
    """A "no face detected" is an answer, asked once, also where it comes as a server's own error."""
    body = b'{"error": "No face detected"}'
    with (
        scripted(replies((status, body, {}))) as server,
        table_at(server.url, refused_errors=["no face detected"]) as platform,
        fresh_ledger() as ledger,
    ):
        pool = QueryPool(platform, ledger, [Member("ada", 100)], pace=Pace(concurrency=1))
        assert pool.ask(images(2)).status.tolist() == [Status.REFUSED] * 2
        assert (pool.status()[0].charged, len(server.posts)) == (2, 2)
    error = error_of(status, b'{"error": "other"}', refused_errors=["no face detected"])
    assert error.status == status


def test_a_refusal_may_be_a_servers_own_error_where_the_table_says_so() -> None:
    """A place or a status refuses with 500 too, never with the statuses of keys, limits and gateways."""
    table: Any = create_protocol(
        "template", classes=CLASSES, image_shape=IMAGE_SHAPE, refused="no_face", refused_statuses=[500, 422]
    )
    wire = table.describe(lambda _: None)
    assert wire.refuses(Response(500, {}, b"", "p"))
    for status in (400, 501):
        assert wire.refuses(Response(status, {}, b'{"no_face": true}', "p"))
        assert not wire.refuses(Response(status, {}, b'{"error": "crashed"}', "p"))
    for status in (401, 402, 403, 404, 429, 502, 503, 504):
        assert not wire.refuses(Response(status, {}, b'{"no_face": true}', "p"))
        with pytest.raises(ConfigError, match="refused_errors, which holds whatever the status"):
            create_protocol("template", classes=CLASSES, image_shape=IMAGE_SHAPE, refused_statuses=[status])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "code", "type"]), inner),
)


@given(
    st.integers(200, 599),
    st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()),
    st.dictionaries(st.sampled_from(["retry-after", "location", "x-ratelimit-remaining"]), st.text(max_size=20)),
    st.integers(1, 64),
)
def test_every_status_and_body_has_one_meaning(status: int, body: bytes, headers: dict[str, str], n: int) -> None:
    """Whatever comes ends in one sentence; no limit is charged, and only what is tried again asks to wait."""
    response = Response(status, headers, body, "http://127.0.0.1:1", "r", "POST http://127.0.0.1:1/x")
    error = status_error(response, images=n)
    assert str(error).count("Expected") == 1
    assert error.retryable or error.retry_after is None
    if isinstance(error, AnswerError):
        assert 200 <= status < 300
    if error.trouble in (Trouble.THROTTLED, Trouble.USED_UP):
        assert error.charge is ChargeState.REFUNDED


# -- sentences ------------------------------------------------------------------------------------------------------


def test_a_redirect_that_adds_the_last_slash_says_what_to_set() -> None:
    """Where url is the whole address its slash counts, and else the sentence names the path to end with one."""

    def picky(exchange: Exchange) -> None:
        if exchange.path.endswith("/"):
            exchange.reply(200, CAT)
        else:
            exchange.reply(307, b"", {"Location": f"{exchange.path}/"})

    with scripted(picky) as server:
        with table_at(f"{server.url}/predict") as platform, pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert f"slash at its end. Write it in [platform]: url = '{server.url}/predict/'" in str(caught.value)
        with table_at(f"{server.url}/predict/") as platform:
            assert platform.attempt(images(1), ADA, request_id="r1").answered.all()
        with table_at(server.url, path="v1/predict") as platform, pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert "End the path '/v1/predict' with it" in str(caught.value)
        with table_at(server.url, path="v1/predict/") as platform:
            assert platform.attempt(images(1), ADA, request_id="r1").answered.all()


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("https://b.example/v1/x", "set url to 'https://b.example'"),
        ("https://b.example/api/v1/x", "set url to 'https://b.example/api'"),
        ("https://b.example/login?next=v1", "set url, and the path"),
        ("/v1", "set url, and the path"),
        ("http://[", "set url, and the path"),
        (None, "nowhere"),
    ],
)
def test_a_redirect_says_what_url_would_be(location: str | None, says: str) -> None:
    """The address it points to holds the path that the protocol adds: url is what stands before it."""
    headers = {} if location is None else {"location": location}
    response = Response(307, headers, b"", "https://a.example", "r", "POST https://a.example/v1/x")
    assert says in str(status_error(response))
    without = Response(
        301, {"location": "https://a.example/v1"}, b"", "https://a.example", "r", "POST https://a.example/v1/"
    )
    assert "without the slash" in str(status_error(without))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[request id: 1] inference request batch-size must be <= 32 for 'm'", "Set max_batch = 32 in [platform]"),
        (b"Task size 64 is larger than maximum batch size 16", "Set max_batch = 16 in [platform]"),
        (b"Too many images per request.", "Set a lower max_batch in [platform]"),
        (b"batch size exceeded", "Set a lower max_batch in [platform]"),
        (b"batch-size must be <= 99", "Set a lower max_batch in [platform]"),
    ],
)
def test_too_large_a_batch_ends_in_a_sentence_about_max_batch(body: bytes, says: str) -> None:
    """What says that a request held too many images says what to set, is not charged, and is not about protocol."""
    error = status_error(Response(400, {}, body, "p"), images=64)
    assert says in str(error)
    assert "protocol" not in str(error)
    assert (error.charge, error.retryable) == (ChargeState.REFUNDED, False)
    alone = status_error(Response(400, {}, body, "p"), images=1)
    assert "max_batch" not in str(alone)


@pytest.mark.parametrize("status", [404, 405, 410, 307])
def test_where_the_address_may_be_wrong_the_whole_of_it_is_named(status: int) -> None:
    """A 404 and its like name the method and the path that were asked."""
    error = error_of(status, b"", path="v1/nowhere?size=2")
    assert "POST http://127.0.0.1:" in str(error)
    assert "/v1/nowhere?size=2" in str(error)


def test_where_a_key_may_be_wrong_it_says_which_was_sent_or_that_none_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable, or key_variable where there is none; a variable without a value says what to write."""
    for status in (401, 403):
        response = Response(status, {}, b"", "p")
        assert "No key was sent" in str(status_error(response))
        advice = str(status_error(response, key_variable="TTCA_KEY_X"))
        assert "TTCA_KEY_X holds a key" in advice
        assert "(key_header, key_scheme, key_in, key_names)" in advice
    assert "a key they do not know" in str(status_error(Response(404, {}, b"", "p")))
    monkeypatch.delenv("TTCA_KEY_X", raising=False)
    with scripted() as server, table_at(server.url) as platform, pytest.raises(ConfigError) as caught:
        platform.attempt(images(1), Credential("ada", "TTCA_KEY_X"), request_id="r1")
    assert "export TTCA_KEY_X='127.0.0.1 YOUR-KEY'" in str(caught.value)


@pytest.mark.parametrize("name", ["X-Tokenizer", "X-Max-Tokens", "Keywords", "X-Author", "X-Authority", "Monkeys"])
def test_a_header_that_only_sounds_like_a_key_is_sent(name: str) -> None:
    """Whole words make a key, in headers and in the names of a query."""
    create_protocol(
        "template", classes=CLASSES, image_shape=IMAGE_SHAPE, headers={name: "1"}, path=f"v1?{name.lower()}=2"
    )


@pytest.mark.parametrize(
    "name",
    ["X-Api-Key", "apikey", "X-AccessToken", "Authorization", "Cookie", "X-Auth-Token", "Ocp-Apim-Subscription-Key",
     "X-Client-Secret", "myApiKey", "X-Auth", "private_token", "key"],
)  # fmt: skip
def test_a_header_that_names_a_key_is_refused(name: str) -> None:
    """A key has its own place, however it is spelled."""
    for options in ({"headers": {name: "1"}}, {"path": f"v1?{name}=2"}):
        with pytest.raises(ConfigError, match="key"):
            create_protocol("template", classes=CLASSES, image_shape=IMAGE_SHAPE, **options)


# -- real servers ---------------------------------------------------------------------------------------------------


class OneAfterAnother(HTTPServer):
    """A server of one thread that takes ``service_s`` for each request."""

    request_queue_size = 128

    def __init__(self, service_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _OneRequest)
        self.service_s = service_s
        self.seen: Counter[str] = Counter()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore whoever has gone away."""


class _OneRequest(BaseHTTPRequestHandler):
    server: OneAfterAnother

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer after a while, to somebody who may be gone."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen[self.headers["Idempotency-Key"]] += 1
        time.sleep(self.server.service_s)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CAT)))
        self.end_headers()
        self.wfile.write(CAT)


@contextmanager
def one_after_another(service_s: float) -> Iterator[OneAfterAnother]:
    """Run such a server."""
    server = OneAfterAnother(service_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_of_one_thread_is_not_paid_twice() -> None:
    """With 64 allowed in flight and a queue of 64 that would outlast our patience, no request times out in it."""
    n = 300
    distinct = np.zeros((n, *IMAGE_SHAPE), np.uint8)
    distinct[:, 0, 0, 0], distinct[:, 0, 0, 1] = np.arange(n) % 250, np.arange(n) // 250
    with (
        one_after_another(0.01) as server,
        table_at(
            f"http://127.0.0.1:{server.server_port}", transport=Transport(connect_timeout=0.6, read_timeout=0.6)
        ) as platform,
        fresh_ledger() as ledger,
    ):
        pool = QueryPool(platform, ledger, [Member("ada", 1000)], pace=Pace(concurrency=64, batch=1))
        assert pool.ask(distinct).answered.all()
        # Without the care for its queue 321 of 502 charges had an unknown end, and the asking broke off.
        assert pool.status()[0].unknown <= 5
        assert sum(server.seen.values()) <= n + 5


SERVE = f"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "{len(CAT)}")
        self.end_headers()
        self.wfile.write({CAT!r})
class Server(ThreadingHTTPServer):
    allow_reuse_address = True
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.full
def test_a_restart_of_nine_seconds_does_not_end_the_asking(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is killed and comes back after 9 s is waited for: all is answered, and that is told once."""
    caplog.set_level(logging.WARNING, logger="ttca")

    def start(port: int) -> tuple[subprocess.Popen[str], int]:
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(port)], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        return server, int(server.stdout.readline())

    server, port = start(0)
    back: list[subprocess.Popen[str]] = []

    def restart() -> None:
        server.kill()
        server.wait()
        time.sleep(9)
        back.append(start(port)[0])

    n, most = 3000, 16
    distinct = np.random.default_rng(0).integers(0, 256, (n, *IMAGE_SHAPE)).astype(np.uint8)
    try:
        with table_at(f"http://127.0.0.1:{port}") as platform, fresh_ledger() as ledger:
            pool = QueryPool(platform, ledger, [Member("ada", 2 * n)], pace=Pace(concurrency=most, batch=1))
            timer = threading.Timer(0.7, restart)
            timer.start()
            assert pool.ask(distinct).answered.all()
            timer.join()
            balance = pool.status()[0]
            assert balance.refunded > 0
            assert balance.unknown <= most
    finally:
        for process in (server, *back):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    lost = [r for r in caplog.records if "No connection any more; trying again for up to" in r.getMessage()]
    assert len(lost) == 1

"""The transport: every outcome of one attempt, and where keys and queries must never go."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import ttca
from tests.platforms.scripted import CLASSES, GOOD, METADATA, Exchange, images, scores_body, scripted
from ttca.answers import Status
from ttca.errors import AnswerError, ChargeState, ConfigError, ImageError, TransportError, TTCAError
from ttca.platforms.base import Credential, Platform
from ttca.platforms.http import HttpPlatform, Key, NotSentError, Transport
from ttca.platforms.retry import RetryPolicy

#: Where our own frames lie; a clone may itself be called ttca.
OURS = str(Path(ttca.__file__).parent)

ADA = Credential("ada")
SECRET = "sk-very-secret-0123456789"
NO_RETRY = RetryPolicy(attempts=1)
KEY = ("key_variable", "key_header", "key_scheme")
TRANSPORT = ("connect_timeout", "read_timeout", "max_batch", "max_response_bytes", "metadata_retry")


def platform_at(url: str, **options: Any) -> HttpPlatform:
    """Return a platform; options of its key and of its transport are told from those of the protocol."""
    key = {name.removeprefix("key_"): options.pop(name) for name in KEY if name in options}
    transport = {name: options.pop(name) for name in TRANSPORT if name in options}
    return HttpPlatform(
        url,
        **{"model": "m", "classes": CLASSES, **options},
        key=Key(**key),
        transport=Transport(**{"metadata_retry": NO_RETRY, **transport}),
    )


def fail(on_post: Callable[[Exchange], None], **options: Any) -> TransportError:
    """Return the error of one attempt at a server that does ``on_post``; it must have been sent exactly once."""
    with scripted(on_post) as server, platform_at(server.url, **options) as platform:
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert len(server.posts) == 1
    return caught.value


def replying(body: bytes, headers: dict[str, str]) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.reply(200, body, headers)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def stall(exchange: Exchange) -> None:
    exchange.server.released.wait(10)


def stall_after_headers(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    stall(exchange)


def drip(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not exchange.server.released.wait(0.02):
        exchange.wfile.write(b" ")


def cut_off(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    exchange.close_connection = True


def test_an_http_platform_is_a_platform_and_names_itself_without_secrets() -> None:
    """HttpPlatform fulfils the Platform contract, reads its info once and is identified by its fingerprint."""
    with scripted() as server, platform_at(server.url) as platform:
        assert platform.info.image_shape == (4, 5, 3)
        assert isinstance(platform, Platform)
        identity = platform.info.identity
        assert (identity["url"], identity["protocol"], identity["model"]) == (server.url, "kserve-v2", "m")
        assert identity["versions"] == "7"
        assert [path for _, path, _ in server.requests] == ["/v2/models/m", "/v2"]
        with platform_at(server.url, scores_are="percent") as other:
            # The same answers, read otherwise.
            assert other.info.fingerprint == platform.info.fingerprint
            assert other.info.fingerprint_as_read != platform.info.fingerprint_as_read


def test_an_attempt_answers_with_the_members_request_id_as_idempotency_key() -> None:
    """A good answer becomes Answers, and the request carries the caller's id."""
    with scripted() as server, platform_at(server.url) as platform:
        answers = platform.attempt(images(1), ADA, request_id="r-1")
        assert server.posts[0]["Idempotency-Key"] == "r-1"
    assert answers.labels.tolist() == [1]
    assert answers.complete.all()


def test_connections_are_kept_alive_and_shared_between_threads() -> None:
    """Forty attempts from four threads need no more connections than threads, and metadata is read once."""
    with scripted() as server, platform_at(server.url) as platform, ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda i: platform.attempt(images(1), ADA, request_id=f"r{i}"), range(40)))
        assert len(rows) == 40
        assert server.connections <= 4
        assert sum(path == "/v2/models/m" for _, path, _ in server.requests) == 1


def test_a_refused_connection_is_refunded_and_worth_a_retry() -> None:
    """Nothing listens: the attempt surely was not processed."""
    with scripted() as server, platform_at(server.url) as platform:
        assert platform.info.name == server.url
        server.shutdown()
        server.server_close()
        platform.close()
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, True)
    assert (caught.value.member, caught.value.request_id) == ("ada", "r1")


def test_a_platform_that_is_down_refunds_its_metadata() -> None:
    """Without metadata no query was sent, whatever went wrong with the metadata."""
    with platform_at(f"http://127.0.0.1:{free_port()}") as platform, pytest.raises(TransportError) as caught:
        _ = platform.info
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, True)
    with scripted() as server, platform_at(server.url, read_timeout=0.1) as platform:
        server.on_get = stall
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert not server.posts
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, True)


def test_a_certificate_that_cannot_be_verified_ends_the_exchange() -> None:
    """TLS is verified: a server with a certificate of an unknown authority gets no request, and nobody retries it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with scripted() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with (
            platform_at(server.url.replace("http:", "https:")) as platform,
            pytest.raises(TransportError, match="certificate") as caught,
        ):
            platform.attempt(images(1), ADA, request_id="r1")
        assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
        assert not server.requests


def test_https_where_a_server_speaks_http_is_said_at_once() -> None:
    """Nothing was sent, nothing is charged, and it is not tried again."""
    with (
        scripted() as server,
        platform_at(server.url.replace("http:", "https:")) as platform,
        pytest.raises(TransportError, match="an answer without TLS") as caught,
    ):
        platform.attempt(images(1), ADA, request_id="r1")
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
    assert not server.requests


@pytest.mark.parametrize("host", ["no-such-host.invalid", "localhost.invalid"])
def test_an_unknown_host_is_refunded(host: str) -> None:
    """A name that does not resolve surely processed nothing."""
    with (
        platform_at(f"https://{host}", authorized_by="the owner") as platform,
        pytest.raises(TransportError) as caught,
    ):
        _ = platform.info
    assert caught.value.charge is ChargeState.REFUNDED


@pytest.mark.parametrize("script", [stall, stall_after_headers, drip])
def test_a_silent_or_dripping_server_times_out_with_an_unknown_charge(script: Callable[[Exchange], None]) -> None:
    """Once a query is sent, silence proves nothing about it, and no server can hold us beyond the timeout."""
    began = time.monotonic()
    error = fail(script, read_timeout=0.15, connect_timeout=0.15)
    assert (error.charge, error.retryable, error.status) == (ChargeState.UNKNOWN, True, None)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("script", [Exchange.reset, cut_off])
def test_a_broken_connection_after_sending_has_an_unknown_charge(script: Callable[[Exchange], None]) -> None:
    """A reset, or an answer cut off by the network, may follow processing."""
    error = fail(script)
    assert (error.charge, error.retryable) == (ChargeState.UNKNOWN, True)


@pytest.mark.parametrize(
    ("status", "headers", "charge", "retryable", "wait"),
    [
        (429, {}, ChargeState.REFUNDED, True, None),
        (429, {"Retry-After": "3"}, ChargeState.REFUNDED, True, 3.0),
        (429, {"retry-after-ms": "250", "Retry-After": "1"}, ChargeState.REFUNDED, True, 0.25),
        (429, {"RateLimit": '"default";r=0;t=12'}, ChargeState.REFUNDED, True, 12.0),
        (503, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}, ChargeState.UNKNOWN, True, None),
        (500, {"RateLimit-Reset": "3000"}, ChargeState.UNKNOWN, True, None),
        (429, {"RateLimit-Reset": "9"}, ChargeState.REFUNDED, True, 9.0),
        (503, {"Retry-After": "2"}, ChargeState.REFUNDED, True, 2.0),
        (503, {}, ChargeState.UNKNOWN, True, None),
        (500, {}, ChargeState.UNKNOWN, True, None),
        (502, {}, ChargeState.UNKNOWN, True, None),
        (504, {}, ChargeState.UNKNOWN, True, None),
        (408, {}, ChargeState.UNKNOWN, True, None),
        (409, {}, ChargeState.UNKNOWN, True, None),
        (425, {}, ChargeState.UNKNOWN, True, None),
        (400, {}, ChargeState.CHARGED, False, None),
        (418, {}, ChargeState.CHARGED, False, None),
        (401, {}, ChargeState.REFUNDED, False, None),
        (403, {}, ChargeState.REFUNDED, False, None),
        (404, {}, ChargeState.REFUNDED, False, None),
        (413, {}, ChargeState.REFUNDED, False, None),
        (422, {}, ChargeState.REFUNDED, False, None),
    ],
)
def test_each_status_has_its_charge(
    status: int, headers: dict[str, str], charge: ChargeState, retryable: bool, wait: float | None
) -> None:
    """A status says what the attempt cost, whether another may succeed, and when."""
    error = fail(lambda e: e.reply(status, b'{"error": "because"}', headers))
    assert (error.status, error.charge, error.retryable, error.retry_after) == (status, charge, retryable, wait)
    assert "because" in str(error)
    assert not isinstance(error, AnswerError)


def test_a_retry_after_date_is_read_by_the_servers_own_clock() -> None:
    """An HTTP date is turned into seconds relative to the response's Date, so a wrong clock here does not matter."""

    def on_post(exchange: Exchange) -> None:
        then = 1_000_000_000
        exchange.send_response_only(429)
        exchange.send_header("Date", formatdate(then, usegmt=True))
        exchange.send_header("Retry-After", formatdate(then + 7, usegmt=True))
        exchange.send_header("Content-Length", "0")
        exchange.end_headers()

    assert fail(on_post).retry_after == 7.0


def test_a_key_travels_in_the_header_its_platform_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many APIs want the bare key in a header of their own; no other header then holds it."""
    monkeypatch.setenv("TTCA_KEY_MINE", "127.0.0.1 s3cret-value")
    with (
        scripted(replying(GOOD, {})) as server,
        platform_at(server.url, key_variable="TTCA_KEY_MINE", key_header="X-Api-Key", key_scheme="") as platform,
    ):
        platform.attempt(images(1), ADA, request_id="r1")
        sent = server.posts[0]
    assert sent["X-Api-Key"] == "s3cret-value"
    assert [name for name, value in sent.items() if "s3cret" in value] == ["X-Api-Key"]


def test_a_used_up_limit_holds_the_keys_next_request() -> None:
    """A good answer that says "none left for so long" is heeded before the platform has to refuse."""
    with scripted(replying(GOOD, {"RateLimit": '"default";r=0;t=30'})) as server, platform_at(server.url) as platform:
        platform.attempt(images(1), ADA, request_id="r1")
        waits: list[float] = []
        platform.throttle.enter("", sleep=waits.append, stopped=lambda: bool(waits))
        assert 25 < waits[0] <= 30.2
        assert platform.throttle.enter("TTCA_KEY_OF_ANOTHER") is not None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html><body>Sign in</body></html>", "HTML"),
        (GOOD[:-20], "truncated"),
        (b"", "empty"),
        (b"[1, 2]", "JSON object"),
        (b'{"error": "model is loading"}', "model is loading"),
        (scores_body([[float("nan")] * 3]), "NaN"),
        (scores_body([[0.5, 0.5]]), "shape"),
        (scores_body([[0.1, 0.7, 0.2]] * 2), "shape"),
        (scores_body([[12.0, -3.0, 1.0]]), "scores_are"),
        (scores_body([[0.0, 0.0, 0.0]]), "scores"),
        (scores_body([[0.1, 0.7, 0.2]], id="another"), "another"),
        (scores_body([[0.1, 0.7, 0.2]], model_version="8"), "version"),
        (GOOD + b"\x00" * 4, "truncated"),
    ],
)
def test_an_unreadable_answer_is_an_error_and_never_a_label(body: bytes, says: str) -> None:
    """A 200 that is not an answer is charged, not retried and explained."""
    error = fail(lambda e: e.reply(200, body))
    assert isinstance(error, AnswerError)
    assert (error.charge, error.retryable, error.status, error.member) == (ChargeState.CHARGED, False, 200, "ada")
    assert says in str(error)


def test_one_bad_row_fails_alone() -> None:
    """Where a single row is unreadable, the others keep their labels."""
    body = scores_body([[0.1, 0.7, 0.2], [float("nan"), 0.5, 0.5], [0.8, 0.1, 0.1]])
    with scripted(lambda e: e.reply(200, body)) as server, platform_at(server.url) as platform:
        answers = platform.attempt(images(3), ADA, request_id="r1")
    assert answers.status.tolist() == [Status.ANSWERED, Status.FAILED, Status.ANSWERED]
    assert answers.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_that_says_where_to(status: int) -> None:
    """Redirects are never followed, so neither images nor keys go to a host nobody named."""
    error = fail(lambda e: e.reply(status, b"", {"Location": "https://elsewhere.example/x"}))
    assert not error.retryable
    assert "https://elsewhere.example/x" in str(error)


def test_a_gzip_bomb_is_not_unpacked() -> None:
    """A body that unpacks beyond the limit is refused after the limit's worth of bytes."""
    bomb = gzip.compress(b" " * 50_000_000)
    error = fail(lambda e: e.reply(200, bomb, {"Content-Encoding": "gzip"}), max_response_bytes=1_000_000)
    assert isinstance(error, AnswerError)
    assert "1000000 bytes" in str(error)


def test_gzip_within_the_limit_is_read_and_other_encodings_are_not() -> None:
    """A platform that compresses anyway is understood; an encoding we did not ask for is an error."""

    def on_post(exchange: Exchange) -> None:
        exchange.reply(200, gzip.compress(GOOD), {"Content-Encoding": "gzip"})

    with scripted(on_post) as server, platform_at(server.url) as platform:
        assert platform.attempt(images(1), ADA, request_id="r1").labels.tolist() == [1]
    for encoding, body in (("br", GOOD), ("gzip", GOOD), ("gzip", gzip.compress(GOOD)[:-9])):
        assert isinstance(fail(replying(body, {"Content-Encoding": encoding})), AnswerError)


def test_an_oversized_answer_is_refused_while_it_streams() -> None:
    """An endless body costs us no more memory than the limit."""

    def endless(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            exchange.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")

    error = fail(endless, max_response_bytes=100_000)
    assert isinstance(error, AnswerError)
    assert "max_response_bytes" in str(error)


def test_a_failed_attempt_does_not_spoil_the_next() -> None:
    """After an oversized answer, the next attempt gets its own answer and not the rest of the last."""
    bodies: Iterator[bytes] = iter([b" " * 300_000, GOOD])
    with (
        scripted(lambda e: e.reply(200, next(bodies))) as server,
        platform_at(server.url, max_response_bytes=100_000) as platform,
    ):
        with pytest.raises(AnswerError):
            platform.attempt(images(1), ADA, request_id="r1")
        assert platform.attempt(images(1), ADA, request_id="r2").labels.tolist() == [1]


@pytest.mark.parametrize(
    "batch",
    [images(1).astype(np.float32), np.zeros((1, 5, 4, 3), np.uint8), np.zeros((3, 4, 5, 3), np.uint8)],
)
def test_bad_images_never_reach_the_platform(batch: Any) -> None:
    """A wrong dtype, size or number of images costs no query."""
    with scripted() as server, platform_at(server.url, max_batch=2) as platform:
        with pytest.raises(ImageError):
            platform.attempt(batch, ADA, request_id="r1")
        assert not server.posts


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 4, 5, 1]}]},
        {"inputs": [{"name": "x", "datatype": "BOOL", "shape": [-1, 4, 5, 3]}]},
        {"outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 1000]}]},
        {"outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 3]}] * 2},
        {"parameters": {"classes": ["dog", "cat", "owl"]}},
    ],
)
def test_a_platform_that_is_not_as_configured_is_found_out_before_a_query(change: dict[str, Any]) -> None:
    """Channels, datatype, class count, ambiguous outputs and class order are read from the metadata."""
    metadata = {**METADATA, **change}
    with scripted(metadata=metadata) as server, platform_at(server.url) as platform:
        with pytest.raises(ConfigError):
            _ = platform.info
        with pytest.raises(NotSentError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert caught.value.charge is ChargeState.REFUNDED
        assert not server.posts


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://api.example.org", {}),
        ("https://api.example.org", {"authorized_by": " "}),
        ("http://api.example.org", {"authorized_by": "the owner"}),
        ("http://10.0.0.1", {"authorized_by": "the owner"}),
        ("http://0.0.0.0", {"authorized_by": "the owner"}),
        ("http://127.0.0.1.example.org", {"authorized_by": "the owner"}),
        ("ftp://127.0.0.1", {}),
        ("127.0.0.1:80", {}),
        ("http://ada:pw@127.0.0.1", {}),
        ("http://127.0.0.1?key=1", {}),
        ("http://127.0.0.1:99999", {}),
        ("http://127.0.0.1\\@example.org", {}),
        ("http://127.0.0.1", {"key_variable": "AWS_SECRET_ACCESS_KEY"}),
        ("http://127.0.0.1", {"key_header": "X-Key: more"}),
        ("http://127.0.0.1", {"key_header": "Idempotency-Key"}),
        ("http://127.0.0.1", {"key_scheme": "Bearer my-key"}),
        ("http://127.0.0.1", {"max_batch": 0}),
        ("http://127.0.0.1", {"read_timeout": 0}),
        ("http://127.0.0.1", {"protocol": "telepathy"}),
        ("http://127.0.0.1", {"scores_are": "vibes"}),
        ("http://127.0.0.1", {"tokn": 1}),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_is_sent(
    url: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off this machine HTTPS and authorized_by are required, and every option is checked in the constructor."""

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(ConfigError):
        platform_at(url, **options)


def test_a_key_travels_in_one_header_to_its_own_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential's key comes before the platform's, and a key bound to another host is not sent."""
    monkeypatch.setenv("TTCA_KEY_OURS", f"127.0.0.1 {SECRET}")
    monkeypatch.setenv("TTCA_KEY_ADA", "adas-own-key")
    with scripted() as server, platform_at(server.url, key_variable="TTCA_KEY_OURS") as platform:
        platform.attempt(images(1), ADA, request_id="r1")
        platform.attempt(images(1), Credential("ada", "TTCA_KEY_ADA"), request_id="r2")
        sent = [headers.get("Authorization") for headers in server.posts]
        assert sent == [f"Bearer {SECRET}", "Bearer adas-own-key"]
        for variable, value in (
            ("TTCA_KEY_ADA", f"api.example.org {SECRET}"),
            ("TTCA_KEY_ADA", f"127.0.0.1 {SECRET} more"),
            ("TTCA_KEY_ADA", ""),
            ("PATH", "x"),
        ):
            monkeypatch.setenv("TTCA_KEY_ADA", value)
            with pytest.raises(NotSentError) as caught:
                platform.attempt(images(1), Credential("ada", variable), request_id="r3")
            assert caught.value.charge is ChargeState.REFUNDED
            assert SECRET not in str(caught.value)
        assert len(server.posts) == 2


@pytest.mark.parametrize("value", [SECRET, "other.example.org " + SECRET, "api.example.org short"])
def test_off_this_machine_a_key_must_be_bound_to_the_platforms_host(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unbound key, one of another host, or one too short to be a key is refused before the network is touched."""
    monkeypatch.setenv("TTCA_KEY_X", value)

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with (
        platform_at("https://api.example.org", authorized_by="me", key_variable="TTCA_KEY_X") as platform,
        pytest.raises(NotSentError) as caught,
    ):
        _ = platform.info
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def echo(status: int) -> Callable[[Exchange], None]:
    def on_post(exchange: Exchange) -> None:
        key = exchange.headers["Authorization"]
        exchange.reply(status, json.dumps({"error": f"bad key {key}"}).encode(), {"Location": f"http://x/?{key}"})

    return on_post


def late_echo(exchange: Exchange) -> None:
    exchange.reply(500, b"x" * 110 + exchange.headers["Authorization"].encode())


def label_echo(exchange: Exchange) -> None:
    name = exchange.headers["Authorization"].removeprefix("Bearer ")
    tensor = {"name": name, "datatype": "BYTES", "shape": [1], "data": [name]}
    exchange.reply(200, json.dumps({"outputs": [tensor]}).encode())


@pytest.mark.parametrize(
    "script",
    [*(echo(s) for s in (200, 307, 400, 401, 429, 500)), late_echo, label_echo, stall, Exchange.reset, cut_off],
)
def test_no_error_log_or_repr_holds_a_key(
    script: Callable[[Exchange], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even where the platform echoes it, the key is in no message, traceback, local variable, context or log record."""
    monkeypatch.setenv("TTCA_KEY_X", SECRET)
    caplog.set_level(logging.DEBUG)
    with scripted(script) as server, platform_at(server.url, key_variable="TTCA_KEY_X", read_timeout=0.2) as platform:
        _ = platform.info
        with pytest.raises(TTCAError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert server.posts[0]["Authorization"] == f"Bearer {SECRET}"
        error = caught.value
        # An exception of requests would hold the request, and with it the key.
        assert isinstance(error.__context__, (TTCAError, type(None)))
        assert error.__context__ is None or error.__context__.__context__ is None
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        # The frame of this test holds the server, which was sent the key; only the library's frames are looked at.
        frames = [f for f in shown.stack if f.filename.startswith(OURS)]
        texts = [
            str(error),
            repr(error),
            repr(vars(error)),
            repr(platform),
            repr(error.__context__),
            *map(repr, (f.locals for f in frames)),
        ]
        assert frames
    # Half a key is a leak too.
    assert not [t for t in (*texts, caplog.text) if SECRET[:10] in t]


def test_no_cookie_netrc_or_proxy_gets_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform's cookie is not kept for the next member, and the environment's proxies are not used."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with (
        scripted(lambda e: e.reply(200, GOOD, {"Set-Cookie": "session=ada; Path=/"})) as server,
        platform_at(server.url) as platform,
    ):
        for number in range(2):
            platform.attempt(images(1), ADA, request_id=f"r{number}")
        assert [headers.get("Cookie") for headers in server.posts] == [None, None]


def test_metadata_is_read_once_however_many_threads_ask() -> None:
    """Threads that meet the platform at the same moment share one reading of its metadata."""
    with scripted() as server, platform_at(server.url) as platform:
        threads = [threading.Thread(target=lambda: platform.info) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 2


def test_the_transport_needs_no_torch_and_no_server() -> None:
    """Importing HttpPlatform loads neither torch nor fastapi, so a member's machine stays light."""
    code = (
        "import sys, ttca.platforms.http, ttca.platforms.local, ttca.platforms.server; "
        "sys.exit(bool({'torch', 'fastapi', 'uvicorn', 'onnxruntime'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

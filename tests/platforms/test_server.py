"""A served platform says over HTTP exactly what it says in process, and its own log can be believed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from starlette.requests import Request

from tests.platforms.test_http import platform_at
from tests.platforms.test_local import CLASSES, SHAPE, images, model, processed
from tests.platforms.test_local import platform as local
from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform
from ttca.platforms.local import LocalPlatform
from ttca.platforms.retry import RetryPolicy, ask
from ttca.platforms.server import ServedError, background_server, bounded_body, create_app

ADA = Credential("ada")


def over_http(url: str, **options: Any) -> HttpPlatform:
    return platform_at(url, **{"model": "local", "classes": CLASSES, **options})


def same(a: Answers, b: Answers) -> None:
    """Check that two answers are equal in every bit."""
    for name in ("status", "labels", "scores", "resolution"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("binary", [True, False, None])
@pytest.mark.parametrize("options", [{}, {"label_only": True}, {"top_k": 2, "decimals": 2}, {"noise": 0.5, "seed": 3}])
def test_http_and_process_agree_label_for_label(binary: bool | None, options: dict[str, Any]) -> None:
    """In both forms and with every way of answering, batches over HTTP equal the same model in process."""
    batch = images(23)
    with background_server(local(**options)) as url, over_http(url, binary=binary, max_batch=8) as platform:
        assert platform.info.max_batch == 8
        assert platform.info.classes == CLASSES
        assert platform.info.gives_scores is not options.get("label_only", False)
        found = ask(platform, batch, ADA)
    same(found, ask(local(**options), batch, ADA))


def test_the_access_log_has_one_line_per_processed_request_before_it_is_answered(tmp_path: Path) -> None:
    """When an answer arrives its line is in the log; what was refused is not; the platform's count agrees."""
    log = tmp_path / "access.jsonl"
    house = local()
    with background_server(house, access_log=log) as url, over_http(url) as platform:
        for number in range(3):
            platform.attempt(images(number + 1), ADA, request_id=f"r{number}")
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert [(entry["request"], entry["rows"]) for entry in lines][-1] == (f"r{number}", number + 1)
        requests.post(f"{url}/v2/models/local/infer", data=b"{}", timeout=5).close()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: platform.attempt(images(1), ADA, request_id=f"p{i}"), range(40)))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 43
    assert sum(entry["rows"] for entry in lines) == processed(house) == 46
    assert set(lines[0]) == {"time", "request", "member", "model", "rows"}


def test_a_served_rate_limit_says_exactly_how_long_to_wait() -> None:
    """A 429 carries its wait in milliseconds, and arrives as a refund."""
    house = local(rate_limit_per_s=4.0, clock=lambda: 0.0)
    with background_server(house) as url, over_http(url) as platform:
        for number in range(4):
            platform.attempt(images(1), ADA, request_id=f"r{number}")
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r9")
    error = caught.value
    assert (error.status, error.charge, error.retryable) == (429, ChargeState.REFUNDED, True)
    assert error.retry_after == pytest.approx(0.25)


def test_every_query_ends_answered_behind_a_failing_platform() -> None:
    """With a third of the attempts failing, retries bring every answer, none mislabelled."""
    house = local(failure_rate=0.3, seed=1)
    batch = images(60)
    policy = RetryPolicy(attempts=12, base_s=0.0)
    with background_server(house) as url, over_http(url, max_batch=1) as platform:
        found = ask(platform, batch, ADA, policy=policy)
    assert found.answered.all()
    assert found.labels.tolist() == model(batch).argmax(1).tolist()
    assert processed(house) >= 60


def test_a_refusal_travels_as_a_refusal() -> None:
    """A platform that refuses an image refuses it over HTTP too."""

    class Refusing(LocalPlatform):
        def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
            answers = super().attempt(images, credential, request_id=request_id)
            return Answers.concatenate([answers[:1], Answers.from_labels(np.array([-1]), 4)], classes=4)

    with (
        background_server(Refusing(model, classes=CLASSES, image_shape=SHAPE)) as url,
        over_http(url) as platform,
    ):
        assert platform.attempt(images(2), ADA, request_id="r").status.tolist() == [Status.ANSWERED, Status.REFUSED]


def test_only_known_tokens_may_ask_and_each_is_its_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token, or with a wrong one, the answer is 401; the log names the token's member, never the token."""
    log = tmp_path / "access.jsonl"
    monkeypatch.setenv("TTCA_KEY_ADA", "token-of-ada")
    monkeypatch.setenv("TTCA_KEY_EVE", "token-of-eve")
    with background_server(local(), tokens={"token-of-ada": "ada"}, access_log=log) as url:
        with over_http(url, key_variable="TTCA_KEY_ADA") as platform:
            platform.attempt(images(1), ADA, request_id="r")
            with pytest.raises(TransportError) as caught:
                platform.attempt(images(1), Credential("eve", "TTCA_KEY_EVE"), request_id="r")
        assert (caught.value.status, caught.value.charge) == (401, ChargeState.REFUNDED)
        with over_http(url) as platform, pytest.raises(TransportError):
            _ = platform.info
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["member"] == "ada"
    assert "token" not in line


TENSOR = {"name": "images", "datatype": "UINT8", "shape": [1, *SHAPE], "data": [0] * 60}


def test_bad_requests_get_v2_errors_and_cost_nothing() -> None:
    """Wrong shapes, types, sizes, models and bodies are refused with a status and a sentence."""
    house = local(max_batch=2)
    cases: list[tuple[str, Any, int]] = [
        ("local", {"inputs": [{**TENSOR, "shape": [1, 5, 4, 3]}]}, 400),
        ("local", {"inputs": [{**TENSOR, "shape": [60]}]}, 400),
        ("local", {"inputs": [{**TENSOR, "datatype": "FP32"}]}, 400),
        ("local", {"inputs": [{**TENSOR, "data": [300] * 60}]}, 400),
        ("local", {"inputs": [{**TENSOR, "name": "x"}]}, 400),
        ("local", {"inputs": [{**TENSOR, "shape": [0, *SHAPE], "data": []}]}, 400),
        ("local", {"inputs": [{**TENSOR, "shape": [3, *SHAPE], "data": [0] * 180}]}, 400),
        ("local", {"inputs": [TENSOR], "outputs": [{"name": "secrets"}]}, 400),
        ("local", {"inputs": [TENSOR], "outputs": [{"name": []}]}, 400),
        ("local", {"inputs": [TENSOR], "id": 7}, 400),
        ("local", [], 400),
        ("other", {"inputs": [TENSOR]}, 404),
        ("local/versions/9", {"inputs": [TENSOR]}, 404),
        ("local", {"inputs": [TENSOR], "padding": " " * 5000}, 413),
    ]
    with background_server(house, max_request_bytes=4000) as url, requests.Session() as session:
        for path, body, status in cases:
            reply = session.post(f"{url}/v2/models/{path}/infer", json=body, timeout=5)
            assert (reply.status_code, list(reply.json())) == (status, ["error"])
        assert processed(house) == 0
        good = session.post(f"{url}/v2/models/local/versions/1/infer", json={"inputs": [TENSOR]}, timeout=5)
        assert [o["name"] for o in good.json()["outputs"]] == ["scores", "label"]
        for path in ("v2/health/live", "v2/health/ready", "v2", "v2/models/local", "v2/models/local/versions/1/ready"):
            assert session.get(f"{url}/{path}", timeout=5).status_code == 200
        assert list(session.get(f"{url}/nowhere", timeout=5).json()) == ["error"]


def test_a_model_that_breaks_is_a_500_and_the_server_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the model, or a row it should not give, reaches the asker as an unknown charge."""
    broken = [True]

    def sometimes(batch: Images) -> Any:
        if broken:
            broken.pop()
            raise RuntimeError("secret detail")
        return model(batch)

    house = LocalPlatform(sometimes, classes=CLASSES, image_shape=SHAPE)
    with background_server(house) as url, over_http(url) as platform:
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r1")
        assert (caught.value.status, caught.value.charge) == (500, ChargeState.UNKNOWN)
        assert not isinstance(caught.value, AnswerError)
        assert "secret detail" not in str(caught.value)
        assert platform.attempt(images(1), ADA, request_id="r2").answered.all()


def test_a_client_that_leaves_midway_gets_a_sentence_not_a_traceback() -> None:
    """Half a body and then a closed connection end as a refused request, which the server's routes know."""
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    with pytest.raises(ServedError, match="Expected a whole request, got a part"):
        asyncio.run(bounded_body(Request({"type": "http", "method": "POST", "headers": []}, receive), 100))


def test_a_slow_model_does_not_hold_up_others() -> None:
    """While one request waits for its model, the server answers another."""
    entered, release = threading.Event(), threading.Event()

    def slow(batch: Images) -> Any:
        entered.set()
        assert release.wait(10)
        return model(batch)

    house = LocalPlatform(slow, classes=CLASSES, image_shape=SHAPE)
    with background_server(house) as url, over_http(url) as platform, ThreadPoolExecutor(1) as pool:
        _ = platform.info
        waiting = pool.submit(platform.attempt, images(1), ADA, request_id="r1")
        assert entered.wait(10)
        assert requests.get(f"{url}/v2/health/live", timeout=5).status_code == 200
        release.set()
        assert waiting.result().answered.all()


def test_the_servers_options_are_checked() -> None:
    """A protocol nobody serves, an unusable model name, an empty token or a taken port is a ConfigError."""
    for options in ({"protocol": "telepathy"}, {"model": "a/b"}, {"tokens": {"": "ada"}}, {"max_request_bytes": 0}):
        with pytest.raises(ConfigError):
            create_app(local(), **options)
    with background_server(local()) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError), background_server(local(), port=port):
            pass

"""Every shape of request and answer that a table can say, against a real server that takes that shape alone."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile

from tests.examples import examples
from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, images
from ttca.answers import Status
from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.lossy import jpeg
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Key, Transport
from ttca.platforms.protocols import Response as Answered
from ttca.platforms.protocols import create_protocol
from ttca.platforms.retry import RetryPolicy
from ttca.platforms.server import background_app
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool

ADA = Credential("ada")


def model(pixels: Images) -> NDArray[np.float64]:
    """Return shares of the first three levels of each image."""
    levels = pixels.reshape(len(pixels), -1)[:, : len(CLASSES)].astype(np.float64) + 1.0
    shares: NDArray[np.float64] = levels / levels.sum(axis=1, keepdims=True)
    return shares


def scores_of(file: bytes, kind: str = "PNG") -> dict[str, float]:
    """Return what the model says of one file, which must be of that kind."""
    try:
        picture = Image.open(io.BytesIO(file))
    except OSError:
        raise HTTPException(400, "no image") from None
    if picture.format != kind:
        raise HTTPException(400, f"{picture.format} is no {kind}")
    return dict(zip(CLASSES, model(np.asarray(picture.convert("RGB"))[None])[0].tolist(), strict=True))


def decoded(text: Any) -> bytes:
    """Return the file in base64, strictly."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise HTTPException(400, "no base64") from None


class Api:
    """A server with one route for each shape; it writes down what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pending = 2
        #: Where results are said to be; the server's own address where it is empty.
        self.elsewhere = ""
        self.polls: list[int | None] = []
        self.failing = False
        self.released = threading.Event()
        self.app = FastAPI()
        self.app.middleware("http")(self._note)
        for method, path, answer in (
            ("POST", "/form", self.form),
            ("POST", "/multipart", self.multipart),
            ("POST", "/raw64", self.raw64),
            ("POST", "/jpeg", self.jpeg),
            ("POST", "/items", self.items),
            ("POST", "/tensor", self.tensor),
            ("POST", "/submit", self.submit),
            ("POST", "/begin", self.submit_by_header),
            ("GET", "/below/results/{job}", self.result),
            ("POST", "/upload", self.upload),
            ("POST", "/session", self.session),
            ("POST", "/about/{job}", self.about),
            ("POST", "/call", self.call),
            ("GET", "/call/{job}", self.events),
            ("POST", "/stream", self.stream),
            ("POST", "/text", self.text),
            ("POST", "/lines", self.lines),
        ):
            self.app.add_api_route(path, answer, methods=[method], response_model=None)

    async def _note(self, request: Request, call_next: Any) -> Any:
        self.requests.append((request.method, request.url.path, dict(request.headers)))
        return await call_next(request)

    def asked(self, method: str) -> list[str]:
        """Return the paths that were asked with a method, in order."""
        return [path for given, path, _ in self.requests if given == method]

    async def form(self, request: Request) -> Any:
        """Take an urlencoded form and nothing else."""
        if request.headers["content-type"] != "application/x-www-form-urlencoded":
            raise HTTPException(415)
        form = dict(await request.form())
        if set(form) != {"img", "lang"} or form["lang"] != "q+ü &=":
            raise HTTPException(400, str(form))
        return scores_of(decoded(form["img"]))

    async def multipart(self, request: Request) -> Any:
        """Take a JPEG in a multipart form."""
        async with request.form() as form:
            file = form["file"]
            assert isinstance(file, UploadFile)
            if file.content_type != "image/jpeg" or not (file.filename or "").endswith(".jpg"):
                raise HTTPException(400, f"{file.content_type} {file.filename}")
            return scores_of(await file.read(), "JPEG")

    async def raw64(self, request: Request) -> Any:
        """Take base64 as the body."""
        return scores_of(decoded(await request.body()))

    async def jpeg(self, request: Request) -> Any:
        """Take a JPEG file as the body."""
        if request.headers["content-type"] != "image/jpeg":
            raise HTTPException(415)
        return scores_of(await request.body(), "JPEG")

    async def items(self, request: Request) -> Any:
        """Take one object per image."""
        said = await request.json()
        return {"responses": [{"scores": scores_of(decoded(one["image"]["content"]))} for one in said["requests"]]}

    async def tensor(self, request: Request) -> Any:
        """Take what the test reads, and answer by the number of images."""
        self.taken = np.array((await request.json())["x"])
        return {"out": [[0.1, 0.7, 0.2]] * len(self.taken)}

    def _begin(self, file: bytes) -> str:
        job = f"j{len(self.jobs)}"
        self.jobs[job] = {"scores": scores_of(file), "left": self.pending}
        return job

    async def submit(self, request: Request) -> Any:
        """Take an image and say in the body where its result will be."""
        job = self._begin(await request.body())
        home = self.elsewhere or str(request.base_url).rstrip("/")
        return JSONResponse({"id": job, "status": "starting", "urls": {"get": f"{home}/below/results/{job}?v=1"}}, 202)

    async def submit_by_header(self, request: Request) -> Any:
        """Take an image and say in a header, with no body, where its result will be."""
        job = self._begin(await request.body())
        return Response(None, 202, {"Operation-Location": f"/below/results/{job}", "Retry-After": "0"})

    async def result(self, job: str) -> Any:
        """Say the result, once it is there."""
        if self.polls and (status := self.polls.pop(0)) is not None:
            raise HTTPException(status, "not now")
        known = self.jobs[job]
        known["left"] -= 1
        if known["left"] > 0:
            return {"status": "running"}
        if self.failing:
            return {"status": "failed", "reason": "no face found"}
        return {"status": "succeeded", "output": known["scores"]}

    async def upload(self, request: Request) -> Any:
        """Take an image, to be asked about later."""
        return JSONResponse({"result": {"upload_id": self._begin(await request.body())}}, 201)

    async def session(self) -> Any:
        """Open a session."""
        return {"session": "a b/ä"}

    async def about(self, job: str, request: Request) -> Any:
        """Say what an uploaded image shows."""
        said = await request.json()
        if job not in self.jobs or said != {"id": job, "more": f"x-{job}"}:
            raise HTTPException(404)
        return self.jobs[job]["scores"]

    async def call(self, request: Request) -> Any:
        """Take an image as gradio does."""
        (image,) = (await request.json())["data"]
        return {"event_id": self._begin(decoded(image["url"].removeprefix("data:image/png;base64,")))}

    async def events(self, job: str) -> Any:
        """Stream the result of a call, and keep the stream open."""
        scores = [{"label": k, "confidence": v} for k, v in self.jobs[job]["scores"].items()]
        last = (
            "event: error\ndata: no face found\n\n"
            if self.failing
            else f"event: complete\ndata: {json.dumps([scores])}\n\n"
        )
        return StreamingResponse(self._open(["event: heartbeat\ndata: null\n\n", last]), media_type="text/event-stream")

    async def stream(self, request: Request) -> Any:
        """Stream progress and the result under one name."""
        scores = scores_of(await request.body())
        parts = [f"data: {json.dumps(m)}\r\n\r\n" for m in ({"msg": "started"}, {"msg": "done", "output": scores})]
        return StreamingResponse(self._open([": hello\n\n", *parts]), media_type="text/event-stream")

    async def _open(self, parts: list[str]) -> AsyncIterator[str]:
        for part in parts:
            yield part
        # A server that keeps its stream open: who waits for its end waits for long.
        while not self.released.is_set():
            await asyncio.sleep(0.02)

    async def text(self, request: Request) -> Any:
        """Answer with the class alone."""
        scores = scores_of(await request.body())
        return PlainTextResponse(max(scores, key=lambda name: scores[name]) + "\n")

    async def lines(self, request: Request) -> Any:
        """Answer with one JSON value a line."""
        scores = scores_of(await request.body())
        return Response("\n".join(json.dumps({"label": k, "score": v}) for k, v in scores.items()) + "\n")


@pytest.fixture
def api() -> Iterator[Api]:
    """Return a server's state; what it keeps open ends with the test."""
    found = Api()
    yield found
    found.released.set()


def platform_at(url: str, **options: Any) -> HttpPlatform:
    """Return the platform that a table describes."""
    transport = Transport(connect_timeout=2.0, read_timeout=5.0)
    return HttpPlatform(
        url, classes=CLASSES, protocol="template", image_shape=IMAGE_SHAPE, transport=transport, **options
    )


PNG = {"send": "png"}
POLL = {"url": "urls.get", "until": "status == 'succeeded'", "failed": "status == 'failed'", "every_s": 0.001}
#: Tables, and the quality of the JPEG in which their images travel.
SHAPES: dict[str, tuple[dict[str, Any], int | None]] = {
    "form": ({"path": "form", "send": "form", "field": "img", "fields": {"lang": "q+ü &="}}, None),
    "base64": (
        {"path": "raw64", "send": "base64", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        None,
    ),
    "jpeg": ({"path": "jpeg", "send": "jpeg", "jpeg_quality": 80}, 80),
    "multipart jpeg": ({"path": "multipart", "send": "multipart", "field": "file", "jpeg_quality": 90}, 90),
    "poll": ({"path": "submit", "poll": POLL, "scores": "output"}, None),
    "poll by header": (
        {
            "path": "begin",
            "poll": {"header": "Operation-Location", "until": "status == 'succeeded'", "every_s": 0.001},
            "scores": "output",
        },
        None,
    ),
    "upload": (
        {
            "first": {"path": "upload", "send": "png", "token": "result.upload_id"},
            "path": "about/{token}",
            "send": "json",
            "body": {"id": "{token}", "more": "x-{token}"},
        },
        None,
    ),
    "gradio": (
        {
            "first": {
                "path": "call",
                "body": {"data": [{"url": "{image}"}]},
                "image_as": "data-url",
                "token": "event_id",
            },
            "method": "GET",
            "path": "call/{token}",
            "events": {"event": "complete"},
            "scores": "[0][*].{label: label, score: confidence}",
        },
        None,
    ),
    "gradio by poll": (
        {
            "path": "call",
            "send": "json",
            "body": {"data": [{"url": "{image}"}]},
            "image_as": "data-url",
            "poll": {"url": "join('', ['call/', event_id])", "every_s": 0.001},
            "events": {"event": "complete"},
            "scores": "[0][*].{label: label, score: confidence}",
        },
        None,
    ),
    "events": ({"path": "stream", "events": {"until": "msg == 'done'"}, "scores": "output"}, None),
    "text": ({"path": "text", "reads": "text"}, None),
    "ndjson": ({"path": "lines", "reads": "ndjson"}, None),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_says_what_the_model_says_and_is_read_again_alike(shape: str, api: Api) -> None:
    """A server that takes this shape alone gives the model's answer, and what is kept of it says the same later."""
    table, quality = SHAPES[shape]
    asked = images(3, seed=5)
    seen = asked if quality is None else jpeg(asked, quality=quality)
    with background_app(api.app) as url, platform_at(url, **table) as platform:
        assert platform.info.jpeg_quality == quality
        parts = [platform.attempt(asked[i : i + 1], ADA, request_id=f"r{i}") for i in range(len(asked))]
        again = [platform.read_again(part.body or b"", 1) for part in parts]
        api.released.set()
    expected = model(seen)
    assert [part.labels[0] for part in parts] == expected.argmax(axis=1).tolist()
    if shape != "text":
        np.testing.assert_allclose(np.concatenate([part.scores for part in parts]), expected, atol=1e-6)
    for part, reread in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part.labels, reread.labels)
        np.testing.assert_array_equal(part.scores, reread.scores)
    charged = [path for _, path, headers in api.requests if "idempotency-key" in headers]
    assert len(charged) == len(asked), "the step that is charged carries the id, and no other one"


def test_one_object_per_image_carries_a_batch(api: Api) -> None:
    """What item says is repeated for each image, within whatever else the body says."""
    table = {
        "path": "items",
        "send": "json",
        "body": {"requests": "{items}", "v": 1},
        "item": {"image": {"content": "{image}"}, "features": [{"max": 3}]},
        "results": "responses",
        "scores": "scores",
    }
    asked = images(5, seed=2)
    with background_app(api.app) as url, platform_at(url, **table) as platform:
        answers = platform.attempt(asked, ADA, request_id="r")
    np.testing.assert_allclose(answers.scores, model(asked), atol=1e-6)


def test_a_batch_of_a_fixed_size_is_filled_and_the_filling_dropped(api: Api) -> None:
    """The server gets as many as it takes, the last image again, and only what was asked about is answered."""
    table = {"path": "tensor", "send": "json", "body": {"x": "{images}"}, "image_as": "levels", "fixed_batch": 4}
    asked = images(3)
    with background_app(api.app) as url, platform_at(url, **table, results="out") as platform:
        assert platform.info.max_batch == 4
        answers = platform.attempt(asked, ADA, request_id="r")
        assert platform.read_again(answers.body or b"", 3).labels.tolist() == [1, 1, 1]
    assert len(answers) == 3
    np.testing.assert_array_equal(api.taken, asked[[0, 1, 2, 2]])


def test_numbers_are_what_the_table_makes_of_levels(api: Api) -> None:
    """Range, mean, std, color order and layout are applied in that order, to the last bit of a float32."""
    table = {
        "path": "tensor",
        "send": "json",
        "body": {"x": "{images}"},
        "image_as": "unit",
        "layout": "nchw",
        "color_order": "bgr",
        "range": [-1, 1],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.25, 2.0],
    }
    asked = images(2)
    with background_app(api.app) as url, platform_at(url, **table, results="out") as platform:
        platform.attempt(asked, ADA, request_id="r")
    expected = asked[..., ::-1] / 255 * 2.0 - 1.0
    expected = ((expected - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(api.taken.astype(np.float32), expected.astype(np.float32))


def test_a_key_goes_to_the_platform_in_every_step_and_nowhere_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls carry the key on the platform's own host; a result elsewhere is not asked for, and stays unknown."""
    monkeypatch.setenv("TTCA_KEY_SHAPES", "s3cret-value")
    key = Key(variable="TTCA_KEY_SHAPES")
    other = Api()
    table = SHAPES["poll"][0]
    with (
        background_app(api.app) as url,
        background_app(other.app) as stranger,
        platform_at(url, key=key, **table) as platform,
    ):
        platform.attempt(images(1), ADA, request_id="r0")
        assert {h["authorization"] for _, _, h in api.requests} == {"Bearer s3cret-value"}
        below = stranger.partition("//")[2]
        for elsewhere in (stranger, f"https://{below}", f"//{below}", "ftp://x"):
            api.elsewhere = elsewhere
            with pytest.raises(TransportError, match="own host") as caught:
                platform.attempt(images(1), ADA, request_id="r1")
            assert (caught.value.charge, caught.value.retryable) == (ChargeState.UNKNOWN, False)
            assert "s3cret" not in str(caught.value)
    assert other.requests == []


def test_polls_that_fail_for_a_moment_are_sent_again_and_cost_nothing(api: Api) -> None:
    """One submission, however often its result must be asked for."""
    api.polls = [503, 429, 500, None]
    with background_app(api.app) as url, platform_at(url, **SHAPES["poll"][0]) as platform:
        answers = platform.attempt(images(1), ADA, request_id="r")
    assert answers.status.tolist() == [Status.ANSWERED]
    assert len(api.asked("POST")) == 1
    assert len(api.asked("GET")) == 5


@pytest.mark.parametrize("status", [404, 401, 400])
def test_a_result_that_is_lost_leaves_the_charge_unknown(api: Api, status: int) -> None:
    """Nobody can tell whether a query was processed whose result cannot be had; nobody pays for it twice."""
    api.polls = [status]
    with (
        background_app(api.app) as url,
        platform_at(url, **SHAPES["poll"][0]) as platform,
        pytest.raises(TransportError, match="took the query") as caught,
    ):
        platform.attempt(images(1), ADA, request_id="r")
    assert (caught.value.charge, caught.value.retryable, caught.value.status) == (ChargeState.UNKNOWN, False, status)


def test_a_wrong_until_is_paid_once_and_corrected_for_nothing(
    api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Polls that answer 200 and are never final: one submission, the last body shown and kept, read once corrected."""
    wrong = {**POLL, "until": "state == 'succeeded'", "every_s": 0.01, "within_s": 0.2}
    patience = RetryPolicy(deadline_s=10.0, base_s=0.001)
    found = []
    with background_app(api.app) as url, Ledger(tmp_path / "ledger.sqlite") as ledger:
        for poll in (wrong, POLL):
            with platform_at(url, **{**SHAPES["poll"][0], "poll": poll}) as platform:
                pool = QueryPool(platform, ledger, [Member("ada", 9)], pace=Pace(concurrency=1, policy=patience))
                found += pool.ask(images(1)).status.tolist()
    assert found == [Status.FAILED, Status.ANSWERED]
    assert len(api.asked("POST")) == 1
    assert """'{"status":"succeeded",""" in caplog.text
    assert """which was never true: "state == 'succeeded'".""" in caplog.text


def test_a_submission_without_its_address_says_what_it_gave(api: Api) -> None:
    """Names of headers and of JSON members are listed, no values; what came is kept with the charge."""
    for path, poll, said in (
        (
            "submit",
            {"header": "Operation-Location", "until": "status == 'succeeded'"},
            "got status 202.*content-type.*id, status, urls",
        ),
        ("submit", {"header": "Operation-Location"}, "got status 202.*content-type.*id, status, urls"),
        ("begin", {"url": "urls.get", "until": "status == 'succeeded'"}, "operation-location.*the body ''"),
    ):
        with (
            background_app(api.app) as url,
            platform_at(url, **{**SHAPES["poll"][0], "path": path, "poll": poll}) as platform,
        ):
            with pytest.raises(AnswerError, match=said) as caught:
                platform.attempt(images(1), ADA, request_id="r")
            with pytest.raises(AnswerError):
                platform.read_again(caught.value.body or b"", 1)
        assert (caught.value.charge, caught.value.body is None) == (ChargeState.CHARGED, False)


@pytest.mark.parametrize("shape", ["poll", "gradio"])
def test_what_failed_is_read_as_an_error_or_a_refusal(api: Api, shape: str) -> None:
    """A job or a stream that ends with an error refuses the image where its text says so, and fails otherwise."""
    api.failing = True
    table = SHAPES[shape][0]
    with background_app(api.app) as url:
        with platform_at(url, **table, refused_errors=["no face found"]) as platform:
            answers = platform.attempt(images(1), ADA, request_id="r")
            assert platform.read_again(answers.body or b"", 1).status.tolist() == [Status.REFUSED]
        with platform_at(url, **table) as platform, pytest.raises(AnswerError, match="no face found") as caught:
            platform.attempt(images(1), ADA, request_id="r")
        api.released.set()
    assert answers.status.tolist() == [Status.REFUSED]
    assert caught.value.body is not None


def test_a_first_step_that_fails_costs_nothing(api: Api) -> None:
    """Nothing was asked yet, whatever went wrong; the second step's failure costs what it costs."""
    table = {**SHAPES["upload"][0], "first": {"path": "session", "send": "json", "token": "nowhere"}, "send": "json"}
    table["body"] = {"id": "{token}", "image": "{image}"}
    with background_app(api.app) as url:
        with platform_at(url, **table) as platform, pytest.raises(TransportError, match="token at 'nowhere'") as caught:
            platform.attempt(images(1), ADA, request_id="r")
        assert (caught.value.charge, caught.value.retryable) == (ChargeState.REFUNDED, False)
        table["first"] = {"path": "missing", "token": "session"}
        with platform_at(url, **table) as platform, pytest.raises(TransportError) as absent:
            platform.attempt(images(1), ADA, request_id="r")
        assert (absent.value.charge, absent.value.status) == (ChargeState.REFUNDED, 404)
        table["first"] = {"path": "session", "token": "session"}
        with platform_at(url, **table) as platform, pytest.raises(TransportError) as second:
            platform.attempt(images(1), ADA, request_id="r")
    assert second.value.status == 404
    assert api.requests[-1][1] == "/about/a b/ä", "what a step gives is quoted in a path, and arrives as it was"


def test_a_status_without_a_body_may_refuse(api: Api) -> None:
    """204 is an answer where the table says that it means: nothing found."""

    async def nothing() -> Response:
        return Response(None, 204)

    api.app.add_api_route("/nothing", nothing, methods=["POST"], response_model=None)
    with background_app(api.app) as url:
        with platform_at(url, path="nothing", refused_statuses=[204]) as platform:
            answers = platform.attempt(images(1), ADA, request_id="r")
            assert platform.read_again(answers.body or b"", 1).status.tolist() == [Status.REFUSED]
        with platform_at(url, path="nothing") as platform, pytest.raises(AnswerError, match="204"):
            platform.attempt(images(1), ADA, request_id="r")
    assert answers.status.tolist() == [Status.REFUSED]


def test_other_statuses_may_carry_an_answer(api: Api) -> None:
    """A status is an answer's where the table says so; without, the sentence names it, and the answer is kept."""
    table: dict[str, Any] = {"path": "upload", "label": "'owl'"}
    with background_app(api.app) as url:
        with platform_at(url, **table, statuses=[200, 201]) as platform:
            assert platform.attempt(images(1), ADA, request_id="r").labels.tolist() == [2]
        with platform_at(url, **table) as platform, pytest.raises(AnswerError, match="201") as caught:
            platform.attempt(images(1), ADA, request_id="r")
        with platform_at(url, **table, statuses=[201]) as platform:
            assert platform.read_again(caught.value.body or b"", 1).labels.tolist() == [2]


TABLE = {"send": "json", "body": {"a": "{image}"}}
ITEMS = {"send": "json", "body": {"a": "{items}"}, "item": {"b": "{image}"}, "results": "r"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"send": "json", "body": {"requests": [{"image": "{images}"}]}, "results": "r"}, "item"),
        ({"send": "json", "body": [{"a": {"b": "{images}"}}], "results": "r"}, "item"),
        ({**ITEMS, "item": None}, "item and the text"),
        ({**ITEMS, "body": {"a": "{image}"}}, "item and the text"),
        ({**ITEMS, "item": {"b": 3}}, "one place"),
        ({**ITEMS, "item": {"b": "{image}", "c": "{image}"}}, "one place"),
        ({**ITEMS, "item": {"b": "{image}", "api_key": "s3cret-value"}}, "api_key"),
        ({**ITEMS, "results": None}, "results"),
        ({"send": "jpeg"}, "jpeg_quality"),
        ({"send": "jpeg", "jpeg_quality": 0}, "1 to 100"),
        ({"send": "png", "jpeg_quality": 90}, 'send to "jpeg"'),
        ({**TABLE, "image_as": "unit", "jpeg_quality": 90}, "files"),
        ({"send": "form", "image_as": "levels"}, "files"),
        ({"send": "form", "headers": {"content-type": "text/plain"}}, "transport"),
        ({"layout": "nchw"}, "layout"),
        ({**TABLE, "layout": "nchw"}, "layout"),
        ({**TABLE, "color_order": "bgr"}, "color_order"),
        ({**TABLE, "mean": [0.5, 0.5, 0.5]}, "floats"),
        ({**TABLE, "image_as": "levels", "range": [0, 1]}, "range of their own"),
        ({**TABLE, "image_as": "unit", "range": [1, 1]}, "different"),
        ({**TABLE, "image_as": "unit", "std": [1, 0, 1]}, "above 0"),
        ({**TABLE, "image_as": "unit", "mean": [1, 0]}, "3 numbers"),
        ({"statuses": [404]}, "refused_statuses"),
        ({"statuses": [204], "refused_statuses": [204]}, "one thing"),
        ({"fixed_batch": 3}, "fixed_batch"),
        ({"reads": "xml"}, "reads"),
        ({"poll": {}}, "url or header"),
        ({"poll": {"url": "a", "header": "b"}}, "both"),
        ({"poll": {"url": "a["}}, "JMESPath"),
        ({"poll": {"url": "a", "every_s": 0}}, "more than 0"),
        ({"poll": {"url": "a", "every_s": 5.0, "within_s": 4.0}}, "within_s in poll of at least every_s"),
        ({"poll": {"url": "a", "often": True}}, "often"),
        ({"events": {"event": ""}}, "name of an event"),
        ({"events": {"event": "error"}}, "two names"),
        ({"events": {"until": "]"}}, "JMESPath"),
        ({"method": "GET"}, "POST or PUT"),
        ({"path": "a/{token}"}, "Say which request"),
        ({"first": {"token": "a"}}, "Say where it goes"),
        ({"first": {"path": "a"}, "path": "{token}"}, "token in first"),
        ({"first": {"send": "png", "token": "a"}, "path": "{token}"}, "both"),
        ({"first": {"token": "a"}, "method": "GET", "path": "{token}"}, "neither"),
        ({"first": {"token": "a", "colour": "red"}, "path": "{token}"}, "colour"),
        ({"first": {"token": "a", "headers": {"X-Api-Key": "s3cret-value"}}, "path": "{token}"}, "key_header"),
        ({"first": {"token": "a", "path": "{model}"}, "path": "{token}"}, "model"),
    ],
)
def test_a_table_whose_shape_cannot_be_is_refused(options: dict[str, Any], match: str) -> None:
    """A mistake is a sentence before anything is sent, without what may be a key."""
    with pytest.raises(ConfigError, match=match) as caught:
        create_protocol("template", classes=CLASSES, image_shape=IMAGE_SHAPE, **options)
    assert "s3cret" not in str(caught.value)


def test_the_time_of_an_attempt_is_that_of_all_its_steps() -> None:
    """Nobody else asks a query while its result may still be polled for."""
    once = Transport(connect_timeout=2.0, read_timeout=5.0).longest_s
    plain = platform_at("http://127.0.0.1:1", **PNG)
    polled = platform_at("http://127.0.0.1:1", path="submit", poll={**POLL, "within_s": 50.0})
    two = platform_at("http://127.0.0.1:1", **SHAPES["upload"][0])
    assert plain.longest_attempt_s == once
    assert polled.longest_attempt_s == 2 * once + 50.0
    assert two.longest_attempt_s == 2 * once


WIRES = {
    name: create_protocol("template", classes=CLASSES, image_shape=IMAGE_SHAPE, **table).describe(
        lambda path: Answered(404, {}, b"", path)
    )
    for name, (table, _) in SHAPES.items()
}
SAID = st.sampled_from(
    [
        b"",
        b"owl",
        b"null",
        b'{"status": "succeeded", "output": {"owl": 0.6}}',
        b'{"status": "failed"}',
        b'{"urls": {"get": 3}, "event_id": [1]}',
        b'{"urls": {"get": "x"}, "event_id": "e", "result": {"upload_id": 7}}',
        b'event: complete\ndata: [[{"label": "owl", "confidence": 0.6}]]\n\n',
        b"event: error\ndata: null\n\n",
        b'{"label": "owl", "score": 0.6}\n{"label": "cat", "score": 0.2}\n',
    ]
) | st.binary(max_size=30)


@pytest.mark.parametrize("shape", WIRES)
@examples(90)
@given(bodies=st.lists(SAID, min_size=6, max_size=6), status=st.sampled_from([200, 201, 202, 204]))
def test_whatever_comes_is_an_answer_or_the_typed_error(shape: str, bodies: list[bytes], status: int) -> None:
    """Every step takes whatever bytes a platform sends: it goes on, gives a sound answer, or the one typed error."""
    wire = WIRES[shape]
    steps = wire.steps(images(1), request_id="r")
    next(steps)
    final: Answered | None = None
    try:
        for body in bodies:
            steps.send(Answered(status, {}, body, "p"))
    except StopIteration as done:
        final = done.value
    except AnswerError:
        return
    if final is None:
        assert shape.startswith(("poll", "gradio by poll")), "only what is polled for goes on for ever"
        return
    try:
        answers = wire.parse(final, 1)
    except AnswerError:
        return
    assert len(answers) == 1
    assert answers.resolved.all()

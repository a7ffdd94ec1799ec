"""From code: a transform in torchvision's pipelines, and images in requests of other programs, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import requests
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from ttca import PerturbationSet, PerturbationTransform, apply_to_requests
from ttca.errors import ConfigError, DataError, ImageError, PerturbationError, TTCAError
from ttca.outgoing import _Change
from ttca.preparation import Preparation

DELTA = np.random.default_rng(0).integers(-8, 9, (2, 5, 4, 3)).astype(np.int8)
MADE = PerturbationSet(DELTA, 8, ("cat", "dog"), "people in fog", "f" * 64, preparation=Preparation(size=(5, 4)))
PIXELS = np.random.default_rng(1).integers(0, 256, (30, 20, 3)).astype(np.uint8)
CAT, DOG = MADE.apply(PIXELS, "cat"), MADE.apply(PIXELS, "dog")
PNG = io.BytesIO()
Image.fromarray(PIXELS).save(PNG, "PNG")
FILE = PNG.getvalue()


# -- pipelines --------------------------------------------------------------------------------------------------


def test_a_transform_returns_what_it_was_given() -> None:
    """A PIL image, an array and a tensor come back as such, each with exactly the δ of the class."""
    transform = PerturbationTransform(MADE, "cat")
    made = transform(Image.fromarray(PIXELS))
    assert isinstance(made, Image.Image)
    np.testing.assert_array_equal(np.asarray(made), CAT)
    np.testing.assert_array_equal(transform(PIXELS), CAT)
    tensor = transform(torch.from_numpy(PIXELS).permute(2, 0, 1))
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), CAT)
    assert pickle.loads(pickle.dumps(transform)) == transform  # noqa: S301 - as data loaders send it to workers


def test_it_fits_into_torchvisions_pipelines() -> None:
    """Composed with torchvision's own transforms, old and new, the images that follow are those with δ."""
    alone = transforms.Compose([PerturbationTransform(MADE, "dog"), transforms.ToTensor()])
    want = torch.from_numpy(DOG).permute(2, 0, 1)
    torch.testing.assert_close(alone(Image.fromarray(PIXELS)), want / 255)
    both = v2.Compose([PerturbationTransform(MADE, classes=("dog", "cat")), v2.PILToTensor()])
    image, target = both(Image.fromarray(PIXELS), 0)
    assert target == 0
    assert torch.equal(image, want)
    assert torch.equal(PerturbationTransform(MADE)(want, torch.tensor(1))[1], torch.tensor(1))
    grey = PerturbationTransform(MADE, "cat")(Image.fromarray(PIXELS).convert("L"))
    levels = np.asarray(Image.fromarray(PIXELS).convert("L"))
    np.testing.assert_array_equal(np.asarray(grey), MADE.apply(np.repeat(levels[..., None], 3, 2), "cat"))


@pytest.mark.parametrize(
    ("how", "image", "error", "sentence"),
    [
        ({"label": "owl"}, (PIXELS,), PerturbationError, "got 'owl'"),
        ({"classes": ("cat", "owl")}, (PIXELS, 1), PerturbationError, "got 'owl'"),
        ({"label": "cat", "classes": ("cat",)}, (PIXELS,), ConfigError, "got both"),
        ({}, (PIXELS,), ConfigError, "got neither"),
        ({"label": "cat"}, (PIXELS, 1), ConfigError, "got both"),
        ({}, (PIXELS, 2), PerturbationError, "class numbers in"),
        ({"classes": ("cat", "dog")}, (PIXELS, 2), ConfigError, r"target in 0\.\.1, got 2"),
        ({}, (PIXELS, True), ConfigError, "got bool"),
        ({"label": 0}, (torch.zeros(3, 5, 4),), ImageError, r"got torch\.float32"),
        ({"label": 0}, (torch.zeros(2, 3, 5, 4, dtype=torch.uint8),), ImageError, "Put the transform before"),
        ({"label": 0}, ("me.png",), ImageError, "got str"),
        ({"label": 0}, (Image.new("F", (4, 5)),), DataError, "whose range nothing says"),
    ],
)
def test_what_is_no_image_or_class_is_a_sentence(
    how: dict[str, Any], image: tuple[Any, ...], error: type[TTCAError], sentence: str
) -> None:
    """Nothing is guessed of a class, and floats are not taken for levels."""
    with pytest.raises(error, match=sentence):
        PerturbationTransform(MADE, **how)(*image)


# -- requests that go out ---------------------------------------------------------------------------------------


class Heard(BaseHTTPRequestHandler):
    """Keeps what it is sent; sends on what comes to ``/moved``."""

    def do_POST(self) -> None:
        """Take a body."""
        if self.headers.get("Transfer-Encoding"):
            raise AssertionError("a body of known length was sent in chunks")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        heard: list[tuple[str, dict[str, str], bytes]] = self.server.heard  # type: ignore[attr-defined]
        heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(307 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/there")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """Listen on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Heard) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


class Sends:
    """One client, whichever, with a hook in one line."""

    def __init__(self, client: Any, server: ThreadingHTTPServer) -> None:
        self.client: Any = client
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        server.heard = self.heard  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def post(self, path: str = "/", **how: Any) -> list[tuple[str, dict[str, str], bytes]]:
        """Send, and return all that was heard of it."""
        del self.heard[:]
        sent = self.client.post(self.url + path, **how)
        if hasattr(sent, "__await__"):
            import asyncio

            self.client._loop = getattr(self.client, "_loop", None) or asyncio.new_event_loop()
            sent = self.client._loop.run_until_complete(sent)
        assert sent.status_code == 200
        return list(self.heard)


CLIENTS = ("requests", "httpx", "httpx, asynchronous")


@pytest.fixture(params=CLIENTS)
def sends(request: pytest.FixtureRequest, server: ThreadingHTTPServer) -> Iterator[Sends]:
    """Return each kind of client."""
    if request.param == "requests":
        with requests.Session() as session:
            yield Sends(session, server)
        return
    httpx = pytest.importorskip("httpx")
    if request.param == "httpx":
        with httpx.Client(follow_redirects=True) as client:
            yield Sends(client, server)
        return
    sends = Sends(httpx.AsyncClient(follow_redirects=True), server)
    yield sends
    loop = getattr(sends.client, "_loop", None)
    if loop is not None:
        loop.run_until_complete(sends.client.aclose())
        loop.close()


def image_of(data: bytes) -> Any:
    """Return the pixels of a PNG file, which holds nothing else."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert not image.info
        return np.asarray(image)


def raw(sends: Sends) -> dict[str, Any]:
    """Return how the client names a body of bytes."""
    return {"data": FILE} if isinstance(sends.client, requests.Session) else {"content": FILE}


def test_a_raw_image_gets_its_delta(sends: Sends) -> None:
    """The body becomes the PNG with δ, its type and length follow, and every other header stays."""
    assert apply_to_requests(sends.client, MADE, "cat") is sends.client
    ((_, headers, body),) = sends.post(**raw(sends), headers={"Content-Type": "image/jpeg", "X-Mine": "1"})
    np.testing.assert_array_equal(image_of(body), CAT)
    assert (headers["content-type"], headers["x-mine"]) == ("image/png", "1")


def test_the_image_in_a_form_gets_its_delta_and_no_other_byte_changes(sends: Sends) -> None:
    """Of a form only the image's part changes: content, type and the suffix of its name."""
    apply_to_requests(sends.client, MADE, 1)
    files = {"image": ("me.old.jpg", FILE, "image/jpeg"), "note": ("a.txt", b"--x\r\n\r\n--", "text/plain")}
    ((_, headers, body),) = sends.post(data={"model": "faces"}, files=files)
    boundary = headers["content-type"].partition("boundary=")[2].strip('"').encode()
    parts = body.split(b"--" + boundary)
    assert (parts[0], parts[-1].strip()) == (b"", b"--")
    by_name = {part.partition(b'name="')[2].partition(b'"')[0]: part for part in parts[1:-1]}
    assert set(by_name) == {b"model", b"image", b"note"}
    assert by_name[b"model"].rstrip(b"\r\n").endswith(b"\r\n\r\nfaces")
    assert by_name[b"note"].endswith(b"\r\n\r\n--x\r\n\r\n--\r\n")
    head, _, content = by_name[b"image"].partition(b"\r\n\r\n")
    np.testing.assert_array_equal(image_of(content.removesuffix(b"\r\n")), DOG)
    assert b'filename="me.old.png"' in head
    assert b"Content-Type: image/png" in head


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_an_image_in_json_gets_its_delta(sends: Sends, prefix: str) -> None:
    """A text in base64, wherever in the JSON, becomes that of the PNG; all else stays."""
    apply_to_requests(sends.client, MADE, "dog")
    whole = {"model": "ε", "inputs": [{"image": prefix + base64.b64encode(FILE).decode()}, 1.5, None]}
    ((_, headers, body),) = sends.post(json=whole)
    said = json.loads(body)
    text = said["inputs"][0].pop("image")
    assert text.startswith(prefix.replace("jpeg", "png"))
    np.testing.assert_array_equal(image_of(base64.b64decode(text.removeprefix(prefix.replace("jpeg", "png")))), DOG)
    assert said == {"model": "ε", "inputs": [{}, 1.5, None]}
    assert headers["content-type"] == "application/json"


def test_a_redirect_gets_delta_once(sends: Sends) -> None:
    """Sent on to another place, the image has δ once, not twice."""
    apply_to_requests(sends.client, MADE, "cat")
    first, second = sends.post("/moved", **raw(sends))
    assert (first[0], second[0]) == ("/moved", "/there")
    for _, _, body in (first, second):
        np.testing.assert_array_equal(image_of(body), CAT)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"json": {"user": "me"}}, "got none"),
        ({"data": {"user": "me"}}, "got none"),
        ({"files": [("a", ("a.png", FILE)), ("b", ("b.png", FILE))]}, "got 2"),
        ({"files": {"a": ("a.png", FILE[:60])}}, "Nothing was sent"),
        ({"files": {"a": ("a.png", FILE)}, "headers": {"Content-MD5": "x"}}, "signed"),
        ({"files": {"a": ("a.png", FILE)}, "headers": {"Authorization": "AWS4-HMAC-SHA256 x"}}, "signed"),
        ({"files": {"a": ("a.png", FILE)}, "headers": {"Content-Encoding": "gzip"}}, "compressed"),
    ],
)
def test_what_cannot_be_changed_is_not_sent(sends: Sends, how: dict[str, Any], sentence: str) -> None:
    """A body without exactly one image that can be changed raises, and the server hears nothing."""
    apply_to_requests(sends.client, MADE, "cat")
    with pytest.raises(TTCAError, match=sentence):
        sends.post(**how)
    assert sends.heard == []


def test_other_addresses_are_left_alone(sends: Sends) -> None:
    """With ``url`` only requests that begin so are changed; one without a body always passes."""
    apply_to_requests(sends.client, MADE, "cat", url=f"{sends.url}/classify")
    ((_, _, body),) = sends.post("/token", json={"user": "me"})
    assert json.loads(body) == {"user": "me"}
    ((_, _, body),) = sends.post("/classify/v1", **raw(sends))
    np.testing.assert_array_equal(image_of(body), CAT)
    ((_, headers, body),) = sends.post("/classify/v1")
    assert (body, headers["content-length"]) == (b"", "0")


def test_files_and_generators_are_bodies_too(server: ThreadingHTTPServer) -> None:
    """An open file, and pieces of one, are read whole and changed; the caller's own request is not."""
    with requests.Session() as session:
        sends = Sends(apply_to_requests(session, MADE, "cat"), server)
        for body in (io.BytesIO(FILE), iter([FILE[:50], FILE[50:]])):
            ((_, _, sent),) = sends.post(data=body)
            np.testing.assert_array_equal(image_of(sent), CAT)
        prepared = session.prepare_request(requests.Request("POST", sends.url, data=FILE))
        session.send(prepared)
        assert prepared.body == FILE


def test_a_client_or_class_that_is_none_is_a_sentence() -> None:
    """Another object, and a class that the set does not have, are refused in the line that hooks."""
    with pytest.raises(ConfigError, match="got object"):
        apply_to_requests(object(), MADE, "cat")
    with pytest.raises(PerturbationError, match="got 'owl'"):
        apply_to_requests(requests.Session(), MADE, "owl")
    with pytest.raises(ConfigError, match=r"class number in 0\.\.1, got 2"):
        apply_to_requests(requests.Session(), MADE, 2)


@given(
    st.binary(max_size=60) | st.just(FILE),
    st.sampled_from(
        ["", "image/png", "application/json", "multipart/form-data; boundary=x", "multipart/form-data", "?"]
    ),
    st.booleans(),
)
def test_no_body_is_taken_for_what_it_is_not(body: bytes, kind: str, framed: bool) -> None:
    """Whatever the body, it is either one image, changed exactly, or a sentence."""
    whole = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + body + b"\r\n--x--\r\n" if framed else body
    change = _Change(MADE, "cat", None)
    if body != FILE:
        with pytest.raises((ImageError, DataError), match=r"Nothing was sent\."):
            change.made(whole, {"Content-Type": kind}, "http://127.0.0.1/")
    elif kind != "application/json" and (framed == ("boundary" in kind)):
        made, _ = change.made(whole, {"Content-Type": kind}, "http://127.0.0.1/")
        np.testing.assert_array_equal(image_of(made[made.index(b"\x89PNG") :]), CAT)

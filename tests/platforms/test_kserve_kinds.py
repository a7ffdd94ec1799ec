"""Servers of every kind: inputs of all types, with a batch, without one or of a fixed size, and odd outputs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.examples import examples
from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, images
from tests.platforms.test_kserve_v2 import LENGTH, answer, connect, wire
from ttca.answers import Status
from ttca.errors import AnswerError, ConfigError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform
from ttca.platforms.protocols import Response as Answered
from ttca.platforms.protocols.tensors import (
    Tensor,
    join_body,
    read_tensor,
    read_tensors,
    rounded_to_bf16,
    split_body,
)
from ttca.platforms.server import background_app

ADA = Credential("ada")
ROW = [0.125, 0.625, 0.25]


def files_of(texts: NDArray[Any]) -> Images:
    """Return the images of PNG files, uint8 (N, H, W, 3)."""
    pictures = [Image.open(io.BytesIO(text)) for text in texts.reshape(-1)]
    assert all(picture.format == "PNG" for picture in pictures)
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


class Server:
    """A model of one input and one output, strict about the type and the shape of what it is sent."""

    def __init__(self, given: dict[str, Any], output: dict[str, Any]) -> None:
        self.given, self.output, self.binary = given, output, True
        self.sent: list[NDArray[Any]] = []
        self.app = FastAPI()
        self.app.add_api_route("/v2", self.server)
        self.app.add_api_route("/v2/models/m", self.model)
        self.app.add_api_route("/v2/models/m/infer", self.infer, methods=["POST"], response_model=None)

    async def server(self) -> Any:
        """Say what the server can."""
        return {"name": "kinds", "extensions": ["binary_tensor_data"] if self.binary else []}

    async def model(self) -> Any:
        """Say what the model takes and gives."""
        return {"name": "m", "versions": ["1"], "inputs": [{"name": "x", **self.given}], "outputs": [self.output]}

    async def infer(self, request: Request) -> Any:
        """Check one request, and answer it with the same scores for every image."""
        message, rest = split_body(await request.body(), request.headers.get(LENGTH))
        (entry,) = message["inputs"]
        shape, wanted = entry["shape"], self.given["shape"]
        fits = len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))
        if entry["datatype"] != self.given["datatype"] or not fits:
            return JSONResponse({"error": f"{entry['datatype']} {shape}"}, 400)
        if entry["datatype"] == "BYTES":
            self.sent.append(files_of(self.files(entry, bytes(rest))))
        else:
            self.sent.append(read_tensor(entry, rest)[0].data)
        n = shape[0] if len(wanted) != 3 else 1
        rows = np.tile(np.array(ROW), (n, 1)).astype(np.float32)
        data = rows.reshape([n if d == -1 else d for d in self.output["shape"]])
        tensor = Tensor(self.output["name"], self.output["datatype"], data)
        body, headers = join_body({"model_name": "m"}, "outputs", [tensor], binary=self.binary)
        return Response(body, headers=headers)

    @staticmethod
    def files(entry: dict[str, Any], rest: bytes) -> NDArray[Any]:
        """Return the files of a BYTES tensor, read here by the rules of the protocol."""
        found = []
        if rest:
            while rest:
                size = int.from_bytes(rest[:4], "little")
                found.append(rest[4 : 4 + size])
                rest = rest[4 + size :]
        else:
            assert entry["parameters"]["content_type"] == "base64"
            found = [base64.b64decode(text, validate=True) for text in entry["data"]]
        texts = np.empty(len(found), dtype=object)
        texts[:] = found
        return texts


FREE = [-1, 4, 5, 3]
#: Datatype and shape of an input, the options that it needs, and what images become.
INPUTS: dict[str, tuple[str, list[int], dict[str, Any], Any]] = {
    "UINT8": ("UINT8", FREE, {}, lambda x: x),
    "INT32": ("INT32", FREE, {}, lambda x: x),
    "INT64 BGR": ("INT64", FREE, {"color_order": "bgr"}, lambda x: x[..., ::-1]),
    "INT8": ("INT8", FREE, {"range": [-128, 127]}, lambda x: x.astype(int) - 128),
    "FP64": ("FP64", FREE, {}, lambda x: (x / np.float32(255)).astype(np.float32)),
    "FP16": ("FP16", FREE, {"fp32_pixels": "levels"}, lambda x: x),
    "BF16": ("BF16", [-1, 3, 4, 5], {"fp32_pixels": "levels"}, lambda x: x.transpose(0, 3, 1, 2)),
    "FP32 normalized": (
        "FP32",
        [-1, 3, 4, 5],
        {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 2], "color_order": "bgr", "range": [0, 2]},
        lambda x: ((x[..., ::-1] / 255 * 2 - [0.5, 0.25, 0.125]) / [0.5, 0.25, 2]).transpose(0, 3, 1, 2),
    ),
    "no batch": ("UINT8", [4, 5, 3], {}, lambda x: x[0]),
    "no batch, planes": ("UINT8", [3, -1, -1], {}, lambda x: x[0].transpose(2, 0, 1)),
    "fixed": ("UINT8", [4, 4, 5, 3], {}, lambda x: x),
    "files": ("BYTES", [-1], {}, lambda x: x),
    "files in a column": ("BYTES", [-1, 1], {}, lambda x: x),
    "one file": ("BYTES", [1], {}, lambda x: x),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_gets_the_images_as_it_takes_them(kind: str) -> None:
    """Type, shape, layout, colors and scale are the server's; a full batch of copies is dropped from the answer."""
    datatype, shape, options, expected = INPUTS[kind]
    output = {"name": "p", "datatype": "FP32", "shape": [3] if len(shape) == 3 else [-1, 3, 1, 1]}
    server, asked = Server({"datatype": datatype, "shape": shape}, output), images(3, seed=4)
    step = 1e-2 if datatype == "BF16" else 1e-6
    with background_app(server.app) as url:
        for server.binary in (True, False):
            server.sent.clear()
            with HttpPlatform(url, model="m", classes=CLASSES, image_shape=IMAGE_SHAPE, **options) as platform:
                most = min(platform.info.max_batch, len(asked))
                parts = [platform.attempt(asked[i : i + most], ADA, request_id=f"r{i}") for i in range(0, 3, most)]
            assert sum(map(len, parts)) == 3
            np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), [ROW] * 3)
            sent = asked[[0, 1, 2, 2]] if kind == "fixed" else asked[:most]
            np.testing.assert_allclose(server.sent[0].astype(float), expected(sent).astype(float), rtol=step, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "data", "options"),
    [
        ({"datatype": "FP16", "shape": [-1, 3]}, [ROW], {}),
        ({"datatype": "BF16", "shape": [-1, 3]}, [ROW], {}),
        ({"datatype": "FP64", "shape": [-1, 3, 1, 1]}, [ROW], {}),
        ({"datatype": "FP32", "shape": [-1, -1, 1]}, [ROW], {}),
        ({"datatype": "UINT8", "shape": [-1, 3]}, [[12, 62, 25]], {"scores_are": "percent"}),
        ({"datatype": "INT8", "shape": [-1, 3, 1]}, [[-12, 62, 25]], {"scores_are": "logits"}),
        ({"datatype": "INT32", "shape": [-1, 3]}, [[12, 62, 25]], {"scores_are": "percent", "scores_output": "p"}),
        ({"datatype": "FP32", "shape": [-1]}, [1.0], {"label_output": "p"}),
        ({"datatype": "FP32", "shape": [-1, 1, 1]}, [[1.0]], {"label_output": "p"}),
        ({"datatype": "INT64", "shape": [-1, 1, 1, 1]}, [[1]], {}),
    ],
)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_every_output_is_read(output: dict[str, Any], data: Any, options: dict[str, Any], binary: bool) -> None:
    """Floats of every width, quantized scores, labels as floats, and axes of one value behind the classes."""
    agreed = wire({"name": "p", **output}, **options)
    shape = [1 if d == -1 else d for d in output["shape"]]
    shape = [1, 3, *shape[2:]] if output["shape"][:2] == [-1, -1] else shape
    values = np.array(data, np.float32 if output["datatype"] == "BF16" else None).reshape(shape)
    body, headers = join_body({}, "outputs", [Tensor("p", output["datatype"], values)], binary=binary)
    found = agreed.parse(Answered(200, {k.lower(): v for k, v in headers.items()}, body, "p"), 1)
    assert found.labels.tolist() == [1]
    assert found.status.tolist() == [Status.ANSWERED]


@pytest.mark.parametrize(
    "outputs",
    [
        # Whole numbers may be ranks; floats in one column may be scores.
        [{"name": "p", "datatype": "INT64", "shape": [-1, 3]}],
        [{"name": "p", "datatype": "FP32", "shape": [-1]}],
        [{"name": "p", "datatype": "FP32", "shape": [-1, 3, 2]}],
        [{"name": "p", "datatype": "FP32", "shape": [-1, 1, 3]}],
    ],
)
def test_an_output_that_could_be_two_things_is_not_guessed(outputs: list[dict[str, Any]]) -> None:
    """Before any query it must be named, or be of another shape."""
    with pytest.raises(ConfigError):
        wire(*outputs)


@pytest.mark.parametrize("value", [0.93, -2.0, 3.0, float("nan")])
def test_a_float_that_is_no_class_number_is_no_label(value: float) -> None:
    """A sigmoid's output that was taken for a label fails, whatever it is."""
    agreed = wire({"name": "p", "datatype": "FP32", "shape": [-1]}, label_output="p")
    with pytest.raises(AnswerError):
        agreed.parse(answer([{"name": "p", "datatype": "FP32", "shape": [1], "data": [value]}]), 1)


@pytest.mark.parametrize(
    ("given", "options", "match"),
    [
        ({"datatype": "BOOL", "shape": FREE}, {}, "UINT8"),
        ({"datatype": "INT8", "shape": FREE}, {}, "range"),
        ({"datatype": "INT8", "shape": FREE}, {"range": [-128, 127], "mean": [1, 1, 1]}, "range"),
        ({"datatype": "UINT8", "shape": FREE}, {"mean": [1, 1, 1]}, "floats"),
        ({"datatype": "FP32", "shape": FREE}, {"range": [0, 1], "fp32_pixels": "levels"}, "range of their own"),
        ({"datatype": "FP32", "shape": FREE}, {"color_order": "grb"}, "color_order"),
        ({"datatype": "FP32", "shape": FREE}, {"std": [1, 1]}, "3 numbers"),
        ({"datatype": "BYTES", "shape": [-1, 2]}, {}, "one file"),
        ({"datatype": "BYTES", "shape": [-1]}, {"image_shape": None}, "image_shape"),
        ({"datatype": "BYTES", "shape": [-1]}, {"color_order": "bgr"}, "color_order"),
        ({"datatype": "BYTES", "shape": [-1]}, {"layout": "NCHW"}, "layout"),
        ({"datatype": "UINT8", "shape": [0, 4, 5, 3]}, {}, "batch"),
        ({"datatype": "UINT8", "shape": [5, 3]}, {}, "batch"),
        ({"datatype": "UINT8", "shape": [1, 1, 4, 5, 3]}, {}, "batch"),
    ],
)
def test_an_input_that_cannot_be_filled_is_refused(given: dict[str, Any], options: dict[str, Any], match: str) -> None:
    """What has no effect on the input, or would be a guess, is a sentence before any query."""
    metadata = {"name": "m", "inputs": [{"name": "x", **given}]}
    with pytest.raises(ConfigError, match=match):
        connect(metadata, **{"image_shape": IMAGE_SHAPE, **options})


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_bf16_is_rounded_as_torch_rounds_it(values: list[float]) -> None:
    """The bits are torch's own, and come back as the same numbers."""
    given = np.array(values, np.float32)
    theirs = torch.tensor(given).to(torch.bfloat16)
    bits = theirs.view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(rounded_to_bf16(given), bits)
    body, headers = join_body({}, "inputs", [Tensor("x", "BF16", given)], binary=True)
    message, rest = split_body(body, headers["Inference-Header-Content-Length"])
    (read,) = read_tensors(message["inputs"], rest)
    np.testing.assert_array_equal(read.data, theirs.to(torch.float32).numpy())


def test_a_fixed_batch_of_tensorflow_serving_is_filled_too() -> None:
    """A signature of three images gets three, and what is said of the copies is dropped."""
    from tests.platforms.test_protocols import agreed

    dims = [{"size": str(d)} for d in (3, 4, 5, 3)]
    signature = {
        "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims}}},
        "outputs": {"p": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "3"}, {"size": "3"}]}}},
    }
    metadata = {"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}
    options = {"mean": [1, 2, 3], "std": [2, 2, 2], "color_order": "bgr", "send": "levels"}
    asked = agreed("tensorflow-serving", {"v1/models/m/metadata": metadata}, model="m", **options)
    assert asked.max_batch == 3
    sent = np.array(json.loads(asked.request(images(2), request_id="r").body)["instances"])
    expected = (images(2)[[0, 1, 1]][..., ::-1].astype(float) - [1, 2, 3]) / 2
    np.testing.assert_allclose(sent, expected)
    body = json.dumps({"predictions": [ROW] * 3}).encode()
    found = asked.parse(Answered(200, {}, body, "p"), 2)
    assert found.labels.tolist() == [1, 1]


@pytest.mark.parametrize("shape", [[4, 5, 3], [4, 4, 5, 3]], ids=["no batch", "fixed"])
@examples(90)
@given(
    sizes=st.lists(st.integers(1, 4), max_size=4),
    datatype=st.sampled_from(["FP32", "UINT8", "INT64", "BF16", "BYTES"]),
    value=st.sampled_from([0, 1, 0.25, None, "owl"]),
)
def test_any_output_of_such_a_server_is_an_answer_or_the_typed_error(
    shape: list[int], sizes: list[int], datatype: str, value: Any
) -> None:
    """Whatever shape and type comes back, one image has one answer, or there is none."""
    agreed = connect({"name": "m", "inputs": [{"name": "x", "datatype": "UINT8", "shape": shape}]})
    data = [value] * int(np.prod(sizes))
    entry = {"name": "p", "datatype": datatype, "shape": sizes, "data": data}
    try:
        found = agreed.parse(answer([entry]), 1)
    except AnswerError:
        return
    assert len(found) == 1
    assert found.resolved.all()

"""Every wire format against its own serving half over real HTTP, and against whatever JSON a stranger may send."""

from __future__ import annotations

import contextlib
import json
import tomllib
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, METADATA, images
from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ChargeState, ConfigError, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential, Platform
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.http import HttpPlatform
from ttca.platforms.local import LocalPlatform
from ttca.platforms.protocols import PROTOCOLS, Request, Response, Wire, create_protocol
from ttca.platforms.server import SERVED, background_server, how_to_ask

ADA = Credential("ada")


def model(pixels: Images) -> NDArray[np.float64]:
    """Return shares of the first three levels of each image."""
    levels = pixels.reshape(len(pixels), -1)[:, : len(CLASSES)].astype(np.float64) + 1.0
    shares: NDArray[np.float64] = levels / levels.sum(axis=1, keepdims=True)
    return shares


def options_of(protocol: str, platform: Platform | None = None) -> dict[str, Any]:
    """Return what a client of our own serving half is told."""
    told = how_to_ask(platform or local(), protocol)
    return {"classes": told["classes"], **({"model": "m"} if "model" in told else {}), **told["options"]}


def local(**habits: Any) -> WithHabits:
    """Return the model in process, with an API's habits."""
    return WithHabits(LocalPlatform(model, classes=CLASSES, image_shape=IMAGE_SHAPE, name="m"), Habits(**habits))


BEHAVIOURS: dict[str, dict[str, Any]] = {
    "scores": {},
    "labels": {"label_only": True},
    "top 2": {"top_k": 2},
    "rounded": {"decimals": 1},
}

#: The ways one protocol can be asked, beside the options above.
WAYS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted(PROTOCOLS)),
    ("kserve-v2", {"binary": False}),
    ("tensorflow-serving", {"send": "b64"}),
    ("tensorflow-serving", {"input_name": "images"}),
    ("tensorflow-serving", {"version": "1"}),
    ("torchserve", {"version": "1"}),
    ("huggingface", {"top_k": 3}),
    ("huggingface", {"model": "m", "function_to_apply": "softmax", "top_k": 3}),
    ("template", {"send": "png"}),
    ("template", {"send": "json", "body": {"image": "{image}"}}),
    ("template", {"send": "json", "body": {"image": "{image}", "more": [1]}, "image_as": "data-url"}),
]


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize(("protocol", "way"), WAYS, ids=[f"{p} {json.dumps(w)}" for p, w in WAYS])
def test_each_protocol_says_what_the_model_says(protocol: str, way: dict[str, Any], behaviour: str) -> None:
    """Labels and scores that crossed the wire in any format are the model's own, and what was not said is not said."""
    if way.get("send") == "b64":
        # The metadata of our own server asks for levels; it reads files all the same, as KServe V1.
        protocol = "kserve-v1"
    inside = local(**BEHAVIOURS[behaviour])
    options = {**options_of(protocol, inside), **way}
    asked = images(8, seed=3)
    expected = inside.attempt(asked, ADA, request_id="0")
    with (
        background_server(inside, protocol=protocol) as url,
        HttpPlatform(url, protocol=protocol, **options) as platform,
    ):
        assert platform.info.image_shape == IMAGE_SHAPE
        step = min(platform.info.max_batch, 4)
        parts = [platform.attempt(asked[i : i + step], ADA, request_id=f"r{i}") for i in range(0, 8, step)]
    got = Answers.concatenate(parts, classes=len(CLASSES))
    np.testing.assert_array_equal(got.status, expected.status)
    np.testing.assert_array_equal(got.labels, expected.labels)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-7)
    if behaviour == "rounded":
        np.testing.assert_allclose(got.resolution, expected.resolution, atol=1e-7)


def test_every_protocol_is_served() -> None:
    """There is a serving half for each protocol that can be asked."""
    assert set(SERVED) == set(PROTOCOLS)


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"kserve-v2"}))
def test_a_served_refusal_arrives_as_a_refusal(protocol: str) -> None:
    """A platform that refuses an image has answered, in each format's own way of saying nothing."""

    class Refusing(LocalPlatform):
        def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
            return Answers.from_labels(np.full(len(images), -1, np.int64), len(CLASSES))

    inside = Refusing(model, classes=CLASSES, image_shape=IMAGE_SHAPE, name="m")
    with (
        background_server(inside, protocol=protocol) as url,
        HttpPlatform(url, protocol=protocol, **options_of(protocol)) as platform,
    ):
        answers = platform.attempt(images(1), ADA, request_id="r")
    assert answers.status.tolist() == [Status.REFUSED]


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_served_errors_are_errors_and_cost_what_they_cost(protocol: str) -> None:
    """A model that fails is a platform that may have processed the query, and an unknown model one that did not."""

    def broken(pixels: Images) -> NDArray[np.float64]:
        raise ValueError("out of luck")

    inside = LocalPlatform(broken, classes=CLASSES, image_shape=IMAGE_SHAPE, name="m")
    with (
        background_server(inside, protocol=protocol) as url,
        HttpPlatform(url, protocol=protocol, **options_of(protocol)) as platform,
    ):
        with pytest.raises(TransportError) as caught:
            platform.attempt(images(1), ADA, request_id="r")
        assert (caught.value.status, caught.value.charge) == (500, ChargeState.UNKNOWN)
        if "model" in options_of(protocol) or protocol == "huggingface":
            other = {**options_of(protocol), "model": "another"}
            with (
                HttpPlatform(url, protocol=protocol, **other) as stranger,
                pytest.raises(TransportError) as absent,
            ):
                stranger.attempt(images(1), ADA, request_id="r")
            assert (absent.value.status, absent.value.charge) == (404, ChargeState.REFUNDED)


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"kserve-v2"}))
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"instances": [[1]]}', b'{"inputs": "!"}', b"\x89PNG"]
)
def test_a_served_protocol_refuses_what_is_no_image(protocol: str, body: bytes) -> None:
    """Bytes that are no image of the format are the sender's mistake, and no query of the model."""
    import requests

    inside = LocalPlatform(model, classes=CLASSES, image_shape=IMAGE_SHAPE, name="m")
    paths = {"kserve-v1": "v1/models/m:predict", "tensorflow-serving": "v1/models/m:predict"}
    paths |= {"torchserve": "predictions/m", "huggingface": "", "bentoml": "classify", "template": "classify"}
    kinds = ["application/json", "image/png", "multipart/form-data; boundary=x", "multipart/form-data"]
    with background_server(inside, protocol=protocol) as url:
        for kind in kinds:
            reply = requests.post(f"{url}/{paths[protocol]}", data=body, headers={"Content-Type": kind}, timeout=30)
            assert reply.status_code == 400, (kind, reply.text)
            assert reply.json()["error"]
    assert inside.processed == 0


# -- what comes back, byte by byte ------------------------------------------------------------------------------


def agreed(protocol: str, metadata: dict[str, Any] | None = None, **options: Any) -> Wire:
    """Return a protocol's wire as agreed with a server that has this metadata, or none."""

    def fetch(path: str) -> Response:
        if metadata is None or path not in metadata:
            raise TransportError(
                "nothing there", platform="p", charge=ChargeState.REFUNDED, retryable=False, status=404
            )
        return Response(200, {}, json.dumps(metadata[path]).encode(), "p")

    known = {"image_shape": IMAGE_SHAPE, "classes": CLASSES, **options}
    return create_protocol(protocol, **known).describe(fetch)


def said(wire: Wire, message: Any, n: int = 1) -> Answers:
    """Return the answers in a JSON message."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return wire.parse(Response(200, {}, body, "p", "r"), n)


TOP_K = agreed("torchserve", model="m", missing_score=-1.0)
SEVERAL = agreed("kserve-v1", {"v1/models/m": {}}, model="m")
TORCHSERVE = agreed(
    "torchserve", model="m", refused_labels=["no face", "zu trüb"], refused_errors=["no face found", "für ein"]
)


@pytest.mark.parametrize(
    ("message", "label", "scores"),
    [
        ({"dog": 0.7, "cat": 0.2, "owl": 0.1}, 1, [0.2, 0.7, 0.1]),
        ({"dog": 0.7, "cat": 0.2}, 1, [0.2, 0.7, np.nan]),
        ({"1": 0.7, "0": 0.2}, 1, [0.2, 0.7, np.nan]),
        ([{"dog": 0.7}, {"cat": 0.2}], 1, [0.2, 0.7, np.nan]),
        ([{"label": "owl", "score": 0.5}, {"label": "cat", "score": 0.4}], 2, [0.4, np.nan, 0.5]),
        ([{"class": 2, "probability": 0.5}], 2, [np.nan, np.nan, 0.5]),
        ([["owl", 0.5], ["cat", 0.4]], 2, [0.4, np.nan, 0.5]),
        ([0.2, 0.7, 0.1], 1, [0.2, 0.7, 0.1]),
        ([[0.2, 0.7, 0.1]], 1, [0.2, 0.7, 0.1]),
        (["owl"], 2, [np.nan] * 3),
        ("owl", 2, [np.nan] * 3),
        (2, 2, [np.nan] * 3),
        (2.0, 2, [np.nan] * 3),
        (b"owl\n", 2, [np.nan] * 3),
        ({"label": "dog", "scores": [0.2, 0.7, 0.1]}, 1, [0.2, 0.7, 0.1]),
        ({"label": "dog", "scores": [0.4, 0.4, 0.2]}, 1, [0.4, 0.4, 0.2]),
        ({"label": "no face", "scores": [0.2, 0.7, 0.1]}, -1, [np.nan] * 3),
        ({"label": "no face", "scores": None}, -1, [np.nan] * 3),
        ({"label": -1, "score": None}, -1, [np.nan] * 3),
        ({"label": 2, "class_name": "owl", "name": "me.png", "message": "well done"}, 2, [np.nan] * 3),
        ([{"label": "owl"}], 2, [np.nan] * 3),
        ({"label": "cat", "scores": {"cat": 0.4, "dog": 0.4}}, 0, [0.4, 0.4, np.nan]),
        ({"label": "cat", "confidence": 0.8}, 0, [0.8, np.nan, np.nan]),
        ({"cat": 0.4, "dog": 0.4}, 0, [0.4, 0.4, np.nan]),
        ([], -1, [np.nan] * 3),
        ({}, -1, [np.nan] * 3),
        ("no face", -1, [np.nan] * 3),
        ({"no face": 0.9, "cat": 0.1}, -1, [np.nan] * 3),
        ({"cat": 0.9, "no face": 0.1}, 0, [0.9, np.nan, np.nan]),
        ({"cat": 0.6, "no face": 0.3, "zu trüb": 0.1}, 0, [0.6, np.nan, np.nan]),
        ({"error": "Für ein Gesicht zu dunkel"}, -1, [np.nan] * 3),
        ({"refused": True}, -1, [np.nan] * 3),
        ({"error": "No face found in image"}, -1, [np.nan] * 3),
    ],
)
def test_every_usual_form_of_an_answer_is_read(message: Any, label: int, scores: list[float]) -> None:
    """Objects, lists, pairs, vectors and bare labels say the same thing; an empty one says that nothing was found."""
    answers = said(TORCHSERVE, message)
    assert answers.labels.tolist() == [label]
    assert answers.status.tolist() == [Status.REFUSED if label < 0 else Status.ANSWERED]
    np.testing.assert_allclose(answers.scores[0], scores, atol=1e-7)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"<html>busy</html>",
        b'{"dog": 0.7',
        b"wolf",
        {"wolf": 0.7, "cat": 0.2},
        {"dog": 0.7, "1": 0.2},
        {"dog": float("nan"), "cat": 0.2},
        [0.2, float("inf"), 0.1],
        [0.2, 0.7],
        [0.2, 0.7, 0.1, 0.0],
        [0.2, None, 0.1],
        [2.0, 7.0, 1.0],
        [0.0, 0.0, 0.0],
        ["wolf", "cat"],
        ["owl", "cat"],
        {"label": "owl", "sc": 0.2},
        7,
        2.5,
        True,
        None,
        {"error": "out of memory"},
        {"label": "wolf", "scores": [0.2, 0.7, 0.1]},
        {"label": "cat", "scores": [0.2, 0.7]},
        {"label": "cat", "scores": [0.2, 0.7, 0.1]},
        {"label": "cat", "scores": {"cat": 0.2, "dog": 0.7}},
        {"label": "cat", "scores": {"dog": 0.2, "owl": 0.1}},
        {"label": "cat", "scores": {"no face": 0.9, "cat": 0.1}},
        {"label": "cat", "scores": None},
        {"label": "cat", "scores": []},
        {"label": "cat", "scores": 1.0},
        {"label": "cat", "scores": ["dog"]},
        {"label": "cat", "scores": [0.7, None, 0.1]},
        {"label": None, "scores": [0.2, 0.7, 0.1]},
        {"label": "cat", "score": None},
        {"label": "cat", "score": 0.9, "confidence": 0.2},
        {"label": "cat", "class_name": "dog"},
        {"label": "cat", "error": "out of memory"},
        {"label": "cat", "cat": 0.2, "dog": 0.7, "owl": 0.1},
        {"scores": [0.2, 0.7, 0.1], "probabilities": [0.7, 0.2, 0.1]},
        {"cat": None, "dog": 0.4},
        {"cat": 0.0, "dog": 0.0},
        [["cat", None], ["dog", 0.7]],
        [{"label": "cat", "sc": 0.2}, {"label": "dog", "sc": 0.7}],
        [{"label": "cat", "score": None}, {"label": "dog", "score": 0.7}],
        [{"label": "cat"}, {"label": "dog", "score": 0.7}],
        [None, None, None],
        ["cat", "wolf"],
        ["cat", "cat"],
        b'{"label": "cat", "label": "dog"}',
        b'{"dog": 0.7, "cat": 0.2, "cat": 0.8}',
        [{"label": "cat", "score": "high"}],
        [{"label": "cat", "score": 0.9}, "dog"],
        {"cat": 10**400},
    ],
)
def test_what_is_no_answer_is_never_a_label(message: Any) -> None:
    """Errors, renamed classes, wrong counts and numbers that are none are charged errors, not retried blindly."""
    with pytest.raises(AnswerError) as caught:
        said(TORCHSERVE, message)
    assert caught.value.charge is ChargeState.CHARGED
    assert not caught.value.retryable


def test_numbers_that_are_names_are_never_taken_for_indices() -> None:
    """With classes named 1 to 5, the number 1 may mean the first or the second: that is no label."""
    years = agreed("torchserve", model="m", classes=["1", "2", "3", "4", "5"])
    assert said(years, b'"1"').labels.tolist() == [0]
    for ambiguous in (1, {"label": 1, "score": 0.9}, [[1, 0.9]]):
        with pytest.raises(AnswerError):
            said(years, ambiguous)
    digits = agreed("torchserve", model="m", classes=[str(d) for d in range(10)])
    assert said(digits, 7).labels.tolist() == said(digits, {"7": 0.9}).labels.tolist() == [7]


@pytest.mark.parametrize("protocol", ["kserve-v2", "kserve-v1"])
def test_an_error_with_status_200_refuses_where_the_options_name_it(protocol: str) -> None:
    """Formats of batches read refusals of a single image too."""
    metadata = {"v1/models/m": {}, "v2/models/m": METADATA, "v2": {}}
    wire = agreed(protocol, metadata, model="m", refused_errors=["no face"])
    assert said(wire, {"error": "No face found"}).status.tolist() == [Status.REFUSED]
    for message, n in (({"error": "No face found"}, 2), ({"error": "out of memory"}, 1)):
        with pytest.raises(AnswerError):
            said(wire, message, n)


def test_a_refusal_by_status_is_an_answer_of_one_image_and_an_error_of_many() -> None:
    """An error refuses where the options name its text, whatever its status; a place never for keys and limits."""
    refusal = Response(400, {}, b'{"message": "NO FACE FOUND"}', "p")
    assert TORCHSERVE.refuses(refusal)
    assert not TORCHSERVE.refuses(Response(400, {}, b'{"message": "bad request"}', "p"))
    assert TORCHSERVE.refuses(Response(500, {}, refusal.body, "p"))
    assert not TORCHSERVE.refuses(Response(500, {}, b"Internal Server Error", "p"))
    table = agreed("template", refused_statuses=[422], refused="error.code")
    assert table.refuses(Response(422, {}, b"", "p"))
    assert table.refuses(Response(400, {}, b'{"error": {"code": "no_face"}}', "p"))
    assert not table.refuses(Response(400, {}, b'{"error": "no face"}', "p"))
    assert not table.refuses(Response(400, {}, b"<html>", "p"))
    for status in (401, 402, 403, 404, 408, 429, 502, 503):
        assert not table.refuses(Response(status, {}, b'{"error": {"code": "rate limit exceeded"}}', "p"))


def test_logits_become_probabilities_only_where_all_are_said() -> None:
    """A softmax needs every logit: the best five of them are an error."""
    wire = agreed("huggingface", scores_are="logits", function_to_apply="none")
    whole = said(
        wire, [{"label": "cat", "score": 1.0}, {"label": "dog", "score": 1.0}, {"label": "owl", "score": -9.0}]
    )
    assert whole.scores[0, :2] == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(AnswerError, match="softmax"):
        said(wire, [{"label": "cat", "score": 1.0}])


# -- KServe V1 and TensorFlow Serving ----------------------------------------------------------------------------


def tf_metadata(
    dtype: str = "DT_FLOAT", sizes: list[int] | None = None, classes: int = 3, **inputs: Any
) -> dict[str, Any]:
    """Return what TensorFlow Serving says of a model, as its documentation prints it."""

    def tensor(kind: str, shape: list[int]) -> dict[str, Any]:
        dims = [{"size": str(s), "name": ""} for s in shape]
        return {"dtype": kind, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x:0"}

    signature = {
        "inputs": {"x": tensor(dtype, sizes or [-1, *IMAGE_SHAPE]), **inputs},
        "outputs": {"probabilities": tensor("DT_FLOAT", [-1, classes])},
        "method_name": "tensorflow/serving/predict",
    }
    spec = {"name": "m", "signature_name": "", "version": "3"}
    defs = {"signature_def": {"serving_default": signature}}
    return {"v1/models/m/metadata": {"model_spec": spec, "metadata": {"signature_def": defs}}}


@pytest.mark.parametrize(
    ("dtype", "options", "instance"),
    [
        ("DT_FLOAT", {}, [[[0.0, 1.0, round(float(np.float32(51) / np.float32(255)), 9)]]]),
        ("DT_FLOAT", {"send": "levels"}, [[[0.0, 255.0, 51.0]]]),
        ("DT_UINT8", {}, [[[0, 255, 51]]]),
        ("DT_UINT8", {"input_name": "x"}, {"x": [[[0, 255, 51]]]}),
    ],
)
def test_tensorflow_serving_gets_pixels_as_its_metadata_asks(dtype: str, options: Any, instance: Any) -> None:
    """The type of the input decides how pixels are written, and options may say what no metadata does."""
    metadata = tf_metadata(dtype, [-1, 1, 1, 3])
    wire = agreed("tensorflow-serving", metadata, model="m", image_shape=(1, 1, 3), **options)
    request = wire.request(np.array([[[[0, 255, 51]]]], np.uint8), request_id="r")
    assert (request.method, request.path) == ("POST", "v1/models/m:predict")
    assert json.loads(request.body) == {"instances": [instance]}
    assert wire.identity["version"] == "3"


def test_tensorflow_serving_takes_files_where_the_input_is_a_string() -> None:
    """A model of string inputs gets PNG files in base64, and a signature that is not the default is named."""
    metadata = tf_metadata("DT_STRING", [-1])
    wire = agreed("tensorflow-serving", metadata, model="m")
    (instance,) = json.loads(wire.request(images(1), request_id="r").body)["instances"]
    assert list(instance) == ["b64"]
    named = agreed("kserve-v1", {"v1/models/m": {"name": "m", "ready": True}}, model="m", signature="other")
    assert json.loads(named.request(images(1), request_id="r").body)["signature_name"] == "other"


@pytest.mark.parametrize(
    ("metadata", "options", "match"),
    [
        (tf_metadata(classes=4), {}, "3 classes"),
        (tf_metadata(sizes=[-1, 9, 9, 3]), {}, "takes"),
        (tf_metadata("DT_INT64"), {}, "DT_INT64"),
        (tf_metadata(), {"send": "b64"}, "send"),
        (tf_metadata(), {"signature": "other"}, "signature"),
        (tf_metadata(), {"input_name": "y"}, "'y'"),
        (tf_metadata(), {"scores_output": "y"}, "'y'"),
        (tf_metadata(y={}), {}, "input_name"),
        ({"v1/models/m": {"name": "m", "ready": False}}, {}, "ready"),
        ({"v1/models/m/metadata": {}}, {"image_shape": None}, "image_shape"),
    ],
)
def test_metadata_that_is_not_as_configured_costs_no_query(metadata: Any, options: Any, match: str) -> None:
    """Class count, image size, input type and names are checked before anything is asked."""
    with pytest.raises(ConfigError, match=match):
        agreed("tensorflow-serving", metadata, model="m", **options)


def test_a_model_that_is_not_there_is_an_error_before_any_query() -> None:
    """Without metadata, the model's status must answer."""
    with pytest.raises(TransportError):
        agreed("tensorflow-serving", {}, model="m")


def test_predictions_are_read_row_by_row() -> None:
    """One bad row fails alone; outputs of several names are chosen by the options."""
    wire = agreed("kserve-v1", {"v1/models/m": {}}, model="m")
    answers = said(wire, {"predictions": [[0.2, 0.7, 0.1], [0.2, float("nan"), 0.1], "owl"]}, 3)
    assert answers.status.tolist() == [Status.ANSWERED, Status.FAILED, Status.ANSWERED]
    assert answers.labels.tolist() == [1, -1, 2]
    assert np.isnan(answers.scores[2]).all()
    named = agreed("kserve-v1", {"v1/models/m": {}}, model="m", scores_output="p", label_output="y")
    rows: list[Any] = [
        {"p": [0.2, 0.7, 0.1], "y": [1], "z": 0},
        {"p": [0.2, 0.7, 0.1], "y": 0},
        {"y": 0},
        {"p": [0.2, 0.7, 0.1]},
        [0.2, 0.7, 0.1],
    ]
    assert said(named, {"predictions": rows}, 5).labels.tolist() == [1, -1, -1, -1, -1]
    with pytest.raises(AnswerError, match="the output 'p'"):
        said(named, {"predictions": [{"y": 0}]})
    for option, row in (("scores_output", [0.2, 0.7, 0.1]), ("label_output", "dog"), ("label_output", ["dog"])):
        single = agreed("kserve-v1", {"v1/models/m": {}}, model="m", **{option: "y"})
        assert said(single, {"predictions": [row]}).labels.tolist() == [1]
    with pytest.raises(AnswerError):
        said(single, {"predictions": [[0.2, 0.7, 0.1]]})
    one = {"predictions": [{"softmax": [0.2, 0.7, 0.1]}]}
    assert said(wire, one).labels.tolist() == [1]
    wrongs: list[Any] = [{"predictions": [[0.2, 0.7, 0.1]]}, {"error": "no such thing"}, [1, 2], {"predictions": {}}]
    for wrong in wrongs:
        with pytest.raises(AnswerError):
            said(wire, wrong, 2)


# -- Hugging Face, BentoML -----------------------------------------------------------------------------------------


def test_hugging_face_gets_bytes_or_base64_with_parameters() -> None:
    """Without parameters the image is the body; with them it is base64 beside them, as the task's page says."""
    plain = agreed("huggingface").request(images(1), request_id="r")
    assert (plain.path, plain.headers["Content-Type"]) == ("", "image/png")
    assert plain.body.startswith(b"\x89PNG")
    asked = agreed("huggingface", model="owner/name", top_k=10, function_to_apply="softmax")
    request = asked.request(images(1), request_id="r")
    assert request.path == "models/owner/name"
    assert json.loads(request.body)["parameters"] == {"top_k": 10, "function_to_apply": "softmax"}


def test_rows_of_a_top_five_are_not_complete() -> None:
    """Hugging Face names five classes unless asked for more: the others' scores are not said, and are not zero."""
    names = [f"class-{i}" for i in range(10)]
    wire = agreed("huggingface", classes=names)
    answers = said(wire, [{"label": names[i], "score": 0.3 - 0.05 * i} for i in range(5)])
    assert not answers.complete.any()
    assert np.isnan(answers.scores[0]).sum() == 5


def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    """The seconds that an endpoint estimates until its model is ready are how long we wait."""
    wire = agreed("huggingface")
    loading = b'{"error": "Model owner/name is currently loading", "estimated_time": 20.5}'
    assert wire.wait_s(Response(503, {}, loading, "p")) == 20.5
    for status, body in ((500, loading), (503, b"<html>"), (503, b"[]"), (503, b'{"estimated_time": "soon"}')):
        assert wire.wait_s(Response(status, {}, body, "p")) is None


def test_bentoml_checks_route_and_field_before_any_query() -> None:
    """The service's own OpenAPI says which routes and parameters it has; without it, the first query tells."""
    content = {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/Form"}}}
    docs = {
        "paths": {"/classify": {"post": {"requestBody": {"content": content}}}, "/healthz": {"get": {}}},
        "components": {"schemas": {"Form": {"type": "object", "properties": {"image": {}, "top": {}}}}},
    }
    wire = agreed("bentoml", {"docs.json": docs}, fields={"top": "5"})
    request: Request = wire.request(images(1), request_id="r")
    assert request.path == "classify"
    assert b'name="image"; filename="image.png"' in request.body
    assert b'name="top"' in request.body
    for options in ({"route": "predict"}, {"field": "picture"}, {"fields": {"bottom": "5"}}):
        with pytest.raises(ConfigError, match="Correct"):
            agreed("bentoml", {"docs.json": docs}, **options)
    json_only: dict[str, Any] = {
        "paths": {"/classify": {"post": {"requestBody": {"content": {"application/json": {}}}}}}
    }
    with pytest.raises(ConfigError, match="multipart"):
        agreed("bentoml", {"docs.json": json_only})
    assert agreed("bentoml").max_batch == 1


# -- the template --------------------------------------------------------------------------------------------------


def test_a_table_describes_an_api_nobody_has_heard_of() -> None:
    """Path, headers, message and the places of labels, scores and refusals all come from the table."""
    table = tomllib.loads("""
        path = "v2/{model}/annotate?lang=en"
        headers = { X-Client = "ttca" }
        send = "json"
        body = { requests = [ { image = { content = "{image}" }, features = [ { maxResults = 3 } ] } ] }
        scores = "responses[0].labels[*].{label: description, score: score}"
        refused = "responses[0].error"
    """)
    wire = agreed("template", model="vision", **table)
    request = wire.request(images(1), request_id="r")
    assert request.path == "v2/vision/annotate?lang=en"
    assert request.headers["X-Client"] == "ttca"
    sent = json.loads(request.body)["requests"][0]
    assert sent["features"] == [{"maxResults": 3}]
    assert isinstance(sent["image"]["content"], str)
    good = {"responses": [{"labels": [{"description": "owl", "score": 0.6}, {"description": "cat", "score": 0.3}]}]}
    assert said(wire, good).labels.tolist() == [2]
    assert said(wire, {"responses": [{"labels": []}]}).status.tolist() == [Status.REFUSED]
    assert said(wire, {"responses": [{"error": {"code": 3}}]}).status.tolist() == [Status.REFUSED]
    wolf = {"responses": [{"labels": [{"description": "wolf", "score": 0.6}]}]}
    wrongs: list[Any] = [{"responses": []}, {}, [], wolf]
    for wrong in wrongs:
        with pytest.raises(AnswerError):
            said(wire, wrong)


def test_a_table_may_ask_about_many_images_at_once() -> None:
    """With a place for all images and the place of the list of answers, one request carries a batch."""
    wire = agreed(
        "template",
        send="json",
        body={"pixels": "{images}"},
        image_as="levels",
        results="out",
        names="n",
        scores="s",
        error="trouble",
    )
    assert wire.max_batch is None
    assert np.array(json.loads(wire.request(images(2), request_id="r").body)["pixels"]).shape == (2, *IMAGE_SHAPE)
    rows = [{"n": ["dog", "owl"], "s": [0.9, 0.05]}, {"n": ["dog"], "s": []}]
    answers = said(wire, {"out": rows}, 2)
    assert answers.status.tolist() == [Status.ANSWERED, Status.FAILED]
    with pytest.raises(AnswerError, match="out of memory"):
        said(wire, {"out": rows, "trouble": "out of memory"}, 2)
    with pytest.raises(AnswerError):
        said(wire, {"out": rows}, 3)


@pytest.mark.parametrize(
    ("options", "message", "match"),
    [
        ({"label": "l", "scores": "s"}, {"l": "cat", "score": [0.2, 0.7, 0.1]}, "scores at 's', got nothing"),
        ({"label": "l", "scores": "s"}, {"l": "cat", "s": None}, "scores at 's', got nothing"),
        ({"label": "l", "scores": "s"}, {"s": [0.2, 0.7, 0.1]}, "label at 'l', got nothing"),
        ({"label": "l", "scores": "s"}, {"l": "cat", "s": [0.2, 0.7, 0.1]}, "label 'cat' to have the highest"),
        ({"scores": "[*].s"}, [{"s": 0.2}, {"t": 0.7}, {"s": 0.1}], "finite numbers"),
        ({"scores": "[*].s"}, [{"t": 0.2}, {"t": 0.7}], "scores"),
        ({"scores": "[?n].s"}, [{"n": 1}, {"n": 2}], "scores"),
        ({"scores": "s.*.v"}, {"s": {"a": {"v": 0.2}, "b": {}, "c": {"v": 0.1}}}, "finite numbers"),
        ({"scores": "[*].{label: n, score: s}"}, [{"n": "cat", "t": 0.2}, {"n": "dog", "t": 0.7}], "got"),
        ({"label": "[*].n"}, [{"m": "dog"}, {"n": "cat"}], "label"),
        (
            {"scores": "[*].s", "names": "[*].n"},
            [{"n": "cat"}, {"n": "dog", "s": 0.2}, {"s": 0.7}],
            "label",
        ),
        ({"scores": "s", "names": "n"}, {"n": ["cat"], "s": [0.2, 0.7]}, "as many names"),
    ],
)
def test_what_lies_elsewhere_than_the_table_says_is_no_answer(
    options: dict[str, Any], message: Any, match: str
) -> None:
    """A place that holds null, or nothing, fails the image: what else the answer holds is not taken instead."""
    with pytest.raises(AnswerError, match=match):
        said(agreed("template", **options), message)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "GET"}, "method"),
        ({"send": "fax"}, "send"),
        ({"send": "json"}, "{image}"),
        ({"send": "json", "body": {"a": "{image}", "b": "{image}"}}, "2 places"),
        ({"send": "json", "body": {"a": "{images}"}}, "results"),
        ({"body": {"a": "{image}"}}, "Remove one"),
        ({"fields": {"a": "b"}}, "Remove one"),
        ({"headers": {"X-Api-Key": "s3cret-value"}}, "key_header"),
        ({"headers": {"Accept": "a\r\nb: c"}}, "printable"),
        ({"headers": {"A": 1}}, "texts"),
        ({"path": "classify?api_key=s3cret-value"}, "not shown"),
        ({"path": "a b"}, "without spaces"),
        ({"path": "v1/{model}/x"}, "model"),
        ({"headers": {"X-Client": "Bearer s3cret-value"}}, "key_header"),
        ({"headers": {"X-Api-Key": "s3cret-value", "A": 1}}, "texts"),
        ({"headers": "X-Api-Key: s3cret-value"}, "headers"),
        ({"headers": {"Host": "another"}}, "transport"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "transport"),
        ({"send": "multipart", "fields": {"api_key": "s3cret-value"}}, "api_key"),
        ({"send": "multipart", "fields": {"api_key": "s3cret-value", "k": 3}}, "texts"),
        ({"send": "json", "body": {"image": "{image}", "auth": {"token": "s3cret-value"}}}, "token"),
        ({"send": "json", "body": {"image": "{image}", "at": datetime(2026, 1, 1)}}, "date"),
        ({"image_as": "levels"}, "Remove one"),
        ({"field": "file"}, "Remove one"),
        ({"refused_statuses": [429]}, "between 400"),
        ({"label": "a["}, "JMESPath"),
        ({"names": "a"}, "beside names"),
        ({"refused_statuses": [200]}, "between 400"),
        ({"image_shape": None}, "image_shape"),
        ({"refused_errors": "no face"}, "refused_errors"),
        ({"refused_labels": [""]}, "list of texts"),
        ({"resolution": "fine"}, "resolution"),
        ({"missing_score": True}, "missing_score"),
        ({"missing_score": float("nan")}, "missing_score"),
        ({"path": 3}, "path"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_table_that_cannot_be_is_refused_and_shows_no_key(options: dict[str, Any], match: str) -> None:
    """A mistake in the table is a sentence before anything is sent, without what may be a key."""
    with pytest.raises(ConfigError, match=match) as caught:
        agreed("template", **options)
    assert "s3cret" not in str(caught.value)


# -- names on the wire ---------------------------------------------------------------------------------------------


def test_a_class_is_known_in_both_spellings_of_its_name() -> None:
    """Composed or decomposed, with or without a space behind it, it is one class; an exact match comes first."""
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    wire = agreed("torchserve", model="m", classes=[composed, "dog"], refused_labels=["tr\u00fcb"])
    assert said(wire, decomposed).labels.tolist() == said(wire, f"{composed} ").labels.tolist() == [0]
    assert said(wire, {decomposed: 0.7, "dog": 0.2}).labels.tolist() == [0]
    assert said(wire, "tru\u0308b").status.tolist() == [Status.REFUSED]
    metadata = {**METADATA, "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}]}
    metadata["parameters"] = {"classes": [decomposed, "dog", "owl"]}
    names = agreed("kserve-v2", {"v2/models/m": metadata, "v2": {}}, model="m", classes=[composed, "dog", "owl"])
    entry = {"name": "y", "datatype": "BYTES", "shape": [1], "data": [decomposed]}
    assert said(names, {"outputs": [entry]}).labels.tolist() == [0]
    both = agreed("torchserve", model="m", classes=[composed, decomposed])
    assert [said(both, name).labels.tolist() for name in (composed, decomposed)] == [[0], [1]]
    with pytest.raises(AnswerError):
        said(both, f"{composed} ")


# -- whatever may come -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*CLASSES, "error", "no face", "0", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["predictions", "label", "scores", "score", "error", *CLASSES]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)

WIRES: dict[str, Wire] = {
    "torchserve": TORCHSERVE,
    "tensorflow-serving": agreed("tensorflow-serving", tf_metadata(), model="m"),
    "kserve-v1": agreed("kserve-v1", {"v1/models/m": {}}, model="m", scores_output="scores", label_output="label"),
    "huggingface": agreed("huggingface", scores_are="logits"),
    "bentoml": agreed("bentoml", scores_are="percent", missing_score=-1.0),
    "template": agreed(
        "template", label="label", scores="scores[*].abs(score)", names="keys(@)", refused="error", error="max(scores)"
    ),
    "template, whole": agreed("template"),
    "template, many": agreed("template", send="json", body="{images}", results="predictions", label="label || @"),
    "template, picked": agreed("template", pick="largest", box="[*].label", label="[*].error", scores="[*].scores"),
    "one score": agreed("template", classes=("cat", "dog"), scores_are="logit-of-second", threshold=0.3),
    "sentences": agreed("torchserve", model="m", word_in_text=True, others="refuse"),
    "texts of JSON": agreed("bentoml", json_in_text=True, others="ignore", scores_are="confidences"),
}


@pytest.mark.parametrize("name", WIRES)
@examples(200)
@given(message=JSON, n=st.integers(1, 3), status=st.sampled_from([200, 400, 422, 503]))
def test_any_json_is_valid_answers_or_the_typed_error(name: str, message: Any, n: int, status: int) -> None:
    """Whatever JSON a platform sends, a parser gives sound answers of the right shape or the one typed error."""
    body = json.dumps(message).encode()
    response = Response(status, {}, body, "p", "r")
    assert WIRES[name].refuses(response) in (True, False)
    assert (WIRES[name].wait_s(response) or 0.0) >= 0
    try:
        answers = WIRES[name].parse(response, n)
    except AnswerError:
        return
    assert len(answers) == n
    assert answers.scores.shape == (n, len(WIRES[name].options.classes))
    assert answers.resolved.any()


SCORE = st.floats(0, 1) | st.sampled_from([0.0, 0.2, 0.5, 1.0])
UNREAD = st.sampled_from([None, float("nan"), float("inf"), "half", "nan", True])


def forms(label: str | None, scores: list[Any]) -> list[Any]:
    """Return an answer in every form that names its scores, in a wrapping that some protocols use."""
    named = dict(zip(CLASSES, scores, strict=True))
    if label is not None:
        return [
            {"label": label, "scores": scores},
            {"class_name": label, "probabilities": named},
            {"label": label, "scores": list(map(list, named.items()))},
        ]
    return [
        scores,
        [scores],
        {"scores": scores},
        named,
        [list(pair) for pair in named.items()],
        [{"label": name, "score": score} for name, score in named.items()],
        [{name: score} for name, score in named.items()],
    ]


@examples(200)
@given(st.sampled_from([None, *CLASSES]), st.lists(SCORE, min_size=3, max_size=3), st.data())
def test_a_score_that_cannot_be_read_is_never_passed_over(
    label: str | None, scores: list[Any], data: st.DataObject
) -> None:
    """Whatever form an answer has, one score of null, NaN or text in it, and no label comes out."""
    for at in data.draw(st.sets(st.integers(0, 2), min_size=1)):
        scores[at] = data.draw(UNREAD)
    for form in forms(label, scores):
        for wire in (TORCHSERVE, TOP_K, agreed("huggingface")):
            with pytest.raises(AnswerError):
                said(wire, form)
        rows = said(SEVERAL, {"predictions": ["owl", form]}, 2)
        assert rows.labels.tolist() == [2, -1]


@examples(200)
@given(st.sampled_from([None, *CLASSES]), st.lists(SCORE, min_size=3, max_size=3))
def test_what_comes_out_is_the_highest_score_or_nothing(label: str | None, scores: list[float]) -> None:
    """Whatever label is said beside complete scores, it comes out only where no other score is higher."""
    total = sum(scores)
    scores = [score / total for score in scores] if total > 0.01 else scores
    for form in forms(label, scores):
        try:
            answers = said(TORCHSERVE, form)
        except AnswerError:
            assert label is not None or total <= 0.01
            continue
        assert scores[answers.labels[0]] == max(scores)
        assert label is None or CLASSES[answers.labels[0]] == label


@settings(deadline=None)
@given(JSON, st.text(max_size=5), JSON)
def test_a_name_that_comes_twice_is_read_as_neither(first: Any, name: str, second: Any) -> None:
    """However deep it stands, an object that has one name twice makes the whole answer unreadable."""
    twice = f"{{{json.dumps(name)}: {json.dumps(first)}, {json.dumps(name)}: {json.dumps(second)}}}"
    for body in (twice, f"[{twice}]", f'{{"predictions": ["cat"], "more": [{twice}]}}'):
        for wire in (TORCHSERVE, SEVERAL):
            with pytest.raises(AnswerError, match="once"):
                said(wire, body.encode())


@pytest.mark.parametrize("name", WIRES)
@examples(60)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_valid_answers_or_the_typed_error(name: str, body: bytes) -> None:
    """Whatever bytes a platform sends, nothing but the typed error is raised."""
    with contextlib.suppress(AnswerError):
        assert len(WIRES[name].parse(Response(200, {}, body, "p", "r"), 1)) == 1


@pytest.mark.parametrize("name", ["tensorflow-serving", "bentoml"])
@examples(100)
@given(odd=JSON)
def test_any_metadata_is_understood_or_a_config_error(name: str, odd: Any) -> None:
    """Metadata that is nonsense never breaks, and never costs a query."""
    metadata = {"v1/models/m/metadata": odd, "docs.json": odd}
    with contextlib.suppress(ConfigError):
        assert agreed(name, metadata, model="m").image_shape == IMAGE_SHAPE

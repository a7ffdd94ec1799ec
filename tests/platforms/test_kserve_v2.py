"""The KServe V2 wire format: what is sent, what is understood, and that nothing else becomes a label."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.platforms.scripted import CLASSES, METADATA, images
from ttca.answers import Answers, Status
from ttca.errors import AnswerError, ConfigError
from ttca.platforms.protocols import Response, Wire, create_protocol
from ttca.platforms.protocols.reading import UnreadableError
from ttca.platforms.protocols.tensors import (
    Tensor,
    join_body,
    read_tensors,
    split_body,
)

SCORES = {"name": "p", "datatype": "FP32", "shape": [-1, 3]}
LABEL = {"name": "label", "datatype": "INT64", "shape": [-1]}
NAMES = {"name": "label", "datatype": "BYTES", "shape": [-1, 1]}
LENGTH = "inference-header-content-length"


def connect(metadata: Any = None, *, server: Any = None, **options: Any) -> Wire:
    """Return the wire agreed with a server of the given metadata."""
    pages = {"v2/models/m": METADATA if metadata is None else metadata, "v2": server or {}}

    def fetch(path: str) -> Response:
        page = pages[path]
        return Response(200, {}, page if isinstance(page, bytes) else json.dumps(page).encode(), "p")

    return create_protocol("kserve-v2", **{"model": "m", "version": None, "classes": CLASSES, **options}).describe(
        fetch
    )


def wire(*outputs: dict[str, Any], **options: Any) -> Wire:
    return connect({**METADATA, "outputs": list(outputs)}, **options)


def answer(outputs: list[dict[str, Any]], headers: dict[str, str] | None = None, **more: Any) -> Response:
    return Response(200, headers or {}, json.dumps({"outputs": outputs, **more}).encode(), "p", "r1")


def scores(rows: Any, **more: Any) -> dict[str, Any]:
    return {"name": "p", "datatype": "FP32", "shape": [len(rows), 3], "data": rows, **more}


def labels(data: list[Any], datatype: str = "INT64") -> dict[str, Any]:
    return {"name": "label", "datatype": datatype, "shape": [len(data)], "data": data}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("datatype", "shape", "pixels"),
    [
        ("UINT8", [-1, 4, 5, 3], "unit"),
        ("UINT8", [-1, 3, 4, 5], "unit"),
        ("FP32", [-1, 4, 5, 3], "unit"),
        ("FP32", [-1, 3, -1, 5], "unit"),
        ("FP32", [-1, 4, 5, 3], "levels"),
    ],
)
def test_images_arrive_as_the_model_takes_them(binary: bool, datatype: str, shape: list[int], pixels: str) -> None:
    """Both forms carry the exact pixels, in the server's datatype and layout."""
    metadata = {**METADATA, "inputs": [{"name": "x", "datatype": datatype, "shape": shape}]}
    agreed = connect(metadata, binary=binary, fp32_pixels=pixels, image_shape=(4, 5, 3))
    batch = images(2)
    batch.reshape(-1)[:120] = np.arange(120) * 2
    request = agreed.request(batch, request_id="r1")
    assert (request.method, request.path) == ("POST", "v2/models/m/infer")
    lengths = {k.lower(): v for k, v in request.headers.items()}
    message, rest = split_body(request.body, lengths.get(LENGTH))
    (sent,) = read_tensors(message["inputs"], rest)
    assert message["id"] == "r1"
    assert bool(len(rest)) is binary
    expected: NDArray[Any] = batch if shape[-1] == 3 or shape[-1] == -1 else batch.transpose(0, 3, 1, 2)
    if datatype == "FP32":
        expected = expected.astype(np.float32) / np.float32(1 if pixels == "levels" else 255)
    assert (sent.name, sent.datatype) == ("x", datatype)
    np.testing.assert_array_equal(sent.data, expected)


@pytest.mark.parametrize(
    ("server", "option", "binary"),
    [
        ({"extensions": ["binary_tensor_data"]}, None, True),
        ({"extensions": ["binary_data"]}, None, True),
        ({"extensions": ["classification"]}, None, False),
        (b"<html>", None, False),
        ({"extensions": ["binary_tensor_data"]}, False, False),
        (b"<html>", True, True),
        ({}, True, True),
    ],
)
def test_the_binary_form_is_used_where_the_server_has_it(server: Any, option: bool | None, binary: bool) -> None:
    """The server's extensions decide, unless the option does."""
    headers = connect(server=server, binary=option).request(images(1), request_id="r").headers
    assert ("Inference-Header-Content-Length" in headers) is binary


def test_a_server_that_says_it_has_no_binary_form_is_not_asked_in_it() -> None:
    """To insist on what the server's own metadata excludes would cost queries and bring none of them an answer."""
    with pytest.raises(ConfigError, match="binary"):
        connect(server={"extensions": ["classification"]}, binary=True)


@pytest.mark.parametrize("binary", [False, True])
def test_scores_and_labels_are_read_from_both_forms(binary: bool) -> None:
    """The label output is the platform's word where its scores agree; the scores are kept beside it."""
    agreed = wire(SCORES, LABEL)
    rows = np.array([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]], np.float32)
    tensors = [Tensor("p", "FP32", rows, {"resolution": 0.01}), Tensor("label", "INT64", np.array([0, -1]))]
    body, headers = join_body({"id": "r1"}, "outputs", tensors, binary=binary)
    found = agreed.parse(Response(200, {k.lower(): v for k, v in headers.items()}, body, "p", "r1"), 2)
    assert found.status.tolist() == [Status.ANSWERED, Status.REFUSED]
    assert found.labels.tolist() == [0, -1]
    np.testing.assert_array_equal(found.scores[0], rows[0])
    assert np.isnan(found.scores[1]).all()
    assert found.resolution.tolist() == pytest.approx([0.01, 0.01])


def test_a_label_that_its_scores_contradict_is_no_label() -> None:
    """Which of the two is right nobody can know: the row fails alone, and a request of such rows says both."""
    agreed = wire(SCORES, LABEL)
    rows = [[0.5, 0.4, 0.1], [0.4, 0.4, 0.2], [0.2, None, 0.7]]
    found = agreed.parse(answer([scores(rows), labels([1, 1, 2])]), 3)
    assert found.status.tolist() == [Status.FAILED, Status.ANSWERED, Status.FAILED]
    with pytest.raises(AnswerError, match=r"the label 'dog' to have the highest score, got 0\.4 for it and 0\.5"):
        agreed.parse(answer([scores(rows[:1]), labels([1])]), 1)
    rounded = answer([scores(rows[:1], parameters={"resolution": 0.1}), labels([1])])
    assert agreed.parse(rounded, 1).labels.tolist() == [1]
    logits = wire(SCORES, LABEL, scores_are="logits")
    assert logits.parse(answer([scores([[1.0, 9.0, 2.0]]), labels([1])]), 1).labels.tolist() == [1]
    with pytest.raises(AnswerError, match="highest score"):
        logits.parse(answer([scores([[1.0, 9.0, 2.0]]), labels([2])]), 1)


def test_an_output_or_a_name_that_comes_twice_is_read_as_neither() -> None:
    """Two outputs of one name, or one name twice in an object, say two things."""
    with pytest.raises(AnswerError, match="once"):
        wire(LABEL).parse(answer([labels([1]), labels([2])]), 1)
    twice = b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [1], "data": [2]}]}'
    with pytest.raises(AnswerError, match="'data' twice"):
        wire(LABEL).parse(Response(200, {}, twice, "p"), 1)


def test_zeros_beside_what_was_not_said_name_no_class() -> None:
    """The highest of zeros would be the first class that was said."""
    agreed = connect({**METADATA, "parameters": {"missing_score": -1}})
    with pytest.raises(AnswerError):
        agreed.parse(answer([scores([[-1, 0.0, 0.0]])]), 1)


def test_logits_and_percent_become_probabilities() -> None:
    """Logits go through a softmax without overflow, percent are divided, and their resolution is stated."""
    found = wire(SCORES, scores_are="logits").parse(answer([scores([[1000.0, 1001.0, -1000.0]])]), 1)
    np.testing.assert_allclose(found.scores, [[0.26894, 0.73106, 0.0]], atol=1e-5)
    found = wire(SCORES, scores_are="percent", resolution=0.01).parse(answer([scores([[20, 70, 10]])]), 1)
    np.testing.assert_allclose(found.scores, [[0.2, 0.7, 0.1]])
    assert found.resolution[0] == pytest.approx(0.01)


def test_class_names_are_labels_and_refusals_are_answers() -> None:
    """BYTES labels are looked up by name; a name in refused_labels refuses; an unknown one fails its row alone."""
    agreed = wire(NAMES, refused_labels=["no face"])
    found = agreed.parse(answer([labels(["owl", "no face", "yeti", "cat"], "BYTES")]), 4)
    assert found.labels.tolist() == [2, -1, -1, 0]
    assert found.status.tolist() == [Status.ANSWERED, Status.REFUSED, Status.FAILED, Status.ANSWERED]
    raw = b"".join(struct.pack("<I", len(t)) + t for t in (b"dog", b"cat"))
    entry = {"name": "label", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"outputs": [entry]}).encode()
    assert agreed.parse(Response(200, {LENGTH: str(len(head))}, head + raw, "p"), 2).labels.tolist() == [1, 0]


def test_a_refused_parameter_refuses_rows() -> None:
    """A platform without labels can refuse all images, or some, by parameter."""
    rows = [[0.2, 0.7, 0.1], [0.0, 0.0, 0.0]]
    found = wire(SCORES).parse(answer([scores(rows, parameters={"refused": [False, True]})]), 2)
    assert found.status.tolist() == [Status.ANSWERED, Status.REFUSED]
    found = wire(SCORES).parse(answer([scores(rows)], parameters={"refused": True}), 2)
    assert found.status.tolist() == [Status.REFUSED] * 2


def test_scores_that_were_not_said_are_missing_and_not_small() -> None:
    """The metadata's missing_score marks what a top-k platform left out; the row is answered and incomplete."""
    agreed = connect({**METADATA, "parameters": {"missing_score": -1}})
    found = agreed.parse(answer([scores([[-1, 0.6, 0.3]])]), 1)
    assert found.labels.tolist() == [1]
    assert np.isnan(found.scores[0]).tolist() == [True, False, False]
    with pytest.raises(AnswerError):
        agreed.parse(answer([scores([[-1, -1, -1]])]), 1)
    with pytest.raises(AnswerError):
        wire(SCORES).parse(answer([scores([[-1, 0.6, 0.3]])]), 1)


@pytest.mark.parametrize(
    "outputs",
    [
        [labels([3])],
        [labels([-2])],
        [labels([1.5], "FP32")],
        [labels([True], "INT64")],
        [labels(["1"], "INT64")],
        [labels([10**30])],
        [labels([1, 2])],
        [],
        "none",
        [None],
        [{**labels([1]), "shape": [-1]}],
        [{**labels([1]), "shape": [2**39, 2**39]}],
        [{**labels([1]), "parameters": {"binary_data_size": 8}}],
        [{**labels([[[[[[[[[[1]]]]]]]]]])}],
        [{**labels([1]), "name": "other"}],
        [scores([[0.1, 0.2, 0.7]], parameters={"classes": ["dog", "cat", "owl"]}), labels([1])],
    ],
)
def test_what_is_no_label_is_an_error(outputs: Any) -> None:
    """Out of range, of another type, of another shape, or from renamed classes: never a label."""
    agreed = wire(SCORES, LABEL) if isinstance(outputs, list) and len(outputs) == 2 else wire(LABEL)
    with pytest.raises(AnswerError):
        agreed.parse(answer(outputs), 1)


def test_undeclared_tensors_are_found_in_the_answer_or_named_by_options() -> None:
    """A server whose metadata declares nothing works once the input is described; outputs are found by shape."""
    with pytest.raises(ConfigError, match="input_name, datatype, layout and image_shape"):
        connect({"name": "m"})
    described = {"input_name": "x", "datatype": "UINT8", "layout": "NHWC", "image_shape": (4, 5, 3)}
    agreed = connect({"name": "m"}, **described)
    assert agreed.parse(answer([scores([[0.1, 0.2, 0.7]]), labels([2])]), 1).labels.tolist() == [2]
    assert agreed.parse(answer([scores([[0.1, 0.2, 0.7]])]), 1).labels.tolist() == [2]
    with pytest.raises(AnswerError, match="scores_output"):
        agreed.parse(answer([scores([[0.1, 0.2, 0.7]]), {**scores([[0.1, 0.2, 0.7]]), "name": "q"}]), 1)


def test_options_choose_among_many_tensors() -> None:
    """Named outputs and inputs are used where shapes alone leave a choice."""
    second = {**SCORES, "name": "q"}
    with pytest.raises(ConfigError, match="Set scores_output"):
        wire(SCORES, second)
    agreed = wire(SCORES, second, scores_output="q")
    assert agreed.parse(answer([{**scores([[0.1, 0.2, 0.7]]), "name": "q"}]), 1).labels.tolist() == [2]
    inputs = [*METADATA["inputs"], {"name": "mask", "datatype": "UINT8", "shape": [-1, 4, 5, 3]}]
    with pytest.raises(ConfigError, match="input_name"):
        connect({**METADATA, "inputs": inputs})
    connect({**METADATA, "inputs": inputs}, input_name="mask")


def test_limits_come_from_the_metadata() -> None:
    """A batch axis fixed at 1, or a stated max_batch, bounds the request; label-only servers are known as such."""
    one = {"name": "x", "datatype": "UINT8", "shape": [1, 4, 5, 3]}
    assert connect({**METADATA, "inputs": [one]}).max_batch == 1
    assert connect({**METADATA, "parameters": {"max_batch": 8}}).max_batch == 8
    assert connect().max_batch is None
    assert not wire(LABEL).gives_scores
    assert wire(SCORES).gives_scores


@pytest.mark.parametrize(
    "options",
    [
        {"model": None},
        {"layout": "CHW"},
        {"datatype": "INT8"},
        {"fp32_pixels": "0-1"},
        {"resolution": 2.0},
        {"missing_score": -1.0, "scores_are": "logits"},
        {"refused_labels": ["cat"]},
        {"image_shape": (4, 5, 1)},
        {"image_shape": (9, 9, 3)},
        {"datatype": "FP32"},
        {"layout": "NCHW"},
        {"scores_output": "nowhere"},
        {"input_name": "nowhere"},
    ],
)
def test_an_option_that_cannot_be_is_a_config_error(options: dict[str, Any]) -> None:
    """Options are checked in themselves and against the metadata."""
    with pytest.raises(ConfigError):
        connect(**options)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab-1.", max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "data"]), inner, max_size=3),
    max_leaves=8,
)
VALUE = st.integers(-3, 4) | st.floats(width=32) | st.sampled_from([0.2, 0.5, 1.0, None, "cat", True, [1]])
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["p", "label", "q"]),
        "datatype": st.sampled_from(["FP32", "FP64", "INT64", "UINT8", "BOOL", "BYTES", "X"]) | JSON,
        "shape": st.sampled_from([[2, 3], [2], [2, 1], [0], [3, 2]]) | JSON,
    },
    optional={
        "data": st.lists(VALUE, min_size=2, max_size=6) | JSON,
        "parameters": st.fixed_dictionaries({}, optional=dict.fromkeys(("refused", "resolution", "classes"), JSON))
        | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 30) | JSON})
        | JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {"outputs": st.lists(TENSOR, max_size=3) | JSON},
    optional={"id": JSON, "model_version": JSON, "error": JSON, "parameters": JSON},
)


def check_parse(agreed: Wire, response: Response) -> None:
    try:
        found = agreed.parse(response, 2)
    except AnswerError:
        return
    assert isinstance(found, Answers)
    assert len(found) == 2
    assert found.classes == 3
    assert ((found.labels >= 0) == found.answered).all()
    assert np.isnan(found.scores[~found.answered]).all()


UNDECLARED = connect({}, input_name="x", datatype="UINT8", layout="NHWC", image_shape=(4, 5, 3))
WIRES = st.sampled_from(
    [
        wire(SCORES),
        wire(SCORES, LABEL),
        wire(NAMES, refused_labels=["a"]),
        wire(SCORES, scores_are="logits"),
        wire(SCORES, scores_are="percent", missing_score=-1.0),
        UNDECLARED,
    ]
)


@given(WIRES, MESSAGE | JSON, st.binary(max_size=40), st.booleans())
def test_any_json_is_valid_answers_or_the_typed_error(agreed: Wire, message: Any, tail: bytes, binary: bool) -> None:
    """No message, however odd, makes the parser raise anything else or label a row it should not."""
    head = json.dumps(message).encode()
    headers = {LENGTH: str(len(head))} if binary else {}
    check_parse(agreed, Response(200, headers, head + (tail if binary else b""), "p", "r1"))


@given(WIRES, st.binary(max_size=200), st.none() | st.binary(max_size=6).map(lambda b: b.decode("latin-1")))
def test_any_bytes_are_valid_answers_or_the_typed_error(agreed: Wire, body: bytes, length: str | None) -> None:
    """Neither do bytes that are no message at all, nor a nonsense header length."""
    check_parse(agreed, Response(200, {} if length is None else {LENGTH: length}, body, "p", "r1"))


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"outputs": ' + b"9" * 10_000 + b"}", b"\xff\xfe{}"])
def test_hostile_json_is_the_typed_error(body: bytes) -> None:
    """Deep nesting, huge numbers and another encoding do not get past the parser as Python errors."""
    check_parse(wire(SCORES), Response(200, {}, body, "p"))


@given(st.dictionaries(st.sampled_from([*METADATA, "parameters"]), JSON) | JSON)
def test_any_metadata_is_understood_or_a_config_error(odd: Any) -> None:
    """Metadata is a stranger's too: it is agreed to, or refused with the typed error."""
    metadata = {**METADATA, **odd} if isinstance(odd, dict) else odd
    try:
        agreed = connect(metadata, server=odd if isinstance(odd, dict) else {"extensions": odd})
    except ConfigError:
        return
    assert agreed.request(images(1), request_id="r").body


@given(
    st.sampled_from(["UINT8", "INT64", "FP32", "BYTES", "BOOL"]), st.lists(st.integers(0, 1), max_size=6), st.booleans()
)
def test_tensors_survive_the_wire(datatype: str, values: list[int], binary: bool) -> None:
    """What join_body writes, read_tensors reads back."""
    kinds: dict[str, Any] = {"UINT8": np.uint8, "INT64": np.int64, "FP32": np.float32, "BOOL": np.bool_}
    data = np.array([str(v) for v in values], object) if datatype == "BYTES" else np.array(values, kinds[datatype])
    body, headers = join_body({}, "inputs", [Tensor("x", datatype, data, {"k": 1})], binary=binary)
    message, rest = split_body(body, headers.get("Inference-Header-Content-Length"))
    (back,) = read_tensors(message["inputs"], rest)
    assert (back.name, back.datatype, back.parameters) == ("x", datatype, {"k": 1})
    assert back.data.tolist() == data.tolist()


def test_left_over_and_missing_bytes_are_errors() -> None:
    """Sizes that do not add up are never guessed at."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    for raw in (b"", b"\0" * 3, b"\0" * 5):
        with pytest.raises(UnreadableError):
            read_tensors([entry], memoryview(raw))

"""The KServe V2 / Open Inference Protocol, asked from our side: metadata, requests and answers.

Source: the Open Inference Protocol and its binary tensor data extension, https://kserve.github.io.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.errors import ConfigError, TransportError
from ttca.images import Images, ImageShape
from ttca.platforms.protocols import Fetch, Protocol, Request, Response, Wire, model_path
from ttca.platforms.protocols.encoding import AS_DECIMAL, AS_FLOAT32, ImageLayout, Pixels, check_image_shape
from ttca.platforms.protocols.reading import Reading, UnreadableError, check_choice, excerpt, read_json
from ttca.platforms.protocols.tensors import (
    HEADER_LENGTH,
    Tensor,
    join_body,
    read_tensors,
    split_body,
)

__all__ = ["KServeV2", "KServeV2Wire"]

InputType = Literal["UINT8", "FP32"]

_BINARY_EXTENSIONS = {"binary_tensor_data", "binary_data"}
_LABEL_TYPES = {"BYTES", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}


@dataclass(frozen=True, kw_only=True)
class KServeV2(Reading, Protocol):
    """Options of a KServe V2 platform. What is left at None is read from the server's metadata.

    Parameters
    ----------
    model : str
        The model's name on the server.
    version : str, optional
        The model's version; the server's own choice when None.
    classes : sequence of str
        Class names in the order of the scores. Metadata that names them otherwise is a ConfigError.
    binary : bool, optional
        Whether to use the binary tensor extension. None: when the server says that it has it.
    scores_output, label_output : str, optional
        Output tensors. None: the one floating output of shape (N, C) holds scores; the one integer or BYTES
        output of shape (N,) or (N, 1) holds labels, by index or by class name.
    scores_are, resolution, missing_score, refused_labels, refused_errors
        See :class:`~ttca.platforms.protocols.reading.Reading`. A ``resolution`` parameter on the scores tensor of an
        answer, and a ``missing_score`` parameter of the metadata where the option is None, are also read. Label −1
        and a true ``refused`` parameter always refuse.
    input_name, datatype, layout, image_shape : optional
        The input tensor, for servers whose metadata does not (fully) describe it. ``image_shape`` is (H, W,
        3).
    fp32_pixels : {'unit', 'levels'}
        Whether an FP32 input is in [0, 1] or in 0..255. No metadata says it. UINT8 inputs are always 0..255.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    model: str | None
    version: str | None = None
    binary: bool | None = None
    scores_output: str | None = None
    label_output: str | None = None
    input_name: str | None = None
    datatype: InputType | None = None
    layout: ImageLayout | None = None
    image_shape: ImageShape | None = None
    fp32_pixels: Pixels = "unit"

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"Expected model to be the model's name on the server, got {self.model!r}. Set it.")
        super().__post_init__()
        check_choice("fp32_pixels", self.fp32_pixels, Pixels)
        check_choice("layout", self.layout, ImageLayout, optional=True)
        check_choice("datatype", self.datatype, InputType, optional=True)
        if self.image_shape is not None:
            check_image_shape(self.image_shape)

    def describe(self, fetch: Fetch) -> KServeV2Wire:
        """Read ``v2`` and the model's metadata, and check them. Costs no query."""
        if self.model is None:
            raise ConfigError("Expected the name of the platform's model, got none. Set model.")
        path = model_path("v2/models", self.model, self.version, between="/versions/")
        response = fetch(path)
        try:
            metadata, _ = split_body(response.body, None)
        except UnreadableError as error:
            raise ConfigError(
                f"The metadata at {path} cannot be read: {error} Check url, protocol and model."
            ) from None
        stated = None if self.binary is False else self._server_has_binary(fetch)
        if self.binary and stated is False:
            raise ConfigError(
                "Expected a server with the binary tensor extension, got one whose metadata lists others or none. "
                "Leave binary out, or set it to false."
            )
        binary = bool(stated) if self.binary is None else self.binary
        parameters = metadata.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        self._check_classes(parameters.get("classes"))
        input_name, datatype, layout, image_shape, one_only = self._input(metadata.get("inputs"))
        outputs = _declared(metadata.get("outputs"))
        scores, label = self.choose_outputs(outputs) if outputs else (self.scores_output, self.label_output)
        versions = metadata.get("versions")
        versions = sorted(str(v) for v in versions) if isinstance(versions, list) else []
        missing = self.missing_score
        if missing is None and self.scores_are != "logits" and _is_number(parameters.get("missing_score")):
            missing = float(parameters["missing_score"])
        limits = [1] if one_only else []
        if type(parameters.get("max_batch")) is int and parameters["max_batch"] >= 1:
            limits.append(parameters["max_batch"])
        options = replace(self, missing_score=missing)
        identity = {
            "model": self.model,
            "version": self.version or "",
            "versions": ",".join(versions),
            "platform": str(metadata.get("platform", "")),
            "input": f"{input_name} {datatype} {layout}" + (f" {self.fp32_pixels}" if datatype == "FP32" else ""),
            # Part of the request, which names them.
            "outputs": f"scores={scores or ''} label={label or ''}",
        }
        return KServeV2Wire(
            options=options,
            image_shape=image_shape,
            identity=identity,
            reading_identity=options.reading_identity,
            max_batch=min(limits) if limits else None,
            gives_scores=scores is not None or not outputs,
            path=f"{path}/infer",
            binary=binary,
            input_name=input_name,
            datatype=datatype,
            layout=layout,
            scores_output=scores,
            label_output=label,
            declared=bool(outputs),
            versions=frozenset(versions),
        )

    def _server_has_binary(self, fetch: Fetch) -> bool | None:
        """Return whether the server says that it has the binary extension; None where it does not say."""
        try:
            server, _ = split_body(fetch("v2").body, None)
        except UnreadableError:
            return None
        except TransportError as error:
            # Server metadata is a courtesy some gateways do not pass on: without it, JSON always works.
            if error.retryable:
                raise
            return None
        extensions = server.get("extensions")
        if not isinstance(extensions, list):
            return None
        return any(e in _BINARY_EXTENSIONS for e in extensions if isinstance(e, str))

    def _check_classes(self, named: object) -> None:
        if isinstance(named, str):
            try:
                named = read_json(named.encode("utf-8", "replace"))
            except UnreadableError:
                return
        if isinstance(named, list) and named and not self.are_classes(named):
            raise ConfigError(
                f"Expected the platform's classes to be {excerpt(list(self.classes))}, got "
                f"{excerpt(named)} from its "
                "metadata. Put classes in the platform's order."
            )

    def _input(self, declared: object) -> tuple[str, InputType, ImageLayout, ImageShape, bool]:
        """Return name, datatype, layout and image shape of the input, and whether it takes one image only."""
        inputs = _declared(declared)
        if self.input_name is not None:
            inputs = [i for i in inputs if i["name"] == self.input_name] or inputs
        if not inputs:
            return self._undeclared_input()
        if len(inputs) > 1 or (self.input_name is not None and inputs[0]["name"] != self.input_name):
            names = ", ".join(excerpt(i["name"], 40) for i in inputs)
            raise ConfigError(
                "Expected the model to have one image "
                f"input{f' {self.input_name!r}' if self.input_name else ''}, "
                f"got {names}. Set input_name to the one that takes images."
            )
        name, datatype, shape = inputs[0]["name"], inputs[0]["datatype"], inputs[0]["shape"]
        if datatype not in get_args(InputType) or (self.datatype is not None and datatype != self.datatype):
            raise ConfigError(
                f"Expected the input {excerpt(name)!r} to take {self.datatype or 'UINT8 or FP32'}, got "
                f"{excerpt(datatype)}. Ask about a model that takes pixels, or correct datatype."
            )
        if len(shape) != 4 or shape[0] not in (-1, 1):
            raise ConfigError(
                f"Expected the input {excerpt(name)!r} of shape (batch, height, width, 3) or (batch, 3, "
                "height, width) "
                f"with batch −1 or 1, got {shape}. Ask about a model that takes batches of RGB images."
            )
        layout = self.layout or _layout(shape)
        if layout is None:
            raise ConfigError(
                f"Expected the shape of {excerpt(name)!r} to show where its 3 channels are, got {shape}. "
                "Set layout to 'NHWC' or 'NCHW'."
            )
        height, width, channels = shape[1:] if layout == "NHWC" else (shape[2], shape[3], shape[1])
        given = self.image_shape or (-1, -1, 3)
        for axis, (said, wanted) in enumerate(zip((height, width, channels), given, strict=True)):
            if said != -1 and wanted != -1 and said != wanted:
                raise ConfigError(
                    f"Expected images of shape {self.image_shape or '(H, W, 3)'}, got a model that takes "
                    f"{shape} "
                    f"({layout}), which differs in {('height', 'width', 'channels')[axis]}. Correct "
                    "image_shape or "
                    "layout, or ask about an RGB model."
                )
        size = (height if height != -1 else given[0], width if width != -1 else given[1], 3)
        if min(size) < 1:
            raise ConfigError(
                f"Expected the model to say its image size, got {shape}. Set image_shape to the (height, "
                "width, 3) "
                "that all members send."
            )
        return name, datatype, layout, size, shape[0] == 1

    def _undeclared_input(self) -> tuple[str, InputType, ImageLayout, ImageShape, bool]:
        if self.input_name is None or self.datatype is None or self.layout is None or self.image_shape is None:
            raise ConfigError(
                "Expected the model's metadata to describe its input, got none. "
                "Set input_name, datatype, layout and image_shape."
            )
        height, width, _ = self.image_shape
        return self.input_name, self.datatype, self.layout, (height, width, 3), False

    def choose_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
        """Return the names of the scores and label outputs among ``name, datatype, shape`` records.

        Raises
        ------
        ConfigError
            If there is none, more than one, or one with another number of classes.
        """
        count = self.columns
        known = {o["name"]: o for o in outputs}
        for wanted in (self.scores_output, self.label_output):
            if wanted is not None and wanted not in known:
                raise ConfigError(
                    f"Expected an output {wanted!r}, got {', '.join(excerpt(n, 40) for n in known)}. "
                    "Correct scores_output or label_output."
                )
        by_shape = [
            o["name"]
            for o in outputs
            if str(o["datatype"]).startswith("FP")
            and (len(o["shape"]) == 2 or (len(o["shape"]) == 1 and count == 1))
            and (o["shape"][-1] != 1 or count == 1)
        ]
        by_label = [
            o["name"]
            for o in outputs
            if o["datatype"] in _LABEL_TYPES and (len(o["shape"]) == 1 or (len(o["shape"]) == 2 and o["shape"][1] == 1))
        ]
        scores = self.scores_output or _only(by_shape, "scores_output", self.label_output)
        label = self.label_output or _only(by_label, "label_output", self.scores_output)
        if scores is None and label is None:
            raise ConfigError(
                f"Expected an output of scores (N, {count}) or of labels (N,), got "
                f"{excerpt([(o['name'], o['datatype'], o['shape']) for o in outputs], 300)}. "
                f"Set scores_output or label_output{self.one_column([o['shape'][1:] for o in outputs])}."
            )
        if scores is not None:
            shape = known[scores]["shape"]
            if not (shape[1:] in ([-1], [count]) or (len(shape) == 1 and count == 1)):
                raise ConfigError(
                    f"Expected the output {excerpt(scores)!r} to score {count} classes, got shape {shape}. "
                    f"Give the platform's own classes, all of them, in its order{self.one_column([shape[1:]])}."
                )
        return scores, label


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _declared(entries: object) -> list[dict[str, Any]]:
    """Return the well-formed tensor descriptions of a metadata list."""
    if not isinstance(entries, list):
        return []
    return [
        e
        for e in entries
        if isinstance(e, dict)
        and isinstance(e.get("name"), str)
        and isinstance(e.get("datatype"), str)
        and isinstance(e.get("shape"), list)
        and all(type(d) is int for d in e["shape"])
    ]


def _layout(shape: Sequence[int]) -> ImageLayout | None:
    last, first = shape[3] == 3, shape[1] == 3
    if last == first:
        return None
    return "NHWC" if last else "NCHW"


def _only(names: list[str], option: str, taken: str | None) -> str | None:
    names = [n for n in names if n != taken]
    if len(names) > 1:
        raise ConfigError(
            f"Expected one candidate for {option}, got {excerpt(', '.join(names))}. Set {option} to the right one."
        )
    return names[0] if names else None


@dataclass(frozen=True)
class KServeV2Wire(Wire):
    """The protocol as agreed with one server; built by :meth:`KServeV2.describe`."""

    reads_headers = (HEADER_LENGTH.lower(),)

    options: KServeV2
    image_shape: ImageShape
    path: str
    input_name: str
    datatype: InputType
    layout: ImageLayout
    binary: bool = False
    scores_output: str | None = None
    label_output: str | None = None
    declared: bool = True
    versions: frozenset[str] = frozenset()
    identity: dict[str, str] = field(default_factory=dict)
    reading_identity: dict[str, str] | None = None
    max_batch: int | None = None
    gives_scores: bool = True

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return a POST to ``…/infer`` in the JSON or the binary form."""
        pixels: NDArray[Any] = images if self.layout == "NHWC" else images.transpose(0, 3, 1, 2)
        if self.datatype == "FP32":
            pixels = (AS_FLOAT32 if self.binary else AS_DECIMAL)[self.options.fp32_pixels][pixels]
        message: dict[str, Any] = {"id": request_id}
        if self.binary:
            message["parameters"] = {"binary_data_output": True}
        wanted = [n for n in (self.scores_output, self.label_output) if n is not None]
        if wanted:
            per_output = {"parameters": {"binary_data": True}} if self.binary else {}
            message["outputs"] = [{"name": name, **per_output} for name in wanted]
        body, headers = join_body(
            message, "inputs", [Tensor(self.input_name, self.datatype, pixels)], binary=self.binary
        )
        return Request("POST", self.path, headers, body)

    def parse(self, response: Response, n: int) -> Answers:
        """Read JSON or binary outputs. One bad row fails alone; with no good row, it is unreadable."""
        try:
            message, binary = split_body(response.body, response.headers.get(HEADER_LENGTH.lower()))
            if n == 1 and message.get("error") and self.options.refuses(message["error"]):
                return self.options.rows([[]])
            self._check_message(message, response.request_id)
            tensors = read_tensors(message.get("outputs"), binary)
            outputs = {t.name: t for t in tensors}
            if len(outputs) != len(tensors):
                raise UnreadableError(f"Expected each output once, got {excerpt([t.name for t in tensors])}.")
            return self._answers(message, outputs, n)
        except (UnreadableError, ConfigError) as error:
            raise response.unreadable(str(error)) from None

    def _check_message(self, message: Mapping[str, Any], request_id: str | None) -> None:
        if message.get("error"):
            raise UnreadableError(f"Expected an answer, got the platform's error: {excerpt(message['error'])!r}.")
        # A shared cache or a broken gateway can mix up answers, and nothing else in them would show it.
        answered_to = message.get("id")
        if answered_to not in (None, "") and request_id is not None and answered_to != request_id:
            raise UnreadableError(f"Expected the answer to {request_id}, got the one to {excerpt(answered_to)!r}.")
        version = message.get("model_version")
        expected = frozenset({self.options.version}) if self.options.version else self.versions
        if expected and version not in (None, "") and str(version) not in expected:
            raise UnreadableError(
                f"Expected an answer of model version {', '.join(sorted(map(str, expected)))}, got "
                f"{excerpt(version)!r}: "
                "the platform has changed. Connect to it again; its earlier answers are another model's."
            )

    def _answers(self, message: Mapping[str, Any], outputs: Mapping[str, Tensor], n: int) -> Answers:
        scores_name, label_name = self.scores_output, self.label_output
        if not self.declared:
            seen = [{"name": t.name, "datatype": t.datatype, "shape": list(t.data.shape)} for t in outputs.values()]
            scores_name, label_name = self.options.choose_outputs(seen)
        for name in (scores_name, label_name):
            if name is not None and name not in outputs:
                raise UnreadableError(f"Expected an output {name!r}, got {', '.join(excerpt(o, 40) for o in outputs)}.")
        tensor = None if scores_name is None else outputs[scores_name]
        return self.options.answers(
            None if tensor is None else self._score_rows(tensor, n),
            labels=None if label_name is None else _label_rows(outputs[label_name], n),
            refused=_refused_rows([message, *(vars(t) for t in outputs.values())], n),
            resolution=None if tensor is None else _stated(tensor, self.options.resolution),
        )

    def _score_rows(self, tensor: Tensor, n: int) -> NDArray[np.float64]:
        count = self.options.columns
        shapes = [(n, count), *([(n,)] if count == 1 else [])]
        if tensor.data.dtype.kind not in "fiu" or tensor.data.shape not in shapes:
            raise UnreadableError(
                f"Expected scores of shape ({n}, {count}), got {tensor.datatype} of shape {tensor.data.shape}."
            )
        named = tensor.parameters.get("classes")
        if isinstance(named, list) and not self.options.are_classes(named):
            raise UnreadableError(
                f"Expected the classes in their order, got {excerpt(named)!r}: the platform has changed."
            )
        return tensor.data.astype(np.float64).reshape(n, count)


def _label_rows(tensor: Tensor, n: int) -> list[Any]:
    """Return a label for each image, as the platform wrote it."""
    if tensor.data.shape not in ((n,), (n, 1)):
        raise UnreadableError(f"Expected labels of shape ({n},) or ({n}, 1), got {tensor.data.shape}.")
    if tensor.datatype == "BOOL":
        raise UnreadableError("Expected labels as integers or class names, got BOOL.")
    labels: list[Any] = tensor.data.reshape(n).tolist()
    return labels


def _refused_rows(records: Sequence[Mapping[str, Any]], n: int) -> NDArray[np.bool_]:
    """Return which rows a ``refused`` parameter names: true for all, or one boolean per row."""
    refused = np.zeros(n, np.bool_)
    for record in records:
        parameters = record.get("parameters")
        said = parameters.get("refused") if isinstance(parameters, Mapping) else None
        if said is None:
            continue
        if isinstance(said, bool):
            refused |= said
        elif isinstance(said, list) and len(said) == n and all(type(s) is bool for s in said):
            refused |= np.array(said, np.bool_)
        else:
            raise UnreadableError(f"Expected refused as true, false or {n} of them, got {excerpt(said)!r}.")
    return refused


def _stated(tensor: Tensor, otherwise: float) -> float:
    said = tensor.parameters.get("resolution")
    if not _is_number(said):
        return otherwise
    return float(said) if 0 <= float(said) < 1 else otherwise  # type: ignore[arg-type]

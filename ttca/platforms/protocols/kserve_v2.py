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
from ttca.platforms.protocols.encoding import (
    ImageLayout,
    Numbers,
    Pixels,
    as_png,
    check_image_shape,
    check_layout,
    repeated_to,
)
from ttca.platforms.protocols.reading import Reading, UnreadableError, check_choice, excerpt, read_json
from ttca.platforms.protocols.tensors import (
    HEADER_LENGTH,
    Tensor,
    join_body,
    read_tensors,
    split_body,
)

__all__ = ["KServeV2", "KServeV2Wire"]

InputType = Literal[
    "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"
]

#: What levels become in an INT8 input, which has no room for 255.
_INT8_RANGE = [-128, 127]
_BINARY_EXTENSIONS = {"binary_tensor_data", "binary_data"}
_FLOATS = {"FP16", "BF16", "FP32", "FP64"}
_LABEL_TYPES = {"BYTES", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}


@dataclass(frozen=True, kw_only=True)
class KServeV2(Reading, Numbers, Protocol):
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
        Output tensors. None: the one floating output of shape (N, C), or else the one UINT8 or INT8 output of that
        shape, holds scores; the one integer or BYTES output of shape (N,) or (N, 1) holds labels, by index or by class
        name. Axes of one value after these count for nothing. Indices written as floats are labels where
        ``label_output`` names them: by themselves they could be scores.
    scores_are, resolution, missing_score, refused_labels, refused_errors
        See :class:`~ttca.platforms.protocols.reading.Reading`. A ``resolution`` parameter on the scores tensor of an
        answer, and a ``missing_score`` parameter of the metadata where the option is None, are also read. Label −1
        and a true ``refused`` parameter always refuse.
    input_name, datatype, layout, image_shape : optional
        The input tensor, for servers whose metadata does not (fully) describe it. ``image_shape`` is (H, W,
        3). A BYTES input takes a PNG file: its bytes in the binary form, base64 in JSON.
    fp32_pixels : {'unit', 'levels'}
        Whether a floating input is in [0, 1] or in 0..255. No metadata says it. Integer inputs are always 0..255, but
        for INT8, which ``range = [-128, 127]`` must say.
    range, mean, std, color_order
        Of a floating input: see :class:`~ttca.platforms.protocols.encoding.Numbers`. ``color_order`` of integers too.

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
    image_shape: ImageShape | Sequence[int] | None = None
    fp32_pixels: Pixels = "unit"

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"Expected model to be the model's name on the server, got {self.model!r}. Set it.")
        super().__post_init__()
        check_choice("fp32_pixels", self.fp32_pixels, Pixels)
        check_layout(self.layout)
        check_choice("datatype", self.datatype, InputType, optional=True)
        self.check_numbers()
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
        taken = self._input(metadata.get("inputs"))
        self._check_numbers_of(taken)
        outputs = _declared(metadata.get("outputs"))
        scores, label = self.scores_output, self.label_output
        if outputs:
            scores, label = self.choose_outputs(outputs, batched=taken.batch != 0)
        versions = metadata.get("versions")
        versions = sorted(str(v) for v in versions) if isinstance(versions, list) else []
        missing = self.missing_score
        if missing is None and self.scores_are != "logits" and _is_number(parameters.get("missing_score")):
            missing = float(parameters["missing_score"])
        limits = [] if taken.batch is None else [max(1, taken.batch)]
        if type(parameters.get("max_batch")) is int and parameters["max_batch"] >= 1:
            limits.append(parameters["max_batch"])
        options = replace(self, missing_score=missing)
        identity = {
            "model": self.model,
            "version": self.version or "",
            "versions": ",".join(versions),
            "platform": str(metadata.get("platform", "")),
            "input": f"{taken.name} {taken.datatype} {taken.layout}"
            + (f" {self.fp32_pixels}" if taken.pixels_are_floats else "")
            + ("" if taken.batch in (None, 1) else f" batches of {taken.batch}"),
            # Part of the request, which names them.
            "outputs": f"scores={scores or ''} label={label or ''}",
            **self.numbers_identity,
        }
        return KServeV2Wire(
            options=options,
            image_shape=taken.image_shape,
            identity=identity,
            reading_identity=options.reading_identity,
            max_batch=min(limits) if limits else None,
            gives_scores=scores is not None or not outputs,
            path=f"{path}/infer",
            binary=binary,
            taken=taken,
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

    def _input(self, declared: object) -> _Input:
        """Return what the model's image input takes."""
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
                f"Expected the input {excerpt(name)!r} to take {self.datatype or ', '.join(get_args(InputType))}, got "
                f"{excerpt(datatype)}. Ask about a model that takes pixels or files, or correct datatype."
            )
        if datatype == "BYTES":
            return self._file_input(name, shape)
        if len(shape) not in (3, 4) or (len(shape) == 4 and (shape[0] == 0 or shape[0] < -1)):
            raise ConfigError(
                f"Expected the input {excerpt(name)!r} of shape (batch, height, width, 3) or (batch, 3, height, "
                f"width), or one without batch, got {shape}. The batch is −1 or the size it takes. Ask about a model "
                "that takes RGB images."
            )
        batch = 0 if len(shape) == 3 else None if shape[0] == -1 else shape[0]
        layout = None if self.layout is None else check_layout(self.layout)
        layout = layout or _layout(shape[-3:])
        if layout is None:
            raise ConfigError(
                f"Expected the shape of {excerpt(name)!r} to show where its 3 channels are, got {shape}. "
                "Set layout to 'NHWC' or 'NCHW'."
            )
        return _Input(name, datatype, layout, self._size(shape, layout), batch)

    def _size(self, shape: Sequence[int], layout: ImageLayout) -> ImageShape:
        """Return the image's size, of the metadata and the option together."""
        height, width, channels = shape[-3:] if layout == "NHWC" else (shape[-2], shape[-1], shape[-3])
        given = tuple(self.image_shape or (-1, -1, 3))
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
        return size

    def _file_input(self, name: str, shape: Sequence[int]) -> _Input:
        """Return an input that takes image files."""
        if len(shape) not in (1, 2) or shape[0] == 0 or shape[0] < -1 or shape[1:] not in ([], [1], [-1]):
            raise ConfigError(
                f"Expected the input {excerpt(name)!r} of files of shape (batch,) or (batch, 1), got {shape}. Ask "
                "about a model that takes one file for each image."
            )
        if self.layout is not None:
            raise ConfigError(f"Expected layout only where pixels are sent, got it with {excerpt(name)!r}. Remove it.")
        size = check_image_shape(self.image_shape)
        return _Input(name, "BYTES", "NHWC", size, None if shape[0] == -1 else shape[0], column=len(shape) == 2)

    def _undeclared_input(self) -> _Input:
        pixels = self.datatype != "BYTES"
        if self.input_name is None or self.datatype is None or self.image_shape is None or (pixels and not self.layout):
            raise ConfigError(
                "Expected the model's metadata to describe its input, got none. "
                "Set input_name, datatype, layout and image_shape."
            )
        if not pixels:
            return self._file_input(self.input_name, [-1])
        layout = check_layout(self.layout) or "NHWC"
        return _Input(self.input_name, self.datatype, layout, check_image_shape(self.image_shape), None)

    def _check_numbers_of(self, taken: _Input) -> None:
        """Raise where options of numbers do not fit the input's type."""
        if taken.datatype == "INT8":
            if list(self.range or ()) != _INT8_RANGE or self.mean is not None or self.std is not None:
                raise ConfigError(
                    f"Expected range = {_INT8_RANGE} for the INT8 input {excerpt(taken.name)!r}, and neither mean nor "
                    "std, got something else. Say so if level 0 is −128 to this model, or ask about one that takes "
                    "UINT8."
                )
            return
        pixels = self.fp32_pixels if taken.pixels_are_floats else None
        self.check_numbers_fit(pixels, f"a {taken.datatype} input", files=taken.datatype == "BYTES")

    def choose_outputs(
        self, outputs: Sequence[Mapping[str, Any]], *, batched: bool = True
    ) -> tuple[str | None, str | None]:
        """Return the names of the scores and label outputs among ``name, datatype, shape`` records.

        ``batched``: whether their first axis is that of the images.

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
        shapes = {o["name"]: _essential(o["shape"], batched) for o in outputs}
        by_shape: list[str] = []
        # Whole numbers may be the ranks of classes, so that floats come first and larger types need to be named.
        for types in (_FLOATS, {"UINT8", "INT8"}):
            by_shape = by_shape or [
                o["name"]
                for o in outputs
                if o["datatype"] in types and _may_score(shapes[o["name"]], count, floats=types is _FLOATS)
            ]
        by_label = [
            o["name"]
            for o in outputs
            if o["datatype"] in _LABEL_TYPES and (len(shapes[o["name"]]) == 1 or shapes[o["name"]][1:] == [1])
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
            shape = shapes[scores]
            if not (shape[1:] in ([-1], [count]) or (len(shape) == 1 and count == 1)):
                raise ConfigError(
                    f"Expected the output {excerpt(scores)!r} to score {count} classes, got shape "
                    f"{known[scores]['shape']}. Give the platform's own classes, all of them, in its "
                    f"order{self.one_column([shape[1:]])}."
                )
        return scores, label


@dataclass(frozen=True)
class _Input:
    """What the image input of a model takes.

    ``batch``: how many images, no more and no fewer; None for any number, 0 for one without an axis for it.
    ``column``: whether files stand in a column, (N, 1).
    """

    name: str
    datatype: InputType
    layout: ImageLayout
    image_shape: ImageShape
    batch: int | None
    column: bool = False

    @property
    def pixels_are_floats(self) -> bool:
        return self.datatype in _FLOATS

    def tensor(self, images: Images, options: KServeV2, *, binary: bool) -> Tensor:
        """Return images, uint8 (N, H, W, 3), as the tensor that is sent."""
        images = repeated_to(images, self.batch or 1)
        if self.datatype == "BYTES":
            files = np.empty(len(images), dtype=object)
            files[:] = [as_png(image) for image in images]
            return Tensor(self.name, "BYTES", files[:, None] if self.column else files)
        pixels = options.fp32_pixels if self.pixels_are_floats else None
        values = options.numbers(images, pixels=pixels, layout=self.layout, decimal=not binary)
        if self.datatype == "INT8":
            values = (values.astype(np.int16) - 128).astype(np.int8)
        return Tensor(self.name, self.datatype, values[0] if self.batch == 0 else values)


def _essential(shape: Sequence[int], batched: bool) -> list[int]:
    """Return a shape as (N, …) without the axes of one value behind the classes: (N, C, 1, 1) is (N, C)."""
    essential = list(shape) if batched else _unbatched(shape)
    while len(essential) > 2 and essential[-1] == 1:
        essential.pop()
    return essential


def _may_score(shape: Sequence[int], count: int, *, floats: bool) -> bool:
    """Whether an output of this shape may hold a row of ``count`` scores; floats of another number are told later."""
    if len(shape) == 1:
        return floats and count == 1
    return len(shape) == 2 and (shape[1] == count or (floats and shape[1] != 1))


def _unbatched(shape: Sequence[int]) -> list[int]:
    """Return the shape of what is said of one image with an axis for it, if it has none: (C, 1, 1) is (1, C)."""
    rest = list(shape)
    while len(rest) > 1 and rest[-1] == 1:
        rest.pop()
    # A model may still write (1, C).
    return rest if len(rest) > 1 and rest[0] == 1 else [1, *rest] if rest else [1]


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
    last, first = shape[2] == 3, shape[0] == 3
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
    taken: _Input
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
        message: dict[str, Any] = {"id": request_id}
        if self.binary:
            message["parameters"] = {"binary_data_output": True}
        wanted = [n for n in (self.scores_output, self.label_output) if n is not None]
        if wanted:
            per_output = {"parameters": {"binary_data": True}} if self.binary else {}
            message["outputs"] = [{"name": name, **per_output} for name in wanted]
        tensor = self.taken.tensor(images, self.options, binary=self.binary)
        body, headers = join_body(message, "inputs", [tensor], binary=self.binary)
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
            scores_name, label_name = self.options.choose_outputs(seen, batched=self.taken.batch != 0)
        for name in (scores_name, label_name):
            if name is not None and name not in outputs:
                raise UnreadableError(f"Expected an output {name!r}, got {', '.join(excerpt(o, 40) for o in outputs)}.")
        tensor = None if scores_name is None else outputs[scores_name]
        # A batch of a fixed size was filled with copies: what is said of them is dropped.
        sent = max(n, self.taken.batch or 0)
        return self.options.answers(
            None if tensor is None else self._score_rows(tensor, sent)[:n],
            labels=None if label_name is None else self._label_rows(outputs[label_name], sent)[:n],
            refused=_refused_rows([message, *(vars(t) for t in outputs.values())], sent)[:n],
            resolution=None if tensor is None else _stated(tensor, self.options.resolution),
        )

    def _score_rows(self, tensor: Tensor, n: int) -> NDArray[np.float64]:
        count = self.options.columns
        shape = tuple(_essential(tensor.data.shape, self.taken.batch != 0))
        if tensor.data.dtype.kind not in "fiu" or shape not in [(n, count), *([(n,)] if count == 1 else [])]:
            raise UnreadableError(
                f"Expected scores of shape ({n}, {count}), got {tensor.datatype} of shape {tensor.data.shape}."
            )
        named = tensor.parameters.get("classes")
        if isinstance(named, list) and not self.options.are_classes(named):
            raise UnreadableError(
                f"Expected the classes in their order, got {excerpt(named)!r}: the platform has changed."
            )
        return tensor.data.astype(np.float64).reshape(n, count)

    def _label_rows(self, tensor: Tensor, n: int) -> list[Any]:
        """Return a label for each image, as the platform wrote it."""
        if tuple(_essential(tensor.data.shape, self.taken.batch != 0)) not in ((n,), (n, 1)):
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

"""TensorFlow Serving's REST API and KServe V1, asked from our side: ``instances`` in, ``predictions`` out.

Sources: https://www.tensorflow.org/tfx/serving/api_rest and the KServe V1 protocol, https://kserve.github.io.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ttca.answers import Answers
from ttca.errors import ConfigError, TransportError
from ttca.images import Images, ImageShape
from ttca.platforms.protocols import Fetch, Protocol, Request, Response, Wire, model_path
from ttca.platforms.protocols.encoding import (
    ImageLayout,
    Numbers,
    Pixels,
    as_base64,
    check_image_shape,
    check_layout,
    repeated_to,
)
from ttca.platforms.protocols.reading import UNKNOWN, Reading, UnreadableError, check_choice, excerpt, read_json

__all__ = ["TensorFlowServing", "TensorFlowServingWire"]

Send = Literal["integers", "levels", "unit", "b64"]

_FLOATS = {"DT_FLOAT", "DT_HALF", "DT_DOUBLE", "DT_BFLOAT16"}
_SEND_OF = {"DT_STRING": "b64", "DT_UINT8": "integers", **dict.fromkeys(_FLOATS, "unit")}


@dataclass(frozen=True, kw_only=True)
class TensorFlowServing(Reading, Numbers, Protocol):
    """Options of a TensorFlow Serving or KServe V1 platform. What is left at None is read from its metadata.

    Parameters
    ----------
    model : str
        The model's name on the server.
    version : str, optional
        The model's version; the server's own choice when None.
    signature : str
        The signature asked (TensorFlow Serving; the name is sent only if it is not the default).
    input_name : str, optional
        The instance's key; None sends the value alone, which is right for a model of one input.
    send : {'integers', 'levels', 'unit', 'b64'}, optional
        How pixels are written: whole levels, levels as floats, floats in [0, 1], or a PNG file in ``{"b64": …}``.
        None: as the metadata's type asks, floats in [0, 1].
    layout : {'NHWC', 'NCHW'}
        Where the channels are.
    range, mean, std, color_order
        Of pixels sent as floats: see :class:`~ttca.platforms.protocols.encoding.Numbers`. ``color_order`` of whole
        levels too.
    scores_output, label_output : str, optional
        The keys, where each prediction is an object of several outputs.
    image_shape : (H, W, 3), optional
        Needed where no metadata says it (KServe V1 has none).
    classes, scores_are, resolution, …
        See :class:`~ttca.platforms.protocols.reading.Reading`.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    model: str | None
    version: str | None = None
    signature: str = "serving_default"
    input_name: str | None = None
    send: Send | None = None
    layout: ImageLayout = "NHWC"
    scores_output: str | None = None
    label_output: str | None = None
    image_shape: ImageShape | Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"Expected model to be the model's name on the server, got {self.model!r}. Set it.")
        check_choice("send", self.send, Send, optional=True)
        object.__setattr__(self, "layout", check_layout(self.layout))
        self.check_numbers()
        if self.image_shape is not None:
            check_image_shape(self.image_shape)

    @property
    def pixels(self) -> Pixels | None:
        """Which floats pixels are sent as; None for whole levels and files."""
        return "levels" if self.send == "levels" else "unit" if self.send == "unit" else None

    @property
    def reading_identity(self) -> dict[str, str]:
        """What decides how an answer is read: which of its outputs, too, for a request names none."""
        outputs = f"scores={self.scores_output or ''} label={self.label_output or ''}"
        return {**super().reading_identity, "outputs": outputs}

    def describe(self, fetch: Fetch) -> TensorFlowServingWire:
        """Read the signature where the server gives it, else only that the model is there. Costs no query."""
        path = model_path("v1/models", self.model or "", self.version, between="/versions/")
        signature, version = self._signature(fetch, path)
        wanted = self._input(signature)
        outputs = _objects(signature.get("outputs"))
        self._check_classes(outputs)
        options = replace(self, send=self.send or wanted.get("send") or "unit")
        options.check_numbers_fit(options.pixels, f"send = {json.dumps(options.send)}", files=options.send == "b64")
        shape = self._shape(wanted.get("shape"))
        batch = (wanted.get("shape") or [-1])[0]
        fixed = batch if batch > 1 else None
        return TensorFlowServingWire(
            options=options,
            image_shape=shape,
            path=f"{path}:predict",
            max_batch=batch if batch >= 1 else None,
            fixed_batch=fixed,
            identity={
                "model": self.model or "",
                "version": version,
                "signature": self.signature,
                "input": f"{self.input_name or ''} {options.send} {self.layout}",
                "image_shape": excerpt(shape),
                **self.numbers_identity,
                **({} if fixed is None else {"fixed_batch": str(fixed)}),
            },
            reading_identity=self.reading_identity,
        )

    def _signature(self, fetch: Fetch, path: str) -> tuple[Mapping[str, Any], str]:
        """Return the signature asked and the model's version; nothing of a server without metadata."""
        try:
            metadata = _objects(_json(fetch(f"{path}/metadata"), path))
        except TransportError as error:
            if error.retryable or error.status in (401, 403):
                raise
            # KServe V1 has no metadata; a model that is not there has no status either.
            if _objects(_json(fetch(path), path)).get("ready") is False:
                raise ConfigError(f"Expected the model {self.model} to be ready, got one that is not. Wait.") from None
            return {}, self.version or ""
        found = metadata.get("metadata")
        for _ in range(2):
            found = _objects(found).get("signature_def")
        known = _objects(found)
        if known and self.signature not in known:
            raise ConfigError(
                f"Expected the model to have the signature {self.signature!r}, got "
                f"{', '.join(excerpt(k, 40) for k in known)}. Correct signature."
            )
        version = _objects(metadata.get("model_spec")).get("version", self.version)
        return _objects(known.get(self.signature)), str(version or "")

    def _input(self, signature: Mapping[str, Any]) -> dict[str, Any]:
        """Return the pixel type (``send``) and sizes (``shape``) that the signature's image input asks for."""
        inputs = _objects(signature.get("inputs"))
        if not inputs:
            return {}
        name = self.input_name
        if name is None:
            if len(inputs) > 1:
                raise ConfigError(
                    f"Expected the model to have one input, got {', '.join(excerpt(k, 40) for k in inputs)}. "
                    "Set input_name to the one that takes images."
                )
            name = next(iter(inputs))
        if name not in inputs:
            raise ConfigError(
                f"Expected the input {name!r}, got {', '.join(excerpt(k, 40) for k in inputs)}. Correct input_name."
            )
        described = _objects(inputs[name])
        kind = str(described.get("dtype"))
        if kind not in _SEND_OF:
            raise ConfigError(
                f"Expected the input {excerpt(name)!r} to take pixels or files, got {excerpt(kind)}. "
                "Ask a model that takes images."
            )
        fitting = {"b64"} if kind == "DT_STRING" else {"integers"} if kind == "DT_UINT8" else {"levels", "unit"}
        if self.send is not None and self.send not in fitting:
            raise ConfigError(
                f"Expected send as {' or '.join(sorted(fitting))} for {kind}, got {self.send!r}. Correct it."
            )
        return {"send": _SEND_OF[kind], "shape": None if kind == "DT_STRING" else _dimensions(described)}

    def _shape(self, described: Sequence[int] | None) -> ImageShape:
        """Return the image shape, of the metadata and the option together."""
        given = None if self.image_shape is None else check_image_shape(self.image_shape)
        if described is None or len(described) != 4:
            return check_image_shape(given)
        sizes = tuple(described[1:]) if self.layout == "NHWC" else (*described[2:], described[1])
        for said, wanted in zip(sizes, given or (-1, -1, 3), strict=True):
            if said != -1 and wanted != -1 and said != wanted:
                raise ConfigError(
                    f"Expected images of shape {given or '(H, W, 3)'}, got a model that takes {list(described)} "
                    f"({self.layout}). Correct image_shape or layout, or ask an RGB model."
                )
        return check_image_shape([s if s != -1 else g for s, g in zip(sizes, given or (-1, -1, 3), strict=True)])

    def _check_classes(self, outputs: Mapping[str, Any]) -> None:
        for wanted in (self.scores_output, self.label_output):
            if wanted is not None and outputs and wanted not in outputs:
                raise ConfigError(
                    f"Expected an output {wanted!r}, got {', '.join(excerpt(o, 40) for o in outputs)}. "
                    "Correct scores_output or label_output."
                )
        scores = self.scores_output
        if scores is None:
            tables = self._tables({name: out for name, out in outputs.items() if name != self.label_output})
            if len(tables) > 1:
                raise ConfigError(
                    f"Expected one output of scores, got {', '.join(excerpt(t, 40) for t in tables)}. "
                    "Set scores_output to the right one."
                )
            scores = tables[0] if tables else None
        shape = None if scores is None else _dimensions(_objects(outputs.get(scores)))
        if shape is not None and len(shape) in (1, 2) and (shape[1:] or [1])[0] not in (-1, self.columns):
            raise ConfigError(
                f"Expected the output {excerpt(scores)!r} to score {len(self.classes)} classes, got {shape}. "
                f"Give the platform's own classes, all of them, in its order{self.one_column([shape[1:]])}."
            )

    def _tables(self, outputs: Mapping[str, Any]) -> list[str]:
        """Return the outputs that hold scores by their shape: one for each class, or the one that is all."""
        shapes = {name: _dimensions(_objects(described)) or [] for name, described in outputs.items()}
        wide = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] != 1]
        narrow = [
            name
            for name, shape in shapes.items()
            if shape and shape[1:] in ([], [1]) and _objects(outputs[name]).get("dtype") in _FLOATS
        ]
        if self.columns == 1:
            return narrow or wide
        # Beside labels, a single number is no score of theirs; alone, it is all that there is.
        return wide or (narrow if len(narrow) == len(outputs) and self.label_output is None else [])


@dataclass(frozen=True, kw_only=True)
class TensorFlowServingWire(Wire):
    """The protocol as agreed with one server; built by :meth:`TensorFlowServing.describe`."""

    options: TensorFlowServing
    image_shape: ImageShape
    path: str
    identity: dict[str, str] = field(default_factory=dict)
    reading_identity: dict[str, str] | None = None
    max_batch: int | None = None
    fixed_batch: int | None = None

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return a POST to ``…:predict`` with one instance per image."""
        options = self.options
        images = repeated_to(images, self.fixed_batch or 1)
        values: list[Any]
        if options.send == "b64":
            values = [{"b64": as_base64(image)} for image in images]
        else:
            pixels = options.numbers(images, pixels=options.pixels, layout=options.layout, decimal=True)
            values = pixels.tolist()
        message: dict[str, Any] = {
            "instances": values if options.input_name is None else [{options.input_name: v} for v in values]
        }
        if options.signature != "serving_default":
            message["signature_name"] = options.signature
        body = json.dumps(message, separators=(",", ":")).encode()
        return Request("POST", self.path, {"Content-Type": "application/json"}, body)

    def parse(self, response: Response, n: int) -> Answers:
        """Read one prediction per image. One bad row fails alone; with no good row, it is unreadable."""
        try:
            message = read_json(response.body)
            said = message.get("predictions") if isinstance(message, dict) else None
            if not isinstance(said, list):
                told = message.get("error", message) if isinstance(message, dict) else message
                if n == 1 and self.options.refuses(told):
                    return self.options.rows([[]])
                raise UnreadableError(f"Expected predictions, got {excerpt(told)!r}.")
            asked = self.fixed_batch or n
            if len(said) != asked:
                raise UnreadableError(f"Expected {asked} predictions, one for each image, got {len(said)}.")
            return self.options.rows(said[:n], self._chosen)
        except UnreadableError as error:
            raise response.unreadable(str(error)) from None

    def _chosen(self, row: object) -> object:
        """Return the outputs named by the options, under the names that a reading knows."""
        options = self.options
        if options.scores_output is None and options.label_output is None:
            # A model of one output behind a server that names it all the same.
            name, only = next(iter(row.items())) if isinstance(row, dict) and len(row) == 1 else ("", None)
            alone = options.columns == 1 and options.index_of(name) == UNKNOWN and not isinstance(only, dict)
            return only if isinstance(only, list) or (only is not None and alone) else row
        chosen = {"scores": options.scores_output, "label": options.label_output}
        named = {name: key for name, key in chosen.items() if key is not None}
        if not isinstance(row, dict) and len(named) == 1:
            # A server of one output leaves out its name.
            return dict.fromkeys(named, _scalar(row))
        missing = [key for key in named.values() if not isinstance(row, dict) or key not in row]
        if missing:
            raise UnreadableError(f"Expected the output {missing[0]!r} in a prediction, got {excerpt(row)!r}.")
        return {name: _scalar(row[key]) for name, key in named.items()} if isinstance(row, dict) else row


def _scalar(value: object) -> object:
    """Return the label of an output of shape (1,)."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _objects(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(response: Response, path: str) -> object:
    try:
        return read_json(response.body)
    except UnreadableError as error:
        raise ConfigError(f"The metadata at {path} cannot be read: {error} Check url, protocol and model.") from None


def _dimensions(described: Mapping[str, Any]) -> list[int] | None:
    """Return the sizes of a tensor in a signature, −1 where free; None where its rank is not known."""
    shape = _objects(described.get("tensor_shape"))
    dims = shape.get("dim")
    if shape.get("unknown_rank") is True or not isinstance(dims, list):
        return None
    try:
        return [int(_objects(d).get("size", -1)) for d in dims]
    except (TypeError, ValueError):
        return None

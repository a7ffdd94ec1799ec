"""Hugging Face's image-classification task, asked from our side: raw bytes, or base64 with parameters.

Source: https://huggingface.co/docs/inference-providers/tasks/image-classification.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from ttca.errors import ConfigError
from ttca.images import Images
from ttca.platforms.protocols import Fetch, Request, Response
from ttca.platforms.protocols.encoding import as_base64, as_png
from ttca.platforms.protocols.reading import UnreadableError, check_choice, read_json
from ttca.platforms.protocols.single_image import SingleImage, SingleImageWire, options_identity

__all__ = ["HuggingFace", "HuggingFaceWire"]

Function = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, kw_only=True)
class HuggingFace(SingleImage):
    """Options of a Hugging Face endpoint.

    Parameters
    ----------
    model : str, optional
        ``owner/name`` below ``<url>/models/``; None where the URL is an endpoint of one model.
    top_k : int, optional
        How many classes to ask for. None sends raw bytes, without parameters; the platform's own default is 5, so
        that rows of more classes are not complete.
    function_to_apply : {'softmax', 'sigmoid', 'none'}, optional
        What the platform is asked to apply to its logits; with ``'none'``, set ``scores_are`` to ``'logits'``,
        with ``'sigmoid'``, which takes each class by itself, to ``'confidences'``.
    image_shape, version, classes, scores_are, …
        See :class:`~ttca.platforms.protocols.single_image.SingleImage`.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    top_k: int | None = None
    function_to_apply: Function | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version is not None:
            raise ConfigError(f"Expected no version with huggingface, got {self.version!r}. Put it into url or model.")
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise ConfigError(f"Expected top_k of at least 1, got {self.top_k}. Use {len(self.classes)} for all.")
        check_choice("function_to_apply", self.function_to_apply, Function, optional=True)
        fitting = {"none": ("logits", "logit-of-second"), "sigmoid": ("confidences", "probability-of-second")}
        fits = fitting.get(self.function_to_apply or "", (self.scores_are,))
        if self.scores_are not in fits:
            raise ConfigError(
                f"Expected scores_are as {' or '.join(fits)} with function_to_apply as {self.function_to_apply}, got "
                f"{self.scores_are}. Correct it."
            )

    def describe(self, fetch: Fetch) -> HuggingFaceWire:
        """Return the wire; an endpoint has no metadata."""
        return HuggingFaceWire(
            options=self,
            image_shape=self.shape,
            path="" if self.model is None else f"models/{quote(self.model)}",
            identity=options_identity(self, top_k=self.top_k, function_to_apply=self.function_to_apply),
            reading_identity=self.reading_identity,
            parameters={
                name: value
                for name, value in (("top_k", self.top_k), ("function_to_apply", self.function_to_apply))
                if value is not None
            },
        )


@dataclass(frozen=True, kw_only=True)
class HuggingFaceWire(SingleImageWire):
    """The protocol as agreed with one endpoint; built by :meth:`HuggingFace.describe`."""

    parameters: dict[str, Any]

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return a POST of the image itself, or of its base64 where there are parameters."""
        if not self.parameters:
            return Request(
                "POST", self.path, {"Content-Type": "image/png", "Accept": "application/json"}, as_png(images[0])
            )
        message = {"inputs": as_base64(images[0]), "parameters": self.parameters}
        return Request("POST", self.path, {"Content-Type": "application/json"}, json.dumps(message).encode())

    def find(self, response: Response) -> object:
        """Return the list of labels and scores; some endpoints wrap it in another list."""
        said = read_json(response.body)
        return said[0] if isinstance(said, list) and len(said) == 1 and isinstance(said[0], list) else said

    def wait_s(self, response: Response) -> float | None:
        """Return the seconds until a model that is being loaded is ready, where the endpoint says it."""
        if response.status != 503:
            return None
        try:
            said = read_json(response.body)
        except UnreadableError:
            return None
        seconds = said.get("estimated_time") if isinstance(said, dict) else None
        return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e6 else None

"""The TorchServe inference API, asked from our side: a raw PNG body, and a dict or list of the best classes.

Source: https://docs.pytorch.org/serve/inference_api.html.
"""

from __future__ import annotations

from dataclasses import dataclass

from ttca.images import Images
from ttca.platforms.protocols import Fetch, Request, Response, model_path
from ttca.platforms.protocols.encoding import as_png
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.platforms.protocols.single_image import SingleImage, SingleImageWire, options_identity, unnest

__all__ = ["TorchServe", "TorchServeWire"]


@dataclass(frozen=True, kw_only=True)
class TorchServe(SingleImage):
    """Options of a TorchServe platform: those of :class:`SingleImage`; ``model`` must be given.

    Notes
    -----
    TorchServe's ``image_classifier`` gives its five best classes, by name or, without ``index_to_name.json``, by
    index; rows of more classes are then not complete. The inference port has no metadata.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.checked_model()

    def describe(self, fetch: Fetch) -> TorchServeWire:
        """Return the wire; there is nothing to read."""
        return TorchServeWire(
            options=self,
            image_shape=self.shape,
            path=model_path("predictions", self.checked_model(), self.version),
            identity=options_identity(self),
            reading_identity=self.reading_identity,
        )


class TorchServeWire(SingleImageWire):
    """The protocol as agreed with one server; built by :meth:`TorchServe.describe`."""

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return a POST of the image itself."""
        return Request("POST", self.path, {"Content-Type": "image/png"}, as_png(images[0]))

    def find(self, response: Response) -> object:
        """Return the answer; handlers may also send a bare label or a sentence, which is no JSON."""
        try:
            return unnest(read_json(response.body))
        except UnreadableError:
            text = response.body.decode("utf-8", "replace").strip()
            if not text or text[0] in '{["<':
                raise
            return text

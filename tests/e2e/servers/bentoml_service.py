"""An ONNX image classifier as a BentoML service: MODEL is its file, CLASSES its class names, with commas between."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime
from bentoml.exceptions import InvalidArgument
from PIL.Image import Image

DARK = 16  # a mean level below this is refused


@bentoml.service(workers=1)
class Classifier:
    """Gives the probability of every class by its name."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")

    @bentoml.api  # type: ignore[untyped-decorator]
    def classify(self, image: Image) -> dict[str, float]:
        """Answer one uploaded image."""
        levels = np.asarray(image.convert("RGB"), np.float32)
        if levels.mean() < DARK:
            raise InvalidArgument("the image is too dark")
        pixels = levels.transpose(2, 0, 1)[None] / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        shares = np.exp(logits[0].astype(np.float64) - logits.max())
        return dict(zip(self._classes, (shares / shares.sum()).tolist(), strict=True))

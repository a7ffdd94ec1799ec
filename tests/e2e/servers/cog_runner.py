"""An ONNX image classifier behind cog: MODEL is its file, CLASSES its class names."""

from __future__ import annotations

import os
from typing import Any

import cog
import numpy as np
import onnxruntime
from PIL import Image

DARK = 16  # a mean level below this is refused


class Runner(cog.BaseRunner):  # type: ignore[misc]
    """Takes an image file; gives labels and scores, best first, or fails where it is too dark."""

    def setup(self) -> None:
        """Read the model file."""
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")

    def run(self, image: cog.Path) -> list[dict[str, Any]]:
        """Return every class with its score, best first."""
        with Image.open(image) as opened:
            levels = np.asarray(opened.convert("RGB"))
        if levels.mean() < DARK:
            raise ValueError("the image is too dark")
        pixels = levels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        shares = np.exp(logits[0].astype(np.float64) - logits.max())
        shares /= shares.sum()
        return [{"label": self._classes[k], "score": float(shares[k])} for k in np.argsort(-shares)]

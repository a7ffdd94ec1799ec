"""An ONNX image classifier behind LitServe: MODEL is its file, CLASSES its class names, the argument its port."""

from __future__ import annotations

import base64
import io
import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

SIZE = (16, 16)
DARK = 16  # a mean level below this is refused


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Takes ``{"image": base64}``; gives a label with scores, or says why it refuses."""

    def setup(self, device: str) -> None:
        """Read the model file."""
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")

    def decode_request(self, request: dict[str, str]) -> NDArray[np.uint8]:
        """Return the image's levels, shape (H, W, 3)."""
        with Image.open(io.BytesIO(base64.b64decode(request["image"]))) as image:
            if image.size != SIZE:
                raise HTTPException(422, f"expected an image of {SIZE}, got one of {image.size}")
            return np.asarray(image.convert("RGB"))

    def predict(self, levels: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return a probability per class; None for an image too dark to see anything."""
        if levels.mean() < DARK:
            return None
        pixels = levels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        shares: NDArray[np.float64] = np.exp(logits[0].astype(np.float64) - logits.max())
        total: NDArray[np.float64] = shares / shares.sum()
        return total

    def encode_response(self, scores: NDArray[np.float64] | None) -> dict[str, Any]:
        """Return what the client reads."""
        if scores is None:
            return {"result": {"refused": "too dark"}}
        return {"result": {"label": self._classes[int(scores.argmax())], "scores": scores.tolist()}}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)

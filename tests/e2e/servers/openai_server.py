"""An ONNX classifier behind LitServe's OpenAI-compatible API, answering in a sentence; its argument is the port."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image

DARK = 16  # a mean level below this is refused


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Takes chat messages with one image in them; says what it is."""

    def setup(self, device: str) -> None:
        """Read the model file."""
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")

    def predict(self, prompt: Any) -> Iterator[str]:
        """Say in a sentence what the image of the last message shows."""
        content = prompt.messages[-1].model_dump()["content"]
        (url,) = (part["image_url"]["url"] for part in content if part["type"] == "image_url")
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            levels = np.asarray(image.convert("RGB"))
        if levels.mean() < DARK:
            yield "I cannot see anything."
            return
        pixels = levels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        yield f"This is, I think, a {self._classes[int(logits.argmax())]}."


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(spec=litserve.OpenAISpec()), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)

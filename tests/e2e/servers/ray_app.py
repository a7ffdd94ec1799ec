"""An ONNX image classifier behind Ray Serve: MODEL is its file, CLASSES its class names, the argument its port."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import numpy as np
import onnxruntime
import ray
from PIL import Image
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

DARK = 16  # a mean level below this is refused


class Classifier:
    """Takes an image file as the body; gives names and scores, or says why it refuses."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        if request.method == "GET":
            return "ready"
        with Image.open(io.BytesIO(await request.body())) as image:
            levels = np.asarray(image.convert("RGB"))
        if levels.mean() < DARK:
            return JSONResponse({"error": "the image is too dark"}, status_code=500)
        pixels = levels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        shares = np.exp(logits[0].astype(np.float64) - logits.max())
        return dict(zip(self._classes, (shares / shares.sum()).tolist(), strict=True))


if __name__ == "__main__":
    # On this machine's own address alone, and without what reports its use.
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(serve.deployment(Classifier).bind(), blocking=True)

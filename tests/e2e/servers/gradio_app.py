"""An ONNX image classifier behind gradio: MODEL is its file, CLASSES its class names, the argument its port."""

from __future__ import annotations

import os
import sys

import gradio
import numpy as np
import onnxruntime
from numpy.typing import NDArray

DARK = 16  # a mean level below this is refused

session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
classes = os.environ["CLASSES"].split(",")


def predict(levels: NDArray[np.uint8]) -> dict[str, float]:
    """Return a probability per class, or refuse an image too dark to see anything."""
    if levels.mean() < DARK:
        raise gradio.Error("the image is too dark")
    pixels = levels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels})
    shares = np.exp(logits[0].astype(np.float64) - logits.max())
    return dict(zip(classes, (shares / shares.sum()).tolist(), strict=True))


if __name__ == "__main__":
    app = gradio.Interface(predict, gradio.Image(type="numpy"), gradio.Label(), api_name="predict")
    app.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)

"""An ONNX image classifier as an MLServer runtime; each model's settings say whether it takes levels or numbers."""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

DARK = 16  # a mean level below this is refused, by models that name a label


class OnnxRuntime(MLModel):  # type: ignore[misc]
    """Gives logits, and a label too where the model's settings list such an output."""

    async def load(self) -> bool:
        """Read the model file of the settings."""
        path = await get_model_uri(self.settings)
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request of any number of images."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        if images.dtype == np.uint8:
            images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: np.ascontiguousarray(images)})
        outputs = [NumpyCodec.encode_output("logits", logits)]
        if any(output.name == "label" for output in self.settings.outputs):
            names = self.settings.parameters.extra["classes"]
            dark = images.mean(axis=(1, 2, 3)) < DARK / 255
            said = ["too dark" if d else names[k] for d, k in zip(dark, logits.argmax(axis=1), strict=True)]
            outputs.append(StringCodec.encode_output("label", said, use_bytes=False))
        return InferenceResponse(model_name=self.name, outputs=outputs)

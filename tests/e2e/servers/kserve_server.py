"""An ONNX classifier behind KServe's server: MODEL is its file, CLASSES its class names, its argument the port."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import kserve
import numpy as np
import onnxruntime
from kserve.protocol.rest.server import RESTServer
from kserve.utils.utils import get_predict_input


class Classifier(kserve.Model):  # type: ignore[misc]
    """Takes images as UINT8 (N, 16, 16, 3); gives logits (N, C)."""

    def __init__(self) -> None:
        super().__init__("pets")
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        self._classes = os.environ["CLASSES"].split(",")
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Return what the metadata says of the input."""
        return [{"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Return what the metadata says of the output."""
        return [{"name": "logits", "datatype": "FP32", "shape": [-1, len(self._classes)]}]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Return the logits."""
        levels = np.asarray(get_predict_input(payload)).reshape(-1, 16, 16, 3)
        pixels = levels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        output = kserve.InferOutput("logits", list(logits.shape), "FP32")
        output.set_data_from_numpy(logits, binary_data=False)
        return kserve.InferResponse(payload.id or "", "pets", [output])


if __name__ == "__main__":
    port = int(sys.argv[1])
    server = kserve.ModelServer(http_port=port, enable_grpc=False)
    server.register_model(Classifier())
    rest = RESTServer("kserve.model_server:app", server.dataplane, server.model_repository_extension, port)
    # Its own start listens to every network, this to the machine alone.
    rest.run([socket.create_server(("127.0.0.1", port))])

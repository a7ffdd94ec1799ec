"""TensorFlow Serving's REST API and KServe V1 from the server's side: a platform behind their routes.

Needs ``ttca[serve]``; :func:`ttca.platforms.server.create_app` loads it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ttca.answers import Answers
from ttca.data.decoding import decode_rgb
from ttca.errors import DataError
from ttca.platforms.base import PlatformInfo
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.server import ServedError, Service, bounded_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = ["kserve_v1_routes", "routes"]


def routes(service: Service) -> list[BaseRoute]:
    """Return TensorFlow Serving's status, metadata and prediction routes."""
    return _routes(service, metadata=True)


def kserve_v1_routes(service: Service) -> list[BaseRoute]:
    """Return KServe V1's routes: it has no metadata, and says only whether a model is ready."""
    return _routes(service, metadata=False)


def _routes(service: Service, *, metadata: bool) -> list[BaseRoute]:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def status(request: Request) -> Response:
        service.check(request.path_params)
        if not metadata:
            return JSONResponse({"name": service.model, "ready": True})
        state = {"version": service.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return JSONResponse({"model_version_status": [state]})

    async def about(request: Request) -> Response:
        service.member(request.headers.get("authorization"))
        service.check(request.path_params)
        return JSONResponse(_metadata(service))

    async def predict(request: Request) -> Response:
        member = service.member(request.headers.get("authorization"))
        service.check(request.path_params)
        body = await bounded_body(request, service.max_request_bytes)
        return JSONResponse(await run_in_threadpool(_predict, service, dict(request.headers), body, member))

    # No parameter may hold a colon: it separates the model from what is asked of it.
    one = "/v1/models/{model:str}"
    exact = one + "/versions/{version:str}"
    described = [Route(f"{path}/metadata", about) for path in (one, exact)] if metadata else []
    return [
        *described,
        *(Route(f"{path}:predict", predict, methods=["POST"]) for path in (one, exact)),
        *(Route(path, status) for path in (one, exact)),
    ]


def _metadata(service: Service) -> dict[str, Any]:
    info = service.platform.info
    outputs = {"label": _described("DT_STRING", [-1])}
    if info.gives_scores:
        outputs["scores"] = _described("DT_FLOAT", [-1, len(info.classes)])
    signature = {
        "inputs": {"images": _described("DT_UINT8", [-1, *info.image_shape])},
        "outputs": outputs,
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": service.model, "signature_name": "", "version": service.version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def _described(dtype: str, sizes: list[int]) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}}


def _predict(service: Service, headers: Mapping[str, str], body: bytes, member: str) -> dict[str, Any]:
    try:
        message = read_json(body)
    except UnreadableError as error:
        raise ServedError(400, str(error)) from None
    instances = message.get("instances") if isinstance(message, dict) else None
    if not isinstance(instances, list) or not instances:
        raise ServedError(400, f"Expected instances, one for each image, got {excerpt(instances)}.")
    values = [i["images"] if isinstance(i, dict) and list(i) == ["images"] else i for i in instances]
    try:
        if all(isinstance(v, dict) and list(v) == ["b64"] for v in values):
            images = np.stack([decode_rgb(base64.b64decode(v["b64"], validate=True)) for v in values])
        else:
            levels = np.array(values)
            images = levels.astype(np.uint8)
            if levels.dtype.kind not in "iuf" or not np.array_equal(levels, images):
                raise ValueError("levels outside 0..255, or fractions of them")
    except (ValueError, TypeError, OverflowError, binascii.Error, DataError) as error:
        raise ServedError(400, f"Expected images as whole levels 0..255 or in b64, got: {excerpt(error)}.") from None
    answers = service.answer(images, request_id=headers.get("idempotency-key", "unnamed"), member=member)
    return {"predictions": [_prediction(answers, i, service.platform.info) for i in range(len(answers))]}


def _prediction(answers: Answers, row: int, info: PlatformInfo) -> dict[str, Any]:
    if answers.labels[row] < 0:
        return {"label": -1}
    # By name: where class names are numbers, nobody could tell a name from an index.
    label = info.classes[int(answers.labels[row])]
    if not info.gives_scores:
        return {"label": label}
    # JSON has no NaN: what a platform does not say is −1, as the option missing_score can be told.
    return {"label": label, "scores": np.nan_to_num(answers.scores[row].astype(float), nan=-1.0).tolist()}

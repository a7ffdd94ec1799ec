"""The KServe V2 / Open Inference Protocol from the server's side: a platform behind its routes.

Needs ``ttca[serve]``; :func:`ttca.platforms.server.create_app` loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ttca.answers import Answers
from ttca.platforms.protocols.reading import UnreadableError, excerpt
from ttca.platforms.protocols.tensors import (
    HEADER_LENGTH,
    Tensor,
    join_body,
    read_tensors,
    split_body,
)
from ttca.platforms.server import ServedError, Service, bounded_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

__all__ = ["routes"]

# JSON has no NaN, and in the protocol a NaN is a fault: what a platform does not say is this number.
_MISSING = -1.0


def routes(service: Service) -> list[BaseRoute]:
    """Return the protocol's health, metadata and inference routes."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def healthy(_: Request) -> Response:
        return JSONResponse({})

    async def model_ready(request: Request) -> Response:
        service.check(request.path_params)
        return JSONResponse({})

    async def about_server(_: Request) -> Response:
        from ttca import __version__

        return JSONResponse({"name": "ttca", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def about_model(request: Request) -> Response:
        service.member(request.headers.get("authorization"))
        service.check(request.path_params)
        return JSONResponse(_metadata(service))

    async def infer(request: Request) -> Response:
        member = service.member(request.headers.get("authorization"))
        service.check(request.path_params)
        body = await bounded_body(request, service.max_request_bytes)
        # Reading, the model and writing all take a processor: none of it belongs on the event loop.
        content, headers = await run_in_threadpool(_infer, service, dict(request.headers), body, member)
        return Response(content, headers=headers)

    one = "/v2/models/{model}"
    exact = one + "/versions/{version}"
    return [
        Route("/v2/health/live", healthy),
        Route("/v2/health/ready", healthy),
        Route("/v2", about_server),
        *(Route(path, about_model) for path in (one, exact)),
        *(Route(f"{path}/ready", model_ready) for path in (one, exact)),
        *(Route(f"{path}/infer", infer, methods=["POST"]) for path in (one, exact)),
    ]


def _metadata(service: Service) -> dict[str, Any]:
    info = service.platform.info
    height, width, channels = info.image_shape
    outputs: list[dict[str, Any]] = [{"name": "label", "datatype": "INT64", "shape": [-1]}]
    if info.gives_scores:
        outputs.insert(0, {"name": "scores", "datatype": "FP32", "shape": [-1, len(info.classes)]})
    return {
        "name": service.model,
        "versions": [service.version],
        "platform": "ttca",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, height, width, channels]}],
        "outputs": outputs,
        "parameters": {
            "classes": list(info.classes),
            "max_batch": info.max_batch,
            "missing_score": _MISSING,
        },
    }


def _infer(service: Service, headers: Mapping[str, str], body: bytes, member: str) -> tuple[bytes, dict[str, str]]:
    try:
        message, binary = split_body(body, headers.get(HEADER_LENGTH.lower()))
        tensors = read_tensors(message.get("inputs"), binary)
    except UnreadableError as error:
        raise ServedError(400, str(error)) from None
    if len(tensors) != 1 or tensors[0].name != "images" or tensors[0].datatype != "UINT8":
        got = excerpt([(t.name, t.datatype) for t in tensors])
        raise ServedError(400, f"Expected one input, images of datatype UINT8, got {got}.")
    told = message.get("id")
    if told is not None and not isinstance(told, str):
        raise ServedError(400, f"Expected id as a string, got {excerpt(told)!r}.")
    wanted, as_binary = _wanted(message, service.platform.info.gives_scores)
    request_id = headers.get("idempotency-key") or told or "unnamed"
    answers = service.answer(tensors[0].data, request_id=request_id, member=member)
    outputs = [t for t in _outputs(answers, service.platform.info.gives_scores) if t.name in wanted]
    head = {"model_name": service.model, "model_version": service.version}
    if told is not None:
        head["id"] = told
    return join_body(head, "outputs", outputs, binary=as_binary)


def _wanted(message: Mapping[str, Any], gives_scores: bool) -> tuple[set[str], bool]:
    """Return the names of the outputs asked for, and whether as binary data."""
    known = {"scores", "label"} if gives_scores else {"label"}
    entries = message.get("outputs") or [{"name": n} for n in known]
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) and e["name"] in known for e in entries
    ):
        raise ServedError(400, f"Expected outputs among {', '.join(sorted(known))}, got {excerpt(entries)}.")
    asked = [message, *entries]
    parameters = [p for p in (a.get("parameters") for a in asked) if isinstance(p, dict)]
    as_binary = any(p.get("binary_data_output") is True or p.get("binary_data") is True for p in parameters)
    return {e["name"] for e in entries}, as_binary


def _outputs(answers: Answers, gives_scores: bool) -> list[Tensor]:
    label = Tensor("label", "INT64", answers.labels)
    if not gives_scores:
        return [label]
    step = round(float(answers.resolution.max(initial=0.0)), 9)
    parameters = {"resolution": step} if step else {}
    rows = np.nan_to_num(answers.scores, nan=_MISSING)
    return [Tensor("scores", "FP32", rows, parameters), label]

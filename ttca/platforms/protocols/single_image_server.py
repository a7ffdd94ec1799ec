"""The protocols of one image a request from the server's side: TorchServe, Hugging Face, BentoML and a plain API.

Needs ``ttca[serve]``; :func:`ttca.platforms.server.create_app` loads it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ttca.answers import Answers
from ttca.data.decoding import decode_rgb
from ttca.errors import DataError
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.server import ServedError, Service, bounded_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

__all__ = ["bentoml_routes", "huggingface_routes", "plain_routes", "torchserve_routes"]

_Read: TypeAlias = "Callable[[Request, bytes], Awaitable[tuple[bytes, dict[str, Any]]]]"
_Write: TypeAlias = Callable[[Answers, Service, dict[str, Any]], Any]


def torchserve_routes(service: Service) -> list[BaseRoute]:
    """Return TorchServe's health and prediction routes. Predictions are an object of class names and scores."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def ping(_: Request) -> JSONResponse:
        return JSONResponse({"status": "Healthy"})

    def write(answers: Answers, service: Service, _: dict[str, Any]) -> Any:
        return dict(_named(answers, service)) if _scored(answers) else (_label(answers, service) or {})

    asked = _asker(service, _raw, write)
    one = "/predictions/{model}"
    return [Route("/ping", ping), *(Route(p, asked, methods=["POST", "PUT"]) for p in (one, one + "/{version}"))]


def huggingface_routes(service: Service) -> list[BaseRoute]:
    """Return the image-classification task's routes: the endpoint's own URL, and below ``/models/``."""
    from starlette.routing import Route

    async def read(request: Request, body: bytes) -> tuple[bytes, dict[str, Any]]:
        if not request.headers.get("content-type", "").startswith("application/json"):
            return body, {}
        message = _object(body)
        parameters = message.get("parameters") or {}
        if not isinstance(parameters, dict) or parameters.get("function_to_apply", "softmax") != "softmax":
            raise ServedError(400, "Expected parameters with function_to_apply softmax or none given, got others.")
        top_k = parameters.get("top_k", 5)
        if type(top_k) is not int or top_k < 1:
            raise ServedError(400, f"Expected top_k of at least 1, got {excerpt(top_k)}.")
        return _unpacked(message.get("inputs"), "inputs"), {"top_k": top_k}

    def write(answers: Answers, service: Service, parameters: dict[str, Any]) -> Any:
        if not _scored(answers):
            label = _label(answers, service)
            return [] if label is None else [{"label": label}]
        best = _named(answers, service)[: parameters.get("top_k", 5)]
        return [{"label": name, "score": score} for name, score in best]

    asked = _asker(service, read, write)
    return [Route("/", asked, methods=["POST"]), Route("/models/{model:path}", asked, methods=["POST"])]


def bentoml_routes(service: Service) -> list[BaseRoute]:
    """Return a BentoML service's health, OpenAPI and one method: ``classify``, of the image field ``image``."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    schema = {"type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}}
    described = {
        "openapi": "3.0.2",
        "info": {"title": service.model, "version": service.version},
        "paths": {"/classify": {"post": {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}}},
    }

    async def docs(_: Request) -> JSONResponse:
        return JSONResponse(described)

    async def healthy(_: Request) -> JSONResponse:
        return JSONResponse({})

    return [
        Route("/docs.json", docs),
        *(Route(f"/{name}", healthy) for name in ("healthz", "livez", "readyz")),
        Route("/classify", _asker(service, _form, _plain), methods=["POST"]),
    ]


def plain_routes(service: Service) -> list[BaseRoute]:
    """Return an API of our own, for the template protocol: ``/classify`` takes a PNG, a form or JSON."""
    from starlette.routing import Route

    async def read(request: Request, body: bytes) -> tuple[bytes, dict[str, Any]]:
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            return await _form(request, body)
        if kind.startswith("application/json"):
            return _unpacked(_object(body).get("image"), "image"), {}
        return body, {}

    return [Route("/classify", _asker(service, read, _plain), methods=["POST"])]


def _asker(service: Service, read: _Read, write: _Write) -> Callable[[Request], Awaitable[Any]]:
    """Return an endpoint that reads one image, asks the platform and writes its answer."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    async def endpoint(request: Request) -> JSONResponse:
        member = service.member(request.headers.get("authorization"))
        service.check(request.path_params)
        body = await bounded_body(request, service.max_request_bytes)
        file, parameters = await read(request, body)
        request_id = request.headers.get("idempotency-key", "unnamed")

        def answer() -> Answers:
            try:
                image = decode_rgb(file)
            except DataError as error:
                raise ServedError(400, str(error)) from None
            return service.answer(image[None], request_id=request_id, member=member)

        return JSONResponse(write(await run_in_threadpool(answer), service, parameters))

    return endpoint


async def _raw(request: Request, body: bytes) -> tuple[bytes, dict[str, Any]]:
    return body, {}


async def _form(request: Request, body: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return the file in the field ``image``; the body, read and bounded before, is what the form is read from."""
    from starlette.exceptions import HTTPException

    request._body = body
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            file = form.get("image")
            if file is None or isinstance(file, str):
                raise ServedError(400, "Expected an image file in the form field image, got none.")
            return await file.read(), {}
    except HTTPException as error:
        raise ServedError(400, f"Expected a multipart form, got: {error.detail}") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = read_json(body)
    except UnreadableError as error:
        raise ServedError(400, str(error)) from None
    if not isinstance(message, dict):
        raise ServedError(400, f"Expected a JSON object, got {excerpt(message)}.")
    return message


def _unpacked(text: object, where: str) -> bytes:
    """Return the file that a base64 text, or a ``data:`` URL, holds."""
    try:
        if not isinstance(text, str):
            raise ValueError(type(text).__name__)
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ServedError(400, f"Expected an image in base64 in {where}, got: {excerpt(error)}.") from None


def _scored(answers: Answers) -> bool:
    return bool(~np.isnan(answers.scores[0]).all())


def _label(answers: Answers, service: Service) -> str | None:
    label = int(answers.labels[0])
    return None if label < 0 else service.platform.info.classes[label]


def _named(answers: Answers, service: Service) -> list[tuple[str, float]]:
    """Return the classes said and their scores, best first, and the label before others of its score."""
    scores, label = answers.scores[0].astype(float), int(answers.labels[0])
    said = [int(i) for i in np.flatnonzero(~np.isnan(scores))]
    said.sort(key=lambda i: (-scores[i], i != label, i))
    return [(service.platform.info.classes[i], float(scores[i])) for i in said]


def _plain(answers: Answers, service: Service, _: dict[str, Any]) -> Any:
    label = _label(answers, service)
    if label is None:
        return {"refused": True}
    return {"label": label, **({"scores": dict(_named(answers, service))} if _scored(answers) else {})}

"""Refusals: how the hub says what is wrong, as a sentence for people and a word for programs."""

import math
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ttca.errors import ConfigError, LedgerError, QuotaError, RateError, TTCAError
from ttca.platforms.protocols.reading import excerpt
from ttca.pooling.leases import Quarantined, UnknownLease

__all__ = ["DESCRIBED", "Problem", "handle_errors", "refusal"]

#: Statuses that the hub refuses with.
_STATUSES = (400, 401, 403, 404, 413, 415, 422, 429, 503)
_WHO = {"WWW-Authenticate": 'Basic realm="ttca hub", charset="UTF-8"'}
#: Each error's status and word; where it is of several kinds, the first that fits.
_KINDS: dict[type[TTCAError], tuple[int, str]] = {
    RateError: (429, "rate"),
    Quarantined: (403, "quarantined"),
    UnknownLease: (404, "lease"),
    QuotaError: (403, "quota"),
    ConfigError: (422, "answers"),
    LedgerError: (503, "ledger"),
    TTCAError: (422, "answers"),
}


class Problem(BaseModel):
    """A sentence for people, and a word for programs."""

    error: str
    kind: str


def refusal(status: int, kind: str, sentence: str, *, wait_s: float | None = None) -> JSONResponse:
    """Return a refusal; what strangers wrote has no control characters in it."""
    headers = dict(_WHO) if status == 401 else {}
    if wait_s is not None:
        headers["Retry-After"] = str(math.ceil(wait_s))
    return JSONResponse({"error": excerpt(sentence, 2000), "kind": kind}, status, headers)


def handle_errors(app: FastAPI) -> None:
    """Let every error of the hub's routes become its refusal."""
    for kind, (status, word) in _KINDS.items():
        app.add_exception_handler(kind, _said(status, word))
    app.add_exception_handler(HTTPException, _unserved)
    app.add_exception_handler(RequestValidationError, _invalid)


def _said(status: int, word: str) -> Callable[[Request, Exception], JSONResponse]:
    def answer(_: Request, error: Exception) -> JSONResponse:
        wait = error.wait_s if isinstance(error, RateError) else 5.0 if status == 503 else None
        return refusal(status, word, str(error), wait_s=wait)

    return answer


def _unserved(_: Request, error: Exception) -> JSONResponse:
    return refusal(getattr(error, "status_code", 500), "http", str(getattr(error, "detail", "")))


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a body, without repeating what was in it."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = "; ".join(f"{_place(e['loc'][1:])}: {e['msg']}" for e in found[:3])
    return refusal(
        422, "request", f"Expected a request as /openapi.json describes it, got something else ({places}). Correct it."
    )


def _place(names: tuple[object, ...]) -> str:
    return excerpt(".".join(map(str, names)).encode("ascii", "replace").decode(), 80) or "body"


#: How the routes' description says so.
DESCRIBED: Mapping[int | str, dict[str, object]] = {status: {"model": Problem} for status in _STATUSES}

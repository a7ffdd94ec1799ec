"""The hub: members on machines of their own lease queries over HTTP and bring back what they say was answered."""

import base64
import binascii
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from ttca.answers import Answers, Status
from ttca.errors import ChargeState, ConfigError, LedgerError, MissingExtraError, QuotaError, RateError, TTCAError
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.pooling.hub_client import MOST_QUERIES
from ttca.pooling.leases import LeaseDesk, Progress, Quarantined, UnknownLease
from ttca.pooling.ledger import Ledger
from ttca.pooling.page import progress_page
from ttca.signing import CollectiveKey, lease_bytes

try:
    from fastapi import Depends, FastAPI, Request
    from fastapi import Path as InPath
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, Response
    from fastapi.routing import APIRoute
    from pydantic import BaseModel, ConfigDict, Field
    from starlette.exceptions import HTTPException
except ImportError:
    raise MissingExtraError("The hub", "serve") from None

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "Account",
    "ActionSaid",
    "AnswerRow",
    "AnswersTaken",
    "LeaseFailed",
    "LeaseGiven",
    "LeaseReturned",
    "LeaseWish",
    "Problem",
    "create_hub",
]

#: A score in JSON is hardly longer.
_BYTES_OF_A_SCORE = 32
_LARGEST = 2**31 - 1


class _Body(Request):
    """A request whose JSON is read as strictly as a platform's."""

    async def json(self) -> Any:
        """Return what the body says; its own words are not repeated."""
        try:
            return read_json(await self.body())
        except UnreadableError:
            raise HTTPException(
                422, "Expected JSON with each name once in an object, got something else. Correct it."
            ) from None


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await answer(_Body(request.scope, request.receive))

        return strictly


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LeaseWish(_Strict):
    """How many queries the member would send at once, and a new name for the lease.

    Asking again under the same name gives the same lease: an answer of the hub that got lost costs nothing.
    """

    size: int = Field(ge=1, le=MOST_QUERIES)
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")


class LeaseGiven(BaseModel):
    """Queries to send once: PNG files in base64. Without a lease there is nothing to ask now, or (``done``) at all.

    ``signature`` is the collective's, over name, platform and images (:func:`ttca.signing.lease_bytes`).
    """

    lease: str | None
    images: list[str] = []
    signature: str | None = None
    expires_at: float | None = None
    done: bool = False
    retry_after: float = 0.0


class AnswerRow(_Strict):
    """What the platform said about one image of a lease; a score that is null was not said."""

    status: Literal["answered", "refused", "failed"]
    label: int | None = Field(default=None, ge=0, le=_LARGEST)
    scores: list[float | None] | None = Field(default=None, max_length=100_000)
    resolution: float = Field(default=0.0, ge=0.0, le=1.0)


class LeaseReturned(_Strict):
    """One row for each image of the lease, in its order."""

    answers: list[AnswerRow] = Field(min_length=1, max_length=MOST_QUERIES)


class LeaseFailed(_Strict):
    """A request that brought nothing: what it cost, as far as the member can know, and why."""

    charge: Literal["refunded", "unknown", "charged"]
    detail: str = Field(default="", max_length=500)


class AnswersTaken(BaseModel):
    """How many of the answers are usable."""

    usable: int


class ActionSaid(BaseModel):
    """What the members act on; whoever asks another platform than this fingerprint's must not contribute."""

    name: str
    fingerprint: str
    classes: list[str]
    image_shape: list[int]


class Account(BaseModel):
    """The caller's own books."""

    member: str
    quota: int
    charged: int
    answered: int
    unusable: int
    unknown: int
    refunded: int
    remaining: int
    quarantined: bool


class Problem(BaseModel):
    """A sentence for people, and a word for programs."""

    error: str
    kind: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 413, 422, 429, 503)
}


def create_hub(ledger: Ledger, desk: LeaseDesk, *, name: str, key: CollectiveKey | None = None) -> FastAPI:
    """Return the hub's application: its API, and a page of its progress for people.

    Parameters
    ----------
    ledger : Ledger
    desk : LeaseDesk
    name : str
        The action's name.
    key : CollectiveKey, optional
        Signs every lease; without it members who know the collective's key refuse them.

    Notes
    -----
    Nothing is answered without a member's token (``Authorization: Bearer …``, or as the password of HTTP Basic, for
    browsers), and nobody is told another member's quota or answers. The hub knows no platform key.
    """

    def member(request: Request) -> str:
        token = _token(request.headers.get("authorization", ""))
        who = ledger.member_of(token) if token else None
        if who is None:
            raise HTTPException(401, "Expected a member's token, got none or an unknown one. Ask for an invitation.")
        return who

    Member = Annotated[str, Depends(member)]
    LeaseName = Annotated[str, InPath(max_length=64)]
    app = FastAPI(title=f"ttca hub: {name}", openapi_url=None, docs_url=None, redoc_url=None, responses=_PROBLEMS)
    app.router.route_class = _Route

    @app.get("/openapi.json", include_in_schema=False)
    def openapi(_: Member) -> dict[str, Any]:
        return app.openapi()

    @app.get("/v1/action")
    def action(_: Member) -> ActionSaid:
        """Say which platform the members ask."""
        info = desk.info
        return ActionSaid(
            name=name, fingerprint=info.fingerprint, classes=list(info.classes), image_shape=list(info.image_shape)
        )

    @app.post("/v1/leases")
    def lease(who: Member, wish: LeaseWish) -> LeaseGiven:
        """Charge the caller for some queries and hand them over."""
        given = desk.issue(who, wish.size, name=wish.name)
        if given is None:
            return LeaseGiven(lease=None, done=desk.is_done(who), retry_after=1.0)
        images = [base64.b64encode(file).decode() for file in given.files]
        content = lease_bytes(given.id, desk.info.fingerprint, images)
        return LeaseGiven(
            lease=given.id,
            images=images,
            signature=None if key is None else key.signature_of(content, "lease"),
            expires_at=given.expires_at,
        )

    @app.post("/v1/leases/{lease_id}/answers")
    def answers(who: Member, lease_id: LeaseName, returned: LeaseReturned) -> AnswersTaken:
        """Take what came back; sending the same again changes nothing."""
        return AnswersTaken(usable=desk.take_back(lease_id, who, _answers(returned.answers, len(desk.info.classes))))

    @app.post("/v1/leases/{lease_id}/failure")
    def failure(who: Member, lease_id: LeaseName, failed: LeaseFailed) -> AnswersTaken:
        """Take note that a lease brought nothing."""
        desk.give_up(lease_id, who, ChargeState(failed.charge), detail=failed.detail)
        return AnswersTaken(usable=0)

    @app.get("/v1/me")
    def account(who: Member) -> Account:
        """Say what the caller has paid."""
        (own,) = ledger.balances(who)
        return Account(
            member=who,
            quota=own.quota,
            charged=own.charged,
            answered=own.answered,
            unusable=own.unusable,
            unknown=own.unknown,
            refunded=own.refunded,
            remaining=own.remaining,
            quarantined=who in desk.flagged(),
        )

    @app.get("/v1/progress")
    def progress(_: Member) -> Progress:
        """Say how far the pool is, without anybody's name."""
        return desk.progress()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(who: Member) -> HTMLResponse:
        (own,) = ledger.balances(who)
        return HTMLResponse(
            progress_page(name, desk.progress(), who, own.charged, own.quota),
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_middleware(_Bounded, limit=2**20 + MOST_QUERIES * len(desk.info.classes) * _BYTES_OF_A_SCORE)
    return app


def _problem(status: int, kind: str) -> Callable[[Request, Exception], JSONResponse]:
    def answer(_: Request, error: Exception) -> JSONResponse:
        headers = {}
        if isinstance(error, RateError):
            headers["Retry-After"] = str(math.ceil(error.wait_s))
        elif status == 503:
            headers["Retry-After"] = "5"
        return JSONResponse({"error": str(error), "kind": kind}, status, headers)

    return answer


def _refused(_: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 500)
    headers = {"WWW-Authenticate": 'Basic realm="ttca hub", charset="UTF-8"'} if status == 401 else {}
    return JSONResponse({"error": str(getattr(error, "detail", "")), "kind": "http"}, status, headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a body, without repeating what was in it."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in found[:3])
    sentence = f"Expected a request as /openapi.json describes it, got something else ({places}). Correct it."
    return JSONResponse({"error": sentence.encode("ascii", "replace").decode(), "kind": "request"}, 422)


_ANSWERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    HTTPException: _refused,
    RequestValidationError: _invalid,
    RateError: _problem(429, "rate"),
    Quarantined: _problem(403, "quarantined"),
    UnknownLease: _problem(404, "lease"),
    QuotaError: _problem(403, "quota"),
    ConfigError: _problem(422, "answers"),
    LedgerError: _problem(503, "ledger"),
    TTCAError: _problem(422, "answers"),
}


class _Bounded:
    """Refuses bodies that are larger than any lease could need, before they are held in memory."""

    def __init__(self, app: "ASGIApp", *, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def bounded() -> "Message":
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, f"Expected at most {self._limit} bytes, got more. Use smaller leases.")
            return message

        await self._app(scope, bounded, send)


def _token(header: str) -> str | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() == "basic":
        try:
            said = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            return None
        return said.partition(":")[2] or None
    return None


def _answers(rows: list[AnswerRow], classes: int) -> Answers:
    """Return what a member says, checked like a platform's own words."""
    scores = np.full((len(rows), classes), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row.scores is not None:
            if len(row.scores) != classes:
                raise ConfigError(f"Expected scores for {classes} classes, got {len(row.scores)}.")
            # What no float32 holds is no probability either, and refused below with a sentence.
            with np.errstate(over="ignore"):
                scores[i] = [math.nan if s is None else s for s in row.scores]
    status = np.array([Status[row.status.upper()] for row in rows], np.int8)
    labels = np.array([-1 if row.label is None else row.label for row in rows], np.int64)
    return Answers(status, labels, scores, np.array([row.resolution for row in rows], np.float32))

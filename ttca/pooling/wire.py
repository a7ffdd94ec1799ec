"""The wire: what travels between a hub and its members, and how strictly it is read."""

import math
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import numpy as np
from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from ttca.answers import Answers, Status
from ttca.errors import ConfigError
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.pooling.hub_client import MOST_QUERIES

__all__ = [
    "Account",
    "ActionSaid",
    "AnswerCount",
    "AnswerRow",
    "AnswersTaken",
    "GroupSaid",
    "LeaseFailed",
    "LeaseGiven",
    "LeaseReturned",
    "LeaseWish",
    "OwnPictures",
    "StrictRoute",
    "as_answers",
    "largest_body",
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


class StrictRoute(APIRoute):
    """A route whose bodies are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
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
    ``free_in`` says in how many seconds what is out with members is free again at last.
    """

    lease: str | None
    images: list[str] = []
    signature: str | None = None
    expires_at: float | None = None
    done: bool = False
    retry_after: float = 0.0
    free_in: float | None = None


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


class AnswerCount(BaseModel):
    """How many of the caller's pictures of one class were answered so; ``said`` is null for a refusal."""

    true_class: str
    said: str | None
    count: int


class GroupSaid(BaseModel):
    """How one group is served so far, without δ."""

    right: int
    asked: int
    persons: int
    unanswered: int


class OwnPictures(BaseModel):
    """What the caller's own pictures were answered, and where the groups stand (:mod:`ttca.pooling.standing`)."""

    pictures: int
    checked: int
    answered: int
    right: int
    answers: list[AnswerCount]
    subgroup: GroupSaid | None
    reference: GroupSaid | None


def largest_body(classes: int) -> int:
    """Return how many bytes the answers of the largest lease may take."""
    return 2**20 + MOST_QUERIES * classes * _BYTES_OF_A_SCORE


def as_answers(rows: list[AnswerRow], classes: int) -> Answers:
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

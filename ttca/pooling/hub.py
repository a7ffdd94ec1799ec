"""The hub: members on machines of their own lease queries over HTTP and bring back what they say was answered."""

import base64
from collections.abc import Callable
from typing import Annotated, Any

from ttca.errors import ChargeState, MissingExtraError
from ttca.platforms.protocols.reading import excerpt
from ttca.pooling.leases import Lease, LeaseDesk, Progress
from ttca.pooling.ledger import Ledger
from ttca.pooling.page import PAGE_POLICY, progress_page
from ttca.pooling.standing import MemberStanding, Mirror
from ttca.signing import CollectiveKey, lease_bytes

try:
    from fastapi import APIRouter, Depends, FastAPI, Request
    from fastapi import Path as InPath
    from fastapi.responses import HTMLResponse

    from ttca.pooling.gate import Gate
    from ttca.pooling.refusals import DESCRIBED, handle_errors
    from ttca.pooling.wire import (
        Account,
        ActionSaid,
        AnswersTaken,
        LeaseFailed,
        LeaseGiven,
        LeaseReturned,
        LeaseWish,
        OwnPictures,
        StrictRoute,
        as_answers,
        largest_body,
    )
except ImportError:
    raise MissingExtraError("The hub", "serve") from None

__all__ = ["create_hub"]

_NOBODY = MemberStanding(pictures=0, checked=0, answers=(), subgroup=None, reference=None)


def create_hub(
    ledger: Ledger,
    desk: LeaseDesk,
    *,
    name: str,
    key: CollectiveKey | None = None,
    mirror: Mirror | None = None,
    expired: Callable[[], str | None] = lambda: None,
) -> FastAPI:
    """Return the hub's application: its API, and a page of its progress for people.

    Parameters
    ----------
    ledger : Ledger
    desk : LeaseDesk
    name : str
        The action's name.
    key : CollectiveKey, optional
        Signs every lease; without it members who know the collective's key refuse them.
    expired : callable
        Returns why the set that members may have no longer holds, a sentence for the page; None where it does.
    mirror : Mirror, optional
        Tells each member what their own pictures were answered; without it nobody is told.

    Notes
    -----
    Nothing is answered without a member's token (``Authorization: Bearer …``, or as the password of HTTP Basic, for
    browsers), and nobody is told another member's quota or answers. The hub knows no platform key.
    """
    app = FastAPI(title=f"ttca hub: {name}", openapi_url=None, docs_url=None, redoc_url=None, responses=dict(DESCRIBED))
    app.add_middleware(Gate, member_of=ledger.member_of, limit=largest_body(len(desk.info.classes)))
    handle_errors(app)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    app.include_router(_working(desk, key))
    app.include_router(_knowing(ledger, desk, name, mirror, expired))
    return app


def _member(request: Request) -> str:
    """Return who asks, as the gate found out."""
    return str(request.state.member)


_Member = Annotated[str, Depends(_member)]
_LeaseName = Annotated[str, InPath(max_length=64)]


def _working(desk: LeaseDesk, key: CollectiveKey | None) -> APIRouter:
    """Return how members take queries and bring back what came of them."""
    routes = APIRouter(route_class=StrictRoute)

    @routes.post("/v1/leases")
    def lease(who: _Member, wish: LeaseWish) -> LeaseGiven:
        """Charge the caller for some queries and hand them over."""
        given = desk.issue(who, wish.size, name=wish.name)
        if given is None:
            return LeaseGiven(lease=None, done=desk.is_done(who), retry_after=1.0, free_in=desk.free_in())
        return _handed_over(given, desk.info.fingerprint_as_read, key)

    @routes.post("/v1/leases/{lease_id}/answers")
    def answers(who: _Member, lease_id: _LeaseName, returned: LeaseReturned) -> AnswersTaken:
        """Take what came back; sending the same again changes nothing."""
        return AnswersTaken(usable=desk.take_back(lease_id, who, as_answers(returned.answers, len(desk.info.classes))))

    @routes.post("/v1/leases/{lease_id}/failure")
    def failure(who: _Member, lease_id: _LeaseName, failed: LeaseFailed) -> AnswersTaken:
        """Take note that a lease brought nothing."""
        # A stranger's words, which a terminal may show.
        desk.give_up(lease_id, who, ChargeState(failed.charge), detail=excerpt(failed.detail, 500))
        return AnswersTaken(usable=0)

    return routes


def _handed_over(given: Lease, fingerprint: str, key: CollectiveKey | None) -> LeaseGiven:
    images = [base64.b64encode(file).decode() for file in given.files]
    content = lease_bytes(given.id, fingerprint, images)
    return LeaseGiven(
        lease=given.id,
        images=images,
        signature=None if key is None else key.signature_of(content, "lease"),
        expires_at=given.expires_at,
    )


def _knowing(
    ledger: Ledger, desk: LeaseDesk, name: str, mirror: Mirror | None, expired: Callable[[], str | None]
) -> APIRouter:
    """Return how members learn what is asked, how far it is, and what they have paid."""
    routes = APIRouter(route_class=StrictRoute)

    @routes.get("/v1/action")
    def action() -> ActionSaid:
        """Say which platform the members ask."""
        info = desk.info
        return ActionSaid(
            name=name,
            fingerprint=info.fingerprint_as_read,
            classes=list(info.classes),
            image_shape=list(info.image_shape),
        )

    @routes.get("/v1/me")
    def account(who: _Member) -> Account:
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

    @routes.get("/v1/me/pictures")
    def pictures(who: _Member) -> OwnPictures:
        """Say what the caller's own pictures were answered, and where the groups stand."""
        return OwnPictures(**(_NOBODY if mirror is None else mirror.of(who)).to_dict())

    @routes.get("/v1/progress")
    def progress() -> Progress:
        """Say how far the pool is, without anybody's name."""
        return desk.progress()

    @routes.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(who: _Member) -> HTMLResponse:
        (own,) = ledger.balances(who)
        paid = f"You, {who}, have paid {own.charged:,} of your {own.quota:,} queries."
        lines = [paid, *([] if mirror is None else mirror.of(who).told())]
        written = progress_page(name, desk.progress(), lines, expired=expired())
        return HTMLResponse(written, headers={"Content-Security-Policy": PAGE_POLICY})

    return routes

"""The gate: who may speak to the hub at all, told from a request's headers, before any of its body is read."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ttca.errors import LedgerError
from ttca.pooling.refusals import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate"]

#: So many requests of one member are heard at once: more than a member's machine sends, and few enough to hold.
_AT_ONCE = 32
_BODILESS = ("GET", "HEAD", "OPTIONS")


class Gate:
    """Lets members' own requests through, with the member's name in ``request.state.member``.

    Parameters
    ----------
    app : ASGI application
    member_of : callable
        Whose a token is, None for nobody's.
    limit : int
        The most bytes of a body.
    """

    def __init__(self, app: ASGIApp, *, member_of: Callable[[str], str | None], limit: int) -> None:
        self._app, self._member_of, self._limit = app, member_of, limit
        self._heard: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            token = _token(headers.get("authorization", ""))
            member = await run_in_threadpool(self._member_of, token) if token else None
        except LedgerError as error:
            await refusal(503, "ledger", str(error), wait_s=5.0)(scope, receive, send)
            return
        if member is None:
            unknown = "Expected a member's token, got none or an unknown one. Ask for an invitation."
            await refusal(401, "http", unknown)(scope, receive, send)
            return
        refused = self._refused(headers, scope["method"], member)
        if refused is not None:
            await refused(scope, receive, send)
            return
        self._heard[member] += 1
        try:
            known = {**scope.get("state", {}), "member": member}
            await self._app({**scope, "state": known}, self._bounded(receive), send)
        finally:
            self._heard[member] -= 1
            if not self._heard[member]:
                del self._heard[member]

    def _refused(self, headers: Headers, method: str, member: str) -> JSONResponse | None:
        """Return why a member's request is not heard."""
        if _is_of_another_page(headers, method):
            return refusal(403, "http", "Expected a request of a member's own, got one that another web page makes.")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            return refusal(413, "http", self._too_large)
        # A web page may send any other type in a member's name without asking first.
        types = {t.partition(";")[0].strip().lower() for t in headers.getlist("content-type")}
        if method not in _BODILESS and types != {"application/json"}:
            return refusal(415, "http", "Expected the Content-Type application/json, got another one or none. Send it.")
        if self._heard[member] >= _AT_ONCE:
            return refusal(
                503, "busy", f"Expected at most {_AT_ONCE} requests of one member at once, got more. Wait.", wait_s=1.0
            )
        return None

    @property
    def _too_large(self) -> str:
        return f"Expected at most {self._limit} bytes, got more. Use smaller leases."

    def _bounded(self, receive: Receive) -> Receive:
        """Refuse bodies that are larger than any lease could need, before they are held in memory."""
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, self._too_large)
            return message

        return bounded


def _is_of_another_page(headers: Headers, method: str) -> bool:
    """Whether a browser says that another site's page makes this request; a link that is followed is no such."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return True
    site = headers.get("sec-fetch-site", "none").lower()
    follows = method in _BODILESS and headers.get("sec-fetch-mode") == "navigate"
    return site not in ("none", "same-origin") and not (follows and headers.get("sec-fetch-dest") == "document")


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

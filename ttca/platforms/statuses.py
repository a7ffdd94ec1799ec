"""What a status that is no answer means: what it cost, whether another attempt may succeed, and what to do."""

from __future__ import annotations

import re
import time
from urllib.parse import urljoin, urlsplit

from ttca.errors import ChargeState, TransportError, Trouble
from ttca.platforms.limits import exhausted_s, retry_after_s
from ttca.platforms.protocols import Response
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.throttle import come_again

__all__ = ["status_error"]

# By these a platform may also say "too fast"; it then says when to come back, or that nothing is left.
_PERHAPS_THROTTLED = {400, 403, 420}
_PERHAPS_PROCESSED = {408, 409, 425}
# Somebody waited for an answer that did not come: the platform, or a gateway before it.
_TIMED_OUT = {408, 504}
# Surely not processed, whatever the body says.
_UNPROCESSED = {401, 403, 404, 405, 413, 422}
# A quota that is used up is not renewed sooner: whoever says so says it of every refusal.
_LEAST_RENEWAL_S = 60.0
_USED_UP = re.compile(rb'"(?:code|type)"\s*:\s*"insufficient_quota"')
_TOO_MANY_IMAGES = re.compile(
    rb"batch[ _-]?size|max\w*[ _-]?batch|batch[^.]{0,30}(?:too (?:large|big|long)|exceed|larger|greater)"
    rb"|too many (?:images|instances|inputs|items)",
    re.IGNORECASE,
)
_MOST_IMAGES = re.compile(rb"(?:<=?|at most|max\w*|limit\w*|exceed\w*)[^\d.;]{0,30}(\d{1,6})(?!\d)", re.IGNORECASE)


def status_error(
    response: Response,
    *,
    said: Trouble | None = None,
    wait_s: float | None = None,
    images: int = 1,
    key_variable: str | None = None,
) -> TransportError:
    """Return the error for a response that does not answer.

    Parameters
    ----------
    response : Response
    said : Trouble, optional
        What it says in the protocol's own words; that comes before its status.
    wait_s : float, optional
        Seconds to wait that the protocol's own words ask for, where no header does.
    images : int
        About how many it was asked.
    key_variable : str, optional
        The name of the variable with the key that it was sent.
    """
    trouble = said or _trouble(response)
    status = response.status
    after = retry_after_s(response.headers, now=time.time(), limited=trouble is Trouble.THROTTLED)
    wait = wait_s if after is None else after
    charge, retryable, advice = ChargeState.CHARGED, False, "Check protocol and its options."
    if trouble is Trouble.USED_UP:
        charge = ChargeState.REFUNDED
        advice = (
            "The quota or credit of this key is used up. Renew it, then run this again: what was answered is kept."
            f"{'' if not wait else f' {come_again(wait)}'}"
        )
    elif trouble is Trouble.THROTTLED:
        charge, retryable, advice = ChargeState.REFUNDED, True, "That came too fast. Wait, then try again."
    elif 200 <= status < 300:
        return response.unreadable(f"{_got(response)} Check protocol: this one does not expect that status.")
    elif 300 <= status < 400:
        charge = ChargeState.CHARGED if status == 303 else ChargeState.REFUNDED
        advice = _redirect_advice(response)
    elif (most := _most_images(response, images)) is not None:
        # Of a server's own error nobody knows how far it came.
        charge = ChargeState.UNKNOWN if status >= 500 else ChargeState.REFUNDED
        advice = f"{images} images in one request are too many for it. {most}"
    elif status == 503 and wait is not None:
        charge, retryable, advice = ChargeState.REFUNDED, True, "Wait as long as it asks, then try again."
    elif status >= 500 or status in _PERHAPS_PROCESSED:
        charge, retryable, advice = ChargeState.UNKNOWN, True, "Try again; the platform may have processed it."
    elif status in _UNPROCESSED:
        charge, advice = ChargeState.REFUNDED, _unprocessed_advice(status, key_variable)
    error = TransportError(
        f"{_got(response, length=500 if trouble is Trouble.USED_UP else 120)} {advice}",
        platform=response.platform,
        charge=charge,
        retryable=retryable,
        retry_after=wait if retryable else None,
        status=status,
        request_id=response.request_id,
    )
    error.trouble = trouble
    if trouble is Trouble.USED_UP and (wait or 0.0) >= _LEAST_RENEWAL_S:
        error.come_back_s = wait
    return error


def _trouble(response: Response) -> Trouble | None:
    """Return what a status, its headers and bodies that are known everywhere say by themselves."""
    status, headers = response.status, response.headers
    if status == 402 or (400 <= status < 500 and _USED_UP.search(response.body)):
        return Trouble.USED_UP
    if status == 429:
        return Trouble.THROTTLED
    if status in _PERHAPS_THROTTLED:
        now = time.time()
        told = retry_after_s(headers, now=now, limited=False) is not None or exhausted_s(headers, now=now) is not None
        return Trouble.THROTTLED if told else None
    return Trouble.TIMED_OUT if status in _TIMED_OUT else None


def _got(response: Response, length: int = 120) -> str:
    status = response.status
    if 300 <= status < 400:
        to = excerpt(response.headers.get("location", "nowhere"), 200)
        return f"Expected an answer from {_asked(response)}, got a redirect ({status}) to {to}."
    said = f" ({_gist(response.body, length)})" if response.body.strip() else ""
    # Where the address may be wrong, the whole of it.
    where = _asked(response) if status in (404, 405, 410, 501) else response.platform
    return f"Expected an answer from {where}, got status {status}{said}."


def _asked(response: Response) -> str:
    return excerpt(response.asked, 300) if response.asked else response.platform


def _gist(body: bytes, length: int) -> str:
    """Return what an error's body says: its beginning, or the cause that a Python traceback ends with."""
    causes = re.findall(rb"^[A-Za-z_][\w.]*: .*$", body, re.MULTILINE) if body.lstrip().startswith(b"Traceback") else []
    return excerpt(causes[-1] if causes else body, length)


def _redirect_advice(response: Response) -> str:
    """Return what to set where a platform sends us elsewhere."""
    asked = response.asked.partition(" ")[2] or response.platform
    try:
        to = urljoin(asked, response.headers.get("location", ""))
        parts = urlsplit(to)
    except ValueError:
        to, parts = "", urlsplit("")
    below = asked[len(response.platform) :] if asked.startswith(response.platform) else ""
    if to == f"{asked}/":
        where = (
            f"Write it in [platform]: url = {excerpt(to, 200)!r}."
            if not below.strip("/")
            else f"End the path {excerpt(below, 200)!r} with it where you set it (path of template, route of bentoml); "
            "where the protocol itself writes the path, describe the API with the protocol template."
        )
        return f"That is the same address with a slash at its end. {where}"
    if asked == f"{to}/":
        return "That is the same address without the slash at its end. Remove it from url or path."
    advice = "Redirects are not followed, so that no key goes to the wrong place."
    base = to[: -len(below)] if below and to.endswith(below) else to if not below else ""
    if parts.scheme in ("http", "https") and base and not parts.query:
        return f"{advice} If you trust it, set url to {excerpt(base, 200)!r}."
    return f"{advice} If you trust it, set url, and the path if the protocol has one, so that they make that address."


def _most_images(response: Response, images: int) -> str | None:
    """Return what to set where a platform says that a request held too many images; None where it does not."""
    if images < 2 or not (response.status == 500 or 400 <= response.status < 500):
        return None
    if not _TOO_MANY_IMAGES.search(response.body):
        return None
    found = _MOST_IMAGES.search(response.body)
    most = int(found.group(1)) if found else 0
    known = 1 <= most < images
    return f"Set max_batch = {most} in [platform]." if known else "Set a lower max_batch in [platform], 1 if need be."


def _unprocessed_advice(status: int, key_variable: str | None) -> str:
    if status in (401, 403) and key_variable is None:
        return "No key was sent: put it into a variable, and name that in key_variable."
    key = (
        f"Check that {key_variable} holds a key this platform knows, and that it travels as the platform reads it "
        "(key_header, key_scheme, key_in, key_names)."
    )
    return {
        401: key,
        403: f"{key} If so, ask the platform's owner whether it may use this model.",
        404: "Check that address: it is made of url, and of model, version or path. Some platforms also answer so to a "
        "key they do not know.",
        405: "Check that address, and method if the protocol has one.",
        413: "Lower max_batch.",
        422: "Check protocol, model and image size.",
    }[status]

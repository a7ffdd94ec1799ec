"""What a response's headers say about limits: how long to wait, and how many requests a platform allows."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

__all__ = ["exhausted_s", "policies", "retry_after_s"]

_LONGEST_RESET_S = 366 * 86400.0


def retry_after_s(headers: Mapping[str, str], *, now: float, limited: bool = True) -> float | None:
    """Return the seconds a platform asks to wait, or None where it does not say.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. Read in this order: ``retry-after-ms``; ``retry-after`` in seconds or as an HTTP
        date; the forms of ``ratelimit``.
    now : float
        Seconds since 1970 by our clock, for dates; the response's own ``date`` is preferred.
    limited : bool
        Whether it says "too many": only then do the ``ratelimit`` headers, which gateways add to any response, say
        when to come back.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("retry-after")
    if after is not None:
        seconds = _seconds(after)
        if seconds is not None:
            return seconds
        at = _timestamp(after)
        if at is not None:
            # The server's own clock, where it gives it: ours may be minutes off.
            server_now = _timestamp(headers.get("date", ""))
            return max(0.0, at - (now if server_now is None else server_now))
    if not limited:
        return None
    resets = [t for r, t in _rate_limits(headers) if not r]
    return max(resets) if resets else None


def exhausted_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a platform allows another request, where its answer says that none is left.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. ``ratelimit`` (draft-ietf-httpapi-ratelimit-headers: ``"name";r=0;t=7``, or its older form
        ``limit=10, remaining=0, reset=7``), or ``ratelimit-remaining`` and ``ratelimit-reset``, also with ``x-``.
    """
    return max((t for r, t in _rate_limits(headers) if r == 0), default=None)


def policies(headers: Mapping[str, str]) -> dict[float, int]:
    """Return the limits a response states in ``ratelimit-policy``: seconds to the requests allowed in them.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case; ``"burst";q=50;w=1, "daily";q=1000;w=86400`` or, in the older form, ``50;w=1``. Limits
        counted in anything but requests are passed over.
    """
    found: dict[float, int] = {}
    for policy in headers.get("ratelimit-policy", "").split(","):
        quota = re.search(r"(?:^\s*|;\s*q=)(\d{1,9})\s*(?=$|;)", policy, re.ASCII)
        window = re.search(r";\s*w=(\d{1,9})\s*(?=$|;)", policy, re.ASCII)
        unit = re.search(r';\s*qu="?([a-z-]+)', policy, re.ASCII)
        if (
            quota
            and window
            and int(quota.group(1))
            and int(window.group(1))
            and (not unit or unit.group(1) == "requests")
        ):
            seconds, requests_allowed = float(window.group(1)), int(quota.group(1))
            found[seconds] = min(requests_allowed, found.get(seconds, requests_allowed))
    return found


def _rate_limits(headers: Mapping[str, str]) -> list[tuple[float | None, float]]:
    """Return (requests left, seconds until there are more) of every limit a response states."""
    found: list[tuple[float | None, float]] = []
    # Several policies are a list; within one, parameters follow semicolons. The older form has one policy.
    text = headers.get("ratelimit", "")
    policies = [text] if re.search(r"(?:^|[,;\s])reset=", text) else text.split(",")
    for policy in policies:
        left = re.search(r"(?:^|[;,\s])(?:r|remaining)=(\d{1,15})(?:$|[;,\s])", policy, re.ASCII)
        reset = re.search(r"(?:^|[;,\s])(?:t|reset)=(\d{1,15}(?:\.\d{1,9})?)(?:$|[;,\s])", policy, re.ASCII)
        if reset:
            found.append((float(left.group(1)) if left else None, float(reset.group(1))))
    for prefix in ("", "x-"):
        seconds = _seconds(headers.get(f"{prefix}ratelimit-reset"))
        # Some platforms write the time of day here: seconds since 1970 are no wait.
        if seconds is not None and seconds < _LONGEST_RESET_S:
            found.append((_seconds(headers.get(f"{prefix}ratelimit-remaining")), seconds))
    return found


def _seconds(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*[0-9]{1,15}(\.[0-9]{0,15})?\s*", text, re.ASCII):
        return None
    return float(text)


def _timestamp(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None

"""What a response's headers say about limits: how long to wait, and how many requests a platform allows."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import datetime

__all__ = ["exhausted_s", "policies", "retry_after_s"]

# A number from here on is no wait but a moment, in seconds since 1970 or in milliseconds: 2001, and after it.
_EPOCH_S, _EPOCH_MS = (1e9, 1e11), (1e12, 1e14)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?)(ms|us|µs|ns|[dhms])", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# A header that came twice is one text with a comma between; so is the weekday of a date, before the day.
_BETWEEN = re.compile(r",(?!\s*\d{1,2}[ -][A-Za-z])", re.ASCII)
_PARTS = ("remaining", "reset", "after")
_RATE_LIMIT = re.compile(r"(.{0,40}?)rate-?limit-([a-z-]{1,60})", re.ASCII)


def retry_after_s(headers: Mapping[str, str], *, now: float, limited: bool = True) -> float | None:
    """Return the seconds a platform asks to wait, or None where it does not say.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. Read in this order: ``retry-after-ms``, also ``x-ms-retry-after-ms``; ``retry-after``;
        the forms of ``ratelimit`` (see :func:`exhausted_s`). A time is written as seconds, as a duration
        (``1m30s``), or as a moment: an HTTP date, RFC 3339 or seconds since 1970. Of several the longest counts.
    now : float
        Seconds since 1970 by our clock, for moments; the response's own ``date`` is preferred.
    limited : bool
        Whether it says "too many": only then do the ``ratelimit`` headers, which gateways add to any response, say
        when to come back.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _numbers(headers.get(name))
        if milliseconds:
            return max(milliseconds) / 1000
    waits = _waits(headers.get("retry-after"), _now(headers, now))
    if waits:
        return max(waits)
    return max((t for r, t in _rate_limits(headers, now) if not r), default=None) if limited else None


def exhausted_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds until a platform allows another request, where its answer says that none is left.

    Parameters
    ----------
    headers : mapping of str to str
        Names in lower case. ``ratelimit`` (draft-ietf-httpapi-ratelimit-headers: ``"name";r=0;t=7``, or its older form
        ``limit=10, remaining=0, reset=7``), or ``ratelimit-remaining`` and ``ratelimit-reset``, whatever stands
        before them and of whatever they are (``x-ratelimit-reset-requests``, ``anthropic-ratelimit-tokens-reset``).
    now : float
        Seconds since 1970 by our clock, for moments; the response's own ``date`` is preferred.
    """
    return max((t for r, t in _rate_limits(headers, now) if r == 0), default=None)


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


def _rate_limits(headers: Mapping[str, str], now: float) -> list[tuple[float | None, float]]:
    """Return (requests left, seconds until there are more) of every limit a response states."""
    stating = [name for name in headers if _RATE_LIMIT.fullmatch(name)]
    if not stating and "ratelimit" not in headers:
        # Nearly every answer: its date is not worth reading.
        return []
    at = _now(headers, now)
    found: list[tuple[float | None, float]] = []
    # Several policies are a list; within one, parameters follow semicolons. The older form has commas there.
    text = headers.get("ratelimit", "")
    for policy in [text] if re.search(r"(?:^|[,;\s])reset=", text) else text.split(","):
        left = re.findall(r"(?:^|[;,\s])(?:r|remaining)=(\d{1,15})(?=$|[;,\s])", policy, re.ASCII)
        reset = re.findall(r"(?:^|[;,\s])(?:t|reset)=(\d{1,15}(?:\.\d{1,9})?)(?=$|[;,\s])", policy, re.ASCII)
        found += _paired([float(n) for n in left], [_from_number(float(t), at) for t in reset])
    limits: dict[tuple[str, ...], dict[str, str]] = {}
    for name in stating:
        value = headers[name]
        if match := _RATE_LIMIT.fullmatch(name):
            words = match.group(2).split("-")
            limit = limits.setdefault((match.group(1), *(w for w in words if w not in _PARTS)), {})
            for part in set(words) & {"remaining", "reset"}:
                # x-ratelimit-reset-after says how long where x-ratelimit-reset says when.
                limit[part] = f"{limit[part]}, {value}" if part in limit else value
    for limit in limits.values():
        found += _paired(_numbers(limit.get("remaining")), _waits(limit.get("reset"), at))
    return found


def _paired(left: list[float], resets: list[float]) -> list[tuple[float | None, float]]:
    """Return what each of several limits says; the strictest reading where it is not known what belongs together."""
    if len(left) == len(resets):
        return list(zip(left, resets, strict=True))
    return [(min(left) if left else None, max(resets))] if resets else []


def _waits(text: str | None, now: float) -> list[float]:
    """Return the seconds from now that a header's values say, in any form; none where one of them is not understood."""
    waits = [_wait(one.strip(), now) for one in _BETWEEN.split(text)] if text is not None else []
    known = [wait for wait in waits if wait is not None]
    return known if len(known) == len(waits) else []


def _wait(text: str, now: float) -> float | None:
    number = _number(text)
    if number is not None:
        return _from_number(number, now)
    parts = _PART.findall(text)
    if parts and "".join(a + b for a, b in parts) == text:
        return sum(float(n) * _UNITS[unit] for n, unit in parts)
    at = _moment(text)
    return None if at is None else max(0.0, at - now)


def _from_number(number: float, now: float) -> float:
    """Return seconds as they are, and of a moment in seconds or milliseconds since 1970 how far off it is."""
    if _EPOCH_S[0] <= number < _EPOCH_S[1]:
        return max(0.0, number - now)
    if _EPOCH_MS[0] <= number < _EPOCH_MS[1]:
        return max(0.0, number / 1000 - now)
    return number


def _numbers(text: str | None) -> list[float]:
    found = [_number(one) for one in text.split(",")] if text is not None else []
    known = [n for n in found if n is not None]
    return known if len(known) == len(found) else []


def _number(text: str) -> float | None:
    if not re.fullmatch(r"\s*[0-9]{1,15}(\.[0-9]{0,15})?\s*", text, re.ASCII):
        return None
    return float(text)


def _now(headers: Mapping[str, str], now: float) -> float:
    """Return the server's own clock, where it gives it: ours may be minutes off."""
    at = _moment(headers.get("date", ""))
    return now if at is None else at


def _moment(text: str) -> float | None:
    """Return seconds since 1970 of an HTTP date or an RFC 3339 timestamp; without a zone nobody knows when it is."""
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).timestamp()
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None

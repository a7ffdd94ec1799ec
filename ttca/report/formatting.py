"""How the report writes a number: for people in words, for machines exactly, and undefined where it is undefined."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttca.rounding import at_least

__all__ = [
    "NOT_DEFINED",
    "Number",
    "count",
    "fixed",
    "p_value",
    "percent",
    "percent_at_least",
    "plain",
    "points",
    "raw",
]

NOT_DEFINED = "not defined"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Between a number and its unit, so that a line never breaks there.
_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Number:
    """A number as it is read (``text``) and as it is (``machine``); ``machine`` is None where it is not defined."""

    text: str
    machine: str | None


_UNDEFINED = Number(NOT_DEFINED, None)


def percent(share: float | None, digits: int = 1) -> Number:
    """Return a share 0..1 in percent; only a true 0 or 1 is ever written as 0 % or 100 %."""
    if share is None or not math.isfinite(share):
        return _UNDEFINED
    while digits < 9 and 0 < share < 1 and round(100 * share, digits) in (0, 100):
        digits += 1
    return Number(_minus(f"{100 * share:.{digits}f}{_SPACE}%"), repr(float(share)))


def percent_at_least(bound: float | None) -> Number:
    """Return a lower bound 0..1 in percent, rounded down: it stays true."""
    if bound is None or not math.isfinite(bound):
        return _UNDEFINED
    return Number(_minus(f"{100 * float(at_least(bound)):.1f}{_SPACE}%"), repr(float(bound)))


def points(difference: float | None) -> Number:
    """Return a difference of two shares in percentage points."""
    if difference is None or not math.isfinite(difference):
        return _UNDEFINED
    return Number(_minus(f"{100 * difference:.1f}{_SPACE}points"), repr(float(difference)))


def fixed(value: float | None, digits: int, unit: str = "") -> Number:
    """Return a plain number with so many decimals, and its unit."""
    if value is None or not math.isfinite(value):
        return _UNDEFINED
    return Number(_minus(f"{value:,.{digits}f}" + (_SPACE + unit if unit else "")), repr(float(value)))


def count(value: int) -> Number:
    """Return a whole number."""
    return Number(_minus(f"{value:,}"), str(value))


def raw(value: int) -> Number:
    """Return a whole number that counts nothing, such as a seed: no thousands are set apart."""
    return Number(_minus(str(value)), str(value))


def p_value(p: float | None) -> Number:
    """Return a p-value: three decimals, or one digit and a power of ten where they would all be zero."""
    if p is None or not math.isfinite(p):
        return _UNDEFINED
    if p >= 0.001:
        return Number(f"{p:.3f}", repr(float(p)))
    if p == 0:
        # An exact p-value is never zero: this one is smaller than a float can tell.
        return Number(f"<{_SPACE}10⁻³⁰⁰", repr(float(p)))
    digits, power = f"{p:.1e}".split("e")
    return Number(f"{digits}{_SPACE}×{_SPACE}10{str(int(power)).translate(_SUPERSCRIPTS)}", repr(float(p)))


def plain(value: object) -> Number:
    """Return whatever the row holds, in the form its type asks for."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _UNDEFINED
    if isinstance(value, bool):
        return Number("yes" if value else "no", str(value).lower())
    if isinstance(value, dict):
        text = ", ".join(f"{name} {_within(number)}" for name, number in value.items())
        return Number(text or "none", ", ".join(f"{name}={number}" for name, number in value.items()))
    if isinstance(value, float):
        return fixed(value, 3)
    return raw(value) if isinstance(value, int) else Number(str(value), str(value))


def _within(value: object) -> str:
    """Return a value of a dictionary: a count, or the two ends of an interval."""
    if isinstance(value, list):
        return " to ".join(plain(end).text for end in value)
    return f"{value:,}" if isinstance(value, int) else plain(value).text


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")

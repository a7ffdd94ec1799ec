"""Numbers in a sentence that stays true: different ones differ, and what holds at least is never rounded up."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

__all__ = ["apart", "at_least"]

#: So many digits write any float64 apart from every other one.
_ALL_DIGITS = 17


def apart(*numbers: float, digits: int = 4) -> list[str]:
    """Return numbers for people, with as few significant digits as tell different ones apart.

    Parameters
    ----------
    *numbers : float
        What is compared in one sentence.
    digits : int
        At least so many.

    Examples
    --------
    >>> apart(0.8095, 0.80952381, digits=2), apart(0.5, 0.5), apart(60, 60.4, digits=1)
    (['0.809', '0.81'], ['0.5', '0.5'], ['60', '60.4'])
    """
    different = len(set(map(float, numbers)))
    for count in range(digits, _ALL_DIGITS):
        shown = [f"{number:.{count}g}" for number in numbers]
        if len(set(shown)) == different:
            return shown
    return [f"{number:.{_ALL_DIGITS}g}" for number in numbers]


def at_least(bound: float, digits: int = 3) -> str:
    """Return a lower bound with so many decimals, rounded down.

    Parameters
    ----------
    bound : float
        Finite, or NaN.
    digits : int

    Examples
    --------
    >>> at_least(0.91958), at_least(0.92), at_least(0.29, 2)
    ('0.919', '0.920', '0.29')
    """
    # By the digits that are shown of it, of which 0.29 has two.
    written = Decimal(repr(float(bound)))
    return f"{written.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR) if written.is_finite() else bound}"

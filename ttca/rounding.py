"""Numbers in one sentence: as few digits as tell different ones apart, so that no error says that 0.81 is not 0.81."""

from __future__ import annotations

__all__ = ["apart"]

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

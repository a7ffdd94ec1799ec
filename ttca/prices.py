"""What queries cost in money: as the action file says, and never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttca.errors import ConfigError

__all__ = ["Price"]


@dataclass(frozen=True, kw_only=True)
class Price:
    """A platform's price.

    Parameters
    ----------
    per_1000 : float
        Of operations.
    currency : str
        As it is written behind a sum.
    operations : int
        How many of them the platform bills for one query (two features of one image are often two).

    Raises
    ------
    ConfigError
        If a number is out of range, or the currency has no name.
    """

    per_1000: float
    currency: str
    operations: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_1000) and self.per_1000 >= 0):
            raise ConfigError(f"Expected price_per_1000 of 0 or more, got {self.per_1000}. Correct it.")
        if not (self.currency.strip() and self.currency.isprintable()):
            raise ConfigError(
                f'Expected currency beside price_per_1000, got {self.currency!r}. Name it, as in currency = "EUR".'
            )
        if self.operations < 1:
            raise ConfigError(f"Expected operations of at least 1 for each query, got {self.operations}. Correct it.")

    def of(self, queries: int) -> float:
        """Return what so many queries cost."""
        return queries * self.operations * self.per_1000 / 1000

    def told(self, queries: int) -> str:
        """Return the same for people.

        Examples
        --------
        >>> Price(per_1000=1.5, currency="EUR", operations=2).told(841)
        '2.52 EUR (1,682 operations at 1.5 EUR per 1,000)'
        """
        units = f"{queries * self.operations:,} {'queries' if self.operations == 1 else 'operations'}"
        return f"{self.of(queries):,.2f} {self.currency} ({units} at {self.per_1000:g} {self.currency} per 1,000)"

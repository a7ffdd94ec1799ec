"""What queries cost, in queries and in money: as the action file says, and never guessed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttca.errors import ConfigError, TTCAError
from ttca.interruption import Interrupted

if TYPE_CHECKING:
    from ttca.pooling.ledger import Ledger

__all__ = ["Price", "bill_of_errors", "billed"]


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


def billed(charged: int, unknown: int, price: Price | None) -> str:
    """Return what was charged, for people: queries, how many of them are unknown, and the sum where it is known.

    Examples
    --------
    >>> billed(3, 1, None)
    'Queries charged: 3, of which 1 unknown (nobody knows whether the platform processed them).'
    """
    doubt = f", of which {unknown} unknown (nobody knows whether the platform processed them)" if unknown else ""
    return f"Queries charged: {charged}{doubt}{'' if price is None else f', {price.told(charged)}'}."


@contextlib.contextmanager
def bill_of_errors(
    ledger: Ledger, action: str, price: Price | None, *, remaining: Callable[[], int] | None = None
) -> Iterator[None]:
    """Add to an error that ends the work, as a note, what this action was charged since the work began.

    An interruption becomes an :class:`~ttca.interruption.Interrupted`, which says also what it was charged in all and
    how many queries remain.

    Parameters
    ----------
    ledger : Ledger
    action : str
    price : Price or None
    remaining : callable, optional
        Returns how many queries the work needs at most from here on.
    """

    def spent() -> tuple[int, int]:
        return sum(ledger.paid(action=action).values()), ledger.unknown(action=action)

    before = spent()
    try:
        yield
    except (TTCAError, KeyboardInterrupt) as error:
        # A ledger that can no longer be read is what the error is about.
        with contextlib.suppress(TTCAError):
            now = spent()
            charged, unknown = now[0] - before[0], now[1] - before[1]
            said = billed(charged, unknown, price)
            if not isinstance(error, TTCAError):
                rest = "" if remaining is None else f"; at most {remaining():,} remain"
                raise Interrupted(f"{said} In all, the action was charged {now[0]:,} so far{rest}.", charged) from None
            error.queries_charged, error.bill = charged, said
            error.add_note(said)
        raise

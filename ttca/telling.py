"""The one logger, ``ttca``: what the library waits for and tries again, without a key or a token in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ttca.masking import masked_everywhere
from ttca.terminal import visible

__all__ = ["LOG", "tell_outage", "tell_retry", "tell_step", "tell_unreadable", "tell_wait"]

LOG = logging.getLogger("ttca")
# Shorter waits are a platform's usual pace, and say nothing; longer ones are told also where nobody asked for it.
_WORTH_TELLING_S, _LONG_S = 1.0, 10.0


def tell_wait(seconds: float, why: str, *, first: bool = False) -> None:
    """Tell of a wait that begins: at INFO, or at WARNING where it is long or the first of its kind."""
    if seconds >= _WORTH_TELLING_S or first:
        level = logging.WARNING if seconds >= _LONG_S or first else logging.INFO
        _tell(level, f"Waiting {seconds:.{0 if seconds >= _WORTH_TELLING_S else 2}f} s. {why}")


def tell_retry(attempt: int, seconds: float, error: Exception) -> None:
    """Tell of an attempt that brought no answer, and of the wait before the next one."""
    level = logging.WARNING if seconds >= _LONG_S else logging.INFO
    _tell(level, f"Attempt {attempt} brought no answer; trying again in {seconds:.1f} s. {error}")


def tell_outage(longest_s: float, error: Exception) -> None:
    """Tell that what answered before cannot be reached any more, and for how long that is waited out."""
    _tell(logging.WARNING, f"No connection any more; trying again for up to {longest_s:.0f} s. {error}")


def tell_unreadable(why: str) -> None:
    """Tell of the first answer, or row of one, that was paid for and could not be read."""
    _tell(logging.WARNING, f"An answer that was paid for could not be read; later ones are not told. {why}")


@contextmanager
def tell_step(what: str) -> Iterator[None]:
    """Tell at INFO that a step begins, and after how many seconds it ended or broke off."""
    _tell(logging.INFO, f"{what} begins.")
    began, how = time.perf_counter(), "broke off"
    try:
        yield
        how = "ended"
    finally:
        _tell(logging.INFO, f"{what} {how} after {time.perf_counter() - began:.1f} s.")


def _tell(level: int, text: str) -> None:
    # Made only where somebody listens: it happens under load.
    if LOG.isEnabledFor(level):
        LOG.log(level, "%s", visible(masked_everywhere(text)))

"""The threads that send requests: some requests go alone, and then all that may."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

__all__ = ["Halts", "work_through"]

R = TypeVar("R")


class Halts(Protocol):
    """What ends the work."""

    @property
    def stopped(self) -> bool:
        """Whether no further request may begin."""

    def stop(self) -> None:
        """Let no further request begin."""


def work_through(
    rest: deque[R], send: Callable[[R], bool], halts: Halts, *, alone: Callable[[bool], R | None], most: int
) -> None:
    """Send all requests, each in a thread of its own: an interruption meets this one, and no answer on its way.

    Parameters
    ----------
    rest : deque
        What is to be sent; it is empty in the end.
    send : callable
        Sends one, and returns whether anything was sent; sends nothing once the work has ended.
    halts : Halts
    alone : callable
        Takes the next request that goes alone out of ``rest``, None where there is none; gets whether the one
        before was sent, at first False.
    most : int
        The most threads, and so the most requests in flight. How many a platform bears is its throttle's to say.

    Raises
    ------
    Exception
        What ``send`` raised first; no request begins after that, and all that were sent have ended.
    """
    executor = ThreadPoolExecutor(most, thread_name_prefix="ttca-pool")
    try:
        sent = False
        while not halts.stopped and (first := alone(sent)) is not None:
            sent = executor.submit(send, first).result()
        futures = [executor.submit(send, request) for request in rest]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    finally:
        # Whatever ended the loop, requests in flight are settled before the error is shown.
        halts.stop()
        executor.shutdown(wait=True, cancel_futures=True)

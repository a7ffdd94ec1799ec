"""The threads that send requests: the first request goes alone, and further threads start as answers come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

__all__ = ["Crew", "Halts"]

R = TypeVar("R")


class Halts(Protocol):
    """What ends the work."""

    @property
    def stopped(self) -> bool:
        """Whether no further request may begin."""

    @property
    def failing(self) -> bool:
        """Whether the last request brought nothing."""

    def stop(self) -> None:
        """Let no further request begin."""


class Crew:
    """How many threads send requests; a crew that has grown stays so."""

    def __init__(self) -> None:
        self._threads = 1

    def work_through(
        self,
        rest: deque[R],
        send: Callable[[R], bool],
        halts: Halts,
        *,
        alone: Callable[[bool], R | None],
        most: int,
        slowly: bool,
    ) -> None:
        """Send all requests, each in a thread of its own: an interruption meets this one, and no answer on its way.

        Parameters
        ----------
        rest : deque
            What is to be sent; sent requests leave it.
        send : callable
            Sends one, and returns whether anything was sent.
        halts : Halts
        alone : callable
            Takes the next request that goes alone out of ``rest``, None where there is none; gets whether the one
            before was sent, at first False.
        most : int
            The most threads, and so the most requests in flight.
        slowly : bool
            Whether to begin with as many threads as the crew had, at first one, and to start another one with each
            request that did not fail (slow start, *published*: Jacobson 1988); else all work at once.

        Raises
        ------
        Exception
            What ``send`` raised first; no request begins after that, and all that were sent have ended.
        """
        turn = threading.Lock()
        working: list[Future[None]] = []
        executor = ThreadPoolExecutor(most, thread_name_prefix="ttca-pool")

        def work() -> None:
            while not halts.stopped:
                with turn:
                    if not rest:
                        return
                    request = rest.popleft()
                send(request)
                with turn:
                    if rest and len(working) < most and not halts.failing and not halts.stopped:
                        working.append(executor.submit(work))
                        self._threads = max(self._threads, len(working))

        try:
            sent = False
            while not halts.stopped and (first := alone(sent)) is not None:
                sent = executor.submit(send, first).result()
            with turn:
                threads = min(self._threads if slowly else most, most, len(rest))
                working += [executor.submit(work) for _ in range(threads)]
            ended = 0
            while ended < len(working):
                # A thread that had an answer may have started another.
                ended = len(working)
                for future in wait(working[:ended], return_when=FIRST_EXCEPTION).done:
                    future.result()
        finally:
            # Whatever ended the loop, requests in flight are settled before the error is shown.
            with turn:
                halts.stop()
            executor.shutdown(wait=True, cancel_futures=True)

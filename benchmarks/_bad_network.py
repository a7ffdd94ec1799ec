"""A network that stalls and breaks: a TCP relay in a thread, whose bytes stop for a while or whose connections die."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["bad_network"]

_CHUNK = 65536


class _Relay:
    def __init__(self, host: str, port: int, *, stall_s: float, every_s: float, breaks: bool, seed: int) -> None:
        self._target = (host, port)
        self._stall_s, self._every_s, self._breaks = stall_s, every_s, breaks
        self._rng = random.Random(seed)
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.stalls = self.broken = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there_writer}
        try:
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        finally:
            self._writers -= {writer, there_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(_CHUNK):
                await self._flows.wait()
                writer.write(content)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def trouble(self) -> None:
        """Stop everything now and then, and where wanted break what is open."""
        self._flows.set()
        while True:
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * self._every_s)
            self._flows.clear()
            self.stalls += 1
            await asyncio.sleep(self._rng.uniform(0.2, 1.0) * self._stall_s)
            if self._breaks:
                for writer in list(self._writers):
                    writer.transport.abort()
                    self.broken += 1
            self._flows.set()


@contextmanager
def bad_network(url: str, *, stall_s: float, every_s: float, breaks: bool, seed: int) -> Iterator[tuple[str, _Relay]]:
    """Give another URL for the same server, behind a network that stalls up to ``stall_s``, every ``every_s`` or so."""
    parts = urlsplit(url)
    relay = _Relay(
        parts.hostname or "127.0.0.1", parts.port or 80, stall_s=stall_s, every_s=every_s, breaks=breaks, seed=seed
    )
    ready = threading.Event()
    ports: list[int] = []
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        ends.append(lambda: loop.call_soon_threadsafe(task.cancel) if task is not None else None)
        server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await relay.trouble()

    def run() -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner() as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="bad-network", daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield f"{parts.scheme}://127.0.0.1:{ports[0]}", relay
    finally:
        for end in ends:
            end()
        thread.join(10)

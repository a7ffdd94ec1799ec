"""Servers in processes of their own: how a benchmark starts and ends them, and what they do for that themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ttca.errors import TTCAError

__all__ = ["announce", "end_when_orphaned", "free_port", "running", "started", "started_in_node"]


@contextmanager
def started(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a program that prints its URL first, give that URL, and kill the program afterwards.

    Parameters
    ----------
    command : sequence of str
    variables : mapping, optional
        The program's environment; ours when not given.

    Raises
    ------
    TTCAError
        If it ends before it has printed one.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=variables) as process:
        try:
            url = "" if process.stdout is None else process.stdout.readline().strip()
            if not url:
                raise TTCAError(
                    f"Expected {' '.join(command[:3])} to start, got a process that ended. See what it printed."
                )
            yield url
        finally:
            process.kill()


@contextmanager
def running(module: str, *arguments: str) -> Iterator[str]:
    """Start a server module of this folder, give its URL, and kill it afterwards; TTCAError if it does not start."""
    with started([sys.executable, "-m", f"benchmarks.{module}", *arguments]) as url:
        yield url


@contextmanager
def started_in_node(script: str, *arguments: str) -> Iterator[str]:
    """Start a Node program of this folder, give its URL, and kill it afterwards.

    Raises
    ------
    TTCAError
        If there is no Node, or it does not start.
    """
    program = shutil.which("node")
    if program is None:
        raise TTCAError("Expected the program node on the PATH, got none. Install Node.js.")
    with started([program, str(Path(__file__).with_name(script)), *arguments]) as url:
        yield url


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def announce(url: str) -> None:
    """Print this process's URL for :func:`started`."""
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


def end_when_orphaned() -> None:
    """End this process once its standard input closes: whoever started it is gone."""

    def watch() -> None:
        sys.stdin.read()
        # The main thread sits in a server's loop; nothing needs saving.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()

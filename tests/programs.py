"""Programs for tests: each a process of its own with streams of its own, forked from one that has ttca loaded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

#: Runs ttca with the words that follow its name.
TTCA = "from ttca.cli import main\nmain()"
#: Defines a function that fails with the member's key and token at hand and in its message.
BROKEN = (
    "import os\n"
    "def broken(*_, **__):\n"
    "    key, token = os.environ['TTCA_KEY_X'].split()[1], os.environ['TTCA_HUB_X']\n"
    "    try:\n"
    "        raise KeyError('X-Api-Key: ' + key)\n"
    "    except KeyError as error:\n"
    "        raise RuntimeError({'Authorization': f'Bearer {token}', 'key': key}) from error\n"
)

# The child leaves the loop, so that its interpreter ends as any other does: buffers, hooks and all.
_PARENT = """
import gc, json, os, socket, sys
import pydantic
import ttca.cli, ttca.config, ttca.members
gc.freeze()  # what is loaded here need not be collected again where a child ends
line = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, streams, _, _ = socket.recv_fds(line, 1 << 16, 2)
    if not message:
        sys.exit()
    if not os.fork():
        break
    for stream in streams:
        os.close(stream)
    line.sendall(str(os.waitstatus_to_exitcode(os.wait()[1])).encode())
line.close()
for number, stream in enumerate(streams, 1):
    os.dup2(stream, number)
    os.close(stream)
wanted = json.loads(message)
named = lambda raw: os.fsdecode(raw.encode("latin-1"))  # as argv is read
os.chdir(named(wanted["home"]))
os.environ.update(wanted["environment"])
sys.argv = ["ttca", *map(named, wanted["words"])]
exec(wanted["code"])
"""


class Programs:
    """Starts programs under one environment; what an interpreter reads when it starts was read once, for all of them.

    Parameters
    ----------
    environment : mapping of str to str
        All that the programs find, the encoding of their streams included.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._line, far = socket.socketpair()
        # One thread: what is forked has no other.
        alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with far:
            self._parent = subprocess.Popen(
                [sys.executable, "-c", _PARENT, str(far.fileno())],
                env={**environment, **alone},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[far.fileno()],
            )

    def run(
        self,
        words: list[str],
        home: Path,
        *,
        code: str = TTCA,
        stdout: int | None = None,
        stderr: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end.

        Parameters
        ----------
        words : list of str
            What follows its name.
        home : path
            Its working folder.
        code : str
            What it does; without it, it is ttca.
        stdout, stderr : int, optional
            Open files that it writes to; what is not given is read.
        extra : mapping of str to str, optional
            More of its environment.
        """
        with ExitStack() as stack:
            read = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            streams = [read[k].fileno() if given is None else given for k, given in enumerate((stdout, stderr))]
            wanted = {
                "words": [os.fsencode(word).decode("latin-1") for word in words],
                "home": os.fsencode(home).decode("latin-1"),
                "code": code,
                "environment": dict(extra or {}),
            }
            socket.send_fds(self._line, [json.dumps(wanted).encode()], streams)
            status = int(self._line.recv(16))
            for file in read:
                file.seek(0)
            return subprocess.CompletedProcess(words, status, *(file.read() for file in read))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._line.close()
        self._parent.communicate(timeout=60)


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, without what decides encodings, with this repository on the path."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))}
    return {**plain, "PYTHONPATH": os.pathsep.join(sys.path), **changes}

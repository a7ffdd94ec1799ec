"""`python -m benchmarks._vendors NAME FOLDER PORT BEHAVIOR`: one emulator in a process of its own, which can be killed.

BEHAVIOR is a JSON object of :class:`~benchmarks._vendors.base.Behavior`'s fields. It ends when standard input closes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks._processes import announce, end_when_orphaned
from benchmarks._vendors import EMULATORS
from benchmarks._vendors.base import Behavior
from ttca.platforms.server import run_app


def main(name: str, folder: str, port: str, behavior: str) -> None:
    """Serve until standard input closes; print the URL first."""
    end_when_orphaned()
    given = json.loads(behavior)
    given["throttles"] = frozenset(given.get("throttles", ()))
    run_app(EMULATORS[name](Path(folder), Behavior(**given)).app(), port=int(port), on_start=announce)


if __name__ == "__main__":
    main(*sys.argv[1:])

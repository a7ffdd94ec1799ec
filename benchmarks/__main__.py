"""`python -m benchmarks NAME [options] [--json]`: run one benchmark, print its result, keep it as a file."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from proxies.runtime import wait_asleep
from ttca.errors import TTCAError

HOME = Path(__file__).resolve().parent
PROTOCOL = 1
NAMES = tuple(sorted(p.stem for p in HOME.glob("*.py") if not p.stem.startswith("_")))
ERR = Console(stderr=True)


def main(argv: list[str]) -> int:
    """Run a benchmark; return the exit status."""
    if not argv or argv[0] not in NAMES:
        ERR.print(f"Expected a benchmark among {', '.join(NAMES)}, got {argv[:1]}.", highlight=False)
        return 2
    wait_asleep()
    # Arrow's own allocator keeps the encoded photographs of a whole data set; the system's gives them back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    name = argv[0]
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        result = module.main(argv[1:])
    except TTCAError as error:
        ERR.print(f"{name}: {error}", highlight=False)
        return 1
    record = {"benchmark": name, "arguments": argv[1:], **_circumstances(), **result}
    # A benchmark of many cells names the file of this one.
    path = HOME / "results" / f"{record.pop('file', name)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    ERR.print(f"Kept in {path.relative_to(HOME.parent)}", highlight=False)
    if "--json" in argv:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        Console().print_json(json.dumps(result))
    return 0


def _circumstances() -> dict[str, Any]:
    """Return what a number needs beside it: protocol, commit, time, hardware, library versions."""
    return {
        "protocol": PROTOCOL,
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"processor": _processor(), "cores": len(_cores()), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in ("torch", "numpy", "scipy")}},
    }


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit, marked where code differs from it; result files of earlier runs are no code."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(HOME), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ":/", ":(exclude)results")
    return (git("describe", "--always") + ("-dirty" if changed else "")) or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

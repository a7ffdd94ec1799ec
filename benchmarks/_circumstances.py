"""What a number needs beside it: protocol, commit, time, hardware, library versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["PROTOCOL", "circumstances", "commit"]

PROTOCOL = 1


def circumstances(home: Path) -> dict[str, Any]:
    """Return what a number needs beside it: protocol, commit, time, hardware, library versions."""
    return {
        "protocol": PROTOCOL,
        "commit": commit(home),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "processor": _processor(),
            "cores": len(_cores()),
            "threads": _threads(),
            "system": platform.system(),
            **_accelerator(),
        },
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in ("torch", "numpy", "scipy")}},
    }


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _threads() -> int | None:
    """Return how many threads torch computes with, which decides last digits; None where nothing loaded it."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _accelerator() -> dict[str, str]:
    """Return the GPU that torch computes on, where there is one and torch is loaded."""
    torch = sys.modules.get("torch")
    return {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}


def _processor() -> str:
    """Return the processor's name, on Linux with family and model: one name may stand for several generations."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        lines = []
    said = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    if "model name" not in said:
        return platform.processor() or platform.machine()
    more = ", ".join(f"{k.removeprefix('cpu ')} {said[k]}" for k in ("cpu family", "model") if k in said)
    return f"{said['model name']} ({more})" if more else said["model name"]


def commit(home: Path) -> str | None:
    """Return the commit, marked where code differs from it; result files of earlier runs are no code."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(home), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ":/", ":(exclude)results")
    return (git("describe", "--always") + ("-dirty" if changed else "")) or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

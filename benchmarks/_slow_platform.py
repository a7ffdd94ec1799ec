"""A platform in a process of its own whose answers take a stated time; it prints its URL and serves until killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttca.images import Images
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import serve

__all__ = ["CLASSES", "IMAGE_SHAPE", "scores", "slow_platform"]

CLASSES = tuple(f"class-{i}" for i in range(10))
IMAGE_SHAPE = (8, 8, 3)


@contextmanager
def slow_platform(latency_s: float, *, log: Path | None = None) -> Iterator[str]:
    """Give the URL of such a platform, and end its process afterwards.

    ``log`` gets one JSON line per processed request before it is answered.
    """
    command = [sys.executable, "-m", "benchmarks._slow_platform", str(latency_s), *([] if log is None else [str(log)])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:  # pragma: no cover - it was asked for
            raise RuntimeError("Expected the platform's output, got none.")
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def scores(images: Images) -> NDArray[np.float64]:
    """Return what the platform says: the first levels of each image, as shares, (N, 10)."""
    levels = images.reshape(len(images), -1)[:, : len(CLASSES)].astype(np.float64) + 1.0
    shares: NDArray[np.float64] = levels / levels.sum(axis=1, keepdims=True)
    return shares


def main(latency_s: float, log: Path | None = None) -> None:
    """Serve on any free port of loopback."""
    quick = LocalPlatform(scores, classes=CLASSES, image_shape=IMAGE_SHAPE, name="slow")
    platform = WithHabits(quick, Habits(latency_s=latency_s))

    def started(url: str) -> None:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()

    serve(platform, on_start=started, access_log=log)


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(Path, sys.argv[2:]))

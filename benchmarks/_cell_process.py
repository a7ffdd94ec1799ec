"""One cell in a process of its own: its result is a file, its memory is measured, and it ends with whoever asked."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["ended", "main", "numbered"]

_HOME = Path(__file__).resolve().parent
#: How often it is looked how much memory a cell and what it started take.
_LOOK_S = 0.5
_RUNNING: set[subprocess.Popen[bytes]] = set()


def numbered(number: int, text: str, until: float | None = None) -> tuple[int, str]:
    """Run an order (:meth:`benchmarks._engines.Order.text`) in a new process, wherever this is; return its file's text.

    Parameters
    ----------
    number : int
        Comes back with the result.
    text : str
    until : float, optional
        Seconds since 1970: later than that, the cell is not begun.

    Returns
    -------
    int, str
        The number, and a JSON object: what :func:`main` wrote; ``failed`` where the process was killed or took too
        much memory; ``skipped`` where it was too late.
    """
    if until is not None and time.time() >= until:
        return number, json.dumps({"skipped": "The time was spent."})
    order = json.loads(text)
    with tempfile.TemporaryDirectory(prefix="ttca-cell-") as folder:
        path = Path(folder) / "cell.json"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(order["threads"]),
            # The same code as here, wherever the worker was started.
            "PYTHONPATH": os.pathsep.join([str(_HOME.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        said = Path(folder) / "said.txt"
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks._cell_process", str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=None if order["shows"] else file,
                env=environment, start_new_session=True,
            )  # fmt: skip
        _RUNNING.add(process)
        try:
            # Left open: its end tells the cell that nobody waits any more. A process that ended at once reads nothing.
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.write(text.encode() + b"\n")
                process.stdin.flush()
            peak, over = _watched(process, order["most_gib"])
        finally:
            _end(process)
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        last = said.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2][-300:]
    if over:
        found = {"failed": f"The cell took more than the {order['most_gib']:g} GiB that it may, and was ended."}
    elif not found:
        how = f"{_how(process.returncode)} before it had a result{f' ({last})' if last else ''}"
        found = {"failed": f"The cell's process {how}. Run it again."}
    return number, json.dumps({**found, "peak_rss_mb": round(peak, 1)})


def ended() -> None:
    """End what :func:`numbered` started in this process."""
    for process in list(_RUNNING):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a cell's process and all that it started: they are a group of their own."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    # It may have ended by itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _RUNNING.discard(process)


def _watched(process: subprocess.Popen[bytes], most_gib: float | None) -> tuple[float, bool]:
    """Wait for the process; return the peak of its memory with all that it started, in MiB, and whether too much."""
    import psutil

    peak = 0.0
    try:
        seen = psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        return peak, False
    while process.poll() is None:
        peak = max(peak, _memory(seen))
        if most_gib is not None and peak > most_gib * 1024:
            return peak, True
        try:
            process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            continue
    return peak, False


def _memory(seen: Any) -> float:
    """Return how much memory a process and its descendants take now, in MiB."""
    import psutil

    total = 0
    for one in (seen, *_children(seen)):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def _children(seen: Any) -> list[Any]:
    import psutil

    try:
        found: list[Any] = seen.children(recursive=True)
    except psutil.Error:
        return []
    return found


def _how(status: int | None) -> str:
    return f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"


def main(path: Path) -> int:
    """Make the cell that one line of standard input orders, and write its file; end at once if that input ends.

    The file has ``digest``, ``facts``, ``code``, ``threads``, ``seconds``, ``peak_rss_mb_alone`` (of this process
    alone), what :func:`benchmarks._circumstances.circumstances` says, and ``cell``, or ``failed``.

    Parameters
    ----------
    path : Path
    """
    order = json.loads(sys.stdin.readline())
    from benchmarks._processes import end_when_orphaned

    end_when_orphaned()
    found = made(order)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(path)
    return 0


def made(order: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`main` writes for an order; of any error that is a sentence, the sentence."""
    from benchmarks._cells import code_digest
    from benchmarks._circumstances import circumstances
    from benchmarks._engines import Order
    from benchmarks._listing import names
    from ttca.errors import ConfigError, TTCAError

    began = time.perf_counter()
    kept: dict[str, Any] = {"digest": order["digest"], "facts": order["facts"], "code": code_digest()}
    here = Order(benchmark=order["benchmark"], facts=order["facts"]).digest
    try:
        if order["benchmark"] not in names():
            raise ConfigError(f"Expected a cell of {', '.join(names())}, got one of {order['benchmark']!r}.")
        if here != order["digest"]:
            raise ConfigError(
                f"Expected this worker to have the code of the cell {order['digest']}, got other code "
                f"({kept['code']}). Install the same commit of ttca on every machine."
            )
        _compute_with(order["threads"])
        kept["cell"] = importlib.import_module(f"benchmarks.{order['benchmark']}").cell_of(order["facts"])
    except TTCAError as error:
        kept["failed"] = str(error)
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        **kept,
        **circumstances(_HOME),
        "threads": order["threads"],
        "seconds": round(time.perf_counter() - began, 2),
        "peak_rss_mb_alone": round(peak, 1),
    }


def _compute_with(threads: int) -> None:
    from ttca.proxies.runtime import wait_asleep

    # As the runner of benchmarks has it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    wait_asleep()
    import torch

    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

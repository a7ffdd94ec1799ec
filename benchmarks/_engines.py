"""Where cells are run: in processes of this machine, or on a cluster of Ray or Dask, through joblib's backends."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks._cell_process import ended, numbered
from benchmarks._cells import code_digest
from ttca.errors import ConfigError, TTCAError
from ttca.extras import need_extras
from ttca.terminal import Terminal

__all__ = ["Engine", "Order", "add_engine", "engine_of", "fetched", "sent"]

_ERR = Terminal(stderr=True)
_WAYS = (
    "local, ray://HOST:PORT, ray://auto (the cluster that this machine belongs to), dask://HOST:PORT or "
    "dask:///PATH/OF/A/SCHEDULER.json; ray://local and dask://local start one here"
)
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
#: How long a batch system may take to start Dask's first worker.
_FOR_WORKERS_S = 600
#: How often Ray runs a cell again whose worker was lost.
_RETRIES = 5


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs cells.

    Parameters
    ----------
    kind : {"local", "ray", "dask"}
    address : str
        ``HOST:PORT``, ``local`` or ``auto``; for Dask also the path of a scheduler's file. Nothing where local.
    jobs : int, optional
        Cells at a time; default one on this machine, and as many as a cluster has cores for.
    threads : int, optional
        That each cell computes with; they decide last digits. Default: this machine's cores shared out among its jobs,
        and one on a cluster.

    Raises
    ------
    ConfigError
        If a number is below one, or the engine cannot run so many cells at a time.
    """

    kind: Literal["local", "ray", "dask"] = "local"
    address: str = ""
    jobs: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ConfigError(f"Expected --{name} of 1 or more, got {value}.")
        if self.kind == "ray" and self.jobs == 1:
            raise ConfigError(
                "Expected --jobs of 2 or more with Ray, got 1: joblib runs a single job on this machine. Use --engine "
                "local."
            )
        if self.kind == "dask" and self.address != "local" and self.jobs is not None:
            raise ConfigError(
                f"Expected no --jobs with a cluster of Dask, got {self.jobs}: a worker runs as many cells as it has "
                "threads. Say --nthreads where it is started."
            )

    @classmethod
    def parse(cls, text: str, *, jobs: int | None = None, threads: int | None = None) -> Engine:
        """Return what an engine's name on the command line means.

        Raises
        ------
        ConfigError
            If it names none.
        """
        kind, scheme, address = text.partition("://")
        if text == "local":
            return cls(jobs=jobs, threads=threads)
        if scheme and kind == "ray" and (address in ("local", "auto") or _is_host(address)):
            return cls(kind="ray", address=address, jobs=jobs, threads=threads)
        if scheme and kind == "dask" and (address == "local" or address.startswith("/") or _is_host(address)):
            return cls(kind="dask", address=address, jobs=jobs, threads=threads)
        raise ConfigError(f"Expected --engine to be {_WAYS}, got {text!r}. Name one of these.")

    @property
    def in_turn(self) -> bool:
        """Whether cells are run one after the other on this machine."""
        return self.kind == "local" and (self.jobs or 1) == 1

    @property
    def cell_threads(self) -> int:
        """How many threads each cell computes with."""
        if self.threads is not None:
            return self.threads
        return max((os.cpu_count() or 1) // (self.jobs or 1), 1) if self.kind == "local" else 1

    def check(self) -> None:
        """Raise MissingExtraError, before anything is done, where the engine's packages are not installed."""
        if self.kind != "local":
            need_extras(f"The engine {self.kind}", self.kind)

    @contextmanager
    def at_work(self) -> Iterator[Any]:
        """Reach the cluster; give the :class:`joblib.Parallel` that hands results over as they come.

        Raises
        ------
        MissingExtraError
            If the engine's packages are not installed.
        TTCAError
            If nothing answers at the address.
        """
        import joblib

        self.check()
        with ExitStack() as stack:
            if self.kind == "local":
                # Each thread waits for a process of its own.
                backend, jobs = {"backend": "threading"}, self.jobs or 1
            elif self.kind == "ray":
                backend, jobs = stack.enter_context(_ray(self))
            else:
                backend, jobs = stack.enter_context(_dask(self))
            stack.enter_context(joblib.parallel_config(n_jobs=jobs, **backend))
            yield joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")


def _is_host(address: str) -> bool:
    found = _HOST.fullmatch(address)
    return found is not None and 0 < int(found[1]) < 65536


@contextmanager
def _ray(engine: Engine) -> Iterator[tuple[dict[str, Any], int]]:
    """Connect to Ray; give the backend's options, and how many cells have room there at a time."""
    import joblib
    import ray
    from ray.util.joblib import register_ray
    from ray.util.joblib.ray_backend import RayBackend

    class Handing(RayBackend):  # type: ignore[misc]
        """Ray's backend, whose results are handed over as they come and not all at the end."""

        supports_return_generator = True

    # A cluster elsewhere has options of its own.
    own: dict[str, Any] = {"log_to_driver": False} if engine.address in ("local", "auto") else {}
    if engine.address == "local":
        cores = (engine.jobs or os.cpu_count() or 1) * engine.cell_threads
        own |= {"num_cpus": cores, "include_dashboard": False}
    where = engine.address if engine.address in ("local", "auto") else f"ray://{engine.address}"
    mine = not ray.is_initialized()
    try:
        if mine:
            ray.init(address=where, **own)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise _unreachable(engine, error) from None
    try:
        register_ray()
        joblib.register_parallel_backend("ray", Handing)
        room = int(ray.cluster_resources().get("CPU", 0)) // engine.cell_threads
        jobs = min(engine.jobs or room, room)
        if jobs < 2:
            raise TTCAError(
                f"Expected a cluster with room for two cells of {engine.cell_threads} core(s) each, got less. Add a "
                "worker, lower --threads, or use --engine local."
            )
        # A lost worker comes back elsewhere, and what it was at is run again: Ray's own doing.
        remote = {"num_cpus": engine.cell_threads, "max_restarts": -1, "max_task_retries": _RETRIES}
        yield {"backend": "ray", "ray_remote_args": remote}, jobs
    finally:
        if mine:
            ray.shutdown()


@contextmanager
def _dask(engine: Engine) -> Iterator[tuple[dict[str, Any], int]]:
    """Connect to Dask; give the backend's options, and how many cells have room there at a time."""
    from distributed import Client, LocalCluster

    if engine.address.startswith("/") and not Path(engine.address).is_file():
        # Dask would wait for it as long as it takes.
        raise _unreachable(engine, FileNotFoundError("there is no such file"))
    with ExitStack() as stack:
        try:
            if engine.address == "local":
                jobs = engine.jobs or max((os.cpu_count() or 1) // engine.cell_threads, 1)
                cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
                client = Client(stack.enter_context(cluster))
            elif engine.address.startswith("/"):
                client = Client(scheduler_file=engine.address)
            else:
                client = Client(f"tcp://{engine.address}")
        except (OSError, TimeoutError, ValueError) as error:
            raise _unreachable(engine, error) from None
        stack.enter_context(client)
        # Otherwise Dask gives a cell up whose workers were lost four times, and joblib waits for it for ever.
        client.run_on_scheduler(_never_give_up)
        try:
            client.wait_for_workers(1, timeout=_FOR_WORKERS_S)
        except TimeoutError:
            raise TTCAError(
                f"Expected a worker at {engine.kind}://{engine.address} within {_FOR_WORKERS_S} s, got none. Start one."
            ) from None
        yield {"backend": "dask", "client": client, "pure": False}, sum(client.ncores().values())


def _never_give_up(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 10**6


def _unreachable(engine: Engine, error: Exception) -> TTCAError:
    return TTCAError(
        f"Expected a cluster at {engine.kind}://{engine.address}, got: {str(error).strip()[:300]}. Start it, or see "
        "docs/clusters.md."
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark's command line say where its cells are run; :func:`engine_of` reads it."""
    parser.add_argument("--engine", default="local", help=f"where cells are run: {_WAYS}")
    parser.add_argument("--jobs", type=int, help="cells at a time, each in its own process; default 1, or all cores")
    parser.add_argument("--threads", type=int, help="threads of each cell; they decide last digits")


def engine_of(options: argparse.Namespace) -> Engine:
    """Return the engine that a command line names; ConfigError or MissingExtraError where there is none."""
    engine = Engine.parse(options.engine, jobs=options.jobs, threads=options.threads)
    engine.check()
    return engine


@dataclass(frozen=True, kw_only=True)
class Order:
    """One cell as it travels: what decides it, and the digest that proves that it arrived whole at the same code.

    Parameters
    ----------
    benchmark : str
        Whose module has ``cell_of(facts)``, which returns the cell as JSON has it.
    facts : mapping
        All that decides the cell besides the code, as JSON has it.
    most_gib : float, optional
        Memory of the cell's process and of all that it starts; one that takes more is ended.
    """

    benchmark: str
    facts: Mapping[str, Any]
    most_gib: float | None = None

    @property
    def digest(self) -> str:
        """Content digest, 24 hex digits: of the facts and of the code that decides a row."""
        said = {"benchmark": self.benchmark, "facts": self.facts, "code": code_digest()}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]

    def text(self, engine: Engine) -> str:
        """Return the order as it is sent: its progress is shown only where it is alone on this machine."""
        return json.dumps(
            {
                **vars(self),
                "digest": self.digest,
                "threads": engine.cell_threads,
                "shows": engine.in_turn,
            },
            sort_keys=True,
        )


def sent(
    orders: Sequence[Order], engine: Engine, *, until: float | None = None, tells: str = "cells"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run cells where the engine says; yield each one's number and what came back of it, as they are finished.

    What comes back is the file's content: ``cell``, or ``failed``, the sentence that says why there is none. A cell
    whose process is killed fails alone; one whose worker is lost is run again by the engine.

    Parameters
    ----------
    orders : sequence of Order
    engine : Engine
    until : float, optional
        Seconds since 1970: no cell is begun later, and such a one is not yielded.
    tells : str
        What they are called where it is said how far it is.
    """
    began, done = time.perf_counter(), 0
    texts = [order.text(engine) for order in orders]
    if not texts:
        return
    with engine.at_work() as parallel:
        import joblib

        work: Iterable[Any] = (joblib.delayed(numbered)(number, text, until) for number, text in enumerate(texts))
        try:
            for number, text in parallel(work):
                done += 1
                if "skipped" in (found := json.loads(text)):
                    continue
                minutes = (time.perf_counter() - began) / 60
                left = len(orders) - done
                rate = f", about {minutes / done * left:.0f} min left" if left else ""
                _ERR.print(f"{done} of {len(orders)} {tells}, {minutes:.1f} min{rate}", highlight=False)
                yield number, found
        finally:
            # Whatever ends this ends what it started here.
            ended()


def fetched(orders: Sequence[Order], engine: Engine, keep: Callable[[int, dict[str, Any]], None]) -> None:
    """Run cells where the engine says, and keep each as soon as it comes back.

    Parameters
    ----------
    orders : sequence of Order
    engine : Engine
    keep : callable
        (number, cell) → nothing.

    Raises
    ------
    TTCAError
        If a cell did not come back; all others are kept.
    """
    lost = []
    for number, found in sent(orders, engine):
        if "failed" in found:
            lost.append(found["failed"])
        else:
            keep(number, found["cell"])
    if lost:
        raise TTCAError(
            f"Expected {len(orders)} cells, got {len(orders) - len(lost)}; of the first that is missing: {lost[0]} The "
            "others are kept. Run the same command again for what is missing."
        )

"""What does the action do by itself, on every track? Cells in a fixed order, each a small file, until time is spent."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks._cells import CellKey, code_digest, racing
from benchmarks._engines import Order, add_engine, engine_of, sent
from benchmarks._grid import EPSILONS, HOURS, MOST_GIB, TRACKS_OF_GRID, Planned, planned
from benchmarks._listing import RESULTS
from benchmarks._peers import cache
from benchmarks._tracks import TRACKS
from benchmarks.transfer import finish
from ttca.errors import ConfigError
from ttca.kept import save_json
from ttca.proxies.runtime import best_device
from ttca.terminal import Terminal

__all__ = ["CELLS", "QUICK", "cell_of", "main"]

_ERR = Terminal(stderr=True)
#: The folder below the result files where cells are kept one by one: the runner gives it to :func:`main`.
CELLS = "grid"
#: The arguments of the slice that `python -m benchmarks quick` runs: the list alone, since a cell takes a whole race.
QUICK = ("--list",)


def main(
    argv: list[str], *, folder: Path = RESULTS / CELLS, keeps: bool = False, replaces: bool = False
) -> dict[str, Any]:
    """Run the cells that are not there yet, in order, and say of every cell whether it is.

    A finished cell is a file in the cache at once, so that whatever ends this costs no other; a later run goes on.

    Parameters
    ----------
    argv : list of str
        See ``--help``.
    folder : Path
        Where cells are kept.
    keeps : bool
        Write every finished cell there, too; one that is there already is not run again, whatever code made it.
    replaces : bool
        Run those again that other code made.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks grid", description=__doc__)
    known = tuple(dict.fromkeys((*TRACKS_OF_GRID, *TRACKS)))
    parser.add_argument("--tracks", nargs="+", choices=known, help="default: the grid's own; with --only, any")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cells by name, * for anything: see --list")
    parser.add_argument("--list", action="store_true", help="say which cells there are, and run none")
    parser.add_argument("--hours", type=float, default=HOURS, help=f"after so many no cell is begun; default {HOURS:g}")
    parser.add_argument("--most", type=int, metavar="N", help="run no more than N cells")
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    engine = engine_of(options)
    if not options.hours > 0 or (options.most is not None and options.most < 1):
        raise ConfigError(f"Expected --hours above 0 and --most of 1 or more, got {options.hours} and {options.most}.")
    tracks = options.tracks or (known if options.only else TRACKS_OF_GRID)
    cells = _chosen(planned(tracks, final=options.final), options.only)
    began = time.perf_counter()
    failed: dict[str, str] = {}
    if not options.list:
        missing = [cell for cell in cells if not _is_there(cell, folder, replaces)]
        missing = missing[: options.most]
        _ERR.print(f"{len(cells) - len(missing)} of {len(cells)} cells need no run.", highlight=False)
        # A GPU's driver alone takes gigabytes in every process.
        most = MOST_GIB if best_device() == "cpu" else None
        orders = [replace(_order(cell), most_gib=most) for cell in missing]
        for number, found in sent(orders, engine, until=time.time() + 3600 * options.hours):
            if "failed" in found:
                failed[missing[number].name] = found["failed"]
                _ERR.print(f"{missing[number].name}: {found['failed']}", highlight=False)
                continue
            path = _cached(orders[number])
            path.parent.mkdir(parents=True, exist_ok=True)
            save_json(path, {"benchmark": "grid", "name": missing[number].name, **found})
            if keeps:
                _keep(path, missing[number], folder)
        for cell in cells if keeps else ():
            # What an earlier run made and did not keep.
            if (path := _cached(_order(cell))).is_file() and not _is_kept(cell, folder, replaces):
                _keep(path, cell, folder)
    return {
        "file": "grid",
        "epsilons": list(EPSILONS),
        "people": "final" if options.final else "dev-test",
        "cells": [{**asdict(cell), "name": cell.name, "is": _state(cell, folder)} for cell in cells],
        "kept": sum(_path(cell, folder).is_file() for cell in cells),
        "of": len(cells),
        "failed": failed,
        "seconds": time.perf_counter() - began,
    }


def _chosen(cells: Iterable[Planned], patterns: Sequence[str] | None) -> list[Planned]:
    """Return the cells of these names; ConfigError where a pattern is that of none."""
    every = list(cells)
    for pattern in patterns or ():
        if not any(fnmatchcase(cell.name, pattern) for cell in every):
            raise ConfigError(
                f"Expected --only to name cells, got {pattern!r}, which is the name of none of {len(every)}. "
                "python -m benchmarks grid --list names them."
            )
    return [cell for cell in every if patterns is None or any(fnmatchcase(cell.name, p) for p in patterns)]


def _order(cell: Planned) -> Order:
    facts = {key: value for key, value in asdict(cell).items() if key != "part"}
    return Order(benchmark="grid", facts={**facts, "epsilons": list(EPSILONS)})


def cell_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return one cell: the rows of an action whose recipes raced, one for each ε, or a single one where nothing won.

    Parameters
    ----------
    facts : mapping
        Of a :class:`benchmarks._grid.Planned`, and ``epsilons``.

    Raises
    ------
    ConfigError
        If there is no such track, or it lacks the regime or the answers.
    """
    if facts["track"] not in TRACKS:
        raise ConfigError(f"Expected a track of {', '.join(TRACKS)}, got {facts['track']}. It is not here yet.")
    track = TRACKS[facts["track"]]
    answers = track.answers[0] if facts["answers"] == "richest" else facts["answers"]
    people = "final" if facts["final"] else "dev-test"
    with track.open_platform(answers) as platform:
        changes = racing(track, platform)
        fingerprint = platform.info.fingerprint
    key = CellKey(
        track.name, facts["regime"], answers, facts["queries"], tuple(facts["epsilons"]), facts["seed"], changes
    )
    found = finish(key, (people,))
    known = {"answers": answers, "people": people, "platform": fingerprint, "left_out": list(changes["left_out"])}
    if "failed" in found:
        return {**known, "impossible": found["failed"], "rows": []}
    return {**known, **found["people"][people]}


def _path(cell: Planned, folder: Path) -> Path:
    return folder / f"{cell.name}.json"


def _cached(order: Order) -> Path:
    return cache() / "finished-cells" / "grid" / f"{order.digest}.json"


def _keep(path: Path, cell: Planned, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = _path(cell, folder)
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")
    partial.replace(kept)


def _is_kept(cell: Planned, folder: Path, replaces: bool) -> bool:
    """Whether a cell is kept; where others are to be replaced, only if this code made it."""
    path = _path(cell, folder)
    return path.is_file() and not (
        replaces and json.loads(path.read_text(encoding="utf-8")).get("code") != code_digest()
    )


def _is_there(cell: Planned, folder: Path, replaces: bool) -> bool:
    return _is_kept(cell, folder, replaces) or _cached(_order(cell)).is_file()


def _state(cell: Planned, folder: Path) -> str:
    """Return what is there of a cell, in words."""
    if _is_kept(cell, folder, replaces=True):
        return "kept"
    if _is_kept(cell, folder, replaces=False):
        return "kept, made by other code"
    return "finished, not kept" if _cached(_order(cell)).is_file() else "not run"

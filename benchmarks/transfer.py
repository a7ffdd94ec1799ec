"""Does it transfer? Every track of the protocol, cell by cell, on dev-test and final people; what is done is kept."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._cells import CellKey, Ran, forget_answers, opened, plain, summary
from benchmarks._circumstances import commit
from benchmarks._engines import Engine, Order, add_engine, engine_of, fetched
from benchmarks._tracks import TRACKS, Regime
from ttca.certificates import Certificate
from ttca.errors import ConfigError, NothingHelpsError, WorthlessProxyError
from ttca.kept import save_json
from ttca.terminal import Terminal

__all__ = ["GRIDS", "QUICK", "Grid", "cell_of", "finish", "main", "quick_key"]

_HOME = Path(__file__).resolve().parent
_ERR = Terminal(stderr=True)
_ROWS = "rows.json"
#: Numbers of a row that no two runs share.
_CLOCKS = frozenset({"seconds", "seconds_distil", "seconds_learn", "peak_rss_mb"})
PEOPLE = ("dev-test", "final")
#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--track", "digits", "--seeds", "2")


@dataclass(frozen=True)
class Grid:
    """Budgets, one family of ε, kinds of answers and regimes; every combination is a cell for each seed."""

    queries: tuple[int, ...]
    epsilons: tuple[int, ...]
    answers: tuple[str, ...]
    regimes: tuple[Regime, ...]


#: What a machine of two cores does, and what a GPU does. A track has no cells for answers or regimes it lacks.
GRIDS = {
    "quick": Grid((500, 2000), (2, 4, 8), (), ("public",)),
    "full": Grid((250, 500, 1000, 2000, 4000), (1, 2, 4, 8), ("scores", "rounded", "label"), ("own", "public")),
}
#: Digits are few and small: other budgets, a wider ε, and no public data. Its camera was made so bad for the demo.
_DIGITS = {
    "quick": Grid((140, 420), (8, 12, 16), (), ("own",)),
    "full": Grid((70, 140, 280, 420), (4, 8, 12, 16), ("scores", "label"), ("own",)),
}
#: What a track leaves out of its settings so that its quick grid ends within ten minutes on two cores.
_SHORTER: dict[str, dict[str, Any]] = {
    "cifar100-resnet32": {"public_epochs": 8, "epochs": 15, "steps": 100},
    **{name: {"steps": 100} for name in TRACKS if name.startswith("cifar10-")},
}


def main(argv: list[str]) -> dict[str, Any]:
    """Run a grid of one track, or what is missing of it, and summarise every cell over seeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks transfer", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), required=True)
    parser.add_argument("--grid", choices=tuple(GRIDS), default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--people",
        nargs="+",
        choices=PEOPLE,
        default=PEOPLE[:1],
        help="people who are measured; final is for docs/RESULTS.md only",
    )
    add_engine(parser)
    parser.add_argument("--repeat", type=int, default=0, help="cells to run a second time, from the start")
    parser.add_argument("--fresh", action="store_true", help="delete the kept cells of this grid and run them again")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    engine = engine_of(options)
    keys = list(grid_keys(options.track, options.grid, options.seeds))
    if options.fresh:
        for key in keys:
            shutil.rmtree(key.home(), ignore_errors=True)
    people = tuple(dict.fromkeys(options.people))
    began = time.perf_counter()
    found = _finished(keys, people, engine)
    seconds = time.perf_counter() - began
    cells = [
        {
            **_named(key),
            "commit": record["commit"],
            "rows": [row for who in people for row in record["people"].get(who, {}).get("rows", ())],
            "equalised_without_delta": {
                who: record["people"].get(who, {}).get("equalised_without_delta") for who in people
            },
            **({"failed": record["failed"]} if "failed" in record else {}),
        }
        for key, record in zip(keys, found, strict=True)
    ]
    return {
        "file": f"transfer-{options.grid}-{options.track}",
        "track": options.track,
        "grid": options.grid,
        "people": list(people),
        "settings": {regime: plain(key.chosen) for regime, key in {key.regime: key for key in keys}.items()},
        "summary": list(_summaries(cells)),
        "cells": cells,
        "seconds": seconds,
        "repeated": _repeated(keys[: options.repeat], people) if options.repeat else None,
    }


def grid_keys(track: str, grid: str, seeds: int) -> Iterator[CellKey]:
    """Yield the cells of a track's grid, seed by seed, so that a first look at everything comes first.

    Raises
    ------
    ConfigError
        If there is no cell.
    """
    of = TRACKS[track]
    chosen = (_DIGITS if track == "digits" else GRIDS)[grid]
    answers = [a for a in chosen.answers or of.answers[:1] if a in of.answers]
    regimes = [r for r in chosen.regimes if r in of.settings]
    if not answers or not regimes or seeds < 1:
        raise ConfigError(f"Expected at least one cell of the {grid} grid of {track}, got none. Ask for a seed.")
    for seed in range(seeds):
        for regime in regimes:
            for answer in answers:
                for queries in chosen.queries:
                    # One training length of the control alone: rows of a quick grid say that they are shortened.
                    quick = {**_SHORTER.get(track, {}), "control_lengths": (1.0,)}
                    changes = quick if grid == "quick" else {}
                    yield CellKey(track, regime, answer, queries, chosen.epsilons, seed, changes)


def quick_key(track: str, queries: int, seed: int) -> CellKey:
    """Return the key of one cell of a track's quick grid, which other benchmarks read when it is finished.

    Raises
    ------
    ConfigError
        If the quick grid has no such budget.
    """
    for key in grid_keys(track, "quick", seed + 1):
        if (key.queries, key.seed) == (queries, seed):
            return key
    raise ConfigError(f"Expected a budget of the quick grid of {track}, got {queries}.")


def finish(key: CellKey, people: Sequence[str]) -> dict[str, Any]:
    """Return what is kept of a cell, after doing what is missing of it.

    Parameters
    ----------
    key : CellKey
    people : sequence of {"dev-test", "final"}
        Who is measured; others that were measured before stay.

    Returns
    -------
    dict
        ``people``: by who they are, ``rows`` (one per ε, each with all controls; a single one where doing nothing won
        a race) and ``equalised_without_delta``; ``commit`` of the code that acted; ``failed``, where no action was
        possible: that is a result too.
    """
    home = key.home()
    path = home / _ROWS
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"people": {}}
    missing = [who for who in people if who not in found["people"]]
    if not missing or "failed" in found:
        return found
    home.mkdir(parents=True, exist_ok=True)
    found.setdefault("commit", commit(_HOME))
    with key.of.open_platform(key.answers) as platform, opened(key, platform) as acting:
        for who in missing:
            rows = []
            certificate: Certificate | None = None
            epsilons: Sequence[int | None] = key.epsilons
            try:
                try:
                    certificate = acting.action.verify()
                    acting.learn_controls(key.epsilons)
                except NothingHelpsError:
                    # The row says so: nobody verified, and there is one for all ε.
                    epsilons = (None,)
                final = who == "final"
                test = (key.of.people(key.queries, key.regime, key.seed, True) if final else acting.cell).test
                for epsilon in epsilons:
                    row, measurement = acting.measure(key.track, test, epsilon)
                    rows.append(Ran(row, certificate, measurement, acting.raced).kept(who))
            except WorthlessProxyError as error:
                found["failed"] = str(error)
                break
            found["people"][who] = {"rows": rows, "equalised_without_delta": acting.equalised_alone(test)}
    save_json(path, found)
    forget_answers(home)
    return found


def cell_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a cell that another process ordered: ``key`` and ``people`` of :func:`finish`."""
    return finish(CellKey.received(facts["key"]), facts["people"])


def _finished(keys: Sequence[CellKey], people: Sequence[str], engine: Engine) -> list[dict[str, Any]]:
    """Finish all cells, where the engine says, and say how far it is and how long it will take."""
    return list(_in_turn(keys, people)) if engine.in_turn else _sent(keys, people, engine)


def _in_turn(keys: Sequence[CellKey], people: Sequence[str]) -> Iterator[dict[str, Any]]:
    began, worked = time.perf_counter(), 0
    for number, key in enumerate(keys, start=1):
        worked += not _is_finished(key, people)
        record = finish(key, people)
        minutes = (time.perf_counter() - began) / 60
        rate = (
            f", about {minutes / worked * (len(keys) - number):.0f} min left" if worked and number < len(keys) else ""
        )
        _ERR.print(f"{number} of {len(keys)} cells, {minutes:.1f} min{rate}", highlight=False)
        yield record


def _sent(keys: Sequence[CellKey], people: Sequence[str], engine: Engine) -> list[dict[str, Any]]:
    """Send what is not finished where the engine says, keep what comes back, and read all of it."""
    missing = [key for key in keys if not _is_finished(key, people)]
    orders = [Order(benchmark="transfer", facts={"key": key.order(), "people": list(people)}) for key in missing]

    def keep(number: int, cell: dict[str, Any]) -> None:
        home = missing[number].home()
        home.mkdir(parents=True, exist_ok=True)
        save_json(home / _ROWS, cell)

    fetched(orders, engine, keep)
    return [finish(key, people) for key in keys]


def _is_finished(key: CellKey, people: Sequence[str]) -> bool:
    """Whether nothing is left to do for a cell."""
    path = key.home() / _ROWS
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return "failed" in found or all(who in found["people"] for who in people)


def _named(key: CellKey) -> dict[str, Any]:
    return {"regime": key.regime, "answers": key.answers, "queries": key.queries, "seed": key.seed}


def _summaries(cells: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield mean and spread over seeds for every regime, kind of answers, budget, ε and people."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        for row in cell["rows"]:
            group = (cell["regime"], cell["answers"], cell["queries"], row["row"]["epsilon"], row["people"])
            grouped.setdefault(group, []).append(row)
    for (regime, answers, queries, epsilon, who), rows in grouped.items():
        yield {
            "regime": regime,
            "answers": answers,
            "queries": queries,
            "epsilon": epsilon,
            "people": who,
            "seeds": len(rows),
            **summary([row["row"] for row in rows]),
            "zero_query_mcnemar_p": [row["zero_query_mcnemar_p"] for row in rows],
        }


def _repeated(keys: Sequence[CellKey], people: Sequence[str]) -> dict[str, Any]:
    """Run cells a second time and name every number that differs but for clocks and memory.

    Nothing is kept from the first time but the proxy that learned from public data alone.
    """
    differing = []
    for key in keys:
        before = finish(key, people)
        home = key.home()
        aside = home.with_name(f"{home.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        home.rename(aside)
        try:
            after = finish(key, people)
        finally:
            shutil.rmtree(home, ignore_errors=True)
            aside.rename(home)
        differing += sorted(_differences(_without_clocks(before["people"]), _without_clocks(after["people"])))
    return {"cells": len(keys), "differing": differing}


def _without_clocks(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _without_clocks(v) for k, v in found.items() if k not in _CLOCKS}
    return [_without_clocks(v) for v in found] if isinstance(found, list) else found


def _differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Yield the places at which two JSON values differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            yield from _differences(first.get(key), second.get(key), f"{place}/{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from _differences(a, b, f"{place}/{number}")
    elif first != second:
        yield place

"""Is the recipe that wins the race the best one? What each candidate is worth, what is chosen, and what that costs."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, CellKey, opened, plain, racing
from benchmarks._engines import Order, add_engine, engine_of, fetched
from benchmarks._tracks import TRACKS
from benchmarks.effect import add_settings, changed
from ttca.errors import ActionError
from ttca.intervals import difference_interval
from ttca.kept import load_json, save_json
from ttca.people import People
from ttca.platforms.base import Platform
from ttca.race_record import NOTHING
from ttca.racing import RaceAnswers, RaceResult, choosers, hear, plan_race, run_race

__all__ = ["QUICK", "SHARES", "Strangers", "cell_of", "curve", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--tracks", "digits", "--queries", "420", "--epsilon", "12", "--orders", "20",
    "--set", "architectures=('perceptron',)", "epochs=5", "public_epochs=5", "steps=10",
)  # fmt: skip

#: Queries of the races that are run again, beside the action's own.
SHARES = (50, 100, 200, 400, 800)


def main(argv: list[str]) -> dict[str, Any]:
    """Race the recipes of every world, and measure each candidate on dev-test people, who have no other role."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks race", description=__doc__)
    parser.add_argument("--tracks", nargs="+", choices=tuple(TRACKS), default=list(TRACKS))
    parser.add_argument("--queries", type=int, default=1000, help="before verification, the race's among them")
    parser.add_argument("--epsilon", type=int, nargs="+", default=[2, 4, 8], help="the family; the middle one is raced")
    parser.add_argument("--answers", help="the kind of answers; by default each track's own")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--orders", type=int, default=200, help="random orders of people in which races are run again")
    add_settings(parser)
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    changes, engine = changed(options.set), engine_of(options)
    cells, away = [], []
    for name in options.tracks:
        track = TRACKS[name]
        answers = options.answers or track.answers[0]
        regime = "own" if "own" in track.settings else next(iter(track.settings))
        with track.open_platform(answers) as platform:
            chosen = racing(track, platform, **changes)
            for seed in range(options.seeds):
                key = CellKey(name, regime, answers, options.queries, tuple(sorted(options.epsilon)), seed, chosen)
                if engine.in_turn:
                    cells.append(_cell(key, platform, options.orders))
                else:
                    away.append(key)
    if away:
        kept = [_path(key, options.orders) for key in away]
        missing = [(key, path) for key, path in zip(away, kept, strict=True) if not path.is_file()]
        orders = [Order(benchmark="race", facts={"key": k.order(), "orders": options.orders}) for k, _ in missing]

        def keep(number: int, cell: dict[str, Any]) -> None:
            path = missing[number][1]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_json(path, cell)

        fetched(orders, engine, keep)
        cells = [load_json(path) for path in kept]
    return {"file": "race", "people": "dev-test", "cells": cells, **_summary(cells)}


def cell_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return one cell that another process ordered."""
    key = CellKey.received(facts["key"])
    with key.of.open_platform(key.answers) as platform:
        return _cell(key, platform, facts["orders"])


def _path(key: CellKey, orders: int) -> Path:
    return key.home() / f"raced-{orders}.json"


def _cell(key: CellKey, platform: Platform, orders: int) -> dict[str, Any]:
    """Return one cell, run or read back; the action is the one that the grid has, too."""
    if (path := _path(key, orders)).is_file():
        return load_json(path)
    began = time.perf_counter()
    with opened(key, platform) as found:
        cell = {
            "track": key.track, "regime": key.regime, "answers": key.answers, "queries": key.queries, "seed": key.seed,
            "settings": plain(key.chosen), **_raced(found, orders=orders, seed=key.seed),
        }  # fmt: skip
    cell["seconds"]["all"] = round(time.perf_counter() - began, 1)
    save_json(path, cell)
    # As a later run reads it.
    return load_json(path)


def _raced(found: Acting, *, orders: int, seed: int) -> dict[str, Any]:
    """Return what an action's race chose, and what every candidate is worth on test people."""
    action = found.action
    raced, sets = action.raced, action.candidates()
    if raced is None:
        raise ActionError("Expected recipes that race, got none. Leave recipe out of --set.")
    test, selection = found.cell.test, action.questions.selection

    def heard(people: People, name: str | None) -> RaceAnswers:
        # Strangers take turns where a candidate was learned once for each half of the pool.
        images, each = people.images.copy(), () if name is None else sets[name]
        for turn, learned in enumerate(each):
            rows = slice(turn, None, len(each))
            images[rows] = learned.apply(people.images[rows], people.classes[rows])
        return hear(found.evaluator.ask(images, purpose="test", epoch="test"), people.classes)

    subgroup, reference = test[test.subgroup], test[~test.subgroup]
    before = heard(subgroup, None).right
    right = {name: heard(subgroup, name).right for name in sets}
    share = {name: float(said.mean()) for name, said in right.items()}
    nothing = float(before.mean())
    best = max(share, key=lambda name: share[name])
    # What is proposed, before it is refined: every part of it was asked about.
    after = right[raced.winner].copy() if raced.proposed else before
    for recipe, names in raced.serves(action.classes).items():
        served = np.isin(subgroup.classes, [action.classes.index(name) for name in names])
        after[served] = (before if recipe == NOTHING else right[recipe])[served]
    span = difference_interval(after.astype(float), before.astype(float), paired=True, persons=subgroup.persons)
    chooser = heard(selection, None), [heard(selection, name) for name in sets]
    return {
        "epsilon": raced.epsilon,
        "reference": float(heard(reference, None).right.mean()),
        "nothing": nothing,
        "candidates": share,
        "best": best,
        "best_of_portfolio": share[best],
        "median_of_portfolio": statistics.median(share.values()),
        "random_choice": statistics.fmean(share.values()),
        "winner": raced.winner,
        "recipe": raced.recipe,
        "chosen": share[raced.winner] if raced.proposed else nothing,
        "combined": float(after.mean()),
        "serves": raced.serves(action.classes),
        "regret": max(share[best], nothing) - (share[raced.winner] if raced.proposed else nothing),
        "regret_of_winner": share[best] - share[raced.winner],
        "gain": None if span is None else [span.low, span.high],
        "worse_than_nothing": span is not None and span.high < 0,
        "race": raced.to_dict(),
        "curve": curve(
            *chooser,
            selection.classes,
            Strangers(before, np.array(list(right.values())), subgroup.classes),
            entered={
                n: math.nan if e.fidelity is None else e.fidelity for n, e in enumerate(raced.entrants) if e.out != 0
            },
            error=raced.error,
            orders=orders,
            seed=seed,
        ),
        "seconds": {"candidates": {e.name: e.seconds for e in raced.entrants}},
    }


@dataclass(frozen=True, eq=False)
class Strangers:
    """Test people, whom no race asks about.

    Parameters
    ----------
    before : bool array, shape (M,)
        Who is answered rightly as they are.
    right : bool array, shape (K, M)
        The same under each candidate.
    classes : int64 array, shape (M,)
        Their true classes.
    """

    before: NDArray[np.bool_]
    right: NDArray[np.bool_]
    classes: NDArray[np.int64]


def curve(
    nothing: RaceAnswers,
    candidates: Sequence[RaceAnswers],
    classes: NDArray[np.int64],
    strangers: Strangers,
    *,
    entered: Mapping[int, float],
    error: float,
    orders: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return how races with other numbers of queries would have ended, over random orders of the same people [ours].

    Parameters
    ----------
    nothing : RaceAnswers
        What was said about selection people as they are.
    candidates : sequence of RaceAnswers
        What was said about the same people under each candidate.
    classes : int64 array, shape (N,)
        Their true classes.
    strangers : Strangers
    entered : mapping of int to float
        The candidates that the platform is asked about, and their proxies' fidelity.
    error : float
        Of each race.
    orders, seed : int
    """
    right, worth, before = strangers.right, strangers.right.mean(axis=1), float(strangers.before.mean())
    rows = np.random.default_rng([seed, 23])
    shuffled: list[NDArray[np.intp]] = [rows.permutation(len(nothing)) for _ in range(orders)]
    racing, own = [candidates[c] for c in entered], right[list(entered)]

    def of(candidate: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = own[candidate]
        return found

    def together(result: RaceResult) -> float:
        served, spared = (
            np.isin(strangers.classes, [s.label for s in some]) for some in (result.switches, result.spared)
        )
        after = np.where(served, of(result.runner_up or 0), of(result.winner))
        return float(np.where(spared, strangers.before, after).mean())

    points = []
    for queries in SHARES:
        try:
            plan = plan_race(candidates=len(racing), persons=len(nothing), queries=queries, error=error)
        except ActionError:
            continue
        results = []
        for order in shuffled:
            able, tested = np.split(order, [len(order) - plan.test])
            o = np.concatenate([able[choosers(plan, nothing.value[able])], tested])
            said = partial(_said, racing, o)
            before_it, fidelity = _in_order(nothing, o), list(entered.values())
            results.append(run_race(plan, before_it, said, fidelity=fidelity, classes=classes[o]))
        gains = [together(r) - float(of(r.winner).mean()) for r in results]
        points.append(
            {
                "queries": queries,
                "asked": plan.queries,
                "regret": statistics.fmean(
                    max(float(worth.max()), before) - (float(of(r.winner).mean()) if r.proposed else before)
                    for r in results
                ),
                "regret_of_winner": statistics.fmean(float(worth.max() - of(r.winner).mean()) for r in results),
                "proposed": statistics.fmean(r.proposed for r in results),
                "combined": statistics.fmean(bool(r.switches or r.spared) for r in results),
                "combined_above_winner": statistics.fmean(gains),
                "combined_below_winner": statistics.fmean(g < 0 for g in gains),
            }
        )
    return points


def _said(candidates: Sequence[RaceAnswers], order: NDArray[np.intp], who: NDArray[np.intp], start: int) -> RaceAnswers:
    people = order[start : start + len(who)]
    value = np.array([candidates[c].value[p] for c, p in zip(who, people, strict=True)])
    return RaceAnswers(value, np.array([candidates[c].right[p] for c, p in zip(who, people, strict=True)], np.bool_))


def _in_order(heard: RaceAnswers, order: NDArray[np.intp]) -> RaceAnswers:
    return RaceAnswers(heard.value[order], heard.right[order])


def _summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what holds over all cells."""
    names = sorted({name for cell in cells for name in cell["candidates"]})
    queries = [point["queries"] for point in cells[0]["curve"]]
    return {
        "regret": statistics.fmean(cell["regret"] for cell in cells),
        "regret_of_winner": statistics.fmean(cell["regret_of_winner"] for cell in cells),
        "regret_of_random_choice": statistics.fmean(c["best_of_portfolio"] - c["random_choice"] for c in cells),
        "regret_of_single_recipes": {
            name: statistics.fmean(
                c["best_of_portfolio"] - c["candidates"][name] for c in cells if name in c["candidates"]
            )
            for name in names
        },
        "best_above_median": [cell["best_of_portfolio"] - cell["median_of_portfolio"] for cell in cells],
        "worse_than_nothing": sum(cell["worse_than_nothing"] for cell in cells),
        "combined": sum(bool(cell["serves"]) for cell in cells),
        "combined_above_chosen": [cell["combined"] - cell["chosen"] for cell in cells],
        **{
            f"{what}_by_queries": {
                str(q): statistics.fmean(p[what] for cell in cells for p in cell["curve"] if p["queries"] == q)
                for q in queries
            }
            for what in ("regret", "regret_of_winner")
        },
    }

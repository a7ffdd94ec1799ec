"""Is the recipe that wins the race the best one? What each candidate is worth, what is chosen, and what that costs."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import Acting, acting, code_digest, from_plain, kept_under, plain, racing, settings_of
from benchmarks._engines import Order, add_engine, engine_of, fetched
from benchmarks._tracks import TRACKS
from benchmarks.effect import add_settings, changed
from ttca.errors import ActionError
from ttca.intervals import difference_interval
from ttca.kept import load_json, save_json
from ttca.people import People
from ttca.platforms.base import Platform
from ttca.race_record import COMBINED
from ttca.racing import RaceAnswers, RaceResult, hear, plan_race, run_race

__all__ = ["QUICK", "SHARES", "cell_of", "curve", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--tracks", "digits", "--queries", "420", "--epsilon", "12", "--orders", "20",
    "--set", "architectures=('perceptron',)", "epochs=5", "public_epochs=5", "steps=10",
)  # fmt: skip

#: Queries of the races that are run again, beside the action's own.
SHARES = (50, 100, 200, 400, 800)
_RESULT = "raced.json"


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
        with track.open_platform(answers) as platform:
            chosen = racing(track, platform, **changes)
            for seed in range(options.seeds):
                facts = {
                    "benchmark": "race", "track": name, "answers": answers, "queries": options.queries, "seed": seed,
                    "epsilons": sorted(options.epsilon), "settings": plain(chosen), "orders": options.orders,
                    "code": code_digest(),
                }  # fmt: skip
                if engine.in_turn:
                    cells.append(_cell(facts, platform, chosen))
                else:
                    away.append(facts)
    if away:
        missing = [facts for facts in away if not (kept_under(facts) / _RESULT).is_file()]
        orders = [Order(benchmark="race", facts=facts) for facts in missing]
        fetched(orders, engine, lambda n, cell: save_json(kept_under(missing[n]) / _RESULT, cell))
        cells = [load_json(kept_under(facts) / _RESULT) for facts in away]
    return {"file": "race", "people": "dev-test", "cells": cells, **_summary(cells)}


def cell_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return one cell that another process ordered."""
    with TRACKS[facts["track"]].open_platform(facts["answers"]) as platform:
        return _cell(facts, platform, from_plain(facts["settings"]))


def _cell(facts: dict[str, Any], platform: Platform, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return one cell, run or read back."""
    track, home = TRACKS[facts["track"]], kept_under(facts)
    if (home / _RESULT).is_file():
        return load_json(home / _RESULT)
    settings = settings_of(track, chosen, epsilons=facts["epsilons"], seed=facts["seed"])
    began = time.perf_counter()
    regime = "own" if "own" in track.settings else next(iter(track.settings))
    with acting(track, platform, settings, queries=facts["queries"], regime=regime, home=home) as found:
        cell = {key: facts[key] for key in ("track", "answers", "queries", "seed", "settings")} | _raced(found, facts)
    cell["regime"] = regime
    cell["seconds"]["all"] = round(time.perf_counter() - began, 1)
    save_json(home / _RESULT, cell)
    # As a later run reads it.
    return load_json(home / _RESULT)


def _raced(found: Acting, facts: Mapping[str, Any]) -> dict[str, Any]:
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
    if raced.recipe == COMBINED:
        served = np.isin(subgroup.classes, [action.classes.index(s.name) for s in raced.switched])
        after[served] = right[raced.runner_up][served]
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
            (np.array(list(right.values())), subgroup.classes),
            orders=facts["orders"],
            seed=facts["seed"],
        ),
        "seconds": {"candidates": {e.name: e.seconds for e in raced.entrants}},
    }


def curve(
    nothing: RaceAnswers,
    candidates: Sequence[RaceAnswers],
    classes: NDArray[np.int64],
    strangers: tuple[NDArray[np.bool_], NDArray[np.int64]],
    *,
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
    strangers : (bool array of shape (K, M), int64 array of shape (M,))
        Who of other people is answered rightly under each candidate, and their true classes.
    orders, seed : int
    """
    right, theirs = strangers
    worth = right.mean(axis=1)
    rows = np.random.default_rng([seed, 23])
    shuffled: list[NDArray[np.intp]] = [rows.permutation(len(nothing)) for _ in range(orders)]

    def together(result: RaceResult) -> float:
        served = np.isin(theirs, [s.label for s in result.switches])
        both = np.where(served, right[result.runner_up or 0], right[result.winner])
        return float(both.mean())

    found = []
    for queries in SHARES:
        try:
            plan = plan_race(candidates=len(candidates), persons=len(nothing), queries=queries)
        except ActionError:
            continue
        results = [
            run_race(plan, _in_order(nothing, o), partial(_said, candidates, o), classes=classes[o]) for o in shuffled
        ]
        gains = [together(r) - float(worth[r.winner]) for r in results]
        found.append(
            {
                "queries": queries,
                "asked": plan.queries,
                "regret": statistics.fmean(float(worth.max() - worth[r.winner]) for r in results),
                "proposed": statistics.fmean(r.proposed for r in results),
                "combined": statistics.fmean(bool(r.switches) for r in results),
                "combined_above_winner": statistics.fmean(gains),
                "combined_below_winner": statistics.fmean(g < 0 for g in gains),
            }
        )
    return found


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
        "combined": sum(cell["recipe"] == COMBINED for cell in cells),
        "combined_above_chosen": [cell["combined"] - cell["chosen"] for cell in cells],
        "regret_by_queries": {
            str(q): statistics.fmean(p["regret"] for cell in cells for p in cell["curve"] if p["queries"] == q)
            for q in queries
        },
    }

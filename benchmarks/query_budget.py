"""Is pooling cheaper than each member attacking alone? Same people, platform and ε: what one more right answer costs.

Run as ``TTCA_DATA=… python -m benchmarks query_budget --track T --json``. The pooled side is a cell of the quick grid
of ``transfer``, run where it is not kept yet. The other side are Square Attack (targeted), SimBA and, from labels
alone, HopSkipJump, for every sampled person by itself. ``WHAT`` says how each number is counted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import opened
from benchmarks._document import commands, filled, results, table
from benchmarks._tracks import TRACKS
from benchmarks.transfer import finish, quick_key
from ttca.attacks.blackbox import Box, PerUser
from ttca.attacks.hopskipjump import hop_skip_jump
from ttca.attacks.simba import simba
from ttca.attacks.square import square
from ttca.costs import Stops, Trials, break_even, cheapest, days_alone, paired, price, prices
from ttca.errors import ActionError, ConfigError
from ttca.images import Images
from ttca.people import People
from ttca.platforms.base import Credential, Platform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["QUICK", "WHAT", "censored", "figure", "main", "tables"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--track", "digits", "--seeds", "1", "--attacked", "60", "--label-attacked", "30", "--abused", "20")
BUDGETS = (50, 100, 250, 500, 1000, 5000)
#: Images of one member: each costs a per-user attack anew, and δ nothing.
IMAGES = (1, 10, 100)
#: Sizes of a group, evenly on a logarithmic scale.
GROUPS = (*(m * 10**e for e in range(5) for m in (1, 2, 5)), 100_000)
ATTACKS = ("square", "simba", "hopskipjump")
_QUERIES = {"digits": 420}
_EPSILONS = {"digits": (8, 16)}
_DRAWS = 2000

#: How each number is counted, beside the numbers.
WHAT = {
    "per-user queries": "one for the image as it is, one more for every image sent until success, right-censored at "
    "the budget; people whom the platform answers rightly cost that one query",
    "square": "targeted at the true class, run anew for every budget, because its patch schedule depends on the "
    "total budget; margin of the scores as loss, first patch .8 of the pixels",
    "simba": "targeted at the true class, one run at the largest budget, read off at every smaller one: the run does "
    "not depend on the budget",
    "hopskipjump": "targeted, from labels alone, one run read off at every budget; it starts from another member's "
    "image of the class, tried at random among the pool's until the platform gets one right: the person who is "
    "attacked pays for every image tried",
    "pooled": "images sent for the pool, audit and verification, all paid once; then no query for any image. Certified "
    "only where its row says so: elsewhere the verification queries bought a refusal",
    "pooled without certificate": "the pool's queries alone",
    "pooled after a look": "everybody first asks about the image as it is (one query) and applies δ only where the "
    "answer is wrong, as every per-user attack does",
    "zero-query": "δ of a proxy that asked nothing: no query, and no certificate",
    "pooled beyond zero-query": "the pooled way, credited only with what it adds to the zero-query δ",
    "gain": "share of people answered rightly afterwards less before; δ may harm, a per-user attack never does",
    "price": "queries per additional right answer: all queries over the additional right answers",
    "break-even": "the fewest images at which the pooled way's price is no higher than the per-user attack's; members "
    "are images over images per member, rounded up",
    "stopping point": "a number of queries after which an attack is given up: every one at which somebody's run ends; "
    "for Square, of the runs of all budgets",
    "cheapest": "that attack's stopping point with the lowest price, chosen anew in every resample. A price without an "
    "outcome rewards solving only the easiest images and giving up on the rest",
    "equal outcome": "that attack's cheapest stopping point that gains at least as much as the pooled way, chosen anew "
    "in every resample; where a resample has none, among those that gain most",
    "headline": "the attack whose cheapest stopping point has the largest break-even, beside that at an equal outcome; "
    "HopSkipJump stands there for fewer people",
    "interval": "two-sided 95 %. Of prices and break-evens: from resampling people (percentiles; a person's seeds stay "
    "together), ways paired. Of gains and their differences: exact and conservative, so that it has a width where "
    "nobody differs: Clopper-Pearson bounds of the shares of people who are better and worse off in at least 1, 2, … "
    "seeds, their mean over these, with Bonferroni's correction; at the stopping point that is named, as if it had "
    "not been chosen",
    "days": "per-key limit of queries a day; alone, all of a member's images at the largest budget",
    "abuse": "the same δ, or the same attack, towards a wrong class: share of people for whom the platform said it",
}


# --- budgets and intervals -----------------------------------------------------------------------------------


def censored(found: PerUser, budget: int, tried: Integers | int = 0) -> tuple[NDArray[np.bool_], Integers]:
    """Return who succeeded within a smaller budget, bool (n,), and the queries that were then paid, int64 (n,).

    For attacks whose run does not depend on the budget (SimBA, HopSkipJump; not Square).

    Parameters
    ----------
    found : PerUser
        A run with at least this budget.
    budget : int
    tried : int64 array or int
        Queries paid beside the run, which the budget must cover too.

    Raises
    ------
    ConfigError
        If the run had less.
    """
    if budget > found.budget:
        raise ConfigError(
            f"Expected a budget of at most the run's {found.budget}, got {budget}. Run the attack with more queries."
        )
    paid = found.queries + tried
    return found.success & (paid <= budget), np.minimum(paid, budget)


def _interval(values: Floats) -> list[float | None]:
    """Return the 2.5 and 97.5 % points, None where there is no finite one."""
    return [_finite(float(np.quantile(values, q, method="inverted_cdf"))) for q in (0.025, 0.975)]


def _verdict(interval: Sequence[float | None], said: str, otherwise: str) -> str:
    """Return what a difference's interval says: ``said`` with more or fewer, where 0 is not in it."""
    low, high = interval
    if low is not None and low > 0:
        return said.format("more")
    return said.format("fewer") if high is not None and high < 0 else otherwise


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- the per-user attacks ------------------------------------------------------------------------------------


def _box(platform: Platform, *, labels: bool = False) -> Box:
    """Return the platform as attacks see it. No ledger: half a million answers that nobody will ask for again."""
    most, credential = platform.info.max_batch, Credential("benchmark")

    def ask(images: Images) -> NDArray[Any]:
        parts = [
            platform.attempt(images[start : start + most], credential, request_id="query-budget")
            for start in range(0, len(images), most)
        ]
        return np.concatenate([part.labels if labels else part.scores for part in parts])

    return ask


def _right(platform: Platform, images: Images, classes: Integers) -> NDArray[np.bool_]:
    """Return whether the platform names the class, bool (n,); no answer is none."""
    said: NDArray[np.bool_] = _box(platform, labels=True)(images) == classes
    return said


def _starts(platform: Platform, pool: People, images: Images, targets: Integers, seed: int) -> tuple[Images, Integers]:
    """Return for each image another member's one of the target class, and how many were tried in vain before it.

    Where the platform gets none of a class right, all were tried in vain and the image itself stands in.
    """
    right = _right(platform, pool.images, pool.classes)
    starts, tried = images.copy(), np.zeros(len(images), np.int64)
    for i, target in enumerate(targets):
        others = np.random.default_rng([seed, i]).permutation(np.flatnonzero(pool.classes == target))
        good = np.flatnonzero(right[others])
        tried[i] = good[0] if len(good) else len(others)
        if len(good):
            starts[i] = pool.images[others[good[0]]]
    return starts, tried


#: By budget: who succeeded, bool (n,), and what each paid, int64 (n,).
Outcomes = dict[int, tuple[NDArray[np.bool_], Integers]]


def _attacked(
    name: str,
    platform: Platform,
    pool: People,
    images: Images,
    targets: Integers,
    *,
    epsilon: int,
    budgets: Sequence[int],
    seed: int,
) -> Outcomes:
    """Attack every image by itself, towards its target, and say what came out at every budget."""

    def rng() -> np.random.Generator:
        return np.random.default_rng([seed, ATTACKS.index(name)])

    most = max(budgets)
    if name == "square":
        runs = {
            b: square(_box(platform), images, targets, epsilon=epsilon, budget=b, rng=rng()) for b in budgets
        }  # fmt: skip
        return {b: (run.success, run.queries) for b, run in runs.items()}
    if name == "simba":
        run = simba(_box(platform), images, targets, epsilon=epsilon, budget=most, rng=rng())
        return {b: censored(run, b) for b in budgets}
    starts, tried = _starts(platform, pool, images, targets, seed)
    run = hop_skip_jump(
        _box(platform, labels=True), images, targets, epsilon=epsilon, budget=most, rng=rng(), starts=starts
    )
    # Who is answered rightly at once needs no start.
    tried[run.success & (run.queries == 1)] = 0
    return {b: censored(run, b, tried) for b in budgets}


# --- one seed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """One seed at one ε. Arrays of ``alone`` and ``pooled`` are over sampled people, ``everybody`` over all."""

    cell: dict[str, Any]
    persons: NDArray[np.str_]
    before: NDArray[np.bool_]
    pooled: dict[str, NDArray[np.bool_]]
    alone: dict[str, Outcomes]
    abuse: dict[str, Outcomes]
    everybody: dict[str, NDArray[np.bool_]]
    everybodys: NDArray[np.str_]


def _one_seed(options: argparse.Namespace, seed: int, epsilons: Sequence[int]) -> dict[int, _Found]:
    key = quick_key(options.track, options.queries, seed)
    if missing := sorted(set(epsilons) - set(key.epsilons)):
        raise ConfigError(f"Expected ε to be one of the cell's {', '.join(map(str, key.epsilons))}, got {missing}.")
    kept = finish(key, (options.people,))
    if "failed" in kept:
        raise ActionError(f"Expected an action to compare with, got a cell that failed: {kept['failed']}")
    rows = {row["row"]["epsilon"]: row for row in kept["people"][options.people]["rows"]}
    with key.of.open_platform(key.answers) as platform, opened(key, platform) as acting:
        test = acting.cell.test
        if options.people == "final":
            test = key.of.people(key.queries, key.regime, seed, True).test
        members = test[test.subgroup]
        # One sample for all seeds; the few whom HopSkipJump attacks are its first, so that all ways meet on them.
        drawn = np.random.default_rng(len(members)).permutation(len(members))[: options.attacked]
        sampled = members[drawn]
        roster = acting.action.roster
        pool = People.concatenate([roster.pool, roster.selection])
        classes = len(platform.info.classes)
        wrong = (sampled.classes + np.random.default_rng([seed, 2]).integers(1, classes, len(sampled))) % classes
        before = _right(platform, members.images, members.classes)
        sets, found = acting.action.learn(), {}
        for epsilon in epsilons:
            opponents = acting.action.opponents(epsilon)
            everybody = {"before": before}
            for name, chosen in (
                ("pooled", sets[epsilon]),
                ("zero_query", opponents.zero_query),
                ("noise", opponents.noise),
            ):
                sent = chosen.apply(members.images, members.classes)
                everybody[name] = _right(platform, sent, members.classes)
            pooled = {name: said[drawn] for name, said in everybody.items()}
            pooled["abuse"] = _right(platform, sets[epsilon].apply(sampled.images, wrong), wrong)
            alone, abuse = {}, {}
            for name in ATTACKS:
                some = slice(options.label_attacked if name == "hopskipjump" else options.attacked)
                alone[name] = _attacked(
                    name, platform, pool, sampled.images[some], sampled.classes[some],
                    epsilon=epsilon, budgets=options.budgets, seed=seed,
                )  # fmt: skip
                few = slice(min(options.abused, some.stop))
                abuse[name] = _attacked(
                    name, platform, pool, sampled.images[few], wrong[few],
                    epsilon=epsilon, budgets=(options.abuse_budget,), seed=seed,
                )  # fmt: skip
            found[epsilon] = _Found(
                rows[epsilon], sampled.persons, before[drawn], pooled, alone, abuse, everybody, members.persons
            )
    return found


# --- all seeds together --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Together:
    """All seeds at one ε: the trials of every way, who everybody is as numbers, and what was paid once."""

    pooled: Mapping[str, Trials]
    alone: Mapping[str, Mapping[int, Trials]]
    fixed: Mapping[str, int]
    actions: int
    size: int

    @classmethod
    def of(cls, found: Sequence[_Found]) -> _Together:
        names = sorted(set(np.concatenate([f.persons for f in found]).tolist()))
        number = {name: i for i, name in enumerate(names)}
        persons = np.array([number[p] for f in found for p in f.persons.tolist()], np.int64)
        before = np.concatenate([f.before for f in found])
        rights = {name: np.concatenate([f.pooled[name] for f in found]) for name in ("pooled", "zero_query")}
        none = np.zeros(len(persons), np.int64)
        pooled = {
            "pooled": Trials(persons, before, rights["pooled"], none),
            "pooled_without_certificate": Trials(persons, before, rights["pooled"], none),
            "pooled_after_a_look": Trials(persons, before, before | rights["pooled"], none + 1),
            "zero_query": Trials(persons, before, rights["zero_query"], none),
            "zero_query_after_a_look": Trials(persons, before, before | rights["zero_query"], none + 1),
            "pooled_beyond_zero_query": Trials(persons, rights["zero_query"], rights["pooled"], none),
        }
        alone = {}
        for name in ATTACKS:
            counts = [len(next(iter(f.alone[name].values()))[0]) for f in found]
            who = np.concatenate([f.persons[:n] for f, n in zip(found, counts, strict=True)])
            first = np.concatenate([f.before[:n] for f, n in zip(found, counts, strict=True)])
            numbers = np.array([number[p] for p in who.tolist()], np.int64)
            alone[name] = {
                budget: Trials(
                    numbers,
                    first,
                    np.concatenate([f.alone[name][budget][0] for f in found]),
                    np.concatenate([f.alone[name][budget][1] for f in found]),
                )
                for budget in found[0].alone[name]
            }
        rows = [f.cell["row"] for f in found]
        pool = sum(row["queries_pool"] for row in rows)
        paid = pool + sum(row["queries_audit"] + row["queries_verification"] for row in rows)
        fixed = {name: paid if name.startswith("pooled") else 0 for name in pooled}
        fixed["pooled_without_certificate"] = pool
        return cls(pooled, alone, fixed, len(found), len(names))

    def meeting(self, way: str, attack: str) -> tuple[Trials, Mapping[int, Trials]]:
        """Return a pooled way and an attack on the people whom the attack was tried on."""
        against = self.alone[attack]
        known = np.zeros(self.size, np.bool_)
        known[next(iter(against.values())).persons] = True
        return self.pooled[way][known[self.pooled[way].persons]], against

    def runs(self, attack: str) -> Mapping[int, Trials]:
        """Return an attack's runs by their budget: Square has one for each, the others one that is read off."""
        found = self.alone[attack]
        return found if attack == "square" else {max(found): found[max(found)]}

    def fixed_each(self, way: str) -> float:
        """Return what one action paid once, the mean over seeds."""
        return self.fixed[way] / self.actions


def _weights(size: int, among: Integers) -> Integers:
    """Return how often each person stands in each resample of those who were tried, int64 (draws, size)."""
    present = np.unique(among)
    drawn = np.random.default_rng(0).multinomial(len(present), np.full(len(present), 1 / len(present)), _DRAWS)
    weights = np.zeros((_DRAWS, size), np.int64)
    weights[:, present] = drawn
    return weights


def _way(together: _Together, way: str) -> dict[str, Any]:
    """Return what a way without a budget gained and costs."""
    trials, fixed = together.pooled[way], together.fixed_each(way)
    n, gained, spent = (int(v) for v in trials.sums(together.size).sum(0))
    drawn = _weights(together.size, trials.persons) @ trials.sums(together.size)
    groups = {}
    for group in GROUPS:
        resampled = np.array([price(fixed, s, g, group, m) for m, g, s in drawn.tolist()])
        groups[str(group)] = {
            "price": _finite(price(fixed, spent, gained, group, n)),
            "interval": _interval(resampled),
        }
    return {
        "people": n,
        "before": float(trials.before.mean()),
        "right": float(trials.after.mean()),
        "gain": gained / n,
        "gain_interval": paired(trials.persons, trials.gains),
        "put_right": int((trials.gains > 0).sum()),
        "spoilt": int((trials.gains < 0).sum()),
        "queries_once": fixed,
        "queries_per_image": spent / n,
        "price_by_group": groups,
    }


def _attack(together: _Together, attack: str) -> dict[str, Any]:
    """Return what a per-user attack gained and costs at every budget, and given up where that is cheapest."""
    budgets: dict[str, Any] = {}
    for budget, trials in together.alone[attack].items():
        n, gained, spent = (int(v) for v in trials.sums(together.size).sum(0))
        drawn = _weights(together.size, trials.persons) @ trials.sums(together.size)
        wrong = trials[~trials.before]
        budgets[str(budget)] = {
            "right": float(trials.after.mean()),
            "gain": gained / n,
            "gain_interval": paired(trials.persons, trials.gains),
            "queries_per_image": spent / n,
            "price": _finite(price(0, spent, gained, 1, n)),
            "interval": _interval(prices(drawn[:, 2], drawn[:, 1])),
            # The field's way to state an attack: only images that the platform gets wrong.
            "of_the_wrong": {
                "people": len(wrong.queries),
                "mean": float(wrong.queries.mean()) if len(wrong.queries) else None,
                "median": float(np.median(wrong.queries)) if len(wrong.queries) else None,
                "failure_rate": float(1 - wrong.after.mean()) if len(wrong.queries) else None,
            },
        }
    stops = cheapest(together.runs(attack), _with_all(_weights(together.size, trials.persons)))
    costs = prices(stops.spent, stops.gained)
    before, right = float(trials.before.mean()), int(trials.before.sum() + stops.gained[0])
    return {
        "people": n,
        "before": before,
        "cheapest": {
            "against": attack,
            "budget": int(stops.budget[0]),
            "stop": int(stops.after[0]),
            "right": right / n,
            "put_right": int(stops.gained[0]),
            "queries_per_image": int(stops.spent[0]) / n,
            "price": _finite(float(costs[0])),
            "interval": _interval(costs[1:]),
        },
        "budgets": budgets,
    }


def _with_all(weights: Integers) -> Integers:
    """Return the resamples after the people themselves, everybody once."""
    return np.concatenate([np.ones((1, weights.shape[1]), np.int64), weights])


def _comparisons(together: _Together, way: str, attack: str) -> Iterator[dict[str, Any]]:
    """Yield where a pooled way overtakes an attack: given up where it is cheapest, at an equal outcome, and never."""
    trials, against = together.meeting(way, attack)
    runs, most = together.runs(attack), max(against)
    weights = _with_all(_weights(together.size, trials.persons))
    # The people themselves first, and then the resamples.
    people, gained, paid = (weights @ trials.sums(together.size)).T
    chosen: dict[str, Stops | None] = {"cheapest": cheapest(runs, weights)}
    # It starts from the zero-query δ, the attack from nothing: their prices compare, their outcomes do not.
    beyond = way == "pooled_beyond_zero_query"
    if not beyond:
        ends = {budget: (weights @ run.sums(together.size)).T for budget, run in runs.items()}
        best = np.max([end[1] for end in ends.values()], axis=0)
        reached = best[0] >= gained[0]
        chosen["equal outcome"] = cheapest(runs, weights, np.minimum(gained, best)) if reached else None
        all_of_it = np.full(len(weights), most)
        chosen["largest"] = Stops(all_of_it, all_of_it, ends[most][1], ends[most][2])
    fixed, actions = together.fixed[way], together.actions
    for how, stops in chosen.items():
        if stops is None:
            yield {"way": way, "against": attack, "budget_is": how, "budget": None, "stop": None}
            continue
        sizes = break_even(fixed, actions, people, gained, paid, stops.gained, stops.spent)
        saved = stops.spent - paid
        total = np.where(saved > 0, np.ceil(fixed / actions * people / np.maximum(saved, 1)), np.inf)
        low, high = _interval(sizes[1:])
        alone, stop = runs[int(stops.budget[0])], int(stops.after[0])
        difference = trials.after.astype(np.int64) - (alone.after & (alone.queries <= stop))
        yield {
            "way": way,
            "against": attack,
            "budget_is": how,
            "budget": int(stops.budget[0]),
            "stop": stop,
            "people": int(people[0]),
            "gain": float(gained[0] / people[0]),
            "gain_alone": float(stops.gained[0] / people[0]),
            "gain_difference": None if beyond else float(difference.mean()),
            "gain_difference_interval": None if beyond else paired(trials.persons, difference),
            "images": _finite(float(sizes[0])),
            "interval": [low, high],
            "never_share_of_resamples": float(np.isinf(sizes[1:]).mean()),
            "members": {
                str(k): {"size": _members(float(sizes[0]), k), "interval": [_members(low, k), _members(high, k)]}
                for k in IMAGES
            },
            # Where pooling sends fewer queries in all, whatever they bought.
            "fewer_queries_from_images": _finite(float(total[0])),
            "fewer_queries_interval": _interval(total[1:]),
        }


def _members(images: float | None, each: int) -> int | None:
    return None if images is None or math.isinf(images) else math.ceil(images / each)


def _days(together: _Together, quota: int) -> dict[str, Any]:
    """Return how long either way takes under a limit of queries a day for each key."""
    paid = together.fixed_each("pooled")
    alone: dict[str, Any] = {}
    for attack, budgets in together.alone.items():
        trials = budgets[max(budgets)]
        alone[attack] = {"budget": max(budgets), "helped": float(trials.after.mean()), "images": {}}
        for k in IMAGES:
            days = days_alone(trials.queries, quota, k, 0)
            marks = {name: int(np.quantile(days, q, method="inverted_cdf")) for name, q in _MARKS_OF_DAYS.items()}
            alone[attack]["images"][str(k)] = {**marks, "mean": float(days.mean())}
    return {
        "quota_per_day": quota,
        "pooled": {
            "queries": paid,
            "helped": float(together.pooled["pooled"].after.mean()),
            "days_by_group": {str(g): math.ceil(paid / (quota * g)) for g in GROUPS},
            "members_for_one_day": math.ceil(paid / quota),
        },
        "alone": alone,
    }


_MARKS_OF_DAYS = {"median": 0.5, "90 %": 0.9, "last": 1.0}


def _zero_query(found: Sequence[_Found]) -> dict[str, Any]:
    """Return what the pool's queries bought beyond the δ of a proxy that asked nothing, on all test people."""
    names = sorted(set(np.concatenate([f.everybodys for f in found]).tolist()))
    number = {name: i for i, name in enumerate(names)}
    persons = np.array([number[p] for f in found for p in f.everybodys.tolist()], np.int64)
    said = {name: np.concatenate([f.everybody[name] for f in found]) for name in found[0].everybody}
    trials = Trials(persons, said["zero_query"], said["pooled"], np.zeros(len(persons), np.int64))
    interval = paired(persons, trials.gains)
    return {
        "people": len(persons),
        **{name: float(value.mean()) for name, value in said.items()},
        "difference": float(trials.gains.mean()),
        "interval": interval,
        "mcnemar_p": [f.cell["zero_query_mcnemar_p"] for f in found],
        "queries_bought": _verdict(interval, "{} right answers", "nothing beyond chance"),
    }


def _epsilon(found: Sequence[_Found], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything about one ε."""
    together = _Together.of(found)
    rows = [f.cell["row"] for f in found]
    parts = ("pool", "audit", "verification")
    comparisons = [
        line
        for way in ("pooled", "pooled_without_certificate", "pooled_after_a_look", "pooled_beyond_zero_query")
        for attack in ATTACKS
        for line in _comparisons(together, way, attack)
    ]
    abuse = {
        name: {
            "people": sum(len(f.abuse[name][options.abuse_budget][0]) for f in found),
            "budget": options.abuse_budget,
            "success": float(np.concatenate([f.abuse[name][options.abuse_budget][0] for f in found]).mean()),
            "queries_per_image": float(np.concatenate([f.abuse[name][options.abuse_budget][1] for f in found]).mean()),
        }
        for name in ATTACKS
    }
    # The same people and wrong classes as the attacks', beside the row's own.
    few = max(min(options.abused, options.attacked), 1)
    same = np.concatenate([f.pooled["abuse"][:few] for f in found])
    pooled_abuse = {
        "success": float(same.mean()),
        "people": len(same),
        "everybody": float(np.mean([row["abuse_rate"] for row in rows])),
    }
    return {
        "pooled_paid": {part: [row[f"queries_{part}"] for row in rows] for part in parts},
        "on_attacked_people": {
            "people": sum(len(f.before) for f in found),
            **{name: float(np.concatenate([f.pooled[name] for f in found]).mean()) for name in found[0].pooled},
        },
        "on_all_test_people": _zero_query(found),
        "ways": {way: _way(together, way) for way in together.pooled if way != "pooled_beyond_zero_query"},
        "attacks": {attack: _attack(together, attack) for attack in ATTACKS},
        "comparisons": comparisons,
        "break_even": _hardest(comparisons, "cheapest"),
        "days": _days(together, options.quota),
        "abuse": {"pooled": pooled_abuse, **abuse},
        "cells": [f.cell for f in found],
    }


def _hardest(comparisons: Sequence[dict[str, Any]], how: str) -> dict[str, Any]:
    """Return the break-even against the attack that pooling finds hardest to beat on price, given up in this way."""

    def size(line: Mapping[str, Any]) -> float:
        return math.inf if line.get("images") is None else float(line["images"])

    lines = [c for c in comparisons if c["way"] == "pooled" and c["budget_is"] == how]
    # Who never gains as much stands behind everybody who does.
    return max(lines, key=lambda line: (line["budget"] is not None, size(line)))


def main(argv: list[str]) -> dict[str, Any]:
    """Compare one kept action with per-user attacks on the same people; prints nothing.

    Parameters
    ----------
    argv : list of str
        See ``--help``; ``--json`` is for the caller, who does the printing.

    Raises
    ------
    ConfigError
        If a number is out of its range, or the cell has no such ε.
    ActionError
        If the cell's action failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks query_budget", description=__doc__)
    parser.add_argument("--track", choices=tuple(TRACKS), required=True)
    parser.add_argument("--queries", type=int, help="images sent for the pool; default 420 on digits, else 500")
    parser.add_argument(
        "--epsilon", type=int, nargs="+", help="levels of 255; default 8 and 16 on digits, else 4 and 8"
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="queries per image")
    parser.add_argument("--attacked", type=int, default=200, help="subgroup test people for Square and SimBA")
    parser.add_argument(
        "--label-attacked", type=int, default=60, help="how many of the --attacked people HopSkipJump attacks"
    )
    parser.add_argument("--abused", type=int, default=30, help="how many of them are attacked toward a wrong class")
    parser.add_argument("--abuse-budget", type=int, default=250, help="queries per image toward a wrong class")
    parser.add_argument("--quota", type=int, default=50, help="queries per day that a platform allows each key")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--final", action="store_true", help="measure on final people (for docs/RESULTS.md only)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if options.queries is None:
        options.queries = _QUERIES.get(options.track, 500)
    options.budgets = sorted(set(options.budgets))
    options.people = "final" if options.final else "dev-test"
    options.label_attacked = min(options.label_attacked, options.attacked)
    epsilons = sorted(set(options.epsilon or _EPSILONS.get(options.track, (4, 8))))
    counts = ("attacked", "label_attacked", "abused", "abuse_budget", "quota", "seeds")
    if low := [name for name in counts if getattr(options, name) < 1]:
        raise ConfigError(f"Expected --{low[0].replace('_', '-')} of 1 or more, got {getattr(options, low[0])}.")
    if options.budgets[0] < 1:
        raise ConfigError(f"Expected budgets of 1 query or more, got {options.budgets[0]}. The first query needs one.")
    if TRACKS[options.track].answers[0] == "label":
        raise ConfigError(f"Expected a platform that gives scores, for Square and SimBA, got {options.track}.")
    began = time.perf_counter()
    found = [_one_seed(options, seed, epsilons) for seed in range(options.seeds)]
    made = {str(e): _epsilon([by_epsilon[e] for by_epsilon in found], options) for e in epsilons}
    row = found[0][epsilons[0]].cell["row"]
    return {
        "file": f"query_budget-{options.track}" + ("-final" if options.final else ""),
        "track": options.track,
        "regime": row["regime"],
        "answers": row["answers"],
        "people": options.people,
        "queries": options.queries,
        "seeds": list(range(options.seeds)),
        "budgets": options.budgets,
        "attacked": options.attacked,
        "label_attacked": options.label_attacked,
        "abused": options.abused,
        "images_per_member": list(IMAGES),
        "resamples": _DRAWS,
        "what": WHAT,
        "break_even": {e: result["break_even"] for e, result in made.items()},
        "epsilons": made,
        "seconds": time.perf_counter() - began,
    }


# --- the picture ---------------------------------------------------------------------------------------------

#: Okabe and Ito's colours, told apart by everybody.
_COLOURS = {
    "pooled": "#0072B2",
    "pooled_after_a_look": "#56B4E9",
    "square": "#D55E00",
    "simba": "#009E73",
    "hopskipjump": "#CC79A7",
}
_NAMES = {
    "pooled": "pooled",
    "pooled_without_certificate": "pooled, no certificate",
    "pooled_after_a_look": "pooled, after a look",
    "pooled_beyond_zero_query": "pooled, beyond zero-query",
    "zero_query": "zero-query δ",
    "zero_query_after_a_look": "zero-query δ, after a look",
    "square": "Square",
    "simba": "SimBA",
    "hopskipjump": "HopSkipJump (labels)",
}


def figure(record: Mapping[str, Any]) -> Figure:
    """Return the break-even curve: price against group size, one panel per ε, bands 95 % over people.

    Parameters
    ----------
    record : dict
        What :func:`main` returned. One image per member; with k of them, divide the group by k.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epsilons = record["epsilons"]
    drawn = Figure(figsize=(5.2 * len(epsilons), 4.2), layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(1, len(epsilons), sharey=True, squeeze=False)[0]
    for panel, (epsilon, result) in zip(panels, epsilons.items(), strict=True):
        for way in ("pooled", "pooled_after_a_look"):
            groups = result["ways"][way]["price_by_group"]
            x = np.array([int(g) for g in groups])
            y = np.array([_or_nan(v["price"]) for v in groups.values()])
            low, high = (np.array([_or_nan(v["interval"][i]) for v in groups.values()]) for i in (0, 1))
            panel.plot(x, y, color=_COLOURS[way], label=_NAMES[way])
            panel.fill_between(x, low, high, color=_COLOURS[way], alpha=0.18, lw=0)
        for attack in ATTACKS:
            at = result["attacks"][attack]["cheapest"]
            if at["price"] is None:
                continue
            panel.axhline(at["price"], color=_COLOURS[attack], ls="--", label=_given_up(at))
            least, most = (_or_nan(v) for v in at["interval"])
            panel.fill_between([GROUPS[0], GROUPS[-1]], least, most, color=_COLOURS[attack], alpha=0.12, lw=0)
        point = result["break_even"]
        if point["images"] is not None:
            against = result["attacks"][point["against"]]["cheapest"]
            panel.plot([point["images"]], [against["price"]], "o", color="black", zorder=5)
            panel.annotate(
                f"break-even {_sized(point['images'], point['interval'])}", (point["images"], against["price"]),
                xytext=(0, -18), textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
        zero = result["ways"]["zero_query"]
        panel.set(xscale="log", yscale="log", xlabel="group size, one image per member")
        panel.set_title(
            f"{record['track']}, ε = {epsilon}/255. Right before {zero['before']:.2f}, pooled "
            f"{result['ways']['pooled']['right']:.2f},\nzero-query δ {zero['right']:.2f} (no queries: no line)",
            fontsize=9,
        )
        panel.grid(alpha=0.25, which="major")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("queries per additional right answer")
    return drawn


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


# --- the document --------------------------------------------------------------------------------------------

_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "query_budget.md"


def tables(records: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return the document's parts by the name of their marks, as Markdown, from result files with their names."""
    return {
        "commands": commands(records),
        "findings": "\n".join(_findings(records)) or table((), ()),
        "attacks": _attacks_table(records),
        "ways": _ways_table(records),
        "break_even": _break_even_table(records),
        "days": _days_table(records),
        "controls": _controls_table(records),
    }


def _each(
    records: Sequence[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield file, "track, people, ε", the record and what it says about that ε."""
    for name, record in records:
        for epsilon, result in record["epsilons"].items():
            yield name, f"{record['track']}, {record['people']}, ε = {epsilon}", record, result


def _number(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value != round(value) else f"{value:.0f}"


def _whole(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def _sized(value: float | None, interval: Sequence[float | None]) -> str:
    return f"{_whole(value)} ({_whole(interval[0])}–{_whole(interval[1])})"


def _signed(value: float, interval: Sequence[float | None]) -> str:
    low, high = (_or_nan(v) for v in interval)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _given_up(at: Mapping[str, Any]) -> str:
    """Return an attack and the queries after which it is given up; of Square also the budget that shapes its run."""
    said = f"{_NAMES[at['against']]}, given up after {_stop(at)}"
    return f"{said} queries" if at["against"] != "square" else said


def _stop(at: Mapping[str, Any]) -> str:
    of = f" queries of a run for {at['budget']:,}" if at["against"] == "square" else ""
    return f"{at['stop']:,}{of}"


def _spread(values: Sequence[int]) -> str:
    """Return what every seed paid, or from the least to the most."""
    return f"{min(values):,}" if len(set(values)) == 1 else f"{min(values):,}–{max(values):,}"


def _certified(result: Mapping[str, Any]) -> int:
    """Return in how many seeds parity was certified at this ε."""
    return sum(bool(cell["row"]["parity_certified"]) for cell in result["cells"])


def _findings(records: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return sentences that say plainly where pooling wins and where it loses, and whom each is from."""
    lines = []
    for name, where, record, result in _each(records):
        zero, paid = result["on_all_test_people"], result["ways"]["pooled"]["queries_once"]
        ours = [c for c in result["comparisons"] if c["way"] == "pooled"]
        point, equal = (_hardest(ours, how) for how in ("cheapest", "equal outcome"))
        lines.append(
            f"- **{where}** (`{name}`): {_against(point)} {_scope(record, point['people'])}. The action paid "
            f"{_number(paid)} queries once."
        )
        if equal["budget"] is None:
            nobody = "no attack gains as much as pooling, wherever it is given up"
            lines.append(f"  - *Equal outcome*: {nobody} {_scope(record, result['on_attacked_people']['people'])}.")
        else:
            lines.append(f"  - *Equal outcome*: {_against(equal)} {_scope(record, equal['people'])}.")
        for c in (c for c in ours if c["budget_is"] == "largest"):
            interval = c["gain_difference_interval"]
            verdict = _verdict(interval, "pooling puts {} people right", "no difference beyond chance")
            lines.append(
                f"  - Gain of pooling less that of {_NAMES[c['against']]} at {c['budget']:,} queries: "
                f"{_signed(c['gain_difference'], interval)}: {verdict} {_scope(record, c['people'])}."
            )
        certified, verified = _certified(result), sum(cell["certificate"]["before"]["m"] for cell in result["cells"])
        queries = _spread(result["pooled_paid"]["verification"])
        refused = "" if certified else ", which bought a refusal"
        lines.append(
            f"  - Parity was certified in {certified} of {len(record['seeds'])} seeds, with {queries} verification "
            f"queries each{refused} {_scope(record, verified)}."
        )
        lines.append(
            f"  - S on all test people {zero['pooled']:.3f}; with the zero-query δ, which costs no query, "
            f"{zero['zero_query']:.3f}: {_signed(zero['difference'], zero['interval'])}. The pool's queries bought "
            f"{zero['queries_bought']} {_scope(record, zero['people'])}."
        )
    return lines


def _scope(record: Mapping[str, Any], trials: int) -> str:
    """Return how many seeds and people trials are from; what one seed says, it says of its pool."""
    seeds = len(record["seeds"])
    return f"({f'{seeds} seeds' if seeds > 1 else 'for this one pool'}, {trials // seeds:,} people)"


def _against(point: Mapping[str, Any]) -> str:
    """Return from where on pooling is cheaper than an attack."""
    if point["images"] is None:
        return f"pooling never gets as cheap per additional right answer as {_given_up(point)}"
    return (
        f"pooling costs more per additional right answer than {_given_up(point)}, below "
        f"{_sized(point['images'], point['interval'])} images, and less from there on"
    )


def _attacks_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, record, result in _each(records):
        for attack in ATTACKS:
            found = result["attacks"][attack]
            for budget, at in found["budgets"].items():
                wrong = at["of_the_wrong"]
                if wrong["mean"] is None:
                    continue
                lines.append(
                    (
                        where, _NAMES[attack], f"{int(budget):,}", f"{wrong['people']} of {found['people']}",
                        len(record["seeds"]), f"{wrong['mean']:.1f}", f"{wrong['median']:.1f}",
                        f"{wrong['failure_rate']:.3f}", f"{at['gain']:.3f}", _number(at["price"]),
                    )
                )  # fmt: skip
    head = ("track, people", "attack", "budget", "answered wrongly, of", "seeds", "mean queries", "median",
            "failure rate", "gain of all", "queries per additional right answer")  # fmt: skip
    return table(head, lines)


def _ways_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, record, result in _each(records):
        for way, found in result["ways"].items():
            prices = [found["price_by_group"][str(g)] for g in (1, 100, 10_000)]
            paid_for = way in ("pooled", "pooled_after_a_look")
            certified = f"{_certified(result)} of {len(record['seeds'])} seeds" if paid_for else "–"
            lines.append(
                (
                    where, _NAMES[way], certified, found["people"], f"{found['before']:.3f} → {found['right']:.3f}",
                    f"{found['put_right']} / {found['spoilt']}", _number(found["queries_once"]),
                    f"{found['queries_per_image']:.0f}",
                    *(_number(p["price"]) for p in prices),
                )
            )  # fmt: skip
        for attack in ATTACKS:
            found = result["attacks"][attack]
            if (at := found["cheapest"])["price"] is None:
                continue
            right = f"{found['before']:.3f} → {at['right']:.3f}"
            cost = (0, f"{at['queries_per_image']:.1f}", *[_number(at["price"])] * 3)
            lines.append((where, _given_up(at), "–", found["people"], right, f"{at['put_right']} / 0", *cost))
    head = ("track, people", "way", "parity certified", "images", "right before → with it", "put right / spoilt",
            "queries once", "queries per image", "price, group of 1", "of 100", "of 10,000")  # fmt: skip
    return table(head, lines)


def _break_even_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, _, result in _each(records):
        for c in result["comparisons"]:
            # The variants of pooling only where it has it hardest; the file holds the rest.
            if c["way"] != "pooled" and (c["against"], c["budget_is"]) != (result["break_even"]["against"], "cheapest"):
                continue
            if c["budget"] is None:
                nobody = (_NAMES[c["way"]], f"{_NAMES[c['against']]}, {c['budget_is']}: never gains as much")
                lines.append((where, *nobody, *["–"] * 5))
                continue
            lines.append(
                (
                    where, _NAMES[c["way"]], f"{_NAMES[c['against']]}, {c['budget_is']}: {_stop(c)}",
                    "–"
                    if c["gain_difference"] is None
                    else _signed(c["gain_difference"], c["gain_difference_interval"]),
                    *(_sized(c["members"][str(k)]["size"], c["members"][str(k)]["interval"]) for k in IMAGES),
                    _sized(c["fewer_queries_from_images"], c["fewer_queries_interval"]),
                )
            )  # fmt: skip
    sizes = (f"members, {k} image{'s' if k > 1 else ''} each" for k in IMAGES)
    head = ("track, people", "way", "against, given up after", "gain less the attack's", *sizes,
            "fewer queries in all from images")  # fmt: skip
    return table(head, lines)


def _days_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for _, where, _, result in _each(records):
        days = result["days"]
        pooled, quota = days["pooled"], days["quota_per_day"]
        by = pooled["days_by_group"]
        groups = ", ".join(f"{by[str(g)]:,} for {g:,}" for g in (1, 10, 100, 1000))
        once = (f"{groups} members; one day from {pooled['members_for_one_day']:,} on", "the same", "the same")
        lines.append((where, quota, "pooled, once", f"{pooled['helped']:.3f}", *once))
        for attack, found in days["alone"].items():
            each = [found["images"][str(k)] for k in IMAGES]
            told = [f"{e['median']:,} / {e['90 %']:,} / {e['last']:,}" for e in each]
            lines.append((where, quota, f"{_NAMES[attack]}, {found['budget']:,}", f"{found['helped']:.3f}", *told))
    head = ("track, people", "queries a day", "way", "right then",
            *(f"days, {k} image{'s' if k > 1 else ''} each (median / 90 % / last)" for k in IMAGES))  # fmt: skip
    return table(head, lines)


def _controls_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    lines = []
    for name, where, _, result in _each(records):
        everybody, some, abuse = result["on_all_test_people"], result["on_attacked_people"], result["abuse"]

        def three(of: Mapping[str, Any]) -> str:
            return " / ".join(f"{of[k]:.3f}" for k in ("before", "pooled", "zero_query", "noise"))

        paid = " + ".join(_spread(v) for v in result["pooled_paid"].values())
        alone = ", ".join(f"{_NAMES[a]} {abuse[a]['success']:.3f}" for a in ATTACKS)
        p = ", ".join(f"{v:.2g}" for v in everybody["mcnemar_p"])
        pooled = f"{abuse['pooled']['success']:.3f} / {abuse['pooled']['everybody']:.3f}"
        cells = (paid, three(everybody), three(some), p, pooled, alone, f"`{name}`")
        lines.append((where, *cells))
    head = ("track, people", "paid: pool + audit + verification", "all: before / pooled / zero-query / noise",
            "attacked people: the same", "pooled against zero-query, p by seed",
            "abuse, pooled: the same people / everybody", "alone, towards a wrong class", "file")  # fmt: skip
    return table(head, lines)


if __name__ == "__main__":
    # ``python -m benchmarks.query_budget``, with a dot: the document's tables from the result files.
    _DOCUMENT.write_text(
        filled(_DOCUMENT.read_text(encoding="utf-8"), tables(results("query_budget-*.json"))), encoding="utf-8"
    )

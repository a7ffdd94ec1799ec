"""Is pooling cheaper than each member attacking alone? Same people, platform and ε: what one more right answer costs.

Run as ``TTCA_DATA=… python -m benchmarks query_budget --track T --json``. The pooled side is a cell of the quick grid
of ``transfer``, run where it is not kept yet. The other side are Square Attack (targeted), SimBA and, from labels
alone, HopSkipJump, for every sampled person by itself. With ``--from-proxy`` there is also Square from where the δ of a
proxy of public data has brought the image, the strongest that somebody alone can do here. ``WHAT`` says how each number
is counted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._cells import opened
from benchmarks._credit import hardest, told_apart
from benchmarks._kept_rows import queries
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
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Credential, Platform

__all__ = ["ATTACKS", "FROM_PROXY", "QUICK", "RUN_ANEW", "WHAT", "censored", "main"]

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
#: Not run unless asked for: it needs public data.
FROM_PROXY = "square_from_proxy"
#: A run of these depends on its budget.
RUN_ANEW = ("square", FROM_PROXY)
_QUERIES = {"digits": 420}
_EPSILONS = {"digits": (8, 16)}
_DRAWS = 2000

#: How each number is counted, beside the numbers.
WHAT = {
    "per-user queries": "one for the image as it is, one more for every image sent until success, right-censored at "
    "the budget; people whom the platform answers rightly cost that one query",
    "square": "targeted at the true class, run anew for every budget, because its patch schedule depends on the "
    "total budget; margin of the scores as loss, first patch .8 of the pixels",
    FROM_PROXY: "square, but the second query is the image with the zero-query δ of its target: that of a proxy of "
    "public data, which asked nothing and is free to whoever attacks alone. It goes on from there if that is no worse",
    "simba": "targeted at the true class, one run at the largest budget, read off at every smaller one: the run does "
    "not depend on the budget",
    "hopskipjump": "targeted, from labels alone, one run read off at every budget; it starts from another member's "
    "image of the class, tried at random among the pool's until the platform gets one right: the person who is "
    "attacked pays for every image tried",
    "pooled": "images sent for the pool, baseline and verification, all paid once; then no query for any image. "
    "Certified only where its row says so: elsewhere the verification queries bought a refusal",
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
    free: PerturbationSet,
) -> Outcomes:
    """Attack every image by itself, towards its target, and say what came out at every budget.

    ``free`` is the δ that costs no query, from which one of the attacks starts.
    """

    def rng() -> np.random.Generator:
        return np.random.default_rng([seed, (*ATTACKS, FROM_PROXY).index(name)])

    most = max(budgets)
    if name in RUN_ANEW:
        begun = free.apply(images, targets) if name == FROM_PROXY else None
        runs = {
            b: square(_box(platform), images, targets, epsilon=epsilon, budget=b, rng=rng(), starts=begun)
            for b in budgets
        }
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
    if options.from_proxy and key.regime != "public":
        raise ConfigError(
            f"Expected a track whose cells have public data for --from-proxy, got {options.track}. Leave it out."
        )
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
            for name in (*ATTACKS, *([FROM_PROXY] if options.from_proxy else [])):
                some = slice(options.label_attacked if name == "hopskipjump" else options.attacked)
                alone[name] = _attacked(
                    name, platform, pool, sampled.images[some], sampled.classes[some],
                    epsilon=epsilon, budgets=options.budgets, seed=seed, free=opponents.zero_query,
                )  # fmt: skip
                few = slice(min(options.abused, some.stop))
                abuse[name] = _attacked(
                    name, platform, pool, sampled.images[few], wrong[few],
                    epsilon=epsilon, budgets=(options.abuse_budget,), seed=seed, free=opponents.zero_query,
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
        for name in found[0].alone:
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
        paid = pool + sum(queries(row, "baseline") + queries(row, "verification") for row in rows)
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
        return found if attack in RUN_ANEW else {max(found): found[max(found)]}

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
        "queries_bought": told_apart(interval, "{} right answers", "nothing beyond chance"),
    }


def _epsilon(found: Sequence[_Found], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything about one ε."""
    together = _Together.of(found)
    rows = [f.cell["row"] for f in found]
    parts = ("pool", "baseline", "verification")
    comparisons = [
        line
        for way in ("pooled", "pooled_without_certificate", "pooled_after_a_look", "pooled_beyond_zero_query")
        for attack in together.alone
        for line in _comparisons(together, way, attack)
    ]
    abuse = {
        name: {
            "people": sum(len(f.abuse[name][options.abuse_budget][0]) for f in found),
            "budget": options.abuse_budget,
            "success": float(np.concatenate([f.abuse[name][options.abuse_budget][0] for f in found]).mean()),
            "queries_per_image": float(np.concatenate([f.abuse[name][options.abuse_budget][1] for f in found]).mean()),
        }
        for name in together.alone
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
        "pooled_paid": {part: [queries(row, part) for row in rows] for part in parts},
        "on_attacked_people": {
            "people": sum(len(f.before) for f in found),
            **{name: float(np.concatenate([f.pooled[name] for f in found]).mean()) for name in found[0].pooled},
        },
        "on_all_test_people": _zero_query(found),
        "ways": {way: _way(together, way) for way in together.pooled if way != "pooled_beyond_zero_query"},
        "attacks": {attack: _attack(together, attack) for attack in together.alone},
        "comparisons": comparisons,
        "break_even": hardest(comparisons, "cheapest"),
        "days": _days(together, options.quota),
        "abuse": {"pooled": pooled_abuse, **abuse},
        "cells": [f.cell for f in found],
    }


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
    parser.add_argument(
        "--from-proxy", action="store_true", help="also Square from the image with the δ of a proxy of public data"
    )
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

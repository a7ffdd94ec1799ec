"""Several collectives plant on one platform that retrains: what succeeds, what each tier of knowledge can promise.

Run as ``python -m benchmarks multiple_collectives --json``. Five parts, all on one seed:

- ``references``: runs whose numbers were stated before this was written, beside those numbers.
- ``city``: a synthetic city of N households (seven categorical features, the label is the recommended intervention) and
  four neighborhood collectives, over size entropy, label entropy and signal overlap. The published setting ("climate
  adaptation in smart cities") and its data were not available: the distribution is *ours*. Members are drawn from
  everybody, as the bounds ask; ``recruited_at_home`` draws them mostly from one district each, which the bounds forbid.
- ``trained``: the same city on trained platforms, their suboptimality measured.
- ``scenarios``: random platforms, populations and collectives; each bound against the success that came. Where
  ε > 0 the platform is an adversary who spends all of it.
- ``seconds``: from N rows to all tiers, against a loop over the rows of a pandas frame that computes the same numbers.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks._kept_bounds import LEVEL, Score, Tiers, quarter_margins
from ttca.errors import ConfigError, MissingExtraError
from ttca.training_time.bounds import (
    Collective,
    Others,
    Setting,
    Suboptimality,
    SuccessBound,
    Tier,
    deviation,
    erasing_bound,
    every_bound,
    global_bound,
    knowledge,
    planting_bound,
    shared_erasing_bound,
    shared_unplanting_bound,
    unplanting_bound,
)
from ttca.training_time.margins import Margins
from ttca.training_time.platform import (
    Adversary,
    CountArgmax,
    GradientBoosting,
    LogisticRegression,
    NeuralNetwork,
    RetrainingPlatform,
    suboptimality,
)
from ttca.training_time.signals import (
    AdaptiveUnplanting,
    Domain,
    Erasing,
    FeatureLabelPlanting,
    FeatureOnlyPlanting,
    NaiveUnplanting,
    Planting,
    Signal,
    Table,
    act,
)

__all__ = [
    "QUICK",
    "City",
    "all_tiers",
    "city",
    "loop",
    "main",
    "mixed_scenarios",
    "references",
    "scenarios",
    "tolerated",
    "trained",
]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = ("--people", "20000", "--test", "10000", "--scenarios", "50", "--repeats", "1")

TIERS: tuple[Tier, ...] = get_args(Tier)
_PREFIX: dict[Margins, str] = {"hoeffding": "", "exact": "exact_"}
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


# --- the reference runs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reference:
    name: str
    sizes: tuple[float, ...]
    targets: tuple[int, ...]
    success: tuple[float | None, ...]
    bounds: dict[Tier, tuple[float, ...]]
    """As stated before this was written; 0 where that says vacuous, None where it says nothing."""


_REFERENCES = (
    _Reference("M=1, 20 %", (0.2,), (1,), (1.0,), {"worst": (0.986,), "aggregator": (0.986,), "full": (0.986,)}),
    _Reference(
        "M=2, same signal and label, 10 % + 10 %",
        (0.1, 0.1),
        (1, 1),
        (1.0, 1.0),
        {"aggregator": (0.982, 0.982), "full": (0.981, 0.981), "worst": (0.0, 0.0)},
    ),
    _Reference(
        "M=2, same signal, opposite labels, 20 % vs 10 %",
        (0.2, 0.1),
        (1, 2),
        (1.0, 0.0),
        {"aggregator": (0.986, 0.0)},
    ),
    _Reference(
        "M=4, same signal, four labels, 20 + 10 + 6 + 4 %",
        (0.2, 0.1, 0.06, 0.04),
        (0, 1, 2, 3),
        (None, None, None, None),
        {"aggregator": (math.nan, 0.0, 0.0, 0.0)},
    ),
    _Reference(
        "M=4, same signal and label, 10 % each",
        (0.1,) * 4,
        (1,) * 4,
        (1.0,) * 4,
        {"aggregator": (0.982,) * 4},
    ),
)
_NOT_STATED = (
    "What was stated beforehand names neither #X̃ nor N_test nor the distribution, nor the sizes of the four labels. "
    "Here #X = 2·6 with one free feature of 2 values (#X̃ = 2), Dirichlet(2) probabilities, N_test = N/2."
)


def references(people: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Run the reference runs (#X = 12, #Y = 4, δ = .05, ε = 0).

    Parameters
    ----------
    people : int
        N; the stated numbers are for 200,000.
    generator : numpy Generator

    Returns
    -------
    list of dict
        Per run: settings, success and bounds as stated and as they came, and whether they agree within .05 and .01
        (None where nothing was stated). A bound stated as not vacuous, without a number, agrees if it is above 0.

    Notes
    -----
    *Ours*; the numbers were stated before this was written.
    """
    domain = Domain((2, 6), 4)
    shares = generator.dirichlet(np.full(domain.cells * domain.labels, 2.0))
    rows = []
    for reference in _REFERENCES:
        sizes = [round(size * people) for size in reference.sizes]
        signal = Signal(domain, (1,), (0,))
        strategies = [FeatureLabelPlanting(signal, target) for target in reference.targets]
        collectives, base, test = _draw(domain, shares, sizes, strategies, people, people // 2, generator)
        success = _success(collectives, CountArgmax(), base, test)
        setting = Setting(people, test=people // 2)
        came = {tier: [b.value for b in every_bound(collectives, tier, setting)] for tier in TIERS}
        agree = {
            tier: all(_agrees(a, b, 0.01) for a, b in zip(stated, came[tier], strict=True))
            for tier, stated in reference.bounds.items()
        }
        told = [(a, b) for a, b in zip(reference.success, success, strict=True) if a is not None]
        rows.append(
            {
                "run": reference.name,
                "sizes": sizes,
                "targets": list(reference.targets),
                "stated_success": list(reference.success),
                "success": success,
                "success_agrees": all(abs(a - b) <= 0.05 for a, b in told) if told else None,
                "stated_bounds": {
                    tier: ["not vacuous" if math.isnan(v) else v for v in stated]
                    for tier, stated in reference.bounds.items()
                },
                "bounds": came,
                "bounds_agree": agree,
            }
        )
    return rows


def _agrees(stated: float, came: float, within: float) -> bool:
    return came > 0 if math.isnan(stated) else abs(stated - came) <= within


def _draw(
    domain: Domain,
    shares: Floats,
    sizes: Sequence[int],
    strategies: Sequence[Planting],
    people: int,
    tested: int,
    generator: np.random.Generator,
) -> tuple[list[Collective], Integers, Integers]:
    """Return collectives, everybody else's histogram, and test people per cell, all drawn from one distribution."""
    shape = (domain.cells, domain.labels)
    own = [generator.multinomial(n, shares).reshape(shape) for n in sizes]
    base = generator.multinomial(people - sum(sizes), shares).reshape(shape)
    test = generator.multinomial(tested, shares.reshape(shape).sum(axis=1))
    return [Collective(s, c) for s, c in zip(strategies, own, strict=True)], base, test


def _trained_on(collectives: Sequence[Collective], base: Integers) -> Integers:
    records = base.copy()
    for one in collectives:
        records += one.strategy.on_counts(one.counts)
    return records


def _success(
    collectives: Sequence[Collective], platform: RetrainingPlatform, base: Integers, test: Integers
) -> list[float]:
    decisions = platform.decide(_trained_on(collectives, base), collectives[0].strategy.domain)
    return [_planting(c).success(decisions, test) for c in collectives]


def _planting(collective: Collective) -> Planting:
    if not isinstance(collective.strategy, Planting):
        raise ConfigError(
            f"Expected a collective that plants, got {collective.strategy!r}. Choose a planting strategy."
        )
    return collective.strategy


# --- the city -----------------------------------------------------------------------------------------------

FEATURES = (
    ("heat exposure", 3),
    ("flood risk", 3),
    ("tree cover", 2),
    ("housing age", 3),
    ("income band", 4),
    ("density", 2),
    ("district", 4),
)
INTERVENTIONS = ("cool roofs", "street trees", "flood barriers", "retrofits")
_TREES, _DENSITY, _DISTRICT = 2, 5, 6

SIZES = {"equal": (0.10, 0.10, 0.10, 0.10), "graded": (0.16, 0.12, 0.08, 0.04), "one large": (0.28, 0.04, 0.04, 0.04)}
TARGETS = {
    "one label": (3, 3, 3, 3),
    "one dissenter": (3, 3, 3, 1),
    "two and two": (3, 3, 1, 1),
    "four labels": (3, 0, 1, 2),
}
SIGNALS = ("same", "partial", "disjoint")


@dataclass(frozen=True, eq=False)
class City:
    """A distribution of households, known exactly.

    Parameters
    ----------
    domain : Domain
        1,728 combinations of the features, 4 interventions.
    shares : float64 array, shape (#X·#Y,)
        Probability of each pair, in the order of ``cell * #Y + label``.
    """

    domain: Domain
    shares: Floats

    @classmethod
    def built(cls, generator: np.random.Generator) -> City:
        """Return a city: features depend on the district, the recommendation on the features. *Ours*."""
        domain = Domain(tuple(n for _, n in FEATURES), len(INTERVENTIONS))
        features = domain.decode(np.arange(domain.cells))
        districts = FEATURES[_DISTRICT][1]
        share = np.full(domain.cells, 1 / districts)
        for column, (_, levels) in enumerate(FEATURES[:_DISTRICT]):
            # Wide Dirichlets: districts differ, and no value is rare everywhere.
            table = generator.dirichlet(np.full(levels, 8.0), size=districts)
            share = share * table[features[:, _DISTRICT], features[:, column]]
        scores = np.zeros((domain.cells, domain.labels))
        for column, (_, levels) in enumerate(FEATURES):
            scores += generator.normal(0, 0.6, (levels, domain.labels))[features[:, column]]
        chance = np.exp(scores - scores.max(axis=1, keepdims=True))
        pairs = share[:, None] * chance / chance.sum(axis=1, keepdims=True)
        return cls(domain, (pairs / pairs.sum()).ravel())

    def people(self, n: int, generator: np.random.Generator) -> Table:
        """Return n households, independent draws, in random order."""
        counts = generator.multinomial(n, self.shares)
        pairs = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        cells, labels = np.divmod(pairs, self.domain.labels)
        return Table(self.domain, cells, labels)

    def signals(self, overlap: str) -> list[Signal]:
        """Return the four signals: the same, two that share one of their two combinations, or four that share none."""

        def fixed(free: int, district: int) -> Signal:
            columns = tuple(i for i in range(len(FEATURES)) if i != free)
            return Signal(self.domain, columns, tuple(district if i == _DISTRICT else 0 for i in columns))

        if overlap == "same":
            return [fixed(_TREES, 0)] * 4
        if overlap == "partial":
            return [fixed(_TREES, 0), fixed(_DENSITY, 0)] * 2
        if overlap == "disjoint":
            return [fixed(_TREES, district) for district in range(4)]
        raise ConfigError(f"Expected the overlap to be one of {SIGNALS}, got {overlap!r}. Choose one of them.")


def _entropy(weights: Iterable[float]) -> float:
    """Return the entropy in bits."""
    shares = np.asarray(list(weights), dtype=np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _join(table: Table, sizes: Sequence[int], generator: np.random.Generator, *, at_home: float = 1.0) -> Integers:
    """Return who is in which collective; people of a collective's own district are ``at_home`` times as likely."""
    membership = np.full(len(table), -1, np.int64)
    district = table.features[:, _DISTRICT]
    for index, size in enumerate(sizes):
        weight = np.where(membership >= 0, 0.0, np.where(district == index, at_home, 1.0))
        membership[generator.choice(len(table), size, replace=False, p=weight / weight.sum())] = index
    return membership


def city(
    people: int, tested: int, generator: np.random.Generator, *, delta: float, at_home: float = 1.0
) -> list[dict[str, Any]]:
    """Run the city over size entropy, label entropy and signal overlap on the count argmax.

    Parameters
    ----------
    people, tested : int
        N and N_test.
    generator : numpy Generator
    delta : float
        δ of every bound.
    at_home : float
        How much likelier people of a collective's own district are to join it; 1 is what the bounds ask for.

    Returns
    -------
    list of dict
        Per setting: entropies in bits, mean overlap, success and bounds of each collective and of all.

    Notes
    -----
    *Ours*.
    """
    town = City.built(generator)
    rows = []
    setting = Setting(people, delta, test=tested)
    for size_name, sizes in SIZES.items():
        numbers = [round(size * people) for size in sizes]
        for target_name, targets in TARGETS.items():
            for overlap in SIGNALS:
                strategies = [FeatureLabelPlanting(s, t) for s, t in zip(town.signals(overlap), targets, strict=True)]
                table, test = town.people(people, generator), town.people(tested, generator)
                membership = _join(table, numbers, generator, at_home=at_home)
                collectives = [Collective(s, table.counts(membership == i)) for i, s in enumerate(strategies)]
                # Row by row here, on purpose: the scenarios and references go by histograms alone.
                decisions = CountArgmax().decide(act(table, membership, strategies).counts(), town.domain)
                tried = test.counts().sum(axis=1)
                success = [s.success(decisions, tried) for s in strategies]
                rows.append(
                    {
                        "sizes": size_name,
                        "labels": target_name,
                        "signals": overlap,
                        "size_entropy": _entropy(sizes),
                        "label_entropy": _entropy(
                            sum(s for s, t in zip(sizes, targets, strict=True) if t == label) for label in set(targets)
                        ),
                        "overlap": _mean_overlap(town, strategies),
                        "success": success,
                        "weighted_success": float(np.average(success, weights=numbers)),
                        "least_success": min(success),
                        "bounds": {t: [b.value for b in every_bound(collectives, t, setting)] for t in TIERS},
                        "global": {t: _global(collectives, t, setting) for t in TIERS},
                    }
                )
    return rows


def _mean_overlap(town: City, strategies: Sequence[Planting]) -> float:
    people = town.shares.reshape(town.domain.cells, -1).sum(axis=1)
    found = [
        one.signal.overlap(other.signal, people)
        for i, one in enumerate(strategies)
        for j, other in enumerate(strategies)
        if i != j
    ]
    return float(np.mean(found))


def _global(collectives: Sequence[Collective], tier: Tier, setting: Setting) -> dict[str, float]:
    found = global_bound(collectives, tier, setting)
    return {"weighted": found.weighted, "least": found.least}


def _held(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count, over rows of :func:`city`, how often a bound said something and how often success fell short of it."""
    pairs = [(s, b) for row in rows for tier in TIERS for s, b in zip(row["success"], row["bounds"][tier], strict=True)]
    for row in rows:
        for tier in TIERS:
            pairs.append((row["weighted_success"], row["global"][tier]["weighted"]))
            pairs.append((row["least_success"], row["global"][tier]["least"]))
    return {
        "checks": len(pairs),
        "not_vacuous": sum(b > 0 for _, b in pairs),
        "violations": sum(s < b for s, b in pairs),
    }


def trained(
    people: int, tested: int, generator: np.random.Generator, *, delta: float, seed: int
) -> list[dict[str, Any]]:
    """Run some settings of the city on trained platforms, and measure how far from optimal they are.

    Parameters
    ----------
    people, tested : int
        N and N_test.
    generator : numpy Generator
    delta : float
        δ of every bound.
    seed : int
        Of the platforms.

    Returns
    -------
    list of dict
        Per setting and platform: success, measured ε under both models, the agreement with the count argmax, and the
        bounds of the tier *aggregator* at the measured ε.

    Notes
    -----
    *Ours*.
    """
    town = City.built(generator)
    platforms: dict[str, RetrainingPlatform] = {
        "count argmax": CountArgmax(),
        "logistic regression": LogisticRegression(),
        "gradient boosting": GradientBoosting(seed=seed),
        "neural network": NeuralNetwork(seed=seed),
    }
    rows = []
    for target_name, overlap in (("one label", "same"), ("four labels", "disjoint"), ("two and two", "partial")):
        strategies = [
            FeatureLabelPlanting(s, t) for s, t in zip(town.signals(overlap), TARGETS[target_name], strict=True)
        ]
        sizes = [round(size * people) for size in SIZES["equal"]]
        collectives, base, test = _draw(town.domain, town.shares, sizes, strategies, people, tested, generator)
        records = _trained_on(collectives, base)
        optimal = CountArgmax().decide(records, town.domain)
        for name, platform in platforms.items():
            start = time.perf_counter()
            decisions = platform.decide(records, town.domain)
            seconds = time.perf_counter() - start
            row: dict[str, Any] = {
                "platform": name,
                "sizes": "equal",
                "labels": target_name,
                "signals": overlap,
                "success": [s.success(decisions, test) for s in strategies],
                "agreement_with_argmax": float((decisions == optimal)[test > 0] @ test[test > 0] / test.sum()),
                "seconds_to_train": seconds,
            }
            for kind in get_args(Suboptimality):
                epsilon = suboptimality(records, decisions, kind)
                at = Setting(people, delta, epsilon, kind, tested)
                row[f"epsilon_{kind}"] = epsilon
                row[f"bounds_{kind}"] = [b.value for b in every_bound(collectives, "aggregator", at)]
            rows.append(row)
    return rows


def tolerated(people: int, tested: int, generator: np.random.Generator, *, delta: float) -> list[dict[str, Any]]:
    """Return what four equal collectives with one signal and label are promised as ε grows, in both models. *Ours*."""
    town = City.built(generator)
    strategies = [FeatureLabelPlanting(s, 3) for s in town.signals("same")]
    sizes = [round(size * people) for size in SIZES["equal"]]
    collectives, _, _ = _draw(town.domain, town.shares, sizes, strategies, people, tested, generator)
    return [
        {
            "epsilon": epsilon,
            **{
                kind: [
                    b.value
                    for b in every_bound(collectives, "aggregator", Setting(people, delta, epsilon, kind, tested))
                ]
                for kind in get_args(Suboptimality)
            },
        }
        for epsilon in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
    ]


# --- random scenarios ---------------------------------------------------------------------------------------


def scenarios(
    number: int, generator: np.random.Generator, *, rare: bool = False
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Draw random scenarios, and count for each kind of bound how often success fell short of it.

    Parameters
    ----------
    number : int
        Scenarios, 1 or more.
    generator : numpy Generator
    rare : bool
        Whether combinations are rarer and collectives smaller and less alike in size: one to three features make the
        signal instead of one, and between 1 and 90 % of the people act, small shares as likely as large ones, instead
        of 10 to 90 %. Only collectives that plant are drawn then.

    Returns
    -------
    dict of str to dict
        Per kind of bound what :class:`~benchmarks._kept_bounds.Score` tells; with exact margins under ``exact_…``. The
        last, ``published_margin``, is no bound of ours: τ = ε/(1 − ε) against an adversary in total
        variation, for which it is too small (see :class:`~ttca.training_time.bounds.Setting`).
    dict
        What :class:`~benchmarks._kept_bounds.Tiers` tells.

    Raises
    ------
    ConfigError
        If there is no scenario.

    Notes
    -----
    *Ours*. One to four collectives, half of which plant features only; N from 20,000 to 200,000; δ of .01, .05 or .2;
    half of the platforms are adversaries with ε > 0.
    """
    if number < 1:
        raise ConfigError(f"Expected 1 scenario or more, got {number}. Ask for more.")
    scores: dict[str, Score] = defaultdict(Score)
    tiers = Tiers()
    for _ in range(number):
        _scenario(scores, tiers, generator, rare=rare)
        if not rare:
            _lone_scenario(scores, generator)
    return {name: score.told() for name, score in sorted(scores.items())}, tiers.told()


def _world(generator: np.random.Generator, most_fixed: int = 1) -> tuple[Domain, Floats, int, int, float]:
    """Return domain, distribution, N, N_test and δ; all features but the first make the signal."""
    free = int(generator.integers(1, 4))
    fixed = generator.integers(1, most_fixed + 1) if most_fixed > 1 else 1
    levels = (free, *(int(generator.integers(2, 7)) for _ in range(fixed)))
    domain = Domain(levels, int(generator.integers(2, 5)))
    shares = generator.dirichlet(np.full(domain.cells * domain.labels, float(generator.choice([0.5, 2.0, 20.0]))))
    people, tested = int(generator.choice([20_000, 60_000, 200_000])), int(generator.choice([5_000, 100_000]))
    return domain, shares, people, tested, float(generator.choice([0.01, 0.05, 0.2]))


def _scenario(scores: dict[str, Score], tiers: Tiers, generator: np.random.Generator, *, rare: bool) -> None:
    domain, shares, people, tested, delta = _world(generator, 3 if rare else 1)
    number = int(generator.integers(1, 5))
    share = math.exp(generator.uniform(math.log(0.01), math.log(0.9))) if rare else float(generator.uniform(0.1, 0.9))
    # Very small ones too, among the others: of those the least is known.
    parts = generator.dirichlet(np.full(number, 0.3 if rare else 1.0))
    sizes = generator.multinomial(round(share * people), parts).tolist()
    # Few labels and few signals, so that collectives meet, as allies or as rivals.
    labels = generator.choice(domain.labels, size=int(generator.integers(1, 3)))
    some = int(generator.integers(1, 3))
    values = list(zip(*(generator.choice(n, size=some).tolist() for n in domain.levels[1:]), strict=True))
    columns = tuple(range(1, len(domain.levels)))
    strategies: list[Planting] = []
    for _ in range(number):
        signal = Signal(domain, columns, values[int(generator.choice(some))])
        target = int(generator.choice(labels))
        if generator.random() < 0.5:
            strategies.append(FeatureLabelPlanting(signal, target))
        else:
            outside = np.setdiff1d(np.arange(domain.cells), signal.cells)
            strategies.append(FeatureOnlyPlanting(signal, target, int(generator.choice(outside))))
    collectives, base, test = _draw(domain, shares, sizes, strategies, people, tested, generator)
    platform, setting = _platform(strategies, collectives, people, tested, delta, generator)
    success = _success(collectives, platform, base, test)
    family = "rare_" if rare else ""
    found: dict[tuple[Margins, Tier], tuple[SuccessBound, ...]] = {}
    for margins in get_args(Margins):
        name, at = _PREFIX[margins] + family, replace(setting, margins=margins)
        for tier in TIERS:
            found[margins, tier] = every_bound(collectives, tier, at)
            scores[name + tier].add(zip(success, (b.value for b in found[margins, tier]), strict=True), delta)
            both = global_bound(collectives, tier, at)
            weighted = float(np.average(success, weights=sizes))
            scores[f"{name}global_weighted_{tier}"].add([(weighted, both.weighted)], delta)
            scores[f"{name}global_least_{tier}"].add([(min(success), both.least)], delta)
        if number == 1:
            alone = planting_bound(strategies[0], collectives[0].counts, at)
            scores[f"{name}single"].add([(success[0], alone.value)], delta)
    tiers.add(collectives, setting, found)
    if not rare and setting.epsilon and setting.suboptimality == "tv":
        published = every_bound(collectives, "aggregator", replace(setting, suboptimality="contamination"))
        scores["published_margin"].add(zip(success, (b.value for b in published), strict=True), delta)


def _platform(
    strategies: Sequence[Planting],
    collectives: Sequence[Collective],
    people: int,
    tested: int,
    delta: float,
    generator: np.random.Generator,
) -> tuple[RetrainingPlatform, Setting]:
    """Return the platform, and what the collectives know of it: its ε and what ε means."""
    if generator.random() < 0.5:
        return CountArgmax(), Setting(people, delta, test=tested)
    kind: Suboptimality = "tv" if generator.random() < 0.5 else "contamination"
    epsilon = float(generator.uniform(0.005, 0.15))
    index = int(generator.integers(len(strategies)))
    signal = strategies[index].signal
    aim = Adversary(epsilon, kind, signal.cells, strategies[index].target, signal.people(collectives[index].counts))
    return aim, Setting(people, delta, epsilon, kind, tested)


def _lone_scenario(scores: dict[str, Score], generator: np.random.Generator) -> None:
    """Check the bounds of unplanting and erasing, which are about one collective."""
    domain, shares, people, tested, delta = _world(generator)
    shape = (domain.cells, domain.labels)
    n = round(float(generator.uniform(0.1, 0.6)) * people)
    signal = Signal(domain, (1,), (int(generator.integers(domain.levels[1])),))
    target = int(generator.integers(domain.labels))
    first, second = (generator.multinomial(k, shares).reshape(shape) for k in (n // 5, n - n // 5))
    base = generator.multinomial(people - n, shares).reshape(shape)
    test = generator.multinomial(tested, shares.reshape(shape).sum(axis=1))
    setting = Setting(people, delta, test=tested)

    def decided(strategy: NaiveUnplanting | AdaptiveUnplanting | Erasing) -> float:
        records = base + strategy.on_counts(first + second)
        return strategy.success(CountArgmax().decide(records, domain), test)

    adaptive = AdaptiveUnplanting.estimated(signal, target, first)
    naive = NaiveUnplanting(signal, target, (target + 1) % domain.labels)
    erasing = Erasing.estimated(signal, first + second)
    for margins in get_args(Margins):
        name, at = _PREFIX[margins], replace(setting, margins=margins)
        bound = unplanting_bound(adaptive, second, at, estimators=first)
        scores[f"{name}unplanting_adaptive"].add([(decided(adaptive), bound.value)], delta)
        bound = unplanting_bound(naive, first + second, at)
        scores[f"{name}unplanting_naive"].add([(decided(naive), bound.value)], delta)
        bound = erasing_bound(erasing, first + second, at)
        scores[f"{name}erasing"].add([(decided(erasing), bound.value)], delta)


def mixed_scenarios(number: int, generator: np.random.Generator) -> dict[str, dict[str, float]]:
    """Draw random scenarios in which one collective unplants or erases among others who plant or unplant.

    Parameters
    ----------
    number : int
        Scenarios, 1 or more.
    generator : numpy Generator

    Returns
    -------
    dict of str to dict
        As :func:`scenarios`, per goal and tier. ``erasing_*`` takes modes from people who are no members, as its bound
        asks; ``erasing_own_modes_*`` from the members themselves, for which it is not proved.

    Raises
    ------
    ConfigError
        If there is no scenario.

    Notes
    -----
    *Ours*.
    """
    if number < 1:
        raise ConfigError(f"Expected 1 scenario or more, got {number}. Ask for more.")
    scores: dict[str, Score] = defaultdict(Score)
    for _ in range(number):
        _mixed_scenario(scores, generator)
    return {name: score.told() for name, score in sorted(scores.items())}


def _mixed_scenario(scores: dict[str, Score], generator: np.random.Generator) -> None:
    domain, shares, people, tested, delta = _world(generator)
    shape = (domain.cells, domain.labels)
    asking = round(float(generator.uniform(0.1, 0.6)) * people)
    others_size = round(float(generator.uniform(0.02, 0.3)) * people)
    sizes = generator.multinomial(others_size, generator.dirichlet(np.ones(int(generator.integers(1, 4))))).tolist()
    signal = Signal(domain, (1,), (int(generator.integers(domain.levels[1])),))
    target = int(generator.integers(domain.labels))
    others = []
    for size in sizes:
        # Half of them on the same signal, as allies or as rivals.
        same = generator.random() < 0.5
        where = signal if same else Signal(domain, (1,), (int(generator.integers(domain.levels[1])),))
        label = int(generator.integers(domain.labels))
        other: Planting | NaiveUnplanting = FeatureLabelPlanting(where, label)
        if generator.random() < 0.3:
            other = NaiveUnplanting(where, label, (label + 1) % domain.labels)
        others.append(Collective(other, generator.multinomial(size, shares).reshape(shape)))
    first, second, strangers = (
        generator.multinomial(k, shares).reshape(shape) for k in (asking // 5, asking - asking // 5, asking)
    )
    base = generator.multinomial(people - asking - others_size, shares).reshape(shape) + sum(
        other.strategy.on_counts(other.counts) for other in others
    )
    test = generator.multinomial(tested, shares.reshape(shape).sum(axis=1))
    setting = Setting(people, delta, test=tested)

    def known(strategy: NaiveUnplanting | AdaptiveUnplanting | Erasing, tier: Tier) -> Others:
        return knowledge([Collective(strategy, first + second), *others], 0, tier, people)

    def decided(strategy: NaiveUnplanting | AdaptiveUnplanting | Erasing) -> float:
        records = base + strategy.on_counts(first + second)
        return strategy.success(CountArgmax().decide(records, domain), test)

    adaptive = AdaptiveUnplanting.estimated(signal, target, first)
    naive = NaiveUnplanting(signal, target, (target + 1) % domain.labels)
    erasing = Erasing.estimated(signal, strangers)
    own_modes = Erasing.estimated(signal, first + second)
    came = {strategy: decided(strategy) for strategy in (adaptive, naive, erasing, own_modes)}
    for margins, tier in product(get_args(Margins), TIERS):
        name, at = _PREFIX[margins], replace(setting, margins=margins)
        bound = shared_unplanting_bound(adaptive, second, known(adaptive, tier), at, estimators=first)
        scores[f"{name}unplanting_adaptive_{tier}"].add([(came[adaptive], bound.value)], delta)
        bound = shared_unplanting_bound(naive, first + second, known(naive, tier), at)
        scores[f"{name}unplanting_naive_{tier}"].add([(came[naive], bound.value)], delta)
        bound = shared_erasing_bound(erasing, first + second, known(erasing, tier), at)
        scores[f"{name}erasing_{tier}"].add([(came[erasing], bound.value)], delta)
        bound = shared_erasing_bound(own_modes, first + second, known(own_modes, tier), at)
        scores[f"{name}erasing_own_modes_{tier}"].add([(came[own_modes], bound.value)], delta)


# --- how long it takes --------------------------------------------------------------------------------------


def all_tiers(
    domain: Domain,
    features: Integers,
    labels: Integers,
    membership: Integers,
    strategies: Sequence[FeatureLabelPlanting],
    setting: Setting,
) -> dict[str, Any]:
    """Return everything about one platform, from rows: what it decides, and all bounds of all tiers.

    Parameters
    ----------
    domain : Domain
    features : int64 array, shape (N, d)
    labels, membership : int64 arrays, shape (N,)
        Membership −1 is nobody's.
    strategies : sequence of FeatureLabelPlanting
    setting : Setting

    Returns
    -------
    dict
        ``decisions`` (int64 array, shape (#X,)) and ``bounds`` (tier → floats).

    Notes
    -----
    *Ours*.
    """
    table = Table.from_features(domain, features, labels)
    collectives = [Collective(s, table.counts(membership == i)) for i, s in enumerate(strategies)]
    decisions = CountArgmax().decide(act(table, membership, strategies).counts(), domain)
    return {
        "decisions": decisions,
        "bounds": {tier: [b.value for b in every_bound(collectives, tier, setting)] for tier in TIERS},
    }


def _iterrows(frame: Any) -> Iterator[list[int]]:
    for _, row in frame.iterrows():
        yield row.tolist()


def _itertuples(frame: Any) -> Iterator[tuple[int, ...]]:
    yield from frame.itertuples(index=False, name=None)


LOOPS: dict[str, Callable[[Any], Iterator[Sequence[int]]]] = {"iterrows": _iterrows, "itertuples": _itertuples}


def loop(
    domain: Domain,
    rows: Iterable[Sequence[int]],
    strategies: Sequence[FeatureLabelPlanting],
    setting: Setting,
) -> dict[str, Any]:
    """Return what :func:`all_tiers` returns, by plain loops: what one writes first, for the comparison.

    Parameters
    ----------
    domain : Domain
    rows : iterable of sequences of int
        Features, label, membership of each person.
    strategies : sequence of FeatureLabelPlanting
    setting : Setting

    Notes
    -----
    *Ours*. It shares no code with the package but R(k), so that it is a second opinion as well.
    """
    width, number = len(domain.levels), len(strategies)

    def encode(features: Sequence[int]) -> int:
        cell = 0
        for value, levels in zip(features, domain.levels, strict=True):
            cell = cell * levels + value
        return cell

    def planted(features: Sequence[int], strategy: FeatureLabelPlanting) -> int:
        moved = list(features)
        for column, value in zip(strategy.signal.columns, strategy.signal.values, strict=True):
            moved[column] = value
        return encode(moved)

    before: list[dict[tuple[int, int], int]] = [defaultdict(int) for _ in strategies]
    # What each strategy makes of each collective's people, its own and the others'.
    after: list[list[dict[tuple[int, int], int]]] = [[defaultdict(int) for _ in strategies] for _ in strategies]
    final: dict[int, list[int]] = defaultdict(lambda: [0] * domain.labels)
    everybody = [0] * domain.labels
    sizes = [0] * number
    total = 0
    for row in rows:
        features, label, member = row[:width], row[width], row[width + 1]
        total += 1
        cell = encode(features)
        if member >= 0:
            sizes[member] += 1
            before[member][cell, label] += 1
            for j, strategy in enumerate(strategies):
                after[member][j][planted(features, strategy), strategy.target] += 1
            cell, label = planted(features, strategies[member]), strategies[member].target
        final[cell][label] += 1
        everybody[label] += 1
    common = everybody.index(max(everybody))
    decisions = [common] * domain.cells
    for cell, tally in final.items():
        decisions[cell] = tally.index(max(tally))
    found: dict[str, list[float]] = {tier: [] for tier in TIERS}
    rest = total - sum(sizes)
    for tier in TIERS:
        for m, strategy in enumerate(strategies):
            n, target = sizes[m], strategy.target
            cells = {cell for cell, _ in after[m][m]}
            # Cells of the signal set that nobody reaches count for δ̃ as well.
            free = math.prod(v for i, v in enumerate(domain.levels) if i not in strategy.signal.columns)
            more = (number + 1) if tier == "full" and number > 1 else 1
            error = setting.delta / (2 + 2 * free * (1 + domain.labels) * more)
            slack = deviation(n, error)
            hit = 0
            for x in cells:
                own = n / total * (after[m][m][x, target] / n - 2 * slack)
                worst = math.inf
                for rival in range(domain.labels):
                    if rival == target:
                        continue
                    base = (before[m][x, rival] - before[m][x, target]) / n + 2 * slack + 2 * deviation(rest, error)
                    conflict = 0.0
                    for j in range(number):
                        if j == m:
                            continue
                        if tier == "worst":
                            conflict += sizes[j] / total
                        elif tier == "aggregator":
                            conflict += (after[j][j][x, rival] - after[j][j][x, target]) / total
                        else:
                            moved = (after[m][j][x, rival] - after[m][j][x, target]) / n
                            most = min(1, moved + 2 * slack + 2 * deviation(sizes[j], error))
                            conflict += sizes[j] / total * most
                    worst = min(worst, own - rest / total * base - conflict)
                if worst - setting.margin > 0:
                    hit += after[m][m][x, target]
            test = 0.0 if setting.test is None else deviation(setting.test, error)
            found[tier].append(max(0.0, hit / n - slack - test))
    return {"decisions": decisions, "bounds": found}


def _timed(people: int, generator: np.random.Generator, delta: float, repeats: int) -> dict[str, Any]:
    town = City.built(generator)
    strategies = [
        FeatureLabelPlanting(s, t) for s, t in zip(town.signals("partial"), TARGETS["one dissenter"], strict=True)
    ]
    table = town.people(people, generator)
    membership = _join(table, [round(size * people) for size in SIZES["graded"]], generator)
    features, labels = table.features, table.labels
    setting = Setting(people, delta, test=max(1, people // 2))

    def fresh(margins: Margins = "hoeffding") -> tuple[dict[str, Any], float]:
        # New strategies each time: the tables they keep are part of the work.
        again = [
            FeatureLabelPlanting(Signal(town.domain, s.signal.columns, s.signal.values), s.target) for s in strategies
        ]
        start = time.perf_counter()
        result = all_tiers(town.domain, features, labels, membership, again, replace(setting, margins=margins))
        return result, time.perf_counter() - start

    for margins in get_args(Margins):
        # The first time loads what is loaded once.
        fresh(margins)
    exact = [fresh("exact") for _ in range(repeats)]
    runs = [fresh() for _ in range(repeats)]
    result, times = runs[0][0], [seconds for _, seconds in runs]
    frame = _frame(features, labels, membership)
    told: dict[str, Any] = {
        "seconds": float(np.median(times)),
        "seconds_each": times,
        "exact_seconds": float(np.median([seconds for _, seconds in exact])),
        "exact_bounds": exact[0][0]["bounds"],
    }
    for name, rows in LOOPS.items():
        start = time.perf_counter()
        slow = loop(town.domain, rows(frame), strategies, setting)
        seconds = time.perf_counter() - start
        told[f"{name}_seconds"] = seconds
        told[f"{name}_ratio"] = seconds / told["seconds"]
        told[f"{name}_same_decisions"] = slow["decisions"] == result["decisions"].tolist()
        told[f"{name}_largest_difference"] = max(
            abs(a - b) for tier in TIERS for a, b in zip(slow["bounds"][tier], result["bounds"][tier], strict=True)
        )
    told["timed_bounds"] = result["bounds"]
    return told


def _frame(features: Integers, labels: Integers, membership: Integers) -> Any:
    try:
        # pandas ships no types; by name it needs no exception in the type checker's settings.
        pandas = import_module("pandas")
    except ImportError as error:
        raise MissingExtraError("The comparison with a pandas loop", "bench") from error
    names = [*(name for name, _ in FEATURES), "intervention", "collective"]
    return pandas.DataFrame(np.column_stack([features, labels, membership]), columns=names)


# --- all of it ----------------------------------------------------------------------------------------------


def main(argv: list[str]) -> dict[str, object]:
    """Run the benchmark and return its JSON row; prints nothing.

    Parameters
    ----------
    argv : list of str
        ``--people``, ``--test``, ``--scenarios``, ``--delta``, ``--seed``, ``--repeats``; ``--json`` is for the caller,
        who does the printing.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks multiple_collectives", description=__doc__)
    parser.add_argument("--people", type=int, default=200_000, help="households of the city, N")
    parser.add_argument("--test", type=int, default=100_000, help="households that success is measured on")
    parser.add_argument("--scenarios", type=int, default=1000, help="random scenarios")
    parser.add_argument(
        "--delta", type=float, default=0.05, help="probability with which each bound of the city may fail"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    if min(options.people, options.test, options.repeats) < 1:
        raise ConfigError(
            f"Expected --people, --test and --repeats of 1 or more, got {options.people}, {options.test} and "
            f"{options.repeats}. Choose larger numbers."
        )

    def generator(part: int) -> np.random.Generator:
        # Each part has a stream of its own: leaving one out changes no other.
        return np.random.default_rng([options.seed, part])

    timing = _timed(options.people, generator(0), options.delta, options.repeats)
    runs = references(options.people, generator(1))
    rows = city(options.people, options.test, generator(2), delta=options.delta)
    # The same stream: the same city, other members.
    at_home = city(options.people, options.test, generator(2), delta=options.delta, at_home=8.0)
    machines = trained(options.people, options.test, generator(3), delta=options.delta, seed=options.seed)
    growing = tolerated(options.people, options.test, generator(4), delta=options.delta)
    before, usual = scenarios(options.scenarios, generator(5))
    smaller, rare = scenarios(options.scenarios, generator(7), rare=True)
    random = dict(sorted((before | smaller | mixed_scenarios(options.scenarios, generator(6))).items()))
    ours = {name: score for name, score in random.items() if name != "published_margin"}
    quarter = quarter_margins(options.scenarios, generator(8))
    in_city = _held(rows)
    return {
        "benchmark": "multiple_collectives",
        "people": options.people,
        "test": options.test,
        "scenarios": options.scenarios,
        "delta": options.delta,
        "seed": options.seed,
        "checks": sum(int(score["checks"]) for score in ours.values()) + in_city["checks"],
        "not_vacuous": sum(int(score["not_vacuous"]) for score in ours.values()) + in_city["not_vacuous"],
        "violations": sum(int(score["violations"]) for score in ours.values()) + in_city["violations"],
        "violations_beyond_delta": sum(score["violations"] > score["allowed"] for score in ours.values()),
        "kinds_of_bounds": len(ours),
        # Shared among the kinds: one of them at 5 % would be rejected by luck.
        "failing_too_often": sum(score["p_too_many"] <= LEVEL / len(ours) for score in ours.values()),
        "shown_within_delta": sum(score["p_within"] <= LEVEL / len(ours) for score in ours.values()),
        "full_below_worst": usual["full_below_worst"] + rare["full_below_worst"],
        "exact_over_hoeffding": rare["exact_over_hoeffding"],
        "quarter_margin_caught": quarter["caught"],
        "tiers": {"as before": usual, "rare combinations": rare},
        "quarter_margins": quarter,
        "seconds": timing["seconds"],
        "pandas_loop_ratio": timing["iterrows_ratio"],
        "timing": timing,
        "references": runs,
        "references_not_stated": _NOT_STATED,
        "city_features": dict(FEATURES),
        "city_labels": list(INTERVENTIONS),
        "city_held": in_city,
        "city": rows,
        "recruited_at_home_held": _held(at_home),
        "recruited_at_home": at_home,
        "trained": machines,
        "tolerated": growing,
        "by_bound": random,
    }

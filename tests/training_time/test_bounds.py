"""Tests of the bounds: the stated numbers, their limits, that one collective is one, and that success keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.training_time.worlds import domains, people_of, planting_of, seeds, signal_of
from ttca.errors import ConfigError, DataError
from ttca.training_time.bounds import (
    Collective,
    KnownStrategies,
    Others,
    PublishedConflict,
    Setting,
    Suboptimality,
    Tier,
    TotalSize,
    deviation,
    erasing_bound,
    erasing_sizes,
    every_bound,
    global_bound,
    knowledge,
    margin_needed,
    plan,
    planting_bound,
    shared_bound,
    unplanting_bound,
)
from ttca.training_time.margins import Margins
from ttca.training_time.platform import Adversary, CountArgmax, RetrainingPlatform
from ttca.training_time.signals import (
    AdaptiveUnplanting,
    Domain,
    Erasing,
    FeatureLabelPlanting,
    Integers,
    NaiveUnplanting,
    Planting,
    Signal,
)

TIERS: tuple[Tier, ...] = get_args(Tier)
DOMAIN = Domain((2, 6), 4)
SIGNAL = Signal(DOMAIN, (1,), (0,))
PEOPLE = 200_000
REFERENCE = Setting(PEOPLE, test=100_000)
epsilons = st.floats(0, 0.3)
kinds: st.SearchStrategy[Suboptimality] = st.sampled_from(get_args(Suboptimality))


def even(n: int, domain: Domain = DOMAIN) -> Integers:
    """Return n people spread evenly over all pairs, the remainder on the first."""
    counts = np.full((domain.cells, domain.labels), n // (domain.cells * domain.labels))
    counts[0, 0] += n - counts.sum()
    return counts


def collectives(sizes: tuple[float, ...], targets: tuple[int, ...]) -> list[Collective]:
    """Return collectives with one signal over an even population."""
    return [
        Collective(FeatureLabelPlanting(SIGNAL, target), even(round(size * PEOPLE)))
        for size, target in zip(sizes, targets, strict=True)
    ]


# --- the stated numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "targets", "tier", "stated"),
    [
        ((0.2,), (1,), "worst", (0.986,)),
        ((0.2,), (1,), "aggregator", (0.986,)),
        ((0.2,), (1,), "full", (0.986,)),
        ((0.1, 0.1), (1, 1), "aggregator", (0.982, 0.982)),
        ((0.1, 0.1), (1, 1), "full", (0.981, 0.981)),
        ((0.1, 0.1), (1, 1), "worst", (0, 0)),
        ((0.2, 0.1), (1, 2), "aggregator", (0.986, 0)),
        ((0.2, 0.1, 0.06, 0.04), (0, 1, 2, 3), "aggregator", (0.986, 0, 0, 0)),
        ((0.1, 0.1, 0.1, 0.1), (1, 1, 1, 1), "aggregator", (0.982, 0.982, 0.982, 0.982)),
    ],
)
def test_the_reference_bounds_come_out(
    sizes: tuple[float, ...], targets: tuple[int, ...], tier: Tier, stated: tuple[float, ...]
) -> None:
    """The bounds stated beforehand come to the third digit at #X̃ = 2 and N_test = N/2, which were not stated."""
    came = [b.value for b in every_bound(collectives(sizes, targets), tier, REFERENCE)]
    assert came == pytest.approx(list(stated), abs=5.1e-4)


def test_the_bound_is_the_published_formula_by_hand() -> None:
    """Own mass, resistance, δ̃, share and slack of a bound one can compute on paper."""
    domain = Domain((2,), 2)
    counts = np.array([[30, 10], [20, 40]])
    bound = planting_bound(FeatureLabelPlanting(Signal(domain, (0,), (0,)), 1), counts, Setting(1000, 0.1, test=500))
    assert bound.error == 0.1 / (2 + 2 + 4)
    assert bound.slack == deviation(100, bound.error) + deviation(500, bound.error)
    # 0.1·(1 − 2R(100)) − 0.9·(0.3 − 0.1 + 2R(100) + 2R(900)) < 0
    assert (bound.share, bound.value, bound.vacuous, bound.size) == (0, 0, True, 100)
    many = planting_bound(FeatureLabelPlanting(Signal(domain, (0,), (0,)), 1), counts * 100, Setting(20_000))
    # 0.5·(1 − 2R) − 0.5·(0.2 + 4R) with R = R(10,000) = .0148
    assert many.share == 1
    assert many.value == 1 - deviation(10_000, 0.05 / 8)


def test_the_margin_under_total_variation_is_the_larger() -> None:
    """A known example: P = (.60, .40) with ε = .11 flips under total variation, although ε/(1−ε) < .20."""
    assert margin_needed(0.11, "contamination") == pytest.approx(0.1236, abs=1e-4)
    assert margin_needed(0.11, "contamination") < 0.60 - 0.40 < margin_needed(0.11, "tv")
    assert margin_needed(0.0, "tv") == margin_needed(0.0, "contamination") == 0


def test_deviation_is_hoeffdings() -> None:
    """R(k) falls with the root of k, and nobody tells nothing."""
    assert deviation(200, np.exp(-4.0)) == pytest.approx(0.1)
    assert deviation(0, 0.05) == np.inf


# --- one collective is one ----------------------------------------------------------------------------------


@examples(150)
@given(domains, seeds, st.integers(1, 100_000), st.integers(0, 100_000), epsilons, kinds, st.booleans())
def test_without_others_the_bound_is_the_single_one(
    domain: Domain, seed: int, n: int, rest: int, epsilon: float, kind: Suboptimality, tested: bool
) -> None:
    """M = 1 equals the bound of one collective to the last digit in every tier, each and global."""
    generator = np.random.default_rng(seed)
    counts, strategy = people_of(domain, n, generator), planting_of(domain, generator)
    setting = Setting(n + rest, 0.05, epsilon, kind, 10_000 if tested else None)
    single = planting_bound(strategy, counts, setting)
    one = [Collective(strategy, counts)]
    for tier in TIERS:
        assert every_bound(one, tier, setting) == (single,)
        both = global_bound(one, tier, setting)
        assert both.each == (single,)
        assert both.weighted == both.least == single.value


# --- the formulas, written out ------------------------------------------------------------------------------


@examples(40)
@given(domains, seeds, epsilons, kinds)
def test_the_conflict_of_each_tier_is_the_formula(
    domain: Domain, seed: int, epsilon: float, kind: Suboptimality
) -> None:
    """What is left at each cell is the formula, term by term, cell by cell and rival by rival, in plain numbers."""
    generator = np.random.default_rng(seed)
    # Of thirty people little is known: their conflict is the most they can do.
    several = [Collective(planting_of(domain, generator), people_of(domain, n, generator)) for n in (900, 1_800, 30)]
    n0, total, delta = 7_270, 10_000, 0.1
    margin = 2 * epsilon if kind == "tv" else epsilon / (1 - epsilon)
    for tier in TIERS:
        bounds = every_bound(several, tier, Setting(total, delta, epsilon, kind))
        for m, (one, bound) in enumerate(zip(several, bounds, strict=True)):
            assert isinstance(one.strategy, Planting)
            x_set, n, target = one.strategy.signal.cells.tolist(), one.size, one.strategy.target
            factor = 4 if tier == "full" else 1
            error = delta / (2 + 2 * len(x_set) * (1 + domain.labels) * factor)
            assert bound.error == pytest.approx(error, rel=1e-12)
            own_after, p = one.strategy.on_counts(one.counts) / n, one.counts / n
            for x, left in zip(x_set, bound.margins, strict=True):
                found = []
                for rival in set(range(domain.labels)) - {target}:
                    conflict = 0.0
                    for j, other in enumerate(several):
                        if j == m:
                            continue
                        share = other.size / total
                        if tier == "worst":
                            conflict += share
                        elif tier == "aggregator":
                            q = other.strategy.on_counts(other.counts) / other.size
                            conflict += share * (q[x, rival] - q[x, target])
                        else:
                            q = other.strategy.on_counts(one.counts) / n
                            slack = 2 * deviation(n, error) + 2 * deviation(other.size, error)
                            conflict += share * min(1, q[x, rival] - q[x, target] + slack)
                    own = n / total * (own_after[x, target] - 2 * deviation(n, error))
                    resisted = p[x, rival] - p[x, target] + 2 * deviation(n, error) + 2 * deviation(n0, error)
                    found.append(own - n0 / total * resisted - conflict - margin)
                assert left == pytest.approx(min(found), abs=1e-12)


@examples(40)
@given(domains, seeds, epsilons)
def test_unplanting_is_the_formula(domain: Domain, seed: int, epsilon: float) -> None:
    """What is left at each cell of an unplanting collective is the formula in plain numbers."""
    generator = np.random.default_rng(seed)
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    first, second = people_of(domain, 300, generator), people_of(domain, 1_700, generator)
    strategy = AdaptiveUnplanting.estimated(signal, target, first)
    bound = unplanting_bound(strategy, second, Setting(9_000, 0.1, epsilon, "tv", 500), estimators=first)
    error = 0.1 / (2 + 6 * len(signal.cells))
    assert bound.error == error
    assert bound.slack == deviation(2_000, error) + deviation(500, error)
    planted = strategy.on_counts(first + second) / 2_000
    for x, instead, left in zip(signal.cells, strategy.estimate, bound.margins, strict=True):
        resisted = (second[x, target] - second[x, instead]) / 1_700 + 2 * deviation(1_700, error)
        own = 2 / 9 * (planted[x, instead] - 2 * deviation(2_000, error))
        wanted = own - 7 / 9 * (resisted + 2 * deviation(7_000, error)) - 2 * epsilon
        assert left == pytest.approx(wanted, abs=1e-12)


@examples(40)
@given(domains, seeds, epsilons)
def test_erasing_is_the_formula(domain: Domain, seed: int, epsilon: float) -> None:
    """What is left at each cell of an erasing collective is the less of what is left there and at its image."""
    generator = np.random.default_rng(seed)
    signal, counts = signal_of(domain, generator), people_of(domain, 2_000, generator)
    strategy = Erasing.estimated(signal, counts)
    bound = erasing_bound(strategy, counts, Setting(9_000, 0.1, epsilon))
    x_size, labels = domain.cells, domain.labels
    error = 0.1 / (2 + len(signal.cells) * labels + 2 * x_size + 2 * x_size * labels)
    assert bound.error == error

    def at(x: int) -> float:
        mode, p = int(strategy.wanted[x]), counts[x] / 2_000
        resisted = max(p[y] - p[mode] for y in range(labels) if y != mode)
        own = 2 / 9 * (p.sum() - 2 * deviation(2_000, error))
        slack = 2 * deviation(2_000, error) + 2 * deviation(7_000, error)
        return float(own - 7 / 9 * (resisted + slack) - 2 * epsilon)

    for x, left in enumerate(bound.margins):
        assert left == pytest.approx(min(at(x), at(int(signal.map[x]))), abs=1e-12)


def test_the_global_bound_shares_the_error() -> None:
    """Each of M collectives is bounded at δ/M, the average is over members and the least over collectives."""
    several = collectives((0.2, 0.1, 0.05), (1, 1, 1))
    both = global_bound(several, "aggregator", REFERENCE)
    assert both.each == every_bound(several, "aggregator", Setting(PEOPLE, 0.05 / 3, test=100_000))
    values = [b.value for b in both.each]
    assert both.weighted == pytest.approx((4 * values[0] + 2 * values[1] + values[2]) / 7)
    assert both.least == min(values)


# --- limits and directions ----------------------------------------------------------------------------------


def _several(domain: Domain, generator: np.random.Generator) -> tuple[list[Collective], Setting]:
    number = int(generator.integers(1, 4))
    shares = generator.dirichlet(np.ones(domain.cells * domain.labels))
    found = []
    for _ in range(number):
        n = int(generator.integers(0, 60_000))
        counts = generator.multinomial(n, shares).reshape(domain.cells, domain.labels)
        found.append(Collective(planting_of(domain, generator), counts))
    found.append(Collective(planting_of(domain, generator), people_of(domain, 5_000, generator)))
    return found, Setting(sum(c.size for c in found) + int(generator.integers(0, 60_000)), test=20_000)


@examples(60)
@given(domains, seeds)
def test_bounds_are_rates(domain: Domain, seed: int) -> None:
    """No bound leaves [0, 1], an empty collective's is vacuous, and the global ones lie between the collectives'."""
    several, setting = _several(domain, np.random.default_rng(seed))
    for tier, margins in product(TIERS, get_args(Margins)):
        setting = replace(setting, margins=margins)
        for one, bound in zip(several, every_bound(several, tier, setting), strict=True):
            assert 0 <= bound.value <= 1
            assert 0 <= bound.share <= 1
            assert one.size or bound.vacuous
        both = global_bound(several, tier, setting)
        assert both.least <= both.weighted + 1e-12
        assert both.weighted <= max(b.value for b in both.each) + 1e-12
        # δ is shared, so that each is at most what it would be alone.
        for alone, shared in zip(every_bound(several, tier, setting), both.each, strict=True):
            assert shared.value <= alone.value


@examples(60)
@given(domains, seeds)
def test_knowing_more_never_promises_less_than_knowing_sizes(domain: Domain, seed: int) -> None:
    """The aggregator's conflict is at most the worst one, so its bound is at least the worst tier's."""
    several, setting = _several(domain, np.random.default_rng(seed))
    for worst, known in zip(
        every_bound(several, "worst", setting), every_bound(several, "aggregator", setting), strict=True
    ):
        assert known.value >= worst.value


@examples(60)
@given(domains, seeds, st.integers(1, 60), st.sampled_from(get_args(Margins)))
def test_knowing_strategies_costs_no_more_than_a_smaller_delta(
    domain: Domain, seed: int, few: int, margins: Margins
) -> None:
    """At the δ̃ of the tier full, nobody is promised less, at any cell, than by sizes alone."""
    several, setting = _several(domain, np.random.default_rng(seed))
    # The smaller another collective, the less is known of what it will do.
    several.append(Collective(several[0].strategy, people_of(domain, few, np.random.default_rng(seed))))
    setting = replace(setting, population=setting.population + few, margins=margins)
    tiers = (every_bound(several, tier, setting) for tier in ("full", "worst"))
    for place, (full, worst) in enumerate(zip(*tiers, strict=True)):
        stricter = replace(setting, delta=setting.delta * full.error / worst.error)
        paid = every_bound(several, "worst", stricter)[place]
        assert full.error == pytest.approx(paid.error)
        assert full.value >= paid.value - 1e-12
        assert (np.array(full.margins) >= np.array(paid.margins) - 1e-12).all()


def test_who_is_not_the_largest_by_far_learns_nothing_from_sizes() -> None:
    """By sizes alone a collective no larger than all others is promised nothing, unless the base is on its side."""
    sizes = (0.3, 0.29, 0.01)
    values = [b.value for b in every_bound(collectives(sizes, (1, 1, 1)), "worst", REFERENCE)]
    assert values == [0, 0, 0]
    assert every_bound(collectives((0.4, 0.05), (1, 1)), "worst", REFERENCE)[0].value > 0
    # Where everybody else already has the label, it need not be the largest.
    ready = np.zeros((DOMAIN.cells, DOMAIN.labels), np.int64)
    ready[SIGNAL.cells, 1] = 18_000
    allies = [Collective(FeatureLabelPlanting(SIGNAL, 1), ready), Collective(FeatureLabelPlanting(SIGNAL, 1), ready)]
    assert every_bound(allies, "worst", REFERENCE)[0].value > 0


@examples(60)
@given(domains, seeds, epsilons, kinds)
def test_a_worse_platform_promises_less(domain: Domain, seed: int, epsilon: float, kind: Suboptimality) -> None:
    """Bounds fall as ε grows and rise with δ, and 2ε is never less careful than ε/(1 − ε) up to ε = 1/2."""
    several, setting = _several(domain, np.random.default_rng(seed))
    n = setting.population

    def values(*rest: Any) -> list[float]:
        return [b.value for b in every_bound(several, "aggregator", Setting(n, *rest))]

    at, more, less_sure = values(0.05, epsilon, kind), values(0.05, epsilon + 0.1, kind), values(0.2, epsilon, kind)
    assert all(a >= b for a, b in zip(at, more, strict=True))
    assert all(a <= b for a, b in zip(at, less_sure, strict=True))
    assert all(a <= b for a, b in zip(values(0.05, epsilon, "tv"), values(0.05, epsilon, "contamination"), strict=True))


def _knowledge(tier: Tier, domain: Domain, strategy: Planting, population: int, seed: int) -> Others:
    generator = np.random.default_rng(seed)
    rival = Collective(planting_of(domain, generator), people_of(domain, population // 10, generator))
    return knowledge([Collective(strategy, np.zeros_like(rival.counts)), rival], 0, tier, population)


@examples(60)
@given(domains, seeds, st.sampled_from(TIERS), st.lists(st.integers(1, 90), min_size=2, max_size=6).map(sorted))
def test_a_larger_collective_is_promised_no_less(domain: Domain, seed: int, tier: Tier, sizes: list[int]) -> None:
    """With the same shares of records, the bound never falls as the collective grows."""
    generator = np.random.default_rng(seed)
    strategy, pilot = planting_of(domain, generator), people_of(domain, 1_000, generator)
    others = _knowledge(tier, domain, strategy, 100_000, seed)
    values = [shared_bound(strategy, pilot * size, others, Setting(100_000)).value for size in sizes]
    assert values == sorted(values)


# --- planning -----------------------------------------------------------------------------------------------


@examples(40)
@given(domains, seeds, st.sampled_from(TIERS), st.floats(0.05, 1.0))
def test_a_plan_is_the_smallest_size(domain: Domain, seed: int, tier: Tier, wanted: float) -> None:
    """The planned size reaches what is wanted and one member fewer does not; None means that everybody does not."""
    generator = np.random.default_rng(seed)
    strategy, pilot = planting_of(domain, generator), people_of(domain, 100, generator)
    others, setting = _knowledge(tier, domain, strategy, 100_000, seed), Setting(100_000)
    found = plan(strategy, pilot, others, setting, wanted=wanted)
    if found.size is None:
        assert found.bound.value < wanted
        assert found.bound.size == 100_000 - others.size
        return
    assert found.bound.value >= wanted
    assert found.bound.size == found.size
    # Whole multiples of the pilot have exactly its shares: one below the plan falls short, one above does not.
    below, above = (found.size - 1) // 100, -(-found.size // 100)
    assert shared_bound(strategy, pilot * below, others, setting).value < wanted
    if above * 100 + others.size <= setting.population:
        assert shared_bound(strategy, pilot * above, others, setting).value >= wanted


def test_a_plan_says_how_much_rivals_cost() -> None:
    """Rivals known only by number cost more members than the same rivals known by what they plant, allies cost none."""
    strategy = FeatureLabelPlanting(SIGNAL, 1)
    ally, rival = (Collective(FeatureLabelPlanting(SIGNAL, target), even(20_000)) for target in (1, 2))

    def size(others: Others) -> int:
        found = plan(strategy, even(4_800), others, Setting(PEOPLE, test=100_000), wanted=0.9)
        assert found.size is not None
        return found.size

    alone = size(TotalSize(0))
    assert size(PublishedConflict.of(strategy, [ally], PEOPLE)) < alone
    assert alone < size(PublishedConflict.of(strategy, [rival], PEOPLE)) < size(TotalSize(20_000))


# --- success keeps the bounds -------------------------------------------------------------------------------


def test_success_keeps_every_bound_in_random_scenarios() -> None:
    """Over random scenarios, with adversaries who spend all of ε, no kind of bound fails more often than its δ."""
    generator = np.random.default_rng(20_240_607)
    delta, said, failed = 0.05, dict.fromkeys(TIERS, 0), dict.fromkeys(TIERS, 0)
    for _ in range(150):
        domain = Domain((2, int(generator.integers(2, 4))), int(generator.integers(2, 4)))
        shape, people = (domain.cells, domain.labels), 50_000
        shares = generator.dirichlet(np.full(domain.cells * domain.labels, 2.0))
        strategies = [planting_of(domain, generator) for _ in range(int(generator.integers(1, 4)))]
        sizes = generator.multinomial(30_000, generator.dirichlet(np.ones(len(strategies))))
        several = [
            Collective(s, generator.multinomial(n, shares).reshape(shape))
            for s, n in zip(strategies, sizes, strict=True)
        ]
        records = generator.multinomial(people - 30_000, shares).reshape(shape)
        for one in several:
            records = records + one.strategy.on_counts(one.counts)
        kind: Suboptimality = "tv" if generator.random() < 0.5 else "contamination"
        epsilon = float(generator.choice([0.0, 0.05]))
        first = strategies[0]
        platform: RetrainingPlatform = Adversary(
            epsilon, kind, first.signal.cells, first.target, first.signal.people(several[0].counts)
        )
        decisions = platform.decide(records, domain)
        test = generator.multinomial(20_000, shares.reshape(shape).sum(axis=1))
        for tier in TIERS:
            bounds = every_bound(several, tier, Setting(people, delta, epsilon, kind, 20_000))
            for strategy, bound in zip(strategies, bounds, strict=True):
                said[tier] += not bound.vacuous
                failed[tier] += strategy.success(decisions, test) < bound.value
    for tier in TIERS:
        assert said[tier] > 20, "the scenarios must let bounds say something"
        assert failed[tier] <= delta * said[tier]


@examples(40)
@given(domains, seeds)
def test_unplanting_keeps_its_bounds(domain: Domain, seed: int) -> None:
    """Whoever unplants on a count argmax, naively or adaptively, succeeds at least as often as the bound says."""
    generator = np.random.default_rng(seed)
    shape = (domain.cells, domain.labels)
    shares = generator.dirichlet(np.full(domain.cells * domain.labels, 0.5))
    first, second = (generator.multinomial(n, shares).reshape(shape) for n in (5_000, 25_000))
    base, test = generator.multinomial(30_000, shares).reshape(shape), shares.reshape(shape).sum(axis=1)
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    # A chance of one in a billion: hypothesis looks for failures, and must find none by luck.
    setting = Setting(60_000, 1e-9)
    adaptive = AdaptiveUnplanting.estimated(signal, target, first)
    naive = NaiveUnplanting(signal, target, (target + 1) % domain.labels)
    decided = CountArgmax().decide(base + adaptive.on_counts(first + second), domain)
    assert adaptive.success(decided, test) >= unplanting_bound(adaptive, second, setting, estimators=first).value
    decided = CountArgmax().decide(base + naive.on_counts(first + second), domain)
    assert naive.success(decided, test) >= unplanting_bound(naive, first + second, setting).value


@examples(60)
@given(domains, seeds)
def test_erasing_keeps_its_bound(domain: Domain, seed: int) -> None:
    """Whoever erases a trait on a count argmax succeeds at least as often as the bound says."""
    generator = np.random.default_rng(seed)
    shape, signal = (domain.cells, domain.labels), signal_of(domain, generator)
    shares = generator.dirichlet(np.full(domain.cells * domain.labels, 0.5))
    own, base = (generator.multinomial(30_000, shares).reshape(shape) for _ in range(2))
    erasing = Erasing.estimated(signal, own)
    decided = CountArgmax().decide(base + erasing.on_counts(own), domain)
    bound = erasing_bound(erasing, own, Setting(60_000, 1e-9))
    assert erasing.success(decided, shares.reshape(shape).sum(axis=1)) >= bound.value


def test_erasing_promises_something() -> None:
    """A large collective is promised nearly everything, the same people among more are promised less."""
    domain = Domain((2, 2), 2)
    signal = Signal(domain, (0,), (0,))
    counts = np.array([[300, 50], [50, 300], [50, 100], [100, 50]]) * 60
    erasing = Erasing.estimated(signal, counts)
    assert erasing.modes.tolist() == [0, 1]
    bound = erasing_bound(erasing, counts, Setting(100_000))
    assert bound.error == 0.05 / (2 + 4 + 8 + 16)
    assert bound.share == 1
    assert bound.value == 1 - deviation(60_000, bound.error)
    assert erasing_bound(erasing, counts, Setting(400_000)).share < 1
    assert erasing_bound(erasing, counts * 0, Setting(400_000)).vacuous


def test_the_sizes_that_find_the_modes_are_the_published_ones() -> None:
    """2·log(1/δ̃)/η² members are the fewest, that many others are needed as well, and a small η leaves no size."""
    least = 2 * np.log(1 / (0.05 / (2 + 2 * 4 + 2 * 12 + 2 * 48))) / 0.01
    assert erasing_sizes(ERASE, REFERENCE, margin=0.1) == (np.ceil(least), np.floor(PEOPLE - least))
    assert erasing_sizes(ERASE, REFERENCE, margin=0.01) is None


def test_unplanting_counts_the_estimators_as_members() -> None:
    """Estimators act like everybody else, but the resistance rests on the others alone."""
    domain = Domain((2,), 2)
    strategy = AdaptiveUnplanting(Signal(domain, (0,), (0,)), 0, np.array([1]))
    counts = np.array([[30, 20], [20, 30]]) * 100
    alone = unplanting_bound(strategy, counts, Setting(20_000))
    helped = unplanting_bound(strategy, counts, Setting(22_000), estimators=counts // 5)
    assert (alone.size, helped.size) == (10_000, 12_000)
    assert helped.error == alone.error == 0.05 / 8
    assert (alone.share, helped.share) == (1, 1)
    assert helped.slack < alone.slack
    nobody = unplanting_bound(strategy, np.zeros_like(counts), Setting(22_000), estimators=counts)
    assert nobody.vacuous


def test_a_fixed_strategy_needs_less_than_every_rival() -> None:
    """Unplanting needs the replacement above the target only, and so is promised where planting it is not."""
    domain = Domain((2,), 3)
    signal = Signal(domain, (0,), (0,))
    # Label 2 is far ahead of both: planting 1 must beat it, pushing 0 out need not.
    counts = np.array([[10, 10, 500], [160, 160, 160]]) * 20
    setting = Setting(100_000)
    assert planting_bound(FeatureLabelPlanting(signal, 1), counts, setting).vacuous
    assert not unplanting_bound(NaiveUnplanting(signal, 0, 1), counts, setting).vacuous


# --- what is refused ----------------------------------------------------------------------------------------

PLANT = FeatureLabelPlanting(SIGNAL, 1)
NAIVE = NaiveUnplanting(SIGNAL, 1, 2)
ERASE = Erasing(SIGNAL, np.array([0, 0]))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: margin_needed(1.0, "tv"), ConfigError, "Expected ε within [0, 1)"),
        (lambda: margin_needed(0.1, "l2"), ConfigError, "Expected the suboptimality to be one of"),  # type: ignore[arg-type]
        (lambda: Setting(0), ConfigError, "Expected the population as a whole number of 1 or more, got 0"),
        (lambda: Setting(10.5), ConfigError, "Expected the population as a whole number"),  # type: ignore[arg-type]
        (lambda: Setting(True), ConfigError, "Expected the population as a whole number"),
        (lambda: Setting(10, test=0), ConfigError, "Expected test people as a whole number of 1 or more"),
        (lambda: TotalSize(5.5), ConfigError, "Expected people in other collectives"),  # type: ignore[arg-type]
        (lambda: deviation(-1, 0.05), ConfigError, "Expected 0 people or more"),
        (lambda: deviation(1, 0.0), ConfigError, "Expected 0 people or more"),
        (lambda: Setting(10, margins="normal"), ConfigError, "Expected the margins to be one of"),  # type: ignore[arg-type]
        (
            lambda: plan(PLANT, even(48), TotalSize(0), Setting(100, margins="exact"), wanted=0.5),
            ConfigError,
            "as many records as people for exact margins",
        ),
        (lambda: Setting(10, 1.0), ConfigError, "Expected δ strictly between 0 and 1"),
        (lambda: planting_bound(NAIVE, even(48), REFERENCE), ConfigError, "a strategy of kind Planting"),  # type: ignore[arg-type]
        (lambda: planting_bound(PLANT, even(48), Setting(40)), DataError, "within the population of 40, got 48"),
        (lambda: unplanting_bound(PLANT, even(48), REFERENCE), ConfigError, "a strategy of kind Unplanting"),  # type: ignore[arg-type]
        (lambda: erasing_bound(PLANT, even(48), REFERENCE), ConfigError, "of kind Erasing"),  # type: ignore[arg-type]
        (lambda: erasing_sizes(ERASE, REFERENCE, margin=0.0), ConfigError, "the margin η within (0, 1]"),
        (lambda: erasing_sizes(PLANT, REFERENCE, margin=0.1), ConfigError, "of kind Erasing"),  # type: ignore[arg-type]
        (lambda: shared_bound(PLANT, even(48), TotalSize(PEOPLE), REFERENCE), DataError, "got 48 members and 200000"),
        (lambda: TotalSize(-1), ConfigError, "Expected people in other collectives as a whole number of 0"),
        (lambda: KnownStrategies((PLANT,), ()), ConfigError, "Expected a size for each strategy"),
        (lambda: PublishedConflict(1, np.full((2, 4), np.nan)), DataError, "Expected a finite conflict term"),
        (
            lambda: shared_bound(PLANT, even(48), PublishedConflict(1, np.zeros((3, 4))), REFERENCE),
            DataError,
            "published for another signal",
        ),
        (
            lambda: shared_bound(
                PLANT,
                even(48),
                KnownStrategies((FeatureLabelPlanting(Signal(Domain((12,), 4), (0,), (0,)), 1),), (5,)),
                REFERENCE,
            ),
            ConfigError,
            "Expected strategies of one domain",
        ),
        (
            lambda: every_bound([Collective(PLANT, even(48))], "all", REFERENCE),  # type: ignore[arg-type]
            ConfigError,
            "Expected the tier to be one of",
        ),
        (lambda: every_bound([Collective(NAIVE, even(48))], "worst", REFERENCE), ConfigError, "kind Planting"),
        (lambda: global_bound([], "worst", REFERENCE), ConfigError, "Expected collectives with members"),
        (lambda: plan(PLANT, even(0), TotalSize(0), REFERENCE, wanted=0.5), DataError, "a pilot of one person"),
        (lambda: plan(PLANT, even(48), TotalSize(0), REFERENCE, wanted=0.0), ConfigError, "a wanted success"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    """Numbers out of range and parts that do not fit together are refused with a sentence."""
    with pytest.raises(error, match=re.escape(said)):
        make()


@pytest.mark.parametrize("tier", ["worst", "aggregator", "full"])
@pytest.mark.parametrize("index", [-1, 2])
def test_a_collective_that_is_none_of_them_knows_nothing(tier: Tier, index: int) -> None:
    """An index from behind would count a collective among its own rivals; it is refused, as one too large is."""
    generator = np.random.default_rng(0)
    domain = Domain((2, 3), 2)
    both = [Collective(planting_of(domain, generator), people_of(domain, 40, generator)) for _ in range(2)]
    with pytest.raises(ConfigError, match="index of one of 2 collectives"):
        knowledge(both, index, tier, 1_000)

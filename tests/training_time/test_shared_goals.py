"""Tests of unplanting and erasing among several collectives: alone they are one, and success keeps every tier."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.multiple_collectives import mixed_scenarios
from tests.examples import examples
from tests.training_time.worlds import domains, people_of, planting_of, seeds, signal_of
from ttca.errors import ConfigError, DataError
from ttca.training_time.bounds import (
    Asked,
    Collective,
    KnownStrategies,
    PublishedConflict,
    Setting,
    SuccessBound,
    Tier,
    TotalSize,
    erasing_bound,
    knowledge,
    shared_erasing_bound,
    shared_unplanting_bound,
    unplanting_bound,
)
from ttca.training_time.signals import (
    AdaptiveUnplanting,
    Chain,
    Domain,
    Erasing,
    FeatureLabelPlanting,
    NaiveUnplanting,
    Signal,
)

TIERS: tuple[Tier, ...] = get_args(Tier)
DOMAIN = Domain((2, 3), 3)
SIGNAL = Signal(DOMAIN, (1,), (0,))
PUSH_OUT = NaiveUnplanting(SIGNAL, 0, 1)
ELSEWHERE = Signal(Domain((6,), 3), (0,), (0,))
SETTING = Setting(200_000, test=100_000)


def _even(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return n people of each pair."""
    return np.full((DOMAIN.cells, DOMAIN.labels), n, np.int64)


@examples(60)
@given(domains, seeds, st.floats(0, 0.2), st.sampled_from(TIERS))
def test_without_others_they_are_the_single_bounds(domain: Domain, seed: int, epsilon: float, tier: Tier) -> None:
    """With nobody else every tier gives the bound of one collective to the last digit, margins and all."""
    generator = np.random.default_rng(seed)
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    first, rest = people_of(domain, 2_000, generator), people_of(domain, 8_000, generator)
    setting = Setting(40_000, epsilon=epsilon, test=5_000)
    adaptive = AdaptiveUnplanting.estimated(signal, target, first)
    nobody = knowledge([Collective(adaptive, first + rest)], 0, tier, 40_000)
    alone = unplanting_bound(adaptive, rest, setting, estimators=first)
    assert shared_unplanting_bound(adaptive, rest, nobody, setting, estimators=first) == alone
    erasing = Erasing.estimated(signal, first)
    nobody = knowledge([Collective(erasing, rest)], 0, tier, 40_000)
    assert shared_erasing_bound(erasing, rest, nobody, setting) == erasing_bound(erasing, rest, setting)


@examples(60)
@given(domains, seeds)
def test_who_knows_only_sizes_is_promised_least(domain: Domain, seed: int) -> None:
    """The tier worst never promises more, at any cell, than the records of the others allow."""
    generator = np.random.default_rng(seed)
    signal, target = signal_of(domain, generator), int(generator.integers(domain.labels))
    counts = people_of(domain, 20_000, generator)
    others = [Collective(planting_of(domain, generator), people_of(domain, 4_000, generator)) for _ in range(2)]
    setting = Setting(60_000, test=10_000)

    def of(strategy: AdaptiveUnplanting | Erasing, tier: Tier) -> SuccessBound:
        known = knowledge([Collective(strategy, counts), *others], 0, tier, 60_000)
        if isinstance(strategy, Erasing):
            return shared_erasing_bound(strategy, counts, known, setting)
        return shared_unplanting_bound(strategy, counts, known, setting)

    for strategy in (AdaptiveUnplanting.estimated(signal, target, counts), Erasing.estimated(signal, counts)):
        worst, told = of(strategy, "worst"), of(strategy, "aggregator")
        assert worst.value <= told.value
        assert (np.array(worst.margins) <= np.array(told.margins) + 1e-12).all()


def test_allies_help_and_rivals_stand_in_the_way() -> None:
    """Others who plant the label to push out undo unplanting; others who plant its replacement add to it."""
    own, many = _even(1_000), _even(2_000)
    found = {}
    for label in (0, 1):
        rival = [Collective(PUSH_OUT, own), Collective(FeatureLabelPlanting(SIGNAL, label), many)]
        known = knowledge(rival, 0, "aggregator", SETTING.population)
        found[label] = shared_unplanting_bound(PUSH_OUT, own, known, SETTING)
    alone = shared_unplanting_bound(PUSH_OUT, own, TotalSize(0), SETTING)
    assert found[0].vacuous
    # 18 pairs of 2,000 people on two cells add .09 of everybody to each; and 36,000 fewer are in nobody's collective.
    gained = np.array(found[1].margins) - np.array(alone.margins)
    assert (gained > 0.09).all()


def test_the_conflict_of_unplanting_is_worked_out_by_hand() -> None:
    """At each cell the published term gives what others add to y* less what they add to its replacement."""
    others = [
        Collective(FeatureLabelPlanting(SIGNAL, 0), _even(10)),
        Collective(NaiveUnplanting(SIGNAL, 0, 2), _even(5)),
    ]
    published = PublishedConflict.of(PUSH_OUT, others, 1_000)
    # 180 and 90 people on two cells: 90 plant label 0 at each, 45 label 2. Differences to label 1, which none plants.
    np.testing.assert_allclose(published.term, [[0.09, 0, 0.045], [0.09, 0, 0.045]])
    assert published.people == 270
    # The same records published for the label to push out: columns differ by the same amounts.
    planted = PublishedConflict.of(FeatureLabelPlanting(SIGNAL, 0), others, 1_000)
    one, two = (
        shared_unplanting_bound(PUSH_OUT, _even(40), known, Setting(1_000)).margins for known in (published, planted)
    )
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-15)


def test_success_keeps_the_bounds_of_all_tiers() -> None:
    """In random scenarios no bound fails more often than its δ allows; the drawing repeats with the seed."""
    found = mixed_scenarios(60, np.random.default_rng(7))
    assert mixed_scenarios(5, np.random.default_rng(7)) == mixed_scenarios(5, np.random.default_rng(7))
    goals = ("unplanting_adaptive", "unplanting_naive", "erasing", "erasing_own_modes")
    assert set(found) == {f"{exact}{goal}_{tier}" for exact in ("", "exact_") for goal in goals for tier in TIERS}
    for score in found.values():
        assert score["checks"] == 60
        assert score["not_vacuous"] > 0
        assert score["violations"] <= score["allowed"]
    with pytest.raises(ConfigError, match="1 scenario or more"):
        mixed_scenarios(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (
            lambda: shared_unplanting_bound(FeatureLabelPlanting(SIGNAL, 0), _even(1), TotalSize(0), SETTING),  # type: ignore[arg-type]
            ConfigError,
            "kind Unplanting",
        ),
        (lambda: shared_erasing_bound(PUSH_OUT, _even(1), TotalSize(0), SETTING), ConfigError, "kind Erasing"),  # type: ignore[arg-type]
        (
            lambda: shared_unplanting_bound(PUSH_OUT, _even(1_000), TotalSize(190_000), SETTING),
            DataError,
            "Expected all collectives within the population",
        ),
        (
            lambda: shared_erasing_bound(
                Erasing.estimated(SIGNAL, _even(1)), _even(1), PublishedConflict(5, np.zeros((2, 3))), SETTING
            ),
            DataError,
            "published for another signal",
        ),
        (
            lambda: shared_unplanting_bound(
                PUSH_OUT, _even(1), KnownStrategies((FeatureLabelPlanting(ELSEWHERE, 1),), (5,)), SETTING
            ),
            ConfigError,
            "Expected strategies of one domain",
        ),
        (lambda: Asked.by(Chain((PUSH_OUT,))), ConfigError, "plants, unplants or erases"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    """Another goal's strategy, too many people and what was published for another signal are sentences."""
    with pytest.raises(error, match=re.escape(said)):
        make()


def test_people_without_records_are_promised_nothing() -> None:
    """No members, no bound."""
    none = np.zeros((DOMAIN.cells, DOMAIN.labels), np.int64)
    assert shared_unplanting_bound(PUSH_OUT, none, TotalSize(10), SETTING).vacuous
    assert shared_erasing_bound(Erasing.estimated(SIGNAL, _even(1)), none, TotalSize(10), SETTING).vacuous

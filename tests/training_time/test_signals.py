"""Tests of what members change in their records: the maps, who is touched, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from tests.examples import examples
from tests.training_time.worlds import domains, people_of, seeds, signal_of, strategies_of, table_of
from ttca.errors import ConfigError, DataError
from ttca.training_time.signals import (
    AdaptiveUnplanting,
    Chain,
    Domain,
    Erasing,
    FeatureLabelPlanting,
    FeatureOnlyPlanting,
    NaiveUnplanting,
    Records,
    Signal,
    act,
)

DOMAIN = Domain((2, 3), 3)
SIGNAL = Signal(DOMAIN, (1,), (2,))


@examples(30)
@given(domains, seeds)
def test_cells_and_features_are_the_same_thing(domain: Domain, seed: int) -> None:
    """Decoding and encoding are inverse, and numbering is that of the features read as digits."""
    cells = np.arange(domain.cells)
    features = domain.decode(cells)
    assert (domain.encode(features) == cells).all()
    assert (np.lexsort(features.T[::-1]) == cells).all()
    table = table_of(domain, 50, np.random.default_rng(seed))
    again = Records.from_features(domain, table.features, table.labels)
    assert (again.cells == table.cells).all()


@examples(30)
@given(domains, seeds)
def test_a_signal_is_idempotent_and_sets_its_columns_only(domain: Domain, seed: int) -> None:
    """g∘g = g, every cell of the signal set is its own image, and free features stay as they are."""
    signal = signal_of(domain, np.random.default_rng(seed))
    assert (signal.map[signal.map] == signal.map).all()
    assert (signal.map[signal.cells] == signal.cells).all()
    before, after = domain.decode(np.arange(domain.cells)), domain.decode(signal.map)
    free = [c for c in range(len(domain.levels)) if c not in signal.columns]
    assert (after[:, signal.columns] == signal.values).all()
    assert (after[:, free] == before[:, free]).all()


@examples(30)
@given(domains, seeds)
def test_nobody_who_takes_no_part_is_touched(domain: Domain, seed: int) -> None:
    """Every strategy leaves the rows of non-members, and the table it was given, as they were."""
    generator = np.random.default_rng(seed)
    table = table_of(domain, 80, generator)
    cells, labels = table.cells.copy(), table.labels.copy()
    members = generator.random(80) < 0.4
    for strategy in strategies_of(domain, generator):
        after = strategy.act(table, members)
        assert (after.cells[~members] == cells[~members]).all()
        assert (after.labels[~members] == labels[~members]).all()
        assert (table.cells == cells).all()
        assert (table.labels == labels).all()


@examples(30)
@given(domains, seeds)
def test_rows_and_histograms_agree(domain: Domain, seed: int) -> None:
    """The histogram of the rows after a strategy is the strategy applied to the histogram, and nobody is lost."""
    generator = np.random.default_rng(seed)
    table = table_of(domain, 80, generator)
    members = generator.random(80) < 0.4
    for strategy in strategies_of(domain, generator):
        after = strategy.act(table, members)
        assert (after.counts() == table.counts(~members) + strategy.on_counts(table.counts(members))).all()
        assert after.counts().sum() == len(table)


@examples(30)
@given(domains, seeds)
def test_several_collectives_act_each_on_its_own_people(domain: Domain, seed: int) -> None:
    """Acting together is the sum of acting apart, and −1 takes no part."""
    generator = np.random.default_rng(seed)
    table = table_of(domain, 90, generator)
    strategies = strategies_of(domain, generator)[:3]
    membership = generator.integers(-1, 3, 90)
    wanted = table.counts(membership == -1)
    for i, strategy in enumerate(strategies):
        wanted = wanted + strategy.on_counts(table.counts(membership == i))
    assert (act(table, membership, strategies).counts() == wanted).all()


def test_each_strategy_does_what_it_says() -> None:
    """The published maps, record by record, on a domain small enough to read."""
    everything = Records(DOMAIN, np.repeat(np.arange(6), 3), np.tile(np.arange(3), 6))
    everybody = np.ones(18, np.bool_)
    sent = SIGNAL.map[everything.cells]
    planted = FeatureLabelPlanting(SIGNAL, 1).act(everything, everybody)
    assert (planted.cells == sent).all()
    assert (planted.labels == 1).all()
    only = FeatureOnlyPlanting(SIGNAL, 1, 0).act(everything, everybody)
    assert (only.labels == everything.labels).all()
    assert (only.cells == np.where(everything.labels == 1, sent, 0)).all()
    naive = NaiveUnplanting(SIGNAL, 1, 2).act(everything, everybody)
    assert (naive.cells == sent).all()
    assert (naive.labels == 2).all()
    # Cells 2 and 5 are the signal set.
    counts = np.zeros((6, 3), np.int64)
    counts[2], counts[5] = (3, 9, 1), (1, 9, 3)
    adaptive = AdaptiveUnplanting.estimated(SIGNAL, 1, counts).act(everything, everybody)
    assert (adaptive.cells == sent).all()
    assert (adaptive.labels == np.where(sent == 2, 0, 2)).all()
    counts[5] = (1, 2, 3)
    erased = Erasing.estimated(SIGNAL, counts).act(everything, everybody)
    assert (erased.cells == everything.cells).all()
    assert (erased.labels == np.where(sent == 2, 1, 2)).all()


def test_cells_nobody_knows_take_the_commonest_label() -> None:
    """An estimate for an unseen cell is the label most frequent overall, and never the target when unplanting."""
    counts = np.zeros((6, 3), np.int64)
    counts[0] = (1, 9, 5)
    assert AdaptiveUnplanting.estimated(SIGNAL, 1, counts).estimate.tolist() == [2, 2]
    assert Erasing.estimated(SIGNAL, counts).modes.tolist() == [1, 1]
    nobody = np.zeros((6, 3), np.int64)
    assert AdaptiveUnplanting.estimated(SIGNAL, 0, nobody).estimate.tolist() == [1, 1]


def test_a_chain_is_its_parts_in_order() -> None:
    """A chain applies the first part, then the second to what it made."""
    table = table_of(DOMAIN, 60, np.random.default_rng(0))
    everybody = np.ones(60, np.bool_)
    first, second = NaiveUnplanting(SIGNAL, 1, 2), FeatureOnlyPlanting(SIGNAL, 2, 0)
    step = second.act(first.act(table, everybody), everybody)
    chain = first.then(second).act(table, everybody)
    assert (chain.cells == step.cells).all()
    assert (chain.labels == step.labels).all()


def test_success_is_what_each_goal_defines() -> None:
    """Planting counts f(g(x)) = y*, unplanting f(g(x)) ≠ y*, erasing f(g(x)) = f(x), weighted by people."""
    decisions = np.array([0, 1, 1, 1, 2, 0])
    people = np.array([4, 0, 2, 2, 1, 1])
    # Cells 0..2 are sent to 2 (label 1), cells 3..5 to 5 (label 0).
    assert FeatureLabelPlanting(SIGNAL, 1).success(decisions, people) == 0.6
    assert NaiveUnplanting(SIGNAL, 1, 0).success(decisions, people) == 0.4
    assert Erasing(SIGNAL, np.array([0, 0])).success(decisions, people) == 0.3


def test_overlap_is_the_share_sent_into_the_other_set() -> None:
    """ω is 1 for one signal, 0 for disjoint ones, and counts people where sets meet in part."""
    people = np.array([5, 1, 1, 1, 1, 1])
    assert SIGNAL.overlap(SIGNAL, people) == 1
    assert SIGNAL.overlap(Signal(DOMAIN, (1,), (0,)), people) == 0
    # g_j sets the first feature to 0: whoever has 2 as the second lands in cell 2.
    assert SIGNAL.overlap(Signal(DOMAIN, (0,), (0,)), people) == 0.2


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Domain((), 2), ConfigError, "Expected one whole number of 1 or more per feature"),
        (lambda: Domain((2, 0), 2), ConfigError, "Expected one whole number of 1 or more per feature"),
        (lambda: Domain((2,), 1), ConfigError, "Expected 2 labels or more"),
        (lambda: Domain((10**5, 10**5), 2), ConfigError, "Expected at most 50000000 pairs"),
        (lambda: DOMAIN.encode(np.zeros((3, 1), int)), DataError, "Expected features of shape (N, 2)"),
        (lambda: DOMAIN.encode(np.zeros((3, 2))), DataError, "as whole numbers, got dtype float64"),
        (lambda: DOMAIN.encode(np.full((3, 2), 2)), DataError, "Expected feature 0 within 0..1"),
        (lambda: DOMAIN.counts(np.zeros((2, 2), int)), DataError, "shape (6, 3)"),
        (lambda: DOMAIN.counts(np.full((6, 3), -1)), DataError, "of 0 or more"),
        (lambda: Records(DOMAIN, np.zeros(2, int), np.zeros(3, int)), DataError, "one cell and one label per person"),
        (lambda: Records(DOMAIN, np.zeros(2, int), np.full(2, 3)), DataError, "Expected labels within 0..2"),
        (lambda: Signal(DOMAIN, (), ()), ConfigError, "one or more different columns"),
        (lambda: Signal(DOMAIN, (1, 1), (0, 0)), ConfigError, "one or more different columns"),
        (lambda: Signal(DOMAIN, (0,), (2,)), ConfigError, "got value 2 for column 0"),
        (lambda: FeatureLabelPlanting(SIGNAL, 3), ConfigError, "Expected the target label within 0..2"),
        (lambda: FeatureOnlyPlanting(SIGNAL, 1, 2), ConfigError, "outside the signal set"),
        (lambda: NaiveUnplanting(SIGNAL, 1, 1), ConfigError, "other than the target"),
        (lambda: AdaptiveUnplanting(SIGNAL, 1, np.array([1, 0])), ConfigError, "other than the target"),
        (lambda: AdaptiveUnplanting(SIGNAL, 1, np.array([0])), DataError, "the estimate with one label per cell"),
        (lambda: Erasing(SIGNAL, np.array([0])), DataError, "the modes with one label per cell"),
        (lambda: Chain(()), ConfigError, "one or more strategies"),
        (
            lambda: FeatureLabelPlanting(SIGNAL, 0).act(table_of(DOMAIN, 3, np.random.default_rng()), np.ones(3)),
            DataError,
            "Expected a boolean mask",
        ),
        (
            lambda: FeatureLabelPlanting(SIGNAL, 0).act(
                table_of(Domain((6,), 3), 3, np.random.default_rng()), np.ones(3, np.bool_)
            ),
            ConfigError,
            "Build strategy and table from one domain",
        ),
        (
            lambda: act(table_of(DOMAIN, 3, np.random.default_rng()), np.full(3, 1), [FeatureLabelPlanting(SIGNAL, 0)]),
            DataError,
            "Expected memberships within −1..0",
        ),
        (lambda: act(table_of(DOMAIN, 3, np.random.default_rng()), np.zeros(2, int), []), DataError, "per person"),
        (
            lambda: SIGNAL.overlap(Signal(Domain((6,), 3), (0,), (0,)), np.ones(6)),
            ConfigError,
            "two signals of one domain",
        ),
        (lambda: SIGNAL.overlap(SIGNAL, np.zeros(6)), DataError, "not all 0"),
        (
            lambda: FeatureLabelPlanting(SIGNAL, 0).success(np.zeros(5, int), np.ones(6)),
            DataError,
            "one decision per cell",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    """Everything that does not fit together is refused with a sentence that says what was expected."""
    with pytest.raises(error, match=re.escape(said)):
        make()


def test_counts_of_a_strategy_are_people() -> None:
    """A push-forward keeps whole people even where counts are far beyond 32 bits."""
    counts = people_of(DOMAIN, 100, np.random.default_rng(0)) + 2**40
    after = FeatureLabelPlanting(SIGNAL, 0).on_counts(counts)
    assert after.dtype == np.int64
    assert after.sum() == counts.sum()

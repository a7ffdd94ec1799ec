"""Tests of what a frequency may miss: exact margins are quantiles, keep their δ̃, and are narrow where it counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.examples import examples
from tests.training_time.worlds import domains, people_of, planting_of, seeds
from ttca.training_time.bounds import Setting, planting_bound, unplanting_bound
from ttca.training_time.margins import Exact, Hoeffding, Sample
from ttca.training_time.signals import AdaptiveUnplanting, Domain, Signal

ERRORS = st.floats(1e-9, 0.2)
NOBODY = 0


def _records(k: int, n: int) -> Sample:
    return Sample(np.array([[k, n - k]]), n)


@examples(300)
@given(st.integers(1, 3_000), st.data(), st.integers(1, 3_000), ERRORS)
def test_exact_margins_are_the_quantiles(n: int, data: st.DataObject, m: int, error: float) -> None:
    """What is relied on fails with a chance of δ̃ at most, and one person more would fail more often."""
    k = data.draw(st.integers(0, n))
    value, off = Exact(error).success(k, _records(k, n), m)
    (rate, _) = Exact(error).success(k, _records(k, n), None)
    assert value + off == pytest.approx(k / n)
    # Clopper–Pearson: at this rate so many of n, or more, come with a chance of δ̃.
    assert k == rate == 0 or binom.sf(k - 1, n, rate) == pytest.approx(error, rel=1e-6)
    fewest = round(value * m)
    assert value == fewest / m
    assert binom.cdf(fewest - 1, m, rate) <= error * (1 + 1e-6)
    assert fewest == m or binom.cdf(fewest, m, rate) > error * (1 - 1e-6)


@examples(100)
@given(st.integers(1, 3_000), st.data(), st.integers(1, 3_000), ERRORS)
def test_rivals_and_own_records_are_made_of_the_same_quantiles(
    n: int, data: st.DataObject, m: int, error: float
) -> None:
    """A rival's share is the complement's least, the wanted label's its own, and own records are moved and back."""
    k = data.draw(st.integers(0, n))
    exact, records = Exact(error), _records(k, n)
    found = exact.rivalry(np.array([[k, n - k]]), np.array([1]), records, m)[0, 0]
    others = exact.success(n - k, _records(n - k, n), m)[0]
    assert found == pytest.approx((1 - others) - others)
    assert exact.own(np.array([k]), records)[0] == exact.success(k, records, n)[0]
    assert np.isinf(exact.rivalry(np.array([[k, n - k]]), np.array([1]), records, NOBODY)).all()


def test_bounds_on_frequencies_fail_as_rarely_as_they_say() -> None:
    """Over 20,000 draws of members and others, both moves together fail with a chance of 2δ̃ at most, yet not never."""
    generator, error, n, m = np.random.default_rng(3), 0.05, 400, 900
    exact = Exact(error)
    for p in (0.003, 0.05, 0.5):
        own, others = generator.binomial(n, p, 20_000), generator.binomial(m, p, 20_000) / m
        least = {k: exact.success(int(k), _records(int(k), n), m)[0] for k in np.unique(own)}
        failed = np.mean([o < least[k] for k, o in zip(own, others, strict=True)])
        assert failed <= 2 * error
        # Both moves at once: a bound that never failed at p = ½ would be one that nobody should use.
        assert p < 0.5 or failed > 0.001


def test_rare_cells_have_narrow_margins() -> None:
    """One in a thousand among 5,000: Hoeffding adds .08 on the way to 50,000 others, exact quantiles a tenth of it."""
    records, table, wanted = _records(5, 5_000), np.array([[5, 5]]), np.array([1])
    wide, narrow = (slack(0.001).rivalry(table, wanted, records, 50_000)[0, 0] for slack in (Hoeffding, Exact))
    assert wide == pytest.approx(0.0692, abs=1e-3)
    assert 0 < narrow < wide / 10


@examples(60)
@given(domains, seeds, st.integers(1, 30_000), st.integers(0, 100_000))
def test_exact_bounds_share_delta_as_the_others_do(domain: Domain, seed: int, n: int, rest: int) -> None:
    """δ̃, size and cells are the same with either margins, and a bound with all records in it loses no one to chance."""
    generator = np.random.default_rng(seed)
    strategy, counts = planting_of(domain, generator), people_of(domain, n, generator)
    wide, narrow = (
        planting_bound(strategy, counts, Setting(n + rest, test=1_000, margins=margins))
        for margins in ("hoeffding", "exact")
    )
    assert (wide.error, wide.size, len(wide.margins)) == (narrow.error, narrow.size, len(narrow.margins))
    assert narrow.value == pytest.approx(max(0.0, narrow.share - narrow.slack))
    assert 0 <= narrow.value <= narrow.share <= 1


def test_the_share_is_counted_on_those_who_chose_nothing() -> None:
    """With exact margins estimators act and add mass, but their own records are not counted for the share."""
    signal = Signal(Domain((2, 2), 2), (1,), (0,))
    strategy = AdaptiveUnplanting(signal, 0, np.array([1, 1]))
    # Estimators are all at the first cell, the others mostly at the second.
    first = np.array([[0, 5_000], [0, 0], [0, 0], [0, 0]])
    others = np.array([[10, 10], [0, 0], [0, 9_980], [0, 0]])
    setting = Setting(40_000, test=10_000, margins="exact")
    bound = unplanting_bound(strategy, others, setting, estimators=first)
    assert bound.size == 15_000
    hit = np.array(bound.margins) > 0
    people = signal.people(others)
    assert bound.share == people[hit].sum() / 10_000
    alone = Exact(bound.error).success(int(people[hit].sum()), Sample(others, 10_000), 10_000)
    assert bound.value == alone[0] > 0

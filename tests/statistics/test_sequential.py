"""Tests of the e-processes and their running bounds: exact expectations, exact errors, and what they save."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats

from tests.examples import examples
from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import clopper_pearson_upper
from ttca.statistics.sequential import (
    bar_log_e,
    bar_lower,
    bar_rejects_at,
    paired_log_e,
    paired_log_e_at,
    paired_lower,
)

bars = st.floats(0.001, 0.999)
outcomes = st.lists(st.integers(0, 1), min_size=1, max_size=60)
changes = st.lists(st.integers(-1, 1), min_size=1, max_size=60)


# --- against a bar ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), bars)
def test_the_closed_form_is_the_integral(right: int, wrong: int, bar: float) -> None:
    """The e-value against a bar is the mean likelihood ratio over all higher rates."""

    def ratio(z: float) -> float:
        return (1 + z * (1 - bar) / bar) ** right * (1 - z) ** wrong

    whole = integrate.quad(ratio, 0, 1, epsabs=0, epsrel=1e-10, limit=500)[0]
    assert float(bar_log_e(right, right + wrong, bar)) == pytest.approx(math.log(whole), abs=1e-7)


def mean_e(asked: int, rate: float, bar: float) -> float:
    k = np.arange(asked + 1)
    return float(np.exp(stats.binom.logpmf(k, asked, rate) + bar_log_e(k, asked, bar)).sum())


@settings(deadline=None)
@given(st.integers(0, 200), st.floats(0.0001, 0.9999))
def test_at_the_bar_the_mean_is_one(asked: int, bar: float) -> None:
    """Where S is exactly the bar, the e-value is 1 on average after any number of persons, by enumeration."""
    assert mean_e(asked, bar, bar) == pytest.approx(1, abs=1e-8)


@given(st.integers(1, 200), st.floats(0.01, 0.99), st.floats(0, 1))
def test_below_the_bar_the_mean_is_at_most_one(asked: int, bar: float, share: float) -> None:
    """Where S is below the bar, the e-value is at most 1 on average."""
    assert mean_e(asked, bar * share, bar) <= 1 + 1e-8


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000), st.floats(1e-12, 1, exclude_max=True))
def test_it_stays_a_number_and_falls_with_the_bar(right: int, wrong: int, bar: float) -> None:
    """At thousands of persons and any bar the logarithm is finite, and a lower bar is beaten by more."""
    here, lower = bar_log_e(right, right + wrong, np.array([bar, bar / 2]))
    assert math.isfinite(here)
    assert lower >= here - 1e-9


def test_far_below_the_bar_the_sum_takes_over() -> None:
    """Where the tail leaves the range of a double, the value still is the integral's, which falls like 1/m."""
    right, asked, bar = 2500, 5000, 0.99
    assert float(special.betaincc(right + 1, asked - right + 1, bar)) == 0
    # The integrand falls from 1 so fast that only the first thousandths count.
    whole = integrate.quad(lambda z: (1 + z * (1 - bar) / bar) ** right * (1 - z) ** (asked - right), 0, 0.02)[0]
    assert float(bar_log_e(right, asked, bar)) == pytest.approx(math.log(whole), abs=1e-8)


def test_nothing_beats_certainty_and_anything_beats_zero() -> None:
    """A bar of 1 is never rejected; a bar of 0 is, by the first right answer; without answers nothing is known."""
    assert bar_log_e([0, 5, 5000], [0, 5, 5000], 1.0).tolist() == [-np.inf] * 3
    assert bar_rejects_at(np.ones(5000, np.int64), 1.0, 0.05) is None
    assert bar_rejects_at([0, 0, 1], 0.0, 0.05) == 3
    assert float(bar_log_e(0, 0, 0.7)) == 0


def ever_rejects(persons: int, bar: float, alpha: float) -> float:
    """Return the exact probability of ever rejecting at S equal to the bar."""
    alive, rejected = np.array([1.0]), 0.0
    for asked in range(1, persons + 1):
        alive = np.append(alive * (1 - bar), 0) + np.append(0, alive * bar)
        over = bar_log_e(np.arange(asked + 1), asked, bar) >= -math.log(alpha)
        rejected += float(alive[over].sum())
        alive[over] = 0
    return rejected


@pytest.mark.parametrize("bar", [0.02, 0.5, 0.85, 0.95])
def test_looking_after_every_person_keeps_the_error(bar: float) -> None:
    """Over 400 looks a false rejection is no likelier than alpha, exactly computed."""
    assert 0 < ever_rejects(400, bar, 0.05) <= 0.05


@examples(50)
@given(outcomes, bars, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_running_bound_is_what_was_rejected(said: list[int], bar: float, alpha: float) -> None:
    """The bound passes a bar at the very person at whom the bar is rejected, and never falls."""
    bound = bar_lower(np.cumsum(said), alpha)
    rejected = bar_rejects_at(said, bar, alpha)
    passed = np.flatnonzero(bound >= bar - 1e-12)
    clearly = np.flatnonzero(bound > bar + 1e-12)
    assert np.all(np.diff(bound) >= 0)
    assert np.all(bound < 1)
    if len(clearly) or rejected is not None:
        assert rejected is not None
        assert passed[0] + 1 <= rejected <= (clearly[0] + 1 if len(clearly) else rejected)


def test_a_clear_case_is_certified_early() -> None:
    """At rates like those of faces told apart by a trained model, certifying takes some 34 persons on average."""
    bar = clopper_pearson_upper(round(0.785 * 338), 338, 0.025)
    said = np.random.default_rng(0).random((400, 299)) < 0.98
    found = [bar_rejects_at(row, bar, 0.025) for row in said]
    stopped = [at for at in found if at is not None]
    assert len(stopped) == len(found)
    assert float(np.mean(stopped)) == pytest.approx(34, abs=6)


# --- pairs -----------------------------------------------------------------------------------------------------


@examples(50)
@given(st.integers(1, 12), st.sampled_from([0.0, 0.05, 0.3, 0.9]), st.floats(0, 1), st.floats(0.5, 1))
def test_at_the_margin_the_paired_mean_is_at_most_one(persons: int, margin: float, where: float, part: float) -> None:
    """Where S - A is exactly minus the margin the e-value is 1 on average, and at most 1 below, by enumeration."""
    lost = margin + where * (1 - margin) / 2
    won = (lost - margin) * part
    total, exact = 0.0, part == 1
    for b in range(persons + 1):
        for c in range(persons + 1 - b):
            same = persons - b - c
            order = np.array([1] * b + [-1] * c + [0] * same)
            ways = math.comb(persons, b) * math.comb(persons - b, c)
            chance = ways * won**b * lost**c * max(0.0, 1 - won - lost) ** same
            total += chance * math.exp(paired_log_e(order, margin)[-1])
    assert total <= 1 + 1e-9
    assert not exact or total == pytest.approx(1, abs=1e-9)


@given(changes, st.randoms(), st.floats(0, 0.95))
def test_only_counts_matter_in_the_end(differences: list[int], random: object, margin: float) -> None:
    """The last e-value is the same in any order, and another person won for one lost never makes it smaller."""
    last = paired_log_e(differences, margin)[-1]
    assert paired_log_e(sorted(differences), margin)[-1] == pytest.approx(last, abs=1e-9)
    better = list(differences)
    better[0] = 1
    assert paired_log_e(better, margin)[-1] >= last - 1e-9
    said = np.array(differences)
    won, lost, same = (np.cumsum(said == value) for value in (1, -1, 0))
    assert paired_log_e_at(won, lost, same, margin) == pytest.approx(paired_log_e(differences, margin), abs=1e-12)


@examples(50)
@given(changes, st.floats(0, 0.95), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_paired_bound_is_what_was_rejected(differences: list[int], margin: float, alpha: float) -> None:
    """The bound passes minus a margin at the very person at whom that margin is rejected."""
    bound = paired_lower(differences, alpha)
    assert np.all(np.diff(bound) >= 0)
    assert np.all((bound >= -1) & (bound < 1))
    rejected = np.flatnonzero(paired_log_e(differences, margin) >= -math.log(alpha))
    passed, clearly = np.flatnonzero(bound >= -margin - 1e-12), np.flatnonzero(bound > -margin + 1e-12)
    if len(clearly) or len(rejected):
        assert len(rejected)
        assert passed[0] <= rejected[0]
        assert not len(clearly) or rejected[0] <= clearly[0]


def drawn(rng: np.random.Generator, shape: tuple[int, int], won: float, lost: float) -> NDArray[np.int64]:
    return rng.choice(np.array([1, -1, 0]), size=shape, p=[won, lost, 1 - won - lost])


@pytest.mark.parametrize(("won", "lost"), [(0.1, 0.1), (0.3, 0.3), (0.01, 0.06)])
def test_the_paired_bound_covers(won: float, lost: float) -> None:
    """In 400 actions of 120 persons some bound exceeds the true difference in about alpha of them at most."""
    rows = drawn(np.random.default_rng(1), (400, 120), won, lost)
    wrong = sum(bool((paired_log_e(row, lost - won) >= -math.log(0.05)).any()) for row in rows)
    assert wrong <= stats.binom.isf(1e-3, 400, 0.05)
    few = [float(paired_lower(row, 0.05)[-1]) <= won - lost for row in rows[:40]]
    assert np.mean(few) > 0.8


def test_the_paired_bound_nears_the_truth() -> None:
    """With thousands of persons the bound lies a little below the true difference."""
    row = drawn(np.random.default_rng(2), (1, 3000), 0.15, 0.05)[0]
    bound = paired_lower(row, 0.05)
    assert 0.05 < bound[-1] < 0.1


def test_looking_early_costs_power_near_the_bar() -> None:
    """From .78 to .85 right, 299 persons, correlation .5, looking always claims less than McNemar's .914, earlier."""
    both = 0.78 * 0.85 + 0.5 * math.sqrt(0.78 * 0.22 * 0.85 * 0.15)
    rows = drawn(np.random.default_rng(3), (600, 299), 0.85 - both, 0.78 - both)
    reached = np.array([paired_log_e(row) >= math.log(20) for row in rows])
    claims = reached.any(axis=1)
    assert 0.65 < claims.mean() < 0.8
    assert reached[claims].argmax(axis=1).mean() < 200


# --- doors -----------------------------------------------------------------------------------------------------


def test_a_margin_out_of_range_is_refused_for_counts_too() -> None:
    """The form that takes counts checks its margin as the other does."""
    with pytest.raises(ConfigError, match="margin"):
        paired_log_e_at([1], [0], [0], 1.0)


def test_what_is_no_sequence_of_outcomes_is_refused() -> None:
    """Other numbers than the possible outcomes, falling counts and impossible rates are refused with a sentence."""
    with pytest.raises(ActionError, match="each of 0, 1"):
        bar_rejects_at([0, 2], 0.5, 0.05)
    with pytest.raises(ActionError, match="each of -1, 0, 1"):
        paired_log_e([0.5, 1.0])
    with pytest.raises(ActionError, match="cumulative sum"):
        bar_lower([1, 0], 0.05)
    with pytest.raises(ActionError, match="right ≤ m"):
        bar_lower([2, 2], 0.05)
    with pytest.raises(ConfigError, match=r"bar in \[0, 1\]"):
        bar_log_e(1, 2, 1.5)
    with pytest.raises(ConfigError, match="margin"):
        paired_log_e([0, 1], 1.0)
    for call in (bar_lower, paired_lower):
        with pytest.raises(ConfigError, match="alpha"):
            call([0, 1], 0.0)


def test_no_answers_bring_no_bounds() -> None:
    """Without persons there is nothing to bound and nothing to reject."""
    nobody = np.zeros(0, np.int64)
    assert len(bar_lower(nobody, 0.05)) == len(paired_lower(nobody, 0.05)) == len(paired_log_e(nobody)) == 0
    assert bar_rejects_at(nobody, 0.5, 0.05) is None

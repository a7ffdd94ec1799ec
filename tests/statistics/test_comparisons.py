"""Tests of the one-sided comparisons of two rates, against enumeration, scipy and figures computed elsewhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special, stats

from tests.examples import examples
from ttca.errors import ActionError, ConfigError
from ttca.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from ttca.statistics.comparisons import (
    _independent_order,
    farrington_manning_p,
    fisher_p,
    mcnemar_mid_p,
    mcnemar_p,
    miettinen_nurminen_p,
    ratio_by_two_bounds,
    rise_p,
    tango_p,
)

Floats = NDArray[np.float64]
Table = tuple[int, int]


# --- the same by brute force ---------------------------------------------------------------------------------


def best_fit(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where a loss is smallest, ends included, whatever its shape there."""
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return float(min((low, high, float(found.x)), key=loss))


def fitted_rates(
    x: int, m: int, y: int, n: int, to_s: Callable[[float], float], span: Table | tuple[float, float]
) -> float:
    """Return the reference's rate under the null hypothesis that makes a table likeliest."""

    def loss(rate: float) -> float:
        s = to_s(rate)
        terms = (
            special.xlogy(x, s) + special.xlog1py(m - x, -s) + special.xlogy(y, rate) + special.xlog1py(n - y, -rate)
        )
        return -float(terms)

    return best_fit(loss, *span)


def hull(score: dict[Table, float]) -> dict[Table, float]:
    """Return each table's greatest score among those with no more in the first and no less in the second count."""
    return {t: max(z for u, z in score.items() if u[0] <= t[0] and u[1] >= t[1]) for t in score}


def standardised(estimate: float, variance: float) -> float:
    return estimate / math.sqrt(variance) if variance > 1e-15 else 0.0


@lru_cache
def difference_order(m: int, n: int, margin: float) -> dict[Table, float]:
    score = {}
    for x, y in itertools.product(range(m + 1), range(n + 1)):
        a = fitted_rates(x, m, y, n, lambda rate: max(0.0, rate - margin), (margin, 1.0))
        s = a - margin
        score[x, y] = standardised(x / m - y / n + margin, s * (1 - s) / m + a * (1 - a) / n)
    return hull(score)


@lru_cache
def ratio_order(m: int, n: int, ratio: float) -> dict[Table, float]:
    score = {}
    for x, y in itertools.product(range(m + 1), range(n + 1)):
        a = fitted_rates(x, m, y, n, lambda rate: ratio * rate, (0.0, 1.0))
        s = ratio * a
        score[x, y] = standardised(x / m - ratio * y / n, s * (1 - s) / m + ratio**2 * a * (1 - a) / n)
    return hull(score)


@lru_cache
def paired_order(m: int, margin: float) -> dict[Table, float]:
    score = {}
    for won, lost in itertools.product(range(m + 1), repeat=2):
        if won + lost <= m:

            def loss(q: float, won: int = won, lost: int = lost) -> float:
                same = max(0.0, 1 + margin - 2 * q)
                return -float(
                    special.xlogy(won, max(0.0, q - margin))
                    + special.xlogy(lost, q)
                    + special.xlogy(m - won - lost, same)
                )

            q = best_fit(loss, margin, (1 + margin) / 2)
            score[won, lost] = standardised((won - lost) / m + margin, (2 * q - margin - margin**2) / m)
    return hull(score)


def independent_chance(tables: list[Table], m: int, n: int, s: Floats, a: Floats) -> Floats:
    total = np.zeros(s.shape)
    for x, y in tables:
        total += stats.binom.pmf(x, m, s) * stats.binom.pmf(y, n, a)
    return total


def paired_chance(tables: list[Table], m: int, win: Floats, lose: Floats) -> Floats:
    same = np.clip(1 - win - lose, 0, 1)
    total = np.zeros(win.shape)
    for b, c in tables:
        ways = math.comb(m, b) * math.comb(m - b, c)
        total += ways * win**b * lose**c * same ** (m - b - c)
    return total


def between(p: float, order: dict[Table, float], table: Table, chance: Callable[[list[Table]], Floats]) -> bool:
    """Whether p is a maximum over a fine grid, with near ties of an inexact fit either way."""
    least = [t for t, z in order.items() if z >= order[table] + 1e-5 or t == table]
    most = [t for t, z in order.items() if z >= order[table] - 1e-5]
    low, high = float(chance(least).max()), float(chance(most).max())
    return low - 1e-12 <= p <= max(1e-7, high + 5e-5 * math.sqrt(high) + 1e-6)


counts = st.integers(1, 7)
margins = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.6])
ratios = st.sampled_from([0.5, 0.8, 0.9, 1.0])
GRID = np.linspace(0, 1, 4001)


@examples(60)
@given(counts, counts, margins, st.data())
def test_farrington_manning_is_the_enumerated_maximum(m: int, n: int, margin: float, data: st.DataObject) -> None:
    """The p within a margin is the greatest probability over the reference's rate of tables at least as extreme."""
    x, y = data.draw(st.integers(0, m)), data.draw(st.integers(0, n))
    a = margin + (1 - margin) * GRID
    assert between(
        farrington_manning_p(x, m, y, n, margin),
        difference_order(m, n, margin),
        (x, y),
        lambda tables: independent_chance(tables, m, n, np.clip(a - margin, 0, 1), np.minimum(a, 1)),
    )


@examples(60)
@given(counts, counts, ratios, st.data())
@pytest.mark.full
def test_miettinen_nurminen_is_the_enumerated_maximum(m: int, n: int, ratio: float, data: st.DataObject) -> None:
    """The p of a ratio is the greatest probability over the reference's rate of tables at least as extreme."""
    x, y = data.draw(st.integers(0, m)), data.draw(st.integers(0, n))
    assert between(
        miettinen_nurminen_p(x, m, y, n, ratio),
        ratio_order(m, n, ratio),
        (x, y),
        lambda tables: independent_chance(tables, m, n, ratio * GRID, GRID),
    )


@examples(60)
@given(st.integers(1, 9), margins, st.data())
def test_tango_is_the_enumerated_maximum(m: int, margin: float, data: st.DataObject) -> None:
    """The paired p within a margin is the greatest probability over the share lost of tables at least as extreme."""
    won = data.draw(st.integers(0, m))
    lost = data.draw(st.integers(0, m - won))
    q = margin + (1 - margin) / 2 * GRID
    assert between(
        tango_p(won, lost, m, margin),
        paired_order(m, margin),
        (won, lost),
        lambda tables: paired_chance(tables, m, np.clip(q - margin, 0, 1), q),
    )


@example((150, 120), 0.05, 0.875, 1.0)
@settings(max_examples=8, deadline=None)
@given(st.sampled_from([(150, 120), (90, 200)]), st.sampled_from([0.05, 0.1]), st.floats(0.6, 0.95), st.floats(-2, 3))
@pytest.mark.full
def test_no_rate_beats_the_maximum_at_many_persons(
    persons: tuple[int, int], margin: float, rate: float, z: float
) -> None:
    """With hundreds of persons, most of the grid left out, no rate of another fine grid is likelier."""
    m, n = persons
    y = round(rate * n)
    x = min(m, max(0, round(m * (rate - margin) + z * math.sqrt(m * rate * (1 - rate) * (1 + m / n)))))
    # Finer near 0 and 1, where a probability turns quickly.
    a = np.sin(np.linspace(0, math.pi / 2, 4001)) ** 2
    s_counts, a_counts = np.arange(m + 1), np.arange(n + 1)
    for p, kind, value, low in (
        (farrington_manning_p(x, m, y, n, margin), "difference", margin, margin),
        (miettinen_nurminen_p(x, m, y, n, 1 - margin), "ratio", 1 - margin, 0.0),
    ):
        order = _independent_order(m, n, kind, value)
        counted = (order >= order[x, y] - 1e-9).astype(np.float64)
        reference = low + (1 - low) * a
        subgroup = np.clip(reference - margin, 0, 1) if kind == "difference" else value * reference
        s_pmf = stats.binom.pmf(s_counts[:, None], m, subgroup)
        best = float(((counted @ stats.binom.pmf(a_counts[:, None], n, reference)) * s_pmf).sum(axis=0).max())
        assert min(best, 1.0) <= p <= max(1e-7, best + 1e-4 * math.sqrt(best))


# --- order ---------------------------------------------------------------------------------------------------


@examples(40)
@given(st.integers(1, 60), st.integers(1, 60), margins, ratios, st.data())
def test_another_right_answer_never_speaks_against_the_claim(
    m: int, n: int, margin: float, ratio: float, data: st.DataObject
) -> None:
    """No p grows with right answers of the subgroup or falls with right answers of the reference."""
    x, y = data.draw(st.integers(0, m - 1)), data.draw(st.integers(0, n - 1))
    tests: tuple[Callable[[int, int], float], ...] = (
        lambda x, y: fisher_p(x, m, y, n),
        lambda x, y: farrington_manning_p(x, m, y, n, margin),
        lambda x, y: miettinen_nurminen_p(x, m, y, n, ratio),
    )
    for p in tests:
        here = p(x, y)
        assert 0 <= p(x + 1, y) <= here * (1 + 1e-12)
        assert here <= p(x, y + 1) * (1 + 1e-12) <= 1 + 1e-11


@examples(40)
@given(st.integers(2, 80), margins, st.data())
def test_another_person_won_never_speaks_against_the_claim(m: int, margin: float, data: st.DataObject) -> None:
    """No paired p grows with persons won or falls with persons lost."""
    won = data.draw(st.integers(0, m - 1))
    lost = data.draw(st.integers(0, m - 1 - won))
    for p in (mcnemar_p, lambda b, c: tango_p(b, c, m, margin)):
        here = p(won, lost)
        assert 0 <= p(won + 1, lost) <= here * (1 + 1e-12)
        assert here <= p(won, lost + 1) * (1 + 1e-12) <= 1 + 1e-11


def test_the_order_holds_at_the_size_of_a_certificate() -> None:
    """With hundreds of persons p still falls step by step."""
    m = 200
    tests: tuple[Callable[[int], float], ...] = (
        lambda x: farrington_manning_p(x, m, round(0.8 * m), m, 0.05),
        lambda x: miettinen_nurminen_p(x, m, round(0.8 * m), m, 0.9),
        lambda x: tango_p(x - m // 2, m // 10, m, 0.05),
    )
    for p in tests:
        found = np.array([p(x) for x in range(m // 2, round(0.9 * m), m // 20)])
        assert np.all(np.diff(found) <= 1e-12)
        assert found[0] > 0.5
        assert found[-1] < 0.05


# --- the error they promise ------------------------------------------------------------------------------------


def rejected(m: int, n: int, p: Callable[[int, int], float], alpha: float) -> list[Table]:
    return [(x, y) for x in range(m + 1) for y in range(n + 1) if p(x, y) <= alpha]


@pytest.mark.parametrize("alpha", [0.05, 0.1])
@pytest.mark.parametrize(("m", "n"), [(13, 11), (9, 17)])
def test_independent_tests_keep_their_error(m: int, n: int, alpha: float) -> None:
    """Under the null hypothesis a false claim is nowhere likelier than alpha, and somewhere not much less likely."""
    a = np.linspace(0, 1, 301)
    for p, bar in (
        (lambda x, y: fisher_p(x, m, y, n), a),
        (lambda x, y: farrington_manning_p(x, m, y, n, 0.1), a - 0.1),
        (lambda x, y: miettinen_nurminen_p(x, m, y, n, 0.8), 0.8 * a),
    ):
        tables = rejected(m, n, p, alpha)
        inside = bar >= 0
        sizes = [independent_chance(tables, m, n, bar[inside] * lower, a[inside]) for lower in (1.0, 0.95, 0.5)]
        assert np.max(sizes) <= alpha
        assert np.max(sizes) > 0.35 * alpha


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_paired_tests_keep_their_error(alpha: float) -> None:
    """For any dependence between a person's two answers a false claim is no likelier than alpha."""
    m = 18
    tests: tuple[tuple[Callable[[int, int], float], float], ...] = (
        (mcnemar_p, 0.0),
        (lambda b, c: tango_p(b, c, m, 0.1), 0.1),
    )
    for p, margin in tests:
        tables = [(b, c) for b in range(m + 1) for c in range(m + 1 - b) if p(b, c) <= alpha]
        lose = np.linspace(margin, (1 + margin) / 2, 200)
        sizes = [paired_chance(tables, m, (lose - margin) * lower, lose) for lower in (1.0, 0.95, 0.5)]
        assert np.max(sizes) <= alpha
        assert np.max(sizes) > 0.5 * alpha


def test_scores_alone_would_exceed_alpha() -> None:
    """The normal approximation of the score claims too often at 300 persons, which is why p is enumerated."""
    m, margin = 300, 0.05
    order = _independent_order(m, m, "difference", margin)
    tables = order >= stats.norm.isf(0.05)
    a = np.linspace(margin, 1, 400)
    counts = np.arange(m + 1)
    s_pmf = stats.binom.pmf(counts[:, None], m, np.clip(a - margin, 0, 1))
    a_pmf = stats.binom.pmf(counts[:, None], m, a)
    assert 0.0515 < float(((tables @ a_pmf) * s_pmf).sum(axis=0).max()) < 0.056


# --- figures computed elsewhere ------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_fisher_agrees_with_scipy(right: int, wrong: int, reference_right: int, reference_wrong: int) -> None:
    """Fisher's p is that of scipy, empty groups included."""
    m, n = right + wrong, reference_right + reference_wrong
    theirs = stats.fisher_exact(np.array([[right, wrong], [reference_right, reference_wrong]]), "greater").pvalue
    assert fisher_p(right, m, reference_right, n) == pytest.approx(theirs, rel=1e-9)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_agrees_with_scipy(won: int, lost: int) -> None:
    """McNemar's p is that of the one-sided binomial test, and 1 where no answer differs."""
    theirs = stats.binomtest(won, won + lost, 0.5, "greater").pvalue if won + lost else 1.0
    assert mcnemar_p(won, lost) == pytest.approx(theirs, rel=1e-9)


def test_fisher_keeps_its_error_at_a_hundred_persons() -> None:
    """At 100 persons a group Fisher's test errs with at most .047, at any common rate."""
    m = 100
    tables = np.array(
        [[stats.hypergeom.sf(x - 1, 2 * m, x + y, m) <= 0.05 for y in range(m + 1)] for x in range(m + 1)]
    )
    assert fisher_p(88, m, 79, m) <= 0.1
    rates = np.linspace(0.01, 0.99, 197)
    pmf = stats.binom.pmf(np.arange(m + 1)[:, None], m, rates)
    assert float(((tables @ pmf) * pmf).sum(axis=0).max()) <= 0.047


def test_the_paired_test_finds_what_two_bounds_miss() -> None:
    """From .78 to .85 right, 299 persons, correlation .5: McNemar claims in .914 of actions, two bounds in .179."""
    m, before, after = 299, 0.78, 0.85
    both = before * after + 0.5 * math.sqrt(before * (1 - before) * after * (1 - after))
    won, lost = np.arange(m + 1)[:, None], np.arange(m + 1)[None, :]
    claims = np.array([[b + c <= m and mcnemar_p(b, c) <= 0.05 for c in range(121)] for b in range(121)])
    chance = stats.binom.pmf(lost, m, before - both) * stats.binom.pmf(
        won, np.maximum(m - lost, 0), (after - both) / (1 - before + both)
    )
    assert float(chance[:121, :121][claims].sum()) == pytest.approx(0.914, abs=5e-4)

    cells = np.array([both, after - both, before - both, 1 - before - after + both])
    drawn = np.random.default_rng(0).multinomial(m, cells, size=20_000)
    s, a = drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]
    people = np.arange(m + 1)
    low, high = clopper_pearson_lower(people, m, 0.025), clopper_pearson_upper(people, m, 0.025)
    two = low[s] > high[a]
    assert float(two.mean()) == pytest.approx(0.179, abs=0.01)
    for k, r, claimed in zip(s[:200].tolist(), a[:200].tolist(), two[:200].tolist(), strict=True):
        assert ratio_by_two_bounds(k, r, m, 1.0, 0.05) == claimed


def test_the_score_test_without_a_margin_is_close_to_boschloo() -> None:
    """With a margin of nothing the exact score test lies where Boschloo's does, below Fisher's p."""
    boschloo = stats.boschloo_exact([[45, 38], [5, 12]], "greater").pvalue
    ours = farrington_manning_p(45, 50, 38, 50, 0.0)
    assert ours == pytest.approx(boschloo, abs=0.01)
    assert ours < fisher_p(45, 50, 38, 50)
    assert miettinen_nurminen_p(45, 50, 38, 50, 1.0) == pytest.approx(ours, rel=1e-6)


# --- doors -----------------------------------------------------------------------------------------------------


def test_nobody_asked_shows_nothing() -> None:
    """Without persons in a group every p is 1, and no ratio is shown."""
    assert fisher_p(0, 0, 3, 4) == fisher_p(3, 4, 0, 0) == 1.0
    assert farrington_manning_p(0, 0, 3, 4, 0.1) == farrington_manning_p(4, 4, 0, 0, 0.1) == 1.0
    assert miettinen_nurminen_p(0, 0, 3, 4, 0.8) == miettinen_nurminen_p(4, 4, 0, 0, 0.8) == 1.0
    assert tango_p(0, 0, 0, 0.1) == mcnemar_p(0, 0) == 1.0
    assert not ratio_by_two_bounds(0, 0, 0, 0.8, 0.05)


@pytest.mark.parametrize("margin", [-0.1, 1.0, math.nan])
def test_a_margin_is_a_share(margin: float) -> None:
    """A margin outside [0, 1) is refused."""
    with pytest.raises(ConfigError, match="margin"):
        farrington_manning_p(1, 2, 1, 2, margin)
    with pytest.raises(ConfigError, match="margin"):
        tango_p(1, 0, 2, margin)


@pytest.mark.parametrize("ratio", [0.0, 1.2, math.nan])
def test_a_ratio_is_at_most_one(ratio: float) -> None:
    """A ratio outside (0, 1] is refused."""
    with pytest.raises(ConfigError, match="ratio"):
        miettinen_nurminen_p(1, 2, 1, 2, ratio)
    with pytest.raises(ConfigError, match="ratio"):
        ratio_by_two_bounds(1, 1, 2, ratio, 0.05)


def test_counts_must_be_possible() -> None:
    """More right answers than persons, or more changes than persons, are refused."""
    for call in (
        lambda: fisher_p(3, 2, 1, 2),
        lambda: farrington_manning_p(1, 2, 3, 2, 0.1),
        lambda: miettinen_nurminen_p(-1, 2, 1, 2, 0.8),
        lambda: mcnemar_p(-1, 2),
        lambda: tango_p(2, 2, 3, 0.1),
        lambda: ratio_by_two_bounds(1, 3, 2, 0.8, 0.05),
    ):
        with pytest.raises(ActionError, match="Expected 0 ≤ right ≤ m"):
            call()


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_mid_p_counts_what_was_seen_by_half(won: int, lost: int) -> None:
    """It is the exact p less half the chance of exactly this, and the two sides add up to one."""
    exact = mcnemar_p(won, lost)
    mid = mcnemar_mid_p(won, lost)
    assert mid == pytest.approx(exact - stats.binom.pmf(won, won + lost, 0.5) / 2)
    assert mid + mcnemar_mid_p(lost, won) == pytest.approx(1)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 5), st.integers(0, 9))
def test_of_right_and_wrong_a_rise_is_as_mcnemar_has_it(won: int, lost: int, size: float, same: int) -> None:
    """Where everybody who differs does so by as much, it is McNemar's mid-p, however many do not differ."""
    differences = [size] * won + [-size] * lost + [0.0] * same
    assert rise_p(differences) == mcnemar_mid_p(won, lost)


@examples(50)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_of_few_a_rise_is_counted_out(differences: list[int]) -> None:
    """It is the share of all ways to draw the signs whose sum is as high; whole numbers, so that sums are exact."""
    moved = [d for d in differences if d]
    sums = [
        sum(s * abs(d) for s, d in zip(signs, moved, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(moved))
    ]
    if len({abs(d) for d in moved}) > 1:
        assert rise_p(differences) == pytest.approx(np.mean([s >= sum(moved) for s in sums]))


def test_of_many_a_rise_is_drawn_alike_each_time() -> None:
    """A drawn p is near that of the normal curve and of scipy, the same each time, and says which way people moved."""
    differences = np.random.default_rng(3).normal(0.03, 0.27, 300)
    p = rise_p(differences)
    flipped = stats.permutation_test(
        (differences, np.zeros(300)),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        alternative="greater",
        rng=5,
    ).pvalue
    near = stats.norm.sf(differences.sum() / np.sqrt((differences**2).sum()))
    assert p == rise_p(differences) == pytest.approx(near, abs=0.01) == pytest.approx(flipped, abs=0.01)
    assert rise_p(-differences) == pytest.approx(1 - p, abs=0.01)
    for wrong in ([[0.1]], [math.nan], [math.inf]):
        with pytest.raises(ActionError, match="one finite difference for each person"):
            rise_p(wrong)

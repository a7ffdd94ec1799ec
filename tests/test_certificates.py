"""Tests of the finite-sample bounds, and that a certificate keeps its word."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.bounds import SCENARIOS, Simulation, main, simulate
from ttca.certificates import (
    Certificate,
    Goal,
    certify,
    clopper_pearson_interval,
    clopper_pearson_lower,
    clopper_pearson_upper,
    count_right,
    count_right_at_most,
    mcnemar_exact,
    parity_needed,
    power,
    rate_needed,
)
from ttca.errors import ActionError, ConfigError

counts = st.integers(0, 400).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m)))
alphas = st.floats(1e-4, 0.5)


# --- bounds ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(counts.filter(lambda c: c[1] > 0), alphas)
def test_bounds_are_the_exact_ones(count: tuple[int, int], alpha: float) -> None:
    """One-sided and two-sided bounds are scipy's exact binomial ones."""
    k, m = count

    def exact(side: Literal["two-sided", "less", "greater"], confidence: float) -> Any:
        return stats.binomtest(k, m, alternative=side).proportion_ci(confidence, method="exact")

    assert clopper_pearson_lower(k, m, alpha) == pytest.approx(exact("greater", 1 - alpha).low, abs=1e-9)
    assert clopper_pearson_upper(k, m, alpha) == pytest.approx(exact("less", 1 - alpha).high, abs=1e-9)
    both = exact("two-sided", 1 - alpha)
    assert clopper_pearson_interval(k, m, 1 - alpha) == pytest.approx((both.low, both.high), abs=1e-9)


@settings(deadline=None)
@given(counts, alphas)
def test_bounds_move_the_right_way(count: tuple[int, int], alpha: float) -> None:
    """More right answers raise both bounds, a smaller alpha widens them, and they hold the observed rate."""
    k, m = count
    low, high = clopper_pearson_lower(k, m, alpha), clopper_pearson_upper(k, m, alpha)
    assert 0 <= low <= high <= 1
    assert clopper_pearson_lower(k, m, alpha / 2) <= low
    assert clopper_pearson_upper(k, m, alpha / 2) >= high
    if m:
        assert low <= k / m <= high
    if k < m:
        assert clopper_pearson_lower(k + 1, m, alpha) > low
        assert clopper_pearson_upper(k + 1, m, alpha) > high
    assert clopper_pearson_lower(k, m + 1, alpha) <= low


def test_no_queries_show_nothing() -> None:
    """With m = 0 the bounds are 0 and 1."""
    assert clopper_pearson_lower(0, 0, 0.05) == 0
    assert clopper_pearson_upper(0, 0, 0.05) == 1
    assert clopper_pearson_interval(0, 0) == (0, 1)


def test_bounds_take_arrays() -> None:
    """An array of counts gives the array of their bounds, broadcast."""
    k = np.array([[0, 1], [5, 10]])
    low = clopper_pearson_lower(k, 10, 0.05)
    assert low.shape == (2, 2)
    assert low.tolist() == [[clopper_pearson_lower(int(c), 10, 0.05) for c in row] for row in k]
    assert clopper_pearson_upper(3, [3, 30], 0.05).tolist()[0] == 1
    lows, highs = clopper_pearson_interval([0, 10], 10)
    assert (lows[0], highs[1]) == (0, 1)


@pytest.mark.parametrize(("k", "m"), [(3, 2), (-1, 2), (1.5, 2), (1, 2.0), ([1, 5], 3)])
def test_impossible_counts_are_refused(k: Any, m: Any) -> None:
    """Counts that cannot be counts raise an ActionError."""
    with pytest.raises(ActionError, match="Expected"):
        clopper_pearson_lower(k, m, 0.05)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, math.nan, "x"])
def test_impossible_errors_are_refused(alpha: Any) -> None:
    """An alpha outside (0, 1) raises a ConfigError everywhere."""
    with pytest.raises(ConfigError, match="alpha"):
        clopper_pearson_upper(1, 2, alpha)
    with pytest.raises(ConfigError, match="alpha"):
        rate_needed(10, 0.5, alpha)
    with pytest.raises(ConfigError, match="alpha"):
        parity_needed(10, (1, 2), alpha)
    with pytest.raises(ConfigError, match="alpha"):
        certify(lambda _: (1, 2), epsilons=[1], reference=(1, 2), before=None, alpha=alpha)


def test_scipy_is_needed_only_to_compute() -> None:
    """Without scipy a certificate is read and written, and computing a bound says what to install."""
    certificate = _issue({8: (95, 100)}, goal=0.5)
    program = (
        "import sys, json; sys.modules['scipy'] = None\n"
        "from ttca.certificates import Certificate, clopper_pearson_lower\n"
        "from ttca.errors import MissingExtraError\n"
        "data = json.loads(sys.stdin.read())\n"
        "assert Certificate.from_dict(data).to_dict() == data\n"
        "try:\n    clopper_pearson_lower(1, 2, 0.05)\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(certificate.to_dict()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ttca[learn]" in done.stdout


# --- counting ----------------------------------------------------------------------------------------------


def test_doubt_goes_against_the_claim() -> None:
    """An unresolved query is wrong in what we claim and right in what we must beat; a refusal is wrong in both."""
    y_true = np.array([1, 1, 1, 1])
    y_pred = np.array([1, 0, -1, -1])
    resolved = np.array([True, True, True, False])
    assert count_right(y_true, y_pred, resolved) == (1, 4)
    assert count_right_at_most(y_true, y_pred, resolved) == (2, 4)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "resolved"),
    [([1], [1, 1], [True]), ([1.0], [1], [True]), ([-1], [-1], [True]), ([1], [1], [1]), ([[1]], [[1]], [[True]])],
)
def test_uncountable_rows_are_refused(y_true: Any, y_pred: Any, resolved: Any) -> None:
    """Rows that do not fit together raise an ActionError."""
    with pytest.raises(ActionError, match="Expected"):
        count_right(y_true, y_pred, resolved)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_exact_binomial_test(rows: list[tuple[bool, bool]]) -> None:
    """The paired p is scipy's two-sided binomial test of the changed people, and is symmetric."""
    before, after = (np.array(column) for column in zip(*rows, strict=True))
    p = mcnemar_exact(before, after)
    changed = int((before != after).sum())
    expected = stats.binomtest(int((~before & after).sum()), changed).pvalue if changed else 1.0
    assert p == pytest.approx(expected, rel=1e-9)
    assert p == mcnemar_exact(after, before)


def test_mcnemar_refuses_other_people() -> None:
    """Results of different lengths, or not boolean, raise an ActionError."""
    with pytest.raises(ActionError, match="same people"):
        mcnemar_exact([True], [True, False])
    with pytest.raises(ActionError, match="boolean"):
        mcnemar_exact([1], [0])


# --- power -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 300), st.floats(0, 1), alphas, st.booleans())
def test_the_needed_count_is_the_first_whose_bound_will_do(m: int, target: float, alpha: float, more: bool) -> None:
    """The fewest right answers lift the bound to the target, or above it, and one less does not."""

    def enough(k: int) -> bool:
        bound = clopper_pearson_lower(k, m, alpha)
        return bound > target if more else bound >= target

    k = rate_needed(m, target, alpha, more=more)
    if k is None:
        assert not enough(m)
    else:
        assert enough(k)
        assert k == 0 or not enough(k - 1)


@example(7, (0, 1), 0.5)
@settings(deadline=None)
@given(st.integers(0, 120), counts.filter(lambda c: c[1] > 0), alphas)
def test_parity_is_the_exact_test_of_two_groups(m: int, reference: tuple[int, int], alpha: float) -> None:
    """The fewest right answers have a one-sided Fisher p of at most alpha, and one less has not."""
    right, n = reference

    def p_value(k: int) -> float:
        return float(stats.fisher_exact(np.array([[k, m - k], [right, n - right]]), alternative="greater").pvalue)

    # Where the p-value is alpha itself, scipy's last digit decides either way.
    k = parity_needed(m, reference, alpha)
    if k is None:
        assert p_value(m) > alpha * (1 - 1e-12)
    else:
        assert p_value(k) <= alpha * (1 + 1e-12)
        assert k == 0 or p_value(k - 1) > alpha * (1 - 1e-12)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.02, 0.98), alphas)
def test_parity_is_claimed_falsely_no_more_often_than_it_says(m: int, n: int, rate: float, alpha: float) -> None:
    """At equal rates of both groups, summed over all that can happen, parity is claimed with alpha at most."""
    chances = stats.binom.pmf(np.arange(n + 1), n, rate)
    needed = [parity_needed(m, (right, n), alpha) for right in range(n + 1)]
    false = [0.0 if k is None else float(stats.binom.sf(k - 1, m, rate)) for k in needed]
    assert float(chances @ np.array(false)) <= alpha * (1 + 1e-9)


@settings(deadline=None)
@given(st.integers(1, 200), counts.filter(lambda c: c[1] > 0), alphas)
def test_doubt_about_the_reference_makes_parity_dearer(m: int, reference: tuple[int, int], alpha: float) -> None:
    """One more right answer of the reference never lowers what is needed."""
    right, n = reference
    fewer = parity_needed(m, (max(right - 1, 0), n), alpha)
    more = parity_needed(m, reference, alpha)
    assert more is None or (fewer is not None and fewer <= more)


@settings(deadline=None)
@given(st.integers(0, 300), st.floats(0.01, 0.99), alphas, st.floats(0.05, 0.99))
def test_power_names_the_first_count_and_rate_that_do(m: int, target: float, alpha: float, probability: float) -> None:
    """The smallest rate reaches the needed count with the wanted probability; without a count there is no rate."""
    found = power(m, lambda people: rate_needed(people, target, alpha), probability)
    assert found.smallest_right == rate_needed(m, target, alpha)
    if found.smallest_right is None:
        assert found.smallest_rate is None
        assert found.smallest_m is None or found.smallest_m > m
    else:
        assert found.smallest_m is not None
        assert found.smallest_m <= m
        assert found.smallest_rate is not None
        if found.smallest_right:
            reached = stats.binom.sf(found.smallest_right - 1, m, found.smallest_rate)
            assert reached == pytest.approx(probability, abs=1e-6)


@settings(deadline=None)
@given(st.floats(0.01, 0.98), alphas)
def test_power_names_the_fewest_people(target: float, alpha: float) -> None:
    """That many people, all right, certify the target, and one fewer do not."""
    fewest = power(1, lambda people: rate_needed(people, target, alpha)).smallest_m
    assert fewest is not None
    assert clopper_pearson_lower(fewest, fewest, alpha) >= target
    assert clopper_pearson_lower(fewest - 1, fewest - 1, alpha) < target


def test_power_at_the_ends() -> None:
    """Nobody can certify 1, and 0 needs no queries; 59 people, all right, show 95 % at 5 %."""

    def needed(target: float) -> Callable[[int], int | None]:
        return lambda people: rate_needed(people, target, 0.05)

    assert power(10, needed(1.0)).smallest_m is None
    assert power(10, needed(0.0)).smallest_right == 0
    assert power(10, needed(0.95)).smallest_right is None
    assert power(10, needed(0.95)).smallest_m == 59
    assert parity_needed(10, (0, 0), 0.05) is None
    with pytest.raises(ConfigError, match="target"):
        rate_needed(10, 95, 0.05)
    with pytest.raises(ActionError, match="Expected"):
        parity_needed(-1, (1, 2), 0.05)
    with pytest.raises(ActionError, match="Expected"):
        power(-1, needed(0.5))


# --- certificates ------------------------------------------------------------------------------------------


def _recorded(table: dict[int, tuple[int, int]], calls: list[int]) -> Callable[[int], tuple[int, int]]:
    def test(epsilon: int) -> tuple[int, int]:
        calls.append(epsilon)
        return table[epsilon]

    return test


def _issue(
    table: dict[int, tuple[int, int]],
    *,
    calls: list[int] | None = None,
    reference: tuple[int, int] = (900, 1000),
    before: tuple[int, int] | None = (60, 100),
    alpha: float = 0.05,
    goal: Goal = "parity",
) -> Certificate:
    return certify(
        _recorded(table, [] if calls is None else calls),
        epsilons=list(table),
        reference=reference,
        before=before,
        alpha=alpha,
        goal=goal,
    )


def test_tests_go_from_the_largest_down_and_stop_at_the_first_failure() -> None:
    """No query is spent below a failure, even where a smaller ε would have passed; order of input is nothing."""
    calls: list[int] = []
    table = {2: (100, 100), 16: (100, 100), 4: (50, 100), 8: (99, 100)}
    certificate = _issue(table, calls=calls, goal=0.9)
    assert calls == [16, 8, 4]
    assert certificate.family == (16, 8, 4, 2)
    assert [t.passed for t in certificate.tests] == [True, True, False]
    assert certificate.epsilon == certificate.quoted_epsilon == 8
    assert certificate.queries == 300
    assert certificate.lower.value == clopper_pearson_lower(99, 100, 0.05 / 4)
    assert (certificate.interval.low, certificate.interval.high) == clopper_pearson_interval(99, 100, 1 - 0.05 / 4)


def test_every_tested_epsilon_has_its_verdict_and_its_bound() -> None:
    """Each ε that was tested says whether it passed and how low S may be; an untested one says nothing."""
    certificate = _issue({2: (100, 100), 16: (100, 100), 4: (50, 100), 8: (99, 100)}, goal=0.9)
    assert [certificate.passed_at(e) for e in (16, 8, 4, 2)] == [True, True, False, False]
    assert certificate.lower_at(8) == certificate.lower.value
    assert certificate.lower_at(4) == clopper_pearson_lower(50, 100, 0.05 / 4)
    assert math.isnan(certificate.lower_at(2))


def test_all_passed_reports_the_smallest() -> None:
    """Where every ε passes, the least visible one is certified."""
    certificate = _issue({2: (500, 500), 4: (500, 500)})
    assert certificate.epsilon == 2
    assert certificate.parity_certified is True
    assert "parity at ε = 2" in certificate.summary()


def test_first_failure_certifies_nothing_and_still_bounds_s() -> None:
    """Where the largest ε fails there is no ε, no parity, and a bound for the largest, with its power."""
    certificate = _issue({4: (40, 50), 8: (45, 50)})
    assert certificate.epsilon is None
    assert certificate.parity_certified is False
    assert certificate.quoted_epsilon == 8
    assert certificate.lower.value == clopper_pearson_lower(45, 50, 0.025)
    assert certificate.power.smallest_right == certificate.tests[0].needed == 49
    assert "Not certified" in certificate.summary()


def test_every_bound_says_what_it_is() -> None:
    """Bounds carry their side, their confidence and for how many ε they were corrected."""
    certificate = _issue({2: (90, 100), 8: (95, 100)}, alpha=0.1)
    assert certificate.before_upper is not None
    assert (certificate.before_upper.kind, certificate.before_upper.confidence) == ("one-sided upper", 0.95)
    assert certificate.before_upper.value == clopper_pearson_upper(60, 100, 0.05)
    assert (certificate.lower.kind, certificate.lower.confidence) == ("one-sided lower", 0.9)
    assert certificate.lower.shared_by == certificate.interval.shared_by == 2
    assert (certificate.interval.kind, certificate.interval.confidence) == ("two-sided", 0.95)


def test_each_goal_has_its_own_bar() -> None:
    """Parity beats the reference, improvement the accuracy before, and a number itself, at its own alpha."""
    table = {8: (88, 100)}
    assert _issue(table).tests[0].needed == parity_needed(100, (900, 1000), 0.05)
    improved = _issue(table, goal="improvement")
    ceiling = clopper_pearson_upper(60, 100, 0.025)
    assert improved.tests[0].needed == rate_needed(100, ceiling, 0.025, more=True)
    assert improved.epsilon == 8
    fixed = _issue(table, goal=0.8, before=None)
    assert fixed.tests[0].needed == rate_needed(100, 0.8, 0.05)
    assert fixed.epsilon == 8
    # Another sequence was tested: parity was neither shown nor refuted.
    assert improved.parity_certified is None
    assert fixed.parity_certified is None


def test_an_unmeasured_group_certifies_nothing() -> None:
    """No reference people, or no verification people, can never give parity; equal bounds are no improvement."""
    assert _issue({8: (100, 100)}, reference=(0, 0)).epsilon is None
    assert _issue({8: (0, 0)}).epsilon is None
    assert _issue({8: (100, 100)}, before=(0, 0), goal="improvement").epsilon is None


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 255), counts, min_size=1, max_size=6),
    counts,
    counts,
    st.sampled_from(["parity", "improvement", 0.3, 0.8]),
    alphas,
)
def test_certificates_survive_json(
    table: dict[int, tuple[int, int]],
    reference: tuple[int, int],
    before: tuple[int, int],
    goal: Goal,
    alpha: float,
) -> None:
    """Written, read and recomputed from its own counts a certificate is the same."""
    certificate = _issue(table, reference=reference, before=before, goal=goal, alpha=alpha)
    data = certificate.to_dict()
    read = json.loads(json.dumps(data, allow_nan=False))
    assert read == data
    assert Certificate.from_dict(read) == certificate
    assert certificate.recompute() == certificate
    assert certificate.summary()


def _edit(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    edited: dict[str, Any] = json.loads(json.dumps(data))
    *parents, last = path.split("/")
    place: Any = edited
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return edited


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 99),
        ("goal", "fame"),
        ("alpha", 2),
        ("alpha", "0.05"),
        ("epsilon", 2),
        ("epsilon", True),
        ("family", [4, 8]),
        ("family", None),
        ("tests", []),
        ("tests/0/passed", 1),
        ("tests/0/passed", False),
        ("tests/0/right", 101),
        ("tests/0/needed", 100),
        ("tests/0/needed", 0.5),
        ("tests/0/needed", -5),
        ("power/smallest_right", 101),
        ("lower/kind", "two-sided"),
        ("reference", {"right": 1}),
        ("parity_certified", True),
        ("parity_certified", "yes"),
        ("lower/value", float("nan")),
        ("interval/kind", "one-sided"),
        ("power", 3),
    ],
)
def test_unreadable_or_contradictory_certificates_are_refused(path: str, value: object) -> None:
    """Anything that ttca would not have written raises an ActionError, not a KeyError, and is never believed."""
    data = _issue({4: (50, 100), 8: (99, 100)}, goal=0.9).to_dict()
    with pytest.raises(ActionError, match="Expected a certificate"):
        Certificate.from_dict(_edit(data, path, value))


def test_a_raised_bound_is_found_by_recomputing() -> None:
    """A certificate edited to promise more still reads, but its counts do not give it."""
    certificate = _issue({4: (50, 100), 8: (99, 100)}, goal=0.9)
    edited = Certificate.from_dict(_edit(certificate.to_dict(), "lower/value", 0.999))
    assert edited.recompute() == certificate != edited


@pytest.mark.parametrize("family", [[], [0], [256], [4, 4], [2.5], [True], ["4"], None, [-8, 8]])
def test_bad_families_cost_nothing(family: Any) -> None:
    """A family that is no set of pixel levels raises a ConfigError before the first query."""
    calls: list[int] = []
    with pytest.raises(ConfigError, match="Expected"):
        certify(_recorded({}, calls), epsilons=family, reference=(1, 2), before=None)
    assert calls == []


@pytest.mark.parametrize("goal", ["fame", 0, 1, 1.5, True, None, "improvement"])
def test_bad_goals_cost_nothing(goal: Any) -> None:
    """A goal that cannot be tested (improvement on nothing too) raises a ConfigError before the first query."""
    calls: list[int] = []
    with pytest.raises(ConfigError, match="Expected"):
        certify(_recorded({}, calls), epsilons=[8], reference=(1, 2), before=None, goal=goal)
    assert calls == []


@pytest.mark.parametrize("answer", [(3, 2), (-1, 2), (0.5, 1), (1,), None, (True, 1)])
def test_bad_counts_are_refused(answer: Any) -> None:
    """Counts that cannot be counts raise an ActionError that names their ε."""
    with pytest.raises(ActionError, match="ε = 8"):
        certify(lambda _: answer, epsilons=[8], reference=(1, 2), before=None)


# --- 2,000 simulated actions -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(2000, 0, alpha=0.05)


@pytest.mark.parametrize("scenario", ["all", *SCENARIOS])
def test_certificates_keep_their_word(simulation: Simulation, scenario: str) -> None:
    """Over 2,000 actions no claim, bound or interval is false more often than it says, in any scenario."""
    outcome = simulation.largest_first[scenario]
    most = stats.binom.ppf(0.999, outcome.actions, simulation.alpha)
    assert outcome.false_parity <= most
    assert outcome.false_goal <= most
    assert outcome.s_bound_failures <= most
    most = stats.binom.ppf(0.999, outcome.actions, 0.05)
    assert outcome.interval_failures <= most
    assert outcome.reference_interval_failures <= most


def test_certificates_do_certify(simulation: Simulation) -> None:
    """Keeping one's word is not done by never speaking: where large ε work, most actions are certified."""
    outcome = simulation.largest_first["staircase"]
    assert outcome.rate(outcome.claims) > 0.7


def test_one_test_of_both_groups_claims_more_than_two_bounds(simulation: Simulation) -> None:
    """The exact test claims more of what is true than two separate bounds that must not overlap."""
    one, two = simulation.largest_first["all"], simulation.two_bounds["all"]
    assert one.claims - one.false_parity > two.claims - two.false_parity


def test_going_up_from_the_smallest_would_break_the_word(simulation: Simulation) -> None:
    """The same check fails for testing upward until one passes, so the check can fail."""
    outcome = simulation.smallest_first["least_favourable"]
    most = stats.binom.ppf(0.999, outcome.actions, simulation.alpha)
    assert outcome.false_parity > most
    assert outcome.false_goal > most
    assert outcome.s_bound_failures > most


def test_benchmark_returns_json() -> None:
    """The benchmark's row is JSON with counts and rates, the same for the same seed."""
    rows: list[Any] = [main(["--actions", "40", "--seed", "3", "--json"]) for _ in range(2)]
    row = json.loads(json.dumps(rows[0], allow_nan=False))
    assert (row["actions"], row["alpha"], row["seed"]) == (40, 0.05, 3)
    assert row["largest_first"]["all"]["actions"] == 40
    assert row["largest_first"]["all"]["false_parity_rate"] <= 1
    assert rows[0]["smallest_first"] == rows[1]["smallest_first"]
    with pytest.raises(ConfigError, match="actions"):
        simulate(3)

"""Tests of races: what they cost, whom they choose, and how often they propose what does not help."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from ttca.answers import Answers
from ttca.errors import ActionError
from ttca.racing import (
    ERROR,
    PROVED_LATER,
    RaceAnswers,
    RacePlan,
    RaceResult,
    choosers,
    hear,
    most_faithful,
    plan_race,
    run_race,
)

Bools = NDArray[np.bool_]


def heard(right: Bools) -> RaceAnswers:
    """Return answers of a platform without scores."""
    return RaceAnswers(right.astype(np.float64), right)


def raced(plan: RacePlan, nothing: Bools, candidates: Bools, classes: NDArray[np.int64] | None = None) -> RaceResult:
    """Race candidates whose answers about everybody are known."""

    def ask(who: NDArray[np.intp], start: int) -> RaceAnswers:
        return heard(candidates[who, start + np.arange(len(who))])

    return run_race(plan, heard(nothing), ask, classes=classes)


def heard_in(said: RaceAnswers, order: NDArray[np.intp], who: NDArray[np.intp], start: int) -> RaceAnswers:
    """Return what was said of the next persons of an order; the first row is doing nothing."""
    rows = order[start : start + len(who)]
    return RaceAnswers(said.value[who + 1, rows], said.right[who + 1, rows])


def crowd(rng: np.random.Generator, persons: int, before: float, after: NDArray[np.float64]) -> tuple[Bools, Bools]:
    """Return who is right as they are, and under each candidate: persons are easy or hard for all alike."""
    shared, learned = rng.standard_normal((2, persons))
    own = rng.standard_normal((len(after) + 1, persons))
    nothing = np.sqrt(0.6) * shared + np.sqrt(0.4) * own[0] < norm.ppf(before)
    candidates = np.sqrt(0.6) * shared + np.sqrt(0.1) * learned + np.sqrt(0.3) * own[1:] < norm.ppf(after)[:, None]
    return nothing, candidates


plans: st.SearchStrategy[dict[str, int]] = st.builds(
    dict, candidates=st.integers(1, 20), persons=st.integers(1, 500), queries=st.integers(1, 1000)
)


@given(plans)
def test_a_plan_keeps_to_its_queries_and_persons(given: dict[str, int]) -> None:
    """No plan asks more than it may, of more persons than there are; one that could do nothing is refused."""
    try:
        plan = plan_race(**given)
    except ActionError:
        # Nobody could be asked about in the first round.
        assert given["queries"] < given["candidates"] * np.ceil(np.log2(given["candidates"]))
        return
    assert 0 < plan.queries <= given["queries"]
    assert plan.persons <= given["persons"]
    assert len(plan.rounds) == int(np.ceil(np.log2(given["candidates"])))
    assert all(persons > 0 for persons in plan.rounds[:1])
    assert all(persons >= 0 for persons in plan.rounds)
    assert plan.level == (ERROR if plan.test else ERROR / given["candidates"])


@given(plans, st.integers(0, 2**32 - 1))
def test_a_race_asks_what_its_plan_says(given: dict[str, int], seed: int) -> None:
    """The queries are the plan's, survivors are paired, and every candidate but the winner goes in some round."""
    try:
        plan = plan_race(**given)
    except ActionError:
        return
    rng = np.random.default_rng(seed)
    nothing, candidates = rng.random(given["persons"]) < 0.5, rng.random((given["candidates"], given["persons"])) < 0.6
    result = raced(plan, nothing, candidates)
    assert result.queries == plan.queries
    assert {s.out for s in result.ranks if s.candidate != result.winner} <= set(range(1, len(plan.rounds) + 1))
    assert result.ranks[result.winner].out is None
    assert sum(s.out is None for s in result.ranks) == 1
    for s in result.ranks:
        asked = slice(0, s.persons)
        assert s.mean == pytest.approx(candidates[s.candidate, asked].mean())
        assert s.difference == pytest.approx(candidates[s.candidate, asked].mean() - nothing[asked].mean())
    assert result.tested == (plan.test or sum(plan.rounds))
    assert result.proposed == (result.p < result.level)


def test_the_better_half_survives_every_round() -> None:
    """A candidate that is right about everybody wins; one that is never right goes first."""
    persons = 60
    candidates = np.zeros((5, persons), np.bool_)
    candidates[3], candidates[1, ::2] = True, True
    plan = plan_race(candidates=5, persons=persons, queries=120)
    result = raced(plan, np.zeros(persons, np.bool_), candidates)
    assert (result.winner, result.proposed) == (3, True)
    assert result.ranks[4].out == 1
    assert len(plan.rounds) == 3


@pytest.mark.parametrize("tested", [True, False])
def test_the_runner_up_serves_no_class_that_nobody_tests(tested: bool) -> None:
    """What is proposed is tested: a class of which nobody is in the test stays the winner's, however much better
    the runner-up was for those who chose; and who was only tested counts for no candidate."""
    choose, test = np.tile([0, 1], 20), np.tile([0, 1 if tested else 0], 10)
    classes = np.concatenate([choose, test])
    candidates = np.stack([classes == 0, classes == 1])
    # The winner is right about a few more.
    candidates[0, 1] = True
    plan = RacePlan(candidates=2, rounds=(40,), test=20)
    asked: list[NDArray[np.intp]] = []

    def ask(who: NDArray[np.intp], start: int) -> RaceAnswers:
        asked.append(who)
        return heard(candidates[who, start + np.arange(len(who))])

    result = run_race(plan, heard(np.zeros(60, np.bool_)), ask, classes=classes)
    assert result.winner == 0
    assert [s.label for s in result.switches] == ([1] if tested else [])
    assert set(asked[-1].tolist()) == ({0, 1} if tested else {0})
    assert ([rank.persons for rank in result.ranks], result.tested, result.queries) == ([40, 40], 20, 100)


def test_fidelity_decides_among_few_and_hardly_among_many() -> None:
    """Of two alike, the one whose proxy foretells the platform better wins, of many persons whoever serves more; and a
    fidelity that nobody knows is as good as the others' mean."""

    def winner(persons: int, fidelity: list[float]) -> int:
        nothing, candidates = np.zeros(persons, np.bool_), np.zeros((2, persons), np.bool_)
        candidates[0, : persons // 2 + persons // 10] = candidates[1, : persons // 2] = True
        plan = RacePlan(candidates=2, rounds=(persons,), test=0)

        def ask(who: NDArray[np.intp], start: int) -> RaceAnswers:
            return heard(candidates[who, start + np.arange(len(who))])

        result: int = run_race(plan, heard(nothing), ask, fidelity=fidelity).winner
        return result

    nan = float("nan")
    assert [winner(n, [0.5, 0.7]) for n in (10, 20, 40, 200)] == [1, 1, 0, 0]
    assert [winner(10, f) for f in ([0.7, 0.7], [nan, 0.7], [0.7, nan], [nan, nan])] == [0, 0, 0, 0]


def test_one_candidate_is_only_tested() -> None:
    """Where all is pinned there is nothing to choose: every query goes into the test against doing nothing."""
    plan = plan_race(candidates=1, persons=30, queries=50)
    assert (plan.rounds, plan.test, plan.queries, plan.level) == ((), 30, 30, ERROR)
    some = np.arange(30) % 3 > 0
    assert not raced(plan, some, some[None]).proposed
    assert raced(plan, some, np.ones((1, 30), np.bool_)).proposed


def test_the_test_is_made_where_it_shows_more() -> None:
    """With few queries for the persons there are, others test the winner; with many, all do, at a K-th of the level."""
    assert plan_race(candidates=8, persons=140, queries=200).test > 40
    assert plan_race(candidates=8, persons=140, queries=800).test == 0


@given(st.lists(st.tuples(st.one_of(st.floats(0, 1), st.just(float("nan"))), st.booleans()), min_size=1, max_size=20))
def test_the_most_faithful_half_is_asked_about(given: list[tuple[float, bool]]) -> None:
    """It is a half, in the order handed in, with everybody who stays; nobody left out foretold more than one that is
    there on its merits; and how many there are does not depend on what anybody foretold."""
    fidelity, stays = [f for f, _ in given], [s for _, s in given]
    there = most_faithful(fidelity, stays)
    assert list(there) == sorted(set(there))
    assert {c for c, s in enumerate(stays) if s} <= set(there)
    assert len(there) == len(most_faithful([0.0] * len(stays), stays)) >= min(len(given), 2)
    assert len(there) == max(sum(stays), len(given) if len(given) <= 2 else -(-len(given) // 2))
    known = np.nan_to_num(fidelity, nan=-1.0)
    merits, gone = [known[c] for c in there if not stays[c]], set(range(len(given))) - set(there)
    assert not gone or not merits or max(known[c] for c in gone) <= min(merits)


@given(plans, st.integers(0, 2**32 - 1), st.booleans())
def test_those_about_whom_the_platform_is_undecided_choose(given: dict[str, int], seed: int, labels: bool) -> None:
    """Nobody chooses about whom it is more decided than about somebody who does not; of labels, wrong ones choose
    first; and where those who choose are tested, nobody picks them."""
    try:
        plan = plan_race(**given)
    except ActionError:
        return
    value = np.random.default_rng(seed).random(given["persons"] - plan.test)
    value = np.round(value) if labels else value
    chosen = choosers(plan, value)
    assert len(set(chosen.tolist())) == sum(plan.rounds)
    left = np.setdiff1d(np.arange(len(value)), chosen)
    if not plan.test:
        np.testing.assert_array_equal(chosen, np.arange(len(chosen)))
    elif len(left) and len(chosen):
        assert np.abs(value[chosen] - 0.25).max() <= np.abs(value[left] - 0.25).min()
        assert (np.diff(np.abs(value[chosen] - 0.25)) >= 0).all()
        assert not labels or value[chosen].max() <= value[left].max()


def test_they_tell_candidates_apart_better() -> None:
    """At the same queries, those about whom the platform is undecided choose a better candidate than people at random:
    simulated with scores that are the surer the farther a person is from another answer."""
    regrets: dict[bool, list[float]] = {True: [], False: []}
    after = np.array([0.9, 0.916, 0.898, 0.868, 0.876, 0.836, 0.867, 0.894])
    plan = plan_race(candidates=8, persons=140, queries=200, error=PROVED_LATER)
    able = 140 - plan.test
    for seed in range(300):
        rng = np.random.default_rng([seed, 11])
        shared, own = rng.standard_normal(140), rng.standard_normal((9, 140))
        levels: NDArray[np.float64] = np.asarray(norm.ppf([0.875, *after]))
        margins = levels[:, None] - np.sqrt(0.8) * shared - np.sqrt(0.2) * own
        said = RaceAnswers(norm.cdf(4 * margins), margins > 0)
        for picked, found in regrets.items():
            first = choosers(plan, said.value[0, :able]) if picked else np.arange(sum(plan.rounds))
            order = np.concatenate([first, np.arange(able, 140)])

            nothing = RaceAnswers(said.value[0, order], said.right[0, order])
            ask = partial(heard_in, said, order)
            winner: int = run_race(plan, nothing, ask).winner
            found.append(float(after.max() - after[winner]))
    assert np.mean(regrets[True]) < 0.85 * np.mean(regrets[False])


def test_a_race_for_which_there_is_too_little_is_refused() -> None:
    """Eight candidates cannot race on twenty queries, and are not guessed at."""
    with pytest.raises(ActionError, match="Expected enough queries and persons for a race of 8"):
        plan_race(candidates=8, persons=100, queries=20)
    with pytest.raises(ActionError, match="Expected candidates and persons"):
        plan_race(candidates=0, persons=100, queries=20)


@pytest.mark.parametrize(("persons", "queries"), [(140, 200), (140, 800), (60, 84)])
@pytest.mark.parametrize("harm", [0.0, 0.05])
@pytest.mark.parametrize("error", [ERROR, PROVED_LATER])
def test_a_portfolio_that_helps_nobody_is_seldom_proposed(
    persons: int, queries: int, harm: float, error: float
) -> None:
    """Eight candidates, none better than nothing, are proposed in no more races than is stated."""
    actions, before = 600, 0.7
    plan = plan_race(candidates=8, persons=persons, queries=queries, error=error)
    proposed = 0
    for seed in range(actions):
        nothing, candidates = crowd(np.random.default_rng([seed, 5]), persons, before, np.full(8, before - harm))
        proposed += raced(plan, nothing, candidates).proposed
    # Three standard errors above that would be chance.
    assert proposed <= error * actions + 3 * np.sqrt(error * (1 - error) * actions)


def scored(seed: int, persons: int, before: float, after: NDArray[np.float64]) -> RaceAnswers:
    """Return what a platform with scores says of everybody, doing nothing first: the farther from another answer, the
    surer."""
    rng = np.random.default_rng([seed, 13])
    shared, own = rng.standard_normal(persons), rng.standard_normal((len(after) + 1, persons))
    levels: NDArray[np.float64] = np.asarray(norm.ppf([before, *after]))
    margins = levels[:, None] - np.sqrt(0.8) * shared - np.sqrt(0.2) * own
    return RaceAnswers(norm.cdf(4 * margins), margins > 0)


@pytest.mark.parametrize("error", [ERROR, PROVED_LATER])
@pytest.mark.parametrize("harm", [0.0, pytest.param(0.05, marks=pytest.mark.full)])
def test_surer_answers_are_tested_at_the_same_level(error: float, harm: float) -> None:
    """With scores, too, what is no better than nothing passes in no more races than is stated."""
    actions, persons, order = 300, 140, np.arange(140)
    plan = plan_race(candidates=4, persons=persons, queries=200, error=error)
    proposed = 0
    for seed in range(actions):
        said = scored(seed, persons, 0.8, np.full(4, 0.8 - harm))
        nothing = RaceAnswers(said.value[0], said.right[0])
        proposed += run_race(plan, nothing, partial(heard_in, said, order)).proposed
    assert proposed <= error * actions + 3 * np.sqrt(error * (1 - error) * actions)


def test_scores_show_a_small_gain_to_few_people() -> None:
    """Of 74 people, a gain of four points is shown more often by their scores than by who is right; and where fewer
    are right, nothing is proposed, however much surer the platform is."""
    by_score = by_right = 0
    plan = RacePlan(candidates=1, rounds=(), test=74, error=PROVED_LATER)
    for seed in range(200):
        said = scored(seed, 74, 0.87, np.array([0.91]))
        result = run_race(plan, RaceAnswers(said.value[0], said.right[0]), partial(heard_in, said, np.arange(74)))
        assert result.rise == pytest.approx((said.value[1] - said.value[0]).mean())
        by_score += result.proposed
        by_right += raced(plan, said.right[0], said.right[1:]).proposed
    assert by_score > by_right + 10
    surer = RaceAnswers(np.full(74, 0.9), np.arange(74) > 0)
    before = RaceAnswers(np.linspace(0.4, 0.8, 74), np.ones(74, bool))
    result = run_race(plan, before, lambda who, start: surer)
    assert (result.p < 0.001, result.lost, result.proposed) == (True, 1, False)
    # Surer, about the very people whom it was right about before.
    same = RaceAnswers(surer.value, before.right)
    for error in (ERROR, PROVED_LATER):
        result = run_race(replace(plan, error=error), before, lambda who, start: same)
        # Where a certificate looks again it may: among few people nobody need be turned by what helps many.
        assert (result.p < 0.001, result.won, result.lost) == (True, 0, 0)
        assert result.proposed == (error == PROVED_LATER)


@pytest.mark.parametrize(("queries", "most"), [(200, 0.034), (800, 0.014)])
def test_what_is_chosen_is_near_the_best(queries: int, most: float) -> None:
    """The winner is about as far from the best of eight as METHODS expects of so many queries."""
    regrets, shown = [], 0
    for seed in range(400):
        rng = np.random.default_rng([seed, 9])
        after = np.clip(0.85 + 0.03 * rng.standard_normal(8), 0.01, 0.99)
        nothing, candidates = crowd(rng, 300, 0.62, after)
        result = raced(plan_race(candidates=8, persons=300, queries=queries), nothing, candidates)
        regrets.append(after.max() - after[result.winner])
        shown += result.proposed
    assert np.mean(regrets) <= most
    assert shown > 0.9 * 400


def test_what_is_not_known_speaks_for_nothing() -> None:
    """A lost answer is wrong under a candidate and right as it is; without scores an answer is right or wrong."""
    nan = float("nan")
    answers = Answers(
        status=np.array([0, 0, 0, 2], np.int8),
        labels=np.array([0, 1, 0, -1]),
        scores=np.array([[0.8, 0.2], [nan, nan], [0.9, nan], [nan, nan]], np.float32),
        resolution=np.zeros(4, np.float32),
    )
    classes = np.array([0, 1, 1, 0])
    under, as_it_is = hear(answers, classes), hear(answers, classes, unresolved_right=True)
    np.testing.assert_allclose(under.value, [0.8, 1.0, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(under.right, [True, True, False, False])
    np.testing.assert_allclose(as_it_is.value, [0.8, 1.0, 0.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(as_it_is.right, [True, True, False, True])


@given(plans, st.integers(1, 100))
def test_who_is_kept_apart_is_in_the_test_alone(given: dict[str, int], apart: int) -> None:
    """Where people are kept apart, they are those of the test and no others: the rounds are among the rest, and the
    level is that of a test on people who chose nothing."""
    try:
        plan = plan_race(**given, apart=apart)
    except ActionError:
        assert given["queries"] < 2 * given["candidates"] * np.ceil(np.log2(given["candidates"])) + 2
        return
    assert plan.queries <= given["queries"]
    assert sum(plan.rounds) <= given["persons"]
    assert 0 < plan.test <= apart
    assert plan.level == ERROR

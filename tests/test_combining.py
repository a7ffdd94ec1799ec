"""Tests of which classes a race's runner-up serves: what is switched, how seldom wrongly, and what is then tested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from ttca.combining import switches
from ttca.racing import ERROR, RaceAnswers, RaceResult, plan_race, run_race

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class World:
    """Persons of several classes, what they get as they are, and under candidates that differ by class.

    ``before`` and ``after`` are quantiles of the normal: float64 (C,) and (K, C).
    """

    def __init__(self, seed: int, persons: int, before: Floats, after: Floats) -> None:
        rng = np.random.default_rng([seed, 31])
        self.classes = rng.permutation(np.arange(persons) % len(before))
        shared, learned = rng.standard_normal((2, persons))
        own = rng.standard_normal((len(after) + 1, persons))
        plain = before[self.classes] - np.sqrt(0.6) * shared - np.sqrt(0.4) * own[0]
        helped = after[:, self.classes] - np.sqrt(0.6) * shared - np.sqrt(0.1) * learned - np.sqrt(0.3) * own[1:]
        self.nothing, self.candidates = self.heard(plain), self.heard(helped)
        self.worth, self.before, self.alone = norm.cdf(after), float(norm.cdf(before).mean()), norm.cdf(before)

    @staticmethod
    def heard(strength: Floats) -> RaceAnswers:
        """Return answers with scores."""
        return RaceAnswers(norm.cdf(2 * strength), strength > 0)

    def raced(self, queries: int, *, combine: bool = True) -> RaceResult:
        """Race the candidates."""

        def ask(who: NDArray[np.intp], start: int) -> RaceAnswers:
            where = who, start + np.arange(len(who))
            return RaceAnswers(self.candidates.value[where], self.candidates.right[where])

        plan = plan_race(candidates=len(self.worth), persons=len(self.classes), queries=queries)
        result = run_race(plan, self.nothing, ask, classes=self.classes if combine else None)
        assert result.queries == plan.queries
        return result

    def share(self, result: RaceResult) -> tuple[float, float]:
        """Return what the winner is worth on strangers, and what is put together."""
        worth = self.worth[result.winner].copy()
        alone = float(worth.mean())
        for switch in result.switches:
            worth[switch.label] = self.worth[result.runner_up, switch.label]
        for spared in result.spared:
            worth[spared.label] = self.alone[spared.label]
        return alone, float(worth.mean())


people = st.integers(2, 6).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.floats(-1, 1), st.sampled_from((-1, 0, 1))), max_size=60
    )
)


@given(people)
def test_only_a_class_that_gains_is_switched(drawn: list[tuple[int, float, int]]) -> None:
    """Whatever the answers: a switched class has two persons or more, gains by them, expects to gain, and loses no
    right answer; the order of people changes nothing."""
    classes = np.array([c for c, _, _ in drawn], np.int64)
    gains, right = np.array([g for _, g, _ in drawn]), np.array([r for _, _, r in drawn], np.int64)
    found = switches(gains, right, classes)
    assert [s.label for s in found] == sorted({s.label for s in found})
    for s in found:
        mine = classes == s.label
        assert s.persons == mine.sum() >= 2
        assert s.difference == pytest.approx(gains[mine].mean())
        assert s.expected > 0
        assert right[mine].sum() >= 0
    back = switches(gains[::-1], right[::-1], classes[::-1])
    assert [s.label for s in back] == [s.label for s in found]


def test_a_class_with_few_people_stays_with_the_winner() -> None:
    """One person says nothing, two say little: what is switched with ten persons is not with two, nor where right
    answers say the opposite."""
    rng = np.random.default_rng(0)

    def found(persons: int, gain: float, right: int = 0) -> list[int]:
        classes = np.array([0] * 10 + [1] * 10 + [2] * persons)
        gains = np.where(classes == 2, gain, -0.1) + 0.2 * rng.standard_normal(len(classes))
        return [s.label for s in switches(gains, np.where(classes == 2, right, 0), classes)]

    assert found(10, 0.5) == [2]
    assert found(1, 0.9) == []
    assert found(2, 0.1) == []
    assert found(10, 0.5, right=-1) == []
    assert switches(np.full(20, 0.3), np.zeros(20, np.int64), np.arange(20) % 2) == ()


def test_a_class_that_another_serves_better_goes_to_it() -> None:
    """Where two candidates are each good for other classes, they are combined, and together they are worth more than
    the winner alone, at the same queries."""
    after = np.full((4, 4), norm.ppf(0.7))
    after[0, :3], after[1, 3] = norm.ppf(0.95), norm.ppf(0.97)
    after[1, :3] = norm.ppf(0.85)
    gains = []
    for seed in range(30):
        world = World(seed, 160, np.full(4, norm.ppf(0.5)), after)
        result = world.raced(400)
        alone, together = world.share(result)
        gains.append(together - alone)
        assert world.raced(400, combine=False).switches == ()
    assert np.mean(gains) > 0.02
    assert min(gains) >= 0


@pytest.mark.parametrize(("persons", "queries"), [(140, 200), pytest.param(140, 800, marks=pytest.mark.full)])
def test_where_classes_are_alike_a_switch_is_rare(persons: int, queries: int) -> None:
    """Where every candidate does for each class what it does for all, few races are combined, and what they lose is
    little."""
    lost = []
    for seed in range(120):
        main = norm.ppf(np.clip(0.85 + 0.03 * np.random.default_rng([seed, 9]).standard_normal(8), 0.02, 0.98))
        world = World(seed, persons, np.full(10, norm.ppf(0.65)), np.repeat(main[:, None], 10, axis=1))
        alone, together = world.share(world.raced(queries))
        lost.append(alone - together)
    assert np.mean(np.array(lost) > 0) <= 0.03
    assert np.mean(lost) < 0.001


@pytest.mark.parametrize(
    ("harm", "gained", "least"), [(0.15, 0.015, 0.0), pytest.param(0.0, -0.0015, -0.05, marks=pytest.mark.full)]
)
def test_a_class_that_is_harmed_is_left_alone(harm: float, gained: float, least: float) -> None:
    """Where δ harms one class of two, leaving it alone brings more on average than it costs where δ helps both; a class
    is left alone more often where it is harmed, and never where nothing is proposed."""
    before, gains, proposed, spared = np.full(2, norm.ppf(0.6)), list[float](), 0, 0
    after = np.tile(norm.ppf([0.85, 0.6 - harm if harm else 0.7]), (4, 1))
    for seed in range(200):
        world = World(seed, 140, before, after)
        result = world.raced(200)
        alone, together = world.share(result)
        gains.append(together - alone)
        proposed += result.proposed
        spared += 1 in [s.label for s in result.spared]
        assert result.proposed or not result.spared
        assert world.raced(200, combine=False).spared == ()
    assert np.mean(gains) > gained
    assert min(gains) >= least
    assert spared > 0.6 * proposed if harm else spared < 0.02 * proposed


@pytest.mark.parametrize(("persons", "queries"), [(140, 200), pytest.param(140, 800, marks=pytest.mark.full), (60, 84)])
@pytest.mark.parametrize("gain", [pytest.param(-0.02, marks=pytest.mark.full), 0.0, 0.01])
def test_what_is_worse_than_nothing_is_seldom_proposed(persons: int, queries: int, gain: float) -> None:
    """Candidates that help some classes and harm others, and in all do about nothing: combined or not, what is proposed
    is worse than nothing in no more races than is stated, whether other people test it or those who chose."""
    races, before, wrong = 200, np.full(6, norm.ppf(0.7)), 0
    for seed in range(races):
        uneven = 0.3 * np.random.default_rng([seed, 11]).standard_normal((8, 6))
        # Every candidate is worth the same in all.
        worth = norm.cdf(before + uneven)
        after = norm.ppf(np.clip(worth - worth.mean(axis=1, keepdims=True) + 0.7 + gain, 0.01, 0.99))
        world = World(seed, persons, before, after)
        result = world.raced(queries)
        _, together = world.share(result)
        wrong += result.proposed and together <= world.before + 1e-12
    assert wrong <= ERROR * races + 3 * np.sqrt(ERROR * (1 - ERROR) * races)


def test_the_test_on_those_who_chose_counts_the_combination() -> None:
    """On people who chose, a combination is one candidate more; on others the whole error is the test's."""
    after = np.full((8, 4), norm.ppf(0.8))
    world = World(0, 140, np.full(4, norm.ppf(0.5)), after)
    assert world.raced(800).level == ERROR / 9
    assert world.raced(800, combine=False).level == ERROR / 8
    assert world.raced(200).level == world.raced(200, combine=False).level == ERROR

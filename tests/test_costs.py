"""Tests of the arithmetic of costs: prices, break-evens, stopping points, intervals and limits."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca import costs
from ttca.costs import Trials, break_even, cheapest, days_alone, paired, price
from ttca.errors import ConfigError

# --- the arithmetic ------------------------------------------------------------------------------------------


def _price(fixed: int, actions: int, n: int, gained: int, spent: int, images: int) -> Fraction | float:
    """Return queries per additional right answer, exactly."""
    if gained <= 0:
        return math.inf
    return (Fraction(fixed, actions * images) + Fraction(spent, n)) * n / gained


@given(
    fixed=st.integers(0, 400),
    actions=st.integers(1, 4),
    n=st.integers(1, 60),
    gained=st.integers(-20, 60),
    looks=st.booleans(),
    gained_alone=st.integers(0, 60),
    each=st.integers(0, 300),
)
def test_the_break_even_is_the_smallest_group_at_which_pooling_is_no_dearer(
    fixed: int, actions: int, n: int, gained: int, looks: bool, gained_alone: int, each: int
) -> None:
    """At that many images pooling's price is no higher, one image earlier it is, and "never" is meant."""
    spent, spent_alone = n * looks, n + each
    found = float(break_even(fixed, actions, n, gained, spent, gained_alone, spent_alone))

    def no_dearer(images: int) -> bool:
        pooled = _price(fixed, actions, n, gained, spent, images)
        return pooled < math.inf and pooled <= _price(0, 1, n, gained_alone, spent_alone, 1)

    if math.isinf(found):
        assert not no_dearer(10**12)
    else:
        assert no_dearer(int(found))
        assert found == 1 or not no_dearer(int(found) - 1)


@given(
    fixed=st.integers(0, 5000), actions=st.integers(1, 5), n=st.integers(1, 500), gained=st.integers(1, 500),
    gained_alone=st.integers(1, 500), each=st.integers(1, 5000),
)  # fmt: skip
def test_the_break_even_grows_with_what_is_paid_once_and_with_what_an_attack_gains(
    fixed: int, actions: int, n: int, gained: int, gained_alone: int, each: int
) -> None:
    """More queries paid once or a better attack never make the group smaller; more seeds alike leave it as it is."""
    here = break_even(fixed, 1, n, gained, 0, gained_alone, n * each)
    assert break_even(fixed + 1, 1, n, gained, 0, gained_alone, n * each) >= here
    assert break_even(fixed, 1, n, gained, 0, gained_alone + 1, n * each) >= here
    assert break_even(fixed, 1, n, gained + 1, 0, gained_alone, n * each) <= here
    assert break_even(fixed, 1, n, gained, 0, gained_alone, n * (each + 1)) <= here
    assert break_even(fixed * actions, actions, n, gained, 0, gained_alone, n * each) == here
    alike = (np.array([v, v]) for v in (n, gained, 0, gained_alone, n * each))
    assert break_even(fixed, 1, *alike).tolist() == [here, here]


@pytest.mark.parametrize(
    ("counts", "images"),
    [
        # 100 queries once, one answer more per image; an attack needs 10 queries for one: ten images.
        ((100, 1, 1, 1, 0, 1, 10), 10),
        # One more query than ten images pay for takes an eleventh.
        ((101, 1, 1, 1, 0, 1, 10), 11),
        # With a look at every image, nine queries an image are saved.
        ((99, 1, 1, 1, 1, 1, 10), 11),
        ((0, 1, 1, 1, 0, 1, 10), 1),
        ((100, 1, 1, 1, 0, 0, 10), 1),
        ((100, 1, 1, 0, 0, 1, 10), math.inf),
        ((100, 1, 1, 1, 1, 1, 1), math.inf),
    ],
)
def test_break_evens_by_hand(counts: tuple[int, int, int, int, int, int, int], images: float) -> None:
    """Small cases come out as counted on fingers, also where one side gains nobody."""
    assert float(break_even(*counts)) == images


def test_a_price_falls_with_the_group_down_to_what_each_image_costs() -> None:
    """What is paid once is shared out, what is paid per image stays; who gains nobody has no price."""
    assert price(100, 0, 5, 1, 10) == 200
    assert price(100, 0, 5, 100, 10) == 2
    assert price(100, 10, 5, 10**9, 10) == pytest.approx(2)
    assert price(0, 40, 5, 1, 10) == price(0, 40, 5, 1000, 10) == 8
    assert price(100, 0, 0, 1, 10) == price(100, 0, -1, 1, 10) == math.inf


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.integers(0, 99)), min_size=1))
def test_sums_over_persons_are_those_over_trials(rows: list[tuple[int, bool, bool, int]]) -> None:
    """Every trial is counted once, with its person, and a spoilt answer takes one away."""
    persons, before, after, queries = (np.array(v) for v in zip(*rows, strict=True))
    trials = Trials(persons.astype(np.int64), before, after, queries.astype(np.int64))
    sums = trials.sums(5)
    assert sums.sum(0).tolist() == [len(rows), int(after.sum()) - int(before.sum()), int(queries.sum())]
    for person in range(5):
        mine = trials[trials.persons == person]
        assert sums[person].tolist() == [len(mine.queries), mine.gains.sum(), mine.queries.sum()]


def _run(rng: np.random.Generator, budget: int, trials: int = 12, persons: int = 5) -> Trials:
    """Return trials as an attack makes them: who is right before asks once, who fails has used the budget."""
    before, after = rng.random(trials) < 0.3, rng.random(trials) < 0.7
    queries = np.where(before, 1, np.where(after, rng.integers(2, budget, trials, endpoint=True), budget))
    return Trials(rng.integers(0, persons, trials), before, before | after, queries)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_cheapest_stopping_point_is_that_of_trying_all(seed: int, equal: bool) -> None:
    """Giving up after any number of queries of any run is never cheaper, in any resample, also at a wanted outcome."""
    rng = np.random.default_rng(seed)
    runs = {budget: _run(rng, budget) for budget in (4, 9, 14)}
    weights = rng.integers(0, 4, (8, 5))
    # One resample, one run, one number of queries at a time.
    tried = [
        {
            (budget, stop): (
                int((w[run.persons] * ((run.after & (run.queries <= stop)).astype(int) - run.before)).sum()),
                int((w[run.persons] * np.minimum(run.queries, stop)).sum()),
            )
            for budget, run in runs.items()
            for stop in range(1, budget + 1)
        }
        for w in weights
    ]
    wanted = [math.ceil(rng.random() * max(gained for gained, _ in at.values())) for at in tried]
    found = cheapest(runs, weights, np.array(wanted) if equal else None)
    for k, at in enumerate(tried):
        good = {(g, s) for g, s in at.values() if g > 0 and (g >= wanted[k] or not equal)}
        gained, spent = int(found.gained[k]), int(found.spent[k])
        assert at[int(found.budget[k]), int(found.after[k])] == (gained, spent)
        if good:
            assert (gained, spent) in good
            assert Fraction(spent, gained) == min(Fraction(s, g) for g, s in good)
            sizes = [float(break_even(90, 1, 12, 5, 0, g, s)) for g, s in good]
            assert float(break_even(90, 1, 12, 5, 0, gained, spent)) == max(sizes)
        else:
            assert gained <= 0


def test_resamples_are_priced_in_blocks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many resamples are held in memory at a time changes no number."""
    rng = np.random.default_rng(0)
    run, weights = _run(rng, 9, trials=40), rng.integers(0, 4, (11, 5))
    whole = cheapest({9: run}, weights)
    monkeypatch.setattr(costs, "_BLOCK", 3)
    for mine, theirs in zip(vars(whole).values(), vars(cheapest({9: run}, weights)).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- gains and their differences -----------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("n", [20, 200])
def test_where_nobody_differs_the_interval_says_how_few_people_there_are(n: int, seeds: int) -> None:
    """Zero discordant people of n leave room for a difference of some people in n, on both sides alike."""
    low, high = paired(np.tile(np.arange(n), seeds), np.zeros(n * seeds, np.int64))
    assert low == -high
    # Exactly, for one seed: the share at which n people in a row are spared with the error of one bound of four.
    assert high == pytest.approx(1 - (0.05 / (4 * seeds)) ** (1 / n))
    assert 3.6 / n < high < 6 / n


@given(st.lists(st.lists(st.integers(-1, 1), min_size=3, max_size=3), min_size=1, max_size=30))
def test_the_interval_of_a_difference_holds_it_and_has_a_width(people: list[list[int]]) -> None:
    """Whatever was found, the mean lies inside, and swapping the ways turns the interval round."""
    differences = np.array(people).T.ravel()
    persons = np.tile(np.arange(len(people)), 3)
    low, high = paired(persons, differences)
    assert -1 <= low < differences.mean() < high <= 1 or abs(differences.mean()) == 1
    assert high - low > 0.5 / len(people)
    assert paired(persons, -differences) == [pytest.approx(-high), pytest.approx(-low)]
    mixed = np.random.default_rng(0).permutation(len(persons))
    assert paired(persons[mixed], differences[mixed]) == [low, high]


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.02), (0.05, 0.05), (0.3, 0.1), (0.5, 0.5)])
def test_the_interval_covers_the_truth_as_often_as_it_says(better: float, worse: float) -> None:
    """Over every possible outcome of 25 people, weighed by its probability, at least 95 % of intervals hold it."""
    n, covered = 25, 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            chance = math.comb(n, up) * math.comb(n - up, down) * better**up * worse**down
            chance *= (1 - better - worse) ** (n - up - down) if better + worse < 1 or up + down == n else 0
            if chance < 1e-9:
                continue
            low, high = paired(np.arange(n), np.repeat([1, -1, 0], [up, down, n - up - down]))
            covered += chance * (low <= better - worse <= high)
    assert covered > 0.95 - 1e-6


@pytest.mark.parametrize("alike", [False, True])
def test_seeds_of_one_person_are_no_other_people(alike: bool) -> None:
    """Three seeds cover the truth, too; where they are alike, they say no more than one."""
    rng, n, covered = np.random.default_rng(0), 40, 0
    for _ in range(400):
        drawn = rng.choice([1, 0, -1], (1 if alike else 3, n), p=[0.2, 0.7, 0.1])
        differences = np.broadcast_to(drawn, (3, n)).ravel()
        low, high = paired(np.tile(np.arange(n), 3), differences)
        if alike:
            one = paired(np.arange(n), drawn[0])
            assert low <= one[0] < one[1] <= high
        covered += low <= 0.1 <= high
    assert covered >= 380


def test_people_who_miss_a_seed_are_refused() -> None:
    """The bounds count a person's seeds, so everybody must have the same number of them."""
    with pytest.raises(ConfigError, match="once per seed, got some 1 times and some 2 times"):
        paired(np.array([0, 0, 1]), np.zeros(3, np.int64))


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(1, 200))
def test_days_are_whole_and_enough(queries: list[int], quota: int) -> None:
    """With one image each, the quota times the days covers every person's queries, and a day less does not."""
    days = days_alone(np.array(queries), quota, 1, 0)
    paid = np.sort(queries)
    assert (days * quota >= paid).all()
    assert ((days - 1) * quota < paid).all()


def test_more_images_take_more_days() -> None:
    """Members with ten images need ten times the queries, on average."""
    queries = np.array([1, 1, 1, 200])
    days = days_alone(queries, 1, 10, 0)
    assert len(days) == 10_000
    assert days.mean() == pytest.approx(10 * queries.mean(), rel=0.05)
    np.testing.assert_array_equal(days, days_alone(queries, 1, 10, 0))

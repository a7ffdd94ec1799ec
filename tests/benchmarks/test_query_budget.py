"""Tests of pooling against per-user attacks: break-evens, stopping points, intervals, limits, and a tiny run."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import query_budget, transfer
from benchmarks._document import commands, filled, results
from benchmarks._tracks import TRACKS, Track
from benchmarks.query_budget import (
    ATTACKS,
    GROUPS,
    Trials,
    break_even,
    censored,
    cheapest,
    days_alone,
    figure,
    main,
    paired,
    price,
    tables,
)
from benchmarks.transfer import Grid
from tests import worlds
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.attacks.hopskipjump import hop_skip_jump
from ttca.attacks.simba import simba
from ttca.attacks.square import square
from ttca.errors import ActionError, ConfigError
from ttca.row import Row

_ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--track", "tiny", "--queries", "150", "--epsilon", "3", "6", "--budgets", "5", "20", "60", "--attacked", "40",
    "--label-attacked", "20", "--abused", "8", "--abuse-budget", "20", "--seeds", "2",
]  # fmt: skip

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
    monkeypatch.setattr(query_budget, "_BLOCK", 3)
    for mine, theirs in zip(vars(whole).values(), vars(cheapest({9: run}, weights)).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("helped", "stop"), [(5, 3), (10, 3), (12, 40), (17, 180), (19, 180), (20, None)])
def test_an_equal_outcome_is_the_cheapest_that_gains_as_much_as_pooling(helped: int, stop: int | None) -> None:
    """Giving the hard ones up is cheapest; who wants as many as pooling helps pays for more of them, or fails."""
    # Of 20 who are wrong ten fall at the third query, then one for every 20 queries more, and the last never.
    who = np.arange(40)
    queries = np.where(who < 20, 1, np.where(who < 30, 3, np.minimum(20 * (who - 29), 200)))
    attack = {200: Trials(who, who < 20, who < 39, queries)}
    pooled = {"pooled": Trials(who, who < 20, who < 20 + helped, np.zeros(40, np.int64))}
    together = query_budget._Together(pooled, {"square": attack}, {"pooled": 500}, 1, 40)
    lines = {c["budget_is"]: c for c in query_budget._comparisons(together, "pooled", "square")}
    assert {how: c["stop"] for how, c in lines.items()} == {"cheapest": 3, "equal outcome": stop, "largest": 200}
    for line in lines.values():
        if line["stop"] is not None:
            gained = int((queries[20:39] <= line["stop"]).sum())
            assert line["gain_difference"] == pytest.approx((helped - gained) / 40)
            # 500 queries for so many, at the attack's price.
            price_alone = np.minimum(queries, line["stop"]).sum() / gained
            assert line["images"] == math.ceil(500 * 40 / helped / price_alone)


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


# --- attacks, read off and limited ---------------------------------------------------------------------------


def _crowd() -> tuple[Any, Any, Any]:
    """Return subgroup people of the tiny world: images, classes, and for each another's image of the class."""
    mine, others = worlds.crowd("one", 24, 0, seed=7), worlds.crowd("two", 0, 24, seed=8)
    starts = np.stack([others.images[others.classes == c][0] for c in mine.classes])
    return mine.images, mine.classes, starts


def _labels(images: Any) -> Any:
    return worlds.model(images).argmax(1)


@settings(max_examples=8)
@given(budget=st.integers(1, 80))
def test_a_run_read_off_early_is_the_run_with_the_smaller_budget(budget: int) -> None:
    """SimBA and HopSkipJump with less to spend do exactly what they did so far with more: same people, same queries."""
    images, classes, starts = _crowd()
    for longer, shorter in (
        [simba(worlds.model, images, classes, epsilon=3, budget=b, rng=np.random.default_rng(1)) for b in (80, budget)],
        [
            hop_skip_jump(
                _labels, images, classes, epsilon=3, budget=b, rng=np.random.default_rng(1), starts=starts, probes=5
            )
            for b in (80, budget)
        ],
    ):
        success, queries = censored(longer, budget)
        np.testing.assert_array_equal(success, shorter.success)
        np.testing.assert_array_equal(queries, shorter.queries)


def test_square_is_run_anew_because_its_patches_depend_on_the_budget() -> None:
    """Square with a small budget is another attack than a long run stopped early."""
    images, classes, _ = _crowd()
    longer, shorter = (
        square(worlds.model, images, classes, epsilon=4, budget=b, rng=np.random.default_rng(1)) for b in (400, 60)
    )
    assert not np.array_equal(censored(longer, 60)[1], shorter.queries)


def test_queries_beside_the_run_count_against_the_budget() -> None:
    """Who found a start late has less left, and nobody pays more than the budget."""
    images, classes, _ = _crowd()
    run = simba(worlds.model, images, classes, epsilon=3, budget=80, rng=np.random.default_rng(1))
    tried = np.where(run.queries > 1, 30, 0)
    success, queries = censored(run, 40, tried)
    np.testing.assert_array_equal(success, run.success & (run.queries + tried <= 40))
    assert queries.max() == 40
    with pytest.raises(ConfigError, match="at most the run's 80, got 81"):
        censored(run, 81)


def test_a_start_is_another_members_image_that_the_platform_gets_right() -> None:
    """Every start has its person's class and is answered rightly; what was tried before it was not."""
    pool = worlds.crowd("pool", 60, 3, seed=3)
    images, classes, _ = _crowd()
    with platform("scores") as open_platform:
        starts, tried = query_budget._starts(open_platform, pool, images, classes, seed=0)
        again, _ = query_budget._starts(open_platform, pool, images, classes, seed=0)
        # Nobody in this pool has the class: all were tried, which is none, and the image stands in.
        none = pool[pool.classes != 0]
        own, vain = query_budget._starts(open_platform, none, images, np.zeros_like(classes), seed=0)
    np.testing.assert_array_equal(_labels(starts), classes)
    known = {image.tobytes() for image in pool.images}
    assert all(start.tobytes() in known for start in starts)
    assert tried.max() > 0 == tried.min()
    np.testing.assert_array_equal(starts, again)
    np.testing.assert_array_equal(own, images)
    assert not vain.any()


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


# --- the whole benchmark on the tiny world -------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where the tiny cells are kept for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Put a tiny track and a tiny grid in place."""
    track = Track("tiny", ("scores", "label"), platform, people, {"public": QUICK})
    monkeypatch.setitem(TRACKS, "tiny", track)
    monkeypatch.setitem(TRACKS, "mute", Track("mute", ("label",), platform, people, {"public": QUICK}))
    monkeypatch.setitem(transfer.GRIDS, "quick", Grid((150,), (3, 6), (), ("public",)))
    monkeypatch.setenv("TTCA_CACHE", str(cache))


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    """Return a place for the one record that most tests read."""
    return {}


@pytest.fixture
def record(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the record of one tiny run."""
    if not made:
        made["record"] = main(ARGUMENTS)
    return made["record"]


def test_every_way_is_measured_on_the_same_people(record: dict[str, Any]) -> None:
    """Before is the same for every way, budgets only help, and an attack never spoils an answer."""
    assert record["file"] == "query_budget-tiny"
    assert list(record["epsilons"]) == ["3", "6"]
    assert json.loads(json.dumps(record)) == record
    for result in record["epsilons"].values():
        befores = {way["before"] for way in result["ways"].values()}
        befores |= {result["attacks"][a]["before"] for a in ("square", "simba")}
        assert befores == {result["on_attacked_people"]["before"]}
        assert result["ways"]["pooled"]["right"] == result["on_attacked_people"]["pooled"]
        look, plain = result["ways"]["pooled_after_a_look"], result["ways"]["pooled"]
        assert look["put_right"] == plain["put_right"]
        assert (look["spoilt"], look["queries_per_image"], plain["queries_per_image"]) == (0, 1, 0)
        for attack in ATTACKS:
            found = result["attacks"][attack]
            assert found["people"] == (40 if attack == "hopskipjump" else 80)
            at = list(found["budgets"].values())
            assert all(b["gain"] >= 0 for b in at)
            assert all(b["queries_per_image"] <= int(name) for name, b in found["budgets"].items())
            least = found["cheapest"]
            assert least["price"] <= min(b["price"] or math.inf for b in at)
            assert 1 < least["stop"] <= least["budget"]
            assert found["before"] * found["people"] + least["put_right"] == pytest.approx(
                least["right"] * found["people"]
            )
            if attack != "square":
                assert least["budget"] == 60
                assert [b["gain"] for b in at] == sorted(b["gain"] for b in at)
                assert [b["queries_per_image"] for b in at] == sorted(b["queries_per_image"] for b in at)


def test_what_was_paid_once_is_all_that_the_rows_say(record: dict[str, Any]) -> None:
    """Pool, audit and verification are stated apart and add up; the zero-query way pays nothing; rows are whole."""
    for epsilon, result in record["epsilons"].items():
        rows = [cell["row"] for cell in result["cells"]]
        assert all(set(row) == set(Row.keys()) and row["epsilon"] == int(epsilon) for row in rows)
        assert [row["seed"] for row in rows] == record["seeds"] == [0, 1]
        paid = result["pooled_paid"]
        assert paid["pool"] == [row["queries_pool"] for row in rows]
        total = sum(sum(part) for part in paid.values()) / 2
        assert result["ways"]["pooled"]["queries_once"] == total > 150
        assert result["ways"]["pooled_without_certificate"]["queries_once"] == sum(paid["pool"]) / 2
        assert result["ways"]["zero_query"]["queries_once"] == 0
        mean = sum(row["subgroup_after"] for row in rows) / 2
        assert result["on_all_test_people"]["pooled"] == pytest.approx(mean)
        mean = sum(row["zero_query_control"] for row in rows) / 2
        assert result["on_all_test_people"]["zero_query"] == pytest.approx(mean)


def test_break_evens_agree_with_the_stated_prices(record: dict[str, Any]) -> None:
    """At the break-even the curve has just passed below the attack's price, and intervals hold the estimate."""
    for epsilon, result in record["epsilons"].items():
        lines = result["comparisons"]
        cheapest_of: dict[str, float] = {}
        mine = [c for c in lines if c["way"] == "pooled" and c["budget_is"] == "cheapest"]
        assert record["break_even"][epsilon] == result["break_even"] == max(mine, key=lambda c: c["images"] or math.inf)
        for c in lines:
            if c["budget"] is None or c["images"] is None or c["against"] == "hopskipjump":
                continue
            if c["way"] == "pooled":
                way, alone = result["ways"]["pooled"], result["attacks"][c["against"]]
                if c["budget_is"] == "equal outcome":
                    assert c["gain_alone"] >= c["gain"]
                    assert c["images"] <= cheapest_of[c["against"]]
                    continue
                if c["budget_is"] == "cheapest":
                    cheapest_of[c["against"]] = c["images"]
                    alone = {**alone["cheapest"], "gain": alone["cheapest"]["right"] - alone["before"]}
                    assert (c["budget"], c["stop"]) == (alone["budget"], alone["stop"])
                else:
                    assert c["budget"] == c["stop"] == 60
                    alone = alone["budgets"]["60"]
                here, earlier = (way["queries_once"] / n / way["gain"] for n in (c["images"], c["images"] - 1 or 1e-9))
                assert here <= alone["price"] + 1e-9
                assert c["images"] == 1 or earlier > alone["price"] - 1e-9
                assert c["gain_difference"] == pytest.approx(way["gain"] - alone["gain"])
                low, high = c["gain_difference_interval"]
                assert low < c["gain_difference"] < high
            low, high = c["interval"]
            assert low <= c["images"]
            assert high is None or c["images"] <= high
            assert [c["members"][k]["size"] for k in ("1", "10", "100")] == [
                math.ceil(c["images"] / k) for k in (1, 10, 100)
            ]


def test_limits_are_stated_in_days(record: dict[str, Any]) -> None:
    """Pooling takes as long as its queries over all members' quotas; one member alone takes longest."""
    for result in record["epsilons"].values():
        pooled = result["days"]["pooled"]
        days = [pooled["days_by_group"][str(g)] for g in GROUPS]
        assert days == sorted(days, reverse=True)
        assert (days[0], days[-1]) == (math.ceil(pooled["queries"] / 50), 1)
        assert math.ceil(pooled["queries"] / (50 * pooled["members_for_one_day"])) == 1
        for found in result["days"]["alone"].values():
            assert all(d["median"] <= d["90 %"] <= d["last"] for d in found["images"].values())


def test_two_runs_are_the_same_to_the_last_digit(record: dict[str, Any]) -> None:
    """Whatever is random has a seed: a second run differs in its seconds alone."""
    again = main(ARGUMENTS)
    assert json.dumps({**again, "seconds": 0}) == json.dumps({**record, "seconds": 0})


def test_final_people_are_others_and_are_named() -> None:
    """``--final`` attacks and measures final people, in a file of its own."""
    result = main([*ARGUMENTS, "--final", "--seeds", "1", "--epsilon", "6", "--budgets", "5"])
    assert (result["file"], result["people"]) == ("query_budget-tiny-final", "final")
    cells = result["epsilons"]["6"]["cells"]
    assert [cell["people"] for cell in cells] == ["final"]
    assert result["epsilons"]["6"]["on_all_test_people"]["pooled"] == pytest.approx(cells[0]["row"]["subgroup_after"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--attacked", "0"], "--attacked of 1 or more"),
        (["--quota", "0"], "--quota of 1 or more"),
        (["--budgets", "0", "5"], "budgets of 1 query or more"),
        (["--epsilon", "5"], "ε to be one of the cell's 3, 6"),
        (["--queries", "77"], "a budget of the quick grid"),
        (["--queries", "0"], "a budget of the quick grid of tiny, got 0"),
        (["--track", "mute"], "a platform that gives scores"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(changed: list[str], message: str) -> None:
    """Numbers out of range and cells that do not exist are refused before a query is sent."""
    with pytest.raises(ConfigError, match=message):
        main([*ARGUMENTS, *changed])


def test_a_cell_that_failed_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no action was possible, the benchmark says why instead of comparing with nothing."""
    failed: dict[str, Any] = {"people": {}, "failed": "The proxy knows no more than the favourite answer."}
    monkeypatch.setattr(query_budget, "finish", lambda key, people: failed)
    with pytest.raises(ActionError, match="a cell that failed: The proxy knows"):
        main(ARGUMENTS)


# --- document and picture ------------------------------------------------------------------------------------


def test_the_documents_tables_are_those_of_the_result_files() -> None:
    """No number in docs/query_budget.md was written by hand or is out of date."""
    document = (_ROOT / "docs" / "query_budget.md").read_text(encoding="utf-8")
    assert filled(document, tables(results("query_budget-*.json"))) == document
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", document, flags=re.DOTALL)
    assert not re.search(r"\d\.\d", prose)


def _kept(record: dict[str, Any], **row: Any) -> dict[str, Any]:
    """Return a record as its file has it, with what its cells' rows say changed."""
    copy: dict[str, Any] = json.loads(json.dumps({**record, "benchmark": "query_budget", "arguments": ["--json"]}))
    copy |= {"commit": "abc", "hardware": {"threads": 1}}
    for result in copy["epsilons"].values():
        for cell in result["cells"]:
            cell["row"] |= row
    return copy


def test_every_part_of_the_document_comes_from_the_record(record: dict[str, Any]) -> None:
    """Every table is as wide as its head, names every way, and says never where there is no break-even."""
    assert set(tables([]).values()) == {"*Not measured yet.*"}
    never = _kept(record)
    for result in never["epsilons"].values():
        for line in result["comparisons"]:
            if line["budget_is"] == "cheapest":
                line["images"] = None
            if line["budget_is"] == "equal outcome":
                line["budget"] = line["stop"] = None
    found = [("query_budget-a.json", _kept(record)), ("query_budget-b.json", never)]
    parts = tables(found)
    assert parts["commands"] == commands(found)
    for part in parts.values():
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) <= 1
    text = "\n".join(parts.values())
    attacks = ("Square, given up after", "queries of a run for", "SimBA", "HopSkipJump (labels), given up after")
    for said in (*attacks, "zero-query δ", "pooling never gets as cheap", "no attack gains as much as pooling"):
        assert said in text
    assert "nan" not in text


def test_every_finding_says_how_many_seeds_and_people_it_is_from(record: dict[str, Any]) -> None:
    """Trials are people times seeds; one seed speaks for its pool alone."""
    findings = tables([("query_budget-a.json", _kept(record))])["findings"].splitlines()
    said = [re.search(r"\(2 seeds, (20|40|60) people\)", line) for line in findings]
    # 40 people meet Square and SimBA, the first 20 of them HopSkipJump, and everybody the zero-query control.
    assert all(said)
    assert {match[1] for match in said if match} == {"20", "40", "60"}
    one = main([*ARGUMENTS, "--seeds", "1"])
    findings = tables([("query_budget-a.json", _kept(one))])["findings"].splitlines()
    assert all("(for this one pool, " in line for line in findings)


def test_a_certificate_that_did_not_come_is_told(record: dict[str, Any]) -> None:
    """The seeds in which parity was certified are counted beside the pooled ways, and a refusal is called one."""
    for certified, counted, refused in ((True, "2 of 2 seeds", False), (False, "0 of 2 seeds", True)):
        parts = tables([("query_budget-a.json", _kept(record, parity_certified=certified))])
        lines = parts["ways"].splitlines()
        assert sum(counted in line for line in lines) == 4
        assert all("pooled" in line and "no certificate" not in line for line in lines if counted in line)
        assert f"Parity was certified in {counted}" in parts["findings"]
        assert ("bought a refusal" in parts["findings"]) == refused


def test_a_cell_that_stands_in_two_result_files_is_the_same_in_both() -> None:
    """Made on one machine with as many threads, a row here and in docs/RESULTS.md differ in clocks and memory alone."""

    def rows(cells: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
        keys = ("track", "regime", "answers", "queries", "epsilon", "seed")
        return {(cell["people"], *(cell["row"][k] for k in keys)): cell for cell in cells}

    compared = 0
    for _, record in results("query_budget-*.json"):
        mine = rows([cell for result in record["epsilons"].values() for cell in result["cells"]])
        for _, grid in results("transfer-quick-*.json"):
            theirs = rows([row for cell in grid["cells"] for row in cell["rows"]])
            if any(record[k] != grid[k] for k in ("hardware", "versions")):
                continue
            for key in mine.keys() & theirs.keys():
                pair = (transfer._without_clocks(found[key]) for found in (mine, theirs))
                assert sorted(transfer._differences(*pair)) == [], key
                compared += 1
    assert compared


def test_the_figure_shows_one_panel_per_epsilon_with_the_break_even(record: dict[str, Any]) -> None:
    """Both axes are logarithmic and named, and the point is labelled where there is one."""
    panels = figure(record).axes
    assert len(panels) == 2
    for panel, result in zip(panels, record["epsilons"].values(), strict=True):
        assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
        assert "group size" in panel.get_xlabel()
        said = [text.get_text() for text in panel.texts]
        assert len(said) == (result["break_even"]["images"] is not None)
        assert all(text.startswith("break-even") for text in said)
    assert panels[0].get_ylabel() == "queries per additional right answer"

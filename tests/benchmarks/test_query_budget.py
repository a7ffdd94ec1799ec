"""Tests of pooling against per-user attacks: the break-even to the last image, censoring, limits, and a tiny run."""

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

from attacks.hopskipjump import hop_skip_jump
from attacks.simba import simba
from attacks.square import square
from benchmarks import query_budget, transfer
from benchmarks._tracks import TRACKS, Track
from benchmarks.query_budget import (
    ATTACKS,
    GROUPS,
    Trials,
    break_even,
    censored,
    days_alone,
    figure,
    main,
    price,
    rewritten,
    tables,
)
from benchmarks.transfer import Grid
from tests import worlds
from tests.benchmarks.test_effect import QUICK, people, platform
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
            if attack != "square":
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
        mine = [c for c in lines if c["way"] == "pooled" and c["budget_is"] == "cheapest"]
        assert record["break_even"][epsilon] == result["break_even"] == max(mine, key=lambda c: c["images"] or math.inf)
        for c in lines:
            if c["budget"] is None or c["images"] is None or c["against"] == "hopskipjump":
                continue
            if c["way"] == "pooled":
                way, alone = result["ways"]["pooled"], result["attacks"][c["against"]]["budgets"][str(c["budget"])]
                here, earlier = (way["queries_once"] / n / way["gain"] for n in (c["images"], c["images"] - 1 or 1e-9))
                assert here <= alone["price"] + 1e-9
                assert c["images"] == 1 or earlier > alone["price"] - 1e-9
                assert c["gain_difference"] == pytest.approx(way["gain"] - alone["gain"])
                if c["budget_is"] == "equal outcome":
                    assert c["gain_difference"] <= 0
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
        (["--epsilon", "5"], "ε among the cell's 3, 6"),
        (["--queries", "77"], "a budget of the quick grid"),
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
    assert rewritten(document) == document
    with pytest.raises(ConfigError, match="Put them back"):
        rewritten("# Nothing")
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", document, flags=re.DOTALL)
    assert not re.search(r"\d\.\d", prose)


def test_every_part_of_the_document_comes_from_the_record(record: dict[str, Any], tmp_path: Path) -> None:
    """Every table is as wide as its head, names every way, and says never where there is no break-even."""
    document = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in tables({}))
    assert rewritten(document, tmp_path).count("Not measured yet") == len(tables({}))
    never = json.loads(json.dumps(record))
    for result in never["epsilons"].values():
        result["break_even"]["images"] = None
    for name, kept in (("a", record), ("b", never)):
        (tmp_path / f"query_budget-{name}.json").write_text(json.dumps(kept))
    text = rewritten(document, tmp_path)
    assert rewritten(text, tmp_path) == text
    for part in tables({"a": record}).values():
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) <= 1
    for said in ("Square", "SimBA", "HopSkipJump (labels)", "zero-query δ", "pooling never gets as cheap"):
        assert said in text
    assert "nan" not in text


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

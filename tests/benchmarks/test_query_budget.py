"""Tests of pooling against per-user attacks: budgets, starts, an equal outcome, and a tiny run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import query_budget, transfer
from benchmarks._document import Table, commands, results
from benchmarks._pages.query_budget import figure, tables
from benchmarks._tracks import TRACKS, Track
from benchmarks.query_budget import (
    ATTACKS,
    FROM_PROXY,
    GROUPS,
    censored,
    main,
)
from benchmarks.transfer import Grid
from tests import worlds
from tests.benchmarks.test_effect import QUICK, people, platform
from ttca.attacks.hopskipjump import hop_skip_jump
from ttca.attacks.simba import simba
from ttca.attacks.square import square
from ttca.costs import Trials
from ttca.errors import ActionError, ConfigError
from ttca.row import Row

_ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--track", "tiny", "--queries", "150", "--epsilon", "3", "6", "--budgets", "5", "20", "60", "--attacked", "40",
    "--label-attacked", "20", "--abused", "8", "--abuse-budget", "20", "--seeds", "2",
]  # fmt: skip


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


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
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


def test_the_strongest_alone_starts_where_a_public_proxy_brings_them() -> None:
    """Whom the zero-query δ puts right pays two queries; the page names it; and it needs public data."""
    result = main([*ARGUMENTS, "--seeds", "1", "--epsilon", "6", "--from-proxy"])
    found = result["epsilons"]["6"]
    assert list(found["attacks"]) == [*ATTACKS, FROM_PROXY]
    strongest, zero = found["attacks"][FROM_PROXY], found["ways"]["zero_query_after_a_look"]
    by_budget = strongest["budgets"]
    # All that the zero-query δ puts right are right within two queries, and nobody is spoilt.
    assert all(at["right"] >= zero["right"] for at in by_budget.values())
    assert zero["put_right"] > 0
    wrong = by_budget["60"]["of_the_wrong"]
    assert wrong["mean"] <= (2 * zero["put_right"] + 60 * (wrong["people"] - zero["put_right"])) / wrong["people"]
    assert any(line["against"] == FROM_PROXY for line in found["comparisons"])
    assert FROM_PROXY in found["abuse"]
    assert FROM_PROXY in found["days"]["alone"]
    text = "\n".join(tables([("query_budget-a.json", _kept(result))]).values())
    assert "Square from the zero-query δ" in text
    assert result["what"][FROM_PROXY]
    figure(result)
    own = Track("own", ("scores",), platform, people, {"own": QUICK})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKS, "own", own)
        patch.setitem(transfer.GRIDS, "quick", Grid((150,), (3, 6), (), ("own",)))
        with pytest.raises(ConfigError, match="public data for --from-proxy, got own"):
            main([*ARGUMENTS, "--track", "own", "--from-proxy"])


def test_a_cell_that_failed_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no action was possible, the benchmark says why instead of comparing with nothing."""
    failed: dict[str, Any] = {"people": {}, "failed": "The proxy knows no more than the favourite answer."}
    monkeypatch.setattr(query_budget, "finish", lambda key, people: failed)
    with pytest.raises(ActionError, match="a cell that failed: The proxy knows"):
        main(ARGUMENTS)


# --- document and picture ------------------------------------------------------------------------------------


def test_no_number_stands_outside_the_tables() -> None:
    """No number in docs/query_budget.md was written by hand."""
    document = (_ROOT / "docs" / "query_budget.md").read_text(encoding="utf-8")
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


@pytest.mark.full
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
    for part in (one for text in parts.values() for one in text.split("\n\n")):
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) <= 1
    text = "\n".join(parts.values())
    attacks = ("Square, given up after", "queries of a run for", "SimBA", "HopSkipJump (labels), given up after")
    for said in (*attacks, "zero-query δ"):
        assert said in text
    # The second file's attacks are never beaten on price, and none gains as much as pooling.
    findings = parts["findings"]
    assert isinstance(findings, Table)
    told = [dict(zip(findings.head, line, strict=True)) for line in findings.lines]
    half = len(told) // 2
    assert all(line["pooling cheaper from"] == "never" for line in told[half:])
    assert all(line["hardest at an equal outcome"] == "none gains as much" for line in told[half:])
    assert all(line["pooling cheaper from"].endswith(" images") for line in told[:half] if "never" not in str(line))
    assert "nan" not in text


def _findings(record: dict[str, Any]) -> list[dict[str, str]]:
    """Return the lines of the page's first table, by the words of its head."""
    found = tables([("query_budget-a.json", record)])["findings"]
    assert isinstance(found, Table)
    return [dict(zip(found.head, line, strict=True)) for line in found.lines]


@pytest.mark.full
def test_every_finding_says_how_many_seeds_and_people_it_is_from(record: dict[str, Any]) -> None:
    """Trials are people times seeds: 40 people meet Square and SimBA, the first 20 HopSkipJump, all 60 the control."""
    for line in _findings(_kept(record)):
        assert line["seeds"] == "2"
        asked = {
            "hardest to beat on price": "people there",
            "hardest at an equal outcome": "people of the equal outcome",
        }
        for what, count in asked.items():
            assert line[count] == ("20" if "HopSkipJump" in line[what] else "40")
        assert line["people of S"] == "60"
    one = main([*ARGUMENTS, "--seeds", "1"])
    assert all(line["seeds"] == "1" for line in _findings(_kept(one)))


@pytest.mark.full
def test_a_certificate_that_did_not_come_is_told(record: dict[str, Any]) -> None:
    """The seeds in which parity was certified are counted beside the pooled ways, and a refusal is called one."""
    for certified, counted, told in ((True, "2 of 2 seeds", "2 of 2"), (False, "0 of 2 seeds", "0 of 2: a refusal")):
        parts = tables([("query_budget-a.json", _kept(record, parity_certified=certified))])
        lines = parts["ways"].splitlines()
        assert sum(counted in line for line in lines) == 4
        assert all("pooled" in line and "no certificate" not in line for line in lines if counted in line)
        assert all(line["parity certified"] == told for line in _findings(_kept(record, parity_certified=certified)))


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


@pytest.mark.full
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

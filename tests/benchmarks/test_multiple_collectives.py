"""Tests of the benchmark of several collectives, at sizes that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks import multiple_collectives as benchmark
from benchmarks._document import MISSING, filled
from benchmarks._kept_bounds import LEVEL, Score, chance_of, quarter_margins
from benchmarks._pages import multiple_collectives as page
from benchmarks.multiple_collectives import TIERS, City, all_tiers, loop, main, references, scenarios
from ttca.errors import ConfigError
from ttca.training_time.bounds import Setting
from ttca.training_time.signals import FeatureLabelPlanting


@pytest.fixture(scope="module")
def told() -> Any:
    """Return the row of one tiny run, as it would be read back from its file."""
    sizes = ["--people", "3000", "--test", "2000", "--scenarios", "8", "--repeats", "1", "--seed", "3"]
    return json.loads(json.dumps(main(sizes), allow_nan=False))


def test_the_row_says_what_it_must(told: Any) -> None:
    """The row is JSON with the keys that are asked for, counts that fit together, and both ways of computing agree."""
    assert {"checks", "violations", "seconds", "pandas_loop_ratio", "exact_over_hoeffding"} <= set(told)
    assert told["full_below_worst"] == 0
    assert told["failing_too_often"] == 0
    assert isinstance(told["quarter_margin_caught"], bool)
    assert max(told["timing"]["seconds"], told["timing"]["exact_seconds"]) < 1
    assert 0 <= told["violations"] <= told["not_vacuous"] <= told["checks"]
    checks = sum(score["checks"] for name, score in told["by_bound"].items() if name != "published_margin")
    assert told["checks"] == checks + told["city_held"]["checks"]
    assert len(told["city"]) == len(told["recruited_at_home"]) == 36
    for setting in told["city"]:
        assert 0 <= setting["overlap"] <= 1
        for tier in TIERS:
            assert all(0 <= bound <= 1 for bound in setting["bounds"][tier])
            assert setting["global"][tier]["least"] <= setting["global"][tier]["weighted"] + 1e-12
    for name in ("iterrows", "itertuples"):
        assert told["timing"][f"{name}_same_decisions"]
        assert told["timing"][f"{name}_largest_difference"] < 1e-12
    for trained in told["trained"]:
        assert (trained["epsilon_tv"] == 0) == (trained["epsilon_contamination"] == 0)
        assert trained["platform"] != "count argmax" or trained["epsilon_tv"] == 0


def test_vectors_and_loops_are_two_ways_to_one_result() -> None:
    """The loop over people finds the same decisions and bounds, at a size where most bounds say something."""
    generator = np.random.default_rng(1)
    town = City.built(generator)
    strategies = [FeatureLabelPlanting(s, 3) for s in town.signals("partial")]
    table = town.people(8_000, generator)
    membership = benchmark._join(table, [3_000, 2_000, 1_500, 1_000], generator)
    # A generous δ lets so few people be promised something.
    setting = Setting(8_000, 0.9)
    fast = all_tiers(town.domain, table.features, table.labels, membership, strategies, setting)
    rows = np.column_stack([table.features, table.labels, membership]).tolist()
    slow = loop(town.domain, rows, strategies, setting)
    assert slow["decisions"] == fast["decisions"].tolist()
    for tier in TIERS:
        assert slow["bounds"][tier] == pytest.approx(fast["bounds"][tier], abs=1e-12)
    assert max(fast["bounds"]["aggregator"]) > 0


def test_the_reference_runs_agree() -> None:
    """At the stated N every stated bound and success comes out within the tolerance stated with it."""
    for row in references(200_000, np.random.default_rng(0)):
        assert row["success_agrees"] in (True, None), row
        assert all(row["bounds_agree"].values()), row


@pytest.mark.full
def test_scenarios_say_something_and_are_kept() -> None:
    """Random scenarios exercise every bound of ours, with either margins and none fails too often; seeds repeat."""
    found, tiers = scenarios(40, np.random.default_rng(5))
    assert (found, tiers) == scenarios(40, np.random.default_rng(5))
    kinds = {"single", "unplanting_adaptive", "unplanting_naive", "erasing", *TIERS}
    assert kinds | {f"exact_{kind}" for kind in kinds} | {"published_margin"} <= set(found)
    for name, score in found.items():
        assert score["not_vacuous"] > 0, name
        assert score["units"] <= 40, name
        if name != "published_margin":
            assert score["p_too_many"] > LEVEL / len(found), name
    assert tiers["full_below_worst"] == tiers["aggregator_below_worst"] == 0
    counts = tiers["not_vacuous"]
    assert counts["hoeffding"] < counts["exact"] <= counts["none"] <= tiers["bounds"]


def test_exact_margins_pay_where_combinations_are_rare() -> None:
    """Smaller collectives at rarer combinations are promised something much more often, and nothing untrue."""
    found, tiers = scenarios(60, np.random.default_rng(8), rare=True)
    assert tiers["exact_over_hoeffding"] > 1.2
    assert tiers["full_below_worst"] == 0
    assert all(score["p_too_many"] > LEVEL / len(found) for score in found.values())


def test_margins_of_a_quarter_are_caught() -> None:
    """Where success falls about one check in eight below a bound with a quarter of its slack, the test says so."""
    told = quarter_margins(400, np.random.default_rng(0))
    assert told["caught"]
    # 1.19 standard deviations: .118, within four of its own.
    assert told["hoeffding"]["quarter"]["violations"] / 400 == pytest.approx(0.118, abs=0.065)
    assert told["hoeffding"]["whole"]["violations"] == 0
    assert told["exact"]["whole"]["p_too_many"] > LEVEL
    # Too few draws to see it by: then nothing is caught, and that is said.
    assert not quarter_margins(1, np.random.default_rng(0))["caught"]


@given(st.integers(0, 12), st.integers(1, 12), st.floats(0.01, 0.5))
def test_the_test_of_violations_is_the_binomial_one(violations: int, units: int, delta: float) -> None:
    """With one δ for all, the chances are scipy's binomial tails; with two, those of their sum."""
    few, many = chance_of(violations, [delta] * units)
    assert few == pytest.approx(binom.cdf(violations, units, delta), abs=1e-12)
    assert many == pytest.approx(binom.sf(violations - 1, units, delta), abs=1e-12)
    assert chance_of(1, [delta, 0.25])[1] == pytest.approx(1 - (1 - delta) * 0.75)


def test_a_score_tests_one_check_of_each_scenario() -> None:
    """Four collectives that fail together are one unit; what says nothing cannot show that a bound is kept."""
    score = Score()
    for _ in range(20):
        score.add([(0.4, 0.5)] * 4, 0.05)
    for _ in range(10):
        score.add([(0.4, 0.0), (0.0, 0.1)], 0.05)
    told = score.told()
    assert (told["checks"], told["violations"], told["units"], told["units_violated"]) == (100, 90, 30, 20)
    assert told["units_not_vacuous"] == 20
    assert told["p_too_many"] == pytest.approx(binom.sf(19, 30, 0.05))
    assert told["p_within"] == pytest.approx(1)


def test_the_city_is_a_distribution_and_overlaps_as_named() -> None:
    """The city's probabilities sum to 1, and its signals overlap wholly, in part, and not at all."""
    town = City.built(np.random.default_rng(0))
    assert town.shares.sum() == pytest.approx(1)
    assert (town.shares > 0).all()
    overlap = {
        name: benchmark._mean_overlap(town, [FeatureLabelPlanting(s, 0) for s in town.signals(name)])
        for name in benchmark.SIGNALS
    }
    assert overlap["same"] == 1
    assert 0 < overlap["partial"] < 1
    assert overlap["disjoint"] == 0
    with pytest.raises(ConfigError, match="Expected the overlap to be one of"):
        town.signals("none")


def test_nonsense_is_refused() -> None:
    """Sizes below 1 are refused with a sentence."""
    with pytest.raises(ConfigError, match="of 1 or more"):
        main(["--people", "0"])
    with pytest.raises(ConfigError, match="1 scenario or more"):
        scenarios(0, np.random.default_rng(0))


def test_the_document_takes_its_numbers_from_a_result(told: Any) -> None:
    """Tables come from a result and only from it, without one they say so, and a lost mark is refused."""
    document = (Path(__file__).parents[2] / "docs" / "training_time.md").read_text(encoding="utf-8")
    empty = filled(document, page.tables([]))
    assert list(page.tables([]).values()) == [MISSING] * 7
    found = [("multiple_collectives.json", told)]
    full = filled(document, page.tables(found))
    assert full.count("| equal | ") == 12
    assert "| pandas `iterrows` | " in full
    assert filled(full, page.tables([])) == empty
    (figure,) = page.figures(told).values()
    assert len(figure.axes) == 9
    with pytest.raises(ConfigError, match="Put them back"):
        filled(document.replace("<!-- city -->", ""), page.tables(found))


def test_the_document_says_what_the_checks_found() -> None:
    """The real result's counts of failures stand in the table, and its checks would have seen margins too small."""
    root = Path(benchmark.__file__).parents[1]
    kept = json.loads((root / "benchmarks" / "results" / "multiple_collectives.json").read_text(encoding="utf-8"))
    checks = page.tables([("multiple_collectives.json", kept)])["checks"]
    assert kept["quarter_margin_caught"]
    kinds, draws = kept["kinds_of_bounds"], kept["quarter_margins"]
    for said in (
        f"fail more often than with δ | {kept['failing_too_often']} of {kinds} |",
        f"shown to be below δ | {kept['shown_within_delta']} of {kinds} |",
        f"margins of a quarter fail | {draws['hoeffding']['quarter']['violations']} with Hoeffding's, "
        f"{draws['exact']['quarter']['violations']} with exact ones |",
        f"whole margins fail | {draws['hoeffding']['whole']['violations']} with Hoeffding's, ",
        f"{kept['tiers']['rare combinations']['not_vacuous']['exact']} with exact margins",
        f"{kept['full_below_worst']} of ",
    ):
        assert said in checks
    # What the checks rest on is said of all scenarios: nothing failed in the bounds that stand there one by one.
    assert kept["failing_too_often"] == 0
    assert checks in (root / "docs" / "training_time.md").read_text(encoding="utf-8")

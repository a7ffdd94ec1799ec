"""Tests of the simulation that says whether certificates keep their word, what they cost, and of its page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, boschloo_exact

from benchmarks import _false_claims as claims
from benchmarks import bounds
from benchmarks._certificate_costs import costs, tracks
from benchmarks._document import filled
from benchmarks._pages.certificates import tables
from benchmarks._power import boschloo_needs, improvement, mcnemar_power
from ttca.certificates import BATCH
from ttca.errors import ConfigError

_RESULTS = Path(bounds.__file__).parent / "results"
_DOCUMENT = Path(bounds.__file__).parents[1] / "docs" / "certificates.md"
#: What every configuration is told apart by, and the table of tests in which each must stand.
GOALS = {
    "parity",
    "improvement",
    "parity within 5 points",
    "0.8 times the reference accuracy",
    "a success rate of 0.85",
}


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Return a small run: configurations of at most 100 persons."""
    return bounds.main(["--actions", "60", "--persons", "100"])


def test_a_run_says_everything_and_is_plain_json(small: dict[str, Any]) -> None:
    """Errors, costs, power, coverage and seconds stand in the result, the largest beside the rows they come from."""
    assert json.loads(json.dumps(small)) == small
    rows = small["false_claims"]
    admitted = [r["rate"] for r in small["layouts"] if r["admitted"]]
    assert small["per_action_error"] == max(admitted + [r["rate"] for r in rows if r["stopping"] == "curtailed"])
    assert small["anytime_error"] == max(r["rate"] for r in rows if r["stopping"] != "curtailed")
    assert small["queries_ratio"] == max(r["curtailed_ratio"] for r in small["costs"]["tracks"])
    assert small["power"] == small["improvement"]["tests"]["McNemar"]["same"]
    assert small["interval_coverage"] == min(small["intervals"]["above_stated"].values())
    assert small["configurations"] == len(rows) + sum(r["admitted"] for r in small["layouts"])
    assert small["seconds"] > 0
    with pytest.raises(ConfigError, match="at least one"):
        bounds.main(["--actions", "0"])
    with pytest.raises(ConfigError, match="none with at most"):
        bounds.main(["--persons", "3"])


def test_every_test_and_every_hardship_is_among_the_configurations() -> None:
    """Each goal and design is simulated for each way of stopping that serves it; the truth lies at the bar."""
    cases = claims.CASES
    for stopping in ("curtailed", "anytime", "hybrid"):
        mine = [case for case in cases if case.terms.stopping == stopping]
        assert len(mine) >= 12
        assert {str(case.terms.aim) for case in mine} >= GOALS
        for goal in ("parity", "parity within 5 points"):
            assert {c.design for c in mine if str(c.terms.aim) == goal} == {"disjoint", "paired"}
        assert {c.world.dependence for c in mine if c.design == "paired"} >= {-0.9, 0.0, 0.3, 0.6, 0.9}
        assert {c.world.unresolved for c in mine} == {0.0, 0.01, 0.03}
        assert {len(c.world.success) for c in mine} >= {1, 3, 5, 8}
    ratios = [c.design for c in cases if c.terms.accuracy_ratio and c.terms.stopping == "curtailed"]
    assert set(ratios) == {"disjoint", "paired"}
    layouts = {(c.world.persons, c.world.images) for c in cases}
    assert layouts >= {(19, 15), (30, 10), (150, 2)}
    for case in cases:
        assert min(case.world.success) == case.bar
    assert len(set(map(json.dumps, (case.facts() for case in cases)))) == len(cases)


def test_false_claims_are_counted_and_judged_exactly() -> None:
    """A test at twice its error is called out, one at its error is not; a met goal is no false claim."""
    honest = claims._case(300, 0.85)
    met = claims._case(100, 0.5, works=1)
    loose = claims._case(300, 0.85, alpha=0.12)
    rows = claims.false_claims([honest, met, loose], 1500, 3)
    assert rows[0]["p"] > 0.001
    assert 0 < rows[0]["false_claims"] == rows[0]["claims"]
    assert rows[1]["false_claims"] == 0
    assert rows[1]["claims"] > 1400
    assert claims.judged(rows[2]["false_claims"], 1500)["p"] < 1e-6
    for row in rows[:1]:
        assert row["p"] == pytest.approx(binomtest(row["false_claims"], 1500, 0.05, "greater").pvalue)


def test_quoted_bounds_fail_no_oftener_than_they_say() -> None:
    """Bounds quoted after an early stop fail in at most five of a hundred actions, and do fail at times."""
    cases = [
        claims._case(100, 0.85, others=1, goal=0.85, stopping=stopping)
        for stopping in ("curtailed", "anytime", "hybrid")
    ]
    for row in claims.false_claims(cases, 3000, 1):
        assert 0 < row["bound_rate"] < 0.06


def test_the_wrong_ways_are_caught() -> None:
    """From the smallest ε upward, images as persons, and peeking are each seen to claim falsely too often."""
    rows = claims.wrong_ways(1200, 0)
    assert len(rows) == 3
    assert all(row["caught"] and row["rate"] > 0.08 for row in rows)


def test_layouts_that_err_are_not_admitted() -> None:
    """The approximate test of persons is left out where few persons stand against many, and measured elsewhere."""
    rows = {row["layout"]: row for row in claims.persons_in_layouts(3000, 0)}
    assert not rows["20 x 2 against 100 x 20"]["admitted"]
    assert rows["150 x 2"]["admitted"]
    assert rows["150 x 2"]["false_claims"] > 0


def test_costs_follow_from_the_rates_of_the_result_files(small: dict[str, Any]) -> None:
    """Every track has a row; a curtailed test never asks more than everybody, and asks at least a batch."""
    rows = small["costs"]["tracks"]
    assert len(rows) == len({row["track"] for row in rows}) == len(list(_RESULTS.glob("transfer-quick-*.json")))
    for row in small["costs"]["budgets"]:
        assert row["others"] + BATCH <= row["curtailed_queries"] <= row["whole_queries"]
        assert row["most_queries_ratio"] <= 1
        assert row["curtailed_row_queries"] > row["curtailed_queries"]
        assert ("curtailed_ratio_if_together" in row) == (row["design"] == "paired")
    assert small["row_queries_ratio"] == pytest.approx(np.mean([row["curtailed_row_ratio"] for row in rows]))
    for beside in (small["anytime_ratio"], small["hybrid_ratio"]):
        assert beside.keys() == {row["track"] for row in rows}


def test_a_certificate_that_names_its_people_is_read_as_such(tmp_path: Path) -> None:
    """Result files of certificates that count persons say who verified; older ones are read by the track's name."""
    numbers = {"epsilon": 4, "subgroup_after": 0.9, "subgroup_before": 0.7, "reference_before": 0.9}
    examined = {"design": "paired", "persons": 60, "others": 60, "images": 600}
    row = {"people": "final", "row": numbers, "certificate": {"family": [4], "examined": examined}}
    cell = {"regime": "own", "answers": "label", "queries": 100, "rows": [row]}
    path = tmp_path / "transfer-quick-tiny.json"
    path.write_text(json.dumps({"track": "fairface-tiny", "people": ["dev-test", "final"], "cells": [cell]}))
    (found,) = tracks(tmp_path)
    assert (found.design, found.others, found.epsilons, found.before) == ("paired", 60, (4,), 0.7)
    row["certificate"] = {"family": [4], "before": {"m": 50}, "reference": {"m": 70}}
    path.write_text(json.dumps({"track": "fairface-tiny", "people": ["dev-test", "final"], "cells": [cell]}))
    (found,) = tracks(tmp_path)
    assert (found.design, found.world.persons, found.others) == ("disjoint", 50, 70)
    # Fisher's test on 50 and 70 persons at equal rates: the first ε is the only one, so everybody is 120 queries.
    said = costs([found], 50, 0)
    assert said["tracks"][0]["whole_queries"] == 120
    assert said["tracks"][0]["row_queries_before"] == 120 + 50 + 350 + 70


def test_the_power_of_pairs_is_exact() -> None:
    """McNemar's power is that of all tables enumerated, and 299 persons reach nine in ten, where others do not."""
    total = 0.0
    for won in range(13):
        for lost in range(13 - won):
            ways = math.factorial(12) / (math.factorial(won) * math.factorial(lost) * math.factorial(12 - won - lost))
            tail = sum(math.comb(won + lost, k) for k in range(won, won + lost + 1)) / 2 ** (won + lost)
            if tail <= 0.05:
                total += ways * 0.4**won * 0.1**lost * 0.5 ** (12 - won - lost)
    assert mcnemar_power(12, 0.4, 0.1) == pytest.approx(total, abs=1e-12)
    said = improvement(4000, 0)
    tests = said["tests"]
    assert said["power"] >= 0.9
    assert tests["McNemar"]["simulated"] == pytest.approx(said["power"], abs=0.02)
    assert tests["two bounds at alpha / 2"]["same"] < tests["Fisher"]["same"] <= tests["Boschloo"]["same"] < 0.9


def test_boschloo_is_scipys() -> None:
    """The fewest right answers that pass are those of scipy's test, for each number right of the others."""
    needs = boschloo_needs(12, 0.05)
    for others in range(13):
        passes = [
            boschloo_exact([[x, others], [12 - x, 12 - others]], "greater", n=64).pvalue <= 0.05 for x in range(13)
        ]
        assert needs[others] == (passes.index(True) if any(passes) else 13)


def test_the_page_shows_the_result_file(small: dict[str, Any]) -> None:
    """Without a result the page has no number; tables fit, each with at most nine columns."""
    document = _DOCUMENT.read_text(encoding="utf-8")
    record = {**small, "arguments": ["--actions", "60"], "commit": "abc", "hardware": {}}
    full = filled(document, tables([("bounds.json", record)]))
    assert "commit abc" in full
    assert filled(full, tables([("bounds.json", record)])) == full
    assert "*Not measured yet.*" in filled(document, tables([]))
    lines = [line for line in full.splitlines() if line.startswith("|")]
    assert max(line.count("|") - 1 for line in lines) <= 9


def test_the_kept_result_holds() -> None:
    """The kept run has at least 20,000 actions a configuration, all within their error, and each wrong way caught."""
    record = json.loads((_RESULTS / "bounds.json").read_text(encoding="utf-8"))
    assert record["actions"] >= 20_000
    assert record["within_error"]
    assert record["wrong_ways_caught"]
    assert record["queries_ratio"] <= record["most_queries_ratio"] <= 1
    assert record["power"] >= 0.9
    assert record["interval_coverage"] >= -0.02

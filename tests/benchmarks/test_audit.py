"""Tests of the simulation that says whether audits, discoveries and plans keep their word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import audit
from benchmarks._audit_simulation import discovery_power, plan_power, two_groups
from benchmarks._document import MISSING
from benchmarks._pages.audit import recheck_tables
from ttca.errors import ConfigError
from ttca.statistics.binomial import clopper_pearson_upper

_RESULT = Path(audit.__file__).parent / "results" / "audit.json"


def test_simulated_audits_say_what_they_should() -> None:
    """Intervals of every kind are counted, gaps are claimed where there is none at most now and then."""
    found = two_groups(56, 0)
    assert found == two_groups(56, 0)
    assert json.loads(json.dumps(found)) == found
    assert {"gap", "accuracy of the subgroup", "refusals of the reference", "equalized_odds_ratio"} <= found[
        "by_kind"
    ].keys()
    assert found["coverage"] == min(found["by_kind"].values())
    assert found["two_group_error"] == max(found["error_by_design"].values()) <= 0.2


def test_a_planted_group_is_found_more_often_than_by_a_split() -> None:
    """A fifth of the people, 15 points worse, one of 20 groups, is found in most of a few simulations."""
    found = discovery_power(20, 0, share=0.2, gap=0.15)
    assert found["candidates"] == 20
    assert found["discovered"] >= max(0.7, found["split_discovered"] - 0.1)
    assert discovery_power(3, 0, share=0.2, gap=0.0)["discovered"] is None


@pytest.mark.full
def test_plans_are_compared_with_certificates_of_simulated_actions() -> None:
    """Every goal and design is planned and simulated, and differs by no more than a few simulated actions may."""
    found = plan_power(2000, 0)
    assert len({(row["goal"], row["stopping"], row["design"]) for row in found["plans"]}) == 11
    assert found["plan_power_error"] <= 0.05


def test_the_kept_result_keeps_its_word() -> None:
    """Coverage, errors, discovery and power of the kept result are as promised, the table whole."""
    kept = json.loads(_RESULT.read_text())
    assert kept["audits"] >= 2000
    assert kept["coverage"] >= 0.93
    assert kept["two_group_error"] <= 0.05
    assert kept["discovered"] >= 0.8
    assert kept["false_discovery"] <= 0.05
    assert kept["discovered"] > kept["power_of_a_split"]
    assert kept["plan_power_error"] <= 0.02
    assert np.isclose(kept["seen"], 0.8, atol=0.06)
    assert {(row["share"], row["gap"]) for row in kept["planted"] if row["gap"]} == {
        (share, gap) for share in (0.1, 0.2, 0.3) for gap in (0.05, 0.1, 0.15)
    }


def test_the_kept_rechecks_keep_their_word() -> None:
    """A swap of 3 % is found within 250 queries, one alarm in 1,000 looks is rare, the curve is whole."""
    kept = json.loads(_RESULT.read_text())
    assert kept["recheck_queries"] + 2 * kept["recheck_curve"][0]["standard_error"] <= 250
    assert kept["recheck_false_alarms"] <= 0.01
    assert kept["recheck_looks"] == 1000
    # Ville's inequality holds of each kind, so that all series together say more than one kind's.
    series = sum(row["series"] for row in kept["recheck_steady"])
    alarms = sum(round(row["false_alarms"] * row["series"]) for row in kept["recheck_steady"])
    assert clopper_pearson_upper(alarms, series, 0.05) <= 0.01
    assert {row["moved"] for row in kept["recheck_curve"]} >= {0.01, 0.02, 0.03, 0.05, 0.1}
    assert {row["noisy"] for row in kept["recheck_curve"]} >= {0.0, 0.01, 0.02, 0.05}


def test_no_audits_are_a_sentence() -> None:
    """Asking for nothing is refused."""
    with pytest.raises(ConfigError, match="at least one"):
        audit.main(["--audits", "0"])


def test_a_part_alone_is_kept_apart_and_its_page_is_made_of_it() -> None:
    """Rechecks alone have a file and a page of their own, and do not overwrite what all parts together found."""
    found = audit.main(["--parts", "rechecks", "--swaps", "2", "--series", "1", "--looks", "5"])
    assert found["file"] == "audit-rechecks"
    assert "coverage" not in found
    record = {"commit": "0", "arguments": [], "hardware": {}, **found}
    text = recheck_tables([("audit-rechecks.json", record)])["recheck"]
    assert text.count("\n|") >= len(found["recheck_curve"]) + len(found["recheck_steady"])
    assert recheck_tables([]) == {"recheck": MISSING}

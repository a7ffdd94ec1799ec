"""The hostile benchmark measures what it says, on a small pool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import _adaptive, hostile
from benchmarks._adaptive import KINDS, Pool
from ttca.pooling.settling import CheckPlan

KEYS = ("flagged_hostile", "false_flag_runs", "queries_before_flag", "fidelity_loss")


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Run one pool of ten members, two of whom lie."""
    return hostile.main(["--runs=1", "--collusions=0", "--members=10", "--adaptives=1", "--images=60", "--sizes"])


@pytest.mark.parametrize("kind", [*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.full) for kind in KINDS[2:])])
def test_liars_who_know_the_checks_achieve_little(kind: str) -> None:
    """On the real desk hardly an accepted answer is wrong, no honest member is set aside, and no image is given up."""
    found = _adaptive.play(Pool(kind, members=20, images=200, seed=1))
    assert found["wrong_accepted"] <= 0.03
    assert found["honest_set_aside"] == found["images_given_up"] == 0
    assert found["targets"] > 0


def test_lies_that_nobody_checks_are_accepted() -> None:
    """The measure sees what it is to see: without cross-checks a liar's answers are wrong answers."""
    found = _adaptive.play(Pool("ring", members=10, images=60, seed=0, plan=CheckPlan(judged=0, share=0.0)))
    assert found["wrong_in_targets"] > 0.05
    assert found["cross_check_share"] == 0


@pytest.mark.full
def test_wrong_answers_stay_few_in_a_large_pool() -> None:
    """Of each kind, in pools of 50 members and 1,000 images, at most 5 % of accepted answers are wrong."""
    for kind in KINDS:
        found = _adaptive.play(Pool(kind, seed=100))
        assert found["wrong_accepted"] <= 0.05, kind
        assert found["honest_set_aside"] == found["images_given_up"] == 0, kind


@pytest.mark.full
def test_every_number_is_there_and_plain_json(small: dict[str, Any]) -> None:
    """The stated keys are numbers, and the whole can be kept as a file."""
    assert all(isinstance(small[key], float) for key in KEYS)
    assert json.loads(json.dumps(small, allow_nan=False)) == small
    assert [entry["kind"] for entry in small["adaptive"]] == list(KINDS)
    assert small["adaptive_without_liars"]["runs"] == 1


@pytest.mark.full
def test_liars_are_found_in_a_small_pool_too(small: dict[str, Any]) -> None:
    """Both liars are flagged, nobody honest is, and hardly a wrong answer is kept beyond the platform's own noise."""
    (run,) = small["runs"]
    assert len(run["queries_before_flag"]) == 2
    assert run["honest_flagged"] == 0
    assert run["wrong_accepted"] <= 0.03

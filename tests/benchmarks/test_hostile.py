"""The hostile benchmark measures what it says, on a small pool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import hostile

KEYS = ("flagged_hostile", "false_flag_runs", "queries_before_flag", "fidelity_loss")


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """Run one pool of ten members, two of whom lie."""
    return hostile.main(["--runs=1", "--collusions=0", "--members=10"])


@pytest.mark.full
def test_every_number_is_there_and_plain_json(small: dict[str, Any]) -> None:
    """The stated keys are numbers, and the whole can be kept as a file."""
    assert all(isinstance(small[key], float) for key in KEYS)
    assert json.loads(json.dumps(small, allow_nan=False)) == small


@pytest.mark.full
def test_liars_are_found_in_a_small_pool_too(small: dict[str, Any]) -> None:
    """Both liars are flagged, nobody honest is, and hardly a wrong answer is kept beyond the platform's own noise."""
    (run,) = small["runs"]
    assert len(run["queries_before_flag"]) == 2
    assert run["honest_flagged"] == 0
    assert run["wrong_accepted"] <= 0.03

"""Tests of the report's first screen: for every goal and every outcome, its sentences say what is so and no more."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from tests.evidence.test_check import GOALS, made
from tests.report.test_report import _run
from ttca.certificates import Certificate
from ttca.goals import Stopping
from ttca.report.plain import PlainWords, Provenance
from ttca.row import Row

AROUND = Provenance(subgroup="people with a bad camera", service="tiny")


@pytest.fixture(scope="module")
def row() -> Row:
    """Return a row of a subgroup that is served worse."""
    found: Row = _run().row
    return dataclasses.replace(found, subgroup_before=0.5, reference_before=0.8, gap_before=0.3, abuse_rate=0.25,
                               intervals={"gap_before": [0.1, 0.45]})  # fmt: skip


def passed(certificate: Certificate | None) -> bool:
    """Whether there is one that passed."""
    return certificate is not None and certificate.epsilon is not None


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize("stopping", ["curtailed", "anytime"])
def test_every_goal_is_said_in_plain_words(goal: dict[str, Any], stopping: Stopping, row: Row) -> None:
    """What was proved, about how many people, and how often such a claim is wrong; or that nothing was proved."""
    claims = {
        "parity": "at least as often as for the others",
        "improvement": "more often than without it",
        "rate": "at least 80\u00a0% of all cases",
        "within": "at most 5 points less often than for the others",
        "accuracy_ratio": "at least 90\u00a0% as often as for the others",
    }
    found = [made(goal, stopping, "disjoint", seed=seed) for seed in range(12)]
    certificates = [c for c in found if c is not None]
    assert {passed(c) for c in certificates} == {True, False}
    for certificate in certificates:
        words = PlainWords.of(row, certificate, AROUND)
        assert claims[certificate.terms.aim.kind] in words.proved
        assert ("1 in 20 such actions would claim this wrongly" in words.proved) is passed(certificate)
        assert words.proved.startswith("Nothing was proved") is not passed(certificate)
        assert f"{certificate.persons_asked:,} p" in words.proved
        assert ("25.0\u00a0%" in " ".join(words.limits)) is passed(certificate)
        assert not re.search(r"\bnan\b|\bNone\b(?! of)|[δε]", words.found + words.proved)


@pytest.mark.parametrize(
    ("changes", "sentence", "gap"),
    [
        (
            {},
            "That is a gap of 30.0\u00a0points. With 95\u00a0% confidence it lies between 10.0 and 45.0\u00a0points",
            True,
        ),
        ({"intervals": {"gap_before": [-0.1, 0.5]}}, "No gap was shown: among so few people", False),
        (
            {"gap_before": -0.2, "subgroup_before": 1.0, "intervals": {"gap_before": [-0.3, -0.1]}},
            "served better",
            False,
        ),
        ({"subgroup_before": math.nan, "gap_before": math.nan}, "could not be compared. No gap was shown", False),
        ({"intervals": {}, "gap_closed": math.nan}, "No gap was shown", False),
    ],
)
def test_a_gap_is_claimed_only_where_it_was_shown(changes: dict[str, Any], sentence: str, gap: bool, row: Row) -> None:
    """Where the interval holds 0, the subgroup is ahead, or nothing was answered, it says so plainly."""
    certificate = made({"goal": "parity"}, "curtailed", "disjoint", seed=1)
    assert certificate is not None
    words = PlainWords.of(dataclasses.replace(row, **changes), certificate, AROUND)
    assert sentence in words.found
    assert words.gap is gap


@pytest.mark.parametrize(
    ("around", "when", "allowed"),
    [
        ({"first": "2026-01-02", "last": "2026-02-03", "authorized_by": "the owner, in writing"},
         "2026-01-02 to 2026-02-03", "the owner, in writing"),
        ({"first": "2026-01-02", "last": "2026-01-02"}, "2026-01-02", "nobody is named"),
        ({}, "not on record", "nobody is named"),
    ],
)  # fmt: skip
def test_dates_and_authorization_are_said(around: dict[str, Any], when: str, allowed: str) -> None:
    """Between which days the service was asked, and who allowed it."""
    found = Provenance(subgroup="", **around)
    assert found.when == when
    assert found.who_allowed.startswith(allowed)

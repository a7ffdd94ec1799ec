"""Tests that many simulated certificates at once say and cost what the product's own do, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks._many_certificates import certify_many
from benchmarks._simulated_actions import Answered, Setting, draw
from ttca.certificates import Condition, Examined, certify
from ttca.goals import Certifying, Design

GOALS: list[dict[str, Any]] = [{}, {"goal": "improvement"}, {"within": 0.1}, {"accuracy_ratio": 0.8}, {"goal": 0.7}]
CASES = [
    (goal, stopping, design)
    for goal in GOALS
    for stopping in ("curtailed", "anytime", "hybrid")
    for design in ("disjoint", "paired")
    if not (
        ("accuracy_ratio" in goal and design == "paired" and stopping != "curtailed")
        # Before and after are always the same persons; a rate compares with nobody.
        or (goal == {"goal": "improvement"} and design == "disjoint")
        or (goal == {"goal": 0.7} and design == "paired")
    )
]


def one_by_one(terms: Certifying, design: Design, answers: Answered, action: int) -> list[tuple[int, bool]]:
    """Return what the product's own certificate says of one action: persons asked and verdict of every tested ε."""
    _, levels, persons = answers.outcomes.shape
    compared = terms.aim.compares_with
    held: dict[Condition, str] = {
        i + 1: "".join("01"[int(a)] for a in answers.outcomes[action, i]) for i in range(levels)
    }
    if compared is not None:
        held[compared] = "".join("01"[int(a)] for a in answers.reference[action])
    others = answers.reference.shape[1] if compared == "reference" else persons
    said = certify(
        lambda condition, start, stop: held[condition][start:stop],
        terms,
        epsilons=range(1, levels + 1),
        examined=Examined(design, persons, others, persons),
    )
    return [(len(said.baseline), True), *((test.asked, test.passed) for test in said.tests)]


@pytest.mark.parametrize(("goal", "stopping", "design"), CASES)
def test_many_at_once_are_the_products_certificates(goal: dict[str, Any], stopping: Any, design: Design) -> None:
    """For every goal, design and stopping: the same verdict, and the same persons asked, action by action."""
    terms = Certifying(**goal, stopping=stopping)
    persons = 50
    # The largest ε often passes, the smallest seldom.
    setting = Setting((0.75, 0.88, 0.98), 0.7, persons, None, alike=0.8, dependence=0.4, unresolved=0.02)
    if design == "disjoint":
        setting = replace(setting, reference_persons=80, dependence=0.0)
    answers = draw(setting, 14, np.random.default_rng(5))
    many = certify_many(terms, design, answers)
    for action in range(14):
        tested = int(many.tested[action])
        found = [(int(many.baseline[action]), True)]
        found += [(int(many.asked[i, action]), bool(many.passed[i, action])) for i in range(tested)]
        assert found == one_by_one(terms, design, answers, action)
        assert many.queries[action] == sum(asked for asked, _ in found)
        assert many.quoted[action] == max(sum(passed for _, passed in found[1:]) - 1, 0)
    assert many.claimed.sum() > 0
    assert not many.passed.all()

"""Tests that many simulated certificates at once say and cost what the product's own do, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks._many_certificates import certify_many
from benchmarks._simulated_actions import Images, Simulated, World, answers_of_images, simulated
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


def one_by_one(terms: Certifying, design: Design, answers: Simulated, action: int) -> list[tuple[int, bool]]:
    """Return what the product's own certificate says of one action: persons asked and verdict of every tested ε."""
    levels, _, persons = answers.right.shape
    compared = terms.aim.compares_with
    held: dict[Condition, str] = {
        levels - i: "".join("01"[int(a)] for a in answers.right[i, action]) for i in range(levels)
    }
    if compared is not None:
        held[compared] = "".join("01"[int(a)] for a in answers.baseline[action])
    others = answers.baseline.shape[1] if compared == "reference" else persons
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
    others = {"paired": persons, "disjoint": 80}[design] if terms.aim.compares_with else 0
    # The largest ε often passes, the smallest seldom.
    world = World(design, persons, others, 0.75, (0.93, 0.85, 0.75), together=0.4, unresolved=0.02)
    answers = simulated(world, 14, np.random.default_rng(5))
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


def test_simulated_people_are_as_they_are_said_to_be() -> None:
    """Rates, dependence, unresolved answers and images of one person are those of the world."""
    world = World("paired", 400, 400, 0.8, (0.9, 0.9), together=0.9, alike=1.0)
    rng = np.random.default_rng(0)
    drawn = simulated(world, 500, rng)
    assert drawn.right.shape == (2, 500, 400)
    assert drawn.right.mean() == pytest.approx(0.9, abs=0.003)
    assert drawn.baseline.mean() == pytest.approx(0.8, abs=0.003)
    assert (drawn.right[0] == drawn.right[1]).all()

    def together(answers: Simulated) -> float:
        return float(np.corrcoef(answers.right[0].ravel(), answers.baseline.ravel())[0, 1])

    assert together(drawn) > 0.5
    assert together(simulated(replace(world, together=-0.9), 500, rng)) < -0.1
    assert abs(together(simulated(replace(world, design="disjoint"), 500, rng))) < 0.01
    doubtful = simulated(replace(world, unresolved=0.1), 500, rng)
    assert doubtful.right.mean() == pytest.approx(0.9 * 0.9, abs=0.003)
    assert doubtful.baseline.mean() == pytest.approx(0.8 + 0.2 * 0.1, abs=0.003)
    several = replace(world, design="disjoint", persons=30, others=40, images=Images(5, 2, 0.8), success=(0.9,))
    assert simulated(several, 200, rng).right.shape == (1, 200, 30)
    every = answers_of_images(several, 200, rng)
    assert every.right.shape == (1, 200, 150)
    assert every.baseline.shape == (200, 80)
    # Two images of one person agree more often than those of two persons.
    assert (every.right[0, :, 0] == every.right[0, :, 1]).mean() > (every.right[0, :, 0] == every.right[0, :, 5]).mean()

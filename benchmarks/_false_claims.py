"""How often certificates claim what is not true: actions simulated where claims are easiest to get wrong.

In every configuration the truth lies exactly at the bar (S = A, A - d or r·A), so that every claim about such an ε is
false. Three ways that people are tempted to take are simulated beside: each must be seen to break its word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import binom

from benchmarks._many_certificates import Certified, bar_crossings, certify_many
from benchmarks._simulated_actions import Answered, Setting, draws, one_image_each
from ttca.certificates import BATCH
from ttca.goals import Certifying, Design
from ttca.statistics.binomial import fewest
from ttca.statistics.clustered import layout_size
from ttca.statistics.comparisons import fisher_p
from ttca.trials import ON_THE_WAY

__all__ = ["CASES", "Case", "false_claims", "persons_in_layouts", "wrong_ways"]

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
#: Values of certificates simulated at once: about as many bytes are held a few times over.
_AT_ONCE = 3_000_000
#: What the approximate test of persons claims at, to stay within .05; layouts in which it does not are left out.
PERSONS_ALPHA = 0.04


@dataclass(frozen=True)
class Case:
    """One configuration: how it is certified, and what is true. An ε whose S is above ``bar`` does meet the goal."""

    terms: Certifying
    world: Setting

    @property
    def bar(self) -> float:
        """The S below or at which the goal is not met."""
        return _bar(self.terms, self.world.accuracy)

    @property
    def design(self) -> Design:
        """Whether the same persons are seen in both conditions."""
        return "paired" if self.world.reference_persons is None else "disjoint"

    @property
    def others(self) -> int:
        """Persons whom the goal compares with."""
        return (self.world.reference_persons or self.world.persons) if self.terms.aim.compares_with else 0

    def facts(self) -> dict[str, Any]:
        """Return what tells this configuration from others, as plain JSON values."""
        world = self.world
        several = max(world.images, world.reference_images or 1) > 1
        return {
            "goal": str(self.terms.aim),
            "design": self.design,
            "stopping": self.terms.stopping,
            "persons": world.persons,
            "others": self.others,
            "accuracy": world.accuracy,
            "success": [round(s, 6) for s in world.success],
            "together": world.dependence if self.design == "paired" else None,
            "unresolved": world.unresolved,
            "images": [world.images, world.reference_images or world.images] if several else None,
            "icc": world.icc if several else None,
        }


def _bar(terms: Certifying, accuracy: float) -> float:
    value = terms.aim.value or 0.0
    bars = {"within": accuracy - value, "accuracy_ratio": value * accuracy, "rate": value}
    return bars.get(terms.aim.kind, accuracy)


def _case(
    persons: int,
    accuracy: float,
    at: Mapping[str, Any] | None = None,
    *,
    others: int | None = None,
    family: int = 1,
    works: int = 0,
    **goal: Any,
) -> Case:
    """Return a configuration whose ε lie at the bar, but for the largest ``works`` of them, which do meet the goal.

    ``others`` is as many persons, unless ``at`` says how the two answers of the same persons go together.
    """
    terms, more = Certifying(**goal), {"alike": 0.8, **(at or {})}
    bar = _bar(terms, accuracy)
    success = tuple(bar + 0.8 * (1 - bar) if i >= family - works else bar for i in range(family))
    paired = "dependence" in more
    return Case(terms, Setting(success, accuracy, persons, None if paired else others or persons, **more))


def _pairs(together: float, **more: Any) -> dict[str, Any]:
    return {"dependence": together, **more}


def _both(stopping: str) -> Iterator[Case]:
    """Yield what is simulated for every way of stopping."""
    how: dict[str, Any] = {"stopping": stopping}
    yield _case(100, 0.5, **how)
    yield _case(300, 0.85, **how)
    yield _case(800, 0.95, **how)
    yield _case(272, 0.85, others=1727, **how)
    for together in (-0.9, 0.0, 0.3, 0.6, 0.9):
        yield _case(300, 0.85, _pairs(together), **how)
    yield _case(100, 0.5, _pairs(0.0), **how)
    yield _case(300, 0.7, _pairs(0.6), goal="improvement", **how)
    yield _case(100, 0.7, within=0.05, **how)
    yield _case(300, 0.85, within=0.05, **how)
    yield _case(100, 0.7, _pairs(0.3), within=0.05, **how)
    for together in (-0.9, 0.6):
        yield _case(300, 0.85, _pairs(together), within=0.05, **how)
    yield _case(100, 0.95, accuracy_ratio=0.8, **how)
    yield _case(300, 0.85, accuracy_ratio=0.8, **how)
    yield _case(300, 0.85, others=1, goal=0.85, **how)
    yield _case(100, 0.95, others=1, goal=0.95, **how)
    for unresolved in (0.01, 0.03):
        yield _case(300, 0.85, {"unresolved": unresolved}, **how)
        yield _case(300, 0.85, _pairs(0.6, unresolved=unresolved), **how)
    # Families whose ε are answered by the same persons; in some, the largest ε do reach parity.
    yield _case(100, 0.85, family=3, **how)
    yield _case(100, 0.7, family=3, within=0.05, **how)
    yield _case(100, 0.95, family=4, accuracy_ratio=0.8, **how)
    yield _case(300, 0.7, family=8, **how)
    yield _case(300, 0.7, family=5, works=2, **how)
    yield _case(300, 0.85, _pairs(0.3, alike=1.0), family=3, **how)
    yield _case(100, 0.7, _pairs(0.6), family=8, works=3, **how)


def _curtailed() -> Iterator[Case]:
    yield _case(800, 0.95, _pairs(0.3))
    yield _case(800, 0.5, _pairs(-0.9), goal="improvement")
    yield _case(300, 0.85, _pairs(0.6), accuracy_ratio=0.8)
    yield _case(100, 0.95, _pairs(0.0), accuracy_ratio=0.8)
    # One image of each person is drawn: what the others would have shown must not matter.
    for persons, images, icc in ((19, 15, 0.05), (19, 15, 0.3), (30, 10, 0.3), (150, 2, 0.05), (150, 2, 0.3)):
        yield _case(persons, 0.7, {"images": images, "icc": icc})
    yield _case(20, 0.85, {"images": 2, "reference_images": 20, "icc": 0.3}, others=100)
    yield _case(150, 0.85, _pairs(0.3, images=2, icc=0.3))


#: Every configuration, those that stop with an e-value after those that do not.
CASES: tuple[Case, ...] = (*_both("curtailed"), *_curtailed(), *_both("anytime"), *_both("hybrid"))


def false_claims(cases: Sequence[Case], actions: int, seed: int) -> list[dict[str, Any]]:
    """Return how many actions of every configuration claimed falsely, and how often a quoted bound did not hold.

    Parameters
    ----------
    cases : sequence of Case
    actions : int
        Simulated in each.
    seed : int

    Returns
    -------
    list of dict
        ``false_claims``: actions that certified an ε whose goal is not met. ``bound_failures``: actions whose quoted
        lower bound lies above S. ``p``: exact, one-sided, of "at most alpha of the claims are false".
    """
    rows = []
    for number, case in enumerate(cases):
        # A stream for each, so that a new configuration changes none.
        rng = np.random.default_rng([seed, number])
        world = case.world
        size = len(world.success) * world.persons * world.images + max(1, case.others) * (world.reference_images or 1)
        claims = broken = certified = 0
        for images in draws(world, actions, rng, max(1, min(actions, _AT_ONCE // size))):
            answers = one_image_each(world, images, rng)
            many = certify_many(case.terms, case.design, answers)
            unmet = np.array([s <= case.bar for s in reversed(world.success)])
            claims += int(np.count_nonzero((many.passed & unmet[:, None]).any(axis=0)))
            certified += int(np.count_nonzero(many.claimed))
            broken += int(np.count_nonzero(_bound_fails(case, many, answers)))
        rows.append({**case.facts(), **judged(claims, actions, case.terms.alpha), "claims": certified,
                     "bound_failures": broken, "bound_rate": broken / actions})  # fmt: skip
    return rows


def judged(claims: int, actions: int, alpha: float = 0.05) -> dict[str, Any]:
    """Return a count of false claims with its rate, and the exact one-sided p of "the rate is at most alpha"."""
    return {
        "actions": actions,
        "false_claims": claims,
        "rate": claims / actions,
        "p": float(binom.sf(claims - 1, actions, alpha)),
    }


def _bound_fails(case: Case, many: Certified, answers: Answered) -> Flags:
    """Return in which actions the lower bound, as quoted for the ε that the answers chose, lies above its S."""
    alpha, persons = case.terms.alpha / len(case.world.success), case.world.persons
    way = ON_THE_WAY * alpha
    shares = {"curtailed": (alpha, 0.0), "anytime": (0.0, alpha), "hybrid": (alpha - way, way)}
    fixed, running = shares[case.terms.stopping]
    fails = np.zeros(len(many.quoted), np.bool_)
    for level, rate in enumerate(reversed(case.world.success)):
        here = many.quoted == level
        counts = np.cumsum(answers.outcomes[here, -1 - level], axis=1)
        asked = many.asked[level, here]
        broken = np.zeros(len(counts), np.bool_)
        if fixed:
            # Who was not asked counts as wrong. The bound exceeds S from this many right answers on.
            exceeds = _exceeding(persons, rate, fixed)
            broken |= np.take_along_axis(counts, asked[:, None] - 1, axis=1)[:, 0] >= exceeds
        if running:
            crossed = counts >= bar_crossings(rate, running, persons)[1:]
            broken |= (crossed & (np.arange(1, persons + 1) <= asked[:, None])).any(axis=1)
        fails[here] = broken
    return fails


def _exceeding(persons: int, rate: float, alpha: float) -> int:
    bounds = betaincinv(np.arange(1, persons + 1), persons - np.arange(persons), alpha)
    return int(np.count_nonzero(bounds <= rate)) + 1


# --- all images of all persons ---------------------------------------------------------------------------------

_LAYOUTS = (("19 x 15", [15] * 19, [15] * 19), ("30 x 10", [10] * 30, [10] * 30), ("150 x 2", [2] * 150, [2] * 150),
            ("20 x 2 against 100 x 20", [2] * 20, [20] * 100))  # fmt: skip
_RATES, _ICC = (0.5, 0.7, 0.85, 0.95), (0.05, 0.1, 0.3)


def persons_in_layouts(actions: int, seed: int) -> list[dict[str, Any]]:
    """Return how often the approximate test of persons claims falsely, in layouts that it is admitted to.

    A layout is admitted where the greatest simulated size, over rates and over how alike one person's images are, is
    within .05. Admitted ones are simulated anew, at the worst of these cases.
    """
    rows = []
    for number, (name, images, reference) in enumerate(_LAYOUTS):
        rng = np.random.default_rng([seed, 0x6C61796F, number])
        cases = list(itertools.product(_RATES, _ICC))
        sizes = [layout_size(images, reference, PERSONS_ALPHA, [r], [a], actions, rng) for r, a in cases]
        worst = cases[int(np.argmax(sizes))]
        row = {"layout": name, "test_alpha": PERSONS_ALPHA, "size": max(sizes), "admitted": max(sizes) <= 0.05,
               "accuracy": worst[0], "icc": worst[1]}  # fmt: skip
        if row["admitted"]:
            again = layout_size(images, reference, PERSONS_ALPHA, [worst[0]], [worst[1]], actions, rng)
            row |= judged(round(again * actions), actions)
        rows.append(row)
    return rows


# --- what must be seen to break its word -------------------------------------------------------------------------


def wrong_ways(actions: int, seed: int, alpha: float = 0.05) -> list[dict[str, Any]]:
    """Return how often three tempting ways claim falsely: a check that cannot fail would show nothing.

    Returns
    -------
    list of dict
        ``caught``: whether the rate is above alpha beyond any doubt (one-sided exact p below .001).
    """
    ways = {
        "from the smallest ε upward until one passes": _smallest_first,
        "every image counts as a person": _images_as_persons,
        "the fixed test after every batch, until it passes": _peeking,
    }
    rows = []
    for number, (name, way) in enumerate(ways.items()):
        claims = way(actions, np.random.default_rng([seed, 0x77726F6E, number]), alpha)
        row = judged(claims, actions, alpha)
        rows.append({"way": name, **row, "caught": row["p"] < 0.001})
    return rows


def _smallest_first(actions: int, rng: np.random.Generator, alpha: float) -> int:
    world = _case(300, 0.7, family=8).world
    claims = 0
    for answers in draws(world, actions, rng):
        # Each ε alone, as if it were the only one: whichever passes first is claimed.
        alone = [Answered(answers.reference, answers.outcomes[:, [level]]) for level in range(len(world.success))]
        claimed = [certify_many(Certifying(alpha=alpha), "disjoint", one).claimed for one in alone]
        claims += int(np.count_nonzero(np.any(claimed, axis=0)))
    return claims


def _images_as_persons(actions: int, rng: np.random.Generator, alpha: float) -> int:
    world = _case(19, 0.7, {"images": 15, "icc": 0.3}).world
    many = (certify_many(Certifying(alpha=alpha), "disjoint", images) for images in draws(world, actions, rng))
    return sum(int(np.count_nonzero(one.claimed)) for one in many)


def _peeking(actions: int, rng: np.random.Generator, alpha: float) -> int:
    world = _case(300, 0.85).world
    looks = [*range(BATCH, world.persons, BATCH), world.persons]
    claims = 0
    for answers in draws(world, actions, rng):
        running = np.cumsum(answers.outcomes[:, 0], axis=1)[:, np.array(looks) - 1]
        others = answers.reference.shape[1]
        counts, place = np.unique(answers.reference.sum(axis=1), return_inverse=True)
        least = np.array([[_fisher_needs(m, int(k), others, alpha) for m in looks] for k in counts])
        claims += int(np.count_nonzero((running >= least[place]).any(axis=1)))
    return claims


def _fisher_needs(m: int, reference_right: int, others: int, alpha: float) -> int:
    needed = fewest(m, lambda k: fisher_p(k, m, reference_right, others) <= alpha)
    return m + 1 if needed is None else needed

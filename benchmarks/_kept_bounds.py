"""Are bounds kept, and would it be seen if they were not: violations counted, tested, and provoked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_args

import numpy as np

from ttca.training_time.bounds import (
    Collective,
    Setting,
    SuccessBound,
    Tier,
    TotalSize,
    every_bound,
    planting_bound,
    shared_bound,
)
from ttca.training_time.margins import Margins
from ttca.training_time.platform import CountArgmax
from ttca.training_time.signals import Domain, FeatureLabelPlanting, Planting, Signal

__all__ = ["LEVEL", "Score", "Tiers", "chance_of", "quarter_margins"]

Found = Mapping[tuple[Margins, Tier], Sequence[SuccessBound]]

#: A test rejects at this level.
LEVEL = 0.05
#: Values of one bound, computed in two orders, may differ by so much.
_ROUNDING = 1e-9
_MANY = 1_000_000


def chance_of(violations: int, deltas: Sequence[float]) -> tuple[float, float]:
    """Return the chances of so few and of so many violations, or even fewer and more, if each unit failed with its δ.

    Parameters
    ----------
    violations : int
    deltas : sequence of float
        δ of each independent unit.

    Notes
    -----
    The exact distribution of a sum of independent draws with different chances: the binomial test where all δ are one.
    A unit that fails less often than δ makes fewer violations likelier, and more less likely. *Ours*.
    """
    chances = np.ones(1)
    for delta in deltas:
        chances = np.convolve(chances, (1 - delta, delta))
    # Their sum is 1 but for rounding.
    return min(1.0, float(chances[: violations + 1].sum())), min(1.0, float(chances[violations:].sum()))


@dataclass
class Score:
    """How often success fell short of one kind of bound.

    Checks of one scenario share its platform, and fail together. Its first check is the unit of the test: scenarios are
    independent draws.
    """

    checks: int = 0
    not_vacuous: int = 0
    violations: int = 0
    allowed: float = 0.0
    """Violations that the stated δ would allow among the checks that said something, on average."""
    units: list[tuple[bool, bool, float]] = field(default_factory=list)
    """Of each scenario's first check: whether it said something, whether it failed, its δ."""

    def add(self, checks: Iterable[tuple[float, float]], delta: float) -> None:
        """Count the checks of one scenario: what came, and its bound."""
        for place, (success, bound) in enumerate(checks):
            self.checks += 1
            self.violations += success < bound
            if bound > 0:
                self.not_vacuous += 1
                self.allowed += delta
            if not place:
                self.units.append((bound > 0, success < bound, delta))

    def told(self) -> dict[str, Any]:
        """Return the counts and both tests as plain values.

        ``p_too_many``, over all units, is small where the bound fails more often than with δ. ``p_within``, over units
        that said something, is small where the share of violated ones is shown to be less than δ.
        """
        failed = sum(unit[1] for unit in self.units)
        return {
            "checks": self.checks,
            "not_vacuous": self.not_vacuous,
            "violations": self.violations,
            "allowed": self.allowed,
            "units": len(self.units),
            "units_not_vacuous": sum(unit[0] for unit in self.units),
            "units_violated": failed,
            "p_within": chance_of(failed, [delta for said, _, delta in self.units if said])[0],
            "p_too_many": chance_of(failed, [delta for *_, delta in self.units])[1],
        }


@dataclass
class Tiers:
    """What more knowledge and exact margins add, over scenarios of collectives that plant."""

    scenarios: int = 0
    bounds: int = 0
    not_vacuous: Counter[str] = field(default_factory=Counter)
    """By margins; ``none`` are those of a million times as many people with the same shares: nothing a bound rests on
    is uncertain then, so that other margins can hardly do better."""
    below: Counter[str] = field(default_factory=Counter)
    costs: list[float] = field(default_factory=list)
    worst_but_not_the_largest: int = 0
    """Bounds of the tier *worst* above 0 of collectives no larger than all others together."""

    def add(self, collectives: Sequence[Collective], setting: Setting, found: Found) -> None:
        """Count one scenario, given every collective's bound by margins and tier."""
        self.scenarios += 1
        acting = sum(one.size for one in collectives)
        for tier in get_args(Tier):
            for margins in get_args(Margins):
                self.not_vacuous[margins] += sum(not bound.vacuous for bound in found[margins, tier])
            self.bounds += len(collectives)
            self.not_vacuous["none"] += sum(not bound.vacuous for bound in _certain(collectives, tier, setting))
        below: set[str] = set()
        for margins in get_args(Margins):
            tiers = zip(*(found[margins, tier] for tier in get_args(Tier)), collectives, strict=True)
            for worst, aggregator, full, one in tiers:
                stricter = replace(setting, delta=setting.delta * full.error / worst.error, margins=margins)
                # The tier that knows less, at the δ̃ of the one that knows more.
                paid = shared_bound(cast("Planting", one.strategy), one.counts, TotalSize(acting - one.size), stricter)
                # At any cell: most of what is lost there does not reach the value.
                if (
                    full.value < paid.value - _ROUNDING
                    or np.less(full.margins, np.subtract(paid.margins, _ROUNDING)).any()
                ):
                    below.add("full")
                if full.value < worst.value - _ROUNDING:
                    below.add("full, cost of δ̃ included")
                    self.costs.append(worst.value - full.value)
                if aggregator.value < worst.value - _ROUNDING:
                    below.add("aggregator")
                self.worst_but_not_the_largest += not worst.vacuous and 2 * one.size <= acting
        self.below.update(below)

    def told(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        ratio = {m: self.not_vacuous[m] / max(1, self.not_vacuous["hoeffding"]) for m in ("exact", "none")}
        return {
            "scenarios": self.scenarios,
            "bounds": self.bounds,
            "not_vacuous": {m: self.not_vacuous[m] for m in (*get_args(Margins), "none")},
            "exact_over_hoeffding": ratio["exact"],
            "certain_over_hoeffding": ratio["none"],
            "full_below_worst": self.below["full"],
            "aggregator_below_worst": self.below["aggregator"],
            "full_below_worst_with_the_cost": self.below["full, cost of δ̃ included"],
            "largest_cost": max(self.costs, default=0.0),
            "worst_but_not_the_largest": self.worst_but_not_the_largest,
        }


def _certain(collectives: Sequence[Collective], tier: Tier, setting: Setting) -> tuple[SuccessBound, ...]:
    many = [Collective(one.strategy, one.counts * _MANY) for one in collectives]
    return every_bound(many, tier, replace(setting, population=setting.population * _MANY, test=None))


# --- margins that are too small -----------------------------------------------------------------------------


def quarter_margins(number: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return whether the test of violations sees margins a quarter as wide, where it should.

    Parameters
    ----------
    number : int
        Draws.
    generator : numpy Generator

    Returns
    -------
    dict
        Per margins: violations and both tests of :class:`Score` with the margins as they are and with a quarter of
        them; ``caught``, whether the test rejects every quarter and no whole.

    Notes
    -----
    *Ours*. Two combinations show the signal, each of half of the people. At one nobody else is, so that the collective
    surely plants; at the other everybody else has another label, so that it surely does not, whatever the margins.
    Success is then the share of the first among test people, the bound that among members less its slack, with as many
    members as test people. Their difference has a standard deviation of √(1/2n); a quarter of Hoeffding's slack is
    1.19 of it.
    """
    domain = Domain((2, 2), 2)
    strategy = FeatureLabelPlanting(Signal(domain, (1,), (0,)), 1)
    # First feature 0: half of the people, elsewhere. First feature 1: the other half, all at the signal with label 0.
    shares = np.array([0, 0, 0.25, 0.25, 0.5, 0, 0, 0])
    n, rest, delta = 5_000, 15_000, 0.05
    setting = Setting(n + rest, delta, test=n)
    scores = {(margins, width): Score() for margins in get_args(Margins) for width in ("whole", "quarter")}
    for _ in range(number):
        own, base = (generator.multinomial(k, shares).reshape(domain.cells, domain.labels) for k in (n, rest))
        test = generator.multinomial(n, shares.reshape(domain.cells, domain.labels).sum(axis=1))
        success = strategy.success(CountArgmax().decide(base + strategy.on_counts(own), domain), test)
        for margins in get_args(Margins):
            bound = planting_bound(strategy, own, replace(setting, margins=margins))
            scores[margins, "whole"].add([(success, bound.value)], delta)
            scores[margins, "quarter"].add([(success, bound.share - bound.slack / 4)], delta)
    told: dict[str, Any] = {m: {w: scores[m, w].told() for w in ("whole", "quarter")} for m in get_args(Margins)}
    rejected = {key: score.told()["p_too_many"] <= LEVEL for key, score in scores.items()}
    return {**told, "caught": all(seen == (width == "quarter") for (_, width), seen in rejected.items())}

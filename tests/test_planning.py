"""Tests of plans: the power of goals, what is assumed, and what a plan says it takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from ttca import trials
from ttca.auditing import carry_out, intend
from ttca.certificates import Certifying
from ttca.commands.plan import _table
from ttca.errors import ActionError, ConfigError
from ttca.planning import ALONE, ActionPlan, assume, make_plan, measure_learning, successes
from ttca.pooling.pool import Member
from ttca.pooling.quotas import Quota
from ttca.power import LADDER, Assumed, Verifiers, fewest_persons, power
from ttca.prices import Price
from ttca.statistics import comparisons
from ttca.trials import Rule, Standing, rule_of

RATES = Assumed(subgroup=0.6, reference=0.85)
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@pytest.mark.parametrize(
    "terms",
    [Certifying(), Certifying(goal="improvement"), Certifying(goal=0.8), Certifying(accuracy_ratio=0.8),
     Certifying(stopping="hybrid"), Certifying(stopping="anytime")],
    ids=str,
)  # fmt: skip
def test_power_is_how_often_the_certificates_rule_passes(terms: Certifying) -> None:
    """It is within 4 standard errors of simulated persons, judged one by one by the rule that certifies."""
    rng = np.random.default_rng(0)
    persons, success, runs = 40, 0.93, 400
    before = terms.aim.compares_with == "before"
    passed = 0
    rate, design = (RATES.subgroup, "paired") if before else (RATES.reference, "disjoint")
    rules: dict[int, Rule] = {}
    for _ in range(runs):
        baseline = rng.random(0 if terms.aim.compares_with is None else persons) < rate
        right = int(baseline.sum())
        rule = rules.setdefault(right, rules.get(right) or rule_of(terms, design, persons, baseline))  # type: ignore[arg-type]
        passed += rule.verdict(Standing(rng.random(persons) < success, baseline, persons)) is True
    planned = power(terms, Verifiers(design="disjoint"), persons, RATES)(success)
    assert abs(planned - passed / runs) <= 4 * (planned * (1 - planned) / runs) ** 0.5 + 0.01


def test_a_bet_on_pairs_is_simulated() -> None:
    """Where no formula is known, power comes of simulated persons, and more of them pass at a larger S."""
    at = power(Certifying(stopping="anytime"), Verifiers(design="paired"), 40, RATES)
    assert 0 <= at(0.7) < at(0.99) <= 1


def test_pairs_are_looked_up_once_for_all_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many right answers the baseline may have, the slow test of pairs is made about twice for each person."""
    calls: list[tuple[int, int, int, float]] = []

    def counted(won: int, lost: int, m: int, margin: float) -> float:
        calls.append((won, lost, m, margin))
        return comparisons.tango_p(won, lost, m, margin)

    monkeypatch.setattr(trials, "tango_p", counted)
    persons = 200
    power(Certifying(within=0.05), Verifiers(design="paired"), persons, RATES)(0.83)
    assert persons / 2 < len(calls) <= 2 * persons


def test_the_fewest_persons_are_enough_and_the_rung_below_is_not() -> None:
    """The first number on the ladder certifies with 80 %, the one before does not; where none does, None."""
    found = fewest_persons(Certifying(goal="improvement"), Verifiers(design="disjoint"), RATES, 0.75)
    assert found is not None
    below = LADDER[LADDER.index(found) - 1]
    at = (power(Certifying(goal="improvement"), Verifiers(design="disjoint"), n, RATES)(0.75) for n in (below, found))
    assert next(at) < 0.8 <= next(at)
    assert fewest_persons(Certifying(), Verifiers(design="disjoint"), RATES, 0.8) is None


def test_rates_are_assumed_or_from_the_audit(tmp_path: Path) -> None:
    """Given rates stand, the audit fills in others, and what does not go together is a sentence."""
    with worlds.open_action(tmp_path, worlds.Recorder()) as action:
        assert assume(action, subgroup=0.6, reference=0.85) == (RATES, "as assumed")
        assert assume(action, gap=0.25, reference=0.85)[0].subgroup == pytest.approx(0.6)
        with pytest.raises(ConfigError, match="got neither"):
            assume(action)
        with pytest.raises(ConfigError, match="got both"):
            assume(action, gap=0.1, subgroup=0.6)
        with pytest.raises(ConfigError, match="gap above 0"):
            assume(action, gap=15)
        with pytest.raises(ConfigError, match="from 0 to 1"):
            assume(action, subgroup=60, reference=0.85)
        found = carry_out(action, intend(action, {}, 25))
        rates, source = assume(action)
        groups = {group.name: group.rate for group in found.groupings[0].groups}
        assert {"subgroup": rates.subgroup, "reference": rates.reference} == pytest.approx(groups)
        assert source.startswith("the audit of 20")
        assert "of people in the pool" in source
        # Whether that audit showed a gap is said, as it found it.
        kept = json.loads((tmp_path / "audit.json").read_text())
        for shown in (True, False):
            kept["comparison"]["shown"] = shown
            (tmp_path / "audit.json").write_text(json.dumps(kept))
            assert ("which showed no gap" in assume(action)[1]) is not shown
        assert assume(action, gap=0.1)[0].subgroup == pytest.approx(rates.reference - 0.1)
        (tmp_path / "audit.json").write_text('{"groupings": []}')
        with pytest.raises(ActionError, match="Run ttca audit again"):
            assume(action)


def plan_in(folder: Path, **changes: Any) -> tuple[ActionPlan, worlds.Recorder]:
    """Return a plan of the tiny world's action at its own goal, improvement, and the platform that nobody asked."""
    platform = worlds.Recorder()
    given = {"settings": worlds.settings(goal="improvement", controls=False)} | changes
    with worlds.open_action(folder, platform, **given) as action:
        price = Price(per_1000=2.0, currency="EUR")
        made = make_plan(action, RATES, source="as assumed", quota=Quota(100, per_day=50), price=price, records=10_000)
    return made, platform


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActionPlan, worlds.Recorder]:
    """Return a plan that several tests look at."""
    return plan_in(tmp_path_factory.mktemp("planned"))


def test_a_plan_asks_nothing_and_says_every_goal(planned: tuple[ActionPlan, worlds.Recorder]) -> None:
    """No query is sent; each goal stands at each S; the cheapest plan certifies with 80 % where the gap is closed."""
    made, platform = planned
    assert platform.queries == 0
    goals = {line.goal for line in made.lines}
    assert goals == {
        "improvement", "parity", "parity within 5 points", "0.8 times the reference accuracy", "a success rate of 0.85",
    }  # fmt: skip
    assert {line.success for line in made.lines} == set(successes(RATES))
    assert [line.goal for line in made.lines if line.own] == ["improvement"] * len(successes(RATES))
    best = made.cheapest
    assert best is not None
    assert best.persons is not None
    assert best.success == 0.85
    assert made.told().startswith("The cheapest plan that certifies with 80 % probability: improvement, if S is 0.850")
    assert json.loads(json.dumps(made.to_dict(), allow_nan=False))["cheapest"]["persons"] == best.persons


def test_a_plan_is_a_line_for_each_goal_and_s(planned: tuple[ActionPlan, worlds.Recorder]) -> None:
    """The frame holds every line, with what cannot be known left empty."""
    plan, _ = planned
    table = plan.to_frame()
    assert table[["goal", "success", "now"]].to_numpy().tolist() == [[x.goal, x.success, x.now] for x in plan.lines]
    assert table["queries"].isna().tolist() == [line.queries is None for line in plan.lines]


def test_a_plan_explains_its_columns(planned: tuple[ActionPlan, worlds.Recorder]) -> None:
    """Every column of the table, and what stands where nothing certifies, is explained in a sentence."""
    made, _ = planned
    said = made.explained()
    table = _table(made, None)
    for header in (str(column.header) for column in table.columns[1:]):
        assert re.search(rf"\b{header}\b", said, re.IGNORECASE), header
    assert "Too many: not even the most people that are tried would do" in said
    assert "A success rate of 0.85: at least 85 of 100 answers are right with δ" in said
    assert "(0.850)" in said
    assert "nobody is surely always right" not in said
    high = replace(made, lines=(replace(made.lines[0], success=0.995),))
    assert "but none above 0.995: nobody is surely always right" in high.explained()
    assert f"half of the gap closed ({RATES.subgroup + (RATES.reference - RATES.subgroup) / 2:.3f} here)" in said
    assert f"the {made.verification} verification people" in said


def test_a_plan_counts_queries_as_the_dry_run_does(planned: tuple[ActionPlan, worlds.Recorder]) -> None:
    """Pool, baseline and every ε are in; price follows; those who lack pay a quota each."""
    made, _ = planned
    best = made.cheapest
    assert best is not None
    assert best.persons is not None
    assert best.queries == 205 + best.persons * (1 + 2)
    assert best.price == pytest.approx(best.queries * 2 / 1000)
    assert best.more_members == 0
    assert made.quota_left == 5 * 500


def test_members_who_join_and_days_follow_the_quota_and_the_rates(tmp_path: Path) -> None:
    """With too little quota members must join, and with a rate of queries a day the plan takes days."""
    poor = [Member(name, 20, per_day=10) for name in worlds.MEMBERS]
    made, _ = plan_in(tmp_path, members=poor)
    best = made.cheapest
    assert best is not None
    assert best.queries is not None
    assert best.more_members == -(-(best.queries - 100) // 100)
    # Five pay 10 a day for two days, whoever joins 50 a day for two.
    per_day = 5 * 10 + best.more_members * 50
    days = -(-best.queries // per_day)
    assert best.days is not None
    assert days - 1 <= best.days + 1e-9 <= days + 1
    assert f"{best.more_members} more members" in made.told()


def test_nothing_certifies_where_delta_does_not_help(tmp_path: Path) -> None:
    """Where no goal can be certified the plan says so and asks whether there is a gap."""
    made, _ = plan_in(tmp_path)
    none = replace(made, lines=tuple(replace(line, queries=None, persons=None) for line in made.lines))
    assert none.cheapest is None
    assert "Is there a gap?" in none.told()
    level = replace(made, assumed=replace(RATES, subgroup=RATES.reference))
    assert level.told().startswith("By these rates there is no gap to close: stop here")
    assert (level.cheapest, level.cheapest_of_own) == (None, None)
    assert "half of the gap" in made.explained()
    assert "half of the gap" not in level.explained()


def test_other_ways_are_compared(planned: tuple[ActionPlan, worlds.Recorder]) -> None:
    """Attacking alone counts every picture and the wrong ones; planting needs fewer than all; relabeling a share."""
    made, _ = planned
    assert made.alone.images == 100 + 40 + 80
    assert made.alone.least == round(220 + 0.4 * 220 * ALONE[0])
    assert made.retraining is not None
    assert made.retraining.plant is not None
    assert 0 < made.retraining.plant < 10_000
    assert made.retraining.relabel == (1600, 2400)
    assert "docs/query_budget.md" in made.about_others()


def test_the_numbers_of_attacks_are_those_of_the_result_files() -> None:
    """What a plan cites of the benchmark is the least and the most that its result files hold."""
    means = [
        of["attacks"]["square"]["budgets"]["5000"]["of_the_wrong"]["mean"]
        for path in RESULTS.glob("query_budget-*-final.json")
        for of in json.loads(path.read_text())["epsilons"].values()
    ]
    assert (round(min(means), 1), round(max(means), 1)) == ALONE


def test_learning_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    """A few steps are timed on this machine; nothing that was learned is kept, and nothing is asked."""
    platform = worlds.Recorder()
    with worlds.open_action(tmp_path, platform) as action:
        before = sorted(path.name for path in tmp_path.iterdir())
        found = measure_learning(action)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert found is not None
    assert found.seconds == pytest.approx(found.passes * found.per_image)
    assert found.passes == 12 * 205 + 2 * 10 * 100
    assert platform.queries == 0

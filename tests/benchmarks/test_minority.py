"""Tests of the benchmark of a relabelling minority, and of the firm's own methods, on a few synthetic people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks import minority
from benchmarks._document import MISSING, filled
from benchmarks._firm_side import (
    calibrated_equalised_odds,
    exponentiated_gradient,
    fair_gini,
    fare,
    measure_with_groups,
    threshold_optimizer,
)
from benchmarks._pages import minority as page
from benchmarks.minority import (
    RULES,
    Settings,
    main,
    measure_seed,
    split,
    summarise,
)
from ttca.data.tabular import Table
from ttca.errors import ConfigError, DataError
from ttca.training_time.relabelling import LabeledRows as People
from ttca.training_time.relabelling import firm_errors as measure

_TINY = Settings(
    alphas=(0.3, 1.0), compared=(0.3,), flips=(0.0, 0.1, 0.5), k=3, rounds=2, gammas=(0.5,), cells=(4,), least=5,
    firm="logistic",
)  # fmt: skip


def _table(n: int = 600, seed: int = 0) -> Table:
    """Return people whose minority has the favourable label less often at the same numbers."""
    generator = np.random.default_rng(seed)
    few = generator.random(n) < 0.4
    numbers = generator.normal(size=(n, 2))
    labels = (numbers[:, 0] + 0.5 * generator.normal(size=n) - 1.2 * few > 0).astype(np.int64)
    return Table(
        name="tiny",
        numbers=numbers,
        number_names=("a", "b"),
        categories=np.stack([few.astype(np.int64), generator.integers(0, 3, n)], axis=1),
        category_names=("group", "c"),
        category_values=(("many", "few"), ("x", "y", "z")),
        labels=labels,
        minority=few,
        minority_name="few",
        favourable="good",
        sensitive=("group",),
    )


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _numbers(v)]
    if isinstance(value, list | tuple):
        return [n for v in value for n in _numbers(v)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.fixture(scope="module")
def seeds() -> list[dict[str, Any]]:
    """Return two seeds of the tiny table."""
    return [measure_seed(_table(), seed, _TINY, other=_table(seed=1)) for seed in (0, 1)]


def test_nobody_has_two_roles_and_strata_are_kept() -> None:
    """Training, validation and test people are 60/20/20 of each group and label, and together everybody."""
    table = _table()
    parts = split(table, 0)
    assert sum(len(p) for p in parts) == len(table)
    assert [round(len(p) / len(table), 2) for p in parts] == [0.6, 0.2, 0.2]
    for part in parts:
        assert abs(part.minority.mean() - table.minority.mean()) < 0.01
    # The first column is standardised on training people alone.
    assert abs(parts[0].features[:, 0].mean()) < 1e-9 < abs(parts[2].features[:, 0].mean())
    values = [set(p.features[:, 0].tolist()) for p in parts]
    assert not values[0] & values[1] | values[0] & values[2] | values[1] & values[2]
    assert split(table, 0, without=("group",))[0].features.shape[1] == parts[0].features.shape[1] - 2


def test_a_seed_is_the_same_every_time(seeds: list[dict[str, Any]]) -> None:
    """The same seed gives the same numbers; only the seconds differ."""
    again = measure_seed(_table(), 0, _TINY, other=_table(seed=1))
    first = {**seeds[0], "seconds": 0}
    assert json.dumps({**again, "seconds": 0}) == json.dumps(first)
    assert json.dumps({**seeds[1], "seconds": 0}) != json.dumps(first)


def test_no_flips_is_the_firm_alone(seeds: list[dict[str, Any]]) -> None:
    """Every curve begins with the base, and flips never exceed the pool, nor the pool the members."""
    for seed in seeds:
        for curve in seed["curves"]:
            first, *_, last = curve["points"]
            assert first["flips"] == 0
            assert {k: first[k] for k in seed["base"]} == seed["base"]
            assert last["flips"] <= curve["pool"] <= curve["members"]
            assert [p["flips"] for p in curve["points"]] == sorted({p["flips"] for p in curve["points"]})


def test_rules_cannot_beat_the_best_test_row(seeds: list[dict[str, Any]]) -> None:
    """What was chosen on validation people is never better on test people than the best there is."""
    for seed in seeds:
        for curve in seed["curves"]:
            chosen = curve["chosen"]
            assert set(chosen) == {*RULES, "on_test_rows"}
            assert all(chosen[rule]["eqod"] >= chosen["on_test_rows"]["eqod"] for rule in RULES)


def test_the_whole_pool_flipped_is_the_same_whoever_ranked_it(seeds: list[dict[str, Any]]) -> None:
    """Methods differ in who flips first; where all members of the pool flip there is no first."""
    last = [c["points"][-1] for c in seeds[0]["curves"] if c["alpha"] == 0.3]
    assert len(last) == 4
    assert all(point == last[0] for point in last)


def _curve(seed: dict[str, Any], method: str, alpha: str) -> dict[str, Any]:
    (found,) = [c for c in seed["curves"] if (c["method"], str(c["alpha"])) == (method, alpha)]
    assert isinstance(found, dict)
    return found


def test_a_summary_has_the_keys_that_are_asked_for(seeds: list[dict[str, Any]]) -> None:
    """Base, best EqOd by α and the error there, beside spreads, the firm's methods and the front, all plain JSON."""
    row = summarise(seeds, "tiny", _TINY)
    assert json.loads(json.dumps(row)) == row
    assert set(row["best_eqod_by_alpha"]) == set(row["error_at_best"]) == {"0.3", "1.0"}
    assert row["base_eqod"] == pytest.approx(np.mean([s["base"]["eqod"] for s in seeds]))
    assert row["eqod_fall_by_alpha"]["0.3"] == pytest.approx(1 - row["best_eqod_by_alpha"]["0.3"] / row["base_eqod"])
    assert row["error_rise_by_alpha"]["0.3"] == pytest.approx(row["error_at_best"]["0.3"] - row["base_error"])
    assert set(row["methods"]) == {"RB-prob", "RB-label", "RB-dist", "Random"}
    assert set(row["firm_side"]) == {
        "threshold_optimizer", "exponentiated_gradient", "calibrated_equalised_odds", "fare",
    }  # fmt: skip
    assert row["poster"] is None
    assert set(row["goal"]["holds_by_rule"]) == set(RULES)
    assert "minority: few" in row["variants"]
    assert len(row["by_seed"]) == 2
    for alpha, entry in row["methods"]["RB-prob"].items():
        best = np.mean([_curve(seed, "RB-prob", alpha)["chosen"]["on_test_rows"]["eqod"] for seed in seeds])
        assert page._best(row, alpha) == pytest.approx(best)
        assert best <= min(entry["rules"][rule]["eqod"] for rule in RULES) + 1e-12
    rule = next(iter(RULES))
    gains = [
        _curve(seed, "RB-prob", "0.3")["chosen"][rule]["eqod"] - _curve(seed, "Random", "0.3")["chosen"][rule]["eqod"]
        for seed in seeds
    ]
    beaten = {"seeds": 2, "smaller": sum(g > 0 for g in gains), "equal": sum(g == 0 for g in gains)}
    assert row["random_beats_rb_prob"] == {"0.3": beaten}
    front = [(p["error"], p["eqod"]) for p in row["pareto_front"]]
    assert front == sorted(front)
    assert not any(p["error"] < e and p["eqod"] < q for p in row["points"] for e, q in front)
    assert np.isfinite(_numbers(row)).all()


def test_one_seed_has_no_spread_and_no_claim_without_its_alpha(seeds: list[dict[str, Any]]) -> None:
    """A standard deviation of one seed is null; without α = .3 the goal was not measured."""
    row = summarise(seeds[:1], "compas", _TINY)
    assert row["base"]["standard_deviation"]["eqod"] is None
    assert row["poster"]["base"] == {"error": 0.332, "eqod": 0.214}
    lacking = {**seeds[0], "curves": [c for c in seeds[0]["curves"] if c["alpha"] != 0.3]}
    assert summarise([lacking], "tiny", _TINY)["goal"] == {"measured": False}


def test_flips_must_begin_with_none() -> None:
    """Without a trial of no flips there is no base."""
    with pytest.raises(ConfigError, match="flips that begin with 0"):
        measure_seed(_table(), 0, Settings(flips=(0.1,)))


def test_figures_are_drawn_for_every_data_set(seeds: list[dict[str, Any]]) -> None:
    """Three pictures a data set, each with what it was asked to show."""
    record = {"data_sets": {"tiny": summarise(seeds, "tiny", _TINY)}, "rule": next(iter(RULES))}
    drawn = page.figures(record)
    assert list(drawn) == [f"minority-tiny-{what}" for what in ("alpha", "flips", "pareto")]
    assert all(figure.axes[0].lines for figure in drawn.values())


def test_the_document_says_how_the_posters_rule_and_random_fare() -> None:
    """The poster's numbers stand beside its own rule on our data, and Random's wins are those of the result file."""
    root = Path(minority.__file__).parents[1]
    record = json.loads((root / "benchmarks" / "results" / "minority.json").read_text(encoding="utf-8"))
    document = (root / "docs" / "minority.md").read_text(encoding="utf-8")
    assert filled(document, {"poster": page.poster(record)}) == document
    assert len(page.beside_the_poster(record)) == 2 + 6


def test_wins_are_told_as_they_were_counted(seeds: list[dict[str, Any]]) -> None:
    """Each data set's wins and draws are named, and a result without them makes no claim."""
    rows = {key: summarise(seeds, key, _TINY) for key in ("compas", "adult")}
    for row, won in zip(rows.values(), ((7, 0), (2, 4)), strict=True):
        found = {"seeds": 10, "smaller": won[0], "equal": won[1]}
        row["random_beats_rb_prob"] = {"0.3": found, "0.1": found}
    told = page.random_wins({"data_sets": rows})
    assert "At α = 0.3 Random beat RB-prob in 7 of 10 seeds on COMPAS and in 2 of 10 seeds on Adult (4 alike)." in told
    del rows["adult"]["random_beats_rb_prob"]
    assert page.random_wins({"data_sets": rows}) == page.UNCOUNTED


def test_tables_show_every_method_and_refuse_a_document_without_marks(seeds: list[dict[str, Any]]) -> None:
    """Nobody, the collective, the firm, each variant and the poster have their lines, all of one width."""
    rows = {"tiny": summarise(seeds, "tiny", _TINY), "known": summarise(seeds, "compas", _TINY)}
    record = {"data_sets": rows, "rule": next(iter(RULES)), "seeds": [0, 1]}
    made = page.tables([("minority.json", record)])
    for mark, cells in {
        "minority": ("| nobody |", "| RB-prob | 0.3 |", "| Random | 0.3 |", "| firm: fare |"),
        "minority-all": ("| RB-prob | 1.0 |", "| RB-prob | 0.3 |"),
        "minority-changed": ("| minority: few |",),
        "minority-posters": ("–, –",),
        "minority-methods": ("| fare | 0.405, 0.118 |",),
    }.items():
        for cell in cells:
            assert cell in made[mark]
        assert len({line.count("|") for line in made[mark].splitlines()}) == 1
    assert "| 1.0 |" not in made["minority"]
    marks = "a\n" + "\n".join(f"<!-- {mark} -->\n<!-- /{mark} -->" for mark in made) + "\nb\n"
    text = filled(marks, page.tables([("minority.json", record)]))
    assert filled(text, page.tables([("minority.json", record)])) == text
    assert MISSING in filled(text, page.tables([]))
    with pytest.raises(ConfigError, match="Expected the marks"):
        filled("# Nothing", page.tables([]))


def test_the_benchmark_runs_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gives a row per data set with its people, and refuses no seeds."""
    monkeypatch.setattr(minority, "LOADERS", {"compas": lambda minority=None: _table()})
    monkeypatch.setattr(minority, "Settings", lambda firm: _TINY)
    result: Any = main(["--datasets", "compas", "--seeds", "1", "--first-seed", "7", "--jobs", "1", "--no-variants"])
    assert result["seeds"] == [7]
    assert result["rule"] == next(iter(RULES))
    row = result["data_sets"]["compas"]
    assert (row["rows"], row["minority"], row["variants"]) == (600, "few", {})
    json.dumps(result, allow_nan=False)
    with pytest.raises(ConfigError, match="1 or more seeds"):
        main(["--datasets", "compas", "--seeds", "0"])


# --- the firm's own methods --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people() -> tuple[People, People, People]:
    """Return training, validation and test people of a larger tiny table."""
    return split(_table(6000), 0)


def _model(train: People) -> LogisticRegression:
    return LogisticRegression().fit(train.features, train.labels)


def test_fairlearns_methods_lower_the_violation(people: tuple[People, People, People]) -> None:
    """Thresholds and reductions, given the group, at least halve EqOd where the labels are biased."""
    train, validation, test = people
    model = _model(train)
    base = measure(model.predict, test).eqod
    assert base > 0.15
    thresholds = threshold_optimizer(model, validation, seed=0)
    assert measure_with_groups(thresholds, test).eqod < base / 2
    reduction = exponentiated_gradient(LogisticRegression(), train, difference=0.02, most_rounds=5, seed=0)
    assert measure_with_groups(reduction, test).eqod < base / 2
    again = threshold_optimizer(model, validation, seed=0)
    np.testing.assert_array_equal(
        thresholds(test.features, test.minority), again(test.features, test.minority)
    )  # fmt: skip


class _Given:
    """A model whose scores are its first feature."""

    def predict_proba(self, features: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([1 - features[:, 0], features[:, 0]], axis=1)


def test_calibrated_odds_withhold_as_much_as_the_costs_differ() -> None:
    """The better-served group's share with the base rate for a score brings its cost to the other group's."""
    # Reference: positives .9, negatives .1. Minority: .7 and .3. Base rates are one half.
    scores = np.array([0.9, 0.1, 0.7, 0.3])
    labels, few = np.array([1, 0, 1, 0]), np.array([False, False, True, True])
    validation = People(np.repeat(scores, 5)[:, None], np.repeat(labels, 5), np.repeat(few, 5))
    asked = People(np.repeat(scores, 4000)[:, None], np.repeat(labels, 4000), np.repeat(few, 4000))
    predict = calibrated_equalised_odds(_Given(), validation, cost="fpr", seed=0)
    said = predict(asked.features, asked.minority)
    # Cost of negatives: .1 against .3, with the base rate .5: half of the reference is withheld, and .5 is positive.
    negatives = (asked.labels == 0) & ~asked.minority
    assert said[negatives].mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(said[asked.minority], asked.labels[asked.minority])


def test_calibrated_odds_refuse_what_they_cannot_weigh(people: tuple[People, People, People]) -> None:
    """An unknown cost, and a group with one label alone, are sentences."""
    with pytest.raises(ConfigError, match="fnr, fpr or weighted"):
        calibrated_equalised_odds(_Given(), people[1], cost="both", seed=0)  # type: ignore[arg-type]
    alike = People(np.full((4, 1), 0.5), np.array([0, 1, 1, 1]), np.array([False, False, True, True]))
    with pytest.raises(DataError, match="both labels in each group"):
        calibrated_equalised_odds(_Given(), alike, cost="fpr", seed=0)


def test_fair_gini_is_pure_in_labels_and_mixed_in_groups() -> None:
    """γ = 0 is half the usual Gini's complement of purity, γ = 1 is 0 where each label holds both groups alike."""
    # Rows: groups; columns: labels.
    mixed, told_apart = np.array([[5, 5], [5, 5]]), np.array([[10, 10], [0, 0]])
    pure = np.array([[0, 5], [0, 5]])
    np.testing.assert_allclose([fair_gini(mixed, 0.0), fair_gini(pure, 0.0)], [0.5, 0])
    np.testing.assert_allclose([fair_gini(mixed, 1.0), fair_gini(told_apart, 1.0)], [0, 0.5])
    np.testing.assert_allclose(fair_gini(told_apart, 0.25), 0.75 * 0.5 + 0.25 * 0.5)
    assert fair_gini(np.zeros((2, 2)), 0.5) == 0


def test_fare_keeps_to_its_restrictions(people: tuple[People, People, People]) -> None:
    """No more cells than allowed, no cell with too few people, and every person in a leaf."""
    train, _, test = people
    tree = fare(train, gamma=0.2, cells=6, least=100)
    cells = tree.encode(train.features)
    assert tree.cells <= 6
    assert np.unique(cells, return_counts=True)[1].min() >= 100
    assert (tree.feature[tree.encode(test.features)] == -1).all()
    for cell in np.unique(cells):
        assert tree.label[cell] == int(train.labels[cells == cell].mean() >= 0.5)


def test_fare_without_fairness_is_a_tree_that_learns(people: tuple[People, People, People]) -> None:
    """γ = 0 beats guessing by far; γ = 1 sees no label and keeps groups mixed."""
    train, _, test = people

    def error_and_eqod(gamma: float) -> tuple[float, float]:
        tree = fare(train, gamma=gamma, cells=16, least=20)
        measured = measure(lambda features: tree.label[tree.encode(features)], test)
        return measured.error, measured.eqod

    error, violation = error_and_eqod(0.0)
    assert error < 0.2
    assert error_and_eqod(0.9)[1] < violation


def test_fare_refuses_useless_settings(people: tuple[People, People, People]) -> None:
    """γ beyond [0, 1] and fewer than two cells are sentences."""
    with pytest.raises(ConfigError, match=r"Expected γ in \[0, 1\]"):
        fare(people[0], gamma=1.5, cells=8, least=1)
    with pytest.raises(ConfigError, match="2 or more cells"):
        fare(people[0], gamma=0.5, cells=1, least=1)

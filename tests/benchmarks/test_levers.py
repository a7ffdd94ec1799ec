"""Tests of the benchmark of three levers, on a few synthetic people in the layout of the real file."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import levers
from benchmarks._document import MISSING, filled
from benchmarks._pages import levers as page
from benchmarks.levers import LEVERS, Settings, main, measure_seed
from ttca.data.tabular import Table, load_acs_income
from ttca.errors import ConfigError, DataError

_TINY = Settings(alphas=(0.3, 1.0), flips=(0.0, 0.3, 0.6, 1.0), rise=0.3)
_COLUMNS = ("AGEP", "SCHL", "WKHP", "COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P", "PINCP_over_50k")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with 1,500 people whose income grows with schooling and hours, less so for women."""
    home = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    (home / "tabular").mkdir()
    with gzip.open(home / "tabular" / "acsincome-co.csv.gz", "wt", encoding="utf-8", newline="") as file:
        written = csv.writer(file)
        written.writerow(_COLUMNS)
        for _ in range(1500):
            woman, school = generator.random() < 0.5, generator.integers(1, 25)
            hours = generator.choice([20, 30, 38, 40, 40, 40, 44, 50, 60])
            score = 0.25 * (school - 14) + 0.08 * (hours - 40) - 2.5 * woman + generator.normal()
            row = (40, school, hours, generator.integers(1, 4), 1, 100, 8, 1, 1 + woman, 1, int(score > 0))
            written.writerow([*map(str, row)])
    return home


@pytest.fixture(scope="module")
def table(root: Path) -> Table:
    """Return these people."""
    return load_acs_income(root=root)


@pytest.fixture(scope="module")
def told(root: Path) -> Any:
    """Return the record of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTCA_DATA", str(root))
        patch.setattr(levers, "Settings", lambda: replace(_TINY, alphas=(0.3, 0.5)))
        return json.loads(json.dumps(main(["--seeds", "2", "--jobs", "1", "--json"])))


def test_a_seed_repeats(table: Table) -> None:
    """The same seed gives the same numbers to the last digit, another one other numbers."""

    def without_time(seed: int) -> dict[str, Any]:
        found = measure_seed(table, seed, replace(_TINY, alphas=(0.3,)))
        return {k: v for k, v in found.items() if k != "seconds"}

    once = without_time(3)
    assert once == without_time(3)
    assert once["base"] != without_time(4)["base"]


def test_every_lever_has_the_same_people(table: Table) -> None:
    """Members and those who act later are as many for all levers; before anybody acts all rows of an α are the base."""
    found = measure_seed(table, 0, _TINY)
    women = found["people"]["train_subgroup"]
    for alpha, entry in found["by_alpha"].items():
        assert entry["members"] == round(float(alpha) * women)
        rows = entry["rows"]
        assert set(LEVERS) < set(rows)
        for key, value in found["base"].items():
            if not key.endswith(("taking_part_accuracy", "abuse")):
                assert rows["nobody acts"][key] == value
        # Nobody is left who does not take part.
        assert (rows["nobody acts"]["not_taking_part_accuracy"] is None) == (alpha == "1.0")
    half = found["by_alpha"]["0.3"]["rows"]
    for name in ("perturbation at test time", "control: the signal, which nobody planted"):
        # The platform is the one it was: nobody else notices.
        assert half[name]["reference_accuracy"] == found["base"]["reference_accuracy"]
        assert half[name]["not_taking_part_accuracy"] == half["nobody acts"]["not_taking_part_accuracy"]


def test_each_lever_does_what_it_is_for(table: Table) -> None:
    """Relabelling raises the subgroup's favourable answers; a planted signal and the right change beat controls."""
    rows = measure_seed(table, 1, _TINY)["by_alpha"]["0.3"]["rows"]
    before = rows["nobody acts"]
    relabelled = rows["relabelling, RB-prob"]
    assert relabelled["changed_records"] > 0
    assert relabelled["true_positive_rate_gap"] < before["true_positive_rate_gap"]
    assert relabelled["changed_at_test"] == 0
    planted, unplanted = rows["planting, feature-label"], rows["control: the signal, which nobody planted"]
    assert planted["taking_part_accuracy"] > unplanted["taking_part_accuracy"]
    assert planted["abuse"] > 0.9
    assert planted["false_labels"] > 0
    assert rows["planting, feature-only"]["false_labels"] == 0
    perturbed = rows["perturbation at test time"]
    assert perturbed["taking_part_accuracy"] > before["taking_part_accuracy"]
    assert perturbed["taking_part_accuracy"] > rows["control: the other class's change"]["taking_part_accuracy"]
    for change in perturbed["changes"].values():
        assert abs(change["hours"]) <= measure_seed(table, 1, replace(_TINY, alphas=()))["budget_hours"]


def test_metrics_are_those_of_hand(table: Table) -> None:
    """On six people every rate is what one counts."""
    rows = np.flatnonzero(table.minority)[:3].tolist() + np.flatnonzero(~table.minority)[:3].tolist()
    six = replace(levers._rows(table, np.array(rows)), labels=np.array([1, 1, 0, 1, 0, 0]))
    said = np.array([1, 0, 0, 1, 1, 0])
    acting = np.array([True, False, True, False, False, False])
    lied = np.array([1, 1, 1, 1, 0, 1])
    found = levers._measured(six, said, acting, lied, lied)
    assert found["error"] == pytest.approx(1 / 3)
    assert found["true_positive_rate_gap"] == pytest.approx(0.5)
    assert found["false_positive_rate_gap"] == pytest.approx(0.5)
    assert found["equalised_odds_difference_mean"] == pytest.approx(0.5)
    assert found["demographic_parity_ratio"] == pytest.approx(0.5)
    assert (found["taking_part_accuracy"], found["not_taking_part_accuracy"]) == (1, 0)
    assert (found["abuse"], found["abuse_by_reference"]) == (1, 0.5)


def test_nonsense_is_refused(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """No seeds, flips without 0, other columns and a folder that is not named are sentences."""
    with pytest.raises(ConfigError, match="1 or more seeds"):
        main(["--seeds", "0"])
    with pytest.raises(ConfigError, match="begin with 0"):
        measure_seed(table, 0, replace(_TINY, flips=(0.5,)))
    with pytest.raises(ConfigError, match="Expected columns from"):
        measure_seed(table, 0, replace(_TINY, hours="hours"))
    monkeypatch.delenv("TTCA_DATA", raising=False)
    with pytest.raises(DataError, match="TTCA_DATA"):
        main(["--seeds", "1"])


def test_the_document_takes_its_numbers_from_a_result(told: Any) -> None:
    """Tables come from a result and only from it, without one they say so, and a lost mark is refused."""
    document = (Path(__file__).parents[2] / "docs" / "training_time.md").read_text(encoding="utf-8")
    empty, written = page.tables([]), page.tables([("levers.json", told)])
    assert list(empty.values()) == [MISSING] * 3
    full = filled(document, written)
    for lever in LEVERS:
        assert f"| {lever} | 0.3 |" in full
    mean = told["by_alpha"]["0.5"]["rows"]["perturbation at test time"]["mean"]["equalised_odds_difference_mean"]
    assert f"{mean:.3f} ±" in written["levers"]
    assert filled(full, empty) == filled(document, empty)
    with pytest.raises(ConfigError, match="Put them back"):
        filled("no marks", written)

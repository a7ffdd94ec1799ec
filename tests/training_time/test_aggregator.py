"""Tests of the trusted party: what it publishes is the conflict, to each its own, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.training_time.worlds import domains, people_of, planting_of, seeds
from ttca.errors import ConfigError, DataError
from ttca.training_time.aggregator import (
    Report,
    aggregate,
    aggregate_files,
    read_conflict,
    read_report,
    save_report,
)
from ttca.training_time.bounds import Collective, PublishedConflict, Setting, every_bound, shared_bound
from ttca.training_time.signals import Domain, Erasing, FeatureLabelPlanting, Signal

DOMAIN = Domain((2, 3), 3)
STRATEGIES = {
    name: FeatureLabelPlanting(Signal(DOMAIN, (1,), (value,)), target)
    for name, value, target in (("north", 0, 0), ("south", 0, 1), ("east-2", 1, 1))
}


def _reports() -> list[Report]:
    generator = np.random.default_rng(0)
    return [Report.of(name, s, people_of(DOMAIN, 1_000, generator)) for name, s in STRATEGIES.items()]


@examples(40)
@given(domains, seeds, st.integers(2, 4))
def test_the_published_term_is_the_conflict(domain: Domain, seed: int, number: int) -> None:
    """From reports alone comes, digit for digit, the conflict computed from all records, and so the tier's bound."""
    generator = np.random.default_rng(seed)
    several = [(planting_of(domain, generator), people_of(domain, 3_000, generator)) for _ in range(number)]
    population = 20_000
    published = aggregate([Report.of(f"c{i}", s, c) for i, (s, c) in enumerate(several)], population)
    bounds = every_bound([Collective(s, c) for s, c in several], "aggregator", Setting(population))
    for i, (strategy, counts) in enumerate(several):
        others = [Collective(s, c) for j, (s, c) in enumerate(several) if j != i]
        assert (published[f"c{i}"].term == PublishedConflict.of(strategy, others, population).term).all()
        assert shared_bound(strategy, counts, published[f"c{i}"], Setting(population)) == bounds[i]
        assert (published[f"c{i}"].term[:, strategy.target] == 0).all()


def test_files_go_there_and_back(tmp_path: Path) -> None:
    """Reports and conflicts read back are what was written, and each collective's file holds its own term."""
    reports = _reports()
    files = [tmp_path / f"{report.name}.json" for report in reports]
    for file, report in zip(files, reports, strict=True):
        save_report(file, report)
        again = read_report(file)
        assert (again.submitted == report.submitted).all()
        assert (again.name, again.signal, again.target) == (report.name, report.signal, report.target)
    told = aggregate_files(files, tmp_path / "out", 10_000)
    assert (told["population"], told["collectives"], told["acting"]) == (10_000, 3, 3_000)
    expected = aggregate(reports, 10_000)
    for name, strategy in STRATEGIES.items():
        conflict = read_conflict(told["files"][name], strategy, name)
        assert (conflict.term == expected[name].term).all()
        assert conflict.people == 2_000


def test_only_the_sum_of_others_is_published(tmp_path: Path) -> None:
    """A published file names no other collective and holds one table over its own signal set, no histogram."""
    files = []
    for report in _reports():
        files.append(tmp_path / f"{report.name}.json")
        save_report(files[-1], report)
    told = aggregate_files(files, tmp_path, 10_000)
    text = Path(told["files"]["north"]).read_text()
    assert "south" not in text
    assert "east-2" not in text
    record = json.loads(text)
    assert set(record) == {
        *("format", "kind", "name", "population", "others"),
        *("levels", "labels", "columns", "values", "target", "term"),
    }
    assert np.shape(record["term"]) == (2, 3)


def test_another_collectives_file_is_refused(tmp_path: Path) -> None:
    """A conflict for another signal, target or collective cannot be used by mistake, nor for another population."""
    files = []
    for report in _reports():
        files.append(tmp_path / f"{report.name}.json")
        save_report(files[-1], report)
    told = aggregate_files(files, tmp_path, 10_000)
    with pytest.raises(DataError, match="the file that was published for this collective"):
        read_conflict(Path(told["files"]["north"]), STRATEGIES["south"], "north")
    # Two may have the same signal and target.
    with pytest.raises(DataError, match=r"of the collective 'ally'.*got that of 'north'"):
        read_conflict(Path(told["files"]["north"]), STRATEGIES["north"], "ally")
    with pytest.raises(DataError, match="Expected a conflict of format 1"):
        read_conflict(files[0], STRATEGIES["north"], "north")
    conflict = read_conflict(Path(told["files"]["north"]), STRATEGIES["north"], "north")
    counts = people_of(DOMAIN, 1_000, np.random.default_rng(0))
    assert shared_bound(STRATEGIES["north"], counts, conflict, Setting(10_000)).size == 1_000
    with pytest.raises(DataError, match="population of 9000, got one for 10000"):
        shared_bound(STRATEGIES["north"], counts, conflict, Setting(9_000))


def test_no_file_of_an_earlier_run_lies_beside_the_new_ones(tmp_path: Path) -> None:
    """Another collective's older file, or a folder in a file's place, is refused before anything is written."""
    files = []
    for report in _reports():
        files.append(tmp_path / f"{report.name}.json")
        save_report(files[-1], report)
    aggregate_files(files, tmp_path / "out", 10_000)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ConfigError, match=r"got conflict-east-2\.json of an earlier run.*Nothing was written"):
        aggregate_files(files[:2], tmp_path / "out", 20_000)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    # The same ones are replaced.
    aggregate_files(files, tmp_path / "out", 20_000)
    assert read_conflict(tmp_path / "out" / "conflict-north.json", STRATEGIES["north"], "north").population == 20_000
    (tmp_path / "half" / "conflict-south.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="got a folder of that name"):
        aggregate_files(files, tmp_path / "half", 10_000)
    assert [path.name for path in (tmp_path / "half").iterdir()] == ["conflict-south.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "conflict"},
        {"levels": [2]},
        {"labels": 2.5},
        {"target": True},
        {"target": 3},
        {"pairs": [[0, 0]]},
        {"pairs": [[0, 0, 1], [0, 0, 2]]},
        {"pairs": [[0, 0, -1]]},
        {"pairs": [[0, 0, 10**30]]},
        {"pairs": [[6, 0, 1]]},
        {"pairs": 3},
        {"name": "../north"},
        {"columns": None},
    ],
    ids=str,
)
def test_a_report_that_contradicts_itself_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """A report with a wrong value in any place is refused with a sentence that names the file."""
    file = tmp_path / "north.json"
    save_report(file, _reports()[0])
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match="Expected a report"):
        read_report(file)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A missing file, one that is no JSON and a folder that cannot be made are sentences, not tracebacks."""
    with pytest.raises(DataError, match="Check the path"):
        read_report(tmp_path / "nothing.json")
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\xff{")
    with pytest.raises(DataError, match="Check the path"):
        read_report(broken)
    with pytest.raises(ConfigError, match="Choose another place"):
        save_report(broken / "report.json", _reports()[0])


def test_reports_that_do_not_fit_together_are_refused() -> None:
    """One report, a name twice, another domain, or a population too small is refused."""
    first, second, _ = _reports()
    with pytest.raises(ConfigError, match="two or more collectives"):
        aggregate([first], 10_000)
    with pytest.raises(ConfigError, match="different names"):
        aggregate([first, first], 10_000)
    with pytest.raises(ConfigError, match="population of at least the 2000"):
        aggregate([first, second], 1_999)
    with pytest.raises(ConfigError, match="different names"):
        aggregate([first, Report("NORTH", first.signal, first.target, first.submitted)], 10_000)
    with pytest.raises(ConfigError, match=r"population as a whole number of 1 or more, got 5000\.5"):
        aggregate([first, second], 5000.5)  # type: ignore[arg-type]
    erasing: Any = Erasing.estimated(Signal(DOMAIN, (0,), (0,)), first.submitted)
    with pytest.raises(ConfigError, match="plants or unplants, got Erasing"):
        Report.of("east", erasing, first.submitted)
    other = Domain((6,), 3)
    stranger = Report("far", Signal(other, (0,), (0,)), 0, people_of(other, 10, np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="reports over one domain"):
        aggregate([first, stranger], 10_000)

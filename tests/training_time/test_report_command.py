"""Tests of the report a collective writes from a table of its members: what it holds, and every mistake a sentence."""

from __future__ import annotations

import csv
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.training_time.worlds import seeds
from ttca.cli import main
from ttca.config import read_action
from ttca.errors import ConfigError, DataError
from ttca.rounding import at_least
from ttca.training_time.aggregator import aggregate, read_conflict, read_report, save_report
from ttca.training_time.bounds import Setting, planting_bound, shared_bound, shared_unplanting_bound
from ttca.training_time.records import TEMPLATE, Names, read_records, read_strategy, report_of
from ttca.training_time.signals import FeatureLabelPlanting, FeatureOnlyPlanting, NaiveUnplanting, Planting, Unplanting

Command = Callable[..., tuple[int, str, str]]

NAMES = Names({"heat": ("low", "high"), "trees": ("few", "some", "many")}, "advice", ("roofs", "trees", "walls"))
HEAD = """\
[features]
heat = ["low", "high"]
trees = ["few", "some", "many"]

[label]
column = "advice"
values = ["roofs", "trees", "walls"]
"""
PLANT = """
[strategy]
kind = "feature-label"
target = "walls"
[strategy.signal]
trees = "some"
"""


def _write(folder: Path, strategy: str = PLANT, *, name: str = "north", rows: str | None = None) -> Path:
    """Write a strategy's file and a table of five members; return the former."""
    table = "age,trees,heat,advice\n40,few,low,roofs\n41, few ,low,roofs\n50,many,high,walls\n60,some,high,trees\n"
    (folder / f"{name}.csv").write_text(rows if rows is not None else table + "61,few,low,trees\n", encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(f'[collective]\nname = "{name}"\nrecords = "{name}.csv"\n{HEAD}{strategy}', encoding="utf-8")
    return path


def test_every_unknown_name_of_a_strategy_is_said_at_once(tmp_path: Path) -> None:
    """Tables and settings alike, a sentence each."""
    path = _write(tmp_path)
    text = path.read_text(encoding="utf-8")
    for old, new in (("records =", "record ="), ("target =", "traget ="), ("[features]", "[featurs]")):
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_strategy(path)
    assert len(error.value.sentences) == 3
    assert all(f"Did you mean '{name}'?" in str(error.value) for name in ("records", "target", "features"))


def test_files_may_begin_with_a_mark_and_be_spelled_on_other_machines(tmp_path: Path) -> None:
    """A byte-order mark is no part of a file, and a decomposed name in a table is the strategy's composed one."""
    path = _write(tmp_path)
    plain = report_of(read_strategy(path))
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert report_of(read_strategy(path)).names == plain.names
    save_report(tmp_path / "report.json", plain)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    (tmp_path / "report.json").write_text("\ufeff" + text, encoding="utf-8")
    assert read_report(tmp_path / "report.json").names == plain.names
    (tmp_path / "report.json").write_text(text.replace("{", '{"kind": "report", ', 1), encoding="utf-8")
    with pytest.raises(DataError, match="'kind' twice"):
        read_report(tmp_path / "report.json")
    composed, decomposed = (Names({name: ("\u00e9", "e")}, "y", ("0", "1")) for name in ("caf\u00e9", "cafe\u0301"))
    assert composed.digest() == decomposed.digest()
    (tmp_path / "t.csv").write_text("cafe\u0301,y\ne\u0301,1\n", encoding="utf-8")
    for names in (composed, decomposed):
        assert read_records(tmp_path / "t.csv", names).tolist() == [[0, 1], [0, 0]]


@pytest.fixture
def ttca(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return the command line of this process: words in; exit status, standard output and standard error out."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ttca", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_a_report_goes_all_the_way_to_a_bound(tmp_path: Path, ttca: Command) -> None:
    """Reports written by the command are read by `ttca aggregate`, and its files by `ttca promise`, for either goal."""
    unplant = '\n[strategy]\nkind = "unplanting"\ntarget = "walls"\nreplacement = "roofs"\nsignal = {trees = "some"}\n'
    strategies: dict[str, Planting | Unplanting] = {}
    for name, text in (("north", PLANT), ("south", unplant)):
        file = _write(tmp_path, text, name=name)
        code, out, err = ttca("report-records", file, "--out", tmp_path / f"{name}.json", "--json")
        assert code == 0, err
        assert json.loads(out)["members"] == 5
        assert json.loads(out)["names"] == NAMES.digest()
        strategies[name] = read_strategy(file).strategy
    files = [tmp_path / "north.json", tmp_path / "south.json"]
    code, out, err = ttca("aggregate", *files, "--population", 1000, "--folder", tmp_path / "out", "--json")
    assert code == 0, err
    counts = read_records(tmp_path / "north.csv", NAMES)
    setting = Setting(1000)
    for name, file in json.loads(out)["files"].items():
        strategy = strategies[name]
        conflict = read_conflict(Path(file), strategy, name)
        assert conflict.people == 5
        if isinstance(strategy, Planting):
            bound = shared_bound(strategy, counts, conflict, setting)
        else:
            bound = shared_unplanting_bound(strategy, counts, conflict, setting)
        code, out, err = ttca("promise", tmp_path / f"{name}.toml", "--conflict", file, "--json")
        assert code == 0, err
        told = json.loads(out)
        assert (told["bound"], told["members"], told["others"], told["population"]) == (bound.value, 5, 5, 1000)
        assert (
            "Nothing is promised to the 5 members" in ttca("promise", tmp_path / f"{name}.toml", "--conflict", file)[1]
        )
    # Other numbers for the same words would promise what nobody proved.
    text = (tmp_path / "north.toml").read_text(encoding="utf-8")
    (tmp_path / "turned.toml").write_text(text.replace('"roofs", "trees"', '"trees", "roofs"'), encoding="utf-8")
    turned = ttca("promise", tmp_path / "turned.toml", "--conflict", tmp_path / "out" / "conflict-north.json")
    assert (turned[0], "changed since its report" in turned[2]) == (1, True)
    other = ttca("promise", tmp_path / "south.toml", "--conflict", tmp_path / "out" / "conflict-north.json")
    assert (other[0], "got that of 'north'" in other[2]) == (1, True)


def test_a_promise_says_what_it_means(tmp_path: Path, ttca: Command) -> None:
    """The bound is the published one's to the last digit, in words; what is known of others is said once."""
    rows = "heat,trees,advice\n" + "low,few,roofs\nhigh,many,walls\nlow,some,trees\n" * 2_000
    file = _write(tmp_path, rows=rows)
    strategy, counts = read_strategy(file).strategy, read_records(tmp_path / "north.csv", NAMES)
    assert isinstance(strategy, Planting)
    expected = planting_bound(strategy, counts, Setting(8_000))
    assert expected.value > 0
    code, out, _ = ttca("promise", file, "--population", 8000)
    assert code == 0
    assert out.startswith(
        f"With 95 % confidence, at least {at_least(expected.value)} of those with trees = some get the"
    )
    assert "among 8000 people, if nobody acts in other collectives, and if records are" in out
    assert "if 1900 people act in other collectives" in ttca("promise", file, "--population", 8000, "--others", 1900)[1]
    assert json.loads(ttca("promise", file, "--population", 8000, "--json")[1])["bound"] == expected.value
    assert (
        json.loads(ttca("promise", file, "--population", 8000, "--others", 1900, "--json")[1])["bound"] < expected.value
    )
    for words, said in (((), "got neither"), (("--conflict", "x.json", "--others", 3), "leave them out")):
        code, _, err = ttca("promise", file, *words)
        assert (code, said in " ".join(err.split())) == (1, True)


def test_the_report_holds_records_as_they_will_be(tmp_path: Path, ttca: Command) -> None:
    """The histogram in the file is the members' table after the strategy; other columns and spaces do not matter."""
    code, out, _ = ttca("report-records", _write(tmp_path), "--out", tmp_path / "r.json")
    assert code == 0
    assert "5 members of north" in out
    report = read_report(tmp_path / "r.json")
    expected = np.zeros((6, 3), np.int64)
    expected[1, 2], expected[4, 2] = 3, 2  # heat low or high, trees some, advice walls
    np.testing.assert_array_equal(report.submitted, expected)
    assert (report.signal.columns, report.signal.values, report.target) == ((1,), (1,), 2)
    assert report.names == NAMES.digest()
    assert report_of(read_strategy(tmp_path / "north.toml")).size == 5


@examples(30)
@given(seeds, st.integers(1, 60))
def test_a_table_becomes_its_histogram(tmp_path_factory: pytest.TempPathFactory, seed: int, people: int) -> None:
    """Whatever the order of columns and rows, and with odd names, every member is counted once where they belong."""
    generator = np.random.default_rng(seed)
    names = Names({'a "b", c': ("x,y", "é", "-"), "d": ("0", "1")}, "label, too", ("no", "yes\n!"))
    values = [*names.features.values(), names.labels]
    rows = np.stack([generator.integers(len(of), size=people) for of in values], axis=1)
    expected = np.zeros((6, 2), np.int64)
    np.add.at(expected, (rows[:, 0] * 2 + rows[:, 1], rows[:, 2]), 1)
    order = generator.permutation(3)
    head = [*names.features, names.label]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        written = csv.writer(file)
        written.writerow([head[i] for i in order])
        written.writerows([[values[i][row[i]] for i in order] for row in rows])
    np.testing.assert_array_equal(read_records(path, names), expected)


def test_every_kind_of_strategy_can_be_written_down(tmp_path: Path) -> None:
    """The three kinds become the strategies of those names."""
    assert isinstance(read_strategy(_write(tmp_path)).strategy, FeatureLabelPlanting)
    only = PLANT.replace("feature-label", "feature-only") + '[strategy.elsewhere]\nheat = "high"\ntrees = "many"\n'
    found = read_strategy(_write(tmp_path, only)).strategy
    assert isinstance(found, FeatureOnlyPlanting)
    assert found.elsewhere == 5
    naive = PLANT.replace("feature-label", "unplanting").replace("[strategy.s", 'replacement = "roofs"\n[strategy.s')
    found = read_strategy(_write(tmp_path, naive)).strategy
    assert isinstance(found, NaiveUnplanting)
    assert found.replacement == 0


def test_the_template_can_be_used(tmp_path: Path, ttca: Command) -> None:
    """`--init` writes a file that is read as it stands, and never over one that exists."""
    file = tmp_path / "strategy.toml"
    assert ttca("report-records", file, "--init")[0] == 0
    assert tomllib.loads(file.read_text(encoding="utf-8"))["collective"]["name"] == "north"
    assert read_strategy(file).names.domain.cells == 6
    assert "{" not in TEMPLATE.replace("{file}", "")
    code, _, err = ttca("report-records", file, "--init")
    assert code == 1
    assert "Expected a new file" in err


def test_reports_that_number_values_otherwise_are_not_added_up(tmp_path: Path) -> None:
    """Two collectives with one domain and another order of values are refused; a report without names is not."""
    first = report_of(read_strategy(_write(tmp_path)))
    turned = _write(tmp_path, name="south")
    turned.write_text(turned.read_text(encoding="utf-8").replace('"low", "high"', '"high", "low"'), encoding="utf-8")
    second = report_of(read_strategy(turned))
    with pytest.raises(ConfigError, match="same in the same order"):
        aggregate([first, second], 1000)
    nameless = type(second)(second.name, second.signal, second.target, second.submitted)
    assert set(aggregate([first, nameless], 1000)) == {"north", "south"}


_TABLES: dict[str, tuple[str, str]] = {
    "empty": ("", "got an empty file"),
    "no member": ("heat,trees,advice\n", "one member or more"),
    "no label": ("heat,trees\nlow,few\n", "advice missing"),
    "column twice": ("heat,heat,trees,advice\nlow,low,few,roofs\n", "every column once"),
    "short line": ("heat,trees,advice\nlow,few\n", "Line 2: Expected 3 values, got 2: none for advice"),
    "misspelt": ("heat,trees,advice\nlow,few,roofs\nlow,fwe,roofs\n", "Line 3: Did you mean 'few'.*got 'fwe'"),
    "many faults": ("heat,trees,advice\n" + "x,few,roofs\n" * 90, "79 more"),
    "open quote": ('heat,trees,advice\n"low,few,roofs\n', "Check its quotes"),
}


@pytest.mark.parametrize("case", _TABLES)
def test_a_table_that_cannot_be_counted_is_one_sentence(tmp_path: Path, ttca: Command, case: str) -> None:
    """What is wrong with the table, and in which line, is said, and no report is written."""
    rows, sentence = _TABLES[case]
    file = _write(tmp_path, rows=rows)
    with pytest.raises(DataError, match=f"(?s)Expected .*{sentence}"):
        report_of(read_strategy(file))
    code, out, err = ttca("report-records", file, "--out", tmp_path / "r.json")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert not (tmp_path / "r.json").exists()


def test_files_that_are_not_there_or_not_text_are_sentences(tmp_path: Path) -> None:
    """A missing strategy, missing records and bytes that are no text are told apart."""
    with pytest.raises(ConfigError, match="--init"):
        read_strategy(tmp_path / "none.toml")
    file = _write(tmp_path)
    (tmp_path / "north.csv").write_bytes(b"heat,trees,advice\n\xff\xfe")
    with pytest.raises(DataError, match="CSV UTF-8"):
        report_of(read_strategy(file))
    (tmp_path / "north.csv").unlink()
    with pytest.raises(DataError, match="got nothing there"):
        report_of(read_strategy(file))


_CHANGES: dict[str, tuple[str, str, str]] = {
    "no TOML": ("[label]", "[label", "Expected TOML"),
    "unknown table": ("[label]", "[lable]", "Did you mean 'label'"),
    "unknown setting": ("records =", "record =", "Did you mean 'records'"),
    "no features": ('heat = ["low", "high"]\ntrees = ["few", "some", "many"]\n', "", "one feature or more"),
    "values no list": ('["low", "high"]', '"low"', "features.heat .*list of texts"),
    "value twice": ('["low", "high"]', '["low", "low"]', "each value once"),
    "spaces": ('["low", "high"]', '["low ", "high"]', "without spaces"),
    "one label": ('["roofs", "trees", "walls"]', '["walls"]', "2 labels or more"),
    "label a feature": ('column = "advice"', 'column = "heat"', "not also a feature"),
    "column no text": ('column = "advice"', "column = 3", "as text"),
    "unknown kind": ("feature-label", "planting", "strategy.kind"),
    "unknown target": ('target = "walls"', 'target = "wall"', "Did you mean 'walls'"),
    "unknown value": ('trees = "some"', 'trees = "none"', "strategy.signal.trees"),
    "unknown feature": ('trees = "some"', 'tree = "some"', "Did you mean 'trees'"),
    "empty signal": ('trees = "some"', "", "one feature or more"),
    "not needed": ('target = "walls"', 'target = "walls"\nreplacement = "roofs"', "replacement as well"),
    "nowhere else": ("feature-label", "feature-only", "strategy.elsewhere"),
    "a feature twice": ('heat = ["low", "high"]', 'heat = ["low", "high"]\nHeat = ["a", "b"]', "each feature once"),
    "no target": ('target = "walls"\n', "", "strategy.target.*got nothing. Fill it in"),
    "no quotes": ('target = "walls"', "target = 3", "strategy.target.*got 3. Write it in quotes"),
    "curly quotes": ('target = "walls"', "target = “walls”", "Put words in quotes"),
    "backslashes": ('"north.csv"', r'"C:\\Users\\north.csv"'.replace("\\\\", "\\"), "in single quotes"),
    "the same label": (
        'kind = "feature-label"',
        'kind = "unplanting"\nreplacement = "walls"',
        "another label as strategy.replacement than the target, got 'walls'",
    ),
    "erasing": ("feature-label", "erasing", "for Python alone"),
    "bad name": ('name = "north"', 'name = "../north"', "name of letters"),
}


@pytest.mark.parametrize("case", _CHANGES)
def test_a_strategy_that_contradicts_itself_is_one_sentence(tmp_path: Path, ttca: Command, case: str) -> None:
    """Each mistake in the strategy's file is named with what was expected; nothing is written."""
    before, after, sentence = _CHANGES[case]
    file = _write(tmp_path)
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"Expected .*{sentence}|{sentence}"):
        report_of(read_strategy(file))
    assert ttca("report-records", file, "--out", tmp_path / "r.json")[0] == 1
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("read", [read_strategy, read_action])
def test_a_file_in_another_encoding_is_told_what_to_save_it_as(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """A strategy or an action that an editor wrote as UTF-16 is refused with what to do."""
    file = tmp_path / "file.toml"
    file.write_text('name = "north"', encoding="utf-16")
    with pytest.raises(ConfigError, match="Save it as UTF-8"):
        read(file)


def test_elsewhere_names_every_feature(tmp_path: Path) -> None:
    """x_0 is a whole combination, and none of the signal's."""
    only = PLANT.replace("feature-label", "feature-only") + '[strategy.elsewhere]\nheat = "high"\n'
    with pytest.raises(ConfigError, match="every feature"):
        read_strategy(_write(tmp_path, only))
    with pytest.raises(ConfigError, match="to be without the signal"):
        read_strategy(_write(tmp_path, only + 'trees = "some"\n'))


def test_a_report_with_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    """A digest that is no text makes the file unreadable."""
    save_report(tmp_path / "r.json", report_of(read_strategy(_write(tmp_path))))
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    (tmp_path / "r.json").write_text(json.dumps(told | {"names": 3}), encoding="utf-8")
    with pytest.raises(DataError, match="digest of names"):
        read_report(tmp_path / "r.json")


@pytest.mark.parametrize("victim", ["north.csv", "north.toml"])
def test_a_report_never_takes_the_place_of_a_file(tmp_path: Path, ttca: Command, victim: str) -> None:
    """Members' records, the strategy or an older report under the name of the report stay as they are."""
    strategy = _write(tmp_path)
    before = (tmp_path / victim).read_bytes()
    status, out, err = ttca("report-records", strategy, "--out", tmp_path / victim)
    assert (status, out) == (1, "")
    assert "Expected a new file for the report" in err
    assert (tmp_path / victim).read_bytes() == before


def test_an_error_stays_short_however_wrong_the_table_is(tmp_path: Path) -> None:
    """Ten thousand faults with cells of ten thousand letters are a count and a few short examples."""
    rows = "age,trees,heat,advice\n" + f"1,{'x' * 10_000},low,roofs\n" * 5_000 + "1,few\n" * 5_000
    _write(tmp_path, rows=rows)
    with pytest.raises(DataError, match="got 10000 problems") as caught:
        read_records(tmp_path / "north.csv", NAMES)
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    "table", ["age;Trees;HEAT;advice\n40;few;low;roofs\n", "trees\theat\tadvice\t\nfew\tlow\troofs\t\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path, table: str, encoding: str) -> None:
    """Semicolons and tabs, capitals in a column's name, a mark in front and UTF-16 change nothing."""
    _write(tmp_path)
    (tmp_path / "north.csv").write_text(table, encoding=encoding)
    counts = read_records(str(tmp_path / "north.csv"), NAMES)
    assert np.argwhere(counts).tolist() == [[0, 0]]


def test_a_path_that_cannot_be_one_is_a_sentence(tmp_path: Path) -> None:
    """A home of nobody, and a name that no file can have, are errors of the file that states them."""
    strategy = _write(tmp_path)
    text = strategy.read_text(encoding="utf-8")
    strategy.write_text(text.replace('"north.csv"', '"~nobody-here/m.csv"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="Write the full path"):
        read_strategy(strategy)
    with pytest.raises(DataError, match="Expected a table"):
        read_records(Path("a\0b.csv"), NAMES)

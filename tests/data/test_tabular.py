"""Tests of the tables of people: what is kept, who the minority is, and what odd files say."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ttca.data.tabular import MINORITIES, Encoding, Table, load_acs_income, load_adult, load_compas
from ttca.errors import ConfigError, DataError

_COMPAS = {
    "sex": "Male", "age": "30", "race": "Caucasian", "juv_fel_count": "0", "juv_misd_count": "0",
    "juv_other_count": "0", "priors_count": "1", "days_b_screening_arrest": "-1.0", "c_charge_degree": "F",
    "score_text": "Low", "is_recid": "0", "two_year_recid": "0",
}  # fmt: skip
_ACS = {
    "AGEP": "40.0", "COW": "1.0", "SCHL": "21.0", "MAR": "1.0", "OCCP": "2850.0", "POBP": "8.0", "RELP": "0.0",
    "WKHP": "40.0", "SEX": "1.0", "RAC1P": "1.0", "PINCP_over_50k": "1",
}  # fmt: skip
_ADULT = {
    "age": "40", "workclass": "Private", "fnlwgt": "1", "education": "11th", "education_num": "7",
    "marital_status": "Divorced", "occupation": "Sales", "relationship": "Husband", "race": "White", "sex": "Male",
    "capital_gain": "0", "capital_loss": "0", "hours_per_week": "40", "native_country": "United-States",
    "income": "<=50K",
}  # fmt: skip


def _write(root: Path, name: str, usual: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Path:
    path = root / "tabular" / name
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(usual))
        writer.writeheader()
        writer.writerows({**usual, **row} for row in rows)
    return path


def _write_compas(root: Path, *more: Mapping[str, str]) -> Path:
    rows = [{}, {"race": "African-American", "two_year_recid": "1", "age": "20"}, *more]
    return _write(root, "compas-two-years.csv.gz", _COMPAS, rows)


def _write_adult(root: Path) -> None:
    _write(root, "adult-train.csv.gz", _ADULT, [{}, {"sex": "Female", "income": ">50K"}])
    _write(root, "adult-test.csv.gz", _ADULT, [{"income": ">50K.", "native_country": "Peru"}, {"race": "Black"}])


def test_compas_keeps_propublicas_rows(tmp_path: Path) -> None:
    """Rows screened late, of unknown recidivism, ordinary traffic offences and rows without a score are left out."""
    odd = ({"days_b_screening_arrest": d} for d in ("", "31.0", "-31.0"))
    others = {"is_recid": "-1"}, {"c_charge_degree": "O"}, {"score_text": "N/A"}, {"score_text": ""}
    _write_compas(tmp_path, *odd, *others, {"days_b_screening_arrest": "30.0", "race": "Hispanic"})
    table = load_compas(root=tmp_path)
    assert table.labels.tolist() == [1, 0, 1]
    assert table.minority.tolist() == [False, True, False]
    assert table.numbers[:, 0].tolist() == [30, 20, 30]
    assert table.category_values[1] == ("African-American", "Caucasian", "Hispanic")
    assert table.categories[:, 1].tolist() == [1, 0, 2]
    assert table.sensitive == ("race",)
    assert not {"decile_score", "score_text"} & {*table.number_names, *table.category_names}


def test_a_comparison_of_two_groups_leaves_the_others_out(tmp_path: Path) -> None:
    """ProPublica's comparison holds African-American and Caucasian people alone."""
    _write_compas(tmp_path, {"race": "Hispanic"})
    assert len(load_compas(root=tmp_path, minority="african_american_or_caucasian")) == 2
    assert len(load_compas(root=tmp_path)) == 3


def test_acs_income_groups_codes_by_the_hundreds(tmp_path: Path) -> None:
    """Occupations and places of birth become families of codes, and sex or race says who may act."""
    rows = [{}, {"SEX": "2.0", "OCCP": "2899.0", "POBP": "303.0"}, {"RAC1P": "9.0", "PINCP_over_50k": "0"}]
    _write(tmp_path, "acsincome-co.csv.gz", _ACS, rows)
    table = load_acs_income(root=tmp_path)
    values = dict(zip(table.category_names, table.category_values, strict=True))
    assert values["OCCP"] == ("28",)
    assert values["POBP"] == ("0", "3")
    assert table.minority.tolist() == [False, True, False]
    assert table.labels.tolist() == [1, 1, 0]
    assert load_acs_income(root=tmp_path, minority="not_white").minority.tolist() == [False, False, True]


def test_adult_is_both_parts_in_order(tmp_path: Path) -> None:
    """The train part comes first, labels with UCI's full stop are read, and countries but one are grouped."""
    _write_adult(tmp_path)
    table = load_adult(root=tmp_path)
    assert table.labels.tolist() == [0, 1, 1, 0]
    assert table.minority.tolist() == [False, True, False, False]
    assert table.category_values[table.category_names.index("native_country")] == ("United-States", "elsewhere")
    assert load_adult(root=tmp_path, minority="not_white").minority.tolist() == [False, False, False, True]


def test_the_folder_is_the_one_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root TTCA_DATA says where the tables are; without either the error says to set it."""
    _write_compas(tmp_path)
    monkeypatch.setenv("TTCA_DATA", str(tmp_path))
    assert len(load_compas()) == 2
    monkeypatch.delenv("TTCA_DATA")
    with pytest.raises(DataError, match=r"Expected TTCA_DATA to name the folder that holds tabular/\*\.csv\.gz, got"):
        load_compas()


def test_missing_file_says_where_it_must_be(tmp_path: Path) -> None:
    """Without the table the error names its place."""
    with pytest.raises(DataError, match=r"tabular/compas-two-years\.csv\.gz, got no file\. Put it there"):
        load_compas(root=tmp_path)


def test_missing_column_lists_those_found(tmp_path: Path) -> None:
    """A table without a column that is needed says which one."""
    _write(tmp_path, "acsincome-co.csv.gz", {k: v for k, v in _ACS.items() if k != "SEX"}, [{}])
    with pytest.raises(DataError, match=r"got \['AGEP', .*: \['SEX'\] are missing"):
        load_acs_income(root=tmp_path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _no_gzip(path: Path) -> None:
    path.write_text("sex,age\n")


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [_cut, _no_gzip, _altered])
def test_damaged_files_are_sentences(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """A file that was cut short, altered or never gzipped is a sentence and no traceback."""
    harm(_write_compas(tmp_path))
    with pytest.raises(DataError, match=r"Expected .* at .*Copy it again|Expected the columns .*Copy the file again"):
        load_compas(root=tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"age": "old"}, "a number in the column 'age' of .* got 'old' in row 2"),
        ({"priors_count": "inf"}, "a number in the column 'priors_count' .* got 'inf' in row 2"),
        ({"days_b_screening_arrest": "soon"}, "got 'soon' in row 2"),
        ({"two_year_recid": "2"}, r"one of \['0', '1'\] in the column 'two_year_recid' .* got '2' in row 2"),
    ],
)
def test_odd_cells_are_sentences(tmp_path: Path, row: Mapping[str, str], said: str) -> None:
    """A cell that cannot be read is named by its column and row."""
    _write_compas(tmp_path, row)
    with pytest.raises(DataError, match=said):
        load_compas(root=tmp_path)


def test_lines_of_another_length_are_refused(tmp_path: Path) -> None:
    """A line with a cell too few or too many is refused: its values would belong to other columns."""
    path = _write_compas(tmp_path)
    text = gzip.decompress(path.read_bytes()).decode()
    for line in ("Male,30", ",".join(["1"] * 13)):
        path.write_bytes(gzip.compress(f"{text}{line}\r\n".encode()))
        with pytest.raises(DataError, match=r"Expected 12 cells in each line of .* in row 2"):
            load_compas(root=tmp_path)


def test_codes_that_are_no_codes_are_refused(tmp_path: Path) -> None:
    """A census code that is no number cannot be grouped."""
    _write(tmp_path, "acsincome-co.csv.gz", _ACS, [{}, {"SEX": "2.0", "OCCP": "nurse"}])
    with pytest.raises(DataError, match="codes in the column 'OCCP'"):
        load_acs_income(root=tmp_path)


def test_one_group_alone_is_refused(tmp_path: Path) -> None:
    """Where nobody is of the minority there is nothing to compare; an empty table is refused too."""
    _write(tmp_path, "compas-two-years.csv.gz", _COMPAS, [{}, {}])
    with pytest.raises(DataError, match="people of both groups"):
        load_compas(root=tmp_path)
    _write(tmp_path, "compas-two-years.csv.gz", _COMPAS, [])
    with pytest.raises(DataError, match="at least one row"):
        load_compas(root=tmp_path)
    _write(tmp_path, "compas-two-years.csv.gz", _COMPAS, [{"is_recid": "-1"}])
    with pytest.raises(DataError, match="after the filter"):
        load_compas(root=tmp_path)


def test_an_unknown_minority_lists_those_there_are(tmp_path: Path) -> None:
    """The minorities of a data set are named in the error."""
    _write_compas(tmp_path)
    with pytest.raises(ConfigError, match="one of african_american, african_american_or_caucasian, got 'women'"):
        load_compas(root=tmp_path, minority="women")


def _table(**changes: Any) -> Table:
    usual: dict[str, Any] = {
        "name": "tiny",
        "numbers": np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]]),
        "number_names": ("a", "b"),
        "categories": np.array([[0, 1], [1, 1], [2, 0]], np.int64),
        "category_names": ("c", "d"),
        "category_values": (("x", "y", "z"), ("no", "yes")),
        "labels": np.array([0, 1, 1]),
        "minority": np.array([True, False, True]),
        "minority_name": "few",
        "favourable": "good",
        "sensitive": ("d",),
    }
    return Table(**{**usual, **changes})


def test_encoding_knows_training_rows_alone() -> None:
    """Mean, scale and columns come from training rows; an unseen value is zeros, a constant has scale 1."""
    encoded = Encoding.fit(_table(), np.array([0, 1]), least=1).encode(_table())
    assert encoded.dtype == np.float64
    assert encoded.tolist() == [[-1, 0, 1, 0, 1], [1, 0, 0, 1, 1], [98, 2, 0, 0, 0]]


def test_encoding_can_leave_columns_out_and_rare_values() -> None:
    """What the firm must not see has no column, nor has a value of too few training rows."""
    rows = np.array([0, 1, 2])
    assert Encoding.fit(_table(), rows, without=("d",), least=1).encode(_table()).shape == (3, 5)
    assert Encoding.fit(_table(), rows, least=2).encode(_table()).shape == (3, 3)


def test_encoding_refuses_what_it_does_not_know() -> None:
    """Unknown columns, no rows, a useless least and a table of another shape are sentences."""
    with pytest.raises(ConfigError, match=r"among \['c', 'd'\] to leave out, got \['e'\]"):
        Encoding.fit(_table(), np.array([0]), without=("e",))
    with pytest.raises(ConfigError, match="got 0"):
        Encoding.fit(_table(), np.array([0]), least=0)
    with pytest.raises(DataError, match="at least one training row"):
        Encoding.fit(_table(), np.array([], np.int64))
    other = _table(numbers=np.zeros((3, 1)), number_names=("a",))
    with pytest.raises(DataError, match="Expected 2 numeric and 2 categorical columns, got 1 and 2"):
        Encoding.fit(_table(), np.array([0])).encode(other)


_REAL = os.environ.get("TTCA_DATA")
real_data = pytest.mark.skipif(not _REAL, reason="TTCA_DATA names no folder with the real data sets")


@real_data
@pytest.mark.parametrize(
    ("load", "rows", "minority", "favourable"),
    [
        (load_compas, 6_172, 3_175, 3_363),
        (load_acs_income, 31_306, 14_727, 12_972),
        (load_adult, 48_842, 16_192, 11_687),
    ],
)
def test_real_tables(load: Callable[..., Table], rows: int, minority: int, favourable: int) -> None:
    """The real tables open with the rows, minorities and labels they are known for."""
    table = load(root=_REAL)
    assert (len(table), int(table.minority.sum()), int(table.labels.sum())) == (rows, minority, favourable)
    assert table.minority_name == MINORITIES[table.name][0]
    # Whom the lever is for: the minority's labels are favourable less often.
    assert table.labels[table.minority].mean() < table.labels[~table.minority].mean()

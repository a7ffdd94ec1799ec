"""People as rows of a table: COMPAS, ACS-Income (Colorado) and Adult, with the group that may act named.

Files are those of the folder that ``TTCA_DATA`` names (``tabular/*.csv.gz``); only the standard library and numpy
read them. Which rows are kept is *published* (ProPublica's filter for COMPAS, folktables' for ACS-Income, done in
the file already). Who the minority is, which label is the favourable one, how codes are grouped and how columns
become numbers is *ours*: Ben-Dov et al. (arXiv 2508.15374) do not say it in what was available to us.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError, DataError
from ttca.values import Value

__all__ = [
    "MINORITIES",
    "Encoding",
    "Table",
    "load_acs_income",
    "load_adult",
    "load_compas",
]

_ROOT_VARIABLE = "TTCA_DATA"
_FOLDER = "tabular"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_Row = Mapping[str, str]


@dataclass(frozen=True, eq=False, repr=False)
class Table(Value):
    """People of one data set, row by row.

    Parameters
    ----------
    name : str
        The data set.
    numbers : float64 array, shape (N, A)
        Numeric columns as they are in the file.
    number_names : tuple of str, length A
        What they are.
    categories : int64 array, shape (N, B)
        Categorical columns: the place of each value in ``category_values``.
    category_names : tuple of str, length B
        What they are.
    category_values : tuple of tuples of str, length B
        The values of each, sorted.
    labels : int64 array, shape (N,)
        1 is ``favourable``, 0 is not.
    minority : bool array, shape (N,)
        Whose row it is: the group that may act, or everybody else (the majority).
    minority_name, favourable : str
        Who that group is, and what a label of 1 means to a person.
    sensitive : tuple of str
        Categorical columns that tell the group.
    """

    name: str
    numbers: Floats
    number_names: tuple[str, ...]
    categories: Integers
    category_names: tuple[str, ...]
    category_values: tuple[tuple[str, ...], ...]
    labels: Integers
    minority: Flags
    minority_name: str
    favourable: str
    sensitive: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class Encoding(Value):
    """How a table becomes one matrix: numbers standardised, categories as one column each (*ours*).

    Everything in it was learned from training rows, so that no test row has a say in what a model sees.

    Parameters
    ----------
    mean, scale : float64 arrays, shape (A,)
        Of the training rows; a column without spread has scale 1.
    kept : tuple of int64 arrays, length B
        The values of each categorical column that get a column; others are zeros there.
    """

    mean: Floats
    scale: Floats
    kept: tuple[Integers, ...]

    @classmethod
    def fit(cls, table: Table, rows: Integers, *, without: Sequence[str] = (), least: int = 10) -> Encoding:
        """Return the encoding that these training rows define.

        Parameters
        ----------
        table : Table
            The data set.
        rows : int64 array, shape (R,)
            Numbers of the training rows.
        without : sequence of str
            Categorical columns to leave out, for instance ``table.sensitive``.
        least : int
            Training rows a value needs to get a column of its own, 1 or more.

        Raises
        ------
        ConfigError
            If a column to leave out is none of the table's, or ``least`` is below 1.
        DataError
            If there is no training row.
        """
        if unknown := sorted(set(without) - set(table.category_names)):
            raise ConfigError(
                f"Expected categorical columns among {list(table.category_names)} to leave out, got {unknown}. "
                "Name some of them, or none."
            )
        if least < 1:
            raise ConfigError(f"Expected 1 or more training rows per value, got {least}. Try 10.")
        if not len(rows):
            raise DataError("Expected at least one training row, got none. Check how the rows were chosen.")
        numbers = table.numbers[rows]
        spread = numbers.std(axis=0)
        kept = []
        for b, name in enumerate(table.category_names):
            counts = np.bincount(table.categories[rows, b], minlength=len(table.category_values[b]))
            kept.append(np.flatnonzero(counts >= least) if name not in without else np.empty(0, np.int64))
        return cls(numbers.mean(axis=0), np.where(spread > 0, spread, 1.0), tuple(kept))

    def encode(self, table: Table) -> Floats:
        """Return every row of a table as numbers, float64 of shape (N, D): numeric columns first.

        Raises
        ------
        DataError
            If the table has other columns than the one this encoding was learned from.
        """
        if table.numbers.shape[1] != len(self.mean) or table.categories.shape[1] != len(self.kept):
            raise DataError(
                f"Expected {len(self.mean)} numeric and {len(self.kept)} categorical columns, got "
                f"{table.numbers.shape[1]} and {table.categories.shape[1]}. Encode the table it was learned from."
            )
        one_hot = [table.categories[:, b, None] == kept for b, kept in enumerate(self.kept)]
        return np.hstack([(table.numbers - self.mean) / self.scale, *one_hot]).astype(np.float64)


# --- files -------------------------------------------------------------------------------------------------


def _folder(root: str | os.PathLike[str] | None) -> Path:
    named = os.environ.get(_ROOT_VARIABLE) if root is None else root
    if not named:
        raise DataError(
            f"Expected {_ROOT_VARIABLE} to name the folder that holds {_FOLDER}/*.csv.gz, got nothing. Set it, or "
            "pass root."
        )
    return Path(named) / _FOLDER


def _read(folder: Path, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    path = folder / name
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            found = list(reader.fieldnames or ())
            if missing := [c for c in columns if c not in found]:
                raise DataError(
                    f"Expected the columns {list(columns)} in {path}, got {found}: {missing} are missing. "
                    "Copy the file again, or correct its first line."
                )
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(
            f"Expected a table at {path}, got no file. Put it there, or set {_ROOT_VARIABLE} to the folder that "
            f"holds {_FOLDER}/{name}."
        ) from None
    # A gzip file that was cut short ends with EOFError; one that was altered inside fails in zlib or in UTF-8.
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"Expected a gzipped CSV at {path}, got one that cannot be read ({error}). Copy it again."
        ) from (error)
    for i, row in enumerate(rows):
        # DictReader marks a line that is too short with None, and one that is too long with the key None.
        if None in row or any(value is None for value in row.values()):
            raise DataError(
                f"Expected {len(found)} cells in each line of {path}, got another number in row {i}. Copy it again."
            )
    if not rows:
        raise DataError(f"Expected at least one row in {path}, got none. Copy it again.")
    return rows


def _number(row: _Row, column: str, i: int, place: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(
            f"Expected a number in the column {column!r} of {place}, got {row[column]!r} in row {i}. Correct the file."
        )
    return value


def _choice(row: _Row, column: str, values: Mapping[str, int], i: int, place: str) -> int:
    try:
        return values[row[column].strip()]
    except KeyError:
        raise DataError(
            f"Expected one of {list(values)} in the column {column!r} of {place}, got {row[column]!r} in row {i}. "
            "Correct the file."
        ) from None


@dataclass(frozen=True)
class _Layout:
    """What is read from a file: its columns, the label, who is the minority, and how codes are grouped."""

    name: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    label: str
    values: Mapping[str, int]
    favourable: str
    grouped: Mapping[str, Callable[[str], str]]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.numbers, *self.categories, self.label)


@dataclass(frozen=True)
class _Minority:
    """Who may act: a test of one column, and who is left out of the comparison."""

    column: str
    member: Callable[[str], bool]
    compared: Callable[[str], bool] = lambda value: True


def _table(rows: Sequence[_Row], layout: _Layout, minority: str, place: str) -> Table:
    known = _GROUPS[layout.name]
    if minority not in known:
        raise ConfigError(
            f"Expected the minority of {layout.name} to be one of {', '.join(known)}, got {minority!r}. Choose one."
        )
    group = known[minority]
    rows = [row for row in rows if group.compared(row[group.column].strip())]
    if not rows:
        raise DataError(f"Expected people to compare in {place}, got none after the filter. Copy the file again.")

    def value(row: _Row, column: str) -> str:
        text = row[column].strip()
        return layout.grouped[column](text) if column in layout.grouped else text

    numbers = np.array([[_number(row, c, i, place) for c in layout.numbers] for i, row in enumerate(rows)])
    codes, values = [], []
    for column in layout.categories:
        try:
            texts = [value(row, column) for row in rows]
        except ValueError:
            raise DataError(
                f"Expected codes in the column {column!r} of {place}, got other text. Copy it again."
            ) from None
        names, inverse = np.unique(np.array(texts), return_inverse=True)
        codes.append(inverse.astype(np.int64))
        values.append(tuple(str(name) for name in names))
    members = np.array([group.member(row[group.column].strip()) for row in rows], np.bool_)
    if members.all() or not members.any():
        raise DataError(
            f"Expected people of both groups in {place} ({minority} and everybody else), got only one group. Choose "
            "another minority, or copy the file again."
        )
    return Table(
        name=layout.name,
        numbers=numbers.astype(np.float64),
        number_names=layout.numbers,
        categories=np.stack(codes, axis=1),
        category_names=layout.categories,
        category_values=tuple(values),
        labels=np.array([_choice(row, layout.label, layout.values, i, place) for i, row in enumerate(rows)], np.int64),
        minority=members,
        minority_name=minority,
        favourable=layout.favourable,
        sensitive=(group.column,),
    )


def _hundreds(code: str) -> str:
    """Return the hundreds of a census code: the families of occupations and the continents of birth."""
    return str(int(float(code)) // 100)


def _country(name: str) -> str:
    return name if name in ("United-States", "?") else "elsewhere"


_COMPAS = _Layout(
    name="compas",
    numbers=("age", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"),
    categories=("sex", "race", "c_charge_degree"),
    label="two_year_recid",
    values={"0": 1, "1": 0},
    favourable="no new offense recorded within two years",
    grouped={},
)
_ACS = _Layout(
    name="acs_income",
    numbers=("AGEP", "SCHL", "WKHP"),
    categories=("COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P"),
    label="PINCP_over_50k",
    values={"0": 0, "1": 1},
    favourable="an income above 50,000 dollars",
    grouped={"OCCP": _hundreds, "POBP": _hundreds},
)
_ADULT = _Layout(
    name="adult",
    numbers=("age", "education_num", "capital_gain", "capital_loss", "hours_per_week"),
    categories=("workclass", "marital_status", "occupation", "relationship", "race", "sex", "native_country"),
    label="income",
    # UCI's test file ends its labels with a full stop.
    values={"<=50K": 0, ">50K": 1, "<=50K.": 0, ">50K.": 1},
    favourable="an income above 50,000 dollars",
    grouped={"native_country": _country},
)

_GROUPS: Mapping[str, Mapping[str, _Minority]] = {
    "compas": {
        "african_american": _Minority("race", lambda v: v == "African-American"),
        "african_american_or_caucasian": _Minority(
            "race", lambda v: v == "African-American", lambda v: v in ("African-American", "Caucasian")
        ),
    },
    "acs_income": {
        "women": _Minority("SEX", lambda v: v in ("2", "2.0")),
        "not_white": _Minority("RAC1P", lambda v: v not in ("1", "1.0")),
    },
    "adult": {
        "women": _Minority("sex", lambda v: v == "Female"),
        "not_white": _Minority("race", lambda v: v != "White"),
    },
}

MINORITIES: Mapping[str, tuple[str, ...]] = {name: tuple(groups) for name, groups in _GROUPS.items()}
"""Who may act, by data set; the first of each is the default. ``african_american_or_caucasian`` compares these two
groups alone, as ProPublica did; everywhere else the majority is everybody who is not of the minority."""


# --- data sets ---------------------------------------------------------------------------------------------


def load_compas(*, minority: str = "african_american", root: str | os.PathLike[str] | None = None) -> Table:
    """Return COMPAS's people, two years on.

    Parameters
    ----------
    minority : str
        One of ``MINORITIES["compas"]``: whose labels may be flipped. African-American people are 51 % of these rows;
        the word is the method's, not a count.
    root : path, optional
        Folder that holds ``tabular/compas-two-years.csv.gz``; by default what ``TTCA_DATA`` names.

    Returns
    -------
    Table
        6,172 rows of the real file.

    Raises
    ------
    DataError
        If there is no folder, no file, or one with other columns or cells.
    ConfigError
        If the minority is none of those above.

    Notes
    -----
    The filter is ProPublica's (*published*): screened within 30 days of the arrest, recidivism known, no ordinary
    traffic offence, a score given. COMPAS's own scores are no columns here. That the favourable label
    is 1 is *ours*.
    """
    folder = _folder(root)
    extra = ("days_b_screening_arrest", "is_recid", "score_text")
    rows = _read(folder, "compas-two-years.csv.gz", (*_COMPAS.columns, *extra))
    place = str(folder / "compas-two-years.csv.gz")

    def kept(i: int, row: _Row) -> bool:
        days = row["days_b_screening_arrest"].strip()
        return (
            bool(days)
            and abs(_number(row, "days_b_screening_arrest", i, place)) <= 30
            and row["is_recid"].strip() != "-1"
            and row["c_charge_degree"].strip() != "O"
            and row["score_text"].strip() not in ("", "N/A")
        )

    return _table([row for i, row in enumerate(rows) if kept(i, row)], _COMPAS, minority, place)


def load_acs_income(*, minority: str = "women", root: str | os.PathLike[str] | None = None) -> Table:
    """Return ACSIncome's people of Colorado.

    Parameters
    ----------
    minority : str
        One of ``MINORITIES["acs_income"]``.
    root : path, optional
        Folder that holds ``tabular/acsincome-co.csv.gz``; by default what ``TTCA_DATA`` names.

    Returns
    -------
    Table
        31,306 rows of the real file. Occupation and place of birth are grouped by the hundreds of their codes (*ours*).

    Raises
    ------
    DataError, ConfigError
        As :func:`load_compas`.

    Notes
    -----
    Columns and target *published* (folktables; Ding et al. 2021, arXiv 2108.04884). The rows of one state are other
    people than those the paper measured; where those lived is not known to us.
    """
    folder = _folder(root)
    name = "acsincome-co.csv.gz"
    return _table(_read(folder, name, _ACS.columns), _ACS, minority, str(folder / name))


def load_adult(*, minority: str = "women", root: str | os.PathLike[str] | None = None) -> Table:
    """Return UCI Adult's people, both official parts in one table.

    Parameters
    ----------
    minority : str
        One of ``MINORITIES["adult"]``.
    root : path, optional
        Folder that holds ``tabular/adult-train.csv.gz`` and ``adult-test.csv.gz``; by default what ``TTCA_DATA`` names.

    Returns
    -------
    Table
        48,842 rows of the real files, those of the train part first. The survey weight, and education in words, which
        repeats ``education_num``, are left out; countries but one are grouped (*ours*).

    Raises
    ------
    DataError, ConfigError
        As :func:`load_compas`.
    """
    folder = _folder(root)
    parts = (_read(folder, f"adult-{part}.csv.gz", _ADULT.columns) for part in ("train", "test"))
    return _table(list(chain.from_iterable(parts)), _ADULT, minority, f"{folder}/adult-train|test.csv.gz")

"""From members' records in a table and a strategy in a TOML file to the report that a trusted party reads. *Ours*.

A report must number features, values and labels as every other collective's does. So the strategy's file lists them
all, in an order that the collectives agree on, and the report carries a digest of that list.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ttca.copying import shell_word
from ttca.data.tables import Problems, read_sheet
from ttca.errors import ConfigError, DataError
from ttca.mistakes import Mistakes, toml_advice
from ttca.names import canonical, unknown_name
from ttca.rounding import at_least
from ttca.training_time.aggregator import Report
from ttca.training_time.bounds import Others, Setting, SuccessBound, shared_bound, shared_unplanting_bound
from ttca.training_time.signals import (
    Domain,
    FeatureLabelPlanting,
    FeatureOnlyPlanting,
    Integers,
    NaiveUnplanting,
    Planting,
    Records,
    Signal,
    Unplanting,
)

__all__ = ["TEMPLATE", "Names", "StrategyFile", "promised", "read_records", "read_strategy", "report_of"]

#: The tables of a strategy file whose settings have names, beside the features.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "collective": ("name", "records"),
    "label": ("column", "values"),
    "strategy": ("kind", "target", "replacement", "signal", "elsewhere"),
}

TEMPLATE = """\
# What a collective will do to its members' records. Fill it in, then run: ttca report-records {file} --out report.json
# Send the report to the trusted party only, who runs: ttca aggregate REPORT... --population N

[collective]
name = "north"                   # letters, digits, - and _; used as a file name
records = "members.csv"          # one line per member, as their records are now; next to this file, or a full path

# Every feature the platform trains on, with all its values as text. Features, values and labels must be in the same
# order in the files of all collectives on the platform. Make numbers coarser in the table first, such as "30 to 49".
[features]
"heat exposure" = ["low", "middle", "high"]
"tree cover" = ["few", "many"]

[label]
column = "intervention"
values = ["cool roofs", "street trees", "flood barriers", "retrofits"]

[strategy]
kind = "feature-label"           # or "feature-only", or "unplanting"
target = "retrofits"             # the label to plant; for unplanting, the one to push out
# replacement = "cool roofs"     # unplanting: the label to report instead

[strategy.signal]                # what members set in their features
"tree cover" = "many"

# [strategy.elsewhere]           # feature-only: a value for every feature; members with another label move there
"""

#: Different faults of a table that one error tells, and characters of a cell that it shows.
_NAMED, _SHOWN = 8, 40
#: The same of any other value.
_OTHERS = "Expected values that the strategy's file lists, got another one."
#: What to do about a kind of strategy that a report cannot be written of.
_OTHER_KINDS = "Choose one. Erasing, adaptive unplanting and relabeling are for Python alone (docs/training_time.md)."
#: What to do about a value that the strategy's file does not have.
_LISTED = "Correct it, or list it in [features] or [label] of every collective's file."


@dataclass(frozen=True)
class Names:
    """What the numbers of a domain stand for. *Ours*.

    Parameters
    ----------
    features : dict of str to tuple of str
        Values of each feature, in the order of their numbers.
    label : str
        Column of the labels.
    labels : tuple of str
        Labels in the order of their numbers.
    """

    features: Mapping[str, tuple[str, ...]]
    label: str
    labels: tuple[str, ...]

    @property
    def domain(self) -> Domain:
        """X×Y."""
        return Domain(tuple(len(values) for values in self.features.values()), len(self.labels))

    def digest(self) -> str:
        """Return a SHA-256, 64 hex digits: two collectives with the same number everything alike."""
        # In one spelling each: the files are written on several machines.
        features = [[canonical(name), [canonical(v) for v in values]] for name, values in self.features.items()]
        told = [features, canonical(self.label), [canonical(v) for v in self.labels]]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True)
class StrategyFile:
    """A strategy's file, read and checked. *Ours*.

    Parameters
    ----------
    name : str
        Of the collective.
    records : Path
        The members' table.
    names : Names
    strategy : Planting or Unplanting
    """

    name: str
    records: Path
    names: Names
    strategy: Planting | Unplanting

    def told(self, bound: SuccessBound, setting: Setting, *, others: int) -> str:
        """Return what a bound on this strategy's success means, and that so many ``others`` act, for people."""
        acting = f"{others} people act" if others else "nobody acts"
        whose = (
            f"{bound.size} members of {self.name} among {setting.population} people, if {acting} in other collectives"
        )
        signal = self.strategy.signal
        features = list(self.names.features.items())
        shown = " and ".join(
            f"{features[c][0]} = {features[c][1][v]}" for c, v in zip(signal.columns, signal.values, strict=True)
        )
        does = "get" if isinstance(self.strategy, Planting) else "do not get"
        what = f"of those with {shown} {does} the answer {self.names.labels[self.strategy.target]}"
        if bound.vacuous:
            return (
                f"Nothing is promised to the {whose}. More members would be promised more; a signal of more features "
                "often is, too."
            )
        return (
            f"With {100 * (1 - setting.delta):g} % confidence, at least {at_least(bound.value)} {what}. It holds for "
            f"{whose}, and if records are independent draws."
        )


# --- the strategy -------------------------------------------------------------------------------------------


def read_strategy(path: Path | str) -> StrategyFile:
    """Read a strategy's file (:data:`TEMPLATE` shows one).

    Raises
    ------
    ConfigError
        If the file cannot be read, a name is unknown or missing, or the strategy contradicts itself.

    Notes
    -----
    *Ours*.
    """
    path = Path(path)
    try:
        # utf-8-sig: some editors put a byte-order mark in front.
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            f"Expected a strategy file at {path}, got no file. Write one with: "
            f"ttca report-records {shell_word(path)} --init"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"Expected a strategy file, got the folder {str(path)!r}. Name the file in it.") from None
    except (OSError, ValueError, RecursionError) as error:  # tomllib's own are ValueErrors
        advice = toml_advice(str(error)) or " Correct the file."
        raise ConfigError(f"Expected TOML in {path}, got: {error}.{advice}") from None
    _check_names(told, path)
    collective, label = _section(told, "collective", path), _section(told, "label", path)
    features = told.get("features")
    if not isinstance(features, dict) or not features:
        raise ConfigError(f"Expected the table [features] in {path} with one feature or more, got {features!r}.")
    names = Names(
        {name: _values(values, f"features.{name}", path) for name, values in features.items()},
        _text(label, "column", "label", path),
        _values(label.get("values"), "label.values", path),
    )
    if len({_as_column(name) for name in features}) < len(features):
        raise ConfigError(f"Expected each feature once in {path}, got {list(features)}. Remove the duplicate.")
    if _as_column(names.label) in map(_as_column, names.features):
        raise ConfigError(
            f"Expected a label that is not also a feature in {path}, got {names.label!r} for both. Leave it out of "
            "[features]."
        )
    strategy = _strategy(told, names, path)
    try:
        records = path.parent / Path(_text(collective, "records", "collective", path)).expanduser()
    except RuntimeError as error:  # Somebody's home that is not there.
        raise ConfigError(
            f"Expected collective.records in {path} as a path, got: {error}. Write the full path."
        ) from None
    return StrategyFile(_text(collective, "name", "collective", path), records, names, strategy)


def _strategy(told: Mapping[str, Any], names: Names, path: Path) -> Planting | Unplanting:
    found = _section(told, "strategy", path)
    kind = _text(found, "kind", "strategy", path)
    needs: dict[str, set[str]] = {"feature-label": set(), "feature-only": {"elsewhere"}, "unplanting": {"replacement"}}
    if kind not in needs:
        raise ConfigError(unknown_name(f"strategy.kind in {path}", kind, tuple(needs), otherwise=_OTHER_KINDS))
    if unused := sorted({"replacement", "elsewhere"} & found.keys() - needs[kind]):
        raise ConfigError(
            f"Expected only settings that {kind} needs in {path}, got {', '.join(unused)} as well. Leave out what it "
            "does not need."
        )
    cells = _cells(found.get("signal"), "strategy.signal", names, path)
    columns = tuple(list(names.features).index(name) for name in cells)
    signal = Signal(names.domain, columns, tuple(cells.values()))
    target = _label(_text(found, "target", "strategy", path), "strategy.target", names, path)
    if kind == "feature-label":
        return FeatureLabelPlanting(signal, target)
    if kind == "unplanting":
        instead = _text(found, "replacement", "strategy", path)
        if (replacement := _label(instead, "strategy.replacement", names, path)) == target:
            raise ConfigError(
                f"Expected in {path} another label as strategy.replacement than the target, got {instead!r} for both. "
                "Name the label that members report in its place."
            )
        return NaiveUnplanting(signal, target, replacement)
    elsewhere = _cells(found.get("elsewhere"), "strategy.elsewhere", names, path)
    if missing := [name for name in names.features if name not in elsewhere]:
        raise ConfigError(f"Expected every feature in strategy.elsewhere of {path}, got none for {missing}. Add them.")
    if all(elsewhere[name] == value for name, value in cells.items()):
        raise ConfigError(
            f"Expected strategy.elsewhere in {path} to be without the signal, got a combination that shows it. Change "
            f"the value of one of these: {', '.join(cells)}."
        )
    cell = names.domain.encode([[elsewhere[name] for name in names.features]])
    return FeatureOnlyPlanting(signal, target, int(cell[0]))


def _check_names(told: Mapping[str, Any], path: Path) -> None:
    """Raise where a table or a setting is not known: all of them at once."""
    mistakes = Mistakes(str(path))
    tables = {f"a setting of [{name}] in {path}": (told.get(name), known) for name, known in _SETTINGS.items()}
    for what, (found, known) in {f"a table of {path}": (told, (*_SETTINGS, "features")), **tables}.items():
        strange = [name for name in found if name not in known] if isinstance(found, dict) else []
        mistakes.tell(*(unknown_name(what, name, known) for name in strange))
    if mistakes.sentences:
        raise mistakes.error()


def _section(told: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = told.get(name)
    if not isinstance(found, dict):
        raise ConfigError(f"Expected the table [{name}] in {path}, got {found!r}. Add it.")
    return cast("dict[str, Any]", found)


def _known(found: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in found:
        if name not in known:
            raise ConfigError(unknown_name(what, name, known))


def _as_column(name: str) -> str:
    """Return the name that a column has in a table that was read."""
    return canonical(name).casefold()


def _text(found: Mapping[str, Any], key: str, table: str, path: Path) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not value.strip():
        got = repr(value) if key in found else "nothing"
        cure = "Write it in quotes" if key in found and not isinstance(value, str) else "Fill it in"
        raise ConfigError(f"Expected {table}.{key} in {path} as text, got {got}. {cure}.")
    return value


def _values(values: object, where: str, path: Path) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v == v.strip() for v in values):
        raise ConfigError(
            f"Expected {where} in {path} as a list of texts without spaces around them, got {values!r}. List all "
            "values, in quotes."
        )
    if len({canonical(v) for v in values}) < len(values):
        raise ConfigError(f"Expected each value once in {where} of {path}, got {values}. Remove the duplicate.")
    return tuple(values)


def _cells(told: object, where: str, names: Names, path: Path) -> dict[str, int]:
    """Return the number of each feature's value in a table of the file."""
    if not isinstance(told, dict) or not told:
        raise ConfigError(f"Expected the table [{where}] in {path} with one feature or more, got {told!r}. Add it.")
    _known(told, tuple(names.features), f"a feature of [{where}] in {path}")
    return {name: _number(value, names.features[name], f"{where}.{name}", path) for name, value in told.items()}


def _label(value: str, where: str, names: Names, path: Path) -> int:
    return _number(value, names.labels, where, path)


def _number(value: object, known: Sequence[str], where: str, path: Path) -> int:
    if value not in known:
        if isinstance(value, str):
            raise ConfigError(unknown_name(f"{where} in {path}", value, known))
        raise ConfigError(f"Expected {where} in {path} as text, got {value!r}. Write it in quotes.")
    return known.index(cast("str", value))


# --- the records --------------------------------------------------------------------------------------------


def read_records(path: Path | str, names: Names) -> Integers:
    """Return the histogram of a table of members.

    Parameters
    ----------
    path : Path or str
        A table as spreadsheets write it (:func:`ttca.data.tables.read_sheet`), with a first line of column names;
        columns that are no feature and not the label are not read.
    names : Names

    Returns
    -------
    int64 array, shape (#X, #Y)

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, or a value is none of those named; the first few such values
        are listed.

    Notes
    -----
    *Ours*.
    """
    path = Path(path)
    wanted = [_as_column(name) for name in (*names.features, names.label)]
    known = [*names.features.values(), names.labels]
    numbers = [{canonical(value): i for i, value in enumerate(values)} for values in known]
    problems = Problems()
    try:
        sheet = read_sheet(path, wanted, None, problems)
    except ValueError as error:  # A path may hold what no path can.
        raise DataError(f"Expected a table at {path}, got: {error}. Correct collective.records.") from None
    rows: list[list[int]] = []
    told: dict[tuple[int, str], str] = {}
    for line, row in sheet.rows:
        cells = [canonical(row[name]) for name in wanted]
        wrong = [i for i, cell in enumerate(cells) if cell not in numbers[i]]
        for i in wrong:
            said = (i, cells[i][:_SHOWN])
            if said not in told and len(told) < _NAMED:
                told[said] = unknown_name(wanted[i], said[1], known[i], otherwise=_LISTED)
            problems.add(line, told.get(said, _OTHERS), f"Line {line}: ")
        if not wrong:
            rows.append([of[cell] for of, cell in zip(numbers, cells, strict=True)])
    problems.raise_if_any(path, "members' records")
    if not rows:
        raise DataError(f"Expected one member or more in {path}, got none. Add a line per member.")
    table = np.array(rows, np.int64)
    return Records.from_features(names.domain, table[:, :-1], table[:, -1]).counts()


def promised(file: StrategyFile, others: Others, setting: Setting) -> SuccessBound:
    """Return what a collective is promised: the bound on its strategy's success, by its members' records as they are.

    Parameters
    ----------
    file : StrategyFile
    others : Others
        What is known of other collectives.
    setting : Setting

    Raises
    ------
    ConfigError, DataError
        As :func:`read_records`, :func:`~ttca.training_time.bounds.shared_bound` and
        :func:`~ttca.training_time.bounds.shared_unplanting_bound`.

    Notes
    -----
    *Ours*; the bounds are *derived*.
    """
    counts = read_records(file.records, file.names)
    if isinstance(file.strategy, Planting):
        return shared_bound(file.strategy, counts, others, setting)
    return shared_unplanting_bound(file.strategy, counts, others, setting)


def report_of(file: StrategyFile) -> Report:
    """Return the report of a collective: its members' records as the strategy leaves them.

    Raises
    ------
    ConfigError, DataError
        As :func:`read_records` and :class:`~ttca.training_time.aggregator.Report`.

    Notes
    -----
    *Ours*.
    """
    counts = read_records(file.records, file.names)
    return Report.of(file.name, file.strategy, counts, names=file.names.digest())

"""From members' records in a CSV file and a strategy in a TOML file to the report that a trusted party reads. *Ours*.

A report must number features, values and labels as every other collective's does. So the strategy's file lists them
all, in an order that the collectives agree on, and the report carries a digest of that list.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ttca.copying import shell_word
from ttca.errors import ConfigError, DataError
from ttca.mistakes import Mistakes
from ttca.names import canonical, unknown_name
from ttca.training_time.aggregator import Report
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

__all__ = ["TEMPLATE", "Names", "StrategyFile", "read_records", "read_strategy", "report_of"]

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

# Every feature the platform trains on, with all its values. Features, values and labels must be in the same order in
# the files of all collectives on the platform.
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

#: Faults of a table that one error names.
_NAMED = 5
#: Characters of a cell that an error shows.
_SHOWN = 40


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
        raise ConfigError(f"Expected TOML in {path}, got: {error}. Correct the file.") from None
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
    if len({canonical(name) for name in features}) < len(features):
        raise ConfigError(f"Expected each feature once in {path}, got {list(features)}. Remove the duplicate.")
    if canonical(names.label) in map(canonical, names.features):
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
        raise ConfigError(unknown_name(f"strategy.kind in {path}", kind, tuple(needs), otherwise="Choose one."))
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
        return NaiveUnplanting(signal, target, _label(instead, "strategy.replacement", names, path))
    elsewhere = _cells(found.get("elsewhere"), "strategy.elsewhere", names, path)
    if missing := [name for name in names.features if name not in elsewhere]:
        raise ConfigError(f"Expected every feature in strategy.elsewhere of {path}, got none for {missing}. Add them.")
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


def _text(found: Mapping[str, Any], key: str, table: str, path: Path) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"Expected {table}.{key} in {path} as text, got {value!r}. Write it in quotes.")
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


def read_records(path: Path, names: Names) -> Integers:
    """Return the histogram of a table of members.

    Parameters
    ----------
    path : Path
        CSV, UTF-8, with a first line of column names; columns that are no feature and not the label are not read.
    names : Names

    Returns
    -------
    int64 array, shape (#X, #Y)

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, or a value is none of those named; the first few lines with
        such a value are listed.

    Notes
    -----
    *Ours*.
    """
    wanted = [canonical(name) for name in (*names.features, names.label)]
    known = [*names.features.values(), names.labels]
    numbers = [{canonical(value): i for i, value in enumerate(values)} for values in known]
    # Only those that are named: a table of the wrong kind has one in every cell.
    faults: list[str] = []
    faulty = 0
    rows: list[list[int]] = []
    try:
        # A spreadsheet's CSV may begin with a mark that is no part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            head = [canonical(name) for name in next(lines, [])]
            twice = sorted({name for name in wanted if head.count(name) > 1})
            missing = [name for name in wanted if name not in head]
            if missing or twice:
                commas = len(head) == 1 and ";" in head[0]
                cure = "Save it with commas between the columns." if commas else "Correct its first line."
                raise DataError(
                    f"Expected the columns {wanted} once each in {path}, got {[name[:_SHOWN] for name in head]}: "
                    f"{missing or twice} {'are missing' if missing else 'are there twice'}. {cure}"
                )
            places = [head.index(name) for name in wanted]
            for line in lines:
                if not line:
                    continue
                if len(line) != len(head):
                    faulty += 1
                    if len(faults) < _NAMED:
                        faults.append(f"line {lines.line_num} has {len(line)} cells instead of {len(head)}")
                    continue
                cells = [canonical(line[place]) for place in places]
                wrong = [i for i, cell in enumerate(cells) if cell not in numbers[i]]
                faulty += len(wrong)
                faults += [
                    f"line {lines.line_num}: {unknown_name(wanted[i], cells[i][:_SHOWN], known[i]).removesuffix('.')}"
                    for i in wrong[: _NAMED - len(faults)]
                ]
                if not wrong:
                    rows.append([of[cell] for of, cell in zip(numbers, cells, strict=True)])
    except FileNotFoundError:
        raise DataError(
            f"Expected the members' records at {path}, got no file. Put the file there, or correct collective.records."
        ) from None
    except (OSError, ValueError, csv.Error) as error:  # A path may hold what no path can.
        raise DataError(f"Expected a CSV file in UTF-8 at {path}, got: {error}. Save it again as CSV.") from None
    if faulty:
        more = f"; and {faulty - _NAMED} more" if faulty > _NAMED else ""
        raise DataError(
            f"Expected only values that the strategy file lists in {path}, got {'; '.join(faults)}{more}. Correct "
            "them, or list the values in [features] and [label]."
        )
    if not rows:
        raise DataError(f"Expected one member or more in {path}, got none. Add a line per member.")
    table = np.array(rows, np.int64)
    return Records.from_features(names.domain, table[:, :-1], table[:, -1]).counts()


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

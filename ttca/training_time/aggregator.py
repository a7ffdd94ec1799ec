"""A trusted party between collectives: it reads what each will submit, and publishes to each only its conflict term.

Files are JSON. A *report* goes from a collective to the trusted party and holds the histogram of its members' records
as they will be submitted; a *conflict* comes back and holds one table over the collective's own signal set, summed over
all others. With only two collectives that sum is the other's own data on those cells: see docs/training_time.md.
The tier is *derived* (after arXiv 2605.06749), the files are *ours*.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ttca.errors import ConfigError, DataError
from ttca.platforms.protocols.reading import UnreadableError, read_json
from ttca.private import private
from ttca.training_time.bounds import PublishedConflict, check_people
from ttca.training_time.signals import Domain, Integers, Planting, Signal, Strategy, Unplanting
from ttca.values import OneLine

__all__ = ["FORMAT", "Report", "aggregate", "aggregate_files", "read_conflict", "read_report", "save_report"]

FORMAT = 1
"""Version of both files."""


@dataclass(frozen=True, eq=False, repr=False)
class Report(OneLine):
    """What a collective tells the trusted party, and nobody else.

    Parameters
    ----------
    name : str
        Of the collective: letters, digits, ``-`` and ``_``, because it names a file.
    signal : Signal
        Where its success is decided.
    target : int
        y*.
    submitted : int64 array, shape (#X, #Y)
        Its members' records *after* its strategy.
    names : str, optional
        A digest of what its numbers stand for (:meth:`ttca.training_time.records.Names.digest`).

    Raises
    ------
    ConfigError
        If the name could not name a file, or the target is no label.
    DataError
        If ``submitted`` is no histogram of the signal's domain.

    Notes
    -----
    *Ours*. Not the strategy: what it makes of the records is all that the conflict depends on.
    """

    name: str
    signal: Signal
    target: int
    submitted: Integers
    names: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum() or not self.name.isascii():
            raise ConfigError(
                f"Expected a name of letters, digits, - and _, got {self.name!r}. It becomes the name of a file."
            )
        self.signal.domain.label(self.target)
        object.__setattr__(self, "submitted", self.signal.domain.counts(self.submitted, "the submitted records"))

    @classmethod
    def of(cls, name: str, strategy: Planting | Unplanting, counts: Integers, *, names: str | None = None) -> Report:
        """Return the report of members with these records, int64 of shape (#X, #Y), before they change them.

        Raises
        ------
        ConfigError, DataError
            As the class; ConfigError too where the strategy has no target, as erasing has none.

        Notes
        -----
        *Ours*.
        """
        if not isinstance(strategy, Planting | Unplanting):
            raise ConfigError(
                f"Expected a strategy that plants or unplants, got {type(strategy).__name__}. The conflict of any "
                "other cannot be told from a report: use the tiers worst or full."
            )
        return cls(name, strategy.signal, strategy.target, strategy.on_counts(counts), names)

    @property
    def size(self) -> int:
        """n_j."""
        return int(self.submitted.sum())


def aggregate(reports: Sequence[Report], population: int) -> dict[str, PublishedConflict]:
    """Return the conflict term of every collective, by its name.

    Parameters
    ----------
    reports : sequence of Report
        Two or more, of different names and one domain.
    population : int
        N, all people the platform trains on.

    Returns
    -------
    dict of str to PublishedConflict
        For collective m the float64 table of shape (#X̃_m, #Y) and how many others act.

    Raises
    ------
    ConfigError
        If there are fewer than two reports, a name comes twice, domains or what their numbers stand for differ, or the
        population is no number or smaller than all collectives together.

    Notes
    -----
    *Derived* (after arXiv 2605.06749, tier *aggregator*): Σ_{j≠m} (n_j/N)(P_{h_j(D_j)}(x, y') − P_{h_j(D_j)}(x, y*_m)).
    """
    names = [report.name for report in reports]
    check_people(population, "the population", least=1)
    # Names of files: on many machines Aa is aa.
    if len(reports) < 2 or len({name.casefold() for name in names}) < len(names):
        raise ConfigError(
            f"Expected reports of two or more collectives with different names, got {names}. "
            "Pass each collective's report once."
        )
    domain = reports[0].signal.domain
    for report in reports:
        if report.signal.domain != domain:
            raise ConfigError(
                f"Expected reports over one domain, got {domain} and, from {report.name}, {report.signal.domain}. All "
                "collectives must number features and labels in the same way."
            )
    if len({report.names for report in reports} - {None}) > 1:
        raise ConfigError(
            "Expected reports whose features, values and labels are the same in the same order, got different ones, "
            "so their numbers mean different things. Agree on [features] and [label], and write the reports again."
        )
    everyone = np.sum([report.submitted for report in reports], axis=0)
    if population < int(everyone.sum()):
        raise ConfigError(
            f"Expected a population of at least the {int(everyone.sum())} people who act, got {population}. "
            "It counts everybody the platform trains on."
        )
    published = {}
    for report in reports:
        after = (everyone - report.submitted)[report.signal.cells]
        term = (after - after[:, [report.target]]) / population
        published[report.name] = PublishedConflict(int(everyone.sum()) - report.size, term, population)
    return published


def aggregate_files(files: Sequence[Path], folder: Path, population: int) -> dict[str, Any]:
    """Read reports, and write for each collective the one file that it may see, ``conflict-NAME.json``.

    Parameters
    ----------
    files : sequence of Path
        Reports (:func:`save_report`).
    folder : Path
        Where the conflict files go; made where it is missing. These collectives' files of an earlier run are replaced.
    population : int
        N.

    Returns
    -------
    dict
        ``population``, ``collectives``, ``acting`` (people in all of them) and ``files`` (name → path). No count of
        any single collective.

    Raises
    ------
    ConfigError
        As :func:`aggregate`, or if a file cannot be written, or the folder has another collective's file of an earlier
        run. Nothing is written then.
    DataError
        If a report cannot be read.

    Notes
    -----
    *Ours*.
    """
    reports = [read_report(Path(file)) for file in files]
    published = aggregate(reports, population)
    paths = {report.name: Path(folder) / f"conflict-{report.name}.json" for report in reports}
    _check_folder(Path(folder), paths.values())
    for report in reports:
        conflict = published[report.name]
        signal = report.signal
        _write(
            paths[report.name],
            {
                "format": FORMAT,
                "kind": "conflict",
                "name": report.name,
                "population": population,
                "others": conflict.people,
                "levels": list(signal.domain.levels),
                "labels": signal.domain.labels,
                "columns": list(signal.columns),
                "values": list(signal.values),
                "target": report.target,
                **({} if report.names is None else {"names": report.names}),
                "term": conflict.term.tolist(),
            },
        )
    acting = sum(report.size for report in reports)
    files_written = {name: str(path) for name, path in paths.items()}
    return {"population": population, "collectives": len(reports), "acting": acting, "files": files_written}


def _check_folder(folder: Path, files: Collection[Path]) -> None:
    """Raise where a folder has a file's name, or another collective's file would lie beside these as if it were new."""
    if other := next((path for path in files if path.is_dir()), None):
        raise ConfigError(f"Expected to write {other}, got a folder of that name. Move it away. Nothing was written.")
    older = sorted(path.name for path in folder.glob("conflict-*.json") if path not in files)
    if older:
        raise ConfigError(
            f"Expected in {folder} no files of other collectives, got {', '.join(older)} of an earlier run. Move it "
            "away, or choose another --folder. Nothing was written."
        )


def save_report(path: Path, report: Report) -> None:
    """Write a report as JSON; only pairs that somebody has are named.

    Raises
    ------
    ConfigError
        If the file cannot be written.

    Notes
    -----
    *Ours*.
    """
    signal = report.signal
    cells, labels = np.nonzero(report.submitted)
    _write(
        path,
        {
            "format": FORMAT,
            "kind": "report",
            "name": report.name,
            "levels": list(signal.domain.levels),
            "labels": signal.domain.labels,
            "columns": list(signal.columns),
            "values": list(signal.values),
            "target": report.target,
            **({} if report.names is None else {"names": report.names}),
            "pairs": np.stack([cells, labels, report.submitted[cells, labels]], axis=1).tolist(),
        },
    )


def read_report(path: Path | str) -> Report:
    """Return the report in a file.

    Raises
    ------
    DataError
        If the file cannot be read, or contradicts itself.

    Notes
    -----
    *Ours*.
    """
    told = _read(Path(path), "report")
    try:
        signal = _signal(told)
        submitted = np.zeros((signal.domain.cells, signal.domain.labels), np.int64)
        pairs = [tuple(_integer(v) for v in pair) for pair in told["pairs"]]
        if len({pair[:2] for pair in pairs}) < len(pairs) or any(len(pair) != 3 or min(pair) < 0 for pair in pairs):
            raise ValueError("a pair is named twice, or is not [cell, label, people]")
        for cell, label, people in pairs:
            submitted[cell, label] = people
        names = told.get("names")
        if names is not None and not isinstance(names, str):
            raise ValueError(f"{names!r} instead of the digest of names")
        return Report(str(told["name"]), signal, _integer(told["target"]), submitted, names)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, ConfigError) as error:
        raise DataError(f"Expected a report in {path}, got: {error}. Write it with `ttca report-records`.") from error


def read_conflict(path: Path | str, strategy: Strategy, name: str, *, names: str | None = None) -> PublishedConflict:
    """Return what the trusted party published for one collective.

    Parameters
    ----------
    path : Path or str
    strategy : Planting or Unplanting
        The collective's own.
    name : str
        The collective's own: another may have the same signal and target.
    names : str, optional
        A digest of what the strategy's numbers stand for (:meth:`ttca.training_time.records.Names.digest`); compared
        where the file has one, too.

    Raises
    ------
    DataError
        If the file cannot be read, or is about another collective, signal or target, or other features and labels.

    Notes
    -----
    *Ours*.
    """
    told = _read(Path(path), "conflict")
    try:
        signal, target, whose = _signal(told), _integer(told["target"]), str(told["name"])
        term, population = np.asarray(told["term"], dtype=np.float64), _integer(told["population"])
        found = PublishedConflict(_integer(told["others"]), term, population)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"Expected a conflict file in {path}, got: {error}. Ask the aggregator again.") from error
    if whose != name:
        raise DataError(
            f"Expected the conflict of the collective {name!r} in {path}, got that of {whose!r}. Use the file that was "
            "published for this collective."
        )
    if not isinstance(strategy, Planting | Unplanting) or signal != strategy.signal or target != strategy.target:
        raise DataError(
            f"Expected in {path} the conflict for this strategy, got the one for another signal or target. Use the "
            "file that was published for this collective. If the strategy was changed since its report, report and "
            "aggregate again."
        )
    if None not in (names, told.get("names")) and told["names"] != names:
        raise DataError(
            f"Expected in {path} the features, values and labels of this strategy in the same order, got others: the "
            "strategy was changed since its report. Undo that, or report and aggregate again."
        )
    return found


def _signal(told: dict[str, Any]) -> Signal:
    domain = Domain(tuple(_integer(n) for n in told["levels"]), _integer(told["labels"]))
    return Signal(domain, tuple(_integer(c) for c in told["columns"]), tuple(_integer(v) for v in told["values"]))


def _integer(value: object) -> int:
    # JSON's true is an int to Python, and 2.5 must not become 2.
    if type(value) is not int:
        raise ValueError(f"{value!r} instead of a whole number")
    return value


def _read(path: Path, kind: str) -> dict[str, Any]:
    if path.is_dir():
        raise DataError(f"Expected a file with a {kind}, got the folder {str(path)!r}. Name the file in it.")
    try:
        told = read_json(path.read_bytes())
    except (OSError, ValueError, UnreadableError) as error:
        raise DataError(f"Expected a {kind} in {path}, got: {error}. Check the path.") from error
    if not isinstance(told, dict) or told.get("kind") != kind or told.get("format") != FORMAT:
        raise DataError(f"Expected a {kind} of format {FORMAT} in {path}, got another file. Check which file it is.")
    return cast("dict[str, Any]", told)


def _write(path: Path, told: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with open(partial, "w", encoding="utf-8", opener=private) as file:
            file.write(json.dumps(told, allow_nan=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"Expected to write {path}, got: {error}. Choose another place.") from error

"""`ttca report-records`, `ttca aggregate` and `ttca promise`: collectives where the platform retrains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttca.commands.shared import ERR, JsonOption, emit, say, write_new
from ttca.copying import shell_word

if TYPE_CHECKING:
    from ttca.training_time.bounds import Others
    from ttca.training_time.records import StrategyFile

__all__ = ["aggregate", "promise", "report_records"]

StrategyArgument = Annotated[
    Path, typer.Argument(help="The collective's strategy file: who takes part, which records, which signal.")
]


def aggregate(
    reports: Annotated[list[Path], typer.Argument(help="The collectives' reports, one file for each.")],
    population: Annotated[int, typer.Option(min=1, help="Number of people the platform trains on, members or not.")],
    folder: Annotated[Path, typer.Option(help="Folder for the conflict files.")] = Path("conflicts"),
    as_json: JsonOption = False,
) -> None:
    """Compute conflicts between several collectives.

    Reads their reports and writes one file for each collective, with its conflict term and nothing else.
    """
    from ttca.training_time.aggregator import aggregate_files

    told = aggregate_files(reports, folder, population)
    files = "\n".join(f"{name}: {file}" for name, file in told["files"].items())
    emit(told, as_json, f"{told['acting']} of {population} people act.\n{files}")


def report_records(
    file: StrategyArgument,
    out: Annotated[Path, typer.Option(help="Where to write the report for the trusted party.")] = Path("report.json"),
    write: Annotated[
        bool, typer.Option("--init", help="Write a commented strategy file for you to fill in, then stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a collective's report for ttca aggregate.

    The report counts its members' records as they will be once the strategy is applied.
    """
    from ttca.errors import ConfigError
    from ttca.training_time.aggregator import save_report
    from ttca.training_time.records import TEMPLATE, read_strategy, report_of

    if write:
        write_new(file, TEMPLATE.replace("{file}", shell_word(file)))
        then = f"ttca report-records {shell_word(file)}"
        say(ERR, f"Wrote {file}. Fill in the features, the label and the strategy, then: {then}")
        if as_json:
            emit({"file": str(file)}, True, "")
        return
    if out.exists():
        raise ConfigError(
            f"Expected a new file for the report, got {out}, which exists already. Choose another with --out, or "
            "delete it if it is an older report."
        )
    known = read_strategy(file)
    told = report_of(known)
    save_report(out, told)
    emit(
        {"file": str(out), "name": told.name, "members": told.size, "names": told.names},
        as_json,
        f"Wrote {out}: what {told.size} members of {told.name} will have submitted, counted by combination and label. "
        "It is for the trusted party alone: a combination that one member has tells that member's record.",
    )


def promise(
    file: StrategyArgument,
    conflict: Annotated[
        Path | None, typer.Option(help="What the trusted party handed to this collective: conflict-NAME.json.")
    ] = None,
    population: Annotated[
        int | None, typer.Option(min=1, help="Number of people the platform trains on, where no file says it.")
    ] = None,
    others: Annotated[
        int | None,
        typer.Option(min=0, help="Without a file: how many people act in other collectives; by default nobody."),
    ] = None,
    delta: Annotated[float, typer.Option(help="The chance that the promise fails.")] = 0.05,
    epsilon: Annotated[float, typer.Option(help="How far from optimal the platform may be.")] = 0.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Take exact margins, which promise more of rare cells.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a collective's strategy is promised.

    Goes by its members' records as they are now, and by what is known of other collectives. Sends nothing.
    """
    from ttca.training_time.bounds import Setting
    from ttca.training_time.records import promised, read_strategy

    known = read_strategy(file)
    rivals, people = _rivals(known, conflict, population, others)
    setting = Setting(people, delta=delta, epsilon=epsilon, margins="exact" if exact else "hoeffding")
    bound = promised(known, rivals, setting)
    told = {
        "name": known.name,
        "members": bound.size,
        "others": rivals.size,
        "population": people,
        "bound": bound.value,
        "delta": delta,
        "epsilon": epsilon,
    }
    emit(told, as_json, known.told(bound, setting, others=rivals.size))


def _rivals(
    known: StrategyFile, conflict: Path | None, population: int | None, others: int | None
) -> tuple[Others, int]:
    """Return what is known of other collectives, and how many people the platform trains on."""
    from ttca.errors import ConfigError
    from ttca.training_time.aggregator import read_conflict
    from ttca.training_time.bounds import TotalSize

    if conflict is None:
        if population is None:
            raise ConfigError("Expected --conflict FILE or --population N, got neither. Give what is known of others.")
        return TotalSize(others or 0), population
    if population is not None or others is not None:
        raise ConfigError(
            "Expected --conflict alone, got --population or --others beside it. The file says both: leave them out."
        )
    found = read_conflict(conflict, known.strategy, known.name, names=known.names.digest())
    return found, found.population or 0

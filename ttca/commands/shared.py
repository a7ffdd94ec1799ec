"""What every command has: its common options, the action it opens, and how it prints results and sentences."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ttca.copying import shell_word
from ttca.private import private
from ttca.terminal import Terminal

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.config import ActionFile
    from ttca.errors import AnswerError
    from ttca.pooling.pool import Member

__all__ = [
    "ERR",
    "OUT",
    "AcceptOption",
    "AnywayOption",
    "DryRunOption",
    "FileArgument",
    "JsonOption",
    "answered_or_opened",
    "asking",
    "duration",
    "emit",
    "opened",
    "reporter",
    "say",
    "say_paid",
    "write_new",
]

FileArgument = Annotated[Path, typer.Argument(help="The action file, or the folder that contains it.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; everything else goes to standard error.")
]
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-new-version", help="Pay again for answers of another version of the platform, if it has changed."
    ),
]
AnywayOption = Annotated[
    bool,
    typer.Option("--anyway", help="Go on although answers do not fit members' own true classes. The row will say so."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what it would cost, then stop.")]

ERR = Terminal(stderr=True)
OUT = Terminal()


def write_new(file: Path, text: str) -> None:
    """Write a text into a file that is not there yet, for its owner's eyes; raise ConfigError where it is."""
    from ttca.errors import ConfigError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name that is no UTF-8 is quoted in the text.
        with open(file, "x", encoding="utf-8", errors="replace", opener=private) as new:
            new.write(text)
    except OSError as error:
        if file.exists():
            raise ConfigError(f"Expected a new file, got {file}, which exists. Choose another name.") from None
        raise ConfigError(f"Expected to write {file}, got: {error}. Choose another place.") from None


def reporter() -> Any:
    """Return where progress is shown: standard error."""
    from ttca.progress import Reporter

    return Reporter(ERR)


@contextmanager
def opened(
    file: Path, *, asks: bool = True, learns: bool = False, accept_new_version: bool = False, anyway: bool = False
) -> Iterator[tuple[ActionFile, CollectiveAction]]:
    """Open an action; where an error ends it, say what was paid, and propose a table if an answer cannot be read.

    ``asks``: False where all is answered, so that the platform need not be there. ``learns``: a proxy will be needed,
    so that what is missing for it is said before anything is asked.
    """
    from ttca.config import read_action
    from ttca.extras import need_extras

    known = read_action(file)
    need_extras("This action", *(("learn",) if learns else ()), *known.extras)
    with (
        known.open(accept_new_version=accept_new_version, anyway=anyway, reporter=reporter())
        if asks
        else known.open_as_answered(reporter=reporter()) as action,
        asking(known, action, file),
    ):
        action.queries.quotas_now = partial(_quotas_now, known, action)
        yield known, action


@contextmanager
def answered_or_opened(file: Path, *, learns: bool) -> Iterator[tuple[ActionFile, CollectiveAction]]:
    """Open an action on its platform as it answered, where a row was measured and nothing is missing; else as it is."""
    from ttca.config import read_action
    from ttca.verifying import is_measured

    if is_measured(read_action(file).folder):
        with opened(file, asks=False) as found:
            if not any(cost.queries for cost in found[1].plan().values()):
                yield found
                return
    with opened(file, learns=learns) as found:
        yield found


def _quotas_now(known: ActionFile, action: CollectiveAction) -> tuple[Sequence[Member], int | None]:
    """Return what an action file says now of the members' quotas and the cap; as before, where it cannot be read."""
    from ttca.config import read_action
    from ttca.errors import ConfigError

    with suppress(ConfigError):
        # Somebody may be writing it.
        known = read_action(known.path)
    return known.payers(list(action.queries.members)), known.pool.cap


@contextmanager
def asking(known: ActionFile, action: CollectiveAction, file: Path) -> Iterator[None]:
    """Say what an error that ends the work has cost, and propose a table where it is an answer that cannot be read."""
    from ttca.errors import AnswerError, QuotaError
    from ttca.prices import bill_of_errors
    from ttca.rehearsal import enough

    name, ledger = action.settings.name, action.queries.ledger
    before = ledger.charged_twice(action=name)

    def remaining() -> int:
        return sum(cost.queries for cost in action.plan().values())

    try:
        with bill_of_errors(ledger, name, known.platform.price, remaining=remaining):
            yield
    except QuotaError as error:
        if error.come_back_s is None and ledger.paid(action=name):
            error.unfinished = True
            said = enough(action, action.plan())
            error.add_note(
                f"{'' if said is None else f'{said.told} '}Waiting alone brings no more of a quota. Come back when "
                "more may be paid: it goes on where it stopped, and pays nothing twice."
            )
        raise
    except AnswerError as error:
        error.args = (f"{error.args[0]} {_advice(known, file, error)}", *error.args[1:])
        raise
    finally:
        # Said also where an error ended it.
        if twice := ledger.charged_twice(action=name) - before:
            queries = "query" if twice == 1 else "queries"
            say(
                ERR,
                f"Charged more than once in this run: {twice} {queries}, since the first answer did not come or "
                "could not be used. Who paid: ttca pool status",
            )


def _advice(known: ActionFile, file: Path, error: AnswerError) -> str:
    """Return what to do about an answer that cannot be read."""
    from ttca.first_answers import proposed
    from ttca.platforms.proposing import proposals, response_of

    section, advice = known.platform, f"Look at one answer: ttca ask {shell_word(file)} IMAGE."
    if section.protocol == "template" and error.body is not None:
        options = {"model": section.model, "version": section.version, **section.options}
        found = proposals(response_of(error.body)[1], options, section.classes)
        advice = "\n".join([advice, *proposed(found)])
    return advice


def say_paid(known: ActionFile, action: CollectiveAction) -> None:
    """Say what the action has cost in money so far, where the price is known."""
    price = known.platform.price
    if price is not None:
        paid = sum(action.ledger.paid(action=action.settings.name).values())
        say(ERR, f"Paid so far: {price.told(paid)}.")


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.0f} h" if seconds < 172800 else f"about {seconds / 86400:.0f} days"


def emit(result: dict[str, Any], as_json: bool, words: str | Table) -> None:
    """Print a result as one JSON object, or as words or a table."""
    if as_json:
        # NaN is no JSON: it must have become None before. DEL is the one control character that JSON leaves as it is.
        sys.stdout.write(json.dumps(result, allow_nan=False).replace("\x7f", "\\u007f") + "\n")
    elif isinstance(words, str):
        say(OUT, words)
    else:
        OUT.print(words)


def say(console: Terminal, sentence: str) -> None:
    """Print a sentence as it is: a bracket in a name is no markup, and no path is broken in two."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)

"""What a command says before it pays, what it asks before what cannot be undone, and how it waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from ttca.commands.shared import ERR, OUT, duration, emit, say
from ttca.copying import shell_word
from ttca.errors import QuotaError, TTCAError, UnconfirmedError
from ttca.people import counted_persons
from ttca.streams import error_object

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.config import ActionFile
    from ttca.people import Roster
    from ttca.pooling.pool import Cost
    from ttca.prices import Price
    from ttca.rehearsal import Enough

__all__ = [
    "WaitOption",
    "YesOption",
    "confirm",
    "confirm_verification",
    "counted_people",
    "patiently",
    "planned",
    "pooled",
]

T = TypeVar("T")

YesOption = Annotated[
    bool, typer.Option("--yes", help="Do not ask before what cannot be undone. Scripts without a terminal need this.")
]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait", help="Wait where a quota is used up or the platform says so, instead of ending with status 75."
    ),
]

#: How often quotas are read while somebody is to raise them.
_LOOK_AGAIN_S = 60.0
#: A wait that a clock ends a moment early would begin again at once.
_LEAST_WAIT_S = 1.0


def patiently(
    wait: bool,
    work: Callable[[], T],
    *,
    for_quotas: bool = True,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> T:
    """Return what the work returns; where it says when to come back and ``wait`` is set, wait until then and go on.

    Where a quota is used up for good, wait until somebody has raised it, unless the work is not worth that. Every step
    of an action goes on where it stopped, so that doing it again pays nothing again.
    """
    while True:
        try:
            return work()
        except TTCAError as error:
            look_again = error.look_again if isinstance(error, QuotaError) and for_quotas else None
            if wait and error.come_back_s is None and look_again is not None:
                say(
                    ERR,
                    f"{error} Waiting until [pool] allows more: the action file is read again every minute. Ctrl-C "
                    "ends it; nothing is lost.",
                )
                while not look_again():
                    sleep(_LOOK_AGAIN_S)
                continue
            if not wait or error.come_back_s is None:
                raise
            seconds = max(_LEAST_WAIT_S, error.come_back_s)
            until = now() + timedelta(seconds=seconds)
            say(ERR, f"{error} Waiting until {until:%H:%M} UTC on {until:%Y-%m-%d}. Ctrl-C ends it; nothing is lost.")
            sleep(seconds)


def confirm(question: str, otherwise: str, *, yes: bool) -> None:
    """Ask on a terminal whether to do what cannot be undone.

    Parameters
    ----------
    question : str
        What is to be done, and why it cannot be undone.
    otherwise : str
        What stays as it is where the answer is no, a sentence.
    yes : bool
        Answered beforehand.

    Raises
    ------
    UnconfirmedError
        If the answer is no, or there is no terminal to ask on.
    """
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UnconfirmedError(f"Expected --yes, or a terminal to ask on, got neither. {question} {otherwise}")
    say(ERR, question)
    ERR.print("Go on? [y/N] ", end="", markup=False, highlight=False)
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise UnconfirmedError(f"Not gone on. {otherwise}")


def confirm_verification(action: CollectiveAction, *, yes: bool) -> None:
    """Ask once before verification people are read, unless that was begun before; δ is learned by then."""
    from ttca.sitting import is_opened

    if is_opened(action.folder):
        return
    # Everything before it is done first, and kept: nothing that was paid depends on the answer.
    action.learn()
    plan = action.plan()
    most = plan["baseline"].queries + plan["verification"].queries
    terms = action.settings.certifying
    confirm(
        f"Verification people can be read once. Next, {action.panel.examined().told(terms)} are asked about, with at "
        f"most {most} queries, whether δ reaches the goal: {terms.aim}. If it fails, or somebody "
        "whose pictures taught δ is forgotten first, a new try needs other people.",
        "No verification person was read. All answers so far and what was learned are kept; run it again to go on.",
        yes=yes,
    )


def pooled(action: CollectiveAction) -> None:
    """Ask what the pool lacks and say how each group is served: whether there is a gap costs nothing to know."""
    from ttca.gap import served_sentence
    from ttca.rehearsal import race_of

    if (race := race_of(action)) is not None:
        say(ERR, race.told)
    transfer = action.pool()
    say(ERR, served_sentence(transfer.served()))
    if transfer.overruled is not None:
        say(ERR, f"Gone on all the same (--anyway). {transfer.overruled}")


def planned(
    known: ActionFile,
    action: CollectiveAction,
    dry_run: bool,
    as_json: bool,
    *,
    learns: bool = True,
    verifies: bool = False,
    reports: bool = False,
) -> bool:
    """Say what the paying steps cost, refuse what the run would refuse, and return whether to stop there.

    The last three say what the command does: see :func:`ttca.rehearsal.rehearse`.
    """
    from dataclasses import asdict

    from ttca.advice import too_few
    from ttca.exposure import exposure
    from ttca.preparation import after_sending
    from ttca.rehearsal import enough, race_of, rehearse
    from ttca.verifying import is_verified

    refusal: TTCAError | None = None
    try:
        rehearse(action, learns=learns, verifies=verifies, reports=reports)
    except TTCAError as error:
        refusal = error
    plan = action.plan()
    warning = exposure(action.roster, action.classes)
    seconds = action.queries.seconds(sum(cost.queries for cost in plan.values()))
    queries = sum(cost.queries for cost in plan.values())
    price = known.platform.price
    short = enough(action, plan)
    table = _cost_table(plan, seconds, price, short)
    doubts = (warning, known.platform.too_small(action.platform.info.image_shape))
    few = too_few(action.settings.certifying, action.panel.examined()) if verifies else None
    warnings = [w for w in (*doubts, few) if w is not None]
    changed = action.queries.changed(action.questions.people.images)
    race = race_of(action) if dry_run else None
    if dry_run:
        people = counted_people(action.roster, action.classes)
        said: dict[str, Any] = {
            "steps": {step: asdict(cost) for step, cost in plan.items()},
            "seconds": seconds,
            "verification": asdict(action.panel.examined()),
            "changed": None if changed is None else asdict(changed),
            "preparation": None if action.roster.preparation is None else action.roster.preparation.to_dict(),
            "cost": None if price is None else {"sum": price.of(queries), "currency": price.currency},
            "people": people,
            "enough": None if short is None else asdict(short),
            "weights": [backbone.shown for backbone in action.backbones],
            "warnings": warnings,
            **({} if race is None else {"race": race.to_dict()}),
        }
        if not as_json:
            OUT.print(_people_table(people))
        emit(said if refusal is None else {**said, **error_object(refusal, 1)}, as_json, table)
    else:
        ERR.print(table)
    if changed is not None and action.queries.accept_new_version and refusal is None:
        say(ERR, f"{changed} They are paid.")
    if dry_run and not as_json:
        if race is not None:
            say(ERR, race.told)
        elif not learns:
            # Otherwise the rehearsal of learning said it.
            say(ERR, action.start.told)
        if saved := action.questions.saved:
            say(ERR, f"Of the pool's queries {saved} are kept to refine δ on the platform.")
        say(ERR, after_sending(action.roster.pool.image_shape, action.roster.preparation))
        say(ERR, _consent(known, action))
    if not as_json:
        if plan["verification"].queries or is_verified(action.folder):
            say(ERR, f"For the certificate: {action.panel.examined().told(action.settings.certifying)}.")
        for sentence in warnings:
            say(ERR, sentence)
    if refusal is not None and dry_run and as_json:
        # The one object on standard output says it already.
        raise typer.Exit(1)
    if refusal is not None:
        raise refusal
    return dry_run


def _consent(known: ActionFile, action: CollectiveAction) -> str:
    """Return how many members have agreed to today's words, and where these are."""
    from ttca.pooling.consent import consents, words

    name, members = action.settings.name, action.queries.members
    text = words(action=name, subgroup=action.settings.subgroup, url=known.platform.url)
    on_record = consents(action.ledger, action=name)
    agreed = {one.member for one in on_record if one.withdrawn_at is None and one.text == text} & set(members)
    return (
        f"Pool nobody's pictures without their yes: {len(agreed)} of {len(members)} members' consent is on record. The "
        f"words to show them: ttca pool consent MEMBER {shell_word(known.path)} --dry-run"
    )


def counted_people(roster: Roster, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return how many persons and images each role, group and class has; combinations without any are left out."""
    found = []
    for role, people in roster.roles().items():
        for group, inside in (("subgroup", people.subgroup), ("reference", ~people.subgroup)):
            for number, name in enumerate(classes):
                rows = inside & (people.classes == number)
                for persons in counted_persons(people[rows]).values():
                    counts = {"persons": persons, "images": int(rows.sum())}
                    found.append({"role": role, "group": group, "class": name, **counts})
    return found


def _people_table(people: list[dict[str, Any]]) -> Table:
    """Return a table with a row for every class and a column for every role and group: persons, images behind them."""
    columns = list(dict.fromkeys((one["role"], one["group"]) for one in people))
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for one in people:
        several = "" if one["images"] == one["persons"] else f" ({one['images']} images)"
        cells.setdefault(one["class"], {})[one["role"], one["group"]] = f"{one['persons']}{several}"
    table = Table("class", *(f"{role}\n{group}" for role, group in columns), title="Who takes part, in persons")
    for name, row in cells.items():
        table.add_row(escape(name), *(row.get(column, "0") for column in columns))
    return table


def _cost_table(plan: Mapping[str, Cost], seconds: float | None, price: Price | None, enough: Enough | None) -> Table:
    table = Table("step", "images", "already answered", "queries to pay, at most", title="What it costs")
    for step, cost in plan.items():
        table.add_row(step, str(cost.images), str(cost.answered), str(cost.queries))
    total = sum(cost.queries for cost in plan.values())
    affordable = min(cost.affordable for cost in plan.values())
    short = "" if enough is None else f" If that runs out, raise quotas, and run it again to resume. {enough.told}"
    took = "" if seconds is None or not total else f" They take {duration(seconds)}."
    money = "" if price is None else f" At most {price.told(total)}."
    # Sentences name tables of the action file in brackets, which would be markup.
    table.caption = escape(f"{total} queries at most; the members can pay {affordable}.{short}{took}{money}")
    return table

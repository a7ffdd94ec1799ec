"""`ttca plan`: what an action would take, before anything is paid."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from ttca.commands.shared import ERR, OUT, FileArgument, JsonOption, emit, opened, say

if TYPE_CHECKING:
    from ttca.planning import ActionPlan
    from ttca.prices import Price

__all__ = ["plan_action"]


def plan_action(
    file: FileArgument,
    gap: Annotated[
        float | None, typer.Option("--gap", help="Assume that the subgroup is so far behind: 0.15 is 15 points.")
    ] = None,
    assume_subgroup: Annotated[
        float | None, typer.Option("--assume-subgroup", help="Assume this rate of right answers for the subgroup.")
    ] = None,
    assume_reference: Annotated[
        float | None, typer.Option("--assume-reference", help="Assume this rate of right answers for the reference.")
    ] = None,
    retrains: Annotated[
        int | None,
        typer.Option(
            "--retrains",
            help="The provider retrains on about so many records: compare planting and relabeling.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Draw the plan into this file, such as plan.png.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan what a certificate would take.

    Goes by the rates in audit.json, or by those assumed. Sends no query.
    """
    from ttca.planning import assume, make_plan, measure_learning, power_curves, successes
    from ttca.pooling.quotas import Quota
    from ttca.rehearsal import race_of

    with opened(file) as (known, action):
        assumed, source = assume(action, gap=gap, subgroup=assume_subgroup, reference=assume_reference)
        pool, price = known.pool, known.platform.price
        quota = Quota(pool.quota, pool.per_second, pool.per_minute, pool.per_day)
        made = make_plan(action, assumed, source=source, quota=quota, price=price, records=retrains)
        learning = measure_learning(action)
        # To ask for the learner would begin the race, which is paid.
        race = race_of(action) if action.settings.races and find_spec("torch") is not None else None
        if out is not None:
            from ttca.planning_figure import save_figure

            save_figure(out, made, power_curves(action, assumed), successes(assumed))
    said = {**made.to_dict(), "learning": None if learning is None else learning.to_dict()}
    said |= {} if race is None else {"race": race.to_dict()}
    unknown = "How long learning takes here is not known: torch is missing." if race is None else race.told
    if as_json:
        emit({**said, "figure": None if out is None else str(out)}, True, "")
        return
    OUT.print(_table(made, price))
    say(OUT, made.explained())
    say(OUT, f"Rates of right answers: subgroup {assumed.subgroup:.3f}, reference {assumed.reference:.3f}, {source}.")
    say(OUT, made.there())
    say(OUT, made.told())
    say(OUT, made.about_others())
    say(OUT, unknown if learning is None else learning.told())
    if out is not None:
        say(ERR, f"Wrote {out}.")


def _table(made: ActionPlan, price: Price | None) -> Table:
    from ttca.planning import days_told

    table = Table(
        Column("goal", overflow="fold"), Column("S", justify="right"), Column("sure now", justify="right"),
        Column("people", justify="right"), Column("queries", justify="right"), Column("days", justify="right"),
        title="What it takes to certify with 80 %",
    )  # fmt: skip
    if price is not None:
        table.add_column(price.currency, justify="right")
    goal = None
    for line in made.lines:
        if goal not in (None, line.goal):
            table.add_section()
        name = "" if line.goal == goal else escape(line.goal) + (" (yours)" if line.own else "")
        goal = line.goal
        cells = [name, f"{line.success:.3f}", f"{100 * line.now:.0f} %"]
        if line.persons is None or line.queries is None:
            cells += ["too many", "", ""]
        else:
            days = "" if line.days is None else days_told(line.days).split()[0]
            cells += [f"{line.persons:,}", f"{line.queries:,}", days]
        if price is not None:
            cells.append("" if line.price is None else f"{line.price:,.2f}")
        table.add_row(*cells)
    return table

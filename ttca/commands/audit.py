"""`ttca audit`: is there a gap at all, and for whom."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from ttca.commands.beforehand import confirm
from ttca.commands.shared import (
    ERR,
    OUT,
    AcceptOption,
    AnywayOption,
    DryRunOption,
    FileArgument,
    JsonOption,
    asking,
    duration,
    emit,
    reporter,
    say,
    say_paid,
)

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.audit import Audit, Grouping
    from ttca.auditing import Columns, Intended
    from ttca.config import ActionFile
    from ttca.discovery import Discovery
    from ttca.intervals import Span

__all__ = ["audit"]

#: Groups of two columns are shown up to so many.
_MOST_PAIRS = 24
#: Metrics for people, in the order of the table.
_METRICS = {
    "worst_group_accuracy": "accuracy of the worst group",
    "demographic_parity_difference": "demographic parity, difference",
    "demographic_parity_ratio": "demographic parity, ratio",
    "equalized_odds_difference": "equalized odds, difference",
    "equalized_odds_difference_mean": "equalized odds, mean difference",
    "equalized_odds_ratio": "equalized odds, ratio",
    "equalized_odds_ratio_mean": "equalized odds, mean ratio",
    "equal_opportunity_difference": "equal opportunity, difference",
    "equal_opportunity_ratio": "equal opportunity, ratio",
}


def audit(
    file: FileArgument,
    people: Annotated[int, typer.Option("--people", min=1, help="How many people of each group are asked.")] = 150,
    discover: Annotated[
        bool,
        typer.Option(
            "--discover",
            help="Look for groups that are served worse, among the columns that [people] names. Sends no query.",
        ),
    ] = False,
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before queries are paid.")] = False,
    accept_new_version: AcceptOption = False,
    anyway: AnywayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask how well each group is served, before anybody acts.

    Asks people in the pool about their pictures as they are, says first what it costs, and writes audit.json. The pool
    pays nothing for these answers again. Verification people are not asked.
    """
    from ttca.auditing import carry_out, discover_in, intend
    from ttca.config import read_action
    from ttca.extras import need_extras

    known = read_action(file)
    need_extras("This action", *known.extras)
    action, columns = known.open_audit(accept_new_version=accept_new_version, anyway=anyway, reporter=reporter())
    with action, asking(known, action, file):
        if discover:
            _say_discovery(discover_in(action, columns), as_json)
            return
        intended = intend(action, columns, people)
        if _priced(known, action, intended, dry_run=dry_run, as_json=as_json):
            return
        queries = intended.cost.queries
        confirm(f"{queries:,} queries are to be paid.", "No query was spent.", yes=yes or not queries)
        found = carry_out(action, intended)
        say_paid(known, action)
        if as_json:
            emit(found.to_dict(), True, "")
        else:
            _show(found, columns)


def _priced(known: ActionFile, action: CollectiveAction, intended: Intended, *, dry_run: bool, as_json: bool) -> bool:
    """Say what the audit costs; return whether to stop there."""
    cost, price = intended.cost, known.platform.price
    seconds = action.queries.seconds(cost.queries)
    time = "" if seconds is None or not cost.queries else f", {duration(seconds)}"
    money = "" if price is None else f", {price.told(cost.queries)}"
    words = (
        f"{intended.told()} {cost.answered:,} of {cost.images:,} images have an answer already; queries to pay: "
        f"{cost.queries:,} of {cost.affordable:,} that the members have left{time}{money}."
    )
    if dry_run:
        sum_ = None if price is None else {"sum": price.of(cost.queries), "currency": price.currency}
        emit({**asdict(cost), "asks": intended.persons(), "seconds": seconds, "cost": sum_}, as_json, words)
        return True
    say(ERR, words)
    return False


def _show(found: Audit, columns: Columns) -> None:
    table = Table(
        Column("group", overflow="fold"), Column("people", justify="right"), "right, 95 % interval", "refused",
        title="How each group is served",
    )  # fmt: skip
    notes = []
    pairs = sum(len(grouping.groups) for grouping in found.groupings if len(grouping.by) > 1)
    for grouping in found.groupings:
        if len(grouping.by) > 1 and pairs > _MOST_PAIRS:
            continue
        for group in grouping.groups:
            name = group.name if grouping.by == ("group",) else f"{' & '.join(grouping.by)}: {group.name}"
            refused = group.refused / group.answered if group.answered else None
            table.add_row(
                escape(name),
                f"{group.persons:,}",
                _percent(group.rate if group.answered else None, group.accuracy),
                _percent(refused, None),
            )
            notes += [f"{name}: {flag}." for flag in group.flags]
        table.add_section()
        about = " & ".join(grouping.by)
        if grouping.untold:
            notes.append(f"{about}: {grouping.untold} groups of fewer than 3 people are not shown.")
        if grouping.unknown:
            notes.append(f"{about}: nothing is said of {grouping.unknown} images.")
    if pairs > _MOST_PAIRS:
        notes.append(f"{pairs} groups of two columns are in audit.json, and not shown here.")
    OUT.print(table)
    for grouping in [grouping for grouping in found.groupings if grouping.metrics][:1]:
        OUT.print(_metrics(grouping))
        notes += _metric_notes(grouping)
    for note in notes:
        say(OUT, note)
    say(OUT, found.told())
    say(OUT, found.whose())
    more = " Groups that are served worse, at no cost: ttca audit --discover." if columns else ""
    say(ERR, f"All of it, each class and every pair of columns too, is in audit.json.{more}")


def _metrics(grouping: Grouping) -> Table:
    title = f"Fairness over {' & '.join(grouping.by)}: the worst class"
    table = Table("metric", "value", "95 % interval", title=escape(title))
    for name, words in _METRICS.items():
        value, span = grouping.metrics[name]
        shown = "not defined" if value != value else f"{value:.3f}"
        table.add_row(words, shown, "not bounded" if span is None else f"{span.low:.3f} to {span.high:.3f}")
    return table


def _metric_notes(grouping: Grouping) -> list[str]:
    """Return what the table's words mean that stand where a number is missing."""
    shown = [grouping.metrics[name] for name in _METRICS]
    notes = []
    if any(value != value for value, _ in shown):
        notes.append(
            "Not defined: a group has nobody of some class, or is never given it, so that there is no rate to compare."
        )
    if any(span is None for _, span in shown):
        notes.append("Not bounded: with so few people the value may be anything from 0 to 1. More people narrow it.")
    return notes


def _say_discovery(found: Discovery, as_json: bool) -> None:
    if as_json:
        emit(found.to_dict(), True, "")
        return
    if found.candidates:
        table = Table(
            Column("group", overflow="fold"), Column("people", justify="right"), Column("right", justify="right"),
            Column("others", justify="right"), Column("adjusted p", justify="right"), "worse",
            title="Groups, those served worst first",
        )  # fmt: skip
        for one in found.candidates[:20]:
            table.add_row(
                escape(one.name), f"{one.persons:,}", f"{100 * one.right / one.persons:.1f} %",
                f"{100 * one.others_right / one.others:.1f} %", f"{one.adjusted:.4f}", "yes" if one.found else "",
            )  # fmt: skip
        OUT.print(table)
        if len(found.candidates) > 20:
            say(OUT, f"{len(found.candidates) - 20} groups that are served better are in discovered.json.")
    say(OUT, found.told())


def _percent(rate: float | None, span: Span | None) -> str:
    if rate is None:
        return "no answer"
    return f"{100 * rate:.1f} %" + ("" if span is None else f" ({100 * span.low:.1f} to {100 * span.high:.1f})")

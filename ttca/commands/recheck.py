"""``ttca recheck``: ask kept persons again, and say whether the certificate still speaks of this platform."""

from __future__ import annotations

from typing import Annotated

import typer

from ttca.commands.beforehand import WaitOption, YesOption, confirm, patiently
from ttca.commands.shared import ERR, DryRunOption, FileArgument, JsonOption, duration, emit, opened, say

__all__ = ["recheck"]


def recheck(
    file: FileArgument,
    people: Annotated[int, typer.Option(min=1, help="Persons to ask, each twice: as they are, and with δ.")] = 20,
    every: Annotated[
        float | None,
        typer.Option(help="Do nothing if the last look was fewer days ago than this. For cron.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find out whether a certificate still holds.

    Asks kept people again: does the platform still answer so, and does δ still help? May be run as often as you like:
    in at most 1 of 100 actions does it ever find a change where there is none. Where it finds one, the set is marked as
    expired, for good, and ttca apply refuses it beside that statement. Safe to interrupt: run it again to resume.
    """
    from ttca.recheck import due, recheck, recheck_cost, rechecked

    with opened(file) as (known, action):
        before = rechecked(action.folder, action.queries)
        resting = before is not None and before.expiry is None and not due(before, every)
        rests = f" Nobody is asked now: the last look is younger than --every {every:g} (days)." if resting else ""
        queries = recheck_cost(action.folder, action.queries, people)
        if before is not None and (before.expiry is not None or resting):
            queries = 0
        price, seconds = known.platform.price, action.queries.seconds(queries)
        if dry_run:
            said = {
                "queries": queries,
                "seconds": seconds,
                "cost": None if price is None else {"sum": price.of(queries), "currency": price.currency},
                "before": None if before is None else before.to_dict(),
            }
            money = "" if price is None else f" At most {price.told(queries)}."
            left = action.queries.ledger.left().of(action.queries.members).total
            short = "" if queries <= left else f" The members can pay {left}: raise quotas, or ask fewer."
            took = "" if not seconds else f" They take {duration(seconds)}."
            told = "" if before is None else f" So far: {before.told}"
            emit(said, as_json, f"This look costs at most {queries} queries.{short}{took}{money}{rests}{told}")
            return
        if queries:
            # So that a slip in the action file does not end a set for good.
            other = "The platform is another one than δ was learned on. " if before and before.other_version else ""
            confirm(
                f"{other}This look asks up to {queries} queries. If it shows a change, the set is marked as expired, "
                "which cannot be undone.",
                "Nobody was asked.",
                yes=yes,
            )
        found = patiently(
            wait,
            lambda: recheck(action.folder, action.queries, action.panel, people=people, every_days=every),
        )
    emit(found.to_dict(), as_json, f"{found.told}{rests}")
    if found.expiry is not None:
        from ttca.expiry import EXPIRED_FILE

        say(
            ERR,
            f"Send {action.folder / EXPIRED_FILE} and {EXPIRED_FILE}.sig to everybody who has the set: where they lie "
            "beside it, ttca apply refuses it. Copies cannot be called back.",
        )

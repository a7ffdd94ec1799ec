"""Auditing an action: which of its pool people are asked, what that costs, and what is kept of it in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.asking import Questions, ask_pool, only_equalized, turn_of
from ttca.audit import AUDIT_FILE, Audit, Drawn, Heard, audited, draw_sample, one_of_each
from ttca.discovery import DISCOVERY_FILE, Discovery, discover
from ttca.errors import ActionError
from ttca.kept import save_json
from ttca.people import People, counted_persons
from ttca.pooling.pool import Cost
from ttca.values import Value

__all__ = ["Intended", "ask_as_they_are", "carry_out", "discover_in", "intend"]

Columns = Mapping[str, NDArray[np.str_]]


@dataclass(frozen=True, eq=False, repr=False)
class Intended(Value):
    """An audit before it is paid: who would be asked, what other columns say of them, and what it costs.

    Parameters
    ----------
    people : People
    columns : dict of str to str array
    sample : Drawn
    wanted : int
        Persons of each group that were wished for.
    cost : Cost
    again : int
        Images that the pool asks about in another form, so that these answers are paid for the audit alone.
    pool, askable : dict of str to int
        Persons of each group in the pool, as a run counts them, and those of them who can be asked before it.
    later : tuple of str
        What a run asks the others about.
    """

    people: People
    columns: Columns
    sample: Drawn
    wanted: int
    cost: Cost
    again: int
    pool: Mapping[str, int]
    askable: Mapping[str, int]
    later: tuple[str, ...]

    def persons(self) -> dict[str, int]:
        """Return how many persons of each group would be asked."""
        return counted_persons(self.people)

    def told(self) -> str:
        """Return, for people, who would be asked."""
        counts = self.persons()
        who = " and ".join(f"{count:,} of the {name}" for name, count in counts.items())
        same = ", the same people in both," if self.sample.design == "paired" else ""
        short = "".join(self._short(name, asked) for name, asked in counts.items() if asked < self.wanted)
        again = (
            f" The pool asks about {self.again:,} of these people's images in equalized form, so that their answers "
            "serve the audit alone."
            if self.again
            else ""
        )
        more = " ttca pool run asks selection people too, and says again whether there is a gap." if short else ""
        return f"Asks {who}{same} one image each, of people in the pool.{short}{again}{more}"

    def _short(self, group: str, asked: int) -> str:
        """Return why no more persons of a group are asked."""
        pool, askable = self.pool[group], self.askable[group]
        said = f" The pool has {pool:,} people of the {group}"
        if asked == pool:
            return f"{said}, and no more."
        why = []
        if askable < pool:
            why.append(f"{pool - askable:,} of them are kept for what a run asks later ({', '.join(self.later)})")
        if asked < askable:
            left = (
                "are in one group only, where the same people are compared"
                if self.sample.design == "paired"
                else "have the same picture as somebody else, or are in both groups and count in the other"
            )
            why.append(f"{askable - asked:,} {left}")
        return f"{said}, but {', and '.join(why)}."


def intend(action: CollectiveAction, columns: Columns, number: int) -> Intended:
    """Return the audit of so many persons of each group, without spending a query.

    Parameters
    ----------
    action : CollectiveAction
    columns : dict of str to str array
        What other columns say of each pool image (:meth:`ttca.config.ActionFile.open_with_columns`).
    number : int

    Raises
    ------
    ConfigError, ActionError
        As :func:`ttca.audit.draw_sample`.
    """
    people, known = _askable(action, columns)
    plain = turn_of(action.roster, action.settings) == 0
    otherwise = only_equalized(action.roster, action.settings)[plain]
    sample = draw_sample(people, number, seed=action.settings.seed, last=otherwise)
    asked, again = people[sample.rows], int(otherwise[sample.rows].sum())
    known = {name: column[sample.rows] for name, column in known.items()}
    settings = action.settings
    later = {"the race": settings.races, "altered copies": settings.rounds, "refinement": settings.refine}
    return Intended(
        asked,
        known,
        sample,
        number,
        action.queries.cost(asked.images),
        again,
        pool=counted_persons(action.roster.pool),
        askable=counted_persons(people),
        later=tuple(name for name, wanted in later.items() if wanted),
    )


def carry_out(action: CollectiveAction, intended: Intended) -> Audit:
    """Ask what was intended, judge the answers, and keep the result as ``audit.json`` in the action's folder.

    Only what the ledger lacks is paid, and what is paid is the pool's: nothing is asked twice.

    Raises
    ------
    QuotaError, SanityError, PlatformError
        As :meth:`ttca.pooling.pool.QueryPool.ask`; every answer that came is in the ledger.
    """
    answers = ask_as_they_are(action, intended.people)
    heard = Heard.of(intended.people, answers, intended.columns)
    found = audited(heard, intended.sample.design, action.classes)
    save_json(action.folder / AUDIT_FILE, {**_about(action), "asked": intended.persons(), **found.to_dict()})
    return found


def ask_as_they_are(action: CollectiveAction, people: People) -> Answers:
    """Ask the platform about pool people's unchanged images; what is paid is the pool's.

    Raises
    ------
    ActionError
        If somebody has another role: nobody else may be asked yet.
    """
    if not np.isin(people.persons, action.roster.pool.persons).all():
        raise ActionError("Expected pool people to be asked, got somebody else. No query was spent.")
    nobody = people[:0]
    asked = Questions(people, (), nobody, nobody, nobody, 0)
    return ask_pool(action.queries, asked, equalized=False, overruling=action.overruling).answers


def discover_in(action: CollectiveAction, columns: Columns) -> Discovery:
    """Return which groups are served worse, by answers already paid for, and keep it as ``discovered.json``.

    Raises
    ------
    ActionError
        If nobody's unchanged image was answered yet.
    ConfigError
        If there are no columns.
    """
    people, known = _askable(action, columns)
    answers = action.queries.in_hand(people.images)
    rows = one_of_each(people, np.flatnonzero(answers.resolved), seed=action.settings.seed)
    if not len(rows):
        raise ActionError(
            "Expected answers about pool people's unchanged images, got none yet. Ask some first: ttca audit."
        )
    heard = Heard.of(people, answers, known)[rows]
    found = discover(heard)
    save_json(action.folder / DISCOVERY_FILE, {**_about(action), **found.to_dict()})
    return found


def _askable(action: CollectiveAction, columns: Columns) -> tuple[People, dict[str, NDArray[np.str_]]]:
    """Return the pool people who are to be asked about their unchanged image, in their order, with their columns."""
    plain = turn_of(action.roster, action.settings) == 0
    return action.roster.pool[plain], {name: column[plain] for name, column in columns.items()}


def _about(action: CollectiveAction) -> dict[str, Any]:
    settings, info = action.settings, action.platform.info
    return {
        "action": settings.name,
        "platform": info.name,
        "subgroup": settings.subgroup,
        "seed": settings.seed,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }

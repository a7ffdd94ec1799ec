"""Rehearsing: whatever a run would refuse in the end, as far as it can be known, refused before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ttca.certificates import BATCH, clopper_pearson_lower
from ttca.copying import shell_word
from ttca.entering import race_result
from ttca.errors import ActionError, ConfigError, MissingExtraError, QuotaError
from ttca.sitting import check_opened, check_unopened, knows_pool
from ttca.verifying import check_kept, is_verified

if TYPE_CHECKING:
    from ttca.action import CollectiveAction
    from ttca.pooling.pool import Cost
    from ttca.race_record import Raced, Runners

__all__ = ["Enough", "check_ended", "enough", "race_of", "rehearse"]

#: What a report is drawn and written with.
_FOR_REPORTS = ("jinja2", "matplotlib")


@dataclass(frozen=True, kw_only=True)
class Enough:
    """What quotas would be enough for a whole action.

    Parameters
    ----------
    queries : int
        What it pays at most from here on.
    quota : int or None
        Of each member, that would do; None where the quotas would, and the cap alone is in the way.
    payers : int
        Members there are.
    members : int
        How many would do, with the quota that most of them have.
    cap : int or None
        What would do for all together, where a cap is in the way.
    """

    queries: int
    quota: int | None
    payers: int
    members: int
    cap: int | None

    @property
    def told(self) -> str:
        """It for people."""
        left = f"What is left to ask is at most {self.queries:,} queries"
        if self.quota is None:
            return f"{left}: cap = {self.cap} in [pool] would do."
        cap = "" if self.cap is None else f" and cap = {self.cap}"
        each = "for the one member" if self.payers == 1 else f"for each of the {self.payers:,} members"
        return (
            f"{left}: quota = {self.quota}{cap} in [pool] {each} would do, or {self.members:,} members with the quota "
            "they have."
        )


def enough(action: CollectiveAction, plan: Mapping[str, Cost]) -> Enough | None:
    """Return what would be enough to pay a whole plan; None where the members can pay it."""
    needed = sum(cost.queries for cost in plan.values())
    left, members = action.queries.ledger.left().of(action.queries.members), action.queries.members
    if needed <= left.total:
        return None
    quotas = [member.quota for member in members.values()]
    # From the books: what is left says nothing of members who have paid more than their quota of today.
    charged = {balance.member: balance.charged for balance in action.queries.ledger.balances()}
    spent = [charged.get(name, 0) for name in members]
    usual = max(1, Counter(quotas).most_common(1)[0][0])
    low, high = usual, max(quotas) + max(spent) + needed
    while low < high:
        # Whoever has more keeps it.
        middle = (low + high) // 2
        pays = sum(max(0, max(middle, quota) - paid) for quota, paid in zip(quotas, spent, strict=True))
        low, high = (low, middle) if pays >= needed else (middle + 1, high)
    short = max(0, needed - sum(left.members.values()))
    capped = left.cap is not None and left.cap < needed
    return Enough(
        queries=needed,
        quota=low if short else None,
        payers=len(members),
        members=len(members) - (-short // usual),
        cap=sum(charged.values()) + needed if capped else None,
    )


def check_ended(action: CollectiveAction) -> None:
    """Raise where an action was not run to its end: its certificate, or a race in which doing nothing won.

    Raises
    ------
    ActionError
    """
    raced = race_result(action.folder, action.settings)
    if is_verified(action.folder) or (raced is not None and not raced.proposed):
        return
    raise ActionError(
        f"Expected an action that was verified, got one without a certificate in {action.folder}. A report neither "
        f"learns nor verifies. Run first: ttca run {shell_word(action.folder)}"
    )


def race_of(action: CollectiveAction) -> Runners | Raced | None:
    """Return who races, or what came of it where that is over; None where nothing races."""
    if action.runners is None:
        return None
    return race_result(action.folder, action.settings) or action.runners


def rehearse(action: CollectiveAction, *, learns: bool = False, verifies: bool = False, reports: bool = False) -> None:
    """Raise what a run would raise, where that does not depend on answers: no query is spent, nothing is learned.

    A dry run and a run both begin with it, so that the one promises nothing that the other refuses.

    Parameters
    ----------
    action : CollectiveAction
    learns : bool
        Whether a proxy is to be learned.
    verifies : bool
        Whether verification people are to be asked.
    reports : bool
        Whether the row is to be measured, and a report written.

    Raises
    ------
    TTCAError
        Models or attacks that cannot be made here, or take no images of this size; packages that are missing; a key
        that cannot be used; quotas that cannot be enough; a platform that has changed; a certificate, signature or
        sitting that settings or people of today contradict.
    """
    if reports and action.roster.verification.subgroup.all():
        raise ActionError(
            "Expected reference people among the verification people, got none: the row compares the two groups. "
            "Let volunteers take part, or set controls = false and use `ttca run` without the row. No query was spent."
        )
    if reports and not all(map(find_spec, _FOR_REPORTS)):
        raise MissingExtraError("The report", "learn")
    if verifies:
        # Says what to install.
        clopper_pearson_lower(0, 1, 0.05)
    # Candidates of a race are made to learn that they can be.
    if learns and action.runners is None and not is_verified(action.folder):
        action.learner.check()
    pool, plan = action.queries, action.plan()
    problem = getattr(action.platform, "key_problem", None)
    if problem is not None and any(cost.queries for cost in plan.values()) and (said := problem()) is not None:
        raise ConfigError(f"{said} No query was spent.")
    if knows_pool(action.folder):
        # In hand: what other settings or platforms would ask is refused.
        action.pool()
    changed = pool.changed(action.questions.people.images)
    if changed is not None and not pool.accept_new_version:
        raise changed.refusal()
    if action.runners is not None and race_result(action.folder, action.settings) is None:
        check_unopened(action.folder, action.settings)
    _check_quotas(action, plan, verifies=verifies)
    if verifies:
        check_opened(action.folder, action.settings, pool, action.panel)
        check_kept(action.folder, action.settings, action.panel)


def _check_quotas(action: CollectiveAction, plan: Mapping[str, Cost], *, verifies: bool) -> None:
    """Raise where the members cannot pay what is asked in any case."""
    needed, affordable = plan["pool"].queries, plan["pool"].affordable
    what = f"{needed} for the pool"
    if verifies and not is_verified(action.folder):
        first = plan["baseline"].queries + min(BATCH, plan["verification"].queries)
        needed, what = needed + first, f"{what} and {first} for the first verification people"
    if needed > affordable:
        found = enough(action, plan)
        raise QuotaError(
            f"Expected {needed} queries to be affordable, {what}, but the members have {affordable} left. Raise "
            f"quotas or the cap, or let more members join. {'' if found is None else f'{found.told} '}No query was "
            "spent."
        )

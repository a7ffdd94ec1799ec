"""Settling: which answer to a query stands, and whether one more member is asked before it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.errors import ConfigError
from ttca.pooling.cross_checks import Reports, Verdict, leaders, tell_apart
from ttca.values import Value

__all__ = ["CheckPlan", "Repute", "Settled", "lots_of", "settle"]

#: How much a suspect's word counts.
_SUSPECTS_WORD = 0.3
#: An answer that nobody contests stands with so much weight: two members, not both of them suspects.
_CONFIRMED = 1.25
#: A contested answer stands with so much weight, and so much more than the next.
_CONTESTED, _LEAD = 2.0, 1.5
#: Who was confirmed so often, and fails where others do not in no more than this share, is judged good.
_CONFIRMED_OFTEN, _FAILS_SELDOM = 5, 0.2
#: The same two members confirm each other so many times, or so many times as often as chance would have it; then a
#: third is asked.
_SAME_PAIR, _PAIR_RATIO = 3, 3.0
#: A platform that does not agree with itself would have an image asked for ever.
_MOST_REPORTS = 9


@dataclass(frozen=True, kw_only=True)
class CheckPlan:
    """How members' answers are cross-checked.

    Parameters
    ----------
    judged : int
        So many of a member's first answers are checked by others, all of them; afterwards ``judged`` / (answers so
        far), …
    share : float
        … but never less than this share. With ``judged`` = 0 and ``share`` = 0 nothing is checked.
    """

    judged: int = 100
    share: float = 0.05

    def __post_init__(self) -> None:
        if self.judged < 0 or not 0 <= self.share <= 1:
            raise ConfigError(
                f"Expected a plan of cross-checks with judged of 0 or more and share in [0, 1], got {self}. Correct it."
            )

    @property
    def off(self) -> bool:
        """Whether nothing is checked."""
        return self.judged == 0 and self.share == 0

    def share_of(self, answers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return which share of a member's answers is checked, from how many there are."""
        return np.maximum(self.share, np.minimum(1.0, self.judged / np.maximum(answers, 1)))


@dataclass(frozen=True, eq=False, repr=False)
class Repute(Value):
    """How far each member is trusted; whoever is not named is new.

    Parameters
    ----------
    members : int64 array, shape (M,)
        In ascending order.
    weight : float64 array, shape (M,)
        How much their word counts: 1, less for a suspect.
    share : float64 array, shape (M,)
        Which share of their answers is checked.
    good : bool array, shape (M,)
        Judged good: others confirmed enough of their answers, and they seldom fail where others do not.
    """

    members: NDArray[np.int64]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]
    good: NDArray[np.bool_]

    @classmethod
    def of(cls, verdict: Verdict, reports: Reports, failures: dict[int, int], plan: CheckPlan) -> Repute:
        """Return what follows from a verdict, and from how often each failed where others got an answer."""
        answers = np.bincount(np.searchsorted(verdict.members, reports.members), minlength=len(verdict.members))
        failed = np.array([failures.get(int(m), 0) for m in verdict.members], np.int64)
        weak = failed > 1 + _FAILS_SELDOM * answers
        doubted = verdict.suspect | weak
        return cls(
            verdict.members,
            np.where(verdict.suspect, _SUSPECTS_WORD, 1.0),
            np.where(doubted, 0.0 if plan.off else 1.0, plan.share_of(answers)),
            (verdict.judged - verdict.disagreed >= _CONFIRMED_OFTEN) & ~doubted,
        )

    def look_up(self, members: NDArray[np.int64], plan: CheckPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weight and the share checked of each of these."""
        if not len(self.members):
            return np.ones(len(members)), np.full(len(members), 0.0 if plan.off else 1.0)
        at = np.minimum(np.searchsorted(self.members, members), len(self.members) - 1)
        known = self.members[at] == members
        return np.where(known, self.weight[at], 1.0), np.where(known, self.share[at], 0.0 if plan.off else 1.0)

    def judged_good(self) -> frozenset[int]:
        """Return the numbers of those who were judged good."""
        return frozenset(self.members[self.good].tolist())


@dataclass(frozen=True, eq=False, repr=False)
class Settled(Value):
    """What became of Q queries.

    Parameters
    ----------
    wanted : int64 array, shape (Q,)
        0: nobody more is asked; 2: somebody more is; 3: soon, for members contradict each other; 1: not before
        everything else is asked.
    answers : int64 array, shape (N,)
        A number per report, the same for those that say the same of a query.
    votes : float64 array, shape (N,)
        The weight behind each report's answer.
    winner : int64 array, shape (Q,)
        The row of the first report of the answer that leads.
    """

    wanted: NDArray[np.int64]
    answers: NDArray[np.int64]
    votes: NDArray[np.float64]
    winner: NDArray[np.int64]


def settle(
    reports: Reports, lots: NDArray[np.float64], repute: Repute, plan: CheckPlan, *, whole: bool = False
) -> Settled:
    """Weigh what members say of each query.

    Parameters
    ----------
    reports : Reports
        ``queries`` numbered from 0, without gaps.
    lots : float64 array, shape (Q,)
        In [0, 1), which no member knows: a single answer is checked where the lot is below its member's share.
    repute : Repute
    plan : CheckPlan
    whole : bool
        Whether these are all reports: only then can be told who confirms whom too often.

    Notes
    -----
    A query that is checked wants two members who agree, not both of them suspects. Where two answers are given one
    of them wants more weight, and a lead. *Ours.*
    """
    answers = tell_apart(reports)
    which, count = reports.queries, len(lots)
    weight, share = repute.look_up(reports.members, plan)
    _, lead, follow, votes = leaders(which, answers, weight)
    said = np.bincount(which, minlength=count)
    # Of answers with the same weight, the one that came first.
    order = np.lexsort((np.arange(len(reports)), -np.round(votes, 9), which))
    winner = order[np.searchsorted(which[order], np.arange(count))]
    leads = answers == answers[winner][which]
    most = np.zeros(count)
    np.maximum.at(most, which[leads], share[leads])
    drawn = (lots < most) | (said > 1)
    contested = follow > 0
    enough = np.where(contested, (lead >= _CONTESTED) & (lead - follow >= _LEAD), ~drawn | (lead >= _CONFIRMED))
    wanted = np.where(enough, 0, np.where(contested, 3, np.where(said == 1, 2, 1)))
    if whole:
        wanted = np.where((wanted == 0) & _too_often(reports, count, said, repute), 1, wanted)
    wanted[said >= _MOST_REPORTS] = 0
    if plan.off:
        wanted[:] = 0
    return Settled(wanted.astype(np.int64), answers, votes, winner)


def _too_often(reports: Reports, count: int, said: NDArray[np.int64], repute: Repute) -> NDArray[np.bool_]:
    """Return the queries that rest on two members who confirm each other more often than chance would have it."""
    result = np.zeros(count, np.bool_)
    twice = said[reports.queries] == 2
    rows = np.flatnonzero(twice)
    if not len(rows):
        return result
    order = rows[np.argsort(reports.queries[rows], kind="stable")]
    pairs = np.sort(reports.members[order].reshape(-1, 2), axis=1)
    queries = reports.queries[order][::2]
    _, same, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    same = same.reshape(-1)
    active = max(2, len(np.unique(reports.members)))
    limit = max(_SAME_PAIR, _PAIR_RATIO * len(queries) / (active * (active - 1) / 2))
    # The first ones stand; which come first is the queries' own order, which nobody chose.
    turn = np.zeros(len(same), np.int64)
    by_pair = np.argsort(same, kind="stable")
    starts = np.append(0, np.cumsum(times))[:-1]
    turn[by_pair] = np.arange(len(same)) - np.repeat(starts, times)
    result[queries[turn >= limit]] = True
    return result


def lots_of(keys: Sequence[bytes]) -> NDArray[np.float64]:
    """Return each query's lot in [0, 1), drawn from its key, which is an HMAC and known to no member."""
    return np.array([int.from_bytes(key[8:14], "big") / 2**48 for key in keys], np.float64)

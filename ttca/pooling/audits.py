"""Audits: who among the members answers otherwise than the platform does, told from several answers to one query."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.values import Value

__all__ = ["FAMILY_WISE_ERROR", "Reports", "Verdict", "judge"]

#: The chance that any honest member of a pool is ever flagged, when the noise is estimated well.
FAMILY_WISE_ERROR = 0.01
#: Rates of disagreement that a faulty or hostile member may have; the evidence is averaged over them.
_ALTERNATIVES = np.array([0.15, 0.25, 0.35, 0.5, 0.7, 0.9])
#: Nobody is judged by a smaller rate than this: a platform is never quite as steady as a few audits make it look.
_LEAST_NOISE = 0.01
#: Scores of the same label count as another answer beyond so many times the usual distance, and beyond so much.
_SCORES_APART, _LEAST_APART = 10.0, 0.02


@dataclass(frozen=True, eq=False, repr=False)
class Reports(Value):
    """N answers that members say the platform gave.

    Parameters
    ----------
    queries : int64 array, shape (N,)
        Which query, by any number; several members' reports of one query are what an audit is.
    members : int64 array, shape (N,)
        Who says so, by any number. One report of a member and a query.
    labels : int64 array, shape (N,)
        The class named, −1 for a refusal.
    scores : float32 array, shape (N, C)
        NaN where the platform did not say.
    """

    queries: NDArray[np.int64]
    members: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.queries)

    def of(self, rows: NDArray[np.bool_]) -> Reports:
        """Return some of them."""
        return Reports(self.queries[rows], self.members[rows], self.labels[rows], self.scores[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Value):
    """What the audits say about each member.

    Parameters
    ----------
    members : int64 array, shape (M,)
    judged, disagreed : int64 arrays, shape (M,)
        Audits on which the others agreed, and how many of them the member answered otherwise.
    evidence : float64 array, shape (M,)
        Logarithm of the e-value against honesty.
    flagged : bool array, shape (M,)
    noise : float
        The rate of disagreement that an honest member is granted.
    """

    members: NDArray[np.int64]
    judged: NDArray[np.int64]
    disagreed: NDArray[np.int64]
    evidence: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    noise: float


def judge(reports: Reports, *, flagged: frozenset[int] = frozenset(), alpha: float = FAMILY_WISE_ERROR) -> Verdict:
    """Compare every member with what the others say, and flag those who differ beyond the platform's own noise.

    Parameters
    ----------
    reports : Reports
    flagged : set of int
        Members who were flagged before: their word no longer counts against others.
    alpha : float
        The chance of flagging any honest member (family-wise).

    Notes
    -----
    A report is judged where at least two others answered the query and more than half of these agree. The evidence
    against a member is an e-value: the likelihood of the disagreements under a rate of 15 to 90 %, averaged, over
    that under the honest rate, and M/alpha flags (Vovk and Wang 2021, with Bonferroni over M members). The honest
    rate is the upper 95 % bound of the smaller rate of a mixture of two binomials fitted to all members, so a noisy
    platform flags nobody while fewer than half of the members lie. The whole is *ours*.
    """
    out = set(flagged)
    while True:
        verdict = _judge_once(reports, out, alpha)
        now = set(verdict.members[verdict.flagged].tolist())
        if now <= out:
            return verdict
        # Who was found out no longer counts as a witness; that may clear others, and find more.
        out |= now


def _judge_once(reports: Reports, out: set[int], alpha: float) -> Verdict:
    members, who = np.unique(reports.members, return_inverse=True)
    count = len(members)
    known = np.isin(members, sorted(out))
    judged, differs = _compare(reports, ~known[who] if len(reports) else np.zeros(0, np.bool_))
    n = np.bincount(who[judged], minlength=count)
    k = np.bincount(who[judged & differs], minlength=count)
    noise = _honest_rate(k[~known], n[~known])
    ratios = k[:, None] * np.log(_ALTERNATIVES / noise) + (n - k)[:, None] * np.log((1 - _ALTERNATIVES) / (1 - noise))
    worse = noise < _ALTERNATIVES
    evidence = np.full(count, -np.inf)
    if worse.any():
        top = ratios[:, worse].max(axis=1)
        evidence = top + np.log(np.exp(ratios[:, worse] - top[:, None]).mean(axis=1))
    tried = max(1, int((n > 0).sum()))
    return Verdict(members, n, k, evidence, known | (evidence >= math.log(tried / alpha)), noise)


def _compare(reports: Reports, counts: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which reports can be judged, and which of them differ from what the witnesses (``counts``) say."""
    judged = np.zeros(len(reports), np.bool_)
    differs = np.zeros(len(reports), np.bool_)
    if not len(reports):
        return judged, differs
    queries, which = np.unique(reports.queries, return_inverse=True)
    # Refusals are a label like any other. Only pairs that occur are counted: a query has few labels, a platform many.
    width = int(reports.labels.max()) + 2
    pairs, pair = np.unique(which * width + reports.labels + 1, return_inverse=True)
    votes = np.bincount(pair[counts], minlength=len(pairs))
    of_query = pairs // width
    order = np.lexsort((-votes, of_query))
    starts = np.searchsorted(of_query[order], np.arange(len(queries)))
    first = order[starts]
    ends = np.append(starts[1:], len(order))
    second_votes = np.where(ends - starts > 1, votes[order[np.minimum(starts + 1, len(order) - 1)]], 0)
    second = np.where(ends - starts > 1, order[np.minimum(starts + 1, len(order) - 1)], first)
    own = counts.astype(np.int64)
    total = np.bincount(of_query, votes, minlength=len(queries)).astype(np.int64)[which] - own
    # What the others say: the query's first label, unless it is first by one's own word alone.
    lead = votes[first][which] - own * (pair == first[which])
    follow = second_votes[which] - own * (pair == second[which]) * (second != first)[which]
    most = np.maximum(lead, follow)
    said = np.where(lead >= follow, first[which], second[which])
    judged = (total >= 2) & (2 * most > total)
    differs = judged & (pair != said)
    apart = _apart(reports, which, counts & (pair == said) & judged, judged & ~differs)
    return judged, differs | apart


def _apart(
    reports: Reports, which: NDArray[np.intp], witness: NDArray[np.bool_], same: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the reports with the same label as the others whose scores are far from the witnesses' median."""
    known = ~np.isnan(reports.scores).any(axis=1)
    far = np.full(len(reports), np.nan)
    rows = np.flatnonzero(same & known)
    order = np.argsort(which[rows], kind="stable")
    for group in np.split(rows[order], np.flatnonzero(np.diff(which[rows][order])) + 1):
        seen = group[witness[group]]
        if len(seen) < 3:
            continue
        middle = np.median(reports.scores[seen], axis=0)
        far[group] = np.abs(reports.scores[group] - middle).max(axis=1)
    measured = ~np.isnan(far)
    if not measured.any():
        return np.zeros(len(reports), np.bool_)
    limit = max(_LEAST_APART, _SCORES_APART * float(np.median(far[measured])))
    apart: NDArray[np.bool_] = measured & (np.nan_to_num(far) > limit)
    return apart


def _honest_rate(k: NDArray[np.int64], n: NDArray[np.int64]) -> float:
    """Return the upper bound of the rate at which honest members differ, from all members' counts."""
    seen = n > 0
    k, n = k[seen].astype(np.float64), n[seen].astype(np.float64)
    if not len(n):
        return 0.5
    honest, hostile, share = 0.02, 0.5, 0.8
    weight = np.ones(len(n))
    for _ in range(100):
        a = math.log(share) + k * math.log(honest) + (n - k) * math.log1p(-honest)
        b = math.log1p(-share) + k * math.log(hostile) + (n - k) * math.log1p(-hostile)
        weight = 1 / (1 + np.exp(np.clip(b - a, -700, 700)))
        honest = float(np.clip((k @ weight + 0.5) / (n @ weight + 1), 1e-4, 0.4))
        hostile = float(np.clip((k @ (1 - weight) + 0.5) / (n @ (1 - weight) + 1), max(0.15, 2 * honest), 0.95))
        # At least half of the members are taken to be honest.
        share = float(np.clip(weight.mean(), 0.5, 0.98))
    trials, hits = float(n @ weight), float(k @ weight)
    # Wilson's upper 95 % bound (one-sided) of the honest rate.
    z = 1.6449
    centre = (hits + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(hits * max(0.0, 1 - hits / max(trials, 1e-9)) + z * z / 4)
    return float(min(0.5, max(_LEAST_NOISE, centre + half)))

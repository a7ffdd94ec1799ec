"""Cross-checks: who answers otherwise than the platform does, told from several members' answers to one query."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.values import Value

__all__ = ["FAMILY_WISE_ERROR", "Reports", "Verdict", "judge", "leaders", "tell_apart"]

#: The chance that any honest member of a pool is ever flagged, when the noise is estimated well.
FAMILY_WISE_ERROR = 0.01
#: Rates of disagreement that a faulty or hostile member may have; the evidence is averaged over them.
_ALTERNATIVES = np.array([0.05, 0.15, 0.3, 0.5, 0.7, 0.9])
#: Nobody is judged by a smaller rate than this: a platform is never quite as steady as a few checks make it look.
_LEAST_NOISE = 0.01
#: Scores of the same label count as another answer beyond so many times the usual distance, and beyond so much.
_SCORES_APART, _LEAST_APART = 10.0, 0.02
#: Half of the prior says that a liar lies from the start; else they begin at any answer with this chance.
_BEGINS = 0.02
#: So much more weight than a member's own answer has another one to have, before the member is said to differ.
_OUTVOTED = 1.5
#: Nobody is flagged whom no more than this share of all members contradicts: so few liars convict no honest member.
_CONTRADICTED = 0.2
#: The family's error is shared among so many members at least: others will come.
_FAMILY = 20
#: Rounds in which members' weights follow from how often they agree. They settle after two or three.
_ROUNDS = 4
#: Evidence from which on a member is a suspect: their word counts less, and nothing rests on it alone.
_SUSPECT = math.log(3.0)


@dataclass(frozen=True, eq=False, repr=False)
class Reports(Value):
    """N answers that members say the platform gave, in the order in which they came.

    Parameters
    ----------
    queries : int64 array, shape (N,)
        Which query, by any number; several members' reports of one query are what a cross-check is.
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


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(Value):
    """What the cross-checks say about each member.

    Parameters
    ----------
    members : int64 array, shape (M,)
    judged, disagreed : int64 arrays, shape (M,)
        Answers that others confirm or outvote, and how many of them were outvoted.
    evidence : float64 array, shape (M,)
        Logarithm of the e-value against honesty.
    flagged : bool array, shape (M,)
    suspect : bool array, shape (M,)
        Who has some evidence against them, though not enough to be flagged.
    noise : float
        The rate of disagreement that an honest member is granted.
    """

    members: NDArray[np.int64]
    judged: NDArray[np.int64]
    disagreed: NDArray[np.int64]
    evidence: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    noise: float


def judge(
    reports: Reports,
    *,
    flagged: frozenset[int] = frozenset(),
    alpha: float = FAMILY_WISE_ERROR,
    pool: int | None = None,
) -> Verdict:
    """Compare every member with what the others say, and flag those who differ beyond the platform's own noise.

    Parameters
    ----------
    reports : Reports
    flagged : set of int
        Members who were flagged before: their word no longer counts against others.
    alpha : float
        The chance of flagging any honest member (family-wise); 0 flags nobody.
    pool : int, optional
        How many members take part; by default those who reported.

    Notes
    -----
    *Consensus*: votes weighted by 2a − 1, where a is how often a member agrees with the others' weighted vote (the
    linear weights of Karger, Oh and Shah 2011, *Iterative learning for reliable crowdsourcing systems*; ours: a few
    rounds, weights never below 0). *Evidence*: an e-value per member, one half on all their answers and one half
    spread over the platform's classes, each a likelihood ratio of rates of 5 to 90 % against the honest rate, averaged
    over the rates and over the answer at which the lies may have begun. Each is a nonnegative martingale under
    honesty, so that by Ville's inequality (1939; Waudby-Smith and Ramdas 2024) one may look at any time. M/alpha flags:
    Bonferroni over M members, as of e-values in Vovk and Wang 2021. The honest rate is not known: it is the upper
    95 % bound of the smaller rate of a mixture of two binomials fitted to all members (*ours*), for each class and in
    all. Members are flagged one at a time, the strongest evidence first, and only where it stands without the word of
    other suspects: whoever was outvoted by liars is judged without them. And more than a fifth of all members
    must have contradicted them: a smaller ring convicts nobody, whatever it says and however fast it is (*ours*).
    """
    out = set(flagged)
    answers = tell_apart(reports)
    while True:
        verdict = _judge_once(reports, answers, out, alpha, pool)
        over = verdict.flagged & ~np.isin(verdict.members, sorted(out))
        if not over.any():
            return verdict
        out.add(int(verdict.members[over][np.argmax(verdict.evidence[over])]))


def tell_apart(reports: Reports) -> NDArray[np.int64]:
    """Return a number per report, the same for those that say the same of the same query, scores and gaps included.

    Notes
    -----
    Scores of one label are compared with those of the first who named it. They differ if another number of scores is
    named, or if one is farther away than 10 times the usual distance and .02; a score that only one of them names
    is compared with the smallest that the other names. *Ours.*
    """
    if not len(reports):
        return np.zeros(0, np.int64)
    _, which = np.unique(reports.queries, return_inverse=True)
    # Refusals are a label like any other.
    width = int(reports.labels.max()) + 2
    _, first, numbers = np.unique(which * width + reports.labels + 1, return_index=True, return_inverse=True)
    answer: NDArray[np.int64] = numbers.astype(np.int64)
    named = ~np.isnan(reports.scores)
    repeats = first[answer] != np.arange(len(reports))
    if not named.any() or not repeats.any():
        return answer
    far = np.zeros(len(reports))
    far[repeats] = _distance(reports.scores[repeats], reports.scores[first[answer[repeats]]])
    usual = far[repeats & np.isfinite(far)]
    limit = max(_LEAST_APART, _SCORES_APART * float(np.median(usual)) if len(usual) else 0.0)
    more = len(first)
    for same in np.unique(answer[far > limit]):
        rows = np.flatnonzero(answer == same)
        heads: list[int] = []
        for row in rows:
            near = [h for h in heads if _distance(reports.scores[[row]], reports.scores[[h]])[0] <= limit]
            if not near and heads:
                answer[row], more = more, more + 1
            elif near:
                answer[row] = answer[near[0]]
            if not near:
                heads.append(int(row))
    return answer


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far apart rows of scores are, shape (N,): infinite where they name another number of scores."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    # Of what a row does not name, it says that it is no more than the least it names.
    least_a, least_b = (np.where(np.isnan(s), np.inf, s).min(axis=1, keepdims=True, initial=np.inf) for s in (a, b))
    only_a, only_b = ~np.isnan(a) & np.isnan(b), np.isnan(a) & ~np.isnan(b)
    with np.errstate(invalid="ignore"):
        apart = np.where(only_a, np.maximum(0.0, a - least_b), np.where(only_b, np.maximum(0.0, b - least_a), a - b))
    apart = np.abs(np.where(np.isnan(apart), 0.0, apart)).max(axis=1, initial=0.0)
    as_many = np.equal((~np.isnan(a)).sum(axis=1), (~np.isnan(b)).sum(axis=1))
    return np.asarray(np.where(as_many, apart, np.inf), np.float64)


def leaders(
    queries: NDArray[np.int64], answers: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return each query's first answer, its votes and those of the second, and the votes for each report's answer.

    Parameters
    ----------
    queries : int64 array, shape (N,)
        Numbered from 0, without gaps.
    answers : int64 array, shape (N,)
        From :func:`tell_apart`.
    weights : float64 array, shape (N,)
    """
    votes: NDArray[np.float64] = np.bincount(answers, weights).astype(np.float64)
    of_query = np.zeros(len(votes), np.int64)
    of_query[answers] = queries
    order = np.lexsort((-votes, of_query))
    starts = np.searchsorted(of_query[order], np.arange(int(queries.max(initial=-1)) + 1))
    first: NDArray[np.int64] = order[starts].astype(np.int64)
    ends = np.append(starts[1:], len(order))
    follow: NDArray[np.float64] = np.where(ends - starts > 1, votes[order[np.minimum(starts + 1, len(order) - 1)]], 0.0)
    return first, votes[first], follow, votes[answers]


def _judge_once(reports: Reports, answers: NDArray[np.int64], out: set[int], alpha: float, pool: int | None) -> Verdict:
    members, who = np.unique(reports.members, return_inverse=True)
    count = len(members)
    known = np.isin(members, sorted(out))
    if not count:
        none = np.zeros(0, np.int64)
        return Verdict(members, none, none, np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.bool_), 0.5)
    _, which = np.unique(reports.queries, return_inverse=True)
    labels_of = np.full(int(answers.max()) + 1, -1, np.int64)
    labels_of[answers] = reports.labels
    # Whoever is fast has no more votes than others: a fifth of the members must not become half of the votes.
    volume = np.bincount(who, minlength=count)
    usual_volume = np.median(volume[~known]) if (~known).any() else 1.0
    slow = np.where(known, 0.0, np.minimum(1.0, usual_volume / volume))
    weight = slow
    for _ in range(_ROUNDS):
        first, agrees, differs = _heard(which, answers, weight[who], _usual(weight[~known]))
        k = np.bincount(who, differs, minlength=count)
        n = k + np.bincount(who, agrees, minlength=count)
        weight = slow * np.maximum(0.0, 1 - 2 * k / (n + 2))
    said = labels_of[first][which] + 1
    classes = int(said.max()) + 1
    cell = said * count + who

    def per_class(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Count these rows of each member: in all, and of each class."""
        table = np.bincount(cell, rows, minlength=classes * count).reshape(classes, count)
        return np.vstack([table.sum(axis=0), table])

    noise = _honest_rates(per_class(differs)[:, ~known], per_class(agrees | differs)[:, ~known])
    rates = np.maximum(noise[0], noise[1:])

    def against(agrees: NDArray[np.bool_], differs: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the evidence against each member: one half of it on all their answers, one half by class."""
        rows = np.flatnonzero(agrees | differs)
        overall = _evidence(who[rows], differs[rows], np.full(len(rows), noise[0]), count)
        cells = _evidence(who[rows] * classes + said[rows], differs[rows], rates[said[rows]], count * classes)
        by_class = np.logaddexp.reduce(cells.reshape(count, classes), axis=1) - math.log(classes)
        return np.asarray(np.logaddexp(overall, by_class) - math.log(2), np.float64)

    evidence = against(agrees, differs)
    suspect = known | (evidence >= _SUSPECT)
    # Nobody is flagged on the word of suspects: a ring that is being found out must not take others with it.
    first, agrees, differs = _heard(which, answers, np.where(suspect, 0.0, weight)[who], _usual(weight[~suspect]))
    evidence = np.minimum(evidence, against(agrees, differs))
    tried = max(_FAMILY, int((n > 0).sum()))
    flagged = evidence >= (math.log(tried / alpha) if alpha > 0 else math.inf)
    speaks = (answers == first[which]) & ~suspect[who]
    for member in np.flatnonzero(flagged & ~known):
        against_them = np.isin(which, which[differs & (who == member)])
        flagged[member] = len(np.unique(who[speaks & against_them])) > _CONTRADICTED * (pool or count)
    flagged |= known
    return Verdict(members, n.astype(np.int64), k.astype(np.int64), evidence, flagged, suspect, float(noise[0]))


def _usual(weights: NDArray[np.float64]) -> float:
    """Return what a vote usually weighs: in a pool in doubt less."""
    return max(0.2, float(np.median(weights))) if len(weights) else 1.0


def _heard(
    queries: NDArray[np.intp], answers: NDArray[np.int64], weights: NDArray[np.float64], usual: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return each query's first answer, and which reports the others confirm or outvote, without one's own word."""
    first, lead, follow, support = leaders(queries, answers, weights)
    rival = np.where(answers == first[queries], follow[queries], lead[queries])
    margin = support - weights - rival
    return first, margin >= 0.5 * usual, -margin >= _OUTVOTED * usual


def _evidence(
    groups: NDArray[np.int64], differs: NDArray[np.bool_], noise: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Return the logarithm of the e-value of each group's answers, rows in the order of time, shape (count,)."""
    result = np.zeros(count)
    if not len(groups):
        return result
    order = np.argsort(groups, kind="stable")
    groups, differs, noise = groups[order], differs[order], noise[order]
    starts = np.flatnonzero(np.append(True, np.diff(groups) > 0))
    sizes = np.diff(np.append(starts, len(groups)))
    place = np.arange(len(groups)) - np.repeat(starts, sizes)
    begins = math.log(0.5 * _BEGINS) + np.maximum(0, place - 1) * math.log1p(-_BEGINS)
    prior = np.where(place == 0, math.log(0.5), begins)
    never = math.log(0.5) + (sizes - 1) * math.log1p(-_BEGINS)
    parts = []
    for rate in _ALTERNATIVES:
        # Where the honest rate is no smaller, the alternative says nothing.
        q = np.minimum(noise, 0.999)
        lies = np.maximum(rate, q)
        step = np.where(differs, np.log(lies / q), np.log1p(-lies) - np.log1p(-q))
        total = np.cumsum(step)
        end = np.repeat(total[starts + sizes - 1], sizes)
        begun = np.logaddexp.reduceat(prior + end - (total - step), starts)
        parts.append(np.logaddexp(begun, never))
    result[groups[starts]] = np.logaddexp.reduce(np.stack(parts), axis=0) - math.log(len(parts))
    return result


def _honest_rates(k: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper bound of the rate at which honest members differ, for each row of all members' counts (G, M)."""
    seen = n > 0
    trusted = np.maximum(seen.sum(axis=1), 1)
    honest, hostile, share = (np.full((len(k), 1), v) for v in (0.02, 0.5, 0.8))
    weight = np.where(seen, 1.0, 0.0)
    for _ in range(30):
        a = np.log(share) + k * np.log(honest) + (n - k) * np.log1p(-honest)
        b = np.log1p(-share) + k * np.log(hostile) + (n - k) * np.log1p(-hostile)
        weight = np.where(seen, 1 / (1 + np.exp(np.clip(b - a, -700, 700))), 0.0)
        total, hits = (n * weight).sum(axis=1), (k * weight).sum(axis=1)
        honest = np.clip((hits + 0.5) / (total + 1), 1e-4, 0.4)[:, None]
        rest = ((k.sum(axis=1) - hits + 0.5) / (n.sum(axis=1) - total + 1))[:, None]
        hostile = np.clip(rest, np.maximum(0.15, 2 * honest), 0.95)
        # At least half of the members are taken to be honest.
        share = np.clip(weight.sum(axis=1) / trusted, 0.5, 0.98)[:, None]
    trials, hits = (n * weight).sum(axis=1), (k * weight).sum(axis=1)
    # Wilson's upper 95 % bound (one-sided) of the honest rate.
    z = 1.6449
    center = (hits + z * z / 2) / (trials + z * z)
    inner = hits * np.maximum(0.0, 1 - hits / np.maximum(trials, 1e-9)) + z * z / 4
    return np.asarray(np.clip(center + z / (trials + z * z) * np.sqrt(inner), _LEAST_NOISE, 0.5), np.float64)

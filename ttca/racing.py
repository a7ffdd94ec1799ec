"""Racing: candidates compared on the same persons by sequential halving, and what wins tested against doing nothing.

Nothing here knows a platform, an image or a proxy: who asks is handed in, so that a race can be simulated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.combining import Harm, Switch, harms, switches
from ttca.errors import ActionError
from ttca.statistics.comparisons import rise_p
from ttca.values import Value

__all__ = [
    "ERROR",
    "PROVED_LATER",
    "STRICTER",
    "RaceAnswers",
    "RacePlan",
    "RaceResult",
    "Rank",
    "choosers",
    "count_asked",
    "hear",
    "most_faithful",
    "plan_race",
    "run_race",
]

#: In at most so many actions is a candidate proposed that is no better than doing nothing.
ERROR = 0.05
#: The same where the certificate itself compares with doing nothing, at its own error and on people whom nobody asked
#: before. Then the race only spares them, and need only point upward: at 0.25 three of twelve worlds did nothing, and
#: in each the winner would have helped (docs/effect.md).
PROVED_LATER = 0.5
#: What it was in earlier records, which stay as they are.
STRICTER = (ERROR, 0.25)
#: What a plan has in mind, to choose between ways that all hold the stated error: a gain over doing nothing, its size
#: in standard deviations of one person's difference, and what a choice loses that one person decides.
_GAIN, _EFFECT, _REGRET = 0.15, 0.3, 0.15
#: The probability of the true class about which a candidate may most easily decide; of a label, a wrong one is nearer.
_UNDECIDED = 0.25
#: How many persons' answers a proxy's fidelity counts as. With a hundred queries six races of nine chose nearer to the
#: best by it, and one farther: .008 behind it on average, .011 without (ad hoc, seven worlds, random orders).
_FAITHFUL = 16
#: Shares of the queries, and of the persons, that may be kept for a test on persons whom the halving does not use.
_KEPT = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)


@dataclass(frozen=True, eq=False, repr=False)
class RaceAnswers(Value):
    """What the platform said about one image of each person.

    Parameters
    ----------
    value : float64 array, shape (N,)
        The probability of the true class where the platform gives scores; else 1 for a right answer and 0 for another.
    right : bool array, shape (N,)
        Whether the answer counts as right.
    """

    value: NDArray[np.float64]
    right: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> RaceAnswers:
        return RaceAnswers(self.value[rows], self.right[rows])

    def __len__(self) -> int:
        return len(self.value)

    def joined(self, more: RaceAnswers) -> RaceAnswers:
        """Return this and what was said about further persons."""
        return RaceAnswers(np.concatenate([self.value, more.value]), np.concatenate([self.right, more.right]))

    def where(self, rows: NDArray[np.bool_], other: RaceAnswers) -> RaceAnswers:
        """Return this with what was said of some of the same persons in another way."""
        return RaceAnswers(np.where(rows, other.value, self.value), np.where(rows, other.right, self.right))


def hear(answers: Answers, classes: NDArray[np.int64], *, unresolved_right: bool = False) -> RaceAnswers:
    """Return answers as a race compares them.

    Parameters
    ----------
    answers : Answers
        One row per person.
    classes : int64 array, shape (N,)
        True classes.
    unresolved_right : bool
        Whether an image that brought no answer counts as right: for doing nothing, so that what is not known never
        speaks for a candidate.
    """
    right = answers.resolved & (answers.labels == classes)
    own = answers.scores[np.arange(len(classes)), classes].astype(np.float64)
    # A platform that names only its likeliest classes gave the others next to nothing.
    some = np.isfinite(answers.scores).any(axis=1)
    value = np.where(np.isfinite(own), own, np.where(some, 0.0, right.astype(np.float64)))
    missing = ~answers.resolved
    value[missing] = float(unresolved_right)
    return RaceAnswers(value, right | (missing & unresolved_right))


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """How a race goes, fixed before its first answer.

    Parameters
    ----------
    candidates : int
        K, without doing nothing.
    rounds : tuple of int
        How many further persons every surviving candidate is asked about, round by round.
    test : int
        How many persons are kept for the test against doing nothing, whom the halving does not use. 0: the test is on
        those that it used.
    error : float
        In at most this share of actions a candidate passes that is no better than doing nothing.
    """

    candidates: int
    rounds: tuple[int, ...]
    test: int
    error: float = ERROR

    @property
    def queries(self) -> int:
        """What the race costs."""
        alive, spent = self.candidates, 0
        for persons in self.rounds:
            spent += alive * persons
            alive = -(-alive // 2)
        return spent + self.test

    @property
    def persons(self) -> int:
        """How many persons it needs."""
        return sum(self.rounds) + self.test

    @property
    def level(self) -> float:
        """At which level the winner is tested: the whole error on persons who did not choose it, else its K-th part."""
        return self.error if self.test else self.error / self.candidates


def plan_race(
    *, candidates: int, persons: int, queries: int, apart: int | None = None, error: float = ERROR
) -> RacePlan:
    """Return how so many queries about so many persons are spent.

    Parameters
    ----------
    candidates : int
        K, without doing nothing, which costs nothing.
    persons : int
        Of the subgroup, in selection.
    queries : int
        At most.
    apart : int, optional
        How many others can be asked in the test against doing nothing, and in nothing else; by default some of these
        persons are kept for it where that pays.
    error : float
        Of the test: :data:`ERROR`, or :data:`PROVED_LATER`.

    Raises
    ------
    ActionError
        If there is nothing to race, or it is too little for any round.

    Notes
    -----
    Sequential halving: Karnin, Koren and Somekh, ICML 2013 [published]: ⌈log₂ K⌉ rounds of an equal share of the
    queries. Whether the winner is tested on other persons, and how many, or on the same, is decided here, by what a
    middling gain would bring on average [ours].
    """
    if candidates < 1 or persons < 1:
        raise ActionError(f"Expected candidates and persons to race, got {candidates} and {persons}.")
    made = partial(RacePlan, candidates=candidates, error=error)
    if candidates == 1:
        plan = made(rounds=(), test=min(persons if apart is None else apart, queries))
    elif apart is not None:
        shares = (min(apart, round(queries * paid)) for paid in _KEPT)
        chosen = [made(rounds=_halved(candidates, persons, queries - t), test=0) for t in shares]
        # What rounding leaves over is the test's.
        ways = [replace(c, test=min(apart, queries - c.queries)) for c in chosen if c.rounds[0]]
        ways = [w for w in ways if w.test]
        plan = max(ways, key=_worth, default=made(rounds=(0,), test=0))
    else:
        ways = [made(rounds=_halved(candidates, persons, queries), test=0)]
        for paid, people in itertools.product(_KEPT, _KEPT):
            rounds = _halved(candidates, persons - round(persons * people), queries - round(queries * paid))
            spent = made(rounds=rounds, test=0).queries
            test = min(persons - sum(rounds), queries - spent)
            ways += [made(rounds=rounds, test=test)] if rounds[0] and test else []
        plan = max(ways, key=_worth)
    if not plan.queries or (plan.rounds and not plan.rounds[0]):
        raise ActionError(
            f"Expected enough queries and persons for a race of {candidates}, got {queries} queries and {persons} "
            'subgroup persons. Raise race_share, let more people take part, or set recipe = "manual".'
        )
    return plan


def most_faithful(fidelity: Sequence[float], stays: Sequence[bool]) -> tuple[int, ...]:
    """Return which candidates the platform is asked about: the half whose proxies foretold its answers best.

    Those answers were paid for, about people whom no proxy learned from. A δ transfers from a proxy that errs as the
    platform errs, and so few queries tell few candidates apart [ours].

    Parameters
    ----------
    fidelity : sequence of float
        Of each candidate; NaN counts as none. Of equals, those handed in first.
    stays : sequence of bool
        Whether a candidate is asked about anyway.

    Returns
    -------
    tuple of int
        Half of the candidates, of two both; those that stay are among them, or they are those alone.
    """
    known = np.nan_to_num(np.asarray(fidelity, np.float64), nan=-1.0)
    order = sorted(range(len(known)), key=lambda c: (not stays[c], -known[c]))
    return tuple(sorted(order[: count_asked(stays)]))


def count_asked(stays: Sequence[bool]) -> int:
    """Return about how many candidates the platform is asked, which is known before anything is learned.

    Parameters
    ----------
    stays : sequence of bool
        Of each candidate whether it is asked about anyway.
    """
    candidates = len(stays)
    return max(candidates if candidates <= 2 else -(-candidates // 2), sum(stays))


def choosers(plan: RacePlan, value: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return who of some persons chooses among the candidates: those about whom the platform is least decided.

    Most people are served rightly whatever the candidate, and say nothing about which is better. Without scores it is
    those who are served wrongly. Only where the winner is tested on others may those who choose be picked [ours].

    Parameters
    ----------
    plan : RacePlan
    value : float64 array, shape (N,)
        :attr:`RaceAnswers.value` of doing nothing, in the random order of the race.

    Returns
    -------
    intp array, shape (M,)
        Their places, the least decided first: all candidates are asked about the first.
    """
    count = sum(plan.rounds)
    if not plan.test:
        return np.arange(min(count, len(value)))
    return np.argsort(np.abs(value - _UNDECIDED), kind="stable")[:count]


def _worth(plan: RacePlan) -> float:
    """Return the gain to be expected of a plan: what the winner brings, where it is shown to bring anything."""
    chosen_on = sum(plan.rounds)
    if not chosen_on:
        return -math.inf
    z = _EFFECT * math.sqrt(plan.test or chosen_on) - NormalDist().inv_cdf(1 - plan.level)
    return NormalDist().cdf(z) * (_GAIN - _REGRET / math.sqrt(chosen_on))


def _halved(candidates: int, persons: int, queries: int) -> tuple[int, ...]:
    """Return the further persons of each round: none, once everybody has been asked about."""
    rounds = max(candidates - 1, 0).bit_length()
    alive, found = candidates, list[int]()
    for _ in range(rounds):
        found.append(min(queries // (rounds * alive), persons - sum(found)))
        alive = -(-alive // 2)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What one candidate got in a race.

    Parameters
    ----------
    candidate : int
        Its place among those that were handed in.
    persons : int
        About whom it was asked in the rounds, or in the test where there are none: each costs one query.
    mean : float
        Of :attr:`RaceAnswers.value`, over these persons.
    difference : float
        The same minus that of doing nothing, on the same persons.
    right, right_before : int
        Persons answered rightly, with the candidate and as they are.
    out : int or None
        The round that it did not survive, counted from 1; None for the winner.
    """

    candidate: int
    persons: int
    mean: float
    difference: float
    right: int
    right_before: int
    out: int | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RaceResult(Value):
    """What came of a race.

    Parameters
    ----------
    ranks : tuple of Rank
        One for each candidate, as handed in.
    winner : int
        The candidate that survived.
    proposed : bool
        Whether it was shown to beat doing nothing.
    won, lost : int
        Persons of the test who were answered rightly only with the winner, and only as they are.
    rise : float or None
        By how much the probability of the true class rose on average in the test. None without scores.
    p, level : float
        One-sided p of that rise (:func:`ttca.statistics.comparisons.rise_p`), and what it had to be below.
    tested : int
        Persons of the test.
    fresh : bool
        Whether they are others than those of the halving.
    queries : int
        Images that were asked about.
    runner_up : int or None
        The other candidate of the last round; None where one was only tested.
    switches : tuple of Switch
        The classes that the runner-up serves. Where other persons are tested, they test both together. A class of which
        none of them is stays the winner's.
    spared : tuple of Harm
        The classes in which those who tested what is proposed fared better as they are.
    """

    ranks: tuple[Rank, ...]
    winner: int
    proposed: bool
    won: int
    lost: int
    rise: float | None
    p: float
    level: float
    tested: int
    fresh: bool
    queries: int
    runner_up: int | None = None
    switches: tuple[Switch, ...] = ()
    spared: tuple[Harm, ...] = ()


#: (each person's candidate, the first person's place) → what the platform said about these persons' images.
Ask = Callable[[NDArray[np.intp], int], RaceAnswers]


def run_race(
    plan: RacePlan,
    nothing: RaceAnswers,
    ask: Ask,
    *,
    fidelity: Sequence[float] | None = None,
    classes: NDArray[np.int64] | None = None,
) -> RaceResult:
    """Race candidates, combine the last two by class, and test what comes of it against doing nothing.

    Parameters
    ----------
    plan : RacePlan
    nothing : RaceAnswers
        What was said about every person as they are, in the one random order of the race.
    ask : callable
        (candidates, start) → :class:`RaceAnswers` of the persons from this place of the order on, each under their own
        candidate.
    fidelity : sequence of float, shape (K,), optional
        Of each candidate's proxy; NaN where it is not known.
    classes : int64 array, shape (N,), optional
        Everybody's true class in that order: then the runner-up may serve some of them, and nothing others
        (:func:`ttca.combining.switches`). By default the winner serves all.

    Notes
    -----
    All survivors are asked about the same next persons, and compared on all persons so far: what makes a person easy
    is in every candidate's mean. A proxy's fidelity counts like the answers of :data:`_FAITHFUL` persons. Among few
    persons it decides; among many it hardly matters [ours]. The test is of the mean alone.

    The test is one-sided, on persons' differences to doing nothing with their signs drawn; without scores that is
    McNemar's, mid-p. No fewer may be right in all. Below :data:`PROVED_LATER` somebody must be right with δ alone, too.
    On persons of whom the choice knew nothing its level is the plan's ``error``. On those that chose, it is a K-th of
    that. Whichever of the K wins, then, one that is no better than nothing passes in at most ``error`` of actions
    [ours].

    Combining asks nobody twice: those who chose decide, and whoever is tested is asked once, under what would serve
    them. Where the test is on those who chose, it is of the winner alone, and the combination counts as one more
    candidate: what is left of the error, a (K+1)-th, is more than the chance that a wrong switch undoes a winner that
    passed, which is simulated in tests/test_racing.py [ours].
    A δ that helps on average may harm in one class: what passed for all leaves such a class alone [ours].
    """
    alive, heard, out = list(range(plan.candidates)), dict[int, RaceAnswers](), dict[int, int]()
    ahead = _ahead(plan, fidelity)
    start, last = 0, alive
    for turn, persons in enumerate(plan.rounds, start=1):
        for candidate in alive if persons else ():
            said = ask(np.full(persons, candidate, np.intp), start)
            heard[candidate] = heard[candidate].joined(said) if candidate in heard else said
        start += persons
        # Of equals, those handed in first.
        order = sorted(alive, key=lambda c: -float(heard[c].value.sum() + ahead[c]))
        for candidate in order[-(-len(alive) // 2) :]:
            out[candidate] = turn
        last, alive = alive, sorted(order[: -(-len(alive) // 2)])
    winner = alive[0]
    runner_up = next((c for c in last if c != winner), None)
    served: tuple[Switch, ...] = ()
    if classes is not None and runner_up is not None:
        served = switches(*_gained(heard[winner], heard[runner_up]), classes[:start])
    queries = sum(map(len, heard.values()))
    if plan.test:
        who, test = np.full(plan.test, winner, np.intp), slice(start, start + plan.test)
        if classes is not None and runner_up is not None:
            # What nobody tests is not proposed.
            served = tuple(s for s in served if s.label in classes[test])
            who[np.isin(classes[test], [s.label for s in served])] = runner_up
        said = ask(who, start)
        queries += len(said)
        heard.setdefault(winner, said)
        serving = said
    else:
        test = slice(0, start)
        serving = said = heard[winner]
        if classes is not None and runner_up is not None:
            serving = said.where(np.isin(classes[test], [s.label for s in served]), heard[runner_up])
    level = plan.level if plan.test or classes is None else plan.error / (plan.candidates + 1)
    before = nothing[test]
    won, lost = int((said.right & ~before.right).sum()), int((~said.right & before.right).sum())
    differences = said.value - before.value
    scored = bool((said.value != said.right).any() or (before.value != before.right).any())
    p = rise_p(differences)
    # A platform that is surer, and right about fewer people, helps nobody. Where a certificate looks again, nobody need
    # be turned: among thirty people that misses one δ in twenty that turns every tenth.
    proposed = p < level and won >= lost and (won > 0 or plan.error >= PROVED_LATER)
    return RaceResult(
        ranks=tuple(_rank(c, heard.get(c, nothing[:0]), nothing, out.get(c)) for c in range(plan.candidates)),
        winner=winner,
        proposed=proposed,
        won=won,
        lost=lost,
        rise=float(differences.mean()) if scored else None,
        p=p,
        level=level,
        tested=len(before),
        fresh=bool(plan.test),
        queries=queries,
        runner_up=runner_up,
        switches=served,
        spared=harms(*_gained(serving, before), classes[test]) if proposed and classes is not None else (),
    )


def _ahead(plan: RacePlan, fidelity: Sequence[float] | None) -> NDArray[np.float64]:
    """Return what fidelity adds to each candidate's sum over persons, float64 (K,): not known, as much as the mean."""
    known = np.full(plan.candidates, np.nan) if fidelity is None else np.asarray(fidelity, np.float64)
    mean = np.nanmean(known) if np.isfinite(known).any() else 0.0
    return _FAITHFUL * np.where(np.isfinite(known), known, mean)


def _gained(serves: RaceAnswers, other: RaceAnswers) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what each person gains by another, in the value and in right answers."""
    return other.value - serves.value, other.right.astype(np.int64) - serves.right


def _rank(candidate: int, heard: RaceAnswers, nothing: RaceAnswers, out: int | None) -> Rank:
    before = nothing[: len(heard)]
    return Rank(
        candidate=candidate,
        persons=len(heard),
        mean=float(heard.value.mean()) if len(heard) else math.nan,
        difference=float((heard.value - before.value).mean()) if len(heard) else math.nan,
        right=int(heard.right.sum()),
        right_before=int(before.right.sum()),
        out=out,
    )

"""Advice after a certificate that failed: how many people another goal, or the same one, would have needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ttca.certificates import Certificate, Certifying, Condition, Examined, certify
from ttca.goals import Design
from ttca.statistics.binomial import scipy_special
from ttca.trials import rule_of

__all__ = ["Rates", "after_failure", "chance", "persons_needed", "too_few"]

#: With this chance a certificate is to pass.
_WANTED = 0.8
#: More persons than this are not looked for.
_MOST = 5000
#: So many can be certified, for any goal but a high rate.
_NEVER_TOO_FEW = 30
#: Baselines that an average goes over: the middles of so many equally likely parts.
_PARTS = 9
_MARGINS = (0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What is known of how often people are right, as shares; None where nothing is.

    Parameters
    ----------
    delta : float
        The subgroup with δ.
    before, reference : float or None
        The subgroup as it is, and the reference.
    """

    delta: float
    before: float | None
    reference: float | None


def chance(terms: Certifying, design: Design, persons: int, others: int, rates: Rates) -> float:
    """Return about how likely one ε passes, if these rates are the true ones.

    Parameters
    ----------
    terms : Certifying
        Its fixed test is looked at, whenever it stops.
    design : {"disjoint", "paired"}
    persons, others : int
        Of the subgroup, and of the reference.
    rates : Rates

    Notes
    -----
    Of different people, the test's exact power, averaged over what the reference may get. Of the same people, that of
    McNemar's test, each person's two answers taken as independent: where they go together, as they do, more pass.
    *Ours*.
    """
    terms = replace(terms, stopping="curtailed", every_image=False)
    compares = terms.aim.compares_with
    paired = compares == "before" or (compares == "reference" and design == "paired")
    if compares is None:
        return _power_given(terms, persons, 0, 0, rates.delta)
    rate = rates.before if compares == "before" else rates.reference
    if rate is None:
        return 0.0
    if paired:
        return _power_of_pairs(persons, rate, rates.delta, terms.alpha)
    parts = (np.arange(_PARTS) + 0.5) / _PARTS
    right = np.searchsorted(scipy_special().bdtr(np.arange(others + 1), others, rate), parts).tolist()
    by_count = {k: _power_given(terms, persons, others, k, rates.delta) for k in set(right)}
    return float(np.mean([by_count[k] for k in right]))


def persons_needed(terms: Certifying, design: Design, rates: Rates, *, others_each: float, start: int) -> int | None:
    """Return about how many persons of the subgroup one ε needs to pass with a chance of 80 %; None for too many.

    Parameters
    ----------
    terms, design, rates
        As for :func:`chance`.
    others_each : float
        Persons of the reference for each of the subgroup.
    start : int
        Persons to begin the search with.

    Notes
    -----
    By :func:`chance`, within 2 %. Goals with a margin or a ratio by the normal approximation: their exact tests
    enumerate every table.
    """

    if terms.aim.kind in ("within", "accuracy_ratio"):
        return _by_formula(terms, rates, others_each)

    def enough(persons: int) -> bool:
        return chance(terms, design, persons, max(1, round(others_each * persons)), rates) >= _WANTED

    low, high = 1, max(2, start)
    while not enough(high):
        if high >= _MOST:
            return None
        low, high = high, min(_MOST, 2 * high)
    # Within 2 %: nobody knows the true shares that well.
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def too_few(terms: Certifying, examined: Examined) -> str | None:
    """Return the sentence that these people cannot be certified whatever is answered; None where they can.

    Parameters
    ----------
    terms : Certifying
    examined : Examined

    Notes
    -----
    The certificate's own rule, given the best answers that there could be: all right with δ, all wrong without.
    """
    if examined.persons >= _NEVER_TOO_FEW and terms.aim.kind != "rate":
        return None

    def best(condition: Condition, start: int, stop: int) -> str:
        return ("1" if isinstance(condition, int) else "0") * (stop - start)

    if certify(best, terms, epsilons=(1,), examined=examined).epsilon is not None:
        return None
    return (
        f"So few verification people cannot reach the goal, {terms.aim}, even if each were answered wrongly without δ "
        "and rightly with it. Bring more people; docs/people.md has the smallest numbers."
    )


def after_failure(certificate: Certificate, pool: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return what can be done now, sentences for people; nothing where the certificate passed.

    Parameters
    ----------
    certificate : Certificate
    pool : dict
        Share of right answers of ``subgroup`` and ``reference`` among the pool's people, for what the certificate did
        not ask.
    """
    if certificate.epsilon is not None:
        return ()
    examined, terms, test = certificate.examined, certificate.terms, certificate.quoted_test
    baseline = certificate.baseline
    share = None if not baseline else (len(baseline) - baseline.count("0")) / len(baseline)
    compares = terms.aim.compares_with
    rates = Rates(
        delta=test.right / test.asked,
        before=share if compares == "before" else pool.get("subgroup"),
        reference=share if compares == "reference" else pool.get("reference"),
    )
    each = examined.others / examined.persons
    seen = [f"{100 * rates.delta:.0f} % with δ"]
    seen += [] if rates.before is None else [f"{100 * rates.before:.0f} % without"]
    seen += [] if rates.reference is None else [f"{100 * rates.reference:.0f} % of the reference"]
    said = [
        "What can be done now. Whatever it is, it needs a new folder and new verification people, since these have "
        f"been read. The numbers below hold if the shares seen are the true ones ({', '.join(seen)} right); a new "
        "certificate then passes in 4 of 5 actions."
    ]
    found = persons_needed(terms, examined.design, rates, others_each=each, start=examined.persons)
    said.append(f"- The same goal, {terms.aim}: {_people(found, terms, examined.design, each, examined.persons)}")
    for other in _other_goals(terms, rates):
        found = persons_needed(other, examined.design, rates, others_each=each, start=examined.persons)
        if found is not None:
            said.append(
                f"- Another goal, {other.aim}: {_people(found, other, examined.design, each, examined.persons)}"
            )
    said.append(
        "- A better δ: more pool people, or more of their quotas. How far it gets nobody knows before it is tried."
    )
    return tuple(said)


def _other_goals(terms: Certifying, rates: Rates) -> list[Certifying]:
    """Return goals that may be within reach, the strongest first."""
    plain = Certifying(alpha=terms.alpha)
    options = [plain, *(replace(plain, within=margin) for margin in _MARGINS), replace(plain, goal="improvement")]
    # A round rate that is surely below what was seen.
    rate = np.floor(20 * (rates.delta - 0.05)) / 20
    if 0 < rate < 1:
        options.append(replace(plain, goal=round(float(rate), 2)))
    return [option for option in options if option.aim != terms.aim]


def _people(persons: int | None, terms: Certifying, design: Design, each: float, had: int) -> str:
    if persons is None:
        return f"no number of people up to {_MOST:,} would do; with this δ it is out of reach."
    others = ""
    if terms.aim.compares_with == "reference" and design == "disjoint":
        others = f" and {max(1, round(each * persons)):,} of the reference"
    now = f" (there were {had:,})"
    return f"about {persons:,} persons of the subgroup{others} to verify{now}."


def _power_given(terms: Certifying, persons: int, others: int, right: int, rate: float) -> float:
    """Return the power of a test that counts right answers, given how many of the reference were right."""
    needed = getattr(rule_of(terms, "disjoint", persons, np.arange(others) < right), "needed", None)
    if needed is None:
        return 0.0
    return float(scipy_special().bdtrc(needed - 1, persons, rate)) if needed > 0 else 1.0


def _power_of_pairs(persons: int, before: float, delta: float, alpha: float) -> float:
    """Return the power of the exact one-sided McNemar test where a person's two answers are independent."""
    special = scipy_special()
    won, lost = delta * (1 - before), before * (1 - delta)
    if won + lost == 0:
        return 0.0
    counts = np.arange(persons + 1)
    # Of so many persons who differ, so many must be won. With one more of them it is as many, or one more.
    needed = np.ones(persons + 1)
    for n in range(1, persons + 1):
        needed[n] = needed[n - 1] + (special.bdtrc(needed[n - 1] - 1, n, 0.5) > alpha)
    weight = np.diff(special.bdtr(counts, persons, min(1.0, won + lost)), prepend=0.0)
    enough = np.where(needed > counts, 0.0, special.bdtrc(needed - 1, counts, won / (won + lost)))
    return float((weight * enough).sum())


def _by_formula(terms: Certifying, rates: Rates, others_each: float) -> int | None:
    """Return the persons that a goal with a margin or ratio needs, by the normal approximation."""
    if rates.reference is None:
        return None
    special, ratio, margin = scipy_special(), terms.accuracy_ratio or 1.0, terms.within or 0.0
    ahead = rates.delta - ratio * rates.reference + margin
    if ahead <= 0:
        return None
    spread = rates.delta * (1 - rates.delta) + ratio**2 * rates.reference * (1 - rates.reference) / others_each
    sure = special.ndtri(1 - terms.alpha) + special.ndtri(_WANTED)
    persons = math.ceil(sure**2 * spread / ahead**2)
    return persons if persons <= _MOST else None

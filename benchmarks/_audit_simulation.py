"""Simulated audits whose truth is known: who is served how well, and what the product's own functions say of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from benchmarks._many_certificates import certify_many
from benchmarks._simulated_actions import Setting, draws
from ttca.answers import Status
from ttca.audit import Heard, audited
from ttca.certificates import Certifying
from ttca.discovery import Candidate, discover
from ttca.fairness import OneVsRestReport
from ttca.intervals import Span
from ttca.power import Assumed, Verifiers, power
from ttca.statistics.comparisons import fisher_p
from ttca.statistics.two_groups import smallest_gap

__all__ = ["discovery_power", "plan_power", "two_groups"]

#: Classes of simulated platforms, and how often they refuse whom they do not recognize.
_CLASSES, _REFUSALS = 2, 0.1
#: Rates of (subgroup, reference) in simulated audits.
_RATES = ((0.5, 0.5), (0.7, 0.7), (0.85, 0.85), (0.95, 0.95), (0.6, 0.85), (0.75, 0.9), (0.98, 0.99))
_SIZES = (30, 60, 150, 300)
#: A split is compared in so many of the audits.
_SPLIT_EVERY = 4
#: Values of two columns: with their pairs, 20 groups.
_VALUES = (2, 6)

Random = np.random.Generator
Integers = NDArray[np.int64]


# --- an audit of two groups --------------------------------------------------------------------------------------


def two_groups(audits: int, seed: int) -> dict[str, Any]:
    """Return how often intervals hold the truth, a gap is claimed where there is none, and a large enough one is seen.

    Parameters
    ----------
    audits : int
        Simulated, over all rates, sizes and designs in turn.
    seed : int

    Returns
    -------
    dict
        ``coverage``: the smallest share, over all kinds of numbers, of intervals that hold the truth.
        ``by_kind``: each of them. ``two_group_error``: the largest share of audits, by design, that claim a gap where
        there is none. ``seen``: the share that see a gap as large as the smallest that they should see with 80 %.
    """
    rng = np.random.default_rng([seed, 1])
    held: dict[str, list[bool]] = {}
    claims: dict[str, list[bool]] = {"disjoint": [], "paired": []}
    cases = [(*rates, size, design) for design in claims for size in _SIZES for rates in _RATES]
    for number in range(audits):
        subgroup, reference, size, design = cases[number % len(cases)]
        heard = _two_groups(rng, subgroup, reference, size, design)
        found = audited(heard, "paired" if design == "paired" else "disjoint", _names())
        compared = found.comparison
        assert compared is not None
        truths: dict[str, tuple[float, Span | None]] = {"gap": (reference - subgroup, compared.interval)}
        for group, rate in zip(found.groupings[0].groups, (subgroup, reference), strict=True):
            truths[f"accuracy of the {group.name}"] = (rate, group.accuracy)
            truths[f"refusals of the {group.name}"] = ((1 - rate) * _REFUSALS, group.refusals)
            for label, rates_of_class in group.rates.items():
                truths[f"true positive rate of the {group.name}, {label}"] = (
                    rate,
                    rates_of_class["true_positive_rate"][1],
                )
        truth_of = _metrics(subgroup, reference)
        truths |= {name: (truth_of[name], span) for name, (_, span) in found.groupings[0].metrics.items()}
        for name, (truth, span) in truths.items():
            if span is not None:
                held.setdefault(name, []).append(span.low - 1e-9 <= truth <= span.high + 1e-9)
        if subgroup == reference:
            claims[design].append(compared.shown)
    by_kind = {name: float(np.mean(each)) for name, each in held.items()}
    errors = {design: float(np.mean(each)) for design, each in claims.items() if each}
    return {
        "coverage": min(by_kind.values()),
        "by_kind": by_kind,
        "two_group_error": max(errors.values()),
        "error_by_design": errors,
        "seen": _seen(rng, max(1, audits // 4)),
    }


def _two_groups(rng: Random, subgroup: float, reference: float, size: int, design: str) -> Heard:
    """Return what a platform says of so many persons of each group; of the same persons, alike."""
    truth = np.tile(np.arange(size) % _CLASSES, 2)
    luck = rng.random((2, size))
    if design == "paired":
        # Half of the persons have the same luck twice.
        luck[1] = np.where(rng.random(size) < 0.5, luck[0], luck[1])
    right = np.concatenate([luck[0] < subgroup, luck[1] < reference])
    persons = np.char.add("p", np.arange(2 * size).astype(np.str_))
    if design == "paired":
        persons = np.tile(persons[:size], 2)
    return _heard(rng, truth, right, persons, np.repeat([True, False], size), {})


def _heard(
    rng: Random, truth: Integers, right: NDArray[np.bool_], persons: NDArray[np.str_], subgroup: NDArray[np.bool_],
    columns: dict[str, NDArray[np.str_]],
) -> Heard:  # fmt: skip
    refused = ~right & (rng.random(len(truth)) < _REFUSALS)
    said = np.where(right, truth, (truth + 1) % _CLASSES)
    status = np.where(refused, int(Status.REFUSED), int(Status.ANSWERED)).astype(np.int8)
    return Heard(truth, np.where(refused, -1, said), status, persons, subgroup, columns)


def _names() -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(_CLASSES))


@lru_cache(maxsize=32)
def _metrics(subgroup: float, reference: float) -> dict[str, float]:
    """Return the true metrics: those of a crowd in which every kind of answer has its true share."""
    scale = 20_000
    parts = []
    for group, rate in enumerate((subgroup, reference)):
        for label in range(_CLASSES):
            right, refused = round(rate * scale), round((1 - rate) * _REFUSALS * scale)
            said = np.repeat([label, -1, 1 - label], [right, refused, scale - right - refused])
            parts.append((np.full(scale, label), said, np.full(scale, group)))
    truth, answers, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
    return dict(OneVsRestReport.from_predictions(truth, answers, groups, classes=range(_CLASSES)).worst)


def _seen(rng: Random, audits: int) -> float:
    """Return how often a gap is seen that is as small as the product says would be seen with 80 %."""
    seen = []
    for number in range(audits):
        size, design = _SIZES[1 + number % 3], ("disjoint", "paired")[number // 3 % 2]
        gap = smallest_gap(0.85, size, size, paired=design == "paired")
        assert gap is not None
        luck = rng.random((2, size))
        right = np.concatenate([luck[0] < 0.85 - gap, luck[1] < 0.85])
        persons = np.char.add("p", np.arange(2 * size).astype(np.str_))
        persons = np.tile(persons[:size], 2) if design == "paired" else persons
        heard = _heard(rng, np.tile(np.arange(size) % _CLASSES, 2), right, persons, np.repeat([True, False], size), {})
        compared = audited(heard, "paired" if design == "paired" else "disjoint", _names()).comparison
        seen.append(compared is not None and compared.shown and compared.gap > 0)
    return float(np.mean(seen))


# --- discovery ---------------------------------------------------------------------------------------------------


def discovery_power(
    audits: int, seed: int, *, answers: int = 1000, rate: float = 0.85, share: float, gap: float
) -> dict[str, Any]:
    """Return how often a planted group is found, and which share of what is found is false.

    Parameters
    ----------
    audits : int
    seed : int
    answers : int
        Of different persons.
    rate : float
        Of everybody else.
    share, gap : float
        Of the people who are in the planted group, one of 20 candidates; and how far below ``rate`` it is. A gap of 0
        plants nothing.

    Returns
    -------
    dict
        ``discovered``; ``false_discovery``, the mean share of finds that are served no worse than everybody else; and
        the same of a split, in every fourth audit, with ``split_`` before them.
    """
    rng = np.random.default_rng([seed, 2, round(1000 * share), round(1000 * gap)])
    found: dict[str, list[float]] = {name: [] for name in ("discovered", "false", "split discovered", "split false")}
    candidates = []
    for number in range(audits):
        heard, truth = _planted(rng, answers, rate, share, gap)
        result = discover(heard)
        candidates.append(len(result.candidates))
        _note(found, "", result.found, truth)
        if number % _SPLIT_EVERY == 0:
            _note(found, "split ", _split(rng, heard), truth)
    return {
        "audits": audits,
        "share": share,
        "gap": gap,
        "candidates": float(np.mean(candidates)),
        "discovered": float(np.mean(found["discovered"])) if gap else None,
        "false_discovery": float(np.mean(found["false"])),
        "split_discovered": float(np.mean(found["split discovered"])) if gap else None,
        "split_false_discovery": float(np.mean(found["split false"])),
    }


#: The planted group, by the columns' names and values.
_PLANTED = ("age", "0")
#: (columns, values) of a group → whether it is truly served worse than everybody else.
Truth = dict[tuple[tuple[str, ...], tuple[str, ...]], bool]


def _planted(rng: Random, answers: int, rate: float, share: float, gap: float) -> tuple[Heard, Truth]:
    others = np.full(_VALUES[1] - 1, (1 - share) / (_VALUES[1] - 1))
    age = rng.choice(_VALUES[1], answers, p=[share, *others])
    skin = rng.choice(_VALUES[0], answers)
    chance = np.where(age == 0, rate - gap, rate)
    columns = {"skin": skin.astype(np.str_), "age": age.astype(np.str_)}
    truth: Truth = {}
    for value in range(_VALUES[1]):
        truth[("age",), (str(value),)] = value == 0 and gap > 0
        for other in range(_VALUES[0]):
            truth[("skin", "age"), (str(other), str(value))] = value == 0 and gap > 0
    for other in range(_VALUES[0]):
        truth[("skin",), (str(other),)] = False
    persons = np.char.add("p", np.arange(answers).astype(np.str_))
    labels = rng.integers(0, _CLASSES, answers)
    right = rng.random(answers) < chance
    return _heard(rng, labels, right, persons, np.ones(answers, np.bool_), columns), truth


def _note(found: dict[str, list[float]], way: str, named: Sequence[Candidate], truth: Truth) -> None:
    groups = [(one.by, one.values) for one in named]
    false = [group for group in groups if not truth[group]]
    found[f"{way}discovered"].append(float(((_PLANTED[0],), (_PLANTED[1],)) in groups))
    found[f"{way}false"].append(len(false) / max(1, len(groups)))


def _split(rng: Random, heard: Heard, chosen: int = 4) -> tuple[Candidate, ...]:
    """Return what a split finds: half of the people propose the worst groups, the other half tests these alone."""
    half = rng.random(len(heard)) < 0.5
    proposed = {(one.by, one.values) for one in discover(heard[half]).candidates[:chosen]}
    tested = [one for one in discover(heard[~half]).candidates if (one.by, one.values) in proposed]
    if not tested:
        return ()
    p = [fisher_p(one.others_right, one.others, one.right, one.persons) for one in tested]
    adjusted = false_discovery_control(p, method="by")
    return tuple(one for one, share in zip(tested, adjusted, strict=True) if share <= 0.05)


# --- the power of plans ------------------------------------------------------------------------------------------


def plan_power(actions: int, seed: int) -> dict[str, Any]:
    """Return by how much a plan's power differs from that of simulated actions, at most.

    Parameters
    ----------
    actions : int
        Simulated for each plan.
    seed : int
    """
    rng = np.random.default_rng([seed, 3])
    assumed = Assumed(subgroup=0.6, reference=0.85)
    goals = (
        Certifying(), Certifying(goal="improvement"), Certifying(goal=0.85), Certifying(within=0.05),
        Certifying(accuracy_ratio=0.8), Certifying(stopping="hybrid"),
    )  # fmt: skip
    rows, errors = [], []
    for terms in goals:
        for group in (Verifiers(design="disjoint", others=2.0), Verifiers(design="paired")):
            if group.design == "paired" and terms.within is not None:
                continue  # Slow to enumerate, and the same code as its disjoint form's.
            for persons in (50, 100):
                at = power(terms, group, persons, assumed)
                for success in (0.75, 0.88, 0.95):
                    simulated = _certified(rng, terms, group, persons, assumed, success, actions)
                    errors.append(abs(at(success) - simulated))
                    rows.append(
                        {
                            "goal": str(terms.aim),
                            "stopping": terms.stopping,
                            "design": group.design,
                            "persons": persons,
                            "success": success,
                            "planned": at(success),
                            "simulated": simulated,
                        }
                    )
    return {"plan_power_error": max(errors), "plans": rows}


def _certified(
    rng: Random, terms: Certifying, group: Verifiers, persons: int, assumed: Assumed, success: float, actions: int
) -> float:
    compares = terms.aim.compares_with
    paired = group.design == "paired" or compares == "before"
    setting = Setting(
        (success,),
        assumed.subgroup if compares == "before" else assumed.reference,
        persons,
        None if paired else round(group.others * persons),
    )
    claimed = 0
    for answers in draws(setting, actions, rng):
        claimed += int(certify_many(terms, "paired" if paired else "disjoint", answers).claimed.sum())
    return claimed / actions

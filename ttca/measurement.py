"""Measuring an action on people: S and every control, each on the uint8 images that were really sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import clopper_pearson_interval, mcnemar_exact
from ttca.errors import ActionError
from ttca.fairness import OneVsRestReport
from ttca.images import Images
from ttca.lossy import jpeg, shrink_and_enlarge
from ttca.people import People
from ttca.perturbations import PerturbationSet

__all__ = ["Measurement", "Opponents", "measure"]


@dataclass(frozen=True)
class Opponents:
    """What an action has to beat, at the same ε.

    ``noise``: random ±ε per class. ``zero_query``: from a proxy that asked nothing. ``class_agnostic``: one δ for
    all classes.
    """

    noise: PerturbationSet
    zero_query: PerturbationSet
    class_agnostic: PerturbationSet


@dataclass(frozen=True)
class Measurement:
    """Who was answered rightly, person by person, under each condition.

    Parameters
    ----------
    correct : dict of str to bool array
        Per condition, over the people that were resolved or not: an abstention is not correct.
    resolved : dict of str to bool array
        Per condition, whether the platform answered (with a label or a refusal).
    fidelity_subgroup, fidelity_reference : float
        Agreement of proxy and platform on the unperturbed images.
    fairness_before, fairness_after : OneVsRestReport
        Of both groups, each class against the rest; after means: the subgroup applies δ, the reference does not.
    """

    correct: dict[str, NDArray[np.bool_]]
    resolved: dict[str, NDArray[np.bool_]]
    fidelity_subgroup: float
    fidelity_reference: float
    fairness_before: OneVsRestReport
    fairness_after: OneVsRestReport

    def rate(self, condition: str) -> float:
        """Return the share of right answers among the resolved; a refusal counts as wrong."""
        asked = self.resolved[condition]
        return float(self.correct[condition][asked].mean()) if asked.any() else float("nan")

    def interval(self, condition: str) -> tuple[float, float]:
        """Return the two-sided 95 % Clopper–Pearson interval of :meth:`rate`."""
        asked = self.resolved[condition]
        low, high = clopper_pearson_interval(int(self.correct[condition][asked].sum()), int(asked.sum()))
        return float(low), float(high)

    def paired_p(self, first: str, second: str) -> float:
        """Return the exact two-sided McNemar p-value of two conditions on the same people."""
        if self.resolved[first].shape != self.resolved[second].shape:
            raise ActionError(f"Expected two conditions on the same people, got {first!r} and {second!r}.")
        both = self.resolved[first] & self.resolved[second]
        return float(mcnemar_exact(self.correct[first][both], self.correct[second][both]))

    @property
    def coverage(self) -> float:
        """Share of all queries of this measurement that were resolved."""
        return float(np.concatenate(list(self.resolved.values())).mean())

    @property
    def gap_closed(self) -> float:
        """(S − subgroup) / (reference − subgroup), NaN where there is no gap; may exceed 1."""
        gap = self.rate("reference_before") - self.rate("subgroup_before")
        return (self.rate("subgroup_after") - self.rate("subgroup_before")) / gap if gap > 0 else float("nan")


def measure(
    ask: Callable[[Images], Answers],
    people: People,
    *,
    perturbations: PerturbationSet,
    opponents: Opponents,
    proxy: Callable[[Images], NDArray[np.int64]],
    seed: int,
) -> Measurement:
    """Ask the platform about ``people`` under every condition of the honest row.

    Parameters
    ----------
    ask : callable
        uint8 (N, H, W, 3) → Answers. Called once, with all conditions together.
    people : People
        Both groups, read for nothing else.
    perturbations : PerturbationSet
    opponents : Opponents
    proxy : callable
        uint8 (N, H, W, 3) → int64 (N,): the class the proxy would pick, with no knowledge of the truth.
    seed : int
        Draws, for the abuse rate, one wrong class per person.
    """
    sub, ref = people[people.subgroup], people[~people.subgroup]
    if not len(sub) or not len(ref):
        raise ActionError("Expected people of both groups to measure a gap, got only one group. Let volunteers join.")
    count = len(perturbations.classes)
    rng = np.random.default_rng(seed)
    wrong = (sub.classes + rng.integers(1, count, size=len(sub))) % count
    after = perturbations.apply(sub.images, sub.classes)
    # condition: the images sent, and the label that counts as a hit
    conditions: dict[str, tuple[Images, NDArray[np.int64]]] = {
        "reference_before": (ref.images, ref.classes),
        "reference_after": (perturbations.apply(ref.images, ref.classes), ref.classes),
        "subgroup_before": (sub.images, sub.classes),
        "subgroup_after": (after, sub.classes),
        "abuse": (perturbations.apply(sub.images, wrong), wrong),
        "noise": (opponents.noise.apply(sub.images, sub.classes), sub.classes),
        "proxy_class": (perturbations.apply(sub.images, proxy(sub.images)), sub.classes),
        "class_agnostic": (opponents.class_agnostic.apply(sub.images, sub.classes), sub.classes),
        "zero_query": (opponents.zero_query.apply(sub.images, sub.classes), sub.classes),
        "jpeg75": (jpeg(after), sub.classes),
        "resize": (shrink_and_enlarge(after), sub.classes),
    }
    answers = ask(np.concatenate([images for images, _ in conditions.values()]))
    correct: dict[str, NDArray[np.bool_]] = {}
    resolved: dict[str, NDArray[np.bool_]] = {}
    said: dict[str, Answers] = {}
    start = 0
    for name, (images, target) in conditions.items():
        part = said[name] = answers[start : start + len(images)]
        start += len(images)
        correct[name] = part.labels == target
        resolved[name] = part.resolved
    return Measurement(
        correct=correct,
        resolved=resolved,
        fidelity_subgroup=_agreement(proxy(sub.images), said["subgroup_before"]),
        fidelity_reference=_agreement(proxy(ref.images), said["reference_before"]),
        fairness_before=_fairness(sub, said["subgroup_before"], ref, said["reference_before"]),
        fairness_after=_fairness(sub, said["subgroup_after"], ref, said["reference_before"]),
    )


def _agreement(predicted: NDArray[np.int64], answers: Answers) -> float:
    named = answers.answered
    return float((predicted[named] == answers.labels[named]).mean()) if named.any() else float("nan")


def _fairness(sub: People, sub_said: Answers, ref: People, ref_said: Answers) -> OneVsRestReport:
    return OneVsRestReport.from_predictions(
        np.concatenate([sub.classes, ref.classes]),
        np.concatenate([sub_said.labels, ref_said.labels]),
        np.repeat(["subgroup", "reference"], [len(sub), len(ref)]),
        classes=range(sub_said.classes),
        subgroup="subgroup",
        reference="reference",
        status=np.concatenate([sub_said.status, ref_said.status]),
    )

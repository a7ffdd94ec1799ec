"""Measuring an action on people: S and every control, each on the uint8 images that were really sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import clopper_pearson_interval, mcnemar_exact
from ttca.errors import ActionError
from ttca.fairness import OneVsRestReport
from ttca.gap import gap_interval
from ttca.images import Images
from ttca.lossy import jpeg, shrink_and_enlarge
from ttca.people import People
from ttca.perturbations import PerturbationSet

__all__ = ["Measurement", "Opponents", "measure"]

#: Bytes of images that are asked about together.
_TOGETHER = 2**26


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

    def gap_interval(self) -> tuple[float, float]:
        """Return the two-sided 95 % interval of the gap, reference minus subgroup (:func:`ttca.gap.gap_interval`)."""
        counts = [
            (int(self.correct[name][self.resolved[name]].sum()), int(self.resolved[name].sum()))
            for name in ("reference_before", "subgroup_before")
        ]
        return gap_interval(counts[0], counts[1])

    @property
    def gap_closed(self) -> float:
        """(S − subgroup) / (reference − subgroup), which may exceed 1.

        NaN where no gap was shown: where its interval holds 0, or the subgroup is ahead.
        """
        gap = self.rate("reference_before") - self.rate("subgroup_before")
        shown = self.gap_interval()[0] > 0
        return (self.rate("subgroup_after") - self.rate("subgroup_before")) / gap if shown else float("nan")


def measure(
    ask: Callable[[Images, NDArray[np.str_]], Answers],
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
        uint8 (N, H, W, 3) and str (N,), whose images they are → Answers. Called with several conditions together, as
        many as fit in memory.
    people : People
        Both groups, read for nothing else.
    perturbations : PerturbationSet
    opponents : Opponents
    proxy : callable
        uint8 (N, H, W, 3) → int64 (N,): the class the proxy would pick, with no knowledge of the truth.
    seed : int
        Draws, for the abuse rate, one wrong class per person.
    """
    members, others = np.flatnonzero(people.subgroup), np.flatnonzero(~people.subgroup)
    if not len(members) or not len(others):
        raise ActionError("Expected people of both groups to measure a gap, got only one group. Let volunteers join.")
    own, theirs = people.classes[members], people.classes[others]
    count = len(perturbations.classes)
    rng = np.random.default_rng(seed)
    wrong = (own + rng.integers(1, count, size=len(own))) % count
    ref, sub = people.images[others], people.images[members]
    after = perturbations.apply(sub, own)
    # condition: the images sent, made when their turn comes, and the label that counts as a hit
    conditions: dict[str, tuple[Callable[[], Images], NDArray[np.int64]]] = {
        "reference_before": (lambda: ref, theirs),
        "reference_after": (lambda: perturbations.apply(ref, theirs), theirs),
        "subgroup_before": (lambda: sub, own),
        "subgroup_after": (lambda: after, own),
        "abuse": (lambda: perturbations.apply(sub, wrong), wrong),
        "noise": (lambda: opponents.noise.apply(sub, own), own),
        "proxy_class": (lambda: perturbations.apply(sub, proxy(sub)), own),
        "class_agnostic": (lambda: opponents.class_agnostic.apply(sub, own), own),
        "zero_query": (lambda: opponents.zero_query.apply(sub, own), own),
        "jpeg75": (lambda: jpeg(after), own),
        "resize": (lambda: shrink_and_enlarge(after), own),
    }
    owners = {True: people.members[others], False: people.members[members]}
    said = _said(ask, {name: (make, owners[name.startswith("reference")]) for name, (make, _) in conditions.items()})
    correct = {name: said[name].labels == target for name, (_, target) in conditions.items()}
    resolved = {name: part.resolved for name, part in said.items()}
    return Measurement(
        correct=correct,
        resolved=resolved,
        fidelity_subgroup=_agreement(proxy(sub), said["subgroup_before"]),
        fidelity_reference=_agreement(proxy(ref), said["reference_before"]),
        fairness_before=_fairness(own, said["subgroup_before"], theirs, said["reference_before"]),
        fairness_after=_fairness(own, said["subgroup_after"], theirs, said["reference_before"]),
    )


def _said(
    ask: Callable[[Images, NDArray[np.str_]], Answers],
    conditions: Mapping[str, tuple[Callable[[], Images], NDArray[np.str_]]],
) -> dict[str, Answers]:
    """Ask about all conditions, as many together as fit in memory: eleven copies of photographs do not."""
    said: dict[str, Answers] = {}
    waiting: dict[str, tuple[Images, NDArray[np.str_]]] = {}

    def flush() -> None:
        images, owners = zip(*waiting.values(), strict=True)
        together = images[0] if len(images) == 1 else np.concatenate(images)
        answers, start = ask(together, np.concatenate(owners)), 0
        for name, (part, _) in waiting.items():
            said[name] = answers[start : start + len(part)]
            start += len(part)
        waiting.clear()

    for name, (make, owners) in conditions.items():
        waiting[name] = (make(), owners)
        if sum(images.nbytes for images, _ in waiting.values()) >= _TOGETHER:
            flush()
    if waiting:
        flush()
    return said


def _agreement(predicted: NDArray[np.int64], answers: Answers) -> float:
    named = answers.answered
    return float((predicted[named] == answers.labels[named]).mean()) if named.any() else float("nan")


def _fairness(
    own: NDArray[np.int64], sub_said: Answers, theirs: NDArray[np.int64], ref_said: Answers
) -> OneVsRestReport:
    return OneVsRestReport.from_predictions(
        np.concatenate([own, theirs]),
        np.concatenate([sub_said.labels, ref_said.labels]),
        np.repeat(["subgroup", "reference"], [len(own), len(theirs)]),
        classes=range(sub_said.classes),
        subgroup="subgroup",
        reference="reference",
        status=np.concatenate([sub_said.status, ref_said.status]),
    )

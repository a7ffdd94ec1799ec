"""Measuring an action on people: S and every control, each on the uint8 images that were really sent."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.conditions import CONTROLS, Control, Metric, Opponents, Scene
from ttca.errors import ActionError
from ttca.fairness import OneVsRestReport
from ttca.images import Images, check_images
from ttca.intervals import Span, difference_interval, fairness_intervals, gap_closed_interval, rate_interval
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.statistics.binomial import clopper_pearson_interval
from ttca.statistics.comparisons import mcnemar_exact
from ttca.values import Value

__all__ = ["Measurement", "Outcome", "measure"]

#: Bytes of images that are asked about together.
_TOGETHER = 2**26


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Value):
    """What the platform said about the images of one control.

    Parameters
    ----------
    answers : Answers
        One row per person, with scores where the platform gives them.
    hit : int64 array, shape (N,)
        The class that counts as right.
    y_true : int64 array, shape (N,)
        True classes.
    """

    answers: Answers
    hit: NDArray[np.int64]
    y_true: NDArray[np.int64]

    def _facts(self) -> str:
        return f"{int(self.correct.sum())} right of {len(self.hit)}, {int(self.resolved.sum())} answered"

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the platform gave the class that counts; an abstention or a refusal is not correct."""
        return np.equal(self.answers.labels, self.hit)

    @cached_property
    def resolved(self) -> NDArray[np.bool_]:
        """Whether the platform answered, with a label or a refusal."""
        return self.answers.resolved


@dataclass(frozen=True, eq=False, repr=False)
class Measurement(Value):
    """What the platform said, person by person, under each condition.

    Everything that was answered is kept, so that a new metric asks nothing again (:meth:`metric`).

    Parameters
    ----------
    outcomes : dict of str to Outcome
        By the name of the control.
    fidelity_subgroup, fidelity_reference : float
        Agreement of proxy and platform on the unperturbed images.
    fairness_before, fairness_after : OneVsRestReport
        Of both groups, each class against the rest; after means: the subgroup applies δ, the reference does not.
    intervals : dict of str to Span or None
        Where each rate, gap and fairness metric lies, counted over persons, by its key in the row (a guest's control
        by its name). None where nothing bounds it or no gap was shown.
    """

    outcomes: Mapping[str, Outcome]
    fidelity_subgroup: float
    fidelity_reference: float
    fairness_before: OneVsRestReport
    fairness_after: OneVsRestReport
    intervals: Mapping[str, Span | None] = field(default_factory=dict)

    def _facts(self) -> str:
        return ", ".join(f"{name} {self.rate(name):.3f}" for name in self.outcomes)

    @cached_property
    def correct(self) -> dict[str, NDArray[np.bool_]]:
        """Per condition, whether each person got the answer that counts; an abstention is not correct."""
        return {name: outcome.correct for name, outcome in self.outcomes.items()}

    @cached_property
    def resolved(self) -> dict[str, NDArray[np.bool_]]:
        """Per condition, whether the platform answered each person, with a label or a refusal."""
        return {name: outcome.resolved for name, outcome in self.outcomes.items()}

    def metric(self, metric: Metric, condition: str) -> float:
        """Return a metric of ``(y_true, y_pred)`` under one condition; nothing is asked.

        Parameters
        ----------
        metric : callable
            Gets the people that were resolved, int64 (n,) each; a refusal is a prediction of −1.
        condition : str
            The name of a control.

        Returns
        -------
        float
            NaN where nobody was resolved.

        Raises
        ------
        ActionError
            If the metric returns anything but a number.
        """
        outcome = self.outcomes[condition]
        rows = outcome.resolved
        if not rows.any():
            return float("nan")
        found = metric(outcome.y_true[rows], outcome.answers.labels[rows])
        if np.ndim(found) or not isinstance(found, numbers.Real | np.number):
            raise ActionError(
                f"Expected one number from the metric under the condition {condition}, got {type(found).__name__}. "
                "Let it return a float. The answers are kept: nothing is asked or paid again."
            )
        return float(found)

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
        return float(mcnemar_exact(*self._both(first, second)))

    def discordant(self, first: str, second: str) -> tuple[int, int]:
        """Return how many people were right only under the first condition, and only under the second."""
        one, two = self._both(first, second)
        return int((one & ~two).sum()), int((~one & two).sum())

    def _both(self, first: str, second: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if self.resolved[first].shape != self.resolved[second].shape:
            raise ActionError(f"Expected two conditions on the same people, got {first!r} and {second!r}.")
        both = self.resolved[first] & self.resolved[second]
        return self.correct[first][both], self.correct[second][both]

    @property
    def coverage(self) -> float:
        """Share of all queries of this measurement that were resolved."""
        return self.coverage_of(self.outcomes)

    def coverage_of(self, conditions: Iterable[str]) -> float:
        """Return the share of queries under these conditions that were resolved."""
        return float(np.concatenate([self.resolved[name] for name in conditions]).mean())

    def gap_interval(self) -> tuple[float, float]:
        """Return the two-sided 95 % interval of the gap, reference minus subgroup, over persons."""
        span = self.intervals.get("gap_before")
        return (-1.0, 1.0) if span is None else (span.low, span.high)

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
    controls: Sequence[Control] = CONTROLS,
    seats: Mapping[str, NDArray[np.int64]] | None = None,
) -> Measurement:
    """Ask the platform about ``people`` under every condition of the honest row.

    Parameters
    ----------
    ask : callable
        uint8 (N, H, W, 3) and str (N,), whose images they are → Answers. Called with several conditions together, or
        with a part of one, as much as fits in memory.
    people : People
        Both groups, read for nothing else.
    perturbations : PerturbationSet
    opponents : Opponents
    proxy : callable
        uint8 (N, H, W, 3) → int64 (N,): the class the proxy would pick, with no knowledge of the truth.
    seed : int
        Draws, for the abuse rate, one wrong class per person.
    controls : sequence of Control
        Ours, and a guest's after them (:meth:`~ttca.conditions.Measuring.all_controls`).
    seats : dict, optional
        By group, where each of its people sits, where others have left.
    """
    if people.subgroup.all() or not people.subgroup.any():
        raise ActionError("Expected people of both groups to measure a gap, got only one group. Let volunteers join.")
    members, others = (
        Scene(people[rows], perturbations, opponents, proxy, seed, None if seats is None else seats[side])
        for side, rows in (("subgroup", people.subgroup), ("reference", ~people.subgroup))
    )
    # People whom δ does not fit are refused here, before anybody is asked about.
    _ = members.with_delta
    scenes = {"subgroup": members, "reference": others}
    of = {control.name: scenes[control.whose] for control in controls}
    said = _said(ask, {c.name: _sent(c, of[c.name]) for c in controls})
    outcomes = {c.name: Outcome(said[c.name], _hits(c, of[c.name]), of[c.name].classes) for c in controls}
    before, after, reference = (said[name] for name in ("subgroup_before", "subgroup_after", "reference_before"))
    return Measurement(
        outcomes=outcomes,
        fidelity_subgroup=_agreement(members.picked, before),
        fidelity_reference=_agreement(others.picked, reference),
        fairness_before=_fairness(members.classes, before, others.classes, reference),
        fairness_after=_fairness(members.classes, after, others.classes, reference),
        intervals={
            **{c.key or c.name: rate_interval(_right(outcomes[c.name]), of[c.name].people.persons) for c in controls},
            **_agreement_intervals(members, before, others, reference),
            **_gap_intervals(outcomes, members.people.persons, others.people.persons),
            **_fairness_intervals("before", members, before, others, reference),
            **_fairness_intervals("after", members, after, others, reference),
        },
    )


def _right(outcome: Outcome) -> NDArray[np.float64]:
    """Return 1 where an answer was right, 0 where it was wrong or refused, NaN where there was none."""
    return np.where(outcome.resolved, outcome.correct, np.nan)


def _agreement_intervals(members: Scene, before: Answers, others: Scene, reference: Answers) -> dict[str, Span | None]:
    return {
        f"fidelity_{name}": rate_interval(
            np.where(said.answered, scene.picked == said.labels, np.nan), scene.people.persons
        )
        for name, scene, said in (("subgroup", members, before), ("reference", others, reference))
    }


def _gap_intervals(
    outcomes: Mapping[str, Outcome], persons: NDArray[np.str_], others: NDArray[np.str_]
) -> dict[str, Span | None]:
    before, after, reference = (
        _right(outcomes[name]) for name in ("subgroup_before", "subgroup_after", "reference_before")
    )
    # The same persons under two conditions are compared with themselves, which says more.
    same = np.array_equal(persons, others)
    theirs = None if same else others
    gap = (
        difference_interval(reference, before, paired=True, persons=persons)
        if same
        else difference_interval(reference, before, paired=False, persons=others, others=persons)
    )
    closed = gap_closed_interval(before, after, reference, same=same, persons=persons, others=theirs)
    return {"gap_before": gap, "gap_closed": closed}


def _fairness_intervals(
    when: str, members: Scene, said: Answers, others: Scene, theirs: Answers
) -> dict[str, Span | None]:
    rows = np.concatenate([said.resolved, theirs.resolved])
    if not rows.any():
        return {}
    found = fairness_intervals(
        np.concatenate([members.classes, others.classes])[rows],
        np.concatenate([said.labels, theirs.labels])[rows],
        np.repeat([0, 1], [len(said), len(theirs)])[rows],
        classes=range(said.classes),
        persons=np.concatenate([members.people.persons, others.people.persons])[rows],
    )
    return {f"{name}_{when}": span for name, span in found.items()}


def _images(control: Control, scene: Scene) -> Images:
    """Return what a control sends: a guest's images are checked before the platform sees one of them."""
    if control in CONTROLS:
        return control.sends(scene)
    images = check_images(control.sends(scene), shape=scene.people.image_shape)
    if len(images) != len(scene.people):
        raise ActionError(
            f"Expected one image per person from the control {control.name}, {len(scene.people)}, got {len(images)}. "
            "Return them in the order of the people."
        )
    return images


def _hits(control: Control, scene: Scene) -> NDArray[np.int64]:
    """Return the classes that count as right under a control."""
    classes = np.asarray(control.hit(scene))
    if classes.shape != scene.classes.shape or classes.dtype.kind not in "iu":
        raise ActionError(
            f"Expected one class number per person as the hits of the control {control.name}, got "
            f"{classes.dtype} of shape {classes.shape}. Return them in the order of the people."
        )
    return classes.astype(np.int64)


def _said(
    ask: Callable[[Images, NDArray[np.str_]], Answers], conditions: Mapping[str, Iterable[tuple[Images, People]]]
) -> dict[str, Answers]:
    """Ask about all conditions, as much together as fits in memory: a copy of photographs for each does not."""
    said: dict[str, list[Answers]] = {name: [] for name in conditions}
    waiting: list[tuple[str, Images, People]] = []

    def flush() -> None:
        images = [part for _, part, _ in waiting]
        together = images[0] if len(images) == 1 else np.concatenate(images)
        answers, start = ask(together, np.concatenate([people.members for *_, people in waiting])), 0
        for name, part, _ in waiting:
            said[name].append(answers[start : start + len(part)])
            start += len(part)
        waiting.clear()

    for name, parts in conditions.items():
        for images, people in parts:
            waiting.append((name, images, people))
            if sum(part.nbytes for _, part, _ in waiting) >= _TOGETHER:
                flush()
    if waiting:
        flush()
    return {name: Answers.concatenate(parts, classes=parts[0].classes) for name, parts in said.items()}


def _sent(control: Control, scene: Scene) -> Iterator[tuple[Images, People]]:
    """Yield what a control sends, and of whom: in parts that fit in memory, or a guest's, which may draw, in one."""
    few = _TOGETHER // scene.images[:1].nbytes if control in CONTROLS else len(scene.people)
    for start in range(0, len(scene.people), max(few, 1)):
        part = scene if few >= len(scene.people) else scene.part(slice(start, start + max(few, 1)))
        yield _images(control, part), part.people


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

"""Tests of the measurement: every condition against a count by hand, abstentions and refusals included."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from tests import worlds
from tests.examples import examples
from ttca import measurement
from ttca.answers import Answers, Status
from ttca.conditions import ROW_KEYS, Opponents
from ttca.errors import ActionError, TTCAError
from ttca.gap import gap_interval
from ttca.images import Images
from ttca.intervals import Span
from ttca.lossy import jpeg, shrink_and_enlarge
from ttca.measurement import Measurement, Outcome, measure
from ttca.people import People
from ttca.perturbations import PerturbationSet

SUB, REF = 30, 24
CONDITIONS = {
    "reference_before",
    "reference_after",
    "subgroup_before",
    "subgroup_after",
    "abuse",
    "noise",
    "proxy_class",
    "class_agnostic",
    "zero_query",
    "jpeg75",
    "resize",
}


def deltas(seed: int, epsilon: int = 8) -> PerturbationSet:
    """Return a random set of its own."""
    delta = np.random.default_rng(seed).integers(-epsilon, epsilon + 1, (3, *worlds.SHAPE)).astype(np.int8)
    return PerturbationSet(delta, epsilon, worlds.CLASSES, "subgroup", "f" * 64)


PERTURBATIONS = deltas(1)
OPPONENTS = Opponents(noise=deltas(2), zero_query=deltas(3), class_agnostic=deltas(4))
PEOPLE = worlds.crowd("measured", SUB, REF, seed=3)
MEMBERS, OTHERS = PEOPLE[PEOPLE.subgroup], PEOPLE[~PEOPLE.subgroup]


def proxy(images: Images) -> NDArray[np.int64]:
    """Return a class that has little to do with the truth."""
    picked: NDArray[np.int64] = images[:, 0, 0, 0].astype(np.int64) % 3
    return picked


@dataclass
class Oracle:
    """A platform that answers each image at random, always the same, now with a class, now with none."""

    moods: tuple[float, float, float] = (0.8, 0.1, 0.1)
    asked: list[Images] = field(default_factory=list)

    def one(self, image: Images) -> tuple[int, int]:
        """Return label and status of one image."""
        rng = np.random.default_rng(np.frombuffer(image.tobytes(), np.uint8).astype(np.uint32))
        status = int(rng.choice([Status.ANSWERED, Status.REFUSED, Status.FAILED], p=self.moods))
        return (int(rng.integers(0, 3)) if status == Status.ANSWERED else -1), status

    def __call__(self, images: Images) -> Answers:
        self.asked.append(images)
        labels, status = np.array([self.one(image) for image in images], np.int64).T
        answers = Answers.from_labels(labels, 3)
        return Answers(status.astype(np.int8), labels, answers.scores, answers.resolution)


def run(ask: Callable[[Images], Answers], people: People = PEOPLE, **changes: Any) -> Measurement:
    """Measure with this module's perturbations."""
    given_: dict[str, Any] = {"perturbations": PERTURBATIONS, "opponents": OPPONENTS, "proxy": proxy, "seed": 5}
    return measure(lambda images, _: ask(images), people, **{**given_, **changes})


def sent() -> dict[str, tuple[Images, NDArray[np.int64]]]:
    """Return what must be sent under each condition but abuse, and what counts as right."""
    after = PERTURBATIONS.apply(MEMBERS.images, MEMBERS.classes)
    return {
        "reference_before": (OTHERS.images, OTHERS.classes),
        "reference_after": (PERTURBATIONS.apply(OTHERS.images, OTHERS.classes), OTHERS.classes),
        "subgroup_before": (MEMBERS.images, MEMBERS.classes),
        "subgroup_after": (after, MEMBERS.classes),
        "noise": (OPPONENTS.noise.apply(MEMBERS.images, MEMBERS.classes), MEMBERS.classes),
        "proxy_class": (PERTURBATIONS.apply(MEMBERS.images, proxy(MEMBERS.images)), MEMBERS.classes),
        "class_agnostic": (OPPONENTS.class_agnostic.apply(MEMBERS.images, MEMBERS.classes), MEMBERS.classes),
        "zero_query": (OPPONENTS.zero_query.apply(MEMBERS.images, MEMBERS.classes), MEMBERS.classes),
        "jpeg75": (jpeg(after, quality=75), MEMBERS.classes),
        "resize": (shrink_and_enlarge(after, factor=0.5), MEMBERS.classes),
    }


def test_every_condition_equals_a_count_by_hand() -> None:
    """Each rate is right answers over those resolved: failures are left out, refusals are wrong."""
    oracle = Oracle()
    found = run(oracle)
    assert found.correct.keys() == found.resolved.keys() == CONDITIONS
    for name, (images, classes) in sent().items():
        said = [oracle.one(image) for image in images]
        resolved = [status != Status.FAILED for _, status in said]
        correct = [label == truth for (label, _), truth in zip(said, classes.tolist(), strict=True)]
        assert found.resolved[name].tolist() == resolved
        assert found.correct[name].tolist() == correct
        assert found.rate(name) == sum(correct) / sum(resolved)
        exact = stats.binomtest(sum(correct), sum(resolved)).proportion_ci(0.95, "exact")
        assert found.interval(name) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_every_number_of_the_row_lies_in_its_interval() -> None:
    """Rates have the exact interval of their own; gap, gap closed and fairness metrics lie between their ends."""
    for moods in ((0.8, 0.1, 0.1), (1.0, 0.0, 0.0)):
        found = run(Oracle(moods))
        rates = {key: found.rate(name) for key, name in ROW_KEYS.items()}
        for key, name in ROW_KEYS.items():
            span = found.intervals[key]
            assert span is not None
            assert (span.low, span.high) == pytest.approx(found.interval(name), abs=1e-9)
        gap = rates["reference_before"] - rates["subgroup_before"]
        values = rates | {"gap_before": gap, "gap_closed": found.gap_closed}
        values |= {f"fidelity_{name}": getattr(found, f"fidelity_{name}") for name in ("subgroup", "reference")}
        for when, report in (("before", found.fairness_before), ("after", found.fairness_after)):
            values[f"worst_group_{when}"] = report.worst["worst_group_accuracy"]
            values[f"equal_opportunity_gap_{when}"] = report.worst["equal_opportunity_difference"]
            values[f"demographic_parity_ratio_{when}"] = report.worst["demographic_parity_ratio"]
        assert found.intervals.keys() == values.keys()
        for key, span in found.intervals.items():
            assert span is None or span.low <= values[key] <= span.high
        assert (found.intervals["gap_closed"] is None) == math.isnan(found.gap_closed)
    assert run(lambda images: Answers.failed(len(images), 3)).intervals["subgroup_after"] is None


def test_images_of_one_person_are_no_more_persons() -> None:
    """Where members are few persons with many images each, every interval about them is wider."""
    few = np.array([f"person-{i % 6}" for i in range(len(PEOPLE))])
    apart, together = run(Oracle()), run(Oracle(), dataclasses.replace(PEOPLE, persons=few))
    for key in ("subgroup_before", "subgroup_after", "gap_before", "worst_group_before"):
        narrow, wide = apart.intervals[key], together.intervals[key]
        assert narrow is not None
        assert wide is not None
        assert wide.high - wide.low > narrow.high - narrow.low


def test_the_platform_is_asked_once_with_all_conditions_together() -> None:
    """One call carries every image of every condition, so that queries in flight are not cut into eleven parts."""
    oracle = Oracle()
    found = run(oracle)
    assert [len(images) for images in oracle.asked] == [2 * REF + 9 * SUB]
    assert sum(map(len, found.resolved.values())) == 2 * REF + 9 * SUB
    seen = {image.tobytes() for image in oracle.asked[0]}
    assert {image.tobytes() for images, _ in sent().values() for image in images} <= seen
    assert found.coverage == sum(r.sum() for r in found.resolved.values()) / (2 * REF + 9 * SUB)


@pytest.mark.parametrize("photographs", [1, 7, SUB])
def test_photographs_are_asked_about_in_parts(photographs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all conditions together would not fit in memory they are asked part by part, with the same result."""
    together, alone = Oracle(), Oracle()
    whole = run(together)
    most = photographs * PEOPLE.images[0].nbytes
    monkeypatch.setattr(measurement, "_TOGETHER", most)
    parts = run(alone)
    # Another part is begun before the last one is full.
    assert len(alone.asked) > len(together.asked)
    assert max(images.nbytes for images in alone.asked) < 2 * most
    assert np.array_equal(np.concatenate(alone.asked), together.asked[0])
    for name in CONDITIONS:
        assert np.array_equal(parts.correct[name], whole.correct[name])
        assert np.array_equal(parts.resolved[name], whole.resolved[name])


def test_fidelity_is_agreement_where_the_platform_named_a_class() -> None:
    """Refusals and failures are in neither side of the fidelity, and each group has its own."""
    oracle = Oracle()
    found = run(oracle)
    for people, said in ((MEMBERS, found.fidelity_subgroup), (OTHERS, found.fidelity_reference)):
        pairs = [
            (oracle.one(image)[0], p) for image, p in zip(people.images, proxy(people.images).tolist(), strict=True)
        ]
        named = [(label, p) for label, p in pairs if label >= 0]
        assert said == sum(label == p for label, p in named) / len(named)


def test_a_metric_sees_people_who_were_resolved() -> None:
    """It gets true classes and what was said, refusals as −1 and failures not at all, with nothing asked again."""
    oracle = Oracle()
    found, asked = run(oracle), len(oracle.asked)
    for name, (images, classes) in sent().items():
        said = [oracle.one(image) for image in images]
        rows = [(truth, label) for truth, (label, s) in zip(classes.tolist(), said, strict=True) if s != Status.FAILED]
        seen: list[Any] = []
        value = found.metric(lambda y_true, y_pred, seen=seen: seen.append((y_true, y_pred)) or len(y_true), name)  # type: ignore[misc]
        assert list(zip(*(column.tolist() for column in seen[0]), strict=True)) == rows
        assert value == len(rows)
    assert len(oracle.asked) == asked


@pytest.mark.parametrize("value", [None, "0.5", np.zeros(2), [0.5]])
def test_a_metric_that_is_no_number_is_a_sentence(value: Any) -> None:
    """Anything but one number is refused; numpy's numbers are numbers."""
    found = run(Oracle())
    with pytest.raises(ActionError, match="one number from the metric under the condition subgroup_after"):
        found.metric(lambda y_true, y_pred: value, "subgroup_after")
    assert found.metric(lambda y_true, y_pred: np.float32(0.5), "subgroup_after") == 0.5  # type: ignore[arg-type,return-value]


def test_a_metric_of_nobody_is_not_defined() -> None:
    """Where every query failed a metric is not called: it is NaN."""
    found = run(lambda images: Answers.failed(len(images), 3))
    assert math.isnan(found.metric(lambda y_true, y_pred: 1 / 0, "subgroup_before"))


def test_scores_are_kept_where_the_platform_gives_them() -> None:
    """Answers stay whole, so that whoever wants scores need not ask again."""
    found = run(lambda images: Answers.from_scores(worlds.model(images)))
    said = found.outcomes["subgroup_before"].answers
    assert np.array_equal(said.scores, worlds.model(MEMBERS.images).astype(np.float32))


# -- abuse ------------------------------------------------------------------------------------------------------


def constant(levels: tuple[int, ...]) -> PerturbationSet:
    """Return a set whose δ for class c is one level everywhere."""
    delta = np.broadcast_to(np.array(levels, np.int8)[:, None, None, None], (len(levels), *worlds.SHAPE)).copy()
    names = tuple(f"class-{i}" for i in range(len(levels)))
    return PerturbationSet(delta, max(map(abs, levels)), names, "subgroup", "f" * 64)


@given(st.integers(2, 7), st.integers(0, 2**31), st.integers(1, 40))
@examples(40)
def test_abuse_uses_a_wrong_class_for_everybody(count: int, seed: int, n: int) -> None:
    """A platform that obeys δ is always abused, and one that sees through it never: the class is always a wrong one."""
    chosen = constant(tuple(range(1, count + 1)))
    opponents = Opponents(noise=chosen, zero_query=chosen, class_agnostic=chosen)
    classes = np.arange(2 * n) % count
    # The true class is written in the hundreds, where no δ reaches.
    images = np.broadcast_to((30 * classes)[:, None, None, None], (2 * n, *worlds.SHAPE)).astype(np.uint8)
    people = People.build(images, classes, subgroup=np.arange(2 * n) < n)

    def obeys(sent_: Images) -> Answers:
        return Answers.from_labels(np.maximum(sent_[:, 0, 0, 0].astype(np.int64) % 30 - 1, 0), count)

    def sees_through(sent_: Images) -> Answers:
        return Answers.from_labels(sent_[:, 0, 0, 0].astype(np.int64) // 30, count)

    def no_proxy(images_: Images) -> NDArray[np.int64]:
        return np.zeros(len(images_), np.int64)

    for ask, rate in ((obeys, 1.0), (sees_through, 0.0)):
        found = run(ask, people, perturbations=chosen, opponents=opponents, proxy=no_proxy, seed=seed)
        assert found.rate("abuse") == rate
        assert found.rate("subgroup_after") == 1.0


def test_the_wrong_class_is_drawn_from_all_wrong_ones() -> None:
    """Over many people every wrong class is tried, and the seed decides whom it meets."""
    chosen = constant((1, 2, 3, 4))
    opponents = Opponents(noise=chosen, zero_query=chosen, class_agnostic=chosen)
    images = np.full((400, *worlds.SHAPE), 100, np.uint8)
    people = People.build(images, np.zeros(400, np.int64), subgroup=np.arange(400) < 300)

    def used(seed: int) -> list[int]:
        """Return the abusive class of each person: it is what makes the answer count as right."""
        hits = np.zeros((4, 300), np.bool_)
        for c in range(4):

            def says(sent_: Images, _: Any, label: int = c) -> Answers:
                return Answers.from_labels(np.full(len(sent_), label, np.int64), 4)

            hits[c] = measure(
                says,
                people,
                perturbations=chosen,
                opponents=opponents,
                proxy=lambda x: np.zeros(len(x), np.int64),
                seed=seed,
            ).correct["abuse"]
        assert (hits.sum(axis=0) == 1).all()
        found: list[int] = hits.argmax(axis=0).tolist()
        return found

    first = used(0)
    assert {c: 60 < first.count(c) < 140 for c in (1, 2, 3)} == dict.fromkeys((1, 2, 3), True)
    assert used(0) == first != used(1)


# -- what follows from the rates --------------------------------------------------------------------------------


def outcome(correct: list[bool], resolved: list[bool]) -> Outcome:
    """Return answers to people of class 0 who are right, refused or failed."""
    status = np.where(resolved, np.where(correct, Status.ANSWERED, Status.REFUSED), Status.FAILED).astype(np.int8)
    plain = Answers.from_labels(np.where(correct, 0, -1).astype(np.int64), 3)
    truth = np.zeros(len(correct), np.int64)
    return Outcome(Answers(status, plain.labels, plain.scores, plain.resolution), truth, truth)


def measured(**rates: tuple[list[bool], list[bool]]) -> Measurement:
    """Return a measurement of the given conditions, each as (correct, resolved)."""
    template = run(Oracle())
    groups = [rates[name] for name in ("reference_before", "subgroup_before") if name in rates]
    counts = [(sum(correct), sum(resolved)) for correct, resolved in groups]
    return Measurement(
        outcomes={name: outcome(*flags) for name, flags in rates.items()},
        fidelity_subgroup=0.5,
        fidelity_reference=0.5,
        fairness_before=template.fairness_before,
        fairness_after=template.fairness_after,
        intervals={"gap_before": Span(*gap_interval(*counts), 0.95)} if len(counts) == 2 else {},
    )


def share(right: int, of: int) -> tuple[list[bool], list[bool]]:
    """Return so many right answers, all resolved."""
    return [True] * right + [False] * (of - right), [True] * of


@given(st.tuples(*[st.integers(0, 20)] * 3))
@settings(deadline=None)
def test_gap_closed_is_its_definition_or_not_a_number(right: tuple[int, int, int]) -> None:
    """Gap closed is (S − before) / (reference − before), and NaN wherever the gap's own interval holds 0."""
    reference, before, after = right
    found = measured(
        reference_before=share(reference, 20), subgroup_before=share(before, 20), subgroup_after=share(after, 20)
    )
    if gap_interval((reference, 20), (before, 20))[0] > 0:
        assert found.gap_closed == pytest.approx((after - before) / (reference - before), abs=1e-12)
    else:
        assert math.isnan(found.gap_closed)


def test_a_difference_of_one_answer_is_no_gap_to_close() -> None:
    """One right answer more in the reference is no gap, however far S is above both: 3,605 % of nothing is nothing."""
    found = measured(
        reference_before=share(800, 1000), subgroup_before=share(799, 1000), subgroup_after=share(990, 1000)
    )
    assert math.isnan(found.gap_closed)


def test_a_group_nobody_answered_has_no_rate() -> None:
    """Without one resolved answer a rate is NaN, its interval says nothing, and so does the gap."""
    nobody = ([False] * 5, [False] * 5)
    found = measured(reference_before=share(4, 5), subgroup_before=nobody, subgroup_after=share(5, 5))
    assert math.isnan(found.rate("subgroup_before"))
    assert found.interval("subgroup_before") == (0.0, 1.0)
    assert math.isnan(found.gap_closed)
    assert found.coverage == 10 / 15


def test_a_platform_that_never_answers_is_measured_without_a_crash() -> None:
    """When every query fails, every number is NaN and the coverage is 0."""
    found = run(lambda images: Answers.failed(len(images), 3))
    assert {math.isnan(found.rate(name)) for name in CONDITIONS} == {True}
    assert math.isnan(found.fidelity_subgroup)
    assert math.isnan(found.fidelity_reference)
    assert found.coverage == 0.0
    assert math.isnan(found.gap_closed)


def test_a_platform_that_refuses_everybody_is_wrong_about_everybody() -> None:
    """Refusals are answers: every rate is 0 at full coverage, not a crash and not an abstention."""
    found = run(lambda images: Answers.from_labels(np.full(len(images), -1, np.int64), 3))
    assert {found.rate(name) for name in CONDITIONS} == {0.0}
    assert found.coverage == 1.0


@given(hnp.arrays(np.bool_, (4, 12)))
@settings(deadline=None)
def test_the_paired_test_looks_at_people_resolved_twice(columns: NDArray[np.bool_]) -> None:
    """McNemar's p is the exact binomial one of the people who were answered under both conditions."""
    correct, resolved = columns[:2] & columns[2:], columns[2:]
    found = measured(one=(correct[0].tolist(), resolved[0].tolist()), other=(correct[1].tolist(), resolved[1].tolist()))
    both = resolved[0] & resolved[1]
    lost = int((correct[0] & ~correct[1] & both).sum())
    won = int((~correct[0] & correct[1] & both).sum())
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert found.paired_p("one", "other") == pytest.approx(expected, abs=1e-12)


def test_the_two_groups_cannot_be_paired() -> None:
    """A paired test of two conditions on different people is refused with a sentence."""
    with pytest.raises(ActionError, match="same people"):
        run(Oracle()).paired_p("reference_before", "subgroup_after")


def test_fairness_after_compares_members_with_delta_and_others_without() -> None:
    """A platform that δ helps members with and harms others with is fair afterwards: only members apply δ."""
    right = {
        image.tobytes(): int(c)
        for name in ("reference_before", "subgroup_after")
        for image, c in zip(*sent()[name], strict=True)
    }
    wrong = {
        image.tobytes(): (int(c) + 1) % 3
        for name in ("reference_after", "subgroup_before")
        for image, c in zip(*sent()[name], strict=True)
    }

    def ask(images: Images) -> Answers:
        known = {**wrong, **right}
        return Answers.from_labels(np.array([known.get(image.tobytes(), 0) for image in images], np.int64), 3)

    found = run(ask)
    assert found.rate("reference_after") == found.rate("subgroup_before") == 0.0
    assert found.fairness_before.worst["worst_group_accuracy"] == 0.0
    assert found.fairness_after.worst["worst_group_accuracy"] == 1.0
    assert found.fairness_after.worst["equal_opportunity_difference"] == 0.0


@pytest.mark.parametrize("keep", [True, False])
def test_one_group_alone_is_a_sentence_before_any_query(keep: bool) -> None:
    """Without both groups there is no gap, and nothing is asked to find that out."""
    oracle = Oracle()
    with pytest.raises(ActionError, match="both groups"):
        run(oracle, PEOPLE[PEOPLE.subgroup == keep])
    assert oracle.asked == []


def test_people_that_do_not_fit_the_perturbations_cost_no_query() -> None:
    """Images of another size or a class without δ are refused before the platform is asked."""
    oracle = Oracle()
    for people in (
        People.build(PEOPLE.images[:, :6], PEOPLE.classes, subgroup=PEOPLE.subgroup),
        People.build(PEOPLE.images, PEOPLE.classes + 1, subgroup=PEOPLE.subgroup),
    ):
        with pytest.raises(TTCAError, match="Expected"):
            run(oracle, people)
    assert oracle.asked == []

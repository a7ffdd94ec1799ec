"""Measuring: a row with every control, on people whose answers are read for nothing else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.asking import Known
from ttca.candidates import Chosen
from ttca.certificates import Certificate
from ttca.conditions import CONTROLS, HONEST_ROW, ROW_KEYS, Control, Measuring, Opponents, metric_keys, queries_for
from ttca.distilling import Distilled
from ttca.labeling import published
from ttca.lossy import left_by_jpeg
from ttca.measurement import Measurement, measure
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.pooling.pool import QueryPool
from ttca.proxies.runtime import give_back_memory
from ttca.race_record import Raced
from ttca.row import Row
from ttca.values import Value
from ttca.workshop import Workshop

__all__ = ["Examination", "Story", "as_they_are", "encoding_of", "examine", "row_of"]

#: What is measured where nothing is proposed: all of it is asked about without δ.
_AS_THEY_ARE = ("reference_before", "reference_after", "subgroup_before", "subgroup_after")


@dataclass(frozen=True, eq=False, repr=False)
class Examination(Value):
    """Whom an action is measured on, and who pays.

    Parameters
    ----------
    people : People
        Of both groups.
    pool : QueryPool
        Who asks and pays.
    purpose, epoch : str
        What the queries are booked as.
    seats : dict, optional
        By group, where each of its people sits, where others have left.
    """

    people: People
    pool: QueryPool
    purpose: str
    epoch: str
    seats: Mapping[str, NDArray[np.int64]] | None = None


def examine(
    shop: Workshop,
    exam: Examination,
    distilled: Distilled,
    family: Family,
    epsilon: int,
    opponents: Opponents,
    controls: Sequence[Control] = CONTROLS,
) -> Measurement:
    """Ask the platform about the people under every condition, each on the uint8 images that are really sent."""
    # What training kept would lie about beside every condition of photographs.
    give_back_memory()
    most = queries_for(controls, exam.people)
    with exam.pool.reporter.track(f"asking ({exam.purpose})", most, unit="queries", at_most=True):
        return measure(
            lambda images, whose: exam.pool.ask(images, purpose=exam.purpose, epoch=exam.epoch, owners=whose.tolist()),
            exam.people,
            perturbations=family.sets[epsilon],
            opponents=opponents,
            proxy=lambda images: shop.learner.predict(distilled.proxy, images),
            seed=shop.settings.seed,
            controls=controls,
            seats=exam.seats,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Story(Value):
    """What every step before the row returned, and what the way to the platform does to δ (:func:`encoding_of`).

    There is no certificate where recipes raced, and none was shown to beat doing nothing.
    """

    known: Known
    distilled: Distilled
    family: Family
    certificate: Certificate | None
    measured: Measurement
    zero_query_epochs: int
    measuring: Measuring = HONEST_ROW
    encoding: Mapping[str, float] = field(default_factory=dict)
    raced: Raced | None = None


def row_of(shop: Workshop, story: Story, epsilon: int, *, track: str | None, began: float) -> Row:
    """Return the row of an action at one ε of its family.

    Parameters
    ----------
    shop : Workshop
    story : Story
    epsilon : int
    track : str, optional
        The row's name; default the action's.
    began : float
        When the action was opened, by ``time.perf_counter``.
    """
    known, distilled, family = story.known, story.distilled, story.family
    certificate, measured, transfer = story.certificate, story.measured, distilled.transfer
    paid = shop.queries.ledger.paid(action=shop.settings.name)
    low, high = measured.interval("subgroup_after")
    # Where nothing is proposed, nothing else was measured than people as they are.
    compared = "zero_query" in measured.outcomes
    won, lost = measured.discordant("subgroup_after", "zero_query") if compared else (0, 0)
    refined = family.queries + (0 if story.raced is None else story.raced.queries)
    composition = transfer.composition
    return Row(
        track=track or shop.settings.name,
        regime=known.regime,
        answers=_kind(transfer.all_answers),
        queries=transfer.images + refined,
        epsilon=epsilon,
        seed=shop.settings.seed,
        # Earlier versions booked cross-checks as pool-audit.
        queries_pool=sum(paid.get(purpose, 0) for purpose in ("pool", "pool-race", "pool-cross-check", "pool-audit")),
        # Earlier versions booked the baseline as an audit.
        queries_baseline=paid.get("baseline", 0) + paid.get("audit", 0),
        queries_verification=paid.get("verification", 0),
        queries_controls=paid.get("controls", 0),
        # Of the honest row alone: a control of a guest moves no other value.
        coverage=measured.coverage_of(name for name in ROW_KEYS.values() if name in measured.outcomes),
        composition={**composition, "altered": composition["altered"] + refined},
        **_rates(measured),
        gap_before=measured.rate("reference_before") - measured.rate("subgroup_before"),
        subgroup_after_lower=low,
        subgroup_after_upper=high,
        gap_closed=measured.gap_closed,
        **_proved(shop, certificate, epsilon),
        zero_query_epochs=story.zero_query_epochs,
        paired_p=measured.paired_p("subgroup_after", "zero_query") if compared else math.nan,
        paired_b=won,
        paired_c=lost,
        fidelity_subgroup=measured.fidelity_subgroup,
        fidelity_reference=measured.fidelity_reference,
        worst_group_before=measured.fairness_before.worst["worst_group_accuracy"],
        worst_group_after=measured.fairness_after.worst["worst_group_accuracy"],
        equal_opportunity_gap_before=measured.fairness_before.worst["equal_opportunity_difference"],
        equal_opportunity_gap_after=measured.fairness_after.worst["equal_opportunity_difference"],
        demographic_parity_ratio_before=measured.fairness_before.worst["demographic_parity_ratio"],
        demographic_parity_ratio_after=measured.fairness_after.worst["demographic_parity_ratio"],
        threads=distilled.threads,
        shortened=len(shop.settings.control_lengths) == 1,
        seconds_distil=distilled.seconds,
        seconds_learn=family.seconds,
        seconds=time.perf_counter() - began,
        peak_rss_mb=_peak_rss_mb(),
        overruled=transfer.overruled or "",
        intervals={key: None if s is None else [s.low, s.high] for key, s in measured.intervals.items()},
        extra=_extra(measured, story.measuring) | dict(story.encoding),
        backbones=published(known, distilled.proxy.backbones),
        recipe=_recipe(shop, story.raced),
        serves={} if story.raced is None else story.raced.serves(shop.info.classes),
    )


def as_they_are(
    chosen: Chosen,
    family: Family,
    measuring: Measuring,
    exam: Examination | None,
    *,
    track: str | None,
    began: float,
) -> tuple[Row, Measurement]:
    """Return the row of an action that proposes nothing: people as they are, and no certificate.

    Parameters
    ----------
    chosen : Chosen
    family : Family
        That changes nothing.
    measuring : Measuring
    exam : Examination, optional
        Test people, and who pays. By default selection people, whose answers are paid already.
    track, began
        As :func:`row_of`.
    """
    shop, questions = chosen.shop, chosen.questions
    if exam is None:
        people = People.concatenate([questions.selection, questions.volunteers])
        exam = Examination(people, shop.queries, "pool", "pool")
    epsilon = max(family.sets)
    still = family.sets[epsilon]
    controls = [c for c in CONTROLS if c.name in _AS_THEY_ARE]
    measured = examine(shop, exam, chosen.distilled, family, epsilon, Opponents(still, still, still), controls)
    own = Measuring(metrics=measuring.metrics)
    story = Story(chosen.known, chosen.distilled, family, None, measured, 0, own, raced=chosen.raced)
    return row_of(shop, story, epsilon, track=track, began=began), measured


def _rates(measured: Measurement) -> dict[str, Any]:
    """Return the row's rates by their keys, NaN where a control was not measured."""
    known = measured.outcomes
    return {key: measured.rate(name) if name in known else math.nan for key, name in ROW_KEYS.items()}


def _proved(shop: Workshop, certificate: Certificate | None, epsilon: int) -> dict[str, Any]:
    """Return what the row says of the certificate at one ε."""
    terms = shop.settings.certifying if certificate is None else certificate.terms
    parity = terms.aim.kind == "parity"
    said: dict[str, Any] = {"goal": str(terms.aim), "stopping": terms.stopping}
    if certificate is None:
        return said | {
            "certified": False,
            "parity_certified": False if parity else None,
            "persons_verification": 0,
            "persons_asked": 0,
            "certificate_lower": math.nan,
            "certificate_power": None,
        }
    passed = certificate.passed_at(epsilon)
    return said | {
        "certified": passed,
        "parity_certified": passed if parity else None,
        "persons_verification": certificate.examined.persons,
        "persons_asked": next((test.asked for test in certificate.tests if test.epsilon == epsilon), 0),
        "certificate_lower": certificate.lower_at(epsilon),
        "certificate_power": certificate.power.smallest_rate,
    }


def _recipe(shop: Workshop, raced: Raced | None) -> str:
    """Return what the row says of the recipe; nothing where settings were made by hand."""
    if raced is not None:
        return raced.recipe
    return "" if shop.settings.recipe == "manual" else shop.settings.recipe


def encoding_of(quality: int | None, people: People, perturbations: PerturbationSet) -> dict[str, float]:
    """Return what the files that a platform is sent leave of δ, by its key in the row; asks nothing.

    Parameters
    ----------
    quality : int or None
        Of the JPEG files; None where images arrive as they are, and nothing is to be said.
    people : People
        Those of the subgroup count.
    perturbations : PerturbationSet
    """
    if quality is None:
        return {}
    members = people[people.subgroup]
    after = perturbations.apply(members.images, members.classes)
    return {f"jpeg{quality}_delta_left": left_by_jpeg(members.images, after, quality=quality)}


def _extra(measured: Measurement, measuring: Measuring) -> dict[str, float]:
    """Return a guest's values by their keys."""
    metrics = {
        key: measured.metric(metric, condition)
        for name, metric in measuring.metrics.items()
        for condition, key in metric_keys(name).items()
    }
    return metrics | {control.name: measured.rate(control.name) for control in measuring.controls}


def _kind(answers: Answers) -> str:
    """Return what the platform's answers were: scores, rounded, top-k or label."""
    said = answers[answers.answered]
    if not len(said) or np.isnan(said.scores).all():
        return "label"
    if not said.complete.all():
        return "top-k"
    return "rounded" if said.resolution.max() > 0 else "scores"


def _peak_rss_mb() -> float:
    # On Linux the mark that can be set back, so that a program of several actions can tell each one's peak.
    status = Path("/proc/self/status")
    if status.is_file():
        marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)

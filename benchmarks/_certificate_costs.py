"""What certificates cost: simulated actions at the rates that every track's result file holds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._many_certificates import Certified, certify_many
from benchmarks._simulated_actions import Setting, draw
from ttca.conditions import CONTROLS
from ttca.controls import MOST_CHOOSERS
from ttca.goals import Certifying, Design
from ttca.panel import MOST_OTHERS
from ttca.settings import Settings

__all__ = ["Track", "costs", "tracks"]

Counts = NDArray[np.int64]
#: Latent correlation of one person's answers with δ and without where both groups are the same people. Result files
#: hold rates alone; what other values give stands beside.
TOGETHER, OTHERS = 0.6, (0.0, 0.9)
#: Nothing is certain: where everybody was right, S is taken as this.
_SURE = 0.9999
#: Result files of format 2 do not say whether both groups are the same people. In these tracks they are: one person
#: behind two cameras.
_SAME_PEOPLE = ("cifar", "digits")
#: Controls on all verification people that a row cost before certificates counted persons.
_CONTROLS_BEFORE = 7


@dataclass(frozen=True)
class Track:
    """One budget of a track: who verifies, and the rates measured there, means over seeds.

    ``all_others`` are the reference's verification people, of whom a panel asks no more than it needs.
    """

    name: str
    file: str
    queries: int
    world: Setting
    epsilons: tuple[int, ...]
    before: float
    all_others: int

    @property
    def design(self) -> Design:
        """Whether both groups are the same people."""
        return "paired" if self.world.reference_persons is None else "disjoint"

    @property
    def others(self) -> int:
        """Persons of the reference."""
        return self.world.reference_persons or self.world.persons


def tracks(results: Path) -> list[Track]:
    """Return every budget of every track that a result file of the transfer benchmark holds, on final people."""
    found = []
    for path in sorted(results.glob("transfer-quick-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        people = "final" if "final" in record["people"] else record["people"][0]
        groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
        for cell in record["cells"]:
            key = (cell["regime"], cell["answers"], cell["queries"])
            groups.setdefault(key, []).extend(row for row in cell["rows"] if row["people"] == people)
        found += [_track(record["track"], path.name, queries, rows) for (_, _, queries), rows in groups.items() if rows]
    return found


def _track(name: str, file: str, queries: int, rows: Sequence[Mapping[str, Any]]) -> Track:
    certificate = rows[0]["certificate"]
    epsilons = tuple(sorted(certificate["family"]))

    def mean(key: str, epsilon: int | None = None) -> float:
        return statistics.fmean(r["row"][key] for r in rows if epsilon in (None, r["row"]["epsilon"]))

    if "examined" in certificate:
        design, persons, others = (certificate["examined"][key] for key in ("design", "persons", "others"))
    else:
        design = "paired" if name.startswith(_SAME_PEOPLE) else "disjoint"
        persons, others = certificate["before"]["m"], certificate["reference"]["m"]
    paired = design == "paired"
    world = Setting(
        success=tuple(min(mean("subgroup_after", e), _SURE) for e in epsilons),
        accuracy=min(mean("reference_before"), _SURE),
        persons=persons,
        # As a panel is drawn; today's total below has all of them.
        reference_persons=None if paired else min(others, MOST_OTHERS * persons),
        dependence=TOGETHER if paired else 0.0,
        alike=0.9,
    )
    return Track(name, file, queries, world, epsilons, mean("subgroup_before"), others)


def costs(found: Sequence[Track], actions: int, seed: int) -> dict[str, Any]:
    """Return what certificates cost at every track's rates, by each way of stopping, with parity as the goal.

    Parameters
    ----------
    found : sequence of Track
    actions : int
        Simulated for each budget of each track.
    seed : int

    Returns
    -------
    dict
        ``tracks``: a row for each, means over its budgets. ``budgets``: the same for each budget. Ratios are means
        over actions of an action's queries, baseline included, divided by those of the same test on all its persons.
        ``row_queries_ratio``: certificate and controls, divided by what they cost before certificates counted persons.
    """
    budgets = [
        {**_row(track, actions, np.random.default_rng([seed, number])), **_sensitivity(track, actions, seed)}
        for number, track in enumerate(found)
    ]
    by_track = [_mean_of([b for b in budgets if b["track"] == name]) for name in dict.fromkeys(t.name for t in found)]
    row_ratios = [row["curtailed_row_ratio"] for row in by_track]

    def beside(stopping: str) -> dict[str, dict[str, float]]:
        return {
            row["track"]: {
                "ratio": row[f"{stopping}_ratio"],
                "certified": row[f"{stopping}_certified"],
                "certified_by_fixed_test": row["curtailed_certified"],
            }
            for row in by_track
        }

    return {
        "queries_ratio": max(row["curtailed_ratio"] for row in by_track),
        "most_queries_ratio": max(row["most_queries_ratio"] for row in by_track),
        "anytime_ratio": beside("anytime"),
        "hybrid_ratio": beside("hybrid"),
        "row_queries_ratio": statistics.fmean(row_ratios),
        "largest_row_queries_ratio": max(row_ratios),
        "tracks": by_track,
        "budgets": budgets,
    }


def _row(track: Track, actions: int, rng: np.random.Generator) -> dict[str, Any]:
    world, others = track.world, track.others
    answers = draw(world, actions, rng)
    many = {
        stopping: certify_many(Certifying(stopping=stopping), track.design, answers)
        for stopping in ("curtailed", "anytime", "hybrid")
    }
    curtailed = many["curtailed"]
    # The same verdicts, with everybody asked at every ε that was tested.
    whole = others + world.persons * curtailed.tested
    before = world.persons * (1 + curtailed.tested + _CONTROLS_BEFORE) + 2 * track.all_others
    return {
        "track": track.name,
        "file": track.file,
        "queries": track.queries,
        "design": track.design,
        "persons": world.persons,
        "others": others,
        "reference": world.accuracy,
        "before": track.before,
        "success": dict(zip(map(str, track.epsilons), world.success, strict=True)),
        "actions": actions,
        "whole_queries": float(whole.mean()),
        "most_queries_ratio": float((curtailed.queries / whole).max()),
        "row_queries_before": float(before.mean()),
        **{
            f"{stopping}_{key}": value
            for stopping, one in many.items()
            for key, value in {
                "queries": float(one.queries.mean()),
                "ratio": float((one.queries / whole).mean()),
                "certified": float(one.claimed.mean()),
                "row_queries": float((one.queries + _controls(track, one)).mean()),
                "row_ratio": float(((one.queries + _controls(track, one)) / before).mean()),
            }.items()
        },
    }


def _controls(track: Track, many: Certified) -> Counts:
    """Return what an action's row asks beside its certificate: every control, on at most so many persons a group."""
    quoted = np.take_along_axis(many.asked, many.quoted[None], axis=0)[0]
    paid = np.zeros(len(quoted), np.int64)
    for control in CONTROLS:
        group = track.others if control.whose == "reference" else track.world.persons
        people = min(Settings.controls_people, group)
        # What the certificate asked costs nothing again, but for persons that it had no need to ask.
        already = {"reference": many.baseline, "delta": quoted}.get(control.asked_as or "", 0)
        paid += np.maximum(0, people - already)
    # And the choice of the zero-query control, at its dearest.
    return paid + len(Settings.control_lengths) * MOST_CHOOSERS


def _sensitivity(track: Track, actions: int, seed: int) -> dict[str, Any]:
    """Return the curtailed ratio under other dependences, which result files do not hold; nothing for other persons."""
    if track.design == "disjoint":
        return {}
    found = {}
    for together in OTHERS:
        world = replace(track.world, dependence=together)
        answers = draw(world, actions, np.random.default_rng([seed, 0x746F67]))
        many = certify_many(Certifying(), track.design, answers)
        found[str(together)] = float((many.queries / (track.others + world.persons * many.tested)).mean())
    return {"curtailed_ratio_if_together": found}


def _mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of a track's budgets; the greatest of what is a greatest."""
    first = rows[0]
    facts = {key: first[key] for key in ("track", "file", "design", "persons", "others", "reference")}
    numbers = {key: statistics.fmean(row[key] for row in rows) for key in _numbers(first)}
    return {
        **facts,
        **numbers,
        "budgets": len(rows),
        "actions": sum(row["actions"] for row in rows),
        "most_queries_ratio": max(row["most_queries_ratio"] for row in rows),
    }


def _numbers(row: Mapping[str, Any]) -> Iterator[str]:
    return (key for key, value in row.items() if isinstance(value, float) and key not in ("reference", "before"))

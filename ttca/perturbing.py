"""Perturbing: from the proxy to a family of perturbation sets, one for every ε."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.asking import Known, Questions
from ttca.distilling import Distilled, learn_inputs
from ttca.errors import ActionError
from ttca.kept import digest, made_from
from ttca.labeling import published
from ttca.people import Roster
from ttca.perturbations import PerturbationSet
from ttca.private import private_folder
from ttca.race_record import NOTHING
from ttca.refining import Refinement
from ttca.values import Value
from ttca.workshop import Workshop

__all__ = ["Family", "combine", "perturb", "refined_queries"]


@dataclass(frozen=True, eq=False, repr=False)
class Family(Value):
    """One perturbation set for every ε of the settings, by ε, and a digest of all that they were learned from."""

    sets: Mapping[int, PerturbationSet]
    inputs: str

    @property
    def queries(self) -> int:
        """Queries that refinement spent."""
        return sum(_refinement_queries(s) for s in self.sets.values())

    @property
    def seconds(self) -> float:
        """What learning took, in whichever process did it."""
        return float(sum(s.evidence.get("seconds", float("nan")) for s in self.sets.values()))


def perturb(
    shop: Workshop,
    roster: Roster,
    known: Known,
    questions: Questions,
    distilled: Distilled,
    *,
    only: int | None = None,
) -> Family:
    """Learn one perturbation per class for every ε, smallest first, each from the one before; or read them.

    With ``only``, for that ε alone, from nothing: so candidates of a race are compared, and so the winner goes on.

    Raises
    ------
    ActionError
        If kept perturbations were learned from pictures that were prepared in another way.
    WorthlessProxyError
        If δ is the proxy's alone, nothing that the platform said about probes having been kept, and the proxy knows
        no more of the platform than its most frequent answer.
    """
    inputs = learn_inputs(shop, known, questions, distilled.weights)
    # Nobody has shown of these that they help.
    home = private_folder(shop.folder / "perturbations")
    refinement = Refinement.of(shop, roster, questions)
    sets: dict[int, PerturbationSet] = {}
    previous: NDArray[np.int8] | None = None
    for epsilon in sorted(e for e in shop.settings.epsilons if only in (None, e)):
        path = _path(home, epsilon)
        kept = _kept(shop, path, epsilon, inputs)
        if kept is None:
            began = time.perf_counter()
            delta = shop.learner.universal(
                distilled.proxy,
                known.helped,
                questions.selection,
                epsilon,
                what=f"learning δ, ε = {epsilon}",
                initial=previous,
            )
            started = published(known, distilled.proxy.backbones)
            refined: dict[str, Any] = {"queries": 0, "kept": False}
            if refinement.pairs:
                delta, refined = refinement.apply(delta, epsilon)
            kept = PerturbationSet(
                delta=delta,
                epsilon=epsilon,
                classes=shop.info.classes,
                subgroup=shop.settings.subgroup,
                fingerprint=shop.info.fingerprint,
                preparation=shop.preparation,
                evidence={
                    "inputs": inputs,
                    "fidelity": distilled.fidelity.to_dict(),
                    "seconds": time.perf_counter() - began,
                    "refinement": refined,
                    **({"backbones": started} if started else {}),
                },
            )
            kept.save(path)
        sets[epsilon] = kept
        previous = kept.delta
    # What won a race has shown what it is worth.
    if only is None and shop.settings.refine and not any(s.evidence["refinement"]["kept"] for s in sets.values()):
        distilled.check_worth()
    return Family(sets, inputs)


def combine(
    shop: Workshop,
    roster: Roster,
    questions: Questions,
    distilled: Distilled,
    families: Mapping[str, Family],
    serves: Mapping[str, Sequence[str]],
) -> Family:
    """Return one family of recipes', each for its classes, refined with the queries that are saved for that.

    Parameters
    ----------
    shop : Workshop
    roster : Roster
    questions : Questions
    distilled : Distilled
        The winner's, whose fidelity the files say.
    families : dict of str to Family
        By recipe, the winner's first; unrefined.
    serves : dict of str to sequence of str
        Which classes each serves: each class stands once. Those of "nothing" are left alone, refined or not.
    """
    first = next(iter(families.values()))
    parts = {name: family.inputs for name, family in families.items()}
    said = {name: list(classes) for name, classes in serves.items()}
    inputs = digest("combined", parts, said, shop.settings.refine)
    home = private_folder(shop.folder / "perturbations")
    refinement = Refinement.of(shop, roster, questions)
    rows = {name: [shop.info.classes.index(each) for each in classes] for name, classes in serves.items()}
    alone = rows.pop(NOTHING, [])
    sets: dict[int, PerturbationSet] = {}
    for epsilon in sorted(first.sets):
        path = _path(home, epsilon)
        kept = _kept(shop, path, epsilon, inputs)
        if kept is None:
            began = time.perf_counter()
            delta = first.sets[epsilon].delta.copy()
            for name, own in rows.items():
                delta[own] = families[name].sets[epsilon].delta[own]
            delta[alone] = 0
            refined: dict[str, Any] = {"queries": 0, "kept": False}
            if refinement.pairs:
                delta, refined = refinement.apply(delta, epsilon)
                delta[alone] = 0
            learned = sum(family.sets[epsilon].evidence["seconds"] for family in families.values())
            made = {
                "inputs": inputs, "serves": said, "seconds": learned + time.perf_counter() - began,
                "refinement": refined,
            }  # fmt: skip
            started = [b for f in families.values() for b in f.sets[epsilon].evidence.get("backbones", [])]
            names = {"backbones": [b for i, b in enumerate(started) if b not in started[:i]]} if started else {}
            fidelity = {"fidelity": distilled.fidelity.to_dict()}
            kept = replace(first.sets[epsilon], delta=delta, evidence={**made, **fidelity, **names})
            kept.save(path)
        sets[epsilon] = kept
    return Family(sets, inputs)


def _path(home: Path, epsilon: int) -> Path:
    return home / f"epsilon-{epsilon:03d}.safetensors"


def _kept(shop: Workshop, path: Path, epsilon: int, inputs: str) -> PerturbationSet | None:
    """Return the set that was kept, None where there is none that was made from the same."""
    if not path.is_file():
        return None
    kept = PerturbationSet.load(path)
    if kept.preparation != shop.preparation:
        raise ActionError(
            f"Expected pictures that are prepared as for {path}, {kept.preparation or 'not at all'}, got "
            f"{shop.preparation or 'no preparation'} in the action file. Members' pictures would go another way "
            "than those that were asked about. Put preparation back as it was, or start a new action in a new "
            "folder."
        )
    return kept if made_from(kept.evidence.get("inputs"), inputs) and kept.epsilon == epsilon else None


def refined_queries(folder: Path) -> int:
    """Return the queries that refinement has spent, as the perturbations in the folder tell."""
    return sum(
        _refinement_queries(PerturbationSet.load(path))
        for path in (folder / "perturbations").glob("epsilon-*.safetensors")
    )


def _refinement_queries(perturbations: PerturbationSet) -> int:
    return int(perturbations.evidence.get("refinement", {}).get("queries", 0))

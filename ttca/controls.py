"""Controls: the δ that an action has to beat, learned as its own is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttca.asking import Known, Questions
from ttca.conditions import Opponents
from ttca.distilling import Distilled
from ttca.errors import ActionError
from ttca.kept import digest, load_arrays, save_arrays
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.proxies.distillation import Proxy

__all__ = ["learn_controls"]


def learn_controls(
    shop: Workshop, pool: People, known: Known, questions: Questions, distilled: Distilled, family: Family, epsilon: int
) -> Opponents:
    """Learn the δ of the controls at an ε of the family, or read them back.

    They are random noise, those of a proxy that asked nothing, and one for all classes.

    Parameters
    ----------
    shop : Workshop
    pool : People
        Pool people of both groups, whose true classes teach the control where nothing public is known.
    known, questions, distilled, family
        What the steps before returned.
    epsilon : int
        Levels of 255.

    Raises
    ------
    ActionError
        If ε is none of the family.
    """
    from ttca.attacks.universal import random_universal

    settings, info = shop.settings, shop.info
    if epsilon not in family.sets:
        raise ActionError(
            f"Expected one of the action's ε values {sorted(family.sets)}, got {epsilon}. Choose one of them."
        )
    selection = questions.selection
    people = [distilled.warm_weights] if known.public is not None else [pool.digest(), selection.digest()]
    asked_nothing = digest("zero-query", people, shop.learner.facts())
    inputs = digest("controls", family.inputs, shop.learner.facts(), asked_nothing)
    rng = np.random.default_rng(settings.seed)
    noise = random_universal(groups=len(info.classes), image_shape=info.image_shape, epsilon=epsilon, rng=rng)
    # The control gets the same family of warm starts as the action.
    levels = sorted(e for e in family.sets if e <= epsilon)
    names = [*(f"zero_query-{level}" for level in levels), f"class_agnostic-{epsilon}"]
    path = shop.folder / "controls.safetensors"
    stored = load_arrays(path, inputs) or {}
    if not stored.keys() >= set(names):
        ignorant = distilled.warm or _taught(shop, pool, selection, asked_nothing)
        zero: NDArray[np.int8] | None = None
        for level, name in zip(levels, names, strict=False):
            if name not in stored:
                what = f"learning the zero-query δ, ε = {level}"
                stored[name] = shop.learner.universal(ignorant, known.helped, selection, level, what=what, initial=zero)
            zero = stored[name]
        stored[names[-1]] = shop.learner.universal(
            distilled.proxy, known.helped, selection, epsilon, what="learning one δ for all classes", agnostic=True
        )
        save_arrays(path, stored, inputs)
    chosen = PerturbationSet(stored[names[-2]], epsilon, info.classes, settings.subgroup, info.fingerprint)
    return Opponents(
        noise=replace(chosen, delta=noise),
        zero_query=chosen,
        class_agnostic=replace(chosen, delta=np.repeat(stored[names[-1]], len(info.classes), axis=0)),
    )


def _taught(shop: Workshop, pool: People, selection: People, inputs: str) -> Proxy:
    """Return a proxy that asked nothing: it learned from the pool's own true classes."""
    proxy, _ = shop.learner.train(
        shop.folder / "zero-query-proxy.safetensors",
        pool.images,
        shop.learner.true(pool),
        selection=(selection.images, shop.learner.true(selection)),
        inputs=inputs,
        what="training the zero-query control",
    )
    return proxy

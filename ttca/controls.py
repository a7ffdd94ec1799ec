"""Controls: the δ that an action has to beat, learned as its own is, and at their best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.asking import Known, Questions
from ttca.conditions import Opponents
from ttca.distilling import Distilled
from ttca.errors import ActionError
from ttca.images import Images
from ttca.kept import digest, load_arrays, save_arrays
from ttca.labeling import labeled
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family
from ttca.progress import Reporter
from ttca.side_by_side import learning_threads
from ttca.values import OneLine
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.proxies.distillation import Proxy

__all__ = ["MOST_CHOOSERS", "Pupils", "Twin", "learn_controls"]

MOST_CHOOSERS = 40
"""Selection people whom members pay to choose among the zero-query controls: each is asked once for every length."""


@dataclass(frozen=True, eq=False, repr=False)
class Pupils(OneLine):
    """Whom the controls learn from, and who tells the best of them.

    Parameters
    ----------
    pool : People
        Pool people of both groups as the action's proxy sees them, whose true classes teach the zero-query control
        where nothing public is known.
    known : Known
    questions : Questions
    choosers : People
        Selection people who tell which zero-query control is the best.
    ask : callable
        uint8 (N, H, W, 3) and N owners → Answers: asks the platform about them under a control's δ.
    """

    pool: People
    known: Known
    questions: Questions
    choosers: People
    ask: Callable[[Images, list[str]], Answers]


@dataclass(frozen=True, eq=False, repr=False)
class Twin(OneLine):
    """What the twin of one recipe learns from: the action's own, or one that serves some classes beside it.

    Parameters
    ----------
    shop : Workshop
        In whose folder it is kept, and whose settings it has.
    pupils : Pupils
    distilled : Distilled
        The recipe's own proxy.
    classes : int64 array
        Which classes the recipe serves beside the winner; empty for the action's own.
    """

    shop: Workshop
    pupils: Pupils
    distilled: Distilled
    classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def learned(self, levels: list[int], lengths: Sequence[float], inputs: str) -> dict[str, NDArray[np.int8]]:
        """Return the zero-query δ of every length and level, and whatever else is kept beside them, learned or read."""
        shop, pupils, distilled, settings = self.shop, self.pupils, self.distilled, self.shop.settings
        known, selection = _ignorant(shop, pupils), pupils.questions.selection
        people = [distilled.warm_weights] if known.public is not None else [pupils.pool.digest(), selection.digest()]
        if known.labeled is not None:
            people = [known.labeled.digest, pupils.pool.digest(), selection.digest()]
        asked_nothing = digest("zero-query", people, shop.learner.facts())
        whole = digest("controls", inputs, shop.learner.facts(), asked_nothing)
        path = shop.folder / "controls.safetensors"
        stored = load_arrays(path, whole) or {}
        before = set(stored)

        def taught(length: float, reporter: Reporter) -> dict[str, NDArray[np.int8]]:
            """Return the δ of one length at every level."""
            names = [_name(length, level) for level in levels]
            found = {name: stored[name] for name in names if name in stored}
            if len(found) == len(names):
                return found
            own = replace(shop, reporter=reporter, tells=False) if settings.races else shop
            ignorant = _taught(own, replace(pupils, known=known), distilled, length, asked_nothing)
            delta: NDArray[np.int8] | None = None
            for level, name in zip(levels, names, strict=True):
                if name not in found:
                    what = f"learning the zero-query δ, ε = {level}"
                    found[name] = own.learner.universal(
                        ignorant, known.helped, selection, level, what=what, initial=delta
                    )
                delta = found[name]
            return found

        # The longest first.
        tasks = [partial(taught, length) for length in sorted(lengths, reverse=settings.races)]
        if settings.races:
            made = shop.side_by_side(tasks, what="learning the zero-query controls")
        else:
            made = [task(shop.reporter) for task in tasks]
        for found in made:
            stored |= found
        agnostic = _agnostic(levels[-1])
        if agnostic not in stored and not len(self.classes):
            with learning_threads(settings.threads) if settings.races else nullcontext():
                stored[agnostic] = shop.learner.universal(
                    distilled.proxy, known.helped, selection, levels[-1], what="learning one δ for all classes",
                    agnostic=True,
                )  # fmt: skip
        if set(stored) != before:
            save_arrays(path, stored, whole)
        return stored


def learn_controls(
    twin: Twin, family: Family, epsilon: int, beside: Twin | None = None, spared: Sequence[int] = ()
) -> Opponents:
    """Learn the δ of the controls at an ε of the family, or read them back.

    They are random noise, those of a proxy that asked nothing, and one for all classes.

    Parameters
    ----------
    twin : Twin
        Of what the steps before returned.
    family : Family
    epsilon : int
        Levels of 255.
    beside : Twin, optional
        Of the recipe that serves some classes beside it.
    spared : sequence of int
        The classes that the action's δ leaves alone.

    Raises
    ------
    ActionError
        If ε is none of the family.

    Notes
    -----
    *Ours*. The zero-query control is the action's twin: the same people, augmentations and δ steps, with true classes
    instead of answers. It is trained for several lengths (``control_lengths``), since what queries are credited with
    might otherwise be training; the best by S of selection people on the platform is the control. Those answers are its
    advantage: the action's δ never meets them. Public images without classes are labeled for it by a head that learned
    members' true classes alone. It learns these labels, and then true classes where the action learns answers. Where
    two recipes serve together, so do their twins: in each class that the second serves, the twin that helped more of
    these people, and of equals the one of the recipe that serves there. Both are unrefined. A class that the action's
    δ leaves alone the control leaves alone, too, unless its own δ helped more of them. A δ that asked nothing, in
    learning or in refining, is its own control: nothing is credited to queries.
    """
    from ttca.attacks.universal import random_universal

    shop, pupils = twin.shop, twin.pupils
    settings, info = shop.settings, shop.info
    if epsilon not in family.sets:
        raise ActionError(
            f"Expected one of the action's ε values {sorted(family.sets)}, got {epsilon}. Choose one of them."
        )
    # The control gets the same family of warm starts as the action: none, where recipes raced.
    levels = [epsilon] if settings.races else sorted(e for e in family.sets if e <= epsilon)
    lengths = _lengths(twin, family, beside)
    stored = twin.learned(levels, lengths, family.inputs)
    rng = np.random.default_rng(settings.seed)
    noise = random_universal(groups=len(info.classes), image_shape=info.image_shape, epsilon=epsilon, rng=rng)

    def rivals(deltas: Mapping[str, NDArray[np.int8]]) -> dict[float, PerturbationSet]:
        return {
            length: PerturbationSet(
                deltas[_name(length, epsilon)], epsilon, info.classes, settings.subgroup, info.fingerprint
            )
            for length in lengths
        }

    own = rivals(stored)
    others = [] if beside is None else [(rivals(beside.learned(levels, lengths, family.inputs)), beside.classes)]
    if len(spared):
        still = {length: replace(rival, delta=np.zeros_like(rival.delta)) for length, rival in own.items()}
        others.append((still, np.array(spared, np.int64)))
    best, chosen = _best(own, others, pupils.choosers, pupils.ask)
    epochs = settings.distilling.epochs if twin.distilled.warm is None else settings.public_epochs
    if pupils.known.unlabeled is not None and not twin.distilled.asked_nothing:
        epochs = settings.public_epochs + settings.distilling.epochs
    return Opponents(
        noise=replace(chosen, delta=noise),
        zero_query=chosen,
        class_agnostic=replace(chosen, delta=np.repeat(stored[_agnostic(epsilon)], len(info.classes), axis=0)),
        zero_query_epochs=max(round(epochs * best), 1),
    )


def _lengths(twin: Twin, family: Family, beside: Twin | None) -> tuple[float, ...]:
    """Return how long the zero-query control is trained, as multiples of the action's own length."""
    asked = not twin.distilled.asked_nothing or (beside is not None and not beside.distilled.asked_nothing)
    return twin.shop.settings.control_lengths if asked or family.queries else (1.0,)


def _best(
    rivals: dict[float, PerturbationSet],
    others: Sequence[tuple[dict[float, PerturbationSet], NDArray[np.int64]]],
    choosers: People,
    ask: Callable[[Images, list[str]], Answers],
) -> tuple[float, PerturbationSet]:
    """Return the length whose δ helps most selection people on the platform, and that δ; of equals, the one nearest 1.

    ``others`` are what else serves some classes, by length, and which: later ones serve in place of earlier ones. With
    one length alone nobody is asked.
    """
    if len(rivals) == 1:
        ((length, alone),) = rivals.items()
        for twins, served in others:
            alone = _with(alone, twins[length], served)
        return length, alone

    def heard(rival: PerturbationSet, people: People) -> NDArray[np.bool_]:
        said = ask(rival.apply(people.images, people.classes), people.members.tolist())
        found: NDArray[np.bool_] = said.labels == people.classes
        return found

    labels, found = choosers.classes, dict[float, tuple[int, PerturbationSet]]()
    for length, rival in rivals.items():
        right, best_of = heard(rival, choosers), rival
        for twins, served in others:
            rows, taken = np.flatnonzero(np.isin(labels, served)), served
            if len(rows):
                beside = right.copy()
                beside[rows] = heard(twins[length], choosers[rows])
                taken = np.array([c for c in served if beside[labels == c].sum() >= right[labels == c].sum()], np.int64)
                right = np.where(np.isin(labels, taken), beside, right)
            best_of = _with(best_of, twins[length], taken)
        found[length] = int(right.sum()), best_of
    best = max(found, key=lambda length: (found[length][0], -abs(np.log(length))))
    return best, found[best][1]


def _with(rival: PerturbationSet, other: PerturbationSet, classes: NDArray[np.int64]) -> PerturbationSet:
    """Return a set with another's δ in some classes."""
    delta = rival.delta.copy()
    delta[classes] = other.delta[classes]
    return replace(rival, delta=delta)


def _agnostic(epsilon: int) -> str:
    return f"class_agnostic-{epsilon}"


def _name(length: float, epsilon: int) -> str:
    return f"zero_query-{epsilon}" if length == 1 else f"zero_query-x{length:g}-{epsilon}"


def _ignorant(shop: Workshop, pupils: Pupils) -> Known:
    """Return what is known to whoever asks nothing: public images are labeled as members' true classes teach."""
    known = pupils.known
    if known.unlabeled is None:
        return known
    true = replace(pupils.pool, images=shop.learner.seen(pupils.pool.images))
    return labeled(shop, replace(known, public=true if known.public is None else known.public), pupils.questions, None)


def _taught(shop: Workshop, pupils: Pupils, distilled: Distilled, length: float, inputs: str) -> Proxy:
    """Return a proxy that asked nothing: it learned from public data, or else from the pool's own true classes."""
    known, learner = pupils.known, shop.learner
    if distilled.warm is not None and length == 1 and known.labeled is None:
        return distilled.warm
    name = "zero-query-proxy" + ("" if length == 1 else f"-x{length:g}")
    path, judges, after = shop.folder / f"{name}.safetensors", pupils.questions.judges, None
    primer = learner.primer(known.public, known.labeled)
    if primer is not None and (known.labeled is None or distilled.asked_nothing):
        return learner.warm_start(path, primer, judges, length)
    if primer is not None:
        # The action goes on from labels to answers, and its twin to true classes.
        warm = learner.warm_start(shop.folder / f"{name}-before.safetensors", primer, judges, length)
        after, inputs = (warm, primer), digest(inputs, warm.digest())
    # As the action's own.
    keep_best = not shop.settings.equalize
    return learner.taught(path, pupils.pool, judges, inputs=inputs, keep_best=keep_best, length=length, after=after)

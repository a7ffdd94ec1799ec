"""Lessons: what the candidates of a race learn from, who shares what with whom, and where it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ttca.answers import Answers
from ttca.asking import Known, Questions, TransferSet, equalized
from ttca.distilling import WARM_START, Distilled, Fidelity, best_fidelity, distil
from ttca.images import Images
from ttca.labeling import labeled
from ttca.learning import Primer
from ttca.people import People, Roster, split_people
from ttca.perturbations import PerturbationSet
from ttca.perturbing import perturb
from ttca.private import private_folder
from ttca.progress import Reporter
from ttca.recipes import Recipe, proxy_part
from ttca.settings import Settings
from ttca.values import OneLine
from ttca.workshop import Workshop

__all__ = ["FOLDER", "Ground", "Learned", "Lessons", "copied", "halved"]

#: Where candidates are learned, in an action's folder.
FOLDER = "candidates"


@dataclass(frozen=True, eq=False, repr=False)
class Ground(OneLine):
    """What every candidate learns from, whatever its recipe: people, and public images as they were handed in."""

    roster: Roster
    public: People | Images | None
    views: People | None


@dataclass(frozen=True, eq=False, repr=False)
class Learned(OneLine):
    """What a candidate learned for the race.

    Parameters
    ----------
    delta : PerturbationSet
    seconds : float
        That it took, its proxy's for whoever comes first.
    fidelity : Fidelity
        How often its proxy, or the best of its models, named the platform's class for selection people.
    """

    delta: PerturbationSet
    seconds: float
    fidelity: Fidelity


@dataclass(frozen=True, eq=False, repr=False)
class Lessons(OneLine):
    """What candidates learn from and where they are learned, in an action's folder.

    Parameters
    ----------
    shop : Workshop
        The action's own.
    ground : Ground
    questions : Questions
    transfer : TransferSet
        What was said about images as they are.
    recipes : tuple of Recipe
    length : float
        So many times as long as they say are recipes learned.
    half : int
        0: from everybody. 1 or 2: without that half of the pool's subgroup (:func:`halved`).
    longer : bool
        Whether this is what a winner learns for longer than it raced: beside that, in a folder of its own.
    """

    shop: Workshop
    ground: Ground
    questions: Questions
    transfer: TransferSet
    recipes: tuple[Recipe, ...]
    length: float = 1.0
    half: int = 0
    longer: bool = False

    def settings_of(self, recipe: Recipe) -> Settings:
        """Return the settings of a candidate; what the platform tells of single directions comes after the race."""
        return replace(recipe.applied(self.shop.settings, self.length), refine=0.0)

    def folder_of(self, recipe: Recipe) -> Path:
        """Return where a candidate is learned."""
        home = self.shop.folder / FOLDER / recipe.name
        if self.half:
            return home / f"half-{self.half}"
        return home / "longer" if self.longer else home

    def shop_of(self, recipe: Recipe, owner: Recipe | None = None) -> Workshop:
        """Return where a candidate is learned; its proxy in the folder of ``owner``, who learned it first."""
        folder = self.folder_of(recipe if owner is None else owner)
        private_folder(self.shop.folder / FOLDER)
        private_folder(folder.parent)
        return replace(self.shop, folder=private_folder(folder), settings=self.settings_of(recipe), tells=False)

    @cached_property
    def knowledge(self) -> dict[tuple[int, bool, bool, bool], Known]:
        """What candidates know, by the settings that decide it: making it goes through every image."""
        return {}

    def known_by(self, recipe: Recipe) -> Known:
        """Return what a candidate knows without asking, but for labels of public images, which answers may teach."""
        ground, settings = self.ground, self.settings_of(recipe)
        # Only labels tell those that ask from those that do not.
        asks = recipe.asks and not isinstance(ground.public, People)
        key = settings.block, settings.true_classes, settings.equalize, asks
        if key not in self.knowledge:
            shape = self.shop.info.image_shape
            known = Known.of(ground.roster, settings, shape, public=ground.public, views=ground.views)
            if known.unlabeled is not None:
                # Altered copies are learned from later: they are made with a proxy that has learned labels.
                own = self.shop_of(recipe), known, self.questions_of(recipe), self._taught(recipe, self.transfer)
                known = labeled(*own)
            self.knowledge[key] = known
        return self.knowledge[key]

    @cached_property
    def judged(self) -> dict[bool, People]:
        """Selection people as candidates see them that equalize, or do not: a spectrum of everybody takes seconds."""
        return {}

    @cached_property
    def groups(self) -> tuple[tuple[Recipe, ...], ...]:
        """Candidates that share a proxy."""
        found: dict[tuple[Any, ...], list[Recipe]] = {}
        for recipe in self.recipes:
            part = proxy_part(self.settings_of(recipe), asks=recipe.asks)
            found.setdefault(part, []).append(recipe)
        return tuple(map(tuple, found.values()))

    def owner(self, recipe: Recipe) -> Recipe:
        """Return in whose folder a candidate's proxy lies."""
        return next(group[0] for group in self.groups if recipe in group)

    def questions_of(self, recipe: Recipe) -> Questions:
        """Return who is asked about what, as a candidate that equalizes or not sees it; rounds are behind it, and no
        query is left to refine it.
        """
        settings = self.settings_of(recipe)
        if settings.equalize not in self.judged:
            self.judged[settings.equalize] = equalized(self.questions.selection, self.ground.roster, settings)
        return replace(self.questions, judges=self.judged[settings.equalize], rounds=(), saved=0)

    @cached_property
    def also(self) -> tuple[People, Answers] | None:
        """The equalized images that were asked about, and the answers."""
        copies = self.questions.also
        if copies is None or not len(copies):
            return None
        return copies, self.shop.queries.ask(copies.images, purpose="pool", owners=copies.members.tolist())

    @cached_property
    def asked(self) -> TransferSet:
        """All that was asked before the race: images as they are, equalized ones, and altered copies where there are
        rounds, which the first candidate that asks makes for all.
        """
        found = self.transfer if self.also is None else self.transfer.joined(*self.also)
        if not self.questions.rounds or self.leader is None:
            return found
        shop, known = self.shop_of(self.leader), self.known_by(self.leader)
        return distil(
            shop, known, replace(self.questions_of(self.leader), rounds=self.questions.rounds), found
        ).transfer

    @property
    def leader(self) -> Recipe | None:
        """Whose proxy makes the altered copies, which are asked about once, for all."""
        return next((group[0] for group in self.groups if group[0].asks), None)

    def prepare(self) -> None:
        """Ask, and make, what all candidates share: afterwards they can be learned side by side."""
        _ = self.asked
        for recipe in self.recipes:
            self.known_by(recipe)
            self.questions_of(recipe)

    def warm_starts(self) -> dict[str, Recipe]:
        """Return by its file's name who needs which proxy that learned from true classes alone, each once."""
        found: dict[str, Recipe] = {}
        for recipe in self.recipes:
            if (primer := self._primer(recipe)) is not None:
                found.setdefault(self._shared(recipe, primer).name, recipe)
        return found

    def warm(self, recipe: Recipe, reporter: Reporter) -> None:
        """Learn true classes as this candidate does, and as whoever begins alike."""
        shop, primer = replace(self.shop_of(recipe), reporter=reporter), self._primer(recipe)
        if primer is not None:
            shop.learner.warm_start(self._shared(recipe, primer), primer, self.questions_of(recipe).judges)

    def _primer(self, recipe: Recipe) -> Primer | None:
        known = self.known_by(recipe)
        return self.shop_of(recipe).learner.primer(known.public, known.labeled)

    def _shared(self, recipe: Recipe, primer: Primer) -> Path:
        name = self.shop_of(recipe).learner.warm_start_inputs(primer, self.questions_of(recipe).judges)[:16]
        return private_folder(self.shop.folder / FOLDER / "warm-starts") / f"{name}.safetensors"

    def distilled(self, recipe: Recipe, reporter: Reporter, *, home: Workshop | None = None) -> Distilled:
        """Return a candidate's proxy, trained or read back; its transfer set is all that was asked before the race.

        ``home`` is the action's own workshop, where the winner is learned from everybody, or lies already.
        """
        shop, known = replace(self.shop_of(recipe, self.owner(recipe)), reporter=reporter), self.known_by(recipe)
        if home is not None:
            shop = replace(shop, folder=home.folder)
        elif (primer := self._primer(recipe)) is not None:
            shared, own = self._shared(recipe, primer), shop.folder / WARM_START
            if shared.is_file() and not own.is_file():
                copied(shared, own)
        taught = self._taught(recipe, self.asked)
        return replace(distil(shop, known, self.questions_of(recipe), taught), transfer=self.asked)

    def _taught(self, recipe: Recipe, asked: TransferSet) -> TransferSet:
        """Return the answers that a candidate learns from, of those that were asked for."""
        if not recipe.asks:
            # It learns nothing from answers, whatever was asked.
            return replace(asked, pool=asked.pool[:0], answers=asked.answers[:0])
        if not self.settings_of(recipe).equalize or self.also is None:
            return asked
        copies, answers = self.also
        sharp = ~self.transfer.pool.subgroup
        return replace(
            self.transfer,
            pool=People.concatenate([self.transfer.pool[sharp], copies]),
            answers=Answers.concatenate([self.transfer.answers[sharp], answers], classes=answers.classes),
            equalized=True,
        )

    def learn(self, group: Sequence[Recipe], epsilon: int, reporter: Reporter) -> dict[str, Learned]:
        """Return what candidates that share a proxy learned, at one ε."""
        distilled, found = self.distilled(group[0], reporter), dict[str, Learned]()
        fidelity = best_fidelity(self.shop_of(group[0]).learner, distilled)
        for recipe in group:
            own = self.known_by(recipe), self.questions_of(recipe), distilled
            shop = replace(self.shop_of(recipe), reporter=reporter)
            family = perturb(shop, self.ground.roster, *own, only=epsilon)
            seconds = family.seconds + (distilled.seconds if recipe is group[0] else 0.0)
            found[recipe.name] = Learned(family.sets[epsilon], seconds, fidelity)
        return found


def halved(whole: Lessons) -> tuple[Lessons, Lessons]:
    """Return the same lessons twice, each time without one half of the pool's subgroup, drawn by class at random.

    Whom a candidate did not learn from can say what it is worth [ours].
    """
    pool, seed = whole.ground.roster.pool, whole.shop.settings.seed
    first, second = (_without(whole, number, gone) for number, gone in enumerate(_parts(pool, seed), start=1))
    return first, second


def _parts(pool: People, seed: int) -> list[People]:
    return split_people(pool[pool.subgroup], [0.5, 0.5], seed=seed)


def _without(whole: Lessons, number: int, gone: People) -> Lessons:
    """Return lessons from which some of the pool's subgroup are left out, with their answers."""
    roster, questions, transfer = whole.ground.roster, whole.questions, whole.transfer

    def stays(people: People) -> np.ndarray[Any, Any]:
        return ~(people.subgroup & np.isin(people.persons, gone.persons))

    also = None if questions.also is None else questions.also[stays(questions.also)]
    plain = questions.plain[stays(questions.plain)]
    asked = plain if transfer.pool is questions.plain else transfer.pool[stays(transfer.pool)]
    lessons = replace(
        whole,
        half=number,
        ground=replace(whole.ground, roster=replace(roster, pool=roster.pool[stays(roster.pool)])),
        questions=replace(questions, plain=plain, also=also),
        transfer=replace(transfer, pool=asked, answers=transfer.answers[stays(transfer.pool)]),
    )
    if whole.also is not None:
        copies, answers = whole.also
        # The answers are the whole's: nobody is asked, and no ledger looked into, twice.
        lessons.__dict__["also"] = (copies[stays(copies)], answers[stays(copies)]) if stays(copies).any() else None
    return lessons


def copied(source: Path, target: Path) -> None:
    """Copy a file so that nobody sees it half written; none where there is none."""
    target.unlink(missing_ok=True)
    if source.is_file():
        partial = target.with_suffix(".partial")
        shutil.copyfile(source, partial)
        partial.chmod(0o600)
        partial.replace(target)

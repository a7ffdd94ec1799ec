"""Candidates: recipes learned one by one, raced on the platform, and the one that goes on; all of it is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ttca.answers import Answers
from ttca.asking import Known, Questions, TransferSet, equalized
from ttca.distilling import WARM_START, Distilled, distil
from ttca.kept import digest, load_json, save_json
from ttca.learning import Learner
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family, perturb
from ttca.private import private_folder
from ttca.progress import silent
from ttca.proxies.backbones import Backbone
from ttca.race_record import NOTHING, RACE_FILE, Entrant, Raced, Runners
from ttca.racing import RaceAnswers, RacePlan, RaceResult, hear, plan_race, run_race
from ttca.recipes import Circumstances, Recipe, portfolio, proxy_part
from ttca.settings import Settings
from ttca.speeds import Workload, seconds_for
from ttca.values import OneLine
from ttca.weights import choose_start, suitable_backbones
from ttca.workshop import Workshop

__all__ = ["Chosen", "Ground", "backbones_of", "choose", "enter"]

_FOLDER = "candidates"
#: At least so many candidates race where time and queries allow it.
_FEWEST = 8
#: Persons of the first round, at least: of a race of eight, and of a larger one.
_FIRST_ROUND, _FULL_ROUND = 3, 8


@dataclass(frozen=True, eq=False, repr=False)
class Ground(OneLine):
    """What every candidate learns from, whatever its recipe: people, and public images as they were handed in."""

    roster: Roster
    public: People | None
    views: People | None


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(OneLine):
    """What goes on after learning: the settings that were chosen, in ``shop``, and what was learned with them.

    Parameters
    ----------
    shop : Workshop
    known : Known
    questions : Questions
    distilled : Distilled
    raced : Raced or None
        None where nothing raced.
    """

    shop: Workshop
    known: Known
    questions: Questions
    distilled: Distilled
    raced: Raced | None = None

    def sets(self) -> dict[str, PerturbationSet]:
        """Return every candidate's δ at the race's ε, by its recipe; none where nothing raced."""
        if self.raced is None:
            return {}
        name = f"epsilon-{self.raced.epsilon:03d}.safetensors"
        home = self.shop.folder / _FOLDER
        return {e.name: PerturbationSet.load(home / e.name / "perturbations" / name) for e in self.raced.entrants}

    @property
    def helps(self) -> bool:
        """Whether a δ is proposed."""
        return self.raced is None or self.raced.proposed

    def family(self, roster: Roster) -> Family:
        """Return δ for every ε of the settings: no change at all, where doing nothing won."""
        if self.helps:
            return perturb(self.shop, roster, self.known, self.questions, self.distilled)
        info, settings = self.shop.info, self.shop.settings
        still = np.zeros((len(info.classes), *info.image_shape), np.int8)
        sets = {e: PerturbationSet(still, e, info.classes, settings.subgroup, info.fingerprint)
                for e in settings.epsilons}  # fmt: skip
        return Family(sets, digest(NOTHING))


def enter(shop: Workshop, ground: Ground, questions: Questions) -> Runners:
    """Return who races: as it was decided when the race began, else by what is here now.

    Raises
    ------
    ConfigError, MissingExtraError
        If a candidate cannot be learned here. Nothing was asked.
    """
    path, made_of = shop.folder / RACE_FILE, _made_of(shop)
    if path.is_file():
        kept = load_json(path)
        if kept.get("made_of") == made_of:
            return Runners.from_dict(kept["field"])
    settings, shape = shop.settings, shop.info.image_shape
    backbones = []
    if settings.weights != ("none",):
        side = shape[0] // (settings.block if "block" in settings.set_by_hand else _coarseness(shape))
        named = choose_start(settings, shop.folder, side=side).backbones if settings.weights else ()
        backbones = [b for b in named or suitable_backbones(side) if b.name not in settings.left_out]
    found = Circumstances(
        shape=shape,
        classes=len(shop.info.classes),
        both_groups=not bool(np.all(ground.roster.pool.subgroup)),
        public=ground.public is not None,
        backbones=tuple(backbones),
    )
    recipes = portfolio(found, settings)
    most = _most(questions.race, len(_persons(questions, settings)))
    workloads = _workloads(shop, ground, questions, recipes)
    seconds = seconds_for(workloads, settings.threads)
    fits, no_time, no_queries = list[Recipe](), list[str](), list[str]()
    spent = 0.0
    for recipe in recipes:
        if len(fits) >= most:
            no_queries.append(recipe.name)
        # Of those that ask nothing one always runs.
        elif fits and recipe.asks and spent + seconds[recipe.name] > 60 * settings.most_minutes:
            no_time.append(recipe.name)
        else:
            fits.append(recipe)
            spent += seconds[recipe.name]
    return Runners(tuple(fits), {r.name: round(seconds[r.name], 1) for r in fits}, tuple(no_time), tuple(no_queries))


def backbones_of(shop: Workshop, runners: Runners) -> tuple[Backbone, ...]:
    """Return the published weights that any candidate begins with."""
    found: dict[str, Backbone] = {}
    for recipe in runners.recipes:
        settings = recipe.applied(shop.settings)
        start = choose_start(settings, shop.folder, side=shop.info.image_shape[0] // settings.block)
        found |= {b.digest: b for b in start.backbones}
    return tuple(found.values())


def choose(shop: Workshop, ground: Ground, questions: Questions, transfer: TransferSet, runners: Runners) -> Chosen:
    """Learn the candidates, race them on the platform, and return what goes on; each step is kept and read back.

    Parameters
    ----------
    shop : Workshop
        With the action's own settings.
    ground : Ground
    questions : Questions
        Who is asked about what: the same for every candidate.
    transfer : TransferSet
        What the platform said of the pool.
    runners : Runners
        Who races.
    """
    race = _Race(shop, ground, questions, transfer, runners)
    kept = race.kept()
    raced = race.run() if kept is None else kept
    winner = next(r for r in runners.recipes if r.name == raced.winner)
    if kept is None:
        race.adopt(winner, raced)
    distilled = race.distilled(winner, at_home=True)
    at_home = replace(shop, settings=race.settings_of(winner, refine=shop.settings.refine))
    shop.reporter.say(raced.told)
    return Chosen(at_home, race.known_by(winner), race.questions_of(winner), distilled, raced)


@dataclass(frozen=True, eq=False, repr=False)
class _Race(OneLine):
    """One race in an action's folder."""

    shop: Workshop
    ground: Ground
    questions: Questions
    transfer: TransferSet
    runners: Runners

    @cached_property
    def epsilon(self) -> int:
        """The family's middle ε."""
        family = sorted(self.shop.settings.epsilons)
        return family[(len(family) - 1) // 2]

    @cached_property
    def order(self) -> np.ndarray[Any, Any]:
        """Rows of the selection people in the order of the race, one of each person."""
        return _persons(self.questions, self.shop.settings)

    @cached_property
    def plan(self) -> RacePlan:
        """How the race goes."""
        return plan_race(candidates=len(self.runners.recipes), persons=len(self.order), queries=self.questions.race)

    @cached_property
    def inputs(self) -> str:
        """A digest of all that decides the race."""
        facts = [r.to_dict() for r in self.runners.recipes]
        s = self.shop.settings
        return digest("race", self.transfer.digest, facts, _made_of(self.shop), s.seed, sorted(s.epsilons))

    def settings_of(self, recipe: Recipe, *, refine: float = 0.0) -> Settings:
        """Return the settings of a candidate; what the platform tells of single directions comes after the race."""
        return replace(recipe.applied(self.shop.settings), refine=refine)

    def shop_of(self, recipe: Recipe, owner: Recipe | None = None) -> Workshop:
        """Return where a candidate is learned; its proxy in the folder of ``owner``, who learned it first."""
        folder = private_folder(self.shop.folder / _FOLDER) / (recipe if owner is None else owner).name
        return replace(self.shop, folder=private_folder(folder), settings=self.settings_of(recipe), tells=False)

    @cached_property
    def knowledge(self) -> dict[tuple[int, bool, bool], Known]:
        """What candidates know, by the settings that decide it: making it goes through every image."""
        return {}

    def known_by(self, recipe: Recipe) -> Known:
        """Return what a candidate knows without asking."""
        ground, settings = self.ground, self.settings_of(recipe)
        key = settings.block, settings.true_classes, settings.equalize
        if key not in self.knowledge:
            shape = self.shop.info.image_shape
            self.knowledge[key] = Known.of(ground.roster, settings, shape, public=ground.public, views=ground.views)
        return self.knowledge[key]

    def groups(self) -> Iterator[list[Recipe]]:
        """Yield candidates that share a proxy."""
        found: dict[tuple[Any, ...], list[Recipe]] = {}
        for recipe in self.runners.recipes:
            part = proxy_part(self.settings_of(recipe), asks=recipe.asks)
            found.setdefault(part, []).append(recipe)
        yield from found.values()

    def owner(self, recipe: Recipe) -> Recipe:
        """Return in whose folder a candidate's proxy lies."""
        return next(group[0] for group in self.groups() if recipe in group)

    def distilled(self, recipe: Recipe, *, at_home: bool = False) -> Distilled:
        """Return a candidate's proxy, trained or read back; its transfer set is all that was asked before the race.

        ``at_home`` reads the winner's from the action's own folder.
        """
        shop, known, transfer = self.shop_of(recipe, self.owner(recipe)), self.known_by(recipe), self.asked
        if at_home:
            shop = replace(shop, folder=self.shop.folder)
        if not recipe.asks:
            # It learns nothing from answers, whatever was asked.
            transfer = replace(transfer, pool=transfer.pool[:0], answers=transfer.answers[:0])
        elif shop.settings.equalize and self.also is not None:
            copies, answers = self.also
            sharp = ~self.transfer.pool.subgroup
            transfer = replace(
                self.transfer,
                pool=People.concatenate([self.transfer.pool[sharp], copies]),
                answers=Answers.concatenate([self.transfer.answers[sharp], answers], classes=answers.classes),
                equalized=True,
            )
        return replace(self.distil(shop, known, self.questions_of(recipe), transfer), transfer=self.asked)

    def distil(self, shop: Workshop, known: Known, questions: Questions, transfer: TransferSet) -> Distilled:
        """Train a candidate's proxy, or read it back; what it learned of true classes it shares with others."""
        if known.public is None or shop.folder == self.shop.folder:
            return distil(shop, known, questions, transfer)
        name = shop.learner.warm_start_inputs(known.public, questions.judges)[:16]
        shared = private_folder(self.shop.folder / _FOLDER / "warm-starts") / f"{name}.safetensors"
        own = shop.folder / WARM_START
        if shared.is_file() and not own.is_file():
            _copied(shared, own)
        found = distil(shop, known, questions, transfer)
        if not shared.is_file():
            _copied(own, shared)
        return found

    def questions_of(self, recipe: Recipe) -> Questions:
        """Return who is asked about what, as a candidate that equalizes or not sees it; rounds are behind it."""
        selection = self.questions.selection
        judges = equalized(selection, self.ground.roster, self.settings_of(recipe))
        return replace(self.questions, judges=judges, rounds=())

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
        return next((group[0] for group in self.groups() if group[0].asks), None)

    def kept(self) -> Raced | None:
        """Return the record of this very race, where it was run."""
        path = self.shop.folder / RACE_FILE
        if not path.is_file():
            return None
        found = load_json(path)
        same = found.get("inputs") == self.inputs and found.get("result") is not None
        return Raced.from_dict(found["result"]) if same else None

    def keep(self, raced: Raced | None) -> None:
        """Write the record: before the first candidate is learned who races, in the end what came of it."""
        result = None if raced is None else raced.to_dict()
        record = {"made_of": _made_of(self.shop), "inputs": self.inputs, "field": self.runners.to_dict()}
        save_json(self.shop.folder / RACE_FILE, {**record, "result": result})

    def run(self) -> Raced:
        """Learn every candidate and ask the platform about them."""
        # First: a race for which there are too few people or queries is refused before hours of learning.
        plan = self.plan
        self.keep(None)
        sets, seconds = self.learned()
        recipes, shop = self.runners.recipes, self.shop
        people = self.questions.selection[self.order]
        nothing = hear(self.transfer.selection_answers[self.order], people.classes, unresolved_right=True)

        def ask(candidate: int, start: int, stop: int) -> RaceAnswers:
            part = people[start:stop]
            images = sets[recipes[candidate].name].apply(part.images, part.classes)
            said = shop.queries.ask(images, purpose="pool-race", owners=part.members.tolist())
            return hear(said, part.classes)

        result = run_race(plan, nothing, ask)
        return self.record(result, seconds)

    def learned(self) -> tuple[dict[str, PerturbationSet], dict[str, float]]:
        """Return each candidate's δ at the race's ε, and what learning it took."""
        sets: dict[str, PerturbationSet] = {}
        seconds: dict[str, float] = {}
        say, began, done = self.shop.reporter.say, time.perf_counter(), 0.0
        expected = sum(self.runners.seconds.values())
        for group in self.groups():
            distilled = self.distilled(group[0])
            for recipe in group:
                left = (time.perf_counter() - began) / done * (expected - done) if done else expected
                say(
                    f"Candidate {len(sets) + 1} of {len(self.runners.recipes)}: {recipe.name} ({recipe.about}). About "
                    f"{max(1, round(left / 60))} min to go."
                )
                own = self.known_by(recipe), self.questions_of(recipe), distilled
                family = perturb(self.shop_of(recipe), self.ground.roster, *own, most=self.epsilon)
                sets[recipe.name] = family.sets[self.epsilon]
                seconds[recipe.name] = family.seconds + (distilled.seconds if recipe is group[0] else 0.0)
                done += self.runners.seconds.get(recipe.name, 0.0)
        return sets, seconds

    def record(self, result: RaceResult, seconds: Mapping[str, float]) -> Raced:
        """Return what came of it under the candidates' names."""
        recipes = self.runners.recipes
        return Raced(
            epsilon=self.epsilon,
            entrants=tuple(
                Entrant(
                    name=recipe.name,
                    about=recipe.about,
                    persons=s.persons,
                    mean=s.mean if s.persons else None,
                    difference=s.difference if s.persons else None,
                    out=s.out,
                    seconds=round(seconds[recipe.name], 3),
                )
                for recipe, s in zip(recipes, result.ranks, strict=True)
            ),
            winner=recipes[result.winner].name,
            proposed=result.proposed,
            won=result.won,
            lost=result.lost,
            tested=result.tested,
            p=result.p,
            level=result.level,
            fresh=result.fresh,
            queries=result.queries,
            persons=len(self.order),
            no_time=self.runners.no_time,
            no_queries=self.runners.no_queries,
        )

    def adopt(self, winner: Recipe, raced: Raced) -> None:
        """Copy what the winner learned to where an action without a race has it, and then write the record."""
        home, proxy = self.shop.folder, self.shop_of(winner, self.owner(winner)).folder
        for name in ("proxy.safetensors", WARM_START):
            _copied(proxy / name, home / name)
        if raced.proposed:
            for path in sorted((self.shop_of(winner).folder / "perturbations").glob("*.safetensors")):
                _copied(path, private_folder(home / "perturbations") / path.name)
        self.keep(raced)


def _copied(source: Path, target: Path) -> None:
    """Copy a file so that nobody sees it half written; none where there is none."""
    target.unlink(missing_ok=True)
    if source.is_file():
        partial = target.with_suffix(".partial")
        shutil.copyfile(source, partial)
        partial.chmod(0o600)
        partial.replace(target)


def _persons(questions: Questions, settings: Settings) -> np.ndarray[Any, Any]:
    """Return rows of the subgroup's selection people in a random order, one image of each person."""
    order = np.random.default_rng([settings.seed, 17]).permutation(len(questions.selection))
    _, first = np.unique(questions.selection.persons[order], return_index=True)
    return order[np.sort(first)]


def _made_of(shop: Workshop) -> str:
    """Return a digest of the settings that decide who races."""
    s = shop.settings
    by_hand = {k: getattr(s, k) for k in sorted(s.set_by_hand)}
    return digest("field", by_hand, sorted(s.left_out), s.race_share, s.most_minutes, s.rounds, s.altered)


def _most(queries: int, persons: int) -> int:
    """Return how many candidates so many queries tell apart: eight, more where each gets its share, else fewer."""

    def first(candidates: int) -> int:
        return min(queries // ((candidates - 1).bit_length() * candidates), persons)

    most = next((k for k in range(_FEWEST, 1, -1) if first(k) >= _FIRST_ROUND), 1)
    while most >= _FEWEST and first(most + 1) >= _FULL_ROUND:
        most += 1
    return most


def _coarseness(shape: Sequence[int]) -> int:
    height, width, channels = shape
    blocks = Circumstances(shape=(height, width, channels), classes=2).blocks
    return blocks[0] if blocks else 1


def _workloads(shop: Workshop, ground: Ground, questions: Questions, recipes: Sequence[Recipe]) -> dict[str, Workload]:
    """Return what learning each candidate takes, in images gone through; a shared proxy counts once."""
    found: dict[str, Workload] = {}
    seen: set[tuple[Any, ...]] = set()
    pool = len(questions.plain) + (0 if questions.also is None else len(questions.also))
    members = int(ground.roster.pool.subgroup.sum())
    asked = pool + sum(map(len, questions.rounds))
    everybody = len(ground.roster.pool) + (0 if ground.roster.unasked is None else len(ground.roster.unasked))
    levels = (len(shop.settings.epsilons) + 1) // 2
    for recipe in recipes:
        settings = recipe.applied(shop.settings)
        shape = shop.info.image_shape
        side = (shape[0] // settings.block, shape[1] // settings.block)
        start = choose_start(settings, shop.folder, side=side[0])
        # Models that cannot be made here are refused now.
        Learner(settings, classes=len(shop.info.classes), image_shape=shape, reporter=silent, attack=shop.attack,
                start=start)  # fmt: skip
        warm = everybody * settings.true_classes + (0 if ground.public is None else len(ground.public))
        images = settings.public_epochs * warm
        if recipe.asks:
            images += settings.epochs * (asked + (asked if warm else 0)) * (1 + len(questions.rounds))
        part = proxy_part(settings, asks=recipe.asks)
        if part in seen:
            images = 0
        seen.add(part)
        views = 0 if ground.views is None else len(ground.views)
        steps = settings.steps * min(settings.perturbing.batch_size, members + views) * levels
        found[recipe.name] = Workload(
            start=start, side=side, classes=len(shop.info.classes), training=images, descending=steps
        )
    return found

"""Candidates: recipes learned side by side, raced on the platform, and the one that goes on; all of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.asking import Known, Questions, TransferSet
from ttca.distilling import WARM_START, Distilled
from ttca.entering import made_of, racers
from ttca.kept import digest, load_json, save_json
from ttca.lessons import FOLDER, Ground, Lessons, copied, halved
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family, perturb
from ttca.private import private_folder
from ttca.progress import Reporter
from ttca.race_record import NOTHING, RACE_FILE, Entrant, Raced, Runners
from ttca.racing import ERROR, PROVED_LATER, RaceAnswers, RacePlan, RaceResult, hear, plan_race, run_race
from ttca.recipes import Recipe
from ttca.side_by_side import learning_threads
from ttca.values import OneLine
from ttca.workshop import Workshop

__all__ = ["Chosen", "choose"]


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

    def sets(self) -> dict[str, tuple[PerturbationSet, ...]]:
        """Return every candidate's δ at the race's ε, by its recipe: one, or one of each half; none without a race."""
        if self.raced is None:
            return {}
        name = f"perturbations/epsilon-{self.raced.epsilon:03d}.safetensors"
        folders = ("half-1", "half-2") if self.raced.halves else (".",)
        home = self.shop.folder / FOLDER
        return {
            e.name: tuple(PerturbationSet.load(home / e.name / folder / name) for folder in folders)
            for e in self.raced.entrants
        }

    @property
    def helps(self) -> bool:
        """Whether a δ is proposed."""
        return self.raced is None or self.raced.proposed

    def family(self, roster: Roster) -> Family:
        """Return δ for every ε of the settings: no change at all, where doing nothing won."""
        if self.raced is None:
            return perturb(self.shop, roster, self.known, self.questions, self.distilled)
        if self.raced.proposed:
            return self._won(roster)
        info, settings = self.shop.info, self.shop.settings
        still = np.zeros((len(info.classes), *info.image_shape), np.int8)
        sets = {e: PerturbationSet(still, e, info.classes, settings.subgroup, info.fingerprint)
                for e in settings.epsilons}  # fmt: skip
        return Family(sets, digest(NOTHING))

    def _won(self, roster: Roster) -> Family:
        """Return the winner's δ for every ε, each learned from nothing, as it raced."""
        settings = self.shop.settings

        def learned(epsilon: int, reporter: Reporter) -> Family:
            shop = replace(self.shop, reporter=reporter, tells=False)
            return perturb(shop, roster, self.known, self.questions, self.distilled, only=epsilon)

        tasks = [partial(learned, epsilon) for epsilon in sorted(settings.epsilons)]
        if settings.refine:
            # Each asks the platform.
            with learning_threads(settings.threads):
                parts = [task(self.shop.reporter) for task in tasks]
        else:
            parts = self.shop.side_by_side(tasks, what="learning δ")
        return Family({e: s for part in parts for e, s in part.sets.items()}, parts[0].inputs)


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
    race = _Race(Lessons(shop, ground, questions, transfer, runners.recipes, runners.length), runners)
    kept = race.kept()
    raced = race.run() if kept is None else kept
    winner = next(r for r in runners.recipes if r.name == raced.winner)
    if kept is None:
        race.adopt(winner, raced)
    final = race.final
    if raced.proposed or runners.as_proposed:
        with learning_threads(shop.settings.threads):
            distilled = final.distilled(winner, shop.reporter, home=shop)
    else:
        # Nobody needs it in full.
        (part, *_) = race.parts
        distilled = replace(part.distilled(winner, shop.reporter), transfer=race.lessons.asked)
    settings = replace(final.settings_of(winner), refine=shop.settings.refine)
    shop.reporter.say(raced.told)
    asked = replace(final.questions_of(winner), saved=questions.saved)
    return Chosen(replace(shop, settings=settings), final.known_by(winner), asked, distilled, raced)


@dataclass(frozen=True, eq=False, repr=False)
class _Race(OneLine):
    """One race in an action's folder."""

    lessons: Lessons
    runners: Runners

    @property
    def shop(self) -> Workshop:
        """The action's own workshop."""
        return self.lessons.shop

    @cached_property
    def final(self) -> Lessons:
        """What the winner learns from in the end: everybody, and for as long as its recipe says."""
        return self.lessons if self.runners.length == 1 else replace(self.lessons, length=1.0)

    @cached_property
    def parts(self) -> tuple[Lessons, ...]:
        """What candidates learn from for the race: everybody, or twice without a half."""
        return halved(self.lessons) if self.runners.halves else (self.lessons,)

    @cached_property
    def epsilon(self) -> int:
        """The family's middle ε."""
        family = sorted(self.shop.settings.epsilons)
        return family[(len(family) - 1) // 2]

    @cached_property
    def racers(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Who chooses and who is kept for the test, each in the order of the race."""
        return racers(self.lessons.questions, self.shop.settings, halves=self.runners.halves)

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Whom the race can ask about, in its order."""
        choosers, testers = self.racers
        return np.concatenate([choosers[: sum(self.plan.rounds)], testers]) if self.runners.halves else choosers

    @cached_property
    def people(self) -> People:
        """The same, and their images."""
        questions = self.lessons.questions
        known = People.concatenate([questions.selection, questions.plain[questions.plain.subgroup]])
        return known[self.rows]

    @cached_property
    def strangers_to(self) -> NDArray[np.int64]:
        """Which part did not learn from each of these people, int64 (N,); selection people take turns."""
        if not self.runners.halves:
            return np.zeros(len(self.people), np.int64)
        first = self.parts[0].ground.roster.pool.persons
        pool = np.isin(self.people.persons, self.lessons.ground.roster.pool.persons)
        turns = np.arange(len(self.people)) % 2
        return np.where(pool, np.isin(self.people.persons, first).astype(np.int64), turns)

    @cached_property
    def plan(self) -> RacePlan:
        """How the race goes."""
        choosers, testers = self.racers
        return plan_race(
            candidates=len(self.runners.recipes),
            persons=len(choosers),
            queries=self.lessons.questions.race,
            apart=len(testers) if self.runners.halves else None,
            error=self.error,
        )

    @property
    def error(self) -> float:
        """How often a candidate may pass that is no better than nothing: seldom, or as the certificate looks again."""
        looks_again = self.shop.settings.certifying.aim.kind == "improvement" and not self.runners.earlier
        return PROVED_LATER if looks_again else ERROR

    @cached_property
    def made_of(self) -> str:
        """A digest of the settings that decided who races."""
        return made_of(self.shop.settings, earlier=self.runners.earlier)

    @cached_property
    def inputs(self) -> str:
        """A digest of all that decides the race."""
        facts = [r.to_dict() for r in self.runners.recipes]
        s, r = self.shop.settings, self.runners
        more = () if r.earlier else (r.length, r.halves, *([] if self.error == ERROR else [self.error]))
        return digest("race", self.lessons.transfer.digest, facts, self.made_of, s.seed, sorted(s.epsilons), *more)

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
        record = {"made_of": self.made_of, "inputs": self.inputs, "field": self.runners.to_dict()}
        save_json(self.shop.folder / RACE_FILE, {**record, "result": result})

    def run(self) -> Raced:
        """Learn every candidate and ask the platform about them."""
        # First: a race for which there are too few people or queries is refused before hours of learning.
        plan = self.plan
        self.keep(None)
        sets, seconds = self.learned()
        recipes, people = self.runners.recipes, self.people

        def ask(candidate: int, start: int, stop: int) -> RaceAnswers:
            part, whose = people[start:stop], self.strangers_to[start:stop]
            images = np.empty_like(part.images)
            for number, learned in enumerate(sets[recipes[candidate].name]):
                rows = whose == number
                images[rows] = learned.apply(part.images[rows], part.classes[rows])
            said = self.shop.queries.ask(images, purpose="pool-race", owners=part.members.tolist())
            return hear(said, part.classes)

        result = run_race(plan, self.nothing(), ask)
        return self.record(result, seconds)

    def nothing(self) -> RaceAnswers:
        """Return what was said of these people as they are: it was paid for in the pool."""
        transfer = self.lessons.transfer
        parts = [transfer.selection_answers, transfer.answers[transfer.pool.subgroup]]
        answers = Answers.concatenate(parts, classes=transfer.answers.classes)
        return hear(answers[self.rows], self.people.classes, unresolved_right=True)

    def learned(self) -> tuple[dict[str, tuple[PerturbationSet, ...]], dict[str, float]]:
        """Return each candidate's δ at the race's ε, one for each part, and what learning it took."""
        shop, parts = self.shop, self.parts
        # In this thread: what they share is asked and made once.
        self.lessons.prepare()
        for part in parts:
            part.prepare()
        expected = self.runners.seconds

        def longest_first(recipe: Recipe) -> float:
            return -expected.get(recipe.name, 0.0)

        begin = [(part, recipe) for part in parts for recipe in part.warm_starts().values()]
        begin.sort(key=lambda pair: longest_first(pair[1]))
        shop.side_by_side([partial(part.warm, recipe) for part, recipe in begin], what="learning true classes")
        groups = [(part, group) for part in parts for group in part.groups]
        groups.sort(key=lambda pair: sum(map(longest_first, pair[1])))
        tasks = [partial(part.learn, group, self.epsilon) for part, group in groups]
        made = shop.side_by_side(tasks, what="learning the recipes")
        seconds = {r.name: 0.0 for r in self.runners.recipes}
        sets: dict[str, dict[int, PerturbationSet]] = {r.name: {} for r in self.runners.recipes}
        for (part, _), found in zip(groups, made, strict=True):
            for name, (learned, took) in found.items():
                sets[name][part.half] = learned
                seconds[name] += took
        return {name: tuple(each[half] for half in sorted(each)) for name, each in sets.items()}, seconds

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
            persons=sum(map(len, self.racers)),
            no_time=self.runners.no_time,
            no_queries=self.runners.no_queries,
            length=self.runners.length,
            halves=self.runners.halves,
        )

    def adopt(self, winner: Recipe, raced: Raced) -> None:
        """Copy what the winner learned to where an action without a race has it, and then write the record.

        What was learned for the race alone, from a half or for a shorter time, stays where it is.
        """
        home = self.shop.folder
        if self.runners.as_proposed:
            proxy = self.lessons.folder_of(self.lessons.owner(winner))
            for name in ("proxy.safetensors", WARM_START):
                copied(proxy / name, home / name)
            if raced.proposed:
                for path in sorted((self.lessons.folder_of(winner) / "perturbations").glob("*.safetensors")):
                    copied(path, private_folder(home / "perturbations") / path.name)
        self.keep(raced)

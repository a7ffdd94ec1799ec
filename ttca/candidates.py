"""Candidates: recipes learned side by side, raced on the platform, and the one that goes on; all of it is kept."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.asking import Known, Questions, TransferSet
from ttca.distilling import WARM_START, Distilled, Fidelity
from ttca.entering import made_of, racers, terms_of
from ttca.kept import digest, load_json, save_json
from ttca.lessons import FOLDER, Ground, Learned, Lessons, copied, halved
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.perturbing import Family, combine, perturb
from ttca.private import private_folder
from ttca.progress import Reporter
from ttca.race_record import NOTHING, RACE_FILE, Entrant, Raced, Runners, Spared, Switched
from ttca.racing import (
    ERROR,
    PROVED_LATER,
    STRICTER,
    RaceAnswers,
    RacePlan,
    RaceResult,
    choosers,
    count_asked,
    hear,
    most_faithful,
    plan_race,
    run_race,
)
from ttca.recipes import Recipe
from ttca.side_by_side import Piece, learning_threads
from ttca.sitting import check_unopened
from ttca.values import OneLine
from ttca.workshop import Workshop

__all__ = ["PARTS", "Chosen", "Part", "choose", "foresight"]

#: Where two recipes that serve together are learned, in an action's folder.
PARTS = "parts"
_PROXY = "proxy.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Part(OneLine):
    """A recipe that serves some classes beside the winner, and what was learned with it.

    Parameters
    ----------
    name : str
    shop : Workshop
        In a folder of its own.
    known : Known
    questions : Questions
    distilled : Distilled
    """

    name: str
    shop: Workshop
    known: Known
    questions: Questions
    distilled: Distilled


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
    beside : Part or None
        The runner-up of the race, where it serves some classes.
    """

    shop: Workshop
    known: Known
    questions: Questions
    distilled: Distilled
    raced: Raced | None = None
    beside: Part | None = None

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
    def served(self) -> list[int]:
        """The classes that the runner-up serves."""
        return [] if self.raced is None else [self.shop.info.classes.index(s.name) for s in self.raced.switched]

    @property
    def spared(self) -> list[int]:
        """The classes that δ leaves alone."""
        return [] if self.raced is None else [self.shop.info.classes.index(s.name) for s in self.raced.spared]

    @property
    def helps(self) -> bool:
        """Whether a δ is proposed."""
        return self.raced is None or self.raced.proposed

    def family(self, roster: Roster) -> Family:
        """Return δ for every ε of the settings: no change at all, where doing nothing won."""
        if self.raced is None:
            return perturb(self.shop, roster, self.known, self.questions, self.distilled)
        if self.raced.proposed:
            return self._won(self.raced, roster)
        info, settings = self.shop.info, self.shop.settings
        still = np.zeros((len(info.classes), *info.image_shape), np.int8)
        sets = {e: PerturbationSet(still, e, info.classes, settings.subgroup, info.fingerprint)
                for e in settings.epsilons}  # fmt: skip
        return Family(sets, digest(NOTHING))

    def _won(self, raced: Raced, roster: Roster) -> Family:
        """Return the winner's δ for every ε, or what is put together, each part learned from nothing, as it raced."""
        shop, settings = self.shop, self.shop.settings
        if not raced.in_parts:
            return self._learned(roster, [Part(raced.winner, shop, self.known, self.questions, self.distilled)])[0]
        # Refined is what they make together.
        own = replace(_part(shop, raced.winner), settings=replace(settings, refine=0.0))
        parts = [Part(raced.winner, own, self.known, replace(self.questions, saved=0), self.distilled)]
        parts += [] if self.beside is None else [self.beside]
        families = {part.name: family for part, family in zip(parts, self._learned(roster, parts), strict=True)}
        serves = raced.serves(shop.info.classes)
        return combine(shop, roster, self.questions, self.distilled, families, serves)

    def _learned(self, roster: Roster, parts: Sequence[Part]) -> list[Family]:
        """Return the family of each part."""

        def learned(part: Part, epsilon: int, reporter: Reporter) -> Family:
            shop = replace(part.shop, reporter=reporter, tells=False)
            return perturb(shop, roster, part.known, part.questions, part.distilled, only=epsilon)

        epsilons = sorted(self.shop.settings.epsilons)
        tasks = [partial(learned, part, epsilon) for part in parts for epsilon in epsilons]
        if any(part.shop.settings.refine for part in parts):
            # Each asks the platform.
            with learning_threads(self.shop.settings.threads):
                made = [task(self.shop.reporter) for task in tasks]
        else:
            made = self.shop.side_by_side(tasks, what="learning δ")
        own = [made[start : start + len(epsilons)] for start in range(0, len(made), len(epsilons))]
        return [Family({e: s for one in each for e, s in one.sets.items()}, each[0].inputs) for each in own]


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
    if kept is None:
        check_unopened(shop.folder, shop.settings)
    raced = race.run() if kept is None else kept
    by_name = {recipe.name: recipe for recipe in runners.recipes}
    winner = by_name[raced.winner]
    if kept is None:
        race.adopt(raced)
    final = race.final(winner)
    if raced.proposed or race.is_whole(winner):
        with learning_threads(shop.settings.threads):
            distilled = final.distilled(winner, shop.reporter, home=shop)
    else:
        # Nobody needs what all would teach it.
        (part, *_) = race.parts
        distilled = replace(part.distilled(winner, shop.reporter), transfer=race.lessons.asked)
    settings = replace(final.settings_of(winner), refine=shop.settings.refine)
    if raced.proposed:
        # Whoever asks for what nothing was proposed for is answered with it.
        shop.reporter.say(raced.told)
    asked = replace(final.questions_of(winner), saved=questions.saved)
    second = by_name[raced.runner_up] if len(raced.going_on) > 1 else None
    beside = None if second is None else _beside(race.final(second), winner, second)
    return Chosen(replace(shop, settings=settings), final.known_by(winner), asked, distilled, raced, beside)


def foresight(learned: Mapping[str, Sequence[Fidelity]], equalizing: Collection[str]) -> dict[str, float]:
    """Return how well candidates' proxies foretell the platform, so that it can be compared; NaN where nobody knows.

    That is the fidelity's mean over both groups. But the platform was asked about selection people as they are, and a
    candidate that equalizes sees the subgroup sharper. Its proxy is judged by the reference, whom all see alike, less
    what the other candidates lose on average from the reference to both groups [ours].

    Parameters
    ----------
    learned : dict of str to sequence of Fidelity
        Of each candidate, once for each half that it learned without.
    equalizing : collection of str
        The candidates that equalize.
    """
    both = {name: float(np.mean([one.mean for one in each])) for name, each in learned.items()}
    reference = {name: float(np.mean([one.reference for one in each])) for name, each in learned.items()}
    lost = [reference[name] - both[name] for name in learned if name not in equalizing]
    known = [one for one in lost if not np.isnan(one)]
    alike = {name: reference[name] - float(np.mean(known)) for name in equalizing} if known else {}
    return both | {name: one for name, one in alike.items() if not np.isnan(one)}


def _turn(plan: RacePlan, start: int) -> str:
    """Return which part of a race asks the persons from this place of its order on."""
    turn = 1 + sum(start >= end for end in itertools.accumulate(plan.rounds))
    return "the test" if turn > len(plan.rounds) else f"round {turn} of {len(plan.rounds)}"


def _beside(final: Lessons, winner: Recipe, recipe: Recipe) -> Part:
    """Learn the proxy of the recipe that serves beside the winner, or read it back."""
    home = _part(final.shop, recipe.name)
    if final.owner(recipe) == final.owner(winner):
        # They differ in how δ is learned.
        for name in (_PROXY, WARM_START):
            if not (home.folder / name).is_file():
                copied(final.shop.folder / name, home.folder / name)
    with learning_threads(final.shop.settings.threads):
        distilled = final.distilled(recipe, final.shop.reporter, home=home)
    own = replace(home, settings=final.settings_of(recipe), tells=False)
    return Part(recipe.name, own, final.known_by(recipe), final.questions_of(recipe), distilled)


def _part(shop: Workshop, name: str) -> Workshop:
    """Return a workshop whose folder is that of one of two recipes."""
    private_folder(shop.folder / PARTS)
    return replace(shop, folder=private_folder(shop.folder / PARTS / name))


@dataclass(frozen=True, eq=False, repr=False)
class _Race(OneLine):
    """One race in an action's folder."""

    lessons: Lessons
    runners: Runners

    @property
    def shop(self) -> Workshop:
        """The action's own workshop."""
        return self.lessons.shop

    def final(self, recipe: Recipe) -> Lessons:
        """Return what a candidate learns from if it goes on: everybody, and for as long as a winner is to."""
        if self.as_raced(recipe):
            return self.lessons
        length = self.runners.length_of(recipe)
        if length not in self._finals:
            self._finals[length] = replace(self.lessons, length=length, longer=not self.runners.halves)
        return self._finals[length]

    @cached_property
    def _finals(self) -> dict[float, Lessons]:
        """Those lessons by their length: what they know of everybody's images is made once."""
        return {}

    def as_raced(self, recipe: Recipe) -> bool:
        """Whether a candidate goes on as it raced: learned from everybody, and for as long as a winner is to."""
        runners = self.runners
        if runners.halves:
            return False
        # Where the test is on those who chose, it is of what raced.
        untested = runners.unasked_length is not None and not self.plan.test
        return untested or runners.length == runners.length_of(recipe)

    def is_whole(self, recipe: Recipe) -> bool:
        """Whether a candidate has learned all that it goes on with."""
        if self.as_raced(recipe):
            return True
        # One that asks nothing has no other proxy than its first.
        final = self.final(recipe)
        home = final.folder_of(final.owner(recipe))
        return any((home / name).is_file() for name in (_PROXY, WARM_START))

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
        """Whom the race can ask about, in its order: who chooses, then who is tested."""
        able, testers = self.racers
        if not self.runners.halves:
            able, testers = np.split(able, [len(able) - self.plan.test])
        return np.concatenate([able[choosers(self.plan, self.unaltered(able).value)], testers])

    @cached_property
    def known(self) -> People:
        """Whose answers were paid for in the pool: selection people and, behind them, the pool's of the subgroup."""
        questions = self.lessons.questions
        return People.concatenate([questions.selection, questions.plain[questions.plain.subgroup]])

    @cached_property
    def people(self) -> People:
        """Whom the race can ask about, with their images."""
        return self.known[self.rows]

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
        able, testers = self.racers
        return plan_race(
            candidates=count_asked(self.stays),
            persons=len(able),
            queries=self.lessons.questions.race,
            apart=len(testers) if self.runners.halves else None,
            error=self.error,
        )

    @property
    def error(self) -> float:
        """How often a candidate may pass that is no better than nothing: seldom, or as the certificate looks again.

        Whoever proves improvement or parity proves that. Where the pool's answers are no worse about the subgroup, the
        certificate would most likely ask its people in vain.
        """
        proves = self.shop.settings.certifying.aim.kind in ("improvement", "parity")
        looks_again = proves and self.has_gap
        return PROVED_LATER if looks_again and not self.runners.earlier else ERROR

    @cached_property
    def made_of(self) -> str:
        """A digest of the settings that decided who races."""
        return made_of(self.shop.settings, earlier=self.runners.earlier)

    def inputs(self, *, combine: bool, error: float) -> str:
        """Return a digest of all that decides the race, with combining or without."""
        facts = [r.to_dict() for r in self.runners.recipes]
        s, r = self.shop.settings, self.runners
        more: list[Any] = [] if r.earlier else [r.length, r.halves, *([] if error == ERROR else [error])]
        more += ["combine"] if combine else []
        return digest("race", self.lessons.transfer.digest, facts, self.made_of, s.seed, sorted(s.epsilons), *more)

    def kept(self) -> Raced | None:
        """Return the record of this very race, where it was run."""
        path = self.shop.folder / RACE_FILE
        if not path.is_file():
            return None
        found = load_json(path)
        result, written = found.get("result"), found.get("inputs")
        if result is None:
            return None
        # What was decided before anything was combined, or at a stricter level, stays as it was.
        combines = [self.shop.settings.combine, *([] if "switched" in result else [False])]
        errors = [self.error, *(error for error in STRICTER if error < self.error)]
        same = written in [self.inputs(combine=c, error=e) for c in combines for e in errors]
        return Raced.from_dict(result) if same else None

    def keep(self, raced: Raced | None) -> None:
        """Write the record: before the first candidate is learned who races, in the end what came of it."""
        result = None if raced is None else raced.to_dict()
        inputs = self.inputs(combine=self.shop.settings.combine, error=self.error)
        terms = terms_of(self.shop.settings, earlier=self.runners.earlier)
        record = {"made_of": self.made_of, "terms": terms, "inputs": inputs, "field": self.runners.to_dict()}
        save_json(self.shop.folder / RACE_FILE, {**record, "result": result})

    def run(self) -> Raced:
        """Learn every candidate and ask the platform about them."""
        # First: a race for which there are too few people or queries is refused before hours of learning.
        plan = self.plan
        self.keep(None)
        learned = self.learned()
        recipes, people = self.asked_about(learned), self.people

        def deltas(recipe: Recipe, start: int) -> tuple[PerturbationSet, ...]:
            """Return a candidate's δ, one for each half; in the test of others, the one that goes on."""
            if self.as_raced(recipe) or start < sum(plan.rounds):
                return tuple(one.delta for one in learned[recipe.name])
            with learning_threads(self.shop.settings.threads):
                whole = self.final(recipe).learn((recipe,), self.epsilon, self.shop.reporter)
            return (whole[recipe.name].delta,) * len(learned[recipe.name])

        def ask(who: NDArray[np.intp], start: int) -> RaceAnswers:
            stop = start + len(who)
            part, whose = people[start:stop], self.strangers_to[start:stop]
            images = np.empty_like(part.images)
            for candidate in np.unique(who):
                for number, delta in enumerate(deltas(recipes[candidate], start)):
                    rows = (whose == number) & (who == candidate)
                    images[rows] = delta.apply(part.images[rows], part.classes[rows])
            names = " and ".join(recipes[candidate].name for candidate in np.unique(who))
            shown = f"race, {_turn(plan, start)}: {names}"
            said = self.shop.queries.ask(images, purpose="pool-race", owners=part.members.tolist(), shown=shown)
            return hear(said, part.classes)

        classes = people.classes if self.shop.settings.combine else None
        foretold = self.foretold(learned)
        fidelity = [foretold[recipe.name] for recipe in recipes]
        result = run_race(plan, self.unaltered(self.rows), ask, fidelity=fidelity, classes=classes)
        return self.record(result, recipes, learned)

    def asked_about(self, learned: Mapping[str, Sequence[Learned]]) -> tuple[Recipe, ...]:
        """Return the candidates that the platform is asked about; one that asks nothing itself always is."""
        recipes, foretold = self.runners.recipes, self.foretold(learned)
        fidelity = [foretold[recipe.name] for recipe in recipes]
        return tuple(recipes[c] for c in most_faithful(fidelity, self.stays))

    def foretold(self, learned: Mapping[str, Sequence[Learned]]) -> dict[str, float]:
        """Return how well each candidate's proxy foretells the platform."""
        equalizing = {r.name for r in self.runners.recipes if self.lessons.settings_of(r).equalize}
        return foresight({name: [one.fidelity for one in each] for name, each in learned.items()}, equalizing)

    @property
    def stays(self) -> list[bool]:
        """Of each candidate whether it asks nothing itself: then it is in every race."""
        return [not recipe.asks for recipe in self.runners.recipes]

    def unaltered(self, rows: NDArray[np.intp]) -> RaceAnswers:
        """Return what was said of these people as they are: it was paid for in the pool."""
        transfer = self.lessons.transfer
        parts = [transfer.selection_answers, transfer.answers[transfer.pool.subgroup]]
        answers = Answers.concatenate(parts, classes=transfer.answers.classes)
        return hear(answers[rows], self.known.classes[rows], unresolved_right=True)

    @property
    def has_gap(self) -> bool:
        """Whether the answers so far were right less often about the subgroup, as it is, than about the others."""
        groups = self.lessons.transfer.served()
        # Where nobody of a group was asked, its rate is NaN, and no comparison with that holds.
        return groups["subgroup"].rate < groups["reference"].rate

    def learned(self) -> dict[str, tuple[Learned, ...]]:
        """Return what each candidate learned at the race's ε, once for each part."""
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
        once = len(parts) == 1
        pieces = [
            Piece(
                f"{', '.join(r.name for r in group)}{'' if once else f', half {part.half}'}",
                count=len(group),
                seconds=sum(expected.get(r.name, 0.0) for r in group),
            )
            for part, group in groups
        ]
        made = shop.side_by_side(
            tasks, what="learning the recipes", pieces=pieces, unit="recipes" if once else "lessons"
        )
        found: dict[str, dict[int, Learned]] = {r.name: {} for r in self.runners.recipes}
        for (part, _), each in zip(groups, made, strict=True):
            for name, one in each.items():
                found[name][part.half] = one
        return {name: tuple(each[half] for half in sorted(each)) for name, each in found.items()}

    def record(self, result: RaceResult, recipes: Sequence[Recipe], learned: Mapping[str, Sequence[Learned]]) -> Raced:
        """Return what came of it under the candidates' names; ``recipes``: those that it was asked about."""
        foretold = self.foretold(learned)
        ranks = {recipe.name: rank for recipe, rank in zip(recipes, result.ranks, strict=True)}

        def entrant(recipe: Recipe) -> Entrant:
            rank, fidelity = ranks.get(recipe.name), foretold[recipe.name]
            said = rank if rank is not None and rank.persons else None
            return Entrant(
                name=recipe.name,
                about=recipe.told(self.shop.settings),
                persons=0 if said is None else said.persons,
                mean=None if said is None else said.mean,
                difference=None if said is None else said.difference,
                out=0 if rank is None else rank.out,
                seconds=round(sum(one.seconds for one in learned[recipe.name]), 3),
                fidelity=None if np.isnan(fidelity) else round(fidelity, 4),
                asks=recipe.asks,
            )

        names = self.shop.info.classes
        return Raced(
            epsilon=self.epsilon,
            entrants=tuple(map(entrant, self.runners.recipes)),
            winner=recipes[result.winner].name,
            proposed=result.proposed,
            won=result.won,
            lost=result.lost,
            tested=result.tested,
            p=result.p,
            level=result.level,
            error=self.error,
            rise=result.rise,
            fresh=result.fresh,
            queries=result.queries,
            persons=sum(map(len, self.racers)),
            no_time=self.runners.no_time,
            no_queries=self.runners.no_queries,
            length=self.runners.length,
            halves=self.runners.halves,
            final_length=self.final(recipes[result.winner]).length,
            runner_up="" if result.runner_up is None else recipes[result.runner_up].name,
            switched=tuple(
                Switched(name=names[s.label], persons=s.persons, difference=s.difference, expected=s.expected)
                for s in result.switches
            ),
            spared=tuple(
                Spared(name=names[s.label], persons=s.persons, difference=s.difference, p=s.p) for s in result.spared
            ),
        )

    def adopt(self, raced: Raced) -> None:
        """Copy what the winner learned to where an action without a race has it, and then write the record.

        What serves some classes alone has folders of its own. What was learned for the race alone, from a half, stays
        where it is.
        """
        home, going_on = self.shop.folder, raced.going_on
        for recipe in self.runners.recipes:
            if recipe.name not in (raced.winner, *going_on) or not self.is_whole(recipe):
                continue
            own, final = _part(self.shop, recipe.name).folder if raced.in_parts else home, self.final(recipe)
            proxy = final.folder_of(final.owner(recipe))
            for name in (_PROXY, WARM_START):
                copied(proxy / name, (home if recipe.name == raced.winner else own) / name)
            if raced.proposed:
                for path in sorted((final.folder_of(recipe) / "perturbations").glob("*.safetensors")):
                    copied(path, private_folder(own / "perturbations") / path.name)
        self.keep(raced)

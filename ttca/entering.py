"""Entering: which recipes race, for how long each is learned, and how long that takes, before anything is asked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttca.asking import Questions
from ttca.drawing import one_each
from ttca.errors import ActionError, ConfigError
from ttca.images import ImageShape
from ttca.kept import digest, load_json
from ttca.learning import Learner
from ttca.lessons import Ground
from ttca.people import People
from ttca.progress import silent
from ttca.proxies.backbones import Backbone
from ttca.race_record import RACE_FILE, Raced, Runners
from ttca.racing import plan_race
from ttca.recipes import NAMES, WARM_KEYS, Circumstances, Recipe, portfolio, proxy_part
from ttca.settings import Settings
from ttca.side_by_side import at_once
from ttca.speeds import Speeds, Workload
from ttca.weights import choose_start, listed, suitable_backbones
from ttca.workshop import Workshop

__all__ = ["backbones_of", "check_left_out", "check_race", "enter", "made_of", "race_result", "racers", "terms_of"]

#: At least so many candidates race where time and queries allow it.
_FEWEST = 8
#: Persons of the first round, at least: of a race of eight, and of a larger one.
_FIRST_ROUND, _FULL_ROUND = 3, 8
#: With fewer subgroup persons in selection, the pool's race, under δ that was not learned from their half.
_MANY = 100
#: For how long candidates are learned, as multiples of what recipes say: the longest in which the first ones fit. Near
#: each other, since the machine's speed at one moment decides.
_LENGTHS = (1.0, 0.7, 0.5, 0.35, 0.25)
#: What race_share and most_minutes were where an earlier version's action did not set them.
_EARLIER: dict[str, Any] = {"race_share": 0.2, "most_minutes": 60}


def enter(shop: Workshop, ground: Ground, questions: Questions) -> Runners:
    """Return who races: as it was decided when the race began, else by what is here now.

    Raises
    ------
    ActionError
        If an earlier version decided it, under defaults that are others now.
    ConfigError, MissingExtraError
        If a candidate cannot be learned here. Nothing was asked.
    """
    kept = _kept(shop)
    if kept is not None:
        return kept
    settings, shape = shop.settings, shop.info.image_shape
    check_left_out(settings.left_out, shape)
    backbones = []
    if settings.weights != ("none",):
        side = shape[0] // (settings.block if "block" in settings.set_by_hand else _coarseness(shape))
        named = choose_start(settings, shop.folder, side=side).backbones if settings.weights else ()
        backbones = [b for b in named or suitable_backbones(side) if b.name not in settings.left_out]
    found = Circumstances(
        shape=shape,
        classes=len(shop.info.classes),
        both_groups=not bool(np.all(ground.roster.pool.subgroup)),
        public=isinstance(ground.public, People),
        backbones=tuple(backbones),
    )
    recipes = portfolio(found, settings)
    halves = _few(questions, settings)
    most = _most(questions.race, len(racers(questions, settings, halves=halves)[0]))
    efforts = _Efforts(shop, ground, questions, halves, Speeds(settings.threads, shop.folder))
    together = at_once(len(recipes), settings.threads, alone=shop.has_guest)
    for length in _LENGTHS:
        seconds = efforts.of_race(recipes, length)
        fits, no_time, no_queries = _fitting(recipes, seconds, most, 60 * settings.most_minutes * together)
        # A good recipe learned for half as long is worth more in a race than a lesser one in its place.
        if not set(no_time) & {recipe.name for recipe in recipes[: min(_FEWEST, most)]}:
            break
    # What raced goes on as it is: learned for longer, the same answers may be worth less. After halves one recipe is
    # learned again, from everybody, and there is time for all of it.
    final = 1.0 if halves else length
    longer = efforts.longest(fits, length)
    winners = [(recipe, final if recipe.asks or halves else longer) for recipe in fits]
    after = max(efforts.of_winner(recipe, last, again=last > length) for recipe, last in winners)
    return Runners(
        tuple(fits), {r.name: round(seconds[r.name], 1) for r in fits}, tuple(no_time), tuple(no_queries),
        length=length, final_length=final, halves=halves, at_once=min(together, len(fits)), after=round(after, 1),
        unasked_length=longer,
    )  # fmt: skip


def check_race(questions: Questions, settings: Settings) -> None:
    """Raise where not even one candidate could be raced, before the pool is paid for in vain."""
    halves = _few(questions, settings)
    able, testers = racers(questions, settings, halves=halves)
    try:
        plan_race(candidates=1, persons=len(able), queries=questions.race, apart=len(testers) if halves else None)
    except ActionError as error:
        raise ActionError(f"{error} No query was spent.") from None


def check_left_out(names: Sequence[str], shape: ImageShape) -> None:
    """Raise ConfigError where a name is neither a recipe's nor that of weights that are here: it changes nothing."""
    # The first side of blocks is what every recipe has.
    sides = [f"block-{side}" for side in Circumstances(shape=shape, classes=2).blocks[1:]]
    recipes = [name for each in NAMES for name in (sides if each == "block-N" else [each])]
    if not (others := [name for name in names if name not in recipes]):
        return
    here = {backbone.name for backbone, _ in listed()}
    if unknown := [name for name in others if name not in here]:
        near = difflib.get_close_matches(unknown[0], [*recipes, *sorted(here)], n=1)
        height, width, _ = shape
        raise ConfigError(
            f"{f'Did you mean {near[0]!r}? ' if near else ''}Expected in left_out recipes, or published weights "
            f"that are here, got {', '.join(map(repr, unknown))}. For images of {height}×{width} pixels there are "
            f"{', '.join(recipes)}. The weights: ttca weights list. No query was spent."
        )


def racers(questions: Questions, settings: Settings, *, halves: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return whom a race can ask about, in its random order: one image of each person of the subgroup.

    They are rows of the selection people and, behind them, of the pool's who were asked about their image as it is.

    Returns
    -------
    choosers, testers : intp arrays
        Who chooses among the candidates, and who is tested. Where halves race, the pool's choose. Two δ, each
        learned from those who judge the other, err together, so the test is on people whom nobody learned from [ours].
        Elsewhere selection people do both, and the plan of the race says who what.
    """
    selection, pool = questions.selection, questions.plain[questions.plain.subgroup]

    def drawn(people: People) -> NDArray[np.intp]:
        everybody = np.arange(len(people), dtype=np.intp)
        return one_each(people, people.persons, everybody, seed=settings.seed, purpose="race")

    if halves:
        return len(selection) + drawn(pool), drawn(selection)
    return drawn(selection), np.zeros(0, np.intp)


def backbones_of(shop: Workshop, runners: Runners) -> tuple[Backbone, ...]:
    """Return the published weights that any candidate begins with."""
    found: dict[str, Backbone] = {}
    for recipe in runners.recipes:
        settings = recipe.applied(shop.settings)
        start = choose_start(settings, shop.folder, side=shop.info.image_shape[0] // settings.block)
        found |= {b.digest: b for b in start.backbones}
    return tuple(found.values())


def made_of(settings: Settings, *, earlier: bool = False) -> str:
    """Return a digest of the settings that decide who races, as this version makes it or as an ``earlier`` one."""
    s = settings
    new = {"precision"} if earlier else set()
    by_hand = {k: getattr(s, k) for k in sorted(s.set_by_hand - new)}
    return digest("field", by_hand, sorted(s.left_out), s.race_share, s.most_minutes, s.rounds, s.altered)


def terms_of(settings: Settings, *, earlier: bool = False, strict: bool = False) -> str:
    """Return a digest of all settings that a race's result depends on; of a ``strict`` one, whatever is proved later.

    Earlier versions were strict where parity is proved.
    """
    s = settings
    again = not strict and s.certifying.aim.kind in ("improvement", "parity")
    return digest("race", made_of(s, earlier=earlier), s.seed, sorted(s.epsilons), s.combine, again)


def race_result(folder: Path, settings: Settings) -> Raced | None:
    """Return what came of the race of these settings, None where nothing races, it is not over, or was another's.

    A record stays where it lies when the settings are changed, so that the way back costs nothing.
    """
    path = folder / RACE_FILE
    if not (settings.races and path.is_file()):
        return None
    kept = load_json(path)
    earlier, result = Runners.from_dict(kept["field"]).earlier, kept.get("result")
    # Earlier versions wrote down no more than who decided who races.
    name, terms = ("terms", terms_of) if "terms" in kept else ("made_of", made_of)
    same = kept.get(name) in (terms(settings, earlier=earlier), terms_of(settings, earlier=earlier, strict=True))
    return Raced.from_dict(result) if same and result is not None else None


def _kept(shop: Workshop) -> Runners | None:
    """Return who raced when the race began, None where it has not, or under other settings."""
    path = shop.folder / RACE_FILE
    if not path.is_file():
        return None
    kept = load_json(path)
    found = Runners.from_dict(kept["field"])
    if kept.get("made_of") == made_of(shop.settings, earlier=found.earlier):
        return found
    defaults = {f.name: f.default for f in fields(Settings) if f.name in _EARLIER}
    unset = {k: v for k, v in _EARLIER.items() if getattr(shop.settings, k) == defaults[k]}
    if found.earlier and kept.get("made_of") == made_of(replace(shop.settings, **unset), earlier=True):
        written = " and ".join(f"{key} = {value}" for key, value in unset.items())
        raise ActionError(
            f"Expected a race under this version's defaults in {path}, got one that an earlier version began under "
            f"its own. Write {written} in [action] to go on with it, or begin a new action in a new folder. No query "
            "was spent."
        )
    return None


def _few(questions: Questions, settings: Settings) -> bool:
    """Whether there are so few people in selection that half of the pool's race too.

    Not where their answers are about other images than they have, or altered copies were learned from them.
    """
    several = len(np.unique(questions.plain.persons[questions.plain.subgroup])) >= _FEWEST
    few = len(np.unique(questions.selection.persons)) < _MANY
    return few and several and not settings.rounds and not settings.equalize


def _fitting(
    recipes: Sequence[Recipe], seconds: Mapping[str, float], most: int, time: float
) -> tuple[list[Recipe], list[str], list[str]]:
    """Return who races, and who would have with more time, or with more queries."""
    fits, no_time, no_queries = list[Recipe](), list[str](), list[str]()
    spent = 0.0
    for place, recipe in enumerate(recipes):
        # Of those that ask nothing the first always runs.
        late = bool(fits) and spent + seconds[recipe.name] > time
        if len(fits) < most and not late:
            fits.append(recipe)
            spent += seconds[recipe.name]
        else:
            # With all the time there is the first ones race.
            (no_time if late and place < most else no_queries).append(recipe.name)
    return fits, no_time, no_queries


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


@dataclass(frozen=True)
class _Efforts:
    """How long learning takes, by an estimate."""

    shop: Workshop
    ground: Ground
    questions: Questions
    halves: bool
    speeds: Speeds

    def of_race(self, recipes: Sequence[Recipe], length: float) -> dict[str, float]:
        """Return seconds for each candidate of a race; what several share counts for whoever comes first."""
        seen: set[tuple[Any, ...]] = set()
        found: dict[str, float] = {}
        for recipe in recipes:
            settings = recipe.applied(self.shop.settings, length)
            warm, proxy = ("warm", *_warm_part(settings)), proxy_part(settings, asks=recipe.asks)
            work = [self._delta(settings)]
            work += [] if warm in seen else [self._warm(settings)]
            work += [] if proxy in seen or not recipe.asks else [self._answers(settings)]
            seen |= {warm, proxy}
            found[recipe.name] = (1 + self.halves) * sum(self.speeds.seconds(w) for w in work)
        return found

    def longest(self, recipes: Sequence[Recipe], length: float) -> float:
        """Return for how long a winner that asks nothing is learned, at least as long as it raced.

        On CIFAR-10 it gained by that (docs/effect.md), and the time is there: it needs no control of its own.
        """
        unasked = [recipe for recipe in recipes if not recipe.asks]
        for longer in _LENGTHS:
            seconds = [self.of_winner(recipe, longer, again=True) for recipe in unasked]
            if longer > length and max(seconds, default=0.0) < 60 * self.shop.settings.most_minutes:
                return longer
        return length

    def of_winner(self, recipe: Recipe, length: float, *, again: bool = False) -> float:
        """Return seconds that a winner takes after the race: δ at other ε, and controls; its proxy too where it is
        learned ``again``, for longer, and after halves.
        """
        whole, again = replace(self, halves=False), again or self.halves
        settings = recipe.applied(self.shop.settings, length)
        warm, delta = (self.speeds.seconds(w) for w in (whole._warm(settings), whole._delta(settings)))
        levels = len(settings.epsilons) - (not again)
        spent = delta * -(-levels // at_once(levels, settings.threads, alone=self.shop.has_guest)) if levels else 0.0
        if again:
            spent += warm + (self.speeds.seconds(whole._answers(settings)) if recipe.asks else 0.0)
        if settings.controls:
            lengths = settings.control_lengths if recipe.asks or settings.refine else (1.0,)
            together = at_once(len(lengths), settings.threads, alone=self.shop.has_guest)
            each = [warm * (multiple if multiple != 1 else 0) + delta for multiple in lengths]
            spent += max(sum(each) / together, max(each)) + delta
        return spent

    def _warm(self, settings: Settings) -> Workload:
        """Return the work of learning true classes."""
        roster, public = self.ground.roster, self.ground.public
        own = len(roster.pool) - self._gone(int(roster.pool.subgroup.sum()))
        own += 0 if roster.unasked is None else len(roster.unasked)
        images = own * settings.true_classes + (0 if public is None else len(public))
        return self._work(settings, training=settings.public_epochs * images)

    def _answers(self, settings: Settings) -> Workload:
        """Return the work of learning answers, true classes beside them."""
        questions = self.questions
        asked = [questions.plain, *questions.rounds, *([] if questions.also is None else [questions.also])]
        images = sum(len(people) - self._gone(int(people.subgroup.sum())) for people in asked)
        beside = images if settings.true_classes or self.ground.public is not None else 0
        looks = len(questions.selection) * settings.epochs
        turns = 1 + len(questions.rounds)
        return self._work(settings, training=settings.epochs * (images + beside) * turns, looking=looks * turns)

    def _delta(self, settings: Settings) -> Workload:
        """Return the work of learning δ at one ε."""
        pool, options = self.ground.roster.pool, settings.perturbing
        helped = float(pool.subgroup.sum())
        helped -= self._gone(int(helped))
        unasked = self.ground.roster.unasked
        helped += 0 if unasked is None else int(unasked.subgroup.sum())
        helped += 0 if self.ground.views is None else len(self.ground.views)
        looks = len(self.questions.selection) * (options.steps // options.check_every + 1)
        return self._work(settings, descending=options.steps * min(options.batch_size, helped), looking=looks)

    def _gone(self, members: int) -> float:
        return members / 2 if self.halves else 0

    def _work(self, settings: Settings, *, training: float = 0, descending: float = 0, looking: float = 0) -> Workload:
        shop, shape = self.shop, self.shop.info.image_shape
        side = (shape[0] // settings.block, shape[1] // settings.block)
        start = choose_start(settings, shop.folder, side=side[0])
        # Models that cannot be made here are refused now.
        Learner(settings, classes=len(shop.info.classes), image_shape=shape, reporter=silent, attack=shop.attack,
                start=start)  # fmt: skip
        return Workload(
            start=start, side=side, classes=len(shop.info.classes), precision=settings.precision,
            training=training, descending=descending, looking=looking,
        )  # fmt: skip


def _warm_part(settings: Settings) -> tuple[Any, ...]:
    """Return what of the settings decides a proxy that learned true classes alone."""
    return tuple(getattr(settings, key) for key in WARM_KEYS)

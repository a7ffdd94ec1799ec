"""Asking: who is asked about what, who is only learned from, and what the platform said of the pool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.blocks import seen
from ttca.drawing import drawn_order
from ttca.equaliser import Equalizer
from ttca.errors import ActionError
from ttca.gap import Served, served
from ttca.images import Images, ImageShape
from ttca.kept import Digest
from ttca.people import People, Roster
from ttca.pooling.pool import QueryPool, Watch
from ttca.renamed import old_arguments, old_names, old_parameters
from ttca.sanity import Overruling, Sanity
from ttca.settings import Settings
from ttca.values import Value

if TYPE_CHECKING:
    from ttca.labeling import Labeled

__all__ = [
    "Known",
    "Questions",
    "TransferSet",
    "ask_pool",
    "equalized",
    "only_equalized",
    "race_queries",
    "saved",
    "turn_of",
]

#: Share of the queries that a race gets, where nobody chose it; how many at least, and up to which share for that.
_RACE_SHARE, _RACE_LEAST, _RACE_MOST = 0.2, 80, 0.4


@old_parameters(equalised="equalized")
@dataclass(frozen=True, eq=False, repr=False)
class TransferSet(Value):
    """What the proxy learns from: pool people's images, as they were sent, and the platform's answers.

    ``pool`` holds both groups, where volunteers of the reference group take part. Its last ``altered`` images are
    altered copies; the others stand in the pool's order, the subgroup's equalized where ``equalized`` says so.
    ``selection`` are the subgroup's selection people, whose answers steer early stopping; ``volunteers`` are the
    reference's, asked so that fidelity can be told for both groups. ``overruled`` is what spoke against going on, where
    somebody went on anyway.
    """

    pool: People
    altered: int
    answers: Answers
    selection: People
    selection_answers: Answers
    volunteers: People
    volunteers_answers: Answers
    equalized: bool = False
    overruled: str | None = None

    @property
    def composition(self) -> dict[str, int]:
        """Images sent for the pool, by whose they were; a copy that was altered or equalized is no member's image."""
        members = int(self.pool.subgroup.sum())
        altered = members if self.equalized else self.altered
        subgroup = members - altered + len(self.selection)
        return {"subgroup": subgroup, "volunteers": self.images - altered - subgroup, "altered": altered}

    @property
    def images(self) -> int:
        """Images sent for the pool."""
        return len(self.pool) + len(self.selection) + len(self.volunteers)

    @property
    def all_answers(self) -> Answers:
        """Answers about pool people, selection people and volunteers, in this order: all that was paid for."""
        parts = [self.answers, self.selection_answers, self.volunteers_answers]
        return Answers.concatenate(parts, classes=self.answers.classes)

    @property
    def complete(self) -> bool:
        """Whether every image was answered or refused, so that asking again could bring nothing new."""
        return bool(self.all_answers.resolved.all())

    def served(self) -> dict[str, Served]:
        """Return how the platform serves each group on images as they are: right and asked, by ``subgroup`` and
        ``reference``; altered and equalized copies are left out.
        """
        plain = np.ones(len(self.pool), np.bool_)
        plain[len(self.pool) - self.altered :] = False
        if self.equalized:
            plain &= ~self.pool.subgroup
        people = People.concatenate([self.pool[plain], self.selection, self.volunteers])
        parts = [self.answers[plain], self.selection_answers, self.volunteers_answers]
        answers = Answers.concatenate(parts, classes=self.answers.classes)
        groups = {"subgroup": people.subgroup, "reference": ~people.subgroup}
        return {
            name: served(people.classes[rows], answers.labels[rows], answers.resolved[rows], people.persons[rows])
            for name, rows in groups.items()
        }

    def joined(self, copies: People, answers: Answers) -> TransferSet:
        """Return this transfer set and one round of altered copies."""
        return replace(
            self,
            pool=People.concatenate([self.pool, copies]),
            altered=self.altered + len(copies),
            answers=Answers.concatenate([self.answers, answers], classes=answers.classes),
        )

    @cached_property
    def digest(self) -> Digest:
        """A SHA-256, 64 hex digits, of the images and of what was answered."""
        now, former = hashlib.sha256(), hashlib.sha256()
        for people, answers in ((self.pool, self.answers), (self.selection, self.selection_answers)):
            said = people.digest()
            now.update(said.encode())
            former.update((said.before or "").encode())
            for column in (answers.status, answers.labels, answers.scores, answers.resolution):
                for h in (now, former):
                    h.update(np.ascontiguousarray(column).tobytes())
        return Digest(now.hexdigest(), former.hexdigest())


@dataclass(frozen=True, eq=False, repr=False)
class Questions(Value):
    """Who is asked about what before verification.

    Parameters
    ----------
    plain : People
        Pool people who are asked about their image as it is, the subgroup's equalized where the settings say so.
    rounds : tuple of People
        Pool people of the subgroup who are asked about an altered copy, round by round.
    selection : People
        Selection people of the subgroup.
    judges : People
        The same, equalized where the settings say so: they choose learning rates for proxies that learn from such.
    volunteers : People
        Selection people of the reference.
    saved : int
        How many queries are saved for refinement.
    race : int
        How many are saved for a race between recipes.
    also : People, optional
        Where recipes race that equalize and others that do not: half of the subgroup's pool people who would be asked
        about their image as it is, whose image is equalized instead.
    """

    plain: People
    rounds: tuple[People, ...]
    selection: People
    judges: People
    volunteers: People
    saved: int
    race: int = 0
    also: People | None = None

    @classmethod
    def of(cls, roster: Roster, settings: Settings) -> Questions:
        """Return who is asked about what in an action of this roster."""
        turn, selection, also = turn_of(roster, settings), roster.selection, None
        second = only_equalized(roster, settings)
        if not settings.equalize and second.any():
            also = equalized(roster.pool[second], roster, replace(settings, equalize=True))
            turn[second] = -1
        rounds = (roster.pool[turn == t] for t in range(1, settings.rounds + 1))
        groups = [equalized(roster.pool[turn == 0], roster, settings)]
        groups += [selection[rows] for rows in (selection.subgroup, ~selection.subgroup)]
        together = People.concatenate(groups)
        plain, members = len(groups[0]), len(groups[0]) + len(groups[1])
        questions = cls(
            plain=together[:plain],
            rounds=tuple(people for people in rounds if len(people)),
            selection=together[plain:members],
            judges=equalized(together[plain:members], roster, settings),
            volunteers=together[members:],
            saved=saved(roster, settings),
            race=race_queries(roster, settings),
            also=also,
        )
        # The groups are parts of it, so that photographs are there once.
        questions.__dict__["people"] = together
        return questions

    @cached_property
    def people(self) -> People:
        """Whose images are asked about as they are."""
        return People.concatenate([self.plain, self.selection, self.volunteers])


@dataclass(frozen=True, eq=False, repr=False)
class Known(Value):
    """What is learned from without asking.

    Parameters
    ----------
    public : People or None
        Images whose true classes teach the proxy before answers do.
    unlabeled : uint8 array, shape (N, H, W, 3), or None
        Public images without classes.
    labeled : Labeled or None
        The same, and what a head says of them, which teaches the proxy beside ``public`` (:mod:`ttca.labeling`).
    helped : People
        Whose images δ is learned on: the subgroup's, and public images seen as theirs.
    views : People or None
        Those of ``helped`` who are not asked.
    regime : {"own", "public"}
        Whether anything but members' own images is known.
    """

    public: People | None
    helped: People
    views: People | None
    regime: str
    unlabeled: Images | None = None
    labeled: Labeled | None = None

    @classmethod
    def of(
        cls,
        roster: Roster,
        settings: Settings,
        shape: ImageShape,
        *,
        public: People | Images | None,
        views: People | None,
    ) -> Known:
        """Return what an action of this roster knows; images as proxies see them.

        Public images alone, without people, have no classes.
        """

        def small(people: People) -> People:
            return replace(people, images=seen(people.images, settings.block, shape))

        regime = "own" if public is None and views is None else "public"
        unlabeled = None if public is None or isinstance(public, People) else seen(public, settings.block, shape)
        public = public if isinstance(public, People) else None
        public, views = (None if p is None else small(p) for p in (public, views))
        if settings.true_classes:
            own = small(equalized(_members(roster), roster, settings))
            public = own if public is None else People.concatenate([own, public])
        if roster.unasked is not None:
            also = small(roster.unasked[roster.unasked.subgroup])
            views = also if views is None else People.concatenate([also, views])
        helped = small(roster.pool[roster.pool.subgroup])
        if views is not None:
            helped = People.concatenate([helped, views])
        return cls(public, helped, views, regime, unlabeled)

    @property
    def early(self) -> int:
        """How many images teach the proxy before answers do."""
        return sum(len(images) for images in (self.public, self.unlabeled) if images is not None)

    def check(self, roster: Roster, settings: Settings, shape: ImageShape, *exam: People | None) -> None:
        """Raise where there is nothing to learn from, or a public image is one of the people who judge or examine.

        Raises
        ------
        ActionError
            Before any query was spent.
        """
        if self.public is None and not (turn_of(roster, settings) == 0).any():
            taken = {"refine": settings.refine, "race_share": settings.race_share, "altered": settings.rounds}
            # Volunteers' queries are saved first, but none of their images is altered.
            join = "" if settings.refine else ", let volunteers take part"
            raise ActionError(
                "Expected public data, or pool people whose unchanged images are asked about, got neither. The first "
                f"proxy would have nothing to learn from. Lower {' or '.join(k for k, on in taken.items() if on)}{join}"
                ", or set true_classes. No query was spent."
            )
        public = [p.images for p in (self.public, self.views) if p is not None]
        public += [] if self.unlabeled is None else [self.unlabeled]
        if not public:
            return
        papers = {
            hashlib.sha256(image.tobytes()).digest(): person
            for people in (roster.selection, *exam)
            if people is not None
            for image, person in zip(seen(people.images, settings.block, shape), people.persons, strict=True)
        }
        whose = [papers.get(hashlib.sha256(image.tobytes()).digest()) for images in public for image in images]
        theirs = [number for number, person in enumerate(whose, start=1) if person is not None]
        if theirs:
            raise ActionError(
                "Expected public images that belong to no selection, verification or test person, got "
                f"{len(theirs)} of {len(whose)} that do. The first is number {theirs[0]}, as the picture of "
                f"{whose[theirs[0] - 1]}. Remove them from the public data. No query was spent."
            )


@old_arguments(equalised="equalized")
def ask_pool(
    queries: QueryPool, questions: Questions, *, equalized: bool, overruling: Overruling, in_hand: bool = False
) -> TransferSet:
    """Ask the platform about images as they are; only what the ledger lacks is paid.

    Parameters
    ----------
    queries : QueryPool
    questions : Questions
    equalized : bool
        Whether the subgroup's pool images among them were equalized.
    overruling : Overruling
        Whether to go on where answers do not fit members' own true classes.
    in_hand : bool
        Whether the ledger alone is asked, and nothing is paid: people have begun to verify.

    Raises
    ------
    ActionError
        If this platform was never asked, and nothing may be.
    SanityError
        If the first answers, or all of them, do not fit, and nobody goes on anyway.
    """
    people = questions.people
    sanity = Sanity.of(people, queries.platform.info.classes)
    queries.anyway = overruling.anyway
    watch = Watch(sanity.parts, lambda look, answers: overruling.hear(sanity.at_look(look, answers)))
    if in_hand:
        answers = queries.in_hand(people.images)
        if not answers.answered.any():
            raise _moved()
    else:
        answers = queries.ask(people.images, purpose="pool", owners=people.members.tolist(), watch=watch)
    overruling.hear(sanity.at_end(answers))
    if questions.also is not None and not in_hand:
        # A race reads the answers from the ledger, for the recipes that equalize.
        owners = questions.also.members.tolist()
        queries.ask(questions.also.images, purpose="pool", owners=owners, shown="pool, sharpened images")
    first, second = len(questions.plain), len(questions.plain) + len(questions.selection)
    return TransferSet(
        questions.plain,
        0,
        answers[:first],
        questions.selection,
        answers[first:second],
        questions.volunteers,
        answers[second:],
        equalized,
        overruling.overruled,
    )


def _moved() -> ActionError:
    return ActionError(
        "Expected the platform as it was when people began to verify, got another address, model or version, or one "
        "whose answers are read otherwise: nothing is known about it. What was learned and verified is about that one, "
        "and verification people are asked once: no query helps here. Put all of it back as it was. ttca evidence and "
        "ttca report write what was found without the platform. For today's platform, start a new action in a new "
        "folder with new verification people. Nothing was sent."
    )


def equalized(people: People, roster: Roster, settings: Settings) -> People:
    """Return people with the subgroup's images equalized to the volunteers', where the settings say so.

    That alone may help a subgroup whose only trouble is its camera, without δ and without a bound on the change:
    whoever measures δ should measure it too.
    """
    if not settings.equalize:
        return people
    known = _members(roster)
    equalizer = Equalizer.between(known.images[known.subgroup], known.images[~known.subgroup])
    images = people.images.copy()
    images[people.subgroup] = equalizer.apply(people.images[people.subgroup])
    return replace(people, images=images)


def saved(roster: Roster, settings: Settings) -> int:
    """Return how many queries are saved for refinement."""
    return round((settings.refine or 0.0) * len(roster.pool))


def race_queries(roster: Roster, settings: Settings) -> int:
    """Return how many queries are saved for a race: a share of all before verification, and 0 without a race.

    Where nobody chose the share, a small action saves more [ours]: eight candidates are told apart by no fewer, and
    true classes teach what answers would.
    """
    if not settings.races:
        return 0
    everybody = len(roster.pool) + len(roster.selection)
    if settings.race_share is None:
        wanted = max(round(_RACE_SHARE * everybody), min(_RACE_LEAST, round(_RACE_MOST * everybody)))
    else:
        wanted = round(settings.race_share * everybody)
    return min(wanted, len(roster.pool) - 1)


def turn_of(roster: Roster, settings: Settings) -> NDArray[np.int64]:
    """Return in which round each pool person is asked about an altered copy.

    0 = about the image as it is, -1 = saved for refinement or a race. Drawn by what an image is: of those who stay,
    few change their turn where somebody leaves or joins (:mod:`ttca.drawing`).
    """
    pool, rounds = roster.pool, settings.rounds
    turn = np.zeros(len(pool), np.int64)
    # Whoever is saved for the race is drawn among all, so that the proxy goes on seeing both groups.
    raced = drawn_order(pool, seed=settings.seed, purpose="saved for the race")
    turn[raced[: race_queries(roster, settings)]] = -1
    drawn = drawn_order(pool, seed=settings.seed, purpose="altered")
    members = drawn[pool.subgroup[drawn]]
    # Volunteers' queries first: whoever is saved, the probes are made of members' images.
    everybody = np.concatenate([drawn[~pool.subgroup[drawn]], members[::-1]])
    everybody = everybody[turn[everybody] == 0]
    turn[everybody[: saved(roster, settings)]] = -1
    members = members[turn[members] == 0]
    if rounds:
        chosen = members[: round(settings.altered * len(members))]
        turn[chosen] = 1 + np.arange(len(chosen)) * rounds // max(len(chosen), 1)
    return turn


def only_equalized(roster: Roster, settings: Settings) -> NDArray[np.bool_]:
    """Return who of the pool is asked about their image equalized alone, which otherwise would be asked as it is."""
    mine: NDArray[np.bool_] = (turn_of(roster, settings) == 0) & roster.pool.subgroup
    if settings.equalize:
        return mine
    found = np.zeros(len(mine), np.bool_)
    if settings.races and "equalize" not in settings.set_by_hand and not np.all(roster.pool.subgroup):
        # Recipes that equalize race others.
        drawn = drawn_order(roster.pool, seed=settings.seed, purpose="equalized")
        drawn = drawn[mine[drawn]]
        found[drawn[: len(drawn) // 2]] = True
    return found


def _members(roster: Roster) -> People:
    """Return everybody whose true class may be learned from: pool people, and members who are not asked."""
    return roster.pool if roster.unasked is None else People.concatenate([roster.pool, roster.unasked])


__getattr__ = old_names(__name__, equalised=equalized)

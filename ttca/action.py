"""The collective action: it opens a folder, calls the steps in their order, and holds what each returned."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttca.asking import Known, Questions, TransferSet, ask_pool, equalized
from ttca.blocks import check_block
from ttca.candidates import Chosen, Part, choose
from ttca.certificates import Certificate
from ttca.conditions import HONEST_ROW, Measuring, Opponents, with_encoding
from ttca.controls import MOST_CHOOSERS, Pupils, Twin, learn_controls
from ttca.distilling import WARM_START, Distilled, Fidelity, distil, kept_copies
from ttca.entering import backbones_of, check_left_out, check_race, enter, race_result
from ttca.errors import ActionError, ConfigError, MissingExtraError, NothingHelpsError
from ttca.folder_lock import hold
from ttca.images import Images, check_images
from ttca.kept import save_json
from ttca.labeling import check_labelers, labeled
from ttca.learning import Learner
from ttca.lessons import Ground
from ttca.measurement import Measurement
from ttca.measuring import Examination, Story, as_they_are, encoding_of, examine, row_of
from ttca.panel import Panel, draw_panel
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet, left_alone
from ttca.perturbing import Family, refined_queries
from ttca.platforms.base import Platform
from ttca.platforms.remembered import RememberedPlatform
from ttca.pooling.ledger import open_ledger
from ttca.pooling.pool import Cost, Member, Pace, QueryPool, check_members
from ttca.pooling.titles import take_title
from ttca.progress import Reporter, silent
from ttca.proxies.backbones import Backbone
from ttca.race_record import RACE_FILE, Raced, Runners
from ttca.recheck import Kept, keep_people, kept_cost, rechecked_told
from ttca.recipes import completed
from ttca.row import Row
from ttca.sanity import Overruling
from ttca.settings import Settings
from ttca.signing import signer
from ttca.sitting import check_ledger, check_pool, knows_pool, panel_of
from ttca.telling import tell_step
from ttca.tracing import Trace, provenance, trace
from ttca.verifying import (
    MEMBERS_FILE,
    Verified,
    hand_out,
    handed_out,
    is_certified,
    is_verified,
    keep_controls,
    still_to_pay,
    verify,
)
from ttca.weights import Start
from ttca.workshop import Workshop

if TYPE_CHECKING:
    from ttca.attacks.universal import Attack
    from ttca.proxies.distillation import Proxy
    from ttca.report import Contents

__all__ = ["MEMBERS_FILE", "WARM_START", "CollectiveAction", "Fidelity", "TransferSet"]


class CollectiveAction:
    """One action, in one folder.

    Parameters
    ----------
    folder : Path or str
        Gets ``ledger.sqlite``, ``proxy.safetensors``, ``perturbations/``, ``perturbations.safetensors`` (once it is
        certified: the file that members get), ``certificate.json``, ``controls.json``, ``controls.safetensors``,
        ``row.json`` (``test-row.json``, of test people), ``overruled.json``, ``report.html``, two signatures (``.sig``)
        and ``collective.key``, which made them.
    platform : Platform
    members : sequence of Member
    roster : Roster
        Pool, selection and verification people, and how their photographs were prepared.
    settings : Settings
    public : People or uint8 array of shape (N, H, W, 3), optional
        Public images of the same kind. They are never sent and cost nothing: the proxy learns from their true classes
        before it learns from answers. Best seen as the *platform* learned to see, not as the subgroup is seen. Images
        alone have no classes: published weights label them first (:mod:`ttca.labeling`).
    views : People, optional
        Labeled public images as the *subgroup's* would be: δ is learned on them too. Never sent either. Both may come
        averaged over blocks already (:func:`ttca.blocks.shrink`), which is all that is kept of them.
    measuring : Measuring
        A guest's metrics and controls.
    cap, pace, overrule, accept_new_version
        See :class:`~ttca.pooling.pool.QueryPool`.
    anyway : bool
        Go on where answers do not fit members' own true classes (:mod:`ttca.sanity`): kept, and told in the row.
    ledger : str, optional
        URL of a ledger that several actions share (``postgresql://host/name``), instead of ``ledger.sqlite``. Its
        secret is ``ledger.key`` in the folder, the same for all who share it; actions are told apart by their name,
        which no two may share.
    may_be_shown : collection of str
        Persons who agreed that a report may show their pictures.
    reporter : Reporter
        Where progress is shown.
    attack : Attack, optional
        Learns every δ instead of ttca's own (:class:`ttca.attacks.universal.Attack`).

    Notes
    -----
    One program at a time works in the folder: a second one is refused, with the name of who holds it.

    Every step can be killed and called again: answers come from the ledger, and a step whose result lies in the
    folder *for the same inputs* is read instead of done. Verification people are read for one family of
    perturbations only; another family is refused.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        platform: Platform,
        members: Sequence[Member],
        roster: Roster,
        settings: Settings,
        public: People | Images | None = None,
        views: People | None = None,
        measuring: Measuring = HONEST_ROW,
        cap: int | None = None,
        pace: Pace | None = None,
        ledger: str | None = None,
        overrule: bool | None = None,
        accept_new_version: bool = False,
        anyway: bool = False,
        may_be_shown: Collection[str] = (),
        reporter: Reporter = silent,
        attack: Attack | None = None,
    ) -> None:
        self._began = time.perf_counter()
        settings = _applied(settings, platform, members, roster, views)
        public = public if public is None or isinstance(public, People) else check_images(public)
        self.folder = _checked_folder(folder)
        self.platform = platform
        self.roster = roster
        self.settings = settings
        self.measuring = with_encoding(measuring, platform.info.jpeg_quality)
        self.may_be_shown = _persons("may_be_shown", may_be_shown)
        self.classes = platform.info.classes
        _check_people(roster, settings, platform, public=public, views=views)
        self._ground = Ground(roster, public, views)
        self._base = Known.of(roster, settings, platform.info.image_shape, public=public, views=views)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ActionError(
                f"Expected to create the folder {self.folder}, got: {error}. Choose another folder."
            ) from None
        self.overruling = Overruling(self.folder, platform.info, anyway=anyway)
        self._refuse_known(roster.verification, roster.test)
        self._transfer: TransferSet | None = None
        self._verified: Verified | None = None
        self._measured: tuple[Row, Measurement] | None = None
        with ExitStack() as stack:
            # Two programs in one folder would learn from each other's half-written files.
            lock = hold(self.folder, say=reporter.say)
            stack.callback(lock.release)
            self.ledger = stack.enter_context(open_ledger(self.folder, ledger))
            check_ledger(self.folder, self.ledger)
            if ledger is not None:
                take_title(self.ledger, settings.name, self.folder)
            self.queries = QueryPool(
                platform,
                self.ledger,
                members,
                cap=cap,
                pace=pace,
                action=settings.name,
                overrule=overrule,
                reporter=reporter,
            )
            self.queries.accept_new_version = accept_new_version
            self._held = stack.pop_all()
        #: With the settings as they were handed in; what a race chose is in ``_chosen``.
        tells = not isinstance(platform, RememberedPlatform)  # Where nobody learns.
        self._shop = Workshop(self.folder, settings, self.queries, reporter, attack, roster.preparation, tells)

    @property
    def start(self) -> Start:
        """What the proxy begins with; no torch is needed to know."""
        return self._shop.start

    @property
    def learner(self) -> Learner:
        """Proxies and δ, of the recipe that won where several race; raises MissingExtraError without torch."""
        return self._chosen.shop.learner if self.settings.races else self._shop.learner

    @property
    def known(self) -> Known:
        """What is learned from without asking."""
        return self._chosen.known if self.settings.races else self._base

    @cached_property
    def runners(self) -> Runners | None:
        """Which recipes race, None where none do; raises before anything is asked where one cannot be learned here."""
        return _runners(self, self._shop)

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """The published weights that the proxy begins with, or a candidate's, and those that can label images."""
        raced = self.runners if self.settings.races else None
        own = self._shop.start.backbones if raced is None else backbones_of(self._shop, raced)
        return own if self._base.unlabeled is None else tuple(dict.fromkeys((*own, *self._shop.labelers)))

    @property
    def raced(self) -> Raced | None:
        """The record of the race, None where nothing races; candidates that are not yet learned and raced are."""
        return self._chosen.raced if self.settings.races else None

    def __repr__(self) -> str:
        name, where = self.settings.name, self.platform.info.name
        return f"CollectiveAction({name!r} in {str(self.folder)!r}, on {where}, seed {self.settings.seed})"

    def close(self) -> None:
        """Close the ledger, and let others work in the folder."""
        self._held.close()

    def __enter__(self) -> CollectiveAction:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the way of the data, in its order ----------------------------------------------------------------------

    @cached_property
    def questions(self) -> Questions:
        """Who is asked about what before verification."""
        return Questions.of(self.roster, self.settings)

    def pool(self) -> TransferSet:
        """Ask the platform about images as they are; only what the ledger lacks is paid.

        Pool people who are to be asked about an altered copy wait for :meth:`distil`, which makes it.
        """
        _check_here(self._base, self._shop, self.questions)
        # What nobody answered is asked again whenever somebody calls; what is answered is at hand.
        if self._transfer is None or not self._transfer.complete:
            asked = _asked(self)
            check_pool(self.folder, self.settings, asked.digest)
            if self._transfer is None or asked.digest != self._transfer.digest:
                self._forget_after_pool()
                self._transfer = asked
        return self._transfer

    def distil(self) -> tuple[Proxy, Fidelity]:
        """Train the proxy on the transfer set, or read it back.

        With rounds, the platform is asked about altered copies in between: each round learns δ against the proxy of
        the round before, asks what the platform says about it, and trains anew on all answers so far.

        Raises
        ------
        WorthlessProxyError
            If too little was answered, or the proxy knows no more of the platform than its most frequent answer.
        """
        # Where the platform itself will be asked, answers may make up for a poor proxy: see learn().
        if not (self.settings.refine or self.settings.races):
            self._distilled.check_worth()
        return self._distilled.proxy, self._distilled.fidelity

    def learn(self) -> dict[int, PerturbationSet]:
        """Learn one perturbation per class for every ε, smallest first, each from the one before; or read them.

        Raises
        ------
        WorthlessProxyError
            If δ is the proxy's alone, nothing that the platform said about probes having been kept, and the proxy knows
            no more of the platform than its most frequent answer.
        NothingHelpsError
            If recipes raced, and none was shown to beat doing nothing.
        """
        self.distil()
        if (raced := self._chosen.raced) is not None and not raced.proposed:
            raise NothingHelpsError(raced.told)
        return dict(self._family.sets)

    def verify(self) -> Certificate:
        """Spend verification queries on the certificate, from the largest ε downward; or read it back.

        Raises
        ------
        ActionError
            If verification people were already read for other perturbations: reading them twice would make the
            certificate worthless.
        NothingHelpsError
            As :meth:`learn`. No verification person is asked.
        """
        return self._examined().certificate

    def keep(self) -> Kept | None:
        """Keep people whom :func:`ttca.recheck.recheck` can ask again later; None where there is no certificate."""
        return keep_people(self._shop, self._family, self._examined())

    def measure(
        self,
        people: People | None = None,
        *,
        pool: QueryPool | None = None,
        track: str | None = None,
        epsilon: int | None = None,
    ) -> tuple[Row, Measurement]:
        """Measure the honest row on ``people``; with none given, on verification people, paid by the members.

        Parameters
        ----------
        people : People, optional
            Test people, of both groups. Only a benchmark has them.
        pool : QueryPool, optional
            Who pays for test people's queries; required with ``people``, since members never pay for a benchmark.
        track : str, optional
            The row's name; default the action's.
        epsilon : int, optional
            Another member of the family than the one the certificate quotes; required to come with ``people``.

        Returns
        -------
        Row, Measurement
            The row, and the answers behind it. Every number was measured on uint8 images sent to the platform.
        """
        if _is_test(self, people, pool) and people is not None:
            self._refuse_known(people)
        if people is None and epsilon is None and self._measured is not None:
            return self._measured
        return _measured(self, people, pool, track, epsilon)

    def report(
        self,
        measured: tuple[Row, Measurement] | None = None,
        *,
        people: People | None = None,
        story: str | None = None,
        pictures_of: Collection[str] | None = None,
        for_publication: bool = False,
    ) -> Path:
        """Write ``report.html``, one file that needs no other, and return where it is.

        Parameters
        ----------
        measured, people
            What :meth:`measure` returned of test people, and these; by default verification people are measured.
        story : str, optional
            Who is under-served by what, in a few plain sentences.
        pictures_of : collection of str, optional
            Persons whose pictures are shown; default those who agreed (``may_be_shown``).
        for_publication : bool
            Write ``report-for-publication.html``, without pictures and names.
        """
        from ttca.report import write_nothing, write_report

        shown = self.may_be_shown if pictures_of is None else _shown(self.roster, people, pictures_of)
        row, measurement = self.measure() if measured is None else measured
        path = self.folder / ("report-for-publication.html" if for_publication else "report.html")
        raced = self.raced
        if raced is not None and not raced.proposed:
            told = story or f"{self.settings.name}: for {self.settings.subgroup}, on {self.platform.info.name}."
            return write_nothing(path, row, raced, told, "selection people" if people is None else "test people")
        parts = {
            "certificate": self.verify(),
            "perturbations": self.handed_out() or self._family.sets[row.epsilon],
            "people": _exam(self).people if people is None else people,
            "fidelity": self._distilled.fidelity,
            "measured_on": "verification people" if people is None else "test people",
            "raced": raced,
        }
        contents = _contents(self, row, measurement, story=story or "", **parts)
        if for_publication:
            return write_report(path, contents, names=False)
        return write_report(path, contents, pictures_of=shown)

    def handed_out(self) -> PerturbationSet | None:
        """Return the set that members get, None where :meth:`verify` certified none; a changed file is refused."""
        return handed_out(self.folder)

    def opponents(self, epsilon: int, *, pool: QueryPool | None = None) -> Opponents:
        """Learn the δ of the controls at an ε of the family, or read them back (:mod:`ttca.controls`).

        Parameters
        ----------
        epsilon : int
            Levels of 255.
        pool : QueryPool, optional
            Who asks selection people which zero-query control is the best; by default the members. Nobody is asked
            where ``control_lengths`` has one length alone.

        Raises
        ------
        ActionError
            If ε is none of the family.
        """
        chosen = self._chosen
        beside = None if chosen.beside is None else _twin(self, chosen.beside, pool, chosen.served)
        return learn_controls(_twin(self, chosen, pool), self._family, epsilon, beside, chosen.spared)

    @cached_property
    def panel(self) -> Panel:
        """Who verifies, one image of each person and group unless the settings say otherwise, in their fixed order."""
        return panel_of(self._shop, self.roster.verification)

    # -- beside the way -----------------------------------------------------------------------------------------

    def plan(self) -> dict[str, Cost]:
        """Return what each paying step would still cost at most, without spending a query."""
        return _plan(self, self._shop)

    def asked_people(self) -> People:
        """Return whose images :meth:`pool` asks about, as they are."""
        return self.questions.people

    def trace(self) -> Trace:
        """Return which rows of the ledger the certificate and the row of verification people follow from."""
        return _trace(self, self._chosen.shop, self._examined())

    def equalized(self, people: People) -> People:
        """Return people with the subgroup's images equalized to the volunteers' (:func:`ttca.asking.equalized`)."""
        return equalized(people, self.roster, self._chosen.shop.settings if self.settings.races else self.settings)

    def equalised(self, people: People) -> People:
        """Earlier name of :meth:`equalized`."""
        warnings.warn("CollectiveAction.equalised is now called equalized.", DeprecationWarning, stacklevel=2)
        return self.equalized(people)

    def candidates(self) -> dict[str, tuple[PerturbationSet, ...]]:
        """Return every raced recipe's δ at the race's ε: one, or one of each half; none where nothing races."""
        return self._chosen.sets() if self.settings.races else {}

    # -- what each step returned, held once ---------------------------------------------------------------------

    @cached_property
    def _chosen(self) -> Chosen:
        # First: models that cannot be made here are refused before anything is asked.
        runners = self.runners
        return _choose(self, self._shop, runners, self.pool())

    @property
    def _distilled(self) -> Distilled:
        return self._chosen.distilled

    @cached_property
    def _family(self) -> Family:
        chosen = self._chosen
        with tell_step("Learning"):
            return _told(chosen.family(self.roster), self._shop.reporter)

    def _examined(self) -> Verified:
        self.learn()
        if self._verified is None:
            with tell_step("Verifying"):
                self._verified = _verify(self, self._family, self._transfer)
        hand_out(self._shop, self._family, self._verified)
        return self._verified

    def _forget_after_pool(self) -> None:
        """Let go of what was made from other answers."""
        self.__dict__.pop("_chosen", None)
        self.__dict__.pop("_family", None)
        self._verified = self._measured = None

    def _refuse_known(self, *exam: People | None) -> None:
        self._base.check(self.roster, self.settings, self.platform.info.image_shape, *exam)


def _applied(settings: Settings, platform: Platform, members: object, roster: Roster, views: object) -> Settings:
    """Return the settings with the recipe that they name; raise ConfigError where something else came as one of these.

    In Python nothing else looks.
    """
    kinds: list[tuple[str, object, type, str]] = [
        ("settings", settings, Settings, "Write Settings(name=value, …)."),
        ("roster", roster, Roster, "split_roles(people, seed=0) makes one."),
    ]
    if views is not None:
        kinds.append(("views", views, People, "People.build(images, classes) makes them."))
    for name, given, kind, how in kinds:
        if not isinstance(given, kind):
            raise ConfigError(f"Expected {name} as {kind.__name__}, got {type(given).__name__}. {how}")
    if not callable(getattr(platform, "attempt", None)):
        raise ConfigError(
            f"Expected a platform, got an object of type {type(platform).__name__}. LocalPlatform(function, "
            "classes=…, image_shape=…) wraps a function, and HttpPlatform asks a service."
        )
    check_members(members)
    return completed(settings, platform.info.image_shape, len(roster.pool))


def _asked(action: CollectiveAction) -> TransferSet:
    with tell_step("Asking"):
        return ask_pool(
            action.queries,
            action.questions,
            equalized=action.settings.equalize,
            overruling=action.overruling,
            # Once people verify, another answer would teach another δ: nothing more is paid for.
            in_hand=knows_pool(action.folder),
        )


def _check_here(known: Known, shop: Workshop, questions: Questions) -> None:
    """Raise where what learning needs by name is not here, or nothing can label public images: answers teach nothing.

    What has been learned is read wherever it lies.
    """
    if known.unlabeled is not None:
        _ = shop.labelers
    if any((shop.folder / name).is_file() for name in (RACE_FILE, "proxy.safetensors")):
        return
    if shop.settings.races:
        check_left_out(shop.settings.left_out, shop.info.image_shape)
        check_race(questions, shop.settings)
    if shop.settings.weights:
        # A machine without timm may ask: another one learns.
        with suppress(MissingExtraError):
            _ = shop.start


def _runners(action: CollectiveAction, shop: Workshop) -> Runners | None:
    unlabeled = action._base.unlabeled is not None
    # First: it costs nothing to know.
    _check_here(action._base, shop, action.questions)
    raced = enter(shop, action._ground, action.questions) if action.settings.races else None
    if raced is None:
        _ = shop.learner
    if unlabeled:
        check_labelers(shop)
    return raced


def _check_people(
    roster: Roster, settings: Settings, platform: Platform, *, public: People | Images | None, views: People | None
) -> None:
    """Raise before anything is opened where people do not fit the platform, or the goal."""
    info, block = platform.info, settings.block
    check_block(block, info.image_shape)
    small = (info.image_shape[0] // block, info.image_shape[1] // block, 3)
    extra = {k: v for k, v in {"public": public, "view": views}.items() if v is not None}
    for role, people in (roster.roles() | extra).items():
        shape = (people.images if isinstance(people, People) else people).shape[1:]
        if shape != info.image_shape and not (role in extra and shape == small):
            raise ActionError(
                f"Expected {role} images of {info.image_shape}, the size the platform takes, got {shape}. Resize them "
                "before they are pooled. No query was spent."
            )
        if not isinstance(people, People):
            continue
        if people.classes.min() < 0 or people.classes.max() >= len(info.classes):
            raise ActionError(
                f"Expected classes 0..{len(info.classes) - 1} among the {role} people, got "
                f"{int(people.classes.min())}..{int(people.classes.max())}. No query was spent."
            )
    terms, everybody = settings.certifying, np.all(roster.verification.subgroup)
    if terms.aim.compares_with == "reference" and everybody:
        raise ActionError(
            f"Expected reference people among the verification people, got none. The goal, {terms.aim}, compares the "
            "two groups. Let volunteers take part, or set another goal. No query was spent."
        )
    draw_panel(roster.verification, seed=settings.seed, every_image=settings.every_image).examined().check(terms)


def _measured(
    action: CollectiveAction, people: People | None, pool: QueryPool | None, track: str | None, epsilon: int | None
) -> tuple[Row, Measurement]:
    """Measure an action that has been verified, or in which doing nothing won: see :meth:`CollectiveAction.measure`."""
    chosen, family, began = action._chosen, action._family, action._began
    test = None if people is None or pool is None else Examination(people, pool, "test", "test")
    # What members and evidence go by is never replaced by a benchmark's row.
    kept = action.folder / ("row.json" if test is None else "test-row.json")
    if not chosen.helps:
        row, measured = as_they_are(chosen, family, action.measuring, test, track=track, began=began)
        save_json(kept, row.to_dict())
        return row, measured
    verified = action._examined()
    if epsilon is None:
        epsilon = verified.certificate.quoted_epsilon
    elif test is None or epsilon not in family.sets:
        raise ActionError(
            f"Expected one of the ε values {sorted(family.sets)} together with test people, got {epsilon}. "
            "Verification people are always measured at the ε that the certificate quotes."
        )
    exam = _exam(action) if test is None else test
    opponents, controls = action.opponents(epsilon, pool=pool), action.measuring.all_controls()
    with tell_step("Measuring"):
        measured = examine(chosen.shop, exam, chosen.distilled, family, epsilon, opponents, controls)
    quality = action.platform.info.jpeg_quality
    story = Story(
        chosen.known, chosen.distilled, family, verified.certificate, measured, opponents.zero_query_epochs,
        action.measuring,
        encoding_of(quality, exam.people, family.sets[epsilon]), chosen.raced,
    )  # fmt: skip
    row = row_of(chosen.shop, story, epsilon, track=track, began=began)
    save_json(kept, row.to_dict())
    if test is None:
        action._measured = row, measured
        left = row.to_dict().get("extra", {}).get(f"jpeg{quality}_delta_left")
        sent = {} if left is None else {"jpeg_quality": quality, "jpeg_delta_left": left}
        keep_controls(chosen.shop, verified, action.measuring, row.to_dict() | sent)
        hand_out(chosen.shop, family, verified)
    return row, measured


def _persons(name: str, persons: Collection[str]) -> frozenset[str]:
    """Return names; a single text, which would be its letters, is refused."""
    if isinstance(persons, str):
        raise ActionError(f"Expected {name} as a list, got {persons!r}. For one alone write [{persons!r}].")
    return frozenset(persons)


def _shown(roster: Roster, people: People | None, pictures_of: Collection[str]) -> frozenset[str]:
    """Return whose pictures a report shows; who is neither in the action nor measured is refused."""
    shown = _persons("pictures_of", pictures_of)
    everybody = [*roster.roles().values(), *([] if people is None else [people])]
    if strange := sorted(shown - {name for each in everybody for name in each.persons.tolist()}):
        raise ActionError(
            f"Expected pictures_of to name persons of this action, got {strange[0]!r}. Check the spelling."
        )
    return shown


def _checked_folder(folder: Path | str) -> Path:
    """Return the folder; an empty name would be the folder that one is in."""
    if folder == "":
        raise ActionError('Expected a folder for the action, got "". Write "." for the folder you are in.')
    return Path(folder)


def _choose(action: CollectiveAction, shop: Workshop, runners: Runners | None, transfer: TransferSet) -> Chosen:
    """Return what goes on: the winner of a race, or the one way that the settings say."""
    if runners is not None:
        with tell_step("Racing"):
            return choose(shop, action._ground, action.questions, transfer, runners)
    with tell_step("Distilling"):
        known = labeled(shop, action._base, action.questions, transfer)
        distilled = distil(shop, known, action.questions, transfer)
    return Chosen(shop, known, action.questions, distilled)


def _told(family: Family, reporter: Reporter) -> Family:
    """Return a family, and say which classes the δ of its largest ε does not change."""
    if alone := left_alone(family.sets[max(family.sets)]):
        why = "It is learned from the subgroup's pool people of each class, and given up where a race finds harm."
        reporter.say(f"{alone.replace('It', 'δ', 1)} {why}")
    return family


def _verify(action: CollectiveAction, family: Family, taught: TransferSet | None) -> Verified:
    """Verify a family that a transfer set taught; both are at hand by then."""
    return verify(action._shop, action.roster.verification, family, "" if taught is None else taught.digest)


def _exam(action: CollectiveAction) -> Examination:
    """Return the verification people on whom the row is measured."""
    most, verified = action.settings.controls_people, action._examined()
    where = verified.panel.first_seats(most)
    return Examination(verified.panel.first(most), action.queries, "controls", verified.epoch, where)


def _trace(action: CollectiveAction, shop: Workshop, verified: Verified) -> Trace:
    opponents, controls = action.opponents(verified.certificate.quoted_epsilon), action.measuring.all_controls()
    return trace(shop, _exam(action), verified, action._distilled, action._family, opponents, controls)


def _contents(action: CollectiveAction, row: Row, measurement: Measurement, **known: Any) -> Contents:
    """Return a report's contents: what the caller knows, and what the action's folder and ledger say."""
    from ttca.report import Contents

    return Contents(
        row=row,
        measurement=measurement,
        balances=action.queries.status(),
        signed_by=signer(action.folder / MEMBERS_FILE, "perturbations"),
        rechecked=rechecked_told(action.folder, action.queries),
        around=provenance(action._shop),
        measuring=action.measuring,
        **known,
    )


def _is_test(action: CollectiveAction, people: People | None, pool: QueryPool | None) -> bool:
    """Whether test people are measured; raise where they come without a payer of their own, or have another role."""
    if (people is None) != (pool is None):
        raise ActionError(
            "Expected test people together with the pool that pays for them, got only one of the two. Pass both."
        )
    if people is not None:
        # Proves that no test person has another role.
        replace(action.roster, test=people)
    if pool is not None and pool.ledger.is_same(action.ledger):
        raise ActionError(
            "Expected a separate pool, with its own ledger, to pay for test people, got the members' pool. "
            "Members never pay for a benchmark."
        )
    return people is not None


def _twin(action: CollectiveAction, of: Chosen | Part, pool: QueryPool | None, served: Sequence[int] = ()) -> Twin:
    """Return what the twin of a recipe learns from, and who tells the best of its lengths."""
    payer = action.queries if pool is None else pool
    pupils = Pupils(
        equalized(action.roster.pool, action.roster, of.shop.settings),
        of.known,
        of.questions,
        # A benchmark pays for everybody; members for as many as a fair choice needs.
        action.questions.selection[: MOST_CHOOSERS if pool is None else None],
        lambda images, owners: payer.ask(images, purpose="controls", epoch="selection", owners=owners),
    )
    return Twin(of.shop, pupils, of.distilled, np.array(served, np.int64))


def _asked_twice(action: CollectiveAction, choosers: People) -> int:
    """Return how many of those who choose among the controls are of classes that another recipe serves, or none."""
    result = race_result(action.folder, action.settings)
    if result is None:
        # Nobody knows until the race is over.
        return len(choosers) if action.settings.races and action.settings.combine else 0
    names = [*(s.name for s in result.switched), *(s.name for s in result.spared)]
    return int(np.isin(choosers.classes, [action.classes.index(name) for name in names]).sum())


def _plan(action: CollectiveAction, shop: Workshop) -> dict[str, Cost]:
    asked = action.queries.cost(action.questions.people.images)
    affordable = asked.affordable
    if action.questions.also is not None:
        also = action.queries.cost(action.questions.also.images)
        asked = Cost(
            asked.images + also.images, asked.answered + also.answered, asked.queries + also.queries, affordable
        )
    # Until a round is learned nobody knows its bytes; what was kept of it is counted as the ledger knows it.
    for turn, people in enumerate(action.questions.rounds, start=1):
        copies = kept_copies(action.folder, turn, races=action.settings.races)
        cost = Cost(len(people), 0, len(people), 0) if copies is None else action.queries.cost(copies)
        asked = Cost(
            asked.images + cost.images, asked.answered + cost.answered, asked.queries + cost.queries, affordable
        )
    if knows_pool(action.folder):
        # Once people verify, another answer would teach another δ: nothing more is paid for.
        asked = replace(asked, queries=0)
    plan = {"pool": asked}
    raced = race_result(action.folder, action.settings)
    # Where doing nothing won, nothing is refined, nobody verifies, and the row says what is paid for.
    over = raced is not None and not raced.proposed
    if action.settings.refine and not over and not is_verified(action.folder):
        saved = action.questions.saved - refined_queries(action.folder)
        plan["pool"] = Cost(asked.images + saved, asked.answered, asked.queries + saved, affordable)
    more: dict[str, int] = {}
    if action.settings.races:
        # What the ledger holds of a race is not known by image until candidates are learned.
        more["race"] = 0 if raced is not None else action.questions.race
    choosers = action.questions.selection[:MOST_CHOOSERS]
    asked_of = len(choosers) + _asked_twice(action, choosers)
    later = still_to_pay(shop, action.panel, action.measuring, asked_of)
    if (kept := action.settings.recheck_people) and not isinstance(action.platform, RememberedPlatform):
        later["recheck"] = kept_cost(action.folder, action.panel, kept, certified=is_certified(action.folder))
    more |= dict.fromkeys(later, 0) if over else later
    plan |= {step: Cost(most, 0, most, affordable) for step, most in more.items()}
    return plan

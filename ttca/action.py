"""The collective action: pool, distil, learn, verify, measure; each step resumable, in one folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.blocks import check_block, seen
from ttca.certificates import Certificate, certify, clopper_pearson_interval, count_right, count_right_at_most
from ttca.equaliser import Equaliser
from ttca.errors import ActionError, WorthlessProxyError
from ttca.folder_lock import hold
from ttca.gap import Served, served
from ttca.images import Images
from ttca.kept import made_from, save_arrays
from ttca.learning import Learner, digest, load_arrays, targets_of
from ttca.measurement import Measurement, Opponents, measure
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.pooling.ledger import open_ledger
from ttca.pooling.pool import Cost, Member, QueryPool
from ttca.progress import Reporter, silent
from ttca.proxies.runtime import give_back_memory
from ttca.row import Row
from ttca.settings import Settings

if TYPE_CHECKING:
    from ttca.attacks.refinement import Probes
    from ttca.attacks.universal import Attack
    from ttca.proxies.distillation import Proxy

__all__ = ["MEMBERS_FILE", "WARM_START", "CollectiveAction", "Fidelity", "TransferSet"]

#: The file that members get; it exists only where its certificate passed.
MEMBERS_FILE = "perturbations.safetensors"
#: What the proxy learned from true classes alone.
WARM_START = "warm-start.safetensors"


@dataclass(frozen=True)
class TransferSet:
    """What the proxy learns from: pool people's images, as they were sent, and the platform's answers.

    ``pool`` holds both groups, where volunteers of the reference group take part; its last ``altered`` images are
    altered copies, the others stand in the pool's order, the subgroup's equalised where ``equalised`` says so.
    ``selection`` are the subgroup's selection people, whose answers steer early stopping; ``volunteers`` are the
    reference's, asked so that fidelity can be told for both groups.
    """

    pool: People
    altered: int
    answers: Answers
    selection: People
    selection_answers: Answers
    volunteers: People
    volunteers_answers: Answers
    equalised: bool = False

    @property
    def composition(self) -> dict[str, int]:
        """Images sent for the pool, by whose they were; a copy that was altered or equalised is no member's image."""
        members = int(self.pool.subgroup.sum())
        altered = members if self.equalised else self.altered
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

    def served(self) -> dict[str, Served]:
        """Return how the platform serves each group on images as they are: right and asked, by ``subgroup`` and
        ``reference``; altered and equalised copies are left out.
        """
        plain = np.ones(len(self.pool), np.bool_)
        plain[len(self.pool) - self.altered :] = False
        if self.equalised:
            plain &= ~self.pool.subgroup
        people = People.concatenate([self.pool[plain], self.selection, self.volunteers])
        parts = [self.answers[plain], self.selection_answers, self.volunteers_answers]
        answers = Answers.concatenate(parts, classes=self.answers.classes)
        groups = {"subgroup": people.subgroup, "reference": ~people.subgroup}
        return {
            name: served(answers.labels[rows], people.classes[rows], answers.resolved[rows], people.persons[rows])
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

    def digest(self) -> str:
        """Return a SHA-256, 64 hex digits, of the images and of what was answered."""
        h = hashlib.sha256()
        for people, answers in ((self.pool, self.answers), (self.selection, self.selection_answers)):
            h.update(people.digest().encode())
            for column in (answers.status, answers.labels, answers.scores, answers.resolution):
                h.update(np.ascontiguousarray(column).tobytes())
        return h.hexdigest()


@dataclass(frozen=True)
class _Distilled:
    """The last proxy and all it learned from."""

    proxy: Proxy
    transfer: TransferSet


@dataclass(frozen=True)
class Fidelity:
    """How often proxy and platform name the same class on selection people, with two-sided 95 % intervals."""

    subgroup: float
    subgroup_interval: tuple[float, float]
    reference: float
    reference_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a rate among nobody (NaN) becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


class CollectiveAction:
    """One action, in one folder.

    Parameters
    ----------
    folder : Path or str
        Gets ``ledger.sqlite``, ``proxy.safetensors``, ``perturbations/``, ``perturbations.safetensors`` (once it is
        certified: the file that members get), ``certificate.json``, ``controls.json``, ``controls.safetensors``,
        ``row.json`` and ``report.html``.
    platform : Platform
    members : sequence of Member
    roster : Roster
        Pool, selection and verification people.
    settings : Settings
    public : People, optional
        Labelled public images of the same kind. They are never sent and cost nothing: the proxy learns from their true
        classes before it learns from answers. Best seen as the *platform* learned to see, not as the subgroup is seen.
    views : People, optional
        Labelled public images as the *subgroup's* would be: δ is learned on them too. Never sent either. Both may come
        averaged over blocks already (:func:`ttca.blocks.shrink`), which is all that is kept of them.
    cap, concurrency, batch, overrule
        See :class:`~ttca.pooling.pool.QueryPool`.
    ledger : str, optional
        URL of a ledger that several actions share (``postgresql://host/name``), instead of ``ledger.sqlite``. Its
        secret is ``ledger.key`` in the folder, the same for all who share it; actions are told apart by their name.
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
        public: People | None = None,
        views: People | None = None,
        cap: int | None = None,
        concurrency: int = 64,
        batch: int = 16,
        ledger: str | None = None,
        overrule: bool | None = None,
        may_be_shown: Collection[str] = (),
        reporter: Reporter = silent,
        attack: Attack | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self.folder = Path(folder)
        self.platform = platform
        self.roster = roster
        self.settings = settings
        self.may_be_shown = frozenset(may_be_shown)
        self.reporter = reporter
        self._attack = attack
        info = platform.info
        self.classes = info.classes
        check_block(settings.block, info.image_shape)
        small = (info.image_shape[0] // settings.block, info.image_shape[1] // settings.block, 3)
        extra = {k: v for k, v in {"public": public, "view": views}.items() if v is not None}
        for role, people in (roster.roles() | extra).items():
            if people.image_shape != info.image_shape and not (role in extra and people.image_shape == small):
                raise ActionError(
                    f"Expected {role} images of {info.image_shape}, the size the platform takes, got "
                    f"{people.image_shape}. Resize them before they are pooled. No query was spent."
                )
            if people.classes.min() < 0 or people.classes.max() >= len(self.classes):
                raise ActionError(
                    f"Expected classes 0..{len(self.classes) - 1} among the {role} people, got "
                    f"{int(people.classes.min())}..{int(people.classes.max())}. No query was spent."
                )
        self._regime = "own" if public is None and views is None else "public"
        self._equaliser: Equaliser | None = None
        self.public, self.views = (None if p is None else self._seen(p) for p in (public, views))
        if settings.true_classes:
            known = self._seen(self.equalised(self._members()))
            self.public = known if self.public is None else People.concatenate([known, self.public])
        if roster.unasked is not None:
            also = self._seen(roster.unasked[roster.unasked.subgroup])
            self.views = also if self.views is None else People.concatenate([also, self.views])
        if self.public is None and not (self._turn_of() == 0).any():
            raise ActionError(
                "Expected public data, or pool people whose unchanged images are asked about, got neither. The first "
                "proxy would have nothing to learn from. Lower altered, or let volunteers take part. No query was "
                "spent."
            )
        if settings.goal == "parity" and np.all(roster.verification.subgroup):
            raise ActionError(
                "Expected reference people among the verification people, got none. Parity compares the two groups. "
                "Let volunteers take part, or set another goal. No query was spent."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ActionError(
                f"Expected to create the folder {self.folder}, got: {error}. Choose another folder."
            ) from None
        self._refuse_known(roster.verification, roster.test)
        self._learner: Learner | None = None
        self._warm: Proxy | None = None
        with ExitStack() as stack:
            # Two programs in one folder would learn from each other's half-written files.
            lock = hold(self.folder, say=reporter.say)
            stack.callback(lock.release)
            self.ledger = stack.enter_context(open_ledger(self.folder, ledger))
            self.queries = QueryPool(
                platform,
                self.ledger,
                members,
                cap=cap,
                concurrency=concurrency,
                batch=batch,
                action=settings.name,
                overrule=overrule,
                reporter=reporter,
            )
            self._held = stack.pop_all()

    @property
    def learner(self) -> Learner:
        """Proxies and δ; raises MissingExtraError where torch is not installed."""
        if self._learner is None:
            self._learner = Learner(
                self.settings,
                classes=len(self.classes),
                image_shape=self.platform.info.image_shape,
                reporter=self.reporter,
                attack=self._attack,
            )
        return self._learner

    def close(self) -> None:
        """Close the ledger, and let others work in the folder."""
        self._held.close()

    def __enter__(self) -> CollectiveAction:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the way of the data, in its order ----------------------------------------------------------------------

    def plan(self) -> dict[str, Cost]:
        """Return what each paying step would still cost at most, without spending a query."""
        asked = self.queries.cost(self.asked_people().images)
        affordable = asked.affordable
        # Until a round is learned nobody knows its bytes; what was kept of it is counted as the ledger knows it.
        for turn, people in enumerate(self._turns(), start=1):
            copies = self._kept_copies(turn)
            cost = Cost(len(people), 0, len(people), 0) if copies is None else self.queries.cost(copies)
            asked = Cost(
                asked.images + cost.images, asked.answered + cost.answered, asked.queries + cost.queries, affordable
            )
        verification = self.roster.verification
        verified = (self.folder / "certificate.json").is_file()
        m = int(verification.subgroup.sum())
        audit = 0 if verified else len(verification)
        tests = 0 if verified else m * len(self.settings.epsilons)
        plan = {
            "pool": asked,
            "audit": Cost(audit, 0, audit, affordable),
            "verification": Cost(tests, 0, tests, affordable),
        }
        if self.settings.refine and not verified:
            saved = self._saved() - self._refined_queries()
            asked = Cost(asked.images + saved, asked.answered, asked.queries + saved, affordable)
            plan["pool"] = asked
        if self.settings.controls:
            # Noise, proxy's class, class-agnostic, zero-query, JPEG, resize, wrong class; reference with δ.
            controls = 0 if self._controls_done() else 7 * m + len(verification) - m
            plan["controls"] = Cost(controls, 0, controls, affordable)
        return plan

    def pool(self) -> TransferSet:
        """Ask the platform about images as they are; only what the ledger lacks is paid.

        Pool people who are to be asked about an altered copy wait for :meth:`distil`, which makes it.
        """
        _, selection, volunteers = self._asked()
        pool = self._plain()
        people = self.asked_people()
        answers = self.queries.ask(people.images, purpose="pool", owners=people.members.tolist())
        first, second = len(pool), len(pool) + len(selection)
        return TransferSet(
            pool,
            0,
            answers[:first],
            selection,
            answers[first:second],
            volunteers,
            answers[second:],
            self.settings.equalise,
        )

    def distil(self) -> tuple[Proxy, Fidelity]:
        """Train the proxy on the transfer set, or read it back.

        With rounds, the platform is asked about altered copies in between: each round learns δ against the proxy of
        the round before, asks what the platform says about it, and trains anew on all answers so far.

        Raises
        ------
        WorthlessProxyError
            If too little was answered, or the proxy knows no more of the platform than its favourite answer.
        """
        learned = self._distilled()
        # Where the platform itself will be asked, answers may make up for a poor proxy: see learn().
        if not self.settings.refine:
            self._check_worth(learned.proxy, learned.transfer)
        return learned.proxy, self._fidelity(learned.proxy, learned.transfer)

    def learn(self) -> dict[int, PerturbationSet]:
        """Learn one perturbation per class for every ε, smallest first, each from the one before; or read them.

        Raises
        ------
        WorthlessProxyError
            If δ is the proxy's alone, nothing that the platform said about probes having been kept, and the proxy knows
            no more of the platform than its favourite answer.
        """
        proxy, fidelity = self.distil()
        inputs = self._learn_inputs(proxy)
        home = self.folder / "perturbations"
        home.mkdir(exist_ok=True)
        sets: dict[int, PerturbationSet] = {}
        previous: NDArray[np.int8] | None = None
        for epsilon in sorted(self.settings.epsilons):
            path = home / f"epsilon-{epsilon:03d}.safetensors"
            known = PerturbationSet.load(path) if path.is_file() else None
            if known is None or not made_from(known.evidence.get("inputs"), inputs) or known.epsilon != epsilon:
                began = time.perf_counter()
                delta = self._universal(proxy, epsilon, f"learning δ, ε = {epsilon}", initial=previous)
                refined: dict[str, Any] = {"queries": 0, "kept": False}
                if self._pairs():
                    delta, refined = self._refined(delta, epsilon, self._probed())
                known = PerturbationSet(
                    delta=delta,
                    epsilon=epsilon,
                    classes=self.classes,
                    subgroup=self.settings.subgroup,
                    fingerprint=self.platform.info.fingerprint,
                    evidence={
                        "inputs": inputs,
                        "fidelity": fidelity.to_dict(),
                        "seconds": time.perf_counter() - began,
                        "refinement": refined,
                    },
                )
                known.save(path)
            sets[epsilon] = known
            previous = known.delta
        if self.settings.refine and not any(s.evidence["refinement"]["kept"] for s in sets.values()):
            self._check_worth(proxy, self._distilled().transfer)
        return sets

    def verify(self) -> Certificate:
        """Spend verification queries on the certificate, from the largest ε downward; or read it back.

        Raises
        ------
        ActionError
            If verification people were already read for other perturbations: reading them twice would make the
            certificate worthless.
        """
        sets = self.learn()
        people = self.roster.verification
        epoch = self._open_verification(sets)
        path = self.folder / "certificate.json"
        if path.is_file():
            stored = _read_json(path)
            if stored.get("epoch") == epoch:
                certificate = Certificate.from_dict(stored.get("certificate", {}))
                self._hand_out(sets, certificate)
                return certificate
        members = people[people.subgroup]
        others = people[~people.subgroup]

        def ask(images: Images, whose: People, purpose: str) -> Answers:
            return self.queries.ask(images, purpose=purpose, epoch=epoch, owners=whose.members.tolist())

        before = ask(members.images, members, "audit")
        reference = ask(others.images, others, "audit") if len(others) else Answers.failed(0, len(self.classes))
        certificate = certify(
            lambda epsilon: count_right(
                *_counted(ask(sets[epsilon].apply(members.images, members.classes), members, "verification"), members)
            ),
            epsilons=self.settings.epsilons,
            reference=count_right_at_most(*_counted(reference, others)),
            before=count_right_at_most(*_counted(before, members)),
            alpha=self.settings.alpha,
            goal=self.settings.goal,
        )
        verified = datetime.now(UTC).isoformat(timespec="seconds")
        _write_json(path, {"epoch": epoch, "verified": verified, "certificate": certificate.to_dict()})
        self._hand_out(sets, certificate)
        return certificate

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
        if (people is None) != (pool is None):
            raise ActionError(
                "Expected test people together with the pool that pays for them, got only one of the two. Pass both."
            )
        if people is not None:
            # Proves that no test person has another role.
            replace(self.roster, test=people)
            self._refuse_known(people)
        if pool is not None and pool.ledger.is_same(self.ledger):
            raise ActionError(
                "Expected a separate pool, with its own ledger, to pay for test people, got the members' pool. "
                "Members never pay for a benchmark."
            )
        certificate = self.verify()
        sets = self.learn()
        learned = self._distilled()
        proxy, transfer = learned.proxy, learned.transfer
        if epsilon is None:
            epsilon = certificate.quoted_epsilon
        elif people is None or epsilon not in sets:
            raise ActionError(
                f"Expected one of the ε values {sorted(sets)} together with test people, got {epsilon}. Verification "
                "people are always measured at the ε that the certificate quotes."
            )
        chosen = sets[epsilon]
        opponents = self.opponents(epsilon)
        on = self.roster.verification if people is None else people
        epoch = self._open_verification(sets) if people is None else "test"
        asker = self.queries if pool is None else pool
        purpose = "controls" if people is None else "test"
        # What training kept would lie about beside eleven conditions of photographs.
        give_back_memory()
        measurement = measure(
            lambda images, owners: asker.ask(images, purpose=purpose, epoch=epoch, owners=owners.tolist()),
            on,
            perturbations=chosen,
            opponents=opponents,
            proxy=lambda images: self.learner.predict(proxy, images),
            seed=self.settings.seed,
        )
        row = self._row(track, certificate, chosen, transfer, measurement)
        if people is None:
            _write_json(
                self.folder / "controls.json",
                {"epoch": epoch, "epsilon": epsilon, "abuse_rate": row.to_dict()["abuse_rate"]},
            )
            self._hand_out(sets, certificate)
        _write_json(self.folder / "row.json", row.to_dict())
        return row, measurement

    def handed_out(self) -> PerturbationSet | None:
        """Return the set that members get, None where :meth:`verify` certified none."""
        path = self.folder / MEMBERS_FILE
        return PerturbationSet.load(path) if path.is_file() else None

    def opponents(self, epsilon: int) -> Opponents:
        """Learn the δ of the controls at an ε of the family, or read them back.

        They are random noise, those of a proxy that asked nothing, and one for all classes.

        Parameters
        ----------
        epsilon : int
            Levels of 255.

        Raises
        ------
        ActionError
            If ε is none of the family.
        """
        from ttca.attacks.universal import random_universal

        if epsilon not in self.settings.epsilons:
            raise ActionError(
                f"Expected one of the action's ε values {sorted(self.settings.epsilons)}, got {epsilon}. Choose one of "
                "them."
            )
        proxy = self._distilled().proxy
        path = self.folder / "controls.safetensors"
        inputs = digest("controls", self._learn_inputs(proxy), self.learner.facts(), self._zero_query_inputs())
        rng = np.random.default_rng(self.settings.seed)
        noise = random_universal(
            groups=len(self.classes), image_shape=self.platform.info.image_shape, epsilon=epsilon, rng=rng
        )
        # The control gets the same family of warm starts as the action.
        levels = sorted(e for e in self.settings.epsilons if e <= epsilon)
        names = [*(f"zero_query-{level}" for level in levels), f"class_agnostic-{epsilon}"]
        stored = load_arrays(path, inputs) or {}
        if not stored.keys() >= set(names):
            ignorant = self._zero_query_proxy()
            zero: NDArray[np.int8] | None = None
            for level, name in zip(levels, names, strict=False):
                if name not in stored:
                    what = f"learning the zero-query δ, ε = {level}"
                    stored[name] = self._universal(ignorant, level, what, initial=zero)
                zero = stored[name]
            stored[names[-1]] = self._universal(proxy, epsilon, "learning one δ for all classes", agnostic=True)
            save_arrays(path, stored, inputs)
        chosen = PerturbationSet(
            stored[names[-2]], epsilon, self.classes, self.settings.subgroup, self.platform.info.fingerprint
        )
        return Opponents(
            noise=replace(chosen, delta=noise),
            zero_query=chosen,
            class_agnostic=replace(chosen, delta=np.repeat(stored[names[-1]], len(self.classes), axis=0)),
        )

    def equalised(self, people: People) -> People:
        """Return people with the subgroup's images equalised to the volunteers', where the settings say so.

        That alone may help a subgroup whose only trouble is its camera, without δ and without a bound on the change:
        whoever measures δ should measure it too.
        """
        if not self.settings.equalise:
            return people
        if self._equaliser is None:
            known = self._members()
            self._equaliser = Equaliser.between(known.images[known.subgroup], known.images[~known.subgroup])
        images = people.images.copy()
        images[people.subgroup] = self._equaliser.apply(people.images[people.subgroup])
        return replace(people, images=images)

    # -- inside -------------------------------------------------------------------------------------------------

    def _controls_done(self) -> bool:
        """Whether the row was measured on verification people (``row.json`` may be about test people)."""
        # Where controls.json is missing, an earlier version wrote the members' file only.
        path = self.folder / MEMBERS_FILE
        return (self.folder / "controls.json").is_file() or (
            path.is_file() and "abuse_rate" in PerturbationSet.load(path).evidence
        )

    def _asked(self) -> tuple[People, People, People]:
        pool, selection = self.roster.pool, self.roster.selection
        return pool, selection[selection.subgroup], selection[~selection.subgroup]

    def _turn_of(self) -> NDArray[np.int64]:
        """Return in which round each pool person is asked about an altered copy.

        0 = about the image as it is, −1 = saved for refinement.
        """
        pool, rounds = self.roster.pool, self.settings.rounds
        turn = np.zeros(len(pool), np.int64)
        rng = np.random.default_rng(self.settings.seed)
        members = rng.permutation(np.flatnonzero(pool.subgroup))
        # Volunteers' queries first: whoever is saved, the probes are made of members' images.
        everybody = np.concatenate([rng.permutation(np.flatnonzero(~pool.subgroup)), members[::-1]])
        turn[everybody[: self._saved()]] = -1
        members = members[turn[members] == 0]
        if rounds:
            chosen = members[: round(self.settings.altered * len(members))]
            turn[chosen] = 1 + np.arange(len(chosen)) * rounds // max(len(chosen), 1)
        return turn

    def _saved(self) -> int:
        """Return how many queries are saved for refinement."""
        return round(self.settings.refine * len(self.roster.pool))

    def _plain(self) -> People:
        return self.equalised(self.roster.pool[self._turn_of() == 0])

    def _members(self) -> People:
        """Return everybody whose true class may be learned from: pool people, and members who are not asked."""
        pool, unasked = self.roster.pool, self.roster.unasked
        return pool if unasked is None else People.concatenate([pool, unasked])

    def _turns(self) -> list[People]:
        turn = self._turn_of()
        turns = [self.roster.pool[turn == t] for t in range(1, self.settings.rounds + 1)]
        return [people for people in turns if len(people)]

    def asked_people(self) -> People:
        """Return whose images :meth:`pool` asks about, as they are."""
        _, selection, volunteers = self._asked()
        return People.concatenate([self._plain(), selection, volunteers])

    def _copies_path(self, turn: int) -> Path:
        return self.folder / "rounds" / f"altered-{turn}.safetensors"

    def _kept_copies(self, turn: int) -> Images | None:
        path = self._copies_path(turn)
        stored = load_arrays(path, None, ("images",))
        return None if stored is None else stored["images"]

    def _distilled(self) -> _Distilled:
        """Return the proxy and all it learned from, asking, training or reading back as far as needed."""
        learner = self.learner  # First: models that cannot be made here are refused before anything is asked.
        warm = self._warm_start()
        transfer = self.pool()
        turns = self._turns()
        proxy = warm
        if proxy is None or len(transfer.pool):
            proxy = self._learned(transfer, warm, last=not turns)
        for turn, people in enumerate(turns, start=1):
            path = self._copies_path(turn)
            path.parent.mkdir(exist_ok=True)
            images = learner.altered_copies(
                path,
                proxy,
                people,
                self._helped(),
                self._asked()[1],
                inputs=digest("altered", turn, self._learn_inputs(proxy), transfer.digest(), people.digest()),
                turn=turn,
            )
            copies = replace(people, images=images)
            transfer = transfer.joined(copies, self.queries.ask(images, purpose="pool", owners=people.members.tolist()))
            proxy = self._learned(transfer, warm, last=turn == len(turns))
        return _Distilled(proxy, transfer)

    def _helped(self) -> People:
        """Return whom δ is learned on: the subgroup alone, whoever else was asked, and public images seen as theirs."""
        pool = self.roster.pool
        members = self._seen(pool[pool.subgroup])
        return members if self.views is None else People.concatenate([members, self.views])

    def _seen(self, people: People) -> People:
        """Return people with their images as proxies see them."""
        return replace(people, images=seen(people.images, self.settings.block, self.platform.info.image_shape))

    def _probed(self) -> tuple[Probes, NDArray[np.float64]]:
        """Ask the platform about coarse patterns on members' images, with the saved queries that the check leaves."""
        from ttca.attacks.refinement import draw_probes, support

        # Photographs by the hundred come next: what training kept for itself would lie about beside them.
        give_back_memory()
        pool = self.roster.pool[self.roster.pool.subgroup]
        probes = draw_probes(
            pool.images,
            pairs=self._pairs(),
            rng=np.random.default_rng([self.settings.seed, 7]),
            block=self.settings.block,
        )
        owners = np.tile(pool.members[probes.rows], 2).tolist()
        answers = self.queries.ask(probes.images, purpose="pool", owners=owners)
        return probes, support(answers.labels, answers.scores, answers.resolution)

    def _pairs(self) -> int:
        """Return how many pairs of probes the saved queries pay for beside the check."""
        return self._saved() // 2 - self._judges() * len(self.settings.epsilons)

    def _judges(self) -> int:
        """Return how many selection people judge each refined δ: with a quarter of the saved queries at most."""
        return min(self._saved() // (8 * len(self.settings.epsilons)), len(self._asked()[1]))

    def _refined(
        self, delta: NDArray[np.int8], epsilon: int, probed: tuple[Probes, NDArray[np.float64]]
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Move δ as the platform's answers about probes say, and keep that only if selection people say it helped.

        They are asked about the way from the old δ to the new one, and the same way backwards, taken as far as a
        probe goes: a change of a few levels would move so few answers that chance decided.
        """
        from ttca.attacks.refinement import AMPLITUDE, steer, support

        probes, said = probed
        refined, foretold = steer(delta, probes, said, epsilon=epsilon)
        judges = self._asked()[1][: self._judges()]
        first = epsilon == min(self.settings.epsilons)
        facts: dict[str, Any] = {
            "queries": len(probes.images) * first,
            "foretold": foretold.tolist(),
            "gain": 0.0,
            "kept": False,
        }
        way = np.sign(refined.astype(np.int16) - delta) * AMPLITUDE
        if len(judges) and way.any():
            old = judges.images + delta[judges.classes].astype(np.int16)
            sent = np.concatenate([np.clip(old + sign * way[judges.classes], 0, 255) for sign in (1, -1)])
            owners = np.tile(judges.members, 2).tolist()
            answers = self.queries.ask(sent.astype(np.uint8), purpose="pool", owners=owners)
            own = support(answers.labels, answers.scores, answers.resolution).reshape(2, len(judges), -1)
            gains = (own[0] - own[1])[np.arange(len(judges)), judges.classes]
            gain = float(np.nanmean(gains)) if not np.isnan(gains).all() else 0.0
            facts |= {"queries": facts["queries"] + len(sent), "gain": gain, "kept": gain > 0}
        return (refined if facts["kept"] else delta), facts

    def _refined_queries(self) -> int:
        """Return the queries that refinement has spent, as the perturbations in the folder tell."""
        spent = 0
        for path in (self.folder / "perturbations").glob("epsilon-*.safetensors"):
            spent += int(PerturbationSet.load(path).evidence.get("refinement", {}).get("queries", 0))
        return spent

    def _warm_start(self) -> Proxy | None:
        if self._warm is None and self.public is not None:
            self._warm = self.learner.warm_start(self.folder / WARM_START, self.public)
        return self._warm

    def _learned(self, transfer: TransferSet, warm: Proxy | None, *, last: bool) -> Proxy:
        """Return the proxy of one transfer set; only the last one stands in the folder itself.

        Selection people are asked about images as they are. Their answers choose the epoch where the proxy learns from
        such images too; chosen by them, a proxy that learns from altered copies would stop before it has.
        """
        name = "proxy.safetensors" if last else f"rounds/proxy-{transfer.altered}.safetensors"
        proxy, _ = self.learner.train(
            self.folder / name,
            transfer.pool.images,
            targets_of(transfer.answers),
            selection=(
                None
                if transfer.altered or transfer.equalised
                else (transfer.selection.images, targets_of(transfer.selection_answers))
            ),
            initial=warm,
            replay=self.public,
            inputs=digest("distil", transfer.digest(), self.learner.facts(), _weights(warm)),
            what="distilling the proxy",
            epochs=self.settings.epochs,
        )
        return proxy

    def _universal(
        self,
        proxy: Proxy,
        epsilon: int,
        what: str,
        *,
        initial: NDArray[np.int8] | None = None,
        agnostic: bool = False,
    ) -> NDArray[np.int8]:
        return self.learner.universal(
            proxy, self._helped(), self._asked()[1], epsilon, what=what, initial=initial, agnostic=agnostic
        )

    def _check_worth(self, proxy: Proxy, transfer: TransferSet) -> None:
        """Raise where the proxy knows no more of the platform than its favourite answer to selection people.

        Members alone are the first measure. Where most of them get one and the same answer, which is how bad it can
        be, volunteers' answers tell a proxy that knows the platform from one that always says the same.
        """
        from ttca.proxies.fidelity import agreement

        members = transfer.selection.images, transfer.selection_answers
        everybody = (
            np.concatenate([members[0], transfer.volunteers.images]),
            Answers.concatenate([members[1], transfer.volunteers_answers], classes=len(self.classes)),
        )
        for images, answers in (members, everybody):
            named = answers.labels[answers.answered]
            if not len(named):
                raise WorthlessProxyError(
                    "Expected answers about selection people, got none that name a class. Without them, nobody can "
                    "tell whether the proxy is any good. Verification queries would be wasted now."
                )
            favourite = np.bincount(named).max() / len(named)
            rate = agreement(self.learner.predict(proxy, images), answers.labels).rate
            if rate > favourite:
                return
        raise WorthlessProxyError(
            "Expected a proxy that agrees with the platform more often than the platform's most frequent answer alone "
            f"would ({favourite:.2f}), got {rate:.2f} on selection people. Ask more or different queries, or choose "
            "another architecture. Verification queries would be wasted now."
        )

    def _fidelity(self, proxy: Proxy, transfer: TransferSet) -> Fidelity:
        from ttca.proxies.fidelity import agreement

        found: list[tuple[float, tuple[float, float]]] = []
        for people, answers in (
            (transfer.selection, transfer.selection_answers),
            (transfer.volunteers, transfer.volunteers_answers),
        ):
            a = agreement(self.learner.predict(proxy, people.images), answers.labels)
            low, high = clopper_pearson_interval(a.agree, a.n)
            found.append((a.rate, (float(low), float(high))))
        (subgroup, s_interval), (reference, r_interval) = found
        return Fidelity(subgroup, s_interval, reference, r_interval)

    def _learn_inputs(self, proxy: Proxy) -> str:
        selection = self._asked()[1]
        facts = self.learner.delta_facts(
            platform=self.platform.info.fingerprint,
            epsilons=sorted(self.settings.epsilons),
            refine=self.settings.refine,
        )
        return digest("learn", _weights(proxy), self._helped().digest(), selection.digest(), facts)

    def _open_verification(self, sets: Mapping[int, PerturbationSet]) -> str:
        """Return the epoch of the one reading of verification people, and refuse a second reading."""
        h = hashlib.sha256(self.roster.verification.digest().encode())
        h.update(self.platform.info.fingerprint.encode())
        for epsilon in sorted(sets):
            h.update(f"{epsilon} ".encode() + sets[epsilon].delta.tobytes())
        h.update(json.dumps([self.settings.alpha, self.settings.goal]).encode())
        epoch = f"verification-{h.hexdigest()[:32]}"
        path = self.folder / "verification.json"
        if not path.is_file():
            if {"audit", "verification"} & self.ledger.paid(action=self.settings.name).keys():
                raise ActionError(
                    f"Expected the file {path}, which records what verification people were used for, got no file "
                    "although the ledger holds their answers. Restore it, or start a new action in a new folder with "
                    "new verification people."
                )
            # Written before the first query, so that a kill in between cannot be used to look twice.
            _write_json(path, {"epoch": epoch})
        elif _read_json(path).get("epoch") != epoch:
            raise ActionError(
                "Expected verification people who were not used before, got some who were: this action already "
                "verified other perturbations, people or goals, or another platform, with them. A second look would "
                "make the certificate worthless. Start a new action in a new folder with new verification people."
            )
        return epoch

    def _hand_out(self, sets: Mapping[int, PerturbationSet], certificate: Certificate) -> None:
        """Write the members' file, which exists only while its set is certified."""
        path = self.folder / MEMBERS_FILE
        if certificate.epsilon is None:
            # An earlier version handed such a set out; its δ stays in perturbations/.
            path.unlink(missing_ok=True)
            return
        chosen = sets[certificate.epsilon]
        evidence = {**chosen.evidence, "certificate": certificate.to_dict()}
        # Earlier versions did not write down the day; the δ was made no later than it was verified.
        evidence["verified"] = str(_read_json(self.folder / "certificate.json").get("verified", chosen.created))
        controls = self.folder / "controls.json"
        if controls.is_file():
            evidence["abuse_rate"] = _read_json(controls).get("abuse_rate")
        elif self._controls_done():
            evidence["abuse_rate"] = PerturbationSet.load(path).evidence["abuse_rate"]
        expires = datetime.fromisoformat(evidence["verified"]) + timedelta(days=self.settings.valid_days)
        wanted = replace(
            chosen,
            subgroup=self.settings.subgroup,
            service=self.platform.info.name,
            expires=expires.isoformat(timespec="seconds"),
            evidence=evidence,
        )
        known = PerturbationSet.load(path) if path.is_file() else None
        # Not written anew at every look, so that members who compare files see a change only where there is one.
        if known is None or replace(known, delta=wanted.delta) != wanted or (known.delta != wanted.delta).any():
            wanted.save(path)

    def _zero_query_inputs(self) -> str:
        pool, selection, _ = self._asked()
        people = [_weights(self._warm_start())] if self.public is not None else [pool.digest(), selection.digest()]
        return digest("zero-query", people, self.learner.facts())

    def _zero_query_proxy(self) -> Proxy:
        """Return the proxy that asked nothing: public data where there are any, else the pool's own true classes."""
        warm = self._warm_start()
        if warm is not None:
            return warm
        pool, selection, _ = self._asked()
        proxy, _ = self.learner.train(
            self.folder / "zero-query-proxy.safetensors",
            pool.images,
            self.learner.true(pool),
            selection=(selection.images, self.learner.true(selection)),
            inputs=self._zero_query_inputs(),
            what="training the zero-query control",
            epochs=self.settings.epochs,
        )
        return proxy

    def _refuse_known(self, *exam: People | None) -> None:
        """Raise if a public image is one of verification or test people: the proxy would have seen the exam."""
        public = [p for p in (self.public, self.views) if p is not None]
        if not public:
            return
        papers = {
            hashlib.sha256(image.tobytes()).digest() for p in exam if p is not None for image in self._seen(p).images
        }
        if any(hashlib.sha256(image.tobytes()).digest() in papers for p in public for image in p.images):
            raise ActionError(
                "Expected public images that belong to no verification or test person, got one that does. Remove it "
                "from the public data. No query was spent."
            )

    def _row(
        self,
        track: str | None,
        certificate: Certificate,
        chosen: PerturbationSet,
        transfer: TransferSet,
        measured: Measurement,
    ) -> Row:
        paid = self.ledger.paid(action=self.settings.name)
        low, high = measured.interval("subgroup_after")
        from safetensors import safe_open

        # Where every query went to the platform itself, the proxy is the warm start.
        last = "proxy.safetensors" if len(transfer.pool) else WARM_START
        with safe_open(self.folder / last, framework="numpy") as file:
            seconds_distil = float((file.metadata() or {}).get("seconds", "nan"))
        refined = self._refined_queries()
        composition = transfer.composition
        seconds_learn = float(sum(s.evidence.get("seconds", float("nan")) for s in self.learn().values()))
        return Row(
            track=track or self.settings.name,
            regime=self._regime,
            answers=_kind(transfer.all_answers),
            queries=transfer.images + refined,
            epsilon=chosen.epsilon,
            seed=self.settings.seed,
            queries_pool=paid.get("pool", 0) + paid.get("pool-audit", 0),
            queries_audit=paid.get("audit", 0),
            queries_verification=paid.get("verification", 0),
            coverage=measured.coverage,
            composition={**composition, "altered": composition["altered"] + refined},
            reference_before=measured.rate("reference_before"),
            subgroup_before=measured.rate("subgroup_before"),
            gap_before=measured.rate("reference_before") - measured.rate("subgroup_before"),
            subgroup_after=measured.rate("subgroup_after"),
            subgroup_after_lower=low,
            subgroup_after_upper=high,
            gap_closed=measured.gap_closed,
            parity_certified=bool(certificate.parity_certified) and certificate.passed_at(chosen.epsilon),
            certificate_lower=certificate.lower_at(chosen.epsilon),
            certificate_power=certificate.power.smallest_rate,
            abuse_rate=measured.rate("abuse"),
            noise_control=measured.rate("noise"),
            proxy_class_control=measured.rate("proxy_class"),
            class_agnostic_control=measured.rate("class_agnostic"),
            zero_query_control=measured.rate("zero_query"),
            jpeg75_control=measured.rate("jpeg75"),
            resize_control=measured.rate("resize"),
            reference_after=measured.rate("reference_after"),
            fidelity_subgroup=measured.fidelity_subgroup,
            fidelity_reference=measured.fidelity_reference,
            worst_group_before=measured.fairness_before.worst["worst_group_accuracy"],
            worst_group_after=measured.fairness_after.worst["worst_group_accuracy"],
            equal_opportunity_gap_before=measured.fairness_before.worst["equal_opportunity_difference"],
            equal_opportunity_gap_after=measured.fairness_after.worst["equal_opportunity_difference"],
            demographic_parity_ratio_before=measured.fairness_before.worst["demographic_parity_ratio"],
            demographic_parity_ratio_after=measured.fairness_after.worst["demographic_parity_ratio"],
            seconds_distil=seconds_distil,
            seconds_learn=seconds_learn,
            seconds=time.perf_counter() - self._began,
            peak_rss_mb=_peak_rss_mb(),
        )


def _weights(proxy: Proxy | None) -> str:
    """Return a SHA-256, 64 hex digits, of a proxy's weights; empty for none."""
    if proxy is None:
        return ""
    h = hashlib.sha256()
    for name, tensor in sorted(proxy.state_dict().items()):
        h.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return h.hexdigest()


def _counted(answers: Answers, people: People) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    return answers.labels, people.classes, answers.resolved


def _kind(answers: Answers) -> str:
    """Return what the platform's answers were: scores, rounded, top-k or label."""
    said = answers[answers.answered]
    if not len(said) or np.isnan(said.scores).all():
        return "label"
    if not said.complete.all():
        return "top-k"
    return "rounded" if said.resolution.max() > 0 else "scores"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ActionError(f"Expected JSON in {path}, got a file that cannot be read ({error}). Restore it.") from None
    if not isinstance(found, dict):
        raise ActionError(f"Expected a JSON object in {path}, got {type(found).__name__}. Restore the file.")
    return found


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


def _peak_rss_mb() -> float:
    # On Linux the mark that can be set back, so that a program of several actions can tell each one's peak.
    status = Path("/proc/self/status")
    if status.is_file():
        marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)

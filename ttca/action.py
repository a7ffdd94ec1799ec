"""The collective action: pool, distil, learn, verify, measure; each step resumable, in one folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.certificates import Certificate, certify, clopper_pearson_interval, count_right, count_right_at_most
from ttca.errors import ActionError, ConfigError, MissingExtraError
from ttca.images import Images
from ttca.measurement import Measurement, Opponents, measure
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Platform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Cost, Member, QueryPool
from ttca.progress import Reporter, silent
from ttca.row import Row

if TYPE_CHECKING:
    from proxies.distillation import Proxy, Targets

__all__ = ["ARCHITECTURES", "CollectiveAction", "Fidelity", "Settings", "TransferSet"]

#: The proxies' own names, written here because they must be checked before the first query and without torch.
ARCHITECTURES = ("perceptron", "small-cnn", "resnet20", "resnet32", "resnet56")
#: What every generator of random numbers takes, with room for an ensemble's further seeds.
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides an action's result, besides its people and its platform.

    Parameters
    ----------
    name, subgroup : str
        What the action is called, and whom it is for.
    epsilons : tuple of int
        The family of budgets, in levels of 255, fixed before verification.
    seed : int
    architectures : tuple of str
        The proxy's models (``small-cnn``, ``resnet20`` …, ``timm/NAME``); more than one make an ensemble.
    epochs : int
        Of distillation.
    shift : int
        Augmentation: random translation of the learning images, in pixels.
    flip : bool
        Augmentation: random mirror images.
    mixup : float
        Beta parameter of mixup between fully scored answers, 0 = off.
    steps : int
        Of perturbation learning, per ε.
    alpha : float
        Error of the certificate.
    goal : "parity", "improvement" or float
        What the certificate must show (:func:`ttca.certificates.certify`).
    controls : bool
        Whether ``run`` pays for the controls of the honest row on verification people.
    """

    name: str = "action"
    subgroup: str = "subgroup"
    epsilons: tuple[int, ...] = (2, 4, 8)
    seed: int = 0
    architectures: tuple[str, ...] = ("small-cnn",)
    epochs: int = 60
    shift: int = 1
    flip: bool = False
    mixup: float = 0.0
    steps: int = 100
    alpha: float = 0.05
    goal: Literal["parity", "improvement"] | float = "parity"
    controls: bool = True

    def __post_init__(self) -> None:
        wrong = [e for e in self.epsilons if isinstance(e, bool) or not isinstance(e, int) or not 1 <= e <= 127]
        if not self.epsilons or wrong or len(set(self.epsilons)) != len(self.epsilons):
            raise ConfigError(
                f"Expected epsilons as different whole levels in 1..127, got {list(self.epsilons)}. "
                "ε counts pixel levels of 255: 8 is a faint change, 32 a visible one."
            )
        for name, least in {"epochs": 1, "steps": 1, "shift": 0, "seed": 0}.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ConfigError(f"Expected {name} as a whole number of at least {least}, got {number!r}.")
        if self.seed > _LARGEST_SEED:
            raise ConfigError(f"Expected a seed of at most {_LARGEST_SEED}, got {self.seed}. Choose a smaller one.")
        if not 0 <= self.mixup < math.inf:
            raise ConfigError(f"Expected mixup as a number of 0 (off) or more, got {self.mixup}.")
        if not self.architectures:
            raise ConfigError("Expected at least one proxy architecture, got none.")
        unknown = [a for a in self.architectures if a not in ARCHITECTURES and not a.startswith("timm/")]
        if unknown:
            raise ConfigError(
                f"Expected proxy architectures among {', '.join(ARCHITECTURES)} or timm/NAME, got {unknown[0]!r}."
            )
        if not 0 < self.alpha < 1:
            raise ConfigError(f"Expected alpha strictly between 0 and 1, got {self.alpha}. 0.05 means 95 %.")
        named = self.goal in ("parity", "improvement")
        if not named and (isinstance(self.goal, str | bool) or not 0 < self.goal < 1):
            raise ConfigError(
                "Expected the goal 'parity', 'improvement' or a success rate strictly between 0 and 1, got "
                f"{self.goal!r}."
            )


@dataclass(frozen=True)
class TransferSet:
    """What the proxy learns from: pool people's images and the platform's answers, in the pool's order.

    ``pool`` holds both groups, where volunteers of the reference group take part. ``selection`` are the subgroup's
    selection people, whose answers steer early stopping; ``volunteers`` are the reference's, asked so that fidelity
    can be told for both groups.
    """

    pool: People
    answers: Answers
    selection: People
    selection_answers: Answers
    volunteers: People
    volunteers_answers: Answers

    @property
    def composition(self) -> dict[str, int]:
        """Images sent for the pool, by whose they were."""
        subgroup = int(self.pool.subgroup.sum()) + len(self.selection)
        return {"subgroup": subgroup, "volunteers": self.images - subgroup, "altered": 0}

    @property
    def images(self) -> int:
        """Images sent for the pool."""
        return len(self.pool) + len(self.selection) + len(self.volunteers)

    @property
    def all_answers(self) -> Answers:
        """Answers about pool people, selection people and volunteers, in this order: all that was paid for."""
        parts = [self.answers, self.selection_answers, self.volunteers_answers]
        return Answers.concatenate(parts, classes=self.answers.classes)

    def digest(self) -> str:
        """Return a SHA-256, 64 hex digits, of the images and of what was answered."""
        h = hashlib.sha256()
        for people, answers in ((self.pool, self.answers), (self.selection, self.selection_answers)):
            h.update(people.digest().encode())
            for column in (answers.status, answers.labels, answers.scores, answers.resolution):
                h.update(np.ascontiguousarray(column).tobytes())
        return h.hexdigest()


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
        Gets ``ledger.sqlite``, ``proxy.safetensors``, ``perturbations/``, ``perturbations.safetensors``,
        ``certificate.json``, ``controls.safetensors``, ``row.json`` and ``report.html``.
    platform : Platform
    members : sequence of Member
    roster : Roster
        Pool, selection and verification people.
    settings : Settings
    cap, concurrency, batch
        See :class:`~ttca.pooling.pool.QueryPool`.
    reporter : Reporter
        Where progress is shown.

    Notes
    -----
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
        cap: int | None = None,
        concurrency: int = 64,
        batch: int = 16,
        reporter: Reporter = silent,
    ) -> None:
        self._began = time.perf_counter()
        self.folder = Path(folder)
        self.platform = platform
        self.roster = roster
        self.settings = settings
        self.reporter = reporter
        info = platform.info
        self.classes = info.classes
        for role, people in roster.roles().items():
            if people.image_shape != info.image_shape:
                raise ActionError(
                    f"Expected {role} images of {info.image_shape}, the size the platform takes, got "
                    f"{people.image_shape}. Resize them before they are pooled. No query was spent."
                )
            if people.classes.min() < 0 or people.classes.max() >= len(self.classes):
                raise ActionError(
                    f"Expected classes 0..{len(self.classes) - 1} among the {role} people, got "
                    f"{int(people.classes.min())}..{int(people.classes.max())}. No query was spent."
                )
        if settings.goal == "parity" and np.all(roster.verification.subgroup):
            raise ActionError(
                "Expected reference people among the verification people, got none: parity compares the two groups. "
                "Let volunteers take part, or set another goal. No query was spent."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ActionError(f"Expected to make the folder {self.folder}, got: {error}. Choose another.") from None
        self.ledger = Ledger(self.folder / "ledger.sqlite")
        try:
            self.queries = QueryPool(
                platform,
                self.ledger,
                members,
                cap=cap,
                concurrency=concurrency,
                batch=batch,
                reporter=reporter,
            )
        except BaseException:
            self.ledger.close()
            raise

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    def __enter__(self) -> CollectiveAction:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the way of the data, in its order ----------------------------------------------------------------------

    def plan(self) -> dict[str, Cost]:
        """Return what each paying step would still cost at most, without spending a query."""
        pool, selection, volunteers = self._asked()
        images = np.concatenate([pool.images, selection.images, volunteers.images])
        verification = self.roster.verification
        affordable = self.queries.cost(images).affordable
        verified = (self.folder / "certificate.json").is_file()
        m = int(verification.subgroup.sum())
        audit = 0 if verified else len(verification)
        tests = 0 if verified else m * len(self.settings.epsilons)
        plan = {
            "pool": self.queries.cost(images),
            "audit": Cost(audit, 0, audit, affordable),
            "verification": Cost(tests, 0, tests, affordable),
        }
        if self.settings.controls:
            # Noise, proxy's class, class-agnostic, zero-query, JPEG, resize, wrong class; reference with δ.
            controls = 0 if self._controls_done() else 7 * m + len(verification) - m
            plan["controls"] = Cost(controls, 0, controls, affordable)
        return plan

    def pool(self) -> TransferSet:
        """Ask the platform about pool, selection and volunteers' images; only what the ledger lacks is paid."""
        pool, selection, volunteers = self._asked()
        images = np.concatenate([pool.images, selection.images, volunteers.images])
        answers = self.queries.ask(images, purpose="pool")
        first, second = len(pool), len(pool) + len(selection)
        return TransferSet(
            pool,
            answers[:first],
            selection,
            answers[first:second],
            volunteers,
            answers[second:],
        )

    def distil(self) -> tuple[Proxy, Fidelity]:
        """Train the proxy on the transfer set, or read it back.

        Raises
        ------
        ActionError
            If too little was answered, or the proxy knows no more of the platform than its favourite answer.
        """
        _check_models(self.settings.architectures)
        transfer = self.pool()
        path = self.folder / "proxy.safetensors"
        proxy, _ = self._trained(
            path,
            transfer.pool.images,
            _targets(transfer.answers),
            (transfer.selection.images, _targets(transfer.selection_answers)),
            inputs=_digest("distil", transfer.digest(), self._learning_facts()),
            what="distilling the proxy",
        )
        self._check_worth(proxy, transfer)
        return proxy, self._fidelity(proxy, transfer)

    def learn(self) -> dict[int, PerturbationSet]:
        """Learn one perturbation per class for every ε, smallest first, each from the one before; or read them."""
        proxy, fidelity = self.distil()
        inputs = self._learn_inputs(proxy)
        home = self.folder / "perturbations"
        home.mkdir(exist_ok=True)
        sets: dict[int, PerturbationSet] = {}
        previous: NDArray[np.int8] | None = None
        for epsilon in sorted(self.settings.epsilons):
            path = home / f"epsilon-{epsilon:03d}.safetensors"
            known = PerturbationSet.load(path) if path.is_file() else None
            if known is None or known.evidence.get("inputs") != inputs or known.epsilon != epsilon:
                began = time.perf_counter()
                delta = self._universal(proxy, epsilon, initial=previous, what=f"learning δ, ε = {epsilon}")
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
                    },
                )
                known.save(path)
            sets[epsilon] = known
            previous = known.delta
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
                if not (self.folder / "perturbations.safetensors").is_file():
                    self._publishable(sets[certificate.quoted_epsilon], certificate)
                return certificate
        members = people[people.subgroup]
        others = people[~people.subgroup]

        def ask(images: Images, purpose: str) -> Answers:
            return self.queries.ask(images, purpose=purpose, epoch=epoch)

        before = ask(members.images, "audit")
        reference = ask(others.images, "audit") if len(others) else Answers.failed(0, len(self.classes))
        certificate = certify(
            lambda epsilon: count_right(
                *_counted(ask(sets[epsilon].apply(members.images, members.classes), "verification"), members)
            ),
            epsilons=self.settings.epsilons,
            reference=count_right_at_most(*_counted(reference, others)),
            before=count_right_at_most(*_counted(before, members)),
            alpha=self.settings.alpha,
            goal=self.settings.goal,
        )
        _write_json(path, {"epoch": epoch, "certificate": certificate.to_dict()})
        self._publishable(sets[certificate.quoted_epsilon], certificate)
        return certificate

    def measure(
        self,
        people: People | None = None,
        *,
        pool: QueryPool | None = None,
        track: str | None = None,
        regime: Literal["own", "public"] = "own",
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
        regime : {"own", "public"}
            Whether public labelled data stood behind the proxy and its control.

        Returns
        -------
        Row, Measurement
            The row, and the answers behind it. Every number was measured on uint8 images sent to the platform.
        """
        if (people is None) != (pool is None):
            raise ActionError("Expected test people together with the pool that pays for them, got only one of both.")
        if people is not None:
            # Proves that no test person has another role.
            replace(self.roster, test=people)
        if pool is not None and pool.ledger.path.resolve() == self.ledger.path.resolve():
            raise ActionError(
                "Expected a pool with a ledger of its own to pay for test people, got the members'. Members never pay "
                "for a benchmark."
            )
        certificate = self.verify()
        sets = self.learn()
        proxy, _ = self.distil()
        transfer = self.pool()
        chosen = sets[certificate.quoted_epsilon]
        opponents = self._opponents(transfer, chosen.epsilon)
        on = self.roster.verification if people is None else people
        epoch = self._open_verification(sets) if people is None else "test"
        asker = self.queries if pool is None else pool
        purpose = "controls" if people is None else "test"
        measurement = measure(
            lambda images: asker.ask(images, purpose=purpose, epoch=epoch),
            on,
            perturbations=chosen,
            opponents=opponents,
            proxy=lambda images: proxy.predict(images).argmax(1).astype(np.int64),
            seed=self.settings.seed,
        )
        row = self._row(track, regime, certificate, chosen, transfer, measurement)
        if people is None:
            evidence = {**chosen.evidence, "abuse_rate": row.abuse_rate}
            self._publishable(replace(chosen, evidence=evidence), certificate)
        _write_json(self.folder / "row.json", row.to_dict())
        return row, measurement

    # -- inside -------------------------------------------------------------------------------------------------

    def _controls_done(self) -> bool:
        """Whether the row was measured on verification people (``row.json`` may be about test people)."""
        path = self.folder / "perturbations.safetensors"
        return path.is_file() and "abuse_rate" in PerturbationSet.load(path).evidence

    def _asked(self) -> tuple[People, People, People]:
        pool, selection = self.roster.pool, self.roster.selection
        return pool, selection[selection.subgroup], selection[~selection.subgroup]

    def _learning_facts(self) -> dict[str, Any]:
        s = self.settings
        return {
            "architectures": s.architectures,
            "epochs": s.epochs,
            "shift": s.shift,
            "flip": s.flip,
            "mixup": s.mixup,
            "seed": s.seed,
        }

    def _trained(
        self,
        path: Path,
        images: Images,
        targets: Targets,
        selection: tuple[Images, Targets],
        *,
        inputs: str,
        what: str,
    ) -> tuple[Proxy, dict[str, str]]:
        """Train a proxy, or read the one at ``path`` if it was trained from the same inputs."""
        distillation = _distillation()
        from safetensors import SafetensorError, safe_open

        if path.is_file():
            try:
                with safe_open(path, framework="numpy") as file:
                    facts = dict(file.metadata() or {})
                if facts.get("inputs") == inputs:
                    return distillation.Proxy.load(path), facts
            except (SafetensorError, OSError, ValueError) as error:
                raise ActionError(
                    f"Expected a proxy in {path}, got a file that cannot be read ({error}). Delete it and run again."
                ) from None
        s = self.settings
        began = time.perf_counter()
        with self.reporter.track(what, s.epochs, unit="epochs") as advance:
            try:
                result = distillation.distil(
                    images,
                    targets,
                    architectures=s.architectures,
                    seed=s.seed,
                    selection=selection,
                    epochs=s.epochs,
                    shift=s.shift,
                    flip=s.flip,
                    mixup=s.mixup,
                    progress=lambda *_: advance(1),
                )
            except ValueError as error:
                raise ActionError(str(error)) from None
        facts = {"inputs": inputs, "seconds": f"{time.perf_counter() - began:.3f}"}
        result.proxy.save(path, facts)
        return result.proxy, facts

    def _universal(
        self,
        proxy: Proxy,
        epsilon: int,
        *,
        what: str,
        initial: NDArray[np.int8] | None = None,
        agnostic: bool = False,
    ) -> NDArray[np.int8]:
        from attacks.universal import learn_universal

        pool, selection, _ = self._asked()
        # δ is for the subgroup: it is learned on their images alone, whoever else was asked.
        pool = pool[pool.subgroup]
        s = self.settings
        with self.reporter.track(what, s.steps) as advance:
            done = 0

            def progress(step: int, _steps: int, _success: float) -> None:
                nonlocal done
                advance(step - done)
                done = step

            result = learn_universal(
                proxy,
                pool.images,
                pool.classes,
                epsilon=epsilon,
                groups=np.zeros_like(pool.classes) if agnostic else None,
                group_count=1 if agnostic else len(self.classes),
                seed=s.seed,
                selection=(
                    selection.images,
                    selection.classes,
                    np.zeros_like(selection.classes) if agnostic else None,
                ),
                initial=initial,
                steps=s.steps,
                shift=s.shift,
                progress=progress,
            )
        return result.delta

    def _check_worth(self, proxy: Proxy, transfer: TransferSet) -> None:
        """Raise where the proxy knows no more of the platform than its favourite answer to selection people.

        Members alone are the first measure. Where most of them get one and the same answer, which is how bad it can
        be, volunteers' answers tell a proxy that knows the platform from one that always says the same.
        """
        from proxies.fidelity import agreement

        members = transfer.selection.images, transfer.selection_answers
        everybody = (
            np.concatenate([members[0], transfer.volunteers.images]),
            Answers.concatenate([members[1], transfer.volunteers_answers], classes=len(self.classes)),
        )
        for images, answers in (members, everybody):
            named = answers.labels[answers.answered]
            if not len(named):
                raise ActionError(
                    "Expected answers about selection people, got none that names a class. Without them nobody knows "
                    "whether the proxy is any good; verification queries would be wasted now."
                )
            favourite = np.bincount(named).max() / len(named)
            rate = agreement(proxy.predict(images).argmax(1).astype(np.int64), answers.labels).rate
            if rate > favourite:
                return
        raise ActionError(
            f"Expected a proxy that agrees with the platform more often than its favourite answer alone "
            f"({favourite:.2f}), got {rate:.2f} on selection people. More or other queries, or "
            "another architecture, are needed; verification queries would be wasted now."
        )

    def _fidelity(self, proxy: Proxy, transfer: TransferSet) -> Fidelity:
        from proxies.fidelity import agreement

        found: list[tuple[float, tuple[float, float]]] = []
        for people, answers in (
            (transfer.selection, transfer.selection_answers),
            (transfer.volunteers, transfer.volunteers_answers),
        ):
            a = agreement(proxy.predict(people.images).argmax(1).astype(np.int64), answers.labels)
            low, high = clopper_pearson_interval(a.agree, a.n)
            found.append((a.rate, (float(low), float(high))))
        (subgroup, s_interval), (reference, r_interval) = found
        return Fidelity(subgroup, s_interval, reference, r_interval)

    def _learn_inputs(self, proxy: Proxy) -> str:
        weights = hashlib.sha256()
        for name, tensor in sorted(proxy.state_dict().items()):
            weights.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        pool, selection, _ = self._asked()
        facts = {
            "platform": self.platform.info.fingerprint,
            "epsilons": sorted(self.settings.epsilons),
            "steps": self.settings.steps,
            "shift": self.settings.shift,
            "seed": self.settings.seed,
        }
        return _digest("learn", weights.hexdigest(), pool.digest(), selection.digest(), facts)

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
            if {"audit", "verification"} & self.ledger.paid().keys():
                raise ActionError(
                    f"Expected {path}, which says what verification people were read for, got none, though the ledger "
                    "holds their answers. Restore it, or start a new action in a new folder, with new verification "
                    "people."
                )
            # Written before the first query, so that a kill in between cannot be used to look twice.
            _write_json(path, {"epoch": epoch})
        elif _read_json(path).get("epoch") != epoch:
            raise ActionError(
                "Expected verification people who were not read before, but this action already verified other "
                "perturbations, people, goals or another platform on them. A second look makes the certificate "
                "worthless: start a new action in a new folder, with new verification people."
            )
        return epoch

    def _publishable(self, chosen: PerturbationSet, certificate: Certificate) -> None:
        evidence = {**chosen.evidence, "certificate": certificate.to_dict()}
        replace(chosen, evidence=evidence).save(self.folder / "perturbations.safetensors")

    def _opponents(self, transfer: TransferSet, epsilon: int) -> Opponents:
        """Learn the δ of the controls at the row's ε: from a proxy that asked nothing, and one for all classes."""
        from attacks.universal import random_universal
        from proxies.distillation import Targets

        proxy, _ = self.distil()
        path = self.folder / "controls.safetensors"
        inputs = _digest("controls", self._learn_inputs(proxy), self._learning_facts(), epsilon)
        rng = np.random.default_rng(self.settings.seed)
        noise = random_universal(
            groups=len(self.classes), image_shape=self.platform.info.image_shape, epsilon=epsilon, rng=rng
        )
        stored = _load_controls(path, inputs)
        if stored is None:
            pool, selection = transfer.pool, transfer.selection
            count = len(self.classes)
            ignorant, _ = self._trained(
                self.folder / "zero-query-proxy.safetensors",
                pool.images,
                Targets.from_labels(pool.classes, count),
                (selection.images, Targets.from_labels(selection.classes, count)),
                inputs=_digest("zero-query", pool.digest(), selection.digest(), self._learning_facts()),
                what="training the zero-query control",
            )
            zero: NDArray[np.int8] | None = None
            # The control gets the same family of warm starts as the action.
            for level in sorted(e for e in self.settings.epsilons if e <= epsilon):
                zero = self._universal(
                    ignorant, level, initial=zero, what=f"learning δ of the zero-query control, ε = {level}"
                )
            agnostic = self._universal(proxy, epsilon, what="learning one δ for all classes", agnostic=True)
            if zero is None:
                raise ActionError(f"Expected ε = {epsilon} in the family {self.settings.epsilons}, got none.")
            stored = {"zero_query": zero, "class_agnostic": agnostic}
            _save_controls(path, stored, inputs)
        chosen = PerturbationSet(
            stored["zero_query"], epsilon, self.classes, self.settings.subgroup, self.platform.info.fingerprint
        )
        return Opponents(
            noise=replace(chosen, delta=noise),
            zero_query=chosen,
            class_agnostic=replace(chosen, delta=np.repeat(stored["class_agnostic"], len(self.classes), axis=0)),
        )

    def _row(
        self,
        track: str | None,
        regime: str,
        certificate: Certificate,
        chosen: PerturbationSet,
        transfer: TransferSet,
        measured: Measurement,
    ) -> Row:
        paid = self.ledger.paid()
        low, high = measured.interval("subgroup_after")
        from safetensors import safe_open

        with safe_open(self.folder / "proxy.safetensors", framework="numpy") as file:
            seconds_distil = float((file.metadata() or {}).get("seconds", "nan"))
        seconds_learn = float(sum(s.evidence.get("seconds", float("nan")) for s in self.learn().values()))
        return Row(
            track=track or self.settings.name,
            regime=regime,
            answers=_kind(transfer.answers),
            queries=transfer.images,
            epsilon=chosen.epsilon,
            seed=self.settings.seed,
            queries_pool=paid.get("pool", 0),
            queries_audit=paid.get("audit", 0),
            queries_verification=paid.get("verification", 0),
            coverage=measured.coverage,
            composition=transfer.composition,
            reference_before=measured.rate("reference_before"),
            subgroup_before=measured.rate("subgroup_before"),
            gap_before=measured.rate("reference_before") - measured.rate("subgroup_before"),
            subgroup_after=measured.rate("subgroup_after"),
            subgroup_after_lower=low,
            subgroup_after_upper=high,
            gap_closed=measured.gap_closed,
            parity_certified=bool(certificate.parity_certified),
            certificate_lower=certificate.lower.value,
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


def _distillation() -> Any:
    """Return the distillation module, or say how to install what it needs."""
    try:
        from proxies import distillation, runtime
    except ImportError as error:
        if error.name in ("torch", "timm", "torchvision"):
            raise MissingExtraError("Distilling a proxy", "learn") from None
        raise
    runtime.keep_freed_memory()
    return distillation


def _check_models(architectures: Sequence[str]) -> None:
    """Raise before anything is asked when a model of the proxy cannot be made here."""
    _distillation()
    names = [a.removeprefix("timm/") for a in architectures if a.startswith("timm/")]
    if names:
        import timm

        unknown = [name for name in names if not timm.is_model(name)]
        if unknown:
            raise ConfigError(f"Expected a name that timm.create_model knows, got {unknown[0]!r}. No query was spent.")


def _targets(answers: Answers) -> Targets:
    from proxies.distillation import Targets

    return Targets(answers.labels, answers.scores)


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


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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


def _load_controls(path: Path, inputs: str) -> dict[str, NDArray[np.int8]] | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("inputs") != inputs:
                return None
            return {name: file.get_tensor(name) for name in ("zero_query", "class_agnostic")}
    except (SafetensorError, OSError, ValueError) as error:
        raise ActionError(
            f"Expected the controls' δ in {path}, got a file that cannot be read ({error}). Delete it and run again."
        ) from None


def _save_controls(path: Path, deltas: dict[str, NDArray[np.int8]], inputs: str) -> None:
    from safetensors.numpy import save_file

    partial = path.with_suffix(".partial")
    save_file(deltas, partial, metadata={"inputs": inputs})
    partial.replace(path)


def _peak_rss_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

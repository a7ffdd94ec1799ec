"""What a collective learns from answers: the proxy, δ against it, and the altered copies worth asking about next."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.attacks.options import load_attack
from ttca.blocks import check_block, enlarge, seen
from ttca.errors import ActionError, ConfigError, MissingExtraError, as_sentence
from ttca.images import Images, ImageShape
from ttca.kept import Facts, digest, load_arrays, made_from, save_arrays
from ttca.people import People
from ttca.private import private_folder
from ttca.progress import Reporter
from ttca.proxies.options import Distilling
from ttca.proxies.registry import find_model
from ttca.settings import Settings
from ttca.values import OneLine
from ttca.weights import Start

if TYPE_CHECKING:
    from ttca.attacks.universal import Attack, Model
    from ttca.labeling import Labeled
    from ttca.proxies.distillation import Answered, Proxy, Targets

__all__ = ["Learner", "Primer", "digest", "load_arrays", "targets_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Primer(OneLine):
    """What a proxy learns before answers do.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    targets : Targets
    digest : str
        Of both.
    """

    images: Images
    targets: Targets
    digest: str


class Learner:
    """Proxies and δ of one action; every one is kept in a file with a digest of what went in.

    Parameters
    ----------
    settings : Settings
    classes : int
        Number of classes C.
    image_shape : (H, W, 3)
        Of the platform. Proxies see images averaged over blocks, and δ is constant within them.
    reporter : Reporter
    attack : Attack, optional
        Learns every δ instead of ttca's own (:class:`ttca.attacks.universal.Attack`).
    start : Start, optional
        What the proxy's models begin with; default random weights.

    Raises
    ------
    MissingExtraError, ConfigError
        If torch or an architecture is not there, the block does not divide the images, or the attack does not say its
        options.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        classes: int,
        image_shape: ImageShape,
        reporter: Reporter,
        attack: Attack | None = None,
        start: Start | None = None,
    ) -> None:
        _check_models(settings.distilling)
        if attack is not None:
            _check_guest(attack, settings)
        check_block(settings.block, image_shape)
        self.settings = settings
        self.classes = classes
        self.image_shape = image_shape
        self.reporter = reporter
        self._guest = attack
        #: What the proxy's models begin with.
        self.start = Start(tuple(map(str, settings.architectures))) if start is None else start

    def facts(self, *, public: bool = False) -> Facts:
        """Return all options that decide what a proxy becomes, or what it becomes of public data alone."""
        s = self.settings
        used = {"warming": s.warming} if public else {"distilling": s.distilling, "tuning": s.tuning}
        now = {name: self.start.options(o).identity for name, o in used.items()}
        own = ("public_epochs",) if public else ("public_epochs", "epochs", "mixup")
        together = ("processes",) if s.processes > 1 else ()
        names = ("architectures", *together, "shift", "flip", "warp", "block", "precision", "seed", *own)
        return Facts(
            {"block": s.block, "processes": s.processes, **now},
            None if self.start.backbones else _as_version_0_1(s, tuple(used), names),
        )

    def delta_facts(self, **more: Any) -> Facts:
        """Return all options that decide what δ becomes, with whatever else the caller knows of, JSON-able."""
        s = self.settings
        now = {**more, "block": s.block, "attack": s.attack, "perturbing": asdict(s.perturbing)}
        if self._guest is not None:
            return Facts({**now, "guest": [_name(self._guest), repr(self._guest)]})
        names = ("steps", "shift", "flip", "block", "loss", "transforms", "precision", "seed")
        before = _as_version_0_1(s, ("perturbing",), names)
        return Facts(now, None if before is None else {**more, **before})

    def attack(self, steps: int | None = None) -> Attack:
        """Return what learns δ: the guest, the one that the settings name, or ttca's own, in so many steps.

        A guest was given as it is, and decides itself how long it takes.
        """
        from ttca.attacks.universal import SignDescent

        if self._guest is not None:
            return self._guest
        options = self.settings.perturbing
        options = options if steps is None else replace(options, steps=steps)
        return load_attack(self.settings.attack, options) if self.settings.attack else SignDescent(options)

    def check(self) -> None:
        """Raise where models or the attack cannot be made, or the models take no images of this size.

        Raises
        ------
        ConfigError
        """
        from ttca.proxies.distillation import Proxy
        from ttca.proxies.runtime import fixed_threads

        options = self.start.options(self.settings.distilling)
        blank = np.zeros((1, *(side // self.settings.block for side in self.image_shape[:2]), 3), np.uint8)
        try:
            with fixed_threads(self.settings.threads):
                made = Proxy(options.architectures, classes=self.classes, seed=0, backbones=options.backbones)
                shape = made.predict(blank).shape
            self.attack()
        except Exception as error:  # a guest's model may raise anything
            raise ConfigError(
                f"Expected models that take images of {blank.shape[1]}×{blank.shape[2]} pixels, and an attack that can "
                f"be made, got: {as_sentence(error)} Choose others in architectures, weights or attack. No query was "
                "spent."
            ) from error
        if shape != (1, self.classes):
            raise ConfigError(
                f"Expected models with {self.classes} logits for an image, got {shape[1:]}. Choose others in "
                "architectures. No query was spent."
            )

    def seen(self, images: Images) -> Images:
        """Return images as proxies see them: averaged over blocks, unless they already are."""
        return seen(images, self.settings.block, self.image_shape)

    def predict(self, proxy: Proxy, images: Images) -> NDArray[np.int64]:
        """Return the classes a proxy names, int64 (N,)."""
        from ttca.proxies.runtime import fixed_threads

        with fixed_threads(self.settings.threads):
            named: NDArray[np.int64] = proxy.predict(self.seen(images)).argmax(1).astype(np.int64)
        return named

    def judged_by(self, judges: People) -> list[str]:
        """Return what of the people who choose the rates of published weights decides a proxy; nothing without any."""
        return [judges.digest()] if self.start.backbones else []

    def primer(self, people: People | None, labeled: Labeled | None = None) -> Primer | None:
        """Return what people's true classes teach, and public images as they were labeled; None without any."""
        from ttca.proxies.distillation import Targets

        if labeled is None:
            return None if people is None else Primer(people.images, self.true(people), people.digest())
        said = Targets(labeled.scores.argmax(1).astype(np.int64), labeled.scores)
        if people is None:
            return Primer(labeled.images, said, labeled.digest)
        true, images = self.true(people), np.concatenate([people.images, labeled.images])
        both = [np.concatenate([getattr(t, name) for t in (true, said)]) for name in ("labels", "scores")]
        return Primer(images, Targets(*both), digest(people.digest(), labeled.digest))

    def warm_start_inputs(self, primer: Primer, judges: People) -> str:
        """Return a digest, 64 hex digits, of all that decides what :meth:`warm_start` gives."""
        return digest("public", primer.digest, *self.judged_by(judges), self.facts(public=True))

    def warm_start(self, path: Path, primer: Primer, judges: People, length: float = 1.0) -> Proxy:
        """Return a proxy that learned a primer alone, or read it back.

        Trained ``length`` times as long as the settings say. By their true classes, ``judges`` choose the rates of
        published weights.
        """
        proxy, _ = self._trained(
            path,
            (primer.images, primer.targets),
            replace(_of_length(self.settings.warming, length), keep_best=False),
            inputs=self.warm_start_inputs(primer, judges),
            what="learning true classes",
            selection=(judges.images, self.true(judges)),
        )
        return proxy

    def true(self, people: People) -> Targets:
        """Return true classes as a proxy learns from them."""
        from ttca.proxies.distillation import Targets

        return Targets.from_labels(people.classes, self.classes)

    def taught(
        self,
        path: Path,
        people: People,
        judges: People,
        *,
        inputs: str,
        keep_best: bool,
        length: float,
        after: tuple[Proxy, Primer] | None = None,
    ) -> Proxy:
        """Return a proxy that asked nothing: it learned true classes as :meth:`train` learns answers, or is read back.

        Trained ``length`` times as long as the settings say; ``judges`` are its selection people. It begins as the
        proxy in ``after``, and rehearses what that one learned.
        """
        initial, primer = (None, None) if after is None else after
        options = self.settings.distilling if initial is None else self.settings.tuning
        taught, judged = ((p.images, self.true(p)) for p in (people, judges))
        return self._trained(
            path,
            taught,
            replace(_of_length(options, length), keep_best=keep_best),
            inputs=inputs,
            what="training the zero-query control",
            selection=judged,
            initial=initial,
            replay=self._rehearsed(primer),
        )[0]

    def _rehearsed(self, primer: Primer | None) -> Answered | None:
        return None if primer is None else (self.seen(primer.images), primer.targets)

    def train(
        self,
        path: Path,
        known: Answered,
        *,
        inputs: str,
        what: str,
        selection: Answered,
        keep_best: bool,
        initial: Proxy | None = None,
        replay: Primer | None = None,
    ) -> tuple[Proxy, dict[str, str]]:
        """Train a proxy on answers, or read the one at ``path`` if it was trained from the same ``inputs``.

        Returns
        -------
        Proxy, dict
            And what is written beside it: ``inputs``, the ``seconds`` that training took, and on how many ``threads``.
        """
        return self._trained(
            path,
            known,
            replace(self.settings.distilling if initial is None else self.settings.tuning, keep_best=keep_best),
            inputs=inputs,
            what=what,
            selection=selection,
            initial=initial,
            replay=self._rehearsed(replay),
        )

    def _trained(
        self,
        path: Path,
        known: Answered,
        options: Distilling,
        *,
        inputs: str,
        what: str,
        selection: Answered,
        initial: Proxy | None = None,
        replay: Answered | None = None,
    ) -> tuple[Proxy, dict[str, str]]:
        from safetensors import SafetensorError, safe_open

        from ttca.proxies import distillation
        from ttca.proxies.runtime import best_device, fixed_threads

        options = self.start.options(options)
        if path.is_file():
            try:
                with safe_open(path, framework="numpy") as file:
                    facts = dict(file.metadata() or {})
                if made_from(facts.get("inputs"), inputs):
                    kept = distillation.Proxy.load(path, backbones=options.backbones)
                    return kept.to(best_device()), facts
            except (SafetensorError, OSError, ValueError) as error:
                raise ActionError(
                    f"Expected a proxy at {path}, got a file that cannot be read ({error}). Delete it and run again."
                ) from None
        train: Any = partial(distillation.train_proxy, device=best_device())
        if self.settings.processes > 1:
            from ttca.proxies.parallel import train_proxy_in_processes

            train = partial(train_proxy_in_processes, self.settings.processes)
        began, done = time.perf_counter(), 0
        with self.reporter.track(what, options.epochs, unit="epochs") as advance:

            def learned(epoch: int, *_: object) -> None:
                # A training that diverges begins again, at a lower rate.
                nonlocal done
                advance(max(epoch - done, 0))
                done = max(epoch, done)

            try:
                result = train(
                    self.seen(known[0]),
                    known[1],
                    options,
                    selection=(self.seen(selection[0]), selection[1]),
                    initial=initial,
                    replay=replay,
                    progress=learned,
                )
            except ValueError as error:
                raise ActionError(str(error)) from None
        with fixed_threads(options.threads) as threads:
            seconds = f"{time.perf_counter() - began:.3f}"
            facts = {
                "inputs": inputs,
                "seconds": seconds,
                "threads": str(threads),
                "recipe": self.settings.recipe,
            }
            if result.rates:
                facts["rates"] = json.dumps(result.rates)
        private_folder(path.parent)
        result.proxy.save(path, facts)
        return result.proxy.to(best_device()), facts

    def universal(
        self,
        proxy: Model,
        people: People,
        selection: People,
        epsilon: int,
        *,
        what: str,
        initial: NDArray[np.int8] | None = None,
        agnostic: bool = False,
        steps: int | None = None,
    ) -> NDArray[np.int8]:
        """Return one δ per class, int8 (C, H, W, 3), or one for all (1, H, W, 3), learned on ``people``.

        ``proxy`` is any model as :class:`ttca.attacks.universal.Attack` takes it.
        """
        from ttca.attacks.universal import Examples
        from ttca.proxies.distillation import Proxy
        from ttca.proxies.runtime import best_device

        if self._guest is None and self.settings.loss == "centered-logit" and isinstance(proxy, Proxy):
            proxy = proxy.balanced
        block = self.settings.block
        groups = 1 if agnostic else self.classes
        attack = self.attack(steps)

        def examples(whose: People) -> Examples:
            return Examples(self.seen(whose.images), whose.classes, np.zeros_like(whose.classes) if agnostic else None)

        learned = examples(people)
        with self.reporter.track(what, self.settings.steps if steps is None else steps) as advance:
            done = 0

            def progress(step: int, _steps: int, _success: float) -> None:
                nonlocal done
                advance(step - done)
                done = step

            found = attack.learn(
                proxy,
                learned,
                epsilon=epsilon,
                groups=groups,
                selection=examples(selection),
                initial=None if initial is None else np.ascontiguousarray(initial[:, ::block, ::block]),
                device=best_device(),
                progress=progress,
            )
        return enlarge(_within(found, attack, (groups, *learned.images.shape[1:]), epsilon), block)

    def altered_copies(
        self, path: Path, proxy: Proxy, people: People, learned_on: People, selection: People, *, inputs: str, turn: int
    ) -> Images:
        """Return a copy of each person's image under the δ that the proxy believes in, uint8 (N, H, W, 3).

        Half get δ of their own class, half that of another, at a random strength. What the platform says about
        them tells the proxy where its idea of "more like class c" is wrong, which plain images never do [ours, in the
        spirit of Papernot et al. 2017, arXiv 1602.02697]. Kept in a file, so that a run that was killed asks about the
        same bytes.
        """
        stored = load_arrays(path, inputs, ("images",))
        if stored is not None:
            return stored["images"]
        epsilon = max(self.settings.epsilons)
        delta = self.universal(
            proxy,
            learned_on,
            selection,
            epsilon,
            what=f"learning δ for the queries of round {turn}",
            steps=-(-self.settings.steps // 2),
        )
        rng = np.random.default_rng([self.settings.seed, turn])
        other = (people.classes + rng.integers(1, self.classes, len(people))) % self.classes
        target = np.where(rng.random(len(people)) < 0.5, people.classes, other)
        strength = rng.uniform(0.25, 1.0, (len(people), 1, 1, 1))
        moved = people.images + np.rint(delta[target] * strength)
        images = np.clip(moved, 0, 255).astype(np.uint8)
        save_arrays(path, {"images": images}, inputs)
        return images


def _of_length(options: Distilling, length: float) -> Distilling:
    """Return options for a training that is so many times as long, of one epoch at least."""
    return options if length == 1 else replace(options, epochs=max(round(options.epochs * length), 1))


def targets_of(answers: Answers) -> Targets:
    """Return answers as a proxy learns from them; what names no class weighs nothing."""
    from ttca.proxies.distillation import Targets

    return Targets(answers.labels, answers.scores)


def _as_version_0_1(settings: Settings, roles: Sequence[str], names: Sequence[str]) -> dict[str, Any] | None:
    """EARLIER VERSIONS: return the list of settings of which version 0.1 made its digests, to read what it kept.

    None where it could not have done the same: it knew no attacks of guests, and what it did not list it always did as
    below. Delete this function when files of version 0.1 need no longer be read.
    """
    proxies = {"weight_decay": 5e-2, "temperature": 2.0, "threads": None}
    always: dict[str, dict[str, Any]] = {
        "warming": {**proxies, "batch_size": 128, "learning_rate": 4e-3, "mixup": 0.0},
        "distilling": {**proxies, "batch_size": 64, "learning_rate": 2e-3},
        "tuning": {**proxies, "batch_size": 64, "learning_rate": 1e-3},
        "perturbing": {
            "batch_size": 128, "kappa": 4.0, "step_size": None, "momentum": 0.9, "check_every": 10, "threads": None,
        },
    }  # fmt: skip
    listed = {"epochs", *names}
    for role in roles:
        options = getattr(settings, role)
        known = options.identity if isinstance(options, Distilling) else asdict(options)
        rest = {k: v for k, v in known.items() if k in always[role] or k not in listed}
        if settings.attack or rest != always[role]:
            return None
    return {name: getattr(settings, name) for name in names}


def _check_models(options: Distilling) -> None:
    """Raise before anything is asked when a model of the proxy cannot be made here."""
    try:
        from ttca.proxies import distillation, runtime  # noqa: F401 - distillation needs torch
    except ImportError as error:
        if error.name in ("torch", "timm", "torchvision"):
            raise MissingExtraError("Distilling a proxy", "learn") from None
        raise
    runtime.keep_freed_memory()
    for name in map(str, options.architectures):
        if name.startswith("timm/"):
            import timm

            if not timm.is_model(name.removeprefix("timm/")):
                raise ConfigError(
                    f"Expected a name that timm.create_model knows, got {name.removeprefix('timm/')!r}. No query was "
                    "spent."
                )
            continue
        try:
            find_model(name)
        except ValueError as error:
            raise ConfigError(f"{as_sentence(error)} No query was spent.") from None


def _name(attack: Attack) -> str:
    return f"{type(attack).__module__}:{type(attack).__qualname__}"


def _check_guest(attack: Attack, settings: Settings) -> None:
    """Raise where it is not clear which attack learns, or what it was told."""
    if not callable(getattr(attack, "learn", None)):
        raise ConfigError(f"Expected an attack with a method learn, got {attack!r}.")
    if settings.attack:
        raise ConfigError(
            f"Expected one attack, got {_name(attack)} and the setting attack = {settings.attack!r}. Leave one out."
        )
    if f"at 0x{id(attack):x}" in repr(attack):
        raise ConfigError(
            f"Expected an attack that prints its options, got {_name(attack)}, which prints where it lies in memory. "
            "Kept δ are read again only for the same attack. Make it a dataclass, or write its __repr__."
        )


def _within(found: Any, attack: Attack, shape: tuple[int, ...], epsilon: int) -> NDArray[np.int8]:
    """Return an attack's δ inside the budget, whoever wrote it, or raise where it is none."""
    delta = getattr(found, "delta", None)
    if not isinstance(delta, np.ndarray) or delta.dtype != np.int8 or delta.shape != shape:
        got = f"{delta.dtype} {delta.shape}" if isinstance(delta, np.ndarray) else type(found).__name__
        raise ActionError(f"Expected a Universal with δ as int8 {shape} from the attack {_name(attack)}, got {got}.")
    return np.clip(delta, -epsilon, epsilon)

"""What a collective learns from answers: the proxy, δ against it, and the altered copies worth asking about next."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttca.answers import Answers
from ttca.blocks import check_block, enlarge, seen
from ttca.errors import ActionError, ConfigError, MissingExtraError
from ttca.images import Images, ImageShape
from ttca.people import People
from ttca.progress import Reporter
from ttca.settings import Settings

if TYPE_CHECKING:
    from ttca.attacks.universal import Model
    from ttca.proxies.distillation import Proxy, Targets

__all__ = ["Learner", "digest", "load_arrays", "targets_of"]

#: Public data are many and clean; answers are few, and must not wash out what was learned before.
_PUBLIC = {"batch_size": 128, "learning_rate": 4e-3}
_TUNING = {"learning_rate": 1e-3}
#: Steps count for more than images per step, and half of them are enough for δ that is only asked about.
_DELTA_BATCH = 128


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

    Raises
    ------
    MissingExtraError, ConfigError
        If torch or an architecture is not there, or the block does not divide the images.
    """

    def __init__(self, settings: Settings, *, classes: int, image_shape: ImageShape, reporter: Reporter) -> None:
        _check_models(settings.architectures)
        check_block(settings.block, image_shape)
        self.settings = settings
        self.classes = classes
        self.image_shape = image_shape
        self.reporter = reporter

    def facts(self, *, public: bool = False) -> dict[str, Any]:
        """Return the settings that decide what a proxy becomes, or what it becomes of public data alone, JSON-able."""
        own = ("public_epochs",) if public else ("public_epochs", "epochs", "mixup")
        # What one process made under an earlier version stays valid.
        together = ("processes",) if self.settings.processes > 1 else ()
        names = ("architectures", *together, "shift", "flip", "warp", "block", "precision", "seed", *own)
        return {name: getattr(self.settings, name) for name in names}

    def seen(self, images: Images) -> Images:
        """Return images as proxies see them: averaged over blocks, unless they already are."""
        return seen(images, self.settings.block, self.image_shape)

    def predict(self, proxy: Proxy, images: Images) -> NDArray[np.int64]:
        """Return the classes a proxy names, int64 (N,)."""
        named: NDArray[np.int64] = proxy.predict(self.seen(images)).argmax(1).astype(np.int64)
        return named

    def warm_start_inputs(self, public: People) -> str:
        """Return a digest, 64 hex digits, of all that decides what :meth:`warm_start` gives."""
        return digest("public", public.digest(), self.facts(public=True))

    def warm_start(self, path: Path, public: People) -> Proxy:
        """Return a proxy that asked nothing: public labelled images and their true classes, or read it back."""
        proxy, _ = self.train(
            path,
            public.images,
            self.true(public),
            inputs=self.warm_start_inputs(public),
            what="learning from public data",
            epochs=self.settings.public_epochs,
            public=True,
        )
        return proxy

    def true(self, people: People) -> Targets:
        """Return true classes as a proxy learns from them."""
        from ttca.proxies.distillation import Targets

        return Targets.from_labels(people.classes, self.classes)

    def train(
        self,
        path: Path,
        images: Images,
        targets: Targets,
        *,
        inputs: str,
        what: str,
        epochs: int,
        selection: tuple[Images, Targets] | None = None,
        initial: Proxy | None = None,
        replay: People | None = None,
        public: bool = False,
    ) -> tuple[Proxy, dict[str, str]]:
        """Train a proxy, or read the one at ``path`` if it was trained from the same ``inputs``.

        Returns
        -------
        Proxy, dict
            And what is written beside it: ``inputs`` and the ``seconds`` that training took.
        """
        from safetensors import SafetensorError, safe_open

        from ttca.proxies import distillation
        from ttca.proxies.runtime import best_device

        if path.is_file():
            try:
                with safe_open(path, framework="numpy") as file:
                    facts = dict(file.metadata() or {})
                if facts.get("inputs") == inputs:
                    return distillation.Proxy.load(path).to(best_device()), facts
            except (SafetensorError, OSError, ValueError) as error:
                raise ActionError(
                    f"Expected a proxy at {path}, got a file that cannot be read ({error}). Delete it and run again."
                ) from None
        s = self.settings
        distil: Any = partial(distillation.distil, device=best_device())
        if s.processes > 1:
            from ttca.proxies.parallel import distil_in_processes

            distil = partial(distil_in_processes, s.processes)
        manner: dict[str, Any] = _PUBLIC if public else _TUNING if initial is not None else {}
        began = time.perf_counter()
        with self.reporter.track(what, epochs, unit="epochs") as advance:
            try:
                result = distil(
                    self.seen(images),
                    targets,
                    architectures=s.architectures,
                    seed=s.seed,
                    selection=None if selection is None else (self.seen(selection[0]), selection[1]),
                    initial=initial,
                    replay=None if replay is None else (self.seen(replay.images), self.true(replay)),
                    epochs=epochs,
                    shift=s.shift,
                    flip=s.flip,
                    warp=s.warp,
                    mixup=s.mixup,
                    precision=s.precision,
                    progress=lambda *_: advance(1),
                    **manner,
                )
            except ValueError as error:
                raise ActionError(str(error)) from None
        facts = {"inputs": inputs, "seconds": f"{time.perf_counter() - began:.3f}"}
        path.parent.mkdir(exist_ok=True)
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

        ``proxy`` is any model as :func:`ttca.attacks.universal.learn_universal` takes it.
        """
        from ttca.attacks.universal import learn_universal
        from ttca.proxies.runtime import best_device

        s = self.settings
        steps = s.steps if steps is None else steps
        with self.reporter.track(what, steps) as advance:
            done = 0

            def progress(step: int, _steps: int, _success: float) -> None:
                nonlocal done
                advance(step - done)
                done = step

            result = learn_universal(
                proxy,
                self.seen(people.images),
                people.classes,
                epsilon=epsilon,
                groups=np.zeros_like(people.classes) if agnostic else None,
                group_count=1 if agnostic else self.classes,
                seed=s.seed,
                selection=(
                    self.seen(selection.images),
                    selection.classes,
                    np.zeros_like(selection.classes) if agnostic else None,
                ),
                initial=None if initial is None else np.ascontiguousarray(initial[:, :: s.block, :: s.block]),
                loss=s.loss,
                steps=steps,
                batch_size=_DELTA_BATCH,
                shift=s.shift,
                flip=s.flip,
                transforms=s.transforms,
                precision=s.precision,
                device=best_device(),
                progress=progress,
            )
        return enlarge(result.delta, s.block)

    def altered_copies(
        self, path: Path, proxy: Proxy, people: People, learned_on: People, selection: People, *, inputs: str, turn: int
    ) -> Images:
        """Return a copy of each person's image under the δ that the proxy believes in, uint8 (N, H, W, 3).

        Half get δ of their own class, half that of another, at a random strength: what the platform says about
        them tells the proxy where its idea of "more like class c" is wrong, which plain images never do [ours, in the
        spirit of Papernot et al. 2017, arXiv 1602.02697]. Kept in a file, so that a run that was killed asks about the
        same bytes.
        """
        from safetensors.numpy import save_file

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
        partial = path.with_suffix(".partial")
        save_file({"images": images}, partial, metadata={"inputs": inputs})
        partial.replace(path)
        return images


def targets_of(answers: Answers) -> Targets:
    """Return answers as a proxy learns from them; what names no class weighs nothing."""
    from ttca.proxies.distillation import Targets

    return Targets(answers.labels, answers.scores)


def digest(*parts: Any) -> str:
    """Return a SHA-256, 64 hex digits, of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_arrays(path: Path, inputs: str | None, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]] | None:
    """Read arrays kept with a digest of what went in; None where they are not there, or of other ``inputs``.

    Without ``names``, all that the file holds.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            if inputs is not None and (file.metadata() or {}).get("inputs") != inputs:
                return None
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except (SafetensorError, OSError, ValueError) as error:
        raise ActionError(
            f"Expected a file that this action wrote at {path}, got one that cannot be read ({error}). Delete it and "
            "run again."
        ) from None


def _check_models(architectures: Sequence[str]) -> None:
    """Raise before anything is asked when a model of the proxy cannot be made here."""
    try:
        from ttca.proxies import distillation, runtime  # noqa: F401 - distillation needs torch
    except ImportError as error:
        if error.name in ("torch", "timm", "torchvision"):
            raise MissingExtraError("Distilling a proxy", "learn") from None
        raise
    runtime.keep_freed_memory()
    names = [a.removeprefix("timm/") for a in architectures if a.startswith("timm/")]
    if names:
        import timm

        unknown = [name for name in names if not timm.is_model(name)]
        if unknown:
            raise ConfigError(f"Expected a name that timm.create_model knows, got {unknown[0]!r}. No query was spent.")

"""How fast are the steps of an action? Against the bare passes they need, and against the same steps in ART.

Run as ``python -m benchmarks speed``. Each ratio is a time over ours (above 1: we are faster), except
``universal_over_bare``, which is ours over the bare passes. The timed sides take turns in one process on the same
threads, after a warm-up, and a ratio is the median over the turns. ART is the Adversarial Robustness Toolbox; it
gets the same architecture, starting weights, optimizer, images and black box, and the same objective.

With ``TTCA_DATA`` set: CIFAR-10 test images, the platform is ``pretrained/cifar10-resnet20.onnx`` in that folder.
Without: scikit-learn's digits at 16×16, the platform is a small network trained here.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttca.attacks.options import Perturbing
from ttca.attacks.square import square
from ttca.attacks.universal import Examples, SignDescent
from ttca.errors import ConfigError, MissingExtraError
from ttca.proxies.distillation import Proxy, Targets, train_proxy
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.options import Distilling
from ttca.proxies.runtime import keep_freed_memory

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

__all__ = ["QUICK", "main"]

#: The arguments of the slice that `python -m benchmarks quick` runs.
QUICK = (
    "--repeats",
    "1",
    "--transfer",
    "150",
    "--epochs",
    "10",
    "--epochs-default",
    "5",
    "--attacked",
    "30",
    "--patience",
    "1.5",
    "--patience-default",
    "1.5",
)

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

LEARNING_RATE, WEIGHT_DECAY, BATCH = 2e-3, 5e-2, 64
HOW = {
    "universal_over_bare": "seconds of SignDescent (default options, selection people a quarter of the learning "
    "people) over seconds of its steps' forward and backward passes with respect to the inputs alone, on ready "
    "batches of the same size; universal_over_needed_passes adds to the denominator the forward passes of its looks "
    "at the selection people",
    "distil_vs_art_same_batch": "seconds until KnockoffNets (use_probability=True, batches of 64 for fit and query, "
    "AdamW with our learning rate and weight decay) has the fidelity of distil's result after two epochs running, "
    "looked at after every epoch off the clock, the earlier of the two counting, over seconds of asking and distil; "
    "distil is timed to its end, whenever it got there. Where it was not reached within patience times our seconds "
    "the ratio is null and _at_least is how long it was given",
    "distil_vs_art_same_batch_brief": "the same with a shorter distil, so a lower goal: who is ahead depends on the "
    "goal, as ART keeps its learning rate and has no schedule to finish. The keys that end in _first_look stop ART's "
    "clock at its first look at the goal, held or not, and are null where there was none",
    "distil_vs_art_default": "as the brief one, with KnockoffNets' default batches of 1 for fit and query",
    "universal_vs_art": "seconds of TargetedUniversalPerturbation (FGSM inside, one run per class, anew for each "
    "number of iterations) until its S on 1000 other images is that of SignDescent after 12 steps, over seconds "
    "of SignDescent; on the same proxy, S by the proxy's own answers, ours in whole levels. Ours takes first steps "
    "of ε and no shift, which suits a goal that need not transfer; universal_vs_art_own_options has our defaults for "
    "these and 40 steps, with the S of these as ART's goal, and is null where ART never got there. "
    "universal_vs_art_at_its_best: seconds until the best S that ART reached, ART over ours",
    "square_vs_art_seconds": "seconds until the lower of the two final shares of images was given its target, "
    "SquareAttack over square; both targeted at the true class with the margin as loss, the same first share (0.8), "
    "ε and budget, on images that the platform gets wrong",
    "square_vs_art_queries": "mean queries per image until that share, SquareAttack over square, one query per "
    "iteration until success for both; square_vs_art_images_sent counts every image that reached the box",
}


@dataclass(frozen=True)
class World:
    """A platform that answers with probabilities, and labelled images.

    ``box`` takes uint8 NHWC images, ``floats`` the same as ART sends them: float32 NCHW in [0, 1].
    """

    name: str
    images: Images
    labels: Labels
    classes: int
    box: Callable[[Images], Floats]
    floats: Callable[[Floats], Floats]
    flip: bool


class _Enough(Exception):
    """ART has reached what it had to, or spent what it was given."""


def main(argv: list[str]) -> dict[str, Any]:
    """Time every pair and return the ratios, how each was made, and the seconds behind them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed", description=__doc__)
    parser.add_argument("--architecture", default="small-cnn")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of every pair")
    parser.add_argument("--transfer", type=int, default=300, help="images to learn from")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of distil")
    parser.add_argument("--epochs-default", type=int, default=10, help="the same, compared with ART's default batches")
    parser.add_argument("--steps", type=int, default=10, help="steps of SignDescent, compared with the bare passes")
    parser.add_argument("--attacked", type=int, default=100, help="largest number of images for Square")
    parser.add_argument("--budget", type=int, default=200, help="queries per image for Square")
    parser.add_argument("--epsilon", type=int, default=8, help="levels for δ; half as many for Square")
    parser.add_argument("--patience", type=float, default=3.5, help="how many times as long as distil ART may take")
    parser.add_argument("--patience-default", type=float, default=21.0, help="the same, with ART's default batches")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    counts = (options.repeats, options.epochs, options.epochs_default, options.steps, options.attacked, options.budget)
    if (
        min(counts) < 1
        or options.transfer < 2
        or not 2 <= options.epsilon <= 127
        or not min(options.patience, options.patience_default) > 0
    ):
        raise ConfigError(
            "Expected repeats, epochs, steps, attacked and budget of at least 1, transfer of at least 2, ε in 2..127 "
            f"and patience above 0, got {vars(options)}. Change the one that is out of range."
        )
    began = time.perf_counter()
    # For both sides: otherwise the system's bookkeeping of large blocks is a good part of what is timed.
    keep_freed_memory()
    with _art(), _seeded(0):
        world = _world()
        proxy, distilled = _distillation(world, options)
        result = {
            **_bare(world, proxy, options),
            **distilled,
            **_universal(world, proxy, options),
            **_square(world, options),
        }
    return {
        **result,
        "how": HOW,
        "world": world.name,
        "platform_accuracy": float((world.box(world.images).argmax(1) == world.labels).mean()),
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - began,
    }


# --- the pairs ---------------------------------------------------------------------------------------------


def _bare(world: World, proxy: Proxy, options: argparse.Namespace) -> dict[str, Any]:
    """Time SignDescent against the passes that nobody can save."""
    batch = min(256, 4 * len(world.images) // 5)
    images, targets = world.images[:batch], world.labels[:batch]
    look = slice(batch, batch + batch // 4)
    selection = Examples(world.images[look], world.labels[look])
    x = to_tensor(to_levels(images))
    looked = to_tensor(to_levels(selection.images))
    y = torch.from_numpy(targets)
    looks = 1 + options.steps // 10 + (options.steps % 10 > 0)
    model = copy.deepcopy(proxy).eval().requires_grad_(False)

    def ours() -> None:
        SignDescent(Perturbing(steps=options.steps)).learn(
            proxy,
            Examples(images, targets),
            epsilon=options.epsilon,
            groups=world.classes,
            selection=selection,
        )

    def passes() -> None:
        for _ in range(options.steps):
            leaf = x.detach().requires_grad_()
            logits = model(leaf)
            torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y, reduction="sum"), leaf)

    @torch.no_grad()
    def forward() -> None:
        for _ in range(looks):
            model(looked)

    learned, bare, seen = _in_turns(options.repeats, ours, passes, forward)
    return {
        "universal_over_bare": _median_ratio(learned, bare),
        "universal_over_needed_passes": _median_ratio(learned, [b + s for b, s in zip(bare, seen, strict=True)]),
        "universal_over_bare_seconds": {"learn_universal": learned, "bare": bare, "looks": seen},
    }


def _distillation(world: World, options: argparse.Namespace) -> tuple[Proxy, dict[str, Any]]:
    """Time distil against KnockoffNets at our batch size, and once at its own; return the last proxy too."""
    n = min(options.transfer, len(world.images) // 2)
    images, held_out = world.images[:n], world.images[n : n + 1000]
    answers = world.box(held_out).argmax(1)
    tensors = to_tensor(to_levels(held_out))

    def fidelity(model: torch.nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            said = torch.cat([model(tensors[i : i + 256]).argmax(1) for i in range(0, len(tensors), 256)])
        return float((said.numpy() == answers).mean())

    def ours(seed: int, epochs: int) -> tuple[float, Proxy]:
        began = time.perf_counter()
        scores = np.concatenate([world.box(images[i : i + BATCH]) for i in range(0, n, BATCH)])
        result = train_proxy(
            images,
            Targets(scores.argmax(1).astype(np.int64), scores.astype(np.float32)),
            Distilling(
                architectures=(options.architecture,),
                seed=seed,
                epochs=epochs,
                batch_size=BATCH,
                learning_rate=LEARNING_RATE,
                weight_decay=WEIGHT_DECAY,
                flip=world.flip,
            ),
        )
        return time.perf_counter() - began, result.proxy

    def theirs(seed: int, batch: int, goal: float, limit: float) -> dict[str, Any]:
        start = Proxy((options.architecture,), classes=world.classes, seed=seed)
        return _knockoff(world, images, start, fidelity, batch=batch, goal=goal, limit=limit)

    ours(0, 1)  # warm-up
    mine, reached, runs = [], [], []
    for seed in range(options.repeats // 2 + 1):
        seconds, proxy = ours(seed, options.epochs)
        mine.append(seconds)
        reached.append(fidelity(proxy))
        runs.append(theirs(seed, BATCH, reached[-1], options.patience * seconds))
    before, short = ours(0, options.epochs_default)
    # The same goal for both of ART's batch sizes: who is ahead depends on how long distil goes on.
    brief = theirs(0, BATCH, fidelity(short), options.patience * before)
    default = theirs(0, 1, fidelity(short), options.patience_default * before)
    after, _ = ours(0, options.epochs_default)
    around = statistics.fmean([before, after])
    return proxy, {
        **_reached_ratio("distil_vs_art_same_batch", runs, mine),
        **_reached_ratio("distil_vs_art_same_batch_brief", [brief], [around]),
        **_reached_ratio("distil_vs_art_default", [default], [around]),
        "distil_vs_art_same_batch_first_look": _first_look(runs, mine),
        "distil_vs_art_same_batch_brief_first_look": _first_look([brief], [around]),
        "distil_vs_art_default_first_look": _first_look([default], [around]),
        "distil_setting": {
            "images": n,
            "architecture": options.architecture,
            "epochs": options.epochs,
            "epochs_default": options.epochs_default,
        },
        "distil_seconds": {"same_batch": mine, "default": [before, after]},
        "distil_art_same_batch": runs,
        "distil_art_same_batch_brief": brief,
        "distil_art_default": default,
    }


def _knockoff(
    world: World,
    images: Images,
    start: Proxy,
    fidelity: Callable[[torch.nn.Module], float],
    *,
    batch: int,
    goal: float,
    limit: float,
) -> dict[str, Any]:
    """Run KnockoffNets until its fidelity is ``goal`` or ``limit`` seconds are spent; looks are off the clock."""
    from art.attacks.extraction import KnockoffNets
    from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier

    looks: list[tuple[float, float]] = []
    off = 0.0

    def held() -> bool:
        # Looks are noisy, and an extractor cannot choose its best epoch: the goal has to be met twice running.
        return len(looks) > 1 and min(f for _, f in looks[-2:]) >= goal

    class Watched(PyTorchClassifier):  # type: ignore[misc, unused-ignore]
        def fit(self, x: Any, y: Any, batch_size: int = 128, nb_epochs: int = 10, **rest: Any) -> None:
            nonlocal off
            for _ in range(nb_epochs):
                super().fit(x, y, batch_size=batch_size, nb_epochs=1, **rest)
                paused = time.perf_counter()
                looks.append((paused - began - off, fidelity(start)))
                off += time.perf_counter() - paused
                if held() or looks[-1][0] > limit:
                    raise _Enough

    shape = (3, *images.shape[1:3])
    victim = BlackBoxClassifier(world.floats, shape, world.classes, clip_values=(0.0, 1.0))
    thief = Watched(
        model=start,
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.AdamW(start.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        input_shape=shape,
        nb_classes=world.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = KnockoffNets(
        victim,
        batch_size_fit=batch,
        batch_size_query=batch,
        nb_epochs=100_000,
        nb_stolen=len(images),
        use_probability=True,
        verbose=False,
    )
    x = _as_floats(images)
    began = time.perf_counter()
    with suppress(_Enough):
        attack.extract(x, thieved_classifier=thief)
    return {
        "reached": held(),
        "seconds": looks[-2 if held() else -1][0],
        "seconds_first": next((clock for clock, f in looks if f >= goal), None),
        "fidelity_best": max(f for _, f in looks),
        "fidelity_last": looks[-1][1],
        "goal": goal,
        "epochs": len(looks),
    }


def _universal(world: World, proxy: Proxy, options: argparse.Namespace) -> dict[str, Any]:
    """Time SignDescent against TargetedUniversalPerturbation, by S on images that neither learned from."""
    n = min(options.transfer, len(world.images) // 2)
    images, targets = world.images[:n], world.labels[:n]
    others, own = world.images[n : n + 1000], world.labels[n : n + 1000]
    classifier = _classifier(world, copy.deepcopy(proxy))
    x, other_x = _as_floats(images), _as_floats(others)

    def share(sent: Floats) -> float:
        return float((classifier.predict(sent).argmax(1) == own).mean())

    def learned(steps: int, **choices: Any) -> NDArray[Any]:
        attack = SignDescent(Perturbing(steps=steps, **choices))
        found = attack.learn(proxy, Examples(images, targets), epsilon=options.epsilon, groups=world.classes)
        return found.delta.transpose(0, 3, 1, 2) / np.float32(255)

    def ours(steps: int) -> NDArray[Any]:
        # No shift, as nothing has to transfer here, and a first step that reaches the ball's edge at once.
        return learned(steps, step_size=float(options.epsilon), shift=0, check_every=steps)

    def theirs(iterations: int) -> NDArray[Any]:
        return _targeted_universal(world, classifier, x, targets, options.epsilon, iterations)

    def curve(make: Callable[[int], NDArray[Any]], counts: tuple[int, ...], limit: float) -> list[dict[str, float]]:
        """Make δ anew with each count, until one took longer than the limit: seconds, and S on the other images."""
        points: list[dict[str, float]] = []
        for count in counts:
            began = time.perf_counter()
            delta = make(count)
            seconds = time.perf_counter() - began
            points.append({"count": count, "seconds": seconds, "success": share((other_x + delta[own]).clip(0, 1))})
            if seconds > limit:
                break
        return points

    ours(1)  # warm-up
    mine = curve(ours, (1, 2, 4, 8, 12), math.inf)
    full = mine[-1]
    art = curve(theirs, (1, 2, 4, 8), 2 * full["seconds"])
    again = curve(ours, (1, 2, 4, 8, 12), math.inf)
    for point, second in zip(mine, again, strict=True):
        point["seconds"] = (point["seconds"] + second["seconds"]) / 2
    (own_options,) = curve(learned, (40,), math.inf)
    at_own = [point["seconds"] for point in art if point["success"] >= own_options["success"]]
    best = max(point["success"] for point in art)
    goal = min(best, full["success"])
    their_hits = [point for point in art if point["success"] >= full["success"]]
    within = [point for point in art if point["seconds"] <= full["seconds"]] or art[:1]
    result: dict[str, Any] = {
        "universal_vs_art": their_hits[0]["seconds"] / full["seconds"] if their_hits else None,
        "universal_vs_art_at_its_best": next(point["seconds"] for point in art if point["success"] >= goal)
        / next(point["seconds"] for point in mine if point["success"] >= goal),
        "universal_vs_art_own_options": at_own[0] / own_options["seconds"] if at_own else None,
        "universal_success_before": share(other_x),
        "universal_success_ours": full["success"],
        "universal_success_art_equal_time": max(point["success"] for point in within),
        "universal_success_art_best": best,
        "universal_runs": {"ours": mine, "ours_own_options": own_options, "art": art},
    }
    if not their_hits:
        result["universal_vs_art_reason"] = (
            f"TargetedUniversalPerturbation reached S = {best:.3f} at most, in up to "
            f"{max(point['seconds'] for point in art):.1f} s; learn_universal reached {full['success']:.3f} "
            f"in {full['seconds']:.1f} s."
        )
    return result


def _targeted_universal(
    world: World, classifier: PyTorchClassifier, x: Floats, targets: Labels, epsilon: int, iterations: int
) -> NDArray[Any]:
    """Return ART's perturbations, one per class, float (classes, 3, H, W)."""
    from art.attacks.evasion import TargetedUniversalPerturbation

    one_hot = np.eye(world.classes, dtype=np.float32)[targets]
    delta = np.zeros((world.classes, *x.shape[1:]), np.float32)
    for c in np.unique(targets):
        rows = targets == c
        attack = TargetedUniversalPerturbation(
            classifier,
            attacker="fgsm",
            attacker_params={"eps": epsilon / 255, "targeted": True},
            delta=1e-6,
            max_iter=iterations,
            eps=epsilon / 255,
            norm=np.inf,
        )
        attack.generate(x[rows], y=one_hot[rows])
        delta[c] = attack.noise[0]
    return delta


def _square(world: World, options: argparse.Namespace) -> dict[str, Any]:
    """Time square against SquareAttack on images that the platform gets wrong."""
    wrong = world.box(world.images).argmax(1) != world.labels
    images, targets = world.images[wrong][: options.attacked], world.labels[wrong][: options.attacked]
    if not len(images):
        return {
            "square_vs_art_seconds": None,
            "square_vs_art_queries": None,
            "square_vs_art_images_sent": None,
            "square_vs_art_reason": "The platform gets every image right.",
        }
    epsilon = options.epsilon // 2
    seconds, queries, sent, shares, took = [], [], [], [], []
    _our_square(world, images, targets, epsilon, 5, 0)
    _art_square(world, images, targets, epsilon, 5)
    for seed in range(options.repeats):
        mine = _our_square(world, images, targets, epsilon, options.budget, seed)
        theirs = _art_square(world, images, targets, epsilon, options.budget)
        goal = min(mine.solved(), theirs.solved())
        if goal:
            (a, b, c), (d, e, f) = mine.until(goal), theirs.until(goal)
            seconds.append(d / a)
            queries.append(e / b)
            sent.append(f / c)
            took.append({"ours": a, "art": d})
        shares.append({"ours": mine.solved() / len(images), "art": theirs.solved() / len(images)})
    reason = "No image was given its target by both." if not seconds else None
    return {
        "square_vs_art_seconds": _median(seconds),
        "square_vs_art_queries": _median(queries),
        "square_vs_art_images_sent": _median(sent),
        **({"square_vs_art_reason": reason} if reason else {}),
        "square_ratios": {"seconds": seconds, "queries": queries, "images_sent": sent},
        "square_seconds_to_equal_success": took,
        "square_success": shares,
        "square_setting": {"images": len(images), "epsilon": epsilon, "budget": options.budget},
    }


@dataclass(frozen=True)
class _Search:
    """When each image was given its target: queries, or 0 for never; and the clock after each round of queries."""

    found_at: NDArray[np.int64]
    clock: list[float]
    sent: list[int]

    def solved(self) -> int:
        return int((self.found_at > 0).sum())

    def until(self, count: int) -> tuple[float, float, float]:
        """Return seconds, mean queries and mean images sent until this many images were solved."""
        last = int(np.sort(self.found_at[self.found_at > 0])[count - 1])
        spent = np.where(self.found_at > 0, np.minimum(self.found_at, last), last)
        i = min(last, len(self.clock)) - 1
        return self.clock[i], float(spent.mean()), self.sent[i] / len(self.found_at)


def _our_square(world: World, images: Images, targets: Labels, epsilon: int, budget: int, seed: int) -> _Search:
    clock: list[float] = []
    sent: list[int] = []

    def box(asked: Images) -> Floats:
        scores = world.box(asked)
        clock.append(time.perf_counter() - began)
        sent.append((sent[-1] if sent else 0) + len(asked))
        return scores

    began = time.perf_counter()
    found = square(box, images, targets, epsilon=epsilon, budget=budget, rng=np.random.default_rng(seed))
    return _Search(np.where(found.success, found.queries, 0), clock, sent)


def _art_square(world: World, images: Images, targets: Labels, epsilon: int, budget: int) -> _Search:
    """Run SquareAttack with our objective; its criterion is asked once per query, which tells when images are done."""
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    clock: list[float] = []
    sent: list[int] = []
    found_at = np.zeros(len(images), np.int64)
    total = rounds = 0

    def predict(x: Floats) -> Floats:
        nonlocal total
        total += len(x)
        return world.floats(x)

    def named(scores: Floats, y: Floats) -> NDArray[np.bool_]:
        nonlocal rounds
        hit: NDArray[np.bool_] = scores.argmax(1) == y.argmax(1)
        # Its first two looks are at the images before and after the stripes; then one look per patch.
        rounds += 1
        found_at[hit & (found_at == 0)] = rounds
        clock.append(time.perf_counter() - began)
        sent.append(total)
        return hit

    estimator = BlackBoxClassifierNeuralNetwork(
        predict, (3, *images.shape[1:3]), world.classes, channels_first=True, clip_values=(0.0, 1.0)
    )

    def margin(x: Floats, y: Floats) -> Floats:
        p = np.log(np.maximum(estimator.predict(x, batch_size=len(images)), 1e-12))
        own = (p * y).sum(1)
        loss: Floats = np.where(y > 0, -np.inf, p).max(1) - own
        return loss

    attack = SquareAttack(
        estimator,
        norm=np.inf,
        adv_criterion=named,
        loss=margin,
        max_iter=max(budget - 1, 1),
        eps=epsilon / 255,
        p_init=0.8,
        batch_size=len(images),
        verbose=False,
    )
    x, one_hot = _as_floats(images), np.eye(world.classes, dtype=np.float32)[targets]
    began = time.perf_counter()
    attack.generate(x, y=one_hot)
    return _Search(found_at, clock, sent)


# --- the world ---------------------------------------------------------------------------------------------


def _world() -> World:
    root = os.environ.get("TTCA_DATA")
    return _digits() if not root else _cifar(Path(root))


def _cifar(root: Path) -> World:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("The speed benchmark on CIFAR-10", "bench") from None
    from ttca.data.hub import load_cifar10

    path = root / "pretrained" / "cifar10-resnet20.onnx"
    if not path.is_file():
        raise ConfigError(f"Expected a platform at {path}, got no file. Put it there, or unset TTCA_DATA.")
    data = load_cifar10("test", root=root, rows=slice(0, 2000))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between calls would steal from whoever is timed next.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def floats(x: Floats) -> Floats:
        rows = [
            session.run(None, {name: np.ascontiguousarray(x[i : i + 256], np.float32)})[0]
            for i in range(0, len(x), 256)
        ]
        return torch.from_numpy(np.concatenate(rows)).softmax(1).numpy()

    return World(
        "cifar10, resnet20 as platform",
        data.images,
        data.columns["label"],
        10,
        lambda images: floats(_as_floats(images)),
        floats,
        flip=True,
    )


def _digits() -> World:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("The speed benchmark on digits", "bench") from None
    data = load_digits()
    levels = np.repeat(np.repeat((data.images * 15).astype(np.uint8), 2, axis=1), 2, axis=2)
    images = np.repeat(levels[..., None], 3, axis=3)
    labels = data.target.astype(np.int64)
    learned = Targets.from_labels(labels[-150:], 10)
    platform = train_proxy(images[-150:], learned, Distilling(architectures=("perceptron",), seed=7, epochs=40)).proxy

    @torch.inference_mode()
    def floats(x: Floats) -> Floats:
        return platform(torch.from_numpy(np.ascontiguousarray(x, np.float32))).softmax(1).numpy()  # type: ignore[no-any-return]

    return World("digits", images[:-150], labels[:-150], 10, platform.predict, floats, flip=False)


# --- small things ------------------------------------------------------------------------------------------


def _as_floats(images: Images) -> Floats:
    """Return float32 NCHW in [0, 1], in the memory order that ART's own users have."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _classifier(world: World, model: torch.nn.Module) -> PyTorchClassifier:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model.eval(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(3, *world.images.shape[1:3]),
        nb_classes=world.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _in_turns(repeats: int, *sides: Callable[[], None]) -> list[list[float]]:
    """Run the sides one after the other, ``repeats`` times, and return the seconds of each."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, kept in zip(sides, seconds, strict=True):
            began = time.perf_counter()
            side()
            kept.append(time.perf_counter() - began)
    return seconds


def _median_ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _median(ratios: list[float]) -> float | None:
    return statistics.median(ratios) if ratios else None


def _reached_ratio(key: str, runs: list[dict[str, Any]], mine: list[float]) -> dict[str, Any]:
    """Return the median ratio; a run that never got there counts as infinite, and gives a lower bound."""
    spent = [run["seconds"] / m for run, m in zip(runs, mine, strict=True)]
    ratio = statistics.median_low([s if run["reached"] else math.inf for s, run in zip(spent, runs, strict=True)])
    if math.isfinite(ratio):
        return {key: ratio}
    best, goal = [round(run["fidelity_best"], 3) for run in runs], [round(run["goal"], 3) for run in runs]
    return {
        key: None,
        f"{key}_at_least": statistics.median_low(spent),
        f"{key}_reason": f"KnockoffNets did not hold a fidelity of {goal} for two epochs within "
        f"{statistics.median_low(spent):.1f} times our seconds; its best looks were {best}.",
    }


def _first_look(runs: list[dict[str, Any]], mine: list[float]) -> float | None:
    """Return the median ratio of ART's first looks at the goal; null where most runs had none."""
    firsts = [math.inf if run["seconds_first"] is None else run["seconds_first"] for run in runs]
    ratio = statistics.median_low([first / m for first, m in zip(firsts, mine, strict=True)])
    return ratio if math.isfinite(ratio) else None


@contextmanager
def _art() -> Iterator[None]:
    """Import ART or say how to get it, and keep its warnings, which are not about us, to this place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import art.attacks.evasion
            import art.attacks.extraction  # noqa: F401
        except ImportError:
            raise MissingExtraError("The speed benchmark", "bench") from None
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which ART draws from, and put them back as they were."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - ART draws from the legacy generator
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002

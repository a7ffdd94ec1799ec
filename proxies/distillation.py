"""Distillation: train a proxy on what a platform answered, however much or little it said."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ttca.proxies.architectures import create_model
from ttca.proxies.backbones import Backbone
from ttca.proxies.balance import Balanced
from ttca.proxies.finetuning import RATES, LossWatch, adapt_statistics, best_rate, fit_head
from ttca.proxies.images import fitting, to_levels, to_tensor
from ttca.proxies.options import Distilling
from ttca.proxies.pretrained import Pretrained, create_pretrained
from ttca.proxies.registry import Architecture, architecture_name
from ttca.proxies.runtime import autocast_for, fixed_threads

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Distillation", "Proxy", "Targets", "answer_loss", "train_proxy"]

OnEpoch = Callable[[int, int, float], None]
#: On the logits, where selection people judge an epoch.
_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
#: Share of a training's epochs in which each rate for a backbone is tried.
_TRIAL = 1 / 6
#: Images whose loss says where a training begins.
_LOOKED_AT = 512
#: Norm of a backbone's gradient, at most.
_LONGEST_STEP = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class Targets:
    """What is known about N images.

    Parameters
    ----------
    labels : int64 array, shape (N,)
        The class named, −1 for a row to leave out (an abstention or a refusal: it names no class).
    scores : float32 array, shape (N, C)
        Probabilities, NaN where not said. A row of NaN is label-only.

    Raises
    ------
    ValueError
        If the shapes disagree or a label is not one of the C classes.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.scores.ndim != 2 or len(self.labels) != len(self.scores):
            raise ValueError(
                f"Expected labels (N,) and scores (N, C), got {self.labels.shape} and {self.scores.shape}."
            )
        if (self.labels >= self.scores.shape[1]).any():
            raise ValueError(f"Expected labels below {self.scores.shape[1]} classes, got {self.labels.max()}.")

    @classmethod
    def from_labels(cls, labels: NDArray[np.int64], classes: int) -> Targets:
        """Return label-only targets."""
        labels = np.asarray(labels, np.int64)
        return cls(labels, np.full((len(labels), classes), np.nan, np.float32))

    def __repr__(self) -> str:
        named, classes = int((self.labels >= 0).sum()), self.scores.shape[1]
        return f"Targets({len(self)} images, {named} with one of {classes} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Targets:
        return Targets(self.labels[rows], self.scores[rows])


class Proxy(nn.Module):
    """One or several models that stand in for the platform; logits are the mean of their log-probabilities.

    Parameters
    ----------
    architectures : sequence of str or callable
        For :func:`ttca.proxies.architectures.create_model`.
    classes : int
    seed : int
        Model i is initialized with ``seed + i``.
    backbones : sequence of Backbone
        Models that start from weights learned elsewhere; they stand before the others.
    """

    def __init__(
        self,
        architectures: Sequence[Architecture],
        *,
        classes: int,
        seed: int,
        backbones: Sequence[Backbone] = (),
    ) -> None:
        super().__init__()
        if not architectures and not backbones:
            raise ValueError("Expected at least one architecture for a proxy, got none.")
        self.architectures = tuple(architecture_name(a) for a in architectures)
        self.backbones = tuple(backbones)
        self.classes = classes
        started = [create_pretrained(b, classes=classes, seed=seed + i) for i, b in enumerate(self.backbones)]
        first = seed + len(started)
        self.models = nn.ModuleList(
            [
                *started,
                *(create_model(name, classes=classes, seed=first + i) for i, name in enumerate(self.architectures)),
            ]
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What its models are called, in their order."""
        return (*(b.name for b in self.backbones), *self.architectures)

    def alone(self, place: int) -> Proxy:
        """Return a proxy of a copy of one of its models."""
        one = copy.copy(self)
        one._modules = {"models": nn.ModuleList([copy.deepcopy(self.models[place])])}
        inside = place < len(self.backbones)
        one.backbones = self.backbones[place : place + 1] if inside else ()
        one.architectures = () if inside else (self.names[place],)
        return one

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(self.models) == 1:
            logits: torch.Tensor = self.models[0](images)
            return logits
        return torch.stack([m(images).log_softmax(1) for m in self.models]).mean(0)

    @property
    def balanced(self) -> nn.Module:
        """What δ descends, where no model should pull harder than another; one model alone is itself.

        As :meth:`forward`, it maps float32 (N, 3, H, W) in [0, 1] → logits (N, C).
        """
        return self if len(self.models) == 1 else Balanced(self.models)

    @property
    def parameters_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @torch.inference_mode()
    def predict(self, images: NDArray[np.uint8], *, batch_size: int = 512) -> NDArray[np.float32]:
        """Return probabilities, float32 (N, C), of uint8 images (N, H, W, 3), ``batch_size`` at most at once."""
        self.eval()
        batch_size = fitting(*images.shape[1:3], most=batch_size)
        device = next(self.parameters()).device
        levels = to_levels(images)
        rows = [
            self(to_tensor(levels[i : i + batch_size].to(device))).float().softmax(1).cpu()
            for i in range(0, len(images), batch_size)
        ]
        return torch.cat(rows).numpy() if rows else np.zeros((0, self.classes), np.float32)

    def digest(self) -> str:
        """Return a SHA-256, 64 hex digits, of the weights under their names."""
        h = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            # As bytes: numpy does not know every type that a model may have.
            h.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return h.hexdigest()

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write weights, their digest and the architecture as safetensors; nobody ever sees a file half written."""
        # Copies, because safetensors refuses weights that two layers of a guest's model share.
        state = {k: v.detach().cpu().contiguous().clone() for k, v in self.state_dict().items()}
        spec = {
            "architectures": json.dumps(self.architectures),
            "classes": str(self.classes),
            "weights": self.digest(),
            **({"backbones": json.dumps([b.to_dict() for b in self.backbones])} if self.backbones else {}),
        }
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata={**(metadata or {}), **spec})
        # A copy of somebody's model, made of members' pictures, is for its owner alone.
        partial.chmod(0o600)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, *, backbones: Sequence[Backbone] = ()) -> Proxy:
        """Read what :meth:`save` wrote; raises OSError or ValueError when it is not such a file.

        Earlier versions wrote no digest of the weights; where there is one, they must be those. A backbone's network is
        made from its own file: the one that is given here, or else where it lay when the proxy was saved.
        """
        try:
            with safe_open(path, framework="pt") as file:
                spec = file.metadata() or {}
                if not {"architectures", "classes"} <= spec.keys():
                    raise ValueError(f"Expected a proxy saved by ttca, got {path} without its architecture.")
                started = [Backbone.from_dict(b) for b in json.loads(spec.get("backbones", "[]"))]
                if backbones:
                    if [b.identity for b in backbones] != [b.identity for b in started]:
                        raise ValueError(f"Expected a proxy of {[b.name for b in backbones]}, got another in {path}.")
                    started = list(backbones)
                proxy = cls(json.loads(spec["architectures"]), classes=int(spec["classes"]), seed=0, backbones=started)
                proxy.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118 - no dict
        except (SafetensorError, RuntimeError) as error:
            # Neither is a ValueError: not safetensors at all, or weights that do not fit the architecture.
            raise ValueError(f"Expected a proxy saved by ttca, got {path}: {error}") from error
        if spec.get("weights", "") not in ("", proxy.digest()):
            raise ValueError(f"Expected the weights that ttca saved in {path}, got others. Somebody changed the file.")
        return proxy.eval()


#: Images, and what is known about them.
Answered = tuple[NDArray[np.uint8], Targets]


@dataclass(frozen=True, eq=False)
class Distillation:
    """The trained proxy and how it came about.

    ``loss`` is the training loss and ``agreement`` the share of selection rows on which proxy and platform name
    the same class (NaN where they keep no epoch), one value per epoch. ``best_epoch`` is the epoch whose weights
    were kept (0-based). ``rates`` are the learning rates of the backbones, in their order.
    """

    proxy: Proxy
    loss: tuple[float, ...]
    agreement: tuple[float, ...]
    best_epoch: int
    rates: tuple[float, ...] = ()


def answer_loss(
    logits: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """Return one loss per row, shape (N,), from full, top-k, rounded or label-only answers.

    Parameters
    ----------
    logits : float tensor, shape (N, C)
    labels : int64 tensor, shape (N,)
        −1 gives the row weight 0.
    scores : float tensor, shape (N, C)
        NaN = not said. Complete rows are renormalised (rounding breaks their sum). A row whose scores were all
        rounded to zero says no more than its label, and counts as label-only.
    temperature : float
        T of T²·KL for complete rows (Hinton et al. 2015, arXiv 1503.02531) [published]. Partial rows use
        T = 1: one "other" bin holds the mass of the classes not named, and a bin has no tempered form [ours].

    Notes
    -----
    KL is written without the target's own entropy, which has no gradient, for label-only rows (then it is
    cross-entropy), and with it elsewhere, so that 0 means perfect agreement.
    """
    log_q = logits.float().log_softmax(1)
    named = ~scores.isnan()
    complete = _complete(scores)
    partial = (scores.nan_to_num(0.0).sum(1) > 0) & ~complete
    loss = -log_q.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    if bool(complete.any()):
        # The softmax renormalises; log 0 = −∞ is a class without mass at any temperature.
        p = scores[complete].log().div(temperature).softmax(1)
        log_q_t = logits[complete].float().div(temperature).log_softmax(1)
        loss = loss.index_put((complete,), temperature**2 * (torch.xlogy(p, p) - p * log_q_t).sum(1))
    if bool(partial.any()):
        rows = named[partial]
        p = torch.where(rows, scores[partial], 0.0)
        # Rounded scores may add up to more than one.
        p = p / p.sum(1, keepdim=True).clamp(min=1.0)
        rest = (1.0 - p.sum(1)).clamp(min=0.0)
        log_rest = log_q[partial].masked_fill(rows, -math.inf).logsumexp(1)
        kl_named = (torch.xlogy(p, p) - p * log_q[partial]).sum(1)
        loss = loss.index_put((partial,), kl_named + torch.xlogy(rest, rest) - rest * log_rest)
    return torch.where(labels >= 0, loss, 0.0)


def _complete(scores: torch.Tensor) -> torch.Tensor:
    """Return which rows say a whole distribution, shape (N,): no NaN, and some mass to renormalise."""
    return ~scores.isnan().any(1) & (scores.sum(1) > 0)


def train_proxy(
    images: NDArray[np.uint8],
    targets: Targets,
    options: Distilling,
    *,
    selection: Answered | None = None,
    initial: Proxy | None = None,
    replay: Answered | None = None,
    device: str | Accelerator = "cpu",
    progress: OnEpoch | None = None,
) -> Distillation:
    """Train a proxy on a transfer set: the formulas are ours, for the setting of arXiv 2605.27689.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, 3)
    targets : Targets
        The platform's answers, or true classes for a warm start or a control.
    options : Distilling
    selection : (images, Targets), optional
        What is known about selection people, none of whom may be learned from. The epoch with the lowest loss on them,
        whatever its temperature, is kept (``options.keep_best``), and they choose the rates of backbones, which need
        them.
    initial : Proxy, optional
        Start from these weights (they are copied), for example after public labeled data.
    replay : (images, Targets), optional
        What the initial weights were learned from. Every batch is joined by as many of these images, drawn at random,
        so that a few answers do not wash out what was known before (rehearsal, Robins 1995) [published].
    device : str or accelerate.Accelerator
        With an accelerator, several processes that call this with the same arguments train one proxy together. Each
        takes its share of every batch, on the accelerator's device (:mod:`ttca.proxies.parallel`).
    progress : callable(epoch, epochs, loss), optional

    Raises
    ------
    ValueError
        If no row names a class, the shapes disagree, or backbones have nobody to choose their rates.
    """
    classes = _classes(images, targets, selection, replay)
    if options.backbones and (selection is None or not (selection[1].labels >= 0).any()):
        raise ValueError(
            "Expected selection people of whom a class is known, to choose the learning rates of published weights, "
            'got none. Give some the role selection, or set weights = "none".'
        )
    with fixed_threads(options.threads):
        proxy = _beginning(options, classes, initial)
        usable = targets.labels >= 0
        school = _School((images[usable], targets[usable]), selection, replay, options, device)
        if not proxy.backbones:
            return school.train(proxy, progress)
        if initial is None:
            school.probe(proxy)
        return school.tune(proxy, progress)


@dataclass(frozen=True)
class _School:
    """What a proxy learns from, and how."""

    known: Answered
    selection: Answered | None
    replay: Answered | None
    options: Distilling
    device: str | Accelerator

    def train(
        self,
        proxy: Proxy,
        progress: OnEpoch | None = None,
        *,
        rates: Sequence[float] = (),
        watch: LossWatch | None = None,
    ) -> Distillation:
        """Train a proxy, and keep its best epoch; a training that is watched ends where it diverges.

        ``rates`` are those of the backbones.
        """
        options = self.options
        training = _Training(proxy, self.known, self.replay, options, self.device, rates)
        losses: list[float] = []
        agreements: list[float] = []
        best, best_epoch, best_state = math.inf, options.epochs - 1, None
        for epoch in range(options.epochs):
            losses.append(training.epoch())
            agreement = math.nan
            if self.selection is not None and options.keep_best:
                selection_loss, agreement = _evaluate(proxy, *self.selection)
                if selection_loss < best:
                    best, best_epoch = selection_loss, epoch
                    best_state = copy.deepcopy(proxy.state_dict())
            agreements.append(agreement)
            if watch is not None and watch.hopeless(self._agreed(losses[-1])):
                break
            if progress:
                progress(epoch + 1, options.epochs, losses[-1])
        if best_state is not None:
            proxy.load_state_dict(best_state)
        for model, _ in zip(proxy.models, rates, strict=False):
            model.requires_grad_()
        return Distillation(proxy.eval(), tuple(losses), tuple(agreements), best_epoch, tuple(rates))

    def probe(self, proxy: Proxy) -> None:
        """Give each backbone the statistics of the images at hand, and its new head."""
        proxy.to(self._device)
        learned, judged = _Rows(*self.known, self._device), _Rows(*self._judges, self._device)
        for model in proxy.models[: len(proxy.backbones)]:
            started = cast(Pretrained, model)
            adapt_statistics(started, learned.pixels(self.options.batch_size))
            fit_head(started, self._lesson(learned), self._lesson(judged))

    def tune(self, proxy: Proxy, progress: OnEpoch | None) -> Distillation:
        """Train all weights: backbones at rates that short trainings choose, and lower ones where these diverge.

        A backbone that diverges at every rate stays as the probe left it: its rate is 0.
        """
        rates = [best_rate(partial(self._trial, proxy, place)) for place in range(len(proxy.backbones))]
        while True:
            watch = self._watch(proxy)
            if not any(rates) and not proxy.architectures:
                return Distillation(proxy.eval(), (watch.before,), (math.nan,), 0, tuple(rates))
            done = self.train(copy.deepcopy(proxy), progress, rates=rates, watch=watch)
            if not watch.diverged or not any(rates):
                return done
            rates = [max((r for r in RATES if r < rate), default=0.0) for rate in rates]

    def _trial(self, proxy: Proxy, place: int, rate: float) -> float:
        """Return what a short training of one backbone at one rate leads to, as selection people see it."""
        epochs = max(round(self.options.epochs * _TRIAL), 1)
        school = replace(self, options=replace(self.options, epochs=epochs, keep_best=False))
        one = proxy.alone(place)
        watch = school._watch(one)
        done = school.train(one, rates=(rate,), watch=watch)
        return math.inf if watch.diverged else self._agreed(_evaluate(done.proxy, *self._judges)[0])

    def _watch(self, proxy: Proxy) -> LossWatch:
        """Return the watch of a training that begins with this proxy."""
        proxy.to(self._device)
        known = self.known[0][:_LOOKED_AT], self.known[1][np.arange(min(_LOOKED_AT, len(self.known[0])))]
        logits = torch.from_numpy(proxy.predict(known[0])).clamp(min=1e-12).log()
        labels, scores = torch.from_numpy(known[1].labels), torch.from_numpy(known[1].scores)
        before, ignorant = (
            float(answer_loss(z, labels, scores, temperature=self.options.temperature).mean())
            for z in (logits, torch.zeros_like(logits))
        )
        return LossWatch(before, ignorant)

    def _lesson(self, rows: _Rows) -> tuple[Iterator[torch.Tensor], Callable[..., torch.Tensor]]:
        def loss(logits: torch.Tensor) -> torch.Tensor:
            return answer_loss(logits, *rows.known, temperature=self.options.temperature)

        return rows.pixels(self.options.batch_size), loss

    def _agreed(self, loss: float) -> float:
        """Return a loss on which all processes agree, so that all stop together and choose alike."""
        if isinstance(self.device, str):
            return loss
        told = self.device.reduce(torch.tensor(loss, device=self._device), "mean")
        return float(cast(torch.Tensor, told))

    @property
    def _judges(self) -> Answered:
        """Who chooses rates and heads of backbones; whoever has backbones has judges."""
        images, targets = cast(Answered, self.selection)
        named = targets.labels >= 0
        return images[named], targets[named]

    @property
    def _device(self) -> str:
        return self.device if isinstance(self.device, str) else str(self.device.device)


def _classes(images: NDArray[np.uint8], targets: Targets, selection: Answered | None, replay: Answered | None) -> int:
    """Return the number of classes, or raise where images and answers do not fit."""
    named = int((targets.labels >= 0).sum())
    if len(images) != len(targets) or not named:
        raise ValueError(
            f"Expected at least one image with an answer, got {len(images)} images, {len(targets)} answers, "
            f"of which {named} name a class."
        )
    classes = targets.scores.shape[1]
    for what, more in (("selection", selection), ("replay", replay)):
        if more is not None and (len(more[0]), classes) != more[1].scores.shape:
            raise ValueError(
                f"Expected one {what} answer per image over {classes} classes, got {len(more[0])} images and scores "
                f"{more[1].scores.shape}."
            )
    if replay is not None and replay[0].shape[1:] != images.shape[1:]:
        raise ValueError(f"Expected images of {images.shape[1:]} to replay, got {replay[0].shape[1:]}.")
    return int(classes)


def _beginning(options: Distilling, classes: int, initial: Proxy | None) -> Proxy:
    """Return the proxy before its first step: a copy of the initial one, or a new one."""
    if initial is None:
        return Proxy(options.architectures, classes=classes, seed=options.seed, backbones=options.backbones)
    wanted = (*(b.name for b in options.backbones), *options.architectures)
    same = [b.identity for b in initial.backbones] == [b.identity for b in options.backbones]
    if not same or initial.architectures != options.architectures or initial.classes != classes:
        raise ValueError(
            f"Expected initial weights of {wanted} for {classes} classes, got {initial.names} for {initial.classes}."
        )
    return copy.deepcopy(initial)


class _Training:
    """One training under way: what is learned from, the optimizer, and the random draws, whose order is kept."""

    def __init__(
        self,
        proxy: Proxy,
        known: Answered,
        replay: Answered | None,
        options: Distilling,
        device: str | Accelerator,
        rates: Sequence[float] = (),
    ) -> None:
        self.options = options
        self.accelerator = None if isinstance(device, str) else device
        self.rank, self.world = 0, 1
        if not isinstance(device, str):
            self.rank, self.world = device.process_index, device.num_processes
            device = str(device.device)
        self.device = device
        self.proxy = proxy.to(device)
        for model, rate in zip(self.proxy.models, rates, strict=False):
            model.requires_grad_(rate > 0)
        self.models = [m if self.accelerator is None else self.accelerator.prepare_model(m) for m in self.proxy.models]
        self.generator = torch.Generator().manual_seed(options.seed)
        # All processes must agree who is in a batch; how their shares are augmented they draw apart.
        self.chance = (
            self.generator if self.world == 1 else torch.Generator().manual_seed(options.seed + (self.rank + 1) * 2**32)
        )
        self.learned = _Rows(*known, device)
        self.rehearsed = None if replay is None or not len(replay[0]) else _Rows(*replay, device)
        steps = options.epochs * len(_batches(torch.arange(len(self.learned)), options.batch_size))
        self.started = [p for m in self.proxy.models[: len(rates)] for p in m.parameters()]
        rest = [p for m in self.proxy.models[len(rates) :] for p in m.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": list(m.parameters()), "lr": r} for m, r in zip(self.proxy.models, rates, strict=False) if r
        ]
        groups += [{"params": rest}] if rest else []
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
        warm = max(1, steps // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, steps - warm))),
        )
        self.autocast = autocast_for(options.precision, device)

    def epoch(self) -> float:
        """Learn from every row once; return the mean loss."""
        self.proxy.train()
        n = len(self.learned)
        order = torch.randperm(n, generator=self.generator).to(self.device)
        total = 0.0
        for rows in _batches(order, self.options.batch_size):
            total += self._step(*self._batch(rows)) * len(rows)
        return total / max(n, 2)

    def _batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return this process's share of a batch, rehearsed images beside it, augmented: pixels, labels, scores."""
        o, chance = self.options, self.chance
        mine = _share(rows, self.rank, self.world)
        x, y, s = self.learned[mine]
        if self.rehearsed is not None:
            old = self.rehearsed[torch.randint(len(self.rehearsed), (len(mine),), generator=chance).to(self.device)]
            x, y, s = torch.cat([x, old[0]]), torch.cat([y, old[1]]), torch.cat([s, old[2]])
        x = _shifted(x, o.shift, chance)
        if o.flip:
            mirrored = (torch.rand(len(x), generator=chance) < 0.5).to(self.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = _warped(x, o.warp, chance)
        if o.mixup > 0:
            x, s = _mixed(x, s, o.mixup, chance)
        return x, y, s

    def _step(self, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> float:
        """Move the weights once; return the loss before.

        Notes
        -----
        A batch of photographs goes through the networks part by part, and its normalization takes each part's
        statistics: ghost batches, Hoffer et al. 2017 (arXiv 1705.08741) [published; the size is ours].
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts = 1
        if self.accelerator is None and x.device.type == "cpu":
            # Two or more in each: batch normalization cannot learn from one image.
            parts = max(1, min(-(-len(x) // fitting(*x.shape[2:])), len(x) // 2))
        before = 0.0
        for pixels, labels, scores in zip(*(each.tensor_split(parts) for each in (x, y, s)), strict=True):
            loss = self._loss(pixels, labels, scores) * (len(pixels) / len(x))
            if self.accelerator is None:
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                self.accelerator.backward(loss)
            before += float(loss.detach())
        if self.started:
            # One image that a published network has never seen the like of must not undo it.
            nn.utils.clip_grad_norm_(self.started, _LONGEST_STEP)
        self.optimizer.step()
        self.schedule.step()
        return before

    def _loss(self, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of some images."""
        with self.autocast:
            outputs = [m(x) for m in self.models]
        for name, z in zip(self.proxy.names, outputs, strict=True):
            if not isinstance(z, torch.Tensor) or z.shape != s.shape:
                raise ValueError(
                    f"Expected logits {tuple(s.shape)} from {name}, got {tuple(getattr(z, 'shape', ()))}. Its model "
                    "must return one logit per class for each image."
                )
        # Each model learns from the answers on its own: an ensemble is worth its members' disagreement.
        losses = [answer_loss(z, y, s, temperature=self.options.temperature).mean() for z in outputs]
        return torch.stack(losses).mean()


class _Rows:
    """Images and what is known about them, on the device; rows come as pixels, labels and scores."""

    def __init__(self, images: NDArray[np.uint8], targets: Targets, device: str) -> None:
        self._levels = to_levels(images, device)
        self._labels = torch.from_numpy(targets.labels).to(device)
        self._scores = torch.from_numpy(targets.scores).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return to_tensor(self._levels[rows]), self._labels[rows], self._scores[rows]

    @property
    def known(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and scores of all."""
        return self._labels, self._scores

    def pixels(self, size: int) -> Iterator[torch.Tensor]:
        """Yield all images as they are, in their order, so many at a time."""
        for start in range(0, len(self), size):
            yield to_tensor(self._levels[start : start + size])


def _batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Return the rows of one epoch in batches of two or more: batch normalization cannot learn from one image.

    A row left over joins the batch before it; a single image is its own company.
    """
    if len(order) == 1:
        return [order.repeat(2)]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches


def _share(rows: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """Return one process's part of a batch, as large as every other's and never of one image; some rows come twice."""
    if world == 1:
        return rows
    size = max(2, -(-len(rows) // world))
    turns = -(-size * world // len(rows))
    return rows.repeat(turns)[rank * size : (rank + 1) * size]


def _shifted(x: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Return each image moved by its own whole number of pixels, by one gather for the whole batch."""
    if most == 0:
        return x
    n, _, h, w = x.shape
    dy = torch.randint(-most, most + 1, (n, 1), generator=generator).to(x.device)
    dx = torch.randint(-most, most + 1, (n, 1), generator=generator).to(x.device)
    rows = (torch.arange(h, device=x.device)[None] + dy).clamp(0, h - 1)
    columns = (torch.arange(w, device=x.device)[None] + dx).clamp(0, w - 1)
    item = torch.arange(n, device=x.device)[:, None, None]
    # Advanced indices around a slice put the channels last: NHWC memory, as channels_last wants it.
    return x[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _warped(x: torch.Tensor, most: float, generator: torch.Generator) -> torch.Tensor:
    """Return each image rotated, zoomed and moved a little, all by one bilinear resampling with reflected edges."""
    if most == 0:
        return x
    n = len(x)
    draw = ((torch.rand(n, 4, generator=generator) * 2 - 1) * most).to(x.device)
    zoom = 1 + draw[:, 1]
    cos, sin = draw[:, 0].cos() * zoom, draw[:, 0].sin() * zoom
    # In the units of affine_grid an image is 2 wide, so that a draw of `most` is half of it.
    rows = torch.stack([cos, -sin, draw[:, 2], sin, cos, draw[:, 3]], 1).view(n, 2, 3)
    grid = nn.functional.affine_grid(rows, list(x.shape), align_corners=False)
    warped = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def _mixed(
    x: torch.Tensor, scores: torch.Tensor, beta: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    complete = _complete(scores).nonzero()[:, 0]
    if len(complete) < 2:
        return x, scores
    # torch's Beta takes no generator; two Gamma draws would not either, so numpy draws from torch's seed.
    seed = int(torch.randint(2**31, (1,), generator=generator))
    weight = float(np.random.default_rng(seed).beta(beta, beta))
    other = complete[torch.randperm(len(complete), generator=generator).to(complete.device)]
    x, scores = x.clone(), scores.clone()
    x[complete] = weight * x[complete] + (1 - weight) * x[other]
    scores[complete] = weight * scores[complete] + (1 - weight) * scores[other]
    return x, scores


@torch.inference_mode()
def _evaluate(proxy: Proxy, images: NDArray[np.uint8], targets: Targets) -> tuple[float, float]:
    """Return the mean loss and the agreement on selection people's answers.

    The loss is the lowest over a few common factors on the logits, as in temperature scaling (Guo et al. 2017, arXiv
    1706.04599): δ follows which class wins, not how sure the proxy is of it, and few answers make a proxy surer every
    epoch. Without the factor, the epoch kept would be one that has not learned yet [ours].
    """
    keep = targets.labels >= 0
    if not keep.any():
        return math.inf, math.nan
    log_p = torch.from_numpy(proxy.predict(images[keep])).clamp(min=1e-12).log()
    labels = torch.from_numpy(targets.labels[keep])
    scores = torch.from_numpy(targets.scores[keep])
    loss = min(float(answer_loss(log_p * factor, labels, scores).mean()) for factor in _FACTORS)
    return loss, float((log_p.argmax(1) == labels).float().mean())

"""Tests of fine-tuning: statistics taken anew, a head by a linear probe, and rates that do not diverge."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tests.published import TINY, onnx_file, tensors_file
from ttca.proxies import distillation
from ttca.proxies.backbones import Backbone, read_backbone
from ttca.proxies.distillation import Answered, Proxy, Targets, train_proxy
from ttca.proxies.finetuning import RATES, LossWatch, adapt_statistics, best_rate, fit_head
from ttca.proxies.options import Distilling
from ttca.proxies.parallel import train_proxy_in_processes
from ttca.proxies.pretrained import create_pretrained


def world(n: int = 60, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (n, 8, 8, 3) in which one color is stronger, and which one it is."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n, dtype=np.int64) % 3
    levels = rng.normal(110, 20, (n, 8, 8, 3))
    levels[np.arange(n), :, :, classes] += 25
    return np.clip(levels, 0, 255).astype(np.uint8), classes


def said(labels: NDArray[np.int64]) -> Targets:
    """Return scores that are nearly sure."""
    return Targets(labels, (np.eye(3, dtype=np.float32) * 0.85 + 0.05)[labels])


@pytest.fixture
def folded(tmp_path: Path) -> Backbone:
    """Return a backbone whose normalization was folded away."""
    return read_backbone(onnx_file(tmp_path / "folded.onnx"))


def judges() -> Answered:
    """Return selection people, whom nobody learns from."""
    images, labels = world(30, seed=9)
    return images, Targets.from_labels(labels, 3)


def options(*backbones: Backbone, **changes: Any) -> Distilling:
    """Return a short training of backbones alone."""
    return Distilling(**{"architectures": (), "backbones": backbones, "epochs": 6, "shift": 0, **changes})


def test_live_statistics_are_taken_anew(tmp_path: Path) -> None:
    """Mean and variance become those of the images at hand; a folded network has none and is left as it is."""
    model = create_pretrained(read_backbone(onnx_file(tmp_path / "w.onnx", live=True)), classes=3, seed=0)
    layer = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    images = torch.rand(12, 3, 8, 8)
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    momentum = layer.momentum
    assert adapt_statistics(model, torch.split(images, 4))
    together = torch.cat(seen).transpose(0, 1).flatten(1)
    assert layer.running_mean is not None
    torch.testing.assert_close(layer.running_mean, together.mean(1), rtol=1e-4, atol=1e-5)
    assert layer.momentum == momentum
    assert not any(m.training for m in model.modules())
    before = create_pretrained(read_backbone(onnx_file(tmp_path / "f.onnx")), classes=3, seed=0)
    assert not adapt_statistics(before, [images])


def test_a_probe_moves_the_head_alone(folded: Backbone) -> None:
    """After the probe the body is as it was published, and the head tells the classes apart."""
    images, labels = world()
    model = create_pretrained(folded, classes=3, seed=0)
    body = {k: v.clone() for k, v in model.state_dict().items() if "Gemm" not in k}
    pixels, truth = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(labels)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, truth, reduction="none")

    fit_head(model, ([pixels], loss), ([pixels], loss))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in body.items())
    with torch.no_grad():
        assert float((model(pixels).argmax(1) == truth).float().mean()) > 0.9


def test_published_features_teach_more_than_none(tmp_path: Path) -> None:
    """From few images a proxy that begins with a network of the same kind of images names more classes than a new one.

    The published network learned the same patterns in another order of classes, and five of them.
    """
    images, labels = world(400, seed=5)
    others = train_proxy(images, Targets.from_labels(labels + 2, 5), Distilling(epochs=6, shift=0)).proxy
    others.save(tmp_path / "theirs.safetensors")
    backbone = read_backbone(tmp_path / "theirs.safetensors")
    few, classes = world(9, seed=1)
    many, truth = world(200, seed=2)
    taught = partial(train_proxy, selection=judges())
    right = {
        name: float((taught(few, Targets.from_labels(classes, 3), o).proxy.predict(many).argmax(1) == truth).mean())
        for name, o in {
            "published": options(backbone, epochs=3),
            "new": Distilling(epochs=3, shift=0),
        }.items()
    }
    assert right["published"] > 0.9 > right["new"]


@pytest.mark.parametrize("kind", ["folded", "live", "timm", "together"])
def test_training_is_the_same_for_the_same_seed(tmp_path: Path, kind: str) -> None:
    """Every kind of backbone learns, twice alike, with the best epoch and with the last."""
    kinds: dict[str, Callable[[], tuple[Backbone, ...]]] = {
        "folded": lambda: (read_backbone(onnx_file(tmp_path / "w.onnx")),),
        "live": lambda: (read_backbone(onnx_file(tmp_path / "w.onnx", live=True)),),
        "timm": lambda: (read_backbone(tensors_file(tmp_path / "t.safetensors", f"timm/{TINY}")),),
        "together": lambda: tuple(read_backbone(onnx_file(tmp_path / f"{s}.onnx", seed=s)) for s in (1, 2)),
    }
    found = kinds[kind]()
    how = options(
        *found, epochs=3, architectures=("perceptron",) if kind == "together" else (), keep_best=kind != "live"
    )
    images, labels = world(40)
    targets = said(labels)
    one, two = (train_proxy(images, targets, how, selection=judges()) for _ in range(2))
    assert one.proxy.digest() == two.proxy.digest()
    assert len(one.rates) == len(found)
    assert set(one.rates) <= set(RATES)
    # From where it ended it goes on without another probe.
    more = train_proxy(images, targets, how, initial=one.proxy, selection=judges())
    assert more.proxy.digest() != one.proxy.digest()
    with pytest.raises(ValueError, match="Expected initial weights of"):
        train_proxy(images, targets, how, initial=Proxy(("perceptron",), classes=3, seed=0), selection=judges())


def test_a_diverging_training_takes_a_lower_rate(folded: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that a short trial did not expose is left for a lower one; where all diverge, the probe stands."""
    images, labels = world()
    real = distillation._School.train
    tried: list[tuple[float, ...]] = []

    def exploding(self: Any, proxy: Proxy, *a: Any, rates: Any = (), watch: LossWatch, **k: Any) -> Any:
        if self.options.epochs > 1:
            tried.append(tuple(rates))
            if max(rates) > least:
                watch.hopeless(math.nan)
                return distillation.Distillation(proxy, (math.nan,), (math.nan,), 0, tuple(rates))
        return real(self, proxy, *a, rates=rates, watch=watch, **k)

    monkeypatch.setattr(distillation._School, "train", exploding)
    least = 2e-4
    done = train_proxy(images, said(labels), options(folded), selection=judges())
    assert done.rates == (1e-4,)
    assert [r for (r,) in tried] == sorted((r for (r,) in tried), reverse=True)
    least = 0.0
    done = train_proxy(images, said(labels), options(folded), selection=judges())
    assert done.rates == (0.0,)
    assert (done.proxy.predict(images).argmax(1) == labels).mean() > 0.9


def test_who_judges_is_not_learned_from(folded: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial learns from every image that the training has, and is judged by selection people alone."""
    images, labels = world()
    learned: list[int] = []
    judged: list[NDArray[np.uint8]] = []
    train, evaluate = distillation._School.train, distillation._evaluate

    def training(self: Any, *a: Any, **k: Any) -> Any:
        learned.append(len(self.known[0]))
        return train(self, *a, **k)

    def judging(proxy: Proxy, images: NDArray[np.uint8], targets: Targets) -> tuple[float, float]:
        judged.append(images)
        return evaluate(proxy, images, targets)

    monkeypatch.setattr(distillation._School, "train", training)
    monkeypatch.setattr(distillation, "_evaluate", judging)
    for keep_best in (False, True):
        train_proxy(images, said(labels), options(folded, keep_best=keep_best), selection=judges())
    assert set(learned) == {len(images)}
    assert len(judged) > 6
    assert all(np.array_equal(seen, judges()[0]) for seen in judged)


@pytest.mark.parametrize("answers", [None, -1])
def test_published_weights_need_selection_people(folded: Backbone, answers: int | None) -> None:
    """Where nobody can choose the rates, that is said before anything is trained."""
    images, labels = world()
    nobody = None if answers is None else (images, Targets.from_labels(np.full(len(images), answers), 3))
    with pytest.raises(ValueError, match="Expected selection people of whom a class is known"):
        train_proxy(images, said(labels), options(folded), selection=nobody)


def test_a_network_that_explodes_is_tuned_all_the_same(tmp_path: Path) -> None:
    """Activations so large that no rate is low enough leave the probe's network as it is, beside one that learns."""
    backbone = read_backbone(onnx_file(tmp_path / "w.onnx", mean="[0, 0, 0]", std="[1e-9, 1e-9, 1e-9]"))
    images, labels = world()
    for others in ((), ("perceptron",)):
        done = train_proxy(images, said(labels), options(backbone, architectures=others), selection=judges())
        assert done.rates == (0.0,)
        assert np.isfinite(done.proxy.predict(images)).all()
        assert all(map(math.isfinite, done.loss))
        assert all(p.requires_grad for p in done.proxy.parameters())


@given(st.lists(st.floats(0, 10) | st.just(math.inf), min_size=len(RATES), max_size=len(RATES)))
def test_the_first_valley_of_the_rates_is_chosen(losses: list[float]) -> None:
    """A rate is chosen that no neighbor tried beats; where all diverge, the lowest."""
    asked: list[float] = []

    def trial(rate: float) -> float:
        asked.append(rate)
        return losses[RATES.index(rate)]

    chosen = best_rate(trial)
    assert asked == list(RATES[: len(asked)])
    heard = {r: losses[RATES.index(r)] for r in asked}
    if all(map(math.isinf, losses)):
        assert chosen == RATES[-1]
    else:
        assert heard[chosen] == min(heard.values())


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [([0.9, 0.5], False), ([1.2, 1.05], False), ([5.0], True), ([math.nan], True), ([0.9, 1.05], True), ([0.7], False)],
)
def test_a_watch_tells_what_has_forgotten_everything(losses: list[float], diverged: bool) -> None:
    """A loss that is no number, far beyond knowing nothing, or ends near that from a better start, is a divergence."""
    watch = LossWatch(before=0.6 if losses != [1.2, 1.05] else 2.0, ignorant=1.1)
    for loss in losses:
        watch.hopeless(loss)
    assert watch.diverged == diverged


def frozen(classes: int, _seed: int) -> nn.Module:
    """Return a guest's model of which a part must not learn."""
    first = nn.Linear(3 * 8 * 8, 6)
    first.requires_grad_(False)
    return nn.Sequential(nn.Flatten(), first, nn.Linear(6, classes))


def test_what_a_guest_froze_stays_frozen(folded: Backbone) -> None:
    """A part that a user's own model does not train is not trained in any stage, alone or beside a backbone."""
    images, labels = world(20)
    for how in (Distilling(architectures=(frozen,), epochs=2), options(folded, architectures=(frozen,), epochs=2)):
        first = train_proxy(images, said(labels), how, selection=judges()).proxy
        again = train_proxy(images, said(labels), how, initial=first, selection=judges()).proxy
        one, two = (p.models[-1].get_submodule("1") for p in (first, again))
        assert not any(p.requires_grad for p in two.parameters())
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.e2e
@pytest.mark.full
def test_two_processes_tune_one_backbone(folded: Backbone) -> None:
    """Backbones, their rates and their files travel to the processes that train together."""
    images, labels = world(30)
    how = options(folded, epochs=2, threads=1)
    done = train_proxy_in_processes(2, images, Targets.from_labels(labels, 3), how, selection=judges())
    assert done.proxy.backbones == (folded,)
    assert len(done.rates) == 1

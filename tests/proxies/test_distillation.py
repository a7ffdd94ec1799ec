"""The answer loss is the published divergence for every kind of answer, and distillation learns what was said."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import special

from tests.examples import examples
from ttca.proxies import distillation
from ttca.proxies.distillation import Distillation, Proxy, Targets, answer_loss, train_proxy
from ttca.proxies.images import to_levels, to_tensor
from ttca.proxies.options import Distilling

Floats = NDArray[np.float64]
NAN = np.float32(np.nan)

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 6), st.integers(2, 12))
temperatures = st.floats(0.5, 5.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny tensors on one thread: they are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def distributions(rng: np.random.Generator, n: int, c: int) -> NDArray[np.float32]:
    """Return peaked and flat distributions, float32 (n, c)."""
    return rng.dirichlet(np.full(c, rng.choice([0.2, 1.0, 5.0])), n).astype(np.float32)


def losses(logits: Floats | NDArray[np.float32], labels: Any, scores: Any, temperature: float = 1.0) -> Floats:
    """Return :func:`answer_loss` of arrays as float64."""
    return (
        answer_loss(
            torch.from_numpy(np.asarray(logits, np.float32)),
            torch.from_numpy(np.asarray(labels, np.int64)),
            torch.from_numpy(np.asarray(scores, np.float32)),
            temperature=temperature,
        )
        .numpy()
        .astype(np.float64)
    )


def tempered(p: Floats, temperature: float) -> Floats:
    """Return p^(1/T), renormalised: softmax(log p / T) with no floor under zeros."""
    q = (p / p.sum(1, keepdims=True)) ** (1 / temperature)
    return np.asarray(q / q.sum(1, keepdims=True))


def divergence(p: Floats, q: Floats) -> Floats:
    """Return KL(p ‖ q) per row."""
    return np.asarray(special.rel_entr(p, q).sum(1))


# --- the loss, one kind of answer at a time ----------------------------------------------------------------


@settings(deadline=None)
@given(seeds, sizes, temperatures)
def test_a_label_alone_costs_its_cross_entropy(seed: int, size: tuple[int, int], temperature: float) -> None:
    """Rows without scores cost −log softmax at the label, at any temperature."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, size), rng.integers(0, size[1], size[0])
    expected = -special.log_softmax(logits, 1)[np.arange(size[0]), labels]
    np.testing.assert_allclose(losses(logits, labels, np.full(size, NAN), temperature), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(seeds, sizes, temperatures, st.booleans())
def test_full_scores_cost_the_tempered_divergence(
    seed: int, size: tuple[int, int], temperature: float, zeros: bool
) -> None:
    """Complete rows cost T²·KL of the tempered distributions, a zero having no mass at any temperature."""
    rng = np.random.default_rng(seed)
    scores = distributions(rng, *size)
    if zeros:
        scores[:, 1:][rng.random((size[0], size[1] - 1)) < 0.4] = 0.0
        scores[:, 0] += 0.01
    logits = rng.normal(0, 3, size)
    expected = temperature**2 * divergence(
        tempered(scores.astype(np.float64), temperature), special.softmax(logits / temperature, 1)
    )
    found = losses(logits, scores.argmax(1), scores, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(seeds, sizes, st.integers(1, 11), temperatures)
def test_top_k_costs_the_divergence_with_one_other_bin(
    seed: int, size: tuple[int, int], k: int, temperature: float
) -> None:
    """Partial rows cost KL over the k named classes and one bin for the rest, without temperature."""
    rng = np.random.default_rng(seed)
    n, c = size
    k = min(k, c - 1)
    full = distributions(rng, n, c)
    logits = rng.normal(0, 3, size)
    scores = np.full(size, NAN)
    expected = np.zeros(n)
    for i, row in enumerate(full):
        named = np.argsort(row)[::-1][:k]
        scores[i, named] = row[named]
        p = row[named].astype(np.float64)
        q = special.softmax(logits[i])
        p, q = np.append(p, max(0.0, 1 - p.sum())), np.append(q[named], 1 - q[named].sum())
        expected[i] = special.rel_entr(p, q).sum()
    found = losses(logits, full.argmax(1), scores, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(seeds, sizes, st.sampled_from([1, 2]), temperatures)
def test_rounded_scores_are_renormalised(seed: int, size: tuple[int, int], decimals: int, temperature: float) -> None:
    """A rounded row costs what its renormalised row costs, although its own sum is not one."""
    rng = np.random.default_rng(seed)
    scores = distributions(rng, *size).round(decimals)
    scores[:, 0] += np.float32(0.1)
    logits = rng.normal(0, 3, size)
    renormalised = scores / scores.sum(1, keepdims=True)
    labels = scores.argmax(1)
    np.testing.assert_allclose(
        losses(logits, labels, scores, temperature),
        losses(logits, labels, renormalised, temperature),
        rtol=1e-4,
        atol=1e-4,
    )
    assert (losses(np.log(renormalised + 1e-30), labels, scores, temperature) < 1e-3).all()


def test_rounded_top_k_above_one_leaves_nothing_for_the_rest() -> None:
    """Named scores that add up to more than one are renormalised and the other bin is empty."""
    scores = np.array([[0.7, 0.4, NAN]], np.float32)
    logits = np.array([[0.3, -0.2, 0.9]])
    p, q = np.array([[7 / 11, 4 / 11, 0.0]]), special.softmax(logits, 1)
    np.testing.assert_allclose(losses(logits, [0], scores), divergence(p, q), rtol=1e-5)


@pytest.mark.parametrize("scores", [[0.0] * 4, [0.0, NAN, NAN, NAN], [NAN] * 4], ids=["full", "top-1", "none"])
def test_scores_all_rounded_to_zero_leave_the_label(scores: list[float]) -> None:
    """A row whose scores say nothing still pulls towards the class it names."""
    logits = torch.zeros(1, 4, requires_grad=True)
    loss = answer_loss(logits, torch.tensor([0]), torch.tensor([scores]), temperature=2.0)
    assert float(loss.detach()) == pytest.approx(math.log(4))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-0.75, 0.25, 0.25, 0.25])


@pytest.mark.parametrize("scores", [[NAN] * 3, [0.2, 0.3, 0.5], [0.6, NAN, NAN]], ids=["label", "full", "top-1"])
def test_an_abstention_weighs_nothing(scores: list[float]) -> None:
    """A row labelled −1 costs 0 with zero gradient, whatever its scores, and its neighbour is unmoved."""
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    both = torch.tensor([scores, scores])
    loss = answer_loss(logits, torch.tensor([-1, 0]), both)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    loss = loss.detach()
    assert float(loss[0]) == 0.0
    assert (logits.grad[0] == 0).all()
    assert float(loss[1]) == float(answer_loss(logits[1:].detach(), torch.tensor([0]), both[1:])) > 0
    assert (logits.grad[1] != 0).any()


def test_a_batch_of_abstentions_has_a_mean() -> None:
    """Nothing but abstentions is a loss of 0 with a gradient of 0, not NaN."""
    logits = torch.randn(3, 4, requires_grad=True)
    mean = answer_loss(logits, torch.full((3,), -1), torch.full((3, 4), math.nan)).mean()
    mean.backward()  # type: ignore[no-untyped-call]
    assert float(mean.detach()) == 0.0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@settings(deadline=None)
@given(seeds, st.integers(2, 12), temperatures, st.sampled_from([1.0, 30.0, 1e4]))
def test_mixed_batches_keep_finite_gradients(seed: int, c: int, temperature: float, spread: float) -> None:
    """Every kind of row in one batch, zeros and huge logits included, gives finite losses and gradients."""
    rng = np.random.default_rng(seed)
    n = 24
    scores = distributions(rng, n, c)
    scores[rng.random((n, c)) < 0.3] = 0.0
    scores[:4] = NAN
    scores[4:12][rng.random((8, c)) < 0.5] = NAN
    scores[12] = 0.0
    scores[13] = np.eye(c, dtype=np.float32)[0]
    scores[14:20] = scores[14:20].round(1)
    labels = rng.integers(-1, c, n)
    logits = torch.from_numpy(rng.normal(0, spread, (n, c)).astype(np.float32)).requires_grad_()
    loss = answer_loss(logits, torch.from_numpy(labels), torch.from_numpy(scores), temperature=temperature)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    alone = [
        float(
            answer_loss(
                logits[i : i + 1].detach(),
                torch.from_numpy(labels[i : i + 1]),
                torch.from_numpy(scores[i : i + 1]),
                temperature=temperature,
            )
        )
        for i in range(n)
    ]
    np.testing.assert_allclose(loss.detach().numpy(), alone, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(seeds, sizes, temperatures, st.booleans())
def test_agreement_is_the_minimum(seed: int, size: tuple[int, int], temperature: float, partial: bool) -> None:
    """The platform's own distribution costs 0 with no gradient, and no other one costs less."""
    rng = np.random.default_rng(seed)
    full = 0.9 * distributions(rng, *size) + 0.1 / size[1]
    scores = full.astype(np.float32)
    if partial:
        scores[:, 1:][rng.random((size[0], size[1] - 1)) < 0.5] = NAN
    labels, s = torch.from_numpy(full.argmax(1)), torch.from_numpy(scores)
    logits = torch.from_numpy(np.log(full).astype(np.float32)).requires_grad_()
    loss = answer_loss(logits, labels, s, temperature=temperature)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    named = ~np.isnan(scores).all(1)
    assert logits.grad is not None
    assert (loss.detach().numpy()[named] < 1e-4).all()
    assert (logits.grad.abs().numpy()[named] < 1e-4).all()
    elsewhere = losses(np.log(full) + rng.normal(0, 1, size), labels, scores, temperature)
    assert (elsewhere[named] > -1e-5).all()


# --- targets -----------------------------------------------------------------------------------------------


def test_targets_from_labels_say_nothing_more() -> None:
    """Label-only targets are NaN throughout, and are cut by rows like arrays."""
    targets = Targets.from_labels(np.array([2, -1, 0]), 3)
    assert targets.scores.shape == (3, 3)
    assert np.isnan(targets.scores).all()
    assert targets[np.array([True, False, True])].labels.tolist() == [2, 0]
    assert len(targets[np.array([1])]) == 1
    assert repr(targets) == "Targets(3 images, 2 with one of 3 classes)"


@pytest.mark.parametrize(
    ("labels", "shape", "message"),
    [
        ([0, 1], (3, 2), r"Expected labels \(N,\) and scores \(N, C\), got \(2,\) and \(3, 2\)\."),
        ([0, 1], (2,), r"Expected labels \(N,\) and scores \(N, C\), got \(2,\) and \(2,\)\."),
        ([0, 2], (2, 2), r"Expected labels below 2 classes, got 2\."),
    ],
)
def test_targets_that_do_not_fit_are_refused(labels: list[int], shape: tuple[int, ...], message: str) -> None:
    """Labels and scores of different people or classes are refused at the door."""
    with pytest.raises(ValueError, match=message):
        Targets(np.array(labels), np.zeros(shape, np.float32))


# --- the proxy ---------------------------------------------------------------------------------------------


def noise_images(n: int, seed: int = 0, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("architectures", [("small-cnn",), ("perceptron", "small-cnn", "timm/test_efficientnet")])
def test_a_saved_proxy_predicts_the_same(architectures: tuple[str, ...], tmp_path: Path) -> None:
    """Saving and loading changes no bit of a prediction and leaves a single safetensors file."""
    proxy = Proxy(architectures, classes=4, seed=3)
    with torch.no_grad():
        # Statistics that differ from a fresh model's show that buffers travel too.
        proxy.train()(to_tensor(to_levels(noise_images(6, 1))))
    path = tmp_path / "proxy.safetensors"
    proxy.save(path, {"inputs": "abc", "classes": "99"})
    loaded = Proxy.load(path)
    assert loaded.architectures == architectures
    assert not loaded.training
    np.testing.assert_array_equal(loaded.predict(noise_images(5)), proxy.predict(noise_images(5)))
    assert [f.name for f in tmp_path.iterdir()] == ["proxy.safetensors"]
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {
            "inputs": "abc",
            "classes": "4",
            "architectures": json.dumps(architectures),
            "weights": proxy.digest(),
        }
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert json.loads(path.read_bytes()[8 : 8 + header])["__metadata__"]["inputs"] == "abc"


def test_other_files_are_not_a_proxy(tmp_path: Path) -> None:
    """A missing file is an OSError; garbage, foreign weights and weights that do not fit are ValueErrors."""
    with pytest.raises(OSError, match="missing"):
        Proxy.load(tmp_path / "missing.safetensors")
    path = tmp_path / "proxy.safetensors"
    path.write_bytes(b"\x80\x04 this could be a pickle")
    with pytest.raises(ValueError, match="Expected a proxy saved by ttca"):
        Proxy.load(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="without its architecture"):
        Proxy.load(path)
    save_file({"w": torch.zeros(2)}, path, metadata={"architectures": '["perceptron"]', "classes": "3"})
    with pytest.raises(ValueError, match="Expected a proxy saved by ttca"):
        Proxy.load(path)


def test_permuted_weights_under_the_old_metadata_are_refused(tmp_path: Path) -> None:
    """Weights that somebody changed are not those that were saved, however well they fit; unsigned ones are read."""
    path = tmp_path / "proxy.safetensors"
    Proxy(("perceptron",), classes=4, seed=3).save(path)
    state = load_file(path)
    state = {k: v.flip(0) for k, v in state.items()}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(state, path, metadata=metadata)
    with pytest.raises(ValueError, match=f"Expected the weights that ttca saved in {path}, got others"):
        Proxy.load(path)
    # As earlier versions wrote them.
    save_file(state, path, metadata={k: v for k, v in metadata.items() if k != "weights"})
    Proxy.load(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way leaves what was under the name before."""
    path = tmp_path / "proxy.safetensors"
    Proxy(("perceptron",), classes=2, seed=0).save(path)
    before = path.read_bytes()

    def fail(_state: object, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(distillation, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        Proxy(("perceptron",), classes=2, seed=1).save(path)
    assert path.read_bytes() == before


def test_an_ensemble_averages_log_probabilities() -> None:
    """The ensemble's prediction is its members' geometric mean, renormalised."""
    proxy = Proxy(("perceptron", "small-cnn", "perceptron"), classes=4, seed=0)
    images = noise_images(5)
    x = to_tensor(to_levels(images))
    with torch.no_grad():
        members = [special.log_softmax(m.eval()(x).numpy().astype(np.float64), 1) for m in proxy.models]
    np.testing.assert_allclose(proxy.predict(images), special.softmax(np.mean(members, 0), 1), rtol=1e-4, atol=1e-6)
    assert not np.allclose(members[0], members[2])


def test_predictions_do_not_depend_on_the_batch() -> None:
    """Predictions are probabilities per image, unmoved by batch size, and none for no images."""
    proxy = Proxy(("small-cnn",), classes=3, seed=0).train()
    images = noise_images(7)
    before = copy.deepcopy(proxy.state_dict())
    together = proxy.predict(images)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(proxy.predict(images, batch_size=2), together, rtol=1e-4, atol=1e-6)
    assert proxy.predict(images[:0]).shape == (0, 3)
    assert all(torch.equal(v, before[k]) for k, v in proxy.state_dict().items())


def test_photographs_are_predicted_few_at_once() -> None:
    """600 small images are two batches; of photographs, whose layers take gigabytes, a batch holds 13."""
    proxy, sizes = Proxy(["small-cnn"], classes=2, seed=0), list[int]()
    proxy.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    assert proxy.predict(np.zeros((40, 224, 224, 3), np.uint8)).shape == (40, 2)
    assert sizes == [13, 13, 13, 1]
    sizes.clear()
    proxy.predict(np.zeros((600, 8, 8, 3), np.uint8))
    assert sizes == [512, 88]


def test_a_batch_of_photographs_teaches_what_it_would_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without normalization, parts of a batch move the weights as the batch does; each part has two images or more."""
    rng = np.random.default_rng(3)
    images, said = rng.integers(0, 256, (23, 6, 6, 3), dtype=np.uint8), Targets.from_labels(np.arange(23) % 2, 2)

    def learned(most: int) -> tuple[Proxy, list[int]]:
        sizes = list[int]()

        def linear(classes: int, seed: int) -> torch.nn.Module:
            model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, classes))
            model.register_forward_pre_hook(lambda m, given: sizes.append(len(given[0])) if m.training else None)
            return model

        monkeypatch.setattr(distillation, "fitting", lambda *side, most=most: most)
        options = Distilling(architectures=(linear,), epochs=2, batch_size=8, shift=0, mixup=0.0)
        return train_proxy(images, said, options).proxy, sizes

    whole, _ = learned(512)
    for most in (1, 3):
        parts, sizes = learned(most)
        assert 2 <= min(sizes) <= max(sizes) <= 4
        for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one, other)


def test_the_parameters_are_counted() -> None:
    """The count is of trained parameters, buffers left out."""
    proxy = Proxy(("perceptron", "perceptron"), classes=5, seed=0)
    assert proxy.parameters_count == 2 * (192 * 64 + 64 + 64 * 5 + 5)


def test_a_proxy_needs_a_model() -> None:
    """No architecture is an error, not an empty ensemble."""
    with pytest.raises(ValueError, match="Expected at least one architecture for a proxy, got none"):
        Proxy((), classes=3, seed=0)


# --- distillation ------------------------------------------------------------------------------------------


def colours(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
    """Return 8×8 images whose strongest colour is their class, those classes, and a soft teacher's scores."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    strength = rng.uniform(20, 60, n)
    mean = np.full((n, 1, 1, 3), 100.0)
    mean[np.arange(n), 0, 0, labels] += strength
    images = (mean + rng.normal(0, 8, (n, 8, 8, 3))).round().clip(0, 255).astype(np.uint8)
    scores = special.softmax(images.mean((1, 2)) / 40, 1).astype(np.float32)
    return images, labels.astype(np.int64), scores


def train(
    images: NDArray[np.uint8],
    targets: Targets,
    *,
    selection: tuple[NDArray[np.uint8], Targets] | None = None,
    initial: Proxy | None = None,
    replay: tuple[NDArray[np.uint8], Targets] | None = None,
    progress: Any = None,
    **options: Any,
) -> Distillation:
    """Distil a perceptron briefly, unless the options say otherwise."""
    defaults: dict[str, Any] = {"architectures": ("perceptron",), "epochs": 4, "batch_size": 16}
    return train_proxy(
        images,
        targets,
        Distilling(**{**defaults, **options}),
        selection=selection,
        initial=initial,
        replay=replay,
        progress=progress,
    )


def same_weights(a: Proxy, b: Proxy) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("architecture", ["perceptron", "small-cnn"])
def test_labels_alone_are_enough_to_learn_from(architecture: str) -> None:
    """A separable problem is learned from labels alone, on images that were not asked about."""
    images, labels, _ = colours(60, 0)
    fresh, truth, _ = colours(60, 1)
    result = train(images, Targets.from_labels(labels, 3), architectures=(architecture,), epochs=25)
    assert (result.proxy.predict(fresh).argmax(1) == truth).mean() > 0.95
    assert result.loss[-1] < 0.5 * result.loss[0]
    assert len(result.loss) == 25
    assert not result.proxy.training


def test_scores_teach_more_than_labels() -> None:
    """From a soft teacher's scores the proxy learns the probabilities too, which labels do not tell."""
    images, labels, scores = colours(60, 0)
    fresh, truth, expected = colours(60, 1)
    options: dict[str, Any] = {"epochs": 60, "learning_rate": 5e-3}
    soft = train(images, Targets(labels, scores), **options).proxy.predict(fresh)
    hard = train(images, Targets.from_labels(labels, 3), **options).proxy.predict(fresh)
    assert (soft.argmax(1) == truth).mean() > 0.95
    assert np.abs(soft - expected).max() < 0.1
    assert np.abs(hard - expected).mean() > 3 * np.abs(soft - expected).mean()


@pytest.mark.parametrize("options", [{}, {"mixup": 0.5, "flip": True}, {"architectures": ("small-cnn",)}])
def test_the_seed_decides_everything(options: dict[str, Any]) -> None:
    """The same seed gives the same bits, whatever the global generators do, and leaves those alone."""
    images, labels, scores = colours(20, 0)
    targets = Targets(labels, scores)
    first = train(images, targets, **options)
    before = torch.get_rng_state()
    again = train(images, targets, **options)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert same_weights(first.proxy, again.proxy)
    assert first.loss == again.loss
    assert not same_weights(first.proxy, train(images, targets, seed=1, **options).proxy)


def test_abstentions_do_not_exist_for_the_proxy() -> None:
    """Abstentions among the answers change no bit of what is learned from the others."""
    images, labels, scores = colours(12, 0)
    clean = train(images, Targets(labels, scores))
    mixed = np.insert(images, [0, 5, 12], 255, axis=0)
    with_gaps = Targets(np.insert(labels, [0, 5, 12], -1), np.insert(scores, [0, 5, 12], NAN, axis=0))
    assert same_weights(clean.proxy, train(mixed, with_gaps).proxy)


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights handed back are those of the epoch with the lowest selection loss, not the last."""
    images, labels, scores = colours(20, 0)
    script = iter([(3.0, 0.1), (1.0, 0.9), (1.0, 0.4), (2.0, 0.5)])
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(proxy: Proxy, *_: object) -> tuple[float, float]:
        seen.append(copy.deepcopy(proxy.state_dict()))
        return next(script)

    monkeypatch.setattr(distillation, "_evaluate", scripted)
    result = train(images, Targets(labels, scores), selection=(images, Targets(labels, scores)))
    assert result.best_epoch == 1
    assert result.agreement == (0.1, 0.9, 0.4, 0.5)
    assert all(torch.equal(v, seen[1][k]) for k, v in result.proxy.state_dict().items())
    assert any(not torch.equal(v, seen[3][k]) for k, v in result.proxy.state_dict().items())


def test_selection_people_who_disagree_stop_the_training_early() -> None:
    """When learning only makes selection people's answers worse, the first epoch is kept and its agreement told."""
    images, labels, _ = colours(30, 0)
    others, truth, _ = colours(30, 1)
    contrary = Targets.from_labels((truth + 1) % 3, 3)
    options: dict[str, Any] = {"epochs": 12, "selection": (others, contrary), "learning_rate": 1e-2}
    result = train(images, Targets.from_labels(labels, 3), **options)
    kept = float((result.proxy.predict(others).argmax(1) == contrary.labels).mean())
    assert result.best_epoch == 0
    assert kept == pytest.approx(result.agreement[0])
    assert result.agreement[-1] == 0.0


def test_selection_changes_nothing_but_the_choice() -> None:
    """Looking at selection people moves neither the weights nor the random numbers of the training."""
    images, labels, scores = colours(20, 0)
    targets = Targets(labels, scores)
    plain = train(images, targets)
    assert plain.best_epoch == 3
    assert all(math.isnan(a) for a in plain.agreement)
    silent = train(images, targets, selection=(images, Targets.from_labels(np.full(20, -1), 3)))
    assert silent.best_epoch == 3
    assert same_weights(plain.proxy, silent.proxy)
    watched = train(images, targets, selection=(images, targets))
    assert watched.loss == plain.loss


def test_a_warm_start_starts_from_its_weights() -> None:
    """Training goes on from the given weights, which stay as they were, and ends elsewhere than a cold start."""
    images, labels, scores = colours(20, 0)
    targets = Targets(labels, scores)
    initial = train(images, Targets.from_labels((labels + 1) % 3, 3), epochs=20).proxy
    before = copy.deepcopy(initial.state_dict())
    still = train(images, targets, initial=initial, learning_rate=0.0).proxy
    assert same_weights(still, initial)
    moved = train(images, targets, initial=initial).proxy
    assert not same_weights(moved, initial)
    assert not same_weights(moved, train(images, targets).proxy)
    assert all(torch.equal(v, before[k]) for k, v in initial.state_dict().items())


@pytest.mark.parametrize("options", [{"architectures": ("small-cnn",)}, {"architectures": ("perceptron",) * 2}])
def test_a_warm_start_of_another_kind_is_refused(options: dict[str, Any]) -> None:
    """Initial weights of another architecture or number of classes are refused."""
    images, labels, _ = colours(6, 0)
    with pytest.raises(ValueError, match="Expected initial weights of"):
        train(images, Targets.from_labels(labels, 3), initial=Proxy(("perceptron",), classes=3, seed=0), **options)
    with pytest.raises(ValueError, match=r"for 4 classes, got .* for 3\."):
        train(images, Targets.from_labels(labels, 4), initial=Proxy(("perceptron",), classes=3, seed=0))


def test_what_is_replayed_is_not_forgotten() -> None:
    """Learning a second task from a few answers wipes out the first, unless the first is replayed meanwhile."""
    first, labels, _ = colours(60, 0)
    old = Targets.from_labels(labels, 3)
    warm = train(first, old, epochs=25).proxy
    rng = np.random.default_rng(1)
    second = rng.integers(0, 60, (12, *first.shape[1:]), dtype=np.uint8)
    new = Targets.from_labels(np.zeros(12, np.int64), 3)
    kept = {}
    for name, replay in (("replayed", (first, old)), ("alone", None)):
        proxy = train(second, new, initial=warm, replay=replay, epochs=40).proxy
        assert (proxy.predict(second).argmax(1) == 0).mean() > 0.9
        kept[name] = float((proxy.predict(first).argmax(1) == labels).mean())
    assert kept["replayed"] > 0.95
    assert kept["alone"] < kept["replayed"]


def test_nothing_to_replay_changes_nothing() -> None:
    """An empty replay is the same training as none, to the last digit."""
    images, labels, _ = colours(20, 0)
    targets = Targets.from_labels(labels, 3)
    none, empty = train(images, targets), train(images, targets, replay=(images[:0], targets[np.zeros(20, np.bool_)]))
    assert none.loss == empty.loss


def test_a_replay_of_another_kind_is_refused() -> None:
    """Images of another size, or answers over other classes, are refused in words."""
    images, labels, _ = colours(20, 0)
    targets = Targets.from_labels(labels, 3)
    with pytest.raises(ValueError, match="Expected one replay answer per image over 3 classes"):
        train(images, targets, replay=(images, Targets.from_labels(labels, 4)))
    with pytest.raises(ValueError, match=r"Expected images of .* to replay"):
        train(images, targets, replay=(images[:, :4], targets))


def test_nothing_to_learn_from_is_refused() -> None:
    """No images, one answer too many, or only abstentions are errors that say which."""
    images, labels, _ = colours(6, 0)
    with pytest.raises(ValueError, match="got 0 images, 0 answers, of which 0 name a class"):
        train(images[:0], Targets.from_labels(labels[:0], 3))
    with pytest.raises(ValueError, match="got 5 images, 6 answers"):
        train(images[:5], Targets.from_labels(labels, 3))
    with pytest.raises(ValueError, match="got 6 images, 6 answers, of which 0 name a class"):
        train(images, Targets.from_labels(np.full(6, -1), 3))


def test_selection_people_of_another_kind_are_refused() -> None:
    """Selection answers for other images or other classes are refused before anything is trained."""
    images, labels, _ = colours(6, 0)
    targets = Targets.from_labels(labels, 3)
    for selection in ((images[:5], targets), (images, Targets.from_labels(labels, 4))):
        with pytest.raises(ValueError, match="Expected one selection answer per image over 3 classes"):
            train(images, targets, selection=selection)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "Expected epochs as a whole number of at least 1, got 0"),
        ({"epochs": True}, "Expected epochs as a whole number of at least 1, got True"),
        ({"batch_size": 1}, "Expected batch_size as a whole number of at least 2, got 1. Batch normalization"),
        ({"shift": -1}, "Expected shift as a whole number of at least 0"),
        ({"mixup": -0.1}, "Expected mixup as a number of 0"),
        ({"learning_rate": math.nan}, "Expected learning_rate as a number of 0 or more, got nan"),
        ({"architectures": ()}, "Expected at least one architecture for a proxy"),
        ({"architectures": "perceptron"}, "as a tuple of names, got 'perceptron'"),
        ({"architectures": ("resnet19",)}, r"Expected the architecture to be one of .*, got 'resnet19'"),
        ({"temperature": 0.0}, "temperature above 0, got 0.0"),
        ({"temperature": math.nan}, "temperature above 0, got nan"),
        ({"precision": "float16"}, "got 'float16'"),
    ],
)
def test_options_that_would_learn_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    """No option is accepted and silently ignored."""
    images, labels, _ = colours(6, 0)
    with pytest.raises(ValueError, match=message):
        train(images, Targets.from_labels(labels, 3), **options)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_any_number_of_answers_trains(n: int) -> None:
    """A single image, fewer than a batch, or one left over train a batch-normalised model on 4×4 maps."""
    images, labels, _ = colours(n, 0)
    small, targets = images[:, ::2, ::2], Targets.from_labels(labels, 3)
    result = train(small, targets, architectures=("small-cnn",), epochs=2, batch_size=4)
    fresh = Proxy(("small-cnn",), classes=3, seed=0)
    assert all(math.isfinite(v) and v > 0 for v in result.loss)
    assert all(torch.isfinite(v).all() for v in result.proxy.state_dict().values())
    assert not any(torch.equal(a, b) for a, b in zip(result.proxy.parameters(), fresh.parameters(), strict=True))


@given(st.integers(1, 70), st.integers(2, 17))
def test_every_row_is_in_one_batch(n: int, batch_size: int) -> None:
    """Each epoch takes every row once, in batches of at least two (a single image keeps itself company)."""
    batches = distillation._batches(torch.arange(n), batch_size)
    assert torch.cat(batches).tolist() == (list(range(n)) if n > 1 else [0, 0])
    assert all(2 <= len(b) <= batch_size + 1 for b in batches)


def test_an_ensemble_trains_each_model_as_if_alone() -> None:
    """The first model of an ensemble has seen the same images and answers as when it is trained alone."""
    images, labels, scores = colours(20, 0)
    alone = train(images, Targets(labels, scores), learning_rate=1e-4)
    both = train(images, Targets(labels, scores), learning_rate=1e-4, architectures=("perceptron", "perceptron"))
    # Not bit for bit: the shared mean halves the gradients, which AdamW undoes only up to its epsilon.
    for a, b in zip(alone.proxy.models[0].parameters(), both.proxy.models[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert not torch.equal(*(next(m.parameters()) for m in both.proxy.models))


def test_bfloat16_learns_too_and_stays_float32() -> None:
    """Autocast changes the arithmetic of the forward pass, not the type of the weights nor what is learned."""
    images, labels, _ = colours(60, 0)
    targets = Targets.from_labels(labels, 3)
    short, exact = train(images, targets, precision="bfloat16", epochs=25), train(images, targets, epochs=25)
    assert all(p.dtype == torch.float32 for p in short.proxy.parameters())
    assert (short.proxy.predict(images).argmax(1) == labels).mean() > 0.95
    assert short.loss != exact.loss


def test_progress_hears_of_every_epoch() -> None:
    """The callback is told epoch, epochs and the loss that the result records."""
    images, labels, _ = colours(6, 0)
    heard: list[tuple[int, int, float]] = []
    result = train(images, Targets.from_labels(labels, 3), progress=lambda *a: heard.append(a))
    assert heard == [(i + 1, 4, loss) for i, loss in enumerate(result.loss)]


# --- augmentation ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seeds, st.integers(0, 4), st.integers(1, 5), st.integers(1, 6))
def test_shifts_repeat_the_edge(seed: int, most: int, h: int, w: int) -> None:
    """Each image is one of the whole-pixel translations of itself, its edge repeated."""
    x = torch.rand(4, 3, h, w, generator=torch.Generator().manual_seed(seed))
    moved = distillation._shifted(x, most, torch.Generator().manual_seed(seed))
    for image, found in zip(x.numpy(), moved.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (most, most), (most, most)), mode="edge")
        offsets = range(2 * most + 1)
        assert any(np.array_equal(found, padded[:, i : i + h, j : j + w]) for i in offsets for j in offsets)


def test_shifts_go_everywhere_each_image_on_its_own() -> None:
    """Over many images every offset up to the bound turns up, in the memory order of the batch."""
    x = torch.zeros(200, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    moved = distillation._shifted(x, 1, torch.Generator().manual_seed(0))
    assert {tuple(p) for p in moved.nonzero()[:, 2:].tolist()} == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_a_warp_of_nothing_is_nothing() -> None:
    """Warp 0 leaves the batch itself, and a tiny warp nearly so: the grid is that of the image."""
    x = torch.rand(3, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    assert distillation._warped(x, 0.0, torch.Generator()) is x
    torch.testing.assert_close(distillation._warped(x, 1e-6, torch.Generator().manual_seed(1)), x, atol=1e-4, rtol=0)


@examples(20)
@given(seeds, st.floats(0.05, 0.9), st.integers(2, 12), st.integers(2, 12))
def test_a_warp_stays_inside_the_image(seed: int, most: float, h: int, w: int) -> None:
    """Reflected edges bring no new colour: every warped pixel lies between the image's lowest and highest."""
    x = torch.rand(4, 3, h, w, generator=torch.Generator().manual_seed(seed))
    warped = distillation._warped(x, most, torch.Generator().manual_seed(seed))
    assert warped.shape == x.shape
    assert warped.is_contiguous(memory_format=torch.channels_last)
    assert (warped.amin((2, 3)) >= x.amin((2, 3)) - 1e-5).all()
    assert (warped.amax((2, 3)) <= x.amax((2, 3)) + 1e-5).all()


def test_a_warp_turns_zooms_and_moves_each_image_on_its_own() -> None:
    """Two bright dots come apart, turn and move, differently for every image, and by no more than was allowed."""
    x = torch.zeros(300, 1, 41, 41)
    x[:, 0, 19:22, 9:12] = 1
    x[:, 0, 19:22, 29:32] = 1
    warped = distillation._warped(x, 0.2, torch.Generator().manual_seed(0))[:, 0]
    places = torch.arange(41.0)
    left, right = warped[:, :, :20], warped[:, :, 21:]
    across = torch.stack([(part.sum(1) * places[: part.shape[2]]).sum(1) / part.sum((1, 2)) for part in (left, right)])
    down = torch.stack([(part.sum(2) * places).sum(1) / part.sum((1, 2)) for part in (left, right)])
    apart, turned = across[1] + 21 - across[0], down[1] - down[0]
    # Resampling by a zoom of 1 + z brings 20 pixels to 20 / (1 + z).
    assert 15.5 < apart.min() < 17.5
    assert 22 < apart.max() < 26
    assert 2 < turned.abs().max() < 0.2 * 26 + 0.5
    assert len({round(float(t), 3) for t in turned}) > 250
    assert float((down.mean(0) - 20).abs().max()) > 2


def test_a_warp_out_of_its_range_is_refused() -> None:
    """A zoom of 1 would shrink the grid to nothing."""
    images, labels, _ = colours(6, 0)
    for warp in (-0.1, 1.0):
        with pytest.raises(ValueError, match="Expected a warp in"):
            train(images, Targets.from_labels(labels, 3), warp=warp)


@settings(deadline=None)
@given(seeds, st.integers(0, 6), st.floats(0.1, 3.0))
def test_mixup_leaves_incomplete_rows_alone(seed: int, complete: int, beta: float) -> None:
    """Only rows with a whole distribution are mixed, images and scores by the same weight."""
    rng = np.random.default_rng(seed)
    scores = distributions(rng, 9, 4)
    scores[complete:, 1:] = NAN
    scores[-1] = 0.0
    x = torch.from_numpy(rng.random((9, 1, 1, 4), dtype=np.float32))
    # An image that spells its own scores shows whether both were mixed alike.
    x[:complete] = torch.from_numpy(scores[:complete]).view(-1, 1, 1, 4)
    before_x, before_s = x.clone(), torch.from_numpy(scores.copy())
    mixed_x, mixed_s = distillation._mixed(x, before_s.clone(), beta, torch.Generator().manual_seed(seed))
    assert torch.equal(mixed_x[complete:], before_x[complete:])
    torch.testing.assert_close(mixed_s[complete:], before_s[complete:], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(mixed_x[:complete, 0, 0], mixed_s[:complete])
    np.testing.assert_allclose(mixed_s[:complete].sum(1), 1, rtol=1e-5)
    assert torch.equal(x, before_x)


def test_mixup_mixes() -> None:
    """Complete rows do change, towards each other."""
    x = torch.eye(4).view(4, 1, 1, 4)
    mixed, _ = distillation._mixed(x, torch.eye(4), 5.0, torch.Generator().manual_seed(1))
    assert (mixed.amax(3) < 1).any()
    torch.testing.assert_close(mixed.sum(0), torch.ones(1, 1, 4))


def test_flip_shows_the_mirror_image() -> None:
    """With flips, a class learned with light from the left is recognised with light from the right."""
    rng = np.random.default_rng(0)
    images = rng.integers(90, 110, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    images[labels == 0, :, :3] += 100
    images[labels == 1, :, 3:5] += 100
    mirrored = images[:, :, ::-1]
    targets = Targets.from_labels(labels, 2)
    options: dict[str, Any] = {"epochs": 30, "shift": 0}
    share = [
        float((train(images, targets, flip=flip, **options).proxy.predict(mirrored).argmax(1) == labels).mean())
        for flip in (True, False)
    ]
    assert share[0] == 1.0
    assert share[1] < 1.0


def test_weights_on_disk_are_plain_tensors(tmp_path: Path) -> None:
    """Any safetensors reader finds the trained weights, under the names of the state."""
    images, labels, _ = colours(6, 0)
    proxy = train(images, Targets.from_labels(labels, 3)).proxy
    proxy.save(tmp_path / "p.safetensors")
    stored = load_file(tmp_path / "p.safetensors")
    assert stored.keys() == proxy.state_dict().keys()
    assert all(torch.equal(v, proxy.state_dict()[k]) for k, v in stored.items())

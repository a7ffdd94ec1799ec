"""Models by name: seeded without touching the global generator, with their normalisation inside."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch

from ttca.proxies.architectures import Normalized, create_model
from ttca.proxies.registry import list_architectures

TINY = "timm/test_efficientnet"


def normalised(name: str) -> Normalized:
    """Return one of our own models, or timm's."""
    model = create_model(name, classes=3, seed=0)
    assert isinstance(model, Normalized)
    return model


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", [*list_architectures(), TINY])
def test_every_architecture_answers_with_one_logit_per_class(name: str) -> None:
    """Each name gives finite logits (N, C) from images in [0, 1] of a size that is not its own."""
    with torch.no_grad():
        logits = create_model(name, classes=5, seed=0).eval()(torch.rand(2, 3, 8, 8))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["small-cnn", "perceptron", TINY])
def test_the_seed_decides_the_weights(name: str) -> None:
    """The same seed gives the same weights, whatever the global generator does, and another seed gives others."""
    first = weights(create_model(name, classes=3, seed=1))
    torch.rand(7)
    assert torch.equal(first, weights(create_model(name, classes=3, seed=1)))
    assert not torch.equal(first, weights(create_model(name, classes=3, seed=2)))


@pytest.mark.parametrize("name", ["small-cnn", TINY, "timm/unheard-of"])
def test_the_global_generator_is_left_as_it_was(name: str) -> None:
    """Building a model, or failing to, does not move torch's global random state."""
    before = torch.get_rng_state()
    try:
        create_model(name, classes=3, seed=4)
    except ValueError:
        assert name == "timm/unheard-of"
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet19",
            r"Expected the architecture to be one of .*resnet20.*, timm/NAME or .*, got 'resnet19'\.",
        ),
        ("timm/unheard-of", r"Expected a name that timm.create_model knows, got 'unheard-of'\."),
        ("", r"Expected the architecture to be one of .* got ''\."),
    ],
)
def test_an_unknown_name_is_refused(name: str, message: str) -> None:
    """A name nobody knows is a ValueError that says what would have been one."""
    with pytest.raises(ValueError, match=message):
        create_model(name, classes=3, seed=0)


@pytest.mark.parametrize("name", ["small-cnn", TINY])
def test_a_model_without_classes_is_refused(name: str) -> None:
    """No classes is an error, and never timm's way of asking for features."""
    with pytest.raises(ValueError, match="Expected at least one class, got 0"):
        create_model(name, classes=0, seed=0)


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet56", 0.85)])
def test_the_cifar_resnets_have_the_published_size(name: str, millions: float) -> None:
    """With ten classes, the parameters are those of He et al. 2016, table 6."""
    assert round(weights(create_model(name, classes=10, seed=0)).numel() / 1e6, 2) == millions


def test_timm_models_are_built_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm model needs no connection, and brings the normalisation of its own configuration."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = normalised(TINY)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize("name", ["small-cnn", TINY])
def test_normalisation_happens_inside(name: str) -> None:
    """The body is given (x − mean) / std of the images in [0, 1]."""
    model = normalised(name).eval()
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = model.body((x - model.mean) / model.std)
        torch.testing.assert_close(model(x), expected)
        assert not torch.allclose(model(x), model.body(x))


def test_weights_lie_in_channels_last_memory() -> None:
    """Convolution weights are stored in the order of the images, so that no batch is re-ordered."""
    convolutions = [p for p in create_model("small-cnn", classes=3, seed=0).parameters() if p.ndim == 4]
    assert len(convolutions) == 6
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)


@pytest.mark.parametrize("block", [3, 6])
def test_a_shortcut_passes_its_input_on(block: int) -> None:
    """With its convolutions silenced, a block that halves the map hands on every second pixel, channels padded."""
    body = normalised("resnet20").eval().body
    assert isinstance(body, torch.nn.Sequential)
    unit = body[1 + block]
    for p in unit.parameters():
        torch.nn.init.zeros_(p)
    width = {3: 16, 6: 32}[block]
    x = torch.rand(1, width, 4, 4)
    with torch.no_grad():
        y = unit(x)
    assert y.shape == (1, 2 * width, 2, 2)
    torch.testing.assert_close(y[:, width // 2 : width // 2 + width], x[:, :, ::2, ::2])
    assert float(y.sum()) == pytest.approx(float(x[:, :, ::2, ::2].sum()), rel=1e-5)

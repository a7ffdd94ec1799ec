"""Tests of the benchmarks that open the platform: what is trained here, the ceiling, and the architecture matrix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import _trained, ceiling, matrix
from benchmarks._tracks import TRACKS, Track
from benchmarks._trained import TrainedClassifier
from tests import worlds
from tests.benchmarks.test_effect import QUICK, people
from ttca.errors import ConfigError
from ttca.images import Images
from ttca.platforms.local import LocalPlatform

_TINY = {"model_name": "test_efficientnet"}


def colours(n: int = 240, *, seed: int = 1) -> tuple[Images, Any]:
    """Return images of 8×8 whose class is their colour, which stays what it is when they are mirrored and moved."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    images = rng.integers(60, 120, (n, 8, 8, 3)) + 100 * np.eye(3, dtype=np.int64)[classes][:, None, None]
    return images.astype(np.uint8), classes


# -- platforms trained here -------------------------------------------------------------------------------------


def test_a_classifier_is_trained_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second use asks for no data, has the same version and says the same, which is what the images show."""
    monkeypatch.setitem(_trained.TRAINED, "tiny", _TINY)
    monkeypatch.setitem(_trained._RATES, "tiny", 1e-2)
    first = TrainedClassifier("tiny", colours, classes=3, folder=tmp_path)

    def never() -> tuple[Images, Any]:
        raise AssertionError("It was trained already.")

    again = TrainedClassifier("tiny", never, classes=3, folder=tmp_path)
    images, truth = colours(60, seed=2)
    said = first(images)
    assert said.shape == (60, 3)
    assert said.dtype == np.float64
    assert np.allclose(said.sum(1), 1)
    assert (said.argmax(1) == truth).mean() > 0.8
    assert np.array_equal(said, again(images))
    assert first.version == again.version
    assert first.parameters == sum(p.numel() for p in first.model.parameters())


@pytest.mark.parametrize("name", sorted(_trained.TRAINED))
def test_the_platforms_take_small_photographs(name: str) -> None:
    """Each platform of the matrix gives one logit per class for images of 32×32."""
    with torch.inference_mode():
        assert _trained._model(name, 10).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


# -- the ceiling ------------------------------------------------------------------------------------------------


class _Looker(nn.Module):
    """The tiny world's platform as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(8 * 8 * 3, 3)
        weights = worlds.PATTERNS.transpose(0, 3, 1, 2).reshape(3, -1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(0.5 * 255 / weights.shape[1] * weights))
            self.linear.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits that differ from the platform's by the same number for every class."""
        logits: torch.Tensor = self.linear(self.flatten(images))
        return logits


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a track whose platform is an ONNX file among the tracks, and the cache into a folder of the test."""
    path = tmp_path / "tiny.onnx"
    torch.onnx.export(
        _Looker().eval(), (torch.rand(2, 3, 8, 8),), str(path), input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}}, dynamo=False,
    )  # fmt: skip

    @contextmanager
    def opened(answers: str) -> Iterator[LocalPlatform]:
        yield LocalPlatform.from_onnx(path, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny")

    monkeypatch.setitem(TRACKS, "tiny", Track("tiny", ("scores",), opened, people, {"public": QUICK}))
    monkeypatch.setattr(ceiling, "onnx_file", lambda name: path)
    monkeypatch.setattr(matrix, "onnx_file", lambda name: path)
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_white_box_is_the_platform(tiny: Path) -> None:
    """The converted network says what the file says, and what is no network is a sentence."""
    images, _ = worlds.draw(20, strength=4.0, seed=3)
    said = ceiling.white_box(tiny)(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255))
    with TRACKS["tiny"].open_platform("scores") as opened:
        assert np.allclose(said.softmax(1).detach().numpy(), opened._model(images), atol=1e-5)
    tiny.write_bytes(b"no network")
    with pytest.raises(ConfigError, match="Expected an ONNX classifier"):
        ceiling.white_box(tiny)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_ceiling_rises_with_epsilon(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """δ of the platform itself closes the gap, more with more ε, and every row says for whom and with what interval."""
    monkeypatch.setattr(ceiling, "OPEN_BOX", ("tiny",))
    result = ceiling.main(
        ["--track", "tiny", "--queries", "150", "--epsilon", "2", "6", "--seeds", "2", "--regime", "public"]
    )
    assert json.loads(json.dumps(result)) == result
    assert [(row["seed"], row["epsilon"]) for row in result["rows"]] == [(0, 2), (0, 6), (1, 2), (1, 6)]
    for row in result["rows"]:
        assert row["subgroup_after_lower"] < row["subgroup_after"] < row["subgroup_after_upper"] or (
            row["subgroup_after"] == row["subgroup_after_upper"] == 1
        )
    assert result["mean"]["epsilon-6"]["gap_closed"] > result["mean"]["epsilon-2"]["gap_closed"] > 0
    assert result["mean"]["epsilon-6"]["subgroup_after"] > 0.9
    assert result["file"] == "ceiling-tiny-public-q150-e2-6"


# -- the matrix -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.full
def test_every_pair_has_its_sizes_and_its_honest_row(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell states both sizes, fidelity and the control of the proxy that asked nothing."""
    monkeypatch.setattr(matrix, "PLATFORMS", ("tiny",))
    monkeypatch.setattr(matrix, "PROXIES", ("perceptron", "small-cnn"))
    result = matrix.main(["--queries", "150", "--epsilon", "12"])
    assert json.loads(json.dumps(result)) == result
    assert [(c["proxy"], c["platform"]) for c in result["cells"]] == [("perceptron", "tiny"), ("small-cnn", "tiny")]
    for cell in result["cells"]:
        assert cell["platform_parameters"] == 8 * 8 * 3 * 3 + 3
        assert cell["platform_over_proxy"] == cell["platform_parameters"] / cell["proxy_parameters"]
        assert cell["row"]["fidelity_subgroup"] is not None
        assert cell["row"]["zero_query_control"] is not None
        assert 0 <= cell["zero_query_mcnemar_p"] <= 1
    sizes = {c["proxy"]: c["proxy_parameters"] for c in result["cells"]}
    assert sizes["perceptron"] < sizes["small-cnn"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_settings_on_the_command_line_reach_every_pair(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the result, change δ and name another file than the whole matrix; the proxies' own are refused."""
    monkeypatch.setattr(matrix, "PLATFORMS", ("tiny",))
    monkeypatch.setattr(matrix, "PROXIES", ("perceptron",))
    whole, part = (matrix.main(["--queries", "150", "--epsilon", "12", *more]) for more in ((), ("--set", "steps=1")))
    assert (whole["settings"]["steps"], part["settings"]["steps"]) == (100, 1)
    assert whole["file"] != part["file"]
    assert whole["cells"][0]["row"]["subgroup_after"] > part["cells"][0]["row"]["subgroup_after"]
    with pytest.raises(ConfigError, match="Name them with --proxies"):
        matrix.main(["--set", "architectures=perceptron"])

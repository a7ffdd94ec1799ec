"""Tests of labeling: which head names images that nobody labeled, and at what size a network sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.published import onnx_file
from tests.test_weights import trained
from ttca.proxies import labeling
from ttca.proxies.backbones import read_backbone
from ttca.proxies.distillation import Answered, Targets
from ttca.proxies.labeling import create_labeler, label_images


def known(n: int, seed: int) -> Answered:
    """Return patterns, and which they are."""
    images, classes = worlds.draw(n, strength=8.0, seed=seed)
    return images, Targets.from_labels(classes, 3)


def test_the_backbone_whose_head_judges_like_best_labels(tmp_path: Path) -> None:
    """Of a network of random weights and one that knows the patterns the second labels, wherever it stands; its
    probabilities add up to one and are the same again."""
    random, knows = read_backbone(onnx_file(tmp_path / "r.onnx")), read_backbone(trained(tmp_path / "k.safetensors"))
    images, classes = worlds.draw(90, strength=8.0, seed=7)
    for order, expected in (((random, knows), 1), ((knows, random), 0)):
        scores, place, agreement = label_images(images, known(60, 1), known(30, 2), order)
        assert place == expected
        assert agreement > 0.7
        assert scores.shape == (90, 3)
        assert scores.dtype == np.float32
        assert (scores.argmax(1) == classes).mean() > 0.7
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
        assert np.array_equal(scores, label_images(images, known(60, 1), known(30, 2), order)[0])


def test_rows_without_a_class_teach_and_judge_nothing(tmp_path: Path) -> None:
    """A refusal changes no label; where nobody is left to learn from, or to judge, it is said."""
    knows = read_backbone(trained(tmp_path / "k.safetensors"))
    images = worlds.draw(20, strength=8.0, seed=7)[0]
    (asked, said), judged = known(60, 1), known(30, 2)
    refused = Targets(np.append(said.labels, -1), np.vstack([said.scores, said.scores[:1]]))
    more = np.concatenate([asked, asked[:1]]), refused
    assert np.array_equal(
        label_images(images, more, judged, [knows])[0], label_images(images, (asked, said), judged, [knows])[0]
    )
    nobody = asked[:1], Targets.from_labels(np.array([-1]), 3)
    for taught, judges in ((nobody, judged), ((asked, said), nobody)):
        with pytest.raises(ValueError, match="Expected people of whom a class is known"):
            label_images(images, taught, judges, [knows])
    with pytest.raises(ValueError, match="Expected published weights to label"):
        label_images(images, (asked, said), judged, [])


def test_images_are_seen_at_the_size_that_the_network_was_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of larger images sees these enlarged, one of any size sees them as they are; a batch stays small."""
    sizes: list[tuple[int, ...]] = []

    def watched(*given: Any, **more: Any) -> Any:
        model = create_labeler(*given, **more)
        model.body.register_forward_pre_hook(lambda _, batch: sizes.append(tuple(batch[0].shape)))
        return model

    monkeypatch.setattr(labeling, "create_labeler", watched)
    monkeypatch.setattr(labeling, "_PIXELS", 16 * 16 * 7)
    backbone = read_backbone(onnx_file(tmp_path / "w.onnx"))
    for side, seen, most in ((16, 16, 7), (None, 8, 28)):
        sizes.clear()
        images = worlds.draw(29, strength=8.0, seed=7)[0]
        label_images(images, known(15, 1), known(9, 2), [replace(backbone, side=side)])
        assert {size[1:] for size in sizes} == {(3, seen, seen)}
        # Nobody is left alone.
        assert {size[0] > 1 for size in sizes} == {True}
        assert max(size[0] for size in sizes) <= most

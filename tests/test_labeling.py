"""Tests of public images without classes: who labels them, what learns from that, and what the control gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import worlds
from tests.published import tensors_file
from tests.test_weights import trained
from tests.worlds import Recorder, open_action
from ttca.action import CollectiveAction
from ttca.blocks import shrink
from ttca.errors import ActionError, ConfigError, ImageError
from ttca.forgetting import _LEARNED, _found
from ttca.images import Images
from ttca.labeling import Labeled
from ttca.perturbations import PerturbationSet
from ttca.progress import Reporter
from ttca.proxies import distillation, labeling
from ttca.proxies.backbones import read_backbone
from ttca.proxies.distillation import Answered, Targets

PUBLIC = worlds.crowd("public", 60, 60, seed=200)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """Return published weights that tell the patterns apart, of which they know one class more."""
    return trained(tmp_path / "tells.safetensors", license="MIT", source="somebody, somewhere")


def opened(folder: Path, platform: Any, backbone: Path | str, **changes: Any) -> CollectiveAction:
    """Open an action of the tiny world with public images that have no class."""
    people = {k: changes.pop(k) for k in ("public", "roster") if k in changes}
    levers = worlds.settings(labelers=str(backbone), public_epochs=4, epsilons=(12,), controls_people=20, **changes)
    return open_action(folder, platform, settings=levers, **{"public": PUBLIC.images, **people})


class Heads:
    """What each head was fit on and judged by, and what each training learned, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fit: list[tuple[Answered, Answered]] = []
        self.trained: list[tuple[Answered, Answered | None]] = []
        label, train = labeling.label_images, distillation.train_proxy

        def labels(images: Images, known: Answered, judged: Answered, *a: Any, **k: Any) -> Any:
            self.fit.append((known, judged))
            return label(images, known, judged, *a, **k)

        def trains(images: Images, targets: Targets, *a: Any, **k: Any) -> Any:
            self.trained.append(((images, targets), k["replay"]))
            return train(images, targets, *a, **k)

        monkeypatch.setattr(labeling, "label_images", labels)
        monkeypatch.setattr(distillation, "train_proxy", trains)


def kept(folder: Path) -> dict[str, bytes]:
    """Return the files of labels."""
    return {path.name: path.read_bytes() for path in sorted((folder / "labels").iterdir())}


def test_images_without_classes_teach_and_are_never_sent(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that learned the pool's scores labels them, the proxy learns its probabilities first and rehearses them
    later, no image is sent, no query paid for one, and row, members' file and report say who labeled what."""
    heads, platform, folder = Heads(monkeypatch), Recorder(), tmp_path / "action"
    with opened(folder, platform, backbone, goal=0.1, alpha=0.5) as action:
        action.verify()
        ((known, judged), *_), (warm, tuned, *_) = heads.fit, heads.trained
        row, _ = action.measure()
        report = action.report().read_text(encoding="utf-8")
        pool, selection = action.roster.pool, action.questions.selection
        assert action.ledger.paid()["pool"] == 205
        assert action.backbones[0].name == "tells"
    assert {folder / "labels" / name for name in kept(folder) if name.endswith("s")} <= set(_found(folder, _LEARNED))
    sent = {image for images in platform.seen.values() for image in images}
    assert not sent & {image.tobytes() for image in PUBLIC.images}
    assert np.array_equal(known[0], pool.images)
    assert np.allclose(known[1].scores, worlds.model(pool.images), atol=1e-5)
    assert np.array_equal(judged[0], selection.images)
    assert np.allclose(judged[1].scores, worlds.model(selection.images), atol=1e-5)
    ((images, said), nothing), ((asked, _), (rehearsed, again)) = warm, tuned  # type: ignore[misc]
    assert nothing is None
    assert np.array_equal(images, PUBLIC.images)
    assert np.array_equal(rehearsed, PUBLIC.images)
    assert np.array_equal(asked, pool.images)
    assert np.allclose(said.scores.sum(1), 1, atol=1e-5)
    assert np.array_equal(said.scores, again.scores)
    assert np.array_equal(said.labels, said.scores.argmax(1))
    # Chance is a third, and half of the patterns are faint.
    assert (said.labels == PUBLIC.classes).mean() > 0.5
    assert row.regime == "public"
    (shown,) = row.to_dict()["backbones"]
    assert (shown["name"], shown["license"], shown["source"]) == ("tells", "MIT", "somebody, somewhere")
    assert shown["labeled"].startswith("120 public images without classes were labeled by a linear head on tells")
    assert "which learned the platform's answers: right for" in shown["labeled"]
    assert PerturbationSet.load(folder / "perturbations.safetensors").evidence["backbones"] == [shown]
    assert "public images were labeled by one" in report
    assert shown["labeled"].replace("'", "&#39;") in report


def test_a_killed_run_labels_nothing_twice(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that were kept are read back, and the proxy with them; other images, or another head, are labeled anew."""
    folder = tmp_path / "action"
    with opened(folder, Recorder(), backbone) as action:
        first = action.distil()[0].digest()
    before, heads = kept(folder), Heads(monkeypatch)
    assert sorted(name.rpartition(".")[2] for name in before) == ["json", "safetensors"]
    with opened(folder, Recorder(), backbone) as action:
        assert action.distil()[0].digest() == first
    assert (heads.fit, heads.trained) == ([], [])
    assert kept(folder) == before
    # Killed between the two files: nothing was said of who labeled.
    (said,) = (folder / "labels").glob("*.json")
    said.unlink()
    with opened(folder, Recorder(), backbone) as action:
        assert action.distil()[0].digest() == first
    assert len(heads.fit) == 1
    assert kept(folder) == before
    other = PUBLIC.images.copy()
    other[0, 0, 0, 0] ^= 1
    for images, weights in ((other, backbone), (PUBLIC.images, trained(tmp_path / "other.safetensors", seed=5))):
        with opened(folder, Recorder(), weights, public=images) as action:
            assert action.distil()[0].digest() != first
    assert len(heads.fit) == 3
    assert len(kept(folder)) == 6


def test_somebody_who_changed_labels_is_noticed(tmp_path: Path, backbone: Path) -> None:
    """Kept labels whose content is another one than was written are refused."""
    with opened(tmp_path / "action", Recorder(), backbone) as action:
        action.distil()
    (path,) = (tmp_path / "action" / "labels").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with (
        opened(tmp_path / "action", Recorder(), backbone) as action,
        pytest.raises(ActionError, match="Delete it and run again"),
    ):
        action.distil()


def test_the_control_gets_the_same_images_without_an_answer(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control's head learns members' true classes alone and is judged by true classes; the control then learns its
    labels, and those true classes where the action learns answers, for as long. No answer changes a bit of it."""
    controls = []
    for name, label_only in {"scores": False, "label": True}.items():
        with monkeypatch.context() as patch:
            heads = Heads(patch)
            with opened(tmp_path / name, Recorder(label_only=label_only), backbone) as action:
                action.learn()
                learned = len(heads.trained)
                action.opponents(12)
                row, _ = action.measure()
                pool, judges = action.roster.pool, action.questions.judges
        (_, (known, judged)), (warm, tuned) = heads.fit, heads.trained[learned:]
        for (images, said), people in ((known, pool), (judged, judges), (tuned[0], pool)):
            assert np.array_equal(images, people.images)
            assert np.array_equal(said.labels, people.classes)
            assert np.isnan(said.scores).all()
        (images, said), _ = warm
        assert np.array_equal(images, np.concatenate([pool.images, PUBLIC.images]))
        assert tuned[1] is not None
        assert np.array_equal(tuned[1][0], images)
        assert np.isnan(said.scores[: len(pool)]).all()
        assert not np.isnan(said.scores[len(pool) :]).any()
        assert row.zero_query_epochs == 4 + 12
        proxy = load_file(tmp_path / name / "zero-query-proxy.safetensors")
        controls.append((said.scores.tobytes(), {k: v.tobytes() for k, v in proxy.items()}))
    assert controls[0] == controls[1]


def test_members_true_classes_teach_the_head_where_they_may(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With true_classes the head learns answers and true classes; where nobody is asked about an image as it is, these
    alone, and such an action's control is its warm start learned again."""
    heads = Heads(monkeypatch)
    with opened(tmp_path / "both", Recorder(), backbone, true_classes=True) as action:
        action.distil()
        pool = action.roster.pool
    (((images, said), _),) = heads.fit
    assert np.array_equal(images, np.concatenate([pool.images, pool.images]))
    assert np.array_equal(said.labels[len(pool) :], pool.classes)
    assert np.isnan(said.scores).all(1).tolist() == [False] * len(pool) + [True] * len(pool)
    assert len(heads.trained[0][0][0]) == len(pool) + len(PUBLIC)
    with opened(tmp_path / "none", Recorder(), backbone, true_classes=True, refine=1.0) as action:
        action.learn()
        opponents = action.opponents(12)
        assert action._distilled.asked_nothing
        warm = action._distilled.warm_weights
    assert (opponents.zero_query_epochs, len(heads.fit)) == (4, 2)
    (images, said), (_, true) = heads.fit[-1]
    assert np.array_equal(images, pool.images)
    assert np.isnan(said.scores).all()
    assert np.isnan(true.scores).all()
    control = distillation.Proxy.load(tmp_path / "none" / "zero-query-proxy.safetensors")
    assert control.digest() == warm


@pytest.mark.parametrize("levers", [{"rounds": 1, "altered": 0.5}, {"equalize": True}], ids=["rounds", "equalize"])
def test_altered_and_equalized_images_are_told_apart(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, levers: dict[str, Any]
) -> None:
    """A head learns from images as they are or equalized, never from copies altered by δ; nobody both teaches and
    judges one."""
    heads = Heads(monkeypatch)
    with opened(tmp_path / "action", Recorder(), backbone, **levers) as action:
        action.distil()
        plain = action.questions.plain
    (((known, _), (judges, _)),) = heads.fit
    assert np.array_equal(known, plain.images)
    assert not {one.tobytes() for one in known} & {one.tobytes() for one in judges}


def test_without_published_weights_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no weights are here, where those that are named are gone, and where they take no such images, the action
    is refused before a query; weights that are here are found, and an action goes on with what it began with."""
    platform, folder, here = Recorder(), tmp_path / "action", tmp_path / "here"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.delenv("TTCA_WEIGHTS", raising=False)
    bad = tensors_file(tmp_path / "resnet20.safetensors", "perceptron", says=False)
    for words, sentence in {
        (): "Expected published weights to label public images by, got none. Name a file in labelers",
        (str(tmp_path / "gone.onnx"),): "got nothing there. Correct the path",
        (str(bad),): "Expected a network that labels public images of 8×8 pixels, got resnet20, which fails",
    }.items():
        for recipe in ("manual", "auto"):
            levers = worlds.settings(labelers=words, recipe=recipe)
            with (
                open_action(folder, platform, settings=levers, public=PUBLIC.images) as action,
                pytest.raises(ConfigError, match=sentence) as error,
            ):
                action.learn()
            assert str(error.value).endswith("No query was spent.")
    assert platform.queries == 0
    here.mkdir()
    trained(here / "a.safetensors")
    monkeypatch.setenv("TTCA_WEIGHTS", str(here))
    levers, said = worlds.settings(weights="none", public_epochs=2), list[str]()
    monkeypatch.setattr(Reporter, "say", lambda _, sentence: said.append(sentence))
    with open_action(folder, platform, settings=levers, public=PUBLIC.images) as action:
        assert action.runners is None
        assert any(s.startswith("Public images without classes will be labeled by a linear head on a (") for s in said)
        assert platform.queries == 0
        first = action.distil()[0].digest()
        assert action._chosen.known.labeled is not None
        assert action._chosen.known.labeled.backbone.name == "a"
    trained(here / "0.safetensors", seed=9)
    with open_action(folder, platform, settings=levers, public=PUBLIC.images) as action:
        assert action.distil()[0].digest() == first
    (here / "a.safetensors").unlink()
    with (
        open_action(folder, platform, settings=levers, public=PUBLIC.images) as action,
        pytest.raises(ConfigError, match="The action began with it"),
    ):
        action.distil()


@pytest.mark.parametrize("words", ["none", "hub", ("a", "a"), "", (3,)])
def test_what_is_no_name_of_a_labeler_is_refused(words: Any) -> None:
    """A labeler is a file or a name, each once."""
    with pytest.raises(ConfigError, match="Expected labelers as different paths or names, got"):
        worlds.settings(labelers=words)


@pytest.mark.parametrize("what", ["an image of a verification person", "another size", "no levels"])
def test_images_that_may_not_be_public_are_refused(tmp_path: Path, backbone: Path, what: str) -> None:
    """Images without classes are held to what public people are, before a query."""
    images, sentence = {
        "an image of a verification person": (worlds.roster().verification.images, "belong to no selection"),
        "another size": (np.zeros((3, 4, 4, 3), np.uint8), "Expected public images of"),
        "no levels": (PUBLIC.images / 255, "Expected images as uint8"),
    }[what]
    with pytest.raises((ActionError, ImageError), match=sentence):
        opened(tmp_path / "action", Recorder(), backbone, public=images)


def test_a_head_that_is_no_better_than_one_name_is_said(backbone: Path) -> None:
    """Whoever labels public images by such a head hears that they teach nothing, and what to do."""
    scores = np.full((len(PUBLIC), 2), 0.5, np.float32)
    made = Labeled(PUBLIC.images, scores, read_backbone(backbone), 0.5, asked=True, commonest=0.5)
    assert "these labels teach nothing. Take public out" in made.told
    assert "nothing" not in replace(made, agreement=0.6).told


def test_coarse_images_are_labeled_as_proxies_see_them(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a block, members' and public images are averaged over it for the head, as they are for the proxy."""
    heads = Heads(monkeypatch)
    with opened(tmp_path / "action", Recorder(), backbone, block=2) as action:
        action.distil()
    (((known, _), (judged, _)),) = heads.fit
    assert {known.shape[1:], judged.shape[1:], heads.trained[0][0][0].shape[1:]} == {(4, 4, 3)}
    with opened(tmp_path / "small", Recorder(), backbone, block=2, public=shrink(PUBLIC.images, 2)) as action:
        action.distil()
    assert len(heads.fit) == 2
    assert sorted(kept(tmp_path / "small")) == sorted(kept(tmp_path / "action"))


@pytest.mark.full
def test_in_a_race_whoever_asks_nothing_gets_labels_of_true_classes(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates share labels where they know the same: those that ask learn them of answers, the one that asks nothing
    of true classes, and a half of the race learns nothing of whom it left out."""
    heads = Heads(monkeypatch)
    levers: dict[str, Any] = {
        "recipe": "auto", "weights": "none", "epochs": 4, "race_share": 0.2, "control_lengths": (1.0,),
        "left_out": ("mixed", "residual", "true-first-rough", "true-first-margin", "mixed-margin", "plain",
                     "small-pictures", "equalized"),
    }  # fmt: skip
    with opened(tmp_path / "action", Recorder(), backbone, **levers) as action:
        assert action.runners is not None
        assert {r.name for r in action.runners.recipes} == {"zero-query", "true-first", "answers"}
        assert action.raced is not None
        assert action.runners.halves
        pool, fit = action.roster.pool, list(heads.fit)
        row, _ = action.measure()
    taught: dict[tuple[bool, bool], list[set[bytes]]] = {}
    for (images, said), (_, true) in fit:
        answered = ~np.isnan(said.scores).all(1)
        assert np.isnan(true.scores).all() == (not answered.any())
        kind = bool(answered.any()), bool((~answered).any())
        taught.setdefault(kind, []).append({one.tobytes() for one in images})
    assert set(taught) == {(True, False), (True, True), (False, True)}
    for whole, *halves in (sorted(sets, key=len, reverse=True) for sets in taught.values()):
        assert len(halves) == 2
        assert all(half < whole for half in halves)
        assert halves[0] | halves[1] == whole
    assert {one.tobytes() for one in pool.images} == max(taught[False, True], key=len)
    assert len(heads.fit) - len(fit) <= 1, "the control shares the labels of the candidate that asks nothing"
    assert row.to_dict()["backbones"][-1]["name"] == "tells"

"""Tests of kept files: what they say they were made from, and that those of an earlier version are still read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.action import CollectiveAction
from ttca.errors import ActionError
from ttca.kept import Digest, Facts, digest, load_arrays, made_from

#: Written by version 0.1 (commit 81abdb2) with the settings and people below.
KEPT = Path(__file__).parent / "kept" / "version-0.1"
THEN: dict[str, Any] = {"epsilons": (12,), "flip": True, "mixup": 0.2, "public_epochs": 3, "epochs": 4}


def learned(folder: Path, **changes: Any) -> dict[str, bytes]:
    """Learn δ and those of the controls in a folder, and return what its files then hold."""
    levers = worlds.settings(**{**THEN, **changes})
    known = worlds.crowd("public", 60, 60, seed=200)
    with open_action(folder, Recorder(label_only=True), settings=levers, public=known) as action:
        action.learn()
        action.opponents(12)
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.safetensors"))}


def test_files_of_version_0_1_are_read(tmp_path: Path) -> None:
    """Warm start, proxy, δ and the controls' δ that version 0.1 kept are read, and no byte of them is written again."""
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    before = {str(f.relative_to(KEPT)): f.read_bytes() for f in sorted(KEPT.rglob("*.safetensors"))}
    assert len(before) == 4
    assert learned(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"flip": False}, {"warm-start", "proxy", "epsilon-012", "controls"}),
        ({"public_epochs": 4}, {"warm-start", "proxy", "epsilon-012", "controls"}),
        ({"mixup": 0.3}, {"proxy", "controls"}),
        ({"steps": 11}, {"epsilon-012", "controls"}),
        ({"loss": "cross-entropy"}, {"epsilon-012", "controls"}),
    ],
)
def test_files_of_version_0_1_are_not_read_for_other_settings(
    tmp_path: Path, change: dict[str, Any], anew: set[str]
) -> None:
    """A changed option makes anew whatever it decides, and leaves the rest."""
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    after = learned(tmp_path, **change)
    changed = {Path(name).stem for name, content in after.items() if (KEPT / name).read_bytes() != content}
    # Labels are never mixed: the warm start is read, and δ too, where weights learned anew are the same as on the
    # machine that wrote these files. The proxy does not depend on how δ is learned.
    then, now = (load_file(folder / "proxy.safetensors") for folder in (KEPT, tmp_path))
    same = all(np.array_equal(then[name], now[name]) for name in then)
    assert changed == (anew if same else anew | {"epsilon-012"})


def test_every_option_is_in_a_digest(tmp_path: Path) -> None:
    """No field of the options can be forgotten: each one that changes makes another digest."""

    def said(action: CollectiveAction) -> tuple[str, str, str]:
        learner = action.learner
        return digest(learner.facts(public=True)), digest(learner.facts()), digest(learner.delta_facts())

    def of(**changes: Any) -> tuple[str, str, str]:
        with open_action(tmp_path, Recorder(), settings=worlds.settings(**changes)) as action:
            return said(action)

    first = of()
    changes: dict[str, tuple[Any, str]] = {
        "architectures": (("small-cnn",), "wp-"),
        "epochs": (13, "-p-"),
        "shift": (2, "wpd"),
        "flip": (True, "wpd"),
        "warp": (0.1, "wp-"),
        "mixup": (0.1, "-p-"),
        "block": (2, "wpd"),
        "precision": ("bfloat16", "wpd"),
        "processes": (2, "wp-"),
        "seed": (1, "wpd"),
        "public_epochs": (11, "w--"),
        "loss": ("cross-entropy", "--d"),
        "transforms": (("blur",), "--d"),
        "steps": (11, "--d"),
    }
    for name, (value, decides) in changes.items():
        moved = "".join(
            mark if now != before else "-" for mark, now, before in zip("wpd", of(**{name: value}), first, strict=True)
        )
        assert moved == decides, name


@pytest.mark.parametrize("name", ["proxy", "warm-start", "controls", "rounds/altered-1"])
def test_a_kept_file_whose_content_somebody_changed_is_refused(tmp_path: Path, name: str) -> None:
    """Permuted weights, δ of the controls or copies under the old metadata are not used, and the sentence says so."""
    learned(tmp_path, rounds=1)
    path = tmp_path / f"{name}.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file({k: np.flip(v, 0).copy() if v.ndim else v for k, v in load_file(path).items()}, path, metadata=metadata)
    with pytest.raises(ActionError, match=f"{name}.safetensors, got .* Delete it and run again"):
        learned(tmp_path, rounds=1)
    path.unlink()
    learned(tmp_path, rounds=1)


def test_an_earlier_digest_goes_through_later_ones() -> None:
    """A digest made of another one has an earlier form where all its parts have, and says so to no one else."""
    facts = Facts({"new": 1}, {"old": 1})
    inner = digest("inner", facts)
    assert made_from(digest("inner", {"new": 1}), inner)
    assert made_from(digest("inner", {"old": 1}), inner)
    assert not made_from(digest("inner", {"old": 2}), inner)
    outer = digest("outer", inner)
    assert made_from(digest("outer", str(digest("inner", {"old": 1}))), outer)
    unheard_of = digest("outer", digest("inner", Facts({"new": 1})))
    assert unheard_of == outer
    assert unheard_of.before is None
    assert not made_from(None, unheard_of)
    assert json.loads(json.dumps(inner)) == inner
    assert isinstance(inner, Digest)


def test_arrays_of_other_inputs_are_not_there(tmp_path: Path) -> None:
    """Kept arrays are read for the inputs they were made from, under either digest, and for no others."""
    path = tmp_path / "kept.safetensors"
    facts = Facts({"new": 1}, {"old": 1})
    assert load_arrays(path, digest(facts)) is None
    for written in (digest({"new": 1}), digest({"old": 1})):
        save_file({"a": np.arange(3)}, path, metadata={"inputs": written})
        found = load_arrays(path, digest(facts))
        assert found is not None
        assert found["a"].tolist() == [0, 1, 2]
        assert load_arrays(path, digest({"other": 1})) is None

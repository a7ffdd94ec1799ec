"""Tests of an action in which two recipes serve together, or nothing serves a class: δ, files, controls, sentences."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.test_candidates import Broken
from ttca.action import CollectiveAction
from ttca.attacks.universal import Universal
from ttca.candidates import PARTS
from ttca.controls import _best
from ttca.errors import PlatformError
from ttca.evidence.bundle import write_evidence
from ttca.evidence.check import check
from ttca.forgetting import _COPIES, _LEARNED, _found
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Credential
from ttca.race_record import COMBINED, RACE_FILE, Raced, Runners
from ttca.racing import PROVED_LATER
from ttca.recipes import Recipe

COARSE = Recipe(name="coarse", about="in blocks", changes={"block": 2, "true_classes": True})
FINE = Recipe(name="fine", about="in single pixels", changes={"true_classes": True})
#: The class that the fine recipe helps; the coarse one helps the others.
HELPED = 2
SERVES = {"coarse": ["stripes", "bars"], "fine": ["checks"]}


@dataclass(frozen=True)
class Divided:
    """An attack that knows one class where δ is of single pixels, and the others where it is in blocks."""

    def learn(self, _model: Any, examples: Any, *, epsilon: int, groups: int, **_rest: Any) -> Universal:
        step = worlds.SHAPE[0] // examples.images.shape[1]
        delta = np.rint(epsilon * worlds.PATTERNS[:, ::step, ::step]).astype(np.int8)
        delta[[HELPED] if step > 1 else [c for c in range(len(delta)) if c != HELPED]] = 0
        return Universal(delta[:groups], 0.0, 0)


def opened(folder: Path, platform: Any, *, halves: bool, **changes: Any) -> CollectiveAction:
    """Open an action of the tiny world in which the coarse and the fine recipe race."""
    given = {"recipe": "auto", "epochs": 2, "public_epochs": 2, "steps": 2, "race_share": 0.4, "refine": 0.1,
             "controls_people": 40, "seed": 2}  # fmt: skip
    settings = worlds.settings(**{**given, **changes})
    action = worlds.open_action(folder, platform, settings=settings, attack=Divided())
    if not (folder / RACE_FILE).is_file():
        action.__dict__["runners"] = Runners((COARSE, FINE), {"coarse": 1.0, "fine": 1.0}, halves=halves)
    return action


def learned(folder: Path) -> dict[Path, int]:
    """Return when each learned file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("halves", [True, False])
def test_each_class_gets_the_delta_of_the_recipe_that_serves_it(tmp_path: Path, halves: bool) -> None:
    """At every ε, learned from everybody and refined together; the race asks no more than it may, and the file says
    which recipe serves which class."""
    with opened(tmp_path, worlds.Recorder(), halves=halves) as action:
        raced = action.raced
        assert raced is not None
        assert (raced.winner, raced.recipe, raced.proposed) == ("coarse", COMBINED, True)
        assert raced.serves(worlds.CLASSES) == SERVES
        assert Raced.from_dict(json.loads(json.dumps(raced.to_dict()))) == raced
        sets = action.learn()
        # Where δ is nothing, the image is one that was asked about.
        assert action.ledger.paid()["pool-race"] <= raced.queries <= action.questions.race
        assert action.plan()["race"].queries == 0
    parts = {name: tmp_path / PARTS / name / "perturbations" for name in SERVES}
    moved = 0
    for epsilon, kept in sets.items():
        name = f"epsilon-{epsilon:03d}.safetensors"
        own = {recipe: PerturbationSet.load(home / name).delta for recipe, home in parts.items()}
        together = np.stack([own["fine" if c == HELPED else "coarse"][c] for c in range(len(worlds.CLASSES))])
        np.testing.assert_array_equal(together, np.rint(epsilon * worlds.PATTERNS))
        moved += kept.evidence["refinement"]["queries"]
        if not kept.evidence["refinement"]["kept"]:
            np.testing.assert_array_equal(kept.delta, together)
        assert kept.evidence["serves"] == SERVES
    assert moved


def test_row_report_and_controls_are_of_both(tmp_path: Path) -> None:
    """Row and report say who serves whom, the control is combined from both twins, and an action that is opened again
    asks and learns nothing; what was learned is all found where somebody is to be forgotten."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform, halves=True) as action:
        row, measured = action.measure()
        raced, opponents = action.raced, action.opponents(row.epsilon)
        page = unescape(action.report().read_text(encoding="utf-8"))
    assert raced is not None
    assert (row.recipe, row.serves) == (COMBINED, SERVES) == (row.to_dict()["recipe"], row.to_dict()["serves"])
    np.testing.assert_array_equal(opponents.zero_query.delta, np.rint(row.epsilon * worlds.PATTERNS))
    assert raced.told in page
    assert all(f"{name} ✓" in page for name in SERVES)
    whom = [f"{recipe} for {', '.join(classes)}" for recipe, classes in SERVES.items()]
    assert f"combined: {'; '.join(whom)}" in page
    files = {path.resolve() for path in tmp_path.rglob("*.safetensors")}
    assert files <= {*_found(tmp_path, _COPIES), *_found(tmp_path, _LEARNED)}
    shutil.rmtree(tmp_path / "candidates")
    before, times = platform.queries, learned(tmp_path)
    with opened(tmp_path, platform, halves=True) as again:
        assert again.raced == raced
        assert again.measure()[1] == measured
        assert check(write_evidence(again, tmp_path / "evidence.zip", url="https://example.org/letter").path)
        assert sum(cost.queries for cost in again.plan().values()) == 0
    assert (platform.queries, learned(tmp_path)) == (before, times)


def test_without_combining_the_winner_serves_all(tmp_path: Path) -> None:
    """With combine = false nothing but the winner's δ is learned and asked about; what an earlier version decided so
    holds for this one, and what another setting decided does not."""
    with opened(tmp_path, worlds.Recorder(), halves=False, combine=False) as action:
        raced = action.raced
        assert raced is not None
        assert (raced.recipe, raced.switched, raced.level) == ("coarse", (), PROVED_LATER / 2)
        sets = action.learn()
    assert not (tmp_path / PARTS).exists()
    assert not np.any(sets[12].delta[HELPED])
    with opened(tmp_path, worlds.Recorder(), halves=False) as action:
        assert action.raced != raced
    record = json.loads((tmp_path / RACE_FILE).read_text())
    record["result"] = {k: v for k, v in raced.to_dict().items() if k not in ("runner_up", "switched")}
    with opened(tmp_path, worlds.Recorder(), halves=False, combine=False) as action:
        _ = action.raced
    record["inputs"] = json.loads((tmp_path / RACE_FILE).read_text())["inputs"]
    (tmp_path / RACE_FILE).write_text(json.dumps(record))
    platform = worlds.Recorder()
    with opened(tmp_path, platform, halves=False) as action:
        found = action.raced
    assert found is not None
    assert (found.recipe, found.switched, platform.queries) == ("coarse", (), 0)


def test_a_combination_that_was_killed_pays_nothing_twice(tmp_path: Path) -> None:
    """Killed in the race, or while two recipes are learned and refined together, an action goes on where it was and
    ends as it would have."""
    whole = worlds.Recorder()
    with opened(tmp_path / "whole", whole, halves=True) as action:
        sets, raced = action.learn(), action.raced
    assert raced is not None
    before_refining = whole.queries - sum(s.evidence["refinement"]["queries"] for s in sets.values())
    broken = Broken(most=before_refining - 10)
    for most in (before_refining - 10, before_refining, whole.queries - 1):
        broken.most = most
        with opened(tmp_path / "killed", broken, halves=True) as action, pytest.raises(PlatformError):
            action.learn()
    broken.most = whole.queries
    with opened(tmp_path / "killed", broken, halves=True) as action:
        again = action.learn()
    assert broken.queries == whole.queries
    assert {e: s.delta.tobytes() for e, s in again.items()} == {e: s.delta.tobytes() for e, s in sets.items()}


def test_the_control_gets_the_better_twin_of_each_class() -> None:
    """In a class that a second recipe serves, the control has whichever twin helps more of those who choose, and of
    equals the one that serves there; elsewhere the winner's; the best length is chosen of what comes of it."""
    people = worlds.crowd("selection", 30, 0, seed=3)
    platform = worlds.Recorder().model

    def deltas(*helped: int) -> PerturbationSet:
        delta = np.zeros((3, *worlds.SHAPE), np.int8)
        for label in helped:
            delta[label] = np.rint(12 * worlds.PATTERNS[label])
        return PerturbationSet(delta, 12, worlds.CLASSES, "subgroup", "tiny")

    def ask(images: Any, owners: list[str]) -> Any:
        asked.append(len(owners))
        return platform.attempt(images, Credential("member-0"), request_id="1")

    asked: list[int] = []
    served = np.array([1, 2])
    own, other = {0.5: deltas(1), 1.0: deltas(0, 1)}, {0.5: deltas(2), 1.0: deltas(2)}
    best, chosen = _best(own, [(other, served)], people, ask)
    assert best == 1.0
    np.testing.assert_array_equal(chosen.delta, deltas(0, 1, 2).delta)
    # The second is asked about its own classes alone.
    assert asked == [30, 20, 30, 20]
    asked.clear()
    _, alone = _best({1.0: deltas(0, 1)}, [({1.0: deltas(2)}, served)], people, ask)
    np.testing.assert_array_equal(alone.delta, deltas(0, 2).delta)
    assert asked == []


@dataclass(frozen=True)
class Harmful:
    """An attack whose δ of one class is that of another."""

    def learn(self, _model: Any, examples: Any, *, epsilon: int, groups: int, **_rest: Any) -> Universal:
        step = worlds.SHAPE[0] // examples.images.shape[1]
        delta = np.rint(epsilon * worlds.PATTERNS[:, ::step, ::step]).astype(np.int8)
        delta[HELPED] = delta[0]
        return Universal(delta[:groups], 0.0, 0)


@pytest.mark.parametrize("halves", [True, pytest.param(False, marks=pytest.mark.full)])
def test_a_class_that_delta_harms_is_left_alone(tmp_path: Path, halves: bool) -> None:
    """Where δ helps two classes and harms a third, nobody of that one is changed at any ε, refined or not; the control
    may leave it alone, too; race, row, report and members' file say so; opened again, the action asks nothing."""
    platform = worlds.Recorder()

    def begun() -> CollectiveAction:
        settings = worlds.settings(recipe="auto", epochs=2, public_epochs=2, steps=2, race_share=0.4, refine=0.1,
                                   controls_people=40)  # fmt: skip
        action = worlds.open_action(tmp_path, platform, settings=settings, attack=Harmful())
        if not (tmp_path / RACE_FILE).is_file():
            action.__dict__["runners"] = Runners((COARSE,), {"coarse": 1.0}, halves=halves)
        return action

    with begun() as action:
        raced, sets = action.raced, action.learn()
        row, measured = action.measure()
        page = unescape(action.report().read_text(encoding="utf-8"))
        opponents = action.opponents(row.epsilon)
    assert raced is not None
    serves = {"coarse": ["stripes", "bars"], "nothing": ["checks"]}
    assert [s.name for s in raced.spared] == ["checks"]
    assert (raced.recipe, raced.serves(worlds.CLASSES), raced.going_on) == ("coarse", serves, ("coarse",))
    assert Raced.from_dict(json.loads(json.dumps(raced.to_dict()))) == raced
    for kept in sets.values():
        assert not kept.delta[HELPED].any()
        assert kept.delta[0].any()
        assert kept.evidence["serves"] == serves
    assert (row.recipe, row.serves) == ("coarse", serves)
    assert not opponents.zero_query.delta[HELPED].any()
    assert "δ leaves 1 of the classes alone, in which those tested fared better as they are: checks." in raced.told
    assert raced.told in page
    assert "coarse: coarse for stripes, bars; nothing for checks" in page
    assert all("It leaves this class as it is: checks." in kept.about() for kept in sets.values())
    before, times = platform.queries, learned(tmp_path)
    with begun() as again:
        assert again.measure()[1] == measured
    assert (platform.queries, learned(tmp_path)) == (before, times)

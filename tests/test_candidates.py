"""Tests of races inside an action: what is asked, what goes on, and what becomes of an action that nothing helps."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.attacks.universal import Universal
from ttca.errors import NothingHelpsError, PlatformError
from ttca.forgetting import _COPIES, _LEARNED, _found
from ttca.images import Images
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.race_record import NOTHING, RACE_FILE, Raced
from ttca.settings import Settings


@dataclass(frozen=True)
class Still:
    """An attack that changes nothing, and so helps nobody."""

    def learn(self, _model: Any, examples: Any, *, groups: int, **_rest: Any) -> Universal:
        return Universal(np.zeros((groups, *examples.images.shape[1:]), np.int8), 0.0, 0)


def settings(**changes: Any) -> Settings:
    """Return settings under which four recipes race in seconds."""
    return worlds.settings(**{"recipe": "auto", "epochs": 6, "public_epochs": 6, **changes})


def opened(folder: Path, platform: Any, **more: Any) -> CollectiveAction:
    """Open an action of the tiny world."""
    more = {"settings": settings(), "roster": worlds.roster(), **more}
    return CollectiveAction(folder, platform=platform, members=worlds.members(), **more)


class Broken(worlds.Recorder):
    """A platform that goes down when it has answered so many images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def attempt(self, images: Images, credential: Any, *, request_id: str) -> Answers:
        """Answer, or fail for good."""
        if self.queries + len(images) > self.most:
            raise PlatformError("Expected an answer, got none: it is down.", platform="tiny")
        return super().attempt(images, credential, request_id=request_id)


def test_the_winner_goes_on(tmp_path: Path) -> None:
    """A race is paid from the same queries, asks selection people alone, and its winner is verified and measured; an
    action that is opened again asks and learns nothing."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform) as action:
        asked = len(action.roster.pool) + len(action.roster.selection)
        assert sum(action.plan()[step].queries for step in ("pool", "race")) == asked
        raced = action.raced
        assert raced is not None
        assert raced.proposed
        assert not action.ledger.paid().keys() & {"verification", "baseline", "controls"}
        action.verify()
        row, measurement = action.measure()
        page = action.report().read_text(encoding="utf-8")
    assert row.recipe == raced.winner == row.to_dict()["recipe"]
    assert row.queries == row.queries_pool == asked == sum(row.composition.values())
    assert (raced.queries, row.composition["altered"]) == (asked - 164, raced.queries + 33)
    page = unescape(page)
    assert all(e.name in page and e.about in page for e in raced.entrants)
    assert {e.name for e in raced.entrants} >= {"zero-query", "equalized"}
    assert Raced.from_dict(json.loads(json.dumps(raced.to_dict()))) == raced
    selection = action.questions.selection
    sent = platform.by_purpose(tmp_path / "ledger.sqlite")["pool-race"]
    close = [np.abs(selection.images.astype(int) - np.frombuffer(s, np.uint8).reshape(1, *worlds.SHAPE)) for s in sent]
    assert all(d.max(axis=(1, 2, 3)).min() <= raced.epsilon for d in close)
    # Whoever begins alike learned true classes once.
    starts = {path.read_bytes() for path in tmp_path.glob("candidates/*/warm-start.safetensors")}
    assert {path.read_bytes() for path in tmp_path.glob("candidates/warm-starts/*")} == starts
    # The winner is at home: its candidates may go.
    shutil.rmtree(tmp_path / "candidates")
    before = platform.queries
    learned = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    with opened(tmp_path, platform) as again:
        assert again.raced == raced
        assert again.measure()[1] == measurement
        assert again.plan()["race"].queries == 0
    assert platform.queries == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == learned


def test_a_race_that_was_killed_pays_nothing_twice(tmp_path: Path) -> None:
    """It goes on with the candidates that were learned and the answers that came, and ends as it would have."""
    with opened(tmp_path / "whole", worlds.Recorder()) as action:
        whole = action.raced
    assert whole is not None
    broken = Broken(most=164 + 20)
    with opened(tmp_path / "killed", broken) as action, pytest.raises(PlatformError):
        _ = action.raced
    assert json.loads((tmp_path / "killed" / RACE_FILE).read_text())["result"] is None
    broken.most = 10**6
    with opened(tmp_path / "killed", broken) as action:
        raced = action.raced
    assert raced is not None
    assert replace(raced, entrants=()) == replace(whole, entrants=())
    assert [(e.name, e.mean, e.out) for e in raced.entrants] == [(e.name, e.mean, e.out) for e in whole.entrants]
    # No image came in twice.
    assert broken.queries == 164 + raced.queries


def test_where_nothing_helps_nobody_verifies(tmp_path: Path) -> None:
    """An action whose candidates help nobody proposes nothing: no person is verified, S is the accuracy before, and
    members get no file; a plain sentence and the report say so."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform, attack=Still()) as action:
        with pytest.raises(NothingHelpsError, match="no recipe was shown to beat doing nothing"):
            action.verify()
        with pytest.raises(NothingHelpsError):
            action.learn()
        raced = action.raced
        row, _ = action.measure()
        page = action.report().read_text(encoding="utf-8")
        paid = action.ledger.paid()
        with Ledger(tmp_path / "evaluation.sqlite") as ledger:
            pool = QueryPool(platform, ledger, [Member("benchmark", 10**4)])
            test, _ = action.measure(worlds.strangers(), pool=pool)
    assert raced is not None
    assert not raced.proposed
    assert set(paid) <= {"pool", "pool-race"}
    assert action.handed_out() is None
    said = row.to_dict()
    assert said["recipe"] == test.recipe == NOTHING
    assert row.subgroup_after == row.subgroup_before
    assert test.subgroup_after == test.subgroup_before
    assert (said["certified"], said["certificate_lower"], said["persons_verification"]) == (False, None, 0)
    assert (said["zero_query_control"], said["paired_p"]) == (None, None)
    assert "nothing is proposed" in page
    assert all(e.name in page for e in raced.entrants)
    # Images as they are were paid for in the pool.
    assert paid["pool"] == 164


def test_altered_copies_are_asked_about_once_for_all(tmp_path: Path) -> None:
    """Where a hand set rounds, one candidate makes the copies, every other learns from them too, and nobody pays twice;
    whoever is forgotten leaves none of them."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform, settings=settings(rounds=1, altered=0.5)) as action:
        asked = len(action.roster.pool) + len(action.roster.selection)
        raced = action.raced
        plan = action.plan()
    assert raced is not None
    assert platform.queries == asked
    assert (plan["pool"].queries, plan["race"].queries) == (0, 0)
    assert len(list(tmp_path.glob("candidates/*/rounds/altered-*"))) == 1
    assert sorted(_found(tmp_path, _COPIES)) == sorted(p.resolve() for p in tmp_path.rglob("altered-*"))
    learned = {path.resolve() for path in tmp_path.rglob("*.safetensors")}
    assert learned <= {*_found(tmp_path, _COPIES), *_found(tmp_path, _LEARNED)}


def test_time_decides_who_races_and_is_said(tmp_path: Path) -> None:
    """What does not fit into most_minutes does not race; the zero-query candidate always does."""
    slow = settings(epochs=10**6, public_epochs=10**6, most_minutes=1)
    with opened(tmp_path, worlds.Recorder(), settings=slow) as action:
        runners = action.runners
    assert runners is not None
    assert [r.name for r in runners.recipes] == ["zero-query"]
    assert "equalized" in runners.no_time
    assert "larger most_minutes" in runners.told


def test_what_is_set_by_hand_leaves_one_candidate_to_beat_nothing(tmp_path: Path) -> None:
    """Where all is pinned, one recipe is tested against doing nothing, with every query of the race."""
    pinned = settings(
        weights="none", true_classes=True, flip=True, shift=1, warp=0.1, mixup=0.2, block=2, loss="cross-entropy",
        kappa=2.0, transforms=("resize",), left_out=("zero-query",), pinned=("shift", "equalize"),
    )  # fmt: skip
    with opened(tmp_path, worlds.Recorder(), settings=pinned) as action:
        runners, raced = action.runners, action.raced
    assert runners is not None
    assert len(runners.recipes) == 1
    assert raced is not None
    assert (raced.tested, raced.level, raced.fresh) == (40, 0.05, True)


def test_one_recipe_can_be_named(tmp_path: Path) -> None:
    """A named recipe races with nobody: its settings are the action's, but for those set by hand."""
    named = worlds.settings(recipe="small-pictures")
    with opened(tmp_path, worlds.Recorder(), settings=named) as action:
        assert (action.settings.true_classes, action.settings.loss, action.settings.steps) == (
            True,
            "cross-entropy",
            10,
        )
        assert action.runners is None
        assert action.raced is None

"""Tests of races inside an action: what is asked, what goes on, and what becomes of an action that nothing helps."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests import worlds
from ttca import entering
from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.asking import race_queries
from ttca.attacks.universal import Universal
from ttca.candidates import foresight
from ttca.distilling import Fidelity, best_fidelity, distil
from ttca.entering import check_left_out
from ttca.errors import ActionError, ConfigError, NothingHelpsError, PlatformError
from ttca.forgetting import _COPIES, _LEARNED, _found
from ttca.images import Images
from ttca.lessons import Lessons, halved
from ttca.people import People
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.progress import Reporter
from ttca.proxies.distillation import Proxy
from ttca.race_record import NOTHING, RACE_FILE, Raced, Runners
from ttca.racing import ERROR, PROVED_LATER
from ttca.recipes import Recipe
from ttca.rehearsal import rehearse
from ttca.settings import Settings


@dataclass(frozen=True)
class Still:
    """An attack that changes nothing, and so helps nobody."""

    def learn(self, _model: Any, examples: Any, *, groups: int, **_rest: Any) -> Universal:
        return Universal(np.zeros((groups, *examples.images.shape[1:]), np.int8), 0.0, 0)


def settings(**changes: Any) -> Settings:
    """Return settings under which four recipes race in seconds."""
    return worlds.settings(**{"recipe": "auto", "epochs": 6, "public_epochs": 6, "race_share": 0.2, **changes})


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
    """A race is paid from the same queries, asks people whose answers are known, and its winner is verified and
    measured; an action that is opened again asks and learns nothing."""
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
    assert raced.halves
    plain = action.questions.plain
    asked_before = People.concatenate([action.questions.selection, plain[plain.subgroup]])
    sent = platform.by_purpose(tmp_path / "ledger.sqlite")["pool-race"]
    close = [
        np.abs(asked_before.images.astype(int) - np.frombuffer(s, np.uint8).reshape(1, *worlds.SHAPE)) for s in sent
    ]
    assert all(d.max(axis=(1, 2, 3)).min() <= raced.epsilon for d in close)
    # Whoever begins alike learned true classes once.
    starts = {path.read_bytes() for path in tmp_path.glob("candidates/*/*/warm-start.safetensors")}
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


def test_a_log_of_a_race_says_who_runs(tmp_path: Path) -> None:
    """Where there is no terminal, lines name what was learned of how many, and each round with the candidate that is
    asked about."""
    said = io.StringIO()
    with opened(tmp_path, worlds.Recorder(), reporter=Reporter(Console(file=said, width=10**4))) as action:
        raced = action.raced
    assert raced is not None
    log = said.getvalue()
    assert re.search(r"learning the recipes: (\d+)/\1 lessons in \d", log)
    rounds = (sum(e.out != 0 for e in raced.entrants) - 1).bit_length()
    for stage in (f"round 1 of {rounds}: {raced.winner}", f"round {rounds} of {rounds}: {raced.winner}", "the test: "):
        assert f"asking (race, {stage}" in log


def test_where_nothing_is_proposed_the_reason_is_told() -> None:
    """A rise that is sure and turns no answer right is not told as one that luck could have brought."""
    raced = Raced(
        epsilon=4, entrants=(), winner="mixed", proposed=False, won=0, lost=0, tested=16, p=0.0001, level=0.05,
        fresh=True, queries=54, persons=31, rise=0.01,
    )  # fmt: skip
    assert "(p = 0.0001; but no more people were right)" in raced.told
    assert "(p = 0.2; less than 0.05 was needed)" in replace(raced, p=0.2).told
    assert "the probability of the true class hardly moved (" in replace(raced, p=0.2, rise=-1e-5).told


def test_a_race_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Once the settings are changed, the plan counts a race that is to be run again, or none where nothing races; the
    record stays, so that the way back costs nothing."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform) as action:
        assert action.raced is not None
        race = action.questions.race
    for changed in ({"left_out": ("residual",)}, {"epsilons": (6, 12, 20)}, {"seed": 1}, {"combine": False}):
        with opened(tmp_path, platform, settings=settings(**changed)) as action:
            assert action.plan()["race"].queries == race
    with opened(tmp_path, platform, settings=settings(recipe="manual", race_share=None)) as action:
        assert "race" not in action.plan()
        assert action.raced is None
    before = platform.queries
    with opened(tmp_path, platform) as action:
        assert action.plan()["race"].queries == 0
        assert action.raced is not None
    assert platform.queries == before


def test_altered_copies_of_a_race_are_none_of_an_action_without_one(tmp_path: Path) -> None:
    """What candidates were asked about counts as answered where they race, and not where nothing does."""
    rounds = {"rounds": 1, "altered": 0.5}
    with opened(tmp_path, worlds.Recorder(), settings=settings(**rounds)) as action:
        _ = action.raced
        assert action.plan()["pool"].queries == 0
    with opened(tmp_path, worlds.Recorder(), settings=settings(recipe="manual", race_share=None, **rounds)) as action:
        assert action.plan()["pool"].queries >= sum(map(len, action.questions.rounds)) > 0


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


def test_nothing_races_anew_once_people_verify(tmp_path: Path) -> None:
    """Once people have begun to verify what a race chose, settings under which another would be run are refused before
    anything is learned or asked; put back, the race is still over."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform) as action:
        action.verify()
    paid, record = platform.queries, (tmp_path / RACE_FILE).read_bytes()
    for changes in ({"most_minutes": 59}, {"combine": False}):
        with opened(tmp_path, platform, settings=settings(**changes)) as action:
            with pytest.raises(ActionError, match=f"Settings that differ: {next(iter(changes))} = .* A second look"):
                rehearse(action, learns=True)
            with pytest.raises(ActionError, match="Settings that differ"):
                action.learn()
    assert (platform.queries, (tmp_path / RACE_FILE).read_bytes()) == (paid, record)
    with opened(tmp_path, platform) as action:
        assert sum(cost.queries for name, cost in action.plan().items() if name != "controls") == 0


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


@pytest.mark.parametrize(("name", "near"), [("residul", "residual"), ("plane", "plain")])
def test_a_name_in_left_out_that_none_has_is_a_sentence(tmp_path: Path, name: str, near: str) -> None:
    """It would change nothing, unseen: so the recipes are listed before anything is asked."""
    platform = worlds.Recorder()
    with (
        opened(tmp_path, platform, settings=settings(left_out=(name,))) as action,
        pytest.raises(
            ConfigError, match=rf"^Did you mean '{near}'\? Expected in left_out.*zero-query, .*mixed-margin, plain\."
        ),
    ):
        action.pool()
    assert platform.queries == 0
    with opened(tmp_path, platform, settings=settings(left_out=("residual", "plain"))) as action:
        assert not {"residual", "plain"} & {r.name for r in action.runners.recipes}  # type: ignore[union-attr]


def test_blocks_that_no_recipe_has_cannot_be_left_out() -> None:
    """What can be left out depends on the images' sides, and what is hinted at can be written."""
    with pytest.raises(ConfigError, match=r"^Did you mean 'block-2'\?.*got 'block-N'\. For images of 32×32 pixels"):
        check_left_out(("block-N",), (32, 32, 3))
    with pytest.raises(ConfigError, match=r"got 'block-8'") as said:
        check_left_out(("block-8",), (8, 8, 3))
    assert str(said.value).count("block-") == 1
    check_left_out(("block-2",), (32, 32, 3))


def test_a_race_without_a_query_costs_none(tmp_path: Path) -> None:
    """Where the share leaves nothing to race with, that is said before the pool is paid for, and to whoever looks."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform, settings=settings(race_share=0.0001)) as action:
        with pytest.raises(ActionError, match=r"race of 1, got 0 queries.*Raise race_share.*No query was spent\.$"):
            action.pool()
        with pytest.raises(ActionError, match="race of 1, got 0 queries"):
            _ = action.runners
    assert platform.queries == 0


def test_time_decides_who_races_and_is_said(tmp_path: Path) -> None:
    """What does not fit into most_minutes does not race; the zero-query candidate always does."""
    slow = settings(epochs=10**6, public_epochs=10**6, most_minutes=1)
    with opened(tmp_path, worlds.Recorder(), settings=slow) as action:
        runners = action.runners
    assert runners is not None
    assert [r.name for r in runners.recipes] == ["zero-query"]
    assert "equalized" in runners.no_time
    assert "larger most_minutes" in runners.told
    # With all the time there is, the same ones miss queries.
    with opened(tmp_path / "other", worlds.Recorder(), settings=settings(most_minutes=10**6)) as action:
        ample = action.runners
    assert ample is not None
    assert ample.no_queries == runners.no_queries
    assert [r.name for r in ample.recipes] == ["zero-query", *runners.no_time]
    asked = -(-len(ample.recipes) // 2)
    assert f"The platform is asked about the {asked} whose proxies foretell it best." in ample.told


def test_a_slow_one_of_the_first_eight_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All learn a little shorter where one of the first eight takes nearly all the time, not a quicker one instead."""

    slow: set[str] = set()

    def of_race(self: Any, recipes: Sequence[Recipe], length: float) -> dict[str, float]:
        slow.add(recipes[1].name)
        whole = length * 60 * self.shop.settings.most_minutes
        return {r.name: whole * (0.95 if r.name in slow else 0.1) for r in recipes}

    monkeypatch.setattr(entering, "at_once", lambda *_, **__: 1)
    monkeypatch.setattr(entering._Efforts, "of_race", of_race)
    with opened(tmp_path, worlds.Recorder(), settings=settings()) as action:
        runners = action.runners
    assert runners is not None
    # Halves race here: their winner learns in full.
    assert (runners.length, runners.final_length, [runners.recipes[1].name]) == (0.7, 1.0, list(slow))


def test_what_is_set_by_hand_leaves_one_candidate_to_beat_nothing(tmp_path: Path) -> None:
    """Where all is pinned, one recipe is tested against doing nothing, with every query of the race."""
    pinned = settings(
        weights="none", precision="bfloat16", true_classes=True, flip=True, shift=1, warp=0.1, mixup=0.2, block=2,
        loss="cross-entropy",
        kappa=2.0, transforms=("resize",), left_out=("zero-query",), pinned=("shift", "equalize"),
    )  # fmt: skip
    with opened(tmp_path, worlds.Recorder(), settings=pinned) as action:
        runners, raced = action.runners, action.raced
    assert runners is not None
    assert len(runners.recipes) == 1
    assert raced is not None
    assert (raced.tested, raced.level, raced.fresh) == (40, PROVED_LATER, True)


@pytest.mark.full
def test_where_the_certificate_looks_again_the_race_is_less_strict(tmp_path: Path) -> None:
    """Improvement and parity are proved against doing nothing on new people, so that a race of few need only point
    upward where there is a gap; a success rate is not. Without a gap nobody is asked for a proof in vain. What passed
    at 5 % stays passed."""
    people = worlds.roster()
    # The others are served worse.
    level = replace(
        people,
        pool=replace(people.pool, subgroup=~people.pool.subgroup),
        selection=replace(people.selection, subgroup=~people.selection.subgroup),
    )
    found = {}
    for case, goal, roster in (
        ("improvement", "improvement", people), ("gap", "parity", people), ("none", "parity", level),
        ("level", "improvement", level), ("rate", 0.9, people),
    ):  # fmt: skip
        with opened(tmp_path / case, worlds.Recorder(), settings=settings(goal=goal), roster=roster) as action:
            raced = action.raced
            found[case] = json.loads((tmp_path / case / "race.json").read_text(encoding="utf-8"))["inputs"]
        assert raced is not None
        assert raced.level == (PROVED_LATER if case in ("improvement", "gap") else ERROR)
        assert raced.proposed == (raced.p < raced.level)
    assert found["improvement"] == found["gap"] != found["rate"]
    # An earlier version was stricter: its record stays where as much may be proposed, and no longer where less may.
    with (
        pytest.MonkeyPatch.context() as earlier,
        opened(tmp_path / "earlier", worlds.Recorder(), settings=settings(goal="improvement")) as action,
    ):
        earlier.setattr("ttca.candidates.PROVED_LATER", 0.25)
        assert action.raced is not None
    for other, held in (("improvement", 0.25), (0.9, ERROR)):
        with opened(tmp_path / "earlier", worlds.Recorder(), settings=settings(goal=other)) as action:
            assert action.raced is not None
            assert action.raced.level == held
    with opened(tmp_path / "rate", worlds.Recorder(), settings=settings(goal="improvement")) as action:
        assert action.raced is not None
        assert action.raced.level == ERROR


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


def test_an_ensemble_is_as_faithful_as_its_best_model(tmp_path: Path) -> None:
    """Beside a model that is surer and knows nothing, one that knows the platform keeps a candidate in the race."""

    class Surer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.how_sure = torch.nn.Parameter(torch.tensor(1e3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(images),), 0), len(worlds.CLASSES)) * self.how_sure

    with opened(tmp_path, worlds.Recorder()) as action:
        learner = action.learner
        known = distil(action._shop, action.known, action.questions, action.pool())
    assert best_fidelity(learner, known) == known.fidelity
    both = Proxy(("small-cnn", "small-cnn"), classes=len(worlds.CLASSES), seed=0)
    both.models = torch.nn.ModuleList([known.proxy.models[0], Surer()])
    assert (both.predict(known.transfer.selection.images).argmax(1) == 0).all()
    deaf = replace(known, proxy=both, fidelity=Fidelity(0.1, (0.0, 0.2), 0.1, (0.0, 0.2)))
    assert best_fidelity(learner, deaf).mean == known.fidelity.mean > 0.1


def said(subgroup: float, reference: float) -> list[Fidelity]:
    """Return what one proxy foretold of both groups."""
    return [Fidelity(subgroup, (0.0, 1.0), reference, (0.0, 1.0))]


def test_who_sees_the_subgroup_sharper_is_judged_by_the_reference() -> None:
    """The platform was asked about images as they are, so an equalizing candidate's words of the subgroup count not."""
    learned = {"one": said(0.5, 0.7), "two": said(0.4, 0.5), "equalized": said(0.1, 0.9)}
    found = foresight(learned, {"equalized"})
    assert found == pytest.approx({"one": 0.6, "two": 0.45, "equalized": 0.9 - (0.1 + 0.05) / 2})
    # Where none sees the images as they are, or no reference was asked, there is nothing to compare with.
    assert (
        foresight(learned, learned)
        == foresight(learned, ())
        == pytest.approx({"one": 0.6, "two": 0.45, "equalized": 0.5})
    )
    alone = {"one": said(0.5, math.nan), "equalized": said(0.3, math.nan)}
    assert foresight(alone, {"equalized"}) == pytest.approx({"one": 0.5, "equalized": 0.3})
    # Halves count alike.
    halves = {"one": said(0.5, 0.7) + said(0.3, 0.5), "equalized": said(0.1, 0.9) + said(0.1, 0.7)}
    assert foresight(halves, {"equalized"}) == pytest.approx({"one": 0.5, "equalized": 0.8 - 0.1})


def test_nobody_races_under_a_perturbation_learned_from_them(tmp_path: Path) -> None:
    """With few people in selection, each candidate is learned twice, without one half of the pool's subgroup; every
    pool person is shown the δ of the candidate that knows neither their picture nor an answer about it."""
    platform = worlds.Recorder()
    with opened(tmp_path, platform) as action:
        raced, sets, pool = action.raced, action.candidates(), action.roster.pool
        everything = Lessons(action._shop, action._ground, action.questions, action.pool(), action.runners.recipes)  # type: ignore[union-attr]
        parts = halved(everything)
        learned = [set(part.ground.roster.pool.persons.tolist()) for part in parts]
        everybody = set(pool.persons.tolist())
        plain = action.questions.plain[action.questions.plain.subgroup]
    assert raced is not None
    # The test is on people whom no candidate learned from.
    assert (raced.fresh, raced.level) == (True, PROVED_LATER)
    members = set(pool.persons[pool.subgroup].tolist())
    assert learned[0] | learned[1] == everybody
    assert learned[0] & learned[1] == everybody - members
    assert abs(len(learned[0]) - len(learned[1])) <= len(worlds.CLASSES)
    for part, known in zip(parts, learned, strict=True):
        for people in (part.asked.pool, part.known_by(part.recipes[-1]).helped):
            assert set(people.persons.tolist()) <= known
        assert len(part.asked.pool) == len(part.asked.answers)
    assert {len(each) for each in sets.values()} == {2}
    sent = platform.by_purpose(tmp_path / "ledger.sqlite")["pool-race"]
    seen = 0
    for half, known in enumerate(learned):
        mine = plain[~np.isin(plain.persons, sorted(known))]
        right = {i.tobytes() for each in sets.values() for i in each[half].apply(mine.images, mine.classes)}
        wrong = {i.tobytes() for each in sets.values() for i in each[1 - half].apply(mine.images, mine.classes)}
        seen += len(sent & right)
        assert not sent & (wrong - right)
    assert seen


def test_the_winner_of_halves_is_tested_as_it_goes_on(tmp_path: Path) -> None:
    """What a race of halves proposes was learned from everybody, in full, before others were asked about it; where it
    is not proposed, nothing more is learned."""
    platform, quick = worlds.Recorder(), worlds.settings(recipe="auto", race_share=0.2)
    with opened(tmp_path, platform, settings=quick) as action:
        runners = action.runners
        assert runners is not None
        assert (runners.halves, runners.final_length) == (True, 1.0)
        assert "the winner once more from all." in runners.told
        short = replace(runners, length=0.25)
        assert "the winner once more from all, in full." in short.told
        action.__dict__["runners"] = short
        raced = action.raced
        assert raced is not None
        assert raced.proposed
        delta, judges = action.learn()[raced.epsilon], action.roster.selection
        epochs = action._chosen.shop.settings.public_epochs
    winner = next(recipe for recipe in runners.recipes if recipe.name == raced.winner)
    assert epochs == winner.applied(quick).public_epochs
    sent = platform.by_purpose(tmp_path / "ledger.sqlite")["pool-race"]
    members = judges[judges.subgroup]
    tested = {image.tobytes() for image in delta.apply(members.images, members.classes)} & sent
    assert len(tested) == raced.tested
    home = tmp_path / "candidates" / raced.winner
    for name in ("proxy.safetensors", f"perturbations/epsilon-{raced.epsilon:03d}.safetensors"):
        assert (tmp_path / name).read_bytes() == (home / name).read_bytes()


@pytest.mark.parametrize("final", [0.25, 1.0])
def test_what_raced_is_what_goes_on(tmp_path: Path, final: float) -> None:
    """Where time is short all learn for a part of their length, and the record says so. The winner goes on as it raced,
    but for one that an earlier version decided to learn in full."""
    quick, platform = worlds.settings(recipe="auto", race_share=0.2), worlds.Recorder()
    with opened(tmp_path, platform, settings=quick) as action:
        runners = action.runners
        assert runners is not None
        assert runners.length == runners.final_length == 1
        # In this small world halves race, for which the winner is learned again in any case.
        whole = replace(runners, length=0.25, final_length=final, halves=False)
        action.__dict__["runners"] = whole
        raced = action.raced
        assert raced is not None
        assert raced.proposed
        sets = action.learn()
        shop, (candidate,) = action._chosen.shop, action.candidates()[raced.winner]
    assert (raced.length, Raced.from_dict(json.loads(json.dumps(raced.to_dict())))) == (0.25, raced)
    recipe = next(r for r in runners.recipes if r.name == raced.winner)
    assert recipe.applied(quick, 0.25).public_epochs == recipe.applied(quick).public_epochs // 4
    # What a hand set is not shortened.
    assert recipe.applied(quick, 0.25).steps == quick.steps
    assert (shop.settings.public_epochs, set(sets)) == (recipe.applied(quick, final).public_epochs, set(quick.epsilons))
    goes_on = sets[raced.epsilon].delta.tobytes() == candidate.delta.tobytes()
    assert goes_on == (final == 0.25)
    written = whole.to_dict()
    assert Runners.from_dict(written) == whole
    # Earlier versions learned every winner in full, and wrote nothing of it.
    del written["final_length"]
    assert Runners.from_dict(written).final_length == 1
    told = replace(runners, length=0.25).told
    assert "25% of its full length" in told
    assert "learned twice" in told


def test_a_winner_that_asks_nothing_learns_for_longer_and_is_its_own_control(tmp_path: Path) -> None:
    """It raced for a part of its length, but what is tested and goes on was learned in full; what raced stays beside
    it. The control is that very δ at one length, so nothing is credited to queries; a second time nothing is done."""
    platform = worlds.Recorder()
    quick = worlds.settings(
        recipe="auto", race_share=0.2, refine=0.0, control_lengths=(0.5, 1.0, 2.0), controls_people=40
    )
    changes = {"true_classes": True, "public_epochs": 8}
    silent_one = Recipe(name="zero", about="true classes alone", changes=changes, asks=False)

    def begun() -> CollectiveAction:
        action = worlds.open_action(tmp_path, platform, settings=quick)
        if not (tmp_path / RACE_FILE).is_file():
            action.__dict__["runners"] = Runners(
                (silent_one,), {"zero": 1.0}, length=0.25, final_length=0.25, unasked_length=1.0
            )
        return action

    with begun() as action:
        raced, sets = action.raced, action.learn()
        assert raced is not None
        assert raced.proposed
        ((candidate,),) = action.candidates().values()
        row, _ = action.measure()
        page = unescape(action.report().read_text(encoding="utf-8"))
        opponents, members = action.opponents(row.epsilon), action.roster.selection
        assert action._chosen.shop.settings.public_epochs == 8
    assert Runners.from_dict(json.loads((tmp_path / RACE_FILE).read_text())["field"]).unasked_length == 1.0
    delta = sets[raced.epsilon]
    assert delta.delta.tobytes() != candidate.delta.tobytes()
    members = members[members.subgroup]
    sent = platform.by_purpose(tmp_path / "ledger.sqlite")
    tested = {image.tobytes() for image in delta.apply(members.images, members.classes)} & sent["pool-race"]
    assert len(tested) == raced.tested
    np.testing.assert_array_equal(opponents.zero_query.delta, sets[row.epsilon].delta)
    assert (row.zero_query_control, row.paired_b, row.paired_c) == (row.subgroup_after, 0, 0)
    assert raced.told.endswith("It learned from true classes alone: answers only chose it.")
    assert raced.terms.startswith("Each learned for 25% of its full length (most_minutes), the winner then for 100%.")
    assert "answers chose how to learn, and true classes alone taught one small change" in " ".join(page.split())
    assert row.zero_query_epochs == 8
    before, times = platform.queries, {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    with begun() as again:
        assert again.measure()[0].subgroup_after == row.subgroup_after
    assert (platform.queries, {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}) == (before, times)


def test_a_small_action_saves_enough_for_eight(tmp_path: Path) -> None:
    """Where nobody chose the share, a race gets a fifth of the queries; of few, eighty or two fifths; what a hand chose
    holds."""
    with opened(tmp_path, worlds.Recorder(), settings=settings(race_share=None)) as action:
        assert len(action.runners.recipes) >= 8  # type: ignore[union-attr]
        assert action.questions.race == 80
    roster = worlds.roster()
    assert race_queries(roster, settings(race_share=0.1)) == 20
    small = replace(roster, pool=roster.pool[:45], selection=roster.selection[:40])
    assert race_queries(small, settings(race_share=None)) == 34
    large = replace(roster, pool=worlds.crowd("pool", 500, 100, seed=3))
    assert race_queries(large, settings(race_share=None)) == 136


def test_a_race_of_an_earlier_version_goes_on_or_says_why_not(tmp_path: Path) -> None:
    """What an earlier version decided is read under the settings that it was decided under; under other defaults of
    today a sentence says what to write, and nothing is asked."""
    by_hand = settings(most_minutes=60)
    with opened(tmp_path, worlds.Recorder(), settings=by_hand) as action:
        runners = action.runners
        assert runners is not None
        earlier = Runners(runners.recipes[:2], {r.name: 1.0 for r in runners.recipes[:2]}, earlier=True)
        action.__dict__["runners"] = earlier
        raced = action.raced
    assert raced is not None
    assert not raced.halves
    record = json.loads((tmp_path / RACE_FILE).read_text())
    assert record["field"].keys() == {"recipes", "seconds", "no_time", "no_queries"}
    for new in ("length", "halves"):
        del record["result"][new]
    (tmp_path / RACE_FILE).write_text(json.dumps(record))
    platform = worlds.Recorder()
    with opened(tmp_path, platform, settings=by_hand) as action:
        assert action.runners == earlier
        assert action.raced == raced
    assert platform.queries == 0
    unset = settings(race_share=None)
    with (
        opened(tmp_path, platform, settings=unset) as action,
        pytest.raises(ActionError, match=r"Write race_share = 0\.2 and most_minutes = 60"),
    ):
        _ = action.raced
    assert platform.queries == 0


def test_a_recipe_is_learned_shorter_but_never_not_at_all() -> None:
    """A length never takes the last epoch."""
    recipe = Recipe(name="one", about="", changes={"epochs": 1, "steps": 2})
    short = recipe.applied(Settings(recipe="auto"), 0.25)
    assert (short.epochs, short.steps, short.public_epochs) == (1, 1, 2)

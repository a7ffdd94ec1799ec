"""Tests of what a collective can do with more than plain answers: public data, altered copies, refinement."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import worlds
from tests.test_action import Fragile, Killed, contents, paid
from tests.worlds import Recorder, open_action
from ttca.action import CollectiveAction
from ttca.errors import ActionError, ConfigError, WorthlessProxyError
from ttca.people import People
from ttca.perturbations import PerturbationSet
from ttca.platforms.local import LocalPlatform
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, QueryPool
from ttca.progress import silent
from ttca.settings import Settings

ROUNDS: dict[str, Any] = {"rounds": 2, "altered": 0.5}


def public() -> People:
    """Return labelled images of both groups whom nobody asks anything."""
    return worlds.crowd("public", 60, 60, seed=200)


def run(folder: Path, platform: Recorder, *, known: People | None = None, **changes: Any) -> CollectiveAction:
    """Verify and measure an action with these settings, and return it, closed."""
    with open_action(folder, platform, settings=worlds.settings(**changes), public=known) as action:
        action.verify()
        action.measure()
    return action


# -- altered copies ---------------------------------------------------------------------------------------------


def test_altered_copies_take_the_place_of_images(tmp_path: Path) -> None:
    """Half the subgroup's pool people are asked about a copy within ε instead of their image, for the same price."""
    platform = Recorder()
    with open_action(tmp_path, platform, settings=worlds.settings(**ROUNDS)) as action:
        action.distil()
        transfer = action._distilled.transfer
        pool = action.roster.pool
        spent = action.ledger.paid()
    assert spent == {"pool": 100 + 25 + 40 + 40}
    assert transfer.composition == {"subgroup": 90, "volunteers": 65, "altered": 50}
    assert transfer.images == sum(transfer.composition.values()) == 205
    copies = transfer.pool[np.arange(75, 125)]
    original = dict(zip(pool.persons.tolist(), pool.images, strict=True))
    seen = platform.by_purpose(tmp_path / "ledger.sqlite")["pool"]
    for person, image in zip(copies.persons.tolist(), copies.images, strict=True):
        apart = np.abs(image.astype(int) - original[person]).max()
        assert 0 < apart <= 12
        assert image.tobytes() in seen
        assert original[person].tobytes() not in seen
    assert len(set(copies.persons.tolist())) == 50
    assert copies.subgroup.all()


def test_half_the_copies_are_moved_to_another_class(tmp_path: Path) -> None:
    """Copies go towards the own class and away from it, at many strengths: one direction would teach one thing."""
    with open_action(tmp_path, Recorder(), settings=worlds.settings(rounds=1, altered=1.0, steps=30)) as action:
        transfer = action._distilled.transfer
        pool = action.roster.pool
    copies = transfer.pool[np.arange(25, 125)]
    rows = {p: i for i, p in enumerate(pool.persons.tolist())}
    before = pool.images[[rows[p] for p in copies.persons.tolist()]].astype(float)
    moved = copies.images - before
    towards = (moved * worlds.PATTERNS[copies.classes]).mean((1, 2, 3))
    assert 20 < int((towards > 0.5).sum()) < 80
    assert np.abs(moved).max((1, 2, 3)).min() < 6 < np.abs(moved).max((1, 2, 3)).max()


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what an action with rounds leaves behind where nobody kills it."""
    folder = tmp_path_factory.mktemp("unharmed")
    run(folder, Recorder(), **ROUNDS)
    return contents(folder)


@pytest.mark.parametrize("survives", [30, 160, 185, 204])
def test_a_run_killed_in_a_round_ends_as_if_it_had_not_been(
    tmp_path: Path, survives: int, unharmed: dict[str, Any]
) -> None:
    """Killed before, between and inside the rounds, an action asks about the same bytes and ends with the same row."""
    with (
        open_action(tmp_path / "killed", Fragile(survives), settings=worlds.settings(**ROUNDS)) as action,
        pytest.raises(Killed),
    ):
        action.distil()
    run(tmp_path / "killed", Recorder(), **ROUNDS)
    killed, whole = contents(tmp_path / "killed"), unharmed
    # What was on its way when the program died was paid and is unknown: it is the only difference there may be.
    row = dict(whole["row.json"])
    assert row.pop("queries_pool") < killed["row.json"].pop("queries_pool") <= 205 + 32
    assert killed["row.json"] == row
    for name in ("certificate.json", "rounds/altered-1.safetensors", "rounds/altered-2.safetensors"):
        assert killed[name] == whole[name], name


def test_the_plan_of_rounds_is_what_they_cost(tmp_path: Path) -> None:
    """Before and in the middle of the rounds the plan says what the pool will still pay; afterwards nothing."""
    changes = worlds.settings(**ROUNDS)
    with open_action(tmp_path, Recorder(), settings=changes) as action:
        assert action.plan()["pool"].queries == 205
        action.pool()
        assert action.plan()["pool"].queries == 50
        action.distil()
        assert action.plan()["pool"].queries == 0
        assert action.plan()["pool"].answered == 205


def test_everybody_altered_needs_something_to_start_from(tmp_path: Path) -> None:
    """With all members asked about altered copies, volunteers or public data make the first proxy, or it is said."""
    alone = replace(worlds.roster(), pool=worlds.crowd("pool", 100, 0, seed=10))
    platform = Recorder()
    changes = worlds.settings(rounds=1, altered=1.0)
    with pytest.raises(
        ActionError, match="Expected public data, or pool people whose unchanged images are asked about"
    ):
        open_action(tmp_path / "a", platform, roster=alone, settings=changes)
    assert platform.queries == 0
    with open_action(tmp_path / "b", Recorder(), roster=alone, settings=changes, public=public()) as action:
        assert action._distilled.transfer.altered == 100


# -- public data ------------------------------------------------------------------------------------------------


def test_public_data_cost_nothing_and_make_the_zero_query_control(tmp_path: Path) -> None:
    """No public image is ever sent; the proxy starts from them, and the row's control is what they alone achieve."""
    platform = Recorder()
    folder = tmp_path / "public"
    run(folder, platform, known=public())
    sent = {image for images in platform.seen.values() for image in images}
    assert not sent & {image.tobytes() for image in public().images}
    assert paid(folder)["pool"] == 205
    row = contents(folder)["row.json"]
    assert row["regime"] == "public"
    assert (folder / "warm-start.safetensors").is_file()
    assert not (folder / "zero-query-proxy.safetensors").exists()
    own = tmp_path / "own"
    run(own, Recorder())
    assert contents(own)["row.json"]["regime"] == "own"
    assert contents(own)["proxy.safetensors"] != contents(folder)["proxy.safetensors"]


@pytest.mark.parametrize("role", ["selection", "verification"])
def test_a_judged_image_among_the_public_ones_is_refused(tmp_path: Path, role: str) -> None:
    """A selection or verification person's image among the public ones stops the action before a query, and is named:
    its place, and whose it is."""
    platform = Recorder()
    exam = worlds.roster().roles()[role]
    leaked = People.concatenate([public(), exam[:1]])
    told = f"got 1 of {len(leaked)} that do. The first is number {len(leaked)}, as the picture of {exam.persons[0]}."
    with pytest.raises(ActionError, match=told):
        open_action(tmp_path, platform, public=leaked)
    with open_action(tmp_path, platform, public=public()) as action, Ledger(tmp_path / "e.sqlite") as ledger:
        known = public()
        strangers = replace(worlds.strangers(), images=np.resize(known.images, worlds.strangers().images.shape))
        with pytest.raises(ActionError, match="images that belong to no selection, verification or test person"):
            action.measure(strangers[:100], pool=QueryPool(platform, ledger, [Member("benchmark", 5000)]))
    assert platform.queries == 0


def test_views_are_learned_on_and_never_sent(tmp_path: Path) -> None:
    """Public images as the subgroup's would be change δ and make the regime public; they cost nothing."""
    seen = worlds.crowd("view", 90, 0, seed=300)
    platform = Recorder()
    with open_action(tmp_path / "with", platform, views=seen) as action:
        moved = action.learn()[12].delta
        assert action.known.helped.persons.tolist() == (
            worlds.crowd("pool", 100, 25, seed=10).persons[:100].tolist() + seen.persons.tolist()
        )
        row, _ = action.measure()
    assert row.regime == "public"
    assert not {i for images in platform.seen.values() for i in images} & {i.tobytes() for i in seen.images}
    with open_action(tmp_path / "without", Recorder()) as action:
        assert not np.array_equal(action.learn()[12].delta, moved)
    with pytest.raises(ActionError, match="images that belong to no selection, verification or test person"):
        open_action(tmp_path / "leak", platform, views=worlds.roster().verification)


def test_public_images_of_another_size_or_class_are_refused(tmp_path: Path) -> None:
    """Public data must be of the platform's size and classes, and it is said before a query."""
    other = replace(public(), images=np.zeros((120, 4, 4, 3), np.uint8))
    with pytest.raises(ActionError, match="Expected public images of"):
        open_action(tmp_path, Recorder(), public=other)
    with pytest.raises(ActionError, match=r"Expected classes 0\.\.2 among the public people"):
        open_action(tmp_path, Recorder(), public=replace(public(), classes=np.full(120, 3)))


# -- refinement -------------------------------------------------------------------------------------------------

REFINED: dict[str, Any] = {"rounds": 1, "altered": 0.3, "refine": 0.5, "epochs": 2, "epsilons": (12,)}


@pytest.mark.parametrize("behaviour", [{}, {"label_only": True}, {"decimals": 1}], ids=["scores", "label", "rounded"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_refinement_spends_what_was_saved_and_no_more(tmp_path: Path, behaviour: dict[str, Any], share: float) -> None:
    """People whose query is saved are not asked as they are; what is spent instead stands in row and ledger."""
    platform = Recorder(**behaviour)
    run(tmp_path, platform, known=public(), **{**REFINED, "refine": share})
    row = contents(tmp_path)["row.json"]
    refined = PerturbationSet.load(tmp_path / "perturbations" / "epsilon-012.safetensors").evidence["refinement"]
    saved = round(125 * share)
    assert 0.7 * saved < refined["queries"] <= saved
    assert row["queries_pool"] == row["queries"] == 205 - saved + refined["queries"]
    assert sum(row["composition"].values()) == row["queries"]
    assert row["answers"] == {"label_only": "label", "decimals": "rounded"}.get(next(iter(behaviour), ""), "scores")
    assert set(platform.by_purpose(tmp_path / "ledger.sqlite")) == {"pool", "baseline", "verification", "controls"}
    if share == 1.0:
        assert not (tmp_path / "proxy.safetensors").exists()


@pytest.mark.parametrize(("share", "saves"), [(0.004, 0), (0.01, 1), (0.024, 3), (0.03, 4), (0.04, 5)])
def test_what_nobody_could_judge_is_not_asked(tmp_path: Path, share: float, saves: int) -> None:
    """A pair of probes and a pair to judge them take four queries; with fewer none is spent, since no result would be
    kept."""
    platform = Recorder()
    levers = worlds.settings(**{**REFINED, "refine": share})
    with open_action(tmp_path, platform, settings=levers, public=public()) as action:
        spent = action.learn()[12].evidence["refinement"]["queries"]
        saved = action.questions.saved
    assert saved == saves
    assert spent <= saved
    assert (spent > 0) == (saved >= 4)


def test_refinement_is_asked_once_for_all_budgets(tmp_path: Path) -> None:
    """A family of ε shares one set of probes, and running the action again asks and pays nothing."""
    platform = Recorder()
    levers = worlds.settings(**{**REFINED, "epsilons": (6, 12)})
    for _ in range(2):
        with open_action(tmp_path, platform, settings=levers, public=public()) as action:
            sets = action.learn()
            assert action.ledger.paid()["pool"] == platform.queries
    first, second = (sets[e].evidence["refinement"]["queries"] for e in (6, 12))
    assert 0 < second < first
    assert first + second <= round(125 * 0.5)


def test_a_choice_that_selection_people_do_not_like_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """δ moves exactly when selection people's own class gained along the way; otherwise it stays the proxy's."""
    from ttca.attacks import refinement

    flipped = {}
    for side in (1, -1):

        def moved(delta: Any, probes: Any, said: Any, *, epsilon: int, side: int = side) -> Any:
            # Towards what the platform looks for, or away from it.
            return (side * epsilon * worlds.PATTERNS).astype(np.int8), np.ones(len(delta))

        with monkeypatch.context() as patch:
            patch.setattr(refinement, "steer", moved)
            with open_action(
                tmp_path / str(side), Recorder(), settings=worlds.settings(**REFINED), public=public()
            ) as action:
                found = action.learn()[12]
        assert found.evidence["refinement"]["kept"] == (side == 1)
        assert (found.evidence["refinement"]["gain"] > 0) == (side == 1)
        flipped[side] = np.array_equal(found.delta, side * 12 * worlds.PATTERNS)
    assert flipped == {1: True, -1: False}


def test_a_poor_proxy_that_refinement_did_not_mend_stops_before_verification(tmp_path: Path) -> None:
    """Where selection people threw the refined δ away, what is left is the proxy's, which must be worth something."""
    always = LocalPlatform(
        lambda images: np.tile([1.0, 0.0, 0.0], (len(images), 1)), classes=worlds.CLASSES, image_shape=worlds.SHAPE
    )
    options = {"settings": worlds.settings(**REFINED), "public": public(), "anyway": True}
    with open_action(tmp_path, always, **options) as action:
        action.distil()
        for step in (action.learn, action.verify):
            with pytest.raises(WorthlessProxyError, match="most frequent answer"):
                step()
        assert set(action.ledger.paid()) == {"pool"}


def test_refinement_with_every_query_needs_something_to_learn_from(tmp_path: Path) -> None:
    """With all queries saved and no true classes to learn from, there is no proxy, which costs no query to find out."""
    platform = Recorder()
    with pytest.raises(ActionError, match=r"got neither.*\. Lower refine, or set true_classes\. No query"):
        open_action(tmp_path, platform, settings=worlds.settings(refine=1.0))
    given = worlds.settings(rounds=1, altered=1.0, goal="improvement")
    with pytest.raises(ActionError, match=r"Lower altered, let volunteers take part, or set true_classes\."):
        open_action(tmp_path, platform, roster=worlds.roster(reference=False), settings=given)
    assert platform.queries == 0


# -- several processes ------------------------------------------------------------------------------------------


# The small form is a guest's: tests/guests/test_proxy.py.
@pytest.mark.full
def test_two_processes_train_an_action_s_proxy(tmp_path: Path) -> None:
    """With two processes the action gets a proxy that is worth as much, keeps it, and reads it back."""
    together = worlds.settings(processes=2, epochs=20)
    with open_action(tmp_path, Recorder(), settings=together) as action:
        _, fidelity = action.distil()
    assert fidelity.reference > 0.9
    kept = (tmp_path / "proxy.safetensors").stat().st_mtime_ns
    with open_action(tmp_path, Recorder(), settings=together) as action:
        action.distil()
    assert (tmp_path / "proxy.safetensors").stat().st_mtime_ns == kept


# -- members' own true classes, members who are not asked, equalised cameras ------------------------------------


def unasked() -> People:
    """Return members of both groups whose images nobody sends."""
    return worlds.crowd("unasked", 60, 60, seed=300)


def test_members_true_classes_are_learned_from_before_answers(tmp_path: Path) -> None:
    """The warm start learns from all members' classes, is the zero-query control, and the regime stays own."""
    platform = Recorder()
    roster = replace(worlds.roster(), unasked=unasked())
    levers = worlds.settings(true_classes=True, epsilons=(12,))
    with open_action(tmp_path, platform, settings=levers, roster=roster) as action:
        assert action.known.public is not None
        assert len(action.known.public) == 125 + 120
        assert action.known.views is not None
        assert action.known.views.subgroup.all()
        action.verify()
        row, _ = action.measure()
        assert not (tmp_path / "zero-query-proxy.safetensors").exists()
    assert row.regime == "own"
    assert row.queries == 205
    sent = {image for images in platform.seen.values() for image in images}
    assert not sent & {image.tobytes() for image in unasked().images}


def test_an_unasked_member_cannot_be_an_examiner(tmp_path: Path) -> None:
    """Somebody learned from is never verified or tested on, whether or not their image was sent."""
    known = worlds.roster()
    with pytest.raises(ActionError, match="Expected every person in one role"):
        replace(known, unasked=known.verification)
    with (
        open_action(tmp_path, Recorder(), roster=replace(known, unasked=unasked())) as action,
        Ledger(tmp_path / "evaluation.sqlite") as ledger,
        pytest.raises(ActionError, match="Expected every person in one role"),
    ):
        action.measure(unasked(), pool=QueryPool(Recorder(), ledger, [Member("benchmark", 5000)]))


def test_equalised_copies_are_what_is_asked_and_counted(tmp_path: Path) -> None:
    """With equalize the subgroup's pool images go out equalised and count as altered; δ sees the originals."""
    platform = Recorder()
    with open_action(tmp_path, platform, settings=worlds.settings(equalize=True)) as action:
        action.distil()
        transfer = action._distilled.transfer
        pool = action.roster.pool
        helped = action.known.helped
    assert transfer.composition == {"subgroup": 40, "volunteers": 65, "altered": 100}
    members, others = pool.subgroup, ~pool.subgroup
    assert np.array_equal(transfer.pool.images[others], pool.images[others])
    assert not np.array_equal(transfer.pool.images[members], pool.images[members])
    assert np.array_equal(helped.images, pool.images[members])
    # Faint patterns are what sets the subgroup apart here: equalised ones come nearer to the volunteers'.
    strength = np.abs(((transfer.pool.images - 128.0)[:, None] * worlds.PATTERNS).mean((2, 3, 4))).max(1)
    plain = np.abs(((pool.images - 128.0)[:, None] * worlds.PATTERNS).mean((2, 3, 4))).max(1)
    assert strength[members].mean() > 1.1 * plain[members].mean()


# -- honesty under all of it ------------------------------------------------------------------------------------


def test_verification_people_are_read_once_and_test_people_once_per_row(tmp_path: Path) -> None:
    """With every lever on, and run twice, each exam image arrives once as it is, and only for its exam."""
    levers = worlds.settings(**{**REFINED, **ROUNDS}, transforms=("blur",), loss="cross-entropy", block=2)
    people = worlds.strangers()
    platform, benchmark = Recorder(), Recorder()
    for _ in range(2):
        with (
            open_action(tmp_path / "action", platform, settings=levers, public=public()) as action,
            Ledger(tmp_path / "evaluation.sqlite") as ledger,
        ):
            action.verify()
            action.measure(people, pool=QueryPool(benchmark, ledger, [Member("benchmark", 5000)]))
            roster = action.roster
    arrivals = Counter(image for images in platform.seen.values() for image in images)
    seen = platform.by_purpose(tmp_path / "action" / "ledger.sqlite")
    for image in roster.verification[~roster.verification.subgroup].images:
        assert arrivals[image.tobytes()] == 1
        assert image.tobytes() in seen["baseline"]
    assert max(arrivals.values()) == 1
    assert set(seen) == {"pool", "baseline", "verification"}
    near = {p.tobytes() for p in roster.verification.images} | {p.tobytes() for p in people.images}
    assert not near & seen["pool"]
    tested = Counter(image for images in benchmark.seen.values() for image in images)
    assert all(tested[image.tobytes()] == 1 for image in people.images)
    assert max(tested.values()) == 1
    assert not {image.tobytes() for image in people.images} & set(arrivals)


# -- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"warp": 1.0}, "Expected a warp"),
        ({"warp": -0.1}, "Expected a warp"),
        ({"block": 0}, "Expected block"),
        ({"rounds": -1}, "Expected rounds"),
        ({"altered": 0.0}, "Expected altered"),
        ({"altered": 1.5}, "Expected altered"),
        ({"refine": 1.01}, "Expected refine"),
        ({"refine": -0.1}, "Expected refine"),
        ({"public_epochs": 0}, "Expected public_epochs"),
        ({"precision": "half"}, "Expected precision to be one of"),
        ({"loss": "hinge"}, "Expected loss to be one of"),
        ({"transforms": ("jpg",)}, "Expected each transform to be one of"),
        (
            {"transforms": "jpeg"},
            r"Expected transforms as a list, got 'jpeg'\. For one alone write transforms = \['jpeg'\]",
        ),
        ({"transforms": (["jpeg"],)}, "Expected transforms as names"),
        ({"epsilons": 16}, r"Expected epsilons as a list, got 16\. For one alone write epsilons = \[16\]"),
        ({"pinned": "flip"}, r"Expected pinned as a list, got 'flip'"),
        ({"left_out": "plain"}, r"Expected left_out as a list"),
        ({"control_lengths": 1}, r"Expected control_lengths as a list, got 1\."),
        ({"architectures": str}, r"Expected architectures as a list"),
        ({"refine": "0.2"}, "Expected refine as a number, got '0.2'"),
        ({"race_share": "0.2"}, "Expected race_share as a number"),
        ({"stopping": 3}, "Expected stopping as text, got 3"),
        ({"subgroup": None}, "Expected subgroup as text"),
        ({"flip": "no"}, "Expected flip as true or false, got 'no'"),
        ({"weights": (["a"],)}, "Expected weights as different paths or names"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(change: dict[str, Any], sentence: str) -> None:
    """Every new setting is checked before anything is asked or learned."""
    with pytest.raises(ConfigError, match=sentence):
        Settings(**change)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_an_array_is_no_setting(name: str) -> None:
    """Whatever setting an array of numbers is given for, it is refused in a sentence."""
    for array in (np.array([1, 2]), np.array([])):
        given: dict[str, Any] = {name: array}
        with pytest.raises(ConfigError, match="Expected"):
            Settings(**given)


def test_a_block_that_does_not_fit_the_platform_costs_no_query(tmp_path: Path) -> None:
    """The platform's image size decides which blocks there are, and a wrong one is told at the door."""
    platform = Recorder()
    with pytest.raises(ConfigError, match="Expected a block that divides"):
        open_action(tmp_path, platform, settings=worlds.settings(block=3))
    assert platform.queries == 0


def test_a_coarse_delta_is_constant_in_its_squares(tmp_path: Path) -> None:
    """With block 4, δ has one level per 4×4 square, and still helps where the pattern is as coarse."""
    with open_action(tmp_path, Recorder(), settings=worlds.settings(block=4), reporter=silent) as action:
        delta = action.learn()[12].delta
    squares = delta.reshape(3, 2, 4, 2, 4, 3)
    assert (squares == squares[:, :, :1, :, :1]).all()
    assert delta.any()

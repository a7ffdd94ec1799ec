"""Tests of rechecks: who is kept, what a look pays, when a set expires, and what a kill costs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests import worlds
from tests.worlds import Recorder, open_action
from ttca.action import CollectiveAction
from ttca.answers import Answers
from ttca.errors import ActionError, ConfigError, PerturbationError, QuotaError
from ttca.expiry import EXPIRED_FILE, expiry_beside, expiry_of
from ttca.images import Images
from ttca.members import Output, Photo, apply_photos
from ttca.members_set import check_usable, read_set
from ttca.people import Roster
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import Credential
from ttca.platforms.habits import Habits, WithHabits
from ttca.platforms.local import LocalPlatform
from ttca.recheck import Recheck, alike, due, outcome, recheck, recheck_cost, rechecked, standing
from ttca.signing import KEY_FILE, CollectiveKey, SignatureError, signature_file
from ttca.verifying import MEMBERS_FILE

KEPT = 30
#: Verification people whose pictures eve brought; she pays for nothing.
EVES = [f"verification-sub-{i:03d}" for i in range(0, 60, 5)]


def swapped(images: Images) -> NDArray[np.float64]:
    """Return what another model says: about every fourth image something else."""
    said = worlds.model(images)
    moved = images.astype(np.int64).sum(axis=(1, 2, 3)) % 4 == 0
    said[moved] = said[moved][:, [1, 2, 0]]
    return said


class Swapped(Recorder):
    """The platform after its model was exchanged, which nothing it says of itself shows."""

    def __init__(self) -> None:
        super().__init__()
        other = LocalPlatform(swapped, classes=worlds.CLASSES, image_shape=worlds.SHAPE, name="tiny", version="1")
        self.inner = WithHabits(other, Habits())


class Renamed(Recorder):
    """The platform under another version, which answers as before."""

    def __init__(self) -> None:
        super().__init__(version="2")


class Dies(Recorder):
    """A platform that kills whoever asks it, after so many requests."""

    def __init__(self, requests: int) -> None:
        super().__init__()
        self.left = requests

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer, or die."""
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().attempt(images, credential, request_id=request_id)


def roster() -> Roster:
    """Return the tiny world's people, some of whose verification people are eve's."""
    found = worlds.roster(verification=60)
    people = found.verification
    members = np.where(np.isin(people.persons, EVES), "eve", people.members).astype(np.str_)
    return replace(found, verification=replace(people, members=members))


def opened(folder: Path, platform: Any = None, **changes: Any) -> CollectiveAction:
    """Return the action of this module in a folder."""
    given: dict[str, Any] = {"settings": worlds.settings(recheck_people=KEPT), "roster": roster()}
    return open_action(folder, platform or Recorder(), **{**given, **changes})


def paid(action: CollectiveAction) -> int:
    """Return the queries booked for rechecks."""
    return action.ledger.paid(action="action").get("recheck", 0)


def look(action: CollectiveAction, people: int = 20, **more: Any) -> Recheck:
    """Look once."""
    return recheck(action.folder, action.queries, action.panel, people=people, **more)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an action that is certified and keeps people, to be copied."""
    folder = tmp_path_factory.mktemp("certified")
    with opened(folder) as action:
        certificate = action.verify()
        assert certificate.epsilon is not None
        assert action.plan()["recheck"].queries == 6 * KEPT
        kept = action.keep()
        assert kept is not None
        # The certificate's own answers with δ are the first of three.
        known = min(KEPT, certificate.quoted_test.asked)
        assert paid(action) == 6 * KEPT - known
        assert (kept.asked, len(kept.labels)) == (KEPT, KEPT)
        assert action.plan()["recheck"].queries == 0
        before = action.ledger.paid(action="action")
        assert action.keep() == kept
        assert action.ledger.paid(action="action") == before
    return folder


@pytest.fixture
def folder(certified: Path, tmp_path: Path) -> Path:
    """Return a copy of the certified action."""
    return Path(shutil.copytree(certified, tmp_path / "copy"))


def test_a_failed_certificate_keeps_nobody_and_a_setting_of_0_either(tmp_path: Path, folder: Path) -> None:
    """Nobody is asked twice more where there is nothing to recheck, or it is not wanted; recheck says what to do."""
    with opened(tmp_path / "failed", settings=worlds.settings(goal=0.999, recheck_people=KEPT)) as action:
        assert action.verify().epsilon is None
        assert action.keep() is None
        assert action.plan()["recheck"].queries == paid(action) == 0
        with pytest.raises(ActionError, match="Expected a certified set"):
            look(action)
    (folder / "recheck.json").unlink()
    with opened(folder, settings=worlds.settings(recheck_people=0)) as action:
        assert action.keep() is None
        assert "recheck" not in action.plan()
        with pytest.raises(ActionError, match="unless recheck_people = 0"):
            look(action)


def test_quotas_that_allow_a_part_keep_nobody_and_cost_nothing(tmp_path: Path) -> None:
    """A part of the asks would keep nobody: what all of them need is said, and no query is paid for any."""
    with opened(tmp_path / "action") as action:
        asked = action.verify().quoted_test.asked
        spent = sum(action.ledger.paid(action="action").values())
    left = 6 * KEPT - min(KEPT, asked) - 1
    with opened(tmp_path / "action", cap=spent + left) as action:
        with pytest.raises(QuotaError, match=f"Expected {left + 1} queries for it, got {left} that quotas"):
            action.keep()
        assert paid(action) == 0
    with opened(tmp_path / "action", cap=spent + left + 1) as action:
        assert action.keep() is not None


def test_looks_at_the_same_platform_find_nothing_and_change_no_certificate(folder: Path) -> None:
    """Each look pays two queries for each person drawn, and certificate and members' file stay as they are, byte by
    byte.
    """
    before = {name: (folder / name).read_bytes() for name in ("certificate.json", MEMBERS_FILE)}
    with opened(folder) as action:
        start = paid(action)
        drawn = []
        for number in range(1, 4):
            assert recheck_cost(folder, action.queries, 20) == 40
            found = look(action)
            assert (found.looks, found.persons, found.changed, found.asked) == (number, 20 * number, 0, 40)
            assert found.alarm is None
            assert found.expiry is None
            assert paid(action) - start == 40 * number
            drawn.append(json.loads((folder / "recheck.json").read_text())["looks"][-1]["seats"])
        assert found.helped > found.harmed
        assert "Nothing speaks against the certificate." in found.told
        # Others each time, some of them twice in one look.
        assert len({tuple(seats) for seats in drawn}) == 3
        assert action.verify().epsilon is not None
        assert rechecked(folder, action.queries) is not None
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_set_expires_where_the_platform_has_changed(folder: Path, tmp_path: Path) -> None:
    """The statement is signed, apply refuses the set beside it and nowhere else, and nobody is asked any more."""
    with opened(folder, Swapped()) as action:
        found = look(action, 60)
        assert found.expiry is not None
        assert found.asked < 120
        assert "the platform no longer answers as it did" in str(found.alarm)
        before = paid(action)
        assert look(action) == rechecked(folder, action.queries)
        assert paid(action) == before
    # The statement is no secret to lose: the record of all looks knows of it, and the next look writes it again.
    said = json.loads((folder / EXPIRED_FILE).read_text())
    for path in (folder / EXPIRED_FILE, signature_file(folder / EXPIRED_FILE)):
        path.unlink()
    assert expiry_beside(folder / MEMBERS_FILE) == found.expiry
    with pytest.raises(PerturbationError, match="declared expired"):
        check_usable(read_set(folder / MEMBERS_FILE))
    with opened(folder, Swapped()) as action:
        assert look(action).expiry == found.expiry
        assert paid(action) == before
    assert json.loads((folder / EXPIRED_FILE).read_text()) == said
    assert signature_file(folder / EXPIRED_FILE).is_file()
    chosen = PerturbationSet.load(folder / MEMBERS_FILE)
    mine, out = tmp_path / "mine.png", tmp_path / "out.png"
    Image.fromarray(worlds.draw(1, strength=2.0, seed=5)[0][0]).save(mine)

    def apply(home: Path, **more: Any) -> dict[str, Any]:
        known = read_set(home / MEMBERS_FILE)
        check_usable(known, **more)
        photo = Photo(path=mine, name=mine.name, true_class=worlds.CLASSES[0])
        (done,) = apply_photos(known.perturbations, [photo], Output(place=out, force=True))
        return done.to_dict() | {"epsilon": known.perturbations.epsilon}

    with pytest.raises(
        PerturbationError, match=r"declared expired\. Expired since \d{4}-.*no longer answers as it did"
    ):
        apply(folder)
    assert not out.exists()
    assert apply(folder, anyway=True)["epsilon"] == chosen.epsilon
    # A copy that was handed out does not know of it until the statement comes too.
    home = tmp_path / "member"
    home.mkdir()
    for name in (MEMBERS_FILE, f"{MEMBERS_FILE}.sig"):
        shutil.copy(folder / name, home)
    apply(home)
    shutil.copy(folder / EXPIRED_FILE, home)
    with pytest.raises(PerturbationError, match="got no signature"):
        apply(home)
    shutil.copy(signature_file(folder / EXPIRED_FILE), home)
    with pytest.raises(PerturbationError, match="declared expired"):
        apply(home)
    (home / EXPIRED_FILE).write_text((home / EXPIRED_FILE).read_text().replace("no longer", "still"))
    with pytest.raises(SignatureError, match="as it was signed"):
        apply(home)


def test_another_collectives_word_or_set_is_none_of_ours(folder: Path, certified: Path, tmp_path: Path) -> None:
    """A statement about another set, or by another key, takes nothing back."""
    with opened(folder, Swapped()) as action:
        found = look(action, 60)
    chosen = PerturbationSet.load(folder / MEMBERS_FILE)
    assert found.expiry == expiry_of(folder, chosen, None)
    assert expiry_of(folder, chosen, "ttca-ed25519:somebody-else") is None
    other = PerturbationSet.load(folder / "perturbations" / "epsilon-006.safetensors")
    assert expiry_of(folder, other, None) is None
    (folder / EXPIRED_FILE).write_text("[]")
    signature_file(folder / EXPIRED_FILE).unlink()
    with pytest.raises(PerturbationError, match="cannot be read"):
        expiry_of(folder, chosen, None)


def test_a_key_that_signed_nothing_here_is_not_heeded(folder: Path, tmp_path: Path) -> None:
    """With another action's key nobody is asked: no member's program would obey what it says about the set."""
    mine = (folder / KEY_FILE).read_bytes()
    CollectiveKey.open_or_make(tmp_path / "other")
    shutil.copy(tmp_path / "other" / KEY_FILE, folder / KEY_FILE)
    with opened(folder, Swapped()) as action:
        before = paid(action)
        with pytest.raises(SignatureError, match=r"certificate\.json to be signed with the key in collective\.key"):
            look(action, 60)
        assert paid(action) == before
        (folder / KEY_FILE).write_bytes(mine)
        assert look(action, 60).expiry is not None


def test_another_version_that_answers_alike_is_told(folder: Path) -> None:
    """Where the platform says that it is another one, and answers as before, nobody hears that all is well."""
    with opened(folder, Renamed()) as action:
        before = rechecked(folder, action.queries)
        assert before is not None
        assert "another address, model or version" in before.told
        found = look(action)
    assert found.alarm is None
    assert found.other_version
    assert "another address, model or version" in found.told
    assert "Nothing speaks against" not in found.told


def test_a_kill_loses_nothing_pays_nothing_twice_and_draws_nobody_anew(folder: Path) -> None:
    """A look that died goes on with whom it drew; all of it costs what one look costs."""
    for requests in (2, 3):
        with opened(folder, Dies(requests)) as action:
            start = paid(action)
            with pytest.raises(KeyboardInterrupt):
                look(action)
            state = rechecked(folder, action.queries)
            assert state is not None
            assert state.open
            assert due(state, 1000.0)
            assert recheck_cost(folder, action.queries, 5) <= 40
        drawn = json.loads((folder / "recheck.json").read_text())["looks"]
        with opened(folder) as action:
            # What was in flight when it died is unknown, and paid: one request.
            found = look(action, 5)
            lost = action.ledger.unknown(action="action")
            assert found.persons == 20 * len(drawn)
            assert paid(action) - start <= 40 + 8
            assert paid(action) - start >= 40
            assert lost <= 8 * len(drawn)
        assert json.loads((folder / "recheck.json").read_text())["looks"][-1]["seats"] == drawn[-1]["seats"]


def test_a_look_waits_for_its_day(folder: Path) -> None:
    """With --every 7 nobody is asked on the sixth day; on the seventh somebody is, be it a minute early."""
    now = datetime(2026, 1, 1, 3, 0, 5, tzinfo=UTC)
    with opened(folder) as action:
        first = look(action, 4, every_days=7, now=lambda: now)
        before = paid(action)
        again = look(action, 4, every_days=7, now=lambda: now + timedelta(days=6))
        assert (again.looks, again.asked, paid(action)) == (1, 0, before)
        assert not due(first, 7, now=lambda: now + timedelta(days=6))
        assert look(action, 4, every_days=7, now=lambda: now + timedelta(days=7, seconds=-60)).looks == 2
        with pytest.raises(ConfigError, match="every as days above 0"):
            look(action, every_days=0)
        with pytest.raises(ConfigError, match="at least one person"):
            look(action, 0)


def test_whoever_is_forgotten_is_asked_no_more(folder: Path) -> None:
    """A member leaves an empty seat: looks go on with the others, and no picture of theirs is sent."""
    everybody = roster()
    gone = np.isin(everybody.verification.persons, EVES)
    with opened(folder) as action:
        action.ledger.forget("eve")
    left = replace(everybody, verification=everybody.verification[~gone])
    platform = Recorder()
    with opened(folder, platform, roster=left) as action:
        found = look(action, 60)
        assert 0 < found.kept < KEPT
        assert found.persons == 60
    sent = {image for images in platform.seen.values() for image in images}
    assert not sent & {image.tobytes() for image in everybody.verification.images[gone]}


def test_a_look_that_quotas_cannot_pay_is_not_begun(folder: Path) -> None:
    """Nothing is drawn or paid where only a part could be asked; an open look that was cut goes on once all can."""
    with opened(folder) as action:
        spent = sum(action.ledger.paid(action="action").values())
    record = (folder / "recheck.json").read_bytes()
    with opened(folder, cap=spent + 39) as action:
        with pytest.raises(QuotaError, match=r"Expected 40 queries for this look, got 39 .* ask fewer: --people"):
            look(action)
        assert (folder / "recheck.json").read_bytes() == record
        assert sum(action.ledger.paid(action="action").values()) == spent
        assert look(action, 19).asked == 38


def test_a_look_cannot_be_undone_by_an_older_record_or_none(folder: Path) -> None:
    """The ledger knows how many looks were begun, so that nobody looks until they like what they see."""
    record = (folder / "recheck.json").read_bytes()
    with opened(folder) as action:
        look(action)
        begun = (folder / "recheck.json").read_bytes()
        (folder / "recheck.json").write_bytes(record)
        with pytest.raises(ActionError, match="every look that the ledger knows of"):
            look(action)
        (folder / "recheck.json").unlink()
        for again in (action.keep, lambda: look(action)):
            with pytest.raises(ActionError, match="every look that the ledger knows of"):
                again()
        (folder / "recheck.json").write_bytes(begun)
        assert look(action).looks == 2


def test_an_edited_record_is_refused(folder: Path) -> None:
    """Who strikes a look out of the record, or moves it to another ledger, gets a sentence."""
    with opened(folder) as action:
        look(action, 4)
        said = json.loads((folder / "recheck.json").read_text())
        (folder / "recheck.json").write_text(json.dumps({**said, "looks": []}))
        with pytest.raises(ActionError, match=r"recheck\.json as it was written"):
            look(action, 4)


@given(st.data())
def test_who_is_kept_answered_alike_each_time(data: st.DataObject) -> None:
    """One other answer, or one that did not come, in any ask and either way, and a person is not kept."""
    labels = np.tile(
        np.array(data.draw(st.lists(st.tuples(*[st.integers(-1, 2)] * 2), min_size=1, max_size=5))), (3, 1, 1)
    )
    resolved = np.ones(labels.shape, np.bool_)
    assert alike(labels, resolved).all()
    ask, person, way = (data.draw(st.integers(0, n - 1)) for n in labels.shape)
    if data.draw(st.booleans()):
        labels[ask, person, way] += 1
    else:
        resolved[ask, person, way] = False
    expected = np.arange(labels.shape[1]) != person
    np.testing.assert_array_equal(alike(labels, resolved), expected)


@given(st.lists(st.tuples(*[st.integers(-1, 2)] * 5), max_size=30))
def test_counts_say_what_the_characters_say(persons: list[tuple[int, ...]]) -> None:
    """Changed answers, helped and harmed persons are counted from one character each."""
    said = "".join(outcome(p[:2], p[2:4], (True, True), abs(p[4])) for p in persons) + "?"
    state = standing([said])
    assert state["persons"] == len(persons)
    assert state["missing"] == 1
    assert state["changed"] == sum((p[0] != p[2]) + (p[1] != p[3]) for p in persons)
    assert state["helped"] == sum(p[3] == abs(p[4]) != p[2] for p in persons)
    assert state["harmed"] == sum(p[2] == abs(p[4]) != p[3] for p in persons)
    assert outcome((0, 0), (1, 1), (True, False), 0) == "?"

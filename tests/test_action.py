"""Tests of the collective action: that it works, that it resumes, and that it cannot be made to fool itself."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from safetensors import safe_open

from tests import worlds
from tests.pooling.places import as_version_4
from tests.worlds import Recorder, open_action
from ttca import distilling, measurement, people, perturbations
from ttca.action import MEMBERS_FILE, CollectiveAction
from ttca.answers import Answers, Status
from ttca.certificates import Certificate, certify
from ttca.errors import (
    ActionError,
    ConfigError,
    PerturbationError,
    QuotaError,
    TTCAError,
    WorthlessProxyError,
)
from ttca.images import Images, check_images
from ttca.panel import draw_panel
from ttca.people import People, Roster
from ttca.perturbations import PerturbationSet
from ttca.platforms import base
from ttca.platforms.base import Credential
from ttca.platforms.local import LocalPlatform
from ttca.pooling import pool
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool
from ttca.preparation import Preparation
from ttca.progress import Reporter
from ttca.row import Row
from ttca.settings import Settings
from ttca.signing import KEY_FILE, CollectiveKey, SignatureError, SignedKind, signature_file, signer

HOME = Path(__file__).resolve().parents[1]
TIMING = ("seconds_distil", "seconds_learn", "seconds", "peak_rss_mb")
STEPS: dict[str, Callable[[CollectiveAction], Any]] = {
    "pool": lambda action: action.pool(),
    "distil": lambda action: action.distil(),
    "learn": lambda action: action.learn(),
    "verify": lambda action: action.verify(),
    "measure": lambda action: action.measure(),
}


@dataclass(frozen=True)
class Finished:
    """An action done from beginning to end."""

    folder: Path
    platform: Recorder
    row: Row
    certificate: Certificate
    plan: dict[str, int]
    log: str

    def copy(self, to: Path) -> Path:
        """Return a copy of the folder, to be spoilt."""
        return Path(shutil.copytree(self.folder, to / "copy"))


def finish(folder: Path, **behaviour: Any) -> Finished:
    """Do the tiny world's action in a new folder."""
    changes = {k: behaviour.pop(k) for k in ("settings", "roster") if k in behaviour}
    platform, log = Recorder(**behaviour), io.StringIO()
    reporter = Reporter(Console(file=log, width=10**4))
    with open_action(folder, platform, reporter=reporter, **changes) as action:
        plan = {step: cost.queries for step, cost in action.plan().items()}
        certificate = action.verify()
        row, _ = action.measure()
    return Finished(folder, platform, row, certificate, plan, log.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return one finished action that all tests may read and none may write to."""
    return finish(tmp_path_factory.mktemp("finished"))


def lasting(row: Row) -> dict[str, Any]:
    """Return a row without what a clock or the machine's memory decides."""
    return {k: v for k, v in row.to_dict().items() if k not in TIMING}


def contents(folder: Path) -> dict[str, Any]:
    """Return what every file of an action says, but the ledger's, and those of a key, which is made by chance."""
    found: dict[str, Any] = {}
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != KEY_FILE and p.suffix != ".sig")
    for path in sorted(p for p in files if not p.name.startswith("ledger")):
        name = str(path.relative_to(folder))
        if name == "row.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in TIMING}
        elif name == "certificate.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "verified"}
        elif name.startswith("perturbations"):
            # safetensors writes its metadata in any order.
            known = PerturbationSet.load(path)
            found[name] = {**vars(known), "delta": known.delta.tobytes()}
        elif name.endswith(".safetensors"):
            with safe_open(path, framework="numpy") as file:
                arrays = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118 - no dict
                found[name] = {**arrays, "facts": file.metadata()}
        else:
            found[name] = path.read_bytes()
    return found


def resigned(folder: Path, stored: dict[str, Any]) -> None:
    """Write a certificate file and sign it, as whoever holds the collective's key can."""
    path = folder / "certificate.json"
    path.write_text(json.dumps(stored))
    CollectiveKey.open_or_make(folder).sign(path, "certificate")


def paid(folder: Path) -> dict[str, int]:
    """Return what the members have paid, by purpose."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        return ledger.paid()


# -- it works ---------------------------------------------------------------------------------------------------


def test_the_action_closes_the_gap_and_noise_does_not(finished: Finished) -> None:
    """On a platform with a real gap, δ closes it and is certified, while noise of the same ε changes little."""
    row = finished.row
    assert row.gap_before > 0.1
    assert row.gap_closed > 0.8
    assert row.subgroup_after_lower > row.subgroup_before
    assert row.noise_control < row.subgroup_before + 0.5 * row.gap_before
    assert row.parity_certified
    assert finished.certificate.epsilon == row.epsilon
    assert row.abuse_rate > 0.5, "a strong δ also moves others: the row must not hide it"


def test_a_row_holds_a_number_for_every_key(finished: Finished) -> None:
    """A whole action leaves no key of the honest row undefined, and row.json holds the same."""
    assert [k for k, v in finished.row.to_dict().items() if v is None] == []
    assert json.loads((finished.folder / "row.json").read_text()) == finished.row.to_dict()


def test_the_row_counts_what_was_paid_for_what(finished: Finished) -> None:
    """The queries in the row are the ledger's and the platform's, and no step cost more than its plan."""
    row, spent = finished.row, paid(finished.folder)
    kinds = ("pool", "baseline", "verification", "controls")
    assert [getattr(row, f"queries_{kind}") for kind in kinds] == [spent[kind] for kind in kinds]
    assert row.queries == row.queries_pool == 100 + 25 + 40 + 40
    assert row.composition == {"subgroup": 140, "volunteers": 65, "altered": 0}
    assert row.queries_baseline == len(finished.certificate.baseline) == 80
    assert row.queries_verification == sum(test.asked for test in finished.certificate.tests)
    assert row.persons_asked == finished.certificate.quoted_test.asked <= row.persons_verification == 80
    assert sum(spent.values()) == finished.platform.queries == finished.platform.model.processed
    assert {step: spent[step] <= most for step, most in finished.plan.items()} == dict.fromkeys(finished.plan, True)
    assert finished.plan == {"pool": 205, "baseline": 80, "verification": 160, "controls": 8 * 80 + 80}


def test_the_shared_file_is_the_set_that_was_certified_and_measured(finished: Finished) -> None:
    """perturbations.safetensors is the δ of the certified ε with its certificate and what members hear of the row."""
    shared = PerturbationSet.load(finished.folder / "perturbations.safetensors")
    learned = PerturbationSet.load(
        finished.folder / "perturbations" / f"epsilon-{finished.row.epsilon:03d}.safetensors"
    )
    assert np.array_equal(shared.delta, learned.delta)
    assert Certificate.from_dict(shared.evidence["certificate"]) == finished.certificate
    told = ("abuse_rate", "subgroup_before", "subgroup_after", "jpeg75_control", "resize_control")
    assert {name: shared.evidence[name] for name in told} == {name: getattr(finished.row, name) for name in told}
    assert "jpeg_quality" not in shared.evidence
    assert shared.fingerprint == finished.platform.info.fingerprint


def test_what_failed_its_certificate_is_not_handed_out(tmp_path: Path) -> None:
    """Where the certificate fails there is no members' file, an older version's goes, and nothing is paid anew."""
    with open_action(tmp_path, Recorder(), settings=worlds.settings(goal=0.999)) as action:
        certificate = action.verify()
        assert certificate.epsilon is None
        assert action.handed_out() is None
        assert not (tmp_path / MEMBERS_FILE).exists()
        learned = action.learn()[certificate.quoted_epsilon]
        evidence = {**learned.evidence, "certificate": certificate.to_dict()}
        replace(learned, evidence=evidence).save(tmp_path / MEMBERS_FILE)
        action.measure()
        spent = paid(tmp_path)
    with open_action(tmp_path, Recorder(), settings=worlds.settings(goal=0.999)) as action:
        assert action.verify() == certificate
        assert not (tmp_path / MEMBERS_FILE).exists()
        assert not signature_file(tmp_path / MEMBERS_FILE).exists()
        assert action.plan()["controls"].queries == 0
    assert paid(tmp_path) == spent


def test_every_step_is_one_line_of_a_log(finished: Finished) -> None:
    """However many calls a step takes, people see how far it is as a whole, and once what it came to."""
    counts = {what: int(n) for what, n in re.findall(r"^asking ?(.*): (\d+)/\2 queries in", finished.log, re.MULTILINE)}
    assert finished.log.count("asking") == len(counts) == 3
    row = finished.row
    assert counts["people who verify"] == row.queries_baseline + row.queries_verification
    assert counts["(pool)"] == row.queries_pool
    assert counts["(controls)"] == row.queries_controls


def test_the_members_file_says_for_whom_on_what_and_until_when(finished: Finished, tmp_path: Path) -> None:
    """The members' file names its group and service and expires `valid_days` after the day it was verified."""
    folder = finished.copy(tmp_path)
    first = PerturbationSet.load(folder / MEMBERS_FILE)
    verified = datetime.fromisoformat(first.evidence["verified"])
    assert first.expires is not None
    assert datetime.fromisoformat(first.expires) - verified == timedelta(days=90)
    assert first.service == finished.platform.info.name
    changed = worlds.settings(valid_days=10, subgroup="people of another name")
    said = io.StringIO()
    with open_action(folder, Recorder(), settings=changed, reporter=Reporter(Console(file=said, width=999))) as action:
        action.verify()
    assert f"subgroup people of another name (before: {first.subgroup})" in said.getvalue()
    assert f"(before: {first.expires})" in said.getvalue()
    again = PerturbationSet.load(folder / MEMBERS_FILE)
    assert again.expires is not None
    assert datetime.fromisoformat(again.expires) - verified == timedelta(days=10)
    assert again.subgroup == "people of another name"
    assert again.evidence["abuse_rate"] == first.evidence["abuse_rate"]


def test_the_pool_says_how_each_group_is_served(tmp_path: Path) -> None:
    """Right and asked of both groups are those of the pool's own answers about images as they are."""
    with open_action(tmp_path, Recorder()) as action:
        transfer = action.pool()
    groups = transfer.served()
    assert (groups["subgroup"].asked, groups["reference"].asked) == (140, 65)
    people = People.concatenate([transfer.pool, transfer.selection, transfer.volunteers])
    right = worlds.model(people.images).argmax(1) == people.classes
    assert groups["subgroup"].right == int(right[people.subgroup].sum())
    assert groups["reference"].right == int(right[~people.subgroup].sum())


def test_a_step_takes_what_the_one_before_returned(finished: Finished, tmp_path: Path) -> None:
    """A report on a finished action hashes an image seven times at most, and looks each answer up once."""
    folder = finished.copy(tmp_path)
    images: Counter[bytes] = Counter()
    counts: Counter[str] = Counter()
    digest_of, keys_of, weights_of, lookup = People.digest, Ledger.keys, distilling.weights_digest, Ledger.find

    def digest(people: People) -> str:
        images.update(image.tobytes() for image in people.images)
        return digest_of(people)

    def keys(ledger: Ledger, asked: Images, **context: Any) -> list[bytes]:
        images.update(image.tobytes() for image in asked)
        return keys_of(ledger, asked, **context)

    def weights(proxy: Any) -> str:
        counts["weights"] += proxy is not None
        return weights_of(proxy)

    def looked_up(ledger: Ledger, asked: Sequence[bytes], **options: Any) -> Any:
        counts["looked up"] += 1
        return lookup(ledger, asked, **options)

    with pytest.MonkeyPatch.context() as patched, open_action(folder, Recorder()) as action:
        patched.setattr(People, "digest", digest)
        patched.setattr(Ledger, "keys", keys)
        patched.setattr(distilling, "weights_digest", weights)
        patched.setattr(Ledger, "find", looked_up)
        action.plan()
        action.report()
        assert max(images.values()) <= 7
        assert counts["weights"] == 1
        # What is still to be paid, the pool, each of the three conditions that the certificate rests on (a copy of
        # photographs for all of them would not fit in memory), and what was measured: one look each, nothing again.
        assert counts["looked up"] == 6
        action.pool(), action.distil(), action.learn(), action.verify(), action.measure(), action.report()
        assert counts == {"weights": 1, "looked up": 6}


def test_an_action_of_version_0_1_goes_on(finished: Finished, tmp_path: Path) -> None:
    """A verified action whose platform had another fingerprint then is verified still: nothing is asked or learned."""
    folder = finished.copy(tmp_path)
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.database.run(as_version_4, write=True)
    now = Recorder()
    then = now.info
    now.info = replace(then, identity={"protocol": "now"}, reading={"how": "now"}, former_identity=then.identity)
    learned = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    with open_action(folder, now) as action:
        assert action.plan()["pool"].queries == 0
        assert action.verify() == finished.certificate
        assert action.measure()[0].queries_pool == finished.row.queries_pool
    assert now.queries == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == learned
    # Read otherwise, the same answers would be a second look.
    now.info = replace(now.info, reading={"how": "otherwise"}, former_identity={"protocol": "otherwise"})
    with (
        open_action(folder, now, accept_new_version=True) as action,
        pytest.raises(ActionError, match="whose answers are read otherwise"),
    ):
        action.verify()


def test_images_are_checked_at_the_doors(tmp_path: Path) -> None:
    """One action checks images once where people are made, a pool is asked, δ is applied and a request comes in."""
    doors: Counter[str] = Counter()
    at = {people: "people", pool: "asked", perturbations: "applied", base: "requests", measurement: "guests"}

    def counted(door: str) -> Any:
        def check(images: Any, **options: Any) -> Images:
            doors[door] += 1
            return check_images(images, **options)

        return check

    with pytest.MonkeyPatch.context() as patched:
        for module, door in at.items():
            patched.setattr(module, "check_images", counted(door))
        finished = finish(tmp_path / "action")
    # Two groups in each of three roles, and the images as the proxy sees them. No control of ours counts as a guest's.
    # Verification asks in batches, five for each of two ε; before it, what it may ask is named for the head that is
    # signed: each group without δ, and two batches for each ε. Before all of it, each group is looked for in the pool.
    assert doors == {"people": 7, "asked": 22, "applied": 21, "requests": len(finished.platform.seen)}


def test_an_action_tells_of_its_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The logger `ttca` says at INFO when each step begins and after how long it ended, and where one broke off."""
    caplog.set_level("INFO", logger="ttca")
    finish(tmp_path / "action")
    told = [m for m in caplog.messages if " begins." in m or " ended after " in m]
    steps = ("Asking", "Distilling", "Learning", "Verifying", "Measuring")
    assert [m.split()[0] for m in told] == [step for step in steps for _ in range(2)]
    assert all(re.fullmatch(r"\w+ ended after \d+\.\d s\.", m) for m in told[1::2])
    with pytest.raises(QuotaError), open_action(tmp_path / "b", Recorder(), members=worlds.members(3)) as action:
        action.pool()
    assert caplog.messages[-1].startswith("Asking broke off after ")


def test_the_certificate_equals_a_recount_by_hand(finished: Finished) -> None:
    """Every count in the certificate is what the model itself says about the images that were sent."""
    panel = draw_panel(worlds.roster().verification, seed=0)

    def right(images: Images, classes: Any) -> str:
        return "".join(str(int(hit)) for hit in worlds.model(images).argmax(axis=1) == classes)

    sub, ref, certificate = panel.subgroup, panel.reference, finished.certificate
    assert certificate.baseline == right(ref.images, ref.classes)
    for test in certificate.tests:
        delta = PerturbationSet.load(finished.folder / "perturbations" / f"epsilon-{test.epsilon:03d}.safetensors")
        everybody = right(delta.apply(sub.images, sub.classes), sub.classes)
        assert everybody.startswith(test.answers)
        if test.epsilon == finished.row.epsilon:
            assert finished.row.subgroup_after == everybody.count("1") / len(sub)
    assert finished.row.subgroup_before == right(sub.images, sub.classes).count("1") / len(sub)
    assert finished.row.reference_before == certificate.baseline.count("1") / len(ref)


class Moody(Recorder):
    """Refuses some images and fails on others, by a checksum of their bytes."""

    @staticmethod
    def mood(images: Images) -> Any:
        """Return a status per image: a tenth refused, a tenth failed."""
        sums = images.reshape(len(images), -1).astype(np.int64).sum(axis=1) % 10
        return np.select([sums == 0, sums == 1], [Status.REFUSED, Status.FAILED], Status.ANSWERED).astype(np.int8)

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer only those images that are in luck."""
        said = super().attempt(images, credential, request_id=request_id)
        mood = self.mood(images)
        lucky = mood == Status.ANSWERED
        scores = np.where(lucky[:, None], said.scores, np.float32(np.nan))
        return Answers(mood, np.where(lucky, said.labels, -1), scores, said.resolution)


def test_doubt_counts_against_the_certificate(tmp_path: Path) -> None:
    """A failed query is wrong for S and right for what S must beat; a refusal is wrong everywhere."""
    panel = draw_panel(worlds.roster().verification, seed=0)
    sub, ref = panel.subgroup, panel.reference
    with open_action(tmp_path, Moody()) as action:
        sets = action.learn()
        certificate = action.verify()

    def said(images: Images, classes: Any) -> str:
        mood = Moody.mood(images)
        hit = (mood == Status.ANSWERED) & (worlds.model(images).argmax(axis=1) == classes)
        return "".join(np.where(mood == Status.FAILED, "?", np.where(hit, "1", "0")).tolist())

    first = certificate.tests[0]
    after = sets[first.epsilon].apply(sub.images, sub.classes)
    assert {Status.FAILED, Status.REFUSED} <= set(Moody.mood(after).tolist())
    assert said(after, sub.classes).startswith(first.answers)
    assert certificate.baseline == said(ref.images, ref.classes)
    assert {"?", "0", "1"} == set(certificate.baseline)


@pytest.mark.parametrize(
    ("behaviour", "said"), [({"label_only": True}, "label"), ({"top_k": 1}, "top-k"), ({"decimals": 2}, "rounded")]
)
def test_poor_answers_are_enough_and_the_row_names_them(tmp_path: Path, behaviour: dict[str, Any], said: str) -> None:
    """Labels, top-1 or rounded scores also lead to a δ that closes the gap, and the row says which they were."""
    row = finish(tmp_path, **behaviour).row
    assert row.answers == said
    assert row.gap_closed > 0.8


def test_the_row_says_that_full_scores_were_given(finished: Finished) -> None:
    """Exact scores of every class are called scores."""
    assert finished.row.answers == "scores"


# -- it resumes and repeats -------------------------------------------------------------------------------------


def test_every_step_done_once_is_never_asked_or_done_again(tmp_path: Path) -> None:
    """After each step a new program on the same folder asks the platform nothing and rewrites no result."""
    for step in STEPS.values():
        with open_action(tmp_path, Recorder()) as action:
            step(action)
        before = contents(tmp_path)
        again = Recorder()
        with open_action(tmp_path, again) as action:
            step(action)
        assert again.queries == 0
        assert contents(tmp_path) == before


def test_a_second_program_reads_the_same_row(finished: Finished, tmp_path: Path) -> None:
    """Run again in the same folder, the row is the same but for seconds and memory, and nothing is asked."""
    platform = Recorder()
    with open_action(finished.copy(tmp_path), platform) as action:
        assert action.verify() == finished.certificate
        row, _ = action.measure()
        assert all(cost.queries == 0 for cost in action.plan().values())
    assert platform.queries == 0
    assert lasting(row) == lasting(finished.row)


def test_the_same_seed_gives_the_same_row_in_another_folder(finished: Finished, tmp_path: Path) -> None:
    """Two folders with the same seed end in the same δ and the same row, whatever threads did."""
    again = finish(tmp_path)
    assert lasting(again.row) == lasting(finished.row)
    for epsilon in (6, 12):
        name = f"perturbations/epsilon-{epsilon:03d}.safetensors"
        one, other = (PerturbationSet.load(f.folder / name) for f in (finished, again))
        assert np.array_equal(one.delta, other.delta)


def test_another_seed_gives_another_proxy_and_other_perturbations(finished: Finished, tmp_path: Path) -> None:
    """The seed reaches training: another one gives another proxy and other δ from the same answers."""
    folder = finished.copy(tmp_path)
    platform = Recorder()
    with open_action(folder, platform, settings=worlds.settings(seed=1)) as action:
        sets = action.learn()
        _, fidelity = action.distil()
    known = PerturbationSet.load(finished.folder / "perturbations" / "epsilon-012.safetensors")
    assert platform.queries == 0
    assert not np.array_equal(sets[12].delta, known.delta)
    assert fidelity.to_dict() != known.evidence["fidelity"]


def test_a_lost_shared_file_is_written_again(finished: Finished, tmp_path: Path) -> None:
    """A program killed between the certificate and the shared file leaves nothing that verify does not mend."""
    folder = finished.copy(tmp_path)
    (folder / "perturbations.safetensors").unlink()
    with open_action(folder, Recorder()) as action:
        certificate = action.verify()
    shared = PerturbationSet.load(folder / "perturbations.safetensors")
    assert Certificate.from_dict(shared.evidence["certificate"]) == certificate == finished.certificate


def test_a_set_of_another_epsilon_is_not_taken_for_this_one(finished: Finished, tmp_path: Path) -> None:
    """A file under the name of ε = 6 that holds ε = 12 is learned again instead of being certified as 6."""
    folder = finished.copy(tmp_path) / "perturbations"
    shutil.copy(folder / "epsilon-012.safetensors", folder / "epsilon-006.safetensors")
    with open_action(folder.parent, Recorder()) as action:
        sets = action.learn()
    original = PerturbationSet.load(finished.folder / "perturbations" / "epsilon-006.safetensors")
    assert sets[6].epsilon == 6
    assert np.array_equal(sets[6].delta, original.delta)


# -- verification people are read once --------------------------------------------------------------------------


def other_people() -> Roster:
    """Return the world with one verification person replaced."""
    roster = worlds.roster()
    people = roster.verification
    images = people.images.copy()
    images[0] = 255 - images[0]
    return replace(roster, verification=replace(people, images=images))


SECOND_LOOKS: dict[str, dict[str, Any]] = {
    "other epochs": {"settings": worlds.settings(epochs=11)},
    "other steps": {"settings": worlds.settings(steps=9)},
    "another seed": {"settings": worlds.settings(seed=7)},
    "fewer epsilons": {"settings": worlds.settings(epsilons=(12,))},
    "another goal": {"settings": worlds.settings(goal=0.5)},
    "another alpha": {"settings": worlds.settings(alpha=0.2)},
    "other people": {"roster": other_people()},
    "fewer people": {"roster": worlds.roster(verification=79)},
}


@pytest.mark.parametrize("change", SECOND_LOOKS.values(), ids=SECOND_LOOKS.keys())
def test_verification_people_are_read_for_one_question_only(
    finished: Finished, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Whatever is changed after verification, a second look is refused before a single query about those people."""
    folder = finished.copy(tmp_path)
    platform = Recorder()
    with open_action(folder, platform, **change) as action:
        with pytest.raises(ActionError, match="Expected verification people who were not used before") as refused:
            action.verify()
        with pytest.raises(ActionError, match="Expected verification people who were not used before"):
            action.measure()
    # What differs is named where it is a setting.
    told = re.findall(r"Settings that differ: (\w+) = \S+", str(refused.value))
    given, usual = change.get("settings", worlds.settings()), worlds.settings()
    assert told == [f.name for f in fields(usual) if getattr(given, f.name) != getattr(usual, f.name)]
    assert platform.queries == 0
    stored = json.loads((folder / "certificate.json").read_text())["certificate"]
    assert Certificate.from_dict(stored) == finished.certificate


def test_a_changed_perturbation_is_not_verified_on_the_same_people(finished: Finished, tmp_path: Path) -> None:
    """A δ edited by hand under its old name does not inherit the certificate, and is not verified in its place."""
    folder = finished.copy(tmp_path)
    path = folder / "perturbations" / "epsilon-012.safetensors"
    known = PerturbationSet.load(path)
    replace(known, delta=-known.delta).save(path)
    platform = Recorder()
    with (
        open_action(folder, platform) as action,
        pytest.raises(ActionError, match="Expected verification people who were not used before"),
    ):
        action.verify()
    assert platform.queries == 0


def test_a_certificate_is_not_carried_over_to_another_platform(tmp_path: Path) -> None:
    """Another version of the platform, though it answers alike, gets no certificate and no second look."""
    with open_action(tmp_path, Recorder(label_only=True)) as action:
        action.verify()
    platform = Recorder(label_only=True, version="2")
    for accept in (False, True):
        with (
            open_action(tmp_path, platform, accept_new_version=accept) as action,
            pytest.raises(ActionError, match=r"got another address, model or version.*no query helps here"),
        ):
            action.verify()
    assert platform.queries == 0, "the pool would be paid again in vain"


def test_lost_notes_of_a_verification_are_not_a_licence_to_repeat_it(finished: Finished, tmp_path: Path) -> None:
    """Without verification.json, the ledger still tells that verification people were read."""
    folder = finished.copy(tmp_path)
    (folder / "verification.json").unlink()
    platform = Recorder()
    with open_action(folder, platform) as action, pytest.raises(ActionError, match=r"verification\.json"):
        action.verify()
    assert platform.queries == 0
    assert not (folder / "verification.json").exists()


class Killed(BaseException):
    """Stands for a kill: nothing in the program may catch it and go on."""


class Fragile(Recorder):
    """Dies on the request after so many queries."""

    def __init__(self, survives: int) -> None:
        super().__init__()
        self.survives = survives

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer, or die."""
        if self.queries + len(images) > self.survives:
            raise Killed
        return super().attempt(images, credential, request_id=request_id)


@pytest.mark.parametrize("survives", [205, 250, 400])
def test_a_kill_during_verification_allows_no_other_perturbation(
    finished: Finished, tmp_path: Path, survives: int
) -> None:
    """Killed before its certificate, an action may go on with the same δ and with no other one."""
    with open_action(tmp_path, Fragile(survives)) as action, pytest.raises(Killed):
        action.verify()
    assert not (tmp_path / "certificate.json").exists()
    spent = paid(tmp_path)
    changed = Recorder()
    with (
        open_action(tmp_path, changed, settings=worlds.settings(steps=9)) as action,
        pytest.raises(ActionError, match="Expected verification people who were not used before"),
    ):
        action.verify()
    assert changed.queries == 0
    assert paid(tmp_path) == spent
    with open_action(tmp_path, Recorder()) as action:
        assert action.verify() == finished.certificate


# -- people have one role ---------------------------------------------------------------------------------------


def test_no_image_is_asked_for_two_purposes_across_roles(finished: Finished) -> None:
    """The platform saw exactly pool and selection images for the pool, and verification images for nothing else."""
    roster = worlds.roster()
    seen = finished.platform.by_purpose(finished.folder / "ledger.sqlite")
    known = {role: {image.tobytes() for image in people.images} for role, people in roster.roles().items()}
    assert seen["pool"] == known["pool"] | known["selection"]
    others = roster.verification[~roster.verification.subgroup]
    assert seen["baseline"] == {image.tobytes() for image in others.images} < known["verification"]
    assert set(seen) == {"pool", "baseline", "verification", "controls"}
    for purpose in ("baseline", "verification", "controls"):
        assert not seen[purpose] & seen["pool"]
    sub = roster.verification[roster.verification.subgroup]
    sets = [
        PerturbationSet.load(finished.folder / "perturbations" / f"epsilon-{t.epsilon:03d}.safetensors")
        for t in finished.certificate.tests
    ]
    sent = {image.tobytes() for chosen in sets for image in chosen.apply(sub.images, sub.classes)}
    assert seen["verification"] <= sent


@pytest.fixture
def benchmark_pool(tmp_path: Path) -> Iterator[QueryPool]:
    """Return a pool that pays for test people, with a ledger of its own."""
    with Ledger(tmp_path / "evaluation.sqlite") as ledger:
        yield QueryPool(Recorder(), ledger, [Member("benchmark", 5000)])


def test_test_people_are_paid_by_the_benchmark_alone(
    finished: Finished, tmp_path: Path, benchmark_pool: QueryPool
) -> None:
    """A row on test people costs the members nothing, and leaves the controls on verification people unpaid."""
    folder = tmp_path / "action"
    with open_action(folder, Recorder()) as action:
        action.verify()
        spent = action.ledger.paid()
        row, measurement = action.measure(worlds.strangers(), pool=benchmark_pool, track="tiny")
        assert action.ledger.paid() == spent
        assert action.plan()["controls"].queries == 720
    assert set(benchmark_pool.ledger.paid()) == {"test"}
    assert (row.track, row.regime) == ("tiny", "own")
    assert len(measurement.correct["subgroup_after"]) == 80
    assert row.certificate_lower == finished.row.certificate_lower
    assert row.subgroup_before != finished.row.subgroup_before, "other people, another accuracy"


def test_every_epsilon_of_the_family_can_be_measured_on_test_people(
    finished: Finished, tmp_path: Path, benchmark_pool: QueryPool
) -> None:
    """One action gives a row per ε with controls of that ε, and the controls of one ε are learned once."""
    folder = finished.copy(tmp_path)
    with open_action(folder, Recorder()) as action:
        certificate = action.verify()
        rows = {}
        for epsilon in sorted(action.settings.epsilons):
            rows[epsilon], measurement = action.measure(worlds.strangers(), pool=benchmark_pool, epsilon=epsilon)
            own = action.learn()[epsilon].apply(*_strangers_of_the_subgroup())
            said = benchmark_pool.ask(own, purpose="test", epoch="test").labels
            assert measurement.rate("subgroup_after") == np.mean(said == _strangers_of_the_subgroup()[1])
            opponents = action.opponents(epsilon)
            for name in ("noise", "zero_query"):
                assert np.abs(getattr(opponents, name).delta).max() == epsilon
            assert rows[epsilon].parity_certified == (
                bool(certificate.parity_certified) and certificate.passed_at(epsilon)
            )
        stamp = (folder / "controls.safetensors").stat().st_mtime_ns
        again = action.measure(worlds.strangers(), pool=benchmark_pool, epsilon=min(rows))[0]
        assert (folder / "controls.safetensors").stat().st_mtime_ns == stamp
        assert again.zero_query_control == rows[min(rows)].zero_query_control
        assert [row.epsilon for row in rows.values()] == sorted(action.settings.epsilons)
        quoted = action.measure(worlds.strangers(), pool=benchmark_pool)[0]
        assert quoted.epsilon == certificate.quoted_epsilon
        assert quoted.certificate_lower == certificate.lower.value


def test_verification_people_are_measured_at_the_quoted_epsilon_only(
    finished: Finished, tmp_path: Path, benchmark_pool: QueryPool
) -> None:
    """Another ε of verification people, or one outside the family, is refused before a query."""
    with open_action(finished.copy(tmp_path), Recorder()) as action:
        for people, pool, epsilon in ((None, None, 6), (worlds.strangers(), benchmark_pool, 7)):
            with pytest.raises(ActionError, match="Expected one of the ε values"):
                action.measure(people, pool=pool, epsilon=epsilon)
        with pytest.raises(ActionError, match="Expected one of the action's ε values"):
            action.opponents(7)
    assert benchmark_pool.ledger.paid() == {}


def _strangers_of_the_subgroup() -> tuple[Images, NDArray[np.int64]]:
    people = worlds.strangers()
    return people.images[people.subgroup], people.classes[people.subgroup]


def test_test_people_must_be_in_no_other_role(finished: Finished, tmp_path: Path, benchmark_pool: QueryPool) -> None:
    """Pool people given as test people are refused before a query, since their numbers would prove nothing."""
    with open_action(finished.copy(tmp_path), Recorder()) as action:
        for people in (action.roster.pool, action.roster.verification):
            with pytest.raises(ActionError, match="in one role"):
                action.measure(people, pool=benchmark_pool)
    assert benchmark_pool.ledger.paid() == {}


def test_members_cannot_be_made_to_pay_for_test_people(
    finished: Finished, tmp_path: Path, benchmark_pool: QueryPool
) -> None:
    """Test people without a pool, a pool without test people and the members' own ledger are refused."""
    platform = Recorder()
    with open_action(finished.copy(tmp_path), platform) as action:
        for people, pool in ((worlds.strangers(), None), (None, benchmark_pool)):
            with pytest.raises(ActionError, match="only one of the two"):
                action.measure(people, pool=pool)
        with pytest.raises(ActionError, match="Members never pay"):
            action.measure(worlds.strangers(), pool=action.queries)
    assert platform.queries == 0


# -- bad input costs nothing ------------------------------------------------------------------------------------


def small_images() -> Roster:
    """Return people whose images are of another size than the platform's."""
    cut: dict[str, Any] = {role: replace(p, images=p.images[:, :6]) for role, p in worlds.roster().roles().items()}
    return Roster(**cut)


def unknown_class() -> Roster:
    """Return people one of whom is of a fourth class."""
    roster = worlds.roster()
    classes = roster.selection.classes.copy()
    classes[0] = 3
    return replace(roster, selection=replace(roster.selection, classes=classes))


BAD: dict[str, tuple[Callable[[], dict[str, Any]], type[TTCAError], str]] = {
    "image size": (lambda: {"roster": small_images()}, ActionError, r"\(8, 8, 3\), the size the platform takes"),
    "class": (lambda: {"roster": unknown_class()}, ActionError, r"classes 0\.\.2 among the selection people"),
    "no reference": (lambda: {"roster": worlds.roster(reference=False)}, ActionError, "The goal, parity, compares"),
    "quota 0": (lambda: {"members": worlds.members(0)}, QuotaError, "whole number of at least 1, got 0"),
    "cap 0": (lambda: {"cap": 0}, QuotaError, "cap of at least 1"),
    "people as roster": (
        lambda: {"roster": worlds.roster().pool},
        ConfigError,
        r"Expected roster as Roster, got People\. split_roles\(",
    ),
    "settings as a table": (lambda: {"settings": {"epsilons": (6,)}}, ConfigError, "settings as Settings, got dict"),
    "views as images": (
        lambda: {"views": worlds.roster().pool.images},
        ConfigError,
        r"views as People, got ndarray\. People\.build",
    ),
    "a function as platform": (lambda: {"platform": worlds.model}, ConfigError, r"LocalPlatform\(function, classes=…"),
    "names as members": (lambda: {"members": ["me"]}, ConfigError, r"got 'me'\. Write members=\[Member\(name, quota"),
    "one member": (lambda: {"members": Member("me", 9)}, ConfigError, "got one of them alone"),
    "no members": (lambda: {"members": []}, ConfigError, "at least one member"),
    "member twice": (lambda: {"members": worlds.members() * 2}, ConfigError, "every member once"),
    "batch 0": (lambda: {"pace": Pace(batch=0)}, ConfigError, "at least 1"),
}


@pytest.mark.parametrize(("change", "error", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_a_sentence_and_costs_no_query(
    tmp_path: Path, change: Callable[[], dict[str, Any]], error: type[TTCAError], sentence: str
) -> None:
    """What cannot work is refused when the action is opened, with a sentence and before any query."""
    platform = Recorder()
    with pytest.raises(error, match=sentence):
        open_action(tmp_path, **{"platform": platform, **change()})
    assert platform.queries == 0


def test_a_class_that_nobody_of_the_pool_shows_is_named_once_delta_is_learned(tmp_path: Path) -> None:
    """Where no pool person of the subgroup is of a class, its members are told that nothing is done for them."""
    roster, said = worlds.roster(), io.StringIO()
    others = replace(roster, pool=roster.pool[~(roster.pool.subgroup & (roster.pool.classes == 2))])
    with open_action(tmp_path, Recorder(), roster=others, reporter=Reporter(Console(file=said, width=10**4))) as action:
        action.learn()
        action.learn()
    assert said.getvalue().count("δ leaves this class as it is: checks. ") == 1


@pytest.mark.parametrize("role", ["pool", "selection", "verification"])
def test_an_empty_role_is_a_sentence(role: str) -> None:
    """A role without subgroup people is named when the people are put together."""
    roster = worlds.roster()
    people: People = getattr(roster, role)
    without: dict[str, Any] = {role: people[~people.subgroup]}
    with pytest.raises(ActionError, match=f"subgroup people in the role {role}, got none"):
        replace(roster, **without)


@pytest.mark.parametrize("change", [{"members": worlds.members(20)}, {"cap": 204}])
def test_too_small_quotas_stop_before_the_first_query(tmp_path: Path, change: dict[str, Any]) -> None:
    """Quotas or a cap that cannot pay for the whole pool are refused before its first query."""
    platform = Recorder()
    with open_action(tmp_path, platform, **change) as action, pytest.raises(QuotaError):
        action.pool()
    assert platform.queries == 0


def test_a_model_that_timm_does_not_know_costs_no_query(tmp_path: Path) -> None:
    """A misspelt timm model is refused by distil before it asks the pool anything."""
    platform = Recorder()
    with (
        open_action(tmp_path, platform, settings=worlds.settings(architectures=("timm/resnet_of_mine",))) as action,
        pytest.raises(ConfigError, match="resnet_of_mine"),
    ):
        action.distil()
    assert platform.queries == 0


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """A folder below a file is refused with a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ActionError, match="Expected to create the folder"):
        open_action(tmp_path / "file" / "action", Recorder())


def test_members_without_torch_pool_and_are_told_what_distilling_needs(tmp_path: Path) -> None:
    """Without torch the pool step works, and distil says what to install before it asks anything."""
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'torchvision', 'scipy'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(HOME)!r})\n"
        "from pathlib import Path\n"
        "from tests import worlds\n"
        "from ttca.errors import MissingExtraError\n"
        "first, second = worlds.Recorder(), worlds.Recorder()\n"
        "with worlds.open_action(Path('one'), first) as action:\n"
        "    print(action.pool().images, first.queries)\n"
        "with worlds.open_action(Path('two'), second) as action:\n"
        "    try:\n"
        "        action.distil()\n"
        "    except MissingExtraError as error:\n"
        "        print(error.extra, second.queries)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["205 205", "learn 0"]


# -- it stops where it cannot help ------------------------------------------------------------------------------


def mostly_one(images: Images) -> Any:
    """Return the first class for six images in seven, and a class no pattern tells for the seventh."""
    sums = (images.reshape(len(images), -1).astype(np.int64) ** 2).sum(axis=1)
    return np.eye(3)[np.where(sums % 7 == 0, 1, 0)]


def test_a_proxy_no_better_than_the_favourite_answer_stops_before_verification(tmp_path: Path) -> None:
    """A proxy that learned nothing but the platform's favourite answer is stopped, however often that is right."""
    platform = LocalPlatform(mostly_one, classes=worlds.CLASSES, image_shape=worlds.SHAPE)
    with open_action(tmp_path, platform, settings=worlds.settings(epochs=3), anyway=True) as action:
        for step in ("distil", "learn", "verify", "measure"):
            with pytest.raises(WorthlessProxyError, match="most frequent answer") as stopped:
                STEPS[step](action)
        assert set(action.ledger.paid()) == {"pool"}
        counts = re.search(r"on more than (\d+) of (\d+) selection people, got (\d+)\. To say", str(stopped.value))
        assert counts is not None, stopped.value
        assert int(counts[3]) <= int(counts[1]) <= int(counts[2])
        assert "3 epochs are few: raise epochs." in str(stopped.value)
    assert not (tmp_path / "verification.json").exists()


def sharp_only(images: Images) -> Any:
    """Answer rightly where a pattern is strong, and always with the first class where it is faint."""
    found = ((images.astype(np.float64) - 128)[:, None] * worlds.PATTERNS).mean(axis=(2, 3, 4))
    return np.eye(3)[np.where(found.max(axis=1) > 14, found.argmax(axis=1), 0)]


def sharp_world(role: str, n: int, volunteers: int, *, seed: int) -> People:
    """Return members whose patterns are faint, and volunteers whose patterns are very strong."""
    parts = [(n, 0.0, True), (volunteers, 40.0, False)]
    people = []
    for count, strength, group in parts:
        if count:
            images, classes = worlds.draw(count, strength=strength, seed=seed + group)
            names = [f"{role}{group}{i}" for i in range(count)]
            payers = [worlds.MEMBERS[i % 5] for i in range(count)]
            people.append(People.build(images, classes, persons=names, members=payers, subgroup=group))
    return People.concatenate(people)


@pytest.mark.parametrize("volunteers", [30, 0])
def test_a_platform_that_says_one_thing_to_all_members_needs_volunteers(tmp_path: Path, volunteers: int) -> None:
    """If every member gets the same answer, the volunteers' answers show that the proxy knows the platform."""
    roster = Roster(
        pool=sharp_world("p", 60, volunteers, seed=1),
        selection=sharp_world("s", 30, volunteers, seed=3),
        verification=sharp_world("v", 30, 30, seed=5),
    )
    platform = LocalPlatform(sharp_only, classes=worlds.CLASSES, image_shape=worlds.SHAPE)
    sub = roster.selection[roster.selection.subgroup]
    assert set(sharp_only(sub.images).argmax(axis=1).tolist()) == {0}
    with open_action(tmp_path, platform, roster=roster, anyway=not volunteers) as action:
        if volunteers:
            _, fidelity = action.distil()
            assert fidelity.subgroup > 0.5
            assert fidelity.reference > 0.9
        else:
            with pytest.raises(WorthlessProxyError, match="most frequent answer"):
                action.distil()


class Shy(Recorder):
    """Refuses the images it is told to."""

    def __init__(self, refused: Images) -> None:
        super().__init__()
        self.refused = {image.tobytes() for image in refused}

    def attempt(self, images: Images, credential: Credential, *, request_id: str) -> Answers:
        """Answer with a label, or refuse."""
        said = super().attempt(images, credential, request_id=request_id)
        no = np.array([image.tobytes() in self.refused for image in images])
        return Answers.from_labels(np.where(no, -1, said.labels), 3)


def test_a_platform_that_refuses_all_selection_people_stops_the_action(tmp_path: Path) -> None:
    """Without any named answer about selection people nobody knows the proxy's worth, and that is said."""
    platform = Shy(worlds.roster().selection.images)
    asked = open_action(tmp_path, platform, anyway=True)
    with asked as action, pytest.raises(ActionError, match="selection people, got none"):
        action.verify()
    assert set(paid(tmp_path)) == {"pool"}


# -- damaged files ----------------------------------------------------------------------------------------------


DAMAGE: dict[str, tuple[str, bytes, type[TTCAError]]] = {
    "proxy": ("proxy.safetensors", b"not a proxy", ActionError),
    "empty proxy": ("proxy.safetensors", b"", ActionError),
    "perturbation": ("perturbations/epsilon-006.safetensors", b"\xff" * 64, PerturbationError),
    "certificate no JSON": ("certificate.json", b"{", ActionError),
    "certificate no object": ("certificate.json", b"[]", ActionError),
    "certificate no text": ("certificate.json", b"\xff\xfe", ActionError),
    "verification notes": ("verification.json", b"nothing", ActionError),
    "controls": ("controls.safetensors", b"\x00" * 100, ActionError),
    "zero-query proxy": ("zero-query-proxy.safetensors", b"??", ActionError),
}


@pytest.mark.parametrize(("name", "content", "error"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_a_sentence_that_names_it(
    finished: Finished, tmp_path: Path, name: str, content: bytes, error: type[TTCAError]
) -> None:
    """A file that cannot be read stops the action with its name, and asks nothing."""
    folder = finished.copy(tmp_path)
    (folder / name).write_bytes(content)
    if name.startswith("zero"):
        (folder / "controls.safetensors").unlink()
    elif name.startswith("certificate"):
        # As whoever holds the key could: what is signed is checked no less.
        CollectiveKey.open_or_make(folder).sign(folder / name, "certificate")
    platform = Recorder()
    with open_action(folder, platform) as action, pytest.raises(error, match=Path(name).name):
        action.measure()
    assert platform.queries == 0


def test_half_a_file_is_a_sentence(finished: Finished, tmp_path: Path) -> None:
    """Files cut off in their middle, as by a full disk, are told from whole ones."""
    folder = finished.copy(tmp_path)
    for name in ("controls.safetensors", "perturbations/epsilon-012.safetensors", "proxy.safetensors"):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with open_action(folder, Recorder()) as action, pytest.raises(TTCAError, match=path.name):
            action.measure()


@pytest.mark.parametrize("edit", [lambda c: c.pop("certificate"), lambda c: c.update(certificate=5)])
def test_a_certificate_without_its_parts_is_a_sentence(
    finished: Finished, tmp_path: Path, edit: Callable[[dict[str, Any]], Any]
) -> None:
    """A certificate file that is JSON but holds no certificate is refused, not read."""
    folder = finished.copy(tmp_path)
    stored = json.loads((folder / "certificate.json").read_text())
    edit(stored)
    resigned(folder, stored)
    with open_action(folder, Recorder()) as action, pytest.raises(ActionError, match="Expected a certificate"):
        action.verify()


# -- settings ---------------------------------------------------------------------------------------------------


NUMBERS = st.one_of(st.integers(-3, 200), st.floats(), st.booleans(), st.just(2**70))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epsilons": st.lists(NUMBERS, max_size=4).map(tuple),
            "seed": NUMBERS,
            "epochs": NUMBERS,
            "steps": NUMBERS,
            "shift": NUMBERS,
            "mixup": st.floats(),
            "alpha": st.floats(),
            "goal": st.one_of(NUMBERS, st.sampled_from(["parity", "improvement", "peace"])),
            "architectures": st.lists(st.sampled_from(["small-cnn", "resnet19", "timm/x", ""]), max_size=2).map(tuple),
        },
    )
)
def test_settings_are_either_usable_or_refused(values: dict[str, Any]) -> None:
    """Any numbers make settings whose every value a step can use, or a ConfigError, and never another error."""
    try:
        s = Settings(**values)
    except ConfigError:
        return
    assert s.epsilons
    assert all(type(e) is int and 1 <= e <= 127 for e in s.epsilons)
    assert min(s.epochs, s.steps) >= 1
    assert min(s.shift, s.seed, s.mixup) >= 0
    assert s.mixup < float("inf")
    assert s.seed < 2**32
    assert 0 < s.alpha < 1
    assert s.goal in ("parity", "improvement") or (isinstance(s.goal, float) and 0 < s.goal < 1)
    assert set(s.architectures) <= {"small-cnn", "timm/x"}


@pytest.mark.parametrize("goal", [0, 1, 1.5, -0.1, float("nan"), True, "Parity"])
def test_a_goal_that_is_no_rate_is_refused_at_the_door(goal: Any) -> None:
    """A goal no certificate could be about is refused with the settings, not after the pool was paid."""
    with pytest.raises(ConfigError, match="Expected the goal"):
        Settings(goal=goal)


# -- a certificate is believed only as far as it follows ----------------------------------------------------------


def _edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    stored = json.loads((folder / "certificate.json").read_text())
    edit(stored["certificate"])
    resigned(folder, stored)


def test_a_certificate_that_does_not_follow_from_the_ledger_is_refused(finished: Finished, tmp_path: Path) -> None:
    """Answers made up in certificate.json, consistent in themselves, are found by looking into the ledger."""
    folder = finished.copy(tmp_path)
    test = finished.certificate.tests[-1]
    flip = test.answers.index("0")
    better = test.answers[:flip] + "1" + test.answers[flip + 1 :]

    def lie(found: dict[str, Any]) -> None:
        held: dict[Any, str] = {t["epsilon"]: t["answers"] for t in found["tests"]}
        held |= {"reference": found["baseline"], test.epsilon: better + test.answers}
        terms, who = finished.certificate.terms, finished.certificate.examined
        made_up = certify(
            lambda condition, i, j: (held[condition] + "1" * who.persons)[i:j],
            terms,
            epsilons=finished.certificate.family,
            examined=who,
        )
        found.clear()
        found.update(made_up.to_dict())

    _edited(folder, lie)
    platform = Recorder()
    with open_action(folder, platform) as action, pytest.raises(ActionError, match="follows from the answers"):
        action.verify()
    assert platform.queries == 0


# -- what is handed on is signed ----------------------------------------------------------------------------------


SIGNED: dict[str, SignedKind] = {MEMBERS_FILE: "perturbations", "certificate.json": "certificate"}


def test_what_is_handed_on_is_signed_with_one_key(finished: Finished) -> None:
    """Members' file and certificate are signed with the key in the folder, which is closed to others."""
    key = CollectiveKey.open_or_make(finished.folder)
    assert {name: signer(finished.folder / name, kind) for name, kind in SIGNED.items()} == dict.fromkeys(
        SIGNED, key.public
    )
    assert sorted(p.name for p in finished.folder.glob("*.sig")) == sorted(f"{name}.sig" for name in SIGNED)


@pytest.mark.parametrize("name", SIGNED)
def test_a_changed_file_is_refused_and_not_mended(finished: Finished, tmp_path: Path, name: str) -> None:
    """One changed byte of a signed file stops the action before a query, and the file stays as it is."""
    folder = finished.copy(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    platform = Recorder()
    with open_action(folder, platform) as action:
        with pytest.raises(SignatureError, match=r"Expected .* as it was signed.* run ttca verify again"):
            action.verify()
        if name == MEMBERS_FILE:
            with pytest.raises(SignatureError, match="other bytes"):
                action.handed_out()
    assert platform.queries == 0
    assert (folder / name).read_bytes() == content


def test_what_an_earlier_version_wrote_is_signed_once_it_was_checked(finished: Finished, tmp_path: Path) -> None:
    """Files without a signature are read, compared with the ledger, and signed with a key made for it."""
    folder = finished.copy(tmp_path)
    for path in (*folder.glob("*.sig"), folder / KEY_FILE):
        path.unlink()
    day = PerturbationSet.load(folder / MEMBERS_FILE).expires
    with open_action(folder, Recorder()) as action:
        assert action.verify() == finished.certificate
    key = CollectiveKey.open_or_make(folder)
    assert key.public != CollectiveKey.open_or_make(finished.folder).public
    assert all(key.has_signed(folder / name, kind) for name, kind in SIGNED.items())
    assert PerturbationSet.load(folder / MEMBERS_FILE).expires == day


def test_a_made_up_certificate_is_not_signed(finished: Finished, tmp_path: Path) -> None:
    """A certificate without a signature that the ledger contradicts stays without one."""
    folder = finished.copy(tmp_path)
    _edited(folder, lambda found: found["power"].update(probability=0.5))
    signature_file(folder / "certificate.json").unlink()
    with open_action(folder, Recorder()) as action, pytest.raises(ActionError, match="follows from"):
        action.verify()
    assert not signature_file(folder / "certificate.json").exists()


def test_a_lost_key_is_not_replaced_in_silence(finished: Finished, tmp_path: Path) -> None:
    """Where another key signed what lies there, the action stops and says what members would have to be told."""
    folder = finished.copy(tmp_path)
    (folder / KEY_FILE).unlink()
    with open_action(folder, Recorder()) as action, pytest.raises(SignatureError, match="tell every member"):
        action.verify()
    assert not (folder / KEY_FILE).exists()


def test_a_key_that_others_can_read_stops_the_action(finished: Finished, tmp_path: Path) -> None:
    """With a key open to others nothing is signed, and no query is spent."""
    folder = finished.copy(tmp_path)
    (folder / KEY_FILE).chmod(0o644)
    platform = Recorder()
    with open_action(folder, platform) as action, pytest.raises(SignatureError, match="chmod 600"):
        action.verify()
    assert platform.queries == 0


def test_a_certificate_of_version_0_1_is_refused_with_a_sentence(finished: Finished, tmp_path: Path) -> None:
    """What counted every image as another person is not read as a certificate of persons."""
    folder = finished.copy(tmp_path)
    _edited(folder, lambda found: found.update(format=2))
    with open_action(folder, Recorder()) as action, pytest.raises(ActionError, match="counted every image"):
        action.verify()


@pytest.mark.parametrize("change", [{"goal": "improvement"}, {"stopping": "anytime"}, {"alpha": 0.1}, {"within": 0.1}])
def test_other_terms_after_the_first_answer_are_refused(
    finished: Finished, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Goal, error and stopping are fixed with the first answer: choosing them afterwards would be a second look."""
    folder = finished.copy(tmp_path)
    with (
        open_action(folder, Recorder(), settings=worlds.settings(**change)) as action,
        pytest.raises(ActionError, match="not used before"),
    ):
        action.verify()


def test_the_preparation_is_part_of_what_is_verified_and_handed_out(finished: Finished, tmp_path: Path) -> None:
    """Members' file and question hold it; another one, though it changes no pixel, is a sentence before any query."""
    size = worlds.roster().pool.image_shape[:2]
    way, other = (replace(worlds.roster(), preparation=Preparation(size=size, fit=fit)) for fit in ("crop", "pad"))
    made, platform = tmp_path / "made", Recorder()
    with open_action(made, platform, roster=way) as action:
        action.verify()
        handed = action.handed_out()
    assert handed is not None
    assert handed.preparation == way.preparation
    opened = [json.loads((folder / "verification.json").read_text()) for folder in (made, finished.folder)]
    assert opened[0]["question"] != opened[1]["question"]
    asked = platform.queries
    for roster in (other, worlds.roster()):
        with (
            open_action(made, platform, roster=roster) as action,
            pytest.raises(ActionError, match="Expected pictures that are prepared as for"),
        ):
            action.verify()
    # Without the files that say so, verification people are still those of the first way.
    shutil.rmtree(made / "perturbations")
    with (
        open_action(made, platform, roster=other) as action,
        pytest.raises(ActionError, match="Expected verification people who were not used before"),
    ):
        action.verify()
    with (
        open_action(finished.copy(tmp_path), platform, roster=way) as action,
        pytest.raises(ActionError, match="Expected pictures that are prepared as for"),
    ):
        action.verify()
    assert platform.queries == asked


def test_an_action_without_a_preparation_keeps_its_names_and_files(finished: Finished) -> None:
    """The question of version 0.1 is hashed from the same bytes, and its files hold no new word."""
    with safe_open(finished.folder / MEMBERS_FILE, framework="numpy") as file:
        assert "preparation" not in json.loads(file.metadata()["facts"])
    sets = {e: PerturbationSet.load(finished.folder / f"perturbations/epsilon-{e:03d}.safetensors") for e in (6, 12)}
    terms = json.dumps(worlds.settings().certifying.to_dict(), sort_keys=True).encode()
    deltas = [f"{e} ".encode() + sets[e].delta.tobytes() for e in sorted(sets)]
    question = b"".join([finished.platform.info.fingerprint_as_read.encode(), *deltas, terms])
    opened = json.loads((finished.folder / "verification.json").read_text())
    assert opened["question"] == hashlib.sha256(question).hexdigest()


def test_names_that_are_nobody_s_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    """A text in place of a list of persons, a person who is not there, and a folder without a name."""
    platform = Recorder()
    with open_action(tmp_path, platform) as action:
        with pytest.raises(ActionError, match="pictures_of as a list"):
            action.report(pictures_of="ada")
        with pytest.raises(ActionError, match="pictures_of to name persons of this action, got 'ada'"):
            action.report(pictures_of=["ada"])
    with pytest.raises(ActionError, match="may_be_shown as a list"):
        open_action(tmp_path, platform, may_be_shown="ada")
    with pytest.raises(ActionError, match="a folder for the action"):
        open_action("", platform)  # type: ignore[arg-type]
    assert not platform.queries

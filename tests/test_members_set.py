"""A set as members have it: what it says in plain words, and every reason for which it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import worlds
from ttca.errors import PerturbationError, TTCAError
from ttca.members_set import TOLD, check_usable, doubts, read_set
from ttca.perturbations import PerturbationSet
from ttca.platforms.base import PlatformInfo
from ttca.preparation import Preparation
from ttca.row import Row
from ttca.signing import CollectiveKey, SignatureError

INFO = PlatformInfo("faces at api.example", ("cat", "dog"), (5, 4, 3), {"url": "https://api.example", "model": "faces"})
RATES = {"abuse_rate": 0.62, "subgroup_before": 0.7, "subgroup_after": 0.97, "jpeg75_control": 0.9}


def made(**changes: Any) -> PerturbationSet:
    """Return a certified set of the platform's."""
    evidence = {"certificate": worlds.certified(99, epsilon=8).to_dict(), "verified": "2026-11-01T00:00:00+00:00"}
    delta = np.random.default_rng(0).integers(-8, 9, (2, 5, 4, 3)).astype(np.int8)
    known = PerturbationSet(
        delta, 8, ("cat", "dog"), "people in fog", INFO.fingerprint, service=INFO.name, evidence=evidence,
        preparation=Preparation(size=(5, 4)),
    )  # fmt: skip
    return replace(known, **changes)


def told(**evidence: Any) -> PerturbationSet:
    """Return the set with more evidence."""
    return made(evidence={**made().evidence, **evidence})


def kinds(path: Path, **how: Any) -> list[str]:
    """Return why the set in a file is doubted."""
    key = how.pop("key", None)
    return [doubt.kind for doubt in doubts(read_set(path, key=key), **how)]


def test_each_doubt_is_found_and_only_it(tmp_path: Path) -> None:
    """No certificate, no or another signature, the date and another platform are each one doubt, all together five."""
    path = tmp_path / "set.safetensors"
    collective, stranger = (CollectiveKey.open_or_make(tmp_path / name) for name in ("collective", "stranger"))
    made().save(path)
    assert kinds(path, platform=INFO) == []
    assert kinds(path, key=collective.public) == ["unsigned"]
    stranger.sign(path, "perturbations")
    assert kinds(path) == []
    assert kinds(path, key=collective.public) == ["another key"]
    assert kinds(path, key=stranger.public) == []
    other = replace(INFO, identity={**INFO.identity, "model": "faces-2"})
    assert kinds(path, platform=other) == ["another platform"]
    for evidence in ({}, {"certificate": worlds.certified(50, epsilon=8).to_dict()}):
        made(evidence=evidence).save(path)
        (tmp_path / "set.safetensors.sig").unlink(missing_ok=True)
        assert kinds(path) == ["not certified"]
    made(expires="2027-01-01T00:00:00+00:00").save(path)
    assert kinds(path, now=datetime(2026, 12, 31, tzinfo=UTC)) == []
    assert kinds(path, now=datetime(2027, 1, 2, tzinfo=UTC)) == ["expired"]
    made(expires="2020-01-01T00:00:00+00:00", evidence={}).save(path)
    every = ["unsigned", "not certified", "expired", "another platform"]
    assert kinds(path, key=collective.public, platform=other) == every
    known = read_set(path, key=collective.public)
    with pytest.raises(SignatureError, match="It is also: not certified, expired, another platform"):
        check_usable(known, platform=other)
    assert [d.kind for d in check_usable(known, platform=other, anyway=True)] == every
    with pytest.raises(PerturbationError, match="ε = 4, got one with ε = 8"):
        check_usable(known, epsilon=4, anyway=True)


def test_a_platform_is_named_and_known_by_each_of_its_fingerprints(tmp_path: Path) -> None:
    """A set of another platform is refused by both names; one whose platform is only read otherwise is not."""
    path = tmp_path / "set.safetensors"
    read = replace(INFO, reading={"scores": "percent"}, former_identity={"url": "HTTPS://api.example/"})
    for fingerprint in (read.fingerprint, read.fingerprint_as_read, read.former_fingerprint):
        made(fingerprint=fingerprint).save(path)
        assert kinds(path, platform=read) == []
    made(fingerprint="0" * 64).save(path)
    for info, sentence in (
        (replace(INFO, name="b at other.example"), "platform b at other.example, got one that was made for faces at"),
        (INFO, "at the same address, but another model, version, size or way of asking"),
    ):
        (doubt,) = doubts(read_set(path), platform=info)
        assert sentence in str(doubt)
    made(fingerprint="0" * 64, service="").save(path)
    assert "does not name (fingerprint 000000000000…)" in str(doubts(read_set(path), platform=INFO)[0])


def test_three_lines_say_it_in_plain_words(tmp_path: Path) -> None:
    """What was measured of JPEG, resizing and abuse is said with its numbers; what was not is said to be unknown."""
    path = tmp_path / "set.safetensors"
    told(**RATES, resize_control=0.81).save(path)
    about, jpeg, abuse = read_set(path).lines()
    assert about == made().about()
    assert jpeg.endswith(
        "Of 100 answers, 97 were right with the PNG, 90 after JPEG of quality 75, 81 after shrinking to half and back "
        "and 70 without the change."
    )
    assert abuse.endswith("the service said that wrong class to 62 of 100.")
    told(**RATES, jpeg_quality=95, jpeg_delta_left=0.834).save(path)
    sent = "The service was asked with JPEG files of quality 95, which leave 83 % of the change. Submit the PNG"
    assert read_set(path).lines()[1].startswith(sent)
    for odd in ({}, dict.fromkeys(RATES), dict.fromkeys(RATES, "lots"), dict.fromkeys(RATES, 7)):
        told(**odd).save(path)
        _, jpeg, abuse = read_set(path).lines()
        assert jpeg.endswith("nobody measured what that leaves of the help.")
        assert "Nobody measured how often" in abuse


def test_all_is_said_in_json_too(tmp_path: Path) -> None:
    """Every fact but δ is there as plain JSON, and a set of an older version has nulls where it says nothing."""
    path = tmp_path / "set.safetensors"
    told(**RATES).save(path)
    CollectiveKey.open_or_make(tmp_path).sign(path, "perturbations")
    said = read_set(path).to_dict()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert (said["service"], said["jpeg75_control"], said["resize_control"]) == (INFO.name, 0.9, None)
    assert said["preparation"] == Preparation(size=(5, 4)).to_dict()
    assert said["verified"] == "2026-11-01T00:00:00+00:00"
    made(service="", preparation=None, evidence={}).save(tmp_path / "old.safetensors")
    old = read_set(tmp_path / "old.safetensors").to_dict()
    assert {name for name, value in old.items() if value is None} == {
        "signature_file", "signed_by", "service", "preparation", "verified", "expires", "certificate", *TOLD
    }  # fmt: skip


def test_what_members_are_told_are_keys_of_the_row() -> None:
    """But for what a service's own JPEG files leave, each is a key of the result row."""
    assert {name for name in TOLD if name not in Row.keys()} == {"jpeg_quality", "jpeg_delta_left"}  # noqa: SIM118


@given(st.dictionaries(st.sampled_from(TOLD), st.none() | st.booleans() | st.floats() | st.text() | st.integers()))
def test_no_evidence_breaks_the_lines(evidence: dict[str, Any]) -> None:
    """Whatever a file says of rates, the lines are sentences, and hold no number that is no rate."""
    from ttca.members_set import MembersSet
    from ttca.signing import Signed

    known = MembersSet(path=Path("x"), perturbations=told(**evidence), signed=Signed(None), sha256="")
    for line in known.lines()[1:]:
        assert line.endswith(".")
        assert "nan" not in line.lower().split()
    assert json.dumps(known.to_dict(), allow_nan=False)


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    """A missing file, a certificate that contradicts itself and a wrong key are each told, whoever insists."""
    with pytest.raises(TTCAError, match=r"none\.safetensors"):
        read_set(tmp_path / "none.safetensors")
    lie = {**worlds.certified(50, epsilon=8).to_dict(), "epsilon": 8, "parity_certified": True}
    made(evidence={"certificate": lie}).save(tmp_path / "lie.safetensors")
    with pytest.raises(PerturbationError, match="contradicts itself"):
        read_set(tmp_path / "lie.safetensors")
    made().save(tmp_path / "set.safetensors")
    with pytest.raises(SignatureError, match="public key"):
        read_set(tmp_path / "set.safetensors", key="mine")

"""Tests of platforms that change: what has changed is named, what it costs is said, and nothing is paid unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.platforms.scripted import METADATA, ScriptedServer, scripted
from tests.pooling.places import BACKENDS, as_version_4, fresh_ledger, reopen, use
from tests.pooling.scripted import CLASSES, IMAGE_SHAPE, ScriptedPlatform, distinct, patient, truth
from ttca.errors import ChangedPlatformError
from ttca.platforms.http import HttpPlatform
from ttca.pooling.leases import LeaseDesk
from ttca.pooling.ledger import Ledger
from ttca.pooling.pool import Member, Pace, QueryPool


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Give an empty ledger on each kind of database."""
    with use(request.param), fresh_ledger() as ledger:
        yield ledger


def version(number: str, **changes: Any) -> ScriptedPlatform:
    """Return a platform of this version."""
    platform = ScriptedPlatform()
    platform._info = replace(platform.info, identity={"model": "scripted", "version": number}, **changes)
    return platform


def pool_on(ledger: Ledger, platform: Any, *, accept: bool = False, action: str | None = "here") -> QueryPool:
    """Return a pool of one patient member."""
    pool = QueryPool(
        platform, ledger, [Member("ada", 50)], pace=Pace(concurrency=1, batch=1, policy=patient()), action=action
    )
    pool.accept_new_version = accept
    return pool


def test_a_new_version_is_named_and_not_paid(ledger: Ledger) -> None:
    """Another version names itself and how many answers it costs; only who accepts it pays, and is asked once."""
    images = distinct(5)
    pool_on(ledger, version("1")).ask(images[:3])
    second = version("2")
    with pytest.raises(
        ChangedPlatformError, match=r"version: '1' before, '2' now\. 3 of 5 images .* paid again"
    ) as told:
        pool_on(ledger, second).ask(images)
    assert "--accept-new-version" in str(told.value)
    assert second.queries == 0
    assert ledger.paid() == {"pool": 3}
    change = pool_on(ledger, second).changed(images)
    assert change is not None
    assert (change.fields, change.again, change.images) == ({"version": ("1", "2")}, 3, 5)
    assert pool_on(ledger, second, accept=True).ask(images) == truth(images)
    assert second.queries == 5
    # Both are known now, and neither is asked about again.
    for platform in (version("1"), version("2")):
        with reopen(ledger) as other:
            pool_on(other, platform).ask(images[:3])
            assert pool_on(other, platform).changed(images) is None
            assert platform.queries == 0


def test_what_costs_nothing_is_no_reason_to_stop(ledger: Ledger) -> None:
    """A new version is asked about new images at once; it is still named when old ones would be paid again."""
    pool_on(ledger, version("1")).ask(distinct(2))
    second = version("2")
    pool_on(ledger, second).ask(distinct(2, start=9))
    assert second.queries == 2
    with pytest.raises(ChangedPlatformError, match="2 of 2 images"):
        pool_on(ledger, second).ask(distinct(2))
    # And what the second one answered counts against a third.
    with pytest.raises(ChangedPlatformError, match="version: '2' before, '3' now"):
        pool_on(ledger, version("3")).ask(distinct(2, start=9))


def test_another_action_is_another_matter(ledger: Ledger) -> None:
    """An action that asks another version from the start is not held up by what others have asked."""
    pool_on(ledger, version("1")).ask(distinct(2))
    second = version("2")
    pool_on(ledger, second, action="elsewhere").ask(distinct(2))
    assert second.queries == 2


def test_another_epoch_is_another_question(ledger: Ledger) -> None:
    """What is asked anew on purpose is not paid again."""
    pool_on(ledger, version("1")).ask(distinct(2))
    second = version("2")
    pool_on(ledger, second).ask(distinct(2), epoch="later")
    assert second.queries == 2


def test_a_reading_that_needs_new_answers_is_named(ledger: Ledger) -> None:
    """Where answers cannot be read again, what is read otherwise is named, with class names among it."""
    pool_on(ledger, version("1", reading={"scores_are": "percent"})).ask(distinct(2))
    other = version("1", reading={"scores_are": "logits"}, classes=("Cat", *CLASSES[1:]))
    with pytest.raises(ChangedPlatformError) as told:
        pool_on(ledger, other).ask(distinct(2))
    assert "classes: 'cat, dog, owl' before, 'Cat, dog, owl' now" in str(told.value)
    assert "scores_are: 'percent' before, 'logits' now. 2 of 2" in str(told.value)
    assert other.queries == 0


def test_a_server_that_names_another_version_is_found_out(tmp_path: Path) -> None:
    """The version is the server's own metadata's: a model that was replaced behind its URL costs nobody anything."""
    shape = {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, *IMAGE_SHAPE]}]}
    with scripted(metadata=METADATA | shape) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:

        def on(server: ScriptedServer, host: str = "127.0.0.1") -> HttpPlatform:
            return HttpPlatform(f"http://{host}:{server.server_port}", classes=CLASSES, model="m")

        with on(server) as platform:
            pool_on(ledger, platform).ask(distinct(2))
        with on(server, "localhost") as platform:
            assert pool_on(ledger, platform).cost(distinct(2)).queries == 0
        server.metadata = METADATA | shape | {"versions": ["8"]}
        with (
            on(server) as platform,
            pytest.raises(ChangedPlatformError, match=r"versions: '7' before, '8' now\. 2 of 2"),
        ):
            pool_on(ledger, platform).ask(distinct(2))
        assert len(server.posts) == 2


def test_an_older_ledger_says_that_it_does_not_know(ledger: Ledger) -> None:
    """Where version 0.1 wrote no platform down, one that none of its answers fits is not paid unasked either."""
    pool_on(ledger, version("1")).ask(distinct(3))
    ledger.database.run(as_version_4, write=True)
    with reopen(ledger) as older:
        second = version("2")
        with pytest.raises(ChangedPlatformError, match=r"an earlier version did not write down. 3 of 3 images"):
            pool_on(older, second).ask(distinct(3))
        assert second.queries == 0
        first = version("1")
        pool_on(older, first).ask(distinct(4))
        assert first.queries == 1
    with reopen(ledger) as older, pytest.raises(ChangedPlatformError, match=r"version: '1' before, '2' now\. 4 of 4"):
        pool_on(older, second).ask(distinct(4))


def test_a_hub_does_not_hand_out_what_was_answered(ledger: Ledger) -> None:
    """A hub whose platform has changed is not opened unless that is meant: its members would pay again."""
    pool_on(ledger, version("1")).ask(distinct(3))
    desk = LeaseDesk(ledger, version("2").info, action="here")
    with pytest.raises(ChangedPlatformError, match=r"version: '1' before, '2' now\. 3 of 4 images"):
        desk.load(distinct(4), ["ada"] * 4)
    assert desk.progress().inputs == 0
    assert desk.load(distinct(4), ["ada"] * 4, accept_new_version=True) == 4


def test_what_a_platform_says_of_itself_is_shown_as_text(ledger: Ledger) -> None:
    """A version that a stranger's server makes up reaches nobody's terminal with its control characters."""
    pool_on(ledger, version("1")).ask(distinct(1))
    with pytest.raises(ChangedPlatformError) as told:
        pool_on(ledger, version("\x1b[31m" + json.dumps({"a": "b"}) + "x" * 500)).ask(distinct(1))
    assert "\x1b" not in str(told.value)
    assert len(str(told.value)) < 500

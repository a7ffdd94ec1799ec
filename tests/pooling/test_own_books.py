"""Tests of what a member's machine keeps: its own books over runs and kills, and replies until the hub has them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from tests.pooling.anyhub import AnyHub, any_hub
from tests.pooling.scripted import ScriptedPlatform, distinct, hard_at_work, transport_error, truth
from tests.programs import Programs, environment
from ttca.answers import Answers
from ttca.config import read_contribution
from ttca.errors import ChargeState, ConfigError, DataError, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, Transport
from ttca.pooling.contribute import Contribution
from ttca.pooling.hub_client import HubError
from ttca.pooling.ledger import Ledger

TOKEN = "tok-4f9ZQ7e21-not-for-eyes"
Member = Callable[..., Contribution]


@pytest.fixture
def hub(running: tuple[str, AnyHub]) -> AnyHub:
    """Return the hub as it was at first, for a member who can pay 100."""
    running[1].reset()
    running[1].me["remaining"] = 100
    return running[1]


@pytest.fixture
def member(running: tuple[str, AnyHub], hub: AnyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    """Give a function that contributes in one folder, run after run."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)

    def run(platform: ScriptedPlatform | None = None, **more: Any) -> Contribution:
        options: dict[str, Any] = {"size": 3, "concurrency": 1, "folder": tmp_path / "kept", **more}
        return hard_at_work(running[0], platform or ScriptedPlatform(), **options)

    return run


def undelivered(tmp_path: Path, ending: str = "json") -> list[Path]:
    """Return what waits for the hub."""
    return list((tmp_path / "kept" / "undelivered").glob(f"*.{ending}"))


# -- the member's own books ---------------------------------------------------------------------------------------


def test_most_queries_holds_over_several_runs(hub: AnyHub, member: Member) -> None:
    """The limit is of all runs together, under whatever name the hub knows the member; raising it lets one go on."""
    sent = []
    for name, most in (("ada", 7), ("ada", 7), ("eve", 7), ("ada", 9)):
        hub.me = {"member": name, "remaining": 4}
        platform = ScriptedPlatform()
        done = member(platform, most_queries=most)
        assert done.queries == platform.queries
        sent.append(done.queries)
    assert sent == [4, 3, 0, 2]
    assert done.ended == "You set most_queries = 9; all 9 are sent."


def test_the_day_rate_holds_over_several_runs(hub: AnyHub, member: Member) -> None:
    """per_day is a sliding window of the member's own: what is left waits, is told, and a day later may be sent."""
    now = 1e9
    sent = []

    def clock() -> float:
        return now

    for later in (0.0, 3600.0, 80_000.0, 3000.0):
        now += later
        platform = ScriptedPlatform()
        done = member(platform, per_day=5, clock=clock)
        assert platform.queries == done.queries
        assert done.ended.startswith("You set per_day, and it is used up. Run this again after ")
        assert done.come_back_s is not None
        assert 0 < done.come_back_s <= 86_400
        sent.append(done.queries)
    assert sent == [5, 0, 0, 5]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    now += 86_390.0
    hub.me["remaining"] = 5
    assert member(ScriptedPlatform(), per_day=5, clock=clock, sleep=sleep).queries == 5
    assert sum(slept) == pytest.approx(10.0, abs=1.0)


def test_several_threads_keep_to_the_day_rate(member: Member) -> None:
    """Four threads at once send no more than the day allows, all of it."""
    platform = ScriptedPlatform()
    assert member(platform, per_day=17, size=5, concurrency=4).queries == platform.queries == 17


def test_refunds_give_room_and_unknown_ones_do_not(tmp_path: Path, member: Member) -> None:
    """Over several runs, what was surely not processed does not count, and what may have been does."""

    def failing(number: int, images: Images) -> Answers:
        raise transport_error(ChargeState.REFUNDED if number == 0 else ChargeState.UNKNOWN, retryable=False)

    for expected in (0, 3, 6):
        script = failing if expected == 0 else (lambda _n, i: failing(1, i))
        with pytest.raises(TransportError):
            member(ScriptedPlatform(script), most_queries=8)
        with Ledger(tmp_path / "kept" / "ledger.sqlite") as ledger:
            assert ledger.balances("me")[0].unknown == expected
    assert member(most_queries=8).queries == 2


def test_another_program_of_the_member_may_spend_first(tmp_path: Path, hub: AnyHub, member: Member) -> None:
    """A lease whose queries can no longer be paid goes back unasked, and the run ends with the reason."""

    def spend(wish: dict[str, Any]) -> Any:
        with Ledger(tmp_path / "kept" / "ledger.sqlite") as ledger:
            ledger.charge("me", [os.urandom(32) for _ in range(5)], request_id="r", number=1, purpose="contribution")
        return hub.lease(wish)

    hub.given = spend
    platform = ScriptedPlatform()
    done = member(platform, most_queries=5)
    assert done.queries == platform.queries == 0
    assert done.ended == "You set most_queries = 5; all 5 are sent."
    assert hub.brought[0][1] == {"charge": "refunded", "detail": "not sent"}


@pytest.mark.parametrize("wrong", [{"most_queries": 0}, {"per_day": 0}, {"per_day": -1}, {"most_queries": 2**63}])
def test_limits_are_counts(wrong: dict[str, int], hub: AnyHub, member: Member) -> None:
    """A limit below one, or that no database holds, is a sentence before the hub is asked."""
    with pytest.raises(ConfigError, match=f"Expected {next(iter(wrong))} of at least 1"):
        member(**wrong)
    assert hub.paths == []


# -- replies that could not be delivered ----------------------------------------------------------------------------


@pytest.mark.parametrize("brings", ["answers", "failure"])
def test_what_could_not_be_delivered_is_delivered_first(
    brings: str, hub: AnyHub, member: Member, tmp_path: Path
) -> None:
    """A hub that goes away between asking and delivering gets the very same reply at the next run, before a lease."""

    def away(_number: int, images: Images) -> Answers:
        hub.status = 503
        if brings == "failure":
            raise transport_error(ChargeState.UNKNOWN, status=500)
        return truth(images)

    platform = ScriptedPlatform(away)
    with pytest.raises(HubError, match=r"1 reply to the hub could not be delivered and is kept in .*; run this again"):
        member(platform)
    assert platform.queries == 3
    ((path, lost),) = hub.brought
    assert path.endswith(brings)
    assert len(undelivered(tmp_path)) == 1
    with pytest.raises(HubError, match=r"No query was sent\. 1 reply to the hub"):
        member()
    hub.status = 200
    hub.paths.clear()
    hub.brought.clear()
    assert member(most_queries=5).queries == 2
    assert hub.paths[0] == path
    assert hub.brought[0] == (path, lost)
    assert hub.paths.index("/v1/leases") > 0
    assert undelivered(tmp_path) == []


#: Contributes with a platform that may kill its own process.
DYING = """
import os, pathlib, signal, sys
from tests.pooling.scripted import ScriptedPlatform, distinct, hard_at_work, truth
pathlib.Path("pid").write_text(str(os.getpid()))
def script(number, images):
    if sys.argv[2] == "asking" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return truth(images)
hard_at_work(sys.argv[1], ScriptedPlatform(script), folder=pathlib.Path("kept"), size=3, concurrency=1, most_queries=8)
"""


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    """Give what starts a program of its own, with a token."""
    with Programs(environment(TTCA_HUB_X=TOKEN)) as started:
        yield started


@pytest.mark.e2e
@pytest.mark.parametrize("while_", ["asking", "delivering"])
def test_a_killed_member_keeps_its_books_and_its_replies(
    while_: str, running: tuple[str, AnyHub], hub: AnyHub, member: Member, programs: Programs, tmp_path: Path
) -> None:
    """After kill -9 what may have been sent counts, and answers that the hub never took are delivered first."""

    def kill(_path: str) -> None:
        if while_ == "delivering" and len(hub.brought) == 2:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    hub.meet = kill
    assert programs.run([running[0], while_], tmp_path, code=DYING).returncode == -signal.SIGKILL
    hub.meet = lambda _path: None
    lost = [] if while_ == "asking" else hub.brought[1:]
    hub.brought.clear()
    # Six of eight went out, or may have.
    assert member(most_queries=8).queries == 2
    assert hub.brought[: len(lost)] == lost
    assert len(hub.brought) == len(lost) + 1


def test_a_reply_that_is_refused_for_good_stands_in_nobodys_way(hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """A lease that the hub no longer knows is set aside with a sentence; the next run goes on."""

    def forgetting(_number: int, images: Images) -> Answers:
        hub.status = 404
        return truth(images)

    with pytest.raises(HubError, match=r"What it refused is kept in .*\.refused\. Queries sent: 3"):
        member(ScriptedPlatform(forgetting))
    hub.status = 200
    assert undelivered(tmp_path) == []
    assert len(undelivered(tmp_path, "refused")) == 1
    assert member(most_queries=5).queries == 2


def test_replies_for_another_hub_are_left_for_it(hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """What one hub is owed goes to no other."""
    kept = tmp_path / "kept" / "undelivered"
    kept.mkdir(parents=True)
    said = {"hub": "https://other.example.org", "path": "/v1/leases/x/answers", "body": {"answers": []}}
    (kept / "x.json").write_text(json.dumps(said))
    assert member(most_queries=1).queries == 1
    assert [path for path, _ in hub.brought if "/x/" in path] == []
    assert (kept / "x.json").is_file()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"hub": 1, "path": 2, "body": 3}', '{"a": 1, "a": 1}'])
def test_a_kept_file_that_is_no_reply_is_a_sentence(text: str, hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """A file that was changed is named, and nothing is sent or leased."""
    kept = tmp_path / "kept" / "undelivered"
    kept.mkdir(parents=True)
    (kept / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"Expected a reply to a hub in .*x\.json"):
        member()
    assert hub.paths == []


def test_where_nothing_can_be_kept_it_is_delivered_all_the_same(hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """A folder that is gone, or a disk that is full, loses no answer while the hub is there."""

    def removing(_number: int, images: Images) -> Answers:
        shutil.rmtree(tmp_path / "kept" / "undelivered", ignore_errors=True)
        return truth(images)

    assert member(ScriptedPlatform(removing), most_queries=6).answered == 6
    assert len(hub.brought) == 2


def test_nobody_else_reads_what_is_kept(hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """Answers about other people lie in files of this user alone."""

    def away(_number: int, images: Images) -> Answers:
        hub.status = 503
        return truth(images)

    with pytest.raises(HubError):
        member(ScriptedPlatform(away))
    (file,) = undelivered(tmp_path)
    assert file.stat().st_mode & 0o077 == file.parent.stat().st_mode & 0o077 == 0


def test_who_is_interrupted_does_not_wait_for_a_hub_that_is_away(hub: AnyHub, member: Member, tmp_path: Path) -> None:
    """After Ctrl-C the answers in flight are kept for the next run, however patient the member is otherwise."""

    def away(_number: int, images: Images) -> Answers:
        hub.status = 503
        os.kill(os.getpid(), signal.SIGINT)
        return truth(images)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            member(ScriptedPlatform(away), hub_away_s=300.0, sleep=None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 60
    assert len(undelivered(tmp_path)) == 1


# -- the token, and certificates ------------------------------------------------------------------------------------


def test_a_token_may_be_bound_to_its_host(hub: AnyHub, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """`host token` goes to that host, without the host; to another host nothing goes, and no value is shown."""
    monkeypatch.setenv("TTCA_HUB_X", f"127.0.0.1 {TOKEN}")
    assert member(most_queries=1).queries == 1
    assert hub.tokens == {f"Bearer {TOKEN}"}
    hub.paths.clear()
    for value, said in (
        (f"hub.example.org {TOKEN}", "bound to 127.0.0.1, got one bound to another host"),
        (f"a b {TOKEN}", "Expected TTCA_HUB_X to hold a host and the token for it"),
        (f"127.0.0.1 {TOKEN}ü", "in visible ASCII"),
        (f"127.0.0.1 '{TOKEN}'", "got one within quotes"),
        ("127.0.0.1 abc", "Copy all of it"),
        ("", "to hold a token, got none"),
    ):
        monkeypatch.setenv("TTCA_HUB_X", value)
        with pytest.raises(ConfigError, match=said) as caught:
            member()
        assert TOKEN not in str(caught.value)
    assert hub.paths == []


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a collective's own authority."""
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority: trustme.CA) -> Iterator[tuple[str, AnyHub]]:
    """Serve a hub with a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with any_hub(context) as served:
        yield served


def never(_seconds: float) -> None:
    """Fail a test that waits."""
    raise AssertionError("waited")


def test_a_hubs_certificate_that_cannot_be_verified_ends_at_once(
    secured: tuple[str, AnyHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However patient the member is, nothing is tried again, no token goes out, and the sentence says what to do."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)
    url, hub = secured
    hub.reset()
    with pytest.raises(HubError) as caught:
        hard_at_work(url, ScriptedPlatform(), hub_away_s=300.0, sleep=never)
    assert "a certificate that cannot be verified (" in str(caught.value)
    assert 'name the file in [contribute]: ca = "file.pem"' in str(caught.value)
    assert "Is it running?" not in str(caught.value)
    assert caught.value.__context__ is None
    assert hub.paths == []


def test_a_collectives_own_authority_is_believed(
    secured: tuple[str, AnyHub], authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `ca` in [contribute], named beside the member's file, the hub is asked; with another's it is not."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)
    url, hub = secured
    hub.reset()
    authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "theirs.pem"))
    for name, believed in (("ours.pem", True), ("theirs.pem", False)):
        (tmp_path / "ada.toml").write_text(
            f'[contribute]\nhub = "{url}"\ntoken_variable = "TTCA_HUB_X"\nca = "{name}"\n'
            f'[platform]\nurl = "{url}"\nmodel = "m"\nclasses = ["a", "b"]\nca = "{name}"\n'
        )
        mine = read_contribution(tmp_path / "ada.toml")
        access, platform = mine.contribute.access(), mine.platform.open()
        options: dict[str, Any] = {"ca": access.ca, "most_queries": 1}
        if believed:
            assert hard_at_work(access.url, ScriptedPlatform(), **options).queries == 1
        else:
            with pytest.raises(HubError, match="cannot be verified"):
                hard_at_work(access.url, ScriptedPlatform(), **options)
        # The hub is no platform; but it can be talked to, or not.
        with platform, pytest.raises((TransportError, ConfigError)) as caught:
            _ = platform.info
        assert ("cannot be verified" in str(caught.value)) is not believed


def test_a_platforms_certificate_that_cannot_be_verified_says_what_to_do(secured: tuple[str, AnyHub]) -> None:
    """The sentence names `ca` in [platform]; nothing was sent, and nothing is tried again."""
    with HttpPlatform(secured[0], classes=("a", "b"), model="m") as platform, pytest.raises(TransportError) as caught:
        platform.attempt(distinct(1), Credential("ada"), request_id="r")
    assert 'name the file in [platform]: ca = "file.pem"' in str(caught.value)
    assert caught.value.charge is ChargeState.REFUNDED
    assert not caught.value.retryable


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_that_is_no_authority_is_a_sentence(content: str | None, tmp_path: Path) -> None:
    """A missing or empty PEM file is named before anything is sent."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="Expected ca to be a PEM file"):
        Transport(ca=str(file))


def test_requests_really_check(secured: tuple[str, AnyHub]) -> None:
    """The hub of these tests is not one whom everybody believes."""
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(secured[0], timeout=5)

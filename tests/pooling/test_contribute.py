"""Tests of a member's machine against hubs that say anything: its limits hold, and no secret is shown."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from rich.console import Console

from tests.examples import examples
from tests.pooling.anyhub import AnyHub, png
from tests.pooling.scripted import ScriptedPlatform, distinct, hard_at_work, transport_error, truth
from ttca.answers import Answers
from ttca.config import read_contribution
from ttca.errors import ChargeState, ConfigError, TransportError, Trouble, TTCAError
from ttca.images import Images
from ttca.pooling.contribute import Contribution
from ttca.pooling.hub_client import MOST_QUERIES, HubError
from ttca.progress import Reporter
from ttca.signing import CollectiveKey, SignatureError, lease_bytes

TOKEN = "tok-4f9ZQ7e21-not-for-eyes"
DONE = {"lease": None, "done": True}


@pytest.fixture
def hub(running: tuple[str, AnyHub]) -> AnyHub:
    """Return the hub as it was at first."""
    running[1].reset()
    return running[1]


@pytest.fixture
def member(running: tuple[str, AnyHub], hub: AnyHub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Contribution]:
    """Give a function that contributes to the hub that says anything."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)

    def run(platform: ScriptedPlatform, **more: Any) -> Contribution:
        return hard_at_work(running[0], platform, token_variable="TTCA_HUB_X", **more)

    return run


# -- a member's key has its own limit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most_queries", "remaining", "limit", "ended"),
    [
        (None, 10, 10, "The hub said you can pay 10; all 10 are sent."),
        (7, 10, 7, "You set most_queries = 7; all 7 are sent."),
        (10, 10, 10, "You set most_queries = 10; all 10 are sent."),
        (70, 10, 10, "The hub said you can pay 10; all 10 are sent."),
        (1, 10, 1, "You set most_queries = 1; that one is sent."),
        (3, 0, 0, "The hub said you can pay 0; nothing was sent."),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_is_sent_than_allowed(
    most_queries: int | None,
    remaining: int,
    limit: int,
    ended: str,
    concurrency: int,
    hub: AnyHub,
    member: Callable[..., Contribution],
) -> None:
    """A hub that hands out leases for ever gets what the member set and it said at first, by all threads together."""
    hub.me["remaining"] = remaining
    platform = ScriptedPlatform()
    done = member(platform, most_queries=most_queries, size=3, concurrency=concurrency)
    assert platform.queries == done.queries == done.answered == limit
    assert sum(hub.asked) == limit
    assert done.ended == ended


def test_a_larger_figure_that_comes_later_changes_nothing(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """What the hub says of the account while the run goes on is not believed, nor asked for."""

    def given(wish: dict[str, Any]) -> dict[str, Any]:
        hub.me = {"member": "ada", "remaining": 10_000}
        return hub.lease(wish, remaining=10_000)

    hub.given = given
    platform = ScriptedPlatform()
    assert member(platform, size=4).queries == platform.queries == 10
    assert hub.paths.count("/v1/me") == 1


def test_what_a_lease_does_not_use_is_given_back(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """Leases smaller than asked for, as audits are, still bring a run to its whole limit."""
    hub.given = lambda wish: hub.lease({**wish, "size": min(2, wish["size"])})
    platform = ScriptedPlatform()
    assert member(platform, size=16, concurrency=4).queries == platform.queries == 10


def test_what_was_surely_not_processed_is_given_back(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """Refused requests do not count, and only they: exactly the limit is answered."""

    def refusing(number: int, images: Images) -> Answers:
        if number % 2 == 0:
            raise transport_error(ChargeState.REFUNDED, status=429)
        return truth(images)

    platform = ScriptedPlatform(refusing)
    done = member(platform, size=3, concurrency=2)
    assert done.queries == done.answered == 10
    assert platform.queries > 10


def test_a_platform_that_restarts_is_waited_for(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """Connections refused after an answer cost nothing and end nothing until the platform was away too long."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def away_until(back_s: float) -> ScriptedPlatform:
        def restarting(number: int, images: Images) -> Answers:
            if number > 0 and now[0] < back_s:
                error = transport_error(ChargeState.REFUNDED)
                error.trouble = Trouble.UNREACHABLE
                raise error
            return truth(images)

        return ScriptedPlatform(restarting)

    done = member(away_until(9.0), size=3, concurrency=1, sleep=sleep, clock=lambda: now[0])
    assert done.queries == done.answered == 10
    now[0] = 0.0
    with pytest.raises(TransportError):
        member(away_until(500.0), size=3, concurrency=1, sleep=sleep, clock=lambda: now[0])
    assert 120.0 <= now[0] <= 126.0


def test_what_may_have_been_processed_counts(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """A request whose fate nobody knows is spent: no more than the limit goes out."""

    def losing(number: int, images: Images) -> Answers:
        if number % 2 == 0:
            raise transport_error(ChargeState.UNKNOWN, status=500)
        return truth(images)

    platform = ScriptedPlatform(losing)
    done = member(platform, size=3, concurrency=1)
    assert done.queries == platform.queries == 10
    assert done.answered < 10


def test_a_lease_of_more_than_asked_for_is_not_sent(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """A hub that adds an image to a lease ends the run, and the platform gets nothing of it."""
    hub.given = lambda wish: hub.lease({**wish, "size": wish["size"] + 1})
    platform = ScriptedPlatform()
    with pytest.raises(HubError, match=r"Expected images from the hub as 1 to 4 images.*No query was sent\."):
        member(platform, size=4)
    assert platform.attempts == []


def test_an_error_says_what_was_sent(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """A run that ends in an error says how many queries went out and how many were answered."""

    def failing(number: int, images: Images) -> Answers:
        if number > 1:
            raise transport_error(ChargeState.UNKNOWN, status=500)
        return truth(images)

    hub.me["remaining"] = 100
    with pytest.raises(TransportError, match=r"Queries sent: 10, of which 4 were answered\."):
        member(ScriptedPlatform(failing), size=2, concurrency=1)


def test_an_interrupted_run_says_what_was_sent(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """After Ctrl-C, a sentence says what the member's key paid for."""

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    hub.given = lambda wish: hub.lease(wish) if len(hub.asked) == 1 else {"lease": None}
    said = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        member(
            ScriptedPlatform(),
            size=2,
            concurrency=1,
            sleep=interrupted,
            reporter=Reporter(Console(file=said, width=99)),
        )
    assert "Interrupted. Queries sent: 2, of which 2 were answered." in said.getvalue()


@pytest.mark.parametrize("most", [0, -3])
def test_a_limit_below_one_is_refused(most: int, hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """most_queries is a whole number of at least 1, checked before the hub is asked anything."""
    with pytest.raises(ConfigError, match="most_queries of at least 1"):
        member(ScriptedPlatform(), most_queries=most)
    assert hub.paths == []


def test_a_members_file_sets_the_limit(tmp_path: Any) -> None:
    """[contribute] takes most_queries, and nothing but a whole number."""
    text = '[contribute]\nhub = "http://127.0.0.1:1"\ntoken_variable = "TTCA_HUB_X"\n{}\n[platform]\n'
    text += 'url = "http://127.0.0.1:1"\nmodel = "m"\nclasses = ["a", "b"]\n'
    (tmp_path / "mine.toml").write_text(text.format("most_queries = 12"))
    assert read_contribution(tmp_path / "mine.toml").contribute.most_queries == 12
    for wrong in ("1.5", "true", '"12"'):
        (tmp_path / "mine.toml").write_text(text.format(f"most_queries = {wrong}"))
        with pytest.raises(ConfigError, match="most_queries"):
            read_contribution(tmp_path / "mine.toml")


# -- whose leases they are --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> CollectiveKey:
    """Return the collective's key."""
    return CollectiveKey.open_or_make(tmp_path_factory.mktemp("collective"))


def signed(lease: dict[str, Any], key: CollectiveKey, /, **changes: Any) -> dict[str, Any]:
    """Return a lease with the signature of a key; ``changes`` are made to what is signed."""
    said = {"lease": lease["lease"], "fingerprint": ScriptedPlatform().info.fingerprint, "images": lease["images"]}
    content = lease_bytes(**{**said, **changes})
    return {**lease, "signature": key.signature_of(content, "lease")}


def test_signed_leases_are_asked(hub: AnyHub, member: Callable[..., Contribution], key: CollectiveKey) -> None:
    """A member who knows the collective's key works for a hub that signs with it."""
    hub.given = lambda wish: signed(hub.lease(wish), key)
    platform = ScriptedPlatform()
    assert member(platform, hub_key=f" {key.public} ", size=3).answered == platform.queries == 10


FORGED: dict[str, Callable[[dict[str, Any], CollectiveKey, CollectiveKey], dict[str, Any]]] = {
    "none": lambda lease, _key, _other: lease,
    "null": lambda lease, _key, _other: {**lease, "signature": None},
    "another key's": lambda lease, _key, other: signed(lease, other),
    "of another lease": lambda lease, key, _other: signed(lease, key, lease="A" * 22),
    "of another platform": lambda lease, key, _other: signed(lease, key, fingerprint="f" * 64),
    "of fewer images": lambda lease, key, _other: signed(lease, key, images=lease["images"][1:]),
    "of another order": lambda lease, key, _other: signed(lease, key, images=lease["images"][::-1]),
    "handed out before": lambda lease, key, _other: signed({**lease, "lease": "A" * 22}, key),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_lease_that_the_collective_did_not_sign_is_not_asked(
    what: str,
    hub: AnyHub,
    member: Callable[..., Contribution],
    key: CollectiveKey,
    tmp_path: Any,
) -> None:
    """Nothing of a lease without the right signature reaches the platform, and the hub is told it cost nothing."""
    other = CollectiveKey.open_or_make(tmp_path)
    hub.given = lambda wish: FORGED[what](hub.lease(wish), key, other)
    platform = ScriptedPlatform()
    with pytest.raises(SignatureError, match=r"Expected a lease signed with hub_key.*No query was sent\."):
        member(platform, hub_key=key.public, size=3, concurrency=1)
    assert platform.attempts == []
    assert hub.paths[-1].endswith("/failure")


@pytest.mark.parametrize("wrong", [7, ["s"], "", {}])
def test_a_signature_that_is_no_text_is_a_sentence(
    wrong: Any, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """A field signature of another kind is refused like any other field, by who knows no key too."""
    hub.given = lambda wish: hub.lease(wish, signature=wrong)
    with pytest.raises(HubError, match="Expected signature from the hub as text"):
        member(ScriptedPlatform())


def test_a_members_file_names_the_key(tmp_path: Any, key: CollectiveKey) -> None:
    """[contribute] takes hub_key, a public key and nothing else; nothing was sent then."""
    text = '[contribute]\nhub = "http://127.0.0.1:1"\ntoken_variable = "TTCA_HUB_X"\nhub_key = "{}"\n[platform]\n'
    text += 'url = "http://127.0.0.1:1"\nmodel = "m"\nclasses = ["a", "b"]\n'
    (tmp_path / "mine.toml").write_text(text.format(key.public + " "))
    assert read_contribution(tmp_path / "mine.toml").contribute.hub_key == key.public
    (tmp_path / "mine.toml").write_text(text.format("ttca-ed25519:..."))
    with pytest.raises(SignatureError, match="Copy it whole from the invitation"):
        read_contribution(tmp_path / "mine.toml")


# -- a hub's word is checked before it is used ------------------------------------------------------------------

WRONG_ACCOUNTS = [
    ({"member": "ada"}, "remaining"),
    ({"member": "ada", "remaining": "10"}, "remaining"),
    ({"member": "ada", "remaining": True}, "remaining"),
    ({"member": "ada", "remaining": -1}, "remaining"),
    ({"member": "ada", "remaining": 2.5}, "remaining"),
    ({"member": "ada", "remaining": math.nan}, "remaining"),
    ({"member": "ada", "remaining": 10**30}, "remaining"),
    ({"remaining": 10}, "member"),
    ({"member": "", "remaining": 10}, "member"),
    ({"member": 7, "remaining": 10}, "member"),
    ({"member": "\x1b[31mada", "remaining": 10}, "member"),
    ({"member": TOKEN + "\n", "remaining": 10}, "member"),
]


@pytest.mark.parametrize(("me", "field"), WRONG_ACCOUNTS)
def test_an_account_that_cannot_be_is_a_sentence(
    me: dict[str, Any], field: str, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """A field of /v1/me that is missing or wrong is named, neither value nor token is shown, and nothing is sent."""
    hub.me = me
    platform = ScriptedPlatform()
    with pytest.raises(HubError, match=f"Expected {field} from the hub") as caught:
        member(platform)
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()
    assert platform.attempts == []


@pytest.mark.parametrize("fingerprint", [None, 7, "", ["a"]])
def test_a_fingerprint_that_is_none_is_a_sentence(
    fingerprint: Any, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """A hub that does not say which platform it is about is refused before any query."""
    hub.action = {"name": "x", "fingerprint": fingerprint}
    with pytest.raises(HubError, match="Expected fingerprint from the hub"):
        member(ScriptedPlatform())


WRONG_WAITS: tuple[object, ...] = (math.nan, math.inf, -1, -0.5, 1e308, "soon", True, [], 10**400)
WRONG_LEASES: list[tuple[dict[str, Any], str]] = [
    *(
        ({"lease": name}, "lease")
        for name in (
            "../me",
            "a/b",
            "a?b",
            "a#b",
            "",
            "x" * 65,
            "a\r\nb",
            "a\x00b",
            "ä",
            7,
            True,
            ["a"],
            "a b\n",
            "a\n",
        )
    ),
    *(({"images": images}, "images") for images in (None, [], "abc", [7], [None], {"a": "b"}, ["a"] * 9)),
    ({"images": ["no base64!"]}, "PNG images"),
    ({"images": [base64.b64encode(b"no PNG").decode()]}, "PNG images"),
    ({"expires_at": "soon"}, "expires_at"),
    ({"expires_at": math.nan}, "expires_at"),
    ({"lease": None, "done": "no"}, "done"),
    ({"lease": None, "done": 1}, "done"),
    *(({"lease": None, "done": False, "retry_after": wait}, "retry_after") for wait in WRONG_WAITS),
]


@pytest.mark.parametrize(("changes", "field"), WRONG_LEASES)
def test_a_lease_that_cannot_be_is_a_sentence(
    changes: dict[str, Any], field: str, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """A field of a lease that is missing or wrong is named; no path is made of it, and the platform gets no query."""
    hub.given = lambda wish: hub.lease(wish, **changes)
    platform = ScriptedPlatform()
    with pytest.raises(HubError, match=f"Expected {field}"):
        member(platform, size=8, concurrency=1)
    assert platform.attempts == []
    assert all(p in ("/v1/action", "/v1/me", "/v1/leases") or p.endswith("/failure") for p in hub.paths)


def test_a_hub_that_asks_for_a_long_wait_is_not_asked_again(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """A wait beyond the longest ends the run in peace, and says when to come back."""
    hub.given = lambda _wish: {"lease": None, "done": False, "retry_after": 7200}
    done = member(ScriptedPlatform(), longest_wait_s=60.0, concurrency=1)
    assert "Run this again after" in done.ended
    assert len(hub.asked) == 1


OUT = "All that is left is out with members, perhaps with a run of yours that was stopped. What does not come back"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"lease": None, "retry_after": 1, "free_in": 96.7}, f"{OUT} is free again in at most 97 s."),
        ({"lease": None, "retry_after": 1}, f"{OUT} is free again."),
        (
            {"error": "Expected at most 8 queries out with you, got 16. Wait.", "kind": "rate"},
            "says: Expected at most 8 queries out with you, got 16. Wait.",
        ),
    ],
)
@pytest.mark.parametrize("polls", [4, 5, 9])
def test_a_wait_for_the_hub_is_told_once(
    said: dict[str, Any], told: str, polls: int, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """Where the hub has nothing for a while the member hears why and how long at most; a short wait says nothing."""

    def given(wish: dict[str, Any]) -> Any:
        hub.status, hub.headers = 200, {}
        if len(hub.asked) <= polls:
            if "error" in said:
                hub.status, hub.headers = 429, {"Retry-After": "1"}
            return said
        return hub.lease(wish) if len(hub.asked) == polls + 1 else DONE

    hub.given, slept, lines = given, list[float](), io.StringIO()
    done = member(
        ScriptedPlatform(), size=2, concurrency=1, sleep=slept.append,
        reporter=Reporter(Console(file=lines, width=999)),
    )  # fmt: skip
    assert (done.answered, len(slept)) == (2, polls)
    assert [line for line in lines.getvalue().splitlines() if "Waiting" in line and told in line] == [
        line for line in lines.getvalue().splitlines() if "Waiting for the hub." in line
    ]
    assert lines.getvalue().count("Waiting for the hub.") == (polls >= 5)


def test_a_hub_that_is_away_is_told_once_and_its_return_too(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """However often it is tried again, one line says that the hub is away, and one that it is back."""
    lines, slept = io.StringIO(), list[float]()

    def back(seconds: float) -> None:
        slept.append(seconds)
        hub.status = 503 if len(slept) < 4 else 200

    hub.status, hub.given = 503, lambda wish: DONE
    member(
        ScriptedPlatform(),
        concurrency=1,
        hub_away_s=60.0,
        sleep=back,
        reporter=Reporter(Console(file=lines, width=999)),
    )
    said = [line for line in lines.getvalue().splitlines() if "The hub at " in line]
    assert len(slept) == 4
    assert "Trying again for up to" in said[0]
    assert said[1:] == [said[1]]
    assert said[1].endswith(" is back.")


def test_a_server_that_is_no_hub_is_named(hub: AnyHub, member: Callable[..., Contribution]) -> None:
    """What another server says of a page that it does not have is not called the hub's word."""
    hub.status, hub.action = 404, {"error": "Not Found"}
    with pytest.raises(HubError, match="knows no /v1/action"):
        member(ScriptedPlatform())


def test_a_hub_without_tls_is_not_waited_for(
    running: tuple[str, AnyHub], monkeypatch: pytest.MonkeyPatch, hub: AnyHub
) -> None:
    """https:// where a hub speaks http is one sentence at once."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)
    url, slept = running[0].replace("http://", "https://"), list[float]()
    with pytest.raises(HubError, match="an answer without TLS"):
        hard_at_work(url, ScriptedPlatform(), token_variable="TTCA_HUB_X", sleep=slept.append)
    assert slept == []


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize(
    "body",
    [
        {"error": f"\x1b]0;owned\x07\x1b[2J{TOKEN}\r\n" + "x" * 5000, "kind": ["quota"]},
        {"error": {"a": TOKEN}, "kind": None},
        {"error": 7},
        [TOKEN],
        b"\xff\x00<html>",
        b"",
        b"[" * 100_000,
    ],
)
def test_a_hubs_error_is_shown_without_escapes_and_tokens(
    status: int, body: Any, hub: AnyHub, member: Callable[..., Contribution]
) -> None:
    """What a hub says of an error is one printable line without the token, whatever it sent."""
    hub.status, hub.action = status, body
    with pytest.raises(HubError, match=r"^The hub at http://127\.0\.0\.1:\d+ says: ") as caught:
        member(ScriptedPlatform())
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


def test_no_exception_of_the_transport_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is away leaves no chained exception, which would hold the request and its token."""
    monkeypatch.setenv("TTCA_HUB_X", TOKEN)
    with pytest.raises(HubError) as caught:
        hard_at_work("http://127.0.0.1:1", ScriptedPlatform())
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    frame = caught.tb
    while frame is not None:
        if "ttca" in frame.tb_frame.f_code.co_filename and "tests" not in frame.tb_frame.f_code.co_filename:
            assert TOKEN not in repr(frame.tb_frame.f_locals), frame.tb_frame.f_code.co_name
        frame = frame.tb_next  # type: ignore[assignment]


WORDS = st.sampled_from(
    ["lease", "images", "done", "retry_after", "expires_at", "member", "remaining", "error", "kind"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.floats() | st.text(max_size=8) | st.just(TOKEN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=8,
)
IMAGES = st.lists(st.just(png(distinct(1)[0])) | st.text(max_size=4), max_size=MOST_QUERIES)
LEASES = st.fixed_dictionaries(
    {},
    optional={
        "lease": st.none() | st.text(max_size=10) | st.from_regex(r"[A-Za-z0-9_/.-]{1,20}", fullmatch=True) | ANYTHING,
        "images": st.just([png(i) for i in distinct(3)]) | IMAGES | ANYTHING,
        "done": st.booleans() | ANYTHING,
        "retry_after": st.floats() | ANYTHING,
        "expires_at": st.floats() | ANYTHING,
    },
)
ACCOUNTS = st.fixed_dictionaries(
    {}, optional={"member": st.just("ada") | ANYTHING, "remaining": st.integers(-2, 20) | ANYTHING}
)


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    me=ACCOUNTS | ANYTHING,
    leases=st.lists(LEASES | ANYTHING, max_size=6),
    most=st.none() | st.integers(1, 8),
    status=st.sampled_from([200, 200, 200, 403, 503]),
)
def test_whatever_a_hub_says(
    me: Any,
    leases: list[Any],
    most: int | None,
    status: int,
    hub: AnyHub,
    member: Callable[..., Contribution],
) -> None:
    """Any JSON as account and leases ends in a TTCAError without the token or in peace, and within the limit."""
    hub.reset()
    hub.me = me
    left = [*leases, DONE]

    def given_next(wish: dict[str, Any]) -> Any:
        hub.status = status if left else 200
        said = left.pop(0) if left else DONE
        # What would be a lease is one, so that queries do go out.
        return hub.lease(wish, lease="a-lease") if said == {} else said

    hub.given = given_next
    platform = ScriptedPlatform()
    told: list[str] = []
    try:
        done = member(platform, most_queries=most, size=4, concurrency=2)
        told.append(done.ended)
        assert done.queries == platform.queries
    except TTCAError as error:
        told.append(str(error))
    assert TOKEN not in "".join(told)
    remaining = me.get("remaining") if isinstance(me, dict) else None
    allowed = remaining if type(remaining) is int and remaining > 0 else 0
    assert platform.queries <= (allowed if most is None else min(most, allowed))
    assert np.all([len(a.images) <= 4 for a in platform.attempts])

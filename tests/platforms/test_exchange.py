"""One attempt of several requests: what is waited for, how long, and what a failure on the way costs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.platforms.scripted import CLASSES, images
from ttca.answers import Answers
from ttca.errors import AnswerError, ChargeState, TransportError
from ttca.images import Images
from ttca.platforms.exchange import Exchange
from ttca.platforms.protocols import Request, Response, Step, Steps, Wire
from ttca.platforms.protocols.reading import Reading

HERE = "http://127.0.0.1:8/api"
Play = Callable[[Request], Response | TransportError]


class Polling(Wire):
    """Submits, and polls where it is told until the body says so."""

    image_shape = (4, 5, 3)
    identity: dict[str, str]

    def __init__(self, where: str = "job", *, every_s: float = 2.0, within_s: float = 60.0) -> None:
        self.options, self.identity = Reading(classes=CLASSES), {}
        self.where, self.every_s, self.within_s = where, every_s, within_s

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the submission."""
        return Request("POST", "submit")

    def steps(self, images: Images, *, request_id: str) -> Steps:
        """Prepare, submit, poll."""
        yield Step(request=Request("GET", "prepare"), kind="prepare")
        response = yield Step(request=self.request(images, request_id=request_id))
        while response.body != b"done":
            if response.body == b"broken":
                raise response.unreadable("Expected a job, got none.")
            request = Request("GET", self.where)
            response = yield Step(
                request=request, kind="poll", wait_s=self.every_s, within_s=self.within_s, advice="Check until."
            )
        return response

    def parse(self, response: Response, n: int) -> Answers:
        """Never asked."""
        raise response.unreadable("none")


class World:
    """A clock that only sleeping moves, and a platform that plays what it is told."""

    def __init__(self, *plays: Any, wire: Polling | None = None) -> None:
        self.now, self.plays = 0.0, list(plays)
        self.sent: list[tuple[str, str | None, float]] = []
        self.exchange = Exchange(
            platform=HERE,
            wire=wire or Polling(),
            send=self.send,
            problem=self.problem,
            kept=lambda response: response.body,
            sleep=self.sleep,
            clock=lambda: self.now,
        )

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def send(self, request: Request, request_id: str | None) -> Response:
        """Play the next part, the last one for ever."""
        self.sent.append((request.path, request_id, self.now))
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        if isinstance(play, BaseException):
            raise play
        status, body, *headers = play
        return Response(status, headers[0] if headers else {}, body, HERE)

    def problem(self, response: Response) -> TransportError | None:
        """Say that 5xx may be tried again and other errors may not."""
        if 200 <= response.status < 300:
            return None
        return error(ChargeState.REFUNDED, retryable=response.status >= 500, status=response.status)

    def run(self) -> Response:
        """Make one attempt."""
        return self.exchange.run(images(1), request_id="r")


def error(
    charge: ChargeState, *, retryable: bool, status: int | None = None, wait: float | None = None
) -> TransportError:
    """Return an error of the transport."""
    return TransportError("No.", platform=HERE, charge=charge, retryable=retryable, status=status, retry_after=wait)


READY, TAKEN, RUNNING, DONE = (200, b"ready"), (202, b"taken"), (200, b"running"), (200, b"done")
LOST = error(ChargeState.UNKNOWN, retryable=True)


def test_only_the_submission_carries_the_id_and_polls_keep_their_pace() -> None:
    """The platform hears the id once, and a poll every two seconds, or when it asks for it."""
    world = World(READY, (202, b"taken", {"retry-after": "7"}), RUNNING, DONE)
    assert world.run().body == b"done"
    assert world.sent == [
        ("prepare", None, 0.0),
        ("submit", "r", 0.0),
        ("/api/job", None, 7.0),
        ("/api/job", None, 9.0),
    ]


@pytest.mark.parametrize(
    ("plays", "charge", "retryable"),
    [
        ([LOST], ChargeState.REFUNDED, True),
        ([(404, b"")], ChargeState.REFUNDED, False),
        ([(503, b"")], ChargeState.REFUNDED, True),
        ([AnswerError("big", platform=HERE)], ChargeState.REFUNDED, False),
        ([READY, LOST], ChargeState.UNKNOWN, True),
        ([READY, TAKEN, (404, b"")], ChargeState.UNKNOWN, False),
        ([READY, TAKEN, error(ChargeState.REFUNDED, retryable=False)], ChargeState.UNKNOWN, False),
        ([READY, TAKEN, AnswerError("big", platform=HERE)], ChargeState.CHARGED, False),
        ([READY, (202, b"broken")], ChargeState.CHARGED, False),
        ([READY, TAKEN, LOST], ChargeState.UNKNOWN, False),
        ([READY, TAKEN, RUNNING], ChargeState.CHARGED, False),
        ([READY, TAKEN, RUNNING, LOST], ChargeState.CHARGED, False),
        ([READY, TAKEN, RUNNING, (404, b"")], ChargeState.UNKNOWN, False),
        ([READY, (202, b"taken", {"retry-after": "61"})], ChargeState.UNKNOWN, False),
    ],
)
def test_a_failure_costs_what_its_step_costs(plays: list[Any], charge: ChargeState, retryable: bool) -> None:
    """Before the submission nothing, at it what the transport says, after it nobody knows."""
    world = World(*plays)
    with pytest.raises(TransportError) as caught:
        world.run()
    assert (caught.value.charge, caught.value.retryable) == (charge, retryable)
    assert world.now <= 60.0
    assert [i for _, i, _ in world.sent].count("r") == (len(plays) > 1)


def test_polls_that_are_answered_in_vain_are_shown_and_kept() -> None:
    """The sentence has the last answered body and what to check; the body is kept, so that it can be read otherwise."""
    world = World(READY, TAKEN, RUNNING, (200, b"step 2"), LOST)
    with pytest.raises(AnswerError, match=r"no final one\..*status 200 and 'step 2'\. Check until") as caught:
        world.run()
    assert caught.value.body == b"step 2"


def test_a_job_that_is_gone_is_not_paid_anew_where_none_was_ever_final() -> None:
    """Polls that were answered do not show that the table is right: only a final answer does."""
    world = World(READY, TAKEN, RUNNING, (404, b"gone"))
    with pytest.raises(TransportError, match=r"'running'\. Check until") as caught:
        world.run()
    assert not caught.value.retryable


@pytest.mark.parametrize("failing", [(410, b""), LOST])
def test_a_job_that_is_out_of_reach_may_be_submitted_anew_once_others_were_had(failing: Any) -> None:
    """A restart forgets jobs, an outage keeps them; a table that never led to a result costs no second query."""
    world = World(READY, TAKEN, DONE, READY, TAKEN, failing)
    world.run()
    with pytest.raises(TransportError) as caught:
        world.run()
    assert (caught.value.charge, caught.value.retryable) == (ChargeState.UNKNOWN, True)


def test_a_submission_that_is_no_answer_is_the_answer() -> None:
    """What its status means is said where all statuses are read."""
    assert World(READY, (429, b"wait")).run().status == 429


def test_an_interruption_while_polling_ends_the_attempt_without_an_outcome() -> None:
    """Whoever keeps the books finds an attempt without an outcome, and counts it as unknown."""
    with pytest.raises(KeyboardInterrupt):
        World(READY, TAKEN, RUNNING, KeyboardInterrupt()).run()


def test_a_poll_that_fails_for_a_moment_is_sent_again_later_and_later() -> None:
    """It keeps what the platform asks for, and its own deadline."""
    wire = Polling(every_s=1.0)
    busy = error(ChargeState.REFUNDED, retryable=True, status=429, wait=9.0)
    world = World(READY, TAKEN, LOST, LOST, busy, DONE, wire=wire)
    assert world.run().body == b"done"
    assert [at for path, _, at in world.sent if path == "/api/job"] == [1.0, 3.0, 7.0, 16.0]


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("job", "/api/job"),
        ("job?a=b", "/api/job?a=b"),
        ("v1/jobs:read", "/api/v1/jobs:read"),
        ("job:1", "/api/job:1"),
        ("/jobs/1", "/jobs/1"),
        ("http://127.0.0.1:8/jobs/1?x=y#z", "/jobs/1?x=y"),
        ("http://localhost:8/jobs/1", "/jobs/1"),
        ("HTTP://127.0.0.1:8", "/"),
        ("http://127.0.0.1:8//evil.example/x", "/evil.example/x"),
        ("//127.0.0.1:8/jobs", "/jobs"),
    ],
)
def test_a_result_is_asked_for_on_the_own_host(where: str, path: str) -> None:
    """Whole URLs, paths from the host on, and paths below the platform's URL all lead to it."""
    world = World(READY, TAKEN, DONE, wire=Polling(where))
    world.run()
    assert world.sent[-1][0] == path


@given(
    host=st.sampled_from(
        ["evil.example", "127.0.0.1:9", "127.0.0.1", "127.0.0.1:8@evil.example", "[::1", "", "u:p@127.0.0.1:8"]
    ),
    scheme=st.sampled_from(["http://", "https://", "//", "ftp://", "http:\\\\", "http:", "HTTP://"]),
    path=st.sampled_from(["", "/x", "/../x", "/x\r\nX: y", "?a=b", "\\x"]),
)
def test_no_url_of_another_host_is_ever_asked(host: str, scheme: str, path: str) -> None:
    """However it is written: it is refused, unknown, and said, or it is a path of the own host."""
    world = World(READY, TAKEN, DONE, wire=Polling(f"{scheme}{host}{path}"))
    with contextlib.suppress(TransportError):
        world.run()
        assert re.fullmatch(r"/(?!/)[^\s\\]*", world.sent[-1][0])
        return
    assert len(world.sent) == 2

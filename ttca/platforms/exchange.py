"""One attempt of several requests: what comes before the query costs nothing, what comes after leaves it unknown."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin, urlsplit

from ttca.errors import AnswerError, ChargeState, TransportError
from ttca.images import Images
from ttca.platforms.addresses import one_address
from ttca.platforms.limits import retry_after_s
from ttca.platforms.protocols import Request, Response, Step, Wire
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.sending import NotSentError

__all__ = ["Exchange"]

#: Statuses of a job that is not known, or not any more.
_FORGOTTEN = frozenset({404, 410})

#: After a poll that failed it waits this long at least, and twice as long after the next one.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 20.0


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Carries out the steps of a wire, one after the other, and says what a failure on the way means for the charge.

    Parameters
    ----------
    platform : str
        The platform's URL, whose host alone is asked.
    wire : Wire
    send : callable
        ``(request, request_id) -> Response``: sends once, whatever the status; the id is None for all steps but the
        one that is charged.
    problem : callable
        What a response means where it neither takes a step nor refuses an image; None where it does.
    kept : callable
        What is kept of a response that cannot be read, so that it can be read otherwise later for nothing.
    results : threading.Event
        Set once a poll brought a final answer. From then on a job that the platform does not know has been forgotten,
        by a restart for example, and polls that all fail meet an outage: the query may be submitted anew. Before, the
        table may be wrong, and would cost a query each time.
    sleep, clock : callable
        Seconds to wait, and monotonic seconds; tests pass their own.
    """

    platform: str
    wire: Wire
    send: Callable[[Request, str | None], Response]
    problem: Callable[[Response], TransportError | None]
    kept: Callable[[Response], bytes | None]
    results: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def run(self, images: Images, *, request_id: str) -> Response:
        """Return the response that is the answer, or that refuses; its status may be an error's.

        Raises
        ------
        TransportError
            Refunded where nothing was asked yet; as the transport says where the submission failed; unknown where the
            platform took it and its result could not be had.
        AnswerError
            If a response is not what the wire reads, or polls were answered and no answer was the final one.
        """
        steps = self.wire.steps(images, request_id=request_id)
        step, asked_at = next(steps), self.clock()
        polled: Response | None = None
        while True:
            response = self._taken(step, request_id, asked_at, polled)
            if not 200 <= response.status < 300 or self.problem(response) is not None:
                return response
            if step.kind == "submit":
                asked_at = self.clock()
            try:
                following = steps.send(response)
            except StopIteration as done:
                if step.kind == "poll":
                    self.results.set()
                answer: Response = done.value
                return answer
            except AnswerError as error:
                if step.kind != "prepare":
                    error.body = self.kept(response)
                    raise
                failed = self._changed(error, ChargeState.REFUNDED, "Nothing was asked.", retryable=False)
            else:
                polled = response if step.kind == "poll" else None
                step = self._later(following, response)
                continue
            raise failed

    def _later(self, step: Step, before: Response) -> Step:
        """Return a step that may be a poll, on the platform's own host, no sooner than the platform asks for."""
        if step.kind != "poll":
            return step
        wait = retry_after_s(before.headers, now=time.time(), limited=False) or 0.0
        path = _on_own_host(step.request.path, self.platform)
        if path is None:
            raise TransportError(
                f"Expected the result at {self.platform}, got a URL elsewhere: {excerpt(step.request.path, 200)!r}. "
                "A key goes only to its own host, so it was not asked. Ask the platform's owner for results on the "
                "same host. The platform may have processed the query.",
                platform=self.platform,
                charge=ChargeState.UNKNOWN,
                retryable=False,
                request_id=before.request_id,
            )
        return replace(step, request=replace(step.request, path=path), wait_s=max(step.wait_s, wait))

    def _taken(self, step: Step, request_id: str, asked_at: float, polled: Response | None) -> Response:
        """Send a step, a poll as often as it takes; ``polled`` is what the poll before it brought, not final yet."""
        if step.kind == "submit":
            return self.send(step.request, request_id)
        failed: TransportError | None = None
        while True:
            if step.kind == "poll":
                if self.clock() - asked_at + step.wait_s > step.within_s:
                    raise self._too_late(step, request_id, polled, failed)
                if step.wait_s:
                    self.sleep(step.wait_s)
            try:
                response = self.send(step.request, None)
            except AnswerError as error:
                # A result that came and cannot be used was paid for; before the query there is nothing to pay.
                if step.kind == "poll":
                    raise
                failed = error
            except TransportError as error:
                failed = error
            else:
                problem = self.problem(response)
                if problem is None:
                    return replace(response, request_id=request_id)
                failed = problem
            if step.kind == "prepare":
                if isinstance(failed, NotSentError):
                    raise failed
                raise self._changed(failed, ChargeState.REFUNDED, "", retryable=failed.retryable)
            if not failed.retryable:
                said = "The platform took the query, and may have processed it; its result could not be had."
                said = said if polled is None else f"{said} {_last(polled)} {step.advice}"
                forgotten = failed.status in _FORGOTTEN and self.results.is_set()
                raise self._changed(failed, ChargeState.UNKNOWN, said, retryable=forgotten)
            longer = min(max(2 * step.wait_s, _FIRST_WAIT_S), max(step.wait_s, _LONGEST_WAIT_S))
            step = replace(step, wait_s=max(longer, failed.retry_after or 0.0))

    def _too_late(
        self, step: Step, request_id: str, polled: Response | None, failed: TransportError | None
    ) -> TransportError:
        """Return the error for a result that did not come in time; only after an outage may another submission help."""
        sentence = f"Expected the result from {self.platform} within {step.within_s:g} s, got"
        if polled is not None:
            # Charged, and kept: where it is the final answer after all, it can still be read.
            late = polled.unreadable(f"{sentence} no final one. {_last(polled)} {step.advice}".rstrip())
            late.body = self.kept(polled)
            return late
        cause = "The platform asks to wait longer." if failed is None else f"The last poll: {failed.args[0]}"
        return TransportError(
            f"{sentence} none. {cause} The platform may have processed the query. Raise within_s in poll.",
            platform=self.platform,
            charge=ChargeState.UNKNOWN,
            retryable=failed is not None and self.results.is_set(),
            request_id=request_id,
        )

    def _changed(self, error: TransportError, charge: ChargeState, more: str, *, retryable: bool) -> TransportError:
        """Return the error as one of the whole attempt, which costs something else than its step alone would."""
        return TransportError(
            f"{error.args[0]} {more}".rstrip(),
            platform=self.platform,
            charge=charge,
            retryable=retryable,
            retry_after=error.retry_after if retryable else None,
            status=error.status,
            request_id=error.request_id,
        )


def _last(polled: Response) -> str:
    return f"The last poll that was answered brought status {polled.status} and {excerpt(polled.body, 200)!r}."


def _on_own_host(found: str, platform: str) -> str | None:
    """Return the path of a URL that a platform gave, from its host on; None where it is another host's.

    A URL that is not whole is below the platform's own.
    """
    if re.search(r"[\x00-\x20\x7f\\]", found):
        return None
    try:
        parts = urlsplit(found)
        if not parts.netloc and parts.scheme not in ("http", "https") and not found.startswith("/"):
            return f"{urlsplit(platform).path}/{found}"
        parts = urlsplit(urljoin(f"{platform}/", found))
        if parts.scheme not in ("http", "https") or parts.username is not None or parts.password is not None:
            return None
        if not parts.hostname or _origin(f"{parts.scheme}://{parts.netloc}") != _origin(platform):
            return None
    except ValueError:
        return None
    return f"/{parts.path.lstrip('/')}" + (f"?{parts.query}" if parts.query else "")


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL, in one spelling."""
    parts = urlsplit(url)
    return one_address(f"{parts.scheme}://{parts.netloc}".lower())

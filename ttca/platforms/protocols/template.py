"""An API nobody here has heard of, described by a table: how an image travels, and where the answer lies.

The places in an answer are JMESPath expressions (https://jmespath.org), a published query language for JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from ttca.answers import Answers
from ttca.errors import ConfigError, Trouble
from ttca.images import Images
from ttca.platforms.protocols import Fetch, Request, Response, Step, Steps, speaks_of_the_image
from ttca.platforms.protocols.encoding import repeated_to
from ttca.platforms.protocols.events import Events, read_lines
from ttca.platforms.protocols.picking import Pick, picked
from ttca.platforms.protocols.places import check_place, lies_at
from ttca.platforms.protocols.polling import First, Poll, table_of
from ttca.platforms.protocols.reading import UnreadableError, check_choice, excerpt, read_json
from ttca.platforms.protocols.single_image import SingleImage, SingleImageWire, options_identity
from ttca.platforms.protocols.writing import Writing

__all__ = ["Template", "TemplateWire"]

Reads = Literal["json", "text", "ndjson"]

_EXPRESSIONS = ("label", "scores", "names", "results", "refused", "error")
# What an answer says of limits, and nothing of the image.
_LIMITS = ("throttled", "used_up")
#: Seconds in which the result of a first request must have come, where poll does not say.
_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Template(SingleImage, Writing):
    """The table that describes an API.

    Parameters
    ----------
    path, method, headers, send, field, fields, body, item, image_as, …
        How the request is written: see :class:`~ttca.platforms.protocols.writing.Writing`.
    fixed_batch : int, optional
        How many images the platform takes in every request, no fewer: the last image is repeated in what is left of
        the last request, and what is said of the copies is dropped.
    first : table, optional
        A request before this one, whose answer gives what stands as ``{token}`` in its path, body or fields: see
        :class:`~ttca.platforms.protocols.polling.First`. One of the two carries the image.
    statuses : sequence of int
        HTTP statuses of an answer, 200 to 299; by default 200, and with ``poll`` 201 and 202.
    poll : table, optional
        For results that come later: see :class:`~ttca.platforms.protocols.polling.Poll`.
    events : table, optional
        For answers that are streams of events: see :class:`~ttca.platforms.protocols.events.Events`.
    reads : {'json', 'text', 'ndjson'}
        What an answer is, or an event's data: JSON, a text that is the label, or JSON values one a line, as a list.
    results : str, optional
        Where the list of answers lies, one per image, for a platform that takes several.
    label, scores, names : str, optional
        Where, in one image's answer, its label lies, its scores, and their names. Scores are numbers in the order of
        ``classes``, an object of names and scores, or objects of both; with names, numbers in the order of these.
        Without label and scores the answer itself is read.
    pick : {'largest', 'nearest-center'}, optional
        Which of several things found in an image counts. ``label``, ``scores`` and ``names`` then each give a list
        with one part for each of them, in the order of ``box``.
    box : str, optional
        With ``pick``: where the list of their boxes lies (see :mod:`ttca.platforms.protocols.picking`).
    refused : str, optional
        Where a refusal lies: whatever is found there and is not null, false or empty refuses the image.
    refused_statuses : sequence of int
        HTTP statuses by which the platform refuses an image; 204 too, where it says nothing of it, and 500, of a
        platform that crashes over nothing else.
    throttled, used_up : str, optional
        Where an answer of any status says that it came too fast, or that the key's quota is used up: whatever is
        found there and is not null, false or empty. The first is waited out, the second ends the asking at once;
        neither is charged. ``ends_with(__type, 'ThrottlingException')``
    error : str, optional
        Where an error lies that comes with status 200: whatever is found there fails the answer.
    image_shape, classes, scores_are, …
        See :class:`~ttca.platforms.protocols.single_image.SingleImage`.

    Raises
    ------
    ConfigError
        If a value is not allowed, an expression cannot be read, or a header looks like a key.
    """

    fixed_batch: int | None = None
    first: Mapping[str, Any] | None = None
    statuses: Sequence[int] = ()
    poll: Mapping[str, Any] | None = None
    events: Mapping[str, Any] | None = None
    reads: Reads = "json"
    results: str | None = None
    label: str | None = None
    scores: str | None = None
    names: str | None = None
    pick: Pick | None = None
    box: str | None = None
    refused: str | None = None
    refused_statuses: Sequence[int] = ()
    error: str | None = None
    throttled: str | None = None
    used_up: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        Writing.__post_init__(self)
        check_choice("reads", self.reads, Reads)
        self._check_steps()
        if self.many and self.results is None:
            raise ConfigError(
                'Expected results where body has "{images}" or "{items}", got none. Say where the list of answers is.'
            )
        if self.fixed_batch is not None and not (self.many and self.fixed_batch >= 1):
            raise ConfigError(
                f'Expected fixed_batch of 1 or more with "{{images}}" or "{{items}}" in body, got {self.fixed_batch}. '
                "Correct one of them."
            )
        if self.names is not None and self.scores is None:
            raise ConfigError("Expected scores beside names, got none. Say where the numbers lie.")
        check_choice("pick", self.pick, Pick, optional=True)
        if (self.pick is None) != (self.box is None) or (self.pick and self.label is None and self.scores is None):
            raise ConfigError(
                "Expected pick and box together, beside label or scores, got some of them alone. Say which of several "
                "things found counts, and where all their boxes, labels and scores lie."
            )
        for name in (*_EXPRESSIONS, *_LIMITS, "box"):
            check_place(name, getattr(self, name))
        if not all(type(s) is int and 200 <= s < 300 for s in self.statuses):
            raise ConfigError(
                f"Expected statuses between 200 and 299, got {list(self.statuses)}. Put those by which the platform "
                "refuses an image into refused_statuses."
            )
        if not all(type(s) is int and (s == 204 or speaks_of_the_image(s)) for s in self.refused_statuses):
            raise ConfigError(
                f"Expected refused_statuses between 400 and 599 that can be about an image, or 204, got "
                f"{list(self.refused_statuses)}: 401 to 405, 407, 408, 409, 425, 429, 502, 503 and 504 are not. "
                "Correct them, or name the text of the refusal in refused_errors, which holds whatever the status."
            )
        twice = sorted({*self.refused_statuses} & {*self.statuses})
        if twice:
            raise ConfigError(f"Expected each status to mean one thing, got {twice[0]} in both lists. Remove one.")

    def _check_steps(self) -> None:
        """Raise where no step, or more than one, carries the image, or a step has no use."""
        _ = self.polling, self.stream
        # Read here, so that a path without its model is refused with the table.
        self.path_for(model=self.model, version=self.version)
        before = self.before
        if before is None:
            if self.method == "GET":
                raise ConfigError("Expected method POST or PUT without a first request, got GET. Correct it.")
            if not self.can_carry:
                raise ConfigError(
                    'Expected body with the text "{image}", or "{images}" for many, in one place, got 0 places. Say '
                    "where the image goes."
                )
            if self.has_token:
                raise ConfigError('Expected first where "{token}" stands, got none. Say which request gives it.')
            return
        before.path_for(model=self.model, version=self.version)
        if not self.has_token:
            raise ConfigError(
                'Expected the text "{token}" in path, body or fields where first is given, got none. Say where it goes.'
            )
        both = before.must_carry and self.must_carry
        if both or not (before.can_carry or self.can_carry):
            raise ConfigError(
                f"Expected the image in one of two requests, got it in {'both' if both else 'neither'}. "
                'Give the other one a body without "{image}", or method = "GET".'
            )

    @cached_property
    def before(self) -> First | None:
        """The request before this one."""
        return None if self.first is None else table_of(First, "first", self.first)

    @cached_property
    def polling(self) -> Poll | None:
        """How a result that comes later is asked for."""
        return None if self.poll is None else table_of(Poll, "poll", self.poll)

    @cached_property
    def stream(self) -> Events | None:
        """Which event of a stream answers."""
        return None if self.events is None else table_of(Events, "events", self.events)

    @property
    def first_carries(self) -> bool:
        """Whether the image is in the first of two requests."""
        before = self.before
        return before is not None and not self.must_carry and (before.must_carry or not self.can_carry)

    def longest_s(self, once_s: float) -> float:
        """Return the most seconds that an attempt takes: each of its requests, and the wait for the result."""
        later = self.polling is not None or self.method == "GET"
        within = (self.polling.within_s if self.polling else _WITHIN_S) + once_s if later else 0.0
        return once_s * (1 + (self.first is not None)) + within

    @property
    def reading_identity(self) -> dict[str, str]:
        """What decides how an answer is read: where its parts lie, too."""
        answer = json.dumps({name: getattr(self, name) for name in _EXPRESSIONS}, sort_keys=True)
        later: dict[str, object] = {"statuses": sorted(self.statuses), "reads": self.reads}
        if self.stream is not None:
            later["events"] = asdict(self.stream)
        if self.polling is not None:
            later["poll"] = {"until": self.polling.until, "failed": self.polling.failed}
        usual = {"statuses": [], "reads": "json"}
        return {
            **super().reading_identity,
            "answer": answer,
            "refused_statuses": json.dumps(sorted(self.refused_statuses)),
            **{name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None},
            **({} if self.pick is None else {"pick": json.dumps([self.pick, self.box])}),
            **{n: json.dumps(v, sort_keys=True) for n, v in later.items() if v != usual.get(n)},
        }

    def describe(self, fetch: Fetch) -> TemplateWire:
        """Return the wire; what the table does not say, nobody does."""
        path, before, poll = self.path_for(model=self.model, version=self.version), self.before, self.polling
        later: dict[str, object] = {"fixed_batch": self.fixed_batch}
        if before is not None:
            first_path = before.path_for(model=self.model, version=self.version)
            later["first"] = {"path": first_path, "token": before.token, **before.writing_identity}
        if poll is not None:
            later["poll"] = {"url": poll.url, "header": poll.header}
        return TemplateWire(
            options=self,
            table=self,
            image_shape=self.shape,
            path=path.lstrip("/"),
            max_batch=self.fixed_batch if self.many else 1,
            identity=options_identity(
                self,
                path=path,
                **self.writing_identity,
                **{name: value for name, value in later.items() if value is not None},
            ),
            reading_identity=self.reading_identity,
            statuses=tuple(self.statuses) or ((200,) if poll is None else (200, 201, 202)),
            jpeg_quality=before.jpeg_quality if before is not None and self.first_carries else self.jpeg_quality,
        )


@dataclass(frozen=True, kw_only=True)
class TemplateWire(SingleImageWire):
    """The API as described by a table; built by :meth:`Template.describe`."""

    table: Template
    statuses: tuple[int, ...] = (200,)
    jpeg_quality: int | None = None

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the request the table describes; where it is the second of two, without what the first one gives."""
        return self._written(images, None)

    def _written(self, images: Images, token: object) -> Request:
        table = self.table
        if table.fixed_batch is not None:
            images = repeated_to(images, table.fixed_batch)
        request = table.written(images[:0] if table.first_carries else images, self.path, token=token)
        return request if table.polling is not None else self._streaming(request)

    def _streaming(self, request: Request) -> Request:
        """Return the request as one whose answer is a stream, where the table says so."""
        stream = self.table.stream
        if stream is None:
            return request
        return replace(request, headers={"Accept": "text/event-stream", **request.headers}, ends=stream.ends)

    def steps(self, images: Images, *, request_id: str) -> Steps:
        """Ask in as many requests as the table says: first, the one itself, and polls until the result is there."""
        table, token = self.table, None
        reading = table.method == "GET"
        if (before := table.before) is not None:
            path = before.path_for(model=table.model, version=table.version)
            sent = before.written(images if table.first_carries else images[:0], path.lstrip("/"))
            # A second request that only reads asks nothing: the first one did.
            response = yield Step(request=sent, kind="submit" if reading else "prepare")
            try:
                token = before.found(response)
            except UnreadableError as error:
                raise response.unreadable(str(error)) from None
        poll = table.polling
        within = _WITHIN_S if poll is None else poll.within_s
        request = self._written(images, token)
        response = yield Step(request=request, kind="poll" if reading else "submit", within_s=within)
        if poll is None:
            return response
        first, address = True, None
        while not poll.is_done(self._plain(response) if first else self._said(response), response, first=first):
            address = poll.address(response) or address
            if address is None:
                raise response.unreadable(poll.no_address(response))
            request = self._streaming(Request("GET", address, {"Accept": "application/json"}))
            response = yield Step(
                request=request, kind="poll", wait_s=poll.every_s, within_s=poll.within_s, advice=poll.advice
            )
            first = False
        return response

    @staticmethod
    def _plain(response: Response) -> object:
        """Return what a JSON body says, None where it is none."""
        try:
            return read_json(response.body)
        except UnreadableError:
            return None

    def _said(self, response: Response) -> object:
        """Return what a body says, None where it cannot be read yet."""
        try:
            return self._heard(response)[0]
        except UnreadableError:
            return None

    def _heard(self, response: Response) -> tuple[object, object]:
        """Return what a response says, and what it says has failed."""
        table, body = self.table, response.body
        if table.stream is not None:
            event = table.stream.answer(body)
            if event.name == table.stream.error_event:
                return None, event.data
            body = event.data.encode()
        said: object = None
        if table.reads == "text":
            said = body.decode("utf-8", "replace").strip()
        else:
            said = read_lines(body) if table.reads == "ndjson" else read_json(body)
        if table.polling is not None and table.polling.has_failed(said):
            return said, said
        return said, self._at("error", said)

    def refuses(self, response: Response) -> bool:
        """Whether the status, an error's text or the place of refusals refuses the image.

        The place holds only where the status may be about the image: ``error`` would else refuse it for a bad key.
        """
        if response.status in self.table.refused_statuses or super().refuses(response):
            return True
        return speaks_of_the_image(response.status) and self._holds("refused", response)

    def trouble(self, response: Response) -> Trouble | None:
        """Return what the table's ``used_up`` and ``throttled`` say of a response."""
        if self._holds("used_up", response):
            return Trouble.USED_UP
        return Trouble.THROTTLED if self._holds("throttled", response) else None

    def _holds(self, name: str, response: Response) -> bool:
        """Whether there is something at a place of a response that may have another form than an answer's."""
        if getattr(self.table, name) is None:
            return False
        try:
            return bool(self._at(name, read_json(response.body)))
        except UnreadableError:
            return False

    def parse(self, response: Response, n: int) -> Answers:
        """Read one answer per image, each where the table says. One bad row fails alone."""
        try:
            said, wrong = self._heard(response)
            if wrong:
                if n == 1 and (self.options.refuses(wrong) or self._at("refused", said)):
                    return self.options.rows([[]])
                raise UnreadableError(f"Expected an answer, got the platform's error: {excerpt(wrong)!r}.")
            if self.table.polling is not None and not self.table.polling.is_final(said, response):
                raise UnreadableError(
                    f"Expected a final answer, got one that is not yet: {excerpt(said)!r}. Check until in poll."
                )
            results = [said] if self.table.results is None else self._at("results", said)
            if results == [] and n == 1:
                # Nothing found in the one image.
                return self.options.rows([[]])
            asked = self.table.fixed_batch or n
            if not isinstance(results, list) or len(results) != asked:
                raise UnreadableError(f"Expected {asked} answers at {self.table.results!r}, got {excerpt(results)!r}.")
            return self.options.rows(results[:n], self._row)
        except UnreadableError as error:
            raise response.unreadable(str(error)) from None

    def _row(self, said: object) -> object:
        """Return one image's answer in a form that a reading knows."""
        table = self.table
        if self._at("refused", said):
            return []
        if table.label is None and table.scores is None:
            return said
        label, scores, names = (self._at(name, said) for name in ("label", "scores", "names"))
        if table.pick is not None:
            boxes = self._at("box", said)
            if boxes == []:
                # Nothing found in the image.
                return []
            at = picked(boxes, table.pick, self.image_shape)
            label, scores, names = (
                self._part(name, found, at, len(boxes))
                for name, found in (("label", label), ("scores", scores), ("names", names))
            )
        if table.names is not None:
            if not (isinstance(names, list) and isinstance(scores, list) and len(names) == len(scores)):
                raise UnreadableError(
                    f"Expected as many names at {table.names!r} as scores at {table.scores!r}, got {excerpt(names)!r} "
                    f"and {excerpt(scores)!r}."
                )
            scores = [list(pair) for pair in zip(names, scores, strict=True)]
        if label is None and scores == []:
            # Nothing found in the image.
            return []
        for name, found in (("label", label), ("scores", scores)):
            if found is None and getattr(table, name) is not None:
                raise UnreadableError(f"Expected {name} at {getattr(table, name)!r}, got nothing there.")
        if table.scores is None:
            # A number at the place of labels is none of the scores.
            return label if isinstance(label, str | list) else {"label": label}
        return scores if table.label is None else {"label": label, "scores": scores}

    def _part(self, name: str, found: object, at: int, count: int) -> object:
        """Return what a place holds of one of several things found."""
        if getattr(self.table, name) is None:
            return None
        if not isinstance(found, list) or len(found) != count:
            raise UnreadableError(
                f"Expected {count} parts at {getattr(self.table, name)!r}, one for each box, got {excerpt(found)!r}."
            )
        return found[at]

    def _at(self, name: str, said: object) -> Any:
        """Return what lies where the table says; None where nothing does."""
        return lies_at(name, getattr(self.table, name), said, keep_nulls=name not in ("refused", "error", *_LIMITS))

"""An API nobody here has heard of, described by a table: how an image travels, and where the answer lies.

The places in an answer are JMESPath expressions (https://jmespath.org), a published query language for JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.visitor import TreeInterpreter

from ttca.answers import Answers
from ttca.errors import ConfigError, Trouble
from ttca.images import Images
from ttca.platforms.protocols import TRANSPORT_HEADERS, Fetch, Request, Response, speaks_of_the_image
from ttca.platforms.protocols.encoding import as_base64, as_lists, as_multipart, as_png
from ttca.platforms.protocols.picking import Pick, picked
from ttca.platforms.protocols.reading import UnreadableError, check_choice, excerpt, read_json
from ttca.platforms.protocols.single_image import SingleImage, SingleImageWire, options_identity

__all__ = ["Template", "TemplateWire"]

Send = Literal["png", "multipart", "json"]
ImageAs = Literal["base64", "data-url", "levels", "unit"]

# Whole words: X-Tokenizer, max_tokens and keywords are no keys, X-Api-Key and accessToken are.
_SECRET = re.compile(
    r"(?<![a-z])([a-z]*(api|app|auth|access|client|id|private|refresh|secret|security|session|subscription|user))?[_-]?"
    r"(auth|authorization|authentication|key|token|secret|password|passwd|cookie|credential|credentials)(?![a-z])",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"(^|[_-])(api_?key|key|token|secret|password|authorization|auth)$", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_EXPRESSIONS = ("label", "scores", "names", "results", "refused", "error")
# What an answer says of limits, and nothing of the image.
_LIMITS = ("throttled", "used_up")


@dataclass(frozen=True, kw_only=True)
class Template(SingleImage):
    """The table that describes an API.

    Parameters
    ----------
    path : str
        Below the platform's URL; ``{model}`` and ``{version}`` stand for the platform's.
    method : {'POST', 'PUT'}
    headers : mapping of str to str
        Never a key: it comes from the variable that ``key_variable`` names, in the header that ``key_header`` names.
    send : {'png', 'multipart', 'json'}
        The image as the body itself, as a file of a form, or within JSON.
    field, fields
        With ``multipart``: the form field of the image, and other fields with their texts.
    body
        With ``json``: the message. The text ``"{image}"`` in it becomes the image; ``"{images}"`` becomes a list of
        all images of a request, for a platform that takes several.
    image_as : {'base64', 'data-url', 'levels', 'unit'}
        With ``json``: a PNG file in base64, alone or as a ``data:`` URL, or nested lists of levels or of [0, 1].
    results : str, optional
        Where the list of answers lies, one per image, for a platform that takes several.
    label, scores, names : str, optional
        Where, in one image's answer, its label lies, its scores (numbers in the order of ``classes``, an object of
        names and scores, or objects of both), and the names of the scores where those are numbers in another order.
        Without label and scores the answer itself is read.
    pick : {'largest', 'nearest-center'}, optional
        Which of several things found in an image counts. ``label``, ``scores`` and ``names`` then each give a list
        with one part for each of them, in the order of ``box``.
    box : str, optional
        With ``pick``: where the list of their boxes lies (see :mod:`ttca.platforms.protocols.picking`).
    refused : str, optional
        Where a refusal lies: whatever is found there and is not null, false or empty refuses the image.
    refused_statuses : sequence of int
        HTTP statuses by which the platform refuses an image; 500 too, of a platform that crashes over nothing else.
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

    path: str = ""
    method: Literal["POST", "PUT"] = "POST"
    headers: Mapping[str, str] | None = None
    send: Send = "png"
    field: str = "image"
    fields: Mapping[str, str] | None = None
    body: Mapping[str, Any] | Sequence[Any] | str | None = None
    image_as: ImageAs = "base64"
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
        check_choice("method", self.method, Literal["POST", "PUT"])
        check_choice("send", self.send, Send)
        check_choice("image_as", self.image_as, ImageAs)
        self._check_no_key_is_here()
        for name in ("model", "version"):
            if f"{{{name}}}" in self.path and not getattr(self, name):
                raise ConfigError(f"Expected {name}, which path has a place for, got none. Set it.")
        self._check_how_it_is_sent()
        if self.many and self.results is None:
            raise ConfigError('Expected results where body has "{images}", got none. Say where the list of answers is.')
        if self.names is not None and self.scores is None:
            raise ConfigError("Expected scores beside names, got none. Say where the numbers lie.")
        check_choice("pick", self.pick, Pick, optional=True)
        if (self.pick is None) != (self.box is None) or (self.pick and self.label is None and self.scores is None):
            raise ConfigError(
                "Expected pick and box together, beside label or scores, got some of them alone. Say which of several "
                "things found counts, and where all their boxes, labels and scores lie."
            )
        for name in (*_EXPRESSIONS, *_LIMITS, "box"):
            self._compiled(name)
        if not all(type(s) is int and speaks_of_the_image(s) for s in self.refused_statuses):
            raise ConfigError(
                f"Expected refused_statuses between 400 and 599 that can be about an image, got "
                f"{list(self.refused_statuses)}: 401 to 405, 407, 408, 409, 425, 429, 502, 503 and 504 are not. "
                "Correct them, or name the text of the refusal in refused_errors, which holds whatever the status."
            )

    def _check_no_key_is_here(self) -> None:
        """Raise where headers, fields, body or path are none, or hold what may be a key."""
        for name in ("headers", "fields"):
            table = getattr(self, name) or {}
            if not isinstance(table, Mapping) or not all(isinstance(v, str) for v in table.values()):
                # The values are not shown: one may be a key in the wrong place.
                raise ConfigError(f"Expected {name} as a table of texts, got other values. Put numbers in quotes.")
        for name, text in (self.headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not (text.isascii() and text.isprintable()):
                raise ConfigError(f"Expected a header in printable ASCII, got {excerpt(name)!r}. Correct headers.")
            if _SECRET.search(name) or re.match(r"(bearer|basic|token|key)\s", text, re.IGNORECASE):
                raise ConfigError(
                    f"Expected no key in headers, got {name!r}. Put the key into a variable, name it in key_variable, "
                    "and name the header in key_header."
                )
            if name.lower() in TRANSPORT_HEADERS or (self.send == "multipart" and name.lower() == "content-type"):
                raise ConfigError(
                    f"Expected headers that the transport does not write itself, got {name!r}. Remove it."
                )
        secrets = [name for name in (*(self.fields or {}), *_names(self.body)) if _SECRET_NAME.search(name)]
        if secrets:
            raise ConfigError(
                f"Expected no key in body and fields, got {', '.join(secrets)}. A key travels in a header alone: put "
                "it into a variable, name that in key_variable, and the header in key_header."
            )
        parts = urlsplit(f"/{self.path}")
        if (
            parts.fragment
            or re.search(r"\s|\\", self.path)
            or any(_SECRET.search(pair.partition("=")[0]) for pair in re.split("[&;]", parts.query))
        ):
            raise ConfigError(
                "Expected path without spaces, fragments and keys, got one with them (not shown). Put a key into a "
                "variable and name it in key_variable."
            )

    def _check_how_it_is_sent(self) -> None:
        """Raise where the image has no place, or an option has no effect."""
        if self.send != "json" and self.image_as != "base64":
            raise ConfigError(f'Expected image_as only with send = "json", got it with {self.send!r}. Remove one.')
        if self.send != "multipart" and self.field != "image":
            raise ConfigError(f'Expected field only with send = "multipart", got it with {self.send!r}. Remove one.')
        try:
            json.dumps(self.body, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(
                "Expected body of what JSON has, got a date, NaN or infinity. Put it in quotes."
            ) from None
        places = [] if self.body is None else list(_places(self.body))
        if self.send == "json" and len(places) != 1:
            raise ConfigError(
                'Expected body with the text "{image}", or "{images}" for many, in one place, got '
                f"{len(places)} places. Say where the image goes."
            )
        if self.send != "json" and self.body is not None:
            raise ConfigError(f'Expected body only with send = "json", got it with {self.send!r}. Remove one.')
        if self.send != "multipart" and self.fields:
            raise ConfigError(f'Expected fields only with send = "multipart", got them with {self.send!r}. Remove one.')

    def _compiled(self, name: str) -> None:
        expression = getattr(self, name)
        if expression is None:
            return
        try:
            jmespath.compile(expression)
        except (JMESPathError, TypeError, ValueError) as error:
            raise ConfigError(
                f"Expected {name} as a JMESPath expression, got {excerpt(expression)!r}: {excerpt(error)} "
                "Write it like result.items[0].name."
            ) from None

    @property
    def many(self) -> bool:
        """Whether one request asks about several images."""
        return self.send == "json" and "{images}" in _places(self.body)

    @property
    def reading_identity(self) -> dict[str, str]:
        """What decides how an answer is read: where its parts lie, too."""
        return {
            **super().reading_identity,
            "answer": json.dumps({name: getattr(self, name) for name in _EXPRESSIONS}, sort_keys=True),
            **{name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None},
            "refused_statuses": json.dumps(sorted(self.refused_statuses)),
            **({} if self.pick is None else {"pick": json.dumps([self.pick, self.box])}),
        }

    def describe(self, fetch: Fetch) -> TemplateWire:
        """Return the wire; what the table does not say, nobody does."""
        path = self.path
        for name in ("model", "version"):
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(getattr(self, name) or "", safe=""))
        return TemplateWire(
            options=self,
            table=self,
            image_shape=self.shape,
            path=path.lstrip("/"),
            max_batch=None if self.many else 1,
            identity=options_identity(
                self,
                path=path,
                method=self.method,
                headers=dict(self.headers or {}),
                send=f"{self.send} {self.image_as} {self.field}",
                fields=dict(self.fields or {}),
                body=self.body,
            ),
            reading_identity=self.reading_identity,
        )


@dataclass(frozen=True, kw_only=True)
class TemplateWire(SingleImageWire):
    """The API as described by a table; built by :meth:`Template.describe`."""

    table: Template

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return the request the table describes."""
        table = self.table
        headers = dict(table.headers or {})
        if table.send == "png":
            return Request(table.method, self.path, {"Content-Type": "image/png", **headers}, as_png(images[0]))
        if table.send == "multipart":
            body, content_type = as_multipart(images[0], field=table.field, fields=table.fields or {})
            return Request(table.method, self.path, {**headers, "Content-Type": content_type}, body)
        written = self._written(images)
        message = _filled(table.body, {"{image}": written[0], "{images}": written})
        body = json.dumps(message, separators=(",", ":")).encode()
        return Request(table.method, self.path, {"Content-Type": "application/json", **headers}, body)

    def _written(self, images: Images) -> list[Any]:
        if self.table.image_as == "levels":
            return as_lists(images, pixels=None)
        if self.table.image_as == "unit":
            return as_lists(images, pixels="unit")
        prefix = "data:image/png;base64," if self.table.image_as == "data-url" else ""
        return [prefix + as_base64(image) for image in images]

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
            said = read_json(response.body)
            wrong = self._at("error", said)
            if wrong:
                if n == 1 and self.options.refuses(wrong):
                    return self.options.rows([[]])
                raise UnreadableError(f"Expected an answer, got the platform's error: {excerpt(wrong)!r}.")
            results = [said] if self.table.results is None else self._at("results", said)
            if results == [] and n == 1:
                # Nothing found in the one image.
                return self.options.rows([[]])
            if not isinstance(results, list) or len(results) != n:
                raise UnreadableError(f"Expected {n} answers at {self.table.results!r}, got {excerpt(results)!r}.")
            return self.options.rows(results, self._row)
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
        expression = getattr(self.table, name)
        if expression is None:
            return None
        try:
            parsed = jmespath.compile(expression)
            if name in ("refused", "error", *_LIMITS):
                return parsed.search(said)
            return _KeepingNulls().visit(parsed.parsed, said)
        # A function of the language applied to what it was not made for, in a stranger's JSON.
        except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError) as error:
            raise UnreadableError(
                f"Expected {name} at {expression!r}, got an answer to which that does not apply: {excerpt(error)}"
            ) from None


class _KeepingNulls(TreeInterpreter):
    """JMESPath whose projections keep a null where a value is not there.

    The language leaves it out: ``items[*].score`` of three items, one without a score, would be two scores.
    """

    def visit_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every element of a list, ``[*]`` or ``[]``."""
        base = self.visit(node["children"][0], value)
        return [self.visit(node["children"][1], one) for one in base] if isinstance(base, list) else None

    def visit_value_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every value of an object, ``.*``."""
        base = self.visit(node["children"][0], value)
        return [self.visit(node["children"][1], one) for one in base.values()] if isinstance(base, dict) else None

    def visit_filter_projection(self, node: Any, value: Any) -> Any:
        """Return the right side of every element that a filter lets through, ``[?…]``."""
        base, right, condition = node["children"]
        whole: Any = {**node, "children": [base, {"type": "identity", "children": []}, condition]}
        let_through = super().visit_filter_projection(whole, value)
        return None if let_through is None else [self.visit(right, one) for one in let_through]


def _places(message: object) -> Sequence[str]:
    """Return the places for images in a message, in order."""
    if isinstance(message, Mapping):
        return [p for v in message.values() for p in _places(v)]
    if isinstance(message, list | tuple):
        return [p for v in message for p in _places(v)]
    return [message] if isinstance(message, str) and message in ("{image}", "{images}") else []


def _names(message: object) -> list[str]:
    """Return the names of all values in a message."""
    if isinstance(message, Mapping):
        return [*map(str, message), *(n for v in message.values() for n in _names(v))]
    return [n for v in message for n in _names(v)] if isinstance(message, list | tuple) else []


def _filled(message: object, values: Mapping[str, Any]) -> Any:
    """Return the message with the images in their place."""
    if isinstance(message, Mapping):
        return {k: _filled(v, values) for k, v in message.items()}
    if isinstance(message, list | tuple):
        return [_filled(v, values) for v in message]
    return values[message] if isinstance(message, str) and message in values else message

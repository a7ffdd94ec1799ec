"""How a request is written as a table says: the image in a file, a form, a text or a JSON message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from ttca.errors import ConfigError
from ttca.images import Images
from ttca.lossy import check_quality
from ttca.platforms.protocols import TRANSPORT_HEADERS, Request
from ttca.platforms.protocols.encoding import (
    ImageFile,
    ImageLayout,
    Numbers,
    Pixels,
    as_form,
    as_multipart,
    check_layout,
)
from ttca.platforms.protocols.reading import check_choice, excerpt

__all__ = ["Writing"]

Send = Literal["png", "jpeg", "base64", "multipart", "form", "json"]
ImageAs = Literal["base64", "data-url", "levels", "unit"]
Method = Literal["POST", "PUT", "GET"]

# Whole words: X-Tokenizer, max_tokens and keywords are no keys, X-Api-Key and accessToken are.
_SECRET = re.compile(
    r"(?<![a-z])([a-z]*(api|app|auth|access|client|id|private|refresh|secret|security|session|subscription|user))?[_-]?"
    r"(auth|authorization|authentication|key|token|secret|password|passwd|cookie|credential|credentials)(?![a-z])",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"(^|[_-])(api_?key|key|token|secret|password|authorization|auth)$", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: What stands for what the first of two steps gave.
_TOKEN = "{token}"
#: Forms write their own type, with a boundary or without.
_FORMS = ("multipart", "form")


@dataclass(frozen=True, kw_only=True)
class Writing(Numbers):
    """One request of a table.

    Parameters
    ----------
    path : str
        Below the platform's URL; ``{model}`` and ``{version}`` stand for the platform's.
    method : {'POST', 'PUT', 'GET'}
        ``GET`` only for a step that carries no image.
    headers : mapping of str to str
        Never a key: it comes from the variable that ``key_variable`` names.
    send : {'png', 'jpeg', 'base64', 'multipart', 'form', 'json'}
        The image is the body itself for the first three: a PNG file, a JPEG file, or a file's base64. Else it is a
        file in a multipart form, base64 in a form that is urlencoded, or a part of JSON.
    jpeg_quality : int, optional
        1 to 100: the image travels as a JPEG file of this quality, which changes it; needed with ``jpeg``.
    field, fields
        With ``multipart`` and ``form``: the field of the image, and other fields with their texts.
    body
        With ``json``: the message. The text ``"{image}"`` in it becomes the image; ``"{images}"`` becomes a list of
        all images of a request, for a platform that takes several, and ``"{items}"`` a list of one ``item`` for each.
    item
        What ``"{items}"`` repeats: a message with the text ``"{image}"``.
    image_as : {'base64', 'data-url', 'levels', 'unit'}
        With ``json``: a file in base64, alone or as a ``data:`` URL, or nested lists of levels or of [0, 1]. The first
        two also with ``form``.
    layout : {'nhwc', 'nchw'}
        With numbers: where the channels are.
    range, mean, std, color_order
        With numbers: see :class:`~ttca.platforms.protocols.encoding.Numbers`.

    Raises
    ------
    ConfigError
        If a value is not allowed, or a header looks like a key.
    """

    path: str = ""
    method: Method = "POST"
    headers: Mapping[str, str] | None = None
    send: Send = "png"
    jpeg_quality: int | None = None
    field: str = "image"
    fields: Mapping[str, str] | None = None
    body: Mapping[str, Any] | Sequence[Any] | str | None = None
    item: Mapping[str, Any] | Sequence[Any] | str | None = None
    image_as: ImageAs = "base64"
    layout: str = "nhwc"

    def __post_init__(self) -> None:
        check_choice("method", self.method, Method)
        check_choice("send", self.send, Send)
        check_choice("image_as", self.image_as, ImageAs)
        check_quality(self.jpeg_quality)
        self._check_no_key_is_here()
        self._check_how_it_is_sent()
        self._check_message()

    # -- checks -------------------------------------------------------------------------------------------------------

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
            if name.lower() in TRANSPORT_HEADERS or (self.send in _FORMS and name.lower() == "content-type"):
                raise ConfigError(
                    f"Expected headers that the transport does not write itself, got {name!r}. Remove it."
                )
        secrets = [
            name for name in (*_names(self.fields), *_names([self.body, self.item])) if _SECRET_NAME.search(name)
        ]
        if secrets:
            raise ConfigError(
                f"Expected no key in body and fields, got {', '.join(secrets)}. Put it into a variable and name that "
                'in key_variable. If the platform reads it from the body, set key_in = "body" and key_names.'
            )
        parts = urlsplit(f"/{self.path}")
        query = re.sub(r"[\w.-]+=\{token\}", "", parts.query)
        named = [pair.partition("=")[0] for pair in re.split("[&;]", query)]
        if parts.fragment or re.search(r"\s|\\", self.path) or any(map(_SECRET.search, named)):
            raise ConfigError(
                "Expected path without spaces, fragments and keys, got one with them (not shown). Put a key into a "
                'variable and name it in key_variable, with key_in = "query" and key_names.'
            )

    def _check_how_it_is_sent(self) -> None:
        """Raise where an option has no effect."""
        sent = f"send = {json.dumps(self.send)}"
        allowed: dict[str, tuple[str, ...]] = {
            "image_as": ("json", "form"),
            "field": _FORMS,
            "fields": _FORMS,
            "body": ("json",),
            "item": ("json",),
            "layout": ("json",),
        }
        for name, ways in allowed.items():
            given = getattr(self, name)
            if given and given != getattr(Writing, name, None) and self.send not in ways:
                ways_said = " or ".join(json.dumps(way) for way in ways)
                raise ConfigError(
                    f"Expected {name} only with send = {ways_said}, got it with {self.send!r}. Remove one."
                )
        if self.send == "jpeg" and self.jpeg_quality is None:
            raise ConfigError(
                'Expected jpeg_quality with send = "jpeg", got none. Set it, 95 for example: it decides how much of a '
                "faint change is left."
            )
        if self.send == "png" and self.jpeg_quality is not None:
            raise ConfigError('Expected jpeg_quality not with send = "png", got both. Set send to "jpeg".')
        if self._pixels_are_numbers and (self.send != "json" or self.jpeg_quality is not None):
            what = "jpeg_quality" if self.send == "json" else sent
            raise ConfigError(f"Expected files with {what}, got image_as = {self.image_as!r}. Correct one of them.")
        if not self._pixels_are_numbers and self._layout != "NHWC":
            raise ConfigError(f"Expected layout only where pixels are sent, got it with {sent}. Remove one.")
        self.check_numbers()
        how = f"image_as = {json.dumps(self.image_as)}" if self.send == "json" else sent
        numbers = self._pixels_are_numbers
        self.check_numbers_fit(self.image_as if numbers else None, how, files=not numbers)  # type: ignore[arg-type]

    def _check_message(self) -> None:
        """Raise where the image's places in a message are too many or too few, or cannot be what was meant."""
        try:
            json.dumps([self.body, self.item], allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(
                "Expected body of what JSON has, got a date, NaN or infinity. Put it in quotes."
            ) from None
        places = list(_places(self.body))
        if len(places) > 1:
            raise ConfigError(
                'Expected body with the text "{image}", or "{images}" for many, in one place, got '
                f"{len(places)} places. Say where the image goes."
            )
        if ("{images}", True) in places:
            raise ConfigError(
                'Expected "{images}" outside the objects of a list, got it inside one, where a single object would '
                'hold all images. For an object per image write it once as item, with "{image}" in it, and put '
                '"{items}" in the list\'s place.'
            )
        inner = [place for place, _ in _places(self.item)]
        if ("{items}" in dict(places)) != (self.item is not None):
            raise ConfigError(
                'Expected item and the text "{items}" in body together, got only one of them. Put "{items}" where the '
                "list of items goes, or remove item."
            )
        if self.item is not None and inner != ["{image}"]:
            raise ConfigError(
                f'Expected item with the text "{{image}}" in one place, got {excerpt(inner)}. Say where the image goes.'
            )

    # -- what it says --------------------------------------------------------------------------------------------------

    @property
    def _pixels_are_numbers(self) -> bool:
        return self.image_as in ("levels", "unit")

    @property
    def _layout(self) -> ImageLayout:
        return check_layout(self.layout) or "NHWC"

    @property
    def can_carry(self) -> bool:
        """Whether the request has a place for an image."""
        return self.method != "GET" and (self.send != "json" or bool(list(_places(self.body))))

    @property
    def must_carry(self) -> bool:
        """Whether the request is nothing without an image."""
        return self.can_carry and self.send not in _FORMS

    @property
    def many(self) -> bool:
        """Whether one request asks about several images."""
        return self.send == "json" and any(place in ("{images}", "{items}") for place, _ in _places(self.body))

    @property
    def has_token(self) -> bool:
        """Whether the request has a place for what an earlier step gave."""
        return _TOKEN in self.path or any(_TOKEN in text for text in _texts([self.body, self.item, self.fields or {}]))

    @cached_property
    def file(self) -> ImageFile:
        """The file that the image travels in, where it travels in one."""
        return ImageFile(quality=self.jpeg_quality)

    @property
    def writing_identity(self) -> dict[str, object]:
        """What of a platform's identity the request decides, all but the path."""
        later: dict[str, object] = {"jpeg_quality": self.jpeg_quality, "item": self.item}
        later["layout"] = None if self._layout == "NHWC" else self._layout
        return {
            "method": self.method,
            "headers": dict(self.headers or {}),
            "send": f"{self.send} {self.image_as} {self.field}",
            "fields": dict(self.fields or {}),
            "body": self.body,
            **{name: value for name, value in later.items() if value is not None},
            **self.numbers_identity,
        }

    def path_for(self, **names: str | None) -> str:
        """Return the path with the platform's model and version in their places, quoted.

        Raises
        ------
        ConfigError
            If the path has a place for one that is not there.
        """
        path = self.path
        for name, value in names.items():
            if f"{{{name}}}" in path:
                if not value:
                    raise ConfigError(f"Expected {name}, which path has a place for, got none. Set it.")
                path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path

    def written(self, images: Images, path: str, *, token: object = None) -> Request:
        """Return the request.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 3)
            None of them (N = 0) for a step that carries no image.
        path : str
            As :meth:`path_for` returns it, without a slash before it.
        token : JSON value, optional
            What an earlier step gave; it goes where ``{token}`` stands.
        """
        headers = dict(self.headers or {})
        path = path.replace(_TOKEN, quote(_as_text(token), safe=""))
        if self.method == "GET":
            return Request("GET", path, headers)
        image = images[0] if len(images) else None
        fields = {name: text.replace(_TOKEN, _as_text(token)) for name, text in (self.fields or {}).items()}
        if self.send == "multipart":
            body, kind = as_multipart(image, field=self.field, fields=fields, file=self.file)
        elif self.send == "form":
            if image is not None:
                fields[self.field] = self.file.text_of(image, url=self.image_as == "data-url")
            body, kind = as_form(fields)
        elif self.send == "json":
            message = self._message(images, token)
            # A step without a message has no body at all.
            body = b"" if self.body is None else json.dumps(message, separators=(",", ":")).encode()
            kind = "application/json"
        elif self.send == "base64":
            body, kind = self.file.text_of(images[0]).encode(), "text/plain"
        else:
            body, kind = self.file.of(images[0]), self.file.kind
        stated = any(name.lower() == "content-type" for name in headers)
        return Request(self.method, path, headers if stated else {"Content-Type": kind, **headers}, body)

    def _message(self, images: Images, token: object) -> object:
        values: list[Any]
        if self._pixels_are_numbers:
            pixels: Pixels | None = "unit" if self.image_as == "unit" else None
            if pixels is None and (self.mean is not None or self.std is not None):
                pixels = "levels"
            values = self.numbers(images, pixels=pixels, layout=self._layout, decimal=True).tolist()
        else:
            values = [self.file.text_of(image, url=self.image_as == "data-url") for image in images]
        # The token first: no image may be searched for it.
        body, item = _with_token(self.body, token), _with_token(self.item, token)
        places: dict[str, Any] = {"{images}": values}
        if values:
            places["{image}"] = values[0]
        if self.item is not None:
            places["{items}"] = [_filled(item, {"{image}": value}) for value in values]
        return _filled(body, places)


_PLACES = ("{image}", "{images}", "{items}")


def _places(message: object, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the places for images in a message, in order, and whether each is inside an object of a list."""
    if isinstance(message, Mapping):
        for value in message.values():
            yield from _places(value, inside)
    elif isinstance(message, list | tuple):
        for value in message:
            yield from _places(value, inside or isinstance(value, Mapping))
    elif isinstance(message, str) and message in _PLACES:
        yield message, inside


def _names(message: object) -> list[str]:
    """Return the names of all values in a message, but for those that an earlier step gives."""
    if isinstance(message, Mapping):
        return [
            *(str(name) for name, value in message.items() if value != _TOKEN),
            *(n for v in message.values() for n in _names(v)),
        ]
    return [n for v in message for n in _names(v)] if isinstance(message, list | tuple) else []


def _texts(message: object) -> Iterator[str]:
    """Yield all texts in a message that are no names."""
    if isinstance(message, Mapping):
        message = list(message.values())
    if isinstance(message, list | tuple):
        for value in message:
            yield from _texts(value)
    elif isinstance(message, str):
        yield message


def _as_text(token: object) -> str:
    return token if isinstance(token, str) else "" if token is None else json.dumps(token, separators=(",", ":"))


def _with_token(message: object, token: object) -> Any:
    """Return the message with what an earlier step gave: as it is where it stands alone, as text within a text."""
    if isinstance(message, Mapping):
        return {k: _with_token(v, token) for k, v in message.items()}
    if isinstance(message, list | tuple):
        return [_with_token(v, token) for v in message]
    if not isinstance(message, str) or _TOKEN not in message:
        return message
    return token if message == _TOKEN else message.replace(_TOKEN, _as_text(token))


def _filled(message: object, values: Mapping[str, Any]) -> Any:
    """Return the message with the images in their place."""
    if isinstance(message, Mapping):
        return {k: _filled(v, values) for k, v in message.items()}
    if isinstance(message, list | tuple):
        return [_filled(v, values) for v in message]
    return values[message] if isinstance(message, str) and message in values else message

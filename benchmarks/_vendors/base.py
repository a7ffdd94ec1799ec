"""What all emulators of vendors share: one small model, a log of what it looked at, limits, and strict reading.

An emulator answers as its vendor's document says, and refuses whatever the document does not name.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ttca.images import Images

__all__ = [
    "ANYTHING",
    "IMAGE_SHAPE",
    "KEY",
    "SECRET",
    "Asked",
    "Behavior",
    "File",
    "Said",
    "Vendor",
    "WrongError",
    "check",
    "model_says",
    "one_of",
    "say",
]

IMAGE_SHAPE = (64, 64, 3)
#: The key and the secret that every emulator knows. They are made up.
KEY, SECRET = "emulated-key-0001", "emulated-secret-0001"
#: In a shape: whatever stands there.
ANYTHING = object()
# A mean level below this shows the model nothing.
_DARK = 16.0
_BLOCKS = 4
_MULTIPART, _URLENCODED = _FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


class WrongError(Exception):
    """A request is not as the document says: the vendor's own answer to that."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _ShapeError(Exception):
    """A message is not of the shape that the document names: where, and why."""


@dataclass(frozen=True)
class Said:
    """What the model says of an image: a probability per class (C,), or None where it finds nothing."""

    scores: NDArray[np.float64] | None

    @property
    def label(self) -> int:
        """The class, -1 where nothing was found."""
        return -1 if self.scores is None else int(self.scores.argmax())


@dataclass(frozen=True)
class File:
    """A file of a form."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True)
class Asked:
    """One request as it came; ``twice`` are the names that came more than once, where each is to come once."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    form: Mapping[str, str | File] = field(default_factory=dict)
    url: str = ""
    twice: tuple[str, ...] = ()

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """How an emulator behaves beside answering.

    Parameters
    ----------
    throttles : frozenset of int
        Which requests are too many, counted from 1.
    latency_s : float
        Seconds that the model takes.
    just_restarted : int
        So many requests come before the vendor is ready, where its document says how it tells that.
    """

    throttles: frozenset[int] = frozenset()
    latency_s: float = 0.0
    just_restarted: int = 0


def model_says(images: Images, classes: int) -> list[Said]:
    """Return what every emulator's model says: a linear map of mean colors in 4 × 4 blocks, with seeded weights.

    Parameters
    ----------
    images : array of uint8, shape (N, H, W, 3)
    classes : int
    """
    return [_said_of(image, classes) for image in images]


def _said_of(image: NDArray[np.uint8], classes: int) -> Said:
    """Return what the model says of one image (H, W, 3)."""
    if image.mean() < _DARK:
        return Said(None)
    weights = np.random.default_rng(23).normal(0, 1, (_BLOCKS * _BLOCKS * 3, classes))
    rows, columns = (np.array_split(np.arange(n), _BLOCKS) for n in image.shape[:2])
    means = np.array([image[np.ix_(r, c)].mean(axis=(0, 1)) for r in rows for c in columns]).reshape(-1)
    logits = (means / 255 - 0.5) @ weights
    shares = np.exp(logits - logits.max())
    return Said(shares / shares.sum())


def say(status: int, message: object, **headers: str) -> Response:
    """Return a JSON answer; an underscore in a header's name is a dash."""
    body = json.dumps(message, ensure_ascii=False).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status, {"Content-Type": "application/json", **names})


def check(found: object, shape: object, where: str = "body") -> None:
    """Raise where a message is not of a shape.

    Parameters
    ----------
    found
        What JSON says.
    shape
        An object of names and shapes (``name?`` may be left out); a list of one shape, for any number; a type; a tuple
        of shapes, one of which it must be; a function that returns whether it is so; or the value itself.
    where : str
        For the error.
    """
    if shape is ANYTHING:
        return
    if isinstance(shape, dict):
        if not isinstance(found, dict):
            raise _ShapeError(f"{where}: not an object")
        names = {name.removesuffix("?"): inner for name, inner in shape.items()}
        unknown = sorted(set(found) - set(names))
        missing = sorted(n for n in shape if not n.endswith("?") and n not in found)
        if unknown or missing:
            raise _ShapeError(f"{where}: unknown {unknown}, missing {missing}")
        for name, value in found.items():
            check(value, names[name], f"{where}.{name}")
    elif isinstance(shape, list):
        if not isinstance(found, list) or not found:
            raise _ShapeError(f"{where}: not a list with something in it")
        for i, value in enumerate(found):
            check(value, shape[0], f"{where}[{i}]")
    elif isinstance(shape, tuple):
        problems = []
        for one in shape:
            try:
                check(found, one, where)
                return
            except _ShapeError as error:
                problems.append(str(error))
        raise _ShapeError("; or ".join(problems))
    elif isinstance(shape, type):
        # In JSON true is no number.
        if not isinstance(found, shape) or (shape is not bool and isinstance(found, bool)):
            raise _ShapeError(f"{where}: not a {shape.__name__}")
    elif callable(shape):
        if not shape(found):
            raise _ShapeError(f"{where}: not allowed")
    elif found != shape:
        raise _ShapeError(f"{where}: not {shape!r}")


class Vendor(ABC):
    """An emulator: what its vendor's document says, in front of the shared model.

    Parameters
    ----------
    folder : Path
        Where it writes down which images its model looked at, one line each, before anything is sent; and what the
        vendor would keep over a restart.
    behavior : Behavior
    """

    #: As in ``ttca init --platform``.
    name: ClassVar[str]
    #: The address of the document that it follows.
    document: ClassVar[str]
    #: The classes in the order of the model, in the vendor's own words.
    words: ClassVar[tuple[str, ...]]
    #: The value of the key's variable after the host, and the secret parts that the vendor knows.
    secret: ClassVar[str] = KEY
    #: What a user writes for the placeholders of the printed table.
    fills: ClassVar[Mapping[str, str]] = {}
    #: How many images one request may carry.
    most_images: ClassVar[int] = 1
    #: Whether the vendor can say of an image that it shows nothing; otherwise all classes are then equally likely.
    refuses: ClassVar[bool] = True
    #: Whether urlencoded bodies are forms; Roboflow's are not, whatever they say.
    reads_forms: ClassVar[bool] = True

    def __init__(self, folder: Path, behavior: Behavior | None = None) -> None:
        self.folder, self.behavior = folder, behavior or Behavior()
        self._log = os.open(folder / "processed.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._here = threading.local()
        #: Requests that were well-formed and counted against the limit, and those that were too many.
        self.counted = self.throttled = 0

    # -- what a vendor says ---------------------------------------------------------------------------------------

    @abstractmethod
    def answer(self, asked: Asked) -> Response:
        """Answer a request as the document says.

        Raises
        ------
        WrongError
            With the vendor's own answer to what its document does not name.
        """

    @abstractmethod
    def wrong(self, status: int, why: str) -> Response:
        """Return the vendor's answer to a request that is not as documented (400, 401, 404 …)."""

    @abstractmethod
    def too_fast(self) -> Response:
        """Return the vendor's answer to one request too many."""

    def not_ready(self) -> Response | None:
        """Return the vendor's answer while it starts, None where its document tells of none."""
        return None

    # -- what the emulators are made of -----------------------------------------------------------------------------

    def demand(self, holds: bool, why: str, status: int = 400) -> None:
        """Raise the vendor's answer to a request that is not as documented."""
        if not holds:
            raise WrongError(self.wrong(status, why))

    def demand_json(self, asked: Asked, shape: object, *, media: str = "application/json") -> Any:
        """Return the JSON of a body, which must be of this shape and this media type."""
        self.demand(asked.content_type == media, f"Content-Type {asked.content_type!r} is not {media}")
        try:
            found = json.loads(asked.body)
            check(found, shape)
        except (ValueError, _ShapeError) as error:
            raise WrongError(self.wrong(400, str(error))) from None
        return found

    def demand_query(self, asked: Asked, shape: dict[str, Any]) -> Mapping[str, str]:
        """Return the query, each name once, of this shape."""
        return self._demand_names(asked, asked.query, shape, "query")

    def demand_form(self, asked: Asked, shape: dict[str, Any], *, media: str = _MULTIPART) -> Mapping[str, Any]:
        """Return the fields of a form, each name once, of this shape and this media type."""
        self.demand(asked.content_type == media, f"Content-Type {asked.content_type!r} is not {media}")
        return self._demand_names(asked, asked.form, shape, "form")

    def demand_upload(self, asked: Asked, shape: dict[str, Any], *, file: str, text: str) -> Mapping[str, Any]:
        """Return the fields of a form that has, beside this shape, the image: as a file, or as base64 in a text."""
        media = asked.content_type if asked.content_type in _FORMS else _MULTIPART
        found = self.demand_form(asked, {**shape, f"{file}?": File, f"{text}?": str}, media=media)
        self.demand((file in found) != (text in found), f"MISSING_ARGUMENTS: {file}")
        return found

    def from_upload(self, form: Mapping[str, Any], *, file: str, text: str) -> NDArray[np.uint8]:
        """Return the levels of the image in such a form."""
        return self.levels(form[file].content) if file in form else self.from_base64(form[text])

    def _demand_names(
        self, asked: Asked, found: Mapping[str, Any], shape: dict[str, Any], where: str
    ) -> Mapping[str, Any]:
        self.demand(not asked.twice, f"twice: {asked.twice}")
        try:
            check(dict(found), shape, where)
        except _ShapeError as error:
            raise WrongError(self.wrong(400, str(error))) from None
        return found

    def admit(self) -> None:
        """Count a well-formed request against the limit; raise the vendor's answer where it is one too many."""
        self.counted += 1
        if self.counted <= self.behavior.just_restarted and (starting := self.not_ready()) is not None:
            raise WrongError(starting)
        if self.counted in self.behavior.throttles:
            self.throttled += 1
            raise WrongError(self.too_fast())

    def levels(self, file: bytes, formats: Sequence[str] = ("PNG", "JPEG")) -> NDArray[np.uint8]:
        """Return the levels of an image file in one of these formats."""
        try:
            with Image.open(io.BytesIO(file), formats=list(formats)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError):
            raise WrongError(self.bad_image()) from None

    def from_base64(self, text: str) -> NDArray[np.uint8]:
        """Return the levels of an image file in base64, without a line break or a prefix."""
        try:
            return self.levels(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise WrongError(self.bad_image()) from None

    def from_data_url(self, text: str) -> NDArray[np.uint8]:
        """Return the levels of an image in a ``data:`` URL whose media type is the file's."""
        head, _, body = text.partition(";base64,")
        self.demand(
            head in ("data:image/png", "data:image/jpeg", "data:image/jpg"),
            f"not a data URL of an image: {text[:40]!r}",
        )
        return self.from_base64(body)

    def bad_image(self) -> Response:
        """Return the vendor's answer to a file that is no image."""
        return self.wrong(400, "not an image")

    def look(self, *images: NDArray[np.uint8]) -> list[Said]:
        """Let the model look at images, and write down that it did, before anything is sent."""
        time.sleep(self.behavior.latency_s)
        said = [_said_of(image, len(self.words)) for image in images]
        if not self.refuses:
            alike = Said(np.full(len(self.words), 1 / len(self.words)))
            said = [alike if one.scores is None else one for one in said]
        now = time.time()
        request = getattr(self._here, "request", "")
        lines = [{"time": now, "request": request, "label": one.label} for one in said]
        os.write(self._log, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        return said

    def ranked(self, said: Said) -> list[tuple[str, float]]:
        """Return the vendor's words and the scores, best first."""
        assert said.scores is not None
        order = np.argsort(-said.scores)
        return [(self.words[k], float(said.scores[k])) for k in order]

    def app(self) -> FastAPI:
        """Return the ASGI application: one route that takes everything."""

        async def take(request: Request) -> Response:
            pairs = parse_qsl(request.url.query, keep_blank_values=True)
            media, _, parameters = request.headers.get("content-type", "").partition(";")
            body = await request.body()
            form: list[tuple[str, Any]] = []
            if media.strip().lower() == _MULTIPART:
                form = _parts(body, parameters)
            elif media.strip().lower() == _URLENCODED and self.reads_forms:
                form = [*parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)]
            names = [f"{name} in query" for name, _ in pairs] + [f"{name} in form" for name, _ in form]
            asked = Asked(
                request.method,
                request.url.path,
                dict(pairs),
                {k.lower(): v for k, v in request.headers.items()},
                body,
                dict(form),
                str(request.url),
                tuple(sorted({name for name in names if names.count(name) > 1})),
            )
            try:
                return await run_in_threadpool(self._answer, asked)
            except WrongError as error:
                return error.response

        app = FastAPI(openapi_url=None)
        app.add_route("/{path:path}", take, methods=["GET", "POST", "PUT", "DELETE"])
        return app

    def _answer(self, asked: Asked) -> Response:
        self._here.request = asked.headers.get("idempotency-key", "")
        return self.answer(asked)


def _parts(body: bytes, parameters: str) -> list[tuple[str, str | File]]:
    """Return the names and values of a multipart form (RFC 7578): a text, or a file where a type or a name is given."""
    boundary = dict(p.strip().partition("=")[::2] for p in parameters.split(";")).get("boundary", "").strip('"')
    found: list[tuple[str, str | File]] = []
    for part in (b"\r\n" + body).split(f"\r\n--{boundary}".encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        said = re.findall(r'(\w+)="([^"]*)"', headers.get("content-disposition", ""))
        named = dict(said)
        media = headers.get("content-type", "")
        if "filename" in named or media:
            found.append((named.get("name", ""), File(named.get("filename", ""), media, content)))
        else:
            # A file without a name is bytes; a text that no decoder takes is one, too.
            try:
                found.append((named.get("name", ""), content.decode()))
            except UnicodeDecodeError:
                found.append((named.get("name", ""), File("", "", content)))
    return found


def one_of(*values: object) -> Callable[[object], bool]:
    """Return a shape: one of these values."""
    return lambda found: found in values

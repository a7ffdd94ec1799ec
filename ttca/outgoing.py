"""Requests that go out: the image in them gets the δ of its class, whatever program of `requests` or `httpx` sends."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, TypeVar

import requests
from requests.adapters import BaseAdapter

from ttca.errors import ConfigError, DataError, ImageError
from ttca.members import move_bytes
from ttca.perturbations import PerturbationSet
from ttca.platforms.protocols.encoding import as_png

__all__ = ["apply_to_requests"]

Client = TypeVar("Client")

_MARK = "ttca.sha256"
# Of the headers that say what the body was, those that would be wrong afterwards and cannot be made right here.
_SIGNED = ("content-md5", "digest", "content-digest", "x-amz-content-sha256", "signature", "signature-input")
_SUFFIX = re.compile(rb"(filename\*?=[^;\r\n]*?)\.[A-Za-z0-9]{2,5}(?=\"?(?:;|\r\n|$))", re.IGNORECASE)
_TYPE = re.compile(rb"(?im)^content-type:[^\r\n]*")
_LENGTH = re.compile(rb"(?im)^content-length:[^\r\n]*\r\n")
_ENCODED = re.compile(rb"(?im)^content-transfer-encoding:\s*(?!binary|8bit|7bit)")
_DATA_URL = re.compile(r"data:image/[A-Za-z0-9.+-]+;base64,")
# No image in base64 is shorter.
_SHORTEST = 40


def apply_to_requests(
    client: Client, perturbations: PerturbationSet, label: str | int, *, url: str | None = None
) -> Client:
    """Let a client apply δ to the image in each request it sends from now on, and return it.

    Parameters
    ----------
    client : requests.Session, httpx.Client or httpx.AsyncClient
    perturbations : PerturbationSet
        One that may be used (:func:`ttca.members_set.check_usable`).
    label : str or int
        The true class of the images, chosen by whom they belong to.
    url : str, optional
        Only requests whose URL begins so are changed; by default all that have a body.

    Raises
    ------
    ConfigError, PerturbationError
        If the client is none of these, or the class is none of the set's.

    Notes
    -----
    The image is the whole body, one part of a form (``multipart/form-data``), or a text in base64 in JSON. It goes the
    set's preparation and becomes a PNG, and the headers follow. A request with a body in which there is not exactly one
    image, that is compressed or signed, raises ImageError (DataError where the image cannot be read) before anything is
    sent: nothing goes out unchanged unseen.

    Examples
    --------
    >>> session = apply_to_requests(requests.Session(), perturbations, "cat")  # doctest: +SKIP
    >>> session.post("https://api.example/classify", files={"image": open("me.jpg", "rb")})  # doctest: +SKIP
    """
    if isinstance(label, str):
        perturbations.class_index(label)
    elif not 0 <= label < len(perturbations.classes):
        raise ConfigError(f"Expected a class number in 0..{len(perturbations.classes) - 1}, got {label}.")
    change = _Change(perturbations, label, url)
    httpx = sys.modules.get("httpx")
    if isinstance(client, requests.Session):
        for prefix, adapter in list(client.adapters.items()):
            client.mount(prefix, _Applying(adapter, change))
    elif httpx is not None and isinstance(client, httpx.AsyncClient):
        hook: Callable[[Any], Any] = _async_hook(change, httpx.ByteStream)
        client.event_hooks["request"].append(hook)
    elif httpx is not None and isinstance(client, httpx.Client):
        client.event_hooks["request"].append(_hook(change, httpx.ByteStream))
    else:
        raise ConfigError(
            f"Expected a requests.Session, an httpx.Client or an httpx.AsyncClient, got {type(client).__name__}."
        )
    return client


@dataclass(frozen=True)
class _Change:
    """What is done to the body of a request."""

    perturbations: PerturbationSet
    label: str | int
    url: str | None

    def concerns(self, url: str) -> bool:
        return self.url is None or url.startswith(self.url)

    def made(self, body: bytes, headers: Mapping[str, str], url: str) -> tuple[bytes, str]:
        """Return the new body and its content type; raise where there is not exactly one image in it."""
        lower = {name.lower(): value for name, value in headers.items()}
        where = url.partition("?")[0]
        signed = [name for name in _SIGNED if name in lower]
        signed += ["authorization"] if lower.get("authorization", "").startswith("AWS4-") else []
        if signed or lower.get("content-encoding", "identity").lower() != "identity":
            raise ImageError(
                f"Expected a request to {where} whose body can be changed, got one that is "
                f"{f'signed ({signed[0]})' if signed else 'compressed'}. Apply δ before it is made: "
                "PerturbationSet.apply. Nothing was sent."
            )
        kind = lower.get("content-type", "")
        found: list[bytes] = []
        new, kind = self._rewritten(body, kind, found)
        if len(found) != 1:
            raise ImageError(
                f"Expected exactly one image in the request to {where}, got {len(found) or 'none'}. Give url= to leave "
                "other requests alone, or apply δ before: PerturbationSet.apply. Nothing was sent."
            )
        return new, kind

    def _rewritten(self, body: bytes, kind: str, found: list[bytes]) -> tuple[bytes, str]:
        """Return a body with its images changed, and its type; ``found`` gets each image as it came."""
        message = Message()
        message["Content-Type"] = kind or "application/octet-stream"
        said, boundary = message.get_content_type(), message.get_boundary()
        if said.startswith("multipart/") and boundary:
            return self._parts(body, b"--" + boundary.encode(), found), kind
        if said == "application/json" or said.endswith("+json"):
            try:
                whole = json.loads(body)
            except (ValueError, RecursionError):
                return body, kind
            new = self._in_json(whole, found)
            return json.dumps(new, ensure_ascii=False).encode() if found else body, kind
        if _is_image(body):
            return self._png(body, found), "image/png"
        return body, kind

    def _parts(self, body: bytes, delimiter: bytes, found: list[bytes]) -> bytes:
        # A line break belongs to each delimiter; the first may have none before it.
        first, *parts = (b"\r\n" + body).split(b"\r\n" + delimiter)
        new = [first]
        for part in parts:
            head, gap, content = part.partition(b"\r\n\r\n")
            if gap and _is_image(content):
                if _ENCODED.search(head):
                    raise ImageError(
                        "Expected the image in a form as it is, got one that is encoded. Nothing was sent."
                    )
                head = _SUFFIX.sub(rb"\1.png", _TYPE.sub(b"Content-Type: image/png", _LENGTH.sub(b"", head)))
                part = head + gap + self._png(content, found)
            new.append(part)
        return (b"\r\n" + delimiter).join(new)[2:]

    def _in_json(self, value: Any, found: list[bytes]) -> Any:
        if isinstance(value, dict):
            return {name: self._in_json(inner, found) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._in_json(inner, found) for inner in value]
        if not isinstance(value, str) or len(value) < _SHORTEST:
            return value
        prefix = _DATA_URL.match(value)
        try:
            data = base64.b64decode(value[prefix.end() if prefix else 0 :], validate=True)
        except (binascii.Error, ValueError):
            return value
        if not _is_image(data):
            return value
        return ("data:image/png;base64," if prefix else "") + base64.b64encode(self._png(data, found)).decode()

    def _png(self, data: bytes, found: list[bytes]) -> bytes:
        found.append(data)
        try:
            return as_png(move_bytes(self.perturbations, data, self.label).after)
        except (DataError, ImageError) as error:
            raise type(error)(f"{error} Nothing was sent.") from None


def _is_image(data: bytes) -> bool:
    """Whether bytes begin as an image's file does."""
    return (
        data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"))
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[:2] == b"BM" and int.from_bytes(data[2:6], "little") == len(data))
        or (data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"))
    )


def _whole(body: Any) -> bytes:
    """Return a body that may be a text, a file or a generator."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if hasattr(body, "read"):
        said = body.read()
        return said.encode() if isinstance(said, str) else bytes(said)
    if isinstance(body, Iterable):
        return b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in body)
    raise ImageError(f"Expected a body of bytes in a request, got {type(body).__name__}. Nothing was sent.")


class _Applying(BaseAdapter):
    """Sends through another adapter, with the image in the body changed; the caller's request stays as it was."""

    def __init__(self, inner: BaseAdapter, change: _Change) -> None:
        super().__init__()
        self._inner, self._change = inner, change

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = request.url or ""
        if request.body and self._change.concerns(url):
            body, kind = self._change.made(_whole(request.body), request.headers, url)
            # A copy: where the session follows a redirect it sends the caller's request again, through here.
            changed = request.copy()
            changed.headers = request.headers.copy()
            changed.headers.pop("Transfer-Encoding", None)
            changed.headers["Content-Type"], changed.headers["Content-Length"] = kind, str(len(body))
            changed.body = body
            return self._inner.send(changed, *args, **kwargs)
        return self._inner.send(request, *args, **kwargs)

    def close(self) -> None:
        self._inner.close()


def _hook(change: _Change, stream: Callable[[bytes], Any]) -> Callable[[Any], None]:
    def hook(request: Any) -> None:
        if change.concerns(str(request.url)):
            _put(change, request, request.read(), stream)

    return hook


def _async_hook(change: _Change, stream: Callable[[bytes], Any]) -> Callable[[Any], Any]:
    async def hook(request: Any) -> None:
        if change.concerns(str(request.url)):
            _put(change, request, await request.aread(), stream)

    return hook


def _put(change: _Change, request: Any, body: bytes, stream: Callable[[bytes], Any]) -> None:
    """Give an httpx request its new body. One that a redirect sends on has it already."""
    if not body or request.extensions.get(_MARK) == hashlib.sha256(body).hexdigest():
        return
    new, kind = change.made(body, request.headers, str(request.url))
    request.headers.pop("Transfer-Encoding", None)
    request.headers["Content-Type"], request.headers["Content-Length"] = kind, str(len(new))
    request.stream = stream(new)
    request.extensions[_MARK] = hashlib.sha256(new).hexdigest()

"""The ways in which a key can travel, each with a real server that lets nobody in who sends it otherwise."""

from __future__ import annotations

import base64
import json
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.platforms.scripted import CLASSES, IMAGE_SHAPE, Exchange, ScriptedServer, images, scripted
from tests.pooling.anyhub import AnyHub, png
from ttca.config import PlatformSection
from ttca.inviting import toml_value
from ttca.platforms.http import HttpPlatform

VARIABLE = "TTCA_KEY_X"
#: The planted secrets: nobody but the platform may ever see them. They have what URLs, JSON and HTML escape.
USER, SECRET, SESSION = "AKIAplantedUser0001", "pl4nted/s3cret+Key==&0123", "pl4nted/s3ssion+Token<42>"
ANSWER = json.dumps({"label": "dog"}).encode()


@dataclass
class Door:
    """What a platform that asks for a key has seen: bodies, tokens it gave, and what it was sent that is secret."""

    bodies: list[bytes] = field(default_factory=list)
    refused: int = 0
    tokens: list[str] = field(default_factory=list)
    #: Which tokens it takes no longer.
    ended: set[str] = field(default_factory=set)
    #: Seconds that a token is said to last.
    lasts: Any = 3600
    #: Signatures that came.
    signatures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


Check = Callable[[Exchange, Door], bool]


@dataclass(frozen=True)
class Way:
    """One way: the lines of ``[platform]``, what the variable holds after the host, and who is let in."""

    table: str
    words: str
    check: Check
    send: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> str:
        """What the variable holds, bound to this machine."""
        return f"127.0.0.1 {self.words}"

    def section(self, url: str, **more: Any) -> PlatformSection:
        """Return the table of a platform that is asked in this way."""
        options = {"image_shape": list(IMAGE_SHAPE), "label": "label", "path": "v1/see", **self.send}
        table: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in tomllib.loads(self.table.format(url=url)).items()
        }
        return PlatformSection(
            url=url,
            protocol="template",
            classes=CLASSES,
            key_variable=VARIABLE,
            options=options,
            **table,
            **more,
        )

    def open(self, url: str) -> HttpPlatform:
        """Return a platform that is asked in this way."""
        return self.section(url).open()

    def contribution(self, hub: AnyHub, hub_url: str, url: str) -> str:
        """Return the file of a member who asks in this way, after the hub has two pictures for them."""
        section = self.section(url)
        with section.open() as platform:
            hub.action = {"fingerprint": platform.info.fingerprint_as_read}
        hub.me["remaining"] = 2
        hub.given = lambda wish: hub.lease({**wish, "size": 1}, images=[png(images(1, len(hub.asked))[0])])
        return (
            f'[contribute]\nhub = "{hub_url}"\ntoken_variable = "TTCA_HUB_X"\n[platform]\nurl = "{url}"\n'
            f'protocol = "template"\nclasses = {json.dumps(CLASSES)}\nkey_variable = "{VARIABLE}"\n'
            f"{self.table.format(url=url)}\n[platform.options]\n"
            + "".join(f"{name} = {toml_value(value)}\n" for name, value in section.options.items())
        )


def headers_are(**wanted: str) -> Check:
    """Let in who sends these headers."""
    named = {name.replace("_", "-"): value for name, value in wanted.items()}
    return lambda exchange, _: all(exchange.headers.get_all(name) == [value] for name, value in named.items())


def basic_is(user: str, password: str) -> Check:
    """Let in who sends this pair as RFC 7617 has it."""

    def check(exchange: Exchange, _door: Door) -> bool:
        scheme, _, pair = exchange.headers.get("Authorization", "").partition(" ")
        return scheme == "Basic" and base64.b64decode(pair).decode() == f"{user}:{password}"

    return check


def query_is(**wanted: str) -> Check:
    """Let in whose URL has these fields, each once."""
    return lambda exchange, _: parse_qs(urlsplit(exchange.path).query) == {k: [v] for k, v in wanted.items()}


def json_is(**wanted: str) -> Check:
    """Let in whose JSON has these members beside its own."""

    def check(exchange: Exchange, _: Door) -> bool:
        said = json.loads(exchange.body)
        return "picture" in said and {k: said.get(k) for k in wanted} == wanted

    return check


def parts_of(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of a form with files."""
    form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    assert not form.defects
    found: dict[str, bytes] = {}
    for part in form.walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            assert name not in found
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found[name] = content
    return found


def multipart_is(**wanted: str) -> Check:
    """Let in whose form has these fields beside the picture."""

    def check(exchange: Exchange, _: Door) -> bool:
        found = parts_of(exchange.headers["Content-Type"], exchange.body)
        return found.pop("image")[:4] == b"\x89PNG" and found == {k: v.encode() for k, v in wanted.items()}

    return check


def signed_by(access: str, secret: str, session: str | None) -> Check:
    """Let in whose signature botocore's own code makes too, of what arrived."""

    def check(exchange: Exchange, door: Door) -> bool:
        given = exchange.headers.get("Authorization", "")
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        door.signatures.append(given.partition("Signature=")[2])
        arrived = AWSRequest(
            method=exchange.command,
            url=f"http://{exchange.headers['Host']}{exchange.path}",
            headers={name: exchange.headers[name] for name in names},
            data=exchange.body,
        )
        arrived.context["timestamp"] = exchange.headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials(access, secret, session), "rekognition", "eu-west-1")
        signature = signer.signature(signer.string_to_sign(arrived, signer.canonical_request(arrived)), arrived)
        return (
            {"host", "x-amz-date", "content-type"} <= set(names)
            and given.startswith(f"AWS4-HMAC-SHA256 Credential={signer.scope(arrived)}, ")
            and signature == door.signatures[-1]
            and exchange.headers.get("X-Amz-Security-Token") == session
        )

    return check


def token_is(header: str = "Authorization", scheme: str = "Bearer ") -> Check:
    """Let in who sends a token that holds."""
    return lambda exchange, door: (
        exchange.headers.get(header) in [scheme + t for t in door.tokens if t not in door.ended]
    )


def give_token(exchange: Exchange, door: Door) -> None:
    """Be a token endpoint: id and secret by Basic, each form-encoded first, or in the form; never both."""
    form = {k: v for k, [v] in parse_qs(exchange.body.decode()).items()}
    scheme, _, pair = exchange.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        who = tuple(map(unquote_plus, base64.b64decode(pair).decode().split(":")))
    else:
        who = (form.pop("client_id", ""), form.pop("client_secret", ""))
    if who != (USER, SECRET) or form.pop("grant_type", "") != "client_credentials":
        exchange.reply(401, json.dumps({"error": "invalid_client", "you": [pair, *who]}).encode())
        return
    with door.lock:
        door.tokens.append(f"acc3ss-pl4nted+token/{len(door.tokens)}")
        said = {"access_token": door.tokens[-1], "token_type": "bearer", "expires_in": door.lasts, **form}
    exchange.reply(200, json.dumps(said).encode(), {"Content-Type": "application/json"})


_JSON = {"send": "json", "body": {"picture": "{image}"}}
_PAIR = f"{USER} {SECRET}"
WAYS = {
    "header": Way("", SECRET, headers_are(Authorization=f"Bearer {SECRET}")),
    "header of its own": Way('key_header = "X-Api-Key"\nkey_scheme = ""', SECRET, headers_are(X_Api_Key=SECRET)),
    "headers": Way('key_names = ["X-App", "X-App-Key"]', _PAIR, headers_are(X_App=USER, X_App_Key=SECRET)),
    "Basic": Way('key_scheme = "Basic"', _PAIR, basic_is(USER, SECRET)),
    "Basic alone": Way('key_scheme = "Basic"', SECRET, basic_is(SECRET, "")),
    "query": Way('key_in = "query"\nkey_names = ["api_key"]', SECRET, query_is(api_key=SECRET)),
    "query, pair": Way(
        'key_in = "query"\nkey_names = ["user", "secret"]',
        _PAIR,
        query_is(user=USER, secret=SECRET, model="faces"),
        {"path": "v1/see?model=faces"},
    ),
    "JSON": Way(
        'key_in = "body"\nkey_names = ["user", "secret"]', _PAIR, json_is(user=USER, secret=SECRET), _JSON
    ),
    "form": Way(
        'key_in = "body"\nkey_names = ["user", "secret"]',
        _PAIR,
        multipart_is(user=USER, secret=SECRET, models="faces"),
        {"send": "multipart", "fields": {"models": "faces"}},
    ),
    "aws4": Way(
        'sign = "aws4"\nsign_region = "eu-west-1"\nsign_service = "rekognition"',
        _PAIR,
        signed_by(USER, SECRET, None),
        {**_JSON, "headers": {"X-Amz-Target": "Rekognition.See"}, "path": "a%20b/%7Ec/?z=1&a=%2F&b"},
    ),
    "aws4, session": Way(
        'sign = "aws4"\nsign_region = "eu-west-1"\nsign_service = "rekognition"',
        f"{_PAIR} {SESSION}",
        signed_by(USER, SECRET, SESSION),
    ),
    "token": Way('token_from = {{ url = "{url}/token/" }}', _PAIR, token_is()),
    "token, form": Way(
        'key_header = "X-Token"\nkey_scheme = ""\n'
        'token_from = {{ url = "{url}/token/", key_in = "body", scope = "see faces", fields = {{ audience = "me" }} }}',
        _PAIR,
        token_is("X-Token", ""),
    ),
}  # fmt: skip


def planted(door: Door) -> list[str]:
    """Return what must be nowhere: the planted secrets, what was made of them, and the beginning of each."""
    pairs = [base64.b64encode(f"{a}:{b}".encode()).decode() for a, b in ((USER, SECRET), (SECRET, ""))]
    # Half a key is a leak too.
    return [s[:10] for s in (USER, SECRET, SESSION, *pairs, *door.tokens, *door.signatures)] + ["s3cret", "s3ssion"]


@contextmanager
def guarded(way: Way, answer: Callable[[Exchange], None] | None = None) -> Iterator[tuple[ScriptedServer, Door]]:
    """Run a platform that answers who is let in, and a token endpoint; give it and what it has seen."""
    door = Door()

    def on_post(exchange: Exchange) -> None:
        if exchange.path == "/token/":
            give_token(exchange, door)
        elif not way.check(exchange, door):
            door.refused += 1
            exchange.reply(401, b"who are you?")
        else:
            door.bodies.append(exchange.body)
            (answer or (lambda e: e.reply(200, ANSWER)))(exchange)

    with scripted(on_post) as server:
        yield server, door

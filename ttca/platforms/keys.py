"""Where a platform's key is, how it travels, and the one place where it is put into a request."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal, get_args
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlencode, urlsplit

import requests

from ttca.errors import ConfigError
from ttca.masking import SHORTEST_MASKED, basic, secret
from ttca.platforms.addresses import checked_url, one_host
from ttca.platforms.aws4 import sign
from ttca.platforms.protocols import TRANSPORT_HEADERS, Request
from ttca.platforms.protocols.reading import excerpt
from ttca.platforms.tokens import Token

__all__ = ["Key", "TokenFrom", "add_key", "key_problem", "no_place", "secret_problem"]

Place = Literal["header", "query", "body"]

_KEY_VARIABLE = re.compile(r"TTCA_KEY_[A-Za-z0-9_]+")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# A name that needs no quoting in a query, a form or a header of a multipart body.
_FIELD = re.compile(r"[A-Za-z0-9_.:\[\]-]+")
_AWS_WORD = re.compile(r"[a-z0-9-]+")
# Shorter keys are refused off this machine: they could be guessed.
_SHORTEST_KEY = 8

_BAD_VARIABLE = (
    "Expected key_variable to be the name of an environment variable that starts with TTCA_KEY_, got something else "
    "(not shown here, in case it is the key itself). Put the key into such a variable and give its name."
)


@dataclass(frozen=True, kw_only=True)
class TokenFrom:
    """Where access tokens come from that end: OAuth 2.0, client credentials (RFC 6749, section 4.4).

    Parameters
    ----------
    url : str
        Of the token endpoint. The key's variable then holds ``host id secret``, bound to this URL's host, and where
        the platform has another one, ``token-host,platform-host id secret``: the token goes to the second.
    scope : str, optional
        What the token is asked for.
    key_in : {'header', 'body'}
        Whether id and secret travel by HTTP's Basic scheme, as every such service must accept, or as ``client_id`` and
        ``client_secret`` in the form.
    fields : mapping of str to str
        More fields of the form, such as an ``audience``; never a secret.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    url: str
    scope: str | None = None
    key_in: Literal["header", "body"] = "header"
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_url(self.url)
        if self.key_in not in ("header", "body"):
            raise ConfigError(f"Expected key_in of token_from as header or body, got {excerpt(self.key_in)!r}.")
        taken = {"grant_type", "scope", "client_id", "client_secret"} & self.fields.keys()
        if taken or not all(isinstance(v, str) for v in self.fields.values()):
            raise ConfigError(
                "Expected fields of token_from as texts under names of their own, got "
                f"{', '.join(sorted(taken)) or 'other values'}. Remove or correct them; id and secret go into the "
                "variable."
            )

    @property
    def host(self) -> str:
        """The host that id and secret go to."""
        return checked_url(self.url)[1]

    @property
    def origin(self) -> str:
        """The URL without its path."""
        whole, _, _ = checked_url(self.url)
        return whole.removesuffix(urlsplit(whole).path)

    @property
    def request(self) -> Request:
        """What asks for a token, all but id and secret."""
        scope = {} if self.scope is None else {"scope": self.scope}
        form = urlencode({"grant_type": "client_credentials", **scope, **self.fields})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        # The path as it was typed: a last slash may matter.
        return Request("POST", urlsplit(self.url).path.removeprefix("/"), headers, form.encode())

    def key(self) -> Key:
        """Return how id and secret travel."""
        if self.key_in == "body":
            return Key(place="body", names=("client_id", "client_secret"))
        return Key(scheme="Basic", spelled_for_forms=True)


@dataclass(frozen=True, kw_only=True)
class Key:
    """Where the key is, and how it travels; never the key itself.

    Parameters
    ----------
    variable : str, optional
        Name of the environment variable with the key, starting with ``TTCA_KEY_``; a credential's own comes
        first. Its value is ``host key``, which binds the key to one host (or to several: ``host,host key``); on this
        machine ``key`` alone will do. A pair is ``host key secret``, with ``sign`` it is ``host access secret`` or
        ``host access secret session``, with ``token_from`` it is ``host id secret``.
    header, scheme : str
        The header that carries the key, and the word before it; ``X-Api-Key`` and an empty word for many APIs. With
        the word ``Basic``, ``key:secret`` travels in base64 (RFC 7617); an empty secret where there is none.
    place : {'header', 'query', 'body'}
        Where it travels. In the body it becomes a member of the JSON object or a field of the form, as the request is;
        a GET has no body, and then carries none.
    names : tuple of str
        How the parts of the key are called in query or body, one name for each. With ``place='header'``: the headers
        that carry one part each, as it is.
    sign : {'aws4'}, optional
        Send no key but a signature made with it, by AWS Signature Version 4; needs the extra ``ttca[aws]``.
    region, service : str, optional
        What is signed for.
    token_from : TokenFrom, optional
        Send no key but an access token bought with it.
    spelled_for_forms : bool
        Whether the parts of ``Basic`` are form-encoded first, as OAuth has it (RFC 6749, section 2.3.1).

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    variable: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"
    place: Place = "header"
    names: tuple[str, ...] = ()
    sign: Literal["aws4"] | None = None
    region: str | None = None
    service: str | None = None
    token_from: TokenFrom | None = None
    spelled_for_forms: bool = False

    def __post_init__(self) -> None:
        if self.variable is not None and not _KEY_VARIABLE.fullmatch(self.variable):
            raise ConfigError(_BAD_VARIABLE)
        if not _TOKEN.fullmatch(self.header) or not re.fullmatch(r"[A-Za-z0-9-]*", self.scheme, re.ASCII):
            raise ConfigError(
                f"Expected key_header to be a header's name and key_scheme a word, got {excerpt(self.header, 40)!r} "
                "and a key_scheme that is not shown here. Correct them. The key itself goes into the variable."
            )
        if self.place not in get_args(Place):
            raise ConfigError(f"Expected key_in as header, query or body, got {excerpt(self.place)!r}. Correct it.")
        self._check_names()
        self._check_header()
        self._check_signature()

    def _check_names(self) -> None:
        # Names are not shown: one may be the key, in the wrong place.
        if isinstance(self.names, str) or not all(isinstance(n, str) for n in self.names):
            raise ConfigError("Expected key_names as a list of names, got something else (not shown). Correct it.")
        fits = _TOKEN if self.place == "header" else _FIELD
        names = [name.lower() for name in self.names]
        if not all(fits.fullmatch(n) for n in names) or len(set(names)) < len(names):
            raise ConfigError(
                f"Expected key_names as different names that a {self.place} can have, got others (not shown here). "
                "Correct them. The key itself goes into the variable."
            )
        if self.place != "header" and not names:
            raise ConfigError(
                f'Expected key_names with key_in = "{self.place}", got none. Say how the key is called there.'
            )
        if self.token_from is not None and len(names) > 1:
            raise ConfigError(f"Expected one of key_names for the token of token_from, got {len(names)}. Remove some.")

    def _check_header(self) -> None:
        used = [self.header] if not self.names else self.names if self.place == "header" else []
        for name in used:
            if name.lower() in {*TRANSPORT_HEADERS, "content-type"}:
                raise ConfigError(
                    f"Expected key_header to name a header that carries only the key, got {name}. Choose another."
                )
        if (self.names or self.sign) and (self.header, self.scheme) != ("Authorization", "Bearer"):
            other = "sign" if self.sign else "key_names"
            raise ConfigError(
                f"Expected key_header and key_scheme without {other}, which says how the key travels, got both. "
                "Remove one."
            )
        if self.basic and self.token_from is not None:
            raise ConfigError(
                'Expected a key_scheme for the token of token_from, got "Basic", which sends a pair. Remove one.'
            )

    def _check_signature(self) -> None:
        where = [name for name in ("region", "service") if getattr(self, name) is not None]
        if self.sign is None:
            if where:
                raise ConfigError(f'Expected sign = "aws4" beside sign_{where[0]}, got none. Add it or remove both.')
            return
        if self.sign != "aws4":
            raise ConfigError(f"Expected sign as aws4, got {excerpt(self.sign)!r}. Correct it.")
        if not all(_AWS_WORD.fullmatch(getattr(self, name) or "") for name in ("region", "service")):
            raise ConfigError(
                "Expected sign_region and sign_service as names of AWS, such as eu-west-1 and rekognition, got "
                f"{excerpt(self.region)!r} and {excerpt(self.service)!r}. Set both."
            )
        if self.names or self.place != "header" or self.token_from is not None:
            raise ConfigError(
                "Expected sign without key_in, key_names and token_from, got both: a signature has its own headers. "
                "Remove one."
            )
        if find_spec("botocore") is None:
            raise ConfigError('Expected botocore for sign = "aws4", got none. Install it with: pip install "ttca[aws]"')

    @property
    def basic(self) -> bool:
        """Whether a pair travels in base64."""
        return self.scheme.lower() == "basic"

    @property
    def _parts(self) -> tuple[int, int]:
        """How many parts the key has, at least and at most."""
        if self.token_from is not None:
            return 2, 2
        if self.sign is not None:
            return 2, 3
        if self.names:
            return len(self.names), len(self.names)
        return (1, 2) if self.basic else (1, 1)

    def example(self, host: str) -> str:
        """Return what the variable of somebody who asks ``host`` may look like."""
        if self.token_from is not None:
            there = self.token_from.host
            hosts = there if one_host(there) == one_host(host) else f"{there},{host}"
            return f"{hosts} YOUR-ID YOUR-SECRET"
        if self.sign is not None:
            return f"{host} YOUR-ACCESS-KEY YOUR-SECRET"
        count = self._parts[1]
        more = " YOUR-SECRET" if count == 2 else "".join(f" YOUR-PART-{n + 1}" for n in range(1, count))
        return f"{host} YOUR-KEY{more}"


def secret_problem(
    variable: str, host: str, what: str, *, parts: tuple[int, int] = (1, 1), example: str | None = None
) -> str | None:
    """Return what is wrong with a secret that is to go to a host, never the secret.

    Parameters
    ----------
    variable : str
        It holds the secret, or ``host secret``, which binds it to one host; ``host,host secret`` to several.
    host : str
    what : str
        What the secret is called: a key, a token.
    parts : (int, int)
        Of how many words it is, at least and at most; where there are several, the host must stand before them.
    example : str, optional
        What to set the variable to.
    """
    words = os.environ.get(variable, "").split()
    least, most = parts
    set_to = example or f"{host} YOUR-{what.upper()}"
    if not words:
        return (
            f"Expected the environment variable {variable} to hold a {what}, got none. Set it to the host that the "
            f"{what} is for and the {what} itself: export {variable}='{set_to}'"
        )
    bare = len(words) == 1 and least == 1
    if not (bare or least < len(words) <= most + 1):
        got = "1 word" if len(words) == 1 else f"{len(words)} words"
        few = f": the host or one of the {least} parts of the {what} is missing" if len(words) <= least else ""
        return (
            f"Expected {variable} to hold a host and the {what} for it, with spaces between, got {got}{few}. "
            f"Set it: export {variable}='{set_to}'"
        )
    if not all(map(_VISIBLE_ASCII.fullmatch, words)):
        return (
            f"Expected {variable} to hold a host and the {what} for it in visible ASCII, got other characters. "
            f"Set it: export {variable}='{set_to}'"
        )
    if not bare and one_host(host) not in map(one_host, words[0].split(",")):
        if one_host(host) in map(_host_of, words[0].split(",")):
            return (
                f"Expected {variable} to begin with the host alone, got it with a scheme, a port or a path. "
                f"Leave them out: export {variable}='{set_to}'"
            )
        return (
            f"Expected {variable} to hold a {what} bound to {host}, got one bound to another host. "
            f"A {what} goes only to its own host: use the variable made for this one."
        )
    if words[-1][0] == words[-1][-1] and words[-1][0] in "'\"":
        return f"Expected {variable} to hold a {what}, got one within quotes. Leave these out."
    # The first of several parts is a name, which may be short.
    if min(map(len, words[2:] or words[-1:])) < SHORTEST_MASKED:
        return (
            f"Expected {variable} to hold a {what} of {SHORTEST_MASKED} characters or more, got less, which cannot be "
            f"masked where it is echoed. {'Copy all of it' if what == 'token' else 'Use a longer one'}."
        )
    return None


def _host_of(address: str) -> str:
    """Return the host in what may be a whole URL, or a host with a port; empty where there is none."""
    try:
        return one_host(urlsplit(address if "//" in address else f"//{address}").hostname or "")
    except ValueError:
        return ""


def key_problem(key: Key, variable: str, host: str, *, stays_here: bool) -> str | None:
    """Return what is wrong with the key in a variable, never the key.

    Parameters
    ----------
    key : Key
        How it travels.
    variable : str
    host : str
        Where it goes.
    stays_here : bool
        Whether that is this machine, and it goes no further: then it need not be bound, and may be shorter.
    """
    if not _KEY_VARIABLE.fullmatch(variable):
        return _BAD_VARIABLE
    example = key.example(host)
    problem = secret_problem(variable, host, "key", parts=key._parts, example=example)
    if problem is not None:
        return problem
    words = os.environ.get(variable, "").split()
    # The first of several is a name, which may be short.
    secrets = words[2:] or words[1:]
    if not stays_here and (not secrets or min(map(len, secrets)) < _SHORTEST_KEY):
        return (
            f"Expected {variable} to hold the platform's host and a key of {_SHORTEST_KEY} characters or more, "
            f"got less. Set it: export {variable}='{example}'"
        )
    if key.basic and ":" in (words[1:] or words)[0]:
        return (
            f"Expected {variable} to hold key and secret as two words, got a colon in the first. Set it: "
            f"export {variable}='{example}'"
        )
    return None


def no_place(request: Request, key: Key) -> str | None:
    """Return why a key cannot travel with a request where it should, before the key is read; None if it can."""
    if request.method == "GET":
        # No body, and in an address that the platform gave (of a poll) the key's own name is written over.
        return None
    if key.place == "query":
        there = {name for name, _ in parse_qsl(urlsplit(f"/{request.path}").query, keep_blank_values=True)}
    elif key.place == "body":
        found = _names_in_body(request, key.names)
        if isinstance(found, str):
            return found
        there = found
    else:
        return None
    twice = sorted(there & set(key.names))
    if twice:
        return (
            f"Expected the request to leave {', '.join(twice)} to the key, got it in its {key.place}. Remove it there."
        )
    return None


def _names_in_body(request: Request, names: Sequence[str]) -> set[str] | str:
    """Return which names a body has already, or why it can have none."""
    kind, content_type = _kind(request.headers)
    body = request.body
    if kind == "json" and body.lstrip()[:1] == b"{":
        # Read only where a name may be in it: a body may hold a large image.
        if not any(json.dumps(name).encode() in body for name in names):
            return set()
        try:
            return set(json.loads(body))
        except (ValueError, RecursionError):
            return "Expected a body of JSON to put the key into, got one that cannot be read. Correct body."
    if kind == "form":
        return {unquote_plus(field.partition(b"=")[0].decode("latin-1")) for field in body.split(b"&")}
    boundary = _boundary(content_type)
    if kind == "multipart" and boundary and body.startswith(b"--" + boundary.encode()):
        return {name for name in names if f'name="{name}"'.encode() in body}
    return (
        'Expected a JSON object or a form as the body of the request, since key_in = "body", got '
        f"{excerpt(content_type or 'neither')}. Set key_in to header or query, or send the image within one."
    )


def _kind(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return what kind of body this is, and its content type."""
    content_type = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    main = content_type.partition(";")[0].strip().lower()
    known = {"application/x-www-form-urlencoded": "form", "multipart/form-data": "multipart"}
    return "json" if re.fullmatch(r"application/([\w.-]+\+)?json", main) else known.get(main, ""), content_type


def _boundary(content_type: str) -> str:
    found = re.search(r'boundary="?([^\s";]+)', content_type, re.IGNORECASE)
    return found[1] if found else ""


def add_key(prepared: requests.PreparedRequest, key: Key, variable: str, token: Token | None) -> str | None:
    """Put the key into a request that is otherwise complete, or return why it cannot be signed.

    No frame of ours holds the key while anything can fail, so no traceback, with locals or without, can show it.

    Parameters
    ----------
    prepared : requests.PreparedRequest
        One that :func:`no_place` has passed, with its length where it has a body.
    key : Key
    variable : str
        Where the key is; one that :func:`key_problem` has passed.
    token : Token, optional
        What travels instead of the key, where there is a ``token_from``.
    """
    if key.sign is not None:
        return sign(prepared, variable, region=key.region or "", service=key.service or "")
    if key.place == "body":
        _add_to_body(prepared, key.names, variable, token)
    elif key.place == "query":
        address = _without(prepared.url or "", key.names)
        prepared.url = f"{address}{urlencode(_named(key.names, variable, token))}"
    elif key.names:
        prepared.headers.update(_named(key.names, variable, token))
    elif key.basic:
        prepared.headers[key.header] = f"{key.scheme} {basic(variable, quote_plus if key.spelled_for_forms else str)}"
    else:
        prepared.headers[key.header] = f"{key.scheme} {_part(variable, token)}".lstrip()
    return None


def _without(url: str, names: Sequence[str]) -> str:
    """Return a URL without the fields of these names in its query, ready for more fields."""
    address, _, query = url.partition("?")
    kept = [field for field in query.split("&") if field and unquote_plus(field.partition("=")[0]) not in names]
    return f"{address}?{''.join(f'{field}&' for field in kept)}"


def _part(variable: str, token: Token | None, part: int = -1) -> str:
    return secret(variable, part) if token is None else token.value


def _named(names: Sequence[str], variable: str, token: Token | None) -> dict[str, str]:
    return {name: _part(variable, token, n) for n, name in enumerate(names)}


def _add_to_body(prepared: requests.PreparedRequest, names: Sequence[str], variable: str, token: Token | None) -> None:
    if prepared.method == "GET":
        return
    body = prepared.body or b""
    body = body.encode() if isinstance(body, str) else body
    kind, content_type = _kind(prepared.headers)
    if kind == "json":
        rest = body.lstrip()[1:]
        more = b"" if rest.lstrip()[:1] == b"}" else b", "
        prepared.body = json.dumps(_named(names, variable, token)).encode()[:-1] + more + rest
    elif kind == "form":
        prepared.body = urlencode(_named(names, variable, token)).encode() + (b"&" if body else b"") + body
    else:
        start = f"--{_boundary(content_type)}\r\nContent-Disposition: form-data; name="
        prepared.body = b"".join(
            [f'{start}"{n}"\r\n\r\n{value}\r\n'.encode() for n, value in _named(names, variable, token).items()]
            + [body]
        )
    prepared.headers["Content-Length"] = str(len(prepared.body))

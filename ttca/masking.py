"""Keys and tokens: read from their variables at the moment of use, and masked wherever they are echoed."""

from __future__ import annotations

import logging
import os
import re
import threading
from base64 import b64encode
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Set
from functools import lru_cache
from html.entities import codepoint2name
from urllib.parse import quote_plus

__all__ = [
    "SECRET_VARIABLES",
    "SHORTEST_MASKED",
    "basic",
    "hide_sent",
    "hide_token",
    "mask_logs",
    "masked",
    "masked_bytes",
    "masked_everywhere",
    "secret",
]

#: What the names of variables with a secret begin with: a platform's key, a hub's token, a database's password.
SECRET_VARIABLES = ("TTCA_KEY_", "TTCA_HUB_", "PGPASSWORD")
#: Characters: a shorter part of a key is not masked, since it would garble texts and bodies by chance.
SHORTEST_MASKED = 4
# A part below this many characters is masked as a whole word only: within other words and numbers it stands by chance.
_MASKED_WITHIN = 8
# So many tokens of one variable are remembered: requests with the one before the last may still be in flight.
_TOKENS_KEPT = 8
_tokens: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_TOKENS_KEPT))
_sent: dict[int, str] = {}


def secret(variable: str, part: int = -1) -> str:
    """Return one part of the secret in a variable, without the host it is bound to; empty when there is none."""
    words = os.environ.get(variable, "").split()
    parts = words[1:] or words
    return parts[part] if -len(parts) <= part < len(parts) else ""


def basic(variable: str, spelled: Callable[[str], str] = str) -> str:
    """Return the pair in a variable as HTTP's Basic scheme sends it, each part spelled first; no second part is ""."""
    return _paired(spelled(secret(variable, 0)), spelled(secret(variable, 1)))


def hide_token(variable: str, token: str) -> None:
    """Let a token that was bought with the secret of a variable be masked like it, from now on."""
    if token not in _tokens[variable]:
        _tokens[variable].append(token)


def hide_sent(made: str) -> None:
    """Let what this thread made of a secret for one request (a signature) be masked, until it makes the next one."""
    _sent[threading.get_ident()] = made


def masked(text: str, variable: str | None) -> str:
    """Return the text without the secret of a variable and what was made of it, in whatever form it is echoed."""
    return _without(text, _forms(variable))


def masked_everywhere(text: str) -> str:
    """Return the text without any secret of this process's environment, and without what was made of them."""
    # Tokens also of variables that have gone from the environment; copied at once, because other threads write.
    forms = {token for kept in list(_tokens.values()) for token in list(kept)} | set(_sent.values())
    for variable, value in os.environ.items():
        if variable.startswith(SECRET_VARIABLES):
            forms |= _hidden(value)
    return _without(text, forms)


def masked_bytes(body: bytes, variable: str | None) -> bytes:
    """Return the body with an echoed secret masked at its own length, because sizes must stay true."""
    for form in sorted(_forms(variable), key=len, reverse=True):
        body = _byte_pattern(form).sub(lambda found: b"*" * len(found[0]), body)
    return body


def mask_logs(names: Iterable[str]) -> None:
    """Mask what other libraries' loggers of these names write: a URL may hold a key, a canonical request a token."""
    for name in names:
        logging.getLogger(name).addFilter(_mask_record)


def _mask_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = masked_everywhere(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = masked_everywhere(logging.Formatter().formatException(record.exc_info))
        record.exc_info = None
    return True


def _without(text: str, forms: Set[str]) -> str:
    if not forms:
        return text
    # The longest first: one secret may begin with another.
    for form in sorted(forms, key=len, reverse=True):
        text = _pattern(form).sub("[key]", text)
    return text


def _forms(variable: str | None) -> set[str]:
    """Return what must not be shown of a variable, and of what this thread made last."""
    made = _sent.get(threading.get_ident())
    own = set() if variable is None else {*_hidden(os.environ.get(variable, "")), *list(_tokens.get(variable, ()))}
    return own if made is None else own | {made}


@lru_cache(maxsize=256)
def _hidden(value: str) -> frozenset[str]:
    """Return what must not be shown of a variable's value: parts but the host, and the pair in base64."""
    words = value.split()
    parts = words[1:] or words
    if not parts:
        return frozenset()
    found = {part for part in parts if len(part) >= SHORTEST_MASKED}
    first, second = parts[0], parts[1] if len(parts) > 1 else ""
    return frozenset(found | {_paired(first, second), _paired(quote_plus(first), quote_plus(second))})


def _paired(first: str, second: str) -> str:
    return b64encode(f"{first}:{second}".encode()).decode("ascii")


@lru_cache(maxsize=256)
def _pattern(form: str) -> re.Pattern[str]:
    """Return what finds a secret as it is, and with any of its characters escaped for JSON, URLs or HTML."""
    spelled = "".join(map(_any_spelling, form))
    if len(form) >= _MASKED_WITHIN:
        return re.compile(spelled)
    if form[0].isalnum():
        spelled = _begun(form[0]) + spelled[1:]
    return re.compile(spelled + ("(?![A-Za-z0-9])" if form[-1].isalnum() else ""))


@lru_cache(maxsize=256)
def _byte_pattern(form: str) -> re.Pattern[bytes]:
    return re.compile(_pattern(form).pattern.encode())


def _begun(first: str) -> str:
    """Return what finds the first letter or digit of a word: none stands before it, but for those of an escape."""
    # Looked at after that character: a search that stops at every place of a large body takes forty times as long.
    code = "[0-9A-Fa-f]{2}"
    escapes = [f"(?<={e}{first})" for e in (f"%{code}", f"%25{code}", rf"\\u00{code}", r"\\[bfnrt]")]
    return f"{first}(?:(?<![A-Za-z0-9.]{first})|{'|'.join(escapes)})"


def _any_spelling(character: str) -> str:
    if character.isalnum():
        return character
    code, number = f"(?i:{ord(character):02x})", ord(character)
    spellings = [
        # The longest first: an escape may begin with the character itself. Each also escaped once more.
        f"%(?:25)?{code}",
        f"&(?:amp;)?#(?:0*{number}|[xX]0*{code});",
        *([f"&(?:amp;)?{codepoint2name[number]};"] if number in codepoint2name else []),
        rf"\\{{1,4}}u00{code}",
        rf"\\{{0,4}}{re.escape(character)}",
    ]
    return f"(?:{'|'.join(spellings)})"

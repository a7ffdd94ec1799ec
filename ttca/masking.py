"""Keys and tokens: read from their variables at the moment of use, and masked wherever they are echoed."""

from __future__ import annotations

import html
import json
import os
from urllib.parse import quote

__all__ = ["SECRET_VARIABLES", "masked", "masked_bytes", "masked_everywhere", "secret"]

#: What the names of variables with a secret begin with: a platform's key, a hub's token, a database's password.
SECRET_VARIABLES = ("TTCA_KEY_", "TTCA_HUB_", "PGPASSWORD")
# Shorter keys are cleaned from messages only: masking them in a body would garble it by chance.
_MASKABLE = 8


def secret(variable: str) -> str:
    """Return the secret in a variable, without the host it is bound to; empty when there is none."""
    return (os.environ.get(variable, "").split() or [""])[-1]


def masked(text: str, variable: str | None) -> str:
    """Return the text without the secret of a variable, in whatever form it is echoed."""
    for form in _forms(variable):
        text = text.replace(form, "[key]")
    return text


def masked_everywhere(text: str) -> str:
    """Return the text without any secret of this process's environment."""
    for variable in os.environ:
        if variable.startswith(SECRET_VARIABLES):
            text = masked(text, variable)
    return text


def masked_bytes(body: bytes, variable: str | None) -> bytes:
    """Return the body with an echoed secret masked at its own length, because sizes must stay true."""
    for form in _forms(variable, _MASKABLE):
        body = body.replace(form.encode(), b"*" * len(form))
    return body


def _forms(variable: str | None, at_least: int = 1) -> list[str]:
    """Return how a secret may be written where it is echoed: as it is, and escaped for JSON, URLs and HTML."""
    key = "" if variable is None else secret(variable)
    if len(key) < at_least:
        return []
    slashed = json.dumps(key)[1:-1].replace("/", "\\/")
    codes = ("".join(c if c.isalnum() else f"\\u{ord(c):04{x}}" for c in key) for x in "xX")
    forms = {key, json.dumps(key)[1:-1], slashed, quote(key, safe=""), html.escape(key), *codes}
    return sorted(forms, key=len, reverse=True)

"""The members' page: one HTML file that applies a set in a browser, with the set and its signature inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ttca.errors import ConfigError
from ttca.expiry import check_not_expired
from ttca.members_set import Doubt, check_usable, read_set
from ttca.perturbations import PerturbationSet
from ttca.signing import SignatureError, Signed, signature_file, unsigned
from ttca.values import Value

__all__ = ["Published", "members_page", "publish_page"]

#: In the order in which they run, as one script.
_SCRIPTS = ("pixels.js", "files.js", "page.js")
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Published(Value):
    """A page that was written.

    Parameters
    ----------
    page : Path
    size : int
        Of the page, in bytes.
    perturbations : PerturbationSet
        What is in it.
    signed : Signed
    doubts : tuple of Doubt
        Why it should not be used as it is.
    """

    page: Path
    size: int
    perturbations: PerturbationSet
    signed: Signed
    doubts: tuple[Doubt, ...] = ()

    @property
    def warns(self) -> bool:
        """Whether the page works only for members who insist: it knows no other key, nor what was said since."""
        known = any(doubt.kind in ("unsigned", "not certified") for doubt in self.doubts)
        return known or self.signed.key is None or self.perturbations.has_expired()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        known = self.perturbations
        return {
            "page": str(self.page),
            "bytes": self.size,
            "about": known.about(),
            "signed_by": self.signed.key,
            "signature": self.signed.told,
            "classes": list(known.classes),
            "epsilon": known.epsilon,
            "expires": known.expires,
            "warns": self.warns,
            "doubts": [doubt.to_dict() for doubt in self.doubts],
        }


def publish_page(
    perturbations: Path, out: Path, *, key: str | None = None, anyway: bool = False, force: bool = False
) -> Published:
    """Write the page of a set.

    Parameters
    ----------
    perturbations : Path
        The members' file, with its signature beside it.
    out : Path
        A file that ends in ``.html``.
    key : str, optional
        The collective's public key: refuse a file that it did not sign.
    anyway : bool
        Publish a set that is not certified, has expired, or was not signed with that key or at all. The page says so,
        and works only for a member who insists.
    force : bool
        Overwrite a file that holds something else.

    Raises
    ------
    SignatureError, PerturbationError
        If the file is not what was signed, or its certificate cannot be read. If its collective has declared it
        expired: the page could not warn of that. All of this holds with ``anyway``, too. Without it, if the set may
        not be used.
    ConfigError
        If the page cannot be written, or another file lies there.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"Expected a page whose name ends in .html, got {out.name!r}. Browsers and hosts tell pages by that."
        )
    read = read_set(perturbations, key=key)
    if read.signed.key is None and not anyway:
        missing = unsigned(
            perturbations, "perturbations", otherwise="ttca run and ttca verify sign what they hand out."
        )
        raise SignatureError(
            f"Expected the signature of the collective's key beside {perturbations}, got none. Members could not tell "
            f"whether the page is whole. {missing}"
        )
    check_not_expired(perturbations, read.perturbations, read.signed.key)
    found = check_usable(read, anyway=anyway)
    try:
        content = perturbations.read_bytes()
        beside = signature_file(perturbations)
        signature = beside.read_text(encoding="utf-8-sig") if read.signed.key is not None else ""
        page = members_page(content, signature).encode()
        if out.exists() and not (out.is_file() and (force or out.read_bytes() == page)):
            raise ConfigError(
                f"Expected no file {out}, got one that holds something else. Choose another place, or overwrite it "
                "with --force."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(out.name + ".partial")
        partial.write_bytes(page)
        partial.replace(out)
    except OSError as error:
        raise ConfigError(f"Expected to write {out}, got: {error}. Choose another place.") from None
    return Published(page=out, size=len(page), perturbations=read.perturbations, signed=read.signed, doubts=found)


def members_page(content: bytes, signature: str) -> str:
    """Return the page as one HTML document that loads nothing.

    Parameters
    ----------
    content : bytes
        A file of :class:`~ttca.perturbations.PerturbationSet`, exactly as it was signed.
    signature : str
        What lies beside it (``.sig``); empty where nobody signed it.
    """
    strings = json.loads(_source("strings.json"))
    script, style = "".join(map(_source, _SCRIPTS)), _source("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src blob: data:; "
        "base-uri 'none'; form-action 'none'"
    )
    asks = "".join(f'<p lang="{name}">{html.escape(table["waiting"])}</p>' for name, table in strings.items())
    return Template(_source("page.html")).substitute(
        policy=policy,
        style=style,
        waiting=asks,
        # A name of a closing tag would end the element.
        strings=json.dumps(strings, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        signature=html.escape(signature.strip(), quote=False),
        set=base64.b64encode(_packed(content)).decode(),
        script=script,
    )


def _source(name: str) -> str:
    return (files("ttca") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _packed(content: bytes) -> bytes:
    """Return the shortest zlib stream: δ that looks like noise holds no repeats worth naming."""
    streams = []
    for strategy in _STRATEGIES:
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        streams.append(packer.compress(content) + packer.flush())
    return min(streams, key=len)

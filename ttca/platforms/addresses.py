"""Which URLs may be asked, and one spelling for each."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ttca.errors import ConfigError
from ttca.platforms.protocols.reading import excerpt

__all__ = ["checked_url", "one_address", "one_host"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")


def checked_url(url: str) -> tuple[str, str, bool]:
    """Return the URL without a last slash, its host, and whether that is this machine; quote no secret."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise ConfigError(
            "Expected url as https://host[:port][/path], got one that cannot be read. Correct it."
        ) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            "Expected url without user, password, query or fragment, got one with them (not shown). "
            "Put a key into an environment variable and name it in key_variable."
        )
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or re.search(r"[\s\\]", url):
        raise ConfigError(f"Expected url as https://host[:port][/path], got {excerpt(url)!r}. Correct it.")
    loopback = host == "localhost" or _is_loopback_address(host)
    if parts.scheme == "http" and not loopback:
        raise ConfigError(
            f"Expected https for {host}, got http: images and keys would travel in the clear. Use https://{host}."
        )
    shown = f"[{host}]" if ":" in host else host
    return (
        f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}",
        host,
        loopback,
    )


def one_host(host: str) -> str:
    """Return the one spelling of a host: this machine's names are one machine."""
    host = host.lower().rstrip(".")
    return "127.0.0.1" if host in ("localhost", "::1") else host


def one_address(url: str) -> str:
    """Return the one spelling of a URL that :func:`checked_url` has passed (see :func:`one_host`)."""
    parts = urlsplit(url)
    host, port = one_host(parts.hostname or ""), parts.port
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}{'' if port in (None, usual) else f':{port}'}{parts.path}"


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Inviting: what a member needs to take part from a machine of their own, in one file and one message."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ttca.config import ActionFile
from ttca.platforms.addresses import checked_url
from ttca.pooling.roll import Enrolled

__all__ = ["KEY_VARIABLE", "TOKEN_VARIABLE", "Invitation", "toml_value"]

#: The variables that a member's token and key go into.
TOKEN_VARIABLE, KEY_VARIABLE = "TTCA_HUB_TOKEN", "TTCA_KEY_MINE"
#: What stands where whoever runs the hub did not say it.
NO_URL, NO_INSTALL = "https://hub.example.org", "git clone URL-OF-TTCA ttca && pip install ./ttca"


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """Everything that a member is told, but the token.

    Parameters
    ----------
    action : ActionFile
    member : Enrolled
    key : str
        The collective's public key.
    url : str, optional
        Where the member reaches the hub; what ``[hub]`` says by default.
    """

    action: ActionFile
    member: Enrolled
    key: str
    url: str | None = None

    @property
    def hub(self) -> str:
        """Where the member reaches the hub."""
        return self.url or self.action.hub.url or NO_URL

    @property
    def missing(self) -> dict[str, str]:
        """What ``[hub]`` has yet to say before this can be sent, and what for."""
        url = {} if self.hub != NO_URL else {"url": "where members reach it"}
        return url | ({} if self.action.hub.install is not None else {"install": "the command that installs ttca"})

    @property
    def file_name(self) -> str:
        """How the member may call the file."""
        return (re.sub(r"[^A-Za-z0-9._-]+", "-", self.member.member).strip("-.") or "member") + ".toml"

    @property
    def file(self) -> str:
        """The member's contribution file: all but what they choose themselves."""
        platform = self.action.platform
        # The variable with the key is the member's own, and so is its name.
        key = f"key_variable = {toml_value(KEY_VARIABLE)}  # the variable's name, never the key"
        said = {f.name: getattr(platform, f.name) for f in fields(platform) if getattr(platform, f.name) != _default(f)}
        options = said.pop("options", {})
        said.pop("key_variable", None)
        lines = [
            f"# What the machine of {_one_line(self.member.member)} needs to ask for {_one_line(self.name)}.",
            f"# Is [platform] the service that you know? Then: ttca contribute {self.file_name}",
            "",
            "[contribute]",
            f"hub = {toml_value(self.hub)}",
            f"token_variable = {toml_value(TOKEN_VARIABLE)}  # the variable's name, never the token",
            f"hub_key = {toml_value(self.key)}  # other leases are refused",
            "# size = 16            # your own choice: queries of one request,",
            "# concurrency = 2      # requests at once,",
            f"# most_queries = {self.left}   # the most queries under your key, over all runs,",
            "# per_day = 100        # and in any 24 hours",
            "",
            "[platform]",
            *(f"{name} = {toml_value(value)}" for name, value in said.items()),
            key if platform.key_variable is not None else f"# {key}",
        ]
        if options:
            lines += ["", "[platform.options]", *(f"{_key(k)} = {toml_value(v)}" for k, v in options.items())]
        return "\n".join(lines) + "\n"

    def message(self, token: str, images: int | None) -> str:
        """Return the invitation as it can be sent on.

        Parameters
        ----------
        token : str
        images : int, optional
            How many are shared; None, or 0 before the hub has read them, where that is not known.
        """
        rates = "".join(f", and at most {n} {window.replace('_', ' ')}" for window, n in self.member.rates.items())
        paid = f" more ({self.member.charged} are paid)" if self.member.charged else ""
        platform = self.action.platform
        example = _one_line(platform.key().example(checked_url(platform.url)[1]))
        own_key = f"\nYour own key for the platform goes into {KEY_VARIABLE}:\n\n{_set(KEY_VARIABLE, example)}\n"
        own_key = "" if platform.key_variable is None else own_key
        asked = platform.url if platform.forwards_to is None else f"{platform.forwards_to} through {platform.url}"
        shared = f"The {images:,} pictures" if images else "Pictures"
        return f"""\
Hello {_one_line(self.member.member)},

you are invited to take part in the action "{_one_line(self.name)}", for {_one_line(self.action.settings.subgroup)}.

1. Install ttca. It needs Python 3.11 or newer:

{self.action.hub.install or NO_INSTALL}

2. Save what stands between the two lines as {self.file_name}. Check that [platform] is the service that you know.

-----
{self.file}-----

3. Put your token into the environment variable {TOKEN_VARIABLE}. It is yours alone; show it to nobody.

{_set(TOKEN_VARIABLE, token)}
{own_key}
4. In the same window, take part, as often as you like; Ctrl-C stops it:

ttca contribute {self.file_name}

What is asked and paid: your machine asks {_one_line(asked)} under your own key,
at most {self.left} queries{paid}{rates}. {shared} that their owners share come from the
hub, and the answers go back to it; your key does not. Some queries are asked of several members, to notice mistakes;
if you come late, all of yours may be such checks. If you set most_queries or per_day in the file, your machine never
sends more.

The collective's public key, to compare with what you are told by another way than this message:

{self.key}

It is in the file as hub_key, so that you ask only what the collective signed. Later, ttca apply takes it as --key,
and a web page of the collective's shows the key to compare.
"""

    @property
    def name(self) -> str:
        """The action's name."""
        return self.action.settings.name

    @property
    def left(self) -> int:
        """How many queries the member can still pay."""
        return max(0, self.member.quota - self.member.charged)


def toml_value(value: Any) -> str:
    """Return what TOML reads as the value: text, numbers, yes and no, dates, lists and tables of them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for one character that TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(k)} = {toml_value(v)}' for k, v in value.items())}}}"
    return str(value.isoformat())


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _set(variable: str, value: str) -> str:
    """Return the commands that set a variable, for each kind of shell."""
    return f"On Linux and macOS:\nexport {variable}='{value}'\nIn Windows PowerShell:\n$env:{variable} = '{value}'"


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default

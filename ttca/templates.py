"""The keys of an action file, read from the settings classes, and the commented files that are written from them."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ttca.config import ContributeSection, HubSection, PeopleSection, PlatformSection, PoolSection, kind_in_words
from ttca.copying import shell_word
from ttca.settings import Settings

__all__ = ["CONTRIBUTION_TABLES", "TABLES", "ConfigKey", "action_template", "contribution_template", "keys_of", "toml"]

#: The tables of an action file, and the classes that their keys are fields of.
TABLES: dict[str, type] = {
    "action": Settings,
    "platform": PlatformSection,
    "people": PeopleSection,
    "pool": PoolSection,
    "hub": HubSection,
}
#: The tables of a member's own file for a hub.
CONTRIBUTION_TABLES: dict[str, type] = {"contribute": ContributeSection, "platform": PlatformSection}

#: What a template shows where a key has no default, or where the default says nothing.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "action": {
        "name": "my-action",
        "subgroup": "whom it is for",
        "within": 0.05,
        "race_share": 0.2,
        "refine": 0.2,
        "accuracy_ratio": 0.8,
        "recipe": "auto",
        "threads": 2,
    },
    "platform": {
        "url": "http://127.0.0.1:8000",
        "model": "my-model",
        "classes": ["first", "second"],
        "version": "1",
        "authorized_by": "who allowed this, and where that is written",
        "key_variable": "TTCA_KEY_MINE",
        "key_names": ["api_user", "api_secret"],
        "sign": "aws4",
        "sign_region": "eu-west-1",
        "sign_service": "rekognition",
        "token_from": {"url": "https://auth.example.org/token", "scope": "vision"},
        "forwards_to": "https://api.example.org",
        "ca": "authority.pem",
        "price_per_1000": 1.5,
        "currency": "EUR",
        "smallest": 80,
    },
    "people": {
        "source": "people.csv",
        "public": "public.csv",
        "views": "views.csv",
        "preparation": {"fit": "crop", "size": 224, "filter": "area-lanczos", "color": "sRGB"},
    },
    "pool": {
        "per_second": 5,
        "per_minute": 100,
        "per_day": 1000,
        "cap": 2000,
        "ledger": "postgresql://host/name",
        "overrule": True,
    },
    "hub": {
        "url": "https://hub.example.org",
        "install": "pip install https://example.org/ttca.whl",
    },
    "contribute": {
        "hub": "https://hub.example.org",
        "token_variable": "TTCA_HUB_TOKEN",
        "most_queries": 500,
        "per_day": 100,
        "hub_key": "ttca-ed25519:...",
        "ca": "collective.pem",
    },
}
#: What a template shows without a mark in front, besides what must be there: what nearly everybody looks at.
_SHOWN: dict[str, tuple[str, ...]] = {
    "action": ("name", "subgroup", "epsilons", "seed", "goal", "alpha", "controls", "recipe"),
    "platform": ("protocol", "model"),
    "people": ("verification", "selection"),
    "pool": ("quota", "concurrency", "batch"),
    "contribute": ("size", "concurrency"),
}  # fmt: skip
#: What stands above a key.
_HEADINGS: dict[tuple[str, str], str] = {
    ("action", "recipe"): 'What is learned how. With "auto", several recipes race on the platform: docs/recipes.md.',
    ("action", "architectures"): 'How the proxy learns. With recipe = "auto", a key here holds for every recipe.',
    ("action", "steps"): "How the perturbations are learned.",
}
#: The tables within tables, which no default shows.
_SUBTABLES: dict[tuple[str, str], str] = {
    ("platform", "options"): """\
# [platform.options]             # of the protocol, as docs/platforms.md lists them
# image_shape = [224, 224, 3]    # height, width, channels, where no metadata says them
# scores_are = "percent"         # or "logits", "bytes", "confidences", "probability-of-second", "logit-of-second"
# resolution = 0.01              # scores are rounded to whole percent
# refused_labels = ["no face"]   # labels that are no class, but a refusal
# labels = { "1st" = "first" }   # the platform's word for a class
""",
    ("pool", "quotas"): """\
# [pool.quotas]                  # members who can pay more or less
# ada = 250
""",
}
# Of lines, of what stands before a comment, and the least that a comment behind a value needs.
_WIDTH, _COLUMN, _ROOM = 120, 33, 50


@dataclass(frozen=True, kw_only=True)
class ConfigKey:
    """One key of a table, as its class describes it.

    Parameters
    ----------
    name : str
    kind : str
        What it holds, in words: ``whole number``, ``list of texts``, or the words that it may be.
    default : object
        ``dataclasses.MISSING`` where the key must be there; None where it has no default.
    text : str
        What the class's docstring says of it, without markup.
    """

    name: str
    kind: str
    default: Any
    text: str

    @property
    def needed(self) -> bool:
        """Whether a file must have it."""
        return self.default is MISSING

    @property
    def first(self) -> str:
        """The first sentence, without its stop."""
        return re.split(r"[.] (?=[A-Z0-9δ])", self.text, maxsplit=1)[0].removesuffix(".")


def keys_of(kind: type) -> tuple[ConfigKey, ...]:
    """Return every key of a table, in the order of its class's docstring.

    Parameters
    ----------
    kind : type
        A dataclass with a numpydoc docstring. A field that it does not describe comes last, without a text.

    Examples
    --------
    >>> next(key.kind for key in keys_of(PoolSection) if key.name == "quota")
    'whole number'
    """
    told = _described(inspect.getdoc(kind) or "")
    known = {f.name: f for f in fields(kind)}
    order = [name for name in told if name in known]
    found = []
    for name in (*order, *(n for n in known if n not in told)):
        field = known[name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found.append(ConfigKey(name=name, kind=_kind(str(field.type), kind), default=default, text=told.get(name, "")))
    return tuple(found)


def _described(docstring: str) -> dict[str, str]:
    """Return what numpydoc's *Parameters* say of each name."""
    _, _, rest = docstring.partition("Parameters\n----------\n")
    part = re.split(r"\n\n\w[\w ]*\n-{3,}\n", rest)[0]
    told: dict[str, str] = {}
    for found in re.finditer(r"(?m)^([\w, ]+?)(?: : .*)?\n((?:^(?:[ ]+.*)?(?:\n|\Z))*)", part + "\n"):
        text = _plain(textwrap.dedent(found[2]))
        for name in found[1].split(", "):
            told[name] = text
    return told


def _plain(text: str) -> str:
    """Return a description in one line: roles as the last part of what they name, code as it is."""
    text = re.sub(r"\s*\(:\w+:`[^`]*`\)", "", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())


def _kind(annotation: str, owner: type) -> str:
    """Return in words what a key holds."""
    named = vars(inspect.getmodule(owner)).get(annotation)
    if named is not None and not isinstance(named, type):
        annotation = str(named).replace("typing.", "")
    return kind_in_words(annotation)


def toml(value: Any) -> str:
    """Return a value as TOML writes it, in one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def action_template(file: object) -> str:
    """Return the commented action file that ``ttca init`` writes: every key of every table stands in it.

    Parameters
    ----------
    file : object
        Where it will be, as its first line says it.
    """
    head = (
        "# One collective action. Fill it in, then see what it would cost (no picture is sent): "
        f"ttca run {shell_word(file)} --dry-run\n"
        "# Every key stands here. Those behind a # are optional and show their default, or an example where there is "
        "none.\n"
    )
    return "\n".join([head, *(_table(name, kind) for name, kind in TABLES.items())])


def contribution_template(file: object) -> str:
    """Return a member's own commented file for a hub, with every key of its tables.

    Parameters
    ----------
    file : object
        Where it will be, as its first line says it.
    """
    head = f"# What one member's machine needs to ask for a pool. Fill in, then: ttca contribute {shell_word(file)}\n"
    above = "# From your own knowledge, never from the hub.\n"
    tables = [_table("contribute", ContributeSection), above + _table("platform", PlatformSection)]
    return "\n".join([head, *tables])


def _table(table: str, kind: type) -> str:
    """Return one table with all its keys, optional ones behind a mark."""
    lines = [f"[{table}]"]
    subtables = []
    for key in keys_of(kind):
        if (subtable := _SUBTABLES.get((table, key.name))) is not None:
            subtables.append("\n" + subtable.rstrip("\n"))
            continue
        if (heading := _HEADINGS.get((table, key.name))) is not None:
            lines += ["", f"# {heading}"]
        lines += _line(table, key)
    return "\n".join([*lines, *subtables, ""])


def _line(table: str, key: ConfigKey) -> list[str]:
    """Return a key with its value, and what it means behind it or in further lines."""
    value = _EXAMPLES.get(table, {}).get(key.name, key.default)
    if value is None or value is MISSING:
        value = _anything(key)
    mark = "" if key.needed or key.name in _SHOWN.get(table, ()) else "# "
    said = f"{mark}{key.name} = {toml(value)}"
    said = said.ljust(_COLUMN) if len(said) < _COLUMN - 1 else f"{said}  "
    room = _WIDTH - len(said) - 2
    if room < _ROOM:
        return [*textwrap.wrap(key.first, _WIDTH, initial_indent="# ", subsequent_indent="# "), said.rstrip()]
    first, *rest = textwrap.wrap(key.first, room) or [""]
    return [f"{said}# {first}".rstrip(" #"), *(f"{' ' * len(said)}# {line}" for line in rest)]


def _anything(key: ConfigKey) -> Any:
    """Return a value of a key's kind, for one that has neither a default nor an example."""
    first = key.kind.split(" or ")[0]
    if first.startswith('"'):
        return json.loads(first)
    plain: dict[str, Any] = {"text": "", "whole number": 1, "number": 1.0, "true": False}
    return plain.get(first, [] if first.startswith("list") else {})

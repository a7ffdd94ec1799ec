"""The pages of the reference that are written from the code: keys, commands, Python names, row keys."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import typer

import ttca
from ttca.cli import app
from ttca.report.explanations import row_keys
from ttca.streams import COME_BACK
from ttca.templates import CONTRIBUTION_TABLES, TABLES, ConfigKey, keys_of, toml

__all__ = ["commands", "modules", "pages"]

_HOME = Path(__file__).resolve().parents[1]
#: What a reader of an action file looks for first.
_TITLES = {
    "action": "What is learned, and what must be shown",
    "platform": "The service, and how it is asked",
    "people": "Whose images, and who has which role",
    "pool": "Who can pay how much",
    "hub": "Members on machines of their own",
    "contribute": "A member's own file for a hub",
}


_WORDS = {"list": "several paths", "Path": "path", "str": "text", "int": "whole number", "float": "number"}


def pages() -> dict[str, str]:
    """Return every generated page of the reference by its path in the site."""
    return {
        "reference/action-file.md": _action_file(),
        "reference/command-line.md": _command_line(),
        "reference/row.md": _row(),
        "reference/python.md": _python(),
        "reference/modules.md": _modules(),
        **{f"reference/modules/{name}.md": _module(name, public) for name, _, public in modules()},
    }


def _action_file() -> str:
    lines = [
        "# Every key of an action file",
        "",
        "`ttca init` writes an action file in which all of these stand. This page is made from the same classes. A key "
        "without a default must be there, or means that nothing of the kind is set.",
        "",
    ]
    for table, kind in {**TABLES, "contribute": CONTRIBUTION_TABLES["contribute"]}.items():
        lines += [f"## [{table}] {{#{table}}}", "", f"{_TITLES[table]}.", ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        lines += [_key(key) for key in keys_of(kind)]
        lines.append("")
    lines.append("A member's own file has `[contribute]` and `[platform]`. `ttca contribute FILE --init` writes one.")
    return "\n".join([*lines, ""])


def _key(key: ConfigKey) -> str:
    default = "*needed*" if key.default is MISSING else "" if key.default is None else f"`{toml(key.default)}`"
    return f"| `{key.name}` | {_cell(key.kind)} | {default} | {_cell(key.text)} |"


def _cell(text: str) -> str:
    return _linked(text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\["))


def _linked(text: str) -> str:
    """Return a text in which every page that it names is a link."""
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](../\1.md)", text)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line with the words that call it, the groups before their commands."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, part in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", part)

    yield from walk("ttca", typer.main.get_command(app))


def _command_line() -> str:
    lines = [
        "# The command line",
        "",
        "`ttca COMMAND --help` (or `-h`) says the same in the terminal. `ttca --install-completion` lets the shell "
        "complete commands and options. Results go to standard output and everything else to standard error. With "
        "`--json` a result is one JSON object. A command ends with one of these statuses:",
        "",
        "| exit status | what it means |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | not done; one sentence says what was expected, what was found, and what to do |",
        "| 2 | the command was not understood: a wrong option or argument |",
        f"| {COME_BACK} | come back later: a quota is used up, or the platform says to wait; one sentence says when, "
        "or which quota would do |",
        "| 130 | ended by Ctrl-C; what came back is kept: run it again to resume |",
        "| 143 | ended by SIGTERM, likewise |",
        "",
    ]
    for words, command in commands():
        lines += [f"## {words}", "", _linked((command.help or "").strip()), ""]
        params: list[Any] = [p for p in command.params if not getattr(p, "hidden", False)]
        if params:
            lines += ["| argument or option | value | default | meaning |", "|---|---|---|---|"]
            lines += [_parameter(p) for p in params]
            lines.append("")
    return "\n".join(lines)


def _parameter(parameter: Any) -> str:
    option = parameter.opts[0].startswith("-")
    # As the command's own help calls it.
    argument = parameter.metavar or parameter.name.upper()
    name = ", ".join(f"`{word}`" for word in parameter.opts) if option else f"`{argument}`"
    flag = getattr(parameter, "is_flag", False)
    value = "" if flag else _WORDS.get(_type(parameter), _type(parameter))
    default = parameter.default
    shown = "*needed*" if parameter.required else "" if flag or default in (None, "") else f"`{default}`"
    return f"| {name} | {value} | {shown} | {_cell(getattr(parameter, 'help', None) or '')} |"


def _type(parameter: Any) -> str:
    """Return the name of the type that a parameter is annotated with; the optional and the several are of it."""
    annotation = parameter.type_descriptor.annotation
    return str(getattr(annotation, "__name__", annotation))


def _row() -> str:
    lines = [
        "# Every key of a result row",
        "",
        "`row.json`, `ttca run --json` and the benchmarks' result files have these keys. Shares are between 0 and 1.",
        "",
    ]
    for title, note, keys in row_keys():
        lines += [f"## {title}", "", note, "", "| key | name | meaning |", "|---|---|---|"]
        lines += [f"| `{key}` | {_cell(name)} | {_cell(meaning)} |" for key, name, meaning in keys]
        lines.append("")
    return "\n".join(lines)


def _python() -> str:
    lines = [
        "# The Python API",
        "",
        "`import ttca` gives these names. They are loaded when they are first used, so that asking a platform and "
        "applying a perturbation need no PyTorch. [Every module](modules.md) has the rest.",
        "",
    ]
    for name in ttca.__all__:
        lines += [f"::: {ttca.__dict__['_HOME'][name]}.{name}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def modules() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield every module of the library that has public names: its name, its first sentence, and the names."""
    for path in sorted((_HOME / "ttca").rglob("*.py"), key=str):
        yield from _listed(path, _HOME)
    for folder in ("attacks", "proxies"):
        for path in sorted((_HOME / folder).rglob("*.py"), key=str):
            yield from _listed(path, _HOME, "ttca.")


def _listed(path: Path, home: Path, before: str = "") -> Iterator[tuple[str, str, tuple[str, ...]]]:
    name = before + path.relative_to(home).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
    if path.is_relative_to(home / "ttca") and name.startswith(("ttca.attacks", "ttca.proxies")):
        return  # links to the folders that come later
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = tuple(ast.literal_eval(node.value))
            if public and name != "ttca":
                yield name, (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " "), public


def _modules() -> str:
    lines = ["# Every module", "", "| module | its one reason to exist |", "|---|---|"]
    lines += [f"| [`{name}`](modules/{name}.md) | {_cell(_plain(told))} |" for name, told, _ in modules()]
    return "\n".join([*lines, ""])


def _module(name: str, public: tuple[str, ...]) -> str:
    """Return a module's page; what `import ttca` gives stands on the page of the Python API, once."""
    elsewhere = [word for word in public if ttca.__dict__["_HOME"].get(word) == name]
    members = ", ".join(word for word in public if word not in elsewhere)
    text = f"# {name}\n\n::: {name}\n    options:\n      members: [{members}]\n"
    if elsewhere:
        links = ", ".join(f"[`{word}`](../python.md#{name}.{word})" for word in elsewhere)
        text += f"\nIn the [Python API](../python.md): {links}.\n"
    return text


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text).replace("``", "`")

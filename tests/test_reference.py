"""Tests of the reference: every public name, command, option, key of a file and key of a row stands in it."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import pytest
from typer.main import get_command

import ttca
from ttca.action import CollectiveAction
from ttca.cli import app
from ttca.race_record import Entrant, Raced, Runners, Switched
from ttca.recipes import Recipe
from ttca.row import Row
from ttca.streams import COME_BACK
from ttca.templates import CONTRIBUTION_TABLES, TABLES
from website.entries import apart
from website.fences import plain_fences
from website.reference import modules, pages

HOME = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """Return the generated pages."""
    return pages()


def test_every_key_of_an_action_file_is_in_the_reference(reference: dict[str, str]) -> None:
    """Each field of each table's class has a line in the table's part of the page."""
    parts = re.split(r"(?m)^## \[(\w+)\].*$", reference["reference/action-file.md"])[1:]
    told = {
        name: set(re.findall(r"(?m)^\| `(\w+)` \|", text)) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
    assert told == {n: {f.name for f in fields(kind)} for n, kind in {**TABLES, **CONTRIBUTION_TABLES}.items()}


def test_every_command_and_option_is_in_the_reference(reference: dict[str, str]) -> None:
    """Each command of each group has a part, and in it each of its options and arguments, with a help text."""
    parts = re.split(r"(?m)^## (ttca.*)$", reference["reference/command-line.md"])[1:]
    told = dict(zip(parts[::2], parts[1::2], strict=True))
    count = 0

    def look(words: str, command: object) -> None:
        nonlocal count
        text = told.pop(words)
        for parameter in getattr(command, "params", ()):
            argument = parameter.metavar or parameter.name.upper()
            names = [o if o.startswith("-") else argument for o in parameter.opts]
            assert all(f"`{name}`" in text for name in names), (words, names)
            assert getattr(parameter, "help", None), (words, names)
            count += 1
        for name, part in getattr(command, "commands", {}).items():
            look(f"{words} {name}", part)

    look("ttca", get_command(app))
    assert told == {}
    assert count > 80


def test_every_exit_status_is_in_the_reference(reference: dict[str, str]) -> None:
    """What a command can end with, by its own word or by a signal, has a line."""
    told = set(re.findall(r"(?m)^\| (\d+) \|", reference["reference/command-line.md"]))
    assert told == {"0", "1", "2", str(COME_BACK), str(128 + SIGINT), str(128 + SIGTERM)}


def test_pages_that_help_texts_name_are_links(reference: dict[str, str]) -> None:
    """A page of docs/ that a command's or a key's text names can be followed in the reference."""
    for name in ("reference/action-file.md", "reference/command-line.md"):
        assert re.findall(r"docs/[\w-]+\.md", reference[name]) == []
        linked = re.findall(r"\]\(\.\./([\w-]+\.md)\)", reference[name])
        assert linked
        assert all((HOME / "docs" / page).is_file() for page in linked)


def test_a_set_is_called_so_in_the_reference_too(reference: dict[str, str]) -> None:
    """An argument has the name that the command's own help prints."""
    text = reference["reference/command-line.md"]
    assert "| `SET` | path |" in text
    assert "PERTURBATIONS" not in text
    assert "``" not in text


def test_every_key_of_a_row_is_in_the_reference(reference: dict[str, str]) -> None:
    """Each key that every row has is explained."""
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", reference["reference/row.md"])) == set(Row.keys())


def test_parameters_that_share_an_entry_each_get_their_own() -> None:
    """On the site each has its own type and default; what is returned, and text that only looks alike, stays."""
    assert (
        inspect.cleandoc(apart(inspect.cleandoc(CollectiveAction.__doc__ or ""))).count("See :class:`~ttca.pooling")
        == 4
    )
    given = (
        "Do it.\n\nParameters\n----------\na, **b\n    Two.\n\n    More.\nc : int\nd, e : float\n\nReturns\n-------\n"
        "f, g : int\n    A pair.\n\nNotes\n-----\nh, i\n    as they are"
    )
    assert apart(given) == (
        "Do it.\n\nParameters\n----------\na\n    Two.\n\n    More.\n**b\n    Two.\n\n    More.\nc : int\nd : float\n"
        "e : float\n\nReturns\n-------\nf, g : int\n    A pair.\n\nNotes\n-----\nh, i\n    as they are"
    )


def public() -> Iterator[tuple[str, list[str]]]:
    """Yield the modules of the library and what their ``__all__`` lists, read from their files."""
    for folder in ("ttca", "proxies", "attacks"):
        for path in sorted((HOME / folder).rglob("*.py")):
            if path.relative_to(HOME).as_posix().startswith(("ttca/proxies/", "ttca/attacks/")):
                continue
            listed = re.search(r"(?ms)^__all__ = (\[.*?\])$", path.read_text(encoding="utf-8"))
            words = path.relative_to(HOME).with_suffix("").as_posix().removesuffix("/__init__").split("/")
            name = ".".join(words if words[0] == "ttca" else ["ttca", *words])
            if listed and (names := ast.literal_eval(listed[1])) and name != "ttca":
                yield name, names


def test_every_public_name_is_in_the_reference(reference: dict[str, str]) -> None:
    """Each name of each module's ``__all__`` stands on its module's page, or with the Python API."""
    pages_of_modules = {name for name, *_ in modules()}
    assert {name for name, _ in public()} == pages_of_modules
    for name, names in public():
        text = reference[f"reference/modules/{name}.md"]
        shown = re.findall(r"members: \[(.*)\]", text)[0].split(", ")
        linked = re.findall(r"\[`(\w+)`\]", text)
        assert sorted(names) == sorted([*filter(None, shown), *linked]), name
    for name in ttca.__all__:
        assert f".{name}\n    options" in reference["reference/python.md"]


def test_the_site_names_every_page_of_the_documents() -> None:
    """A page of docs/ that the menu lacks is found here, and not only when the site is built."""
    menu = set(re.findall(r"(?m): ([\w./-]+\.md)$", (HOME / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {path.relative_to(HOME / "docs").as_posix() for path in (HOME / "docs").rglob("*.md")} - {"README.md"}
    assert there <= menu
    generated = {name for name in pages() if "/modules/" not in name}
    assert generated <= menu


DOCUMENTS = sorted([*HOME.glob("*.md"), *(HOME / "docs").glob("*.md")])


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of every `ttca` command in a document's blocks, continued lines joined, without comments."""
    for block in re.findall(r"(?ms)^```(?:sh|bash|console)?[^\n]*\n(.*?)^```$", text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:[\w./-]*python -m )?(ttca(?: .*)?)$", line.split("  #")[0].split(" > ")[0])
            if found and "=" not in found[1].split()[0]:
                yield found[1].split()[1:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_printed_command_is_one(document: Path) -> None:
    """Each `ttca` command that a block shows names a command that there is, and options that it takes."""
    for words in commands_of(document.read_text(encoding="utf-8")):
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or not words or words[0].startswith("-"), words
        known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_printed_table_is_toml_with_known_keys(document: Path) -> None:
    """Each TOML block is read; in tables of an action file it has keys that there are, old names not among them."""
    kinds = {**TABLES, **CONTRIBUTION_TABLES}
    for block in re.findall(r"(?ms)^```toml[^\n]*\n(.*?)^```$", document.read_text(encoding="utf-8")):
        for name, table in tomllib.loads(block).items():
            if name in kinds and isinstance(table, dict):
                assert table.keys() <= {f.name for f in fields(kinds[name])}, (document.name, name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_code_block_is_one_on_the_site(document: Path) -> None:
    """Words behind a block's language, for whoever tries the page, would make paragraphs of it."""
    openings = re.findall(r"(?m)^ *```(.+)$", plain_fences(document.read_text(encoding="utf-8")))
    assert [words for words in openings if " " in words] == []


def test_the_page_of_files_names_every_key_of_a_race() -> None:
    """docs/files.md says what each key of race.json holds, and names no other."""
    page = (HOME / "docs" / "files.md").read_text(encoding="utf-8")
    shown = {
        of: set(re.findall(r"`(\w+)`", table)) - {"key"}
        for of, table in re.findall(r"(?m)`(field|result)`: .*\n\n((?:^\|.*\n)+)", page)
    }
    assert shown["result"] == {f.name for record in (Raced, Entrant, Switched) for f in fields(record)}
    assert shown["field"] == {f.name for record in (Runners, Recipe) for f in fields(record)} - {"earlier"}

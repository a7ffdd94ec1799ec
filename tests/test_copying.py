"""Tests of commands that people copy: from files, from sentences, whatever the folder is called."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.test_cli import Terminal, ttca
from ttca.copying import shell_word
from ttca.errors import ConfigError
from ttca.training_time.records import read_strategy

__all__ = ["ttca"]

ODD = ("my action", "it's $HOME & more", "line\nbreak", "plain")


def copied(text: str, command: str) -> list[list[str]]:
    """Return each command of that name in a text as a shell would read it, to the end of its line."""
    return [shlex.split(line, comments=False) for line in re.findall(rf"ttca {command} [^\n]*", text)]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    ("words", "command"),
    [(["init"], "run"), (["contribute", "--init"], "contribute"), (["report-records", "--init"], "report-records")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_in_a_new_file_is_copied_as_it_is(
    words: list[str], command: str, name: str, tmp_path: Path, ttca: Terminal
) -> None:
    """The path is one word of the command in its first line and in what is said; the file stays TOML."""
    file = tmp_path / name / "file.toml"
    first, *options = words
    done = ttca(first, file, *options)
    assert done.code == 0, done.err
    tomllib.loads(file.read_text())
    found = [*copied(file.read_text().split("\n\n")[0], command), *copied(done.err, command)]
    found = [one for one in found if not one[2].startswith("--")]
    assert len(found) >= 2
    assert {one[2] for one in found} == {str(file).replace("\n", "?")}


def test_init_says_how_to_prepare_photographs_of_any_folder(tmp_path: Path, ttca: Terminal) -> None:
    """Both folders are one word each."""
    home = tmp_path / "our photographs"
    (home / "raw ones").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(home / "raw ones" / "a.png")
    found = copied(ttca("init", home).err, "prepare")
    assert [one[2:4] for one in found] == [[str(home / "raw ones"), str(home / "people")]]


def test_errors_name_commands_that_can_be_copied(tmp_path: Path) -> None:
    """What is to be typed next is quoted in errors too."""
    missing = tmp_path / "no such" / "strategy.toml"
    with pytest.raises(ConfigError) as error:
        read_strategy(missing)
    assert copied(str(error.value), "report-records")[0][2] == str(missing)


@given(st.text(min_size=1))
def test_any_path_is_one_word_on_one_line(text: str) -> None:
    """A shell reads it back; what cannot be printed is a question mark outside of quotes."""
    word = shell_word(text)
    assert word.isprintable()
    (read,) = shlex.split(word)
    assert len(read) == len(text) + 2 * text.startswith("-")
    assert re.sub("[^ -~]", "?", read).endswith(re.sub("[^ -~]", "?", text))


def test_a_plain_path_stays_as_it_is() -> None:
    """Nothing is quoted that need not be."""
    assert shell_word("mine/action.toml") == "mine/action.toml"

"""Tests of files with several mistakes: each is said at once, and none that is only another one's consequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import worlds
from tests.test_cli import Terminal, ttca
from ttca.config import read_action, read_contribution
from ttca.errors import ConfigError
from ttca.mistakes import Mistakes, made

__all__ = ["ttca"]

PLAIN = worlds.action_file("http://127.0.0.1:1")
CONTRIBUTION = '[contribute]\nhub = "http://127.0.0.1:1"\ntoken_variable = "TTCA_HUB_TOKEN"\n\n' + PLAIN.partition(
    "[platform]"
)[2].partition("[people]")[0].join(["[platform]", ""])


def sentences(tmp_path: Path, text: str, read: Callable[[Path], Any] = read_action) -> tuple[str, ...]:
    """Return what is wrong with a file."""
    file = tmp_path / "action.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read(file)
    return error.value.sentences


#: What to write instead of what, and a word of each sentence about it.
CHANGES: dict[str, tuple[str, str, str]] = {
    "a key that is none": ("epochs = 12", "zzz = 12", "'zzz'"),
    "a misspelt key": ("quota = 500", "qouta = 500", "'qouta'"),
    "a misspelt key that is needed": ('source = "people"', 'sources = "people"', "'sources'"),
    "a value of another kind": ("recheck_people = 0", 'recheck_people = "some"', '"some"'),
    "a value out of range": ("epsilons = [6, 12]", "epsilons = [0]", "epsilons"),
    "another": ("shift = 0", "shift = -1", "shift"),
    "a third": ("steps = 10", "steps = 0", "steps"),
    "an option that is none": ('model = "tiny"', 'model = "tiny"\noptions = {odd = 1}', "'odd'"),
    "classes that are there twice": ('"bars"', '"stripes"', "stripes twice"),
}


@given(st.sets(st.sampled_from(list(CHANGES)), min_size=1))
def test_each_mistake_is_a_sentence_and_nothing_else_is(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    """Whichever mistakes stand in a file together, each is named once, and what follows from another is not."""
    text = PLAIN
    for name in names:
        old, new, _ = CHANGES[name]
        assert old in text
        text = text.replace(old, new)
    said = sentences(tmp_path_factory.mktemp("mistakes"), text)
    assert len(said) == len(names), said
    for name in names:
        assert sum(CHANGES[name][2] in sentence for sentence in said) == 1, (name, said)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # What is misspelt, or of the wrong kind, is not missed as well.
        ("[people]", 'currency = "EUR"\nprice_per_100 = 1\n[people]', ["'price_per_1000'?"]),
        ("[people]", 'currency = "EUR"\nprice_per_1000 = "one"\n[people]', ['"one"']),
        ("[people]", "[peple]", ["'people'?"]),
        ("[pool]", "[hub]\norder = 5\nlease = 1\n[pool]\nper_day = 0.5", ["per_day", "order", "'lease'"]),
        (
            'source = "people"',
            'source = "people"\npreparation = {fit = "x", size = 0, filter = "y"}',
            ["fit", "size", "filter"],
        ),
        ('classes = ["stripes", "bars", "checks"]\n', "smallest = 0\n", ["the key classes", "smallest"]),
    ],
)
def test_what_follows_from_a_mistake_is_no_other(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    """Tables, nested tables and keys that need each other: as many sentences as there are mistakes."""
    said = sentences(tmp_path, PLAIN.replace(old, new))
    assert len(said) == len(words), said
    assert all(any(word in sentence for sentence in said) for word in words), said


def test_a_members_own_file_is_read_to_its_end_too(tmp_path: Path) -> None:
    """Mistakes of both tables of a contribution file are said together."""
    assert read_contribution_of(tmp_path, CONTRIBUTION)
    text = CONTRIBUTION.replace("token_variable", "token_varable").replace('model = "tiny"', "model = 5")
    said = sentences(tmp_path, text + "max_batch = 0.5\n", read_contribution)
    assert len(said) == 3, said


def read_contribution_of(folder: Path, text: str) -> bool:
    """Whether a contribution file is read."""
    (folder / "action.toml").write_text(text)
    return read_contribution(folder / "action.toml").contribute.hub.startswith("http")


def test_a_command_says_all_of_it_and_asks_nothing(tmp_path: Path, ttca: Terminal) -> None:
    """On a terminal as a list; in JSON in one error of the same kind as before."""
    (tmp_path / "action.toml").write_text(PLAIN.replace("quota =", "qouta =").replace("steps = 10", "steps = 0"))
    done = ttca("run", tmp_path, "--dry-run", "--json")
    assert (done.code, done.json["kind"]) == (1, "ConfigError")
    assert "got 2. Correct each:\n- Expected steps" in done.json["error"]
    assert "\n- Did you mean 'quota'?" in done.json["error"]


def test_values_that_cannot_be_told_apart_end_in_one_sentence() -> None:
    """Where no single value is to blame, what was said is said; a wrong one without an example too."""

    def never(**_: object) -> int:
        raise ConfigError("Expected something else, got this.")

    assert made(never, {"a": 1, "b": 2}, {}) == (None, ["Expected something else, got this."])
    assert made(dict, {"a": 1}, {}) == ({"a": 1}, [])
    several = Mistakes("x")
    several.tell("Expected a, got b.")
    assert str(several.error()) == "Expected a, got b."

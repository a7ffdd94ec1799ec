"""Tests of the one spelling of a name, and of the names that a member may have."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import ConfigError, QuotaError
from ttca.names import canonical, class_names, unknown_name
from ttca.pooling.pool import Member


@pytest.mark.parametrize(
    ("given_", "name"),
    [("ada ", "ada"), ("\u00a0ada\t", "ada"), ("Zoe\u0308", "Zo\u00eb"), ("a  b", "a  b"), ("Ada", "Ada"), (" ", "")],
)
def test_spaces_around_a_name_and_its_composition_do_not_matter(given_: str, name: str) -> None:
    """White space around it goes, white space inside and capitals stay."""
    assert canonical(given_) == name


@given(st.text(), st.sampled_from(["NFC", "NFD"]), st.sampled_from(["", " ", "\u00a0\t"]))
def test_every_spelling_has_one_canonical_form(name: str, form: str, around: str) -> None:
    """What is canonical stays as it is, and both compositions of a name come to the same."""
    assert canonical(canonical(name)) == canonical(name)
    spelled = unicodedata.normalize(form, name)  # type: ignore[arg-type]
    assert canonical(around + spelled + around) == canonical(around + name + around)


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (("", -1), ConfigError, "Expected the name of a member as printable text, got ''"),
        ((" \t ", 5), ConfigError, "printable text"),
        (("ada\x1b[2J", 5), ConfigError, "printable text"),
        (("ada\nben", 5), ConfigError, "printable text"),
        ((5, 5), ConfigError, "printable text, got 5"),
        (("ada", -1), QuotaError, "quota of member 'ada' a whole number of at least 1, got -1"),
        (("ada", "5"), QuotaError, "quota of member 'ada' a whole number of at least 1, got '5'"),
        (("ada", 5, None, 0), QuotaError, "rates of member 'ada' as whole numbers of at least 1, got per_second = 0."),
    ],
)
def test_a_member_without_a_name_or_a_quota_is_refused(
    words: tuple[Any, ...], error: type[Exception], sentence: str
) -> None:
    """A name that is empty or hides something, and a quota or a rate that pays for nothing, end in a sentence."""
    with pytest.raises(error, match=re.escape(sentence)):
        Member(*words)
    assert Member(" Zoë ", 1).name == "Zoë"


@given(
    st.lists(st.text(min_size=1).map(canonical).filter(lambda n: n and "\x00" not in n and "/" not in n), min_size=2)
)
def test_class_names_are_read_as_they_are_quoted(names: list[str]) -> None:
    """Names with commas and quotes come back as they were, in their order; one that comes twice is refused."""
    words = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    if len(set(names)) == len(names):
        assert class_names(words) == tuple(names)
    else:
        with pytest.raises(ConfigError, match="every class name once"):
            class_names(words)


def test_class_names_are_read_from_a_file(tmp_path: Path) -> None:
    """A file has one name on each line, commas and a byte-order mark included."""
    (tmp_path / "names.txt").write_text("\ufefftench, Tinca tinca\ngoldfish\n\n", encoding="utf-8")
    assert class_names(str(tmp_path / "names.txt")) == ("tench, Tinca tinca", "goldfish")


@pytest.mark.parametrize("words", ['a,"b', "a,,b", "a,b,a"])
def test_class_names_that_are_unclear_are_refused(words: str) -> None:
    """An open quote, an empty name and a name that comes twice are not guessed at."""
    with pytest.raises(ConfigError):
        class_names(words)


@given(st.text(max_size=2000), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=60, unique=True))
def test_a_sentence_about_an_unknown_name_lists_few_names_and_the_likeliest_first(got: str, known: list[str]) -> None:
    """However many names there are and however long a wrong one is, the sentence stays short; a hint begins it."""
    sentence = unknown_name("the class", got, known, listed="L.", otherwise="O.")
    assert len(sentence) < 1200
    hinted = "Did you mean" in sentence.partition("Expected the class")[0]
    assert hinted or sentence.startswith("Expected the class to be one of")
    assert sentence.endswith("L.") or len(known) <= 10 or not hinted
    assert sentence.endswith(".")


def test_a_name_that_differs_by_case_or_one_letter_is_asked_for_among_a_thousand() -> None:
    """Of a thousand classes one is named, and none is listed."""
    classes = [f"class number {n}" for n in range(1000)] + ["zebra"]
    for wrong in ("ZEBRA", "zebar"):
        said = unknown_name("the class", wrong, classes)
        assert said == f"Did you mean 'zebra'? Expected the class to be one of 1,001, got {wrong!r}."

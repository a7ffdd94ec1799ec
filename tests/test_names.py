"""Tests of the one spelling of a name, and of the names that a member may have."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.errors import ConfigError, QuotaError
from ttca.names import canonical
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
        (("ada", -1), QuotaError, "at least 1 query for member 'ada', got -1"),
        (("ada", 0), QuotaError, "at least 1 query for member 'ada', got 0"),
        (("ada", 5, None, 0), QuotaError, "Expected rates of at least 1 query for member 'ada'"),
    ],
)
def test_a_member_without_a_name_or_a_quota_is_refused(
    words: tuple[Any, ...], error: type[Exception], sentence: str
) -> None:
    """A name that is empty or hides something, and a quota or a rate that pays for nothing, end in a sentence."""
    with pytest.raises(error, match=re.escape(sentence)):
        Member(*words)
    assert Member(" Zoë ", 1).name == "Zoë"

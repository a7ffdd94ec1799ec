"""Tests of the one spelling of a name."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttca.names import canonical


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

"""Tests of proposals: what would read an answer is found wherever it lies, and no JSON breaks the search."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from ttca.platforms.proposing import as_toml, proposals, response_of

TABLE = {"path": "x", "send": "png", "image_shape": [8, 8, 3], "scores": "nowhere"}
CLASSES = ("cat", "dog")
CASES: dict[str, tuple[Any, str]] = {
    "list of objects": (
        {"result": {"items": [{"name": "dog", "score": 0.9}, {"name": "cat", "score": 0.1}]}},
        'scores = "result.items[*].{label: name, score: score}"',
    ),
    "a list at the top": (
        [{"tag": "dog", "confidence": 0.9}, {"tag": "cat", "confidence": 0.1}],
        'scores = "[*].{label: tag, score: confidence}"',
    ),
    "names further in, percent": (
        {"result": {"tags": [{"confidence": 61.4, "tag": {"en": "dog"}}]}},
        'scores = "result.tags[*].{label: tag.en, score: confidence}"\nscores_are = "percent"',
    ),
    "percent as people write it": (
        {"ok": True, "outcome": {"ranked": [{"name": "dog", "p": "87.3%"}, {"name": "cat", "p": "12.7 %"}]}},
        'scores = "outcome.ranked[*].{label: name, score: p}"',
    ),
    "the score among other numbers": (
        {"d": [{"width": 0.2, "class": "dog", "probability": 0.9}]},
        'scores = "d[*].{label: class, score: probability}"',
    ),
    "objects by name": (
        {"predictions": {"cat": {"confidence": 0.1}, "dog": {"confidence": 0.9}}},
        'scores = "predictions.*.confidence"\nnames = "keys(predictions)"',
    ),
    "numbers by name": ({"r": {"cat": 0.1, "dog": 0.9}}, 'scores = "r"'),
    "pairs": ({"r": [["cat", 0.1], ["dog", 0.9]]}, 'scores = "r"'),
    "two lists": ({"names": ["dog", "cat"], "p": [0.9, 0.1]}, 'scores = "p"\nnames = "names"'),
    "numbers alone": ({"outputs": [{"p": [0.1, 0.9]}]}, 'scores = "outputs[0].p"'),
    "a label alone": ({"a-b": {"class": "dog"}}, "label = '\"a-b\".class'"),
}


@pytest.mark.parametrize(("said", "lines"), CASES.values(), ids=CASES.keys())
def test_the_place_of_an_answer_is_found(said: Any, lines: str) -> None:
    """The first proposal is the one that a person would write, and it reads the class."""
    first = proposals(json.dumps(said).encode(), TABLE, CLASSES)[0]
    assert first.lines == lines
    assert first.answers is not None
    assert first.answers.labels.tolist() == [1]


def test_names_that_are_no_classes_are_shown_without_being_read() -> None:
    """Where only the shape fits, the line is proposed and said to read no class."""
    (one,) = proposals(b'{"x": [{"description": "lorry", "score": 0.2}]}', TABLE, CLASSES)
    assert one.lines == 'scores = "x[*].{label: description, score: score}"'
    assert one.answers is None


def test_what_a_ledger_keeps_is_taken_apart() -> None:
    """The status stands before the body; what was kept otherwise is all body."""
    assert response_of(b'[404, {}]\n{"a": 1}') == (404, b'{"a": 1}')
    assert response_of(b"<html>\nmore") == (200, b"<html>\nmore")


def test_a_line_is_toml() -> None:
    """Double quotes inside stand in single ones."""
    assert as_toml('a."b c"') == "'a.\"b c\"'"
    assert as_toml("é") == '"é"'
    assert as_toml("\x1b") == '"\\u001b"'


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from(CLASSES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@examples(200)
@given(json_values)
def test_no_json_breaks_the_search(said: Any) -> None:
    """Whatever came is searched; there are at most three proposals, and each that reads something reads a class."""
    found = proposals(json.dumps(said).encode(), TABLE, CLASSES)
    assert len(found) <= 3
    assert all(p.answers is None or p.answers.answered.all() for p in found)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 5000, b'{"a":' * 500 + b"1" + b"}" * 500])
def test_what_is_no_json_or_very_deep_has_no_proposal(body: bytes) -> None:
    """Neither HTML nor ten thousand brackets bring an error."""
    assert proposals(body, TABLE, CLASSES) == []

"""Tests that the documentation of the training-time levers says what is published and what is not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ttca.training_time

_FILES = sorted(Path(ttca.training_time.__path__[0]).glob("*.py"))
_MARKS = ("*published*", "*derived*", "*ours*", "our reading")


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_every_docstring_says_where_it_comes_from(path: Path) -> None:
    """Each public class and function names what is published, derived or ours; its methods belong to it."""
    unmarked = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and not any(mark in (ast.get_docstring(node) or "").lower() for mark in _MARKS)
    ]
    assert unmarked == []

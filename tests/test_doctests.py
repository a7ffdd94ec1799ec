"""The examples in docstrings are run: they print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"ttca": "ttca", "proxies": "ttca.proxies", "attacks": "ttca.attacks"}


def with_examples() -> list[str]:
    """Return the modules in which somebody wrote an example."""
    found = set()
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                found.add(".".join((package, *parts)).removesuffix(".__init__"))
    return sorted(found)


@pytest.mark.parametrize("name", with_examples())
def test_examples_print_what_they_say(name: str) -> None:
    """Every example in a module's docstrings runs, and its output is the printed one."""
    module = importlib.import_module(name)
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
    assert doctest.testmod(module).failed == 0

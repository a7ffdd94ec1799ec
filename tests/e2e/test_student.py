"""The student's tutorial keeps its word: its blocks run one after the other, as they stand."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import ttca
from tests.e2e.test_documents import blocks

pytestmark = pytest.mark.e2e

PAGE = "docs/tutorial-student.md"
#: What the small form has otherwise than the page.
QUICK = {"architectures": ("perceptron",), "epochs": 8, "steps": 5, "control_lengths": (1.0,)}


def run_the_page(capsys: pytest.CaptureFixture[str]) -> str:
    """Run every Python block in one namespace, and return what they print; what the page shows of it is text."""
    found: dict[str, object] = {}
    for language, _, text in blocks(PAGE):
        assert language in ("python", "text")
        if language == "python":
            exec(compile(text, PAGE, "exec", dont_inherit=True), found)
    return capsys.readouterr().out


def without_numbers(text: str) -> list[str]:
    """Return the words of a text, every number as the same one: they differ between machines."""
    return re.sub(r"\d+(?:\.\d+)?(?:e-\d+)?", "#", text).split()


def check(said: str) -> None:
    """The page's promises: a gap, a certificate in a sentence, and six numbers of the row."""
    assert said.startswith("Right answers for unchanged images: subgroup ")
    assert "ertified" in said
    names = [line.split()[0] for line in said.splitlines()[-6:]]
    assert {"subgroup_after", "abuse_rate", "zero_query_control"} <= set(names)


def test_the_students_blocks_run_with_a_short_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block works in its order, with a proxy and a δ of a second in place of the page's."""
    monkeypatch.chdir(tmp_path)
    real = ttca.Settings

    def quick(**settings: object) -> ttca.Settings:
        assert settings["epochs"] == 15
        return real(**{**settings, **QUICK})  # type: ignore[arg-type]

    assert set(inspect.signature(real).parameters) > QUICK.keys()
    monkeypatch.setattr(ttca, "Settings", quick)
    check(run_the_page(capsys))


@pytest.mark.full
def test_the_students_blocks_run_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block works in its order as it is printed, and says what the page shows, but for the numbers."""
    monkeypatch.chdir(tmp_path)
    said = run_the_page(capsys)
    check(said)
    assert "\nCertified" in said
    shown = "".join(text for language, _, text in blocks(PAGE) if language == "text")
    assert without_numbers(said) == without_numbers(shown)

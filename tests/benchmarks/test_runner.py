"""Tests of what the runner writes down about a run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.__main__ import place
from benchmarks._circumstances import commit
from benchmarks._document import commands


def test_a_result_says_whether_code_differs_from_its_commit(tmp_path: Path) -> None:
    """Changed or new code marks the commit; result files of earlier runs do not; no repository is no commit."""
    home = tmp_path / "project" / "benchmarks"
    (home / "results").mkdir(parents=True)
    assert commit(home) is None

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=home.parent, check=True, capture_output=True)

    code = home.parent / "code.py"
    code.write_text("x = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "First")
    clean = commit(home)
    assert clean is not None
    assert len(clean) >= 7
    (home / "results" / "a.json").write_text("{}")
    assert commit(home) == clean
    code.write_text("x = 2\n")
    assert commit(home) == f"{clean}-dirty"
    code.write_text("x = 1\n")
    (home / "new.py").write_text("")
    assert commit(home) == f"{clean}-dirty"


def test_a_smaller_run_does_not_replace_a_result_that_documents_quote(tmp_path: Path) -> None:
    """The same arguments write the file anew, others go aside unless asked to replace it."""
    path = tmp_path / "harm-digits.json"
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=False) == path
    path.write_text(json.dumps({"arguments": ["--seeds", "3", "--json"]}))
    assert place(tmp_path, "harm-digits", ["--seeds", "3"], replaces=False) == path
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=False) == tmp_path / "aside" / path.name
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=True) == path


def test_a_document_names_the_command_that_made_its_file() -> None:
    """The stored arguments are quoted as a shell needs them, with commit and threads."""
    record = {
        "benchmark": "effect",
        "arguments": ["--set", "a=(1, 2)", "--json"],
        "commit": "abc",
        "hardware": {"threads": 2},
    }
    assert commands([("effect.json", record)]) == (
        "- `effect.json`: `python -m benchmarks effect --set 'a=(1, 2)'` (commit abc, 2 threads)"
    )
    assert "Not measured" in commands([])

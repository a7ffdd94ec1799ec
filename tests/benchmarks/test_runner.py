"""Tests of what the runner writes down about a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks._circumstances import commit


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

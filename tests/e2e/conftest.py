"""Whole programs: each worker runs the demo once, for all its tests that read what it left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEMO = (sys.executable, "-m", "ttca", "demo", "--json")


@dataclass(frozen=True)
class FinishedDemo:
    """A demo that ran to its end: where, and what it printed."""

    home: Path
    row: dict[str, Any]
    stdout: str
    stderr: str

    @property
    def folder(self) -> Path:
        """The action's folder."""
        return self.home / "runs" / "demo"


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """Run the demo as a newcomer would, in an empty folder."""
    home = tmp_path_factory.mktemp("demo")
    done = subprocess.run(DEMO, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return FinishedDemo(home, json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr)

"""Tests of the examples: scripts and notebooks run as they are, from the first line to the last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
#: What takes seconds runs in `make test` too.
QUICK = {"serve_and_ask.py"}


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder of its own, without a screen."""
    env = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run([sys.executable, "-c", code], cwd=home, env=env, capture_output=True, text=True, check=False)


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Return a notebook's cells."""
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return found


@pytest.mark.parametrize(
    "script",
    [pytest.param(s, marks=[] if s.name in QUICK else [pytest.mark.full]) for s in SCRIPTS],
    ids=lambda s: s.name,
)
def test_a_script_runs(script: Path, tmp_path: Path) -> None:
    """It ends well, says something, and is short."""
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45
    done = run(f"__name__ = '__main__'\n{text.replace('from __future__ import annotations', '')}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """Its cells run in their order in a Python of their own."""
    code = "\n".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_notebooks_show_what_they_found() -> None:
    """There are four; each was run to its end, shows plots, and names neither an error nor a place on a machine."""
    assert len(NOTEBOOKS) == 4
    for notebook in NOTEBOOKS:
        outputs = [out for cell in cells(notebook) for out in cell.get("outputs", ())]
        assert all(cell["execution_count"] for cell in cells(notebook) if cell["cell_type"] == "code")
        assert sum("image/png" in out.get("data", {}) for out in outputs) >= 1
        assert not [out for out in outputs if out["output_type"] == "error" or out.get("name") == "stderr"]
        assert "/tmp/" not in json.dumps(outputs)
        assert notebook.stat().st_size < 400_000

"""Tests of the script for a machine with a GPU, on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"


def run(*arguments: str, **more: str) -> tuple[int, str]:
    """Run the script where no GPU can be seen; return its status and what it says."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(_SCRIPT), *arguments], env={**os.environ, **hidden, **more},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """One sentence with what to do instead, and no cell is begun."""
    status, said = run(str(tmp_path / "out"), TTCA_DATA=str(tmp_path))
    assert status == 1
    assert said == (
        "Expected a GPU that PyTorch can use, got none. Run the cells on processors: python -m benchmarks grid --keep\n"
    )
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        ((), {}, "Expected a folder for the results, got none."),
        (("out",), {"MINUTES": "11"}, "Expected MINUTES from 1 to 10, got 11."),
        (("out",), {"MINUTES": "1; true"}, "Expected MINUTES from 1 to 10, got 1; true."),
        (("out",), {"TTCA_DATA": "/nowhere"}, "Expected TTCA_DATA to name the folder of data sets, got '/nowhere'."),
        (("{}/out",), {"TTCA_DATA": "{}", "PYTHON": "/nowhere/python"}, "got none. Set PYTHON."),
    ],
)
def test_what_it_needs_is_a_sentence(
    arguments: tuple[str, ...], more: dict[str, str], said: str, tmp_path: Path
) -> None:
    """A folder, at most ten minutes, data and Python are checked in this order."""
    filled = {name: value.replace("{}", str(tmp_path)) for name, value in more.items()}
    status, error = run(*(word.replace("{}", str(tmp_path)) for word in arguments), **filled)
    assert status == 1
    assert said in error
    assert error.count("\n") == 1

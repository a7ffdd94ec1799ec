"""The documents keep their word: their commands and their code are run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import FinishedDemo

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[tuple[str, str, str]]:
    """Return language, remark and text of every fenced block of a document."""
    return [(m[1], m[2].strip(), m[3]) for m in BLOCK.finditer((ROOT / document).read_text(encoding="utf-8"))]


def environment() -> dict[str, str]:
    """Return an environment in which `ttca` and `python` are those of this interpreter."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def background(command: str, home: Path) -> Iterator[None]:
    """Run a command beside the block, once it has said that it is ready."""
    process = subprocess.Popen(
        shlex.split(command), cwd=home, env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        yield
    finally:
        process.communicate("", timeout=30)


def test_the_tutorials_commands_work_in_its_order(finished_demo: FinishedDemo) -> None:
    """Every command, script and file of the tutorial works as printed, from the first to the last."""
    home = finished_demo.home
    ran = 0
    with contextlib.ExitStack() as stack:
        for language, remark, text in blocks("docs/tutorial.md"):
            if language == "toml":
                (home / remark.removeprefix("file=")).write_text(text, encoding="utf-8")
            elif language == "python":
                subprocess.run([sys.executable, "-c", text], cwd=home, check=True)
                ran += 1
            elif remark == "background":
                stack.enter_context(background(text, home))
                ran += 1
            else:
                for command in text.splitlines():
                    if command.startswith("pip install"):
                        continue  # this interpreter has it; test_wheel.py installs
                    if command.startswith("ttca init"):
                        (home / command.split()[-1]).unlink(missing_ok=True)
                    done = subprocess.run(
                        shlex.split(command), cwd=home, env=environment(), capture_output=True, text=True, check=False
                    )
                    assert done.returncode == 0, f"{command}\n{done.stderr}"
                    ran += 1
    assert ran >= 12
    for name in ("submit.png", "my-action/report.html", "my-action/perturbations.safetensors"):
        assert (home / name).is_file(), name


#: The README's reader has a model and pictures; here they are the demo's.
_READER = """
from ttca.proxies.distillation import Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.demo.world import DIGITS, digits_world
from ttca.people import People

world = digits_world(seed=0)
everybody = People.concatenate(list(world.roster.roles().values()))[::5]
images, labels, blurred, names = everybody.images, everybody.classes, everybody.subgroup, DIGITS
truth = Targets.from_labels(world.training_classes, len(DIGITS))
options = Distilling(architectures=("perceptron",), seed=0, epochs=30)
predict = train_proxy(world.training_images, truth, options).proxy.predict
"""


def test_the_readmes_program_works(tmp_path: Path) -> None:
    """The README's program runs as printed on a reader's own model, tells of the gap, and verifies."""
    (program,) = [text for language, _, text in blocks("README.md") if language == "python"]
    assert len([line for line in program.splitlines() if line.strip()]) <= 14
    done = subprocess.run(
        [sys.executable, "-c", _READER + program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ertified" in done.stdout
    assert "subgroup" in done.stdout


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in the documents names a file that exists."""
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_numbers_in_documents_come_from_result_files() -> None:
    """Every result file that a document names exists, so that its numbers can be looked up."""
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"benchmarks/results/[\w.-]+\.json", document.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{document.name}: {name}"

"""The wheel: what is in it, and that it works where nothing else of the project is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import FinishedDemo

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git would ship, so that no build folder is left in the tree."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    source.mkdir()
    for name in ("ttca", "proxies", "attacks", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


def fresh_environment(home: Path) -> Path:
    """Make an empty environment and return its python."""
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    return home / "bin" / "python"


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run python without this project on its path."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([str(python), *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_packages_and_no_tests(wheel: Path) -> None:
    """The wheel ships ttca alone, with proxies, attacks and py.typed inside it, and neither tests nor benchmarks."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"ttca"}
    wanted = {"ttca/py.typed", "ttca/report/report.html.j2", "ttca/proxies/runtime.py", "ttca/attacks/universal.py"}
    wanted |= {f"ttca/page/{file.name}" for file in (ROOT / "ttca" / "page").iterdir()}
    assert wanted <= set(names)
    assert not any("test" in Path(name).name for name in names)


@pytest.mark.full
def test_the_light_install_applies_a_perturbation_without_torch(
    wheel: Path, finished_demo: FinishedDemo, tmp_path: Path
) -> None:
    """In an environment with the base install alone, ttca imports, applies a δ, and says what learning would need."""
    python = fresh_environment(tmp_path / "light")
    installed = run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    assert run(python, "-c", "import torch", cwd=tmp_path).returncode != 0
    pool = "from ttca import HttpPlatform, Ledger, PerturbationSet, QueryPool"
    assert run(python, "-c", pool, cwd=tmp_path).returncode == 0
    (tmp_path / "mine").mkdir()
    for name in ("attacks.py", "proxies.py"):
        (tmp_path / "mine" / name).write_text("raise SystemExit('a user's own file was imported')\n", encoding="utf-8")
    assert run(python, "-c", "import ttca; from ttca import PerturbationSet", cwd=tmp_path / "mine").returncode == 0
    image = finished_demo.folder / "people" / "images" / "000000.png"
    label = (finished_demo.folder / "people" / "people.csv").read_text().splitlines()[1].split(",")[1]
    applied = run(
        python,
        *("-m", "ttca", "apply", str(finished_demo.folder / "perturbations.safetensors"), str(image)),
        *("--class", label, "--out", "submit.png", "--json"),
        cwd=tmp_path,
    )
    assert applied.returncode == 0, applied.stderr
    said = json.loads(applied.stdout)
    assert said["photos"][0]["largest_change"] <= finished_demo.row["epsilon"]
    assert said["set"]["signed_by"].startswith("ttca-ed25519:")
    refused = run(python, "-m", "ttca", "demo", cwd=tmp_path)
    assert refused.returncode == 1
    assert "pip install 'ttca[" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.full
def test_the_installed_wheel_runs_the_demo(wheel: Path, finished_demo: FinishedDemo, tmp_path: Path) -> None:
    """Installed in an environment of its own, away from the sources, the wheel's demo gives the same row.

    The large libraries are borrowed from this interpreter through a path file, which brings no editable install along.
    """
    python = fresh_environment(tmp_path / "full")
    assert run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel), cwd=tmp_path).returncode == 0
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).stdout.strip()
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    where = run(python, "-c", "import ttca; print(ttca.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(tmp_path)), where.stderr
    done = run(python, "-m", "ttca", "demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row, costs = json.loads(done.stdout), ("seconds_distil", "seconds_learn", "seconds", "peak_rss_mb")
    assert {k: v for k, v in row.items() if k not in costs} == {
        k: v for k, v in finished_demo.row.items() if k not in costs
    }

"""Tests that ttca is light: what it loads, what it works without, and whose packages it takes for its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "scipy",
    "matplotlib",
    "sklearn",
    "fastapi",
    "uvicorn",
    "datasets",
    "onnxruntime",
)


def python(code: str, *, path: tuple[Path, ...] = (), cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python with warnings as errors, ``path`` first on sys.path and then this repository."""
    start = f"import sys; sys.path[:0] = {[str(p) for p in (*path, HOME)]}\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", start + code], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_importing_ttca_loads_nothing_else() -> None:
    """The package alone loads no numpy, no SQLAlchemy, no requests and no torch, and none of its own modules."""
    done = python(
        "import ttca\n"
        "found = {n.partition('.')[0] for n in sys.modules}\n"
        "print(sorted(found & {'numpy', 'sqlalchemy', 'requests', 'torch', 'rich', 'PIL', 'proxies', 'attacks'}))\n"
        "print([n for n in sys.modules if n.startswith('ttca')])\n"
        "print(set(ttca.__all__) <= set(dir(ttca)))\n"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "['ttca']", "True"]


def test_members_need_no_optional_package(tmp_path: Path) -> None:
    """With every optional package blocked, a member can pool queries, save, load and apply a perturbation."""
    done = python(
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import numpy as np\n"
        "import ttca\n"
        "from pathlib import Path\n"
        "ttca.HttpPlatform, ttca.PerturbationSet, ttca.QueryPool, ttca.Ledger, ttca.LocalPlatform, ttca.split_roles\n"
        "model = lambda x: np.stack([1 - x.mean((1, 2, 3)) / 255, x.mean((1, 2, 3)) / 255], axis=1)\n"
        "platform = ttca.LocalPlatform(model, classes=('dark', 'bright'), image_shape=(2, 2, 3))\n"
        "images = np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 200)])\n"
        "with ttca.Ledger(Path('ledger.sqlite')) as ledger:\n"
        "    pool = ttca.QueryPool(platform, ledger, [ttca.Member('ada', 5)])\n"
        "    print(pool.ask(images).labels.tolist())\n"
        "delta = np.full((2, 2, 2, 3), 4, np.int8)\n"
        "ttca.PerturbationSet(delta, 4, ('dark', 'bright'), 's', 'f').save('set.safetensors')\n"
        "print(ttca.PerturbationSet.load('set.safetensors').apply(images, 0)[:, 0, 0, 0].tolist())\n",
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[0, 1]", "[4, 204]"]


def test_the_platform_over_http_is_made_without_optional_packages() -> None:
    """An HTTP platform is built, without a connection, when every optional package is blocked."""
    done = python(
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import ttca\n"
        "print(type(ttca.HttpPlatform('http://127.0.0.1:9', model='m', classes=('a', 'b'))).__name__)\n"
    )
    assert done.stderr == ""
    assert done.stdout == "HttpPlatform\n"


@pytest.mark.parametrize("name", ["attacks", "proxies"])
def test_another_package_of_our_name_is_named(name: str, tmp_path: Path) -> None:
    """A package that hides ours stops the import with a sentence that says where it lies and what to do."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package was run')\n")
    done = python("import ttca", path=(tmp_path,))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ImportError: ttca expected its own package {name!r} in {HOME}, but it is found in {tmp_path}"
    )
    assert f"Rename or uninstall the other package called {name!r}" in last


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that ttca does not have is the usual AttributeError, so that hasattr works."""
    done = python("import ttca; print(hasattr(ttca, 'Oracle')); ttca.Oracle")
    assert done.stdout == "False\n"
    assert done.stderr.strip().splitlines()[-1] == "AttributeError: module 'ttca' has no attribute 'Oracle'"


def test_every_exported_name_is_there() -> None:
    """Each name in __all__ can be had, and is the one its own module defines."""
    done = python(
        "import ttca\n"
        "for name in ttca.__all__:\n"
        "    found = getattr(ttca, name)\n"
        "    assert getattr(sys.modules[found.__module__], name) is found, name\n"
    )
    assert done.stderr == ""
    assert done.returncode == 0

"""Tests that ttca is light: what it loads, what it works without, and whose packages it takes for its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ttca.extras import EXTRAS

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
        "known = ttca.PerturbationSet.load('set.safetensors')\n"
        "print(known.apply(images, 0)[:, 0, 0, 0].tolist())\n"
        "print(ttca.PerturbationTransform(known, 'bright')(images[0])[0, 0].tolist())\n"
        "import requests; ttca.apply_to_requests(requests.Session(), known, 'dark').close()\n"
        "from PIL import Image; Image.fromarray(images[1]).save('me.png')\n"
        "from ttca.cli import main\n"
        "for words in ('inspect', 'apply me.png --class dark --anyway --out me-2.png'):\n"
        "    name, *more = words.split()\n"
        "    sys.argv = ['ttca', name, 'set.safetensors', *more, '--json']\n"
        "    try: main()\n"
        "    except SystemExit as ended: print(ended.code)\n",
        cwd=tmp_path,
    )
    assert "Traceback" not in done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == ["[0, 1]", "[4, 204]", "[4, 4, 4]"]
    assert (said[4], said[6]) == ("0", "0")
    assert (tmp_path / "me-2.png").is_file()


def test_settings_are_checked_without_optional_packages() -> None:
    """Names of models, transformations and attacks are checked where torch is not installed, and load nothing."""
    done = python(
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import ttca\n"
        "s = ttca.Settings(architectures=('resnet20', 'timm/x', 'mine:Net'), transforms=('blur',))\n"
        "print(s.distilling.architectures, s.perturbing.transforms)\n"
        "for wrong in ({'architectures': ('resnet19',)}, {'transforms': ('jpg',)}, {'attack': 'none'}):\n"
        "    try: ttca.Settings(**wrong)\n"
        "    except ttca.TTCAError as error: print(type(error).__name__, str(error).partition(',')[0])\n"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "('resnet20', 'timm/x', 'mine:Net') ('blur',)",
        "ConfigError Did you mean 'resnet56'? Expected the architecture to be one of perceptron",
        "ConfigError Expected each transform to be one of resize",
        "ConfigError Expected an attack that an installed package offers (found: none)",
    ]


def test_the_platform_over_http_is_made_without_optional_packages() -> None:
    """An HTTP platform is built, without a connection, when every optional package is blocked."""
    done = python(
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import ttca\n"
        "print(type(ttca.HttpPlatform('http://127.0.0.1:9', model='m', classes=('a', 'b'))).__name__)\n"
    )
    assert done.stderr == ""
    assert done.stdout == "HttpPlatform\n"


def test_a_users_own_attacks_and_proxies_are_left_alone(tmp_path: Path) -> None:
    """Files or folders called attacks or proxies beside a user's script are theirs, and ttca does not see them."""
    (tmp_path / "attacks.py").write_text("raise SystemExit('the wrong module was run')\n")
    (tmp_path / "proxies").mkdir()
    (tmp_path / "proxies" / "__init__.py").write_text("raise SystemExit('the wrong package was run')\n")
    done = python(
        "import ttca, ttca.attacks, ttca.proxies, ttca.proxies.runtime\n"
        "print(sorted({'attacks', 'proxies'} & set(sys.modules)))\n",
        path=(tmp_path,),
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout == "[]\n"


def modules(package: Path = HOME / "ttca") -> list[str]:
    """Return the name of every module of ttca."""
    files = sorted({*package.rglob("*.py"), *(f for part in PARTS for f in (package / part).rglob("*.py"))})
    names = [".".join(f.relative_to(HOME).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


PARTS = ("attacks", "proxies")


def test_no_module_is_loaded_under_two_names() -> None:
    """With every module of ttca loaded, no file stands in sys.modules twice."""
    done = python(
        "from importlib import import_module\n"
        "from pathlib import Path\n"
        f"for name in {modules()!r}: import_module(name)\n"
        "homes = [Path(name).resolve() for name in ('ttca', 'attacks', 'proxies')]\n"
        "found = [Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, '__file__', None)]\n"
        "ours = [f for f in found if any(f.is_relative_to(home) for home in homes)]\n"
        "print(len(ours) - len(set(ours)), len(ours))\n",
        cwd=HOME,
    )
    assert done.returncode == 0, done.stderr
    twice, count = map(int, done.stdout.split())
    assert twice == 0
    assert count == len(modules())


def test_every_package_is_installed() -> None:
    """The packages that pyproject.toml lists are the folders that hold modules, each under its one name."""
    tools = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {".".join(f.parent.relative_to(HOME).parts) for f in (HOME / "ttca").rglob("__init__.py")}
    assert set(tools["packages"]) == folders | {f"ttca.{part}" for part in PARTS}
    assert tools["package-dir"] == {f"ttca.{part}": part for part in PARTS}


def imported(path: Path) -> set[str]:
    """Return the names of the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            # ``from ttca import proxies`` is an import of ttca.proxies.
            found |= {f"{module}.{a.name}" for a in node.names} if module in ("ttca", *OURS) else {module}
    return found


OURS = tuple(f"ttca.{part}" for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_proxies_and_attacks_take_and_return_arrays(part: str) -> None:
    """Proxies import nothing else of ttca, attacks only images and runtime of proxies: no HTTP, ledger or member."""
    allowed = {"proxies": "ttca.proxies", "attacks": "ttca.attacks"}[part]
    borrowed = {"ttca.proxies.images", "ttca.proxies.runtime"} if part == "attacks" else set()
    for path in (HOME / part).glob("*.py"):
        for name in imported(path):
            if name.split(".")[0] in ("ttca", "benchmarks", "tests"):
                assert name == allowed or name.startswith(allowed + ".") or name in borrowed, f"{path.name}: {name}"
            assert name.split(".")[0] not in ("requests", "sqlalchemy", "fastapi", "typer"), f"{path.name}: {name}"


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


def test_extras_are_known_by_packages_that_they_bring() -> None:
    """Every extra that users install is known by packages that pyproject.toml lists under it."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {"sklearn": "scikit-learn", "pillow_heif": "pillow-heif"}
    assert EXTRAS.keys() == project["optional-dependencies"].keys() - {"bench", "test", "docs"}
    for extra, packages in EXTRAS.items():
        listed = {re.split(r"[\[>=<]", words)[0] for words in project["optional-dependencies"][extra]}
        assert {brought.get(package, package) for package in packages} <= listed, extra

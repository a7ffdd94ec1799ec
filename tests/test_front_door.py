"""Tests of the files around the library: container, citation, changelog and guides say what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ttca

HOME = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    """Return a file's text."""
    return (HOME / name).read_text(encoding="utf-8")


def test_the_dockerfile_copies_what_is_there_and_installs_what_there_is() -> None:
    """Every file that it copies exists and passes .dockerignore, its extras are ttca's, and its user is not root."""
    text = read("Dockerfile")
    copied = [word for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", text) for word in line.split()[:-1]]
    kept = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert set(copied) == kept
    assert all((HOME / name).exists() for name in copied)
    wanted = {*PROJECT["license-files"], PROJECT["readme"], "pyproject.toml"}
    folders = re.findall(r'"(\w+)"', re.search(r"package-dir = .*", read("pyproject.toml"))[0])  # type: ignore[index]
    assert wanted | {"ttca", *folders} == kept
    (extras,) = re.findall(r"(?m)^ARG EXTRAS=(.*)$", text)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    users = re.findall(r"(?m)^USER (\S+)$", text)
    assert users
    assert users[-1] not in ("0", "root")
    assert text.index("USER") < text.index("ENTRYPOINT")


def test_one_version_is_told_everywhere() -> None:
    """Package, project, citation and the newest heading of the changelog name the same version."""
    assert PROJECT["version"] == ttca.__version__
    assert f"\nversion: {ttca.__version__}\n" in read("CITATION.cff")
    heading = re.search(r"(?m)^## (\S+)", read("CHANGELOG.md"))
    assert heading is not None
    assert heading[1] == ttca.__version__


def test_contributing_names_the_commands_of_the_makefile() -> None:
    """Every `make` command that a guide names is a target, and every test target is named."""
    targets = set(re.findall(r"(?m)^([\w-]+):", read("Makefile")))
    named = set(re.findall(r"`make ([\w-]+)`", read("CONTRIBUTING.md")))
    assert named <= targets
    assert {t for t in targets if t.startswith("test")} | {"docs"} <= named


def test_the_architecture_has_a_room_for_every_module() -> None:
    """Every module has its line in ARCHITECTURE.md, and no line names a file that is gone."""
    rooms = read("ARCHITECTURE.md").partition("\n## The rooms\n")[2].partition("\n## ")[0]
    assert rooms
    # A line may stand for a family of files: its folder, or NAME in it.
    whole = ("ttca/commands/", "ttca/platforms/protocols/", "ttca/demo/", "ttca/report/", "benchmarks/_pages/")
    modules = [*HOME.glob("ttca/**/*.py"), *HOME.glob("proxies/*.py"), *HOME.glob("attacks/*.py")]
    modules += HOME.glob("benchmarks/_[!_]*.py")
    missing = [
        place
        for path in modules
        if not path.name.startswith("__") and not (place := path.relative_to(HOME).as_posix()).startswith(whole)
        if f"`{path.name}`" not in rooms and f"/{path.name}`" not in rooms
    ]
    assert missing == []
    assert all(f"`{folder}" in rooms or f"`{folder.removeprefix('benchmarks/')}" in rooms for folder in whole)
    named = re.findall(r"`((?:ttca|proxies|attacks|benchmarks|website)/[\w/]+\.\w+)`", rooms)
    assert [name for name in named if "NAME" not in name and not (HOME / name).exists()] == []


def test_links_of_the_root_documents_name_files() -> None:
    """Every relative link of the files at the top of the repository names a file that exists."""
    for document in HOME.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (HOME / target).exists(), f"{document.name}: {target}"

"""Tests that benchmarks measure, documents are written, and nothing does both."""

from __future__ import annotations

import ast
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from benchmarks._documents import DOCUMENTS, main
from benchmarks._figures import FIGURES, draw
from benchmarks._listing import RESULTS, names
from ttca.errors import ConfigError

_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / "benchmarks"
#: What makes documents.
_PAGES = sorted(f"_pages.{path.stem}" for path in (_HOME / "_pages").glob("[!_]*.py"))
_WRITING = {"_document", "_documents", "_figures", "_tables", "_pages", *_PAGES}
#: The one function of a benchmark that a document's maker calls: it names a kept cell.
_NAMES_A_CELL = {"quick_key"}


@cache
def imported(module: str) -> set[tuple[str, str]]:
    """Return what a module of the benchmarks imports anywhere: module and name, "" for the module itself."""
    path = _HOME / f"{module.replace('.', '/')}.py"
    tree = ast.parse((path if path.is_file() else _HOME / module / "__init__.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
    return found


@cache
def needs(module: str) -> set[str]:
    """Return the modules of the benchmarks that a module imports, by their names within the folder."""
    every = {*_WRITING, *names(), *(path.stem for path in _HOME.glob("_*.py"))}
    whole = {f"{where}.{name}" if name else where for where, name in imported(module)}
    paths = {*whole, *(where for where, _ in imported(module))}
    return {path.removeprefix("benchmarks.") for path in paths if path.startswith("benchmarks.")} & every


def test_no_benchmark_writes_a_document() -> None:
    """Nothing that a benchmark needs, however far off, makes tables or figures for documents."""
    assert len(_PAGES) >= 9
    for name in names():
        seen: set[str] = set()
        ahead = {name}
        while ahead:
            module = ahead.pop()
            seen.add(module)
            assert not any(where.startswith("matplotlib") for where, _ in imported(module)), module
            ahead |= needs(module) - seen
        assert not seen & _WRITING, name


def test_what_writes_documents_measures_nothing() -> None:
    """A page knows constants of a benchmark and calls none; no platform, pool or action is at hand."""
    for module in sorted(_WRITING - {"_pages"}):
        for where, name in imported(module):
            if where.removeprefix("benchmarks.") in names():
                assert name.isupper() or name in _NAMES_A_CELL, f"{module} takes {name} from {where}"
            doing = ("action", "asking", "learning", "platforms", "pooling", "proxies", "attacks", "demo")
            assert not where.startswith(tuple(f"ttca.{part}" for part in doing)), f"{module} imports {where}"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a folder with all documents, their tables emptied and their files of tables gone, and the result files."""
    shutil.copytree(_ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("data"))
    shutil.copytree(RESULTS, tmp_path / "benchmarks" / "results")
    for name in DOCUMENTS:
        text = (_ROOT / name).read_text(encoding="utf-8")
        emptied = re.sub(r"(<!-- ([\w -]+) -->\n).*?(<!-- /\2 -->)", r"\1\3", text, flags=re.DOTALL)
        assert emptied != text
        (tmp_path / name).write_text(emptied, encoding="utf-8")
    return tmp_path


def test_all_documents_are_made_of_the_result_files(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Emptied tables come back as they were, figures that are current stay, and a second time nothing is written."""
    main([], copied)
    files = [path.relative_to(_ROOT).as_posix() for path in (_ROOT / "docs" / "data").iterdir()]
    for name in [*DOCUMENTS, *files]:
        assert (copied / name).read_text(encoding="utf-8") == (_ROOT / name).read_text(encoding="utf-8")
    assert capsys.readouterr().err.count("Written: ") == len(DOCUMENTS) + len(files)
    main([], copied)
    assert not capsys.readouterr().err
    for path in RESULTS.glob("*.json"):
        assert (copied / "benchmarks" / "results" / path.name).read_bytes() == path.read_bytes()


def test_one_document_and_the_pictures_beside_it(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the page that is named is written, a figure whose result file changed is drawn, others are refused."""
    (copied / "docs" / "figures" / "matrix.svg").unlink()
    main(["minority", "--pictures", str(copied / "more")], copied)
    written = [line.rpartition("/")[2] for line in capsys.readouterr().err.splitlines()]
    pictures = sorted(path.name for path in (copied / "more").iterdir())
    files = sorted(path.name for path in (copied / "docs" / "data").iterdir())
    assert [name.partition("-")[0] for name in files] == ["minority"] * 4
    assert [written[0], *sorted(written[1:5]), written[5]] == ["minority.md", *files, "matrix.svg"]
    assert sorted(written[6:]) == pictures
    assert len(pictures) == 10
    with pytest.raises(SystemExit):
        main(["nonsense"], copied)
    assert "got nonsense" in capsys.readouterr().err


def test_a_figure_learns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that shows δ itself takes it from a kept cell; where there is none it says what to run."""
    monkeypatch.setenv("TTCA_CACHE", str(tmp_path / "cache"))
    assert "pictures" in FIGURES
    with pytest.raises(ConfigError, match="a figure learns nothing"):
        draw("pictures", folder=tmp_path)
    assert not (tmp_path / "cache").exists()

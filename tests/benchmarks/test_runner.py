"""Tests of the runner: what it lists, what it keeps, and what it writes down about a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main, place, usage, without_places
from benchmarks._circumstances import commit
from benchmarks._document import commands
from benchmarks._listing import RESULTS, durations, names, sentence

_TINY = ["sanity", "--seed", "1", "--actions", "50"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_help_lists_every_benchmark_with_a_sentence_and_its_duration() -> None:
    """Each has its line with a measured time, the next says what it asks, and no number is from nowhere."""
    lines = usage().splitlines()
    took = durations()
    assert len(names()) >= 22
    for name in names():
        at = lines.index(f"  {name} ({took[name]})")
        assert lines[at + 1].strip() == sentence(name)
        assert sentence(name).endswith((".", "?"))
        assert len(sentence(name).split()) >= 8


def test_help_is_quick_and_no_benchmark_needs_to_be_loaded() -> None:
    """Neither torch nor any benchmark is imported to print what there is; without a name that is an error."""
    code = (
        "import sys\nfrom benchmarks.__main__ import main\nstatus = main(sys.argv[1:])\n"
        "assert not {'torch', 'sklearn', 'benchmarks.effect', 'benchmarks.bounds'} & set(sys.modules)\nsys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for arguments, status in (["--help"], 0), ([], 2), (["nonsense"], 2):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        assert "what_queries_buy (" in (done.stdout if status == 0 else done.stderr)
    assert "got nonsense" in done.stderr


def test_durations_are_those_of_the_files_and_of_two_cores(tmp_path: Path) -> None:
    """A slice that ran, the newest whole run, and nothing that another machine or a failed slice took."""

    def keep(name: str, cores: int = 2, **record: object) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps({"hardware": {"cores": cores}, **record}))

    assert set(durations(tmp_path).values()) == {"not measured"}
    slices = {"harm": {"seconds": 13.8}, "pool": {"seconds": 20.9, "failed": "No server."}}
    keep("quick", benchmark="quick", date="2026-02-01", slices=slices, seconds=1447.2)
    keep("harm-old", benchmark="harm", date="2026-01-01", seconds=9000.0)
    keep("harm-new", benchmark="harm", date="2026-01-02", seconds=57.2)
    keep("harm-large", cores=64, benchmark="harm", date="2026-01-03", seconds=3.0)
    keep("chaos", benchmark="chaos", date="2026-01-01", seconds=5.0)
    keep("transfer", benchmark="transfer", date="2026-01-01", seconds=1.0, run_seconds=7378.0)
    took = durations(tmp_path)
    assert took["harm"] == "slice 14 s, 57 s for harm-new.json"
    assert took["quick"] == "24 min for quick.json"
    assert took["transfer"] == "2.0 h for transfer.json"
    assert took["pool"] == took["chaos"] == took["speed"] == "not measured"


def test_nothing_is_kept_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run prints its result and leaves the results alone; with --keep it is there, with what made it."""
    before = contents(RESULTS)
    assert main(_TINY) == 0
    assert contents(RESULTS) == before
    said = capsys.readouterr()
    assert json.loads(said.out)["actions"] == 50
    assert "--keep writes it" in " ".join(said.err.split())
    kept = tmp_path / "results"
    assert main([*_TINY, "--json"], kept) == 0
    assert not kept.exists()
    assert main([*_TINY, "--keep", "--json"], kept) == 0
    record = json.loads((kept / "sanity.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["arguments"] == [*_TINY[1:], "--json"]
    assert 0 < record["seconds"] <= record["run_seconds"]


def test_no_result_names_a_folder_of_the_machine_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in a folder that a variable names is written with the variable, and nothing else is touched."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("TTCA_DATA", "/home/ada/data")
    monkeypatch.delenv("TTCA_WEIGHTS", raising=False)
    monkeypatch.delenv("TTCA_CACHE", raising=False)
    given = ["--weights", "/home/ada/data/a.onnx", "weights=('/home/ada/b.onnx',)", "/home/ada/database", "x/home/ada"]
    said = ["--weights", "$TTCA_DATA/a.onnx", "weights=('$HOME/b.onnx',)", "$HOME/database", "x/home/ada"]
    assert without_places(given) == said


def test_kept_results_name_no_folder_of_a_machine() -> None:
    """No argument of a committed result is a path from the root."""
    for path in RESULTS.rglob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert not [a for a in record.get("arguments", []) if a.startswith("/")], path.name


def test_a_kept_run_with_other_arguments_replaces_only_when_told_to(tmp_path: Path) -> None:
    """It goes aside, and --replace, which keeps as well, puts it in the first one's place."""
    assert main([*_TINY, "--keep"], tmp_path) == 0
    other = [*_TINY[:-1], "60"]
    assert main([*other, "--keep"], tmp_path) == 0
    assert set(contents(tmp_path)) == {"aside/sanity.json", "sanity.json"}
    first = json.loads((tmp_path / "sanity.json").read_text(encoding="utf-8"))
    assert main([*other, "--replace"], tmp_path) == 0
    second = json.loads((tmp_path / "sanity.json").read_text(encoding="utf-8"))
    assert [first["arguments"], second["arguments"]] == [_TINY[1:], other[1:]]


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


def test_a_smaller_run_does_not_replace_a_result_that_documents_quote(tmp_path: Path) -> None:
    """The same arguments write the file anew, others go aside unless asked to replace it."""
    path = tmp_path / "harm-digits.json"
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=False) == path
    path.write_text(json.dumps({"arguments": ["--seeds", "3", "--json"]}))
    assert place(tmp_path, "harm-digits", ["--seeds", "3"], replaces=False) == path
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=False) == tmp_path / "aside" / path.name
    assert place(tmp_path, "harm-digits", ["--seeds", "1"], replaces=True) == path


def test_a_document_names_the_command_that_made_its_file() -> None:
    """The stored arguments are quoted as a shell needs them, with commit and threads."""
    record = {
        "benchmark": "effect",
        "arguments": ["--set", "a=(1, 2)", "--json"],
        "commit": "abc",
        "hardware": {"threads": 2},
    }
    assert commands([("effect.json", record)]) == (
        "- `effect.json`: `python -m benchmarks effect --set 'a=(1, 2)' --keep` (commit abc, 2 threads)"
    )
    assert "Not measured" in commands([])

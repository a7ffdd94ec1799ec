"""Tests that the tables in the documents are those of the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks._tables import effect_table, rewritten

_ROOT = Path(__file__).parents[2]


def result(**changes: Any) -> dict[str, Any]:
    """Return what a result file of the effect benchmark holds, as far as a table shows it."""
    before = ["reference_before", "subgroup_before", "subgroup_after", "gap_closed", "zero_query_control"]
    keys = [*before, "abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control"]
    rows = [{"answers": "label", "regime": "own", "queries": 500, "epsilon": e} for e in (2, 4)]
    return {
        "track": "tiny",
        "people": "dev-test",
        "rows": rows,
        "mean": dict.fromkeys(keys, 0.5) | {"subgroup_after": 0.9123},
        "standard_deviation": dict.fromkeys(keys, 0.01),
        "zero_query_mcnemar_p": [0.034, 0.5],
        "parity_certified": 1,
        **changes,
    }


def test_the_documents_table_is_that_of_the_result_files() -> None:
    """No number in docs/effect.md was written by hand or is out of date."""
    document = (_ROOT / "docs" / "effect.md").read_text(encoding="utf-8")
    assert rewritten(document) == document


def test_every_result_file_is_a_line_with_its_controls(tmp_path: Path) -> None:
    """A line names its file and shows effect, control, spread and certificates; one seed has no spread."""
    (tmp_path / "effect-a.json").write_text(json.dumps(result()))
    (tmp_path / "effect-b.json").write_text(json.dumps(result(standard_deviation={})))
    (tmp_path / "bounds.json").write_text("{}")
    _, _, first, second = effect_table(tmp_path).splitlines()
    for cell in ("| tiny, dev-test |", "| 2, 4 |", "| 0.912 ± 0.010 |", "| 0.034, 0.5 |", "| 1 of 2 |"):
        assert cell in first
    assert "`effect-a.json`" in first
    assert "±" not in second
    assert first.count("|") == second.count("|") == effect_table(tmp_path).splitlines()[0].count("|")


def test_ceilings_and_pairs_are_lines_with_their_files(tmp_path: Path) -> None:
    """Each ε of a ceiling and each pair of the matrix has its line, whatever stands in the cells."""
    ceiling = {
        "track": "tiny",
        "people": "dev-test",
        "regime": "public",
        "rows": [{"epsilon": e} for e in (4, 8, 4, 8)],
        "mean": {f"epsilon-{e}": {"subgroup_after": e / 10, "gap_closed": 0.5} for e in (4, 8)},
    }
    (tmp_path / "ceiling-a.json").write_text(json.dumps(ceiling))
    keys = ("fidelity_subgroup", "fidelity_reference", "reference_before", "subgroup_before", "subgroup_after")
    row = dict.fromkeys((*keys, "zero_query_control"), 0.25) | {"gap_closed": None}
    cell = {"proxy": r"a\1b", "platform": "big", "platform_over_proxy": 4.25, "row": row, "zero_query_mcnemar_p": 0.5}
    (tmp_path / "matrix.json").write_text(json.dumps({"cells": [cell]}))
    marks = "\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in ("effect", "ceiling", "matrix"))
    text = rewritten(marks, tmp_path)
    assert "| tiny, dev-test | public | 8 | 0.800 | 0.500 | 2 | `ceiling-a.json` |" in text
    assert r"| a\1b | big | 4.2 | 0.250 / 0.250 | 0.250 / 0.250 | 0.250 | – | 0.250 | 0.5 | `matrix.json` |" in text
    assert rewritten(text, tmp_path) == text


def test_a_document_without_marks_is_refused() -> None:
    """A table is never written to where none was."""
    with pytest.raises(ValueError, match="Expected the marks"):
        rewritten("# Nothing\n")

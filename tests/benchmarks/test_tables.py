"""Tests that the tables in the documents are those of the result files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from benchmarks import _claims
from benchmarks._documents import DOCUMENTS, rewritten
from benchmarks._figures import FIGURES, draw, sources_digest
from benchmarks._tables import claims_table, effect_table, results_table, rows_table, slices_table
from ttca.errors import ConfigError
from ttca.row import Row

_ROOT = Path(__file__).parents[2]


def result(*afters: float) -> dict[str, Any]:
    """Return what a result file of the effect benchmark holds, as far as a table shows it: one row per seed."""
    before = ["reference_before", "subgroup_before", "gap_closed", "zero_query_control"]
    keys = [*before, "abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control"]
    row = {"answers": "label", "regime": "own", "queries": 500, **dict.fromkeys(keys, 0.5)}
    return {
        "track": "tiny",
        "people": "dev-test",
        "rows": [{**row, "epsilon": 2 * k + 2, "subgroup_after": after} for k, after in enumerate(afters)],
        "zero_query_mcnemar_p": [0.034, 0.5][: len(afters)],
        "parity_certified": 1,
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_tables_are_those_of_the_result_files(name: str) -> None:
    """No number in a table of these documents is hand-written or out of date."""
    document = (_ROOT / name).read_text(encoding="utf-8")
    assert rewritten(name, document) == document


def test_every_result_file_is_a_line_with_its_controls(tmp_path: Path) -> None:
    """A line names its file and shows effect, control, spread and certificates; one seed has no spread."""
    (tmp_path / "effect-a.json").write_text(json.dumps(result(0.9023, 0.9223)))
    (tmp_path / "effect-b.json").write_text(json.dumps(result(0.9)))
    (tmp_path / "bounds.json").write_text("{}")
    _, _, first, second = effect_table(tmp_path).splitlines()
    for cell in ("| tiny, dev-test |", "| 2, 4 |", "| 0.912 ± 0.014 |", "| 0.034, 0.5 |", "| 1 of 2 |"):
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
    text = rewritten("docs/effect.md", marks, tmp_path)
    assert "| tiny, dev-test | public | 8 | 0.800 | 0.500 | 2 | `ceiling-a.json` |" in text
    assert r"| a\1b | big | 4.2 | 0.250 / 0.250 | 0.250 / 0.250 | 0.250 | – | 0.250 | 0.5 | `matrix.json` |" in text
    assert rewritten("docs/effect.md", text, tmp_path) == text


def test_slices_are_lines_and_one_that_failed_says_why(tmp_path: Path) -> None:
    """Each slice has its arguments and seconds, or the reason why there are none; the last line is all of them."""
    slices = {
        "bounds": {"arguments": ["--actions", "20"], "seconds": 2.6},
        "pool": {"arguments": [], "seconds": 0.4, "failed": "Expected a server, got none."},
    }
    (tmp_path / "quick.json").write_text(json.dumps({"slices": slices, "seconds": 3.0}))
    assert slices_table(tmp_path).splitlines()[2:] == [
        "| bounds | `--actions 20` | 3 | `quick.json` |",
        "| pool |  | Expected a server, got none. | `quick.json` |",
        "| all |  | 3 | `quick.json` |",
    ]


def test_a_document_without_marks_is_refused() -> None:
    """A table is never written to where none was."""
    with pytest.raises(ConfigError, match="Expected the marks"):
        rewritten("README.md", "# Nothing\n")


def grid(**changes: Any) -> dict[str, Any]:
    """Return what a result file of the transfer benchmark holds: one budget, three seeds, both kinds of people."""
    numbers = {key: 0.5 for key, kind in Row.__annotations__.items() if kind == "float"}
    numbers |= {"subgroup_before": 0.6, "gap_before": 0.3, "reference_before": 0.9, "zero_query_control": 0.7}
    numbers |= {"worst_group_before": 0.6, "worst_group_after": 0.8, "gap_closed": 0.93}
    paid = {"queries_pool": 500, "queries_audit": 40, "queries_verification": 30, "parity_certified": True}

    def rows(seed: int) -> list[dict[str, Any]]:
        return [
            {
                "people": who, "zero_query_mcnemar_p": 0.001, "certificate": {"epsilon": 4},
                # The control does better at the largest ε, which no certificate quotes.
                "row": {
                    **numbers, **paid, "track": "cifar10-resnet56", "queries": 500, "epsilon": epsilon,
                    "subgroup_after": 0.88 + seed / 100 if who == "final" else 0.111, **changes,
                    **({"zero_query_control": 0.99} if epsilon == 8 else {}),
                },
            }
            for who in ("dev-test", "final")
            for epsilon in (4, 8)
        ]  # fmt: skip

    return {
        "benchmark": "transfer",
        "arguments": ["--track", "cifar10-resnet56"],
        "commit": "abc",
        "hardware": {},
        "track": "cifar10-resnet56",
        "people": ["dev-test", "final"],
        "repeated": {"cells": 1, "differing": []},
        "cells": [
            {"regime": "public", "answers": "scores", "queries": 500, "seed": seed, "rows": rows(seed)}
            for seed in (0, 1, 2)
        ],
    }


def claims(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return verdict and number by claim and place."""
    return {(v.claim, v.where): (v.word, v.number) for v in _claims.verdicts(folder)}


def test_a_claim_is_reproduced_only_beyond_the_control(tmp_path: Path) -> None:
    """A closed gap that the zero-query control closes as well is partly reproduced, an open one is not."""
    path = tmp_path / "transfer-quick-cifar10-resnet56.json"
    mine = ("the gap mostly closes on CIFAR-10", "cifar10-resnet56")
    fairer = ("worst-group accuracy improves", "cifar10-resnet56")
    assert claims(tmp_path)[mine] == ("not measured", "–")

    def judged(record: dict[str, Any]) -> tuple[str, str]:
        path.write_text(json.dumps(record))
        return claims(tmp_path)[mine]

    word, number = judged(grid())
    assert word == "reproduced"
    assert "gap closed 0.930 (Q = 500, ε quoted: 4)" in number
    assert "beaten beyond chance in 3 of 3 seeds" in number
    assert "ε = 8: gap closed 0.930, beaten in 0" in number
    # The metric changes by exactly as much in every seed: no spread, and an interval of one point.
    assert claims(tmp_path)[fairer][0] == "reproduced"
    unproven = grid()
    unproven["cells"][1]["rows"] = [{**r, "zero_query_mcnemar_p": 0.4} for r in unproven["cells"][1]["rows"]]
    assert judged(unproven)[0] == "partly"
    # What the control does as well is no merit of the action, whatever improves.
    assert claims(tmp_path)[fairer][0] == "partly"
    few = grid()
    few["cells"].pop()
    assert judged(few)[0] == "partly"
    stopped = grid()
    stopped["cells"][1:] = [
        {**cell, "rows": [], "failed": "Expected a proxy, got none."} for cell in stopped["cells"][1:]
    ]
    word, number = judged(stopped)
    assert word == "not"
    assert "in 1 of 3 seeds" in number
    assert "+0.180 (one seed)" in number
    nothing = grid()
    nothing["cells"] = [{**cell, "rows": [], "failed": "No."} for cell in nothing["cells"]]
    assert judged(nothing) == ("not", "no action was possible")
    assert judged({**grid(), "people": ["dev-test"]})[0] == "not measured"
    word, number = judged(grid(zero_query_control=0.95))
    assert word == "partly"
    assert "in 0 of 3 seeds" in number
    assert number.endswith("*The gap closes as well without a query*")
    assert judged(grid(gap_closed=None))[0] == "not"
    assert judged(grid(gap_closed=0.2, worst_group_after=0.5))[0] == "not"
    assert claims(tmp_path)[fairer][0] == "not"


def test_chance_over_seeds_keeps_a_claim_from_being_reproduced(tmp_path: Path) -> None:
    """Three seeds that each beat the control beyond chance over people are not enough where they scatter widely."""
    record = grid()
    for cell, control in zip(record["cells"], (0.7, 0.88, 0.89), strict=True):
        for line in cell["rows"]:
            line["row"]["zero_query_control"] = control
    (tmp_path / "transfer-quick-cifar10-resnet56.json").write_text(json.dumps(record))
    word, number = claims(tmp_path)["the gap mostly closes on CIFAR-10", "cifar10-resnet56"]
    assert word == "partly"
    assert "in 3 of 3 seeds" in number


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_an_interval_over_seeds_is_students(values: list[float]) -> None:
    """It is what scipy's one-sample t-test gives, and a single seed has none that ends."""
    mean, low, high = _claims.over_seeds(values)
    assert low <= mean <= high
    if len({round(v, 6) for v in values}) > 1:
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert _claims.over_seeds(values[:1]) == (values[0], -math.inf, math.inf)


def test_larger_platforms_and_break_evens_are_judged_by_their_files(tmp_path: Path) -> None:
    """Only pairs with a larger platform count, and pooling is cheaper only where a break-even is known to exist."""
    cells = [
        {
            "platform_over_proxy": size,
            "row": {"gap_closed": closed, "subgroup_after": 0.8, "zero_query_control": control},
            "zero_query_mcnemar_p": 0.001,
        }
        for size, closed, control in ((9.0, 0.9, 0.7), (7.0, 0.9, 0.9), (5.0, 0.2, 0.7), (1.0, 0.1, 0.7))
    ]
    (tmp_path / "matrix-q1000-e8.json").write_text(json.dumps({"cells": cells}))
    word, number = claims(tmp_path)["small proxies move larger platforms", "CIFAR-10"]
    # One seed: never more than that.
    assert word == "partly"
    assert number.startswith("2 of 3 pairs")
    assert "1 of them beyond the zero-query control" in number
    ends = {"4": {"images": 120, "interval": [80, 300], "against": "square"}}
    path = tmp_path / "query_budget-digits-final.json"
    pooling = ("pooling is cheaper than each member attacking alone", "digits")
    beyond = {"way": "pooled_beyond_zero_query", "budget_is": "cheapest", "images": 900, "interval": [500, 2000]}
    more = {"comparisons": [beyond], "on_all_test_people": {"queries_bought": "more right answers"}}
    record: dict[str, Any] = {"break_even": ends, "epsilons": {"4": more, "8": more}, "seeds": [0, 1, 2]}
    path.write_text(json.dumps(record))
    assert claims(tmp_path)[pooling][0] == "reproduced"
    assert "from 120 images on (95 %: 80 to 300" in claims(tmp_path)[pooling][1]
    assert "adds to the zero-query δ, from 900 on (3 seeds)" in claims(tmp_path)[pooling][1]
    path.write_text(json.dumps({**record, "seeds": [0]}))
    assert claims(tmp_path)[pooling][0] == "partly"
    for less in (
        {**more, "on_all_test_people": {"queries_bought": "no difference"}},
        {**more, "comparisons": [{**beyond, "interval": [500, None]}]},
    ):
        path.write_text(json.dumps({**record, "epsilons": {"4": less}}))
        assert claims(tmp_path)[pooling][0] == "partly"
        assert "nothing beyond the zero-query δ" in claims(tmp_path)[pooling][1]
    never = {"images": None, "interval": None, "against": "simba"}
    path.write_text(json.dumps({**record, "break_even": {**ends, "8": never}}))
    assert claims(tmp_path)[pooling][0] == "partly"
    assert "at no size" in claims_table(tmp_path)


def test_only_final_people_stand_in_the_results(tmp_path: Path) -> None:
    """The README's short table and the long one of docs/RESULTS.md show final people alone, and how S compares."""
    (tmp_path / "transfer-quick-a.json").write_text(json.dumps(grid()))
    for table in (results_table(tmp_path), rows_table(tmp_path)):
        head, _, line, *_ = table.splitlines()
        assert "0.890 ± 0.010" in line
        assert "0.111" not in table
        assert line.count("|") == head.count("|")
    assert "500 + 40 + 30" in rows_table(tmp_path)


def test_the_readme_takes_three_minutes() -> None:
    """The README has at most 900 words, and no table in it more than seven columns."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert max(line.count("|") - 1 for line in text.splitlines() if line.startswith("|")) <= 7


def rows(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every honest row in a result, wherever it stands."""
    if isinstance(value, dict):
        if {"subgroup_after", "seed", "track"} <= value.keys():
            yield value
        for part in value.values():
            yield from rows(part)
    elif isinstance(value, list):
        for part in value:
            yield from rows(part)


@pytest.mark.parametrize("path", sorted((_ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_no_row_lacks_a_control(path: Path) -> None:
    """Every row of every result file has all keys, and every control of it was measured."""
    record = json.loads(path.read_text(encoding="utf-8"))
    # The ceiling is δ learned with the platform in hand: no action, and no row.
    found = [] if record["benchmark"] == "ceiling" else list(rows(record))
    assert found or record["benchmark"] not in ("effect", "transfer", "matrix", "demo", "choosing")
    every = Row.keys()
    controls = [k for k in every if k.endswith("_control") or k in ("abuse_rate", "reference_after")]
    assert len(controls) == 8
    for row in found:
        assert [k for k in controls if row.get(k) is None] == []
        # What no action paid for, a defence under which kept δ are measured, has no row of its own.
        if "defence" not in row:
            # Rows kept before there were intervals have none.
            assert set(row) | {"intervals"} == set(every)
            assert row["coverage"] is not None


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_of_the_result_files(name: str) -> None:
    """A figure in the documents says which result files it was made of, and they have not changed since."""
    text = (_ROOT / "docs" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert sources_digest(name) in text


def test_a_figure_is_the_same_each_time_it_is_drawn(tmp_path: Path) -> None:
    """Two drawings of one result file are the same bytes, and another result file changes its digest."""
    one, other = (draw("matrix", folder=tmp_path / name) for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert sources_digest("matrix") != sources_digest("groups")

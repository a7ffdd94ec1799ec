"""Tests that the tables in the documents are those of the result files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _claims
from benchmarks._document import MISSING, WIDEST, Table, table
from benchmarks._documents import DOCUMENTS, SHOWN, data_files, rewritten
from benchmarks._figures import FIGURES, draw, sources_digest
from benchmarks._kept_rows import discordant
from benchmarks._tables import (
    claims_table,
    controls_table,
    costs_table,
    effect_table,
    matrix_table,
    others_table,
    results_table,
    rows_table,
    slices_table,
)
from ttca.certificates import clopper_pearson_interval
from ttca.errors import ConfigError, DataError
from ttca.race_record import NOTHING
from ttca.row import Row
from ttca.statistics.comparisons import mcnemar_exact

_ROOT = Path(__file__).parents[2]


#: People of each group in what these tests write down.
_PEOPLE = 1000
_P = re.compile(r"(?<![\w.])(\d\.?\d*(?:e-\d+)?) \((\d+/\d+|not recoverable)\)")


def measured(after: float, control: float, spoilt: int = 3) -> tuple[dict[str, float], float]:
    """Return what a row holds of S and its control, and their p; ``spoilt`` people are lost beyond need."""
    low, high = clopper_pearson_interval(round(after * _PEOPLE), _PEOPLE)
    lead = round((after - control) * _PEOPLE)
    won, lost = max(lead, 0) + spoilt, max(-lead, 0) + spoilt
    p = mcnemar_exact(np.repeat([True, False], [won, lost]), np.repeat([False, True], [won, lost]))
    kept = {"subgroup_after": after, "subgroup_after_lower": low, "subgroup_after_upper": high}
    return {**kept, "zero_query_control": control}, p


def result(*afters: float) -> dict[str, Any]:
    """Return what a result file of the effect benchmark holds, as far as a table shows it: one row per seed."""
    before = ["reference_before", "subgroup_before", "gap_closed"]
    keys = [*before, "abuse_rate", "noise_control", "class_agnostic_control", "jpeg75_control"]
    row = {"answers": "label", "regime": "own", "queries": 500, **dict.fromkeys(keys, 0.5)}
    kept = [measured(after, 0.85) for after in afters]
    return {
        "track": "tiny",
        "people": "dev-test",
        "rows": [{**row, "epsilon": 2 * k + 2, **rates} for k, (rates, _) in enumerate(kept)],
        "zero_query_mcnemar_p": [p for _, p in kept],
        "parity_certified": 1,
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_tables_are_those_of_the_result_files(name: str) -> None:
    """No number in a table of these documents is hand-written or out of date."""
    document = (_ROOT / name).read_text(encoding="utf-8")
    assert rewritten(name, document) == document


@pytest.mark.parametrize("name", SHOWN)
def test_the_files_that_a_document_links_are_those_of_the_result_files(name: str) -> None:
    """Every table that lies in a file is made of the result files, and the page links it."""
    document, made = (_ROOT / name).read_text(encoding="utf-8"), data_files(name)
    assert made
    for place, text in made.items():
        assert (_ROOT / place).read_text(encoding="utf-8") == text
        assert f"({place.removeprefix('docs/')})" in document


def test_no_file_of_data_is_left_over() -> None:
    """Whatever lies in docs/data is made by a page, and no two pages make the same file."""
    made = [place for name in SHOWN for place in data_files(name)]
    assert sorted(made) == sorted(f"docs/data/{path.name}" for path in (_ROOT / "docs" / "data").iterdir())


def test_a_page_shows_some_columns_and_links_the_whole_table() -> None:
    """The link is there with no column too; a column that is not there is refused; nothing measured has no file."""
    whole = table(("who", "p (b/c)", "file"), [("a, b", "1 (2/3)", "`x.json`"), ("*c*", "–", "`y.json`")])
    assert isinstance(whole, Table)
    link = "[t.csv](data/t.csv)"
    assert whole.short(("file", "who"), "data/t.csv").splitlines() == [
        "| file | who |", "| --- | --- |", "| `x.json` | a, b |", "| `y.json` | *c* |", "", f"All columns: {link}",
    ]  # fmt: skip
    assert whole.short((), "data/t.csv") == link
    assert whole.csv() == 'who,p (b/c),file\n"a, b",1 (2/3),x.json\nc,–,y.json\n'
    with pytest.raises(ConfigError, match="got what"):
        whole.short(("who", "what"), "data/t.csv")
    with pytest.raises(ConfigError, match="got twice"):
        table(("twice", "twice"), [("a", "b")]).short(("twice",), "data/t.csv")
    assert table(("who",), []).short(("who",), "data/t.csv") == MISSING


def test_every_result_file_is_a_line_with_its_controls(tmp_path: Path) -> None:
    """A line names its file and shows effect, control, spread and certificates; one seed has no spread."""
    (tmp_path / "effect-a.json").write_text(json.dumps(result(0.902, 0.922)))
    (tmp_path / "effect-b.json").write_text(json.dumps(result(0.9)))
    (tmp_path / "bounds.json").write_text("{}")
    text = effect_table(tmp_path)
    p = [f"{p:.2g}" for p in result(0.902, 0.922)["zero_query_mcnemar_p"]]
    assert f"| {p[0]} (55/3), {p[1]} (75/3) |" in text
    for cell in ("| tiny, dev-test |", "| 2, 4 |", "| 0.912 ± 0.014 |", "| 1 of 2 |"):
        assert cell in text
    head, _, first, second = text.splitlines()
    assert first.startswith("| `effect-a.json` |")
    assert second.startswith("| `effect-b.json` |")
    assert "±" not in second
    assert first.count("|") == second.count("|") == head.count("|")


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
    keys = ("fidelity_subgroup", "fidelity_reference", "reference_before", "subgroup_before")
    rates, p = measured(0.25, 0.24)
    row = dict.fromkeys(keys, 0.25) | {"gap_closed": None} | rates
    cell = {"proxy": r"a\1b", "platform": "big", "platform_over_proxy": 4.25, "row": row, "zero_query_mcnemar_p": p}
    (tmp_path / "matrix.json").write_text(json.dumps({"cells": [cell]}))
    idea = {"against": "plain", "subgroup_after": [0.5, 0.75], "mean_gain": 0.0625, "won": [9, 7], "lost": [1, 0]}
    ideas = {"plain": {"subgroup_after": [0.5, 0.6]}, "bold": {**idea, "mcnemar_p": [0.0214, 0.0156]}}
    (tmp_path / "ablations-a.json").write_text(json.dumps({"ideas": ideas}))
    served = {"right": 9, "people": 10, "accuracy": 0.9, "bounds": [0.55, 0.998], "commonest_answer": 0.7}
    worse = {**served, "right": 5, "accuracy": 0.5}
    others = {"fairface-faceapi": {"by_race": {"many": served, "few": worse}}, "digits-thirdparty": {"sharp": served}}
    (tmp_path / "tracks.json").write_text(json.dumps({**others, "left_out": {"faces": {"final": 2}}}))
    raced = {
        "track": "tiny", "seed": 0, "epsilon": 4, "reference": 0.9, "nothing": 0.8, "best": "bold", "regret": 0.05,
        "candidates": {"bold": 0.85, "zero-query": 0.75}, "best_of_portfolio": 0.85, "median_of_portfolio": 0.8,
        "recipe": "nothing", "combined": 0.8, "race": {"queries": 200},
    }  # fmt: skip
    (tmp_path / "race-a.json").write_text(json.dumps({"cells": [raced]}))
    names = ("effect", "race", "ceiling", "matrix", "ablations", "served", "left-out")
    marks = "\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in names)
    text = rewritten("docs/effect.md", marks, tmp_path)
    made = {Path(place).stem: whole for place, whole in data_files("docs/effect.md", tmp_path).items()}
    assert '"tiny, dev-test",public,8,0.800,0.500,2,ceiling-a.json\n' in made["effect-ceiling"]
    pair = rf"a\1b,big,4.2,0.250 / 0.250,0.250 / 0.250,0.250,–,0.240,{p:.2g} (13/3),matrix.json"
    assert made["effect-matrix"].splitlines()[1:] == [pair]
    assert r"| a\1b | big | 4.2 | 0.250 / 0.250 | 0.250 / 0.250 | 0.250 |" in matrix_table(tmp_path)
    bold = 'bold,plain,"0.500, 0.750",+0.062,"9/1, 7/0","0.021, 0.016",ablations-a.json'
    assert made["effect-ablations"].splitlines()[1:] == [bold]
    line = '"tiny, 0",4,0.900 / 0.800,bold,0.850,0.800,0.750,nothing,0.800,0.050,200,race-a.json'
    assert made["effect-race"].splitlines()[1:] == [line]
    few, many = (made["effect-served"].index(f"fairface-faceapi,{who},") for who in ("few", "many"))
    assert few < many
    assert "digits-thirdparty,sharp,9,10,0.900 (0.550 to 0.998),0.700,tracks.json\n" in made["effect-served"]
    assert "faces,final,2,tracks.json\n" in made["effect-left-out"]
    assert all(f"(data/{name}.csv)" in text for name in made)
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


def grid(
    afters: tuple[float, ...] = (0.88, 0.89, 0.9),
    controls: tuple[float, ...] = (0.7, 0.7, 0.7),
    *,
    spoilt: int = 3,
    **changes: Any,
) -> dict[str, Any]:
    """Return what a result file of the transfer benchmark holds: one budget, a seed for each S, all people."""
    numbers = {key: 0.5 for key, kind in Row.__annotations__.items() if kind == "float"}
    numbers |= {"subgroup_before": 0.6, "reference_before": 0.9, "gap_before": 0.3, "reference_after": 0.901}
    paid = {"queries_pool": 500, "queries_audit": 40, "queries_verification": 30, "parity_certified": True}

    def rows(after: float, control: float) -> Iterator[dict[str, Any]]:
        for who, epsilon in product(("dev-test", "final"), (4, 8)):
            # The control does better at the largest ε, which no certificate quotes; dev-test people do worse.
            rates, p = measured(after if who == "final" else 0.111, 0.99 if epsilon == 8 else control, spoilt)
            rates |= {
                "gap_closed": (after - 0.6) / 0.3,
                "worst_group_before": 0.6,
                "worst_group_after": min(0.9, after),
            }
            row = {
                **numbers, **paid, **rates, "track": "cifar10-resnet56", "regime": "public", "queries": 500,
                "epsilon": epsilon, **changes,
            }  # fmt: skip
            yield {"people": who, "zero_query_mcnemar_p": p, "certificate": {"epsilon": 4}, "row": row}

    return {
        "benchmark": "transfer",
        "arguments": ["--track", "cifar10-resnet56"],
        "commit": "abc",
        "hardware": {},
        "track": "cifar10-resnet56",
        "people": ["dev-test", "final"],
        "settings": {"public": {"steps": 100}},
        "repeated": {"cells": 1, "differing": []},
        "cells": [
            {"regime": "public", "answers": "scores", "queries": 500, "seed": seed, "rows": list(rows(*pair))}
            for seed, pair in enumerate(zip(afters, controls, strict=True))
        ],
    }


def claims(folder: Path) -> dict[tuple[str, str], _claims.Verdict]:
    """Return verdicts by claim and track."""
    return {(v.claim, v.where.partition(",")[0]): v for v in _claims.verdicts(folder)}


_GAP = ("the gap mostly closes on CIFAR-10", "cifar10-resnet56")
_FAIRER = ("worst-group accuracy improves", "cifar10-resnet56")


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[dict[str, Any]], tuple[_claims.Verdict, _claims.Verdict]]:
    """Return what judges a grid: the gap closed, and the worst group."""

    def found(record: dict[str, Any]) -> tuple[_claims.Verdict, _claims.Verdict]:
        (tmp_path / "transfer-quick-cifar10-resnet56.json").write_text(json.dumps(record))
        by = claims(tmp_path)
        return by[_GAP], by[_FAIRER]

    return found


Judged = Callable[[dict[str, Any]], tuple[_claims.Verdict, _claims.Verdict]]


def test_a_claim_is_reproduced_only_beyond_the_control(judged: Judged, tmp_path: Path) -> None:
    """A closed gap that the zero-query control closes as well is partly reproduced, an open one is not."""
    assert claims(tmp_path)[_GAP].word == "not measured"
    gap, fairer = judged(grid())
    assert (gap.word, fairer.word) == ("reproduced", "reproduced")
    assert gap.where == "cifar10-resnet56, Q = 500, ε = 4"
    assert gap.number.startswith("gap closed 0.967 (0.")
    assert gap.lead.startswith("+0.190 (+0.")
    assert (gap.why, gap.shortened) == ("", "yes")
    # One control serves every verdict about a row.
    assert fairer.lead == gap.lead
    gap, fairer = judged(grid(shortened=False))
    assert gap.shortened == fairer.shortened == "no"
    # What the control does as well is no merit of the action, whatever improves.
    for verdict in judged(grid(controls=(0.88, 0.89, 0.9))):
        assert verdict.word == "partly"
        assert re.fullmatch(r"not distinguishable from the control: up to \+0\.\d{3} possible", verdict.why)
    assert [v.why for v in judged(grid(controls=(0.99, 0.99, 0.99)))] == ["below the control"] * 2
    # Two seeds that differ by less than one person tell of the control, and are too few.
    assert [v.why for v in judged(grid((0.899, 0.9), (0.7, 0.701)))] == ["fewer than 3 seeds"] * 2
    gap, fairer = judged(grid((0.62, 0.62, 0.62), (0.3, 0.3, 0.3)))
    assert (gap.word, gap.why) == ("not", "less than half of the gap")
    assert (fairer.word, fairer.why) == ("not", "no change is possible")
    gap, fairer = judged(grid((0.59, 0.62, 0.62), (0.3, 0.3, 0.3)))
    assert (fairer.word, fairer.why) == ("not", "better in 2 of 3 seeds")
    assert judged(grid(gap_closed=None))[0].why == "no gap was shown"
    assert judged({**grid(), "people": ["dev-test"]})[0].word == "not measured"


def test_an_action_that_chose_by_itself_is_judged_beside_hand_made_settings(tmp_path: Path) -> None:
    """Final people of the grid's main cells decide a claim of their own, or of another budget where there are none; a
    seed where nothing won closed nothing."""
    (tmp_path / "grid").mkdir()

    def keep(name: str, seed: int, lines: list[dict[str, Any]], recipe: str) -> None:
        for line in lines:
            line["row"]["recipe"] = recipe
        text = json.dumps({"cell": {"answers": "scores", "people": "final", "rows": lines}})
        (tmp_path / "grid" / f"{name}-s{seed}-final.json").write_text(text)

    for seed, cell in enumerate(grid()["cells"]):
        lines = [line for line in cell["rows"] if line["people"] == "final"]
        keep("cifar10-resnet56-own-richest-q1000", seed, lines, "mixed")
        # Where there are main cells, another budget of the grid does not count.
        keep("cifar10-resnet56-own-richest-q2000", seed, lines, "mixed")
    keep("fairface-trained-own-richest-q500", 0, lines, "mixed")
    keep("fairface-trained-own-label-q1000", 0, lines, "mixed")
    fog = "cifar10-resnet56-fog, nothing set by hand"
    keep("cifar10-resnet56-fog-own-richest-q1000", 0, lines[:1], "nothing")
    by = {(v.claim, v.where): v for v in _claims.verdicts(tmp_path)}
    mine = "cifar10-resnet56, Q = 1000, ε = 4, nothing set by hand"
    gap, fairer = by[_GAP[0], mine], by[_FAIRER[0], mine]
    assert (gap.word, fairer.word) == ("reproduced", "reproduced")
    assert gap.file == "grid/cifar10-resnet56-own-richest-q1000-s*-final.json"
    assert by["the gap mostly closes on cifar10-resnet56-fog", fog].word == "not"
    few = [v for v in by.values() if v.where.startswith("fairface-trained") and "by hand" in v.where]
    assert {v.file for v in few} == {"grid/fairface-trained-own-richest-q500-s*-final.json"}
    keep("cifar10-resnet56-own-richest-q1000", 2, lines[:1], "nothing")
    by = {(v.claim, v.where): v for v in _claims.verdicts(tmp_path)}
    assert by[_GAP[0], mine].why == "1 of 3 seeds stopped themselves"


def test_chance_over_people_keeps_a_claim_from_being_reproduced(judged: Judged) -> None:
    """Seeds that agree to the last digit on few people prove no more than these people do."""
    # Half of the gap is closed by every seed, on average and in the worst: people like these may close less.
    gap, _ = judged(grid((0.755, 0.755, 0.755), (0.5, 0.5, 0.5)))
    assert (gap.word, gap.why) == ("partly", "less than half of the gap is possible")
    gap, _ = judged(grid((0.85, 0.85, 0.85), (0.82, 0.82, 0.82), spoilt=140))
    assert gap.why.startswith("not distinguishable")


def test_chance_over_seeds_keeps_a_claim_from_being_reproduced(judged: Judged) -> None:
    """Seeds that scatter widely about their control are not told from it, and each must beat it beyond chance."""
    gap, _ = judged(grid((0.9, 0.9, 0.9), (0.3, 0.6, 0.85)))
    assert (gap.word, gap.why[:19]) == ("partly", "not distinguishable")
    assert gap.lead.startswith("+0.317 (-")
    some = grid((0.9, 0.9, 0.9), (0.8, 0.79, 0.81))
    for line in some["cells"][0]["rows"]:
        line["row"] |= {"paired_b": 400, "paired_c": 300, "paired_p": 0.2}
    assert judged(some)[0].why == "the control is beaten beyond chance in 2 of 3 seeds"


def test_a_seed_that_stopped_itself_has_closed_nothing(judged: Judged) -> None:
    """It counts as none of the gap, and nothing is reproduced without it."""
    stopped = grid()
    stopped["cells"][0] = {**stopped["cells"][0], "rows": [], "failed": "Expected a proxy, got none."}
    gap, fairer = judged(stopped)
    assert (gap.word, gap.why) == ("partly", "1 of 3 seeds stopped themselves")
    assert fairer.why.startswith("better in 2 of 3 seeds")
    stopped["cells"][1] = {**stopped["cells"][1], "rows": [], "failed": "Expected a proxy, got none."}
    assert judged(stopped)[0].word == "not"
    stopped["cells"][2] = {**stopped["cells"][2], "rows": [], "failed": "Expected a proxy, got none."}
    assert (judged(stopped)[0].word, judged(stopped)[0].why) == ("not", "no action was possible")


def test_a_control_that_trained_longer_takes_the_credit(judged: Judged, tmp_path: Path) -> None:
    """A control of another file, same track and ε, that trained longer and did as well on dev-test, bars the credit."""
    other = {
        "people": "dev-test",
        "settings": {"steps": 300},
        "rows": [{"regime": "public", "epsilon": 4, "zero_query_control": 0.558}],
    }
    path = tmp_path / "effect-cifar10-resnet56-public-scores-q4000-e4.json"
    path.write_text(json.dumps(other))
    for verdict in judged(grid()):
        assert verdict.word == "partly"
        assert verdict.why == "a control that trained longer reached 0.558 where the action had 0.111 (dev-test)"
    for less in (
        {"settings": {"steps": 100}},
        {"people": "final"},
        {"rows": [{"regime": "public", "epsilon": 8, "zero_query_control": 0.558}]},
        {"rows": [{"regime": "public", "epsilon": 4, "zero_query_control": 0.1}]},
    ):
        path.write_text(json.dumps({**other, **less}))
        assert [v.word for v in judged(grid())] == ["reproduced"] * 2


def test_without_an_interval_over_people_nothing_is_reproduced(judged: Judged, tmp_path: Path) -> None:
    """A metric whose rows do not say how far chance over people reaches is at most partly better."""
    metric: dict[str, Any] = {"demographic_parity_ratio_before": 0.5, "demographic_parity_ratio_after": 0.9}
    mine = ("disparate impact shrinks (demographic-parity ratio rises)", "cifar10-resnet56")
    judged(grid(**metric))
    found = claims(tmp_path)[mine]
    assert (found.word, found.why) == ("partly", "no interval over people in the kept rows")
    assert found.number == "0.500 → 0.900: +0.400 (–)"
    ends = {"demographic_parity_ratio_before": [0.4, 0.6], "demographic_parity_ratio_after": [0.8, 1.0]}
    judged(grid(**metric, intervals={**ends, "gap_closed": [0.8, 1.1]}))
    assert claims(tmp_path)[mine].word == "reproduced"
    assert claims(tmp_path)[mine].number == "0.500 → 0.900: +0.400 (+0.200 to +0.600)"


def test_every_claims_interval_has_a_width() -> None:
    """In the claims of the documents no interval is one point, and where there is none nothing is reproduced."""
    pattern = re.compile(r"\(([+-]?[\d.,]+) to ([+-]?[\d.,]+|no end|never)")
    found = list(_claims.verdicts(_ROOT / "benchmarks" / "results"))
    assert len(found) >= 19
    for verdict in found:
        ends = pattern.findall(f"{verdict.number} {verdict.lead}")
        assert all(low != high for low, high in ends)
        assert ends or verdict.word == "partly"
        if verdict.word == "reproduced":
            assert not verdict.why
            assert "(–)" not in verdict.number + verdict.lead
        else:
            assert verdict.why
    # Those that leave people or seeds out say so.
    assert all("over people alone" in v.number + v.why for v in found if "pool" in v.claim or "larger" in v.claim)
    text = "\n".join(data_files("docs/RESULTS.md").values())
    assert len(pattern.findall(text)) > 100
    assert all(low != high for low, high in pattern.findall(text))


def test_larger_platforms_are_judged_by_whole_intervals(tmp_path: Path) -> None:
    """Only pairs with a larger platform count, and only where half of the gap is within the whole interval."""
    cells = []
    for size, after, control in ((9.0, 0.9, 0.7), (7.0, 0.9, 0.9), (5.0, 0.76, 0.7), (1.0, 0.9, 0.7)):
        rates, p = measured(after, control)
        before = {"subgroup_before": 0.6, "reference_before": 0.9, "reference_after": 0.901, "gap_closed": 0.9}
        cells.append({"platform_over_proxy": size, "row": before | rates, "zero_query_mcnemar_p": p})
    (tmp_path / "matrix-q1000-e8.json").write_text(json.dumps({"cells": cells}))
    found = claims(tmp_path)["small proxies move larger platforms", "CIFAR-10"]
    # One seed: never more than that.
    assert found.word == "partly"
    assert found.number.startswith("2 of 3 pairs")
    assert found.lead == "above 0 in 1 of these"


def test_pooling_is_judged_by_break_evens_and_by_the_same_control(tmp_path: Path) -> None:
    """Pooling is cheaper only where a break-even is known to exist, and says what S adds to its control."""
    path = tmp_path / "query_budget-digits-final.json"
    pooling = ("pooling is cheaper than each member attacking alone", "digits")
    ends = {"4": {"images": 120, "interval": [80, 300], "against": "square"}}
    beyond = {"way": "pooled_beyond_zero_query", "budget_is": "cheapest", "images": 900, "interval": [500, 2000]}

    def judged(control: float = 0.7, **changes: Any) -> _claims.Verdict:
        lines = [line for cell in grid(controls=(control,) * 3)["cells"] for line in cell["rows"]]
        cells = [line for line in lines if line["people"] == "final" and line["row"]["epsilon"] == 4]
        more = {"comparisons": [{**beyond, **changes}], "cells": cells}
        record = {"break_even": ends, "epsilons": {"4": more, "8": more}, "seeds": [0, 1, 2], "queries": 420}
        path.write_text(json.dumps(record))
        return claims(tmp_path)[pooling]

    found = judged()
    # What another pool would have given is not in these intervals.
    assert found.word == "partly"
    assert found.number == "ε = 4: from 120 images on (80 to 300, over people alone), against square"
    assert found.lead.startswith("ε = 4: +0.190 (+0.")
    assert found.why.endswith("ε = 4: credited only with S − control, from 900 images on")
    assert judged(interval=[500, None]).why.endswith("never cheaper when credited only with S − control")
    assert "not distinguishable from the control: up to +0." in judged(0.89).why
    ends["4"] = {"images": None, "interval": None, "against": "simba"}
    assert judged().word == "not"
    assert "at no size, against simba" in claims_table(tmp_path)


def test_only_final_people_stand_in_the_results(tmp_path: Path) -> None:
    """The README's short table and the long ones of docs/RESULTS.md show final people alone, and how S compares."""
    (tmp_path / "transfer-quick-a.json").write_text(json.dumps(grid()))
    tables = {make: make(tmp_path) for make in (results_table, rows_table, controls_table, others_table, costs_table)}
    for text in tables.values():
        head, _, line, *_ = text.splitlines()
        assert "0.111" not in text
        assert line.count("|") == head.count("|") <= WIDEST + 1
    assert "**0.890 (0.8" in tables[results_table]
    assert "| 0.890 (0.8" in tables[rows_table]
    assert "| 3 of 3 | yes |" in tables[rows_table]
    assert "| 500 | 500 | 40 | 30 |" in tables[costs_table]
    p = measured(0.88, 0.7)[1]
    assert "| 0.700 (0.6" in tables[controls_table]
    assert f"{p:.2g} (183/3), " in tables[controls_table]


def test_a_row_without_its_control_makes_no_table(tmp_path: Path) -> None:
    """What the queries added is not shown, and nothing judged, of a row that lacks the control or its test."""
    for key in ("zero_query_control", "zero_query_mcnemar_p"):
        record = grid()
        for line in record["cells"][0]["rows"]:
            (line if key in line else line["row"]).pop(key)
        (tmp_path / "transfer-quick-cifar10-resnet56.json").write_text(json.dumps(record))
        for make in (controls_table, claims_table):
            with pytest.raises((KeyError, DataError)):
                make(tmp_path)


def test_a_wide_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page takes no table of many columns, and no choice of many, so that what is too wide gets a file."""
    head = [f"h{i}" for i in range(WIDEST + 1)]
    wide = table(head, [head])
    monkeypatch.setitem(DOCUMENTS, "docs/tiny.md", (lambda folder: {"all": wide},))
    with pytest.raises(ConfigError, match=r"at most 9 columns at all, got 10\. Choose"):
        rewritten("docs/tiny.md", "<!-- all -->\n<!-- /all -->\n")
    with pytest.raises(ConfigError, match="at most 9 columns of a table, got 10"):
        wide.short(head, "data/t.csv")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_table_of_a_document_is_wide(name: str) -> None:
    """No table that benchmarks write has more than nine columns."""
    text = (_ROOT / name).read_text(encoding="utf-8")
    widths = {len(re.split(r"(?<!\\)\|", line)) - 2 for line in text.splitlines() if line.startswith("|")}
    assert max(widths, default=0) <= WIDEST


@pytest.mark.parametrize("name", ["docs/RESULTS.md", "docs/effect.md", "docs/harm.md", "docs/what_queries_buy.md"])
def test_each_p_has_its_discordant_people(name: str) -> None:
    """Beside every p of a table stand b and c, and these give that p again; only a p of 1 leaves them open."""
    found = []
    for text in data_files(name).values():
        head, *lines = csv.reader(text.splitlines())
        for column in (i for i, cell in enumerate(head) if re.match(r"p \(b/c\)|p\b.*each seed", cell)):
            for cell in (line[column] for line in lines if line[column] != "–"):
                assert _P.sub("", cell).strip(", –") == ""
                found += _P.findall(cell)
    assert len(found) >= 12
    for p, counts in found:
        if counts == "not recoverable":
            assert p == "1"
        else:
            b, c = map(int, counts.split("/"))
            again = mcnemar_exact(np.repeat([True, False], [b, c]), np.repeat([False, True], [b, c])) if b + c else 1.0
            assert f"{again:.2g}" == p
            assert (b, c) in discordant(again, b - c, b + c)


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


#: What rows of protocol 1 lack: they call the baseline an audit, and a p stands beside them.
_LATER = {
    "queries_baseline", "queries_controls", "goal", "stopping", "certified", "persons_verification", "persons_asked",
    "zero_query_epochs", "paired_p", "paired_b", "paired_c", "threads", "shortened", "intervals",
}  # fmt: skip


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
        # Where doing nothing won a race there is nothing to compare.
        nothing = row.get("recipe") == NOTHING
        assert [k for k in controls if row.get(k) is None] == [
            k for k in controls if nothing and k != "reference_after"
        ]
        # What no action paid for, a defence under which kept δ are measured, has no row of its own.
        if "defence" not in row:
            # Where nothing was raced or published, a row does not say so.
            said = set(row) - {"backbones", "recipe", "serves"}
            assert said == (set(every) - _LATER | {"queries_audit"} if "queries_audit" in row else set(every))
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


def test_every_row_of_every_table_has_a_cell_for_each_column() -> None:
    """No document has a row that is shorter or longer than the head of its table."""
    for page in sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").glob("*.md")]):
        text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))
        for lines in re.findall(r"(?m)(?:^\|.*\n)+", text):
            cells = [len(re.split(r"(?<!\\)\|", line)) for line in lines.splitlines()]
            assert len(set(cells)) == 1, f"{page.name}: {lines[:80]}"
